# Whether a plate's loads are a wrong multiple of what goods weigh; `fusion/goods/factors.py` documents the model.

# Entries of the model of factors.
cdef enum:
    FACTOR_LOG_PRIOR, LOG_LOAD_MAX, LOG_ODDS_MIN, LOG_GIVEN_MAX, LOG_SUSPECT, MAIN_PLATE_SHARE
    TAKEN, RIGHT_PLACE, ELSEWHERE, NOT_AWAY, UNKNOWN_PER_G, FROM_AFAR, SMALLEST_PRIOR

# What `weigh_factors` returns: whether the plate, and the store, are suspect now.
cdef enum:
    PLATE_IS_SUSPECT = 1, STORE_IS_SUSPECT = 2

PLATE_SUSPECT, STORE_SUSPECT = PLATE_IS_SUSPECT, STORE_IS_SUSPECT


cdef void _log_put_back(const Shelves* shelves, const double* held, const double* f, double* log_prior) noexcept nogil:
    """The prior of a product that is put back, in place of that of its place."""
    cdef int product, n_products = shelves.n_products
    cdef double pieces, away, known, total = 0.0
    for product in range(n_products):
        total += _pieces(shelves, held, f, product)
    for product in range(n_products):
        pieces = _pieces(shelves, held, f, product)
        away = shelves.away[product] > 0.5
        known = fmax(fmin(pieces, 1.0), 1.0 if away else f[NOT_AWAY])
        log_prior[product] = log(
            f[RIGHT_PLACE] * fmin(exp(log_prior[product]), 1.0) * known
            + f[ELSEWHERE] * pieces / fmax(total, 1.0) + f[SMALLEST_PRIOR]
        )


cdef inline double _pieces(const Shelves* shelves, const double* held, const double* f, int product) noexcept nogil:
    cdef double away = 1.0 if shelves.away[product] > 0.5 else 0.0
    return away if held == NULL else f[FROM_AFAR] * away + fmin(held[product], 1.0)


cdef double _log_goods(
    const Shelves* shelves, const Load* load, double factor, const double* held, const double* f, int* prior_is
) noexcept nogil:
    """Log density, per gram of the reading over a factor, of a load at this place.

    prior_is: the sign of the load whose prior the scratch holds, 0 at first; out.
    """
    cdef Identified found
    cdef double sum_goods = 0.0, log_goods = -INFINITY
    cdef bint taken = load.total_g / factor < 0.0
    cdef int i, sign = -1 if taken else 1
    if prior_is[0] != sign:
        _log_place(shelves, load, taken, shelves.scratch)
        if not taken:
            _log_put_back(shelves, held, f, shelves.scratch)
        prior_is[0] = sign
    _identify(shelves, load, factor, shelves.scratch, 12, &found)
    if found.n > 0:
        for i in range(found.n):
            sum_goods += exp(found.score[i] - found.score[0])
        log_goods = found.score[0] + log(sum_goods)
    return _log_add(log(f[TAKEN] if taken else 1.0 - f[TAKEN]) + log_goods, log(f[UNKNOWN_PER_G]))


cdef inline void _add_evidence(
    double* of_plate, double* of_store, const double* plate_noise, const double* store_noise, double* given,
    double log_ratio, bint alone, const double* f
) noexcept nogil:
    """Add a load's evidence to the store's and, where the load was on one plate alone, to the plate's."""
    log_ratio = fmin(fmax(log_ratio, -f[LOG_LOAD_MAX]), f[LOG_LOAD_MAX])
    cdef double passed_on = fmin(fmax(given[0] + log_ratio, 0.0), f[LOG_GIVEN_MAX])
    cdef double for_store = fmin(log_ratio, passed_on - given[0]) if log_ratio > 0.0 else log_ratio
    cdef double least = f[LOG_ODDS_MIN] - f[FACTOR_LOG_PRIOR]
    given[0] = passed_on
    of_plate[0] = fmax(of_plate[0] + (log_ratio if alone else 0.0), least - plate_noise[0])
    of_store[0] = fmax(of_store[0] + for_store, least - store_noise[0])


def weigh_factors(
    tuple arrays not None, plates, delta_g, double noise_g2, held, factors, of_loads, of_noise, given, model, added,
):
    """Weigh a load against the hypotheses that its plate, or all plates, read a multiple of the true weight.

    arrays: of the planogram. plates, delta_g (n,), noise_g2: of the load. held (n_products,): pieces that the carts of
    those near are expected to hold; None: not known.
    factors (n_factors,). of_loads, of_noise (n_plates + 1, n_factors), given (n_plates, n_factors): evidence, in and
    out, see `ScaleFactors`. model: constants, see the enum. added (3, n_factors): out, what the load added to the
    evidence for its plate and for the store, and to what the plate has given to the store. Returns the flags above.
    """
    cdef Shelves shelves
    cdef Load load
    _shelves(arrays, &shelves)
    load.plates, load.delta_g, load.n, load.noise_g2 = _longs(plates), _doubles(delta_g), _length(plates), noise_g2
    cdef const double* held_pieces = NULL if held is None else _doubles(held)
    cdef const double* factor = _doubles(factors)
    cdef const double* f = _doubles(model)
    cdef double* loads = _doubles(of_loads)
    cdef const double* noise = _doubles(of_noise)
    cdef double* out = _doubles(added)
    cdef int n_factors = _length(factors), at, prior_is = 0, answer = 0
    cdef double* of_plate
    cdef double* of_store = loads + shelves.n_plates * n_factors
    cdef double* passed_on
    cdef const double* plate_noise
    cdef const double* store_noise = noise + shelves.n_plates * n_factors
    cdef double* plates_given = _doubles(given)
    cdef double honest, turned, log_odds
    cdef bint alone, explained
    with nogil:
        _load(&shelves, &load)
        at = <int>load.plates[load.main] * n_factors
        of_plate, plate_noise, passed_on = loads + at, noise + at, plates_given + at
        alone = fabs(load.delta_g[load.main]) > f[MAIN_PLATE_SHARE] * _size(load.delta_g, load.n)
        for at in range(n_factors):
            out[at], out[n_factors + at], out[2 * n_factors + at] = of_plate[at], of_store[at], passed_on[at]
        honest = _log_goods(&shelves, &load, 1.0, held_pieces, f, &prior_is)
        explained = honest > 0.5 * log(f[UNKNOWN_PER_G])
        for at in range(n_factors):
            log_odds = fmax(of_plate[at] + plate_noise[at], of_store[at] + store_noise[at]) + f[FACTOR_LOG_PRIOR]
            # A factor that is excluded need not be weighed against a load that is explained.
            if explained and log_odds < f[LOG_ODDS_MIN] + 1.0:
                continue
            turned = _log_goods(&shelves, &load, factor[at], held_pieces, f, &prior_is) - log(fabs(factor[at]))
            _add_evidence(
                of_plate + at, of_store + at, plate_noise + at, store_noise + at, passed_on + at, turned - honest,
                alone, f,
            )
        for at in range(n_factors):
            out[at] = of_plate[at] - out[at]
            out[n_factors + at] = of_store[at] - out[n_factors + at]
            out[2 * n_factors + at] = passed_on[at] - out[2 * n_factors + at]
            if f[FACTOR_LOG_PRIOR] + plate_noise[at] + of_plate[at] > f[LOG_SUSPECT]:
                answer |= PLATE_IS_SUSPECT
            if f[FACTOR_LOG_PRIOR] + store_noise[at] + of_store[at] > f[LOG_SUSPECT]:
                answer |= STORE_IS_SUSPECT
    return answer


def log_goods(tuple arrays not None, plates, delta_g, double noise_g2, model):
    """Log density, per gram, of a load on plates (n,), delta_g (n,), with no carts near; model: as of `weigh_factors`."""
    cdef Shelves shelves
    cdef Load load
    _shelves(arrays, &shelves)
    load.plates, load.delta_g, load.n, load.noise_g2 = _longs(plates), _doubles(delta_g), _length(plates), noise_g2
    cdef const double* f = _doubles(model)
    cdef int prior_is = 0
    cdef double log_density
    with nogil:
        _load(&shelves, &load)
        log_density = _log_goods(&shelves, &load, 1.0, NULL, f, &prior_is)
    return log_density
