"""Protocol buffers by their wire format, as much as two published schemas need: no generated code, no package.

A schema is a table from field number to name and kind; what it does not name is passed over, as the format wants.
Source: Protocol Buffers documentation, "Encoding"; https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fusion.live.messages import Refused

# Messages within each other.
DEPTH_MAX = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
# Kinds of numbers with a fixed width, and how they are unpacked.
_FIXED = {"float": ("<f", 4), "double": ("<d", 8)}


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        name: under which its value is given.
        kind: "uint", "int" (two's complement in 64 bits), "bool", "float", "double", "string", "bytes", or the schema
            of a message within this one.
        repeated: whether its value is a list.
    """

    name: str
    kind: str | Mapping[int, Field]
    repeated: bool = False


Schema = Mapping[int, Field]


def decoded(data: bytes, schema: Schema, depth: int = 0) -> dict[str, Any]:
    """The fields of a message by name. Raises Refused where the bytes are no such message."""
    if depth > DEPTH_MAX:
        raise Refused("malformed", f"want messages at most {DEPTH_MAX} deep")
    found: dict[str, Any] = {}
    for number, wire, value in _wire_fields(data):
        field = schema.get(number)
        if field is None:
            continue
        values = list(_values(field, wire, value, depth))
        if field.repeated:
            found.setdefault(field.name, []).extend(values)
        elif values:
            found[field.name] = values[-1]  # The last one counts.
    return found


def _values(field: Field, wire: int, value: int | bytes, depth: int) -> Iterator[Any]:
    kind = field.kind
    if isinstance(value, int):
        if kind == "bool":
            yield value != 0
        elif kind == "uint":
            yield value
        elif kind == "int":
            yield value - (1 << 64) if value >> 63 else value
        else:
            raise Refused("malformed", f"{field.name}: want {_kind_name(kind)}, got a whole number")
    elif isinstance(kind, str) and kind in _FIXED:
        pattern, width = _FIXED[kind]
        packed = wire == _BYTES and field.repeated
        if len(value) % width or (not packed and len(value) != width):
            raise Refused("malformed", f"{field.name}: want {kind}, got {len(value)} bytes")
        for (number,) in struct.iter_unpack(pattern, value):
            yield number
    elif wire != _BYTES:
        raise Refused("malformed", f"{field.name}: want {_kind_name(kind)}, got {len(value)} bytes")
    elif kind == "bytes":
        yield value
    elif kind == "string":
        try:
            yield value.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("malformed", f"{field.name}: want text in UTF-8") from None
    elif isinstance(kind, str):
        raise Refused("malformed", f"{field.name}: want {kind}, got bytes")
    else:
        yield decoded(value, kind, depth + 1)


def _kind_name(kind: str | Schema) -> str:
    return kind if isinstance(kind, str) else "a message"


def _wire_fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Refused("malformed", "want a protocol buffer, got a field without a number")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise Refused("malformed", f"want a protocol buffer, got wire type {wire}")
        if at + length > len(data):
            raise Refused("malformed", "want a protocol buffer, got one that is cut off")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_VARINT_BYTES_MAX):
        if at >= len(data):
            raise Refused("malformed", "want a protocol buffer, got one that is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * shift
        if not byte & 0x80:
            return value & (1 << 64) - 1, at
    raise Refused("malformed", "want a protocol buffer, got a number of more than ten bytes")


# ---- writing ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A whole number from 0 on."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A field that holds a whole number from 0 on."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds bytes, a text in UTF-8 or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value
