"""Which order of joints makes bodies: found out from the keypoints of many people, or left open.

Every order is a claim about which keypoint is which joint, and with it about how far keypoints are apart: a wrist is a
forearm away from its elbow, eyes are close to the nose, ankles are below knees in most people. The claim's likelihood
is that of a tree of joints (Felzenszwalb and Huttenlocher 2005, pictorial structures): each keypoint lies around its
nearest seen neighbour in the body as a mixture of an upright person, of limbs in any direction, and of a keypoint that
is wrong. The scale of a person in the image is unknown and summed out. All orders of a length explain the same points,
so their likelihoods compare, whatever joints they have.

What it cannot find out is which side is left: an order that differs from another only by exchanging all of left and
right has the same likelihood. No two orders in `fusion.files.skeletons` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fusion.files.skeletons import Skeleton

# The joint that each one hangs from, the length of that limb and the change in height along it in a standing adult,
# metres. Trunk and limbs are those of `fusion.store.layouts`; heads, hands and fingers after Drillis & Contini (1966).
_LIMBS: dict[str, tuple[str, float, float]] = {
    "spine": ("mid_hip", 0.25, 0.25),
    "neck": ("mid_hip", 0.50, 0.50),
    "upper_neck": ("neck", 0.08, 0.08),
    "nose": ("neck", 0.20, 0.15),
    "head": ("neck", 0.20, 0.18),
    "head_top": ("neck", 0.28, 0.28),
    "eye_inner": ("nose", 0.04, 0.03),
    "eye": ("nose", 0.05, 0.03),
    "eye_outer": ("nose", 0.06, 0.03),
    "ear": ("nose", 0.12, 0.02),
    "mouth": ("nose", 0.05, -0.04),
    "shoulder": ("neck", 0.18, -0.03),
    "elbow": ("shoulder", 0.29, -0.28),
    "wrist": ("elbow", 0.25, -0.18),
    "hand": ("wrist", 0.10, -0.05),
    "thumb": ("wrist", 0.08, -0.04),
    "index": ("wrist", 0.10, -0.05),
    "pinky": ("wrist", 0.10, -0.05),
    "hip": ("mid_hip", 0.11, -0.02),
    "knee": ("hip", 0.42, -0.41),
    "ankle": ("knee", 0.41, -0.40),
    "heel": ("ankle", 0.07, -0.06),
    "big_toe": ("ankle", 0.19, -0.07),
    "small_toe": ("ankle", 0.17, -0.07),
}  # fmt: skip
_ROOT = "mid_hip"

# Standard deviation of a detector's keypoint in metres, and of one that is nowhere near its joint. The first is that of
# real detectors on a real shop (0.04 to 0.05), the second half a body.
_NOISE_M, _ASTRAY_M = 0.04, 0.6
# Keypoints of one head err together.
_HEAD = {"nose", "eye_inner", "eye", "eye_outer", "ear", "mouth"}
_NOISE_HEAD_M = 0.02
_UPRIGHT, _ANY_WAY, _ASTRAY = 0.45, 0.45, 0.10
# Share of people in which both pairs of shoulders and hips have left and right on the same sides of the image.
_SAME_SIDES = 0.95
_WIDTH_MIN_M = 0.08
# Pixels per metre are looked for between those that make a person's keypoints spread over 0.6 m and over 0.05 m: from a
# whole body to a face.
_SPREAD_M = np.geomspace(0.05, 0.6, 14)
# Keypoints that make a person worth judging.
_POINTS_MIN = 6
# What is larger is no coordinate, and its square no number.
_COORDINATE_MAX = 1e9
# An order is believed where it is e^10 times as likely as every other, for which one person with most of a body in view
# is enough, and where its mean log likelihood of a keypoint is that of bodies: right orders have -1.2 to 1.0 on whole
# people of five sources (`python -m bench skeletons`).
_EVIDENCE_MIN = 10.0
_FIT_MIN = -1.5
_INDEPENDENT_MAX = 25
# Root mean square of the distance of two poses' keypoints, as a share of their spread, above which they are two poses:
# a person who walks makes about five of ten frames in a second.
_SAME_POSE = 0.3
# Enough to decide, little enough for a second: people beyond these are left out, evenly.
_PEOPLE_MAX = 400


@dataclass(frozen=True)
class Verdict:
    """What the keypoints of a file say about their order.

    Attributes:
        skeleton: the order that makes bodies; None where they do not say.
        candidates: the orders that stay possible, the best first: one where it is clear, none where no order makes
            bodies, all where no person was seen well enough.
        n_people: people with enough keypoints to judge by.
    """

    skeleton: Skeleton | None
    candidates: tuple[Skeleton, ...]
    n_people: int


def judge(keypoints: NDArray[np.float64], skeletons: Sequence[Skeleton]) -> Verdict:
    """Find out which of several orders the keypoints of people are in.

    Args:
        keypoints: (n_people, n_joints, 3) x, y in any unit that is the same for both, and score; score 0: not seen.
        skeletons: orders of n_joints keypoints.
    """
    # Orders that differ only in keypoints that were never seen are one and the same here.
    usable_points = _usable(keypoints)
    ever = np.flatnonzero(usable_points.any(axis=0))
    apart = {tuple(skeleton.joints[index] for index in ever): skeleton for skeleton in reversed(skeletons)}
    skeletons = [skeleton for skeleton in skeletons if skeleton in apart.values()]
    n_seen = np.array([_seen(keypoints, skeleton.joints).sum(axis=1) for skeleton in skeletons])
    usable = np.flatnonzero((n_seen >= _POINTS_MIN).all(axis=0)) if skeletons else np.zeros(0, np.int64)
    chosen = usable[np.linspace(0, max(len(usable) - 1, 0), min(len(usable), _PEOPLE_MAX)).astype(np.int64)]
    # Keypoints in one and the same place fit every limb that points at the camera.
    spread_out = [
        len(np.unique(keypoints[one, usable_points[one], :2], axis=0)) >= _POINTS_MIN for one in chosen
    ]
    chosen = chosen[np.array(spread_out, np.bool_)]
    if len(chosen) == 0:
        return Verdict(None, tuple(skeletons), 0)
    people = keypoints[chosen]
    found = np.array([log_likelihoods(people, skeleton.joints) for skeleton in skeletons])
    fit = (found / (n_seen[:, chosen] - 1)).mean(axis=1)
    order = np.argsort(-fit)
    # People of one file are seen again and again in the same pose, with the same errors, which is evidence once; one
    # whose keypoints are astray counts no more than the limit.
    n_independent = min(_n_poses(people), _INDEPENDENT_MAX)
    possible = []
    for index in order:
        ahead = np.clip(found[order[0]] - found[index], -_EVIDENCE_MIN, _EVIDENCE_MIN)
        doubt = 2.0 * ahead.std() / np.sqrt(n_independent)
        if ahead.mean() - doubt <= 0.0 or ahead.mean() * n_independent < _EVIDENCE_MIN:
            possible.append(skeletons[index])
    if fit[order[0]] < _FIT_MIN:
        return Verdict(None, (), len(people))
    return Verdict(possible[0] if len(possible) == 1 else None, tuple(possible), len(people))


def _n_poses(keypoints: NDArray[np.float64]) -> int:
    """How many different poses there are, wherever and however large the people are (leader clustering)."""
    seen = _usable(keypoints)[:, :, None]
    n_seen = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    points = np.where(seen, keypoints[:, :, :2], 0.0)
    points = np.where(seen, points - points.sum(axis=1, keepdims=True) / n_seen, 0.0)
    points /= np.maximum(np.sqrt((points**2).sum(axis=(1, 2), keepdims=True) / n_seen), 1e-9)
    n, left = 0, np.ones(len(points), np.bool_)
    while left.any():
        leader = points[left.argmax()]
        left &= np.sqrt(((points - leader) ** 2).sum(axis=2).mean(axis=1)) > _SAME_POSE
        n += 1
    return n


def log_likelihoods(keypoints: NDArray[np.float64], joints: Sequence[str]) -> NDArray[np.float64]:
    """How well an order of joints explains people, one figure for each.

    Args:
        keypoints: (n_people, n_joints, 3) x, y in pixels and score; score 0 or NaN: not seen.
        joints: (n_joints,) names as in `fusion.files.skeletons`; keypoints without a name are left out.

    Returns:
        (n_people,) natural logarithm of the likelihood of all seen, named keypoints but one, as a density over squares
        of the spread (root mean square) of the person's keypoints; 0 for fewer than two.
    """
    seen = _seen(keypoints, joints)
    named = [index for index, joint in enumerate(joints) if joint]
    body = _body(tuple(joint for joint in joints if joint))
    points = np.where(seen[:, :, None], keypoints[:, named, :2], 0.0)
    n_seen = np.maximum(seen.sum(axis=1), 1)[:, None]
    centred = np.where(seen[:, :, None], points - (points.sum(axis=1) / n_seen)[:, None], 0.0)
    spread = np.sqrt((centred**2).sum(axis=(1, 2))[:, None] / n_seen)
    scale = np.maximum(spread, 1e-9) / _SPREAD_M
    anchors = _anchors(seen, body.distance)
    rows = np.arange(len(points))[:, None]
    joint = np.arange(points.shape[1])[None]
    linked = anchors >= 0
    offset = points - points[rows, anchors]
    log_p = _limb_log_density(
        offset, scale, body.rise[joint, anchors], body.any_way[joint, anchors], body.upright[joint, anchors]
    )
    # Per square of the person's own spread rather than per square pixel, so that near and far people compare.
    log_p += 2.0 * np.log(np.maximum(spread, 1e-9))[:, :, None]
    total = np.where(linked[:, :, None], log_p, 0.0).sum(axis=1) + _side_log_odds(points, seen, scale, body)
    highest = total.max(axis=1, keepdims=True)
    found = highest[:, 0] + np.log(np.mean(np.exp(total - highest), axis=1))
    return np.where(linked.any(axis=1), found, 0.0)


@dataclass(frozen=True)
class _Body:
    """The joints of an order in the tree of limbs; all matrices (n_joints, n_joints), from the second to the first.

    Attributes:
        distance: sum of the squared lengths of the limbs between two joints, metres squared.
        rise: change in height in a standing person, metres. any_way, upright: variance of the projected offset on each
            axis, for limbs in any direction and for a standing person, metres squared.
        sides: positions of l_shoulder, r_shoulder, l_hip, r_hip; empty where the order lacks one.
    """

    distance: NDArray[np.float64]
    rise: NDArray[np.float64]
    any_way: NDArray[np.float64]
    upright: NDArray[np.float64]
    sides: tuple[int, ...]


@lru_cache(maxsize=64)
def _body(joints: tuple[str, ...]) -> _Body:
    """Everything about an order that does not depend on the people."""
    chains = [_chain(joint) for joint in joints]
    n = len(joints)
    squares, rise = np.zeros((n, n)), np.zeros((n, n))
    for row, mine in enumerate(chains):
        for column, theirs in enumerate(chains):
            apart = mine.keys() ^ theirs.keys()
            lengths = {**mine, **theirs}
            squares[row, column] = sum(lengths[joint][0] ** 2 for joint in apart)
            rise[row, column] = sum(h for _, h in mine.values()) - sum(h for _, h in theirs.values())
    parts = [joint[2 * (joint[1] == "_") :] for joint in joints]
    single = np.array([_NOISE_HEAD_M if part in _HEAD else _NOISE_M for part in parts]) ** 2
    noise = single[:, None] + single
    wanted = ("l_shoulder", "r_shoulder", "l_hip", "r_hip")
    sides = tuple(joints.index(joint) for joint in wanted) if set(wanted) <= set(joints) else ()
    # A limb in any direction has a third of its squared length on each axis of space. Standing people keep the height
    # of a limb and turn about it; arms, which hang, and legs in a stride spread it over a quarter of its length.
    sideways = np.maximum(squares - rise**2, 0.0) / 2.0
    upright = np.maximum(sideways, squares / 16.0) + noise
    return _Body(squares, rise, squares / 3.0 + noise, upright, sides)


def _chain(joint: str) -> dict[str, tuple[float, float]]:
    """Length and change in height of every limb between the root and a joint, by the limb's far end."""
    chain: dict[str, tuple[float, float]] = {}
    side = joint[:2] if joint[:2] in ("l_", "r_") else ""
    part = joint.removeprefix(side)
    while part != _ROOT:
        parent, length, rise = _LIMBS[part]
        chain[side + part] = (length, rise)
        part = parent
        side = side if part in _SIDED else ""
    return chain


_SIDED = {"eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"}


def _anchors(seen: NDArray[np.bool_], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n_people, n_joints) the neighbour that each seen joint hangs from; -1 for the first one and unseen ones.

    A minimum spanning tree of the seen joints (Prim 1957), for all people side by side.
    """
    n_people, n_joints = seen.shape
    rows = np.arange(n_people)
    anchors = np.full((n_people, n_joints), -1)
    first = seen.argmax(axis=1)
    waiting = seen.copy()
    waiting[rows, first] = False
    nearest = np.repeat(first[:, None], n_joints, axis=1)
    cost = distance[first]
    for _ in range(n_joints - 1):
        joining = np.where(waiting, cost, np.inf).argmin(axis=1)
        joins = waiting[rows, joining]
        anchors[rows[joins], joining[joins]] = nearest[rows[joins], joining[joins]]
        waiting[rows, joining] = False
        closer = (distance[joining] < cost) & joins[:, None]
        nearest = np.where(closer, joining[:, None], nearest)
        cost = np.where(closer, distance[joining], cost)
    return anchors


def _limb_log_density(
    offset_px: NDArray[np.float64],
    scale: NDArray[np.float64],
    rise: NDArray[np.float64],
    any_way: NDArray[np.float64],
    upright: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(n_people, n_joints, n_scales) log density, per square pixel, of a keypoint around its neighbour."""
    metres = offset_px[:, :, None, :] / scale[:, None, :, None]
    square = np.sum(metres**2, axis=3)
    # Image rows grow downwards.
    standing = metres[..., 0] ** 2 + (metres[..., 1] + rise[:, :, None]) ** 2
    density = (
        _UPRIGHT * _gaussian(standing, upright[:, :, None])
        + _ANY_WAY * _gaussian(square, any_way[:, :, None])
        + _ASTRAY * _gaussian(square, np.array(_ASTRAY_M**2))
    )
    return np.log(np.maximum(density, 1e-30)) - 2.0 * np.log(scale)[:, None, :]


def _gaussian(square: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-0.5 * square / variance) / (2.0 * np.pi * variance)


def _side_log_odds(
    points: NDArray[np.float64], seen: NDArray[np.bool_], scale: NDArray[np.float64], body: _Body
) -> NDArray[np.float64]:
    """(n_people, n_scales) shoulders and hips have left on the same side, in people who turn either towards us."""
    if not body.sides:
        return np.zeros_like(scale)
    l_shoulder, r_shoulder, l_hip, r_hip = (points[:, index, 0] for index in body.sides)
    shoulders, hips = ((left - right)[:, None] / scale for left, right in ((l_shoulder, r_shoulder), (l_hip, r_hip)))
    all_seen = np.logical_and.reduce([seen[:, index] for index in body.sides])
    wide = (np.minimum(np.abs(shoulders), np.abs(hips)) > _WIDTH_MIN_M) & all_seen[:, None]
    odds = np.where(shoulders * hips > 0.0, np.log(2.0 * _SAME_SIDES), np.log(2.0 * (1.0 - _SAME_SIDES)))
    return np.where(wide, odds, 0.0)


def _seen(keypoints: NDArray[np.float64], joints: Sequence[str]) -> NDArray[np.bool_]:
    """(n_people, n_named) whether each keypoint that has a name was seen."""
    named = [index for index, joint in enumerate(joints) if joint]
    return _usable(keypoints[:, named])


def _usable(keypoints: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n_people, n_joints) whether a keypoint was seen and is a place."""
    return np.asarray((np.abs(keypoints) < _COORDINATE_MAX).all(axis=2) & (keypoints[:, :, 2] > 0.0))
