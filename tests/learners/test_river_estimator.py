"""River's own checks on the River estimators, and what they promise beyond."""

import copy
import pickle
import sys
import types

import numpy as np
import pytest
from river import compose, datasets, evaluate, metrics, preprocessing, stream
from river.checks import yield_checks

from penstock.errors import BadRecord
from penstock.events import Task
from penstock.learners.river_estimator import SGDClassifier, SGDRegressor
from penstock.learners.sgd import SGD

MODELS = [
    SGDClassifier(bits=10),
    SGDClassifier(bits=10, multiclass="softmax", update="adagrad"),
    SGDClassifier(bits=10, loss="hinge", interactions=[["*", "*"]]),
    SGDClassifier(bits=10, update="ftrl", l1=0.01),
    SGDRegressor(bits=10),
    SGDRegressor(bits=10, loss="quantile", quantile_tau=0.9, half_life=100.0),
    SGDRegressor(bits=10, update="coin", clip=False),
]


@pytest.fixture
def river_checks(monkeypatch):
    """River imports scikit-learn for a dataset of multi-target regressors, which these are not."""
    package = types.ModuleType("sklearn")
    package.datasets = types.ModuleType("sklearn.datasets")
    monkeypatch.setitem(sys.modules, "sklearn", package)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", package.datasets)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.usefixtures("river_checks")
def test_passes_rivers_checks(model):
    names = set()
    for check in yield_checks(model):
        check(model.clone())
        names.add(check.__name__)
    assert {"check_learn_one", "check_pickling", "check_shuffle_features_no_impact"} <= names
    assert model._unit_test_skips() == set()


def test_classifier_predicts_what_the_learner_does():
    model, learner = SGDClassifier(), SGD(Task("multiclass"))
    numbers = {}
    for x, y in datasets.ImageSegments().take(300):
        if numbers:
            expected = dict(zip(numbers, learner.predict_one(x).tolist(), strict=True))
            assert model.predict_proba_one(x) == expected
            assert model.predict_one(x) == max(expected, key=expected.get)
        model.learn_one(x, y)
        learner.learn_one(x, numbers.setdefault(y, len(numbers)))


def test_regressor_predicts_what_the_learner_does():
    model, learner = SGDRegressor(learning_rate=2.0), SGD(Task("regression"), learning_rate=2.0)
    for x, y in datasets.TrumpApproval().take(300):
        assert model.predict_one(x) == learner.predict_one(x)
        model.learn_one(x, y, w=0.5)
        learner.learn_one(x, y, 0.5)


def test_labels_may_be_anything_hashable():
    model = SGDClassifier()
    assert model.predict_one({"x": 1.0}) is None
    assert model.predict_proba_one({"x": 1.0}) == {}
    labels = [("a", 1), None, False, "b", frozenset({3})]
    for label in labels * 3:
        model.learn_one({str(label): 1.0}, label)
    assert list(model.predict_proba_one({})) == labels
    for label in labels:
        assert model.predict_one({str(label): 1.0}) == label


def test_a_label_of_weight_zero_is_not_one():
    model = SGDClassifier()
    model.learn_one({"x": 1.0}, "a", w=0.0)
    assert model.predict_proba_one({"x": 1.0}) == {}
    model.learn_one({"x": 1.0}, "b")
    assert model.predict_proba_one({"x": 1.0}) == {"b": 1.0}


def test_names_of_features_may_be_numbers():
    model, named = SGDRegressor(), SGDRegressor()
    for x, y in stream.iter_array(np.arange(12.0).reshape(4, 3), np.arange(4.0)):
        model.learn_one(x, y)
        named.learn_one({str(name): value for name, value in x.items()}, y)
    assert model.predict_one({0: 1.0, 2: 3.0}) == named.predict_one({"0": 1.0, "2": 3.0})
    assert SGDClassifier().predict_proba_one({0: 1.0}) == {}


def test_what_cannot_be_learned_is_refused_and_leaves_no_trace():
    classifier, regressor = SGDClassifier(), SGDRegressor()
    with pytest.raises(BadRecord, match=r"\$\.x"):
        classifier.learn_one({"x": float("nan")}, "a")
    with pytest.raises(BadRecord, match=r"\$\.x"):
        classifier.predict_one({"x": float("nan")})
    with pytest.raises(BadRecord, match=r"\$\.weight"):
        classifier.learn_one({"x": 1.0}, "a", w=-1.0)
    with pytest.raises(BadRecord, match=r"\$\.label"):
        regressor.learn_one({"x": 1.0}, float("inf"))
    assert classifier.predict_proba_one({"x": 1.0}) == {}
    assert regressor.predict_one({"x": 1.0}) == 0.0


def test_clones_start_afresh_and_copies_go_on():
    model = SGDClassifier(bits=10, learning_rate=1.0)
    for x, y in datasets.Phishing().take(50):
        model.learn_one(x, y)
    assert model.clone().predict_proba_one(x) == {}
    assert model.clone().learning_rate == 1.0
    expected = model.predict_proba_one(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.predict_proba_one(x) == expected
        twin.learn_one(x, not y, w=100.0)
        assert twin.predict_proba_one(x) != expected
        assert model.predict_proba_one(x) == expected


def test_stands_in_a_pipeline():
    model = compose.Pipeline(preprocessing.StandardScaler(), SGDClassifier())
    score = evaluate.progressive_val_score(datasets.Phishing(), model, metrics.Accuracy())
    assert score.get() > 0.85


@pytest.mark.parametrize("multiclass", ["oaa", "softmax"])
def test_learns_image_segments(multiclass):
    model = SGDClassifier(multiclass=multiclass)
    score = evaluate.progressive_val_score(datasets.ImageSegments(), model, metrics.Accuracy())
    assert score.get() > 0.75
