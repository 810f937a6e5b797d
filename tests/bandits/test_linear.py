"""Linear policies against closed forms and slow twins."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.bandits import build, load_policy
from penstock.decisions import Logged, Offers, draw
from penstock.errors import ConfigError, StoreError
from penstock.events import Features


def matrix(x):
    """Features of a dense array; zeros are left out, as a codec leaves them."""
    n, d = x.shape
    keep = x != 0
    hashes = (np.arange(d, dtype=np.uint32) + 1) * np.uint32(2654435761)
    indices = np.broadcast_to(hashes, (n, d))[keep]
    indptr = np.concatenate(([0], np.cumsum(keep.sum(axis=1)))).astype(np.int64)
    return Features(indptr, indices, x[keep], np.zeros(len(indices), np.uint32))


def offers_of(x, k, z=None, keys=None):
    """Every event offers arms 0 to k - 1, each with its row of `z` (n, k, dz)."""
    n = len(x)
    empty = Features(np.zeros(n * k + 1, np.int64), *(np.empty(0, t) for t in (np.uint32, float, np.uint32)))
    arms = np.empty(n * k, dtype=object)
    arms[:] = [str(a) for a in range(k)] * n
    return Offers(
        contexts=matrix(x),
        rows=[{}] * n,
        starts=np.arange(n + 1, dtype=np.int64) * k,
        arms=arms,
        actions=empty if z is None else matrix(z.reshape(n * k, -1)),
        action_rows=[{}] * (n * k),
        keys=np.arange(n, dtype=np.uint64) if keys is None else keys,
    )


def log_of(x, chosen, rewards, k, weights=None, z=None):
    n = len(x)
    return Logged(
        offers=offers_of(x, k, z),
        chosen=chosen,
        propensities=np.full(n, 1.0 / k),
        rewards=rewards,
        weights=np.ones(n) if weights is None else weights,
    )


def unpacked(packed):
    """The symmetric matrix. Rows are whole blocks of eight; those on the diagonal are symmetric."""
    rows, at = [], 0
    while at < len(packed):
        width = len(rows) // 8 * 8 + 8
        rows.append(packed[at : at + width])
        at += width
    d = len(rows)
    full = np.zeros((d, d))
    for i, row in enumerate(rows):
        full[i, : min(len(row), d)] = row[:d]
        assert not row[d:].any()
    for low in range(0, d, 8):
        block = full[low : low + 8, low : low + 8]
        np.testing.assert_array_equal(block, block.T)
    return np.tril(full) + np.tril(full, -1).T


def problem(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    chosen = rng.integers(0, k, n)
    theta = rng.normal(size=(k, d))
    rewards = np.einsum("nd,nd->n", x, theta[chosen]) + rng.normal(size=n)
    return x, chosen, rewards


def row_of(policy, state, arm):
    return json.loads(state["arms"]).index(arm) + 1


# --- posteriors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "k"), [(100_000, 16, 1), (20_000, 50, 3)], ids=["100,000 of 16", "20,000 of 50"]
)
def test_posteriors_are_batch_ridge_regression(n, d, k):
    x, chosen, rewards = problem(n, d, k)
    policy = build("linucb", intercept=False, l2=0.7)
    policy.learn(log_of(x, chosen, rewards, k))
    state = policy.state()
    for arm in range(k):
        mine = x[chosen == arm]
        a = 0.7 * np.eye(d) + mine.T @ mine
        row = row_of(policy, state, str(arm))
        mean = np.linalg.solve(a, mine.T @ rewards[chosen == arm])
        np.testing.assert_allclose(state["own/mean"][row], mean, rtol=1e-9, atol=1e-12)
        inverse = np.linalg.inv(a)
        p = unpacked(state["own/covariance"][row])
        np.testing.assert_allclose(p, inverse, rtol=1e-9, atol=1e-9 * inverse.max())
        np.testing.assert_allclose(unpacked(state["own/precision"][row]), a, rtol=1e-9)


def test_decisions_are_the_largest_bound():
    n, d, k = 600, 7, 4
    x, chosen, rewards = problem(n, d, k)
    policy = build("linucb", alpha=0.8)
    probabilities = policy.progress(log_of(x, chosen, rewards, k)).reshape(n, k)
    x1 = np.column_stack((np.ones(n), x))
    a, b = np.stack([np.eye(d + 1)] * k), np.zeros((k, d + 1))
    for i in range(n):
        p = np.linalg.inv(a)
        bound = np.einsum("kde,ke->kd", p, b) @ x1[i] + 0.8 * np.sqrt(
            np.einsum("d,kde,e->k", x1[i], p, x1[i])
        )
        if i == 0:
            np.testing.assert_array_equal(probabilities[0], 0.25)
        elif np.diff(np.sort(bound))[-1] > 1e-9:
            assert probabilities[i].argmax() == bound.argmax()
            assert probabilities[i].max() == 1.0
        a[chosen[i]] += np.outer(x1[i], x1[i])
        b[chosen[i]] += rewards[i] * x1[i]


class SlowRow:
    """One posterior, by inversion, with everything written out."""

    def __init__(self, d, l2, g):
        self.d, self.l2, self.g = d, l2, g
        self.a, self.b = l2 * np.eye(d), np.zeros(d)
        self.ridge, self.cursor, self.last = np.full(d, l2), 0, 0
        self.width, self.shape, self.scale = 0, 0.0, 0.0

    def update(self, x, r, w, clock):
        kept = self.g ** (clock - self.last)
        seen = slice(0, self.width)
        self.a[seen, seen] *= kept
        self.b *= kept
        self.ridge[seen] *= kept
        self.shape *= kept
        self.scale *= kept
        self.last = clock
        if not x.any():
            return
        self.width = max(self.width, int(np.flatnonzero(x)[-1]) + 1)
        p = np.linalg.inv(self.a)
        error = r - x @ p @ self.b
        self.shape += w / 2
        self.scale += w * error**2 / (2 * (1 + w * x @ p @ x))
        self.a += w * np.outer(x, x)
        self.b += w * r * x
        if self.g < 1:
            j = self.cursor if self.cursor < self.width else 0
            self.cursor = j + 1
            self.a[j, j] += self.l2 - self.ridge[j]
            self.ridge[j] = self.l2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 12),
    n=st.integers(1, 80),
    sparsity=st.sampled_from([0.0, 0.5, 0.9]),
    discount=st.sampled_from([1.0, 0.99, 0.8]),
    l2=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_kernel_matches_twin(seed, d, n, sparsity, discount, l2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * (rng.random((n, d)) >= sparsity)
    first_seen = list(dict.fromkeys(j for row in x for j in np.flatnonzero(row)))
    chosen, rewards = rng.integers(0, 2, n), rng.normal(size=n)
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], n)
    policy = build("linear_thompson", noise="learned", l2=l2, discount=discount, intercept=False, draws=1)
    policy.learn(log_of(x, chosen, rewards, 2, weights))
    state = policy.state()
    first_seen = list(dict.fromkeys(j for row in x[weights > 0] for j in np.flatnonzero(row)))
    ordered = x[:, first_seen]
    twins = {"0": SlowRow(len(first_seen), l2, discount), "1": SlowRow(len(first_seen), l2, discount)}
    clock = 0
    for i in np.flatnonzero(weights > 0):
        clock += 1
        twins[str(chosen[i])].update(ordered[i], rewards[i], weights[i], clock)
    assert len(state["own/features"]) == len(first_seen)
    assert state["totals"][0] == clock
    for arm in {str(c) for c in chosen[weights > 0]} if first_seen else ():
        row, twin = row_of(policy, state, arm), twins[arm]
        p = np.linalg.inv(twin.a)
        np.testing.assert_allclose(unpacked(state["own/precision"][row]), twin.a, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(unpacked(state["own/covariance"][row]), p, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(state["own/mean"][row], p @ twin.b, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(state["own/head"][row, 3:5], [twin.shape, twin.scale], rtol=1e-7)


def test_noise_is_the_batch_formula():
    x, chosen, rewards = problem(500, 6, 1)
    policy = build("linear_thompson", noise="learned", intercept=False)
    policy.learn(log_of(x, chosen, rewards, 1))
    a = 0.25 * np.eye(6) + x.T @ x
    mean = np.linalg.solve(a, x.T @ rewards)
    shape, scale = policy.state()["own/head"][1, 3:5]
    assert shape == 250.0
    np.testing.assert_allclose(scale, (rewards @ rewards - mean @ a @ mean) / 2, rtol=1e-12)


def test_silent_directions_do_not_wind_up():
    """Without care the variances of the silent half would be 1e21 times the prior's."""
    rng = np.random.default_rng(0)
    n, d = 6000, 16
    x = rng.normal(size=(n, d))
    x[100:, d // 2 :] = 0.0
    policy = build("linucb", discount=0.99, intercept=False)
    policy.learn(log_of(x, np.zeros(n, np.int64), rng.normal(size=n), 1))
    a = unpacked(policy.state()["own/precision"][1])
    assert np.linalg.eigvalsh(a).min() > 0.8
    p = unpacked(policy.state()["own/covariance"][1])
    np.testing.assert_allclose(p @ a, np.eye(d), atol=1e-9)


def test_an_arm_left_alone_is_uncertain_again():
    """With a discount, what was once a poor arm is tried again."""
    n = 400
    x = np.ones((n, 1))
    chosen = np.r_[np.tile([0, 1], 20), np.zeros(n - 40)].astype(np.int64)
    rewards = (chosen == 0) * 1.0
    for discount, tried in ((1.0, False), (0.99, True)):
        policy = build("linucb", discount=discount, alpha=2.0, intercept=False)
        probabilities = policy.progress(log_of(x, chosen, rewards, 2)).reshape(n, 2)
        assert probabilities[60:, 1].any() == tried


def test_ill_conditioned_features_are_renewed_not_lost():
    rng = np.random.default_rng(0)
    n = 300
    x = rng.normal(size=(n, 3))
    x[:, 2] = x[:, 0] + 1e-9 * x[:, 1]
    x[:, 1] *= 1e8
    policy = build("linucb", intercept=False)
    policy.learn(log_of(x, np.zeros(n, np.int64), x[:, 0], 1))
    p = unpacked(policy.state()["own/covariance"][1])
    assert (np.diag(p) > 0).all()
    assert (np.diag(p) <= 1 + 1e-6).all()


# --- sampling ---------------------------------------------------------------------------------------------

DRAWS = 40_000
ERROR = 5 * 0.5 / math.sqrt(DRAWS)


def test_normal_samples_have_the_posterior_probability():
    x, chosen, rewards = problem(40, 3, 2)
    policy = build("linear_thompson", draws=DRAWS, v=0.5, intercept=False)
    policy.learn(log_of(x, chosen, rewards, 2))
    x0 = np.array([[0.03, 0.1, -0.06]])
    means, variances = [], []
    for arm in range(2):
        mine = x[chosen == arm]
        p = np.linalg.inv(np.eye(3) + mine.T @ mine)
        means.append(x0[0] @ p @ mine.T @ rewards[chosen == arm])
        variances.append(0.25 * x0[0] @ p @ x0[0])
    expected = stats.norm.cdf((means[0] - means[1]) / math.sqrt(sum(variances)))
    assert 0.02 < expected < 0.98
    assert policy.probabilities(offers_of(x0, 2))[0] == pytest.approx(expected, abs=ERROR)


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_shared_samples_have_the_posterior_probability(noise):
    """Arms are correlated: what decides is the distribution of the difference."""
    rng = np.random.default_rng(1)
    n, k, d = 60, 2, 4
    z = rng.normal(size=(n, k, d))
    chosen = rng.integers(0, k, n)
    mine = z[np.arange(n), chosen]
    rewards = mine @ rng.normal(size=d) + rng.normal(size=n)
    empty = np.zeros((n, 1))
    policy = build(
        "linear_thompson", shared=True, draws=DRAWS, noise=noise, l2=1.0, intercept=False, crosses=False
    )
    policy.learn(log_of(empty, chosen, rewards, k, z=z))
    p = np.linalg.inv(np.eye(d) + mine.T @ mine)
    mean = p @ mine.T @ rewards
    z0 = np.concatenate([0.2 * rng.normal(size=(1, k, d)), np.zeros((1, k, 1))], axis=2)
    z0[0, 1, 4] = 0.3  # never seen: at the prior
    step = z0[0, 0] - z0[0, 1]
    deviation = math.sqrt(step[:4] @ p @ step[:4] + 0.09)
    score = step[:4] @ mean / deviation
    if noise == "known":
        expected = stats.norm.cdf(score)
    else:
        a, b = 6 + n / 2, 6 + (rewards @ rewards - mean @ np.linalg.inv(p) @ mean) / 2
        expected = stats.t.cdf(score / math.sqrt(b / a), 2 * a)
    assert 0.02 < expected < 0.98
    for policy_or_frozen in (policy, policy.freeze()):
        probabilities = policy_or_frozen.probabilities(offers_of(empty[:1], k, z0))
        assert probabilities[0] == pytest.approx(expected, abs=ERROR)


def test_learned_noise_samples_have_the_posterior_probability():
    x, chosen, _ = problem(30, 2, 2)
    rewards = np.random.default_rng(9).normal(size=30)
    policy = build("linear_thompson", noise="learned", draws=DRAWS, intercept=False)
    policy.learn(log_of(x, chosen, rewards, 2))
    x0 = np.array([[0.02, 0.15]])
    rng = np.random.default_rng(0)
    samples = []
    for arm in range(2):
        mine, r = x[chosen == arm], rewards[chosen == arm]
        a = 0.25 * np.eye(2) + mine.T @ mine
        mean = np.linalg.solve(a, mine.T @ r)
        shape, scale = 6 + len(r) / 2, 6 + (r @ r - mean @ a @ mean) / 2
        q = x0[0] @ np.linalg.solve(a, x0[0])
        samples.append(x0[0] @ mean + math.sqrt(q * scale / shape) * rng.standard_t(2 * shape, 400_000))
    expected = (samples[0] > samples[1]).mean()
    assert 0.02 < expected < 0.98
    assert policy.probabilities(offers_of(x0, 2))[0] == pytest.approx(expected, abs=ERROR)


def test_served_actions_follow_the_logged_distribution():
    x, chosen, rewards = problem(60, 3, 3)
    policy = build("linear_thompson", draws=50, floor=0.05)
    policy.learn(log_of(x, chosen, rewards, 3))
    n = 20_000
    offers = offers_of(np.tile([[0.1, 0.2, 0.0]], (n, 1)), 3)
    probabilities = policy.probabilities(offers).reshape(n, 3)
    served = [draw(p, key) for key, p in enumerate(probabilities)]
    observed = np.bincount(served, minlength=3)
    assert stats.chisquare(observed, probabilities.sum(axis=0)).pvalue > 1e-4


def test_equal_actions_share():
    policy = build("linear_thompson", shared=True, draws=64)
    z = np.repeat(np.array([[[1.0, 2.0]]]), 3, axis=1)
    np.testing.assert_allclose(policy.probabilities(offers_of(np.ones((1, 2)), 3, z)), 1 / 3, rtol=1e-12)


# --- logistic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [False, True])
def test_logistic_matches_twin(diagonal):
    rng = np.random.default_rng(2)
    n, d = 400, 5
    x = rng.normal(size=(n, d))
    rewards = (rng.random(n) < 1 / (1 + np.exp(-x @ rng.normal(size=d)))) * 1.0
    weights = rng.choice([0.5, 1.0, 2.0], n)
    policy = build("logistic_thompson", diagonal=diagonal, l2=2.0, intercept=False)
    policy.learn(log_of(x, np.zeros(n, np.int64), rewards, 1, weights))
    mean, s, q = np.zeros(d), np.eye(d) / 2.0, np.full(d, 2.0)
    for row, r, w in zip(x, rewards, weights, strict=True):
        p = 1 / (1 + math.exp(-row @ mean))
        h = w * max(p * (1 - p), 1e-4)
        if diagonal:
            q += h * row**2
            mean = mean + w * row * (r - p) / q
        else:
            gain = s @ row / (1 / h + row @ s @ row)
            s = s - np.outer(gain, s @ row)
            mean = mean + w * s @ row * (r - p)
    state = policy.state()
    np.testing.assert_allclose(state["own/mean"][1], mean, rtol=1e-9)
    if diagonal:
        np.testing.assert_allclose(state["own/covariance"][1], 1 / q, rtol=1e-9)
    else:
        np.testing.assert_allclose(unpacked(state["own/covariance"][1]), s, rtol=1e-8, atol=1e-12)


# --- hybrid -----------------------------------------------------------------------------------------------


def test_hybrid_is_the_whole_ridge_system():
    rng = np.random.default_rng(3)
    n, k, d, dz, l2 = 1500, 3, 4, 5, 0.5
    x, z = rng.normal(size=(n, d)), rng.normal(size=(n, k, dz))
    chosen = rng.integers(0, k, n)
    mine = z[np.arange(n), chosen]
    weights = rng.choice([0.5, 1.0, 2.0], n)
    rewards = mine @ rng.normal(size=dz) + np.einsum("nd,nd->n", x, rng.normal(size=(k, d))[chosen])
    rewards += 0.5 * rng.normal(size=n)
    policy = build("hybrid_linucb", l2=l2, alpha=0.7, crosses=False, intercept=False)
    log = log_of(x, chosen, rewards, k, weights, z)
    probabilities = policy.progress(log).reshape(n, k)
    own = np.zeros((n, k, d))
    own[np.arange(n), chosen] = x
    full = np.column_stack((mine, own.reshape(n, -1)))
    a = l2 * np.eye(full.shape[1])
    b = np.zeros(full.shape[1])
    agreed = compared = 0
    for i in range(n):
        if i > 50 and i % 10 == 0:
            vectors = np.zeros((k, len(b)))
            vectors[:, :dz] = z[i]
            for arm in range(k):
                vectors[arm, dz + arm * d : dz + (arm + 1) * d] = x[i]
            bound = vectors @ np.linalg.solve(a, b) + 0.7 * np.sqrt(
                np.einsum("kd,kd->k", vectors, np.linalg.solve(a, vectors.T).T)
            )
            compared += 1
            agreed += bound.argmax() == probabilities[i].argmax()
        a += weights[i] * np.outer(full[i], full[i])
        b += weights[i] * rewards[i] * full[i]
    assert agreed == compared > 100

    solution, inverse = np.linalg.solve(a, b), np.linalg.inv(a)
    state = policy.state()
    beta = state["common/mean"][0]
    np.testing.assert_allclose(beta, solution[:dz], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(unpacked(state["common/covariance"][0]), inverse[:dz, :dz], atol=1e-12)
    x0, z0 = rng.normal(size=d), rng.normal(size=dz)
    for arm in range(k):
        row = row_of(policy, state, str(arm))
        w = state["cross"][row]
        part = slice(dz + arm * d, dz + (arm + 1) * d)
        np.testing.assert_allclose(state["own/mean"][row] - w @ beta, solution[part], rtol=1e-10, atol=1e-12)
        rest = z0 - x0 @ w
        variance = x0 @ unpacked(state["own/covariance"][row]) @ x0
        variance += rest @ unpacked(state["common/covariance"][0]) @ rest
        whole = np.zeros(len(b))
        whole[:dz], whole[part] = z0, x0
        np.testing.assert_allclose(variance, whole @ inverse @ whole, rtol=1e-12, atol=1e-12)


def test_hybrid_survives_renewal():
    """After 1,300 updates of an arm everything has been taken anew from the sums."""
    rng = np.random.default_rng(4)
    n, d = 1700, 3
    x, z = rng.normal(size=(n, d)), rng.normal(size=(n, 1, 2))
    rewards = rng.normal(size=n)
    policy = build("hybrid_linucb", crosses=False, intercept=False, dimension=8)
    policy.learn(log_of(x, np.zeros(n, np.int64), rewards, 1, z=z))
    full = np.column_stack((z[:, 0], x))
    solution = np.linalg.solve(np.eye(5) + full.T @ full, full.T @ rewards)
    np.testing.assert_allclose(policy.state()["common/mean"][0], solution[:2], rtol=1e-11)


# --- features ---------------------------------------------------------------------------------------------


def test_features_without_room_are_dropped_and_counted():
    x, chosen, rewards = problem(100, 5, 1)
    narrow, wide = (
        build("linucb", dimension=3, intercept=False),
        build("linucb", dimension=3, intercept=False),
    )
    narrow.learn(log_of(x, chosen, rewards, 1))
    wide.learn(log_of(x[:, :3], chosen, rewards, 1))
    np.testing.assert_array_equal(narrow.state()["own/mean"], wide.state()["own/mean"])
    assert narrow.state()["totals"].tolist() == [100.0, 200.0]
    assert wide.state()["totals"].tolist() == [100.0, 0.0]


def test_crosses_let_a_shared_model_tell_contexts_apart():
    offers = Offers.from_rows(
        [{"x": 1.0}, {"x": -1.0}] * 100,
        [["a", "b"]] * 200,
        action_rows=[[{"up": 1.0}, {"up": -1.0}]] * 200,
    )
    chosen = np.arange(200) // 2 % 2
    rewards = (chosen == np.arange(200) % 2) * 1.0
    log = Logged(
        offers=offers,
        chosen=chosen,
        propensities=np.full(200, 0.5),
        rewards=rewards,
        weights=np.ones(200),
    )
    for crosses, expected in ((True, [1.0, 0.0, 0.0, 1.0]), (False, None)):
        policy = build("linucb", shared=True, crosses=crosses, alpha=0.1)
        policy.learn(log)
        got = policy.probabilities(offers.slice(0, 2)).tolist()
        assert (got == expected) == crosses


def test_actions_teach_the_shared_part_though_a_context_says_nothing():
    rng = np.random.default_rng(3)
    z, rewards = rng.normal(size=(40, 2, 3)), rng.normal(size=40)
    log = log_of(np.zeros((40, 1)), np.zeros(40, np.int64), rewards, 2, z=z)
    policy = build("hybrid_linucb", intercept=False)
    policy.learn(log)
    played = z[:, 0]
    mean = np.linalg.solve(np.eye(3) + played.T @ played, played.T @ rewards)
    np.testing.assert_allclose(policy.state()["common/mean"][0], mean, rtol=1e-9)


def test_a_feature_twice_counts_as_its_sum():
    once = Features(np.array([0, 1]), np.array([5], np.uint32), np.array([3.0]), np.zeros(1, np.uint32))
    twice = Features(
        np.array([0, 2]), np.array([5, 5], np.uint32), np.array([1.0, 2.0]), np.zeros(2, np.uint32)
    )
    states = []
    for features in (once, twice):
        base = log_of(np.ones((1, 1)), np.zeros(1, np.int64), np.ones(1), 2)
        offers = Offers(
            **{
                name: getattr(base.offers, name)
                for name in ("rows", "starts", "arms", "actions", "action_rows", "keys")
            },
            contexts=features,
        )
        policy = build("linucb")
        policy.learn(
            Logged(
                offers=offers,
                chosen=base.chosen,
                propensities=base.propensities,
                rewards=base.rewards,
                weights=base.weights,
            )
        )
        states.append(policy.state()["own/mean"])
    np.testing.assert_array_equal(*states)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("linucb", {"alpha": -1.0}, "alpha: expected a finite number >= 0, got -1.0"),
        ("linucb", {"dimension": 513}, "dimension: expected an integer >= 1 and <= 512, got 513"),
        ("linucb", {"shared": 1}, "shared: expected true or false, got 1"),
        (
            "linear_thompson",
            {"l2": 0.0},
            "l2: expected a finite number >= 1e-09 and <= 1000000000.0 or none, got 0.0",
        ),
        ("linear_thompson", {"noise": "none"}, "noise: expected 'known' or 'learned', got 'none'"),
        ("linear_thompson", {"a0": 2.0}, "a0: has no meaning with noise 'known', got 2.0"),
        ("logistic_thompson", {"draws": 0}, "draws: expected an integer >= 1 and <= 100000, got 0"),
        ("hybrid_linucb", {"floor": 1.5}, "floor: expected a finite number >= 0 and <= 1, got 1.5"),
    ],
)
def test_parameters_out_of_range(kind, parameters, message):
    with pytest.raises(ConfigError) as caught:
        build(kind, **parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("own/mean", lambda a: a[:, :-1]),
        ("own/mean", lambda a: np.full_like(a, np.nan)),
        ("own/mean", lambda a: a.astype(np.float32)),
        ("own/covariance", lambda a: a[:-1]),
        ("own/precision", lambda a: None),
        ("own/head", lambda a: np.full_like(a, 1e6)),
        ("own/head", lambda a: a - 1.0),
        ("own/features", lambda a: np.zeros_like(a)),
        ("own/features", lambda a: np.arange(300, dtype=np.uint32)),
        ("totals", lambda a: a[:1]),
        ("arms", lambda a: '["1", "1"]'),
        ("arms", lambda a: "not json"),
        ("evicted", lambda a: -1),
        ("settings", lambda a: a.replace('"seed": 0', '"seed": 1')),
        ("cross", lambda a: a[:, :, :-1]),
        ("moments", lambda a: np.full_like(a, np.inf)),
    ],
)
def test_state_that_does_not_fit_is_refused(name, change):
    kind = "hybrid_linucb" if name in ("cross", "moments") else "linucb"
    rng = np.random.default_rng(0)
    x, chosen, rewards = problem(50, 3, 2)
    log = log_of(x, chosen, rewards, 2, z=rng.normal(size=(50, 2, 2)))
    policy = build(kind)
    policy.learn(log)
    state = {**policy.state(), name: change(policy.state()[name])}
    before = policy.probabilities(log.offers)
    with pytest.raises(StoreError, match="policy state"):
        policy.restore(state)
    np.testing.assert_array_equal(policy.probabilities(log.offers), before)
    if name not in ("own/precision", "moments", "settings"):
        frozen = policy.freeze().state()
        with pytest.raises(StoreError, match="policy state"):
            load_policy(kind, {**frozen, name: change(frozen[name])})


@pytest.mark.parametrize(
    "settings_", ["[]", "{}", '{"explore": "ucb"}', '{"explore": "ucb", "dimension": "x"}']
)
def test_frozen_state_with_bad_settings_is_refused(settings_):
    state = {**build("linucb").freeze().state(), "settings": settings_}
    with pytest.raises(StoreError, match="policy state: settings"):
        load_policy("linucb", state)
