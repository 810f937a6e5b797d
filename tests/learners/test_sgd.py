"""The linear learner against a slow twin in numpy, and against its own promises."""

import copy
import itertools
import math
import pickle
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from penstock.errors import BadRecord, ConfigError, DataError, StoreError
from penstock.events import Batch, Features, Task
from penstock.learners import build, load_model
from penstock.learners.base import Learner, Model
from penstock.learners.sgd import SGD, SGDModel
from penstock.state import digest

CONSTANT = 11650396
FLOAT_MIN, FLOAT_MAX = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

CONFIGURATIONS = {
    "nag": {},
    "nag half-life": {"half_life": 3.0},
    "nag power": {"power_t": 0.2, "learning_rate": 2.0, "initial_t": 1.5},
    "nag plain": {"invariant": False, "learning_rate": 0.1},
    "nag regularised": {"l1": 1e-3, "l2": 1e-2},
    "nag crushed": {"l1": 5.0, "l2": 5.0, "learning_rate": 10.0},
    "adagrad": {"update": "adagrad"},
    "adagrad half-life": {"update": "adagrad", "half_life": 5.0, "power_t": 0.3},
    "sgd": {"update": "sgd", "learning_rate": 0.1},
    "sgd plain": {"update": "sgd", "learning_rate": 0.01, "invariant": False, "initial_t": 3.0},
    "sgd regularised": {"update": "sgd", "learning_rate": 0.1, "power_t": 0.0, "l1": 1e-3, "l2": 0.1},
    "ftrl": {"update": "ftrl"},
    "ftrl regularised": {"update": "ftrl", "ftrl_alpha": 0.1, "ftrl_beta": 0.5, "l1": 0.3, "l2": 0.2},
    "coin": {"update": "coin"},
    "coin eager": {"update": "coin", "ftrl_alpha": 8.0, "ftrl_beta": 0.1},
    "nag consolidated": {"consolidation": 2.0, "consolidate_every": 3},
    "adagrad consolidated": {
        "update": "adagrad",
        "half_life": 5.0,
        "consolidation": 0.5,
        "consolidate_every": 2,
        "consolidation_memory": 0.5,
    },
    "sgd consolidated": {
        "update": "sgd",
        "learning_rate": 0.1,
        "consolidation": 1.0,
        "consolidate_every": 1,
        "consolidation_memory": 1.0,
    },
}
TASKS = [
    ("binary", "logistic"),
    ("binary", "squared"),
    ("binary", "hinge"),
    ("regression", "squared"),
    ("regression", "quantile"),
    ("regression", "poisson"),
]
KINKED = ("hinge", "quantile")


def losses_of(configurations, losses):
    """Pairs that make sense: a loss without curvature has nothing to be consolidated by."""
    return [
        (name, *([loss] if isinstance(loss, str) else loss))
        for name in configurations
        for loss in losses
        if "consolidated" not in name or not {*KINKED} & {loss, *loss}
    ]


# -------------------------------------------------------------- the twin


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def entries_of(row, bits, interactions=()):
    """Buckets and values of one row of `Features`, with the constant and every cross, the obvious way."""
    indices, values, namespaces = row
    everything = list(zip(namespaces.tolist(), indices.tolist(), values.tolist(), strict=True))
    entries = [(index, value) for _, index, value in everything] + [(CONSTANT, 1.0)]
    done = set()
    for spec in interactions:
        wild = [t for t, name in enumerate(spec) if name is None]
        for spaces in itertools.product(*[sorted({n for n, _, _ in everything})] * len(spec)):
            fits = all(name is None or name == space for name, space in zip(spec, spaces, strict=True))
            ascending = all(spaces[a] <= spaces[b] for a, b in itertools.pairwise(wild))
            if not fits or not ascending or tuple(sorted(spaces)) in done:
                continue
            done.add(tuple(sorted(spaces)))
            ordered = sorted(spaces) if len(set(spaces)) == 2 < len(spaces) else spaces
            groups = [sorted((i, v) for n, i, v in everything if n == space) for space in ordered]
            for places in itertools.product(*[range(len(group)) for group in groups]):
                adjacent = zip(itertools.pairwise(ordered), itertools.pairwise(places), strict=True)
                if any(a == b and x > y for (a, b), (x, y) in adjacent):
                    continue
                chosen = [group[place] for group, place in zip(groups, places, strict=True)]
                index, value = chosen[0]
                for other, factor in chosen[1:]:
                    index, value = (16777619 * index) % 2**32 ^ other, value * factor
                entries.append((index, value))
    return [(index % 2**bits, value) for index, value in entries]


def stored(x):
    """As the table stores a number: float32, and finite."""
    return np.float32(min(max(x, -FLOAT_MAX), FLOAT_MAX))


class Twin:
    """One output: an update rule and a loss, written for reading; state in float32, as in the table."""

    def __init__(
        self, loss, update="nag", learning_rate=0.5, power_t=0.5, initial_t=0.0, l1=0.0, l2=0.0,
        invariant=True, ftrl_alpha=None, ftrl_beta=None, quantile_tau=0.5, half_life=None,
        consolidation=0.0, consolidate_every=None, consolidation_memory=0.9, clock=0,
    ):  # fmt: skip
        self.strength, self.every, self.memory = consolidation, consolidate_every, consolidation_memory
        self.held = defaultdict(lambda: np.zeros(4, np.float32))  # anchor, importance, mean, touches
        self.loss, self.update, self.power_t, self.invariant = loss, update, power_t, invariant
        self.l1, self.l2, self.tau, self.half_life = l1, l2, quantile_tau, half_life
        self.alpha, self.beta = {"coin": (4.0, 1.0)}.get(update, (0.5, 1.0))
        self.alpha, self.beta = ftrl_alpha or self.alpha, ftrl_beta or self.beta
        self.t = (initial_t or 1.0) if update == "sgd" else initial_t
        self.eta = learning_rate * (self.t**power_t if update == "sgd" else 1.0)
        self.sum_norm = self.sum_weight = initial_t if update == "nag" else 0.0
        start = np.zeros(8, np.float32)
        start[1] = initial_t if update in ("nag", "adagrad") else 0.0
        self.slots = defaultdict(start.copy)
        self.touched = defaultdict(int)
        self.low, self.high = (-50.0, 50.0) if loss in ("logistic", "softmax", "poisson") else (0.0, 0.0)
        self.c, self.gravity, self.clock = 1.0, 0.0, clock

    def clipped(self, margin):
        return min(max(margin, self.low), self.high)

    def effective(self, slot):
        w = float(slot[0])
        return float(np.float32(math.copysign(max(abs(w) - self.gravity, 0.0), w) * self.c))

    def margin(self, entries):
        return sum(self.effective(self.slots[bucket]) * x for bucket, x in entries)

    def predict(self, entries):
        p = self.clipped(self.margin(entries))
        return {"logistic": sigmoid, "hinge": sigmoid, "poisson": math.exp}.get(self.loss, lambda p: p)(p)

    def derivative(self, p, y):
        if self.loss == "logistic":
            return sigmoid(p) - y
        if self.loss == "squared":
            return 2 * (p - y)
        if self.loss == "hinge":
            return 0.0 if (2 * y - 1) * p >= 1 else 1 - 2 * y
        if self.loss == "quantile":
            return 0.0 if p == y else (-self.tau if p < y else 1 - self.tau)
        return math.exp(min(max(p, -44), 44)) - y

    def step(self, p, y, h, q):
        d = self.derivative(p, y)
        if not self.invariant:
            return -h * d
        if self.loss == "squared":
            return (y - p) * -math.expm1(-2 * h * q) / q
        if self.loss == "logistic":
            sign = 2 * y - 1
            scale = math.exp(sign * p)
            return (
                sign
                * brentq(
                    lambda z: z + scale * math.expm1(z) - h * q,
                    0,
                    h * q / (1 + scale),
                    xtol=1e-15,
                    rtol=1e-14,
                )
                / q
            )
        if self.loss == "poisson":
            p = min(max(p, -44), 44)
            if y == 0:
                return -math.log1p(math.exp(p) * h * q) / q
            if y * h * q > 44:
                return (math.log(y) - p) / q
            return y * h - math.log1p(math.exp(p) * math.expm1(y * h * q) / y) / q
        kink = 2 * y - 1 if self.loss == "hinge" else y
        return -d * min(h, abs((kink - p) / (q * d)))

    def learn(self, entries, y, weight, derivative=None):
        if weight == 0:
            return
        self.clock += 1
        if self.loss in ("squared", "hinge", "quantile"):
            label = 2 * y - 1 if self.loss == "hinge" else y
            self.low, self.high = min(self.low, label), max(self.high, label)
        if self.update == "coin":
            self.learn_coin(entries, y, weight, derivative)
            return
        p = self.clipped(self.margin(entries))
        d = self.derivative(p, y) if derivative is None else derivative
        if self.update == "ftrl":
            self.learn_ftrl(entries, d * weight)
            return
        self.descend(entries, y, weight, p, d, capped=derivative is not None)
        self.t += weight
        if self.every and self.clock % self.every == 0:
            self.consolidate()

    def curvature(self, p, d):
        if self.loss == "squared":
            return 2.0
        return math.exp(min(max(p, -44), 44)) if self.loss == "poisson" else abs(d) * (1 - abs(d))

    def hold_on(self, slot, held, step, curvature, weight):
        """The proximal step of strength/2 * importance * (w - anchor)^2, and the mean of importances."""
        anchor, importance, mean, touches = held.tolist()
        c = step * self.strength * importance
        slot[0] = stored((float(slot[0]) + c * anchor) / (1 + c))
        held[2] = stored(mean + weight / (touches + weight) * (curvature - mean))
        held[3] = stored(touches + weight)

    def consolidate(self):
        for bucket, slot in self.slots.items():
            held = self.held[bucket]
            held[0] = slot[0]
            if held[3] > 0:
                held[1] = stored(self.memory * float(held[1]) + float(held[2]))
                held[2:] = 0.0

    def descend(self, entries, y, weight, p, d, capped):
        g2 = weight * d * d
        if g2 == 0 or (self.loss == "logistic" and abs(d) <= 2.0**-24):
            return
        norm = q = 0.0
        rates = {}
        for bucket, x in entries:
            s = self.slots[bucket]
            x2, size = max(x * x, FLOAT_MIN), np.float32(abs(x))
            rate = 1.0
            if self.update != "sgd":
                squares = float(s[1])
                if self.half_life:
                    squares *= 2 ** (-(self.clock - self.touched[bucket]) / self.half_life)
                    self.touched[bucket] = self.clock
                s[1] = stored(max(squares + g2 * x2, FLOAT_MIN))
                rate = float(s[1]) ** -self.power_t
            if self.update == "nag":
                if size > s[2]:
                    if s[2] > 0:
                        s[0] = stored(float(s[0]) * (float(s[2]) / float(size)) ** (2 - 2 * self.power_t))
                    s[2] = size
                norm += x2 / float(s[2]) ** 2
                rate *= float(s[2]) ** (2 * self.power_t - 2)
            rates[bucket] = float(np.float32(rate))
            q += x2 * rate
        multiplier, h = 1.0, self.eta * weight
        if self.update == "nag":
            self.sum_norm += weight * norm
            self.sum_weight += weight
            multiplier = (self.sum_weight / self.sum_norm) ** (1 - self.power_t)
        if self.update == "sgd":
            h *= (self.t + weight) ** -self.power_t
        q *= multiplier
        u = -d * min(h, 1 / q) if capped else self.step(p, y, h, q)
        if (self.l1 or self.l2) and abs(u) > 1e-8:
            if abs(d) > 1e-8:
                self.c *= max(1 + self.l2 * u / d, 1e-3)  # never past zero
                self.gravity -= self.l1 * u / d
            u /= self.c
        for bucket, x in entries:
            s = self.slots[bucket]
            s[0] = stored(float(s[0]) + u * multiplier * rates[bucket] * x)
        if self.strength:
            for bucket, x in entries:
                step = -u * multiplier * rates[bucket] / d
                self.hold_on(
                    self.slots[bucket], self.held[bucket], step, self.curvature(p, d) * x * x, weight
                )
        if self.c < 1e-9 or self.gravity > 1e3:
            for s in self.slots.values():
                s[0] = stored(self.effective(s))
            self.c, self.gravity = 1.0, 0.0

    def learn_ftrl(self, entries, g):
        for bucket, x in entries:
            s = self.slots[bucket]
            before = math.sqrt(s[2])
            s[2] = stored(float(s[2]) + (g * x) ** 2)
            sigma = (math.sqrt(s[2]) - before) / self.alpha
            s[1] = stored(float(s[1]) + g * x - sigma * float(s[0]))
            z = float(s[1])
            shrunk = max(abs(z) - self.l1, 0.0)
            s[0] = stored(-math.copysign(shrunk, z) / (self.l2 + (self.beta + math.sqrt(s[2])) / self.alpha))

    def learn_coin(self, entries, y, weight, derivative):
        def bet(s, largest, lipschitz):
            scale = lipschitz * largest
            w = (self.alpha + float(s[4])) / (scale * (scale + float(s[2]))) * float(s[1]) if scale else 0.0
            return float(np.float32(w))

        p = 0.0
        for bucket, x in entries:
            s = self.slots[bucket]
            largest = max(float(s[3]), abs(x))
            p += bet(s, largest, float(s[5])) * x
            self.sum_norm += weight * (x / largest) ** 2
        self.sum_weight += weight
        average = (self.sum_norm + 1e-6) / self.sum_weight
        d = self.derivative(self.clipped(p / average), y) if derivative is None else derivative(p / average)
        g = d * weight
        for bucket, x in entries:
            s = self.slots[bucket]
            s[3] = stored(max(float(s[3]), abs(x)))
            if abs(g) > s[5]:
                s[5] = stored(max(abs(g), self.beta))
            w = bet(s, float(s[3]), float(s[5]))
            s[1] = stored(float(s[1]) - g * x)
            s[2] = stored(float(s[2]) + abs(g * x))
            s[4] = stored(float(s[4]) - g * x * w)
            s[0] = stored(w / average)


def each_row(features):
    for i in range(len(features)):
        own = slice(features.indptr[i], features.indptr[i + 1])
        yield features.indices[own], features.values[own], features.namespaces[own]


# ---------------------------------------------------------------- events


def hand_made(rows, labels, weights=None):
    """A batch of lists of (index, value, namespace), not hashed by anybody."""
    flat = [entry for row in rows for entry in row]
    return Batch(
        features=Features(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.array([e[0] for e in flat], np.uint32),
            np.array([e[1] for e in flat], np.float64),
            np.array([e[2] for e in flat], np.uint32),
        ),
        labels=np.array(labels, np.float64),
        weights=np.ones(len(rows)) if weights is None else np.array(weights, np.float64),
        times=np.full(len(rows), np.nan),
        rows=[{}] * len(rows),
    )


def labels_for(kind, loss):
    if kind == "multiclass":
        return st.integers(0, 3).map(float)
    if kind == "binary":
        return st.sampled_from([0.0, 1.0])
    return st.integers(0, 9).map(float) if loss == "poisson" else st.integers(-80, 80).map(lambda y: y / 8)


MILD = st.floats(0.03125, 8, width=32).flatmap(lambda x: st.sampled_from([x, -x]))


@st.composite
def events(draw, kind="binary", loss="logistic", values=MILD, max_size=12, weights=None):
    entry = st.tuples(st.integers(0, 2**32 - 1) | st.integers(0, 9), values, st.sampled_from([0, 7, 9]))
    weight = st.sampled_from([0.0, 0.25, 1.0, 3.0]) if weights is None else weights
    event = st.tuples(st.lists(entry, max_size=5), labels_for(kind, loss), weight)
    drawn = draw(st.lists(event, min_size=1, max_size=max_size))
    return hand_made(*zip(*drawn, strict=True))


def simulated(kind, n=200, d=6, seed=0, classes=3, scales=3.0):
    """A batch of dicts that a linear model can learn, on scales from ``10**-scales`` to ``10**scales``."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-scales, scales, d)
    z = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.7)
    signal = z @ rng.normal(size=(d, classes))
    if kind == "multiclass":
        labels = signal.argmax(1).astype(float)
    elif kind == "binary":
        labels = (rng.random(n) < 1 / (1 + np.exp(-signal[:, 0]))).astype(float)
    else:
        labels = np.abs(signal[:, 0]).round()
    rows = [{f"f{j}": float(v) for j, v in enumerate(row) if v} for row in z * scale]
    return Batch.from_rows(rows, labels, rng.uniform(0.1, 3, n))


# ------------------------------------------------------ against the twin


def twin_of_one_output(batch, kind, loss, parameters, bits):
    twin = Twin(loss, **parameters)
    expected = []
    for row, y, weight in zip(each_row(batch.features), batch.labels, batch.weights, strict=True):
        entries = entries_of(row, bits)
        expected.append(twin.predict(entries))
        twin.learn(entries, y, weight)
    return np.clip(expected, 0, 1) if kind == "binary" else expected


def learned_by(twins):
    return max((twin.clock for twin in twins.values()), default=0)


def twin_of_many_outputs(batch, loss, parameters, bits):
    twins = {}
    expected = np.zeros((len(batch), int(batch.labels.max()) + 1))
    for i, (row, y) in enumerate(zip(each_row(batch.features), batch.labels, strict=True)):
        entries = entries_of(row, bits)
        for k, twin in twins.items():
            expected[i, k] = min(max(twin.predict(entries), 0), 1)
        if twins:
            total = expected[i].sum()
            expected[i, list(twins)] = expected[i, list(twins)] / total if total else 1 / len(twins)
        if batch.weights[i]:
            twins.setdefault(int(y), Twin(loss, **parameters, clock=learned_by(twins)))
        for k, twin in twins.items():
            twin.learn(entries, float(k == y), batch.weights[i])
    return expected


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize(("kind", "loss"), [task for task in TASKS if task[1] not in KINKED])
@settings(max_examples=8)
@given(data=st.data())
def test_matches_the_twin(configuration, kind, loss, data):
    parameters = CONFIGURATIONS[configuration]
    batch = data.draw(events(kind, loss))
    got = SGD(Task(kind), loss=loss, bits=4, **parameters).progress(batch)
    expected = twin_of_one_output(batch, kind, loss, parameters, bits=4)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("configuration", "kind", "loss"), losses_of(CONFIGURATIONS, TASKS))
def test_matches_the_twin_on_a_stream(configuration, kind, loss):
    """Kinked losses only here: at a kink, which drawn events like to hit, rounding picks the side."""
    parameters = CONFIGURATIONS[configuration]
    batch = simulated(kind, n=60, scales=0.5)
    got = SGD(Task(kind), loss=loss, bits=6, **parameters).progress(batch)
    expected = twin_of_one_output(batch, kind, loss, parameters, bits=6)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@settings(max_examples=10)
@given(data=st.data())
def test_one_against_all_is_one_binary_learner_a_class(configuration, data):
    parameters = CONFIGURATIONS[configuration]
    batch = data.draw(events("multiclass"))
    got = SGD(Task("multiclass"), bits=4, **parameters).progress(batch)
    expected = twin_of_many_outputs(batch, "logistic", parameters, bits=4)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("configuration", "loss"), losses_of(CONFIGURATIONS, ["logistic", "squared", "hinge"])
)
def test_one_against_all_on_a_stream(configuration, loss):
    parameters = CONFIGURATIONS[configuration]
    batch = simulated("multiclass", n=60, scales=0.5)
    got = SGD(Task("multiclass"), loss=loss, bits=6, **parameters).progress(batch)
    expected = twin_of_many_outputs(batch, loss, parameters, bits=6)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("configuration", [name for name in CONFIGURATIONS if "plain" not in name])
@settings(max_examples=10)
@given(data=st.data())
def test_softmax_matches_the_twin(configuration, data):
    parameters = CONFIGURATIONS[configuration]
    batch = data.draw(events("multiclass"))
    twins = {}

    def probabilities(margins):
        powers = {k: math.exp(twins[k].clipped(m)) for k, m in margins.items()}
        return {k: power / sum(powers.values()) for k, power in powers.items()}

    expected = np.zeros((len(batch), int(batch.labels.max()) + 1))
    for i, (row, y, weight) in enumerate(
        zip(each_row(batch.features), batch.labels, batch.weights, strict=True)
    ):
        entries = entries_of(row, bits=4)
        for k, p in probabilities({k: twin.margin(entries) for k, twin in twins.items()}).items():
            expected[i, k] = p
        if weight == 0:
            continue
        twins.setdefault(int(y), Twin("softmax", **parameters, clock=learned_by(twins)))
        if parameters.get("update") == "coin":
            fresh = {}
            for (
                k,
                twin,
            ) in twins.items():  # the gradient is where all the fresh bets would have put the margins
                copy.deepcopy(twin).learn(
                    entries, 0.0, weight, lambda m, k=k, seen=fresh: seen.setdefault(k, m) * 0
                )
            after = probabilities(fresh)
            for k, twin in twins.items():
                twin.learn(entries, 0.0, weight, lambda _, d=after[k] - float(k == y): d)
        else:
            now = probabilities({k: twin.margin(entries) for k, twin in twins.items()})
            for k, twin in twins.items():
                twin.learn(entries, 0.0, weight, now[k] - float(k == y))
    got = SGD(Task("multiclass"), multiclass="softmax", bits=4, **parameters).progress(batch)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


SPECS = [
    ["a", "b"],
    ["b", "a"],
    ["*", "*"],
    ["a", "*"],
    ["", "a"],
    ["a", "b", "a"],
    ["a", "*", "*"],
    ["*"] * 3,
]


@settings(max_examples=30)
@given(specs=st.lists(st.sampled_from(SPECS), min_size=1, max_size=3), data=st.data())
def test_crosses_match_the_obvious_loops(specs, data):
    """Also where they overlap, and where there are more than one block holds."""
    spaces = {"": 0}
    rows = []
    for _ in range(2):
        names = st.sampled_from([f"f{i}" for i in range(12)])
        inner = st.dictionaries(names, MILD, max_size=8)
        row = data.draw(st.fixed_dictionaries({"a": inner, "b": inner, "c": inner}))
        rows.append({**row, **data.draw(inner)})
    for name in "abc":
        spaces[name] = int(Batch.from_rows([{name: {"x": 1.0}}]).features.namespaces[0])
    batch = Batch.from_rows(rows, [1.0, 0.0])
    numbered = [[None if name == "*" else spaces[name] for name in spec] for spec in specs]
    twin = Twin("squared")
    expected = []
    for row, y in zip(each_row(batch.features), batch.labels, strict=True):
        entries = entries_of(row, 18, numbered)
        expected.append(twin.predict(entries))
        twin.learn(entries, y, 1.0)
    got = SGD(Task("regression"), interactions=specs).progress(batch)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------- known by hand


def test_the_first_step_on_one_feature():
    # G = 4, N = 1, rate 1/2, q = 1/2: the prediction moves from 0 to 1 - exp(-2 * 0.5 * 0.5).
    learner = SGD(Task("regression"), constant=False)
    batch = Batch.from_rows([{"x": 1.0}], [1.0])
    assert learner.progress(batch) == [0.0]
    assert learner.predict(batch)[0] == pytest.approx(1 - math.exp(-0.5), rel=1e-7)


def test_hinge_stops_at_the_margin():
    learner = SGD(Task("binary"), loss="hinge", learning_rate=1e6)
    learner.learn_one({"x": 3.0}, 1.0)
    assert learner.predict_one({"x": 3.0}) == pytest.approx(sigmoid(1.0), rel=1e-6)


def test_poisson_with_no_end_of_weight_predicts_the_count():
    learner = SGD(Task("regression"), loss="poisson")
    learner.learn_one({"x": 3.0}, 7.0, 1e9)
    assert learner.predict_one({"x": 3.0}) == pytest.approx(7.0, rel=1e-5)


def test_regression_stays_in_the_range_of_labels_unless_told_otherwise():
    row = {"x": 1.0}
    bounded, free = SGD(Task("regression")), SGD(Task("regression"), clip=False)
    for learner in (bounded, free):
        learner.learn_one(row, 2.0, 100.0)
    assert bounded.predict_one({"x": 5.0}) == 2.0
    assert free.predict_one({"x": 5.0}) > 2.0


def test_an_event_that_is_certain_already_changes_no_scale():
    learner = SGD(Task("binary"), constant=False)
    learner.learn_one({"x": 1.0}, 1.0, 1e8)
    before = digest(learner.state())
    assert learner.predict_one({"x": 3.0}) > 1 - 2.0**-24
    learner.learn_one({"x": 3.0}, 1.0)
    table = learner.state()["table"]
    assert table[:, 0, 2].max() == 1.0
    assert digest(learner.state()) != before  # the clock has gone on


# -------------------------------------------------------------- promises


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_is_a_learner(kind):
    learner = build("sgd", Task(kind))
    assert isinstance(learner, Learner)
    assert isinstance(learner.freeze(), Model)


@settings(max_examples=25)
@given(data=st.data())
def test_scales_of_features_do_not_matter(data):
    batch = simulated("regression", n=60, seed=data.draw(st.integers(0, 9)))
    factors = {f"f{j}": 10.0 ** data.draw(st.floats(-3, 3)) for j in range(6)}
    rescaled = [{name: value * factors[name] for name, value in row.items()} for row in batch.rows]
    plain = SGD(Task("regression")).progress(batch)
    scaled = SGD(Task("regression")).progress(Batch.from_rows(rescaled, batch.labels, batch.weights))
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "loss"), [task for task in TASKS if task != ("binary", "hinge")] + [("binary", "hinge")]
)
@given(weight=st.floats(0.1, 20), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_an_event_of_weight_two_is_two_events(kind, loss, weight, seed):
    batch = simulated(kind, n=1, seed=seed)
    once, twice = (
        SGD(Task(kind), loss=loss, update="sgd", power_t=0.0, learning_rate=1e-6, clip=True) for _ in range(2)
    )
    once.learn_one(batch.rows[0], batch.labels[0], 2 * weight)
    for _ in range(2):
        twice.learn_one(batch.rows[0], batch.labels[0], weight)
    np.testing.assert_allclose(twice.predict(batch), once.predict(batch), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@settings(max_examples=6)
@given(data=st.data())
def test_batches_do_not_matter(kind, configuration, data):
    batch = data.draw(events(kind, "squared"))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=5)))
    make = partial(SGD, Task(kind), bits=5, interactions=[["*", "*"]], **CONFIGURATIONS[configuration])
    whole, cut, learned = make(), make(), make()
    expected = whole.progress(batch)
    start = 0
    for stop in [*cuts, len(batch)]:
        got = cut.progress(batch.slice(start, stop))
        part = expected[start:stop]
        if kind == "multiclass":
            assert not part[:, got.shape[1] :].any()
            part = part[:, : got.shape[1]]
        assert (got == part).all()
        start = stop
    learned.learn(batch)
    assert digest(cut.state()) == digest(whole.state()) == digest(learned.state())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_single_events_are_batches_of_one(kind, configuration):
    batch = simulated(kind, n=30)
    one, many = (SGD(Task(kind), bits=6, **CONFIGURATIONS[configuration]) for _ in range(2))
    for i, event in enumerate(batch.events()):
        expected = many.progress(event)[0]
        if i % 2:
            got = one.progress_one(event.rows[0], event.labels[0], event.weights[0])
        else:
            got = one.predict_one(event.rows[0])
            one.learn_one(event.rows[0], event.labels[0], event.weights[0])
            got = np.append(got, np.zeros(len(expected) - len(got))) if kind == "multiclass" else got
        assert np.array_equal(got, expected)
    assert digest(one.state()) == digest(many.state())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_state_goes_on_as_if_nothing_had_happened(kind, configuration):
    batch = simulated(kind)
    make = partial(SGD, Task(kind), bits=8, **CONFIGURATIONS[configuration])
    learner, resumed = make(), make()
    learner.learn(batch.slice(0, 120))
    resumed.learn(batch.slice(100, 110))  # to be forgotten
    state = learner.state()
    before = digest(state)
    resumed.restore(state)
    assert digest(resumed.state()) == before
    expected = learner.progress(batch.slice(120, 200))
    assert digest(state) == before  # no memory is shared, on either side
    assert (resumed.progress(batch.slice(120, 200)) == expected).all()
    assert digest(state) == before
    assert digest(resumed.state()) == digest(learner.state())
    for twin in (pickle.loads(pickle.dumps(resumed)), copy.deepcopy(resumed)):
        assert digest(twin.state()) == digest(resumed.state())
        twin.learn(batch)
    assert digest(resumed.state()) == digest(learner.state())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_prediction_and_weight_zero_change_nothing(kind, configuration):
    batch = simulated(kind)
    learner = SGD(Task(kind), bits=8, **CONFIGURATIONS[configuration])
    learner.learn(batch.slice(0, 100))
    before = digest(learner.state())
    predicted = learner.predict(batch)
    weightless = batch.with_weights(np.zeros(len(batch)))
    assert np.array_equal(learner.progress(weightless), predicted)
    learner.learn(weightless.with_labels(np.full(len(batch), 1.0)))
    learner.learn_one(batch.rows[0], 1.0, 0.0)
    learner.freeze()
    assert digest(learner.state()) == before


def test_a_weightless_event_introduces_no_class():
    learner = SGD(Task("multiclass"), bits=4)
    learner.learn_one({"x": 1.0}, 0.0)
    out = learner.progress(Batch.from_rows([{"x": 1.0}] * 2, [2.0, 0.0], [0.0, 1.0]))
    assert out.tolist() == [[1.0, 0.0, 0.0]] * 2
    assert learner.predict_one({"x": 1.0}).tolist() == [1.0]


def test_classes_have_no_probability_before_they_are_sighted():
    learner = SGD(Task("multiclass"), bits=4)
    rows = [{"x": 1.0}, {"y": 1.0}, {"x": 1.0}, {"y": 1.0}]
    out = learner.progress(Batch.from_rows(rows, [1.0, 4.0, 0.0, 1.0]))
    assert out.shape == (4, 5)
    assert [np.flatnonzero(row).tolist() for row in out] == [[], [1], [1, 4], [0, 1, 4]]
    np.testing.assert_allclose(out[1:].sum(1), 1.0)
    assert SGD(Task("multiclass")).predict(Batch.from_rows(rows)).shape == (4, 0)


@pytest.mark.parametrize("multiclass", ["oaa", "softmax"])
def test_learns_classes(multiclass):
    batch = simulated("multiclass", n=2000, classes=5)
    probabilities = SGD(Task("multiclass"), multiclass=multiclass).progress(batch)
    assert (probabilities.argmax(1) == batch.labels)[1000:].mean() > 0.85


def test_the_order_of_features_does_not_matter():
    rng = np.random.default_rng(0)
    batch = simulated("binary")
    shuffled = []
    for row in batch.rows:
        names = list(row)
        rng.shuffle(names)
        shuffled.append({name: row[name] for name in names})
    make = partial(SGD, Task("binary"), interactions=[["*", "*"], ["*", "*", "*"]])
    np.testing.assert_allclose(
        make().progress(Batch.from_rows(shuffled, batch.labels, batch.weights)),
        make().progress(batch),
        rtol=1e-4,
    )


def test_more_crosses_than_a_block_holds():
    row = {f"f{i}": 1.0 + i / 64 for i in range(40)}
    learner = SGD(Task("regression"), bits=22, interactions=[["", ""]])
    batch = Batch.from_rows([row], [3.0])
    entries = entries_of(next(each_row(batch.features)), 22, [[0, 0]])
    assert len(entries) == 40 + 1 + 820
    twin = Twin("squared")
    for _ in range(3):
        learner.learn(batch)
        twin.learn(entries, 3.0, 1.0)
    assert learner.predict_one(row) == pytest.approx(twin.predict(entries), rel=1e-5)


@pytest.mark.parametrize("size", [511, 512, 513, 2000])
def test_a_long_row_is_learned_as_well_as_a_short_one(size):
    row = {f"f{i}": 1.0 + i / size for i in range(size)}
    learner = SGD(Task("regression"), bits=22)
    batch = Batch.from_rows([row], [3.0])
    twin = Twin("squared")
    entries = entries_of(next(each_row(batch.features)), 22)
    for _ in range(3):
        learner.learn(batch)
        twin.learn(entries, 3.0, 1.0)
    assert learner.predict_one(row) == pytest.approx(twin.predict(entries), rel=1e-5)


# --------------------------------------------------------- hostile input

HOSTILE = st.floats(allow_nan=True, allow_infinity=True)
ANY_FINITE = st.floats(allow_nan=False, allow_infinity=False)


HOSTED = [
    *(
        (kind, loss, {"loss": loss, **CONFIGURATIONS[name]})
        for name, kind, loss in losses_of(CONFIGURATIONS, TASKS)
    ),
    *(("multiclass", "logistic", parameters) for parameters in CONFIGURATIONS.values()),
    *(
        ("multiclass", "softmax", {"multiclass": "softmax", **parameters})
        for parameters in CONFIGURATIONS.values()
        if "invariant" not in parameters
    ),
    ("regression", "squared", {"clip": False}),
    ("regression", "quantile", {"loss": "quantile", "clip": False}),
]


@pytest.mark.parametrize(("kind", "loss", "parameters"), HOSTED)
@settings(max_examples=10)
@given(data=st.data())
def test_predictions_stay_finite_whatever_comes(kind, loss, parameters, data):
    batch = data.draw(events(kind, loss, values=HOSTILE, weights=ANY_FINITE.map(abs)))
    if kind == "regression":
        labels = data.draw(st.lists(ANY_FINITE, min_size=len(batch), max_size=len(batch)))
        batch = batch.with_labels(np.abs(labels) if loss == "poisson" else np.array(labels))
    learner = SGD(Task(kind), bits=3, interactions=[["*", "*"], ["*", "*", "*"]], **parameters)
    outputs = [learner.progress(batch), learner.progress(batch), learner.predict(batch)]
    outputs.append(learner.freeze().predict(batch))
    for out in outputs:
        assert np.isfinite(out).all()
        if kind != "regression":
            assert ((out >= 0) & (out <= 1)).all()
    state = learner.state()
    if "half_life" not in parameters:  # a time of last touch is not a float
        assert np.isfinite(state["table"]).all()
    assert np.isfinite(state["totals"]).all()
    if "consolidation" in parameters:
        assert np.isfinite(state["held"]).all()
        assert (state["held"][:, :, 1:] >= 0).all()


@pytest.mark.parametrize(
    ("kind", "loss", "label", "expected"),
    [
        ("binary", "logistic", 0.5, "0 or 1"),
        ("binary", "logistic", 2.0, "0 or 1"),
        ("binary", "logistic", math.nan, "0 or 1"),
        ("binary", "hinge", 0.5, "0 or 1"),
        ("regression", "squared", math.inf, "a finite number"),
        ("regression", "poisson", -1.0, "a finite number >= 0"),
        ("multiclass", "logistic", 0.5, "a class number from 0 to 65535"),
        ("multiclass", "logistic", 1e300, "a class number from 0 to 65535"),
        ("multiclass", "logistic", math.nan, "a class number from 0 to 65535"),
    ],
)
def test_a_label_that_cannot_be_learned_is_refused_before_anything_is(kind, loss, label, expected):
    learner = SGD(Task(kind), loss=loss, bits=4)
    before = digest(learner.state())
    with pytest.raises(BadRecord) as caught:
        learner.learn(Batch.from_rows([{"x": 1.0}] * 2, [1.0, label]))
    assert str(caught.value) == f"expected {expected}, got {label} - at `$.label`, event 1 of the batch"
    with pytest.raises(BadRecord) as caught:
        learner.progress_one({"x": 1.0}, label)
    assert str(caught.value) == f"expected {expected}, got {label} - at `$.label`"
    assert digest(learner.state()) == before


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight):
    learner = SGD(Task("binary"), bits=4)
    for refused in (
        lambda: learner.learn(Batch.from_rows([{"x": 1.0}], [1.0], [weight])),
        lambda: learner.learn_one({"x": 1.0}, 1.0, weight),
    ):
        with pytest.raises(BadRecord, match="expected a finite weight >= 0"):
            refused()


def test_class_names_must_have_been_numbered():
    with pytest.raises(DataError, match="labels must be numbers"):
        SGD(Task("multiclass")).learn(Batch.from_rows([{"x": 1.0}], ["cat"]))


def test_a_row_that_is_no_row_is_refused_and_the_learner_goes_on():
    learner = SGD(Task("binary"))
    for broken in ({"x": math.nan}, {"x": object()}):
        with pytest.raises(BadRecord):
            learner.learn_one(broken, 1.0)
        with pytest.raises(BadRecord):
            learner.freeze().predict_one(broken)
    assert learner.predict_one({"x": 1.0}) == 0.5


def test_a_value_may_call_the_model_back():
    model = SGD(Task("binary")).freeze()

    class Inner:
        def __float__(self):
            return model.predict_one({"a": 1.0, "b": 2.0})

    assert model.predict_one({"x": Inner()}) == 0.5


# -------------------------------------------------------------- freezing


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_frozen_model_predicts_as_the_learner_did_and_never_changes(kind, configuration):
    batch = simulated(kind)
    learner = SGD(Task(kind), bits=8, interactions=[["*", "*"]], **CONFIGURATIONS[configuration])
    learner.learn(batch.slice(0, 100))
    expected = learner.predict(batch)
    model = learner.freeze()
    frozen = model.predict(batch)
    assert (frozen == expected).all()
    before = digest(model.state())
    learner.learn(batch)
    assert (model.predict(batch) == frozen).all()
    assert digest(model.state()) == before
    assert all(np.array_equal(model.predict_one(row), p) for row, p in zip(batch.rows, frozen, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        model.weights[0] = 1.0
    for again in (load_model("sgd", model.state()), pickle.loads(pickle.dumps(model))):
        assert (again.predict(batch) == frozen).all()
        assert digest(again.state()) == before


def test_single_predictions_are_those_of_the_batch():
    for kind in ("binary", "multiclass", "regression"):
        batch = simulated(kind)
        learner = SGD(Task(kind))
        learner.learn(batch)
        model = learner.freeze()
        expected = model.predict(batch)
        assert all(
            np.array_equal(model.predict_one(row), p) for row, p in zip(batch.rows, expected, strict=True)
        )


def test_a_model_can_be_shared_by_threads():
    batch = simulated("multiclass", n=300)
    learner = SGD(Task("multiclass"), interactions=[["*", "*"]])
    learner.learn(batch)
    model = learner.freeze()
    expected = model.predict(batch)

    def check(_):
        singles = [
            np.array_equal(model.predict_one(row), p) for row, p in zip(batch.rows, expected, strict=True)
        ]
        return all(singles) and (model.predict(batch) == expected).all()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(12)))


def test_loading_a_memory_map_copies_no_weights(tmp_path):
    batch = simulated("binary")
    learner = SGD(Task("binary"))
    learner.learn(batch)
    model = learner.freeze()
    np.save(tmp_path / "weights.npy", model.weights)
    mapped = np.load(tmp_path / "weights.npy", mmap_mode="r")
    loaded = SGD.load({**model.state(), "weights": mapped})
    assert np.shares_memory(loaded.weights, mapped)
    assert (loaded.predict(batch) == model.predict(batch)).all()


def test_loading_writable_arrays_leaves_them_to_their_owner():
    model = SGD(Task("binary"), bits=4).freeze()
    state = {**model.state(), "weights": model.weights.copy()}
    loaded = SGD.load(state)
    state["weights"][:] = 7.0
    assert not loaded.weights.any()


BROKEN_MODELS = [
    ("task", "bandit"),
    ("task", np.zeros(2)),
    ("loss", "poisson"),
    ("loss", None),
    ("bits", 31),
    ("bits", True),
    ("bits", 5),
    ("constant", 1),
    ("interactions", "[[1, 2]]"),
    ("interactions", "[" * 10**5),
    ("interactions", 3),
    ("weights", np.zeros(16)),
    ("weights", np.zeros(15, np.float32)),
    ("weights", np.zeros(16, ">f4")),
    ("weights", "no array"),
    ("limits", np.zeros((2, 2))),
    ("limits", np.array([[1.0, -1.0]])),
    ("limits", np.array([[np.nan, 1.0]])),
    ("sighted", np.ones((1, 1), np.uint8)),
    ("sighted", np.ones(2, np.uint8)),
    ("sighted", np.ones(1, np.int64)),
]


@pytest.mark.parametrize(("name", "value"), BROKEN_MODELS)
def test_a_broken_model_is_not_loaded(name, value):
    state = SGD(Task("binary"), bits=4).freeze().state()
    with pytest.raises(StoreError, match="sgd model"):
        SGD.load({**state, name: value})
    with pytest.raises(StoreError, match="sgd model"):
        SGD.load({key: entry for key, entry in state.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("update", "ftrl"),
        ("loss", np.zeros(2)),
        ("events", -1),
        ("events", "many"),
        ("table", None),
        ("table", np.zeros((16, 1, 3), np.float32)),
        ("table", np.zeros((16, 2, 4), np.float32)),
        ("totals", np.full((1, 7), np.nan)),
        ("totals", np.zeros((1, 6))),
        ("sighted", np.full(1, 2, np.uint8)),
    ],
)
def test_a_broken_checkpoint_is_not_restored(name, value):
    learner = SGD(Task("binary"), bits=4)
    learner.learn_one({"x": 1.0}, 1.0)
    state = learner.state()
    with pytest.raises(StoreError, match="sgd state"):
        learner.restore({**state, name: value})
    assert digest(learner.state()) == digest(state)


# --------------------------------------------------------- configuration


REFUSED = [
    ("binary", {"bits": 31}, "bits: expected an integer >= 1 and <= 30, got 31"),
    ("binary", {"bits": 2.0}, "bits: expected an integer >= 1 and <= 30, got 2.0"),
    ("binary", {"learning_rate": 0}, "learning_rate: expected a finite number > 0, got 0"),
    ("binary", {"learning_rate": math.inf}, "learning_rate: expected a finite number > 0, got inf"),
    ("binary", {"l2": "much"}, "l2: expected a finite number >= 0, got 'much'"),
    ("binary", {"half_life": -1}, "half_life: expected a finite number > 0 or none, got -1"),
    ("binary", {"constant": 1}, "constant: expected true or false, got 1"),
    ("binary", {"multiclass": "ovo"}, "multiclass: expected 'oaa' or 'softmax', got 'ovo'"),
    (
        "binary",
        {"loss": "poisson"},
        "loss: expected 'logistic' or 'squared' or 'hinge' for binary, got 'poisson'",
    ),
    (
        "regression",
        {"loss": "hinge"},
        "loss: expected 'squared' or 'quantile' or 'poisson' for regression, got 'hinge'",
    ),
    ("binary", {"multiclass": "softmax"}, "multiclass: 'softmax' does not fit a binary task"),
    (
        "multiclass",
        {"multiclass": "softmax", "loss": "hinge"},
        "loss: 'softmax' has a loss of its own, got 'hinge'",
    ),
    (
        "multiclass",
        {"multiclass": "softmax", "invariant": False},
        "invariant: has no meaning with 'softmax', got False",
    ),
    ("binary", {"quantile_tau": 0.9}, "quantile_tau: has no meaning with loss 'logistic', got 0.9"),
    ("binary", {"update": "ftrl", "half_life": 5}, "half_life: has no meaning with update 'ftrl', got 5"),
    ("binary", {"update": "coin", "l1": 0.1}, "l1: has no meaning with update 'coin', got 0.1"),
    ("binary", {"update": "sgd", "half_life": 5}, "half_life: has no meaning with update 'sgd', got 5"),
    ("binary", {"consolidation": -1}, "consolidation: expected a finite number >= 0, got -1"),
    (
        "binary",
        {"consolidation": 1, "consolidation_memory": 1.5},
        "consolidation_memory: expected a finite number >= 0 and <= 1, got 1.5",
    ),
    (
        "binary",
        {"consolidate_every": 100},
        "consolidate_every: has no meaning with consolidation 0, got 100",
    ),
    (
        "binary",
        {"loss": "hinge", "consolidation": 1},
        "consolidation: has no meaning with loss 'hinge', got 1",
    ),
    (
        "regression",
        {"update": "ftrl", "consolidation": 1},
        "consolidation: has no meaning with update 'ftrl', got 1",
    ),
    (
        "binary",
        {"l2": 0.1, "consolidation": 1},
        "l2: has no meaning with consolidation, which draws weights elsewhere than to 0, got 0.1",
    ),
    ("binary", {"ftrl_alpha": 1.0}, "ftrl_alpha: has no meaning with update 'nag', got 1.0"),
    ("binary", {"clip": False}, "clip: has no meaning with a binary task with loss 'logistic', got False"),
    ("binary", {"interactions": "ab"}, "interactions: expected a list of lists of namespaces, got 'ab'"),
    (
        "binary",
        {"interactions": [["a"]]},
        "interactions[0]: expected 2 or 3 names of namespaces, got ['a']",
    ),
    (
        "binary",
        {"interactions": [["a", "b"], [1, 2]]},
        "interactions[1]: expected 2 or 3 names of namespaces, got [1, 2]",
    ),
]


@pytest.mark.parametrize(("kind", "parameters", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(kind, parameters, message):
    with pytest.raises(ConfigError) as caught:
        SGD(Task(kind), **parameters)
    assert str(caught.value) == message


def test_sgd_model_is_what_freeze_returns():
    assert isinstance(SGD(Task("binary")).freeze(), SGDModel)
