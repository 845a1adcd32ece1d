"""A simulated run: streams what the sensors tell in order of time, and keeps what really happened."""

from __future__ import annotations

import csv
import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from fusion.files.recordings import RecordingWriter
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.cameras import Detector, Obstacles
from fusion.simulation.crowd import OVERTIME_S, REGISTERED_AHEAD_S, TAIL_S, TICK_S, Crowd, Tick
from fusion.simulation.scales import Scales
from fusion.simulation.scenario import Scenario
from fusion.store.models import Store

CHUNK_S = 4.0
# Clocks are off by at most 0.1 s and messages jitter by some milliseconds: what is this old is in order.
_HOLD_S = 0.3
# What a reader says of a tag that it has read; readers hardly ever read one that is not there.
TAG_SURE = 0.995


@dataclass(frozen=True, slots=True)
class VisitTruth:
    """A line of truth/visits.jsonl."""

    account: str | None
    enter_ns: int
    exit_ns: int
    items: dict[str, int]


@dataclass(frozen=True, slots=True)
class EventTruth:
    """A row of truth/events.csv; quantity negative when taken, account empty for somebody unscanned."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str


@dataclass(frozen=True, slots=True)
class PeopleTruth:
    """Rows of truth/people.parquet at one instant: joints_m (n, K, 3) in the store's layout."""

    t_ns: int
    person: np.ndarray
    account: list[str | None]
    position_m: np.ndarray
    joints_m: np.ndarray


@dataclass
class Truth:
    """What really happened, as far as observations have been consumed.

    Visits stand in the order of their ends until the run is over, then in the order of their beginnings.
    """

    visits: list[VisitTruth] = field(default_factory=list)
    events: list[EventTruth] = field(default_factory=list)
    people: list[PeopleTruth] = field(default_factory=list)


class Simulation:
    """One run of a scenario in a store.

    Attributes:
        truth: filled while observations are consumed; begun anew by each call of `observations`.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.store, self.scenario = store, scenario
        self.truth = Truth()

    def observations(self) -> Iterator[Observation]:
        """Everything that the sensors tell, in order of time, made a few seconds ahead of the reader."""
        self.truth = Truth()
        pending: list[Observation] = []
        for chunk_end_ns, chunk in self._chunks():
            pending += chunk
            pending.sort(key=attrgetter("t_ns"))
            ripe = len(pending) if chunk_end_ns is None else _first_after(pending, chunk_end_ns)
            yield from pending[:ripe]
            del pending[:ripe]

    def arrivals(self) -> Iterator[tuple[int, Observation]]:
        """The same as they would come in over the shop's network: (time of arrival, observation), by arrival.

        Frames take a detector's 60 to 150 ms; weight messages a median of 3 ms, every twentieth 130 ms, at most 0.37 s.
        """
        random = self.scenario.random("latency")
        waiting: list[tuple[int, int, Observation]] = []
        for count, observation in enumerate(self.observations()):
            match observation:
                case Frame():
                    late_s = random.uniform(0.06, 0.15)
                case ShelfReading():
                    taken_s = len(observation.samples) / self.store.weight_rate_hz
                    late_s = taken_s + min(0.003 * random.lognormal(0.0, 2.3), 0.37)
                case _:
                    late_s = 0.05
            arrival_ns = observation.t_ns + round(1e9 * late_s * self.scenario.latency)
            heapq.heappush(waiting, (arrival_ns, count, observation))
            # Nothing can still arrive before the time of what was just observed.
            while waiting and waiting[0][0] <= observation.t_ns:
                arrival_ns, _, first = heapq.heappop(waiting)
                yield arrival_ns, first
        while waiting:
            arrival_ns, _, first = heapq.heappop(waiting)
            yield arrival_ns, first

    def write(self, folder: str | Path) -> None:
        """Write the run as a recording of the file contract, with truth/."""
        folder = Path(folder)
        (folder / "truth").mkdir(parents=True, exist_ok=True)
        people = _PeopleWriter(folder / "truth" / "people.parquet", self.store.layout.n_joints)
        with RecordingWriter(folder, self.store) as writer:
            for observation in self.observations():
                writer.write(observation)
                if len(self.truth.people) >= 512:
                    people.write(self.truth.people)
                    self.truth.people.clear()
        people.write(self.truth.people)
        people.close()
        with open(folder / "truth" / "visits.jsonl", "w", encoding="utf-8") as file:
            for visit in self.truth.visits:
                row = {"account": visit.account, "enter": visit.enter_ns, "exit": visit.exit_ns, "items": visit.items}
                file.write(json.dumps(row) + "\n")
        with open(folder / "truth" / "events.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["time", "plate", "gtin", "quantity", "account"])
            rows.writerows([e.t_ns, e.plate, e.gtin, e.quantity, e.account] for e in self.truth.events)

    def _chunks(self) -> Iterator[tuple[int | None, list[Observation]]]:
        """Observations of one stretch after another, each with the time before which nothing more will come."""
        s = self.scenario
        crowd = Crowd(self.store, s)
        scales = Scales(self.store, crowd.shelves, s)
        obstacles = Obstacles(self.store)
        down = s.random("outages").permutation(len(self.store.cameras))[: s.cameras_out]
        detectors = [
            Detector(self.store, camera, s, obstacles, out=i in down) for i, camera in enumerate(self.store.cameras)
        ]
        start_s, end_s = 0.0, s.duration_s
        people_due_s = TICK_S
        while start_s < end_s - 1e-9:
            stop_s = min(start_s + CHUNK_S, end_s)
            crowd.advance(stop_s + TICK_S)
            known_s = stop_s + REGISTERED_AHEAD_S
            scales.add(_drain(crowd.loads, known_s), _drain(crowd.handlings, known_s))
            observations: list[Observation] = list(scales.readings(stop_s, s.start_ns))
            for scan in _drain(crowd.scans, stop_s):
                observations.append(GateScan(self._ns(scan.t_s), scan.gate, scan.kind, scan.account))
            for read in _drain(crowd.reads, stop_s):
                observations.append(
                    ItemSighting(self._ns(read.t_s), "exit antenna", "read", read.gtin, 1, TAG_SURE, zone=read.gate)
                )
            ticks = list(crowd.ticks)
            for detector in detectors:
                times_s, stamps_s = detector.exposures(start_s, stop_s)
                numbers, states, present = _states_at(ticks, times_s)
                joints = self._joints(crowd, numbers, states)
                stamps_ns = s.start_ns + np.rint(stamps_s * 1e9).astype(np.int64)
                observations += detector.frames(times_s, stamps_ns, numbers, joints, present)
            people_due_s = self._record(crowd, ticks, people_due_s, stop_s)
            crowd.forget(stop_s)
            start_s = stop_s
            if start_s >= end_s - 1e-9 and not crowd.empty and end_s < s.duration_s + OVERTIME_S:
                # Somebody was held up: the run ends a moment after the last has left.
                end_s += TAIL_S
            yield self._ns(stop_s - _HOLD_S), observations
        self.truth.visits.sort(key=lambda visit: visit.enter_ns)
        yield None, []

    def _ns(self, t_s: float) -> int:
        return self.scenario.start_ns + round(t_s * 1e9)

    def _joints(self, crowd: Crowd, numbers: np.ndarray, states: np.ndarray) -> np.ndarray:
        """(n_times, n_people, joints, 3) from (n_times, n_people, channels)."""
        stature = np.array([crowd.people[number].stature_m for number in numbers.tolist()])
        flat = states.reshape(-1, states.shape[-1])
        return body.joints_m(flat, np.tile(stature, len(states))).reshape(*states.shape[:2], len(body.JOINTS), 3)

    def _record(self, crowd: Crowd, ticks: list[Tick], due_s: float, until_s: float) -> float:
        """Truth of all that lies before until_s; returns the next instant at which people are due."""
        names = [plate.plate for plate in self.store.plates]
        for move in _drain(crowd.movements, until_s):
            account = move.account or ""
            event = EventTruth(self._ns(move.t_s), names[move.plate], move.gtin, move.quantity, account)
            self.truth.events.append(event)
        for visit in crowd.visits:
            times = self._ns(visit.enter_s), self._ns(visit.exit_s)
            self.truth.visits.append(VisitTruth(visit.account, *times, visit.items))
        crowd.visits.clear()
        times_s = np.arange(round(due_s / TICK_S), math.ceil(until_s / TICK_S - 1e-9)) * TICK_S
        numbers, states, present = _states_at(ticks, times_s)
        joints = self._joints(crowd, numbers, states)
        for t_s, state, points, here in zip(times_s.tolist(), states, joints, present):
            if not here.any():
                continue
            people = numbers[here]
            if self.store.keypoints == "box2":
                feet, top = points[here, 0].copy(), points[here, 0].copy()
                feet[:, :2] = top[:, :2] = state[here][:, [CHANNEL["x"], CHANNEL["y"]]]
                feet[:, 2] = 0.0
                top[:, 2] = points[here, body.JOINT["head_top"], 2]
                shown = np.stack([top, feet], 1)
            else:
                shown = points[here][:, body.layout_joints(self.store.layout)]
            accounts = [crowd.people[number].account for number in people.tolist()]
            position = state[here][:, [CHANNEL["x"], CHANNEL["y"]]]
            self.truth.people.append(PeopleTruth(self._ns(t_s), people, accounts, position, shown))
        return float(times_s[-1] + TICK_S) if len(times_s) else due_s


def _drain(heap: list[Any], before_s: float) -> list[Any]:
    """What lies before a time, oldest first."""
    drained = []
    while heap and heap[0][0] < before_s:
        drained.append(heapq.heappop(heap)[2])
    return drained


def _first_after(observations: list[Observation], t_ns: int) -> int:
    low, high = 0, len(observations)
    while low < high:
        middle = (low + high) // 2
        if observations[middle].t_ns < t_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _states_at(ticks: list[Tick], times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (n,), interpolated states (n_times, n, channels) and presence (n_times, n) of all who are there."""
    numbers = np.unique(np.concatenate([tick.numbers for tick in ticks])) if ticks else np.zeros(0, np.int64)
    dense = np.full((len(ticks), len(numbers), len(CHANNEL)), np.nan)
    for row, tick in zip(dense, ticks):
        row[np.searchsorted(numbers, tick.numbers)] = tick.states
    if not len(times_s) or not len(numbers):
        return numbers[:0], np.zeros((len(times_s), 0, len(CHANNEL))), np.zeros((len(times_s), 0), bool)
    at = (times_s - ticks[0].t_s) / TICK_S
    before = np.clip(np.floor(at).astype(int), 0, max(len(ticks) - 2, 0))
    share = np.clip(at - before, 0.0, 1.0)[:, None, None]
    a, b = dense[before], dense[np.minimum(before + 1, len(ticks) - 1)]
    states = a + share * (b - a)
    # Paths have no corners: cubic Hermite with the recorded velocities.
    xy, v = slice(CHANNEL["x"], CHANNEL["y"] + 1), slice(CHANNEL["vx"], CHANNEL["vy"] + 1)
    s2, s3 = share**2, share**3
    states[..., xy] = (
        (2 * s3 - 3 * s2 + 1) * a[..., xy]
        + (s3 - 2 * s2 + share) * TICK_S * a[..., v]
        + (3 * s2 - 2 * s3) * b[..., xy]
        + (s3 - s2) * TICK_S * b[..., v]
    )
    present = ~np.isnan(states[..., 0])
    seen = present.any(axis=0)
    return numbers[seen], states[:, seen], present[:, seen]


class _PeopleWriter:
    """truth/people.parquet, written in blocks."""

    def __init__(self, path: Path, n_joints: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._width = 3 * n_joints
        self._schema = pa.schema(
            [
                ("time", pa.int64()),
                ("person", pa.int32()),
                ("account", pa.string()),
                ("x", pa.float64()),
                ("y", pa.float64()),
                ("keypoints", pa.list_(pa.float32(), self._width)),
            ]
        )
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_checksum=True)

    def write(self, people: list[PeopleTruth]) -> None:
        import pyarrow as pa

        if not people:
            return
        joints = np.concatenate([one.joints_m for one in people]).astype(np.float32).reshape(-1)
        position = np.concatenate([one.position_m for one in people])
        columns = [
            pa.array(np.repeat([one.t_ns for one in people], [len(one.person) for one in people])),
            pa.array(np.concatenate([one.person for one in people]).astype(np.int32)),
            pa.array([account for one in people for account in one.account], pa.string()),
            pa.array(np.ascontiguousarray(position[:, 0])),
            pa.array(np.ascontiguousarray(position[:, 1])),
            pa.FixedSizeListArray.from_arrays(pa.array(joints), self._width),
        ]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._file.close()
