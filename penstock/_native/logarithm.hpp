// The natural logarithm as plain arithmetic: the same bits on every machine, and the compiler can widen loops of it.

#pragma once

#include <cstdint>
#include <cstring>

#include "inline.hpp"

namespace penstock {

PENSTOCK_INLINE uint64_t bits_of(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

PENSTOCK_INLINE double of_bits(uint64_t bits) {
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Of a positive normal number, to less than one unit in the last place. As fdlibm does it (Sun Microsystems 1993):
// x = 2^k m, sqrt(1/2) <= m < sqrt(2), and log m = 2 atanh((m - 1) / (m + 1)) by a polynomial.
PENSTOCK_INLINE double logarithm(double x) {
    constexpr uint64_t ROOT_HALF = 0x3FE6A09E667F3BCD, ONE = 0x3FF0000000000000, TWO_TO_52 = 0x4330000000000000;
    const uint64_t shifted = bits_of(x) + (ONE - ROOT_HALF);
    const double k = of_bits(TWO_TO_52 | shifted >> 52) - (4503599627370496.0 + 1023.0);
    const double f = of_bits((shifted & 0x000FFFFFFFFFFFFF) + ROOT_HALF) - 1.0;
    const double half_square = 0.5 * f * f, s = f / (2.0 + f), z = s * s, w = z * z;
    const double even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    const double odd =
        z * (6.666666666666735130e-01 +
             w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    const double low = s * (half_square + (even + odd)) + k * 1.90821492927058770002e-10;
    return low - half_square + f + k * 6.93147180369123816490e-01;
}

}  // namespace penstock
