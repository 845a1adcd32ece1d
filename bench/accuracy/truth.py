"""The truth of a simulated run: visits, shelf events, and how full the shop was."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fusion.store.models import Store


@dataclass(frozen=True)
class TrueVisit:
    """A visit and what it took. account: None for an unscanned visitor; items: quantity by GTIN."""

    account: str | None
    enter_ns: int
    exit_ns: int
    items: dict[str, int]


@dataclass(frozen=True)
class TrueEvent:
    """One movement of goods. quantity: negative for a take; account: None for unscanned visitors and staff."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None


def true_visits(recording: Path) -> list[TrueVisit]:
    """The visits in a recording's truth folder."""
    with open(recording / "truth" / "visits.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    own = Store.load(recording / "store").own_gtins
    return [
        TrueVisit(row["account"], row["enter"], row["exit"], {own.of(g) or g: n for g, n in row["items"].items()})
        for row in rows
    ]


def true_events(recording: Path) -> list[TrueEvent]:
    """The shelf events in a recording's truth folder."""
    with open(recording / "truth" / "events.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    own = Store.load(recording / "store").own_gtins
    return [
        TrueEvent(
            int(row["time"]),
            row["plate"],
            own.of(row["gtin"]) or row["gtin"],
            int(row["quantity"]),
            None if not row["account"] or row["account"].startswith("staff-") else row["account"],
        )
        for row in rows
    ]


@dataclass(frozen=True)
class TrueLoad:
    """What the plates show of one load in the end: grams by plate."""

    t_ns: int
    grams: dict[str, float]

    @property
    def total_g(self) -> float:
        """Grams on all plates together."""
        return sum(self.grams.values())


def true_loads(recording: Path) -> list[TrueLoad]:
    """The loads in a recording's truth folder, in the order in which they came; empty where they were not written."""
    path = recording / "truth" / "loads.csv"
    if not path.exists():
        return []
    grams: dict[tuple[int, int], dict[str, float]] = {}
    at, number = 0, 0
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            t_ns, plate = int(row["time"]), row["plate"]
            # Two loads at one instant list their plates one after the other.
            if t_ns != at or plate in grams.get((at, number), {}):
                at, number = t_ns, number + 1
            grams.setdefault((at, number), {})[plate] = float(row["grams"])
    return [TrueLoad(t_ns, plates) for (t_ns, _), plates in grams.items()]


def people_at_once(recording: Path, store: Store) -> float:
    """Number of people inside at the same time, as a visitor meets it: the mean over people, not over time."""
    table = pq.read_table(recording / "truth" / "people.parquet", columns=["time", "x", "y"])
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    # The bounding box of the floor is accurate enough, and much faster than the polygon.
    low, high = np.min(store.floor, axis=0), np.max(store.floor, axis=0)
    inside = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    _, counts = np.unique(table["time"].to_numpy()[inside], return_counts=True)
    return float((counts**2).sum() / max(counts.sum(), 1))
