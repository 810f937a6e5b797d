"""The baselines against twins that keep one count after the other, as anybody would write them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.events import Batch, Task
from penstock.learners.baselines import NoChange, Prior
from penstock.state import digest

ELEC2 = Path(__file__).parents[3] / "shared/data/elec2.csv.gz"


def batch_of(labels, weights=None):
    return Batch.from_rows([{}] * len(labels), np.array(labels, dtype=np.float64), weights)


def slow_prior(kind, labels, weights):
    predictions, sums, n_classes = [], {}, int(max(labels, default=-1)) + 1
    total = 1.0 if kind == "binary" else 0.0
    sums[""] = total / 2
    for label, weight in zip(labels, weights, strict=True):
        if kind == "multiclass":
            predictions.append([sums.get(k, 0.0) / total if total else 0.0 for k in range(n_classes)])
            sums[int(label)] = sums.get(int(label), 0.0) + weight
        else:
            predictions.append(sums[""] / total if total else 0.0)
            sums[""] += weight * label
        total += weight
    return predictions


def slow_no_change(kind, labels, weights):
    predictions, last, n_classes = [], None, int(max(labels, default=-1)) + 1
    seen, repeats, chances = set(), 0, 0
    for label, weight in zip(labels, weights, strict=True):
        sure = max((repeats + 0.5) / (chances + 1), 0.51)
        if kind == "multiclass":
            rest = (1 - sure) / (len(seen) - 1) if len(seen) > 1 else 0.0
            row = [rest if k in seen else 0.0 for k in range(n_classes)]
            if last is not None:
                row[int(last)] = sure if len(seen) > 1 else 1.0
            predictions.append(row)
        elif kind == "binary":
            predictions.append(0.5 if last is None else sure if last else 1 - sure)
        else:
            predictions.append(last or 0.0)
        if weight > 0:
            chances += last is not None
            repeats += label == last
            seen.add(label)
            last = label
    return predictions


LABELS = {
    "binary": st.sampled_from([0.0, 1.0]),
    "multiclass": st.integers(0, 5).map(float),
    "regression": st.floats(-1e6, 1e6),
}
WEIGHTS = st.just(0.0) | st.just(1.0) | st.floats(1e-3, 1e3)


@pytest.mark.parametrize(("baseline", "twin"), [(Prior, slow_prior), (NoChange, slow_no_change)])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@settings(deadline=None)
@given(data=st.data())
def test_equals_its_twin_to_the_bit(baseline, twin, kind, data):
    events = data.draw(st.lists(st.tuples(LABELS[kind], WEIGHTS), min_size=1, max_size=40))
    cut = data.draw(st.integers(0, len(events)))
    labels, weights = map(list, zip(*events, strict=True))
    expected = np.array(twin(kind, labels, weights))
    stream = batch_of(labels, weights)

    whole, split = baseline(Task(kind)), baseline(Task(kind))
    np.testing.assert_array_equal(whole.progress(stream), expected)
    first = split.progress(stream.slice(0, cut))
    second = split.progress(stream.slice(cut, len(stream)))
    if kind == "multiclass":
        first = np.pad(first, ((0, 0), (0, expected.shape[1] - first.shape[1])))
        second = np.pad(second, ((0, 0), (0, expected.shape[1] - second.shape[1])))
    np.testing.assert_array_equal(np.concatenate([first, second]), expected)
    assert digest(split.state()) == digest(whole.state())


@pytest.mark.parametrize("baseline", [Prior, NoChange])
@pytest.mark.parametrize(("kind", "expected"), [("binary", 0.5), ("multiclass", []), ("regression", 0.0)])
def test_before_the_first_label(baseline, kind, expected):
    model = baseline(Task(kind)).freeze()
    np.testing.assert_array_equal(model.predict_one({"a": 1}), expected)


def test_prior_is_the_weighted_share():
    prior = Prior(Task("multiclass"))
    prior.learn(batch_of([0, 1, 1, 2], [1.0, 2.0, 3.0, 2.0]))
    np.testing.assert_array_equal(prior.freeze().predict_one({}), [0.125, 0.625, 0.25])


def test_sums_do_not_depend_on_how_numpy_adds():
    # Pairwise summation would give another last bit.
    values = np.random.default_rng(0).normal(1e3, 1e3, 5000)
    total = 0.0
    for value in values:
        total += value
    prior = Prior(Task("regression"))
    prior.learn(batch_of(values))
    assert prior.freeze().predict_one({}) == total / 5000
    assert total != values.sum()


def test_elec2_repeats_itself():
    if not ELEC2.exists():
        pytest.skip("needs shared/data")
    with gzip.open(ELEC2, "rt") as file:
        next(file)
        labels = [float(line.rstrip().endswith("UP")) for line in file]
    stream = batch_of(labels)
    hits = (NoChange(Task("binary")).progress(stream) > 0.5) == (stream.labels > 0.5)
    assert hits.mean() == pytest.approx(0.853, abs=1e-3)
    majority = (Prior(Task("binary")).progress(stream) > 0.5) == (stream.labels > 0.5)
    assert majority.mean() == pytest.approx(0.575, abs=1e-3)
