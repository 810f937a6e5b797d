from typing import Final

import numpy as np
from numpy.typing import NDArray

UP: Final[int]
DOWN: Final[int]
BOTH: Final[int]
PAGE_HINKLEY: Final[int]
CUSUM: Final[int]
DDM: Final[int]
EDDM: Final[int]
HDDM_A: Final[int]
HDDM_W: Final[int]
STEPD: Final[int]
KSWIN: Final[int]
E_DETECTOR: Final[int]

def first_outside(values: NDArray[np.float64], low: float, high: float, only_ends: bool) -> int: ...
def page_hinkley(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    delta: float,
    threshold: float,
    alpha: float,
    warm_up: int,
    directions: int,
) -> tuple[int, float, float, int] | None: ...
def cusum(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    slack: float,
    threshold: float,
    mean: float,
    sd: float,
    warm_up: int,
    unlikely: float,
    directions: int,
) -> tuple[int, float, float, int] | None: ...
def ddm(
    values: NDArray[np.float64], memory: NDArray[np.float64], threshold: float, warm_up: int, longest: int
) -> tuple[int, float, float, int] | None: ...
def eddm(
    values: NDArray[np.float64], memory: NDArray[np.float64], threshold: float, warm_up: int, longest: int
) -> tuple[int, float, float, int] | None: ...
def hddm_a(
    values: NDArray[np.float64], memory: NDArray[np.float64], confidence: float, directions: int, longest: int
) -> tuple[int, float, float, int] | None: ...
def hddm_w(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    confidence: float,
    fading: float,
    directions: int,
) -> tuple[int, float, float, int] | None: ...
def stepd(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    window: NDArray[np.float64],
    critical: float,
    directions: int,
) -> tuple[int, float, float, int] | None: ...
def kswin(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    window: NDArray[np.float64],
    keys: NDArray[np.float64],
    recent: NDArray[np.float64],
    n_recent: int,
    clock: int,
    critical: float,
) -> tuple[int, float, float, int] | None: ...
def e_detector(
    values: NDArray[np.float64],
    memory: NDArray[np.float64],
    threshold: float,
    known: float,
    reference: int,
    log_risk: float,
    sums: bool,
) -> tuple[int, float, float, int] | None: ...
