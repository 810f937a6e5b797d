"""How fast events are learned that are dicts in memory: predict, score, learn, one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
from river import compose, linear_model, metrics, preprocessing
from vowpalwabbit import pyvw

from benchmarks.harness import Answer, Case, Extras, Ratio, Size, compare, is_installed, main, missing
from benchmarks.workload import NUMBERS, Events, bare_engine, events
from penstock import Batch
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.sources.memory import MemorySource

__all__ = ["ask"]

_READ: Final = 4096  # events at a time, as `penstock evaluate` reads them

_METHOD: Final = """\
Dicts with 10 numbers and 10 strings, and a binary label. Penstock's rows start from the dicts: walk,
hashing and the building of batches are timed. *Engine* keeps every metric in its three views (cumulative,
window, fading) and runs both baselines beside the learner; with `MemorySource` in front, which checks every
record, it is all that `penstock evaluate` does. Batches are of 4,096 events, as there, unless the row says
otherwise. `sgd` learns as VW does by default, into 18 bits as VW.

River's loop is `predict_proba_one`, `metrics.LogLoss().update`, `learn_one`. Its linear model takes no
strings: their one-hot encoding was made *before* the clock started. *Pipeline* is `StandardScaler() |
LogisticRegression()` on all twenty as they are, and the target is held against it; it scales the indicators
to 0, hence its loss. *Split by hand* is the fastest loop that we could write with River's own parts (only the
numbers are scaled, once an event; the indicators are merged in). *Encoding too* starts from the dicts, as one
would write it.

pyvw is fed ready-made strings: `learn(str)`, with the progressive loss that VW keeps itself; or, if the
predictions are wanted too, `example`, `learn`, `get_simplelabel_prediction`, `finish_example`. The log
losses show that Penstock and VW learn the same model (they hash a category's name differently, hence the
fourth digit); River's update rule is another one.

scikit-learn's `SGDClassifier` gets batches of 256: `predict_proba`, then `partial_fit`, with a constant step
of 0.05 and numbers scaled beforehand over the whole set, without which its losses are far from the others'.
*Hashed beforehand* is fed sparse matrices of 18 bits that were made before the clock started;
*FeatureHasher too* makes them from the dicts while it runs. The last four rows are of a tenth of the events,
and their losses of that tenth."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = events(size.events)
    measured = compare(
        [
            Case("floor: one pass over each dict", lambda: partial(_walk, stream)),
            Case("Penstock, batches alone (hashing)", lambda: partial(_build, stream)),
            Case("Penstock SGD.progress", partial(_sgd, stream)),
            Case("Penstock Engine", partial(_engine, stream)),
            Case("Penstock MemorySource, Engine", partial(_evaluate, stream)),
            Case("Penstock Engine, batches of 256", partial(_engine, stream, read=256)),
            Case("Penstock SGD.progress_one, event by event", partial(_sgd_one, stream)),
            Case("River, split by hand", partial(_river_by_hand, stream)),
            Case("River, pipeline", partial(_river_pipeline, stream)),
            Case("pyvw learn(str)", partial(_vw, stream)),
            Case("pyvw, predictions too", partial(_vw_predictions, stream)),
        ],
        items=len(stream),
        rounds=size.rounds,
    )
    engine, by_hand, vw = (
        measured[name] for name in ("Penstock Engine", "River, split by hand", "pyvw learn(str)")
    )
    few = events(max(size.events // 10, 1))  # slow, and only for orientation
    slow = compare(
        [
            *_of_sklearn(few),
            Case("River, encoding too", partial(_river_encoding, few)),
            Case("Penstock Engine, one event a batch", partial(_engine, few, read=1)),
        ],
        items=len(few),
        rounds=max(size.rounds // 5, 1),
    )
    return Answer(
        title="Learning from dicts in memory",
        method=_METHOD + missing("scikit-learn"),
        item="event",
        measured=[*measured.values(), *slow.values()],
        ratios=[
            Ratio(engine, measured["River, pipeline"], target=25.0),
            Ratio(
                engine,
                vw,
                target=10.0,
                parts=[
                    measured[name] for name in ("Penstock, batches alone (hashing)", "Penstock SGD.progress")
                ],
            ),
            Ratio(engine, by_hand),
            Ratio(measured["Penstock MemorySource, Engine"], by_hand),
            Ratio(measured["Penstock MemorySource, Engine"], vw),
            Ratio(measured["Penstock SGD.progress"], by_hand),
            Ratio(measured["Penstock SGD.progress"], vw),
            Ratio(measured["Penstock SGD.progress_one, event by event"], by_hand),
        ],
    )


def _of_sklearn(stream: Events) -> list[Case]:
    if not is_installed("scikit-learn"):
        return []
    return [
        Case("scikit-learn, hashed beforehand", partial(_sklearn, stream, hashed=True)),
        Case("scikit-learn, FeatureHasher too", partial(_sklearn, stream, hashed=False)),
    ]


def _walk(stream: Events) -> None:
    for row in stream.rows:
        tuple(row.items())


def _batches(stream: Events, read: int = _READ) -> Iterator[Batch]:
    for start in range(0, len(stream), read):
        yield Batch.from_rows(stream.rows[start : start + read], stream.labels[start : start + read])


def _build(stream: Events) -> None:
    for _ in _batches(stream):
        pass


def _sgd(stream: Events) -> Callable[[], Extras]:
    learner = SGD(Task("binary"))

    def run() -> Extras:
        return stream.log_loss(np.concatenate([learner.progress(batch) for batch in _batches(stream)]))

    return run


def _sgd_one(stream: Events) -> Callable[[], Extras]:
    progress = SGD(Task("binary")).progress_one

    def run() -> Extras:
        return stream.log_loss(
            np.array([progress(row, label) for row, label in zip(stream.rows, stream.labels, strict=True)])
        )

    return run


def _engine(stream: Events, read: int = _READ) -> Callable[[], Extras]:
    engine = bare_engine()

    def run() -> Extras:
        for batch in _batches(stream, read):
            engine.progress(batch)
        return {"log loss": engine.metrics()["sgd"]["logloss"]}

    return run


def _evaluate(stream: Events) -> Callable[[], Extras]:
    engine = bare_engine()
    source = MemorySource(Task("binary"), stream.rows, stream.labels)

    def run() -> Extras:
        for chunk in source.chunks(None, _READ):
            engine.progress(chunk.batch)
        return {"log loss": engine.metrics()["sgd"]["logloss"]}

    return run


def _river_by_hand(stream: Events) -> Callable[[], Extras]:
    scaler, model = preprocessing.StandardScaler(), linear_model.LogisticRegression()
    loss = metrics.LogLoss()
    labels = [label == 1.0 for label in stream.labels]

    def run() -> Extras:
        for numbers, indicators, label in zip(stream.numbers, stream.indicators, labels, strict=True):
            scaler.learn_one(numbers)
            x = scaler.transform_one(numbers)
            x.update(indicators)
            loss.update(label, model.predict_proba_one(x))
            model.learn_one(x, label)
        return {"log loss": loss.get()}

    return run


def _river_pipeline(stream: Events) -> Callable[[], Extras]:
    rows = [{**numbers, **ones} for numbers, ones in zip(stream.numbers, stream.indicators, strict=True)]
    return _river(rows, stream, preprocessing.StandardScaler() | linear_model.LogisticRegression())


def _river_encoding(stream: Events) -> Callable[[], Extras]:
    scaled = compose.SelectType(int, float) | preprocessing.StandardScaler()
    encoded = compose.SelectType(str) | preprocessing.OneHotEncoder(drop_zeros=True)
    return _river(stream.rows, stream, (scaled + encoded) | linear_model.LogisticRegression())


def _river(rows: list[dict[str, float]], stream: Events, model: compose.Pipeline) -> Callable[[], Extras]:
    loss = metrics.LogLoss()
    labels = [label == 1.0 for label in stream.labels]

    def run() -> Extras:
        for x, label in zip(rows, labels, strict=True):
            loss.update(label, model.predict_proba_one(x))
            model.learn_one(x, label)
        return {"log loss": loss.get()}

    return run


def _sklearn(stream: Events, *, hashed: bool) -> Callable[[], Extras]:
    classifier = importlib.import_module("sklearn.linear_model").SGDClassifier(
        loss="log_loss", random_state=1
    )
    hasher = importlib.import_module("sklearn.feature_extraction").FeatureHasher(n_features=1 << 18)
    columns = {name: np.array([row[name] for row in stream.numbers]) for name in NUMBERS}
    scaled = {name: ((x - x.mean()) / x.std()).tolist() for name, x in columns.items()}
    rows = [{**row, **{name: scaled[name][i] for name in NUMBERS}} for i, row in enumerate(stream.rows)]
    labels = np.array(stream.labels)
    parts = [slice(start, start + 256) for start in range(0, len(stream), 256)]
    matrices = [hasher.transform(rows[part]) for part in parts] if hashed else None
    # One event of each class and no features: it cannot predict before it has seen both.
    classifier.partial_fit(hasher.transform([{}, {}]), [0.0, 1.0], classes=[0.0, 1.0])

    def run() -> Extras:
        predictions = []
        for i, part in enumerate(parts):
            matrix = hasher.transform(rows[part]) if matrices is None else matrices[i]
            predictions.append(classifier.predict_proba(matrix)[:, 1])
            classifier.partial_fit(matrix, labels[part])
        return stream.log_loss(np.concatenate(predictions))

    return run


def _vw(stream: Events) -> Callable[[], Extras]:
    workspace = pyvw.Workspace("--quiet --loss_function logistic")
    learn = workspace.learn

    def run() -> Extras:
        for line in stream.lines:
            learn(line)
        return {"log loss": workspace.get_sum_loss() / workspace.get_weighted_examples()}

    return run


def _vw_predictions(stream: Events) -> Callable[[], Extras]:
    workspace = pyvw.Workspace("--quiet --loss_function logistic --link logistic")

    def run() -> Extras:
        predictions = []
        for line in stream.lines:
            example = workspace.example(line)
            workspace.learn(example)
            predictions.append(example.get_simplelabel_prediction())
            workspace.finish_example(example)
        return stream.log_loss(predictions)

    return run


if __name__ == "__main__":
    main(ask)
