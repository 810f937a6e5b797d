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

// A table can be far larger than what was ever learned, so that is marked: a bit for each bucket, 64 in a word.
constexpr int WORD_BITS = 6;

inline size_t words_of(size_t n_buckets) { return n_buckets >> WORD_BITS ? n_buckets >> WORD_BITS : 1; }

inline void touch(uint64_t* touched, uint32_t bucket) { touched[bucket >> WORD_BITS] |= uint64_t(1) << (bucket & 63); }

// Calls `visit(first bucket, how many)` for whatever is touched, in any order. Where it is dense all 64 are visited
// at one go: those untouched are what they are when they are new. Where it is not, `announce(bucket)` comes some
// time before, to fetch what lies all over memory.
template <typename Announce, typename Visit>
inline void visit_touched(const uint64_t* touched, size_t n_buckets, Announce announce, Visit visit) {
    constexpr int DENSE = 16, AHEAD = 64;
    const size_t n = words_of(n_buckets), size = n_buckets / n;
    size_t announced[AHEAD + DENSE], waiting = 0;
    const auto visit_announced = [&] {
        for (size_t i = 0; i < waiting; ++i) visit(announced[i], 1);
        waiting = 0;
    };
    for (size_t i = 0; i < n; ++i) {
        if (__builtin_popcountll(touched[i]) >= DENSE) {
            visit(i * size, size);
            continue;
        }
        for (uint64_t left = touched[i]; left; left &= left - 1) {
            announced[waiting++] = i * size + __builtin_ctzll(left);
            announce(announced[waiting - 1]);
        }
        if (waiting >= AHEAD) visit_announced();
    }
    visit_announced();
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
inline void freeze_weights(const float* table, size_t width, const uint64_t* touched, size_t n_buckets,
                           double contraction, double gravity, float* out, size_t apart) {
    const bool as_stored = gravity == 0.0 && contraction == 1.0;
    const auto announce = [=](size_t bucket) {
        __builtin_prefetch(table + bucket * width);
        __builtin_prefetch(out + bucket * apart, 1);
    };
    visit_touched(touched, n_buckets, announce, [=](size_t first, size_t n) {
        const float* from = table + first * width;
        float* to = out + first * apart;
        if (!as_stored)
            for (size_t i = 0; i < n; ++i) to[i * apart] = effective(from[i * width], contraction, gravity);
        else if (n == 1)
            *to = *from + 0.0f;
        else
            copy_weights(from, width, n, to, apart);
    });
}

// The first `taken` floats of each touched bucket, `width` apart, to where they lie without gaps.
inline void copy_touched(const float* table, size_t width, size_t taken, const uint64_t* touched, size_t n_buckets,
                         float* out) {
    const auto announce = [=](size_t bucket) {
        __builtin_prefetch(table + bucket * width);
        __builtin_prefetch(out + bucket * taken, 1);
    };
    visit_touched(touched, n_buckets, announce, [=](size_t first, size_t n) {
        const size_t once = width == taken ? n : 1;
        for (size_t i = first; i < first + n; i += once)
            std::memcpy(out + i * taken, table + i * width, once * taken * sizeof(float));
    });
}

// Which buckets hold anything but zeros; -0.0 is something.
inline void find_touched(const float* table, size_t width, size_t n_buckets, uint64_t* touched) {
    std::fill(touched, touched + words_of(n_buckets), 0);
    for (size_t bucket = 0; bucket < n_buckets; ++bucket) {
        const float* slots = table + bucket * width;
        if (std::any_of(slots, slots + width, [](float value) { return value != 0.0f || std::signbit(value); }))
            touch(touched, bucket);
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
