"""What a learner, a detector or the whole engine knows, as a flat mapping of names to plain values.

A `State` holds numpy arrays and plain scalars. What cannot be expressed that way (a River model) is an
`Opaque` entry: bytes that only its owner can read, and only if somebody vouches for them.
Names are joined by ``/``: the engine's state is the union of its parts' states under their prefixes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Opaque", "Scalar", "State", "digest", "prefixed", "section"]

Scalar: TypeAlias = "bool | int | float | str | None"


class Opaque:
    """Bytes that only their owner can read: a pickle, or a library's own model format. Never changes.

    Parameters
    ----------
    data : bytes
        What the owner wrote.
    digest : str, or a function without arguments that returns it
        Hex SHA-256 over the *content*. It may differ from the hash of `data`: two pickles of equal
        objects need not be equal bytes. A function is called at most once, when somebody asks: a state
        is taken far more often than it is compared.
    trusted : bool
        Whether `data` may be unpickled: made in this process, signed with our key, or allowed by the
        configuration.
    """

    __slots__ = ("_digest", "data", "trusted")

    def __init__(self, *, data: bytes, digest: str | Callable[[], str], trusted: bool = True) -> None:
        self.data: Final = data
        self.trusted: Final = trusted
        self._digest = digest

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the content."""
        if not isinstance(self._digest, str):
            self._digest = self._digest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Opaque):
            return NotImplemented
        return (self.data, self.trusted) == (other.data, other.trusted) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.data, self.trusted))

    def __repr__(self) -> str:
        return f"Opaque({len(self.data)} bytes, trusted={self.trusted})"


State: TypeAlias = "dict[str, NDArray[Any] | Scalar | Opaque]"


def prefixed(state: Mapping[str, NDArray[Any] | Scalar | Opaque], prefix: str) -> State:
    """Put every name of `state` under ``prefix/``.

    Examples
    --------
    >>> prefixed({"count": 3}, "learners/sgd")
    {'learners/sgd/count': 3}
    """
    return {f"{prefix}/{name}": value for name, value in state.items()}


def section(state: Mapping[str, NDArray[Any] | Scalar | Opaque], prefix: str) -> State:
    """Return the entries under ``prefix/``, their names without it.

    Examples
    --------
    >>> section({"learners/sgd/count": 3, "tick": 1}, "learners/sgd")
    {'count': 3}
    """
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def digest(state: Mapping[str, NDArray[Any] | Scalar | Opaque]) -> str:
    """Hex SHA-256 over names, types, shapes and content, in the order of the names.

    Examples
    --------
    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    True
    >>> digest({"a": 1}) == digest({"a": 1.0})
    False
    """
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)  # of at least one dimension
            sha.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
            sha.update(array.reshape(-1).view(np.uint8).data)
        elif isinstance(value, Opaque):
            sha.update(f"{name}\0opaque\0{value.digest}\0".encode())
        else:
            sha.update(f"{name}\0{type(value).__name__}\0{json.dumps(value)}\0".encode())
    return sha.hexdigest()
