"""Distributions over the actions of many events at once: arrays of all entries, cut by `starts`.

As in `penstock.decisions.Offers`, event i owns the entries ``starts[i]:starts[i + 1]``, at least one.
Each event's result depends on its own entries only, to the bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cheapest", "floored", "normalised", "projected"]

Floats = NDArray[np.float64]
Starts = NDArray[np.int64]


def normalised(scores: Floats, starts: Starts) -> Floats:
    """Divide by the event's sum, which must be positive."""
    if not len(scores):
        return scores
    sums: Floats = np.repeat(np.add.reduceat(scores, starts[:-1]), np.diff(starts))
    return scores / sums


def cheapest(costs: Floats, starts: Starts) -> Floats:
    """Split 1 evenly among the entries of lowest cost.

    Examples
    --------
    >>> cheapest(np.array([1.0, 0.0, 0.0, 5.0]), np.array([0, 3, 4]))
    array([0. , 0.5, 0.5, 1. ])
    """
    if not len(costs):
        return costs
    least = np.repeat(np.minimum.reduceat(costs, starts[:-1]), np.diff(starts))
    return normalised((costs == least).astype(np.float64), starts)


def floored(probabilities: Floats, starts: Starts, floor: float) -> Floats:
    """Mix with the uniform distribution: every entry of K is at least ``floor / K`` then."""
    if not floor:
        return probabilities
    sizes = np.diff(starts)
    return (1.0 - floor) * probabilities + np.repeat(floor / sizes, sizes)


def projected(probabilities: Floats, starts: Starts, least: Floats, *, zeros: bool = True) -> Floats:
    """Nearest distributions (Euclidean) with no entry below `least`; VW's ``enforce_minimum_probability``.

    Unlike mixing, it takes the mass that the small entries need from all larger ones alike.

    Parameters
    ----------
    probabilities : float64, shape (m,)
    least : float64, shape (n,), in [0, 1 / K]
        Of each event.
    zeros : bool
        Whether entries of 0 are raised too; if not they stay 0, and only the others are projected.

    Examples
    --------
    >>> projected(np.array([0.9, 0.1, 0.0]), np.array([0, 3]), np.array([0.1]))
    array([0.8, 0.1, 0.1])
    """
    out = probabilities.copy()
    low = np.repeat(least, np.diff(starts))
    short = np.flatnonzero(
        np.add.reduceat((probabilities < low) & (zeros | (probabilities > 0)), starts[:-1])
    )
    for event in short.tolist():
        part = slice(int(starts[event]), int(starts[event + 1]))
        entries = np.arange(part.start, part.stop)
        if not zeros:
            entries = entries[probabilities[part] > 0]
        out[entries] = _project(probabilities[entries], float(least[event]))
    return out


def _project(p: Floats, least: float) -> Floats:
    """Project one distribution: subtract what keeps the sum 1 from all, and cut at `least`."""
    k = len(p)
    descending = np.sort(p)[::-1]
    shifts = (np.cumsum(descending) + least * np.arange(k - 1, -1, -1) - 1.0) / np.arange(1, k + 1)
    kept = (
        int(np.flatnonzero(descending - shifts >= least)[-1]) if (descending - shifts >= least).any() else 0
    )
    result: Floats = np.maximum(p - shifts[kept], least)
    return normalised(result, np.array([0, k]))
