# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The attribution kernel: joint explanations of shelf events, the best few of them, in bounded time.

A component is a set of events that constrain each other. Its explanations are the rows of `choices` (n, n_events) int32:
which candidate each event's row picks; `log_weight` (n,) says how probable the row is. Candidates of a component lie in
one table: `owner` (person's slot, -1 unknown), `product`, `quantity` (signed; 0: nothing moved), int32 each.
C-contiguous arrays in, preallocated arrays out, nothing kept, nothing raised, GIL released.
"""

from libc.math cimport exp


cdef inline void _sift_down(double[::1] key, int[::1] at, int start, int n) noexcept nogil:
    # A heap with its least key on top.
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
    # Keep the `capacity` greatest keys; returns how many are kept.
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
    # Heap to descending order, in place.
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
    const int[::1] owner not None,
    const int[::1] product not None,
    const int[::1] quantity not None,
    int first,
    const double[::1] event_s not None,
    const double[::1] log_candidate not None,
    const double[::1] log_not_held not None,
    const int[::1] held not None,
    const double[::1] log_undone not None,
    double busy_s,
    double log_busy,
    double[::1] key not None,
    int[::1] pick not None,
    double log_spread,
):
    """Pair every explanation of a component with every candidate of a new event; keep the best.

    choices (n, n_events), log_weight (n,): explanations so far; entries index the candidate table.
    owner, product, quantity (n_candidates,): the table; the new event's candidates are those from `first` on.
    event_s (n_events + 1,): contact times, the new event's last. log_candidate (n_new,): log prior and likelihood.
    log_not_held (n_new,): added where a put-back is of something that its owner does not hold by then; staff's and the
    unknown's entries are 0. held (n_new,): pieces that the owner holds beyond what this component decides.
    log_undone (n_events,): added to a new candidate by which nothing moved, for an event by which nothing moved either
    and which the new one undoes: a hand that leaves. 0 where it does not.
    busy_s, log_busy: two events of one owner within busy_s seconds cost log_busy.
    key (capacity,), pick (capacity,): out, best first: log weight, and explanation * n_new + candidate.
    log_spread: pairs worse than the best by more are dropped. Returns the number kept.
    """
    cdef int n = choices.shape[0], n_events = choices.shape[1]
    cdef int n_new = owner.shape[0] - first
    cdef int capacity = key.shape[0]
    cdef int row, new, event, other, candidate, has, kept = 0
    cdef double weight, best = -1e300
    with nogil:
        for row in range(n):
            for new in range(n_new):
                weight = log_weight[row] + log_candidate[new]
                candidate = first + new
                # Only an undone event can still make a pair better.
                if weight < best - log_spread and quantity[candidate] != 0:
                    continue
                if owner[candidate] >= 0 and quantity[candidate] != 0:
                    has = held[new]
                    for event in range(n_events):
                        other = choices[row, event]
                        if owner[other] != owner[candidate] or quantity[other] == 0:
                            continue
                        # The table counts pieces on the shelf, so what was taken from it is held.
                        if product[other] == product[candidate] and event_s[event] <= event_s[n_events]:
                            has -= quantity[other]
                        if -busy_s < event_s[event] - event_s[n_events] < busy_s:
                            weight += log_busy
                    if quantity[candidate] > has:
                        weight += log_not_held[new]
                elif quantity[candidate] == 0:
                    for event in range(n_events):
                        if quantity[choices[row, event]] == 0:
                            weight += log_undone[event]
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
    """The best pairs of explanations of two components that were independent so far; both lists come best first.

    key (capacity,), pick (capacity,): out, best first: log weight, and row_a * n_b + row_b. Returns the number kept.
    """
    cdef int n_a = log_weight_a.shape[0], n_b = log_weight_b.shape[0], capacity = key.shape[0]
    cdef int a, b, kept = 0
    cdef double weight, best = log_weight_a[0] + log_weight_b[0]
    with nogil:
        for a in range(n_a):
            for b in range(n_b):
                # Of pairs (a, b) at least (a + 1) * (b + 1) - 1 are better, so the others cannot be kept.
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
    """Probability of every candidate of a component's table: the weight of the explanations that pick it.

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
