# Joint hypotheses of the open events of a cluster; `fusion/goods/hypotheses.py` states the equations.

cdef enum:
    PLATES_CAPACITY = 16, HYPOTHESES_CAPACITY = 128

PLATES_MAX, HYPOTHESES_MAX = PLATES_CAPACITY, HYPOTHESES_CAPACITY

# Entries of the model of hypotheses and of undone loads.
cdef enum:
    BUSY_S, LOG_BUSY, HYPOTHESIS_SPREAD, UNDONE_S, LOG_UNDONE, SAME_LOAD_SDS, ALIKE_RATIO
    LOG_SAME_PUT, LOG_OTHER_PUT, LOG_SAME_TAKEN, LOG_OTHER_TAKEN, SAME_PIECE_SD_G

# How an earlier event is related to a new one, as bits: it may have been undone by it; it was at the same time.
cdef enum:
    MAY_BE_UNDONE = 1, AT_THE_SAME_TIME = 2


cdef struct Event:
    # A row of the records of events; see `EVENT` in `hypotheses.py`.
    long long event_id, contact_ns
    double total_g, noise_g2
    # Of events of different reaches, no hand was at the plates throughout.
    long long reach
    long long n_plates
    long long plate[PLATES_CAPACITY]
    double share[PLATES_CAPACITY]


cdef struct Table:
    # Candidates (n, 2): parts of each.
    int n
    int* owner
    int* cart
    int* product
    int* quantity


cdef struct Parts:
    # What an earlier event moved: the first part, and the number of parts.
    int cart, product, quantity, n


cdef inline Event* _events(object records) except? NULL:
    if not (cnp.PyArray_Check(records) and cnp.PyArray_ITEMSIZE(records) == sizeof(Event)):
        raise TypeError("want an array of records of events")
    return <Event*>cnp.PyArray_DATA(records)


cdef inline int _table(object columns, int n, Table* table) except -1:
    # columns (4, capacity, 2) int32, of which the first n are candidates.
    cdef int* at = _ints(columns)
    cdef int stride = 2 * <int>cnp.PyArray_DIM(columns, 1)
    table.n = n
    table.owner, table.cart, table.product, table.quantity = at, at + stride, at + 2 * stride, at + 3 * stride
    return 0


cdef struct Cluster:
    # A cluster's events, candidates and hypotheses; see `Cluster` in `hypotheses.py`.
    int n_events, n
    Event* event
    int* event_of
    Table table
    int* choices
    double* log_weight
    double* probability


cdef int _cluster(tuple arrays, Cluster* cluster) except -1:
    cluster.n_events = _length(arrays[0])
    cluster.event = _events(arrays[0])
    cluster.event_of = _ints(arrays[1])
    _table(arrays[2], <int>cnp.PyArray_DIM(arrays[2], 1), &cluster.table)
    cluster.n = _length(arrays[3])
    cluster.choices = _ints(arrays[3])
    cluster.log_weight = _doubles(arrays[4])
    cluster.probability = _doubles(arrays[5])
    return 0


# ---- the k best ------------------------------------------------------------------------------------------------------


cdef inline double _compared(double log_weight) noexcept nogil:
    """A log weight to 2^-32, so that equal ones are equal in whatever order their terms were summed.

    Numbers about 1.5 * 2^20 have this spacing.
    """
    return (log_weight + 1572864.0) - 1572864.0


cdef inline bint _is_worse(double key, int at, double other_key, int other_at) noexcept nogil:
    """Order of the k best: the greater key comes first; equal ones in a scattered order of their indices.

    In their own order, the first candidate of the oldest event would crowd out its equals. The factor is that of
    Fibonacci hashing, 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4).
    """
    if key != other_key:
        return key < other_key
    return <unsigned int>at * <unsigned int>2654435769 > <unsigned int>other_at * <unsigned int>2654435769


cdef inline void _sift_down(double* key, int* at, int start, int n) noexcept nogil:
    # Restore a heap with its worst key on top, from `start` downwards.
    cdef int root = start, child, swap_at
    cdef double swap_key
    while True:
        child = 2 * root + 1
        if child >= n:
            return
        if child + 1 < n and _is_worse(key[child + 1], at[child + 1], key[child], at[child]):
            child += 1
        if not _is_worse(key[child], at[child], key[root], at[root]):
            return
        swap_key = key[root]
        key[root] = key[child]
        key[child] = swap_key
        swap_at = at[root]
        at[root] = at[child]
        at[child] = swap_at
        root = child


cdef inline int _offer(double* key, int* at, int n, int limit, double new_key, int new_at) noexcept nogil:
    # Offer a key to a heap of the best keys, at most `limit`; returns how many are kept.
    cdef int child, parent
    if n < limit:
        child = n
        key[child] = new_key
        at[child] = new_at
        while child > 0:
            parent = (child - 1) // 2
            if not _is_worse(new_key, new_at, key[parent], at[parent]):
                break
            key[child] = key[parent]
            at[child] = at[parent]
            child = parent
        key[child] = new_key
        at[child] = new_at
        return n + 1
    if _is_worse(key[0], at[0], new_key, new_at):
        key[0] = new_key
        at[0] = new_at
        _sift_down(key, at, 0, n)
    return n


cdef inline void _drain(double* key, int* at, int n) noexcept nogil:
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


cdef inline void _normalise(double* log_weight, int n) noexcept nogil:
    """Shift log weights so that their probabilities sum to one."""
    cdef int i
    cdef double top = log_weight[0], total = 0.0
    for i in range(1, n):
        top = fmax(top, log_weight[i])
    for i in range(n):
        total += exp(log_weight[i] - top)
    top += log(total)
    for i in range(n):
        log_weight[i] -= top


cdef inline void _marginals(
    const int* choices, const double* log_weight, int n, int n_events, double* probability, int n_candidates
) noexcept nogil:
    """Probability of every candidate: the sum of w(h) over the hypotheses h that pick it."""
    cdef int row, event
    cdef double weight
    for row in range(n_candidates):
        probability[row] = 0.0
    for row in range(n):
        weight = exp(log_weight[row])
        for event in range(n_events):
            probability[choices[row * n_events + event]] += weight


# ---- loads that undo others ------------------------------------------------------------------------------------------


cdef inline bint _follows(const Event* earlier, const Event* later, const double* u) noexcept nogil:
    """Whether a load came or went soon after an earlier one, on one of its plates."""
    cdef double gap_s = (later.contact_ns - earlier.contact_ns) * 1e-9
    cdef int i, j
    if not 0.0 < gap_s < u[UNDONE_S] or earlier.reach != later.reach:
        return False
    for i in range(<int>earlier.n_plates):
        for j in range(<int>later.n_plates):
            if earlier.plate[i] == later.plate[j]:
                return True
    return False


cdef inline bint _remainder(
    const Event* earlier, const Event* later, const double* u, double* left_g, double* sd_g
) noexcept nogil:
    """Whether a load takes back an earlier one on the same plates; what then remains of both, and its deviation."""
    if earlier.total_g * later.total_g > 0.0 or not _follows(earlier, later, u):
        return False
    left_g[0] = earlier.total_g + later.total_g
    sd_g[0] = sqrt(earlier.noise_g2 + later.noise_g2) + 2.0 + 0.02 * fabs(later.total_g)
    return fabs(left_g[0]) < u[SAME_LOAD_SDS] * sd_g[0]


cdef inline bint _alike(const Event* earlier, const Event* later, const double* u) noexcept nogil:
    """Whether both loads may have undone the same lean."""
    return (
        earlier.total_g * later.total_g > 0.0
        and _follows(earlier, later, u)
        and earlier.total_g / later.total_g < u[ALIKE_RATIO]
    )


cdef double _log_same_load(
    const Shelves* shelves, const Event* earlier, const Event* later, const Parts* parts, int pieces, const double* u
) noexcept nogil:
    """Log density of the later load if it is this many pieces of the earlier one.

    They weigh what they did then, as well as that was measured, and what such goods weigh.
    """
    cdef const double* m = shelves.model
    cdef double gain_before = 0.0, gain_after = 0.0, gain_var = 0.0, place_var = 0.0, share, expected_g, var_g2, off_g
    cdef double part = pieces / <double>abs(parts.quantity), of_goods = 0.0, goods_g, goods_g2
    cdef double piece_g2 = shelves.weight_sd_g[parts.product] * shelves.weight_sd_g[parts.product]
    cdef double place_sd = m[PLACE_GAIN_SD]
    cdef int i, j
    # The part of a plate's gain that both loads have in common cancels.
    for i in range(<int>earlier.n_plates):
        gain_before += earlier.share[i] * shelves.gain[earlier.plate[i]]
        place_var += place_sd * place_sd * earlier.share[i] * earlier.share[i]
        share = -earlier.share[i]
        for j in range(<int>later.n_plates):
            if later.plate[j] == earlier.plate[i]:
                share += later.share[j]
        gain_var += share * share * shelves.gain_var[earlier.plate[i]]
    for j in range(<int>later.n_plates):
        gain_after += later.share[j] * shelves.gain[later.plate[j]]
        place_var += place_sd * place_sd * later.share[j] * later.share[j]
        of_goods += (shelves.gain_var[later.plate[j]] + place_sd * place_sd) * later.share[j] * later.share[j]
        for i in range(<int>earlier.n_plates):
            if later.plate[j] == earlier.plate[i]:
                break
        else:
            gain_var += later.share[j] * later.share[j] * shelves.gain_var[later.plate[j]]
    expected_g = fabs(earlier.total_g) * part * gain_after / gain_before
    var_g2 = part * part * earlier.noise_g2 + pieces * (1.0 - part) * piece_g2
    var_g2 += expected_g * expected_g * (gain_var + place_var)
    goods_g = pieces * shelves.weight_g[parts.product] * gain_after
    goods_g2 = pieces * piece_g2 + goods_g * goods_g * of_goods
    expected_g = (expected_g * goods_g2 + goods_g * var_g2) / (var_g2 + goods_g2)
    var_g2 = var_g2 * goods_g2 / (var_g2 + goods_g2)
    var_g2 += later.noise_g2 + u[SAME_PIECE_SD_G] * u[SAME_PIECE_SD_G]
    off_g = fabs(later.total_g) - expected_g
    return -0.5 * (off_g * off_g / var_g2 + log(TWO_PI * var_g2))


cdef bint _undoes(
    const Shelves* shelves, const Event* earlier, const Parts* parts, const Event* later, const Table* new, int row,
    double log_weight, const double* u, double* log_ratio
) noexcept nogil:
    """Whether a new candidate undoes an earlier event that moved these parts, and the log ratio of that."""
    cdef double left_g, sd_g, log_is, log_other
    cdef int pieces, most, least
    if parts.n == 0:
        # The candidate that nothing moved, as the end of a lean: only goods leave a plate first and come again.
        if row < new.n - 1 or not earlier.total_g > 0.0 or not _remainder(earlier, later, u, &left_g, &sd_g):
            return False
        log_ratio[0] = -0.5 * (left_g / sd_g) * (left_g / sd_g) - log(sd_g * sqrt(TWO_PI))
        log_ratio[0] = fmax(log_ratio[0] + u[LOG_UNDONE] - log_weight, 0.0)
        return True
    if (
        parts.n > 1 or parts.cart < 0 or new.quantity[2 * row] == 0 or new.quantity[2 * row + 1] != 0
        or new.cart[2 * row] != parts.cart or new.product[2 * row] != parts.product
    ):
        return False
    pieces = new.quantity[2 * row]
    if parts.quantity < 0:
        log_is, log_other = u[LOG_SAME_PUT], u[LOG_OTHER_PUT]
        most, least = -parts.quantity, 1
    else:
        log_is, log_other = u[LOG_SAME_TAKEN], u[LOG_OTHER_TAKEN]
        most = least = -parts.quantity
        if not _remainder(earlier, later, u, &left_g, &sd_g):
            return False
    if not least <= pieces <= most:
        return False
    log_is += _log_same_load(shelves, earlier, later, parts, abs(pieces), u) - log_weight
    log_ratio[0] = _log_add(log_other, log_is)
    return True


cdef inline Parts _parts(const Table* table, int row) noexcept nogil:
    cdef Parts parts
    cdef int part
    parts.n = 0
    for part in range(2 * row, 2 * row + 2):
        if table.quantity[part] != 0:
            if parts.n == 0:
                parts.cart, parts.product, parts.quantity = table.cart[part], table.product[part], table.quantity[part]
            parts.n += 1
    return parts


def note_event(
    long long event_id, long long contact_ns, double total_g, double noise_g2, long long reach, plates, share, record
):
    """Write the record of an event. reach: see `OpenEvent`. plates, share (n,): that bear the load; record (1,): out."""
    cdef const long long* plate = _longs(plates)
    cdef const double* of_load = _doubles(share)
    cdef Event* event = _events(record)
    cdef int i
    memset(event, 0, sizeof(Event))
    event.event_id, event.contact_ns, event.total_g, event.noise_g2 = event_id, contact_ns, total_g, noise_g2
    event.reach = reach
    event.n_plates = min(_length(plates), PLATES_CAPACITY)
    for i in range(<int>event.n_plates):
        event.plate[i], event.share[i] = plate[i], of_load[i]


def relate(list clusters not None, list recent not None, record, model, relations):
    """How earlier events are related to a new one.

    clusters: their arrays, as for `extend`. recent: records of settled events. record: of the new event. model:
    constants, see the enum. relations (len(clusters),) int32: out, bits of all events of each. Returns the greatest id
    of an event that the new one may undo, -1 without one.
    """
    cdef Event* later = _events(record)
    cdef const double* u = _doubles(model)
    cdef int* out = _ints(relations)
    cdef Event* earlier
    cdef int i, j
    cdef long long apart_ns, busy_ns = <long long>(u[BUSY_S] * 1e9), undone = -1
    cdef double left_g, sd_g
    for i in range(len(clusters)):
        earlier = _events(clusters[i][0])
        out[i] = 0
        for j in range(_length(clusters[i][0])):
            apart_ns = earlier[j].contact_ns - later.contact_ns
            if -busy_ns < apart_ns < busy_ns:
                out[i] |= AT_THE_SAME_TIME
            if _remainder(earlier + j, later, u, &left_g, &sd_g):
                out[i] |= MAY_BE_UNDONE
                undone = max(undone, earlier[j].event_id)
    for i in range(len(recent)):
        earlier = _events(recent[i])
        if _remainder(earlier, later, u, &left_g, &sd_g):
            undone = max(undone, earlier.event_id)
    return undone


cdef struct Moves:
    # What a new event's candidates say: who acts, and the carts and products that are put back; each once.
    int n_people, n_put
    int person[2 * CANDIDATES_CAPACITY + 2]
    int cart[2 * CANDIDATES_CAPACITY + 2]
    int product[2 * CANDIDATES_CAPACITY + 2]


cdef void _moves(const Table* new, Moves* moves) noexcept nogil:
    cdef int mine, i
    moves.n_people = moves.n_put = 0
    for mine in range(2 * new.n):
        if new.owner[mine] < 0 or new.quantity[mine] == 0:
            continue
        if not _is_in(new.owner[mine], moves.person, moves.n_people):
            moves.person[moves.n_people] = new.owner[mine]
            moves.n_people += 1
        if new.quantity[mine] < 0:
            continue
        i = 0
        while i < moves.n_put and not (moves.cart[i] == new.cart[mine] and moves.product[i] == new.product[mine]):
            i += 1
        if i == moves.n_put:
            moves.cart[i], moves.product[i] = new.cart[mine], new.product[mine]
            moves.n_put += 1


cdef bint _is_tied(
    const Table* table, const double* probability, const Moves* moves, bint simultaneous, double negligible
) noexcept nogil:
    """Whether a cluster's people act at the same time, or may hold what is put back."""
    cdef int row, part, i
    cdef double expected[2 * CANDIDATES_CAPACITY + 2]
    for i in range(moves.n_put):
        expected[i] = 0.0
    for row in range(table.n):
        if not probability[row] > 1e-4:
            continue
        for part in range(2 * row, 2 * row + 2):
            if table.owner[part] < 0 or table.quantity[part] == 0:
                continue
            if simultaneous and probability[row] > negligible and (
                _is_in(table.owner[part], moves.person, moves.n_people)
            ):
                return True
            if table.quantity[part] < 0:
                for i in range(moves.n_put):
                    if moves.cart[i] == table.cart[part] and moves.product[i] == table.product[part]:
                        expected[i] -= table.quantity[part] * probability[row]
    for i in range(moves.n_put):
        if expected[i] > negligible:
            return True
    return False


def tie(list clusters not None, candidates, int n_new, double negligible, relations):
    """The clusters that a new event's candidates depend on.

    clusters: their arrays, as for `extend`. candidates: table of which the first n_new are those of the new event.
    negligible: probability, or expected pieces, that tie nothing. relations (len(clusters),) int32: of `relate`, in;
    out: not zero where tied.
    """
    cdef int* relation = _ints(relations)
    cdef Table new, table
    cdef Moves moves
    cdef int i
    cdef bint simultaneous
    _table(candidates, n_new, &new)
    _moves(&new, &moves)
    for i in range(len(clusters)):
        if relation[i] & MAY_BE_UNDONE:
            continue
        simultaneous = relation[i] & AT_THE_SAME_TIME
        relation[i] = 0
        # Nothing that was taken says something about what is taken.
        if simultaneous or moves.n_put > 0:
            _table(clusters[i][2], <int>cnp.PyArray_DIM(clusters[i][2], 1), &table)
            relation[i] = _is_tied(&table, _doubles(clusters[i][5]), &moves, simultaneous, negligible)


def add_expected(list clusters not None, carts, double negligible, pieces):
    """Add the pieces that carts are expected to have taken, put-backs not subtracted.

    clusters: their arrays, as for `extend`. carts (n,) int32; None: all. negligible: clusters in which no cart acts with
    more probability are left out. pieces (n_products,): in and out.
    """
    cdef const int* wanted = NULL if carts is None else _ints(carts)
    cdef int n_wanted = 0 if carts is None else _length(carts)
    cdef double* out = _doubles(pieces)
    cdef const double* p
    cdef Table table
    cdef int i, row, part
    cdef bint acts
    for i in range(len(clusters)):
        _table(clusters[i][2], <int>cnp.PyArray_DIM(clusters[i][2], 1), &table)
        p = _doubles(clusters[i][5])
        acts = wanted == NULL
        for row in range(table.n):
            if acts:
                break
            if p[row] > negligible:
                for part in range(2 * row, 2 * row + 2):
                    if table.owner[part] >= 0 and table.quantity[part] != 0:
                        acts = acts or _is_in(table.cart[part], wanted, n_wanted)
        if not acts:
            continue
        for row in range(table.n):
            if not p[row] > 1e-4:
                continue
            for part in range(2 * row, 2 * row + 2):
                if table.owner[part] < 0 or table.quantity[part] >= 0:
                    continue
                if wanted == NULL or _is_in(table.cart[part], wanted, n_wanted):
                    out[table.product[part]] -= table.quantity[part] * p[row]


cdef inline bint _is_in(int value, const int* values, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        if values[i] == value:
            return True
    return False


# ---- a new event of a cluster ----------------------------------------------------------------------------------------


cdef void _open_pairs(
    const Shelves* shelves, const Cluster* cluster, const Event* later, const Table* new, const double* log_weight,
    const double* u, double* pair_ratio, double* greatest
) noexcept nogil:
    """Ratio of each new candidate as the undoing of each older one (n_old, n_new); nothing is written without any.

    NaN where it does not undo it; infinite where the older one has already undone the event that the new one would
    undo. greatest (n_new,): out, the greatest finite ratio of each, negative where it undoes none.
    """
    cdef int row, column, cell
    cdef bint same_way, found = False
    cdef Parts parts
    cdef double log_ratio
    cdef const Event* earlier
    for column in range(new.n):
        greatest[column] = -1.0
    for row in range(cluster.table.n):
        earlier = cluster.event + cluster.event_of[row]
        same_way = earlier.total_g * later.total_g > 0.0
        if same_way and (later.total_g > 0.0 or not _alike(earlier, later, u)):
            continue
        if not cluster.probability[row] > 1e-6:
            continue
        parts = _parts(&cluster.table, row)
        if (same_way and parts.n > 0) or parts.n > 1 or (parts.n == 1 and parts.cart < 0):
            continue
        # Only the last candidate, that nothing moved, undoes what moved nothing.
        for column in range(new.n - 1 if parts.n == 0 else 0, new.n):
            if parts.n == 1 and not (
                new.cart[2 * column] == parts.cart and new.product[2 * column] == parts.product
            ):
                continue
            if same_way:
                log_ratio = INFINITY
            elif not _undoes(shelves, earlier, &parts, later, new, column, log_weight[column], u, &log_ratio):
                continue
            if not found:
                found = True
                for cell in range(cluster.table.n * new.n):
                    pair_ratio[cell] = NAN
            pair_ratio[row * new.n + column] = exp(log_ratio)
            greatest[column] = fmax(greatest[column], 0.0 if same_way else exp(log_ratio))


cdef int _extend(
    const Cluster* cluster, const Event* later, const Table* new, const double* log_candidate, const int* held,
    const double* log_not_held, const double* pair_ratio, const double* greatest, const double* settled_ratio,
    const int* n_settled, const double* u, int limit, double* key, int* pick
) noexcept nogil:
    """Extend every joint hypothesis by every candidate of a new event, and keep the best:

        log w(h, c) = log w(h) + log P(c) p(event | c) + log P(c | h)

    with the last term from what carts hold under h, from hands that cannot be in two places, and from undone loads.
    Every pair is weighed, so the kept ones are the exact k best of those that extend the given hypotheses. A candidate
    undoes exactly one of all the events that it may undo, each equally likely.
    """
    cdef int row, column, rank, event, other, part, theirs, has, kept = 0, n_undone, mine
    cdef long long apart_ns, busy_ns = <long long>(u[BUSY_S] * 1e9)
    cdef double weight, ratio, best = -1e300, least = -1e300
    cdef double most[CANDIDATES_CAPACITY + 1]
    cdef int order[CANDIDATES_CAPACITY + 1]
    cdef bint concerned[2 * CANDIDATES_CAPACITY + 2]
    cdef const double* of_pair
    cdef const Table* table = &cluster.table
    cdef const int* choice
    # Only undone loads raise a candidate's weight, by no more than the greatest of their ratios.
    for column in range(new.n):
        ratio = fmax(fmax(settled_ratio[column], greatest[column]), 1.0)
        most[column] = log_candidate[column] + log(ratio) + 1e-6
    # Parts for which older candidates matter: of that person at that time, or of that cart and product.
    for mine in range(2 * new.n):
        concerned[mine] = False
        if new.quantity[mine] == 0 or new.owner[mine] < 0:
            continue
        for other in range(2 * table.n):
            if table.quantity[other] == 0:
                continue
            if table.cart[other] == new.cart[mine] and table.product[other] == new.product[mine]:
                concerned[mine] = True
                break
            if table.owner[other] == new.owner[mine]:
                apart_ns = cluster.event[cluster.event_of[other // 2]].contact_ns - later.contact_ns
                if -busy_ns < apart_ns < busy_ns:
                    concerned[mine] = True
                    break
        if not concerned[mine] and log_not_held != NULL and new.quantity[mine] > held[mine]:
            most[mine // 2] += log_not_held[mine]
    # By the most that they can weigh, so that the rest can be left out as soon as one weighs too little.
    for column in range(new.n):
        other = column
        while other > 0 and most[order[other - 1]] < most[column]:
            order[other] = order[other - 1]
            other -= 1
        order[other] = column
    for row in range(cluster.n):
        choice = cluster.choices + row * cluster.n_events
        for rank in range(new.n):
            column = order[rank]
            if cluster.log_weight[row] + most[column] < least:
                break
            weight = cluster.log_weight[row] + log_candidate[column]
            for part in range(2):
                mine = 2 * column + part
                if new.quantity[mine] == 0 or new.owner[mine] < 0:
                    continue
                has = held[mine] if held != NULL else 0
                for event in range(cluster.n_events if concerned[mine] else 0):
                    apart_ns = cluster.event[event].contact_ns - later.contact_ns
                    for theirs in range(2):
                        other = 2 * choice[event] + theirs
                        if table.quantity[other] == 0:
                            continue
                        # Quantities count pieces on the shelf, so pieces that were taken from it are held.
                        if (
                            table.cart[other] == new.cart[mine] and table.product[other] == new.product[mine]
                            and apart_ns <= 0
                        ):
                            has -= table.quantity[other]
                        if -busy_ns < apart_ns < busy_ns and table.owner[other] == new.owner[mine]:
                            weight += u[LOG_BUSY]
                if new.quantity[mine] > has and log_not_held != NULL:
                    weight += log_not_held[mine]
            ratio = settled_ratio[column]
            n_undone = n_settled[column]
            for event in range(cluster.n_events if greatest[column] >= 0.0 else 0):
                of_pair = pair_ratio + choice[event] * new.n + column
                if of_pair[0] > 1e300:
                    n_undone = 0
                    break
                if not isnan(of_pair[0]):
                    ratio += of_pair[0]
                    n_undone += 1
            if n_undone > 0:
                weight += log(ratio / n_undone)
            weight = _compared(weight)
            best = fmax(best, weight)
            kept = _offer(key, pick, kept, limit, weight, row * new.n + column)
            least = best - u[HYPOTHESIS_SPREAD]
            if kept == limit:
                least = fmax(least, key[0])
    _drain(key, pick, kept)
    while kept > 1 and key[kept - 1] < best - u[HYPOTHESIS_SPREAD]:
        kept -= 1
    return kept


def extend(
    tuple arrays not None, tuple cluster_arrays not None, record, candidates, int n_new, log_candidate, log_weight,
    held, log_not_held, list earlier not None, earlier_parts, model, log_pair, tuple out not None,
):
    """Add an event to a cluster.

    arrays: of the planogram. cluster_arrays: records (n_events,), event_of (n_old,) int32, table (4, n_old, 2) int32,
    choices (n, n_events) int32, log_weight (n,), probability (n_old,). record: of the new event. candidates: table of
    which the first n_new are its candidates, with log_candidate and log_weight: log prior times likelihood, and log
    likelihood of the weight alone.
    held (n_new, 2) int32: pieces that the cart of a part holds besides what this cluster decides; log_not_held
    (n_new, 2): added where a part puts back what its cart does not hold by then. None: nothing is put back.
    earlier: records of settled events that the new one may undo, with earlier_parts (len(earlier), 4) int32: cart,
    product and quantity of their first part, and the number of parts. model: constants, see the enum.
    log_pair: scratch, at least n_old n_new numbers.
    out: the same arrays as those of the cluster with the new event; choices and log_weight have as many rows as
    hypotheses are kept, at most HYPOTHESES_MAX. Returns the number of hypotheses, best first.
    """
    cdef Shelves shelves
    cdef Cluster cluster, extended
    cdef Table new
    cdef double key[HYPOTHESES_CAPACITY]
    cdef int pick[HYPOTHESES_CAPACITY]
    cdef double settled_ratio[CANDIDATES_CAPACITY + 1]
    cdef double greatest[CANDIDATES_CAPACITY + 1]
    cdef int n_settled[CANDIDATES_CAPACITY + 1]
    cdef Parts parts
    _shelves(arrays, &shelves)
    _cluster(cluster_arrays, &cluster)
    _cluster(out, &extended)
    _table(candidates, n_new, &new)
    cdef Event* later = _events(record)
    cdef const double* candidate = _doubles(log_candidate)
    cdef const double* weight = _doubles(log_weight)
    cdef const int* certainly = NULL if held is None else _ints(held)
    cdef const double* not_held = NULL if log_not_held is None else _doubles(log_not_held)
    cdef const int* moved = NULL if earlier_parts is None else _ints(earlier_parts)
    cdef const double* u = _doubles(model)
    cdef double* pairs = _doubles(log_pair)
    cdef Event* settled
    cdef int i, column, kept, limit = min(extended.n, HYPOTHESES_CAPACITY)
    cdef double log_ratio
    for column in range(n_new):
        settled_ratio[column], n_settled[column] = 0.0, 0
    for i in range(len(earlier)):
        settled = _events(earlier[i])
        parts = Parts(moved[4 * i], moved[4 * i + 1], moved[4 * i + 2], moved[4 * i + 3])
        for column in range(n_new):
            if _undoes(&shelves, settled, &parts, later, &new, column, weight[column], u, &log_ratio):
                settled_ratio[column] += exp(log_ratio)
                n_settled[column] += 1
    with nogil:
        _open_pairs(&shelves, &cluster, later, &new, weight, u, pairs, greatest)
        kept = _extend(
            &cluster, later, &new, candidate, certainly, not_held, pairs, greatest, settled_ratio, n_settled, u, limit,
            key, pick,
        )
        _write(&cluster, later, &new, kept, key, pick, &extended)
    return kept


cdef inline void _copy_ints(int* to, const int* source, int n) noexcept nogil:
    memcpy(to, source, n * sizeof(int))


cdef void _write(
    const Cluster* cluster, const Event* later, const Table* new, int kept, const double* key, const int* pick,
    Cluster* out
) noexcept nogil:
    """Write a cluster with a new event: the kept pairs of a hypothesis and a candidate, and what follows from them."""
    cdef int n_events = cluster.n_events, first = cluster.table.n, row
    memcpy(out.event, cluster.event, n_events * sizeof(Event))
    out.event[n_events] = later[0]
    _copy_ints(out.event_of, cluster.event_of, first)
    for row in range(new.n):
        out.event_of[first + row] = n_events
    _join(cluster.table.owner, new.owner, first, new.n, out.table.owner)
    _join(cluster.table.cart, new.cart, first, new.n, out.table.cart)
    _join(cluster.table.product, new.product, first, new.n, out.table.product)
    _join(cluster.table.quantity, new.quantity, first, new.n, out.table.quantity)
    for row in range(kept):
        _copy_ints(out.choices + row * (n_events + 1), cluster.choices + pick[row] // new.n * n_events, n_events)
        out.choices[row * (n_events + 1) + n_events] = first + pick[row] % new.n
        out.log_weight[row] = key[row]
    _normalise(out.log_weight, kept)
    _marginals(out.choices, out.log_weight, kept, n_events + 1, out.probability, first + new.n)


cdef inline void _join(const int* above, const int* below, int n_above, int n_below, int* out) noexcept nogil:
    _copy_ints(out, above, 2 * n_above)
    _copy_ints(out + 2 * n_above, below, 2 * n_below)


def merge(log_weight_a, log_weight_b, key, pick, double log_spread):
    """The k best pairs of hypotheses of two clusters that were independent so far: log w(a, b) = log w(a) + log w(b).

    log_weight_a (n_a,), log_weight_b (n_b,): best first. key, pick (k,): out, best first: log weight, and
    row_a * n_b + row_b; k is at most HYPOTHESES_MAX. Returns the number kept.
    """
    cdef const double* log_a = _doubles(log_weight_a)
    cdef const double* log_b = _doubles(log_weight_b)
    cdef double* keys = _doubles(key)
    cdef int* picks = _ints(pick)
    cdef int n_a = _length(log_weight_a), n_b = _length(log_weight_b), a, b, kept = 0
    cdef int limit = min(_length(key), HYPOTHESES_CAPACITY)
    cdef double weight, best = log_a[0] + log_b[0]
    with nogil:
        for a in range(n_a):
            for b in range(n_b):
                # At least (a + 1) * (b + 1) - 1 pairs are as good as the pair (a, b), so it need not be kept.
                if (a + 1) * (b + 1) > limit:
                    break
                weight = _compared(log_a[a] + log_b[b])
                if weight < best - log_spread or (kept == limit and weight < keys[0]):
                    break
                kept = _offer(keys, picks, kept, limit, weight, a * n_b + b)
        _drain(keys, picks, kept)
    return kept


def join(tuple arrays_a not None, tuple arrays_b not None, int n, key, pick, tuple out not None):
    """One cluster of two: their events, their candidates, and the kept pairs of their hypotheses.

    arrays_a, arrays_b: as for `extend`. n, key, pick: as `merge` returns them. out: the arrays of both; n hypotheses.
    """
    cdef Cluster a, b, both
    _cluster(arrays_a, &a)
    _cluster(arrays_b, &b)
    _cluster(out, &both)
    cdef const double* keys = _doubles(key)
    cdef const int* picks = _ints(pick)
    cdef int i, j
    cdef int* choice
    cdef const int* below
    with nogil:
        memcpy(both.event, a.event, a.n_events * sizeof(Event))
        memcpy(both.event + a.n_events, b.event, b.n_events * sizeof(Event))
        _copy_ints(both.event_of, a.event_of, a.table.n)
        for i in range(b.table.n):
            both.event_of[a.table.n + i] = b.event_of[i] + a.n_events
        _join(a.table.owner, b.table.owner, a.table.n, b.table.n, both.table.owner)
        _join(a.table.cart, b.table.cart, a.table.n, b.table.n, both.table.cart)
        _join(a.table.product, b.table.product, a.table.n, b.table.n, both.table.product)
        _join(a.table.quantity, b.table.quantity, a.table.n, b.table.n, both.table.quantity)
        memcpy(both.probability, a.probability, a.table.n * sizeof(double))
        memcpy(both.probability + a.table.n, b.probability, b.table.n * sizeof(double))
        for i in range(n):
            choice = both.choices + i * both.n_events
            _copy_ints(choice, a.choices + picks[i] // b.n * a.n_events, a.n_events)
            below = b.choices + picks[i] % b.n * b.n_events
            for j in range(b.n_events):
                choice[a.n_events + j] = below[j] + a.table.n
            both.log_weight[i] = keys[i]
        _normalise(both.log_weight, n)


def marginals(choices, log_weight, probability):
    """Probability of every candidate of a cluster's table: P(c) = sum of w(h) over the hypotheses h that pick it.

    choices (n, n_events), log_weight (n,), normalised. probability (n_candidates,): out, every cell written.
    """
    cdef const int* chosen = _ints(choices)
    cdef const double* weight = _doubles(log_weight)
    cdef double* out = _doubles(probability)
    cdef int n = _length(choices), n_events = <int>cnp.PyArray_DIM(choices, 1), n_candidates = _length(probability)
    with nogil:
        _marginals(chosen, weight, n, n_events, out, n_candidates)


# ---- what follows from the hypotheses --------------------------------------------------------------------------------


def last_certain(event_of, probability, double threshold, int before):
    """The last event (an index below `before`) with a candidate above a probability; -1 without one.

    event_of (n,) int32, probability (n,): of a cluster.
    """
    cdef const int* of = _ints(event_of)
    cdef const double* p = _doubles(probability)
    cdef int row, last = -1
    for row in range(_length(event_of)):
        if p[row] > threshold and last < of[row] < before:
            last = of[row]
    return last


def describe(event_of, table, probability, int index, moved, chance, whole):
    """What an event of a cluster may have been: the probability of every person, product and quantity.

    event_of (n,) int32, table (4, n, 2) int32, probability (n,): of the cluster; index: of the event.
    moved (2 n_of_event, 3) int32: out, person, product and pieces, most probable first. chance (2 n_of_event,): out, of
    each, where the two parts of a candidate share its probability, so that all sum to at most 1; whole: out, where each
    part has all of it. Returns their number, and the row of the most probable candidate.
    """
    cdef const int* of = _ints(event_of)
    cdef const double* p = _doubles(probability)
    cdef int* out = _ints(moved)
    cdef double* sum_out = _doubles(chance)
    cdef double* whole_out = _doubles(whole)
    cdef int capacity = _length(chance), n = 0, best = -1, row, part, at, n_parts, i, goes
    cdef int held[3]
    cdef double share, of_part
    cdef Table candidates
    _table(table, _length(event_of), &candidates)
    with nogil:
        for row in range(candidates.n):
            if of[row] != index:
                continue
            if best < 0 or p[row] > p[best]:
                best = row
            n_parts = (candidates.quantity[2 * row] != 0) + (candidates.quantity[2 * row + 1] != 0)
            if not p[row] > 0.0 or n_parts == 0:
                continue
            share = p[row] / n_parts
            for part in range(2 * row, 2 * row + 2):
                if candidates.quantity[part] == 0:
                    continue
                at = 0
                while at < n and not (
                    out[3 * at] == candidates.owner[part] and out[3 * at + 1] == candidates.product[part]
                    and out[3 * at + 2] == candidates.quantity[part]
                ):
                    at += 1
                if at == n:
                    if n == capacity:
                        continue
                    out[3 * n], out[3 * n + 1] = candidates.owner[part], candidates.product[part]
                    out[3 * n + 2] = candidates.quantity[part]
                    sum_out[n] = whole_out[n] = 0.0
                    n += 1
                sum_out[at] += share
                whole_out[at] += p[row]
        # Insertion sort: there are few, and they come nearly in order.
        for row in range(1, n):
            share, of_part = sum_out[row], whole_out[row]
            for i in range(3):
                held[i] = out[3 * row + i]
            at = row
            while at > 0 and _comes_first(share, held, sum_out[at - 1], out + 3 * (at - 1)):
                sum_out[at], whole_out[at] = sum_out[at - 1], whole_out[at - 1]
                for i in range(3):
                    out[3 * at + i] = out[3 * at - 3 + i]
                at -= 1
            sum_out[at], whole_out[at] = share, of_part
            for i in range(3):
                out[3 * at + i] = held[i]
        while n > 0 and not sum_out[n - 1] > 1e-6:
            n -= 1
    return n, best


cdef inline bint _comes_first(double p, const int* goods, double other_p, const int* other) noexcept nogil:
    cdef int i
    if p != other_p:
        return p > other_p
    for i in range(3):
        if goods[i] != other[i]:
            return goods[i] < other[i]
    return False


def sum_expected(table, probability, double negligible, kinds, pieces, acting):
    """Pieces that carts are expected to have taken by a cluster's events, and who may have acted.

    table (4, n, 2) int32, probability (n,): of the cluster. kinds (2 n, 2) int32: out, cart and product; pieces (2 n,):
    out, taken, put-backs not subtracted. acting (2 n, 2) int32: out, people and carts above a negligible probability.
    Returns the numbers of both.
    """
    cdef Table candidates
    cdef const double* p = _doubles(probability)
    cdef int* kind = _ints(kinds)
    cdef int* act = _ints(acting)
    cdef double* taken = _doubles(pieces)
    cdef int n_kinds = 0, n_acting = 0, row, part, at
    _table(table, _length(probability), &candidates)
    with nogil:
        for row in range(candidates.n):
            if not p[row] > 1e-4:
                continue
            for part in range(2 * row, 2 * row + 2):
                if candidates.owner[part] < 0 or candidates.quantity[part] == 0:
                    continue
                if p[row] > negligible:
                    at = 0
                    while at < n_acting and not (
                        act[2 * at] == candidates.owner[part] and act[2 * at + 1] == candidates.cart[part]
                    ):
                        at += 1
                    if at == n_acting:
                        act[2 * at], act[2 * at + 1] = candidates.owner[part], candidates.cart[part]
                        n_acting += 1
                if candidates.quantity[part] > 0:
                    continue
                at = 0
                while at < n_kinds and not (
                    kind[2 * at] == candidates.cart[part] and kind[2 * at + 1] == candidates.product[part]
                ):
                    at += 1
                if at == n_kinds:
                    kind[2 * at], kind[2 * at + 1] = candidates.cart[part], candidates.product[part]
                    taken[at] = 0.0
                    n_kinds += 1
                taken[at] -= candidates.quantity[part] * p[row]
    return n_kinds, n_acting


# ---- events that leave a cluster -------------------------------------------------------------------------------------


cdef inline int _compare(const int* a, const int* b, int n, int without) noexcept nogil:
    """Order of two hypotheses but for one event: negative, zero or positive."""
    cdef int i
    for i in range(n):
        if i != without and a[i] != b[i]:
            return -1 if a[i] < b[i] else 1
    return 0


cdef int _distinct(const Cluster* cluster, int index, int row, int* at, double* weight) noexcept nogil:
    """Hypotheses that differ in other events than one, given its candidate (-1: whatever it was), best first."""
    cdef int i, j, n = 0, n_events = cluster.n_events, order
    cdef double log_weight
    cdef const int* choice
    for i in range(cluster.n):
        choice = cluster.choices + i * n_events
        if row >= 0 and choice[index] != row:
            continue
        j = n
        order = 1
        # Hypotheses that agree in this event differ in another, and come best first.
        while j > 0 and row < 0:
            order = _compare(choice, cluster.choices + at[j - 1] * n_events, n_events, index)
            if order >= 0:
                break
            j -= 1
        if j > 0 and order == 0:
            weight[j - 1] = _log_add(weight[j - 1], cluster.log_weight[i])
            continue
        memmove(at + j + 1, at + j, (n - j) * sizeof(int))
        memmove(weight + j + 1, weight + j, (n - j) * sizeof(double))
        at[j], weight[j] = i, cluster.log_weight[i]
        n += 1
    for i in range(1, n if row < 0 else 0):
        order, log_weight = at[i], weight[i]
        j = i
        while j > 0 and weight[j - 1] < log_weight:
            at[j], weight[j] = at[j - 1], weight[j - 1]
            j -= 1
        at[j], weight[j] = order, log_weight
    return n


def drop_event(tuple cluster_arrays not None, int index, int row, tuple out not None):
    """Take an event out of a cluster: summed out, or fixed to a candidate.

    cluster_arrays: as for `extend`. index: of the event; row: of its candidate, -1: any. out: the arrays of the cluster
    without the event; choices and log_weight have as many rows as before. Returns the number of hypotheses, best first.
    """
    cdef Cluster cluster, left
    cdef int at[HYPOTHESES_CAPACITY]
    cdef double weight[HYPOTHESES_CAPACITY]
    cdef int i, j, event, kept, n_before = 0, n_of_event = 0, n_events
    _cluster(cluster_arrays, &cluster)
    _cluster(out, &left)
    n_events = cluster.n_events
    with nogil:
        kept = _distinct(&cluster, index, row, at, weight)
        # The candidates of an event lie side by side.
        for i in range(cluster.table.n):
            n_before += cluster.event_of[i] < index
            n_of_event += cluster.event_of[i] == index
        memcpy(left.event, cluster.event, index * sizeof(Event))
        memcpy(left.event + index, cluster.event + index + 1, (n_events - index - 1) * sizeof(Event))
        j = 0
        for i in range(cluster.table.n):
            if cluster.event_of[i] == index:
                continue
            left.event_of[j] = cluster.event_of[i] - (cluster.event_of[i] > index)
            _copy_ints(left.table.owner + 2 * j, cluster.table.owner + 2 * i, 2)
            _copy_ints(left.table.cart + 2 * j, cluster.table.cart + 2 * i, 2)
            _copy_ints(left.table.product + 2 * j, cluster.table.product + 2 * i, 2)
            _copy_ints(left.table.quantity + 2 * j, cluster.table.quantity + 2 * i, 2)
            j += 1
        for i in range(kept):
            j = 0
            for event in range(n_events):
                if event != index:
                    left.choices[i * (n_events - 1) + j] = cluster.choices[at[i] * n_events + event]
                    if left.choices[i * (n_events - 1) + j] >= n_before:
                        left.choices[i * (n_events - 1) + j] -= n_of_event
                    j += 1
            left.log_weight[i] = weight[i]
        if row >= 0:
            _normalise(left.log_weight, kept)
        _marginals(left.choices, left.log_weight, kept, n_events - 1, left.probability, left.table.n)
    return kept
