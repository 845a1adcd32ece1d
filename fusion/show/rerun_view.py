"""A run as a Rerun recording, for engineers: `rerun run.rrd` shows cameras, detections, people, plates, events, text.

Everything stands on one timeline, `time`, which is the data's own. What comes in is copied into arrays that are used
again and again, and written by the thousand, one call for a sensor: an engine beside it would be slowed most by memory
that is held back from it. Needs the extra `view`.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.errors import FusionError, extra
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.people.geometry import Rig
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
from fusion.sentences import reason_text, sentence
from fusion.store.models import Plate, Store

if TYPE_CHECKING:
    import rerun as rr

TIMELINE = "time"
# Bodies of one camera, instants of all people, and weights of one plate that are kept before they are written: enough
# that the calls cost little, and few enough to stay in the processor's caches.
BODIES_MAX, VALUES_MAX = 2048, 4096
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
        self._bodies: dict[str, _Bodies] = {}
        self._weights: dict[str, tuple[array[int], array[float]]] = {}
        self._zero_g: dict[str, float] = {}
        self._people = _Bodies(layout.n_joints, 4)
        self._place = np.empty((BODIES_MAX, 4))
        self._track = np.empty(BODIES_MAX, np.int64)
        self._names: dict[int, str] = {}
        self._moves: dict[str, list[tuple[int, tuple[float, float, float], str]]] = defaultdict(list)
        self._lines: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
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
            if not len(observation.samples):
                return
            kept = self._weights.get(observation.plate)
            if kept is None:
                kept = self._weights[observation.plate] = array("q"), array("d")
            times, grams = kept
            times.append(observation.t_ns)
            grams.append(observation.samples[0])
            if len(times) >= VALUES_MAX:
                self._write_weights(observation.plate)
            return
        if isinstance(observation, Frame):
            bodies = self._bodies.get(observation.camera)
            if bodies is None:
                bodies = self._bodies[observation.camera] = _Bodies(self.store.layout.n_joints, 3)
            if not bodies.add(observation.t_ns, observation.keypoints):
                self._write_frames(observation.camera)
                bodies.add(observation.t_ns, observation.keypoints)
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
                self._add_people(result)
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
                said += result.status + (f": {reason_text(result.reasons, self.store)}" if result.reasons else "")
                self._say("receipts", result.issued_ns, said, "INFO" if result.status == "settled" else "WARN")
            case Warning():
                said = f"{result.kind}: {result.subject}: {sentence(result, self.store)}"
                self._say("warnings", result.t_ns, said, "WARN")

    def close(self) -> None:
        """Write what is left and complete the file."""
        if self._closed:
            return
        self._closed = True
        for camera in self._bodies:
            self._write_frames(camera)
        self._write_people()
        for plate in self._weights:
            self._write_weights(plate)
        self._write_told()
        self._out.flush()
        self._out.disconnect()

    def _say(self, log: str, t_ns: int, text: str, level: str = "INFO") -> None:
        self._lines[log].append((t_ns, text, level))
        if len(self._lines[log]) >= VALUES_MAX:
            self._write_told()

    def _add_people(self, people: People) -> None:
        n = len(people.track_id)
        joints = np.concatenate([people.joints_m, people.joints_sd_m[..., None]], axis=2, dtype=np.float32)
        if not self._people.add(people.t_ns, joints):
            self._write_people()
            self._people.add(people.t_ns, joints)
        end = self._people.n
        if end > len(self._track):
            self._place, self._track = np.empty((2 * end, 4)), np.empty(2 * end, np.int64)
        rows = slice(end - n, end)
        self._track[rows] = people.track_id
        self._place[rows, :2] = people.position_m
        self._place[rows, 2] = people.position_sd_m
        self._place[rows, 3] = people.confirmed

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

    def _write_told(self) -> None:
        rr = self._rr
        for kind, moves in self._moves.items():
            times, places, texts = zip(*moves)
            colours = np.full(len(moves), _TAKEN if kind == "taken" else _RETURNED, np.uint32)
            columns = rr.Points3D.columns(positions=places, labels=texts, radii=[0.06] * len(moves), colors=colours)
            self._send(f"world/{kind}", times, columns)
        for log, lines in self._lines.items():
            times, texts, levels = zip(*lines)
            self._send(f"log/{log}", times, rr.TextLog.columns(text=texts, level=levels))
        self._moves.clear()
        self._lines.clear()

    def _send(self, entity: str, times_ns: Sequence[int] | np.ndarray, columns: Iterable[Any]) -> None:
        stamps = np.asarray(times_ns, np.int64).astype("datetime64[ns]")
        self._out.send_columns(entity, [self._rr.TimeColumn(TIMELINE, timestamp=stamps)], columns, strict=True)

    def _write_frames(self, camera: str) -> None:
        times, n_people, keypoints = self._bodies[camera].take()
        if not len(times):
            return
        seen = keypoints[..., 2] > 0
        first = np.cumsum(n_people) - n_people
        frame_of = np.repeat(np.arange(len(times)), n_people)
        number = ((np.arange(len(frame_of)) - first[frame_of]) % COLOURS).astype(np.uint16)
        joint = np.arange(seen.shape[1], dtype=np.uint16)
        n_seen = seen.sum(axis=1)
        columns = self._rr.Points2D.columns(
            positions=keypoints[..., :2][seen],
            class_ids=np.repeat(number, n_seen),
            keypoint_ids=np.broadcast_to(joint, seen.shape)[seen],
        )
        lengths = np.bincount(frame_of, weights=n_seen, minlength=len(times)).astype(np.int64)
        self._send(f"world/cameras/{_part(camera)}/detections", times, columns.partition(lengths))

    def _write_weights(self, plate: str) -> None:
        times, grams = self._weights[plate]
        if times:
            # The viewer's own copy of both is made before they are emptied.
            values = np.array(grams)
            zero_g = self._zero_g.setdefault(plate, float(values[0]))
            self._send(f"weights/{_part(plate)}", np.array(times), self._rr.Scalars.columns(scalars=values - zero_g))
        del times[:], grams[:]

    def _write_people(self) -> None:
        rr = self._rr
        times, n_people, bodies = self._people.take()
        if not len(times):
            return
        n = len(bodies)
        track, place, place_sd, confirmed = self._track[:n], self._place[:n, :2], self._place[:n, 2], self._place[:n, 3]
        instant = np.repeat(np.arange(len(times)), n_people)
        known = np.isfinite(bodies[..., :3]).all(axis=-1)
        n_known = known.sum(axis=1)
        colour = (track % COLOURS).astype(np.uint16)
        joint = np.arange(known.shape[1], dtype=np.uint16)
        columns = rr.Points3D.columns(
            positions=bodies[..., :3][known],
            radii=np.clip(np.nan_to_num(bodies[..., 3][known], nan=RADIUS_MAX_M), RADIUS_MIN_M, RADIUS_MAX_M),
            class_ids=np.repeat(colour, n_known),
            keypoint_ids=np.broadcast_to(joint, known.shape)[known],
        )
        lengths = np.bincount(instant, weights=n_known, minlength=len(times)).astype(np.int64)
        self._send("world/people", times, columns.partition(lengths))
        # A name over the head, or over the place on the floor where the head is not known, once in a few instants.
        told = np.flatnonzero(np.isfinite(place).all(axis=-1) & (confirmed > 0) & (instant % 4 == 0))
        height = np.nan_to_num(bodies[told, self._head, 2], nan=1.6) + 0.25
        columns = rr.Points3D.columns(
            positions=np.column_stack([place[told], height]).astype(np.float32),
            labels=[f"{self._names.get(one, '?')} #{one}" for one in track[told].tolist()],
            radii=np.clip(place_sd[told], RADIUS_MIN_M, RADIUS_MAX_M),
            class_ids=colour[told],
        )
        rows = np.arange(0, len(times), 4)
        lengths = np.bincount(instant[told] // 4, minlength=len(rows))
        self._send("world/people/names", times[rows], columns.partition(lengths))


class _Bodies:
    """Instants with any number of bodies each, in one array that is filled again and again.

    Attributes:
        n: bodies so far.
    """

    def __init__(self, n_joints: int, width: int) -> None:
        self.n = 0
        self._bodies = np.empty((BODIES_MAX, n_joints, width), np.float32)
        self._times = array("q")
        self._counts = array("q")

    def add(self, t_ns: int, bodies: np.ndarray) -> bool:
        """Take in an instant; False where there is no room until `take` was called."""
        n, count = self.n, len(bodies)
        if n + count > len(self._bodies) or len(self._times) >= VALUES_MAX:
            if self._times:
                return False
            self._bodies = np.empty((2 * count, *self._bodies.shape[1:]), np.float32)
        if count:
            self._bodies[n : n + count] = bodies
        self.n = n + count
        self._times.append(t_ns)
        self._counts.append(count)
        return True

    def take(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (n_instants,), counts (n_instants,) and bodies (n, K, width), a view that the next `add` overwrites."""
        taken = np.array(self._times), np.array(self._counts), self._bodies[: self.n]
        del self._times[:], self._counts[:]
        self.n = 0
        return taken


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
