"""Shelf and Campus as Belagiannis et al. publish them: actorsGT.mat, projection matrices, a folder for each camera.

Source: Belagiannis et al., 3D Pictorial Structures for Multiple Human Pose Estimation (2014), and the program in the
archive that draws `actor3D{person}{frame}` through `P{camera}`. The sets have pictures and no detections: lay those of
your detector beside them, as `detections/Camera0` and so on, with the frame's number in each name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import rq

from bench.public.task import HEAD_JOINTS, LIMB_JOINTS, Poses, Task, UnusableError
from bench.public.writing import START_NS, detected, write_cameras
from fusion.store.models import Camera
from fusion.store.rotations import rotation_vector

_RATE_HZ = 25.0
# Frames that papers score, by the number of cameras: Shelf has five, Campus three. The first frame is 0.
_SCORED = {5: ("Shelf", (range(300, 600),)), 3: ("Campus", (range(350, 470), range(650, 750)))}
_PERSONS = (0, 1, 2)
_SHEAR_MAX_PX = 0.5
_N_JOINTS = len(LIMB_JOINTS) + len(HEAD_JOINTS)


def recognises(folder: Path) -> bool:
    """Whether a folder has the annotations and a first camera."""
    return (folder / "actorsGT.mat").is_file() and (folder / "Camera0").is_dir()


def convert(folder: Path, out: Path) -> Task:
    """One recording of the frames that are scored, and the second before each run of them."""
    cameras = _cameras(folder)
    if len(cameras) not in _SCORED:
        raise UnusableError(f"{folder}: want five cameras (Shelf) or three (Campus), got {len(cameras)}")
    name, runs = _SCORED[len(cameras)]
    truth = _actors(folder / "actorsGT.mat")
    numbers = [number for run in runs for number in run if number < len(truth)]
    if not numbers:
        raise UnusableError(f"{folder}/actorsGT.mat: want annotations beyond frame {runs[0].start}, got {len(truth)}")
    near = {number + back for number in numbers for back in range(-round(_RATE_HZ), 1)}
    frames = [frame for frame in detected(folder, cameras, "coco17", _instant_ns) if _number(frame.t_ns) in near]
    joints = truth[numbers]
    recording = write_cameras(out, name, cameras, "coco17", frames, joints[..., 2, :2].reshape(-1, 2))
    instants = np.array([_instant_ns(number) for number in numbers])
    persons = tuple(person for person in _PERSONS if person < joints.shape[1])
    poses = Poses(instants, (*LIMB_JOINTS, *HEAD_JOINTS), joints, persons, round(0.5e9 / _RATE_HZ))
    return Task(name, recording, "detections beside the set", poses=poses)


def _instant_ns(number: int) -> int:
    return START_NS + round(number * 1e9 / _RATE_HZ)


def _number(t_ns: int) -> int:
    return round((t_ns - START_NS) * _RATE_HZ / 1e9)


def _matlab(path: Path, key: str) -> Any:
    from scipy.io import loadmat

    try:
        return loadmat(path)[key]
    # SciPy's reader trusts its input: a file of another kind raises what its bytes happen to lead to.
    except Exception as error:
        raise UnusableError(f"{path}: want a MATLAB file (before 7.3) with {key}, got {error!r}") from None


def _cells(node: Any) -> list[Any]:
    """What a cell array holds; cells with one cell inside are opened, since MATLAB nests them freely."""
    while isinstance(node, np.ndarray) and node.dtype == object and node.size == 1:
        node = node.flat[0]
    return list(node.flat) if isinstance(node, np.ndarray) and node.dtype == object else [node]


def _actors(path: Path) -> np.ndarray:
    """(n_frames, n_people, 14, 3) joints, metres; NaN where a person is not annotated."""
    people = [_cells(person) for person in _cells(_matlab(path, "actor3D"))]
    lengths = {len(person) for person in people}
    if len(lengths) != 1:
        raise UnusableError(f"{path}: actor3D: want as many frames of each person, got {sorted(lengths)}")
    joints = np.full((lengths.pop(), len(people), _N_JOINTS, 3), np.nan)
    for i, person in enumerate(people):
        for k, cell in enumerate(person):
            rows = np.asarray(_cells(cell)[0], float)
            if rows.shape == (_N_JOINTS, 3):
                joints[k, i] = rows
            elif rows.size > 1:
                raise UnusableError(f"{path}: actor3D: want 14 x 3 numbers or none, got {rows.shape}")
    return joints


def _cameras(folder: Path) -> list[Camera]:
    """Cameras of projection matrices: K [R | t] by RQ decomposition, pictures' size by their first picture."""
    path = folder / "Calibration" / "prjectionMat.mat"  # Spelt so in the archives.
    matrices = [np.asarray(cell, float) for cell in _cells(_matlab(path, "P"))]
    return [_camera(path, matrix, folder / f"Camera{view}") for view, matrix in enumerate(matrices)]


def _camera(path: Path, projection: np.ndarray, pictures: Path) -> Camera:
    if projection.shape != (3, 4) or not np.isfinite(projection).all():
        raise UnusableError(f"{path}: P: want 3 x 4 numbers for each camera, got {projection.shape}")
    upper, rotation = rq(projection[:, :3])
    # Focal lengths are positive; a rotation's determinant is, which settles the sign of P itself.
    signs = np.sign(np.diag(upper))
    upper, rotation = upper * signs, signs[:, None] * rotation
    translation = np.linalg.solve(upper, projection[:, 3])
    if np.linalg.det(rotation) < 0:
        rotation, translation = -rotation, -translation
    matrix, size = upper / upper[2, 2], _size(pictures)
    # The contract knows no shear: it is left out where it moves no pixel by more than half a pixel.
    moved_px = abs(matrix[0, 1]) * size[1] / matrix[1, 1]
    if moved_px > _SHEAR_MAX_PX:
        raise UnusableError(f"{path}: P: want cameras without shear, got {moved_px:.1f} px of it in {pictures.name}")
    matrix[0, 1] = 0.0
    return Camera(
        name=pictures.name,
        size=size,
        matrix=tuple(map(tuple, matrix.tolist())),
        distortions=(0.0,) * 5,
        rotation=tuple(rotation_vector(rotation).tolist()),
        translation=tuple(translation.tolist()),
    )


def _size(pictures: Path) -> tuple[int, int]:
    """Width and height of a camera's first picture. Source: PNG specification, section 11.2.2."""
    paths: Sequence[Path] = sorted(pictures.glob("*.png"))
    head = b""
    if paths:
        with open(paths[0], "rb") as file:
            head = file.read(24)
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise UnusableError(f"{pictures}: want the camera's pictures (*.png), at least the first, for their size")
    width, height = struct.unpack(">II", head[16:24])
    return width, height
