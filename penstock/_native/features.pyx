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

from penstock.errors import BadRecord, DataError
from penstock.events import Features

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcpy
from libcpp.vector cimport vector


cdef extern from *:
    """
    #include <charconv>

    static bool parse_double(const uint8_t* first, const uint8_t* last, double* value) {
        auto start = reinterpret_cast<const char*>(first), end = reinterpret_cast<const char*>(last);
        return std::from_chars(start, end, *value).ec == std::errc();
    }
    """
    bint parse_double(const uint8_t* first, const uint8_t* last, double* value) noexcept

cdef extern from *:
    """
    // The memory behind an object is asked for before it is needed: a row's objects lie anywhere.
    static inline void foresee(PyObject* value) { __builtin_prefetch(value); }

    static inline void foresee_entries(PyObject* row) {
        if (!PyDict_CheckExact(row)) return;
        const char* entries = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(row)->ma_keys);
        for (int line = 0; line < 8; ++line) __builtin_prefetch(entries + 64 * line);
    }
    """
    void foresee(PyObject* value) noexcept
    void foresee_entries(PyObject* row) noexcept

cdef extern from "Python.h":
    # Declared over pointers: a walk that owns no references counts none.
    bint PyFloat_CheckExact(PyObject* value) noexcept
    bint PyFloat_Check(PyObject* value) noexcept
    bint PyLong_CheckExact(PyObject* value) noexcept
    bint PyUnicode_CheckExact(PyObject* value) noexcept
    bint PyUnicode_Check(PyObject* value) noexcept
    double PyFloat_AS_DOUBLE(PyObject* value) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject* value, int* overflow) except? -1
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* value) noexcept
    const uint8_t* PyUnicode_1BYTE_DATA(PyObject* value) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* value) noexcept
    void Py_INCREF(PyObject* value) noexcept
    void Py_XDECREF(PyObject* value) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject* value, Py_ssize_t* length) noexcept
    bint PyErr_ExceptionMatches(object kind) noexcept
    void PyErr_Clear() noexcept
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0
    bint PyDict_CheckExact(PyObject* value) noexcept
    bint PyDict_Next(PyObject* mapping, Py_ssize_t* position, PyObject** key, PyObject** value) noexcept
    Py_ssize_t PyList_GET_SIZE(object items) noexcept
    PyObject* PyList_GET_ITEM(object items, Py_ssize_t i) noexcept
    Py_ssize_t PyTuple_GET_SIZE(object items) noexcept
    PyObject* PyTuple_GET_ITEM(object items, Py_ssize_t i) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False


ctypedef const uint8_t* Text  # UTF-8, delimited by a second pointer

cdef enum:
    MAX_DEPTH = 32  # containers inside a row; real events nest three deep, and a cycle must end somewhere
    MAX_SPARE = 1 << 20  # entries (20 MB) that a buffer may hold on to between calls
    MAX_SHOWN = 60  # characters of a name in a message
    LOOKAHEAD = 32  # items of a dict
    KNOWN_NAMES = 1 << 10  # whose hashes are kept; a power of two
    MAX_INTEGER = 1_000_000_000_000_000_000

cdef double MAX_MAGNITUDE = 1e18  # sums of squares of such values still fit a float32

FINITE = "a finite number of magnitude <= 1e18"
ACCEPTED = "a number, a string, a boolean, a list or a mapping"
NESTING = f"at most {MAX_DEPTH} levels of nesting"
UNICODE = "text without lone surrogates"
CHANGED = "a container that nobody changes while it is read"
VW_VALUE = "a number, or a category that cannot be taken for one"

cdef object _array_type = np.ndarray
cdef object _numpy_scalar = np.generic
cdef tuple _numpy_numbers = (np.bool_, np.integer, np.floating)


class _Unusable(Exception):
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
    raise _Unusable(UNICODE, <object>text)


cdef inline Text _utf8(PyObject* text, Text* last) except NULL:
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


cdef inline int _hash_text(PyObject* text, uint32_t seed, uint32_t* result) except -1:
    cdef Text last = NULL
    cdef Text first = _utf8(text, &last)
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
    """Do what `_hash_text` does, faster for a string that comes again."""
    cdef Known* slot = &_known[((<size_t>name >> 4) ^ (<size_t>name >> 14) ^ seed) & (KNOWN_NAMES - 1)]
    if slot.name == name and slot.seed == seed:
        return slot.index
    return _hash_new_key(name, seed, slot)


cdef uint32_t _hash_new_key(PyObject* name, uint32_t seed, Known* slot) except? 0:
    cdef uint32_t index = 0
    key = <object>name  # owned, whatever happens to its dict meanwhile
    if not PyUnicode_Check(name):
        raise _Unusable("a string as name", key)
    _hash_text(name, seed, &index)
    if PyUnicode_CheckExact(name) and PyUnicode_GET_LENGTH(name) <= MAX_SHOWN:
        Py_INCREF(name)
        Py_XDECREF(slot.name)
        slot.name, slot.seed, slot.index = name, seed, index
    return index


cdef inline int _add_number(double number, uint32_t index, uint32_t namespace, Entries& out) except -1:
    """Append a number, unless it is 0; return whether it is usable."""
    if not fabs(number) <= MAX_MAGNITUDE:  # also NaN
        return False
    if number != 0.0:
        out.add(index, number, namespace)
    return True


cdef inline int _add_plain(
    PyObject* value, uint32_t index, uint32_t seed, uint32_t namespace, Entries& out
) except -1:
    """Append what most values are: usable numbers, ASCII, nothing. Runs no Python code; returns whether it did.

    A number goes to `index`; categories, and the names of a mapping, are seeded with `seed`. The two differ
    only inside a list.
    """
    cdef long long integer
    cdef int overflow = 0
    cdef const char* text
    if PyUnicode_CheckExact(value):
        if not PyUnicode_IS_COMPACT_ASCII(value):
            return False
        text = <const char*>PyUnicode_1BYTE_DATA(value)
        out.add(hash_name(text, PyUnicode_GET_LENGTH(value), seed), 1.0, namespace)
        return True
    if PyFloat_CheckExact(value):
        return _add_number(PyFloat_AS_DOUBLE(value), index, namespace, out)
    if PyLong_CheckExact(value):
        integer = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow or not -MAX_INTEGER <= integer <= MAX_INTEGER:
            return False
        return _add_number(<double>integer, index, namespace, out)
    if value == Py_True:
        return _add_number(1.0, index, namespace, out)
    if value == Py_False or value == Py_None:
        return True
    if PyFloat_Check(value):  # numpy's float64
        return _add_number(PyFloat_AS_DOUBLE(value), index, namespace, out)
    return False


cdef int _add_other(
    object value, uint32_t index, uint32_t seed, uint32_t namespace, int depth, Entries& out
) except -1:
    """Append what is not plain, or refuse it; return whether Python code may have run."""
    cdef uint32_t category
    if type(value) is str:
        _hash_text(<PyObject*>value, seed, &category)
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
        raise _Unusable(FINITE, value)
    if isinstance(value, str):
        _hash_text(<PyObject*>value, seed, &category)
        out.add(category, 1.0, namespace)
        return 0
    if isinstance(value, (list, tuple)):
        _walk_list(value, index, seed, namespace, depth + 1, out)
        return 0
    if isinstance(value, _array_type):
        value = value.tolist()
        if not _add_plain(<PyObject*>value, index, seed, namespace, out):
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
        raise _Unusable(ACCEPTED, value)
    try:
        number = float(value)
    except OverflowError:
        raise _Unusable(FINITE, value) from None
    except Exception as error:
        raise _Unusable(ACCEPTED, value) from error
    if not fabs(number) <= MAX_MAGNITUDE:
        raise _Unusable(FINITE, value)
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
        raise _Unusable(NESTING, items)
    try:
        while i < length:
            item = <object>(PyList_GET_ITEM(items, i) if is_list else PyTuple_GET_ITEM(items, i))
            if not _add_plain(<PyObject*>item, index + <uint32_t>i, seed, namespace, out):
                foreign |= _add_other(item, index + <uint32_t>i, seed, namespace, depth, out)
                if is_list and PyList_GET_SIZE(items) != length:
                    raise _Unusable(CHANGED, items)
            i += 1
    except _Unusable as unusable:
        unusable.path.append(i)
        raise
    return foreign


cdef int _walk_mapping(object row, uint32_t seed, uint32_t namespace, int depth, Entries& out) except -1:
    if type(row) is not dict and depth <= MAX_DEPTH:
        try:
            row = dict(row.items())
        except Exception as error:
            raise _Unusable("a mapping that can be read", row) from error
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
        raise _Unusable(NESTING, row)
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
        if not _add_plain(item.value, index, index, namespace, out) and _add_item(
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
            raise _Unusable(CHANGED, row)
    except _Unusable as unusable:
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
            raise _Unusable("a mapping of names to features", row)
        _walk_mapping(row, 0, 0, 0, out)
        return True
    except _Unusable as unusable:
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


cdef Entries _spare


cdef object _matrix(vector[int64_t]& indptr, Entries& entries):
    """Copy the entries into `Features`, and keep what they were gathered in."""
    cdef size_t nnz = entries.size()
    features = Features(
        _array(indptr.data(), indptr.size(), np.int64),
        _array(entries.indices(), nnz, np.uint32),
        _array(entries.values(), nnz, np.float64),
        _array(entries.namespaces(), nnz, np.uint32),
    )
    _spare.keep(entries, MAX_SPARE)
    return features


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
            _hash_text(<PyObject*>namespace, 0, &index)
        _hash_text(<PyObject*>name, index, &index)
    except _Unusable as unusable:
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
    return _matrix(indptr, out), bad


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


# Text. Cells of a table and VW's lines are hashed as the rows they are given back as would be.

cdef enum Kind:
    NOT_A_NUMBER
    INTEGER
    DECIMAL
    NOT_FINITE
    OUT_OF_RANGE  # of magnitude > 1e18


cdef struct Number:
    double value
    long long integer  # the same, of an INTEGER


cdef inline bint _is_digit(Text at, Text last) noexcept:
    return at != last and c"0" <= at[0] <= c"9"


cdef inline bint _is_sign(Text at, Text last) noexcept:
    return at != last and (at[0] == c"+" or at[0] == c"-")


cdef inline bint _is_exponent(Text at, Text last) noexcept:
    return at != last and (at[0] == c"e" or at[0] == c"E")


cdef bint _starts_with(Text at, Text last, const char* word) noexcept:
    """Whether `word` (lower-case letters) begins the text, in whatever case."""
    while word[0]:
        if at == last or (at[0] | 0x20) != word[0]:
            return False
        at += 1
        word += 1
    return True


cdef bint _is_not_finite(Text at, Text last) noexcept:
    if last - at == 3:
        return _starts_with(at, last, b"nan") or _starts_with(at, last, b"inf")
    return last - at == 8 and _starts_with(at, last, b"infinity")


cdef Kind _read_number(Text first, Text last, Number* number) except *:
    """Read ``[+-]digits[.digits][e[+-]digits]`` from the whole text, rounding correctly.

    A byte that cannot go on the number must follow the text.
    """
    cdef bint negative = first != last and first[0] == c"-"
    cdef Text start = first + 1 if _is_sign(first, last) else first
    cdef Text at = start
    cdef unsigned long long integer = 0
    cdef Py_ssize_t n_digits
    if _is_not_finite(start, last):
        return Kind.NOT_FINITE
    while _is_digit(at, last):
        if integer <= MAX_INTEGER:  # stays above it from then on
            integer = 10 * integer + (at[0] - c"0")
        at += 1
    n_digits = at - start
    if at == last and n_digits:
        number.integer = -<long long>integer if negative else <long long>integer
        number.value = <double>number.integer
        return Kind.INTEGER if integer <= MAX_INTEGER else Kind.OUT_OF_RANGE
    if at != last and at[0] == c".":
        at += 1
        while _is_digit(at, last):
            at += 1
            n_digits += 1
    if n_digits == 0:
        return Kind.NOT_A_NUMBER
    if _is_exponent(at, last):
        at += 2 if _is_sign(at + 1, last) else 1
        if not _is_digit(at, last):
            return Kind.NOT_A_NUMBER
        while _is_digit(at, last):
            at += 1
    if at != last:
        return Kind.NOT_A_NUMBER
    if not parse_double(start, last, &number.value):  # it does not say on which side it left the range
        number.value = PyOS_string_to_double(<const char*>start, <char**>&at, NULL)
    if negative:
        number.value = -number.value
    return Kind.DECIMAL if fabs(number.value) <= MAX_MAGNITUDE else Kind.OUT_OF_RANGE


cdef inline bint _is_space(Text at) noexcept:
    return at[0] == c" " or c"\t" <= at[0] <= c"\r"


cdef Kind _read_cell(object cell, Number* number) except *:
    cdef Text last = NULL
    cdef Text first = _utf8(<PyObject*>cell, &last)
    while first != last and _is_space(first):
        first += 1
    while first != last and _is_space(last - 1):
        last -= 1
    return _read_number(first, last, number)


cdef enum Column:
    AUTO
    NUMBER
    CATEGORY
    IGNORED


cdef dict _encode_record(
    list names, vector[uint32_t]& indices, vector[int]& kinds, list cells, object missing, Entries& out
):
    """Append the entries of one record; return it as a row."""
    cdef Py_ssize_t i
    cdef Number number
    cdef Kind kind
    cdef uint32_t category
    cdef dict row = {}
    if len(cells) != len(names):
        raise _Unusable(f"{len(names)} cells", len(cells))
    try:
        for i in range(len(names)):
            if kinds[i] == Column.IGNORED:
                continue
            name = names[i]
            cell = cells[i]
            if type(cell) is not str:
                raise _Unusable("text", cell)
            if cell in missing:
                continue
            kind = Kind.NOT_A_NUMBER if kinds[i] == Column.CATEGORY else _read_cell(cell, &number)
            if kind == Kind.OUT_OF_RANGE and kinds[i] == Column.AUTO:
                kind = Kind.NOT_A_NUMBER  # an identifier: 04e09220 is one, and so are twenty digits
            if kind == Kind.NOT_FINITE or kind == Kind.OUT_OF_RANGE:
                raise _Unusable(FINITE, cell)
            if kind == Kind.NOT_A_NUMBER:
                if kinds[i] == Column.NUMBER:
                    raise _Unusable("a number", cell)
                _hash_text(<PyObject*>cell, indices[i], &category)
                out.add(category, 1.0, 0)
                row[name] = cell
            else:
                if number.value != 0.0:
                    out.add(indices[i], number.value, 0)
                row[name] = number.integer if kind == Kind.INTEGER else number.value
    except _Unusable as unusable:
        unusable.path.append(name)
        raise
    return row


def encode_cells(names, kinds, records, missing):
    """Read the records of a table, given as text.

    A number is written ``[+-]digits[.digits][e[+-]digits]`` in ASCII, with white space around it or not,
    and is rounded correctly.

    Parameters
    ----------
    names : sequence of str, length m
    kinds : sequence of int, length m
        Of each column: 0 takes what reads as a number of magnitude <= 1e18 for one, and everything else
        for a category;
        1 takes numbers only; 2 takes every cell for a category; 3 ignores the column.
    records : sequence of sequences of str, length n
    missing : set of str
        Cells that say that there is no value; they are compared as they stand.

    Returns
    -------
    features : Features
        n rows: what `encode_rows` makes of `rows`.
    rows : list of dicts, length n
        Numbers written without a point or exponent are int, others float. Empty where a record is bad.
    bad : list of (int, BadRecord)
        Which records cannot be used, in order, and why: the first column whose cell is not of its kind,
        or a number that is not finite or of magnitude > 1e18; or a wrong number of cells.

    Raises
    ------
    DataError
        If two columns that are not ignored have the same name.
    ValueError
        If `kinds` does not fit `names`.

    Examples
    --------
    >>> _, rows, bad = encode_cells(["age", "country"], [1, 0], [["31", "SE"], ["?", "SE"]], {""})
    >>> rows
    [{'age': 31, 'country': 'SE'}, {}]
    >>> print(bad[0][1])
    expected a number, got '?' - at `$.age`
    """
    cdef Entries out
    cdef vector[int64_t] indptr
    cdef vector[uint32_t] indices
    cdef vector[int] columns
    cdef size_t start
    out.take(_spare)
    names = list(names)
    if len(kinds) != len(names):
        raise ValueError(f"{len(names)} names, but {len(kinds)} kinds of columns")
    seen = set()
    for name, kind in zip(names, kinds):
        if not Column.AUTO <= kind <= Column.IGNORED:
            raise ValueError(f"column {name!r}: kind must be 0, 1, 2 or 3, got {kind!r}")
        if kind != Column.IGNORED and name in seen:
            raise DataError(f"two columns are called {name!r}")
        seen.add(name)
        columns.push_back(kind)
        indices.push_back(hash_feature(name))
    rows = []
    bad = []
    indptr.push_back(0)
    for i, cells in enumerate(records):
        start = out.size()
        try:
            rows.append(_encode_record(names, indices, columns, list(cells), missing, out))
        except _Unusable as unusable:
            out.truncate(start)
            rows.append({})
            bad.append((i, unusable.record()))
        indptr.push_back(out.size())
    return _matrix(indptr, out), rows, bad


cdef inline Text _token_end(Text at, Text last) noexcept:
    """Where VW takes a name or a number to end."""
    while at != last and at[0] != c" " and at[0] != c"\t" and at[0] != c":" and at[0] != c"|":
        at += 1
    return at


cdef inline Text _word_end(Text at, Text last) noexcept:
    """Where VW takes a category to end."""
    while at != last and at[0] != c" " and at[0] != c"\t":
        at += 1
    return at


cdef inline str _decode(Text first, Text last):
    return PyUnicode_DecodeUTF8(<const char*>first, last - first, NULL)


cdef bint _vw_takes_for_number(Text at, Text last) noexcept:
    """Whether VW would read (a beginning of) this category as a number, most likely as 0."""
    cdef Text p
    while at != last and _is_space(at):
        at += 1
    if _is_sign(at, last):
        at += 1
    if (
        at == last
        or _is_digit(at, last)
        or (at[0] == c"." and _is_digit(at + 1, last))
        or _starts_with(at, last, b"nan")
        or _starts_with(at, last, b"inf")
    ):
        return True
    p = at + 1 if at[0] == c"." else at
    if _is_exponent(p, last):
        p += 1
        if p != last and p[0] == c"-":
            p += 1
        while _is_digit(p, last):
            p += 1
    return p == last


cdef int _merge(dict features, str name, object value) except -1:
    """Add a feature that may be there already: numbers add up, categories make a list behind them."""
    old = features.get(name)
    if old is None:
        features[name] = value
    elif type(old) is float and type(value) is float:
        features[name] = old + value
    else:
        values = old if type(old) is list else [old]
        if type(value) is not float:
            values.append(value)
        elif type(values[0]) is float:
            values[0] += value
        else:
            values.insert(0, value)
        features[name] = values
    return 0


cdef Text _encode_namespace(Text at, Text last, dict spaces, Entries& out) except NULL:
    """Append the entries of one namespace, whose ``|`` lies behind; return where it ends."""
    cdef Text end = _token_end(at, last)
    cdef uint32_t namespace = hash_name(<const char*>at, end - at, 0)
    cdef uint32_t index
    cdef uint32_t n_anonymous = 0
    cdef Number number
    cdef Number scale
    cdef Kind kind
    cdef str space = _decode(at, end)
    cdef str name
    scale.value = 1.0
    if end != last and end[0] == c":":
        at = end + 1
        end = _token_end(at, last)
        if not space:
            raise _Unusable("the name of a namespace before its ':'", _decode(at - 1, end))
        kind = _read_number(at, end, &scale)
        if kind > Kind.DECIMAL or kind == Kind.NOT_A_NUMBER or (end != last and end[0] == c":"):
            raise _unusable_in_line(FINITE, at, _word_end(at, last), space, None)
    features = None
    at = end
    while at != last and at[0] != c"|":
        if at[0] == c" " or at[0] == c"\t":
            at += 1
            continue
        end = _token_end(at, last)
        name = _decode(at, end)
        index = hash_name(<const char*>at, end - at, namespace)
        number.value = 1.0
        kind = Kind.DECIMAL
        if end != last and end[0] == c":":
            at = end + 1
            end = _token_end(at, last)
            kind = _read_number(at, end, &number)
            if kind == Kind.NOT_FINITE or kind == Kind.OUT_OF_RANGE:
                raise _unusable_in_line(FINITE, at, end, space, name)
            if kind == Kind.NOT_A_NUMBER or (end != last and end[0] == c":"):
                end = _word_end(at, last)
                if _vw_takes_for_number(at, end):
                    raise _unusable_in_line(VW_VALUE, at, end, space, name)
                kind = Kind.NOT_A_NUMBER
            if kind != Kind.NOT_A_NUMBER and not name:
                index = namespace + n_anonymous
                name = str(n_anonymous)
                n_anonymous += 1
        if kind == Kind.NOT_A_NUMBER:
            index = hash_name(<const char*>at, end - at, index)
            number.value = 1.0
        else:
            number.value *= scale.value
            if fabs(number.value) > MAX_MAGNITUDE:
                raise _unusable_in_line(FINITE, at, end, space, name)
        if number.value != 0.0:
            out.add(index, number.value, namespace)
            if features is None:
                features = spaces.setdefault(space, {})
            if kind != Kind.NOT_A_NUMBER:
                _merge(features, name, number.value)
            elif name:
                _merge(features, name, _decode(at, end))
            else:
                _merge(features, _decode(at, end), 1.0)  # VW's hash of a category without a name
        at = end
    return at


cdef object _unusable_in_line(str expected, Text first, Text last, str space, str name):
    unusable = _Unusable(expected, _decode(first, last))
    unusable.path = [step for step in (name, space) if step]
    return unusable


cdef dict _encode_line(str line, Entries& out):
    """Append the entries of one line; return it as a row."""
    cdef Text last = NULL
    cdef Text at = _utf8(<PyObject*>line, &last)
    cdef dict spaces = {}
    while at != last and ((last - 1)[0] == c"\n" or (last - 1)[0] == c"\r"):
        last -= 1
    if memchr(at, c"\n", last - at) != NULL or memchr(at, c"\r", last - at) != NULL:
        raise _Unusable("a single line", line)
    if at != last and at[0] != c"|":
        raise _Unusable("'|' before the first namespace", line)
    while at != last:
        at = _encode_namespace(at + 1, last, spaces, out)
    default = spaces.get("", {})
    if "" in default or not default.keys().isdisjoint(spaces):
        return spaces  # {"": {...}} hashes as the top level does
    row = {}
    for space, features in spaces.items():
        if space:
            row[space] = features
        else:
            row.update(features)
    return row


def encode_vw(lines):
    """Read VW's text format from the first ``|`` of each line on, hashing as VW does.

    What VW reads with a warning or by accident (``a:nan``, ``a:1.5x``, ``a:``, ``a:e5``) is an error here.

    Parameters
    ----------
    lines : sequence of str, length n
        Like ``|user:2 age:31 country:SE |ad sport``: the namespace's multiplier, where there is one,
        applies to numbers; a feature without a value has 1; a value that is not a number is a category.

    Returns
    -------
    features : Features
        n rows, without the features whose value is 0.
    rows : list of dicts, length n
        The same as rows: namespaces are nested, and the default one's features are at the top level (all
        under ``""`` if one of them is called like a namespace). A feature without a name is called by its
        number. The numbers of a repeated name add up, and its categories are a list; only then does
        `encode_rows` make other entries of a row than those in `features`.
    bad : list of (int, BadRecord)
        Which lines cannot be used, in order, and why.

    Examples
    --------
    >>> encode_vw(["|user:2 age:31 country:SE |ad sport"])[1]
    [{'user': {'age': 62.0, 'country': 'SE'}, 'ad': {'sport': 1.0}}]
    """
    cdef Entries out
    cdef vector[int64_t] indptr
    cdef size_t start
    out.take(_spare)
    rows = []
    bad = []
    indptr.push_back(0)
    for i, line in enumerate(lines):
        start = out.size()
        try:
            rows.append(_encode_line(line, out))
        except _Unusable as unusable:
            out.truncate(start)
            rows.append({})
            bad.append((i, unusable.record()))
        indptr.push_back(out.size())
    return _matrix(indptr, out), rows, bad
