"""The linear learner against Vowpal Wabbit on the same events: prediction by prediction, and in the sum."""

import csv
import gzip
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from river import datasets
from vowpalwabbit.pyvw import Workspace

from penstock.events import Batch, Task
from penstock.learners.sgd import SGD

DATA = Path(__file__).parents[3] / "shared/data"
LOGISTIC = "--loss_function logistic"


def sigmoid(margin):
    return 1 / (1 + np.exp(-margin))


def events(kind, *, namespaces=False, mild=False, n=500, d=8, seed=3):
    """Sparse rows on scales from 0.001 to 1000 (or on one scale), labels and importance weights."""
    rng = np.random.default_rng(seed)
    scale = np.ones(d) if mild else 10.0 ** rng.uniform(-3, 3, d)
    truth = rng.normal(size=d)
    z = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.7)
    signal = z @ truth
    labels = {
        "regression": signal + 0.3 * rng.normal(size=n),
        "binary": (rng.random(n) < sigmoid(signal)).astype(float),
        "counts": rng.poisson(np.exp(np.clip(0.4 * signal, -3, 3))).astype(float),
    }[kind]
    rows = []
    for values in (z * scale).astype(np.float32).tolist():
        row = {}
        for j, value in enumerate(values):
            if value:
                (row.setdefault("abc"[j % 3], {}) if namespaces else row)[f"f{j}"] = value
        rows.append(row)
    return rows, labels.astype(np.float32).astype(float), (10 ** rng.uniform(-1, 1, n)).astype(np.float32)


def line(row):
    """The row as VW's text."""
    spaces = {"": {k: v for k, v in row.items() if not isinstance(v, dict)}}
    spaces |= {k: v for k, v in row.items() if isinstance(v, dict)}
    return " ".join(
        f"|{space} " + " ".join(f"{name}:{value!r}" for name, value in features.items())
        for space, features in spaces.items()
    )


def prequential(args, rows, labels, weights):
    """VW's prediction of each event before it has seen its label."""
    vw = Workspace(f"--quiet {args}")
    predictions = []
    for row, label, weight in zip(rows, labels, weights, strict=True):
        predictions.append(vw.predict(line(row)))
        vw.learn(f"{label:.9g} {weight:.9g} {line(row)}")
    vw.finish()
    return np.array(predictions)


REGRESSION = {
    "": {},
    "--power_t 0.1 -l 2": {"power_t": 0.1, "learning_rate": 2.0},
    "--initial_t 3": {"initial_t": 3.0},
    "--noconstant": {"constant": False},
    "--loss_function quantile": {"loss": "quantile"},
    "--loss_function quantile --quantile_tau 0.9": {"loss": "quantile", "quantile_tau": 0.9},
    "--l1 1e-4 --l2 1e-3": {"l1": 1e-4, "l2": 1e-3},
    "--adaptive --normalized -l 0.5": {"invariant": False},
    "--adaptive --invariant -l 0.5": {"update": "adagrad"},
    "--adaptive --invariant -l 0.5 --power_t 0.3": {"update": "adagrad", "power_t": 0.3},
    "--ftrl --ftrl_alpha 0.1 --ftrl_beta 2 --l1 0.1 --l2 0.2": {
        "update": "ftrl",
        "ftrl_alpha": 0.1,
        "ftrl_beta": 2.0,
        "l1": 0.1,
        "l2": 0.2,
    },
    "--coin": {"update": "coin"},
}
ON_ONE_SCALE = {  # rules that are not normalised overflow or stand still on many
    "--adaptive -l 0.5": {"update": "adagrad", "invariant": False},
    "--sgd -l 0.01": {"update": "sgd", "learning_rate": 0.01, "invariant": False},
    "--sgd --invariant -l 0.5": {"update": "sgd"},
    "--sgd --invariant -l 0.5 --power_t 0.2 --initial_t 4": {
        "update": "sgd",
        "power_t": 0.2,
        "initial_t": 4.0,
    },
}
CROSSED = {
    "-q ::": [["*", "*"]],
    "-q ab": [["a", "b"]],
    "-q ab -q ba -q a:": [["a", "b"], ["b", "a"], ["a", "*"]],
    "-q aa": [["a", "a"]],
    "--cubic abc": [["a", "b", "c"]],
    "--cubic aba": [["a", "b", "a"]],
    "--cubic :::": [["*", "*", "*"]],
    "--cubic a::": [["a", "*", "*"]],
}
BINARY = {
    "": {},
    "-l 2 --power_t 0.1": {"power_t": 0.1, "learning_rate": 2.0},
    "--l1 1e-4 --l2 1e-3": {"l1": 1e-4, "l2": 1e-3},
    "--ftrl": {"update": "ftrl"},
    "--coin": {"update": "coin"},
}


def assert_close(ours, theirs, tolerance):
    """Relative, or absolute below 1: near zero a relative error is only the labels' float32 rounding."""
    assert theirs.std() > 0.01
    assert (np.abs(ours - theirs) <= tolerance * np.maximum(np.abs(theirs), 1)).all()


@pytest.mark.parametrize("args", REGRESSION)
def test_regression(args):
    rows, labels, weights = events("regression")
    ours = SGD(Task("regression"), **REGRESSION[args]).progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, prequential(args, rows, labels, weights), 1e-5)


@pytest.mark.parametrize("args", ON_ONE_SCALE)
def test_regression_on_one_scale(args):
    rows, labels, weights = events("regression", mild=True)
    ours = SGD(Task("regression"), **ON_ONE_SCALE[args]).progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, prequential(args, rows, labels, weights), 1e-5)


@pytest.mark.parametrize("args", CROSSED)
def test_interactions(args):
    rows, labels, weights = events("regression", namespaces=True)
    ours = SGD(Task("regression"), interactions=CROSSED[args]).progress(
        Batch.from_rows(rows, labels, weights)
    )
    assert_close(ours, prequential(args, rows, labels, weights), 1e-5)


def test_interactions_of_the_default_namespace():
    rows, labels, weights = events("regression")
    expected = prequential("-q ::", rows, labels, weights)
    for spec in (["", ""], ["*", "*"]):
        ours = SGD(Task("regression"), interactions=[spec]).progress(Batch.from_rows(rows, labels, weights))
        assert_close(ours, expected, 1e-5)


@pytest.mark.parametrize("args", BINARY)
def test_logistic(args):
    rows, labels, weights = events("binary")
    ours = SGD(Task("binary"), **BINARY[args]).progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, sigmoid(prequential(f"{LOGISTIC} {args}", rows, 2 * labels - 1, weights)), 1e-4)


def test_hinge():
    rows, labels, weights = events("binary")
    ours = SGD(Task("binary"), loss="hinge").progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, sigmoid(prequential("--loss_function hinge", rows, 2 * labels - 1, weights)), 1e-5)


def test_squared_loss_of_a_binary_label():
    rows, labels, weights = events("binary")
    ours = SGD(Task("binary"), loss="squared").progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, prequential("", rows, labels, weights), 1e-5)


def test_poisson():
    rows, labels, weights = events("counts")
    ours = SGD(Task("regression"), loss="poisson").progress(Batch.from_rows(rows, labels, weights))
    assert_close(ours, np.exp(prequential("--loss_function poisson", rows, labels, weights)), 1e-5)


def test_one_against_all():
    """VW knows of all classes from the start, so each must have been sighted before it matters."""
    rows, signal, weights = events("regression")
    labels = np.digitize(signal, [-1, 1]).astype(float)
    rows = [{}, {}, {}, *rows]
    labels = np.concatenate([[0, 1, 2], labels])
    weights = np.concatenate([[1e-12] * 3, weights])
    ours = SGD(Task("multiclass")).progress(Batch.from_rows(rows, labels, weights))
    theirs = prequential(f"--oaa 3 {LOGISTIC} --probabilities", rows, labels + 1, weights)
    assert_close(ours[3:], theirs[3:], 1e-4)


def log_loss(labels, p):
    return -np.mean(np.log(np.where(labels == 1, p, 1 - p)))


def progressive_loss(args, rows, labels):
    """What VW itself reports at the end of a run."""
    vw = Workspace(f"--quiet {args}")
    for row, label in zip(rows, labels, strict=True):
        vw.learn(f"{label:.9g} {line(row)}")
    loss = vw.get_sum_loss() / len(rows)
    vw.finish()
    return loss


@pytest.mark.parametrize(
    ("args", "parameters", "known"),
    [
        ("", {}, 0.55146),
        (
            "-q :: -l 2 --power_t 0.1",
            {"interactions": [["*", "*"]], "learning_rate": 2.0, "power_t": 0.1},
            0.29728,
        ),
    ],
)
def test_elec2(require, args, parameters, known):
    path = DATA / "elec2.csv.gz"
    require("data", path.exists(), "needs shared/data")
    with gzip.open(path, "rt") as file:
        records = list(csv.DictReader(file))
    labels = np.array([record.pop("class") == "UP" for record in records], np.float64)
    rows = [{name: float(value) for name, value in record.items()} for record in records]
    ours = log_loss(labels, SGD(Task("binary"), **parameters).progress(Batch.from_rows(rows, labels)))
    theirs = progressive_loss(f"{LOGISTIC} {args}", rows, 2 * labels - 1)
    assert theirs == pytest.approx(known, abs=1e-5)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_movie_ratings(require):
    path = DATA / "vw/ml100k_small_train"
    require("data", path.exists(), "needs shared/data")
    rows, labels = [], []
    for text in path.read_text().splitlines():
        label, user, item = text.split("|")
        labels.append(float(label))
        rows.append({"u": {user.split()[1]: 1.0}, "i": {item.split()[1]: 1.0}})
    batch = Batch.from_rows(rows, labels)
    ones = np.ones(len(rows))
    for args, parameters in (("", {}), ("-q ui", {"interactions": [["u", "i"]]})):
        ours = SGD(Task("regression"), **parameters).progress(batch)
        np.testing.assert_allclose(ours, prequential(args, rows, labels, ones), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "kind", "args"),
    [(datasets.Phishing, "binary", LOGISTIC), (datasets.TrumpApproval, "regression", "")],
)
def test_sets_that_ship_with_river(dataset, kind, args):
    rows, labels = map(list, zip(*dataset(), strict=True))
    labels = np.array(labels, np.float64)
    ours = SGD(Task(kind)).progress(Batch.from_rows(rows, labels))
    loss = partial(log_loss, labels) if kind == "binary" else lambda p: np.mean((labels - p) ** 2)
    theirs = progressive_loss(args, rows, 2 * labels - 1 if kind == "binary" else labels)
    assert loss(ours) == pytest.approx(theirs, rel=1e-4)
