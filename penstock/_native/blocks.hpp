// The entries of a row, in a block of their own, and their margin.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace penstock {

constexpr double FLOAT_MAX = 3.4028234663852886e38;

// What is stored: never an infinity, never a NaN.
inline float finite(double x) {
    if (std::fabs(x) <= FLOAT_MAX) return static_cast<float>(x);
    return x != x ? 0.0f : static_cast<float>(std::copysign(FLOAT_MAX, x));
}

// What a stored weight stands for, once contraction and gravity (L2 and L1) have had their way.
inline float effective(double weight, double contraction, double gravity) {
    const double size = std::fabs(weight) - gravity;
    return size > 0.0 ? finite(std::copysign(size, weight) * contraction) : 0.0f;
}

// Copies n entries into a block, and says whether all of them can be computed with as they are: none is 0, too
// large, or not a number.
inline bool copy_usable(const uint32_t* indices, const double* values, ptrdiff_t n, uint32_t mask, double largest,
                        uint32_t* buckets, double* x) {
    int64_t is_usable = 1;
    for (ptrdiff_t i = 0; i < n; ++i) {
        const double size = std::fabs(values[i]);
        x[i] = values[i];
        is_usable &= int64_t(size <= largest) & int64_t(size > 0.0);
    }
    for (ptrdiff_t i = 0; i < n; ++i) buckets[i] = indices[i] & mask;
    return is_usable;
}

// Four sums side by side: in one, every addition would wait for the one before.
template <typename Term>
inline double sum_of(ptrdiff_t n, Term term) {
    double a = 0.0, b = 0.0, c = 0.0, d = 0.0;
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) {
        a += term(i);
        b += term(i + 1);
        c += term(i + 2);
        d += term(i + 3);
    }
    for (; i < n; ++i) a += term(i);
    return (a + c) + (b + d);
}

// Of one class, whose weights lie `width` apart.
inline double block_margin(const float* weights, size_t width, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    return sum_of(n, [=](ptrdiff_t i) { return weights[buckets[i] * width] * x[i]; });
}
inline double block_margin(const float* weights, size_t width, const uint32_t* buckets, const double* x, ptrdiff_t n,
                           double contraction, double gravity) {
    return sum_of(n, [=](ptrdiff_t i) { return effective(weights[buckets[i] * width], contraction, gravity) * x[i]; });
}

}  // namespace penstock
