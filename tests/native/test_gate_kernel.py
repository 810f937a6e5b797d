"""The gate's kernels against the same loops in Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock._native.gate import GAMBLERS, log_mixture, log_wealth, multiply_bets

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
    st.integers(1, 6),  # four at a time, and one by one
)
def test_wealth_to_the_bit(gains, start, n_tests):
    gains = np.array(gains)
    mantissa, exponent = np.full((n_tests, GAMBLERS), start), np.zeros((n_tests, GAMBLERS), np.int64)
    slow = mantissa.copy(), exponent.copy()
    slow_product(*slow, gains, 0.0)
    multiply_bets(mantissa, exponent, n_tests, BETS, gains, 0.0)
    assert mantissa.tobytes() == slow[0].tobytes()
    assert exponent.tobytes() == slow[1].tobytes()


def test_a_long_run_leaves_the_bounds_where_the_slow_one_does():
    gains = np.concatenate((np.ones(1500), -np.ones(3000)))
    mantissa, exponent = np.ones((1, GAMBLERS)), np.zeros((1, GAMBLERS), np.int64)
    slow = mantissa.copy(), exponent.copy()
    slow_product(*slow, gains, 0.0)
    multiply_bets(mantissa, exponent, 1, BETS, gains, 0.0)
    assert exponent.any()
    assert mantissa.tobytes() == slow[0].tobytes()
    assert exponent.tobytes() == slow[1].tobytes()


def test_what_is_no_number_stays_none():
    mantissa, exponent = np.ones((1, GAMBLERS)), np.zeros((1, GAMBLERS), np.int64)
    multiply_bets(mantissa, exponent, 1, BETS, np.array([0.1, np.nan, 0.1]), 0.0)
    assert np.isnan(mantissa).all()
    assert not exponent.any()


def test_only_tests_under_way_take_bets():
    mantissa, exponent = np.ones((6, GAMBLERS)), np.zeros((6, GAMBLERS), np.int64)
    multiply_bets(mantissa, exponent, 5, BETS, np.array([0.5]), 0.0)
    assert (mantissa[:5] == 1.0 + BETS * 0.5).all()
    assert (mantissa[5] == 1.0).all()


def random_wealth(n_tests):
    rng = np.random.default_rng(0)
    mantissa = np.exp2(rng.uniform(-511.0, 511.0, (n_tests, GAMBLERS)))
    exponent = rng.integers(-2000, 2000, (n_tests, GAMBLERS))
    each = np.log(mantissa) + exponent * math.log(2.0)
    return mantissa, exponent, np.logaddexp.reduce(each, axis=1) - math.log(GAMBLERS)


def test_log_wealth():
    mantissa, exponent, logs = random_wealth(50)
    for i, log in enumerate(logs):
        assert log_wealth(mantissa[i:], exponent[i:]) == pytest.approx(log, rel=1e-13, abs=1e-13)
    assert log_wealth(np.ones((1, GAMBLERS)), np.zeros((1, GAMBLERS), np.int64)) == 0.0
    assert math.isnan(log_wealth(np.full((1, GAMBLERS), np.nan), np.zeros((1, GAMBLERS), np.int64)))


def test_a_mixture_of_tests():
    mantissa, exponent, logs = random_wealth(50)
    for n in range(1, 9):
        for i in range(50 - n):
            numbers = np.arange(3, 3 + n)
            weighted = logs[i : i + n] - np.log(numbers * (numbers + 1.0))
            log, richest = log_mixture(mantissa[i:], exponent[i:], n, numbers)
            assert log == pytest.approx(np.logaddexp.reduce(weighted), rel=1e-13, abs=1e-13)
            assert richest == np.argmax(weighted)
    assert log_mixture(mantissa, exponent, 0, np.arange(0)) == (-math.inf, -1)


def test_arrays_that_do_not_fit():
    mantissa, exponent, gains = np.ones((2, GAMBLERS)), np.zeros((2, GAMBLERS), np.int64), np.zeros(3)
    narrow = mantissa[:, 1:].copy(), exponent[:, 1:].copy()
    with pytest.raises(ValueError, match="16 gamblers"):
        multiply_bets(mantissa, exponent, 2, BETS[1:], gains, 0.0)
    with pytest.raises(ValueError, match="16 gamblers"):
        multiply_bets(*narrow, 2, BETS, gains, 0.0)
    for tests in (-1, 3):
        with pytest.raises(ValueError, match="more tests than there is wealth of"):
            multiply_bets(mantissa, exponent, tests, BETS, gains, 0.0)
        with pytest.raises(ValueError, match="more tests than there is wealth of"):
            log_mixture(mantissa, exponent, tests, np.arange(3))
    with pytest.raises(ValueError, match="more tests than there is wealth of"):
        multiply_bets(mantissa, exponent[:1], 2, BETS, gains, 0.0)
    with pytest.raises(ValueError, match="more tests than numbers"):
        log_mixture(mantissa, exponent, 2, np.arange(1))
    with pytest.raises(ValueError, match="16 gamblers"):
        log_wealth(*narrow)
    with pytest.raises(ValueError, match="more tests than there is wealth of"):
        log_wealth(mantissa[:0], exponent[:0])
