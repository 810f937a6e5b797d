// Adaptive, normalised updates of one event's slots: how far its margin would move, and the move.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "lanes.hpp"

namespace penstock {

constexpr double FLOAT_MAX = 3.4028234663852886e38;
constexpr double FLOAT_MIN = 1.1754943508222875e-38;
constexpr float X_MIN = 1.084202e-19f;  // sqrt(FLOAT_MIN): smaller |x| count as this in norms

// What is stored: never an infinity, never a NaN.
inline float finite(double x) {
    if (std::fabs(x) <= FLOAT_MAX) return static_cast<float>(x);
    return x != x ? 0.0f : static_cast<float>(std::copysign(FLOAT_MAX, x));
}

// One event being learned, and the constants of the rule. The pointers are arrays over the classes.
struct Update {
    float* table;
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
};

struct AdaptiveSlot {
    float weight, squares, largest, rate;
    uint32_t touched;  // there only with a half-life
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
    const double ratio = double(slot.largest) / largest;
    return finite(slot.weight * (c.square_root ? ratio : std::pow(ratio * ratio, 1.0 - c.power_t)));
}

// Doubles by the register. Float32 from anywhere are gathered straight into one: stored one by one and then loaded
// as one they would stall.
template <int N>
struct Floats {
    typedef float Value __attribute__((vector_size(4 * N)));
};

template <int N>
struct Registers {
    typedef typename wide::Register<N>::Value Value;
    typedef typename wide::Register<N>::Unaligned Unaligned;
    typedef typename Floats<N>::Value Narrow;

    PENSTOCK_INLINE static Value gather(AdaptiveSlot* const* s, float AdaptiveSlot::*f) {
        Narrow floats;
        if constexpr (N == 8)
            floats = Narrow{s[0]->*f, s[1]->*f, s[2]->*f, s[3]->*f, s[4]->*f, s[5]->*f, s[6]->*f, s[7]->*f};
        else if constexpr (N == 4)
            floats = Narrow{s[0]->*f, s[1]->*f, s[2]->*f, s[3]->*f};
        else
            floats = Narrow{s[0]->*f, s[1]->*f};
        return __builtin_convertvector(floats, Value);
    }
    PENSTOCK_INLINE static Value load(const double* from) { return *(const Unaligned*)from; }
    PENSTOCK_INLINE static void store(double* to, const Value& value) { *(Unaligned*)to = value; }
    PENSTOCK_INLINE static Value all(double value) { return Value{} + value; }
    PENSTOCK_INLINE static Value root(const Value& of) {
        Value value = of;
        for (int i = 0; i < N; i++) value[i] = std::sqrt(value[i]);
        return value;
    }
};

// Entries are measured by the strip: what is computed of each is computed of all at once, in wide registers, and
// only sums are taken one after the other. A slot that comes twice has to see what the first time left behind:
// there a strip ends.
template <int N>
struct Strip {
    static constexpr ptrdiff_t LENGTH = 32;
    static constexpr float TAKEN = -1.0f;  // no rate

    AdaptiveSlot* slots[LENGTH];
    ptrdiff_t n;
    alignas(64) double squares[LENGTH];  // whole registers
    alignas(64) double largest[LENGTH];
    alignas(64) double rates[LENGTH];
    alignas(64) double norms[LENGTH];
    alignas(64) double moves[LENGTH];

    PENSTOCK_INLINE void gather(const Update& c, ptrdiff_t k, const uint32_t* buckets, ptrdiff_t most) {
        if (most > LENGTH) most = LENGTH;
        for (n = 0; n < most; ++n) {
            AdaptiveSlot* slot = slot_of(c, buckets[n], k);
            if (slot->rate < 0.0f && n) break;
            slot->rate = TAKEN;
            slots[n] = slot;
        }
        for (ptrdiff_t i = n; i % N; ++i) slots[i] = slots[0];
    }

    // Reads up to N - 1 entries of x that are not there.
    PENSTOCK_INLINE void measure(const Update& c, double square, const double* x) {
        typedef Registers<N> R;
        typedef typename R::Value Value;
        const Value least = R::all(FLOAT_MIN), most = R::all(FLOAT_MAX), x_min = R::all(X_MIN), one = R::all(1.0);
        for (ptrdiff_t i = 0; i < n; i += N) {
            const Value value = R::load(x + i), raw = value * value;
            const Value x2 = raw < least ? least : raw;
            Value sum = R::gather(slots + i, &AdaptiveSlot::squares);
            if (c.half_life > 0.0)
                for (int j = 0; j < N; ++j) sum[j] = faded(c, *slots[i + j]);
            sum += square * x2;
            sum = sum >= least ? (sum <= most ? sum : most) : least;  // also of NaN
            R::store(squares + i, sum);
            Value scale = R::root(sum);
            if (c.normalised) {
                const Value size = value < 0.0 ? -value : value;
                const Value rounded =
                    __builtin_convertvector(__builtin_convertvector(size, typename R::Narrow), Value);
                const Value reach = raw < least ? x_min : rounded;
                const Value before = R::gather(slots + i, &AdaptiveSlot::largest);
                const Value after = reach > before ? reach : before;
                scale *= after;
                R::store(largest + i, after);
                R::store(norms + i, x2 / (after * after));
            }
            Value rate = one / scale;
            if (!c.square_root)
                for (int j = 0; j < N; ++j) rate[j] = rate_of(c, sum[j], c.normalised ? largest[i + j] : 1.0);
            R::store(rates + i, rate);
            R::store(moves + i, x2 * rate);
        }
    }

    PENSTOCK_INLINE void scatter(const Update& c) const {
        for (ptrdiff_t i = 0; i < n; ++i) {
            AdaptiveSlot& slot = *slots[i];
            slot.squares = static_cast<float>(squares[i]);
            slot.rate = finite(rates[i]);
            if (c.half_life > 0.0) slot.touched = c.now;
            if (c.normalised && largest[i] > slot.largest) {
                const float reach = static_cast<float>(largest[i]);
                if (slot.largest > 0.0f) slot.weight = rescaled(c, slot, reach);
                slot.largest = reach;
            }
        }
    }
};

template <int N>
static PENSTOCK_INLINE void measure_slots_by(const Update& c, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    Strip<N> strip;
    for (ptrdiff_t k = 0; k < c.n_classes; ++k) {
        if (c.square[k] == 0.0) continue;
        double norm = c.norm[k], moved = c.moved[k];
        for (ptrdiff_t start = 0; start < n; start += strip.n) {
            strip.gather(c, k, buckets + start, n - start);
            strip.measure(c, c.square[k], x + start);
            strip.scatter(c);
            for (ptrdiff_t i = 0; i < strip.n; ++i) {
                if (c.normalised) norm += strip.norms[i];
                moved += strip.moves[i];
            }
        }
        c.norm[k] = norm;
        c.moved[k] = moved;
    }
}
PENSTOCK_BY_WIDTH(
    void, measure_slots, (const Update& c, const uint32_t* buckets, const double* x, ptrdiff_t n), c, buckets, x, n)

// Adds to `moved` and `norm` of every class that is updated, and stores everything but the move.
inline void measure_adaptive(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    measure_slots(*static_cast<const Update*>(context), buckets, x, n);
}

inline void apply_adaptive(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    const Update& c = *static_cast<const Update*>(context);
    for (ptrdiff_t k = 0; k < c.n_classes; ++k) {
        const double change = c.change[k];
        if (change == 0.0) continue;
        for (ptrdiff_t i = 0; i < n; ++i) {
            AdaptiveSlot& slot = *slot_of(c, buckets[i], k);
            slot.weight = finite(slot.weight + change * slot.rate * x[i]);
        }
    }
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
