"""The sums that the gate keeps event by event, in an order that no batch boundary changes."""

from libc.math cimport exp, log
from libc.stdint cimport int64_t

cdef extern from "bets.hpp" nogil:
    enum: _GAMBLERS "bets::GAMBLERS"
    void play "bets::play"(
        double* mantissa, int64_t* exponent, Py_ssize_t tests, const double* bets, const double* gains,
        Py_ssize_t n, double delta
    ) noexcept
    double wealth "bets::log_wealth"(const double* mantissa, const int64_t* exponent) noexcept

GAMBLERS = _GAMBLERS


def multiply_bets(
    double[:, ::1] mantissa,
    int64_t[:, ::1] exponent,
    Py_ssize_t tests,
    const double[::1] bets,
    const double[::1] gains,
    double delta,
):
    """Multiply the wealth ``mantissa * 2**exponent`` of every bet by ``1 + bet * (gain - delta)``, gain by gain.

    A row is a test, of which the first `tests` are under way; a column is a gambler: `GAMBLERS` of them.
    """
    cdef Py_ssize_t n = gains.shape[0]
    check_tests(mantissa, exponent, tests)
    if bets.shape[0] != _GAMBLERS:
        raise ValueError(f"expected {GAMBLERS} gamblers")
    if n and tests:
        with nogil:
            play(&mantissa[0, 0], &exponent[0, 0], tests, &bets[0], &gains[0], n, delta)


def log_wealth(const double[:, ::1] mantissa, const int64_t[:, ::1] exponent):
    """Return the logarithm of the wealth of the first test, averaged over its gamblers."""
    check_tests(mantissa, exponent, 1)
    return wealth(&mantissa[0, 0], &exponent[0, 0])


def log_mixture(
    const double[:, ::1] mantissa, const int64_t[:, ::1] exponent, Py_ssize_t tests, const int64_t[::1] numbers
):
    """Return the logarithm of the wealth of all `tests` together, and which of them has most of it.

    The k-th test ever begun, k in `numbers`, counts 1 / (k (k + 1)). Minus infinity and -1 if there is none.
    """
    cdef Py_ssize_t test, richest = -1
    cdef double total = 0.0, top = -1.0 / 0.0, one, k
    check_tests(mantissa, exponent, tests)
    if numbers.shape[0] < tests:
        raise ValueError("more tests than numbers")
    for test in range(tests):  # the sum is kept relative to the largest part so far
        k = <double> numbers[test]
        one = wealth(&mantissa[test, 0], &exponent[test, 0]) - log(k * (k + 1.0))
        if one > top:
            total = total * exp(top - one) + 1.0
            top, richest = one, test
        else:
            total += exp(one - top)
    return (top + log(total) if tests else top), richest


cdef int check_tests(const double[:, ::1] mantissa, const int64_t[:, ::1] exponent, Py_ssize_t tests) except -1:
    if not (mantissa.shape[1] == exponent.shape[1] == _GAMBLERS):
        raise ValueError(f"expected {GAMBLERS} gamblers")
    if not 0 <= tests <= min(mantissa.shape[0], exponent.shape[0]):
        raise ValueError("more tests than there is wealth of")
    return 0


def fade(double total, double weight, double decay, const double[::1] values):
    """Return the fading sum and its weight after `values`: ``total = value + decay * total``, one by one."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            total = values[i] + decay * total
            weight = 1.0 + decay * weight
    return total, weight
