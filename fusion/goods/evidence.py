"""Evidence for a reviewer: around every open shelf event, what plates weighed and where wrists were.

Samples and arms are forgotten within seconds, so they are copied when an event is observed and kept until it settles.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusion.goods.beliefs import EventBelief
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.goods.scales import ShelfMonitor
from fusion.goods.weighings import PLACE_GAIN_SD
from fusion.people.arms import ArmHistory
from fusion.results import Candidate, EventEvidence, PieceWeight, PlateTrace, WristPath
from fusion.store.models import Store

# A result that may name accounts, or a part of one.
_Named = TypeVar("_Named")
# A load is gone within a second; a little quiet before and after shows the step.
TRACE_BEFORE_S, TRACE_AFTER_S = 2.0, 2.5
WRISTS_BEFORE_S, WRISTS_AFTER_S = 1.5, 1.0
# About twelve a second: the path of a hand is visible, and a bundle stays small.
WRIST_INSTANTS_MAX = 30
# Far more events than are open in a full store; about 20 kB each.
RECORDS_MAX = 512


@dataclass(frozen=True, slots=True, eq=False)
class _Wrists:
    """Both wrists of one track: t_ns (n,) int64, wrists_m (n, 2, 3) float32, NaN where unknown."""

    track_id: int
    t_ns: NDArray[np.int64]
    wrists_m: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    event: ShelfEvent
    start_ns: tuple[int, ...]
    grams: tuple[NDArray[np.float32], ...]
    wrists: tuple[_Wrists, ...]


class EvidenceRecorder:
    """Traces and wrist paths around the open events. Bounded: the oldest record makes room."""

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
        for person in dict.fromkeys(c.person for c in belief.candidates if c.person is not None):
            instants = np.flatnonzero(tracks == person)
            if len(instants):
                n = min(len(instants), WRIST_INSTANTS_MAX)
                at = rows.start + instants[np.linspace(0, len(instants) - 1, n).astype(np.int64)]
                wrists.append(_Wrists(person, history.t_ns[at], history.arms_m[at, :, 0].astype(np.float32)))
        self._records[belief.event_id] = _Record(event, tuple(start_ns), tuple(grams), tuple(wrists))
        if len(self._records) > RECORDS_MAX:
            self._records.popitem(last=False)

    def event(self, event_id: int) -> ShelfEvent | None:
        """The measurement of an event; None if its record is no longer kept."""
        record = self._records.get(event_id)
        return None if record is None else record.event

    def forget(self, event_id: int) -> None:
        """Drop the record of an event that has settled."""
        self._records.pop(event_id, None)

    def describe(
        self,
        belief: EventBelief,
        planogram: Planogram,
        owner_of: Callable[[int | None], tuple[str | None, str | None]],
    ) -> EventEvidence | None:
        """Everything about an event as it looks now; None if its record is no longer kept.

        Args:
            belief: the event's present belief.
            planogram: what pieces weigh, and what plates read of it.
            owner_of: account and visit of a track.
        """
        record = self._records.get(belief.event_id)
        if record is None:
            return None
        event = record.event
        traces = tuple(
            PlateTrace(self._names[plate], round(float(delta_g), 3), start_ns, self._rate_hz, _rounded(grams, 2))
            for plate, delta_g, start_ns, grams in zip(
                event.plates.tolist(), event.delta_g, record.start_ns, record.grams
            )
        )
        wrists = tuple(
            WristPath(
                path.track_id,
                *owner_of(path.track_id),
                tuple(path.t_ns.tolist()),
                _places(path.wrists_m[:, 0]),
                _places(path.wrists_m[:, 1]),
            )
            for path in record.wrists
        )
        alternatives = tuple(
            Candidate(account, candidate.gtin, candidate.quantity, candidate.probability, visit)
            for candidate in belief.candidates
            for account, visit in [owner_of(candidate.person)]
        )
        gain, gain_var = planogram.gain[event.plates], planogram.gain_var[event.plates]
        weighed_g = float((event.delta_g / gain).sum())
        # Noise, what a plate's gain is off by, and how much it differs from place to place on the plate.
        var_g2 = event.noise_g2 + float((gain_var * event.delta_g**2).sum()) + (PLACE_GAIN_SD * weighed_g) ** 2
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
            round(weighed_g, 2),
            round(math.sqrt(var_g2), 2),
            _pieces(planogram, dict.fromkeys(candidate.gtin for candidate in belief.candidates)),
        )


def _pieces(planogram: Planogram, gtins: Iterable[str]) -> tuple[PieceWeight, ...]:
    """What a piece of each product weighs."""
    index = {gtin: i for i, gtin in enumerate(planogram.gtins)}
    return tuple(
        PieceWeight(gtin, round(float(planogram.weight_g[at]), 2), round(float(planogram.weight_sd_g[at]), 2))
        for gtin in gtins
        if (at := index.get(gtin)) is not None
    )


def _rounded(values: NDArray[np.float32], digits: int) -> tuple[float, ...]:
    # Rounded as float64: float32 has no short decimal for most values.
    return tuple(np.round(values.astype(np.float64), digits).tolist())


def _places(points_m: NDArray[np.float32]) -> tuple[tuple[float, float, float] | None, ...]:
    places = np.round(points_m.astype(np.float64), 3).tolist()
    # A wrist is known in all three coordinates or in none.
    return tuple(None if math.isnan(x) else (x, y, z) for x, y, z in places)


def with_accounts(bundle: _Named, renamed: Callable[[str], str]) -> _Named:
    """A bundle, or a part of one, with other names in the place of accounts, however deep they stand."""
    changes: dict[str, Any] = {}
    for each in fields(bundle):  # type: ignore[arg-type]
        value = getattr(bundle, each.name)
        if each.name == "account" and value is not None:
            changes[each.name] = renamed(value)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            changes[each.name] = tuple(with_accounts(part, renamed) for part in value)
    return replace(bundle, **changes) if changes else bundle  # type: ignore[type-var]
