// Walking a row of hashed features: its own entries, the constant, then the crosses of its namespaces, which are
// computed on the way and live no longer than the block they are handed over in.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "blocks.hpp"
#include "lanes.hpp"

namespace penstock {

constexpr ptrdiff_t BLOCK = 512;  // entries: 6 KiB, and few events have more
constexpr int MAX_ORDER = 3;      // of a cross
constexpr uint32_t CONSTANT = 11650396;  // Vowpal Wabbit's bucket of the constant feature
constexpr uint32_t FNV_PRIME = 16777619;
constexpr double LARGEST = 1e18;  // of |x|, |label| and weight: their products stay far from double's end

// Called with a block of a row's entries: buckets and values.
using Visit = void (*)(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n);

struct Interaction {
    int order;
    uint32_t namespaces[MAX_ORDER];
    bool anything[MAX_ORDER];  // instead of a namespace
};

// What a row's entries are: how many bits of a hash, whether with the constant, which crosses.
struct Plan {
    uint32_t mask = 0;
    bool constant = false;
    std::vector<Interaction> interactions;
};

// One row, and the block of its entries that is being visited.
struct Walk {
    const uint32_t* indices = nullptr;
    const double* values = nullptr;
    const uint32_t* namespaces = nullptr;
    ptrdiff_t length = 0;
    Visit visit = nullptr;
    void* context = nullptr;
    uint32_t buckets[BLOCK];
    double x[BLOCK + wide::LANES];  // a kernel may read a few too many
    ptrdiff_t n = 0;
    bool whole = false;  // the block holds the whole row: another pass need not walk again
    std::vector<std::pair<uint64_t, uint32_t>> order;  // namespace << 32 | index, and position; sorted
    std::vector<ptrdiff_t> starts;                     // where in `order` each namespace starts, and the end

    ptrdiff_t n_namespaces() const { return static_cast<ptrdiff_t>(starts.size()) - 1; }
    uint32_t namespace_of(ptrdiff_t which) const { return static_cast<uint32_t>(order[starts[which]].first >> 32); }
};

// A value that can be computed with: what is not a number counts as 0, which is no feature.
inline double usable(double value) {
    if (std::fabs(value) <= LARGEST) return value;
    return value == value ? std::copysign(LARGEST, value) : 0.0;
}

// Append to a block of n entries; returns how many it has then. (In a register: memory would be slower.)
inline ptrdiff_t put(const Plan& plan, Walk& walk, ptrdiff_t n, uint32_t index, double value) {
    value = usable(value);
    if (value == 0.0) return n;
    if (n == BLOCK) {
        walk.visit(walk.context, walk.buckets, walk.x, BLOCK);
        n = 0;
        walk.whole = false;
    }
    walk.buckets[n] = index & plan.mask;
    walk.x[n] = value;
    return n + 1;
}

// Room for a row of `longest` entries, where there are crosses.
inline void make_room(const Plan& plan, Walk& walk, size_t longest) {
    if (plan.interactions.empty()) return;
    if (walk.order.size() < longest) walk.order.resize(longest);
    walk.starts.reserve(longest + 1);
}

// Sort entries by namespace and index, so that crosses do not depend on the order in which a row happened to list
// its features.
inline void group(Walk& walk) {
    for (ptrdiff_t i = 0; i < walk.length; ++i) {
        walk.order[i] = {uint64_t{walk.namespaces[i]} << 32 | walk.indices[i], static_cast<uint32_t>(i)};
    }
    std::sort(walk.order.begin(), walk.order.begin() + walk.length);
    walk.starts.clear();
    for (ptrdiff_t i = 0; i < walk.length; ++i) {
        if (i == 0 || walk.order[i].first >> 32 != walk.order[i - 1].first >> 32) walk.starts.push_back(i);
    }
    walk.starts.push_back(walk.length);
}

// Each pair, or triple, of entries of these namespaces. Equal namespaces are neighbours, and of their entries each
// combination counts once.
inline void cross_entries(const Plan& plan, Walk& walk, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c) {
    const auto& starts = walk.starts;
    ptrdiff_t n = walk.n;
    for (ptrdiff_t i = starts[a]; i < starts[a + 1]; ++i) {
        const uint32_t first = walk.order[i].second;
        for (ptrdiff_t j = a == b ? i : starts[b]; j < starts[b + 1]; ++j) {
            const uint32_t second = walk.order[j].second;
            const uint32_t both = FNV_PRIME * walk.indices[first] ^ walk.indices[second];
            const double product = walk.values[first] * walk.values[second];
            if (c < 0) {
                n = put(plan, walk, n, both, product);
                continue;
            }
            for (ptrdiff_t k = b == c ? j : starts[c]; k < starts[c + 1]; ++k) {
                const uint32_t third = walk.order[k].second;
                n = put(plan, walk, n, FNV_PRIME * both ^ walk.indices[third], product * walk.values[third]);
            }
        }
    }
    walk.n = n;
}

inline bool admits(const Interaction& interaction, int term, uint32_t name) {
    return interaction.anything[term] || interaction.namespaces[term] == name;
}

// Whether `interaction` crosses these namespaces too, in whatever order (c is unused for a pair).
inline bool covers(const Interaction& interaction, uint32_t a, uint32_t b, uint32_t c) {
    for (int i = 0; i < interaction.order; ++i) {
        if (!admits(interaction, i, a)) continue;
        for (int j = 0; j < interaction.order; ++j) {
            if (j == i || !admits(interaction, j, b)) continue;
            if (interaction.order == 2 || admits(interaction, 3 - i - j, c)) return true;
        }
    }
    return false;
}

// Cross namespaces a, b (and c, unless -1), if no earlier interaction does.
inline void cross_namespaces(const Plan& plan, Walk& walk, size_t number, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c) {
    const uint32_t third = c < 0 ? 0 : walk.namespace_of(c);
    for (size_t earlier = 0; earlier < number; ++earlier) {
        const Interaction& other = plan.interactions[earlier];
        if (other.order == (c < 0 ? 2 : 3) && covers(other, walk.namespace_of(a), walk.namespace_of(b), third)) return;
    }
    if (c >= 0 && (a == b || b == c || a == c)) {
        ptrdiff_t sorted[] = {a, b, c};
        std::sort(sorted, sorted + 3);
        cross_entries(plan, walk, sorted[0], sorted[1], sorted[2]);
    } else {
        cross_entries(plan, walk, a, b, c);
    }
}

// Wildcards take the row's namespaces in non-decreasing order: each combination once.
inline void cross(const Plan& plan, Walk& walk, size_t number) {
    const Interaction& crossed = plan.interactions[number];
    const ptrdiff_t n = walk.n_namespaces();
    for (ptrdiff_t a = 0; a < n; ++a) {
        if (!admits(crossed, 0, walk.namespace_of(a))) continue;
        for (ptrdiff_t b = crossed.anything[0] && crossed.anything[1] ? a : 0; b < n; ++b) {
            if (!admits(crossed, 1, walk.namespace_of(b))) continue;
            if (crossed.order == 2) {
                cross_namespaces(plan, walk, number, a, b, -1);
                continue;
            }
            ptrdiff_t c = 0;
            if (crossed.anything[2]) c = crossed.anything[1] ? b : crossed.anything[0] ? a : 0;
            for (; c < n; ++c) {
                if (admits(crossed, 2, walk.namespace_of(c))) cross_namespaces(plan, walk, number, a, b, c);
            }
        }
    }
}

// Visits every block of the row; where there are crosses, `make_room` has been called for its length.
inline void visit_row(const Plan& plan, Walk& walk, Visit visit, void* context) {
    ptrdiff_t n = 0;
    walk.visit = visit;
    walk.context = context;
    walk.whole = true;
    if (walk.length < BLOCK &&
        copy_usable(walk.indices, walk.values, walk.length, plan.mask, LARGEST, walk.buckets, walk.x)) {
        n = walk.length;
    } else {
        for (ptrdiff_t i = 0; i < walk.length; ++i) n = put(plan, walk, n, walk.indices[i], walk.values[i]);
    }
    if (plan.constant) n = put(plan, walk, n, CONSTANT, 1.0);
    walk.n = n;
    if (!plan.interactions.empty() && walk.length) {
        group(walk);
        for (size_t number = 0; number < plan.interactions.size(); ++number) cross(plan, walk, number);
    }
    visit(context, walk.buckets, walk.x, walk.n);
}

inline void visit_again(const Plan& plan, Walk& walk, Visit visit, void* context) {
    if (walk.whole) {
        visit(context, walk.buckets, walk.x, walk.n);
    } else {
        visit_row(plan, walk, visit, context);
    }
}

// Have the buckets fetched that a row which is visited soon will read: they lie all over the table.
inline void announce(const Plan& plan, const uint32_t* indices, ptrdiff_t n, const float* weights, size_t width) {
    for (ptrdiff_t i = 0; i < n; ++i) __builtin_prefetch(weights + (indices[i] & plan.mask) * width);
}

}  // namespace penstock
