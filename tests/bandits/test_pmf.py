import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from penstock.bandits.pmf import cheapest, floored, normalised, projected

STARTS = np.array([0, 3, 4, 6])


def distributions():
    parts = st.lists(st.floats(0.0, 1.0) | st.just(0.0), min_size=1, max_size=12)
    return parts.filter(lambda values: sum(values) > 1e-3).map(lambda v: np.array(v) / sum(v))


def test_each_event_is_its_own():
    scores = np.array([1.0, 1.0, 2.0, 5.0, 0.0, 3.0])
    np.testing.assert_array_equal(normalised(scores, STARTS), [0.25, 0.25, 0.5, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(cheapest(scores, STARTS), [0.5, 0.5, 0.0, 1.0, 1.0, 0.0])


def test_floor_mixes_with_uniform():
    mixed = floored(np.array([1.0, 0.0, 0.0, 1.0, 0.5, 0.5]), STARTS, 0.3)
    np.testing.assert_allclose(mixed, [0.8, 0.1, 0.1, 1.0, 0.5, 0.5], rtol=1e-15)


@given(distributions(), st.floats(0.0, 1.0))
def test_projection_is_the_nearest_distribution_above_the_floor(p, floor):
    k = len(p)
    result = projected(p, np.array([0, k]), np.array([floor]))
    # The nearest one is max(p - shift, least) for the shift that makes it sum to 1: found by root search.
    least = floor / k

    def excess(shift):
        return np.maximum(p - shift, least).sum() - 1.0

    shift = brentq(excess, -1.0, 1.0) if excess(1.0) < 0 < excess(-1.0) else 1.0
    np.testing.assert_allclose(result, np.maximum(p - shift, least), atol=1e-9)
    assert abs(result.sum() - 1.0) < 1e-12
    assert result.min() >= least * (1 - 1e-9)


def test_projection_can_leave_zeros_alone():
    p = np.array([0.97, 0.03, 0.0])
    np.testing.assert_allclose(
        projected(p, np.array([0, 3]), np.array([0.2]), zeros=False), [0.9, 0.1, 0.0], rtol=1e-12
    )
    np.testing.assert_allclose(
        projected(p, np.array([0, 3]), np.array([1.0]), zeros=False), [0.5, 0.5, 0.0], rtol=1e-12
    )
