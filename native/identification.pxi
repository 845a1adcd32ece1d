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
cdef double DENSITY_MIN = 1e-300, LOG_DENSITY_MIN = -690.0, TWO_PI = 6.283185307179586, LOG_2 = 0.6931471805599453  # The log with a margin.


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
    const long long* place


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
    shelves.place = _longs(arrays[14])
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


cdef struct Nearby:
    # Products that belong in a row of plates or of which some may lie there: (n,) and whether each is there for certain.
    int n
    int* product
    char* in_row
    # (n_products,) whether each product is one of them.
    char* listed
    # (n,) log prior of each as the product of a load, and that of all other products.
    double* log_prior
    double log_elsewhere


cdef enum:
    TOGETHER = 16


cdef void _products_near(const Shelves* shelves, long long row, Nearby* near) noexcept nogil:
    """The products of a row, in the planogram's scratch rows of its own."""
    cdef int n_products = shelves.n_products, product, first, last, k
    cdef long long at, some
    cdef char any_planned
    cdef const double* stock
    cdef const char* planned
    cdef int* listed_product = <int*>(shelves.scratch + 4 * n_products)
    cdef char* in_row = <char*>(listed_product + n_products)
    cdef char* listed = in_row + n_products
    near.log_prior = shelves.scratch + 3 * n_products
    near.product, near.in_row, near.listed, near.n = listed_product, in_row, listed, 0
    near.log_elsewhere = log(shelves.model[STORE_PRIOR])
    memset(listed, 0, n_products)
    for at in range(shelves.member_start[row], shelves.member_start[row + 1]):
        stock = shelves.stock + shelves.member[at] * n_products
        planned = shelves.planned + shelves.member[at] * n_products
        # Nearly all cells are 0, so several are tested at once, by their bits.
        first = 0
        while first < n_products:
            last, some, any_planned = first + TOGETHER, 0, 0
            if last <= n_products:
                for k in range(TOGETHER):
                    some |= (<const long long*>stock)[first + k]
                    any_planned |= planned[first + k]
            if last > n_products or some != 0 or any_planned != 0:
                for product in range(first, last if last < n_products else n_products):
                    if planned[product] or stock[product] > 0.0:
                        # 1: a part of a piece is expected there; 3: the product is there.
                        listed[product] |= 3 if planned[product] or stock[product] > 0.5 else 1
            first = last
    for product in range(n_products):
        if listed[product]:
            listed_product[near.n], in_row[near.n] = product, listed[product] == 3
            near.n += 1


cdef void _log_prior_near(const Shelves* shelves, const Load* load, bint taken, Nearby* near) noexcept nogil:
    """Log prior of each product of the row as that of a load with its middle there; near: in and out."""
    cdef const double* m = shelves.model
    cdef int i, k
    cdef double size = fmax(_size(load.delta_g, load.n), 1e-9), middle_m = 0.0, offset, beyond, closeness, present
    cdef double planned_there = m[COUNT_WRONG] if taken else 1.0
    cdef long long row = shelves.row[load.plates[0]], at, plate
    cdef const double* stock
    cdef const char* planned
    for i in range(load.n):
        middle_m += fabs(load.delta_g[i]) / size * shelves.along_m[load.plates[i]]
    for k in range(near.n):
        near.log_prior[k] = m[ROW_PRIOR] if near.in_row[k] else 0.0
    for at in range(shelves.member_start[row], shelves.member_start[row + 1]):
        plate = shelves.member[at]
        offset = fabs(shelves.along_m[plate] - middle_m) / shelves.width_m[plate]
        if offset >= 2.0:
            continue
        beyond = fmax(offset - m[OFF_CENTRE_WIDTHS], 0.0) / m[OFF_CENTRE_SD_WIDTHS]
        closeness = m[PLANNED_PRIOR] * exp(-0.5 * beyond * beyond)
        stock = shelves.stock + plate * shelves.n_products
        planned = shelves.planned + plate * shelves.n_products
        # A take needs a piece to be there, as far as counts can be trusted. A put-back goes where the product belongs,
        # even if the place is empty.
        for k in range(near.n):
            present = planned_there if planned[near.product[k]] else 0.0
            near.log_prior[k] += closeness * fmax(fmin(stock[near.product[k]], 1.0), present)
    for k in range(near.n):
        near.log_prior[k] = log(near.log_prior[k] + m[STORE_PRIOR]) if near.log_prior[k] > 0.0 else near.log_elsewhere


cdef void _log_place(const Shelves* shelves, const Load* load, bint taken, double* log_prior) noexcept nogil:
    """Log prior of the product of a load with its middle there; log_prior (n_products,): out."""
    cdef Nearby near
    cdef int product, k
    _products_near(shelves, shelves.row[load.plates[0]], &near)
    _log_prior_near(shelves, load, taken, &near)
    for product in range(shelves.n_products):
        log_prior[product] = near.log_elsewhere
    for k in range(near.n):
        log_prior[near.product[k]] = near.log_prior[k]


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


cdef struct Search:
    # The identifications of a load over a factor, found up to now.
    double load_g, noise_g2, gain, gain_var
    # Log density of no error at the least variance; the best score; the least score that counts.
    double log_widest, best, least
    int sign, limit
    Identified* found


cdef inline void _begin(Search* search, const Load* load, double factor, int limit, Identified* found) noexcept nogil:
    cdef double load_g = load.total_g / factor
    found.n = 0
    search.noise_g2 = load.noise_g2 / (factor * factor)
    search.load_g, search.sign = fabs(load_g), -1 if load_g < 0.0 else 1
    search.gain, search.gain_var = load.gain, load.gain_var
    search.log_widest = -0.5 * log(TWO_PI * search.noise_g2) if search.noise_g2 > 0.0 else 1e300
    search.best, search.least = -1e300, -1e300
    search.limit, search.found = limit, found


cdef inline void _consider(const Shelves* shelves, Search* search, int product, double log_prior) noexcept nogil:
    """Weigh a product in the numbers of pieces that are nearest to the load.

    Only identifications that may come within the spread of the best, and among the best, are weighed exactly: no
    density is above that of the wide tail's exponent alone. So the order of the products does not matter.
    """
    cdef const double* m = shelves.model
    cdef Identified* found = search.found
    cdef int k, at
    cdef double nearest = fmax(_nearest(search.load_g / shelves.weight_g[product]), 1.0)
    cdef double pieces, expected, variance, missing, density, room, score, log_quantity, log_likelihood
    cdef double tail_sq = 2.0 * m[TAIL_SD_RATIO] * m[TAIL_SD_RATIO]
    cdef bint partly
    for k in range(3):
        if k == 0 and nearest == 1.0:
            continue
        pieces = nearest - 1.0 + k
        expected = pieces * shelves.weight_g[product] * search.gain
        variance = search.noise_g2 + pieces * shelves.weight_sd_g[product] * shelves.weight_sd_g[product]
        variance += expected * expected * search.gain_var
        missing = expected - search.load_g
        partly = pieces == 1.0 and missing > m[HIDDEN_SHARE_MIN] * expected and missing < m[HIDDEN_MAX_G]
        log_quantity = _log_pieces(pieces, m)
        if not partly:
            # How far below its bound the log density may be; no density is below DENSITY_MIN.
            room = log_prior + log_quantity - search.least
            if room + LOG_DENSITY_MIN < 0.0 and missing * missing > tail_sq * (room + search.log_widest) * variance:
                continue
        density = _density(-missing, variance, m)
        if partly:
            density += m[HIDDEN_PROBABILITY] / (0.5 * expected)
        log_likelihood = log(density)
        score = log_likelihood + log_prior + log_quantity
        if score < search.least:
            continue
        search.best = fmax(search.best, score)
        at = _slot(found, search.limit, score, k * shelves.n_products + product)
        search.least = search.best - m[IDENTIFIED_SPREAD]
        if found.n == search.limit:
            search.least = fmax(search.least, found.score[search.limit - 1])
        if at >= 0:
            found.product[at] = product
            found.quantity[at] = search.sign * <int>pieces
            found.log_likelihood[at] = log_likelihood
            found.log_place[at] = log_prior
            found.log_quantity[at] = log_quantity


cdef inline void _end(const Shelves* shelves, Identified* found) noexcept nogil:
    while found.n > 0 and not found.score[found.n - 1] > found.score[0] - shelves.model[IDENTIFIED_SPREAD]:
        found.n -= 1


cdef void _identify(
    const Shelves* shelves, const Load* load, double factor, const double* log_prior, int limit, Identified* found
) noexcept nogil:
    """The most probable products and quantities of a load over a factor; see `Planogram.identify`."""
    cdef Search search
    cdef int product
    _begin(&search, load, factor, limit, found)
    for product in range(shelves.n_products):
        _consider(shelves, &search, product, log_prior[product])
    _end(shelves, found)


cdef void _identify_near(
    const Shelves* shelves, const Load* load, Nearby* near, int limit, Identified* found
) noexcept nogil:
    """The same by the planogram's own prior; near: the products of the load's row. The likelier ones come first."""
    cdef Search search
    cdef int product, k
    _log_prior_near(shelves, load, load.total_g < 0.0, near)
    _begin(&search, load, 1.0, limit, found)
    for k in range(near.n):
        _consider(shelves, &search, near.product[k], near.log_prior[k])
    for product in range(shelves.n_products):
        if not near.listed[product]:
            _consider(shelves, &search, product, near.log_elsewhere)
    _end(shelves, found)


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
    cdef const double* prior = NULL if log_prior is None else _doubles(log_prior)
    cdef Nearby near
    cdef long long* goods_out = _longs(goods)
    cdef double* weights_out = _doubles(weights)
    cdef int limit = <int>cnp.PyArray_DIM(goods, 1), i
    with nogil:
        _load(&shelves, &load)
        if prior == NULL:
            _products_near(&shelves, shelves.row[load.plates[0]], &near)
            _identify_near(&shelves, &load, &near, limit, &found)
        else:
            _identify(&shelves, &load, 1.0, prior, limit, &found)
        for i in range(found.n):
            goods_out[i] = found.product[i]
            goods_out[limit + i] = found.quantity[i]
            weights_out[i] = found.log_likelihood[i]
            weights_out[limit + i] = found.log_place[i]
            weights_out[2 * limit + i] = found.log_quantity[i]
    return found.n
