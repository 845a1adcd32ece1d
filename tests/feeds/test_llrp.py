"""RFID readers: messages against another client, each tag once, and a reader of the tests' own."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds import llrp
from fusion.feeds.feed import Inbox, Message
from fusion.feeds.llrp import GATHER_NS, ReaderFeed, ReaderLine, message, parameter, tags_of
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.connection import Timing
from fusion.live.messages import Refused
from fusion.observations import ItemSighting
from fusion.simulation import demo_store
from fusion.store.gtin import gtin_14

T_NS = 1_767_258_000_000_000_000
S_NS = 1_000_000_000
PATIENCE_S = 30.0
STORE = demo_store(n_cameras=1, n_plates=2)
GTINS = [product.gtin for product in STORE.products]


def epc(gtin: str, serial: int) -> bytes:
    """An SGTIN-96 with a company prefix of seven digits."""
    digits = gtin_14(gtin)
    bits = f"{0x30:08b}{1:03b}{5:03b}{int(digits[1:8]):024b}{int(digits[0] + digits[8:13]):020b}{serial:038b}"
    return int(bits, 2).to_bytes(12, "big")


def tag(number: bytes, antenna: int = 1, rssi: int = -50, seen_ns: int = T_NS, *, long: bool = False) -> bytes:
    body = parameter(241, struct.pack(">H", 8 * len(number)) + number) if long else b"\x8d" + number
    body += b"\x81" + struct.pack(">H", antenna) + b"\x86" + struct.pack(">b", rssi)
    return parameter(240, body + b"\x82" + struct.pack(">Q", 7) + b"\x84" + struct.pack(">Q", seen_ns // 1000))


def feed(again_s: float = 10.0, clock: Any = "reader") -> ReaderFeed:
    return ReaderFeed("exit", STORE, {1: "exit", 2: "entry"}, probability=0.99, again_s=again_s, clock=clock)


def sightings(opened: ReaderFeed, body: bytes, arrived_ns: int) -> list[ItemSighting]:
    found = opened.observations(Message("", body, arrived_ns))
    assert all(isinstance(one, ItemSighting) for one in found)
    return list(found)  # type: ignore[arg-type]


# ---- messages --------------------------------------------------------------------------------------------------------


def oracle() -> Any:
    pytest.importorskip("sllurp", reason="pip install sllurp")
    from sllurp.llrp import LLRPMessage

    return LLRPMessage


def test_what_is_asked_of_a_reader_is_what_another_client_asks() -> None:
    spec = {
        "ROSpecID": llrp.ROSPEC_ID, "Priority": 0, "CurrentState": "Disabled",
        "ROBoundarySpec": {
            "ROSpecStartTrigger": {"ROSpecStartTriggerType": "Immediate"},
            "ROSpecStopTrigger": {"ROSpecStopTriggerType": "Null", "DurationTriggerValue": 0},
        },
        "AISpec": [{
            "AntennaID": [1, 2], "AISpecStopTrigger": {"AISpecStopTriggerType": "Null", "DurationTriggerValue": 0},
            "InventoryParameterSpec": [{"InventoryParameterSpecID": 1, "ProtocolID": 1, "AntennaConfiguration": []}],
        }],
        "ROReportSpec": {
            "ROReportTrigger": "Upon_N_Tags_Or_End_Of_AISpec", "N": 1,
            "TagReportContentSelector": {
                "EnableROSpecID": False, "EnableSpecIndex": False, "EnableInventoryParameterSpecID": False,
                "EnableAntennaID": True, "EnableChannelIndex": False, "EnablePeakRSSI": True,
                "EnableFirstSeenTimestamp": True, "EnableLastSeenTimestamp": True, "EnableTagSeenCount": False,
                "EnableAccessSpecID": False,
            },
        },
    }  # fmt: skip
    made = oracle()
    assert made(msgdict={"ADD_ROSPEC": {"Ver": 1, "Type": 20, "ID": 7, "ROSpec": spec}}).msgbytes == message(
        llrp.ADD_ROSPEC, 7, llrp.rospec([1, 2])
    )
    for name, kind, fields, body in (
        ("DELETE_ROSPEC", llrp.DELETE_ROSPEC, {"ROSpecID": 0}, struct.pack(">I", 0)),
        ("ENABLE_ROSPEC", llrp.ENABLE_ROSPEC, {"ROSpecID": 1}, struct.pack(">I", 1)),
        ("KEEPALIVE_ACK", llrp.KEEPALIVE_ACK, {}, b""),
        ("CLOSE_CONNECTION", llrp.CLOSE_CONNECTION, {}, b""),
    ):
        assert made(msgdict={name: {"Ver": 1, "Type": kind, "ID": 9, **fields}}).msgbytes == message(kind, 9, body)


@settings(max_examples=50, deadline=None)
@given(
    tags=st.lists(st.tuples(st.binary(min_size=12, max_size=12), st.integers(0, 65535), st.integers(-128, 127),
                            st.integers(0, 2**63), st.booleans()), max_size=5)
)  # fmt: skip
def test_a_report_reads_as_another_client_reads_it(tags: list[tuple[bytes, int, int, int, bool]]) -> None:
    body = b"".join(tag(number, antenna, rssi, seen, long=long) for number, antenna, rssi, seen, long in tags)
    theirs = oracle()(msgbytes=message(llrp.RO_ACCESS_REPORT, 1, body)).msgdict["RO_ACCESS_REPORT"]["TagReportData"]
    ours = tags_of(body)
    assert len(ours) == len(theirs) == len(tags)
    for mine, other in zip(ours, theirs):
        number = other["EPC-96"] if "EPC-96" in other else other["EPC"]
        assert (mine.epc.hex().encode(), mine.antenna, mine.rssi_dbm) == (number, other["AntennaID"], other["PeakRSSI"])
        assert mine.seen_us == other["LastSeenTimestampUTC"]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60), at=st.integers(0, 60))
def test_any_bytes_are_a_report_or_refused(data: bytes, at: int) -> None:
    good = tag(epc(GTINS[0], 1))
    for body in (data, good[:at] + data + good[at:], parameter(240, data)):
        try:
            sightings(feed(), body, T_NS)
        except Refused as refused:
            assert refused.reason == "malformed report"


# ---- tags ------------------------------------------------------------------------------------------------------------


def test_a_tag_is_sighted_once_and_when_it_was_nearest() -> None:
    opened = feed()
    for i, rssi in enumerate([-70, -60, -45, -62]):
        at = T_NS + i * S_NS // 5
        assert not sightings(opened, tag(epc(GTINS[0], 1), 1, rssi, at), at + 3_000_000)
    (found,) = opened.quiet(T_NS + 3_000_000 + GATHER_NS)
    assert found == ItemSighting(T_NS + 2 * S_NS // 5, "exit", "read", GTINS[0], 1, 0.99, zone="exit")
    for i in range(1, 40):  # It stays in the field.
        assert not sightings(opened, tag(epc(GTINS[0], 1)), T_NS + i * S_NS)
    assert not opened.quiet(T_NS + 45 * S_NS)
    sightings(opened, tag(epc(GTINS[0], 1), seen_ns=T_NS + 60 * S_NS), T_NS + 60 * S_NS)
    (again,) = opened.quiet(T_NS + 62 * S_NS)
    assert again.t_ns == T_NS + 60 * S_NS


def test_tags_of_one_product_count_each_and_at_each_zone() -> None:
    opened = feed()
    body = tag(epc(GTINS[0], 1)) + tag(epc(GTINS[0], 2)) + tag(epc(GTINS[1], 1)) + tag(epc(GTINS[0], 1), antenna=2)
    sightings(opened, body, T_NS)
    found = opened.quiet(T_NS + 2 * S_NS)
    seen = sorted((one.gtin, one.zone) for one in found if isinstance(one, ItemSighting))
    assert seen == sorted([(GTINS[0], "exit"), (GTINS[0], "exit"), (GTINS[1], "exit"), (GTINS[0], "entry")])


def test_what_is_no_sighting_is_counted() -> None:
    opened = feed()
    body = tag(epc(GTINS[0], 1), antenna=9) + tag(b"\xe2" + bytes(11)) + tag(epc("4012345678901", 1))
    sightings(opened, body + tag(epc(GTINS[0], 3), seen_ns=5_000), T_NS)
    assert not opened.quiet(T_NS + 2 * S_NS)
    assert opened.health.refused == {
        "unknown antenna": 1, "tag without SGTIN": 1, "not a product of the store": 1, "impossible time": 1
    }  # fmt: skip
    opened = feed(clock="arrival")
    sightings(opened, tag(epc(GTINS[0], 3), seen_ns=5_000), T_NS)
    assert opened.quiet(T_NS + 2 * S_NS)[0].t_ns == T_NS


def test_remembered_tags_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llrp, "TAGS_MAX", 10)
    opened = feed()
    for serial in range(100):
        sightings(opened, tag(epc(GTINS[0], serial)), T_NS)
    assert len(opened.quiet(T_NS + 2 * S_NS)) == 10


# ---- the connection --------------------------------------------------------------------------------------------------


class Reader:
    """A reader for tests: greets, answers, and sends its messages.

    Attributes:
        heard: types of the messages that came.
    """

    def __init__(
        self, sends: bytes = b"", *, attempt: int = 0, refuse: int | None = None, greeting: bytes | None = None
    ) -> None:
        self._sends, self._attempt, self._refuse, self._greeting = sends, attempt, refuse, greeting
        self.heard: list[int] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
                with connection:
                    self._serve(connection)
            except OSError:
                if self._server.fileno() < 0:
                    return

    def _serve(self, connection: socket.socket) -> None:
        attempt = parameter(246, parameter(128, bytes(8)) + parameter(256, struct.pack(">H", self._attempt)))
        connection.sendall(message(63, 1, attempt) if self._greeting is None else self._greeting)
        stream = connection.makefile("rb")
        while head := stream.read(10):
            kind, length, number = struct.unpack(">HII", head)
            stream.read(length - 10)
            kind &= 0x3FF
            self.heard.append(kind)
            if kind in (3, 20, 21, 24):
                answer = {3: 13, 20: 30, 21: 31, 24: 34}[kind]
                status = 101 if kind == self._refuse else 0
                text = b"no such field" if status else b""
                status_parameter = parameter(287, struct.pack(">HH", status, len(text)) + text)
                connection.sendall(message(answer, number, status_parameter))
            if kind == 24:
                connection.sendall(self._sends)


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    opened: list[Reader] = []
    yield opened
    for reader in opened:
        reader.close()


def line(of: ReaderFeed, port: int) -> tuple[ReaderLine, Inbox]:
    inbox = Inbox(SYSTEM_CLOCK)
    quick = Timing(backoff_min_s=0.01, backoff_max_s=0.05)
    return ReaderLine(of, "127.0.0.1", port, [1, 2], inbox, SYSTEM_CLOCK, quick), inbox


def lost(port: int) -> str:
    """Why the connection to a reader is lost."""
    of = feed()
    opened, _ = line(of, port)
    opened.start()
    until_s = time.monotonic() + PATIENCE_S
    while of.health.state in ("connecting", "online"):
        assert time.monotonic() < until_s, "it is not lost"
        time.sleep(0.005)
    opened.close()
    return of.health.state


def test_reports_arrive_and_the_connection_is_kept(readers: list[Reader]) -> None:
    body = tag(epc(GTINS[0], 1))
    readers.append(Reader(message(62, 5) + message(99, 6) + message(61, 7, body) * 3))
    opened, inbox = line(feed(), readers[0].port)
    opened.start()
    found = []
    while len(found) < 3:
        entry = inbox.next(PATIENCE_S)
        assert entry is not None
        if isinstance(entry[1], Message):
            found.append(entry[1].payload)
    opened.close()
    assert found == [body] * 3
    assert readers[0].heard[:4] == [3, 21, 20, 24] and 72 in readers[0].heard, "set up, and a keepalive acknowledged"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"attempt": 2}, "another client is connected"),
        ({"attempt": 3}, "ended with 3"),
        ({"refuse": 20}, "refuses message 20: status 101 no such field"),
        ({"greeting": b"SSH-2.0-OpenSSH_9.2\r\n"}, "does not speak LLRP"),
        ({"greeting": struct.pack(">HII", 1 << 10 | 63, 2**31, 1)}, "does not speak LLRP"),
        ({"greeting": message(100, 1, parameter(287, struct.pack(">HH", 109, 0)))}, "refuses"),
        ({"greeting": message(63, 1, b"\xff\xff")}, "refuses"),
    ],
)
def test_what_a_reader_refuses_is_a_reason(readers: list[Reader], options: dict[str, Any], wanted: str) -> None:
    readers.append(Reader(**options))
    assert wanted in lost(readers[0].port)


def test_a_reader_that_is_not_there_is_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "127.0.0.1" in lost(port)
