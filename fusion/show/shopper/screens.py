"""Tablets at doors and in payment zones: paired by a one-time code, each shows its gate or its zone alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fusion.errors import FusionError, extra
from fusion.gates.shopper_sessions import ShopperSessions
from fusion.show.page import filled
from fusion.show.shopper.access import ShopperAccess, content_of
from fusion.show.shopper.limits import Limits
from fusion.show.shopper.live import ShopperPages
from fusion.show.web.guarding import check_origin, network_of
from fusion.show.web.languages import texts_json
from fusion.store.models import Store
from fusion.till.authorisations import Authorisations
from fusion.till.baskets import Confirmation, confirmed

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

# Wrong pairing codes within ten minutes, of one network.
WINDOW_S, WRONG_MAX = 600.0, 10


def screens_of(store: Store) -> list[str]:
    """The screens that a store may have: `gate/ID` and `zone/ID`."""
    gates = [f"gate/{gate.id}" for gate in store.gate]
    return gates + [f"zone/{zone.id}" for zone in store.zone if zone.kind == "payment"]


class Screens:
    """The screens of a store.

    Attributes:
        routes: of the application.
    """

    def __init__(
        self,
        store: Store,
        access: ShopperAccess,
        pages: ShopperPages,
        sessions: ShopperSessions,
        authorisations: Authorisations | None,
        now_ns: Callable[[], int],
        clock_s: Callable[[], float],
    ) -> None:
        """Prepare; see `ShopperParts` for `authorisations`."""
        self._store, self._access, self._pages, self._sessions = store, access, pages, sessions
        self._authorisations, self._now_ns, self._clock_s = authorisations, now_ns, clock_s
        self._tries = Limits(WINDOW_S)
        self.routes = [
            Route("/screen", self._page),
            Route("/screen/gate/{id}", self._page), Route("/screen/zone/{id}", self._page),
            Route("/screen/api/me", self._me), Route("/screen/api/live", self._live),
            Route("/screen/api/pair", self._pair, methods=["POST"]),
            Route("/screen/api/confirm", self._confirm, methods=["POST"]),
        ]  # fmt: skip

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(filled("shopper/screen.html", {"texts": texts_json("screen")}))

    async def _me(self, request: Request) -> Response:
        session, store = self._access.screen(request), self._store
        found: dict[str, Any] = {
            "screen": None if session is None else session.subject,
            "csrf": None if session is None else session.csrf,
            "store": store.name, "currency": store.currency, "exponent": store.currency_exponent,
        }  # fmt: skip
        if session is not None:
            found["products"] = {product.gtin: product.name for product in store.products}
            found["ways"] = {gate.id: gate.direction for gate in store.gate}
            found["pays"] = store.payment.mode
        response = JSONResponse(found)
        if session is not None:
            self._access.renew(request, response, session)
        return response

    async def _live(self, request: Request) -> Response:
        session = self._access.required(request, screen=True)
        if self._pages.full:
            raise HTTPException(503, "full")
        stream = self._pages.stream(session, lambda: self._access.holds(session))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _pair(self, request: Request) -> Response:
        """Make a tablet the screen that a code is for."""
        check_origin(request)
        content, now_s = await content_of(request), self._clock_s()
        network = network_of(request.client.host if request.client else "")
        if self._tries.reached(network, WRONG_MAX, now_s):
            raise HTTPException(429, "wait")
        code = content.get("code")
        screen = None
        if isinstance(code, str):
            screen = await asyncio.to_thread(self._sessions.take_pairing, code, now_s)
        if screen is None or screen not in screens_of(self._store):
            self._tries.add(network, now_s)
            raise HTTPException(403, "code_unknown")
        return await asyncio.to_thread(self._access.begun, "screen", screen, self._access.screen(request))

    async def _confirm(self, request: Request) -> Response:
        """A customer confirms a basket that a zone's screen shows, as over MQTT; it asks again while it waits."""
        session, content = await self._access.change(request, screen=True)
        visit, total = content.get("visit"), content.get("total")
        if not session.subject.startswith("zone/") or not isinstance(visit, str) or type(total) is not int:
            raise HTTPException(400, "want a visit and a total, from a zone's screen")
        answer = Confirmation(False, "no payment here", "Please ask the staff")
        if self._authorisations is not None:
            try:
                answer = confirmed(self._pages.at(session.subject), self._authorisations, visit, total, self._now_ns())
            except FusionError:
                raise HTTPException(503, "books_away") from None
        return JSONResponse(
            {"confirmed": answer.confirmed, "display": answer.display, "again_s": answer.again_s, "visit": visit}
        )
