from typing import Any

import numpy as np
from numpy.typing import NDArray

def copied(row: dict[Any, Any]) -> dict[str, Any] | None: ...
def numbers(values: Any) -> NDArray[np.float64] | None: ...
