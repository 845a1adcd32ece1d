"""Existence: people that cameras miss are reported, ghosts are not; kernels against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from people.rooms import T0, Room, store
from reference import presence as reference

from fusion._kernels import presence as kernels
from fusion._kernels.records import CameraGeometry, States
from fusion.errors import ConfigError
from fusion.observations import Frame
from fusion.people.existence import EXISTENCE
from fusion.people.geometry import Rig
from fusion.people.looks import miss_rates, outlook
from fusion.people.tracker import Tracker, reconstruct
from fusion.store.layouts import LAYOUTS

SEEDS = st.integers(0, 2**31)
SPOTS = ((-1.5, -1.2), (1.3, -0.9), (0.9, 1.4), (-1.1, 1.0))
STANDING = [lambda t, spot=spot: (*spot, 0.0) for spot in SPOTS]


def told(layout: str, share: float, spell_s: float, seconds: float = 12.0) -> tuple[float, int]:
    """Share of person-instants with a track, and the number of ids, in a room of eight cameras."""
    tracker = Tracker.of_store(store(layout, n_views=8))
    rng = np.random.default_rng(5)
    phase, gone = rng.uniform(0, 2, (8, 4)), rng.random((8, 4, 64)) < share

    def hidden(camera: int, person: int, t_s: float) -> bool:
        if spell_s == 0.0:
            return bool(rng.random() < share)
        return bool(gone[camera, person, int(t_s / spell_s + phase[camera, person])])

    reported = Room(tracker, layout, STANDING, hidden=hidden).run(round(15 * seconds))
    near = [
        np.hypot(*(people.position_m - spot).T).min(initial=9.0) < 0.5 for people in reported for spot in SPOTS
    ]
    return float(np.mean(near)), len({int(i) for people in reported for i in people.track_id})


@pytest.mark.parametrize("layout", ["coco17", "box2"])
@pytest.mark.parametrize(
    ("share", "spell_s", "least"), [(0.3, 0.0, 0.99), (0.5, 0.0, 0.97), (0.6, 0.0, 0.93), (0.3, 2.0, 0.98)]
)
def test_people_that_each_camera_misses_are_reported(layout, share, spell_s, least):
    reported, n_ids = told(layout, share, spell_s)
    assert reported >= least and n_ids == 4


def instant(seed: int, n_views: int, miss: float, n_blind: int) -> tuple[Rig, list[Frame], int]:
    """One instant of a room with n_blind further cameras that see nothing; how many people two cameras find."""
    shop = store(n_views=n_views + n_blind)
    tracker = Tracker.of_store(shop)
    rng = np.random.default_rng(seed)
    gone = rng.random((n_views + n_blind, 4)) < miss
    gone[n_views:] = True
    room = Room(tracker, "coco17", STANDING, hidden=lambda camera, person, t_s: gone[camera, person], seed=seed)
    return tracker.rig, room.frames(0), int(((~gone).sum(axis=0) >= 2).sum())


@given(SEEDS, st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_cameras_that_see_nothing_remove_no_one_that_two_cameras_agree_on(seed, n_blind):
    rig, frames, _ = instant(seed, 4, 0.3, 0)
    layout = LAYOUTS["coco17"]
    before = reconstruct(rig, layout, frames)
    cameras = store(n_views=4).cameras
    blind = [c.model_copy(update={"name": f"blind{i}"}) for i, c in enumerate(store(n_views=5).cameras[:n_blind])]
    more = Rig.from_cameras((*cameras, *blind))
    empty = [Frame(T0, camera.name, np.zeros((0, 17, 3), np.float32)) for camera in blind]
    after = reconstruct(more, layout, [*frames, *empty])
    assert len(after.track_id) == len(before.track_id)
    assert_allclose(after.position_m, before.position_m, atol=1e-6)


def test_reconstruct_finds_those_that_two_of_three_cameras_see():
    found = seen = 0
    for seed in range(20):
        rig, frames, n_seen = instant(seed, 3, 0.35, 0)
        people = reconstruct(rig, LAYOUTS["coco17"], frames)
        found, seen = found + len(people.track_id), seen + n_seen
    assert 0.95 * seen <= found <= seen + 2


def test_reconstruct_leaves_out_who_is_less_probable_than_the_caller_asks():
    rig, frames, _ = instant(1, 5, 0.4, 0)
    everyone = reconstruct(rig, LAYOUTS["coco17"], frames)
    limit = float(np.median(everyone.existence))
    likely = reconstruct(rig, LAYOUTS["coco17"], frames, existence_min=limit)
    assert len(likely.track_id) == (everyone.existence >= limit).sum() < len(everyone.track_id)
    with pytest.raises(ConfigError, match="existence_min is 2"):
        reconstruct(rig, LAYOUTS["coco17"], frames, existence_min=2)


# ---- miss rates ------------------------------------------------------------------------------------------------------


def test_miss_rates_start_broad_and_follow_what_is_seen():
    looks, misses = np.zeros((2, 4, kernels.N_CIRCUMSTANCES))
    prior = miss_rates(looks, misses)
    assert_allclose(prior[:, 0], 0.2)
    assert (prior[:, kernels.PARTLY :] > prior[:, : kernels.PARTLY]).all()
    looks[:, 0], misses[:, 0] = 40.0, [2.0, 2.0, 2.0, 24.0]
    rates = miss_rates(looks, misses)
    assert (rates[:3, 0] < 0.12).all() and 0.5 < rates[3, 0] < 0.65
    # A camera that misses people near by misses them elsewhere as well.
    assert rates[3, 1] > 2 * rates[0, 1]


# ---- kernels and twins -----------------------------------------------------------------------------------------------


def scene(seed: int) -> tuple[States, CameraGeometry, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rig = Tracker.of_store(store(n_views=5)).rig
    n = 7
    mean, cov = np.zeros((n, 6, 8)), np.zeros((n, 21, 8))
    mean[:, :2] = rng.uniform(-2.5, 2.5, (n, 2, 1))
    mean[:, 2] = rng.uniform(0.4, 1.6, (n, 8))
    boxes = np.array([[0.5, -2.0, 1.0, 2.0, 1.8], [-2.0, 0.5, 0.0, 0.9, 1.2]])
    geometry = CameraGeometry(rig.camera_from_world, rig.pinholes, rig.size_px, boxes)
    states = States(mean, cov, rng.permutation(n), rng.random(n) < 0.5, 8)
    return states, geometry, rng.random((n, 5)) < 0.5, np.array([True, True, True, False, True])


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_circumstances_and_weights_match_reference(seed):
    rng = np.random.default_rng(seed)
    states, geometry, found, live = scene(seed)
    found &= live
    shape = outlook(LAYOUTS["coco17"])
    who = np.arange(len(states.rows))
    seen = np.empty((len(who), len(live)), np.int8)
    kernels.circumstances(tuple(states), who, tuple(geometry), live, tuple(shape), seen)
    assert_array_equal(seen, reference.circumstances(states, geometry, live, shape))
    rates = rng.uniform(0.05, 0.6, (len(live), kernels.N_CIRCUMSTANCES))
    shown = rng.normal(0, 2, (len(who), len(live), 2)).astype(np.float32)
    shown[rng.random((len(who), len(live))) < 0.3] = np.nan
    # Places near the tracks' own and far from them.
    weighed_m = np.empty((len(who), 2))
    weighed_m[states.rows] = reference.bodies(states, shape)[0] + rng.normal(0, 0.4, (len(who), 2))
    expected_shown, expected = reference.weigh(
        states, found, seen, geometry, shape, EXISTENCE, rates, (0.3, 0.8), shown[states.rows], weighed_m[states.rows]
    )
    pattern, n_own = np.empty(len(who)), np.empty(len(who), np.int64)
    evidence = shown, np.full(found.shape, -1, np.int8), weighed_m, np.zeros(2)
    kernels.weigh(
        tuple(states), who, found, tuple(geometry), live, tuple(shape), tuple(EXISTENCE), rates, (0.3, 0.8), evidence,
        pattern, n_own,
    )  # fmt: skip
    assert_allclose(shown[states.rows], expected_shown, rtol=1e-4, atol=1e-5)
    assert_allclose(pattern, expected, rtol=1e-3, atol=1e-3)
    # Whatever stands still stays within reach of that place.
    apart_m = np.linalg.norm(weighed_m[states.rows] - reference.bodies(states, shape)[0], axis=1)
    assert (apart_m <= EXISTENCE.wander_m + 1e-9).all()
