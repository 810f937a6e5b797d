"""Sequential tests keep their promise on streams that try to break it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gate import ChangeGate, Fading, Gate
from penstock.state import digest

GAINS = st.lists(st.floats(-1.0, 1.0), max_size=60)


def log_e(gains, delta):
    """Section 5.2 of Waudby-Smith and Ramdas' mixture, written as it stands there: sums of logarithms."""
    bets = np.geomspace(0.002, 0.5 / (1 + abs(delta)), 16)
    logs = np.log1p(np.outer(np.asarray(gains) - delta, bets)).cumsum(axis=0)
    return np.logaddexp.reduce(logs, axis=1) - math.log(16)


@given(GAINS.filter(bool), st.floats(-0.3, 0.3))
def test_gate_matches_its_twin(gains, delta):
    gate = Gate(delta=delta)
    gate.update(np.array(gains))
    assert gate.log_e == pytest.approx(log_e(gains, delta)[-1], abs=1e-9)
    assert gate.mean_gain == pytest.approx(np.mean(gains), abs=1e-12)


@given(GAINS, st.lists(st.integers(0, 60), max_size=5))
def test_gate_does_not_see_where_the_stream_is_cut(gains, cuts):
    whole, pieces = Gate(delta=0.01), Gate(delta=0.01)
    whole.update(np.array(gains))
    for part in np.split(np.array(gains), sorted(min(cut, len(gains)) for cut in cuts)):
        pieces.update(part)
    assert digest(pieces.state()) == digest(whole.state())


def test_gate_survives_a_stream_that_would_overflow():
    gate = Gate(delta=0.0)
    gate.update(np.ones(200_000))
    assert 80_000 < gate.log_e < 82_000  # 200 000 log(1.5), by the boldest gambler
    gate = Gate(delta=0.0)
    gate.update(-np.ones(200_000))
    assert -math.inf < gate.log_e < -300  # the most timid one is left: 200 000 log(0.998) - log(16)


def test_gate_resumes_in_mid_test():
    gains = np.random.default_rng(3).uniform(-1, 1, 500)
    gate, resumed = Gate(delta=0.02), Gate(delta=0.02)
    gate.update(gains[:217])
    resumed.restore(gate.state())
    gate.update(gains[217:])
    resumed.update(gains[217:])
    assert digest(gate.state()) == digest(resumed.state())


NULLS = {
    "independent": lambda rng, n: (rng.random(n) < 0.3) * 1.0 - (rng.random(n) < 0.3),
    "rarely differ": lambda rng, n: (rng.random(n) < 0.02) * rng.choice([-1.0, 1.0], n),
    "autocorrelated": lambda rng, n: (
        np.repeat(rng.choice([-0.3, 0.3], n // 50 + 1), 50)[:n] * rng.choice([-1.0, 1.0], n)
    ),
    "skewed": lambda rng, n: np.where(rng.random(n) < 0.01, -1.0, 0.01 / 0.99),
    "good and bad blocks": lambda rng, n: (
        rng.uniform(-0.2, 0.2, n) + np.where(np.arange(n) // 250 % 2, 0.3, -0.3)
    ),
    "gain exactly the minimum effect": lambda rng, n: rng.choice([-1.0, 1.0], n, p=[0.49, 0.51]),
}


@pytest.mark.statistics
@pytest.mark.parametrize("null", NULLS)
def test_false_promotions_with_a_look_at_every_event(null, capsys):
    """2,000 streams on which the candidate is not better, looked at after every one of 4,000 events."""
    n_streams, n_events, alpha = 2000, 4000, 0.05
    delta = 0.02 if null == "gain exactly the minimum effect" else 0.0
    rng = np.random.default_rng(0)
    promoted = 0
    for _ in range(n_streams):
        gains = NULLS[null](rng, n_events)
        promoted += bool((log_e(gains, delta) >= math.log(1 / alpha)).any())
    with capsys.disabled():
        print(f"\n{null}: {promoted / n_streams:.4f} of {n_streams:,} null streams promote (alpha {alpha})")
    assert promoted / n_streams <= alpha


def test_false_promotions_of_the_gate_itself_with_a_look_at_every_tick(capsys):
    n_streams, tick, n_ticks, alpha = 2000, 64, 64, 0.05
    rng = np.random.default_rng(1)
    promoted = 0
    for _ in range(n_streams):
        gate = Gate(delta=0.0)
        for _ in range(n_ticks):
            gate.update((rng.random(tick) < 0.3) * 1.0 - (rng.random(tick) < 0.3))
            if gate.log_e >= math.log(1 / alpha):
                promoted += 1
                break
    with capsys.disabled():
        print(f"\na look at every tick: {promoted / n_streams:.4f} of {n_streams:,} null streams promote")
    assert promoted / n_streams <= alpha


def test_a_better_candidate_is_found():
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(100):
        gains = rng.choice([-1.0, 0.0, 1.0], 4000, p=[0.125, 0.7, 0.175])  # gain 0.05, variance 0.3
        found += bool((log_e(gains, 0.0) >= math.log(20)).any())
    assert found >= 99


def test_fading_mean():
    fading = Fading(decay=0.5)
    assert math.isnan(fading.mean)
    fading.update(np.array([1.0, 0.0]))
    assert fading.mean == pytest.approx(0.5 / 1.5)


def test_interval_closes_in_on_the_gain():
    gate = Gate(delta=0.0)
    assert gate.interval(0.05).reason == "nothing was compared"
    gate.update(np.random.default_rng(0).uniform(-0.4, 0.6, 4000))
    interval = gate.interval(0.05)
    assert 0.1 in interval
    assert interval.width < 0.06


def change_log_e(gains, delta, spacing=512, kept=8):
    """Every test on its own; those that were dropped count nothing."""
    n_starts = -(-len(gains) // spacing)
    starts = range(n_starts) if n_starts <= kept else [0, *range(n_starts - kept + 1, n_starts)]
    each = [log_e(gains[k * spacing :], delta)[-1] - math.log((k + 1) * (k + 2)) for k in starts]
    return np.logaddexp.reduce(each)


@pytest.mark.parametrize("n", [1, 511, 512, 513, 4096, 4097, 6000])
def test_change_gate_matches_its_twin(n):
    gains = np.random.default_rng(n).uniform(-1, 1, n)
    gate = ChangeGate(delta=0.01)
    gate.update(gains)
    assert gate.log_e == pytest.approx(change_log_e(gains, 0.01), abs=1e-9)
    assert gate.mean_gain == pytest.approx(gains.mean(), abs=1e-12)


def test_change_gate_says_since_when():
    gate = ChangeGate(delta=0.0)
    assert gate.lately == (0, 0.0)
    gate.update(np.repeat([-0.1, 0.2], [6 * 512, 700]))
    assert gate.mean_gain < 0.0
    assert gate.lately == (700, pytest.approx(0.2))


def test_change_gate_does_not_see_where_the_stream_is_cut_nor_that_it_was_stopped():
    gains = np.random.default_rng(4).uniform(-1, 1, 5000)
    whole, pieces = ChangeGate(delta=0.0), ChangeGate(delta=0.0)
    whole.update(gains)
    for part in np.split(gains, [1, 511, 512, 700, 3000, 3000]):
        pieces.update(part)
        resumed = ChangeGate(delta=0.0)
        resumed.restore(pieces.state())
        pieces = resumed
    assert digest(pieces.state()) == digest(whole.state())


def test_change_gate_finds_what_begins_late():
    rng = np.random.default_rng(5)
    found = at_once = 0
    for _ in range(50):
        gains = np.concatenate(  # 0.05 worse until 3,000, then 0.05 better; variance 0.3
            [rng.choice([-1.0, 0.0, 1.0], 3000, p=p) for p in ([0.175, 0.7, 0.125], [0.125, 0.7, 0.175])]
        )
        late, gate = ChangeGate(delta=0.0), Gate(delta=0.0)
        late.update(gains)
        gate.update(gains)
        found += late.log_e >= math.log(20)
        at_once += gate.log_e >= math.log(20)
    assert found >= 40
    assert at_once <= 10


def false_alarms(n_streams, n_events, seed):
    rng = np.random.default_rng(seed)
    alarms = 0
    for _ in range(n_streams):
        gate = ChangeGate(delta=0.0)
        for _ in range(n_events // 64):
            gate.update((rng.random(64) < 0.3) * 1.0 - (rng.random(64) < 0.3))
            if gate.log_e >= math.log(20):
                alarms += 1
                break
    return alarms / n_streams


def test_false_alarms_of_the_change_gate_with_a_look_at_every_tick():
    assert false_alarms(n_streams=200, n_events=4096, seed=6) <= 0.05


@pytest.mark.statistics
def test_false_alarms_of_the_change_gate_at_full_size(capsys):
    rate = false_alarms(n_streams=2000, n_events=20_480, seed=7)
    with capsys.disabled():
        print(f"\na change gate over 20,480 events: {rate:.4f} of 2,000 null streams alarm (alpha .05)")
    assert rate <= 0.05
