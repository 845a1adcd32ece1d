"""The settings with which a process serves one store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.money.retailers import Retailer
from fusion.store.models import Store
from fusion.till.settings import TillFile

# A process writes its first snapshot after this much data and doubles the interval up to the configured one, so that
# even a process that is killed again and again makes progress.
FIRST_SNAPSHOT_S = 0.5
# Goods of visits that were billed are remembered this long: shelf events are attributed seconds after them.
GOODS_REMEMBERED_S = 3600.0


@dataclass(frozen=True)
class ServeConfig:
    """How one store is served. Durations are seconds of data time.

    Attributes:
        store: the store.
        folder: holds its snapshot, its books and whatever else its process writes.
        base: what relative paths in `source` and `options` are relative to.
        source: where its observations come from, such as `mqtt://HOST` or `recording:FOLDER`.
        options: of that source.
        anchor_s: instant of the clock at which serving began; recordings and simulations are paced from there.
        snapshot_every_s: time between snapshots; the first come sooner.
        first_snapshot_s: time of the first snapshot after a start.
        layout_wait_s: how long another layout waits for the store to be empty.
        goods_remembered_s: how long goods of visits that were billed are remembered.
        early: whether receipts are shown early, which takes two to three times the time; None: where data are live.
        till: how it takes payments, admits customers and keeps its books.
        retailer: whose store it is; None for the store itself.
    """

    store: Store
    folder: Path
    base: Path
    source: str
    options: dict[str, Any]
    anchor_s: float
    snapshot_every_s: float = 5.0
    first_snapshot_s: float = FIRST_SNAPSHOT_S
    layout_wait_s: float = 600.0
    goods_remembered_s: float = GOODS_REMEMBERED_S
    early: bool | None = None
    till: TillFile = field(default_factory=TillFile)
    retailer: Retailer | None = None
