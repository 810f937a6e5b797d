"""The level of repeated tests, against simulated windows and references."""

import numpy as np
import pytest
from scipy import special

from penstock.drift.rounds import level_for

SHARED, OVERLAP = 1 / 3, 0.5


def first_alarm(p_values, level):
    """Mean number of rounds up to the first in which the smallest of m p-values is at most level / m.

    Shape (streams, rounds, m); streams without an alarm go on as the others do on average.
    """
    rings = p_values.min(axis=2) <= level / p_values.shape[2]
    rounds = np.where(rings.any(axis=1), rings.argmax(axis=1) + 1, rings.shape[1])
    return rounds.sum() / rings.any(axis=1).sum()


def windows(rng, n_streams, n_rounds, *shape):
    """Means of half-overlapping windows less that of a reference, all in units of their own deviation."""
    parts = rng.standard_normal((n_streams, n_rounds + 1, *shape))
    fresh = (parts[:, 1:] + parts[:, :-1]) / np.sqrt(2.0)
    reference = rng.standard_normal((n_streams, 1, *shape))
    return np.sqrt(1.0 - SHARED) * fresh - np.sqrt(SHARED) * reference


@pytest.mark.parametrize(("rounds", "n_features", "freedom"), [(20, 1, 3), (20, 4, 1), (60, 2, 2)])
def test_counts_of_categories_ring_as_often_as_is_wanted(rounds, n_features, freedom):
    level = level_for(rounds, 0, (freedom,) * n_features, shared=SHARED, overlap=OVERLAP)
    assert level > 1.2 / rounds  # what the union bound allows is far too careful
    off = windows(np.random.default_rng(1), 600, 12 * rounds, n_features, freedom)
    p_values = special.chdtrc(freedom, (off**2).sum(axis=3))
    assert first_alarm(p_values, level) == pytest.approx(rounds, rel=0.2)


@pytest.mark.parametrize(("rounds", "n_features"), [(20, 1), (20, 4), (50, 2)])
def test_distances_of_numbers_ring_as_often_as_is_wanted(rounds, n_features):
    """Of large windows, whose distributions are off by Brownian bridges; 60 points of them are looked at."""
    points = 60
    level = level_for(rounds, n_features, (), shared=SHARED, overlap=OVERLAP)
    steps = windows(np.random.default_rng(2), 300, 10 * rounds, n_features, points) / np.sqrt(points)
    walks = steps.cumsum(axis=3)
    bridges = walks - walks[..., -1:] * np.arange(1, points + 1) / points
    # Between points it goes farther still: by about 0.58 of a step's deviation (Chernoff 1965).
    farthest = np.abs(bridges).max(axis=3) + 0.58 / np.sqrt(points)
    assert first_alarm(special.kolmogorov(farthest), level) == pytest.approx(rounds, rel=0.3)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("shared", [0.02, 1 / 3, 0.8])
@pytest.mark.parametrize(("n_continuous", "freedoms"), [(1, ()), (0, (1,)), (70, (1, 9) * 20), (1000, ())])
def test_the_level_lies_between_the_union_bound_and_a_half(n_continuous, freedoms, shared, overlap):
    levels = [
        level_for(rounds, n_continuous, freedoms, shared=shared, overlap=overlap)
        for rounds in (2.5, 10.0, 200.0, 1e6)
    ]
    assert levels == sorted(levels, reverse=True)
    assert all(
        1 / rounds <= level <= 0.5 for rounds, level in zip((2.5, 10.0, 200.0, 1e6), levels, strict=True)
    )


def test_nothing_that_is_shared_makes_the_union_bound_nearly_exact():
    level = level_for(200.0, 20, (), shared=1e-6, overlap=0.0)
    assert 1 / 200 <= level < 1.06 / 200


@pytest.mark.parametrize("rounds", [-5.0, 0.0, 1.0, 2.0])
def test_what_cannot_be_reached_is_tested_at_a_half(rounds):
    assert level_for(rounds, 3, (2,), shared=SHARED, overlap=OVERLAP) == 0.5
    assert level_for(100.0, 0, (), shared=SHARED, overlap=OVERLAP) == 0.5
