"""Hot loops of association: the optimal assignment of each camera, cross-view grouping of what is left.

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


# error_model: a check for division by zero would keep the loop out of lanes; no divisor here can be zero.
@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def noise(
    camera_from_world, dt_s, x, y, var, seen, mean, cov, rows, detection_of, body_var, acceleration, freedom,
    total, count,
):  # fmt: skip
    """How much noisier each joint's measurements are than claimed: the expectation step of an estimate of variance.

    What a view is off from the joint as all views together place it, and what the joint itself is uncertain across the
    line of sight, add up to the variance of the measurement; views count as much as they do in the filter. Only people
    whom two views or more see tell anything: one view alone is always right.

    detection_of (n, n_views): detection or -1. total, count (n_padded,) are added to; their ratio estimates the factor
    on the claimed variance.
    """
    n_padded = x.shape[1]
    for r in range(rows.shape[0]):
        n_views = 0
        for view in range(detection_of.shape[1]):
            n_views += detection_of[r, view] >= 0
        if n_views < 2:
            continue
        m = mean[rows[r]]
        c = cov[rows[r]]
        for view in range(detection_of.shape[1]):
            d = detection_of[r, view]
            if d < 0:
                continue
            p = camera_from_world[view]
            dt = dt_s[view]
            uneven = abs(dt * dt * dt) / 3.0
            x_d, y_d, var_d, seen_d = x[d], y[d], var[d], seen[d]
            for j in range(n_padded):
                qx = m[0, j] + dt * m[3, j]
                qy = m[1, j] + dt * m[4, j]
                qz = m[2, j] + dt * m[5, j]
                depth = p[2, 0] * qx + p[2, 1] * qy + p[2, 2] * qz + p[2, 3]
                depth = depth if depth > 0.05 else 0.05
                u = (p[0, 0] * qx + p[0, 1] * qy + p[0, 2] * qz + p[0, 3]) / depth
                v = (p[1, 0] * qx + p[1, 1] * qy + p[1, 2] * qz + p[1, 3]) / depth
                # Covariance of the place at the view's instant, and its variance across the line of sight.
                xx = c[0, j] + 2.0 * dt * c[6, j] + dt * dt * c[9, j]
                yx = c[1, j] + dt * (c[7, j] + c[10, j]) + dt * dt * c[13, j]
                yy = c[2, j] + 2.0 * dt * c[11, j] + dt * dt * c[14, j]
                zx = c[3, j] + dt * (c[8, j] + c[15, j]) + dt * dt * c[18, j]
                zy = c[4, j] + dt * (c[12, j] + c[16, j]) + dt * dt * c[19, j]
                zz = c[5, j] + 2.0 * dt * c[17, j] + dt * dt * c[20, j]
                across = 0.0
                for i in range(2):
                    w = u if i == 0 else v
                    jx = p[i, 0] - w * p[2, 0]
                    jy = p[i, 1] - w * p[2, 1]
                    jz = p[i, 2] - w * p[2, 2]
                    across += jx * (xx * jx + 2.0 * (yx * jy + zx * jz)) + jy * (yy * jy + 2.0 * zy * jz) + zz * jz * jz
                precision = 1.0 / (var_d[j] + (body_var[j] + acceleration[j] * uneven) / (depth * depth))
                distance = ((x_d[j] - u) ** 2 + (y_d[j] - v) ** 2) * precision
                share = (freedom + 2.0) / (freedom + distance)
                total[j] += seen_d[j] * share * (distance + across / (depth * depth) * precision)
                count[j] += 2.0 * seen_d[j]


@njit(cache=True, nogil=True)
def _assign(cost, column_of):
    """Optimal assignment of rows to columns, n_rows <= n_columns, by shortest augmenting paths.

    Source: Jonker and Volgenant (1987), in the form with potentials. column_of (n_rows,) is written.
    """
    n, m = cost.shape
    row_price = np.zeros(n + 1)
    column_price = np.zeros(m + 1)
    row_of = np.zeros(m + 1, np.int64)
    previous = np.zeros(m + 1, np.int64)
    least = np.empty(m + 1)
    used = np.empty(m + 1, np.bool_)
    for i in range(1, n + 1):
        row_of[0] = i
        column = 0
        least[:] = np.inf
        used[:] = False
        while True:
            used[column] = True
            row = row_of[column]
            delta = np.inf
            following = 0
            for j in range(1, m + 1):
                if used[j]:
                    continue
                reduced = cost[row - 1, j - 1] - row_price[row] - column_price[j]
                if reduced < least[j]:
                    least[j] = reduced
                    previous[j] = column
                if least[j] < delta:
                    delta = least[j]
                    following = j
            for j in range(m + 1):
                if used[j]:
                    row_price[row_of[j]] += delta
                    column_price[j] -= delta
                else:
                    least[j] -= delta
            column = following
            if row_of[column] == 0:
                break
        while column != 0:
            before = previous[column]
            row_of[column] = row_of[before]
            column = before
    for j in range(1, m + 1):
        if row_of[j] > 0:
            column_of[row_of[j] - 1] = j - 1


@njit(cache=True, nogil=True)
def assign(start, cost, gate, double_gate, track_of, detection_of):
    """Give every camera's detections to tracks, at least total cost, none above the gate.

    Clipping the costs at the gate and dropping pairs that reach it equals an assignment in which everybody may stay
    alone at the price of the gate. A detection left over that fits, below double_gate, a track which got a better one
    in the same view is that person seen twice: it is set aside, for it must not give birth to a second person.

    cost (n_tracks, n_detections). track_of (n_detections,): track, -1 free, -2 set aside.
    detection_of (n_tracks, n_views): detection or -1.
    """
    n_tracks = cost.shape[0]
    detection_of[:] = -1
    track_of[:] = -1
    if n_tracks == 0:
        return
    near = np.empty(n_tracks, np.int64)  # Tracks below the gate of any detection of the view; no other can matter.
    n_below = np.empty(cost.shape[1], np.int64)
    n_below[:] = 0
    for view in range(start.shape[0] - 1):
        first = start[view]
        stop = start[view + 1]
        n = stop - first
        if n == 0:
            continue
        n_near = 0
        disputed = False
        for track in range(n_tracks):
            below = 0
            for d in range(first, stop):
                if cost[track, d] < gate:
                    below += 1
                    n_below[d] += 1
                    disputed |= n_below[d] > 1
            if below:
                near[n_near] = track
                n_near += 1
                disputed |= below > 1
        if not disputed:
            for k in range(n_near):
                for d in range(first, stop):
                    if cost[near[k], d] < gate:
                        track_of[d] = near[k]
                        detection_of[near[k], view] = d
            continue
        by_track = n_near <= n
        clipped = np.empty((n_near, n) if by_track else (n, n_near))
        for k in range(n_near):
            for d in range(n):
                price = min(cost[near[k], first + d], gate)
                if by_track:
                    clipped[k, d] = price
                else:
                    clipped[d, k] = price
        column_of = np.full(clipped.shape[0], -1)
        _assign(clipped, column_of)
        for row in range(clipped.shape[0]):
            track = near[row] if by_track else near[column_of[row]]
            d = first + (column_of[row] if by_track else row)
            if cost[track, d] < gate:
                track_of[d] = track
                detection_of[track, view] = d
        for d in range(first, stop):
            if track_of[d] == -1:
                for k in range(n_near):
                    if detection_of[near[k], view] >= 0 and cost[near[k], d] < double_gate:
                        track_of[d] = -2
                        break


@njit(cache=True, nogil=True)
def pair_costs(
    free, view_of, camera_from_world, dt_s, x, y, var, seen, body_var, heights_m, cap, joints_min, speed, out, centre
):
    """How badly two detections of different cameras disagree about being one person.

    For every joint that both saw: squared distance of the two rays in standard deviations, and, at a lower weight, how
    unusual the meeting point's height is for that joint (two people on one epipolar line meet at odd heights). Cameras
    take their pictures at different times, so people's speed widens the tolerance.

    free (n,) indices of detections; heights_m (n_padded, 2). out (n, n), symmetric, NEVER where nothing compares;
    centre (n, n, 3) mean meeting point where out < NEVER.
    """
    n = free.shape[0]
    n_padded = x.shape[1]
    ray = np.empty((n, n_padded, 3))
    eye = np.empty((n, 3))
    for a in range(n):
        p = camera_from_world[view_of[free[a]]]
        for i in range(3):
            eye[a, i] = -(p[0, i] * p[0, 3] + p[1, i] * p[1, 3] + p[2, i] * p[2, 3])
        for j in range(n_padded):
            u = x[free[a], j]
            v = y[free[a], j]
            for i in range(3):
                ray[a, j, i] = p[0, i] * u + p[1, i] * v + p[2, i]
    for a in range(n):
        out[a, a] = NEVER
        for b in range(a):
            out[a, b] = NEVER
            out[b, a] = NEVER
            da = free[a]
            db = free[b]
            if view_of[da] == view_of[db]:
                continue
            wx = eye[b, 0] - eye[a, 0]
            wy = eye[b, 1] - eye[a, 1]
            wz = eye[b, 2] - eye[a, 2]
            moved = speed * (dt_s[view_of[da]] - dt_s[view_of[db]])
            total = 0.0
            count = 0.0
            n_common = 0
            sx = 0.0
            sy = 0.0
            sz = 0.0
            for j in range(n_padded):
                if seen[da, j] == 0.0 or seen[db, j] == 0.0:
                    continue
                n_common += 1
                ax = ray[a, j, 0]
                ay = ray[a, j, 1]
                az = ray[a, j, 2]
                bx = ray[b, j, 0]
                by = ray[b, j, 1]
                bz = ray[b, j, 2]
                nx = ay * bz - az * by
                ny = az * bx - ax * bz
                nz = ax * by - ay * bx
                aa = ax * ax + ay * ay + az * az
                bb = bx * bx + by * by + bz * bz
                ab = ax * bx + ay * by + az * bz
                nn = nx * nx + ny * ny + nz * nz
                # Rays within 3 degrees of parallel meet anywhere.
                if nn < 0.0027 * aa * bb:
                    continue
                wa = wx * ax + wy * ay + wz * az
                wb = wx * bx + wy * by + wz * bz
                # Along both rays in units of depth, since a ray's camera z is 1.
                s = (wa * bb - wb * ab) / nn
                t = (wa * ab - wb * aa) / nn
                count += 1.0
                if s < 0.2 or t < 0.2:
                    total += cap
                    continue
                gap = wx * nx + wy * ny + wz * nz
                spread = s * s * var[da, j] + t * t * var[db, j] + 2.0 * body_var[j] + moved * moved
                px = 0.5 * (eye[a, 0] + s * ax + eye[b, 0] + t * bx)
                py = 0.5 * (eye[a, 1] + s * ay + eye[b, 1] + t * by)
                pz = 0.5 * (eye[a, 2] + s * az + eye[b, 2] + t * bz)
                sx += px
                sy += py
                sz += pz
                # Children are short and people crouch: three standard deviations of standing adults are still cheap.
                odd = (pz - heights_m[j, 0]) / (2.0 * heights_m[j, 1] + 0.1)
                total += min(gap * gap / nn / spread + 0.5 * odd * odd, cap)
            # Half of the common joints may be nearly parallel, but not more: the rest would decide by chance.
            if count >= joints_min and 2 * count >= n_common and sx == sx:
                out[a, b] = total / count
                out[b, a] = total / count
                for i in range(3):
                    s = (sx, sy, sz)[i] / count
                    centre[a, b, i] = s
                    centre[b, a, i] = s


@njit(cache=True, nogil=True)
def group(free, view_of, cost, gate, group_of):
    """Put detections of different cameras together that are one person: best pairs first, then whom most agree with.

    cost (n, n) of pair_costs is used up: pairs that were tried become NEVER. group_of (n,): group or -1.
    Returns the number of groups; each has at least two detections, no two of one camera.
    """
    n = free.shape[0]
    group_of[:] = -1
    n_groups = 0
    views = np.empty(n, np.int64)
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
        for k in range(size):
            group_of[member[k]] = n_groups
            views[k] = view_of[free[member[k]]]
        n_groups += 1


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
    none = np.zeros((0, n_padded))
    mean, cov = np.zeros((1, 6, n_padded)), np.zeros((1, 21, n_padded))
    start, rows, lanes = np.zeros(2, np.int64), np.zeros(1, np.int64), np.zeros(n_padded)
    cost = np.zeros((1, 0))
    dt_s, heights, nobody = np.zeros(1), np.zeros((n_padded, 2)), np.zeros(0, np.int64)
    assign(start, cost, 1.0, 1.0, np.zeros(0, np.int64), np.zeros((1, 1), np.int64))
    pair = np.zeros((0, 0))
    pair_costs(
        nobody, nobody, camera, dt_s, none, none, none, none, lanes, heights, 1.0, 1.0, 1.0, pair, np.zeros((0, 0, 3))
    )
    noise(
        camera, dt_s, none, none, none, none, mean, cov, rows, np.full((1, 1), -1), lanes, lanes, 1.0, lanes.copy(),
        lanes.copy(),
    )  # fmt: skip
    group(nobody, nobody, pair, 1.0, np.zeros(0, np.int64))
    stand(camera[0], lanes, lanes, lanes, heights, 1.0, np.zeros(5))
    looking(
        np.zeros((0, 2)), np.zeros(1), camera, np.zeros((1, 9)), np.zeros((1, 2)), np.zeros(1, np.bool_),
        np.zeros((0, 5)), np.zeros((0, 1), np.bool_),
    )  # fmt: skip
    contradicted(
        mean, cov, rows, 1, np.zeros((1, 2)), np.full((1, 1), -1), camera, np.zeros((1, 9)), np.zeros((1, 2)),
        np.zeros(1, np.bool_), np.zeros((0, 5)), 1.0, 1.0, 1.0, np.zeros(1, np.bool_),
    )  # fmt: skip
    overlaps(mean, cov, rows, 1, 1.0, np.zeros((1, 1), np.bool_))
