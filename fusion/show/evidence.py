"""Evidence of shelf events in the form of a page: weights and wrists as packed numbers, each event kept once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.results import EventEvidence, Evidence
from fusion.show.page import clean, compact_json, packed
from fusion.show.plan import CM_PER_M


@dataclass(frozen=True)
class _Kept:
    """An event's weights and wrists as JSON, and how clear the event was."""

    certainty: float
    text: str


class EvidenceStore:
    """The evidence bundles of receipts; where the text exceeds its limit, that of the clearest events is dropped.

    Attributes:
        bundles: by visit, without weights and wrist paths.
        n_dropped: events whose weights and paths were dropped.
    """

    def __init__(self, bundles_max: int, bytes_max: int) -> None:
        self.bundles: dict[str, Evidence] = {}
        self.n_dropped = 0
        self._bundles_max, self._bytes_max = bundles_max, bytes_max
        self._events: dict[int, _Kept] = {}
        self._n_bytes = 0

    def add(self, bundle: Evidence) -> None:
        """Keep the first bundle of a visit."""
        if bundle.visit in self.bundles or len(self.bundles) >= self._bundles_max:
            return
        slim = []
        for event in bundle.events:
            # Weights and paths of an event are the same in every bundle that contains it; they are kept as text, once.
            if event.event_id not in self._events:
                kept = _Kept(max([event.nothing, *(one.probability for one in event.alternatives)]), event_text(event))
                self._events[event.event_id] = kept
                self._n_bytes += len(kept.text)
            names = tuple(replace(path, t_ns=(), left_m=(), right_m=()) for path in event.wrists)
            slim.append(replace(event, traces=(), wrists=names))
        self.bundles[bundle.visit] = replace(bundle, events=tuple(slim))
        if self._n_bytes > self._bytes_max:
            self._drop_clearest()

    def _drop_clearest(self) -> None:
        clearest = sorted(self._events, key=lambda event_id: -self._events[event_id].certainty)
        for event_id in clearest[: len(clearest) // 4 + 1]:
            self._n_bytes -= len(self._events.pop(event_id).text)
            self.n_dropped += 1

    def text(self) -> str:
        """A JSON array with one row for each event that is kept, as made by `event_text`."""
        return "[" + ",".join(kept.text for kept in self._events.values()) + "]"


def event_text(event: EventEvidence) -> str:
    """Weights and wrists around an event as JSON: int16 in base64, times in ms from the contact, places in cm."""

    def ms(t_ns: int) -> int:
        return (t_ns - event.contact_ns) // 1_000_000

    traces = []
    for trace in event.traces:
        grams = np.array(trace.grams, np.float64)
        change_g = grams - grams[0] if len(grams) else grams
        # A tenth of a gram, or the resolution of sixteen bits where the load is heavy.
        unit_g = max(0.1, float(np.nanmax(np.abs(change_g), initial=0.0)) / 32000)
        row = [clean(trace.plate), trace.delta_g, ms(trace.start_ns), trace.rate_hz, unit_g]
        traces.append([*row, packed(change_g / unit_g)])
    wrists = []
    for path in event.wrists:
        sides = [packed(_places_cm(side)) for side in (path.left_m, path.right_m)]
        wrists.append([path.track_id, packed([ms(t_ns) for t_ns in path.t_ns]), *sides])
    return compact_json([event.event_id, ms(event.onset_ns), ms(event.settled_ns), traces, wrists])


def _places_cm(places_m: Sequence[tuple[float, float, float] | None]) -> NDArray[np.float64]:
    """Places as one flat array of 3 n centimetres; NaN where a place is unknown."""
    return np.array([(math.nan,) * 3 if place is None else place for place in places_m]).reshape(-1) * CM_PER_M
