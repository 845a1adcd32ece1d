"""What tracking knows of a place: its cameras, keypoints, floor, gates and furniture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fusion._kernels.records import CameraGeometry
from fusion.people.geometry import Rig

if TYPE_CHECKING:
    from fusion.store.layouts import Layout
    from fusion.store.models import Store

# A floor without an edge, for people who are reconstructed without a store, metres.
_EVERYWHERE = ((-900.0, -900.0), (900.0, -900.0), (900.0, 900.0), (-900.0, 900.0))


@dataclass(frozen=True)
class Site:
    """A place in which people are tracked.

    Attributes:
        rig: its cameras; layout: of the frames' keypoints; appearance_dim: length of appearance vectors, 0 for none.
        floor: corners of the polygon in which people walk, metres.
        gates: lines that people cross to come in or go out.
        boxes: (n_boxes, 5) furniture that blocks the view: x0, y0, x1, y1, height, metres.
        corrects: (n_views,) bool, cameras whose pose is corrected where they turn out to be nudged.
    """

    rig: Rig
    layout: Layout
    appearance_dim: int
    floor: Sequence[tuple[float, float]]
    gates: Sequence[tuple[tuple[float, float], tuple[float, float]]]
    boxes: NDArray[np.float64]
    corrects: NDArray[np.bool_]

    @classmethod
    def of_store(cls, store: Store) -> Site:
        """The site of a store."""
        boxes = np.array(store.obstacle.boxes, np.float64).reshape(-1, 5)
        gates = [gate.line for gate in store.gate]
        rig, policy = Rig.from_cameras(store.cameras), store.calibration
        corrects = np.array([policy.moved == "correct" and name not in policy.fixed for name in rig.names], np.bool_)
        return cls(rig, store.layout, store.appearance_dim, store.floor, gates, boxes, corrects)

    @classmethod
    def of_rig(cls, rig: Rig, layout: Layout, appearance_dim: int) -> Site:
        """Cameras alone: an endless floor without gates and furniture."""
        return cls(rig, layout, appearance_dim, _EVERYWHERE, (), np.zeros((0, 5)), np.zeros(rig.n_views, np.bool_))

    def geometry(self, picture: float = 1.0) -> CameraGeometry:
        """Cameras and furniture as the kernels' record; above 1, `picture` leaves out the outer part of the images.

        The focal length is scaled by it, so that a point counts as inside only within 1 / picture of the half width.
        """
        pinholes = self.rig.pinholes * np.array([picture, picture, 1, 1])
        return CameraGeometry(self.rig.camera_from_world, pinholes, self.rig.size_px, self.boxes)
