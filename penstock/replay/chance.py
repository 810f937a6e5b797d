"""Random numbers whose state is an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["generator", "generator_from", "state_of"]


def generator(seed: int, stream: int) -> np.random.Generator:
    """Return a Philox generator: another one for each seed and number of a stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def state_of(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Counter, key, numbers ready and how many of them are used.

    Only doubles are ever drawn, so there is no half of a number left over to keep.
    """
    state: Any = generator.bit_generator.state
    return np.concatenate(
        (
            state["state"]["counter"],
            state["state"]["key"],
            state["buffer"],
            np.array([state["buffer_pos"]], np.uint64),
        )
    )


def generator_from(state: Any) -> np.random.Generator:
    """Rebuild what `state_of` described.

    Raises
    ------
    ValueError
        If it cannot be one.
    """
    if state.dtype != np.uint64 or state.shape != (11,) or state[10] > 4:
        raise ValueError(f"expected a Philox generator in uint64 (11,), got {state.dtype} {state.shape}")
    philox = np.random.Philox(0)
    philox.state = {
        "bit_generator": "Philox",
        "state": {"counter": state[:4].copy(), "key": state[4:6].copy()},
        "buffer": state[6:10].copy(),
        "buffer_pos": int(state[10]),
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(philox)
