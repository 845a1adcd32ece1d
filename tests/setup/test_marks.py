"""Cameras placed by marks: accuracy, what marks do not determine, and files that are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.people.geometry import Rig
from fusion.setup.marks import Marks, calibrate_by_marks, load_marks, with_marked
from fusion.setup.self_calibration import CameraTie, SelfCalibration
from fusion.setup.store_frame import steady_cameras
from fusion.simulation import demo_store
from fusion.store.models import Camera, Store

CORNERS = ("front_left", "front_right", "back_left", "back_right")


@pytest.fixture(scope="module")
def store() -> Store:
    return demo_store(4, n_plates=40)


def corner_m(store: Store, plate: str, corner: str) -> tuple[float, float, float]:
    """As the file format says, by complex numbers."""
    at = next(p for p in store.plates if p.plate == plate)
    side, hand = corner.split("_")
    local = complex(at.width * (0.5 if hand == "right" else -0.5), at.depth * (0.5 if side == "back" else -0.5))
    place = complex(at.x, at.y) + local * complex(math.cos(at.yaw), math.sin(at.yaw))
    return place.real, place.imag, at.z


def seen(camera: Camera, places_m: np.ndarray, noise_px: float, seed: int = 0) -> Marks:
    px = Rig.from_cameras([camera]).project(places_m)[0]
    px = px + np.random.default_rng(seed).normal(0.0, noise_px, px.shape)
    inside = np.isfinite(px).all(axis=1) & (px > 0).all(axis=1) & (px < np.array(camera.size)).all(axis=1)
    return Marks(px[inside], places_m[inside])


def nowhere(camera: Camera) -> Camera:
    return camera.model_copy(update={"rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)})


def errors(found: Camera, true: Camera) -> tuple[float, float]:
    a, b = Rig.from_cameras([found]), Rig.from_cameras([true])
    turn = a.camera_from_world[0, :, :3] @ b.camera_from_world[0, :, :3].T
    angle = math.degrees(math.acos(min(1.0, 0.5 * (np.trace(turn) - 1.0))))
    return float(np.linalg.norm(a.centres_m - b.centres_m)), angle


@pytest.mark.parametrize(("seed", "number"), [(1, 0), (2, 3)])
def test_twelve_marks_on_shelves_and_floor_place_a_camera_that_is_known_to_be_nowhere(store, seed, number):
    random = np.random.default_rng(seed)
    camera = store.cameras[number]
    spread = np.stack([random.uniform(1, 7, 60), random.uniform(1, 5, 60), random.choice([0.0, 0.7, 1.4], 60)], axis=1)
    marks = seen(camera, spread, 1.0, seed)
    marks = Marks(marks.points_px[:12], marks.places_m[:12])
    found = calibrate_by_marks([nowhere(camera)], {camera.name: marks})
    tie = found.ties[0]
    metres, degrees = errors(found.cameras[0], camera)
    assert tie.placed and metres < 0.05 and degrees < 0.5
    assert metres < 6.0 * tie.centre_sd_m and tie.centre_sd_m < 0.05


def test_a_lens_is_found_from_marks_at_different_heights_and_refused_from_a_floor(store):
    camera = store.cameras[1]
    random = np.random.default_rng(5)
    spread = np.stack([random.uniform(0, 8, 80), random.uniform(0, 6, 80), random.uniform(0, 1.8, 80)], axis=1)
    marks = seen(camera, spread, 1.0)
    (fx, _, cx), (_, fy, cy), bottom = camera.matrix
    wrong = camera.model_copy(update={"matrix": ((1.2 * fx, 0.0, cx), (0.0, 1.2 * fy, cy), bottom)})
    found = calibrate_by_marks([nowhere(wrong)], {camera.name: marks}, [camera.name])
    assert found.cameras[0].matrix[0][0] == pytest.approx(fx, rel=0.01)
    assert found.ties[0].focal_px == pytest.approx(fx, rel=0.01) and 0.0 < found.ties[0].focal_sd_px < 0.02 * fx
    metres, degrees = errors(found.cameras[0], camera)
    assert metres < 0.05 and degrees < 0.4
    flat = seen(camera, spread * [1.0, 1.0, 0.0], 1.0)
    found = calibrate_by_marks([nowhere(wrong)], {camera.name: flat}, [camera.name])
    assert not found.cameras and "lie on a plane" in found.ties[0].fault


def test_a_mark_with_a_wrong_name_is_outvoted_and_too_few_or_aligned_ones_are_refused(store):
    camera = store.cameras[0]
    random = np.random.default_rng(6)
    spread = np.stack([random.uniform(1, 7, 80), random.uniform(1, 5, 80), random.uniform(0, 1.8, 80)], axis=1)
    marks = seen(camera, spread, 0.5)
    marks.points_px[3] += [150.0, -80.0]
    found = calibrate_by_marks([camera], {camera.name: marks})
    metres, degrees = errors(found.cameras[0], camera)
    assert metres < 0.03 and degrees < 0.3
    assert "off by" in found.ties[0].fault and found.warnings
    few = calibrate_by_marks([camera], {camera.name: Marks(marks.points_px[:3], marks.places_m[:3])})
    assert few.ties[0].fault == "not placed: want 4 marks, got 3" and not few.cameras
    line = np.stack([np.linspace(1, 7, 20), np.full(20, 3.0), np.zeros(20)], axis=1)
    aligned = calibrate_by_marks([camera], {camera.name: seen(camera, line, 0.1)})
    assert "lie on a line" in aligned.ties[0].fault and not aligned.cameras
    assert calibrate_by_marks([camera], {}).ties[0].fault == "not placed: want 4 marks, got 0"


def test_marks_files_name_every_fault(store, tmp_path):
    path = tmp_path / "marks.csv"
    plate = store.plates[0].plate
    path.write_text(f"camera,u_px,v_px,point\ncam01,10.5,20,{plate} back_right\ncam01,1,2,1.0 2.5 0\n")
    marks = load_marks(path, store, ["cam01"])["cam01"]
    assert marks.points_px.tolist() == [[10.5, 20.0], [1.0, 2.0]]
    assert marks.places_m[0] == pytest.approx(corner_m(store, plate, "back_right"))
    assert marks.places_m[1].tolist() == [1.0, 2.5, 0.0]
    path.write_text(
        f"camera,u_px,v_px,point\ncam99,1,2,0 0 0\ncam01,1,2,{plate} middle\ncam01,1,2,1 2\ncam01,x,2,1 2 3\n"
        "cam01,1,2,1 nan 3\n"
    )
    with pytest.raises(ConfigError) as raised:
        load_marks(path, store, ["cam01"])
    faults = sorted(raised.value.faults)
    assert len(faults) == 5
    assert any("marks.csv:2: camera: want one of cam01, got 'cam99'" in fault for fault in faults)
    assert all(any(f"marks.csv:{line}:" in fault for fault in faults) for line in (2, 3, 4, 5, 6))
    with pytest.raises(ConfigError, match="want a CSV file of marks"):
        load_marks(tmp_path / "absent.csv", store, ["cam01"])


def test_the_command_places_cameras_of_a_store_folder(store, tmp_path, capsys):
    blind = store.model_copy(update={"cameras": tuple(map(nowhere, store.cameras[:2]))})
    blind.save(tmp_path / "store")
    rows = ["camera,u_px,v_px,point"]
    for plate in store.plates:
        for corner in CORNERS:
            place = np.array([corner_m(store, plate.plate, corner)])
            marks = seen(store.cameras[0], place, 0.0)
            rows += [f"cam01,{u},{v},{plate.plate} {corner}" for u, v in marks.points_px.tolist()]
    (tmp_path / "marks.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    command = ["calibrate", str(tmp_path / "store"), "--marks", str(tmp_path / "marks.csv"), "--out", str(out)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "cam02      not placed" in printed and "want 4 marks, got 0" in printed
    (out / "cameras.toml").replace(tmp_path / "store" / "cameras.toml")
    found = Store.load(tmp_path / "store").cameras
    assert [camera.name for camera in found] == ["cam01"]
    metres, degrees = errors(found[0], store.cameras[0])
    assert metres < 0.01 and degrees < 0.1
    assert main([*command, "--size", "1280", "720"]) == 2
    assert "--size takes cameras from a recording" in capsys.readouterr().err


def test_a_walk_takes_its_frame_from_cameras_that_marks_place(store):
    def result(cameras: tuple[Camera, ...], *ties: CameraTie) -> SelfCalibration:
        return SelfCalibration(cameras, ties, "", 0.0, "", 0.0, ())

    a, b, c = store.cameras[:3]
    marked = result(
        (a, b, c), CameraTie(a.name, True), CameraTie(b.name, True, fault="fits two places"), CameraTie(c.name, True)
    )
    asked = []

    def walk(places):
        asked.append(places)
        return result((a, b), CameraTie(a.name, True), CameraTie(b.name, True), CameraTie(c.name, False, fault="x"))

    found = with_marked(marked, walk)
    assert sorted(asked[0]) == [a.name, c.name]
    assert asked[0][a.name] == pytest.approx(Rig.from_cameras([a]).centres_m[0].tolist())
    assert [camera.name for camera in found.cameras] == [a.name, b.name, c.name]
    assert found.ties[2].placed and found.warnings == (f"camera {c.name}: placed by marks alone",)


def test_cameras_that_were_moved_do_not_carry_the_frame():
    random = np.random.default_rng(8)
    found = random.uniform(0, 6, (7, 3))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    present = 1.3 * found @ turn.T + [1.0, 2.0, 3.0] + random.normal(0, 0.01, (7, 3))
    assert steady_cameras(found, present).all()
    present[2] += [0.3, 0.0, 0.0]
    present[5] += [0.0, 0.6, 0.0]
    assert steady_cameras(found, present).tolist() == [True, True, False, True, True, False, True]
