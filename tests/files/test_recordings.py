"""Recordings come back as they were written, order comes out of disorder, damage is refused or counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fusion.errors import ConfigError, RecordingError, ShapeError
from fusion.files.recordings import Recording, RecordingWriter
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.order import Reorder
from fusion.store.models import Camera, Facing, Gate, Plate, Product, Store

T0_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def small_store(appearance_dim: int = 0, keypoints: str = "coco17") -> Store:
    """Two cameras, two plates, one gate."""
    camera = {
        "size": (1920, 1080),
        "matrix": ((1100.0, 0.0, 960.0), (0.0, 1100.0, 540.0), (0.0, 0.0, 1.0)),
        "distortions": (0.0,) * 5,
        "rotation": (1.5, 0.0, 0.0),
        "translation": (0.0, 2.0, 3.0),
    }
    plate = {"y": 1.0, "z": 1.0, "width": 0.3, "depth": 0.4, "yaw": 0.0, "capacity_g": 20_000.0}
    return Store.model_validate(
        {
            "format_version": 1,
            "id": "shop",
            "name": "Shop",
            "currency": "EUR",
            "timezone": "Europe/Berlin",
            "floor": ((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)),
            "keypoints": keypoints,
            "appearance_dim": appearance_dim,
            "gate": [Gate(id="entry", direction="both", line=((0.2, 0.0), (1.2, 0.0)), credentials=("qr",))],
            "cameras": [Camera(name=name, **camera) for name in ("north", "south")],
            "plates": [Plate(plate=name, x=x, **plate) for name, x in (("p1", 1.0), ("p2", 2.0))],
            "products": [
                Product(gtin="4006381333931", name="Pen", weight_g=20.0, weight_sd_g=1.0, price=99, vat_rate=19.0)
            ],
            "planogram": [Facing(plate="p1", gtin="4006381333931", stock=3)],
        }
    )


def small_recording(store: Store, n: int = 12, seed: int = 3) -> list[Observation]:
    """n seconds of every kind of observation, in order of time."""
    rng = np.random.default_rng(seed)
    n_joints, dim = store.layout.n_joints, store.appearance_dim
    observations: list[Observation] = []
    for second in range(n):
        t_ns = T0_NS + second * SECOND
        observations.append(GateScan(t_ns, "entry", *(("qr", f"code {second}") if second % 2 else ("account", "ann"))))
        for camera in ("north", "south"):
            n_people = int(rng.integers(0, 4))
            keypoints = rng.uniform(0, 1000, (n_people, n_joints, 3)).astype(np.float32)
            appearance = rng.normal(size=(n_people, dim)).astype(np.float32) if dim else None
            observations.append(Frame(t_ns + 1000, camera, keypoints, appearance))
        for plate in ("p1", "p2"):
            observations.append(ShelfReading(t_ns + 2000, plate, rng.normal(0, 500, 12).astype(np.float32)))
        if second % 4 == 0:
            observations.append(ItemSighting(t_ns + 3000, "exit", "read", "4006381333931", 1, 0.5, plate="p1"))
            observations.append(ItemSighting(t_ns + 4000, "exit", "seen", "4006381333931", 2, 1.0, zone="pay"))
    return observations


def assert_same(read: Sequence[Observation], wanted: Sequence[Observation]) -> None:
    assert [(type(o), o.t_ns) for o in read] == [(type(o), o.t_ns) for o in wanted]
    for got, want in zip(read, wanted):
        if isinstance(want, Frame):
            assert isinstance(got, Frame) and got.camera == want.camera
            assert got.keypoints.dtype == np.float32
            assert_array_equal(got.keypoints, want.keypoints)
            assert (got.appearance is None) == (want.appearance is None)
            if want.appearance is not None:
                assert_array_equal(got.appearance, want.appearance)
        elif isinstance(want, ShelfReading):
            assert isinstance(got, ShelfReading) and got.plate == want.plate
            assert_array_equal(got.samples, want.samples)
        else:
            assert got == want


def write(folder: Path, store: Store, observations: Sequence[Observation], **options: object) -> Path:
    with RecordingWriter(folder, store, **options) as writer:  # type: ignore[arg-type]
        for observation in observations:
            writer.write(observation)
    return folder


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
    assert_same(list(recording.observations()), observations)  # Reading does not use a recording up.
    assert not recording.ignored and not recording.damaged
    assert recording.span_ns() == (T0_NS + 1000, T0_NS + 11 * SECOND + 2000)


def test_segments_hold_their_seconds_and_go_on_after_a_restart(tmp_path: Path) -> None:
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


def copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


# ---- order -----------------------------------------------------------------------------------------------------------

NO_PEOPLE = np.zeros((0, 17, 3), np.float32)


def frame(t_s: float, camera: str = "north") -> Frame:
    return Frame(T0_NS + round(t_s * SECOND), camera, NO_PEOPLE)


def reading(t_s: float, plate: str = "p1") -> ShelfReading:
    return ShelfReading(T0_NS + round(t_s * SECOND), plate, np.zeros(12, np.float32))


def run(reorder: Reorder, arrivals: Sequence[Observation]) -> list[Observation]:
    out = []
    for observation in arrivals:
        reorder.push(observation)
        out.extend(reorder.ready())
    return [*out, *reorder.flush()]


def key(observation: Observation) -> tuple[object, ...]:
    match observation:
        case Frame():
            return observation.t_ns, 1, observation.camera
        case ShelfReading():
            return observation.t_ns, 2, observation.plate
        case GateScan():
            return observation.t_ns, 0, observation.account
        case _:
            return observation.t_ns, 3, observation.gtin, observation.quantity


_TICKS = st.integers(0, 600)  # Tenths of a second over a minute, so that many fall together.
_STREAMS = st.lists(
    st.one_of(
        st.builds(lambda t, c: frame(t / 10, c), _TICKS, st.sampled_from(["north", "south"])),
        st.builds(lambda t, p: reading(t / 10, p), _TICKS, st.sampled_from(["p1", "p2"])),
        st.builds(lambda t, a: GateScan(T0_NS + t * 10**8, "entry", "qr", a), _TICKS, st.sampled_from("ab")),
        st.builds(
            lambda t, q: ItemSighting(T0_NS + t * 10**8, "exit", "read", "4006381333931", q, 1.0),
            _TICKS,
            st.integers(1, 3),
        ),
    ),
    max_size=60,
    unique_by=key,
)


@settings(deadline=None)
@given(_STREAMS, st.randoms(use_true_random=False))
def test_any_arrival_within_the_lateness_gives_the_same_order(streams: list[Observation], random: object) -> None:
    """Each message arrives up to two seconds after its time; silences of any length lie between them."""
    delays = [random.choice([0, SECOND, 2 * SECOND, random.randrange(2 * SECOND)]) for _ in streams]  # type: ignore[attr-defined]
    arrivals = [o for _, _, o in sorted(zip([o.t_ns + d for o, d in zip(streams, delays)], range(99), streams))]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [key(o) for o in out] == sorted(key(o) for o in streams)
    assert not reorder.ignored


@settings(deadline=None)
@given(_STREAMS, st.lists(st.integers(0, 10**6), max_size=20), st.randoms(use_true_random=False))
def test_repeats_and_stragglers_are_counted_and_order_holds(
    streams: list[Observation], again: list[int], random: object
) -> None:
    arrivals = sorted(streams, key=lambda o: o.t_ns)
    arrivals += [arrivals[i % len(arrivals)] for i in again if arrivals]
    random.shuffle(arrivals)  # type: ignore[attr-defined]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [o.t_ns for o in out] == sorted(o.t_ns for o in out)
    assert len(out) + reorder.ignored.total() == len(arrivals)
    assert len(reorder._run) == len(reorder._heap) == 0


def test_late_and_repeated_are_counted_by_stream() -> None:
    reorder = Reorder(2.0)
    arrivals = [frame(0), frame(0, "south"), frame(2), frame(4), frame(1), reading(1), frame(3), frame(4), reading(4)]
    assert [o.t_ns - T0_NS for o in run(reorder, arrivals)] == [0, 0, *(t * SECOND for t in (2, 3, 4, 4))]
    assert reorder.ignored == {
        "detections: more than 2 s late": 1,
        "weights: more than 2 s late": 1,
        "detections: repeated": 1,
    }


def live(n: int, *, start: float = 0.0, step: float = 0.04, cameras: Sequence[str] = ("north", "south")) -> list[Frame]:
    return [frame(start + step * i, camera) for i in range(n) for camera in cameras]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 11.0, 4.0])
@pytest.mark.parametrize("at_first", [False, True])
def test_one_clock_gone_mad_does_not_stop_the_others(jump_s: float, at_first: bool) -> None:
    good = live(200)
    bad = [frame(jump_s + 0.04 * i, "mad") for i in range(200)]
    arrivals: list[Observation] = [o for i in range(200) for o in (good[2 * i], good[2 * i + 1], bad[i])]
    if at_first:
        arrivals = [bad[0], *arrivals]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [o for o in out if o.camera != "mad"] == good  # type: ignore[union-attr]
    if jump_s > 0:
        assert out == good
        assert reorder.ignored["detections: time far ahead of every other sensor"] >= 200


def test_a_mad_camera_among_a_hundred_is_counted() -> None:
    cameras = [f"c{i:02d}" for i in range(100)]
    good = live(30, cameras=cameras)
    arrivals: list[Observation] = []
    for i, one in enumerate(good):
        arrivals.append(one)
        arrivals += [frame(86_400.0 + i, "mad")] * (i % 3 == 0)
    reorder = Reorder(2.0)
    assert run(reorder, arrivals) == good
    assert reorder.ignored == {"detections: time far ahead of every other sensor": 1000}


@pytest.mark.parametrize("cameras", [("north",), ("north", "south")])
@pytest.mark.parametrize("gap_s", [3.0, 11.0, 60.0, 86_400.0])
def test_a_true_silence_ends(cameras: Sequence[str], gap_s: float) -> None:
    before = live(100, cameras=cameras)
    after = live(100, start=4.0 + gap_s, cameras=cameras)
    reorder = Reorder(2.0)
    assert run(reorder, [*before, *after]) == [*before, *after]
    assert not reorder.ignored


def test_after_a_silence_live_output_comes_within_seconds() -> None:
    reorder = Reorder(2.0)
    for one in live(100, cameras=("north",)):
        reorder.push(one)
        list(reorder.ready())
    out: list[Observation] = []
    for one in live(150, start=100.0, cameras=("north",)):
        reorder.push(one)
        out += reorder.ready()
    assert len(out) > 90 and len(reorder._run) == 0


def test_few_and_far_between_is_no_madness() -> None:
    scans: list[Observation] = [GateScan(T0_NS + i * 300 * SECOND, "entry", "qr", f"{i}") for i in range(30)]
    reorder = Reorder(2.0)
    assert run(reorder, scans) == scans and not reorder.ignored
    trailing: list[Observation] = [*live(50), *scans[1:2]]
    assert run(reorder := Reorder(2.0), trailing) == trailing and not reorder.ignored


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.sampled_from("ab")), min_size=200, max_size=400))
@settings(max_examples=10, deadline=None)
@example([(i * 3600 * (-1) ** i, "a") for i in range(1500)])
def test_what_is_held_is_bounded(arrivals: list[tuple[int, str]]) -> None:
    reorder = Reorder(2.0)
    for t_s, camera in arrivals:
        reorder.push(frame(t_s, camera))
        assert len(reorder._run) <= 1024
        list(reorder.ready())
    assert len(reorder.ignored) <= 4


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
