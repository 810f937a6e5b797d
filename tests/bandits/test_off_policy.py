"""Policies judged on a log: one pass, progressive, refused where the log cannot say anything."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from penstock import bandits
from penstock.bandits.formulas import gains, mrdr_weights
from penstock.bandits.off_policy import Evaluation, evaluate_policies
from penstock.bandits.reward_model import LearnedReward, RewardModel
from penstock.bandits.support import SupportMonitor
from penstock.bandits.terms import Terms
from penstock.codecs.decision_table import DecisionTable, table_rows
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord, ConfigError
from penstock.gate import Gate
from penstock.sources.decision_log import read_log
from penstock.state import digest

ARMS = ("a", "b", "c")
DATA = Path(__file__).parents[3] / "shared" / "data"
ALL = ("ips", "clipped_ips", "snips", "dm", "dr", "switch_dr", "dros", "mrdr", "replay")


class Fixed:
    """The same probabilities everywhere, by arm."""

    def __init__(self, **probabilities):
        self.table = probabilities

    def probabilities(self, offers):
        return np.array([self.table[arm] for arm in offers.arms.tolist()])

    def state(self):
        return dict(self.table)


def logged_by(pmf, n, seed=0, *, weights=None, rewards=None):
    """A log over three arms; what pays depends on the context."""
    rng = np.random.default_rng(seed)
    good = rng.integers(0, 3, n)
    chosen = rng.choice(3, n, p=pmf)
    drawn = (rng.random(n) < np.where(chosen == good, 0.8, 0.2)).astype(np.float64)
    return Logged(
        offers=Offers.from_rows([{"good": ARMS[g]} for g in good], [ARMS] * n),
        chosen=chosen,
        propensities=np.asarray(pmf)[chosen],
        rewards=drawn if rewards is None else rewards,
        weights=np.ones(n) if weights is None else weights,
    )


def pieces(logged, sizes):
    start = 0
    for size in sizes:
        yield logged.slice(start, min(start + size, len(logged)))
        start += size
        if start >= len(logged):
            return


def test_logging_policy_on_its_own_log_earns_the_mean_reward():
    pmf = (0.5, 0.3, 0.2)
    log = logged_by(pmf, 700)
    report = evaluate_policies(
        [log], {"itself": Fixed(a=0.5, b=0.3, c=0.2)}, estimators=("ips", "snips", "dr")
    )
    itself = report.policies["itself"]
    assert itself.estimates["ips"].value == pytest.approx(log.rewards.mean(), abs=1e-12)
    assert itself.estimates["snips"].value == pytest.approx(report.mean_reward, abs=1e-12)
    assert itself.support.ess == pytest.approx(700)
    assert itself.support.mean_weight == pytest.approx(1.0)
    assert itself.support.unsupported == 0.0
    assert not itself.support.reason


def test_learning_policy_is_judged_before_it_learns():
    log = logged_by((0.4, 0.3, 0.3), 400)
    learning, twin = bandits.build("squarecb", seed=1), bandits.build("squarecb", seed=1)
    report = evaluate_policies([log], {"squarecb": learning}, estimators=("ips",))
    values = []
    for i in range(len(log)):
        one = log.slice(i, i + 1)
        values.append(twin.probabilities(one.offers)[one.entries[0]] / one.propensities[0] * one.rewards[0])
        twin.learn(one)
    assert report.policies["squarecb"].estimates["ips"].value == pytest.approx(np.mean(values), abs=1e-12)
    assert digest(learning.state()) == digest(twin.state())
    frozen = learning.freeze()
    before = digest(frozen.state())
    evaluate_policies([log], {"frozen": frozen}, estimators=("ips",))
    assert digest(frozen.state()) == before


def test_report_is_the_same_however_the_log_is_cut():
    log = logged_by((0.5, 0.25, 0.25), 600, weights=np.tile([1.0, 1.0, 0.0], 200))
    reports = [
        evaluate_policies(
            pieces(log, sizes),
            {"fixed": Fixed(a=0.1, b=0.8, c=0.1), "learning": bandits.build("squarecb", seed=3)},
            estimators=ALL,
            max_weight=4.0,
        )
        for sizes in ([600], [1] * 600, [7, 0, 256, 1, 500])
    ]
    assert repr(reports[0]) == repr(reports[1]) == repr(reports[2])  # NaN is not equal to itself
    assert str(reports[0]) == str(reports[1])
    assert reports[0].n_events == 400


def test_evaluation_goes_on_from_its_state():
    log = logged_by((0.5, 0.25, 0.25), 300)
    policy = Fixed(a=0.1, b=0.8, c=0.1)
    whole, first, second = (Evaluation(ALL, max_weight=4.0) for _ in range(3))
    predictions = LearnedReward().progress(log)

    def feed(evaluation, start, stop):
        low, high = log.offers.starts[[start, stop]]
        part = log.slice(start, stop)
        evaluation.update(part, policy.probabilities(part.offers), predictions[low:high])

    feed(whole, 0, 300)
    feed(first, 0, 111)
    state = first.state()
    second.restore(state)
    feed(first, 111, 300)
    feed(second, 111, 300)
    assert digest(second.state()) == digest(first.state()) == digest(whole.state()) != digest(state)
    assert repr(second.report()) == repr(whole.report())


def test_reward_model_predicts_before_it_learns():
    log = logged_by((0.4, 0.3, 0.3), 200)
    model, twin = LearnedReward(), LearnedReward()
    assert isinstance(model, RewardModel)
    predicted = model.progress(log)
    for i in range(len(log)):
        one = log.slice(i, i + 1)
        low, high = log.offers.starts[i : i + 2]
        np.testing.assert_array_equal(twin.predict(one.offers), predicted[low:high])
        twin.progress(one)
    assert digest(twin.state()) == digest(model.state())
    resumed = LearnedReward()
    resumed.restore(model.state())
    np.testing.assert_array_equal(resumed.predict(log.offers), model.predict(log.offers))
    assert model.progress(log.slice(0, 0)).shape == (0,)


def test_reward_model_finds_out_what_pays():
    log = logged_by((0.34, 0.33, 0.33), 4000)
    model = LearnedReward()
    model.progress(log)
    predicted = model.predict(Offers.from_rows([{"good": "b"}], [ARMS]))
    np.testing.assert_allclose(predicted, [0.2, 0.8, 0.2], atol=0.2)


def test_reward_model_keeps_to_the_range_of_rewards():
    log = logged_by((0.4, 0.3, 0.3), 100, rewards=np.full(100, -7.0))
    model = LearnedReward(reward_range=(-10.0, -5.0))
    predicted = model.progress(log)
    assert predicted.min() >= -10.0
    assert predicted.max() <= -5.0
    assert model.predict(log.offers).mean() == pytest.approx(-7.0, abs=0.3)


def test_model_lowers_the_variance_of_dr():
    """The contexts say all: DR with the default model against IPS, over 60 logs."""
    policy = Fixed(a=0.1, b=0.8, c=0.1)
    errors = {name: [] for name in ("ips", "dr", "mrdr")}
    for seed in range(60):
        log = logged_by((0.6, 0.2, 0.2), 600, seed)
        report = evaluate_policies([log], {"p": policy}, estimators=tuple(errors))
        for name, estimate in report.policies["p"].estimates.items():
            errors[name].append((estimate.value - 0.4) ** 2)
    assert np.mean(errors["dr"]) < np.mean(errors["ips"])
    assert np.mean(errors["mrdr"]) < np.mean(errors["ips"])


def test_mrdr_fits_a_model_of_its_own():
    seen = []

    class Spy(LearnedReward):
        def progress(self, logged):
            seen.append(logged.weights)
            return super().progress(logged)

    log = logged_by((0.6, 0.2, 0.2), 50)
    policy = Fixed(a=0.1, b=0.8, c=0.1)
    evaluate_policies([log], {"p": policy}, estimators=("mrdr", "dr"), make_model=Spy)
    target = policy.probabilities(log.offers)[log.entries]
    np.testing.assert_array_equal(seen[0], log.weights)
    np.testing.assert_array_equal(seen[1], mrdr_weights(log.propensities, target))
    assert len(seen) == 2


def test_gap_between_model_and_correction():
    report = evaluate_policies([logged_by((0.4, 0.3, 0.3), 300)], {"p": Fixed(a=1.0, b=0.0, c=0.0)})
    policy = report.policies["p"]
    assert policy.model_gap == policy.estimates["dm"].value - policy.estimates["dr"].value
    report = evaluate_policies(
        [logged_by((0.4, 0.3, 0.3), 300)], {"p": Fixed(a=1.0, b=0.0, c=0.0)}, estimators=["dr"]
    )
    assert math.isnan(report.policies["p"].model_gap)


# What a log cannot say


def reason_of(log, policy, **options):
    report = evaluate_policies([log], {"p": policy}, estimators=("dr", "ips"), **options)
    judged = report.policies["p"]
    for estimate in judged.estimates.values():
        assert math.isnan(estimate.value) == bool(judged.support.reason)
        assert estimate.reason == judged.support.reason
    assert (judged.support.reason in str(report)) or not judged.support.reason
    return judged.support.reason


def test_refused_where_the_log_never_shows_the_action():
    log = logged_by((0.5, 0.5, 0.0), 3000)
    assert reason_of(log, Fixed(a=0.0, b=0.0, c=1.0)) == (
        "no logged action is one that the policy could take: every weight is 0"
    )
    half = Fixed(a=0.5, b=0.0, c=0.5)
    assert reason_of(log, half) == (
        "the log never takes 'c', and the policy puts 50.0% of its probability on actions that it never takes"
    )
    report = evaluate_policies([log], {"p": half}, estimators=("ips",))
    assert report.policies["p"].support.unsupported == pytest.approx(0.5)
    assert reason_of(log, Fixed(a=0.9, b=0.1, c=0.0)) == ""


def test_refused_where_the_log_was_deterministic():
    log = logged_by((1.0, 0.0, 0.0), 50)
    assert reason_of(log, Fixed(a=0.4, b=0.6, c=0.0)) == (
        "60.0% of the policy's probability would need weights above 100 "
        "(if they are meant, declare max_weight)"
    )
    assert reason_of(log, Fixed(a=1.0, b=0.0, c=0.0)) == ""


def test_refused_where_weights_break_what_was_declared():
    log = logged_by((0.8, 0.1, 0.1), 2000)
    policy = Fixed(a=0.0, b=1.0, c=0.0)
    assert reason_of(log, policy, max_weight=10.0) == ""
    assert "of the policy's probability would need weights above 5" in reason_of(log, policy, max_weight=5.0)


@pytest.mark.parametrize(
    ("factor", "side"), [(0.5, "small"), (2.0, "large, or actions are missing from the log")]
)
def test_refused_where_propensities_are_wrong(factor, side):
    log = logged_by((0.4, 0.3, 0.3), 4000)
    wrong = Logged(
        offers=log.offers,
        chosen=log.chosen,
        propensities=log.propensities * factor,
        rewards=log.rewards,
        weights=log.weights,
    )
    reason = reason_of(wrong, Fixed(a=0.3, b=0.3, c=0.4), max_weight=4.0)
    assert reason.startswith(f"the propensities are too {side}: the mean weight is ")
    assert reason.endswith("where it has to be 1")


def test_right_propensities_are_hardly_ever_refused():
    policy = Fixed(a=0.1, b=0.1, c=0.8)
    refused = sum(
        bool(reason_of(logged_by((0.6, 0.3, 0.1), 400, seed), policy, max_weight=8.0)) for seed in range(40)
    )
    assert refused == 0


def test_nothing_that_counts():
    log = logged_by((0.4, 0.3, 0.3), 10, weights=np.zeros(10))
    assert reason_of(log, Fixed(a=1.0, b=0.0, c=0.0)) == "no decision has counted so far"
    report = evaluate_policies([], {"p": Fixed()})
    assert report.n_events == 0
    assert math.isnan(report.mean_reward)


def test_support_in_figures():
    terms = Terms.of_columns(
        rewards=[0.0] * 4, propensities=[0.5, 0.5, 0.5, 0.25], target=[1.0, 0.0, 0.5, 0.5]
    )
    offers = Offers.from_rows([{}] * 4, [("a", "b")] * 4)
    logged = Logged(
        offers=offers,
        chosen=np.array([0, 1, 0, 1]),
        propensities=terms.propensities,
        rewards=terms.rewards,
        weights=terms.counts,
    )
    monitor = SupportMonitor(max_weight=8.0)
    monitor.update(terms, logged, np.array([1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.5, 0.5]))
    support = monitor.verdict()
    weights = np.array([2.0, 0.0, 1.0, 2.0])
    assert support.ess == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert (support.n_events, support.max_weight, support.mean_weight) == (4, 2.0, 1.25)
    assert 1.0 in support.mean_weight_interval


# Bad input


def test_distributions_are_checked():
    with pytest.raises(ArithmeticError, match="not a distribution: event 0"):
        evaluate_policies([logged_by((0.4, 0.3, 0.3), 10)], {"p": Fixed(a=0.5, b=0.5, c=0.5)})


def test_reward_outside_the_declared_range():
    log = logged_by((0.4, 0.3, 0.3), 3, rewards=np.array([0.0, 1.0, 2.0]))
    policy = Fixed(a=0.4, b=0.3, c=0.3)
    with pytest.raises(BadRecord, match=r"expected a reward in \[0.0, 1.0\], got 2.0"):
        evaluate_policies([log], {"p": policy})
    report = evaluate_policies([log], {"p": policy}, reward_range=(0.0, 2.0), estimators=["ips"])
    assert report.policies["p"].estimates["ips"].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimators": "ips"}, "estimators: expected a list of names, got 'ips'"),
        ({"estimators": ["best"]}, "no estimator is called 'best'"),
        ({"alpha": 0.0}, r"alpha: expected a number in \(0, 1\), got 0.0"),
        ({"max_weight": 0.0}, "max_weight: expected a finite number >= 1, got 0.0"),
        ({"estimators": {"clipped_ips": {"clip": -1}}}, "clip: expected a number > 0, got -1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_policies([logged_by((0.4, 0.3, 0.3), 10)], {"p": Fixed(a=0.4, b=0.3, c=0.3)}, **options)


# The gate on a log


def test_gate_fed_with_gains_promotes_by_mistake_in_at_most_five_percent():
    """Equal arms, heavy weights: a policy that takes what the log took one time in twenty."""
    rng = np.random.default_rng(31)
    runs, n = 400, 2000
    promoted = 0
    for _ in range(runs):
        rare = rng.random(n) < 0.05
        rewards = (rng.random(n) < 0.5).astype(np.float64)
        gate = Gate(delta=0.0)
        peak = 0.0
        for start in range(0, n, 100):
            part = slice(start, start + 100)
            gate.update(gains(rewards[part], np.where(rare, 0.05, 0.95)[part], rare[part].astype(np.float64)))
            peak = max(peak, gate.log_e)
        promoted += peak >= math.log(1 / 0.05)
    assert promoted / runs <= 0.05


def test_gate_fed_with_gains_promotes_what_is_better():
    rng = np.random.default_rng(32)
    chosen = rng.random(6000) < 0.3
    rewards = (rng.random(6000) < np.where(chosen, 0.6, 0.4)).astype(np.float64)
    gate = Gate(delta=0.0)
    gate.update(gains(rewards, np.where(chosen, 0.3, 0.7), chosen.astype(np.float64)))
    assert gate.log_e >= math.log(1 / 0.05)
    assert gate.mean_gain == pytest.approx(0.14, abs=0.05)


# The Open Bandit Dataset


def obd(name):
    path = DATA / f"obd_{name}_men.csv.gz"
    if not path.exists():
        pytest.skip("the Open Bandit sample is not there")
    with gzip.open(DATA / f"obd_items_{name}_men.csv.gz") as file:
        items = table_rows(file.read().splitlines(), key="item_id", ignore=["row"])
    codec = DecisionTable(
        items,
        action="item_id",
        reward="click",
        propensity="propensity_score",
        time="timestamp",
        ignore=["row"],
        types={"position": "category"},
    )
    pieces = list(read_log(str(path), codec))
    assert not any(rejected for _, rejected in pieces)
    return [records.logged for records, _ in pieces]


class Shares:
    """How often each item is shown at each position of a log: what its policy does on average.

    The sample does not hold the distributions of "bts", only the propensity of what was shown; and averages
    of those over what was shown are not a distribution, as likely items are over-represented in them. That
    the policy moved while it logged is lost.
    """

    def __init__(self, log):
        self.counts = {}
        for logged in log:
            for row, arm in zip(logged.offers.rows, logged.offers.arms[logged.entries], strict=True):
                key = row["position"], arm
                self.counts[key] = self.counts.get(key, 0) + 1

    def probabilities(self, offers):
        sizes = np.diff(offers.starts)
        positions = np.repeat([row["position"] for row in offers.rows], sizes).tolist()
        counts = np.array(
            [self.counts.get(key, 0) for key in zip(positions, offers.arms, strict=True)], float
        )
        return counts / np.repeat(np.add.reduceat(counts, offers.starts[:-1]), sizes)

    def state(self):
        return {}


@pytest.mark.parametrize(("logs", "judged", "max_weight"), [("random", "bts", 34.0), ("bts", "random", None)])
def test_open_bandit_sample(logs, judged, max_weight):
    log, other = obd(logs), obd(judged)
    on_policy = sum(part.rewards.sum() for part in other) / sum(map(len, other))
    estimators = ("ips", "clipped_ips", "dr", "mrdr", "snips")
    report = evaluate_policies(log, {judged: Shares(other)}, estimators=estimators, max_weight=max_weight)
    policy = report.policies[judged]
    assert report.n_events == 10_000
    assert not policy.support.reason
    for name in ("ips", "clipped_ips", "dr", "mrdr"):
        assert on_policy in policy.estimates[name].interval, name
        assert policy.estimates[name].value in policy.estimates[name].interval, name
    assert policy.estimates["ips"].interval.width < (0.04 if max_weight else 0.5)
