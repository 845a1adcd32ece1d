# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The likelihood of hands: how much likelier arms and places are if a person moved a load than if they did not.

C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised, GIL released.
"""

from libc.math cimport NAN, erf, exp, fabs, fmax, fmin, isnan, log, sqrt

# Entries of the model of hands and bodies that `hand_ratios` takes; `fusion/goods/hands.py` documents them.
cdef enum:
    CONTACT_SHIFT_S, CONTACT_SD_S, COVER_MIN, HAND_BEYOND_M, HAND_ERROR_M
    ALONG_SD_WIDTHS, BOX_FRONT_M, BOX_BACK_M, BOX_EDGE_SD_M, HEIGHT_M, HEIGHT_SD_M, TAIL_WEIGHT, TAIL_WIDTH
    AWAY_DENSITY, SHELF_DENSITY, STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL
    ELBOW_RATIO, ELBOW_REACH_M, SHOULDER_RATIO, SHOULDER_REACH_M, REACH_SD_M
    BODY_M, BODY_SLACK_M, BODY_SD_M, BODY_ALONG_SD_M, ELSEWHERE_RATIO, NEAR_M, TENTATIVE_RATIO
    LEAN_IN_M, LEAN_IN_SD_M, CORRECTION_MAX

# Sums over instants, one row per hand: the weights of all instants, the greatest weight of an instant that saw the
# hand, the weights by precision; place, its variance and the hand's distance from the body, each weighted by precision;
# the ratio that stands in for an unseen hand; with an unknown instant the ratios of all instants; the weights of the
# instants that know the elbow, and its distance from the load. Three columns belong to the person and are kept in the
# row of the left hand: whether the track was confirmed, and the body's distance from the load, as such and along the
# shelf.
cdef enum:
    TOTAL, COVER, PRECISION, X, Y, Z, VARIANCE, STRETCH, UNSEEN, RATIO, ELBOW_SEEN, ELBOW
    CONFIRMED, AWAY, ASIDE, N_COLUMNS

# What the learnt correction looks at, for the likelier hand of a person; `fusion/goods/hands.py` documents them.
cdef enum:
    PHYSICAL, BESIDE, DEEP, HIGH, SD, ELBOW_AWAY, BODY_AWAY, BODY_ASIDE, OTHER_HAND, N_FEATURES

# The learnt trees are three levels deep and full: seven splits, eight leaves.
cdef enum:
    N_SPLITS = 7

HAND_COLUMNS = N_COLUMNS
HAND_FEATURES = N_FEATURES

cdef double SQRT_2 = 1.4142135623730951
cdef double SQRT_HALF_PI = 1.2533141373155003
# The logarithm of the other hand's part is kept above this.
cdef double LOG_OTHER_MIN = -12.0


cdef inline double _within(double distance, double reach, double sd) noexcept nogil:
    cdef double beyond = fmax(distance - reach, 0.0) / sd
    return exp(-0.5 * beyond * beyond)


cdef double _place_ratio(
    double x, double y, double z, double variance, double stretched, double width, double depth, double above,
    const double* m
) noexcept nogil:
    """Density of a hand's place and stretch if it moved the load, over that if it did not.

    x, y, z: place in the plates' axes about the load, with its variance; stretched: ratio of the stretch's densities, see
    `_stretch_ratio`; width, depth: of the plate; above: clearance.
    """
    cdef double along_sd = sqrt(m[ALONG_SD_WIDTHS] * m[ALONG_SD_WIDTHS] * width * width + variance)
    cdef double edge_sd = sqrt(m[BOX_EDGE_SD_M] * m[BOX_EDGE_SD_M] + variance)
    cdef double height_sd = sqrt(m[HEIGHT_SD_M] * m[HEIGHT_SD_M] + variance)
    cdef double deep = y + 0.5 * depth
    cdef double box = m[BOX_BACK_M] - m[BOX_FRONT_M]
    cdef double along = x / along_sd
    # The tail is about the box's middle, as wide as the box with its soft edges.
    cdef double across_sd = sqrt(box * box / 12.0 + edge_sd * edge_sd)
    cdef double across = (deep - 0.5 * (m[BOX_FRONT_M] + m[BOX_BACK_M])) / across_sd
    cdef double height = (z - fmin(m[HEIGHT_M], 0.6 * above)) / height_sd
    cdef double tail = m[TAIL_WIDTH]
    # A uniform density between the edges, convolved with the error of the place; times (2 pi)^(1/2).
    cdef double in_box = erf((deep - m[BOX_FRONT_M]) / (SQRT_2 * edge_sd))
    in_box = SQRT_HALF_PI * (in_box - erf((deep - m[BOX_BACK_M]) / (SQRT_2 * edge_sd))) / box
    cdef double at_shelf = in_box * exp(-0.5 * height * height) / height_sd
    cdef double far = exp(-0.5 * (along * along + across * across + height * height) / (tail * tail))
    cdef double acts = (1.0 - m[TAIL_WEIGHT]) * exp(-0.5 * along * along) * at_shelf / along_sd
    acts += m[TAIL_WEIGHT] * far / (along_sd * across_sd * height_sd * tail * tail * tail)
    # Both densities lack (2 pi)^-3/2. People who act on a neighbouring plate differ only in the place along the shelf: they
    # are stretched out as far.
    return acts / (m[AWAY_DENSITY] / stretched + m[SHELF_DENSITY] * at_shelf)


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
        ratio = _place_ratio(
            x, y, z, variance, _stretch_ratio(stretch, m), load.width_m, load.depth_m, load.above_m, m
        )
        sums[RATIO] += weight * ratio
        return
    precision = weight / (variance + m[HAND_ERROR_M] * m[HAND_ERROR_M])
    sums[COVER] = fmax(sums[COVER], weight)
    sums[PRECISION] += precision
    sums[X] += precision * x
    sums[Y] += precision * y
    sums[Z] += precision * z
    sums[VARIANCE] += precision * variance
    sums[STRETCH] += precision * stretch


cdef inline double _hand_ratio(const double* sums, bint anytime, const Load* load, const double* m) noexcept nogil:
    """A hand's part of a person's ratio, from its sums: half of its ratio, since the ratio is the mean of both hands'."""
    cdef double known, variance, ratio = 0.0
    cdef double unseen = sums[UNSEEN] / sums[TOTAL]
    if anytime:
        return 0.5 * (sums[RATIO] + (sums[TOTAL] - sums[PRECISION]) * unseen) / sums[TOTAL]
    known = fmin(sums[COVER] / m[COVER_MIN], 1.0)
    if known > 0.0:
        variance = _variance(sums, m)
        ratio = 0.5 * known * _place_ratio(
            sums[X] / sums[PRECISION], sums[Y] / sums[PRECISION], sums[Z] / sums[PRECISION], variance,
            _stretch_ratio(sums[STRETCH] / sums[PRECISION], m), load.width_m, load.depth_m, load.above_m, m,
        )
    return ratio + 0.5 * (1.0 - known) * unseen


cdef inline double _variance(const double* sums, const double* m) noexcept nogil:
    # Averaging removes at most half of the variance that the instants have in common.
    return 0.5 * sums[VARIANCE] / sums[PRECISION] + m[HAND_ERROR_M] * m[HAND_ERROR_M]


cdef bint _features(
    const double* left, int side, double log_ratio, const double* part, const Load* load, const double* m, double* f
) noexcept nogil:
    """What the learnt correction looks at; False where the likelier hand's wrist or elbow is not known.

    left: sums of the left hand; those of the right one follow. side: the likelier hand. part (2,): both hands' ratios.
    """
    cdef const double* sums = left + side * N_COLUMNS
    if sums[PRECISION] <= 0.0 or sums[ELBOW_SEEN] <= 0.0:
        return False
    f[PHYSICAL] = log_ratio
    f[BESIDE] = fabs(sums[X] / sums[PRECISION]) - 0.5 * load.width_m
    f[DEEP] = sums[Y] / sums[PRECISION] + 0.5 * load.depth_m
    f[HIGH] = sums[Z] / sums[PRECISION]
    f[SD] = sqrt(_variance(sums, m))
    f[ELBOW_AWAY] = sums[ELBOW] / sums[ELBOW_SEEN]
    f[BODY_AWAY] = left[AWAY] / left[TOTAL]
    f[BODY_ASIDE] = fabs(left[ASIDE] / left[TOTAL])
    f[OTHER_HAND] = fmax(log(part[1 - side]), LOG_OTHER_MIN) if part[1 - side] > 0.0 else LOG_OTHER_MIN
    return True


cdef double _correction(
    const double* f, const int[:, ::1] split_on, const double[:, ::1] threshold, const double[:, ::1] leaf
) noexcept nogil:
    """Sum of the trees' leaves at these features."""
    cdef double total = 0.0
    cdef int tree, node, level
    for tree in range(split_on.shape[0]):
        node = 0
        for level in range(3):
            node = 2 * node + 1 + (f[split_on[tree, node]] >= threshold[tree, node])
        total += leaf[tree, node - N_SPLITS]
    return total


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
    const double[:, ::1] trained not None,
    const int[:, ::1] split_on not None,
    const double[:, ::1] threshold not None,
    const double[:, ::1] leaf not None,
    long long[::1] person not None,
    double[::1] log_ratio not None,
    double[:, ::1] features not None,
    double[:, :, ::1] work not None,
):
    """Log likelihood ratio of everyone's arms and place: that they moved a load over that they did not.

    t_ns, track, confirmed (n,): rows of the arm history, in time order. position_m (n, 2); arms_m (n, 2, 3, 3):
    wrist, elbow and shoulder of both arms, NaN where unknown; wrist_sd_m (n, 2).
    contact_ns: when the load moved; anytime: at any time among the rows instead. load_m (3,): the middle of the load on
    the plates, which are turned by the yaw; width_m and depth_m of a plate; above_m: clearance to the shelf above.
    model: constants, see the enum. trained (2, HAND_FEATURES): least and greatest feature that the trees were trained
    on; split_on, threshold (n_trees, 7), leaf (n_trees, 8): the trees, breadth first; a feature that reaches the
    threshold goes right. Their sum, bounded, corrects a person's log ratio where all features are in the trained range.
    person (capacity,), log_ratio (capacity,), features (capacity, HAND_FEATURES): out, in order of appearance; features
    are NaN where they are not known. work (capacity, 2, HAND_COLUMNS): scratch.
    Returns the number of people; those beyond NEAR_M are left out.
    """
    cdef int n = t_ns.shape[0], capacity = person.shape[0], n_people = 0
    cdef int row, p, side, i
    cdef double dt, weight, px, py, x, y, z, variance, stretch, body, off, beside
    cdef double[2] part
    cdef double* f
    cdef bint corrected
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
            work[p, 0, ASIDE] += weight * (px * cos_yaw + py * sin_yaw)
            beside = (px * cos_yaw + py * sin_yaw) / m[BODY_ALONG_SD_M]
            off = fmax(fabs(sqrt(px * px + py * py) - m[BODY_M]) - m[BODY_SLACK_M], 0.0) / m[BODY_SD_M]
            body = exp(-0.5 * (off * off + beside * beside)) + m[ELSEWHERE_RATIO]
            for side in range(2):
                sums = &work[p, side, 0]
                sums[TOTAL] += weight
                sums[UNSEEN] += weight * _unseen_ratio(arms_m, row, side, &load, body, m)
                if not isnan(arms_m[row, side, 1, 0]):
                    x = arms_m[row, side, 1, 0] - load.x
                    y = arms_m[row, side, 1, 1] - load.y
                    z = arms_m[row, side, 1, 2] - load.z
                    sums[ELBOW_SEEN] += weight
                    sums[ELBOW] += weight * sqrt(x * x + y * y + z * z)
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
            part[0], part[1] = 0.0, 0.0
            for side in range(2):
                if work[p, side, TOTAL] > 0.0:
                    part[side] = _hand_ratio(&work[p, side, 0], anytime, &load, m)
            # A wrong keypoint does not bring the body nearer.
            off = work[p, 0, AWAY] / work[p, 0, TOTAL] if work[p, 0, TOTAL] > 0.0 else m[NEAR_M]
            off = _within(off, m[LEAN_IN_M], m[LEAN_IN_SD_M]) + 0.01
            log_ratio[p] = log(part[0] + part[1] + m[ELSEWHERE_RATIO] * off)
            side = 1 if part[1] > part[0] else 0
            f = &features[p, 0]
            corrected = not anytime and _features(&work[p, 0, 0], side, log_ratio[p], part, &load, m, f)
            if not corrected:
                for i in range(N_FEATURES):
                    f[i] = NAN
            else:
                for i in range(N_FEATURES):
                    corrected = corrected and trained[0, i] <= f[i] <= trained[1, i]
            if corrected:
                off = _correction(f, split_on, threshold, leaf)
                log_ratio[p] += fmin(fmax(off, -m[CORRECTION_MAX]), m[CORRECTION_MAX])
            if work[p, 0, CONFIRMED] == 0.0:
                log_ratio[p] += log(m[TENTATIVE_RATIO])
    return n_people
