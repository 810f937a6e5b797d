"""A reward that is exchanged afterwards leaves what learning the right one would have left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.bandits import POLICIES, build
from penstock.bandits.base import Corrects
from penstock.decisions import Logged, Offers

ARMS = ["a", "b", "c", "d"]


def log_of(rng, rewards):
    n = len(rewards)
    offered = [ARMS[: 2 + i % 3] for i in range(n)]
    return Logged(
        offers=Offers.from_rows([{"x": float(i % 3)} for i in range(n)], offered),
        chosen=np.array([rng.integers(len(arms)) for arms in offered], np.int64),
        propensities=np.full(n, 0.25),
        rewards=rewards,
        weights=rng.choice([0.0, 0.5, 1.0, 3.0], n),
    )


def wrong_and_right(seed, n):
    """A log with wrong rewards, the same with right ones, and which differ; some beyond every range."""
    rng = np.random.default_rng(seed)
    wrong, right = rng.uniform(-0.5, 1.5, n), rng.uniform(-0.5, 1.5, n)
    which = np.flatnonzero(rng.random(n) < 0.4)
    right[np.setdiff1d(np.arange(n), which)] = wrong[np.setdiff1d(np.arange(n), which)]
    first, second = (log_of(np.random.default_rng(seed), rewards) for rewards in (wrong, right))
    return first, second, which


CORRECTING = [
    kind for kind in POLICIES if kind != "vw" and isinstance(p := build(kind), Corrects) and p.corrects
]


def test_the_policies_that_sum_rewards_can_be_corrected():
    assert {"beta_thompson", "gaussian_thompson", "ucb1", "kl_ucb", "epsilon_greedy", "softmax"} <= set(
        CORRECTING
    )
    for kind in ("exp3", "exp3s", "tsallis_inf"):
        assert not build(kind).corrects


@pytest.mark.parametrize("kind", CORRECTING)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60))
def test_learned_and_corrected_is_never_wrong(kind, seed, n):
    wrong, right, which = wrong_and_right(seed, n)
    policy, twin, one_by_one = build(kind), build(kind), build(kind)
    policy.learn(wrong)
    one_by_one.learn(wrong)
    twin.learn(right)
    for i in which.tolist():
        one_by_one.correct(wrong.slice(i, i + 1), wrong.rewards[[i]], right.rewards[[i]])
    if len(which):
        policy.correct(*_picked(wrong, which), right.rewards[which])
    assert_same(policy.state(), twin.state(), tolerance=1e-9)
    assert_same(policy.state(), one_by_one.state(), tolerance=0.0)


def _picked(log, which):
    offers = log.offers
    bounds = [(offers.starts[i], offers.starts[i + 1]) for i in which]
    picked = Logged(
        offers=Offers.from_rows(
            [offers.rows[i] for i in which], [offers.arms[low:high].tolist() for low, high in bounds]
        ),
        chosen=log.chosen[which],
        propensities=log.propensities[which],
        rewards=log.rewards[which],
        weights=log.weights[which],
    )
    return picked, log.rewards[which]


def assert_same(state, other, *, tolerance):
    assert state.keys() == other.keys()
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(value, other[name], rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            assert value == other[name]


@pytest.mark.parametrize("kind", CORRECTING)
def test_what_was_frozen_before_and_retired_arms_are_not_touched(kind):
    wrong, right, _ = wrong_and_right(1, 50)
    policy = build(kind)
    policy.learn(wrong)
    policy.retire("b")
    frozen = policy.freeze()
    before = frozen.probabilities(wrong.offers)
    policy.correct(wrong, wrong.rewards, right.rewards)
    np.testing.assert_array_equal(frozen.probabilities(wrong.offers), before)
    twin = build(kind)
    twin.learn(right)
    twin.retire("b")
    np.testing.assert_allclose(
        policy.probabilities(wrong.offers), twin.probabilities(wrong.offers), atol=1e-9
    )


@pytest.mark.parametrize("parameters", [{"discount": 0.9}, {"window": 10}, {"max_arms": 2}])
def test_what_has_been_forgotten_cannot_be_corrected(parameters):
    wrong, right, _ = wrong_and_right(2, 50)
    policy = build("beta_thompson", **parameters)
    policy.learn(wrong)
    assert not policy.corrects
    with pytest.raises(ValueError, match="can be corrected"):
        policy.correct(wrong, wrong.rewards, right.rewards)
