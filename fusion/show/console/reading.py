"""What the pages of a console read from the books: receipts and the search in them, the day, and how the store fares.

GET  /api/receipts?since&until&low&high&product&text&status   {"rows": [...], "more"}; rows as of `visit_row`
GET  /api/receipts.csv?...      the same visits for a spreadsheet
GET  /api/day?day=YYYY-MM-DD    figures beside those of yesterday and of a week before; see `day_row`
GET  /api/sold.csv?day          what was sold on a day
GET  /api/health                {"rows": [{"kind", "name", "fault", "since"}, ...], "bad"}: books, provider, mail
POST /api/reviews/VISIT/price   {"lines": [{"gtin", "quantity"}, ...]}: what such a bill would charge
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fusion.errors import FusionError, LedgerError, extra, terminal_text
from fusion.money.history import ASKED
from fusion.money.ledger import Ledger
from fusion.show.console.access import StoreAccess
from fusion.show.console.day import day_row, receipts_csv, sold_csv
from fusion.show.console.decisions import Decisions, Line
from fusion.show.console.live import BOOKS_AWAY
from fusion.show.console.receipts import Days, Search, listed
from fusion.store.models import Store
from fusion.store.values import StrictModel

with extra("console"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import BaseRoute, Route

# A provider answers within seconds; a request that has waited for a minute shows that it is away.
ANSWER_MAX_NS = 60 * 10**9
_NS_PER_MS = 1_000_000
_DAY = TypeAdapter(datetime.date)
_Read = TypeVar("_Read")

_log = logging.getLogger(__name__)


class Priced(StrictModel):
    """Goods of a bill that a page wants to know the price of."""

    lines: tuple[Line, ...] = Field(max_length=500)


class Reading:
    """Answers what pages ask about the books of a store."""

    def __init__(self, store: Store, ledger: Ledger, access: StoreAccess, decisions: Decisions, days: Days) -> None:
        """Prepare.

        Args:
            store: whose books they are.
            ledger: its books.
            access: who is signed in.
            decisions: price corrected bills.
            days: the visits of days.
        """
        self._store, self._ledger, self._access = store, ledger, access
        self._decisions, self._days = decisions, days
        self.routes: list[BaseRoute] = [
            Route("/api/receipts", self._receipts),
            Route("/api/receipts.csv", self._receipts_csv),
            Route("/api/day", self._day),
            Route("/api/sold.csv", self._sold_csv),
            Route("/api/health", self._health),
            Route("/api/reviews/{visit:path}/price", self._price, methods=["POST"]),
        ]

    @property
    def _today(self) -> datetime.date:
        return self._days.date_of(self._decisions.now_ms * _NS_PER_MS)

    async def _found(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        self._access.required(request)
        try:
            search = Search.model_validate_strings(dict(request.query_params))
        except ValidationError as error:
            raise HTTPException(400, first_fault(error)) from None
        return await from_books(lambda: self._days.search(search, self._today))

    async def _receipts(self, request: Request) -> Response:
        rows, more = await self._found(request)
        return JSONResponse({"rows": [listed(row) for row in rows], "more": more})

    async def _receipts_csv(self, request: Request) -> Response:
        rows, _ = await self._found(request)
        # A file of many visits leaves the console: who took it is in the audit log, as for a visit that is opened.
        await self._access.note(request, self._access.required(request), "took receipts as a file")
        return _download(receipts_csv(self._store, self._days, rows), f"{self._store.id}-receipts.csv")

    def _asked_day(self, request: Request) -> datetime.date:
        self._access.required(request)
        wanted = request.query_params.get("day")
        try:
            return self._today if wanted is None else _DAY.validate_python(wanted)
        except ValidationError as error:
            raise HTTPException(400, f"day: {first_fault(error)}") from None

    async def _day(self, request: Request) -> Response:
        day = self._asked_day(request)
        return JSONResponse(await from_books(lambda: day_row(self._ledger, self._days, day)))

    async def _sold_csv(self, request: Request) -> Response:
        day = self._asked_day(request)
        rows = await from_books(lambda: self._days.rows(day))
        return _download(sold_csv(self._store, rows), f"{self._store.id}-sold-{day}.csv")

    async def _health(self, request: Request) -> Response:
        self._access.required(request)
        rows = await asyncio.to_thread(self._states)
        return JSONResponse({"rows": rows, "bad": sum(bool(row["fault"]) for row in rows)})

    def _states(self) -> list[dict[str, Any]]:
        """How the books, the payment provider and the mail fare, and since when."""
        try:
            asked, mails = (self._ledger.unanswered(kind) for kind in (ASKED, "mail due"))
        except LedgerError as error:
            _log.warning("books: %s", terminal_text(str(error)))
            return [_state("books", self._store.id, "unreadable", None)]
        late_ns = self._decisions.now_ms * _NS_PER_MS - ANSWER_MAX_NS
        late = [[entry.t_ns for entry in entries if entry.t_ns < late_ns] for entries in (asked, mails)]
        return [
            _state("books", self._store.id, "", None),
            _state("provider", "", "without answer" if late[0] else "", min(late[0], default=None)),
            _state("mail", "", "mails wait" if late[1] else "", min(late[1], default=None)),
        ]

    async def _price(self, request: Request) -> Response:
        self._access.required_for_change(request)
        visit = request.path_params["visit"]
        try:
            asked = Priced.model_validate_json(await request.body())
            return JSONResponse(await asyncio.to_thread(self._decisions.priced, visit, asked.lines))
        except ValidationError as error:
            raise HTTPException(400, first_fault(error)) from None
        except FusionError as error:
            raise HTTPException(400, str(error)) from None


async def from_books(read: Callable[[], _Read]) -> _Read:
    """Read something in a thread; status 503 where the books cannot be read, 400 where they have no such thing."""
    try:
        return await asyncio.to_thread(read)
    except LedgerError as error:
        _log.warning("books: %s", terminal_text(str(error)))
        raise HTTPException(503, BOOKS_AWAY) from None
    except FusionError as error:
        raise HTTPException(400, str(error)) from None


def _state(kind: str, name: str, fault: str, since_ns: int | None) -> dict[str, Any]:
    return {"kind": kind, "name": name, "fault": fault, "since": None if since_ns is None else since_ns // _NS_PER_MS}


def first_fault(error: ValidationError) -> str:
    """The first fault of what a page sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _download(text: str, name: str) -> Response:
    safe = "".join(c if c.isalnum() or c in "-._" else "-" for c in name)
    return Response(
        text.encode("utf-8"), media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{safe.encode("ascii", "replace").decode()}"'},
    )  # fmt: skip


__all__ = ["Reading", "first_fault", "from_books"]
