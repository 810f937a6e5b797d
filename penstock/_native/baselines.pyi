import numpy as np
from numpy.typing import NDArray

def average(
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    total: float,
    weight: float,
    before: NDArray[np.float64],
) -> tuple[float, float]: ...
def repeats(
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    last: float,
    n_chances: int,
    n_repeats: int,
    before: NDArray[np.float64],
    share: NDArray[np.float64],
) -> tuple[float, int, int]: ...
def of_ones(
    last: NDArray[np.float64], share: NDArray[np.float64], least: float, out: NDArray[np.float64]
) -> None: ...
