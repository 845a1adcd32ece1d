# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The likelihood of hands: how much likelier arms and places are if a person moved a load than if they did not.

C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised, GIL released.
"""

from libc.math cimport exp, fabs, fmax, fmin, isnan, log, sqrt

# Entries of the model of hands and bodies that `hand_ratios` takes; `fusion/goods/hands.py` documents them.
cdef enum:
    CONTACT_SHIFT_S, CONTACT_SD_S, COVER_MIN, HAND_BEYOND_M, HAND_ERROR_M
    ALONG_SD_WIDTHS, ACROSS_M, ACROSS_SD_M, HEIGHT_M, HEIGHT_SD_M, TAIL_WEIGHT, TAIL_WIDTH
    AWAY_DENSITY, SHELF_DENSITY, STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL
    ELBOW_RATIO, ELBOW_REACH_M, SHOULDER_RATIO, SHOULDER_REACH_M, REACH_SD_M
    BODY_M, BODY_SLACK_M, BODY_SD_M, BODY_ALONG_SD_M, ELSEWHERE_RATIO, NEAR_M, TENTATIVE_RATIO
    LEAN_IN_M, LEAN_IN_SD_M

# Sums over instants, one row per hand: the weights of all instants, the greatest weight of an instant that saw the
# hand, the weights by precision; place, its variance and the hand's distance from the body, each weighted by precision;
# the ratio that stands in for an unseen hand; with an unknown instant the ratios of all instants. Two columns belong to
# the person and are kept in the row of the left hand: whether the track was confirmed, and the body's distance from the
# load.
cdef enum:
    TOTAL, COVER, PRECISION, X, Y, Z, VARIANCE, STRETCH, UNSEEN, RATIO, CONFIRMED, AWAY, N_COLUMNS

HAND_COLUMNS = N_COLUMNS


cdef inline double _within(double distance, double reach, double sd) noexcept nogil:
    cdef double beyond = fmax(distance - reach, 0.0) / sd
    return exp(-0.5 * beyond * beyond)


cdef double _place_ratio(
    double x, double y, double z, double variance, double width, double depth, double above, const double* m
) noexcept nogil:
    """Density of a hand's place if it moved the load, over its density if it did not.

    x, y, z: place in the plates' axes about the load, with its variance; width, depth: of the plate; above: clearance.
    """
    cdef double along_sd = sqrt(m[ALONG_SD_WIDTHS] * m[ALONG_SD_WIDTHS] * width * width + variance)
    cdef double across_sd = sqrt(m[ACROSS_SD_M] * m[ACROSS_SD_M] + variance)
    cdef double height_sd = sqrt(m[HEIGHT_SD_M] * m[HEIGHT_SD_M] + variance)
    cdef double along = x / along_sd
    cdef double across = (y + 0.5 * depth - m[ACROSS_M]) / across_sd
    cdef double height = (z - fmin(m[HEIGHT_M], 0.6 * above)) / height_sd
    cdef double tail = m[TAIL_WIDTH]
    cdef double at_shelf = exp(-0.5 * (across * across + height * height)) / (across_sd * height_sd)
    cdef double far = exp(-0.5 * (along * along + across * across + height * height) / (tail * tail))
    cdef double acts = (1.0 - m[TAIL_WEIGHT]) * exp(-0.5 * along * along) * at_shelf / along_sd
    acts += m[TAIL_WEIGHT] * far / (along_sd * across_sd * height_sd * tail * tail * tail)
    # Both densities lack (2 pi)^-3/2. People who act on a neighbouring plate differ only in the place along the shelf.
    return acts / (m[AWAY_DENSITY] + m[SHELF_DENSITY] * at_shelf)


cdef inline double _stretch_ratio(double stretch, const double* m) noexcept nogil:
    """Density of a hand's distance from the body if the person acts, over its density if the arm hangs or carries."""
    cdef double acts = (stretch - m[STRETCH_M]) / m[STRETCH_SD_M]
    cdef double hangs = (stretch - m[HANGING_M]) / m[HANGING_SD_M]
    acts = exp(-0.5 * acts * acts) / m[STRETCH_SD_M] + m[STRETCH_TAIL]
    return acts / (exp(-0.5 * hangs * hangs) / m[HANGING_SD_M] + 2.0 * m[STRETCH_TAIL])


cdef struct Load:
    # The load, and the plate that bears most of it.
    double x, y, z, cos_yaw, sin_yaw, width_m, depth_m, above_m


cdef inline double _unseen_ratio(
    const double[:, :, :, ::1] arms_m, int row, int side, const Load* load, double body_ratio, const double* m
) noexcept nogil:
    """What stands in for a wrist that is not seen: the elbow, else the shoulder, else the body."""
    cdef double x, y, z, distance
    cdef int joint
    for joint in range(1, 3):
        x = arms_m[row, side, joint, 0] - load.x
        y = arms_m[row, side, joint, 1] - load.y
        z = arms_m[row, side, joint, 2] - load.z
        if isnan(x):
            continue
        distance = sqrt(x * x + y * y + z * z)
        if joint == 1:
            return m[ELBOW_RATIO] * _within(distance, m[ELBOW_REACH_M], m[REACH_SD_M])
        return m[SHOULDER_RATIO] * _within(distance, m[SHOULDER_REACH_M], m[REACH_SD_M])
    return body_ratio


cdef inline void _hand(
    const double[:, :, :, ::1] arms_m, int row, int side, const Load* load, double beyond_m,
    double* x, double* y, double* z
) noexcept nogil:
    """The hand's place in the plates' axes about the load: beyond the wrist, along the forearm where that is seen."""
    cdef double wx = arms_m[row, side, 0, 0], wy = arms_m[row, side, 0, 1], wz = arms_m[row, side, 0, 2]
    cdef double fx = wx - arms_m[row, side, 1, 0], fy = wy - arms_m[row, side, 1, 1], fz = wz - arms_m[row, side, 1, 2]
    cdef double scale
    if not isnan(fx):
        scale = beyond_m / fmax(sqrt(fx * fx + fy * fy + fz * fz), 0.05)
        wx += scale * fx
        wy += scale * fy
        wz += scale * fz
    wx -= load.x
    wy -= load.y
    x[0] = wx * load.cos_yaw + wy * load.sin_yaw
    y[0] = wy * load.cos_yaw - wx * load.sin_yaw
    z[0] = wz - load.z


cdef inline void _add_hand(
    double* sums, double weight, double x, double y, double z, double variance, double stretch, bint anytime,
    const Load* load, const double* m
) noexcept nogil:
    """Add one instant of a hand that is seen to its sums."""
    cdef double precision, ratio
    if anytime:
        # Any of the instants may have been the contact.
        variance += m[HAND_ERROR_M] * m[HAND_ERROR_M]
        sums[PRECISION] += weight
        ratio = _place_ratio(x, y, z, variance, load.width_m, load.depth_m, load.above_m, m)
        sums[RATIO] += weight * ratio * _stretch_ratio(stretch, m)
        return
    precision = weight / (variance + m[HAND_ERROR_M] * m[HAND_ERROR_M])
    sums[COVER] = fmax(sums[COVER], weight)
    sums[PRECISION] += precision
    sums[X] += precision * x
    sums[Y] += precision * y
    sums[Z] += precision * z
    sums[VARIANCE] += precision * variance
    sums[STRETCH] += precision * stretch


cdef inline double _plus_hand(
    double ratio, const double* sums, bint anytime, const Load* load, const double* m
) noexcept nogil:
    """Add the ratio of one hand, from its sums, to a person's: the mean of both hands'."""
    cdef double known, variance
    cdef double unseen = sums[UNSEEN] / sums[TOTAL]
    if anytime:
        return ratio + 0.5 * (sums[RATIO] + (sums[TOTAL] - sums[PRECISION]) * unseen) / sums[TOTAL]
    known = fmin(sums[COVER] / m[COVER_MIN], 1.0)
    if known > 0.0:
        # Averaging removes at most half of the variance that the instants have in common.
        variance = 0.5 * sums[VARIANCE] / sums[PRECISION] + m[HAND_ERROR_M] * m[HAND_ERROR_M]
        ratio += 0.5 * known * _stretch_ratio(sums[STRETCH] / sums[PRECISION], m) * _place_ratio(
            sums[X] / sums[PRECISION], sums[Y] / sums[PRECISION], sums[Z] / sums[PRECISION], variance,
            load.width_m, load.depth_m, load.above_m, m,
        )
    return ratio + 0.5 * (1.0 - known) * unseen


def hand_ratios(
    const long long[::1] t_ns not None,
    const long long[::1] track not None,
    const signed char[::1] confirmed not None,
    const double[:, ::1] position_m not None,
    const double[:, :, :, ::1] arms_m not None,
    const double[:, ::1] wrist_sd_m not None,
    long long contact_ns,
    bint anytime,
    const double[::1] load_m not None,
    double cos_yaw,
    double sin_yaw,
    double width_m,
    double depth_m,
    double above_m,
    const double[::1] model not None,
    long long[::1] person not None,
    double[::1] log_ratio not None,
    double[:, :, ::1] work not None,
):
    """Log likelihood ratio of everyone's arms and place: that they moved a load over that they did not.

    t_ns, track, confirmed (n,): rows of the arm history, in time order. position_m (n, 2); arms_m (n, 2, 3, 3):
    wrist, elbow and shoulder of both arms, NaN where unknown; wrist_sd_m (n, 2).
    contact_ns: when the load moved; anytime: at any time among the rows instead. load_m (3,): the middle of the load on
    the plates, which are turned by the yaw; width_m and depth_m of a plate; above_m: clearance to the shelf above.
    model: constants, see the enum. person (capacity,), log_ratio (capacity,): out, in order of appearance.
    work (capacity, 2, HAND_COLUMNS): scratch. Returns the number of people; those beyond NEAR_M are left out.
    """
    cdef int n = t_ns.shape[0], capacity = person.shape[0], n_people = 0
    cdef int row, p, side, i
    cdef double dt, weight, px, py, x, y, z, variance, stretch, body, ratio, off, beside
    cdef double* sums
    cdef const double* m = &model[0]
    cdef Load load = Load(load_m[0], load_m[1], load_m[2], cos_yaw, sin_yaw, width_m, depth_m, above_m)
    if n == 0:
        return 0
    with nogil:
        for row in range(n):
            px = position_m[row, 0] - load.x
            py = position_m[row, 1] - load.y
            if px * px + py * py > m[NEAR_M] * m[NEAR_M]:
                continue
            p = 0
            while p < n_people and person[p] != track[row]:
                p += 1
            if p == n_people:
                if n_people == capacity:
                    continue
                person[p] = track[row]
                n_people += 1
                for side in range(2):
                    for i in range(N_COLUMNS):
                        work[p, side, i] = 0.0
            if confirmed[row]:
                work[p, 0, CONFIRMED] = 1.0
            dt = (t_ns[row] - contact_ns) * 1e-9 - m[CONTACT_SHIFT_S]
            weight = 1.0 if anytime else exp(-0.5 * dt * dt / (m[CONTACT_SD_S] * m[CONTACT_SD_S]))
            if weight < 1e-3:
                continue
            work[p, 0, AWAY] += weight * sqrt(px * px + py * py)
            beside = (px * cos_yaw + py * sin_yaw) / m[BODY_ALONG_SD_M]
            off = fmax(fabs(sqrt(px * px + py * py) - m[BODY_M]) - m[BODY_SLACK_M], 0.0) / m[BODY_SD_M]
            body = exp(-0.5 * (off * off + beside * beside)) + m[ELSEWHERE_RATIO]
            for side in range(2):
                sums = &work[p, side, 0]
                sums[TOTAL] += weight
                sums[UNSEEN] += weight * _unseen_ratio(arms_m, row, side, &load, body, m)
                if isnan(arms_m[row, side, 0, 0]):
                    continue
                _hand(arms_m, row, side, &load, m[HAND_BEYOND_M], &x, &y, &z)
                variance = wrist_sd_m[row, side] * wrist_sd_m[row, side]
                # In the plates' axes, the body stands at (px, py) turned in the same way.
                stretch = sqrt(
                    (x - px * cos_yaw - py * sin_yaw) * (x - px * cos_yaw - py * sin_yaw)
                    + (y - py * cos_yaw + px * sin_yaw) * (y - py * cos_yaw + px * sin_yaw)
                )
                _add_hand(sums, weight, x, y, z, variance, stretch, anytime, &load, m)
        for p in range(n_people):
            ratio = 0.0
            for side in range(2):
                if work[p, side, TOTAL] > 0.0:
                    ratio = _plus_hand(ratio, &work[p, side, 0], anytime, &load, m)
            # A wrong keypoint does not bring the body nearer.
            off = work[p, 0, AWAY] / work[p, 0, TOTAL] if work[p, 0, TOTAL] > 0.0 else m[NEAR_M]
            off = _within(off, m[LEAN_IN_M], m[LEAN_IN_SD_M]) + 0.01
            log_ratio[p] = log(ratio + m[ELSEWHERE_RATIO] * off)
            if work[p, 0, CONFIRMED] == 0.0:
                log_ratio[p] += log(m[TENTATIVE_RATIO])
    return n_people
