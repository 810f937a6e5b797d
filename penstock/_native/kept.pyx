"""Events that a replay buffer keeps: all that is numbers of them, in the order of arrival.

An event is drawn from anywhere, so what belongs together lies together: its features are one stretch of memory.
"""

import numpy as np

from libc.stdint cimport int64_t, uint32_t
from libcpp.vector cimport vector

cdef extern from *:
    """
    #include <algorithm>
    #include <vector>
    #define PREFETCH(address) __builtin_prefetch(address)

    // By half as much again, so that few are copied often, and no more than that lies idle.
    template <class T>
    static void make_room(std::vector<T>& column, size_t size) {
        if (size > column.capacity()) column.reserve(std::max(size, column.capacity() + column.capacity() / 2));
    }
    """
    void PREFETCH(const void* address) noexcept nogil
    void make_room[T](vector[T]& column, size_t size) except +

cdef enum:
    AHEAD = 8  # events that are fetched before they are copied
    SIDE_BY_SIDE = 8  # searches: each waits for memory, but they need not wait for one another
    COST_OF_EVENT = 48  # bytes: label, weight, time, number, end, and room for a number of the buffer's own
    COST_OF_FEATURE = 16  # bytes

cdef struct Entry:
    double value
    uint32_t index
    uint32_t scope

cdef struct Event:
    int64_t end  # of its entries
    double label
    double weight
    double time


def costs_of(const int64_t[::1] indptr):
    """Bytes that each of the events takes whose features lie at these row pointers; int64, shape (n,)."""
    cdef Py_ssize_t i, n = indptr.shape[0] - 1
    costs = np.empty(n, np.int64)
    cdef int64_t[::1] out = costs
    for i in range(n):
        out[i] = COST_OF_EVENT + COST_OF_FEATURE * (indptr[i + 1] - indptr[i])
    return costs


cdef class Kept:
    """Events, numbered in ascending order."""

    cdef vector[int64_t] numbers
    cdef vector[Event] events
    cdef vector[Entry] entries

    def __len__(self):
        return <Py_ssize_t> self.numbers.size()

    def append(
        self,
        const int64_t[::1] indptr,
        const uint32_t[::1] indices,
        const double[::1] values,
        const uint32_t[::1] namespaces,
        const double[::1] labels,
        const double[::1] weights,
        const double[::1] times,
        const int64_t[::1] places,
        const int64_t[::1] numbers,
    ):
        """Copy the events at `places`, whose numbers are `numbers`.

        Raises
        ------
        ValueError
            If columns do not fit together, there is no such place, or numbers do not ascend; nothing has been
            copied then.
        """
        cdef Py_ssize_t i, at, n = places.shape[0], rows = labels.shape[0], nnz = indices.shape[0]
        cdef int64_t k, last = self.numbers.back() if self.numbers.size() else -1
        cdef size_t n_entries = self.entries.size()
        cdef bint fits = (
            indptr.shape[0] == rows + 1 and weights.shape[0] == rows and times.shape[0] == rows
            and values.shape[0] == nnz and namespaces.shape[0] == nnz and numbers.shape[0] == n
        )
        cdef Event event
        cdef Entry* to
        if fits:
            for i in range(n):
                at = places[i]
                if not 0 <= at < rows or not 0 <= indptr[at] <= indptr[at + 1] <= nnz or numbers[i] <= last:
                    fits = False
                    break
                last = numbers[i]
                n_entries += <size_t> (indptr[at + 1] - indptr[at])
        if not fits:
            raise ValueError("columns that do not fit together, no such place, or numbers that do not ascend")
        make_room(self.numbers, self.numbers.size() + n)
        make_room(self.events, self.events.size() + n)
        make_room(self.entries, n_entries)
        with nogil:
            to = self.entries.data() + self.entries.size()
            self.entries.resize(n_entries)
            for i in range(n):
                at = places[i]
                for k in range(indptr[at], indptr[at + 1]):
                    to.value = values[k]
                    to.index = indices[k]
                    to.scope = namespaces[k]
                    to += 1
                event.end = to - self.entries.data()
                event.label, event.weight, event.time = labels[at], weights[at], times[at]
                self.events.push_back(event)
                self.numbers.push_back(numbers[i])

    def find(self, const int64_t[::1] numbers):
        """Where the events with these numbers lie; int64, shape (n,).

        Raises
        ------
        ValueError
            If one of them is not here.
        """
        cdef Py_ssize_t i, j, n = numbers.shape[0], length, half
        cdef const int64_t* first = self.numbers.data()
        cdef const int64_t* found[SIDE_BY_SIDE]
        positions = np.empty(n, np.int64)
        cdef int64_t[::1] out = positions
        if n and not self.numbers.size():
            raise ValueError(f"{numbers[0]} is not among them")
        for i in range(0, n, SIDE_BY_SIDE):
            for j in range(SIDE_BY_SIDE):
                found[j] = first
            length = <Py_ssize_t> self.numbers.size()
            while length > 1:  # without a jump that the processor could guess wrong
                half = length // 2
                for j in range(SIDE_BY_SIDE):
                    found[j] += half if found[j][half] <= numbers[min(i + j, n - 1)] else 0
                length -= half
            for j in range(min(<Py_ssize_t> SIDE_BY_SIDE, n - i)):
                if found[j][0] != numbers[i + j]:
                    raise ValueError(f"{numbers[i + j]} is not among them")
                out[i + j] = found[j] - first
        return positions

    def take(self, const int64_t[::1] positions):
        """Copy the events at `positions`, in that order.

        Returns
        -------
        indptr, indices, values, namespaces, labels, weights, times
            As `Features` and `Batch` have them.

        Raises
        ------
        IndexError
            If there is no such event.
        """
        cdef Py_ssize_t i, n = positions.shape[0]
        cdef int64_t at = 0, start
        cdef const Entry* entry
        cdef const Entry* end
        indptr, columns = np.empty(n + 1, np.int64), np.empty((3, n))
        cdef int64_t[::1] ends = indptr
        cdef double[:, ::1] scalars = columns
        ends[0] = 0
        for i in range(n):
            if not 0 <= positions[i] < <int64_t> self.events.size():
                raise IndexError(
                    f"position {positions[i]} is out of bounds: there are {self.events.size()} events"
                )
            at += self.events[positions[i]].end - self.start_of(positions[i])
            ends[i + 1] = at
        indices, values, namespaces = np.empty(at, np.uint32), np.empty(at), np.empty(at, np.uint32)
        cdef uint32_t[::1] index = indices
        cdef double[::1] value = values
        cdef uint32_t[::1] scope = namespaces
        at = 0
        with nogil:
            for i in range(n):
                if i + AHEAD < n:
                    entry = self.entries.data() + self.start_of(positions[i + AHEAD])
                    PREFETCH(entry)
                    PREFETCH(entry + 4)  # the next cache line; the processor sees from there on what is coming
                start = self.start_of(positions[i])
                entry = self.entries.data() + start
                end = self.entries.data() + self.events[positions[i]].end
                while entry != end:
                    index[at] = entry.index
                    value[at] = entry.value
                    scope[at] = entry.scope
                    entry += 1
                    at += 1
                scalars[0, i] = self.events[positions[i]].label
                scalars[1, i] = self.events[positions[i]].weight
                scalars[2, i] = self.events[positions[i]].time
        return indptr, indices, values, namespaces, columns[0], columns[1], columns[2]

    def keep(self, const int64_t[::1] positions):
        """Drop all events but those at `positions`, which have to ascend.

        Raises
        ------
        ValueError
            If they do not, or there is no such event; nothing has changed then.
        """
        cdef Py_ssize_t i, n = positions.shape[0]
        cdef int64_t last = -1, k, start, end, to = 0
        for i in range(n):
            if not last < positions[i] < <int64_t> self.events.size():
                raise ValueError(f"position {positions[i]} does not ascend, or there is no such event")
            last = positions[i]
        with nogil:
            end = 0  # of the entries of the event before, as they lay
            last = -1
            for i in range(n):
                start = end if positions[i] == last + 1 else self.start_of(positions[i])
                last = positions[i]
                end = self.events[last].end
                for k in range(start, end):
                    self.entries[to] = self.entries[k]
                    to += 1
                self.events[i] = self.events[last]
                self.events[i].end = to
                self.numbers[i] = self.numbers[last]
            self.events.resize(n)
            self.numbers.resize(n)
            self.entries.resize(to)

    def costs(self):
        """Bytes that each of them takes; int64, shape (n,)."""
        ends = np.zeros(self.events.size() + 1, np.int64)
        cdef int64_t[::1] out = ends
        cdef size_t i
        for i in range(self.events.size()):
            out[i + 1] = self.events[i].end
        return costs_of(ends)

    def labels(self):
        """Their labels; float64, shape (n,)."""
        labels = np.empty(self.events.size())
        cdef double[::1] out = labels
        cdef size_t i
        for i in range(self.events.size()):
            out[i] = self.events[i].label
        return labels

    cdef inline int64_t start_of(self, int64_t position) noexcept nogil:
        return self.events[position - 1].end if position else 0
