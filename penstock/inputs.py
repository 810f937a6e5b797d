"""Detectors on the events themselves in the engine: what they look at, and what becomes of what they ring."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.config import DriftRule
from penstock.drift import Change, Shift
from penstock.errors import StoreError
from penstock.events import Batch
from penstock.notices import Notice
from penstock.state import State, prefixed, section

__all__ = ["InputWatch", "numbers_of"]

_NAMED: Final = 3  # features in the text; the evidence has them all


class InputWatch:
    """A detector on the events themselves, and its first alarm since the last tick ended.

    Its alarms are noted and nothing else: without labels nobody knows whether a model is any worse.
    """

    def __init__(self, rule: DriftRule) -> None:
        self.rule = rule
        self._detector = rule.build_inputs()
        self._alarm: Change | None = None  # its index is the event's in the stream, whatever the batches

    def update(self, events: Batch, judged: NDArray[np.intp] | None, n_before: int) -> None:
        """Take the events at `judged` (None: all) of a batch that comes after `n_before`."""
        found = self._detector.update(events)
        if found is not None and self._alarm is None:
            place = found.index if judged is None else int(judged[found.index])
            self._alarm = replace(found, index=n_before + place)

    def end_tick(self) -> list[Notice]:
        """Report the alarm of the tick that just ended, if there was one."""
        if self._alarm is None:
            return []
        change, self._alarm = self._alarm, None
        named = "; ".join(_described(shift) for shift in change.shifts[:_NAMED])
        more = len(change.shifts) - _NAMED
        notice = Notice(
            what="drift",
            event=change.index + 1,
            learner="inputs",
            text=f"{self.rule.kind} on the inputs: {named}{f'; and {more} more' if more > 0 else ''}; "
            f"noted: it does not say whether a model is worse",
            evidence={
                "detector": self.rule.kind,
                "reaction": "log",
                "before": change.shifts[0].before,
                "after": change.shifts[0].after,
                "width": change.width,
                "statistic": change.statistic,
                "threshold": change.threshold,
                "features": [asdict(shift) for shift in change.shifts],
            },
        )
        return [notice]

    def state(self) -> State:
        """Everything the detector knows, and the alarm that is still to be reported."""
        state = prefixed(self._detector.state(), "detector")
        if self._alarm is not None:
            state["alarm"] = json.dumps(asdict(self._alarm))
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a detector.
        """
        alarm = None
        if (text := state.get("alarm")) is not None:
            try:
                found = json.loads(str(text))
                shifts = tuple(Shift(**shift) for shift in found.pop("shifts"))
                alarm = Change(index=int(found.pop("index")), **found, shifts=shifts)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise StoreError(f"the alarm of {self.rule.kind} cannot be read: {error}") from error
        self._detector.restore(section(state, "detector"))
        self._alarm = alarm


def _described(shift: Shift) -> str:
    if shift.test == "z":
        return f"{shift.feature} was {shift.before:.4g} on average, and is {shift.after:.4g}"
    psi = "" if shift.psi is None else f", PSI {shift.psi:.2f}"
    return (
        f"{shift.feature} {shift.where} in {shift.before:.0%} before, {shift.after:.0%} now "
        f"({shift.test.upper()} {shift.statistic:.3g}, p {shift.p_value:.1g}{psi})"
    )


def numbers_of(on: str, events: Batch) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return labels, or the numbers that a feature has, and which of the events have one."""
    if on == "label":
        return events.labels, np.arange(len(events))
    *outer, name = on.partition(":")[2].split(".")
    found = [
        (i, number) for i, row in enumerate(events.rows) if (number := _number(row, outer, name)) is not None
    ]
    return np.array([number for _, number in found], np.float64), np.array([i for i, _ in found], np.intp)


def _number(row: Any, outer: list[str], name: str) -> float | None:
    """Return a feature of a row, below the namespaces `outer`, if it is a number (or a truth value)."""
    for namespace in outer:
        row = row.get(namespace) if isinstance(row, Mapping) else None
    value = row.get(name) if isinstance(row, Mapping) else None
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else None
