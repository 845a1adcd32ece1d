"""Whole kinds of sensors that are silent or misnamed, and detections of another scale: named within a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from fusion.engine import Engine
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.people.roll_call import CALL_EVERY_NS, RollCall
from fusion.people.site import Site
from fusion.results import Warning, WarningKind
from fusion.sentences import sentence
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

STORE = demo_store(n_cameras=4, n_plates=12)
SCENARIO = Scenario(seed=5, minutes=0.6, shoppers=2)
T_NS = SCENARIO.start_ns
# Nearly a second of data until the call, and the two seconds by which messages may be late.
PROMPT_NS = CALL_EVERY_NS + 200_000_000


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    return list(Simulation(STORE, SCENARIO).observations())


def warnings_of(store: Store, observations: Iterable[Observation]) -> list[Warning]:
    engine = Engine(store)
    results = [result for observation in observations for result in engine.feed(observation)]
    return [result for result in [*results, *engine.close()] if isinstance(result, Warning)]


def of_kinds(warnings: list[Warning], *kinds: WarningKind) -> list[Warning]:
    return [warning for warning in warnings if warning.kind in kinds]


ROLL_CALL = (
    WarningKind.NEVER_HEARD, WarningKind.SENSORS_NEVER_HEARD, WarningKind.UNKNOWN_CAMERA, WarningKind.UNKNOWN_PLATE,
    WarningKind.UNKNOWN_SENSORS, WarningKind.KEYPOINTS_FRACTIONS, WarningKind.KEYPOINTS_BEYOND,
    WarningKind.KEYPOINTS_IN_CORNER,
)  # fmt: skip


def test_a_shop_in_order_is_not_warned_of(observations: list[Observation]) -> None:
    assert of_kinds(warnings_of(STORE, observations), *ROLL_CALL) == []


def test_all_scales_that_never_report_are_one_warning(observations: list[Observation]) -> None:
    found = of_kinds(warnings_of(STORE, (o for o in observations if not isinstance(o, ShelfReading))), *ROLL_CALL)
    (warning,) = found
    assert (warning.kind, warning.subject, warning.count) == (WarningKind.SENSORS_NEVER_HEARD, "plates", 12)
    assert warning.t_ns - T_NS < PROMPT_NS
    assert sentence(warning).startswith("12 plates have not reported yet, among them ")


def test_few_that_never_report_are_named(observations: list[Observation]) -> None:
    camera, plate = STORE.cameras[1].name, STORE.plates[3].plate
    heard = [o for o in observations if getattr(o, "camera", "") != camera and getattr(o, "plate", "") != plate]
    found = of_kinds(warnings_of(STORE, heard), *ROLL_CALL)
    assert [(warning.kind, warning.subject) for warning in found] == [
        (WarningKind.NEVER_HEARD, camera), (WarningKind.NEVER_HEARD, plate),
    ]  # fmt: skip
    assert all(warning.t_ns - T_NS < PROMPT_NS for warning in found)


def renamed(observation: Observation) -> Observation:
    match observation:
        case ShelfReading():
            return replace(observation, plate=observation.plate.upper() + " left")
        case Frame(camera=camera) if camera == STORE.cameras[0].name:
            return replace(observation, camera="kitchen")
    return observation


def test_names_that_no_configuration_has_are_warned_of_once(observations: list[Observation]) -> None:
    found = of_kinds(warnings_of(STORE, map(renamed, observations)), *ROLL_CALL)
    assert {(warning.kind, warning.subject, warning.count) for warning in found} == {
        (WarningKind.UNKNOWN_CAMERA, "kitchen", None),
        (WarningKind.NEVER_HEARD, STORE.cameras[0].name, None),
        (WarningKind.UNKNOWN_SENSORS, "plates", 12),
        (WarningKind.SENSORS_NEVER_HEARD, "plates", 12),
    }
    assert len(found) == 4 and all(warning.t_ns - T_NS < PROMPT_NS for warning in found)


@pytest.mark.parametrize(("kind", "subject"), [(Frame, "cameras"), (ShelfReading, "plates")])
def test_a_whole_kind_that_falls_silent_is_named_and_comes_back(
    observations: list[Observation], kind: type, subject: str
) -> None:
    begin_ns, end_ns = T_NS + 4 * 10**9, T_NS + 10 * 10**9
    kept = [o for o in observations if not (isinstance(o, kind) and begin_ns <= o.t_ns < end_ns)]
    silent, back = of_kinds(warnings_of(STORE, kept), WarningKind.SENSORS_SILENT, WarningKind.SENSORS_BACK)
    assert (silent.kind, silent.subject) == (WarningKind.SENSORS_SILENT, subject)
    assert 0 < silent.t_ns - begin_ns < 2.5e9
    assert (back.kind, back.subject) == (WarningKind.SENSORS_BACK, subject) and 0 <= back.t_ns - end_ns < 0.5e9


def test_a_pause_of_all_sensors_is_no_silence_of_a_kind(observations: list[Observation]) -> None:
    begin_ns, end_ns = T_NS + 4 * 10**9, T_NS + 10 * 10**9
    kept = [o for o in observations if not begin_ns <= o.t_ns < end_ns]
    assert of_kinds(warnings_of(STORE, kept), WarningKind.SENSORS_SILENT, WarningKind.SENSORS_BACK) == []


def test_a_store_without_scales_that_has_plates_is_warned_of(observations: list[Observation]) -> None:
    bare = STORE.model_copy(update={"plates": (), "planogram": ()})
    (warning,) = of_kinds(warnings_of(bare, observations), *ROLL_CALL)
    assert (warning.kind, warning.subject, warning.count) == (WarningKind.UNKNOWN_SENSORS, "plates", 12)


def test_unknown_names_are_bounded() -> None:
    roll = RollCall(STORE, Site.of_store(STORE))
    warnings = []
    for k in range(5000):
        roll.unknown_plate(f"p{k}")
        roll.unknown_camera("x" * k)
        warnings += roll.step({}, [], T_NS + k * 10**7)
    assert len(of_kinds(warnings, WarningKind.UNKNOWN_SENSORS, WarningKind.UNKNOWN_PLATE)) < 20
    assert len(roll.unknown) < 600


def test_an_unknown_gate_is_warned_of_once() -> None:
    engine = Engine(STORE)
    scans = [GateScan(T_NS + k * 10**9, f"gate {k % 100}", "qr", "a") for k in range(300)]
    warnings = [result for scan in scans for result in engine.feed(scan)] + engine.close()
    assert len(of_kinds([w for w in warnings if isinstance(w, Warning)], WarningKind.UNKNOWN_GATE)) == 64


# ---- detections ------------------------------------------------------------------------------------------------------

SIZE = np.array(STORE.cameras[0].size, np.float32)


def scaled(scale: np.ndarray | float) -> Callable[[Observation], Observation]:
    """Detections of the first camera, with coordinates that are scaled."""

    def scale_first(observation: Observation) -> Observation:
        if not isinstance(observation, Frame) or observation.camera != STORE.cameras[0].name:
            return observation
        keypoints = observation.keypoints.copy()
        keypoints[:, :, :2] *= np.asarray(scale, np.float32)
        return replace(observation, keypoints=keypoints)

    return scale_first


@pytest.mark.parametrize(
    ("scale", "kind"), [(1.0 / SIZE, WarningKind.KEYPOINTS_FRACTIONS), (3.0, WarningKind.KEYPOINTS_BEYOND)]
)
def test_detections_of_another_scale_are_named(
    observations: list[Observation], scale: np.ndarray | float, kind: WarningKind
) -> None:
    engine = Engine(STORE)
    changed = list(map(scaled(scale), observations))
    results = [result for observation in changed for result in engine.feed(observation)]
    (warning,) = of_kinds([r for r in results if isinstance(r, Warning)], *ROLL_CALL)
    assert (warning.kind, warning.subject) == (kind, STORE.cameras[0].name)
    seen = [o.t_ns for o in changed if isinstance(o, Frame) and o.camera == warning.subject and len(o.keypoints)]
    assert warning.t_ns <= sorted(seen)[9], "within ten frames with people"
    # Once the size itself is known, it says more.
    assert engine.health().detections in ({warning.subject: kind}, {warning.subject: WarningKind.KEYPOINTS_OTHER_SIZE})


def frame_at(place: np.ndarray, k: int, camera: str = STORE.cameras[0].name) -> Frame:
    keypoints = np.ones((1, 17, 3), np.float32)
    keypoints[0, :, :2] = place
    return Frame(T_NS + k * 10**9, camera, keypoints)


def looked_at(places: Iterable[np.ndarray]) -> tuple[RollCall, list[Warning]]:
    roll, warnings = RollCall(STORE, Site.of_store(STORE)), []
    for k, place in enumerate(places):
        frame = frame_at(place, k)
        warnings += roll.step({frame.camera: frame}, [], frame.t_ns)
    return roll, [warning for warning in warnings if warning.kind in ROLL_CALL[-3:]]


def test_detections_of_a_smaller_picture_are_named_after_a_while() -> None:
    rng = np.random.default_rng(0)
    places = list(rng.uniform(0.0, 1.0, (5000, 2)) * SIZE)
    assert looked_at(places)[1] == []
    roll, warnings = looked_at([place / 3.0 for place in places])
    assert [warning.kind for warning in warnings] == [WarningKind.KEYPOINTS_IN_CORNER]
    assert list(roll.faults) == [STORE.cameras[0].name]


def test_a_detector_that_is_mended_is_fit_again() -> None:
    right, wrong = SIZE * 0.6, SIZE * 1.7
    roll, warnings = looked_at([wrong] * 20 + [right] * 1600)
    assert len(warnings) == 1 and not roll.faults


def test_joints_beyond_the_edge_are_no_fault() -> None:
    """Detectors guess the feet of people who are cut off by the picture's lower edge."""
    rng = np.random.default_rng(1)
    assert looked_at(SIZE * np.array([0.5, 0.96]) + rng.normal(0.0, 30.0, 2) for _ in range(500))[1] == []


def test_numbers_that_are_none_are_no_fault() -> None:
    assert looked_at(np.full(2, value, np.float32) for value in (np.nan, np.inf, 3e38) for _ in range(20))[0]
