// Adaptive, normalised updates of one event's slots: how far its margin would move, and the move.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "blocks.hpp"
#include "lanes.hpp"
#include "touched.hpp"

namespace penstock {

constexpr double FLOAT_MIN = 1.1754943508222875e-38;
constexpr float X_MIN = 1.084202e-19f;  // sqrt(FLOAT_MIN): smaller |x| count as this in norms

struct AdaptiveSlot {
    float weight, squares, largest, rate;
    uint32_t touched;  // there only with a half-life
};

// Entries are measured by the strip: what is computed of each is computed of all at once, in wide registers. A slot
// that comes twice has to see what the first time left behind: there a strip ends.
struct Strip {
    static constexpr ptrdiff_t LENGTH = 64;

    ptrdiff_t n;
    AdaptiveSlot* slots[LENGTH];
    float weights[LENGTH];
    float squares[LENGTH];
    float largest[LENGTH];
    float rates[LENGTH];
    double norms[LENGTH];
    double moves[LENGTH];
};

// One event being learned, and the constants of the rule. The pointers are arrays over the classes.
struct Update {
    float* table;
    Touched touched;
    size_t width;
    size_t stride;
    ptrdiff_t n_classes;
    double* gradient;  // loss derivative, times the weight where the rule has no closed-form step
    double* square;    // weight * derivative^2; 0: the class is not updated
    double* norm;      // sum of (x / largest |x|)^2
    double* moved;     // how far the margin moves for a step of 1
    double* change;    // the step
    bool normalised;
    bool square_root;
    double power_t;
    double half_life;  // events; 0: none
    uint32_t now;
    double alpha;
    double beta;
    double l1;
    double l2;
    Strip strip;
    bool may_wait = false;    // the block is all of the row, and there is one class:
    bool is_waiting = false;  // a row that is a single strip is stored once, with its move
};

inline AdaptiveSlot* slot_of(const Update& c, uint32_t bucket, ptrdiff_t k) {
    return reinterpret_cast<AdaptiveSlot*>(c.table + bucket * c.width + k * c.stride);
}

inline double faded(const Update& c, const AdaptiveSlot& slot) {
    const uint32_t age = c.now - slot.touched;
    return age && slot.squares > 0.0f ? slot.squares * std::exp2(-double(age) / c.half_life) : slot.squares;
}

inline double bounded(double squares) {
    return squares >= FLOAT_MIN ? (squares <= FLOAT_MAX ? squares : FLOAT_MAX) : FLOAT_MIN;  // also of NaN
}

// Any power; `largest` is 1 without normalisation.
inline double rate_of(const Update& c, double squares, double largest) {
    if (c.square_root) return 1.0 / (std::sqrt(squares) * largest);
    const double rate = std::pow(squares, -c.power_t);
    return c.normalised ? rate * std::pow(largest * largest, c.power_t - 1.0) : rate;
}

// A weight learned at the old scale, for the new one.
inline float rescaled(const Update& c, const AdaptiveSlot& slot, float largest) {
    if (!(slot.largest > 0.0f && largest > slot.largest)) return slot.weight;
    const double ratio = double(slot.largest) / largest;
    return finite(slot.weight * (c.square_root ? ratio : std::pow(ratio * ratio, 1.0 - c.power_t)));
}

template <int N>
struct Floats {
    typedef float Value __attribute__((vector_size(4 * N)));
    typedef float Unaligned __attribute__((vector_size(4 * N), aligned(4), may_alias));
    typedef int32_t Mask __attribute__((vector_size(4 * N)));
};

// Numbers by the register: doubles, and as many float32. Those from anywhere are gathered straight into one: stored
// one by one and then loaded as one they would stall.
template <int N>
struct Registers {
    typedef typename wide::Register<N>::Value Value;
    typedef typename wide::Register<N>::Unaligned Unaligned;
    typedef typename Floats<N>::Value Narrow;

    PENSTOCK_INLINE static Narrow gather(AdaptiveSlot* const* s, float AdaptiveSlot::*f) {
        if constexpr (N == 8)
            return Narrow{s[0]->*f, s[1]->*f, s[2]->*f, s[3]->*f, s[4]->*f, s[5]->*f, s[6]->*f, s[7]->*f};
        else if constexpr (N == 4)
            return Narrow{s[0]->*f, s[1]->*f, s[2]->*f, s[3]->*f};
        else
            return Narrow{s[0]->*f, s[1]->*f};
    }
    PENSTOCK_INLINE static bool any(const typename Floats<N>::Mask& mask) {
        int32_t found = 0;
        for (int i = 0; i < N; i++) found |= mask[i];
        return found;
    }
    PENSTOCK_INLINE static Value load(const double* from) { return *(const Unaligned*)from; }
    PENSTOCK_INLINE static Value load(const float* from) {
        const Narrow value = *(const typename Floats<N>::Unaligned*)from;  // a reference would promise alignment
        return wide(value);
    }
    PENSTOCK_INLINE static void store(double* to, const Value& value) { *(Unaligned*)to = value; }
    PENSTOCK_INLINE static void store(float* to, const Narrow& value) { *(typename Floats<N>::Unaligned*)to = value; }
    PENSTOCK_INLINE static Value all(double value) { return Value{} + value; }
    PENSTOCK_INLINE static Value wide(const Narrow& value) { return __builtin_convertvector(value, Value); }
    PENSTOCK_INLINE static Narrow narrow(const Value& value) { return __builtin_convertvector(value, Narrow); }
    PENSTOCK_INLINE static Narrow root(const Narrow& of) {
        Narrow value = of;
        for (int i = 0; i < N; i++) value[i] = std::sqrt(value[i]);
        return value;
    }
};

constexpr float TAKEN = -1.0f;  // no rate

PENSTOCK_INLINE void gather(Update& c, ptrdiff_t k, const uint32_t* buckets, ptrdiff_t most) {
    Strip& strip = c.strip;
    if (most > Strip::LENGTH) most = Strip::LENGTH;
    ptrdiff_t n = 0;
    for (; n < most; ++n) {
        AdaptiveSlot* slot = slot_of(c, buckets[n], k);
        if (!(slot->rate > 0.0f)) {  // hardly ever
            if (slot->rate < 0.0f && n) break;
            c.touched.add(buckets[n]);  // for the first time
        }
        slot->rate = TAKEN;
        strip.slots[n] = slot;
    }
    strip.n = n;
    for (; n % wide::LANES; ++n) strip.slots[n] = strip.slots[0];
}

// Reads up to N - 1 entries of x that are not there. Roots and quotients are of float32, as rates are stored: a
// sum of squares and a largest |x| that fit one have a rate that does, if `power_t` is a half.
template <int N>
PENSTOCK_INLINE void measure(Update& c, double square, const double* x) {
    typedef Registers<N> R;
    typedef typename R::Value Value;
    typedef typename R::Narrow Narrow;
    Strip& strip = c.strip;
    const Value least = R::all(FLOAT_MIN), most = R::all(FLOAT_MAX);
    const Narrow one = Narrow{} + 1.0f, x_min = Narrow{} + X_MIN;
    typename Floats<N>::Mask outgrown{};  // a weight that was learned at another scale
    for (ptrdiff_t i = 0; i < strip.n; i += N) {
        const Value value = R::load(x + i), raw = value * value;
        const Value x2 = raw < least ? least : raw;
        Value sum = R::wide(R::gather(strip.slots + i, &AdaptiveSlot::squares));
        if (c.half_life > 0.0)
            for (int j = 0; j < N; ++j) sum[j] = faded(c, *strip.slots[i + j]);
        sum += square * x2;
        sum = sum >= least ? (sum <= most ? sum : most) : least;  // also of NaN
        const Narrow squares = R::narrow(sum), root = R::root(squares);
        Narrow largest = one;
        if (c.normalised) {
            const Narrow size = R::narrow(value < 0.0 ? -value : value);
            const Narrow reach = size < x_min ? x_min : size;
            const Narrow before = R::gather(strip.slots + i, &AdaptiveSlot::largest);
            largest = reach > before ? reach : before;
            outgrown |= (largest > before) & (before > 0.0f);
            const Value part = R::wide(reach / largest);
            R::store(strip.norms + i, part * part);
        }
        Narrow rate = one / (root * largest);
        if (!c.square_root)
            for (int j = 0; j < N; ++j) rate[j] = finite(rate_of(c, sum[j], largest[j]));
        R::store(strip.weights + i, R::gather(strip.slots + i, &AdaptiveSlot::weight));
        R::store(strip.squares + i, squares);
        R::store(strip.largest + i, largest);
        R::store(strip.rates + i, rate);
        R::store(strip.moves + i, x2 * R::wide(rate));
    }
    if (R::any(outgrown))
        for (ptrdiff_t i = 0; i < strip.n; ++i) strip.weights[i] = rescaled(c, *strip.slots[i], strip.largest[i]);
}

// Stores what was measured, and moves each weight by its share of the step.
template <int N>
PENSTOCK_INLINE void scatter(Update& c, double change, const double* x) {
    typedef Registers<N> R;
    typedef typename R::Value Value;
    Strip& strip = c.strip;
    const Value most = R::all(FLOAT_MAX);
    for (ptrdiff_t i = 0; i < strip.n; i += N) {
        Value weight = R::load(strip.weights + i) + change * R::load(strip.rates + i) * R::load(x + i);
        weight = weight <= most ? (weight >= -most ? weight : -most) : (weight > most ? most : Value{});
        R::store(strip.weights + i, R::narrow(weight));
    }
    for (ptrdiff_t i = 0; i < strip.n; ++i) {
        AdaptiveSlot& slot = *strip.slots[i];
        slot.weight = strip.weights[i];
        slot.squares = strip.squares[i];
        if (c.normalised) slot.largest = strip.largest[i];
        slot.rate = strip.rates[i];
        if (c.half_life > 0.0) slot.touched = c.now;
    }
}

template <int N>
static PENSTOCK_INLINE void measure_slots_by(Update& c, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    const Strip& strip = c.strip;
    for (ptrdiff_t k = 0; k < c.n_classes; ++k) {
        if (c.square[k] == 0.0) continue;
        for (ptrdiff_t start = 0; start < n; start += strip.n) {
            gather(c, k, buckets + start, n - start);
            measure<N>(c, c.square[k], x + start);
            if (c.normalised) c.norm[k] += sum_of(strip.n, [&](ptrdiff_t i) { return strip.norms[i]; });
            c.moved[k] += sum_of(strip.n, [&](ptrdiff_t i) { return strip.moves[i]; });
            c.is_waiting = c.may_wait && strip.n == n;
            if (!c.is_waiting) scatter<N>(c, 0.0, x + start);
        }
    }
}
PENSTOCK_BY_WIDTH(void, measure_slots, (Update & c, const uint32_t* buckets, const double* x, ptrdiff_t n), c, buckets, x, n)

template <int N>
static PENSTOCK_INLINE void move_slots_by(Update& c, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    if (c.is_waiting) {
        scatter<N>(c, c.change[0], x);
        c.is_waiting = false;
        return;
    }
    for (ptrdiff_t k = 0; k < c.n_classes; ++k) {
        const double change = c.change[k];
        if (change == 0.0) continue;
        for (ptrdiff_t i = 0; i < n; ++i) {
            AdaptiveSlot& slot = *slot_of(c, buckets[i], k);
            slot.weight = finite(slot.weight + change * slot.rate * x[i]);
        }
    }
}
PENSTOCK_BY_WIDTH(void, move_slots, (Update & c, const uint32_t* buckets, const double* x, ptrdiff_t n), c, buckets, x, n)

// Adds to `moved` and `norm` of every class that is updated, and stores everything but the move.
inline void measure_adaptive(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    measure_slots(*static_cast<Update*>(context), buckets, x, n);
}

inline void apply_adaptive(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    move_slots(*static_cast<Update*>(context), buckets, x, n);
}

// What `measure_adaptive` would find for a gradient that never comes, of one class: nothing is stored.
struct Probe {
    const Update* c;
    double square;
    double norm;
    double moved;
};

inline void probe_adaptive(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    Probe& probe = *static_cast<Probe*>(context);
    const Update& c = *probe.c;
    for (ptrdiff_t i = 0; i < n; ++i) {
        const AdaptiveSlot& slot = *slot_of(c, buckets[i], 0);
        const double x2 = std::fmax(x[i] * x[i], FLOAT_MIN);
        const double before = c.half_life > 0.0 ? faded(c, slot) : slot.squares;
        const double squares = bounded(before + probe.square * x2);
        double largest = 1.0;
        if (c.normalised) {
            largest = std::fmax(slot.largest, std::sqrt(x2));
            probe.norm += x2 / (largest * largest);
        }
        probe.moved += x2 * rate_of(c, squares, largest);
    }
}

}  // namespace penstock
