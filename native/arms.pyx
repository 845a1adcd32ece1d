# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The arms kernel: a fixed-lag smoother of wrists and elbows over what the tracker reported.

The tracker reports filtered places: each is made of everything seen until then. To take them for measurements would
count one image many times. But a Kalman filter's places and variances, with its motion model, also determine its
velocities, and these are all that the backward pass of a smoother needs.
C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised, GIL released.
"""

from libc.math cimport NAN, exp, fmax, fmin, isnan, sqrt

# Entries of the model; `fusion/people/arms.py` documents them.
cdef enum:
    WRIST_ACCELERATION, ELBOW_ACCELERATION, DECAY_S, SPEED_VAR, LASTING_SHARE, LASTING_MAX, CORRECTED_SHARE
    CORRECTED_MIN, SD_MAX_M

# Columns of the scratch: filtered place, velocity, and their covariance along any direction; the covariance predicted
# from the row before; the share of velocity kept since then and the distance that one unit of velocity covered; the
# smoothed variance.
cdef enum:
    X, V = 3, PP = 6, PV, VV, A, B, C, KEPT, COVERED, SMOOTHED, N_COLUMNS

ARM_COLUMNS = N_COLUMNS
cdef enum:
    TRACKS_MAX = 64


cdef int _filter(
    const double[:, :, :, ::1] arms_m, const double[:, :, ::1] sd_m, const long long[::1] t_ns, const int* member, int n,
    int side, int joint, double q, const double* m, double[:, ::1] work
) noexcept nogil:
    """Recompose the tracker's filter of one joint. Returns the first member at which the joint is known, or n.

    The place x and its variance are those reported. The filter corrected place and velocity together, so from the
    predicted covariance [[a, b], [b, c]] follows  v = v_predicted + b / a (x - x_predicted).
    """
    cdef int start = 0, i, k, row
    cdef double dt, a, b, c, kept, covered, post, gain, less
    cdef double* s
    cdef double* p
    while start < n and isnan(arms_m[member[start], side, joint, 0]):
        start += 1
    if start == n:
        return n
    s = &work[start, 0]
    row = member[start]
    i = member[min(start + 3, n - 1)]
    dt = (t_ns[i] - t_ns[row]) * 1e-9
    for k in range(3):
        s[X + k] = arms_m[row, side, joint, k]
        s[V + k] = (arms_m[i, side, joint, k] - s[X + k]) / dt if dt > 0.0 else 0.0
        if isnan(s[V + k]):
            s[V + k] = 0.0
    s[PP] = sd_m[row, side, joint] * sd_m[row, side, joint]
    s[PV] = 0.0
    s[VV] = m[SPEED_VAR]
    for i in range(start + 1, n):
        p = s
        s = &work[i, 0]
        row = member[i]
        dt = (t_ns[row] - t_ns[member[i - 1]]) * 1e-9
        kept = s[KEPT]
        covered = s[COVERED]
        a = p[PP] + 2.0 * covered * p[PV] + covered * covered * p[VV] + q * dt * dt * dt / 3.0
        b = kept * (p[PV] + covered * p[VV]) + q * dt * dt / 2.0
        c = kept * kept * p[VV] + q * dt
        s[A] = a
        s[B] = b
        s[C] = c
        if isnan(arms_m[row, side, joint, 0]):
            for k in range(3):
                s[X + k] = p[X + k] + covered * p[V + k]
                s[V + k] = kept * p[V + k]
            s[PP] = a
            s[PV] = b
            s[VV] = c
            continue
        post = sd_m[row, side, joint] * sd_m[row, side, joint]
        gain = b / a
        less = fmax(a - post, 0.0)
        for k in range(3):
            s[X + k] = arms_m[row, side, joint, k]
            s[V + k] = kept * p[V + k] + gain * (s[X + k] - p[X + k] - covered * p[V + k])
        s[PP] = post
        s[PV] = b - gain * less
        s[VV] = c - gain * gain * less
    return start


cdef void _smooth(
    const double[:, :, :, ::1] arms_m, const int* member, int n, int start, int side, int joint, int first, int after,
    const double* m, double[:, ::1] work, double[:, :, :, ::1] smoothed_m, double[:, :, ::1] smoothed_sd_m
) noexcept nogil:
    """The backward pass (Rauch, Tung, Striebel 1965) from the newest member to row `first`, and honest deviations."""
    cdef int i, k, row, n_known = 0
    cdef double xs[3]
    cdef double vs[3]
    cdef double pp, pv, vv, da, db, dc, det, y0, y1, g00, g01, g10, g11, dx, dv
    cdef double information = 0.0, corrected = 0.0, expected = 0.0, lasting, scale, variance
    cdef double* s
    cdef double* f
    s = &work[n - 1, 0]
    for k in range(3):
        xs[k] = s[X + k]
        vs[k] = s[V + k]
    pp = s[PP]
    pv = s[PV]
    vv = s[VV]
    for i in range(n - 1, start - 1, -1):
        row = member[i]
        if row < first:
            break
        s = &work[i, 0]
        if i < n - 1:
            # Gain P F^T [[a, b], [b, c]]^-1 of the row after, f.
            f = &work[i + 1, 0]
            det = 1.0 / fmax(f[A] * f[C] - f[B] * f[B], 1e-18)
            y0 = s[PP] + f[COVERED] * s[PV]
            y1 = f[KEPT] * s[PV]
            g00 = (y0 * f[C] - y1 * f[B]) * det
            g01 = (y1 * f[A] - y0 * f[B]) * det
            y0 = s[PV] + f[COVERED] * s[VV]
            y1 = f[KEPT] * s[VV]
            g10 = (y0 * f[C] - y1 * f[B]) * det
            g11 = (y1 * f[A] - y0 * f[B]) * det
            for k in range(3):
                dx = xs[k] - s[X + k] - f[COVERED] * s[V + k]
                dv = vs[k] - f[KEPT] * s[V + k]
                xs[k] = s[X + k] + g00 * dx + g01 * dv
                vs[k] = s[V + k] + g10 * dx + g11 * dv
            da = pp - f[A]
            db = pv - f[B]
            dc = vv - f[C]
            pp = s[PP] + g00 * g00 * da + 2.0 * g00 * g01 * db + g01 * g01 * dc
            pv = s[PV] + g00 * g10 * da + (g00 * g11 + g01 * g10) * db + g01 * g11 * dc
            vv = s[VV] + g10 * g10 * da + 2.0 * g10 * g11 * db + g11 * g11 * dc
        if row >= after:
            continue
        s[SMOOTHED] = pp
        for k in range(3):
            smoothed_m[row - first, side, joint, k] = xs[k]
        if i > start and not isnan(arms_m[row, side, joint, 0]):
            n_known += 1
            information += fmax(s[A] - s[PP], 0.0) / (s[A] * s[PP])
            expected += 3.0 * fmax(s[PP] - pp, 0.0)
            for k in range(3):
                corrected += (xs[k] - s[X + k]) * (xs[k] - s[X + k])
    scale = m[CORRECTED_SHARE] * (fmax(corrected / expected, m[CORRECTED_MIN]) if expected > 0.0 else 1.0)
    lasting = n_known / information if information > 0.0 else 1.0
    for i in range(start, n):
        row = member[i]
        if row < first or row >= after:
            continue
        variance = work[i, SMOOTHED]
        variance = scale * variance + m[LASTING_SHARE] * fmin(lasting, m[LASTING_MAX] * variance)
        smoothed_sd_m[row - first, side, joint] = sqrt(variance)
        if not variance <= m[SD_MAX_M] * m[SD_MAX_M]:
            smoothed_sd_m[row - first, side, joint] = NAN
            for k in range(3):
                smoothed_m[row - first, side, joint, k] = NAN


cdef inline bint _is_near(
    const double[:, ::1] position_m, int row, double x, double y, double reach_m
) noexcept nogil:
    cdef double dx = position_m[row, 0] - x, dy = position_m[row, 1] - y
    return dx * dx + dy * dy < reach_m * reach_m


def smooth(
    const long long[::1] t_ns not None,
    const long long[::1] track not None,
    const double[:, ::1] position_m not None,
    const double[:, :, :, ::1] arms_m not None,
    const double[:, :, ::1] sd_m not None,
    int first,
    int after,
    double x,
    double y,
    double reach_m,
    const double[::1] model not None,
    double[:, :, :, ::1] smoothed_m not None,
    double[:, :, ::1] smoothed_sd_m not None,
    int[::1] members not None,
    double[:, ::1] work not None,
):
    """Smooth the wrists and elbows of everyone who was near a place.

    t_ns, track (n,): rows of the arm history, in time order. position_m (n, 2); arms_m (n, 2, 3, 3): wrist, elbow and
    shoulder of both arms, NaN where unknown, with deviations sd_m (n, 2, 3).
    first, after: the rows that are wanted, the others are what was before and after. People who came within reach_m
    of (x, y) at one of them are smoothed. model: constants, see the enum.
    smoothed_m (after - first, 2, 3, 3), smoothed_sd_m (after - first, 2, 3): the wanted rows as recorded; out: with
    smoothed wrists and elbows. members (n,), work (n, ARM_COLUMNS): scratch.
    """
    cdef int n = t_ns.shape[0], n_done = 0, n_members, i, row, k, side, joint, start
    cdef double dt
    cdef long long done[TRACKS_MAX]
    cdef const double* m = &model[0]
    with nogil:
        for row in range(first, after):
            if not _is_near(position_m, row, x, y, reach_m):
                continue
            k = 0
            while k < n_done and done[k] != track[row]:
                k += 1
            if k < n_done or n_done == TRACKS_MAX:
                continue
            done[n_done] = track[row]
            n_done += 1
            n_members = 0
            for i in range(n):
                if track[i] != track[row]:
                    continue
                members[n_members] = i
                if n_members:
                    dt = (t_ns[i] - t_ns[members[n_members - 1]]) * 1e-9
                    work[n_members, KEPT] = exp(-dt / m[DECAY_S])
                    work[n_members, COVERED] = m[DECAY_S] * (1.0 - work[n_members, KEPT])
                n_members += 1
            for side in range(2):
                for joint in range(2):
                    start = _filter(
                        arms_m, sd_m, t_ns, &members[0], n_members, side, joint, m[WRIST_ACCELERATION + joint], m, work
                    )
                    if start < n_members:
                        _smooth(
                            arms_m, &members[0], n_members, start, side, joint, first, after, m, work, smoothed_m,
                            smoothed_sd_m,
                        )
