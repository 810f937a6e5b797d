"""The range of a pipeline's rewards reaches every policy that has to know one."""

import inspect

import numpy as np
import pytest

from penstock import bandit_config, bandit_evaluate
from penstock.bandit_engine import BanditEngine, BanditRules, PolicySpec
from penstock.bandits import POLICIES, build, with_range
from penstock.decisions import Logged, Offers
from penstock.errors import ConfigError
from penstock.registry import resolve
from penstock.state import digest

ARMS = ("a", "b", "c")
MEANS = np.array([0.2, 0.8, 0.5])


def takes(kind):
    return set(inspect.signature(resolve(kind, POLICIES, what="policy")).parameters)


RANGED = [kind for kind in POLICIES if takes(kind) & {"low", "reward_range"}]


def log(low=0.0, high=1.0, n=600):
    chance = np.random.default_rng(3)
    chosen = chance.integers(0, 3, n)
    scaled = np.clip(MEANS[chosen] + chance.integers(-2, 3, n) / 16, 0.0, 1.0)
    return Logged(
        offers=Offers.from_rows([{"hour": i % 3} for i in range(n)], [ARMS] * n),
        chosen=chosen,
        propensities=np.full(n, 1 / 3),
        rewards=low + (high - low) * scaled,
        weights=np.ones(n),
    )


def learned(kind, reward_range, events):
    rules = BanditRules(policies={"p": PolicySpec(kind=kind)}, reward_range=reward_range)
    engine = BanditEngine(rules)
    engine.progress(events)
    return engine.policies["p"]


def test_which_policies_know_a_range():
    assert {"beta_thompson", "exp3", "logistic_thompson", "squarecb", "regcb", "vw"} < set(RANGED)
    others = {"gaussian_thompson", "epsilon_greedy", "softmax", "linucb", "hybrid_linucb", "linear_thompson"}
    assert set(POLICIES) - set(RANGED) == {"uniform", *others}


@pytest.mark.parametrize("reward_range", [(0.0, 64.0), (-4.0, 4.0)])
@pytest.mark.parametrize("kind", RANGED)
def test_rewards_of_another_range_teach_what_they_would_in_zero_to_one(kind, reward_range):
    wide, plain = learned(kind, reward_range, log(*reward_range)), learned(kind, (0.0, 1.0), log())
    offers = Offers.from_rows([{"hour": hour} for hour in range(3)], [ARMS] * 3)
    np.testing.assert_allclose(wide.probabilities(offers), plain.probabilities(offers), atol=0.02)


@pytest.mark.parametrize("kind", RANGED)
def test_the_default_range_changes_nothing(kind):
    direct, events = build(kind), log()
    direct.progress(events)
    assert digest(learned(kind, (0.0, 1.0), events).state()) == digest(direct.state())


def parsed(policy, reward_range=(0, 50), path="log"):
    return bandit_config.parse(
        {
            "task": "bandit",
            "source": {"kind": "log", "path": str(path)},
            "policies": {"mine": policy},
            "reward_range": list(reward_range),
            "max_weight": 3,
        }
    )


@pytest.mark.parametrize("kind", ["squarecb", "beta_thompson", "ucb1", "greedy", "vw"])
def test_an_evaluation_finds_the_best_arm_of_a_log(tmp_path, kind):
    events = log(0.0, 50.0, n=1500)
    (tmp_path / "log").write_text(
        "".join(
            f'{{"context": {{}}, "actions": ["a", "b", "c"], "action": "{ARMS[chosen]}", '
            f'"propensity": {1 / 3}, "reward": {reward}}}\n'
            for chosen, reward in zip(events.chosen, events.rewards.tolist(), strict=True)
        )
    )
    found = bandit_evaluate.evaluate(parsed({"kind": kind}, path=tmp_path / "log"))
    assert found.policies["mine"]["dr"] > 30.0  # uniform has 25, the best arm 40


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            {"kind": "squarecb", "reward_range": [0, 1]},
            "`policies.mine.reward_range`: expected [0.0, 50.0], as of the pipeline, got [0.0, 1.0]",
        ),
        (
            {"kind": "beta_thompson", "low": 0, "high": 1},
            "`policies.mine.high`: expected 50.0, as of the pipeline, got 1.0",
        ),
    ],
)
def test_a_contradiction_is_refused(policy, message):
    with pytest.raises(ConfigError) as caught:
        parsed(policy)
    assert message in str(caught.value)
    kind, parameters = policy["kind"], {name: value for name, value in policy.items() if name != "kind"}
    with pytest.raises(ConfigError, match="as of the pipeline"):
        BanditEngine(
            BanditRules(
                policies={"mine": PolicySpec(kind=kind, parameters=parameters)}, reward_range=(0.0, 50.0)
            )
        )
    assert with_range(kind, parameters, (0.0, 1.0)) == {**parameters, **with_range(kind, {}, (0.0, 1.0))}


def test_the_same_range_twice_is_no_contradiction():
    assert parsed({"kind": "squarecb", "reward_range": [0, 50]}).rules.reward_range == (0.0, 50.0)


@pytest.mark.parametrize("default", [60.0, -1.0, float("nan")])
def test_a_default_reward_outside_of_the_range_is_refused(default):
    given = {
        "task": "bandit",
        "source": {"kind": "feedback", "path": "log"},
        "policies": {"a": {"kind": "ucb1"}},
        "reward_range": [0, 50],
        "rewards": {"default_reward": default},
    }
    with pytest.raises(ConfigError, match="default_reward`: "):
        bandit_config.parse(given)
    for fine in (0, 50, None):
        assert bandit_config.parse({**given, "rewards": {"default_reward": fine}}).rewards
    with pytest.raises(ConfigError, match="`reward_range`: expected the lower bound first, both finite"):
        bandit_config.parse({**given, "rewards": {}, "reward_range": [-1.7e308, 1.7e308]})
