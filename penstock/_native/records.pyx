"""Records in, columns of events out: what the kernels of JSON and CSV have in common."""

import numpy as np

from penstock.events import Features

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy


cdef dict _LABELS = {
    "binary": <int>Labels.kBinary,
    "multiclass": <int>Labels.kMulticlass,
    "regression": <int>Labels.kRegression,
}


cdef Labels labels_of(str task) except *:
    return <Labels><int>_LABELS[task]


cdef int set_label(TextLabel* label, str task, object classes, flag is_required) except -1:
    """Say what labels there are; `classes` are the names of a binary task's: negative, positive, or None."""
    label.labels = labels_of(task)
    if classes is not None:
        label.labels = Labels.kClasses
        label.negative, label.positive = classes[0].encode(), classes[1].encode()
    label.is_required = is_required
    return 0


cdef class Records:
    def read(self, list records not None):
        """Read what can be read.

        Parameters
        ----------
        records : list of bytes, length n
            Or of (bytes, int64 of shape (m, 2)), which are m records each: where in the bytes they begin and
            end.

        Returns
        -------
        None
            If another thread is in here.
        features : Features
            Of the events read, in order.
        labels : float64, or object (str)
        weights, times : float64
            As in `penstock.events.Batch`.
        ids : list of str, or None
        dates : list of (int, str)
            Times that are text, and the event they are of.
        kept, declined : int64
            Numbers of the records read, and of those that somebody else has to look at; together they are n.
        """
        cdef vector[Record] places
        cdef Record place
        cdef EventReader* reader = self._reader.get()
        if self._is_busy:
            return None
        if reader == NULL:
            raise TypeError("this reader has no format")
        for record in records:
            if type(record) is tuple:
                _add_spans(record[0], record[1], places)
            elif type(record) is bytes:
                place.begin = PyBytes_AS_STRING(record)
                place.end = place.limit = place.begin + PyBytes_GET_SIZE(record)
                places.push_back(place)
            else:
                raise TypeError(f"expected bytes, got {type(record).__name__}")
        self._is_busy = True
        try:
            with nogil:
                reader.read(places.data(), places.size())
            return self._columns(&reader.events)
        finally:
            self._is_busy = False
            reader.clear()

    cdef object _columns(self, Events* events):
        cdef Py_ssize_t i
        cdef Py_ssize_t n = events.kept.size()
        cdef size_t n_entries = events.entries.size()
        indptr = np.zeros(n + 1, np.int64)
        copy(indptr[1:], events.ends.data(), n * sizeof(int64_t))
        features = Features(
            indptr,
            column(events.entries.indices(), n_entries, np.uint32),
            column(events.entries.values(), n_entries, np.float64),
            column(events.entries.namespaces(), n_entries, np.uint32),
        )
        if self._has_classes:
            labels = np.empty(n, object)
            labels[:] = [_text(events.classes[i]) for i in range(n)]
        else:
            labels = column(events.labels.data(), n, np.float64)
        ids = None
        if self._has_ids:
            ids = [_text(events.ids[i]) for i in range(n)] if events.has_ids else [""] * n
        return (
            features,
            labels,
            column(events.weights.data(), n, np.float64),
            column(events.times.data(), n, np.float64),
            ids,
            [(events.dates[i].first, _text(events.dates[i].second)) for i in range(<Py_ssize_t>events.dates.size())],
            column(events.kept.data(), n, np.int64),
            column(events.declined.data(), events.declined.size(), np.int64),
        )


cdef int _add_spans(bytes block, const int64_t[:, ::1] spans, vector[Record]& places) except -1:
    cdef Py_ssize_t i
    cdef Py_ssize_t size = PyBytes_GET_SIZE(block)
    cdef const char* first = PyBytes_AS_STRING(block)
    cdef Record place
    place.limit = first + size
    if spans.shape[1] != 2:
        raise ValueError(f"expected spans of shape (m, 2), got (m, {spans.shape[1]})")
    places.reserve(places.size() + spans.shape[0])
    for i in range(spans.shape[0]):
        if not 0 <= spans[i, 0] <= spans[i, 1] <= size:
            raise ValueError(f"bytes {spans[i, 0]} to {spans[i, 1]} are not in a block of {size}")
        place.begin = first + spans[i, 0]
        place.end = first + spans[i, 1]
        places.push_back(place)
    return 0


cdef inline str _text(string_view text):
    return PyUnicode_DecodeUTF8(text.data(), text.size(), NULL)


cdef object column(const void* data, size_t size, object dtype):
    """Copy so many elements."""
    array = np.empty(size, dtype)
    copy(array, data, array.nbytes)
    return array


cdef int copy(object array, const void* data, size_t size) except -1:
    """Copy so many bytes, which `array` has room for."""
    cdef Py_buffer view
    if size:
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
        memcpy(view.buf, data, size)
        PyBuffer_Release(&view)
    return 0
