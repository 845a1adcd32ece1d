"""What a camera can see: points projected through its lens, and boxes that stand in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.simulation.body import JOINT
from fusion.store.lenses import distort, lens_rows
from fusion.store.models import Camera, Store
from fusion.store.rotations import rotation_matrix


@dataclass(frozen=True)
class Lens:
    """A camera's geometry as arrays.

    Attributes:
        rotation: (3, 3) and translation: (3,) from world to camera, metres. centre_m: (3,) in the world.
        row: (1, N_INTRINSICS) the lens, see `fusion.store.lenses`.
    """

    camera: Camera
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    centre_m: NDArray[np.float64]
    row: NDArray[np.float64]

    @classmethod
    def of(cls, camera: Camera) -> Lens:
        """The geometry of a camera of a store folder."""
        rotation = rotation_matrix(np.array(camera.rotation))
        translation = np.array(camera.translation)
        row = lens_rows(np.array([camera.matrix]), np.array([camera.distortions]), np.array([camera.fisheye]))
        return cls(camera, rotation, translation, -rotation.T @ translation, row)

    def project(self, points_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(..., 3) world -> (..., 2) raw pixels, NaN where a point has no image, and (...) depth in metres."""
        x, y, z = np.moveaxis(points_m @ self.rotation.T + self.translation, -1, 0)
        front = z > 0.1
        safe = np.where(front, z, 1.0)
        points_px = distort(self.row, np.stack([x / safe, y / safe], -1)[None])[0]
        points_px[~front] = np.nan
        return points_px, z


class Obstacles:
    """Boxes that hide what is behind them; a shelf is open towards the people who reach into it."""

    def __init__(self, store: Store) -> None:
        boxes = np.array(store.obstacle.boxes).reshape(-1, 5)
        self.low = np.column_stack([boxes[:, :2], np.zeros(len(boxes))])
        self.high = boxes[:, [2, 3, 4]]
        # Sides -x, +x, -y, +y, bottom, top; open where a plate in the box is reached from that side.
        self.open = np.zeros((len(boxes), 6), bool)
        for plate in store.plates:
            front = np.array([math.sin(plate.yaw), -math.cos(plate.yaw)])
            axis = int(np.argmax(np.abs(front)))
            side = 2 * axis + int(front[axis] > 0)
            at = np.array([plate.x, plate.y])
            inside = ((at > self.low[:, :2] - 0.02) & (at < self.high[:, :2] + 0.02)).all(axis=1)
            self.open[inside, side] = True

    def hide(self, centre_m: NDArray[np.float64], points_m: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...) whether a box stands between a camera's centre (3,) and each of the points (..., 3)."""
        hidden = np.zeros(points_m[..., 0].size, bool)
        # One row per axis: a reduction over the three coordinates of a point would cost more than everything else.
        way = np.ascontiguousarray((points_m.reshape(-1, 3) - centre_m).T)
        with np.errstate(divide="ignore"):
            inverse = 1.0 / way
        for low, high, is_open in zip(self.low, self.high, self.open):
            a, b = (low - centre_m)[:, None] * inverse, (high - centre_m)[:, None] * inverse
            entry, leave = np.minimum(a, b), np.maximum(a, b)
            first = np.maximum(np.maximum(entry[0], entry[1]), entry[2])
            last = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
            met = np.flatnonzero((first < last) & (first < 0.999) & (last > 0.0))
            if not len(met):
                continue
            inside = last[met] > 0.999
            axis = np.argmax(entry[:, met], axis=0)
            through_front = is_open[2 * axis + (way[axis, met] < 0)]
            hidden[met] |= ~(inside & through_front)
        return hidden.reshape(points_m.shape[:-1])


@dataclass(frozen=True)
class Bodies:
    """Everyone's bodies over several frames, as they hide what is behind them.

    Attributes:
        joints_m: (n_frames, n_people, all JOINTS, 3). present: (n_frames, n_people).
    """

    joints_m: NDArray[np.float64]
    present: NDArray[np.bool_]

    def hide(
        self,
        centre_m: NDArray[np.float64],
        frame: NDArray[np.int64],
        person: NDArray[np.int64],
        points_m: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """(n_rows, n_points) whether a body stands between a camera and the points of a person in a frame.

        Everyone is an upright body about the axis from hips to neck: legs, trunk, head, each of its own radius.

        Args:
            centre_m: (3,) of the camera.
            frame: (n_rows,) each row's frame.
            person: (n_rows,) each row's person.
            points_m: (n_rows, n_points, 3).
        """
        joints = self.joints_m
        hidden = np.zeros(points_m.shape[:-1], bool)
        axis = 0.5 * (joints[:, :, JOINT["mid_hip"], :2] + joints[:, :, JOINT["neck"], :2]) - centre_m[:2]
        top = np.where(self.present, joints[:, :, JOINT["head_top"], 2], 0.0)[frame]
        shoulder = joints[:, :, JOINT["neck"], 2][frame]
        hip = joints[:, :, JOINT["mid_hip"], 2][frame]
        axis = axis[frame]
        way = points_m[..., :2] - centre_m[:2]
        way_x, way_y, rise = way[..., 0], way[..., 1], points_m[..., 2] - centre_m[2]
        length_sq = np.maximum(way_x * way_x + way_y * way_y, 1e-6)
        length = np.sqrt(length_sq)
        for other in range(self.present.shape[1]):
            o = axis[:, other]
            along = (way_x * o[:, None, 0] + way_y * o[:, None, 1]) / length_sq
            off = np.abs(way_x * o[:, None, 1] - way_y * o[:, None, 0]) / length
            z = centre_m[2] + along * rise
            is_self = (person == other)[:, None]
            head, legs = z > shoulder[:, other, None] + 0.02, z <= hip[:, other, None]
            radius = np.where(legs, 0.12, np.where(head, 0.09, 0.17))
            # A person's own trunk hides a hand behind it, not the joints that sit on it.
            radius = np.where(is_self, np.where(head, 0.0, 0.6 * radius), radius)
            margin = np.where(is_self, 0.13, 0.25) / length
            before = (along > 0.0) & (along < 1.0 - margin)
            hidden |= before & (off < radius) & (z < top[:, other, None]) & (z > 0.0)
        return hidden

    def facing(
        self, centre_m: NDArray[np.float64], frame: NDArray[np.int64], person: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n_rows,) cosines between the way to the camera and where a head looks, and its left side."""
        joints = self.joints_m
        nose, l_ear, r_ear = JOINT["nose"], JOINT["l_ear"], JOINT["r_ear"]
        middle = 0.5 * (joints[:, :, l_ear] + joints[:, :, r_ear])[frame, person]
        view = centre_m - middle
        scale = np.linalg.norm(view, axis=-1)
        face = joints[frame, person, nose] - middle
        frontal = (face * view).sum(-1) / np.maximum(np.linalg.norm(face, axis=-1) * scale, 1e-9)
        side = joints[frame, person, l_ear] - middle
        leftward = (side * view).sum(-1) / np.maximum(np.linalg.norm(side, axis=-1) * scale, 1e-9)
        return frontal, leftward
