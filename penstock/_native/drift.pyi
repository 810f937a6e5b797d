from typing import Final

import numpy as np
from numpy.typing import NDArray

ROWS: Final[int]
LARGEST: Final[float]

def first_unusable(values: NDArray[np.float64]) -> int: ...
def adwin(
    values: NDArray[np.float64],
    totals: NDArray[np.float64],
    m2: NDArray[np.float64],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
    clocks: NDArray[np.int64],
    delta: float,
    clock: int,
    min_window: int,
    grace: int,
    only_up: bool,
) -> tuple[int, float, float, int] | None: ...
