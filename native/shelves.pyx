# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Messages of plates, as they come, to arrays side by side. Nothing kept, nothing raised but for wrong types."""

from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

cimport numpy as cnp

import numpy as np

cnp.import_array()


from fusion.observations import ShelfReading

# Messages lie anywhere in memory, and nearly all that packing costs is waiting for it: a message is fetched this long
# before its fields are, and these before they are used.
cdef enum:
    AHEAD = 12

cdef extern from *:
    """
    #include <structmember.h>
    """
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member
    object PyMember_GetOne(const char* owner, PyMemberDef* member)
    void __builtin_prefetch(const void*) nogil


cdef inline PyMemberDef* _slot(str name) except NULL:
    """A field of `ShelfReading`, which is read without a look-up of its name for each message."""
    descriptor = ShelfReading.__dict__[name]
    return (<PyMemberDescrObject*><PyObject*>descriptor).d_member


cdef inline object _get(object message, PyMemberDef* member):
    return PyMember_GetOne(<const char*><PyObject*>message, member)


cdef inline void _fetch_field(const void* message, const PyMemberDef* member, int n_lines) noexcept:
    """Begin to load the object in a field."""
    cdef const char* at = (<const char**>(<const char*>message + member.offset))[0]
    cdef int i
    for i in range(n_lines):
        __builtin_prefetch(at + 64 * i)


cdef PyMemberDef* PLATE = _slot("plate")
cdef PyMemberDef* T_NS = _slot("t_ns")
cdef PyMemberDef* SAMPLES = _slot("samples")


cdef inline bint _is_plain(object samples):
    """Whether samples can be copied as they lie: a C-contiguous float32 array (n,)."""
    return (
        cnp.PyArray_Check(samples) and cnp.PyArray_TYPE(samples) == cnp.NPY_FLOAT32
        and cnp.PyArray_NDIM(samples) == 1 and cnp.PyArray_ISCARRAY_RO(samples)
    )


def pack(readings, dict index not None):
    """Put messages side by side; see `Plates.pack`.

    readings: (n,) messages in time order. index: number of each plate, by name. Returns plates (m,) uint32, times_ns
    (m,) int64, starts (m + 1,) uint32, grams (starts[m],) float32 of the messages that can be used, then how many named
    an unknown plate, and how many had no samples.

    Messages lie anywhere in memory. Each pass follows one pointer of each, so that they are fetched side by side.
    """
    cdef list messages = readings if type(readings) is list else list(readings)
    cdef Py_ssize_t n = len(messages), i, k, known = 0, used = 0, length
    plates, times_ns, starts = np.empty(n, np.uint32), np.empty(n, np.int64), np.empty(n + 1, np.uint32)
    cdef unsigned int* plate = <unsigned int*>cnp.PyArray_DATA(plates)
    cdef long long* t_ns = <long long*>cnp.PyArray_DATA(times_ns)
    cdef unsigned int* start = <unsigned int*>cnp.PyArray_DATA(starts)
    cdef list parts = []
    cdef const void** data = <const void**>PyMem_Malloc((n + 1) * sizeof(void*))
    if data == NULL:
        raise MemoryError
    cdef float* out
    try:
        for k in range(n + AHEAD):
            if k + AHEAD < n:
                __builtin_prefetch(<const void*>PyList_GET_ITEM(messages, k + AHEAD))
            if k < n:
                message = <object>PyList_GET_ITEM(messages, k)
                if not isinstance(message, ShelfReading):
                    raise TypeError(f"want a ShelfReading, got {message!r}")
                _fetch_field(<const void*>message, T_NS, 1)
                _fetch_field(<const void*>message, SAMPLES, 2)
            i = k - AHEAD
            if i < 0:
                continue
            message = <object>PyList_GET_ITEM(messages, i)
            at = index.get(_get(message, PLATE))
            if at is not None:
                plate[known], t_ns[known] = at, _get(message, T_NS)
                parts.append(_get(message, SAMPLES))
                known += 1
        start[0] = 0
        for i in range(known):
            if i + AHEAD < known and _is_plain(<object>PyList_GET_ITEM(parts, i + AHEAD)):
                __builtin_prefetch(cnp.PyArray_DATA(<object>PyList_GET_ITEM(parts, i + AHEAD)))
                __builtin_prefetch(cnp.PyArray_DIMS(<object>PyList_GET_ITEM(parts, i + AHEAD)))
            samples = <object>PyList_GET_ITEM(parts, i)
            if not _is_plain(samples):
                samples = np.ascontiguousarray(samples, np.float32).reshape(-1)
                parts[i] = samples
            length = cnp.PyArray_DIM(samples, 0)
            if length == 0:
                continue
            plate[used], t_ns[used], data[used] = plate[i], t_ns[i], cnp.PyArray_DATA(samples)
            start[used + 1] = start[used] + <unsigned int>length
            used += 1
        grams = np.empty(start[used], np.float32)
        out = <float*>cnp.PyArray_DATA(grams)
        for i in range(used):
            memcpy(out + start[i], data[i], (start[i + 1] - start[i]) * sizeof(float))
    finally:
        PyMem_Free(data)
    return plates[:used], times_ns[:used], starts[: used + 1], grams, n - known, known - used
