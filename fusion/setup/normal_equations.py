"""The normal equations of bundle adjustment, with the points eliminated.

With derivatives A by cameras and B by points, (A^T A) dc + (A^T B) dp = -A^T r and (B^T A) dc + (B^T B) dp = -B^T r.
B^T B = V falls into a block for each point (3 x 3; people have more unknowns), so the Schur complement
A^T A - A^T B V^-1 B^T A leaves the cameras' unknowns: u for each, seven or, with lenses, fifteen.

Source: Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), section 6.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fusion.setup.reprojection import FloatArray, IntArray, Linearisation

# Points that are eliminated at a time.
_POINTS_PER_BLOCK = 4096


class Incidence(Protocol):
    """Which camera (n,) observes which point (n,), sorted by point; a camera observes a point once."""

    @property
    def view(self) -> IntArray:
        """(n,) index of the camera."""

    @property
    def point(self) -> IntArray:
        """(n,) index of the point."""


class Step(NamedTuple):
    """What to add to the cameras (n_views, u) and to the points (n_points, k)."""

    views: FloatArray
    points_m: FloatArray


class Prior(NamedTuple):
    """What is known of unknowns beforehand.

    Attributes:
        precision: (n_views, u), or (n_points, k), inverse variances; 0 where nothing is known, infinite for
            what must not change.
        off: of the same shape: the state minus what is expected, 0 where the precision is infinite.
    """

    precision: FloatArray
    off: FloatArray

    @property
    def cost(self) -> float:
        """Sum of squares, in standard deviations."""
        return float((np.where(np.isfinite(self.precision), self.precision, 0.0) * self.off**2).sum())


class NormalEquations:
    """The reduced normal equations around one state.

    Attributes:
        matrix: (u n_views, u n_views) of the cameras, once the points are eliminated, with the prior.
        free: (u n_views,) bool, the unknowns that may change.
        score: (n, u) gradient that each observation contributes to its camera, once its point is eliminated.
    """

    def __init__(
        self,
        observations: Incidence,
        linear: Linearisation,
        n_views: int,
        n_points: int,
        damping: float,
        prior: Prior | None = None,
        point_prior: Prior | None = None,
    ) -> None:
        """Eliminate the points.

        Args:
            observations: every point has at least two.
            linear: residuals and derivatives.
            n_views: number of cameras.
            n_points: number of points.
            damping: Levenberg and Marquardt's, relative to the diagonal.
            prior: of the cameras' unknowns; None: nothing is known of them, and all may change.
            point_prior: of the points (n_points, k), with finite precisions.
        """
        self._n_unknowns = linear.by_view.shape[2]
        self._observations, self._n_views, self._n_points = observations, n_views, n_points
        starts = np.searchsorted(observations.point, np.arange(n_points))
        a, b, r = linear.by_view, linear.by_point, linear.residual
        v = np.add.reduceat(np.einsum("nia,nib->nab", b, b), starts)
        self._point_gradient = np.add.reduceat(np.einsum("nia,ni->na", b, r), starts)
        own = range(v.shape[1])
        if point_prior is not None:
            v[:, own, own] += point_prior.precision
            self._point_gradient = self._point_gradient + point_prior.precision * point_prior.off
        v[:, own, own] *= 1.0 + damping
        v[:, own, own] += 1e-6
        self._inverse = np.linalg.inv(v)
        lower = np.linalg.cholesky(self._inverse)  # inverse = lower @ lower.T
        self._mixed = np.einsum("nia,nib->nab", a, b)
        half = self._mixed @ lower[observations.point]  # (n, u, k)
        lowered = np.einsum("nab,na->nb", lower, self._point_gradient)
        gradient = np.einsum("nia,ni->na", a, r)
        self.score = gradient - np.einsum("nab,nb->na", half, lowered[observations.point])
        self._gradient = _sum_by(self.score, observations.view, n_views)
        self.matrix = self._camera_blocks(a, damping)
        self._subtract_points(half)
        self.free = np.ones(len(self.matrix), bool)
        if prior is not None:
            self.free = np.isfinite(prior.precision).ravel()
            precision = np.where(np.isfinite(prior.precision), prior.precision, 0.0)
            self.matrix[range(len(self.matrix)), range(len(self.matrix))] += precision.ravel()
            self._gradient = self._gradient + precision * prior.off

    def step(self) -> Step:
        """The step to the minimum of the quadratic."""
        # The frame, its scale and the common clock are free: a trace of a prior keeps the matrix regular.
        matrix = self.matrix[np.ix_(self.free, self.free)]
        n = len(matrix)
        ridge = np.eye(n) * 1e-9 * np.trace(matrix) / n
        change = np.zeros(len(self.free))
        change[self.free] = np.linalg.solve(matrix + ridge, -self._gradient.ravel()[self.free])
        views = change.reshape(self._n_views, self._n_unknowns)
        back = np.einsum("nab,na->nb", self._mixed, views[self._observations.view])
        back = _sum_by(back, self._observations.point, self._n_points)
        return Step(views, np.einsum("nab,nb->na", self._inverse, -self._point_gradient - back))

    def _camera_blocks(self, by_view: FloatArray, damping: float) -> FloatArray:
        """A^T A, whose blocks couple no two cameras."""
        u = self._n_unknowns
        n = self._n_views * u
        matrix = np.zeros((n, n))
        for view in range(self._n_views):
            rows = by_view[self._observations.view == view].reshape(-1, u)
            block = slice(view * u, (view + 1) * u)
            matrix[block, block] = rows.T @ rows
        matrix[range(n), range(n)] *= 1.0 + damping
        return matrix

    def _subtract_points(self, half: FloatArray) -> None:
        """Subtract A^T B V^-1 B^T A, a block of points at a time."""
        view, point = self._observations.view, self._observations.point
        for first in range(0, self._n_points, _POINTS_PER_BLOCK):
            last = min(first + _POINTS_PER_BLOCK, self._n_points)
            block = slice(*np.searchsorted(point, [first, last]))
            dense = np.zeros((last - first, half.shape[2], self._n_views, self._n_unknowns))
            dense[point[block] - first, :, view[block]] = half[block].transpose(0, 2, 1)
            rows = dense.reshape(-1, len(self.matrix))
            self.matrix -= rows.T @ rows


def _sum_by(values: FloatArray, index: IntArray, n: int) -> FloatArray:
    """(n, m): rows of values (rows, m) added up by index."""
    return np.stack([np.bincount(index, values[:, i], n) for i in range(values.shape[1])], axis=1)
