"""What the native linear learner leaves behind for serving: weights, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from penstock._native.linear import LinearModel
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch, Row, Task, TaskKind
from penstock.state import State

__all__ = ["LOSSES", "MAX_BITS", "MAX_CLASSES", "SGDModel", "checked_interactions", "required_array"]

MAX_BITS: Final = 30
MAX_CLASSES: Final = 1 << 16  # more are a mistake, and each costs a whole table

# Per task: the losses that make sense, the default first.
LOSSES: Final[Mapping[str, tuple[str, ...]]] = {
    "binary": ("logistic", "squared", "hinge"),
    "multiclass": ("logistic", "squared", "hinge"),
    "regression": ("squared", "quantile", "poisson"),
}
_REDUCTION: Final = {"multiclass": "softmax"}


class SGDModel:
    """What an `SGD` knew when it was frozen: effective weights, and nothing that only learning needs.

    Build it with `SGD.freeze` or `SGD.load`. Threads may share one.

    Parameters
    ----------
    task : Task
    loss, bits, constant, interactions
        As of the learner; the loss "softmax" stands for that reduction.
    weights : float32, shape (2**bits,) or, for multiclass, (2**bits, K)
    limits : float64, shape (K, 2)
        Lowest and highest margin of each class; one row where there are no classes.
    sighted : uint8, shape (K,)
        Whether the class has been seen; its probability is 0 otherwise.

    Attributes
    ----------
    predict_one : callable of a row
        Predicts one dict: a float, or an array of shape (K,) for multiclass. Raises `BadRecord` if a value of
        the row cannot be a feature. (The kernel's own, since a call more is a tenth of the time.)

    Notes
    -----
    The arrays are kept, not copied, and made read-only.
    """

    predict_one: Callable[[Row], NDArray[np.float64] | float]

    def __init__(
        self,
        task: Task,
        *,
        loss: str,
        bits: int,
        constant: bool,
        interactions: Sequence[Sequence[str]],
        weights: NDArray[np.float32],
        limits: NDArray[np.float64],
        sighted: NDArray[np.uint8],
    ) -> None:
        for array in (weights, limits, sighted):
            array.setflags(write=False)
        self.weights = weights
        self._limits = limits
        self._sighted = sighted
        self._is_multiclass = task.kind == "multiclass"
        self._scalars: State = {
            "task": task.kind,
            "loss": loss,
            "bits": bits,
            "constant": constant,
        }
        self._interactions = interactions
        self._kernel = LinearModel(
            head=task.kind,
            loss=loss,
            bits=bits,
            constant=constant,
            interactions=interactions,
            weights=weights.reshape(-1),
            limits=limits,
            sighted=sighted,
        )
        self.predict_one = self._kernel.run_one

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event of `batch`; labels are not looked at."""
        features = batch.features
        out = np.zeros((len(features), len(self._sighted)))
        self._kernel.run(features.indptr, features.indices, features.values, features.namespaces, out)
        return out if self._is_multiclass else out.reshape(-1)

    def state(self) -> State:
        """Everything that `from_state` needs, for a snapshot. The arrays are the model's own, read-only."""
        return {
            **self._scalars,
            "interactions": json.dumps(self._interactions),
            "weights": self.weights,
            "limits": self._limits,
            "sighted": self._sighted,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SGDModel:
        """Rebuild what `state` wrote. Read-only arrays, such as memory maps, are not copied.

        Raises
        ------
        StoreError
            If it is not the state of such a model; names the entry.
        """
        kind, loss, bits = state.get("task"), state.get("loss"), state.get("bits")
        if not isinstance(kind, str) or kind not in LOSSES:
            raise StoreError(f"sgd model: no such task: {kind!r}")
        if not isinstance(loss, str) or loss not in (*LOSSES[kind], _REDUCTION.get(kind)):
            raise StoreError(f"sgd model: a {kind} task has no loss {loss!r}")
        if type(bits) is not int or not 1 <= bits <= MAX_BITS:
            raise StoreError(f"sgd model: bits must be in 1..{MAX_BITS}, got {bits!r}")
        if type(state.get("constant")) is not bool:
            raise StoreError(f"sgd model: constant must be true or false, got {state.get('constant')!r}")
        try:
            interactions = checked_interactions(json.loads(state["interactions"]))
        except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
            raise StoreError(f"sgd model: interactions cannot be read: {error}") from None
        sighted = state.get("sighted")
        k = sighted.shape[0] if isinstance(sighted, np.ndarray) and sighted.ndim == 1 else -1
        if not 0 <= k <= MAX_CLASSES or (kind != "multiclass" and k != 1):
            raise StoreError(f"sgd model: sighted does not fit a {kind} task")
        limits = required_array(state, "limits", np.float64, (k, 2), what="sgd model")
        if not np.isfinite(limits).all() or (limits[:, 0] > limits[:, 1]).any():
            raise StoreError("sgd model: limits must be finite, the lower one first")
        shape = (1 << bits, k) if kind == "multiclass" else (1 << bits,)
        return cls(
            Task(cast("TaskKind", kind)),
            loss=loss,
            bits=bits,
            constant=state["constant"],
            interactions=interactions,
            weights=_immutable(required_array(state, "weights", np.float32, shape, what="sgd model")),
            limits=_immutable(limits),
            sighted=_immutable(required_array(state, "sighted", np.uint8, (k,), what="sgd model")),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return SGDModel.from_state, (self.state(),)


def checked_interactions(interactions: Any) -> list[list[str]]:
    """Check that `interactions` are lists of 2 or 3 names, and return them as such.

    Raises
    ------
    ConfigError
        Names the first that is not.
    """
    if isinstance(interactions, str) or not isinstance(interactions, Sequence):
        raise ConfigError(f"interactions: expected a list of lists of namespaces, got {interactions!r}")
    for i, names in enumerate(interactions):
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not 2 <= len(names) <= 3
            or not all(isinstance(name, str) for name in names)
        ):
            raise ConfigError(f"interactions[{i}]: expected 2 or 3 names of namespaces, got {names!r}")
    return [list(names) for names in interactions]


def required_array(
    state: Mapping[str, Any], name: str, dtype: type[np.generic], shape: tuple[int, ...], *, what: str
) -> NDArray[Any]:
    """Return the array `name` of a state; contiguous and aligned, copied only if it is not.

    Raises
    ------
    StoreError
        If it is missing, or of another type or shape.
    """
    value = state.get(name)
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StoreError(f"{what}: expected {name} to be {np.dtype(dtype)} {shape}, got {got}")
    return np.require(value, requirements=["C", "A"]).view(np.ndarray)


def _immutable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array itself if nobody can write to it, or else a copy."""
    return array.copy() if array.flags.writeable else array
