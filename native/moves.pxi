# What is recorded and learnt from a load that was attributed: stock, and the gains of its plates.

# Entries of the model of gains; `fusion/goods/learnt.py` documents them.
cdef enum:
    GAIN_PLACE_SD, REFUSED_SDS, GAIN_OFF_MAX, GAIN_VAR_MAX, GAIN_DAY_NS


def move_all(goods, probability, stock, away):
    """Record what a load may have been.

    goods (n, 3) int32: person, product and signed pieces that came; probability (n,) of each. stock (n_products,): of
    the plate; away (n_products,): taken and not put back; in and out, never below zero.
    """
    cdef const int* moved = _ints(goods)
    cdef const double* p = _doubles(probability)
    cdef double* here = _doubles(stock)
    cdef double* elsewhere = _doubles(away)
    cdef int i, product
    cdef double pieces
    for i in range(_length(goods)):
        product = moved[3 * i + 1]
        pieces = moved[3 * i + 2] * fmin(p[i], 1.0)
        here[product] = fmax(here[product] + pieces, 0.0)
        elsewhere[product] = fmax(elsewhere[product] - pieces, 0.0)


def likeliest_goods(goods, probability, weight_g):
    """The likeliest product and signed pieces of a load, whoever moved them.

    goods (n, 3) int32, n at least 1, probability (n,): as of `move_all`; weight_g (n_products,). Returns both, and the
    expected squared difference in grams from what else it may have been.
    """
    cdef const int* moved = _ints(goods)
    cdef const double* p = _doubles(probability)
    cdef const double* weight = _doubles(weight_g)
    cdef int i, j, n = _length(goods), best = 0
    cdef double chance, most = -1.0, off_g, others_g2 = 0.0
    for i in range(n):
        chance = 0.0
        for j in range(n):
            if moved[3 * j + 1] == moved[3 * i + 1] and moved[3 * j + 2] == moved[3 * i + 2]:
                chance += p[j]
        if chance > most:
            best, most = i, chance
    for i in range(n):
        off_g = abs(moved[3 * i + 2]) * weight[moved[3 * i + 1]] - abs(moved[3 * best + 2]) * weight[moved[3 * best + 1]]
        others_g2 += p[i] * off_g * off_g
    return moved[3 * best + 1], moved[3 * best + 2], others_g2


def follow_gain(
    plates, delta_g, double noise_g2, int product, int quantity, long long t_ns, weight_g, weight_sd_g, gain, gain_var,
    gain_ns, double drift_var, model,
):
    """Learn the plates' gains from a load whose product and quantity are certain; see `Learnt.follow_gain`.

    gain, gain_var (n_plates,), gain_ns (n_plates,) int64: and when they were learnt last; in and out. drift_var: per
    day. model: constants, see the enum. Returns whether the load agrees with the gains and so was learnt, the gain that
    it shows, and the variance of its difference from theirs.
    """
    cdef const long long* plate = _longs(plates)
    cdef const double* delta = _doubles(delta_g)
    cdef double* gains = _doubles(gain)
    cdef double* variance = _doubles(gain_var)
    cdef long long* since_ns = _longs(gain_ns)
    cdef const double* g = _doubles(model)
    cdef int i, n = _length(plates)
    cdef double true_g = abs(quantity) * _doubles(weight_g)[product], piece_sd_g = _doubles(weight_sd_g)[product]
    cdef double whole_g = fmax(_size(delta, n), 1e-9), shown = fabs(_total(delta, n)) / true_g
    cdef double mean = 0.0, innovation_var = (noise_g2 + abs(quantity) * piece_sd_g * piece_sd_g) / (true_g * true_g)
    cdef double share, var, innovation, kalman_gain
    for i in range(n):
        share = fabs(delta[i]) / whole_g
        mean += share * gains[plate[i]]
        var = _drifted(variance[plate[i]], since_ns[plate[i]], t_ns, drift_var, g)
        innovation_var += share * share * (var + g[GAIN_PLACE_SD] * g[GAIN_PLACE_SD])
    innovation = shown - mean
    if innovation * innovation > g[REFUSED_SDS] * g[REFUSED_SDS] * innovation_var:
        return False, shown, innovation_var
    for i in range(n):
        share = fabs(delta[i]) / whole_g
        var = _drifted(variance[plate[i]], since_ns[plate[i]], t_ns, drift_var, g)
        kalman_gain = share * var / innovation_var
        gains[plate[i]] += kalman_gain * innovation
        gains[plate[i]] = fmin(fmax(gains[plate[i]], 1.0 - g[GAIN_OFF_MAX]), 1.0 + g[GAIN_OFF_MAX])
        variance[plate[i]] = var * (1.0 - kalman_gain * share)
        since_ns[plate[i]] = t_ns
    return True, shown, innovation_var


cdef inline double _drifted(
    double variance, long long since_ns, long long t_ns, double drift_var, const double* g
) noexcept nogil:
    """Variance of a plate's gain now: it is less certain by the time since its last load."""
    if not 0 < since_ns < t_ns:
        return variance
    return fmin(variance + drift_var * (t_ns - since_ns) / g[GAIN_DAY_NS], fmax(variance, g[GAIN_VAR_MAX]))
