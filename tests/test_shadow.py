"""The gate keeps its promise on streams that try to break it, and the state machine follows its rules."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.shadow import Contender, Fading, Gate, Shadow, ShadowRules
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


def test_error_budget_adds_up_to_alpha():
    rules = ShadowRules(alpha=0.05)
    spent = sum(rules.alpha_of_attempt(j) for j in range(1, 10_000))
    assert 0.0499 < spent < 0.05


def test_fading_mean():
    fading = Fading(decay=0.5)
    assert math.isnan(fading.mean)
    fading.update(np.array([1.0, 0.0]))
    assert fading.mean == pytest.approx(0.5 / 1.5)


class Constant:
    """A model that loses the same on every event."""

    def __init__(self, loss):
        self.loss = loss

    def state(self):
        return {"loss": self.loss}


class World:
    """Drives a shadow tick by tick; every learner loses what `live` says."""

    def __init__(self, **rules):
        self.shadow = Shadow(
            ShadowRules(**rules), serving="a", load=lambda kind, state: Constant(state["loss"])
        )
        self.live = {"a": 0.3, "b": 0.3}
        self.lineage = {"a": 0, "b": 0}
        self.prior = 0.5
        self.event = 0

    def tick(self, n=100):
        self.shadow.observe(
            {name: np.full(n, loss) for name, loss in self.live.items()},
            self.lineage,
            np.full(n, self.prior),
            lambda model: np.full(n, model.loss),
        )
        self.event += n
        contenders = {
            name: Contender(
                kind="constant",
                lineage=self.lineage[name],
                recent_loss=loss,
                freeze=lambda loss=loss: Constant(loss),
            )
            for name, loss in self.live.items()
        }
        return self.shadow.end_tick(self.event, contenders)

    def until(self, what, n_ticks=400):
        for _ in range(n_ticks):
            for notice in self.tick():
                if notice.what == what:
                    return notice
        raise AssertionError(f"no {what!r} within {n_ticks} ticks")


def test_first_snapshot_serves_on_schedule_and_is_refreshed():
    world = World(refresh_every=300)
    first = world.until("promoted")
    assert (first.how, first.event, first.version, first.sequence) == ("initial", 300, 1, 1)
    second = world.until("promoted")
    assert (second.how, second.event, second.version, second.sequence) == ("refresh", 600, 2, 2)


def test_first_snapshot_is_withheld_if_it_knows_less_than_the_label_frequencies():
    world = World(refresh_every=300)
    world.prior = 0.1
    assert world.until("withheld").how == "initial"
    world.live["a"] = 0.05
    assert world.until("promoted").how == "initial"


def test_refresh_is_withheld_while_the_live_learner_is_worse():
    world = World(refresh_every=300)
    world.until("promoted")
    world.live["a"] = 0.6
    withheld = world.until("withheld")
    assert withheld.how == "refresh"
    assert withheld.evidence["gain"] == pytest.approx(0.3)  # of harm
    world.live["a"] = 0.3
    assert world.until("promoted").how == "refresh"


def test_better_learner_replaces():
    world = World(refresh_every=300)
    world.until("promoted")
    world.live["b"] = 0.1
    opened = world.until("opened")
    assert (opened.learner, opened.evidence["attempt"]) == ("b", 1)
    promoted = world.until("promoted")
    while promoted.how == "refresh":
        promoted = world.until("promoted")
    assert (promoted.how, promoted.learner, promoted.version) == ("replace", "b", opened.version)
    assert promoted.evidence["log_e"] >= promoted.evidence["threshold"]
    assert world.shadow.serving == "b"


def test_restarted_learner_has_to_replace_its_own_old_snapshot():
    world = World(refresh_every=300)
    world.until("promoted")
    world.lineage["a"] = 1
    for _ in range(20):
        assert world.tick() == []  # neither a refresh, for it was restarted, nor a candidate: no better
    world.live["a"] = 0.1
    assert world.until("opened").learner == "a"
    assert world.until("promoted").how == "replace"


def test_candidate_that_is_no_better_is_dropped_and_not_tried_again_at_once():
    world = World(refresh_every=300, retry_after=1000)
    world.until("promoted")
    world.live["b"] = 0.2
    world.until("opened")
    # From here on b's frozen model is as bad as what serves: what looked better was luck.
    world.shadow._candidate.model.loss = 0.31
    rejected = world.until("rejected")
    assert "was shown not to be better" in rejected.text
    again = world.until("opened")
    assert again.event >= rejected.event + 1000
    assert again.evidence["attempt"] == 2
    assert again.evidence["threshold"] > math.log(1 / 0.05)


def test_candidate_runs_out_of_events():
    world = World(refresh_every=10_000, min_effect=0.001, max_events=500)
    world.shadow.rules = ShadowRules(refresh_every=100, min_effect=0.001, max_events=500)
    world.until("promoted")
    world.live["b"] = 0.298
    world.until("opened")
    assert "within 500 events" in world.until("rejected").text


def test_state_round_trip_in_mid_trial():
    world, twin = World(refresh_every=300), World(refresh_every=300)
    world.until("promoted")
    world.live["b"] = 0.25
    world.until("opened")
    twin.shadow.restore(world.shadow.state())
    twin.event, twin.live = world.event, dict(world.live)
    for _ in range(30):
        assert [n.text for n in twin.tick()] == [n.text for n in world.tick()]
        assert digest(twin.shadow.state()) == digest(world.shadow.state())
    assert twin.shadow.serving == "b"
