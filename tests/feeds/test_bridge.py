"""`fusion feed`: a file is checked against its store, and streams end in a recording or at the store's broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, Mosquitto
from feeds.rtsp_camera import PASSWORD, USER, RtspCamera

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.feeds.bridge import Bridge
from fusion.feeds.destination import ToRecording
from fusion.feeds.health import Health, metrics_text
from fusion.feeds.settings import FeedsFile
from fusion.feeds.subscription import topic_matches
from fusion.files.recordings import Recording
from fusion.live.messages import Refused
from fusion.simulation import demo_store
from fusion.store.models import Store

T_NS = 1_767_258_000_000_000_000
PATIENCE_S = 60.0
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = demo_store(n_cameras=3, n_plates=4).model_copy(update={"keypoints": "box2"})
    made.save(tmp_path / "shop")
    return made


def feeds_file(folder: Path, text: str) -> Path:
    path = folder / "feeds.toml"
    path.write_text('store = "shop"\n' + text, encoding="utf-8")
    return path


def scene(second: float, left: float = -0.5) -> bytes:
    box = {"@left": left, "@top": 0.5, "@right": left + 0.2, "@bottom": -0.5}
    person = {"@ObjectId": 1, "Appearance": {"Shape": {"BoundingBox": box}, "Class": {"Type": [{"#text": "Human"}]}}}
    return json.dumps({"Frame": [{"@UtcTime": f"2026-01-01T09:00:{second:06.3f}Z", "Object": [person]}]}).encode()


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.01)


# ---- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_every_fault_of_a_file_is_named(tmp_path: Path) -> None:
    path = feeds_file(
        tmp_path,
        '[[onvif]]\ncamera = "cam99"\nurl = "rtsp://10.0.0.1/x"\n'
        '[[onvif]]\ncamera = "cam1"\nbroker = "here"\ntopic = "a/#"\n[[onvif]]\ncamera = "cam1"\nurl = "rtsp://b/c"\n',
    )
    with pytest.raises(ConfigError) as error:
        FeedsFile.load(path)
    text = str(error.value)
    assert "onvif[0].camera: want a camera of cameras.toml" in text and "'cam99'" in text
    assert "onvif[1].broker: want a table [broker.here]" in text
    for table, wanted in (
        ('[[onvif]]\ncamera = "cam1"\n', "url, or broker and topic"),
        ('[[onvif]]\ncamera = "cam1"\nurl = "http://x/y"\n', "rtsp://HOST/PATH"),
        ('[[onvif]]\ncamera = "cam1"\nurl = "rtsp://u:p@x/y"\n', "no user in the url"),
        ('[[onvif]]\ncamera = "cam1"\nurl = "rtsp://x/y"\nflavour = 1\n', "unknown key"),
        ("", "want at least one feed"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            FeedsFile.load(feeds_file(tmp_path, table))


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ('[[deepstream]]\nbroker = "b"\ntopic = "t"\ncameras = { s = "cam99" }\n', r"cameras.s: want a camera"),
        ('[[deepstream]]\ntopic = "t"\ncameras = { s = "CAM" }\n', "broker or kafka"),
        ('[[deepstream]]\nkafka = "k"\ntopic = "t"\ncameras = { s = "CAM" }\n', r"want a table \[kafka.k\]"),
        ('[[scale]]\nplate = "p99"\nbroker = "b"\ntopic = "t"\nunit = "g"\n', r"scale\[0\].plate: want a plate"),
        ('[[scale]]\nplate = "PLATE"\nbroker = "b"\ntopic = "t"\n', "one of unit, grams_per_unit and unit_topic"),
        ('[[scale]]\nplate = "PLATE"\nbroker = "b"\ntopic = "t/#"\nunit = "g"\n', "without wildcards"),
        ('[[scale]]\nplate = "PLATE"\nunit = "g"\n', "broker and topic, or device and id"),
        ('[[scale]]\nplate = "PLATE"\ndevice = "d"\nid = "i"\nunit = "g"\n', r"want a table \[device.d\]"),
        ('[[scale]]\nplate = "PLATE"\nbroker = "b"\ntopic = "t"\nunit = "g"\nrate_hz = 10.0\n', "never made up"),
        (
            '[[scale]]\nplate = "PLATE"\nbroker = "b"\ntopic = "t"\nunit = "g"\n'
            '[[sparkplug]]\nbroker = "b"\ngroup = "g"\nnode = "n"\nunit = "g"\nplates = { m = "PLATE" }\n',
            "want one feed for it, got 2",
        ),
        ('[[sparkplug]]\nbroker = "b"\ngroup = "g/h"\nnode = "n"\nunit = "g"\nplates = { m = "PLATE" }\n', "group"),
        ('[[sparkplug]]\nbroker = "b"\ngroup = "g"\nnode = "n"\nplates = { m = "PLATE" }\n', "unit or grams_per_unit"),
        ('[[reader]]\nname = "r"\nhost = "h"\nantennas = { 1 = "nowhere" }\n', r"reader\[0\].antennas.1: want a zone"),
        ('[[reader]]\nname = "r"\nhost = "h"\nantennas = { 0 = "exit" }\n', "antennas"),
        ('[device.d]\nurl = "cabinet.local"\n', "http://HOST/events"),
    ],
)
def test_a_fault_of_a_table_is_named(tmp_path: Path, store: Store, table: str, wanted: str) -> None:
    text = table.replace("CAM", store.cameras[0].name).replace("PLATE", store.plates[0].plate)
    with pytest.raises(ConfigError, match=wanted):
        FeedsFile.load(feeds_file(tmp_path, '[broker.b]\naddress = "h"\n' + text))


def test_boxes_need_a_store_of_boxes(tmp_path: Path) -> None:
    made = demo_store(n_cameras=1, n_plates=1)
    made.save(tmp_path / "shop")
    path = feeds_file(tmp_path, f'[[onvif]]\ncamera = "{made.cameras[0].name}"\nurl = "rtsp://x/y"\n')
    with pytest.raises(ConfigError, match='keypoints = "box2"'):
        FeedsFile.load(path)


def test_the_command_checks_a_file_and_names_what_is_missing(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = feeds_file(tmp_path, f'[[onvif]]\ncamera = "{store.cameras[0].name}"\nurl = "rtsp://x/y"\n')
    assert main(["feed", str(path), "--check"]) == 0
    assert main(["feed", str(path)]) == 2
    assert "want a table [to]" in capsys.readouterr().err
    assert main(["feed", str(tmp_path / "none.toml")]) == 2
    assert main(["feed", str(path), "--port", "99999", "--check"]) == 2


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_cameras_over_rtsp_are_recorded(tmp_path: Path, store: Store) -> None:
    documents = []
    for i in range(20):
        frame = f'<t:Frame UtcTime="2026-01-01T09:00:{i / 10:06.3f}Z"></t:Frame>'
        documents.append(
            f'<t:MetadataStream xmlns:t="http://www.onvif.org/ver10/schema"><t:VideoAnalytics>{frame}'
            "</t:VideoAnalytics></t:MetadataStream>".encode()
        )
    cameras = [RtspCamera(documents) for _ in store.cameras]
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    tables = [
        f'[[onvif]]\ncamera = "{camera.name}"\nurl = "{served.url}"\nuser = "{USER}"\npassword_file = "password"\n'
        for camera, served in zip(store.cameras, cameras)
    ]
    recording = ToRecording(tmp_path / "recording", store)
    bridge = Bridge(FeedsFile.load(feeds_file(tmp_path, "".join(tables))), recording)
    until_s = time.monotonic() + PATIENCE_S
    bridge.run(
        lambda: all(feed.health.taken >= 20 for feed in bridge.feeds) or time.monotonic() > until_s, lambda _: None
    )
    recording.close()
    for camera in cameras:
        camera.close()
    read = list(Recording(tmp_path / "recording").frames())
    for camera in store.cameras:
        times = [frame.t_ns for frame in read if frame.camera == camera.name]
        assert times[:20] == [T_NS + i * 100_000_000 for i in range(20)]
    health = bridge.health()
    assert set(health["feeds"]) == {f"onvif {camera.name}" for camera in store.cameras}
    assert any(line.startswith("destination: recording") for line in bridge.lines())


@needs_broker
def test_messages_of_a_broker_are_published_to_the_stores_own(tmp_path: Path, store: Store) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    broker = Mosquitto(tmp_path / "broker")
    name = store.cameras[0].name
    path = feeds_file(
        tmp_path,
        f'to.address = "{broker.address}"\n[broker.makers]\naddress = "{broker.address}"\n'
        f'[[onvif]]\ncamera = "{name}"\nbroker = "makers"\ntopic = "cam/onvif-mj/#"\n',
    )
    heard: list[tuple[str, bytes]] = []
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: heard.append((message.topic, message.payload))
    client.connect("127.0.0.1", broker.port)
    client.subscribe("fusion/v1/+/detections/+", 1)
    client.publish("cam/onvif-mj/old", scene(0.0), qos=1, retain=True)
    client.loop_start()
    command = threading.Thread(target=_run_bridge, args=(path, stop := threading.Event(), state := {}))
    command.start()
    wait_for(lambda: "bridge" in state and state["bridge"].feeds[0].health.state == "online")
    client.publish("cam/onvif-mj/VideoAnalytics/1/m", scene(1.0), qos=1)
    client.publish("cam/onvif-mj/VideoAnalytics/1/m", b"{", qos=1)
    client.publish("elsewhere", scene(1.0), qos=1)
    wait_for(lambda: len(heard) == 1 and sum(state["bridge"].feeds[0].health.refused.values()) == 2)
    stop.set()
    command.join(PATIENCE_S)
    client.loop_stop()
    broker.stop()
    assert heard[0][0] == f"fusion/v1/{store.id}/detections/{name}"
    assert heard[0][1][:4] == bytes([1, 1, 1, 0]), "a frame with one person, as docs/mqtt.md describes it"
    assert state["bridge"].feeds[0].health.refused == {"retained": 1, "not JSON": 1}
    assert state["said"] == [f"onvif {name}: not JSON: want JSON in UTF-8 (1 so far)"]


def _run_bridge(path: Path, stop: threading.Event, state: dict[str, Any]) -> None:
    from fusion.feeds.destination import ToBroker

    file = FeedsFile.load(path)
    assert file.settings.to is not None
    destination = ToBroker(file.settings.to.broker(file.base), file.store, "feeds")
    state["said"] = []
    state["bridge"] = Bridge(file, destination)
    state["bridge"].run(stop.is_set, state["said"].append)
    destination.close()


# ---- small parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "wanted", "matches"),
    [
        ("a/b/c", "a/b/c", True), ("a/b/c", "a/+/c", True), ("a/b/c", "a/#", True), ("a", "a/#", True),
        ("a/b", "a/b/c", False), ("a/b/c", "a/+", False), ("$SYS/x", "#", False), ("a//c", "a/+/c", True),
        ("", "#", True), ("a/b", "+", False),
    ],
)  # fmt: skip
def test_topics_match_as_the_client_library_matches_them(topic: str, wanted: str, matches: bool) -> None:
    client = pytest.importorskip("paho.mqtt.client")
    assert topic_matches(topic, wanted) is matches
    assert client.topic_matches_sub(wanted, topic) is matches


def test_health_keeps_few_reasons_and_says_each_at_every_tenfold() -> None:
    health = Health("x")
    for _ in range(100):
        health.refuse(Refused("malformed", "want a, got b"))
    assert [sentence.rpartition("(")[2] for sentence in health.sentences] == ["1 so far)", "10 so far)", "100 so far)"]
    for i in range(1000):
        health.refuse(Refused(f"reason {i}"))
    assert len(health.refused) <= 65 and sum(health.refused.values()) == 1100
    assert len(health.sentences) <= 16


def test_health_is_served_in_the_format_of_prometheus() -> None:
    pytest.importorskip("prometheus_client")
    health = Health("onvif cam1", "online", 3, behind_s=0.25)
    health.refused["malformed"] = 2
    text = metrics_text({"feeds": {"onvif cam1": health.status()}, "lost": {"queue full": 4}}).decode()
    assert 'fusion_feed_up{feed="onvif cam1"} 1.0' in text
    assert 'fusion_feed_refused_total{feed="onvif cam1",reason="malformed"} 2.0' in text
    assert 'fusion_feed_lost_total{reason="queue full"} 4.0' in text
