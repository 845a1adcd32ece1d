"""What stands before every page: the size of requests, and headers that isolate a page from other sites."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from fusion.errors import extra

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX_BYTES = 64 << 10
ADDRESS_MAX = 64
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with "no-referrer" browsers would not name the origin of a form
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def network_of(host: str) -> str:
    """The part of an address that a customer of a provider cannot choose: of IPv6 the first 64 bits."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:ADDRESS_MAX]
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def check_origin(request: Request) -> None:
    """Refuse what another site's page sent: browsers name the origin of everything that is posted."""
    scheme, _, host = request.headers.get("origin", "").partition("://")
    if scheme not in ("http", "https") or not host or host != request.headers.get("host", ""):
        raise HTTPException(403, "want a request from one of these pages")


class Guarded:
    """Middleware that limits the size of requests and adds the headers that isolate a page from other sites.

    `more` replaces some of `HEADERS`, for pages that need more of a browser.
    """

    def __init__(self, app: ASGIApp, more: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in {**HEADERS, **(more or {})}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > BODY_MAX_BYTES:
                raise HTTPException(413, "too long")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        await self._app(scope, limited, with_headers)


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that raised HTTPException."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


__all__ = ["HEADERS", "Guarded", "check_origin", "network_of", "refused"]
