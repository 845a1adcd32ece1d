# The steps of a spell, divided into loads and hands; `fusion/goods/ledger.py` states what is maximised.

# Columns of the plates' tables, and the samples that are kept, as in `fusion/_kernels/scales.py`.
cdef enum:
    LAST_NS = 2, RING_COUNT = 5, NOISE_G2 = 1, RING = 512

cdef enum:
    BEAM = 48
    BLOCKS_AT_FIRST = 64


cdef struct Ring:
    # The plates' newest samples, and what is known of their noise.
    const double* reals
    const long long* times
    const float* samples
    int n_reals, n_times, n_samples
    double period_ns


cdef struct Division:
    # Steps in the order of their contacts, and room to weigh a block of them.
    const Shelves* shelves
    Nearby* near
    const Ring* ring
    const double* loads
    const double* hands
    double lightest_g
    int n
    Change* step
    # (n,) grams of the heaviest step beside each at that moment, itself included; how many steps its plate has.
    double* heaviest_g
    int* n_own
    # (n,) of one block: its steps of a plate; its load; the step of which each part of it is.
    int* own
    Change* part
    int* part_of


cdef struct Block:
    # Steps that are one load, or none: a block and one step more.
    int before, last
    double score
    # The plate that bears most of its load and when that met it; -1: no load.
    long long plate, contact_ns
    # The block of this one and of step `at`.
    int at, joined


cdef struct Hypothesis:
    # One more than `of`: step i in a block of its own, or in its block number `k`.
    double score
    int of, k


cdef double _calm_s(const Division* d, long long plate, long long since_ns, long long until_ns) noexcept nogil:
    """For how long a plate trembled no more than at rest, by the variance of every CALM_SAMPLES samples."""
    cdef const Ring* ring = d.ring
    cdef const float* samples = ring.samples + plate * ring.n_samples
    cdef long long count = ring.times[plate * ring.n_times + RING_COUNT], kept = count if count < RING else RING
    cdef long long last_ns = ring.times[plate * ring.n_times + LAST_NS], first, stop, i
    cdef int n = <int>d.hands[CALM_SAMPLES]
    cdef double mean = 0.0, limit_g2, off, total, squares, var
    cdef double totals[RING + 1]
    cdef double squared[RING + 1]
    if until_ns <= since_ns:
        return 0.0
    # Samples later than the one instant and before the other.
    first = 0
    while first < kept and last_ns - <long long>((kept - 1 - first) * ring.period_ns) <= since_ns:
        first += 1
    stop = first
    while stop < kept and last_ns - <long long>((kept - 1 - stop) * ring.period_ns) < until_ns:
        mean += samples[(count - kept + stop) & (RING - 1)]
        stop += 1
    if stop - first < n:
        return 0.0
    mean /= stop - first
    limit_g2 = d.hands[CALM_SLACK_G] + d.hands[CALM_SDS] * sqrt(ring.reals[plate * ring.n_reals + NOISE_G2])
    limit_g2 *= limit_g2
    total, squares, totals[0], squared[0] = 0.0, 0.0, 0.0, 0.0
    cdef long long n_calm = 0
    for i in range(stop - first):
        off = samples[(count - kept + first + i) & (RING - 1)] - mean
        total += off
        squares += off * off
        totals[i + 1], squared[i + 1] = total, squares
        if i + 1 >= n:
            off = (total - totals[i + 1 - n]) / n
            var = (squares - squared[i + 1 - n]) / n - off * off
            n_calm += var < limit_g2
    return <double>(n_calm * <long long>ring.period_ns) * 1e-9


cdef inline double _rest_g2(const Division* d, long long plate) noexcept nogil:
    """Variance of what the level of a plate has changed by from rest to rest."""
    return d.hands[REST_G2] + d.ring.reals[plate * d.ring.n_reals + NOISE_G2] / 12.0


cdef inline double _log_hand(const Division* d, int i, double var_g2, int main) noexcept nogil:
    """Log density of a step as the pressure of the hand that makes another."""
    cdef const Change* step = &d.step[i]
    cdef double log_density = _log_press(step.delta_g, d.hands)
    cdef long long apart_ns = step.contact_ns - d.step[main].contact_ns
    if (apart_ns if apart_ns >= 0 else -apart_ns) > d.hands[RELIEF_NS] or fabs(step.delta_g) > d.hands[RELIEF_G]:
        return log_density
    log_density = fmax(log_density, _log_nothing(step.delta_g, var_g2, d.heaviest_g[i], d.loads))
    return log_density + d.hands[LOG_RELIEF]


cdef int _steps_of(const Division* d, const int* ids, int n, long long plate) noexcept nogil:
    """Find the steps of a plate among those of a block, in the order in which they settled; returns their number."""
    cdef int i, k, n_own = 0
    for i in range(n):
        if d.step[ids[i]].plate != plate:
            continue
        k = n_own
        while k > 0 and d.step[d.own[k - 1]].settled_ns > d.step[ids[i]].settled_ns:
            d.own[k] = d.own[k - 1]
            k -= 1
        d.own[k] = ids[i]
        n_own += 1
    return n_own


cdef double _weigh_block(const Division* d, const int* ids, int n, int* n_load) noexcept nogil:
    """Log density of steps as one load, or as none; the load comes to d.part, from left to right."""
    cdef const double* h = d.hands
    cdef double log_pressed = 0.0, log_none = 0.0, log_calm = 0.0, net_g, var_g2, lifted_s, of_hand, best_g, sign, log_load
    cdef int i, k, n_own, main, chosen, n_parts = 0
    cdef long long plate, onset_ns, until_ns
    cdef bint from_rest, is_new
    cdef Change part
    cdef const Change* first
    cdef const Change* last
    for i in range(n):
        plate, is_new = d.step[ids[i]].plate, True
        for k in range(i):
            is_new &= d.step[ids[k]].plate != plate
        if not is_new:
            continue
        n_own = _steps_of(d, ids, n, plate)
        first, last = &d.step[d.own[0]], &d.step[d.own[n_own - 1]]
        # Weighed from rest to rest.
        from_rest = n_own > 1 and n_own == d.n_own[d.own[0]]
        net_g, onset_ns = 0.0, first.onset_ns
        for k in range(n_own):
            net_g += d.step[d.own[k]].delta_g
            onset_ns = min(onset_ns, d.step[d.own[k]].onset_ns)
        if net_g == 0.0:
            net_g = 1e-6
        sign, main, best_g = 1.0 if net_g > 0.0 else -1.0, d.own[0], -INFINITY
        for k in range(n_own):
            if d.step[d.own[k]].delta_g * sign > best_g:
                best_g, main = d.step[d.own[k]].delta_g * sign, d.own[k]
        for k in range(n_own - 1):
            until_ns = min(d.step[d.own[k + 1]].onset_ns, d.step[d.own[k + 1]].contact_ns)
            log_calm -= fmin(h[LOG_CALM_PER_S] * _calm_s(d, plate, d.step[d.own[k]].settled_ns, until_ns), h[LOG_CALM_MAX])
        lifted_s = (last.contact_ns - first.contact_ns) * 1e-9 - h[LIFT_USUAL_S]
        if first.delta_g < 0.0 and lifted_s > 0.0 and (
            fabs(net_g) < d.loads[UNDONE_SLACK_G] + 0.1 * fabs(first.delta_g)
        ):
            log_none -= fmin(h[LOG_LIFT_PER_S] * lifted_s, h[LOG_CALM_MAX])
        log_none += _log_nothing(net_g, _rest_g2(d, plate) if from_rest else last.var_g2, d.heaviest_g[main], d.loads)
        of_hand = 0.0
        for k in range(n_own - 1):
            var_g2 = _rest_g2(d, plate) if from_rest else d.step[d.own[k]].var_g2
            of_hand += _log_hand(d, d.own[k], var_g2, d.own[n_own - 1])
        log_none += of_hand
        of_hand = 0.0
        for k in range(n_own):
            if d.own[k] != main:
                var_g2 = _rest_g2(d, plate) if from_rest else d.step[d.own[k]].var_g2
                of_hand += _log_hand(d, d.own[k], var_g2, main)
        log_pressed += of_hand
        # A piece that is lifted, or set down, at one end first has left, or come, with the last, or the first step.
        chosen = -1
        for k in range(n_own):
            if d.step[d.own[k]].delta_g / net_g > h[HALF_SHARE] and (chosen < 0 or net_g < 0.0):
                chosen = d.own[k]
        if chosen < 0:
            chosen = main
        part = d.step[chosen]
        part.delta_g, part.onset_ns, part.settled_ns, part.before_g = net_g, onset_ns, last.settled_ns, first.before_g
        if from_rest:
            part.var_g2 = _rest_g2(d, plate)
        k = n_parts
        while k > 0 and d.shelves.place[d.part[k - 1].plate] > d.shelves.place[plate]:
            d.part[k], d.part_of[k] = d.part[k - 1], d.part_of[k - 1]
            k -= 1
        d.part[k], d.part_of[k] = part, chosen
        n_parts += 1
    log_load = _log_load(d.shelves, d.near, d.part, n_parts, d.lightest_g, d.loads) + log_pressed
    n_load[0] = n_parts if log_load > log_none else 0
    return (log_load if log_load > log_none else log_none) + log_calm


cdef void _look_beside(Division* d) noexcept nogil:
    """Fill in the heaviest step beside each, and how many steps its plate has."""
    cdef const Shelves* shelves = d.shelves
    cdef int i, k
    cdef long long apart
    for i in range(d.n):
        d.heaviest_g[i], d.n_own[i] = fabs(d.step[i].delta_g), 0
        for k in range(d.n):
            d.n_own[i] += d.step[k].plate == d.step[i].plate
            apart = d.step[k].contact_ns - d.step[i].contact_ns
            if (apart if apart >= 0 else -apart) < d.hands[CROSS_TALK_NS] and _within(shelves, &d.step[i], &d.step[k], 1):
                d.heaviest_g[i] = fmax(d.heaviest_g[i], fabs(d.step[k].delta_g))


cdef inline bint _within(const Shelves* shelves, const Change* a, const Change* b, long long reach) noexcept nogil:
    """Whether two plates stand at most so many places apart in one row."""
    cdef long long apart = shelves.place[a.plate] - shelves.place[b.plate]
    return shelves.row[a.plate] == shelves.row[b.plate] and -reach <= apart <= reach


cdef int _ids_of(const Block* blocks, int block, int* ids) noexcept nogil:
    """The steps of a block, in order; returns their number."""
    cdef int n = 0, at = block, i
    while at >= 0:
        n += 1
        at = blocks[at].before
    i, at = n, block
    while at >= 0:
        i -= 1
        ids[i] = blocks[at].last
        at = blocks[at].before
    return n


cdef void _fill_block(const Division* d, Block* blocks, int block, int* ids) noexcept nogil:
    """Weigh a block of which the steps are known; ids (n,): scratch."""
    cdef int n_load, i, n = _ids_of(blocks, block, ids), heaviest = 0
    blocks[block].score = _weigh_block(d, ids, n, &n_load)
    blocks[block].plate, blocks[block].at = -1, -1
    for i in range(1, n_load):
        if fabs(d.part[i].delta_g) > fabs(d.part[heaviest].delta_g):
            heaviest = i
    if n_load > 0:
        blocks[block].plate, blocks[block].contact_ns = d.part[heaviest].plate, d.part[heaviest].contact_ns


cdef inline void _grow(Hypothesis* grown, int* n_grown, double score, int of, int k) noexcept nogil:
    """Put a hypothesis among the BEAM best, after those of the same score."""
    cdef int at = n_grown[0]
    while at > 0 and grown[at - 1].score < score:
        at -= 1
    if at >= BEAM:
        return
    cdef int last = n_grown[0] if n_grown[0] < BEAM else BEAM - 1
    n_grown[0] = last + 1
    while last > at:
        grown[last] = grown[last - 1]
        last -= 1
    grown[at].score, grown[at].of, grown[at].k = score, of, k


cdef double _log_two_hands(const Division* d, const Block* blocks, const int* held, int n) noexcept nogil:
    """Log odds against loads on one plate that follow each other faster than a hand does; held (n,): blocks."""
    cdef int i, k, n_pairs = 0
    cdef long long apart_ns
    for i in range(n):
        for k in range(i + 1, n):
            apart_ns = blocks[held[i]].contact_ns - blocks[held[k]].contact_ns
            n_pairs += blocks[held[i]].plate >= 0 and blocks[held[i]].plate == blocks[held[k]].plate and (
                (apart_ns if apart_ns >= 0 else -apart_ns) < d.hands[SAME_HAND_NS]
            )
    return d.hands[LOG_TWO_HANDS] * n_pairs


cdef int _divide(const Division* d, Block** known, int* capacity, int* ids, int* beams, int* answer, double* score) noexcept nogil:
    """The best division of the steps, by a beam search in the order of time; returns its number of blocks, -1: no room.

    known: blocks that were weighed, out, allocated here. ids (n,), beams (2, BEAM, n): scratch. answer (n,): out, the
    blocks of the best division, in the order of their first steps.
    """
    cdef int n = d.n, i, k, h, block, joined, n_known = 0, n_beam = 1, n_grown, at
    cdef int n_held[2][BEAM]
    cdef double total[BEAM]
    cdef double whole
    cdef Hypothesis grown[BEAM]
    cdef int* held
    cdef int* new
    cdef Block* blocks
    cdef bint near
    total[0], n_held[0][0] = 0.0, 0
    for i in range(n):
        # At most one block for each of the beam, and the step alone.
        if n_known + BEAM * i + 1 > capacity[0]:
            capacity[0] = 2 * (n_known + BEAM * i + 1)
            blocks = <Block*>realloc(known[0], capacity[0] * sizeof(Block))
            if blocks == NULL:
                return -1
            known[0] = blocks
        blocks = known[0]
        at, n_grown = n_known, 0
        blocks[at].before, blocks[at].last = -1, i
        _fill_block(d, blocks, at, ids)
        n_known += 1
        for h in range(n_beam):
            held = beams + ((i & 1) * BEAM + h) * n
            _grow(grown, &n_grown, total[h] + blocks[at].score, h, -1)
            for k in range(n_held[i & 1][h]):
                block = held[k]
                if blocks[block].at != i:
                    # Asked for the first time.
                    near, joined = False, block
                    while joined >= 0 and not near:
                        near = _within(d.shelves, &d.step[i], &d.step[blocks[joined].last], <long long>d.hands[HANDS_REACH])
                        joined = blocks[joined].before
                    blocks[block].at, blocks[block].joined = i, -1
                    if near:
                        blocks[block].joined = n_known
                        blocks[n_known].before, blocks[n_known].last = block, i
                        _fill_block(d, blocks, n_known, ids)
                        n_known += 1
                joined = blocks[block].joined
                if joined >= 0:
                    _grow(grown, &n_grown, total[h] + blocks[joined].score - blocks[block].score, h, k)
        for h in range(n_grown):
            held = beams + ((i & 1) * BEAM + grown[h].of) * n
            new = beams + (((i + 1) & 1) * BEAM + h) * n
            k = n_held[i & 1][grown[h].of]
            memcpy(new, held, k * sizeof(int))
            if grown[h].k < 0:
                new[k] = at
                k += 1
            else:
                new[grown[h].k] = blocks[held[grown[h].k]].joined
            n_held[(i + 1) & 1][h], total[h] = k, grown[h].score
        n_beam = n_grown
    score[0], at = -INFINITY, 0
    for h in range(n_beam):
        held = beams + ((n & 1) * BEAM + h) * n
        whole = total[h] - _log_two_hands(d, known[0], held, n_held[n & 1][h])
        if whole > score[0]:
            score[0], at = whole, h
    memcpy(answer, beams + ((n & 1) * BEAM + at) * n, n_held[n & 1][at] * sizeof(int))
    return n_held[n & 1][at]


cdef list _load_of(const Division* d, list steps, int n_load):
    """The load that `_weigh_block` found, as changes."""
    load = []
    for i in range(n_load):
        part = &d.part[i]
        load.append(
            steps[d.part_of[i]].but(
                delta_g=part.delta_g, var_g2=part.var_g2, onset_ns=part.onset_ns, settled_ns=part.settled_ns,
                before_g=part.before_g, shaky=False,
            )
        )  # fmt: skip
    return load


cdef void* _open_division(
    Division* d, Shelves* shelves, Nearby* near, Ring* ring, tuple arrays, samples, list steps
) except NULL:
    """Read the steps, of which there is at least one; returns the memory that is to be freed."""
    cdef int n = <int>len(steps), i
    _shelves(arrays, shelves)
    ring.reals, ring.times, ring.samples = _doubles(samples[0]), _longs(samples[1]), _floats(samples[2])
    ring.n_reals, ring.n_times = <int>cnp.PyArray_DIM(samples[0], 1), <int>cnp.PyArray_DIM(samples[1], 1)
    ring.n_samples, ring.period_ns = <int>cnp.PyArray_DIM(samples[2], 1), samples[3]
    cdef char* room = <char*>malloc(n * (2 * sizeof(Change) + sizeof(double) + 3 * sizeof(int)))
    if room == NULL:
        raise MemoryError
    d.shelves, d.near, d.ring, d.n = shelves, near, ring, n
    d.step = <Change*>room
    d.part = d.step + n
    d.heaviest_g = <double*>(d.part + n)
    d.n_own = <int*>(d.heaviest_g + n)
    d.own, d.part_of = d.n_own + n, d.n_own + 2 * n
    try:
        for i in range(n):
            _change(steps[i], &d.step[i])
    except BaseException:
        free(room)
        raise
    _products_near(shelves, shelves.row[d.step[0].plate], near)
    _look_beside(d)
    return room


def divide(tuple arrays not None, double lightest_g, samples not None, loads, hands, list steps not None):
    """Divide steps of neighbouring plates into loads and hands; see `RowLedger`.

    arrays: of the planogram; lightest_g: of its products. samples: `Plates.samples`. loads, hands: the models of loads
    and of the ledger. steps: `PlateChange`s in the order of their contacts. Returns the log density of the best
    division, and of each of its blocks the indices of its steps, its log density, and its load, from left to right;
    empty where it is none.
    """
    cdef Shelves shelves
    cdef Nearby near
    cdef Ring ring
    cdef Division d
    cdef Block* known = NULL
    cdef int n = <int>len(steps), n_blocks, n_ids, n_load, capacity = 0, i
    cdef double score, of_block
    cdef int* ids
    if n == 0:
        return 0.0, []
    d.lightest_g, d.loads, d.hands = lightest_g, _doubles(loads), _doubles(hands)
    cdef void* room = _open_division(&d, &shelves, &near, &ring, arrays, samples, steps)
    ids = <int*>malloc((2 * BEAM + 2) * n * sizeof(int))
    try:
        if ids == NULL:
            raise MemoryError
        with nogil:
            n_blocks = _divide(&d, &known, &capacity, ids, ids + 2 * n, ids + n, &score)
        if n_blocks < 0:
            raise MemoryError
        blocks = []
        for i in range(n_blocks):
            n_ids = _ids_of(known, ids[n + i], ids)
            of_block = _weigh_block(&d, ids, n_ids, &n_load)
            blocks.append((tuple([ids[k] for k in range(n_ids)]), of_block, _load_of(&d, steps, n_load)))
        return score, blocks
    finally:
        free(ids)
        free(known)
        free(room)


def weigh_block(
    tuple arrays not None, double lightest_g, samples not None, loads, hands, list steps not None, tuple block
):
    """Log density of some of the steps as one load, or none, and the load; arguments and answer as of `divide`.

    block: indices of the steps, in the order of their contacts.
    """
    cdef Shelves shelves
    cdef Nearby near
    cdef Ring ring
    cdef Division d
    cdef int n_ids = <int>len(block), n_load, i
    cdef double score
    d.lightest_g, d.loads, d.hands = lightest_g, _doubles(loads), _doubles(hands)
    cdef void* room = _open_division(&d, &shelves, &near, &ring, arrays, samples, steps)
    cdef int* ids = <int*>malloc(n_ids * sizeof(int))
    try:
        if ids == NULL:
            raise MemoryError
        for i in range(n_ids):
            ids[i] = block[i]
        score = _weigh_block(&d, ids, n_ids, &n_load)
        return score, _load_of(&d, steps, n_load)
    finally:
        free(ids)
        free(room)
