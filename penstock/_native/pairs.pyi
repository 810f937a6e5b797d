import numpy as np
from numpy.typing import NDArray

def pair_rows(
    starts: NDArray[np.int64],
    context_indptr: NDArray[np.int64],
    context_indices: NDArray[np.uint32],
    context_values: NDArray[np.float64],
    context_namespaces: NDArray[np.uint32],
    action_indptr: NDArray[np.int64],
    action_indices: NDArray[np.uint32],
    action_values: NDArray[np.float64],
    identities: NDArray[np.uint32],
    namespace: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.float64],
    namespaces: NDArray[np.uint32],
) -> None: ...
def n_entries(
    starts: NDArray[np.int64],
    context_indptr: NDArray[np.int64],
    action_indptr: NDArray[np.int64],
) -> int: ...
