"""Scene descriptions of ONVIF cameras (Profile M): people as boxes, in XML over RTSP or JSON over MQTT, as frames.

Both forms hold one model: the JSON names an element's attributes with a leading @ and its text #text, so XML is brought
into that form and read by the same code. Source: ONVIF Analytics Service Specification 25.12, section 5 (scene
description) and its subsections on MQTT; metadatastream.xsd and common.xsd.

- The normalized coordinate system has its origin in the middle of the picture, x to the right and y upwards, -1 to 1 at
  the edges. A Transformation of the frame or of an appearance says how its numbers become normalized ones:
  p_normalized = scale * p + translate, nested from the outside in.
- A person is an object whose most likely class is Human. A class that was given once holds for the ObjectId until the
  object tree renames or deletes it; an object that never had a class is counted, and is no person.
- An object that is marked Idle is not listed again until it changes, and stays where it was.
- After an empty frame a camera may send nothing until there is something again; empty frames are reported for it for
  as long as the connection stands.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.parsers import expat

from fusion.feeds.feed import Feed, Message
from fusion.feeds.people import Person, Pictures
from fusion.feeds.values import instant_ns, json_of, number_of
from fusion.live.messages import Refused
from fusion.observations import Frame, Observation

DOCUMENT_MAX_BYTES = 1 << 20
# Elements within each other; a scene description has about ten.
DEPTH_MAX = 64
# Elements of a document; a crowded scene has some thousand.
ELEMENTS_MAX = 50_000
# Objects whose class is remembered; a camera follows a few dozen.
OBJECTS_MAX = 1024
# An idle object is listed no longer than this. No person stands still for as long in front of a shelf; a chair does.
IDLE_MAX_NS = 300_000_000_000
# Where a camera is silent since the scene is empty: how often, and after which silence.
EMPTY_EVERY_NS = 500_000_000
# Frames of a document; a camera that was away may send some seconds at once.
FRAMES_MAX = 256
# Where a frame's own time and that of its packets differ by more, one of the camera's clocks is wrong.
CLOCKS_APART_NS = 1_000_000_000
# How a compressed document begins (RFC 1952, section 2.3.1); no XML does.
_GZIP = b"\x1f\x8b"

Node = dict[str, Any]


# ---- the two forms ---------------------------------------------------------------------------------------------------


def node_of_xml(document: bytes) -> Node:
    """An XML document's root in the form of ONVIF's JSON: local names, @ before attributes, lists of children.

    Raises:
        Refused: not well-formed, too long, too deep, or with a document type: entities could make gigabytes of it.
    """
    if len(document) > DOCUMENT_MAX_BYTES:
        raise Refused("too long", f"want at most {DOCUMENT_MAX_BYTES} bytes, got {len(document)}")
    root: Node = {}
    stack, n_elements = [root], 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal n_elements
        n_elements += 1
        if len(stack) > DEPTH_MAX or n_elements > ELEMENTS_MAX:
            raise Refused("malformed", f"want at most {ELEMENTS_MAX} elements, at most {DEPTH_MAX} deep")
        node: Node = {f"@{_local(key)}": value for key, value in attributes.items()}
        stack[-1].setdefault(_local(name), []).append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def text(characters: str) -> None:
        if stack[-1] is not root and (stripped := characters.strip()):
            stack[-1]["#text"] = stack[-1].get("#text", "") + stripped

    def doctype(*_: object) -> None:
        raise Refused("document type", "want XML without a document type declaration")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Refused("not XML", f"want a MetadataStream document, got: {error}") from None
    return root


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def frames_of_xml(document: bytes) -> list[Node]:
    """The frames of a MetadataStream document; none where it holds only events or PTZ. Raises Refused."""
    streams = _children(node_of_xml(document), "MetadataStream")
    if not streams:
        raise Refused("not ONVIF", "want a MetadataStream document")
    return [frame for part in _children(streams[0], "VideoAnalytics") for frame in _children(part, "Frame")]


def frames_of_json(document: bytes) -> list[Node]:
    """The frames of a message of the payload type onvif-mj. Raises Refused."""
    if len(document) > DOCUMENT_MAX_BYTES:
        raise Refused("too long", f"want at most {DOCUMENT_MAX_BYTES} bytes, got {len(document)}")
    root = json_of(document)
    if not isinstance(root, dict) or "Frame" not in root:
        raise Refused("not ONVIF", 'want a JSON object with "Frame"')
    return _children(root, "Frame")


def _children(node: Node, name: str) -> list[Node]:
    """Children of one name: JSON writes one of them without a list, an empty one as null, one of text as that text."""
    found = node.get(name)
    children = found if isinstance(found, list) else [] if name not in node else [found]
    return [child if isinstance(child, dict) else {} if child is None else {"#text": child} for child in children]


def _number(node: Node, name: str) -> float:
    return number_of(node.get(f"@{name}"), name)


# ---- the model -------------------------------------------------------------------------------------------------------


class _Coordinates(NamedTuple):
    """p_normalized = scale * p + translate, for x and y."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    translate_x: float = 0.0
    translate_y: float = 0.0

    def inside(self, node: Node) -> _Coordinates:
        """The coordinate system within a frame or an appearance, which may hold a transformation."""
        for transformation in _children(node, "Transformation")[:1]:
            scale = _children(transformation, "Scale")[:1]
            translate = _children(transformation, "Translate")[:1]
            sx, sy = (_number(scale[0], "x"), _number(scale[0], "y")) if scale else (1.0, 1.0)
            tx, ty = (_number(translate[0], "x"), _number(translate[0], "y")) if translate else (0.0, 0.0)
            return _Coordinates(
                self.scale_x * sx, self.scale_y * sy,
                self.scale_x * tx + self.translate_x, self.scale_y * ty + self.translate_y,
            )  # fmt: skip
        return self

    def box_px(self, box: Node, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """A rectangle as x0, y0, x1, y1; pixel centres are whole numbers, so the picture's edge is at -0.5."""
        width, height = size
        left, right = (self.scale_x * _number(box, name) + self.translate_x for name in ("left", "right"))
        top, bottom = (self.scale_y * _number(box, name) + self.translate_y for name in ("top", "bottom"))
        return (
            0.5 * (left + 1.0) * width - 0.5, 0.5 * (1.0 - top) * height - 0.5,
            0.5 * (right + 1.0) * width - 0.5, 0.5 * (1.0 - bottom) * height - 0.5,
        )  # fmt: skip


class _Class(NamedTuple):
    """The most likely class of an object."""

    name: str
    likelihood: float


def _class_of(appearance: Node) -> _Class | None:
    """The most likely class that an appearance states; None where it states none."""
    stated: list[_Class] = []
    for descriptor in _children(appearance, "Class"):
        # The present form, the form of the specification's own JSON example, and the deprecated ones.
        typed = [*_children(descriptor, "Type"), *([descriptor] if "#text" in descriptor else [])]
        stated += [_Class(str(node.get("#text", "")), _likelihood(node.get("@Likelihood", 1.0))) for node in typed]
        candidates = _children(descriptor, "ClassCandidate")
        for extension in _children(descriptor, "Extension"):
            candidates += _children(extension, "OtherTypes")
        for node in candidates:
            names, likelihoods = _children(node, "Type"), _children(node, "Likelihood")
            if names:
                likelihood = likelihoods[0].get("#text") if likelihoods else 1.0
                stated.append(_Class(str(names[0].get("#text", "")), _likelihood(likelihood)))
    return max(stated, key=lambda found: found.likelihood, default=None)


def _likelihood(value: object) -> float:
    """A likelihood; a missing one means 100 %."""
    number = number_of(value, "Likelihood")
    if not 0.0 <= number <= 1.0:
        raise Refused("malformed", f"Likelihood: want a number from 0 to 1, got {number}")
    return number


def _ids(node: Node, *names: str) -> Iterator[str]:
    for name in names:
        for child in _children(node, name):
            yield str(child.get("@ObjectId", ""))


class SceneReader:
    """Follows the scene description of one camera.

    Attributes:
        passed_over: objects that are no people, by reason, since the last call that took them.
    """

    def __init__(self, camera: str, pictures: Pictures, module: str | None, likelihood_min: float) -> None:
        """A reader.

        Args:
            camera: name in cameras.toml.
            pictures: of the store.
            module: name of the analytics module whose frames count (attribute Source); None for the first heard.
            likelihood_min: of the class Human.
        """
        self.passed_over: list[str] = []
        self._camera, self._pictures, self._size = camera, pictures, pictures.size[camera]
        self._module, self._likelihood_min = module, likelihood_min
        self._classes: OrderedDict[str, _Class] = OrderedDict()
        self._idle: OrderedDict[str, tuple[int, Person]] = OrderedDict()

    def frame(self, node: Node) -> Frame | None:
        """The people of a frame; None where another analytics module made it. Raises Refused."""
        module = node.get("@Source")
        if module is not None:
            self._module = self._module or str(module)
            if str(module) != self._module:
                self.passed_over.append("another analytics module")
                return None
        t_ns = instant_ns(node.get("@UtcTime"))
        coordinates = _Coordinates().inside(node)
        objects = _children(node, "Object")
        listed = {str(child.get("@ObjectId", "")) for child in objects}
        for identity, (since_ns, _) in list(self._idle.items()):
            if identity in listed or not 0 <= t_ns - since_ns <= IDLE_MAX_NS:
                del self._idle[identity]
        people = []
        for child in objects:
            try:
                person = self._person(child, coordinates, t_ns)
            except Refused as refused:
                # One broken object does not make the camera blind.
                self.passed_over.append(refused.reason)
                continue
            if person is not None:
                people.append(person)
        people += [person for identity, (_, person) in self._idle.items() if identity not in listed]
        for tree in _children(node, "ObjectTree"):
            self._follow(tree)
        return self._pictures.frame(self._camera, t_ns, people)

    def _person(self, node: Node, coordinates: _Coordinates, t_ns: int) -> Person | None:
        identity = str(node.get("@ObjectId", ""))
        behaviours = _children(node, "Behaviour")
        if any("Removed" in behaviour for behaviour in behaviours):
            self.passed_over.append("a place from which something was removed")
            return None
        for appearance in _children(node, "Appearance")[:1]:
            known = self._class(identity, appearance)
            if known is None or known.name.casefold() != "human":
                self.passed_over.append("without a class" if known is None else "not a person")
                return None
            if known.likelihood < self._likelihood_min:
                self.passed_over.append("likelihood below likelihood_min")
                return None
            inner = coordinates.inside(appearance)
            for shape in _children(appearance, "Shape")[:1]:
                boxes = _children(shape, "BoundingBox")
                if boxes:
                    box_px = inner.box_px(boxes[0], self._size)
                    person = self._pictures.person(self._camera, box_px, known.likelihood)
                    if identity and any("Idle" in behaviour for behaviour in behaviours):
                        _remember(self._idle, identity, (t_ns, person))
                    return person
        self.passed_over.append("inferred, not seen")
        return None

    def _class(self, identity: str, appearance: Node) -> _Class | None:
        stated = _class_of(appearance)
        if stated is None:
            return self._classes.get(identity)
        if identity:
            _remember(self._classes, identity, stated)
        return stated

    def _follow(self, tree: Node) -> None:
        """Objects change their names, or are gone for good."""
        for rename in _children(tree, "Rename"):
            # The schema writes these two small, the specification's examples large.
            for old, new in zip(_ids(rename, "from", "From"), _ids(rename, "to", "To")):
                for known in (self._classes, self._idle):
                    if old in known:
                        _remember(known, new, known.pop(old))
        for gone in _ids(tree, "Delete"):
            self._classes.pop(gone, None)
            self._idle.pop(gone, None)


def _remember(known: OrderedDict[str, Any], identity: str, value: object) -> None:
    known[identity] = value
    known.move_to_end(identity)
    while len(known) > OBJECTS_MAX:
        known.popitem(last=False)


# ---- the feed --------------------------------------------------------------------------------------------------------


class OnvifFeed(Feed):
    """A camera's scene description, in XML or JSON."""

    def __init__(self, name: str, reader: SceneReader, *, as_json: bool) -> None:
        super().__init__(name)
        self._reader, self._as_json = reader, as_json
        # The last frame and when it came, while frames are empty.
        self._empty: tuple[Frame, int] | None = None

    def observations(self, message: Message) -> Sequence[Observation]:
        """See `Feed`."""
        document = message.payload
        if not self._as_json and document.startswith(_GZIP):
            document = unpacked(document)
        nodes = frames_of_json(document) if self._as_json else frames_of_xml(document)
        if len(nodes) > FRAMES_MAX:
            raise Refused("too many frames", f"want at most {FRAMES_MAX} in a document, got {len(nodes)}")
        found = []
        for node in nodes:
            try:
                frame = self._reader.frame(node)
            except Refused as refused:
                self.health.refuse(refused)
                frame = None
            if frame is not None:
                found.append(frame)
        for reason in self._reader.passed_over:
            self.health.count(f"objects {reason}")
        self._reader.passed_over.clear()
        if message.sent_ns is not None and found and abs(found[-1].t_ns - message.sent_ns) > CLOCKS_APART_NS:
            self.health.count("clocks of the camera disagree (frames are used)")
        if found:
            self._empty = None if len(found[-1].keypoints) else (found[-1], message.arrived_ns)
        return found

    def began(self, arrived_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        self._empty = None
        return ()

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        # Over MQTT it is the broker's connection that stands, which says nothing about the camera.
        if self._empty is None or self._as_json or self.health.state != "online":
            return ()
        frame, arrived_ns = self._empty
        if now_ns - arrived_ns < EMPTY_EVERY_NS:
            return ()
        still = Frame(frame.t_ns + now_ns - arrived_ns, frame.camera, frame.keypoints, frame.appearance)
        self._empty = still, now_ns
        return (still,)


def unpacked(document: bytes) -> bytes:
    """A document that a camera has sent compressed (encoding vnd.onvif.metadata.gzip). Raises Refused."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(document, DOCUMENT_MAX_BYTES + 1)
    except zlib.error as error:
        raise Refused("not gzip", str(error)) from None
    if len(text) > DOCUMENT_MAX_BYTES:
        raise Refused("too long", f"want at most {DOCUMENT_MAX_BYTES} bytes")
    return text
