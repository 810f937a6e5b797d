from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CODES: Final[int]

def fill(
    hashes: NDArray[np.uint32],
    owners: NDArray[np.int32],
    codes: NDArray[np.float64],
    keys: NDArray[np.uint32],
    columns: NDArray[np.int32],
    meanings: NDArray[np.float64],
) -> None: ...
def record(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.float64],
    keys: NDArray[np.uint32],
    columns: NDArray[np.int32],
    meanings: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None: ...
def encode(
    rows: NDArray[np.float64],
    grid: NDArray[np.float64],
    grid_starts: NDArray[np.int64],
    discrete: NDArray[np.uint8],
    out: NDArray[np.uint16],
) -> None: ...
def count(codes: NDArray[np.uint16], code_starts: NDArray[np.int64], out: NDArray[np.int64]) -> None: ...
def compare(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    code_starts: NDArray[np.int64],
    discrete: NDArray[np.uint8],
    least: int,
    statistics: NDArray[np.float64],
    freedom: NDArray[np.float64],
) -> None: ...
