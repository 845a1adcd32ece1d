"""Decisions of reviewers: what they may send, at which prices it is billed, and the visit as it stands afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field

from fusion.errors import FusionError, terminal_text
from fusion.files.results import reason_row
from fusion.money.corrections import ENTERED, Corrections
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.sales import Discount
from fusion.money.visits import Standing
from fusion.results import ReceiptLine
from fusion.store.models import Store
from fusion.store.values import StrictModel

PIECES_MAX = 1000

_log = logging.getLogger(__name__)


class Line(StrictModel):
    """Pieces of a product on a corrected bill."""

    gtin: str
    quantity: int = Field(ge=1, le=PIECES_MAX)


class Decision(StrictModel):
    """A reviewer's decision, as a page sends it; `lines` are given with "correct" and only then."""

    decision: str
    revision: int = Field(ge=1, le=1000)
    lines: tuple[Line, ...] | None = Field(default=None, max_length=500)
    note: str = Field(default="", max_length=500)


class Decisions:
    """The visits of a store's ledger, as reviewers read and decide them."""

    def __init__(
        self, store: Store, ledger: Ledger, checkout: Checkout | None, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Prepare.

        Args:
            store: whose visits they are.
            ledger: its books.
            checkout: settles decisions with the payment provider; None leaves that to the store's own.
            clock_ns: when a decision is made.
        """
        self._ledger, self._checkout, self._clock_ns = ledger, checkout, clock_ns
        # One thread asks the provider, however long it takes; no user of the console waits for that.
        self._settling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settling")
        self._corrections = Corrections(store, ledger)

    def standing(self, visit: str) -> Standing | None:
        """How a visit stands; None where the books have none of this name.

        Raises:
            LedgerError: the books cannot be read.
        """
        try:
            return self._ledger.standing(visit)
        except FusionError:
            self._ledger.head()  # raises where the books themselves cannot be read
            return None  # otherwise the text is no possible name of a visit

    def history(self, visit: str) -> list[dict[str, Any]]:
        """The decisions about a visit so far, oldest first."""
        return [
            {"decision": entry.kind.removeprefix("decision "), "by": entry.request["by"], "ms": entry.t_ns // 1_000_000}
            for entry in self._ledger.entries(visit)
            if entry.kind.startswith("decision ")
        ]

    def decide(self, visit: str, asked: Decision, user: str) -> Standing:
        """Enter a decision in the books; its payment is settled in the background where a provider is at hand.

        Raises:
            IdempotencyConflict: another person decided the visit in the meantime.
            FusionError: the decision makes no sense for this visit, or cannot be entered.
        """
        lines: tuple[ReceiptLine, ...] | None = None
        discounts: tuple[Discount, ...] = ()
        if asked.decision == "correct":
            wanted = tuple(ReceiptLine(line.gtin, line.quantity, 0, ENTERED) for line in asked.lines or ())
            lines, discounts = self._corrections.priced(visit, wanted)
        elif asked.lines is not None:
            raise FusionError(f"lines: want lines with the decision correct and no other, got {asked.decision}")
        t_ns = self._clock_ns()
        self._ledger.decide(
            visit, asked.decision, by=user, t_ns=t_ns, revision=asked.revision, lines=lines,  # type: ignore[arg-type]
            discounts=discounts, note=asked.note,
        )  # fmt: skip
        if self._checkout is not None:
            self._settling.submit(self._settle, self._checkout, visit, t_ns)
        standing = self._ledger.standing(visit)
        assert standing is not None
        return standing

    def _settle(self, checkout: Checkout, visit: str, t_ns: int) -> None:
        try:
            checkout.settle(visit, t_ns)
        except FusionError as error:
            # The decision is in the books: `Checkout.recover` settles later.
            _log.warning("visit %s is decided, its payment not settled: %s", visit, terminal_text(str(error)))

    def close(self) -> None:
        """Wait until the payments of all decisions have been tried; those without an answer are settled later."""
        self._settling.shutdown()


def standing_row(standing: Standing) -> dict[str, Any]:
    """A visit as pages read it."""
    return {
        "visit": standing.visit,
        "account": standing.account,
        "status": standing.status,
        "reason": standing.reason,
        "reasons": [reason_row(reason) for reason in standing.reasons],
        "total": standing.total,
        "revision": standing.revision,
        "lines": [[line.gtin, line.quantity, line.unit_price, line.confidence] for line in standing.lines],
        "discounts": sum(discount.amount for discount in standing.discounts),
    }


def review_row(standing: Standing) -> dict[str, Any]:
    """A visit as the queue shows it: without lines, with the number of pieces."""
    pieces = sum(line.quantity for line in standing.lines)
    return {**standing_row(standing), "lines": None, "pieces": pieces}
