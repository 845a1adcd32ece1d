"""Calibrations in every format that we read land on the same pixels as OpenCV's projection of the original."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.errors import ConfigError
from fusion.files.cameras import load_calibration, save_calibration
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix, rotation_vector

cv2 = pytest.importorskip("cv2")
pytest.importorskip("yaml")

POINTS_M = np.array([[1.0, 2.0, 0.0], [2.5, 1.0, 1.7], [0.5, 3.0, 0.9], [3.0, 3.0, 1.2]])


def looking_at(name: str, centre_m: tuple[float, float, float], target_m: tuple[float, float, float]) -> Camera:
    """A camera at centre_m that looks at target_m, upright."""
    forward = np.subtract(target_m, centre_m)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(
        name=name,
        size=(1920, 1080),
        matrix=((1100.0, 0.0, 955.0), (0.0, 1090.0, 545.0), (0.0, 0.0, 1.0)),
        distortions=(-0.12, 0.03, 0.001, -0.0005, 0.01),
        rotation=tuple(cv2.Rodrigues(rotation)[0].ravel().tolist()),
        translation=tuple((-rotation @ centre_m).tolist()),
    )


CAMERAS = (
    looking_at("a", (0.0, 0.0, 2.6), (2.0, 2.5, 0.5)),
    looking_at("b", (5.0, 0.0, 2.5), (2.0, 2.0, 0.8)),
    looking_at("c", (-1.0, 6.0, 2.4), (2.0, 2.0, 1.0)),
)


def project(camera: Camera, points_m: np.ndarray = POINTS_M) -> np.ndarray:
    arguments = [np.array(v) for v in (camera.rotation, camera.translation, camera.matrix, camera.distortions)]
    return cv2.projectPoints(points_m, *arguments)[0][:, 0]


def assert_same_cameras(read: tuple[Camera, ...], wanted: tuple[Camera, ...] = CAMERAS) -> None:
    assert [camera.name for camera in read] == [camera.name for camera in wanted]
    for got, want in zip(read, wanted):
        assert got.size == want.size
        assert_allclose(project(got), project(want), atol=1e-3)


def arrays(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array(camera.matrix),
        np.array([camera.distortions]),
        np.array(camera.rotation).reshape(3, 1),
        np.array(camera.translation).reshape(3, 1),
    )


def write_storage(path: Path, values: dict[str, object]) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in values.items():
        storage.write(key, value)
    storage.release()
    return path


def faults(path: object, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_calibration(path, **options)  # type: ignore[arg-type]
    return "\n".join(caught.value.faults)


# ---- rotations -------------------------------------------------------------------------------------------------------

_axes = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.05)
_angles = st.one_of(
    st.floats(1e-9, np.pi - 1e-9), st.sampled_from([0.0, 1e-14, 1e-7, np.pi / 2, np.pi - 1e-7, np.pi - 1e-12, np.pi])
)


@given(_axes, _angles)
def test_rotations_agree_with_opencv_and_return(axis: tuple[float, ...], angle: float) -> None:
    vector = angle * np.array(axis) / np.linalg.norm(axis)
    matrix = rotation_matrix(vector)
    assert_allclose(matrix, cv2.Rodrigues(vector)[0], atol=1e-9)
    assert_allclose(rotation_matrix(rotation_vector(matrix)), matrix, atol=1e-9)


# ---- TOML ------------------------------------------------------------------------------------------------------------


def test_contract_toml_round_trip_is_exact(tmp_path: Path) -> None:
    save_calibration(tmp_path / "anything.txt", CAMERAS[::-1])
    assert load_calibration(tmp_path / "anything.txt") == CAMERAS


def test_caliscope_and_pose2sim_tables(tmp_path: Path) -> None:
    matrix, _, rotation, translation = arrays(CAMERAS[0])
    table = (
        f"[cameras.7]\nport = 7\nrotation_count = 0\nerror = 0.01\nexposure = 'null'\ngrid_count = 20\n"
        f"size = [1920, 1080]\nmatrix = {matrix.tolist()}\ndistortions = [-0.1, 0.02, 0.001, -0.001]\n"
        f"translation = {translation.ravel().tolist()}\nrotation = {rotation.ravel().tolist()}\n"
    )
    (tmp_path / "camera_array.toml").write_text(table)
    (camera,) = load_calibration(tmp_path / "camera_array.toml")
    assert camera.name == "7" and camera.distortions == (-0.1, 0.02, 0.001, -0.001, 0.0)


def test_toml_faults_come_together(tmp_path: Path) -> None:
    save_calibration(tmp_path / "x.toml", CAMERAS)
    text = (tmp_path / "x.toml").read_text()
    text = text.replace("rotation =", "fisheye = true\nrotaton =", 1).replace("size = [1920, 1080]", "size = 7", 2)
    (tmp_path / "x.toml").write_text(text)
    messages = faults(tmp_path / "x.toml")
    assert "distortions: want the 4 coefficients k1, k2, k3, k4 of a fisheye, got 5" in messages
    assert "'a': want a rotation" in messages and messages.count("want width and height in pixels, got '7'") == 2


def test_anipose_millimetres_are_recognised_and_can_be_named(tmp_path: Path) -> None:
    far = [c.model_copy(update={"translation": tuple(900 * v / 9 for v in c.translation)}) for c in CAMERAS]
    save_calibration(tmp_path / "x.toml", far)
    assert "want metres, got a camera 260 m high (unit='mm'" in faults(tmp_path / "x.toml")
    assert_same_cameras(load_calibration(tmp_path / "x.toml", unit="cm"))


# ---- OpenCV ----------------------------------------------------------------------------------------------------------

_SPELLED = [
    ("camera_matrix", "distortion_coefficients", "rvec", "tvec", "image_width", "image_height"),
    ("Camera_Matrix", "Distortion_Coefficients", "R", "T", "image_Width", "image_Height"),
    ("cameraMatrix", "distCoeffs", "rvec", "tvec", "width", "height"),
    ("K", "D", "R", "t", "image_width", "image_height"),
    ("M", "dist_coeff", "rotation", "translation", "W", "H"),
]


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
@pytest.mark.parametrize("spelling", _SPELLED, ids=lambda spelling: spelling[0])
@pytest.mark.parametrize("as_matrix", [False, True])
def test_opencv_one_file_per_camera(tmp_path: Path, suffix: str, spelling: tuple[str, ...], as_matrix: bool) -> None:
    for camera in CAMERAS:
        matrix, distortions, rotation, translation = arrays(camera)
        rotation = cv2.Rodrigues(rotation)[0] if as_matrix else rotation
        values = dict(zip(spelling, (matrix, distortions, rotation, translation, *camera.size)))
        write_storage(tmp_path / f"{camera.name}{suffix}", values)
    assert_same_cameras(load_calibration(tmp_path))


def test_opencv_many_cameras_in_one_file_of_the_old_header(tmp_path: Path) -> None:
    values: dict[str, object] = {}
    for number, camera in enumerate(CAMERAS, 1):
        values |= dict(zip((f"M{number}", f"D{number}", f"rvec{number}", f"tvec{number}"), arrays(camera)))
    write_storage(tmp_path / "all.yml", values)
    text = "%YAML:1.0\n" + (tmp_path / "all.yml").read_text().split("\n", 1)[1]
    (tmp_path / "all.calibration").write_text(text)
    read = load_calibration(tmp_path / "all.calibration", size=(1920, 1080))
    renamed = tuple(camera.model_copy(update={"name": str(i)}) for i, camera in enumerate(CAMERAS, 1))
    assert_same_cameras(read, renamed)
    assert "want the pictures' size" in faults(tmp_path / "all.calibration")


def write_easymocap(folder: Path, with_size: bool = True) -> None:
    """As EasyMocap writes them: by hand, six decimals, Windows line ends."""

    def node(key: str, value: np.ndarray) -> str:
        data = ", ".join(f"{v:.6f}" for v in value.ravel())
        shape = f"  rows: {len(value)}\r\n  cols: {value.size // len(value)}\r\n  dt: d\r\n"
        return f"{key}: !!opencv-matrix\r\n{shape}  data: [{data}]\r\n"

    names = "names:\r\n" + "".join(f'  - "{camera.name}"\r\n' for camera in CAMERAS)
    intri = extri = f"%YAML:1.0\r\n---\r\n{names}"
    for camera in CAMERAS:
        matrix, distortions, rotation, translation = arrays(camera)
        intri += node(f"K_{camera.name}", matrix) + node(f"dist_{camera.name}", distortions)
        intri += f"H_{camera.name}: 1080\r\nW_{camera.name}: 1920\r\n" if with_size else ""
        extri += node(f"R_{camera.name}", rotation) + node(f"Rot_{camera.name}", cv2.Rodrigues(rotation)[0])
        extri += node(f"T_{camera.name}", translation)
    (folder / "intri.yml").write_bytes(intri.encode())
    (folder / "extri.yml").write_bytes(extri.encode())


def test_easymocap_pair(tmp_path: Path) -> None:
    write_easymocap(tmp_path)
    read = load_calibration([tmp_path / "intri.yml", tmp_path / "extri.yml"])
    for got, want in zip(read, CAMERAS):
        assert_allclose(project(got), project(want), atol=0.01)
    assert load_calibration(tmp_path) == read


def test_easymocap_alone_or_without_size_or_at_odds(tmp_path: Path) -> None:
    write_easymocap(tmp_path, with_size=False)
    assert "'a': want a rotation from world to camera" in faults(tmp_path / "intri.yml")
    assert faults(tmp_path).count("want the pictures' size") == 3
    assert len(load_calibration(tmp_path, size=(1920, 1080))) == 3
    extri = (tmp_path / "extri.yml").read_text()
    (tmp_path / "extri.yml").write_text(extri.replace("Rot_b", "Rot_x").replace("Rot_a", "Rot_b"))
    assert "want one rotation, got two that differ" in faults(tmp_path, size=(1920, 1080))


@pytest.mark.parametrize("n", [4, 5, 8, 12, 14])
def test_distortion_coefficients(tmp_path: Path, n: int) -> None:
    matrix, _, rotation, translation = arrays(CAMERAS[0])
    coefficients = np.zeros((1, n))
    coefficients[0, :4] = -0.1, 0.02, 0.001, -0.001
    if n > 5:
        coefficients[0, 4:8] = 0.01, 0.02, -0.01, 0.003
    if n > 8:
        coefficients[0, 8:12] = 0.001, -0.002, 0.0005, 0.0003
    values = {"K": matrix, "D": coefficients, "rvec": rotation, "tvec": translation}
    path = write_storage(tmp_path / "a.yml", {**values, "image_width": 1920, "image_height": 1080})
    (camera,) = load_calibration(path)
    wanted = cv2.projectPoints(POINTS_M, rotation, translation, matrix, coefficients)[0][:, 0]
    assert_allclose(project(camera), wanted, atol=1e-6)
    assert len(camera.distortions) == {4: 5, 5: 5, 8: 8, 12: 12, 14: 12}[n]
    if n == 14:
        coefficients[0, -1] = 0.25
        write_storage(path, {**values, "image_width": 1920, "image_height": 1080})
        assert "a.yml: camera 'a': D: want a sensor square behind its lens, got tau_x, tau_y = 0, 0.25" in faults(path)


def test_opencv_things_that_are_no_camera_in_the_world(tmp_path: Path) -> None:
    matrix, distortions, rotation, translation = arrays(CAMERAS[0])
    lens = {"camera_matrix": matrix, "distortion_coefficients": distortions, "image_width": 1920, "image_height": 1080}
    pose = {"rvec": rotation, "tvec": translation}

    def refused(**values: object) -> str:
        return faults(write_storage(tmp_path / "a.yml", values))

    assert "want a rotation" in refused(**lens)
    assert "want the 4 coefficients" in refused(**lens, **pose, fisheye_model=1)
    assert "distortion_model: want a lens of OpenCV's models" in refused(**lens, **pose, distortion_model="omni")
    stereo = {"M1": matrix, "D1": distortions, "M2": matrix, "D2": distortions, "R": np.eye(3), "T": translation}
    assert "got a stereo pair's" in refused(**stereo)
    assert "want a rotation, got a reflection" in refused(**lens, R=-np.eye(3), T=translation)
    assert "rows are" in refused(**lens, R=2 * np.eye(3), T=translation)
    assert "camera_matrix: want numbers" in refused(**{**lens, "camera_matrix": matrix * np.nan}, **pose)
    assert "want an invertible matrix" in refused(**{**lens, "camera_matrix": np.diag([1100.0, 0.0, 1.0])}, **pose)
    assert "want a 3 x 3 matrix, got 4 numbers" in refused(**{**lens, "camera_matrix": np.eye(2)}, **pose)
    assert "got 2, one for each picture" in refused(**lens, extrinsic_parameters=np.zeros((2, 6)))
    assert "want a camera's calibration, got nothing" in refused(board_width=9)
    one = np.concatenate([rotation, translation]).T
    write_storage(tmp_path / "a.yml", {**lens, "extrinsic_parameters": one})
    assert_same_cameras(load_calibration(tmp_path / "a.yml"), CAMERAS[:1])


# ---- Wildtrack -------------------------------------------------------------------------------------------------------


def write_wildtrack(folder: Path, scale: float = 100.0) -> None:
    (folder / "intrinsic_zero").mkdir(parents=True)
    (folder / "extrinsic").mkdir()
    for camera in CAMERAS:
        matrix, distortions, rotation, translation = arrays(camera)
        lens = {"camera_matrix": matrix, "distortion_coefficients": distortions}
        write_storage(folder / "intrinsic_zero" / f"intr_{camera.name}.xml", lens)
        rvec, tvec = (" ".join(map(repr, v.ravel().tolist())) for v in (rotation, translation * scale))
        vectors = f"<rvec>\n  {rvec}</rvec>\n<tvec>\n  {tvec}</tvec>"
        text = f'<?xml version="1.0"?>\n<opencv_storage>\n{vectors}\n</opencv_storage>\n'
        (folder / "extrinsic" / f"extr_{camera.name}.xml").write_text(text)


def test_wildtrack_folder_in_centimetres(tmp_path: Path) -> None:
    write_wildtrack(tmp_path / "calibrations")
    assert_same_cameras(load_calibration(tmp_path / "calibrations"))
    pair = [
        tmp_path / "calibrations" / sub / name
        for sub, name in (("intrinsic_zero", "intr_a.xml"), ("extrinsic", "extr_a.xml"))
    ]
    assert_same_cameras(load_calibration(pair), CAMERAS[:1])


def test_wildtrack_published_camera_stands_above_the_square(tmp_path: Path) -> None:
    # Camera CVLab1 as published; it hung some three metres above the ground, so z is up.
    write_wildtrack(tmp_path)
    rvec, tvec = (
        "1.759099006652832 0.46710100769996643 -0.331699013710022",
        "-525.8941650390625 45.40763473510742 986.7235107421875",
    )
    text = f"<opencv_storage><rvec>{rvec}</rvec><tvec>{tvec}</tvec></opencv_storage>"
    (tmp_path / "extrinsic" / "extr_a.xml").write_text(text)
    camera = load_calibration(tmp_path)[0]
    centre = -rotation_matrix(np.array(camera.rotation)).T @ camera.translation
    assert_allclose(centre, [9.0955, -5.8439, 2.8890], atol=1e-3)


def test_wildtrack_ambiguities(tmp_path: Path) -> None:
    write_wildtrack(tmp_path / "metres", scale=1.0)
    assert "want centimetres" in faults(tmp_path / "metres")
    assert_same_cameras(load_calibration(tmp_path / "metres", unit="m"))
    write_wildtrack(tmp_path / "two")
    matrix, distortions, _, _ = arrays(CAMERAS[0])
    (tmp_path / "two" / "intrinsic_original").mkdir()
    lens = {"camera_matrix": matrix + np.diag([9.0, 9.0, 0.0]), "distortion_coefficients": distortions}
    write_storage(tmp_path / "two" / "intrinsic_original" / "intr_a.xml", lens)
    assert "camera 'a': camera_matrix: want it once" in faults(tmp_path / "two")
    assert len(load_calibration([tmp_path / "two" / "intrinsic_zero", tmp_path / "two" / "extrinsic"])) == 3


# ---- CMU Panoptic ----------------------------------------------------------------------------------------------------


def panoptic() -> dict[str, object]:
    """The same cameras as Panoptic would write them: its world has y down, its lengths are centimetres."""
    cameras = []
    # A point (x, y, z) of ours is (x, -z, y) there.
    ours_from_theirs = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    for node, camera in enumerate(CAMERAS):
        matrix, distortions, rotation, translation = arrays(camera)
        cameras.append(
            {
                "name": camera.name,
                "type": "hd",
                "resolution": list(camera.size),
                "panel": 0,
                "node": node,
                "K": matrix.tolist(),
                "distCoef": distortions.ravel().tolist(),
                "R": (cv2.Rodrigues(rotation)[0] @ ours_from_theirs).tolist(),
                "t": (100 * translation).tolist(),
            }
        )
    return {"calibDataSource": "test", "cameras": cameras}


def test_panoptic_becomes_upright_metres(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps(panoptic()))
    read = load_calibration(tmp_path / "x")
    assert_same_cameras(read)
    # The published convention itself: their point (x, -z, y) in centimetres projects as our (x, y, z) in metres.
    theirs_cm = 100 * np.stack([POINTS_M[:, 0], -POINTS_M[:, 2], POINTS_M[:, 1]], axis=1)
    table = panoptic()["cameras"][0]  # type: ignore[index]
    in_camera = theirs_cm @ np.array(table["R"]).T + np.array(table["t"]).T
    wanted = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), np.array(table["K"]), np.array(table["distCoef"]))[
        0
    ]
    assert_allclose(project(read[0]), wanted[:, 0], atol=1e-6)


def test_panoptic_faults(tmp_path: Path) -> None:
    document = panoptic()
    cameras: list[dict[str, object]] = document["cameras"]  # type: ignore[assignment]
    del cameras[0]["K"]
    cameras[1]["t"] = [1, 2]
    cameras[2]["resolution"] = "large"
    cameras.append({"type": "hd"})
    (tmp_path / "x.json").write_text(json.dumps(document))
    messages = faults(tmp_path / "x.json")
    assert "'a': want a camera matrix" in messages and "'b': t: want 3 numbers, got 2" in messages
    assert "resolution: want width and height" in messages and "cameras[3]: want a camera with a name" in messages


# ---- bad and hostile files -------------------------------------------------------------------------------------------

_BOMB = (
    "%YAML:1.0\n---\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
)
_LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><opencv_storage><K>&b;</K></opencv_storage>'
_THIEF = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><opencv_storage><K>&a;</K></opencv_storage>'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "empty file"),
        ("hello", "want TOML, YAML, XML or JSON"),
        ("{", "want JSON"),
        ("[" * 100_000, "want TOML"),
        ('{"a":' * 100_000, "want JSON"),
        ("%YAML:1.0\n---\na: " + "[" * 20_000, "want YAML of at most 16 levels, got more in line 2"),
        ("%YAML:1.0\n---\n" + "- " * 20_000, "want YAML of at most 16 levels, got more in line 2"),
        ("%YAML:1.0\n---\nK: !!python/object/apply:os.system ['true']\n", "K: want numbers, got"),
        (_BOMB, "want YAML without aliases, got one in line"),
        (_LAUGHS, "want XML without a DTD"),
        (_THIEF, "want XML without a DTD"),
        ("<opencv_storage>", "want XML"),
        ("<html/>", "want <opencv_storage> or <calibration>, got <html>"),
        ("[cam_0]\nname = 3\n", "nothing of the kind"),
        ("x: 1\n", "nothing of the kind"),
        ('{"cameras": []}', "nothing of the kind"),
    ],
)
def test_hostile_and_broken_files(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "x").write_text(text)
    assert wanted in faults(tmp_path / "x")


def test_missing_binary_and_large_files(tmp_path: Path) -> None:
    assert faults(tmp_path / "nothing") == "nothing: the file does not exist"
    (tmp_path / "x.yml").write_bytes(b"\xff\xfe%\x00Y\x00")
    assert "want UTF-8, got byte 0xff at offset 0" in faults(tmp_path / "x.yml")
    with open(tmp_path / "y.yml", "wb") as file:
        file.truncate(17 << 20)
    assert "want a calibration of at most 16 MiB, got more" in faults(tmp_path / "y.yml")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        assert "pipe.json: want a regular file, got a pipe" in faults(tmp_path / "pipe.json")
    (tmp_path / "empty").mkdir()
    assert "files, got none" in faults(tmp_path / "empty")


def test_yaml_without_pyyaml_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_easymocap(tmp_path)
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'storefusion[formats]'" in faults(tmp_path / "intri.yml")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["toml", "yml", "xml", "json"]))
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / f"a.{kind}"
    if kind == "toml":
        save_calibration(path, CAMERAS)
    else:
        matrix, distortions, rotation, translation = arrays(CAMERAS[0])
        values = {"K": matrix, "D": distortions, "R": rotation, "T": translation, "image_width": 9, "image_height": 9}
        write_storage(path, values)
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(0, 256)
    path.write_bytes(data[: rng.integers(1, len(data) + 1)])
    try:
        load_calibration(path)
    except ConfigError as error:
        assert all(len(fault) < 1000 for fault in error.faults)
