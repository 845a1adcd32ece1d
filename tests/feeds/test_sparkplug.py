"""Sparkplug B scales, against another implementation's payloads and the rules of the specification."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.feed import Message
from fusion.feeds.sparkplug import REBIRTH, REBIRTH_EVERY_NS, SparkplugFeed
from fusion.live.messages import Refused
from fusion.observations import ShelfReading
from fusion.simulation import demo_store

sparkplug = pytest.importorskip("pysparkplug", reason="pip install --no-deps pysparkplug; pip install protobuf")

T_MS = 1_767_258_000_000
STORE = demo_store(n_cameras=1, n_plates=2).model_copy(update={"weight_rate_hz": 10.0})
PLATES = {"Tray/1": STORE.plates[0].plate, "Tray/2": STORE.plates[1].plate}


class Node:
    """An edge node with one device, and the feed that listens to it.

    Attributes:
        asked: topics and payloads that the feed has sent.
    """

    def __init__(self, device: str = "Scales", unit_g: float = 1.0) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.seq = 0
        self.feed = SparkplugFeed(
            "sparkplug", STORE, PLATES, group="G", node="N", device=device, unit_g=unit_g, rate_hz=None,
            send=lambda topic, payload: self.asked.append((topic, payload)),
        )  # fmt: skip

    def send(
        self, kind: str, metrics: Sequence[Any], *, device: str = "", skip: int = 0, at_ms: int = T_MS
    ) -> list[Any]:
        classes = {"NBIRTH": "NBirth", "DBIRTH": "DBirth", "NDATA": "NData", "DDATA": "DData", "DDEATH": "DDeath"}
        self.seq = 0 if kind == "NBIRTH" else (self.seq + 1 + skip) % 256
        made = getattr(sparkplug, classes[kind])
        fields: dict[str, Any] = {"timestamp": at_ms, "seq": self.seq}
        payload = made(**fields) if kind == "DDEATH" else made(**fields, metrics=tuple(metrics))
        topic = f"spBv1.0/G/{kind}/N" + (f"/{device}" if device else "")
        return self.raw(topic, payload.encode(include_dtypes=kind.endswith("BIRTH")), at_ms)

    def raw(self, topic: str, payload: bytes, at_ms: int = T_MS) -> list[Any]:
        return list(self.feed.observations(Message(topic, payload, at_ms * 1_000_000)))

    def born(self, birth: int = 3) -> Node:
        self.send("NBIRTH", [metric("bdSeq", birth, "INT64")])
        metrics = [metric(name, 1000.0, "DOUBLE", alias=10 + i) for i, name in enumerate(PLATES)]
        self.send("DBIRTH", metrics, device="Scales")
        return self


def metric(name: str | None, value: Any, datatype: str, **fields: Any) -> Any:
    settled = {"timestamp": T_MS, **fields}
    return sparkplug.Metric(name=name, datatype=getattr(sparkplug.DataType, datatype), value=value, **settled)


def samples(found: Sequence[Any], plate: str) -> list[float]:
    readings = [reading for reading in found if isinstance(reading, ShelfReading) and reading.plate == plate]
    return np.concatenate([reading.samples for reading in readings]).tolist() if readings else []


def test_weights_come_by_name_and_by_alias() -> None:
    node = Node().born()
    found = []
    for i in range(1, 20):
        at = T_MS + 100 * i
        by_alias = metric(None, 1000.0 + i, "DOUBLE", alias=10, timestamp=at)
        by_name = metric("Tray/2", 2000.0 + i, "DOUBLE", timestamp=at)
        found += node.send("DDATA", [by_alias, by_name, metric("Other", 1.0, "DOUBLE")], device="Scales")
    found += node.feed.quiet((T_MS + 60_000) * 1_000_000)
    # The birth certificate's own values are the first ones.
    assert samples(found, PLATES["Tray/1"]) == [1000.0 + i for i in range(20)]
    assert samples(found, PLATES["Tray/2"]) == [1000.0, *(2000.0 + i for i in range(1, 20))]
    assert found[0].t_ns == T_MS * 1_000_000 and not node.feed.health.refused


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_numbers_of_every_type_are_what_was_sent(data: st.DataObject) -> None:
    ranges: dict[str, Any] = {
        f"{sign}INT{bits}": st.integers(0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
        for bits in (8, 16, 32, 64) for sign in ("", "U")
    } | {"FLOAT": st.floats(-1e6, 1e6, width=32), "DOUBLE": st.floats(-1e6, 1e6)}  # fmt: skip
    datatype = data.draw(st.sampled_from(sorted(ranges)))
    value = data.draw(ranges[datatype].filter(lambda value: abs(value) < 1e9))
    node = Node()
    node.send("NBIRTH", [metric("bdSeq", 1, "INT64")])
    found = node.send("DBIRTH", [metric("Tray/1", value, datatype)], device="Scales")
    found += node.send("DDATA", [metric("Tray/1", value, datatype, timestamp=T_MS + 100)], device="Scales")
    found += node.feed.quiet((T_MS + 60_000) * 1_000_000)
    assert samples(found, PLATES["Tray/1"]) == [float(np.float32(value))] * 2


def test_a_missing_message_asks_for_rebirth_and_nothing_is_used_until_then() -> None:
    node = Node().born()
    with pytest.raises(Refused, match="want sequence number 2, got 3"):
        node.send("DDATA", [metric("Tray/1", 1.0, "DOUBLE", timestamp=T_MS + 100)], device="Scales", skip=1)
    with pytest.raises(Refused, match="asked"):
        node.send("DDATA", [metric("Tray/1", 1.0, "DOUBLE", timestamp=T_MS + 200)], device="Scales")
    ((topic, payload),) = node.asked
    asked = sparkplug.NCmd.decode(payload)
    assert topic == "spBv1.0/G/NCMD/N"
    assert [(m.name, m.value, m.datatype) for m in asked.metrics] == [(REBIRTH, True, sparkplug.DataType.BOOLEAN)]
    with pytest.raises(Refused):
        node.send("DDATA", [], device="Scales", at_ms=T_MS + REBIRTH_EVERY_NS // 1_000_000 + 1)
    assert len(node.asked) == 2, "it is asked again after a while"
    node.born()
    found = node.send("DDATA", [metric("Tray/1", 1.0, "DOUBLE", timestamp=T_MS + 100)], device="Scales")
    found += node.feed.quiet((T_MS + 60_000) * 1_000_000)
    assert samples(found, PLATES["Tray/1"]) == [1000.0, 1.0]


def test_sequence_numbers_wrap_and_run_over_the_node_and_all_devices() -> None:
    node = Node().born()
    for i in range(600):
        node.send("NDATA" if i % 3 else "DDATA", [], device="" if i % 3 else "Another")
    assert not node.feed.health.refused and not node.asked


def test_a_connection_asks_for_rebirth() -> None:
    node = Node().born()
    node.feed.began(T_MS * 1_000_000)
    assert len(node.asked) == 1
    with pytest.raises(Refused, match="asked"):
        node.send("NDATA", [])


def test_a_death_counts_where_it_is_of_the_last_birth() -> None:
    node = Node().born(birth=3)

    def die(birth: int) -> None:
        will = sparkplug.NDeath(timestamp=T_MS, bd_seq_metric=metric("bdSeq", birth, "INT64"))
        node.raw("spBv1.0/G/NDEATH/N", will.encode())

    with pytest.raises(Refused, match="last will of before"):
        die(2)
    node.send("NDATA", [])
    die(3)
    with pytest.raises(Refused):
        node.send("NDATA", [])
    assert node.feed.health.refused == {"node died": 1}


def test_null_and_historical_values_are_counted() -> None:
    node = Node().born()
    node.send(
        "DDATA",
        [
            metric("Tray/1", None, "DOUBLE", is_null=True), metric("Tray/2", 5.0, "DOUBLE", is_historical=True),
            metric(None, 5.0, "DOUBLE", alias=99), metric("Tray/1", 7.0, "DOUBLE", timestamp=1000),
        ],
        device="Scales",
    )  # fmt: skip
    assert node.feed.health.refused == {"null": 1, "historical": 1, "unknown alias": 1, "impossible time": 1}


def test_the_unit_is_that_of_the_file() -> None:
    node = Node(unit_g=1000.0)
    node.send("NBIRTH", [metric("bdSeq", 1, "INT64")])
    node.send("DBIRTH", [metric("Tray/1", 1.5, "DOUBLE")], device="Scales")
    assert samples(node.feed.quiet((T_MS + 60_000) * 1_000_000), PLATES["Tray/1"]) == [1500.0]


def test_metrics_of_the_node_itself_and_of_another_device() -> None:
    node = Node(device="")
    node.send("NBIRTH", [metric("bdSeq", 1, "INT64"), metric("Tray/1", 1.0, "DOUBLE")])
    node.send("DBIRTH", [metric("Tray/1", 9.0, "DOUBLE")], device="Another")
    assert samples(node.feed.quiet((T_MS + 60_000) * 1_000_000), PLATES["Tray/1"]) == [1.0]


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=60), kind=st.sampled_from(["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH", "X"]),
    rest=st.sampled_from(["/N", "/N/Scales", "/N/a/b", ""]),
)  # fmt: skip
def test_any_bytes_are_read_or_refused(data: bytes, kind: str, rest: str) -> None:
    node = Node().born()
    with contextlib.suppress(Refused):
        node.raw(f"spBv1.0/G/{kind}{rest}", data)
