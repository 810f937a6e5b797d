"""A reward that is exchanged afterwards leaves what learning the right one would have left."""

import json

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
        offers=Offers.from_rows(
            [{"x": float(i % 3), "y": rng.normal(), f"town{i % 5}": 1.0} if i % 11 else {} for i in range(n)],
            offered,
            action_rows=[[{"cost": rng.normal(), arm: 1.0} for arm in arms] for arms in offered],
        ),
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


def made(policy):
    """A policy from "kind" or "kind {parameters, as JSON}"."""
    kind, _, parameters = policy.partition(" ")
    return build(kind, **json.loads(parameters or "{}"))


CORRECTING = [
    *(kind for kind in POLICIES if kind != "vw" and isinstance(p := build(kind), Corrects) and p.corrects),
    'linucb {"l2": 0.01, "dimension": 4}',
    'linucb {"shared": true, "dimension": 9, "l2": 3.0}',
    'hybrid_linucb {"dimension": 7, "intercept": false}',
    'hybrid_linucb {"crosses": false}',
    'linear_thompson {"noise": "learned"}',
    'linear_thompson {"noise": "learned", "shared": true}',
]
ROWS = [kind for kind in CORRECTING if "shared" not in kind and "hybrid" not in kind]  # nothing but arms


def test_the_policies_that_sum_rewards_can_be_corrected():
    counts = {"beta_thompson", "gaussian_thompson", "ucb1", "kl_ucb", "epsilon_greedy", "softmax"}
    assert counts | {"linucb", "hybrid_linucb", "linear_thompson"} <= set(CORRECTING)
    for kind in ("exp3", "exp3s", "tsallis_inf", "logistic_thompson"):
        assert not build(kind).corrects


@pytest.mark.parametrize("kind", CORRECTING)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60))
def test_learned_and_corrected_is_never_wrong(kind, seed, n):
    wrong, right, which = wrong_and_right(seed, n)
    policy, twin, one_by_one = made(kind), made(kind), made(kind)
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
            [offers.rows[i] for i in which],
            [offers.arms[low:high].tolist() for low, high in bounds],
            action_rows=[offers.action_rows[low:high] for low, high in bounds],
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


@pytest.mark.parametrize("kind", ROWS)
def test_what_was_frozen_before_and_retired_arms_are_not_touched(kind):
    wrong, right, _ = wrong_and_right(1, 50)
    policy = made(kind)
    policy.learn(wrong)
    policy.retire("b")
    frozen = policy.freeze()
    before = frozen.probabilities(wrong.offers)
    policy.correct(wrong, wrong.rewards, right.rewards)
    np.testing.assert_array_equal(frozen.probabilities(wrong.offers), before)
    twin = made(kind)
    twin.learn(right)
    twin.retire("b")
    np.testing.assert_allclose(
        policy.probabilities(wrong.offers), twin.probabilities(wrong.offers), atol=1e-9
    )


@pytest.mark.parametrize(
    "kind",
    [
        'beta_thompson {"discount": 0.9}',
        'beta_thompson {"window": 10}',
        'beta_thompson {"max_arms": 2}',
        'linucb {"discount": 0.9}',
        'linucb {"max_arms": 2}',
        'hybrid_linucb {"max_arms": 2}',
        'linear_thompson {"noise": "learned", "shared": true, "discount": 0.999}',
        "logistic_thompson",
    ],
)
def test_what_has_been_forgotten_cannot_be_corrected(kind):
    wrong, right, _ = wrong_and_right(2, 50)
    policy = made(kind)
    policy.learn(wrong)
    assert not policy.corrects
    with pytest.raises(ValueError, match="can be corrected"):
        policy.correct(wrong, wrong.rewards, right.rewards)


@pytest.mark.parametrize("kind", ['linucb {"shared": true}', "hybrid_linucb"])
def test_a_shared_part_cannot_be_corrected_after_an_arm_was_retired(kind):
    wrong, right, _ = wrong_and_right(3, 50)
    policy = made(kind)
    policy.learn(wrong)
    policy.retire("b")
    assert not policy.corrects
    with pytest.raises(ValueError, match="can be corrected"):
        policy.correct(wrong, wrong.rewards, right.rewards)


# --- linear models ----------------------------------------------------------------------------------------


def dense(log):
    """Constant, x, y and towns of each event, as one matrix."""
    names = ["x", "y", *(f"town{i}" for i in range(5))]
    return np.array([[1.0, *(row.get(name, 0.0) for name in names)] for row in log.offers.rows])


def test_corrected_posteriors_are_batch_ridge_regression_on_the_right_rewards():
    wrong, right, which = wrong_and_right(4, 3000)
    policy = build("linear_thompson", noise="learned", l2=0.5)
    policy.learn(wrong)
    policy.correct(*_picked(wrong, which), right.rewards[which])
    x, arms, state = dense(wrong), wrong.offers.arms[wrong.entries], policy.state()
    for row, arm in enumerate(json.loads(state["arms"]), 1):
        mine, w, r = x[arms == arm], right.weights[arms == arm], right.rewards[arms == arm]
        a, b = 0.5 * np.eye(8) + (mine.T * w) @ mine, mine.T @ (w * r)
        mean = np.linalg.solve(a, b)
        order = np.argsort(-np.abs(state["own/mean"][row]))  # features are numbered by first sighting
        np.testing.assert_allclose(
            state["own/mean"][row][order], mean[np.argsort(-np.abs(mean))], rtol=1e-9, atol=1e-9
        )
        half_residual = 0.5 * (w @ r**2 - mean @ b)
        np.testing.assert_allclose(state["own/head"][row][3], 0.5 * w.sum(), rtol=1e-9)
        np.testing.assert_allclose(state["own/head"][row][4], half_residual, rtol=1e-9)


def test_a_corrected_hybrid_model_is_batch_ridge_regression_of_the_whole_system():
    wrong, right, which = wrong_and_right(5, 400)
    policy = build("hybrid_linucb", alpha=0.0, crosses=False)
    policy.learn(wrong)
    policy.correct(*_picked(wrong, which), right.rewards[which])
    own, arms = dense(wrong), wrong.offers.arms[wrong.entries]
    names = ["cost", *ARMS]
    x = np.zeros((len(wrong), len(names) + 8 * len(ARMS)))
    for i, entry in enumerate(wrong.entries):
        x[i, : len(names)] = [wrong.offers.action_rows[entry].get(name, 0.0) for name in names]
        low = len(names) + 8 * ARMS.index(arms[i])
        x[i, low : low + 8] = own[i]
    weighted = x.T * right.weights
    theta = np.linalg.solve(np.eye(x.shape[1]) + weighted @ x, weighted @ right.rewards)
    shared = policy.state()["common/mean"][0]
    np.testing.assert_allclose(np.sort(shared), np.sort(theta[: len(names)]), rtol=1e-9, atol=1e-9)


def test_rewards_that_a_correction_makes_fit_leave_no_negative_noise():
    wrong, right, _ = wrong_and_right(6, 300)
    perfect = dense(wrong) @ np.arange(1.0, 9.0)
    policy = build("linear_thompson", noise="learned", l2=1e-6)
    policy.learn(wrong)
    policy.correct(wrong, wrong.rewards, perfect)
    scale = policy.state()["own/head"][1:, 4]
    assert (scale >= 0.0).all()
    assert (scale < 1e-2).all()  # of squares that sum to thousands
    policy.correct(wrong, perfect, right.rewards)
    twin = build("linear_thompson", noise="learned", l2=1e-6)
    twin.learn(right)
    np.testing.assert_allclose(policy.state()["own/mean"], twin.state()["own/mean"], atol=1e-6)


def test_corrections_survive_a_state_in_between_and_touch_nothing_but_means():
    wrong, right, which = wrong_and_right(7, 200)
    policy, resumed = build("linucb"), build("linucb")
    policy.learn(wrong)
    before = policy.state()
    resumed.restore(before)
    for each in (policy, resumed):
        each.correct(*_picked(wrong, which), right.rewards[which])
    assert_same(policy.state(), resumed.state(), tolerance=0.0)
    changed = {n for n, v in policy.state().items() if not np.array_equal(v, before[n])}
    assert changed == {"own/mean", "own/moment", "own/head"}


def test_what_was_never_learned_corrects_nothing_out_of_bounds():
    wrong, right, _ = wrong_and_right(8, 60)
    for kind in CORRECTING:
        policy = made(kind)
        policy.correct(wrong, wrong.rewards, right.rewards)  # no arm has been learned
        policy.learn(wrong.slice(0, 3))
        policy.correct(wrong, wrong.rewards, right.rewards)
        assert np.isfinite(policy.probabilities(wrong.offers)).all()
    with pytest.raises(ValueError, match="one choice, weight, old and new reward an event"):
        build("linucb").correct(wrong, wrong.rewards[:-1], right.rewards)
