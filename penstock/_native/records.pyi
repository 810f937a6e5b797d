from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.events import Features

class Records:
    def read(
        self, records: Sequence[bytes] | Sequence[tuple[bytes, NDArray[np.int64]]]
    ) -> (
        tuple[
            Features,
            NDArray[Any],
            NDArray[np.float64],
            NDArray[np.float64],
            list[str] | None,
            list[tuple[int, str]],
            NDArray[np.int64],
            NDArray[np.int64],
        ]
        | None
    ): ...
