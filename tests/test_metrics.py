import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics as river
from vowpalwabbit import pyvw

from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Task
from penstock.metrics import HIGHER_IS_BETTER, PRIMARY, Metrics, bounded_losses
from penstock.state import digest

TASKS = ["binary", "multiclass", "regression"]
VIEWS = ["", "window_", "fading_"]
N = 3000


def stream(kind, n=N, seed=0, weighted=True):
    """Predictions, labels and weights; labels are autocorrelated, and new classes turn up over time."""
    rng = np.random.default_rng(seed)
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], n) if weighted else np.ones(n)
    if kind == "binary":
        labels = (np.sin(np.arange(n) / 20) + rng.normal(0, 0.7, n) > 0.4).astype(float)
        logit = 2 * labels - 1 + rng.normal(0, 1.5, n)
        return np.round(1 / (1 + np.exp(-logit)), rng.choice([2, 15])), labels, weights
    if kind == "multiclass":
        known = np.minimum(2 + np.arange(n) // 400, 6)
        labels = (rng.integers(0, 10**6, n) % known).astype(float)
        labels[1:][rng.random(n - 1) < 0.4] = labels[:-1][rng.random(n - 1) < 0.4][0]
        labels[0] = 0.0
        seen = np.maximum.accumulate(labels)
        predictions = rng.dirichlet(np.full(6, 0.5), n)
        predictions[np.arange(n), labels.astype(int)] += 0.5
        before = np.concatenate(([-1.0], seen[:-1]))
        predictions[np.arange(6) > before[:, None]] = 0.0
        sums = predictions.sum(axis=1, keepdims=True)
        return np.divide(predictions, sums, where=sums > 0, out=predictions), labels, weights
    labels = 10 + np.cumsum(rng.normal(0, 1, n))
    return labels + rng.normal(0, 2, n), labels, weights


def report_of(kind, data, **parameters):
    metrics = Metrics(Task(kind), **parameters)
    metrics.update(*data)
    return metrics.report()


def slow_report(kind, predictions, labels, weights, previous):
    """All metrics by their definitions, over whole arrays."""
    if kind == "regression":
        mean = np.average(labels, weights=weights)
        squared = (weights * (predictions - labels) ** 2).sum()
        return {
            "mae": np.average(abs(predictions - labels), weights=weights),
            "rmse": math.sqrt(squared / weights.sum()),
            "r2": 1 - squared / (weights * (labels - mean) ** 2).sum(),
        }
    if kind == "binary":
        table = np.column_stack((1 - predictions, predictions))
        predicted = (predictions >= 0.5).astype(float)
        score, hit = predictions, labels
        brier = (predictions - labels) ** 2
    else:
        table = np.pad(predictions, ((0, 0), (0, 10)))
        predicted = np.where(table.any(axis=1), table.argmax(axis=1), -1.0)
        score, hit = table.max(axis=1), (predicted == labels).astype(float)
        onehot = np.arange(table.shape[1]) == labels[:, None]
        brier = np.where(predicted < 0, 1.0, 0.5 * ((table - onehot) ** 2).sum(axis=1))
    p_label = np.clip(table[np.arange(len(labels)), labels.astype(int)], 1e-15, 1 - 1e-15)

    def mean(values, among=slice(None)):
        return np.average(values[among], weights=weights[among])

    correct, pairs = predicted == labels, previous >= 0
    accuracy = mean(correct)
    classes = np.union1d(labels, predicted[predicted >= 0])
    chance = sum(mean(labels == c) * mean(predicted == c) for c in classes)
    unchanged = mean(labels == previous, pairs)
    f1 = [
        2 * mean(correct & (labels == c)) / (mean(labels == c) + mean(predicted == c))
        for c in (classes if kind == "multiclass" else [1.0])
    ]
    bins = np.minimum((score * 15).astype(int), 14)
    result = {
        "logloss": mean(-np.log(p_label)),
        "accuracy": accuracy,
        "kappa": (accuracy - chance) / (1 - chance),
        "kappa_temporal": (mean(correct, pairs) - unchanged) / (1 - unchanged),
        "f1": np.mean(f1),
        "brier": mean(brier),
        "ece": sum(abs(mean((score - hit) * (bins == b))) for b in range(15)),
        "calibration": mean(score - hit) / mean(hit),
    }
    if kind == "binary":
        result["roc_auc"] = brute_force_auc(score, labels, weights)
    return result


def brute_force_auc(scores, labels, weights):
    ones, zeros = labels == 1, labels == 0
    wins = (scores[ones, None] > scores[zeros]) + 0.5 * (scores[ones, None] == scores[zeros])
    return (weights[ones, None] * wins * weights[zeros]).sum() / (weights[ones].sum() * weights[zeros].sum())


def kept(kind, data):
    """The events that count, and the label before each."""
    predictions, labels, weights = (column[data[2] > 0] for column in data)
    return predictions, labels, weights, np.concatenate(([-1.0], labels[:-1]))


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_in_every_view_is_its_definition(kind, seed):
    data = stream(kind, seed=seed)
    report = report_of(kind, data, window=500, fading=0.99)
    p, y, w, before = kept(kind, data)
    cumulative = slow_report(kind, p, y, w, before)
    window = slow_report(kind, p[-500:], y[-500:], w[-500:], before[-500:])
    fading = slow_report(kind, p, y, w * 0.99 ** np.arange(len(y))[::-1], before)
    fading.pop("roc_auc", None)
    if kind == "multiclass":
        del fading["f1"]
    expected = cumulative | {f"window_{k}": v for k, v in window.items()}
    expected |= {f"fading_{k}": v for k, v in fading.items()}
    assert set(report) == set(expected)
    auc = report.pop("roc_auc", None), expected.pop("roc_auc", None)
    if kind == "binary":
        assert auc[0] == pytest.approx(auc[1], abs=2e-4)
    assert report == {name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("kind", "name", "peer", "answer"),
    [
        ("binary", "logloss", river.LogLoss(), lambda p: p),
        ("binary", "accuracy", river.Accuracy(), lambda p: p >= 0.5),
        ("binary", "kappa", river.CohenKappa(), lambda p: p >= 0.5),
        ("binary", "f1", river.F1(), lambda p: p >= 0.5),
        ("multiclass", "accuracy", river.Accuracy(), lambda p: int(np.argmax(p))),
        ("multiclass", "kappa", river.CohenKappa(), lambda p: int(np.argmax(p))),
        ("multiclass", "f1", river.MacroF1(), lambda p: int(np.argmax(p))),
        ("regression", "mae", river.MAE(), float),
        ("regression", "rmse", river.RMSE(), float),
        ("regression", "r2", river.R2(), float),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_river(kind, name, peer, answer, weighted):
    predictions, labels, weights = stream(kind, weighted=weighted)
    peer = peer.clone()
    answered = predictions.any(axis=1) if kind == "multiclass" else np.ones(N, bool)
    data = predictions[answered], labels[answered], weights[answered]
    for p, y, w in zip(*data, strict=True):
        if w > 0:
            label = bool(y) if kind == "binary" else int(y) if kind == "multiclass" else y
            peer.update(label, answer(p), w)
    assert report_of(kind, data)[name] == pytest.approx(peer.get(), rel=1e-9)


def test_auc_in_the_window_agrees_with_river():
    """Without ties, which River does not count as half."""
    _, labels, weights = stream("binary", weighted=False)
    predictions = np.clip(0.5 + 0.2 * labels + np.random.default_rng(0).normal(0, 0.2, N) - 0.1, 0, 1)
    peer = river.RollingROCAUC(window_size=700)
    for p, y in zip(predictions, labels, strict=True):
        peer.update(bool(y), p)
    report = report_of("binary", (predictions, labels, weights), window=700)
    assert report["window_roc_auc"] == pytest.approx(peer.get(), rel=1e-12)


def test_multiclass_log_loss_agrees_with_river():
    rng = np.random.default_rng(0)
    predictions, labels = rng.dirichlet(np.ones(4), 500), rng.integers(0, 4, 500)
    peer = river.CrossEntropy()
    for p, y in zip(predictions, labels, strict=True):
        peer.update(int(y), dict(enumerate(p)))
    report = report_of("multiclass", (predictions, labels.astype(float), np.ones(500)))
    assert report["logloss"] == pytest.approx(peer.get(), rel=1e-9)


def test_progressive_log_loss_of_vowpal_wabbit():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (2000, 3))
    labels = (x @ [2.0, -1.0, 0.5] + rng.logistic(0, 1, 2000) > 0).astype(float)
    vw = pyvw.Workspace("--loss_function logistic --link logistic --quiet")
    predictions = []
    for row, label in zip(x, labels, strict=True):
        example = vw.example(f"{2 * label - 1:g} | a:{row[0]} b:{row[1]} c:{row[2]}")
        vw.learn(example)
        predictions.append(example.get_simplelabel_prediction())
        vw.finish_example(example)
    logloss = vw.get_sum_loss() / vw.get_weighted_examples()
    vw.finish()
    report = report_of("binary", (np.array(predictions), labels, np.ones(2000)))
    assert report["logloss"] == pytest.approx(logloss, abs=1e-6)


@pytest.mark.parametrize("a", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("smallest", [1.0, 1e-4])
def test_auc_over_the_stream_is_within_its_stated_error(a, smallest):
    """Scores all over (0, 1), or all within 1e-4 of 0 as for rare events."""
    rng = np.random.default_rng(1)
    scores = rng.beta(a, a, 4000) * smallest
    labels = (rng.random(4000) < scores / smallest).astype(float)
    report = report_of("binary", (scores, labels, np.ones(4000)), window=4000)
    exact = brute_force_auc(scores, labels, np.ones(4000))
    assert report["window_roc_auc"] == pytest.approx(exact, rel=1e-12)
    assert report["roc_auc"] == pytest.approx(exact, abs=2e-4)


def test_constant_scores_are_ties():
    report = report_of("binary", (np.full(10, 0.5), np.arange(10) % 2.0, np.ones(10)))
    assert report["roc_auc"] == report["window_roc_auc"] == 0.5


def test_the_no_change_classifier_has_no_temporal_kappa():
    labels = (np.random.default_rng(0).random(1000) < np.repeat([0.05, 0.95], 500)).astype(float)
    no_change = np.concatenate(([0.0], labels[:-1]))
    report = report_of("binary", (no_change, labels, np.ones(1000)))
    assert report["kappa_temporal"] == pytest.approx(0.0, abs=1e-12)
    assert report["kappa"] > 0.7  # and yet it looks good


def test_what_is_undefined_is_left_out():
    assert report_of("binary", (np.empty(0), np.empty(0), np.empty(0))) == {}
    one = report_of("binary", (np.array([0.2]), np.array([0.0]), np.ones(1)))
    assert not {"roc_auc", "kappa", "kappa_temporal", "f1", "calibration"} & set(one)
    assert one["logloss"] == -math.log(0.8)
    assert report_of("regression", (np.zeros(2), np.full(2, 0.1), np.array([3.0, 0.7]))).keys() == {
        f"{view}{name}" for view in VIEWS for name in ("mae", "rmse")
    }
    assert report_of("multiclass", (np.empty((0, 0)), np.empty(0), np.empty(0))) == {}


def test_a_report_holds_no_infinity():
    report = report_of("regression", (np.array([1e300, 0.0]), np.array([-1e300, 0.0]), np.ones(2)))
    assert "rmse" not in report
    json.dumps(report, allow_nan=False)


def test_no_answer_counts_as_wrong():
    report = report_of("multiclass", (np.zeros((1, 0)), np.zeros(1), np.ones(1)))
    assert report["accuracy"] == 0.0
    assert report["brier"] == 1.0
    assert report["logloss"] == -math.log(1e-15)


def test_a_class_never_seen_before_had_no_probability():
    data = np.array([[0.9, 0.1]]), np.array([7.0]), np.ones(1)
    report = report_of("multiclass", data)
    assert report["logloss"] == -math.log(1e-15)
    assert report["brier"] == pytest.approx(0.5 * (0.81 + 0.01 + 1.0))


def test_the_most_probable_class_is_the_lowest_of_equals():
    assert report_of("multiclass", (np.full((1, 4), 0.25), np.zeros(1), np.ones(1)))["accuracy"] == 1.0
    assert report_of("binary", (np.array([0.5]), np.ones(1), np.ones(1)))["accuracy"] == 1.0


@pytest.mark.parametrize("kind", TASKS)
def test_events_without_weight_are_ignored(kind):
    predictions, labels, weights = stream(kind)
    with_them, without = Metrics(Task(kind)), Metrics(Task(kind))
    with_them.update(predictions, labels, weights)
    without.update(predictions[weights > 0], labels[weights > 0], weights[weights > 0])
    assert digest(with_them.state()) == digest(without.state())
    assert with_them.n_events == (weights > 0).sum()


@pytest.mark.parametrize("kind", TASKS)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 900), max_size=30), window=st.sampled_from([1, 2, 50, 2000]))
def test_where_the_stream_is_cut_changes_nothing(kind, cuts, window):
    predictions, labels, weights = stream(kind, 900)
    whole, split = Metrics(Task(kind), window=window), Metrics(Task(kind), window=window)
    whole.update(predictions, labels, weights)
    edges = [0, *sorted(cuts), 900]
    for start, stop in itertools.pairwise(edges):
        part = predictions[start:stop]
        if kind == "multiclass":  # as many columns as there were classes by the end of the part
            part = part[:, : int(labels[:stop].max()) + 1 if stop else 0]
        split.update(part, labels[start:stop], weights[start:stop])
    assert digest(split.state()) == digest(whole.state())
    assert split.report() == whole.report()


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("at", [0, 1, 700, N])
def test_state_goes_on_as_if_nothing_had_happened(kind, at):
    data = stream(kind)
    steady, first_half, resumed = (Metrics(Task(kind), window=300) for _ in range(3))
    first_half.update(*(column[:at] for column in data))
    state = first_half.state()
    before = digest(state)
    resumed.restore(state)
    first_half.update(*(column[at:] for column in data))
    resumed.update(*(column[at:] for column in data))
    assert digest(state) == before
    steady.update(*data)
    assert digest(resumed.state()) == digest(first_half.state()) == digest(steady.state())
    assert resumed.report() == steady.report()


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    "change",
    [
        {"ring": np.zeros((7, 7))},
        {"ring": None},
        {"sums": np.zeros(3)},
        {"sums": np.zeros((60, 1))},
        {"fading_sums": np.zeros(5)},
        {"scores": np.zeros((2, 4096))},
        {"n_events": -1},
        {"n_events": "many"},
    ],
)
def test_a_spoiled_state_is_refused(kind, change):
    metrics = Metrics(Task(kind))
    metrics.update(*stream(kind, 100))
    before = digest(metrics.state())
    with pytest.raises(StoreError, match=r"metrics state"):
        metrics.restore({**metrics.state(), **change})
    assert digest(metrics.state()) == before


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("binary", ([0.5, np.nan], [1, 1], [1, 1]), "expected a probability, got nan - at `predictions[1]`"),
        ("binary", ([0.5, 7.0], [1, 1], [1, 1]), "expected a probability, got 7.0 - at `predictions[1]`"),
        ("binary", ([0.5, 0.5], [1, 2], [1, 1]), "expected 0 or 1, got 2.0 - at `labels[1]`"),
        ("binary", ([0.5], [1], [-1]), "expected a finite number >= 0, got -1.0 - at `weights[0]`"),
        ("regression", ([np.inf], [1], [1]), "expected a finite number, got inf - at `predictions[0]`"),
        (
            "multiclass",
            ([[0.5, np.nan]], [1], [1]),
            "expected probabilities, got [0.5, nan] - at `predictions[0]`",
        ),
        (
            "multiclass",
            ([[0.5]], [0.5], [1]),
            "expected a class number below 1048576, got 0.5 - at `labels[0]`",
        ),
        (
            "binary",
            ([[0.5]], [1], [1]),
            "expected predictions (n,), labels (n,) and weights (n,), got ((1, 1), (1,), (1,)) - at `shapes`",
        ),
        (
            "multiclass",
            ([0.5], [1], [1]),
            "expected predictions (n, K), labels (n,) and weights (n,), got ((1,), (1,), (1,)) - at `shapes`",
        ),
    ],
)
def test_what_cannot_be_scored_is_named_and_changes_nothing(kind, data, message):
    metrics = Metrics(Task(kind))
    metrics.update(*stream(kind, 50))
    before = digest(metrics.state())
    with pytest.raises(BadRecord) as error:
        metrics.update(*(np.array(column, dtype=float) for column in data))
    assert str(error.value) == message
    assert digest(metrics.state()) == before


def test_probabilities_rounded_past_one_are_accepted():
    report = report_of("binary", (np.array([1 + 1e-7, -1e-7]), np.array([1.0, 0.0]), np.ones(2)))
    assert report["brier"] == 0.0


@pytest.mark.parametrize("parameters", [{"window": 0}, {"window": 1.5}, {"fading": 0.0}, {"fading": 1.1}])
def test_bad_parameters_are_named(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        Metrics(Task("binary"), **parameters)


def test_every_reported_metric_has_a_direction_and_every_task_a_primary_one():
    for kind in TASKS:
        names = {
            name for name in report_of(kind, stream(kind)) if not name.startswith(("window_", "fading_"))
        }
        assert names - {"calibration"} <= set(HIGHER_IS_BETTER)
        assert PRIMARY[kind] in names


@pytest.mark.parametrize("kind", ["brier", "logloss", "error"])
def test_bounded_losses_of_classes(kind):
    binary = bounded_losses(Task("binary"), [0.0, 0.5, 0.9999, 0.3], [1.0, 1.0, 1.0, 0.0], kind=kind)
    table = [[0.0, 0.0], [0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]
    multiclass = bounded_losses(Task("multiclass"), table, [0.0, 0.0, 1.0, 5.0], kind=kind)
    unit = math.log(1000)
    expected = {
        "brier": ([1.0, 0.25, 1e-8, 0.09], [1.0, 0.25, 0.0625, 1.0]),
        "error": ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]),
        "logloss": (
            [1.0, math.log(2) / unit, -math.log(0.999) / unit, -math.log(0.7) / unit],
            [1.0, math.log(2) / unit, -math.log(0.75) / unit, 1.0],
        ),
    }[kind]
    np.testing.assert_allclose(binary, expected[0], rtol=1e-9)
    np.testing.assert_allclose(multiclass, expected[1], rtol=1e-9)


def test_bounded_losses_of_numbers():
    losses = bounded_losses(Task("regression"), [0.0, 1.0, 9.0], [0.5, 1.0, -9.0], kind="absolute", scale=2.0)
    assert losses.tolist() == [0.25, 0.0, 1.0]


@pytest.mark.parametrize("task", TASKS)
def test_bounded_losses_are_bounded_and_do_not_depend_on_the_batch(task):
    predictions, labels, _ = stream(task)
    if task == "multiclass":
        predictions[:50] *= 3 / np.maximum(predictions[:50].sum(axis=1, keepdims=True), 3)
    for kind in ("absolute",) if task == "regression" else ("brier", "logloss", "error"):
        whole = bounded_losses(Task(task), predictions, labels, kind=kind)
        assert whole.shape == labels.shape
        assert ((whole >= 0) & (whole <= 1)).all()
        one_by_one = [
            bounded_losses(Task(task), predictions[i : i + 1], labels[i : i + 1], kind=kind)[0]
            for i in range(500)
        ]
        assert one_by_one == whole[:500].tolist()


def test_rows_that_add_up_to_more_than_one_lose_at_most_everything():
    assert bounded_losses(Task("multiclass"), [[0.0, 1.0, 1.0]], [0.0]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        ("binary", "absolute", "loss of a binary task: expected brier or logloss or error, got 'absolute'"),
        ("regression", "brier", "loss of a regression task: expected absolute, got 'brier'"),
        ("multiclass", "hinge", "loss of a multiclass task: expected brier or logloss or error, got 'hinge'"),
    ],
)
def test_a_loss_that_does_not_fit_the_task_is_refused(task, kind, message):
    with pytest.raises(ConfigError) as error:
        bounded_losses(Task(task), [], [], kind=kind)
    assert str(error.value) == message


def test_a_scale_must_be_positive():
    with pytest.raises(ConfigError, match=r"scale: expected a positive number, got 0"):
        bounded_losses(Task("regression"), [1.0], [1.0], scale=0)


def test_bounded_losses_name_a_bad_prediction():
    with pytest.raises(BadRecord, match=r"predictions\[1\]"):
        bounded_losses(Task("binary"), [0.5, np.nan], [1.0, 1.0])
