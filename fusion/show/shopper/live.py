"""What open pages are sent: each phone the basket and the receipts of its own visits, each screen its gate or zone.

One reader follows the runner for all of them. Only the newest message of a kind waits for a page, so a phone in a lift
costs as much as one that reads.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, terminal_text
from fusion.gates.shopper_sessions import ShopperSession
from fusion.money.ledger import Ledger
from fusion.results import ReceiptLine
from fusion.show.shopper.visits import Visits
from fusion.show.web.following import CONNECT_EVERY_S, checked, follow
from fusion.till.baskets import Basket

WATCH_EVERY_S = 0.25
ALIVE_EVERY_S = 15.0
# Pages that may be open at once, within `CONNECTIONS_MAX` of the server; and those of one account.
PAGES_MAX, PAGES_OF_ONE_MAX = 400, 8
ROWS_AT_ONCE = 500

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Page:
    """One open page. `waiting` holds the newest message of each kind, in the order in which they came."""

    session: ShopperSession
    waiting: dict[str, str] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    def send(self, kind: str, line: str) -> None:
        """Have a message sent; an older one of its kind that still waits is left out."""
        self.waiting.pop(kind, None)
        self.waiting[kind] = line
        self.woken.set()

    def take(self) -> list[str]:
        """The messages to send now."""
        lines = list(self.waiting.values())
        self.waiting.clear()
        return lines


class ShopperPages:
    """The open pages of phones and screens. Methods run in the event loop of the server."""

    def __init__(
        self,
        ledger: Ledger,
        visits: Visits,
        feed: Path | None,
        door: Callable[[str], dict[str, Any]],
        connect_every_s: float = CONNECT_EVERY_S,
    ) -> None:
        """Prepare; `tasks` does the work.

        Args:
            ledger: whose entries are watched.
            visits: the visits as pages show them.
            feed: socket of the runner; None where there is none.
            door: makes what a screen at a door shows to the guest of a visit who has just left there.
            connect_every_s: how often a missing runner is looked for.
        """
        self._ledger, self._visits, self._feed, self._door = ledger, visits, feed, door
        self._connect_every_s = connect_every_s
        self._pages: dict[Page, None] = {}  # oldest first
        self._live = False
        # By visit: the pseudonym of its customer, and its goods.
        self._carts: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {}
        self._accounts: dict[str, str | None] = {}
        # By zone/ID and gate/ID: the newest line, and its baskets.
        self._places: dict[str, tuple[str, tuple[Basket, ...]]] = {}
        self._seq: int | None = None

    @property
    def full(self) -> bool:
        """Whether no further page may open."""
        return len(self._pages) >= PAGES_MAX

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """The work of watching the books and following the runner, each to be run until it is cancelled."""
        if self._feed is None:
            return [self._watch_books()]
        runner = follow(
            self._feed, connected=self._runner_came, take=self._take_in, lost=lambda: self._set_live(False),
            connect_every_s=self._connect_every_s,
        )  # fmt: skip
        return [self._watch_books(), runner]

    def at(self, place: str) -> tuple[Basket, ...]:
        """The baskets that the screen of a zone or a paying door shows; none while the runner is away."""
        return self._places[place][1] if self._live and place in self._places else ()

    async def stream(self, session: ShopperSession, holds: Callable[[], bool]) -> AsyncIterator[str]:
        """Server-sent events for one page; it ends where `holds` is False, since its session has ended."""
        page = Page(session)
        page.send("live", _live_line(self._live))
        if session.kind == "screen":
            line, _ = self._places.get(session.subject, ("", ()))
            if line:
                page.send("baskets", line)
        for visit in self._own_carts(session):
            page.send(f"basket {visit}", self._basket_line(visit))
        # Those that were ended and are still about to end do not count: many may come before the first has gone.
        same = [one for one in self._pages if one.session.subject == session.subject and not one.lost]
        for one in same[: max(len(same) + 1 - PAGES_OF_ONE_MAX, 0)]:
            one.lost = True
            one.woken.set()
        self._pages[page] = None
        try:
            while not page.lost:
                with suppress(TimeoutError):
                    await asyncio.wait_for(page.woken.wait(), ALIVE_EVERY_S)
                page.woken.clear()
                if not holds():
                    yield "event: signed-out\ndata: {}\n\n"
                    return
                yield "".join(f"data: {line}\n\n" for line in page.take()) or ": alive\n\n"
        finally:
            self._pages.pop(page, None)

    # ---- the runner --------------------------------------------------------------------------------------------------

    def _runner_came(self) -> None:
        self._set_live(True)
        self._places.clear()

    def _set_live(self, live: bool) -> None:
        self._live = live
        for page in self._pages:
            page.send("live", _live_line(live))

    def _take_in(self, kind: str, line: str) -> None:
        match kind:
            case "shop":
                self._take_carts(json.loads(line)["shop"]["carts"])
            case "gate":
                _, gate, way, kind, *_ = json.loads(checked(line))["gate"]
                self._send_to_screen(f"gate/{gate}", "gate", line)
                paid = self.at(f"gate/{gate}")
                if (way, kind, len(paid)) == ("out", "open", 1):
                    # At a door that opens after payment its customer still stands before the screen.
                    self._show_door(gate, paid[0].visit)
            case "left":
                _, gate, visit = json.loads(line)["left"]
                self._show_door(gate, visit)
            case "baskets":
                ms, place, rows = json.loads(checked(line))["baskets"]
                self._places[place] = line, tuple(_basket(row, ms * 10**6) for row in rows)
                self._send_to_screen(place, "baskets", line)

    def _take_carts(self, carts: Iterable[Any]) -> None:
        now = {visit: (label, tuple((gtin, n) for gtin, n in goods)) for visit, label, goods in carts}
        changed = [visit for visit in {**self._carts, **now} if self._carts.get(visit) != now.get(visit)]
        before, self._carts = self._carts, now
        if not self._pages:
            return
        for visit in changed:
            label, _ = now.get(visit) or before[visit]
            pages = [page for page in self._pages if self._shows(page.session, visit, label)]
            if pages:
                line = self._basket_line(visit)
                for page in pages:
                    page.send(f"basket {visit}", line)
        gone = {label for label, _ in before.values()} - {label for label, _ in now.values()}
        for label in gone:
            self._accounts.pop(label, None)

    def _own_carts(self, session: ShopperSession) -> list[str]:
        return [visit for visit, (label, _) in self._carts.items() if self._shows(session, visit, label)]

    def _shows(self, session: ShopperSession, visit: str, label: str) -> bool:
        if session.kind != "account":
            return session.kind == "visit" and session.subject == visit
        if label not in self._accounts:
            try:
                self._accounts[label] = self._visits.holder_account(label)
            except FusionError:
                return False
        return self._accounts[label] == session.subject

    def _basket_line(self, visit: str) -> str:
        cart = self._carts.get(visit)
        if cart is None:
            return json.dumps({"basket": {"visit": visit, "over": True}})
        return json.dumps({"basket": self._visits.basket(visit, cart[1])})

    def _send_to_screen(self, screen: str, kind: str, line: str) -> None:
        for page in self._pages:
            if page.session.kind == "screen" and page.session.subject == screen:
                page.send(kind, line)

    def _show_door(self, gate: str, visit: str) -> None:
        """Show the guest who has just left their way to the receipt, where a screen hangs at that gate."""
        screens = [p for p in self._pages if p.session.kind == "screen" and p.session.subject == f"gate/{gate}"]
        if screens and self._visits.is_guest(visit):
            line = json.dumps({"door": self._door(visit)})
            for page in screens:
                page.send("door", line)

    # ---- the books ---------------------------------------------------------------------------------------------------

    async def _watch_books(self) -> None:
        while True:
            try:
                await self.read_books()
            except FusionError as error:
                # The books may be on a server that is away for a while.
                _log.warning("books: %s", terminal_text(str(error)))
                await asyncio.sleep(self._connect_every_s)
            await asyncio.sleep(WATCH_EVERY_S)

    async def read_books(self) -> None:
        """Send every page which of its visits have new entries. Raises LedgerError where the books cannot be read."""
        found = await asyncio.to_thread(self._new_entries)
        for page in self._pages:
            session = page.session
            own = [
                visit for visit, account in found
                if (session.kind == "visit" and visit == session.subject)
                or (session.kind == "account" and account == session.subject)
            ]  # fmt: skip
            for visit in own:
                page.send(f"visit {visit}", json.dumps({"visit": visit}))

    def _new_entries(self) -> list[tuple[str, str | None]]:
        """Visits with entries since the last look, with their accounts."""
        if self._seq is None:
            self._seq = self._ledger.head().seq
            return []
        if self._ledger.head().seq == self._seq:
            return []
        visits: dict[str, None] = {}
        seq = self._seq
        while rows := self._ledger.rows_after(seq, ROWS_AT_ONCE)[0]:
            visits.update(dict.fromkeys(row.visit for row in rows))
            seq = rows[-1].seq
        found = [(visit, self._visits.account(visit)) for visit in visits]
        self._seq = seq  # not before all of it was read: the books may be away in between
        return found


def _basket(row: list[Any], t_ns: int) -> Basket:
    """A basket of the feed: visit, total, and goods as product, pieces and price of a piece."""
    visit, total, goods = row
    return Basket(visit, tuple(ReceiptLine(gtin, n, price, 1.0) for gtin, n, price in goods), total, t_ns)


def _live_line(live: bool) -> str:
    return json.dumps({"live": live})
