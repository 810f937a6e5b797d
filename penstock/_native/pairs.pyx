"""Rows of (context, action) pairs: what a regression oracle predicts, in one copy and no Python object a row."""

from libc.stdint cimport int64_t, uint32_t


def pair_rows(
    const int64_t[::1] starts,
    const int64_t[::1] context_indptr,
    const uint32_t[::1] context_indices,
    const double[::1] context_values,
    const uint32_t[::1] context_namespaces,
    const int64_t[::1] action_indptr,
    const uint32_t[::1] action_indices,
    const double[::1] action_values,
    const uint32_t[::1] identities,
    uint32_t namespace,
    int64_t[::1] indptr,
    uint32_t[::1] indices,
    double[::1] values,
    uint32_t[::1] namespaces,
):
    """Write one row an offered action: its event's context, its own features, its identity.

    Everything of an action gets `namespace`. Its indices are shifted by it too, so that a context and an
    action may have features of the same name.

    Parameters
    ----------
    starts : int64, shape (n + 1,)
        Event i offers the actions ``starts[i]:starts[i + 1]``, m in all.
    context_... : CSR of n rows
    action_... : CSR of m rows
    identities : uint32, shape (m,)
        Index of the feature "it is this action".
    indptr, indices, values, namespaces : shapes (m + 1,) and thrice (nnz,)
        The result; nnz as in `n_entries`.
    """
    cdef Py_ssize_t n = starts.shape[0] - 1, m = identities.shape[0], i, a, entry, at = 0
    if n_entries(starts, context_indptr, action_indptr) != indices.shape[0]:
        raise ValueError(f"{indices.shape[0]} entries are not what the pairs have")
    if (
        action_indptr.shape[0] != m + 1
        or indptr.shape[0] != m + 1
        or values.shape[0] != indices.shape[0]
        or namespaces.shape[0] != indices.shape[0]
        or context_indptr[n] > context_indices.shape[0]
        or context_indices.shape[0] != context_values.shape[0]
        or context_indices.shape[0] != context_namespaces.shape[0]
        or action_indptr[m] > action_indices.shape[0]
        or action_indices.shape[0] != action_values.shape[0]
    ):
        raise ValueError("contexts, actions and results do not fit together")
    with nogil:
        indptr[0] = 0
        for i in range(n):
            for a in range(starts[i], starts[i + 1]):
                for entry in range(context_indptr[i], context_indptr[i + 1]):
                    indices[at] = context_indices[entry]
                    values[at] = context_values[entry]
                    namespaces[at] = context_namespaces[entry]
                    at += 1
                for entry in range(action_indptr[a], action_indptr[a + 1]):
                    indices[at] = action_indices[entry] ^ namespace
                    values[at] = action_values[entry]
                    namespaces[at] = namespace
                    at += 1
                indices[at] = identities[a]
                values[at] = 1.0
                namespaces[at] = namespace
                at += 1
                indptr[a + 1] = at


def n_entries(
    const int64_t[::1] starts, const int64_t[::1] context_indptr, const int64_t[::1] action_indptr
):
    """How many entries all pairs have together.

    Raises
    ------
    ValueError
        If the pointers do not start at 0, decrease, or do not fit together.
    """
    cdef Py_ssize_t n = starts.shape[0] - 1, m = action_indptr.shape[0] - 1, i
    cdef int64_t total = 0
    if n < 0 or m < 0 or context_indptr.shape[0] != n + 1:
        raise ValueError("starts and contexts do not fit together")
    if starts[0] != 0 or starts[n] != m or context_indptr[0] != 0 or action_indptr[0] != 0:
        raise ValueError("pointers must reach from 0 to the end")
    for i in range(n):
        if starts[i + 1] < starts[i] or context_indptr[i + 1] < context_indptr[i]:
            raise ValueError(f"pointers decrease at event {i}")
        total += (starts[i + 1] - starts[i]) * (context_indptr[i + 1] - context_indptr[i] + 1)
    for i in range(m):
        if action_indptr[i + 1] < action_indptr[i]:
            raise ValueError(f"pointers decrease at action {i}")
    return total + action_indptr[m]
