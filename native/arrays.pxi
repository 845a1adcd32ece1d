# Pointers to the data of NumPy arrays. Taking a typed memoryview of each of thirty small arrays would cost more than the
# work on them; stages check shapes, and types are checked here.

cimport numpy as cnp

cnp.import_array()


cdef inline double* _doubles(object array) except? NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64 and cnp.PyArray_IS_C_CONTIGUOUS(array)):
        raise TypeError("want a C-contiguous float64 array")
    return <double*>cnp.PyArray_DATA(array)


cdef inline float* _floats(object array) except? NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT32 and cnp.PyArray_IS_C_CONTIGUOUS(array)):
        raise TypeError("want a C-contiguous float32 array")
    return <float*>cnp.PyArray_DATA(array)


cdef inline long long* _longs(object array) except? NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(array) == cnp.NPY_INT64 and cnp.PyArray_IS_C_CONTIGUOUS(array)):
        raise TypeError("want a C-contiguous int64 array")
    return <long long*>cnp.PyArray_DATA(array)


cdef inline int* _ints(object array) except? NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(array) == cnp.NPY_INT32 and cnp.PyArray_IS_C_CONTIGUOUS(array)):
        raise TypeError("want a C-contiguous int32 array")
    return <int*>cnp.PyArray_DATA(array)


cdef inline char* _bytes(object array) except? NULL:
    if not (cnp.PyArray_Check(array) and cnp.PyArray_ITEMSIZE(array) == 1 and cnp.PyArray_IS_C_CONTIGUOUS(array)):
        raise TypeError("want a C-contiguous array of bool or int8")
    return <char*>cnp.PyArray_DATA(array)


cdef inline int _length(object array) noexcept:
    return <int>cnp.PyArray_DIM(array, 0)
