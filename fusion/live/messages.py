"""Topics and payloads of the live streams: bytes to observations and back. No network; docs/mqtt.md describes them.

Frames and weights are binary, since there are hundreds a second. Gates and readers use JSON: the lines of a recording
with a version and a mark. Any bytes decode to observations or raise `Refused`.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fusion.errors import ShapeError
from fusion.files.lines import line_of, parse_gate_line, parse_item_line
from fusion.gates.keeper import TOKEN_MAX
from fusion.gates.verifiers import Asks, GateRequest
from fusion.observations import (
    EARLIEST_NS,
    LATEST_NS,
    DoorState,
    Frame,
    GateEvent,
    ItemSighting,
    Observation,
    ShelfReading,
    time_fault,
)
from fusion.store.card_numbers import looks_like_card_number, without_card_number
from fusion.store.models import Store

VERSION = 1
# Requests at gates that can be polled, and released doors. Requests of version 1, which ask once, are read as well.
REQUEST_VERSION = 2
# A hundred people in one view, each with 32 joints and an appearance of 512, take 240 kB.
MESSAGE_MAX_BYTES = 1 << 20
JSON_MAX_BYTES = 1 << 14
# Topics that are tracked separately; a shop has a few hundred.
NAMES_MAX = 4096
# Spans of missing messages that are remembered for each topic.
GAPS_MAX = 64
# A counter that jumps further was reset: this many messages are never lost.
JUMP_MAX = 1_000_000

# version, kind, people or plates, number, time, joints or samples, appearance or bytes of names, run
_HEAD = struct.Struct("<BBHIqHHI")
_FRAME, _WEIGHTS = 1, 2
_FLOATS = np.dtype("<f4")


def topic_of(store_id: str, *levels: str) -> str:
    """Topic fusion/v1/STORE/...; names are percent-encoded as in a URL: letters, digits and -._~ stay as they are."""
    return "/".join(["fusion", "v1", *(quote(level, safe="") for level in (store_id, *levels))])


@dataclass(frozen=True, slots=True)
class Mark:
    """Identifies a message: `run` changes whenever a publisher restarts, `number` counts a topic's messages since then.

    Both have 32 bits; the number after the last one is 0.
    """

    run: int
    number: int


def frame_payload(frame: Frame, mark: Mark) -> bytes:
    """Encode a frame. Raises ShapeError."""
    keypoints = np.ascontiguousarray(frame.keypoints, _FLOATS)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3 or len(keypoints) > 0xFFFF:
        raise ShapeError(f"keypoints: want (n_people, K, 3), got {keypoints.shape}")
    n_people, n_joints, _ = keypoints.shape
    vectors, dim = b"", 0
    if frame.appearance is not None:
        appearance = np.ascontiguousarray(frame.appearance, _FLOATS)
        if appearance.ndim != 2 or len(appearance) != n_people:
            raise ShapeError(f"appearance: want ({n_people}, D), got {appearance.shape}")
        vectors, dim = appearance.tobytes(), appearance.shape[1]
    head = _HEAD.pack(VERSION, _FRAME, n_people, mark.number, frame.t_ns, n_joints, dim, mark.run)
    return head + keypoints.tobytes() + vectors


def weights_payload(readings: Sequence[ShelfReading], mark: Mark) -> bytes:
    """Encode readings that were sampled together: same time, same number of samples. Raises ShapeError."""
    first = readings[0]
    samples = np.ascontiguousarray([reading.samples for reading in readings], _FLOATS)
    if samples.ndim != 2 or any(reading.t_ns != first.t_ns for reading in readings):
        raise ShapeError("readings: want the same time and number of samples of all plates in a message")
    names = [reading.plate.encode() for reading in readings]
    if any(len(name) > 255 for name in names):
        raise ShapeError("readings: want plates whose names have at most 255 bytes in UTF-8")
    block = b"".join(bytes([len(name)]) + name for name in names)
    if max(len(names), samples.shape[1], len(block)) > 0xFFFF:
        raise ShapeError("readings: want at most 65535 plates, samples and bytes of names in a message")
    head = _HEAD.pack(VERSION, _WEIGHTS, len(names), mark.number, first.t_ns, samples.shape[1], len(block), mark.run)
    return head + samples.tobytes() + block


def status_payload(state: str, engine: str | None = None, dropped: int = 0) -> bytes:
    """Encode a `Status` as JSON; the same status always gives the same bytes."""
    return json.dumps({"v": VERSION, "state": state, "engine": engine, "dropped": dropped}).encode()


def line_payload(observation: GateEvent | ItemSighting, mark: Mark) -> bytes:
    """Encode a line of gate.jsonl or items.jsonl as JSON with version and mark."""
    return _marked(line_of(observation), mark)


def request_payload(request: GateRequest, mark: Mark) -> bytes:
    """Encode a request at a gate as JSON."""
    line: dict[str, Any] = {"time": request.t_ns, "gate": request.gate, "kind": request.asks}
    if request.asks != "release":
        line["credential"] = {"type": request.credential_type, "token": request.token}
    return _marked(line, mark, REQUEST_VERSION)


def _marked(line: dict[str, Any], mark: Mark, version: int = VERSION) -> bytes:
    return json.dumps({"v": version, "run": mark.run, "seq": mark.number, **line}).encode()


class Refused(Exception):
    """A message that cannot be used.

    Attributes:
        reason: from a small set, fit for counting; the exception's text describes the message without card numbers.
    """

    def __init__(self, reason: str, description: str = "") -> None:
        self.reason = reason
        super().__init__(without_card_number(description or reason))


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Credential(_Model):
    type: str = Field(max_length=20)
    token: str = Field(default="", max_length=TOKEN_MAX + 1)  # The keeper has a reason of its own for longer ones.


class _Request(_Model):
    time: int = Field(ge=EARLIEST_NS, le=LATEST_NS)
    gate: str = Field(max_length=255)
    kind: Asks
    credential: _Credential = _Credential(type="open")


class _RequestOnce(_Model):
    """A request of version 1."""

    time: int = Field(ge=EARLIEST_NS, le=LATEST_NS)
    gate: str = Field(max_length=255)
    kind: Literal["request"]
    credential: _Credential
    leaving: bool = False


class Status(_Model):
    """State of a publisher or of the engine, retained on its topic.

    Attributes:
        v: version of the format.
        state: "resending" (connected, sends what it kept), "online" (has sent everything), "stopped", or "lost".
        engine: on a publisher's topic the session of the engine to which it has sent again, on the engine's topic its
            own. A publisher that leaves it out never sends again.
        dropped: messages that never left the publisher because its queue was full.
    """

    v: Literal[1]
    state: Literal["resending", "online", "lost", "stopped"]
    engine: str | None = Field(default=None, max_length=64)
    dropped: int = Field(default=0, ge=0)


class Command(_Model):
    """What a gate is to do: the answer to a request, on the topic gates/GATE/command.

    Attributes:
        v: version of the format.
        time, request: the request's time and number; a gate ignores answers to requests that it no longer waits for.
        gate: which gate.
        open: whether the gate opens; otherwise it stays closed.
        reason: fit for counting.
        display: text for the gate's screen.
        again_s: the answer is not there yet: after this many seconds the gate sends the same request again, under a new
            number, while the person waits. None: the answer is final. Left out of answers to requests of version 1.
    """

    v: Literal[1, 2]
    time: int
    gate: str
    request: int
    open: bool
    reason: str
    display: str
    again_s: float | None = None

    def payload(self) -> bytes:
        """The command as JSON."""
        return self.model_dump_json(exclude={"again_s"} if self.v == 1 else None).encode()


class Asked(NamedTuple):
    """A request at a gate as it was decoded, the number of its message, and the version of its format."""

    request: GateRequest
    number: int
    version: Literal[1, 2]


_REQUEST, _REQUEST_ONCE = TypeAdapter(_Request), TypeAdapter(_RequestOnce)
STATUS, COMMAND = TypeAdapter(Status), TypeAdapter(Command)


def faults_of(error: ValidationError) -> str:
    """Keys and wants of a message's faults, without its values, which may be credentials."""
    faults = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:3])


def _fields(payload: bytes, versions: Sequence[int] = (VERSION,)) -> tuple[dict[str, Any], Mark, int]:
    """Decode a JSON object: its fields without version and mark, the mark, and the version."""
    if len(payload) > JSON_MAX_BYTES:
        raise Refused("too long", f"want at most {JSON_MAX_BYTES} bytes, got {len(payload)}")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        raise Refused("not JSON", "want JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise Refused("not JSON", f"want a JSON object, got {type(fields).__name__}")
    version = fields.pop("v", None)
    if type(version) is not int or version not in versions:
        raise Refused("another version", f"want v {' or '.join(map(str, versions))}")
    run, number = fields.pop("run", None), fields.pop("seq", None)
    if not all(type(value) is int and 0 <= value <= 0xFFFFFFFF for value in (run, number)):
        raise Refused("malformed", "run, seq: want whole numbers of 32 bits")
    return fields, Mark(run, number), version


# What a message that cannot be decoded still shows: that a person wants to get out, and the number that the gate waits
# for. A door must not stay shut because of a missing comma.
_WANTS_OUT = re.compile(rb'"kind"\s*:\s*"(?:leave|release)"|"leaving"\s*:\s*true')
_WANTS_RELEASE = re.compile(rb'"kind"\s*:\s*"release"')
_NUMBER = re.compile(rb'"seq"\s*:\s*(\d{1,10})\b')
_TIME = re.compile(rb'"time"\s*:\s*(\d{1,19})\b')
_OLD = re.compile(rb'"v"\s*:\s*1\b')


class Glimpse(NamedTuple):
    """What can be seen of a request without decoding it; 0 for what is not there."""

    asks: Asks
    number: int
    t_ns: int
    version: Literal[1, 2]


def glimpse(payload: bytes) -> Glimpse:
    """What any bytes show of a request; never raises."""
    payload = payload[:JSON_MAX_BYTES]
    asks: Asks = "enter"
    if _WANTS_OUT.search(payload):
        asks = "release" if _WANTS_RELEASE.search(payload) else "leave"
    number, time = _NUMBER.search(payload), _TIME.search(payload)
    seen = int(number[1]) if number else 0
    version: Literal[1, 2] = 1 if _OLD.search(payload) else 2
    return Glimpse(asks, seen if seen <= 0xFFFFFFFF else 0, int(time[1]) if time else 0, version)


class _Head(NamedTuple):
    """Head of a binary message: rows, mark, time, and the two lengths."""

    n_rows: int
    mark: Mark
    t_ns: int
    length_a: int
    length_b: int


class Decoder:
    """Decodes the messages of one store. Knows nothing of connections; raises nothing but Refused."""

    def __init__(self, store: Store) -> None:
        self._cameras = {camera.name for camera in store.cameras}
        self._plates = {plate.plate for plate in store.plates}
        self._gates = {gate.id for gate in store.gate}
        self._n_joints, self._dim = store.layout.n_joints, store.appearance_dim
        self._numbers: dict[tuple[str, ...], _Numbers] = {}  # by topic
        self._missing: Counter[tuple[str, ...]] = Counter()  # in earlier runs
        self._unknown_plates: list[str] = []

    def take_unknown_plates(self) -> list[str]:
        """Plates that messages named since the last call and that the store does not have."""
        plates, self._unknown_plates = self._unknown_plates, []
        return plates

    def observations(self, levels: tuple[str, ...], payload: bytes) -> list[Observation]:
        """Decode a message.

        Args:
            levels: of the topic below the store's, such as ("detections", "cam1").
            payload: its bytes.

        Raises:
            Refused: it cannot be used, or has arrived before.
        """
        match levels:
            case ("detections", camera):
                observations, mark = self._frame(camera, payload)
            case ("weights", _):
                observations, mark = self._weights(payload)
            case ("gates", gate, "scan" | "door" as kind):
                observations, mark = self._gate_event(gate, kind, payload)
            case ("items", source):
                observations, mark = self._sighting(source, payload)
            case _:
                raise Refused("unknown topic")
        self._check_new(levels, mark)
        return observations

    def request(self, gate: str, payload: bytes) -> Asked:
        """Decode a request at a gate. Raises Refused."""
        fields, mark, version = _fields(payload, (VERSION, REQUEST_VERSION))
        # The keeper has an answer of its own for a token that looks like a card number.
        _refuse_card_numbers(fields, ("token",))
        text = json.dumps(fields)
        try:
            if version == 1:
                once = _REQUEST_ONCE.validate_json(text, strict=True)
                asks: Asks = "leave" if once.leaving else "enter"
                request = _Request(time=once.time, gate=once.gate, kind=asks, credential=once.credential)
            else:
                request = _REQUEST.validate_json(text, strict=True)
        except ValidationError as error:
            raise Refused("malformed", faults_of(error)) from None
        self._check_gate(gate, request.gate)
        self._check_new(("gates", gate, "request"), mark)
        credential = request.credential
        asked = GateRequest(request.time, gate, credential.type, credential.token, request.kind)
        return Asked(asked, mark.number, 1 if version == 1 else 2)

    def _head(self, payload: bytes, kind: int) -> _Head:
        if len(payload) > MESSAGE_MAX_BYTES:
            raise Refused("too long", f"want at most {MESSAGE_MAX_BYTES} bytes, got {len(payload)}")
        if payload[:1] not in (b"", bytes([VERSION])):
            raise Refused("another version", f"want version {VERSION}, got {payload[0]}")
        if len(payload) < _HEAD.size:
            raise Refused("malformed", f"want a head of {_HEAD.size} bytes, got {len(payload)}")
        _, got, n, number, t_ns, a, b, run = _HEAD.unpack_from(payload)
        if got != kind:
            raise Refused("malformed", f"want kind {kind} on this topic, got {got}")
        fault = time_fault(t_ns)
        if fault:
            raise Refused("impossible time", fault)
        return _Head(n, Mark(run, number), t_ns, a, b)

    def _frame(self, camera: str, payload: bytes) -> tuple[list[Observation], Mark]:
        n, mark, t_ns, n_joints, dim = self._head(payload, _FRAME)
        if camera not in self._cameras:
            raise Refused("unknown camera", f"camera {camera!r} is not in cameras.toml")
        if (n_joints, dim) != (self._n_joints, self._dim):
            wanted = f"{self._n_joints} joints and {self._dim} of appearance"
            raise Refused("another layout", f"want {wanted}, got {n_joints} and {dim}")
        size = n * 3 * n_joints
        floats = _floats(payload, n * dim + size, 0)
        keypoints = floats[:size].reshape(n, n_joints, 3)
        appearance = floats[size:].reshape(n, dim) if dim else None
        return [Frame(t_ns, camera, keypoints, appearance)], mark

    def _weights(self, payload: bytes) -> tuple[list[Observation], Mark]:
        n, mark, t_ns, n_samples, n_bytes = self._head(payload, _WEIGHTS)
        samples = _floats(payload, n * n_samples, n_bytes).reshape(n, n_samples)
        plates = _names(payload[len(payload) - n_bytes :])
        if len(plates) != n or not n:
            raise Refused("malformed", f"want at least one plate and as many names, got {n} and {len(plates)}")
        self._unknown_plates += [plate for plate in plates if plate not in self._plates]
        known = [(plate, row) for plate, row in zip(plates, samples) if plate in self._plates]
        return [ShelfReading(t_ns, plate, row) for plate, row in known], mark

    def _gate_event(self, gate: str, kind: str, payload: bytes) -> tuple[list[Observation], Mark]:
        fields, mark, _ = _fields(payload)
        _refuse_card_numbers(fields)
        try:
            event = parse_gate_line(json.dumps(fields))
        except ValidationError as error:
            raise Refused("malformed", faults_of(error)) from None
        # Each topic has its own writers: a door contact must not let people in.
        if isinstance(event, DoorState) != (kind == "door"):
            raise Refused("another kind than the topic's", f"want a line of kind {kind!r} as in the topic")
        self._check_gate(gate, event.gate)
        return [event], mark

    def _check_gate(self, gate: str, named: str) -> None:
        if named != gate:
            raise Refused("another gate than the topic's", f"want {gate!r} as in the topic, got {named!r}")
        if gate not in self._gates:
            raise Refused("unknown gate", f"gate {gate!r} is not in store.toml")

    def _sighting(self, source: str, payload: bytes) -> tuple[list[Observation], Mark]:
        fields, mark, _ = _fields(payload)
        _refuse_card_numbers(fields)
        try:
            sighting = parse_item_line(json.dumps(fields))
        except ValidationError as error:
            raise Refused("malformed", faults_of(error)) from None
        if sighting.source != source:
            raise Refused("another source than the topic's", f"want {source!r}, got {sighting.source!r}")
        return [sighting], mark

    def _check_new(self, levels: tuple[str, ...], mark: Mark) -> None:
        """Refuse a message that has arrived before."""
        numbers = self._numbers.get(levels)
        if numbers is None or numbers.run != mark.run:
            if len(self._numbers) >= NAMES_MAX and numbers is None:
                raise Refused("too many sources", f"want at most {NAMES_MAX} topics")
            self._missing[levels] += numbers.n_missing if numbers is not None else 0
            self._numbers[levels] = _Numbers(mark)
        elif not numbers.take(mark.number):
            raise Refused("sent again")

    def missing(self, levels: tuple[str, ...]) -> int:
        """How many messages of a topic were published, as their numbers show, and have not arrived."""
        numbers = self._numbers.get(levels)
        return self._missing[levels] + (numbers.n_missing if numbers is not None else 0)

    def topics(self) -> list[tuple[str, ...]]:
        """The topics from which messages have arrived."""
        return list(self._numbers)


class _Span(NamedTuple):
    """A half-open range of numbers that have not arrived; `counts` where they are missing.

    Messages published before the first one that arrived may still be sent again, but are not missing.
    """

    start: int
    end: int
    counts: bool


class _Numbers:
    """Which messages of one topic and run have arrived.

    Attributes:
        run: the publisher's run.
        n_missing: messages between others that arrived, and have not arrived themselves.
    """

    def __init__(self, first: Mark) -> None:
        self.run = first.run
        self.n_missing = 0
        self._newest = first.number
        self._spans = [_Span(0, first.number, False)] if first.number else []

    def take(self, number: int) -> bool:
        """Note the arrival of a message. Returns whether it is new."""
        ahead = (number - self._newest + 0x80000000) % 0x100000000 - 0x80000000
        number = self._newest + ahead  # Unwrapped beyond 32 bits.
        if ahead > 0:
            if ahead > 1:
                counts = ahead <= JUMP_MAX
                self.n_missing += ahead - 1 if counts else 0
                self._spans = [*self._spans[-GAPS_MAX + 1 :], _Span(self._newest + 1, number, counts)]
            self._newest = number
            return True
        for i, (start, end, counts) in enumerate(self._spans):
            if start <= number < end:
                parts = _Span(start, number, counts), _Span(number + 1, end, counts)
                self._spans[i : i + 1] = [part for part in parts if part.start < part.end]
                self.n_missing -= counts
                return True
        return False


def _refuse_card_numbers(fields: dict[str, Any], but: Sequence[str] = ("gtin", "code")) -> None:
    """Refuse a message that holds a card number in any text, under any key; GTINs and codes are checked as such.

    Nested lists stand nowhere in these messages and are refused later.
    """
    texts = list(fields.items())
    while texts:
        key, value = texts.pop()
        if key in but:
            continue
        if looks_like_card_number(key) or (isinstance(value, str) and looks_like_card_number(value)):
            raise Refused("looks like a card number", "want no card number, got a text that looks like one")
        if isinstance(value, dict):
            texts += value.items()


def _floats(payload: bytes, n_floats: int, n_behind: int) -> NDArray[np.float32]:
    """The floats between the head and the `n_behind` bytes at the end; refuses another length than that."""
    wanted = _HEAD.size + 4 * n_floats + n_behind
    if len(payload) != wanted:
        raise Refused("malformed", f"want {wanted} bytes, got {len(payload)}")
    floats = np.frombuffer(payload, _FLOATS, n_floats, _HEAD.size).astype(np.float32, copy=False)
    return floats if floats.flags.aligned else floats.copy()


def _names(block: bytes) -> list[str]:
    """Names from a block of one byte of length and as many bytes of UTF-8 each."""
    names, start = [], 0
    while start < len(block):
        length = block[start]
        name = block[start + 1 : start + 1 + length]
        if len(name) < length:
            raise Refused("malformed", "a plate's name extends beyond the end")
        try:
            names.append(name.decode())
        except UnicodeDecodeError:
            raise Refused("malformed", "want plates' names in UTF-8") from None
        start += 1 + length
    return names
