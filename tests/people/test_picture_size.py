"""Pictures of another size: cameras prove themselves by rays that meet, and a wrong size is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from fusion.engine import Engine
from fusion.observations import Frame, Observation
from fusion.people.picture_size import PictureSizes, Size
from fusion.people.site import Site
from fusion.results import ReasonKind, Receipt, Warning, WarningKind
from fusion.sentences import sentence
from fusion.simulation import REAL_DETECTOR, Scenario, Simulation, demo_store
from fusion.store.models import Store

STORE = demo_store(n_cameras=4, n_plates=12)
NAMES = [camera.name for camera in STORE.cameras]
SITE = Site.of_store(STORE)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    return list(Simulation(STORE, Scenario(seed=5, minutes=0.6, shoppers=2, frame_rate_hz=10.0)).observations())


def scaled(observation: Observation, factors: Mapping[str, tuple[float, float]]) -> Observation:
    if not isinstance(observation, Frame) or observation.camera not in factors:
        return observation
    keypoints = observation.keypoints.copy()
    keypoints[:, :, :2] *= factors[observation.camera]
    return replace(observation, keypoints=keypoints)


def sets(observations: Iterable[Observation]) -> Iterator[dict[str, Frame]]:
    frames: dict[str, Frame] = {}
    for frame in observations:
        if isinstance(frame, Frame):
            if frame.camera in frames:
                yield frames
                frames = {}
            frames[frame.camera] = frame


def looked_at(
    observations: Iterable[Observation], factors: Mapping[str, tuple[float, float]], site: Site = SITE
) -> PictureSizes:
    sizes = PictureSizes(site)
    for frames in sets(scaled(o, factors) for o in observations):
        sizes.step(frames, max(frame.t_ns for frame in frames.values()))
    return sizes


def test_pictures_of_the_right_size_prove_themselves(observations: list[Observation]) -> None:
    sizes = looked_at(observations, {})
    assert (sizes.found, sizes.unproved, sizes.contradicted) == ({}, False, False)


def test_so_do_those_of_real_detectors() -> None:
    scenario = Scenario(seed=6, minutes=0.6, shoppers=2, frame_rate_hz=10.0, **REAL_DETECTOR)
    sizes = looked_at(Simulation(STORE, scenario).observations(), {})
    assert (sizes.found, sizes.unproved, sizes.contradicted) == ({}, False, False)


WIDTH, HEIGHT = STORE.cameras[0].size


@pytest.mark.parametrize(
    "size", [(640, 360), (960, 540), (1920, 1080), (2560, 1440), (640, 640)], ids=lambda size: f"{size[0]} x {size[1]}"
)
def test_the_size_is_named_where_all_pictures_are_alike(observations: list[Observation], size: tuple[int, int]) -> None:
    sizes = looked_at(observations, dict.fromkeys(NAMES, (size[0] / WIDTH, size[1] / HEIGHT)))
    assert sizes.unproved
    assert len(sizes.found) >= 2 and set(sizes.found.values()) == {Size(*size)}


def test_one_camera_is_named_alone(observations: list[Observation]) -> None:
    sizes = looked_at(observations, {NAMES[2]: (0.5, 0.5)})
    assert sizes.found == {2: Size(640, 360)}
    assert not sizes.unproved and not sizes.contradicted


def test_a_camera_that_is_mended_is_named_no_more(observations: list[Observation]) -> None:
    sizes = looked_at(observations, {NAMES[2]: (0.5, 0.5)})
    shift_ns = observations[-1].t_ns - observations[0].t_ns
    for _ in range(3):
        for frames in sets(observations):
            shifted = {name: replace(frame, t_ns=frame.t_ns + shift_ns) for name, frame in frames.items()}
            sizes.step(shifted, max(frame.t_ns for frame in shifted.values()))
        shift_ns += observations[-1].t_ns - observations[0].t_ns
    assert sizes.found == {}


def test_cameras_that_share_no_view_are_not_compared(observations: list[Observation]) -> None:
    one = Site.of_store(STORE.model_copy(update={"cameras": STORE.cameras[:1]}))
    sizes = looked_at((o for o in observations if getattr(o, "camera", NAMES[0]) == NAMES[0]), {}, one)
    assert not sizes.unproved and not sizes.contradicted


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, -1e9])
def test_any_coordinates_are_survived(value: float) -> None:
    sizes = PictureSizes(SITE)
    keypoints = np.ones((2, 17, 3), np.float32)
    keypoints[:, ::2, :2] = value
    for k in range(100):
        t_ns = (1 + k) * 10**8
        sizes.step({name: Frame(t_ns, name, keypoints) for name in NAMES}, t_ns)
    assert sizes.found == {}


def answers(store: Store, observations: Iterable[Observation]) -> tuple[Engine, list[Receipt], list[Warning]]:
    engine = Engine(store)
    results = [result for observation in observations for result in engine.feed(observation)] + engine.close()
    receipts = [result for result in results if isinstance(result, Receipt)]
    named = [r for r in results if isinstance(r, Warning) and r.kind is WarningKind.KEYPOINTS_OTHER_SIZE]
    return engine, receipts, named


def test_no_receipt_is_settled_until_cameras_agree(observations: list[Observation]) -> None:
    engine, receipts, named = answers(STORE, (scaled(o, dict.fromkeys(NAMES, (0.5, 0.5))) for o in observations))
    assert receipts and all(
        ReasonKind.CAMERAS_DISAGREE in [reason.kind for reason in receipt.reasons] for receipt in receipts
    )
    assert named and {warning.detail for warning in named} == {"640 x 360"}
    assert "fit pictures of 640 x 360 pixels" in sentence(named[0])
    assert WarningKind.KEYPOINTS_OTHER_SIZE in engine.health().detections.values()
    _, receipts, named = answers(STORE, observations)
    assert named == [] and not any(reason.kind is ReasonKind.CAMERAS_DISAGREE for r in receipts for reason in r.reasons)
