"""examples/loop-api with MCP sessions in memory, as examples/session-api has them: only the process that created one knows it.

For tests in a swarm: nodes that have the image of loop-api pull this as one small layer, where Node would be another 120 MB. It
takes the place of api/main.py, which becomes api/stateless.py.
"""

import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from api import stateless

app = FastAPI(title="session-api")
app.get("/health")(stateless.health)

counters: dict[str, int] = {}


@app.post("/mcp")
async def mcp(request: Request) -> Response:
    session, message = request.headers.get("mcp-session-id"), await request.json()
    if session is None:
        if message.get("method") != "initialize":
            return JSONResponse({"error": "no session"}, 400)
        response = await stateless.mcp(request)
        response.headers["mcp-session-id"] = session = uuid.uuid4().hex
        counters[session] = 0
        return response
    if session not in counters:
        return JSONResponse({"error": "session not found"}, 404)
    if message.get("params", {}).get("name") != "count":
        return await stateless.mcp(request)
    counters[session] += 1
    text = f"{stateless.COLOR} {counters[session]}"
    return JSONResponse(stateless.reply(message["id"], result=stateless.text_result(text)))


def end(request: Request) -> Response:
    counters.pop(request.headers.get("mcp-session-id"), None)
    return Response(status_code=200)


app.add_route("/mcp", end, ["DELETE"])
