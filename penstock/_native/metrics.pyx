"""Kernels of the prequential metrics: predicted events to rows, rows to sums.

A predicted event is summarised in one row of plain numbers, and every metric but AUC is a function of sums
over rows. Cumulative, fading and windowed metrics are the same sums, with another decay or over other rows,
so one kernel serves all three. Sums are sequential: where a stream is cut changes nothing.

A summary writes a row for each event of positive weight, and returns how many it wrote, the position of the
first event that cannot be used (-1 if there is none), and what is wrong with that.
"""

from libc.math cimport fabs
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef extern from "scoring.hpp" namespace "penstock" nogil:
    cpdef enum:
        LABEL
        PREDICTED
        LOGLOSS
        BRIER
        SCORE
        WEIGHT
        PREVIOUS
        CLASS_COLUMNS

        SCALE
        TOTAL
        CORRECT
        SUM_LOGLOSS
        SUM_BRIER
        SUM_SCORE
        SUM_HITS
        PAIRS
        PAIRS_CORRECT
        PAIRS_UNCHANGED
        CALIBRATION
        CALIBRATION_BINS
        CLASSES
        BINARY_SUMS
    const double LARGEST_SCALE
    const int64_t _AUC_BINS "penstock::AUC_BINS"

    bint is_probability(double p)
    double into_unit(double p)
    bint is_weight(double weight)
    bint is_binary(double label)
    double log_loss(double p)
    int calibration_bin(double score)
    int64_t auc_bin(double p)
    void square_errors(const double* p, const double* labels, Py_ssize_t n, double* losses)
    bint all_usable(const double* p, const double* labels, const double* weights, Py_ssize_t n, Py_ssize_t* kept)

    cppclass Block:
        Py_ssize_t n
        void follow(double previous)
        void take(const double* p, const double* labels, const double* weights, Py_ssize_t n)
        void write_row(Py_ssize_t i, double* row)
    const Py_ssize_t BLOCK "penstock::Block::MOST"
    void judge(Block& block)
    void place(Block& block)
    void add_block(const Block& block, double* sums, double* fading_sums, double growth, double* histogram)

cpdef enum:  # columns of the row of an estimated number
    NUMBER_LABEL = 0
    NUMBER_ESTIMATE = 1
    NUMBER_WEIGHT = 2
    NUMBER_COLUMNS = 3

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

AUC_BINS = _AUC_BINS

cdef double _MAX_CLASSES = 1 << 20      # of memory per class there are 48 bytes


cdef inline int unusable_binary(double p, double y, double weight) noexcept nogil:
    if not is_probability(p):
        return BAD_PREDICTION
    if not is_binary(y):
        return BAD_LABEL
    return USABLE if is_weight(weight) else BAD_WEIGHT


cdef Py_ssize_t first_unusable(
    const double* p, const double* labels, const double* weights, Py_ssize_t n, int* what
) noexcept nogil:
    """Position of the first event that cannot be used, -1 if there is none."""
    cdef Py_ssize_t i
    for i in range(n):
        what[0] = unusable_binary(p[i], labels[i], weights[i])
        if what[0] != USABLE:
            return i
    return -1


def summarise_binary(
    const double[::1] predictions,
    const double[::1] labels,
    const double[::1] weights,
    double previous,
    double[:, ::1] rows,
):
    """Summarise events whose predictions are the probability of 1."""
    cdef Py_ssize_t i, n = labels.shape[0], kept = 0, start = 0, bad
    cdef int what = USABLE
    cdef Block block
    if not n == predictions.shape[0] == weights.shape[0] <= rows.shape[0] or rows.shape[1] != CLASS_COLUMNS:
        raise ValueError("predictions, labels, weights and rows do not fit together")
    with nogil:
        bad = first_unusable(&predictions[0], &labels[0], &weights[0], n, &what)
        if bad >= 0:
            n = bad
        block.follow(previous)
        while start < n:
            block.take(&predictions[start], &labels[start], &weights[start], min(BLOCK, n - start))
            judge(block)
            for i in range(block.n):
                block.write_row(i, &rows[kept + i, 0])
            kept += block.n
            start += BLOCK
    return kept, bad, what


def squared_losses(const double[::1] predictions, const double[::1] labels, double[::1] losses):
    """Write the squared error of each probability of 1; return as a summary does."""
    cdef Py_ssize_t n = labels.shape[0], n_ones = 0, bad = -1
    cdef int what = USABLE
    if not n == predictions.shape[0] == losses.shape[0]:
        raise ValueError("predictions, labels and losses do not fit together")
    with nogil:
        if all_usable(&predictions[0], &labels[0], &labels[0], n, &n_ones):
            square_errors(&predictions[0], &labels[0], n, &losses[0])
        else:
            bad = first_unusable(&predictions[0], &labels[0], &labels[0], n, &what)
    return n, bad, what


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
            row[<int>LOGLOSS] = log_loss(p_label)
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
    return scale[0] > LARGEST_SCALE


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
        bin_ = CALIBRATION + 3 * calibration_bin(score)
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
    cdef Py_ssize_t i, n = labels.shape[0], size = ring.shape[0], start = 0, kept = 0, left = 0, lost, slot, bad
    cdef int what = USABLE
    cdef Block block
    if not n == predictions.shape[0] == weights.shape[0]:
        raise ValueError("predictions, labels and weights do not fit together")
    if size < 1 or ring.shape[1] != CLASS_COLUMNS or n_before < 0:
        raise ValueError("rows do not fit into the ring")
    if not sums.shape[0] == fading_sums.shape[0] == BINARY_SUMS:
        raise ValueError("the sums are not those of binary events")
    if histogram.shape[0] != 2 or histogram.shape[1] != _AUC_BINS:
        raise ValueError("the histogram is not one of scores")
    block.follow(ring[(n_before - 1) % size, <int>LABEL] if n_before else -1.0)
    with nogil:
        if not all_usable(&predictions[0], &labels[0], &weights[0], n, &left):
            bad = first_unusable(&predictions[0], &labels[0], &weights[0], n, &what)
            with gil:
                return 0, bad, what
        while start < n:
            block.take(&predictions[start], &labels[start], &weights[start], min(BLOCK, n - start))
            judge(block)
            place(block)
            add_block(block, &sums[0], &fading_sums[0], growth, &histogram[0, 0])
            lost = min(max(left - size, 0), block.n)  # what would be overwritten at once is not written
            slot = (n_before % size + kept + lost) % size
            for i in range(lost, block.n):
                block.write_row(i, &ring[slot, 0])
                slot += 1
                if slot == size:
                    slot = 0
            kept += block.n
            left -= block.n
            start += BLOCK
    return kept, -1, USABLE
