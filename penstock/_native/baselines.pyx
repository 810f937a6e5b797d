"""The baselines' passes over a batch: what was known before each event, and what is known after the last."""

from libc.math cimport fabs
from libc.stdint cimport int64_t


def average(
    const double[::1] labels, const double[::1] weights, double total, double weight, double[::1] before
):
    """Write the weighted mean before each label, 0 while nothing has a weight.

    Returns
    -------
    total, weight : float
        Sums of ``weight * label`` and of the weights, after the last.
    """
    cdef Py_ssize_t i
    if not (labels.shape[0] == weights.shape[0] == before.shape[0]):
        raise ValueError("labels, weights and before differ in length")
    with nogil:
        for i in range(labels.shape[0]):
            before[i] = total / weight if weight > 0.0 else 0.0
            weight += weights[i]
            total += weights[i] * labels[i]
    return total, weight


def repeats(
    const double[::1] labels,
    const double[::1] weights,
    double last,
    int64_t n_chances,
    int64_t n_repeats,
    double[::1] before,
    double[::1] share,
):
    """Write the label before each label, NaN before the first, and how often a label came again so far.

    That share is ``(n_repeats + 1/2) / (n_chances + 1)``. A label of weight 0 is not seen.

    Returns
    -------
    last : float
        The label seen last; NaN if there was none.
    n_chances, n_repeats : int
        Labels seen that had one before them, and those of them that were the same.
    """
    cdef Py_ssize_t i
    if not (labels.shape[0] == weights.shape[0] == before.shape[0] == share.shape[0]):
        raise ValueError("labels, weights, before and share differ in length")
    with nogil:
        for i in range(labels.shape[0]):
            before[i] = last
            share[i] = (<double>n_repeats + 0.5) / (<double>n_chances + 1.0)
            if weights[i] > 0.0:
                if last == last:
                    n_chances += 1
                    n_repeats += labels[i] == last
                last = labels[i]
    return last, n_chances, n_repeats


def of_ones(const double[::1] last, const double[::1] share, double least, double[::1] out):
    """Write the probability of a 1 where the label before was `last`, and comes again with probability `share`.

    That is taken to be at least `least`; before the first label, 0.5 is written.
    """
    cdef Py_ssize_t i
    cdef double again, p
    if not (last.shape[0] == share.shape[0] == out.shape[0]):
        raise ValueError("last, share and out differ in length")
    with nogil:
        for i in range(last.shape[0]):
            again = share[i] if share[i] > least else least
            p = fabs(1.0 - last[i] - again)  # labels alternate as they like: a branch would be mispredicted
            out[i] = p if p == p else 0.5
