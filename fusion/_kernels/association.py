"""Kernels of association that not every set of frames needs: grouping across views, births, visibility, ghosts.

Arrays in, preallocated arrays out; records of arrays as in `records`. Image coordinates are normalised and undistorted;
joints are padded to n_padded lanes. What Python calls takes its records as plain tuples, whose type Numba recognises in
half the time of a named tuple's, a microsecond each.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from fusion._kernels.records import CameraGeometry, Detections, States

# No match: higher than any cost.
NEVER = 1e9
# Most that one joint adds to the mean cost of a pair: four standard deviations.
_COST_CAP = 16.0
# Two detections of one camera are never one person: lower than any sum of scores.
_IMPOSSIBLE = -1e9
# Sum of the three variances of a joint's place, m^2, up to which the joint is known: 14 cm in each direction.
KNOWN_VAR_MAX = 0.06

# A sum over views may be taken in any order, which lets the compiler use lanes; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "nsz", "contract"}


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


class _Rays(NamedTuple):
    """The rays of one detection's joints: eye (3,), direction (3, n_padded) of camera depth 1, variance, and seen."""

    eye: np.ndarray
    direction: np.ndarray
    var: np.ndarray
    seen: np.ndarray


@njit(cache=True, nogil=True)
def _eye_of(camera, out):
    """Centre of a camera (3, 4) in the world: -R^T t."""
    for i in range(3):
        out[i] = -(camera[0, i] * camera[0, 3] + camera[1, i] * camera[1, 3] + camera[2, i] * camera[2, 3])


# ---- grouping across views -------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def _meet(a, b, moved_sq, body_var, heights_m, model, out):
    """Compare the rays of two detections, joint by joint, without a branch, so that joints go side by side.

    out (8,): the score of all joints that compare, number of meeting points, the sums of their coordinates; number of
    joints that both saw, number of those that compare, their total cost.
    """
    wx = b.eye[0] - a.eye[0]
    wy = b.eye[1] - a.eye[1]
    wz = b.eye[2] - a.eye[2]
    total = 0.0
    met = 0.0
    sx = 0.0
    sy = 0.0
    sz = 0.0
    common = 0.0
    count = 0.0
    cost = 0.0
    for j in range(a.var.shape[0]):
        both = a.seen[j] * b.seen[j]
        ax = a.direction[0, j]
        ay = a.direction[1, j]
        az = a.direction[2, j]
        bx = b.direction[0, j]
        by = b.direction[1, j]
        bz = b.direction[2, j]
        nx = ay * bz - az * by
        ny = az * bx - ax * bz
        nz = ax * by - ay * bx
        aa = ax * ax + ay * ay + az * az
        bb = bx * bx + by * by + bz * bz
        ab = ax * bx + ay * by + az * bz
        nn = nx * nx + ny * ny + nz * nz
        # Rays within 3 degrees of parallel meet anywhere.
        compares = both if nn >= 0.0027 * aa * bb else 0.0
        wa = wx * ax + wy * ay + wz * az
        wb = wx * bx + wy * by + wz * bz
        # Along both rays in units of depth, since a ray's camera z is 1.
        inverse = 1.0 / max(nn, 1e-12)
        s = (wa * bb - wb * ab) * inverse
        t = (wa * ab - wb * aa) * inverse
        ahead = compares if min(s, t) >= 0.2 else 0.0
        gap = wx * nx + wy * ny + wz * nz
        spread = s * s * a.var[j] + t * t * b.var[j] + 2.0 * body_var[j] + moved_sq
        px = 0.5 * (a.eye[0] + s * ax + b.eye[0] + t * bx)
        py = 0.5 * (a.eye[1] + s * ay + b.eye[1] + t * by)
        pz = 0.5 * (a.eye[2] + s * az + b.eye[2] + t * bz)
        # Children are short and people crouch: three standard deviations of standing adults are still cheap.
        odd = (pz - heights_m[0, j]) / (2.0 * heights_m[1, j] + 0.1)
        distance_sq = gap * gap * inverse / spread
        # Detectors' tails are heavy and left is taken for right: one joint may contradict, but not decide.
        loss = model.joint_loss * distance_sq / (distance_sq + model.joint_scale) + 0.5 * odd * odd
        total += compares * model.joint_gain - ahead * min(loss, model.joint_loss)
        total -= (compares - ahead) * model.joint_loss
        common += both
        count += compares
        cost += ahead * min(distance_sq + 0.5 * odd * odd, _COST_CAP) + (compares - ahead) * _COST_CAP
        met += ahead
        sx += ahead * px
        sy += ahead * py
        sz += ahead * pz
    out[0] = total
    out[1] = met
    out[2] = sx
    out[3] = sy
    out[4] = sz
    out[5] = common
    out[6] = count
    out[7] = cost


@njit(cache=True, nogil=True)
def _cast_rays(free, detections, camera_from_world, eye, direction):
    """Rays of detections: eye (n, 3) and direction (n, 3, n_padded)."""
    for a in range(free.shape[0]):
        d = free[a]
        p = camera_from_world[detections.view_of[d]]
        _eye_of(p, eye[a])
        for i in range(3):
            for j in range(direction.shape[2]):
                direction[a, i, j] = p[0, i] * detections.x[d, j] + p[1, i] * detections.y[d, j] + p[2, i]


@njit(cache=True, nogil=True)
def pair_costs(free, detections, camera_from_world, body_var, heights_m, model, joints_min, out):
    """How far the rays of two detections are from meeting: the mean over joints of min(z^2 + odd^2 / 2, 16).

    z, odd and the arguments are as in `pair_scores`; joints_min: joints that must compare. out (n_first, n): of the
    first detections against all, about 1 for one person, NEVER where nothing compares. It shows whether a camera's rays
    meet at all, and does not grow with the number of joints as a score does.
    """
    _pair_costs(
        free, Detections(*detections), camera_from_world, body_var, heights_m, PairModel(*model), joints_min, out
    )


@njit(cache=True, nogil=True)
def _pair_costs(free, detections, camera_from_world, body_var, heights_m, model, joints_min, out):
    n = free.shape[0]
    direction = np.empty((n, 3, detections.x.shape[1]))
    eye = np.empty((n, 3))
    met = np.empty(8)
    by_moment = np.ascontiguousarray(heights_m.T)
    _cast_rays(free, detections, camera_from_world, eye, direction)
    out[:] = NEVER
    for a in range(out.shape[0]):
        view_a = detections.view_of[free[a]]
        rays_a = _Rays(eye[a], direction[a], detections.var[free[a]], detections.seen[free[a]])
        for b in range(n):
            db = free[b]
            view_b = detections.view_of[db]
            if view_a == view_b:
                continue
            moved = model.speed_m_s * (detections.dt_s[view_a] - detections.dt_s[view_b])
            rays_b = _Rays(eye[b], direction[b], detections.var[db], detections.seen[db])
            _meet(rays_a, rays_b, moved * moved, body_var, by_moment, model, met)
            # Half of the common joints may be nearly parallel, but not more: the rest would decide by chance.
            if met[6] >= joints_min and 2 * met[6] >= met[5] and met[7] == met[7]:
                out[a, b] = met[7] / met[6]


@njit(cache=True, nogil=True)
def _agree(a, b, model, centre):
    """Score of two places (5,) by height for one person; centre (3,) becomes their weighted mean on the floor.

    The log ratio of N(difference; 0, sum of the covariances) to a constant density, with a bounded loss.
    """
    xx = a[2] + b[2]
    yx = a[3] + b[3]
    yy = a[4] + b[4]
    det = xx * yy - yx * yx
    dx = b[0] - a[0]
    dy = b[1] - a[1]
    # Solve (A + B) (u, v) = b - a once: for the distance, and for the mean a + A (u, v).
    u = (yy * dx - yx * dy) / det
    v = (xx * dy - yx * dx) / det
    distance_sq = u * dx + v * dy
    centre[0] = a[0] + a[2] * u + a[3] * v
    centre[1] = a[1] + a[3] * u + a[4] * v
    centre[2] = 0.0
    return model.place_gain - 0.5 * np.log(det) - model.place_loss * distance_sq / (distance_sq + model.place_scale)


@njit(cache=True, nogil=True)
def pair_scores(free, detections, camera_from_world, body_var, heights_m, model, out, centre):
    """Evidence that two detections of different cameras are of one person, as a log likelihood ratio.

    Every joint that both saw counts by the distance of its two rays in standard deviations z and, at half its weight,
    by how unusual the height of their meeting point is for that joint (two people on one epipolar line meet at odd
    heights): gain - min(loss z^2 / (z^2 + scale) + odd^2 / 2, loss), the Geman-McClure function in place of a
    heavy-tailed distribution's. All joints, common or not, give each detection a place by their usual heights, and the
    two places must agree. Cameras take their pictures at different instants, so people's speed widens the tolerance.

    detections: Detections as a plain tuple; free (n,) indices of them. heights_m (n_padded, 2) mean and standard
    deviation; model: PairModel as a plain tuple. out (n, n), symmetric, far below zero for two detections of one
    camera; centre (n, n, 3) mean meeting point, or the mean of the two places where no rays meet; NaN where there is
    neither.
    Source of the rays' nearest points: Hartley and Zisserman, Multiple View Geometry (2004), section 12.2; of the
    function: Geman and McClure, Statistical Methods for Tomographic Image Reconstruction (1987).
    """
    _pair_scores(free, Detections(*detections), camera_from_world, body_var, heights_m, PairModel(*model), out, centre)


@njit(cache=True, nogil=True)
def _pair_scores(free, detections, camera_from_world, body_var, heights_m, model, out, centre):
    n = free.shape[0]
    direction = np.empty((n, 3, detections.x.shape[1]))
    eye = np.empty((n, 3))
    place = np.empty((n, 5))
    met = np.empty(8)
    by_moment = np.ascontiguousarray(heights_m.T)
    _cast_rays(free, detections, camera_from_world, eye, direction)
    for a in range(n):
        d = free[a]
        p = camera_from_world[detections.view_of[d]]
        place_by_height(p, detections.x[d], detections.y[d], detections.seen[d], heights_m, model.stature_sd, place[a])
    for a in range(n):
        out[a, a] = _IMPOSSIBLE
        centre[a, a] = np.nan
        view_a = detections.view_of[free[a]]
        rays_a = _Rays(eye[a], direction[a], detections.var[free[a]], detections.seen[free[a]])
        for b in range(a):
            db = free[b]
            view_b = detections.view_of[db]
            score = _IMPOSSIBLE
            centre[a, b] = np.nan
            if view_a != view_b:
                moved = model.speed_m_s * (detections.dt_s[view_a] - detections.dt_s[view_b])
                rays_b = _Rays(eye[b], direction[b], detections.var[db], detections.seen[db])
                _meet(rays_a, rays_b, moved * moved, body_var, by_moment, model, met)
                score = met[0]
                if np.isfinite(place[a, 0]) and np.isfinite(place[b, 0]):
                    score += _agree(place[a], place[b], model, centre[a, b])
                if met[1] > 0.0:
                    for i in range(3):
                        centre[a, b, i] = met[2 + i] / met[1]
                if not np.isfinite(score):
                    score = _IMPOSSIBLE
            out[a, b] = score
            out[b, a] = score
            centre[b, a] = centre[a, b]


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
def group(score, centre, pair_min, group_of, places):
    """Group detections of different cameras, one group per person: greedy agglomeration, the largest gain first.

    score (n, n), centre (n, n, 3) of pair_scores; pair_min: score from which two detections are one person. group_of
    (n,): group or -1, the groups in order of their best pair's score; places (n, 3): per group the median of its
    members' mean meeting points with the two members that agree best. Returns the number of groups; each has at least
    two detections, no two of one camera.
    """
    n = score.shape[0]
    cluster_of = np.empty(n, np.int64)
    _merge(score, pair_min, cluster_of)
    best = np.full(n, _IMPOSSIBLE)
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
        if best[cluster] == _IMPOSSIBLE:
            return n_groups
        n_met = 0
        for a in range(n):
            if cluster_of[a] != cluster:
                continue
            group_of[a] = n_groups
            for k in range(2):
                b = pair[cluster, k]
                # The two that agree best meet once.
                if a != b and not (k == 0 and a == pair[cluster, 1]) and np.isfinite(centre[a, b, 0]):
                    met[n_met] = centre[a, b]
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


@njit(cache=True, nogil=True)
def place_by_height(camera, x, y, seen, heights_m, stature_sd, out):
    """Place on the floor of a person seen by one camera, from the usual heights of the joints.

    Every joint's ray meets the height that the joint usually has; their weighted mean is the place. All joints share
    one stature, so its error does not average out and lies along the line of sight.

    camera (3, 4) from world; x, y, seen (n_padded,); heights_m (n_padded, 2) mean and standard deviation; stature_sd a
    share. out (5,): x, y, and the place's covariance xx, yx, yy; NaN where nothing can be derived.
    """
    eye = np.empty(3)
    _eye_of(camera, eye)
    out[:] = np.nan
    weight = 0.0
    sx = 0.0
    sy = 0.0
    along_x = 0.0
    along_y = 0.0
    for j in range(x.shape[0]):
        if seen[j] == 0.0:
            continue
        dx = camera[0, 0] * x[j] + camera[1, 0] * y[j] + camera[2, 0]
        dy = camera[0, 1] * x[j] + camera[1, 1] * y[j] + camera[2, 1]
        dz = camera[0, 2] * x[j] + camera[1, 2] * y[j] + camera[2, 2]
        if abs(dz) < 1e-3:
            continue
        s = (heights_m[j, 0] - eye[2]) / dz
        if s < 0.2:
            continue
        # The place moves by the slope when the height is one metre off.
        slope_x = dx / dz
        slope_y = dy / dz
        sd = heights_m[j, 1]
        w = 1.0 / (sd * sd * (slope_x * slope_x + slope_y * slope_y) + 0.04)
        weight += w
        sx += w * (eye[0] + s * dx)
        sy += w * (eye[1] + s * dy)
        # A stature off by a share of itself moves the joint by that share of its height.
        along_x += w * slope_x * heights_m[j, 0] * stature_sd
        along_y += w * slope_y * heights_m[j, 0] * stature_sd
    if weight == 0.0:
        return
    lx = along_x / weight
    ly = along_y / weight
    out[0] = sx / weight
    out[1] = sy / weight
    independent = 0.15 * 0.15 + 1.0 / weight
    out[2] = lx * lx + independent
    out[3] = lx * ly
    out[4] = ly * ly + independent


@njit(cache=True, nogil=True)
def _blocked(point, eye, boxes):
    """Whether a box stands between a point and a camera. Slab test: Kay and Kajiya (1986)."""
    for b in range(boxes.shape[0]):
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


@njit(cache=True, nogil=True)
def _in_picture(point, camera, lens, size_px):
    """Whether a point is in a camera's picture. The lens's distortion is left out: this counts, it does not measure."""
    depth = camera[2, 0] * point[0] + camera[2, 1] * point[1] + camera[2, 2] * point[2] + camera[2, 3]
    if depth < 0.2:
        return False
    u = (camera[0, 0] * point[0] + camera[0, 1] * point[1] + camera[0, 2] * point[2] + camera[0, 3]) / depth
    v = (camera[1, 0] * point[0] + camera[1, 1] * point[1] + camera[1, 2] * point[2] + camera[1, 3]) / depth
    px = lens[0] * u + lens[2]
    py = lens[1] * v + lens[3]
    return not (px < 0.0 or py < 0.0 or px > size_px[0] or py > size_px[1])


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
        lens = cameras.lenses[view]
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
    n_padded = 8
    camera = np.zeros((1, 3, 4))
    none, index = np.zeros((0, n_padded), np.float32), np.zeros(0, np.int64)
    lanes, flag = np.zeros(n_padded), np.zeros(1, np.bool_)
    rows, flags = np.zeros(1, np.int64), np.zeros((1, 1), np.bool_)
    geometry = CameraGeometry(camera, np.zeros((1, 9)), np.zeros((1, 2)), np.zeros((0, 5)))
    detections = Detections(np.zeros(1), flag, np.zeros(2, np.int64), index, none, none, none, none)
    states = States(np.zeros((1, 6, n_padded)), np.zeros((1, 21, n_padded)), rows, flag, 1)
    pair, centre, heights = np.zeros((0, 0)), np.zeros((0, 0, 3)), np.zeros((n_padded, 2))
    model = tuple(PairModel(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    pair_scores(index, tuple(detections), camera, lanes, heights, model, pair, centre)
    pair_costs(index, tuple(detections), camera, lanes, heights, model, 1.0, pair)
    group(pair, centre, 1.0, index.copy(), np.zeros((0, 3)))
    plausible(states.mean[0], states.cov[0], 1)
    one = np.zeros(n_padded, np.float32)
    place_by_height(camera[0], one, one, one, heights, 1.0, np.zeros(5))
    line_of_sight(np.zeros((0, 2)), np.zeros(1), tuple(geometry), flag, np.zeros((0, 1), np.bool_))
    overlaps(tuple(states), 1.0, flags)
