"""Faults of clocks: an hour ahead or back, one sensor or all, wrong units, drift."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.simulation.faults.fault import Breaker, Fault, Part, Scene, sensor_of

HOUR_NS = 3600 * 10**9


def _shifted(shift_ns: Callable[[Scene, Observation], int]) -> Breaker:
    """Every observation at another time; arrival stays."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        for observation in scene.observations:
            by_ns = shift_ns(scene, observation)
            if by_ns:
                scene.sensors.add(sensor_of(observation))
                yield replace(observation, t_ns=observation.t_ns + by_ns)
            else:
                yield observation

    return breaker


def _from_the_middle(by_ns: int) -> Breaker:
    return _shifted(lambda scene, observation: by_ns if observation.t_ns >= scene.middle_ns else 0)


def _kind_from_the_middle(kind: type[Observation], by_ns: int) -> Breaker:
    return _shifted(lambda scene, o: by_ns if isinstance(o, kind) and o.t_ns >= scene.middle_ns else 0)


def _kind(kind: type[Observation], by_ns: int) -> Breaker:
    return _shifted(lambda _, o: by_ns if isinstance(o, kind) else 0)


def _sensor(name: Callable[[Scene], str], by_ns: int) -> Breaker:
    return _shifted(lambda scene, observation: by_ns if sensor_of(observation) == name(scene) else 0)


def _one_frame_each(scene: Scene) -> Iterator[Observation]:
    """One frame of every camera comes an hour ahead of its time, around the run's middle."""
    waiting = set(scene.cameras)
    for observation in scene.observations:
        forged = isinstance(observation, Frame) and observation.t_ns >= scene.middle_ns
        if forged and isinstance(observation, Frame) and observation.camera in waiting:
            waiting.remove(observation.camera)
            scene.sensors.add(observation.camera)
            yield replace(observation, t_ns=observation.t_ns + HOUR_NS)
        else:
            yield observation


def _in_milliseconds(kind: type[Observation], single: bool) -> Breaker:
    def breaker(scene: Scene) -> Iterator[Observation]:
        name = scene.busy_camera if kind is Frame else scene.busy_plate
        for observation in scene.observations:
            if isinstance(observation, kind) and (not single or sensor_of(observation) == name):
                scene.sensors.add(sensor_of(observation))
                yield replace(observation, t_ns=observation.t_ns // 10**6)
            else:
                yield observation

    return breaker


def _drifting(scene: Scene, observation: Observation) -> int:
    """Plates' clocks gain ten milliseconds a second."""
    return (observation.t_ns - scene.start_ns) // 100 if isinstance(observation, ShelfReading) else 0


_T = Part.CLOCKS
CLOCK_FAULTS = (
    Fault("all an hour back", _T, _from_the_middle(-HOUR_NS), "all clocks go back an hour half-way", warned=True),
    Fault("all an hour ahead", _T, _from_the_middle(HOUR_NS), "all clocks go ahead an hour half-way", warned=True),
    Fault("all ten seconds back", _T, _from_the_middle(-10 * 10**9), "all clocks go back ten seconds", warned=True),
    Fault("all a second back", _T, _from_the_middle(-10**9), "all clocks go back a second half-way", warned=True),
    Fault("all three seconds back", _T, _from_the_middle(-3 * 10**9), "all clocks go back three seconds", warned=True),
    Fault("one frame an hour ahead", _T, _one_frame_each, "one frame of each camera is an hour ahead of its time"),
    Fault(
        "a camera an hour ahead", _T, _sensor(lambda scene: scene.busy_camera, HOUR_NS), "one camera's clock, for good",
        warned=True,
    ),
    Fault(
        "a plate an hour ahead", _T, _sensor(lambda scene: scene.busy_plate, HOUR_NS), "one plate's clock, for good",
        warned=True,
    ),
    Fault(
        "a plate an hour back", _T, _sensor(lambda scene: scene.busy_plate, -HOUR_NS), "one plate's clock, for good",
        warned=True,
    ),
    Fault(
        "plates an hour back", _T, _kind_from_the_middle(ShelfReading, -HOUR_NS), "plates' clocks, from half-way on",
        warned=True,
    ),
    Fault(
        "cameras an hour back", _T, _kind_from_the_middle(Frame, -HOUR_NS), "all cameras' clocks, from half-way on",
        warned=True,
    ),
    Fault("gates an hour back", _T, _kind(GateScan, -HOUR_NS), "gates' clocks, for good"),
    Fault("gates an hour ahead", _T, _kind(GateScan, HOUR_NS), "gates' clocks, for good"),
    Fault("a camera in milliseconds", _T, _in_milliseconds(Frame, True), "one camera's times", warned=True),
    Fault("plates in milliseconds", _T, _in_milliseconds(ShelfReading, False), "all plates' times", warned=True),
    Fault("plates' clocks drift", _T, _shifted(_drifting), "plates' clocks gain 10 ms a second"),
)  # fmt: skip
