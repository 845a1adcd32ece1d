"""A camera that shows one picture again and again is not used; people who stand still are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusion.observations import Frame
from fusion.people.stills import LOOK_NS, STILL_NS, Stills
from fusion.results import WarningKind

STEP_NS = 100_000_000


def frame(t_ns: int, keypoints: np.ndarray, camera: str = "cam1") -> Frame:
    return Frame(t_ns, camera, keypoints.astype(np.float32))


def person(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 17, 3))


def used(stills: Stills, frames: list[Frame]) -> list[int]:
    """Times of the frames that are used, one set for each."""
    return [kept.t_ns for one in frames for kept in stills.without([one], one.t_ns)]


def test_a_repeated_picture_is_left_out_after_two_seconds_and_named_once() -> None:
    stills = Stills()
    frames = [frame(i * STEP_NS, person(0)) for i in range(60)]
    kept = used(stills, frames)
    assert STILL_NS - STEP_NS <= kept[-1] <= STILL_NS + LOOK_NS
    warning, *others = stills.warnings()
    assert warning.kind is WarningKind.CAMERA_STILL and warning.subject == "cam1" and others == []
    assert sum(stills.ignored.values()) == len(frames) - len(kept)


def test_a_camera_that_moves_again_is_used_at_once() -> None:
    stills = Stills()
    used(stills, [frame(i * STEP_NS, person(0)) for i in range(60)])
    moving = [frame((60 + i) * STEP_NS, person(1 + i)) for i in range(30)]
    assert used(stills, moving) == [one.t_ns for one in moving]


def test_an_empty_shop_is_no_still_picture() -> None:
    frames = [frame(i * STEP_NS, np.zeros((0, 17, 3))) for i in range(60)]
    stills = Stills()
    assert len(used(stills, frames)) == 60 and stills.warnings() == []


def test_only_the_camera_that_stands_still_is_left_out() -> None:
    stills = Stills()
    for i in range(60):
        t_ns = i * STEP_NS
        kept = stills.without([frame(t_ns, person(0)), frame(t_ns, person(i), "cam2")], t_ns)
        assert [one.camera for one in kept][-1] == "cam2"
    assert {warning.subject for warning in stills.warnings()} == {"cam1"}


@given(st.lists(st.integers(0, 1), min_size=30, max_size=80))
def test_pictures_that_change_within_two_seconds_are_all_used(pictures: list[int]) -> None:
    # Every picture is shown for at most a second before one comes that was never shown.
    frames = [frame(i * STEP_NS, person(100 + i if i % 10 == 0 else picture)) for i, picture in enumerate(pictures)]
    looks = [i for i in range(len(frames)) if i * STEP_NS % LOOK_NS == 0]
    assert looks, "the pictures are looked at"
    assert len(used(Stills(), frames)) == len(frames)
