# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The arms kernels: the history of what the tracker reported, and a fixed-lag smoother of its wrists and elbows.

The tracker reports filtered places: each is made of everything seen until then. To take them for measurements would
count one image many times. But a Kalman filter's places and variances, with its motion model, also determine its
velocities, and these are all that the backward pass of a smoother needs.
C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised, GIL released.
"""

from libc.math cimport NAN, exp, isnan, sqrt
from libc.stdlib cimport free, malloc

include "arrays.pxi"
include "numbers.pxi"

# Entries of the model; `fusion/people/arms.py` documents them.
cdef enum:
    WRIST_ACCELERATION, ELBOW_ACCELERATION, DECAY_S, SPEED_VAR, LASTING_SHARE, LASTING_MAX, CORRECTED_SHARE
    CORRECTED_MIN, SD_MAX_M

# The joints that are smoothed: the left wrist and elbow, then the right ones. Each has a filter of its own; they run
# side by side, since the steps of one depend on each other. Rows of the history hold three joints of two arms.
cdef enum:
    LANES = 4, ROW_M = 18, ROW_SD = 6

# Columns of the scratch, of every joint: filtered place and velocity, and their covariance along any direction; the
# covariance predicted from the row before; the smoothed variance. And of all: the share of velocity kept since the row
# before, and the distance that one unit of velocity covered.
cdef enum:
    X, V = 12, PP = 24, PV = 28, VV = 32, A = 36, B = 40, C = 44, SMOOTHED = 48, KEPT = 52, COVERED, N_COLUMNS

cdef enum:
    TRACKS_MAX = 64


cdef inline int _place(int lane, int k) noexcept nogil:
    """Where a joint's coordinate is in a row of the arms."""
    return lane // 2 * 9 + lane % 2 * 3 + k


cdef inline int _sd(int lane) noexcept nogil:
    """Where a joint's deviation is in a row of the deviations."""
    return lane // 2 * 3 + lane % 2


cdef void _begin(
    const double* arms_m, const double* sd_m, const long long* t_ns, const int* member, int n, int start, int lane,
    const double* m, double* s
) noexcept nogil:
    """The state of a joint at the first member that knows it; its velocity as seen up to the third one after."""
    cdef int row = member[start], later = member[start + 3 if start + 3 < n else n - 1], k
    cdef double dt = (t_ns[later] - t_ns[row]) * 1e-9, sd = sd_m[row * ROW_SD + _sd(lane)]
    for k in range(3):
        s[X + LANES * k + lane] = arms_m[row * ROW_M + _place(lane, k)]
        s[V + LANES * k + lane] = 0.0
        if dt > 0.0 and not isnan(arms_m[later * ROW_M + _place(lane, k)]):
            s[V + LANES * k + lane] = (arms_m[later * ROW_M + _place(lane, k)] - s[X + LANES * k + lane]) / dt
    s[PP + lane], s[PV + lane], s[VV + lane] = sd * sd, 0.0, m[SPEED_VAR]


cdef void _filter(
    const double* arms_m, const double* sd_m, const long long* t_ns, const int* member, int n, const double* m,
    double* work, int* start
) noexcept nogil:
    """Recompose the tracker's filters. start (LANES,): out, the first member at which a joint is known, or n.

    The place x and its variance are those reported. The filter corrected place and velocity together, so from the
    predicted covariance [[a, b], [b, c]] follows  v = v_predicted + b / a (x - x_predicted).
    """
    cdef int i, k, lane, at_k
    cdef double dt, kept, covered, gain, less
    cdef double a[LANES]
    cdef double b[LANES]
    cdef double c[LANES]
    cdef double post[LANES]
    cdef double seen[LANES]
    cdef double q[LANES]
    cdef double place[3 * LANES]
    cdef const double* at
    cdef double* s = work
    cdef double* p
    for lane in range(LANES):
        q[lane] = m[WRIST_ACCELERATION + lane % 2]
        start[lane] = 0
        while start[lane] < n and isnan(arms_m[member[start[lane]] * ROW_M + _place(lane, 0)]):
            start[lane] += 1
        # Until then the numbers mean nothing.
        for k in range(3):
            s[X + LANES * k + lane] = s[V + LANES * k + lane] = 0.0
        s[PP + lane], s[PV + lane], s[VV + lane] = 1.0, 0.0, m[SPEED_VAR]
        if start[lane] == 0:
            _begin(arms_m, sd_m, t_ns, member, n, 0, lane, m, s)
    for i in range(1, n):
        p = s
        s = work + i * N_COLUMNS
        dt = (t_ns[member[i]] - t_ns[member[i - 1]]) * 1e-9
        kept, covered = s[KEPT], s[COVERED]
        at = arms_m + member[i] * ROW_M
        for lane in range(LANES):
            a[lane] = p[PP + lane] + 2.0 * covered * p[PV + lane] + covered * covered * p[VV + lane]
            a[lane] += q[lane] * dt * dt * dt / 3.0
            b[lane] = kept * (p[PV + lane] + covered * p[VV + lane]) + q[lane] * dt * dt / 2.0
            c[lane] = kept * kept * p[VV + lane] + q[lane] * dt
            post[lane] = sd_m[member[i] * ROW_SD + _sd(lane)]
            post[lane] *= post[lane]
            for k in range(3):
                place[LANES * k + lane] = at[_place(lane, k)]
            seen[lane] = 1.0
            if isnan(place[lane]):
                seen[lane], post[lane] = 0.0, a[lane]
                for k in range(3):
                    place[LANES * k + lane] = p[X + LANES * k + lane] + covered * p[V + LANES * k + lane]
        for lane in range(LANES):
            gain = seen[lane] * b[lane] / a[lane]
            less = fmax(a[lane] - post[lane], 0.0)
            for k in range(3):
                at_k = LANES * k + lane
                s[X + at_k] = place[at_k]
                s[V + at_k] = kept * p[V + at_k] + gain * (place[at_k] - p[X + at_k] - covered * p[V + at_k])
            s[A + lane], s[B + lane], s[C + lane] = a[lane], b[lane], c[lane]
            s[PP + lane] = post[lane]
            s[PV + lane] = b[lane] - gain * less
            s[VV + lane] = c[lane] - gain * gain * less
        for lane in range(LANES):
            if start[lane] == i:
                _begin(arms_m, sd_m, t_ns, member, n, i, lane, m, s)


cdef void _smooth(
    const double* arms_m, const int* member, int n, const int* start, int first, int after, const double* m,
    double* work, double* smoothed_m, double* smoothed_sd_m
) noexcept nogil:
    """The backward pass (Rauch, Tung, Striebel 1965) from the newest member to row `first`, and honest deviations."""
    cdef int i, k, lane, row, at_k
    cdef double xs[3 * LANES]
    cdef double vs[3 * LANES]
    cdef double pp[LANES]
    cdef double pv[LANES]
    cdef double vv[LANES]
    cdef double information[LANES]
    cdef double corrected[LANES]
    cdef double expected[LANES]
    cdef double n_known[LANES]
    cdef double da, db, dc, det, y0, y1, g00, g01, g10, g11, dx, dv, kept, covered
    cdef double* s = work + (n - 1) * N_COLUMNS
    cdef double* f
    cdef double* out
    for k in range(3 * LANES):
        xs[k], vs[k] = s[X + k], s[V + k]
    for lane in range(LANES):
        pp[lane], pv[lane], vv[lane] = s[PP + lane], s[PV + lane], s[VV + lane]
        information[lane] = corrected[lane] = expected[lane] = n_known[lane] = 0.0
    for i in range(n - 1, -1, -1):
        row = member[i]
        if row < first:
            break
        s = work + i * N_COLUMNS
        if i < n - 1:
            # Gain P F^T [[a, b], [b, c]]^-1 of the row after, f.
            f = s + N_COLUMNS
            kept, covered = f[KEPT], f[COVERED]
            for lane in range(LANES):
                det = 1.0 / fmax(f[A + lane] * f[C + lane] - f[B + lane] * f[B + lane], 1e-18)
                y0 = s[PP + lane] + covered * s[PV + lane]
                y1 = kept * s[PV + lane]
                g00 = (y0 * f[C + lane] - y1 * f[B + lane]) * det
                g01 = (y1 * f[A + lane] - y0 * f[B + lane]) * det
                y0 = s[PV + lane] + covered * s[VV + lane]
                y1 = kept * s[VV + lane]
                g10 = (y0 * f[C + lane] - y1 * f[B + lane]) * det
                g11 = (y1 * f[A + lane] - y0 * f[B + lane]) * det
                for k in range(3):
                    at_k = LANES * k + lane
                    dx = xs[at_k] - s[X + at_k] - covered * s[V + at_k]
                    dv = vs[at_k] - kept * s[V + at_k]
                    xs[at_k] = s[X + at_k] + g00 * dx + g01 * dv
                    vs[at_k] = s[V + at_k] + g10 * dx + g11 * dv
                da = pp[lane] - f[A + lane]
                db = pv[lane] - f[B + lane]
                dc = vv[lane] - f[C + lane]
                pp[lane] = s[PP + lane] + g00 * g00 * da + 2.0 * g00 * g01 * db + g01 * g01 * dc
                pv[lane] = s[PV + lane] + g00 * g10 * da + (g00 * g11 + g01 * g10) * db + g01 * g11 * dc
                vv[lane] = s[VV + lane] + g10 * g10 * da + 2.0 * g10 * g11 * db + g11 * g11 * dc
        if row >= after:
            continue
        out = smoothed_m + (row - first) * ROW_M
        for lane in range(LANES):
            if i < start[lane]:
                continue
            s[SMOOTHED + lane] = pp[lane]
            for k in range(3):
                out[_place(lane, k)] = xs[LANES * k + lane]
            if i > start[lane] and not isnan(arms_m[row * ROW_M + _place(lane, 0)]):
                n_known[lane] += 1.0
                information[lane] += fmax(s[A + lane] - s[PP + lane], 0.0) / (s[A + lane] * s[PP + lane])
                expected[lane] += 3.0 * fmax(s[PP + lane] - pp[lane], 0.0)
                for k in range(3):
                    dx = xs[LANES * k + lane] - s[X + LANES * k + lane]
                    corrected[lane] += dx * dx
    for lane in range(LANES):
        det = m[CORRECTED_SHARE]
        if expected[lane] > 0.0:
            det *= fmax(corrected[lane] / expected[lane], m[CORRECTED_MIN])
        dx = n_known[lane] / information[lane] if information[lane] > 0.0 else 1.0
        for i in range(start[lane], n):
            row = member[i]
            if row < first or row >= after:
                continue
            pp[lane] = work[i * N_COLUMNS + SMOOTHED + lane]
            pp[lane] = det * pp[lane] + m[LASTING_SHARE] * fmin(dx, m[LASTING_MAX] * pp[lane])
            smoothed_sd_m[(row - first) * ROW_SD + _sd(lane)] = sqrt(pp[lane])
            if not pp[lane] <= m[SD_MAX_M] * m[SD_MAX_M]:
                smoothed_sd_m[(row - first) * ROW_SD + _sd(lane)] = NAN
                for k in range(3):
                    smoothed_m[(row - first) * ROW_M + _place(lane, k)] = NAN


def record(
    person, confirmed_now, place_m, joints_m, joints_sd_m, joints, int n, int first, long long now_ns,
    t_ns, track, confirmed, position_m, arms_m, sd_m,
):
    """Write the people of an instant into rows first to first + n of the history; see `smooth` for its columns.

    person (m,), confirmed_now (m,), place_m (m, 2), joints_m (m, n_joints, 3), joints_sd_m (m, n_joints): of m >= n
    people. joints (2, 3): of both arms, or (0, 3) where the layout has none; then their columns stay as they are.
    """
    cdef const long long* person_from = _longs(person)
    cdef const char* confirmed_from = _bytes(confirmed_now)
    cdef const double* place_from = _doubles(place_m)
    cdef const double* joints_from = _doubles(joints_m)
    cdef const double* sd_from = _doubles(joints_sd_m)
    cdef const long long* joint = _longs(joints)
    cdef long long* t = _longs(t_ns) + first
    cdef long long* of = _longs(track) + first
    cdef char* confirmed_to = _bytes(confirmed) + first
    cdef double* place = _doubles(position_m) + 2 * first
    cdef double* arms = _doubles(arms_m) + ROW_M * first
    cdef double* sd = _doubles(sd_m) + ROW_SD * first
    cdef Py_ssize_t n_joints = cnp.PyArray_DIM(joints_m, 1), at
    cdef int n_arms = _length(joints), i, k
    with nogil:
        for i in range(n):
            t[i], of[i], confirmed_to[i] = now_ns, person_from[i], confirmed_from[i]
            place[2 * i], place[2 * i + 1] = place_from[2 * i], place_from[2 * i + 1]
            for k in range(3 * n_arms):
                at = i * n_joints + joint[k]
                sd[ROW_SD * i + k] = sd_from[at]
                arms[ROW_M * i + 3 * k] = joints_from[3 * at]
                arms[ROW_M * i + 3 * k + 1] = joints_from[3 * at + 1]
                arms[ROW_M * i + 3 * k + 2] = joints_from[3 * at + 2]


def smooth(
    t_ns, track, position_m, arms_m, sd_m, int n, int first, int after, long long over_ns, double x, double y,
    double reach_m, model, smoothed_m, smoothed_sd_m,
):
    """Smooth the wrists and elbows of everyone who was near a place.

    t_ns, track (capacity,): the first n rows are those of the arm history, in time order. position_m (capacity, 2);
    arms_m (capacity, 2, 3, 3): wrist, elbow and shoulder of both arms, NaN where unknown, with deviations sd_m
    (capacity, 2, 3).
    first, after: the rows that are wanted, at least one; what was within over_ns before and after counts as well.
    People who came within reach_m of (x, y) at one of them are smoothed. model: constants, see the enum.
    smoothed_m (after - first, 2, 3, 3), smoothed_sd_m (after - first, 2, 3): the wanted rows as recorded; out: with
    smoothed wrists and elbows.
    """
    cdef const long long* t = _longs(t_ns)
    cdef const long long* of = _longs(track)
    cdef const double* place = _doubles(position_m)
    cdef const double* arms = _doubles(arms_m)
    cdef const double* sd = _doubles(sd_m)
    cdef const double* m = _doubles(model)
    cdef double* arms_out = _doubles(smoothed_m)
    cdef double* sd_out = _doubles(smoothed_sd_m)
    cdef double* work = NULL
    cdef int* member = NULL
    cdef int instants = 1, begin = first, end = after, n_done = 0, n_members, i, row, k
    cdef int start[LANES]
    cdef double dt, before_s = -1.0, kept = 1.0
    cdef long long done[TRACKS_MAX]
    with nogil:
        while begin > 0 and t[begin - 1] >= t[first] - over_ns:
            begin -= 1
        while end < n and t[end] <= t[after - 1] + over_ns:
            end += 1
        for i in range(begin + 1, end):
            instants += t[i] != t[i - 1]
        # A person has one row an instant. A silence may be long, so the stack is no place for this.
        work = <double*>malloc(instants * (N_COLUMNS * sizeof(double) + sizeof(int)))
    if work == NULL:
        raise MemoryError
    member = <int*>(work + instants * N_COLUMNS)
    with nogil:
        for row in range(first, after):
            dt = (place[2 * row] - x) * (place[2 * row] - x) + (place[2 * row + 1] - y) * (place[2 * row + 1] - y)
            if not dt < reach_m * reach_m:
                continue
            k = 0
            while k < n_done and done[k] != of[row]:
                k += 1
            if k < n_done or n_done == TRACKS_MAX:
                continue
            done[n_done] = of[row]
            n_done += 1
            n_members = 0
            for i in range(begin, end):
                if of[i] != of[row] or n_members == instants:
                    continue
                member[n_members] = i
                if n_members:
                    dt = (t[i] - t[member[n_members - 1]]) * 1e-9
                    if dt != before_s:
                        before_s, kept = dt, exp(-dt / m[DECAY_S])
                    work[n_members * N_COLUMNS + KEPT] = kept
                    work[n_members * N_COLUMNS + COVERED] = m[DECAY_S] * (1.0 - kept)
                n_members += 1
            _filter(arms, sd, t, member, n_members, m, work, start)
            _smooth(arms, member, n_members, start, first, after, m, work, arms_out, sd_out)
        free(work)
