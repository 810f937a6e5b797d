"""Names to numbers: Vowpal Wabbit's hashing, the walk over a row, and the building of CSR matrices.

A feature's index is the MurmurHash3 (x86, 32 bits; Appleby 2011, public domain) of its name, seeded with
the hash of its namespace, as VW computes it (``--hash strings --hash_seed 0``): a name is stripped of
surrounding white space, and one made only of digits is that number plus the seed. A category is hashed
once more, seeded with the hash of its name (VW's chain hash), and has the value 1. All arithmetic wraps
at 32 bits; a learner keeps the low bits that its table has.
"""

import json
from collections.abc import Mapping

import numpy as np

from penstock.errors import BadRecord
from penstock.events import Features

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy
from libcpp.vector cimport vector


cdef extern from *:
    """
    // The memory behind an object is asked for before it is needed: a row's objects lie anywhere. An object that
    // a cache line's end cuts in two needs both lines: its type stands in the first, its value in the second.
    static inline void foresee(PyObject* value) {
        __builtin_prefetch(value);
        __builtin_prefetch(reinterpret_cast<const char*>(value) + 32);
    }

    static inline void foresee_entries(PyObject* row) {
        if (!PyDict_CheckExact(row)) return;
        const char* entries = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(row)->ma_keys);
        for (int line = 0; line < 8; ++line) __builtin_prefetch(entries + 64 * line);
    }
    """
    void foresee(PyObject* value) noexcept
    void foresee_entries(PyObject* row) noexcept

cdef extern from "plain_values.hpp" namespace "penstock":
    bint add_plain(
        PyObject* value, uint32_t index, uint32_t seed, uint32_t namespace, Entries& out
    ) except +

cdef extern from "Python.h":
    # Declared over pointers: a walk that owns no references counts none.
    bint PyUnicode_CheckExact(PyObject* value) noexcept
    bint PyUnicode_Check(PyObject* value) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* value) noexcept
    const uint8_t* PyUnicode_1BYTE_DATA(PyObject* value) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* value) noexcept
    void Py_INCREF(PyObject* value) noexcept
    void Py_XDECREF(PyObject* value) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject* value, Py_ssize_t* length) noexcept
    bint PyErr_ExceptionMatches(object kind) noexcept
    void PyErr_Clear() noexcept
    bint PyDict_CheckExact(PyObject* value) noexcept
    bint PyDict_Next(PyObject* mapping, Py_ssize_t* position, PyObject** key, PyObject** value) noexcept
    Py_ssize_t PyList_GET_SIZE(object items) noexcept
    PyObject* PyList_GET_ITEM(object items, Py_ssize_t i) noexcept
    Py_ssize_t PyTuple_GET_SIZE(object items) noexcept
    PyObject* PyTuple_GET_ITEM(object items, Py_ssize_t i) noexcept


cdef enum:
    MAX_DEPTH = 32  # containers inside a row; real events nest three deep, and a cycle must end somewhere
    MAX_SPARE = 1 << 20  # entries (20 MB) that a buffer may hold on to between calls
    MAX_SHOWN = 60  # characters of a name in a message
    LOOKAHEAD = 32  # items of a dict
    KNOWN_NAMES = 1 << 12  # whose hashes are kept; a power of two

FINITE = "a finite number of magnitude <= 1e18"
ACCEPTED = "a number, a string, a boolean, a list or a mapping"
NESTING = f"at most {MAX_DEPTH} levels of nesting"
UNICODE = "text without lone surrogates"
CHANGED = "a container that nobody changes while it is read"

cdef Entries _spare
cdef object _array_type = np.ndarray
cdef object _numpy_scalar = np.generic
cdef tuple _numpy_numbers = (np.bool_, np.integer, np.floating)


class Unusable(Exception):
    """A value that cannot be a feature; collects its path while the walk unwinds, innermost first."""

    def __init__(self, expected, got):
        self.expected = expected
        self.got = got
        self.path = []

    def record(self):
        return BadRecord(self.expected, self.got, path="$" + "".join(map(_step, reversed(self.path))))


def _step(key):
    if isinstance(key, int):
        return f"[{key}]"
    if len(key) > MAX_SHOWN:
        key = key[: MAX_SHOWN - 1] + "…"
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


cdef int _refuse_text(PyObject* text) except -1:
    """Replace the error that reading `text` has set by one of ours."""
    if not PyErr_ExceptionMatches(UnicodeEncodeError):
        return -1
    PyErr_Clear()
    raise Unusable(UNICODE, <object>text)


cdef inline Text utf8(PyObject* text, Text* last) except NULL:
    """Borrow the bytes of `text`; a NUL follows them."""
    cdef Py_ssize_t length = 0
    cdef Text first
    if PyUnicode_IS_COMPACT_ASCII(text):
        first = PyUnicode_1BYTE_DATA(text)
        last[0] = first + PyUnicode_GET_LENGTH(text)
        return first
    first = <Text>PyUnicode_AsUTF8AndSize(text, &length)
    if first == NULL:
        _refuse_text(text)
    last[0] = first + length
    return first


cdef inline int hash_text(PyObject* text, uint32_t seed, uint32_t* result) except -1:
    cdef Text last = NULL
    cdef Text first = utf8(text, &last)
    result[0] = hash_name(<const char*>first, last - first, seed)
    return 0


cdef struct Known:
    PyObject* name  # owned
    uint32_t seed
    uint32_t index


# The names of an application's features are the same few objects over and over, so their hashes are kept, by
# address: a slot owns its string, which can then neither change nor give its address to another one.
cdef Known _known[KNOWN_NAMES]


cdef inline uint32_t _hash_key(PyObject* name, uint32_t seed) except? 0:
    """Do what `hash_text` does, faster for a string that comes again."""
    cdef Known* slot = &_known[((<size_t>name >> 4) ^ (<size_t>name >> 14) ^ seed) & (KNOWN_NAMES - 1)]
    if slot.name == name and slot.seed == seed:
        return slot.index
    return _hash_new_key(name, seed, slot)


cdef uint32_t _hash_new_key(PyObject* name, uint32_t seed, Known* slot) except? 0:
    cdef uint32_t index = 0
    key = <object>name  # owned, whatever happens to its dict meanwhile
    if not PyUnicode_Check(name):
        raise Unusable("a string as name", key)
    hash_text(name, seed, &index)
    if PyUnicode_CheckExact(name) and PyUnicode_GET_LENGTH(name) <= MAX_SHOWN:
        Py_INCREF(name)
        Py_XDECREF(slot.name)
        slot.name, slot.seed, slot.index = name, seed, index
    return index


cdef int _add_other(
    object value, uint32_t index, uint32_t seed, uint32_t namespace, int depth, Entries& out
) except -1:
    """Append what is not plain, or refuse it; return whether Python code may have run."""
    cdef uint32_t category
    if type(value) is str:
        hash_text(<PyObject*>value, seed, &category)
        out.add(category, 1.0, namespace)
        return False
    if type(value) is dict:
        return _walk_dict(value, seed, seed if depth == 0 else namespace, depth + 1, out)
    if type(value) is list or type(value) is tuple:
        return _walk_list(value, index, seed, namespace, depth + 1, out)
    _add_foreign(value, index, seed, namespace, depth, out)
    return True


cdef int _add_foreign(
    object value, uint32_t index, uint32_t seed, uint32_t namespace, int depth, Entries& out
) except -1:
    """Append subclasses of the built-in types, and whatever else can be a number; or refuse a value."""
    cdef uint32_t category
    cdef double number
    cdef bint is_number
    if type(value) is int or isinstance(value, float):  # it would have been plain
        raise Unusable(FINITE, value)
    if isinstance(value, str):
        hash_text(<PyObject*>value, seed, &category)
        out.add(category, 1.0, namespace)
        return 0
    if isinstance(value, (list, tuple)):
        _walk_list(value, index, seed, namespace, depth + 1, out)
        return 0
    if isinstance(value, _array_type):
        value = value.tolist()
        if not add_plain(<PyObject*>value, index, seed, namespace, out):
            _add_other(value, index, seed, namespace, depth, out)
        return 0
    if isinstance(value, _numpy_scalar):
        # All have __float__, even bytes and complex numbers; and a duration is an integer to numpy.
        is_number = isinstance(value, _numpy_numbers) and not isinstance(value, np.timedelta64)
    elif isinstance(value, Mapping):
        _walk_mapping(value, seed, seed if depth == 0 else namespace, depth + 1, out)
        return 0
    else:
        is_number = hasattr(type(value), "__float__")
    if not is_number:
        raise Unusable(ACCEPTED, value)
    try:
        number = float(value)
    except OverflowError:
        raise Unusable(FINITE, value) from None
    except Exception as error:
        raise Unusable(ACCEPTED, value) from error
    if not fabs(number) <= MAX_MAGNITUDE:
        raise Unusable(FINITE, value)
    if number != 0.0:
        out.add(index, number, namespace)
    return 0


cdef int _walk_list(
    object items, uint32_t index, uint32_t seed, uint32_t namespace, int depth, Entries& out
) except -1:
    cdef bint is_list = isinstance(items, list)
    cdef Py_ssize_t length = PyList_GET_SIZE(items) if is_list else PyTuple_GET_SIZE(items)
    cdef Py_ssize_t i = 0
    cdef bint foreign = False
    if depth > MAX_DEPTH:
        raise Unusable(NESTING, items)
    try:
        while i < length:
            item = <object>(PyList_GET_ITEM(items, i) if is_list else PyTuple_GET_ITEM(items, i))
            if not add_plain(<PyObject*>item, index + <uint32_t>i, seed, namespace, out):
                foreign |= _add_other(item, index + <uint32_t>i, seed, namespace, depth, out)
                if is_list and PyList_GET_SIZE(items) != length:
                    raise Unusable(CHANGED, items)
            i += 1
    except Unusable as unusable:
        unusable.path.append(i)
        raise
    return foreign


cdef int _walk_mapping(object row, uint32_t seed, uint32_t namespace, int depth, Entries& out) except -1:
    if type(row) is not dict and depth <= MAX_DEPTH:
        try:
            row = dict(row.items())
        except Exception as error:
            raise Unusable("a mapping that can be read", row) from error
    return _walk_dict(row, seed, namespace, depth, out)


cdef struct Item:
    PyObject* name
    PyObject* value
    Py_ssize_t next  # position behind it


cdef struct Ahead:
    # The next items of a dict, borrowed: to be read again after anything that might have changed it.
    Item items[LOOKAHEAD]
    Py_ssize_t n  # less than LOOKAHEAD: there are no more


cdef inline void _read_ahead(PyObject* row, Py_ssize_t position, Ahead* ahead) noexcept:
    """Read the items behind `position`, so that the memory of all their values is on its way at once."""
    cdef Item* item
    ahead.n = 0
    while ahead.n < LOOKAHEAD:
        item = &ahead.items[ahead.n]
        if not PyDict_Next(row, &position, &item.name, &item.value):
            return
        foresee(item.value)
        item.next = position
        ahead.n += 1


cdef int _walk_dict(object row, uint32_t seed, uint32_t namespace, int depth, Entries& out) except -1:
    """Append the entries of a dict; return whether Python code may have run."""
    cdef Ahead ahead
    if depth > MAX_DEPTH:
        raise Unusable(NESTING, row)
    _read_ahead(<PyObject*>row, 0, &ahead)
    return _add_items(row, &ahead, seed, namespace, depth, out)


cdef int _add_items(
    object row, Ahead* ahead, uint32_t seed, uint32_t namespace, int depth, Entries& out
) except -1:
    """Append what was read ahead, and all items behind it; return whether Python code may have run."""
    cdef Py_ssize_t i = 0
    cdef uint32_t index
    cdef bint foreign = False
    cdef Item* item
    while i < ahead.n:
        item = &ahead.items[i]
        i += 1
        index = _hash_key(item.name, seed)
        if not add_plain(item.value, index, index, namespace, out) and _add_item(
            row, item.name, item.value, index, namespace, depth, out
        ):
            foreign = True
        elif i < LOOKAHEAD:
            continue
        _read_ahead(<PyObject*>row, item.next, ahead)
        i = 0
    return foreign


cdef int _add_item(
    dict row, PyObject* name, PyObject* value, uint32_t index, uint32_t namespace, int depth, Entries& out
) except -1:
    """`_add_other`, of an item of a dict."""
    cdef Py_ssize_t length = len(row)
    cdef bint foreign
    key, other = <object>name, <object>value  # owned, whatever happens to the dict meanwhile
    try:
        foreign = _add_other(other, index, index, namespace, depth, out)
        if len(row) != length:
            raise Unusable(CHANGED, row)
    except Unusable as unusable:
        unusable.path.append(key)
        raise
    return foreign


cdef int _encode_row(object row, Ahead* ahead, Entries& out) except -1:
    """Do what `encode_into` does, of a dict from what was read ahead; return whether Python code may have run."""
    cdef size_t start = out.size()
    try:
        if type(row) is dict:
            return _add_items(row, ahead, 0, 0, 0, out)
        if not isinstance(row, Mapping):
            raise Unusable("a mapping of names to features", row)
        _walk_mapping(row, 0, 0, 0, out)
        return True
    except Unusable as unusable:
        out.truncate(start)
        raise unusable.record() from unusable.__cause__
    except:
        out.truncate(start)
        raise


cdef int encode_into(object row, Entries& out) except -1:
    """Append the entries of one row, or, raising, nothing.

    Raises
    ------
    BadRecord
        Names the path of the first value that cannot be a feature.
    """
    cdef Ahead ahead
    _read_row_ahead(<PyObject*>row, &ahead)
    return _encode_row(row, &ahead, out)


cdef inline void _read_row_ahead(PyObject* row, Ahead* ahead) noexcept:
    if PyDict_CheckExact(row):
        _read_ahead(row, 0, ahead)


cdef object matrix(vector[int64_t]& indptr, Entries& entries):
    """Copy the entries into `Features`."""
    cdef size_t nnz = entries.size()
    return Features(
        _array(indptr.data(), indptr.size(), np.int64),
        _array(entries.indices(), nnz, np.uint32),
        _array(entries.values(), nnz, np.float64),
        _array(entries.namespaces(), nnz, np.uint32),
    )


cdef object _array(const void* data, size_t size, object dtype):
    cdef Py_buffer view
    array = np.empty(size, dtype)
    if size:
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
        memcpy(view.buf, data, view.len)
        PyBuffer_Release(&view)
    return array


def hash_string(bytes data not None, uint32_t seed):
    """MurmurHash3 (x86, 32 bits) of `data`.

    Examples
    --------
    >>> hex(hash_string(b"aaaa", 0x9747B28C))
    '0x5a97808a'
    """
    return murmur(<Text>(<const char*>data), len(data), seed)


def hash_feature(str name not None, str namespace=None):
    """Index of the feature `name` in `namespace`, before a table cuts it to its bits.

    Raises
    ------
    BadRecord
        If a name is not valid Unicode.

    Examples
    --------
    >>> hash_feature("age"), hash_feature("age", "user"), hash_feature("17")
    (717653329, 1254382607, 17)
    """
    cdef uint32_t index = 0
    try:
        if namespace is not None:
            hash_text(<PyObject*>namespace, 0, &index)
        hash_text(<PyObject*>name, index, &index)
    except Unusable as unusable:
        raise unusable.record() from None
    return index


def encode_rows(rows):
    """Hash every row.

    ============================ ======================================= ==========================
    value under a name           index                                   value
    ============================ ======================================= ==========================
    number other than 0          hash(name, seed)                        the number
    True                         hash(name, seed)                        1.0
    0, False, None               none: the feature is absent
    string                       hash(string, hash(name, seed))          1.0
    list: its i-th element       as if it stood under the name, but a number's index is i higher
    mapping                      its names are hashed with hash(name, seed) as their seed
    ============================ ======================================= ==========================

    The seed of a row's own names is 0, and they are in the default namespace (0). A mapping directly in a
    row is a namespace, identified by the hash of its name. Subclasses and numpy's scalars and arrays
    count as what they stand for, and everything that has ``__float__`` is a number.

    Parameters
    ----------
    rows : sequence of mappings, length n

    Returns
    -------
    features : Features
        n rows, in order; one that cannot be used is empty.
    bad : list of (int, BadRecord)
        Which rows cannot be used, in order, and why: the path of the first value that is neither of the
        above, or not finite, or of magnitude > 1e18, or not valid Unicode, or nested over 32 levels deep.

    Examples
    --------
    >>> features, bad = encode_rows([{"age": 31, "user": {"country": "SE"}}, {"age": "31", "user": b"SE"}])
    >>> features.indptr.tolist(), features.values.tolist()
    ([0, 2, 2], [31.0, 1.0])
    >>> print(bad[0][0], bad[0][1])
    1 expected a number, a string, a boolean, a list or a mapping, got b'SE' - at `$.user`
    """
    cdef list items = rows if type(rows) is list else list(rows)
    cdef Entries out
    cdef vector[int64_t] indptr
    cdef Ahead ahead[2]  # of this row and the next one
    cdef Py_ssize_t i = 0
    cdef bint foreign = True
    bad = []
    out.take(_spare)
    indptr.reserve(len(items) + 1)
    indptr.push_back(0)
    while i < len(items):
        if foreign:
            _read_row_ahead(PyList_GET_ITEM(items, i), &ahead[i & 1])
        if i + 1 < len(items):
            _read_row_ahead(PyList_GET_ITEM(items, i + 1), &ahead[(i + 1) & 1])
        if i + 4 < len(items):
            foresee_entries(PyList_GET_ITEM(items, i + 2))
            foresee(PyList_GET_ITEM(items, i + 4))
        try:
            foreign = _encode_row(items[i], &ahead[i & 1], out)
        except BadRecord as error:
            foreign = True
            bad.append((i, error))
        indptr.push_back(out.size())
        i += 1
    features = matrix(indptr, out)
    _spare.keep(out, MAX_SPARE)
    return features, bad


def require_features(row, str path not None="$"):
    """Refuse a row that `encode_rows` would; what it holds instead of features is forgotten.

    Parameters
    ----------
    row : mapping
    path : str
        Of the row in its record.

    Raises
    ------
    BadRecord
        Names the path of the first value that cannot be a feature.

    Examples
    --------
    >>> require_features({"hour": 9})
    >>> require_features({"user": {"age": float("nan")}}, "$.context")
    Traceback (most recent call last):
    penstock.errors.BadRecord: expected a finite number of magnitude <= 1e18, got nan - at `$.context.user.age`
    """
    cdef Entries out
    out.take(_spare)
    try:
        encode_into(row, out)
    except BadRecord as error:
        raise BadRecord(error.expected, error.got, path=path + error.path.removeprefix("$")) from None
    finally:
        _spare.keep(out, MAX_SPARE)
