"""A simulated run: streams what the sensors report in time order, and keeps what really happened."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.files.recordings import RecordingWriter
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.cameras import Detector
from fusion.simulation.crowd import Crowd
from fusion.simulation.events import REGISTERED_AHEAD_S
from fusion.simulation.optics import Obstacles
from fusion.simulation.scales import Scales
from fusion.simulation.scenario import TAIL_S, Scenario
from fusion.simulation.ticks import TICK_S, Tick, states_at
from fusion.simulation.truth import (
    EventTruth,
    LoadTruth,
    PeopleTruth,
    PeopleWriter,
    Truth,
    VisitTruth,
    write_visits_and_loads,
)
from fusion.store.models import Store

CHUNK_S = 4.0
# The run waits for people who are held up no longer than this.
OVERTIME_S = 180.0
# Clocks are off by at most 0.1 s and messages jitter by some milliseconds: what is older than this is in order.
_HOLD_S = 0.3
# How sure a reader is of a tag that it has read: it hardly ever reads one that is not there.
TAG_SURE = 0.995
# Instants of truth that are written together.
_TRUTH_BLOCK = 512


class Simulation:
    """One run of a scenario in a store.

    Attributes:
        truth: filled while observations are consumed; emptied by each call of `observations`.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.store, self.scenario = store, scenario
        self.truth = Truth()

    def observations(self) -> Iterator[Observation]:
        """Everything that the sensors report, in time order, made a few seconds ahead of the reader."""
        self.truth = Truth()
        pending: list[Observation] = []
        for chunk_end_ns, chunk in self._chunks():
            pending += chunk
            pending.sort(key=attrgetter("t_ns"))
            ripe = len(pending)
            if chunk_end_ns is not None:
                ripe = bisect.bisect_left(pending, chunk_end_ns, key=attrgetter("t_ns"))
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
            # No later observation can arrive before the time of this one.
            while waiting and waiting[0][0] <= observation.t_ns:
                arrival_ns, _, first = heapq.heappop(waiting)
                yield arrival_ns, first
        while waiting:
            arrival_ns, _, first = heapq.heappop(waiting)
            yield arrival_ns, first

    def write(self, folder: str | Path) -> None:
        """Write the run as a recording of the file contract, with truth/."""
        folder = Path(folder)
        truth_folder = folder / "truth"
        truth_folder.mkdir(parents=True, exist_ok=True)
        with PeopleWriter(truth_folder / "people.parquet", self.store.layout.n_joints) as people:
            with RecordingWriter(folder, self.store) as writer:
                for observation in self.observations():
                    writer.write(observation)
                    if len(self.truth.people) >= _TRUTH_BLOCK:
                        people.write(self.truth.people)
                        self.truth.people.clear()
            people.write(self.truth.people)
        write_visits_and_loads(self.truth, truth_folder)

    def _chunks(self) -> Iterator[tuple[int | None, list[Observation]]]:
        """Observations of successive chunks of time, each with the time before which no more will come."""
        s = self.scenario
        crowd = Crowd(self.store, s)
        scales = Scales(self.store, crowd.shop.shelves, s)
        detectors = self._detectors()
        start_s, end_s = 0.0, s.duration_s
        people_due_s = TICK_S
        while start_s < end_s - 1e-9:
            stop_s = min(start_s + CHUNK_S, end_s)
            crowd.advance(stop_s + TICK_S)
            known_s = stop_s + REGISTERED_AHEAD_S
            log = crowd.shop.log
            for load in scales.add(log.loads.drain(known_s), log.handlings.drain(known_s)):
                plates = [(self.store.plates[plate].plate, grams) for plate, grams in load.plates]
                self.truth.loads.append(LoadTruth(self._ns(load.t_s), tuple(plates)))
            observations: list[Observation] = list(scales.readings(stop_s, s.start_ns))
            observations += self._at_gates(crowd, stop_s)
            ticks = list(crowd.ticks)
            for detector in detectors:
                times_s, stamps_s = detector.exposures(start_s, stop_s)
                states = states_at(ticks, times_s)
                joints_m = crowd.joints_m(states)
                stamps_ns = s.start_ns + np.rint(stamps_s * 1e9).astype(np.int64)
                observations += detector.frames(times_s, stamps_ns, states.numbers, joints_m, states.present)
            people_due_s = self.record(crowd, ticks, people_due_s, stop_s)
            crowd.forget(stop_s)
            start_s = stop_s
            if start_s >= end_s - 1e-9 and not crowd.empty and end_s < s.duration_s + OVERTIME_S:
                # A person was held up: the run ends a moment after the last has left.
                end_s += TAIL_S
            yield self._ns(stop_s - _HOLD_S), observations
        self.truth.visits.sort(key=lambda visit: visit.enter_ns)
        yield None, []

    def _detectors(self) -> list[Detector]:
        obstacles = Obstacles(self.store)
        order = self.scenario.random("outages").permutation(len(self.store.cameras))
        down = order[: self.scenario.cameras_out]
        return [
            Detector(self.store, camera, self.scenario, obstacles, out=i in down)
            for i, camera in enumerate(self.store.cameras)
        ]

    def _at_gates(self, crowd: Crowd, until_s: float) -> Iterator[Observation]:
        for scan in crowd.shop.log.scans.drain(until_s):
            yield GateScan(self._ns(scan.t_s), scan.gate, scan.kind, scan.account)
        for read in crowd.shop.log.reads.drain(until_s):
            yield ItemSighting(self._ns(read.t_s), "exit antenna", "read", read.gtin, 1, TAG_SURE, zone=read.gate)

    def _ns(self, t_s: float) -> int:
        return self.scenario.start_ns + round(t_s * 1e9)

    def record(self, crowd: Crowd, ticks: Sequence[Tick], due_s: float, until_s: float) -> float:
        """Keep the truth before until_s; a subclass may keep something else.

        Args:
            crowd: the people, with the log of what has happened.
            ticks: their states from due_s to until_s at least.
            due_s: the first instant at which the people's places are to be kept.
            until_s: the end of what is known.

        Returns:
            The next due_s.
        """
        self._record_events(crowd, until_s)
        return self._record_people(crowd, ticks, due_s, until_s)

    def _record_events(self, crowd: Crowd, until_s: float) -> None:
        names = [plate.plate for plate in self.store.plates]
        log = crowd.shop.log
        for move in log.movements.drain(until_s):
            t_ns, account = self._ns(move.t_s), move.account or ""
            self.truth.events.append(EventTruth(t_ns, names[move.plate], move.gtin, move.quantity, account))
        for visit in log.visits:
            enter_ns, exit_ns = self._ns(visit.enter_s), self._ns(visit.exit_s)
            self.truth.visits.append(VisitTruth(visit.account, enter_ns, exit_ns, visit.items))
        log.visits.clear()

    def _record_people(self, crowd: Crowd, ticks: Sequence[Tick], due_s: float, until_s: float) -> float:
        """Truth of the people before until_s; returns the next instant at which it is due."""
        numbers = range(round(due_s / TICK_S), math.ceil(until_s / TICK_S - 1e-9))
        times_s = np.array(numbers, np.float64) * TICK_S
        states = states_at(ticks, times_s)
        joints_m = crowd.joints_m(states)
        for t_s, state, points, here in zip(times_s.tolist(), states.states, joints_m, states.present):
            if not here.any():
                continue
            people = states.numbers[here]
            accounts = [crowd.people[number].account for number in people.tolist()]
            position = state[here][:, [CHANNEL["x"], CHANNEL["y"]]]
            shown = self._in_layout(points[here], position)
            self.truth.people.append(PeopleTruth(self._ns(t_s), people, accounts, position, shown))
        return float(times_s[-1] + TICK_S) if len(times_s) else due_s

    def _in_layout(self, points_m: NDArray[np.float64], position_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, K, 3) joints of the store's layout; for box2 the body's axis from the top of the head to the floor."""
        if self.store.keypoints != "box2":
            return points_m[:, body.layout_joints(self.store.layout)]
        feet, top = points_m[:, 0].copy(), points_m[:, 0].copy()
        feet[:, :2] = top[:, :2] = position_m
        feet[:, 2] = 0.0
        top[:, 2] = points_m[:, body.JOINT["head_top"], 2]
        return np.stack([top, feet], 1)
