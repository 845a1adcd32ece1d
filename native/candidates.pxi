# Candidates of a shelf event: people with products and quantities; `fusion/goods/candidates.py` documents the model.

# Entries of the model of candidates.
cdef enum:
    CANDIDATE_SPREAD, PUT_SPREAD, SHARED_SPREAD, SHARED_PEOPLE, SHARED_PIECES
    LOG_NOTHING_CAME, LOG_NOTHING_WENT, NOTHING_SCALE_G, PLACED_RIGHT, PLACED_ELSEWHERE
    ODD_TAKEN, MAIN_SHARE_FROM, MAIN_SHARE_TO, LOG_BROUGHT, LOG_UNSEEN_PUT, LOG_SAME_TIME, LOG_BOTH_HANDS
    RISE_S, RISE_SD_S, RISE_TAIL_S, RISE_TAIL, RISE_TAIL_G, RISE_HELD_S, RISE_HELD
    APART_S, REGRIP, BOTH_AT_ONCE, LEANS_LIKE_GRIP
    LOG_SHARING_RATIO, LOG_EXCHANGE, LOG_TWO_PUT, LOG_TWO_WAYS
    STOCKED_RIGHT, STOCKED_ELSEWHERE, STOCKED_PIECES

cdef enum:
    CANDIDATES_CAPACITY = 48, SPLITS_MAX = 256, PAIRS_MAX = 64, EXCHANGED_MAX = 2, BY_TURNS_MAX = 3
    SECONDS_MATTER = -1

# A cart that is expected to hold fewer pieces than this cannot have put one back.
cdef double HELD_LEAST = 1e-4

CANDIDATES_MAX, ASKS_FOR_SECONDS = CANDIDATES_CAPACITY, SECONDS_MATTER


cdef struct Rise:
    # Log density of the time that a load took to come or go, given what moved it.
    double nothing, one, many, both_hands, two


cdef struct Row:
    # A candidate: two parts with a person, the cart, a product and pieces each.
    int owner[2]
    int cart[2]
    int product[2]
    int quantity[2]
    double log_candidate, log_weight


cdef struct Ranked:
    # The best candidates so far, best first.
    int n
    double spread
    Row row[CANDIDATES_CAPACITY]


cdef struct Split:
    # A load as two parts; log prior times likelihood without the people, log likelihood of the weight alone, and log
    # priors that one person, or two, move two such parts in one load.
    int product[2]
    int quantity[2]
    double log_prior, log_likelihood, log_one, log_two


cdef struct Person:
    int track, cart
    double log_ratio


cdef void _rise(double rise_s, double size_g, const double* c, Rise* rise) noexcept nogil:
    cdef double tail, peak, one, two
    rise.nothing = rise.one = rise.many = rise.both_hands = rise.two = 0.0
    if isnan(rise_s):
        return
    rise_s = fmax(rise_s, 0.0)
    tail = fmin(c[RISE_TAIL] + c[RISE_TAIL_G] / size_g, 0.5)
    peak = (rise_s - c[RISE_S]) / c[RISE_SD_S]
    one = (1.0 - tail - c[RISE_HELD]) * exp(-0.5 * peak * peak) / (c[RISE_SD_S] * sqrt(TWO_PI))
    one += tail * exp(-rise_s / c[RISE_TAIL_S]) / c[RISE_TAIL_S]
    one += c[RISE_HELD] * exp(-rise_s / c[RISE_HELD_S]) / c[RISE_HELD_S]
    two = exp(-rise_s / c[APART_S]) / c[APART_S]
    rise.nothing = log(c[LEANS_LIKE_GRIP] * one + (1.0 - c[LEANS_LIKE_GRIP]) * two)
    rise.one = log(one)
    rise.many = log((1.0 - c[REGRIP]) * one + c[REGRIP] * two)
    rise.both_hands = log((1.0 - c[BOTH_AT_ONCE]) * two + c[BOTH_AT_ONCE] * one)
    rise.two = log(two)


cdef inline void _rank(Ranked* ranked, const Row* row) noexcept nogil:
    """Keep a candidate if it is one of the best; of equal ones, the first stays first."""
    cdef int at = ranked.n, last
    cdef double log_candidate = _compared(row.log_candidate)
    if at > 0 and not log_candidate > ranked.row[0].log_candidate - ranked.spread:
        return
    while at > 0 and ranked.row[at - 1].log_candidate < log_candidate:
        at -= 1
    if at >= CANDIDATES_CAPACITY:
        return
    last = ranked.n if ranked.n < CANDIDATES_CAPACITY else CANDIDATES_CAPACITY - 1
    ranked.n = last + 1
    while last > at:
        ranked.row[last] = ranked.row[last - 1]
        last -= 1
    ranked.row[at] = row[0]
    ranked.row[at].log_candidate = log_candidate


cdef inline double _belongs(const Shelves* shelves, const Load* load, int product, const double* c) noexcept nogil:
    """Whether a product belongs where most of a load rested, from 0 to 1."""
    cdef double belongs = 0.0, size = _size(load.delta_g, load.n)
    cdef int i
    for i in range(load.n):
        if shelves.planned[load.plates[i] * shelves.n_products + product]:
            belongs += fabs(load.delta_g[i]) / size
    belongs = (belongs - c[MAIN_SHARE_FROM]) / (c[MAIN_SHARE_TO] - c[MAIN_SHARE_FROM])
    return fmin(fmax(belongs, 0.0), 1.0)


cdef void _log_taken(const Shelves* shelves, const Load* load, const double* c, double* log_prior) noexcept nogil:
    """Log prior of each product as what left, by where most of the load rested; log_prior (n_products,): out."""
    cdef double belongs, log_odd = log(c[ODD_TAKEN])
    cdef int product
    _log_place(shelves, load, True, log_prior)
    for product in range(shelves.n_products):
        belongs = _belongs(shelves, load, product, c)
        if belongs > 0.0:
            log_prior[product] += log(c[ODD_TAKEN] + (1.0 - c[ODD_TAKEN]) * belongs)
        else:
            log_prior[product] += log_odd


cdef void _identify_taken(
    const Shelves* shelves, const Load* load, const double* c, Identified* found
) noexcept nogil:
    """What may have left."""
    _log_taken(shelves, load, c, shelves.scratch)
    _identify(shelves, load, 1.0, shelves.scratch, 12, found)


cdef inline void _log_put(const Shelves* shelves, const Load* load, const double* c, double* log_put) noexcept nogil:
    """Log prior of each product as what was put back here, if a cart holds it; log_put (n_products,): out."""
    cdef int product
    _log_place(shelves, load, False, log_put)
    for product in range(shelves.n_products):
        log_put[product] = log(c[PLACED_RIGHT] * fmin(exp(log_put[product]), 1.0) + c[PLACED_ELSEWHERE])


cdef inline double _log_filled(
    const Shelves* shelves, const Load* load, int product, double log_quantity, const double* c
) noexcept nogil:
    """Log prior of pieces of a product as what an employee put here."""
    cdef double right = c[STOCKED_RIGHT] * _belongs(shelves, load, product, c)
    return log(right * c[STOCKED_PIECES] + c[STOCKED_ELSEWHERE] * exp(log_quantity))


cdef void _log_stocked(
    const Shelves* shelves, const Load* load, const Identified* found, const double* c, double* log_stocked
) noexcept nogil:
    """Log prior of each identification as what an employee put here, or took; log_stocked (found.n,): out.

    What seems to lie here but does not belong here was perhaps never there, and makes no refill likelier.
    """
    cdef double* log_place = shelves.scratch
    cdef int i
    _log_place(shelves, load, True, log_place)
    for i in range(found.n):
        log_stocked[i] = log_place[found.product[i]] + found.log_quantity[i]
        if load.total_g > 0.0:
            log_stocked[i] = _log_filled(shelves, load, found.product[i], found.log_quantity[i], c)


cdef void _identify_put(
    const Shelves* shelves, const Load* load, const double* held, const double* c, Identified* found
) noexcept nogil:
    """What may have come; products that no cart near holds must not crowd out those that one does hold."""
    cdef double* log_put = shelves.scratch
    cdef double* log_prior = shelves.scratch + shelves.n_products
    cdef int product, i
    _log_put(shelves, load, c, log_put)
    for product in range(shelves.n_products):
        log_prior[product] = log_put[product]
        if held != NULL and not held[product] > HELD_LEAST:
            log_prior[product] += c[LOG_BROUGHT]
    _identify(shelves, load, 1.0, log_prior, 12, found)
    for i in range(found.n):
        found.log_place[i] = log_put[found.product[i]]


cdef double _least_shared(const Identified* found, const double* c) noexcept nogil:
    """How likely two parts must be: no hand evidence can outweigh a weight that is this much less likely than the best
    single identification."""
    cdef double least = -INFINITY
    cdef int i
    for i in range(found.n):
        least = fmax(least, found.log_likelihood[i] + found.log_place[i] + found.log_quantity[i])
    return least - c[SHARED_SPREAD]


cdef int _splits(
    const Shelves* shelves, const Load* load, const Identified* found, const double* seen, const double* c,
    Split* splits
) noexcept nogil:
    """Ways in which a load may be two parts: pieces of one product, or one piece each of two. Returns their number."""
    cdef const double* m = shelves.model
    cdef int a[PAIRS_MAX]
    cdef int b[PAIRS_MAX]
    cdef double log_pair[PAIRS_MAX]
    cdef int i, pieces, first, n = 0, n_pairs
    cdef double least = _least_shared(found, c), log_prior
    for i in range(found.n):
        pieces = -found.quantity[i]
        if pieces > c[SHARED_PIECES]:
            continue
        for first in range(1, pieces):
            log_prior = found.log_likelihood[i] + found.log_place[i] + m[LOG_ONE_PIECE if first == 1 else LOG_TWO_PIECES]
            log_prior += m[LOG_ONE_PIECE if pieces - first == 1 else LOG_TWO_PIECES]
            if log_prior > least:
                splits[n] = Split(
                    [found.product[i], found.product[i]], [-first, first - pieces], log_prior,
                    found.log_likelihood[i], c[LOG_BOTH_HANDS], c[LOG_SAME_TIME],
                )
                n += 1
    n_pairs = _mixtures(shelves, load, PAIRS_MAX, a, b, log_pair)
    for i in range(n_pairs):
        log_prior = log_pair[i] + 2.0 * m[LOG_ONE_PIECE]
        if seen != NULL:
            log_prior += fmax(seen[a[i]], seen[b[i]])
        if log_prior > least:
            n = _add_both(splits, n, a[i], -1, b[i], -1, log_prior, log_pair[i], c[LOG_BOTH_HANDS], c[LOG_SAME_TIME])
    return n


cdef inline int _add_both(
    Split* splits, int n, int product, int quantity, int other, int of_other, double log_prior, double log_likelihood,
    double log_one, double log_two
) noexcept nogil:
    """Add two parts in both orders, as far as there is room; returns the number of splits."""
    if n + 2 > SPLITS_MAX:
        return n
    splits[n] = Split([product, other], [quantity, of_other], log_prior, log_likelihood, log_one, log_two)
    splits[n + 1] = Split([other, product], [of_other, quantity], log_prior, log_likelihood, log_one, log_two)
    return n + 2


cdef double _log_weighs(
    const Shelves* shelves, const Load* load, int a, int n_a, int b, int n_b
) noexcept nogil:
    """Log density of a load as signed pieces of two products, each of them lying at a place of its own."""
    cdef const double* m = shelves.model
    cdef double first_g = n_a * shelves.weight_g[a], second_g = n_b * shelves.weight_g[b], net_g = first_g + second_g
    cdef double variance = load.noise_g2, place_var = m[PLACE_GAIN_SD] * m[PLACE_GAIN_SD], shares = 0.0, share
    cdef double size = fmax(_size(load.delta_g, load.n), 1e-9)
    cdef int i
    for i in range(load.n):
        share = load.delta_g[i] / size
        shares += share * share
    variance += abs(n_a) * shelves.weight_sd_g[a] * shelves.weight_sd_g[a]
    variance += abs(n_b) * shelves.weight_sd_g[b] * shelves.weight_sd_g[b]
    variance += net_g * net_g * (load.gain_var - place_var * shares)
    variance += (first_g * first_g + second_g * second_g) * load.gain * load.gain * place_var * shares
    return log(_density(load.total_g - net_g * load.gain, variance, m))


cdef int _exchanges(
    const Shelves* shelves, const Load* load, const double* log_taken, const double* log_put, double least,
    const double* held, const double* seen, const double* c, Split* splits, int n
) noexcept nogil:
    """Ways in which a load may be goods that were taken and others that were put back, or two that were put back.

    log_taken, log_put (n_products,): see `_log_taken` and `_log_put`. least: see `_least_shared`.

    held (n_products,): pieces that the carts near are expected to hold. splits holds n already; returns their number.
    Of two products on one plate, one is at a wrong place in any case, so that only the other's place counts.
    """
    cdef const double* m = shelves.model
    cdef double log_prior, log_likelihood
    cdef int put, other, pieces, taken
    for put in range(shelves.n_products):
        if not held[put] > HELD_LEAST:
            continue
        for other in range(shelves.n_products):
            if other == put:
                continue
            if other > put and held[other] > HELD_LEAST and load.total_g > 0.0:
                log_likelihood = _log_weighs(shelves, load, put, 1, other, 1)
                log_prior = log_likelihood + 2.0 * m[LOG_ONE_PIECE] + fmax(log_put[put], log_put[other])
                if seen != NULL:
                    log_prior += fmax(seen[put], seen[other])
                if log_prior + c[LOG_TWO_PUT] > least:
                    n = _add_both(
                        splits, n, put, 1, other, 1, log_prior, log_likelihood, c[LOG_TWO_PUT],
                        c[LOG_SAME_TIME] + c[LOG_TWO_WAYS],
                    )
            if not _on_any(shelves, load, other):
                continue
            for taken in range(1, EXCHANGED_MAX + 1):
                for pieces in range(1, EXCHANGED_MAX + 1):
                    if pieces > 1 and held[put] < pieces - 0.5:
                        break
                    log_likelihood = _log_weighs(shelves, load, other, -taken, put, pieces)
                    log_prior = log_likelihood + log_taken[other] + _log_pieces(taken, m) + _log_pieces(pieces, m)
                    if seen != NULL:
                        log_prior += fmax(seen[put], seen[other])
                    if log_prior + c[LOG_EXCHANGE] > least:
                        n = _add_both(
                            splits, n, other, -taken, put, pieces, log_prior, log_likelihood, c[LOG_EXCHANGE],
                            c[LOG_SAME_TIME] + c[LOG_TWO_WAYS],
                        )
    return n


cdef int _by_turns(
    const Shelves* shelves, const Load* load, const double* log_taken, const double* log_put, double least,
    const double* held, const double* seen, const double* c, Split* splits, int n
) noexcept nogil:
    """Ways in which a load may be pieces of one product that one person put here and another took.

    Of one person, they would be one load of the difference. The arguments are those of `_exchanges`, but held NULL: an
    employee may have put them.
    """
    cdef const double* m = shelves.model
    cdef double log_two = c[LOG_SAME_TIME] + c[LOG_TWO_WAYS]
    cdef double log_prior, log_likelihood, log_came
    cdef int product, pieces, taken
    for product in range(shelves.n_products):
        if not _on_any(shelves, load, product) or (held != NULL and not held[product] > HELD_LEAST):
            continue
        for pieces in range(1, BY_TURNS_MAX + 1):
            if held != NULL and pieces > 1 and held[product] < pieces - 0.5:
                break
            log_came = _log_pieces(pieces, m)
            log_came = log_put[product] + log_came if held != NULL else _log_filled(shelves, load, product, log_came, c)
            for taken in range(1, EXCHANGED_MAX + 1):
                if taken == pieces:
                    continue
                log_likelihood = _log_weighs(shelves, load, product, -taken, product, pieces)
                log_prior = log_likelihood + log_taken[product] + _log_pieces(taken, m) + log_came
                if seen != NULL:
                    log_prior += seen[product]
                if log_prior + log_two > least:
                    n = _add_both(
                        splits, n, product, -taken, product, pieces, log_prior, log_likelihood, -INFINITY, log_two
                    )
    return n


cdef int _both_put(
    const Shelves* shelves, const Load* load, const double* log_put, double least, const double* held,
    const double* seen, const double* c, Split* splits, int n
) noexcept nogil:
    """Ways in which a load may be pieces of one product that two people put here, the one after the other.

    The arguments are those of `_by_turns`. With held NULL, the one may be an employee who fills the shelf.
    """
    cdef const double* m = shelves.model
    cdef double log_two = c[LOG_SAME_TIME] + c[LOG_TWO_WAYS]
    cdef double log_prior, log_likelihood
    cdef int product, pieces, other
    for product in range(shelves.n_products):
        for pieces in range(1, EXCHANGED_MAX + 1):
            for other in range(1, pieces + 1):
                if held != NULL and held[product] < pieces + other - 0.5:
                    continue
                log_likelihood = _log_weighs(shelves, load, product, pieces, product, other)
                log_prior = log_likelihood + _log_pieces(other, m)
                if held != NULL:
                    log_prior += log_put[product] + _log_pieces(pieces, m)
                else:
                    # Where one piece lies, another of the same goes.
                    log_prior += _log_filled(shelves, load, product, _log_pieces(pieces, m), c)
                if seen != NULL:
                    log_prior += seen[product]
                if log_prior + log_two > least:
                    n = _add_both(
                        splits, n, product, pieces, product, other, log_prior, log_likelihood, -INFINITY, log_two
                    )
                    # Of as many pieces each, both orders are the same.
                    n -= pieces == other
    return n


cdef void _rank_shared(
    const Split* splits, int n_splits, const Person* actors, int n_actors, double log_total, const Person* seconds,
    int n_seconds, const Rise* rise, const double* c, Ranked* ranked
) noexcept nogil:
    """Candidates with two parts, moved by two people or by both hands of one before the plates came to rest."""
    cdef Row row
    cdef int s, i, j, n_firsts
    cdef double log_first
    for s in range(n_splits):
        for i in range(2):
            row.product[i], row.quantity[i] = splits[s].product[i], splits[s].quantity[i]
        row.log_weight = splits[s].log_likelihood
        n_firsts = 0
        for i in range(n_actors - 1):
            if n_firsts >= c[SHARED_PEOPLE] or not actors[i].log_ratio > c[LOG_SHARING_RATIO]:
                continue
            n_firsts += 1
            log_first = actors[i].log_ratio - log_total + splits[s].log_prior
            # Two grips of one product are that many pieces in any case; of two products, one order is enough.
            if splits[s].product[0] < splits[s].product[1]:
                row.owner = [actors[i].track, actors[i].track]
                row.cart = [actors[i].cart, actors[i].cart]
                row.log_candidate = log_first + splits[s].log_one + rise.both_hands
                _rank(ranked, &row)
            for j in range(n_seconds):
                if seconds[j].track != actors[i].track:
                    row.owner = [actors[i].track, seconds[j].track]
                    row.cart = [actors[i].cart, seconds[j].cart]
                    row.log_candidate = log_first + splits[s].log_two + seconds[j].log_ratio + rise.two
                    _rank(ranked, &row)


cdef int _people(object tracks, object carts, object log_ratio, Person* people, int capacity) except -1:
    cdef const long long* track = _longs(tracks)
    cdef const long long* cart = _longs(carts)
    cdef const double* ratio = _doubles(log_ratio)
    cdef int i, n = _length(tracks)
    for i in range(min(n, capacity)):
        people[i] = Person(<int>track[i], <int>cart[i], ratio[i])
    return min(n, capacity)


def propose(
    tuple arrays not None, plates, delta_g, double noise_g2, double rise_s, held, seen, double log_nothing_seen,
    actors, actor_carts, actor_log_ratio, staff, double log_total, seconds, second_carts, second_log_ratio, model, table,
    log_candidate, log_weight,
):
    """The candidates of an event; see `CandidateFinder.propose`.

    arrays: of the planogram. plates, delta_g (n,), noise_g2, rise_s: of the load. held (n_products,): pieces that the
    carts near are expected to hold; None: anything may come, and of two products no load is part taken, part put
    back. seen (n_products,), log_nothing_seen: log likelihood of what classifiers saw; None: nothing. actors,
    actor_carts (n_actors,) int64, actor_log_ratio: most likely first, and last the unseen; staff (n_actors,) bool:
    whether they are employees; None: nobody is. log_total: of their sum. seconds and their carts and ratios: whose hand
    may have been the second; None: not known. model: constants, see the enum.
    table (4, CANDIDATES_MAX + 1, 2) int32: out, owner, cart, product and quantity of each candidate, best first; the
    last one is that nothing moved. log_candidate, log_weight (CANDIDATES_MAX + 1,): out. Returns the number of
    candidates, or ASKS_FOR_SECONDS where second hands matter and are not given.
    """
    cdef Shelves shelves
    cdef Load load
    cdef Identified found
    cdef Rise rise
    cdef Ranked ranked
    cdef Row row
    cdef Split splits[SPLITS_MAX]
    cdef Person people[65]
    cdef Person others[65]
    _shelves(arrays, &shelves)
    cdef double* log_taken = shelves.scratch
    cdef double* log_put = shelves.scratch + shelves.n_products
    load.plates, load.delta_g, load.n, load.noise_g2 = _longs(plates), _doubles(delta_g), _length(plates), noise_g2
    cdef const double* held_pieces = NULL if held is None else _doubles(held)
    cdef const double* seen_products = NULL if seen is None else _doubles(seen)
    cdef int n_actors = _people(actors, actor_carts, actor_log_ratio, people, 65)
    cdef bint ask = seconds is None
    cdef int n_seconds = 0 if ask else _people(seconds, second_carts, second_log_ratio, others, 65)
    cdef const char* employed = NULL if staff is None else _bytes(staff)
    cdef double log_stocked[IDENTIFIED_CAPACITY]
    cdef const double* c = _doubles(model)
    cdef int* out = _ints(table)
    cdef double* candidate_out = _doubles(log_candidate)
    cdef double* weight_out = _doubles(log_weight)
    cdef int stride = 2 * (CANDIDATES_CAPACITY + 1), i, j, part, n_splits = 0
    cdef bint taken, asks = False
    cdef double log_nothing, least = -INFINITY
    with nogil:
        _load(&shelves, &load)
        taken = load.total_g < 0.0
        if taken:
            _identify_taken(&shelves, &load, c, &found)
        else:
            _identify_put(&shelves, &load, held_pieces, c, &found)
        if employed != NULL:
            _log_stocked(&shelves, &load, &found, c, log_stocked)
        if seen_products != NULL:
            for i in range(found.n):
                found.log_place[i] += seen_products[found.product[i]]
                if employed != NULL:
                    log_stocked[i] += seen_products[found.product[i]]
        if n_actors > 1 and people[0].log_ratio > c[LOG_SHARING_RATIO]:
            if taken and found.n > 0:
                n_splits = _splits(&shelves, &load, &found, seen_products, c, splits)
            asks = ask and n_splits > 0
            if held_pieces != NULL or n_actors > 2:
                least = _least_shared(&found, c)
                _log_taken(&shelves, &load, c, log_taken)
                _log_put(&shelves, &load, c, log_put)
            if held_pieces != NULL:
                n_splits = _exchanges(
                    &shelves, &load, log_taken, log_put, least, held_pieces, seen_products, c, splits, n_splits
                )
            if n_actors > 2:
                n_splits = _by_turns(
                    &shelves, &load, log_taken, log_put, least, held_pieces, seen_products, c, splits, n_splits
                )
                if not taken:
                    n_splits = _both_put(
                        &shelves, &load, log_put, least, held_pieces, seen_products, c, splits, n_splits
                    )
            # Of a single person in view, nobody else's hand can be the other's.
            asks = asks or (ask and n_splits > 0 and n_actors > 2)
        _rise(rise_s, _size(load.delta_g, load.n), c, &rise)
        ranked.n = 0
        ranked.spread = c[CANDIDATE_SPREAD] if taken else c[PUT_SPREAD]
        row.owner[1], row.cart[1], row.product[1], row.quantity[1] = -1, -1, 0, 0
        for i in range(n_actors):
            row.owner[0], row.cart[0] = people[i].track, people[i].cart
            for j in range(found.n):
                row.product[0], row.quantity[0] = found.product[j], found.quantity[j]
                row.log_weight = found.log_likelihood[j]
                if employed != NULL and employed[i]:
                    row.log_candidate = found.log_likelihood[j] + log_stocked[j]
                else:
                    row.log_candidate = found.log_likelihood[j] + found.log_place[j] + found.log_quantity[j]
                row.log_candidate += rise.many if found.quantity[j] > 1 or found.quantity[j] < -1 else rise.one
                row.log_candidate += people[i].log_ratio - log_total
                if not taken and i == n_actors - 1:
                    row.log_candidate += c[LOG_UNSEEN_PUT]
                _rank(&ranked, &row)
        if n_splits > 0 and not asks:
            _rank_shared(
                splits, n_splits, people, n_actors, log_total, others, n_seconds, &rise, c, &ranked
            )
        while ranked.n > 0 and not ranked.row[ranked.n - 1].log_candidate > ranked.row[0].log_candidate - ranked.spread:
            ranked.n -= 1
        for i in range(ranked.n):
            for part in range(2):
                out[2 * i + part] = ranked.row[i].owner[part]
                out[stride + 2 * i + part] = ranked.row[i].cart[part]
                out[2 * stride + 2 * i + part] = ranked.row[i].product[part]
                out[3 * stride + 2 * i + part] = ranked.row[i].quantity[part]
            candidate_out[i] = ranked.row[i].log_candidate
            weight_out[i] = ranked.row[i].log_weight
        i = ranked.n
        for part in range(2):
            out[2 * i + part] = out[stride + 2 * i + part] = -1
            out[2 * stride + 2 * i + part] = out[3 * stride + 2 * i + part] = 0
        log_nothing = (c[LOG_NOTHING_WENT] if taken else c[LOG_NOTHING_CAME]) - fabs(load.total_g) / c[NOTHING_SCALE_G]
        log_nothing += log_nothing_seen + rise.nothing
        candidate_out[i] = weight_out[i] = log_nothing
    return SECONDS_MATTER if asks else ranked.n + 1
