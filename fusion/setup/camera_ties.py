"""How well each camera of a structure is tied to the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fusion.setup.pair_pose import AGREED_MIN
from fusion.setup.reprojection import N_UNKNOWNS, IntArray
from fusion.setup.self_calibration import CameraTie
from fusion.setup.structure import Structure

# A camera is badly tied where its standard deviation exceeds these limits, or this many times the median of all
# cameras.
CENTRE_SD_MAX_M, ROTATION_SD_MAX, OVER_MEDIAN_MAX = 0.03, math.radians(0.3), 4.0
# A focal length is known badly where its standard deviation exceeds this share of it.
FOCAL_SD_MAX = 0.01
# A camera shares at least this many observations of people with each of this many others.
SHARED_MIN, PARTNERS_MIN = AGREED_MIN, 2
# Least weight in the adjustment at which an observation fits.
_FITS_FROM = 0.2


def camera_ties(names: Sequence[str], structure: Structure, scale: float) -> tuple[CameraTie, ...]:
    """How well each camera is tied.

    Args:
        names: of all cameras.
        structure: the estimate.
        scale: metres for one unit of the structure's frame.
    """
    focal_px = structure.lenses.focal_px
    variance = np.diagonal(structure.covariance, axis1=1, axis2=2)
    wide = variance.shape[1] > N_UNKNOWNS
    centre_sd_m = scale * np.sqrt(variance[:, 3:6].sum(axis=1))
    rotation_sd = np.sqrt(variance[:, :3].sum(axis=1))
    offset_sd_s = np.sqrt(variance[:, 6])
    offset_s = structure.poses.offset_s - structure.poses.offset_s.mean()
    shared = _shared_bodies(structure)
    partners = (shared >= SHARED_MIN).sum(axis=1) - (np.diag(shared) >= SHARED_MIN)
    residual_m = structure.adjusted.residual_m
    ties = []
    for view, name in enumerate(names):
        if view not in structure.placed:
            ties.append(CameraTie(name, False, fault=f"not placed: {structure.faults[name]}"))
            continue
        at = int(np.searchsorted(structure.placed, view))
        fault = None
        if len(structure.placed) > 2 and partners[at] < PARTNERS_MIN:
            fault = f"badly tied: shares {SHARED_MIN} observations of people with {partners[at]} cameras, "
            fault += f"want {PARTNERS_MIN}"
        elif centre_sd_m[at] > max(CENTRE_SD_MAX_M, OVER_MEDIAN_MAX * np.median(centre_sd_m)):
            fault = f"badly tied: its centre is known to {100 * centre_sd_m[at]:.0f} cm"
        elif rotation_sd[at] > max(ROTATION_SD_MAX, OVER_MEDIAN_MAX * np.median(rotation_sd)):
            fault = f"badly tied: its direction is known to {math.degrees(rotation_sd[at]):.1f} degrees"
        focal_sd = float(np.sqrt(variance[at, N_UNKNOWNS])) if wide and structure.lenses.free[view] else None
        if fault is None and focal_sd is not None and focal_sd > FOCAL_SD_MAX:
            fault = f"its focal length is known to {100 * focal_sd:.1f} %; let people walk along its picture's edges"
        tie = CameraTie(
            name,
            placed=True,
            centre_sd_m=float(centre_sd_m[at]),
            rotation_sd_rad=float(rotation_sd[at]),
            offset_s=float(offset_s[at]),
            offset_sd_s=float(offset_sd_s[at]),
            people=int(shared[at, at]),
            partners=int(partners[at]),
            residual_m=scale * float(np.median(residual_m[structure.bodies.observations.view == at])),
            focal_px=None if focal_sd is None else float(focal_px[view]),
            focal_sd_px=None if focal_sd is None else focal_sd * float(focal_px[view]),
            fault=fault,
        )
        ties.append(tie)
    return tuple(ties)


def _shared_bodies(structure: Structure) -> IntArray:
    """(n_placed, n_placed) bodies that two cameras both observed well; on the diagonal those of one camera."""
    bodies = structure.bodies
    body = bodies.points // bodies.points_m.shape[1]
    observed = np.zeros((len(structure.placed), len(bodies.points_m)), bool)
    good = structure.adjusted.weight > _FITS_FROM
    observed[bodies.observations.view[good], body[bodies.observations.point[good]]] = True
    return np.asarray((observed[:, None] & observed[None]).sum(axis=2))
