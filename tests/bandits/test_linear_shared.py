"""Many actions under one model: most are ruled out unmeasured, and nobody can tell."""

import numpy as np
import pytest

from penstock.bandits import build
from penstock.decisions import Logged, Offers
from penstock.events import Features


def features(x):
    """Features of a dense array; zeros are left out, as a codec leaves them."""
    keep = x != 0
    hashes = (np.arange(x.shape[1], dtype=np.uint32) + 1) * np.uint32(2654435761)
    indptr = np.concatenate(([0], np.cumsum(keep.sum(axis=1)))).astype(np.int64)
    indices = np.broadcast_to(hashes, x.shape)[keep]
    return Features(indptr, indices, x[keep], np.zeros(len(indices), np.uint32))


def menu(actions, context=(), names=None):
    """One event that offers every row of `actions`."""
    k = len(actions)
    arms = np.empty(k, dtype=object)
    arms[:] = names or [f"a{i}" for i in range(k)]
    return Offers(
        contexts=features(np.array([context], float)),
        rows=[{}],
        starts=np.array([0, k]),
        arms=arms,
        actions=features(actions),
        action_rows=[{}] * k,
        keys=np.zeros(1, np.uint64),
    )


def taught(actions, rng, n, context=(), **parameters):
    """A policy that has learned n of `actions`, and the inverse and mean that it should have."""
    d = actions.shape[1]
    policy = build("linucb", shared=True, intercept=False, **parameters)
    l2 = parameters.get("l2", 1.0)
    a, b = l2 * np.eye(d), np.zeros(d)
    weights = rng.normal(size=d)
    for i in rng.integers(0, len(actions), n):
        reward = float(actions[i] @ weights + rng.normal())
        policy.learn(
            Logged(
                offers=menu(actions[i : i + 1], context),
                chosen=np.zeros(1, np.int64),
                propensities=np.ones(1),
                rewards=np.array([reward]),
                weights=np.ones(1),
            )
        )
        a += np.outer(actions[i], actions[i])
        b += reward * actions[i]
    return policy, np.linalg.inv(a), np.linalg.solve(a, b)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("n", [1, 5, 60, 400])
@pytest.mark.parametrize("d", [1, 5, 8, 19, 50])
def test_the_largest_of_many_bounds_is_found(d, n, alpha):
    rng = np.random.default_rng([d, n])
    actions = rng.normal(size=(600, d)) * rng.gamma(1.0, size=(600, 1))
    policy, inverse, mean = taught(actions, rng, n, alpha=alpha, l2=0.5)
    bounds = actions @ mean + alpha * np.sqrt(np.einsum("kd,kd->k", actions @ inverse, actions))
    np.testing.assert_array_equal(policy.probabilities(menu(actions)), np.arange(600) == bounds.argmax())


@pytest.mark.parametrize("discount", [1.0, 0.99, 0.9])
def test_the_best_of_many_is_the_best_of_any_few(discount):
    """Few are all measured. With a discount, uncertainty has grown since the last update."""
    rng = np.random.default_rng(2)
    actions = rng.normal(size=(500, 6))
    policy, _, _ = taught(actions, rng, 300, alpha=1.0, discount=discount)
    best = int(policy.probabilities(menu(actions)).argmax())
    for low in range(0, 500, 20):
        few = np.append(actions[low : low + 20], actions[best : best + 1], axis=0)
        got = policy.probabilities(menu(few))
        assert got[-1] == (0.5 if low <= best < low + 20 else 1.0)


@pytest.mark.parametrize("sparsity", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("crosses", [False, True])
@pytest.mark.parametrize("context", [(), (1.0, 2.0)], ids=["no context", "context"])
def test_equal_actions_have_equal_bounds_wherever_they_stand(context, crosses, sparsity):
    """To the bit: in a panel, skimmed or gathered one by one, between others of any kind."""
    rng = np.random.default_rng(11)
    kinds = rng.normal(size=(40, 9)) * (rng.random((40, 9)) >= sparsity)
    policy, _, _ = taught(kinds, rng, 30, context, crosses=crosses, alpha=1.0)
    for _ in range(20):
        which = rng.integers(0, 40, 500)
        got = policy.probabilities(menu(kinds[which], context))
        best = which[got.argmax()]
        np.testing.assert_array_equal(got, (which == best) / np.sum(which == best))
        few = policy.probabilities(menu(kinds[np.unique(which)], context))
        assert np.unique(which)[few.argmax()] == best


@pytest.mark.parametrize("value", [1e12, 1e200, np.inf, np.nan])
@pytest.mark.parametrize("d", [7, 8, 20])
def test_what_is_too_large_counts_as_the_largest(d, value):
    rng = np.random.default_rng(4)
    actions = rng.normal(size=(200, d))
    policy, _, mean = taught(actions, rng, 100, alpha=1.0)
    for column in range(d):
        actions = rng.normal(size=(200, d))
        actions[[3, 100, 199]] = 1.0
        actions[[3, 100, 199], column] = np.copysign([value, 1e9, value], mean[column])
        expected = np.isin(np.arange(200), [3, 100, 199]) / 3
        np.testing.assert_array_equal(policy.probabilities(menu(actions)), expected)


@pytest.mark.parametrize("scale", [0.0, 1e-160, 1e-90])
def test_what_is_too_small_to_compare_is_not_ruled_out(scale):
    rng = np.random.default_rng(5)
    kinds = rng.normal(size=(3, 10))
    policy, _, _ = taught(kinds, rng, 50, alpha=0.0)
    which = np.arange(300) % 3
    got = policy.probabilities(menu(kinds[which] * scale))
    best = np.isin(which, which[got > 0])
    np.testing.assert_array_equal(got, best / best.sum())


def test_the_retired_rule_nobody_out():
    rng = np.random.default_rng(6)
    actions = rng.normal(size=(300, 5))
    policy, inverse, mean = taught(actions, rng, 50, alpha=0.5)
    bounds = actions @ mean + 0.5 * np.sqrt(np.einsum("kd,kd->k", actions @ inverse, actions))
    order = np.argsort(-bounds)
    for i in order[:20]:
        policy.retire(f"a{i}")
    np.testing.assert_array_equal(policy.probabilities(menu(actions)), np.arange(300) == order[20])
    gone = actions[order[:20]]
    offered = menu(np.tile(gone, (5, 1)), names=[f"a{i}" for i in order[:20]] * 5)
    np.testing.assert_array_equal(policy.probabilities(offered), (np.arange(100) % 20 == 0) / 5)


def test_a_frozen_policy_finds_the_same():
    rng = np.random.default_rng(7)
    actions = rng.normal(size=(400, 12))
    policy, _, _ = taught(actions, rng, 30)
    np.testing.assert_array_equal(
        policy.freeze().probabilities(menu(actions)), policy.probabilities(menu(actions))
    )
