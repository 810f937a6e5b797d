"""The detectors that River does not have, or has otherwise, against slow and obvious ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.drift.cusum import CUSUM
from penstock.drift.ddm import DDM
from penstock.drift.e_detector import EDetector
from penstock.drift.kswin import KSWIN
from penstock.drift.stepd import STEPD
from penstock.errors import BadRecord, ConfigError, StoreError


def errors(seed, n=1500):
    rng = np.random.default_rng(seed)
    return (rng.random(n) < np.repeat(rng.choice([0.1, 0.3, 0.6, 0.9], 3), n // 3)).astype(float)


def numbers(seed, n=1500):
    rng = np.random.default_rng(seed)
    means, spreads = rng.normal(0, 2, 3), rng.uniform(0.5, 3, 3)
    return np.repeat(means, n // 3) + np.repeat(spreads, n // 3) * rng.normal(0, 1, n)


def all_alarms(detector, values):
    found = [(i, detector.update(values[i : i + 1])) for i in range(len(values))]
    return [(i, round(a.before, 9), round(a.after, 9), a.width) for i, a in found if a is not None]


def slow(values, rule):
    """Alarms of a rule that is shown everything since the last alarm, after each value."""
    found, start = [], 0
    for i in range(len(values)):
        alarm = rule(values[start : i + 1])
        if alarm is not None:
            before, after, width = alarm
            found.append((i, round(before, 9), round(after, 9), width))
            start = i + 1
    return found


def slow_stepd(alpha, recent):
    def rule(seen):
        new, old = seen[-recent:], seen[:-recent]
        if len(old) < recent:
            return None
        pooled, inverse = seen.mean(), 1 / len(old) + 1 / len(new)
        if not 0 < pooled < 1 or new.mean() <= old.mean():
            return None
        z = (new.mean() - old.mean() - inverse / 2) / math.sqrt(pooled * (1 - pooled) * inverse)
        return (old.mean(), new.mean(), recent) if 2 * stats.norm.sf(z) < alpha else None

    return rule


def slow_kswin(alpha, window, recent, clock):
    old = window - recent
    bound = math.sqrt(-math.log(alpha / 2) / 2 * (old + recent) / (old * recent))

    def rule(seen):
        if len(seen) < window or len(seen) % clock:
            return None
        last = seen[-window:]
        both = np.sort(last)
        shares = [
            np.searchsorted(np.sort(part), both, "right") / len(part) for part in (last[:old], last[old:])
        ]
        distance = np.abs(shares[0] - shares[1]).max()
        return (last[:old].mean(), last[old:].mean(), recent) if distance > bound else None

    return rule


def slow_cusum(threshold, slack, warm_up):
    def rule(seen):
        up = down = 0.0
        for i, x in enumerate(seen):
            z = 0.0
            if i >= warm_up:
                z = (x - seen[:i].mean()) / (seen[:i].std(ddof=1) * math.sqrt(1 + 1 / i))
            up, down = max(up + z - slack, 0.0), max(down - z - slack, 0.0)
        return (0, 0, 0) if max(up, down) > threshold else None

    return rule


def slow_e(threshold, mean, cusum):
    bets = np.geomspace(0.02, 0.9, 12) / mean

    def rule(seen):
        log_e = np.full(12, -np.inf)
        for x in seen:
            log_e = (np.maximum(log_e, 0) if cusum else np.logaddexp(log_e, 0)) + np.log1p(bets * (x - mean))
        return (0, 0, 0) if np.logaddexp.reduce(log_e) - math.log(12) >= math.log(threshold) else None

    return rule


def places(found):
    return [i for i, *_ in found]


@pytest.mark.parametrize("seed", range(4))
def test_stepd(seed):
    values = errors(seed)
    found = all_alarms(STEPD(alpha=0.003, recent=30), values)
    assert found == slow(values, slow_stepd(0.003, 30))
    assert found or seed in (1, 2)  # whose changes are too small


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [errors, numbers])
def test_kswin(seed, make):
    values = make(seed, 900)
    found = places(all_alarms(KSWIN(alpha=0.05, window=60, recent=20, clock=2), values))
    assert found == places(slow(values, slow_kswin(0.05, 60, 20, 2)))
    assert found or seed == 2  # whose changes are too small


def test_kswins_distance_is_that_of_scipy():
    values = numbers(1, 300)[50:150]
    distance = stats.ks_2samp(values[:70], values[70:]).statistic
    for factor, rings in ((0.99, True), (1.01, False)):
        alpha = 2 * math.exp(-2 * (factor * distance) ** 2 * 70 * 30 / 100)
        assert (KSWIN(alpha=min(alpha, 0.999), clock=1).update(values) is not None) == rings


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1e99]), max_size=80),
    st.integers(2, 12),
    st.integers(1, 11),
    st.integers(1, 3),
    st.lists(st.integers(0, 80), max_size=4),
)
def test_kswin_with_ties_and_saved_anywhere(values, window, recent, clock, saved):
    recent = min(recent, window - 1)
    detector = KSWIN(alpha=0.5, window=window, recent=recent, clock=clock)
    found = []
    for i, value in enumerate(values):
        if i in saved:
            state = detector.state()
            detector = KSWIN(alpha=0.5, window=window, recent=recent, clock=clock)
            detector.restore(state)
        if detector.update(np.array([value])) is not None:
            found.append(i)
    assert found == places(slow(np.array(values), slow_kswin(0.5, window, recent, clock)))


@pytest.mark.parametrize("seed", range(3))
def test_cusum_that_starts_itself(seed):
    values = numbers(seed, 240)
    found = places(all_alarms(CUSUM(threshold=4, slack=0.3, warm_up=20), values))
    assert found == places(slow(values, slow_cusum(4, 0.3, 20)))
    assert found


def test_cusum_of_known_mean_and_deviation():
    values = 10 + 2 * np.repeat([0.0, 1.0], 50)
    found = CUSUM(threshold=7.4, slack=0.25, mean=10, sd=2).update(values)
    assert (found.index, found.before, found.after, found.width) == (59, 10.0, 12.0, 10)  # 0.75 a value
    assert CUSUM(threshold=7.4, slack=0.25, mean=10, sd=2, direction="down").update(values) is None


def test_cusum_sees_a_constant_change():
    assert CUSUM().update(np.repeat([3.0, 3.1], [500, 100])).index < 520


@pytest.mark.parametrize("form", ["sr", "cusum"])
def test_e_detector_is_the_mixture_in_logarithms(form):
    values = errors(5, 240)
    found = places(all_alarms(EDetector(threshold=50, mean=0.35, form=form), values))
    assert found == places(slow(values, slow_e(50, 0.35, form == "cusum")))
    assert found


def test_e_detector_learns_a_bound_and_is_silent_meanwhile():
    calm = errors(0, 900)[:300]
    found = EDetector(threshold=1000, reference=300, risk=0.05).update(np.concatenate((calm, np.ones(300))))
    log_risk = math.log(2 / 0.05)
    bound = calm.mean() + math.sqrt(2 * calm.var(ddof=1) * log_risk / 300) + 7 * log_risk / (3 * 299)
    assert found.index == 300 + EDetector(threshold=1000, mean=bound).update(np.ones(300)).index


def test_what_averages_over_everything_starts_afresh_in_time():
    values = np.concatenate((np.tile([0.0, 0.0, 0.0, 1.0], 5000), np.tile([0.0, 1.0], 3000)))
    deaf, fresh = DDM(threshold=10, longest=None), DDM(threshold=10, longest=19_000)
    assert fresh.update(values).index < deaf.update(values).index


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CUSUM(mean=1.0), "mean and sd: expected both or neither"),
        (lambda: CUSUM(threshold=math.nan), "threshold: expected a number"),
        (lambda: KSWIN(window=30, recent=30), "recent: expected less than the window of 30, got 30"),
        (lambda: STEPD(alpha=0), "alpha: expected a number"),
        (lambda: STEPD(direction="sideways"), "direction: expected 'both', 'up' or 'down', got 'sideways'"),
        (lambda: EDetector(form="x"), "form: expected 'sr' or 'cusum'"),
        (lambda: EDetector(mean=1.5), "mean: expected a number"),
        (lambda: DDM(longest=0), "longest: expected an integer of at least 1, got 0"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_loss_out_of_bounds_is_refused():
    with pytest.raises(BadRecord, match=r"a number in \[0, 1\], got 1.5 - at `values\[1\]`"):
        DDM().update(np.array([0.5, 1.5]))


@pytest.mark.parametrize("value", [math.nan, -1.0, 0.5, 2.0**60])
def test_a_memory_that_no_stream_leads_to_is_refused(value):
    state = KSWIN().state()
    state["memory"][1] = value
    with pytest.raises(StoreError):
        KSWIN().restore(state)
