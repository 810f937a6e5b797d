"""Bayesian linear regression by exact rank-one updates, and the policies that decide by it.

A row is the posterior of one model (of an arm, or shared by all). With features x, weight w and reward r:

========== ==================================================== ===================================
array      meaning                                              update
========== ==================================================== ===================================
precision  A, as `packed` has it                                ``A += c x x'``
covariance P = A^-1, likewise                                   ``P -= c u u' / (1 + c q)``, u = Px
moment     b                                                    ``b += w r x``
mean       P b                                                  ``mean += u g / (1 + c q)``
ridge      what is left of the prior in each diagonal entry     see below
head       `HEAD`                                               counts, and the two of the noise
========== ==================================================== ===================================

where q = x'Px; c = w and g = w (r - x'mean) for a linear model; c = w h, h = max(p (1 - p), 1e-4), and
g = w (r - p) for a logistic one (an extended Kalman filter). Every `period` updates of a row, and whenever
rounding shows in a variance, P and the mean are taken anew from A and b by Cholesky's method.

Row 0 of arms is the prior, and never changes. Only the first `width` features of a row were ever seen by it;
the others are independent of them and at the prior, so that no event looks at more than it must.

With a discount g a row is worth ``g ** events`` less at its next update, the prior too, which alone would let
variances of silent directions grow without bound: with each update one entry of the diagonal, in turn, is
therefore filled up to what the prior had there.

A hybrid model keeps in `cross`, for each arm, the regressions W = P B of all shared features on its own ones.
What the arm cannot explain of the shared features, ``z - W'x``, then teaches the shared model with precision
``1 / (1 / w + q)``: the Schur complement of the whole system, one rank-one update.
"""

from libc.math cimport INFINITY, copysign, exp, fabs, fmax, fmin, pow, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from libcpp.algorithm cimport sort
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from penstock._native.chance cimport gamma, mix, normal, stream
from penstock._native.choice cimport PRIOR, RETIRED, eligible, histogram, settle, split_maximum
from penstock._native.packed cimport (
    LANES, PANEL, Bar, all_within, axpy, contenders, dense_dot, dense_form, dense_product, factor, fill_lane,
    invert, majorant, measure_panel, padded, rank_one, scale, sparse_form, sparse_product, sparse_rank_one, start,
)

cdef enum:
    UCB = 0
    NORMAL = 1
    NIG = 2

cdef enum:
    WIDTH = 0    # features seen
    LAST = 1     # value of the clock at the last update
    UPDATES = 2  # how many
    SHAPE = 3    # of the noise's inverse gamma distribution, beyond the prior
    SCALE = 4
    CURSOR = 5   # diagonal entry to be filled up next
    N_HEAD = 6

cdef enum:
    BLOCK = 16  # events whose contexts are gathered at a time; at most 32, a bit each

cdef enum:
    CLOCK = 0    # events learned
    DROPPED = 1  # features that found no room
    N_TOTALS = 2

cdef const uint32_t CONSTANT = 11650396  # Vowpal Wabbit's bucket of the constant feature
cdef const uint32_t FNV_PRIME = 16777619
cdef const uint64_t NOISE = 0x6E6F697365ULL  # the stream of a shared model's variances
cdef const double LARGEST_X = 1e9            # |x| beyond this counts as this: all sums stay finite
cdef const double LARGEST = 1e18             # of |reward| and weight
cdef const double FORGOTTEN = 1e-6           # a row of which less is left starts anew
cdef const double LEAST_CURVATURE = 1e-4     # of the logistic loss
cdef const double LARGEST_SQUARE = 1e18      # of x'x: beyond it some |x| may be too large
cdef const double LEAST_SQUARE = 1e-200      # below it what rounds may be larger than what is known

EXPLORE = {"ucb": UCB, "normal": NORMAL, "nig": NIG}
HEAD = ("width", "last", "updates", "shape", "scale", "cursor")
TOTALS = ("clock", "dropped")


# ---------------------------------------------------------------------------------------------- features

cdef uint64_t _n_indices = 0


cdef class FeatureIndex:
    """Hashes of features, numbered 0, 1, 2, … by first sighting, up to a limit."""

    cdef uint64_t serial  # no other index of this process has it
    cdef vector[uint32_t] order
    cdef vector[int32_t] table
    cdef uint32_t mask
    cdef readonly Py_ssize_t limit

    def __init__(self, Py_ssize_t limit, const uint32_t[::1] hashes=None):
        cdef uint32_t size = 8
        cdef Py_ssize_t i
        if not 1 <= limit <= 1 << 20:
            raise ValueError(f"limit must be in 1..{1 << 20}, got {limit}")
        global _n_indices
        _n_indices += 1
        self.serial = _n_indices
        while size < 4 * limit:
            size *= 2
        self.limit = limit
        self.mask = size - 1
        self.table.assign(size, -1)
        if hashes is not None:
            if hashes.shape[0] > limit:
                raise ValueError(f"{hashes.shape[0]} features are more than {limit}")
            for i in range(hashes.shape[0]):
                if self.find(hashes[i]) >= 0:
                    raise ValueError(f"feature {hashes[i]} is there twice")
                self.add(hashes[i])

    def __len__(self):
        return self.order.size()

    def fill(self, uint32_t[::1] out):
        """Write the hashes, in their order."""
        cdef Py_ssize_t i
        if out.shape[0] != <Py_ssize_t>self.order.size():
            raise ValueError(f"{self.order.size()} features need as much room")
        for i in range(out.shape[0]):
            out[i] = self.order[i]

    def copy(self):
        """Return an index that shares nothing with this one."""
        cdef FeatureIndex twin = FeatureIndex(self.limit)
        twin.order = self.order
        twin.table = self.table
        return twin

    cdef int32_t find(self, uint32_t feature) noexcept nogil:
        """Return the feature's number, -1 where it has none."""
        return self.table[self.place_of(feature)]

    cdef uint32_t place_of(self, uint32_t feature) noexcept nogil:
        cdef uint32_t at = (feature * 2654435769U) & self.mask
        while self.table[at] >= 0 and self.order[self.table[at]] != feature:
            at = (at + 1) & self.mask
        return at

    cdef void add(self, uint32_t feature) noexcept nogil:
        self.table[self.place_of(feature)] = <int32_t>self.order.size()
        self.order.push_back(feature)


cdef cppclass Vector:
    # A sparse vector, ascending; dense if its entries are 0, 1, …, n - 1, and then padded with zeros.
    vector[int32_t] at
    vector[double] x
    bint dense
    double square        # sum of x²
    Py_ssize_t dropped   # features that found no room

    __init__():
        this.dense = False
        this.square = 0.0
        this.dropped = 0


cdef struct Matrix:
    # Features as in `penstock.events.Features`.
    const int64_t* indptr
    const uint32_t* indices
    const double* values
    Py_ssize_t size  # of the last two


cdef struct Layout:
    # Which features a row has, and how many are known now.
    const uint32_t* first
    const uint32_t* second
    Py_ssize_t n_first
    Py_ssize_t n_second
    Py_ssize_t known


cdef cppclass Gatherer:
    # From hashes to a vector. Features nobody knows yet get the next numbers, for this event only.
    vector[uint32_t] fresh
    vector[int32_t] table   # finds them, as the index's own table does
    vector[uint32_t] taken  # places in it
    vector[int32_t] place   # of each feature in the vector that is being gathered
    vector[pair[int32_t, double]] pairs
    Py_ssize_t dropped
    # A row with the same features as the one before needs new values only: entry e goes to rank[e].
    vector[int32_t] numbers
    vector[int32_t] rank
    vector[uint32_t] first
    vector[uint32_t] second
    Py_ssize_t known
    Py_ssize_t entry
    uint64_t serial  # of the index
    bint replays
    bint replayable
    bint straight           # entry e goes to e

    __init__():
        this.dropped = this.entry = this.known = 0
        this.serial = 0
        this.replays = this.replayable = this.straight = False


cdef void prepare(Gatherer* g, FeatureIndex index) noexcept:
    if g.serial == index.serial:
        return
    g.serial = index.serial
    g.replayable = False
    g.taken.clear()
    g.place.assign(index.limit, -1)
    g.table.assign(index.table.size(), -1)


cdef inline bint same(const uint32_t* a, const uint32_t* b, Py_ssize_t n) noexcept nogil:
    # memcmp may look at a null pointer for nothing, which takes processors as long as a hundred comparisons.
    return n == 0 or memcmp(a, b, n * sizeof(uint32_t)) == 0


cdef inline bint begin(Gatherer* g, Vector* v, const Layout* layout) noexcept nogil:
    """Start a row; returns whether its features are those of the row before."""
    g.replays = (
        g.replayable
        and g.known == layout.known
        and <Py_ssize_t>g.first.size() == layout.n_first
        and <Py_ssize_t>g.second.size() == layout.n_second
        and same(g.first.data(), layout.first, layout.n_first)
        and same(g.second.data(), layout.second, layout.n_second)
    )
    g.entry = 0
    if not g.replays:
        g.known = layout.known
        g.first.assign(layout.first, layout.first + layout.n_first)
        g.second.assign(layout.second, layout.second + layout.n_second)
        g.replayable = True
        g.numbers.clear()
        forget_fresh(g)
        v.at.clear()
        v.x.clear()
    return g.replays


cdef inline void forget_fresh(Gatherer* g) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(<Py_ssize_t>g.taken.size()):
        g.table[g.taken[i]] = -1
    g.taken.clear()
    g.fresh.clear()
    g.dropped = 0


cdef void put(FeatureIndex index, Gatherer* g, Vector* v, uint32_t feature, double value) noexcept nogil:
    cdef int32_t at
    cdef Py_ssize_t known = index.order.size()
    cdef uint32_t place
    if not fabs(value) <= LARGEST_X:
        value = copysign(LARGEST_X, value)
    if g.replays:
        at = g.rank[g.entry]
        g.entry += 1
        if at >= 0:
            v.x[at] = value
        return
    at = index.find(feature)
    if at < 0:
        g.replayable = g.replayable and known >= index.limit
        place = (feature * 2654435769U) & index.mask
        while g.table[place] >= 0 and g.fresh[g.table[place]] != feature:
            place = (place + 1) & index.mask
        if g.table[place] < 0:
            if known + <Py_ssize_t>g.fresh.size() >= index.limit:
                g.dropped += 1
                g.numbers.push_back(-1)
                return
            g.table[place] = <int32_t>g.fresh.size()
            g.taken.push_back(place)
            g.fresh.push_back(feature)
        at = <int32_t>(known + g.table[place])
    if g.place[at] >= 0:
        g.replayable = False
        value += v.x[g.place[at]]
        v.x[g.place[at]] = value if fabs(value) <= LARGEST_X else copysign(LARGEST_X, value)
        return
    g.place[at] = <int32_t>v.at.size()
    g.numbers.push_back(at)
    v.at.push_back(at)
    v.x.push_back(value)


cdef void put_row(FeatureIndex index, Gatherer* g, Vector* v, const Matrix* matrix, Py_ssize_t i) noexcept nogil:
    cdef Py_ssize_t low = matrix.indptr[i], n = matrix.indptr[i + 1] - low, e
    cdef const double* values = matrix.values + low
    if g.replays and g.straight and all_within(values, n, LARGEST_X):
        memcpy(v.x.data() + g.entry, values, n * sizeof(double))
        g.entry += n
        return
    for e in range(n):
        put(index, g, v, matrix.indices[low + e], values[e])


cdef bint alike(const Gatherer* g, const Matrix* matrix, Py_ssize_t i) noexcept nogil:
    """Whether rows i to i + LANES - 1 have the features of the row gathered last, each in its own place; and
    whether LANES values more can be read, as `contenders` does."""
    cdef Py_ssize_t low = matrix.indptr[i], n = g.second.size(), l
    if not (n and g.replayable and g.straight and low + LANES * (n + 1) <= matrix.size):
        return False
    for l in range(1, LANES + 1):
        if matrix.indptr[i + l] != low + l * n:
            return False
    return (
        same(g.second.data(), matrix.indices + low, n)
        and same(matrix.indices + low, matrix.indices + low + n, (LANES - 1) * n)
    )


cdef void finish(Gatherer* g, Vector* v) noexcept nogil:
    """Bring the entries into ascending order, and remember where each went."""
    cdef Py_ssize_t i, n = v.at.size()
    cdef bint ascends = True
    v.dropped = g.dropped
    if not g.replays:
        for i in range(1, n):
            ascends = ascends and v.at[i - 1] < v.at[i]
        if not ascends:
            g.pairs.clear()
            for i in range(n):
                g.pairs.push_back(pair[int32_t, double](v.at[i], v.x[i]))
            sort(g.pairs.begin(), g.pairs.end())
            for i in range(n):
                v.at[i] = g.pairs[i].first
                v.x[i] = g.pairs[i].second
        for i in range(n):
            g.place[v.at[i]] = <int32_t>i
        g.rank.resize(g.numbers.size())
        g.straight = True
        for i in range(<Py_ssize_t>g.numbers.size()):
            g.rank[i] = -1
            if g.numbers[i] >= 0:
                g.rank[i] = g.place[g.numbers[i]]
            g.straight = g.straight and g.rank[i] == i
        for i in range(n):
            g.place[v.at[i]] = -1
        v.dense = n > 0 and v.at[n - 1] == n - 1
        if v.dense:
            v.x.resize(padded(n))  # with zeros
    if v.dense:
        v.square = dense_dot(v.x.data(), v.x.data(), n)
        return
    v.square = 0.0
    for i in range(n):
        v.square += v.x[i] * v.x[i]


cdef int bind_features(Matrix* matrix, const int64_t[::1] indptr, const uint32_t[::1] indices,
                       const double[::1] values, Py_ssize_t rows) except -1:
    cdef Py_ssize_t i
    if indptr.shape[0] != rows + 1 or indices.shape[0] != values.shape[0]:
        raise ValueError(f"features of {rows} rows, got {indptr.shape[0] - 1}")
    if indptr[0] < 0 or indptr[rows] > indices.shape[0]:
        raise ValueError("features end before their last row")
    for i in range(rows):
        if indptr[i] > indptr[i + 1]:
            raise ValueError(f"features of row {i} end before they start")
    matrix.indptr = &indptr[0]
    matrix.indices = &indices[0] if indices.shape[0] else NULL
    matrix.values = &values[0] if values.shape[0] else NULL
    matrix.size = values.shape[0]
    return 0


# ---------------------------------------------------------------------------------------------- one posterior

cdef struct Bank:
    # Rows of posteriors, one below the other.
    double* covariance
    double* mean
    double* head
    double* precision  # the last three are needed for learning only
    double* moment
    double* ridge
    Py_ssize_t rows
    Py_ssize_t capacity  # features
    Py_ssize_t size      # entries of a matrix

cdef struct Row:
    double* covariance
    double* mean
    double* head
    double* precision
    double* moment
    double* ridge


cdef inline Row row_of(const Bank* bank, Py_ssize_t i) noexcept nogil:
    cdef Row row
    row.covariance = bank.covariance + i * bank.size
    row.mean = bank.mean + i * bank.capacity
    row.head = bank.head + i * N_HEAD
    if bank.precision != NULL:
        row.precision = bank.precision + i * bank.size
        row.moment = bank.moment + i * bank.capacity
        row.ridge = bank.ridge + i * bank.capacity
    return row


cdef class Posteriors:
    """Arrays of posteriors, one a row, checked once for all the calls that they are passed with.

    Parameters
    ----------
    arrays : tuple of arrays
        Covariance, mean and head, which may be read-only; for learning precision, moment and ridge too.
    diagonal : bool

    Raises
    ------
    ValueError
        If they do not fit one another.
    """

    cdef Bank bank
    cdef bint diagonal
    cdef const double[:, ::1] covariance, mean, head  # held here, the arrays stay where they are
    cdef double[:, ::1] precision, moment, ridge

    def __init__(self, tuple arrays, bint diagonal):
        cdef Bank* bank = &self.bank
        cdef double[:, ::1] writable
        cdef Py_ssize_t i
        self.diagonal = diagonal
        self.covariance, self.mean, self.head = arrays[0], arrays[1], arrays[2]
        bank.rows, bank.capacity, bank.size = self.mean.shape[0], self.mean.shape[1], self.covariance.shape[1]
        if bank.rows < 1 or bank.capacity < 1:
            raise ValueError("no row, or no feature")
        if bank.size != (bank.capacity if diagonal else start(bank.capacity)):
            raise ValueError("matrices do not fit the means")
        if self.covariance.shape[0] != bank.rows or self.head.shape[0] != bank.rows or self.head.shape[1] != N_HEAD:
            raise ValueError("matrices and heads do not fit the means")
        bank.covariance = <double*>&self.covariance[0, 0]
        bank.mean = <double*>&self.mean[0, 0]
        bank.head = <double*>&self.head[0, 0]
        bank.precision = bank.moment = bank.ridge = NULL
        for i in range(bank.rows):
            if not 0 <= bank.head[i * N_HEAD + WIDTH] <= bank.capacity:
                raise ValueError(f"row {i} is wider than its matrix")
            if not 0 <= bank.head[i * N_HEAD + CURSOR] <= bank.capacity:
                raise ValueError(f"the cursor of row {i} lies outside")
        if len(arrays) == 3:
            return
        for array in arrays[:3]:
            writable = array
        self.precision, self.moment, self.ridge = arrays[3], arrays[4], arrays[5]
        if self.precision.shape[0] != bank.rows or self.precision.shape[1] != bank.size:
            raise ValueError("precisions do not fit the covariances")
        if self.moment.shape[0] != bank.rows or self.moment.shape[1] != bank.capacity:
            raise ValueError("moments do not fit the means")
        if self.ridge.shape[0] != bank.rows or self.ridge.shape[1] != bank.capacity:
            raise ValueError("ridges do not fit the means")
        bank.precision = &self.precision[0, 0]
        bank.moment = &self.moment[0, 0]
        bank.ridge = &self.ridge[0, 0]


cdef inline Py_ssize_t within(const Vector* v, Py_ssize_t width) noexcept nogil:
    """How many entries of `v` lie below `width`."""
    cdef Py_ssize_t n = v.at.size()
    if v.dense:
        return min(n, width)
    while n > 0 and v.at[n - 1] >= width:
        n -= 1
    return n


cdef double mean_of(const Row* row, const Vector* v, Py_ssize_t n) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t i
    if v.dense:
        return dense_dot(row.mean, v.x.data(), n)
    for i in range(n):
        total += row.mean[v.at[i]] * v.x[i]
    return total


cdef struct Noise:
    # Parameters of the normal-inverse-gamma prior.
    double shape
    double scale


# ---------------------------------------------------------------------------------------------- a call

cdef struct Measure:
    double mean
    double form


cdef struct Belief:
    double mean
    double variance
    double shape
    double scale


cdef cppclass Panel:
    # Actions whose measures by one model are taken together.
    vector[double] memory
    double* x                # as in `packed`; starts a line of the processor's cache
    Py_ssize_t lanes         # how many there are
    vector[double] weights   # the variance of x is not above the sum of weight * x²
    Bar bar                  # `best` is the largest bound found yet in this event
    bint lined_up            # the bar is that of actions like the one gathered last, whose own features have
    double* own_scales       # the roots of these weights, and these means divided by them
    double* own_means
    vector[Py_ssize_t] actions
    vector[double] means
    vector[double] forms
    vector[double] squares

    __init__():
        this.lanes = 0
        this.x = this.own_scales = this.own_means = NULL
        this.lined_up = False
        this.actions.resize(PANEL)
        this.means.resize(PANEL)
        this.forms.resize(PANEL)
        this.squares.resize(PANEL)


cdef void reserve(Panel* panel, Py_ssize_t features) noexcept:
    cdef Py_ssize_t row = padded(features)
    panel.memory.resize(features * PANEL + 2 * row + LANES)
    panel.x = <double*>((<size_t>panel.memory.data() + 63) & ~<size_t>63)
    panel.own_scales = panel.x + features * PANEL
    panel.own_means = panel.own_scales + row


cdef void place(
    Panel* panel, const Vector* v, const double* row, Py_ssize_t n, Py_ssize_t d, Py_ssize_t action
) noexcept nogil:
    """Put a vector of at most d features into the next lane: `v`, but for its end, the n numbers of `row`."""
    cdef double* x = panel.x + panel.lanes
    cdef Py_ssize_t end = v.at.size(), i
    for i in range(end - n):
        x[PANEL * i] = v.x[i]
    fill_lane(row, n, LARGEST_X, x + PANEL * (end - n))
    for i in range(end, d):
        x[PANEL * i] = 0.0
    panel.actions[panel.lanes] = action
    panel.lanes += 1


cdef cppclass Run:
    # One call: where everything is, and room to work in.
    bint learns
    bint predicts
    Py_ssize_t n
    Bank own
    Bank common
    double* cross    # W of each arm: (rows, own.capacity, common.capacity)
    double* moments  # B
    double* totals
    void* own_index
    void* common_index
    const int64_t* starts
    const int64_t* slots
    const uint64_t* hashes
    const uint64_t* keys
    const int64_t* chosen
    const double* rewards
    const double* weights
    double* out
    Matrix contexts
    Matrix actions
    Gatherer own_gather
    Gatherer common_gather
    Vector x
    Vector z
    Vector rest
    Panel panel
    const Vector* at_hand          # features of the event's context
    vector[Vector] block           # of the events from `block_start` to `block_end`
    Py_ssize_t block_start
    Py_ssize_t block_end
    vector[uint32_t] offered       # of each row a bit an event of the block: whether it is asked for,
    vector[uint32_t] learned       # whether it learns,
    vector[uint32_t] measured      # and whether its measure is there
    vector[Measure] measures       # (events, rows)
    vector[double] index
    vector[double] samples
    vector[double] room
    vector[double] product
    vector[double] column
    vector[double] fresh_mean
    vector[double] factor
    vector[double] normals  # (features, draws)
    vector[double] deviations
    Py_ssize_t n_normals
    double factored  # value of the clock when `factor` was taken
    double gain
    bint renewed

    __init__():
        this.learns = this.predicts = this.renewed = False
        this.n = this.n_normals = 0
        this.gain = 0.0
        this.factored = -1.0
        this.at_hand = NULL
        this.block.resize(BLOCK)
        this.block_start = this.block_end = 0


cdef class Workspace:
    # Kept from call to call, so that a call for one event allocates nothing.
    cdef Run run


# ---------------------------------------------------------------------------------------------- the model

cdef class Model:
    """How posteriors are learned and explored; what they know is the caller's, and passed with every call.

    Parameters
    ----------
    explore : {"ucb", "normal", "nig"}
        Upper confidence bound; samples of a normal posterior; of a normal-inverse-gamma one.
    width : float
        Standard deviations above the mean, or by which the normal posterior is widened.
    l2 : float
        Precision of the prior.
    shape, scale : float
        Of the prior of the noise ("nig").
    logistic, diagonal : bool
    shared, hybrid : bool
        One model for all actions; or one an arm and a shared one.
    intercept, crosses : bool
    discount, floor : float
    draws, period, seed : int
    """

    cdef int explore
    cdef double width, l2, shape, scale, discount, floor
    cdef bint logistic, diagonal, shared, hybrid, intercept, crosses
    cdef Py_ssize_t draws, period
    cdef uint64_t seed
    cdef Workspace spare

    def __init__(
        self,
        *,
        explore,
        double width=1.0,
        double l2=1.0,
        double shape=1.0,
        double scale=1.0,
        bint logistic=False,
        bint diagonal=False,
        bint shared=False,
        bint hybrid=False,
        bint intercept=True,
        bint crosses=True,
        double discount=1.0,
        double floor=0.0,
        Py_ssize_t draws=1,
        Py_ssize_t period=1000,
        seed=0,
    ):
        if hybrid and (shared or diagonal or discount < 1.0 or EXPLORE[explore] != UCB):
            raise ValueError("a hybrid model is explored by upper confidence bounds, and forgets nothing")
        if not l2 > 0.0:
            raise ValueError(f"l2 must be > 0, got {l2}")
        self.explore = EXPLORE[explore]
        self.width, self.l2, self.shape, self.scale = width, l2, shape, scale
        self.logistic, self.diagonal = logistic, diagonal
        self.shared, self.hybrid = shared, hybrid
        self.intercept, self.crosses = intercept, crosses
        self.discount, self.floor = discount, floor
        self.draws, self.period = max(draws, 1), max(period, 1)
        self.seed = seed & 0xFFFFFFFFFFFFFFFF

    # ------------------------------------------------------------------------------------------ entrances

    def decide(
        self, Posteriors own, Posteriors common, const double[:, :, ::1] cross, FeatureIndex own_index,
        FeatureIndex common_index, const double[::1] totals, const int64_t[::1] starts, const int64_t[::1] slots,
        const uint64_t[::1] hashes, const uint64_t[::1] keys, tuple contexts, tuple actions, double[::1] out,
    ):
        """Give the distribution of every event into `out`; read-only arrays will do."""
        cdef Workspace space = self.take_workspace()
        cdef Run* run = &space.run
        run.learns = False
        run.predicts = True
        run.totals = <double*>&totals[0]
        self.bind_posteriors(run, own, common, False)
        run.cross = run.moments = NULL
        if self.hybrid:
            check_cross(run, cross.shape[0], cross.shape[1], cross.shape[2])
            run.cross = <double*>&cross[0, 0, 0]
        self.bind(run, own_index, common_index, totals.shape[0], starts, slots, hashes, keys, contexts, actions,
                  out)
        self.loop(run, 0)
        self.spare = space

    def run(
        self, Posteriors own, Posteriors common, double[:, :, ::1] cross, double[:, :, ::1] moments,
        FeatureIndex own_index, FeatureIndex common_index, double[::1] totals, const int64_t[::1] starts,
        const int64_t[::1] slots, const uint64_t[::1] hashes, const uint64_t[::1] keys, tuple contexts,
        tuple actions, const int64_t[::1] chosen, const double[::1] rewards, const double[::1] weights,
        double[::1] out, Py_ssize_t first,
    ):
        """Learn events from `first` on, after giving their distributions into `out` if there is one.

        Returns
        -------
        int
            How many events are done. If that is not all, the next one brings a feature for which the
            matrices have no room: enlarge them, and call again.
        """
        cdef Workspace space = self.take_workspace()
        cdef Run* run = &space.run
        cdef Py_ssize_t i, n = starts.shape[0] - 1, done
        run.learns = True
        run.predicts = out is not None
        run.totals = &totals[0]
        self.bind_posteriors(run, own, common, True)
        run.cross = run.moments = NULL
        if self.hybrid:
            check_cross(run, cross.shape[0], cross.shape[1], cross.shape[2])
            check_cross(run, moments.shape[0], moments.shape[1], moments.shape[2])
            run.cross = &cross[0, 0, 0]
            run.moments = &moments[0, 0, 0]
        if not (chosen.shape[0] == rewards.shape[0] == weights.shape[0] == n) or not 0 <= first <= n:
            raise ValueError("one choice, reward and weight an event")
        self.bind(run, own_index, common_index, totals.shape[0], starts, slots, hashes, keys, contexts, actions,
                  out)
        for i in range(n):
            if not 0 <= chosen[i] < starts[i + 1] - starts[i]:
                raise ValueError(f"event {i} chose what it did not offer")
        run.chosen = &chosen[0] if n else NULL
        run.rewards = &rewards[0] if n else NULL
        run.weights = &weights[0] if n else NULL
        done = self.loop(run, first)
        self.spare = space
        return done

    cdef Workspace take_workspace(self):
        """Room to work in, which no other thread has now; it comes back as `spare` if all went well."""
        cdef Workspace space = self.spare
        self.spare = None
        if space is None:
            space = Workspace()
        space.run.factored = -1.0
        space.run.block_end = 0
        return space

    cdef int bind_posteriors(self, Run* run, Posteriors own, Posteriors common, bint live) except -1:
        cdef bint readonly = False
        if not self.shared:
            if own is None or own.diagonal != self.diagonal:
                raise ValueError("models of arms need posteriors of their kind")
            run.own = own.bank
            readonly = own.bank.precision == NULL
        if self.shared or self.hybrid:
            if common is None or common.diagonal != self.diagonal:
                raise ValueError("a shared model needs posteriors of its kind")
            run.common = common.bank
            readonly = readonly or common.bank.precision == NULL
        if readonly and live:
            raise ValueError("what is read-only cannot be learned")
        return 0

    cdef int bind(
        self, Run* run, FeatureIndex own_index, FeatureIndex common_index, Py_ssize_t n_totals,
        const int64_t[::1] starts, const int64_t[::1] slots, const uint64_t[::1] hashes,
        const uint64_t[::1] keys, tuple contexts, tuple actions, double[::1] out,
    ) except -1:
        """Check everything that the loop will touch, and point at it."""
        cdef Py_ssize_t n = starts.shape[0] - 1, m = slots.shape[0], i, widest = 0, n_samples
        if n_totals != N_TOTALS:
            raise ValueError("totals do not fit")
        cdef bint draws = run.predicts and self.explore != UCB
        if draws and (keys is None or keys.shape[0] != n):
            raise ValueError("one key an event")
        if draws and not self.shared and (hashes is None or hashes.shape[0] != m):
            raise ValueError("one hash an offered arm")
        if run.predicts and out.shape[0] != m:
            raise ValueError("one probability an offered arm")
        for i in range(n):
            if starts[i] < 0 or starts[i + 1] <= starts[i] or starts[i + 1] > m:
                raise ValueError(f"event {i} does not fit the offered arms")
            widest = max(widest, starts[i + 1] - starts[i])
        for i in range(m):
            if slots[i] < RETIRED or (not self.shared and slots[i] >= run.own.rows):
                raise ValueError(f"no slot {slots[i]}")
        if own_index is None or common_index is None:
            raise ValueError("features need an index")
        run.own_index, run.common_index = <void*>own_index, <void*>common_index
        bind_features(&run.contexts, contexts[0], contexts[1], contexts[2], n)
        if self.shared or self.hybrid:
            bind_features(&run.actions, actions[0], actions[1], actions[2], m)
        run.n = n
        run.starts = &starts[0]
        run.slots = &slots[0] if m else NULL
        run.hashes = &hashes[0] if draws and not self.shared and m else NULL
        run.keys = &keys[0] if draws and n else NULL
        run.out = &out[0] if run.predicts and m else NULL
        run.index.resize(widest)
        n_samples = self.draws if draws else 0
        run.samples.resize(widest * n_samples)
        run.room.resize(2 * n_samples)
        prepare(&run.own_gather, own_index)
        prepare(&run.common_gather, common_index)
        run.product.resize(padded(max(own_index.limit, common_index.limit)))
        if self.shared and n_samples:
            run.normals.resize(common_index.limit * n_samples)
        if self.shared and run.predicts:
            reserve(&run.panel, run.common.capacity)
        return 0

    # ------------------------------------------------------------------------------------------ the loop

    cdef Py_ssize_t loop(self, Run* run, Py_ssize_t first):
        cdef Py_ssize_t i, low, k, j, done = run.n
        cdef FeatureIndex own_index = <FeatureIndex>run.own_index
        cdef FeatureIndex common_index = <FeatureIndex>run.common_index
        cdef bint learns
        with nogil:
            for i in range(first, run.n):
                low = run.starts[i]
                k = run.starts[i + 1] - low
                if i < run.block_end:
                    run.at_hand = &run.block[i - run.block_start]
                elif self.hybrid or not run.predicts and not self.shared:
                    self.gather_own(run, own_index, i)
                elif not self.shared:
                    self.gather_block(run, own_index, i)
                if run.predicts:
                    self.distribute(run, common_index, i, low, k)
                if not run.learns or not run.weights[i] > 0.0:
                    continue
                j = low + run.chosen[i]
                if run.slots[j] == RETIRED or (not self.shared and run.slots[j] == PRIOR):
                    continue
                if self.shared or self.hybrid:
                    self.gather_common(run, common_index, i, j)
                if not self.shared and reaches(run.at_hand) > run.own.capacity:
                    done = i
                    break
                if (self.shared or self.hybrid) and reaches(&run.z) > run.common.capacity:
                    done = i
                    break
                if not self.shared and i >= run.block_end:
                    for j in range(<Py_ssize_t>run.own_gather.fresh.size()):
                        own_index.add(run.own_gather.fresh[j])
                if self.shared or self.hybrid:
                    for j in range(<Py_ssize_t>run.common_gather.fresh.size()):
                        common_index.add(run.common_gather.fresh[j])
                if not self.shared:
                    run.totals[DROPPED] += <double>run.at_hand.dropped
                if self.shared or self.hybrid:
                    run.totals[DROPPED] += <double>run.z.dropped
                run.totals[CLOCK] += 1.0
                self.absorb(
                    run,
                    run.slots[low + run.chosen[i]],
                    fmin(run.weights[i], LARGEST),
                    fmin(fmax(run.rewards[i], -LARGEST), LARGEST),
                )
        return done

    cdef void gather_own(self, Run* run, FeatureIndex index, Py_ssize_t i) noexcept nogil:
        cdef Layout layout = Layout(
            run.contexts.indices + run.contexts.indptr[i], NULL,
            run.contexts.indptr[i + 1] - run.contexts.indptr[i], 0, index.order.size(),
        )
        begin(&run.own_gather, &run.x, &layout)
        if self.intercept:
            put(index, &run.own_gather, &run.x, CONSTANT, 1.0)
        put_row(index, &run.own_gather, &run.x, &run.contexts, i)
        finish(&run.own_gather, &run.x)
        run.at_hand = &run.x

    cdef void gather_block(self, Run* run, FeatureIndex index, Py_ssize_t first) noexcept nogil:
        """Gather the contexts from event `first` on, until one has a feature that is new.

        Their arms are then measured model by model, not event by event: in between two of its updates a
        model is read once for all events of the block.
        """
        cdef Py_ssize_t i, j, slot, b
        cdef uint32_t bit
        run.block_start = run.block_end = first
        for i in range(first, min(first + BLOCK, run.n)):
            self.gather_own(run, index, i)
            if run.own_gather.fresh.size():
                break
            run.block[i - first] = run.x
            run.block_end = i + 1
        if run.block_end <= first + 1:  # one alone is measured as it comes
            run.block_end = first
            if i > first:  # the one after it was looked at too
                self.gather_own(run, index, first)
            return
        run.offered.assign(run.own.rows, 0)
        run.learned.assign(run.own.rows, 0)
        run.measured.assign(run.own.rows, 0)
        run.measures.resize(BLOCK * run.own.rows)
        for i in range(first, run.block_end):
            b = i - first
            bit = (<uint32_t>1) << b
            for j in range(run.starts[i], run.starts[i + 1]):
                run.offered[max(run.slots[j], 0)] |= bit
            if run.learns and run.weights[i] > 0.0:
                slot = run.slots[run.starts[i] + run.chosen[i]]
                if slot > PRIOR:
                    run.learned[slot] |= bit
        run.at_hand = &run.block[0]

    cdef Measure measured(self, Run* run, Py_ssize_t slot, Py_ssize_t b) noexcept nogil:
        """What the model in `slot` says of event b of the block; if nobody has looked, of the later ones too,
        up to its next update."""
        cdef uint32_t bit = (<uint32_t>1) << b, todo, next_update
        cdef Py_ssize_t i
        cdef Row row
        if not run.measured[slot] & bit:
            next_update = run.learned[slot] & ~(bit - 1)
            next_update &= ~next_update + 1               # its lowest bit
            todo = run.offered[slot] & ~(bit - 1)
            if next_update:
                todo &= (next_update - 1) | next_update
            run.measured[slot] |= todo
            row = row_of(&run.own, slot)
            for i in range(b, run.block_end - run.block_start):
                if todo >> i & 1:
                    run.measures[i * run.own.rows + slot] = self.measure(&row, &run.block[i])
        return run.measures[b * run.own.rows + slot]

    cdef void gather_common(self, Run* run, FeatureIndex index, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
        """Features of action j in event i: its own, their products with the context's; the context's too if
        there is no other model for them."""
        cdef Py_ssize_t e, f
        cdef const Matrix* contexts = &run.contexts
        cdef const Matrix* actions = &run.actions
        cdef Layout layout = Layout(
            contexts.indices + contexts.indptr[i], actions.indices + actions.indptr[j],
            contexts.indptr[i + 1] - contexts.indptr[i], actions.indptr[j + 1] - actions.indptr[j],
            index.order.size(),
        )
        begin(&run.common_gather, &run.z, &layout)  # new features count as if this action were the only one
        if self.shared:
            if self.intercept:
                put(index, &run.common_gather, &run.z, CONSTANT, 1.0)
            put_row(index, &run.common_gather, &run.z, contexts, i)
        put_row(index, &run.common_gather, &run.z, actions, j)
        if self.crosses:
            for e in range(actions.indptr[j], actions.indptr[j + 1]):
                for f in range(contexts.indptr[i], contexts.indptr[i + 1]):
                    put(
                        index, &run.common_gather, &run.z,
                        (FNV_PRIME * actions.indices[e]) ^ contexts.indices[f],
                        actions.values[e] * contexts.values[f],
                    )
        finish(&run.common_gather, &run.z)

    # ------------------------------------------------------------------------------------------ deciding

    cdef void distribute(self, Run* run, FeatureIndex index, Py_ssize_t i, Py_ssize_t low, Py_ssize_t k) noexcept nogil:
        cdef const int64_t* slots = run.slots + low
        cdef double* p = run.out + low
        cdef Py_ssize_t j, n = eligible(slots, k, 2)  # none, one, or a choice
        cdef bint everyone = n == 0
        cdef Belief belief
        cdef Measure measure
        cdef Row row
        if everyone:
            n = k
        if n == 1:
            for j in range(k):
                p[j] = 1.0 if everyone or slots[j] != RETIRED else 0.0
            return
        if self.shared and self.explore == UCB and not self.diagonal:
            self.bounds(run, index, i, low, k, everyone)
            split_maximum(run.index.data(), p, k)
            settle(p, slots, k, self.floor)
            return
        if self.shared and self.explore != UCB:
            self.draw_normals(run, index, run.keys[i])
        for j in range(k):
            if not everyone and slots[j] == RETIRED:
                belief.mean, belief.variance, belief.shape, belief.scale = -INFINITY, 0.0, 1.0, 1.0
            elif self.shared:
                self.gather_common(run, index, i, low + j)
                self.believe(&run.common, 0, run.totals[CLOCK], &run.z, &belief)
            elif self.hybrid:
                self.gather_common(run, index, i, low + j)
                self.believe_hybrid(run, max(slots[j], 0), &belief)
            elif i < run.block_end:
                measure = self.measured(run, max(slots[j], 0), i - run.block_start)
                row = row_of(&run.own, max(slots[j], 0))
                self.conclude(&row, &measure, run.totals[CLOCK], run.at_hand, &belief)
            else:
                self.believe(&run.own, max(slots[j], 0), run.totals[CLOCK], run.at_hand, &belief)
            if self.explore == UCB:
                run.index[j] = belief.mean + self.width * sqrt(belief.variance)
            elif self.shared:
                self.sample_shared(run, index, run.keys[i], &belief, run.samples.data() + j * self.draws)
            else:
                self.sample(run, run.keys[i], run.hashes[low + j], &belief, run.samples.data() + j * self.draws)
        if self.explore == UCB:
            split_maximum(run.index.data(), p, k)
        else:
            histogram(run.samples.data(), run.room.data(), run.room.data() + self.draws, p, k, self.draws)
        settle(p, slots, k, self.floor)

    cdef void bounds(self, Run* run, FeatureIndex index, Py_ssize_t i, Py_ssize_t low, Py_ssize_t k,
                     bint everyone) noexcept nogil:
        """Upper confidence bounds of actions that share one model, a panel at a time, into `run.index`.

        Where there are many, those that cannot be the largest get -inf: a diagonal matrix that is above P
        takes d operations to say so, P itself d².
        """
        cdef Row row = row_of(&run.common, 0)
        cdef Panel* panel = &run.panel
        cdef Belief belief
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], j = 0
        # Without products all actions of an event differ in their own features only, which come last.
        cdef bint skims = k > PANEL and (
            not self.crosses or run.contexts.indptr[i] == run.contexts.indptr[i + 1]
        )
        cdef bint fits = False
        panel.lanes = 0
        panel.bar.best = -INFINITY
        if skims:
            self.weigh(run, &row, d)
        while j < k:
            if skims and fits and j + LANES <= k and alike(&run.common_gather, &run.actions, low + j):
                self.skim(run, &row, low, j, everyone)
                j += LANES
                continue
            fits = panel.lined_up = False
            run.index[j] = -INFINITY
            if everyone or run.slots[low + j] != RETIRED:
                self.gather_common(run, index, i, low + j)
                fits = run.z.dense and reaches(&run.z) <= d
                if fits:
                    place(panel, &run.z, NULL, 0, d, j)
                    if panel.lanes == PANEL:
                        self.bound_panel(run, &row)
                else:
                    self.believe(&run.common, 0, run.totals[CLOCK], &run.z, &belief)
                    run.index[j] = belief.mean + self.width * sqrt(belief.variance)
            j += 1
        self.bound_panel(run, &row)

    cdef void weigh(self, Run* run, const Row* row, Py_ssize_t d) noexcept nogil:
        """Find a diagonal matrix that is above P, or take the prior's where that says more."""
        cdef Panel* panel = &run.panel
        cdef double kept = self.kept(row, run.totals[CLOCK]), total = 0.0, least = INFINITY, largest = 0.0
        cdef double norm = fmax(sqrt(dense_dot(row.mean, row.mean, d)), 1e-150)
        cdef Py_ssize_t i
        panel.weights.resize(padded(d))
        majorant(row.covariance, d, run.product.data(), panel.weights.data())
        for i in range(d):
            panel.weights[i] /= kept
            total += panel.weights[i]
        if total > d / self.l2:
            panel.weights.assign(padded(d), 1.0 / self.l2)
        for i in range(d):
            least, largest = fmin(least, panel.weights[i]), fmax(largest, panel.weights[i])
        panel.bar.least_form = LEAST_SQUARE * largest
        panel.bar.largest_form = LARGEST_SQUARE * least  # beyond it some |x| may be out of its limits
        # With room for rounding, enough for as many features as a matrix in memory can have.
        panel.bar.reach = self.width * (1.0 + 1e-9) + 1e-11 * norm / sqrt(least)

    cdef void skim(
        self, Run* run, const Row* row, Py_ssize_t low, Py_ssize_t j, bint everyone
    ) noexcept nogil:
        """Find which of LANES actions, like the one gathered last, may have the largest bound, and place them."""
        cdef Panel* panel = &run.panel
        cdef Py_ssize_t n = run.common_gather.second.size(), l
        cdef const double* values = run.actions.values + run.actions.indptr[low + j]
        cdef uint32_t passed
        if not panel.lined_up:
            self.line_up(run, row, n)
        passed = contenders(values, n, panel.own_scales, panel.own_means, &panel.bar)
        for l in range(LANES):
            run.index[j + l] = -INFINITY
        for l in range(LANES):
            if not passed >> l & 1 or not everyone and run.slots[low + j + l] == RETIRED:
                continue
            place(panel, &run.z, values + l * n, n, <Py_ssize_t>row.head[WIDTH], j + l)
            if panel.lanes == PANEL:
                self.bound_panel(run, row)

    cdef void line_up(self, Run* run, const Row* row, Py_ssize_t n) noexcept nogil:
        """Bring scales and means into line with the n features of an action that come last in `z`."""
        cdef Panel* panel = &run.panel
        cdef const double* z = run.z.x.data()
        cdef Py_ssize_t shared = <Py_ssize_t>run.z.at.size() - n, i
        panel.bar.mean = dense_dot(row.mean, z, shared)
        panel.bar.form = 0.0
        for i in range(shared):
            panel.bar.form += panel.weights[i] * z[i] * z[i]
        for i in range(padded(n)):
            panel.own_scales[i] = sqrt(panel.weights[shared + i]) if i < n else 0.0
            panel.own_means[i] = row.mean[shared + i] / panel.own_scales[i] if i < n else 0.0
        panel.lined_up = True

    cdef void bound_panel(self, Run* run, const Row* row) noexcept nogil:
        cdef Panel* panel = &run.panel
        cdef double kept = self.kept(row, run.totals[CLOCK]), variance, bound
        cdef Py_ssize_t l
        measure_panel(
            row.covariance, row.mean, panel.x, <Py_ssize_t>row.head[WIDTH], panel.lanes,
            panel.means.data(), panel.forms.data(), panel.squares.data(),
        )
        for l in range(panel.lanes):
            variance = fmin(fmax(panel.forms[l] / kept, 0.0), panel.squares[l] / self.l2)
            bound = panel.means[l] + self.width * sqrt(variance)
            run.index[panel.actions[l]] = bound
            panel.bar.best = fmax(panel.bar.best, bound)
        panel.lanes = 0

    cdef double kept(self, const Row* row, double clock) noexcept nogil:
        """What is left now of a row's events."""
        return fmax(pow(self.discount, clock - row.head[LAST]), 1e-300) if self.discount < 1.0 else 1.0

    cdef void believe(
        self, const Bank* bank, Py_ssize_t slot, double clock, const Vector* v, Belief* belief
    ) noexcept nogil:
        """Mean and variance of the expected reward, in units of the noise."""
        cdef Row row = row_of(bank, slot)
        cdef Measure measure = self.measure(&row, v)
        self.conclude(&row, &measure, clock, v, belief)

    cdef Measure measure(self, const Row* row, const Vector* v) noexcept nogil:
        """x'mean and x'Px over the features that the row has seen."""
        cdef Py_ssize_t n = within(v, <Py_ssize_t>row.head[WIDTH]), i
        cdef Measure result = Measure(mean_of(row, v, n), 0.0)
        if self.diagonal:
            for i in range(n):
                result.form += row.covariance[v.at[i]] * v.x[i] * v.x[i]
        elif v.dense:
            result.form = dense_form(row.covariance, v.x.data(), n)
        else:
            result.form = sparse_form(row.covariance, v.at.data(), v.x.data(), n)
        return result

    cdef void conclude(
        self, const Row* row, const Measure* measure, double clock, const Vector* v, Belief* belief
    ) noexcept nogil:
        """Bring a row's measure to the present, and add what the prior says of features it has not seen."""
        cdef Py_ssize_t n = within(v, <Py_ssize_t>row.head[WIDTH]), i
        cdef double q = measure.form, most = v.square / self.l2, kept = self.kept(row, clock)
        belief.mean = measure.mean
        q /= kept
        for i in range(n, <Py_ssize_t>v.at.size()):
            q += v.x[i] * v.x[i] / self.l2
        belief.variance = fmin(fmax(q, 0.0), most)
        belief.shape = self.shape + kept * row.head[SHAPE]
        belief.scale = self.scale + kept * row.head[SCALE]

    cdef void believe_hybrid(self, Run* run, Py_ssize_t slot, Belief* belief) noexcept nogil:
        cdef Belief residual
        self.believe(&run.own, slot, 0.0, &run.x, belief)
        self.unexplained(run, slot)
        self.believe(&run.common, 0, 0.0, &run.rest, &residual)
        belief.mean += residual.mean
        belief.variance += residual.variance

    cdef void unexplained(self, Run* run, Py_ssize_t slot) noexcept nogil:
        """What the arm's own features do not explain of the shared ones: rest = z - W'x."""
        cdef Row row = row_of(&run.own, slot)
        cdef Py_ssize_t n = within(&run.x, <Py_ssize_t>row.head[WIDTH]), i, wide
        cdef double* w = run.cross + slot * run.own.capacity * run.common.capacity
        wide = <Py_ssize_t>run.common.head[WIDTH]
        if reaches(&run.z) > wide:
            wide = reaches(&run.z)
        run.rest.x.assign(padded(wide), 0.0)
        run.rest.at.resize(wide)
        run.rest.dense = wide > 0
        for i in range(wide):
            run.rest.at[i] = <int32_t>i
        for i in range(<Py_ssize_t>run.z.at.size()):
            run.rest.x[run.z.at[i]] = run.z.x[i]
        for i in range(n):
            axpy(
                run.rest.x.data(), w + run.x.at[i] * run.common.capacity, -run.x.x[i],
                <Py_ssize_t>run.common.head[WIDTH],
            )
        run.rest.square = dense_dot(run.rest.x.data(), run.rest.x.data(), wide)

    cdef void sample(
        self, Run* run, uint64_t key, uint64_t arm, const Belief* belief, double* out
    ) noexcept nogil:
        """Expected rewards of one arm: no other arm's depend on them, so a scalar each will do."""
        cdef uint64_t state = stream(self.seed, key, arm)
        cdef double deviation = self.width * sqrt(belief.variance)
        cdef Py_ssize_t m
        for m in range(self.draws):
            if self.explore == NIG:
                deviation = sqrt(belief.variance * belief.scale / gamma(&state, belief.shape))
            out[m] = belief.mean + deviation * normal(&state)

    cdef void draw_normals(self, Run* run, FeatureIndex index, uint64_t key) noexcept nogil:
        """Normals of every known feature, and what turns them into samples of the model's weights."""
        cdef Row row = row_of(&run.common, 0)
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], i
        cdef double shape = self.shape + row.head[SHAPE], scale = self.scale + row.head[SCALE]
        cdef uint64_t state
        run.n_normals = 0
        self.extend_normals(run, index, key, index.order.size())
        run.deviations.assign(self.draws, self.width)
        if self.explore == NIG:
            state = stream(self.seed, key, NOISE)
            for i in range(self.draws):
                run.deviations[i] = sqrt(scale / gamma(&state, shape))
        if not self.diagonal and run.factored != run.totals[CLOCK]:
            run.factor.assign(row.covariance, row.covariance + start(d))
            factor(run.factor.data(), d)
            run.factored = run.totals[CLOCK]

    cdef void extend_normals(self, Run* run, FeatureIndex index, uint64_t key, Py_ssize_t n) noexcept nogil:
        """A stream for each feature, by its hash: the same whenever the feature was numbered."""
        cdef Py_ssize_t known = index.order.size(), m
        cdef uint64_t state
        cdef uint32_t feature
        cdef double* z
        while run.n_normals < n:
            feature = (
                index.order[run.n_normals]
                if run.n_normals < known
                else run.common_gather.fresh[run.n_normals - known]
            )
            state = stream(self.seed, key, mix(feature))
            z = run.normals.data() + run.n_normals * self.draws
            for m in range(self.draws):
                z[m] = normal(&state)
            run.n_normals += 1

    cdef void sample_shared(
        self, Run* run, FeatureIndex index, uint64_t key, const Belief* belief, double* out
    ) noexcept nogil:
        """Expected rewards of one action under the same samples of the weights for all actions."""
        cdef Row row = row_of(&run.common, 0)
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], n = within(&run.z, d), i, m
        cdef double* w = run.product.data()
        run.n_normals = index.order.size()
        self.extend_normals(run, index, key, run.n_normals + run.common_gather.fresh.size())
        for m in range(self.draws):
            out[m] = 0.0
        if self.diagonal:
            for i in range(n):
                axpy(
                    out, run.normals.data() + run.z.at[i] * self.draws,
                    sqrt(row.covariance[run.z.at[i]]) * run.z.x[i], self.draws,
                )
        else:
            for i in range(d):
                w[i] = 0.0
            for i in range(n):
                axpy(w, run.factor.data() + start(run.z.at[i]), run.z.x[i], run.z.at[i] + 1)
            for i in range(d):
                if w[i] != 0.0:
                    axpy(out, run.normals.data() + i * self.draws, w[i], self.draws)
        for i in range(n, <Py_ssize_t>run.z.at.size()):
            axpy(
                out, run.normals.data() + run.z.at[i] * self.draws, run.z.x[i] / sqrt(self.l2), self.draws
            )
        for m in range(self.draws):
            out[m] = belief.mean + run.deviations[m] * out[m]

    # ------------------------------------------------------------------------------------------ learning

    cdef void absorb(self, Run* run, Py_ssize_t slot, double weight, double reward) noexcept nogil:
        cdef Row row
        cdef Belief belief
        cdef Py_ssize_t i, j, n
        cdef double share, explained
        cdef double* w
        cdef double* b
        if self.shared:
            row = row_of(&run.common, 0)
            self.update(run, &row, &run.z, weight, reward)
            return
        row = row_of(&run.own, slot)
        if not self.hybrid:
            self.update(run, &row, run.at_hand, weight, reward)
            return
        self.believe(&run.own, slot, 0.0, &run.x, &belief)
        explained = belief.mean
        self.unexplained(run, slot)
        self.update(run, &row, &run.x, weight, reward)
        # `product` now holds u, for the arm's width, and `gain` what multiplies a target's error.
        n = run.common.capacity
        w = run.cross + slot * run.own.capacity * n
        b = run.moments + slot * run.own.capacity * n
        for i in range(<Py_ssize_t>run.x.at.size()):
            for j in range(<Py_ssize_t>run.z.at.size()):
                b[run.x.at[i] * n + run.z.at[j]] += weight * run.x.x[i] * run.z.x[j]
        if run.renewed:
            self.regress(run, &row, w, b)
        elif run.x.at.size():
            for i in range(<Py_ssize_t>row.head[WIDTH]):
                axpy(w + i * n, run.rest.x.data(), run.gain * run.product[i], run.rest.at.size())
        share = run.gain
        row = row_of(&run.common, 0)
        self.update(run, &row, &run.rest, share, reward - explained)

    cdef void regress(self, Run* run, const Row* row, double* w, const double* b) noexcept nogil:
        """W = PB, anew."""
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], n = run.common.capacity, i, j
        cdef double* p = row.covariance
        for i in range(d):
            for j in range(n):
                w[i * n + j] = 0.0
        for i in range(d):
            for j in range(i + 1):
                axpy(w + i * n, b + j * n, p[start(i) + j], n)
                if j < i:
                    axpy(w + j * n, b + i * n, p[start(i) + j], n)

    cdef void update(self, Run* run, Row* row, const Vector* v, double weight, double reward) noexcept nogil:
        """One event; leaves u in `run.product`, its factor in `run.gain`, and in `run.renewed` whether P was
        taken anew."""
        cdef Py_ssize_t n = v.at.size(), d, i, j
        cdef double* u = run.product.data()
        cdef double q = 0.0, mean, c = weight, error, p, f
        run.gain = weight  # of an event without features there is nothing to explain
        run.renewed = False
        if self.discount < 1.0:
            self.fade(run, row)
        row.head[LAST] = run.totals[CLOCK]
        row.head[UPDATES] += 1.0
        if n == 0:
            return
        d = max(<Py_ssize_t>row.head[WIDTH], v.at[n - 1] + 1)
        row.head[WIDTH] = d
        mean = mean_of(row, v, n)
        error = reward - mean
        if self.logistic:
            p = 1.0 / (1.0 + exp(-mean)) if mean > 0.0 else exp(mean) / (1.0 + exp(mean))
            error = fmin(fmax(reward, 0.0), 1.0) - p
            c = weight * fmax(p * (1.0 - p), LEAST_CURVATURE)
        if self.diagonal:
            for i in range(n):
                j = v.at[i]
                row.precision[j] += c * v.x[i] * v.x[i]
                row.covariance[j] = 1.0 / row.precision[j]
                row.mean[j] += weight * error * v.x[i] / row.precision[j]
            return
        if v.dense:
            dense_product(row.covariance, v.x.data(), n, d, u)
            q = dense_dot(v.x.data(), u, n)
        else:
            sparse_product(row.covariance, v.at.data(), v.x.data(), n, d, u)
            for i in range(n):
                q += v.x[i] * u[v.at[i]]
        q = fmax(q, 0.0)
        f = 1.0 / (1.0 + c * q)
        rank_one(row.covariance, u, -c * f, d)
        axpy(row.mean, u, weight * error * f, d)
        run.gain = weight * f
        row.head[SHAPE] += 0.5 * weight
        row.head[SCALE] += 0.5 * weight * error * error * f
        if v.dense:
            rank_one(row.precision, v.x.data(), c, n)
        else:
            sparse_rank_one(row.precision, v.at.data(), v.x.data(), n, c)
        for i in range(n):
            row.moment[v.at[i]] += weight * reward * v.x[i]
        if self.discount < 1.0:
            self.fill_up(run, row, d)
        if row.head[UPDATES] % self.period == 0.0 or not sound(row, d):
            self.renew(run, row, d)

    cdef void fade(self, Run* run, Row* row) noexcept nogil:
        """Bring a row to the present."""
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], i
        cdef double kept = pow(self.discount, run.totals[CLOCK] - row.head[LAST])
        row.head[SHAPE] *= kept
        row.head[SCALE] *= kept
        if self.diagonal:
            for i in range(d):
                row.precision[i] = kept * row.precision[i] + (1.0 - kept) * self.l2
                row.covariance[i] = 1.0 / row.precision[i]
            return
        if kept < FORGOTTEN:
            for i in range(start(d)):
                row.covariance[i] = row.precision[i] = 0.0
            for i in range(d):
                row.covariance[start(i) + i] = 1.0 / self.l2
                row.precision[start(i) + i] = row.ridge[i] = self.l2
                row.mean[i] = row.moment[i] = 0.0
            return
        scale(row.covariance, 1.0 / kept, start(d))
        scale(row.precision, kept, start(d))
        scale(row.moment, kept, d)
        scale(row.ridge, kept, d)

    cdef void fill_up(self, Run* run, Row* row, Py_ssize_t d) noexcept nogil:
        """Give one entry of the diagonal back what the prior had there."""
        cdef Py_ssize_t j = <Py_ssize_t>row.head[CURSOR], i
        cdef vector[double]* column = &run.column
        cdef double c, f, mean
        if j >= d:
            j = 0
        row.head[CURSOR] = <double>(j + 1)
        c = self.l2 - row.ridge[j]
        if not c > 0.0:
            return
        column.assign(padded(d), 0.0)
        for i in range(d):
            column[0][i] = row.covariance[start(j) + i] if i <= j else row.covariance[start(i) + j]
        f = c / (1.0 + c * fmax(column[0][j], 0.0))
        mean = row.mean[j]
        rank_one(row.covariance, column.data(), -f, d)
        axpy(row.mean, column.data(), -f * mean, d)
        row.precision[start(j) + j] += c
        row.ridge[j] = self.l2

    cdef void renew(self, Run* run, Row* row, Py_ssize_t d) noexcept nogil:
        """Take P, and for a linear model the mean, anew from A and b."""
        run.factor.assign(row.precision, row.precision + start(d))
        run.factored = -1.0
        factor(run.factor.data(), d)
        invert(run.factor.data(), d, row.covariance)
        if not self.logistic:
            run.column.assign(padded(d), 0.0)
            memcpy(run.column.data(), row.moment, d * sizeof(double))
            run.fresh_mean.resize(padded(d))
            dense_product(row.covariance, run.column.data(), d, d, run.fresh_mean.data())
            memcpy(row.mean, run.fresh_mean.data(), d * sizeof(double))
        run.renewed = True

    # ------------------------------------------------------------------------------------------ correcting

    def correct(
        self, Posteriors own, Posteriors common, const double[:, :, ::1] cross, FeatureIndex own_index,
        FeatureIndex common_index, const double[::1] totals, const int64_t[::1] starts, const int64_t[::1] slots,
        const uint64_t[::1] hashes, const uint64_t[::1] keys, tuple contexts, tuple actions,
        const int64_t[::1] chosen, const double[::1] weights, const double[::1] old, const double[::1] new,
    ):
        """Exchange the rewards of events that were learned: b is their sum, and A knows nothing of them.

        Exact for a linear model that has forgotten nothing; others are the caller's to refuse.
        """
        cdef Workspace space = self.take_workspace()
        cdef Run* run = &space.run
        cdef Py_ssize_t i, j, n = starts.shape[0] - 1
        run.learns = run.predicts = False
        run.totals = <double*>&totals[0]
        self.bind_posteriors(run, own, common, True)
        run.cross = run.moments = NULL
        if self.hybrid:
            check_cross(run, cross.shape[0], cross.shape[1], cross.shape[2])
            run.cross = <double*>&cross[0, 0, 0]
        if not chosen.shape[0] == weights.shape[0] == old.shape[0] == new.shape[0] == n:
            raise ValueError("one choice, weight, old and new reward an event")
        self.bind(run, own_index, common_index, totals.shape[0], starts, slots, hashes, keys, contexts, actions,
                  None)
        for i in range(n):
            if not 0 <= chosen[i] < starts[i + 1] - starts[i]:
                raise ValueError(f"event {i} chose what it did not offer")
        with nogil:
            for i in range(n):
                j = starts[i] + chosen[i]
                if not weights[i] > 0.0 or slots[j] == RETIRED or (not self.shared and slots[j] == PRIOR):
                    continue
                if not self.shared:
                    self.gather_own(run, own_index, i)
                if self.shared or self.hybrid:
                    self.gather_common(run, common_index, i, j)
                self.exchange(
                    run,
                    slots[j],
                    fmin(weights[i], LARGEST),
                    fmin(fmax(old[i], -LARGEST), LARGEST),
                    fmin(fmax(new[i], -LARGEST), LARGEST),
                )
        self.spare = space

    cdef void exchange(self, Run* run, Py_ssize_t slot, double weight, double old, double new) noexcept nogil:
        cdef Row row
        cdef double change = weight * (new - old), total = 0.5 * change * (old + new)
        if self.shared:
            row = row_of(&run.common, 0)
            self.shift(run, &row, &run.z, change, &total)
            return
        row = row_of(&run.own, slot)
        if self.hybrid:
            self.unexplained(run, slot)
        self.shift(run, &row, &run.x, change, &total)
        if self.hybrid:  # what the arm leaves of the sum of squares is the shared model's to explain
            row = row_of(&run.common, 0)
            self.shift(run, &row, &run.rest, change, &total)

    cdef void shift(self, Run* run, const Row* row, const Vector* v, double change, double* total) noexcept nogil:
        """Add `change` times v to b; `total`, by how much half the squares grow, loses what that explains."""
        cdef Py_ssize_t d = <Py_ssize_t>row.head[WIDTH], n = within(v, d), i
        cdef double* u = run.product.data()
        cdef double q = 0.0
        if n == 0:
            return
        if v.dense:
            dense_product(row.covariance, v.x.data(), n, d, u)
            q = dense_dot(v.x.data(), u, n)
        else:
            sparse_product(row.covariance, v.at.data(), v.x.data(), n, d, u)
            for i in range(n):
                q += v.x[i] * u[v.at[i]]
        total[0] -= change * (mean_of(row, v, n) + 0.5 * change * q)
        row.head[SCALE] = fmax(row.head[SCALE] + total[0], 0.0)
        axpy(row.mean, u, change, d)
        for i in range(n):
            row.moment[v.at[i]] += change * v.x[i]


cdef inline Py_ssize_t reaches(const Vector* v) noexcept nogil:
    """One more than the largest number of a feature in `v`."""
    cdef Py_ssize_t n = v.at.size()
    return v.at[n - 1] + 1 if n else 0


cdef bint sound(const Row* row, Py_ssize_t d) noexcept nogil:
    """Whether every variance is positive and not above what the prior leaves."""
    cdef Py_ssize_t i
    cdef double variance
    for i in range(d):
        variance = row.covariance[start(i) + i]
        if not (variance > 0.0 and variance * row.ridge[i] <= 1.0 + 1e-6):
            return False
    return True


cdef int check_cross(const Run* run, Py_ssize_t rows, Py_ssize_t own, Py_ssize_t common) except -1:
    if rows != run.own.rows or own != run.own.capacity or common != run.common.capacity:
        raise ValueError("cross moments do not fit the matrices")
    return 0
