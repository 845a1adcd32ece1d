"""Protocol buffers read by the wire format, against the package that defines it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.protobuf import Field, Schema, bytes_field, decoded, number_field
from fusion.live.messages import Refused

INNER: Schema = {1: Field("x", "float"), 2: Field("ys", "float", repeated=True)}
OUTER: Schema = {
    1: Field("unsigned", "uint"), 2: Field("signed", "int"), 3: Field("flag", "bool"), 4: Field("single", "float"),
    5: Field("double", "double"), 6: Field("text", "string"), 7: Field("data", "bytes"), 8: Field("inner", INNER),
    9: Field("inners", INNER, repeated=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def outer() -> Any:
    """The class that the package makes of the same schema."""
    pytest.importorskip("google.protobuf", reason="pip install protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="feeds_test.proto", package="feeds_test", syntax="proto3")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="x", number=1, type=kinds.TYPE_FLOAT, label=kinds.LABEL_OPTIONAL)
    inner.field.add(name="ys", number=2, type=kinds.TYPE_FLOAT, label=kinds.LABEL_REPEATED)
    message = file.message_type.add(name="Outer")
    types = [
        kinds.TYPE_UINT64, kinds.TYPE_INT64, kinds.TYPE_BOOL, kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE, kinds.TYPE_STRING,
        kinds.TYPE_BYTES,
    ]  # fmt: skip
    for number, kind in enumerate(types, 1):
        message.field.add(name=OUTER[number].name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    for number, label in ((8, kinds.LABEL_OPTIONAL), (9, kinds.LABEL_REPEATED)):
        name = OUTER[number].name
        message.field.add(
            name=name, number=number, type=kinds.TYPE_MESSAGE, type_name=".feeds_test.Inner", label=label
        )
    message.field.add(name="unknown", number=77, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("feeds_test.Outer"))


floats = st.floats(width=32, allow_nan=False)
inners = st.fixed_dictionaries({}, optional={"x": floats, "ys": st.lists(floats, min_size=1, max_size=5)})


@settings(max_examples=150, deadline=None)
@given(
    values=st.fixed_dictionaries({}, optional={
        "unsigned": st.integers(0, 2**64 - 1), "signed": st.integers(-(2**63), 2**63 - 1), "flag": st.booleans(),
        "single": floats, "double": st.floats(allow_nan=False), "text": st.text(max_size=9),
        "data": st.binary(max_size=9), "inner": inners, "inners": st.lists(inners, min_size=1, max_size=3),
    })
)  # fmt: skip
def test_a_message_reads_as_the_package_wrote_it(outer: Any, values: dict[str, Any]) -> None:
    message = outer(unknown="passed over", **values)
    found = decoded(message.SerializeToString(), OUTER)
    empty: dict[str, Any] = dict.fromkeys(("unsigned", "signed", "flag", "single", "double"), 0)
    empty |= {"text": "", "data": b""}
    # Proto3 leaves out what is empty.
    assert {**empty, **found} == {**empty, **_without_empty(values)}


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner for key, inner in value.items() if not (isinstance(inner, float) and _is_zero(inner))}
        return [kept(inner) for inner in value] if isinstance(value, list) else value

    return {key: kept(value) for key, value in values.items()}


def _is_zero(value: float) -> bool:
    return value == 0.0 and str(value) == "0.0"


def test_what_we_write_reads_as_it_was_meant(outer: Any) -> None:
    data = number_field(1, 2**63 + 5) + bytes_field(6, b"text") + bytes_field(8, b"")
    message = outer.FromString(data)
    assert (message.unsigned, message.text, message.HasField("inner")) == (2**63 + 5, "text", True)


def test_numbers_that_are_not_packed_are_read_as_well() -> None:
    data = bytes.fromhex("150000803f" "1500000040")  # field 2, wire type 5, twice
    assert decoded(data, INNER) == {"ys": [1.0, 2.0]}


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        decoded(data, OUTER)
    except Refused as refused:
        assert refused.reason == "malformed"


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\xff" * 11, b"\x00\x00", b"\x25\x00", b"\x30\x01"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="want"):
        decoded(data, OUTER)


def test_messages_within_each_other_have_a_limit() -> None:
    schema: dict[int, Field] = {}
    schema[1] = Field("again", schema)
    data = b""
    for _ in range(50):
        data = bytes_field(1, data)
    with pytest.raises(Refused, match="deep"):
        decoded(data, schema)
