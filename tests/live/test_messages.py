"""Bytes of the live streams: observations survive them, whatever else arrives is refused by a name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live.streams import CAMERA, PLATE, STORE, T_NS, frame, same

from fusion.live import messages
from fusion.live.messages import Decoder, Mark, Refused, frame_payload, line_payload, weights_payload
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, ShelfReading

ROOT = Path(__file__).resolve().parents[2]


floats = st.floats(width=32, allow_nan=True)
instants = st.integers(10**18, 2**62)


@settings(max_examples=50)
@given(st.data(), instants, st.integers(0, 3), st.sampled_from([0, 4]), st.integers(0, 2**32 - 1))
def test_frames_and_weights_survive_their_bytes(data, t_ns, n, dim, number):
    store = STORE.model_copy(update={"appearance_dim": dim})
    joints = np.array(data.draw(st.lists(floats, min_size=n * 51, max_size=n * 51)), np.float32).reshape(n, 17, 3)
    appearance = np.zeros((n, dim), np.float32) + np.float32(0.25) if dim else None
    sent = Frame(t_ns, CAMERA, joints, appearance)
    (got,) = Decoder(store).observations(("detections", CAMERA), frame_payload(sent, Mark(1, number)))
    assert same(sent, got) and got.keypoints.flags.aligned
    readings = [ShelfReading(t_ns, plate.plate, joints.ravel()[: 12 * n]) for plate in store.plates]
    got_readings = Decoder(store).observations(("weights", "x"), weights_payload(readings, Mark(1, number)))
    assert all(same(a, b) for a, b in zip(readings, got_readings, strict=True))


def test_lines_survive_their_bytes():
    scan = GateScan(T_NS, "entry", "card", "p-ümläut")
    sighting = ItemSighting(T_NS, "antenna 1", "read", STORE.products[0].gtin, 2, 0.9, zone="exit")
    decoder = Decoder(STORE)
    assert decoder.observations(("gates", "entry", "scan"), line_payload(scan, Mark(1, 0))) == [scan]
    assert decoder.observations(("items", "antenna 1"), line_payload(sighting, Mark(1, 0))) == [sighting]


TOPICS = st.sampled_from(
    [("detections", CAMERA), ("weights", "s"), ("gates", "entry", "scan"), ("items", "a"), ("gates", "x", "y"), ("",)]
)
VALID = {
    "detections": frame_payload(frame(T_NS, 2), Mark(1, 2)),
    "weights": weights_payload([ShelfReading(T_NS, PLATE, np.ones(12, np.float32))], Mark(1, 2)),
    "gates": line_payload(GateScan(T_NS, "entry", "card", "tok"), Mark(1, 2)),
    "items": line_payload(ItemSighting(T_NS, "a", "read", STORE.products[0].gtin, 1, 1.0, zone="exit"), Mark(1, 2)),
}


@given(TOPICS, st.binary(max_size=200) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_refused_or_used(levels, payload):
    try:
        Decoder(STORE).observations(levels, payload)
    except Refused as refused:
        assert refused.reason


@settings(max_examples=150)
@given(TOPICS, st.data())
def test_damaged_messages_are_refused_or_used(levels, data):
    payload = bytearray(VALID.get(levels[0], b"{}"))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, min(len(payload) - 1, 60)))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        Decoder(STORE).observations(levels, bytes(payload[:cut] if data.draw(st.booleans()) else payload))
    except Refused as refused:
        assert refused.reason


@pytest.mark.parametrize(
    ("levels", "payload", "reason"),
    [
        (("detections", "nowhere"), VALID["detections"], "unknown camera"),
        (("detections", CAMERA), b"\x02" + VALID["detections"][1:], "another version"),
        (("detections", CAMERA), VALID["weights"], "malformed"),
        (("detections", CAMERA), VALID["detections"][:-1], "malformed"),
        (("detections", CAMERA), VALID["detections"] + b"\0", "malformed"),
        (("detections", CAMERA), frame_payload(Frame(T_NS, "", np.zeros((1, 2, 3))), Mark(0, 0)), "another layout"),
        (("detections", CAMERA), frame_payload(frame(T_NS // 1000), Mark(0, 0)), "impossible time"),
        (("detections", CAMERA), bytes(messages.MESSAGE_MAX_BYTES + 1), "too long"),
        (("weights", "s"), VALID["weights"][:-1] + b"\xff", "malformed"),
        (("gates", "exit", "scan"), VALID["gates"], "another gate than the topic's"),
        (("gates", "back", "scan"), VALID["gates"].replace(b"entry", b"back"), "unknown gate"),
        (("gates", "entry", "scan"), b"[" * 10_000, "not JSON"),
        (("gates", "entry", "scan"), VALID["gates"].replace(b'"v": 1', b'"v": 2'), "another version"),
        (("gates", "entry", "scan"), VALID["gates"].replace(b'"card"', b'"cash"'), "malformed"),
        (("items", "b"), VALID["items"], "another source than the topic's"),
        (("money",), b"", "unknown topic"),
    ],
)
def test_a_fault_has_a_name(levels, payload, reason):
    with pytest.raises(Refused) as refused:
        Decoder(STORE).observations(levels, payload)
    assert refused.value.reason == reason


def test_a_refusal_does_not_repeat_the_credential():
    payload = VALID["gates"].replace(b'"tok"', b'"secret-token"').replace(b'"kind"', b'"kinds"')
    with pytest.raises(Refused) as refused:
        Decoder(STORE).observations(("gates", "entry", "scan"), payload)
    assert "kind" in str(refused.value) and "secret" not in str(refused.value)


def test_numbers_show_duplicates_and_losses():
    decoder, levels = Decoder(STORE), ("detections", CAMERA)

    def is_new(run: int, number: int) -> bool:
        try:
            return bool(decoder.observations(levels, frame_payload(frame(T_NS), Mark(run, number))))
        except Refused as refused:
            assert refused.reason == "sent again"
            return False

    top = 2**32 - 1
    arrived = {n: is_new(7, n) for n in (top - 1, top, 0, 3)}
    assert all(arrived.values()) and decoder.missing(levels) == 2
    assert not is_new(7, top) and is_new(7, 2) and not is_new(7, 2) and not is_new(7, 3) and is_new(7, 4)
    assert decoder.missing(levels) == 1
    assert is_new(7, 10), "sent before the first message that arrived"
    assert is_new(8, 2) and not is_new(8, 2) and is_new(8, 0) and is_new(8, 3), "another run starts again"
    assert decoder.missing(levels) == 6


@given(st.lists(st.integers(0, 30), max_size=200))
def test_every_number_is_taken_once(numbers):
    decoder, levels, taken = Decoder(STORE), ("detections", CAMERA), []
    for number in numbers:
        try:
            decoder.observations(levels, frame_payload(frame(T_NS), Mark(7, number)))
            taken.append(number)
        except Refused:
            pass
    assert sorted(taken) == sorted(set(numbers))
    assert decoder.missing(levels) == (len(set(range(numbers[0], max(numbers) + 1)) - set(numbers)) if numbers else 0)


def test_an_unknown_plate_does_not_affect_others():
    readings = [ShelfReading(T_NS, plate, np.ones(3, np.float32)) for plate in ("nowhere", PLATE)]
    decoder = Decoder(STORE)
    (got,) = decoder.observations(("weights", "s"), weights_payload(readings, Mark(0, 0)))
    assert got.plate == PLATE and decoder.take_unknown_plates() == ["nowhere"] and not decoder.take_unknown_plates()


def test_the_documented_bytes_are_these():
    text = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```hex\n(.*?)```", text, re.S)
    shown = [bytes.fromhex(re.sub(r"[^0-9a-f]", "", re.sub(r"#.*", "", block))) for block in blocks]
    assert len(shown) == 2
    store = STORE.model_copy(update={"keypoints": "box2"})
    (got,) = Decoder(store).observations(("detections", CAMERA), shown[0])
    assert got.t_ns == T_NS and got.keypoints.tolist() == [[[640.0, 200.0, 0.875], [636.0, 610.0, 0.75]]]
    assert shown[0] == frame_payload(got, Mark(1_767_258_000, 41))
    plates = [plate.model_copy(update={"plate": name}) for plate, name in zip(STORE.plates, ("p1", "p2"))]
    readings = Decoder(STORE.model_copy(update={"plates": tuple(plates)})).observations(("weights", "s"), shown[1])
    assert [reading.plate for reading in readings] == ["p1", "p2"] and {reading.t_ns for reading in readings} == {T_NS}
    assert [reading.samples.tolist() for reading in readings] == [[1000.5, 1000.25], [-3.5, -3.25]]
    assert shown[1] == weights_payload(readings, Mark(1_767_258_000, 7))
    product = STORE.products[0].model_copy(update={"gtin": "4006381333931"})
    decoder = Decoder(STORE.model_copy(update={"products": (product,)}))
    lines = [line.encode() for line in re.findall(r"^\{.*\}$", text, re.M)]
    assert decoder.observations(("gates", "entry", "scan"), lines[0])[0].account == "p-alice"
    door = STORE.gate[0].model_copy(update={"id": "door"})
    of_cabinet = Decoder(STORE.model_copy(update={"gate": (door,)}))
    (state,) = of_cabinet.observations(("gates", "door", "door"), lines.pop(1))
    assert state == DoorState(T_NS, "door", True)
    assert line_payload(state, Mark(1_767_258_000, 5)) == b'{"v": 1, "run": 1767258000, "seq": 5, ' + (
        f'"time": {T_NS}, "gate": "door", "kind": "door", "open": true}}'.encode()
    )
    # A door's contact may not let people in, nor a reader open a door.
    with pytest.raises(Refused, match="line of kind 'door'"):
        of_cabinet.observations(("gates", "door", "door"), lines[0].replace(b"entry", b"door"))
    assert decoder.observations(("items", "exit antenna"), lines[1])[0].quantity == 1
    (by_code,) = decoder.observations(("items", "exit antenna"), lines.pop(2))
    assert by_code.source == "exit antenna" and by_code.quantity == 1
    assert (by_code.gtin, by_code.code) == ("09506000134352", "(01)09506000134352(3103)000512(3922)765(21)A1")
    request, number, version = decoder.request("entry", lines[2])
    command = messages.COMMAND.validate_json(lines[3], strict=True)
    assert (command.gate, command.request, command.time) == (request.gate, number, request.t_ns)
    assert (command.v, version, command.open) == (2, 2, True)
    assert json.loads(command.payload()) == json.loads(lines[3])
    assert messages.STATUS.validate_json(lines[7], strict=True).state == "online" and len(lines) == 8
    # What a payment zone shows, what its terminal asks, and the answer.
    shown_zone, asked, answer = map(json.loads, lines[4:7])
    assert shown_zone["baskets"][0]["visit"] == asked["visit"] == answer["visit"]
    assert shown_zone["baskets"][0]["total"] == asked["total"] and answer["request"] == asked["seq"]
