// The wealth of gamblers who each bet a fraction of it on every gain; see gate.pyx.
#ifndef PENSTOCK_BETS_HPP
#define PENSTOCK_BETS_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "lanes.hpp"

namespace bets {

constexpr int GAMBLERS = 2 * wide::LANES;
constexpr int MOST = 512;  // a wealth is kept between 2^-MOST and 2^MOST; what is beyond goes to its exponent

// Several tests that take the same bets on the same gains: a product has to wait for the one before it, but the
// tests need not wait for one another.
template <int N, int TESTS>
static PENSTOCK_INLINE void multiply_rows(
    double* wealth, const double* bets, const double* gains, ptrdiff_t n, double delta
) {
    typedef wide::Lanes<N> V;
    V low[TESTS], high[TESTS];
    for (int t = 0; t < TESTS; t++) {
        low[t] = V(wealth + t * GAMBLERS);
        high[t] = V(wealth + t * GAMBLERS + wide::LANES);
    }
    const V low_bets(bets), high_bets(bets + wide::LANES), one = V::of(1.0);
    for (ptrdiff_t i = 0; i < n; i++) {
        const double gain = gains[i] - delta;
        const V low_factor = one + low_bets * gain, high_factor = one + high_bets * gain;
        for (int t = 0; t < TESTS; t++) {
            low[t] = low[t] * low_factor;
            high[t] = high[t] * high_factor;
        }
    }
    for (int t = 0; t < TESTS; t++) {
        low[t].store(wealth + t * GAMBLERS);
        high[t].store(wealth + t * GAMBLERS + wide::LANES);
    }
}

template <int N>
static PENSTOCK_INLINE void multiply_by(
    double* wealth, ptrdiff_t tests, const double* bets, const double* gains, ptrdiff_t n, double delta
) {
    for (; tests >= 4; tests -= 4, wealth += 4 * GAMBLERS) multiply_rows<N, 4>(wealth, bets, gains, n, delta);
    for (; tests >= 1; tests -= 1, wealth += GAMBLERS) multiply_rows<N, 1>(wealth, bets, gains, n, delta);
}
PENSTOCK_BY_WIDTH(
    void, multiply, (double* wealth, ptrdiff_t tests, const double* bets, const double* gains, ptrdiff_t n, double delta),
    wealth, tests, bets, gains, n, delta)

// Of a positive, normal number: its power of two, as logb() has it.
inline int power_of(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return int(bits >> 52 & 0x7ff) - 1023;
}

// mantissa * 2^exponent of each test, times 1 + bet * (gain - delta) for each of n gains. The product is kept instead
// of a sum of logarithms: one multiplication for an event and a bet. A factor lies in [0.5, 2], so as many events as
// a wealth is powers of two away from its bounds are multiplied at one go.
static inline void play(
    double* mantissa, int64_t* exponent, ptrdiff_t tests, const double* bets, const double* gains, ptrdiff_t n,
    double delta
) {
    while (n > 0) {
        int room = MOST;
        for (ptrdiff_t j = 0; j < tests * GAMBLERS; j++)
            room = std::min(room, MOST - 1 - std::abs(power_of(mantissa[j])));
        const ptrdiff_t now = std::min<ptrdiff_t>(n, std::max(room, 1));
        multiply(mantissa, tests, bets, gains, now, delta);
        gains += now;
        n -= now;
        for (ptrdiff_t j = 0; j < tests * GAMBLERS; j++) {
            if (std::abs(power_of(mantissa[j])) < MOST) continue;  // not exactly 2^MOST either, which may stay
            if (mantissa[j] > std::ldexp(1.0, MOST) || mantissa[j] < std::ldexp(1.0, -MOST)) {
                int shift;
                mantissa[j] = std::frexp(mantissa[j], &shift);
                exponent[j] += shift;
            }
        }
    }
}

// Logarithm of a test's wealth, averaged over its gamblers.
static inline double log_wealth(const double* mantissa, const int64_t* exponent) {
    int64_t top = exponent[0] + power_of(mantissa[0]);
    for (int j = 1; j < GAMBLERS; j++) top = std::max(top, exponent[j] + power_of(mantissa[j]));
    double total = 0.0;
    for (int j = 0; j < GAMBLERS; j++) {
        const int64_t power = std::max<int64_t>(exponent[j] - top, -4 * MOST);  // far below the richest: nothing
        total += std::ldexp(mantissa[j], int(power));
    }
    return std::log(total / GAMBLERS) + double(top) * std::log(2.0);
}

}  // namespace bets

#endif
