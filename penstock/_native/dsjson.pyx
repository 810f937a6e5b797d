"""VW's dsjson to decisions in columns in one pass over its bytes; the work is done in ``dsjson_rows.hpp``."""

import numpy as np

from penstock.events import Features

from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp
from libcpp.string cimport string
from libcpp.vector cimport vector
from penstock._native.records cimport Entries, EventReader, Events, Records, column, copy, string_view


cdef extern from "dsjson_rows.hpp" namespace "penstock::dsjson" nogil:
    cppclass Decisions:
        Entries actions
        vector[int64_t] action_ends
        vector[int64_t] offer_ends
        vector[string_view] arms
        vector[uint32_t] arm_hashes
        vector[int64_t] chosen
        vector[double] propensities

    cppclass _DecisionReader "penstock::dsjson::DecisionReader"(EventReader):
        vector[string] arm
        Decisions decisions
        _DecisionReader() except +


cdef enum:
    KNOWN_ARMS = 1 << 12  # a power of two
    LONGEST_KNOWN = 256  # bytes


cdef class DecisionReader(Records):
    """Reads the lines that need no special care, and says which others there are.

    `read` gives contexts (Features), where each decision's actions begin (and the last ones end), identities of
    the actions, their features, which was chosen, propensities, rewards, weights, times, ids, dates, kept and
    declined; the last three as of `penstock._native.records.Records`.

    Parameters
    ----------
    arm : sequence of str
        Names that lead to the identity of an action; if there are none, it is the action's number, from 1.
    """

    cdef list _known  # identities by their hashes: those of a stream are the same few over and over

    def __init__(self, *, arm=()):
        cdef _DecisionReader* reader = new _DecisionReader()
        self._reader.reset(reader)
        self._known = [""] * KNOWN_ARMS
        for name in arm:
            reader.arm.push_back(name.encode(errors="surrogatepass"))  # what no line can hold is found in none

    cdef object _columns(self, Events* events):
        cdef Py_ssize_t i
        cdef Py_ssize_t n = events.kept.size()
        cdef Decisions* decisions = &(<_DecisionReader*>self._reader.get()).decisions
        return (
            _matrix(events.entries, events.ends),
            _starts(decisions.offer_ends),
            self._arms(decisions),
            _matrix(decisions.actions, decisions.action_ends),
            column(decisions.chosen.data(), n, np.int64),
            column(decisions.propensities.data(), n, np.float64),
            column(events.labels.data(), n, np.float64),
            column(events.weights.data(), n, np.float64),
            column(events.times.data(), n, np.float64),
            [_text(id) for id in events.ids],
            [(events.dates[i].first, _text(events.dates[i].second)) for i in range(<Py_ssize_t>events.dates.size())],
            column(events.kept.data(), n, np.int64),
            column(events.declined.data(), events.declined.size(), np.int64),
        )

    cdef object _arms(self, Decisions* decisions):
        cdef Py_ssize_t i, size
        cdef int64_t start = 0
        cdef list names = []
        cdef list numbers = []
        if decisions.arms.size():
            for i in range(<Py_ssize_t>decisions.arms.size()):
                names.append(self._arm(decisions.arms[i], decisions.arm_hashes[i] & (KNOWN_ARMS - 1)))
        else:
            for end in decisions.offer_ends:
                size = end - start
                numbers += [str(number) for number in range(len(numbers) + 1, size + 1)]
                names += numbers[:size]
                start = end
        arms = np.empty(len(names), object)
        arms[:] = names
        return arms

    cdef str _arm(self, string_view text, Py_ssize_t slot):
        cdef str name = self._known[slot]
        cdef Py_ssize_t size = 0
        cdef const char* data = PyUnicode_AsUTF8AndSize(name, &size)
        if size != <Py_ssize_t>text.size() or memcmp(data, text.data(), size) != 0:
            name = _text(text)
            if text.size() <= LONGEST_KNOWN:
                self._known[slot] = name
        return name


cdef object _matrix(Entries& entries, vector[int64_t]& ends):
    cdef size_t n = entries.size()
    return Features(
        _starts(ends),
        column(entries.indices(), n, np.uint32),
        column(entries.values(), n, np.float64),
        column(entries.namespaces(), n, np.uint32),
    )


cdef object _starts(vector[int64_t]& ends):
    """Where each begins, and the last one ends."""
    starts = np.zeros(ends.size() + 1, np.int64)
    copy(starts[1:], ends.data(), ends.size() * sizeof(int64_t))
    return starts


cdef inline str _text(string_view text):
    return PyUnicode_DecodeUTF8(text.data(), text.size(), NULL)
