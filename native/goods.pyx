# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a load may be, and whose: everything that a shelf event is weighed by, apart from hands.

Arrays in, preallocated arrays out, nothing kept, nothing raised but for arrays of another type, GIL released.
"""

from libc.math cimport INFINITY, NAN, exp, fabs, isnan, log, log1p, sqrt
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

include "arrays.pxi"
include "numbers.pxi"
include "identification.pxi"
include "loads.pxi"
include "divisions.pxi"
include "factors.pxi"
include "candidates.pxi"
include "hypotheses.pxi"
include "moves.pxi"
