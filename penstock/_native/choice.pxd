"""From the indices of the offered arms to a distribution over them: what all policies end with."""

from libc.math cimport INFINITY, fmin
from libc.stdint cimport int64_t

cdef enum:
    RETIRED = -1  # slot of an arm that is not to be chosen any more
    PRIOR = 0     # slot of an arm of which nothing is known


cdef inline Py_ssize_t eligible(const int64_t* slots, Py_ssize_t k, Py_ssize_t most) noexcept nogil:
    """How many of the offered may be chosen, counted up to `most`; 0 if all are retired, and then all may."""
    cdef Py_ssize_t j, count = 0
    for j in range(k):
        if count == most:
            break
        count += slots[j] != RETIRED
    return count


cdef inline void split_maximum(const double* index, double* p, Py_ssize_t k) noexcept nogil:
    """All mass on the largest index, in equal parts where several are."""
    cdef double best = -INFINITY
    cdef Py_ssize_t j, first = 0, ties = 0, left
    for j in range(k):
        p[j] = 0.0
        if index[j] > best:
            best, first, ties = index[j], j, 0
        ties += index[j] == best
    left = ties
    j = first
    while left:
        if index[j] == best:
            p[j] = 1.0 / ties
            left -= 1
        j += 1


cdef inline void histogram(
    const double* samples, double* best, double* share, double* p, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """How often each arm is the best of n samples, shape (k, n); `best` and `share` are room for n each."""
    cdef Py_ssize_t j, m
    cdef double value
    cdef const double* row
    for m in range(n):
        best[m] = -INFINITY
        share[m] = 0.0
    for j in range(k):
        row = samples + j * n
        for m in range(n):
            if row[m] > best[m]:
                best[m] = row[m]
    for j in range(k):
        row = samples + j * n
        for m in range(n):
            share[m] += row[m] == best[m]
    for m in range(n):
        share[m] = 1.0 / share[m]
    for j in range(k):
        row = samples + j * n
        value = 0.0
        for m in range(n):
            if row[m] == best[m]:
                value += share[m]
        p[j] = fmin(value / n, 1.0)  # thirds of ties may add up to a rounding error more


cdef inline void settle(double* p, const int64_t* slots, Py_ssize_t k, double floor) noexcept nogil:
    """Mix the floor in over those that may be chosen."""
    cdef Py_ssize_t j, n
    cdef double least
    if floor <= 0.0:
        return
    n = eligible(slots, k, k)
    least = floor / (n if n else k)
    for j in range(k):
        if n == 0 or slots[j] != RETIRED:
            p[j] = (1.0 - floor) * p[j] + least
