"""The simulated shop: contract files, truth that adds up, sensors that show what happened, knobs that do something."""

import csv
import json
import math
import os
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice, pairwise, zip_longest
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fusion.files.recordings import Recording
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.body import FOREARM, JOINT, SHANK, THIGH, UPPER_ARM, joints_m, posture
from fusion.simulation.optics import Lens, Obstacles
from fusion.store.models import Store
from fusion.store.rotations import rotation_matrix

DATA = Path(os.environ.get("FUSION_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHORT = Scenario(seed=7, minutes=1.2, shoppers=3, picks_per_person=3.0)


@pytest.fixture(scope="module")
def store():
    return demo_store(n_cameras=3, n_plates=32, n_products=16)


@pytest.fixture(scope="module")
def short(store):
    simulation = Simulation(store, SHORT)
    return simulation, list(simulation.observations())


def run(store, **knobs):
    simulation = Simulation(store, replace(SHORT, **knobs))
    return simulation, list(simulation.observations())


def same(one, other):
    return type(one) is type(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in type(one).__slots__
        if getattr(one, name) is not None
    )


def taken_from_shelves(truth):
    taken = Counter()
    for event in truth.events:
        taken[event.account, event.gtin] -= event.quantity
    return +taken


def in_baskets(truth):
    return Counter(
        {(account, gtin): n for account, items in _items_by_account(truth).items() for gtin, n in items.items()}
    )


def _items_by_account(truth):
    items = defaultdict(Counter)
    for visit in truth.visits:
        items[visit.account or ""] += Counter(visit.items)
    return items


# ---- the demonstration shop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_plates", [1, 7, 80, 416, 520])
@pytest.mark.parametrize("n_cameras", [0, 1, 8])
def test_demo_store_is_valid(tmp_path, n_plates, n_cameras):
    store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
    store.save(tmp_path)
    assert Store.load(tmp_path) == store
    assert (len(store.plates), len(store.cameras)) == (n_plates, n_cameras)
    assert {facing.plate for facing in store.planogram} == {plate.plate for plate in store.plates}
    assert Obstacles(store).open[:, :4].sum() == len(store.obstacle.boxes), "every gondola is open on one side"


def test_demo_cameras_look_into_the_shop():
    for camera in demo_store(n_cameras=12).cameras:
        middle_px, depth_m = Lens.of(camera).project(np.array([4.0, 3.0, 1.0]))
        assert depth_m > 2.0
        assert np.all(np.abs(middle_px - np.array(camera.size) / 2) < 250)


def test_demo_store_look_alikes_lie_side_by_side():
    store = demo_store(look_alike_share=1.0)
    weight_g = {product.gtin: product.weight_g for product in store.products}
    first = [weight_g[facing.gtin] for facing in store.planogram]
    assert max(abs(a - b) for a, b in pairwise(first)) <= 2.0 + 1e-9


@pytest.mark.parametrize("knob", ["n_plates", "n_products"])
def test_demo_store_refuses_what_does_not_fit(knob):
    with pytest.raises(ValueError, match=knob):
        demo_store(**{knob: 5000})


# ---- geometry --------------------------------------------------------------------------------------------------------


def test_projection_agrees_with_opencv(store):
    points = np.random.default_rng(0).uniform([1, 1, 0], [7, 5, 2], (200, 3))
    for camera in store.cameras:
        expected = cv2.projectPoints(
            points,
            np.array(camera.rotation),
            np.array(camera.translation),
            np.array(camera.matrix),
            np.array(camera.distortions),
        )[0][:, 0]
        got, _ = Lens.of(camera).project(points)
        shown = ~np.isnan(got[:, 0])
        assert shown.mean() > 0.6
        assert_allclose(got[shown], expected[shown], atol=1e-6)
        assert_allclose(
            rotation_matrix(np.array(camera.rotation)), cv2.Rodrigues(np.array(camera.rotation))[0], atol=1e-9
        )


def test_shelves_hide_what_is_behind_them_but_not_the_hand_inside():
    store = demo_store(n_plates=80)
    obstacles = Obstacles(store)
    x0, y0, x1, y1, top = store.obstacle.boxes[0]  # along the back wall, open towards -y
    middle = (x0 + x1) / 2
    camera = np.array([middle, 4.5, 2.5])
    inside, behind, before = [middle, y0 + 0.2, 1.0], [middle, y1 + 0.3, 1.0], [middle, y0 - 0.2, 1.0]
    assert obstacles.hide(camera, np.array([inside, behind, before])).tolist() == [False, True, False]
    assert obstacles.hide(np.array([middle, y1 + 2.0, top + 0.5]), np.array([inside])).tolist() == [True]


def test_limbs_keep_their_lengths():
    random = np.random.default_rng(1)
    state = np.zeros((500, 19))
    state[:, :2] = random.uniform(0, 5, (500, 2))
    state[:, 4:7] = np.column_stack([random.uniform(-4, 4, (500, 2)), random.uniform(0, 0.2, 500)])
    state[:, 7:9] = random.uniform(0, [0.25, 1.1], (500, 2))
    state[:, 9:12] = random.uniform([-0.4, 0, 0], [0.4, 1, 1], (500, 3))
    state[:, 12:15] = random.uniform([0, 0, 0.2], [5, 5, 1.9], (500, 3))
    stature_m = random.uniform(1.1, 1.95, 500)
    points = joints_m(state, stature_m)
    for bone, length in ((("shoulder", "elbow"), UPPER_ARM), (("elbow", "wrist"), FOREARM), (("hip", "knee"), THIGH)):
        for side in "lr":
            got = np.linalg.norm(points[:, JOINT[f"{side}_{bone[0]}"]] - points[:, JOINT[f"{side}_{bone[1]}"]], axis=1)
            assert_allclose(got, length * stature_m, rtol=1e-3)
    shank = np.linalg.norm(points[:, JOINT["l_knee"]] - points[:, JOINT["l_ankle"]], axis=1)
    assert np.median(np.abs(shank - SHANK * stature_m)) < 0.02


@pytest.mark.parametrize("height_m", [0.4, 0.8, 1.2, 1.6])
def test_posture_brings_the_hand_to_the_plate(height_m):
    crouch, lean = posture(1.7, 0.55, height_m, 0.1)
    state = np.zeros((1, 19))
    state[0, 7:9] = crouch, lean
    state[0, 11] = 1.0
    state[0, 12:15] = 0.55, -0.1, height_m
    wrist = joints_m(state, np.array([1.7]))[0, JOINT["r_wrist"]]
    assert np.linalg.norm(wrist - state[0, 12:15]) < 0.2, "a hand's length away, or a little more"


# ---- what happens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_goods_add_up_in_a_busy_shop(store, seed):
    simulation, _ = run(
        store.model_copy(update={"cameras": ()}),
        seed=seed,
        minutes=1.6,
        shoppers=4,
        companions=2,
        children=1,
        tailgaters=1,
        staff=1,
        put_back_probability=0.5,
        wrong_place_probability=0.6,
        hand_over_probability=0.5,
        two_piece_probability=0.4,
        neighbour_probability=0.5,
    )
    truth = simulation.truth
    shoppers = {visit.account or "" for visit in truth.visits}
    staff = {event.account for event in truth.events} - shoppers
    assert all(token.startswith("staff-") for token in staff)
    taken = Counter({key: n for key, n in taken_from_shelves(truth).items() if key[0] not in staff})
    assert taken == in_baskets(truth)
    stock = Counter({(f.plate, f.gtin): f.stock for f in store.planogram})
    for event in truth.events:
        stock[event.plate, event.gtin] += event.quantity
        assert stock[event.plate, event.gtin] >= 0, event
    accounts = Counter(visit.account for visit in truth.visits)
    assert len(accounts) == 5 and set(accounts.values()) == {1}, "four shoppers and somebody who slipped in"
    assert any(event.quantity > 0 and event.account in shoppers for event in truth.events)


def test_everybody_scans_shops_and_leaves_in_time(store, short):
    simulation, observations = short
    end_ns = SHORT.start_ns + round(SHORT.duration_s * 1e9)
    scans = {o.account: o.t_ns for o in observations if isinstance(o, GateScan)}
    assert len(simulation.truth.visits) == SHORT.shoppers == len(scans)
    for visit in simulation.truth.visits:
        assert scans[visit.account] < visit.enter_ns < visit.exit_ns <= end_ns
        inside = [e.t_ns for e in simulation.truth.events if e.account == visit.account]
        assert all(visit.enter_ns < t_ns < visit.exit_ns for t_ns in inside)
    assert sum(sum(visit.items.values()) for visit in simulation.truth.visits) > 0


def test_five_minutes_of_eight_shoppers_end_with_eight_visits():
    simulation = Simulation(demo_store(n_cameras=0, n_plates=24), Scenario(seed=3))
    for _ in simulation.observations():
        pass
    assert len(simulation.truth.visits) == 8
    assert max(v.exit_ns for v in simulation.truth.visits) <= simulation.scenario.start_ns + 300 * 10**9


def test_people_keep_off_shelves_and_each_other(store):
    simulation, _ = run(store.model_copy(update={"cameras": ()}), shoppers=6, minutes=1.5, neighbour_probability=0.6)
    for people in simulation.truth.people:
        x, y = people.position_m.T
        for x0, y0, x1, y1, _ in store.obstacle.boxes:
            assert not np.any((x > x0) & (x < x1) & (y > y0) & (y < y1))
        gaps = np.linalg.norm(people.position_m[:, None] - people.position_m[None], axis=-1)
        assert np.all(gaps[np.triu_indices(len(gaps), 1)] > 0.2)


def test_hands_are_at_the_plate_when_goods_move(store, short):
    simulation, _ = short
    centres = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    wrists = list(store.layout.indices("l_wrist", "r_wrist"))
    gaps = []
    for event in simulation.truth.events:
        people = min(simulation.truth.people, key=lambda people: abs(people.t_ns - event.t_ns))
        row = people.account.index(event.account)
        gaps.append(np.linalg.norm(people.joints_m[row, wrists] - centres[event.plate], axis=1).min())
    assert len(gaps) > 4
    assert np.median(gaps) < 0.3
    assert max(gaps) < 0.6


def test_a_thing_handed_over_stays_in_the_familys_basket(store):
    bare = store.model_copy(update={"cameras": ()})
    simulation, observations = run(bare, shoppers=1, companions=2, hand_over_probability=1.0, minutes=1.2)
    assert len(simulation.truth.visits) == 1
    assert len([o for o in observations if isinstance(o, GateScan)]) == 3, "everybody is scanned"
    assert taken_from_shelves(simulation.truth) == in_baskets(simulation.truth)


# ---- what sensors tell -----------------------------------------------------------------------------------------------


def test_observations_come_in_order(short):
    times = [o.t_ns for o in short[1]]
    assert times == sorted(times)


def test_detections_lie_on_the_joints(store):
    simulation, observations = run(
        store,
        keypoint_noise=0.0,
        outlier_probability=0.0,
        swap_probability=0.0,
        ghosts_per_frame=0.0,
        clock_offset_max_s=0.0,
        minutes=0.8,
        shoppers=2,
    )
    errors, found = [], 0
    by_time = {people.t_ns: people for people in simulation.truth.people}
    lenses = {camera.name: Lens.of(camera) for camera in store.cameras}
    step_ns = 10**8
    for frame in (o for o in observations if isinstance(o, Frame)):
        before = frame.t_ns - (frame.t_ns - SHORT.start_ns) % step_ns
        a, b = by_time.get(before), by_time.get(before + step_ns)
        if a is None or b is None or list(a.person) != list(b.person):
            continue
        share = (frame.t_ns - before) / step_ns
        joints_px, _ = lenses[frame.camera].project(a.joints_m + share * (b.joints_m - a.joints_m))
        for detection in frame.keypoints:
            seen = (detection[:, 2] > 0.6) & ~np.isnan(joints_px).any(axis=(0, 2))
            if seen.sum() < 3:
                continue
            gap = np.linalg.norm(joints_px[:, seen] - detection[None, seen, :2], axis=-1)
            errors.append(np.median(gap, axis=1).min())
            found += 1
    assert found > 300
    # Between two instants of the truth a joint moves on a curve and not on a chord: a few millimetres.
    assert np.percentile(errors, 95) < 3.0
    assert np.median(errors) < 1.0


def test_noise_is_what_was_asked_for(store):
    still, loud = (
        [
            o.keypoints
            for o in run(store, keypoint_noise=k, shoppers=2, minutes=0.7, outlier_probability=0.0)[1]
            if isinstance(o, Frame)
        ]
        for k in (0.0, 1.0)
    )
    gaps = []
    for a, b in zip(still, loud):
        # Detections come in random order, the same in both runs as long as nobody is found in one only.
        if len(a) == len(b) == 1:
            both = (a[0, :, 2] > 0.6) & (b[0, :, 2] > 0.6)
            gaps += np.linalg.norm(a[0, both, :2] - b[0, both, :2], axis=-1).tolist()
    assert 1.0 < np.median(gaps) < 6.0


def trace(observations, plate, rate_hz):
    """Times in seconds from the run's start, and grams, of one plate."""
    readings = [o for o in observations if isinstance(o, ShelfReading) and o.plate == plate]
    times = [(o.t_ns - SHORT.start_ns) / 1e9 + np.arange(len(o.samples)) / rate_hz for o in readings]
    return np.concatenate(times), np.concatenate([o.samples for o in readings])


def test_a_plate_steps_by_the_weight_of_the_piece(store):
    bare = store.model_copy(update={"cameras": ()})
    simulation, observations = run(
        bare,
        minutes=2.0,
        plate_noise=0.0,
        shocks_per_minute=0.0,
        straddle_probability=0.0,
        touch_probability=0.0,
        second_grip_probability=0.0,
    )
    weight_g = {product.gtin: product.weight_g for product in store.products}
    events = simulation.truth.events
    ratios = []
    for event in events:
        t_s = (event.t_ns - SHORT.start_ns) / 1e9
        if any(other is not event and abs(other.t_ns - event.t_ns) < 3.5e9 for other in events):
            continue
        times, grams = trace(observations, event.plate, store.weight_rate_hz)
        before = grams[(times > t_s - 3.0) & (times < t_s - 2.5)].mean()
        after = grams[(times > t_s + 2.6) & (times < t_s + 3.1)].mean()
        ratios.append((after - before) / (event.quantity * weight_g[event.gtin]))
    assert len(ratios) >= 3
    assert_allclose(ratios, 1.0, atol=0.13)  # gain within 9 %, a piece within 3 sd
    assert np.ptp(ratios) > 0.001, "every plate and every piece is a little different"


def test_a_quiet_plate_is_quiet_and_quantised(store):
    _, observations = run(store.model_copy(update={"cameras": ()}), shoppers=0, shocks_per_minute=0.0)
    spreads = []
    for plate in store.plates:
        _, grams = trace(observations, plate.plate, store.weight_rate_hz)
        steps = np.diff(np.unique(grams.astype(float)))
        assert steps.min() > 0.2, "readings are multiples of the quantum"
        spreads.append(grams[:600].std())
    assert 0.3 < np.median(spreads) < 1.5


def test_messages_are_as_the_contract_says(store, short):
    readings = defaultdict(list)
    for o in short[1]:
        if isinstance(o, ShelfReading):
            assert o.samples.shape == (12,) and o.samples.dtype == np.float32
            readings[o.plate].append(o.t_ns)
    assert set(readings) == {plate.plate for plate in store.plates}
    gaps_s = np.concatenate([np.diff(times) for times in readings.values()]) / 1e9
    assert_allclose(gaps_s.mean(), 0.2, atol=1e-3)
    assert 0.001 < gaps_s.std() < 0.008


# ---- files, repetition, knobs ----------------------------------------------------------------------------------------


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


PEOPLE_KNOBS = [
    ("companions", 3),
    ("children", 1),
    ("tailgaters", 1),
    ("staff", 1),
    ("picks_per_person", 6.0),
    ("empty_handed_probability", 1.0),
    ("put_back_probability", 1.0),
    ("two_piece_probability", 1.0),
    ("second_grip_probability", 1.0),
    ("touch_probability", 1.0),
    ("straddle_probability", 1.0),
    ("hand_over_probability", 1.0),
    ("neighbour_probability", 1.0),
    ("odd_reach_probability", 1.0),
    ("batch_weight_sd", 0.02),
    ("misplaced_pieces", 60),
    ("count_error_probability", 1.0),
]
SENSOR_KNOBS = [
    ("frame_rate_hz", 10.0),
    ("frame_jitter_s", 0.006),
    ("frame_drop_probability", 0.3),
    ("cameras_out", 2),
    ("clock_offset_max_s", 0.1),
    ("keypoint_noise", 3.0),
    ("outlier_probability", 0.1),
    ("swap_probability", 0.5),
    ("joint_miss_probability", 0.3),
    ("person_miss_probability", 0.3),
    ("ghosts_per_frame", 0.5),
    ("plate_noise", 4.0),
    ("shocks_per_minute", 30.0),
    ("drift_g_per_min", 5.0),
    ("drifting_plates", 5),
    ("dead_plates", 3),
    ("gap_probability", 0.2),
    ("message_jitter_s", 0.02),
    ("calibration_error_px", 3.0),
    ("hum_g", 2.0),
]


@pytest.fixture(scope="module")
def lively():
    """Nobody looks, but a lot happens."""
    bare = demo_store(n_cameras=0, n_plates=24, n_products=10)
    scenario = Scenario(seed=2, minutes=2.0, shoppers=4, companions=2)
    return bare, scenario, list(Simulation(bare, scenario).observations())


@pytest.fixture(scope="module")
def calm():
    """Two cameras watch one shopper."""
    small = demo_store(n_cameras=2, n_plates=12, n_products=6)
    scenario = Scenario(seed=2, minutes=0.6, shoppers=1, frame_rate_hz=6.0)
    return small, scenario, list(Simulation(small, scenario).observations())


def changes(base, knob, value):
    store, scenario, expected = base
    changed = Simulation(store, replace(scenario, **{knob: value})).observations()
    return any(not same(a, b) for a, b in zip_longest(changed, expected))


@pytest.mark.parametrize("knob, value", PEOPLE_KNOBS)
def test_knobs_of_people_change_what_is_observed(lively, knob, value):
    assert changes(lively, knob, value)


@pytest.mark.parametrize("knob, value", SENSOR_KNOBS)
def test_knobs_of_sensors_change_what_is_observed(calm, knob, value):
    assert changes(calm, knob, value)


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


def test_narrow_plates_stand_where_wide_ones_do():
    wide, narrow = demo_store(1, 80), demo_store(1, 160, plate_width_m=0.1)
    for store in (wide, narrow):
        x, y = ([getattr(plate, axis) for plate in store.plates] for axis in "xy")
        assert_allclose([min(x), max(x), min(y), max(y)], [0.3, 7.7, 2.8, 5.7], atol=0.11)
    assert {plate.width for plate in narrow.plates} == {0.1}
    with pytest.raises(ValueError, match="n_plates: want 1 to 1040"):
        demo_store(1, 1041, plate_width_m=0.1)


def test_what_really_lies_there_is_not_what_the_planogram_says(store):
    from fusion.simulation.goods import ShelfMap, Stock

    def stock(**knobs):
        return Stock(store, ShelfMap(store), replace(SHORT, **knobs))

    right, wrong = stock(), stock(count_error_probability=1.0, misplaced_pieces=7)
    assert all(right.count(plate, gtin) == n for plate, gtin, n in right.facings) and not right.misplaced()
    strays = sum(wrong.count(plate, gtin) for plate, gtin in set(wrong.misplaced()))
    assert 1 <= strays <= 7
    off = [wrong.count(plate, gtin) - n for plate, gtin, n in wrong.facings]
    assert sum(o == 0 for o in off) <= 7 and all(-3 <= o <= 3 + 7 for o in off)
    heavy = stock(batch_weight_sd=0.05)
    labels = {product.gtin: product.weight_g for product in store.products}
    means = [np.mean([heavy.new_piece(gtin).weight_g for _ in range(200)]) / label for gtin, label in labels.items()]
    assert 0.02 < np.std(means) < 0.1


def test_a_load_creeps_and_weighs_otherwise_elsewhere(store):
    from fusion.simulation.events import Load
    from fusion.simulation.goods import ShelfMap
    from fusion.simulation.scales import Scales

    def steps(**knobs):
        """Grams on one plate just after each of some loads of 1000 g, and what it creeps by after the last."""
        quiet = replace(SHORT, plate_noise=0.0, shocks_per_minute=0.0, drift_g_per_min=0.0, **knobs)
        scales = Scales(store, ShelfMap(store), quiet)
        scales.add([Load(10.0 * k + 10.0, ((0, 1000.0),)) for k in range(8)], [])
        found = defaultdict(list)
        for reading in scales.readings(200.0, 0):
            found[reading.plate].append((reading.t_ns / 1e9, float(reading.samples[-1])))
        times, grams = np.array(found[store.plates[0].plate]).T
        after = [grams[np.searchsorted(times, 10.0 * k + 14.0)] for k in range(9)]
        return np.diff(after)[:7], grams[-1] - after[7]

    plain, still = steps()
    assert np.ptp(plain) < 0.5 and abs(still) < 0.5
    odd, _ = steps(place_gain_sd=0.02)
    assert 10.0 < np.std(odd) < 40.0
    assert abs(steps(creep_share=0.02)[1]) > 1.0


def test_an_outage_lasts_as_long_as_asked(store):
    _, observations = run(store, cameras_out=1, outage_share=0.8)
    seen = Counter(o.camera for o in observations if isinstance(o, Frame))
    share = min(seen.values()) / max(seen.values())
    assert share == pytest.approx(0.2, abs=0.08)
    with pytest.raises(ValueError, match="outage_share"):
        replace(SHORT, outage_share=1.5)


def test_unscanned_people_have_a_visit_of_nobody(store):
    simulation, observations = run(store.model_copy(update={"cameras": ()}), tailgaters=1, staff=1, children=1)
    kinds = Counter(o.credential_type for o in observations if isinstance(o, GateScan))
    assert kinds == {"account": SHORT.shoppers + 1, "staff": 1}
    assert [visit.account for visit in simulation.truth.visits].count(None) == 1
    heights = defaultdict(list)
    for people in simulation.truth.people:
        for person, joints in zip(people.person.tolist(), people.joints_m):
            heights[person].append(joints[0, 2])
    assert min(np.median(h) for h in heights.values()) < 1.25, "a child is short"


def test_arrivals_are_late_and_complete(store, short):
    arrivals = list(Simulation(store, SHORT).arrivals())
    times = [arrival_ns for arrival_ns, _ in arrivals]
    assert times == sorted(times)
    late_s = np.array([(arrival_ns - o.t_ns) / 1e9 for arrival_ns, o in arrivals])
    assert len(arrivals) == len(short[1]) and late_s.min() > 0 and late_s.max() < 2.0
    assert [o.t_ns for _, o in arrivals] != sorted(o.t_ns for _, o in arrivals)


@pytest.mark.parametrize(
    "knobs, said",
    [
        ({"shoppers": -1}, "shoppers"),
        ({"gap_probability": 1.5}, "gap_probability"),
        ({"minutes": math.nan}, "minutes"),
        ({"minutes": 0.5, "shoppers": 20}, "at least"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz"),
        ({"clock_offset_max_s": 0.5}, "clock_offset_max_s"),
    ],
)
def test_a_scenario_refuses_nonsense(knobs, said):
    with pytest.raises(ValueError, match=said):
        Scenario(**knobs)


def test_other_layouts(store):
    for keypoints, dim in (("body25", 0), ("box2", 16)):
        other = store.model_copy(update={"keypoints": keypoints, "appearance_dim": dim})
        simulation, observations = run(other, minutes=0.7, shoppers=2)
        frames = [o for o in observations if isinstance(o, Frame)]
        assert sum(len(frame.keypoints) for frame in frames) > 100
        for frame in frames:
            assert frame.keypoints.shape[1:] == (other.layout.n_joints, 3)
            assert dim == 0 or frame.appearance.shape == (len(frame.keypoints), dim)
        assert simulation.truth.people[0].joints_m.shape[1:] == (other.layout.n_joints, 3)


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
