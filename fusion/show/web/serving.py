"""How pages are served over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, extra
from fusion.show.web.connections import BoundedProtocol

with extra("console"):
    import uvicorn
    from starlette.types import ASGIApp

# Pages listen for as long as they are open; ending does not wait for them.
CLOSE_MAX_S = 1


@asynccontextmanager
async def in_background(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Do work beside the requests until the block ends, which cancels it."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http_settings(app: ASGIApp, *, proxy: str | None = None, **options: Any) -> uvicorn.Config:
    """How pages are served: bounded connections, and the client's address as it is seen.

    Args:
        app: the application.
        proxy: address of a proxy that is believed about its clients' addresses (X-Forwarded-For); None: no
            client is, those on this machine included, since whoever connects could claim another at every guess.
        options: further ones of uvicorn.
    """
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_MAX_S,
        **options,
    )


class _Server(uvicorn.Server):
    """A server that closes its application first, also where it is interrupted twice or while it starts.

    uvicorn leaves it open then, and its end is a traceback.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn calls it."""
        await super().startup(sockets)
        if self.should_exit:
            await self.lifespan.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn calls it."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    proxy: str | None = None,
) -> None:
    """Serve pages until interrupted; see `http_settings` for `proxy`.

    Raises:
        FusionError: the port is taken, or the certificate cannot be used.
    """
    settings = http_settings(app, proxy=proxy, host=host, port=port, ssl_certfile=certificate, ssl_keyfile=key)
    try:
        _Server(settings).run()
    except (OSError, SystemExit) as error:
        raise FusionError(f"{host}:{port}: cannot be served: {error}") from None
