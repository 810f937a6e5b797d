"""River models as learners: what River itself does, and what it does not do: repeat itself."""

import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
from river import datasets, ensemble, forest, linear_model, neighbors, optim, preprocessing, tree

from penstock.errors import ConfigError, PenstockError, StoreError, UntrustedState
from penstock.events import Batch, Task
from penstock.learners.river import River
from penstock.learners.river_state import content_digest
from penstock.state import Opaque, digest

BINARY, MULTICLASS, REGRESSION = Task("binary"), Task("multiclass"), Task("regression")
SCALED = ["preprocessing.StandardScaler", "linear_model.LogisticRegression"]


def numeric(n=200, seed=0):
    rng = random.Random(seed)
    rows = [{"x": rng.gauss(0, 1), "y": rng.gauss(5, 2)} for _ in range(n)]
    return Batch.from_rows(rows, [float(row["x"] > 0) for row in rows])


# --- the same as River ------------------------------------------------------------------------------------


def test_learns_what_river_learns():
    rows, labels = zip(*datasets.Phishing(), strict=True)
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    expected = []
    for row, label in zip(rows, labels, strict=True):
        expected.append(model.predict_proba_one(row)[True])
        model.learn_one(row, label)
    batch = Batch.from_rows(rows, np.array(labels, dtype=np.float64))
    np.testing.assert_array_equal(River(BINARY, model=SCALED).progress(batch), expected)


def test_classes_are_rivers():
    rows, names = zip(*datasets.ImageSegments().take(400), strict=True)
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
    model = tree.HoeffdingTreeClassifier(grace_period=50)
    for row, name in zip(rows, names, strict=True):
        model.learn_one(row, numbers[name])
    learner = River(MULTICLASS, model="tree.HoeffdingTreeClassifier", params={"grace_period": 50})
    batch = Batch.from_rows(rows, [float(numbers[name]) for name in names])
    learner.learn(batch)
    expected = [[model.predict_proba_one(row).get(k, 0.0) for k in range(len(numbers))] for row in rows]
    np.testing.assert_allclose(learner.predict(batch), expected, rtol=0, atol=1e-12)


def test_numbers_are_rivers():
    rows, labels = zip(*datasets.TrumpApproval().take(300), strict=True)
    model = preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer=optim.SGD(0.05))
    expected = []
    for row, label in zip(rows, labels, strict=True):
        expected.append(model.predict_one(row))
        model.learn_one(row, label)
    sgd = {"class": "optim.SGD", "params": {"lr": 0.05}}
    pipeline = ["preprocessing.StandardScaler", {"linear_model.LinearRegression": {"optimizer": sgd}}]
    np.testing.assert_array_equal(
        River(REGRESSION, model=pipeline).progress(Batch.from_rows(rows, labels)), expected
    )


def test_weights_are_handed_on_where_the_model_takes_them():
    batch = numeric(50)
    weights = np.linspace(0.0, 3.0, 50)
    model = linear_model.LogisticRegression()
    for row, label, weight in zip(batch.rows, batch.labels, weights.tolist(), strict=True):
        if weight > 0:
            model.learn_one(row, bool(label), w=weight)
    learner = River(BINARY, model="linear_model.LogisticRegression")
    learner.learn(batch.with_weights(weights))
    expected = [model.predict_proba_one(row)[True] for row in batch.rows]
    np.testing.assert_array_equal(learner.predict(batch), expected)


def test_other_weights_make_no_difference():
    batch = numeric(50)
    plain, weighted = (River(BINARY, model="naive_bayes.GaussianNB") for _ in range(2))
    plain.learn(batch)
    weighted.learn(batch.with_weights(np.full(50, 3.0)))
    assert digest(weighted.state()) == digest(plain.state())


# --- what River gets --------------------------------------------------------------------------------------


def test_rows_are_flat_and_rivers_own():
    learner = River(
        BINARY,
        model="neighbors.KNNClassifier",
        params={"engine": {"class": "neighbors.LazySearch", "params": {"window_size": 5}}},
    )
    row = {"a": 1, "b": {"c": 2.0, "d": [3, {"e": 4}, None]}, "f": None, "g": np.array([5.0, 6.0])}
    learner.learn(Batch.from_rows([row], [1.0]))
    ((stored, _label),) = [event for event, *_ in learner.freeze().model._nn.window]
    assert stored == {"a": 1, "b.c": 2.0, "b.d.0": 3, "b.d.1.e": 4, "g.0": 5.0, "g.1": 6.0}


def test_a_classifier_without_probabilities_is_sure():
    regression = {"class": "linear_model.LogisticRegression"}
    learner = River(BINARY, model="multiclass.OneVsOneClassifier", params={"classifier": regression})
    batch = numeric()
    predictions = learner.progress(batch)
    with pytest.raises(NotImplementedError):
        learner.freeze().model.predict_proba_one(batch.rows[0])
    assert set(predictions) == {0.0, 0.5, 1.0}
    assert predictions[0] == 0.5  # it names no class yet
    assert ((predictions > 0.5) == (batch.labels > 0.5)).mean() > 0.7


def test_what_is_not_finite_is_not_predicted():
    learner = River(
        REGRESSION,
        model="linear_model.LinearRegression",
        params={"optimizer": {"class": "optim.SGD", "params": {"lr": 1e300}}, "clip_gradient": 1e308},
    )
    batch = Batch.from_rows([{"x": 1e17}] * 20, [1e17] * 20)
    predictions = learner.progress(batch)
    assert np.isfinite(predictions).all()
    assert learner.freeze().predict_one({"x": 1e17}) == 0.0


# --- construction -----------------------------------------------------------------------------------------


def test_the_seed_goes_where_it_is_taken():
    def built(**params):
        return River(BINARY, seed=5, model="forest.ARFClassifier", params=params).freeze().model

    assert built().seed == 5
    assert built(seed=3).seed == 3
    assert built(seed=None).seed == 5  # unseeded results could not be repeated
    assert isinstance(built(), forest.ARFClassifier)


def test_parameters_can_be_objects_at_any_depth():
    inner = {"class": ["preprocessing.StandardScaler", {"linear_model.LogisticRegression": {"l2": 0.5}}]}
    model = (
        River(BINARY, seed=2, model="ensemble.BaggingClassifier", params={"model": inner, "n_models": 2})
        .freeze()
        .model
    )
    assert isinstance(model, ensemble.BaggingClassifier)
    assert model.seed == 2
    scaler, regression = model.model.steps.values()
    assert isinstance(scaler, preprocessing.StandardScaler)
    assert regression.l2 == 0.5


KNN = "neighbors.KNNClassifier"
KNN_TAKES = "it takes n_neighbors, engine, weighted, cleanup_every, softmax"


@pytest.mark.parametrize(
    ("task", "model", "params", "message"),
    [
        (
            BINARY,
            "forest.ARFClasifier",
            None,
            "river has no 'forest.ARFClasifier': did you mean 'forest.ARFClassifier'?",
        ),
        (
            BINARY,
            "ARFClassifier",
            None,
            "river has no 'ARFClassifier': did you mean 'forest.ARFClassifier'?",
        ),
        (
            BINARY,
            "tree.ARFClassifier",
            None,
            "river has no 'tree.ARFClassifier': did you mean 'forest.ARFClassifier'?",
        ),
        (
            BINARY,
            "qqq",
            None,
            "river has no 'qqq': names look like 'forest.ARFClassifier' (https://riverml.xyz lists them)",
        ),
        (
            BINARY,
            KNN,
            {"weigthed": 1},
            f"river {KNN} has no parameter 'weigthed' (did you mean 'weighted'?): {KNN_TAKES}",
        ),
        (
            BINARY,
            KNN,
            {"zzz": 1},
            f"river {KNN} has no parameter 'zzz': {KNN_TAKES}",
        ),
        (
            BINARY,
            "ensemble.BaggingClassifier",
            None,
            "river ensemble.BaggingClassifier: TypeError: BaggingClassifier.__init__() missing 1 required "
            "positional argument: 'model'",
        ),
        (
            BINARY,
            "linear_model.LinearRegression",
            None,
            "river linear_model.LinearRegression: task binary needs a classifier, "
            "and LinearRegression is none",
        ),
        (
            REGRESSION,
            SCALED[:1],
            None,
            "river preprocessing.StandardScaler: task regression needs a regressor, "
            "and StandardScaler is none",
        ),
        (
            MULTICLASS,
            SCALED,
            None,
            "river preprocessing.StandardScaler | linear_model.LogisticRegression: LogisticRegression knows "
            "two classes only; for more write {multiclass.OneVsRestClassifier: {classifier: {class: ...}}}",
        ),
        (
            BINARY,
            KNN,
            None,
            f"river {KNN}: neighbors.SWINN draws random numbers when it predicts, so results could not be "
            "repeated; give the model {engine: {class: neighbors.LazySearch}}",
        ),
        (
            BINARY,
            SCALED,
            {"l2": 1},
            "river: `params` go with a single `model`; in a pipeline write {name: {l2: ...}}",
        ),
        (
            BINARY,
            [],
            None,
            "river: expected a name or a list of steps as `model`, got []",
        ),
        (
            BINARY,
            [{"a": {}, "b": {}}],
            None,
            "river: expected a name or {name: parameters} as a step of `model`, got {'a': {}, 'b': {}}",
        ),
        (
            BINARY,
            [{"a": 3}],
            None,
            "river: expected a name or {name: parameters} as a step of `model`, got {'a': 3}",
        ),
    ],
)
def test_what_cannot_be_built_says_why(task, model, params, message):
    with pytest.raises(ConfigError) as raised:
        River(task, model=model, params=params)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "os.system",
        "..os.system",
        "linear_model",
        "base.base.sys",
        "base.typing.Any",
        "utils.math.np",
        "checks.common.copy",
        "preprocessing.scale.np.load",
    ],
)
def test_nothing_but_rivers_classes_resolves(name):
    with pytest.raises(ConfigError, match="river has no"):
        River(BINARY, model=name)


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failing_model_names_the_event():
    learner = River(BINARY, model=SCALED)
    learner.learn(numeric(3))
    text = Batch.from_rows([{"x": 1.0, "y": 2.0}, {"x": 1.0, "y": "low"}], [1.0, 0.0])
    for method, verb, event in (
        (learner.learn, "learn", "event 5"),
        (learner.progress, "predict", "event 6"),
        (learner.predict, "predict", "event 1 of the batch"),
    ):
        with pytest.raises(PenstockError) as raised:
            method(text)
        message = str(raised.value)
        assert message.startswith("learner river: ")
        assert f" cannot {verb} {event}: TypeError: " in message
        assert message.endswith("('y' is text: does the model need a preprocessing.OneHotEncoder?)")


# --- state ------------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_an_untrusted_pickle_is_not_read(tmp_path):
    learner = River(BINARY, model=SCALED)
    trace = tmp_path / "trace"
    bomb = Opaque(data=pickle.dumps(Bomb(str(trace))), digest="0" * 64, trusted=False)
    with pytest.raises(UntrustedState, match=r"nothing vouches for this model.*PENSTOCK_KEY.*configuration"):
        learner.restore({**learner.state(), "model": bomb})
    with pytest.raises(UntrustedState, match="PENSTOCK_KEY"):
        River.load({**learner.freeze().state(), "model": bomb})
    assert not trace.exists()
    assert len(learner.progress(numeric(5))) == 5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "learner river: the state has no pickled model in it"),
        (
            Opaque(data=pickle.dumps([]), digest=""),
            "learner river: the state holds a list, not a model of River",
        ),
    ],
)
def test_a_state_of_something_else_is_refused(entry, message):
    learner = River(BINARY, model=SCALED)
    with pytest.raises(StoreError) as raised:
        learner.restore({**learner.state(), "model": entry})
    assert str(raised.value) == message


def test_a_model_of_another_task_is_refused():
    regression = River(REGRESSION, model="linear_model.LinearRegression")
    with pytest.raises(ConfigError, match="task binary needs a classifier"):
        River(BINARY, model=SCALED).restore(regression.state())


def test_equal_contents_have_equal_digests():
    shared = "".join(["no ", "literal"])
    apart = "".join(["no ", "literal"])
    assert content_digest([shared, shared]) == content_digest([shared, apart])
    assert content_digest([shared, shared]) != content_digest([shared, shared + "."])
    numbers = range(0, 1 << 20, 1 << 14)  # they collide, so that a set's order is that of insertion
    ends: set[int] = set(numbers)
    backwards: set[int] = set()
    backwards.update(reversed(numbers))
    assert list(ends) != list(backwards)
    assert content_digest(ends) == content_digest(backwards)
    assert content_digest(ends) != content_digest(frozenset(ends))
    assert content_digest((1, 2)) != content_digest([1, 2])
    assert content_digest(neighbors.LazySearch(5)) != content_digest(neighbors.LazySearch(6))


def test_an_object_in_two_places_is_not_two_objects():
    one, other = [1], [1]
    assert content_digest([one, one]) != content_digest([one, other])


ACROSS_PROCESSES = """
import random, sys
from penstock.events import Batch, Task
from penstock.learners.river import River
from penstock.state import digest

rng = random.Random(1)
names = ["a", "bb", "ccc", "dddd", "eeeee"]
rows = [{name: rng.gauss(0, 1) for name in rng.sample(names, 4)} for _ in range(400)]
labels = [float(row.get("a", 0.0) - row.get("bb", 0.0) * (-1) ** (i > 200) > 0) for i, row in enumerate(rows)]
batch = Batch.from_rows(rows, labels)
lazy = {"class": "neighbors.LazySearch", "params": {"window_size": 50}}
for model, params in [
    (["preprocessing.StandardScaler", "linear_model.LogisticRegression"], None),
    ("tree.HoeffdingAdaptiveTreeClassifier", {"grace_period": 30}),
    ("forest.ARFClassifier", {"n_models": 2, "grace_period": 30}),
    ("naive_bayes.GaussianNB", None),
    ("neighbors.KNNClassifier", {"engine": lazy}),
    ("ensemble.SRPClassifier", {"n_models": 2, "seed": 4}),
    ("rules.AMRules", None),
]:
    def build():
        task = Task("regression" if model == "rules.AMRules" else "binary")
        return River(task, seed=9, model=model, params=params)
    uninterrupted, resumed, stopped = build(), build(), build()
    uninterrupted.progress(batch)
    stopped.progress(batch.slice(0, 150))
    resumed.restore(stopped.state())
    resumed.progress(batch.slice(150, 400))
    assert digest(resumed.state()) == digest(uninterrupted.state()), model
    print(digest(resumed.state()))
"""


def test_digests_agree_across_processes():
    found = []
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", ACROSS_PROCESSES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found.append(result.stdout.split())
    assert len(found[0]) == 7
    assert found[0] == found[1]
