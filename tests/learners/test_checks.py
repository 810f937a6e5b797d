"""What every registered learner must do, for every task it takes, however it learns."""

import copy
import functools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from penstock.errors import BadRecord
from penstock.events import Batch, Task
from penstock.learners import LEARNERS, Learner, Model, build, load_model
from penstock.state import Opaque, State, digest

BINARY, MULTICLASS, REGRESSION = Task("binary"), Task("multiclass"), Task("regression")
ALL = (BINARY, MULTICLASS, REGRESSION)

N = 200
HALF = N // 2


@dataclass(frozen=True)
class Case:
    """One way to build a registered learner, and the tasks that it takes."""

    kind: str
    name: str
    tasks: tuple[Task, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    numbers_only: bool = False  # its model takes no text and no missing features

    def build(self, task: Task, seed: int = 7) -> Learner:
        return build(self.kind, task, seed=seed, **self.parameters)


def river(name: str, which: Any, *tasks: Task, numbers_only: bool = True, **params: Any) -> Case:
    parameters = {"model": which, **({"params": params} if params else {})}
    return Case("river", f"river-{name}", tasks, parameters, numbers_only)


def vw(name: str, args: str, *tasks: Task) -> Case:
    return Case("vw", f"vw-{name}", tasks, {"args": args})


SCALED = "preprocessing.StandardScaler"
TREE = {"class": "tree.HoeffdingTreeClassifier", "params": {"grace_period": 30}}
LAZY = {"class": "neighbors.LazySearch", "params": {"window_size": 60}}

CASES = (
    Case("prior", "prior", ALL),
    Case("no_change", "no_change", ALL),
    Case("sgd", "sgd", ALL),
    Case(
        "sgd", "sgd-interactions", ALL, {"interactions": [["", "where"], ["*", "*"]], "l2": 1e-5, "bits": 12}
    ),
    Case("sgd", "sgd-adagrad", ALL, {"update": "adagrad", "half_life": 100.0}),
    Case("sgd", "sgd-plain", ALL, {"update": "sgd", "learning_rate": 0.1, "l1": 1e-6}),
    Case("sgd", "sgd-consolidated", ALL, {"consolidation": 1.0, "consolidate_every": 30, "bits": 12}),
    Case("sgd", "sgd-ftrl", ALL, {"update": "ftrl", "l1": 0.01}),
    Case("sgd", "sgd-coin", ALL, {"update": "coin"}),
    Case("sgd", "sgd-softmax", (MULTICLASS,), {"multiclass": "softmax"}),
    Case("sgd", "sgd-hinge", (BINARY,), {"loss": "hinge"}),
    river("logistic", [SCALED, "linear_model.LogisticRegression"], BINARY),
    river("passive", [SCALED, "linear_model.PAClassifier"], BINARY),
    river("linear", [SCALED, "linear_model.LinearRegression"], REGRESSION),
    river(
        "tree",
        "tree.HoeffdingAdaptiveTreeClassifier",
        BINARY,
        MULTICLASS,
        numbers_only=False,
        grace_period=30,
    ),
    river("tree-regressor", "tree.HoeffdingTreeRegressor", REGRESSION, grace_period=30),
    river("forest", "forest.ARFClassifier", BINARY, MULTICLASS, n_models=2, grace_period=30),
    river("bagging", "ensemble.BaggingClassifier", BINARY, MULTICLASS, model=TREE, n_models=2),
    river("bayes", "naive_bayes.GaussianNB", BINARY, MULTICLASS),
    river("neighbours", [SCALED, {"neighbors.KNNClassifier": {"engine": LAZY}}], BINARY, MULTICLASS),
    vw("default", "", BINARY, REGRESSION),
    vw("crossed", "-q :: -l 2 --power_t 0.1", BINARY),
    vw("regularised", "--l1 1e-6 --l2 1e-5 --link logistic --noconstant", BINARY),
    vw("squared", "--loss_function squared -b 12", BINARY),
    vw("hinge", "--loss_function hinge --sgd --power_t 0.5 -l 0.1", BINARY),
    vw("signs", "--binary --loss_function logistic", BINARY),
    vw("ftrl", "--ftrl", BINARY, REGRESSION),
    vw("coin", "--coin", BINARY, REGRESSION),
    vw("network", "--nn 3 --random_weights", BINARY, REGRESSION),
    vw("quantile", "--loss_function quantile --initial_t 2 --sgd", REGRESSION),
    vw("classes", "--oaa 5", MULTICLASS),
    vw("probabilities", "--oaa 5 --probabilities --loss_function logistic", MULTICLASS),
    vw("tree", "--recall_tree 5 -b 14", MULTICLASS),
)

EXPECTED_FAILURES: Mapping[tuple[str, str], str] = {
    ("prior", "check_beats_the_prior"): "it is the prior",
    ("no_change", "check_beats_the_prior"): "labels of the stream do not depend on the one before",
}


# --- streams ----------------------------------------------------------------------------------------------


@functools.cache
def stream(kind: str, n: int = N, *, numbers_only: bool = False, seed: int = 3) -> Batch:
    """An easy stream: two thirds of the label is in plain sight. Weights vary; features come and go."""
    rng = random.Random(seed)
    rows, labels, weights = [], [], []
    for _ in range(n):
        x, y = rng.gauss(0, 1), rng.gauss(0, 1)
        town = rng.choice(["Åre", "New York", "a|b:c"])
        score = 2 * x - y + rng.gauss(0, 0.3) + (1.0 if town == "Åre" and not numbers_only else 0.0)
        row: dict[str, Any] = {"x": x, "y": y, "where": {"height": rng.random()}}
        if not numbers_only:
            row["where"]["town"] = town
            row["tags"] = rng.sample(["new", "old", "sale"], rng.randrange(3))
            row["member"] = rng.choice([True, False, None])
            if rng.random() < 0.2:
                del row["y"]
        rows.append(row)
        labels.append(
            {
                "binary": float(score > 0),
                "multiclass": float(score > -1) + float(score > 1),
                "regression": 3.0 + score,
            }[kind]
        )
        weights.append(rng.choice([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 2.0, 2.0, 0.0]))
    if kind == "multiclass":  # classes are numbered by first sighting
        order = list(dict.fromkeys(labels))
        labels = [float(order.index(label)) for label in labels]
    return Batch.from_rows(rows, labels, weights)


def events(case: Case, task: Task, n: int = N) -> Batch:
    return stream(task.kind, n, numbers_only=case.numbers_only)


def pieces(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch), size):
        yield batch.slice(start, min(start + size, len(batch)))


def widen(predictions: list[np.ndarray]) -> np.ndarray:
    """One array of all; a class has probability 0 before its first sighting."""
    if predictions[0].ndim == 1:
        return np.concatenate(predictions)
    width = max(part.shape[1] for part in predictions)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in predictions])


def copied(state: State) -> State:
    """The state as a store would give it back: nothing shared, arrays that cannot be written."""
    copies: State = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.setflags(write=False)
        elif isinstance(value, Opaque):
            value = Opaque(data=bytes(bytearray(value.data)), digest=value.digest)
        copies[name] = value
    return copies


def same(a: object, b: object) -> None:
    np.testing.assert_array_equal(a, b, strict=True)  # type: ignore[arg-type]


# --- checks -----------------------------------------------------------------------------------------------


def check_protocols(case: Case, task: Task) -> None:
    learner = case.build(task)
    assert isinstance(learner, Learner)
    assert isinstance(learner.freeze(), Model)


def check_batch_invariance(case: Case, task: Task) -> None:
    batch = events(case, task)
    whole = case.build(task)
    predictions = whole.progress(batch)
    for size in (1, 7, 256):
        split = case.build(task)
        same(widen([split.progress(part) for part in pieces(batch, size)]), predictions)
        assert digest(split.state()) == digest(whole.state())


def check_learning_without_predicting_learns_the_same(case: Case, task: Task) -> None:
    progressed, learned = case.build(task), case.build(task)
    progressed.progress(events(case, task))
    learned.learn(events(case, task))
    assert digest(learned.state()) == digest(progressed.state())


def check_progress_is_predict_then_learn(case: Case, task: Task) -> None:
    batch = events(case, task)
    predictions, learner = [], case.build(task)
    for event in batch.events():
        predictions.append(learner.predict(event))
        learner.learn(event)
    together = case.build(task).progress(batch)
    apart = widen(predictions)
    if task.kind == "multiclass":  # the last event may have brought a class nobody predicted yet
        apart = np.pad(apart, ((0, 0), (0, together.shape[1] - apart.shape[1])))
    same(together, apart)


def check_same_seed_same_state(case: Case, task: Task) -> None:
    one, other = case.build(task), case.build(task)
    one.progress(events(case, task))
    other.progress(events(case, task))
    assert digest(one.state()) == digest(other.state())


def check_state_round_trip(case: Case, task: Task) -> None:
    first, rest = events(case, task).slice(0, HALF), events(case, task).slice(HALF, N)
    uninterrupted = case.build(task)
    uninterrupted.progress(first)
    state = uninterrupted.state()
    before = digest(state)

    fresh, used = case.build(task), case.build(task)
    used.progress(rest)
    for resumed in (fresh, used):
        resumed.restore(copied(state))
        assert digest(resumed.state()) == before
    predictions = uninterrupted.progress(rest)
    for resumed in (fresh, used):
        same(resumed.progress(rest), predictions)
        assert digest(resumed.state()) == digest(uninterrupted.state())
    assert digest(state) == before  # nobody writes into a state that was handed out


def check_state_before_the_first_event(case: Case, task: Task) -> None:
    batch = events(case, task)
    started, resumed = case.build(task), case.build(task)
    resumed.progress(batch)
    resumed.restore(copied(started.state()))
    same(resumed.progress(batch), started.progress(batch))
    assert digest(resumed.state()) == digest(started.state())


def check_predict_changes_nothing(case: Case, task: Task) -> None:
    batch = events(case, task)
    looked, learner = case.build(task), case.build(task)
    for part in pieces(batch, 60):
        before = digest(looked.state())
        looked.predict(batch.slice(0, 40))
        assert digest(looked.state()) == before
        looked.progress(part)
        learner.progress(part)
    assert digest(looked.state()) == digest(learner.state())


def check_frozen_stays(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner, control = case.build(task), case.build(task)
    for other in (learner, control):
        other.progress(batch.slice(0, HALF))
    live = learner.predict(batch)
    model, late = learner.freeze(), learner.freeze()
    same(model.predict(batch), live)
    for other in (learner, control):
        other.progress(batch.slice(HALF, N))
    for frozen in (model, late):  # `late` predicts for the first time now
        same(frozen.predict(batch), live)
    assert digest(learner.state()) == digest(control.state())


def check_model_round_trip(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner = case.build(task)
    learner.progress(batch)
    model = learner.freeze()
    state = model.state()
    loaded = load_model(case.kind, copied(state))
    same(loaded.predict(batch), model.predict(batch))
    assert digest(loaded.state()) == digest(state)
    again = load_model(case.kind, copied(loaded.state()))
    same(again.predict(batch), model.predict(batch))


def check_predict_one_is_predict(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner = case.build(task)
    learner.progress(batch)
    model = learner.freeze()
    predictions = model.predict(batch)
    for row, prediction in zip(batch.rows[:50], predictions, strict=False):
        one = model.predict_one(row)
        same(np.asarray(one), np.asarray(prediction))
        assert isinstance(one, np.ndarray if task.kind == "multiclass" else float)


def check_weight_zero_changes_nothing(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner = case.build(task)
    learner.progress(batch)
    before, predictions = digest(learner.state()), learner.predict(batch)
    unweighted = batch.with_weights(np.zeros(N))
    same(learner.progress(unweighted), predictions)
    learner.learn(unweighted)
    assert digest(learner.state()) == before


def check_cold_start(case: Case, task: Task) -> None:
    batch = events(case, task, 20)
    learner = case.build(task)
    shape = (20, 0) if task.kind == "multiclass" else (20,)
    for predictions in (learner.predict(batch), learner.freeze().predict(batch)):
        assert predictions.shape == shape
        assert predictions.dtype == np.float64
        assert np.isfinite(predictions).all()
    one = learner.freeze().predict_one(batch.rows[0])
    assert np.shape(one) == shape[1:]
    loaded = load_model(case.kind, copied(learner.freeze().state()))
    same(loaded.predict(batch), learner.predict(batch))


def check_features_come_and_go(case: Case, task: Task) -> None:
    batch = events(case, task)
    renamed = [{f"new_{name}": value for name, value in row.items()} for row in batch.rows[:30]]
    empty: list[dict[str, Any]] = [{} for _ in range(30)]
    parts = [
        batch.slice(0, 60),
        Batch.from_rows(renamed, batch.labels[:30]),
        Batch.from_rows(empty, batch.labels[:30]),
        batch.slice(60, 120),
    ]
    learner = case.build(task)
    for part in parts:
        assert np.isfinite(learner.progress(part)).all()
        assert np.isfinite(learner.freeze().predict(batch)).all()


def check_empty_batch(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner = case.build(task)
    learner.progress(batch)
    before = digest(learner.state())
    none = batch.slice(0, 0)
    learner.learn(none)
    width = learner.predict(batch).shape[1:]
    for predictions in (learner.progress(none), learner.predict(none), learner.freeze().predict(none)):
        assert predictions.shape == (0, *width)
    assert digest(learner.state()) == before


def check_a_class_arrives_late(case: Case, task: Task) -> None:
    if task.kind != "multiclass":
        return
    batch = events(case, task)
    labels = batch.labels.copy()
    labels[HALF::3] = 3.0
    weights = np.maximum(batch.weights, 0.5)
    batch = batch.with_labels(labels).with_weights(weights)
    learner = case.build(task)
    first = learner.progress(batch.slice(0, HALF))
    frozen = learner.freeze()
    second = learner.progress(batch.slice(HALF, N))
    assert first.shape == (HALF, 3)
    assert second.shape == (N - HALF, 4)
    assert second[0, 3] == 0.0  # nobody knew
    assert second[:, 3].max() > 0.0
    assert learner.predict(batch).shape == (N, 4)
    assert frozen.predict(batch).shape == (N, 3)
    same(case.build(task).progress(batch), widen([first, second]))


def check_no_alias_of_the_callers_data(case: Case, task: Task) -> None:
    batch = events(case, task)
    lent = Batch.from_rows(copy.deepcopy(list(batch.rows)), batch.labels.copy(), batch.weights.copy())
    learner, control = case.build(task), case.build(task)
    predictions = learner.progress(lent)
    control.progress(batch)
    given_out = predictions.copy()
    for row in lent.rows:
        row["where"].clear()  # type: ignore[attr-defined]
        row.clear()  # type: ignore[attr-defined]
    lent.labels[:] = 0.0
    lent.weights[:] = 9.0
    assert digest(learner.state()) == digest(control.state())
    learner.progress(batch)
    same(predictions, given_out)  # nor does the learner keep what it handed out


def check_predictions_are_what_the_task_says(case: Case, task: Task) -> None:
    batch = events(case, task)
    learner = case.build(task)
    scored = learner.progress(batch)
    for predictions in (scored, learner.predict(batch), learner.freeze().predict(batch)):
        assert predictions.dtype == np.float64
        assert np.isfinite(predictions).all()
        if task.kind != "regression":
            assert predictions.min() >= 0.0
            assert predictions.max() <= 1.0
    if task.kind == "multiclass":
        first = int(np.flatnonzero(batch.weights > 0)[0])
        assert not scored[: first + 1].any()  # nothing known yet
        np.testing.assert_allclose(scored[first + 1 :].sum(axis=1), 1.0, rtol=0, atol=1e-9)
        sighted = np.full(scored.shape[1], N)
        for i in reversed(np.flatnonzero(batch.weights > 0)):
            sighted[int(batch.labels[i])] = i
        for k, when in enumerate(sighted):
            assert not scored[: when + 1, k].any()


def check_beats_the_prior(case: Case, task: Task) -> None:
    def mean_loss(learner: Learner) -> float:
        batch = stream(task.kind, 3 * N, numbers_only=case.numbers_only)
        predictions = learner.progress(batch)[N:]
        labels = batch.labels[N:]
        if task.kind == "multiclass":
            hits = predictions[np.arange(len(labels)), labels.astype(int)]
            return float(np.square(1.0 - hits).mean())
        return float(np.square(predictions - labels).mean())

    assert mean_loss(case.build(task)) < 0.8 * mean_loss(build("prior", task))


def check_bad_labels_are_refused(case: Case, task: Task) -> None:
    batch = events(case, task, 20)
    learner = case.build(task)
    learner.progress(batch)
    before = digest(learner.state())
    bad_labels = [math.nan, math.inf] if task.kind == "regression" else [math.nan, -1.0, 0.5]
    for bad in bad_labels:
        labels = batch.labels.copy()
        labels[5] = bad
        with pytest.raises(BadRecord, match=r"event 5 of the batch"):
            learner.progress(batch.with_labels(labels))
    for bad in (math.nan, math.inf, -1.0):
        weights = batch.weights.copy()
        weights[5] = bad
        with pytest.raises(
            BadRecord, match=r"expected a finite weight >= 0.*\$\.weight.*event 5 of the batch"
        ):
            learner.learn(batch.with_weights(weights))
    assert digest(learner.state()) == before


CHECKS = {name: check for name, check in sorted(globals().items()) if name.startswith("check_")}


def _every_check() -> Iterator[Any]:
    for case in CASES:
        for task in case.tasks:
            for name, check in CHECKS.items():
                reason = EXPECTED_FAILURES.get((case.name, name))
                marks = pytest.mark.xfail(reason=reason, strict=True) if reason else ()
                yield pytest.param(check, case, task, id=f"{case.name}-{task.kind}-{name}", marks=marks)


@pytest.mark.parametrize(("check", "case", "task"), list(_every_check()))
def test_check(check, case, task):
    check(case, task)


def test_every_registered_learner_is_checked():
    assert {case.kind for case in CASES} == set(LEARNERS)


def test_every_expected_failure_names_a_check():
    names = {case.name for case in CASES}
    assert all(name in names and check in CHECKS for name, check in EXPECTED_FAILURES)
