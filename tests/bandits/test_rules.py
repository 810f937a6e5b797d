"""What the policies on a regression oracle make of predicted costs, by hand and by formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from penstock.bandits.bagging import Vote, poisson
from penstock.bandits.boltzmann import Softmax
from penstock.bandits.cover import Covering
from penstock.bandits.greedy import EpsilonGreedy
from penstock.bandits.regcb import Plausible
from penstock.bandits.squarecb import InverseGap
from penstock.decisions import draw, key_of
from penstock.errors import ConfigError

costs = st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8).map(np.array)
ages = st.integers(0, 10**7)


def chances(rule, *predicted, age=0):
    predicted = np.atleast_2d(np.array(predicted, np.float64))
    return rule.probabilities(predicted, np.array([0, predicted.shape[1]]), np.array([age]))


# --- SquareCB ---------------------------------------------------------------------------------------------


@given(costs, ages)
def test_squarecb_is_its_formula(predicted, age):
    p = chances(InverseGap(10.0, 0.5), predicted, age=age)
    k, y = len(predicted), np.clip(predicted, 0, 1)
    greed = 10.0 * math.sqrt(age)
    ties = np.flatnonzero(y == y.min())
    others = [a for a in range(k) if a not in ties]
    for a in others:
        assert math.isclose(p[a], 1 / (k + greed * (y[a] - y.min())), rel_tol=1e-12)
    left = 1.0 - sum(p[a] for a in others)
    np.testing.assert_allclose(p[ties], left / len(ties), rtol=1e-12)
    assert p.min() >= 1 / (k + greed) - 1e-12
    assert (np.diff(p[np.argsort(y, kind="stable")]) <= 1e-12).all()


def test_squarecb_by_hand():
    p = chances(InverseGap(10.0, 0.5), [0.2, 0.5, 0.9], age=100)
    np.testing.assert_allclose(p, [1 - 1 / 33 - 1 / 73, 1 / 33, 1 / 73], rtol=1e-12)
    np.testing.assert_allclose(chances(InverseGap(10.0, 0.5), [0.2, 0.5, 0.9], age=0), 1 / 3, rtol=1e-12)


# --- the others -------------------------------------------------------------------------------------------


def test_greedy_splits_ties_and_decays():
    np.testing.assert_allclose(chances(EpsilonGreedy(0.4), [1, 0, 0, 3]), [0.1, 0.4, 0.4, 0.1])
    np.testing.assert_allclose(chances(EpsilonGreedy(0.4, decays=True), [1, 0], age=7), [0.1, 0.9])
    np.testing.assert_array_equal(chances(EpsilonGreedy(0.0), [1, 0], age=7), [0, 1])


@given(costs, st.floats(0, 200))
def test_softmax_is_its_formula(predicted, sharpness):
    weights = np.exp(-sharpness * np.clip(predicted, 0, 1))
    np.testing.assert_allclose(chances(Softmax(sharpness), predicted), weights / weights.sum(), rtol=1e-9)


def test_votes():
    p = chances(Vote(), [0, 1, 1], [1, 0, 0], [0, 1, 2], [1, 1, 1])
    np.testing.assert_allclose(p, [(1 + 1 + 1 / 3) / 4, (0.5 + 1 / 3) / 4, (0.5 + 1 / 3) / 4], rtol=1e-12)


def test_cover_by_hand():
    # Three votes of 1/3: actions 0, 0 and 1; the floor of 4 actions after 25 events is 1 / sqrt(4 * 25).
    predicted = ([0, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1])
    expected = [2 / 3 - 0.1, 1 / 3 - 0.1, 0.1, 0.1]
    np.testing.assert_allclose(chances(Covering(), *predicted, age=25), expected, rtol=1e-12)
    np.testing.assert_allclose(chances(Covering(epsilon=0.4), *predicted, age=3), expected, rtol=1e-12)
    np.testing.assert_allclose(chances(Covering(), *predicted, age=0), 0.25, rtol=1e-12)
    np.testing.assert_allclose(
        chances(Covering(uniform=False), *predicted, age=25), [2 / 3, 1 / 3, 0, 0], rtol=1e-12
    )


def searched(distance, sensitivity, slack):
    """How far the prediction goes: Vowpal Wabbit's binary search for the importance weight."""
    most = distance / sensitivity
    if most * distance**2 <= slack:
        return distance
    low, high = 0.0, most
    for _ in range(100):
        w = (low + high) / 2
        if w * (distance**2 - (distance - sensitivity * w) ** 2) > slack:
            high = w
        else:
            low = w
    return low * sensitivity


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=1, max_size=6),
    ages,
)
def test_regcb_searches_as_vw_does(predicted, age):
    y, below, above = np.array(predicted).T
    slack = 0.1 * math.log(max(len(y) * age, 1))
    low = np.array([max(c - searched(c + 1, s, slack), 0.0) for c, s in zip(y, below, strict=True)])
    high = np.array([min(c + searched(2 - c, s, slack), 1.0) for c, s in zip(y, above, strict=True)])
    kept = chances(Plausible(0.1, True), y, below, above, age=age) > 0
    surely = low <= high.min() - 1e-6
    surely_not = low > high.min() + 1e-6
    assert kept[surely].all()
    assert not kept[surely_not].any()
    best = chances(Plausible(0.1, False), y, below, above, age=age)
    assert low[best > 0].max() <= low.min() + 1e-6


def test_regcb_ties_share():
    np.testing.assert_array_equal(chances(Plausible(0.1, False), [0, 0], [1, 1], [1, 1]), [0.5, 0.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InverseGap(0.0, 0.5), "gamma_scale: expected a finite number > 0, got 0.0"),
        (lambda: EpsilonGreedy(1.5), "epsilon: expected a finite number >= 0 and <= 1, got 1.5"),
        (lambda: Softmax(math.nan), "sharpness: expected a finite number >= 0, got nan"),
        (lambda: Covering(uniform=1), "uniform: expected true or false, got 1"),
    ],
)
def test_parameters_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == message


# --- chance -----------------------------------------------------------------------------------------------


def test_draws_follow_the_distribution():
    p = chances(InverseGap(10.0, 0.5), [0.1, 0.12, 0.5, 0.3], age=9)
    n = 20_000
    counts = np.bincount([draw(p, key_of(str(i), "test")) for i in range(n)], minlength=4)
    assert chisquare(counts, n * p).pvalue > 1e-4


def test_counts_are_poisson_and_learners_differ():
    keys = np.arange(50_000, dtype=np.uint64)
    counts = poisson(keys, 7, 2)
    expected = np.array([math.exp(-1) / math.factorial(k) for k in range(7)])
    seen = np.bincount(counts.astype(int), minlength=8)
    assert (
        chisquare([*seen[:7], seen[7:].sum()], len(keys) * np.append(expected, 1 - expected.sum())).pvalue
        > 1e-4
    )
    for other in (poisson(keys, 7, 3), poisson(keys, 8, 2), poisson(keys + 1, 7, 2)):
        assert abs(np.corrcoef(counts, other)[0, 1]) < 0.02
    np.testing.assert_array_equal(poisson(keys[::-1], 7, 2), counts[::-1])
