"""Recordings are read back as they were written; damage is refused or counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files.small_recordings import SECOND, T0_NS, assert_same, copy, small_recording, small_store, write
from numpy.testing import assert_array_equal

from fusion.errors import ConfigError, RecordingError, ShapeError
from fusion.files.recordings import Recording, RecordingWriter
from fusion.observations import Frame, Observation, ShelfReading

# ---- writing and reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keypoints", ["coco17", "body25", "box2"])
@pytest.mark.parametrize("appearance_dim", [0, 5])
@pytest.mark.parametrize("segment_s", [None, 3.0])
def test_recording_round_trip(tmp_path: Path, keypoints: str, appearance_dim: int, segment_s: float | None) -> None:
    store = small_store(appearance_dim, keypoints)
    observations = small_recording(store)
    write(tmp_path / "r", store, observations, rows_per_group=7, segment_s=segment_s)
    recording = Recording(tmp_path / "r")
    assert recording.store == store
    assert_same(list(recording.observations()), observations)
    assert_same(list(recording.observations()), observations)  # A recording can be read again.
    assert not recording.ignored and not recording.damaged
    assert recording.span_ns() == (T0_NS + 1000, T0_NS + 11 * SECOND + 2000)


def test_segments_hold_their_seconds_and_continue_after_a_restart(tmp_path: Path) -> None:
    store = small_store()
    observations = small_recording(store)
    restart_ns = T0_NS + 6 * SECOND
    write(tmp_path / "r", store, [o for o in observations if o.t_ns < restart_ns], segment_s=2.0)
    write(tmp_path / "r", store, [o for o in observations if o.t_ns >= restart_ns], segment_s=2.0)
    assert_same(list(Recording(tmp_path / "r").observations()), observations)
    for stream in ("detections", "weights"):
        files = sorted((tmp_path / "r" / stream).iterdir())
        assert [file.name for file in files] == [f"{i:08d}.parquet" for i in range(6)]
        for file in files:
            times = pq.read_table(file).column("time").to_numpy()
            assert np.ptp(times) < 2 * SECOND


def test_a_torn_last_segment_costs_only_itself(tmp_path: Path) -> None:
    store = small_store()
    observations = small_recording(store)
    write(tmp_path / "r", store, observations, segment_s=4.0)
    last = sorted((tmp_path / "r" / "detections").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:300])
    recording = Recording(tmp_path / "r")
    read = list(recording.observations())
    lost = T0_NS + 8 * SECOND
    assert_same(read, [o for o in observations if not (isinstance(o, Frame) and o.t_ns >= lost)])
    assert recording.ignored == {"detections: damaged file": 1}
    assert recording.damaged[0].startswith("detections/00000002.parquet: want a Parquet file")


def test_streams_may_be_absent(tmp_path: Path) -> None:
    small_store().save(tmp_path / "store")
    recording = Recording(tmp_path)
    assert list(recording.observations()) == [] and recording.span_ns() is None


def test_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", small_store(appearance_dim=4)) as writer:
        for keypoints in (np.zeros((1, 25, 3)), np.zeros((17, 3)), np.zeros((1, 17, 2))):
            with pytest.raises(ShapeError, match=r"keypoints: want \(n_people, 17, 3\)"):
                writer.write(Frame(T0_NS, "north", keypoints))
        with pytest.raises(ShapeError, match=r"appearance: want \(1, 4\), got None"):
            writer.write(Frame(T0_NS, "north", np.zeros((1, 17, 3))))
        with pytest.raises(ShapeError, match="samples"):
            writer.write(ShelfReading(T0_NS, "p1", np.zeros((2, 2))))
    assert list(Recording(tmp_path / "r").observations()) == []


def test_columns_in_another_order_large_lists_and_dictionaries(tmp_path: Path) -> None:
    store = small_store()
    observations = small_recording(store)
    write(tmp_path, store, observations)
    for name, text in (("detections", "camera"), ("weights", "plate")):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        fields = [table.schema.field(c) for c in reversed(table.column_names)]
        fields = [pa.field(f.name, pa.large_list(f.type.value_type)) if pa.types.is_list(f.type) else f for f in fields]
        table = table.select(table.column_names[::-1]).cast(pa.schema(fields))
        place = table.column_names.index(text)
        table = table.set_column(place, text, table.column(text).dictionary_encode())
        pq.write_table(table, tmp_path / f"{name}.parquet")
    recording = Recording(tmp_path)
    assert_same(list(recording.observations()), observations)
    assert recording.span_ns() == (T0_NS + 1000, T0_NS + 11 * SECOND + 2000)


def test_rows_with_nulls_at_any_depth_are_counted(tmp_path: Path) -> None:
    store = small_store()
    write(tmp_path, store, [])
    person = [float(v) for v in range(51)]
    schema = pq.read_schema(tmp_path / "detections.parquet")
    rows = [
        {"time": T0_NS, "camera": "north", "keypoints": [person]},
        {"time": None, "camera": "north", "keypoints": []},
        {"time": T0_NS, "camera": None, "keypoints": []},
        {"time": T0_NS, "camera": "north", "keypoints": None},
        {"time": T0_NS, "camera": "north", "keypoints": [person, None]},
        {"time": T0_NS, "camera": "north", "keypoints": [[None, *person[1:]]]},
        {"time": 5, "camera": "north", "keypoints": []},
        {"time": 2**63 - 1, "camera": "north", "keypoints": []},
        {"time": T0_NS + 1, "camera": "south", "keypoints": [person, person[::-1]]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "detections.parquet")
    weights = [
        {"time": T0_NS, "plate": "p1", "samples": [1.0, None]},
        {"time": T0_NS, "plate": "p1", "samples": [1.0, 2.0]},
    ]
    schema = pq.read_schema(tmp_path / "weights.parquet")
    pq.write_table(pa.Table.from_pylist(weights, schema=schema), tmp_path / "weights.parquet")
    recording = Recording(tmp_path)
    frames = [o for o in recording.observations() if isinstance(o, Frame)]
    assert [len(frame.keypoints) for frame in frames] == [1, 2]
    assert_array_equal(frames[1].keypoints[1].ravel(), person[::-1])
    assert recording.ignored == {
        "detections: null in a row": 5,
        "detections: impossible time": 2,
        "weights: null in a row": 1,
    }


def test_a_long_recording_is_read_in_batches(tmp_path: Path) -> None:
    store = small_store()
    readings = [ShelfReading(T0_NS + i, "p1", np.full(3, i, np.float32)) for i in range(10_000)]
    write(tmp_path, store, readings, rows_per_group=20_000)
    assert_same(list(Recording(tmp_path).observations()), readings)


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Observation]]:
    store = small_store()
    folder = write(tmp_path_factory.mktemp("sound"), store, small_recording(store), rows_per_group=10)
    return folder, list(Recording(folder).observations())


def read_all(folder: Path) -> list[Observation] | None:
    """Everything in a recording; None where it was refused."""
    try:
        recording = Recording(folder)
        recording.span_ns()
        return list(recording.observations())
    except (ConfigError, RecordingError) as error:
        assert len(str(error)) < 2000 and ("want" in str(error) or "damaged" in str(error))
        return None


@pytest.mark.parametrize("stream", ["detections", "weights"])
def test_truncated_parquet_is_refused(sound: tuple[Path, list[Observation]], tmp_path: Path, stream: str) -> None:
    folder, _ = sound
    copy(folder, tmp_path)
    path = tmp_path / f"{stream}.parquet"
    data = path.read_bytes()
    for length in np.linspace(0, len(data) - 1, 100).astype(int):
        path.write_bytes(data[:length])
        assert read_all(tmp_path) is None


@pytest.mark.parametrize("stream", ["detections", "weights"])
def test_flipped_bits_are_refused_or_harmless(
    sound: tuple[Path, list[Observation]], tmp_path: Path, stream: str
) -> None:
    folder, observations = sound
    copy(folder, tmp_path)
    path = tmp_path / f"{stream}.parquet"
    data = path.read_bytes()
    # Half of the flips into the last third, where the footer is, which no checksum guards.
    rng = np.random.default_rng(11)
    bits = np.concatenate([rng.integers(0, 8 * len(data), 75), rng.integers(8 * len(data) * 2 // 3, 8 * len(data), 75)])
    n_refused = 0
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        read = read_all(tmp_path)
        n_refused += read is None
        if read is not None:
            assert_same(read, observations)
    assert n_refused > 50


# ---- lines of JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{", "gate.jsonl:2: "),
        ("null", "gate.jsonl:2: "),
        ('"garbage"', "gate.jsonl:2: "),
        ("\x00\x01", "gate.jsonl:2: "),
        ({"time": 1700000000}, "time: want UTC nanoseconds since 1970, got 1700000000"),
        ({"time": 1700000000000}, "time: want UTC nanoseconds"),
        ({"time": 10**30}, "time: want UTC nanoseconds"),
        ({"time": float(T0_NS)}, "time: "),
        ({"time": str(T0_NS)}, "time: "),
        ({"time": None}, "time: "),
        ({"kind": "sniff"}, "kind: "),
        ({"gate": ""}, "gate: "),
        ({"extra": 1}, "extra: "),
        ({"credential": {"type": "qr"}}, "want a token, got none"),
        ({"credential": {"type": "qr", "token": "x", "account": "y"}}, "account"),
        ({"credential": {"type": "account", "token": "x"}}, "account"),
        ({"credential": {"type": "retina", "token": "x"}}, "credential"),
        ({"credential": {"type": "qr", "token": "x" * 1001}}, "token"),
    ],
)
def test_gate_lines_that_are_refused(tmp_path: Path, line: str | dict[str, object], wanted: str) -> None:
    small_store().save(tmp_path / "store")
    good = {"time": T0_NS, "gate": "entry", "kind": "scan", "credential": {"type": "qr", "token": "x"}}
    text = line if isinstance(line, str) else json.dumps(good | line)
    (tmp_path / "gate.jsonl").write_text(f"{json.dumps(good)}\n{text}\n\n{json.dumps(good)}\n")
    with pytest.raises(ConfigError) as caught:
        Recording(tmp_path)
    assert len(caught.value.faults) == 1
    assert "gate.jsonl:2: " in caught.value.faults[0] and wanted in caught.value.faults[0]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"gtin": "4006381333932"}, "gtin: want check digit 1"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": -2}, "quantity"),
        ({"probability": 1.5}, "probability"),
        ({"probability": float("nan")}, "probability"),
        ({"kind": "smelt"}, "kind"),
    ],
)
def test_item_lines_that_are_refused(tmp_path: Path, change: dict[str, object], wanted: str) -> None:
    small_store().save(tmp_path / "store")
    good = {"time": T0_NS, "source": "exit", "kind": "read", "gtin": "4006381333931", "quantity": 1}
    (tmp_path / "items.jsonl").write_text(json.dumps(good) + "\n")
    assert len(list(Recording(tmp_path).observations())) == 1
    (tmp_path / "items.jsonl").write_text(json.dumps(good | change) + "\n")
    with pytest.raises(ConfigError, match=f"items.jsonl:1: .*{wanted}"):
        Recording(tmp_path)


def test_a_file_without_line_ends_is_read_in_pieces(tmp_path: Path) -> None:
    small_store().save(tmp_path / "store")
    (tmp_path / "gate.jsonl").write_bytes(b"x" * (25 << 20))
    with pytest.raises(ConfigError) as caught:
        Recording(tmp_path)
    assert len(caught.value.faults) == 20 and all(len(fault) < 300 for fault in caught.value.faults)
