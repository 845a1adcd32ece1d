"""The shop as a live page, and the queue of visits in which a person has to decide.

The server stands beside the runner, not in it: it reads what the runner tells (`feed`), the books (`Ledger`) and the
evidence that the runner writes, and pushes it all to the pages. Decisions go through the ledger adapter, so that a
second console, in this process or another, sees them as soon as they are in the books.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from pydantic import Field, ValidationError

from fusion.errors import FusionError, IdempotencyConflict, extra
from fusion.files.results import reason_row
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.prices import PriceBook, PricedReceipt
from fusion.money.sales import Discount
from fusion.money.visits import Standing
from fusion.results import Receipt, ReceiptLine, ReceiptStatus
from fusion.show.console.feed import FloorReader
from fusion.show.console.users import NAME_MAX, Session, Sessions, Users
from fusion.show.plan import Plan
from fusion.store.models import Store
from fusion.store.values import StrictModel

with extra("console"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# How soon a decision of another process, or a new bundle of evidence, is on the pages.
WATCH_EVERY_S = 0.25
# Pages listen for as long as they are open: who ends the console does not wait for them.
CLOSE_MAX_S = 1
# A runner that is not there is asked for so often; a page that gets nothing gets a sign of life.
CONNECT_EVERY_S, ALIVE_EVERY_S = 1.0, 15.0
LINE_MAX_BYTES = 4 << 20
# Messages a page may be behind before it has to begin anew; states do not count, the newest one is enough.
BEHIND_MAX, PAGES_MAX = 400, 50
# The past that a page which opens is told, by kind.
KEPT = {"event": 40, "alert": 60, "receipt": 40}
BODY_MAX_BYTES = 64 << 10
BUNDLES_MAX, START_BYTES = 10_000, 256
PIECES_MAX = 1000

_ASSETS = {
    "console.css": "text/css", "report.css": "text/css", "plan.css": "text/css", "evidence.css": "text/css",
    "console.js": "text/javascript", "evidence.js": "text/javascript", "page.js": "text/javascript",
}  # fmt: skip
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with "no-referrer" browsers would not name the origin of a form
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

BOOKS_AWAY = "The books cannot be read at present"

_log = logging.getLogger(__name__)
_VISIT_FIRST = re.compile(rb'\{"visit": ?("(?:[^"\\]|\\.)*")')
_Read = TypeVar("_Read")
_Lines = tuple[ReceiptLine, ...]


class _Line(StrictModel):
    gtin: str
    quantity: int = Field(ge=1, le=PIECES_MAX)


class _Decision(StrictModel):
    decision: str
    revision: int = Field(ge=1, le=1000)
    lines: tuple[_Line, ...] | None = Field(default=None, max_length=500)
    note: str = Field(default="", max_length=500)


@dataclass(eq=False)
class _Page:
    """One page that listens. The newest state stands alone; whatever else happens waits in order, up to a limit."""

    state: str = ""
    waiting: deque[str] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    def tell(self, kind: str, line: str) -> None:
        if kind == "state":
            self.state = line
        elif len(self.waiting) < BEHIND_MAX:
            self.waiting.append(line)
        else:
            self.lost = True
        self.woken.set()


class Console:
    """Everything that the pages show, and the application that serves it (`app`)."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        users: Users,
        *,
        feed: str | Path | None = None,
        evidence: str | Path | None = None,
        checkout: Checkout | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
        https: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a console.

        Args:
            store: whose shop it is; users of other stores get nothing.
            ledger: its books.
            users: who may sign in.
            feed: socket of the runner; without one the page has no live floor.
            evidence: evidence.jsonl as the runner writes it; without one reviews are decided from the lines alone.
            checkout: settles decisions with the payment provider at once; without one whoever runs the store's Checkout
                does so later.
            hosts: names under which the page may be asked for; others are refused, whoever resolves them to here.
            https: whether cookies are for encrypted connections only.
            clock_s: of sessions.
        """
        self._store, self._ledger, self._users, self._checkout = store, ledger, users, checkout
        self._feed = None if feed is None else Path(feed)
        self._evidence_path = None if evidence is None else Path(evidence)
        self._evidence: dict[str, tuple[int, int]] = {}  # visit: where its bundle lies in the file
        self._evidence_end = 0
        self._evidence_start = b""  # by which another run's file is told from this one's
        self._evidence_lock = threading.Lock()  # pages ask from several threads
        self._https, self._clock_s = https, clock_s
        self._sessions = Sessions()
        # Cookies know no ports: consoles of several stores on one machine have to keep theirs apart by name.
        self._cookie = "fusion-console-" + re.sub(r"[^A-Za-z0-9]", "-", store.id)
        self._prices = PriceBook(store)
        self._pages: set[_Page] = set()
        self._past = {kind: deque[str](maxlen=n) for kind, n in KEPT.items()}
        self._state = self._health = self._trouble = ""
        self._live = False
        self._floor = FloorReader()
        self._reviews = "[]"
        self._head = -1
        plan = Plan(store)
        self._parts = {
            "name": html.escape(store.name),
            "plan": plan.ground(),
            "labels": plan.labels(),
            "viewbox": plan.viewbox,
        }
        routes = [
            Route("/", self._index),
            Route("/sign-in", self._sign_in_page),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
            Route("/assets/{name}", self._asset),
            Route("/api/store", self._api_store),
            Route("/api/live", self._api_live),
            Route("/api/reviews/{visit:path}", self._api_review),
            Route("/api/reviews/{visit:path}", self._api_decide, methods=["POST"]),
        ]
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(_Guarded)],
            exception_handlers={HTTPException: _refused},
        )

    # ---- signing in --------------------------------------------------------------------------------------------------

    def _session(self, request: Request, *, touch: bool = True) -> Session | None:
        return self._sessions.get(request.cookies.get(self._cookie), self._clock_s(), touch=touch)

    def _signed_in(self, request: Request) -> Session:
        session = self._session(request)
        if session is None:
            raise HTTPException(401, "want somebody who is signed in")
        return session

    async def _index(self, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            return RedirectResponse("/sign-in", 303)
        parts = {**self._parts, "csrf": html.escape(session.csrf), "user": html.escape(session.user)}
        return HTMLResponse(_filled("console.html", parts))

    async def _sign_in_page(self, request: Request) -> Response:
        if self._session(request) is not None:
            return RedirectResponse("/", 303)
        return self._sign_in_form("", 200)

    def _sign_in_form(self, said: str, status: int) -> Response:
        return HTMLResponse(_filled("signin.html", {**self._parts, "said": html.escape(said)}), status)

    async def _sign_in(self, request: Request) -> Response:
        _same_origin(request)
        try:
            form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=4)
        except ValueError:
            raise HTTPException(400, "want a name and a password") from None
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        name = name[: NAME_MAX + 1]  # tries are kept by name; a longer one is nobody's
        machine = request.client.host if request.client else ""
        keys, now_s = (machine, f"{machine} {name}"), self._clock_s()
        if self._sessions.must_wait(keys, now_s):
            return self._sign_in_form("Too many wrong passwords: wait a minute", 429)
        # Counted before it is known to be wrong: many tries at once are as many as one after another.
        self._sessions.failed(keys, now_s)
        if not await asyncio.to_thread(self._users.check, name, password, self._store.id):
            return self._sign_in_form("Name and password do not fit this store", 403)
        self._sessions.succeeded(keys)
        # A new session whatever was there before: nobody can plant one and wait for it to be signed in.
        self._sessions.end(request.cookies.get(self._cookie))
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._cookie, self._sessions.begin(name, now_s), httponly=True, samesite="strict", secure=self._https
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        self._changing(request)
        self._sessions.end(request.cookies.get(self._cookie))
        response = JSONResponse({})
        response.delete_cookie(self._cookie, httponly=True, samesite="strict", secure=self._https)
        return response

    def _changing(self, request: Request) -> Session:
        """The session of a request that changes something, which only our own page can have made."""
        _same_origin(request)
        session = self._signed_in(request)
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
            raise HTTPException(403, "want the token of this session")
        return session

    # ---- what the pages ask for --------------------------------------------------------------------------------------

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404, "no such file")
        return Response(_text(name), media_type=_ASSETS[name])

    async def _api_store(self, request: Request) -> Response:
        self._signed_in(request)
        store = self._store
        plates = {
            plate.plate: {
                "x": 100 * plate.x, "y": 100 * plate.y, "z": 100 * plate.z, "width": 100 * plate.width,
                "depth": 100 * plate.depth, "yaw": plate.yaw,
            }
            for plate in store.plates
        }  # fmt: skip
        return JSONResponse(
            {
                "name": store.name,
                "timezone": store.timezone,
                "currency": store.currency,
                "exponent": store.currency_exponent,
                "products": {product.gtin: [product.name, product.price] for product in store.products},
                "plates": plates,
                "gates": {gate.id: gate.direction for gate in store.gate},
            }
        )

    async def _api_live(self, request: Request) -> Response:
        self._signed_in(request)
        if len(self._pages) >= PAGES_MAX:
            raise HTTPException(503, "too many pages are open")
        return StreamingResponse(self._stream(request), media_type="text/event-stream")

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        """Server-sent events: the past in short, then whatever happens."""
        page = _Page()
        page.waiting.append(self._live_line())
        for past in self._past.values():
            page.waiting.extend(past)
        page.waiting.extend(line for line in (self._health, self._reviews_line(), self._trouble_line()) if line)
        page.state = self._state if self._live else ""
        page.woken.set()
        self._pages.add(page)
        try:
            while not page.lost:
                with suppress(TimeoutError):
                    await asyncio.wait_for(page.woken.wait(), ALIVE_EVERY_S)
                page.woken.clear()
                # Somebody who signed out, or did nothing for too long, sees no more.
                if self._session(request, touch=False) is None:
                    yield "event: signed-out\ndata: {}\n\n"
                    return
                lines = [*page.waiting, page.state] if page.state else [*page.waiting]
                page.waiting.clear()
                page.state = ""
                yield "".join(f"data: {line}\n\n" for line in lines) or ": alive\n\n"
        finally:
            self._pages.discard(page)

    async def _api_review(self, request: Request) -> Response:
        self._signed_in(request)
        visit = request.path_params["visit"]
        standing = await self._from_books(self._standing, visit)
        if standing is None:
            raise HTTPException(404, "no such visit in the books of this store")
        bundle = await asyncio.to_thread(self._evidence_of, visit)
        decided = await self._from_books(self._decided, visit)
        shown = {**_standing_row(standing), "evidence": bundle, "decided": decided}
        try:
            text = json.dumps(shown, allow_nan=False)  # ASCII: half a surrogate pair in the evidence does no harm
        except ValueError:
            text = json.dumps({**shown, "evidence": None})  # a number in it is beyond all numbers
        return Response(text, media_type="application/json")

    async def _api_decide(self, request: Request) -> Response:
        session = self._changing(request)
        visit = request.path_params["visit"]
        try:
            asked = _Decision.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise HTTPException(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        try:
            standing = await asyncio.to_thread(self._decide, visit, asked, session.user)
        except IdempotencyConflict:
            raise HTTPException(409, "somebody else decided this visit meanwhile") from None
        except FusionError as error:
            raise HTTPException(400, str(error)) from None
        with suppress(FusionError):  # it is decided; pages that are not told at once are told soon
            await self._look_at_books()
        return JSONResponse(_standing_row(standing))

    def _standing(self, visit: str) -> Standing | None:
        try:
            return self._ledger.standing(visit)
        except FusionError:
            self._ledger.head()  # raises where it is the books that are away
            return None  # what can be no visit's name is none of ours

    async def _from_books(self, read: Callable[[str], _Read], visit: str) -> _Read:
        try:
            return await asyncio.to_thread(read, visit)
        except FusionError as error:
            _log.warning("books: %s", error)
            raise HTTPException(503, BOOKS_AWAY) from None

    def _decide(self, visit: str, asked: _Decision, user: str) -> Standing:
        lines: tuple[ReceiptLine, ...] | None = None
        discounts: tuple[Discount, ...] = ()
        if asked.decision == "correct":
            lines, discounts = self._priced(visit, asked.lines or ())
        elif asked.lines is not None:
            raise FusionError(f"lines: want them with correct and only then, got {asked.decision}")
        t_ns = time.time_ns()
        self._ledger.decide(
            visit, asked.decision, by=user, t_ns=t_ns, revision=asked.revision, lines=lines,  # type: ignore[arg-type]
            discounts=discounts, note=asked.note,
        )  # fmt: skip
        if self._checkout is not None:
            try:
                self._checkout.settle(visit, t_ns)
            except FusionError as error:
                # The decision stands, and must not be taken for one that failed: `Checkout.recover` settles it later.
                _log.warning("visit %s is decided, its payment not settled: %s", visit, error)
        standing = self._ledger.standing(visit)
        assert standing is not None
        return standing

    def _priced(self, visit: str, lines: tuple[_Line, ...]) -> tuple[tuple[ReceiptLine, ...], tuple[Discount, ...]]:
        """Pieces that the receipt has keep their prices; others, whose moments are not in the books, have those of the
        visit's end. Whether it was a member's is not there either: it was one if only so the receipt comes out."""
        gtins = {product.gtin for product in self._store.products}
        for line in lines:
            if line.gtin not in gtins:
                raise FusionError(f"lines: want products of this store, got {line.gtin!r}")
        receipts = [entry for entry in self._ledger.entries(visit) if entry.kind.startswith("receipt ")]
        if not receipts:
            raise FusionError(f"visit {visit!r}: want a receipt to decide about, got none")
        request = receipts[0].request
        exit_ns = request.get("exit", receipts[0].t_ns)
        billed = tuple(ReceiptLine(gtin, n, price, ppm / 1e6) for gtin, n, price, ppm in request["lines"])
        rows = tuple(ReceiptLine(line.gtin, line.quantity, 0, 1.0) for line in lines)

        def priced(rows: _Lines, kept: _Lines, member: bool) -> PricedReceipt:
            currency = self._store.currency
            bill = Receipt(visit, None, None, exit_ns, exit_ns, ReceiptStatus.SETTLED, (), currency, 0, rows)
            return self._prices.priced(bill, member=member, billed=kept)

        total = sum(n * price for _, n, price, _ in request["lines"])
        total -= sum(amount for _, _, amount in request.get("discounts", ()))
        known = all(line.gtin in gtins for line in billed)
        # By offers alone, or by prices too.
        totals = [[priced(billed, kept, who).receipt.total for who in (False, True)] for kept in (billed, ()) if known]
        found = priced(rows, billed, any(other != total == members for other, members in totals))
        return found.receipt.lines, found.discounts

    def _decided(self, visit: str) -> list[dict[str, Any]]:
        """Who decided what, oldest first."""
        return [
            {"decision": entry.kind.removeprefix("decision "), "by": entry.request["by"], "ms": entry.t_ns // 1_000_000}
            for entry in self._ledger.entries(visit)
            if entry.kind.startswith("decision ")
        ]

    # ---- evidence ----------------------------------------------------------------------------------------------------

    def _find_bundles(self, path: Path) -> None:
        """Note where the bundles lie that the runner has written meanwhile; the file itself stays on disk.

        Whose each is stands first; to read all of every one would keep the first reviewer of a long day waiting.
        """
        with open(path, "rb") as file:
            length = file.seek(0, 2)
            file.seek(0)
            if length < self._evidence_end or file.read(len(self._evidence_start)) != self._evidence_start:
                self._evidence, self._evidence_end = {}, 0  # a new run
            file.seek(self._evidence_end)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                named = _VISIT_FIRST.match(line)
                if named is not None:
                    with suppress(ValueError):
                        self._evidence[json.loads(named[1])] = self._evidence_end, len(line)
                self._evidence_end += len(line)
            file.seek(0)
            self._evidence_start = file.read(min(self._evidence_end, START_BYTES))
        while len(self._evidence) > BUNDLES_MAX:
            del self._evidence[next(iter(self._evidence))]

    def _evidence_of(self, visit: str) -> dict[str, Any] | None:
        """The bundle of a visit; None where there is none, or none that can be read: lines alone will have to do."""
        path = self._evidence_path
        if path is None:
            return None
        with suppress(OSError), self._evidence_lock:
            self._find_bundles(path)
            if visit in self._evidence:
                start, length = self._evidence[visit]
                with open(path, "rb") as file:
                    file.seek(start)
                    bundle = _bundle(file.read(length))
                # It may be written over at any moment; somebody else's evidence is worse than none.
                return bundle if bundle is not None and bundle["visit"] == visit else None
        return None

    # ---- what is pushed ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._watch_books())]
        if self._feed is not None:
            tasks.append(asyncio.create_task(self._follow_runner(self._feed)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _push(self, kind: str, line: str) -> None:
        for page in self._pages:
            page.tell(kind, line)

    def _live_line(self) -> str:
        return json.dumps({"live": self._live})

    def _trouble_line(self) -> str:
        return json.dumps({"trouble": self._trouble})

    def _reviews_line(self) -> str:
        return f'{{"reviews":{self._reviews}}}'

    async def _watch_books(self) -> None:
        while True:
            try:
                await self._look_at_books()
                self._set_trouble("")
            except FusionError as error:
                # The books are elsewhere and may be gone for a while; pages say so and go on.
                _log.warning("books: %s", error)
                self._set_trouble(BOOKS_AWAY)
                await asyncio.sleep(CONNECT_EVERY_S)
            await asyncio.sleep(WATCH_EVERY_S)

    def _set_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._push("trouble", self._trouble_line())

    async def _look_at_books(self) -> None:
        head = await asyncio.to_thread(lambda: self._ledger.head().seq)
        if head == self._head:
            return
        reviews = await asyncio.to_thread(self._ledger.reviews)
        self._head = head
        rows = [
            {**_standing_row(one), "lines": None, "pieces": sum(line.quantity for line in one.lines)} for one in reviews
        ]
        line = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        if line != self._reviews:
            self._reviews = line
            self._push("reviews", self._reviews_line())

    async def _follow_runner(self, path: Path) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_MAX_BYTES)
            except OSError:
                await asyncio.sleep(CONNECT_EVERY_S)
                continue
            self._set_live(True)
            for kept in self._past.values():
                kept.clear()
            self._floor = FloorReader()
            self._state = self._health = ""
            garbled = False
            with suppress(OSError, ValueError):  # such as a line without end
                # A runner that is killed may leave half a line.
                while (line := await reader.readline()).endswith(b"\n"):
                    try:
                        self._heard(line.decode("utf-8", "replace").strip())
                    except Exception as error:  # whatever a garbled line leads to; the next one may be right
                        if not garbled:
                            _log.warning("%s: want what a runner tells, got: %r", path, error)
                        garbled = True
            writer.close()
            self._set_live(False)
            await asyncio.sleep(CONNECT_EVERY_S)

    def _set_live(self, live: bool) -> None:
        self._live = live
        self._push("live", self._live_line())

    def _heard(self, line: str) -> None:
        kind = line[2 : line.find('"', 2)] if line.startswith('{"') else ""
        if kind == "shop":
            self._floor.shop(line)
            return
        if kind == "at":
            kind, line = "state", self._floor.at(line)
            self._state = line
        elif kind == "health":
            self._health = _strict(line)
        elif kind in self._past:
            self._past[kind].append(_strict(line))
        else:
            return
        self._push(kind, line)


class _Guarded:
    """Limits what comes in and adds the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        await self._app(scope, limited, headed)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _same_origin(request: Request) -> None:
    """Refuse what another site's page sent: browsers name the origin of everything that is posted."""
    scheme, _, host = request.headers.get("origin", "").partition("://")
    if scheme not in ("http", "https") or not host or host != request.headers.get("host", ""):
        raise HTTPException(403, "want a request from this page itself")


def _strict(line: str) -> str:
    """A line of JSON that a browser can read too. Raises ValueError where it is none."""

    def refused(text: str) -> None:
        raise ValueError(f"want numbers, got {text}")

    json.loads(line, parse_constant=refused)
    return line


def _standing_row(standing: Standing) -> dict[str, Any]:
    return {
        "visit": standing.visit,
        "account": standing.account,
        "status": standing.status,
        "reason": standing.reason,
        "reasons": [reason_row(reason) for reason in standing.reasons],
        "total": standing.total,
        "revision": standing.revision,
        "lines": [[line.gtin, line.quantity, line.unit_price, line.confidence] for line in standing.lines],
        "discounts": sum(one.amount for one in standing.discounts),
    }


def _bundle(line: bytes) -> dict[str, Any] | None:
    """A line of evidence; None where it is none. Numbers that are not known become null, as pages want them."""
    try:
        bundle = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return bundle if isinstance(bundle, dict) and "visit" in bundle else None


def _text(name: str) -> str:
    return resources.files("fusion.show").joinpath("pages", name).read_text(encoding="utf-8")


def _filled(name: str, parts: dict[str, str]) -> str:
    # One pass, so that nothing that was put in is itself searched for places to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text(name))


def serve(console: Console, host: str, port: int, *, certificate: Path | None = None, key: Path | None = None) -> None:
    """Serve a console until interrupted.

    Raises:
        FusionError: the port is taken, or the certificate cannot be used.
    """
    with extra("console"):
        import uvicorn
    run = partial(uvicorn.Config, console.app, log_level="warning", access_log=False, server_header=False,
                  timeout_graceful_shutdown=CLOSE_MAX_S)  # fmt: skip
    try:
        config = run(host=host, port=port, ssl_certfile=certificate, ssl_keyfile=key)
        uvicorn.Server(config).run()
    except (OSError, SystemExit) as error:
        raise FusionError(f"{host}:{port}: cannot be served: {error}") from None
