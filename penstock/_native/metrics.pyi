from typing import Final

import numpy as np
from numpy.typing import NDArray

LABEL: Final[int]
PREDICTED: Final[int]
LOGLOSS: Final[int]
BRIER: Final[int]
SCORE: Final[int]
WEIGHT: Final[int]
PREVIOUS: Final[int]
CLASS_COLUMNS: Final[int]

NUMBER_LABEL: Final[int]
NUMBER_ESTIMATE: Final[int]
NUMBER_WEIGHT: Final[int]
NUMBER_COLUMNS: Final[int]

SCALE: Final[int]
TOTAL: Final[int]
CORRECT: Final[int]
SUM_LOGLOSS: Final[int]
SUM_BRIER: Final[int]
SUM_SCORE: Final[int]
SUM_HITS: Final[int]
PAIRS: Final[int]
PAIRS_CORRECT: Final[int]
PAIRS_UNCHANGED: Final[int]
CALIBRATION: Final[int]
CALIBRATION_BINS: Final[int]
CLASSES: Final[int]
BINARY_SUMS: Final[int]

NUMBER_SCALE: Final[int]
NUMBER_TOTAL: Final[int]
SUM_ABSOLUTE: Final[int]
SUM_SQUARED: Final[int]
LABEL_MEAN: Final[int]
LABEL_M2: Final[int]
NUMBER_SUMS: Final[int]

USABLE: Final[int]
BAD_PREDICTION: Final[int]
BAD_LABEL: Final[int]
BAD_WEIGHT: Final[int]

AUC_BINS: Final[int]

def summarise_binary(
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    previous: float,
    rows: NDArray[np.float64],
) -> tuple[int, int, int]: ...
def squared_losses(
    predictions: NDArray[np.float64], labels: NDArray[np.float64], losses: NDArray[np.float64]
) -> tuple[int, int, int]: ...
def summarise_multiclass(
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    previous: float,
    rows: NDArray[np.float64],
) -> tuple[int, int, int]: ...
def summarise_numbers(
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> tuple[int, int, int]: ...
def add_classified(
    rows: NDArray[np.float64], sums: NDArray[np.float64], growth: float, top_label: bool
) -> None: ...
def add_numbers(rows: NDArray[np.float64], sums: NDArray[np.float64], growth: float) -> None: ...
def add_scores(rows: NDArray[np.float64], histogram: NDArray[np.float64]) -> None: ...
def remember(rows: NDArray[np.float64], ring: NDArray[np.float64], n_before: int) -> None: ...
def score_binary(
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_before: int,
    ring: NDArray[np.float64],
    sums: NDArray[np.float64],
    fading_sums: NDArray[np.float64],
    growth: float,
    histogram: NDArray[np.float64],
) -> tuple[int, int, int]: ...
