"""Kernels of the detectors that watch whole events: hashed rows to dense ones, and tests on those.

A column is something that an event has one number of. What it can be is cut into codes by a grid of values:
a continuous column has one code for each grid value and one for each gap between two, so that Kolmogorov and
Smirnov's distance of the codes is that of the numbers, exactly; a discrete one has code 1 + i for the i-th
grid value and 0 for everything else.
"""

from libc.math cimport log
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

cdef uint32_t _SPREAD = 2654435769  # 2**32 / golden ratio: neighbouring hashes land far apart

MAX_CODES = 1 << 16


def _require(bint holds, str what):
    if not holds:
        raise ValueError(what)


cdef inline Py_ssize_t slot_of(const uint32_t[::1] keys, const int32_t[::1] columns, uint32_t key) noexcept nogil:
    """Where `key` is, or the empty slot where it would be; -1 if the table is full of others."""
    cdef Py_ssize_t mask = keys.shape[0] - 1, tried
    cdef Py_ssize_t at = (key * _SPREAD) & mask
    for tried in range(mask + 1):
        if columns[at] < 0 or keys[at] == key:
            return at
        at = (at + 1) & mask
    return -1


def fill(
    const uint32_t[::1] hashes,
    const int32_t[::1] owners,
    const double[::1] codes,
    uint32_t[::1] keys,
    int32_t[::1] columns,
    double[::1] meanings,
):
    """Put `hashes`, each with the column that it belongs to, into an open-addressed table; the first stays."""
    cdef Py_ssize_t i, at, n = hashes.shape[0], size = keys.shape[0]
    _require(owners.shape[0] == n and codes.shape[0] == n, "hashes, owners and codes differ in length")
    _require(columns.shape[0] == size and meanings.shape[0] == size, "the table's arrays differ in length")
    _require(n < size and size & (size - 1) == 0, "the table's size is no power of two above the hashes")
    for i in range(size):
        keys[i], columns[i], meanings[i] = 0, -1, 0.0
    for i in range(n):
        _require(owners[i] >= 0, "a column below 0")
        at = slot_of(keys, columns, hashes[i])
        if columns[at] < 0:
            keys[at], columns[at], meanings[at] = hashes[i], owners[i], codes[i]


def record(
    const int64_t[::1] indptr,
    const uint32_t[::1] indices,
    const double[::1] values,
    const uint32_t[::1] keys,
    const int32_t[::1] columns,
    const double[::1] meanings,
    double[:, ::1] out,
):
    """Write the number that each event has of each column into `out`, shape (n, columns).

    An entry whose meaning is 0 or more is a category of that code; below 0, its value is the number. The last
    column counts the entries that belong to no other. What an event does not have is 0.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, i, j, at, last = out.shape[1] - 1, size = keys.shape[0]
    cdef int64_t first, stop
    _require(n >= 0 and out.shape[0] == n and last >= 0, "out is not one row an event")
    _require(values.shape[0] == indices.shape[0], "indices and values differ in length")
    _require(columns.shape[0] == size and meanings.shape[0] == size, "the table's arrays differ in length")
    _require(size > 0 and size & (size - 1) == 0, "the table's size is no power of two")
    for i in range(n):
        _require(0 <= indptr[i] <= indptr[i + 1] <= indices.shape[0], "indptr is out of bounds")
    with nogil:
        for i in range(n):
            for j in range(last + 1):
                out[i, j] = 0.0
            first, stop = indptr[i], indptr[i + 1]
            for j in range(first, stop):
                at = slot_of(keys, columns, indices[j])
                if at < 0 or columns[at] < 0 or columns[at] >= last:
                    out[i, last] += 1.0
                elif meanings[at] >= 0.0:
                    out[i, columns[at]] = meanings[at]
                else:
                    out[i, columns[at]] = values[j]


cdef inline Py_ssize_t lower_bound(const double* grid, Py_ssize_t n, double value) noexcept nogil:
    """How many of `n` sorted numbers are less than `value`."""
    cdef const double* base = grid
    cdef Py_ssize_t half, left = n
    while left > 1:
        half = left >> 1
        base += half * (base[half - 1] < value)  # a product: a branch would be mispredicted half of the time
        left -= half
    return (base - grid) + (left == 1 and base[0] < value)


def encode(
    const double[:, ::1] rows,
    const double[::1] grid,
    const int64_t[::1] grid_starts,
    const uint8_t[::1] discrete,
    uint16_t[:, ::1] out,
):
    """Turn numbers, shape (n, columns), into codes; column c has the grid ``grid_starts[c]:grid_starts[c + 1]``."""
    cdef Py_ssize_t n = rows.shape[0], n_columns = rows.shape[1], i, c, at, size
    cdef bint found
    _require(out.shape[0] == n and out.shape[1] == n_columns, "out is not of the shape of rows")
    _require(
        grid_starts.shape[0] == n_columns + 1 and discrete.shape[0] == n_columns, "not one grid a column"
    )
    for c in range(n_columns):
        size = grid_starts[c + 1] - grid_starts[c]
        _require(grid_starts[c] >= 0 and 0 < size < MAX_CODES // 2, "a grid is empty or too large")
        _require(grid_starts[c + 1] <= grid.shape[0], "a grid is out of bounds")
    with nogil:
        for c in range(n_columns):  # one grid at a time stays in the nearest cache
            size = grid_starts[c + 1] - grid_starts[c]
            for i in range(n):
                at = lower_bound(&grid[grid_starts[c]], size, rows[i, c])
                found = at < size and grid[grid_starts[c] + at] == rows[i, c]
                if discrete[c]:
                    out[i, c] = <uint16_t>(at + 1 if found else 0)
                else:
                    out[i, c] = <uint16_t>(2 * at + found)


def count(
    const uint16_t[:, ::1] codes,
    const int64_t[::1] code_starts,
    int64_t[::1] out,
):
    """Count how often each column has each code; those of column c go to ``code_starts[c]:code_starts[c + 1]``."""
    cdef Py_ssize_t i, c, n_columns = codes.shape[1]
    _require(code_starts.shape[0] == n_columns + 1, "not one start a column")
    for c in range(n_columns):
        _require(0 <= code_starts[c] <= code_starts[c + 1] <= out.shape[0], "code_starts is out of bounds")
    with nogil:
        out[:] = 0
        for c in range(n_columns):
            for i in range(codes.shape[0]):
                if codes[i, c] >= code_starts[c + 1] - code_starts[c]:
                    with gil:
                        raise ValueError(f"codes[{i}, {c}] = {codes[i, c]} is none of its column")
                out[code_starts[c] + codes[i, c]] += 1


cdef double distance(const int64_t* a, const int64_t* b, Py_ssize_t n, double of_a, double of_b) noexcept nogil:
    """Kolmogorov and Smirnov's, of counts of ordered codes."""
    cdef int64_t apart = 0, highest = 0, lowest = 0
    cdef int64_t n_a = <int64_t>of_a, n_b = <int64_t>of_b
    cdef Py_ssize_t i
    for i in range(n):
        apart += a[i] * n_b - b[i] * n_a
        highest = max(highest, apart)
        lowest = min(lowest, apart)
    return max(highest, -lowest) / (of_a * of_b)


cdef inline double information(double observed, double expected) noexcept nogil:
    return 2.0 * observed * log(observed / expected) if observed > 0.0 else 0.0


cdef inline double cell(int64_t a, int64_t b, double of_a, double of_b) noexcept nogil:
    cdef double pooled = <double>(a + b) / (of_a + of_b)
    return information(a, of_a * pooled) + information(b, of_b * pooled)


cdef (double, double) likelihood_ratio(
    const int64_t* a, const int64_t* b, Py_ssize_t n, double of_a, double of_b, int64_t least
) noexcept nogil:
    """G and its degrees of freedom; cells seen less than `least` times are one, with the smallest other if need be."""
    cdef int64_t rare_a = 0, rare_b = 0, smallest
    cdef Py_ssize_t i, merged = -1
    cdef double g = 0.0, cells = 0.0
    for i in range(n):
        if a[i] + b[i] < least:
            rare_a += a[i]
            rare_b += b[i]
    if 0 < rare_a + rare_b < least:
        for i in range(n):
            if a[i] + b[i] >= least and (merged < 0 or a[i] + b[i] < smallest):
                merged, smallest = i, a[i] + b[i]
        if merged >= 0:
            rare_a += a[merged]
            rare_b += b[merged]
    for i in range(n):
        if a[i] + b[i] >= least and i != merged:
            g += cell(a[i], b[i], of_a, of_b)
            cells += 1.0
    if rare_a + rare_b > 0:
        g += cell(rare_a, rare_b, of_a, of_b)
        cells += 1.0
    return g, cells - 1.0


def compare(
    const int64_t[::1] before,
    const int64_t[::1] after,
    const int64_t[::1] code_starts,
    const uint8_t[::1] discrete,
    int64_t least,
    double[::1] statistics,
    double[::1] freedom,
):
    """Test each column's counts of codes before against those after.

    A continuous column's statistic is Kolmogorov and Smirnov's distance, and its freedom 0; a discrete one's
    is the likelihood ratio G, with its degrees of freedom.
    """
    cdef Py_ssize_t n_columns = discrete.shape[0], c, i, start, n
    cdef double of_a, of_b
    _require(code_starts.shape[0] == n_columns + 1, "not one start a column")
    _require(statistics.shape[0] == n_columns and freedom.shape[0] == n_columns, "not one result a column")
    _require(before.shape[0] == after.shape[0], "before and after differ in length")
    for c in range(n_columns):
        _require(0 <= code_starts[c] < code_starts[c + 1] <= before.shape[0], "code_starts is out of bounds")
    with nogil:
        for c in range(n_columns):
            start, n = code_starts[c], code_starts[c + 1] - code_starts[c]
            of_a = of_b = 0.0
            for i in range(start, start + n):
                of_a += before[i]
                of_b += after[i]
            if of_a == 0.0 or of_b == 0.0:
                statistics[c] = freedom[c] = 0.0
            elif discrete[c]:
                statistics[c], freedom[c] = likelihood_ratio(&before[start], &after[start], n, of_a, of_b, least)
            else:
                statistics[c], freedom[c] = distance(&before[start], &after[start], n, of_a, of_b), 0.0
