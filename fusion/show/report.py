"""A run as one page: `report.html` shows who was where, what they took, what it cost and why, and how the engine fared.

The page is one self-contained file that opens offline: the plan of the floor is SVG made here, the rest is data that a
script in the page draws. People are kept at a few positions a second in centimetres, so an hour of a store is a few
megabytes, in memory and on disk; a longer run is kept more coarsely instead of growing without end.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.results import (
    EventEvidence,
    Evidence,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    Result,
    RunSummary,
    ShelfCount,
    ShelfEventExplained,
    Warning,
)
from fusion.store.models import Gate, Plate, Store
from fusion.store.rotations import rotation_matrix

if TYPE_CHECKING:
    from fusion.engine import Engine, StepTimes

# How often people are kept, until there are too many samples; then every second sample goes and the period doubles.
PERIOD_NS = 200_000_000
# Ten people for more than six hours at 5 Hz. Sixteen bytes each in memory, three on the page.
SAMPLES_MAX = 1_200_000
# What is listed; the rest is counted and the page says so. Together they keep the page under 10 MB.
EVENTS_MAX = 12_000
RECEIPTS_MAX = 5_000
WARNINGS_MAX = 2_000
CANDIDATES_MAX = 4
# Evidence of receipt lines, as text on the page; where there is more, that of the surest events goes.
EVIDENCE_BYTES_MAX = 4_500_000
# Health and latency are kept so often, until there are too many samples; then half as often.
HEALTH_PERIOD_NS = 5_000_000_000
HEALTH_SAMPLES_MAX = 720
# A wrist over a plate by so little, and not higher above it than the next shelf, is a reach into it.
REACH_BESIDE_M, REACH_BELOW_M, REACH_ABOVE_M = 0.05, 0.05, 0.4
TEXT_MAX = 300
# Two samples further apart than this are two stretches of a path; nobody knows what lies between.
GAP_MAX_S = 1.0
# The plan shows this much around the floor, so that people in front of a gate can be seen coming.
MARGIN_M = 0.35
OUTSIDE_MAX_M = 2.5

_CM = 100.0


@dataclass
class _Path:
    """Where one track was: tick numbers and centimetres, in time order."""

    ticks: array[int] = field(default_factory=lambda: array("q"))
    x_cm: array[int] = field(default_factory=lambda: array("i"))
    y_cm: array[int] = field(default_factory=lambda: array("i"))


@dataclass
class _Visit:
    """One visit, or one person who has none, as the page names them."""

    visit: str | None
    account: str | None
    staff: bool = False
    enter_ns: int | None = None
    exit_ns: int | None = None


@dataclass
class _Sample:
    """Cameras and latency over one period."""

    t_ns: int
    offset_ms: list[float]
    misfit_mm: list[float]
    states: list[int]
    step_us: tuple[float, float, float]  # median, 99th percentile, longest


# What a camera's or a plate's state is written as; the page has the words.
_CAMERA_STATES = ("fine", "misses people", "moved", "down")
_PLATE_FAULTS = ("", "noisy", "stuck", "silent")


class Report:
    """Collects what the engine answers and writes it as a page.

        report = Report(store, "Tuesday morning", engine)
        for observation in recording.observations():
            for result in engine.feed(observation):
                report.add(result)
        report.write("report.html", summary, shelves=engine.shelf_state())

    Attributes:
        left_out: results that were not kept because there were too many, by kind.
    """

    def __init__(self, store: Store, title: str | None = None, engine: Engine | None = None) -> None:
        """Begin a page.

        Args:
            store: whose run it is.
            title: heading; the store's name where there is none.
            engine: asked for the evidence of settled receipts, the health of sensors and the times of its steps;
                without it the page has evidence for reviews only, and no health.
        """
        self.store = store
        self.title = title or store.name
        self._engine = engine
        self._samples: list[_Sample] = []
        self._sample_ns = HEALTH_PERIOD_NS
        self._times: StepTimes | None = None
        self._plate_changes: list[tuple[int, int, int]] = []  # (plate, time, fault)
        self._plate_faults = [0] * len(store.plates)
        self._reached = np.zeros(len(store.plates), np.int64)  # ticks of a hand
        self._plates = np.array([(p.x, p.y, p.z, p.width / 2, p.depth / 2) for p in store.plates]).reshape(-1, 5)
        yaws = np.array([plate.yaw for plate in store.plates])
        self._plate_axes = np.stack([np.cos(yaws), np.sin(yaws)])
        self._wrists = store.layout.indices("l_wrist", "r_wrist")
        self._evidence: dict[int, tuple[float, str]] = {}  # by event: how sure it was, its traces and paths
        self._evidence_bytes = 0
        self._bundles: dict[str, Evidence] = {}
        self.left_out: Counter[str] = Counter()
        self._period_ns = PERIOD_NS
        self._start_ns: int | None = None
        self._end_ns = 0
        self._last_tick = -1
        self._n_samples = 0
        self._paths: dict[int, _Path] = {}
        self._visits: list[_Visit] = []
        self._visit_index: dict[str, int] = {}
        self._account_index: dict[str, int] = {}
        self._track_visit: dict[int, int] = {}
        self._explained: list[ShelfEventExplained] = []
        self._moves: dict[tuple[int, str], Picked | PutBack] = {}
        self._receipts: list[Receipt] = []
        self._warnings: list[Warning] = []

    # ---- collecting --------------------------------------------------------------------------------------------------

    def add(self, result: Result) -> None:
        """Take in one result; call it for each, in the order in which the engine gives them."""
        t_ns = result.issued_ns if isinstance(result, Receipt) else result.t_ns
        if self._start_ns is None:
            self._start_ns = t_ns
        self._end_ns = max(self._end_ns, t_ns)
        match result:
            case People():
                self._add_people(result)
            case PersonEntered():
                self._add_entry(result)
            case PersonLeft():
                index = self._track_visit.get(result.track_id)
                if index is not None:
                    visit = self._visits[index]
                    visit.exit_ns = max(visit.exit_ns or result.t_ns, result.t_ns)
            case ShelfEventExplained():
                # The final word; what it looked like before is no longer wanted.
                self._moves.pop((result.t_ns, result.plate), None)
                self._keep("events", self._explained, result, EVENTS_MAX)
            case Picked() | PutBack():
                key = (result.t_ns, result.plate)
                if key in self._moves or len(self._moves) < EVENTS_MAX:
                    self._moves[key] = result
                else:
                    self.left_out["events"] += 1
            case Receipt():
                self._keep("receipts", self._receipts, result, RECEIPTS_MAX)
                bundle = None if self._engine is None else self._engine.evidence(result.visit)
                if bundle is not None:
                    self._add_evidence(bundle)
            case Evidence():
                self._add_evidence(result)
            case Warning():
                self._keep("warnings", self._warnings, result, WARNINGS_MAX)

    def _keep(self, kind: str, rows: list[Any], result: Result, n_max: int) -> None:
        if len(rows) < n_max:
            rows.append(result)
        else:
            self.left_out[kind] += 1

    def _add_people(self, people: People) -> None:
        assert self._start_ns is not None
        tick = (people.t_ns - self._start_ns) // self._period_ns
        if tick <= self._last_tick:
            return
        self._last_tick = tick
        if self._engine is not None:
            self._add_health(people.t_ns)
        known = people.confirmed & np.isfinite(people.position_m).all(axis=1)
        if not known.any():
            return
        centimetres = np.rint(np.clip(people.position_m[known], -1e4, 1e4) * _CM).astype(np.int64)
        for track, (x_cm, y_cm) in zip(people.track_id[known].tolist(), centimetres.tolist()):
            path = self._paths.setdefault(track, _Path())
            path.ticks.append(tick)
            path.x_cm.append(x_cm)
            path.y_cm.append(y_cm)
        self._add_reaches(people.joints_m[known])
        self._n_samples += int(known.sum())
        if self._n_samples > SAMPLES_MAX:
            self._coarsen()

    def _coarsen(self) -> None:
        """Keep every second tick from now on, and of what is kept already."""
        self._period_ns *= 2
        self._last_tick //= 2
        self._reached //= 2
        self._n_samples = 0
        for track, path in list(self._paths.items()):
            kept = [i for i, tick in enumerate(path.ticks) if tick % 2 == 0]
            if not kept:
                del self._paths[track]
                continue
            path.ticks = array("q", [path.ticks[i] // 2 for i in kept])
            path.x_cm = array("i", [path.x_cm[i] for i in kept])
            path.y_cm = array("i", [path.y_cm[i] for i in kept])
            self._n_samples += len(kept)

    def _add_reaches(self, joints_m: np.ndarray) -> None:
        """Count the plates that have a hand over them."""
        if not self._wrists or not len(self._plates):
            return
        hands = joints_m[:, list(self._wrists)].reshape(-1, 1, 3) - self._plates[:, :3]
        c, s = self._plate_axes
        beside = np.abs(c * hands[..., 0] + s * hands[..., 1]) - self._plates[:, 3]
        deep = np.abs(c * hands[..., 1] - s * hands[..., 0]) - self._plates[:, 4]
        with np.errstate(invalid="ignore"):  # NaN is not known to be anywhere
            over = (beside < REACH_BESIDE_M) & (deep < REACH_BESIDE_M)
            over &= (hands[..., 2] > -REACH_BELOW_M) & (hands[..., 2] < REACH_ABOVE_M)
        self._reached += over.sum(axis=0)

    def _add_health(self, t_ns: int) -> None:
        assert self._engine is not None
        if self._samples and t_ns - self._samples[-1].t_ns < self._sample_ns:
            return
        health = self._engine.health()
        times = self._engine.step_times.copy()
        lately = times if self._times is None else times.since(self._times)
        self._times = times
        states = [3 if one.down else 2 if one.moved else int(one.misses) for one in health.cameras]
        step_us = (lately.percentile_us(50), lately.percentile_us(99), lately.max_ns / 1e3)
        self._samples.append(
            _Sample(
                t_ns,
                [1e3 * one.offset_s for one in health.cameras],
                [1e3 * one.misfit_m for one in health.cameras],
                states,
                step_us,
            )
        )
        for plate, one in enumerate(health.plates):
            fault = _PLATE_FAULTS.index(one.fault)
            if fault != self._plate_faults[plate] and len(self._plate_changes) < WARNINGS_MAX:
                self._plate_faults[plate] = fault
                self._plate_changes.append((plate, t_ns, fault))
        if len(self._samples) > HEALTH_SAMPLES_MAX:
            # A longer period, for which the worse of two neighbours stands: a short fault stays visible.
            self._sample_ns *= 2
            pairs = zip(self._samples[0::2], self._samples[1::2])
            self._samples = [
                _Sample(
                    a.t_ns, a.offset_ms, list(map(max, a.misfit_mm, b.misfit_mm)), list(map(max, a.states, b.states)),
                    (max(a.step_us[0], b.step_us[0]), max(a.step_us[1], b.step_us[1]), max(a.step_us[2], b.step_us[2])),
                )
                for a, b in pairs
            ]  # fmt: skip

    def _add_evidence(self, bundle: Evidence) -> None:
        if bundle.visit in self._bundles or len(self._bundles) >= RECEIPTS_MAX:
            return
        slim = []
        for event in bundle.events:
            # Weights and paths of an event are the same in every bundle that tells of it; they are kept as text, once.
            if event.event_id not in self._evidence:
                text = _event_text(event)
                sure = max([event.nothing, *(one.probability for one in event.alternatives)])
                self._evidence[event.event_id] = sure, text
                self._evidence_bytes += len(text)
            names = tuple(replace(path, t_ns=(), left_m=(), right_m=()) for path in event.wrists)
            slim.append(replace(event, traces=(), wrists=names))
        self._bundles[bundle.visit] = replace(bundle, events=tuple(slim))
        if self._evidence_bytes > EVIDENCE_BYTES_MAX:
            surest = sorted(self._evidence, key=lambda key: -self._evidence[key][0])
            for key in surest[: len(surest) // 4 + 1]:
                self._evidence_bytes -= len(self._evidence.pop(key)[1])
                self.left_out["evidence"] += 1

    def _add_entry(self, entered: PersonEntered) -> None:
        index = self._visit_index.get(entered.visit) if entered.visit is not None else None
        if index is None:
            # What staff show at the gate opens it: it must not stand on a page that is passed around.
            account = None if entered.staff else entered.account
            index = self._new_visit(_Visit(entered.visit, account, entered.staff, entered.t_ns))
        self._track_visit[entered.track_id] = index

    def _new_visit(self, visit: _Visit) -> int:
        self._visits.append(visit)
        index = len(self._visits) - 1
        if visit.visit is not None:
            self._visit_index[visit.visit] = index
        if visit.account is not None:
            self._account_index[visit.account] = index
        return index

    def _whose(self, visit: str | None, account: str | None) -> int:
        """Index of the visit that a result speaks of; -1 for somebody unknown."""
        if visit is not None and visit in self._visit_index:
            return self._visit_index[visit]
        if visit is None and account is not None and account in self._account_index:
            return self._account_index[account]
        return -1 if visit is None and account is None else self._new_visit(_Visit(visit, account))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(
        self,
        path: str | Path,
        summary: RunSummary,
        truth: Iterable[Mapping[str, Any]] | None = None,
        shelves: Iterable[ShelfCount] = (),
    ) -> None:
        """Write the page.

        Args:
            path: where to; the folder exists.
            summary: figures of the run.
            truth: rows as in truth/visits.jsonl, where it is known what everybody really took; receipts are compared.
            shelves: what lies where at the end, as of `Engine.shelf_state`.
        """
        plan = Plan(self.store, self._extent_m())
        parts = {
            "title": html.escape(_clean(self.title)),
            "css": _asset("report.css"),
            "js": "".join(map(_asset, ("page.js", "evidence.js", "report.js"))),
            "plan": plan.ground(),
            "labels": plan.labels(),
            "viewbox": plan.viewbox,
            "data": _script_json(self._data(summary, truth, list(shelves))),
        }
        # One pass, so that nothing that was put in is itself searched for places to fill.
        page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report.html"))
        Path(path).write_text(page, encoding="utf-8")

    def write_svg(self, path: str | Path, until_s: float | None = None) -> None:
        """Write a still picture of the floor with everybody's paths and the shelf events, as SVG.

        Args:
            path: where to; the folder exists.
            until_s: leave out what comes later than this many seconds after the start; who is there then is marked.
        """
        plan = Plan(self.store, self._extent_m())
        end_ns = self._end_ns if until_s is None else (self._start_ns or 0) + round(until_s * 1e9)
        end_tick = (end_ns - (self._start_ns or 0)) // self._period_ns
        unit = plan.unit_cm
        drawn, dots = [], []
        for track, path_cm in self._paths.items():
            # Without gates nobody has a visit, and tracks are told apart instead.
            index = self._track_visit.get(track) if self.store.gate else track
            number = "?" if index is None else str(index + (1 if self.store.gate else 0))
            colour = "none" if index is None else str(index % 8)
            long = " long" if len(number) > 2 else ""
            for tick, points in self._stretches(path_cm):
                points = points[: max(0, end_tick - tick + 1)].tolist()
                if not points:
                    break
                coordinates = " ".join(f"{x},{-y}" for x, y in points)
                drawn.append(f'<polyline class="path c{colour}" points="{coordinates}"/>')
                if tick + len(points) > end_tick:
                    x, y = points[-1]
                    dots.append(
                        f'<circle class="dot c{colour}" cx="{x}" cy="{-y}" r="{8.5 * unit:.1f}"/>'
                        f'<text class="number-in{long}" x="{x}" y="{-y + unit / 2:.1f}">{number}</text>'
                    )
        where = {plate.plate: plate for plate in self.store.plates}
        for event in self._events():
            plate = where.get(event["plate"])
            if plate is not None and event["ns"] <= end_ns and event["candidates"]:
                taken = event["candidates"][0][2] < 0
                drawn.append(_event_mark(plate, taken, 6 * unit))
        page = plan.picture(self.title, "".join([*drawn, *dots]))
        Path(path).write_text(page, encoding="utf-8")

    def _extent_m(self) -> tuple[float, float, float, float] | None:
        """Box around nearly all kept positions: x0, y0, x1, y1; a stray track far away does not count."""
        if not self._n_samples:
            return None
        xs = np.concatenate([np.frombuffer(path.x_cm, np.int32) for path in self._paths.values()]) / _CM
        ys = np.concatenate([np.frombuffer(path.y_cm, np.int32) for path in self._paths.values()]) / _CM
        (x0, x1), (y0, y1) = np.percentile(xs, [1, 99]), np.percentile(ys, [1, 99])
        return float(x0), float(y0), float(x1), float(y1)

    def _stretches(self, path: _Path) -> list[tuple[int, np.ndarray]]:
        """Unbroken parts of a path: first tick, and (n, 2) int64 centimetres for every tick from there on.

        Ticks that are missing for a moment, because the engine's instants come less often, lie on the straight line.
        """
        ticks = np.frombuffer(path.ticks, np.int64)
        points = np.column_stack([np.frombuffer(path.x_cm, np.int32), np.frombuffer(path.y_cm, np.int32)])
        gap_max = max(1, math.floor(GAP_MAX_S * 1e9 / self._period_ns))
        found = []
        for rows in np.split(np.arange(len(ticks)), np.nonzero(np.diff(ticks) > gap_max)[0] + 1):
            every = np.arange(ticks[rows[0]], ticks[rows[-1]] + 1)
            filled = np.column_stack([np.interp(every, ticks[rows], points[rows, axis]) for axis in (0, 1)])
            found.append((int(every[0]), np.rint(filled).astype(np.int64)))
        return found

    def _encoded(self, path: _Path) -> list[list[Any]]:
        """Stretches as the page wants them: first tick, first x, first y, then steps in int8 as base64.

        A step that does not fit, faster than a sprint, begins a new stretch at the same tick rate.
        """
        found = []
        for tick, points in self._stretches(path):
            steps = np.diff(points, axis=0)
            for rows in np.split(np.arange(len(points)), np.nonzero((abs(steps) > 127).any(axis=1))[0] + 1):
                deltas = np.diff(points[rows], axis=0).astype(np.int8)
                x_cm, y_cm = points[rows[0]].tolist()
                text = base64.b64encode(deltas.tobytes()).decode("ascii")
                found.append([tick + int(rows[0]), x_cm, y_cm, text])
        return found

    def _events(self) -> list[dict[str, Any]]:
        """Shelf events in time order; those without a final word yet as they look so far."""
        found = []
        for event in self._explained:
            ranked = sorted(event.candidates, key=lambda one: -one.probability)[:CANDIDATES_MAX]
            candidates = [
                [self._whose(one.visit, one.account), one.gtin, one.quantity, round(one.probability, 3)]
                for one in ranked
            ]
            found.append(
                {"ns": event.t_ns, "plate": event.plate, "grams": event.delta_g, "candidates": candidates, "final": 1}
            )
        for move in self._moves.values():
            sign = -1 if isinstance(move, Picked) else 1
            whose = self._whose(move.visit, move.account)
            candidate = [whose, move.gtin, sign * abs(move.quantity), round(move.probability, 3)]
            found.append({"ns": move.t_ns, "plate": move.plate, "grams": None, "candidates": [candidate], "final": 0})
        return sorted(found, key=lambda event: (event["ns"], event["plate"]))

    def _data(
        self, summary: RunSummary, truth: Iterable[Mapping[str, Any]] | None, shelves: Sequence[ShelfCount] = ()
    ) -> dict[str, Any]:
        store = self.store
        start_ns = self._start_ns or 0

        def ms(t_ns: int | None) -> int | None:
            return None if t_ns is None else (t_ns - start_ns) // 1_000_000

        where = {plate.plate: plate for plate in store.plates}
        events: list[list[Any]] = []
        for event in self._events():
            plate = where.get(event["plate"])
            spot = None if plate is None else [round(plate.x * _CM), round(plate.y * _CM)]
            grams = event["grams"]
            row = [ms(event["ns"]), _clean(event["plate"]), spot, None if grams is None else _finite(grams)]
            events.append([*row, event["candidates"], event["final"]])
        receipts = [self._receipt_row(receipt, ms) for receipt in self._receipts]
        missed: list[dict[str, Any]] = []
        if truth is not None:
            missed = self._compare(list(truth), receipts)
        tracks: list[tuple[int, int, list[list[Any]]]] = []
        for track, path in self._paths.items():
            tracks.append((track, self._track_visit.get(track, -1), self._encoded(path)))
        tracks.sort(key=lambda row: row[2][0][0])
        visits = [
            [_clean(v.visit), _clean(v.account), int(v.staff), ms(v.enter_ns), ms(v.exit_ns)] for v in self._visits
        ]
        gtins = {candidate[1] for event in events for candidate in event[4]}
        gtins.update(line[0] for receipt in receipts for line in receipt["lines"])
        gtins.update(gtin for row in [*receipts, *missed] for gtin, _ in row.get("difference") or ())
        gtins.update(one[1] for row in receipts for event in row.get("evidence", ()) for one in event[1])
        gtins.update(count.gtin for count in shelves)
        return {
            "title": _clean(self.title),
            "store": {"name": _clean(store.name), "id": _clean(store.id), "timezone": store.timezone},
            "money": {"currency": store.currency, "exponent": store.currency_exponent},
            "names": {p.gtin: _clean(p.name) for p in store.products if p.gtin in gtins},
            "counts": {"cameras": len(store.cameras), "plates": len(store.plates), "gates": len(store.gate)},
            "start_ms": start_ns // 1_000_000,
            "length_ms": max(0, self._end_ns - start_ns) // 1_000_000,
            "period_ms": self._period_ns // 1_000_000,
            "tracks": tracks,
            "visits": visits,
            "events": events,
            "receipts": receipts,
            "compared": truth is not None,
            "missed": missed,
            "warnings": [
                [ms(w.t_ns), _clean(w.kind), _clean(w.subject), _clean(w.message)]
                for w in sorted(self._warnings, key=lambda w: w.t_ns)
            ],
            "summary": {
                "version": _clean(summary.version),
                "frames": summary.frames,
                "messages": summary.messages,
                "wall_s": _finite(summary.wall_s),
                "engine_cpu_s": _finite(summary.engine_cpu_s),
                "step_us": {key: _finite(value) for key, value in summary.step_us.items()},
                "ignored": {_clean(reason): n for reason, n in sorted(summary.ignored.items())},
            },
            "left_out": dict(self.left_out),
            "plates": [_plate_row(plate) for plate in store.plates],
            "reached_s": np.round(self._reached * (self._period_ns / 1e9), 1).tolist(),
            "evidence": "[" + ",".join(text for _, text in self._evidence.values()) + "]",
            "health": self._health_rows(ms),
            "shelves": [
                [*row, int(one.planned), one.status, round(_finite(one.confidence) or 0.0, 3)]
                for one in shelves
                for row in [(_clean(one.plate), one.gtin, one.pieces, one.overdrawn)]
            ],
        }

    def _health_rows(self, ms: Any) -> dict[str, Any]:
        """Cameras as rows of int16 over the samples' times, as base64; plates as changes of their state."""

        def rows(values: list[list[float]]) -> list[str]:
            return [_packed(column) for column in np.array(values).T] if values else []

        n_cameras = len(self.store.cameras)
        return {
            "times": [ms(sample.t_ns) for sample in self._samples],
            "cameras": [_clean(camera.name) for camera in self.store.cameras],
            "camera_states": _CAMERA_STATES,
            "states": rows([sample.states for sample in self._samples]) if n_cameras else [],  # type: ignore[misc]
            "offset_tenth_ms": rows([[10 * v for v in sample.offset_ms] for sample in self._samples]),
            "misfit_mm": rows([sample.misfit_mm for sample in self._samples]),
            "plate_faults": _PLATE_FAULTS,
            "plate_changes": [[plate, ms(t_ns), fault] for plate, t_ns, fault in self._plate_changes],
            "step_us": [[round(v, 1) for v in sample.step_us] for sample in self._samples],
        }

    def _receipt_row(self, receipt: Receipt, ms: Any) -> dict[str, Any]:
        bundle = self._bundles.get(receipt.visit)
        told: dict[str, Any] = {} if bundle is None else self._bundle_row(bundle, ms)
        return {
            **told,
            "visit": _clean(receipt.visit),
            "account": _clean(receipt.account),
            "who": self._whose(receipt.visit, receipt.account),
            "enter": ms(receipt.enter_ns),
            "exit": ms(receipt.exit_ns),
            "issued": ms(receipt.issued_ns),
            "status": _clean(receipt.status),
            "reason": _clean(receipt.reason),
            "total": receipt.total,
            "lines": [
                [line.gtin, line.quantity, line.unit_price, round(_finite(line.confidence) or 0.0, 3)]
                for line in receipt.lines
            ],
        }

    def _bundle_row(self, bundle: Evidence, ms: Any) -> dict[str, Any]:
        """Which events a receipt rests on, and what each was thought to be when it was written."""
        events = []
        for event in bundle.events:
            ranked = sorted(event.alternatives, key=lambda one: -one.probability)[: 2 * CANDIDATES_MAX]
            alternatives = [
                [self._whose(one.visit, one.account), one.gtin, one.quantity, round(one.probability, 3)]
                for one in ranked
            ]
            wrists = [[path.track_id, self._whose(path.visit, path.account)] for path in event.wrists]
            row = [event.event_id, alternatives, round(event.nothing, 3), wrists, _clean(event.plate)]
            events.append([*row, ms(event.contact_ns)])
        sightings = [
            [*row, seen.gtin, seen.quantity, round(seen.probability, 3)]
            for seen in bundle.sightings
            for row in [(ms(seen.t_ns), _clean(seen.source), seen.kind, _clean(seen.zone))]
        ]
        return {"evidence": events, "sightings": sightings, "evidence_left_out": bundle.n_left_out}

    def _compare(self, truth: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Say in every receipt's row how it differs from the truth; returns the visits that got no receipt.

        A difference is [gtin, charged minus taken]; an empty list means that the receipt is right.
        """
        left = list(range(len(self._receipts)))
        missed = []
        for visit in sorted(truth, key=lambda visit: visit["exit"]):
            same = [i for i in left if self._receipts[i].account == visit["account"]]
            if not same:
                missed.append(
                    {
                        "account": _clean(visit["account"]),
                        "exit": (visit["exit"] - (self._start_ns or 0)) // 1_000_000,
                        "difference": [[gtin, -n] for gtin, n in sorted(visit["items"].items())],
                    }
                )
                continue
            best = min(same, key=lambda i: abs(self._receipts[i].exit_ns - visit["exit"]))
            left.remove(best)
            difference: Counter[str] = Counter()
            for line in self._receipts[best].lines:
                difference[line.gtin] += line.quantity
            for gtin, n in visit["items"].items():
                difference[gtin] -= n
            rows[best]["difference"] = [[gtin, n] for gtin, n in sorted(difference.items()) if n]
        for i in left:
            # Nobody of the truth left then: all of it is too much.
            rows[i]["difference"] = [[line.gtin, line.quantity] for line in self._receipts[i].lines]
            rows[i]["unknown"] = 1
        return missed


# ---- the plan of the floor -------------------------------------------------------------------------------------------


class Plan:
    """The floor as SVG, in centimetres with y turned downwards."""

    def __init__(self, store: Store, people_m: tuple[float, float, float, float] | None = None) -> None:
        self.store = store
        xs, ys = zip(*store.floor)
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        reach = (x0 - OUTSIDE_MAX_M, y0 - OUTSIDE_MAX_M, x1 + OUTSIDE_MAX_M, y1 + OUTSIDE_MAX_M)
        seen = [(camera_m[0], camera_m[1]) for camera_m in self.cameras_m()]
        for gate in store.gate:
            # Room for its name, outside.
            (x, y), inward = _gate_middle(gate)
            seen.append((x / _CM - 0.25 * inward[0], -(y / _CM - 0.25 * inward[1])))
        if people_m is not None:
            seen += [(people_m[0], people_m[1]), (people_m[2], people_m[3])]
        for x, y in seen:
            x, y = min(max(x, reach[0]), reach[2]), min(max(y, reach[1]), reach[3])
            x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
        self.left_cm = math.floor((x0 - MARGIN_M) * _CM)
        self.top_cm = math.floor((-y1 - MARGIN_M) * _CM)
        self.width_cm = math.ceil((x1 + MARGIN_M) * _CM) - self.left_cm
        self.height_cm = math.ceil((-y0 + MARGIN_M) * _CM) - self.top_cm

    @property
    def viewbox(self) -> str:
        return f"{self.left_cm} {self.top_cm} {self.width_cm} {self.height_cm}"

    @property
    def unit_cm(self) -> float:
        """A pixel of a picture. The script in the page sizes text in pixels; a picture is 960 of them wide."""
        return self.width_cm / 960

    def picture(
        self, title: str, drawn: str, css: str = "", on_floor: str = "", below: str = "", below_cm: float = 0.0
    ) -> str:
        """A whole SVG file: the plan with what is drawn on the floor and over everything, and a strip below it."""
        unit, height_cm = self.unit_cm, self.height_cm + below_cm
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="{self.left_cm} {self.top_cm} {self.width_cm} {height_cm:g}" width="960" '
            f'height="{height_cm / unit:.0f}" style="--u:{unit:.3f}px;--k:{unit:.3f}" role="img">'
            f"<title>{html.escape(_clean(title))}</title><style>{_asset('plan.css')}{css}</style>"
            f'<rect class="ground" x="{self.left_cm}" y="{self.top_cm}" width="{self.width_cm}" '
            f'height="{height_cm:g}"/>{self.ground(on_floor)}{drawn}{self.labels()}{below}</svg>\n'
        )

    def cameras_m(self) -> list[tuple[float, float, float, str]]:
        """Place on the floor, heading in radians and name of every camera."""
        found = []
        for camera in self.store.cameras:
            world_from_camera = rotation_matrix(camera.rotation).T
            centre = -world_from_camera @ np.array(camera.translation)
            axis = world_from_camera[:, 2]
            found.append((float(centre[0]), float(centre[1]), math.atan2(axis[1], axis[0]), camera.name))
        return found

    def ground(self, on_floor: str = "") -> str:
        """Floor, what is drawn on it, zones, shelves, gates and cameras."""
        store = self.store
        parts = [
            '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="8"/></pattern></defs>',
            f'<polygon class="floor" points="{_points(store.floor)}"/>{on_floor}',
        ]
        for zone in store.zone:
            label = html.escape(_clean(zone.id))
            area = f'<polygon points="{_points(zone.polygon)}"/>'
            parts.append(f'<g class="zone">{area}<title>{zone.kind} zone {label}</title></g>')
        for x0, y0, x1, y1, height in store.obstacle.boxes:
            box = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
            title = f"<title>obstacle, {height:g} m high</title>"
            parts.append(f'<polygon class="obstacle" points="{_points(box)}">{title}</polygon>')
        for plates in _footprints(store.plates):
            plate = plates[0]
            names = ", ".join(one.plate for one in sorted(plates, key=lambda one: -one.z))
            front = _corners(plate)[:2]
            parts.append(
                f'<g class="plate"><polygon points="{_points(_corners(plate))}"/>'
                f'<polyline class="front" points="{_points(front)}"/><title>{html.escape(_clean(names))}</title></g>'
            )
        for gate in store.gate:
            (ax, ay), (bx, by) = ((x * _CM, -y * _CM) for x, y in gate.line)
            (mx, my), inward = _gate_middle(gate)
            label = html.escape(_clean(gate.id))
            arrows = "".join(
                _arrow(mx, my, sign * inward[0], sign * inward[1])
                for sign, directions in ((1, ("in", "both")), (-1, ("out", "both")))
                if gate.direction in directions
            )
            parts.append(
                f'<g class="gate"><line x1="{ax:.0f}" y1="{ay:.0f}" x2="{bx:.0f}" y2="{by:.0f}"/>{arrows}'
                f"<title>gate {label}, {gate.direction}</title></g>"
            )
        for x, y, heading, name in self.cameras_m():
            x = min(max(x * _CM, self.left_cm + 6), self.left_cm + self.width_cm - 6)
            y = min(max(-y * _CM, self.top_cm + 6), self.top_cm + self.height_cm - 6)
            parts.append(
                f'<g class="camera" transform="translate({x:.0f} {y:.0f}) rotate({-math.degrees(heading):.0f})">'
                f'<path d="M-7-5H3V5H-7ZM3-2L9-6V6L3 2Z"/><title>camera {html.escape(_clean(name))}</title></g>'
            )
        return "".join(parts)

    def labels(self) -> str:
        """Names of zones and gates, to be drawn above people's paths."""
        parts = []
        for zone in self.store.zone:
            x, y = (sum(corner[axis] for corner in zone.polygon) / len(zone.polygon) for axis in (0, 1))
            parts.append(f'<text x="{x * _CM:.0f}" y="{-y * _CM:.0f}">{html.escape(_clean(zone.id))}</text>')
        parts.append('</g><g class="gate">')
        for gate in self.store.gate:
            (x, y), inward = _gate_middle(gate)
            x, y = x - 34 * inward[0], y - 34 * inward[1]
            parts.append(f'<text x="{x:.0f}" y="{y:.0f}">{html.escape(_clean(gate.id))}</text>')
        return '<g class="zone">' + "".join(parts) + "</g>"


def _gate_middle(gate: Gate) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle of a gate's line, and the direction into the store, on the page."""
    (ax, ay), (bx, by) = ((x * _CM, -y * _CM) for x, y in gate.line)
    length = math.hypot(bx - ax, by - ay)
    # The store lies to the left of the line; on the page, where y points down, that is (dy, -dx).
    return ((ax + bx) / 2, (ay + by) / 2), ((by - ay) / length, -(bx - ax) / length)


def _footprints(plates: Sequence[Plate]) -> list[list[Plate]]:
    """Plates that lie above one another in a shelf, together; on a plan they are one rectangle."""
    found: dict[tuple[float, ...], list[Plate]] = {}
    for plate in plates:
        key = tuple(round(v, 3) for v in (plate.x, plate.y, plate.width, plate.depth, plate.yaw))
        found.setdefault(key, []).append(plate)
    return list(found.values())


def _corners(plate: Plate) -> tuple[tuple[float, float], ...]:
    """Corners of a plate on the floor plan in metres; the first two are its front edge, where shoppers reach in."""
    c, s = math.cos(plate.yaw), math.sin(plate.yaw)
    half = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    local = [(i * plate.width / 2, j * plate.depth / 2) for i, j in half]
    return tuple((plate.x + c * x - s * y, plate.y + s * x + c * y) for x, y in local)


def _event_mark(plate: Plate, taken: bool, size_cm: float) -> str:
    x, y = plate.x * _CM, -plate.y * _CM
    tip = -size_cm if taken else size_cm
    points = f"{x:.0f},{y + tip:.1f} {x - size_cm:.1f},{y - tip:.1f} {x + size_cm:.1f},{y - tip:.1f}"
    return f'<polygon class="{"taken" if taken else "returned"}" points="{points}"/>'


def _arrow(x: float, y: float, dx: float, dy: float) -> str:
    tip, back = 20.0, 8.0
    points = (
        (x + tip * dx, y + tip * dy),
        (x + back * dx - 7 * dy, y + back * dy + 7 * dx),
        (x + back * dx + 7 * dy, y + back * dy - 7 * dx),
    )
    return f'<polygon points="{" ".join(f"{px:.0f},{py:.0f}" for px, py in points)}"/>'


def _points(polygon: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x * _CM:.0f},{-y * _CM:.0f}" for x, y in polygon)


# ---- evidence --------------------------------------------------------------------------------------------------------


def _event_text(event: EventEvidence) -> str:
    """Weights and wrists about an event as JSON: int16 as base64, times in ms from the contact, places in cm."""

    def ms(t_ns: int) -> int:
        return (t_ns - event.contact_ns) // 1_000_000

    traces = []
    for trace in event.traces:
        grams = np.array(trace.grams, np.float64)
        change_g = grams - grams[0] if len(grams) else grams
        # A tenth of a gram, or as fine as sixteen bits can tell of a heavy load.
        unit_g = max(0.1, float(np.nanmax(np.abs(change_g), initial=0.0)) / 32000)
        row = [_clean(trace.plate), trace.delta_g, ms(trace.start_ns), trace.rate_hz, unit_g]
        traces.append([*row, _packed(change_g / unit_g)])
    wrists = []
    for path in event.wrists:
        sides = [_packed(_places_cm(side)) for side in (path.left_m, path.right_m)]
        wrists.append([path.track_id, _packed([ms(t_ns) for t_ns in path.t_ns]), *sides])
    row = [event.event_id, ms(event.onset_ns), ms(event.settled_ns), traces, wrists]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def _places_cm(places: Sequence[tuple[float, float, float] | None]) -> np.ndarray:
    return np.array([(math.nan,) * 3 if place is None else place for place in places]).reshape(-1) * _CM


def _packed(values: Any) -> str:
    """Numbers rounded to int16, little-endian, as base64; -32768 where a number is not known."""
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    whole = np.where(known, np.rint(np.clip(np.where(known, numbers, 0.0), -32767, 32767)), -32768)
    return base64.b64encode(whole.astype("<i2").tobytes()).decode("ascii")


def _plate_row(plate: Plate) -> list[Any]:
    """Name, middle and size in centimetres, and yaw of a plate."""
    middle = [round(v * _CM) for v in (plate.x, plate.y, plate.z)]
    return [_clean(plate.plate), *middle, round(plate.width * _CM), round(plate.depth * _CM), round(plate.yaw, 4)]


# ---- text ------------------------------------------------------------------------------------------------------------


def _clean(text: Any) -> Any:
    """Text that any file can hold: no control characters, no halves of surrogate pairs, not without end."""
    if not isinstance(text, str):
        return text
    shown = "".join(c if c.isprintable() or c == " " else "\ufffd" for c in text[:TEXT_MAX])
    return shown + ("…" if len(text) > TEXT_MAX else "")


def _finite(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    text = resources.files("fusion.show").joinpath("pages", name).read_text(encoding="utf-8")
    return _asset("plan.css") + _asset("evidence.css") + text if name == "report.css" else text
