"""The sums that the gate keeps event by event, in an order that no batch boundary changes."""

from libc.math cimport frexp

# No factor in [0.5, 2] can jump from inside these bounds to an overflow or to zero.
cdef double _HIGH = 2.0 ** 512
cdef double _LOW = 2.0 ** -512


def multiply_bets(
    double[::1] mantissa, long long[::1] exponent, const double[::1] bets, const double[::1] gains
):
    """Multiply the wealth ``mantissa * 2**exponent`` of every bet by ``1 + bet * gain``, gain by gain.

    The product is kept instead of a sum of logarithms: one multiplication for an event and a bet.
    """
    cdef Py_ssize_t i, j
    cdef int shift
    if not (mantissa.shape[0] == exponent.shape[0] == bets.shape[0]):
        raise ValueError("mantissa, exponent and bets differ in length")
    with nogil:
        for i in range(gains.shape[0]):
            for j in range(bets.shape[0]):
                mantissa[j] *= 1.0 + bets[j] * gains[i]
                if mantissa[j] > _HIGH or mantissa[j] < _LOW:
                    mantissa[j] = frexp(mantissa[j], &shift)
                    exponent[j] += shift


def fade(double total, double weight, double decay, const double[::1] values):
    """Return the fading sum and its weight after `values`: ``total = value + decay * total``, one by one."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            total = values[i] + decay * total
            weight = 1.0 + decay * weight
    return total, weight
