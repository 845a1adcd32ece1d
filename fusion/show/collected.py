"""What a report keeps of a run while it runs, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fusion.results import (
    Evidence,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    Result,
    ShelfEventExplained,
    Warning,
)
from fusion.show.evidence import EvidenceStore
from fusion.show.presence import Presence
from fusion.show.sensors import SensorHistory
from fusion.show.visitors import Visitors
from fusion.store.models import Store

if TYPE_CHECKING:
    from fusion.engine import Engine

CANDIDATES_MAX = 4


@dataclass(frozen=True)
class Limits:
    """How much a report keeps. What exceeds a limit is counted, and the page states the count.

    Together the defaults keep the page under 10 MB.

    Attributes:
        samples: positions of people: ten people for more than six hours at 5 Hz. One takes 16 bytes in memory and 3 on
            the page.
        events, receipts, warnings: rows in the lists of the page.
        evidence_bytes: weights and wrist paths of shelf events, as text on the page.
        health_samples: samples of sensors' health and of step times.
    """

    samples: int = 1_200_000
    events: int = 12_000
    receipts: int = 5_000
    warnings: int = 2_000
    evidence_bytes: int = 4_500_000
    health_samples: int = 720


class CandidateRow(NamedTuple):
    """Who may have moved what, as the page lists it; `visitor` is an index into the page's visitors."""

    visitor: int
    gtin: str
    quantity: int
    probability: float


@dataclass(frozen=True)
class EventRow:
    """A shelf event: its candidates, most probable first; the probability of no move; whether these are final."""

    t_ns: int
    plate: str
    delta_g: float | None
    candidates: list[CandidateRow]
    nothing: float
    final: bool


class Collected:
    """Collects the results of one run.

    Attributes:
        start_ns, end_ns: time of the first result and of the newest.
        visitors, presence, sensors, evidence, receipts, warnings: what was collected, by subject.
    """

    def __init__(self, store: Store, engine: Engine | None, limits: Limits) -> None:
        self.store = store
        self.visitors = Visitors()
        self.presence = Presence(store, limits.samples)
        self.sensors = SensorHistory(store, limits.health_samples)
        self.evidence = EvidenceStore(limits.receipts, limits.evidence_bytes)
        self.receipts: list[Receipt] = []
        self.warnings: list[Warning] = []
        self.start_ns = self.end_ns = 0
        self._any = False
        self._engine, self._limits = engine, limits
        self._explained: list[ShelfEventExplained] = []
        self._moves: dict[tuple[int, str], Picked | PutBack] = {}
        self._left_out: Counter[str] = Counter()

    @property
    def left_out(self) -> Counter[str]:
        """Results that exceeded a limit, by kind."""
        dropped = self.evidence.n_dropped
        return self._left_out + Counter(evidence=dropped) if dropped else self._left_out.copy()

    def add(self, result: Result) -> None:
        """Take in the next result of the engine."""
        t_ns = result.issued_ns if isinstance(result, Receipt) else result.t_ns
        if not self._any:
            self.start_ns, self._any = t_ns, True
        self.end_ns = max(self.end_ns, t_ns)
        match result:
            case People():
                if self.presence.add(result, self.start_ns) and self._engine is not None:
                    self.sensors.sample(self._engine, result.t_ns)
            case PersonEntered():
                self.visitors.enter(result)
            case PersonLeft():
                self.visitors.leave(result)
            case ShelfEventExplained() | Picked() | PutBack():
                self._add_event(result)
            case Receipt() | Evidence():
                self._add_receipt(result)
            case Warning() if self._has_room("warnings", len(self.warnings)):
                self.warnings.append(result)

    def _add_event(self, event: ShelfEventExplained | Picked | PutBack) -> None:
        key = (event.t_ns, event.plate)
        if isinstance(event, ShelfEventExplained):
            # Final: what the event looked like before is dropped.
            self._moves.pop(key, None)
            if self._has_room("events", len(self._explained)):
                self._explained.append(event)
        elif key in self._moves or self._has_room("events", len(self._moves)):
            self._moves[key] = event

    def _add_receipt(self, result: Receipt | Evidence) -> None:
        if isinstance(result, Evidence):
            self.evidence.add(result)
            return
        if self._has_room("receipts", len(self.receipts)):
            self.receipts.append(result)
        bundle = None if self._engine is None else self._engine.evidence(result.visit)
        if bundle is not None:
            self.evidence.add(bundle)

    def _has_room(self, kind: str, n_rows: int) -> bool:
        if n_rows < getattr(self._limits, kind):
            return True
        self._left_out[kind] += 1
        return False

    def events(self) -> list[EventRow]:
        """Shelf events in time order; those that are not final yet as they look so far."""
        rows = []
        for event in self._explained:
            ranked = sorted(event.candidates, key=lambda candidate: -candidate.probability)[:CANDIDATES_MAX]
            candidates = [
                CandidateRow(
                    self.visitors.index_of(candidate.visit, candidate.account),
                    candidate.gtin,
                    candidate.quantity,
                    round(candidate.probability, 3),
                )
                for candidate in ranked
            ]
            # What the candidates leave is the probability that nothing moved.
            nothing = round(max(0.0, 1.0 - sum(candidate.probability for candidate in event.candidates)), 3)
            rows.append(EventRow(event.t_ns, event.plate, event.delta_g, candidates, nothing, final=True))
        for move in self._moves.values():
            pieces = -abs(move.quantity) if isinstance(move, Picked) else abs(move.quantity)
            visitor = self.visitors.index_of(move.visit, move.account)
            candidate = CandidateRow(visitor, move.gtin, pieces, round(move.probability, 3))
            # The remainder of a provisional event is not stated to be anything.
            rows.append(EventRow(move.t_ns, move.plate, None, [candidate], 0.0, final=False))
        return sorted(rows, key=lambda row: (row.t_ns, row.plate))
