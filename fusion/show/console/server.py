"""The store as a live page, and the queue of visits in which a person has to decide.

The server stands beside the runner, not in it: it reads the runner's feed, the books (`Ledger`) and the evidence that
the runner writes, and pushes everything to the pages. Decisions go into the books, so that a second console, in this
process or another, sees them as soon as they are there.
"""

from __future__ import annotations

import asyncio
import html
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fusion.errors import FusionError, IdempotencyConflict, NotPermitted, extra
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.profiles import Profiles
from fusion.money.proposals import UNDO_S, Authority, DecisionReason
from fusion.show.console.access import Access, StoreAccess
from fusion.show.console.decisions import Decision, Decisions, Line, Numbered, standing_row
from fusion.show.console.evidence_file import EvidenceFile
from fusion.show.console.heard import Trust, heard_row
from fusion.show.console.live import LivePages
from fusion.show.console.pictures import Pictures
from fusion.show.console.question import Charge, Pieces, question_row
from fusion.show.console.reading import Reading, first_fault, from_books
from fusion.show.console.receipts import Days, dispute_rows, moment_rows, payment_rows, payment_state
from fusion.show.console.users import Role, Users
from fusion.show.page import filled, page_file
from fusion.show.plan import CM_PER_M, Plan
from fusion.show.web.following import CONNECT_EVERY_S
from fusion.show.web.guarding import Guarded, network_of, refused
from fusion.show.web.languages import LANGUAGES, catalogue, preferred, texts_json
from fusion.show.web.serving import in_background
from fusion.store.models import Plate, Store
from fusion.store.values import StrictModel
from fusion.till.answer_settings import AnswerSettings
from fusion.till.answers import Answers

with extra("console"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
    from starlette.routing import Route

_ASSETS = {
    "console.css": "text/css", "report.css": "text/css", "plan.css": "text/css", "evidence.css": "text/css",
    "evidence.js": "text/javascript", "page.js": "text/javascript",
    **{
        f"console/{name}.js": "text/javascript"
        for name in ("main", "texts", "shop", "floor", "queue", "visit", "receipts", "day", "health")
    },
}  # fmt: skip

_NS_PER_MS = 1_000_000
# Lines of the audit log that a page is sent.
AUDIT_SHOWN = 500

_Asked = TypeVar("_Asked", bound=StrictModel)


@dataclass(frozen=True, slots=True)
class Files:
    """What a console shows beside the books, each where it is there.

    Attributes:
        feed: socket of the runner; without one the page has no live floor.
        evidence: evidence.jsonl as the runner writes it; without one reviews are decided from the lines alone.
        pictures: folder with pictures of products; see `Pictures`.
        moments: file of when and where goods were taken; see `fusion.money.moments`.
        profiles: file of purchase profiles, which keeps how customers answered once the links to their visits end.
        answers: how far a shopper's word goes, as till.toml has it; None: as by default.
    """

    feed: Path | None = None
    evidence: Path | None = None
    pictures: Path | None = None
    moments: Path | None = None
    profiles: Path | None = None
    answers: AnswerSettings | None = None


class Console:
    """The console of one store.

    Attributes:
        app: the ASGI application.
        access: who is signed in.
        routes: the store's own pages; signing in and what all pages share are not among them.
        decisions: what people ask for and decide.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        users: Users,
        *,
        files: Files = Files(),
        checkout: Checkout | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
        https: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        connect_every_s: float = CONNECT_EVERY_S,
        undo_s: float = UNDO_S,
        access: Access | None = None,
    ) -> None:
        """Make a console.

        Args:
            store: the store; users of other stores get nothing.
            ledger: its books.
            users: who may sign in.
            files: what else the page shows.
            checkout: settles decisions with the payment provider, in the background; without one the store's own
                Checkout settles them later.
            hosts: host names under which the page may be requested; others are refused, wherever they resolve to.
            https: whether cookies are for encrypted connections only.
            clock_s: of sessions.
            clock_ns: when decisions are made, and take effect.
            connect_every_s: how often a missing runner is looked for.
            undo_s: how long a decision can be withdrawn.
            access: signing in, where several stores share it; see `SeveralConsole`.
        """
        self._store, self._ledger, self._files, self._clock_ns = store, ledger, files, clock_ns
        plan = Plan(store)
        self._parts = {
            "name": html.escape(store.name),
            "plan": plan.ground(),
            "labels": plan.labels(),
            "viewbox": plan.viewbox,
            "texts": texts_json("console"),
        }
        shared = access or Access(
            store.id, {store.id: store.name}, users, self._parts, https=https, clock_s=clock_s, clock_ns=clock_ns
        )
        self.access = StoreAccess(shared, store.id)
        self.decisions = Decisions(store, ledger, checkout, clock_ns, undo_s)
        self._evidence = None if files.evidence is None else EvidenceFile(files.evidence)
        self._profiles = None if files.profiles is None else Profiles(files.profiles)
        self._answers = Answers(store, ledger, self._bundle, files.answers, profiles=self._profiles)
        self._pictures = Pictures(files.pictures, (product.gtin for product in store.products))
        days = Days(store, ledger)
        self._pages = LivePages(ledger, days, self.decisions, files.feed, connect_every_s)
        self.routes = [
            *Reading(store, ledger, self.access, self.decisions, days).routes,
            Route("/", self._index),
            Route("/pictures/{gtin}", self._picture),
            Route("/api/store", self._api_store),
            Route("/api/live", self._api_live),
            Route("/api/audit", self._api_audit),
            *self._review_routes(),
        ]
        self.app = Starlette(
            routes=[*shared.routes, Route("/assets/{name:path}", asset), *self.routes],
            lifespan=self.working,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(Guarded)],
            exception_handlers={HTTPException: refused},
        )

    def _review_routes(self) -> list[Route]:
        return [
            Route("/api/reviews/{visit:path}", self._api_review),
            Route("/api/reviews/{visit:path}/withdraw", self._api_withdraw, methods=["POST"]),
            Route("/api/reviews/{visit:path}/second", self._api_second, methods=["POST"]),
            Route("/api/reviews/{visit:path}/trust", self._api_trust, methods=["POST"]),
            Route("/api/reviews/{visit:path}", self._api_decide, methods=["POST"]),
        ]

    @asynccontextmanager
    async def working(self, app: Starlette) -> AsyncIterator[None]:
        """Watch the books and follow the runner until the block ends."""
        try:
            async with in_background(self._pages.tasks()):
                yield
        finally:
            await asyncio.to_thread(self.decisions.close)
            if self._profiles is not None:
                self._profiles.close()

    async def _index(self, request: Request) -> Response:
        if self.access.shared.session(request) is None:
            return RedirectResponse("/sign-in", 303)
        session = self.access.required(request)
        language = preferred(request.headers.get("accept-language", ""))
        own = {"language": language, "csrf": html.escape(session.csrf), "user": html.escape(session.user)}
        parts = {**self._parts, **own}
        return HTMLResponse(filled("console.html", parts))

    async def _picture(self, request: Request) -> Response:
        self.access.required(request)
        picture = await asyncio.to_thread(self._pictures.of, request.path_params["gtin"])
        if picture is None:
            raise HTTPException(404, "no picture of this product")
        return Response(picture.content, media_type=picture.media_type)

    async def _api_store(self, request: Request) -> Response:
        session = self.access.required(request)
        store, rights = self._store, self.access.rights(session)
        return JSONResponse(
            {
                "name": store.name,
                "timezone": store.timezone,
                "currency": store.currency,
                "exponent": store.currency_exponent,
                "products": {product.gtin: [product.name, product.price] for product in store.products},
                "plates": {plate.plate: _plate_row(plate) for plate in store.plates},
                "gates": {gate.id: gate.direction for gate in store.gate},
                "reasons": [*DecisionReason],
                "pictures": self._pictures.gtins,
                "user": session.user,
                "rights": {**rights.model_dump(mode="json"), "roles": [role for role in Role if rights.may(role)]},
                "stores": self.access.shared.may_look(session),
            }
        )

    async def _api_live(self, request: Request) -> Response:
        session = self.access.required(request)
        owner = (session.user, network_of(request.client.host if request.client else ""))
        if self._pages.full_for(*owner):
            raise HTTPException(503, "too many pages are open")

        def signed_in() -> bool:
            return self.access.session(request, touch=False) is not None

        return StreamingResponse(self._pages.stream(signed_in, *owner), media_type="text/event-stream")

    async def _api_audit(self, request: Request) -> Response:
        """The newest lines of this store, newest first, and what is wrong with the log."""
        session = self.access.required(request, Role.ADMINISTER)
        await self.access.note(request, session, "read audit log")
        audit, store = self.access.shared.audit, self._store.id

        def read() -> dict[str, Any]:
            newest = deque((row for row in audit.lines() if row["store"] in (store, "")), maxlen=AUDIT_SHOWN)
            return {"lines": list(reversed(newest)), "fault": audit.verify()}

        try:
            return JSONResponse(await asyncio.to_thread(read))
        except FusionError as error:
            raise HTTPException(503, str(error)) from None

    def _bundle(self, visit: str) -> dict[str, Any] | None:
        return None if self._evidence is None else self._evidence.bundle(visit)

    async def _api_review(self, request: Request) -> Response:
        session = self.access.required(request)
        visit = request.path_params["visit"]
        standing = await from_books(lambda: self.decisions.standing(visit))
        if standing is None:
            raise HTTPException(404, "no such visit in the books of this store")
        await self.access.note(request, session, "read visit", visit)
        bundle = await asyncio.to_thread(self._bundle, visit)
        history = await from_books(lambda: self.decisions.history(visit))
        entries = await from_books(lambda: self._ledger.entries(visit))

        def charge(pieces: Pieces) -> Charge:
            priced = self.decisions.priced(visit, [Line(gtin=gtin, quantity=n) for gtin, n in pieces])
            return Charge(priced["total"], priced["discounts"])

        question = None
        if standing.status == "review":
            asked = request.query_params.get("lang", "")
            language = asked if asked in LANGUAGES else preferred(request.headers.get("accept-language", ""))
            texts = catalogue("console", language)
            question = await from_books(lambda: question_row(bundle, standing, self._store, charge, texts))
        shown = {
            **standing_row(standing),
            **history,
            "evidence": bundle,
            "question": question,
            "payment": payment_rows(entries),
            "paid": payment_state(entries, is_final=standing.is_final),
            "disputes": dispute_rows(entries),
            "heard": await from_books(lambda: heard_row(self._answers, visit)),
            "moments": await from_books(lambda: moment_rows(self._files.moments, visit)),
            "ms": next((one.t_ns // _NS_PER_MS for one in entries if one.kind.startswith("receipt ")), None),
        }
        try:
            text = json.dumps(shown, allow_nan=False)  # ASCII, so that a lone surrogate in the evidence does no harm
        except ValueError:
            text = json.dumps({**shown, "evidence": None})  # it holds an infinite number
        return Response(text, media_type="application/json")

    async def _api_decide(self, request: Request) -> Response:
        return await self._changed(request, Decision, self.decisions.ask, lambda asked: f"asked: {asked.decision}")

    async def _api_withdraw(self, request: Request) -> Response:
        return await self._changed(request, Numbered, self.decisions.withdraw, lambda _: "withdrew or refused")

    async def _api_second(self, request: Request) -> Response:
        return await self._changed(request, Numbered, self.decisions.second, lambda _: "seconded")

    async def _api_trust(self, request: Request) -> Response:
        return await self._changed(request, Trust, self._trust, lambda _: "trusted its customer again")

    def _trust(self, visit: str, asked: Trust, authority: Authority) -> dict[str, Any]:
        self._answers.trust(visit, by=authority.name, t_ns=self._clock_ns(), note=asked.note)
        return heard_row(self._answers, visit)

    async def _changed(
        self,
        request: Request,
        model: type[_Asked],
        change: Callable[[str, _Asked, Authority], dict[str, Any]],
        did: Callable[[_Asked], str],
    ) -> Response:
        """Do what a page asks for about a visit, and show the visit as it stands then."""
        session = self.access.required_for_change(request)
        visit = request.path_params["visit"]
        try:
            asked = model.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(400, first_fault(error)) from None
        authority = self.access.rights(session).authority(session.user)
        await self.access.note(request, session, did(asked), visit)
        try:
            shown = await asyncio.to_thread(change, visit, asked, authority)
        except IdempotencyConflict as error:
            raise HTTPException(409, str(error)) from None
        except NotPermitted as error:
            raise HTTPException(403, str(error)) from None
        except FusionError as error:
            raise HTTPException(400, str(error)) from None
        with suppress(FusionError):  # it is in the books; the pages learn of it with the next look
            await self._pages.read_books()
        return JSONResponse(shown)


async def asset(request: Request) -> Response:
    """A style or script of the pages, which are the same for everybody."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "no such file")
    return Response(page_file(name), media_type=_ASSETS[name])


def _plate_row(plate: Plate) -> dict[str, float]:
    """Place and size of a plate in centimetres, and its yaw."""
    lengths = {"x": plate.x, "y": plate.y, "z": plate.z, "width": plate.width, "depth": plate.depth}
    return {**{name: CM_PER_M * length for name, length in lengths.items()}, "yaw": plate.yaw}
