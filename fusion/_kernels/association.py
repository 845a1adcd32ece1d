"""Loops of association that not every set needs: cross-view grouping of what nobody claims, births, who looks where.

Arrays in, preallocated arrays out. Detections of one set of frames are sorted by view: those of view v are
start[v] .. start[v + 1] - 1. Image coordinates are normalised and undistorted; joints are padded to n_padded lanes and
a detection's `seen` is 1.0 or 0.0.
"""

import numpy as np
from numba import njit

# No pair: higher than any cost.
NEVER = 1e9

# A sum over views may be taken in any order, which lets the compiler use lanes; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "nsz", "contract"}


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def _meet(eye_a, ray_a, var_a, seen_a, eye_b, ray_b, var_b, seen_b, moved_sq, body_var, heights_m, cap, out):
    """Two detections' joints: out (7,) becomes how many both saw, how many of them compare, their total cost, and the
    sums of their meeting points and how many of those there are. Without a branch, so that joints go side by side."""
    wx = eye_b[0] - eye_a[0]
    wy = eye_b[1] - eye_a[1]
    wz = eye_b[2] - eye_a[2]
    common = 0.0
    count = 0.0
    total = 0.0
    met = 0.0
    sx = 0.0
    sy = 0.0
    sz = 0.0
    for j in range(var_a.shape[0]):
        both = seen_a[j] * seen_b[j]
        ax = ray_a[0, j]
        ay = ray_a[1, j]
        az = ray_a[2, j]
        bx = ray_b[0, j]
        by = ray_b[1, j]
        bz = ray_b[2, j]
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
        spread = s * s * var_a[j] + t * t * var_b[j] + 2.0 * body_var[j] + moved_sq
        px = 0.5 * (eye_a[0] + s * ax + eye_b[0] + t * bx)
        py = 0.5 * (eye_a[1] + s * ay + eye_b[1] + t * by)
        pz = 0.5 * (eye_a[2] + s * az + eye_b[2] + t * bz)
        # Children are short and people crouch: three standard deviations of standing adults are still cheap.
        odd = (pz - heights_m[0, j]) / (2.0 * heights_m[1, j] + 0.1)
        cost = min(gap * gap * inverse / spread + 0.5 * odd * odd, cap)
        common += both
        count += compares
        total += ahead * cost + (compares - ahead) * cap
        met += ahead
        sx += ahead * px
        sy += ahead * py
        sz += ahead * pz
    out[0] = common
    out[1] = count
    out[2] = total
    out[3] = met
    out[4] = sx
    out[5] = sy
    out[6] = sz


@njit(cache=True, nogil=True)
def pair_costs(
    free, view_of, camera_from_world, dt_s, x, y, var, seen, body_var, heights_m, cap, joints_min, speed, out, centre
):
    """How badly two detections of different cameras disagree about being one person.

    For every joint that both saw: squared distance of the two rays in standard deviations, and, at a lower weight, how
    unusual the meeting point's height is for that joint (two people on one epipolar line meet at odd heights). Cameras
    take their pictures at different times, so people's speed widens the tolerance.

    free (n,) indices of detections; heights_m (2, n_padded). out (n, n), symmetric, NEVER where nothing compares;
    centre (n, n, 3) mean meeting point where out < NEVER.
    """
    n = free.shape[0]
    n_padded = x.shape[1]
    ray = np.empty((n, 3, n_padded))
    eye = np.empty((n, 3))
    met = np.empty(7)
    for a in range(n):
        p = camera_from_world[view_of[free[a]]]
        for i in range(3):
            eye[a, i] = -(p[0, i] * p[0, 3] + p[1, i] * p[1, 3] + p[2, i] * p[2, 3])
            for j in range(n_padded):
                ray[a, i, j] = p[0, i] * x[free[a], j] + p[1, i] * y[free[a], j] + p[2, i]
    for a in range(n):
        out[a, a] = NEVER
        da = free[a]
        for b in range(a):
            out[a, b] = NEVER
            out[b, a] = NEVER
            db = free[b]
            if view_of[da] == view_of[db]:
                continue
            moved = speed * (dt_s[view_of[da]] - dt_s[view_of[db]])
            _meet(
                eye[a], ray[a], var[da], seen[da], eye[b], ray[b], var[db], seen[db], moved * moved, body_var,
                heights_m, cap, met,
            )
            # Half of the common joints may be nearly parallel, but not more: the rest would decide by chance.
            if met[1] >= joints_min and 2 * met[1] >= met[0] and met[2] == met[2]:
                out[a, b] = met[2] / met[1]
                out[b, a] = met[2] / met[1]
                for i in range(3):
                    centre[a, b, i] = met[4 + i] / max(met[3], 1.0)
                    centre[b, a, i] = centre[a, b, i]


@njit(cache=True, nogil=True)
def group(free, view_of, cost, centre, gate, group_of, places):
    """Put detections of different cameras together that are one person: best pairs first, then whom most agree with.

    cost (n, n), centre (n, n, 3) of pair_costs. group_of (n,): group or -1; places (n, 3): of each group the median of
    the mean meeting points with the two that agree best. Returns the number of groups; each has at least two
    detections, no two of one camera.
    """
    n = free.shape[0]
    group_of[:] = -1
    n_groups = 0
    met = np.empty((2 * n, 3))
    member = np.empty(n, np.int64)
    while True:
        best = gate
        first = -1
        second = -1
        for a in range(n):
            if group_of[a] >= 0:
                continue
            for b in range(a):
                if group_of[b] < 0 and cost[a, b] < best:
                    best = cost[a, b]
                    first = a
                    second = b
        if first < 0:
            return n_groups
        member[0] = first
        member[1] = second
        size = 2
        while True:
            best = gate
            following = -1
            for c in range(n):
                if group_of[c] >= 0:
                    continue
                taken = False
                total = 0.0
                compared = 0
                for k in range(size):
                    if view_of[free[c]] == view_of[free[member[k]]]:
                        taken = True
                        break
                    if cost[c, member[k]] < NEVER:
                        total += cost[c, member[k]]
                        compared += 1
                if taken or compared == 0:
                    continue
                # Opposite cameras compare badly; whoever compares at all may speak for the group.
                mean = total / compared
                if mean < best:
                    best = mean
                    following = c
            if following < 0:
                break
            member[size] = following
            size += 1
        n_pairs = 0
        for k in range(size):
            group_of[member[k]] = n_groups
            for q in range(min(k, 2)):  # With the two that agree best.
                if cost[member[k], member[q]] < NEVER:
                    met[n_pairs] = centre[member[k], member[q]]
                    n_pairs += 1
        for i in range(3):
            places[n_groups, i] = np.median(met[:n_pairs, i])
        n_groups += 1


@njit(cache=True, nogil=True)
def plausible(mean, cov, n_joints):
    """Whether joints make a body: above the floor, not taller than people, not spread over the room.

    mean (6, n_padded), cov (21, n_padded) of one person. Joints vaguer than 14 cm in each direction have no say.
    """
    known = np.empty((3, n_joints))
    n = 0
    for j in range(n_joints):
        if cov[0, j] + cov[2, j] + cov[5, j] < 0.06:
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
def weigh(rows, found, vain, places_m, born_m, says_found, says_missed, odds_max, confirm, away_m, away_sets, odds,
          sets_away, confirmed):  # fmt: skip
    """Learn from who found people and who looked there in vain whether they are people: odds, logarithms, kept within
    odds_max. Whom two views or more saw away_m from where he was born in away_sets in a row walks, as people do.

    rows (n,) of the last three arrays and born_m; found, vain (n, n_views) bool; places_m (n, 2).
    """
    for n in range(rows.shape[0]):
        row = rows[n]
        n_found = 0
        value = odds[row]
        for view in range(found.shape[1]):
            n_found += found[n, view]
            value += says_found * found[n, view] + says_missed * (vain[n, view] and not found[n, view])
        odds[row] = min(max(value, -odds_max), odds_max)
        away = np.hypot(places_m[n, 0] - born_m[row, 0], places_m[n, 1] - born_m[row, 1]) > away_m
        sets_away[row] = sets_away[row] + 1 if away and n_found >= 2 else 0
        confirmed[row] = value > confirm or sets_away[row] >= away_sets


@njit(cache=True, nogil=True)
def stand(camera_from_world, x, y, seen, heights_m, stature_sd, out):
    """Where a person stands whom one camera sees, from the usual heights of the joints that it saw.

    Every joint's ray meets the height that the joint usually has; their weighted mean is the place. One stature is
    common to all joints, so its error does not average out and goes along the line of sight.

    camera_from_world (3, 4); x, y, seen (n_padded,); out (5,): x, y, and the place's covariance xx, yx, yy; NaN where
    nothing can be said.
    """
    p = camera_from_world
    ex = -(p[0, 0] * p[0, 3] + p[1, 0] * p[1, 3] + p[2, 0] * p[2, 3])
    ey = -(p[0, 1] * p[0, 3] + p[1, 1] * p[1, 3] + p[2, 1] * p[2, 3])
    ez = -(p[0, 2] * p[0, 3] + p[1, 2] * p[1, 3] + p[2, 2] * p[2, 3])
    out[:] = np.nan
    weight = 0.0
    sx = 0.0
    sy = 0.0
    along_x = 0.0
    along_y = 0.0
    for j in range(x.shape[0]):
        if seen[j] == 0.0:
            continue
        dx = p[0, 0] * x[j] + p[1, 0] * y[j] + p[2, 0]
        dy = p[0, 1] * x[j] + p[1, 1] * y[j] + p[2, 1]
        dz = p[0, 2] * x[j] + p[1, 2] * y[j] + p[2, 2]
        if abs(dz) < 1e-3:
            continue
        s = (heights_m[j, 0] - ez) / dz
        if s < 0.2:
            continue
        # The place moves by slope when the height is one metre off.
        slope_x = dx / dz
        slope_y = dy / dz
        sd = heights_m[j, 1]
        w = 1.0 / (sd * sd * (slope_x * slope_x + slope_y * slope_y) + 0.04)
        weight += w
        sx += w * (ex + s * dx)
        sy += w * (ey + s * dy)
        # A stature off by a share of itself moves the joint by that share of its height.
        along_x += w * slope_x * heights_m[j, 0] * stature_sd
        along_y += w * slope_y * heights_m[j, 0] * stature_sd
    if weight == 0.0:
        return
    lx = along_x / weight
    ly = along_y / weight
    out[0] = sx / weight
    out[1] = sy / weight
    rest = 0.15 * 0.15 + 1.0 / weight
    out[2] = lx * lx + rest
    out[3] = lx * ly
    out[4] = ly * ly + rest


@njit(cache=True, nogil=True)
def looking(places_m, heights_m, camera_from_world, lenses, size_px, live, boxes, out):
    """Which live cameras look at people's places with nothing of the store's furniture between.

    places_m (n, 2); heights_m (n_heights,): all of these points above a place must be in the picture and free.
    boxes (n_boxes, 5): x0, y0, x1, y1, height; out (n, n_views) bool. The lens's distortion is left out: this counts,
    it does not measure.
    """
    point = np.empty(3)
    for view in range(camera_from_world.shape[0]):
        p = camera_from_world[view]
        eye = np.empty(3)
        for i in range(3):
            eye[i] = -(p[0, i] * p[0, 3] + p[1, i] * p[1, 3] + p[2, i] * p[2, 3])
        for n in range(places_m.shape[0]):
            out[n, view] = live[view]
            for h in range(heights_m.shape[0]):
                if not out[n, view]:
                    break
                point[0] = places_m[n, 0]
                point[1] = places_m[n, 1]
                point[2] = heights_m[h]
                depth = p[2, 0] * point[0] + p[2, 1] * point[1] + p[2, 2] * point[2] + p[2, 3]
                if depth < 0.2:
                    out[n, view] = False
                    break
                u = (p[0, 0] * point[0] + p[0, 1] * point[1] + p[0, 2] * point[2] + p[0, 3]) / depth
                v = (p[1, 0] * point[0] + p[1, 1] * point[1] + p[1, 2] * point[2] + p[1, 3]) / depth
                px = lenses[view, 0] * u + lenses[view, 2]
                py = lenses[view, 1] * v + lenses[view, 3]
                if px < 0.0 or py < 0.0 or px > size_px[view, 0] or py > size_px[view, 1]:
                    out[n, view] = False
                    break
                for b in range(boxes.shape[0]):
                    # Slab test from the point to the camera.
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
                        out[n, view] = False
                        break


@njit(cache=True, nogil=True)
def contradicted(
    mean, cov, rows, n_joints, places_m, detection_of, camera_from_world, lenses, size_px, live, boxes, body_m,
    height_m, head_m, out,
):  # fmt: skip
    """Whose place cameras speak against: two or more, and no fewer than find him, look at it and see nobody.

    A camera looks where belly and face are in its picture with nothing of the store's furniture and nobody else in
    between. Everybody is taken as tall as he is known to be now, since who crouches is hidden by little, or as
    height_m; above his highest joint there are head_m more.

    places_m (n, 2) of the people in rows; detection_of (n, n_views); body_m half a body's width; out (n,) bool.
    """
    n = rows.shape[0]
    n_views = detection_of.shape[1]
    top = np.empty(n)
    for k in range(n):
        top[k] = 0.0
        for j in range(n_joints):
            c = cov[rows[k]]
            if c[0, j] + c[2, j] + c[5, j] < 0.06:
                top[k] = max(top[k], mean[rows[k], 2, j] + head_m)
        if top[k] <= 0.0:
            top[k] = height_m
    heights = np.empty(2)
    free = np.empty((1, n_views), np.bool_)
    for k in range(n):
        out[k] = False
        found = 0
        absent = 0
        for view in range(n_views):
            found += detection_of[k, view] >= 0
            absent += live[view] and detection_of[k, view] < 0
        if absent < max(2, found):
            continue
        heights[0] = 0.6 * top[k]
        heights[1] = 0.9 * top[k]
        looking(places_m[k : k + 1], heights, camera_from_world, lenses, size_px, live, boxes, free)
        vain = 0
        for view in range(n_views):
            if detection_of[k, view] >= 0 or not free[0, view]:
                continue
            p = camera_from_world[view]
            step_x = -(p[0, 0] * p[0, 3] + p[1, 0] * p[1, 3] + p[2, 0] * p[2, 3]) - places_m[k, 0]
            step_y = -(p[0, 1] * p[0, 3] + p[1, 1] * p[1, 3] + p[2, 1] * p[2, 3]) - places_m[k, 1]
            step_z = -(p[0, 2] * p[0, 3] + p[1, 2] * p[1, 3] + p[2, 2] * p[2, 3]) - heights[0]
            square = max(step_x * step_x + step_y * step_y, 1e-9)
            hidden = False
            for other in range(n):
                if other == k or hidden:
                    continue
                x = places_m[other, 0] - places_m[k, 0]
                y = places_m[other, 1] - places_m[k, 1]
                along = (x * step_x + y * step_y) / square
                aside = x * step_y - y * step_x
                if 0.0 < along < 1.0 and aside * aside < body_m * body_m * square:
                    hidden = heights[0] + along * step_z < top[other]
            vain += not hidden
        out[k] = vain >= max(2, found)


@njit(cache=True, nogil=True)
def overlaps(mean, cov, rows, n_joints, near_m, out):
    """Pairs of tracks whose known joints all but coincide: one person followed twice.

    out (n, n) bool, lower triangle and diagonal False.
    """
    n = rows.shape[0]
    out[:] = False
    for a in range(n):
        for b in range(a + 1, n):
            total = 0.0
            count = 0
            for j in range(n_joints):
                if not total < near_m * n_joints:
                    break  # Whatever follows, it is too far; people mostly are after three joints.
                spread = 0.0
                for i in (0, 2, 5):
                    spread += cov[rows[a], i, j] + cov[rows[b], i, j]
                if spread > 0.06:
                    continue
                sq = 0.0
                for i in range(3):
                    step = mean[rows[a], i, j] - mean[rows[b], i, j]
                    sq += step * step
                total += min(np.sqrt(sq), 1.0)
                count += 1
            out[a, b] = count > 0 and 2 * count >= n_joints and total < near_m * count


def warm_up() -> None:
    """Call every kernel once on nothing, since a first call loads or compiles it and costs up to a second."""
    n_padded = 8
    camera = np.zeros((1, 3, 4))
    none = np.zeros((0, n_padded), np.float32)
    mean, cov = np.zeros((1, 6, n_padded)), np.zeros((1, 21, n_padded))
    rows, lanes = np.zeros(1, np.int64), np.zeros(n_padded)
    dt_s, heights, nobody = np.zeros(1), np.zeros((2, n_padded)), np.zeros(0, np.int64)
    pair = np.zeros((0, 0))
    pair_costs(
        nobody, nobody, camera, dt_s, none, none, none, none, lanes, heights, 1.0, 1.0, 1.0, pair,
        np.zeros((0, 0, 3)),
    )  # fmt: skip
    group(nobody, nobody, pair, np.zeros((0, 0, 3)), 1.0, np.zeros(0, np.int64), np.zeros((0, 3)))
    plausible(mean[0], cov[0], 1)
    flags, place = np.zeros((1, 1), np.bool_), np.zeros((1, 2))
    weigh(rows, flags, flags, place, place, 1.0, 1.0, 1.0, 1.0, 1.0, 1, np.zeros(1), rows.copy(), flags[0])
    one = np.zeros(n_padded, np.float32)
    stand(camera[0], one, one, one, heights.T.copy(), 1.0, np.zeros(5))
    looking(
        np.zeros((0, 2)), np.zeros(1), camera, np.zeros((1, 9)), np.zeros((1, 2)), np.zeros(1, np.bool_),
        np.zeros((0, 5)), np.zeros((0, 1), np.bool_),
    )  # fmt: skip
    contradicted(
        mean, cov, rows, 1, np.zeros((1, 2)), np.full((1, 1), -1), camera, np.zeros((1, 9)), np.zeros((1, 2)),
        np.zeros(1, np.bool_), np.zeros((0, 5)), 1.0, 1.0, 1.0, np.zeros(1, np.bool_),
    )  # fmt: skip
    overlaps(mean, cov, rows, 1, 1.0, np.zeros((1, 1), np.bool_))
