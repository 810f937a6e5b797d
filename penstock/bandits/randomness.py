"""Random numbers that are functions of a seed and of decisions' keys: any of them can be drawn again."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["uniform"]

_GOLDEN: Final = (
    0x9E3779B97F4A7C15  # 2^64 over the golden ratio: its multiples never come close to each other
)


def uniform(keys: NDArray[np.uint64], seed: int, stream: int) -> NDArray[np.float64]:
    """Draw one number in [0, 1) a key; the same for the same arguments.

    Parameters
    ----------
    keys : uint64, shape (n,)
    seed, stream : int
        Different ones give independent numbers for the same keys.

    Examples
    --------
    >>> uniform(np.arange(3, dtype=np.uint64), 0, 1).round(3)
    array([0.338, 0.523, 0.357])
    """
    start = _scrambled(np.array([(seed + stream * _GOLDEN) % 2**64], np.uint64))
    bits = _scrambled(_scrambled(keys ^ start) + np.uint64(_GOLDEN))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scrambled(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Make each bit depend on all (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
