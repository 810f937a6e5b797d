"""Confidence sequences against quadrature, a slow twin, and streams whose mean is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gammainc
from scipy.stats import norm

from penstock._native.intervals import advance, expectations, running_sum
from penstock.bandits.intervals import _RHO, Interval, LowerBound, boundary, log_mixture
from penstock.state import digest

OUTCOMES = st.lists(st.floats(-2.0, 50.0), max_size=60).map(lambda values: np.array(values, dtype=np.float64))


def slow_mixture(total, variance):
    """The integral that the closed form stands for, over u = 1 - l."""

    def integrand(u):
        bet = 1.0 - u
        prior = math.exp((_RHO - 1.0) * math.log(u) - _RHO * u)
        return prior * math.exp(bet * total + (math.log(u) + bet) * variance)

    scale, _ = quad(lambda u: math.exp((_RHO - 1.0) * math.log(u) - _RHO * u), 0.0, 1.0)
    mixture, _ = quad(integrand, 0.0, 1.0, epsabs=0.0, epsrel=1e-12)
    return math.log(mixture / scale)


def slow_sums(outcomes, floor):
    scale, total, variance = 1.0 / (floor + 1.0), 0.0, 0.0
    for n, outcome in enumerate(outcomes, 1):
        guess = min((0.5 * scale + total) / n, scale)
        total += scale * outcome
        variance += (scale * outcome - guess) ** 2
    return total, variance


@pytest.mark.parametrize("total", [-5.0, -0.5, 0.0, 1.0, 12.0, 40.0])
@pytest.mark.parametrize("variance", [0.0, 0.3, 20.0, 150.0])
def test_mixture_is_its_integral(total, variance):
    given_up = total + variance + _RHO <= 0.0  # where the closed form has no value it says 0, which is less
    expected = -math.inf if given_up else slow_mixture(total, variance)
    assert log_mixture(total, variance) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_mixture_begins_at_one():
    assert log_mixture(0.0, 0.0) == pytest.approx(0.0, abs=1e-12)


def test_mixture_far_below_the_mean_is_no_evidence():
    with np.errstate(all="raise"):
        assert (log_mixture(np.array([-50.0, -1e6, -1e9]), np.array([20.0, 20.0, 1e6])) <= 0.0).all()


def test_mixture_of_a_long_stream_is_a_normal_one():
    variances = np.array([1e6, 1e8, 1e10])
    sums = np.sqrt(variances)  # one standard deviation off
    density = math.exp(_RHO * math.log(_RHO) - math.lgamma(_RHO) - _RHO) / gammainc(
        _RHO, _RHO
    )  # at a bet of 0
    normal = np.log(density * np.sqrt(2 * math.pi / variances) * norm.cdf(1.0)) + 0.5
    np.testing.assert_allclose(log_mixture(sums, variances), normal, atol=0.01)


@given(st.floats(0.0, 1e7), st.sampled_from([0.001, 0.025, 0.05, 0.5]))
def test_boundary_is_where_the_mixture_reaches_the_level(variance, alpha):
    sum_ = boundary(variance, alpha)
    assert log_mixture(sum_, variance) >= math.log(1 / alpha) - 1e-7  # of logarithms that are up to 1e8
    assert log_mixture(sum_ * (1 - 1e-9) - 1e-9, variance) < math.log(1 / alpha) + 1e-6


@given(OUTCOMES, st.integers(0, 60), st.sampled_from([2.0, 7.5]))
def test_bound_is_its_slow_twin_however_the_stream_is_cut(outcomes, cut, floor):
    whole, split = LowerBound(floor), LowerBound(floor)
    whole.update(outcomes)
    split.update(outcomes[:cut])
    for outcome in outcomes[cut:]:
        split.update(np.array([outcome]))
    assert digest(split.state()) == digest(whole.state())
    total, variance = slow_sums(outcomes.tolist(), floor)
    np.testing.assert_allclose(whole.state()["sums"], [len(outcomes), total, variance], rtol=1e-12, atol=0)
    if len(outcomes):
        scale = 1.0 / (floor + 1.0)
        expected = (total - boundary(variance, 0.05)) / (scale * len(outcomes))
        assert whole.value(0.05) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert whole.mean == pytest.approx(outcomes.mean(), abs=1e-12)


def test_bound_and_evidence_agree():
    bound = LowerBound(3.0)
    bound.update(np.random.default_rng(1).choice([-3.0, 0.0, 4.0], 300))
    assert bound.log_e(bound.value(0.02)) == pytest.approx(math.log(1 / 0.02), rel=1e-6)


def test_bound_before_the_first_outcome():
    bound = LowerBound()
    assert bound.value(0.05) == -math.inf
    assert math.isnan(bound.mean)
    assert bound.n_events == 0


def test_state_round_trip_shares_nothing():
    bound, twin = LowerBound(1.0), LowerBound(1.0)
    bound.update(np.array([0.5, 2.0]))
    state = bound.state()
    twin.restore(state)
    bound.update(np.array([1.0]))
    assert digest(twin.state()) == digest(state) != digest(bound.state())


@pytest.mark.parametrize("floor", [-0.1, math.inf, math.nan])
def test_floor_out_of_range(floor):
    with pytest.raises(ValueError, match="finite floor >= 0"):
        LowerBound(floor)


def test_interval():
    interval = Interval(0.25, 0.75)
    assert (0.25 in interval, 0.76 in interval, interval.width) == (True, False, 0.5)
    assert math.isnan(Interval.none("why").width)


def test_bounds_hold_at_all_times():
    """2,000 Bernoulli streams of 1,000, looked at after every event; and as many that drift."""
    rng = np.random.default_rng(7)
    n, runs = 1000, 2000
    for means in (np.full(n, 0.1), 0.5 + 0.4 * np.sin(np.arange(n) / 80.0)):
        outcomes = (rng.random((runs, n)) < means).astype(np.float64)
        steps = np.arange(1, n + 1)
        totals = np.cumsum(outcomes, axis=1)
        guesses = np.minimum((0.5 + totals - outcomes) / steps, 1.0)
        variances = np.cumsum((outcomes - guesses) ** 2, axis=1)
        misses = (log_mixture(totals - np.cumsum(means), variances) >= math.log(1 / 0.05)).any(axis=1)
        assert misses.mean() <= 0.05


def test_running_sum_is_sequential():
    values = np.random.default_rng(3).normal(size=1001) * 1e8
    slow = 0.25
    for value in values.tolist():
        slow += value
    assert running_sum(0.25, values) == slow


def test_kernels_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="three sums"):
        advance(np.zeros(2), np.zeros(1), 1.0)
    for starts, out in (([0, 3], 1), ([0, 2], 2), ([-1, 2], 1), ([0, 2, 1], 2)):
        with pytest.raises(ValueError, match="starts"):
            expectations(np.zeros(2), np.zeros(2), np.array(starts), np.zeros(out))
    with pytest.raises(ValueError, match="do not fit"):
        expectations(np.zeros(2), np.zeros(3), np.array([0, 2]), np.zeros(1))


@pytest.mark.parametrize("variance", [1e8, 1e10, 1e12])
def test_boundary_of_a_huge_variance_is_found_and_grows(variance):
    assert 4.0 < boundary(variance, 0.025) / math.sqrt(variance) < 6.0
    assert boundary(variance, 0.025) > boundary(variance / 2, 0.025)


@pytest.mark.parametrize("variance", [1e13, math.inf, math.nan])
def test_boundary_of_a_variance_beyond_rounding_is_infinite(variance):
    assert boundary(variance, 0.025) == math.inf
