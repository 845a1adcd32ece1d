"""Everything that may be wrong with a store folder or a recording: one clear fault each, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files.small_recordings import (
    NO_PEOPLE,
    SECOND,
    T0_NS,
    assert_same,
    copy,
    frame,
    key,
    live,
    reading,
    run,
    small_recording,
    small_store,
    write,
)

from fusion.errors import ConfigError, FusionError, RecordingError
from fusion.files.recordings import Recording
from fusion.observations import Frame, Observation
from fusion.order import Reorder
from fusion.store.models import Store

STORE_TOML = """\
format_version = 1
id = "shop"
name = "Shop"
currency = "EUR"
timezone = "Europe/Berlin"
floor = [[0.0, 0.0], [8.0, 0.0], [8.0, 6.0], [0.0, 6.0]]
keypoints = "coco17"
weight_rate_hz = 60.0

[[gate]]
id = "entry"
direction = "in"
line = [[0.2, 0.0], [1.2, 0.0]]
credentials = ["qr", "staff"]

[[zone]]
id = "pay"
kind = "payment"
polygon = [[5.0, 0.0], [6.0, 0.0], [6.0, 1.0], [5.0, 1.0]]

[obstacle]
boxes = [[1.0, 2.0, 4.0, 2.6, 1.8]]
"""
CAMERAS_TOML = """\
[cam_0]
name = "north"
size = [1920, 1080]
matrix = [[1100.0, 0.0, 960.0], [0.0, 1100.0, 540.0], [0.0, 0.0, 1.0]]
distortions = [0.0, 0.0, 0.0, 0.0, 0.0]
rotation = [1.5, 0.0, 0.0]
translation = [0.0, 2.0, 3.0]

[cam_1]
name = "south"
size = [1920, 1080]
matrix = [[1100.0, 0.0, 960.0], [0.0, 1100.0, 540.0], [0.0, 0.0, 1.0]]
distortions = [0.0, 0.0, 0.0, 0.0, 0.0]
rotation = [1.5, 0.0, 0.3]
translation = [0.0, 2.0, 3.0]

[metadata]
error = 0.1
"""
PLATES = "plate,x,y,z,width,depth,yaw,capacity_g\np1,1.0,1.0,1.0,0.3,0.4,0.0,20000\np2,2.0,1.0,1.0,0.3,0.4,0.0,20000\n"
PRODUCTS = (
    "gtin,name,weight_g,weight_sd_g,price,vat_rate\n4006381333931,Pen,20.0,1.0,99,19\n96385074,Gum,30.0,1.0,149,7\n"
)
PLANOGRAM = "plate,gtin,stock\np1,4006381333931,3\np2,96385074,5\n"
FILES = {
    "store.toml": STORE_TOML,
    "cameras.toml": CAMERAS_TOML,
    "plates.csv": PLATES,
    "products.csv": PRODUCTS,
    "planogram.csv": PLANOGRAM,
}


def write_store(folder: Path, **changes: str | bytes | None) -> Path:
    """A store folder; a file's name without its end, in changes, replaces it, and None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        new = changes.get(name.partition(".")[0], text)
        if new is not None:
            (folder / name).write_bytes(new if isinstance(new, bytes) else new.encode())
    return folder


def change(file: str, *pairs: tuple[str, str]) -> dict[str, str]:
    text = FILES[file]
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return {file.partition(".")[0]: text}


def faults_of(opening: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        opening()
    assert isinstance(caught.value, FusionError) and isinstance(caught.value, ValueError)
    assert all(fault in str(caught.value) and "\n" not in fault for fault in caught.value.faults)
    return list(caught.value.faults)


def test_a_correct_folder(tmp_path: Path) -> None:
    store = Store.load(write_store(tmp_path / "store"))
    assert [camera.name for camera in store.cameras] == ["north", "south"]
    assert store.plates[1].plate == "p2" and store.planogram[0].stock == 3
    bare = write_store(tmp_path / "bare", cameras="", plates=PLATES.split("\n")[0], products=PRODUCTS.split("\n")[0])
    (bare / "planogram.csv").write_text("plate,gtin,stock\n")
    (bare / "store.toml").write_text(STORE_TOML.split("[[gate]]")[0])
    assert Store.load(bare).gate == () and Store.load(bare).cameras == ()
    crlf = {
        name.partition(".")[0]: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() for name, text in FILES.items()
    }
    assert Store.load(write_store(tmp_path / "windows", **crlf)) == store


BAD_STORES = {
    # files
    "no store.toml": ({"store": None}, "store.toml: the file does not exist"),
    "no planogram": ({"planogram": None}, "planogram.csv: the file does not exist"),
    "empty store.toml": ({"store": ""}, "format_version: missing"),
    "empty CSV": ({"plates": ""}, "plates.csv: want a header plate,x,y"),
    "not TOML": ({"cameras": "[cam_0\n"}, "cameras.toml: want TOML, got: "),
    "not UTF-8": ({"products": PRODUCTS.encode() + b"\xff"}, "products.csv:4: want UTF-8, got byte 0xff at offset 107"),
    "binary": ({"store": b"\x00\x01\x02"}, "store.toml: want TOML"),
    "semicolons": ({"products": PRODUCTS.replace(",", ";")}, "products.csv:1: want columns separated by commas, got"),
    "tabs": ({"plates": PLATES.replace(",", "\t")}, "plates.csv:1: want columns separated by commas, got tabs"),
    "UTF-16": ({"products": PRODUCTS.encode("utf-16")}, "products.csv: want UTF-8, got UTF-16; `fusion import`"),
    "open quote": ({"products": PRODUCTS + '4006381333931,"x\n'}, "products.csv:4: want CSV, got: "),
    # columns and keys
    "missing column": (
        change("plates.csv", (",capacity_g", "")),
        "plates.csv:1: missing column 'capacity_g'; want plate,x,y",
    ),
    "unknown column": (
        change("planogram.csv", ("stock", "count")),
        "planogram.csv:1: missing column 'stock', unknown column 'count'",
    ),
    "column twice": (change("plates.csv", ("plate,x", "plate,x,x")), "plates.csv:1: a column twice"),
    "cell missing": (change("products.csv", (",19\n", "\n")), "products.csv:2: want 6 cells, got 5"),
    "unknown key": (change("store.toml", ("weight_rate_hz", "rate_hz")), "store.toml: rate_hz: unknown key"),
    "unknown key of a gate": (
        change("store.toml", ("direction", "dirction")),
        "store.toml: gate[0].direction: missing",
    ),
    "unknown table": (change("store.toml", ("[obstacle]", "[obstacles]")), "store.toml: obstacles: unknown key"),
    "a later format": (change("store.toml", ("format_version = 1", "format_version = 2")), "format_version: "),
    # wrong values
    "wrong dtype": (
        change("plates.csv", ("p1,1.0", "p1,left")),
        "plates.csv:2: plate 'p1': x: input should be a valid",
    ),
    "NaN": (change("plates.csv", ("p1,1.0", "p1,nan")), "plates.csv:2: plate 'p1': x: want a finite number, got nan"),
    "zero width": (change("plates.csv", (",0.3,0.4", ",0,0.4")), "plates.csv:2: plate 'p1': width: "),
    "unknown currency": (change("store.toml", ('"EUR"', '"EURO"')), "currency: want an ISO 4217 code such as EUR"),
    "unknown time zone": (change("store.toml", ("Europe/Berlin", "Berlin")), "timezone: want an IANA time zone"),
    "time zone with a path": (change("store.toml", ("Europe/Berlin", "../../etc/passwd")), "timezone: want an IANA"),
    "unknown layout": (change("store.toml", ('"coco17"', '"coco"')), "keypoints: "),
    "unknown credential": (change("store.toml", ('"staff"', '"retina"')), "gate[0].credentials[1]: "),
    "no credential": (change("store.toml", ('["qr", "staff"]', "[]")), "gate[0].credentials: "),
    "negative stock": (change("planogram.csv", (",3\n", ",-3\n")), "planogram.csv:2: stock: "),
    "stock of halves": (change("planogram.csv", (",3\n", ",1.5\n")), "planogram.csv:2: stock: "),
    "negative rate": (change("store.toml", ("60.0", "-60.0")), "weight_rate_hz: "),
    # units that show
    "plate in millimetres": (
        change("plates.csv", ("p1,1.0,1.0,1.0", "p1,1000.0,1000.0,1000.0")),
        "plates.csv:2: plate 'p1': x: want metres, got 1000.0",
    ),
    "width in centimetres": (change("plates.csv", (",0.3,0.4", ",30,40")), "plates.csv:2: plate 'p1': width: "),
    "yaw in degrees": (
        change("plates.csv", (",0.0,20000", ",90,20000")),
        "yaw: want radians within one turn (degrees?)",
    ),
    "capacity in kilograms": (
        change("plates.csv", ("20000", "20")),
        "capacity_g: want grams, at least 100 (kilograms?)",
    ),
    "weight in kilograms": (change("products.csv", ("20.0", "0.02")), "weight_g: want grams, at least 1 (kilograms?)"),
    "price in euros": (change("products.csv", (",99,", ",0.99,")), "price: want an integer of minor units such as 249"),
    "VAT as a fraction": (change("products.csv", (",19\n", ",0.19\n")), "vat_rate: want a percentage such as 19"),
    "camera in millimetres": (
        change("cameras.toml", ("[0.0, 2.0, 3.0]", "[0.0, 2000.0, 3000.0]")),
        "cameras.toml: [cam_0] translation[1]: want metres, got 2000.0",
    ),
    # shapes
    "clockwise floor": (
        change("store.toml", ("[8.0, 0.0], [8.0, 6.0], [0.0, 6.0]", "[0.0, 6.0], [8.0, 6.0], [8.0, 0.0]")),
        "floor: want corners counter-clockwise, got them clockwise",
    ),
    "floor that crosses itself": (
        change("store.toml", ("[8.0, 6.0], [0.0, 6.0]", "[0.0, 6.0], [8.0, 6.1]")),
        "floor: want a polygon that encloses an area once",
    ),
    "floor of two corners": (
        change("store.toml", (", [8.0, 6.0], [0.0, 6.0]", "")),
        "floor: want at least 3 corners, got 2",
    ),
    "clockwise zone": (
        change("store.toml", ("[6.0, 0.0], [6.0, 1.0], [5.0, 1.0]", "[5.0, 1.0], [6.0, 1.0], [6.0, 0.0]")),
        "zone[0].polygon: want corners counter-clockwise",
    ),
    "short gate": (
        change("store.toml", ("[1.2, 0.0]", "[0.21, 0.0]")),
        "gate[0].line: want a line at least 0.05 m long",
    ),
    "gate of three points": (change("store.toml", ("[1.2, 0.0]]", "[1.2, 0.0], [2, 0]]")), "gate[0].line: "),
    "box inside out": (
        change("store.toml", ("[[1.0, 2.0, 4.0", "[[4.0, 2.0, 1.0")),
        "obstacle: want x0 < x1 and y0 < y1",
    ),
    "plate outside the floor": (
        change("plates.csv", ("p2,2.0", "p2,9.0")),
        "plates.csv:3: plate 'p2': x, y: want a point on the floor, got (9.0, 1.0)",
    ),
    # references and doubles
    "bad GTIN digit": (
        change("products.csv", ("4006381333931", "4006381333932")),
        "products.csv:2: product '4006381333932': gtin: want check digit 1, got '4006381333932'",
    ),
    "GTIN of ten digits": (change("products.csv", ("96385074", "9638507412")), "gtin: want a GTIN of 8, 12, 13 or 14"),
    "GTIN as a float": (
        change("products.csv", ("4006381333931", "4.006381e12")),
        "products.csv:2: gtin: want a GTIN of 8, 12, 13 or 14",
    ),
    "GTINs as a spreadsheet shows them": (
        change("products.csv", ("4006381333931", "4.00638E+12"), ("96385074", "9.6E+07")),
        "products.csv:2: gtin: want a GTIN of 8, 12, 13 or 14 digits, got '4.00638E+12' (2 rows, 2 to 3)",
    ),
    "line break in a name": (
        change("products.csv", ("Gum", '"Gum\nball"')),
        "products.csv:4: product '96385074': name: want a name without control characters",
    ),
    "name from right to left": (
        change("products.csv", ("Gum", "\u202emug")),
        "products.csv:3: product '96385074': name: want a name without control characters",
    ),
    "control character in a plate's name": (change("plates.csv", ("p1", "p\x1b[2J1")), "(U+001B)"),
    "product twice, in two spellings": (
        change("products.csv", ("96385074", "04006381333931")),
        "products.csv: gtin: want each once, got '4006381333931' and '04006381333931', one number 2 times",
    ),
    "plate twice": (
        change("plates.csv", ("p2", "p1")),
        "plates.csv: plate: want each once, got 'p1' 2 times (row 2, row 3)",
    ),
    "product twice": (change("products.csv", ("96385074", "4006381333931")), "products.csv: gtin: want each once"),
    "facing twice": (
        {"planogram": PLANOGRAM + "p1,4006381333931,3\n"},
        "planogram.csv: plate and gtin: want each once, got ('p1', '4006381333931') 2 times (row 2, row 4)",
    ),
    "gate twice": (
        {"store": STORE_TOML + STORE_TOML[STORE_TOML.index("[[gate]]") : STORE_TOML.index("[[zone]]")]},
        "store.toml: gate: want each once, got 'entry' 2 times",
    ),
    "camera twice": (
        change("cameras.toml", ('"south"', '"north"')),
        "cameras.toml: name: want each once, got 'north' 2 times",
    ),
    "planogram of an unknown plate": (
        change("planogram.csv", ("p2", "p9")),
        "planogram.csv:3: plate: want a plate listed in plates.csv, got 'p9'",
    ),
    "planogram of an unknown product": (
        change("planogram.csv", ("96385074", "73513537")),
        "planogram.csv:3: gtin: want a gtin listed in products.csv, got '73513537'",
    ),
    # cameras
    "singular matrix": (
        change("cameras.toml", ("[0.0, 1100.0, 540.0]", "[0.0, 0.0, 540.0]")),
        "cameras.toml: [cam_0] want an invertible matrix, got",
    ),
    "matrix transposed": (
        change(
            "cameras.toml",
            (
                "[1100.0, 0.0, 960.0], [0.0, 1100.0, 540.0], [0.0, 0.0, 1.0]",
                "[1100.0, 0.0, 0.0], [0.0, 1100.0, 0.0], [960.0, 540.0, 1.0]",
            ),
        ),
        "cameras.toml: [cam_0] want last row of matrix 0, 0, 1",
    ),
    "normalised matrix": (
        change("cameras.toml", ("[1100.0, 0.0, 960.0], [0.0, 1100.0, 540.0]", "[0.57, 0.0, 0.5], [0.0, 1.02, 0.5]")),
        "cameras.toml: [cam_0] want focal lengths in pixels",
    ),
    "four coefficients": (
        change("cameras.toml", ("[0.0, 0.0, 0.0, 0.0, 0.0]", "[0.0, 0.0, 0.0, 0.0]")),
        "[cam_0] distortions",
    ),
    "NaN rotation": (change("cameras.toml", ("[1.5, 0.0, 0.0]", "[nan, 0.0, 0.0]")), "want finite calibration values"),
    "fisheye": (change("cameras.toml", ('name = "north"', 'name = "north"\nfisheye = true')), "[cam_0] fisheye: "),
    "camera without a pose": (
        change("cameras.toml", ("rotation = [1.5, 0.0, 0.0]\n", "")),
        "[cam_0] rotation: missing",
    ),
    "not a table": ({"cameras": "north = 3\n"}, "cameras.toml: north: want a table, got 3"),
}


@pytest.mark.parametrize("name", BAD_STORES)
def test_bad_store(tmp_path: Path, name: str) -> None:
    changes, wanted = BAD_STORES[name]
    faults = faults_of(lambda: Store.load(write_store(tmp_path / "store", **changes)))
    assert any(fault.startswith("store/") and wanted in fault for fault in faults), faults


# Faults of a whole file or row hide what else refers to it; these have two or three wrong values of their own.
_NOT_ALONE = {
    *("empty store.toml", "unknown key of a gate"),
    *("plate in millimetres", "width in centimetres", "camera in millimetres"),
}


@pytest.mark.parametrize("name", [name for name in BAD_STORES if name not in _NOT_ALONE])
def test_one_mistake_is_one_fault(tmp_path: Path, name: str) -> None:
    faults = faults_of(lambda: Store.load(write_store(tmp_path / "store", **BAD_STORES[name][0])))
    assert len(faults) == 1, faults


def test_all_faults_of_a_folder_at_once(tmp_path: Path) -> None:
    changes = {
        **change("store.toml", ('"EUR"', '"EURO"'), ("[1.2, 0.0]", "[0.2, 0.0]"), ("weight_rate_hz", "hz")),
        **change("cameras.toml", ("[0.0, 1100.0, 540.0]", "[0.0, 0.0, 540.0]")),
        **change("plates.csv", ("p1,1.0", "p1,x"), ("20000\n", "20\n")),
        **change("products.csv", ("4006381333931", "4006381333932"), (",149,", ",1.49,")),
        **change("planogram.csv", (",3\n", ",-3\n"), ("p2", "p9")),
    }
    faults = faults_of(lambda: Store.load(write_store(tmp_path / "store", **changes)))
    for wanted in (
        "currency",
        "gate[0].line",
        "hz: unknown",
        "cam_0",
        "x: ",
        "capacity_g",
        "check digit",
        "price",
        "stock",
        "p9",
    ):
        assert sum(wanted in fault for fault in faults) >= 1, wanted
    assert {fault.split("/")[1].split(":")[0] for fault in faults} == set(FILES)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "nothing does not exist; pass a store folder" in faults_of(lambda: Store.load(tmp_path / "nothing"))[0]
    (tmp_path / "file").write_text("")
    assert "file is a file; pass a store folder" in faults_of(lambda: Store.load(tmp_path / "file"))[0]
    (tmp_path / "empty").mkdir()
    assert "empty is not a store folder" in faults_of(lambda: Store.load(tmp_path / "empty"))[0]
    for name in ("nothing", "file"):
        with pytest.raises(RecordingError, match="pass the folder of a recording"):
            Recording(tmp_path / name)


# ---- recordings ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = small_store()
    return write(tmp_path_factory.mktemp("sound"), store, small_recording(store))


Table = pa.Table


def rewritten(folder: Path, stream: str, edit: Callable[[Table], Table]) -> None:
    path = folder / f"{stream}.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def with_times(table: Table, times: np.ndarray) -> Table:
    return table.set_column(0, "time", pa.array(times))


BAD_COLUMNS: dict[str, tuple[str, Callable[[Table], Table], str]] = {
    "missing column": (
        "detections",
        lambda t: t.drop_columns(["camera"]),
        "detections.parquet: missing column 'camera', want string",
    ),
    "unknown column": (
        "weights",
        lambda t: t.append_column("unit", pa.array(["g"] * len(t))),
        "weights.parquet: unknown column 'unit'; want time, plate, samples",
    ),
    "column twice": (
        "weights",
        lambda t: pa.Table.from_arrays([*t.columns, t.column("time")], [*t.column_names, "time"]),
        "weights.parquet: column 'time': want it once, got it twice",
    ),
    "times as floats": (
        "weights",
        lambda t: with_times(t, t.column("time").to_numpy().astype(float)),
        "weights.parquet: column 'time': want int64, got double",
    ),
    "times as timestamps": (
        "detections",
        lambda t: with_times(t, t.column("time").to_numpy().astype("M8[ns]")),
        "detections.parquet: column 'time': want int64, got timestamp[ns]",
    ),
    "cameras as numbers": (
        "detections",
        lambda t: t.set_column(1, "camera", pa.array(np.arange(len(t)))),
        "detections.parquet: column 'camera': want string, got int64",
    ),
    "samples as doubles": (
        "weights",
        lambda t: t.set_column(2, "samples", t.column("samples").cast(pa.list_(pa.float64()))),
        "weights.parquet: column 'samples': want list<float32>, got list<",
    ),
    "keypoints of another layout": (
        "detections",
        lambda t: t.set_column(2, "keypoints", pa.array([[]] * len(t), pa.list_(pa.list_(pa.float32(), 75)))),
        "detections.parquet: column 'keypoints': want list<fixed_size_list<float32>[51]>, got list<",
    ),
    "keypoints of any length": (
        "detections",
        lambda t: t.set_column(2, "keypoints", t.column("keypoints").cast(pa.list_(pa.list_(pa.float32())))),
        "detections.parquet: column 'keypoints': want list<fixed_size_list<float32>[51]>, got list<",
    ),
    "appearance that the store does not announce": (
        "detections",
        lambda t: t.append_column("appearance", pa.array([[]] * len(t), pa.list_(pa.list_(pa.float32(), 4)))),
        "detections.parquet: unknown column 'appearance'",
    ),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_bad_columns(sound: Path, tmp_path: Path, name: str) -> None:
    stream, edit, wanted = BAD_COLUMNS[name]
    copy(sound, tmp_path)
    rewritten(tmp_path, stream, edit)
    (fault,) = faults_of(lambda: Recording(tmp_path))
    assert fault.startswith(wanted)


def test_appearance_must_be_there_with_the_announced_length(sound: Path, tmp_path: Path) -> None:
    copy(sound, tmp_path)
    small_store(appearance_dim=4).save(tmp_path / "store")
    (fault,) = faults_of(lambda: Recording(tmp_path))
    assert fault == "detections.parquet: missing column 'appearance', want list<fixed_size_list<float32>[4]>"
    store = small_store(appearance_dim=4)
    observations: list[Observation] = [Frame(T0_NS, "north", np.ones((2, 17, 3)), np.ones((2, 4)))]
    write(tmp_path / "r", store, observations)
    vectors = pa.array([[[1.0] * 4]], pa.list_(pa.list_(pa.float32(), 4)))
    rewritten(tmp_path / "r", "detections", lambda t: t.set_column(3, "appearance", vectors))
    recording = Recording(tmp_path / "r")
    assert list(recording.observations()) == []
    assert recording.ignored == {"detections: another number of appearance vectors than of people": 1}


@pytest.mark.parametrize("divisor", [10**9, 10**6, 10**3])
@pytest.mark.parametrize("stream", ["detections", "weights"])
def test_times_in_another_unit(sound: Path, tmp_path: Path, stream: str, divisor: int) -> None:
    copy(sound, tmp_path)
    rewritten(tmp_path, stream, lambda t: with_times(t, t.column("time").to_numpy() // divisor))
    (fault,) = faults_of(lambda: list(Recording(tmp_path).observations()))
    assert fault.startswith(f"{stream}.parquet: time: want UTC nanoseconds since 1970, got 17")


def test_files_that_are_not_parquet(sound: Path, tmp_path: Path) -> None:
    copy(sound, tmp_path)
    for content in (b"", b"PAR1", b"time,plate\n", b"PAR1" + b"\0" * 100 + b"PAR1"):
        (tmp_path / "weights.parquet").write_bytes(content)
        (fault,) = faults_of(lambda: Recording(tmp_path))
        assert fault.startswith("weights.parquet: want a Parquet file, got: ")


def test_a_stream_that_is_both_a_file_and_a_folder(sound: Path, tmp_path: Path) -> None:
    copy(sound, tmp_path)
    (tmp_path / "weights").mkdir()
    assert faults_of(lambda: Recording(tmp_path)) == ["weights: want a file or a folder, got both"]


def test_all_faults_of_a_recording_at_once(sound: Path, tmp_path: Path) -> None:
    copy(sound, tmp_path)
    rewritten(tmp_path, "weights", lambda t: t.rename_columns(["time", "scale", "samples"]))
    (tmp_path / "detections.parquet").write_bytes(b"nothing")
    with open(tmp_path / "gate.jsonl", "a") as file:
        file.write("garbage\n{}\n")
    (tmp_path / "items.jsonl").write_text('{"time": 5}\n')
    faults = faults_of(lambda: Recording(tmp_path))
    starts = [
        "detections.parquet: want",
        "weights.parquet: missing",
        "weights.parquet: unknown",
        "gate.jsonl:13: ",
        "gate.jsonl:14: ",
        "items.jsonl:1: ",
    ]
    assert len(faults) == len(starts)
    assert all(fault.startswith(start) for fault, start in zip(faults, starts))
    # What is wrong with the store does not hide what is wrong with the streams.
    write_store(tmp_path / "store", **change("store.toml", ('"EUR"', '"EURO"')))
    faults = faults_of(lambda: Recording(tmp_path))
    assert faults[0].startswith("store/store.toml: currency") and sum("weights" in fault for fault in faults) == 2
    assert sum(".jsonl" in fault for fault in faults) == 3


def test_a_file_that_is_wrong_throughout_does_not_fill_the_screen(tmp_path: Path) -> None:
    write_store(tmp_path / "store")
    (tmp_path / "gate.jsonl").write_text("garbage\n" * 10_000)
    assert len(faults_of(lambda: Recording(tmp_path))) == 20


# ---- streams that misbehave ------------------------------------------------------------------------------------------


def test_rows_whose_times_run_backwards_are_put_in_order_or_counted(sound: Path, tmp_path: Path) -> None:
    copy(sound, tmp_path)
    observations = list(Recording(sound).observations())

    def swapped(table: Table) -> Table:
        order = np.arange(len(table))
        order[2:6] = order[5:1:-1]  # Within the two seconds that a message may be late.
        return table.take(pa.array(np.append(order, 0)))  # And the first row once more, far too late.

    rewritten(tmp_path, "detections", swapped)
    reorder = Reorder(2.0)
    out = run(reorder, list(Recording(tmp_path).observations()))
    assert_same(sorted(out, key=key), sorted(observations, key=key))
    assert [o.t_ns for o in out] == sorted(o.t_ns for o in out)
    assert reorder.ignored == {"detections: more than 2 s late": 1}


def test_a_hundred_cameras_one_of_them_down(tmp_path: Path) -> None:
    store = small_store()
    one = store.cameras[0]
    cameras = tuple(one.model_copy(update={"name": f"c{i:02d}"}) for i in range(100))
    store = store.model_copy(update={"cameras": cameras})
    frames: list[Observation] = [o for o in live(20, cameras=[camera.name for camera in cameras]) if o.camera != "c42"]
    write(tmp_path, store, frames)
    recording = Recording(tmp_path)
    assert recording.store == store
    reorder = Reorder(2.0)
    assert_same(run(reorder, list(recording.observations())), frames)
    assert not reorder.ignored and not recording.ignored


@pytest.mark.parametrize("hours", [1.0, -1.0])
def test_a_clock_that_jumps_an_hour_in_the_middle_is_counted(hours: float) -> None:
    arrivals: list[Observation] = []
    for i in range(400):
        jumped = 3600 * hours if i >= 200 else 0.0
        arrivals += [frame(0.04 * i, "north"), frame(0.04 * i + jumped, "south")]
        if i % 5 == 0:
            arrivals.append(reading(0.04 * i + 0.01))
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert sum(isinstance(o, Frame) and o.camera == "north" for o in out) == 400
    assert sum(isinstance(o, Frame) and o.camera == "south" for o in out) == 200
    assert reorder.ignored.total() == 200 and len(reorder.ignored) == 1


def test_every_message_sent_twice_counts_once() -> None:
    once: list[Observation] = [*live(50), *(reading(0.2 * i) for i in range(10))]
    once.sort(key=key)
    reorder = Reorder(2.0)
    out = run(reorder, [o for one in once for o in (one, one)])
    assert [key(o) for o in out] == [key(o) for o in once]
    assert reorder.ignored == {"detections: repeated": 100, "weights: repeated": 10}


def test_frames_without_people_are_kept_and_empty(tmp_path: Path) -> None:
    frames: list[Observation] = [Frame(T0_NS + i * SECOND, "north", NO_PEOPLE) for i in range(5)]
    write(tmp_path, small_store(), frames)
    assert_same(list(Recording(tmp_path).observations()), frames)
