// Binary events scored in one pass: what each of them is, column by column, then the sums, event by event.

#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "inline.hpp"
#include "lanes.hpp"
#include "logarithm.hpp"

namespace penstock {

enum {  // columns of the row of a classified event
    LABEL,
    PREDICTED,  // -1 where there was no answer
    LOGLOSS,
    BRIER,
    SCORE,  // binary: probability of 1; multiclass: probability of the predicted class
    WEIGHT,
    PREVIOUS,  // the label before this one, -1 before the first
    CLASS_COLUMNS
};

enum {      // sums over rows of classified events, all weighted
    SCALE,  // what a weight of 1 counts now
    TOTAL,
    CORRECT,
    SUM_LOGLOSS,
    SUM_BRIER,
    SUM_SCORE,
    SUM_HITS,  // binary: label is 1; multiclass: the predicted class was the label
    PAIRS,     // events with a label before them
    PAIRS_CORRECT,
    PAIRS_UNCHANGED,  // label as before
    CALIBRATION,      // weight, score, hits of each bin of the score
    CALIBRATION_BINS = 15,
    CLASSES = CALIBRATION + 3 * CALIBRATION_BINS,  // label, predicted, both: of each class
    BINARY_SUMS = CLASSES + 6
};

constexpr double TOLERANCE = 1e-6;  // float32 probabilities add up to a little more than 1
constexpr double CLIP = 1e-15;
constexpr double LARGEST_SCALE = 1e12;

// Score bins for AUC are narrow where scores are close to 0 or 1, as click rates and fraud scores are: 128 to each
// halving of min(p, 1 - p) down to 2^-21, so a bin is never wider than 0.8 % of that, nor than 0.002.
constexpr int64_t OCTAVES = 20;
constexpr int STEP_BITS = 7;
constexpr int64_t AUC_HALF = (OCTAVES << STEP_BITS) + 1;
constexpr int64_t AUC_BINS = 2 * AUC_HALF;

PENSTOCK_INLINE bool is_probability(double p) { return (-TOLERANCE <= p) & (p <= 1.0 + TOLERANCE); }  // NaN is none
PENSTOCK_INLINE double into_unit(double p) { return p <= 0.0 ? 0.0 : p > 1.0 ? 1.0 : p; }
PENSTOCK_INLINE bool is_weight(double weight) { return (weight >= 0.0) & (weight <= DBL_MAX); }
PENSTOCK_INLINE bool is_binary(double label) { return (label == 0.0) | (label == 1.0); }

PENSTOCK_INLINE double squared(double x) { return x * x; }
PENSTOCK_INLINE double clipped(double p) { return std::min(std::max(p, CLIP), 1.0 - CLIP); }
PENSTOCK_INLINE double log_loss(double p) { return -logarithm(clipped(p)); }

PENSTOCK_INLINE int calibration_bin(double score) {
    const int bin = static_cast<int>(score * CALIBRATION_BINS);
    return bin - (bin == CALIBRATION_BINS);
}

// The exponent and the first bits of min(p, 1 - p), mirrored at 1/2.
PENSTOCK_INLINE int64_t auc_bin(double p) {
    constexpr double LOWEST = 1.0 / (int64_t{1} << (OCTAVES + 1));
    const double small = std::max(std::min(p, 1.0 - p), LOWEST);
    const int64_t bin = (bits_of(small) >> (52 - STEP_BITS)) - (bits_of(LOWEST) >> (52 - STEP_BITS));
    const int64_t mirror = p <= 0.5 ? 0 : -1;  // ~bin = -1 - bin
    return (bin ^ mirror) + (mirror & AUC_BINS);
}

// Whether all events can be used; sets how many of them have a positive weight.
PENSTOCK_WIDE
static bool all_usable(const double* p, const double* labels, const double* weights, ptrdiff_t n, ptrdiff_t* kept) {
    ptrdiff_t usable = 0, weighted = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        usable += is_probability(p[i]) & is_binary(labels[i]) & is_weight(weights[i]);
        weighted += weights[i] > 0.0;
    }
    *kept = weighted;
    return usable == n;
}

PENSTOCK_WIDE
static void square_errors(const double* p, const double* labels, ptrdiff_t n, double* losses) {
    for (ptrdiff_t i = 0; i < n; i++) losses[i] = squared(into_unit(p[i]) - labels[i]);
}

// What an event of weight 1 adds to every sum but those of the calibration, a number a lane.
struct Share {
    alignas(64) double lanes[2 * wide::LANES];

    static constexpr int HEAD = CALIBRATION - TOTAL, CLASS_SUMS = BINARY_SUMS - CLASSES;
    static_assert(HEAD + CLASS_SUMS <= 2 * wide::LANES);

    constexpr double& operator[](int sum) { return lanes[sum < CALIBRATION ? sum - TOTAL : HEAD + sum - CLASSES]; }
    double operator[](int sum) const { return lanes[sum < CALIBRATION ? sum - TOTAL : HEAD + sum - CLASSES]; }
};

// Those parts of it that are 0 or 1.
constexpr Share share_of(bool label, bool predicted, int previous) {
    const double correct = label == predicted;
    Share share{};
    share[TOTAL] = 1.0;
    share[CORRECT] = correct;
    share[SUM_HITS] = label;
    if (previous >= 0) {
        share[PAIRS] = 1.0;
        share[PAIRS_CORRECT] = correct;
        share[PAIRS_UNCHANGED] = previous == label;
    }
    share[CLASSES + 3 * label] = 1.0;
    share[CLASSES + 3 * predicted + 1] = 1.0;
    share[CLASSES + 3 * label + 2] = correct;
    return share;
}

// Of label, predicted and previous, as `place` numbers them.
static constexpr Share SHARES[] = {
    share_of(0, 0, -1), share_of(1, 0, -1), share_of(0, 1, -1), share_of(1, 1, -1),
    share_of(0, 0, 0),  share_of(1, 0, 0),  share_of(0, 1, 0),  share_of(1, 1, 0),
    share_of(0, 0, 1),  share_of(1, 0, 1),  share_of(0, 1, 1),  share_of(1, 1, 1),
};

// Events of positive weight, as many as fit into the first cache with all that is known of them.
struct Block {
    static constexpr ptrdiff_t MOST = 128;

    ptrdiff_t n = 0;
    double labels_since[1 + MOST];  // the first is the one before the block, -1 if there is none
    double scores[MOST], weights[MOST], loglosses[MOST], briers[MOST];
    int32_t outcomes[MOST], bins[MOST];
    int64_t places[MOST];  // in the histogram of scores
    Share shares[MOST];

    void follow(double previous) { labels_since[0] = previous; }

    const double* labels() const { return labels_since + 1; }

    void take(const double* p, const double* labels, const double* given, ptrdiff_t count) {
        labels_since[0] = labels_since[n];
        n = 0;
        for (ptrdiff_t i = 0; i < count; i++) {  // what does not count is overwritten by the next one
            labels_since[1 + n] = labels[i];
            scores[n] = into_unit(p[i]);
            weights[n] = given[i];
            n += given[i] > 0.0;
        }
    }

    void write_row(ptrdiff_t i, double* row) const {
        row[LABEL] = labels()[i];
        row[PREDICTED] = scores[i] >= 0.5;
        row[LOGLOSS] = loglosses[i];
        row[BRIER] = briers[i];
        row[SCORE] = scores[i];
        row[WEIGHT] = weights[i];
        row[PREVIOUS] = labels_since[i];
    }
};

// What each event loses.
PENSTOCK_WIDE
static void judge(Block& block) {
    const double *labels = block.labels(), *scores = block.scores;
    for (ptrdiff_t i = 0; i < block.n; i++) {
        block.briers[i] = squared(scores[i] - labels[i]);
        block.loglosses[i] = clipped(std::fabs(1.0 - labels[i] - scores[i]));  // the label's probability
    }
    // A loop of its own: what the compiler knows of a clipped number would make it branch.
    for (ptrdiff_t i = 0; i < block.n; i++) block.loglosses[i] = -logarithm(block.loglosses[i]);
}

// Where each event is counted, and what it adds to the sums.
PENSTOCK_WIDE
static void place(Block& block) {
    const double *labels = block.labels(), *scores = block.scores;
    for (ptrdiff_t i = 0; i < block.n; i++) {
        const double before = block.labels_since[i];
        block.outcomes[i] = (labels[i] == 1.0) + 2 * (scores[i] >= 0.5) + 4 * (before == 0.0) + 8 * (before == 1.0);
        block.bins[i] = calibration_bin(scores[i]);
    }
    for (ptrdiff_t i = 0; i < block.n; i++) {
        const int64_t line = labels[i] == 1.0 ? AUC_BINS : 0;
        block.places[i] = line + auc_bin(scores[i]);
    }
    for (ptrdiff_t i = 0; i < block.n; i++) {
        Share& share = block.shares[i] = SHARES[block.outcomes[i]];
        share[SUM_LOGLOSS] = block.loglosses[i];
        share[SUM_BRIER] = block.briers[i];
        share[SUM_SCORE] = scores[i];
    }
}

// One view's sums, where each event counts `growth` times as much as the one before it, see metrics.pyx.
template <int N>
struct View {
    typedef wide::Lanes<N> Lanes;
    double* sums;
    double growth, scale;
    Lanes low, high;

    PENSTOCK_INLINE View(double* sums, double growth) : sums(sums), growth(growth) { load(); }

    PENSTOCK_INLINE void load() {
        Share held{};
        std::memcpy(held.lanes, sums + TOTAL, Share::HEAD * sizeof(double));
        std::memcpy(held.lanes + Share::HEAD, sums + CLASSES, Share::CLASS_SUMS * sizeof(double));
        scale = sums[SCALE];
        low = Lanes(held.lanes);
        high = Lanes(held.lanes + wide::LANES);
    }
    PENSTOCK_INLINE void store() const {
        Share held{};
        low.store(held.lanes);
        high.store(held.lanes + wide::LANES);
        sums[SCALE] = scale;
        std::memcpy(sums + TOTAL, held.lanes, Share::HEAD * sizeof(double));
        std::memcpy(sums + CLASSES, held.lanes + Share::HEAD, Share::CLASS_SUMS * sizeof(double));
    }
    PENSTOCK_INLINE void rescale() {
        store();
        const double factor = 1.0 / scale;
        for (int sum = TOTAL; sum < BINARY_SUMS; sum++) sums[sum] *= factor;
        sums[SCALE] = 1.0;
        load();
    }
    PENSTOCK_INLINE void add(const Share& share, double weight, int bin) {
        scale *= growth;
        if (__builtin_expect(scale > LARGEST_SCALE, 0)) rescale();
        const double counted = weight * scale;
        low += Lanes(share.lanes) * counted;
        high += Lanes(share.lanes + wide::LANES) * counted;
        double* const in_bin = sums + CALIBRATION + 3 * bin;
        in_bin[0] += counted;
        in_bin[1] += counted * share[SUM_SCORE];
        in_bin[2] += counted * share[SUM_HITS];
    }
};

template <int N>
static PENSTOCK_INLINE void add_block_by(
    const Block& block, double* sums, double* fading_sums, double growth, double* histogram
) {
    View<N> all(sums, 1.0), fading(fading_sums, growth);
    for (ptrdiff_t i = 0; i < block.n; i++) {
        all.add(block.shares[i], block.weights[i], block.bins[i]);
        fading.add(block.shares[i], block.weights[i], block.bins[i]);
        histogram[block.places[i]] += block.weights[i];
    }
    all.store();
    fading.store();
}
PENSTOCK_BY_WIDTH(
    void, add_block, (const Block& block, double* sums, double* fading_sums, double growth, double* histogram), block,
    sums, fading_sums, growth, histogram)

}  // namespace penstock
