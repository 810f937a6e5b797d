"""Any River classifier or regressor, or a pipeline that ends in one, as a learner."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import river
from numpy.typing import NDArray
from river import base, compose
from river.neighbors import SWINN

from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch, Row, Task, TaskKind
from penstock.learners.labels import Sighted, classes_in, learnable
from penstock.learners.river_state import check_trusted, opaque, unpickled
from penstock.state import Opaque, State

__all__ = ["River", "RiverModel"]

Step = str | Mapping[str, Any]

_SLACK: Final = 1e-9  # how far probabilities may add up beside 1 by rounding
_FLAT: Final = frozenset({float, int, str, bool})


class River:
    """Learns with any classifier or regressor of River, event by event.

    Parameters
    ----------
    task : Task
    seed : int
        Handed to every class named in `model` or `params` that takes a ``seed`` and is not given one.
    model : str, or sequence of str and single-key mappings
        A name below ``river``, such as ``forest.ARFClassifier``; or a pipeline, as the list of its steps,
        each a name or ``{name: parameters}``.
    params : mapping, optional
        Parameters of the class, if `model` is one name. A value that is itself to be an object of River is
        written ``{class: name, params: {...}}``, where ``class`` may be a pipeline too, at any depth.

    Raises
    ------
    ConfigError
        If a name is not River's, a parameter is not accepted, or the model does not fit the task.

    Notes
    -----
    *Features.* River's dicts are flat. Nested ones are flattened with dots and list items by their position:
    ``{"user": {"tags": ["a", "b"]}}`` becomes ``{"user.tags.0": "a", "user.tags.1": "b"}``. What is None is
    left out. River gets a dict of its own, so that whatever it keeps is not the caller's.

    *Labels.* Binary labels are True and False, classes are their numbers, other labels floats.

    *Predictions.* Probabilities as River gives them, divided by their sum if that is not 1; a class that
    River does not mention has probability 0. If it mentions none (or nothing finite): 0.5 for a binary task
    and the same for every class seen otherwise. A classifier without probabilities gives 1 to the class it
    predicts. A regressor that predicts nothing, or nothing finite, predicts 0.

    *Weights.* An event with weight 0 is not learned. Other weights are handed to ``learn_one`` if it takes
    one (``w``), and make no difference otherwise; a pipeline hands it to its last step.

    *State.* A pickle of the model, which is only read again if it is trusted.

    Examples
    --------
    >>> pipeline = ["preprocessing.StandardScaler", {"linear_model.LogisticRegression": {"l2": 0.01}}]
    >>> learner = River(Task("binary"), model=pipeline)
    >>> learner.progress(Batch.from_rows([{"age": 31}, {"age": 62}] * 2, [0.0, 1.0] * 2)).round(3)
    array([0.5  , 0.499, 0.499, 0.502])
    >>> River(Task("binary"), model="forest.ARFClasifier")
    Traceback (most recent call last):
    ...
    penstock.errors.ConfigError: river has no 'forest.ARFClasifier': did you mean 'forest.ARFClassifier'?
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int = 0,
        model: str | Sequence[Step],
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._task = task
        self._name = _name(model)
        self._model: Any = _build(model, params or {}, seed)
        self._learn, self._weighted = _checked(self._model, task, self._name)
        self._predict = _PREDICT[task.kind]
        self._label = _LABEL[task.kind]
        self._n_events = 0  # learned
        self._classes = Sighted()
        self._frozen: RiverModel | None = None  # of what is known now, if somebody asked for it

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event with what is known now. Changes nothing.

        Raises
        ------
        PenstockError
            If River's model fails on an event; the message names it.
        """
        # A copy predicts: some models of River make room for a feature when they are asked about it.
        return self.freeze().predict(batch)

    def learn(self, batch: Batch) -> None:
        """Learn every event, in order.

        Raises
        ------
        BadRecord
            If a label or a weight cannot be learned from; nothing of the batch has been learned then.
        PenstockError
            If River's model fails on an event; the message names it.
        """
        labels, weights = learnable(self._task, batch)
        for row, label, weight in zip(batch.rows, labels.tolist(), weights.tolist(), strict=True):
            if weight > 0:
                self._learn_one(_flat(row), label, weight)

    def progress(self, batch: Batch) -> NDArray[np.float64]:
        """For each event in order: predict it, then learn it. Returns the predictions.

        Raises
        ------
        BadRecord, PenstockError
            As `learn`.
        """
        labels, weights = learnable(self._task, batch)
        width = len(self._classes)
        if self._task.kind == "multiclass":
            width = max(width, classes_in(labels, weights)[1])
        predictions = _empty(self._task, len(labels), width)
        for i, (row, label, weight) in enumerate(
            zip(batch.rows, labels.tolist(), weights.tolist(), strict=True)
        ):
            features = _flat(row)
            model = self._model if weight > 0 else self.freeze().model
            try:
                predictions[i] = self._predict(model, features, self._classes, width)
            except Exception as error:
                event = f"predict event {self._n_events + 1}"
                raise _failure(self._name, event, features, error) from error
            if weight > 0:
                self._learn_one(features, label, weight)
        return predictions

    def _learn_one(self, features: dict[str, Any], label: float, weight: float) -> None:
        self._frozen = None
        try:
            if self._weighted:
                self._learn(features, self._label(label), w=weight)
            else:
                self._learn(features, self._label(label))
        except Exception as error:
            raise _failure(self._name, f"learn event {self._n_events + 1}", features, error) from error
        self._n_events += 1
        if self._task.kind == "multiclass":
            self._classes.add(int(label))

    def freeze(self) -> RiverModel:
        """Return a model of what is known now, that later learning does not touch."""
        if self._frozen is None:
            self._frozen = RiverModel(self._task, opaque(self._model), self._classes.state())
        return self._frozen

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; the model is an opaque entry."""
        return {
            "model": self.freeze().pickled,
            "events": self._n_events,
            "classes": self._classes.state(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        UntrustedState
            If nothing vouches for the pickle in it.
        """
        model = unpickled(state["model"])
        self._learn, self._weighted = _checked(model, self._task, self._name)
        self._model = model
        self._frozen = None
        self._n_events = int(state["events"])  # type: ignore[arg-type]
        self._classes = Sighted(state["classes"])  # type: ignore[arg-type]

    @staticmethod
    def load(state: dict[str, Any]) -> RiverModel:
        """Rebuild a frozen model from its state.

        Raises
        ------
        UntrustedState
            If nothing vouches for the pickle in it.
        """
        return RiverModel(Task(state["task"]), check_trusted(state["model"]), state["classes"])


class RiverModel:
    """A frozen River model: a pickle, read when it is first asked for a prediction.

    Parameters
    ----------
    task : Task
    pickled : Opaque
        The model, trusted.
    classes : iterable of int
        Those it has learned, if the task is multiclass.

    Attributes
    ----------
    pickled : Opaque
    """

    def __init__(self, task: Task, pickled: Opaque, classes: Iterable[int]) -> None:
        self.pickled: Final = pickled
        self._task = task
        self._classes = Sighted(classes)
        self._model: Any = None
        self._reading = threading.Lock()

    @property
    def model(self) -> Any:
        """The River model itself, not to be changed."""
        if self._model is None:
            with self._reading:
                if self._model is None:
                    self._model = unpickled(self.pickled)
        return self._model

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event of `batch`; labels are not looked at.

        Raises
        ------
        PenstockError
            If River's model fails on an event; the message names it.
        """
        return self._predict_rows(batch.rows)

    def predict_one(self, row: Row) -> NDArray[np.float64] | float:
        """Predict one dict: a float, or an array of shape (K,) for multiclass.

        Raises
        ------
        PenstockError
            If River's model fails on it.
        """
        prediction: NDArray[np.float64] = self._predict_rows([row])[0]
        return prediction if self._task.kind == "multiclass" else float(prediction)

    def _predict_rows(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        model, predict, width = self.model, _PREDICT[self._task.kind], len(self._classes)
        predictions = _empty(self._task, len(rows), width)
        for i, row in enumerate(rows):
            features = _flat(row)
            try:
                predictions[i] = predict(model, features, self._classes, width)
            except Exception as error:
                event = f"predict event {i} of the batch" if len(rows) > 1 else "predict"
                raise _failure(type(model).__name__, event, features, error) from error
        return predictions

    def state(self) -> State:
        """Everything that ``River.load`` needs, for a snapshot."""
        return {"model": self.pickled, "task": self._task.kind, "classes": self._classes.state()}


# --- predictions ------------------------------------------------------------------------------------------


def _empty(task: Task, n: int, n_classes: int) -> NDArray[np.float64]:
    return np.zeros((n, n_classes) if task.kind == "multiclass" else n)


def _distribution(model: Any, features: dict[str, Any]) -> Mapping[Any, float]:
    """Return River's class probabilities; those of the class it predicts if it has none."""
    try:
        distribution: Mapping[Any, float] = model.predict_proba_one(features)
    except NotImplementedError:
        return {model.predict_one(features): 1.0}
    return distribution


def _predict_binary(model: Any, features: dict[str, Any], classes: Sighted, width: int) -> float:
    distribution = _distribution(model, features)
    false, true = float(distribution.get(False, 0.0)), float(distribution.get(True, 0.0))
    total = false + true
    if not 0.0 < total < math.inf:  # also NaN
        return 0.5
    return min(max(true if abs(total - 1.0) <= _SLACK else true / total, 0.0), 1.0)


def _predict_class(
    model: Any, features: dict[str, Any], classes: Sighted, width: int
) -> NDArray[np.float64] | float:
    return classes.distribution(_distribution(model, features).items(), width) if len(classes) else 0.0


def _predict_number(model: Any, features: dict[str, Any], classes: Sighted, width: int) -> float:
    prediction = model.predict_one(features)
    return float(prediction) if prediction is not None and math.isfinite(prediction) else 0.0


_PREDICT: Final[Mapping[TaskKind, Callable[[Any, dict[str, Any], Sighted, int], Any]]] = {
    "binary": _predict_binary,
    "multiclass": _predict_class,
    "regression": _predict_number,
}
_LABEL: Final[Mapping[TaskKind, Callable[[float], bool | int | float]]] = {
    "binary": bool,
    "multiclass": int,
    "regression": float,
}


def _flat(row: Row) -> dict[str, Any]:
    """Copy a row, without nesting and without what is None.

    Examples
    --------
    >>> _flat({"age": 31, "user": {"country": "SE", "tags": ["a", None]}, "seen": None})
    {'age': 31, 'user.country': 'SE', 'user.tags.0': 'a'}
    """
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if type(value) in _FLAT:
            flat[name] = value
        elif value is not None:
            flat.update(_leaves(name, value))
    return flat


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}.{i}", item)
    elif value is not None:
        yield name, value


def _failure(name: str, what: str, features: Mapping[str, Any], error: Exception) -> PenstockError:
    text = next((key for key, value in features.items() if isinstance(value, str)), None)
    hint = "" if text is None else f" ({text!r} is text: does the model need a preprocessing.OneHotEncoder?)"
    return PenstockError(f"learner river: {name} cannot {what}: {type(error).__name__}: {error}{hint}")


# --- construction -----------------------------------------------------------------------------------------


def _build(model: str | Sequence[Step], params: Mapping[str, Any], seed: int) -> base.Base:
    """Build a class or a pipeline of River from its description in a configuration."""
    if isinstance(model, str):
        return _construct(model, params, seed)
    if params:
        raise ConfigError(
            "river: `params` go with a single `model`; "
            f"in a pipeline write {{name: {{{next(iter(params))}: ...}}}}"
        )
    if not isinstance(model, Sequence) or not model:
        raise ConfigError(f"river: expected a name or a list of steps as `model`, got {model!r}")
    return compose.Pipeline(*(_step(step, seed) for step in model))


def _step(step: object, seed: int) -> base.Base:
    if isinstance(step, str):
        return _construct(step, {}, seed)
    if isinstance(step, Mapping) and len(step) == 1:
        ((name, params),) = step.items()
        if isinstance(name, str) and (params is None or isinstance(params, Mapping)):
            return _construct(name, params or {}, seed)
    raise ConfigError(f"river: expected a name or {{name: parameters}} as a step of `model`, got {step!r}")


def _construct(name: str, params: Mapping[str, Any], seed: int) -> base.Base:
    cls = _resolve(name)
    accepted = inspect.signature(cls).parameters
    for given in params:
        if given not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            close = difflib.get_close_matches(str(given), accepted, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            raise ConfigError(f"river {name} has no parameter {given!r}{hint}: {takes}")
    arguments = {key: _value(value, seed) for key, value in params.items()}
    if "seed" in accepted and arguments.get("seed") is None:
        arguments["seed"] = seed
    try:
        built: base.Base = cls(**arguments)
    except Exception as error:
        raise ConfigError(f"river {name}: {type(error).__name__}: {error}") from error
    return built


def _value(value: Any, seed: int) -> Any:
    """Return a parameter as River wants it: ``{class: ..., params: ...}`` becomes an object."""
    if isinstance(value, Mapping):
        if "class" in value and value.keys() <= {"class", "params"}:
            return _build(value["class"], value.get("params") or {}, seed)
        return {key: _value(item, seed) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(item, seed) for item in value]
    return value


def _resolve(name: str) -> Any:
    """Return the class of River that `name` stands for; nothing outside of River is ever imported."""
    module_name, _, class_name = name.rpartition(".")
    if module_name in _module_names():
        cls = getattr(importlib.import_module(f"river.{module_name}"), class_name, None)
        if (
            inspect.isclass(cls)
            and issubclass(cls, base.Base)
            and cls.__module__.partition(".")[0] == "river"
            and not class_name.startswith("_")
        ):
            return cls
    raise ConfigError(f"river has no {name!r}: {_suggestion(name)}")


@functools.cache
def _module_names() -> frozenset[str]:
    return frozenset(
        info.name.removeprefix("river.")
        for info in pkgutil.walk_packages(river.__path__, "river.")
        if not any(part.startswith(("_", "test")) for part in info.name.split("."))
    )


def _suggestion(name: str) -> str:
    api = importlib.import_module("river.api")
    known = {
        f"{module}.{cls}"
        for module, found in vars(api).items()
        if inspect.ismodule(found) and module in _module_names()
        for cls in getattr(found, "__all__", ())
        if inspect.isclass(getattr(found, cls, None))
    }
    same_class = sorted(full for full in known if full.rpartition(".")[2] == name.rpartition(".")[2])
    close = same_class or difflib.get_close_matches(name, sorted(known), n=1)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return "names look like 'forest.ARFClassifier' (https://riverml.xyz lists them)"


def _checked(model: base.Base, task: Task, name: str) -> tuple[Callable[..., None], bool]:
    """Return how `model` learns, and whether with a weight, if it fits the task.

    Raises
    ------
    ConfigError
        If it is of the wrong kind, or cannot be reproduced.
    """
    last: Any = model
    while isinstance(last, compose.Pipeline):
        last = list(last.steps.values())[-1]
    wanted, kind = (
        (base.Regressor, "regressor") if task.kind == "regression" else (base.Classifier, "classifier")
    )
    if not isinstance(last, wanted):
        raise ConfigError(f"river {name}: task {task.kind} needs a {kind}, and {type(last).__name__} is none")
    if isinstance(last, base.Classifier) and task.kind == "multiclass" and not last._multiclass:
        raise ConfigError(
            f"river {name}: {type(last).__name__} knows two classes only; for more write "
            f"{{multiclass.OneVsRestClassifier: {{classifier: {{class: ...}}}}}}"
        )
    if any(isinstance(part, SWINN) for part in _parts(model)):
        raise ConfigError(
            f"river {name}: neighbors.SWINN draws random numbers when it predicts, so results could not be "
            f"repeated; give the model {{engine: {{class: neighbors.LazySearch}}}}"
        )
    return model.learn_one, "w" in inspect.signature(type(last).learn_one).parameters  # type: ignore[attr-defined]


def _parts(model: object) -> Iterator[object]:
    """`model`, and every object of River in its attributes."""
    seen: set[int] = set()
    rest: list[object] = [model]
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, base.Base):
            yield part
            rest.extend(vars(part).values() if hasattr(part, "__dict__") else ())
        elif isinstance(part, Mapping):
            rest.extend(part.values())
        elif isinstance(part, (list, tuple)):
            rest.extend(part)


def _name(model: object) -> str:
    if isinstance(model, str):
        return model
    if not isinstance(model, Sequence):
        return type(model).__name__
    return " | ".join(str(next(iter(step), "")) if isinstance(step, Mapping) else str(step) for step in model)
