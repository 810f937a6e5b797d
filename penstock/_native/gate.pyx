"""The sums that the gate keeps event by event, in an order that no batch boundary changes."""

from libc.math cimport exp, fmax, log
from libc.stdint cimport int64_t

cdef extern from "bets.hpp" nogil:
    enum: _GAMBLERS "bets::GAMBLERS"
    void play "bets::play"(
        double* mantissa, int64_t* exponent, const double* bets, const double* gains, Py_ssize_t n, double delta
    ) noexcept

GAMBLERS = _GAMBLERS

cdef double _LOG_2 = log(2.0)


def multiply_bets(
    double[:, ::1] mantissa,
    int64_t[:, ::1] exponent,
    const double[::1] bets,
    const double[::1] gains,
    double delta,
):
    """Multiply the wealth ``mantissa * 2**exponent`` of every bet by ``1 + bet * (gain - delta)``, gain by gain.

    A row is a test, a column a gambler: `GAMBLERS` of them.
    """
    cdef Py_ssize_t test, n = gains.shape[0]
    if not (mantissa.shape[1] == exponent.shape[1] == bets.shape[0] == _GAMBLERS):
        raise ValueError(f"expected {GAMBLERS} gamblers")
    if mantissa.shape[0] != exponent.shape[0]:
        raise ValueError("mantissa and exponent differ in length")
    if n:
        with nogil:
            for test in range(mantissa.shape[0]):
                play(&mantissa[test, 0], &exponent[test, 0], &bets[0], &gains[0], n, delta)


def log_wealth(const double[:, ::1] mantissa, const int64_t[:, ::1] exponent, double[::1] out):
    """Set `out` to the logarithm of each test's wealth, averaged over its gamblers."""
    cdef Py_ssize_t test
    cdef int j
    cdef double top, total
    cdef double logs[_GAMBLERS]
    if not (mantissa.shape[1] == exponent.shape[1] == _GAMBLERS):
        raise ValueError(f"expected {GAMBLERS} gamblers")
    if not (mantissa.shape[0] == exponent.shape[0] == out.shape[0]):
        raise ValueError("mantissa, exponent and out differ in length")
    with nogil:
        for test in range(mantissa.shape[0]):
            for j in range(_GAMBLERS):
                logs[j] = log(mantissa[test, j]) + <double> exponent[test, j] * _LOG_2
            top = logs[0]
            for j in range(1, _GAMBLERS):
                top = fmax(top, logs[j])
            total = 0.0
            for j in range(_GAMBLERS):
                total += exp(logs[j] - top)
            out[test] = top + log(total / _GAMBLERS)


def fade(double total, double weight, double decay, const double[::1] values):
    """Return the fading sum and its weight after `values`: ``total = value + decay * total``, one by one."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            total = values[i] + decay * total
            weight = 1.0 + decay * weight
    return total, weight
