import numpy as np
from numpy.typing import NDArray

def cut_lines(
    block: bytes, start: int, n: int, limit: int, is_last: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]: ...
