"""A draw is the one that numpy's Philox generator would make, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock._native.draw import draw


def slow_draw(probabilities, key):
    generator = np.random.Generator(np.random.Philox(key=np.array([key, 0], np.uint64)))
    cumulative = np.cumsum(probabilities)
    position = int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
    return min(position, int(np.flatnonzero(probabilities)[-1]))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20).filter(any), st.integers(0, 2**64 - 1))
def test_draws_are_those_of_the_twin(weights, key):
    probabilities = np.array(weights) / sum(weights)
    if probabilities.any() and np.isfinite(probabilities).all():
        assert draw(probabilities, key) == slow_draw(probabilities, key)


@pytest.mark.parametrize("size", [2, 10, 1000])
def test_many_keys_draw_as_the_twin_does(size):
    rng = np.random.default_rng(size)
    for key in rng.integers(0, 2**64, 300, dtype=np.uint64).tolist():
        probabilities = rng.dirichlet(np.full(size, 0.1))
        assert draw(probabilities, key) == slow_draw(probabilities, key)


def test_what_cannot_be_drawn_is_not():
    assert {draw(np.array([0.0, 1.0, 0.0]), key) for key in range(200)} == {1}
    for nothing in (np.zeros(3), np.empty(0)):
        with pytest.raises(ValueError, match="no action has a probability above 0"):
            draw(nothing, 1)
    with pytest.raises(OverflowError):
        draw(np.ones(1), 2**64)
