"""A placeholder for the OAuth server: it implements the routes that nginx sends here, but not real authentication.

It authenticates nobody, and its tokens grant no access. It only rejects requests that could harm this host or send a code to
another site. Replace it with the real server through LOOP_AUTH_CONTEXT.
"""

import json
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

DATA = Path(os.environ.get("OAUTH_DATA_PATH", "/oauth-data"))

# Each registration is one small file. The limits keep them from filling the disk.
LARGEST_REGISTRATION = 16 * 1024
MOST_CLIENTS = 1000

app = FastAPI(title="loop-auth")


def public_url(request: Request) -> str:
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{scheme}://{request.headers['host']}"


@app.get("/health")
def health() -> dict:
    return {"status": "healthy", "data_writable": os.access(DATA, os.W_OK)}


@app.get("/.well-known/oauth-authorization-server")
def metadata(request: Request) -> dict:
    url = public_url(request)
    return {
        "issuer": url,
        "authorization_endpoint": f"{url}/authorize",
        "token_endpoint": f"{url}/token",
        "registration_endpoint": f"{url}/register",
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    }


def client_file(client_id: str) -> Path:
    """The file of a client. Only ids in this server's format become part of a path."""
    if not re.fullmatch("[0-9a-f]{16}", client_id):
        raise HTTPException(400, "unknown client_id")
    return DATA / f"client-{client_id}.json"


def is_redirect(uri: object) -> bool:
    """Allows https, or http on the client's own machine (RFC 8252), without a fragment."""
    if not isinstance(uri, str) or re.search(r"[\x00-\x20\x7f\\]", uri):
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    own_machine = parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1")
    return bool(host) and not parts.fragment and (parts.scheme == "https" or own_machine)


@app.post("/register", status_code=201)
async def register(request: Request) -> dict:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_REGISTRATION:
            raise HTTPException(413, "registration too large")
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    uris = asked.get("redirect_uris") if isinstance(asked, dict) else None
    if not isinstance(uris, list) or not uris or not all(map(is_redirect, uris)):
        raise HTTPException(400, "redirect_uris must be https addresses, or http ones on localhost")
    if sum(1 for _ in DATA.glob("client-*.json")) >= MOST_CLIENTS:
        raise HTTPException(503, "too many clients")
    client = asked | {"client_id": secrets.token_hex(8)}  # never the requested id, which could be another client's
    with client_file(client["client_id"]).open("x") as file:
        json.dump(client, file)
    return client


@app.get("/authorize")
def authorize(client_id: str, redirect_uri: str, state: str = "") -> Response:
    try:
        registered = json.loads(client_file(client_id).read_text())["redirect_uris"]
    except FileNotFoundError:
        raise HTTPException(400, "unknown client_id") from None
    if redirect_uri not in registered:
        raise HTTPException(400, "redirect_uri is not registered")
    separator = "&" if urlsplit(redirect_uri).query else "?"
    result = urlencode({"code": secrets.token_hex(8), "state": state})
    return RedirectResponse(f"{redirect_uri}{separator}{result}", 302)


@app.post("/token")
def token() -> Response:
    return JSONResponse({"access_token": secrets.token_hex(16), "token_type": "Bearer", "expires_in": 3600})
