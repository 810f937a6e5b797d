"""How strict tests must be that are repeated: one reference, window after window, many features at once.

Tests of overlapping windows fail together, and a reference that happens to be unlike the rest of the stream
makes every test against it likelier to fail, until the alarm that replaces it. Both make alarms rarer than
the level of one round says: up to several times rarer, for few features and long runs. `level_for` finds the
level at which they come as often as is wanted.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["level_for"]

_HIGHEST: Final = 0.5  # level of a round: who wants more tests nothing
_REFERENCES: Final = 4000  # drawn, over all features
_FEWEST: Final = 200  # for each of them
_DRAWN: Final = 50  # features of a kind that are drawn for; the rest have these draws in another order
_STEPS: Final = 14  # of the bisection: exact to a part in a thousand
_PLACES: Final = np.linspace(
    0.2, 0.8, 7
)  # where in a distribution two of them are likely to be farthest apart


def level_for(
    rounds: float, n_continuous: int, freedoms: tuple[int, ...], *, shared: float, overlap: float
) -> float:
    """Find the level of one round of tests at which the first alarm comes after so many rounds, on average.

    Events are independent and do not change, and features do not depend on each other; if they do, alarms are
    rarer.

    Parameters
    ----------
    rounds : float
        Mean number of rounds up to the first alarm, that one included.
    n_continuous : int
        Features tested by Kolmogorov and Smirnov's distance.
    freedoms : tuple of int
        Degrees of freedom of those tested by a chi-squared statistic.
    shared : float, in (0, 1)
        Share of the reference in the variance of a difference: window / (reference + window).
    overlap : float, in [0, 1)
        Share of a window's events that the next one has too.

    Returns
    -------
    float
        At least 1 / `rounds`, where the union bound is exact; 0.5 at most.

    Notes
    -----
    Given the reference, a test fails with a probability that can be told: that of a chi-squared one is the
    noncentral distribution's; Kolmogorov and Smirnov's distance is taken apart by the place where it is
    reached, at which it is normal, given how far the reference lies off there (a Brownian bridge). Failures
    in a row count once, by the extremal index of a process whose correlation falls linearly (the function nu
    of Siegmund 1985, Sequential analysis, chapter 4). What is left is the mean over references of a
    geometric distribution's mean. Simulated run lengths are 0.9 to 1.15 times what was wanted.

    Examples
    --------
    >>> round(level_for(200.0, 8, (), shared=1 / 3, overlap=0.5), 3)
    0.011
    >>> level_for(1.0, 8, (), shared=1 / 3, overlap=0.5)
    0.5
    """
    if n_continuous + len(freedoms) == 0 or rounds * _HIGHEST <= 1.0:
        return _HIGHEST
    return _solved(rounds, n_continuous, tuple(sorted(Counter(freedoms).items())), shared, overlap)


@functools.lru_cache(maxsize=256)
def _solved(
    rounds: float, n_continuous: int, kinds: tuple[tuple[int, int], ...], shared: float, overlap: float
) -> float:
    counts = [n_continuous, *(n for _, n in kinds)]
    n_references = max(_REFERENCES // sum(min(n, _DRAWN) for n in counts), _FEWEST)
    rng = np.random.default_rng(0)
    off = _bridges(rng, min(n_continuous, _DRAWN), n_references)
    apart = [rng.chisquare(freedom, (min(n, _DRAWN), n_references)) for freedom, n in kinds]

    def wait(level: float) -> float:
        """Mean number of rounds up to an alarm."""
        share = level / sum(counts)
        rates = [_of_continuous(share, off, shared, overlap)]
        rates += [
            _of_discrete(share, freedom, distances, shared, overlap)
            for (freedom, _), distances in zip(kinds, apart, strict=True)
        ]
        total = sum(_of_all(n, rate) for n, rate in zip(counts, rates, strict=True))
        return float((1.0 / -np.expm1(-total)).mean())

    low, high = 1.0 / rounds, _HIGHEST
    if wait(low) <= rounds:
        return low
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if wait(middle) > rounds else (low, middle)
    return low


def _of_all(n_features: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up the rates of so many features, of which the first ones' are given; shape (references,)."""
    total = np.zeros(rates.shape[1])
    for turn, first in enumerate(range(0, n_features, max(len(rates), 1))):
        total += np.roll(rates[: n_features - first].sum(axis=0), 37 * turn)
    return total


def _bridges(rng: np.random.Generator, n_features: int, n_references: int) -> NDArray[np.float64]:
    """How far references lie off at `_PLACES` of their distribution, shape (features, references, places)."""
    widths = np.sqrt(np.diff(_PLACES, prepend=0.0, append=1.0))
    walks = (rng.standard_normal((n_features, n_references, len(widths))) * widths).cumsum(axis=2)
    return np.asarray(walks[:, :, :-1] - walks[:, :, -1:] * _PLACES)


def _of_continuous(
    share: float, off: NDArray[np.float64], shared: float, overlap: float
) -> NDArray[np.float64]:
    """How often a round begins to fail at `share`, given the references; shape (features, references)."""
    threshold = float(special.kolmogi(share))
    variances = _PLACES * (1.0 - _PLACES)
    usual = threshold**2 / (2.0 * variances)
    where = np.exp(2.0 * threshold**2 - usual) * variances**-1.5
    total = np.zeros_like(off)
    for side in (1.0, -1.0):
        apart = np.maximum(threshold + side * np.sqrt(shared) * off, 0.0)
        distance = apart / np.sqrt((1.0 - shared) * variances)
        likelier = np.exp(usual - distance**2 / 2.0) / np.sqrt(1.0 - shared)
        total += np.minimum(share / 2.0 * likelier, 1.0) * _beginnings(distance, overlap)
    return np.asarray(total @ (where / where.sum()))


def _of_discrete(
    share: float, freedom: int, apart: NDArray[np.float64], shared: float, overlap: float
) -> NDArray[np.float64]:
    """As `_of_continuous`, of a chi-squared statistic, given how far references lie off: any shape."""
    threshold = special.chdtri(freedom, share)
    rates = 1.0 - special.chndtr(threshold / (1.0 - shared), freedom, shared / (1.0 - shared) * apart)
    distance = np.maximum(np.sqrt(threshold) - np.sqrt(shared * apart), 0.0) / np.sqrt(1.0 - shared)
    return np.asarray(np.maximum(rates, 1e-12) * _beginnings(distance, overlap))


def _beginnings(distance: NDArray[np.float64], overlap: float) -> NDArray[np.float64]:
    """Share of the failures that follow none: the extremal index at `distance` standard deviations."""
    distance = np.maximum(distance, 1e-3)
    x = distance * np.sqrt(2.0 * (1.0 - overlap))
    upper = special.ndtr(x / 2.0)
    density = np.exp(-(x**2) / 8.0) / np.sqrt(2.0 * np.pi)
    nu = 2.0 / x * (upper - 0.5) / (x / 2.0 * upper + density)
    # How often it begins is known by the density; the tail is a little lighter than density / distance.
    tail = special.log_ndtr(-distance) + distance**2 / 2.0 + np.log(distance * np.sqrt(2.0 * np.pi))
    return np.asarray(np.minimum(x**2 / 2.0 * nu * np.exp(-tail), 1.0))
