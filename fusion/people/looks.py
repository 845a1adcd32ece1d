"""Looks: in what circumstances a camera looks at a person, and how often it misses people in each.

A miss rate belongs to a camera, a distance, and whether the whole body is in plain view. It starts from a broad prior;
what a circumstance has not shown yet follows from the camera, and what a camera has not shown yet from all cameras.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusion._kernels.presence import N_BANDS, Outlook
from fusion.store.layouts import Layout

# Before any data: miss rates of a person in plain view (detectors in shops miss 0 to 12 %, the worst camera of four 32
# to 45 %), and of one who is partly out of the picture or close to another, for each band of distance.
_PRIOR = np.repeat([0.2, 0.4], N_BANDS)
# Weights of the more general rate in the more special one, in expected misses: of the prior in the rates of all
# cameras, of these in a camera's, and, in looks, of a camera's rate in that of one circumstance.
PRIOR_MISSES, SHARED_MISSES, SHARED_LOOKS = 0.8, 1.5, 6.0
# A detector may miss anybody, and may find everybody for a while by chance.
RATE_MIN, RATE_MAX = 0.03, 0.97

def outlook(layout: Layout) -> Outlook:
    """What counts as a look, for a layout."""
    return Outlook(
        half_width_m=0.3, beside_m=0.5, behind_m=1.0, touching_m=0.65, height_m=1.7, crown_m=0.12,
        # A box is found as a whole where feet and head are in the picture.
        low=0.03 if layout.n_joints <= 2 else 0.35, margin=1.2, near_m=4.0, far_m=8.0,
    )  # fmt: skip


def miss_rates(looks: NDArray[np.float64], misses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Posterior means of miss rates.

    Args:
        looks: (n_views, N_CIRCUMSTANCES) independent looks of each camera at people.
        misses: those of them that found no one.

    Returns:
        (n_views, N_CIRCUMSTANCES), each shrunk towards what is expected from the more general rates (empirical Bayes).
    """
    common = _scaled(_PRIOR, (misses.sum() + PRIOR_MISSES) / ((looks * _PRIOR).sum() + PRIOR_MISSES))
    everywhere = (misses.sum(axis=0) + SHARED_LOOKS * common) / (looks.sum(axis=0) + SHARED_LOOKS)
    more = (misses.sum(axis=1) + SHARED_MISSES) / ((looks * everywhere).sum(axis=1) + SHARED_MISSES)
    own = _scaled(everywhere, more[:, None])
    return np.clip((misses + SHARED_LOOKS * own) / (looks + SHARED_LOOKS), RATE_MIN, RATE_MAX)


def _scaled(rates: NDArray[np.float64], factor: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Rates whose odds are multiplied by a factor, which keeps them below one."""
    odds = np.clip(rates, RATE_MIN, RATE_MAX)
    odds = odds / (1.0 - odds) * factor
    return np.asarray(odds / (1.0 + odds))
