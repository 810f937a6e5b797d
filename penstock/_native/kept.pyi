import numpy as np
from numpy.typing import NDArray

def costs_of(indptr: NDArray[np.int64]) -> NDArray[np.int64]: ...

class Kept:
    def __len__(self) -> int: ...
    def append(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint32],
        values: NDArray[np.float64],
        namespaces: NDArray[np.uint32],
        labels: NDArray[np.float64],
        weights: NDArray[np.float64],
        times: NDArray[np.float64],
        places: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> None: ...
    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def take(
        self, positions: NDArray[np.int64]
    ) -> tuple[
        NDArray[np.int64],
        NDArray[np.uint32],
        NDArray[np.float64],
        NDArray[np.uint32],
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.float64],
    ]: ...
    def keep(self, positions: NDArray[np.int64]) -> None: ...
    def costs(self) -> NDArray[np.int64]: ...
    def labels(self) -> NDArray[np.float64]: ...
