"""What a reviewer needs to decide: around every open shelf event, what plates weighed and where wrists were.

Kept from the moment an event is observed, since samples and arms are forgotten within seconds, until it is settled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusion.goods.attribution import EventBelief
from fusion.goods.loads import ShelfEvent
from fusion.goods.scales import ShelfMonitor
from fusion.people.arms import ArmHistory
from fusion.results import Candidate, EventEvidence, PlateTrace, WristPath
from fusion.store.models import Store

# A load is gone within a second; a little quiet before and after shows the step.
TRACE_BEFORE_S, TRACE_AFTER_S = 2.0, 2.5
WRISTS_BEFORE_S, WRISTS_AFTER_S = 1.5, 1.0
# About twelve a second: a hand's way is seen, and a bundle stays small.
WRIST_INSTANTS_MAX = 30
# Far more than are open in a full store; about 20 kB each.
RECORDS_MAX = 512


@dataclass(frozen=True, slots=True, eq=False)
class _Wrists:
    track_id: int
    t_ns: np.ndarray  # (n,) int64
    wrists_m: np.ndarray  # (n, 2, 3) float32, NaN where unknown


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    event: ShelfEvent
    start_ns: tuple[int, ...]
    grams: tuple[np.ndarray, ...]
    wrists: tuple[_Wrists, ...]


class EvidenceRecorder:
    """Traces and wrist paths about the events that are open. Bounded: the oldest record makes room."""

    def __init__(self, store: Store) -> None:
        self._names = [plate.plate for plate in store.plates]
        self._rate_hz = store.weight_rate_hz
        self._records: OrderedDict[int, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def record(self, event: ShelfEvent, belief: EventBelief, monitor: ShelfMonitor, history: ArmHistory) -> None:
        """Copy what is known about an event that has just been observed."""
        first_ns = event.contact_ns - round(TRACE_BEFORE_S * 1e9)
        last_ns = event.contact_ns + round(TRACE_AFTER_S * 1e9)
        start_ns, grams = [], []
        for plate in event.plates.tolist():
            times, samples = monitor.trace(plate)
            first, after = np.searchsorted(times, (first_ns, last_ns + 1))
            start_ns.append(int(times[first]) if first < after else event.contact_ns)
            grams.append(samples[first:after].copy())
        rows = history.between(
            event.contact_ns - round(WRISTS_BEFORE_S * 1e9), event.contact_ns + round(WRISTS_AFTER_S * 1e9)
        )
        tracks = history.track[rows]
        wrists = []
        for person in dict.fromkeys(one.person for one in belief.candidates if one.person is not None):
            mine = np.flatnonzero(tracks == person)
            if len(mine):
                n = min(len(mine), WRIST_INSTANTS_MAX)
                mine = rows.start + mine[np.linspace(0, len(mine) - 1, n).astype(np.int64)]
                wrists.append(_Wrists(person, history.t_ns[mine], history.arms_m[mine, :, 0].astype(np.float32)))
        self._records[belief.event_id] = _Record(event, tuple(start_ns), tuple(grams), tuple(wrists))
        if len(self._records) > RECORDS_MAX:
            self._records.popitem(last=False)

    def forget(self, event_id: int) -> None:
        """An event is settled and told."""
        self._records.pop(event_id, None)

    def tell(
        self,
        belief: EventBelief,
        candidate_of: Callable[[int | None], tuple[str | None, str | None]],
    ) -> EventEvidence | None:
        """Everything about an event as it looks now; None where it is not kept any more.

        candidate_of: account and visit of a track.
        """
        kept = self._records.get(belief.event_id)
        if kept is None:
            return None
        event = kept.event
        traces = tuple(
            PlateTrace(self._names[plate], round(float(delta_g), 3), start_ns, self._rate_hz, _rounded(grams, 2))
            for plate, delta_g, start_ns, grams in zip(event.plates.tolist(), event.delta_g, kept.start_ns, kept.grams)
        )
        wrists = tuple(
            WristPath(
                one.track_id,
                *candidate_of(one.track_id),
                tuple(one.t_ns.tolist()),
                _places(one.wrists_m[:, 0]),
                _places(one.wrists_m[:, 1]),
            )
            for one in kept.wrists
        )
        alternatives = tuple(
            Candidate(account, one.gtin, one.quantity, one.probability, visit)
            for one in belief.candidates
            for account, visit in [candidate_of(one.person)]
        )
        return EventEvidence(
            belief.event_id,
            event.onset_ns,
            event.contact_ns,
            event.settled_ns,
            belief.plate,
            traces,
            wrists,
            alternatives,
            belief.nothing,
        )


def _rounded(values: np.ndarray, digits: int) -> tuple[float, ...]:
    # Rounded as float64: float32 has no short decimal for most values.
    return tuple(np.round(values.astype(np.float64), digits).tolist())


def _places(points_m: np.ndarray) -> tuple[tuple[float, float, float] | None, ...]:
    places = np.round(points_m.astype(np.float64), 3).tolist()
    # NaN differs from itself; a wrist is known in all three coordinates or in none.
    return tuple((x, y, z) if x == x else None for x, y, z in places)
