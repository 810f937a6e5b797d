from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

EXPLORE: Final[Mapping[str, int]]
HEAD: Final[tuple[str, ...]]
TOTALS: Final[tuple[str, ...]]

class FeatureIndex:
    limit: Final[int]
    def __init__(self, limit: int, hashes: NDArray[np.uint32] | None = None) -> None: ...
    def __len__(self) -> int: ...
    def fill(self, out: NDArray[np.uint32]) -> None: ...
    def copy(self) -> FeatureIndex: ...

class Posteriors:
    def __init__(self, arrays: tuple[NDArray[np.float64], ...], diagonal: bool) -> None: ...

class Model:
    def __init__(
        self,
        *,
        explore: str,
        width: float = 1.0,
        l2: float = 1.0,
        shape: float = 1.0,
        scale: float = 1.0,
        logistic: bool = False,
        diagonal: bool = False,
        shared: bool = False,
        hybrid: bool = False,
        intercept: bool = True,
        crosses: bool = True,
        discount: float = 1.0,
        floor: float = 0.0,
        draws: int = 1,
        period: int = 1000,
        seed: int = 0,
    ) -> None: ...
    def decide(
        self,
        own: Posteriors | None,
        common: Posteriors | None,
        cross: NDArray[np.float64] | None,
        own_index: FeatureIndex,
        common_index: FeatureIndex,
        totals: NDArray[np.float64],
        starts: NDArray[np.int64],
        slots: NDArray[np.int64],
        hashes: NDArray[np.uint64] | None,
        keys: NDArray[np.uint64] | None,
        contexts: tuple[NDArray[Any], ...],
        actions: tuple[NDArray[Any], ...] | None,
        out: NDArray[np.float64],
    ) -> None: ...
    def run(
        self,
        own: Posteriors | None,
        common: Posteriors | None,
        cross: NDArray[np.float64] | None,
        moments: NDArray[np.float64] | None,
        own_index: FeatureIndex,
        common_index: FeatureIndex,
        totals: NDArray[np.float64],
        starts: NDArray[np.int64],
        slots: NDArray[np.int64],
        hashes: NDArray[np.uint64] | None,
        keys: NDArray[np.uint64] | None,
        contexts: tuple[NDArray[Any], ...],
        actions: tuple[NDArray[Any], ...] | None,
        chosen: NDArray[np.int64],
        rewards: NDArray[np.float64],
        weights: NDArray[np.float64],
        out: NDArray[np.float64] | None,
        first: int,
    ) -> int: ...
    def correct(
        self,
        own: Posteriors | None,
        common: Posteriors | None,
        cross: NDArray[np.float64] | None,
        own_index: FeatureIndex,
        common_index: FeatureIndex,
        totals: NDArray[np.float64],
        starts: NDArray[np.int64],
        slots: NDArray[np.int64],
        hashes: NDArray[np.uint64] | None,
        keys: NDArray[np.uint64] | None,
        contexts: tuple[NDArray[Any], ...],
        actions: tuple[NDArray[Any], ...] | None,
        chosen: NDArray[np.int64],
        weights: NDArray[np.float64],
        old: NDArray[np.float64],
        new: NDArray[np.float64],
    ) -> None: ...
