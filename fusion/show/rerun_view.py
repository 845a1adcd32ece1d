"""A run as a Rerun recording, for engineers: `rerun run.rrd` shows cameras, detections, people, plates, events, text.

Everything is on one timeline, `time`, which is that of the data. Observations are only collected as they come; they are
sorted, copied and written by the thousand, one call for each sensor. Needs the extra `view`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.errors import FusionError, extra
from fusion.observations import Frame, Observation, ShelfReading
from fusion.results import People, Result, RunEnd, ShelfEventExplained
from fusion.show.log_lines import LogLine, LogLines
from fusion.show.rerun_buffers import Bodies, Weights
from fusion.show.rerun_scene import COLOURS, blueprint, camera_entity, entity_name, write_scene
from fusion.store.models import Plate, Store

if TYPE_CHECKING:
    import rerun as rr

TIMELINE = "time"
# Bodies of one camera, instants of all people, and weights of one plate that are kept before they are written: enough
# that the calls cost little, and few enough to stay in the processor's caches.
BODIES_MAX, VALUES_MAX = 4096, 4096
# Observations that are kept before they are sorted by their sensors: fewer than the 700 allocations after which Python
# looks for garbage, which it would do more often the more are kept, and so few that they are still in the caches.
PENDING_MAX = 512
# Bounds of the radii of joints: without an upper bound, a joint with an unknown place would fill the view.
RADIUS_MIN_M, RADIUS_MAX_M = 0.008, 0.3
# A name is written once in this many instants.
NAMED_EVERY = 4
_TAKEN, _RETURNED = 0xE4572EFF, 0x2E9E6BFF


class _Mark(NamedTuple):
    """A shelf event at its plate."""

    t_ns: int
    place_m: tuple[float, float, float]
    label: str


class View:
    """Collects what goes into an engine and what comes out, and writes it.

        with View("run.rrd", store) as view:
            for observation in observations:
                view.observe(observation)
                for result in engine.feed(observation):
                    view.add(result)

    Entities: `world/floor`, `world/gates`, `world/zones`, `world/obstacles` and `world/plates`;
    `world/cameras/NAME` with its frustum and `world/cameras/NAME/detections` in its raw picture; `world/people`, whose
    joints are as large as their standard deviation, and `world/people/names`; `world/taken` and `world/returned` at
    the plates; `weights/PLATE` in grams since its first message; and `log/visits`, `log/shelves`, `log/receipts`,
    `log/gates` and `log/warnings`.

    Attributes:
        store: the store of the run.
    """

    def __init__(
        self,
        path: str | Path,
        store: Store,
        title: str | None = None,
        *,
        bodies_max: int = BODIES_MAX,
        values_max: int = VALUES_MAX,
    ) -> None:
        """Begin a recording.

        Args:
            path: file to write, usually named *.rrd; its folder exists.
            store: the store of the run.
            title: name of the recording in the viewer; the store's name by default.
            bodies_max: bodies of a camera, or of all people, that are kept before they are written.
            values_max: instants, weights and lines of text that are kept before they are written.

        Raises:
            FusionError: the package rerun-sdk is missing, or the file cannot be written.
        """
        with extra("view"):
            import rerun
        self._rr = rerun
        self.store = store
        try:
            with open(path, "wb"):
                pass
        except OSError as error:
            raise FusionError(f"{path}: the file cannot be written: {error.strerror}") from None
        self._out: rr.RecordingStream = rerun.RecordingStream("fusion")
        self._out.save(path, default_blueprint=blueprint(store))
        self._out.send_recording_name(title or store.name)
        layout = store.layout
        self._bodies_max, self._values_max = bodies_max, values_max
        self._head = min(range(layout.n_joints), key=lambda joint: -layout.heights_m[joint, 0])
        self._fronts_m = {plate.plate: _front_m(plate) for plate in store.plates}
        self._pending: list[Observation] = []
        self._pending_max = min(PENDING_MAX, values_max)
        self._detections: dict[str, Bodies] = {}
        self._weights = Weights()
        self._weights_max = values_max * max(1, len(store.plates))
        self._people: list[People] = []
        self._n_people = 0
        self._lines = LogLines(store)
        self._marks: dict[str, list[_Mark]] = defaultdict(list)
        self._log_lines: dict[str, list[LogLine]] = defaultdict(list)
        self._closed = False
        write_scene(self._out, store)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- collecting --------------------------------------------------------------------------------------------------

    def observe(self, observation: Observation) -> None:
        """Take in an observation, in any order."""
        # This is called for everything that comes in, so it does nothing else.
        pending = self._pending
        pending.append(observation)
        if len(pending) >= self._pending_max:
            self._sort()

    def _sort(self) -> None:
        """Distribute the observations so far to their sensors' buffers, and write those that are full."""
        pending = self._pending
        readings: list[ShelfReading] = []
        frames: defaultdict[str, list[Frame]] = defaultdict(list)
        for observation in pending:
            # Nearly all observations are of these two types, so they are tested for first.
            if isinstance(observation, ShelfReading):
                if observation.samples.size:
                    readings.append(observation)
            elif isinstance(observation, Frame):
                frames[observation.camera].append(observation)
            else:
                self._log(self._lines.of_observation(observation))
        pending.clear()
        self._weights.extend(readings)
        if len(self._weights) >= self._weights_max:
            self._write_weights()
        for camera, of_camera in frames.items():
            bodies = self._detections.get(camera)
            if bodies is None:
                bodies = self._detections[camera] = Bodies(self.store.layout.n_joints, self._bodies_max)
            bodies.extend(of_camera)
            if bodies.n >= self._bodies_max or bodies.n_instants >= self._values_max:
                self._write_detections(camera)

    def add(self, result: Result | RunEnd) -> None:
        """Take one result, in the order in which the engine answers; a sink of `fusion.run`."""
        if isinstance(result, People):
            self._add_people(result)
            return
        if isinstance(result, ShelfEventExplained) and result.plate in self._fronts_m:
            self._add_mark(result)
        self._log(self._lines.of(result))

    def close(self) -> None:
        """Write what is left and complete the file."""
        if self._closed:
            return
        self._closed = True
        self._sort()
        for camera in self._detections:
            self._write_detections(camera)
        self._write_people()
        self._write_weights()
        self._write_text()
        self._out.flush()
        self._out.disconnect()

    def _log(self, line: LogLine | None) -> None:
        if line is None:
            return
        lines = self._log_lines[line.log]
        lines.append(line)
        if len(lines) >= self._values_max:
            self._write_text()

    def _add_people(self, people: People) -> None:
        self._people.append(people)
        self._n_people += len(people.track_id)
        if self._n_people >= self._bodies_max or len(self._people) >= self._values_max:
            self._write_people()

    def _add_mark(self, event: ShelfEventExplained) -> None:
        # The log has all candidates; above the shelf there is room for the most probable one.
        label = ": ".join([f"{event.delta_g:+.0f} g", *self._lines.candidates(event)[:1]])
        kind = "taken" if event.delta_g < 0 else "returned"
        self._marks[kind].append(_Mark(event.t_ns, self._fronts_m[event.plate], label))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def _send(self, entity: str, times_ns: Sequence[int] | NDArray[np.int64], columns: Iterable[Any]) -> None:
        stamps = np.asarray(times_ns, np.int64).astype("datetime64[ns]")
        self._out.send_columns(entity, [self._rr.TimeColumn(TIMELINE, timestamp=stamps)], columns, strict=True)

    def _write_text(self) -> None:
        rr = self._rr
        for kind, marks in self._marks.items():
            columns = rr.Points3D.columns(
                positions=[mark.place_m for mark in marks],
                labels=[mark.label for mark in marks],
                radii=[0.06] * len(marks),
                colors=np.full(len(marks), _TAKEN if kind == "taken" else _RETURNED, np.uint32),
            )
            self._send(f"world/{kind}", [mark.t_ns for mark in marks], columns)
        for log, lines in self._log_lines.items():
            levels = ["WARN" if line.is_warning else "INFO" for line in lines]
            columns = rr.TextLog.columns(text=[line.text for line in lines], level=levels)
            self._send(f"log/{log}", [line.t_ns for line in lines], columns)
        self._marks.clear()
        self._log_lines.clear()

    def _write_detections(self, camera: str) -> None:
        frames = self._detections[camera].take()
        if not len(frames.t_ns):
            return
        n_bodies, n_joints = frames.bodies.shape[:2]
        first = np.cumsum(frames.n_bodies) - frames.n_bodies
        number = ((np.arange(n_bodies) - np.repeat(first, frames.n_bodies)) % COLOURS).astype(np.uint16)
        points = frames.bodies.reshape(-1, 3)
        seen = points[:, 2] > 0
        where = np.flatnonzero(seen)
        columns = self._rr.Points2D.columns(
            positions=points[:, :2].take(where, axis=0),
            class_ids=np.repeat(number, n_joints).take(where),
            keypoint_ids=_joint_ids(n_bodies, n_joints).take(where),
        )
        lengths = _points_of_instants(seen.reshape(n_bodies, n_joints), frames.n_bodies)
        self._send(f"{camera_entity(camera)}/detections", frames.t_ns, columns.partition(lengths))

    def _write_weights(self) -> None:
        for plate, t_ns, weights in self._weights.take():
            grams = weights * self.store.weight_unit_g
            self._send(f"weights/{entity_name(plate)}", t_ns, self._rr.Scalars.columns(scalars=grams))

    def _write_people(self) -> None:
        rr, instants = self._rr, self._people
        if not instants:
            return
        self._people, self._n_people = [], 0
        t_ns = np.array([people.t_ns for people in instants], np.int64)
        n_bodies = np.array([len(people.track_id) for people in instants])
        track = np.concatenate([people.track_id for people in instants])
        joints_m = np.concatenate([people.joints_m for people in instants])
        radii_m = np.concatenate([people.joints_sd_m for people in instants]).ravel()
        known = np.isfinite(joints_m).all(axis=-1)
        where = np.flatnonzero(known)
        colour = (track % COLOURS).astype(np.uint16)
        columns = rr.Points3D.columns(
            positions=joints_m.reshape(-1, 3).take(where, axis=0).astype(np.float32),
            radii=_radii_m(np.nan_to_num(radii_m.take(where), nan=RADIUS_MAX_M)),
            class_ids=np.repeat(colour, known.shape[1]).take(where),
            keypoint_ids=_joint_ids(*known.shape).take(where),
        )
        self._send("world/people", t_ns, columns.partition(_points_of_instants(known, n_bodies)))
        # A name above the head, or above the place on the floor where the head is unknown.
        named_instants = instants[::NAMED_EVERY]
        place_m = np.concatenate([people.position_m for people in named_instants])
        place_sd_m = np.concatenate([people.position_sd_m for people in named_instants])
        confirmed = np.concatenate([people.confirmed for people in named_instants])
        row = np.repeat(np.arange(len(named_instants)), n_bodies[::NAMED_EVERY])
        body = np.flatnonzero(np.repeat(np.arange(len(instants)), n_bodies) % NAMED_EVERY == 0)
        named = np.flatnonzero(np.isfinite(place_m).all(axis=-1) & confirmed)
        height_m = np.nan_to_num(joints_m[body[named], self._head, 2], nan=1.6) + 0.25
        columns = rr.Points3D.columns(
            positions=np.column_stack([place_m[named], height_m]).astype(np.float32),
            labels=[f"{self._lines.names.get(track_id, '?')} #{track_id}" for track_id in track[body[named]].tolist()],
            radii=_radii_m(place_sd_m[named]),
            class_ids=colour[body[named]],
        )
        lengths = np.bincount(row[named], minlength=len(named_instants))
        self._send("world/people/names", t_ns[::NAMED_EVERY], columns.partition(lengths))


def _joint_ids(n_bodies: int, n_joints: int) -> NDArray[np.uint16]:
    """(n_bodies * n_joints,) joint of every point of bodies one after another."""
    return np.tile(np.arange(n_joints, dtype=np.uint16), n_bodies)


def _points_of_instants(shown: NDArray[np.bool_], n_bodies: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_instants,) points of each instant, from the points (n, K) that are shown and the bodies of each instant."""
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(shown, axis=1))])
    last = np.cumsum(n_bodies)
    points: NDArray[np.int64] = ends[last] - ends[last - n_bodies]
    return points


def _radii_m(sd_m: NDArray[Any]) -> NDArray[Any]:
    radii_m: NDArray[Any] = np.clip(sd_m, RADIUS_MIN_M, RADIUS_MAX_M)
    return radii_m


def _front_m(plate: Plate) -> tuple[float, float, float]:
    """Middle of a plate's front edge, 10 cm above it."""
    x, y = plate.x + math.sin(plate.yaw) * plate.depth / 2, plate.y - math.cos(plate.yaw) * plate.depth / 2
    return x, y, plate.z + 0.1
