"""Where lines begin and end, in a block of bytes: no object is made for any of them."""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memchr


cdef inline bint _is_blank(const char* at, const char* end) noexcept nogil:
    """Whether there are only spaces and carriage returns; no tab: it may separate missing values."""
    while at != end and (at[0] == c" " or at[0] == c"\r"):
        at += 1
    return at == end


def cut_lines(bytes block not None, Py_ssize_t start, Py_ssize_t n, Py_ssize_t limit, bint is_last):
    r"""Find the next lines that are not blank.

    Parameters
    ----------
    block : bytes
    start : int
        Where in it to begin.
    n : int
        How many lines to find at most.
    limit : int
        Bytes of a line, without its end. A longer one, blank or not, is not passed.
    is_last : bool
        Whether the end of the block ends a line.

    Returns
    -------
    spans : int64, shape (m, 2)
        Begin and end of each line.
    numbers : int64, shape (m,)
        Lines, blank ones too, that were passed before each.
    stop : int
        Where the last line passed has ended, or the next one begins.
    n_lines : int
        How many were passed.

    Examples
    --------
    >>> spans, numbers, stop, n_lines = cut_lines(b"one\n\ntwo\nth", 0, 10, 100, False)
    >>> spans.tolist(), numbers.tolist(), stop, n_lines
    ([[0, 3], [5, 8]], [0, 2], 9, 3)
    """
    cdef Py_ssize_t size = PyBytes_GET_SIZE(block)
    if not 0 <= start <= size or n < 0:
        raise ValueError(f"a block of {size} bytes has no {n} lines from byte {start} on")
    cdef Py_ssize_t capacity = min(n, size - start + 1)
    spans_array = np.empty((capacity, 2), np.int64)
    numbers_array = np.empty(capacity, np.int64)
    cdef int64_t[:, ::1] spans = spans_array
    cdef int64_t[::1] numbers = numbers_array
    cdef const char* first = PyBytes_AS_STRING(block)
    cdef const char* at = first + start
    cdef const char* last = first + size
    cdef const char* end
    cdef Py_ssize_t found = 0
    cdef Py_ssize_t n_lines = 0
    with nogil:
        while found < capacity and at != last:
            end = <const char*>memchr(at, c"\n", last - at)
            if end == NULL:
                if not is_last:
                    break
                end = last
            if end - at > limit:
                break
            if not _is_blank(at, end):
                spans[found, 0] = at - first
                spans[found, 1] = end - first
                numbers[found] = n_lines
                found += 1
            n_lines += 1
            at = end if end == last else end + 1
    return spans_array[:found], numbers_array[:found], at - first, n_lines
