import numpy as np
from numpy.typing import NDArray

def advance(sums: NDArray[np.float64], outcomes: NDArray[np.float64], scale: float) -> None: ...
def running_sum(start: float, values: NDArray[np.float64]) -> float: ...
def expectations(
    probabilities: NDArray[np.float64],
    values: NDArray[np.float64],
    starts: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None: ...
