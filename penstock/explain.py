"""What a model knew when it scored an event: features, predictions, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.features import encode_rows
from penstock.bandit_engine import BanditEngine, BanditRules
from penstock.bandits.base import FrozenPolicy
from penstock.decisions import Logged
from penstock.engine import Engine
from penstock.events import Batch
from penstock.learners.base import Model
from penstock.learners.sgd_model import SGDModel
from penstock.notices import Notice

__all__ = ["ExplainingEngine", "explained", "explained_decision"]

_CONSTANT: Final = 11650396  # index of the constant feature, as in `penstock._native.linear`
_SHOWN: Final = 10  # contributions of a learner


def explained(engine: Engine, event: Batch, *, first_version: int = 0) -> dict[str, Any]:
    """Say what every learner, and what serves, makes of an event that is learned next.

    Parameters
    ----------
    engine : Engine
        As it was before the event.
    event : Batch
        One event, as a source gives it.
    first_version : int
        What the store's numbers of versions are ahead of the engine's.

    Returns
    -------
    dict
        Plain JSON. Contributions are weights times values, the largest ones first; with the loss `logistic`
        they sum, with all that are not shown and those of crosses, to the log odds.
    """
    learners: dict[str, Any] = {}
    for name, learner in engine.learners.items():
        learners[name] = {"prediction": _prediction(learner.predict(event)[0], engine.classes)}
        model = learner.freeze()
        if isinstance(model, SGDModel):
            learners[name] |= _contributions(model, event, engine.classes)
    label = event.labels[0]
    told: dict[str, Any] = {
        "event": engine.n_events + 1,
        "id": event.ids[0] if event.ids is not None else None,
        "label": label if isinstance(label, str) else _number(label),
        "weight": float(event.weights[0]),
        "time": _number(event.times[0]),
        "features": event.rows[0],
        "learners": learners,
        "serving": None,
    }
    serving = engine.shadow.serving_version if engine.shadow is not None else None
    if serving is not None and isinstance(serving.model, Model):
        told["serving"] = {
            "version": serving.version + first_version,
            "learner": serving.learner,
            "frozen_at": serving.opened,
            "prediction": _prediction(serving.model.predict(event)[0], engine.classes),
        }
    return told


def _number(value: Any) -> float | None:
    return float(value) if value == value else None


def _prediction(value: Any, classes: list[str]) -> float | dict[str, float]:
    """Return a number, or one for each class; a class without a name has not been seen."""
    if np.ndim(value) == 0:
        return float(value)
    return {name: float(p) for name, p in zip(classes, value, strict=False)}


def _contributions(model: SGDModel, event: Batch, classes: list[str]) -> dict[str, Any]:
    state = model.state()
    weights = model.weights.reshape(1 << int(state["bits"]), -1)  # type: ignore[arg-type]
    names = dict(_names(event.rows[0], {}))
    entries = list(zip(event.features.indices.tolist(), event.features.values.tolist(), strict=True))
    if state["constant"]:
        names[_CONSTANT] = "(constant)"
        entries.append((_CONSTANT, 1.0))
    found = []
    for index, value in entries:
        weight = weights[index & (len(weights) - 1)].astype(np.float64)
        found.append((names.get(index, f"#{index}"), value, weight, weight * value))
    found.sort(key=lambda one: -float(np.abs(one[3]).max(initial=0.0)))
    is_multiclass = model.weights.ndim == 2
    told: dict[str, Any] = {
        "contributions": [
            {
                "feature": name,
                "value": value,
                "weight": _prediction(weight if is_multiclass else weight[0], classes),
                "contribution": _prediction(part if is_multiclass else part[0], classes),
            }
            for name, value, weight, part in found[:_SHOWN]
        ],
        "not_shown": max(0, len(found) - _SHOWN),
    }
    if state["interactions"] != "[]":
        told["interactions"] = state["interactions"]
    return told


def _names(row: Mapping[str, Any], around: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Give the index and the name of each feature, by hashing it alone."""
    path = []
    inner = around
    while inner:
        (key,) = inner
        path.append(key)
        inner = inner[key]
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _names(value, _nested([*path, name], {}))
            continue
        (features, bad) = encode_rows([_nested(path, {name: value})])
        if bad:
            continue
        indices = features.indices.tolist()
        text = ".".join([*path, str(name)]) + (f"={value}" if isinstance(value, str | bool) else "")
        for i, index in enumerate(indices):
            yield index, text if len(indices) == 1 else f"{text}[{i}]"


def _nested(path: list[str], row: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(path):
        row = {name: row}
    return row


class ExplainingEngine(BanditEngine):
    """Learns as any `BanditEngine`, and says on the way what it knew of one decision.

    Parameters
    ----------
    rules : BanditRules
    key : int, optional
        Of the decision, see `penstock.decisions.key_of`.
    number : int, optional
        Of the decision, counted from 1 in the order of learning.

    Attributes
    ----------
    found : dict or None
        Once it has been learned; plain JSON.
    """

    def __init__(self, rules: BanditRules, *, key: int | None = None, number: int | None = None) -> None:
        super().__init__(rules)
        self.key = key
        self.number = number
        self.found: dict[str, Any] | None = None

    def progress(self, logged: Logged) -> list[Notice]:
        """Judge and learn, as the base class does."""
        at = self._place(logged) if self.found is None else None
        if at is None:
            return super().progress(logged)
        notices = super().progress(logged.slice(0, at))
        self.found = explained_decision(self, logged.slice(at, at + 1))
        return notices + super().progress(logged.slice(at, len(logged)))

    def _place(self, logged: Logged) -> int | None:
        if self.number is not None:
            at = self.number - self.n_events - 1
            return at if 0 <= at < len(logged) else None
        if self.key is None:
            return None
        places = np.flatnonzero(logged.offers.keys == np.uint64(self.key))
        return int(places[0]) if len(places) else None


def explained_decision(engine: BanditEngine, logged: Logged) -> dict[str, Any]:
    """Say what every policy, and what decides, makes of a decision that is learned next.

    Parameters
    ----------
    engine : BanditEngine
        As it was before.
    logged : Logged
        One decision.

    Returns
    -------
    dict
        Plain JSON; ``pmf`` is over the offered actions.
    """
    offers = logged.offers
    arms = [str(arm) for arm in offers.arms]
    serving = engine.shadow.serving_version
    told: dict[str, Any] = {
        "event": engine.n_events + 1,
        "context": offers.rows[0],
        "actions": arms,
        "action": arms[int(logged.chosen[0])],
        "propensity": float(logged.propensities[0]),
        "reward": float(logged.rewards[0]),
        "weight": float(logged.weights[0]),
        "policies": {
            name: {"pmf": _pmf(arms, policy.probabilities(offers))}
            for name, policy in engine.policies.items()
        },
        "serving": None,
    }
    if serving is not None and isinstance(serving.model, FrozenPolicy):
        told["serving"] = {
            "version": serving.version,
            "learner": serving.learner,
            "frozen_at": serving.opened,
            "pmf": _pmf(arms, serving.model.probabilities(offers)),
        }
    return told


def _pmf(arms: list[str], probabilities: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(arms, probabilities.tolist(), strict=True))
