"""What the open pages of a console are sent: the runner's state and events, the review queue, and trouble.

The runner is another process, and so may be whoever else decides: its socket and the books are watched here. A page
that opens is sent the recent past first.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, terminal_text
from fusion.money.disputes import disputed_visits
from fusion.money.ledger import Ledger
from fusion.show.console.day import figures
from fusion.show.console.decisions import Decisions, review_row
from fusion.show.console.feed import FloorReader
from fusion.show.console.receipts import Days, Row, listed
from fusion.show.page import compact_json
from fusion.show.web.following import CONNECT_EVERY_S, checked, follow

# How soon a decision of another process is on the pages.
WATCH_EVERY_S = 0.25
# A page that has received nothing for this long is sent a comment, so that timeouts do not cut it off.
ALIVE_EVERY_S = 15.0
# How soon the page of a user ends who was removed, locked or given other rights.
SIGNED_IN_EVERY_S = 0.5
# Messages that a page may be behind before its stream ends and it has to reconnect. States do not count, since only the
# newest is sent.
BEHIND_MAX, PAGES_MAX = 400, 50
# Pages of one user, and from one network: a shop's people share an address, and one of them must not use up all pages.
PAGES_OF_USER_MAX, PAGES_OF_NETWORK_MAX = 10, 40
# Lines of the past that a page is sent when it opens, by kind.
KEPT = {"event": 40, "alert": 60, "early": 40}
# Receipts of today that a page is sent; the search finds all of them.
RECEIPTS_SHOWN = 60

BOOKS_AWAY = "The books cannot be read at present"

_NS_PER_MS = 1_000_000
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Page:
    """One open page of a user. Only the newest state waits for it; other messages wait in order, up to a limit."""

    user: str = ""
    network: str = ""
    state: str = ""
    waiting: deque[str] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    def send(self, kind: str, line: str) -> None:
        """Have a line sent."""
        if kind == "state":
            self.state = line
        elif len(self.waiting) < BEHIND_MAX:
            self.waiting.append(line)
        else:
            self.lost = True
        self.woken.set()

    def take(self) -> list[str]:
        """The lines to send now."""
        lines = [*self.waiting, self.state] if self.state else [*self.waiting]
        self.waiting.clear()
        self.state = ""
        return lines


class LivePages:
    """The open pages of a console. Methods run in the event loop of the server."""

    def __init__(
        self,
        ledger: Ledger,
        days: Days,
        decisions: Decisions,
        feed: Path | None,
        connect_every_s: float = CONNECT_EVERY_S,
    ) -> None:
        """Prepare; `tasks` does the work.

        Args:
            ledger: whose reviews are shown.
            days: its visits by days.
            decisions: what was asked for, which takes effect when it is due.
            feed: socket of the runner; None where there is none.
            connect_every_s: how often a missing runner is looked for.
        """
        self._ledger, self._days, self._decisions = ledger, days, decisions
        self._feed, self._connect_every_s = feed, connect_every_s
        self._pages: set[_Page] = set()
        self._past = {kind: deque[str](maxlen=n) for kind, n in KEPT.items()}
        self._state = self._health = self._shelves = self._trouble = ""
        self._live = False
        self._floor = FloorReader()
        self._reviews, self._books = "[]", ""
        self._proposals: list[dict[str, Any]] = []
        self._read_at: tuple[int, datetime.date] | None = None

    def full_for(self, user: str, network: str) -> bool:
        """Whether a user on a network may open no further page."""
        return (
            len(self._pages) >= PAGES_MAX
            or sum(page.user == user for page in self._pages) >= PAGES_OF_USER_MAX
            or sum(page.network == network for page in self._pages) >= PAGES_OF_NETWORK_MAX
        )

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """The work of watching the books and following the runner, each to be run until it is cancelled."""
        runner = [] if self._feed is None else [self._follow_runner(self._feed)]
        return [self._watch_books(), *runner]

    async def stream(self, signed_in: Callable[[], bool], user: str = "", network: str = "") -> AsyncIterator[str]:
        """Server-sent events for one page: the recent past, then everything that happens.

        Args:
            signed_in: whether the page's user still is; the stream ends when they are not.
            user: whose page it is.
            network: from where it was opened.
        """
        page, quiet_s = _Page(user, network), 0.0
        page.waiting.append(self._live_line())
        for past in self._past.values():
            page.waiting.extend(past)
        books = (self._books, self._reviews_line(), self._proposals_line(), self._trouble_line())
        page.waiting.extend(line for line in (self._health, self._shelves, *books) if line)
        # Where the runner is away, the page shows its last state as old.
        page.state = self._state
        page.woken.set()
        self._pages.add(page)
        try:
            while not page.lost:
                with suppress(TimeoutError):
                    await asyncio.wait_for(page.woken.wait(), SIGNED_IN_EVERY_S)
                page.woken.clear()
                if not signed_in():
                    yield "event: signed-out\ndata: {}\n\n"
                    return
                lines = page.take()
                quiet_s = 0.0 if lines else quiet_s + SIGNED_IN_EVERY_S
                if lines or quiet_s >= ALIVE_EVERY_S:
                    quiet_s = 0.0
                    yield "".join(f"data: {line}\n\n" for line in lines) or ": alive\n\n"
        finally:
            self._pages.discard(page)

    def _push(self, kind: str, line: str) -> None:
        for page in self._pages:
            page.send(kind, line)

    # ---- the books ---------------------------------------------------------------------------------------------------

    async def _watch_books(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._decisions.apply_due)
                await self.read_books()
                self._set_trouble("")
            except FusionError as error:
                # The books may be on a server that is away for a while; the pages show it.
                _log.warning("books: %s", terminal_text(str(error)))
                self._set_trouble(BOOKS_AWAY)
                await asyncio.sleep(self._connect_every_s)
            await asyncio.sleep(WATCH_EVERY_S)

    async def read_books(self) -> None:
        """Push the review queue, the receipts of today and the open proposals where they have changed.

        Raises:
            LedgerError: the books cannot be read.
        """
        head = await asyncio.to_thread(lambda: self._ledger.head().seq)
        today = self._days.date_of(self._decisions.now_ms * _NS_PER_MS)
        if (head, today) == self._read_at:
            return
        proposals = await asyncio.to_thread(self._decisions.open_rows)
        reviews = await asyncio.to_thread(self._queue, {row["visit"]: row for row in proposals})
        receipts = await asyncio.to_thread(self._days.rows, today)
        self._read_at = head, today
        line = compact_json(reviews)
        if line != self._reviews:
            self._reviews = line
            self._push("reviews", self._reviews_line())
        newest = [listed(row) for row in reversed(receipts[-RECEIPTS_SHOWN:])]
        line = compact_json({"books": {"rows": newest, "today": figures(receipts)}})
        if line != self._books:
            self._books = line
            self._push("books", line)
        if proposals != self._proposals:
            self._proposals = proposals
            self._push("proposals", self._proposals_line())

    def _queue(self, proposals: dict[str, Row]) -> list[Row]:
        """Visits that wait for a person: those in review, then those that a shopper disputes."""
        waiting = {standing.visit: standing for standing in self._ledger.reviews()}
        disputed = set(disputed_visits(self._ledger))
        for visit in sorted(disputed - waiting.keys()):
            standing = self._ledger.standing(visit)
            if standing is not None:
                waiting[visit] = standing
        rows = []
        for visit, standing in waiting.items():
            since = self._ledger.recorded(visit, "receipt")
            row = review_row(standing, proposals.get(visit))
            rows.append({**row, "ms": since and since.t_ns // _NS_PER_MS, "disputed": visit in disputed})
        return rows

    def _set_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._push("trouble", self._trouble_line())

    def _trouble_line(self) -> str:
        return json.dumps({"trouble": self._trouble})

    def _reviews_line(self) -> str:
        return f'{{"reviews":{self._reviews}}}'

    def _proposals_line(self) -> str:
        """What is open, and the time now, by which pages count down."""
        return compact_json({"now_ms": self._decisions.now_ms, "proposals": self._proposals})

    # ---- the runner --------------------------------------------------------------------------------------------------

    async def _follow_runner(self, path: Path) -> None:
        await follow(
            path, connected=self._runner_came, take=self._take_in, lost=lambda: self._set_live(False),
            connect_every_s=self._connect_every_s,
        )  # fmt: skip

    def _runner_came(self) -> None:
        self._set_live(True)
        for past in self._past.values():
            past.clear()
        self._floor = FloorReader()
        self._state = self._health = self._shelves = ""

    def _take_in(self, kind: str, line: str) -> None:
        if kind == "shop":
            self._floor.shop(line)
            return
        if kind == "at":
            kind, line = "state", self._floor.at(line)
            self._state = line
        elif kind == "health":
            self._health = checked(line)
        elif kind == "shelves":
            self._shelves = checked(line)
        elif kind in self._past:
            self._past[kind].append(checked(line))
        else:
            return
        self._push(kind, line)

    def _set_live(self, live: bool) -> None:
        self._live = live
        self._push("live", self._live_line())

    def _live_line(self) -> str:
        return json.dumps({"live": self._live})
