"""RFID readers that speak LLRP: what tags they read, as sightings of goods in carts.

The client asks a reader for nothing but an endless inventory with a report for each tag, and keeps the connection.
Source: EPCglobal Low Level Reader Protocol 1.0.1: sections 9 to 14 (messages and parameters), 16 (binary encoding).
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fusion.feeds.feed import Feed, Inbox, Line, LineLost, Message
from fusion.feeds.sgtin import gtin14_of
from fusion.feeds.values import believable_ns
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Timing
from fusion.live.messages import Refused
from fusion.observations import ItemSighting, Observation
from fusion.store.gtin import OwnGtins
from fusion.store.models import Store

PORT = 5084
CONNECT_MAX_S, ANSWER_MAX_S = 5.0, 10.0
# The reader reports that it is alive this often; one that misses three has gone.
KEEPALIVE_S, SILENT_MAX_S = 10.0, 31.0
MESSAGE_MAX_BYTES = 1 << 20
# Tags that are remembered, so that each counts once: what a whole shop holds.
TAGS_MAX = 65_536
# Reads of a tag are gathered for this long, and the strongest gives the time: the tag was nearest then. An engine waits
# for two seconds.
GATHER_NS = 1_000_000_000

# ---- messages --------------------------------------------------------------------------------------------------------

_HEAD = struct.Struct(">HII")
_VERSION_1 = 1 << 10
SET_READER_CONFIG, ADD_ROSPEC, DELETE_ROSPEC, ENABLE_ROSPEC, CLOSE_CONNECTION = 3, 20, 21, 24, 14
RO_ACCESS_REPORT, KEEPALIVE, KEEPALIVE_ACK, READER_EVENT_NOTIFICATION, ERROR_MESSAGE = 61, 62, 72, 63, 100
_ANSWERS = {SET_READER_CONFIG: 13, ADD_ROSPEC: 30, DELETE_ROSPEC: 31, ENABLE_ROSPEC: 34}
_TAG_REPORT_DATA, _EPC_DATA, _EVENT_DATA, _CONNECTION_ATTEMPT, _LLRP_STATUS = 240, 241, 246, 256, 287
_EPC_96, _ANTENNA, _FIRST_SEEN, _LAST_SEEN, _RSSI = 13, 1, 2, 4, 6
# Bytes of the values of parameters without a length of their own (TV encoding), by type.
_TV_BYTES = {1: 2, 2: 8, 3: 8, 4: 8, 5: 8, 6: 1, 7: 2, 8: 2, 9: 4, 10: 2, 11: 2, 12: 2, 13: 12, 14: 2, 15: 2, 16: 4}
# Report antenna, strength, and first and last time of a tag.
_REPORTED = 0x1000 | 0x0400 | 0x0200 | 0x0100
ROSPEC_ID = 1


def message(kind: int, number: int, body: bytes = b"") -> bytes:
    """A message of version 1."""
    return _HEAD.pack(_VERSION_1 | kind, _HEAD.size + len(body), number) + body


def parameter(kind: int, body: bytes) -> bytes:
    """A parameter with a length (TLV encoding)."""
    return struct.pack(">HH", kind, 4 + len(body)) + body


def rospec(antennas: Sequence[int]) -> bytes:
    """The parameter ROSpec: start at once, never stop, report each tag of these antennas."""
    boundary = parameter(178, parameter(179, b"\x01") + parameter(182, struct.pack(">BI", 0, 0)))
    inventory = parameter(184, struct.pack(">BI", 0, 0)) + parameter(186, struct.pack(">HB", 1, 1))
    listed = struct.pack(f">H{len(antennas)}H", len(antennas), *antennas)
    report = parameter(237, struct.pack(">BH", 1, 1) + parameter(238, struct.pack(">H", _REPORTED)))
    return parameter(177, struct.pack(">IBB", ROSPEC_ID, 0, 0) + boundary + parameter(183, listed + inventory) + report)


def keepalive_config() -> bytes:
    """The body of SET_READER_CONFIG that asks for messages of the kind KEEPALIVE; nothing else is changed."""
    return b"\x00" + parameter(220, struct.pack(">BI", 1, round(KEEPALIVE_S * 1000)))


def _parameters(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each parameter. Raises Refused."""
    at = 0
    while at < len(body):
        kind = body[at]
        if kind & 0x80:
            kind &= 0x7F
            length = _TV_BYTES.get(kind)
            if length is None:
                raise Refused("malformed report", f"parameter of unknown type {kind}")
            start = at + 1
        else:
            if at + 4 > len(body):
                raise Refused("malformed report", "a parameter that is cut off")
            kind, whole = struct.unpack_from(">HH", body, at)
            start, length = at + 4, whole - 4
        if length < 0 or start + length > len(body):
            raise Refused("malformed report", "a parameter that is cut off")
        yield kind & 0x3FF, body[start : start + length]
        at = start + length


class Tag(NamedTuple):
    """A tag in a report.

    Attributes:
        epc: its number.
        antenna: which read it, from 1 on; 0 where the reader does not say.
        rssi_dbm: strength of the strongest read; None where the reader does not say.
        seen_us: last time of a read, or else the first, UTC microseconds of the reader's clock; None without either.
    """

    epc: bytes
    antenna: int
    rssi_dbm: int | None
    seen_us: int | None


def tags_of(body: bytes) -> list[Tag]:
    """The tags of an RO_ACCESS_REPORT. Raises Refused."""
    return [_tag(value) for kind, value in _parameters(body) if kind == _TAG_REPORT_DATA]


def _tag(body: bytes) -> Tag:
    epc, antenna, rssi, seen = b"", 0, None, None
    for kind, value in _parameters(body):
        if kind == _EPC_96:
            epc = value
        elif kind == _EPC_DATA and len(value) >= 2:
            n_bits = int.from_bytes(value[:2], "big")
            epc = value[2 : 2 + (n_bits + 7) // 8]
        elif kind == _ANTENNA:
            antenna = int.from_bytes(value, "big")
        elif kind == _RSSI:
            rssi = int.from_bytes(value, "big", signed=True)
        elif kind == _LAST_SEEN or (kind == _FIRST_SEEN and seen is None):
            seen = int.from_bytes(value, "big")
    if not epc:
        raise Refused("malformed report", "a tag without an EPC")
    return Tag(epc, antenna, rssi, seen)


# ---- the feed --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Read:
    """A tag that is or was in the field.

    Attributes:
        since_ns, last_ns: when the first and the last read arrived.
        sighting: of the strongest read so far; None once it was handed on.
    """

    since_ns: int
    last_ns: int
    rssi_dbm: int
    sighting: ItemSighting | None


class ReaderFeed(Feed):
    """The tags of one reader: each is sighted once, until it has been out of the field for a while."""

    def __init__(
        self, name: str, store: Store, zones: Mapping[int, str], *,
        probability: float, again_s: float, clock: Literal["reader", "arrival"],
    ) -> None:  # fmt: skip
        """A feed.

        Args:
            name: of the source in sightings.
            store: whose products count.
            zones: a zone's or a gate's id by antenna.
            probability: that a read is right.
            again_s: a tag that was out of the field for as long counts again.
            clock: whose time reads have: the reader's, or that of their arrival.
        """
        super().__init__(name)
        self._zones, self._probability = zones, probability
        self._again_ns, self._clock = round(again_s * 1e9), clock
        self._gtins = OwnGtins(product.gtin for product in store.products)
        self._reads: OrderedDict[tuple[str, bytes], _Read] = OrderedDict()
        self._gathered: set[tuple[str, bytes]] = set()

    def observations(self, message: Message) -> Sequence[Observation]:
        """See `Feed`."""
        for tag in tags_of(message.payload):
            try:
                self._read(tag, message.arrived_ns)
            except Refused as refused:
                self.health.refuse(refused)
        return self.quiet(message.arrived_ns)

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        found: list[Observation] = []
        for key in [key for key in self._gathered if now_ns - self._reads[key].since_ns >= GATHER_NS]:
            self._gathered.discard(key)
            read = self._reads[key]
            if read.sighting is not None:
                found.append(read.sighting)
                read.sighting = None
        return found

    def _read(self, tag: Tag, arrived_ns: int) -> None:
        zone = self._zones.get(tag.antenna)
        if zone is None:
            raise Refused("unknown antenna", f"want one of {list(self._zones)[:8]}, got {tag.antenna}")
        key = (zone, tag.epc)
        known = self._reads.get(key)
        rssi = -128 if tag.rssi_dbm is None else tag.rssi_dbm
        if known is not None and arrived_ns - known.last_ns < self._again_ns:
            known.last_ns = arrived_ns
            self._reads.move_to_end(key)
            if known.sighting is not None and rssi > known.rssi_dbm:
                known.rssi_dbm, known.sighting = rssi, self._sighting(tag, zone, arrived_ns)
            return
        self._reads[key] = _Read(arrived_ns, arrived_ns, rssi, self._sighting(tag, zone, arrived_ns))
        self._reads.move_to_end(key)
        self._gathered.add(key)
        while len(self._reads) > TAGS_MAX:
            self._gathered.discard(self._reads.popitem(last=False)[0])

    def _sighting(self, tag: Tag, zone: str, arrived_ns: int) -> ItemSighting:
        number = gtin14_of(tag.epc)
        gtin = self._gtins.of(number)
        if gtin is None:
            raise Refused("not a product of the store", f"GTIN {number}")
        t_ns = arrived_ns
        if self._clock == "reader":
            if tag.seen_us is None:
                raise Refused("unreadable time", 'the reader gives no UTC time; write clock = "arrival"')
            t_ns = believable_ns(tag.seen_us * 1000)
        return ItemSighting(t_ns, self.health.name, "read", gtin, 1, self._probability, zone=zone)


# ---- the connection --------------------------------------------------------------------------------------------------


class ReaderLine(Line):
    """A connection to a reader, opened again after each loss."""

    def __init__(
        self, feed: Feed, host: str, port: int, antennas: Sequence[int], inbox: Inbox, clock: Clock,
        timing: Timing = TIMING,
    ) -> None:  # fmt: skip
        super().__init__([feed], inbox, clock, timing)
        self._feed, self._host, self._port, self._antennas = feed, host, port, antennas

    def _serve(self) -> None:
        try:
            opened = socket.create_connection((self._host, self._port), CONNECT_MAX_S)
        except OSError as error:
            raise LineLost(f"{self._host}: {error.strerror or error}") from None
        with opened:
            session = _Session(opened)
            session.start(self._antennas)
            self._inbox.begin(self._feed)
            heard_s = self._clock.monotonic_s()
            while not self._closing.is_set():
                found = session.next(0.5)
                if found is None:
                    if self._clock.monotonic_s() - heard_s > SILENT_MAX_S:
                        raise LineLost(f"silent for {SILENT_MAX_S:g} s")
                    continue
                heard_s = self._clock.monotonic_s()
                kind, body = found
                if kind == RO_ACCESS_REPORT:
                    self._inbox.put(self._feed, body)
                elif kind == ERROR_MESSAGE:
                    raise LineLost(f"the reader reports {_status(body)}")
            session.send(CLOSE_CONNECTION)


class _Session:
    """Messages over one connection."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket, self._buffer, self._number = opened, bytearray(), 0

    def start(self, antennas: Sequence[int]) -> None:
        """Wait for the reader's greeting, and start the inventory. Raises LineLost or OSError."""
        kind, body = self._wait(READER_EVENT_NOTIFICATION)
        attempt = _connection_attempt(body) if kind == READER_EVENT_NOTIFICATION else None
        if attempt != 0:
            reason = "another client is connected" if attempt in (1, 2) else f"the attempt ended with {attempt}"
            raise LineLost(f"the reader refuses: {reason}")
        self._ask(SET_READER_CONFIG, keepalive_config())
        self._ask(DELETE_ROSPEC, struct.pack(">I", 0))  # All of them: this client is the reader's only one.
        self._ask(ADD_ROSPEC, rospec(antennas))
        self._ask(ENABLE_ROSPEC, struct.pack(">I", ROSPEC_ID))

    def send(self, kind: int, body: bytes = b"") -> None:
        """Send a message."""
        self._number += 1
        self._socket.sendall(message(kind, self._number, body))

    def next(self, timeout_s: float) -> tuple[int, bytes] | None:
        """Type and body of the next message; None where none comes in time. Raises LineLost or OSError."""
        self._socket.settimeout(timeout_s)
        try:
            while (found := self._complete()) is None:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise LineLost("the reader closed the connection")
                self._buffer += data
        except TimeoutError:
            return None
        if found[0] == KEEPALIVE:
            self.send(KEEPALIVE_ACK)
        return found

    def _complete(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _HEAD.size:
            return None
        kind, length, _ = _HEAD.unpack_from(self._buffer)
        if not _HEAD.size <= length <= MESSAGE_MAX_BYTES or not kind & 0x1C00:
            raise LineLost("the other end does not speak LLRP")
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[_HEAD.size : length])
        del self._buffer[:length]
        return kind & 0x3FF, body

    def _ask(self, kind: int, body: bytes) -> None:
        self.send(kind, body)
        answer, found = self._wait(_ANSWERS[kind])
        if answer == ERROR_MESSAGE or _status_code(found) != 0:
            raise LineLost(f"the reader refuses message {kind}: {_status(found)}")

    def _wait(self, wanted: int) -> tuple[int, bytes]:
        """The next message of a type, or an error message; others meanwhile are passed over."""
        for _ in range(1000):
            found = self.next(ANSWER_MAX_S)
            if found is None:
                break
            if found[0] in (wanted, ERROR_MESSAGE):
                return found
        raise LineLost(f"no answer within {ANSWER_MAX_S:g} s")


def _value(body: bytes, *kinds: int) -> bytes | None:
    """The value of the first parameter of a type, within parameters of the types before it."""
    for kind in kinds:
        try:
            body = next(value for found, value in _parameters(body) if found == kind)
        except (StopIteration, Refused):
            return None
    return body


def _connection_attempt(body: bytes) -> int | None:
    value = _value(body, _EVENT_DATA, _CONNECTION_ATTEMPT)
    return int.from_bytes(value, "big") if value is not None and len(value) == 2 else None


def _status_code(body: bytes) -> int | None:
    value = _value(body, _LLRP_STATUS)
    return int.from_bytes(value[:2], "big") if value is not None and len(value) >= 4 else None


def _status(body: bytes) -> str:
    value = _value(body, _LLRP_STATUS) or b""
    text = value[4 : 4 + int.from_bytes(value[2:4], "big")].decode("utf-8", "replace")[:100]
    return f"status {_status_code(body)} {text}".strip()
