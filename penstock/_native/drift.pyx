"""Kernels of the drift detectors: a whole array of values a call, without the GIL."""

from libc.math cimport fabs, log, sqrt
from libc.stdint cimport int64_t

ROWS = 56
LARGEST = 1e100

cdef int64_t _ROWS = ROWS
cdef double _LARGEST = LARGEST


cdef struct Window:
    int64_t row_length  # max_buckets + 1: a row is merged as soon as it is full
    double* totals      # [row * row_length + i]: sum over the i-th oldest bucket of 2**row values
    double* m2          # likewise, sum of squared deviations from the bucket's own mean
    int64_t* counts     # [row]: buckets in use
    int64_t n_rows      # rows up to the last one in use
    double width
    double total
    double squares      # sum of squared deviations over the whole window


cdef inline double bucket_size(int64_t row) noexcept nogil:
    return <double>(<int64_t>1 << row)


cdef void clear(Window* window) noexcept nogil:
    cdef int64_t row
    for row in range(_ROWS):
        window.counts[row] = 0
    for row in range(_ROWS * window.row_length):
        window.totals[row] = 0.0
        window.m2[row] = 0.0
    window.n_rows = 1
    window.width = window.total = window.squares = 0.0


cdef void remove_oldest(Window* window, int64_t row, int64_t n) noexcept nogil:
    """Drop the `n` oldest buckets of a row; what is behind the last one stays zero."""
    cdef int64_t start = row * window.row_length, i
    cdef int64_t kept = window.counts[row] - n
    for i in range(start, start + kept):
        window.totals[i] = window.totals[i + n]
        window.m2[i] = window.m2[i + n]
    for i in range(start + kept, start + kept + n):
        window.totals[i] = 0.0
        window.m2[i] = 0.0
    window.counts[row] = kept


cdef void insert(Window* window, double value) noexcept nogil:
    cdef int64_t row = 0, start, into
    cdef double n, difference
    window.totals[window.counts[0]] = value
    window.m2[window.counts[0]] = 0.0
    window.counts[0] += 1
    window.width += 1.0
    if window.width > 1.0:
        difference = value - window.total / (window.width - 1.0)
        window.squares += (window.width - 1.0) * difference * difference / window.width
    window.total += value

    # The last row is out of reach: it would hold its first bucket after 2**55 values.
    while row < _ROWS - 1 and window.counts[row] == window.row_length:
        start = row * window.row_length
        n = bucket_size(row)
        difference = window.totals[start] / n - window.totals[start + 1] / n
        into = (row + 1) * window.row_length + window.counts[row + 1]
        window.totals[into] = window.totals[start] + window.totals[start + 1]
        window.m2[into] = window.m2[start] + window.m2[start + 1] + n * 0.5 * difference * difference
        window.counts[row + 1] += 1
        remove_oldest(window, row, 2)
        row += 1
        if row >= window.n_rows:
            window.n_rows = row + 1


cdef bint find_cut(const Window* window, double delta, double shortest) noexcept nogil:
    """Whether some cut of the window, from old to new, has two sides of different means."""
    cdef double n0 = 0.0, n1 = window.width, u0 = 0.0, u1 = window.total
    cdef double variance = window.squares / window.width
    cdef double confidence = log(2.0 * log(window.width) / delta)
    cdef double n, m, bound
    cdef int64_t row, i, start
    for row in range(window.n_rows - 1, -1, -1):
        start = row * window.row_length
        n = bucket_size(row)
        for i in range(start, start + window.counts[row]):
            n0 += n
            n1 -= n
            u0 += window.totals[i]
            u1 -= window.totals[i]
            if n1 < shortest:
                return False
            if n0 < shortest:
                continue
            m = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0)
            bound = sqrt(2.0 * m * variance * confidence) + 2.0 / 3.0 * confidence * m
            if fabs(u0 / n0 - u1 / n1) > bound:
                return True
    return False


cdef double drop_oldest_bucket(Window* window) noexcept nogil:
    """Take the oldest bucket out of the window and return its sum."""
    cdef int64_t last = window.n_rows - 1
    cdef int64_t start = last * window.row_length
    cdef double n = bucket_size(last)
    cdef double total = window.totals[start]
    cdef double difference
    window.width -= n
    window.total -= total
    difference = total / n - window.total / window.width
    window.squares -= window.m2[start] + n * window.width * difference * difference / (n + window.width)
    remove_oldest(window, last, 1)
    while window.n_rows > 1 and window.counts[window.n_rows - 1] == 0:
        window.n_rows -= 1
    return total


def first_unusable(const double[::1] values):
    """Position of the first value that is NaN or larger than `LARGEST` in magnitude; -1 if none is."""
    cdef Py_ssize_t i, n = values.shape[0]
    with nogil:
        for i in range(n):
            if not fabs(values[i]) <= _LARGEST:
                with gil:
                    return i
    return -1


def adwin(
    const double[::1] values,
    double[:, ::1] totals,
    double[:, ::1] m2,
    int64_t[::1] counts,
    double[::1] sums,
    int64_t[::1] clocks,
    double delta,
    int64_t clock,
    int64_t min_window,
    int64_t grace,
    bint only_up,
):
    """Put `values` through ADWIN, in order; the arrays are its state and are updated.

    Returns the first alarm as (index, mean before, mean after, width after), or None.
    """
    if (
        totals.shape[0] != ROWS
        or totals.shape[1] < 3
        or m2.shape[0] != ROWS
        or m2.shape[1] != totals.shape[1]
        or counts.shape[0] != ROWS
        or sums.shape[0] != 2
        or clocks.shape[0] != 3
    ):
        raise ValueError("the arrays of ADWIN's state do not fit together")
    if clock < 1 or min_window < 1:
        raise ValueError(f"clock and min_window must be at least 1, got {clock} and {min_window}")
    cdef Window window
    cdef Py_ssize_t i, n = values.shape[0], alarm = -1
    cdef int64_t row, ticks = clocks[1], alarmed = clocks[2]
    cdef double width_before, dropped, dropped_mean, kept_mean
    cdef double before = 0.0, after = 0.0, width_after = 0.0
    window.row_length = totals.shape[1]
    window.totals = &totals[0, 0]
    window.m2 = &m2[0, 0]
    window.counts = &counts[0]
    window.n_rows = 1
    for row in range(_ROWS):
        if not 0 <= counts[row] < window.row_length:
            raise ValueError(f"row {row} cannot hold {counts[row]} buckets")
        if counts[row] > 0:
            window.n_rows = row + 1
    window.total = sums[0]
    window.squares = sums[1]
    window.width = <double>clocks[0]

    with nogil:
        for i in range(n):
            if alarmed:  # what made the last alarm ring is over: start from nothing, as River does
                clear(&window)
                ticks = alarmed = 0
            insert(&window, values[i])
            ticks += 1
            if ticks % clock != 0 or window.width <= grace:
                continue
            width_before = window.width
            dropped = 0.0
            while find_cut(&window, delta, <double>min_window):
                dropped += drop_oldest_bucket(&window)
            if window.width == width_before:
                continue
            dropped_mean = dropped / (width_before - window.width)
            kept_mean = window.total / window.width
            if only_up and not kept_mean > dropped_mean:
                continue
            alarmed = 1
            if alarm < 0:
                alarm = i
                before = dropped_mean
                after = kept_mean
                width_after = window.width
        sums[0] = window.total
        sums[1] = window.squares
        clocks[0] = <int64_t>window.width
        clocks[1] = ticks
        clocks[2] = alarmed
    return None if alarm < 0 else (alarm, before, after, <int64_t>width_after)
