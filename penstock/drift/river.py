"""Any drift detector of River, by its name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from river import base, drift

from penstock.drift.base import LARGEST, Domain, Drift
from penstock.errors import BadRecord, ConfigError, PenstockError, StoreError
from penstock.learners.river_state import opaque, unpickled
from penstock.state import State

__all__ = ["River"]


class River:
    """Watches with any detector of River, value by value.

    Alarms are River's. River keeps no account of what it saw, so the evidence is means of its own: of all
    values since the last alarm, and of the `recent` newest.

    Parameters
    ----------
    model : str
        A name below ``river``, such as ``drift.PageHinkley`` or ``drift.binary.DDM``.
    params : mapping, optional
        Of its constructor. ``seed`` is 0 where it takes one and is not given it.
    recent : int
        Newest values whose mean is the evidence of what came after.

    Raises
    ------
    ConfigError
        If it is no detector of River, or does not take a parameter.

    Notes
    -----
    The state is a pickle, which is only read again if it is trusted: as that of a River learner.

    Examples
    --------
    >>> River(model="drift.PageHinkley", params={"threshold": 20}).update(np.repeat([0.0, 1.0], 1000)).index
    1020
    """

    domain: ClassVar[Domain] = "numbers"

    def __init__(self, *, model: str, params: Mapping[str, Any] | None = None, recent: int = 30) -> None:
        if recent < 1:
            raise ConfigError(f"recent: expected an integer of at least 1, got {recent!r}")
        self._name = model
        self._params = dict(params or {})
        self.recent = recent
        self.reset()

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        self._detector = _build(self._name, self._params)
        self._bits = isinstance(self._detector, base.BinaryDriftDetector)
        self._n = 0
        self._total = 0.0
        self._window = np.zeros(self.recent)

    def update(self, values: NDArray[np.float64]) -> Drift | None:
        """Take all `values`, shape (n,), in stream order; return the first alarm among them.

        Raises
        ------
        BadRecord
            Names the first value that is not finite (a binary detector: not 0 or 1); none has
            been taken then.
        PenstockError
            If River fails on a value.
        """
        values = np.ascontiguousarray(values, dtype=np.float64)
        if values.ndim != 1:
            raise BadRecord("values of shape (n,)", values.shape, path="values.shape")
        usable = np.isin(values, (0.0, 1.0)) if self._bits else np.abs(values) <= LARGEST
        for at in np.flatnonzero(~usable)[:1].tolist():
            expected = "0 or 1" if self._bits else f"a finite number of magnitude at most {LARGEST:g}"
            raise BadRecord(expected, float(values[at]), path=f"values[{at}]")
        first: Drift | None = None
        for i, value in enumerate(values.tolist()):
            if self._detector.drift_detected:
                self._n, self._total = 0, 0.0
            try:
                self._detector.update(bool(value) if self._bits else value)
            except Exception as error:  # River's classes may raise anything
                raise PenstockError(
                    f"river {self._name} cannot take values[{i}] = {value!r}: {type(error).__name__}: {error}"
                ) from error
            self._window[self._n % self.recent] = value
            self._n += 1
            self._total += value
            if self._detector.drift_detected and first is None:
                first = self._evidence(i)
        return first

    def _evidence(self, index: int) -> Drift:
        width = min(self._n, self.recent)
        newest = float(self._window[:width].sum())  # the ring fills from its first place on
        older = self._n - width
        after = newest / width
        before = (self._total - newest) / older if older else after
        return Drift(index=index, before=before, after=after, width=width)

    def state(self) -> State:
        """Everything needed to resume; ``detector`` is an opaque entry."""
        return {
            "detector": opaque(self._detector),
            "n": self._n,
            "total": self._total,
            "window": self._window.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of this detector; nothing has changed then.
        UntrustedState
            If nothing vouches for the pickle in it.
        """
        detector = unpickled(state.get("detector"), "detector river")
        n, total, window = state.get("n"), state.get("total"), state.get("window")
        if (
            type(detector) is not type(self._detector)
            or not isinstance(n, int)
            or not isinstance(total, float)
            or not isinstance(window, np.ndarray)
            or window.shape != (self.recent,)
        ):
            raise StoreError(f"river {self._name}: this is the state of another detector")
        self._detector, self._n, self._total, self._window = detector, n, total, window.copy()


def _build(name: str, params: Mapping[str, Any]) -> Any:
    cls: Any = {"drift": drift}.get(name.partition(".")[0])
    for part in name.split(".")[1:]:
        cls = getattr(cls, part, None)
    detectors = (base.DriftDetector, base.BinaryDriftDetector)
    if not (inspect.isclass(cls) and issubclass(cls, detectors)):
        raise ConfigError(
            f"river has no detector {name!r}: expected a name such as "
            f"'drift.PageHinkley' or 'drift.binary.DDM'"
        )
    seed = {"seed": 0} if "seed" in inspect.signature(cls).parameters else {}
    try:
        return cls(**{**seed, **params})
    except Exception as error:  # of somebody else's constructor
        raise ConfigError(f"river {name}: {type(error).__name__}: {error}") from error
