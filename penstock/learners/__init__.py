"""Incremental learners, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.events import Task
from penstock.learners.base import Learner, Model
from penstock.registry import resolve

__all__ = ["LEARNERS", "Learner", "Model", "build", "load_model"]

LEARNERS: Final[Mapping[str, str]] = {
    "sgd": "penstock.learners.sgd:SGD",
    "river": "penstock.learners.river:River",
    "vw": "penstock.learners.vw:VW",
    "prior": "penstock.learners.baselines:Prior",
    "no_change": "penstock.learners.baselines:NoChange",
}


def build(kind: str, task: Task, *, seed: int = 0, **parameters: Any) -> Learner:
    """Build the learner registered as `kind`, or the class that ``module:Class`` names.

    Raises
    ------
    ConfigError
        If there is no such class, or it does not accept `parameters`.
    """
    learner: Learner = resolve(kind, LEARNERS, what="learner")(task, seed=seed, **parameters)
    return learner


def load_model(kind: str, state: dict[str, Any]) -> Model:
    """Rebuild the frozen model that a learner of this `kind` wrote with `Model.state`."""
    model: Model = resolve(kind, LEARNERS, what="learner").load(state)
    return model
