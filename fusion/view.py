"""A run as a Rerun recording, for engineers: `rerun run.rrd` shows cameras, detections, people, plates, events, text.

Everything stands on one timeline, `time`, which is the data's own. What comes in is kept as it is and written a minute
of data at a time, one call for a sensor, so that an engine beside it is hardly slowed. Needs the extra `view`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.config import Plate, Store
from fusion.errors import FusionError, extra
from fusion.geometry import Rig
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import (
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

if TYPE_CHECKING:
    import rerun as rr

TIMELINE = "time"
# Data are written when they span so much, or hold so many keypoints: 12 bytes each.
BATCH_NS, KEYPOINTS_MAX = 60_000_000_000, 1_000_000
# Weights are a small part of the data in many entities: they are written when there are so many messages of all
# plates, some 30 MB, since a call for each plate costs more than what it writes.
READINGS_MAX = 100_000
# People and detections are told apart by so many colours, in turn.
COLOURS = 32
# A joint of which nothing is known any more would fill the view.
RADIUS_MIN_M, RADIUS_MAX_M = 0.008, 0.3
# How far before a camera its picture is drawn.
PICTURE_M = 0.35
# Views of single cameras that are laid out at first; the others can be opened.
CAMERA_VIEWS_MAX = 12
_TAKEN, _RETURNED = 0xE4572EFF, 0x2E9E6BFF
_FLOOR, _GATE, _ZONE, _PLATE, _OBSTACLE = 0x8A96AAFF, 0x8EA6FFFF, 0x5ECBDFFF, 0xB3BDCCFF, 0x6B778CFF


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
    """

    def __init__(self, path: str | Path, store: Store, title: str | None = None) -> None:
        """Begin a recording.

        Args:
            path: file to write, usually named *.rrd; its folder exists.
            store: what the observations and results are about.
            title: what the viewer calls the recording; the store's name where none is given.

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
            raise FusionError(f"{path}: want a file that can be written, got: {error.strerror}") from None
        self._out: rr.RecordingStream = rerun.RecordingStream("fusion")
        self._out.save(path, default_blueprint=self._blueprint())
        self._out.send_recording_name(title or store.name)
        layout = store.layout
        self._head = min(range(layout.n_joints), key=lambda joint: -layout.heights_m[joint, 0])
        self._products = {product.gtin: product.name for product in store.products}
        self._hands = {plate.plate: _front(plate) for plate in store.plates}
        self._frames: dict[str, list[Frame]] = defaultdict(list)
        self._readings: list[ShelfReading] = []
        self._zero_g: dict[str, float] = {}
        self._people: list[People] = []
        self._names: dict[int, str] = {}
        self._moves: dict[str, list[tuple[int, tuple[float, float, float], str]]] = defaultdict(list)
        self._lines: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        self._n_keypoints = 0
        self._first_ns: int | None = None
        self._closed = False
        self._write_scene()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- collecting --------------------------------------------------------------------------------------------------

    def observe(self, observation: Observation) -> None:
        """Take in what a sensor tells, in any order."""
        # Nearly all are one of two, and are asked for first.
        if isinstance(observation, ShelfReading):
            self._readings.append(observation)
            if len(self._readings) >= READINGS_MAX:
                self._write_weights()
            return
        if isinstance(observation, Frame):
            self._frames[observation.camera].append(observation)
            self._n_keypoints += observation.keypoints.size
            if self._first_ns is None:
                self._first_ns = observation.t_ns
            elif observation.t_ns - self._first_ns >= BATCH_NS or self._n_keypoints >= 3 * KEYPOINTS_MAX:
                self._write_batch()
                self._first_ns = observation.t_ns
            return
        match observation:
            case GateScan():
                # Who it is stays with the engine's answer; what was shown is nobody's business.
                self._say("gates", observation.t_ns, f"{observation.credential_type} at {observation.gate}")
            case ItemSighting():
                where = observation.zone or observation.plate or "nowhere"
                name = self._products.get(observation.gtin, observation.gtin)
                said = f"{observation.source} {observation.kind} {observation.quantity} x {name} at {where}"
                self._say("gates", observation.t_ns, f"{said} ({observation.probability:.0%})")

    def add(self, result: Result) -> None:
        """Take in what the engine answers."""
        match result:
            case People():
                self._people.append(result)
                return
            case PersonEntered():
                who = "staff" if result.staff else result.account or "no credential"
                self._names[result.track_id] = who
                said = f"{who} came in at {result.gate or 'no gate'}, track {result.track_id}"
                self._say("visits", result.t_ns, said)
            case PersonLeft():
                who = self._names.get(result.track_id, result.account or "somebody unknown")
                self._say("visits", result.t_ns, f"{who} left at {result.gate or 'no gate'}, track {result.track_id}")
            case Picked() | PutBack():
                verb = "took" if isinstance(result, Picked) else "put back"
                said = f"{self._who(result.account, result.visit)} {verb} {result.quantity} x {self._name(result.gtin)}"
                self._say("shelves", result.t_ns, f"{result.plate}: {said} as it looks now ({result.probability:.0%})")
            case ShelfEventExplained():
                self._add_event(result)
            case Receipt():
                pieces = ", ".join(f"{line.quantity} x {self._name(line.gtin)}" for line in result.lines) or "nothing"
                said = f"{self._who(result.account, result.visit)}: {self.store.price_text(result.total)}, {pieces}; "
                said += result.status + (f": {result.reason}" if result.reason else "")
                self._say("receipts", result.issued_ns, said, "INFO" if result.status == "settled" else "WARN")
            case Warning():
                self._say("warnings", result.t_ns, f"{result.kind}: {result.subject}: {result.message}", "WARN")

    def close(self) -> None:
        """Write what is left and complete the file."""
        if self._closed:
            return
        self._closed = True
        self._write_batch()
        self._write_weights()
        self._out.flush()
        self._out.disconnect()

    def _say(self, log: str, t_ns: int, text: str, level: str = "INFO") -> None:
        self._lines[log].append((t_ns, text, level))

    def _who(self, account: str | None, visit: str | None) -> str:
        return account or ("somebody without credential" if visit else "somebody unknown")

    def _name(self, gtin: str) -> str:
        return self._products.get(gtin, gtin)

    def _add_event(self, event: ShelfEventExplained) -> None:
        ranked = sorted(event.candidates, key=lambda one: -one.probability)
        said = [
            f"{self._who(one.account, one.visit)} {one.quantity:+d} x {self._name(one.gtin)} ({one.probability:.0%})"
            for one in ranked[:3]
        ]
        text = f"{event.plate} {event.delta_g:+.0f} g: {'; '.join(said) or 'nothing'}"
        self._say("shelves", event.t_ns, text)
        if event.plate in self._hands:
            kind = "taken" if event.delta_g < 0 else "returned"
            # All of it stands in the log; over the shelf there is room for the most probable alone.
            label = f"{event.delta_g:+.0f} g" + (f": {said[0]}" if said else "")
            self._moves[kind].append((event.t_ns, self._hands[event.plate], label))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def _blueprint(self) -> Any:
        """What is laid out when the file is opened: the shop in the middle, cameras, weights and text around it."""
        import rerun.blueprint as rrb

        cameras = [
            rrb.Spatial2DView(origin=f"world/cameras/{_part(camera.name)}", name=camera.name)
            for camera in self.store.cameras[:CAMERA_VIEWS_MAX]
        ]
        below = [rrb.TimeSeriesView(origin="weights", name="weights, g")] if self.store.plates else []
        shop = rrb.Spatial3DView(origin="world", name=self.store.name)
        left = rrb.Vertical(shop, *below, row_shares=[3, 1][: 1 + len(below)])
        log = rrb.TextLogView(origin="log", name="what was said")
        right = rrb.Vertical(rrb.Grid(*cameras), log, row_shares=[3, 2]) if cameras else log
        return rrb.Blueprint(rrb.Horizontal(left, right, column_shares=[3, 2]), collapse_panels=True)

    def _log(self, entity: str, *archetypes: Any) -> None:
        self._out.log(entity, *archetypes, static=True)

    def _write_scene(self) -> None:
        """What does not change: the store's plan, its plates, its cameras."""
        rr, store = self._rr, self.store
        self._log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        layout = store.layout
        connections = [tuple(limb) for limb in layout.limbs.tolist()]
        joints = [(joint, name) for joint, name in enumerate(layout.joints)]
        classes = [
            rr.ClassDescription(
                info=rr.AnnotationInfo(id=number, color=_colour(number)),
                keypoint_annotations=[rr.AnnotationInfo(id=joint, label=name) for joint, name in joints],
                keypoint_connections=connections,
            )
            for number in range(COLOURS)
        ]
        self._log("world", rr.AnnotationContext(classes))
        ring = [(x, y, 0.0) for x, y in (*store.floor, store.floor[0])]
        self._log("world/floor", rr.LineStrips3D([ring], colors=_FLOOR))
        if store.gate:
            lines = [[(*end, 0.0) for end in gate.line] for gate in store.gate]
            labels = [f"{gate.id} ({gate.direction})" for gate in store.gate]
            self._log("world/gates", rr.LineStrips3D(lines, labels=labels, colors=_GATE, radii=0.02))
        if store.zone:
            rings = [[(*corner, 0.01) for corner in (*zone.polygon, zone.polygon[0])] for zone in store.zone]
            labels = [f"{zone.id} ({zone.kind})" for zone in store.zone]
            self._log("world/zones", rr.LineStrips3D(rings, labels=labels, colors=_ZONE))
        if store.obstacle.boxes:
            boxes = np.array(store.obstacle.boxes)
            low, high = np.column_stack([boxes[:, :2], np.zeros(len(boxes))]), boxes[:, 2:5]
            self._log("world/obstacles", rr.Boxes3D(centers=(low + high) / 2, sizes=high - low, colors=_OBSTACLE))
        if store.plates:
            self._log(
                "world/plates",
                rr.Boxes3D(
                    centers=[(plate.x, plate.y, plate.z - 0.01) for plate in store.plates],
                    sizes=[(plate.width, plate.depth, 0.02) for plate in store.plates],
                    quaternions=[(0.0, 0.0, math.sin(p.yaw / 2), math.cos(p.yaw / 2)) for p in store.plates],
                    labels=[plate.plate for plate in store.plates],
                    show_labels=False,
                    colors=_PLATE,
                ),
            )
        rig = Rig.from_cameras(store.cameras)
        for view, name in enumerate(rig.names):
            rotation = rig.camera_from_world[view, :, :3].T
            entity = f"world/cameras/{_part(name)}"
            self._log(entity, rr.Transform3D(translation=rig.centres_m[view], mat3x3=rotation))
            self._log(
                entity,
                rr.Pinhole(
                    image_from_camera=rig.image_from_camera[view],
                    resolution=rig.size_px[view],
                    camera_xyz=rr.ViewCoordinates.RDF,
                    image_plane_distance=PICTURE_M,
                ),
            )
            # Seventeen names would cover the person.
            self._log(f"{entity}/detections", rr.Points2D.from_fields(show_labels=False))
        self._log("world/people", rr.Points3D.from_fields(show_labels=False))

    def _write_batch(self) -> None:
        for camera, frames in self._frames.items():
            self._write_frames(camera, frames)
        if self._people:
            self._write_people()
        rr = self._rr
        for kind, moves in self._moves.items():
            times, places, texts = zip(*moves)
            colour = _TAKEN if kind == "taken" else _RETURNED
            n = len(moves)
            columns = rr.Points3D.columns(positions=places, labels=texts, radii=[0.06] * n, colors=[colour] * n)
            self._send(f"world/{kind}", times, columns)
        for log, lines in self._lines.items():
            times, texts, levels = zip(*lines)
            self._send(f"log/{log}", times, rr.TextLog.columns(text=texts, level=levels))
        for kept in (self._frames, self._people, self._moves, self._lines):
            kept.clear()
        self._n_keypoints = 0

    def _send(self, entity: str, times_ns: Sequence[int] | np.ndarray, columns: Iterable[Any]) -> None:
        stamps = np.asarray(times_ns, np.int64).astype("datetime64[ns]")
        self._out.send_columns(entity, [self._rr.TimeColumn(TIMELINE, timestamp=stamps)], columns, strict=True)

    def _write_frames(self, camera: str, frames: list[Frame]) -> None:
        n_joints = self.store.layout.n_joints
        n_people = np.array([len(frame.keypoints) for frame in frames])
        flat = np.concatenate([frame.keypoints for frame in frames]).reshape(-1, 3)
        seen = np.flatnonzero(flat[:, 2] > 0)
        person, joint = np.divmod(seen, n_joints)
        first = np.cumsum(n_people) - n_people
        frame_of = np.repeat(np.arange(len(frames)), n_people)
        number = (np.arange(len(frame_of)) - first[frame_of]) % COLOURS
        columns = self._rr.Points2D.columns(
            positions=flat[seen, :2],
            class_ids=number.astype(np.uint16)[person],
            keypoint_ids=joint.astype(np.uint16),
        )
        lengths = np.bincount(frame_of[person], minlength=len(frames))
        times = [frame.t_ns for frame in frames]
        self._send(f"world/cameras/{_part(camera)}/detections", times, columns.partition(lengths))

    def _write_weights(self) -> None:
        """One value a message: the mean of its samples."""
        readings = [reading for reading in self._readings if len(reading.samples)]
        self._readings.clear()
        if not readings:
            return
        n_samples = np.array([len(reading.samples) for reading in readings])
        starts = np.cumsum(n_samples) - n_samples
        grams = np.concatenate([reading.samples for reading in readings]).astype(np.float64)
        means = np.add.reduceat(grams, starts) / n_samples
        times = np.array([reading.t_ns for reading in readings], np.int64)
        numbers: dict[str, int] = {}
        plate_of = np.array([numbers.setdefault(reading.plate, len(numbers)) for reading in readings])
        order = np.argsort(plate_of, kind="stable")
        cuts = np.searchsorted(plate_of[order], np.arange(len(numbers) + 1)).tolist()
        for plate, first, last in zip(numbers, cuts, cuts[1:]):
            rows = order[first:last]
            zero_g = self._zero_g.setdefault(plate, float(means[rows[0]]))
            columns = self._rr.Scalars.columns(scalars=means[rows] - zero_g)
            self._send(f"weights/{_part(plate)}", times[rows], columns)

    def _write_people(self) -> None:
        rr, people = self._rr, self._people
        times = [one.t_ns for one in people]
        n_people = np.array([len(one.track_id) for one in people])
        track = np.concatenate([one.track_id for one in people])
        joints_m = np.concatenate([one.joints_m for one in people])
        sd_m = np.concatenate([one.joints_sd_m for one in people])
        instant = np.repeat(np.arange(len(people)), n_people)
        person, joint = np.nonzero(np.isfinite(joints_m).all(axis=-1))
        colour = (track % COLOURS).astype(np.uint16)
        columns = rr.Points3D.columns(
            positions=joints_m[person, joint].astype(np.float32),
            radii=np.clip(np.nan_to_num(sd_m[person, joint], nan=RADIUS_MAX_M), RADIUS_MIN_M, RADIUS_MAX_M),
            class_ids=colour[person],
            keypoint_ids=joint.astype(np.uint16),
        )
        lengths = np.bincount(instant[person], minlength=len(people))
        self._send("world/people", times, columns.partition(lengths))
        position = np.concatenate([one.position_m for one in people])
        position_sd = np.concatenate([one.position_sd_m for one in people])
        confirmed = np.concatenate([one.confirmed for one in people])
        known = np.flatnonzero(np.isfinite(position).all(axis=-1) & confirmed)
        # A name over the head, or over the place on the floor where the head is not known, once in a few instants.
        told = known[instant[known] % 4 == 0]
        height = np.nan_to_num(joints_m[told, self._head, 2], nan=1.6) + 0.25
        labels = [f"{self._names.get(one, '?')} #{one}" for one in track[told].tolist()]
        columns = rr.Points3D.columns(
            positions=np.column_stack([position[told], height]).astype(np.float32),
            labels=labels,
            radii=np.clip(position_sd[told], RADIUS_MIN_M, RADIUS_MAX_M),
            class_ids=colour[told],
        )
        rows = np.arange(0, len(people), 4)
        lengths = np.bincount(instant[told] // 4, minlength=len(rows))
        self._send("world/people/names", np.array(times)[rows], columns.partition(lengths))


def _front(plate: Plate) -> tuple[float, float, float]:
    """Middle of a plate's front edge, a hand's breadth above it."""
    x, y = plate.x + math.sin(plate.yaw) * plate.depth / 2, plate.y - math.cos(plate.yaw) * plate.depth / 2
    return x, y, plate.z + 0.1


def _part(name: str) -> str:
    """A name as one part of an entity's path."""
    kept = (c if c.isalnum() or c in "_-." else f"\\{c}" if c.isprintable() and c.isascii() else "_" for c in name)
    return "".join(kept)


def _colour(number: int) -> tuple[int, int, int]:
    """Hues a golden angle apart, so that neighbours in the order differ; light enough for a dark view."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb((0.07 + 0.618034 * number) % 1.0, 0.55 + 0.2 * (number % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
