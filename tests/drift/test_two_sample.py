"""A bet that new events cannot be told from old ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.drift.two_sample import TwoSample, _coins
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch, Task
from penstock.learners.sgd import SGD
from penstock.state import digest

SMALL = {"false_alarm_every": 5000, "reference": 600, "bits": 10}


def rows(n, seed=0, *, moves=0.0, spread=1.0, country=("SE", "NO")):
    rng = np.random.default_rng(seed)
    return [
        {"calm": calm, "user": {"age": age, "country": str(where)}}
        for calm, age, where in zip(
            rng.normal(size=n).tolist(),
            rng.normal(moves, spread, n).tolist(),
            rng.choice(country, n).tolist(),
            strict=True,
        )
    ]


def alarms(detector, batch, size):
    found = []
    for start in range(0, len(batch), size):
        change = detector.update(batch.slice(start, start + size))
        if change is not None:
            found.append((start + change.index, change.statistic, change.shifts))
    return found


def slow_twin(batch, *, every, reference, bits, seed=0):
    """The bet, one event after the other; returns the stakes after each event."""
    learner = SGD(Task("binary"), bits=bits, learning_rate=0.3, half_life=1000.0)
    waiting = [batch.rows[i] for i in range(reference)]
    evidence, found = 0.0, []
    for i, row in enumerate(batch.rows[reference:]):
        is_new = bool(_coins(seed, i, 1)[0])
        shown = row
        if not is_new:
            shown = waiting.pop(0)
            waiting.append(row)
        says = learner.progress_one(shown, float(is_new))
        share = 0.5 + 0.95 * ((says if is_new else 1 - says) - 0.5)
        evidence = (evidence + 1) * 2 * share
        found.append(evidence)
        if evidence >= every:
            break
    return found


def test_stakes_are_those_of_the_slow_twin():
    batch = Batch.from_rows(rows(1500) + rows(1000, 1, moves=1.0))
    detector = TwoSample(**SMALL)
    twin = slow_twin(batch, every=5000, reference=600, bits=10)
    stakes = []
    for i in range(600 + len(twin)):
        change = detector.update(batch.slice(i, i + 1))
        if i >= 600:
            stakes.append(detector.evidence if change is None else change.statistic)
    np.testing.assert_allclose(stakes, twin, rtol=1e-12)
    assert change is not None
    assert 1500 < i < 2500


def test_an_event_is_shown_at_most_once():
    """With one feature an event, its own name: a classifier that met one again would know it."""
    batch = Batch.from_rows([{f"event {i}": 1.0} for i in range(8000)])
    detector = TwoSample(false_alarm_every=100_000, reference=600, bits=22)
    assert alarms(detector, batch, 500) == []


@pytest.mark.parametrize(
    ("change", "feature"), [({"moves": 0.8}, "user.age"), ({"country": ("SE",)}, "user.country=")]
)
def test_finds_and_names_what_changed(change, feature):
    clearest = []
    for seed in range(10):
        batch = Batch.from_rows(rows(2000, seed) + rows(1000, seed + 100, **change))
        found = alarms(TwoSample(**SMALL), batch, 100)
        event, statistic, shifts = found[-1]  # there may have been a false one before
        assert 2000 < event < 2800
        assert statistic >= 5000.0
        clearest.append(shifts[0].feature)
    assert sum(name.startswith(feature) for name in clearest) >= 8


def test_categories_nobody_knows_are_called_by_their_hash():
    batch = Batch.from_rows(rows(2000) + rows(1000, 1, country=("XX",)))
    named = [shift.feature for shift in TwoSample(**SMALL).update(batch).shifts]
    assert any(name.startswith("(a feature of hash ") for name in named)


def test_evidence_is_the_difference_of_averages():
    batch = Batch.from_rows(
        [{"x": float(i % 7)} for i in range(1500)] + [{"x": 10.0 + i % 7} for i in range(500)]
    )
    change = TwoSample(**SMALL).update(batch)
    (shift,) = change.shifts
    newest = [row["x"] for row in batch.rows[change.index - 249 : change.index + 1]]
    assert shift.after == pytest.approx(np.mean(newest))
    assert shift.before == pytest.approx(3.0, abs=0.3)
    assert (shift.feature, shift.where, shift.test, shift.psi) == ("x", "on average", "z", None)


def test_a_spread_is_seen_through_products():
    batch = Batch.from_rows(rows(3000) + rows(3000, 1, spread=2.0))
    assert TwoSample(**SMALL, interactions=[["*", "*"]]).update(batch).index > 3000


def test_coins_are_fair_and_each_depends_on_its_number_only():
    coins = _coins(3, 0, 100_000)
    assert np.array_equal(coins[500:900], _coins(3, 500, 400))
    assert abs(coins.mean() - 0.5) < 0.006
    for lag in (1, 2, 3, 17):
        assert abs(np.corrcoef(coins[:-lag], coins[lag:])[0, 1]) < 0.012
    assert abs(np.corrcoef(coins, _coins(4, 0, 100_000))[0, 1]) < 0.012


@pytest.mark.parametrize("size", [1, 7, 256])
def test_where_the_stream_is_cut_changes_nothing(size):
    batch = Batch.from_rows(rows(1500) + rows(1700, 1, moves=1.5) + rows(600, 2, moves=-1.0))
    whole, split = TwoSample(**SMALL), TwoSample(**SMALL)
    found = alarms(split, batch, size)
    assert len(found) >= 2
    first = whole.update(batch)
    assert (first.index, first.statistic, first.shifts) == found[0]
    assert digest(whole.state()) == digest(split.state())


@pytest.mark.parametrize("at", [0, 1, 599, 600, 601, 1400, 2400])
def test_state_goes_on_as_if_nothing_had_happened(at):
    batch = Batch.from_rows(rows(1500) + rows(1000, 1, moves=1.5))
    steady, first, resumed = (TwoSample(**SMALL) for _ in range(3))
    steady.update(batch.slice(0, at))
    first.update(batch.slice(0, at))
    saved = first.state()
    kept = digest(saved)
    resumed.restore(saved)
    first.update(batch.slice(at, 2500))
    assert digest(saved) == kept
    assert digest(resumed.state()) == kept
    assert resumed.update(batch.slice(at, 2500)) == steady.update(batch.slice(at, 2500))
    assert digest(resumed.state()) == digest(steady.state())


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_waiting": "x"},
        {"n_waiting": 3},
        {"n_coins": -1},
        {"evidence": float("nan")},
        {"evidence": 1e9},
        {"vocabulary": 1},
        {"waiting/indptr": np.array([0, 5])},
        {"waiting/values": np.zeros(1)},
        {"recent/indices": np.zeros(1)},
        {"classifier/weights": None},
    ],
)
def test_another_state_is_refused_and_changes_nothing(wrong):
    detector = TwoSample(**SMALL)
    detector.update(Batch.from_rows(rows(900)))
    before = detector.state()
    broken = {**before, **wrong}
    if "classifier/weights" in wrong:
        broken = {name: value for name, value in before.items() if not name.startswith("classifier/")}
    with pytest.raises(StoreError):
        detector.restore(broken)
    assert digest(detector.state()) == digest(before)


def test_the_state_is_bounded():
    detector = TwoSample(**SMALL)

    def size():
        return sum(
            len(v) if isinstance(v, str) else getattr(v, "nbytes", 8) for v in detector.state().values()
        )

    detector.update(Batch.from_rows(rows(1000)))
    once = size()
    for seed in range(10):
        detector.update(Batch.from_rows(rows(1000, seed)))
        assert size() < 1.2 * once


@pytest.mark.parametrize(
    "parameters",
    [{"false_alarm_every": 1}, {"reference": 1}, {"learning_rate": 0.0}, {"bits": 0}, {"half_life": 0.0}],
)
def test_senseless_parameters_are_refused(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        TwoSample(**parameters)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.one_of(st.none(), st.booleans(), st.floats(-1e18, 1e18), st.text(max_size=3)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_takes_whatever_an_event_can_be(some):
    detector, resumed = (TwoSample(false_alarm_every=200, reference=100, bits=8) for _ in range(2))
    detector.update(Batch.from_rows((some * 400)[:400]))
    resumed.restore(detector.state())
    assert digest(resumed.state()) == digest(detector.state())


def _false_alarms(every, n_events, seed):
    detector = TwoSample(**{**SMALL, "false_alarm_every": every, "seed": seed})
    parts = (Batch.from_rows(rows(1000, seed * 10_000 + part)) for part in itertools.count())
    return sum(len(alarms(detector, part, 100)) for part in itertools.islice(parts, n_events // 1000))


def test_rings_falsely_no_more_often_than_is_wanted():
    n_alarms = sum(_false_alarms(2000, 20_000, seed) for seed in range(5))
    assert n_alarms <= stats.poisson.ppf(0.999, 100_000 / 2000)


@pytest.mark.statistics
@pytest.mark.parametrize("every", [2_000, 10_000])
def test_run_length_is_at_least_what_is_wanted(every):
    n_events = 10 * every
    n_alarms = sum(_false_alarms(every, n_events, seed) for seed in range(600_000 // n_events))
    assert 0 < n_alarms <= stats.poisson.ppf(0.99, 600_000 / every)
