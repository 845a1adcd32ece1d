"""A run is written as a Rerun recording and read back: every entity, every row, at the times of the data."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from fusion import results
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.simulation import Scenario, Simulation, demo_store

chunk = pytest.importorskip("rerun.chunk", reason="no rerun-sdk: pip install 'storefusion[view]'")
from fusion.show.rerun_scene import COLOURS  # noqa: E402
from fusion.show.rerun_view import RADIUS_MAX_M, RADIUS_MIN_M, View  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def read(path):
    """Record batches of a file by entity: those of static chunks, and those with times."""
    static, timed = defaultdict(list), defaultdict(list)
    (entry,) = chunk.RrdReader(str(path)).recordings()
    for part in chunk.RrdReader(str(path)).stream(store=entry):
        (static if part.is_static else timed)[str(part.entity_path)].append(part.to_record_batch())
    return static, timed


def column(batches, ending):
    """All rows of a component's column, as Python values."""
    rows = []
    for batch in batches:
        name = next(name for name in batch.schema.names if name.endswith(ending))
        rows += batch.column(name).to_pylist()
    return rows


def times(batches):
    return np.concatenate([batch.column("time").to_numpy().astype(np.int64) for batch in batches])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A simulated minute: the store, observations, results, and the file that was written in several pieces."""
    folder = tmp_path_factory.mktemp("view")
    store = demo_store(n_cameras=5, n_plates=16, n_products=12)
    engine = Engine(store)
    observations, answers = [], []
    # Small buffers, so that everything is written in many pieces, and some instants hold more than fits.
    with View(folder / "run.rrd", store, "A run", bodies_max=2, values_max=50) as view:
        for observation in Simulation(store, Scenario(seed=3, minutes=1.0, shoppers=3)).observations():
            observations.append(observation)
            view.observe(observation)
            for result in engine.feed(observation):
                answers.append(result)
                view.add(result)
        for result in engine.close():
            answers.append(result)
            view.add(result)
    return store, observations, answers, *read(folder / "run.rrd")


def of(kind, rows):
    return [row for row in rows if isinstance(row, kind)]


def test_the_stores_plan_is_there(run):
    store, _, _, static, _ = run
    assert {f"/world/{part}" for part in ("floor", "gates", "zones", "obstacles", "plates")} <= set(static)
    (labels,) = column(static["/world/plates"], "Boxes3D:labels")
    assert labels == [plate.plate for plate in store.plates]
    for camera in store.cameras:
        batches = static[f"/world/cameras/{camera.name}"]
        names = {name for batch in batches for name in batch.schema.names}
        assert any(name.endswith("Pinhole:image_from_camera") for name in names)
        assert any(name.endswith("Transform3D:translation") for name in names)


def test_every_frame_and_keypoint_is_there(run):
    store, observations, _, _, timed = run
    for camera in store.cameras:
        batches = timed[f"/world/cameras/{camera.name}/detections"]
        frames = sorted((o for o in of(Frame, observations) if o.camera == camera.name), key=lambda frame: frame.t_ns)
        assert sorted(times(batches).tolist()) == [frame.t_ns for frame in frames]
        assert len(batches) > 1, "written in more than one piece"
        order = np.argsort(times(batches), kind="stable")
        positions, joints = (column(batches, f"Points2D:{part}") for part in ("positions", "keypoint_ids"))
        people = column(batches, "Points2D:class_ids")
        for row, frame in zip(order.tolist(), frames):
            seen = frame.keypoints[..., 2] > 0
            person, joint = np.nonzero(seen)
            np.testing.assert_array_equal(np.array(positions[row] or []).reshape(-1, 2), frame.keypoints[seen][:, :2])
            assert (joints[row] or []) == joint.tolist()
            assert (people[row] or []) == (person % COLOURS).tolist()


def test_people_are_drawn_with_their_uncertainty(run):
    _, _, answers, _, timed = run
    people = of(results.People, answers)
    batches = timed["/world/people"]
    assert sorted(times(batches).tolist()) == [instant.t_ns for instant in people]
    by_time = dict(
        zip(times(batches).tolist(), zip(column(batches, "Points3D:positions"), column(batches, "Points3D:radii")))
    )
    for instant in people:
        positions, radii = by_time[instant.t_ns]
        known = np.isfinite(instant.joints_m).all(axis=-1)
        np.testing.assert_allclose(np.array(positions or []).reshape(-1, 3), instant.joints_m[known], atol=1e-5)
        expected = np.clip(instant.joints_sd_m[known], RADIUS_MIN_M, RADIUS_MAX_M)
        np.testing.assert_allclose(radii or [], expected, rtol=1e-5)
    labels = {label for row in column(timed["/world/people/names"], "Points3D:labels") for label in row or ()}
    accounts = {receipt.account for receipt in of(results.Receipt, answers)}
    assert all(any(label.startswith(account) for label in labels) for account in accounts)


def test_weights_are_time_series_from_zero(run):
    store, observations, _, _, timed = run
    for plate in store.plates:
        readings = [o for o in of(ShelfReading, observations) if o.plate == plate.plate]
        batches = timed[f"/weights/{plate.plate}"]
        grams = np.array(column(batches, "Scalars:scalars")).ravel()
        assert times(batches).tolist() == [reading.t_ns for reading in readings]
        expected = [float(reading.samples[0]) for reading in readings]
        np.testing.assert_allclose(grams, np.array(expected) - expected[0], atol=1e-3)


def test_events_and_text_are_there(run):
    store, observations, answers, _, timed = run
    explained = of(results.ShelfEventExplained, answers)
    taken = [event for event in explained if event.delta_g < 0]
    assert taken and sorted(times(timed["/world/taken"]).tolist()) == sorted(event.t_ns for event in taken)
    receipts = of(results.Receipt, answers)
    lines = column(timed["/log/receipts"], "TextLog:text")
    assert len(lines) == len(receipts)
    for receipt in receipts:
        (line,) = [row[0] for row in lines if row[0].startswith(receipt.account)]
        assert store.price_text(receipt.total) in line and receipt.status in line
    assert sorted(times(timed["/log/receipts"]).tolist()) == sorted(receipt.issued_ns for receipt in receipts)
    assert len(column(timed["/log/gates"], "TextLog:text")) == len(of(GateScan, observations))
    moves = of(results.Picked, answers) + of(results.PutBack, answers)
    assert len(column(timed["/log/shelves"], "TextLog:text")) == len(explained) + len(moves)
    passed = of(results.PersonEntered, answers) + of(results.PersonLeft, answers)
    assert len(column(timed["/log/visits"], "TextLog:text")) == len(passed)


def test_the_only_timeline_is_that_of_the_data(run):
    _, observations, _, _, timed = run
    start_ns, end_ns = observations[0].t_ns, observations[-1].t_ns
    for entity, batches in timed.items():
        if entity.startswith(("/world", "/weights", "/log")):
            assert {name for batch in batches for name in batch.schema.names} & {"log_time", "log_tick"} == set()
            assert start_ns - 1e9 < times(batches).min() and times(batches).max() < end_ns + 1e9


def test_strange_names_empty_stores_and_silence_are_written(tmp_path):
    store = demo_store(n_cameras=1, n_plates=1)
    camera = store.cameras[0].model_copy(update={"name": "Kasse / links #1"})
    plate = store.plates[0].model_copy(update={"plate": "Süd:1"})
    strange = store.model_copy(update={"cameras": (camera,), "plates": (plate,), "planogram": ()})
    t_ns = 1_767_258_000_000_000_000
    with View(tmp_path / "strange.rrd", strange) as view:
        view.observe(Frame(t_ns, camera.name, np.zeros((0, 17, 3), np.float32)))
        view.observe(Frame(t_ns + 1, "an unknown camera", np.ones((1, 17, 3), np.float32)))
        view.observe(ShelfReading(t_ns, plate.plate, np.zeros(0, np.float32)))
        view.observe(ShelfReading(t_ns + 1, plate.plate, np.ones(12, np.float32)))
    _, timed = read(tmp_path / "strange.rrd")
    assert sum(entity.endswith("/detections") for entity in timed) == 2
    assert len(column(timed[next(e for e in timed if e.startswith("/weights"))], "Scalars:scalars")) == 1
    bare = strange.model_copy(update={"cameras": (), "plates": (), "gate": (), "zone": ()})
    View(tmp_path / "bare.rrd", bare).close()
    static, timed = read(tmp_path / "bare.rrd")
    assert "/world/floor" in static and not [entity for entity in timed if entity.startswith("/world")]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FusionError, match="the file cannot be written"):
        View(tmp_path / "none" / "run.rrd", demo_store(1))


def test_the_example_writes_one(tmp_path):
    small = ["--minutes", "0.6", "--shoppers", "1"]
    into = ["--out", tmp_path / "out", "--view", tmp_path / "new" / "run.rrd"]
    command = [sys.executable, EXAMPLES / "run_store.py", *small, *into]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    _, timed = read(tmp_path / "new" / "run.rrd")
    assert len(column(timed["/log/receipts"], "TextLog:text")) == 1
