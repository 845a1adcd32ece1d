"""One console for several stores: people sign in once, and each store has its page under /stores/ID/.

A person sees the stores in which they have rights. Every address of another store is answered like one that does not
exist, so that they learn nothing of it, not even its id.
"""

from __future__ import annotations

import html
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fusion.errors import FusionError, extra
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.show.console.access import Access
from fusion.show.console.server import Console, Files, asset
from fusion.show.console.users import Users
from fusion.show.page import filled
from fusion.show.web.guarding import Guarded, refused
from fusion.store.models import Store

with extra("console"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, RedirectResponse, Response
    from starlette.routing import Mount, Route


@dataclass(frozen=True)
class Shown:
    """One of the stores: its books, what else its page shows, and what settles its decisions."""

    store: Store
    ledger: Ledger
    files: Files = field(default_factory=Files)
    checkout: Checkout | None = None


class SeveralConsole:
    """The console of several stores.

    Attributes:
        app: the ASGI application.
        access: who is signed in.
        consoles: by the stores' ids.
    """

    def __init__(
        self,
        shown: Sequence[Shown],
        users: Users,
        *,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
        https: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        **options: Any,
    ) -> None:
        """Make a console.

        Args:
            shown: the stores, each once.
            users: who may sign in.
            hosts: host names under which the pages may be requested.
            https: whether cookies are for encrypted connections only.
            clock_s: of sessions.
            clock_ns: when decisions are made, and take effect.
            options: further ones of each `Console`.

        Raises:
            FusionError: a store is given twice.
        """
        names = {each.store.id: each.store.name for each in shown}
        if len(names) != len(shown):
            raise FusionError(f"stores: want each once, got {', '.join(each.store.id for each in shown)}")
        title = {"name": "Stores"}
        self.access = Access("stores", names, users, title, https=https, clock_s=clock_s, clock_ns=clock_ns)
        self.consoles = {
            each.store.id: Console(
                each.store, each.ledger, users, files=each.files, checkout=each.checkout, https=https, clock_s=clock_s,
                clock_ns=clock_ns, access=self.access, **options,
            )
            for each in shown
        }  # fmt: skip
        routes = [
            Route("/", self._index),
            *self.access.routes,
            Route("/assets/{name:path}", asset),
            *(Mount(f"/stores/{quote(store)}", routes=console.routes) for store, console in self.consoles.items()),
            Route("/stores/{rest:path}", self._unknown, methods=["GET", "POST"]),
        ]
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(Guarded)],
            exception_handlers={HTTPException: refused},
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for console in self.consoles.values():
                await stack.enter_async_context(console.working(app))
            yield

    async def _index(self, request: Request) -> Response:
        """The stores of whoever is signed in; the page of the only one."""
        session = self.access.session(request)
        if session is None:
            return RedirectResponse("/sign-in", 303)
        stores = self.access.may_look(session)
        if len(stores) == 1:
            return RedirectResponse(f"/stores/{quote(next(iter(stores)))}/", 303)
        rows = (f'<li><a href="/stores/{quote(store)}/">{html.escape(name)}</a></li>' for store, name in stores.items())
        return HTMLResponse(filled("stores.html", {"stores": "".join(rows), "user": html.escape(session.user)}))

    async def _unknown(self, request: Request) -> Response:
        """A store that is not here: as one of which the user knows nothing."""
        if self.access.session(request) is None:
            raise HTTPException(401, "sign in first")
        raise HTTPException(404)


__all__ = ["SeveralConsole", "Shown"]
