"""Runs can be written, repeated and delayed; any store can be simulated."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulation.runs import SHORT, run, same, trace

from fusion.files.recordings import Recording
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.simulation import Simulation
from fusion.store.models import Store

DATA = Path(os.environ.get("FUSION_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_observations_come_in_order(short):
    times = [o.t_ns for o in short[1]]
    assert times == sorted(times)


def test_recording_reads_back(tmp_path, store, short):
    simulation, observations = short
    Simulation(store, SHORT).write(tmp_path)
    recording = Recording(tmp_path)
    assert recording.store == store
    kinds = (Frame, ShelfReading, GateScan)
    read = list(recording.observations())
    for kind in kinds:
        pairs = list(
            zip((o for o in observations if isinstance(o, kind)), (o for o in read if isinstance(o, kind)), strict=True)
        )
        assert pairs and all(same(a, b) for a, b in pairs)
    assert not recording.ignored
    truth = simulation.truth
    visits = [json.loads(line) for line in (tmp_path / "truth" / "visits.jsonl").read_text().splitlines()]
    assert [(v["account"], v["enter"], v["exit"], v["items"]) for v in visits] == [
        (v.account, v.enter_ns, v.exit_ns, v.items) for v in truth.visits
    ]
    rows = list(csv.DictReader((tmp_path / "truth" / "events.csv").read_text().splitlines()))
    assert [(int(r["time"]), r["plate"], r["gtin"], int(r["quantity"]), r["account"]) for r in rows] == [
        (e.t_ns, e.plate, e.gtin, e.quantity, e.account) for e in truth.events
    ]
    people = pq.read_table(tmp_path / "truth" / "people.parquet")
    assert people.column_names == ["time", "person", "account", "x", "y", "keypoints"]
    assert people.num_rows == sum(len(p.person) for p in truth.people)
    assert_array_equal(np.unique(np.diff(np.unique(people["time"]))).min(), 10**8)


def test_a_run_can_be_repeated(store, short):
    again = list(Simulation(store, SHORT).observations())
    assert len(again) == len(short[1]) and all(same(a, b) for a, b in zip(again, short[1]))
    other = list(islice(Simulation(store, replace(SHORT, seed=8)).observations(), 500))
    assert not all(same(a, b) for a, b in zip(other, short[1]))


def test_sensors_do_not_change_what_happens(store, short):
    expected = short[0].truth
    fewer = store.model_copy(update={"cameras": store.cameras[:1]})
    for faults in (
        {"plate_noise": 3.0, "gap_probability": 0.1, "keypoint_noise": 2.0, "cameras_out": 1},
        {"place_gain_sd": 0.02, "creep_share": 0.02, "hum_g": 2.0, "calibration_error_px": 3.0},
    ):
        truth = run(fewer, **faults)[0].truth
        assert truth.events == expected.events and truth.visits == expected.visits
    # Nor does a further camera change what another one sees.
    alone = [o for o in run(fewer)[1] if isinstance(o, Frame)]
    together = [o for o in short[1] if isinstance(o, Frame) and o.camera == store.cameras[0].name]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_faults_are_the_ones_named(store):
    _, observations = run(store, cameras_out=1, dead_plates=2, gap_probability=0.25, clock_offset_max_s=0.1)
    third_ns = SHORT.duration_s / 3 * 1e9
    middle = Counter(
        o.camera
        for o in observations
        if isinstance(o, Frame) and third_ns * 1.1 < o.t_ns - SHORT.start_ns < third_ns * 1.9
    )
    assert len(middle) == len(store.cameras) - 1
    constant = {p.plate for p in store.plates if np.ptp(trace(observations, p.plate, 60.0)[1]) == 0.0}
    assert len(constant) == 2
    n_messages = sum(isinstance(o, ShelfReading) for o in observations)
    assert_allclose(n_messages / (len(store.plates) * SHORT.duration_s * 5), 0.75, atol=0.03)


def test_arrivals_are_late_and_complete(store, short):
    arrivals = list(Simulation(store, SHORT).arrivals())
    times = [arrival_ns for arrival_ns, _ in arrivals]
    assert times == sorted(times)
    late_s = np.array([(arrival_ns - o.t_ns) / 1e9 for arrival_ns, o in arrivals])
    assert len(arrivals) == len(short[1]) and late_s.min() > 0 and late_s.max() < 2.0
    assert [o.t_ns for _, o in arrivals] != sorted(o.t_ns for _, o in arrivals)


@pytest.mark.parametrize("name", ["dev/busy", "shelf", "cmc1", "nanostore_visit"])
def test_any_store_can_be_simulated(name):
    folder = DATA / name / "store"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set FUSION_DATA to the folder of recordings")
    store = Store.load(folder)
    simulation, observations = run(store, minutes=0.8, shoppers=2)
    assert simulation.truth.people
    assert any(isinstance(o, Frame) for o in observations) == bool(store.cameras)
    assert any(isinstance(o, ShelfReading) for o in observations) == bool(store.plates)
    assert len(simulation.truth.visits) == (2 if store.gate else 0)
    assert bool(simulation.truth.events) == bool(store.plates)
