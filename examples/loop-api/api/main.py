"""A small API with the interface of the real one: GET /health, and MCP over Streamable HTTP at /mcp.

LOOP_FAULT (environment or build argument) injects faults for tests, separated by commas:
  slow-start=N  starts to listen after N seconds
  unhealthy     /health returns 200 with the status "unhealthy"
  sick-after=N  the same from N seconds after the start
  hide-vault    behaves as if the vault was not mounted
  exit          exits at once with status 1
"""

import asyncio
import json
import os
import sys
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

VERSION = "1.0.0"
COLOR = os.environ.get("LOOP_COLOR", "none")
VAULT = os.environ.get("VAULT_PATH", "/vault")
FAULTS = dict(f.partition("=")[::2] for f in os.environ.get("LOOP_FAULT", "").split(",") if f)
STARTED = time.monotonic()

if "exit" in FAULTS:
    sys.exit("loop-api: LOOP_FAULT=exit, ending with status 1")
time.sleep(float(FAULTS.get("slow-start", 0)))

app = FastAPI(title="loop-api")


def vault_exists() -> bool:
    return "hide-vault" not in FAULTS and os.access(VAULT, os.R_OK | os.X_OK)


def sick() -> bool:
    sick_after = float(FAULTS.get("sick-after", "inf"))
    return "unhealthy" in FAULTS or time.monotonic() - STARTED > sick_after


@app.get("/health")
def health() -> Response:
    body = {"status": "healthy", "vault_exists": vault_exists(), "version": VERSION, "color": COLOR}
    if not body["vault_exists"]:
        return JSONResponse(body | {"status": "unhealthy", "error": "vault not accessible"}, 503)
    return JSONResponse(body | {"status": "unhealthy"} if sick() else body)


TOOLS = [
    {
        "name": "echo",
        "description": "Returns the given text at once",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
    {
        "name": "slow",
        "description": "Responds after the given number of seconds",
        "inputSchema": {"type": "object", "properties": {"seconds": {"type": "number"}}, "required": ["seconds"]},
    },
    {
        "name": "count",
        "description": "Streams the numbers from 1 to n, one per interval (in seconds), then their sum",
        "inputSchema": {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "interval": {"type": "number"}},
            "required": ["n"],
        },
    },
]


def text_result(text: str) -> dict:
    return {"content": [{"type": "text", "text": text}], "isError": False}


def reply(request_id, **outcome) -> dict:
    return {"jsonrpc": "2.0", "id": request_id, **outcome}


def error(request_id, code: int, message: str, status: int = 200) -> Response:
    return JSONResponse(reply(request_id, error={"code": code, "message": message}), status)


def event(message: dict) -> str:
    return f"event: message\ndata: {json.dumps(message)}\n\n"


async def count(request_id, params: dict):
    """Streams one notification per number, then the result."""
    arguments = params["arguments"]
    n, token = int(arguments["n"]), params.get("_meta", {}).get("progressToken")
    for i in range(1, n + 1):
        progress = {"progressToken": token, "progress": i, "total": n}
        log = {"level": "info", "data": f"{COLOR} {i} of {n}"}
        method, body = ("progress", progress) if token is not None else ("message", log)
        yield event({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": body})
        await asyncio.sleep(float(arguments.get("interval", 0.1)))
    yield event(reply(request_id, result=text_result(f"{COLOR} {n * (n + 1) // 2}")))


async def call_tool(request_id, params: dict) -> Response:
    name, arguments = params.get("name"), params.get("arguments", {})
    if name == "count":
        return StreamingResponse(count(request_id, params), media_type="text/event-stream")
    if name == "slow":
        await asyncio.sleep(float(arguments["seconds"]))
        return JSONResponse(reply(request_id, result=text_result(f"{COLOR} waited {arguments['seconds']} s")))
    if name == "echo":
        return JSONResponse(reply(request_id, result=text_result(f"{COLOR} {arguments['text']}")))
    return error(request_id, -32602, f"unknown tool: {name}")


@app.post("/mcp")
async def mcp(request: Request) -> Response:
    """Stateless: without a session id, either color can handle any request."""
    try:
        message = await request.json()
        method, request_id, params = message["method"], message.get("id"), message.get("params", {})
    except (ValueError, KeyError, TypeError):
        return error(None, -32700, "not a JSON-RPC request", 400)
    if request_id is None:
        return Response(status_code=202)
    if method == "initialize":
        return JSONResponse(
            reply(
                request_id,
                result={
                    "protocolVersion": params.get("protocolVersion", "2025-06-18"),
                    "capabilities": {"tools": {}, "logging": {}},
                    "serverInfo": {"name": "loop-api", "version": VERSION},
                },
            )
        )
    if method == "ping":
        return JSONResponse(reply(request_id, result={}))
    if method == "tools/list":
        return JSONResponse(reply(request_id, result={"tools": TOOLS}))
    if method == "tools/call":
        try:
            return await call_tool(request_id, params)
        except (KeyError, TypeError, ValueError) as problem:
            return error(request_id, -32602, f"wrong arguments: {problem!r}")
    return error(request_id, -32601, f"unknown method: {method}")
