from typing import Final

import numpy as np
from numpy.typing import NDArray

GAMBLERS: Final[int]

def multiply_bets(
    mantissa: NDArray[np.float64],
    exponent: NDArray[np.int64],
    tests: int,
    bets: NDArray[np.float64],
    gains: NDArray[np.float64],
    delta: float,
) -> None: ...
def log_wealth(mantissa: NDArray[np.float64], exponent: NDArray[np.int64]) -> float: ...
def log_mixture(
    mantissa: NDArray[np.float64], exponent: NDArray[np.int64], tests: int, numbers: NDArray[np.int64]
) -> tuple[float, int]: ...
def fade(total: float, weight: float, decay: float, values: NDArray[np.float64]) -> tuple[float, float]: ...
