from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HEADS: Final[Mapping[str, int]]
LOSSES: Final[Mapping[str, int]]
RULES: Final[Mapping[str, int]]
TOTALS: Final[tuple[str, ...]]

def loss_derivative(loss: str, p: float, y: float, tau: float = 0.5) -> float: ...
def loss_step(loss: str, p: float, y: float, h: float, q: float, tau: float = 0.5) -> float: ...
def touched_size(bits: int) -> int: ...
def stride_of(rule: str, remembers_touch: bool) -> int: ...
def first_bad_label(
    labels: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float, whole: bool
) -> int: ...

class Linear:
    def __init__(
        self,
        *,
        head: str,
        loss: str,
        rule: str,
        bits: int,
        constant: bool,
        interactions: Sequence[Sequence[str]],
        invariant: bool,
        clipped: bool,
        learning_rate: float,
        power_t: float,
        l1: float,
        l2: float,
        alpha: float,
        beta: float,
        tau: float,
        half_life: float,
    ) -> None: ...
    def attach(
        self,
        table: NDArray[np.float32],
        totals: NDArray[np.float64],
        sighted: NDArray[np.uint8],
        clock: NDArray[np.int64],
        touched: NDArray[np.uint64],
    ) -> None: ...
    def attach_held(self, held: NDArray[np.float32], strength: float, memory: float, every: int) -> None: ...
    def consolidate(self, weights: NDArray[np.float32], n_classes: int) -> None: ...
    def run(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint32],
        values: NDArray[np.float64],
        namespaces: NDArray[np.uint32],
        labels: NDArray[np.float64] | None,
        weights: NDArray[np.float64] | None,
        out: NDArray[np.float64] | None,
        n_classes: int,
    ) -> None: ...
    def run_one(
        self,
        row: Mapping[str, Any],
        label: float,
        weight: float,
        out: NDArray[np.float64] | None,
        n_classes: int,
    ) -> float: ...
    def sensitivities(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint32],
        values: NDArray[np.float64],
        namespaces: NDArray[np.uint32],
        label: float,
        out: NDArray[np.float64],
    ) -> None: ...
    def effective_weights(self, out: NDArray[np.float32], n_classes: int) -> None: ...
    def copy_slots(self, out: NDArray[np.float32], n_classes: int) -> None: ...
    def find_touched(self) -> None: ...

class LinearModel:
    def __init__(
        self,
        *,
        head: str,
        loss: str,
        bits: int,
        constant: bool,
        interactions: Sequence[Sequence[str]],
        weights: NDArray[np.float32],
        limits: NDArray[np.float64],
        sighted: NDArray[np.uint8],
    ) -> None: ...
    def run(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint32],
        values: NDArray[np.float64],
        namespaces: NDArray[np.uint32],
        out: NDArray[np.float64],
    ) -> None: ...
    def run_one(self, row: Mapping[str, Any]) -> float | NDArray[np.float64]: ...
