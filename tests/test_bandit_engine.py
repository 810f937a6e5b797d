"""Policies learn from what another one decided, and take over once the gate has let them."""

import numpy as np
import pytest

from penstock import bandits
from penstock.bandit_engine import BanditEngine, BanditRules, PolicySpec
from penstock.bandits.off_policy import evaluate_policies
from penstock.decisions import Logged, Offers, draw, key_of
from penstock.errors import BadRecord, ConfigError
from penstock.trials import ShadowRules

ARMS = ["left", "middle", "right"]
RULES = BanditRules(
    policies={
        "greedy": PolicySpec(kind="greedy", parameters={"epsilon": 0.1}),
        "blind": PolicySpec(kind="beta_thompson", parameters={"floor": 0.1}),
    },
    shadow=ShadowRules(refresh_every=300, min_effect=0.001),
    max_weight=30.0,
    tick=64,
)


def contexts(n, seed=0):
    chance = np.random.default_rng(seed)
    return [{"x": float(x)} for x in chance.integers(0, 3, n)], chance


def world(engine, n, seed=0):
    """Let the engine decide n times; the right arm is the one that the context names."""
    rows, _ = contexts(n, seed)
    notices, rewards = [], []
    for i, row in enumerate(rows):
        offers = Offers.from_rows([{"which": str(row["x"])}], [ARMS], keys=[key_of(f"{seed}-{i}", "test")])
        pmf = engine.probabilities(offers)
        action = draw(pmf, int(offers.keys[0]))
        reward = float(action == int(row["x"]))
        rewards.append(reward)
        notices += engine.progress(
            Logged(
                offers=offers,
                chosen=np.array([action]),
                propensities=pmf[[action]],
                rewards=np.array([reward]),
                weights=np.ones(1),
            )
        )
    return notices, np.array(rewards)


def log(n, seed=0):
    rows, chance = contexts(n, seed)
    chosen = chance.integers(0, 3, n)
    return Logged(
        offers=Offers.from_rows([{"which": str(row["x"])} for row in rows], [ARMS] * n),
        chosen=chosen,
        propensities=np.full(n, 1 / 3),
        rewards=np.array([float(a == int(row["x"])) for a, row in zip(chosen, rows, strict=True)]),
        weights=np.ones(n),
    )


def test_uniform_decides_until_a_policy_is_promoted_and_then_it_is_better():
    engine = BanditEngine(RULES)
    notices, rewards = world(engine, 2000)
    first = next(n for n in notices if n.what == "promoted")
    assert (first.how, first.learner) == ("initial", "greedy")
    assert rewards[: first.event].mean() == pytest.approx(1 / 3, abs=0.1)
    assert rewards[-500:].mean() > 0.85
    assert engine.serving == "greedy"


def test_better_policy_replaces_on_the_log_of_the_worse_one():
    rules = BanditRules(
        policies=dict(reversed(RULES.policies.items())), shadow=RULES.shadow, max_weight=30.0, tick=64
    )
    engine = BanditEngine(rules)
    notices, _ = world(engine, 4000)
    replaced = [n for n in notices if n.what == "promoted" and n.how == "replace"]
    assert [n.learner for n in replaced] == ["greedy"]
    assert replaced[0].evidence["log_e"] >= replaced[0].evidence["threshold"]


def test_where_the_log_is_cut_changes_nothing():
    events = log(1000)
    whole, pieces, resumed = (BanditEngine(RULES) for _ in range(3))
    whole.progress(events)
    for start in range(0, 1000, 7):
        pieces.progress(events.slice(start, min(start + 7, 1000)))
    resumed.restore(pieces.state())
    assert pieces.digest() == whole.digest() == resumed.digest()


def test_reports_say_what_policies_would_have_earned():
    engine = BanditEngine(RULES)
    engine.progress(log(4000))
    reports = engine.reports()
    assert reports["uniform"].estimates["ips"].value == pytest.approx(1 / 3, abs=0.05)
    assert reports["greedy"].estimates["dr"].value > 0.8
    assert (
        reports["greedy"].estimates["dr"].interval.lower > reports["uniform"].estimates["dr"].interval.upper
    )


def test_trial_is_abandoned_when_a_probability_is_too_small_for_the_bound():
    rules = BanditRules(
        policies=dict(reversed(RULES.policies.items())), shadow=RULES.shadow, max_weight=30.0, tick=64
    )
    engine = BanditEngine(rules)
    events = log(4096)
    while not engine.shadow.trials:
        engine.progress(events.slice(engine.n_events, engine.n_events + 64))
    odd = log(1, seed=2)
    tiny = Logged(
        offers=odd.offers,
        chosen=odd.chosen,
        propensities=np.array([0.001]),
        rewards=odd.rewards,
        weights=odd.weights,
    )
    resumed = BanditEngine(rules)
    assert engine.progress(tiny) == []
    resumed.restore(engine.state())  # what is to be done when the tick ends is part of the state
    rest = events.slice(engine.n_events - 1, engine.n_events + 62)
    notice, *others = engine.progress(rest)
    assert [n.text for n in resumed.progress(rest)] == [notice.text, *(n.text for n in others)]
    assert (notice.what, notice.event % 64) == ("rejected", 0)
    assert "below 1 / max_weight" in notice.text
    assert notice.version not in engine.shadow.trials


def test_reward_outside_of_the_declared_range_is_refused():
    events = log(10)
    high = Logged(
        offers=events.offers,
        chosen=events.chosen,
        propensities=events.propensities,
        rewards=events.rewards + 1,
        weights=events.weights,
    )
    with pytest.raises(BadRecord):
        BanditEngine(RULES).progress(high)


def test_rules_are_checked():
    with pytest.raises(ConfigError, match="at least one"):
        BanditRules(policies={})
    with pytest.raises(ConfigError, match="name of the baseline"):
        BanditRules(policies={"uniform": PolicySpec(kind="greedy")})
    with pytest.raises(ConfigError, match="max_weight"):
        BanditRules(policies={"a": PolicySpec(kind="greedy")}, max_weight=0.5)


@pytest.mark.parametrize("max_weight", [None, 3.0])
def test_the_declared_bound_reaches_the_estimators(max_weight):
    """An engine says of a log what an evaluation says; the bound that the gate assumes is none of it."""
    names = ("ips", "replay") if max_weight else ("ips",)
    events, uniform = log(400), {"uniform": bandits.build("uniform").freeze()}
    rules = BanditRules(policies=RULES.policies, estimators=names, max_weight=max_weight)
    engine = BanditEngine(rules)
    engine.progress(events)
    alone = evaluate_policies([events], uniform, estimators=names, max_weight=max_weight)
    assert engine.reports()["uniform"] == alone.policies["uniform"]


def test_replay_needs_a_declared_bound():
    with pytest.raises(ConfigError, match="max_weight: has to be given"):
        BanditEngine(BanditRules(policies=RULES.policies, estimators=["replay"]))


# --- logs that do not say ---------------------------------------------------------------------------------


def unsupported(n, chosen, propensity, rewards, arms=("a", "b", "c")):
    return Logged(
        offers=Offers.from_rows([{}] * n, [arms] * n),
        chosen=chosen,
        propensities=np.full(n, propensity),
        rewards=rewards,
        weights=np.ones(n),
    )


def judging(*kinds, **given):
    policies = {f"p{i}": PolicySpec(kind=kind) for i, kind in enumerate(kinds)}
    shadow = ShadowRules(refresh_every=300, min_effect=1e-5, retry_after=200)
    return BanditEngine(BanditRules(policies=policies, shadow=shadow, tick=64, **given))


def always_a(n=6400, seed=1):
    """What an application logs that decides by itself: always the same action."""
    chance = np.random.default_rng(seed)
    return unsupported(n, np.zeros(n, np.int64), 1.0, (chance.random(n) < 0.6).astype(float))


def test_nothing_replaces_on_a_log_of_one_action():
    engine = judging("uniform", "gaussian_thompson")
    notices = engine.progress(always_a())
    assert engine.serving == "p0"
    assert {(n.what, n.how) for n in notices} == {
        ("withheld", "replace"),
        ("promoted", "initial"),
        ("promoted", "refresh"),
    }
    (withheld,) = (n for n in notices if n.what == "withheld")
    assert withheld.text == (
        "no policy can be compared with what serves: every decision was made with probability 1"
    )
    assert all("gain +0.0000 on 0 events" in n.text for n in notices if n.what == "promoted")
    assert "never takes 'b'" in engine.reports()["p0"].support.reason  # the evaluation agrees


def test_decisions_with_support_are_compared_between_those_without():
    without = always_a(32)
    pieces, engine = log(6400), judging("uniform", "gaussian_thompson")
    supported = unsupported(6400, pieces.chosen, 1 / 3, (pieces.chosen == 0) * 0.6 + 0.2)
    alone = judging("uniform", "gaussian_thompson")
    mixed = []
    for start in range(0, 6400, 32):
        mixed += engine.progress(without)
        mixed += engine.progress(supported.slice(start, start + 32))
        alone.progress(supported.slice(start, start + 32))
    assert engine.serving == alone.serving == "p1"
    replaced = next(n for n in mixed if n.how == "replace" and n.what == "promoted")
    assert replaced.evidence["events"] < replaced.event / 2
    assert not [n for n in mixed if n.what == "withheld"]


def test_an_action_that_is_never_taken_ends_comparisons_once_chance_cannot_explain_it():
    n = 12800
    chance = np.random.default_rng(2)
    chosen = chance.integers(0, 2, n)
    events = unsupported(n, chosen, 0.5, np.where(chosen == 0, 0.6, 0.5))
    engine = judging("ucb1", "gaussian_thompson", "uniform")
    notices = engine.progress(events)
    (withheld,) = (n for n in notices if n.what == "withheld" and n.how == "replace")
    assert withheld.text.endswith("the log never takes 'c'")
    assert withheld.event == 320  # chance would have taken it 70 times by 210: the tick of 256 ends it
    later = [n for n in notices if n.event > withheld.event]
    assert {n.how for n in later} <= {"refresh"}


@pytest.mark.parametrize("events", [always_a(1000), log(1000)], ids=["without", "with"])
def test_where_a_log_without_support_is_cut_changes_nothing(events):
    whole, pieces = (judging("uniform", "gaussian_thompson", "linucb") for _ in range(2))
    told = whole.progress(events)
    cut = []
    for start in range(0, 1000, 7):
        cut += pieces.progress(events.slice(start, min(start + 7, 1000)))
        resumed = judging("uniform", "gaussian_thompson", "linucb")
        resumed.restore(pieces.state())
        pieces = resumed
    assert pieces.digest() == whole.digest()
    assert [n.text for n in cut] == [n.text for n in told]
    with_support = not any(name.startswith("overlap/") for name in whole.state())
    assert with_support == (events.propensities[0] < 1.0)


# --- arms that retire -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("gaussian_thompson", "ucb1"), ("linucb", "squarecb")])
def test_a_retired_arm_is_played_no_more_and_does_not_come_back(kinds):
    engine = judging(*kinds)
    events = log(6400)
    right = unsupported(6400, events.chosen, 1 / 3, (events.chosen == 2) * 0.8)
    offers = right.offers.slice(0, 1)
    engine.progress(right.slice(0, 1000))
    assert engine.probabilities(offers)[2] > 0.5
    assert engine.shadow.fallback is not None
    (*rejected, renewed) = engine.retire(["c"])
    assert {n.what for n in rejected} <= {"rejected"}
    assert (renewed.what, renewed.how, renewed.event) == ("promoted", "refresh", 1000)
    assert renewed.text == "p0 serves anew, as c has retired"
    assert renewed.model is not None
    assert engine.shadow.fallback is None
    assert engine.shadow.trials == {}
    for start in range(1000, 6400, 100):
        assert engine.probabilities(offers)[2] == 0.0
        engine.progress(right.slice(start, start + 100))
        if engine.serving != "p0":
            break  # a policy on a regression learner keeps no table of arms
    assert engine.retired == {"c"}


def test_retirement_before_anything_serves_promotes_nothing():
    engine = judging("gaussian_thompson")
    assert engine.retire(["c", "b"]) == []
    resumed = judging("gaussian_thompson")
    resumed.restore(engine.state())
    assert resumed.retired == {"b", "c"}
