"""Gradient boosting of the hands' log ratios: small regression trees, fitted to who acted at contacts.

The loss of a contact is that of attribution: the cross entropy of the softmax of everyone's log ratios and an unseen
actor's. To it comes the cross entropy of each person alone, with prior odds of one to the others near, which fixes the
level of the ratios. Each tree is a Newton step (Friedman 2001; Chen and Guestrin 2016) from the physical model's ratio.
Splits on a feature that physics says must count one way only do so (`MONOTONE`), and no leaf rests on a few people.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.contacts import Looks
from fusion.goods.hands import CORRECTION_MAX, HandTrees

N_TREES, LEVELS, LEARNING_RATE, RIDGE, CURVATURE_MIN, N_BINS = 48, 3, 0.15, 8.0, 6.0, 24
# By feature: a greater physical ratio makes it likelier, a place beside the plate, a distant elbow and a body
# beside the load less likely.
MONOTONE = {0: 1, 1: -1, 5: -1, 7: -1}
# Features beyond these quantiles of the training set are out of the trained range.
RANGE_QUANTILES = (0.001, 0.999)


class _Split(NamedTuple):
    feature: int
    threshold: float
    bin: int


class _Tree(NamedTuple):
    splits: list[_Split | None]
    leaf: NDArray[np.float64]


def fit(looks: Looks) -> HandTrees:
    """Trees that correct the physical model's log ratios of these looks."""
    usable = np.isfinite(looks.features).all(axis=1)
    trained = np.quantile(looks.features[usable], RANGE_QUANTILES, axis=0)
    usable &= ((looks.features >= trained[0]) & (looks.features <= trained[1])).all(axis=1)
    features = looks.features[usable]
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, N_BINS + 1)[1:-1])) for column in features.T]
    bins = np.stack([np.searchsorted(edge, column, side="right") for edge, column in zip(edges, features.T)], axis=1)
    log_ratio = looks.log_ratio.copy()
    n_near = np.bincount(looks.contact, minlength=len(looks.n_cameras))[looks.contact]
    log_odds = -np.log(np.maximum(n_near - 1, 1))
    trees = []
    for _ in range(N_TREES):
        p = np.exp(looks.log_probability(log_ratio)[0])
        alone = 1.0 / (1.0 + np.exp(-log_ratio - log_odds))
        counts = n_near > 1
        slope = (p - looks.acts) + counts * (alone - looks.acts)
        curvature = np.maximum(p * (1.0 - p), 1e-6) + counts * alone * (1.0 - alone)
        tree, at = _grown(bins, edges, slope[usable], curvature[usable])
        trees.append(tree)
        log_ratio[usable] += tree.leaf[at]
    on = np.array([[0 if split is None else split.feature for split in tree.splits] for tree in trees], np.int32)
    threshold = np.array([[np.inf if split is None else split.threshold for split in tree.splits] for tree in trees])
    return HandTrees(trained, on, threshold, np.array([tree.leaf for tree in trees]))


def _grown(
    bins: NDArray[np.int64], edges: list[NDArray[np.float64]], slope: NDArray[np.float64],
    curvature: NDArray[np.float64],
) -> tuple[_Tree, NDArray[np.int64]]:  # fmt: skip
    """A tree, and the leaf of every row. Nodes without a split send all rows to the left."""
    node = np.zeros(len(bins), np.int64)
    splits: list[_Split | None] = []
    for number in range(2**LEVELS - 1):
        rows = np.flatnonzero(node == number)
        split = _best_split(bins[rows], edges, slope[rows], curvature[rows]) if len(rows) else None
        right = bins[rows, split.feature] > split.bin if split else np.zeros(len(rows), bool)
        node[rows] = 2 * number + 1 + right
        splits.append(split)
    at = node - (2**LEVELS - 1)
    down, bend = np.bincount(at, slope, 2**LEVELS), np.bincount(at, curvature, 2**LEVELS)
    return _Tree(splits, -LEARNING_RATE * down / (bend + RIDGE)), at


def _best_split(
    bins: NDArray[np.int64], edges: list[NDArray[np.float64]], slope: NDArray[np.float64],
    curvature: NDArray[np.float64],
) -> _Split | None:  # fmt: skip
    down, bend = slope.sum(), curvature.sum()
    best, best_gain = None, 1e-3
    for feature, edge in enumerate(edges):
        left = np.bincount(bins[:, feature], slope, len(edge) + 1).cumsum()[:-1]
        left_bend = np.bincount(bins[:, feature], curvature, len(edge) + 1).cumsum()[:-1]
        step_left, step_right = -left / (left_bend + RIDGE), -(down - left) / (bend - left_bend + RIDGE)
        gain = -left * step_left - (down - left) * step_right - down**2 / (bend + RIDGE)
        gain[(left_bend < CURVATURE_MIN) | (bend - left_bend < CURVATURE_MIN)] = -1.0
        gain[MONOTONE.get(feature, 0) * (step_right - step_left) < 0.0] = -1.0
        if len(gain) and gain.max() > best_gain:
            at = int(gain.argmax())
            best, best_gain = _Split(feature, float(edge[at]), at), float(gain[at])
    return best


def corrected(looks: Looks, trees: HandTrees) -> NDArray[np.float64]:
    """(n,) log ratios with the trees' bounded corrections, which are 0 outside the trained range."""
    inside = ((looks.features >= trees.trained[0]) & (looks.features <= trees.trained[1])).all(axis=1)
    features = looks.features[inside]
    added = np.zeros(len(features))
    for on, threshold, leaf in zip(trees.split_on, trees.threshold, trees.leaf):
        node = np.zeros(len(features), np.int64)
        for _ in range(LEVELS):
            node = 2 * node + 1 + (features[np.arange(len(features)), on[node]] >= threshold[node])
        added += leaf[node - len(on)]
    log_ratio = looks.log_ratio.copy()
    log_ratio[inside] += np.clip(added, -CORRECTION_MAX, CORRECTION_MAX)
    return log_ratio
