from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RULES: Final[Mapping[str, int]]
STATS: Final[tuple[str, ...]]
TOTALS: Final[tuple[str, ...]]

def look_up(
    index: dict[str, int],
    arms: Sequence[str] | NDArray[Any],
    slots: NDArray[np.int64],
    hashes: NDArray[np.uint64] | None = None,
) -> None: ...
def are_distributions(p: NDArray[np.float64], starts: NDArray[np.int64], tolerance: float) -> bool: ...
def kl_upper_bound(mean: float, budget: float) -> float: ...

class Tally:
    def __init__(
        self,
        *,
        rule: str,
        first: float = 0.0,
        second: float = 0.0,
        noise: float = 1.0,
        decays: bool = False,
        low: float = 0.0,
        high: float = 0.0,
        floor: float = 0.0,
        discount: float = 1.0,
        window: int = 0,
        draws: int = 1,
        seed: int = 0,
    ) -> None: ...
    def run(
        self,
        stats: NDArray[np.float64],
        totals: NDArray[np.float64],
        ring_slots: NDArray[np.int64] | None,
        ring_values: NDArray[np.float64] | None,
        starts: NDArray[np.int64],
        slots: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        keys: NDArray[np.uint64],
        chosen: NDArray[np.int64] | None,
        propensities: NDArray[np.float64] | None,
        rewards: NDArray[np.float64] | None,
        weights: NDArray[np.float64] | None,
        out: NDArray[np.float64] | None,
    ) -> None: ...
