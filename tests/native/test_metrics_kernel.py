"""The kernels of the metrics against slow, obvious twins."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock._native import metrics as native

N_CLASSES = 4
NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def columns(draw, n_columns):
    """Predictions (n, n_columns), labels and weights of some events."""
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    predictions = rng.dirichlet(np.full(max(n_columns, 1), 0.3), n)[:, :n_columns]
    predictions[rng.random(n) < draw(st.sampled_from([0.0, 0.3]))] = 0.0
    predictions = np.where(rng.random(predictions.shape) < 0.1, np.round(predictions), predictions)
    labels = rng.integers(0, N_CLASSES, n).astype(float)
    weights = rng.choice([0.0, 1.0, 0.3, 1e3], n)
    return predictions, labels, weights


def slow_binary_rows(predictions, labels, weights, previous):
    rows = []
    for p, y, w in zip(predictions, labels, weights, strict=True):
        if w == 0:
            continue
        p_label = p if y == 1 else 1 - p
        logloss = -math.log(min(max(p_label, 1e-15), 1 - 1e-15))
        rows.append([y, float(p >= 0.5), logloss, (p - y) ** 2, p, w, previous])
        previous = y
    return np.array(rows).reshape(-1, native.CLASS_COLUMNS)


def slow_multiclass_rows(predictions, labels, weights, previous):
    rows = []
    for p, y, w in zip(predictions, labels, weights, strict=True):
        if w == 0:
            continue
        label = int(y)
        p_all = np.zeros(max(len(p), label + 1))
        p_all[: len(p)] = p
        answered = p_all.any()
        onehot = np.arange(len(p_all)) == label
        logloss = -math.log(min(max(p_all[label], 1e-15), 1 - 1e-15))
        brier = 0.5 * ((p_all - onehot) ** 2).sum() if answered else 1.0
        best = float(p_all.argmax()) if answered else -1.0
        rows.append([y, best, logloss, brier, p_all.max(), w, previous])
        previous = y
    return np.array(rows).reshape(-1, native.CLASS_COLUMNS)


def slow_sums(rows, n_classes, top_label, fading):
    """Sums by the book: S = l + a S."""
    sums = np.zeros(native.CLASSES + 3 * n_classes)
    for y, best, logloss, brier, score, w, previous in rows:
        sums *= fading
        hit = (best == y) if top_label else (y == 1)
        sums[native.TOTAL] += w
        sums[native.CORRECT] += w * (best == y)
        sums[native.SUM_LOGLOSS] += w * logloss
        sums[native.SUM_BRIER] += w * brier
        sums[native.SUM_SCORE] += w * score
        sums[native.SUM_HITS] += w * hit
        if previous >= 0:
            sums[native.PAIRS] += w
            sums[native.PAIRS_CORRECT] += w * (best == y)
            sums[native.PAIRS_UNCHANGED] += w * (previous == y)
        in_bin = native.CALIBRATION + 3 * min(int(score * 15), 14)
        sums[in_bin : in_bin + 3] += w, w * score, w * hit
        sums[native.CLASSES + 3 * int(y)] += w
        if best >= 0:
            sums[native.CLASSES + 3 * int(best) + 1] += w
        sums[native.CLASSES + 3 * int(y) + 2] += w * (best == y)
    return sums


def summarised(summarise, predictions, labels, weights, previous):
    rows = np.full((len(labels), native.CLASS_COLUMNS), np.nan)
    kept, at, what = summarise(predictions, labels, weights, previous, rows)
    assert (at, what) == (-1, native.USABLE)
    assert np.isnan(rows[kept:]).all()
    return rows[:kept]


@settings(max_examples=150, deadline=None)
@given(columns(1), st.sampled_from([-1.0, 0.0, 1.0]))
@example((np.array([[0.5], [0.0], [1.0], [1e-16]]), np.array([1.0, 1, 0, 0]), np.ones(4)), -1.0)
def test_binary_rows(data, previous):
    predictions, labels, weights = data
    predictions, labels = predictions[:, 0].copy(), (labels % 2).astype(float)
    rows = summarised(native.summarise_binary, predictions, labels, weights, previous)
    np.testing.assert_allclose(rows, slow_binary_rows(predictions, labels, weights, previous), rtol=1e-14)


@settings(max_examples=100, deadline=None)
@given(columns(1))
def test_squared_losses(data):
    predictions, labels, weights = data
    predictions, labels = predictions[:, 0].copy(), (labels % 2).astype(float)
    losses = np.full(len(labels), np.nan)
    assert native.squared_losses(predictions, labels, losses)[1:] == (-1, native.USABLE)
    rows = summarised(native.summarise_binary, predictions, labels, np.ones_like(weights), -1.0)
    assert losses.tobytes() == rows[:, native.BRIER].tobytes()


@pytest.mark.parametrize(
    ("prediction", "label", "what"),
    [(np.nan, 1.0, native.BAD_PREDICTION), (1.1, 0.0, native.BAD_PREDICTION), (0.5, 2.0, native.BAD_LABEL)],
)
def test_squared_losses_of_what_is_none(prediction, label, what):
    losses = np.zeros(2)
    found = native.squared_losses(np.array([0.5, prediction]), np.array([1.0, label]), losses)
    assert found[1:] == (1, what)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 6).flatmap(columns), st.sampled_from([-1.0, 0.0, 3.0]))
def test_multiclass_rows(data, previous):
    predictions, labels, weights = data
    predictions = np.ascontiguousarray(predictions)
    rows = summarised(native.summarise_multiclass, predictions, labels, weights, previous)
    expected = slow_multiclass_rows(predictions, labels, weights, previous)
    np.testing.assert_allclose(rows, expected, rtol=1e-14, atol=1e-16)


@settings(max_examples=150, deadline=None)
@given(columns(3), st.sampled_from([1.0, 0.999, 0.5, 1e-3]), st.booleans(), st.integers(0, 40))
def test_sums(data, fading, top_label, cut):
    predictions, labels, weights = data
    rows = summarised(native.summarise_multiclass, np.ascontiguousarray(predictions), labels, weights, -1.0)
    sums = np.zeros(native.CLASSES + 3 * N_CLASSES)
    sums[native.SCALE] = 1.0
    native.add_classified(rows[:cut], sums, 1 / fading, top_label)
    native.add_classified(rows[cut:], sums, 1 / fading, top_label)
    slow = slow_sums(rows, N_CLASSES, top_label, fading)
    np.testing.assert_allclose(sums[1:] / sums[native.SCALE], slow[1:], rtol=1e-11, atol=1e-300)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-15, 1 - 1e-15))
def test_log_loss_is_right_to_the_last_place(p):
    rows = summarised(native.summarise_binary, np.array([p]), np.ones(1), np.ones(1), -1.0)
    assert abs(rows[0, native.LOGLOSS] + math.log(p)) <= math.ulp(math.log(p))


@settings(max_examples=100, deadline=None)
@given(columns(1), st.sampled_from([1, 10]), st.integers(0, 400), st.sampled_from([1, 7, 30, 1000]))
def test_one_pass_does_what_the_single_steps_do(data, times, cut, size):
    data = [np.concatenate([column] * times) for column in data]  # more than one block of the kernel
    predictions, labels, weights = data[0][:, 0].copy(), (data[1] % 2).astype(float), data[2]
    rows = summarised(native.summarise_binary, predictions, labels, weights, -1.0)
    sums = np.zeros(native.CLASSES + 6)
    sums[native.SCALE] = 1.0
    steps = np.zeros((size, native.CLASS_COLUMNS)), sums, sums.copy(), np.zeros((2, native.AUC_BINS))
    at_once = [column.copy() for column in steps]
    native.remember(rows, steps[0], 0)
    native.add_classified(rows, steps[1], 1.0, False)
    native.add_classified(rows, steps[2], 1 / 0.9, False)
    native.add_scores(rows, steps[3])
    ring, cumulative, fading, histogram = at_once
    n = 0
    for part in (slice(None, cut), slice(cut, None)):
        kept, at, what = native.score_binary(
            predictions[part], labels[part], weights[part], n, ring, cumulative, fading, 1 / 0.9, histogram
        )
        assert (at, what) == (-1, native.USABLE)
        n += kept
    assert n == len(rows)
    assert [column.tobytes() for column in at_once] == [column.tobytes() for column in steps]


def test_one_pass_writes_nothing_if_an_event_cannot_be_used():
    ring, histogram = np.zeros((3, native.CLASS_COLUMNS)), np.zeros((2, native.AUC_BINS))
    sums, fading = np.zeros((2, native.CLASSES + 6))
    ones = np.ones(3)
    found = native.score_binary(ones, np.array([1.0, 0.5, 1.0]), ones, 0, ring, sums, fading, 1.0, histogram)
    assert found == (0, 1, native.BAD_LABEL)
    assert not any(column.any() for column in (ring, sums, fading, histogram))
    for foreign in (
        (ones[:2], ones, ones, 0, ring, sums, fading, 1.0, histogram),
        (ones, ones, ones, 0, ring[:0], sums, fading, 1.0, histogram),
        (ones, ones, ones, -1, ring, sums, fading, 1.0, histogram),
        (ones, ones, ones, 0, ring, sums, fading[1:], 1.0, histogram),
        (ones, ones, ones, 0, ring, sums, fading, 1.0, np.zeros((2, 7))),
    ):
        with pytest.raises(ValueError, match=r"fit|those of|one of"):
            native.score_binary(*foreign)


def test_a_fading_scale_stays_bounded():
    rows = np.zeros((200_000, native.CLASS_COLUMNS))
    rows[:, native.WEIGHT] = 1.0
    sums = np.zeros(native.CLASSES + 6)
    sums[native.SCALE] = 1.0
    native.add_classified(rows, sums, 1 / 0.99, False)
    assert 1.0 <= sums[native.SCALE] <= 1e12
    assert sums[native.TOTAL] / sums[native.SCALE] == pytest.approx(100.0, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 0.3, 1e3])),
        max_size=40,
    ),
    st.sampled_from([1.0, 0.999, 0.5, 1e-3]),
)
def test_sums_of_numbers(events, fading):
    labels, predictions, weights = np.array(events).reshape(-1, 3).T.copy()
    rows = np.empty((len(labels), native.NUMBER_COLUMNS))
    kept, at, what = native.summarise_numbers(predictions, labels, weights, rows)
    assert (kept, at, what) == ((weights > 0).sum(), -1, native.USABLE)
    sums = np.zeros(native.NUMBER_SUMS)
    sums[native.NUMBER_SCALE] = 1.0
    native.add_numbers(rows[:kept], sums, 1 / fading)

    y, p, w = rows[:kept].T
    w = w * fading ** np.arange(kept)[::-1]
    mean = np.average(y, weights=w) if kept else 0.0
    slow = [w.sum(), (w * abs(p - y)).sum(), (w * (p - y) ** 2).sum(), mean, (w * (y - mean) ** 2).sum()]
    scales = np.array([*[sums[native.NUMBER_SCALE]] * 3, 1.0, sums[native.NUMBER_SCALE]])
    np.testing.assert_allclose(sums[1:] / scales, slow, rtol=1e-9, atol=1e-9 * (1 + w.sum() * 1e3))


def test_welford_keeps_the_digits_of_labels_far_from_zero():
    labels = 1e9 + np.tile([0.0, 1.0], 500)
    rows = np.column_stack((labels, labels, np.ones(1000)))
    sums = np.array([1.0, 0, 0, 0, 0, 0])
    native.add_numbers(rows, sums, 1.0)
    assert sums[native.LABEL_M2] == pytest.approx(250.0, rel=1e-6)


def score_rows(scores, labels, weights):
    rows = np.zeros((len(scores), native.CLASS_COLUMNS))
    rows[:, native.SCORE], rows[:, native.LABEL], rows[:, native.WEIGHT] = scores, labels, weights
    return rows


def bin_of(score):
    histogram = np.zeros((2, native.AUC_BINS))
    native.add_scores(score_rows([score], [1.0], [2.5]), histogram)
    line, position = np.argwhere(histogram)[0]
    assert (line, histogram.sum()) == (1, 2.5)
    return position


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_score_bins_keep_the_order(one, other):
    low, high = sorted((one, other))
    assert bin_of(low) <= bin_of(high)


@settings(max_examples=300, deadline=None)
@given(st.floats(2**-21, 0.5, exclude_max=True), st.booleans())
def test_score_bins_are_as_narrow_as_promised(small, mirrored):
    farther = small * (1 + 1 / 127)
    low, high = (1 - farther, 1 - small) if mirrored else (small, farther)
    assert bin_of(low) != bin_of(high)


def test_score_bins_span_the_histogram():
    assert [bin_of(p) for p in (0.0, 1.0)] == [0, native.AUC_BINS - 1]
    assert bin_of(0.5) == native.AUC_BINS // 2 - 1
    assert bin_of(np.nextafter(0.5, 1)) >= native.AUC_BINS // 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=10), st.integers(1, 5))
def test_the_ring_holds_the_newest(sizes, size):
    rows = np.arange(2.0 * sum(sizes)).reshape(-1, 2)
    ring, n = np.full((size, 2), -1.0), 0
    for added in sizes:
        native.remember(rows[n : n + added], ring, n)
        n += added
    for i in range(max(0, n - size), n):
        np.testing.assert_array_equal(ring[i % size], rows[i])
    assert (ring == -1.0).all(axis=1).sum() == max(0, size - n)


@pytest.mark.parametrize(
    ("column", "bad", "what"),
    [
        (0, np.nan, native.BAD_PREDICTION),
        (0, 1.1, native.BAD_PREDICTION),
        (0, -0.1, native.BAD_PREDICTION),
        (1, np.nan, native.BAD_LABEL),
        (1, 0.5, native.BAD_LABEL),
        (1, -1.0, native.BAD_LABEL),
        (1, 2.0**60, native.BAD_LABEL),
        (2, np.nan, native.BAD_WEIGHT),
        (2, np.inf, native.BAD_WEIGHT),
        (2, -1.0, native.BAD_WEIGHT),
    ],
)
@pytest.mark.parametrize("multiclass", [False, True])
def test_the_first_unusable_event_is_named(column, bad, what, multiclass):
    data = np.ones((3, 5))
    data[column, 2] = data[column, 4] = bad
    predictions, labels, weights = data
    rows = np.empty((5, native.CLASS_COLUMNS))
    if multiclass:
        result = native.summarise_multiclass(predictions.reshape(-1, 1).copy(), labels, weights, -1.0, rows)
    else:
        result = native.summarise_binary(predictions, labels, weights, -1.0, rows)
    assert result == (2, 2, what)


def test_rows_and_sums_of_foreign_shape_are_refused():
    rows, sums = np.zeros((1, native.CLASS_COLUMNS)), np.zeros(native.CLASSES)
    ones = np.ones(2)
    for call in (
        lambda: native.summarise_binary(ones, ones, ones, -1.0, rows),
        lambda: native.summarise_binary(ones, ones[:1], ones[:1], -1.0, rows),
        lambda: native.summarise_multiclass(np.ones((2, 2)), ones[:1], ones[:1], -1.0, rows),
        lambda: native.summarise_numbers(ones[:1], ones[:1], ones[:1], rows),
        lambda: native.add_classified(rows[:, :3].copy(), sums, 1.0, False),
        lambda: native.add_classified(rows, sums[:-1], 1.0, False),
        lambda: native.add_numbers(rows, sums, 1.0),
        lambda: native.add_scores(rows, np.zeros((2, 7))),
        lambda: native.remember(rows, np.zeros((0, native.CLASS_COLUMNS)), 0),
        lambda: native.remember(rows, np.zeros((3, 2)), 0),
    ):
        with pytest.raises(ValueError, match=r"fit|those of"):
            call()


def test_rows_of_nonsense_stay_within_bounds():
    """A damaged checkpoint may hold anything; it must not write outside the sums."""
    rng = np.random.default_rng(0)
    nonsense = rng.choice([np.nan, np.inf, -np.inf, -5.0, 1e300, 3.7, 7.0], (500, native.CLASS_COLUMNS))
    padded = np.zeros(native.CLASSES + 6 + 200)
    sums = padded[100:-100]
    sums[native.SCALE] = 1.0
    native.add_classified(nonsense, sums, 1.0, True)
    histogram = np.zeros((2, native.AUC_BINS))
    native.add_scores(nonsense, histogram)
    assert not padded[:100].any()
    assert not padded[-100:].any()
