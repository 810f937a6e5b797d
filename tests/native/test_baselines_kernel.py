"""The baselines' kernels against the same loops in Python, to the bit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock._native.baselines import average, of_ones, repeats

EVENTS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.5, -1e9]), st.sampled_from([0.0, 0.1, 1.0, 3.0])))


def columns(events):
    return np.array([label for label, _ in events]), np.array([weight for _, weight in events])


@given(EVENTS, st.sampled_from([(0.0, 0.0), (0.5, 1.0), (-7.3, 4.1)]))
def test_average(events, known):
    labels, weights = columns(events)
    total, weight = known
    expected = []
    for y, w in events:
        expected.append(total / weight if weight > 0 else 0.0)
        weight += w
        total += w * y
    before = np.full(len(events), np.nan)
    assert average(labels, weights, *known, before) == (total, weight)
    assert before.tolist() == expected


@given(EVENTS, st.sampled_from([(math.nan, 0, 0), (1.0, 9, 4)]))
def test_repeats(events, known):
    labels, weights = columns(events)
    last, n_chances, n_repeats = known
    expected, shares = [], []
    for y, w in events:
        expected.append(last)
        shares.append((n_repeats + 0.5) / (n_chances + 1))
        if w > 0:
            if not math.isnan(last):
                n_chances += 1
                n_repeats += y == last
            last = y
    before, share = np.zeros(len(events)), np.zeros(len(events))
    np.testing.assert_array_equal(
        repeats(labels, weights, *known, before, share), (last, n_chances, n_repeats)
    )
    np.testing.assert_array_equal(before, expected)
    assert share.tolist() == shares


def test_of_ones():
    last, share, out = np.array([math.nan, 1.0, 0.0, 1.0]), np.array([0.5, 0.8, 0.7, 0.2]), np.zeros(4)
    of_ones(last, share, 0.51, out)
    assert out.tolist() == [0.5, 0.8, 1.0 - 0.7, 0.51]


def test_columns_of_one_length():
    two, three = np.zeros(2), np.zeros(3)
    with pytest.raises(ValueError, match="differ in length"):
        average(two, three, 0.0, 0.0, two)
    with pytest.raises(ValueError, match="differ in length"):
        repeats(two, two, 0.0, 0, 0, two, three)
    with pytest.raises(ValueError, match="differ in length"):
        of_ones(two, three, 0.5, two)
