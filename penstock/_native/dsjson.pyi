from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.events import Features

class DecisionReader:  # a Records, but for what it gives
    def __init__(self, *, arm: Sequence[str] = ()) -> None: ...
    def read(
        self, records: Sequence[bytes] | Sequence[tuple[bytes, NDArray[np.int64]]]
    ) -> (
        tuple[
            Features,
            NDArray[np.int64],
            NDArray[Any],
            Features,
            NDArray[np.int64],
            NDArray[np.float64],
            NDArray[np.float64],
            NDArray[np.float64],
            NDArray[np.float64],
            list[str],
            list[tuple[int, str]],
            NDArray[np.int64],
            NDArray[np.int64],
        ]
        | None
    ): ...
