cdef int _unused = 0
