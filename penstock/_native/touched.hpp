// Which buckets of a table were ever updated: a table can be far larger than what was learned, and whoever goes
// through it goes through that only.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "blocks.hpp"

namespace penstock {

// A bit for each bucket, and one for each word of 64 of those: most of a large table is passed over by the 4096.
struct Touched {
    uint64_t* words;
    uint64_t* groups;

    static size_t in_words(size_t n_bits) { return n_bits >> 6 ? n_bits >> 6 : 1; }
    static size_t size(size_t n_buckets) { return in_words(n_buckets) + in_words(in_words(n_buckets)); }

    void lie_in(uint64_t* memory, size_t n_buckets) {
        words = memory;
        groups = memory + in_words(n_buckets);
    }

    void add(uint32_t bucket) const {
        words[bucket >> 6] |= uint64_t(1) << (bucket & 63);
        groups[bucket >> 12] |= uint64_t(1) << (bucket >> 6 & 63);
    }

    // Calls `visit(first bucket, how many)` for whatever is in it, in any order. Where it is dense all 64 are visited
    // at one go: those that are not in it are what they are when they are new. Where it is not, `announce(bucket)`
    // comes some time before, to fetch what lies all over memory.
    template <typename Announce, typename Visit>
    void visit_all(size_t n_buckets, Announce announce, Visit visit) const {
        constexpr int DENSE = 16, AHEAD = 64;
        const size_t n_words = in_words(n_buckets), size = n_buckets / n_words;
        size_t announced[AHEAD + DENSE], waiting = 0;
        const auto visit_announced = [&] {
            for (size_t i = 0; i < waiting; ++i) visit(announced[i], 1);
            waiting = 0;
        };
        for (size_t group = 0; group < in_words(n_words); ++group) {
            for (uint64_t left = groups[group]; left; left &= left - 1) {
                const size_t word = group * 64 + __builtin_ctzll(left);
                if (__builtin_popcountll(words[word]) >= DENSE) {
                    visit(word * size, size);
                    continue;
                }
                for (uint64_t bits = words[word]; bits; bits &= bits - 1) {
                    announced[waiting] = word * size + __builtin_ctzll(bits);
                    announce(announced[waiting++]);
                }
                if (waiting >= AHEAD) visit_announced();
            }
        }
        visit_announced();
    }
};

// The weights of n buckets, `width` floats apart, as they are stored; -0.0 becomes 0.0.
inline void copy_weights(const float* __restrict table, size_t width, size_t n, float* __restrict out, size_t apart) {
    if (width == 4 && apart == 1) {  // of the default rule: known, so that the compiler can load many at once
        for (size_t i = 0; i < n; ++i) out[i] = table[4 * i] + 0.0f;
    } else {
        for (size_t i = 0; i < n; ++i) out[i * apart] = table[i * width] + 0.0f;
    }
}

// The weights of whatever is touched.
inline void freeze_weights(const float* table, size_t width, const Touched& touched, size_t n_buckets,
                           double contraction, double gravity, float* out, size_t apart) {
    const bool as_stored = gravity == 0.0 && contraction == 1.0;
    const auto announce = [=](size_t bucket) {
        __builtin_prefetch(table + bucket * width);
        __builtin_prefetch(out + bucket * apart, 1);
    };
    touched.visit_all(n_buckets, announce, [=](size_t first, size_t n) {
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
inline void copy_touched(const float* table, size_t width, size_t taken, const Touched& touched, size_t n_buckets,
                         float* out) {
    const auto announce = [=](size_t bucket) {
        __builtin_prefetch(table + bucket * width);
        __builtin_prefetch(out + bucket * taken, 1);
    };
    touched.visit_all(n_buckets, announce, [=](size_t first, size_t n) {
        const size_t once = width == taken ? n : 1;
        for (size_t i = first; i < first + n; i += once)
            std::memcpy(out + i * taken, table + i * width, once * taken * sizeof(float));
    });
}

// Looks for the buckets that hold anything but zeros; -0.0 is something.
inline void find_touched(const float* table, size_t width, size_t n_buckets, Touched& touched) {
    std::fill_n(touched.words, Touched::size(n_buckets), 0);
    for (size_t bucket = 0; bucket < n_buckets; ++bucket) {
        const float* slots = table + bucket * width;
        if (std::any_of(slots, slots + width, [](float value) { return value != 0.0f || std::signbit(value); }))
            touched.add(bucket);
    }
}

}  // namespace penstock
