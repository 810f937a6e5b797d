"""Sums for off-policy evaluation, taken event by event in an order that no batch boundary changes."""

from libc.stdint cimport int64_t


def advance(double[::1] sums, const double[::1] outcomes, double scale):
    """Take outcomes, of which ``scale * outcome + 1`` is at least `scale`.

    ``sums`` is (n, S, V): S adds up ``scale * outcome``, V its squared distance from the best guess that the
    outcomes before it allow. No guess is above `scale`, so that no distance is below -1.
    """
    cdef Py_ssize_t i
    cdef double n, total, variance, outcome, guess
    if sums.shape[0] != 3:
        raise ValueError(f"expected three sums, got {sums.shape[0]}")
    n, total, variance = sums[0], sums[1], sums[2]
    with nogil:
        for i in range(outcomes.shape[0]):
            n += 1.0
            guess = (0.5 * scale + total) / n
            if guess > scale:
                guess = scale
            outcome = scale * outcomes[i]
            total += outcome
            variance += (outcome - guess) * (outcome - guess)
    sums[0], sums[1], sums[2] = n, total, variance


def running_sum(double start, const double[::1] values):
    """Return ``start`` with `values` added to it, one after the other."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            start += values[i]
    return start


def expectations(
    const double[::1] probabilities, const double[::1] values, const int64_t[::1] starts, double[::1] out
):
    """Set ``out[i]`` to the mean of `values` under the i-th distribution, the entries from ``starts[i]`` on.

    Raises
    ------
    ValueError
        If the columns do not fit together.
    """
    cdef Py_ssize_t n = out.shape[0]
    cdef Py_ssize_t i
    cdef int64_t j
    cdef double mean
    if starts.shape[0] != n + 1 or values.shape[0] != probabilities.shape[0] or starts[0] < 0:
        raise ValueError("probabilities, values and starts do not fit together")
    for i in range(n):
        if starts[i] > starts[i + 1]:
            raise ValueError(f"starts fall at {i}")
    if starts[n] > values.shape[0]:
        raise ValueError(f"starts end at {starts[n]}, behind the {values.shape[0]} entries")
    with nogil:
        for i in range(n):
            mean = 0.0
            for j in range(starts[i], starts[i + 1]):
                mean += probabilities[j] * values[j]
            out[i] = mean
