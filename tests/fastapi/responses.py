import asyncio
import json


class Response:
    def __init__(self, content=b"", status_code=200, media_type="text/plain"):
        self.content, self.status_code, self.media_type = content, status_code, media_type

    async def start(self, send, *headers):
        headers = [(b"content-type", self.media_type.encode()), *headers]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})

    async def reply(self, receive, send):
        await self.start(send, (b"content-length", str(len(self.content)).encode()))
        await send({"type": "http.response.body", "body": self.content})


class JSONResponse(Response):
    def __init__(self, content, status_code=200):
        super().__init__(json.dumps(content, separators=(",", ":")).encode(), status_code, "application/json")


class StreamingResponse(Response):
    async def reply(self, receive, send):
        async def stream():
            await self.start(send)
            async for chunk in self.content:
                await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        async def disconnect():
            while (await receive())["type"] != "http.disconnect":
                pass

        # Without its client, a stream ends.
        both = [asyncio.ensure_future(stream()), asyncio.ensure_future(disconnect())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
