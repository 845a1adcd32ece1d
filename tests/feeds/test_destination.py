"""Where converted observations go: in order of time into a recording, with what has no place in it counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.feeds.destination import ToRecording
from fusion.files.recordings import Recording
from fusion.observations import Frame, ItemSighting, Observation, ShelfReading
from fusion.simulation import demo_store

T_NS = 1_767_258_000_000_000_000
STORE = demo_store(n_cameras=3, n_plates=2)
CAMERAS = [camera.name for camera in STORE.cameras]
PLATE = STORE.plates[0].plate


def streams(n: int) -> list[Observation]:
    """Three cameras and a plate for n steps of 0.1 s."""
    found: list[Observation] = []
    for step in range(n):
        t_ns = T_NS + step * 100_000_000
        found += [Frame(t_ns + i, name, np.zeros((0, 17, 3), np.float32)) for i, name in enumerate(CAMERAS)]
        found.append(ShelfReading(t_ns + 50_000_000, PLATE, np.full(6, step, np.float32)))
    return found


def test_what_arrives_out_of_order_is_recorded_in_order(tmp_path: Path) -> None:
    sent = streams(100)
    # Blocks of half a second come backwards; that is within what a message may be late.
    arrived = [observation for start in range(0, 400, 20) for observation in reversed(sent[start : start + 20])]
    sighting = ItemSighting(T_NS + 3_000_000_000, "exit", "read", STORE.products[0].gtin, 1, 0.9, zone="exit")
    recording = ToRecording(tmp_path / "r", STORE)
    for observation in [*arrived[:200], sighting, *arrived[200:]]:
        recording.take(observation)
    recording.close()
    read = list(Recording(tmp_path / "r").observations())
    assert not recording.lost
    assert [o.t_ns for o in read] == sorted(o.t_ns for o in [*sent, sighting])
    assert sighting in read and len(read) == len(sent) + 1


def test_a_camera_with_a_wrong_clock_costs_its_own_rows_alone(tmp_path: Path) -> None:
    recording = ToRecording(tmp_path / "r", STORE)
    for observation in streams(100):
        ahead = isinstance(observation, Frame) and observation.camera == CAMERAS[0] and observation.t_ns > T_NS + 10**9
        if ahead:
            assert isinstance(observation, Frame)
            observation = Frame(observation.t_ns + 3_600 * 10**9, CAMERAS[0], observation.keypoints)
        recording.take(observation)
    recording.close()
    read = Recording(tmp_path / "r")
    by_camera = {name: sum(frame.camera == name for frame in read.frames()) for name in CAMERAS}
    assert by_camera == {CAMERAS[0]: 11, CAMERAS[1]: 100, CAMERAS[2]: 100}
    assert sum(recording.lost.values()) == 89


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    with pytest.raises(ConfigError, match="not a new or empty folder"):
        ToRecording(tmp_path, STORE)
