"""Columns in Arrow's layout to hashed features; the work is done in ``columns.hpp``."""

import numpy as np

from penstock._native.features import hash_feature
from penstock.events import Features

from penstock._native.records cimport column as copied
from penstock._native.records cimport copy

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libcpp.vector cimport vector


cdef extern from "columns.hpp" namespace "penstock" nogil:
    enum class Layout(int):
        kBool
        kDouble
        kText
        kLongText
        kDictionary

    cppclass Column:
        Column() except +
        Layout layout
        int64_t offset
        uint32_t index
        const uint8_t* validity
        const uint8_t* data
        int64_t n_bytes
        const uint8_t* offsets
        Layout keys
        int64_t n_words
        const Column* dictionary
        vector[uint8_t] known
        vector[uint32_t] hashes

    cppclass ColumnsReader:
        ColumnsReader() except +
        vector[Column] columns
        vector[int64_t] ends
        uint32_t* indices
        double* values
        int64_t n_entries
        vector[int64_t] kept
        vector[int64_t] declined
        void read(int64_t n) except +


LAYOUTS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double",
    "string", "large_string", "dictionary",
)
"""Types of columns, by Arrow's names, in the order of ``columns.hpp``."""

cdef dict _NUMBERS = {name: number for number, name in enumerate(LAYOUTS)}
cdef dict _WIDTHS = {
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "float": 4,
    "double": 8,
}


cdef const uint8_t* _address(object buffer, Py_ssize_t n_bytes, list held) except NULL:
    """Borrow the bytes of a buffer that has so many at least; `held` keeps them."""
    cdef const uint8_t[::1] view = memoryview(buffer).cast("B")
    if view.shape[0] < n_bytes or n_bytes < 0:
        raise ValueError(f"a column has {view.shape[0]} bytes where it needs {n_bytes}")
    held.append(view)
    return &view[0] if view.shape[0] else <const uint8_t*>b""


cdef int _fill(Column* column, str layout, list buffers, Py_ssize_t offset, Py_ssize_t n, list held) except -1:
    cdef Py_ssize_t last = offset + n
    cdef Py_ssize_t width
    if offset < 0 or n < 0:
        raise ValueError(f"a column has no {n} rows from row {offset} on")
    column.layout = <Layout><int>_NUMBERS[layout]
    column.offset = offset
    if buffers[0] is not None:
        column.validity = _address(buffers[0], (last + 7) // 8, held)
    if layout == "string" or layout == "large_string":
        width = 4 if layout == "string" else 8
        column.offsets = _address(buffers[1], (last + 1) * width, held)
        column.data = _address(b"" if buffers[2] is None else buffers[2], 0, held)
        column.n_bytes = 0 if buffers[2] is None else len(buffers[2])
    else:
        column.data = _address(buffers[1], (last + 7) // 8 if layout == "bool" else last * _WIDTHS[layout], held)
    return 0


def encode_columns(names, columns, Py_ssize_t n):
    """Hash rows as `penstock._native.features.encode_rows` does, from columns.

    Parameters
    ----------
    names : sequence of str, length m
    columns : sequence of tuples, length m
        Of each: a type of `LAYOUTS`, Arrow's buffers for it, the offset of its first row in them, and None;
        for a dictionary the type, buffers and offset are those of the keys, and instead of None there are
        type, buffers, offset and number of its words.
    n : int
        Rows.

    Returns
    -------
    features : Features
        Of the rows kept, in order.
    kept, declined : int64
        Numbers of rows; the latter have a number that is not finite or of magnitude > 1e18, or text that is
        not UTF-8.

    Raises
    ------
    ValueError
        If a buffer is too short.
    """
    cdef ColumnsReader reader
    cdef vector[Column] dictionaries
    cdef Column* column
    cdef list held = []
    cdef Py_ssize_t i
    cdef Py_ssize_t m = len(columns)
    reader.columns.resize(m)
    dictionaries.resize(m)
    for i in range(m):
        column = &reader.columns[i]
        layout, buffers, offset, words = columns[i]
        _fill(column, layout, buffers, offset, n, held)
        column.index = hash_feature(names[i])
        if words is not None:
            if layout == "uint64" or layout not in _WIDTHS:
                raise ValueError(f"{layout} cannot be the key of a dictionary")
            column.keys = column.layout
            column.layout = Layout.kDictionary
            layout, buffers, offset, n_words = words
            if layout != "string" and layout != "large_string":
                raise ValueError(f"a dictionary of {layout} has no words")
            _fill(&dictionaries[i], layout, buffers, offset, n_words, held)
            column.dictionary = &dictionaries[i]
            column.n_words = n_words
            column.known.resize(n_words)
            column.hashes.resize(n_words)
    cdef uint32_t[::1] indices = np.empty(n * m + 1, np.uint32)  # one more: there has to be a first one
    cdef double[::1] values = np.empty(n * m + 1, np.float64)
    reader.indices = &indices[0]
    reader.values = &values[0]
    with nogil:
        reader.read(n)
    indptr = np.zeros(reader.kept.size() + 1, np.int64)
    copy(indptr[1:], reader.ends.data(), reader.ends.size() * sizeof(int64_t))
    features = Features(
        indptr,
        indices.base[: reader.n_entries],
        values.base[: reader.n_entries],
        np.zeros(reader.n_entries, np.uint32),
    )
    return (
        features,
        copied(reader.kept.data(), reader.kept.size(), np.int64),
        copied(reader.declined.data(), reader.declined.size(), np.int64),
    )
