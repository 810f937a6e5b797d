"""Tests of every feature against a reference window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock._native import inputs as native
from penstock.drift.features import Features, rejected
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch
from penstock.state import digest

SMALL = {"false_alarm_every": 20_000, "reference": 400, "window": 200, "clock": 100}
START = 100 + 400  # vocabulary and reference
COUNTRIES = np.array(["SE", "NO", "DK"])


def rows(n, seed=0, *, moves=0.0, spread=1.0, shares=(0.5, 0.3, 0.2), share=0.3):
    rng = np.random.default_rng(seed)
    columns = (
        rng.normal(size=n),
        rng.normal(moves, spread, n),
        rng.choice(COUNTRIES, n, p=shares),
        rng.random(n) < share,
        rng.integers(0, 4, n),
    )
    return [
        {"calm": calm, "user": {"age": age, "country": country}, "new": new, "kids": kids}
        for calm, age, country, new, kids in zip(*(column.tolist() for column in columns), strict=True)
    ]


def alarms(detector, batch, size):
    found = []
    for start in range(0, len(batch), size):
        change = detector.update(batch.slice(start, start + size))
        if change is not None:
            found.append((start + change.index, change.shifts))
    return found


def counted(before, after, *, discrete, grid=None):
    """Codes of two samples of one column, through the kernels."""
    grid = np.unique(before).astype(float) if grid is None else np.array(grid, float)
    starts = np.array([0, len(grid)])
    code_starts = np.array([0, 1 + len(grid) * (1 if discrete else 2)])
    flags = np.array([discrete], np.uint8)
    counts = []
    for sample in (before, after):
        codes = np.empty((len(sample), 1), np.uint16)
        native.encode(np.array(sample, float)[:, None], grid, starts, flags, codes)
        counts.append(np.empty(code_starts[-1], np.int64))
        native.count(codes, code_starts, counts[-1])
    return counts, code_starts, flags


def compared(before, after, *, discrete, least=1, grid=None):
    counts, code_starts, flags = counted(before, after, discrete=discrete, grid=grid)
    statistic, freedom = np.empty(1), np.empty(1)
    native.compare(*counts, code_starts, flags, least, statistic, freedom)
    return statistic[0], freedom[0]


@pytest.mark.parametrize("seed", range(20))
def test_distance_is_that_of_kolmogorov_and_smirnov(seed):
    rng = np.random.default_rng(seed)
    decimals = seed % 4  # few of them: ties, within a sample and across
    before, after = rng.normal(size=300).round(decimals), rng.normal(0.2, 1.3, 170).round(decimals)
    statistic, _ = compared(before, after, discrete=False)
    assert statistic == pytest.approx(stats.ks_2samp(before, after).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_g_is_that_of_a_contingency_table(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.choice(5, 500, p=[0.4, 0.3, 0.2, 0.09, 0.01]), rng.integers(0, 5, 200)
    table = [np.bincount(sample, minlength=5) for sample in (before, after)]
    oracle = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    statistic, freedom = compared(before, after, discrete=True, grid=range(5))
    assert (statistic, freedom) == (pytest.approx(oracle.statistic, rel=1e-12), oracle.dof)


def test_rare_cells_are_merged_with_the_smallest_other():
    before = [0] * 50 + [1] * 30 + [2] * 3 + [3] * 2
    after = (
        [0] * 25 + [1] * 15 + [2] * 1 + [4] * 2
    )  # 4 was never seen: it is "other", like 2 and 3 when merged
    oracle = stats.chi2_contingency([[50, 35], [25, 18]], correction=False, lambda_="log-likelihood")
    statistic, freedom = compared(before, after, discrete=True, least=15)
    assert (statistic, freedom) == (pytest.approx(oracle.statistic), 1)


def test_p_values_are_those_of_scipy():
    batch = Batch.from_rows(rows(START) + rows(200, 1, moves=1.0, shares=(0.2, 0.3, 0.5)))
    shifts = {shift.feature: shift for shift in Features(**SMALL).update(batch).shifts}
    before, after = batch.rows[100:START], batch.rows[START:]
    ages = [[row["user"]["age"] for row in part] for part in (before, after)]
    oracle = stats.ks_2samp(*ages, method="asymp")
    age = shifts["user.age"]
    assert (age.test, age.statistic) == ("ks", pytest.approx(oracle.statistic))
    assert np.log(age.p_value) == pytest.approx(np.log(oracle.pvalue), rel=0.05)
    threshold = float(age.where.removeprefix("<= "))
    assert age.before == pytest.approx(np.mean(np.array(ages[0]) <= threshold + 1e-5), abs=0.01)
    assert age.after == pytest.approx(np.mean(np.array(ages[1]) <= threshold + 1e-5), abs=0.01)
    table = [
        [[row["user"]["country"] for row in part].count(c) for c in COUNTRIES] for part in (before, after)
    ]
    oracle = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    country = shifts["user.country"]
    assert (country.test, country.statistic) == ("g", pytest.approx(oracle.statistic))
    assert country.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    assert country.where in ("= 'SE'", "= 'DK'")
    assert set(shifts) == {"user.age", "user.country"}


def test_population_stability_index_of_categories():
    batch = Batch.from_rows(rows(START) + rows(200, 1, shares=(0.2, 0.3, 0.5)))
    (shift,) = Features(**SMALL).update(batch).shifts
    shares = []
    for part in (batch.rows[100:START], batch.rows[START:]):
        counts = np.array([[row["user"]["country"] for row in part].count(c) for c in COUNTRIES]) + 0.5
        shares.append(counts / counts.sum())
    assert shift.psi == pytest.approx(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    assert shift.psi_by_chance == pytest.approx(2 * (1 / 400 + 1 / 200))


def test_population_stability_index_of_numbers_is_small_by_chance():
    indices = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        detector = Features(**SMALL)
        detector.update(Batch.from_rows([{"x": x} for x in rng.normal(size=START + 150).tolist()]))
        after = np.empty_like(detector._before)
        rest = Batch.from_rows([{"x": x} for x in rng.normal(size=50).tolist()])
        detector.update(rest)
        if detector._n == 0:
            continue
        native.count(detector._window, detector._code_starts, after)
        shift = detector._shift(0, after, 0.0, 1.0)
        indices.append(shift.psi)
    assert np.mean(indices) == pytest.approx(shift.psi_by_chance, rel=0.1)


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"moves": 1.0}, "user.age"),
        ({"spread": 3.0}, "user.age"),
        ({"shares": (0.2, 0.3, 0.5)}, "user.country"),
        ({"share": 0.6}, "new"),
    ],
)
def test_finds_and_names_what_changed(change, feature):
    for seed in range(5):
        batch = Batch.from_rows(rows(START + 1000, seed) + rows(400, seed + 100, **change))
        found = alarms(Features(**SMALL), batch, 100)
        event, shifts = found[-1]  # there may have been a false one before
        assert START + 1000 <= event < START + 1300
        assert shifts[0].feature == feature


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"calm": None}, "calm"),  # gone
        ({"user": {"age": 0.5, "country": "XX"}}, "user.country"),  # a category nobody knows
        ({"later": 1.0}, "(features not watched)"),  # a feature nobody knows
    ],
)
def test_what_goes_and_what_comes_is_seen(changed, named):
    later = [{**row, **changed} for row in rows(300, 1)]
    change = Features(**SMALL).update(Batch.from_rows(rows(START + 300) + later))
    assert change.index >= START + 300
    assert named in [shift.feature for shift in change.shifts]


def test_rare_categories_are_not_taken_for_a_change():
    """Identifiers, nearly all of them new: what was frequent by luck would be rarer afterwards."""
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.3, 40_000), 10**6).tolist()
    batch = Batch.from_rows([{"id": f"u{i}", "country": "SE"} for i in ids])
    assert len(alarms(Features(**{**SMALL, "false_alarm_every": 20_000}), batch, 1000)) <= 5


def test_the_most_frequent_features_are_watched():
    batch = Batch.from_rows(
        [{**({"often": 1.5 + i} if i % 3 else {}), "always": float(i), "tag": f"t{i}"} for i in range(START)]
    )
    detector = Features(**SMALL, max_features=1)
    detector.update(batch)
    assert [column.name for column in detector._columns] == ["always", "(features not watched)"]


def test_starts_afresh_after_an_alarm():
    detector = Features(**SMALL)
    change = detector.update(Batch.from_rows(rows(START + 300) + rows(200, 1, moves=2.0)))
    assert change is not None
    after = START + 500 - 1 - change.index
    assert detector.state()["n"] == after
    assert alarms(detector, Batch.from_rows(rows(2000, 2, moves=2.0)), 100) == []


@pytest.mark.parametrize("size", [1, 7, 256])
def test_where_the_stream_is_cut_changes_nothing(size):
    batch = Batch.from_rows(rows(1000) + rows(1200, 1, moves=1.0) + rows(800, 2, share=0.9))
    whole, split = Features(**SMALL), Features(**SMALL)
    found = alarms(split, batch, size)
    assert len(found) >= 2
    first = whole.update(batch)
    assert (first.index, first.shifts) == found[0]
    assert digest(whole.state()) == digest(split.state())


@pytest.mark.parametrize("at", [0, 1, 99, 100, 300, START, START + 50, START + 250, 1150])
def test_state_goes_on_as_if_nothing_had_happened(at):
    batch = Batch.from_rows(rows(1000) + rows(1000, 1, moves=1.0))
    steady, first, resumed = (Features(**SMALL) for _ in range(3))
    steady.update(batch.slice(0, at))
    first.update(batch.slice(0, at))
    saved = first.state()
    kept = digest(saved)
    resumed.restore(saved)
    first.update(batch.slice(at, 2000))
    assert digest(saved) == kept
    assert digest(resumed.state()) == kept
    assert resumed.update(batch.slice(at, 2000)) == steady.update(batch.slice(at, 2000))
    assert digest(resumed.state()) == digest(steady.state())


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": "x"},
        {"n": -1},
        {"vocabulary": "{"},
        {"vocabulary": "[1, [[1]]]"},
        {"reference": np.zeros((2, 2))},
        {"window": np.zeros((200, 6))},
        {"window": np.full((200, 6), 9999, np.uint16)},
    ],
)
def test_another_state_is_refused_and_changes_nothing(wrong):
    detector = Features(**SMALL)
    detector.update(Batch.from_rows(rows(START + 50)))
    before = detector.state()
    with pytest.raises(StoreError):
        detector.restore({**before, **wrong})
    assert digest(detector.state()) == digest(before)


def test_the_state_is_bounded():
    detector = Features(**SMALL, max_features=10)

    def size():
        return sum(
            len(v) if isinstance(v, str) else getattr(v, "nbytes", 8) for v in detector.state().values()
        )

    rng = np.random.default_rng(0)
    sizes = []
    for part in range(10):
        batch = Batch.from_rows(
            [{f"f{part}_{i}_{j}": float(rng.normal()) for j in range(20)} for i in range(300)]
        )
        detector.update(batch)
        sizes.append(size())
    assert max(sizes) < 400 * 11 * 8 + 200 * 11 * 2 + 100 * 20 * 120


@pytest.mark.parametrize(
    "parameters",
    [
        {"false_alarm_every": 10},
        {"reference": 10},
        {"reference": 100_000},
        {"window": 1},
        {"clock": 0},
        {"clock": 60_000},
        {"max_features": 0},
    ],
)
def test_senseless_parameters_are_refused(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        Features(**parameters)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(-1e18, 1e18),
    st.text(max_size=3),
    st.lists(st.one_of(st.none(), st.floats(-1, 1), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.floats(-1, 1), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "c", "", "[x"]), VALUES, max_size=4),
        min_size=1,
        max_size=30,
    )
)
def test_takes_whatever_an_event_can_be(some):
    detector = Features(false_alarm_every=1000, reference=200, window=50, clock=10)
    batch = Batch.from_rows((some * 400)[:400])
    detector.update(batch)
    resumed = Features(false_alarm_every=1000, reference=200, window=50, clock=10)
    resumed.restore(detector.state())
    assert digest(resumed.state()) == digest(detector.state())


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.5))
def test_rejects_as_benjamini_and_hochberg(p_values, level):
    adjusted = stats.false_discovery_control(p_values) if p_values else np.empty(0)
    found = rejected(np.array(p_values), level)
    clear = set(np.flatnonzero(adjusted < level * (1 - 1e-9)))
    assert clear <= set(found.tolist()) <= set(np.flatnonzero(adjusted <= level * (1 + 1e-9)))


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (
            native.record,
            (
                np.array([0, 5]),
                np.zeros(1, np.uint32),
                np.zeros(1),
                np.zeros(2, np.uint32),
                np.full(2, -1, np.int32),
                np.zeros(2),
                np.zeros((1, 1)),
            ),
        ),
        (
            native.encode,
            (
                np.zeros((1, 1)),
                np.zeros(1),
                np.array([0, 2]),
                np.zeros(1, np.uint8),
                np.zeros((1, 1), np.uint16),
            ),
        ),
        (native.count, (np.full((1, 1), 7, np.uint16), np.array([0, 3]), np.zeros(3, np.int64))),
        (
            native.compare,
            (
                np.zeros(3, np.int64),
                np.zeros(3, np.int64),
                np.array([0, 4]),
                np.zeros(1, np.uint8),
                1,
                np.zeros(1),
                np.zeros(1),
            ),
        ),
        (
            native.fill,
            (
                np.zeros(2, np.uint32),
                np.zeros(2, np.int32),
                np.zeros(2),
                np.zeros(2, np.uint32),
                np.zeros(2, np.int32),
                np.zeros(2),
            ),
        ),
    ],
)
def test_kernels_read_nothing_out_of_bounds(kernel, arguments):
    with pytest.raises(ValueError, match=r"."):
        kernel(*arguments)


def _run_length(every, streams, **parameters):
    rng = np.random.default_rng(5)
    n_alarms = n_events = 0
    for _ in range(streams):
        detector = Features(false_alarm_every=every, **parameters)
        for _ in range(10 * every // 1000):
            batch = Batch.from_rows(rows(1000, int(rng.integers(2**31))))
            n_alarms += len(alarms(detector, batch, parameters["clock"]))
            n_events += 1000
    return n_events, n_alarms


def test_rings_falsely_about_as_often_as_is_wanted():
    n_events, n_alarms = _run_length(2000, 3, reference=400, window=200, clock=100)
    low, high = stats.poisson.ppf([0.001, 0.999], n_events / 2000)
    assert low <= n_alarms <= high


@pytest.mark.statistics
@pytest.mark.parametrize("every", [5_000, 20_000])
def test_run_length_is_within_a_factor_of_two_of_what_is_wanted(every):
    # The alarms of streams 10 run lengths long; the stretch before the first test is a part of each run.
    n_events, n_alarms = _run_length(every, 400_000 // (10 * every) * 4, reference=400, window=200, clock=100)
    assert every / 1.4 < n_events / n_alarms < 1.4 * every
