"""What really happened in a run: of a recording made for evaluation, or of a simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusion.money.prices import PriceBook
from fusion.results import Receipt, ReceiptLine, ReceiptStatus, Taken
from fusion.simulation import Truth
from fusion.store.gtin import OwnGtins


@dataclass(frozen=True)
class TrueVisit:
    """One visit as it really was.

    Attributes:
        account: the account; None for a person who was not scanned.
        enter_ns, exit_ns: first entry and last exit of its people.
        items: pieces by GTIN.
        taken_ns: by GTIN, when each of the pieces was taken; empty where the source does not have it.
        total: what they cost, minor units; None: at list prices.
    """

    account: str | None
    enter_ns: int
    exit_ns: int
    items: Mapping[str, int]
    taken_ns: Mapping[str, list[int]] = field(default_factory=dict)
    total: int | None = None

    def priced(self, prices: PriceBook, *, member: bool) -> TrueVisit:
        """The visit with what it should cost at a store's prices."""
        lines = tuple(ReceiptLine(gtin, n, 0, 1.0) for gtin, n in sorted(self.items.items()) if n)
        taken = tuple(Taken(t_ns, gtin, 1) for gtin, times in self.taken_ns.items() for t_ns in times)
        bill = Receipt(
            "truth", None, None, self.exit_ns, self.exit_ns, ReceiptStatus.SETTLED, (), "", 0, lines, taken
        )  # fmt: skip
        return replace(self, total=prices.priced(bill, member=member).receipt.total)

    def moved(self, by_ns: int) -> TrueVisit:
        """The same visit at another time."""
        taken_ns = {gtin: [t_ns + by_ns for t_ns in times] for gtin, times in self.taken_ns.items()}
        return replace(self, enter_ns=self.enter_ns + by_ns, exit_ns=self.exit_ns + by_ns, taken_ns=taken_ns)

    def row(self) -> dict[str, Any]:
        """As in truth/visits.jsonl."""
        row = {"account": self.account, "enter": self.enter_ns, "exit": self.exit_ns, "items": dict(self.items)}
        return row if self.total is None else {**row, "total": self.total}


def recorded_visits(folder: Path, own_gtins: OwnGtins) -> list[TrueVisit] | None:
    """The visits in truth/visits.jsonl of a recording, GTINs as its store spells them; None where it has none."""
    path = folder / "truth" / "visits.jsonl"
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [TrueVisit(row["account"], row["enter"], row["exit"], _as_spelt(row["items"], own_gtins)) for row in rows]


def _as_spelt(items: Mapping[str, int], own_gtins: OwnGtins) -> dict[str, int]:
    spelt: dict[str, int] = {}
    for gtin, n in items.items():
        own = own_gtins.of(gtin) or gtin
        spelt[own] = spelt.get(own, 0) + n
    return spelt


def simulated_visits(truth: Truth) -> list[TrueVisit]:
    """The visits of a simulation, once its observations were consumed."""
    visits = []
    for visit in truth.visits:
        taken_ns: dict[str, list[int]] = {}
        for event in sorted(truth.events, key=lambda event: event.t_ns):
            if event.account != visit.account or not visit.enter_ns <= event.t_ns <= visit.exit_ns:
                continue
            times = taken_ns.setdefault(event.gtin, [])
            if event.quantity < 0:
                times.extend([event.t_ns] * -event.quantity)
            else:
                # The pieces that are put back are those that were taken last.
                del times[max(len(times) - event.quantity, 0) :]
        visits.append(TrueVisit(visit.account, visit.enter_ns, visit.exit_ns, visit.items, taken_ns))
    return visits
