"""Everything of fusion that reads bytes from elsewhere, each as a function of bytes, with small samples made by code.

A reader returns or raises one of its documented errors; anything else is a finding, and so are a hang and a memory
limit that is exceeded. `fuzz.run` lets atheris look for such bytes; `fuzz.test_readers` tries some without it.
"""

from __future__ import annotations

import atexit
import gzip
import hashlib
import io
import json
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from files.small_recordings import T0_NS, small_recording, small_store

from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.feeds.deepstream import DeepStreamFeed
from fusion.feeds.event_stream import events
from fusion.feeds.feed import Feed, LineLost, Message
from fusion.feeds.llrp import ReaderFeed, parameter
from fusion.feeds.onvif import OnvifFeed, SceneReader
from fusion.feeds.people import Pictures
from fusion.feeds.protobuf import bytes_field, number_field
from fusion.feeds.rtp import DocumentAssembler, Malformed
from fusion.feeds.rtsp import metadata_track
from fusion.feeds.scales import ScaleFeed
from fusion.feeds.settings import FeedsFile
from fusion.feeds.sgtin import gtin14_of
from fusion.feeds.sparkplug import SparkplugFeed
from fusion.files.cameras import read_calibration, save_calibration
from fusion.files.conversion import load_times
from fusion.files.detections import load_detections
from fusion.files.recordings import Recording, RecordingWriter
from fusion.files.weight_tables import load_weights
from fusion.gates.verifiers import GateRequest
from fusion.goods_in.conversion import Choices, converted
from fusion.goods_in.importing import Import
from fusion.goods_in.spreadsheets import read_spreadsheet
from fusion.live.gaps import Gaps
from fusion.live.messages import (
    Command,
    Decoder,
    Mark,
    Refused,
    Status,
    frame_payload,
    line_payload,
    request_payload,
    status_payload,
    weights_payload,
)
from fusion.live.scan_log import ScanLog
from fusion.money.ledger import Ledger
from fusion.money.links import store_links
from fusion.money.retailers import Chain
from fusion.money.settlement import read_settlement
from fusion.observations import Frame, GateScan, ItemSighting, ShelfReading
from fusion.show.console.evidence_file import EvidenceFile
from fusion.show.console.users import Users
from fusion.snapshots import copied, resume, snapshot
from fusion.store.card_numbers import without_card_number
from fusion.store.gs1 import Codes, read_code
from fusion.store.gtin import gtin_14, gtin_fault
from fusion.store.models import Store
from fusion.till.customers import CustomerFile
from fusion.till.settings import TillFile

Read = Callable[[bytes], object]
# Between messages that a device sends one after another.
NEXT = b"\x1e\x1e\x1e\x1e"
TOPICS = (("detections", "north"), ("weights", "p1"), ("gates", "entry", "scan"), ("items", "exit"), ("other",))


@dataclass(frozen=True)
class Reader:
    """Something that reads bytes.

    Attributes:
        name: of it, letters and underscores. make: makes the function that reads, once in a process.
        seeds: makes samples that it can read.
        errors: what it may raise beside `FusionError`.
    """

    name: str
    make: Callable[[], Read]
    seeds: Callable[[], list[bytes]]
    errors: tuple[type[Exception], ...] = field(default=())

    def try_on(self, data: bytes) -> bool:
        """Read bytes; whether they were taken. Raises what the reader should not."""
        try:
            _made(self.name)(data)
        except (FusionError, *self.errors):
            return False
        return True


@cache
def _made(name: str) -> Read:
    return READERS[name].make()


@cache
def folder() -> Path:
    """A folder of this process, in memory where the machine has that."""
    shared = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared if shared.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def store() -> Store:
    return small_store()


@cache
def recording() -> Path:
    """A recording of some seconds, with a store folder in it."""
    made = folder() / "recording"
    with RecordingWriter(made, store()) as writer:
        for observation in small_recording(store(), n=3):
            writer.write(observation)
    return made


def file(name: str, read: Callable[[Path], object]) -> Callable[[], Read]:
    """A reader of a file of this name."""

    def make() -> Read:
        place = folder() / f"file-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        place.mkdir(exist_ok=True)

        def of(data: bytes) -> object:
            (place / name).write_bytes(data)
            (place / name).chmod(0o600)
            return read(place / name)

        return of

    return make


def replaced(name: str, read: Callable[[Path], object]) -> Callable[[], Read]:
    """A reader of a recording in which one file is replaced."""

    def make() -> Read:
        copy = folder() / f"with-{name.replace('/', '-')}"
        shutil.copytree(recording(), copy)
        return lambda data: (copy.joinpath(name).write_bytes(data), read(copy))

    return make


def of_recording(name: str) -> Callable[[], list[bytes]]:
    """The file of a recording as a sample."""
    return lambda: [recording().joinpath(name).read_bytes()]


def whole(folder: Path) -> object:
    return Counter(type(one).__name__ for one in Recording(folder).observations())


def fed(make: Callable[[], Feed]) -> Callable[[], Read]:
    """A reader of a feed's messages: a first byte chooses the topic, and each message is of a new feed."""
    topics = ("a/b", "spBv1.0/G/NBIRTH/N", "spBv1.0/G/DBIRTH/N/D", "spBv1.0/G/DDATA/N/D", "unit")

    def of(data: bytes) -> object:
        feed = make()
        arrived_ns = T0_NS
        for part in data.split(NEXT):
            topic = topics[part[0] % len(topics)] if part else ""
            try:
                feed.observations(Message(topic, part[1:], arrived_ns))
            finally:
                feed.quiet(arrived_ns)
            arrived_ns += 10**8
        return feed.health.line()

    return lambda: of


# ---- samples ---------------------------------------------------------------------------------------------------------


def json_bytes(*documents: Any) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


def live_messages() -> list[bytes]:
    """Messages of a store's own protocol, each after the number of its topic."""
    mark, found = Mark(1, 1), []
    for one in small_recording(store(), n=2):
        match one:
            case Frame():
                found.append(b"\x00" + frame_payload(one, mark))
            case ShelfReading():
                found.append(b"\x01" + weights_payload([one], mark))
            case GateScan():
                found.append(b"\x02" + line_payload(one, mark))
            case ItemSighting():
                found.append(b"\x03" + line_payload(one, mark))
    return found[:12]


def live() -> Read:
    def of(data: bytes) -> object:
        return Decoder(store()).observations(TOPICS[data[0] % len(TOPICS)] if data else (), data[1:])

    return of


def engine() -> Read:
    """An engine that has seen some seconds, and is then given frames, weights and scans whose numbers are any bytes.

    Each part of the input: a byte for the kind, one for the sensor, four for the time in ms, then float32 values.
    """
    begun = Engine(store())
    for observation in small_recording(store(), n=3):
        begun.feed(observation)
    cameras, plates, width = ("north", "south"), ("p1", "p2"), 3 * store().layout.n_joints

    def of(data: bytes) -> object:
        copy, n_results = copied(begun), 0
        for part in data.split(NEXT):
            if len(part) < 6:
                continue
            t_ns = T0_NS + 3 * 10**9 + 10**6 * int.from_bytes(part[2:6], "little", signed=True) // 1000
            values = np.frombuffer(part[6 : 6 + (len(part) - 6) // 4 * 4], "<f4")
            match part[0] % 3:
                case 0:
                    people = values[: len(values) // width * width].reshape(-1, width // 3, 3)
                    one: Any = Frame(t_ns, cameras[part[1] % 2], people)
                case 1:
                    one = ShelfReading(t_ns, plates[part[1] % 2], values)
                case _:
                    one = GateScan(t_ns, "entry", "qr", part[6:].decode("utf-8", "replace")[:64])
            n_results += len(copy.feed(one))
        return n_results + len(copy.close())

    return of


def engine_inputs() -> list[bytes]:
    """Frames with a person, weights and a scan, one after another."""
    found = []
    for i, one in enumerate(small_recording(store(), n=2)):
        head = struct.pack("<i", 1000 * 20 * i)
        match one:
            case Frame():
                found.append(b"\x00\x00" + head + one.keypoints.astype("<f4").tobytes())
            case ShelfReading():
                found.append(b"\x01\x00" + head + one.samples.astype("<f4").tobytes())
            case GateScan():
                found.append(b"\x02\x00" + head + b"ann")
    return [NEXT.join(found), *found[:4]]


def deepstream(form: Any) -> Callable[[], Feed]:
    box = store().model_copy(update={"keypoints": "box2"})
    return lambda: DeepStreamFeed("d", Pictures(box), {"s0": "north"}, form=form, types=["person"], size=None)


def onvif(*, as_json: bool) -> Callable[[], Feed]:
    box = store().model_copy(update={"keypoints": "box2"})
    return lambda: OnvifFeed("c", SceneReader("north", Pictures(box), None, 0.0), as_json=as_json)


def scale() -> Feed:
    return ScaleFeed("s", "p1", store(), unit_g=None, unit_topic="unit", key="value.grams", rate_hz=None)


def sparkplug() -> Feed:
    return SparkplugFeed(
        "s", store(), {"weight": "p1"}, group="G", node="N", device="D", unit_g=1.0, rate_hz=None,
        send=lambda topic, payload: None,
    )  # fmt: skip


def tags() -> Feed:
    return ReaderFeed("exit", store(), {1: "entry"}, probability=0.99, again_s=10.0, clock="reader")


def onvif_xml() -> bytes:
    shape = '<tt:Shape><tt:BoundingBox left="-0.5" top="0.5" right="0.0" bottom="-0.5"/></tt:Shape>'
    kind = '<tt:Class><tt:Type Likelihood="0.8">Human</tt:Type></tt:Class>'
    return (
        '<tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema"><tt:VideoAnalytics>'
        '<tt:Frame UtcTime="2026-01-01T09:00:00.000Z" Source="m"><tt:Transformation><tt:Translate x="-1" y="-1"/>'
        '<tt:Scale x="0.003" y="0.004"/></tt:Transformation>'
        f'<tt:Object ObjectId="1"><tt:Appearance>{shape}{kind}</tt:Appearance></tt:Object>'
        "</tt:Frame></tt:VideoAnalytics></tt:MetadataStream>"
    ).encode()


def onvif_json() -> bytes:
    box = {"left": "-0.5", "top": "0.5", "right": "0.0", "bottom": "-0.5"}
    person = {"ObjectId": "1", "Appearance": {"Shape": {"BoundingBox": box}, "Class": {"Type": [{"value": "Human"}]}}}
    return json.dumps({"Frame": [{"UtcTime": "2026-01-01T09:00:00.000Z", "Object": [person]}]}).encode()


def deepstream_json() -> list[bytes]:
    box = {"topleftx": 10, "toplefty": 20, "bottomrightx": 60, "bottomrighty": 220}
    minimal = {"version": "4.0", "id": "1", "@timestamp": "2026-01-01T09:00:00.000Z", "sensorId": "s0",
               "objects": ["7|10.0|20.0|60.0|220.0|person|#|pose2D|nose,30.0,30.0,0.9"]}  # fmt: skip
    person = {"id": "7", "bbox": box, "person": {}}
    full = {"@timestamp": minimal["@timestamp"], "sensor": {"id": "s0"}, "object": person}
    return json_bytes(minimal, full)


def deepstream_protobuf() -> bytes:
    box = b"".join(struct.pack("<Bf", number << 3 | 5, value) for number, value in enumerate((10, 20, 60, 220), 1))
    person = bytes_field(1, b"7") + bytes_field(2, box) + bytes_field(3, b"person")
    time = number_field(1, T0_NS // 10**9)
    fields = (b"4.0", b"1", time, b"s0", person)
    return b"".join(bytes_field(number, value) for number, value in enumerate(fields, 1))


def sparkplug_birth() -> list[bytes]:
    """A birth of node and device, and a value, as one sequence of messages."""
    at = number_field(1, T0_NS // 10**6)

    def metric(name: bytes, kind: int, value: bytes) -> bytes:
        return bytes_field(2, bytes_field(1, name) + number_field(2, 5) + number_field(4, kind) + value)

    weight = metric(b"weight", 10, b"\x69" + struct.pack("<d", 1000.0))
    node = b"\x01" + at + metric(b"bdSeq", 4, number_field(11, 3)) + number_field(3, 0)
    device = b"\x02" + at + weight + number_field(3, 1)
    value = b"\x03" + at + weight + number_field(3, 2)
    return [node, device, value, NEXT.join((node, device, value))]


def tag_report() -> bytes:
    epc = (int(f"{0x30:08b}{1:03b}{5:03b}{4006381:024b}{33393:020b}{7:038b}", 2)).to_bytes(12, "big")
    body = b"\x8d" + epc + b"\x81" + struct.pack(">H", 1) + b"\x86" + struct.pack(">b", -50)
    return parameter(240, body + b"\x82" + struct.pack(">Q", 7) + b"\x84" + struct.pack(">Q", T0_NS // 1000))


def rtp_packets() -> list[bytes]:
    packet = struct.pack(">BBHII", 0x80, 0x80 | 107, 7, 90_000, 1) + onvif_xml()
    report = struct.pack(">BBHIIIII", 0x80, 200, 6, 1, 2_208_988_800 + 1_700_000_000, 0, 90_000, 0) + bytes(4)
    return [b"\x00" + packet, b"\x01" + report]


def rtp() -> Read:
    def of(data: bytes) -> object:
        assembler = DocumentAssembler()
        for part in data.split(NEXT):
            (assembler.report if part[:1] == b"\x01" else assembler.document)(part[1:])
        return assembler.n_torn

    return of


def xlsx() -> bytes:
    from openpyxl import Workbook

    book, out = Workbook(), io.BytesIO()
    pen, bread = ("4006381333931", "Pen", 0.99, 20), ("96385074", "Bread", 1.99, 500)
    for row in (("EAN", "Name", "Price", "Weight (g)"), pen, bread):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def goods(path: Path) -> object:
    choices = Choices(weight_spread=Decimal(1), vat=Decimal(7))
    sheet = read_spreadsheet(path)
    return converted(path.name, sheet, "EUR", Codes([]), choices)


def chain(path: Path) -> object:
    if not (path.parent / "shop").exists():
        shutil.copytree(recording() / "store", path.parent / "shop")
    return Chain.load(path)


def importing(path: Path) -> object:
    (path.parent / "goods.csv").write_bytes(CSV[1])
    return Import.read(path.parent / "goods.csv", path.parent, Choices()).text()


CSV = (
    b"EAN;Bezeichnung;Preis;Gewicht (g);MwSt\n4006381333931;Stift;0,99;20,5;19\n0096385074;Brot;1,99;500;7\n",
    "gtin,name,price,weight_g,weight_sd_g,vat_rate\n4006381333931,Pen,99,20.0,1.0,19\n".encode("utf-16"),
    "EAN\tName\tPreis\n4006381333931\tK\u00e4se\t1.299,00 \u20ac\n".encode("cp1252"),
)  # fmt: skip
WEIGHTS = b"time,plate,grams\n" + b"".join(
    f"{T0_NS + round(i * 1e9 / 60)},p1,{100 + i}\n".encode() for i in range(8)
)
TIMES = f"frame,time\n1,{T0_NS}\n2,2026-11-30T09:00:00Z\n".encode()
IMPORTED = b'currency = "EUR"\nin_store_codes = ["28IIIIIWWWWWC"]\n'
SDP = b"""v=0\r\na=control:*\r\nm=application 0 RTP/AVP 107\r
a=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:t\r\n"""
CODES = (
    b"4006381333931", b"96385074", b"14006381333938", b"https://id.gs1.org/01/04006381333931/10/AB?3103=000500&17=261231",
    b"(01)04006381333931(3103)000500(15)261231(10)A1", b"]C1010400638133393131030005001726123110AB\x1d21X",
    b"2812345012504", b"01040063813339313922123",
)  # fmt: skip
SETTLEMENT = b"""reference,kind,amount,currency,fee,date
ch1,capture,1.99,EUR,0.05,2026-03-03\nre1,refund,0.99,EUR,0,2026-03-04\n"""
TILL = b"""[payment]\nprovider = "test"\n[gates]\ncode_key = "key.pem"\n[answers]\nsettle = false\n"""
FEEDS = b"""store = "amazon_go"\n[to]\naddress = "localhost"\n[broker.a]\naddress = "b"
[[scale]]\nbroker = "a"\nplate = "g1s1p01"\ntopic = "s/1"\nunit = "kg"\n"""
CHAIN = b"""format_version = 1\n[[retailer]]\nid = "r"\nname = "R"\nbrand = "B"\nstores = ["shop"]\n
[serve]\nsource = "mqtt://b"\n"""
COLMAP = b"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n1 OPENCV 1920 1080 1100 1090 955 545 -0.05 0.01 0.001 -0.0005\n"
ROS = b"""image_width: 1920\nimage_height: 1080\ncamera_name: north
camera_matrix: {rows: 3, cols: 3, data: [1100, 0, 960, 0, 1100, 540, 0, 0, 1]}
distortion_model: plumb_bob\ndistortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [1100, 0, 960, 0, 0, 1100, 540, 0, 0, 0, 1, 0]}\n"""
QUALISYS = b"""<calibration><cameras><camera active="1" serial="1" viewrotation="0" model="none">
<fov_video left="0" top="0" right="1919" bottom="1079"/><transform x="1" y="2" z="3" r11="1" r12="0" r13="0" r21="0"
r22="1" r23="0" r31="0" r32="0" r33="1"/><intrinsic focalLengthU="70400" focalLengthV="70400" centerPointU="61440"
centerPointV="34560" skew="0" radialDistortion1="0" radialDistortion2="0" radialDistortion3="0"
tangentalDistortion1="0" tangentalDistortion2="0"/></camera></cameras></calibration>"""


def calibration_toml() -> list[bytes]:
    path = folder() / "seed.toml"
    save_calibration(path, store().cameras)
    return [path.read_bytes()]


def calibration_json() -> list[bytes]:
    matrix, square = [[1100.0, 0.0, 960.0], [0.0, 1100.0, 540.0], [0.0, 0.0, 1.0]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
    panoptic = {"cameras": [{"name": "00_00", "type": "hd", "resolution": [1920, 1080], "K": matrix,
                             "distCoef": [0.1, 0, 0, 0, 0], "R": square, "t": [[0.0], [1.0], [300.0]]}]}  # fmt: skip
    nvidia = {"version": "1.0", "sensors": [{"type": "camera", "id": "s0", "intrinsicMatrix": matrix,
                                             "extrinsicMatrix": [[*row, 1.0] for row in square]}]}  # fmt: skip
    return json_bytes(panoptic, nvidia)


def intrinsics(path: Path) -> object:
    return read_calibration(path, poses=False)


def detections_json() -> list[bytes]:
    flat = [value for joint in range(17) for value in (500.0 + joint, 100.0 + 20 * joint, 0.9)]
    openpose = {"version": 1.3, "people": [{"pose_keypoints_2d": flat}]}
    coco = [{"image_id": 1, "category_id": 1, "keypoints": flat, "score": 0.9}]
    person = {"image_id": 1, "category_id": 1, "keypoints": flat, "bbox": [1, 2, 3, 4]}
    annotations = {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "person"}],
                   "annotations": [person]}  # fmt: skip
    instance = {"keypoints": [flat[i : i + 2] for i in range(0, 51, 3)], "keypoint_scores": [0.9] * 17}
    mmpose = {"instance_info": [{"frame_id": 1, "instances": [instance]}]}
    return json_bytes(openpose, coco, annotations, mmpose)


def detections(path: Path) -> object:
    return load_detections(path, store().layout, skeleton="coco17", size_px=(1920.0, 1080.0))


def scan_log() -> Read:
    def of(data: bytes) -> object:
        place = folder() / "scans"
        place.mkdir(exist_ok=True)
        (place / "scans.jsonl").write_bytes(data)
        return ScanLog(place).read(b"snapshot")

    return of


def scans() -> bytes:
    head = {"after": hashlib.sha256(b"snapshot").hexdigest(), "streams": {"north": [T0_NS, 10**8, True]}}
    line = {"time": T0_NS, "gate": "entry", "credential": {"type": "account", "account": "ann"}}
    return b"\n".join(json_bytes(head, {"gate": True, "since": True, "line": line}))


def gaps() -> bytes:
    reason = {"kind": "goods_uncertain", "plate": "p1", "delta_g": -100.0, "probability": 0.6}
    return json.dumps({"gaps": [[T0_NS, T0_NS + 1, T0_NS + 2, "data_lost"]], "visits": {"v1": reason}}).encode()


def evidence(path: Path) -> object:
    return EvidenceFile(path).bundle("v1")


def small_snapshot() -> list[bytes]:
    return [snapshot(Engine(store()), b"key")]


def books(path: Path) -> object:
    small_books()
    shutil.copy2(folder() / "seed" / "store.key", path.parent)
    for beside in path.parent.glob("*-wal"):
        beside.unlink()
    with Ledger.open(path, store()) as ledger:
        return ledger.reviews(), ledger.balances()


@cache
def small_books() -> list[bytes]:
    (folder() / "seed").mkdir()
    path = folder() / "seed" / "shop.sqlite"
    with Ledger.open(path, store()) as ledger:
        ledger.open_visit("v1", "ann", T0_NS)
    return [path.read_bytes()]


def users() -> list[bytes]:
    user = {"salt": "0" * 32, "hash": "0" * 64, "stores": {"shop": {"roles": ["look"]}}}
    return json_bytes({"format": 2, "users": {"anna": user}})


def link() -> Read:
    links = store_links(b"k" * 32, "shop", "http://localhost", b"a" * 32)
    return lambda data: links.read(data.decode("utf-8", "replace"), 1.7e9)


def gate_code() -> Read:
    """Codes whose signature is right, so that what is behind it is reached."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fusion.gates.codes import CodeVerifier, UsedCodes

    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    verifier = CodeVerifier({"": key.public_key()}, "shop", UsedCodes(folder() / "used.sqlite"))
    return lambda data: verifier.verify(GateRequest(T0_NS, "entry", "qr", data.decode("utf-8", "replace")))


def gate_codes() -> list[bytes]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fusion.gates.codes import CodeSigner

    signer = CodeSigner(Ed25519PrivateKey.from_private_bytes(b"k" * 32), "shop", nonce=lambda: bytes(16))
    return [signer.code("ann", T0_NS).encode()]


def text(read: Callable[[str], object]) -> Callable[[], Read]:
    """A reader of text."""
    return lambda: lambda data: read(data.decode("utf-8", "surrogateescape"))


def of_codes(code: str) -> object:
    without_card_number(code)
    gtin_fault(code) or gtin_14(code)
    return Codes(["28IIIIIWWWWWC", "29IIIIIPPPPPC"]).read(code) if len(code) % 2 else read_code(code)


def commands() -> list[bytes]:
    answer = Command(v=2, time=T0_NS, gate="entry", request=1, open=True, reason="welcome", display="Hi", again_s=1.0)
    return [b"\x00" + answer.payload(), b"\x01" + status_payload("online", "e", 3)]


def command(data: bytes) -> object:
    model = (Command, Status)[data[0] % 2] if data else Status
    return model.model_validate_json(data[1:])


def lines_of(stream: bytes) -> Iterator[tuple[str, str]]:
    return events(io.BytesIO(stream))


def _store_readers() -> list[Reader]:
    names = ("store.toml", "cameras.toml", "plates.csv", "products.csv", "planogram.csv")
    load = Store.load
    return [
        Reader(f"store_{name.replace('.', '_')}", replaced(f"store/{name}", lambda at: load(at / "store")),
               of_recording(f"store/{name}"))
        for name in names
    ]  # fmt: skip


def _recording_readers() -> list[Reader]:
    names = ("gate.jsonl", "items.jsonl", "detections.parquet", "weights.parquet")
    return [Reader(name.replace(".", "_"), replaced(name, whole), of_recording(name)) for name in names]


def _file_readers() -> list[Reader]:
    till = [TILL]
    return [
        Reader("calibration_toml", file("c.toml", read_calibration), calibration_toml),
        Reader("calibration_json", file("c.json", read_calibration), calibration_json),
        Reader("calibration_yaml", file("c.yaml", intrinsics), lambda: [ROS]),
        Reader("calibration_xml", file("c.qca.txt", read_calibration), lambda: [QUALISYS]),
        Reader("calibration_text", file("cameras.txt", intrinsics), lambda: [COLMAP]),
        Reader("detections_json", file("d.json", detections), detections_json),
        Reader("detections_text", file("d.txt", detections),
               lambda: [b"1,1,912,484,97,109,0.9,1,1\n", b"0 0.5 0.5 0.1 0.2 " + b"0.5 0.5 2 " * 17 + b"\n"]),
        Reader("weights_csv", file("w.csv", lambda path: load_weights(path, store(), Counter())), lambda: [WEIGHTS]),
        Reader("times_csv", file("t.csv", lambda path: load_times(path, 0)), lambda: [TIMES]),
        Reader("goods_csv", file("g.csv", goods), lambda: list(CSV)),
        Reader("goods_xlsx", file("g.xlsx", goods), lambda: [xlsx()]),
        Reader("import_store_toml", file("store.toml", importing), lambda: [IMPORTED]),
        Reader("settlement", file("s.csv", lambda path: read_settlement(path, store())), lambda: [SETTLEMENT]),
        Reader("till_toml", file("till.toml", TillFile.load), lambda: till),
        Reader("feeds_toml", file("feeds.toml", FeedsFile.load), lambda: [FEEDS]),
        Reader("chain_toml", file("chain.toml", chain), lambda: [CHAIN]),
        Reader("users_json", file("users.json", Users), users),
        Reader("customers_csv", file("customers.csv", lambda path: CustomerFile(path).of("ann")),
               lambda: [b"account,token,email,member,adult\nann,tok,ann@mail.example,no,no\n"]),
        Reader("evidence", file("evidence.jsonl", evidence), lambda: [b'{"visit": "v1", "account": "a"}\n']),
        Reader("gaps", file("doubts.json", lambda path: Gaps(path).read()), lambda: [gaps()], (ValueError,)),
        Reader("scan_log", scan_log, lambda: [scans()]),
        Reader("books_sqlite", file("shop.sqlite", books), small_books),
        Reader("snapshot", lambda: lambda data: resume(data, store(), key=b"key"), small_snapshot),
    ]  # fmt: skip


def _message_readers() -> list[Reader]:
    refused = (Refused,)
    return [
        Reader("live_messages", live, live_messages, refused),
        Reader("engine", engine, engine_inputs),
        Reader("gate_request", lambda: lambda data: Decoder(store()).request("entry", data),
               lambda: [request_payload(GateRequest(T0_NS, "entry", "qr", "abc"), Mark(1, 1))], refused),
        Reader("command", lambda: command, commands, (ValueError,)),
        Reader("deepstream_json", fed(deepstream("json")), lambda: [b"\x00" + one for one in deepstream_json()],
               refused),
        Reader("deepstream_protobuf", fed(deepstream("protobuf")), lambda: [b"\x00" + deepstream_protobuf()], refused),
        Reader("onvif_xml", fed(onvif(as_json=False)),
               lambda: [b"\x00" + onvif_xml(), b"\x00" + gzip.compress(onvif_xml(), mtime=0)], refused),
        Reader("onvif_json", fed(onvif(as_json=True)), lambda: [b"\x00" + onvif_json()], refused),
        Reader("scale", fed(scale),
               lambda: [b'\x04{"unit_of_measurement": "kg"}' + NEXT + b'\x00{"value": {"grams": 1.5}}'], refused),
        Reader("sparkplug", fed(sparkplug), sparkplug_birth, refused),
        Reader("llrp", fed(tags), lambda: [b"\x00" + tag_report()], refused),
        Reader("sgtin", lambda: gtin14_of, lambda: [tag_report()[5:17]], refused),
        Reader("rtp", rtp, rtp_packets, (Malformed,)),
        Reader("sdp", text(lambda words: metadata_track(words, "rtsp://camera/path")), lambda: [SDP], (LineLost,)),
        Reader("event_stream", lambda: lambda data: list(lines_of(data)),
               lambda: [b'event: state\ndata: {"id":"sensor-w","value":1.5}\n\n'], (LineLost,)),
        Reader("codes", text(of_codes), lambda: list(CODES), (ValueError,)),
        Reader("link", link, lambda: [store_links(b"k" * 32, "shop", "http://localhost", b"a" * 32)
                                      .token("visit", "v1", 1.7e9).encode()]),
        Reader("gate_code", gate_code, gate_codes),
    ]  # fmt: skip


READERS = {one.name: one for one in (*_store_readers(), *_recording_readers(), *_file_readers(), *_message_readers())}
