import numpy as np
import pytest

from penstock.bandits import build
from penstock.bandits.environment import as_bandit, simulate
from penstock.decisions import draw, key_of
from penstock.errors import DataError
from penstock.events import Batch
from penstock.state import digest

ROWS = [{"x": float(i % 3), "y": float(i % 7)} for i in range(90)]
LABELS = [("red", "green", "blue")[i % 3] for i in range(90)]


def test_classes_are_arms_and_the_right_one_earns():
    environment = as_bandit(Batch.from_rows(ROWS, LABELS))
    arms = ["blue", "green", "red"]
    assert environment.offers.arms[:3].tolist() == environment.offers.arms[-3:].tolist() == arms
    for i, label in enumerate(LABELS):
        assert environment.rewards[i].tolist() == [float(arm == label) for arm in arms]


def test_numbered_classes():
    environment = as_bandit(Batch.from_rows(ROWS[:4], [2.0, 0.0, 2.0, 10.0]))
    assert environment.offers.arms[:3].tolist() == ["0", "2", "10"]
    assert environment.rewards.argmax(axis=1).tolist() == [1, 0, 1, 2]


def test_costs_and_drift():
    costs = np.array([[0.0, 0.5], [1.0, -1.0]])
    environment = as_bandit(Batch.from_rows(ROWS[:4], ["a", "b", "a", "b"]), costs=costs, drift_at=2)
    np.testing.assert_array_equal(environment.rewards, [[1, 0.5], [0, 2], [0, 2], [1, 0.5]])
    with pytest.raises(DataError, match=r"costs: expected shape \(2, 2\) for 2 classes, got \(1, 1\)"):
        as_bandit(Batch.from_rows(ROWS[:2], ["a", "b"]), costs=np.ones((1, 1)))
    with pytest.raises(DataError, match="at least one event"):
        as_bandit(Batch.from_rows([]))


def test_decisions_and_regret_by_brute_force():
    environment = as_bandit(Batch.from_rows(ROWS, LABELS), pipeline="ads", seed=5, drift_at=60)
    policy = build("squarecb", learner={"kind": "sgd", "bits": 12})
    result = simulate(policy, environment)
    twin = build("squarecb", learner={"kind": "sgd", "bits": 12})
    regret, fixed, earned = 0.0, np.zeros(3), 0.0
    from penstock.decisions import Logged

    for i in range(90):
        event = environment.offers.slice(i, i + 1)
        assert event.keys[0] == key_of(f"5-{i}", "ads")
        p = twin.probabilities(event)
        action = draw(p, int(event.keys[0]))
        assert (action, p[action]) == (result.chosen[i], result.propensities[i])
        reward = environment.rewards[i, action]
        twin.learn(
            Logged(
                offers=event,
                chosen=np.array([action]),
                propensities=np.array([p[action]]),
                rewards=np.array([reward]),
                weights=np.ones(1),
            )
        )
        earned += reward
        fixed += environment.rewards[i]
        regret += environment.rewards[i].max() - reward
        assert result.regret[i] == regret
    assert result.fixed_regret[-1] == fixed.max() - earned
    assert result.average_reward == earned / 90
    assert digest(policy.state()) == digest(twin.state())


def test_another_seed_draws_otherwise():
    one, same, other = (
        simulate(build("uniform"), as_bandit(Batch.from_rows(ROWS, LABELS), seed=seed)) for seed in (1, 1, 2)
    )
    assert one.chosen.tolist() == same.chosen.tolist() != other.chosen.tolist()


def test_learns_the_environment_and_again_after_a_drift():
    rows, labels = ROWS * 8, LABELS * 8
    environment = as_bandit(Batch.from_rows([{"x": str(row["x"])} for row in rows], labels), drift_at=360)
    rewards = simulate(
        build("greedy", cost_type="dm", learner={"kind": "sgd", "half_life": 50.0}), environment
    )
    assert rewards.rewards[300:360].mean() > 0.8
    assert rewards.rewards[-60:].mean() > 0.8
