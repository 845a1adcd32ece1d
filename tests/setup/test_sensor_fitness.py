"""The doctor says for every sensor of a store whether it is fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fusion.commands.main import main
from fusion.observations import Frame, Observation, ShelfReading
from fusion.setup.sensor_fitness import SensorFitness
from fusion.simulation import Scenario, Simulation, demo_store

STORE = demo_store(n_cameras=4, n_plates=12)
CAMERA, PLATE = STORE.cameras[1].name, STORE.plates[3].plate


@pytest.fixture(scope="module")
def simulation() -> list[Observation]:
    return list(Simulation(STORE, Scenario(seed=5, minutes=0.6, shoppers=2)).observations())


def unfit(observations: list[Observation], change: Callable[[Observation], Observation | None]) -> dict[str, str]:
    """What is found about the sensors that are not fit, by subject; every sensor must have a line."""
    fitness = SensorFitness(STORE)
    for observation in observations:
        changed = change(observation)
        if changed is not None:
            fitness.add(changed)
    lines = list(fitness.lines())
    sensors = [*(camera.name for camera in STORE.cameras), *(plate.plate for plate in STORE.plates)]
    assert [line.subject for line in lines][: len(sensors)] == sensors
    assert all(line.advice for line in lines if line.sign != "ok")
    return {line.subject: line.found for line in lines if line.sign != "ok"}


def test_every_sensor_of_a_sound_store_is_fit(simulation: list[Observation]) -> None:
    assert unfit(simulation, lambda observation: observation) == {}


def test_sensors_that_are_not_heard_are_named(simulation: list[Observation]) -> None:
    found = unfit(simulation, lambda o: None if getattr(o, "camera", "") == CAMERA else o)
    assert found == {CAMERA: "no frames"}
    found = unfit(simulation, lambda o: None if getattr(o, "plate", "") == PLATE else o)
    assert found == {PLATE: "no weights"}


def test_another_rate_and_fractions_are_named(simulation: list[Observation]) -> None:
    def changed(observation: Observation) -> Observation:
        if isinstance(observation, ShelfReading) and observation.plate == PLATE:
            return replace(observation, samples=observation.samples[::6].copy())
        if isinstance(observation, Frame) and observation.camera == CAMERA:
            return replace(observation, keypoints=observation.keypoints / 2000.0)
        return observation

    found = unfit(simulation, changed)
    assert set(found) == {CAMERA, PLATE} and "fractions" in found[CAMERA] and "10.0 samples" in found[PLATE]


def test_nothing_heard_is_a_fault() -> None:
    assert [line.sign for line in SensorFitness(STORE).lines()][-1] == "fault"


def test_the_command_examines_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Simulation(STORE, Scenario(seed=5, minutes=0.6, shoppers=2)).write(tmp_path / "recording")
    assert main(["doctor", "--live", str(tmp_path / "recording"), "--seconds", "20"]) == 0
    assert capsys.readouterr().out.count("ok ") == 16
