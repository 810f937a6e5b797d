import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pytest

from penstock._native.linear import TOTALS
from penstock.bandits import build, load_policy
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Batch, Task
from penstock.learners.sgd import SGD
from penstock.learners.vw_workspace import Workspace
from penstock.state import digest

BITS = 14
LEARNER = {"kind": "sgd", "bits": BITS}
CROSSED = {"bits": BITS, "interactions": [["*", "action"]]}
ARMS = ("a", "b", "c", "d")


def log(n=150, seed=4, *, sizes=(1, 4), weights=(1.0, 1.0, 2.0, 0.0), propensity=None):
    rng = random.Random(seed)
    contexts = [{"x": rng.random(), "town": rng.choice("ROM")} for _ in range(n)]
    arms = [rng.sample(ARMS, rng.randint(*sizes)) for _ in range(n)]
    chosen = [rng.randrange(len(offered)) for offered in arms]
    rewards = [float(rng.random() < context["x"] * (offered[choice] < "c") + 0.2)
               for context, offered, choice in zip(contexts, arms, chosen, strict=True)]  # fmt: skip
    return Logged(
        offers=Offers.from_rows(contexts, arms, keys=[rng.getrandbits(64) for _ in range(n)]),
        chosen=np.array(chosen),
        propensities=np.array([propensity or rng.choice([1e-5, 0.3, 1.0]) for _ in range(n)]),
        rewards=np.array(rewards),
        weights=np.array([rng.choice(weights) for _ in range(n)]),
    )


def events(logged):
    """Each event as plain Python: rows of the actions, and what came of one."""
    for i, (low, high) in enumerate(itertools.pairwise(logged.offers.starts.tolist())):
        arms = logged.offers.arms[low:high]
        rows = [{**logged.offers.rows[i], "action": {"id": arm}} for arm in arms]
        yield rows, int(logged.chosen[i]), 1.0 - logged.rewards[i], logged.propensities[i], logged.weights[i]


def assert_taught(policy, number, twin):
    state = policy.state()
    for name, value in twin.state().items():
        np.testing.assert_array_equal(state[f"models/{number}/{name}"], value, err_msg=name)


def clipped(value):
    return min(max(value, 0.0), 1.0)


# --- targets, against a slow twin -------------------------------------------------------------------------


@pytest.mark.parametrize("cost_type", ["dm", "mtr", "ips", "dr"])
def test_targets(cost_type):
    logged = log()
    policy = build("greedy", cost_type=cost_type, learner=LEARNER)
    policy.learn(logged)
    model, values = SGD(Task("regression"), **CROSSED), SGD(Task("regression"), **CROSSED)
    n_events = n_actions = 0
    for rows, chosen, cost, p, weight in events(logged):
        if not weight:
            continue
        p = max(p, 1e-3)
        n_events += 1
        n_actions += len(rows)
        if cost_type == "dm":
            model.learn_one(rows[chosen], cost, weight)
        elif cost_type == "mtr":
            model.learn_one(rows[chosen], cost, weight * (n_events / n_actions) / p)
        elif cost_type == "ips":
            for a, row in enumerate(rows):
                model.learn_one(row, cost / p if a == chosen else 0.0, weight)
        else:
            estimates = [clipped(values.predict_one(row)) for row in rows]
            estimates[chosen] += (cost - estimates[chosen]) / p
            for row, estimate in zip(rows, estimates, strict=True):
                model.learn_one(row, estimate, weight)
            values.learn_one(rows[chosen], cost, weight)
    assert_taught(policy, 0, model)
    if cost_type == "dr":
        assert_taught(policy, 1, values)


def test_cover_targets():
    logged = log(80)
    size, psi = 3, 0.7
    policy = build("cover", size=size, psi=psi, learner=LEARNER)
    probabilities = policy.progress(logged)
    first, second, third, values = (SGD(Task("regression"), **CROSSED) for _ in range(4))
    n_events = n_actions = 0
    for (rows, chosen, cost, p, weight), (low, high) in zip(
        events(logged), itertools.pairwise(logged.offers.starts.tolist()), strict=True
    ):
        k, p = len(rows), max(p, 1e-3)
        least = min(1 / k, 1 / np.sqrt(max(n_events, 1) * k))
        n_events += weight > 0
        n_actions += k * (weight > 0)
        estimates = np.array([clipped(values.predict_one(row)) for row in rows])
        estimates[chosen] += (cost - estimates[chosen]) / p
        votes = np.zeros(k)
        for learner in (first, second, third):
            predicted = np.array([learner.predict_one(row) for row in rows])
            if weight and learner is first:
                learner.learn_one(rows[chosen], cost, weight * (n_events / n_actions) / p)
            elif weight:
                covered = np.maximum(votes, least)
                for row, target in zip(rows, estimates - psi * least * covered.sum() / covered, strict=True):
                    learner.learn_one(row, target, weight)
            best = predicted == predicted.min()
            votes += best / best.sum() / size
        if weight:
            values.learn_one(rows[chosen], cost, weight)
        assert probabilities[low:high].min() >= least - 1e-12
        if votes.min() >= least:
            np.testing.assert_allclose(probabilities[low:high], votes, rtol=1e-9)
    for number, twin in enumerate((first, second, third, values)):
        for name in ("table", "totals"):  # sums of a few numbers, in another order
            np.testing.assert_allclose(
                policy.state()[f"models/{number}/{name}"], twin.state()[name], rtol=1e-5, atol=1e-7
            )


def test_bagging_teaches_by_keyed_counts():
    from penstock.bandits.bagging import poisson

    logged = log()
    policy = build("bagging", size=2, greedify=True, cost_type="dm", learner=LEARNER, seed=5)
    policy.learn(logged)
    for number, times in enumerate((np.ones(len(logged)), poisson(logged.offers.keys, 5, 1))):
        twin = SGD(Task("regression"), **CROSSED)
        for (rows, chosen, cost, _, weight), count in zip(events(logged), times, strict=True):
            twin.learn_one(rows[chosen], cost, weight * count)
        assert_taught(policy, number, twin)


def test_logistic_learner_is_a_classifier_of_costs():
    logged = log()
    policy = build("squarecb", loss="logistic", learner=LEARNER)
    policy.learn(logged)
    twin = SGD(Task("binary"), **CROSSED)
    for rows, chosen, cost, _, weight in events(logged):
        twin.learn_one(rows[chosen], cost, weight)
    assert_taught(policy, 0, twin)
    halves = replace(logged, rewards=logged.rewards * 0.5)
    with pytest.raises(BadRecord, match=r"a reward of 0\.0 or 1\.0, got 0\.5 - at `\$\.reward`, events\["):
        policy.learn(halves)


def test_range_of_rewards_scales_costs():
    logged = log()
    one, other = (
        build("squarecb", learner=LEARNER),
        build("squarecb", learner=LEARNER, reward_range=(-3.0, 5.0)),
    )
    wide = replace(logged, rewards=logged.rewards * 8.0 - 3.0)
    np.testing.assert_array_equal(one.progress(logged), other.progress(wide))


# --- against Vowpal Wabbit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters", "args"),
    [
        ("squarecb", {}, "--squarecb"),
        # VW's sensitivities are half of what its updates move, so half the mellowness is as mellow.
        ("regcb", {"elimination": True, "mellowness": 0.005}, "--regcb --mellowness 0.01"),
        ("regcb", {"mellowness": 0.005}, "--regcb --regcbopt --mellowness 0.01"),
        ("greedy", {"cost_type": "mtr"}, "--epsilon 0.05"),
    ],
)
def test_tracks_vw(kind, parameters, args):
    """The same distribution from the same log, but for rounding (VW's is float32)."""
    logged = log(600, sizes=(4, 4), weights=(1.0,), propensity=0.25)
    logged = replace(logged, chosen=logged.chosen % 3)  # VW forgets to drop the last one's propensity
    workspace = Workspace(["--cb_explore_adf", "-q", ":a", "-b", "20", *args.split()])
    # VW weighs an event by its number of actions, also where it does not by the propensity.
    weight = np.array([1.0 if kind == "greedy" else 0.25])
    policy = build(kind, learner={"kind": "sgd", "bits": 20}, **parameters)
    compared = off = 0
    for i, (rows, chosen, cost, propensity, _) in enumerate(events(logged)):
        event = replace(logged.slice(i, i + 1), weights=weight)
        lines = [f"shared | x:{rows[0]['x']} town={rows[0]['town']}"]
        lines += [f"|action id={row['action']['id']}" for row in rows]
        theirs = np.array(workspace.predict_lines(lines))
        predicted = policy._look(policy._pairs.all(event.offers))[0]
        if predicted.min() > 0 and predicted.max() < 1:  # VW learns as we do, but does not cut the others
            compared += 1
            off += not np.allclose(policy.probabilities(event.offers), theirs / theirs.sum(), atol=1e-3)
        policy.learn(event)
        lines[1 + chosen] = f"0:{cost}:{propensity} {lines[1 + chosen]}"
        workspace.learn_lines(lines)
    assert compared > 150
    assert off <= 0.02 * compared  # ties and thresholds, decided by the last bit


# --- edges ------------------------------------------------------------------------------------------------


def test_rewards_out_of_range_are_cut_and_counted_or_refused():
    logged = log(30, weights=(1.0,))
    rewards = logged.rewards.copy()
    rewards[[3, 7]] = [1.25, -9.0]
    wild, tame = replace(logged, rewards=rewards), replace(logged, rewards=np.clip(rewards, 0, 1))
    cut, control = build("squarecb", learner=LEARNER), build("squarecb", learner=LEARNER)
    np.testing.assert_array_equal(cut.progress(wild), control.progress(tame))
    assert (cut.state()["clipped"], control.state()["clipped"]) == (2, 0)
    strict = build("regcb", learner=LEARNER, outside="refuse")
    for verb in (strict.learn, strict.progress):
        with pytest.raises(BadRecord) as error:
            verb(wild)
        assert str(error.value) == "expected a reward in [0.0, 1.0], got 1.25 - at `$.reward`, events[3]"
    assert strict.state()["events"] == 0
    strict.learn(replace(wild, weights=np.where(np.isin(np.arange(30), [3, 7]), 0.0, 1.0)))


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("squarecb", {"cost_type": "sm"}, "cost_type: expected 'dm' or 'mtr' or 'ips' or 'dr', got 'sm'"),
        ("squarecb", {"reward_range": (1.0, 0.0)}, "reward_range: expected two finite numbers"),
        ("squarecb", {"reward_range": (1.0,)}, "reward_range: expected two finite numbers"),
        ("squarecb", {"floor": 2.0}, "floor: expected"),
        ("squarecb", {"min_propensity": 0.0}, "min_propensity: expected"),
        ("squarecb", {"learner": {"bits": 3}}, "learner: expected a mapping with a kind"),
        ("squarecb", {"learner": {"kind": "no such"}}, "no learner is called 'no such'"),
        ("squarecb", {"loss": "logistic", "cost_type": "dr"}, "loss: 'logistic' learns rewards as they are"),
        ("bagging", {"size": 0}, "size: expected"),
        ("cover", {"psi": -1.0}, "psi: expected"),
        ("regcb", {"learner": {"kind": "sgd", "update": "coin"}}, "learner: regcb needs an 'sgd'"),
        ("regcb", {"learner": {"kind": "river"}}, "learner: regcb needs an 'sgd'"),
        ("regcb", {"cost_type": "dr"}, "cost_type: regcb learns by 'dm' or 'mtr'"),
        (
            "squarecb",
            {"learner": {"kind": "sgd", "consolidation": 1.0}},
            "learner: give `consolidate_every`: a policy is not told of promotions",
        ),
    ],
)
def test_configurations_that_make_no_sense(kind, parameters, message):
    with pytest.raises(ConfigError) as error:
        build(kind, **parameters)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("kind", ["squarecb", "regcb"])
def test_states_of_something_else_are_refused(kind):
    policy = build(kind, learner=LEARNER)
    state = policy.state()
    for name, value in (("events", -1), ("offered", True), ("models/0/loss", "hinge")):
        with pytest.raises(StoreError):
            policy.restore({**state, name: value})
    frozen = policy.freeze().state()
    for name, value in (
        ("rule", "[1]"),
        ("rule", json.dumps({"gamma_scale": -1, "gamma_exponent": 0.5})),
        ("floor", "much"),
        ("learner", 3),
        ("n_models", 2),
        ("models/0/bits" if kind == "squarecb" else "models/0/parameters", "12"),
    ):
        with pytest.raises((StoreError, ConfigError)):
            load_policy(kind, {**frozen, name: value})


@pytest.mark.parametrize("update", ["nag", "adagrad", "sgd"])
def test_sensitivity_is_its_formula(update):
    rng = np.random.default_rng(0)
    columns = [{"a": a, "b": b} for a, b in rng.normal(size=(50, 2))]
    learner = SGD(Task("regression"), update=update, bits=10)
    learner.learn(Batch.from_rows(columns, rng.normal(size=50), rng.uniform(0.2, 2, 50)))
    probe = Batch.from_rows([{"a": 0.5, "b": -3.0}])
    buckets = [*(probe.features.indices & 1023), 11650396 & 1023]
    x = np.array([0.5, -3.0, 1.0])
    slots = learner.state()["table"][buckets, 0].astype(np.float64)
    totals = dict(zip(TOTALS, learner.state()["totals"][0], strict=True))
    slope = 2 * (learner.predict(probe)[0] + 1.0)
    if update == "sgd":
        expected = 0.5 * (x * x).sum() * (totals["age"] + 1) ** -0.5
    else:
        squares = slots[:, 1] + slope**2 * x * x
        largest = np.maximum(slots[:, 2], np.abs(x)) if update == "nag" else np.ones(3)
        expected = 0.5 * (x * x / (np.sqrt(squares) * largest)).sum()
    if update == "nag":
        norm = (x * x / largest**2).sum()
        expected *= np.sqrt((totals["sum_weight"] + 1) / (totals["sum_norm"] + norm))
    before = digest(learner.state())
    np.testing.assert_allclose(learner.sensitivity(probe, -1.0), expected, rtol=1e-6)
    assert digest(learner.state()) == before


def test_sensitivity_falls_where_there_were_events():
    learner = SGD(Task("regression"), **CROSSED)
    policy = build("regcb", learner=LEARNER)
    offers = Offers.from_rows([{"x": 1.0}], [["a", "b"]])
    pairs = policy._pairs.all(offers)
    widths = []
    for _ in range(5):
        widths.append(learner.sensitivity(pairs, -1.0))
        learner.learn_one({"x": 1.0, "action": {"id": "a"}}, 0.5)
    a, b = np.array(widths).T
    assert (np.diff(a) < 0).all()
    assert (b >= a).all()
    with pytest.raises(ValueError, match="learned by nag, adagrad or sgd"):
        SGD(Task("regression"), update="coin").sensitivity(pairs, 0.0)
