# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The attribution kernel: the likelihood of hands, and the best joint hypotheses of shelf events in bounded time.

A cluster is a set of events that constrain each other. Its joint hypotheses are the rows of `choices` (n, n_events)
int32: the candidate that each event's entry picks; `log_weight` (n,) is the log probability of the row. The candidates
of a cluster lie in one table of (n_candidates, 2) int32 arrays, since a load may have two parts: `owner` (whose hand;
-1: unknown), `cart` (who pays: people of one visit share it), `product`, `quantity` (signed; 0: no such part; 0 in both
parts: nothing moved).
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


cdef inline void _sift_down(double[::1] key, int[::1] at, int start, int n) noexcept nogil:
    # Restore a heap with its least key on top, from `start` downwards.
    cdef int root = start, child, swap_at
    cdef double swap_key
    while True:
        child = 2 * root + 1
        if child >= n:
            return
        if child + 1 < n and key[child + 1] < key[child]:
            child += 1
        if key[root] <= key[child]:
            return
        swap_key = key[root]
        key[root] = key[child]
        key[child] = swap_key
        swap_at = at[root]
        at[root] = at[child]
        at[child] = swap_at
        root = child


cdef inline int _offer(double[::1] key, int[::1] at, int n, int capacity, double new_key, int new_at) noexcept nogil:
    # Offer a key to a heap of the `capacity` greatest keys; returns how many are kept.
    cdef int child, parent
    if n < capacity:
        child = n
        key[child] = new_key
        at[child] = new_at
        while child > 0:
            parent = (child - 1) // 2
            if key[parent] <= new_key:
                break
            key[child] = key[parent]
            at[child] = at[parent]
            child = parent
        key[child] = new_key
        at[child] = new_at
        return n + 1
    if new_key > key[0]:
        key[0] = new_key
        at[0] = new_at
        _sift_down(key, at, 0, n)
    return n


cdef inline int _drain(double[::1] key, int[::1] at, int n) noexcept nogil:
    # Sort a heap into descending order, in place.
    cdef int last = n - 1, swap_at
    cdef double swap_key
    while last > 0:
        swap_key = key[0]
        key[0] = key[last]
        key[last] = swap_key
        swap_at = at[0]
        at[0] = at[last]
        at[last] = swap_at
        _sift_down(key, at, 0, last)
        last -= 1
    return n


def extend(
    const int[:, ::1] choices not None,
    const double[::1] log_weight not None,
    const int[:, ::1] owner not None,
    const int[:, ::1] cart not None,
    const int[:, ::1] product not None,
    const int[:, ::1] quantity not None,
    int first,
    const double[::1] event_s not None,
    const double[::1] log_candidate not None,
    const double[:, ::1] log_not_held not None,
    const int[:, ::1] held not None,
    const double[:, ::1] log_pair not None,
    const double[::1] settled_ratio not None,
    const int[::1] n_settled not None,
    double busy_s,
    double log_busy,
    double[::1] key not None,
    int[::1] pick not None,
    double log_spread,
):
    """Extend every joint hypothesis of a cluster by every candidate of a new event, and keep the best.

        log w(h, c) = log w(h) + log P(c) p(event | c) + log P(c | h)

    with the last term from what carts hold under h, from hands that cannot be in two places, and from undone loads.
    Every pair is weighed, so the kept ones are the exact k best of those that extend the given hypotheses.

    choices (n, n_events), log_weight (n,): hypotheses so far; entries index the candidate table.
    owner, cart, product, quantity (n_candidates, 2): the table; the new event's candidates are those from `first` on.
    event_s (n_events + 1,): contact times, the new event's last. log_candidate (n_new,): log prior and likelihood.
    log_not_held (n_new, 2): added where a part puts back what its cart does not hold by then; the entries of staff and
    of the unknown are 0. held (n_new, 2): pieces that the part's cart holds besides what this cluster decides.
    log_pair (first, n_new): log ratio of a new candidate that undoes an older one, NaN if it does not, infinite if the
    older one has already undone the event that the new one would undo; may have no rows.
    settled_ratio, n_settled (n_new,): sum of such ratios for events that are settled, and their number. A candidate
    undoes exactly one of all the events that it may undo, each equally likely.
    busy_s, log_busy: two events of one owner within busy_s seconds cost log_busy.
    key (capacity,), pick (capacity,): out, best first: log weight, and hypothesis * n_new + candidate.
    log_spread: pairs worse than the best by more are dropped. Returns the number kept.
    """
    cdef int n = choices.shape[0], n_events = choices.shape[1]
    cdef int n_new = owner.shape[0] - first
    cdef int capacity = key.shape[0]
    cdef bint paired = log_pair.shape[0] > 0
    cdef int row, new, event, other, candidate, part, theirs, has, kept = 0
    cdef bint near
    cdef int n_undone
    cdef double weight, ratio, best = -1e300
    with nogil:
        for new in range(n_new):
            paired = paired or n_settled[new] > 0
        for row in range(n):
            for new in range(n_new):
                weight = log_weight[row] + log_candidate[new]
                # Without undone loads, nothing below can raise a candidate's weight.
                if not paired and weight < best - log_spread:
                    continue
                candidate = first + new
                for part in range(2):
                    if quantity[candidate, part] == 0 or owner[candidate, part] < 0:
                        continue
                    has = held[new, part]
                    for event in range(n_events):
                        other = choices[row, event]
                        near = -busy_s < event_s[event] - event_s[n_events] < busy_s
                        for theirs in range(2):
                            if quantity[other, theirs] == 0:
                                continue
                            # Quantities count pieces on the shelf, so pieces that were taken from it are held.
                            if (
                                cart[other, theirs] == cart[candidate, part]
                                and product[other, theirs] == product[candidate, part]
                                and event_s[event] <= event_s[n_events]
                            ):
                                has -= quantity[other, theirs]
                            if near and owner[other, theirs] == owner[candidate, part]:
                                weight += log_busy
                    if quantity[candidate, part] > has:
                        weight += log_not_held[new, part]
                if paired:
                    ratio = settled_ratio[new]
                    n_undone = n_settled[new]
                    if log_pair.shape[0] > 0:
                        for event in range(n_events):
                            if log_pair[choices[row, event], new] > 1e300:
                                n_undone = 0
                                break
                            if not isnan(log_pair[choices[row, event], new]):
                                ratio += exp(log_pair[choices[row, event], new])
                                n_undone += 1
                    if n_undone > 0:
                        weight += log(ratio / n_undone)
                if weight > best:
                    best = weight
                kept = _offer(key, pick, kept, capacity, weight, row * n_new + new)
        _drain(key, pick, kept)
        while kept > 1 and key[kept - 1] < best - log_spread:
            kept -= 1
    return kept


def merge(
    const double[::1] log_weight_a not None,
    const double[::1] log_weight_b not None,
    double[::1] key not None,
    int[::1] pick not None,
    double log_spread,
):
    """The k best pairs of hypotheses of two clusters that were independent so far: log w(a, b) = log w(a) + log w(b).

    log_weight_a (n_a,), log_weight_b (n_b,): best first.
    key (capacity,), pick (capacity,): out, best first: log weight, and row_a * n_b + row_b. Returns the number kept.
    """
    cdef int n_a = log_weight_a.shape[0], n_b = log_weight_b.shape[0], capacity = key.shape[0]
    cdef int a, b, kept = 0
    cdef double weight, best = log_weight_a[0] + log_weight_b[0]
    with nogil:
        for a in range(n_a):
            for b in range(n_b):
                # At least (a + 1) * (b + 1) - 1 pairs are better than the pair (a, b), so it cannot be kept.
                if (a + 1) * (b + 1) > capacity:
                    break
                weight = log_weight_a[a] + log_weight_b[b]
                if weight < best - log_spread:
                    break
                kept = _offer(key, pick, kept, capacity, weight, a * n_b + b)
        _drain(key, pick, kept)
    return kept


def marginals(
    const int[:, ::1] choices not None, const double[::1] log_weight not None, double[::1] probability not None
):
    """Probability of every candidate of a cluster's table: P(c) = sum of w(h) over the hypotheses h that pick it.

    probability (n_candidates,): out, every cell written. log_weight must be normalised.
    """
    cdef int n = choices.shape[0], n_events = choices.shape[1], row, event
    cdef double weight
    with nogil:
        for row in range(probability.shape[0]):
            probability[row] = 0.0
        for row in range(n):
            weight = exp(log_weight[row])
            for event in range(n_events):
                probability[choices[row, event]] += weight


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
