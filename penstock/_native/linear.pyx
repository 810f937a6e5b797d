"""Linear learning on hashed sparse rows: margins, predictions, five update rules.

One event is walked in blocks (walk.hpp). Each pass over an event (margins, sensitivities, update) sees the same
blocks; an event that fits one block is walked once. Losses and their closed-form steps are those of losses.hpp.

A bucket of the table holds `capacity` classes, one slot each, of `stride` float32:

======== ======================================================================= ======
update   slot                                                                    stride
======== ======================================================================= ======
nag      weight, sum of squared gradients, largest |x|, rate (, last touch)      4 (8)
adagrad  as nag; the largest |x| stays 0                                         4 (8)
sgd      weight                                                                  1
ftrl     weight, z, sum of squared gradients                                     4
coin     weight, -sum of gradients, sum of |gradients|, largest |x|, wealth,
         largest |loss derivative|                                               8
======== ======================================================================= ======

Slots are float32 like Vowpal Wabbit's; arithmetic is double, but for the roots and quotients that rates are
made of. Everything stored is clamped to the finite float32 range, so that no input, however large, ever turns
into an infinity or a NaN.
"""

import numpy as np

from libc.math cimport copysign, exp, fabs, pow, sqrt
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from penstock._native.adaptive cimport Probe, Update, apply_adaptive, measure_adaptive, probe_adaptive
from penstock._native.blocks cimport FLOAT_MAX, block_margin, effective, finite
from penstock._native.consolidation cimport Held, Hold, consolidate, hold_on
from penstock._native.features cimport Entries, encode_into, hash_name
from penstock._native.losses cimport (
    HINGE,
    LOGISTIC,
    POISSON,
    QUANTILE,
    SOFTMAX,
    SQUARED,
    clamp,
    curvature,
    derivative,
    logistic_step,
    sigmoid,
    step,
)
from penstock._native.touched cimport Touched, copy_touched, find_touched, freeze_weights
from penstock._native.walk cimport (
    LARGEST,
    MAX_ORDER,
    Interaction,
    Plan,
    Walk,
    announce,
    make_room,
    visit_again,
    visit_row,
)

cdef enum:
    AHEAD = 3  # rows
    MAX_SPARE = 1 << 16  # entries (1 MiB) that a buffer may hold on to between calls

cdef enum:
    BINARY = 0
    MULTICLASS = 1
    REGRESSION = 2

cdef enum:
    NAG = 0
    ADAGRAD = 1
    SGD = 2
    FTRL = 3
    COIN = 4

cdef enum:
    SUM_NORM = 0
    SUM_WEIGHT = 1
    LOW = 2
    HIGH = 3
    AGE = 4
    CONTRACTION = 5
    GRAVITY = 6
    N_TOTALS = 7

cdef const double NEGLIGIBLE = 2.0**-24  # a logistic loss that is 0 in float32 teaches nothing, not even scales

HEADS = {"binary": BINARY, "multiclass": MULTICLASS, "regression": REGRESSION}
LOSSES = {
    "squared": SQUARED,
    "logistic": LOGISTIC,
    "hinge": HINGE,
    "quantile": QUANTILE,
    "poisson": POISSON,
    "softmax": SOFTMAX,
}
RULES = {"nag": NAG, "adagrad": ADAGRAD, "sgd": SGD, "ftrl": FTRL, "coin": COIN}
TOTALS = ("sum_norm", "sum_weight", "low", "high", "age", "contraction", "gravity")


# ------------------------------------------------------------------------------------------------------- rows

cdef inline void use(Walk* walk, Entries& entries) noexcept:
    walk.indices = entries.indices()
    walk.values = entries.values()
    walk.namespaces = entries.namespaces()
    walk.length = <Py_ssize_t> entries.size()


cdef int make_plan(Plan* plan, int bits, bint constant, interactions) except -1:
    cdef Interaction interaction
    cdef Py_ssize_t term
    cdef bytes encoded
    if not 1 <= bits <= 30:
        raise ValueError(f"bits must be between 1 and 30, got {bits}")
    plan.mask = (<uint32_t> 1 << bits) - 1
    plan.constant = constant
    plan.interactions.clear()
    for names in interactions:
        interaction.order = len(names)
        if not 2 <= interaction.order <= MAX_ORDER:
            raise ValueError(f"an interaction is of 2 or 3 namespaces, got {names!r}")
        for term in range(interaction.order):
            encoded = names[term].encode()
            interaction.anything[term] = encoded == b"*"
            interaction.namespaces[term] = hash_name(encoded, len(encoded), 0) if encoded else 0
        plan.interactions.push_back(interaction)
    return 0


cdef Py_ssize_t check_rows(
    const int64_t[::1] indptr,
    const uint32_t[::1] indices,
    const double[::1] values,
    const uint32_t[::1] namespaces,
) except -1:
    # The longest row, once it is sure that all of them lie within the arrays.
    cdef Py_ssize_t n = indptr.shape[0] - 1, nnz = indices.shape[0], i
    cdef int64_t longest = 0
    if n < 0 or values.shape[0] != nnz or namespaces.shape[0] != nnz:
        raise ValueError(
            f"features do not fit together: {indptr.shape[0]} row pointers, {nnz} indices, "
            f"{values.shape[0]} values, {namespaces.shape[0]} namespaces"
        )
    if indptr[0] < 0 or indptr[n] > nnz:
        raise ValueError(f"row pointers reach from {indptr[0]} to {indptr[n]}, but there are {nnz} entries")
    for i in range(n):
        if indptr[i + 1] < indptr[i]:
            raise ValueError(f"row pointers decrease at row {i}")
        longest = max(longest, indptr[i + 1] - indptr[i])
    if longest > 0xFFFFFFFF:
        raise ValueError("a row has more than 2^32 entries")
    return longest


# -------------------------------------------------------------------------------------- margins and predictions

cdef struct Margins:
    const float* weights
    size_t width  # floats between buckets
    size_t stride  # floats between classes
    Py_ssize_t n_classes
    double* out
    const double* totals  # of class 0, those of the next N_TOTALS further; NULL if weights are as stored


cdef void add_margins(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Margins* m = <Margins*> context
    cdef const float* weights
    cdef const double* totals
    cdef Py_ssize_t i, k
    if m.totals != NULL and m.n_classes == 1:
        m.out[0] += block_margin(m.weights, m.width, buckets, x, n, m.totals[CONTRACTION], m.totals[GRAVITY])
    elif m.totals != NULL:
        for i in range(n):
            weights = m.weights + buckets[i] * m.width
            totals = m.totals
            for k in range(m.n_classes):
                m.out[k] += effective(weights[k * m.stride], totals[CONTRACTION], totals[GRAVITY]) * x[i]
                totals += N_TOTALS
    elif m.n_classes == 1:
        m.out[0] += block_margin(m.weights, m.width, buckets, x, n)
    else:
        for i in range(n):
            weights = m.weights + buckets[i] * m.width
            for k in range(m.n_classes):
                m.out[k] += weights[k * m.stride] * x[i]


cdef struct Answer:
    int head
    int loss
    Py_ssize_t n_classes
    const double* limits  # lowest and highest margin of class 0, the next `limits_stride` further
    size_t limits_stride
    const uint8_t* sighted


cdef void soft_maximum(const Answer* a, const double* margins, double* out) noexcept nogil:
    cdef double largest = -FLOAT_MAX, total = 0.0, margin
    cdef Py_ssize_t k
    for k in range(a.n_classes):
        if a.sighted[k]:
            largest = max(largest, clamp(margins[k], a.limits[k * a.limits_stride], a.limits[k * a.limits_stride + 1]))
    for k in range(a.n_classes):
        out[k] = 0.0
        if a.sighted[k]:
            margin = clamp(margins[k], a.limits[k * a.limits_stride], a.limits[k * a.limits_stride + 1])
            out[k] = exp(margin - largest)
            total += out[k]
    for k in range(a.n_classes):
        if a.sighted[k]:
            out[k] /= total


cdef void answer(const Answer* a, const double* margins, double* out) noexcept nogil:
    # From margins to what `Task` promises.
    cdef Py_ssize_t k, n_sighted = 0
    cdef double p, total = 0.0
    if a.loss == SOFTMAX:
        soft_maximum(a, margins, out)
        return
    for k in range(a.n_classes):
        p = clamp(margins[k], a.limits[k * a.limits_stride], a.limits[k * a.limits_stride + 1])
        if a.head == REGRESSION:
            out[k] = exp(p) if a.loss == POISSON else p
        elif a.loss == SQUARED:
            out[k] = clamp(p, 0.0, 1.0)
        else:
            out[k] = sigmoid(p)
        if a.head == MULTICLASS:
            if a.sighted[k]:
                total += out[k]
                n_sighted += 1
            else:
                out[k] = 0.0
    if a.head == MULTICLASS:
        for k in range(a.n_classes):
            if a.sighted[k]:
                out[k] = out[k] / total if total > 0.0 else 1.0 / n_sighted


# ------------------------------------------------------------------------------------------------- the updates

cdef void probe_plain(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Probe* probe = <Probe*> context
    cdef Py_ssize_t i
    for i in range(n):
        probe.moved += x[i] * x[i]


cdef void measure_plain(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Update* c = <Update*> context
    cdef Py_ssize_t i
    for i in range(n):
        c.moved[0] += x[i] * x[i]


cdef void apply_plain(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Update* c = <Update*> context
    cdef Py_ssize_t i, k
    cdef float* bucket
    for i in range(n):
        c.touched.add(buckets[i])
        bucket = c.table + buckets[i] * c.width
        for k in range(c.n_classes):
            bucket[k] = finite(bucket[k] + c.change[k] * x[i])


cdef void apply_ftrl(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Update* c = <Update*> context
    cdef Py_ssize_t i, k
    cdef float* slot
    cdef double gradient, root, grown, z
    for i in range(n):
        c.touched.add(buckets[i])
        for k in range(c.n_classes):
            gradient = c.gradient[k] * x[i]
            if gradient == 0.0:
                continue
            slot = c.table + buckets[i] * c.width + k * c.stride
            root = sqrt(<double> slot[2])
            slot[2] = finite(slot[2] + gradient * gradient)
            grown = sqrt(<double> slot[2])
            slot[1] = finite(slot[1] + gradient - (grown - root) / c.alpha * slot[0])
            z = slot[1]
            if fabs(z) <= c.l1:
                slot[0] = 0.0
            else:
                slot[0] = finite((copysign(c.l1, z) - z) / (c.l2 + (c.beta + grown) / c.alpha))


cdef inline double bet(const Update* c, const float* slot, double largest, double lipschitz) noexcept nogil:
    cdef double scale = lipschitz * largest
    if not scale > 0.0:
        return 0.0
    return (c.alpha + slot[4]) / (scale * (scale + slot[2])) * slot[1]


cdef void measure_coin(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    # `moved` is the margin of the fresh bets; nothing is stored.
    cdef Update* c = <Update*> context
    cdef Py_ssize_t i, k
    cdef const float* slot
    cdef double largest, ratio
    for i in range(n):
        for k in range(c.n_classes):
            slot = c.table + buckets[i] * c.width + k * c.stride
            largest = max(<double> slot[3], fabs(x[i]))
            ratio = x[i] / largest
            c.norm[k] += ratio * ratio
            c.moved[k] += finite(bet(c, slot, largest, slot[5])) * x[i]


cdef void apply_coin(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept nogil:
    cdef Update* c = <Update*> context
    cdef Py_ssize_t i, k
    cdef float* slot
    cdef double size, gradient, weight
    for i in range(n):
        c.touched.add(buckets[i])
        for k in range(c.n_classes):
            if c.change[k] == 0.0:
                continue
            slot = c.table + buckets[i] * c.width + k * c.stride
            if fabs(x[i]) > slot[3]:
                slot[3] = <float> fabs(x[i])
            size = fabs(c.gradient[k])
            if size > slot[5]:
                slot[5] = finite(max(size, c.beta))
            weight = finite(bet(c, slot, slot[3], slot[5]))
            gradient = c.gradient[k] * x[i]
            slot[1] = finite(slot[1] - gradient)
            slot[2] = finite(slot[2] + fabs(gradient))
            slot[4] = finite(slot[4] - gradient * weight)
            slot[0] = finite(weight / c.change[k])


cdef class Linear:
    """The loop over events of a learner whose arrays somebody else owns (see `attach`).

    Parameters
    ----------
    head, loss, rule : str
        Keys of `HEADS`, `LOSSES` and `RULES`. The loss "softmax" is of a multiclass head.
    bits : int, 1..30
    constant : bool
        Whether every row gets a constant feature.
    interactions : sequence of sequences of 2 or 3 namespace names
        "*" is any namespace, "" the default one.
    invariant : bool
        Importance-aware closed-form steps instead of one gradient step (nag, adagrad, sgd).
    clipped : bool
        Whether margins of a loss other than logistic and Poisson stay in the range of the labels seen.
    learning_rate, power_t, l1, l2, alpha, beta, tau : float
    half_life : float
        In events; 0 for none.
    """

    cdef Plan plan
    cdef Walk walk
    cdef Update c
    cdef Hold hold
    cdef Margins margins
    cdef Answer answer
    cdef int rule
    cdef bint invariant, ranged
    cdef double learning_rate, tau
    cdef vector[double] scratch
    cdef double* odds  # e^-|margin| against the label, e^margin with it; of a logistic loss
    cdef float[::1] table
    cdef double[:, ::1] totals
    cdef uint8_t[::1] sighted
    cdef int64_t[::1] clock
    cdef uint64_t[::1] touched
    cdef float[::1] held
    cdef Entries spare

    def __init__(
        self, *, str head, str loss, str rule, int bits, bint constant, interactions, bint invariant,
        bint clipped, double learning_rate, double power_t, double l1, double l2, double alpha, double beta,
        double tau, double half_life,
    ):
        make_plan(&self.plan, bits, constant, interactions)
        self.answer.head = HEADS[head]
        self.answer.loss = LOSSES[loss]
        self.rule = RULES[rule]
        self.invariant = invariant
        self.ranged = clipped and self.answer.loss in (SQUARED, HINGE, QUANTILE)
        self.learning_rate = learning_rate
        self.tau = tau
        self.c.stride = stride_of(rule, half_life > 0.0)
        self.c.normalised = self.rule == NAG
        self.c.square_root = power_t == 0.5
        self.c.power_t = power_t
        self.c.half_life = half_life
        self.c.alpha = alpha
        self.c.beta = beta
        self.c.l1 = l1
        self.c.l2 = l2

    def attach(
        self, float[::1] table, double[:, ::1] totals, uint8_t[::1] sighted, int64_t[::1] clock,
        uint64_t[::1] touched,
    ):
        """Work on these arrays from now on, in place.

        Parameters
        ----------
        table : float32, shape (2^bits * capacity * stride,)
        totals : float64, shape (capacity, 7)
            One row a class, columns as in `TOTALS`.
        sighted : uint8, shape (capacity,)
        clock : int64, shape (1,)
            Events learned.
        touched : uint64, shape (touched_size(bits),)
            Which buckets were ever updated; see `find_touched` for a table that is not fresh.
        """
        cdef size_t capacity = totals.shape[0]
        if (
            capacity < 1
            or totals.shape[1] != N_TOTALS
            or <size_t> sighted.shape[0] != capacity
            or clock.shape[0] != 1
            or <size_t> touched.shape[0] != Touched.size(<size_t> self.plan.mask + 1)
            or <size_t> table.shape[0] != (<size_t> self.plan.mask + 1) * capacity * self.c.stride
        ):
            raise ValueError("table, totals, sighted, clock and touched do not fit together")
        self.scratch.resize(9 * capacity)
        self.hold.held = NULL
        self.table = table
        self.totals = totals
        self.sighted = sighted
        self.clock = clock
        self.touched = touched
        self.c.table = &table[0]
        self.c.touched.lie_in(&touched[0], <size_t> self.plan.mask + 1)
        self.c.width = capacity * self.c.stride
        self.c.gradient = self.scratch.data() + capacity
        self.c.square = self.scratch.data() + 2 * capacity
        self.c.norm = self.scratch.data() + 3 * capacity
        self.c.moved = self.scratch.data() + 4 * capacity
        self.c.change = self.scratch.data() + 5 * capacity
        self.odds = self.scratch.data() + 8 * capacity
        self.margins.weights = &table[0]
        self.margins.width = self.c.width
        self.margins.stride = self.c.stride
        self.margins.out = self.scratch.data()
        self.margins.totals = &totals[0, 0] if self.rule <= SGD and (self.c.l1 > 0.0 or self.c.l2 > 0.0) else NULL
        self.answer.limits = &totals[0, LOW]
        self.answer.limits_stride = N_TOTALS
        self.answer.sighted = &sighted[0]

    def attach_held(self, float[::1] held, double strength, double memory, int64_t every):
        """Hold weights to what they were, from now on, with these arrays; to be called after `attach`.

        Rules nag, adagrad and sgd, a loss with a second derivative, no l1 and no l2.

        Parameters
        ----------
        held : float32, shape (2^bits * capacity * 4,)
            See consolidation.hpp.
        strength, memory : float
        every : int
            Events learned between two anchors; 0: whenever `consolidate` is called.
        """
        cdef Py_ssize_t capacity
        self.check(0)
        capacity = self.totals.shape[0]
        if <size_t> held.shape[0] != (<size_t> self.plan.mask + 1) * <size_t> capacity * 4:
            raise ValueError("table and held do not fit together")
        if self.rule > SGD or self.answer.loss in (HINGE, QUANTILE) or self.c.l1 > 0.0 or self.c.l2 > 0.0:
            raise ValueError("this rule, loss and regularisation cannot be consolidated")
        self.held = held
        self.hold.held = <Held*> &held[0]
        self.hold.table = self.c.table
        self.hold.width = self.c.width
        self.hold.stride = self.c.stride
        self.hold.capacity = capacity
        self.hold.rated = self.rule != SGD
        self.hold.strength = strength
        self.hold.memory = memory
        self.hold.every = every
        self.hold.pace = self.scratch.data() + 6 * capacity
        self.hold.curvature = self.scratch.data() + 7 * capacity

    def consolidate(self, const float[::1] weights, Py_ssize_t n_classes):
        """Hold on to these weights, shape (2^bits * n_classes,), and of further classes to those of now."""
        self.check(n_classes)
        if self.hold.held == NULL:
            raise ValueError("attach what is held first")
        if <size_t> weights.shape[0] != (<size_t> self.plan.mask + 1) * <size_t> n_classes:
            raise ValueError(f"{self.plan.mask + 1} x {n_classes} weights do not fit {weights.shape[0]}")
        with nogil:
            consolidate(
                self.hold, <size_t> self.plan.mask + 1, &weights[0] if n_classes else NULL, n_classes
            )

    def run(
        self,
        const int64_t[::1] indptr,
        const uint32_t[::1] indices,
        const double[::1] values,
        const uint32_t[::1] namespaces,
        const double[::1] labels,
        const double[::1] weights,
        double[:, ::1] out,
        Py_ssize_t n_classes,
    ):
        """Predict every row into `out`, and learn it if there are labels; either may be None.

        Labels have been checked (`first_bad_label`); class numbers are below `n_classes`. A prediction
        fills the first `n_classes` columns of its row and leaves the rest alone.
        """
        cdef Py_ssize_t n = indptr.shape[0] - 1, i
        cdef bint learning = labels is not None, predicting = out is not None
        make_room(self.plan, self.walk, check_rows(indptr, indices, values, namespaces))
        self.check(n_classes)
        if learning and (labels.shape[0] != n or weights is None or weights.shape[0] != n):
            raise ValueError(f"there are {n} rows, but not as many labels and weights")
        if predicting and (out.shape[0] != n or out.shape[1] < n_classes):
            raise ValueError(f"{n} rows of {n_classes} predictions do not fit {out.shape[0]} x {out.shape[1]}")
        if learning and self.answer.head == MULTICLASS:
            for i in range(n):
                self.check_class(labels[i], weights[i])
        if n == 0:
            return
        with nogil:
            for i in range(n):
                self.walk.length = indptr[i + 1] - indptr[i]
                if self.walk.length:
                    self.walk.indices = &indices[indptr[i]]
                    self.walk.values = &values[indptr[i]]
                    self.walk.namespaces = &namespaces[indptr[i]]
                if i + AHEAD < n and indptr[i + AHEAD] < indptr[i + AHEAD + 1]:
                    announce(
                        self.plan, &indices[indptr[i + AHEAD]], indptr[i + AHEAD + 1] - indptr[i + AHEAD],
                        self.c.table, self.c.width,
                    )
                self.event(
                    labels[i] if learning else 0.0,
                    weights[i] if learning else 0.0,
                    &out[i, 0] if predicting and n_classes else NULL,
                )

    def run_one(self, row, double label, double weight, double[::1] out, Py_ssize_t n_classes):
        """As `run` for one dict; weight 0 learns nothing. Without `out` a scalar prediction is returned.

        Raises
        ------
        BadRecord
            If a value of the row cannot be a feature.
        """
        cdef Entries entries
        cdef double scalar = 0.0
        entries.take(self.spare)
        encode_into(row, entries)
        make_room(self.plan, self.walk, <Py_ssize_t> entries.size())
        self.check(n_classes)
        if self.answer.head == MULTICLASS:
            self.check_class(label, weight)
        if out is not None and out.shape[0] < n_classes:
            raise ValueError(f"{n_classes} predictions do not fit {out.shape[0]}")
        use(&self.walk, entries)
        if out is not None and n_classes:
            self.event(label, weight, &out[0])
        else:
            self.event(label, weight, &scalar if self.answer.head != MULTICLASS else NULL)
        self.spare.keep(entries, MAX_SPARE)
        return scalar

    def sensitivities(
        self,
        const int64_t[::1] indptr,
        const uint32_t[::1] indices,
        const double[::1] values,
        const uint32_t[::1] namespaces,
        double label,
        double[::1] out,
    ):
        """How far the margin of each row moves for one unit of step, if it were learned with `label`.

        This is Vowpal Wabbit's sensitivity: the learning rate times the norm of the row under the rates
        that its weights would have. Rules nag, adagrad and sgd, one output.
        """
        cdef Py_ssize_t n = indptr.shape[0] - 1, i
        cdef Probe probe
        cdef const double* totals
        cdef double p, d, h
        make_room(self.plan, self.walk, check_rows(indptr, indices, values, namespaces))
        self.check(1)
        if self.rule > SGD or self.answer.head == MULTICLASS:
            raise ValueError("sensitivities are of one output, learned by nag, adagrad or sgd")
        if out.shape[0] != n:
            raise ValueError(f"{n} sensitivities do not fit {out.shape[0]}")
        totals = &self.totals[0, 0]
        self.c.now = <uint32_t> self.clock[0]
        probe.c = &self.c
        with nogil:
            for i in range(n):
                self.walk.length = indptr[i + 1] - indptr[i]
                if self.walk.length:
                    self.walk.indices = &indices[indptr[i]]
                    self.walk.values = &values[indptr[i]]
                    self.walk.namespaces = &namespaces[indptr[i]]
                self.margins.out[0] = 0.0
                visit_row(self.plan, self.walk, add_margins, &self.margins)
                p = clamp(self.margins.out[0], totals[LOW], totals[HIGH])
                d = derivative(self.answer.loss, p, label, self.tau)
                probe.square = d * d
                probe.norm = probe.moved = 0.0
                h = self.learning_rate
                if self.rule == SGD:
                    visit_again(self.plan, self.walk, probe_plain, &probe)
                    h *= pow(totals[AGE] + 1.0, -self.c.power_t)
                else:
                    visit_again(self.plan, self.walk, probe_adaptive, &probe)
                if self.rule == NAG and totals[SUM_NORM] + probe.norm > 0.0:
                    h *= pow((totals[SUM_WEIGHT] + 1.0) / (totals[SUM_NORM] + probe.norm), 1.0 - self.c.power_t)
                out[i] = clamp(h * probe.moved, 0.0, FLOAT_MAX)

    def effective_weights(self, float[::1] out, Py_ssize_t n_classes):
        """Write what margins are computed with, shape (2^bits * n_classes,), wherever anything was ever updated."""
        cdef size_t n_buckets = <size_t> self.plan.mask + 1
        cdef Py_ssize_t k
        self.check(n_classes)
        if <size_t> out.shape[0] != n_buckets * <size_t> n_classes:
            raise ValueError(f"{n_buckets} x {n_classes} weights do not fit {out.shape[0]}")
        with nogil:
            for k in range(n_classes):
                freeze_weights(
                    self.c.table + k * self.c.stride, self.c.width, self.c.touched, n_buckets,
                    self.totals[k, CONTRACTION], self.totals[k, GRAVITY], &out[k], n_classes,
                )

    def copy_slots(self, float[::1] out, Py_ssize_t n_classes):
        """Copy the slots of the first classes, shape (2^bits * n_classes * stride,), that were ever updated."""
        cdef size_t n_buckets = <size_t> self.plan.mask + 1
        self.check(n_classes)
        if <size_t> out.shape[0] != n_buckets * <size_t> n_classes * self.c.stride:
            raise ValueError(f"{n_buckets} x {n_classes} slots do not fit {out.shape[0]}")
        if n_classes:
            with nogil:
                copy_touched(
                    self.c.table, self.c.width, <size_t> n_classes * self.c.stride, self.c.touched, n_buckets, &out[0]
                )

    def find_touched(self):
        """Look for what was ever updated, in a table that was filled by somebody else."""
        self.check(0)
        with nogil:
            find_touched(self.c.table, self.c.width, <size_t> self.plan.mask + 1, self.c.touched)

    cdef int check(self, Py_ssize_t n_classes) except -1:
        if self.c.table == NULL:
            raise ValueError("attach the arrays first")
        if not 0 <= n_classes <= self.totals.shape[0]:
            raise ValueError(f"there is no room for {n_classes} classes")
        self.c.n_classes = self.margins.n_classes = self.answer.n_classes = n_classes
        return 0

    cdef int check_class(self, double label, double weight) except -1:
        if weight > 0.0 and not 0.0 <= label < self.c.n_classes:
            raise ValueError(f"label {label} is not one of {self.c.n_classes} classes")
        return 0

    cdef void event(self, double label, double weight, double* out) noexcept nogil:
        cdef Py_ssize_t k
        for k in range(self.c.n_classes):
            self.margins.out[k] = 0.0
        visit_row(self.plan, self.walk, add_margins, &self.margins)
        if out != NULL:
            answer(&self.answer, self.margins.out, out)
        if weight > 0.0:
            self.learn(clamp(label, -LARGEST, LARGEST), min(weight, LARGEST))

    cdef void learn(self, double label, double weight) noexcept nogil:
        cdef Update* c = &self.c
        cdef Py_ssize_t k
        cdef double target
        self.clock[0] += 1
        c.now = <uint32_t> self.clock[0]
        if self.answer.head == MULTICLASS:
            self.sighted[<Py_ssize_t> label] = 1
        for k in range(c.n_classes):
            c.norm[k] = c.moved[k] = c.change[k] = c.square[k] = c.gradient[k] = 0.0
        if self.rule == COIN:
            self.place_bets(weight)
        if self.answer.loss == SOFTMAX:
            soft_maximum(&self.answer, self.margins.out, c.gradient)
        for k in range(c.n_classes):
            if not self.sighted[k]:
                continue
            target = label
            if self.answer.head == MULTICLASS:
                target = 1.0 if k == <Py_ssize_t> label else 0.0
            self.differentiate(k, target, weight)
        if self.rule <= SGD:
            self.descend(label, weight)
        elif self.rule == FTRL:
            visit_again(self.plan, self.walk, apply_ftrl, c)
        else:
            visit_again(self.plan, self.walk, apply_coin, c)

    cdef void place_bets(self, double weight) noexcept nogil:
        # Coin betting takes its gradient where the fresh bets would have put the margin.
        cdef Update* c = &self.c
        cdef double* totals
        cdef Py_ssize_t k
        visit_again(self.plan, self.walk, measure_coin, c)
        for k in range(c.n_classes):
            if self.sighted[k]:
                totals = &self.totals[k, 0]
                totals[SUM_NORM] += weight * c.norm[k]
                totals[SUM_WEIGHT] += weight
                c.change[k] = (totals[SUM_NORM] + 1e-6) / totals[SUM_WEIGHT]
                self.margins.out[k] = c.moved[k] / c.change[k]

    cdef void differentiate(self, Py_ssize_t k, double target, double weight) noexcept nogil:
        cdef double* totals = &self.totals[k, 0]
        cdef double seen = 2.0 * target - 1.0 if self.answer.loss == HINGE else target
        cdef double d
        if self.ranged:
            totals[LOW] = min(totals[LOW], seen)
            totals[HIGH] = max(totals[HIGH], seen)
        self.margins.out[k] = clamp(self.margins.out[k], totals[LOW], totals[HIGH])
        if self.answer.loss == SOFTMAX:
            d = self.c.gradient[k] - target
        elif self.answer.loss == LOGISTIC:
            self.odds[k] = exp(self.margins.out[k] if target > 0.0 else -self.margins.out[k])
            d = (-1.0 if target > 0.0 else 1.0) / (1.0 + self.odds[k])
        else:
            d = derivative(self.answer.loss, self.margins.out[k], target, self.tau)
        self.c.gradient[k] = d * weight if self.rule > SGD else d
        self.c.square[k] = weight * d * d
        if self.answer.loss == LOGISTIC and fabs(d) <= NEGLIGIBLE:
            self.c.square[k] = 0.0

    cdef void descend(self, double label, double weight) noexcept nogil:
        cdef Update* c = &self.c
        cdef Py_ssize_t k
        cdef double target
        c.may_wait = self.walk.whole and c.n_classes == 1
        if self.rule != SGD:
            visit_again(self.plan, self.walk, measure_adaptive, c)
        elif self.invariant or self.answer.loss == SOFTMAX:
            visit_again(self.plan, self.walk, measure_plain, c)
            for k in range(1, c.n_classes):
                c.moved[k] = c.moved[0]
        for k in range(c.n_classes):
            if not self.sighted[k]:
                continue
            if c.square[k] > 0.0:
                target = label
                if self.answer.head == MULTICLASS:
                    target = 1.0 if k == <Py_ssize_t> label else 0.0
                c.change[k] = self.choose_step(k, target, weight)
            self.totals[k, AGE] += weight
        visit_again(self.plan, self.walk, apply_plain if self.rule == SGD else apply_adaptive, c)
        if self.hold.held != NULL:
            self.hold_on(weight)
        for k in range(c.n_classes):
            if self.totals[k, CONTRACTION] < 1e-9 or self.totals[k, GRAVITY] > 1e3:
                self.materialise(k)

    cdef void hold_on(self, double weight) noexcept nogil:
        cdef Hold* hold = &self.hold
        cdef const double* gradient = self.c.gradient
        cdef Py_ssize_t k
        for k in range(self.c.n_classes):
            hold.pace[k] = 0.0
            if self.c.change[k] != 0.0:
                hold.pace[k] = -hold.strength * self.c.change[k] / gradient[k]
                hold.curvature[k] = curvature(self.answer.loss, self.margins.out[k], gradient[k])
        hold.n_classes = self.c.n_classes
        hold.weight = weight
        visit_again(self.plan, self.walk, hold_on, hold)
        if hold.every > 0 and self.clock[0] % hold.every == 0:
            consolidate(hold[0], <size_t> self.plan.mask + 1, NULL, 0)

    cdef double choose_step(self, Py_ssize_t k, double target, double weight) noexcept nogil:
        cdef Update* c = &self.c
        cdef double* totals = &self.totals[k, 0]
        cdef double h = self.learning_rate * weight, multiplier = 1.0, u, shrink
        if self.rule == SGD:
            h *= pow(totals[AGE] + weight, -c.power_t)
        elif self.rule == NAG:
            totals[SUM_NORM] += weight * c.norm[k]
            totals[SUM_WEIGHT] += weight
            if totals[SUM_NORM] > 0.0:
                multiplier = totals[SUM_WEIGHT] / totals[SUM_NORM]
                multiplier = sqrt(multiplier) if c.square_root else pow(multiplier, 1.0 - c.power_t)
            c.moved[k] *= multiplier
        if self.answer.loss == SOFTMAX:  # no closed form: never further than the margin's own linearisation
            u = -c.gradient[k] * (h if h * c.moved[k] <= 1.0 else 1.0 / c.moved[k])
        elif self.invariant and self.answer.loss == LOGISTIC:
            u = logistic_step(self.odds[k], fabs(c.gradient[k]), target, h, c.moved[k])
        elif self.invariant:
            u = step(self.answer.loss, self.margins.out[k], target, h, c.moved[k], self.tau)
        else:
            u = -h * c.gradient[k]
        if (c.l1 > 0.0 or c.l2 > 0.0) and fabs(u) > 1e-8:
            if fabs(c.gradient[k]) > 1e-8:
                shrink = -u / c.gradient[k]
                totals[CONTRACTION] *= max(1.0 - c.l2 * shrink, 1e-3)  # never past zero
                totals[GRAVITY] += min(c.l1 * shrink, FLOAT_MAX)
            u /= totals[CONTRACTION]
        return u * multiplier

    cdef void materialise(self, Py_ssize_t k) noexcept nogil:
        # Put contraction and gravity into the weights before they leave the range where they are accurate.
        cdef size_t bucket
        cdef float* slot
        for bucket in range(<size_t> self.plan.mask + 1):
            slot = self.c.table + bucket * self.c.width + k * self.c.stride
            slot[0] = effective(slot[0], self.totals[k, CONTRACTION], self.totals[k, GRAVITY])
        self.totals[k, CONTRACTION] = 1.0
        self.totals[k, GRAVITY] = 0.0


cdef class LinearModel:
    """Predictions from frozen weights. Nothing changes after construction: threads may share it.

    Parameters
    ----------
    weights : float32, shape (2^bits * n_classes,)
        Kept, not copied; may be read-only.
    limits : float64, shape (n_classes, 2)
        Lowest and highest margin of each class.
    sighted : uint8, shape (n_classes,)
    """

    cdef Plan plan
    cdef Answer answer
    cdef const float[::1] weights
    cdef const double[:, ::1] limits
    cdef const uint8_t[::1] sighted
    cdef Entries spare

    def __init__(
        self, *, str head, str loss, int bits, bint constant, interactions,
        const float[::1] weights, const double[:, ::1] limits, const uint8_t[::1] sighted,
    ):
        make_plan(&self.plan, bits, constant, interactions)
        cdef Py_ssize_t n_classes = limits.shape[0]
        if (
            limits.shape[1] != 2
            or sighted.shape[0] != n_classes
            or <size_t> weights.shape[0] != (<size_t> self.plan.mask + 1) * <size_t> n_classes
            or (HEADS[head] != MULTICLASS and n_classes != 1)
        ):
            raise ValueError("weights, limits and sighted do not fit together")
        self.weights = weights
        self.limits = limits
        self.sighted = sighted
        self.answer.head = HEADS[head]
        self.answer.loss = LOSSES[loss]
        self.answer.n_classes = n_classes
        if n_classes:
            self.answer.limits = &limits[0, 0]
            self.answer.limits_stride = 2
            self.answer.sighted = &sighted[0]

    def run(
        self,
        const int64_t[::1] indptr,
        const uint32_t[::1] indices,
        const double[::1] values,
        const uint32_t[::1] namespaces,
        double[:, ::1] out,
    ):
        """Predict every row into `out`, shape (n, n_classes)."""
        cdef Py_ssize_t n = indptr.shape[0] - 1, i
        cdef Walk walk
        cdef vector[double] margins
        make_room(self.plan, walk, check_rows(indptr, indices, values, namespaces))
        margins.resize(self.answer.n_classes)
        if out.shape[0] != n or out.shape[1] != self.answer.n_classes:
            raise ValueError(
                f"{n} rows of {self.answer.n_classes} predictions do not fit {out.shape[0]} x {out.shape[1]}"
            )
        if n == 0 or self.answer.n_classes == 0:
            return
        with nogil:
            for i in range(n):
                walk.length = indptr[i + 1] - indptr[i]
                if walk.length:
                    walk.indices = &indices[indptr[i]]
                    walk.values = &values[indptr[i]]
                    walk.namespaces = &namespaces[indptr[i]]
                if i + AHEAD < n and indptr[i + AHEAD] < indptr[i + AHEAD + 1]:
                    announce(
                        self.plan, &indices[indptr[i + AHEAD]], indptr[i + AHEAD + 1] - indptr[i + AHEAD],
                        &self.weights[0], self.answer.n_classes,
                    )
                self.predict_row(&walk, margins.data(), &out[i, 0])

    def run_one(self, row):
        """Predict one dict: a float of one output, or float64, shape (n_classes,), of a multiclass head.

        Raises
        ------
        BadRecord
            If a value of the row cannot be a feature.
        """
        cdef Walk walk
        cdef Entries entries
        cdef vector[double] margins
        cdef double[::1] view
        cdef double margin, scalar
        entries.take(self.spare)
        encode_into(row, entries)
        make_room(self.plan, walk, <Py_ssize_t> entries.size())
        use(&walk, entries)
        if self.answer.head != MULTICLASS:
            self.predict_row(&walk, &margin, &scalar)
            out = scalar
        else:
            out = np.zeros(self.answer.n_classes)
            if self.answer.n_classes:
                margins.resize(self.answer.n_classes)
                view = out
                self.predict_row(&walk, margins.data(), &view[0])
        self.spare.keep(entries, MAX_SPARE)
        return out

    cdef void predict_row(self, Walk* walk, double* margins, double* out) noexcept nogil:
        cdef Margins m
        cdef Py_ssize_t k
        m.weights = &self.weights[0]
        m.width = self.answer.n_classes
        m.stride = 1
        m.n_classes = self.answer.n_classes
        m.out = margins
        m.totals = NULL
        for k in range(m.n_classes):
            margins[k] = 0.0
        visit_row(self.plan, walk[0], add_margins, &m)
        answer(&self.answer, margins, out)


def touched_size(int bits):
    """Numbers that it takes to mark what was ever updated of 2^bits buckets: a bit for each of them comes first."""
    return Touched.size(<size_t> 1 << bits)


def stride_of(str rule, bint remembers_touch):
    """Floats in one slot."""
    if RULES[rule] in (NAG, ADAGRAD):
        return 8 if remembers_touch else 4
    return {SGD: 1, FTRL: 4, COIN: 8}[RULES[rule]]


def first_bad_label(const double[::1] labels, const double[::1] weights, double low, double high, bint whole):
    """Position of the first label outside ``low..high`` (or not whole), or weight not in ``0..inf``; -1 if none."""
    cdef Py_ssize_t i
    cdef double label
    if labels.shape[0] != weights.shape[0]:
        raise ValueError(f"{labels.shape[0]} labels but {weights.shape[0]} weights")
    for i in range(labels.shape[0]):
        label = labels[i]
        if not (low <= label <= high and 0.0 <= weights[i] <= 1.7976931348623157e308):
            return i
        if whole and label != <double> <int64_t> label:
            return i
    return -1


def loss_derivative(str loss, double p, double y, double tau=0.5):
    """Derivative of a loss by the margin `p`."""
    return derivative(LOSSES[loss], p, y, tau)


def loss_step(str loss, double p, double y, double h, double q, double tau=0.5):
    """The importance-aware step ``u``: the margin moves from `p` to ``p + u*q``."""
    return step(LOSSES[loss], p, y, h, q, tau)
