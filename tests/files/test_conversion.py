"""Keypoints, weights and gate events as people have them become a recording by the public command alone."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import poses

from fusion.commands.main import main
from fusion.files.recordings import Recording
from fusion.files.skeletons import SKELETONS
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.store.models import Store

RATE_HZ = 10.0


def openpose_folders(frames: list[Frame], first_ns: int, out: Path) -> None:
    """A folder for each camera, a file for each frame, numbers without leading zeros."""
    for frame in frames:
        number = round((frame.t_ns - first_ns) * RATE_HZ / 1e9)
        people = [{"person_id": [-1], "pose_keypoints_2d": p.ravel().tolist()} for p in frame.keypoints.astype(float)]
        folder = out / f"{frame.camera}_json"
        folder.mkdir(parents=True, exist_ok=True)
        document = json.dumps({"version": 1.3, "people": people})
        (folder / f"{frame.camera}_{number}_keypoints.json").write_text(document)


def coco_results(frames: list[Frame], first_ns: int, out: Path) -> None:
    """A file for each camera, which omits frames without people."""
    out.mkdir(parents=True, exist_ok=True)
    for camera in {frame.camera for frame in frames}:
        rows = [
            {"image_id": round((frame.t_ns - first_ns) * RATE_HZ / 1e9), "category_id": 1, "score": 0.9,
             "keypoints": person.ravel().tolist(), "bbox": [0, 0, 1, 1]}
            for frame in frames if frame.camera == camera for person in frame.keypoints.astype(float)
        ]  # fmt: skip
        (out / f"{camera}.json").write_text(json.dumps(rows))


def weights_csv(readings: list[ShelfReading], rate_hz: float, path: Path) -> None:
    """A row for each sample."""
    n = [len(reading.samples) for reading in readings]
    starts = np.repeat([reading.t_ns for reading in readings], n)
    step = np.concatenate([np.arange(k) for k in n]) * (1e9 / rate_hz)
    table = pa.table(
        {
            "time": starts + np.round(step).astype(np.int64),
            "plate": np.repeat([reading.plate for reading in readings], n),
            "grams": np.concatenate([reading.samples for reading in readings]).astype(np.float64),
        }
    )
    pyarrow.csv.write_csv(table, path)


def parts(recording: Recording) -> tuple[list[Frame], list[ShelfReading]]:
    observations = list(recording.observations())
    frames = [one for one in observations if isinstance(one, Frame)]
    return frames, [one for one in observations if isinstance(one, ShelfReading)]


@pytest.mark.parametrize(
    ("detector", "write"), [("thunder", openpose_folders), ("multipose", coco_results)], ids=["OpenPose", "COCO"]
)
def test_real_keypoints_become_a_recording_and_its_receipt(
    detector: str,
    write: Callable[[list[Frame], int, Path], None],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole way by public commands: keypoints of each camera, a table of weights, gate events; `fusion run`."""
    source = Recording(data / "real" / detector)
    frames, readings = parts(source)
    first_ns = min(frame.t_ns for frame in frames)
    weights_csv(readings, source.store.weight_rate_hz, tmp_path / "scales.csv")
    write(frames, first_ns, tmp_path / "keypoints")
    options = ["--store", str(source.folder / "store"), "--start", str(first_ns), "--rate", "10"]
    options += ["--weights", str(tmp_path / "scales.csv"), "--gate", str(source.folder / "gate.jsonl")]
    recording, results = tmp_path / "recording", tmp_path / "out"
    assert main(["convert", str(tmp_path / "keypoints"), "--out", str(recording), *options]) == 0
    assert "cam01, cam03, cam05, cam07: keypoints are in the order coco17 (COCO, 17)" in capsys.readouterr().out
    written, weighed = parts(Recording(recording))
    seen = {(frame.t_ns, frame.camera): frame.keypoints for frame in written}
    for frame in frames:
        people = np.where(frame.keypoints[:, :, 2:] > 0, frame.keypoints, 0.0)
        assert_allclose(seen[frame.t_ns, frame.camera], people, atol=1e-4)
    assert sum(len(frame.keypoints) for frame in written) == sum(len(frame.keypoints) for frame in frames)
    assert sum(len(reading.samples) for reading in weighed) == sum(len(reading.samples) for reading in readings)
    assert main(["run", str(recording), "--out", str(results)]) == 0
    truth = json.loads((source.folder / "truth" / "visits.jsonl").read_text().splitlines()[0])
    (receipt,) = map(json.loads, (results / "receipts.jsonl").read_text().splitlines())
    assert (receipt["status"], receipt["account"]) == ("settled", truth["account"])
    assert {line["gtin"]: line["quantity"] for line in receipt["lines"]} == truth["items"]
    with open(source.folder / "truth" / "events.csv", newline="") as file:
        picks = sorted(csv.DictReader(file), key=lambda row: int(row["time"]))
    events = sorted(map(json.loads, (results / "events.jsonl").read_text().splitlines()), key=lambda e: e["time"])
    assert len(events) == len(picks) == 2
    for event, pick in zip(events, picks):
        best = max(event["candidates"], key=lambda candidate: candidate["probability"])
        assert (event["plate"], best["account"]) == (pick["plate"], truth["account"])
        assert (best["gtin"], best["quantity"]) == (pick["gtin"], int(pick["quantity"]))


# ---- frames ----------------------------------------------------------------------------------------------------------

START_NS = 1_764_493_200_000_000_000
START = "2025-11-30T09:00:00Z"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A store of five cameras and sixteen plates."""
    assert main(["init", str(tmp_path / "shop")]) == 0
    return tmp_path / "shop"


def convert(shop: Path, *options: str, code: int = 0) -> Recording | None:
    out = shop.parent / "recording"
    shutil.rmtree(out, ignore_errors=True)
    assert main(["convert", *options, "--store", str(shop), "--out", str(out)]) == code
    return Recording(out) if out.exists() else None


def cameras_of(shop: Path) -> list[str]:
    return [camera.name for camera in Store.load(shop).cameras]


def rows_of(frames: dict[int, int]) -> list[dict[str, Any]]:
    """COCO results with a number of people in each frame, who stand, sit and bend."""
    rng = np.random.default_rng(5)
    return [
        {"image_id": frame, "category_id": 1, "keypoints": body.ravel().tolist(), "score": 1.0}
        for frame, n in frames.items()
        for body in poses.bodies(rng, n, list(SKELETONS["coco17"].joints))
    ]


def test_frames_without_people_are_added_where_files_omit_them(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = cameras_of(shop)[:2]
    (tmp_path / "a.json").write_text(json.dumps(rows_of({3: 9, 7: 1})))
    (tmp_path / "b.json").write_text(json.dumps(rows_of({1: 9, 5: 2, 9: 1})))
    given = ["--camera", f"{one}={tmp_path / 'a.json'}", "--camera", f"{two}={tmp_path / 'b.json'}"]
    recording = convert(shop, *given, "--start", START, "--rate", "20", "--first-frame", "1")
    frames, _ = parts(recording)
    assert [(f.t_ns - START_NS) // 10**6 for f in frames if f.camera == one] == [0, 100, 200, 300, 400]
    assert [len(f.keypoints) for f in frames if f.camera == one] == [0, 9, 0, 1, 0]
    assert [len(f.keypoints) for f in frames if f.camera == two] == [9, 0, 2, 0, 1]
    out = capsys.readouterr().out
    assert f"{one}: 5 frames (3 of them added) with 10 people, 2025-11-30T09:00:00.000Z to" in out
    assert f"{one}, {two}: the files omit images without people; those of one frame in 2 from 1 to 9 were added" in out
    convert(shop, *given, "--start", START, "--rate", "20", "--first-frame", "2", code=2)
    assert f"{two}: want frames from 2 on (--first-frame), got 1" in capsys.readouterr().err


def test_times_of_frames_from_a_list(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = cameras_of(shop)[0]
    (tmp_path / "a.json").write_text(json.dumps(rows_of({0: 9, 1: 1, 5: 1})))
    times = tmp_path / "t.csv"
    given = ["--camera", f"{one}={tmp_path / 'a.json'}", "--times", f"{one}={times}"]
    times.write_text(f"frame,time\n0,{START_NS}\n1,2025-11-30T09:00:00.040Z\n2,2025-11-30T10:00:00.1+01:00\n")
    frames, _ = parts(convert(shop, *given))
    assert [(f.t_ns - START_NS, len(f.keypoints)) for f in frames] == [(0, 9), (40_000_000, 1), (100_000_000, 0)]
    assert f"passed over: 1 x {one}: frames without a time" in capsys.readouterr().out
    times.write_text("time\n2025-11-30T09:00:00\nnoon\n1764493200\n")
    convert(shop, *given, code=2)
    err = capsys.readouterr().err
    for wanted in ("T09:00:00Z, got '2025-11-30T09:00:00'", "t.csv:3: time: want UTC", "times look like seconds"):
        assert wanted in err
    times.write_text(f"frame,time\n1,{START_NS}\n1,{START_NS}\n")
    convert(shop, *given, code=2)
    assert "t.csv:3: want each frame once, got 1 again" in capsys.readouterr().err


def test_a_folder_of_cameras_and_what_else_is_in_it(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = cameras_of(shop)[:2]
    folder = tmp_path / "keypoints"
    (folder / f"{one}_json").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(11):
        bodies = poses.bodies(rng, 2, list(SKELETONS["body25b"].joints))
        people = [{"pose_keypoints_2d": body.ravel().tolist()} for body in bodies]
        (folder / f"{one}_json" / f"f_{number}_keypoints.json").write_text(json.dumps({"people": people}))
    (folder / f"{two}.json").write_text("[]")
    (folder / "readme.txt").write_text("not a camera")
    (folder / f"{one}_json" / "log.csv").write_text("x")
    recording = convert(shop, str(folder), "--start", START, "--rate", "10")
    frames, _ = parts(recording)
    assert [f.t_ns for f in frames] == [START_NS + i * 10**8 for i in range(11)]
    out = capsys.readouterr().out
    assert "body25b (OpenPose BODY_25B): it makes bodies of 22 people" in out
    assert "passed over: 1 x readme.txt: not named as a camera of the store" in out
    assert f"passed over: 1 x {one}: files with another ending" in out
    (folder / one).mkdir()
    convert(shop, str(folder), "--start", START, "--rate", "10", code=2)
    assert f"want one file or folder for {one}, got {one} and {one}_json" in capsys.readouterr().err


def test_one_file_of_all_cameras(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = cameras_of(shop)[:2]
    rows = rows_of({1: 12, 2: 1, 4: 1})
    names = [f"{one}/000000.jpg", f"{two}/000000.jpg", f"{one}/000001.jpg", f"{two}/000001.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
    document = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": rows}
    document["annotations"].append({"image_id": 3, "category_id": 1, "iscrowd": 1})
    (tmp_path / "all.json").write_text(json.dumps(document))
    frames, _ = parts(convert(shop, str(tmp_path / "all.json"), "--start", START, "--rate", "10"))
    got = [(f.camera, (f.t_ns - START_NS) // 10**8, len(f.keypoints)) for f in frames]
    assert got == [(one, 0, 12), (two, 0, 1), (one, 1, 0), (two, 1, 1)]
    assert "regions of many people (iscrowd)" in capsys.readouterr().out


def test_what_cannot_be_converted(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = cameras_of(shop)[0]
    (tmp_path / "a.json").write_text(json.dumps(rows_of({1: 9, 10**9: 1})))
    (tmp_path / "empty").mkdir()
    (tmp_path / "far.json").write_text(json.dumps(rows_of({10**4000: 1})))
    (tmp_path / "names.json").write_text(json.dumps([{**row, "image_id": "left.jpg"} for row in rows_of({0: 9})]))
    given, timed = ["--camera", f"{one}={tmp_path / 'a.json'}"], ["--start", START, "--rate", "10"]
    for options, wanted in (
        ([], "there is nothing to convert"),
        (given, f"{one}: want times of its frames; pass --start and --rate, or --times {one}=FILE"),
        ([*given, *timed], "want numbers of frames, got 1 to 1000000000 for 2 of them; give their times with --times"),
        (
            ["--camera", f"{one}={tmp_path / 'far.json'}", *timed, "--skeleton", "coco17"],
            "want numbers of frames below 2^62, got '1000",
        ),
        ([*given, "--start", START, "--rate", "0"], "--rate 0 is no rate of a camera"),
        ([*given, "--start", "9 o'clock", "--rate", "10"], "time: want UTC nanoseconds, or a time with its zone"),
        (["--camera", f"door={tmp_path / 'a.json'}", *timed], "--camera door: want a camera of the store (cam01"),
        (["--camera", "cam01", *timed], "--camera cam01: want NAME=PATH"),
        ([*given, *given, *timed], "--camera names cam01 more than once"),
        ([*given, "--times", "cam09=x.csv"], "--times cam09: want a camera with detections"),
        ([str(tmp_path / "empty"), *timed], "want files or folders named as the store's cameras (cam01"),
        ([str(tmp_path / "a.json"), *timed], "want the camera's name as a folder in the name of each picture"),
        ([str(tmp_path / "none"), *timed], "none does not exist"),
        (["--camera", f"{one}={tmp_path / 'names.json'}", *timed], "want the number of its frame in the name of each"),
        ([*given, *timed, "--skeleton", "body25"], "keypoints: want 25 (body25, OpenPose BODY_25), got 17"),
    ):
        assert convert(shop, *options, code=2) is None
        assert wanted in capsys.readouterr().err
    recording = tmp_path / "recording"
    recording.mkdir()
    (recording / "mine.txt").write_text("keep me")
    (tmp_path / "a.json").write_text(json.dumps(rows_of({1: 9})))
    assert main(["convert", *given, *timed, "--store", str(shop), "--out", str(recording)]) == 2
    assert "is there already; pass a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in recording.iterdir()] == ["mine.txt"]


# ---- weights and gates -----------------------------------------------------------------------------------------------


def plates_of(shop: Path) -> tuple[list[str], float]:
    store = Store.load(shop)
    return [plate.plate for plate in store.plates], store.weight_rate_hz


def test_weights_of_three_kinds_of_table(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plates, rate_hz = plates_of(shop)
    times = [START_NS + round(i * 1e9 / rate_hz) for i in range(31) if i not in (20, 21)]
    grams = [100.0 + i for i in range(29)]
    long = [f"{t},{plate},{g + 1000 * k}" for t, g in zip(times, grams) for k, plate in enumerate(plates[:2])]
    odd = [f"{times[0]},elsewhere,5", f"{times[0]},{plates[0]},", *long[:3]]
    (tmp_path / "long.csv").write_text("\n".join(["time,plate,grams", *long, *odd]))
    wide = [f"{t},{g},{g + 1000},3" for t, g in zip(times, grams)]
    (tmp_path / "wide.csv").write_text("\n".join([f"time,{plates[0]},{plates[1]},comment", *wide]))
    iso = [f"{line.partition(',')[2]},{np.datetime64(int(line.partition(',')[0]), 'ns')}Z" for line in long]
    (tmp_path / "iso.csv").write_text("\n".join(["plate,grams,time", *iso]))
    found = {}
    for name in ("long", "wide", "iso"):
        _, found[name] = parts(convert(shop, "--weights", str(tmp_path / f"{name}.csv")))
        for k, plate in enumerate(plates[:2]):
            mine = [reading for reading in found[name] if reading.plate == plate]
            # A dozen a message; two samples are missing after the twentieth.
            assert [len(reading.samples) for reading in mine] == [12, 8, 9]
            assert [reading.t_ns for reading in mine] == [times[0], times[12], times[20]]
            assert_array_equal(np.concatenate([reading.samples for reading in mine]), np.array(grams) + 1000 * k)
    out = capsys.readouterr().out
    assert "passed over: 1 x weights: plate 'elsewhere' is not in the store" in out
    assert "passed over: 29 x weights: plate 'comment' is not in the store" in out
    assert "passed over: 1 x weights: samples without a number" in out
    assert "passed over: 3 x weights: samples that are there twice" in out
    _, again = parts(convert(shop, "--weights", str(shutil.copy(tmp_path / "recording" / "weights.parquet", tmp_path))))
    for a, b in zip(found["iso"], again, strict=True):
        assert (a.t_ns, a.plate) == (b.t_ns, b.plate)
        assert_array_equal(a.samples, b.samples)


def test_weights_that_are_refused(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plate, *_), rate_hz = plates_of(shop)
    slow = "\n".join(f"{START_NS + i * 10**8},{plate},1" for i in range(9))
    for text, wanted in (
        ("", "want a CSV file, got"),
        ("a,b\n1,2\n", "want a column time, got a, b"),
        ("time,time,x\n1,1,1\n", "want a column time"),
        (f"time,x\n{START_NS},1\n", "want the columns time, plate, grams, or time and the store's plates, got time, x"),
        (f"time,plate,grams\n{slow}\n", f"want {rate_hz:g} samples a second of a plate (weight_rate_hz in"),
        (f"time,plate,grams\n1764493200,{plate},1\n", "times look like seconds"),
        (f"time,plate,grams\n2025-11-30T09:00:00,{plate},1\n", "ISO 8601 with a time zone, got '2025-11-30 09:00:00'"),
        (f"time,plate,grams\n,{plate},1\n{START_NS},{plate},1\n", "want a time in every row, got 1 rows without"),
        (f"time,plate,grams\n{START_NS},{plate},heavy\n", "grams: want numbers, got string"),
        (f"time,plate,grams\n{START_NS},{plate},1\n{START_NS},{plate},2\n", f"got several of '{plate}' at {START_NS}"),
        (f"time,plate,grams\n{START_NS},elsewhere,1\n", "want weights of plates of the store, got none"),
        ("time,plate,grams\n", "time: want UTC nanoseconds"),
    ):
        (tmp_path / "w.csv").write_text(text)
        assert convert(shop, "--weights", str(tmp_path / "w.csv"), code=2) is None
        assert wanted in capsys.readouterr().err
    (tmp_path / "w.csv").write_bytes(bytes(range(256)) * 9)
    convert(shop, "--weights", str(tmp_path / "w.csv"), code=2)
    convert(shop, "--weights", str(tmp_path / "none.csv"), code=2)
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe := tmp_path / "pipe.csv")
        for option in (f"--weights={pipe}", f"--gate={pipe}", f"--items={pipe}"):
            convert(shop, option, code=2)
    (tmp_path / "w.parquet").write_text("no")
    convert(shop, "--weights", str(tmp_path / "w.parquet"), code=2)
    assert "want a Parquet file" in capsys.readouterr().err


WRONG_TAGS = (
    '{"kind": "S3CRET"}\n'
    f'{{"time": {START_NS}, "gate": "a", "kind": "scan", "credential": {{"type": "S3CRET", "token": "S3CRET"}}}}\n'
)


def test_gate_events_are_sorted_and_checked(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = Store.load(shop).gate[0].id
    scan = {"gate": gate, "kind": "scan", "credential": {"type": "account", "account": "a"}}
    lines = [json.dumps({"time": START_NS + i, **scan}) for i in (5, 3, 9)]
    (tmp_path / "gate.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text(json.dumps(rows_of({0: 9})))
    one = cameras_of(shop)[0]
    recording = convert(
        shop, "--gate", str(tmp_path / "gate.jsonl"), "--camera", f"{one}={tmp_path / 'a.json'}", "--rate", "10",
        "--start", "2025-11-30T10:00:00Z", code=1,
    )  # fmt: skip
    scans = [one for one in recording.observations() if isinstance(one, GateScan)]
    assert [scan.t_ns - START_NS for scan in scans] == [3, 5, 9]
    out = capsys.readouterr().out
    assert "warning: frames are from 2025-11-30T10:00:00.000Z to" in out and "at another time than the rest" in out
    (tmp_path / "gate.jsonl").write_text(lines[0] + "\n{}\nnot JSON\n" + WRONG_TAGS)
    convert(shop, "--gate", str(tmp_path / "gate.jsonl"), code=2)
    err = capsys.readouterr().err
    assert "gate.jsonl:4: kind: Input should be one of 'scan', 'door'\n" in err and "S3CRET" not in err
    assert "gate.jsonl:5: credential.type: Input should be one of 'qr', 'card'" in err
    assert "gate.jsonl:2: kind: Field required" in err and "gate.jsonl:3: " in err
