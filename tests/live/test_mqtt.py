"""Live streams over a real broker: nothing lost, nothing twice, nothing that breaks the engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from broker import MOSQUITTO, Mosquitto
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.errors import ConfigError, FusionError
from fusion.files.recordings import Recording, RecordingWriter
from fusion.files.results import ResultsWriter
from fusion.gates.keeper import GateKeeper
from fusion.gates.verifiers import GateRequest, OpenDoor, StaffList
from fusion.live import messages, mqtt
from fusion.live.messages import Decoder, Mark, Refused, frame_payload, line_payload, topic_of, weights_payload
from fusion.live.mqtt import Broker, Live, Publisher
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning
from fusion.run import Run, replay
from fusion.sentences import sentence
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]
T_NS = 1_767_258_000_000_000_000
STORE = demo_store(n_cameras=2, n_plates=4)
CAMERA, PLATE = STORE.cameras[0].name, STORE.plates[0].plate
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")


def frame(t_ns: int, n_people: int = 1, camera: str = CAMERA) -> Frame:
    return Frame(t_ns, camera, np.full((n_people, 17, 3), 0.5, np.float32))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of one shopper who takes three things in a shop of four cameras and twelve plates.

    Of the simulated minute, what comes after the receipt is left away.
    """
    folder = tmp_path_factory.mktemp("recordings") / "shop"
    simulation = Simulation(demo_store(n_cameras=4, n_plates=12), Scenario(seed=2, minutes=0.9, shoppers=1))
    observations = list(simulation.observations())
    with RecordingWriter(folder, simulation.store) as writer:
        for observation in observations:
            if observation.t_ns < observations[0].t_ns + 36 * 10**9:
                writer.write(observation)
    return folder


@pytest.fixture(scope="module")
def replayed_shop(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the sensors' own recording."""
    out = tmp_path_factory.mktemp("source")
    replay(Recording(shop), out)
    return out


def same(one: Observation, other: Observation) -> bool:
    arrays = ("keypoints", "appearance", "samples")
    for name in one.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if name in arrays and a is not None:
            if b is None or a.shape != b.shape or a.tobytes() != b.tobytes():
                return False
        elif a != b:
            return False
    return True


def wait_for(what: Callable[[], object], timeout_s: float = 15.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < until_s, "did not happen in time"
        time.sleep(0.01)


# ---- bytes -----------------------------------------------------------------------------------------------------------

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
    seen = ItemSighting(T_NS, "antenna 1", "read", STORE.products[0].gtin, 2, 0.9, zone="exit")
    decoder = Decoder(STORE)
    assert decoder.observations(("gates", "entry", "scan"), line_payload(scan, Mark(1, 0))) == [scan]
    assert decoder.observations(("items", "antenna 1"), line_payload(seen, Mark(1, 0))) == [seen]


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
def test_whatever_bytes_come_are_refused_or_used(levels, payload):
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
def test_what_is_wrong_has_a_name(levels, payload, reason):
    with pytest.raises(Refused) as refused:
        Decoder(STORE).observations(levels, payload)
    assert refused.value.reason == reason


def test_a_refusal_does_not_repeat_the_credential():
    payload = VALID["gates"].replace(b'"tok"', b'"secret-token"').replace(b'"kind"', b'"kinds"')
    with pytest.raises(Refused) as refused:
        Decoder(STORE).observations(("gates", "entry", "scan"), payload)
    assert "kind" in str(refused.value) and "secret" not in str(refused.value)


def test_numbers_tell_what_came_twice_and_what_is_missing():
    decoder, levels = Decoder(STORE), ("detections", CAMERA)

    def came(run: int, number: int) -> bool:
        try:
            return bool(decoder.observations(levels, frame_payload(frame(T_NS), Mark(run, number))))
        except Refused as refused:
            assert refused.reason == "sent again"
            return False

    top = 2**32 - 1
    came_in = {n: came(7, n) for n in (top - 1, top, 0, 3)}
    assert all(came_in.values()) and decoder.missing(levels) == 2
    assert not came(7, top) and came(7, 2) and not came(7, 2) and not came(7, 3) and came(7, 4)
    assert decoder.missing(levels) == 1
    assert came(7, 10), "what was sent before anybody listened"
    assert came(8, 2) and not came(8, 2) and came(8, 0) and came(8, 3), "another run begins anew"
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


def test_one_unknown_plate_leaves_the_others():
    readings = [ShelfReading(T_NS, plate, np.ones(3, np.float32)) for plate in ("nowhere", PLATE)]
    decoder = Decoder(STORE)
    (got,) = decoder.observations(("weights", "s"), weights_payload(readings, Mark(0, 0)))
    assert got.plate == PLATE and decoder.unknown_plates == ["nowhere"]


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
    assert [one.plate for one in readings] == ["p1", "p2"] and {one.t_ns for one in readings} == {T_NS}
    assert [one.samples.tolist() for one in readings] == [[1000.5, 1000.25], [-3.5, -3.25]]
    assert shown[1] == weights_payload(readings, Mark(1_767_258_000, 7))
    product = STORE.products[0].model_copy(update={"gtin": "4006381333931"})
    decoder = Decoder(STORE.model_copy(update={"products": (product,)}))
    lines = [line.encode() for line in re.findall(r"^\{.*\}$", text, re.M)]
    assert decoder.observations(("gates", "entry", "scan"), lines[0])[0].account == "p-alice"
    assert decoder.observations(("items", "exit antenna"), lines[1])[0].quantity == 1
    request, number = decoder.request("entry", lines[2])
    command = messages.COMMAND.validate_json(lines[3], strict=True)
    assert (command.gate, command.request, command.time) == (request.gate, number, request.t_ns)
    assert messages.STATUS.validate_json(lines[4], strict=True).state == "online" and len(lines) == 5


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("shop", ("shop", 1883, False, None)),
        ("10.0.0.1:2000", ("10.0.0.1", 2000, False, None)),
        ("mqtt://[::1]", ("::1", 1883, False, None)),
        ("mqtts://till%201@shop", ("shop", 8883, True, "till 1")),
    ],
)
def test_addresses(address, wanted):
    broker = Broker.of(address, "secret")
    assert (broker.host, broker.port, broker.tls, broker.username) == wanted
    assert "secret" not in repr(broker) + str(broker)


@pytest.mark.parametrize("address", ["", "http://x", "shop:many", "shop:0", "mqtt://", "mqtt://u:secret@x", "mqtt://x/y"])
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigError) as refused:
        Broker.of(address)
    assert "secret" not in str(refused.value)


# ---- a broker --------------------------------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mosquitto]:
    # The same waits as in a shop, only shorter.
    monkeypatch.setattr(mqtt, "BACKOFF_MAX_S", 0.4)
    monkeypatch.setattr(mqtt, "SETTLE_S", 1.0)
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()


class Listening:
    """A live source in a thread, and what came of it."""

    def __init__(self, address: str | Broker, each: Callable = lambda one: None, **options) -> None:
        self.got: list[Observation] = []
        self.told: list[Warning] = []
        self.error: Exception | None = None
        self.live = Live(address, STORE, tell=self.told.append, **options)
        self._each = each
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for observation in self.live:
                self.got.append(observation)
                self._each(observation)
        except FusionError as error:
            self.error = error

    def kinds(self) -> Counter[str]:
        return Counter(warning.kind for warning in self.told)

    def stop(self) -> None:
        self.live.stop()
        self._thread.join(15.0)
        assert not self._thread.is_alive()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@needs_broker
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_live_run_through_a_broken_broker_replays_to_the_same(
    how, broker, shop, replayed_shop, tmp_path, monkeypatch
):
    """And to what the sensors' own recording gives: nothing was lost, nothing late, nothing twice."""
    monkeypatch.setattr(mqtt, "SETTLE_S", 0.0)  # Those who were there are waited for, however long that takes.
    monkeypatch.setattr(mqtt, "BACKOFF_MAX_S", 1.5)
    source = Recording(shop)
    observations = list(source.observations())
    names = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates"}
    with RecordingWriter(tmp_path / "recorded", source.store, segment_s=20.0) as writer:
        told: list[Warning] = []
        live = Live(broker.address, source.store, tell=told.append)
        taken: Counter[type] = Counter()

        def counted() -> Iterator[Observation]:
            for observation in live:
                taken[type(observation)] += 1
                yield observation

        run = Run(source.store, counted(), tap=writer.write)
        results = ResultsWriter(tmp_path / "live", source.store, run.engine.account_of)
        thread = threading.Thread(target=run.drive, args=([results], live), daemon=True)
        thread.start()
        publishers = {kind: Publisher(broker.address, source.store.id, name) for kind, name in names.items()}
        # What scales and gates tell is 1.2 seconds late.
        late = [(one.t_ns + (not isinstance(one, Frame)) * 1_200_000_000, k) for k, one in enumerate(observations)]
        chunks = [list(chunk) for _, chunk in groupby(sorted(late), lambda one: one[0] // 400_000_000)]
        # Eight seconds of data, far more than may be late; the shopper leaves meanwhile.
        broken = range(len(chunks) // 2, len(chunks) // 2 + 20)
        for i, chunk in enumerate(chunks):
            if i == broken.start:
                broker.stop(how)
            if i == broken.stop:
                broker.start()
            for _, together in groupby((observations[k] for _, k in chunk), lambda one: one.t_ns):
                for kind, alike in groupby(together, type):
                    publishers[kind].publish(*alike)
            if i not in broken:
                # As fast as it goes, but not so that one publisher's data overtake another's by two seconds.
                assert all(publisher.flush(20.0) for publisher in publishers.values())
        wait_for(lambda: live.caught_up and taken.total() == len(observations))
        for publisher in publishers.values():
            publisher.close()
        live.stop()
        thread.join(30.0)
    assert {"broker lost", "broker back"} <= {warning.kind for warning in told}
    assert run.summary(live).ignored.keys() == {"mqtt: sent again"}
    replay(tmp_path / "recorded", tmp_path / "replayed")
    (receipt,) = map(json.loads, (tmp_path / "live" / "receipts.jsonl").read_text().splitlines())
    assert receipt["total"] > 0 and receipt["account"]
    for name in ("receipts.jsonl", "events.jsonl"):
        live_answers, replayed_answers = ((tmp_path / folder / name).read_bytes() for folder in ("live", "replayed"))
        assert live_answers == replayed_answers == (replayed_shop / name).read_bytes()


@needs_broker
@pytest.mark.parametrize("order", ["engine publishers broker", "publishers broker engine", "broker engine publishers"])
def test_the_order_of_starting_does_not_matter(order, tmp_path, monkeypatch):
    monkeypatch.setattr(mqtt, "BACKOFF_MAX_S", 0.4)
    monkeypatch.setattr(mqtt, "SETTLE_S", 1.0)
    broker = Mosquitto(tmp_path / "broker", start=False)
    started: dict = {}
    # Two publishers, nine seconds each, which arrive in order only if somebody waits for both.
    times_ns = range(T_NS, T_NS + 9 * 10**9, 10**8)
    sent = {
        name: [frame(t_ns, camera=camera.name) for t_ns in times_ns] for name, camera in zip("ab", STORE.cameras)
    }

    def start(what: str) -> None:
        if what == "broker":
            broker.start()
        elif what == "engine":
            started["engine"] = Listening(broker.address)
        else:
            started["publishers"] = [Publisher(broker.address, STORE.id, name) for name in sent]
            for publisher in started["publishers"]:
                publisher.publish(*sent[publisher.name])

    try:
        for i, what in enumerate(order.split()):
            if i:
                time.sleep(0.5)
            start(what)
        listening = started["engine"]
        wait_for(lambda: len(listening.got) >= 180)
        listening.stop()
        assert Counter((one.camera, one.t_ns) for one in listening.got) == Counter(
            (one.camera, one.t_ns) for frames in sent.values() for one in frames
        )
        if order != "broker engine publishers":
            assert [one.t_ns for one in listening.got] == sorted(one.t_ns for one in listening.got)
        for publisher in started["publishers"]:
            publisher.close()
    finally:
        broker.stop()


@needs_broker
def test_an_engine_that_was_away_gets_what_came_meanwhile(broker):
    first = Listening(broker.address)
    wait_for(lambda: first.live.caught_up)
    with Publisher(broker.address, STORE.id, "cameras", kept_s=0.0) as publisher:
        publisher.publish(frame(T_NS))
        wait_for(lambda: first.got)
        # As a program does that dies: the session stays in the broker.
        first.live._connection._client.socket().close()
        first.live._closing.set()
        wait_for(lambda: not first._thread.is_alive())
        publisher.publish(*(frame(T_NS + k * 10**8) for k in range(1, 50)))
        assert publisher.flush()
        time.sleep(0.7)  # Longer than the publisher keeps what was acknowledged: only the broker has it now.
        publisher.publish(frame(T_NS + 50 * 10**8))
        with Listening(broker.address) as second:
            wait_for(lambda: second.got and second.got[-1].t_ns == T_NS + 50 * 10**8)
            # The first may come again: whether the dead engine had acknowledged it is a matter of chance.
            assert [one.t_ns for one in second.got if one.t_ns > T_NS] == [T_NS + k * 10**8 for k in range(1, 51)]


@needs_broker
def test_a_dead_publisher_is_told_at_once_and_a_stopped_one_is_no_alarm(broker):
    program = (
        "import sys, time; from fusion.live.mqtt import Publisher\n"
        f"Publisher({broker.address!r}, {STORE.id!r}, 'cameras'); time.sleep(60)"
    )
    with Listening(broker.address) as listening:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        wait_for(lambda: listening.live.publishers.get("cameras") == "online")
        process.kill()
        process.wait()
        wait_for(lambda: listening.live.publishers["cameras"] == "lost", timeout_s=3.0)
        with Publisher(broker.address, STORE.id, "cameras"):
            wait_for(lambda: listening.live.publishers["cameras"] == "online")
        wait_for(lambda: listening.live.publishers["cameras"] == "stopped")
        wait_for(lambda: listening.kinds()["publisher stopped"])
        assert listening.kinds() == {"publisher lost": 1, "publisher back": 1, "publisher stopped": 1}
        assert {warning.subject for warning in listening.told} == {"cameras"}


@needs_broker
def test_rubbish_is_counted_told_and_harmless(broker):
    import paho.mqtt.client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    with Listening(broker.address) as listening:
        wait_for(lambda: listening.live.caught_up)
        rubbish = [(("detections", CAMERA), b"x"), (("detections", "cam/99+"), VALID["detections"]), (("sums",), b"")]
        rubbish += [(("status", "x"), b"{"), (("gates", "entry", "request"), b"{}"), (("engine",), b"\xff")]
        for levels, payload in rubbish * 3:
            client.publish(topic_of(STORE.id, *levels), payload, qos=1).wait_for_publish(5.0)
        unknown = [ShelfReading(T_NS, "nowhere", np.zeros(2, np.float32))]
        client.publish(topic_of(STORE.id, "weights", "s"), weights_payload(unknown, Mark(0, 0)), qos=1)
        with Publisher(broker.address, STORE.id, "cameras") as publisher:
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.got)
        assert same(listening.got[0], frame(T_NS)) and len(listening.got) == 1
        wait_for(lambda: listening.live.publishers.get("cameras") == "stopped")
        ignored = listening.live.ignored
        ignored.pop("mqtt: sent again", None)  # A publisher that comes in does so.
        assert ignored == {
            "mqtt: detections: another version": 3,
            "mqtt: detections: unknown camera": 3,
            "mqtt: unknown topic": 3,
            "mqtt: status: malformed": 3,
            "mqtt: gates: another version": 3,
            "mqtt: engine: malformed": 3,
            "mqtt: weights: unknown plate": 1,
        }
        assert listening.kinds()["message refused"] == 7, "each reason once"
        assert any("camera 'cam/99+' is not in cameras.toml" in sentence(warning) for warning in listening.told)
    client.disconnect()
    client.loop_stop()


@needs_broker
def test_an_engine_that_does_not_keep_up_drops_frames_before_scans(broker):
    going = threading.Event()
    with Listening(broker.address, each=lambda one: going.wait(), queue_max=80) as listening:
        with Publisher(broker.address, STORE.id, "all") as publisher:
            # Before it has met the engine, it would send what it keeps once more, and that would be counted, too.
            wait_for(lambda: publisher.state == "online" and publisher._engine == listening.live._session)
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.got)
            publisher.publish(*(frame(T_NS + k) for k in range(1, 501)))
            publisher.publish(GateScan(T_NS, "entry", "card", "somebody"))
            assert publisher.flush()
            time.sleep(0.3)
            going.set()
            wait_for(lambda: any(isinstance(one, GateScan) for one in listening.got))
            publisher.publish(frame(T_NS + 600))
            wait_for(lambda: listening.got[-1].t_ns == T_NS + 600)
        dropped = listening.live.ignored["mqtt: detections: queue full"]
        assert 400 < dropped < 500 and len(listening.got) + dropped == 503
        assert listening.live.ignored["mqtt: detections: never arrived"] == dropped, "the numbers show it, too"
        assert listening.kinds()["messages dropped"] and listening.kinds()["messages missing"]


@needs_broker
def test_a_publisher_without_a_broker_keeps_the_newest(broker):
    broker.stop()
    publisher = Publisher(broker.address, STORE.id, "cameras", kept_max=10)
    publisher.publish(*(frame(T_NS + k * 10**8) for k in range(25)))
    assert publisher.dropped == 15 and not publisher.flush(0.1)
    with Listening(broker.address) as listening:
        broker.start()
        wait_for(lambda: len(listening.got) == 10)
        assert [one.t_ns for one in listening.got] == [T_NS + k * 10**8 for k in range(15, 25)]
        wait_for(lambda: listening.kinds()["publisher dropped messages"])
    publisher.close()


@needs_broker
def test_gates_ask_and_are_answered(broker):
    keeper = GateKeeper(STORE, {"staff": StaffList(["sesame"]), "open": OpenDoor()})
    answers: list = []
    with (
        Listening(broker.address, decide=keeper.scan) as listening,
        Publisher(broker.address, STORE.id, "gate", on_command=answers.append) as gate,
    ):
        wait_for(lambda: listening.live.caught_up and listening.live.publishers.get("gate") == "online")
        staff = gate.ask(GateRequest(T_NS, "entry", "staff", "sesame"))
        stranger = gate.ask(GateRequest(T_NS + 1, "entry", "staff", "mustard"))
        leaves = gate.ask(GateRequest(T_NS + 2, "exit", "open", leaving=True))
        wait_for(lambda: len(answers) == 3)
        said = {one.request: (one.gate, one.open, one.reason, one.time) for one in answers}
        assert said == {
            staff: ("entry", True, "welcome", T_NS),
            stranger: ("entry", False, "not on the staff list", T_NS + 1),
            leaves: ("exit", True, "way out", T_NS + 2),
        }
        wait_for(lambda: listening.got)
        assert listening.got == [GateScan(T_NS, "entry", "staff", "sesame")]
        # What is asked while nobody can answer is not answered when everybody has gone.
        broker.stop()
        monotonic = time.monotonic
        gate.ask(GateRequest(T_NS + 3, "entry", "staff", "sesame"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mqtt.time, "monotonic", lambda: monotonic() + mqtt.REQUEST_MAX_S)
            broker.start()
            wait_for(lambda: listening.live.connected and gate.state == "online" and gate.flush(0.1))
            time.sleep(0.3)
        assert len(answers) == 3


@needs_broker
def test_without_a_keeper_gates_stay_shut(broker):
    answers: list = []
    with (
        Listening(broker.address) as listening,
        Publisher(broker.address, STORE.id, "gate", on_command=answers.append) as gate,
    ):
        wait_for(lambda: listening.live.caught_up and listening.live.publishers.get("gate") == "online")
        gate.ask(GateRequest(T_NS, "entry", "card", "tok_12345678"))
        wait_for(lambda: answers)
        assert not answers[0].open and answers[0].reason == "nobody decides here" and not listening.got


@needs_broker
def test_who_may_not_listen_is_told_so(tmp_path):
    tool = Path(MOSQUITTO).parent.parent / "bin" / "mosquitto_passwd"
    if not tool.exists():
        pytest.skip("no mosquitto_passwd on this machine")
    passwords = tmp_path / "passwords"
    subprocess.run([tool, "-c", "-b", passwords, "shop", "right"], check=True, capture_output=True)
    passwords.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", f"allow_anonymous false\npassword_file {passwords}\n")
    try:
        address = f"mqtt://shop@{broker.address}"
        with Listening(Broker.of(address, "wrong")) as listening:
            wait_for(lambda: listening.error)
            assert "refused: " in str(listening.error) and "wrong" not in str(listening.error)
        with Listening(Broker.of(address, "right")) as listening:
            wait_for(lambda: listening.live.connected)
    finally:
        broker.stop()


@needs_broker
def test_tls_is_checked(tmp_path):
    pytest.importorskip("cryptography")
    certificate, key = self_signed(tmp_path)
    broker = Mosquitto(tmp_path / "broker", f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n")
    try:
        with Listening(Broker.of(f"mqtts://{broker.address}")) as listening:
            wait_for(lambda: listening.told)
            assert listening.kinds() == {"broker lost": 1} and "certificate" in sentence(listening.told[0])
        trusted = Broker.of(f"mqtts://{broker.address}", ca=certificate)
        with Listening(trusted) as listening, Publisher(trusted, STORE.id, "cameras") as publisher:
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.got)
    finally:
        broker.stop()


# ---- the program -----------------------------------------------------------------------------------------------------


def start(program: str, *args: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / program), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run_store(*args: object) -> tuple[int, str, str]:
    process = start("run_store.py", *args)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def saved(store: Store, folder: Path) -> Path:
    store.save(folder / "store")
    return folder / "store"


def self_signed(folder: Path) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "broker.crt", folder / "broker.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@needs_broker
def test_three_terminals(shop, tmp_path):
    """Broker, store and sensors as docs/mqtt.md shows them, and the recording replayed."""
    broker = Mosquitto(tmp_path / "broker")
    try:
        out, recorded = tmp_path / "out", tmp_path / "recorded"
        store = start(
            "run_store.py", "--store", shop / "store", "--mqtt", broker.address, "--record", recorded,
            "--out", out,
        )  # fmt: skip
        assert "live from" in store.stdout.readline()
        sensors = start("publish_recording.py", shop, "--mqtt", broker.address, "--speed", 16)
        said, err = sensors.communicate(timeout=60)
        assert sensors.returncode == 0 and "observations published" in said, err
        time.sleep(1.0)
        store.send_signal(signal.SIGTERM)
        said, err = store.communicate(timeout=60)
        assert store.returncode == 0 and "Traceback" not in err, err
        assert "came in at entry" in said and " took " in said and "chain holds" in said
        replay(recorded, tmp_path / "replayed")
        receipts = (out / "receipts.jsonl").read_bytes()
        assert receipts.count(b"\n") == 1 and receipts == (tmp_path / "replayed" / "receipts.jsonl").read_bytes()
        again = ("--store", shop / "store", "--mqtt", "x", "--record", recorded, "--out", out)
        code, _, err = run_store(*again)
        assert code == 2 and "is not a new or empty folder" in err
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--mqtt", "x"], "--mqtt needs --store"),
        (["--mqtt", "mqtt://me:secret@x", "--store", "STORE"], "want no password in the address"),
        (["--mqtt", "x", "--store", "STORE", "--mqtt-password-file", "none"], "none: want the broker's password"),
    ],
)
def test_mistakes_are_told_in_a_line(args, said, tmp_path):
    args = [saved(STORE, tmp_path) if arg == "STORE" else arg for arg in args]
    code, _, err = run_store(*args, "--out", tmp_path / "out")
    assert code == 2 and said in err and "Traceback" not in err and "secret" not in err
