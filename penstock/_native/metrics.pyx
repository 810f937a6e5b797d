"""Kernels of the prequential metrics: predicted events to rows, rows to sums.

A predicted event is summarised in one row of plain numbers, and every metric but AUC is a function of sums
over rows. Cumulative, fading and windowed metrics are the same sums, with another decay or over other rows,
so one kernel serves all three. Sums are sequential: where a stream is cut changes nothing.

A summary writes a row for each event of positive weight, and returns how many it wrote, the position of the
first event that cannot be used (-1 if there is none), and what is wrong with that.
"""

from libc.math cimport fabs, log
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cpdef enum:  # columns of the row of a classified event
    LABEL = 0
    PREDICTED = 1    # -1 where there was no answer
    LOGLOSS = 2
    BRIER = 3
    SCORE = 4        # binary: probability of 1; multiclass: probability of the predicted class
    WEIGHT = 5
    PREVIOUS = 6     # the label before this one, -1 before the first
    CLASS_COLUMNS = 7

cpdef enum:  # columns of the row of an estimated number
    NUMBER_LABEL = 0
    NUMBER_ESTIMATE = 1
    NUMBER_WEIGHT = 2
    NUMBER_COLUMNS = 3

cpdef enum:  # sums over rows of classified events, all weighted
    SCALE = 0             # what a weight of 1 counts now, see `rescaled`
    TOTAL = 1
    CORRECT = 2
    SUM_LOGLOSS = 3
    SUM_BRIER = 4
    SUM_SCORE = 5
    SUM_HITS = 6          # binary: label is 1; multiclass: the predicted class was the label
    PAIRS = 7             # events with a label before them
    PAIRS_CORRECT = 8
    PAIRS_UNCHANGED = 9   # label as before
    CALIBRATION = 10      # weight, score, hits of each of 15 bins of the score
    CALIBRATION_BINS = 15
    CLASSES = 55          # label, predicted, both: of each class

cpdef enum:  # sums over rows of estimated numbers
    NUMBER_SCALE = 0
    NUMBER_TOTAL = 1
    SUM_ABSOLUTE = 2
    SUM_SQUARED = 3
    LABEL_MEAN = 4
    LABEL_M2 = 5
    NUMBER_SUMS = 6

cpdef enum:  # what a summary found unusable
    USABLE = 0
    BAD_PREDICTION = 1
    BAD_LABEL = 2
    BAD_WEIGHT = 3

# Score bins for AUC are narrow where scores are close to 0 or 1, as click rates and fraud scores are: 128 to
# each halving of min(p, 1 - p) down to 2**-21, so a bin is never wider than 0.8 % of that, nor than 0.002.
cdef int64_t _OCTAVES = 20
cdef int _STEP_BITS = 7
cdef int64_t _HALF = (_OCTAVES << _STEP_BITS) + 1
AUC_BINS = 2 * _HALF

cdef double _MAX_CLASSES = 1 << 20      # of memory per class there are 48 bytes
cdef double _TOLERANCE = 1e-6           # float32 probabilities add up to a little more than 1
cdef double _CLIP = 1e-15
cdef double _LARGEST_SCALE = 1e12


cdef inline double clipped_log(double p) noexcept nogil:
    return log(_CLIP if p < _CLIP else (1.0 - _CLIP if p > 1.0 - _CLIP else p))


cdef inline bint is_probability(double p) noexcept nogil:
    return -_TOLERANCE <= p <= 1.0 + _TOLERANCE  # false for NaN


cdef inline double into_unit(double p) noexcept nogil:
    return 0.0 if p <= 0.0 else (1.0 if p > 1.0 else p)


cdef inline bint is_weight(double weight) noexcept nogil:
    return weight >= 0.0 and weight - weight == 0.0


cdef inline int unusable_binary(double p, double y, double weight) noexcept nogil:
    if not is_probability(p):
        return BAD_PREDICTION
    if y != 0.0 and y != 1.0:
        return BAD_LABEL
    return USABLE if is_weight(weight) else BAD_WEIGHT


cdef inline void summarise_one(double* row, double p, double y, double weight, double previous) noexcept nogil:
    p = into_unit(p)
    row[<int>LABEL] = y
    row[<int>PREDICTED] = 1.0 if p >= 0.5 else 0.0
    row[<int>LOGLOSS] = -clipped_log(p if y == 1.0 else 1.0 - p)
    row[<int>BRIER] = (p - y) * (p - y)
    row[<int>SCORE] = p
    row[<int>WEIGHT] = weight
    row[<int>PREVIOUS] = previous


def summarise_binary(
    const double[::1] predictions,
    const double[::1] labels,
    const double[::1] weights,
    double previous,
    double[:, ::1] rows,
):
    """Summarise events whose predictions are the probability of 1."""
    cdef Py_ssize_t i, n = labels.shape[0], kept = 0
    cdef int what
    if not n == predictions.shape[0] == weights.shape[0] <= rows.shape[0] or rows.shape[1] != CLASS_COLUMNS:
        raise ValueError("predictions, labels, weights and rows do not fit together")
    with nogil:
        for i in range(n):
            what = unusable_binary(predictions[i], labels[i], weights[i])
            if what != USABLE:
                with gil:
                    return kept, i, what
            if weights[i] > 0.0:
                summarise_one(&rows[kept, 0], predictions[i], labels[i], weights[i], previous)
                previous = labels[i]
                kept += 1
    return kept, -1, USABLE


def squared_losses(const double[::1] predictions, const double[::1] labels, double[::1] losses):
    """Write the squared error of each probability of 1; return as a summary does."""
    cdef Py_ssize_t i, n = labels.shape[0]
    cdef double p
    if not n == predictions.shape[0] == losses.shape[0]:
        raise ValueError("predictions, labels and losses do not fit together")
    with nogil:
        for i in range(n):
            if not is_probability(predictions[i]):
                with gil:
                    return i, i, BAD_PREDICTION
            if labels[i] != 0.0 and labels[i] != 1.0:
                with gil:
                    return i, i, BAD_LABEL
            p = into_unit(predictions[i])
            losses[i] = (p - labels[i]) * (p - labels[i])
    return n, -1, USABLE


def summarise_multiclass(
    const double[:, ::1] predictions,
    const double[::1] labels,
    const double[::1] weights,
    double previous,
    double[:, ::1] rows,
):
    """Summarise events whose predictions are a probability for each class."""
    cdef Py_ssize_t i, k, n = labels.shape[0], n_classes = predictions.shape[1], kept = 0, label, best
    cdef double p, y, difference, squares, p_label, p_best
    cdef double* row
    if not n == predictions.shape[0] == weights.shape[0] <= rows.shape[0] or rows.shape[1] != CLASS_COLUMNS:
        raise ValueError("predictions, labels, weights and rows do not fit together")
    with nogil:
        for i in range(n):
            y = labels[i]
            if not 0.0 <= y < _MAX_CLASSES or y != <double>(<Py_ssize_t>y):
                with gil:
                    return kept, i, BAD_LABEL
            if not is_weight(weights[i]):
                with gil:
                    return kept, i, BAD_WEIGHT
            label = <Py_ssize_t>y
            best = -1
            p_best = p_label = squares = 0.0
            for k in range(n_classes):
                if not is_probability(predictions[i, k]):
                    with gil:
                        return kept, i, BAD_PREDICTION
                p = into_unit(predictions[i, k])
                if p > p_best:
                    p_best = p
                    best = k
                difference = p
                if k == label:
                    p_label = p
                    difference -= 1.0
                squares += difference * difference
            if weights[i] == 0.0:
                continue
            if label >= n_classes:
                squares += 1.0
            row = &rows[kept, 0]
            row[<int>LABEL] = y
            row[<int>PREDICTED] = <double>best
            row[<int>LOGLOSS] = -clipped_log(p_label)
            row[<int>BRIER] = 1.0 if best < 0 else 0.5 * squares  # no answer is as bad as a wrong one
            row[<int>SCORE] = p_best
            row[<int>WEIGHT] = weights[i]
            row[<int>PREVIOUS] = previous
            previous = y
            kept += 1
    return kept, -1, USABLE


def summarise_numbers(
    const double[::1] predictions,
    const double[::1] labels,
    const double[::1] weights,
    double[:, ::1] rows,
):
    """Summarise events whose predictions are estimates of the label."""
    cdef Py_ssize_t i, n = labels.shape[0], kept = 0
    if not n == predictions.shape[0] == weights.shape[0] <= rows.shape[0] or rows.shape[1] != NUMBER_COLUMNS:
        raise ValueError("predictions, labels, weights and rows do not fit together")
    with nogil:
        for i in range(n):
            if predictions[i] - predictions[i] != 0.0:  # infinite or NaN
                with gil:
                    return kept, i, BAD_PREDICTION
            if labels[i] - labels[i] != 0.0:
                with gil:
                    return kept, i, BAD_LABEL
            if not is_weight(weights[i]):
                with gil:
                    return kept, i, BAD_WEIGHT
            if weights[i] == 0.0:
                continue
            rows[kept, <int>NUMBER_LABEL] = labels[i]
            rows[kept, <int>NUMBER_ESTIMATE] = predictions[i]
            rows[kept, <int>NUMBER_WEIGHT] = weights[i]
            kept += 1
    return kept, -1, USABLE


cdef inline bint rescaled(double* scale, double growth) noexcept nogil:
    """Let a weight of 1 count `growth` times more than before; whether all sums are due to be scaled back.

    With growth = 1/a that is S = l + a S up to a common factor, at the cost of one multiplication an event
    instead of one for every sum.
    """
    scale[0] *= growth
    return scale[0] > _LARGEST_SCALE


cdef struct Head:  # the first sums over rows of classified events, in their order
    double scale
    double total
    double correct
    double logloss
    double brier
    double score
    double hits
    double pairs
    double pairs_correct
    double pairs_unchanged


cdef inline void add_row(
    const double* row, Head* head, double* sums, Py_ssize_t n_sums, double growth, bint top_label
) noexcept nogil:
    cdef Py_ssize_t j, bin_, n_classes = (n_sums - CLASSES) // 3
    cdef double weight, label, predicted, score, correct, hit, factor
    if rescaled(&head.scale, growth):
        memcpy(sums, head, sizeof(Head))
        factor = 1.0 / head.scale
        for j in range(n_sums):
            sums[j] *= factor
        memcpy(head, sums, sizeof(Head))
        head.scale = 1.0
    # What did not happen adds a zero: jumping over it, as often as not, costs more.
    weight = row[<int>WEIGHT] * head.scale
    label = row[<int>LABEL]
    predicted = row[<int>PREDICTED]
    score = row[<int>SCORE]
    correct = weight if predicted == label else 0.0
    hit = correct if top_label else (weight if label == 1.0 else 0.0)
    head.total += weight
    head.correct += correct
    head.logloss += weight * row[<int>LOGLOSS]
    head.brier += weight * row[<int>BRIER]
    head.score += weight * score
    head.hits += hit
    if row[<int>PREVIOUS] >= 0.0:
        head.pairs += weight
        head.pairs_correct += correct
        head.pairs_unchanged += weight if row[<int>PREVIOUS] == label else 0.0
    if 0.0 <= score <= 1.0:
        bin_ = <Py_ssize_t>(score * CALIBRATION_BINS)
        bin_ = CALIBRATION + 3 * (bin_ - (bin_ == CALIBRATION_BINS))
        sums[bin_] += weight
        sums[bin_ + 1] += weight * score
        sums[bin_ + 2] += hit
    if 0.0 <= label < n_classes:
        sums[CLASSES + 3 * <Py_ssize_t>label] += weight
        sums[CLASSES + 3 * <Py_ssize_t>label + 2] += correct
    if 0.0 <= predicted < n_classes:
        sums[CLASSES + 3 * <Py_ssize_t>predicted + 1] += weight


def add_classified(const double[:, ::1] rows, double[::1] sums, double growth, bint top_label):
    """Add rows to sums, each row counting `growth` times as much as the one before it.

    `top_label` says whether a hit is that the predicted class was the label, or that the label is 1.
    """
    cdef Py_ssize_t i, n_sums = sums.shape[0]
    cdef Head head  # in registers, where memory would make every addition wait for the last one
    if rows.shape[1] != CLASS_COLUMNS or n_sums < CLASSES:
        raise ValueError("rows or sums are not those of classified events")
    with nogil:
        memcpy(&head, &sums[0], sizeof(Head))
        for i in range(rows.shape[0]):
            add_row(&rows[i, 0], &head, &sums[0], n_sums, growth, top_label)
        memcpy(&sums[0], &head, sizeof(Head))


def add_numbers(const double[:, ::1] rows, double[::1] sums, double growth):
    """Add rows to sums, each row counting `growth` times as much as the one before it."""
    cdef Py_ssize_t i, n = rows.shape[0]
    cdef double* sum_ = &sums[0]
    cdef double weight, label, error, deviation, factor
    if rows.shape[1] != NUMBER_COLUMNS or sums.shape[0] != NUMBER_SUMS:
        raise ValueError("rows or sums are not those of estimated numbers")
    with nogil:
        for i in range(n):
            if rescaled(sum_ + <int>NUMBER_SCALE, growth):
                factor = 1.0 / sum_[<int>NUMBER_SCALE]
                sum_[<int>NUMBER_TOTAL] *= factor
                sum_[<int>SUM_ABSOLUTE] *= factor
                sum_[<int>SUM_SQUARED] *= factor
                sum_[<int>LABEL_M2] *= factor
                sum_[<int>NUMBER_SCALE] = 1.0
            weight = rows[i, <int>NUMBER_WEIGHT] * sum_[<int>NUMBER_SCALE]
            label = rows[i, <int>NUMBER_LABEL]
            error = rows[i, <int>NUMBER_ESTIMATE] - label
            sum_[<int>NUMBER_TOTAL] += weight
            sum_[<int>SUM_ABSOLUTE] += weight * fabs(error)
            sum_[<int>SUM_SQUARED] += weight * error * error
            # Welford: labels far from zero lose no digits of their variance.
            deviation = label - sum_[<int>LABEL_MEAN]
            sum_[<int>LABEL_MEAN] += deviation * (weight / sum_[<int>NUMBER_TOTAL])
            sum_[<int>LABEL_M2] += weight * deviation * (label - sum_[<int>LABEL_MEAN])


cdef inline int64_t auc_bin(double p) noexcept nogil:
    """Number of the bin of a score: the exponent and the first bits of min(p, 1 - p), mirrored at 1/2."""
    cdef double small = p if p <= 0.5 else 1.0 - p
    cdef double lowest = 1.0 / <double>(<int64_t>1 << (_OCTAVES + 1))
    cdef uint64_t bits, base
    cdef int64_t bin_
    if not small > lowest:
        bin_ = 0
    else:
        memcpy(&bits, &small, sizeof(double))
        memcpy(&base, &lowest, sizeof(double))
        bin_ = <int64_t>(bits >> (52 - _STEP_BITS)) - <int64_t>(base >> (52 - _STEP_BITS))
    return bin_ if p <= 0.5 else 2 * _HALF - 1 - bin_


def add_scores(const double[:, ::1] rows, double[:, ::1] histogram):
    """Add weights to the histograms of scores: of labels 0 in the first line, of labels 1 in the second."""
    cdef Py_ssize_t i, n = rows.shape[0], of_ones
    if rows.shape[1] != CLASS_COLUMNS or histogram.shape[0] != 2 or histogram.shape[1] != AUC_BINS:
        raise ValueError("rows or histogram are not those of classified events")
    with nogil:
        for i in range(n):
            of_ones = 1 if rows[i, <int>LABEL] == 1.0 else 0
            if 0.0 <= rows[i, <int>SCORE] <= 1.0:
                histogram[of_ones, auc_bin(rows[i, <int>SCORE])] += rows[i, <int>WEIGHT]


def remember(const double[:, ::1] rows, double[:, ::1] ring, int64_t n_before):
    """Write rows into a ring that `n_before` rows have been written into."""
    cdef Py_ssize_t i, n = rows.shape[0], size = ring.shape[0]
    cdef size_t width = rows.shape[1] * sizeof(double)
    cdef Py_ssize_t slot
    if rows.shape[1] != ring.shape[1] or size < 1 or n_before < 0:
        raise ValueError("rows do not fit into the ring")
    slot = n_before % size
    with nogil:
        for i in range(n):
            memcpy(&ring[slot, 0], &rows[i, 0], width)
            slot += 1
            if slot == size:
                slot = 0


def score_binary(
    const double[::1] predictions,
    const double[::1] labels,
    const double[::1] weights,
    int64_t n_before,
    double[:, ::1] ring,
    double[::1] sums,
    double[::1] fading_sums,
    double growth,
    double[:, ::1] histogram,
):
    """Summarise events into a ring and add them to all sums, in one pass; return as a summary does.

    That is `summarise_binary`, `remember`, `add_classified` (twice: without growth, and with it) and
    `add_scores`. If an event cannot be used, nothing is written.
    """
    cdef Py_ssize_t i, n = labels.shape[0], n_sums = sums.shape[0], size = ring.shape[0], slot, kept = 0
    cdef int what
    cdef double previous = -1.0
    cdef double* row
    cdef Head head, fading
    if not n == predictions.shape[0] == weights.shape[0]:
        raise ValueError("predictions, labels and weights do not fit together")
    if size < 1 or ring.shape[1] != CLASS_COLUMNS or n_before < 0:
        raise ValueError("rows do not fit into the ring")
    if n_sums < CLASSES or fading_sums.shape[0] != n_sums:
        raise ValueError("the sums are not those of classified events")
    if histogram.shape[0] != 2 or histogram.shape[1] != AUC_BINS:
        raise ValueError("the histogram is not one of scores")
    if n_before:
        previous = ring[(n_before - 1) % size, <int>LABEL]
    slot = n_before % size
    with nogil:
        for i in range(n):
            what = unusable_binary(predictions[i], labels[i], weights[i])
            if what != USABLE:
                with gil:
                    return 0, i, what
        memcpy(&head, &sums[0], sizeof(Head))
        memcpy(&fading, &fading_sums[0], sizeof(Head))
        for i in range(n):
            if weights[i] == 0.0:
                continue
            row = &ring[slot, 0]
            summarise_one(row, predictions[i], labels[i], weights[i], previous)
            add_row(row, &head, &sums[0], n_sums, 1.0, False)
            add_row(row, &fading, &fading_sums[0], n_sums, growth, False)
            histogram[1 if labels[i] == 1.0 else 0, auc_bin(row[<int>SCORE])] += weights[i]
            previous = labels[i]
            kept += 1
            slot += 1
            if slot == size:
                slot = 0
        memcpy(&sums[0], &head, sizeof(Head))
        memcpy(&fading_sums[0], &fading, sizeof(Head))
    return kept, -1, USABLE
