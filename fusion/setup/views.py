"""All cameras' tracklets around common instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.setup.lenses import Lenses
from fusion.setup.tracklets import JOINTS_MIN, PEOPLE_MAX, LinkedDetections

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A detector's errors are independent after this time, and in this many parts of a body.
CORRELATED_S, PARTS = 4.0, 5
# Times within a tracklet at which it is taken through another lens, seconds.
_THREE_S = (-0.1, 0.0, 0.1)


@dataclass(frozen=True)
class Views:
    """What all cameras saw around the instants; a row is one detection of one person, as a tracklet.

    Attributes:
        view, instant: (n_rows,) indices.
        row: (n_views, n_instants, PEOPLE_MAX) row numbers, -1 for none.
        tracklet: (n_rows, K, 3, 2) normalised coordinates as polynomials of the camera's time since the instant; NaN
            where unknown.
        scale: (n_rows,) about one over the distance in metres, from the size in the picture.
        lenses: with which the tracklets are normalised.
        alike: how many observations of a body's joints err alike, since a detector's errors last and neighbouring
            joints share them; that many count as one.
    """

    view: IntArray
    instant: IntArray
    row: IntArray
    tracklet: FloatArray
    scale: FloatArray
    lenses: Lenses
    alike: float

    @classmethod
    def of(
        cls, cameras: Sequence[LinkedDetections], instants_s: FloatArray, offsets_s: FloatArray, lenses: Lenses
    ) -> Views:
        """Tracklets around the instants (n_instants,) on clocks that are off by offsets_s (n_views,).

        The detections are normalised with `lenses`.
        """
        row = np.full((len(cameras), len(instants_s), PEOPLE_MAX), -1)
        parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = []
        n = 0
        for view, camera in enumerate(cameras):
            polynomial, scale = camera.tracklets(instants_s + offsets_s[view])
            enough = min(JOINTS_MIN, camera.points.shape[2])
            instant, person = np.nonzero(np.isfinite(polynomial[..., 0, 0]).sum(axis=-1) >= enough)
            row[view, instant, person] = n + np.arange(len(instant))
            n += len(instant)
            parts.append((np.full(len(instant), view), instant, polynomial[instant, person], scale[instant, person]))
        views, instants, tracklets, scales = zip(*parts)
        return cls(
            np.concatenate(views),
            np.concatenate(instants),
            row,
            np.concatenate(tracklets),
            np.concatenate(scales),
            lenses,
            _alike(instants_s, tracklets[0].shape[1]),
        )

    def through(self, lenses: Lenses) -> Views:
        """The same tracklets, normalised with other lenses."""
        tracklet, scale = self.tracklet.copy(), self.scale.copy()
        for view in np.flatnonzero([a != b for a, b in zip(self.lenses.cameras, lenses.cameras)]).tolist():
            rows = np.flatnonzero(self.view == view)
            before = [self.at(rows, u) for u in _THREE_S]
            q = [lenses.normalised(view, self.lenses.shown(view, points)) for points in before]
            # The parabola through three instants.
            tracklet[rows, :, 0] = q[1]
            tracklet[rows, :, 1] = (q[2] - q[0]) / (2.0 * _THREE_S[2])
            tracklet[rows, :, 2] = (q[2] - 2.0 * q[1] + q[0]) / (2.0 * _THREE_S[2] ** 2)
            scale[rows] *= self.lenses.focal_px[view] / lenses.focal_px[view]
        return replace(self, tracklet=tracklet, scale=scale, lenses=lenses)

    def at(self, rows: IntArray, offset_s: FloatArray | float) -> FloatArray:
        """(n, K, 2) where the joints of rows (n,) were, seen by clocks that are off by offset_s (n,)."""
        u = np.broadcast_to(np.asarray(offset_s, float), rows.shape)[:, None, None]
        tracklet = self.tracklet[rows]
        return tracklet[:, :, 0] + u * (tracklet[:, :, 1] + u * tracklet[:, :, 2])


def _alike(instants_s: FloatArray, n_joints: int) -> float:
    span_s = float(np.ptp(instants_s)) if len(instants_s) > 1 else 0.0
    in_time = max(CORRELATED_S * len(instants_s) / max(span_s, CORRELATED_S), 1.0)
    return in_time * max(n_joints / PARTS, 1.0)
