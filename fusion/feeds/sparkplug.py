"""Scales on edge nodes that speak Sparkplug B: births that name metrics, data by alias, and gaps that ask for rebirth.

The state of an edge node is known from its birth certificate on and while sequence numbers follow each other; where
that breaks, nothing of it is used until it has been born again, which is asked for (`Node Control/Rebirth`).
Source: Eclipse Sparkplug Specification 3.0.0, sections 4 (topics), 5 (operational behaviour) and 6 (payloads).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fusion.feeds.feed import Feed, Message
from fusion.feeds.protobuf import Field, Schema, bytes_field, decoded, number_field
from fusion.feeds.scales import PlateStream
from fusion.feeds.values import believable_ns
from fusion.live.messages import MESSAGE_MAX_BYTES, Refused
from fusion.observations import Observation
from fusion.store.models import Store

NAMESPACE = "spBv1.0"
# Sequence numbers and those of births have eight bits.
SEQUENCES = 256
# A node is asked to be born again no more often than this.
REBIRTH_EVERY_NS = 5_000_000_000
REBIRTH = "Node Control/Rebirth"
METRICS_MAX = 4096

_METRIC: Schema = {
    1: Field("name", "string"), 2: Field("alias", "uint"), 3: Field("timestamp", "uint"), 4: Field("datatype", "uint"),
    5: Field("is_historical", "bool"), 7: Field("is_null", "bool"), 10: Field("int_value", "uint"),
    11: Field("long_value", "uint"), 12: Field("float_value", "float"), 13: Field("double_value", "double"),
    14: Field("boolean_value", "bool"), 15: Field("string_value", "string"),
}  # fmt: skip
PAYLOAD: Schema = {
    1: Field("timestamp", "uint"), 2: Field("metrics", _METRIC, repeated=True), 3: Field("seq", "uint"),
}  # fmt: skip
_BOOLEAN = 11
# Bits of signed integers by their type. They are sent as unsigned ones in two's complement, of their own width by some
# implementations and of 32 bits by others; their own bits are the same in both.
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}


class _Known(NamedTuple):
    """What a birth certificate states about a metric. device: "" for a metric of the node itself."""

    device: str
    name: str
    datatype: int


class SparkplugFeed(Feed):
    """The scales of one edge node, or of one of its devices."""

    def __init__(
        self, name: str, store: Store, plates: Mapping[str, str], *,
        group: str, node: str, device: str, unit_g: float, rate_hz: float | None, send: Callable[[str, bytes], None],
    ) -> None:  # fmt: skip
        """A feed.

        Args:
            name: for people.
            store: of the plates.
            plates: name in plates.csv by the metric's name.
            group: id of its group.
            node: id of the node.
            device: id of the device with the scales; "" for metrics of the node itself.
            unit_g: grams of a value's unit.
            rate_hz: values a second of each metric; None for the store's rate.
            send: publishes a payload on a topic.
        """
        super().__init__(name)
        self._group, self._node, self._device, self._unit_g, self._send = group, node, device, unit_g, send
        self._streams = {
            metric: PlateStream(plate, store, self.health, rate_hz, stamped=True) for metric, plate in plates.items()
        }
        self._born = False
        self._birth = -1
        self._next = 0
        self._aliases: dict[int, _Known] = {}
        self._types: dict[tuple[str, str], int] = {}
        self._asked_ns = -REBIRTH_EVERY_NS

    @property
    def topics(self) -> tuple[str, ...]:
        """What to subscribe to: sequence numbers run over the node and all its devices."""
        return (f"{NAMESPACE}/{self._group}/+/{self._node}/#",)  # The node's own topic as well.

    def began(self, arrived_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        self._born = False
        self._ask_for_rebirth(arrived_ns)
        return self._end()

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        return [reading for stream in self._streams.values() for reading in stream.waited(now_ns)]

    def observations(self, message: Message) -> Sequence[Observation]:
        """See `Feed`."""
        levels = message.topic.split("/")
        if not 4 <= len(levels) <= 5:
            raise Refused("unknown message", f"want {NAMESPACE}/GROUP/TYPE/NODE, got {message.topic[:60]!r}")
        kind, device = levels[2], levels[4] if len(levels) == 5 else ""
        if kind in ("NCMD", "DCMD"):
            return ()  # What other applications want from the node.
        if len(message.payload) > MESSAGE_MAX_BYTES:
            raise Refused("too long", f"want at most {MESSAGE_MAX_BYTES} bytes, got {len(message.payload)}")
        payload = decoded(message.payload, PAYLOAD)
        metrics = payload.get("metrics", [])
        if len(metrics) > METRICS_MAX:
            raise Refused("too many metrics", f"want at most {METRICS_MAX}, got {len(metrics)}")
        match kind:
            case "NDEATH":
                return self._die(metrics)
            case "NBIRTH":
                self._next = payload.get("seq", 0) % SEQUENCES
                self._birth, self._born = _birth_of(metrics), True
                self._aliases.clear()
                self._types.clear()
            case "DBIRTH" | "NDATA" | "DDATA" | "DDEATH":
                pass
            case _:
                raise Refused("unknown message", f"want {NAMESPACE}/GROUP/TYPE/NODE, got {message.topic[:60]!r}")
        self._check_sequence(payload, message.arrived_ns)
        if kind == "DDEATH":
            return self._end() if device == self._device else ()
        if kind in ("NBIRTH", "DBIRTH"):
            self._learn(device, metrics)
        return self._values(payload, metrics, message.arrived_ns) if device == self._device else ()

    # ---- births, deaths and gaps -------------------------------------------------------------------------------------

    def _check_sequence(self, payload: Mapping[str, Any], arrived_ns: int) -> None:
        """Check that a message follows the last one. Raises Refused where it does not, or the node was not born."""
        sequence = payload.get("seq", 0) % SEQUENCES
        if not self._born:
            self._ask_for_rebirth(arrived_ns)
            raise Refused("no birth certificate yet", "the node has been asked for one")
        if sequence != self._next:
            wanted, self._born = self._next, False
            self._ask_for_rebirth(arrived_ns)
            text = f"want sequence number {wanted}, got {sequence}; rebirth was asked for"
            raise Refused("a message is missing", text)
        self._next = (sequence + 1) % SEQUENCES

    def _die(self, metrics: Sequence[Mapping[str, Any]]) -> list[Observation]:
        if _birth_of(metrics) != self._birth:
            raise Refused("death of an earlier birth", "a last will of before the node came back")
        self._born = False
        self.health.refuse(Refused("node died", "its last will was published"))
        return self._end()

    def _end(self) -> list[Observation]:
        return [reading for stream in self._streams.values() for reading in stream.end()]

    def _ask_for_rebirth(self, now_ns: int) -> None:
        if now_ns - self._asked_ns < REBIRTH_EVERY_NS:
            return
        self._asked_ns = now_ns
        metric = bytes_field(1, REBIRTH.encode()) + number_field(4, _BOOLEAN) + number_field(14, 1)
        payload = number_field(1, now_ns // 1_000_000) + bytes_field(2, metric)
        self._send(f"{NAMESPACE}/{self._group}/NCMD/{self._node}", payload)

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def _learn(self, device: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        for metric in metrics:
            known = _Known(device, metric.get("name", ""), metric.get("datatype", 0))
            if len(self._types) < METRICS_MAX:
                self._types[device, known.name] = known.datatype
                if "alias" in metric:
                    self._aliases[metric["alias"]] = known

    def _values(
        self, payload: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], arrived_ns: int
    ) -> list[Observation]:
        found: list[Observation] = []
        for metric in metrics:
            name = metric.get("name", "")
            if not name:
                known = self._aliases.get(metric.get("alias", -1))
                if known is None or known.device != self._device:
                    self.health.count("unknown alias")
                    continue
                name = known.name
            stream = self._streams.get(name)
            if stream is None:
                continue
            try:
                grams, t_ns = self._weight(payload, metric, name)
                found += stream.add(grams, t_ns, arrived_ns)
            except Refused as refused:
                self.health.refuse(refused)
        return found

    def _weight(self, payload: Mapping[str, Any], metric: Mapping[str, Any], name: str) -> tuple[float, int]:
        """Grams, and when they were weighed. Raises Refused."""
        if metric.get("is_null"):
            raise Refused("null", f"metric {name[:60]}")
        if metric.get("is_historical"):
            # It was weighed before the connection was lost, longer ago than an engine can wait for it.
            raise Refused("historical", f"metric {name[:60]}")
        milliseconds = metric.get("timestamp", payload.get("timestamp"))
        if milliseconds is None:
            raise Refused("unreadable time", f"metric {name[:60]} has no timestamp, nor has its payload")
        value = _number(metric, metric.get("datatype") or self._types.get((self._device, name), 0))
        return value * self._unit_g, believable_ns(milliseconds * 1_000_000)


def _birth_of(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The number of a birth, which its death repeats; -1 without one."""
    for metric in metrics:
        if metric.get("name") == "bdSeq":
            return int(metric.get("long_value", metric.get("int_value", 0)))
    return -1


def _number(metric: Mapping[str, Any], datatype: int) -> float:
    for key in ("double_value", "float_value"):
        if key in metric:
            return float(metric[key])
    for key in ("int_value", "long_value"):
        if key in metric:
            value, bits = int(metric[key]), _SIGNED.get(datatype)
            if bits is not None:
                value = (value + (1 << bits - 1) & (1 << bits) - 1) - (1 << bits - 1)
            return float(value)
    raise Refused("not a number", "want a metric that is a number")
