"""All cameras' tracklets around common instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.setup.tracklets import JOINTS_MIN, PEOPLE_MAX, LinkedDetections

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """What all cameras saw around the instants; a row is one detection of one person, as a tracklet.

    Attributes:
        view, instant: (n_rows,) indices.
        row: (n_views, n_instants, PEOPLE_MAX) row numbers, -1 for none.
        tracklet: (n_rows, K, 3, 2) normalised coordinates as polynomials of the camera's time since the instant; NaN
            where unknown.
        scale: (n_rows,) about one over the distance in metres, from the size in the picture.
    """

    view: IntArray
    instant: IntArray
    row: IntArray
    tracklet: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, cameras: Sequence[LinkedDetections], instants_s: FloatArray, offsets_s: FloatArray) -> Views:
        """Tracklets around the instants (n_instants,) on clocks that are off by offsets_s (n_views,)."""
        row = np.full((len(cameras), len(instants_s), PEOPLE_MAX), -1)
        parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = []
        n = 0
        for view, camera in enumerate(cameras):
            polynomial, scale = camera.tracklets(instants_s + offsets_s[view])
            instant, person = np.nonzero(np.isfinite(polynomial[..., 0, 0]).sum(axis=-1) >= JOINTS_MIN)
            row[view, instant, person] = n + np.arange(len(instant))
            n += len(instant)
            parts.append((np.full(len(instant), view), instant, polynomial[instant, person], scale[instant, person]))
        views, instants, tracklets, scales = zip(*parts)
        return cls(
            np.concatenate(views), np.concatenate(instants), row, np.concatenate(tracklets), np.concatenate(scales)
        )  # fmt: skip

    def at(self, rows: IntArray, offset_s: FloatArray | float) -> FloatArray:
        """(n, K, 2) where the joints of rows (n,) were, seen by clocks that are off by offset_s (n,)."""
        u = np.broadcast_to(np.asarray(offset_s, float), rows.shape)[:, None, None]
        tracklet = self.tracklet[rows]
        return tracklet[:, :, 0] + u * (tracklet[:, :, 1] + u * tracklet[:, :, 2])
