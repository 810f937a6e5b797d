// The wealth of gamblers who each bet a fraction of it on every gain; see gate.pyx.
#ifndef PENSTOCK_BETS_HPP
#define PENSTOCK_BETS_HPP

#include <cmath>
#include <cstdint>

#include "lanes.hpp"

namespace bets {

constexpr int GAMBLERS = 2 * wide::LANES;
constexpr int MOST = 512;  // a wealth is kept between 2^-MOST and 2^MOST; what is beyond goes to its exponent

template <int N>
static PENSTOCK_INLINE void multiply_by(
    double* wealth, const double* bets, const double* gains, ptrdiff_t n, double delta
) {
    typedef wide::Lanes<N> V;
    V low(wealth), high(wealth + wide::LANES);
    const V low_bets(bets), high_bets(bets + wide::LANES), one = V::of(1.0);
    for (ptrdiff_t i = 0; i < n; i++) {
        const double gain = gains[i] - delta;
        low = low * (one + low_bets * gain);
        high = high * (one + high_bets * gain);
    }
    low.store(wealth);
    high.store(wealth + wide::LANES);
}
PENSTOCK_BY_WIDTH(
    void, multiply, (double* wealth, const double* bets, const double* gains, ptrdiff_t n, double delta),
    wealth, bets, gains, n, delta)

// mantissa * 2^exponent, times 1 + bet * (gain - delta) for each of n gains. The product is kept instead of a sum
// of logarithms: one multiplication for an event and a bet. A factor lies in [0.5, 2], so as many events as a
// wealth is powers of two away from its bounds are multiplied at one go.
static inline void play(
    double* mantissa, int64_t* exponent, const double* bets, const double* gains, ptrdiff_t n, double delta
) {
    while (n > 0) {
        double room = MOST;
        for (int j = 0; j < GAMBLERS; j++) room = std::fmin(room, MOST - 1 - std::fabs(std::logb(mantissa[j])));
        const ptrdiff_t now = n <= room ? n : room > 1.0 ? (ptrdiff_t)room : 1;
        multiply(mantissa, bets, gains, now, delta);
        gains += now;
        n -= now;
        for (int j = 0; j < GAMBLERS; j++)
            if (mantissa[j] > std::ldexp(1.0, MOST) || mantissa[j] < std::ldexp(1.0, -MOST)) {
                int shift;
                mantissa[j] = std::frexp(mantissa[j], &shift);
                exponent[j] += shift;
            }
    }
}

}  // namespace bets

#endif
