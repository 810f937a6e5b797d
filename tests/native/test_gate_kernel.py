"""The gate's kernels against the same loops in Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock._native.gate import GAMBLERS, log_wealth, multiply_bets

BETS = np.geomspace(0.002, 0.5, GAMBLERS)


def slow_product(mantissa, exponent, gains, delta):
    """Event by event; what has left its bounds is taken apart at once."""
    for test in range(len(mantissa)):
        for gain in gains.tolist():
            for j, bet in enumerate(BETS.tolist()):
                mantissa[test, j] *= 1.0 + bet * (gain - delta)
                if not 2.0**-512 <= mantissa[test, j] <= 2.0**512:
                    mantissa[test, j], shift = math.frexp(mantissa[test, j])
                    exponent[test, j] += shift


@given(
    st.lists(st.floats(-1.0, 1.0), max_size=30),
    st.sampled_from([1e-154, 1e-3, 1.0, 1e7, 1e154]),  # close to the bounds, and far from them
    st.integers(1, 3),
)
def test_wealth_to_the_bit(gains, start, n_tests):
    gains = np.array(gains)
    mantissa, exponent = np.full((n_tests, GAMBLERS), start), np.zeros((n_tests, GAMBLERS), np.int64)
    slow = mantissa.copy(), exponent.copy()
    slow_product(*slow, gains, 0.0)
    multiply_bets(mantissa, exponent, BETS, gains, 0.0)
    assert mantissa.tobytes() == slow[0].tobytes()
    assert exponent.tobytes() == slow[1].tobytes()


def test_a_long_run_leaves_the_bounds_where_the_slow_one_does():
    gains = np.concatenate((np.ones(1500), -np.ones(3000)))
    mantissa, exponent = np.ones((1, GAMBLERS)), np.zeros((1, GAMBLERS), np.int64)
    slow = mantissa.copy(), exponent.copy()
    slow_product(*slow, gains, 0.0)
    multiply_bets(mantissa, exponent, BETS, gains, 0.0)
    assert exponent.any()
    assert mantissa.tobytes() == slow[0].tobytes()
    assert exponent.tobytes() == slow[1].tobytes()


def test_what_is_no_number_stays_none():
    mantissa, exponent = np.ones((1, GAMBLERS)), np.zeros((1, GAMBLERS), np.int64)
    multiply_bets(mantissa, exponent, BETS, np.array([0.1, np.nan, 0.1]), 0.0)
    assert np.isnan(mantissa).all()
    assert not exponent.any()


def test_log_wealth():
    rng = np.random.default_rng(0)
    mantissa, exponent = rng.uniform(0.5, 2.0, (3, GAMBLERS)), rng.integers(-2000, 2000, (3, GAMBLERS))
    logs = np.empty(3)
    log_wealth(mantissa, exponent, logs)
    each = np.log(mantissa) + exponent * math.log(2.0)
    np.testing.assert_allclose(logs, np.logaddexp.reduce(each, axis=1) - math.log(GAMBLERS), rtol=1e-13)


def test_arrays_that_do_not_fit():
    mantissa, exponent, gains = np.ones((2, GAMBLERS)), np.zeros((2, GAMBLERS), np.int64), np.zeros(3)
    with pytest.raises(ValueError, match="16 gamblers"):
        multiply_bets(mantissa, exponent, BETS[1:], gains, 0.0)
    with pytest.raises(ValueError, match="differ in length"):
        multiply_bets(mantissa, exponent[:1], BETS, gains, 0.0)
    with pytest.raises(ValueError, match="16 gamblers"):
        log_wealth(mantissa[:, 1:].copy(), exponent[:, 1:].copy(), np.empty(2))
    with pytest.raises(ValueError, match="differ in length"):
        log_wealth(mantissa, exponent, np.empty(3))
