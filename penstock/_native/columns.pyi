from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.events import Features

LAYOUTS: Final[tuple[str, ...]]

def encode_columns(
    names: Sequence[str], columns: Sequence[tuple[str, list[Any], int, Any]], n: int
) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]: ...
