"""Calibrations of other tools, written here as their documentation says, project as OpenCV's original camera does."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from files.test_cameras import CAMERAS, POINTS_M, arrays, assert_same_cameras, faults
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.errors import ConfigError
from fusion.files.calibrations.nvidia import automagiccalib_files, decomposed, deepstream_files
from fusion.files.cameras import load_calibration, read_calibration, save_calibration
from fusion.people.geometry import Rig
from fusion.setup.intrinsics import load_intrinsics
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix

cv2 = pytest.importorskip("cv2")
yaml = pytest.importorskip("yaml")

FISHEYE = (0.05, -0.01, 0.002, -0.0005)


def fisheye(camera: Camera) -> Camera:
    return camera.model_copy(update={"distortions": FISHEYE, "fisheye": True})


def fisheye_px(camera: Camera) -> np.ndarray:
    matrix, _, rotation, translation = arrays(camera)
    return cv2.fisheye.projectPoints(POINTS_M[:, None], rotation, translation, matrix, np.array(FISHEYE))[0][:, 0]


def engine_px(camera: Camera) -> np.ndarray:
    return Rig.from_cameras([camera]).project(POINTS_M)[0]


def pose(camera: Camera) -> np.ndarray:
    """(4, 4) camera from world."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation_matrix(camera.rotation), camera.translation
    return matrix


def plain(node: object) -> object:
    """Arrays and tuples as lists, for writers of YAML and JSON."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (np.ndarray, tuple, list)):
        return [plain(value) for value in node]
    return node.item() if isinstance(node, np.generic) else node


def write_yaml(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(plain(document), sort_keys=False))
    return path


# ---- files that people have ------------------------------------------------------------------------------------------


@pytest.fixture
def field(data: Path) -> Path:
    folder = data / "field"
    if not folder.is_dir():
        pytest.skip(f"no field cases at {folder}")
    return folder


def test_freemocap_keys_of_its_own_are_passed_over_with_a_word(field: Path) -> None:
    found = read_calibration(field / "08-freemocap-new" / "calibration.toml", unit="mm")
    assert [camera.name for camera in found.cameras] == ["shop_0", "shop_1"]
    assert found.cameras[0].translation == (0.21, 0.9, 3.1) and found.cameras[0].rotation == (1.7, 0.4, -0.3)
    assert found.cameras[0].distortions == (-0.1, 0.05, 0.0, 0.0, 0.0)
    assert found.notes[0] == "calibration.toml: [cam_0]: passed over: world_orientation, world_position"


def test_caliscope_with_verified_resolutions(field: Path) -> None:
    found = read_calibration(field / "09-caliscope-resolutions")
    assert [camera.name for camera in found.cameras] == ["0", "1"]
    first_row = [0.5302040555527485, -0.8353410787251668, -0.14522031]
    assert_allclose(rotation_matrix(found.cameras[1].rotation)[0], first_row, atol=1e-8)
    assert found.cameras[1].translation == (1.3, 0.9, 3.1)
    assert found.notes[0].endswith("[cameras.0]: passed over: verified_resolutions")


def test_easyvolcap_times_are_no_translations(field: Path) -> None:
    found = read_calibration(field / "10-easyvolcap")
    assert [camera.name for camera in found.cameras] == ["00", "01"]
    assert [camera.translation for camera in found.cameras] == [(0.2, 0.9, 3.1)] * 2
    assert_allclose(found.cameras[1].rotation, (1.7, 0.4, -0.2), atol=1e-12)
    assert found.cameras[0].size == (1920, 1080)


def test_intrinsics_alone_are_enough_where_intrinsics_are_wanted(field: Path) -> None:
    folder = field / "11-intrinsics-only"
    (front,) = load_intrinsics(folder / "front.yaml")
    assert front.name == "front" and front.size == (1280, 720)
    assert front.distortions == (-0.33, 0.046, -0.004, 0.004, 0.06)
    assert front.matrix == ((903.5, 0.0, 618.3), (0.0, 907.9, 394.2), (0.0, 0.0, 1.0))
    assert [camera.name for camera in load_intrinsics(folder / "intri.yml")] == ["00", "01"]
    caliscope = load_intrinsics(folder / "camera_array.toml")
    assert [camera.name for camera in caliscope] == ["0", "1"] and caliscope[0].translation == (0.0, 0.0, 0.0)
    assert "want a rotation from world to camera" in faults(folder / "front.yaml")


# ---- Anipose ---------------------------------------------------------------------------------------------------------


def test_anipose_fisheyes_return_exactly_and_project_as_opencv(tmp_path: Path) -> None:
    cameras = tuple(map(fisheye, CAMERAS))
    save_calibration(tmp_path / "cameras.toml", cameras)
    read = load_calibration(tmp_path / "cameras.toml")
    assert read == cameras
    for camera in read:
        assert_allclose(engine_px(camera), fisheye_px(camera), atol=1e-6)
    text = (tmp_path / "cameras.toml").read_text().replace("fisheye = true", 'fisheye = "maybe"', 1)
    (tmp_path / "cameras.toml").write_text(text)
    assert "[cam_0] fisheye: want true or false, got 'maybe'" in faults(tmp_path / "cameras.toml")


# ---- Kalibr ----------------------------------------------------------------------------------------------------------


def camchain(cameras: tuple[Camera, ...], lens: str) -> dict[str, object]:
    document: dict[str, object] = {}
    for number, camera in enumerate(cameras):
        (fx, _, cx), (_, fy, cy), _ = camera.matrix
        table = {
            "camera_model": "pinhole", "intrinsics": [fx, fy, cx, cy], "distortion_model": lens,
            "distortion_coeffs": camera.distortions[:4], "resolution": camera.size, "rostopic": f"/cam{number}/image",
            "cam_overlaps": [1], "T_cam_imu": np.eye(4), "timeshift_cam_imu": 0.002,
        }  # fmt: skip
        if number:
            table["T_cn_cnm1"] = pose(camera) @ np.linalg.inv(pose(cameras[number - 1]))
        document[f"cam{number}"] = table
    return document


@pytest.mark.parametrize("lens", ["radtan", "equidistant"])
def test_kalibr_chains_lead_from_the_first_camera(tmp_path: Path, lens: str) -> None:
    originals = tuple(map(fisheye, CAMERAS)) if lens == "equidistant" else CAMERAS
    found = read_calibration(write_yaml(tmp_path / "camchain.yaml", camchain(originals, lens)))
    first = pose(originals[0])
    for camera, original in zip(found.cameras, originals):
        # The file's world is the first camera's frame.
        assert_allclose(pose(camera) @ first, pose(original), atol=1e-9)
        assert camera.fisheye == (lens == "equidistant") and camera.size == original.size
        assert camera.distortions[:4] == original.distortions[:4] and camera.matrix == original.matrix
    assert any("T_cam_imu" in note and "passed over" in note for note in found.notes)
    assert any("frame of one camera" in note for note in found.notes)


def test_kalibr_faults_and_single_cameras(tmp_path: Path) -> None:
    chain = camchain(CAMERAS, "radtan")
    (single,) = load_intrinsics(write_yaml(tmp_path / "one.yaml", {"cam0": chain["cam0"]}))
    assert single.matrix == CAMERAS[0].matrix
    chain["cam1"]["camera_model"], chain["cam2"]["intrinsics"] = "omni", [1.0]  # type: ignore[index]
    messages = faults(write_yaml(tmp_path / "bad.yaml", chain))
    assert "bad.yaml: cam1: camera_model: want pinhole, got 'omni'" in messages
    assert "bad.yaml: cam2: intrinsics: want 4 numbers" in messages


# ---- ROS -------------------------------------------------------------------------------------------------------------


def camera_info(camera: Camera, model: str, coefficients: tuple[float, ...], name: str) -> dict[str, object]:
    matrix = np.array(camera.matrix)

    def node(values: np.ndarray) -> dict[str, object]:
        values = np.atleast_2d(values)
        return {"rows": values.shape[0], "cols": values.shape[1], "data": values.ravel()}

    return {
        "image_width": camera.size[0], "image_height": camera.size[1], "camera_name": name,
        "camera_matrix": node(matrix),
        "distortion_model": model, "distortion_coefficients": node(np.array(coefficients)),
        "rectification_matrix": node(np.eye(3)), "projection_matrix": node(np.column_stack([matrix, np.zeros(3)])),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "coefficients", "is_fisheye"),
    [
        ("plumb_bob", (-0.1, 0.02, 0.001, -0.001, 0.01), False),
        ("rational_polynomial", (0.4, 0.1, 0.001, -0.001, 0.01, 0.5, 0.2, 0.03), False),
        ("equidistant", FISHEYE, True),
    ],
)
def test_ros_camera_info(tmp_path: Path, model: str, coefficients: tuple[float, ...], is_fisheye: bool) -> None:
    # The calibrator names every camera alike unless a name is given, so the files tell them apart.
    for camera in CAMERAS:
        write_yaml(tmp_path / f"{camera.name}.yaml", camera_info(camera, model, coefficients, "narrow_stereo"))
    read = load_intrinsics(tmp_path)
    assert [camera.name for camera in read] == ["a", "b", "c"]
    assert {camera.distortions for camera in read} == {coefficients}
    assert {camera.fisheye for camera in read} == {is_fisheye} and read[0].matrix == CAMERAS[0].matrix


def test_ros_message_whose_r_is_no_rotation_of_the_camera(tmp_path: Path) -> None:
    (camera,) = CAMERAS[:1]
    message = {
        "header": {"frame_id": "front"}, "height": 1080, "width": 1920, "distortion_model": "plumb_bob",
        "d": camera.distortions, "k": np.ravel(camera.matrix), "r": np.eye(3).ravel(), "p": np.zeros(12),
        "binning_x": 0,
    }  # fmt: skip
    path = write_yaml(tmp_path / "front.yaml", message)
    path.write_text(path.read_text() + "---\n")
    (read,) = load_intrinsics(path)
    assert read.name == "front" and read.matrix == camera.matrix and read.distortions == camera.distortions
    assert "want a rotation" in faults(path)


# ---- COLMAP ----------------------------------------------------------------------------------------------------------

_COLMAP = {
    "SIMPLE_PINHOLE": ("f cx cy", ""), "PINHOLE": ("fx fy cx cy", ""), "SIMPLE_RADIAL": ("f cx cy", "k1"),
    "RADIAL": ("f cx cy", "k1 k2"), "OPENCV": ("fx fy cx cy", "k1 k2 p1 p2"),
    "FULL_OPENCV": ("fx fy cx cy", "k1 k2 p1 p2 k3 k4 k5 k6"), "OPENCV_FISHEYE": ("fx fy cx cy", "k1 k2 k3 k4"),
    "SIMPLE_RADIAL_FISHEYE": ("f cx cy", "k1"), "RADIAL_FISHEYE": ("f cx cy", "k1 k2"),
}  # fmt: skip
_NUMBER = {"f": 1100.0, "fx": 1100.0, "fy": 1090.0, "cx": 955.5, "cy": 545.5, "k1": -0.05, "k2": 0.01, "p1": 0.001,
           "p2": -0.0005, "k3": 0.002, "k4": 0.003, "k5": -0.001, "k6": 0.0005}  # fmt: skip


def quaternion(camera: Camera) -> list[float]:
    """w, x, y, z by the half angle of the rotation vector."""
    vector = np.array(camera.rotation)
    angle = np.linalg.norm(vector)
    return [float(np.cos(angle / 2)), *(np.sin(angle / 2) * vector / angle).tolist()]


@pytest.mark.parametrize("model", _COLMAP)
@pytest.mark.parametrize("binary", [False, True])
def test_colmap_models(tmp_path: Path, model: str, binary: bool) -> None:
    pinhole, coefficients = _COLMAP[model]
    numbers = [_NUMBER[name] for name in (pinhole + " " + coefficients).split()]
    images = [(number, camera, f"{camera.name}/0001.jpg") for number, camera in enumerate(CAMERAS, 1)]
    if binary:
        ids = {name: number for number, name in enumerate(
            "SIMPLE_PINHOLE PINHOLE SIMPLE_RADIAL RADIAL OPENCV OPENCV_FISHEYE FULL_OPENCV FOV SIMPLE_RADIAL_FISHEYE "
            "RADIAL_FISHEYE".split())}  # fmt: skip
        head = struct.pack("<QIiQQ", 1, 7, ids[model], 1920, 1080)
        (tmp_path / "cameras.bin").write_bytes(head + struct.pack(f"<{len(numbers)}d", *numbers))
        out = struct.pack("<Q", 3)
        for number, camera, name in images:
            out += struct.pack("<I7dI", number, *quaternion(camera), *camera.translation, 7) + name.encode() + b"\0"
            out += struct.pack("<Qddq", 1, 3.0, 4.0, -1)
        (tmp_path / "images.bin").write_bytes(out)
        (tmp_path / "points3D.bin").write_bytes(struct.pack("<Q", 0) + b"\0" * 40)
    else:
        row = " ".join(map(repr, numbers))
        (tmp_path / "cameras.txt").write_text(f"# Camera list with one line per camera:\n7 {model} 1920 1080 {row}\n")
        lines = ["# Image list with two lines of data per image:"]
        for number, camera, name in images:
            values = " ".join(map(repr, [*quaternion(camera), *camera.translation]))
            lines += [f"{number} {values} 7 {name}", "3.0 4.0 -1 5.0 6.0 12"]
        (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / "points3D.txt").write_text("# 3D point list\n1 0.1 0.2 0.3 255 0 0 0.5 1 0\n")
    found = read_calibration(tmp_path)
    assert [camera.name for camera in found.cameras] == ["a", "b", "c"] and found.formats == ("COLMAP",)
    is_fisheye = "FISHEYE" in model
    # COLMAP's pixels begin at the corner of the first one, OpenCV's in its middle.
    k = np.array([[1100.0, 0, 955.0], [0, 1090.0 if "fy" in pinhole else 1100.0, 545.0], [0, 0, 1]])
    order = ("k1 k2 k3 k4" if is_fisheye else "k1 k2 p1 p2 k3 k4 k5 k6").split()
    d = np.array([_NUMBER[name] if name in coefficients.split() else 0.0 for name in order])
    for camera, original in zip(found.cameras, CAMERAS):
        _, _, rotation, translation = arrays(original)
        project = cv2.fisheye.projectPoints if is_fisheye else cv2.projectPoints
        wanted = project(POINTS_M[:, None], rotation, translation, k, d)[0][:, 0]
        assert_allclose(engine_px(camera), wanted, atol=1e-6)
    assert any("model_aligner" in note for note in found.notes)


def test_colmap_lenses_alone_and_those_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    one = "1 SIMPLE_RADIAL 640 480 500 320.5 240.5 0.1\n"
    path.write_text(f"{one}2 FOV 640 480 500 500 320 240 0.9\n3 PINHOLE 640 480 500\n")
    messages = faults(path)
    assert "cameras.txt: camera 2: want one of SIMPLE_PINHOLE" in messages and "got FOV" in messages
    assert "cameras.txt: camera 3: want width, height and 4 numbers of PINHOLE, got '640 480 500'" in messages
    path.write_text(one)
    (lens,) = load_intrinsics(path)
    assert lens.name == "1" and lens.matrix[0] == (500.0, 0.0, 320.0) and lens.distortions == (0.1, 0.0, 0.0, 0.0, 0.0)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QIiQQ", 2**63, 1, 0, 640, 480) + b"\0" * 24)
    assert "want COLMAP's cameras.bin or images.bin" in faults(tmp_path / "cameras.bin")


# ---- OpenPose, MC-Calib, calib.io, Qualisys --------------------------------------------------------------------------


def test_openpose_serial_numbers(tmp_path: Path) -> None:
    for number, camera in enumerate(CAMERAS):
        matrix, distortions, _, _ = arrays(camera)
        storage = cv2.FileStorage(str(tmp_path / f"1807995{number}.xml"), cv2.FILE_STORAGE_WRITE)
        storage.write("CameraMatrix", pose(camera)[:3])
        storage.write("Intrinsics", matrix)
        storage.write("Distortion", np.append(distortions.ravel(), [0.0, 0.0, 0.0])[:, None])
        storage.release()
    renamed = tuple(c.model_copy(update={"name": f"1807995{i}"}) for i, c in enumerate(CAMERAS))
    assert_same_cameras(load_calibration(tmp_path, size=(1920, 1080)), renamed)
    assert faults(tmp_path).count("want the pictures' size") == 3


@pytest.mark.parametrize("lens", [0, 1])
def test_mc_calib_poses_lead_to_the_world(tmp_path: Path, lens: int) -> None:
    originals = tuple(map(fisheye, CAMERAS)) if lens else CAMERAS
    storage = cv2.FileStorage(str(tmp_path / "calibrated_cameras_data.yml"), cv2.FILE_STORAGE_WRITE)
    storage.write("nb_camera", 3)
    for number, camera in enumerate(originals):
        matrix, distortions, _, _ = arrays(camera)
        storage.startWriteStruct(f"camera_{number}", cv2.FileNode_MAP)
        storage.write("camera_matrix", matrix)
        storage.write("distortion_vector", distortions)
        storage.write("distortion_type", lens)
        storage.write("camera_group", 0)
        storage.write("img_width", 1920)
        storage.write("img_height", 1080)
        storage.write("camera_pose_matrix", np.linalg.inv(pose(camera)))
        storage.endWriteStruct()
    storage.release()
    found = read_calibration(tmp_path)
    for camera, original in zip(found.cameras, originals):
        assert_allclose(engine_px(camera), engine_px(original), atol=1e-6)
    assert [camera.name for camera in found.cameras] == ["camera_0", "camera_1", "camera_2"]


def test_calib_io_gives_intrinsics_and_no_pose_whose_direction_is_unknown(tmp_path: Path) -> None:
    numbers = {"f": 1100.0, "ar": 1090 / 1100, "cx": 955.0, "cy": 545.0, "k1": -0.1, "k2": 0.02, "k4": 0.01}
    camera = {
        "model": {
            "polymorphic_name": "libCalib::CameraModelOpenCV",
            "ptr_wrapper": {"data": {
                "parameters": {name: {"state": 2, "val": value} for name, value in numbers.items()},
                "CameraModelCRT": {"CameraModelBase": {"imageSize": {"width": 1920, "height": 1080}}},
            }},
        },
        "transform": {"rotation": {"rx": 0.1, "ry": 0, "rz": 0}, "translation": {"x": 0, "y": 0, "z": 1}},
    }  # fmt: skip
    path = tmp_path / "calib.json"
    path.write_text(json.dumps({"Calibration": {"cameras": [camera]}}))
    (lens,) = load_intrinsics(path)
    assert_allclose(lens.matrix, CAMERAS[0].matrix)
    assert lens.distortions == (-0.1, 0.02, 0.0, 0.0, 0.0, 0.01, 0.0, 0.0) and lens.size == (1920, 1080)
    assert "want a rotation" in faults(path)
    camera["model"]["polymorphic_name"] = "libCalib::Other"  # type: ignore[index]
    path.write_text(json.dumps({"Calibration": {"cameras": [camera, 3]}}))
    assert faults(path).count("want libCalib::CameraModelOpenCV") == 2


def qualisys(camera: Camera, **changes: str) -> str:
    """As Track Manager writes it: sixty-fourths of a pixel, millimetres, y up and z backwards."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    k1, k2, p1, p2, k3 = camera.distortions
    rotation = np.diag([1.0, -1.0, -1.0]) @ rotation_matrix(camera.rotation)
    centre_mm = -1000 * rotation_matrix(camera.rotation).T @ camera.translation
    entries = " ".join(f'r{i + 1}{j + 1}="{float(rotation[i, j])!r}"' for i in range(3) for j in range(3))
    x, y, z = centre_mm.tolist()
    active, turned = changes.get("active", "1"), changes.get("viewrotation", "0")
    return (
        f'<camera active="{active}" serial="{camera.name}" viewrotation="{turned}" model="none">'
        f'<fov_video left="0" top="0" right="1919" bottom="1079"/><transform x="{x!r}" y="{y!r}" z="{z!r}" {entries}/>'
        f'<intrinsic focalLengthU="{64 * fx}" focalLengthV="{64 * fy}" '
        f'centerPointU="{64 * cx}" centerPointV="{64 * cy}" '
        f'skew="0" radialDistortion1="{k1}" radialDistortion2="{k2}" radialDistortion3="{k3}" '
        f'tangentalDistortion1="{p1}" tangentalDistortion2="{p2}"/></camera>'
    )


def test_qualisys(tmp_path: Path) -> None:
    path = tmp_path / "Calib.qca.txt"
    body = "".join(qualisys(camera) for camera in CAMERAS) + qualisys(CAMERAS[0], active="0")
    path.write_text(f"<?xml version='1.0' encoding='ASCII'?>\n<calibration><cameras>{body}</cameras></calibration>")
    assert_same_cameras(load_calibration(path))
    path.write_text(f"<calibration><cameras>{qualisys(CAMERAS[0], viewrotation='90')}</cameras></calibration>")
    assert "camera 'a': viewrotation: want 0" in faults(path)
    path.write_text("<calibration><cameras><camera serial='x'/></cameras></calibration>")
    assert "camera 'x': want <fov_video>, got none" in faults(path)


def test_qualisys_file_of_a_public_demonstration() -> None:
    """Pose2Sim's own reader agrees but for the coefficients, which it divides by 64 as if they were lengths."""
    calibration = pytest.importorskip("Pose2Sim.calibration", exc_type=ImportError)
    path = Path(calibration.__file__).parent / "Demo_SinglePerson" / "calibration" / "Calib.qca.txt"
    _, names, sizes, distortions, matrices, rotations, translations = calibration.calib_qca_fun(path)
    read = load_calibration(path)
    assert [camera.name for camera in read] == sorted(names)
    for row, camera in enumerate(read):
        assert camera.size == tuple(sizes[row])
        assert_allclose(camera.matrix, matrices[row])
        assert_allclose(rotation_matrix(camera.rotation), rotation_matrix(rotations[row]), atol=1e-9)
        assert_allclose(camera.translation, translations[row], atol=1e-9)
        assert_allclose(camera.distortions[:4], 64 * distortions[row])


# ---- NVIDIA ----------------------------------------------------------------------------------------------------------

UNDISTORTED = tuple(
    camera.model_copy(update={"distortions": (0.0,) * 5, "matrix": ((1100.0, 0, 960.0), (0, 1090.0, 540.0), (0, 0, 1))})
    for camera in CAMERAS
)


@pytest.mark.parametrize("unit", ["m", "cm"])
@pytest.mark.parametrize("scale", [1.0, -0.02])
def test_deepstream_projections_are_decomposed(tmp_path: Path, unit: str, scale: float) -> None:
    for camera in UNDISTORTED:
        shift = 100.0 if unit == "cm" else 1.0
        camera_from_world = pose(camera)[:3]
        camera_from_world[:, 3] *= shift
        projection = scale * np.array(camera.matrix) @ camera_from_world
        model = {"height": 1.7 * shift, "radius": 0.3 * shift}
        document = {"projectionMatrix_3x4_w2p": projection.ravel(), "modelInfo": model}
        write_yaml(tmp_path / f"{camera.name}.yml", document)
    found = read_calibration(tmp_path)
    assert_same_cameras(found.cameras, UNDISTORTED)
    assert found.sources["a"]["size"] == "twice the principal point"
    assert any("undistorted" in note for note in found.notes)


def test_deepstream_and_automagiccalib_come_back_as_they_went(tmp_path: Path) -> None:
    for name, text in deepstream_files(UNDISTORTED).items():
        document = yaml.safe_load(text)
        # OpenCV's own decomposition is the judge of what was written.
        projection = np.reshape(document["projectionMatrix_3x4_w2p"], (3, 4))
        matrix, rotation, centre = cv2.decomposeProjectionMatrix(projection)[:3]
        (camera,) = [camera for camera in UNDISTORTED if f"{camera.name}.yml" == name]
        assert_allclose(matrix / matrix[2, 2], camera.matrix, atol=1e-6)
        assert_allclose(rotation, rotation_matrix(camera.rotation), atol=1e-9)
        assert_allclose(centre[:3, 0] / centre[3, 0], Rig.from_cameras([camera]).centres_m[0], atol=1e-9)
        assert document["modelInfo"]["height"] == 1.75
        (tmp_path / name).write_text(text)
    assert_same_cameras(load_calibration(tmp_path), UNDISTORTED)
    (tmp_path / "amc").mkdir()
    for name, text in automagiccalib_files(UNDISTORTED).items():
        assert np.shape(yaml.safe_load(text)["projectionMatrix_3x4"]) == (3, 4)
        (tmp_path / "amc" / name).write_text(text)
    renamed = tuple(c.model_copy(update={"name": f"cam_{i:02d}"}) for i, c in enumerate(UNDISTORTED))
    assert_same_cameras(load_calibration(tmp_path / "amc"), renamed)


def test_deepstream_faults(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a.yml", {"projectionMatrix_3x4_w2p": [1.0] * 12})
    assert "a.yml: projectionMatrix_3x4_w2p: want a camera's projection, got a matrix without inverse" in faults(path)
    write_yaml(path, {"projectionMatrix_3x4_w2p": [1.0] * 11})
    assert "want 3 x 4 numbers" in faults(path)
    middle = np.diag([1100.0, 1100.0, 1.0]) @ pose(CAMERAS[0])[:3]
    write_yaml(path, {"projectionMatrix_3x4": middle.ravel()})
    assert "got pixels from the middle of a picture" in faults(path)
    write_yaml(path, {"projectionMatrix_3x4_w2p": middle.ravel(), "modelInfo": {"height": 12.0}})
    assert "modelInfo height: want a person's" in faults(path)


def test_decomposition_of_random_projections() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        (fx, fy), (cx, cy) = rng.uniform(200, 3000, 2), rng.uniform(0, 2000, 2)
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        rotation, translation = rotation_matrix(rng.normal(0, 2, 3)), rng.normal(0, 5, 3)
        projection = rng.choice([-1, 1]) * rng.uniform(1e-3, 1e3) * k @ np.column_stack([rotation, translation])
        matrix, turned, moved = decomposed(projection, "P")
        assert_allclose(matrix, k, rtol=1e-6, atol=1e-6)
        assert_allclose(turned, rotation, atol=1e-8)
        assert_allclose(moved, translation, atol=1e-6)


# ---- hostile files ---------------------------------------------------------------------------------------------------

_JUNK = [
    None, "x", "", -1, 1e400, float("nan"), [], {}, {"data": 3}, [[]], [[1, 2], [3]], "1 2 3", True, 10**400, "\u0000",
    {"rows": -1, "cols": 2, "data": [1]}, ["a"] * 20, {"val": "q"}, "9" * 5000,
]  # fmt: skip


def trees() -> list[object]:
    """A document of each format that is a tree."""
    lens = {"parameters": {name: {"val": 900.0} for name in ("f", "cx", "cy")}, "CameraModelCRT": {}}
    model = {"polymorphic_name": "libCalib::CameraModelOpenCV", "ptr_wrapper": {"data": lens}}
    mc = {"camera_matrix": CAMERAS[0].matrix, "distortion_vector": [0.0] * 5, "camera_pose_matrix": np.eye(4)}
    nvidia = [files(UNDISTORTED) for files in (deepstream_files, automagiccalib_files)]
    return [
        camchain(CAMERAS, "radtan"), camera_info(CAMERAS[0], "plumb_bob", (0.1,) * 5, "x"),
        *(yaml.safe_load(next(iter(texts.values()))) for texts in nvidia), {"camera_0": mc, "nb_camera": 1},
        {"Calibration": {"cameras": [{"model": model, "transform": {}}]}},
        {"CameraMatrix": np.eye(3, 4), "Intrinsics": np.eye(3), "Distortion": [0.0] * 8},
        {"cameras": [{"name": "a", "K": np.eye(3), "R": np.eye(3), "t": [0] * 3, "distCoef": [0], "resolution": [5]}]},
    ]  # fmt: skip


def places(node: object, way: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Ways to all nodes below one."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in below for place in [(*way, key), *places(child, (*way, key))]]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 7), st.data())
def test_trees_with_junk_in_any_place_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, number: int, data: st.DataObject
) -> None:
    tree = plain(trees()[number])
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(places(tree)))
        node = tree
        for key in way:
            node = node[key]  # type: ignore[index]
        node[last] = copy.deepcopy(data.draw(st.sampled_from(_JUNK)))  # type: ignore[index]
    refused_or_read(tmp_path_factory.mktemp("junk") / "a.json", json.dumps(tree).encode())


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["xml", "cameras", "images", "cameras.bin", "images.bin"]), st.data())
def test_damaged_rows_and_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    damaged = bytearray({
        "xml": f"<calibration><cameras>{qualisys(CAMERAS[0])}</cameras></calibration>".encode(),
        "cameras": b"7 OPENCV 1920 1080 1000 1000 500 500 0 0 0 0\n",
        "images": b"1 1 0 0 0 0 0 0 7 a/b.jpg\n1 2 -1\n2 1 0 0 0 0 0 0 7 c.jpg\n\n",
        "cameras.bin": struct.pack("<QIiQQ", 1, 7, 1, 1920, 1080) + struct.pack("<4d", 900, 900, 960, 540),
        "images.bin": struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 7) + b"a\0" + struct.pack("<Q", 0),
    }[kind])  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(damaged) - 1, 0)))
        junk = data.draw(st.sampled_from([b"", b"-", b"nan", b"1e999", b"\n", b"\0", b"\xff", b"99999999999999999999"]))
        damaged[at : at + data.draw(st.integers(0, 9))] = junk
    refused_or_read(tmp_path_factory.mktemp("damaged") / "a", bytes(damaged))


def refused_or_read(path: Path, content: bytes) -> None:
    """Whatever comes, a reader answers with cameras or with sentences of a bearable length."""
    path.write_bytes(content)
    for poses in (True, False):
        try:
            found = read_calibration(path, poses=poses, size=(1920, 1080))
        except ConfigError as error:
            assert error.faults and all(len(fault) < 1000 for fault in error.faults)
        else:
            assert all(np.isfinite([*camera.translation, *camera.distortions]).all() for camera in found.cameras)
