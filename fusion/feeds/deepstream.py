"""Messages of NVIDIA DeepStream (versions 5 to 9) as frames: boxes, 2D poses and embeddings of people.

Four forms carry the same content and are brought into one (the JSON of nv.Frame) before they are read:
- minimal: {"version": "4.0", "id", "@timestamp", "sensorId", "objects": ["id|left|top|right|bottom|Person|#|...|0.9"]};
- nv.Frame as JSON, and as a protocol buffer;
- full: one object in each message, {"@timestamp", "sensor": {"id"}, "object": {...}}. The objects of a picture are
  gathered by their time. There is no message for a picture without people.

Source: NVIDIA DeepStream SDK, libs/nvmsgconv (eventmsg_payload.cpp, dsmeta_payload.cpp) and its schema.proto; the
documentation of Gst-nvmsgconv.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fusion.feeds.feed import Feed, Message
from fusion.feeds.people import Person, Pictures
from fusion.feeds.protobuf import Field, Schema, decoded
from fusion.feeds.values import believable_ns, instant_ns, json_of, number_of
from fusion.live.messages import MESSAGE_MAX_BYTES, Refused
from fusion.observations import Frame, Observation

# Objects of the full schema belong to one picture where their times differ by less; pictures are 16 ms apart or more.
SAME_PICTURE_NS = 8_000_000
# A picture of the full schema is complete when the next one begins, or after this silence.
COMPLETE_AFTER_NS = 250_000_000
# Objects of one picture.
OBJECTS_MAX = 512
# DeepStream's names of body parts in 2D poses, where they differ from everybody else's.
_PARTS = {
    "right-hand": "right-wrist", "left-hand": "left-wrist", "right-foot": "right-ankle", "left-foot": "left-ankle",
}  # fmt: skip
# Poses whose x and y are pixels; those of pose3D are millimetres.
_IN_PIXELS = ("pose2D", "pose25D")
_SECTIONS = (*_IN_PIXELS, "pose3D", "embedding", "SV3DT")
_ATTRIBUTES_AT = 6

# ---- nv.Frame as a protocol buffer: schema.proto of nvmsgconv --------------------------------------------------------

_EMBEDDING: Schema = {1: Field("vector", "float", repeated=True)}
_BBOX: Schema = {
    1: Field("leftX", "float"), 2: Field("topY", "float"), 3: Field("rightX", "float"), 4: Field("bottomY", "float"),
    5: Field("embeddings", _EMBEDDING, repeated=True),
}  # fmt: skip
_KEYPOINT: Schema = {1: Field("name", "string"), 2: Field("coordinates", "float", repeated=True)}
_POSE: Schema = {1: Field("type", "string"), 2: Field("keypoints", _KEYPOINT, repeated=True)}
_OBJECT: Schema = {
    1: Field("id", "string"), 2: Field("bbox", _BBOX), 3: Field("type", "string"), 4: Field("confidence", "float"),
    6: Field("embedding", _EMBEDDING), 7: Field("pose", _POSE),
}  # fmt: skip
_TIMESTAMP: Schema = {1: Field("seconds", "int"), 2: Field("nanos", "int")}
FRAME: Schema = {
    1: Field("version", "string"), 2: Field("id", "string"), 3: Field("timestamp", _TIMESTAMP),
    4: Field("sensorId", "string"), 5: Field("objects", _OBJECT, repeated=True),
}  # fmt: skip


@dataclass
class _Picture:
    """Objects of the full schema that belong together."""

    t_ns: int
    arrived_ns: int
    objects: list[dict[str, Any]] = field(default_factory=list)


class DeepStreamFeed(Feed):
    """The messages of one DeepStream application, for any number of cameras."""

    def __init__(
        self, name: str, pictures: Pictures, cameras: Mapping[str, str], *,
        form: Literal["json", "protobuf"], types: Sequence[str], size: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        """A feed.

        Args:
            name: for people.
            pictures: of the store.
            cameras: name in cameras.toml by sensor id.
            form: of the messages.
            types: labels of the detector that mean a person.
            size: width and height of the pictures that boxes are in (those of the stream muxer), pixels; None for those
                of each camera.
        """
        super().__init__(name)
        self._pictures, self._cameras, self._form, self._size = pictures, cameras, form, size
        self._types = {label.casefold() for label in types}
        self._gathered: dict[str, _Picture] = {}

    def observations(self, message: Message) -> Sequence[Observation]:
        """See `Feed`."""
        if len(message.payload) > MESSAGE_MAX_BYTES:
            raise Refused("too long", f"want at most {MESSAGE_MAX_BYTES} bytes, got {len(message.payload)}")
        if self._form == "protobuf":
            found = decoded(message.payload, FRAME)
        else:
            found = _json_object(message.payload)
        if "object" in found:
            return self._gather(found, message.arrived_ns)
        return [self._frame(str(found.get("sensorId", "")), _time_ns(found), _objects(found))]

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        due = [camera for camera, picture in self._gathered.items() if now_ns - picture.arrived_ns > COMPLETE_AFTER_NS]
        return [self._complete(sensor) for sensor in due]

    # ---- frames ------------------------------------------------------------------------------------------------------

    def _frame(self, sensor: str, t_ns: int, objects: Sequence[dict[str, Any]]) -> Frame:
        camera = self._camera(sensor)
        width, height = self._pictures.size[camera]
        scale = (width / self._size[0], height / self._size[1]) if self._size else (1.0, 1.0)
        passed_over: Counter[str] = Counter()
        people = []
        for entry in objects:
            try:
                people.append(self._person(camera, entry, scale))
            except Refused as refused:
                # One broken object does not make the camera blind.
                passed_over[refused.reason] += 1
        for reason, n in passed_over.items():
            self.health.count(f"objects {reason}", n)
        return self._pictures.frame(camera, t_ns, people)

    def _camera(self, sensor: str) -> str:
        camera = self._cameras.get(sensor)
        if camera is None:
            known = ", ".join(list(self._cameras)[:5])
            raise Refused("unknown sensor", f"want a sensor id of feeds.toml ({known}), got {sensor[:60]!r}")
        return camera

    def _person(self, camera: str, entry: dict[str, Any], scale: tuple[float, float]) -> Person:
        label = entry.get("type")
        if not isinstance(label, str) or label.casefold() not in self._types:
            raise Refused("not a person")
        # Some forms leave it out; no detector reports exactly 0, which a protocol buffer leaves out as well.
        confidence = number_of(entry.get("confidence", 1.0), "confidence")
        if confidence < 0.0:
            # The tracker has moved the box on without a detection; the engine predicts people itself.
            raise Refused("tracked without a detection")
        box = entry.get("bbox")
        if not isinstance(box, dict):
            raise Refused("malformed", "bbox: want an object")
        # A protocol buffer leaves out what is 0.
        x0, y0, x1, y1 = (number_of(box.get(name, 0.0), name) for name in ("leftX", "topY", "rightX", "bottomY"))
        joints = self._joints(entry.get("pose"), scale)
        if joints is None and not self._pictures.takes_boxes:
            raise Refused("without a pose in pixels")
        box_px = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
        return self._pictures.person(camera, box_px, confidence, joints, self._appearance(entry, box))

    def _joints(self, pose: object, scale: tuple[float, float]) -> dict[str, tuple[float, float, float]] | None:
        if not isinstance(pose, dict) or pose.get("type", "pose2D") not in _IN_PIXELS:
            return None
        joints = {}
        for keypoint in _list(pose.get("keypoints")):
            coordinates = _list(keypoint.get("coordinates")) if isinstance(keypoint, dict) else []
            if len(coordinates) != 4:
                raise Refused("malformed", "coordinates: want x, y, z and the confidence")
            x, y, _, score = (number_of(value, "coordinates") for value in coordinates)
            name = str(keypoint.get("name", ""))
            joints[_PARTS.get(name, name)] = (x * scale[0], y * scale[1], score)
        return joints or None

    def _appearance(self, entry: dict[str, Any], box: dict[str, Any]) -> list[float] | None:
        if not self._pictures.appearance_dim:
            return None
        embedding = entry.get("embedding") or next(iter(_list(box.get("embeddings"))), None)
        vector = _list(embedding.get("vector")) if isinstance(embedding, dict) else []
        if not vector:
            return None
        if len(vector) != self._pictures.appearance_dim:
            self.health.count("embeddings of another length than appearance_dim")
            return None
        return [number_of(value, "vector") for value in vector]

    # ---- the full schema ---------------------------------------------------------------------------------------------

    def _gather(self, message: dict[str, Any], arrived_ns: int) -> list[Observation]:
        sensor = message.get("sensor")
        name = str(sensor.get("id", "")) if isinstance(sensor, dict) else ""
        self._camera(name)
        t_ns, entry = _time_ns(message), _full_object(message["object"])
        complete: list[Observation] = []
        picture = self._gathered.get(name)
        if picture is not None and abs(t_ns - picture.t_ns) >= SAME_PICTURE_NS:
            complete.append(self._complete(name))
            picture = None
        if picture is None:
            picture = self._gathered[name] = _Picture(t_ns, arrived_ns)
        if len(picture.objects) >= OBJECTS_MAX:
            raise Refused("too many objects", f"want at most {OBJECTS_MAX} in a picture")
        picture.objects.append(entry)
        return complete

    def _complete(self, sensor: str) -> Frame:
        picture = self._gathered.pop(sensor)
        return self._frame(sensor, picture.t_ns, picture.objects)


# ---- the forms -------------------------------------------------------------------------------------------------------


def _json_object(payload: bytes) -> dict[str, Any]:
    found = json_of(payload)
    if not isinstance(found, dict):
        raise Refused("not DeepStream", "want a JSON object")
    return found


def _time_ns(found: Mapping[str, Any]) -> int:
    stamp = found.get("@timestamp", found.get("timestamp"))
    if isinstance(stamp, dict):
        seconds, nanos = stamp.get("seconds", 0), stamp.get("nanos", 0)
        if type(seconds) is not int or type(nanos) is not int:
            raise Refused("unreadable time", "want whole seconds and nanos")
        return believable_ns(seconds * 1_000_000_000 + nanos)
    return instant_ns(stamp)


def _objects(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a frame, in the form of nv.Frame."""
    entries = _list(found.get("objects"))
    if "objects" not in found and "sensorId" not in found:
        raise Refused("not DeepStream", "want sensorId and objects, or object")
    if len(entries) > OBJECTS_MAX:
        raise Refused("too many objects", f"want at most {OBJECTS_MAX} in a picture, got {len(entries)}")
    return [_minimal_object(entry) if isinstance(entry, str) else _dict(entry) for entry in entries]


def _minimal_object(text: str) -> dict[str, Any]:
    """`id|left|top|right|bottom|label`, then perhaps `|#|` and attributes, a pose, the confidence, an embedding."""
    tokens = text.split("|")
    if len(tokens) < _ATTRIBUTES_AT:
        return {}
    found: dict[str, Any] = {
        "id": tokens[0], "type": tokens[5],
        "bbox": dict(zip(("leftX", "topY", "rightX", "bottomY"), tokens[1:5])),
    }  # fmt: skip
    section, parts = "", list[str]()
    for token in [*tokens[_ATTRIBUTES_AT:], "#"]:
        if token == "#":
            _take_section(found, section, parts)
            section, parts = "", []
        elif not parts and not section and token in _SECTIONS:
            section = token
        else:
            parts.append(token)
    return found


def _take_section(found: dict[str, Any], section: str, parts: Sequence[str]) -> None:
    if section in _IN_PIXELS or section == "pose3D":
        keypoints = []
        for part in parts:
            name, *numbers = part.split(",")
            if len(numbers) in (3, 4):
                coordinates = [*numbers[:2], numbers[2] if len(numbers) == 4 else "0", numbers[-1]]
                keypoints.append({"name": name, "coordinates": coordinates})
        found["pose"] = {"type": section, "keypoints": keypoints}
    elif section == "embedding":
        found["embedding"] = {"vector": parts[0].split(",") if parts else []}
    elif section:
        return
    # The confidence ends the attributes, or the pose where there is one.
    last = parts[-1] if parts else ""
    if section != "embedding" and last and "," not in last:
        found["confidence"] = last


def _full_object(entry: object) -> dict[str, Any]:
    """An object of the full schema: its type is the key that holds its attributes."""
    full = _dict(entry)
    box = _dict(full.get("bbox"))
    known = ("id", "speed", "direction", "orientation", "bbox", "location", "coordinate", "pose", "embedding", "SV3DT")
    label = next((key for key, value in full.items() if key not in known and isinstance(value, dict)), "")
    corners = {"leftX": "topleftx", "topY": "toplefty", "rightX": "bottomrightx", "bottomY": "bottomrighty"}
    found: dict[str, Any] = {
        "id": full.get("id", ""), "type": label, "confidence": _dict(full.get(label)).get("confidence", 1.0),
        "bbox": {name: box.get(other, math.nan) for name, other in corners.items()},
        "embedding": {"vector": _dict(full.get("embedding")).get("embedding_vector")},
    }  # fmt: skip
    pose = {name: joint for name, joint in _dict(full.get("pose")).items() if isinstance(joint, dict)}
    # With z it is pose25D (pixels) or pose3D (millimetres), and the full schema does not say which.
    if pose and not any("z" in joint for joint in pose.values()):
        found["pose"] = {
            "type": "pose2D",
            "keypoints": [
                {"name": name, "coordinates": [joint.get("x"), joint.get("y"), 0.0, joint.get("confidence")]}
                for name, joint in pose.items()
            ],
        }
    return found


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
