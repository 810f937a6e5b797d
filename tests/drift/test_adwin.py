import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import drift

from penstock.drift.adwin import ADWIN
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.state import digest

N = 2400


def bernoulli(rng, n=N):
    return (rng.random(n) < np.repeat(rng.choice([0.1, 0.2, 0.5, 0.7], 4), n // 4)).astype(float)


def uniform(rng, n=N):
    return rng.random(n)


def steps(rng, n=N):
    return np.repeat(rng.normal(0, 2, 6), n // 6) + rng.normal(0, 1, n)


def ramp(rng, n=N):
    return np.linspace(0, rng.uniform(0.5, 3), n) + rng.normal(0, 0.5, n)


def correlated(rng, n=N):
    values, noise = np.zeros(n), rng.normal(0, 1, n)
    for i in range(1, n):
        values[i] = 0.9 * values[i - 1] + noise[i]
    return values


def far_from_zero(rng, n=N):
    return 1e9 + np.repeat(rng.normal(0, 5, 4), n // 4) + rng.normal(0, 1, n)


def bursts(rng, n=N):
    return np.where(rng.random(n) < 0.01, rng.pareto(1.5, n) * 10, rng.random(n))


KINDS = [bernoulli, uniform, steps, ramp, correlated, far_from_zero, bursts]


def assert_alike(values, parameters):
    """Alarm for alarm, and after every value the same window, to the bit."""
    names = {"min_window": "min_window_length", "grace": "grace_period"}
    peer = drift.ADWIN(**{names.get(name, name): value for name, value in parameters.items()})
    ours = ADWIN(**parameters)
    n_alarms = 0
    for i in range(len(values)):
        peer.update(float(values[i]))
        alarm = ours.update(values[i : i + 1])
        assert (alarm is not None) == peer.drift_detected, i
        assert ours.width == peer.width, i
        assert ours.estimation == peer.estimation, i
        n_alarms += alarm is not None
    return n_alarms


@pytest.mark.parametrize("kind", KINDS)
def test_is_rivers_adwin_on_twenty_streams_of_each_kind(kind):
    n_alarms = [assert_alike(kind(np.random.default_rng(seed)), {}) for seed in range(20)]
    if kind in (bernoulli, steps, correlated, far_from_zero):
        assert sum(n_alarms) >= 10  # the streams are worth comparing


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
    delta=st.floats(1e-6, 0.5),
    clock=st.integers(1, 70),
    max_buckets=st.integers(2, 12),
    min_window=st.integers(1, 60),
    grace=st.integers(0, 200),
)
def test_is_rivers_adwin_with_any_parameters(seed, kind, delta, clock, max_buckets, min_window, grace):
    values = kind(np.random.default_rng(seed), 600)
    parameters = {"delta": delta, "clock": clock, "max_buckets": max_buckets}
    assert_alike(values, {**parameters, "min_window": min_window, "grace": grace})


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 300), elements=st.floats(-1e100, 1e100)))
def test_is_rivers_adwin_on_any_numbers(values):
    assert_alike(values, {"clock": 3})


def test_a_window_without_a_change_has_everything():
    values = np.random.default_rng(0).random(100_000)
    detector = ADWIN()
    assert detector.update(values) is None
    assert detector.width == len(values)
    assert detector.estimation == pytest.approx(values.mean(), rel=1e-12)


def test_the_evidence_is_the_two_sides_of_the_window():
    values = np.concatenate((np.zeros(1000), np.ones(1000)))
    alarm = ADWIN().update(values)
    kept = values[alarm.index + 1 - alarm.width : alarm.index + 1]
    dropped = values[: alarm.index + 1 - alarm.width]
    assert alarm.after == kept.mean()
    assert alarm.before == dropped.mean()


def test_a_change_for_the_better_rings_only_where_both_directions_count():
    falling = np.random.default_rng(1).random(4000) < np.repeat([0.5, 0.2], 2000)
    rising = np.random.default_rng(1).random(4000) < np.repeat([0.2, 0.5], 2000)
    assert ADWIN(direction="both").update(falling) is not None
    assert ADWIN(direction="up").update(rising) == ADWIN(direction="both").update(rising)
    up = ADWIN(direction="up")
    assert up.update(falling) is None
    assert up.width < 2500  # what came before the change has left the window all the same
    assert up.estimation == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"delta": 0.0}, "delta: expected a number in (0, 1), got 0.0"),
        ({"delta": float("nan")}, "delta: expected a number in (0, 1), got nan"),
        ({"clock": 0}, "clock: expected an integer of at least 1, got 0"),
        ({"clock": 2.5}, "clock: expected an integer of at least 1, got 2.5"),
        ({"max_buckets": 1}, "max_buckets: expected an integer of at least 2, got 1"),
        ({"min_window": 0}, "min_window: expected an integer of at least 1, got 0"),
        ({"grace": -1}, "grace: expected an integer of at least 0, got -1"),
        ({"direction": "down"}, "direction: expected 'both' or 'up', got 'down'"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ConfigError) as error:
        ADWIN(**parameters)
    assert str(error.value) == message


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e101])
def test_a_bad_value_is_named(bad):
    with pytest.raises(BadRecord) as error:
        ADWIN().update(np.array([0.0, 1.0, bad]))
    assert (
        str(error.value)
        == f"expected a finite number of magnitude at most 1e+100, got {bad!r} - at `values[2]`"
    )


def test_values_must_be_a_column():
    with pytest.raises(BadRecord, match=r"shape"):
        ADWIN().update(np.zeros((2, 2)))


def spoiled(name, change):
    detector = ADWIN()
    detector.update(np.random.default_rng(0).random(500))
    state = copy.deepcopy(detector.state())
    state[name] = change(state[name])
    return state


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("totals", lambda a: a[:, :-1]),
        ("totals", lambda a: a * np.nan),
        ("m2", lambda a: a.astype(np.float32)),
        ("counts", lambda a: a + 10),
        ("counts", lambda a: -a),
        ("counts", lambda a: np.full_like(a, 5)),  # a window wider than any stream
        ("sums", lambda a: None),
        ("clocks", lambda a: np.add(a, [1, 0, 0])),
        ("clocks", lambda a: np.add(a, [0, -400, 0])),
        ("clocks", lambda a: np.add(a, [0, 0, 7])),
    ],
)
def test_a_spoiled_state_is_refused(name, change):
    detector = ADWIN()
    before = digest(detector.state())
    with pytest.raises(StoreError, match=r"ADWIN state"):
        detector.restore(spoiled(name, change))
    assert digest(detector.state()) == before
