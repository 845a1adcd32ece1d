"""Kernels of association that not every set of frames needs: grouping across views, births, visibility, ghosts.

Arrays in, preallocated arrays out; records of arrays as in `records`. Image coordinates are normalised and undistorted;
joints are padded to n_padded lanes. What Python calls takes its records as plain tuples, whose type Numba recognises in
half the time of a named tuple's, a microsecond each.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from fusion._kernels.records import CameraGeometry, States
from fusion._kernels.triangulation import IMPOSSIBLE

# Sum of the three variances of a joint's place, m^2, up to which the joint is known: 14 cm in each direction.
KNOWN_VAR_MAX = 0.06


class PairModel(NamedTuple):
    """Evidence that two detections of different cameras are of one person: log likelihood ratios against two people.

    A ray pair that meets exactly gains joint_gain and loses up to joint_loss, half of it at joint_scale squared
    deviations. Two places that agree gain place_gain for a spread of one square metre and lose up to place_loss, half
    of it at a squared Mahalanobis distance of place_scale. stature_sd: of people, as a share of the usual stature.
    speed_m_s: of people between the instants of two cameras.
    """

    joint_gain: float
    joint_loss: float
    joint_scale: float
    place_gain: float
    place_loss: float
    place_scale: float
    stature_sd: float
    speed_m_s: float


@njit(cache=True, nogil=True, error_model="numpy")
def _eye_of(camera, out):
    """Centre of a camera (3, 4) in the world: -R^T t."""
    for i in range(3):
        out[i] = -(camera[0, i] * camera[0, 3] + camera[1, i] * camera[1, 3] + camera[2, i] * camera[2, 3])


# ---- grouping across views -------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _merging_gain(total, size_a, size_b, pair_min):
    """Gain of taking two clusters for one person, from the sum of the scores of all pairs between them.

    Two detections alone must reach pair_min. A joint in a picture is two coordinates and a pair of views compares one,
    so a further view counts as two pairs, however many it forms.
    """
    if size_a + size_b == 2:
        return total - pair_min
    return 2.0 * min(size_a, size_b) * total / (size_a * size_b)


@njit(cache=True, nogil=True)
def _best_partner(a, total, size, pair_min, partner, gain):
    """Find the cluster that gains most from merging with cluster a; partner[a] is -1 where none gains."""
    partner[a] = -1
    gain[a] = 0.0
    for b in range(size.shape[0]):
        if b != a and size[b] > 0:
            now = _merging_gain(total[a, b], size[a], size[b], pair_min)
            if now > gain[a]:
                gain[a] = now
                partner[a] = b


@njit(cache=True, nogil=True)
def _merge(score, pair_min, cluster_of):
    """Agglomerate: merge the two clusters that gain most, until none gain. cluster_of (n,): a member's index."""
    n = score.shape[0]
    total = score.copy()
    size = np.ones(n, np.int64)
    partner = np.empty(n, np.int64)
    gain = np.empty(n)
    for a in range(n):
        cluster_of[a] = a
        _best_partner(a, total, size, pair_min, partner, gain)
    while n > 0:
        a = int(np.argmax(gain))
        b = partner[a]
        if gain[a] <= 0.0:
            return
        size[a] += size[b]
        size[b] = 0
        gain[b] = 0.0
        for c in range(n):
            total[a, c] += total[b, c]
            total[c, a] = total[a, c]
            if cluster_of[c] == b:
                cluster_of[c] = a
        _best_partner(a, total, size, pair_min, partner, gain)
        for c in range(n):
            if c == a or size[c] == 0:
                continue
            if partner[c] == a or partner[c] == b:
                _best_partner(c, total, size, pair_min, partner, gain)
            else:
                now = _merging_gain(total[c, a], size[c], size[a], pair_min)
                if now > gain[c]:
                    gain[c] = now
                    partner[c] = a


@njit(cache=True, nogil=True)
def _linked(score, leader):
    """Connected components over pairs with a positive score: leader (n,), the first member.

    Only within one can clusters gain by merging: the scores between two of them are negative, and so are their sums.
    """
    n = score.shape[0]
    for a in range(n):
        leader[a] = a
        for b in range(a):
            if score[a, b] > 0.0:
                first = a
                while leader[first] != first:
                    first = leader[first]
                other = b
                while leader[other] != other:
                    leader[other] = leader[leader[other]]
                    other = leader[other]
                leader[max(first, other)] = min(first, other)
    for a in range(n):
        leader[a] = leader[leader[a]]


@njit(cache=True, nogil=True)
def _cluster(score, pair_min, cluster_of):
    """Agglomerate each component apart. cluster_of (n,): a member's index."""
    n = score.shape[0]
    leader = np.empty(n, np.int64)
    _linked(score, leader)
    members = np.argsort(leader, kind="mergesort")
    first = 0
    while first < n:
        stop = first + 1
        while stop < n and leader[members[stop]] == leader[members[first]]:
            stop += 1
        size = stop - first
        inside = np.empty((size, size))
        for i in range(size):
            for j in range(i + 1):
                # Members are in order, so that this is the lower triangle.
                inside[i, j] = inside[j, i] = score[members[first + i], members[first + j]]
        cluster_of_inside = np.empty(size, np.int64)
        _merge(inside, pair_min, cluster_of_inside)
        for i in range(size):
            cluster_of[members[first + i]] = members[first + cluster_of_inside[i]]
        first = stop


@njit(cache=True, nogil=True)
def group(score, centre, pair_min, group_of, places):
    """Group detections of different cameras, one group per person: greedy agglomeration, the largest gain first.

    score (n, n), lower triangle, and centre (n (n - 1) / 2, 3) of `triangulation.pair_scores`; pair_min: score from
    which two detections are one person. group_of (n,): group or -1, the groups in order of their best pair's score;
    places (n, 3): per group the median of its members' mean meeting points with the two members that agree best.
    Returns the number of groups; each has at least two detections, no two of one camera.
    """
    n = score.shape[0]
    cluster_of = np.empty(n, np.int64)
    _cluster(score, pair_min, cluster_of)
    best = np.full(n, IMPOSSIBLE)
    pair = np.zeros((n, 2), np.int64)
    for a in range(n):
        for b in range(a):
            cluster = cluster_of[a]
            if cluster_of[b] == cluster and score[a, b] > best[cluster]:
                best[cluster] = score[a, b]
                pair[cluster, 0] = a
                pair[cluster, 1] = b
    group_of[:] = -1
    met = np.empty((2 * n, 3))
    n_groups = 0
    for cluster in np.argsort(-best):
        if best[cluster] == IMPOSSIBLE:
            return n_groups
        n_met = 0
        for a in range(n):
            if cluster_of[a] != cluster:
                continue
            group_of[a] = n_groups
            for k in range(2):
                b = pair[cluster, k]
                # The two that agree best meet once.
                if a == b or (k == 0 and a == pair[cluster, 1]):
                    continue
                high = max(a, b)
                at = centre[high * (high - 1) // 2 + min(a, b)]
                if np.isfinite(at[0]):
                    met[n_met] = at
                    n_met += 1
        for i in range(3):
            places[n_groups, i] = np.median(met[:n_met, i])
        n_groups += 1
    return n_groups


# ---- births and ghosts -----------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def plausible(mean, cov, n_joints):
    """Whether joints make a body: above the floor, not taller than people, not spread over the room.

    mean (6, n_padded), cov (21, n_padded) of one track. Joints vaguer than KNOWN_VAR_MAX are left out.
    """
    known = np.empty((3, n_joints))
    n = 0
    for j in range(n_joints):
        if cov[0, j] + cov[2, j] + cov[5, j] < KNOWN_VAR_MAX:
            for i in range(3):
                known[i, n] = mean[i, j]
            n += 1
    if n == 0:
        return True
    high = known[2, :n].max()
    if known[2, :n].min() <= -0.4 or high <= 0.5 or high >= 2.6:
        return False
    spread_x = np.abs(known[0, :n] - np.median(known[0, :n])).max()
    spread_y = np.abs(known[1, :n] - np.median(known[1, :n])).max()
    return max(spread_x, spread_y) < 1.4


@njit(cache=True, nogil=True, error_model="numpy")
def _blocked(point, eye, boxes):
    """Whether a box stands between a point and a camera. Slab test: Kay and Kajiya (1986)."""
    for b in range(boxes.shape[0]):
        # Most boxes are lower than both ends of the line, or lie aside of both.
        if min(point[2], eye[2]) > boxes[b, 4]:
            continue
        if min(point[0], eye[0]) > boxes[b, 2] or min(point[1], eye[1]) > boxes[b, 3]:
            continue
        if max(point[0], eye[0]) < boxes[b, 0] or max(point[1], eye[1]) < boxes[b, 1]:
            continue
        low = 0.0
        high = 1.0
        for i in range(3):
            step = eye[i] - point[i]
            near = boxes[b, i] if i < 2 else 0.0
            far = boxes[b, 2 + i] if i < 2 else boxes[b, 4]
            if abs(step) < 1e-9:
                if point[i] < near or point[i] > far:
                    high = -1.0
                continue
            s = (near - point[i]) / step
            t = (far - point[i]) / step
            low = max(low, min(s, t))
            high = min(high, max(s, t))
        if low < high:
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _in_picture(point, camera, lens, size_px):
    """Whether a point is in a camera's picture. The lens's distortion is left out: this counts, it does not measure."""
    x = point[0]
    y = point[1]
    z = point[2]
    depth = camera[2, 0] * x + camera[2, 1] * y + camera[2, 2] * z + camera[2, 3]
    # Pixels times depth: a comparison without a division.
    px = lens[0] * (camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z + camera[0, 3]) + lens[2] * depth
    py = lens[1] * (camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z + camera[1, 3]) + lens[3] * depth
    inside = (px >= 0.0) & (py >= 0.0) & (px <= size_px[0] * depth) & (py <= size_px[1] * depth)
    return inside & (depth >= 0.2)


@njit(cache=True, nogil=True)
def line_of_sight(places_m, heights_m, cameras, live, out):
    """Which live cameras see places, with no furniture of the store in between.

    places_m (n, 2); heights_m (n_heights,): all of these points above a place must be in the picture and free. cameras:
    CameraGeometry as a plain tuple; live (n_views,) bool; out (n, n_views) bool.
    """
    cameras = CameraGeometry(*cameras)
    point = np.empty(3)
    eye = np.empty(3)
    for view in range(cameras.camera_from_world.shape[0]):
        out[:, view] = live[view]
        if not live[view]:
            continue
        camera = cameras.camera_from_world[view]
        lens = cameras.pinholes[view]
        size_px = cameras.size_px[view]
        _eye_of(camera, eye)
        for n in range(places_m.shape[0]):
            point[0] = places_m[n, 0]
            point[1] = places_m[n, 1]
            for h in range(heights_m.shape[0]):
                point[2] = heights_m[h]
                if not _in_picture(point, camera, lens, size_px) or _blocked(point, eye, cameras.boxes):
                    out[n, view] = False
                    break


@njit(cache=True, nogil=True)
def overlaps(states, near_m, out):
    """Pairs of tracks that follow one person: the mean distance of their known joints is below near_m.

    states: States as a plain tuple. At least half of the joints must be known in both. out (n, n) bool; lower triangle
    and diagonal are False.
    """
    _overlaps(States(*states), near_m, out)


@njit(cache=True, nogil=True)
def _overlaps(states, near_m, out):
    n = states.rows.shape[0]
    mean, cov = states.mean, states.cov
    out[:] = False
    for a in range(n):
        row_a = states.rows[a]
        for b in range(a + 1, n):
            row_b = states.rows[b]
            total = 0.0
            count = 0
            for j in range(states.n_joints):
                if not total < near_m * states.n_joints:
                    break  # Too far apart whatever follows; most pairs are after three joints.
                spread = 0.0
                for i in (0, 2, 5):
                    spread += cov[row_a, i, j] + cov[row_b, i, j]
                if spread > KNOWN_VAR_MAX:
                    continue
                sq = 0.0
                for i in range(3):
                    step = mean[row_a, i, j] - mean[row_b, i, j]
                    sq += step * step
                total += min(np.sqrt(sq), 1.0)
                count += 1
            out[a, b] = count > 0 and 2 * count >= states.n_joints and total < near_m * count


def warm_up() -> None:
    """Call every kernel once on tiny inputs: a first call loads or compiles it and takes up to a second."""
    n_padded, index = 8, np.zeros(0, np.int64)
    rows, flag, flags = np.zeros(1, np.int64), np.zeros(1, np.bool_), np.zeros((1, 1), np.bool_)
    geometry = CameraGeometry(np.zeros((1, 3, 4)), np.zeros((1, 4)), np.zeros((1, 2)), np.zeros((0, 5)))
    states = States(np.zeros((1, 6, n_padded)), np.zeros((1, 21, n_padded)), rows, flag, 1)
    group(np.zeros((0, 0)), np.zeros((0, 3), np.float32), 1.0, index, np.zeros((0, 3)))
    plausible(states.mean[0], states.cov[0], 1)
    line_of_sight(np.zeros((0, 2)), np.zeros(1), tuple(geometry), flag, np.zeros((0, 1), np.bool_))
    overlaps(tuple(states), 1.0, flags)
