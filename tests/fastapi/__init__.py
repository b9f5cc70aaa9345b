"""The part of FastAPI that examples/loop-api uses. Importing FastAPI itself takes 0.6 CPU-s, at each start of a color."""

import inspect
import json

from .responses import JSONResponse, Response


class Request:
    def __init__(self, receive):
        self._receive = receive

    async def json(self):
        body, more = b"", True
        while more:
            message = await self._receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return json.loads(body)


class FastAPI:
    def __init__(self, **_):
        self._handlers = {}

    def get(self, path):
        return self._route("GET", path)

    def post(self, path):
        return self._route("POST", path)

    def _route(self, method, path):
        def register(handler):
            self._handlers[method, path] = handler
            return handler

        return register

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                phase = (await receive())["type"]
                await send({"type": f"{phase}.complete"})
                if phase == "lifespan.shutdown":
                    return
        handler = self._handlers.get((scope["method"], scope["path"]))
        if handler is None:
            known = any(path == scope["path"] for _, path in self._handlers)
            response = JSONResponse({"detail": "none"}, 405 if known else 404)
        else:
            wanted = inspect.signature(handler).parameters
            response = handler(Request(receive)) if wanted else handler()
            if inspect.isawaitable(response):
                response = await response
        if not isinstance(response, Response):
            response = JSONResponse(response)
        await response.reply(receive, send)
