"""A stand-in for the OAuth server: the routes that nginx sends here, with just enough behind them to be seen.

It checks nothing. Put the real one in its place with LOOP_AUTH_CONTEXT.
"""

import json
import os
import secrets
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

DATA = Path(os.environ.get("OAUTH_DATA_PATH", "/oauth-data"))

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


@app.post("/register", status_code=201)
async def register(request: Request) -> dict:
    client = {"client_id": secrets.token_hex(8), **(await request.json())}
    (DATA / f"client-{client['client_id']}.json").write_text(json.dumps(client))
    return client


@app.get("/authorize")
def authorize(redirect_uri: str, state: str = "") -> Response:
    return RedirectResponse(f"{redirect_uri}?code={secrets.token_hex(8)}&state={state}", 302)


@app.post("/token")
def token() -> Response:
    return JSONResponse({"access_token": secrets.token_hex(16), "token_type": "Bearer", "expires_in": 3600})
