# The greater and the lesser of two numbers. The C library's fmax and fmin, which prefer any number to NaN, are calls.


cdef inline double fmax(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double fmin(double a, double b) noexcept nogil:
    return a if a < b else b
