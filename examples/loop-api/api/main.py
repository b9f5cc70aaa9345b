"""A small API with the interface of the real one: GET /health, and MCP over Streamable HTTP at /mcp.

It answers clients of every MCP revision so far. Those up to 2025-11-25 begin with `initialize`. Since 2026-07-28 there is no
beginning: each request names its revision in `params._meta` and repeats parts of its body in headers, which are checked here.

LOOP_FAULT (in the container's environment, or as build argument) injects faults for tests, separated by commas:
  slow-start=N  starts to listen after N seconds
  unhealthy     /health returns 200 with the status "unhealthy"
  sick-after=N  the same from N seconds after the start
  fail=N        /mcp returns 500 for N percent of the calls, at random
  hide-vault    behaves as if the vault was not mounted
  exit          exits at once with status 1
"""

import asyncio
import base64
import json
import os
import random
import re
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


MODERN = "2026-07-28"
LEGACY = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
META = "io.modelcontextprotocol/"  # the prefix of the protocol's own keys in `_meta`
SERVER = {"name": "loop-api", "version": VERSION}
# The error codes of MODERN. They go with the HTTP status 400.
HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION = -32020, -32602, -32022
# A release may change the tools, so clients should not reuse an old answer. Every client gets the same one.
UNCACHED = {"ttlMs": 0, "cacheScope": "public"}

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


def result(**fields) -> dict:
    """A result for every revision. MODERN needs `resultType` and wants the server's name; older clients ignore both."""
    return {**fields, "resultType": "complete", "_meta": {META + "serverInfo": SERVER}}


def text_result(text: str) -> dict:
    return result(content=[{"type": "text", "text": text}], isError=False)


def reply(request_id, **outcome) -> dict:
    return {"jsonrpc": "2.0", "id": request_id, **outcome}


def error(request_id, code: int, message: str, status: int = 200, **data) -> Response:
    return JSONResponse(reply(request_id, error={"code": code, "message": message, **data}), status)


def event(message: dict) -> str:
    return f"event: message\ndata: {json.dumps(message)}\n\n"


async def count(request_id, params: dict):
    """Streams one notification per number, then the result."""
    arguments, meta = params["arguments"], params.get("_meta", {})
    n, token = int(arguments["n"]), meta.get("progressToken")
    for i in range(1, n + 1):
        progress = {"progressToken": token, "progress": i, "total": n}
        log = {"level": "info", "data": f"{COLOR} {i} of {n}"}
        method, body = ("progress", progress) if token is not None else ("message", log)
        # MODERN forbids log messages unless the request asks for them, and deprecates them: there are none.
        if method == "progress" or META + "protocolVersion" not in meta:
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
    return error(request_id, INVALID_PARAMS, f"unknown tool: {name}")


def plain(header: str) -> str:
    """The value of a header that may be encoded, because it is not plain ASCII."""
    encoded = re.fullmatch(r"=\?base64\?(.*)\?=", header)
    return base64.b64decode(encoded[1], validate=True).decode() if encoded else header


def reject(request: Request, request_id, method: str, params: dict) -> Response | None:
    """Checks what MODERN requires of each request. Proxies rely on the headers, so they must say what the body says."""
    meta = params.get("_meta", {})
    for key in ("protocolVersion", "clientCapabilities"):
        if META + key not in meta:
            return error(request_id, INVALID_PARAMS, f"params._meta has no {META}{key}", 400)
    expected = {"MCP-Protocol-Version": meta[META + "protocolVersion"], "Mcp-Method": method}
    if method == "tools/call":
        expected["Mcp-Name"] = params.get("name")
    for name, value in expected.items():
        try:
            matches = plain(request.headers[name]) == value
        except (KeyError, ValueError):
            matches = False
        if not matches:
            return error(request_id, HEADER_MISMATCH, f"the header {name} is not {value!r}, as in the body", 400)
    return None


@app.post("/mcp")
async def mcp(request: Request) -> Response:
    if random.random() * 100 < float(FAULTS.get("fail", 0)):
        return Response("LOOP_FAULT=fail", status_code=500)
    """Stateless: without a session id, either color can handle any request."""
    try:
        message = await request.json()
        method, request_id, params = message["method"], message.get("id"), message.get("params", {})
        named = [params.get("_meta", {}).get(META + "protocolVersion"), request.headers.get("mcp-protocol-version")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return error(None, -32700, "not a JSON-RPC request", 400)
    if request_id is None:
        return Response(status_code=202)
    for version in named:
        if version not in (None, MODERN, *LEGACY):
            data = {"supported": [MODERN, *LEGACY], "requested": version}
            return error(request_id, UNSUPPORTED_VERSION, "unsupported protocol version", 400, data=data)
    modern = MODERN in named
    if modern and (rejection := reject(request, request_id, method, params)):
        return rejection
    if method == "tools/list":
        return JSONResponse(reply(request_id, result=result(tools=TOOLS, **UNCACHED)))
    if method == "tools/call":
        try:
            return await call_tool(request_id, params)
        except (KeyError, TypeError, ValueError) as problem:
            return error(request_id, INVALID_PARAMS, f"wrong arguments: {problem!r}")
    if modern and method == "server/discover":
        offer = {"supportedVersions": [MODERN, *LEGACY], "capabilities": {"tools": {}}, **UNCACHED}
        return JSONResponse(reply(request_id, result=result(**offer)))
    if not modern and method == "initialize":
        asked = params.get("protocolVersion")
        agreed = {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": SERVER,
        }
        return JSONResponse(reply(request_id, result=agreed))
    if not modern and method == "ping":
        return JSONResponse(reply(request_id, result={}))
    return error(request_id, -32601, f"unknown method: {method}", 404 if modern else 200)
