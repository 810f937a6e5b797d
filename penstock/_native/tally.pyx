"""Policies without context: a few sums an arm, and the rule that turns them into a distribution.

Row s of `stats` is what is known of the arm in slot s; row 0 stays zero and is every arm not yet played.

======= =====================================================================================
column  meaning
======= =====================================================================================
count   sum of weights
total   sum of weight × reward
score   Exp3, Tsallis-INF: importance-weighted loss; Exp3.S: logarithm of the weight;
        with a window: events of the arm in it
last    value of the clock when the arm was last played
======= =====================================================================================

With a discount g, `count` and `total` are as of `last` and worth ``g ** (clock - last)`` of it now: nothing
is swept. With a window, `ring` holds its events (slot, weight, reward), the oldest at the cursor; each time
the cursor comes round all sums are taken anew, so that no rounding error stays.
"""

from libc.math cimport INFINITY, exp, fabs, fmax, fmin, log, log1p, pow, sqrt
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp.vector cimport vector

from cpython.object cimport PyObject

from penstock._native.chance cimport beta, mix, normal, stream
from penstock._native.choice cimport PRIOR, RETIRED, eligible, histogram, settle, split_maximum

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object mapping, object key) except? NULL
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* length) except NULL

cdef enum:
    UNIFORM = 0
    BETA = 1
    GAUSSIAN = 2
    UCB1 = 3
    KL_UCB = 4
    GREEDY = 5
    SOFTMAX = 6
    EXP3 = 7
    EXP3S = 8
    TSALLIS = 9

cdef enum:
    COUNT = 0
    TOTAL = 1
    SCORE = 2
    LAST = 3
    N_STATS = 4

cdef enum:
    CLOCK = 0
    WEIGHT = 1   # of all arms, discounted or within the window
    CLIPPED = 2  # rewards outside their range
    CURSOR = 3
    N_TOTALS = 4

cdef enum:
    BISECTIONS = 50
    MAX_NEWTON = 64

cdef const double LARGEST = 1e18  # of |reward|, weight and an estimated loss: sums of them stay finite

RULES = {
    "uniform": UNIFORM,
    "beta": BETA,
    "gaussian": GAUSSIAN,
    "ucb1": UCB1,
    "kl_ucb": KL_UCB,
    "epsilon_greedy": GREEDY,
    "softmax": SOFTMAX,
    "exp3": EXP3,
    "exp3s": EXP3S,
    "tsallis_inf": TSALLIS,
}
STATS = ("count", "total", "score", "last")
TOTALS = ("clock", "weight", "clipped", "cursor")


cdef uint64_t hash_of(object arm) except? 0:
    """FNV-1a over UTF-8, mixed."""
    cdef Py_ssize_t length, i
    cdef const char* text
    cdef uint64_t h = 14695981039346656037ULL
    cdef bytes surrogates
    try:
        text = PyUnicode_AsUTF8AndSize(arm, &length)
    except UnicodeEncodeError:
        surrogates = arm.encode("utf-8", "surrogatepass")
        text = surrogates
        length = len(surrogates)
    for i in range(length):
        h = (h ^ <uint8_t>text[i]) * 1099511628211ULL
    return mix(h)


def look_up(dict index, arms, int64_t[::1] slots, uint64_t[::1] hashes=None):
    """Find the slot of each of `arms`, 0 where there is none; and its hash, if there is room for it."""
    cdef Py_ssize_t i = 0
    cdef PyObject* found
    if len(arms) != slots.shape[0] or (hashes is not None and len(arms) != hashes.shape[0]):
        raise ValueError(f"{len(arms)} arms need as many slots and hashes")
    for arm in arms:
        found = PyDict_GetItemWithError(index, arm)
        slots[i] = <object>found if found != NULL else PRIOR
        if hashes is not None:
            hashes[i] = hash_of(arm)
        i += 1


def are_distributions(const double[::1] p, const int64_t[::1] starts, double tolerance):
    """Whether the entries of every event are in [0, 1] and sum to 1."""
    cdef Py_ssize_t i, j, n = starts.shape[0] - 1
    cdef double total
    cdef bint right = True
    for i in range(n):
        if starts[i] < 0 or starts[i + 1] < starts[i] or starts[i + 1] > p.shape[0]:
            raise ValueError(f"event {i} does not fit {p.shape[0]} probabilities")
        total = 0.0
        for j in range(starts[i], starts[i + 1]):
            total += p[j]
            right = right and 0.0 <= p[j] <= 1.0
        right = right and fabs(total - 1.0) <= tolerance
    return right


cdef double divergence(double p, double q) noexcept nogil:
    """Kullback-Leibler divergence of two Bernoulli distributions."""
    cdef double value = 0.0
    if p > 0.0:
        value += p * log(p / q)
    if p < 1.0:
        value += (1.0 - p) * log((1.0 - p) / (1.0 - q))
    return value


cdef double kl_bound(double mean, double budget) noexcept nogil:
    """Largest q with ``divergence(mean, q) <= budget``."""
    cdef double low = mean, high = 1.0, middle
    cdef int i
    if mean >= 1.0:
        return 1.0
    for i in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if middle >= 1.0 or divergence(mean, middle) > budget:
            high = middle
        else:
            low = middle
    return low


def kl_upper_bound(double mean, double budget):
    """Return the largest q in ``[mean, 1]`` with ``kl(mean, q) <= budget``."""
    return kl_bound(mean, budget)


cdef struct View:
    # One call's arrays.
    double* stats
    double* totals
    int64_t* ring_slots
    double* ring_values  # (window, 2): weight, reward
    const int64_t* slots
    const uint64_t* hashes
    Py_ssize_t n_slots


cdef struct Room:
    double* index
    double* samples
    double* best
    double* share


cdef class Tally:
    """A rule and its parameters; what it knows is the caller's, and passed with every call.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    first, second : float
        What the rule makes of them: beta (successes, failures before the first event), gaussian (weight and
        mean of the prior), ucb1 and kl_ucb (exploration, 0), epsilon_greedy and
        softmax (epsilon or temperature, estimate of an arm before the first event), exp3s (gamma, alpha).
    noise : float
        Standard deviation of rewards (gaussian).
    decays : bool
        Whether epsilon falls with the cube root of the number of events.
    low, high : float
        Range of the rewards; equal where there is none.
    floor, discount : float
    window, draws : int
        0 for no window.
    seed : int
    """

    cdef int rule
    cdef double first, second, noise, low, high, floor, discount
    cdef Py_ssize_t window, draws
    cdef bint decays
    cdef uint64_t seed

    def __init__(
        self,
        *,
        rule,
        double first=0.0,
        double second=0.0,
        double noise=1.0,
        bint decays=False,
        double low=0.0,
        double high=0.0,
        double floor=0.0,
        double discount=1.0,
        Py_ssize_t window=0,
        Py_ssize_t draws=1,
        seed=0,
    ):
        self.rule = RULES[rule]
        self.first, self.second, self.noise, self.decays = first, second, noise, decays
        self.low, self.high = low, high
        self.floor, self.discount = floor, discount
        self.window, self.draws = max(window, 0), max(draws, 1)
        self.seed = seed & 0xFFFFFFFFFFFFFFFF

    def run(
        self,
        double[:, ::1] stats,
        double[::1] totals,
        int64_t[::1] ring_slots,
        double[:, ::1] ring_values,
        const int64_t[::1] starts,
        const int64_t[::1] slots,
        const uint64_t[::1] hashes,
        const uint64_t[::1] keys,
        const int64_t[::1] chosen,
        const double[::1] propensities,
        const double[::1] rewards,
        const double[::1] weights,
        double[::1] out,
    ):
        """Give the distribution of every event into `out` (if given), and learn it (if `chosen` is given)."""
        cdef Py_ssize_t n = starts.shape[0] - 1, m = slots.shape[0], i, low, k, widest = 0
        cdef Py_ssize_t samples
        cdef bint learns = chosen is not None, predicts = out is not None
        cdef View view
        if stats.shape[0] < 1 or stats.shape[1] != N_STATS or totals.shape[0] != N_TOTALS:
            raise ValueError("stats and totals do not fit")
        if learns and self.window and (
            ring_slots is None
            or ring_values is None
            or ring_slots.shape[0] != self.window
            or ring_values.shape[0] != self.window
            or ring_values.shape[1] != 2
        ):
            raise ValueError("the ring does not fit the window")
        if hashes.shape[0] != m or keys.shape[0] != n or (predicts and out.shape[0] != m):
            raise ValueError("one slot, hash and probability an offered arm, and one key an event")
        if learns and not (
            chosen.shape[0] == propensities.shape[0] == rewards.shape[0] == weights.shape[0] == n
        ):
            raise ValueError("one choice, propensity, reward and weight an event")
        for i in range(n):
            k = starts[i + 1] - starts[i]
            if starts[i] < 0 or k < 1 or starts[i + 1] > m or (learns and not 0 <= chosen[i] < k):
                raise ValueError(f"event {i} does not fit the offered arms")
            widest = max(widest, k)
        for i in range(m):
            if not RETIRED <= slots[i] < stats.shape[0]:
                raise ValueError(f"no slot {slots[i]}")
        if learns and self.window:
            if not 0 <= totals[CURSOR] < self.window:
                raise ValueError("the cursor lies outside of the window")
            for i in range(self.window):
                if not RETIRED <= ring_slots[i] < stats.shape[0]:
                    raise ValueError(f"no slot {ring_slots[i]}")
        if n == 0:
            return
        samples = widest * self.draws if self.rule in (BETA, GAUSSIAN) else 0
        cdef vector[double] index = vector[double](widest)
        cdef vector[double] room = vector[double](samples + 2 * self.draws)
        cdef Room scratch
        scratch.index = index.data()
        scratch.best = room.data()
        scratch.share = room.data() + self.draws
        scratch.samples = room.data() + 2 * self.draws
        view.stats = &stats[0, 0]
        view.totals = &totals[0]
        view.n_slots = stats.shape[0]
        view.ring_slots = &ring_slots[0] if learns and self.window else NULL
        view.ring_values = &ring_values[0, 0] if learns and self.window else NULL
        with nogil:
            for i in range(n):
                low = starts[i]
                k = starts[i + 1] - low
                view.slots = &slots[low]
                view.hashes = &hashes[low]
                if predicts:
                    self.distribute(&view, &scratch, keys[i], k, &out[low])
                if learns and weights[i] > 0.0 and slots[low + chosen[i]] > PRIOR:
                    self.absorb(&view, k, chosen[i], propensities[i], rewards[i], fmin(weights[i], LARGEST))

    cdef double age(self, const View* view, const double* arm) noexcept nogil:
        """What is left of an arm's sums."""
        if self.discount >= 1.0:
            return 1.0
        return pow(self.discount, view.totals[CLOCK] - arm[LAST])

    cdef void distribute(self, const View* view, const Room* room, uint64_t key, Py_ssize_t k, double* p) noexcept nogil:
        cdef Py_ssize_t j, n = eligible(view.slots, k, k)
        cdef const double* arm
        cdef double* index = room.index
        cdef double kept, count, total, epsilon
        cdef bint everyone = n == 0
        if everyone:
            n = k
        if n == 1 or self.rule == UNIFORM:
            for j in range(k):
                p[j] = 1.0 / n if everyone or view.slots[j] != RETIRED else 0.0
            return
        if self.rule == BETA or self.rule == GAUSSIAN:
            self.sample(view, room, key, k, everyone, p)
        elif self.rule == EXP3 or self.rule == EXP3S or self.rule == TSALLIS:
            self.weigh(view, k, everyone, n, index, p)
        else:
            for j in range(k):
                if not everyone and view.slots[j] == RETIRED:
                    index[j] = -INFINITY
                    continue
                arm = view.stats + N_STATS * max(view.slots[j], 0)
                kept = self.age(view, arm)
                count = kept * arm[COUNT]
                total = kept * arm[TOTAL]
                if self.rule == UCB1:
                    index[j] = INFINITY
                    if count > 0.0:
                        index[j] = total / count + self.first * sqrt(
                            2.0 * log(fmax(view.totals[WEIGHT], 1.0)) / count
                        )
                elif self.rule == KL_UCB:
                    index[j] = INFINITY
                    if count > 0.0:
                        index[j] = kl_bound(
                            fmin(total / count, 1.0), self.first * log(fmax(view.totals[WEIGHT], 1.0)) / count
                        )
                else:
                    index[j] = (total + self.second) / (count + 1.0)
            if self.rule == SOFTMAX:
                soften(index, p, k, self.first)
            else:
                split_maximum(index, p, k)
            if self.rule == GREEDY:
                epsilon = self.first
                if self.decays:
                    epsilon *= pow(view.totals[CLOCK] + 1.0, -1.0 / 3.0)
                settle(p, view.slots, k, epsilon)
        settle(p, view.slots, k, self.floor)

    cdef void sample(
        self, const View* view, const Room* room, uint64_t key, Py_ssize_t k, bint everyone, double* p
    ) noexcept nogil:
        cdef Py_ssize_t j, m
        cdef const double* arm
        cdef double* samples
        cdef double kept, count, total, mean, deviation
        cdef uint64_t state
        for j in range(k):
            samples = room.samples + j * self.draws
            if not everyone and view.slots[j] == RETIRED:
                for m in range(self.draws):
                    samples[m] = -INFINITY
                continue
            arm = view.stats + N_STATS * max(view.slots[j], 0)
            kept = self.age(view, arm)
            count = kept * arm[COUNT]
            total = kept * arm[TOTAL]
            state = stream(self.seed, key, view.hashes[j])
            if self.rule == BETA:
                for m in range(self.draws):
                    samples[m] = beta(&state, self.first + fmax(total, 0.0), self.second + fmax(count - total, 0.0))
            else:
                mean = (self.first * self.second + total) / (self.first + count)
                deviation = self.noise / sqrt(self.first + count)
                for m in range(self.draws):
                    samples[m] = mean + deviation * normal(&state)
        histogram(room.samples, room.best, room.share, p, k, self.draws)

    cdef void weigh(
        self, const View* view, Py_ssize_t k, bint everyone, Py_ssize_t n, double* index, double* p
    ) noexcept nogil:
        """Exp3, Exp3.S and Tsallis-INF: from scores to a distribution over the n that may be chosen."""
        cdef Py_ssize_t j, iteration
        cdef double t = view.totals[CLOCK] + 1.0, rate, x, sum_p, slope, root, low
        low = self.scores(view, k, everyone, index)
        if self.rule == EXP3S:
            soften(index, p, k, 1.0)
            for j in range(k):
                if everyone or view.slots[j] != RETIRED:
                    p[j] = (1.0 - self.first) * p[j] + self.first / n
        elif self.rule == EXP3:
            rate = sqrt(log(<double>n) / (n * t))
            for j in range(k):
                index[j] = -index[j]
            soften(index, p, k, 1.0 / rate)
        else:
            # Newton's method from the right of the root of a convex function: it never overshoots.
            rate = 2.0 / sqrt(t)
            x = -2.0 / rate  # relative to the smallest loss
            for iteration in range(MAX_NEWTON):
                sum_p = slope = 0.0
                for j in range(k):
                    root = 2.0 / (rate * (index[j] - low - x))
                    p[j] = root * root
                    sum_p += p[j]
                    slope += p[j] * root
                if sum_p - 1.0 <= 1e-14:
                    break
                x -= (sum_p - 1.0) / (rate * slope)
            for j in range(k):
                p[j] /= sum_p

    cdef double scores(self, const View* view, Py_ssize_t k, bint everyone, double* index) noexcept nogil:
        """Score of every offered arm. Where it was never played: the smallest loss, or the mean weight.

        Returns the smallest loss, or the logarithm of the mean weight. An arm that cannot be chosen has an
        infinite loss, or no weight.
        """
        cdef Py_ssize_t j, known = 0
        cdef double fresh = INFINITY, top = -INFINITY, total = 0.0
        cdef const double* arm
        for j in range(k):
            arm = view.stats + N_STATS * max(view.slots[j], 0)
            index[j] = arm[SCORE]
            if arm[COUNT] > 0.0:
                known += 1
                fresh = fmin(fresh, arm[SCORE])
                top = fmax(top, arm[SCORE])
        if known == 0:
            fresh = 0.0
        elif self.rule == EXP3S:
            for j in range(k):
                if view.stats[N_STATS * max(view.slots[j], 0) + COUNT] > 0.0:
                    total += exp(index[j] - top)
            fresh = top + log(total / known)
        for j in range(k):
            if not everyone and view.slots[j] == RETIRED:
                index[j] = -INFINITY if self.rule == EXP3S else INFINITY
            elif not view.stats[N_STATS * max(view.slots[j], 0) + COUNT] > 0.0:
                index[j] = fresh
        return fresh

    cdef void absorb(
        self, const View* view, Py_ssize_t k, Py_ssize_t chosen, double propensity, double reward, double weight
    ) noexcept nogil:
        cdef double* totals = view.totals
        cdef Py_ssize_t slot = view.slots[chosen]
        cdef double* arm = view.stats + N_STATS * slot
        cdef double kept
        if self.high > self.low:
            if reward < self.low or reward > self.high:
                totals[CLIPPED] += 1.0
            reward = (fmin(fmax(reward, self.low), self.high) - self.low) / (self.high - self.low)
        reward = fmin(fmax(reward, -LARGEST), LARGEST)
        if self.rule == EXP3S:
            self.share(view, k, chosen, propensity, reward, weight)
        elif self.rule == EXP3 or self.rule == TSALLIS:
            self.blame(view, k, arm, propensity, reward, weight)
        totals[CLOCK] += 1.0
        kept = self.age(view, arm)
        totals[WEIGHT] = self.discount * totals[WEIGHT] + weight
        arm[COUNT] = kept * arm[COUNT] + weight
        arm[TOTAL] = kept * arm[TOTAL] + weight * reward
        arm[LAST] = totals[CLOCK]
        if self.window:
            self.slide(view, slot, weight, reward)

    cdef void blame(
        self, const View* view, Py_ssize_t k, double* arm, double propensity, double reward, double weight
    ) noexcept nogil:
        """Add an importance-weighted loss."""
        cdef double low = INFINITY
        cdef const double* other
        cdef Py_ssize_t j
        if not arm[COUNT] > 0.0:
            for j in range(k):
                other = view.stats + N_STATS * max(view.slots[j], 0)
                if other[COUNT] > 0.0:
                    low = fmin(low, other[SCORE])
            arm[SCORE] = low if low < INFINITY else 0.0
        arm[SCORE] += fmin(weight * (1.0 - reward) / propensity, LARGEST)

    cdef void share(
        self, const View* view, Py_ssize_t k, Py_ssize_t chosen, double propensity, double reward, double weight
    ) noexcept nogil:
        """Exp3.S: multiply the weight of the chosen arm, then give every arm a share of the whole."""
        cdef Py_ssize_t j, known = 0
        cdef double top = -INFINITY, total = 0.0, mean, whole, gain, low, high
        cdef double* arm
        for j in range(k):
            arm = view.stats + N_STATS * max(view.slots[j], 0)
            if arm[COUNT] > 0.0:
                known += 1
                top = fmax(top, arm[SCORE])
        for j in range(k):
            arm = view.stats + N_STATS * max(view.slots[j], 0)
            if arm[COUNT] > 0.0:
                total += exp(arm[SCORE] - top)
        mean = top + log(total / known) if known else 0.0
        whole = mean + log(<double>k)
        # The bound holds by itself where the logged propensity is the policy's own.
        gain = weight * fmin(self.first * reward / (propensity * k), 1.0)
        for j in range(k):
            arm = view.stats + N_STATS * max(view.slots[j], 0)
            if j == chosen:
                if not arm[COUNT] > 0.0:
                    arm[SCORE] = mean
                arm[SCORE] += gain
            elif not arm[COUNT] > 0.0:
                continue
            if self.second > 0.0:
                high = log(2.718281828459045 * self.second / k) + whole
                low = fmin(arm[SCORE], high)
                high = fmax(arm[SCORE], high)
                arm[SCORE] = high + log1p(exp(low - high))

    cdef void slide(self, const View* view, Py_ssize_t slot, double weight, double reward) noexcept nogil:
        """Put an event into the window, and take the oldest out."""
        cdef double* totals = view.totals
        cdef Py_ssize_t at = <Py_ssize_t>totals[CURSOR], i
        cdef double* entry = view.ring_values + 2 * at
        cdef double* arm
        view.stats[N_STATS * slot + SCORE] += 1.0
        if view.ring_slots[at] > PRIOR:
            arm = view.stats + N_STATS * view.ring_slots[at]
            arm[SCORE] -= 1.0
            arm[COUNT] = fmax(arm[COUNT] - entry[0], 0.0)
            arm[TOTAL] -= entry[0] * entry[1]
            if arm[SCORE] <= 0.0:  # what is left is rounding error
                arm[COUNT] = arm[TOTAL] = 0.0
        totals[WEIGHT] = fmax(totals[WEIGHT] - entry[0], 0.0)
        view.ring_slots[at] = slot
        entry[0] = weight
        entry[1] = reward
        at += 1
        if at == self.window:
            at = 0
            for i in range(view.n_slots):
                view.stats[N_STATS * i + COUNT] = view.stats[N_STATS * i + TOTAL] = 0.0
            totals[WEIGHT] = 0.0
            for i in range(self.window):
                entry = view.ring_values + 2 * i
                totals[WEIGHT] += entry[0]
                if view.ring_slots[i] > PRIOR:
                    arm = view.stats + N_STATS * view.ring_slots[i]
                    arm[COUNT] += entry[0]
                    arm[TOTAL] += entry[0] * entry[1]
        totals[CURSOR] = at


cdef void soften(const double* index, double* p, Py_ssize_t k, double temperature) noexcept nogil:
    """Softmax, from the largest downwards."""
    cdef double top = -INFINITY, total = 0.0
    cdef Py_ssize_t j
    for j in range(k):
        top = fmax(top, index[j])
    for j in range(k):
        p[j] = exp((index[j] - top) / temperature)
        total += p[j]
    for j in range(k):
        p[j] /= total
