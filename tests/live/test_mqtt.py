"""Live streams over a real broker: nothing lost, nothing twice, and nothing that others publish breaks the engine.

Waits are for events, with a generous limit; where an interval matters, a clock is moved by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from broker import MOSQUITTO, Mosquitto
from live.streams import CAMERA, STORE, T_NS, frame, same

from fusion.errors import ConfigError, FusionError
from fusion.files.recordings import Recording, RecordingWriter
from fusion.files.results import ResultsWriter
from fusion.gates.keeper import Decision, GateKeeper
from fusion.gates.verifiers import GateRequest, OpenDoor, StaffList
from fusion.live.clock import SystemClock
from fusion.live.connection import Broker, Timing
from fusion.live.messages import (
    Command,
    Mark,
    frame_payload,
    line_payload,
    request_payload,
    topic_of,
    weights_payload,
)
from fusion.live.mqtt import Live
from fusion.live.publisher import REQUEST_MAX_S, Publisher
from fusion.live.way_out import WayOut
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning, WarningKind
from fusion.run import Run, replay
from fusion.sentences import sentence
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]
# Generous: a machine may be busy with other work.
LIMIT_S = 120.0
# Publishers that were there are waited for, however long that takes, and no longer than that.
PATIENT = Timing(backoff_max_s=0.4, settle_s=0.0, catch_up_max_s=LIMIT_S, wills_s=LIMIT_S)
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")


class ShiftedClock(SystemClock):
    """The machine's clock, which a test may also move forward."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.shift_s


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of one shopper who takes three things in a shop of four cameras and twelve plates.

    Of the simulated minute, what follows the receipt is left out.
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


def wait_for(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until_s, "did not happen in time"
        time.sleep(0.01)


def publisher_of(broker: Mosquitto | Broker, name: str, **options: Any) -> Publisher:
    address = broker.address if isinstance(broker, Mosquitto) else broker
    return Publisher(address, STORE.id, name, timing=PATIENT, **options)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("shop", ("shop", 1883, False, None)),
        ("10.0.0.1:2000", ("10.0.0.1", 2000, False, None)),
        ("mqtt://[::1]", ("::1", 1883, False, None)),
        ("mqtts://till%201@shop", ("shop", 8883, True, "till 1")),
    ],
)
def test_addresses(address: str, wanted: tuple[object, ...]) -> None:
    broker = Broker.of(address, "secret")
    assert (broker.host, broker.port, broker.tls, broker.username) == wanted
    assert "secret" not in repr(broker) + str(broker)


@pytest.mark.parametrize("address", ["", "http://x", "shop:many", "shop:0", "mqtt://", "mqtt://u:secret@x", "mqtt://x/y"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Broker.of(address)
    assert "secret" not in str(refused.value)


# ---- a broker --------------------------------------------------------------------------------------------------------


class Listening:
    """A live source in a thread, and what it gave and warned of."""

    def __init__(
        self, broker: Mosquitto | Broker, each: Callable[[Observation], object] = lambda observation: None,
        timing: Timing = PATIENT, **options: Any,
    ) -> None:  # fmt: skip
        self.observations: list[Observation] = []
        self.warnings: list[Warning] = []
        self.error: Exception | None = None
        address = broker.address if isinstance(broker, Mosquitto) else broker
        self.live = Live(address, STORE, warn=self.warnings.append, timing=timing, **options)
        self._each = each
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for observation in self.live:
                self.observations.append(observation)
                self._each(observation)
        except FusionError as error:
            self.error = error

    def kinds(self) -> Counter[WarningKind]:
        return Counter(warning.kind for warning in self.warnings)

    def stop(self) -> None:
        self.live.stop()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@needs_broker
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_live_run_through_a_broken_broker_replays_to_the_same(
    how: signal.Signals, broker: Mosquitto, shop: Path, replayed_shop: Path, tmp_path: Path
) -> None:
    """And to what the sensors' own recording gives: nothing was lost, nothing late, nothing twice."""
    source = Recording(shop)
    observations = list(source.observations())
    names = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates"}
    with RecordingWriter(tmp_path / "recorded", source.store, segment_s=20.0) as writer:
        warnings: list[Warning] = []
        live = Live(broker.address, source.store, warn=warnings.append, timing=PATIENT)
        n_taken: Counter[type] = Counter()

        def counted() -> Iterator[Observation]:
            for observation in live:
                n_taken[type(observation)] += 1
                yield observation

        run = Run(source.store, counted(), tap=writer.write)
        results = ResultsWriter(tmp_path / "live", source.store, run.engine.account_of)
        thread = threading.Thread(target=run.drive, args=([results], live), daemon=True)
        thread.start()
        publishers = {
            kind: Publisher(broker.address, source.store.id, name, timing=PATIENT, kept_s=1e4)
            for kind, name in names.items()
        }
        # Scales and gates are 1.2 seconds late.
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
                # As fast as possible, but not so that one publisher's data overtake another's by two seconds.
                assert all(publisher.flush(LIMIT_S) for publisher in publishers.values())
        wait_for(lambda: live.caught_up and n_taken.total() == len(observations))
        for publisher in publishers.values():
            publisher.close()
        live.stop()
        thread.join(LIMIT_S)
    assert {WarningKind.BROKER_LOST, WarningKind.BROKER_BACK} <= {warning.kind for warning in warnings}
    assert run.summary(live).ignored.keys() == {"mqtt: sent again"}
    replay(tmp_path / "recorded", tmp_path / "replayed")
    (receipt,) = map(json.loads, (tmp_path / "live" / "receipts.jsonl").read_text().splitlines())
    assert receipt["total"] > 0 and receipt["account"]
    for name in ("receipts.jsonl", "events.jsonl"):
        live_answers, replayed_answers = ((tmp_path / folder / name).read_bytes() for folder in ("live", "replayed"))
        assert live_answers == replayed_answers == (replayed_shop / name).read_bytes()


@needs_broker
@pytest.mark.parametrize("order", ["engine publishers broker", "publishers broker engine", "broker engine publishers"])
def test_the_order_of_starting_does_not_matter(order: str, tmp_path: Path) -> None:
    broker, clock = Mosquitto(tmp_path / "broker", start=False), ShiftedClock()
    # The engine gives publishers that it does not know yet an hour to settle: until the test moves its clock.
    timing = Timing(backoff_max_s=0.4, settle_s=3600.0, catch_up_max_s=7200.0)
    listening: Listening | None = None
    publishers: list[Publisher] = []
    # Two publishers, nine seconds each, whose data arrive in order only if the engine waits for both.
    times_ns = range(T_NS, T_NS + 9 * 10**9, 10**8)
    sent = {name: [frame(t_ns, camera=camera.name) for t_ns in times_ns] for name, camera in zip("ab", STORE.cameras)}
    try:
        for program in order.split():
            if program == "broker":
                broker.start()
                wait_for(lambda: all(publisher.state == "online" for publisher in publishers))  # noqa: B023
            elif program == "engine":
                listening = Listening(broker, timing=timing, clock=clock)
                wait_for(lambda: listening.live.connected or listening.warnings)  # noqa: B023
            else:
                publishers = [publisher_of(broker, name) for name in sent]
                for publisher in publishers:
                    publisher.publish(*sent[publisher.name])
        assert listening is not None
        wait_for(lambda: list(listening.live.publishers.values()) == ["online"] * 2)
        wait_for(lambda: {publisher.engine for publisher in publishers} == {listening.live.session})
        assert all(publisher.flush(LIMIT_S) for publisher in publishers)
        clock.shift_s = 3600.0
        wait_for(lambda: len(listening.observations) >= 180)
        listening.stop()
        got = [(one.camera, one.t_ns) for one in listening.observations if isinstance(one, Frame)]
        assert Counter(got) == Counter((one.camera, one.t_ns) for frames in sent.values() for one in frames)
        if order != "broker engine publishers":
            assert [t_ns for _, t_ns in got] == sorted(t_ns for _, t_ns in got)
        for publisher in publishers:
            publisher.close()
    finally:
        broker.stop()


@needs_broker
def test_an_engine_that_was_killed_gets_what_was_published_meanwhile(broker: Mosquitto) -> None:
    program = (
        "from fusion.live.mqtt import Live; from fusion.simulation import demo_store\n"
        f"for one in Live({broker.address!r}, demo_store(n_cameras=2, n_plates=4)): print(one.t_ns, flush=True)"
    )
    engine = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with publisher_of(broker, "cameras", kept_s=0.0) as publisher:
        wait_for(lambda: publisher.engine)
        publisher.publish(frame(T_NS))
        assert engine.stdout is not None and engine.stdout.readline().strip() == str(T_NS)
        engine.kill()
        engine.wait()
        publisher.publish(*(frame(T_NS + k * 10**8) for k in range(1, 50)))
        # The publisher keeps nothing that was acknowledged: only the broker has these now.
        assert publisher.flush(LIMIT_S)
        publisher.publish(frame(T_NS + 50 * 10**8))
        with Listening(broker) as second:
            wait_for(lambda: second.observations and second.observations[-1].t_ns == T_NS + 50 * 10**8)
            # The first may come again: whether the dead engine had acknowledged it is a matter of chance.
            times_ns = [observation.t_ns for observation in second.observations if observation.t_ns > T_NS]
            assert times_ns == [T_NS + k * 10**8 for k in range(1, 51)]


@needs_broker
def test_a_dead_publisher_is_reported_and_a_stopped_one_is_no_alarm(broker: Mosquitto) -> None:
    program = (
        "import time; from fusion.live.publisher import Publisher\n"
        f"Publisher({broker.address!r}, {STORE.id!r}, 'cameras'); time.sleep(600)"
    )
    with Listening(broker) as listening:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        wait_for(lambda: listening.live.publishers.get("cameras") == "online")
        process.kill()
        process.wait()
        wait_for(lambda: listening.live.publishers["cameras"] == "lost")
        with publisher_of(broker, "cameras"):
            wait_for(lambda: listening.live.publishers["cameras"] == "online")
        wait_for(lambda: listening.live.publishers["cameras"] == "stopped")
        wait_for(lambda: listening.kinds()[WarningKind.PUBLISHER_STOPPED])
        assert listening.kinds() == {
            WarningKind.PUBLISHER_LOST: 1, WarningKind.PUBLISHER_BACK: 1, WarningKind.PUBLISHER_STOPPED: 1,
        }  # fmt: skip
        assert {warning.subject for warning in listening.warnings} == {"cameras"}


@contextlib.contextmanager
def raw_client(broker: Mosquitto) -> Iterator[Any]:
    """A client that may publish whatever it wants."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@needs_broker
def test_rubbish_is_counted_reported_and_harmless(broker: Mosquitto) -> None:
    with raw_client(broker) as client, Listening(broker) as listening:
        wait_for(lambda: listening.live.caught_up)
        two_people = frame_payload(frame(T_NS, 2), Mark(1, 2))
        rubbish = [(("detections", CAMERA), b"x"), (("detections", "cam/99+"), two_people), (("sums",), b"")]
        rubbish += [(("status", "x"), b"{"), (("gates", "entry", "request"), b"{}"), (("engine",), b"\xff")]
        for levels, payload in rubbish * 3:
            client.publish(topic_of(STORE.id, *levels), payload, qos=1).wait_for_publish(LIMIT_S)
        unknown = [ShelfReading(T_NS, "nowhere", np.zeros(2, np.float32))]
        client.publish(topic_of(STORE.id, "weights", "s"), weights_payload(unknown, Mark(0, 0)), qos=1)
        with publisher_of(broker, "cameras") as publisher:
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.observations)
        assert same(listening.observations[0], frame(T_NS)) and len(listening.observations) == 1
        wait_for(lambda: listening.live.publishers.get("cameras") == "stopped")
        wait_for(lambda: listening.kinds()[WarningKind.MESSAGE_REFUSED] == 7)
        ignored = listening.live.ignored
        ignored.pop("mqtt: sent again", None)  # A publisher that meets the engine sends again.
        assert ignored == {
            "mqtt: detections: another version": 3,
            "mqtt: detections: unknown camera": 3,
            "mqtt: unknown topic": 3,
            "mqtt: status: malformed": 3,
            "mqtt: gates: another version": 3,
            "mqtt: engine: malformed": 3,
            "mqtt: weights: unknown plate": 1,
        }
        assert listening.kinds()[WarningKind.MESSAGE_REFUSED] == 7, "each reason once"
        assert any("camera 'cam/99+' is not in cameras.toml" in sentence(one) for one in listening.warnings)


@needs_broker
def test_an_engine_that_is_too_slow_drops_frames_before_scans(broker: Mosquitto) -> None:
    running = threading.Event()
    answers: list[Command] = []
    with Listening(broker, each=lambda observation: running.wait(), queue_max=80) as listening:
        with publisher_of(broker, "all", on_command=answers.append) as publisher:
            # Before it has met the engine, it would send again what it keeps, which would be counted as well.
            wait_for(lambda: publisher.state == "online" and publisher.engine == listening.live.session)
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.observations)
            publisher.publish(*(frame(T_NS + k) for k in range(1, 501)))
            publisher.publish(GateScan(T_NS, "entry", "card", "a shopper"))
            # Requests do not wait for the engine: once this one is answered, everything before it has arrived.
            publisher.ask(GateRequest(T_NS, "entry", "card", "tok_12345678"))
            wait_for(lambda: answers)
            running.set()
            wait_for(lambda: any(isinstance(one, GateScan) for one in listening.observations))
            publisher.publish(frame(T_NS + 600))
            wait_for(lambda: listening.observations[-1].t_ns == T_NS + 600)
        dropped = listening.live.ignored["mqtt: detections: queue full"]
        assert 400 < dropped < 500 and len(listening.observations) + dropped == 503
        assert listening.live.ignored["mqtt: detections: never arrived"] == dropped, "the numbers show it as well"
        assert listening.kinds()[WarningKind.MESSAGES_DROPPED] and listening.kinds()[WarningKind.MESSAGES_MISSING]


@needs_broker
@pytest.mark.attack(26)
def test_an_engine_that_waits_leaves_what_does_not_fit_with_the_broker(broker: Mosquitto) -> None:
    running, sent = threading.Event(), 500
    with Listening(broker, each=lambda observation: running.wait(), queue_max=80) as listening:
        with publisher_of(broker, "all", kept_s=0.0) as publisher:
            wait_for(lambda: publisher.state == "online" and publisher.engine == listening.live.session)
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.observations)
            listening.live.hold(True)
            session = listening.live.session
            publisher.publish(*(frame(T_NS + k) for k in range(1, sent)))
            assert publisher.flush(LIMIT_S), "the broker has them"
            wait_for(lambda: listening.live._left)
            assert listening.live.session == session and not running.is_set(), "it does not return while it waits"
            running.set()
            wait_for(lambda: len(listening.observations) == sent)
        assert [one.t_ns for one in listening.observations] == [T_NS + k for k in range(sent)]
        assert not listening.live.n_dropped and listening.live.session != session
        assert not listening.kinds()[WarningKind.MESSAGES_DROPPED]


@needs_broker
def test_what_is_published_after_an_engine_was_stopped_waits_for_the_next_one(broker: Mosquitto) -> None:
    """As after the end of `serve`: its stores stop in good order, and start again with the next one."""
    with publisher_of(broker, "all", kept_s=0.0) as publisher:
        with Listening(broker) as listening:
            wait_for(lambda: publisher.state == "online" and publisher.engine == listening.live.session)
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.observations)
        before = publisher.engine
        publisher.publish(*(frame(T_NS + k) for k in range(1, 101)))
        assert publisher.flush(LIMIT_S)
        with Listening(broker) as listening:
            wait_for(lambda: publisher.engine != before and len(listening.observations) == 100)
            assert [one.t_ns for one in listening.observations] == [T_NS + k for k in range(1, 101)]


@needs_broker
def test_a_publisher_without_a_broker_keeps_the_newest(broker: Mosquitto) -> None:
    broker.stop()
    publisher = publisher_of(broker, "cameras", kept_max=10)
    publisher.publish(*(frame(T_NS + k * 10**8) for k in range(25)))
    assert publisher.dropped == 15 and not publisher.flush(0.1)
    with Listening(broker) as listening:
        broker.start()
        wait_for(lambda: len(listening.observations) == 10)
        assert [observation.t_ns for observation in listening.observations] == [T_NS + k * 10**8 for k in range(15, 25)]
        wait_for(lambda: listening.kinds()[WarningKind.PUBLISHER_DROPPED])
    publisher.close()


@needs_broker
def test_gates_ask_and_are_answered(broker: Mosquitto) -> None:
    keeper = GateKeeper(STORE, {"staff": StaffList(["sesame"]), "open": OpenDoor()})
    answers: list[Command] = []
    clock = ShiftedClock()
    with (
        Listening(broker, decide=keeper.scan) as listening,
        publisher_of(broker, "gate", on_command=answers.append, clock=clock) as gate,
    ):
        wait_for(lambda: listening.live.caught_up and listening.live.publishers.get("gate") == "online")
        staff = gate.ask(GateRequest(T_NS, "entry", "staff", "sesame"))
        stranger = gate.ask(GateRequest(T_NS + 1, "entry", "staff", "mustard"))
        leaves = gate.ask(GateRequest(T_NS + 2, "exit", "open", asks="leave"))
        # A request to leave that the broker delivers twice is answered twice.
        wait_for(lambda: len(set(answers)) == 3)
        assert {(answer.gate, answer.request): (answer.open, answer.reason, answer.time) for answer in answers} == {
            ("entry", staff): (True, "welcome", T_NS),
            ("entry", stranger): (False, "not on the staff list", T_NS + 1),
            ("exit", leaves): (True, "way out", T_NS + 2),
        }
        wait_for(lambda: listening.observations)
        (scan,) = listening.observations
        assert isinstance(scan, GateScan) and (scan.t_ns, scan.gate, scan.credential_type) == (T_NS, "entry", "staff")
        assert scan.account.startswith("staff-") and "sesame" not in scan.account
        # A request that nothing can answer is not answered once the person has gone.
        broker.stop()
        gate.ask(GateRequest(T_NS + 3, "entry", "staff", "sesame"))
        clock.shift_s = REQUEST_MAX_S + 1.0
        broker.start()
        wait_for(lambda: listening.live.caught_up and gate.state == "online" and gate.flush(0.1))
        wait_for(lambda: gate.engine == listening.live.session)
        next_one = gate.ask(GateRequest(T_NS + 4, "entry", "staff", "sesame"))
        wait_for(lambda: len(set(answers)) == 4)
        assert answers[-1].request == next_one and answers[-1].open


@needs_broker
def test_without_a_keeper_gates_stay_closed(broker: Mosquitto) -> None:
    answers: list[Command] = []
    with Listening(broker) as listening, publisher_of(broker, "gate", on_command=answers.append) as gate:
        wait_for(lambda: listening.live.caught_up and listening.live.publishers.get("gate") == "online")
        gate.ask(GateRequest(T_NS, "entry", "card", "tok_12345678"))
        wait_for(lambda: answers)
        assert not answers[0].open and answers[0].reason == "no keeper decides here" and not listening.observations


@needs_broker
def test_retained_scans_and_requests_are_ignored_and_counted(broker: Mosquitto) -> None:
    """What a broker keeps for whoever connects says nothing about who stands at a gate now."""
    asked: list[GateRequest] = []

    def decide(request: GateRequest) -> Decision:
        asked.append(request)
        return Decision(False, "seen", "")

    request = request_payload(GateRequest(T_NS, "entry", "staff", "sesame"), Mark(1, 1))
    release = request_payload(GateRequest(T_NS, "exit", "open", asks="release"), Mark(1, 1))
    scan = line_payload(GateScan(T_NS, "entry", "account", "alice"), Mark(1, 1))
    sighting = line_payload(ItemSighting(T_NS, "reader", "read", STORE.products[0].gtin, 1, 1.0), Mark(1, 1))
    with raw_client(broker) as client:
        for levels, payload in (
            (("gates", "entry", "request"), request), (("gates", "exit", "request"), release),
            (("gates", "entry", "scan"), scan), (("items", "reader"), sighting),
        ):  # fmt: skip
            client.publish(topic_of(STORE.id, *levels), payload, qos=1, retain=True).wait_for_publish(LIMIT_S)
    with Listening(broker, decide=decide) as listening:
        wait_for(lambda: listening.live.caught_up)
        wait_for(lambda: listening.live.ignored["mqtt: gates: retained"] == 3)
        wait_for(lambda: listening.live.ignored["mqtt: items: retained"] == 1)
        assert not listening.observations and not asked


@needs_broker
@pytest.mark.attack(9)
def test_the_way_out_opens_while_the_engine_is_down(broker: Mosquitto) -> None:
    answers: list[Command] = []
    way_out = WayOut(Broker.of(broker.address), STORE, timing=PATIENT)
    try:
        with publisher_of(broker, "gate", on_command=answers.append) as gate:
            wait_for(lambda: gate.state == "online")
            number = gate.ask(GateRequest(T_NS, "exit", "open", asks="leave"))
            gate.ask(GateRequest(T_NS, "entry", "staff", "sesame"))
            last = gate.ask(GateRequest(T_NS, "exit", "open", asks="release"))
            wait_for(lambda: len(set(answers)) >= 2)
            assert {(a.request, a.open, a.reason) for a in answers} == {
                (number, True, "way out"), (last, True, "emergency release"),
            }  # fmt: skip
            # A broker that is killed and comes back finds both again; until then the exit opens by itself.
            broker.stop(signal.SIGKILL)
            wait_for(lambda: gate.state not in ("online", "resending"))
            broker.start()
            wait_for(lambda: gate.state == "online")
            answers.clear()

            def answered() -> bool:
                """Who gets no answer asks again, as the next person does."""
                gate.ask(GateRequest(T_NS, "exit", "open", asks="leave"))
                return bool(answers)

            wait_for(answered)
            assert all(answer.open for answer in answers)
    finally:
        way_out.close()


@needs_broker
def test_an_engine_that_may_not_listen_is_refused(tmp_path: Path) -> None:
    tool = Path(str(MOSQUITTO)).parent.parent / "bin" / "mosquitto_passwd"
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
def test_tls_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    certificate, key = self_signed(tmp_path)
    broker = Mosquitto(tmp_path / "broker", f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n")
    try:
        with Listening(Broker.of(f"mqtts://{broker.address}")) as listening:
            wait_for(lambda: listening.warnings)
            assert listening.kinds() == {WarningKind.BROKER_LOST: 1}
            assert "certificate" in sentence(listening.warnings[0])
        trusted = Broker.of(f"mqtts://{broker.address}", ca=certificate)
        with Listening(trusted) as listening, publisher_of(trusted, "cameras") as publisher:
            publisher.publish(frame(T_NS))
            wait_for(lambda: listening.observations)
    finally:
        broker.stop()


# ---- the program -----------------------------------------------------------------------------------------------------


def start(program: str, *args: object, stdout: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(ROOT / "examples" / program), *map(str, args)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)


def run_store(*args: object) -> tuple[int, str, str]:
    process = start("run_store.py", *args)
    output, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, output, errors


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
def test_three_terminals(shop: Path, tmp_path: Path) -> None:
    """Broker, store and sensors as docs/mqtt.md shows them, and the recording replayed."""
    broker = Mosquitto(tmp_path / "broker")
    try:
        out, recorded = tmp_path / "out", tmp_path / "recorded"
        printed = tmp_path / "printed"
        with printed.open("w") as output_file:
            store = start(
                "run_store.py", "--store", shop / "store", "--mqtt", broker.address, "--record", recorded,
                "--out", out, stdout=output_file,
            )  # fmt: skip
        wait_for(lambda: "live from" in printed.read_text())
        # A frame that waits too long is dropped, so the pace leaves both programs idle most of the time.
        sensors = start("publish_recording.py", shop, "--mqtt", broker.address, "--speed", 2)
        output, errors = sensors.communicate(timeout=LIMIT_S)
        assert sensors.returncode == 0 and "observations published" in output, errors
        wait_for(lambda: (out / "receipts.jsonl").read_bytes().count(b"\n"))
        store.send_signal(signal.SIGTERM)
        _, errors = store.communicate(timeout=LIMIT_S)
        output = printed.read_text()
        assert store.returncode == 0 and "Traceback" not in errors, errors
        assert "came in at entry" in output and " took " in output and "chain holds" in output
        replay(recorded, tmp_path / "replayed")
        receipts = (out / "receipts.jsonl").read_bytes()
        assert receipts.count(b"\n") == 1 and receipts == (tmp_path / "replayed" / "receipts.jsonl").read_bytes()
        again = ("--store", shop / "store", "--mqtt", "x", "--record", recorded, "--out", out)
        code, _, errors = run_store(*again)
        assert code == 2 and "is not a new or empty folder" in errors
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["--mqtt", "x"], "pass its folder with --store"),
        (["--mqtt", "mqtt://me:secret@x", "--store", "STORE"], "want no password in the address"),
        (["--mqtt", "x", "--store", "STORE", "--mqtt-password-file", "none"], "the broker's password does not exist"),
    ],
)
def test_mistakes_are_reported_in_a_line(args: list[str], wanted: str, tmp_path: Path) -> None:
    given = [saved(STORE, tmp_path) if arg == "STORE" else arg for arg in args]
    code, _, errors = run_store(*given, "--out", tmp_path / "out")
    assert code == 2 and wanted in errors and "Traceback" not in errors and "secret" not in errors
