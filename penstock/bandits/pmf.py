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


def projected(probabilities: Floats, starts: Starts, floors: Floats, *, zeros: bool = True) -> Floats:
    """Nearest distributions (Euclidean) with no entry below ``floor / K``.

    This is what VW calls ``enforce_minimum_probability``. Unlike mixing, it takes what the small entries
    need from all larger ones alike.

    Parameters
    ----------
    probabilities : float64, shape (m,)
    starts : int64, shape (n + 1,)
    floors : float64, shape (n,), in [0, 1]
        Of each event.
    zeros : bool
        Whether entries of 0 are raised too; if not they stay 0 and do not count among the K.

    Examples
    --------
    >>> projected(np.array([0.9, 0.1, 0.0]), np.array([0, 3]), np.array([0.3]))
    array([0.8, 0.1, 0.1])
    """
    out = probabilities.copy()
    for start, stop, floor in zip(starts[:-1].tolist(), starts[1:].tolist(), floors.tolist(), strict=True):
        kept = np.arange(start, stop)
        if not zeros:
            kept = kept[probabilities[start:stop] > 0.0]
        out[kept] = _project(probabilities[kept], floor / len(kept))
    return out


def _project(p: Floats, least: float) -> Floats:
    """Subtract from all what keeps the sum 1, and cut at `least`."""
    if p.min() >= least:
        return p
    k = len(p)
    descending = np.sort(p)[::-1]
    rank = np.arange(k)
    shifts = (np.cumsum(descending) + least * (k - 1 - rank) - 1.0) / (rank + 1)
    above = np.flatnonzero(descending - shifts > least)
    shift = shifts[above[-1]] if len(above) else shifts[0]
    return normalised(np.maximum(p - shift, least), np.array([0, k]))
