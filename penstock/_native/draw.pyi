import numpy as np
from numpy.typing import NDArray

def draw(probabilities: NDArray[np.float64], key: int) -> int: ...
