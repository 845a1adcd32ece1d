"""NumPy twin of fusion._kernels.attribution: everything is enumerated, then sorted."""

from __future__ import annotations

import numpy as np


def extend(
    choices: np.ndarray,
    log_weight: np.ndarray,
    owner: np.ndarray,
    product: np.ndarray,
    quantity: np.ndarray,
    first: int,
    event_s: np.ndarray,
    log_candidate: np.ndarray,
    log_not_held: np.ndarray,
    held: np.ndarray,
    log_undone: np.ndarray,
    busy_s: float,
    log_busy: float,
) -> np.ndarray:
    """(n, n_new) log weight of every pair of an explanation and a candidate of the new event."""
    n_new = len(owner) - first
    out = log_weight[:, None] + log_candidate[None, :]
    for row, chosen in enumerate(choices):
        for new in range(n_new):
            mine = first + new
            if quantity[mine] == 0:
                out[row, new] += log_undone[quantity[chosen] == 0].sum()
            if owner[mine] < 0 or quantity[mine] == 0:
                continue
            same = (owner[chosen] == owner[mine]) & (quantity[chosen] != 0)
            earlier = same & (product[chosen] == product[mine]) & (event_s[:-1] <= event_s[-1])
            out[row, new] += log_busy * np.count_nonzero(same & (np.abs(event_s[:-1] - event_s[-1]) < busy_s))
            if quantity[mine] > held[new] - quantity[chosen][earlier].sum():
                out[row, new] += log_not_held[new]
    return out


def merge(log_weight_a: np.ndarray, log_weight_b: np.ndarray) -> np.ndarray:
    """(n_a, n_b) log weight of every pair."""
    return log_weight_a[:, None] + log_weight_b[None, :]


def marginals(choices: np.ndarray, log_weight: np.ndarray, n_candidates: int) -> np.ndarray:
    """(n_candidates,) summed weight of the explanations that pick each candidate."""
    probability = np.zeros(n_candidates)
    for event in range(choices.shape[1]):
        np.add.at(probability, choices[:, event], np.exp(log_weight))
    return probability
