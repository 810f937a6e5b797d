"""One draw from a distribution: what a decision ends with.

The uniform number is the first that ``numpy.random.Generator(Philox(key=[key, 0]))`` gives: Philox 4x64 of ten
rounds (Salmon, Moraes, Dror and Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, SC).
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <cstdint>

    static double first_uniform(uint64_t key) {
        uint64_t c[4] = {1, 0, 0, 0}, k[2] = {key, 0};  // numpy counts before it draws
        for (int round = 0; round < 10; round++) {
            const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93ull * c[0];
            const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157ull * c[2];
            c[0] = (uint64_t)(b >> 64) ^ c[1] ^ k[0];
            c[2] = (uint64_t)(a >> 64) ^ c[3] ^ k[1];
            c[1] = (uint64_t)b;
            c[3] = (uint64_t)a;
            k[0] += 0x9E3779B97F4A7C15ull;
            k[1] += 0xBB67AE8584CAA73Bull;
        }
        return (double)(c[0] >> 11) * 0x1p-53;
    }
    """
    double first_uniform(uint64_t key) noexcept nogil


def draw(const double[::1] probabilities, uint64_t key):
    """Return the position that is drawn, never one of probability 0; see `penstock.decisions.draw`."""
    cdef Py_ssize_t i, last = -1
    cdef double total = 0.0, reached = 0.0, target
    for i in range(probabilities.shape[0]):
        total += probabilities[i]
        if probabilities[i] != 0.0:
            last = i
    if last < 0:
        raise ValueError("no action has a probability above 0")
    target = first_uniform(key) * total
    for i in range(last):
        reached += probabilities[i]
        if reached > target:
            return i
    return last
