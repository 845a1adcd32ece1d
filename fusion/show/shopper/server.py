"""The shopper's pages and the screens of a store, as one application for the public network.

It stands beside the runner, as the console does, and reads the same three things: the books, the runner's feed, the
evidence. It has no staff users and takes no decisions: what a shopper says goes into the books as evidence.
"""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fusion.errors import EntryError, FusionError, IdempotencyConflict, extra
from fusion.gates.codes import VALID_S, CodeSigner
from fusion.gates.shopper_sessions import ShopperSession, ShopperSessions
from fusion.money.ledger import Ledger
from fusion.money.links import PATH, Links
from fusion.money.mail import Mailer
from fusion.money.moments import Moments
from fusion.money.profiles import Profiles
from fusion.show.page import filled, page_file
from fusion.show.shopper.access import ShopperAccess
from fusion.show.shopper.limits import Limits
from fusion.show.shopper.live import ShopperPages
from fusion.show.shopper.pdf import receipt_pdf
from fusion.show.shopper.screens import Screens
from fusion.show.shopper.visits import Visits
from fusion.show.web.following import CONNECT_EVERY_S
from fusion.show.web.guarding import HEADERS, Guarded, refused
from fusion.show.web.languages import texts_json
from fusion.show.web.serving import in_background
from fusion.store.models import Store
from fusion.till.answers import Answers
from fusion.till.authorisations import Authorisations
from fusion.till.customers import CustomerFile, Customers, NoCustomers

with extra("console"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

with extra("gate"):
    import segno

_ASSETS = {
    "shopper.css": "text/css", "shopper.js": "text/javascript",
    "screen.css": "text/css", "screen.js": "text/javascript",
    "sw.js": "text/javascript", "manifest.webmanifest": "application/manifest+json", "icon.svg": "image/svg+xml",
}  # fmt: skip
# As on every page, and what an installed app needs: its manifest, its icon, its service worker.
_HEADERS = {
    "content-security-policy": HEADERS["content-security-policy"] + "; manifest-src 'self'; worker-src 'self'"
}
# A code is shown for half of its life, so that one just read off a screen is still good. A family's next member gets
# another one after this long.
CODE_EVERY_S, CODE_AGAIN_S = VALID_S / 2, 3.0
CODES_KEPT_MAX = 2000
# Within an hour, of one account or visit: disputes, answers, mails and files; a bill has fewer lines than that.
CHANGES_WINDOW_S, CHANGES_MAX = 3600.0, 120
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class ShopperParts:
    """What the pages of a store are made of; what is None is left out of them.

    Attributes:
        links: signs customers in.
        sessions: who is signed in.
        moments: when and where goods were taken.
        answers: takes shoppers' answers and disputes.
        signer: makes codes for the gate.
        customers: the retailer's list.
        mailer: sends links, and notes receipts that are to be sent again.
        profiles: purchase profiles of who consented.
        forget: asks that an account be erased everywhere.
        authorisations: takes confirmations of baskets in payment zones.
        seller: brand on receipts.
        font: for PDF; see `receipt_pdf`.
        url: where customers reach the pages.
    """

    links: Links
    sessions: ShopperSessions
    moments: Moments
    answers: Answers
    signer: CodeSigner | None = None
    customers: Customers = field(default_factory=NoCustomers)
    mailer: Mailer | None = None
    profiles: Profiles | None = None
    forget: Callable[[str], object] | None = None
    authorisations: Authorisations | None = None
    seller: str | None = None
    font: Path | None = None
    url: str = ""


@dataclass(frozen=True)
class _Code:
    """The code that an account was given last."""

    code: str
    made_s: float


class ShopperApp:
    """The pages of one store.

    Attributes:
        app: the ASGI application.
        access: who is signed in.
        pages: what is open.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        parts: ShopperParts,
        *,
        feed: Path | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
        https: bool = False,
        clock_s: Callable[[], float] = time.time,
        connect_every_s: float = CONNECT_EVERY_S,
    ) -> None:
        """Make the pages.

        Args:
            store: the store.
            ledger: its books.
            parts: what the pages are made of.
            feed: socket of the runner; without one baskets do not fill by themselves.
            hosts: host names under which the pages may be requested.
            https: whether they come over encrypted connections.
            clock_s: seconds since 1970.
            connect_every_s: how often a missing runner is looked for.
        """
        self._store, self._ledger, self._parts, self._clock_s = store, ledger, parts, clock_s
        self._visits = Visits(
            store, ledger, parts.moments, parts.customers, parts.answers, parts.seller, self._now_ns
        )  # fmt: skip
        at_address = parts.customers.at_address if isinstance(parts.customers, CustomerFile) else None
        self.access = ShopperAccess(
            store, ledger, parts.sessions, parts.links, at_address=at_address, mailer=parts.mailer, https=https,
            clock_s=clock_s,
        )  # fmt: skip
        self.pages = ShopperPages(ledger, self._visits, feed, self._at_door, connect_every_s)
        screens = Screens(store, self.access, self.pages, parts.sessions, parts.authorisations, self._now_ns, clock_s)
        self._codes: dict[str, _Code] = {}
        self._changes = Limits(CHANGES_WINDOW_S)
        routes = [
            Route("/", self._shell), Route(PATH, self._shell), Route("/sw.js", self._worker),
            Route("/assets/{name}", self._asset), Route("/api/me", self._me),
            Route("/api/sign-in", self.access.sign_in, methods=["POST"]),
            Route("/api/sign-in/mail", self.access.mail_link, methods=["POST"]),
            Route("/api/sign-out", self.access.sign_out, methods=["POST"]),
            Route("/api/live", self._live), Route("/api/code", self._code, methods=["POST"]),
            Route("/api/visits", self._list), Route("/api/visit", self._visit),
            Route("/api/receipt.pdf", self._pdf), Route("/api/mail", self._mail, methods=["POST"]),
            Route("/api/dispute", self._dispute, methods=["POST"]),
            Route("/api/answer", self._answer, methods=["POST"]),
            Route("/api/profile", self._profile), Route("/api/profile", self._consent, methods=["POST"]),
            Route("/api/data.json", self._data), Route("/api/erase", self._erase, methods=["POST"]),
            *screens.routes,
        ]  # fmt: skip
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(Guarded, more=_HEADERS),
            ],
            exception_handlers={HTTPException: refused},
        )  # fmt: skip

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            async with in_background(self.pages.tasks()):
                yield
        finally:
            self.access.close()

    def _now_ns(self) -> int:
        return round(self._clock_s() * 1e9)

    # ---- the page itself ---------------------------------------------------------------------------------------------

    async def _shell(self, request: Request) -> Response:
        """The page without anything of a customer's, so that a phone may keep it for when there is no connection."""
        return HTMLResponse(filled("shopper/shopper.html", {"texts": texts_json("shopper")}))

    async def _worker(self, request: Request) -> Response:
        return Response(page_file("shopper/sw.js"), media_type="text/javascript")

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404, "no_file")
        return Response(page_file(f"shopper/{name}"), media_type=_ASSETS[name])

    async def _me(self, request: Request) -> Response:
        session = self.access.session(request)
        store = self._store
        response = JSONResponse(
            {
                "signed": None if session is None else session.kind,
                "visit": session.subject if session is not None and session.kind == "visit" else None,
                "csrf": None if session is None else session.csrf,
                "store": store.name, "currency": store.currency, "exponent": store.currency_exponent,
                "timezone": store.timezone, "mails": self.access.mails,
                "codes": self._parts.signer is not None, "profiles": self._parts.profiles is not None,
                "erases": self._parts.forget is not None,
            }
        )  # fmt: skip
        if session is not None:
            self.access.renew(request, response, session)
        return response

    async def _live(self, request: Request) -> Response:
        session = self.access.required(request)
        if self.pages.full:
            raise HTTPException(503, "full")
        stream = self.pages.stream(session, lambda: self.access.holds(session))
        return StreamingResponse(stream, media_type="text/event-stream")

    # ---- the code for the gate ---------------------------------------------------------------------------------------

    async def _code(self, request: Request) -> Response:
        """The code of an account: a new one once half of the last one's life is over, or when another is asked for."""
        session, content = await self.access.change(request, account=True)
        signer = self._parts.signer
        if signer is None:
            raise HTTPException(404, "no_codes")
        now_s, last = self._clock_s(), self._codes.get(session.subject)
        wait_s = CODE_AGAIN_S if content.get("another") is True else CODE_EVERY_S
        if last is None or not 0.0 <= now_s - last.made_s < wait_s:
            last = _Code(signer.code(session.subject, self._now_ns()), now_s)
            self._codes.pop(session.subject, None)
            self._codes[session.subject] = last
            while len(self._codes) > CODES_KEPT_MAX:
                del self._codes[next(iter(self._codes))]
        return JSONResponse(
            {
                "picture": qr_uri(last.code),
                "until_ms": round(1000 * (last.made_s + VALID_S)),
                "next_ms": round(1000 * (last.made_s + CODE_EVERY_S)),
                "now_ms": round(1000 * now_s),
            }
        )  # fmt: skip

    # ---- visits ------------------------------------------------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        session = self.access.required(request)

        def rows() -> list[dict[str, Any]]:
            found = [self._visits.row(visit) for visit in self._visits.of(session)]
            return [row for row in found if row is not None]

        return JSONResponse({"visits": await _from_books(rows)})

    async def _visit(self, request: Request) -> Response:
        visit = await self._own(self.access.required(request), request.query_params.get("visit"))
        return JSONResponse(await self._receipt(visit))

    async def _own(self, session: ShopperSession, visit: Any) -> str:
        """A visit that a session may see; another's is answered as one that never was."""
        if not await _from_books(lambda: self._visits.is_of(session, visit)):
            raise HTTPException(404, "no_visit")
        assert isinstance(visit, str)
        return visit

    async def _receipt(self, visit: str) -> dict[str, Any]:
        found = await _from_books(lambda: self._visits.receipt(visit))
        if found is None:
            # Of a guest who is still inside, or whose visit has not reached the books yet.
            return {"visit": visit, "status": "open", "lines": [], "total": 0, "questions": [], "disputed": {}}
        return found

    async def _pdf(self, request: Request) -> Response:
        session = self.access.required(request)
        visit = await self._own(session, request.query_params.get("visit"))
        self._take_change(session)
        document = await _from_books(lambda: self._visits.document(visit))
        if document is None:
            raise HTTPException(404, "no_receipt")
        try:
            content = await asyncio.to_thread(receipt_pdf, document, self._parts.font)
        except FusionError as error:
            raise HTTPException(503, str(error)) from None
        headers = {"content-disposition": f'attachment; filename="receipt-{document.time[:10]}.pdf"'}
        return Response(content, media_type="application/pdf", headers=headers)

    async def _mail(self, request: Request) -> Response:
        session, content = await self.access.change(request)
        visit = await self._own(session, content.get("visit"))
        mailer = self._parts.mailer
        if mailer is None:
            raise HTTPException(404, "no_mail")
        self._take_change(session)
        if not await _from_books(lambda: mailer.due_again(visit, self._now_ns())):
            raise HTTPException(409, "not_again")
        return JSONResponse({}, 202)

    async def _dispute(self, request: Request) -> Response:
        session, content = await self.access.change(request)
        visit = await self._own(session, content.get("visit"))
        gtin, quantity, reason = (content.get(key) for key in ("gtin", "quantity", "reason"))
        if not isinstance(gtin, str) or type(quantity) is not int or not isinstance(reason, str):
            raise HTTPException(400, "want gtin, quantity and reason")
        self._take_change(session)
        gtin = self._store.own_gtins.of(gtin) or gtin
        outcome = await _entered(lambda: self._parts.answers.dispute(visit, gtin, quantity, reason, self._now_ns()))
        return JSONResponse({"status": outcome.status, "receipt": await self._receipt(visit)})

    async def _answer(self, request: Request) -> Response:
        session, content = await self.access.change(request)
        visit = await self._own(session, content.get("visit"))
        question, choice = content.get("question"), content.get("choice")
        if not isinstance(question, str) or type(choice) is not int:
            raise HTTPException(400, "want question and choice")
        self._take_change(session)
        outcome = await _entered(lambda: self._parts.answers.answer(visit, question, choice, self._now_ns()))
        return JSONResponse({"status": outcome.status, "receipt": await self._receipt(visit)})

    def _take_change(self, session: ShopperSession) -> None:
        if not self._changes.take(f"{session.kind} {session.subject}", CHANGES_MAX, self._clock_s()):
            raise HTTPException(429, "wait")

    # ---- a person's own data -----------------------------------------------------------------------------------------

    def _profiles(self) -> Profiles:
        if self._parts.profiles is None:
            raise HTTPException(404, "no_profiles")
        return self._parts.profiles

    async def _profile(self, request: Request) -> Response:
        session = self.access.required(request, account=True)
        profiles = self._profiles()
        return JSONResponse(await _from_books(lambda: self._profile_of(profiles, session)))

    def _profile_of(self, profiles: Profiles, session: ShopperSession) -> dict[str, Any]:
        """What a profile holds: it is made again from the customer's own receipts, so that none counts twice."""
        if session.subject not in profiles:
            return {"consent": False, "bought": []}
        standings = [self._ledger.standing(visit) for visit in self._visits.of(session)]
        lines = [line for each in standings if each is not None and each.is_final for line in each.lines]
        profiles.replace(session.subject, lines)
        names = {product.gtin: product.name for product in self._store.products}
        bought = profiles.bought(session.subject)
        return {"consent": True, "bought": [[names.get(gtin, gtin), n] for gtin, n in bought]}

    async def _consent(self, request: Request) -> Response:
        session, content = await self.access.change(request, account=True)
        profiles, consent = self._profiles(), content.get("consent")
        if type(consent) is not bool:
            raise HTTPException(400, "want consent")

        def change() -> dict[str, Any]:
            if consent:
                profiles.consent(session.subject)
            else:
                profiles.erase(session.subject)
            return self._profile_of(profiles, session)

        return JSONResponse(await _from_books(change))

    async def _data(self, request: Request) -> Response:
        """Everything that the pages know of a customer, for them to keep (GDPR, article 15 and 20)."""
        session = self.access.required(request)
        self._take_change(session)

        def all_of_it() -> dict[str, Any]:
            profiles = self._parts.profiles
            own = profiles is not None and session.kind == "account"
            return {
                "store": self._store.name,
                "receipts": [self._visits.receipt(visit) for visit in self._visits.of(session)],
                "profile": self._profile_of(profiles, session) if own and profiles is not None else None,
            }

        headers = {"content-disposition": 'attachment; filename="my-data.json"'}
        return JSONResponse(await _from_books(all_of_it), headers=headers)

    async def _erase(self, request: Request) -> Response:
        """Have an account erased everywhere; the running store, or the command, does it."""
        session, _ = await self.access.change(request, account=True)
        forget, profiles = self._parts.forget, self._parts.profiles
        if forget is None:
            raise HTTPException(404, "no_erasure")

        def erase() -> None:
            forget(session.subject)
            if profiles is not None:
                profiles.erase(session.subject)
            self._codes.pop(session.subject, None)
            self._parts.sessions.end_all({session.subject, *self._visits.of(session)})

        await _from_books(erase)
        return JSONResponse({}, 202)

    # ---- guests at doors ---------------------------------------------------------------------------------------------

    def _at_door(self, visit: str) -> dict[str, Any]:
        code, token = self.access.door_code(visit)
        url = f"{self._parts.url.rstrip('/')}{PATH}#{token}"
        return {"code": f"{code[:4]} {code[4:]}", "picture": qr_uri(url), "url": self._parts.url}


def qr_uri(text: str) -> str:
    """A text as QR code for `<img src>`: dark on white with a quiet zone, whatever the colours of the page."""
    out = io.BytesIO()
    options = {"border": 4, "dark": "#000", "light": "#fff", "xmldecl": False, "omitsize": True}
    segno.make(text, error="m", micro=False).save(out, kind="svg", **options)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


async def _from_books(read: Callable[[], _Read]) -> _Read:
    """Read in a thread; status 503 where the books cannot be read."""
    try:
        return await asyncio.to_thread(read)
    except EntryError:
        raise HTTPException(404, "no_visit") from None  # A text that is no possible name of a visit.
    except FusionError:
        raise HTTPException(503, "books_away") from None


async def _entered(enter: Callable[[], _Read]) -> _Read:
    """Enter what a shopper says; status 409 where it contradicts an earlier word, 400 where it makes no sense."""
    try:
        return await asyncio.to_thread(enter)
    except IdempotencyConflict:
        raise HTTPException(409, "answered_before") from None
    except FusionError:
        raise HTTPException(400, "not_possible") from None


__all__ = ["ShopperApp", "ShopperParts", "qr_uri"]
