"""A run as an MCAP file, for engineers who look at robots: Foxglove shows it, and any reader of MCAP reads it.

Messages are JSON under Foxglove's well-known schemas, so that its panels draw them without a plugin: scenes in three
dimensions, detections over a camera's picture, plots of weights, and text. Receipts and shelf events
are there as well, as rows of receipts.jsonl and events.jsonl. Times are those of the data. Chunks are compressed and
written as they fill, so memory does not grow with the run. Needs the extra `mcap`. Schemas: https://docs.foxglove.dev/docs/sdk/schemas
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fusion
from fusion.errors import FusionError, extra
from fusion.files.private import open_private
from fusion.files.results import event_row, receipt_row
from fusion.observations import Frame, Observation, ShelfReading
from fusion.people.geometry import Rig
from fusion.results import People, Receipt, Result, RunEnd, ShelfEventExplained
from fusion.show.log_lines import LogLine, LogLines
from fusion.store.models import Camera, Plate, Store

if TYPE_CHECKING:
    from mcap.writer import Writer

# The frame of reference of everything in the store; each camera has one of its own.
WORLD = "store"
# A person is shown for this long after an instant, so that one who is gone disappears.
PERSON_SHOWN_S = 0.5
# Log levels of foxglove.Log.
_INFO, _WARNING = 2, 3
# Ways to draw of foxglove.LinePrimitive and foxglove.PointsAnnotation.
_STRIP, _LOOP, _LIST, _POINTS = 0, 1, 2, 1
_LINE_M, _POINT_PX, _TEXT_M = 0.02, 4.0, 0.16
_WHITE, _SOFT, _PERSON = (0.9, 0.92, 0.95, 1.0), (0.55, 0.6, 0.67, 0.9), (0.36, 0.62, 1.0, 1.0)


class McapView:
    """Collects what goes into an engine and what comes out, as `fusion.show.rerun_view.View` does, into an MCAP file.

    Topics: `/transforms` and `/cameras/NAME/calibration` for every camera, `/store` for the plan, all at the first
    instant; `/cameras/NAME/detections`, `/plates/NAME`, `/people`, `/log/SUBJECT`, `/receipts` and `/events`.

    Attributes:
        store: the store of the run.
    """

    def __init__(self, path: str | Path, store: Store) -> None:
        """Begin a file.

        Args:
            path: file to write, usually named *.mcap; its folder exists.
            store: the store of the run.

        Raises:
            FusionError: the package mcap is missing, or the file cannot be written.
        """
        with extra("mcap"):
            from mcap.writer import Writer
        self.store = store
        try:
            self._file: IO[bytes] = open_private(path, "wb")
        except OSError as error:
            raise FusionError(f"{path}: the file cannot be written: {error.strerror}") from None
        self._out: Writer = Writer(self._file)
        self._out.start(profile="", library=f"fusion {fusion.__version__}")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._lines = LogLines(store)
        self._limbs = store.layout.limbs
        self._head = int(np.argmax(store.layout.heights_m[:, 0]))
        self._begun = self._closed = False

    def __enter__(self) -> McapView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, observation: Observation) -> None:
        """Take in an observation, in any order."""
        self._begin(observation.t_ns)
        if isinstance(observation, ShelfReading):
            if observation.samples.size:
                grams = observation.samples.item(0) * self.store.weight_unit_g
                weight = {"timestamp": _time(observation.t_ns), "grams": grams if math.isfinite(grams) else None}
                self._write(f"/plates/{observation.plate}", "fusion.Weight", observation.t_ns, weight)
        elif isinstance(observation, Frame):
            detections = _annotations(observation)
            topic = f"/cameras/{observation.camera}/detections"
            self._write(topic, "foxglove.ImageAnnotations", observation.t_ns, detections)
        else:
            self._write_line(self._lines.of_observation(observation))

    def add(self, result: Result | RunEnd) -> None:
        """Take one result, in the order in which the engine answers; a sink of `fusion.run`."""
        if isinstance(result, RunEnd):
            return
        match result:
            case People():
                self._begin(result.t_ns)
                self._write("/people", "foxglove.SceneUpdate", result.t_ns, self._people(result))
            case Receipt():
                self._write("/receipts", "fusion.Receipt", result.issued_ns, receipt_row(result))
            case ShelfEventExplained():
                self._write("/events", "fusion.ShelfEvent", result.t_ns, event_row(result))
        self._write_line(self._lines.of(result))

    def close(self) -> None:
        """Complete the file."""
        if self._closed:
            return
        self._closed = True
        self._out.finish()  # type: ignore[no-untyped-call]
        self._file.close()

    def _write(self, topic: str, schema: str, t_ns: int, message: dict[str, Any]) -> None:
        channel = self._channels.get(topic)
        if channel is None:
            if schema not in self._schemas:
                text = json.dumps(SCHEMAS[schema]).encode()
                self._schemas[schema] = self._out.register_schema(schema, "jsonschema", text)
            channel = self._channels[topic] = self._out.register_channel(topic, "json", self._schemas[schema])
        data = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        # A warning from before the first data has no time yet.
        self._out.add_message(channel, max(t_ns, 0), data, max(t_ns, 0))

    def _write_line(self, line: LogLine | None) -> None:
        if line is not None:
            level = _WARNING if line.is_warning else _INFO
            row = {"timestamp": _time(line.t_ns), "level": level, "message": line.text, "name": line.log}
            self._write(f"/log/{line.log}", "foxglove.Log", line.t_ns, {**row, "file": "", "line": 0})

    def _begin(self, t_ns: int) -> None:
        """Write what does not change, at the first instant."""
        if self._begun:
            return
        self._begun = True
        rig = Rig.from_cameras(self.store.cameras)
        for view, name in enumerate(rig.names):
            camera_from_world = rig.camera_from_world[view, :, :3]
            transform = {
                "timestamp": _time(t_ns), "parent_frame_id": WORLD, "child_frame_id": name,
                "translation": _vector(rig.centres_m[view].tolist()), "rotation": _quaternion(camera_from_world.T),
            }  # fmt: skip
            self._write("/transforms", "foxglove.FrameTransform", t_ns, transform)
            matrix = rig.image_from_camera[view]
            width, height = (int(size) for size in rig.size_px[view])
            calibration = {
                "timestamp": _time(t_ns), "frame_id": name, "width": width, "height": height,
                **_distortion(self.store.cameras[view]),
                "K": matrix.ravel().tolist(), "R": np.eye(3).ravel().tolist(),
                "P": np.column_stack([matrix, np.zeros(3)]).ravel().tolist(),
            }  # fmt: skip
            self._write(f"/cameras/{name}/calibration", "foxglove.CameraCalibration", t_ns, calibration)
        self._write("/store", "foxglove.SceneUpdate", t_ns, self._plan(t_ns))

    def _plan(self, t_ns: int) -> dict[str, Any]:
        """Floor, gates, zones and plates, which stay."""
        store = self.store
        floor = [(x, y, 0.0) for x, y in store.floor]
        entities = [_entity(t_ns, "floor", lines=[_line(_LOOP, floor, _SOFT)])]
        for gate in store.gate:
            ends = [(x, y, 0.0) for x, y in gate.line]
            text = _text(gate.id, _middle(ends), _WHITE)
            entities.append(_entity(t_ns, f"gate {gate.id}", lines=[_line(_STRIP, ends, _WHITE)], texts=[text]))
        for zone in store.zone:
            corners = [(x, y, 0.01) for x, y in zone.polygon]
            text = _text(zone.id, _middle(corners), _SOFT)
            entities.append(_entity(t_ns, f"zone {zone.id}", lines=[_line(_LOOP, corners, _SOFT)], texts=[text]))
        entities += [_entity(t_ns, f"plate {plate.plate}", cubes=[_cube(plate)]) for plate in store.plates]
        return {"deletions": [], "entities": entities}

    def _people(self, people: People) -> dict[str, Any]:
        """Limbs of everybody whose joints are known, with their name above."""
        entities = []
        confirmed = np.flatnonzero(people.confirmed).tolist()
        for row in confirmed:
            joints_m = people.joints_m[row]
            limbs = joints_m[self._limbs]
            points = limbs[np.isfinite(limbs).all(axis=(1, 2))].reshape(-1, 3).round(3).tolist()
            track = int(people.track_id[row])
            x, y = people.position_m[row].tolist()
            head_m = float(joints_m[self._head, 2])
            place = (x, y, (head_m if math.isfinite(head_m) else 1.6) + 0.25)
            name = _text(f"{self._lines.names.get(track, '?')} #{track}", place, _WHITE)
            lines = [_line(_LIST, points, _PERSON)] if points else []
            texts = [name] if math.isfinite(x + y) else []
            entities.append(_entity(people.t_ns, f"track {track}", PERSON_SHOWN_S, lines=lines, texts=texts))
        return {"deletions": [], "entities": entities}


# ---- Foxglove's messages ---------------------------------------------------------------------------------------------


def _distortion(camera: Camera) -> dict[str, Any]:
    """A lens in Foxglove's names; a thin prism, for which it has none, is left out of the drawing."""
    brown = "plumb_bob" if len(camera.distortions) == 5 else "rational_polynomial"
    name = "kannala_brandt" if camera.fisheye else brown
    return {"distortion_model": name, "D": list(camera.distortions[:8])}


def _time(t_ns: int) -> dict[str, int]:
    return {"sec": t_ns // 10**9, "nsec": t_ns % 10**9}


def _vector(xyz: Sequence[float]) -> dict[str, float]:
    return dict(zip("xyz", xyz))


def _colour(rgba: Sequence[float]) -> dict[str, float]:
    return dict(zip("rgba", rgba))


def _pose(place_m: Sequence[float] = (0.0, 0.0, 0.0), yaw: float = 0.0) -> dict[str, Any]:
    turned = {"x": 0.0, "y": 0.0, "z": math.sin(yaw / 2), "w": math.cos(yaw / 2)}
    return {"position": _vector(place_m), "orientation": turned}


def _quaternion(rotation: NDArray[np.float64]) -> dict[str, float]:
    from scipy.spatial.transform import Rotation

    return dict(zip("xyzw", Rotation.from_matrix(rotation).as_quat().tolist()))


def _middle(points_m: Sequence[Sequence[float]]) -> list[float]:
    return [sum(axis) / len(points_m) for axis in zip(*points_m)]


def _entity(t_ns: int, name: str, shown_s: float = 0.0, **primitives: list[dict[str, Any]]) -> dict[str, Any]:
    """An entity of a scene; it stays where `shown_s` is 0."""
    lifetime = _time(round(shown_s * 1e9))
    every = {kind: primitives.get(kind, []) for kind in ("cubes", "lines", "texts")}
    fixed = {"timestamp": _time(t_ns), "frame_id": WORLD, "id": name, "lifetime": lifetime, "frame_locked": False}
    return {**fixed, "metadata": [], **every}


def _line(kind: int, points_m: Sequence[Sequence[float]], rgba: Sequence[float]) -> dict[str, Any]:
    points = [_vector(point) for point in points_m]
    fixed = {"type": kind, "pose": _pose(), "thickness": _LINE_M, "scale_invariant": False}
    return {**fixed, "points": points, "color": _colour(rgba), "colors": [], "indices": []}


def _text(text: str, place_m: Sequence[float], rgba: Sequence[float]) -> dict[str, Any]:
    fixed = {"pose": _pose(place_m), "billboard": True, "font_size": _TEXT_M, "scale_invariant": False}
    return {**fixed, "color": _colour(rgba), "text": text}


def _cube(plate: Plate) -> dict[str, Any]:
    size = _vector((plate.width, plate.depth, 0.02))
    return {"pose": _pose((plate.x, plate.y, plate.z - 0.01), plate.yaw), "size": size, "color": _colour(_SOFT)}


def _annotations(frame: Frame) -> dict[str, Any]:
    """The keypoints that a camera's detector found, over its picture: a set of points for each person."""
    people = []
    for keypoints in frame.keypoints:
        # What is not finite is no place, and JSON cannot express it.
        seen = (keypoints[:, 2] > 0) & np.isfinite(keypoints[:, :2]).all(axis=1)
        points = keypoints[seen, :2].round(1).tolist()
        fixed = {"timestamp": _time(frame.t_ns), "type": _POINTS, "thickness": _POINT_PX}
        colours = {"outline_color": _colour(_PERSON), "outline_colors": [], "fill_color": _colour(_PERSON)}
        people.append({**fixed, "points": [{"x": x, "y": y} for x, y in points], **colours})
    return {"circles": [], "points": people, "texts": []}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_NUMBER, _INTEGER, _TEXT_TYPE, _FLAG = {"type": "number"}, {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
_TIME_TYPE = _object(sec=_INTEGER, nsec=_INTEGER)
_VECTOR_TYPE = _object(x=_NUMBER, y=_NUMBER, z=_NUMBER)
_QUATERNION_TYPE = _object(x=_NUMBER, y=_NUMBER, z=_NUMBER, w=_NUMBER)
_COLOUR_TYPE = _object(r=_NUMBER, g=_NUMBER, b=_NUMBER, a=_NUMBER)
_POSE_TYPE = _object(position=_VECTOR_TYPE, orientation=_QUATERNION_TYPE)
_ENTITY_TYPE = _object(
    timestamp=_TIME_TYPE, frame_id=_TEXT_TYPE, id=_TEXT_TYPE, lifetime=_TIME_TYPE, frame_locked=_FLAG,
    metadata=_array(_object(key=_TEXT_TYPE, value=_TEXT_TYPE)),
    cubes=_array(_object(pose=_POSE_TYPE, size=_VECTOR_TYPE, color=_COLOUR_TYPE)),
    lines=_array(_object(
        type=_INTEGER, pose=_POSE_TYPE, thickness=_NUMBER, scale_invariant=_FLAG, points=_array(_VECTOR_TYPE),
        color=_COLOUR_TYPE, colors=_array(_COLOUR_TYPE), indices=_array(_INTEGER),
    )),
    texts=_array(_object(
        pose=_POSE_TYPE, billboard=_FLAG, font_size=_NUMBER, scale_invariant=_FLAG, color=_COLOUR_TYPE, text=_TEXT_TYPE
    )),
)  # fmt: skip
_POINTS_TYPE = _object(
    timestamp=_TIME_TYPE, type=_INTEGER, points=_array(_object(x=_NUMBER, y=_NUMBER)), outline_color=_COLOUR_TYPE,
    outline_colors=_array(_COLOUR_TYPE), fill_color=_COLOUR_TYPE, thickness=_NUMBER,
)  # fmt: skip
# The schemas of all messages: of Foxglove's, the fields that are written; of rows, fields that are always there.
SCHEMAS: dict[str, dict[str, Any]] = {
    "foxglove.FrameTransform": _object(
        timestamp=_TIME_TYPE, parent_frame_id=_TEXT_TYPE, child_frame_id=_TEXT_TYPE, translation=_VECTOR_TYPE,
        rotation=_QUATERNION_TYPE,
    ),
    "foxglove.CameraCalibration": _object(
        timestamp=_TIME_TYPE, frame_id=_TEXT_TYPE, width=_INTEGER, height=_INTEGER, distortion_model=_TEXT_TYPE,
        D=_array(_NUMBER), K=_array(_NUMBER), R=_array(_NUMBER), P=_array(_NUMBER),
    ),
    "foxglove.SceneUpdate": _object(
        deletions=_array(_object(timestamp=_TIME_TYPE, type=_INTEGER, id=_TEXT_TYPE)), entities=_array(_ENTITY_TYPE)
    ),
    "foxglove.ImageAnnotations": _object(
        circles=_array(_object()), points=_array(_POINTS_TYPE), texts=_array(_object())
    ),
    "foxglove.Log": _object(
        timestamp=_TIME_TYPE, level=_INTEGER, message=_TEXT_TYPE, name=_TEXT_TYPE, file=_TEXT_TYPE, line=_INTEGER
    ),
    "fusion.Weight": _object(timestamp=_TIME_TYPE, grams=_NUMBER),
    "fusion.Receipt": _object(visit=_TEXT_TYPE, status=_TEXT_TYPE, total=_INTEGER, lines=_array(_object())),
    "fusion.ShelfEvent": _object(time=_INTEGER, plate=_TEXT_TYPE, delta_g=_NUMBER, candidates=_array(_object())),
}  # fmt: skip
