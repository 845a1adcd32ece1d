"""Hot loops of the cameras' health: what each view says against the others, and what that teaches about its camera.

Arrays in, preallocated arrays out; the shapes of detections and of people's states are those of `association`.
"""

import numpy as np
from numba import njit

from fusion._kernels.association import _SUMS, looking

# Columns of `evidence`, of one person in one view: 1.0 where there is any; what the view shows minus what the others
# say, metres at the body in the two directions of the image; by how much that grows with each second by which the
# camera's clock is late; the body's place in the image and its depth; variance of that difference, m^2.
KNOWN, OFF_X, OFF_Y, RATE_X, RATE_Y, IMAGE_X, IMAGE_Y, DEPTH, VARIANCE = range(9)
N_EVIDENCE = 9
# What a camera may be wrong in: turned about its three axes (rad), shifted along them (m), clock late (s).
N_FAULTS = 7
# Say of a camera that looks wrong but is not set aside.
TRUST_MIN = 0.02


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def _compare(camera, dt_s, haste, x, y, var, seen, m, c, body_var, out):
    """Mean difference of one detection to one person's prediction; out (10,): weight, difference, rate, image, depth
    and mean squared spread of the joints' differences about their mean."""
    weight = 0.0
    n = 0.0
    du = 0.0
    dv = 0.0
    au = 0.0
    av = 0.0
    iu = 0.0
    iv = 0.0
    z = 0.0
    sq = 0.0
    for j in range(x.shape[0]):
        vx = haste * m[3, j]
        vy = haste * m[4, j]
        vz = haste * m[5, j]
        qx = m[0, j] + dt_s * vx
        qy = m[1, j] + dt_s * vy
        qz = m[2, j] + dt_s * vz
        depth = camera[2, 0] * qx + camera[2, 1] * qy + camera[2, 2] * qz + camera[2, 3]
        depth = depth if depth > 0.05 else 0.05
        u = (camera[0, 0] * qx + camera[0, 1] * qy + camera[0, 2] * qz + camera[0, 3]) / depth
        v = (camera[1, 0] * qx + camera[1, 1] * qy + camera[1, 2] * qz + camera[1, 3]) / depth
        spread = (c[0, j] + c[2, j] + c[5, j]) / 3.0
        w = seen[j] / (var[j] * depth * depth + body_var[j] + spread)
        away = camera[2, 0] * vx + camera[2, 1] * vy + camera[2, 2] * vz
        rate_u = camera[0, 0] * vx + camera[0, 1] * vy + camera[0, 2] * vz - u * away
        rate_v = camera[1, 0] * vx + camera[1, 1] * vy + camera[1, 2] * vz - v * away
        off_u = (x[j] - u) * depth
        off_v = (y[j] - v) * depth
        weight += w
        n += seen[j]
        du += w * off_u
        dv += w * off_v
        sq += w * (off_u * off_u + off_v * off_v)
        au -= w * rate_u
        av -= w * rate_v
        iu += w * u
        iv += w * v
        z += w * depth
    out[0] = weight
    out[9] = n
    out[1] = du / weight
    out[2] = dv / weight
    out[3] = au / weight
    out[4] = av / weight
    out[5] = iu / weight
    out[6] = iv / weight
    out[7] = z / weight
    out[8] = sq / weight - out[1] * out[1] - out[2] * out[2]


@njit(cache=True, nogil=True)
def _invert(s, out):
    """Inverse of a symmetric 3 x 3 matrix in closed form."""
    a = s[1, 1] * s[2, 2] - s[1, 2] * s[1, 2]
    b = s[0, 2] * s[1, 2] - s[0, 1] * s[2, 2]
    c = s[0, 1] * s[1, 2] - s[0, 2] * s[1, 1]
    det = s[0, 0] * a + s[0, 1] * b + s[0, 2] * c
    out[0, 0] = a / det
    out[0, 1] = out[1, 0] = b / det
    out[0, 2] = out[2, 0] = c / det
    out[1, 1] = (s[0, 0] * s[2, 2] - s[0, 2] * s[0, 2]) / det
    out[1, 2] = out[2, 1] = (s[0, 1] * s[0, 2] - s[0, 0] * s[1, 2]) / det
    out[2, 2] = (s[0, 0] * s[1, 1] - s[0, 1] * s[0, 1]) / det


@njit(cache=True, nogil=True)
def leave_one_out(
    camera_from_world, dt_s, has_frame, start, x, y, var, seen, mean, cov, rows, known, track_of, detection_of,
    body_var, trust, first, haste, view_var, freedom, prior_precision, joints_min, loose_m, alike_m, others_var_max,
    who, evidence,
):  # fmt: skip
    """What views say about people against what the other views of the same people say.

    A few people a set, in turn from `first`: those who are known and have two trusted views or more. The views of one
    person share an unknown error of his prediction, solved for by robust least squares over the trusted views; each
    view is then compared to the answer without itself, so that a camera cannot agree with what it said. A view in which
    a person has no detection takes the nearest one of the same shape within loose_m that is free or that nobody else
    supports: what a turned camera shows lies beside everybody, and begins tracks of its own.

    haste undoes the fading of predicted velocities, which would look like clocks that go wrong with dt_s.

    known (capacity,) bool; trust (n_views,) 0 to 1; who (n_max,) indices into rows, written; evidence (n_max, n_views,
    9), written for the people in who. Returns how many people there are.
    """
    n_views = detection_of.shape[1]
    n_rows = rows.shape[0]
    compared = np.empty((n_views, 10))
    trial = np.empty(10)
    has = np.empty(n_views, np.bool_)
    matched = np.empty(n_views, np.bool_)
    ju = np.empty((n_views, 3))
    jv = np.empty((n_views, 3))
    weight = np.empty(n_views)
    noise = np.empty(n_views)
    normal = np.empty((3, 3))
    inverse = np.empty((3, 3))
    rhs = np.empty(3)
    shift = np.empty(3)
    views_of = np.zeros(n_rows, np.int64)
    for track in range(n_rows):
        for view in range(n_views):
            views_of[track] += detection_of[track, view] >= 0
    n_people = 0
    for turn in range(n_rows):
        if n_people == who.shape[0]:
            break
        track = (first + turn) % n_rows
        row = rows[track]
        if not known[row]:
            continue
        trusted = 0
        for view in range(n_views):
            if detection_of[track, view] >= 0 and trust[view] > 0.0:
                trusted += 1
        if trusted < 2:
            continue
        for view in range(n_views):
            has[view] = False
            matched[view] = False
            if not has_frame[view] or start[view] == start[view + 1]:
                continue
            camera = camera_from_world[view]
            d = detection_of[track, view]
            if d >= 0:
                found = compared[view]
                _compare(camera, dt_s[view], haste, x[d], y[d], var[d], seen[d], mean[row], cov[row], body_var, found)
                has[view] = matched[view] = compared[view, 9] >= joints_min
            else:
                nearest = loose_m * loose_m
                for d in range(start[view], start[view + 1]):
                    if track_of[d] == -2 or (track_of[d] >= 0 and views_of[track_of[d]] > 1):
                        continue
                    _compare(
                        camera, dt_s[view], haste, x[d], y[d], var[d], seen[d], mean[row], cov[row], body_var, trial
                    )
                    sq = trial[1] * trial[1] + trial[2] * trial[2]
                    if trial[9] >= joints_min and trial[8] < alike_m * alike_m and sq < nearest:
                        nearest = sq
                        compared[view] = trial
                        has[view] = True
            if not has[view]:
                continue
            u = compared[view, 5]
            v = compared[view, 6]
            for i in range(3):
                ju[view, i] = camera[0, i] - u * camera[2, i]
                jv[view, i] = camera[1, i] - v * camera[2, i]
            noise[view] = view_var + 1.0 / compared[view, 0]
            # Only what was matched may speak for where the person is.
            weight[view] = trust[view] / noise[view] if matched[view] else 0.0
        shift[:] = 0.0
        for step in range(3):
            normal[:] = 0.0
            rhs[:] = 0.0
            for i in range(3):
                normal[i, i] = prior_precision
            for view in range(n_views):
                if not matched[view] or weight[view] == 0.0:
                    continue
                off_u = compared[view, 1]
                off_v = compared[view, 2]
                if step > 0:
                    su = off_u
                    sv = off_v
                    for i in range(3):
                        su -= ju[view, i] * shift[i]
                        sv -= jv[view, i] * shift[i]
                    weight[view] = (
                        trust[view] / noise[view] * (freedom + 2.0) / (freedom + (su * su + sv * sv) / noise[view])
                    )
                w = weight[view]
                for i in range(3):
                    rhs[i] += w * (ju[view, i] * off_u + jv[view, i] * off_v)
                    for k in range(3):
                        normal[i, k] += w * (ju[view, i] * ju[view, k] + jv[view, i] * jv[view, k])
            if step < 2:
                _invert(normal, inverse)
                for i in range(3):
                    shift[i] = inverse[i, 0] * rhs[0] + inverse[i, 1] * rhs[1] + inverse[i, 2] * rhs[2]
        for view in range(n_views):
            to = evidence[n_people, view]
            to[:] = 0.0
            if not has[view] or trusted - (matched[view] and trust[view] > 0.0) < 2:
                continue
            w = weight[view]
            off_u = compared[view, 1]
            off_v = compared[view, 2]
            # The others' answer: their normal equations are everybody's without this view's.
            for i in range(3):
                for k in range(3):
                    inverse[i, k] = normal[i, k] - w * (ju[view, i] * ju[view, k] + jv[view, i] * jv[view, k])
            rest = inverse.copy()
            _invert(rest, inverse)
            bx = rhs[0] - w * (ju[view, 0] * off_u + jv[view, 0] * off_v)
            by = rhs[1] - w * (ju[view, 1] * off_u + jv[view, 1] * off_v)
            bz = rhs[2] - w * (ju[view, 2] * off_u + jv[view, 2] * off_v)
            others = 0.0
            for i in range(3):
                place = inverse[i, 0] * bx + inverse[i, 1] * by + inverse[i, 2] * bz
                off_u -= ju[view, i] * place
                off_v -= jv[view, i] * place
                for k in range(3):
                    others += 0.5 * inverse[i, k] * (ju[view, i] * ju[view, k] + jv[view, i] * jv[view, k])
            if not others < others_var_max:
                continue
            to[0] = 1.0
            to[1] = off_u
            to[2] = off_v
            for i in range(3, 8):
                to[i] = compared[view, i]
            to[8] = noise[view] + others
        who[n_people] = track
        n_people += 1
    return n_people


@njit(cache=True, nogil=True)
def learn(
    evidence, n_people, step_s, again_s, trust, speed_min, correlation_s, freedom, memory_s, huge_m, fault,
    offset_s, offset_var, information, rhs, total,
):  # fmt: skip
    """Fold evidence into what is known of the cameras.

    Clocks: one Kalman filter a camera. A body that moves at v shows, in a camera whose clock is late by tau, an error
    of -v tau. The people of a set say nothing about an error common to all clocks, so what they teach is made to
    leave the mean, weighted by the precision of what is known, where it was. again_s: time after which the same person
    is looked at again.

    Faults: least squares for the seven ways in which a camera can be wrong, over the last memory_s seconds in which
    people were compared. information (n_views, 7, 7), lower triangle, rhs (n_views, 7), total (n_views, 2): seconds
    times people, and squared differences. fault (n_views, 7): what was last believed, about which outliers are judged.
    """
    n_views = evidence.shape[1]
    change = np.empty(n_views)
    gain = np.empty(n_views)
    row_u = np.empty(N_FAULTS)
    row_v = np.empty(N_FAULTS)
    keep = np.exp(-step_s / memory_s)
    for view in range(n_views):
        for person in range(n_people):
            if evidence[person, view, KNOWN] > 0.0:
                for i in range(N_FAULTS):
                    rhs[view, i] *= keep
                    for k in range(i + 1):
                        information[view, i, k] *= keep
                total[view, 0] *= keep
                total[view, 1] *= keep
                break
    for person in range(n_people):
        count = 0
        sum_var = 0.0
        for view in range(n_views):
            if evidence[person, view, KNOWN] > 0.0 and trust[view] > 0.0:
                count += 1
                sum_var += offset_var[view]
        common = 0.0
        precision = 0.0
        for view in range(n_views):
            change[view] = 0.0
            gain[view] = 0.0
            e = evidence[person, view]
            if e[KNOWN] == 0.0:
                continue
            speed_sq = e[RATE_X] * e[RATE_X] + e[RATE_Y] * e[RATE_Y]
            if trust[view] > 0.0 and count > 1 and speed_sq > speed_min * speed_min:
                late_s = (e[RATE_X] * e[OFF_X] + e[RATE_Y] * e[OFF_Y]) / speed_sq
                # The others' clocks are wrong too, and in one way: they learnt from each other.
                others = (sum_var - offset_var[view]) / (count - 1.0)
                noise = e[VARIANCE] / speed_sq + others
                robust = (freedom + 1.0) / (freedom + late_s * late_s / (noise + offset_var[view]))
                # Errors of pictures that follow one another are alike: together they count as one in correlation_s.
                noise *= max(correlation_s / max(again_s, 1e-3), 1.0) / robust
                gain[view] = offset_var[view] / (offset_var[view] + noise)
                change[view] = gain[view] * late_s
                common += change[view] / offset_var[view]
                precision += 1.0 / offset_var[view]
            u = e[IMAGE_X]
            v = e[IMAGE_Y]
            z = e[DEPTH]
            row_u[0] = -u * v * z
            row_u[1] = (1.0 + u * u) * z
            row_u[2] = -v * z
            row_u[3] = 1.0
            row_u[4] = 0.0
            row_u[5] = -u
            row_u[6] = e[RATE_X]
            row_v[0] = -(1.0 + v * v) * z
            row_v[1] = u * v * z
            row_v[2] = u * z
            row_v[3] = 0.0
            row_v[4] = 1.0
            row_v[5] = -v
            row_v[6] = e[RATE_Y]
            left_u = e[OFF_X]
            left_v = e[OFF_Y]
            believed = fault[view]
            for i in range(N_FAULTS):
                left_u -= row_u[i] * believed[i]
                left_v -= row_v[i] * believed[i]
            left = np.sqrt(left_u * left_u + left_v * left_v)
            w = step_s * min(1.0, huge_m / max(left, 1e-9))
            for i in range(N_FAULTS):
                rhs[view, i] += w * (row_u[i] * e[OFF_X] + row_v[i] * e[OFF_Y])
                to = information[view, i]
                for k in range(i + 1):
                    to[k] += w * (row_u[i] * row_u[k] + row_v[i] * row_v[k])
            total[view, 0] += w
            total[view, 1] += w * (e[OFF_X] * e[OFF_X] + e[OFF_Y] * e[OFF_Y])
        if precision > 0.0:
            common /= precision
        for view in range(n_views):
            if gain[view] > 0.0:
                offset_s[view] += change[view] - common
                # What the clock was thought to be wrong by, it is now corrected for.
                offset_var[view] = max(offset_var[view] * (1.0 - gain[view]), 1e-9)


@njit(cache=True, nogil=True)
def explain(information, rhs, total, prior, first, n, doubt_m, data_min_s, moved_m, fits_m, trust, fault, misfit_m):
    """Most probable faults of n cameras in turn from `first`, and how much of what was seen they explain.

    prior (7,): precision of each fault about none. fault (n_views, 7) and misfit_m (n_views,) are written: the root
    mean square, metres at the body, of what a turned or shifted camera explains and a late clock does not; trust,
    unless it is 0, halves at a misfit of doubt_m. Returns whether one of all cameras has more than data_min_s of data
    and is above moved_m though trusted, or below fits_m though not.
    """
    n_views = rhs.shape[0]
    factor = np.empty((N_FAULTS, N_FAULTS))
    half = np.empty(N_FAULTS)
    for turn in range(n):
        view = (first + turn) % n_views
        misfit_m[view] = 0.0
        fault[view] = 0.0
        if total[view, 0] <= 0.0:
            continue
        # Cholesky's factor; the prior keeps every pivot positive.
        for i in range(N_FAULTS):
            for k in range(i + 1):
                value = information[view, i, k] + (prior[i] if i == k else 0.0)
                for q in range(k):
                    value -= factor[i, q] * factor[k, q]
                factor[i, k] = np.sqrt(value) if i == k else value / factor[k, k]
        explained = 0.0
        for i in range(N_FAULTS):
            value = rhs[view, i]
            for q in range(i):
                value -= factor[i, q] * half[q]
            half[i] = value / factor[i, i]
            explained += half[i] * half[i]
        for turned in range(N_FAULTS):
            i = N_FAULTS - 1 - turned
            value = half[i]
            for q in range(i + 1, N_FAULTS):
                value -= factor[q, i] * fault[view, q]
            fault[view, i] = value / factor[i, i]
        late = N_FAULTS - 1
        explained -= rhs[view, late] ** 2 / (information[view, late, late] + prior[late])
        misfit_m[view] = np.sqrt(max(explained, 0.0) / total[view, 0])
        if trust[view] > 0.0:
            # Who looks wrong has less say at once: else everybody looks wrong who shares people with him.
            trust[view] = max(TRUST_MIN, 1.0 / (1.0 + (misfit_m[view] / doubt_m) ** 2))
    for view in range(n_views):
        if total[view, 0] > data_min_s and (misfit_m[view] > moved_m if trust[view] > 0.0 else misfit_m[view] < fits_m):
            return True
    return False


@njit(cache=True, nogil=True)
def look(
    camera_from_world, lenses, size_px, has_frame, boxes, mean, rows, n_joints, start, track_of, detection_of, one,
    heights_m, radius_m, stature_m, n_looks, high, fine, missing, looked,
):  # fmt: skip
    """Count, of the cameras that have a free sight of person rows[one], those in which nobody found him.

    In free sight: all heights_m above the place are in the picture, with no furniture in between, and nobody else, an
    upright cylinder, stands before the middle one. looked (n_views, 2): looks and misses, of which those long ago fade.
    Returns whether a camera's miss rate is above high, or below fine though it is said to be missing people.
    """
    n_views = detection_of.shape[1]
    places = np.empty((rows.shape[0], 2))
    for row in range(rows.shape[0]):
        for i in range(2):
            total = 0.0
            for j in range(n_joints):
                total += mean[rows[row], i, j]
            places[row, i] = total / n_joints
    sees = np.empty((1, n_views), np.bool_)
    looking(places[one : one + 1], heights_m, camera_from_world, lenses, size_px, has_frame, boxes, sees)
    middle = heights_m[heights_m.shape[0] // 2]
    change = False
    for view in range(n_views):
        if sees[0, view]:
            p = camera_from_world[view]
            eye_x = -(p[0, 0] * p[0, 3] + p[1, 0] * p[1, 3] + p[2, 0] * p[2, 3])
            eye_y = -(p[0, 1] * p[0, 3] + p[1, 1] * p[1, 3] + p[2, 1] * p[2, 3])
            eye_z = -(p[0, 2] * p[0, 3] + p[1, 2] * p[1, 3] + p[2, 2] * p[2, 3])
            wx = eye_x - places[one, 0]
            wy = eye_y - places[one, 1]
            sq = max(wx * wx + wy * wy, 1e-9)
            free = True
            for other in range(rows.shape[0]):
                ox = places[other, 0] - places[one, 0]
                oy = places[other, 1] - places[one, 1]
                along = (wx * ox + wy * oy) / sq
                if other == one or along <= 0.0 or along >= 1.0:
                    continue
                off_x = ox - along * wx
                off_y = oy - along * wy
                low = middle + along * (eye_z - middle) < stature_m
                if low and off_x * off_x + off_y * off_y < radius_m * radius_m:
                    free = False
                    break
            if free:
                looked[view] *= 1.0 - 1.0 / n_looks
                looked[view, 0] += 1.0
                missed = detection_of[one, view] < 0
                if missed and n_joints == 2:
                    # A box whose feet are hidden may fit nobody; whom it shows is not missed.
                    for d in range(start[view], start[view + 1]):
                        if track_of[d] < 0:
                            missed = False
                            break
                looked[view, 1] += missed
        rate = looked[view, 1] / max(looked[view, 0], 1.0)
        if rate < fine if missing[view] else rate > high:
            change = True
    return change


@njit(cache=True, nogil=True)
def observe(
    camera_from_world, dt_s, has_frame, start, x, y, var, seen, mean, cov, rows, known, track_of, detection_of,
    body_var, trust, turn, haste, view_var, freedom, prior_precision, joints_min, loose_m, alike_m, others_var_max,
    step_s, speed_min, correlation_s, memory_s, huge_m, wander, offset_var_max, pull_s, prior, judged, n_judged,
    doubt_m, data_min_s, moved_m, fits_m, lenses, size_px, boxes, n_joints, heights_m, radius_m, stature_m, n_looks,
    high, fine, missing, who, evidence, fault, offset_s, offset_var, information, rhs, total, misfit_m, looked,
):  # fmt: skip
    """All of the above, in one call a set: a call costs more than some of them. Returns 1 where a camera's being moved
    has to be judged, plus 2 where its missing people has to be."""
    n_people = leave_one_out(
        camera_from_world, dt_s, has_frame, start, x, y, var, seen, mean, cov, rows, known, track_of, detection_of,
        body_var, trust, turn, haste, view_var, freedom, prior_precision, joints_min, loose_m, alike_m, others_var_max,
        who, evidence,
    )
    if n_people == 0:
        return 0
    n_views = offset_s.shape[0]
    weight = 0.0
    mean_s = 0.0
    for view in range(n_views):
        offset_var[view] = min(offset_var[view] + wander * step_s, offset_var_max)
        weight += 1.0 / offset_var[view]
        mean_s += offset_s[view] / offset_var[view]
    for view in range(n_views):
        offset_s[view] -= step_s / pull_s * mean_s / weight
    n_known = 0
    for row in rows:
        n_known += known[row]
    again_s = step_s * n_known / n_people
    learn(
        evidence, n_people, step_s, again_s, trust, speed_min, correlation_s, freedom, memory_s, huge_m, fault,
        offset_s, offset_var, information, rhs, total,
    )
    judge = explain(
        information, rhs, total, prior, judged, n_judged, doubt_m, data_min_s, moved_m, fits_m, trust, fault, misfit_m
    )
    missed = look(
        camera_from_world, lenses, size_px, has_frame, boxes, mean, rows, n_joints, start, track_of, detection_of,
        who[0], heights_m, radius_m, stature_m, n_looks, high, fine, missing, looked,
    )
    return judge + 2 * missed


def warm_up() -> None:
    """Call the kernels once on nothing, as the others are."""
    p = 8
    none, index, flag = np.zeros((0, p), np.float32), np.zeros(0, np.int64), np.zeros(1, np.bool_)
    one = np.ones(1)
    observe(
        np.zeros((1, 3, 4)), one, flag, np.zeros(2, np.int64), none, none, none, none, np.zeros((1, 6, p)),
        np.zeros((1, 21, p)), index, flag, index, np.zeros((0, 1), np.int64), np.ones(p), one, 0, 1.0, 1.0, 1.0, 1.0,
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, np.ones(N_FAULTS), 0, 1, 1.0, 1.0, 1.0, 1.0,
        np.zeros((1, 9)), np.zeros((1, 2)), np.zeros((0, 5)), 1, one, 1.0, 1.0, 1.0, 1.0, 1.0, flag,
        np.zeros(1, np.int64), np.zeros((1, 1, N_EVIDENCE)), np.zeros((1, N_FAULTS)), one, one,
        np.zeros((1, N_FAULTS, N_FAULTS)), np.zeros((1, N_FAULTS)), np.zeros((1, 2)), one, np.zeros((1, 2)),
    )  # fmt: skip
