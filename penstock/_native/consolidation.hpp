// Elastic weight consolidation, event by event: what a weight is held to, and how hard.
//
// Beside every slot of a table that learns by steps lie four float32:
//
//   anchor      the weight when it was last consolidated
//   importance  curvature of the loss along the weight (the diagonal of its Fisher information), of an event
//               that touches the weight, summed over stretches between anchors
//   mean        the same of the stretch since the last anchor: a running mean
//   touches     importance weight of the events in that mean
//
// The penalty strength/2 * importance * (weight - anchor)^2 is added to the loss of every event that touches the
// weight. Its step is proximal, so that no strength overshoots, and as long as the event's own step turned out
// to be: a weight comes to rest where the gradients cancel, however long the steps are.
//
// Kirkpatrick et al. (2017), PNAS 114(13), equation 3. Schwarz et al. (2018), ICML: one anchor, and importances fade.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace penstock {

struct Held {
    float anchor, importance, mean, touches;
};

struct Hold {
    // Pointers are arrays over the classes, or tables of slots.
    Held* held = nullptr;  // null: nothing is consolidated
    float* table = nullptr;
    size_t width = 0, stride = 0;  // floats between buckets, and between classes
    size_t capacity = 0, n_classes = 0;
    bool rated = false;  // the fourth number of a slot is a rate of its own
    double strength = 0.0, memory = 0.0;
    int64_t every = 0;        // events between two anchors; 0: somebody says when
    double weight = 0.0;      // of the event
    double* pace = nullptr;   // strength * length of the event's step; 0: the class was not updated
    double* curvature = nullptr;  // second derivative of the loss by the margin
};

inline float within_float(double x) {
    constexpr double largest = std::numeric_limits<float>::max();
    return static_cast<float>(std::fabs(x) <= largest ? x : std::copysign(largest, x));
}

// Pull the weights that were just updated towards their anchors, and note how much each of them matters.
inline void hold_on(void* context, const uint32_t* buckets, const double* x, ptrdiff_t n) {
    constexpr double most_touches = 16777216.0;  // a float32 counts no further; from there on the mean fades
    const Hold& c = *static_cast<const Hold*>(context);
    for (ptrdiff_t i = 0; i < n; i++) {
        float* bucket = c.table + buckets[i] * c.width;
        for (size_t k = 0; k < c.n_classes; k++) {
            if (c.pace[k] == 0.0) continue;
            float* slot = bucket + k * c.stride;
            Held& held = c.held[buckets[i] * c.capacity + k];
            if (held.importance > 0.0f) {
                const double pull = c.pace[k] * (c.rated ? slot[3] : 1.0) * held.importance;
                const double share = pull < 1e100 ? pull / (1.0 + pull) : 1.0;
                const double weight = slot[0];
                slot[0] = within_float(weight + (held.anchor - weight) * share);
            }
            const double touches = held.touches + c.weight;
            held.mean = within_float(held.mean + c.weight / touches * (c.curvature[k] * x[i] * x[i] - held.mean));
            held.touches = static_cast<float>(std::min(touches, most_touches));
        }
    }
}

// Take `weights` of each bucket's first `n_weights` classes for anchors, and those in the table for the others.
inline void consolidate(const Hold& c, size_t n_buckets, const float* weights, size_t n_weights) {
    for (size_t bucket = 0; bucket < n_buckets; bucket++) {
        for (size_t k = 0; k < c.capacity; k++) {
            Held& held = c.held[bucket * c.capacity + k];
            held.anchor = k < n_weights ? weights[bucket * n_weights + k] : c.table[bucket * c.width + k * c.stride];
            if (held.touches > 0.0f) {  // so importances fade with the weight's own time: what is rare stays known
                held.importance = within_float(c.memory * held.importance + held.mean);
                held.mean = held.touches = 0.0f;
            }
        }
    }
}

}  // namespace penstock
