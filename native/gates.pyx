# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""People beside gates. C-contiguous arrays in, nothing kept, nothing raised but for wrong types."""

include "arrays.pxi"


def near(places_m, middles_m, reach_sq):
    """Which places are within reach of a gate's middle.

    places_m (n, 2); middles_m (n_gates, 2) with reach_sq (n_gates,), squared distances in m^2. Returns n bools.

    A call from NumPy would cost more than the comparison of all people with all gates.
    """
    cdef const double* place = _doubles(places_m)
    cdef const double* middle = _doubles(middles_m)
    cdef const double* reach = _doubles(reach_sq)
    cdef int n = _length(places_m), n_gates = _length(middles_m), i, gate
    cdef double right, up
    cdef bint is_near
    cdef list found = [False] * n
    for i in range(n):
        is_near = False
        for gate in range(n_gates):
            right, up = place[2 * i] - middle[2 * gate], place[2 * i + 1] - middle[2 * gate + 1]
            is_near = is_near or right * right + up * up < reach[gate]
        if is_near:
            found[i] = True
    return found
