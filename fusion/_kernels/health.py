"""Hot loops of camera health: each view compared to the other views, and what that teaches about its camera.

Arrays in, preallocated arrays out; records of arrays as in `records`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from fusion._kernels.presence import N_CIRCUMSTANCES, PARTLY, Outlook, circumstances_in
from fusion._kernels.records import CameraGeometry, Detections, Matches, States

# A sum over views may be taken in any order, which lets the compiler use lanes; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "nsz", "contract"}

# Ways in which a camera's pose and clock may be wrong: turned about its three axes (rad), shifted along them (m), clock
# late (s).
N_FAULTS = 7
LATE = N_FAULTS - 1
# Least weight of a camera that looks wrong but is not set aside.
TRUST_MIN = 0.02
# Bits that `observe` returns: a camera's calibration, or its miss rate, has to be judged; a camera is in doubt.
JUDGE_CALIBRATION, JUDGE_MISSES, DOUBT = 1, 2, 4

# One person in one view: the view's measurement minus what the other views predict, metres at the body in the two
# directions of the image; how fast that grows with the lateness of the camera's clock; the body's place in the image
# and its depth; the variance of the difference, m^2.
EVIDENCE = np.dtype(
    [("known", "?"), ("off_x", "f8"), ("off_y", "f8"), ("rate_x", "f8"), ("rate_y", "f8"), ("image_x", "f8"),
     ("image_y", "f8"), ("depth_m", "f8"), ("var", "f8")],
    align=True,
)  # fmt: skip

# What is learnt about one camera.
CAMERA = np.dtype(
    [
        ("offset_s", "f8"),  # its clock minus the cameras' common time
        ("offset_var", "f8"),
        ("trust", "f8"),  # weight of its views, 0 (set aside) to 1
        ("information", "f8", (N_FAULTS, N_FAULTS)),  # normal equations of its faults, lower triangle
        ("rhs", "f8", (N_FAULTS,)),
        ("fault", "f8", (N_FAULTS,)),  # their most probable solution
        ("weight_s", "f8"),  # seconds times people in the normal equations
        ("squares_m2_s", "f8"),  # squared differences in them
        ("residual_m", "f8"),  # root mean square difference that a turn or shift explains
        ("usual_m", "f8"),  # root mean square difference of the rig's median camera, whatever explains it
        ("looks_in", "f8", (N_CIRCUMSTANCES,)),  # independent looks at people in each circumstance
        ("misses_in", "f8", (N_CIRCUMSTANCES,)),  # those of them in which it did not find them
        ("looks", "f8"),  # people who were recently in its unobstructed view
        ("misses", "f8"),  # those of them that it did not find
        ("missing", "?"),  # judged to miss people
    ],
    align=True,
)

# Settings of the comparison, an array of one record; their values and reasons are in fusion/people/health.py.
MODEL = np.dtype(
    [
        ("body_var", "f8", (32,)),  # variance of a detector's joint about one point of the body, m^2; padded
        ("fault_prior", "f8", (N_FAULTS,)),  # precision of each fault about none
        ("judged_per_set", "i8"),
        *((name, "f8") for name in (
            "view_var", "predicted_precision", "degrees_of_freedom", "joints_min", "loose_m", "alike_m",
            "others_var_max", "speed_min_m_s", "correlation_s", "memory_s", "outlier_m", "wander_s2_per_s",
            "offset_var_max", "pull_s", "usual_prior_m", "usual_prior_s", "doubt_m", "doubt_over_usual", "data_min_s",
            "moved_m", "moved_over_usual", "fits_m", "fits_over_usual", "looks_memory", "misses_memory",
            "misses_lasting_s", "misses_max", "misses_fine",
        )),
    ],
    align=True,
)  # fmt: skip

# Scratch: one person compared to one view, see Comparison, and its rows, variance and weight in the least squares.
VIEW = np.dtype(
    [("weight", "f8"), ("off_x", "f8"), ("off_y", "f8"), ("rate_x", "f8"), ("rate_y", "f8"), ("image_x", "f8"),
     ("image_y", "f8"), ("depth_m", "f8"), ("row_x", "f8", (3,)), ("row_y", "f8", (3,)), ("noise", "f8"),
     ("precision", "f8"), ("trust", "f8"), ("has", "?"), ("matched", "?")],
    align=True,
)  # fmt: skip


class Comparison(NamedTuple):
    """One detection minus one track's prediction, averaged over joints by precision, metres at the body."""

    weight: float  # sum of precisions, 1/m^2
    n_seen: float
    off_x: float
    off_y: float
    rate_x: float
    rate_y: float
    image_x: float
    image_y: float
    depth_m: float
    spread_m2: float  # mean squared deviation of the joints' differences from their mean


# ---- each view against the others ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def _compare(camera, dt_s, velocity_scale, x, y, var, seen, m, c, body_var):
    """Comparison of one detection (n_padded,) with one track's prediction m (6, n_padded), c (21, n_padded)."""
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
        vx = velocity_scale * m[3, j]
        vy = velocity_scale * m[4, j]
        vz = velocity_scale * m[5, j]
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
    off_x = du / weight
    off_y = dv / weight
    spread_sq = sq / weight - off_x * off_x - off_y * off_y
    return Comparison(
        weight, n, off_x, off_y, au / weight, av / weight, iu / weight, iv / weight, z / weight, spread_sq
    )


@njit(cache=True, nogil=True)
def _keep(view, found):
    view.weight = found.weight
    view.off_x = found.off_x
    view.off_y = found.off_y
    view.rate_x = found.rate_x
    view.rate_y = found.rate_y
    view.image_x = found.image_x
    view.image_y = found.image_y
    view.depth_m = found.depth_m


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
def _compare_views(
    track, camera_from_world, detections, states, matches, views_of, model, velocity_scale, cameras, views
):
    """Compare one track to its detection in every view, or to the nearest loose one; writes `views`.

    A view without a detection of the track takes the nearest detection of the same shape within loose_m that is free or
    that no other view supports: a turned camera shows people beside where they are, and starts tracks of its own.
    views_of (n,): number of views in which each track was matched.
    """
    row = states.rows[track]
    m, c = states.mean[row], states.cov[row]
    x, y, var, seen = detections.x, detections.y, detections.var, detections.seen
    for v in range(views.shape[0]):
        view = views[v]
        view.has = False
        view.matched = False
        first = detections.start[v]
        stop = detections.start[v + 1]
        if not detections.has_frame[v] or first == stop:
            continue
        camera = camera_from_world[v]
        dt_s = detections.dt_s[v]
        d = matches.detection_of[track, v]
        if d >= 0:
            found = _compare(camera, dt_s, velocity_scale, x[d], y[d], var[d], seen[d], m, c, model.body_var)
            _keep(view, found)
            view.has = view.matched = found.n_seen >= model.joints_min
        else:
            nearest = model.loose_m * model.loose_m
            for d in range(first, stop):
                other = matches.track_of[d]
                if other == -2 or (other >= 0 and views_of[other] > 1):
                    continue
                found = _compare(camera, dt_s, velocity_scale, x[d], y[d], var[d], seen[d], m, c, model.body_var)
                sq = found.off_x * found.off_x + found.off_y * found.off_y
                alike = found.n_seen >= model.joints_min and found.spread_m2 < model.alike_m * model.alike_m
                if alike and sq < nearest:
                    nearest = sq
                    _keep(view, found)
                    view.has = True
        if not view.has:
            continue
        for i in range(3):
            view.row_x[i] = camera[0, i] - view.image_x * camera[2, i]
            view.row_y[i] = camera[1, i] - view.image_y * camera[2, i]
        view.noise = model.view_var + 1.0 / view.weight
        # Only matched detections decide where the person is.
        view.trust = cameras[v].trust if view.matched else 0.0


@njit(cache=True, nogil=True)
def _solve_shift(views, model, normal, rhs, inverse):
    """Error of one prediction, common to all views, by iteratively reweighted least squares with Student-t weights.

    Trust is relative: where all cameras of a person are in doubt, they are compared as if none were. normal (3, 3) and
    rhs (3,) become the normal equations with the final weights, which stay in `views`; inverse (3, 3) is scratch.
    """
    shift = np.zeros(3)
    freedom = model.degrees_of_freedom
    most = 1e-9
    for v in range(views.shape[0]):
        if views[v].has:
            most = max(most, views[v].trust)
    for v in range(views.shape[0]):
        view = views[v]
        view.precision = view.trust / most / view.noise if view.has else 0.0
    for step in range(3):
        normal[:] = 0.0
        rhs[:] = 0.0
        for i in range(3):
            normal[i, i] = model.predicted_precision
        for v in range(views.shape[0]):
            view = views[v]
            if not view.matched or view.precision == 0.0:
                continue
            if step > 0:
                left_x = view.off_x
                left_y = view.off_y
                for i in range(3):
                    left_x -= view.row_x[i] * shift[i]
                    left_y -= view.row_y[i] * shift[i]
                tail = freedom + (left_x * left_x + left_y * left_y) / view.noise
                view.precision = view.trust / most / view.noise * (freedom + 2.0) / tail
            w = view.precision
            for i in range(3):
                rhs[i] += w * (view.row_x[i] * view.off_x + view.row_y[i] * view.off_y)
                for k in range(3):
                    normal[i, k] += w * (view.row_x[i] * view.row_x[k] + view.row_y[i] * view.row_y[k])
        if step < 2:
            _invert(normal, inverse)
            for i in range(3):
                shift[i] = inverse[i, 0] * rhs[0] + inverse[i, 1] * rhs[1] + inverse[i, 2] * rhs[2]


@njit(cache=True, nogil=True)
def _against_others(view, normal, rhs, others_var_max, left, inverse, b, out):
    """Evidence of one view: its difference to the solution of the normal equations without itself.

    left, inverse (3, 3) and b (3,) are scratch: an allocation costs as much as the solve.
    """
    w = view.precision
    off_x = view.off_x
    off_y = view.off_y
    for i in range(3):
        for k in range(3):
            left[i, k] = normal[i, k] - w * (view.row_x[i] * view.row_x[k] + view.row_y[i] * view.row_y[k])
        b[i] = rhs[i] - w * (view.row_x[i] * off_x + view.row_y[i] * off_y)
    _invert(left, inverse)
    others = 0.0
    for i in range(3):
        place = inverse[i, 0] * b[0] + inverse[i, 1] * b[1] + inverse[i, 2] * b[2]
        off_x -= view.row_x[i] * place
        off_y -= view.row_y[i] * place
        for k in range(3):
            others += 0.5 * inverse[i, k] * (view.row_x[i] * view.row_x[k] + view.row_y[i] * view.row_y[k])
    if not others < others_var_max:
        return
    out.known = True
    out.off_x = off_x
    out.off_y = off_y
    out.rate_x = view.rate_x
    out.rate_y = view.rate_y
    out.image_x = view.image_x
    out.image_y = view.image_y
    out.depth_m = view.depth_m
    out.var = view.noise + others


@njit(cache=True, nogil=True)
def leave_one_out(
    geometry, detections, states, matches, model, first,
    velocity_scale, cameras, people, evidence,
):  # fmt: skip
    """Compare views of a few tracks to the other views of the same tracks: leave-one-out residuals.

    The tracks are taken in turn from index `first`: those that are confirmed and that two trusted views or more see.
    The views of one track share an unknown error of its prediction, solved for by robust least squares over the trusted
    views; each view is then compared to the solution without itself, so that no camera confirms itself.

    geometry, detections, states, matches: CameraGeometry, Detections, States, Matches. velocity_scale: true velocities
    over predicted ones; it undoes their decay, which would look like clocks that err in proportion to dt_s. model a
    record of MODEL; cameras (n_views,) of CAMERA. Writes people (n_max,), indices into states.rows, and evidence
    (n_max, n_views) of EVIDENCE; returns the number of people.
    """
    n_views = matches.detection_of.shape[1]
    n_rows = states.rows.shape[0]
    views = np.empty(n_views, VIEW)
    normal, left, inverse = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    rhs, b = np.empty(3), np.empty(3)
    views_of = np.zeros(n_rows, np.int64)
    for track in range(n_rows):
        for v in range(n_views):
            views_of[track] += matches.detection_of[track, v] >= 0
    n_people = 0
    for turn in range(n_rows):
        if n_people == people.shape[0]:
            break
        track = (first + turn) % n_rows
        if not states.confirmed[states.rows[track]]:
            continue
        trusted = 0
        for v in range(n_views):
            if matches.detection_of[track, v] >= 0 and cameras[v].trust > 0.0:
                trusted += 1
        if trusted < 2:
            continue
        _compare_views(
            track, geometry.camera_from_world, detections, states, matches, views_of, model, velocity_scale, cameras,
            views,
        )  # fmt: skip
        _solve_shift(views, model, normal, rhs, inverse)
        for v in range(n_views):
            view = views[v]
            evidence[n_people, v].known = False
            if view.has and trusted - (view.matched and cameras[v].trust > 0.0) >= 2:
                _against_others(
                    view, normal, rhs, model.others_var_max, left, inverse, b, evidence[n_people, v]
                )
        people[n_people] = track
        n_people += 1
    return n_people


# ---- clocks and calibrations -----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _forget(cameras, evidence, n_people, kept):
    """Fade the normal equations of the cameras that have new evidence."""
    for v in range(cameras.shape[0]):
        for person in range(n_people):
            if evidence[person, v].known:
                camera = cameras[v]
                for i in range(N_FAULTS):
                    camera.rhs[i] *= kept
                    for k in range(i + 1):
                        camera.information[i, k] *= kept
                camera.weight_s *= kept
                camera.squares_m2_s *= kept
                break


@njit(cache=True, nogil=True)
def _learn_clocks(evidence, again_s, model, cameras):
    """One scalar Kalman filter per camera for the offset of its clock, measured by one person's evidence (n_views,).

    A body at velocity v shows, in a camera whose clock is late by tau, an error of -v tau. The people of a set do not
    measure an error common to all clocks, so the updates are made to keep the mean offset, weighted by precision.
    again_s: time after which the same person is compared again.
    """
    n_views = cameras.shape[0]
    change = np.zeros(n_views)
    gain = np.zeros(n_views)
    freedom = model.degrees_of_freedom
    count = 0
    sum_var = 0.0
    for v in range(n_views):
        if evidence[v].known and cameras[v].trust > 0.0:
            count += 1
            sum_var += cameras[v].offset_var
    common = 0.0
    precision = 0.0
    for v in range(n_views):
        e = evidence[v]
        offset_var = cameras[v].offset_var
        if not e.known:
            continue
        speed_sq = e.rate_x * e.rate_x + e.rate_y * e.rate_y
        if cameras[v].trust > 0.0 and count > 1 and speed_sq > model.speed_min_m_s * model.speed_min_m_s:
            late_s = (e.rate_x * e.off_x + e.rate_y * e.off_y) / speed_sq
            # The other clocks are wrong too, and in a correlated way: they learnt from each other.
            others = (sum_var - offset_var) / (count - 1.0)
            noise = e.var / speed_sq + others
            robust = (freedom + 1.0) / (freedom + late_s * late_s / (noise + offset_var))
            # Errors of consecutive pictures are alike: together they count as one in correlation_s.
            noise *= max(model.correlation_s / max(again_s, 1e-3), 1.0) / robust
            gain[v] = offset_var / (offset_var + noise)
            change[v] = gain[v] * late_s
            common += change[v] / offset_var
            precision += 1.0 / offset_var
    if precision > 0.0:
        common /= precision
    for v in range(n_views):
        if gain[v] > 0.0:
            cameras[v].offset_s += change[v] - common
            # The error that was known of the clock is corrected from here on.
            cameras[v].offset_var = max(cameras[v].offset_var * (1.0 - gain[v]), 1e-9)


@njit(cache=True, nogil=True)
def _learn_fault(camera, e, step_s, outlier_m, row_x, row_y):
    """Add one person's evidence e to a camera's normal equations; Huber weights about the faults believed so far.

    row_x, row_y (7,) are scratch.
    """
    u = e.image_x
    v = e.image_y
    z = e.depth_m
    row_x[0] = -u * v * z
    row_x[1] = (1.0 + u * u) * z
    row_x[2] = -v * z
    row_x[3] = 1.0
    row_x[4] = 0.0
    row_x[5] = -u
    row_x[6] = e.rate_x
    row_y[0] = -(1.0 + v * v) * z
    row_y[1] = u * v * z
    row_y[2] = u * z
    row_y[3] = 0.0
    row_y[4] = 1.0
    row_y[5] = -v
    row_y[6] = e.rate_y
    left_x = e.off_x
    left_y = e.off_y
    for i in range(N_FAULTS):
        left_x -= row_x[i] * camera.fault[i]
        left_y -= row_y[i] * camera.fault[i]
    left = np.sqrt(left_x * left_x + left_y * left_y)
    w = step_s * min(1.0, outlier_m / max(left, 1e-9))
    for i in range(N_FAULTS):
        camera.rhs[i] += w * (row_x[i] * e.off_x + row_y[i] * e.off_y)
        for k in range(i + 1):
            camera.information[i, k] += w * (row_x[i] * row_x[k] + row_y[i] * row_y[k])
    camera.weight_s += w
    camera.squares_m2_s += w * (e.off_x * e.off_x + e.off_y * e.off_y)


@njit(cache=True, nogil=True)
def learn(evidence, n_people, step_s, again_s, model, cameras):
    """Fold evidence (n_people, n_views) into the cameras' clocks and into the normal equations of their faults.

    Faults: least squares for the seven ways in which a camera can be wrong, over the last memory_s seconds in which
    people were compared.
    """
    row_x, row_y = np.empty(N_FAULTS), np.empty(N_FAULTS)
    _forget(cameras, evidence, n_people, np.exp(-step_s / model.memory_s))
    for person in range(n_people):
        _learn_clocks(evidence[person], again_s, model, cameras)
        for v in range(cameras.shape[0]):
            if evidence[person, v].known:
                _learn_fault(cameras[v], evidence[person, v], step_s, model.outlier_m, row_x, row_y)


@njit(cache=True, nogil=True)
def _solve_fault(camera, model, factor, half):
    """Most probable faults of one camera by Cholesky's factor, and the residual that a turn or shift explains."""
    prior = model.fault_prior
    camera.residual_m = 0.0
    for i in range(N_FAULTS):
        camera.fault[i] = 0.0
    if camera.weight_s <= 0.0:
        return
    # The prior keeps every pivot positive.
    for i in range(N_FAULTS):
        for k in range(i + 1):
            value = camera.information[i, k] + (prior[i] if i == k else 0.0)
            for q in range(k):
                value -= factor[i, q] * factor[k, q]
            factor[i, k] = np.sqrt(value) if i == k else value / factor[k, k]
    explained = 0.0
    for i in range(N_FAULTS):
        value = camera.rhs[i]
        for q in range(i):
            value -= factor[i, q] * half[q]
        half[i] = value / factor[i, i]
        explained += half[i] * half[i]
    for turned in range(N_FAULTS):
        i = N_FAULTS - 1 - turned
        value = half[i]
        for q in range(i + 1, N_FAULTS):
            value -= factor[q, i] * camera.fault[q]
        camera.fault[i] = value / factor[i, i]
    explained -= camera.rhs[LATE] ** 2 / (camera.information[LATE, LATE] + prior[LATE])
    camera.residual_m = np.sqrt(max(explained, 0.0) / camera.weight_s)
    if camera.trust > 0.0:
        # A camera that looks wrong loses weight at once; else every camera looks wrong that sees the same people.
        doubt_m = max(model.doubt_m, model.doubt_over_usual * camera.usual_m)
        camera.trust = max(TRUST_MIN, 1.0 / (1.0 + (camera.residual_m / doubt_m) ** 2))


@njit(cache=True, nogil=True)
def _learn_usual(model, cameras):
    """Root mean square difference of the median camera, usual_m, which is the same for all.

    A camera that is not set aside and has little data counts with usual_prior_m. A rig's differences come from its
    detector's noise, its lenses and its calibration together: only what is large against them is one camera's fault.
    """
    squares = np.empty(cameras.shape[0])
    n = 0
    for v in range(cameras.shape[0]):
        camera = cameras[v]
        if camera.trust > 0.0:
            prior = model.usual_prior_s * model.usual_prior_m * model.usual_prior_m
            squares[n] = (camera.squares_m2_s + prior) / (camera.weight_s + model.usual_prior_s)
            n += 1
    usual_m = np.sqrt(np.sort(squares[:n])[(n - 1) // 2]) if n else model.usual_prior_m
    for v in range(cameras.shape[0]):
        cameras[v].usual_m = usual_m


@njit(cache=True, nogil=True)
def explain(first, model, cameras):
    """Solve for the faults of judged_per_set cameras in turn from `first`.

    A camera's residual is the root mean square, metres at the body, of what a turned or shifted camera explains and a
    late clock does not. Its trust, unless it is 0, halves at a residual of doubt_m, or of doubt_over_usual times what
    is usual in the rig if that is more. Returns whether the verdict on any camera may have to change (more than
    data_min_s of data, and a residual above the limit for "moved" though trusted, or below that for "fits" though set
    aside), and whether any camera's residual exceeds the first limit.
    """
    n_views = cameras.shape[0]
    if first < model.judged_per_set:
        _learn_usual(model, cameras)
    factor = np.empty((N_FAULTS, N_FAULTS))
    half = np.empty(N_FAULTS)
    for turn in range(min(model.judged_per_set, n_views)):
        _solve_fault(cameras[(first + turn) % n_views], model, factor, half)
    judge = False
    doubt = False
    for v in range(n_views):
        camera = cameras[v]
        doubt |= camera.residual_m > max(model.doubt_m, model.doubt_over_usual * camera.usual_m)
        if camera.weight_s > model.data_min_s:
            if camera.trust > 0.0:
                judge |= camera.residual_m > max(model.moved_m, model.moved_over_usual * camera.usual_m)
            else:
                judge |= camera.residual_m < max(model.fits_m, model.fits_over_usual * camera.usual_m)
    return judge, doubt


# ---- misses ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def count_misses(
    geometry, detections, states, matches, outlook, model, track, again_s, cameras,
):  # fmt: skip
    """Count the cameras that look at one track, and those of them that did not find it.

    A look counts where two other cameras found the track (the only other one where the site has two), so that a
    camera's misses do not decide whether they are counted. Those at a person in plain view fade over looks_memory
    looks; those in each circumstance over misses_memory independent looks, of which the same person gives one in
    misses_lasting_s; again_s: time after which this person is looked at again. Returns whether any camera's recent
    miss rate is above misses_max, or below misses_fine though it is judged to miss people.
    """
    n_views = matches.detection_of.shape[1]
    seen, who = np.empty((1, n_views), np.int8), np.full(1, track)
    circumstances_in(states, who, geometry, detections.has_frame, outlook, seen)
    n_live = 0
    n_found = 0
    for v in range(n_views):
        n_live += detections.has_frame[v]
        n_found += matches.detection_of[track, v] >= 0
    weight = min(again_s / model.misses_lasting_s, 1.0)
    change = False
    for v in range(n_views):
        camera = cameras[v]
        missed = matches.detection_of[track, v] < 0
        if seen[0, v] >= 0 and n_found - (not missed) >= min(2, n_live - 1):
            if missed and states.n_joints == 2:
                # A box whose feet are hidden may fit no track; the person in it is not missed.
                for d in range(detections.start[v], detections.start[v + 1]):
                    if matches.track_of[d] < 0:
                        missed = False
                        break
            kept = 1.0 - weight / model.misses_memory
            c = seen[0, v]
            camera.looks_in[c] = camera.looks_in[c] * kept + weight
            camera.misses_in[c] = camera.misses_in[c] * kept + weight * missed
            if c < PARTLY:
                kept = 1.0 - 1.0 / model.looks_memory
                camera.looks = camera.looks * kept + 1.0
                camera.misses = camera.misses * kept + missed
        rate = camera.misses / max(camera.looks, 1.0)
        if rate < model.misses_fine if camera.missing else rate > model.misses_max:
            change = True
    return change


# ---- a whole set -----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def observe(
    sight, detections, states, matches, models, first_track, first_camera, velocity_scale, step_s, cameras, people,
    evidence,
):  # fmt: skip
    """Learn from one set of frames, in one call: a call costs more than some of the steps.

    sight: CameraGeometry and Outlook; these, Detections, States and Matches are plain tuples, whose type Numba
    recognises in half the time of a named tuple's: 5 microseconds in a call of 20. models (1,) of MODEL; first_track,
    first_camera: whose turn it is; cameras (n_views,) of CAMERA; people, evidence: see leave_one_out. Returns
    JUDGE_CALIBRATION, JUDGE_MISSES and DOUBT bits.
    """
    return _observe(
        (CameraGeometry(*sight[0]), Outlook(*sight[1])), Detections(*detections), States(*states), Matches(*matches),
        models[0], first_track, first_camera, velocity_scale, step_s, cameras, people, evidence,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _observe(
    sight, detections, states, matches, model, first_track, first_camera, velocity_scale, step_s, cameras, people,
    evidence,
):  # fmt: skip
    geometry, outlook = sight
    n_people = leave_one_out(
        geometry, detections, states, matches, model, first_track, velocity_scale, cameras, people, evidence
    )
    if n_people == 0:
        return 0
    n_views = cameras.shape[0]
    weight = 0.0
    mean_s = 0.0
    for v in range(n_views):
        camera = cameras[v]
        camera.offset_var = min(camera.offset_var + model.wander_s2_per_s * step_s, model.offset_var_max)
        weight += 1.0 / camera.offset_var
        mean_s += camera.offset_s / camera.offset_var
    for v in range(n_views):
        cameras[v].offset_s -= step_s / model.pull_s * mean_s / weight
    n_known = 0
    for row in states.rows:
        n_known += states.confirmed[row]
    again_s = step_s * n_known / n_people
    learn(evidence, n_people, step_s, again_s, model, cameras)
    judge, doubt = explain(first_camera, model, cameras)
    missed = count_misses(
        geometry, detections, states, matches, outlook, model, people[0], step_s * n_known, cameras
    )
    return judge * JUDGE_CALIBRATION + missed * JUDGE_MISSES + doubt * DOUBT


def warm_up() -> None:
    """Call the kernels once on tiny inputs: a first call loads or compiles them and takes up to a second."""
    p = 8
    none, index, flag = np.zeros((0, p), np.float32), np.zeros(0, np.int64), np.zeros(1, np.bool_)
    geometry = CameraGeometry(np.zeros((1, 3, 4)), np.zeros((1, 4)), np.zeros((1, 2)), np.zeros((0, 5)))
    detections = Detections(np.zeros(1), flag, np.zeros(2, np.int64), index, none, none, none, none)
    states = States(np.zeros((1, 6, p)), np.zeros((1, 21, p)), index, flag, 1)
    matches = Matches(index, np.zeros((0, 1), np.int64))
    observe(
        (tuple(geometry), (1.0,) * 10), tuple(detections), tuple(states), tuple(matches), np.ones(1, MODEL), 0, 0, 1.0,
        1.0, np.zeros(1, CAMERA), np.zeros(1, np.int64), np.zeros((1, 1), EVIDENCE),
    )  # fmt: skip
