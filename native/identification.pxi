# What a load may be, by its weight and place; `fusion/goods/planogram.py` states the equations and documents the model.

# Entries of the model of weights and places.
cdef enum:
    PLACE_GAIN_SD, OFF_CENTRE_WIDTHS, OFF_CENTRE_SD_WIDTHS, PLANNED_PRIOR, ROW_PRIOR, STORE_PRIOR, COUNT_WRONG
    LOG_ONE_PIECE, LOG_TWO_PIECES, LOG_THREE_PIECES, LOG_QUANTITY_DECAY
    HIDDEN_PROBABILITY, HIDDEN_SHARE_MIN, HIDDEN_MAX_G, MIXTURE_LOG_MIN, TAIL_SHARE, TAIL_SD_RATIO, IDENTIFIED_SPREAD

cdef enum:
    IDENTIFIED_CAPACITY = 64
IDENTIFIED_MAX = IDENTIFIED_CAPACITY
# The density of a load that no number of pieces explains.
cdef double DENSITY_MIN = 1e-300, TWO_PI = 6.283185307179586


cdef struct Shelves:
    # The arrays of a planogram; see `Planogram.arrays`.
    int n_plates, n_products
    const double* weight_g
    const double* weight_sd_g
    double* stock
    const char* planned
    double* away
    double* gain
    double* gain_var
    const double* along_m
    const double* width_m
    const long long* row
    const long long* member
    const long long* member_start
    const double* model
    double* scratch


cdef struct Identified:
    # The most probable identifications of a load, best first.
    int n
    int product[IDENTIFIED_CAPACITY]
    int quantity[IDENTIFIED_CAPACITY]
    int order[IDENTIFIED_CAPACITY]
    double score[IDENTIFIED_CAPACITY]
    double log_likelihood[IDENTIFIED_CAPACITY]
    double log_place[IDENTIFIED_CAPACITY]
    double log_quantity[IDENTIFIED_CAPACITY]


cdef int _shelves(tuple arrays, Shelves* shelves) except -1:
    shelves.weight_g = _doubles(arrays[0])
    shelves.weight_sd_g = _doubles(arrays[1])
    shelves.stock = _doubles(arrays[2])
    shelves.planned = _bytes(arrays[3])
    shelves.away = _doubles(arrays[4])
    shelves.gain = _doubles(arrays[5])
    shelves.gain_var = _doubles(arrays[6])
    shelves.along_m = _doubles(arrays[7])
    shelves.width_m = _doubles(arrays[8])
    shelves.row = _longs(arrays[9])
    shelves.member = _longs(arrays[10])
    shelves.member_start = _longs(arrays[11])
    shelves.model = _doubles(arrays[12])
    shelves.n_products = _length(arrays[0])
    shelves.n_plates = _length(arrays[5])
    shelves.scratch = _doubles(arrays[13])
    return 0


cdef inline double _total(const double* values, int n) noexcept nogil:
    cdef int i
    cdef double total = 0.0
    for i in range(n):
        total += values[i]
    return total


cdef inline double _size(const double* values, int n) noexcept nogil:
    cdef int i
    cdef double total = 0.0
    for i in range(n):
        total += fabs(values[i])
    return total


cdef inline double _gain(
    const Shelves* shelves, const long long* plates, const double* delta_g, int n, double* variance
) noexcept nogil:
    """The gain of plates for a load, and its variance."""
    cdef double size = fmax(_size(delta_g, n), 1e-9), mean = 0.0, share
    cdef double place_var = shelves.model[PLACE_GAIN_SD] * shelves.model[PLACE_GAIN_SD]
    cdef int i
    variance[0] = 0.0
    for i in range(n):
        share = fabs(delta_g[i]) / size
        mean += share * shelves.gain[plates[i]]
        variance[0] += share * share * (shelves.gain_var[plates[i]] + place_var)
    return mean


cdef struct Load:
    # A load on touching plates.
    const long long* plates
    const double* delta_g
    int n
    int main
    double total_g, noise_g2, gain, gain_var


cdef inline void _load(const Shelves* shelves, Load* load) noexcept nogil:
    """Fill in what follows from the plates and the grams on them."""
    cdef int i
    load.total_g = _total(load.delta_g, load.n)
    load.gain = _gain(shelves, load.plates, load.delta_g, load.n, &load.gain_var)
    load.main = 0
    for i in range(1, load.n):
        if fabs(load.delta_g[i]) > fabs(load.delta_g[load.main]):
            load.main = i


cdef inline double _log_add(double a, double b) noexcept nogil:
    cdef double top = fmax(a, b)
    if top == -INFINITY:
        return top
    return top + log(exp(a - top) + exp(b - top))


cdef inline double _density(double error_g, double variance_g2, const double* m) noexcept nogil:
    """Density, per gram, of the error of a measured load: normal, with a wider normal tail."""
    cdef double distance_sq = error_g * error_g / variance_g2, ratio = m[TAIL_SD_RATIO]
    cdef double density = (1.0 - m[TAIL_SHARE]) * exp(-0.5 * distance_sq)
    density += m[TAIL_SHARE] / ratio * exp(-0.5 * distance_sq / (ratio * ratio))
    return density / sqrt(TWO_PI * variance_g2) + DENSITY_MIN


cdef inline double _nearest(double value) noexcept nogil:
    """The nearest whole number, of a number below 2^51: numbers about 1.5 * 2^52 have this spacing."""
    return (value + 6755399441055744.0) - 6755399441055744.0


cdef inline double _log_pieces(double pieces, const double* m) noexcept nogil:
    """Log prior of a number of pieces in one grip."""
    if pieces <= 3.0:
        return m[LOG_ONE_PIECE + <int>pieces - 1]
    return m[LOG_THREE_PIECES] + (pieces - 3.0) * m[LOG_QUANTITY_DECAY]


cdef void _log_place(const Shelves* shelves, const Load* load, bint taken, double* log_prior) noexcept nogil:
    """Log prior of the product of a load with its middle there; log_prior (n_products,): out."""
    cdef const double* m = shelves.model
    cdef int n_products = shelves.n_products, product, i
    cdef double size = fmax(_size(load.delta_g, load.n), 1e-9), middle_m = 0.0, offset, beyond, closeness, present
    cdef double log_store = log(m[STORE_PRIOR]), planned_there = m[COUNT_WRONG] if taken else 1.0
    cdef long long row = shelves.row[load.plates[0]], at, plate
    cdef const double* stock
    cdef const char* planned
    for i in range(load.n):
        middle_m += fabs(load.delta_g[i]) / size * shelves.along_m[load.plates[i]]
    for product in range(n_products):
        log_prior[product] = 0.0
    for at in range(shelves.member_start[row], shelves.member_start[row + 1]):
        stock = shelves.stock + shelves.member[at] * n_products
        planned = shelves.planned + shelves.member[at] * n_products
        for product in range(n_products):
            if planned[product] or stock[product] > 0.5:
                log_prior[product] = m[ROW_PRIOR]
    for at in range(shelves.member_start[row], shelves.member_start[row + 1]):
        plate = shelves.member[at]
        offset = fabs(shelves.along_m[plate] - middle_m) / shelves.width_m[plate]
        if offset >= 2.0:
            continue
        beyond = fmax(offset - m[OFF_CENTRE_WIDTHS], 0.0) / m[OFF_CENTRE_SD_WIDTHS]
        closeness = m[PLANNED_PRIOR] * exp(-0.5 * beyond * beyond)
        stock = shelves.stock + plate * n_products
        planned = shelves.planned + plate * n_products
        # A take needs a piece to be there, as far as counts can be trusted. A put-back goes where the product belongs,
        # even if the place is empty.
        for product in range(n_products):
            present = fmax(fmin(stock[product], 1.0), planned_there if planned[product] else 0.0)
            log_prior[product] += closeness * present
    for product in range(n_products):
        log_prior[product] = log(log_prior[product] + m[STORE_PRIOR]) if log_prior[product] > 0.0 else log_store


cdef inline int _slot(Identified* found, int limit, double score, int order) noexcept nogil:
    """Make room for an identification among the best, which are ordered by score; -1 where it is not one of them."""
    cdef int at = found.n
    while at > 0 and (found.score[at - 1] < score or (found.score[at - 1] == score and found.order[at - 1] > order)):
        at -= 1
    if at >= limit:
        return -1
    cdef int last = found.n if found.n < limit else limit - 1
    found.n = last + 1
    while last > at:
        found.score[last] = found.score[last - 1]
        found.order[last] = found.order[last - 1]
        found.product[last] = found.product[last - 1]
        found.quantity[last] = found.quantity[last - 1]
        found.log_likelihood[last] = found.log_likelihood[last - 1]
        found.log_place[last] = found.log_place[last - 1]
        found.log_quantity[last] = found.log_quantity[last - 1]
        last -= 1
    found.score[at] = score
    found.order[at] = order
    return at


cdef void _identify(
    const Shelves* shelves, const Load* load, double factor, const double* log_prior, int limit, Identified* found
) noexcept nogil:
    """The most probable products and quantities of a load over a factor; see `Planogram.identify`.

    Only identifications that may come within the spread of the best, and among the best, are weighed exactly: no
    density is above that of the wide tail's exponent alone.
    """
    cdef const double* m = shelves.model
    cdef double load_g = load.total_g / factor, noise_g2 = load.noise_g2 / (factor * factor)
    cdef int product, k, at, n_products = shelves.n_products, sign = -1 if load_g < 0.0 else 1
    cdef double nearest, pieces, expected, variance, missing, density, bound, score, log_quantity
    cdef double best = -1e300, least = -1e300, spread = m[IDENTIFIED_SPREAD]
    cdef double tail_exponent = -0.5 / (m[TAIL_SD_RATIO] * m[TAIL_SD_RATIO])
    cdef double log_least = log(2.0 * DENSITY_MIN), log_widest, log_likelihood
    cdef bint partly
    found.n = 0
    load_g = fabs(load_g)
    log_widest = -0.5 * log(TWO_PI * noise_g2) if noise_g2 > 0.0 else 1e300
    for product in range(n_products):
        nearest = fmax(_nearest(load_g / shelves.weight_g[product]), 1.0)
        for k in range(3):
            if k == 0 and nearest == 1.0:
                continue
            pieces = nearest - 1.0 + k
            expected = pieces * shelves.weight_g[product] * load.gain
            variance = noise_g2 + pieces * shelves.weight_sd_g[product] * shelves.weight_sd_g[product]
            variance += expected * expected * load.gain_var
            missing = expected - load_g
            partly = pieces == 1.0 and missing > m[HIDDEN_SHARE_MIN] * expected and missing < m[HIDDEN_MAX_G]
            log_quantity = _log_pieces(pieces, m)
            if not partly:
                bound = fmax(tail_exponent * missing * missing / variance + log_widest, log_least)
                if log_prior[product] + log_quantity + bound < least:
                    continue
            density = _density(-missing, variance, m)
            if partly:
                density += m[HIDDEN_PROBABILITY] / (0.5 * expected)
            log_likelihood = log(density)
            score = log_likelihood + log_prior[product] + log_quantity
            if score < least:
                continue
            best = fmax(best, score)
            at = _slot(found, limit, score, k * n_products + product)
            least = best - spread
            if found.n == limit:
                least = fmax(least, found.score[limit - 1])
            if at >= 0:
                found.product[at] = product
                found.quantity[at] = sign * <int>pieces
                found.log_likelihood[at] = log_likelihood
                found.log_place[at] = log_prior[product]
                found.log_quantity[at] = log_quantity
    while found.n > 0 and not found.score[found.n - 1] > found.score[0] - spread:
        found.n -= 1


cdef int _mixtures(
    const Shelves* shelves, const Load* load, int capacity, int* first, int* second, double* log_likelihood
) noexcept nogil:
    """Pairs of different products that lie on these plates and weigh the load together; returns their number."""
    cdef const double* m = shelves.model
    cdef int n_products = shelves.n_products, a, b, i, kept = 0
    cdef double expected, variance, log_density
    for a in range(n_products):
        if not _on_any(shelves, load, a):
            continue
        for b in range(a + 1, n_products):
            if not _on_any(shelves, load, b):
                continue
            expected = (shelves.weight_g[a] + shelves.weight_g[b]) * load.gain
            variance = load.noise_g2 + shelves.weight_sd_g[a] * shelves.weight_sd_g[a]
            variance += shelves.weight_sd_g[b] * shelves.weight_sd_g[b] + expected * expected * load.gain_var
            log_density = log(_density(fabs(load.total_g) - expected, variance, m))
            if log_density > m[MIXTURE_LOG_MIN] and kept < capacity:
                first[kept] = a
                second[kept] = b
                log_likelihood[kept] = log_density
                kept += 1
    return kept


cdef inline bint _on_any(const Shelves* shelves, const Load* load, int product) noexcept nogil:
    """Whether a product belongs on one of these plates, or lies there."""
    cdef int i
    cdef long long cell
    for i in range(load.n):
        cell = load.plates[i] * shelves.n_products + product
        if shelves.planned[cell] or shelves.stock[cell] > 0.5:
            return True
    return False


def log_place(tuple arrays not None, plates, delta_g, log_prior):
    """Log prior of the product of a load with its middle there; see `Planogram.log_place`.

    arrays: of the planogram. plates, delta_g (n,): of the load. log_prior (n_products,): out, every cell written.
    """
    cdef Shelves shelves
    cdef Load load
    _shelves(arrays, &shelves)
    load.plates, load.delta_g, load.n = _longs(plates), _doubles(delta_g), _length(plates)
    cdef double* out = _doubles(log_prior)
    with nogil:
        _load(&shelves, &load)
        _log_place(&shelves, &load, load.total_g < 0.0, out)


def identify(tuple arrays not None, plates, delta_g, double noise_g2, log_prior, goods, weights):
    """Products and quantities that suit the weight and the place of a load; see `Planogram.identify`.

    arrays: of the planogram. plates, delta_g (n,): of the load; noise_g2: variance of its sum. log_prior (n_products,):
    of the place; None: the planogram's own. goods (2, limit) int64: out, product and signed pieces; weights (3, limit)
    float64: out, log likelihood, log prior of the place and of the quantity. limit is at most IDENTIFIED_MAX. Returns
    the number found, best first.
    """
    cdef Shelves shelves
    cdef Load load
    cdef Identified found
    _shelves(arrays, &shelves)
    load.plates, load.delta_g, load.n, load.noise_g2 = _longs(plates), _doubles(delta_g), _length(plates), noise_g2
    cdef const double* prior = shelves.scratch if log_prior is None else _doubles(log_prior)
    cdef long long* goods_out = _longs(goods)
    cdef double* weights_out = _doubles(weights)
    cdef int limit = <int>cnp.PyArray_DIM(goods, 1), i
    cdef bint own_prior = log_prior is None
    with nogil:
        _load(&shelves, &load)
        if own_prior:
            _log_place(&shelves, &load, load.total_g < 0.0, shelves.scratch)
        _identify(&shelves, &load, 1.0, prior, limit, &found)
        for i in range(found.n):
            goods_out[i] = found.product[i]
            goods_out[limit + i] = found.quantity[i]
            weights_out[i] = found.log_likelihood[i]
            weights_out[limit + i] = found.log_place[i]
            weights_out[2 * limit + i] = found.log_quantity[i]
    return found.n
