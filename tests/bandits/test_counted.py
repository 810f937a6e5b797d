"""Policies without context against closed forms and slow twins."""

import json
import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from penstock._native.tally import kl_upper_bound
from penstock.bandits import build, load_policy
from penstock.decisions import Logged, Offers, draw
from penstock.errors import ConfigError, StoreError
from penstock.events import Features

DRAWS = 40_000
ERROR = 5 * 0.5 / math.sqrt(DRAWS)


def log_of(chosen, rewards, k, propensities=None, weights=None):
    n = len(chosen)
    none = [np.empty(0, t) for t in (np.uint32, float, np.uint32)]
    arms = np.empty(n * k, dtype=object)
    arms[:] = [str(a) for a in range(k)] * n
    offers = Offers(
        contexts=Features(np.zeros(n + 1, np.int64), *none),
        rows=[{}] * n,
        starts=np.arange(n + 1, dtype=np.int64) * k,
        arms=arms,
        actions=Features(np.zeros(n * k + 1, np.int64), *none),
        action_rows=[{}] * (n * k),
        keys=np.arange(n, dtype=np.uint64),
    )
    return Logged(
        offers=offers,
        chosen=np.asarray(chosen, np.int64),
        propensities=np.full(n, 1.0 / k) if propensities is None else propensities,
        rewards=np.asarray(rewards, float),
        weights=np.ones(n) if weights is None else weights,
    )


def random_log(n, k, seed=0, binary=True, weighted=True):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, k, n)
    rewards = rng.random(n) < np.linspace(0.3, 0.7, k)[chosen] if binary else rng.random(n)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], n) if weighted else None
    return log_of(chosen, rewards, k, rng.uniform(0.1, 1, n), weights)


# --- sums -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 150), k=st.integers(1, 4), window=st.integers(1, 40))
def test_window_sums_are_those_of_its_events(seed, n, k, window):
    log = random_log(n, k, seed, binary=False)
    policy = build("beta_thompson", window=window)
    policy.learn(log)
    inside = deque(maxlen=window)
    for arm, reward, weight in zip(log.chosen, log.rewards, log.weights, strict=True):
        if weight > 0:
            inside.append((arm, reward, weight))
    state = policy.state()
    for row, arm in enumerate(json.loads(state["arms"])):
        mine = [(reward, weight) for a, reward, weight in inside if str(a) == arm]
        np.testing.assert_allclose(state["stats"][row, 0], sum(w for _, w in mine), rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(
            state["stats"][row, 1], sum(r * w for r, w in mine), rtol=1e-12, atol=1e-300
        )
    np.testing.assert_allclose(state["totals"][1], sum(w for *_, w in inside), rtol=1e-12)


def discounted(log, k, g):
    counts, totals = np.zeros(k), np.zeros(k)
    for arm, reward, weight in zip(log.chosen, log.rewards, log.weights, strict=True):
        if weight > 0:
            counts, totals = g * counts, g * totals
            counts[arm] += weight
            totals[arm] += weight * reward
    return counts, totals


@pytest.mark.parametrize("g", [1.0, 0.99, 0.9])
def test_ucb1_is_its_formula(g):
    k = 4
    log = random_log(300, k)
    policy = build("ucb1", discount=g, scale=0.7)
    policy.learn(log)
    counts, totals = discounted(log, k, g)
    index = totals / counts + 0.7 * np.sqrt(2 * np.log(counts.sum()) / counts)
    probabilities = policy.probabilities(log.offers.slice(0, 1))
    assert probabilities.argmax() == index.argmax()
    assert probabilities.max() == 1.0


@settings(max_examples=100, deadline=None)
@given(mean=st.floats(0, 1), budget=st.floats(1e-6, 20))
def test_kl_bound_is_the_root(mean, budget):
    def divergence(q):
        terms = (mean * math.log(mean / q) if mean else 0.0) + (
            (1 - mean) * math.log((1 - mean) / (1 - q)) if mean < 1 else 0.0
        )
        return terms - budget

    bound = kl_upper_bound(mean, budget)
    assert mean <= bound <= 1
    if mean < 1 - 1e-9:
        top = math.nextafter(1.0, 0.0)
        expected = optimize.brentq(divergence, mean, top, xtol=1e-15) if divergence(top) > 0 else 1.0
        assert bound == pytest.approx(expected, abs=1e-9)


def test_untried_arms_come_first_and_share():
    log = log_of([0] * 10, [1.0] * 10, 3)
    for kind in ("ucb1", "kl_ucb"):
        policy = build(kind)
        policy.learn(log)
        np.testing.assert_array_equal(policy.probabilities(log.offers.slice(0, 1)), [0, 0.5, 0.5])


def test_epsilon_greedy_is_its_formula():
    log = log_of([0, 1, 1, 2], [1.0, 0.0, 1.0, 0.0], 3)
    policy = build("epsilon_greedy", epsilon=0.3, initial=0.0)
    policy.learn(log)
    np.testing.assert_allclose(policy.probabilities(log.offers.slice(0, 1)), [0.8, 0.1, 0.1])
    decaying = build("epsilon_greedy", epsilon=0.3, initial=0.0, decays=True, floor=0.5)
    decaying.learn(log)
    epsilon = 0.3 * 5 ** (-1 / 3)
    p = np.array([1 - epsilon * 2 / 3, epsilon / 3, epsilon / 3])
    np.testing.assert_allclose(decaying.probabilities(log.offers.slice(0, 1)), 0.5 * p + 0.5 / 3)


def test_softmax_is_its_formula():
    log = log_of([0, 1, 1, 2], [1.0, 0.0, 1.0, 0.0], 3)
    policy = build("softmax", temperature=0.4, initial=0.5)
    policy.learn(log)
    means = np.array([1.5 / 2, 1.5 / 3, 0.5 / 2])
    expected = np.exp(means / 0.4) / np.exp(means / 0.4).sum()
    np.testing.assert_allclose(policy.probabilities(log.offers.slice(0, 1)), expected, rtol=1e-12)


# --- Thompson sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wins", "losses", "prior"), [((3, 1), (2, 2), 1.0), ((1, 0), (0, 1), 0.2), ((40, 35), (30, 34), 1.0)]
)
def test_beta_samples_have_the_posterior_probability(wins, losses, prior):
    chosen = np.repeat([0, 1, 0, 1], [*wins, *losses])
    rewards = np.repeat([1.0, 1.0, 0.0, 0.0], [*wins, *losses])
    policy = build("beta_thompson", draws=DRAWS, successes=prior, failures=prior)
    policy.learn(log_of(chosen, rewards, 2))
    one, other = (stats.beta(prior + w, prior + f) for w, f in zip(wins, losses, strict=True))
    expected = 1 - integrate.quad(lambda q: one.cdf(other.ppf(q)), 0, 1, limit=200)[0]
    got = policy.probabilities(log_of([0], [0], 2).offers)[0]
    assert got == pytest.approx(expected, abs=ERROR)


def test_gaussian_samples_have_the_posterior_probability():
    chosen, rewards = [0, 0, 0, 1, 1], [1.0, 2.0, 0.5, 1.8, 1.0]
    policy = build("gaussian_thompson", draws=DRAWS, noise=0.8, prior_mean=0.5, prior_weight=0.25)
    policy.learn(log_of(chosen, rewards, 2))
    mean = [(0.125 + 3.5) / 3.25, (0.125 + 2.8) / 2.25]
    deviation = 0.8 * math.sqrt(1 / 3.25 + 1 / 2.25)
    expected = stats.norm.cdf((mean[0] - mean[1]) / deviation)
    got = policy.probabilities(log_of([0], [0], 2).offers)[0]
    assert got == pytest.approx(expected, abs=ERROR)


def test_normals_are_normal():
    """The probability of an arm with a spread against one without is the distribution function."""
    for x in (-3.6, -2.0, -0.7, 0.0, 0.3, 1.5, 3.5):  # both beyond and within the ziggurat's layers
        policy = build("gaussian_thompson", draws=100_000, prior_weight=1.0, seed=3)
        sure = 1e16
        policy.learn(log_of([0], [x * sure / sure], 2, weights=np.array([sure])))
        expected = stats.norm.cdf(x)
        error = 5 * math.sqrt(max(expected * (1 - expected), 1e-6) / 100_000)
        assert policy.probabilities(log_of([0], [0], 2).offers)[0] == pytest.approx(expected, abs=error)


def test_fractions_of_a_reward_are_fractions_of_a_success():
    policy = build("beta_thompson", low=-1.0, high=3.0)
    policy.learn(log_of([0, 0, 0], [0.0, 5.0, -2.0], 1))
    state = policy.state()
    np.testing.assert_allclose(state["stats"][0, :2], [3.0, 1.25])
    assert state["totals"][2] == 2.0  # clipped


def test_served_actions_follow_the_logged_distribution():
    log = random_log(60, 3)
    policy = build("beta_thompson", draws=40, floor=0.1)
    policy.learn(log)
    n = 20_000
    probabilities = policy.probabilities(log_of([0] * n, [0] * n, 3).offers).reshape(n, 3)
    served = [draw(p, key) for key, p in enumerate(probabilities)]
    assert stats.chisquare(np.bincount(served, minlength=3), probabilities.sum(axis=0)).pvalue > 1e-4


def test_another_seed_or_key_draws_otherwise():
    log = log_of([0, 1], [1.0, 1.0], 2)
    one, other = build("beta_thompson", seed=1), build("beta_thompson", seed=2)
    a, b = one.probabilities(log.offers).reshape(2, 2)
    assert a[0] != b[0]
    assert other.probabilities(log.offers)[0] != a[0]


# --- exponential weights ----------------------------------------------------------------------------------


class SlowWeights:
    """Exp3, Exp3.S and Tsallis-INF over a fixed set of arms, all of them known."""

    def __init__(self, kind, k, gamma=0.1, alpha=0.001):
        self.kind, self.k, self.t = kind, k, 0
        self.gamma, self.alpha = gamma, alpha
        self.loss, self.weight = np.zeros(k), np.ones(k)

    def probabilities(self):
        t = self.t + 1
        if self.kind == "exp3":
            p = np.exp(-math.sqrt(math.log(self.k) / (self.k * t)) * (self.loss - self.loss.min()))
            return p / p.sum()
        if self.kind == "exp3s":
            return (1 - self.gamma) * self.weight / self.weight.sum() + self.gamma / self.k
        eta = 2 / math.sqrt(t)
        low = self.loss.min()
        x = optimize.brentq(
            lambda x: (4 / (eta * (self.loss - x)) ** 2).sum() - 1,
            low - math.sqrt(self.k) * 2 / eta - 1,
            low - 2 / eta,
            xtol=1e-13,
        )
        p = 4 / (eta * (self.loss - x)) ** 2
        return p / p.sum()

    def learn(self, arm, reward, propensity):
        self.t += 1
        self.loss[arm] += (1 - reward) / propensity
        whole = self.weight.sum()
        self.weight[arm] *= math.exp(min(self.gamma * reward / (propensity * self.k), 1.0))
        self.weight += math.e * self.alpha / self.k * whole


@pytest.mark.parametrize("kind", ["exp3", "exp3s", "tsallis_inf"])
def test_exponential_weights_match_twin(kind):
    k = 4
    log = random_log(200, k, weighted=False)
    first = log_of(range(k), [1.0] * k, k)  # after it every arm is known, with a loss of 0
    policy, twin = build(kind), SlowWeights(kind, k)
    policy.learn(first)
    twin.t = k
    if kind == "exp3s":
        twin.weight = np.exp(policy.state()["stats"][:, 2])
        assert twin.weight.min() > 1.0
    for p, *event in zip(
        policy.progress(log).reshape(-1, k), log.chosen, log.rewards, log.propensities, strict=True
    ):
        np.testing.assert_allclose(p, twin.probabilities(), rtol=1e-9)
        twin.learn(*event)


def test_a_new_arm_stands_with_the_others():
    """The best of them, or their mean: not with those that never lost."""
    chosen = np.arange(400) % 2
    for kind in ("exp3", "exp3s", "tsallis_inf"):
        policy = build(kind)
        policy.learn(log_of(chosen, chosen * 0.5, 2))
        old, young = (
            policy.probabilities(log_of([0], [0], 2).offers),
            policy.probabilities(log_of([0], [0], 3).offers),
        )
        assert old[0] < old[1]
        assert young[0] < young[2] <= young[1] + 1e-12


@pytest.mark.parametrize("kind", ["exp3", "exp3s", "tsallis_inf"])
def test_a_million_rounds_without_a_reward_stay_finite(kind):
    n = 1_000_000
    chosen = np.arange(n) % 2
    policy = build(kind)
    policy.learn(log_of(chosen, np.zeros(n), 2, np.full(n, 0.01)))
    assert np.isfinite(policy.state()["stats"]).all()
    probabilities = policy.probabilities(log_of([0], [0], 2).offers)
    np.testing.assert_allclose(probabilities, 0.5, atol=0.1)


# --- arms -------------------------------------------------------------------------------------------------


def test_a_retired_arm_is_not_chosen_and_learns_nothing():
    log = random_log(200, 3)
    for kind in ("beta_thompson", "ucb1", "exp3", "exp3s", "tsallis_inf", "softmax", "uniform", "linucb"):
        policy = build(kind, **({} if kind == "uniform" else {"floor": 0.3}))
        policy.learn(log)
        policy.retire("1")
        assert policy.retired == ("1",)
        p = policy.probabilities(log.offers).reshape(-1, 3)
        assert not p[:, 1].any()
        if kind != "uniform":
            assert p[:, [0, 2]].min() >= 0.15 - 1e-12
        state = policy.state()
        policy.learn(log_of([1, 1], [1.0, 1.0], 3))
        assert policy.state().keys() == state.keys()
        assert all(np.array_equal(policy.state()[name], state[name]) for name in state)
        assert policy.freeze().probabilities(log.offers).tolist() == policy.probabilities(log.offers).tolist()
        resumed = build(kind, **({} if kind == "uniform" else {"floor": 0.3}))
        resumed.restore(state)
        assert resumed.retired == ("1",)
        for arm in ("0", "2"):
            policy.retire(arm)
        np.testing.assert_allclose(policy.probabilities(log.offers), 1 / 3, atol=0.2)  # nobody else is there


def test_retiring_moves_nobody_else():
    log = random_log(200, 4)
    policy, other = build("ucb1", window=30), build("ucb1", window=30)
    for each in (policy, other):
        each.learn(log)
    policy.retire("2")
    state = policy.state()
    rest = log_of([0, 1, 3] * 20, [0.1, 0.5, 0.9] * 20, 4)
    policy.learn(rest)
    other.learn(rest)
    ours = dict(zip(json.loads(policy.state()["arms"]), policy.state()["stats"], strict=True))
    theirs = dict(zip(json.loads(other.state()["arms"]), other.state()["stats"], strict=True))
    assert json.loads(state["arms"]) == [arm for arm in json.loads(other.state()["arms"]) if arm != "2"]
    for arm, row in ours.items():
        np.testing.assert_allclose(row, theirs[arm], rtol=1e-12)


def test_past_the_most_arms_the_one_longest_without_reward_is_forgotten():
    policy = build("beta_thompson", max_arms=2)
    policy.learn(log_of([0, 1, 0, 2], [1.0, 1.0, 1.0, 1.0], 3))
    state = policy.state()
    assert state["arms"] == '["0", "2"]'
    assert state["evicted"] == 1
    np.testing.assert_array_equal(state["stats"][:, 0], [2.0, 1.0])


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("beta_thompson", {"successes": 0.0}, "successes: expected a finite number > 0, got 0.0"),
        ("beta_thompson", {"high": 0.0}, "high: expected a number > low (0.0), got 0.0"),
        (
            "ucb1",
            {"discount": 0.9, "window": 10},
            "window: has no meaning with a discount (0.9), got 10",
        ),
        ("ucb1", {"window": 2.5}, "window: expected an integer >= 1 and <= 10000000 or none, got 2.5"),
        ("exp3s", {"gamma": 1.1}, "gamma: expected a finite number >= 0 and <= 1, got 1.1"),
        ("softmax", {"temperature": float("nan")}, "temperature: expected a finite number > 0, got nan"),
    ],
)
def test_parameters_out_of_range(kind, parameters, message):
    with pytest.raises(ConfigError) as caught:
        build(kind, **parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stats", lambda a: a[:-1]),
        ("stats", lambda a: np.full_like(a, np.nan)),
        ("totals", lambda a: a[:2]),
        ("totals", lambda a: np.full_like(a, 1e9)),
        ("ring_slots", lambda a: a + 100),
        ("ring_values", lambda a: None),
        ("retired", lambda a: '["0"]'),
        ("arms", lambda a: '{"0": 1}'),
        ("settings", lambda a: "{}"),
    ],
)
def test_state_that_does_not_fit_is_refused(name, change):
    log = random_log(50, 2)
    policy = build("ucb1", window=10)
    policy.learn(log)
    before = policy.probabilities(log.offers)
    with pytest.raises(StoreError, match="policy state"):
        policy.restore({**policy.state(), name: change(policy.state()[name])})
    np.testing.assert_array_equal(policy.probabilities(log.offers), before)


def test_frozen_state_without_a_rule_is_refused():
    state = build("ucb1").freeze().state()
    for settings_ in ('{"rule": "none"}', '{"rule": "ucb1"}', "[1]", '{"rule": "ucb1", "window": "x"}'):
        with pytest.raises(StoreError, match="policy state: settings"):
            load_policy("ucb1", {**state, "settings": settings_})
