"""Vowpal Wabbit as a learner: any of its command lines that learns from one labelled line at a time."""

from __future__ import annotations

import math
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from vowpalwabbit.pyvw import pylibvw

from penstock.errors import ConfigError, StoreError
from penstock.events import Batch, Row, Task
from penstock.learners.labels import Sighted, classes_in, learnable
from penstock.learners.vw_text import vw_text
from penstock.learners.vw_workspace import Option, Workspace, check_flags, not_saved
from penstock.state import State

__all__ = ["VW", "VWModel"]

_CLASS_COUNTS: Final = ("oaa", "ect", "log_multi", "recall_tree", "memory_tree")


class VW:
    """Learns what Vowpal Wabbit learns from the same examples with the same arguments.

    Parameters
    ----------
    task : Task
    seed : int
        Handed to VW as ``--random_seed`` if `args` do not have one.
    args : str
        Arguments as on VW's command line. A binary task without ``--loss_function`` gets the logistic one; a
        multiclass task needs a reduction, such as ``--oaa 7 --probabilities --loss_function logistic``. Not
        accepted is what does input or output, and the few reductions that could not be resumed exactly.

    Raises
    ------
    ConfigError
        If VW does not understand the arguments, or they cannot be used here; the message says which and why.

    Notes
    -----
    *Examples* are the lines of the source if it was VW text, verbatim, and else what `vw_text` makes of the
    row. Weights are VW's importance.

    *Labels.* Binary ones are 1 and -1 for the logistic and hinge losses and for ``--binary``, else 1 and 0;
    class numbers count from 1; those of a regression go in as they are.

    *Predictions.* Binary ones are ``sigmoid(p)`` for the logistic loss (``p`` with ``--link logistic``),
    ``(1 + p) / 2`` for the hinge loss, ``--binary`` and ``--link glf1``, else ``p``, cut to [0, 1].
    Multiclass ones are VW's probabilities with ``--probabilities``, else 1 for the class it names; over the
    classes seen so far, so that they add up to 1. What is scored is what VW predicts *before* it is shown the
    label. VW's own running average cuts predictions to the range of labels *including* the current one; where
    that has no effect (the logistic loss, classes) the averages are equal.

    *State* is VW's own model format as bytes, no pickle; with ``--per_model_save_load``, so that all of what
    VW knows is in it.

    VW writes models to named files only. They are made in a directory that only this user can read, below the
    one of `tempfile`, and removed at once.

    Examples
    --------
    >>> learner = VW(Task("binary"), args="-q ::")
    >>> learner.progress(Batch.from_rows([{"age": 31.0}, {"age": 62.0}], [0.0, 1.0])).round(2)
    array([0.5 , 0.16])
    >>> VW(Task("binary"), args="--passes 3")
    Traceback (most recent call last):
    ...
    penstock.errors.ConfigError: vw: --passes is for learning in several passes, or for not learning
    """

    def __init__(self, task: Task, *, seed: int = 0, args: str = "") -> None:
        self._task = task
        self._workspace = Workspace(_arguments(task, seed, args))
        options = self._workspace.options()
        self._answer = _Answer.of(task, self._workspace, options)
        self._workspace.check_resumable()
        self._options = not_saved(options)
        self._classes = Sighted()

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event with what is known now. Changes nothing.

        Raises
        ------
        BadRecord
            If VW fails on an event.
        """
        return _predictions(self._workspace, self._answer, self._classes, len(batch), _texts(batch))

    def learn(self, batch: Batch) -> None:
        """Learn every event, in order.

        Raises
        ------
        BadRecord
            If a label or a weight cannot be learned from, and nothing of the batch has been learned then; or
            if VW fails on an event.
        """
        self.progress(batch)

    def progress(self, batch: Batch) -> NDArray[np.float64]:
        """For each event in order: predict it, then learn it. Returns the predictions.

        Raises
        ------
        BadRecord
            As `learn`.
        """
        labels, weights = learnable(self._task, batch)
        answer, predict, progress = self._answer, self._workspace.predict, self._workspace.progress
        classes, width = self._classes, len(self._classes)
        multiclass = self._task.kind == "multiclass"
        if multiclass:
            width = max(width, classes_in(labels, weights)[1])
            answer.check_classes(width)
        predictions = answer.empty(len(labels), width)
        for i, (text, label, weight) in enumerate(
            zip(_texts(batch), labels.tolist(), weights.tolist(), strict=True)
        ):
            if not weight > 0.0:
                predictions[i] = answer.read(predict(text), classes, width)
                continue
            importance = "" if weight == 1.0 else f"{weight!r} "
            raw = progress(f"{answer.label(label)} {importance}{text}")
            predictions[i] = answer.read(raw, classes, width)
            if multiclass:
                classes.add(int(label))
        return predictions

    def freeze(self) -> VWModel:
        """Return a model of what is known now, that later learning does not touch."""
        return VWModel(self._answer, self._workspace.save(), self._options, self._classes.state())

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {
            "model": np.frombuffer(self._workspace.save(), dtype=np.uint8),
            "classes": self._classes.state(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If there is no VW model in it.
        """
        workspace = Workspace(self._options, _model_bytes(state))
        self._workspace.close()
        self._workspace = workspace
        self._classes = Sighted(state["classes"])  # type: ignore[arg-type]

    @staticmethod
    def load(state: dict[str, Any]) -> VWModel:
        """Rebuild a frozen model from its state.

        Raises
        ------
        StoreError
            If there is no VW model in it, or one that would do input or output.
        """
        options = shlex.split(str(state["options"]))
        try:
            check_flags(options)
        except ConfigError as error:
            raise StoreError(f"the state of a learner vw cannot be used: {error}") from error
        answer = _Answer(Task(state["task"]), str(state["answer"]), max_classes=int(state["max_classes"]))
        return VWModel(answer, _model_bytes(state), options, state["classes"])


class VWModel:
    """A frozen VW model: the bytes that VW saved, read when it is first asked for a prediction.

    VW cannot be used by two threads at once, so predictions of one model wait for each other.
    """

    def __init__(self, answer: _Answer, data: bytes, options: Sequence[str], classes: Iterable[int]) -> None:
        self._answer = answer
        self._data = data
        self._options = tuple(options)
        self._classes = Sighted(classes)
        self._workspace: Workspace | None = None
        self._one_at_a_time = threading.Lock()

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event of `batch`; labels are not looked at."""
        return self._predict_texts(len(batch), _texts(batch))

    def predict_one(self, row: Row) -> NDArray[np.float64] | float:
        """Predict one dict: a float, or an array of shape (K,) for multiclass.

        Raises
        ------
        BadRecord
            Names the path of the first value that cannot be a feature.
        """
        prediction: NDArray[np.float64] = self._predict_texts(1, [vw_text(row)])[0]
        return prediction if self._answer.task.kind == "multiclass" else float(prediction)

    def _predict_texts(self, n: int, texts: Iterable[str]) -> NDArray[np.float64]:
        with self._one_at_a_time:
            if self._workspace is None:
                # Not with -t: it rewrites regularised weights, and the last bits of predictions with them.
                self._workspace = Workspace(self._options, self._data)
            return _predictions(self._workspace, self._answer, self._classes, n, texts)

    def state(self) -> State:
        """Everything that ``VW.load`` needs, for a snapshot."""
        return {
            "model": np.frombuffer(self._data, dtype=np.uint8),
            "options": shlex.join(self._options),
            "task": self._answer.task.kind,
            "answer": self._answer.kind,
            "max_classes": self._answer.max_classes,
            "classes": self._classes.state(),
        }


def _arguments(task: Task, seed: int, args: str) -> list[str]:
    try:
        given = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"vw: args {args!r}: {error}") from error
    names = check_flags(given)
    if task.kind == "binary" and "loss_function" not in names:
        given += ["--loss_function", "logistic"]
    if seed and "random_seed" not in names:
        given += ["--random_seed", str(seed)]
    return given


def _texts(batch: Batch) -> Iterable[str]:
    return map(vw_text, batch.rows) if batch.lines is None else batch.lines


def _predictions(
    workspace: Workspace, answer: _Answer, classes: Sighted, n: int, texts: Iterable[str]
) -> NDArray[np.float64]:
    predict, width = workspace.predict, len(classes)
    predictions = answer.empty(n, width)
    for i, text in enumerate(texts):
        predictions[i] = answer.read(predict(text), classes, width)
    return predictions


def _model_bytes(state: Mapping[str, Any]) -> bytes:
    model = state.get("model")
    if not isinstance(model, np.ndarray) or model.dtype != np.uint8:
        raise StoreError("the state of a learner vw has no model in it")
    return model.tobytes()


@dataclass(frozen=True, slots=True)
class _Answer:
    """How labels are written for VW, and its raw predictions read.

    Attributes
    ----------
    task : Task
    kind : str
        What a raw prediction is: for a binary task "margin" (sigmoid gives the probability), "symmetric"
        (-1..1) or "probability"; for a multiclass one "class" or "probabilities"; for a regression "number".
    negative : str
        How a binary label 0 is written.
    max_classes : int
        Classes that the arguments make room for; 0 if the task is not multiclass.
    """

    task: Task
    kind: str
    negative: str = "0"
    max_classes: int = 0

    @classmethod
    def of(cls, task: Task, workspace: Workspace, options: Mapping[str, Option]) -> _Answer:
        """Find out from what VW understood.

        Raises
        ------
        ConfigError
            If VW would not take the labels of `task`, or not give such predictions.
        """
        predicts = workspace.prediction_type
        if task.kind == "multiclass":
            kind = {
                pylibvw.vw.pMULTICLASS: "class",
                pylibvw.vw.pSCALARS: "probabilities",
                pylibvw.vw.pMULTICLASSPROBS: "probabilities",
            }.get(predicts)
            counts = (options[name] for name in _CLASS_COUNTS if name in options)
            max_classes = next((int(option.value) for option in counts if option.supplied), 0)
            if workspace.label_type != pylibvw.vw.lMulticlass or kind is None or max_classes < 1:
                raise ConfigError(
                    "vw: task multiclass needs args such as "
                    "'--oaa 7 --probabilities --loss_function logistic', with 7 for the number of classes"
                )
            return cls(task, kind, max_classes=max_classes)
        scalar = predicts in (pylibvw.vw.pSCALAR, pylibvw.vw.pPROB)
        if workspace.label_type != pylibvw.vw.lSimple or not scalar or not workspace.takes_one_line:
            raise ConfigError(f"vw: with these args VW does not learn a {task.kind} task")
        if task.kind == "regression":
            return cls(task, "number")
        loss, link = options["loss_function"].value, options["link"]
        by_sign = "binary" in options and options["binary"].supplied
        negative = "-1" if by_sign or loss in ("logistic", "hinge") else "0"
        if by_sign or (link.supplied and link.value == "glf1"):
            return cls(task, "symmetric", negative)
        if link.supplied and link.value != "identity":
            return cls(task, "probability", negative)
        return cls(task, {"logistic": "margin", "hinge": "symmetric"}.get(loss, "probability"), negative)

    def empty(self, n: int, n_classes: int) -> NDArray[np.float64]:
        return np.zeros((n, n_classes) if self.task.kind == "multiclass" else n)

    def check_classes(self, n_classes: int) -> None:
        if n_classes > self.max_classes:
            raise ConfigError(
                f"vw: there are {n_classes} classes by now, but args make room for {self.max_classes} only"
            )

    def label(self, label: float) -> str:
        if self.task.kind == "binary":
            return "1" if label else self.negative
        return str(int(label) + 1) if self.task.kind == "multiclass" else repr(label)

    def read(self, raw: Any, classes: Sighted, width: int) -> Any:
        """Return a prediction as `Task` says; over `width` classes if it is multiclass."""
        if self.kind == "margin":
            return _sigmoid(raw)
        if self.kind == "probabilities":
            return classes.distribution(enumerate(raw), width)
        if self.kind == "class":
            return classes.distribution([(raw - 1, 1.0)], width)
        if not math.isfinite(raw):
            return 0.5 if self.task.kind == "binary" else 0.0
        if self.kind == "number":
            return raw
        return min(max((1.0 + raw) / 2.0 if self.kind == "symmetric" else raw, 0.0), 1.0)


def _sigmoid(margin: float) -> float:
    if margin >= 0.0:
        return 1.0 / (1.0 + math.exp(-margin))
    odds = math.exp(margin)  # NaN comes here too, and stays
    return odds / (1.0 + odds) if odds == odds else 0.5
