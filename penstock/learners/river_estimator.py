"""The native linear learner as River estimators, to stand in River's pipelines beside River's models.

Importing this module imports River; nothing else of the package needs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from river import base

from penstock.errors import BadRecord
from penstock.events import Row, Task
from penstock.learners.sgd import SGD, Interactions, LossName, Reduction, UpdateRule

__all__ = ["SGDClassifier", "SGDRegressor"]


class _Estimator(base.Estimator):
    """What both estimators share: parameters by the names of `SGD`, kept as River wants them."""

    def _build(self, task: Task, given: Mapping[str, Any]) -> None:
        """Keep the constructor's parameters, `given` among its locals, and build the learner of them."""
        parameters = {name: given[name] for name in inspect.signature(type(self)).parameters}
        for name, value in parameters.items():
            setattr(self, name, value)
        # River cannot clone an empty tuple, so its default for no interactions is None.
        self._learner = SGD(task, **{**parameters, "interactions": parameters["interactions"] or ()})

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"bits": 12}  # River's checks copy a model many times over


class SGDClassifier(_Estimator, base.Classifier):
    """Online linear classifier with Vowpal Wabbit's update rules, for any number of classes.

    Labels may be anything hashable; a class takes part in predictions once it has been seen. Features may be
    numbers, strings, booleans, lists and (one namespace each) dicts; missing ones cost nothing, and no
    scaling is needed.

    Parameters
    ----------
    update, loss, learning_rate, power_t, initial_t, l1, l2, bits, interactions, constant, invariant
        See `penstock.learners.sgd.SGD`.
    ftrl_alpha, ftrl_beta, half_life
        Likewise.
    multiclass
        "oaa", one independent learner a class; or "softmax".

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> model = SGDClassifier(interactions=[["*", "*"]])
    >>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.Accuracy())
    Accuracy: 87.75%
    """

    def __init__(
        self,
        update: UpdateRule = "nag",
        loss: LossName | None = None,
        learning_rate: float = 0.5,
        power_t: float = 0.5,
        initial_t: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        bits: int = 18,
        interactions: Interactions | None = None,
        constant: bool = True,
        invariant: bool = True,
        ftrl_alpha: float | None = None,
        ftrl_beta: float | None = None,
        half_life: float | None = None,
        multiclass: Reduction = "oaa",
    ) -> None:
        self._build(Task("multiclass"), locals())
        self._numbers: dict[Hashable, int] = {}

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: Mapping[Hashable, Any], y: Hashable, w: float = 1.0) -> None:
        """Learn one example of importance `w`.

        Raises
        ------
        BadRecord
            If a value or the weight cannot be learned from; nothing has been learned then.
        """
        number = self._numbers.get(y, len(self._numbers))
        try:
            self._learner.learn_one(x, number, w)  # type: ignore[arg-type]
        except BadRecord:
            self._learner.learn_one(_with_string_names(x), number, w)
        if w > 0:
            self._numbers.setdefault(y, number)

    def predict_proba_one(self, x: Mapping[Hashable, Any], **kwargs: Any) -> dict[Any, float]:
        """Probability of each class seen so far; empty before the first."""
        try:
            probabilities = self._learner.predict_one(x)  # type: ignore[arg-type]
        except BadRecord:
            probabilities = self._learner.predict_one(_with_string_names(x))
        return dict(zip(self._numbers, probabilities.tolist(), strict=False))  # type: ignore[union-attr]


class SGDRegressor(_Estimator, base.Regressor):
    """Online linear regressor with Vowpal Wabbit's update rules.

    Parameters
    ----------
    update, loss, learning_rate, power_t, initial_t, l1, l2, bits, interactions, constant, invariant
        See `penstock.learners.sgd.SGD`.
    ftrl_alpha, ftrl_beta, half_life, quantile_tau, clip
        Likewise.

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> model = SGDRegressor(learning_rate=10.0)
    >>> evaluate.progressive_val_score(datasets.TrumpApproval(), model, metrics.MAE())
    MAE: 0.367651
    """

    def __init__(
        self,
        update: UpdateRule = "nag",
        loss: LossName | None = None,
        learning_rate: float = 0.5,
        power_t: float = 0.5,
        initial_t: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        bits: int = 18,
        interactions: Interactions | None = None,
        constant: bool = True,
        invariant: bool = True,
        ftrl_alpha: float | None = None,
        ftrl_beta: float | None = None,
        half_life: float | None = None,
        quantile_tau: float = 0.5,
        clip: bool = True,
    ) -> None:
        self._build(Task("regression"), locals())

    def learn_one(self, x: Mapping[Hashable, Any], y: float, w: float = 1.0) -> None:
        """Learn one example of importance `w`.

        Raises
        ------
        BadRecord
            If a value, the label or the weight cannot be learned from; nothing has been learned then.
        """
        try:
            self._learner.learn_one(x, y, w)  # type: ignore[arg-type]
        except BadRecord:
            self._learner.learn_one(_with_string_names(x), y, w)

    def predict_one(self, x: Mapping[Hashable, Any], **kwargs: Any) -> float:
        """Predict the label."""
        try:
            return self._learner.predict_one(x)  # type: ignore[arg-type, return-value]
        except BadRecord:
            return self._learner.predict_one(_with_string_names(x))  # type: ignore[return-value]


def _with_string_names(x: Mapping[Hashable, Any]) -> Row:
    """Name features by strings: River takes any hashable name, and its array streams count them."""
    return {str(name): value for name, value in x.items()}
