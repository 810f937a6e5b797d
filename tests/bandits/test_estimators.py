"""The estimators against enumeration, simulation with known truth, and each other."""

import math

import numpy as np
import pytest

from penstock.bandits import formulas
from penstock.bandits.estimators import DR, ESTIMATORS, IPS, Replay, build_estimator
from penstock.bandits.intervals import log_mixture
from penstock.bandits.terms import Terms, expected_under
from penstock.errors import BadRecord, ConfigError
from penstock.state import digest

# Three actions: how often the log takes them, how often the policy would, what they earn, what a model says.
TAKEN = np.array([0.6, 0.3, 0.1])
POLICY = np.array([0.1, 0.1, 0.8])
EARNS = np.array([0.2, 0.5, 0.7])
MODEL = np.array([0.3, 0.3, 0.5])
EXACT = {
    "ips": 0.63,
    "clipped_ips": 0.42,
    "snips": 0.63,
    "dm": 0.46,
    "dr": 0.63,
    "switch_dr": 0.47,
    "dros": sum(POLICY * MODEL)
    + sum(TAKEN * 5 * (POLICY / TAKEN) / ((POLICY / TAKEN) ** 2 + 5) * (EARNS - MODEL)),
    "mrdr": 0.63,
}
PARAMETERS = {"clipped_ips": {"clip": 5.0}, "switch_dr": {"threshold": 5.0}, "dros": {"shrinkage": 5.0}}


def build(name, **parameters):
    return build_estimator(name, **{"max_weight": 20.0, **PARAMETERS.get(name, {}), **parameters})


def enumerated():
    """Every outcome of the three actions, counted as often as it happens."""
    actions = np.repeat([0, 1, 2], 2)
    rewards = np.tile([0.0, 1.0], 3)
    chance = np.where(rewards == 1.0, EARNS[actions], 1.0 - EARNS[actions])
    return Terms.of_columns(
        rewards=rewards,
        propensities=TAKEN[actions],
        target=POLICY[actions],
        counts=TAKEN[actions] * chance,
        predicted=MODEL[actions],
        expected=np.full(6, POLICY @ MODEL),
    )


def random_terms(n, seed=0, *, ragged_counts=False):
    rng = np.random.default_rng(seed)
    propensities = rng.uniform(0.05, 0.9, n)
    return Terms.of_columns(
        rewards=rng.random(n),
        propensities=propensities,
        target=np.minimum(propensities * rng.uniform(0.0, 2.0, n), 1.0),
        counts=rng.choice([0.0, 1.0, 2.5], n) if ragged_counts else rng.choice([0.0, 1.0], n, p=[0.1, 0.9]),
        keys=rng.integers(0, 1 << 63, n).astype(np.uint64),
        predicted=rng.random(n),
        expected=rng.random(n),
    )


@pytest.mark.parametrize("name", EXACT)
def test_enumerated_table(name):
    estimator = build(name)
    estimator.update(enumerated())
    assert estimator.value == pytest.approx(EXACT[name], abs=1e-12)


def test_enumerated_table_has_the_published_figures():
    assert EXACT["dros"] == pytest.approx(0.48, abs=0.005)
    weights = POLICY / TAKEN
    assert (TAKEN * weights * EARNS).sum() == pytest.approx(0.63, abs=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("ragged_counts", [False, True])
def test_state_is_the_same_however_the_log_is_cut(name, ragged_counts):
    terms = random_terms(500, ragged_counts=ragged_counts)
    whole, split, resumed = (build(name) for _ in range(3))
    whole.update(terms)
    for i in range(200):
        split.update(terms.take(np.array([i])))
    resumed.restore(split.state())
    resumed.update(terms.take(np.arange(200, 500)))
    assert digest(resumed.state()) == digest(whole.state())
    assert digest(split.state()) != digest(whole.state())
    assert resumed.interval(0.1) == whole.interval(0.1) or whole.interval(0.1).reason


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_logged(name):
    estimator = build(name)
    estimator.update(random_terms(0))
    assert math.isnan(estimator.value)
    assert estimator.interval().reason


@pytest.mark.parametrize("name", ESTIMATORS)
def test_reward_outside_its_range_changes_nothing(name):
    terms = Terms.of_columns(
        rewards=[0.5, 0.5, 1.5],
        propensities=[0.5] * 3,
        target=[0.5] * 3,
        predicted=[0.5] * 3,
        expected=[0.5] * 3,
    )
    estimator = build(name)
    before = digest(estimator.state())
    with pytest.raises(BadRecord) as caught:
        estimator.update(terms)
    assert str(caught.value) == "expected a reward in [0.0, 1.0], got 1.5 - at `$.reward`, events[2]"
    assert digest(estimator.state()) == before
    estimator.update(terms.take(np.array([0, 1])))
    assert digest(estimator.state()) != before


def test_decisions_of_count_zero_are_not_there():
    terms = random_terms(100)
    for name in ESTIMATORS:
        with_them, without = build(name), build(name)
        with_them.update(terms)
        without.update(terms.take(np.flatnonzero(terms.counts)))
        assert digest(with_them.state()) == digest(without.state())


@pytest.mark.parametrize("name", EXACT)
def test_functions_on_arrays_are_the_estimators(name):
    terms = random_terms(300)
    terms = terms.take(np.flatnonzero(terms.counts))
    estimator = build(name)
    estimator.update(terms)
    columns = (terms.rewards, terms.propensities, terms.target)
    functions = {
        "ips": lambda: formulas.ips(*columns),
        "clipped_ips": lambda: formulas.clipped_ips(*columns, clip=5.0),
        "snips": lambda: formulas.snips(*columns),
        "dm": lambda: formulas.direct_method(terms.expected),
        "dr": lambda: formulas.dr(*columns, terms.predicted, terms.expected),
        "mrdr": lambda: formulas.dr(*columns, terms.predicted, terms.expected),
        "switch_dr": lambda: formulas.switch_dr(*columns, terms.predicted, terms.expected, threshold=5.0),
        "dros": lambda: formulas.dros(*columns, terms.predicted, terms.expected, shrinkage=5.0),
    }
    assert functions[name]() == pytest.approx(estimator.value, abs=1e-12)


def test_functions_on_nothing():
    assert math.isnan(formulas.ips([], [], []))
    assert math.isnan(formulas.snips([1.0], [0.5], [0.0]))
    assert formulas.effective_sample_size([0.0]) == 0.0


@pytest.mark.parametrize("propensity", [0.0, 1.5, -0.1, math.nan])
def test_propensity_out_of_range(propensity):
    with pytest.raises(BadRecord) as caught:
        formulas.ips([1.0, 0.0], [0.5, propensity], [1.0, 1.0])
    assert (
        str(caught.value) == f"expected a number in (0, 1], got {propensity} - at `$.propensity`, events[1]"
    )


def test_columns_of_different_length():
    with pytest.raises(BadRecord, match="expected one propensity an event"):
        formulas.ips([1.0, 0.0], [0.5], [1.0, 1.0])
    with pytest.raises(BadRecord, match="expected one finite number an event"):
        formulas.dr([1.0], [0.5], [1.0], [math.nan], [0.5])


def test_estimator_without_its_model():
    with pytest.raises(ValueError, match="needs what a model predicts"):
        DR().update(Terms.of_columns(rewards=[1.0], propensities=[0.5], target=[1.0]))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ips", {"max_weight": 0.5}, "max_weight: expected a finite number >= 1, got 0.5"),
        ("dr", {"max_weight": math.inf}, "max_weight: expected a finite number >= 1, got inf"),
        (
            "ips",
            {"reward_range": (1, 0)},
            "reward_range: expected two finite numbers, the lower one first, got (1, 0)",
        ),
        ("clipped_ips", {"clip": 0.0}, "clip: expected a number > 0, got 0.0"),
        ("switch_dr", {"threshold": -1.0}, "threshold: expected a number > 0, got -1.0"),
        ("dros", {"shrinkage": math.nan}, "shrinkage: expected a number > 0, got nan"),
        (
            "replay",
            {"max_weight": None},
            "max_weight: has to be given, as replay accepts decisions in proportion to it",
        ),
    ],
)
def test_parameters_out_of_range(name, parameters, message):
    with pytest.raises(ConfigError) as caught:
        build(name, **parameters)
    assert str(caught.value) == message


def test_unknown_estimator():
    with pytest.raises(ConfigError, match="no estimator is called 'ipps'"):
        build_estimator("ipps")


def test_interval_is_in_the_unit_of_rewards():
    terms = random_terms(400)
    for name in ("ips", "clipped_ips", "dr", "replay"):
        plain, scaled = build(name), build(name, reward_range=(-3.0, 7.0))
        plain.update(terms)
        scaled.update(
            Terms.of_columns(
                rewards=10.0 * terms.rewards - 3.0,
                propensities=terms.propensities,
                target=terms.target,
                counts=terms.counts,
                keys=terms.keys,
                predicted=10.0 * terms.predicted - 3.0,
                expected=10.0 * terms.expected - 3.0,
            )
        )
        ours, theirs = plain.interval(), scaled.interval()
        assert theirs.lower == pytest.approx(10.0 * ours.lower - 3.0, abs=1e-9)
        assert theirs.upper == pytest.approx(10.0 * ours.upper - 3.0, abs=1e-9)


def test_clipping_is_pessimistic_below_zero_too():
    terms = Terms.of_columns(rewards=[-1.0, -2.0], propensities=[0.01, 0.5], target=[1.0, 0.5])
    clipped = build("clipped_ips", reward_range=(-2.0, 0.0))
    clipped.update(terms)
    assert clipped.value == -2.0 + (5.0 * 1.0 + 1.0 * 0.0) / 2
    assert clipped.value == formulas.clipped_ips([-1.0, -2.0], [0.01, 0.5], [1.0, 0.5], clip=5.0, lowest=-2.0)


def test_no_interval_where_there_cannot_be_one():
    terms = random_terms(100)
    for name in ("snips", "dm"):
        estimator = build(name)
        estimator.update(terms)
        assert math.isfinite(estimator.value)
        assert estimator.interval().reason


def test_a_weight_above_the_declared_one_voids_the_interval():
    fine = Terms.of_columns(rewards=[1.0] * 3, propensities=[0.5] * 3, target=[0.5] * 3)
    broken = Terms.of_columns(rewards=[1.0], propensities=[0.1], target=[0.9])
    hidden = Terms.of_columns(rewards=[1.0], propensities=[0.9], target=[0.5])  # others: 0.5 / 0.1
    for terms, needed in ((broken, 9), (hidden, 5)):
        estimator = IPS(max_weight=4.0)
        estimator.update(fine)
        assert not estimator.interval().reason
        estimator.update(terms)
        assert estimator.interval().reason == f"a weight of {needed} exceeds max_weight, 4"
        assert math.isfinite(estimator.value)
    replay = Replay(max_weight=4.0)
    replay.update(broken)
    assert math.isnan(replay.value)


def test_events_that_count_differently_void_the_interval():
    estimator = IPS()
    estimator.update(
        Terms.of_columns(rewards=[1.0, 0.0], propensities=[0.5] * 2, target=[0.5] * 2, counts=[2.0, 2.0])
    )
    assert not estimator.interval().reason
    estimator.update(Terms.of_columns(rewards=[1.0], propensities=[0.5], target=[0.5]))
    assert estimator.interval().reason == "not all events count alike, and their intervals are for those"
    assert estimator.value == 3.0 / 5.0


def test_impossible_propensities_contradict_themselves():
    estimator = IPS()  # every weight is 4, where the mean should be 1
    estimator.update(Terms.of_columns(rewards=[0.5] * 200, propensities=[0.25] * 200, target=[1.0] * 200))
    assert estimator.interval().reason == "the bounds contradict each other: the propensities are wrong"


def test_replay_of_a_uniform_log_keeps_what_the_policy_would_take():
    rng = np.random.default_rng(5)
    logged, wanted = rng.integers(0, 4, 2000), rng.integers(0, 4, 2000)
    rewards = rng.random(2000)
    replay = Replay(max_weight=4.0)
    replay.update(
        Terms.of_columns(
            rewards=rewards, propensities=np.full(2000, 0.25), target=(logged == wanted).astype(float)
        )
    )
    assert replay.n_accepted == (logged == wanted).sum()
    assert replay.value == pytest.approx(rewards[logged == wanted].mean(), abs=1e-12)


def test_replay_accepts_in_proportion_to_the_weight():
    n = 40_000
    propensities, target = np.tile([0.2, 0.5, 0.8], n)[:n], np.tile([0.6, 0.2, 0.4], n)[:n]
    terms = Terms.of_columns(rewards=np.zeros(n), propensities=propensities, target=target)
    accepted = terms.draws() * 5.0 < terms.weights
    for i in range(3):
        share = target[i] / propensities[i] / 5.0
        assert accepted[i::3].mean() == pytest.approx(share, abs=4 * math.sqrt(share / (n / 3)))


def test_draws_are_uniform_and_belong_to_the_key():
    terms = Terms.of_columns(rewards=np.zeros(50_000), propensities=np.ones(50_000), target=np.ones(50_000))
    draws = terms.draws()
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 100  # 49 degrees of freedom: p about 3e-5
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.02
    np.testing.assert_array_equal(terms.take(np.array([7, 3])).draws(), draws[[7, 3]])


def test_expectations():
    probabilities, values = np.array([0.2, 0.8, 1.0]), np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(expected_under(probabilities, values, np.array([0, 2, 3])), [1.8, 5.0])
    assert expected_under(np.empty(0), np.empty(0), np.array([0])).shape == (0,)


# Simulation: an epsilon-greedy policy logs while it learns, the arms drift, and the truth is known.

K, EPSILON = 3, 0.2
TARGET = np.array([0.1, 0.1, 0.8])
MAX_WEIGHT = TARGET.max() / (EPSILON / K)


def simulate(runs, n, seed, drift=0.3):
    """Columns of shape (runs, n), and the value of the policy at each event, shape (n,)."""
    rng = np.random.default_rng(seed)
    sums, counts = np.full((runs, K), 0.5), np.ones((runs, K))
    names = ("rewards", "propensities", "target", "predicted", "expected")
    columns = {name: np.empty((runs, n)) for name in names}
    values = np.empty(n)
    row = np.arange(runs)
    for t in range(n):
        means = EARNS + drift * np.sin(t / 60.0 + np.arange(K))
        model = sums / counts
        pmf = np.full((runs, K), EPSILON / K)
        pmf[row, model.argmax(axis=1)] += 1.0 - EPSILON
        actions = np.minimum((pmf.cumsum(axis=1) < rng.random((runs, 1))).sum(axis=1), K - 1)
        rewards = (rng.random(runs) < means[actions]).astype(np.float64)
        for name, column in zip(
            names,
            (rewards, pmf[row, actions], TARGET[actions], model[row, actions], model @ TARGET),
            strict=True,
        ):
            columns[name][:, t] = column
        sums[row, actions] += rewards
        counts[row, actions] += 1.0
        values[t] = TARGET @ np.clip(means, 0.0, 1.0)
    return columns, values


def terms_of(columns, run, stop):
    return Terms.of_columns(**{name: column[run, :stop] for name, column in columns.items()})


def first_misses(lower, upper, values, floors, alpha):
    """Of each run whether its bounds ever exclude the running mean of `values`: the recursion, over runs."""
    misses = np.zeros(len(lower), dtype=bool)
    for outcomes, floor, truth in ((lower, floors[0], values), (upper, floors[1], 1.0 - values)):
        scale = 1.0 / (floor + 1.0)
        scaled = scale * outcomes
        totals = np.cumsum(scaled, axis=1)
        guesses = np.minimum((0.5 * scale + totals - scaled) / np.arange(1, len(values) + 1), scale)
        variances = np.cumsum((scaled - guesses) ** 2, axis=1)
        evidence = log_mixture(totals - scale * np.cumsum(truth), variances)
        misses |= (evidence >= math.log(2.0 / alpha)).any(axis=1)
    return misses


@pytest.mark.parametrize("kind", ["ips", "bounded_ips", "dr"])
def test_intervals_watched_at_every_event_cover(kind):
    columns, values = simulate(runs=500, n=1000, seed=11)
    weights = columns["target"] / columns["propensities"]
    rewards = columns["rewards"]
    if kind == "ips":
        sides, floors = (weights * rewards, weights * (1.0 - rewards)), (0.0, 0.0)
    elif kind == "bounded_ips":
        sides, floors = (weights * rewards, 1.0 - weights * rewards), (0.0, MAX_WEIGHT - 1.0)
    else:
        outcomes = weights * (rewards - columns["predicted"]) + columns["expected"]
        sides, floors = (outcomes, 1.0 - outcomes), (MAX_WEIGHT, MAX_WEIGHT)
    misses = first_misses(*sides, values, floors, alpha=0.05)
    assert misses.mean() <= 0.05
    elsewhere = first_misses(*sides, values - 0.4, floors, alpha=0.05)
    assert elsewhere.mean() > 0.95  # it takes the truth to be covered
    # The twin above is fast; the estimator has to give the same verdicts.
    make, bound = (DR if kind == "dr" else IPS), (None if kind == "ips" else MAX_WEIGHT)
    for run in range(3):
        estimator = make(max_weight=bound)
        excluded = False
        for stop in range(1, 301):
            estimator.update(terms_of(columns, run, stop).take(np.array([stop - 1])))
            excluded |= values[:stop].mean() not in estimator.interval(0.05)
        assert excluded == first_misses(
            sides[0][run : run + 1, :300], sides[1][run : run + 1, :300], values[:300], floors, 0.05
        )


@pytest.mark.statistics
@pytest.mark.parametrize("name", ["ips", "clipped_ips", "dr", "replay"])  # the others have that of dr
def test_intervals_of_every_estimator_cover(name):
    runs, n = 500, 200
    columns, values = simulate(runs, n, seed=23)
    missed = 0
    for run in range(runs):
        estimator = build(name, max_weight=MAX_WEIGHT)
        terms = terms_of(columns, run, n)
        seen = []
        for t in range(n):
            before = estimator.n_accepted if name == "replay" else 0
            estimator.update(terms.take(np.array([t])))
            if name != "replay" or estimator.n_accepted > before:
                seen.append(values[t])
            if seen and np.mean(seen) not in estimator.interval(0.05):
                missed += 1
                break
    print(f"{name}: {missed / runs:.3f} of {runs} runs missed")
    assert missed / runs <= 0.05


def test_a_bounded_weight_narrows_the_interval_where_rewards_are_rare():
    rng = np.random.default_rng(2)
    n, k = 5000, 10
    target = (rng.random(n) < 1 / k).astype(np.float64)
    terms = Terms.of_columns(
        rewards=(rng.random(n) < 0.02).astype(np.float64), propensities=np.full(n, 1 / k), target=target
    )
    widths = []
    for max_weight in (None, float(k)):
        estimator = IPS(max_weight=max_weight)
        estimator.update(terms)
        assert 0.02 in estimator.interval()
        widths.append(estimator.interval().width)
    assert widths[1] < 0.5 * widths[0]


def test_dr_is_never_far_worse_than_ips():
    """Mean squared errors over 400 logs each: of good, useless and adverse models, mild and wild weights."""
    rng = np.random.default_rng(17)
    runs, n = 400, 250
    ratios = []
    for taken in ([0.34, 0.33, 0.33], [0.7, 0.2, 0.1], [0.9, 0.05, 0.05]):
        for model in (EARNS, np.full(3, 0.5), 1.0 - EARNS, np.array([1.0, 1.0, 0.0])):
            for policy in (TARGET, np.array([0.5, 0.5, 0.0])):
                pmf = np.array(taken)
                actions = rng.choice(3, (runs, n), p=pmf)
                rewards = (rng.random((runs, n)) < EARNS[actions]).astype(np.float64)
                truth = policy @ EARNS
                errors = {}
                for name in ("ips", "dr"):
                    values = []
                    for run in range(runs):
                        a = actions[run]
                        estimator = build(name)
                        estimator.update(
                            Terms.of_columns(
                                rewards=rewards[run],
                                propensities=pmf[a],
                                target=policy[a],
                                predicted=model[a],
                                expected=np.full(n, policy @ model),
                            )
                        )
                        values.append(estimator.value)
                    errors[name] = np.mean((np.array(values) - truth) ** 2)
                ratios.append(errors["dr"] / errors["ips"])
    # Against a model that is wrong by the whole range DR pays at most what IPS of rewards 1 - r would.
    assert max(ratios) < 2.0
    assert np.median(ratios) < 1.0
