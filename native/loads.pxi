# Changes of plates as one load, as nothing, or as a hand; `fusion/goods/loads.py` and `ledger.py` state the model.

# Entries of the model of loads, then of the ledger.
cdef enum:
    LOG_COINCIDENCE, SAME_LOAD_SD_S, STEP_S, SHAKE_G, LOG_SPREAD_OVER, LOG_SPREAD_LAST = LOG_SPREAD_OVER + 3
    AGAINST_SHARE, LIGHTEST_SHARE, LOG_UNKNOWN_PER_G, CROSS_TALK_SHARE, CREEP_G, CREEP_FAR, UNDONE_SLACK_G
cdef enum:
    PRESS_SHARE, PRESS_WIDE_SHARE, PRESS_SD_G, PRESS_WIDE_SD_G, LEAN_SHARE, LEAN_MAX_G
    LOG_CALM_PER_S, LOG_CALM_MAX, CALM_SDS, CALM_SLACK_G, CALM_SAMPLES, LIFT_USUAL_S, LOG_LIFT_PER_S
    SAME_HAND_NS, LOG_TWO_HANDS, CROSS_TALK_NS, RELIEF_NS, RELIEF_G, LOG_RELIEF, HALF_SHARE, REST_G2, HANDS_REACH

# A load rests on at most so many plates; so many products and quantities may explain one.
cdef enum:
    LOAD_PLATES = 4, LOAD_IDENTIFIED = 6

LOAD_IDENTIFIED_MAX = LOAD_IDENTIFIED


cdef struct Change:
    # As `PlateChange`.
    long long plate, onset_ns, contact_ns, settled_ns, rise_ns
    bint silent
    double delta_g, var_g2, before_g


cdef int _change(object change, Change* out) except -1:
    out.plate, out.onset_ns, out.contact_ns = change.plate, change.onset_ns, change.contact_ns
    out.settled_ns, out.rise_ns, out.silent = change.settled_ns, change.rise_ns, change.silent
    out.delta_g, out.var_g2, out.before_g = change.delta_g, change.var_g2, change.before_g
    return 0


cdef inline double _log_nothing(double delta_g, double var_g2, double heaviest_g, const double* m) noexcept nogil:
    """Log density of a plate's change as creep, or as cross-talk of a heavier step beside it."""
    cdef double beside_g = heaviest_g if heaviest_g > fabs(delta_g) else 0.0
    # Cross-talk and noise end where they end; only creep has a tail.
    cdef double known_g = 0.5 * sqrt(var_g2) + m[CROSS_TALK_SHARE] * beside_g
    cdef double far = fmax(fabs(delta_g) - known_g, 0.0) / m[CREEP_G], beyond = fmax(far - m[CREEP_FAR], 0.0)
    return -far - 0.5 * (beyond * beyond) - log(2.0 * (known_g + m[CREEP_G]))


cdef inline double _log_press(double grams, const double* m) noexcept nogil:
    """Log density per gram of the force of a hand."""
    cdef double density = m[LEAN_SHARE] / m[LEAN_MAX_G] if 0.0 < grams < m[LEAN_MAX_G] else 1e-9, far
    cdef int i
    for i in range(2):
        far = grams / m[PRESS_SD_G + i]
        density += m[PRESS_SHARE + i] * exp(-0.5 * (far * far)) / (m[PRESS_SD_G + i] * sqrt(TWO_PI))
    return log(density)


cdef inline double _contact_sd_s(
    double delta_g, double var_g2, long long rise_ns, bint silent, const double* m
) noexcept nogil:
    """Standard deviation of a change's contact time.

    The edge of a small change is lost in the noise and in the shaking of a hand. A piece that is lifted at one end
    before it leaves has two edges.
    """
    cdef double load_g = fabs(delta_g), shake = m[SHAKE_G] / load_g
    cdef double slow_s = 0.0 if silent else fmax(rise_ns * 1e-9 - m[STEP_S], 0.0)
    return m[SAME_LOAD_SD_S] * (1.0 + 8.0 * sqrt(var_g2) / load_g + shake * shake) + 0.5 * slow_s


cdef inline double _log_sum(double a, double b) noexcept nogil:
    """Log of the sum of two exponentials, as NumPy computes it."""
    return fmax(a, b) + (log1p(exp(-fabs(a - b))) if a != b else LOG_2)


cdef double _log_same_time(const Change* part, int n, const double* m) noexcept nogil:
    """Log density of the instants of a load's plates, given that it is one load; none where at most one is dated."""
    cdef double at_s[LOAD_PLATES]
    cdef double sd_s[LOAD_PLATES]
    cdef double weight, sum_weight = 0.0, mean_s = 0.0, off, squares = 0.0, log_sds = 0.0
    cdef long long first_ns = 0
    cdef int i, n_dated = 0
    for i in range(n):
        if not part[i].silent:
            if n_dated == 0:
                first_ns = part[i].contact_ns
            at_s[n_dated] = (part[i].contact_ns - first_ns) * 1e-9
            sd_s[n_dated] = _contact_sd_s(part[i].delta_g, part[i].var_g2, part[i].rise_ns, False, m)
            n_dated += 1
    if n_dated < 2:
        return 0.0
    for i in range(n_dated):
        weight = 1.0 / (sd_s[i] * sd_s[i])
        sum_weight += weight
        mean_s += weight * at_s[i]
    mean_s /= sum_weight
    for i in range(n_dated):
        off = (at_s[i] - mean_s) / sd_s[i]
        squares += off * off
        if i > 0:
            log_sds += log(sd_s[i] * sqrt(TWO_PI))
    return -(0.5 * squares + log_sds)


cdef double _log_load(
    const Shelves* shelves, Nearby* near, const Change* part, int n, double lightest_g, const double* m
) noexcept nogil:
    """Log density of changes, from left to right, as one load on these plates; near: the products of their row."""
    cdef long long plates[LOAD_PLATES]
    cdef double deltas_g[LOAD_PLATES]
    cdef double total_g = 0.0, against_g = 0.0, noise_g2 = 0.0, log_identity
    cdef Load load
    cdef Identified found
    cdef int i
    if n > LOAD_PLATES:
        return -INFINITY
    for i in range(n):
        if i > 0 and shelves.place[part[i].plate] - shelves.place[part[i - 1].plate] != 1:
            return -INFINITY
        plates[i], deltas_g[i] = part[i].plate, part[i].delta_g
        total_g += part[i].delta_g
        noise_g2 += part[i].var_g2
    for i in range(n):
        if deltas_g[i] * total_g <= 0.0:
            against_g += fabs(deltas_g[i])
    if against_g > m[AGAINST_SHARE] * fabs(total_g) or fabs(total_g) < m[LIGHTEST_SHARE] * lightest_g:
        return -INFINITY
    load.plates, load.delta_g, load.n, load.noise_g2 = plates, deltas_g, n, noise_g2
    found.n = 0
    if shelves.n_products > 0:
        _load(shelves, &load)
        _identify_near(shelves, &load, near, LOAD_IDENTIFIED, &found)
    log_identity = found.score[0] if found.n > 0 else m[LOG_UNKNOWN_PER_G]
    for i in range(1, found.n):
        log_identity = _log_sum(log_identity, found.score[i])
    if found.n > 0:
        log_identity = _log_sum(log_identity, m[LOG_UNKNOWN_PER_G])
    return (
        log_identity + (-(n - 1) * log(fabs(total_g)) + m[LOG_SPREAD_OVER + n - 1])
        + (m[LOG_COINCIDENCE] + _log_same_time(part, n, m))
    )


def log_nothing(double delta_g, double var_g2, double heaviest_g, loads):
    """Log density of a plate's change as no load; see `fusion.goods.loads.log_nothing`. loads: model of loads."""
    return _log_nothing(delta_g, var_g2, heaviest_g, _doubles(loads))


def log_press(double grams, hands):
    """Log density per gram of the force of a hand; hands: model of the ledger."""
    return _log_press(grams, _doubles(hands))


def contact_sd_s(change, loads):
    """Standard deviation of a change's contact time; loads: model of loads."""
    return _contact_sd_s(change.delta_g, change.var_g2, change.rise_ns, change.silent, _doubles(loads))


def log_load(tuple arrays not None, double lightest_g, loads, list part not None):
    """Log density of changes, from left to right, as one load on these plates; see `LoadFinder.log_load`.

    arrays: of the planogram; lightest_g: of its products. loads: model of loads.
    """
    cdef Shelves shelves
    cdef Nearby near
    cdef Change changes[LOAD_PLATES]
    cdef const double* m = _doubles(loads)
    cdef int n = <int>len(part), i
    cdef double log_density
    if n > LOAD_PLATES:
        return -INFINITY
    _shelves(arrays, &shelves)
    for i in range(n):
        _change(part[i], &changes[i])
    with nogil:
        _products_near(&shelves, shelves.row[changes[0].plate], &near)
        log_density = _log_load(&shelves, &near, changes, n, lightest_g, m)
    return log_density
