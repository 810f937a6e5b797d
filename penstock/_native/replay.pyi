from typing import Any

import numpy as np
from numpy.typing import NDArray

def lay_out(indptr: NDArray[np.int64], positions: NDArray[np.int64], out: NDArray[np.int64]) -> int: ...
def gather(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.float64],
    namespaces: NDArray[np.uint32],
    positions: NDArray[np.int64],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.uint32],
    out_values: NDArray[np.float64],
    out_namespaces: NDArray[np.uint32],
) -> None: ...
def choose(
    generator: np.random.Generator,
    population: int,
    places: NDArray[np.int64],
    out: NDArray[np.int64],
    swaps: NDArray[np.int64],
) -> None: ...
def keep_uniformly(
    generator: np.random.Generator,
    first: int,
    costs: NDArray[np.int64],
    max_bytes: int,
    numbers: NDArray[np.int64],
    held_costs: NDArray[np.int64],
    counts: NDArray[np.int64],
    log_threshold: NDArray[np.float64],
    kept: NDArray[np.int64],
) -> int: ...

class Classes:
    def __init__(self, size: int, max_bytes: int) -> None: ...
    @property
    def n_held(self) -> int: ...
    def offer(
        self,
        generator: np.random.Generator,
        first: int,
        labels: NDArray[np.int64],
        costs: NDArray[np.int64],
        numbers: NDArray[np.int64],
        held_costs: NDArray[np.int64],
        kept: NDArray[np.int64],
    ) -> int: ...
    def dump(self) -> tuple[bool, list[tuple[int, bool, list[int]]]]: ...
    def load(self, filled: bool, classes: list[Any], held_costs: NDArray[np.int64]) -> None: ...

def plant(tree: NDArray[np.float64], leaves: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...
def pick(generator: np.random.Generator, tree: NDArray[np.float64], out: NDArray[np.int64]) -> None: ...
