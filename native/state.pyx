# An engine's state as bytes, and back: a plain format of our own, since what reads a snapshot must not be able to run
# code, to follow addresses, or to allocate what its size does not account for, whatever the bytes are.
#
# A value is a tag and its content, depth first; integers are little-endian. A value that occurs again is a reference to
# its place in the order in which values were completed (text, tuples and frozen sets) or begun (all others). Classes,
# names of attributes and structured dtypes are indices into tables that the caller checks.
#
# It is compiled because the engine waits: some ten nanoseconds for a value instead of a microsecond.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject, PyObject_GenericSetAttr
from cpython.unicode cimport PyUnicode_Decode
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.string cimport memcpy, memset

import collections
import enum

import numpy as np

include "arrays.pxi"

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    NONE, FALSE, TRUE, INTEGER, LONG, FLOAT, TEXT, BYTES, BYTE_ARRAY, LIST, TUPLE, DICT, SET, FROZEN_SET, DEQUE, COUNTER
    ORDERED_DICT, DEFAULT_DICT, ARRAY, OBJECT, NAMED_TUPLE, ENUM, PART, MODULE, REFERENCE, SHARED

# Deeper than any engine's state, and far less than a thread's stack holds.
cdef int DEPTH_MAX = 300
cdef int NDIM_MAX = 8
# Structured dtypes follow the plain ones.
cdef int N_PLAIN = 10
cdef int[10] PLAIN = [
    cnp.NPY_BOOL, cnp.NPY_INT8, cnp.NPY_UINT8, cnp.NPY_INT16, cnp.NPY_INT32, cnp.NPY_UINT32, cnp.NPY_INT64,
    cnp.NPY_UINT64, cnp.NPY_FLOAT32, cnp.NPY_FLOAT64,
]

cdef object _module_type = type(collections), _array_type = np.ndarray
cdef object _deque = collections.deque, _counter = collections.Counter
cdef object _ordered_dict = collections.OrderedDict, _default_dict = collections.defaultdict


cdef class _Kind:
    """How objects of a class are written."""

    cdef int tag, index
    cdef tuple slots
    cdef list slot_places
    cdef bint has_dict, own_state, is_steady


# The content of an array that nothing changes, and where it belongs.
cdef struct _Outside:
    Py_ssize_t at, n
    const char* content


@cython.final
cdef class Encoded:
    """A state as bytes; `classes`, `names` and `dtypes` are its tables, `shared` what was listed instead of written."""

    cdef char* _data
    cdef Py_ssize_t _n, _room, _n_outside, _n_bytes_outside, _room_outside
    cdef _Outside* _outside
    cdef list _owners
    cdef readonly list classes, names, dtypes, shared

    def __cinit__(self):
        self.classes, self.names, self.dtypes, self.shared, self._owners = [], [], [], [], []

    def __dealloc__(self):
        PyMem_Free(self._data)
        PyMem_Free(self._outside)

    def __len__(self):
        return self._n + self._n_bytes_outside

    def gathered(self):
        """The bytes, in one piece. May run in another thread than the engine's, which it does not hold up."""
        whole = PyBytes_FromStringAndSize(NULL, self._n + self._n_bytes_outside)
        cdef char* to = PyBytes_AS_STRING(whole)
        cdef Py_ssize_t i, at = 0
        with nogil:
            for i in range(self._n_outside):
                memcpy(to, self._data + at, self._outside[i].at - at)
                to += self._outside[i].at - at
                at = self._outside[i].at
                memcpy(to, self._outside[i].content, self._outside[i].n)
                to += self._outside[i].n
            memcpy(to, self._data + at, self._n - at)
        return whole

    cdef int leave_outside(self, object array, Py_ssize_t n) except -1:
        """Continue with the content of an array, which is not copied before it is gathered."""
        if self._n_outside == self._room_outside:
            room = max(256, 2 * self._room_outside)
            outside = <_Outside*>PyMem_Realloc(self._outside, room * sizeof(_Outside))
            if outside == NULL:
                raise MemoryError
            self._outside, self._room_outside = outside, room
        self._outside[self._n_outside] = _Outside(self._n, n, <const char*>cnp.PyArray_DATA(array))
        self._n_outside += 1
        self._n_bytes_outside += n
        self._owners.append(array)
        return 0

    cdef char* grow(self, Py_ssize_t n) except NULL:
        """Room for n more bytes, which the caller fills."""
        if self._n + n > self._room:
            room = max(2 * self._room, self._n + n, 1 << 16)
            data = <char*>PyMem_Realloc(self._data, room)
            if data == NULL:
                raise MemoryError
            self._data, self._room = data, room
        self._n += n
        return self._data + self._n - n


@cython.final
cdef class Encoder:
    """Writes one value after the other, and all that each consists of."""

    cdef readonly Encoded out
    cdef dict kinds, name_places, parts
    cdef list kept
    cdef object steady, unbound
    cdef bint shares, is_steady
    cdef int depth
    # Places of values by their address: a table with open addressing, at most half full.
    cdef uintptr_t* addresses
    cdef uint32_t* places
    cdef size_t mask, n

    def __cinit__(self, dict parts, steady, unbound, bint shares):
        """Write nothing yet.

        Args:
            parts: by id, the number of each thing that the reader has already.
            steady: classes whose instances nothing changes, nor the arrays in them. These are copied by `gathered`.
            unbound: classes of which instances are written as None.
            shares: whether steady instances, and tuples of one with numbers and text, are listed in `shared` instead.
        """
        self.out, self.parts, self.kinds, self.name_places, self.kept = Encoded(), parts, {}, {}, []
        self.steady, self.unbound, self.shares = steady, unbound, shares
        self.mask = (1 << 14) - 1
        self.reserve()

    def add(self, values):
        """Write values, none of which is freed before the last. Raises TypeError, ValueError where one cannot be."""
        self.all_of(values)

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        PyMem_Free(self.places)

    cdef int reserve(self) except -1:
        self.addresses = <uintptr_t*>PyMem_Malloc((self.mask + 1) * sizeof(uintptr_t))
        self.places = <uint32_t*>PyMem_Malloc((self.mask + 1) * sizeof(uint32_t))
        if self.addresses == NULL or self.places == NULL:
            raise MemoryError
        memset(self.addresses, 0, (self.mask + 1) * sizeof(uintptr_t))
        return 0

    cdef size_t find(self, uintptr_t address) noexcept:
        cdef size_t at = <size_t>((address >> 4) * <uintptr_t>0x9E3779B97F4A7C15U >> 20) & self.mask
        while self.addresses[at] != 0 and self.addresses[at] != address:
            at = (at + 1) & self.mask
        return at

    cdef int note(self, object value) except -1:
        """Give a value its place; from now on it is written as a reference."""
        cdef uintptr_t* addresses
        cdef uint32_t* places
        cdef size_t i, n_old, at
        if 2 * self.n > self.mask:
            addresses, places, n_old = self.addresses, self.places, self.mask + 1
            self.mask = 2 * n_old - 1
            self.reserve()
            for i in range(n_old):
                if addresses[i] != 0:
                    at = self.find(addresses[i])
                    self.addresses[at], self.places[at] = addresses[i], places[i]
            PyMem_Free(addresses)
            PyMem_Free(places)
        at = self.find(<uintptr_t><PyObject*>value)
        self.addresses[at], self.places[at] = <uintptr_t><PyObject*>value, <uint32_t>self.n
        self.n += 1
        return 0

    cdef bint refer(self, object value) except -1:
        """Write a reference to a value that was written before; False where it was not."""
        cdef size_t at = self.find(<uintptr_t><PyObject*>value)
        if self.addresses[at] == 0:
            return False
        self.head(REFERENCE, self.places[at])
        return True

    cdef int tag(self, int tag) except -1:
        self.out.grow(1)[0] = <char>tag
        return 0

    cdef int head(self, int tag, Py_ssize_t n) except -1:
        """A tag and a number."""
        cdef uint32_t number = <uint32_t>n
        if n > 0xFFFFFFFF:
            raise ValueError("too large for a snapshot")
        cdef char* at = self.out.grow(5)
        at[0] = <char>tag
        memcpy(at + 1, &number, 4)
        return 0

    cdef int short_number(self, Py_ssize_t n) except -1:
        cdef uint16_t number = <uint16_t>n
        if n > 0xFFFF:
            raise ValueError("too many classes or names for a snapshot")
        memcpy(self.out.grow(2), &number, 2)
        return 0

    cdef int eight(self, int tag, void* content) except -1:
        cdef char* at = self.out.grow(9)
        at[0] = <char>tag
        memcpy(at + 1, content, 8)
        return 0

    cdef int place_of(self, str name) except -1:
        place = self.name_places.get(name)
        if place is None:
            place = self.name_places[name] = len(self.out.names)
            self.out.names.append(name)
        return place

    cdef int name(self, str name) except -1:
        return self.short_number(self.place_of(name))

    cdef int all_of(self, object values) except -1:
        for value in values:
            self.write(value)
        return 0

    cdef int pairs(self, object values) except -1:
        for key, value in values.items():
            self.write(key)
            self.write(value)
        return 0

    cdef int write(self, object value) except -1:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ValueError("nested too deeply for a snapshot")
        self.write_plain(value)
        self.depth -= 1
        return 0

    cdef int write_plain(self, object value) except -1:
        cdef type kind = type(value)
        cdef long long integer
        cdef double number
        cdef int overflow = 0
        if value is None:
            self.tag(NONE)
        elif kind is float:
            number = value
            self.eight(FLOAT, &number)
        elif kind is int:
            integer = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                self.content(LONG, value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True))
            else:
                self.eight(INTEGER, &integer)
        elif kind is bool:
            self.tag(TRUE if value else FALSE)
        elif kind is _array_type or kind is str or kind is tuple or kind is list or kind is dict:
            if not self.refer(value):
                self.write_common(kind, value)
        elif kind is bytes:
            self.content(BYTES, value)
        else:
            self.write_other(kind, value)
        return 0

    cdef int write_common(self, type kind, object value) except -1:
        if kind is str:
            self.note(value)
            self.text(value)
        elif kind is tuple and self.shares and self.is_steady_tuple(value):
            return self.share(value)
        elif kind is tuple:
            self.head(TUPLE, len(<tuple>value))
            self.all_of(<tuple>value)
            self.note(value)
        elif kind is list:
            self.note(value)
            self.head(LIST, len(<list>value))
            self.all_of(<list>value)
        elif kind is dict:
            self.note(value)
            self.head(DICT, len(<dict>value))
            self.pairs(value)
        else:
            self.note(value)
            self.array(value)
        return 0

    cdef bint is_steady_tuple(self, tuple value) except -1:
        """Whether a tuple ends with a steady value and has nothing else but numbers and text."""
        cdef Py_ssize_t i, n = len(value)
        if n == 0 or type(value[n - 1]) not in self.steady:
            return False
        for i in range(n - 1):
            if type(value[i]) is not int and type(value[i]) is not str and type(value[i]) is not float:
                return False
        return True

    cdef int share(self, object value) except -1:
        self.note(value)
        self.head(SHARED, len(self.out.shared))
        self.out.shared.append(value)
        return 0

    cdef int content(self, int tag, bytes content) except -1:
        self.head(tag, len(content))
        memcpy(self.out.grow(len(content)), <char*>content, len(content))
        return 0

    cdef int text(self, str value) except -1:
        cdef Py_ssize_t n
        if PyUnicode_IS_COMPACT_ASCII(value):
            n = PyUnicode_GET_LENGTH(value)
            self.head(TEXT, n)
            memcpy(self.out.grow(n), PyUnicode_DATA(value), n)
            return 0
        return self.content(TEXT, value.encode("utf-8", "surrogatepass"))

    cdef int array(self, object value) except -1:
        cdef int code = 0, ndim = cnp.PyArray_NDIM(value), kind = cnp.PyArray_TYPE(value), i
        cdef int64_t dim
        cdef char* at
        if not cnp.PyArray_IS_C_CONTIGUOUS(value):
            value = np.ascontiguousarray(value)
        if ndim > NDIM_MAX:
            raise TypeError("a snapshot holds arrays of at most eight dimensions")
        while code < N_PLAIN and PLAIN[code] != kind:
            code += 1
        if code == N_PLAIN or cnp.PyArray_ISBYTESWAPPED(value):
            if value.dtype.names is None:
                raise TypeError(f"a snapshot holds no array of {value.dtype}")
            if value.dtype not in self.out.dtypes:
                self.out.dtypes.append(value.dtype)
            code = N_PLAIN + self.out.dtypes.index(value.dtype)
        at = self.out.grow(3 + 8 * ndim)
        at[0], at[1], at[2] = <char>ARRAY, <char>code, <char>ndim
        for i in range(ndim):
            dim = cnp.PyArray_DIM(value, i)
            memcpy(at + 3 + 8 * i, &dim, 8)
        n = cnp.PyArray_NBYTES(value)
        if self.is_steady:
            return self.out.leave_outside(value, n)
        memcpy(self.out.grow(n), cnp.PyArray_DATA(value), n)
        return 0

    cdef int write_other(self, type kind, object value) except -1:
        if kind in self.unbound:
            return self.tag(NONE)
        if self.refer(value):
            return 0
        if self.shares and kind in self.steady:
            return self.share(value)
        part = self.parts.get(<uintptr_t><PyObject*>value)
        if part is not None:
            return self.head(PART, part)
        found = self.kinds.get(kind)
        if found is not None:
            return self.write_instance(found, value)
        if kind is set:
            self.note(value)
            self.head(SET, len(value))
            return self.all_of(value)
        if kind is frozenset:
            self.head(FROZEN_SET, len(value))
            self.all_of(value)
            return self.note(value)
        if kind is _deque:
            self.note(value)
            self.head(DEQUE, len(value))
            self.write(value.maxlen)
            return self.all_of(value)
        if kind is _counter or kind is _ordered_dict:
            self.note(value)
            self.head(COUNTER if kind is _counter else ORDERED_DICT, len(value))
            return self.pairs(value)
        if kind is _default_dict:
            self.note(value)
            self.head(DEFAULT_DICT, len(value))
            self.short_number(self.index_of(value.default_factory))
            return self.pairs(value)
        if kind is bytearray:
            self.note(value)
            return self.content(BYTE_ARRAY, bytes(value))
        if kind is _module_type:
            self.tag(MODULE)
            return self.name(value.__name__)
        return self.write_instance(self.kind_of(kind), value)

    cdef int index_of(self, object cls) except -1:
        if not isinstance(cls, type):
            raise TypeError(f"a snapshot holds no {cls!r}")
        if cls not in self.out.classes:
            self.out.classes.append(cls)
        return self.out.classes.index(cls)

    cdef _Kind kind_of(self, type cls):
        cdef _Kind kind = _Kind()
        if issubclass(cls, enum.Enum):
            kind.tag = ENUM
        elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
            kind.tag = NAMED_TUPLE
        else:
            kind.tag = OBJECT
            slots = [name for base in cls.__mro__ for name in base.__dict__.get("__slots__", ())]
            kind.slots = tuple(name for name in slots if name not in ("__dict__", "__weakref__"))
            kind.slot_places = [self.place_of(name) for name in kind.slots]
            kind.has_dict = cls.__dictoffset__ != 0
            kind.is_steady = cls in self.steady
            # Data classes that are frozen and have slots bring one of their own, to the same effect.
            kind.own_state = not kind.slots and cls.__getstate__ is not object.__getstate__
        kind.index = self.index_of(cls)
        self.kinds[cls] = kind
        return kind

    cdef int write_instance(self, _Kind kind, object value) except -1:
        cdef Py_ssize_t i
        if kind.tag == ENUM:
            self.tag(ENUM)
            self.short_number(kind.index)
            return self.name(value.name)
        if kind.tag == NAMED_TUPLE:
            self.head(NAMED_TUPLE, len(value))
            self.short_number(kind.index)
            self.all_of(value)
            return self.note(value)
        self.note(value)
        if kind.own_state:
            state = value.__getstate__()
            self.kept.append(state)  # Addresses are of use while nothing is freed.
        elif kind.has_dict:
            state = value.__dict__
        else:
            state = None
        if not isinstance(state, (dict, type(None))):
            raise TypeError(f"a snapshot holds no {type(value).__name__}")
        self.head(OBJECT, len(kind.slots) + (len(<dict>state) if state is not None else 0))
        self.short_number(kind.index)
        if kind.is_steady:
            self.is_steady = True
        for i in range(len(kind.slots)):
            self.short_number(<int>kind.slot_places[i])
            self.write(getattr(value, <str>kind.slots[i]))
        if kind.is_steady:
            self.is_steady = False
        if state is not None:
            for name, member in (<dict>state).items():
                self.name(name)
                self.write(member)
        return 0


@cython.final
cdef class _Decoder:
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef list memo, classes, names, dtypes
    cdef object parts, shared, modules
    cdef Py_ssize_t n_left
    cdef int depth

    cdef const uint8_t* take(self, Py_ssize_t n) except NULL:
        if n < 0 or n > self.end - self.at:
            raise ValueError("cut short")
        self.at += n
        return self.at - n

    cdef Py_ssize_t number(self) except -1:
        cdef uint32_t number
        memcpy(&number, self.take(4), 4)
        return number

    cdef Py_ssize_t count(self) except -1:
        """A number of values that follow, each at least a byte."""
        cdef Py_ssize_t n = self.number()
        if n > self.end - self.at:
            raise ValueError("cut short")
        return n

    cdef object entry(self, object table):
        cdef uint16_t number
        memcpy(&number, self.take(2), 2)
        return table[number]

    cdef object read(self):
        self.depth += 1
        self.n_left -= 1
        if self.depth > DEPTH_MAX or self.n_left < 0:
            raise ValueError("more than an engine consists of")
        value = self.read_plain(self.take(1)[0])
        self.depth -= 1
        return value

    cdef object read_plain(self, int tag):
        cdef double number
        cdef int64_t integer
        cdef Py_ssize_t n
        if tag == NONE:
            return None
        if tag == FLOAT:
            memcpy(&number, self.take(8), 8)
            return number
        if tag == INTEGER:
            memcpy(&integer, self.take(8), 8)
            return integer
        if tag == REFERENCE:
            return self.memo[self.number()]
        if tag == TEXT:
            n = self.count()
            value = PyUnicode_Decode(<char*>self.take(n), n, "utf-8", "surrogatepass")
            self.memo.append(value)
            return value
        if tag == TUPLE:
            return self.noted(self.items())
        if tag == ARRAY:
            return self.noted(self.array())
        if tag == OBJECT:
            return self.instance()
        if tag == TRUE or tag == FALSE:
            return tag == TRUE
        return self.read_other(tag)

    cdef object noted(self, object value):
        self.memo.append(value)
        return value

    cdef tuple items(self):
        cdef Py_ssize_t i, n = self.count()
        # Filled before any code can see it.
        values = [None] * n
        for i in range(n):
            values[i] = self.read()
        return tuple(values)

    cdef object fill_list(self, object values, Py_ssize_t n):
        for _ in range(n):
            values.append(self.read())
        return values

    cdef object fill_dict(self, object values, Py_ssize_t n):
        for _ in range(n):
            key = self.read()
            values[key] = self.read()
        return values

    cdef object array(self):
        cdef int code = self.take(1)[0], ndim = self.take(1)[0], i
        cdef cnp.npy_intp dims[8]
        cdef int64_t dim
        cdef Py_ssize_t n
        cdef const uint8_t* content
        if ndim > NDIM_MAX:
            raise ValueError("an array of too many dimensions")
        dtype = None if code < N_PLAIN else self.dtypes[code - N_PLAIN]
        n = cnp.PyArray_DescrFromType(PLAIN[code]).itemsize if dtype is None else dtype.itemsize
        for i in range(ndim):
            memcpy(&dim, self.take(8), 8)
            if dim < 0:
                raise ValueError("an array of negative length")
            dims[i] = dim
            if dim == 0:
                n = 0
        for i in range(ndim):
            if n and n > (self.end - self.at) // dims[i]:
                raise ValueError("an array that is larger than the snapshot")
            n *= dims[i]
        content = self.take(n)
        if dtype is None:
            value = cnp.PyArray_SimpleNew(ndim, dims, PLAIN[code])
        else:
            value = np.empty([dims[i] for i in range(ndim)], dtype)
        memcpy(cnp.PyArray_DATA(value), content, n)
        if code == 0:
            for i in range(n):
                if content[i] > 1:
                    raise ValueError("a truth value that is neither 0 nor 1")
        return value

    cdef object instance(self):
        cdef Py_ssize_t n = self.count()
        value = object.__new__(self.entry(self.classes))
        self.memo.append(value)
        for _ in range(n):
            name = self.entry(self.names)
            PyObject_GenericSetAttr(value, name, self.read())
        return value

    cdef object read_other(self, int tag):
        cdef Py_ssize_t n
        if tag == LIST:
            n = self.count()
            return self.fill_list(self.noted([]), n)
        if tag == DICT:
            n = self.count()
            return self.fill_dict(self.noted({}), n)
        if tag == NAMED_TUPLE:
            n = self.count()
            cls = self.entry(self.classes)
            if not issubclass(cls, tuple) or len(cls._fields) != n:
                raise ValueError(f"want the fields of {cls.__name__}")
            return self.noted(tuple.__new__(cls, [self.read() for _ in range(n)]))
        if tag == ENUM:
            cls = self.entry(self.classes)
            if not issubclass(cls, enum.Enum):
                raise ValueError(f"{cls.__name__} has no members")
            return cls.__members__[self.entry(self.names)]
        if tag == PART:
            return self.parts[self.number()]
        if tag == SHARED:
            return self.noted(self.shared[self.number()])
        if tag == SET or tag == FROZEN_SET:
            n = self.count()
            if tag == FROZEN_SET:
                return self.noted(frozenset([self.read() for _ in range(n)]))
            values = self.noted(set())
            for _ in range(n):
                values.add(self.read())
            return values
        if tag == DEQUE:
            n = self.count()
            return self.fill_list(self.noted(collections.deque(maxlen=self.read())), n)
        if tag == COUNTER or tag == ORDERED_DICT:
            n = self.count()
            return self.fill_dict(self.noted(_counter() if tag == COUNTER else _ordered_dict()), n)
        if tag == DEFAULT_DICT:
            n = self.count()
            return self.fill_dict(self.noted(_default_dict(self.entry(self.classes))), n)
        if tag == LONG or tag == BYTES or tag == BYTE_ARRAY:
            n = self.count()
            content = (<const char*>self.take(n))[:n]
            if tag == LONG:
                return int.from_bytes(content, "little", signed=True)
            return content if tag == BYTES else self.noted(bytearray(content))
        if tag == MODULE:
            return self.modules[self.entry(self.names)]
        raise ValueError(f"no value begins with {tag}")


def decode(bytes data, list classes, list names, list dtypes, parts, shared, modules, Py_ssize_t n_max):
    """The values that an `Encoder` wrote. Runs no code of the classes that it makes objects of.

    Args:
        data: its bytes.
        classes, names, dtypes: its tables, checked by the caller: a class may be made of anything.
        parts: things that the reader has already, by their numbers.
        shared: what was listed instead of written.
        modules: by name, what a module may be.
        n_max: most values that they may consist of.

    Raises:
        Exception: any, where the bytes are not what an `Encoder` writes.
    """
    cdef _Decoder decoder = _Decoder()
    decoder.at = <const uint8_t*>PyBytes_AS_STRING(data)
    decoder.end = decoder.at + len(data)
    decoder.memo, decoder.classes, decoder.names, decoder.dtypes = [], classes, names, dtypes
    decoder.parts, decoder.shared, decoder.modules, decoder.n_left = parts, shared, modules, n_max
    values = []
    while decoder.at != decoder.end:
        values.append(decoder.read())
    return values
