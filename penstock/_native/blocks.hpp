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

// A table can be far larger than what was ever learned: it is gone through by pages, and only by those touched.
constexpr int PAGE_BITS = 4;  // 16 buckets: of one class, a cache line of frozen weights

inline size_t pages_of(size_t n_buckets) { return n_buckets >> PAGE_BITS ? n_buckets >> PAGE_BITS : 1; }

inline void touch(uint8_t* touched, uint32_t bucket) { touched[bucket >> PAGE_BITS] = 1; }

// Calls `visit(first bucket, how many)` for every stretch of touched pages.
template <typename Visit>
inline void stretches(const uint8_t* touched, size_t n_buckets, Visit visit) {
    const size_t n = pages_of(n_buckets), size = n_buckets / n;
    for (size_t page = 0; page < n;) {
        if (!touched[page]) {
            uint64_t eight = 0;  // most of a large table is passed over
            if (page + 8 <= n) std::memcpy(&eight, touched + page, 8);
            page += page + 8 <= n && eight == 0 ? 8 : 1;
            continue;
        }
        const size_t first = page;
        while (page < n && touched[page]) ++page;
        visit(first * size, (page - first) * size);
    }
}

// The weights of n buckets, `width` floats apart, as they are stored; -0.0 becomes 0.0.
inline void copy_weights(const float* __restrict table, size_t width, size_t n, float* __restrict out, size_t apart) {
    if (width == 4 && apart == 1) {  // of the default rule: known, so that the compiler can load many at once
        for (size_t i = 0; i < n; ++i) out[i] = table[4 * i] + 0.0f;
    } else {
        for (size_t i = 0; i < n; ++i) out[i * apart] = table[i * width] + 0.0f;
    }
}

// The weights of whatever is touched.
inline void freeze_weights(const float* table, size_t width, const uint8_t* touched, size_t n_buckets,
                           double contraction, double gravity, float* out, size_t apart) {
    stretches(touched, n_buckets, [&](size_t first, size_t n) {
        const float* from = table + first * width;
        float* to = out + first * apart;
        if (gravity == 0.0 && contraction == 1.0) return copy_weights(from, width, n, to, apart);
        for (size_t i = 0; i < n; ++i) to[i * apart] = effective(from[i * width], contraction, gravity);
    });
}

// The first `taken` floats of each touched bucket, `width` apart, to where they lie without gaps.
inline void copy_touched(const float* table, size_t width, size_t taken, const uint8_t* touched, size_t n_buckets,
                         float* out) {
    stretches(touched, n_buckets, [&](size_t first, size_t n) {
        if (width == taken) {
            std::memcpy(out + first * taken, table + first * width, n * taken * sizeof(float));
            return;
        }
        for (size_t i = first; i < first + n; ++i)
            std::memcpy(out + i * taken, table + i * width, taken * sizeof(float));
    });
}

// Which pages hold anything but zeros; -0.0 is something.
inline void find_touched(const float* table, size_t width, size_t n_buckets, uint8_t* touched) {
    const size_t n = pages_of(n_buckets), size = n_buckets / n * width;
    for (size_t page = 0; page < n; ++page) {
        const float* slots = table + page * size;
        touched[page] = std::any_of(slots, slots + size, [](float value) { return value != 0.0f || std::signbit(value); });
    }
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
