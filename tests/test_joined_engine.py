"""Feedback as it arrives: late rewards are corrected, apprentices imitate, actions come and go."""

import math

import numpy as np
import orjson
import pytest

from penstock import Predictor, bandit_config, runner
from penstock.bandit_engine import BanditEngine, BanditRules, PolicySpec
from penstock.bandits import POLICIES, build
from penstock.bandits.off_policy import Evaluation
from penstock.cli import main
from penstock.config import read
from penstock.decisions import Logged, Offers, draw, key_of
from penstock.errors import BadRecord, ConfigError, DataError
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.joined_engine import JoinedEngine
from penstock.joiner import Joiner
from penstock.snapshots import SnapshotStore
from penstock.state import digest
from penstock.trials import ShadowRules

ARMS = ("news", "sport", "film")
END = [DecisionEvent(id="end", time=1e9, context={}, actions=ARMS, chosen=0, propensity=1.0)]


def engine(*kinds, reward_range=(0.0, 1.0), **joiner):
    rules = BanditRules(
        policies={kind: PolicySpec(kind=kind) for kind in kinds},
        shadow=ShadowRules(refresh_every=100, min_effect=0.001),
        reward_range=reward_range,
        tick=16,
    )
    return JoinedEngine(rules, Joiner(**{"window_s": 5.0, **joiner}), pipeline="page")


def decided(i, *, actions=ARMS, **fields):
    chance = np.random.default_rng(i)
    given = {
        "id": f"d{i}",
        "time": float(i),
        "context": {"hour": i % 3},
        "actions": tuple(actions),
        "chosen": int(chance.integers(len(actions))),
        "propensity": 1.0 / len(actions),
    }
    return DecisionEvent(**{**given, **fields})


def rewarded(i, value=1.0, time=None):
    return RewardEvent(id=f"d{i}", time=float(i) if time is None else time, value=value)


def test_decisions_that_come_too_late_are_told_of_ever_more_rarely(caplog):
    learning = engine("beta_thompson")
    learning.progress(END)
    assert not caplog.records
    for i in range(9):
        learning.progress([decided(i)])
    assert learning.counts["late_decisions"] == 9
    assert [record.getMessage().split(" so far")[0][-1] for record in caplog.records] == list("1248")


# --- late rewards -----------------------------------------------------------------------------------------


def late_feedback(n=300):
    """Every third reward comes when its decision has been learned as silence; some of them twice."""
    events = []
    for i in range(n):
        events.append(decided(i))
        if i % 3 == 1:
            events.append(rewarded(i, 0.75))
        if i >= 20 and i % 3 == 0:
            events.append(rewarded(i - 18, 0.5, time=i - 18.0))
        if i >= 30 and i % 9 == 0:
            events.append(rewarded(i - 27, 1.0, time=i - 26.5))
    return [*events, *END]


def lane_state(engine, kind):
    return {k: v for k, v in engine.state().items() if k.startswith(f"bandit/lanes/{kind}/policy/")}


def test_late_rewards_reach_the_policies_that_can_take_them():
    late, counting, timely = (
        engine("beta_thompson", "ucb1", late="correct", memory_s=100.0),
        engine("beta_thompson", "ucb1", late="count", memory_s=100.0),
        engine("beta_thompson", "ucb1", late="correct", memory_s=100.0),
    )
    events = late_feedback()
    late.progress(events)
    counting.progress(events)
    timely.progress(sorted(events, key=lambda event: event.time))  # as if no reward were late
    assert late.counts["corrections"] > 50
    assert late.counts["uncorrected"] == counting.counts["corrections"] == timely.counts["corrections"] == 0
    for kind in ("beta_thompson", "ucb1"):
        mine, same, without = (lane_state(e, kind) for e in (late, timely, counting))
        stats = f"bandit/lanes/{kind}/policy/stats"
        np.testing.assert_allclose(mine[stats], same[stats], rtol=1e-9, atol=1e-9)
        assert not np.allclose(mine[stats], without[stats])


def test_late_rewards_reach_linear_models_exactly():
    kinds = ("linucb", "linear_thompson", "hybrid_linucb")
    late, timely = (engine(*kinds, late="correct", memory_s=100.0) for _ in range(2))
    events = late_feedback()
    late.progress(events)
    timely.progress(sorted(events, key=lambda event: event.time))
    assert late.counts["corrections"] > 50
    assert late.counts["uncorrected"] == 0
    for kind in kinds:
        mine, same = lane_state(late, kind), lane_state(timely, kind)
        for name, value in same.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_correction_reaches_neither_the_estimates_nor_the_gate():
    late = engine("beta_thompson", "ucb1", late="correct", memory_s=100.0)
    late.progress([decided(i) for i in range(200)])
    before = late.bandit.state()
    late.progress([rewarded(190)])
    after = late.bandit.state()
    changed = {name for name in before if digest({"": before[name]}) != digest({"": after[name]})}
    assert changed == {f"lanes/{kind}/policy/stats" for kind in ("beta_thompson", "ucb1")}


def test_where_feedback_is_cut_changes_nothing_though_rewards_are_late():
    events = late_feedback()
    whole, pieces = (engine("beta_thompson", "exp3", late="correct", memory_s=100.0) for _ in range(2))
    whole.progress(events)
    for start in range(0, len(events), 7):
        pieces.progress(events[start : start + 7])
        if start == 140:  # it resumes from its state, in the middle of everything
            resumed = engine("beta_thompson", "exp3", late="correct", memory_s=100.0)
            resumed.restore(pieces.state())
            pieces = resumed
    assert pieces.digest() == whole.digest()
    assert pieces.counts == whole.counts


def test_a_correction_that_a_policy_cannot_take_is_counted():
    late = engine("beta_thompson", "exp3", late="correct", memory_s=100.0)
    late.progress(late_feedback())
    assert late.counts["uncorrected"] == late.counts["corrections"] > 50
    dropped = engine("beta_thompson", late="correct", memory_s=100.0, default_reward=None)
    dropped.progress([decided(0), decided(50), rewarded(0)])  # nobody has learned it
    assert (dropped.counts["corrections"], dropped.counts["uncorrected"]) == (1, 1)


@pytest.mark.parametrize(
    "events", [[decided(0), rewarded(0, 7.0), decided(50)], [decided(0), decided(50), rewarded(0, 7.0)]]
)
def test_a_reward_outside_of_the_declared_range_stops_learning_and_names_the_decision(events):
    late = engine("beta_thompson", late="correct", memory_s=100.0)
    with pytest.raises(BadRecord) as caught:
        late.progress(events)
    expected = "expected a reward in [0.0, 1.0], the `reward_range`, got 7.0 - at `$.reward`, decision 'd0'"
    assert str(caught.value) == expected


def test_a_reward_that_a_policy_refuses_names_the_decision():
    rules = BanditRules(
        policies={"a": PolicySpec(kind="greedy", parameters={"loss": "logistic"})},
        shadow=ShadowRules(),
        tick=16,
    )
    learner = JoinedEngine(rules, Joiner(window_s=5.0), pipeline="page")
    events = [decided(3, context={"hour": 1e30}) if i == 3 else decided(i) for i in range(40)]
    with pytest.raises(BadRecord) as caught:
        learner.progress([*events[:30], rewarded(25, 0.5), *events[30:], *END])
    expected = "expected a reward of 0.0 or 1.0, got 0.5 - at `$.reward`, decision 'd25'"
    assert str(caught.value) == expected


# --- modes ------------------------------------------------------------------------------------------------


def apprentices(n, pmf_of, *, reward=None):
    """A baseline that plays the action which the hour names, and what a policy would have drawn."""
    for i in range(n):
        pmf = pmf_of(i)
        intended = draw(np.array(pmf), key_of(f"d{i}", "page"))
        yield decided(
            i, chosen=i % 3, propensity=1.0, mode="apprentice", intended=(intended, tuple(map(float, pmf)))
        )
        if reward is not None:
            yield rewarded(i, reward)


def asked(engine, kind, hour):
    """What the policy that decides now, or the one that learns, does at an hour."""
    offers = Offers.from_rows([{"hour": hour}], [ARMS])
    policy = build(kind)
    policy.restore(
        {k.removeprefix(f"bandit/lanes/{kind}/policy/"): v for k, v in lane_state(engine, kind).items()}
    )
    return policy.probabilities(offers)


@pytest.mark.parametrize(("reward", "reward_range"), [(None, (0.0, 1.0)), (-2.0, (-2.0, 3.0))])
def test_an_apprentice_imitates_a_baseline_whatever_that_earns(reward, reward_range):
    learner = engine("squarecb", reward_range=reward_range)
    learner.progress([*apprentices(1500, lambda _: [1 / 3] * 3, reward=reward), *END])
    for hour in range(3):
        assert asked(learner, "squarecb", hour).argmax() == hour
    counts = learner.counts
    assert counts["imitated"] == counts["learned"] == 1500
    assert counts["agreed"] / 1500 == pytest.approx(1 / 3, abs=0.05)
    assert learner.baseline_reward == (0.0 if reward is None else -2.0)


def test_agreement_is_judged_as_a_reward_so_that_the_better_imitator_takes_over():
    learner = engine("squarecb")
    notices = []
    for event in apprentices(
        3000, lambda i: learner.bandit.probabilities(Offers.from_rows([{"hour": i % 3}], [ARMS])).tolist()
    ):
        notices += learner.progress([event])
    assert notices[0].what == "promoted"
    early, late = learner.counts["agreed"], learner.counts["imitated"]
    assert early / late > 0.5  # chance gets a third
    assert math.isclose(learner.baseline_reward, 0.0)


def test_apprentices_without_a_possible_intention_teach_nothing():
    learner = engine("beta_thompson")
    nothing = decided(0, propensity=1.0, mode="apprentice")
    impossible = decided(1, propensity=1.0, mode="apprentice", intended=(0, (0.0, 1.0, 0.0)))
    learner.progress([nothing, impossible, *END])
    assert (learner.counts["unusable"], learner.counts["learned"], learner.counts["imitated"]) == (2, 0, 0)
    assert math.isnan(learner.baseline_reward)


def test_a_late_reward_of_an_apprentice_changes_only_what_the_baseline_earned():
    late, twin = (engine("beta_thompson", late="correct", memory_s=100.0) for _ in range(2))
    events = [*apprentices(50, lambda _: [1 / 3] * 3)]
    for each in (late, twin):
        each.progress(events)
    late.progress([rewarded(3)])
    assert late.bandit.digest() == twin.bandit.digest()
    assert late.baseline_reward > twin.baseline_reward == 0.0
    assert late.counts["uncorrected"] == 0


def test_logging_only_is_learned_as_it_was_played():
    fields = {"chosen": 1, "propensity": 1.0}
    logged, played = engine("beta_thompson"), engine("beta_thompson")
    intended = (0, (1.0, 0.0, 0.0))
    logged.progress(
        [*(decided(i, **fields, mode="logging_only", intended=intended) for i in range(40)), *END]
    )
    played.progress([*(decided(i, **fields) for i in range(40)), *END])
    assert logged.bandit.digest() == played.bandit.digest()
    assert logged.counts["imitated"] == 0


# --- what may be chosen -----------------------------------------------------------------------------------

KINDS = [kind for kind in POLICIES if kind not in ("vw", "uniform")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_that_is_not_offered_any_more_is_not_chosen_any_more(kind):
    learner = engine(kind)
    learner.progress([decided(i) for i in range(60)])
    pending = learner.counts["decisions"] - learner.counts["emitted"]
    assert pending > 0  # those of three actions are joined while those of two arrive
    learner.progress([*(decided(i, actions=ARMS[:2]) for i in range(60, 200)), *END])
    assert learner.counts["learned"] == 200
    assert learner.bandit.reports()[kind].support.ess > 0
    for actions in (ARMS[:2], ARMS[1:], ARMS):
        pmf = learner.bandit.probabilities(Offers.from_rows([{"hour": 1}], [actions]))
        assert pmf.shape == (len(actions),)
        assert pmf.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if hasattr(build(kind), "retire")])
def test_a_retired_arm_has_no_probability_and_its_decisions_still_count(kind):
    policy = build(kind)
    evaluation = Evaluation(("ips",))
    n = 600
    log = Logged(
        offers=Offers.from_rows([{"hour": i % 3} for i in range(n)], [ARMS] * n),
        chosen=np.random.default_rng(5).integers(0, 3, n),
        propensities=np.full(n, 1 / 3),
        rewards=np.ones(n),
        weights=np.ones(n),
    )
    policy.learn(log)
    policy.retire("film")
    before = digest(policy.state())
    film = int(np.flatnonzero(log.chosen == 2)[0])
    policy.learn(log.slice(film, film + 1))
    assert digest(policy.state()) == before  # nothing more is learned of it
    pmf = policy.progress(log).reshape(n, 3)
    assert (pmf[:, 2] == 0.0).all()
    np.testing.assert_allclose(pmf.sum(axis=1), 1.0)
    evaluation.update(log, pmf.ravel(), None)
    assert evaluation.report(0.05).estimates["ips"].value == pytest.approx(1.0, abs=0.3)


# --- rewards that go astray -------------------------------------------------------------------------------


def test_rewards_of_nobody_twice_and_before_their_decision():
    learner = engine("beta_thompson", lateness_s=10.0)
    twice = RewardEvent(id="d1", time=1.5, value=0.5, reward_id="r")
    learner.progress([rewarded(1), twice, rewarded(99, time=2.0), decided(1), twice, *END])
    counts = learner.counts
    assert (counts["unknown_rewards"], counts["duplicate_rewards"], counts["used"]) == (1, 1, 2)
    assert lane_state(learner, "beta_thompson")["bandit/lanes/beta_thompson/policy/stats"][0, 1] == 0.5


def test_the_bandit_engine_alone_takes_corrections():
    alone = BanditEngine(BanditRules(policies={"a": PolicySpec(kind="ucb1")}))
    log = Logged(
        offers=Offers.from_rows([{}], [ARMS]),
        chosen=np.array([0]),
        propensities=np.ones(1),
        rewards=np.ones(1),
        weights=np.ones(1),
    )
    alone.progress(log)
    assert alone.correct(log, np.ones(1), np.zeros(1))
    assert alone.state()["lanes/a/policy/stats"][0, 1] == 0.0


def test_a_configuration_says_what_late_rewards_do():
    given = {
        "task": "bandit",
        "source": {"kind": "feedback", "path": "log"},
        "policies": {"a": {"kind": "ucb1"}},
        "rewards": {"window_s": 5.0, "lateness_s": 0.0, "late": "correct"},
    }
    for late, corrections in (("correct", 1), ("count", 0)):
        given["rewards"]["late"] = late
        joiner = bandit_config.parse(given).joiner()
        joined = joiner.take([decided(0), decided(9), rewarded(0)])
        assert (len(joined.corrections), joiner.counts["late_rewards"]) == (corrections, 1)
    given["rewards"]["late"] = "never"
    with pytest.raises(ConfigError, match=r"rewards\.late"):
        bandit_config.parse(given)


def page(tmp_path, events, more=""):
    for name, of in (("decisions", DecisionEvent), ("rewards", RewardEvent)):
        lines = [orjson.dumps(event.record()) + b"\n" for event in events if isinstance(event, of)]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(lines))
    path = tmp_path / "page.yaml"
    path.write_text(
        f"task: bandit\nsource: {{kind: feedback, path: {tmp_path}}}\n"
        "rewards: {window_s: 5, lateness_s: 0}\n"
        f"checkpoint: {{path: {tmp_path / 'state'}}}\n"
        f"dead_letters: {{path: {tmp_path / 'bad.jsonl'}}}\n{more}"
    )
    return path


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_a_decision_that_cannot_be_used_is_a_dead_letter(tmp_path, batch):
    events = [decided(i) for i in range(40)]
    events[3] = decided(3, context={"hour": 1e30})
    events[9] = decided(9, mode="apprentice")
    pipeline = bandit_config.parse(read(page(tmp_path, [*events, *END], "policies: {a: {kind: ucb1}}\n")))
    outcome = runner.run(pipeline, batch=batch)
    assert (outcome.events, outcome.counts["unusable"], outcome.rejected) == (38, 1, 2)
    letters = [orjson.loads(line) for line in (tmp_path / "bad.jsonl").read_bytes().splitlines()]
    assert [letter["where"] for letter in letters] == ["decisions.jsonl:4", "decision d9"]
    assert letters[0]["reason"].endswith("got 1e+30 - at `$.context.hour`, decisions.jsonl:4")
    assert letters[1]["reason"].endswith("got None - at `$.intended`, decision d9")
    assert parse(letters[1]["data"]) == events[9]
    assert runner.run(pipeline).rejected == 2  # told once


def test_too_many_decisions_that_cannot_be_used_end_a_run(tmp_path):
    events = [decided(i, context={"hour": 1e30}) for i in range(400)]
    path = page(tmp_path, [*events, *END], "policies: {a: {kind: ucb1}}\n")
    with pytest.raises(DataError, match=r"the last one: .* decisions\.jsonl:"):
        runner.run(bandit_config.parse(read(path)))


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [34, 254, 255, 1000])
def test_no_context_is_nested_too_deep_to_be_left_out(tmp_path, levels):
    """Also not one that still waits when a checkpoint is written, which knows less depth than what reads."""
    path = page(tmp_path, [decided(0), decided(1, context={"x": 0}), *END], "policies: {a: {kind: ucb1}}\n")
    log = tmp_path / "decisions.jsonl"
    log.write_bytes(log.read_bytes().replace(b'{"x":0}', nested(levels)))
    for command in ("run", "evaluate"):
        assert main([command, str(path)]) == 0
    (letter,) = map(orjson.loads, (tmp_path / "bad.jsonl").read_bytes().splitlines())
    assert letter["reason"].startswith("expected at most 32 levels of nesting, got {'a': ")
    assert letter["reason"].endswith(f"at `$.context{'.a' * 33}`, decisions.jsonl:2")


def test_a_decision_made_in_memory_is_a_dead_letter_whatever_it_holds():
    context: dict = {}
    for _ in range(1000):
        context = {"a": context}
    learner = engine("beta_thompson")
    learner.progress([decided(0), decided(1, context=context), decided(2, context={"x": "\ud800"}), *END])
    deep, torn = learner.take_rejected()
    assert (deep.where, torn.where, learner.counts["learned"]) == ("decision d1", "decision d2", 1)
    assert b"'id': 'd1'" in deep.data
    assert b"'\\ud800'" in torn.data


# --- actions that need not be said ------------------------------------------------------------------------

OFFER = """
name: page
policies: {a: {kind: gaussian_thompson}, b: {kind: linucb}}
actions: [news, sport, film]
tick: 16
shadow: {refresh_every: 50}
snapshots: {path: %s}
"""


@pytest.mark.parametrize("batch", [1, 64, 4096])
def test_snapshots_offer_the_configured_actions_but_for_those_that_have_retired(tmp_path, batch):
    more, store = OFFER % (tmp_path / "snapshots"), SnapshotStore(tmp_path / "snapshots")
    events = [event for i in range(200) for event in (decided(i), rewarded(i, i % 3 / 2))]
    retired = "retired: {film: 1970-01-01T00:02:05Z}\n"
    path = page(tmp_path, [*events, *END], more + retired)
    notices = []
    runner.run(bandit_config.parse(read(path)), batch=batch, on_notice=notices.append)
    offered = {v: store.load(v)[1]["classes"] for v in store.versions()}
    whole, fewer = ["news", "sport", "film"], ["news", "sport"]
    renewed = next(n for n in notices if "film has retired" in n.text and n.what == "promoted")
    assert renewed.event == 125
    assert offered == {v: whole if v < renewed.version else fewer for v in offered}
    assert {str(classes) for classes in offered.values()} == {str(whole), str(fewer)}
    with Predictor(tmp_path / "snapshots", follow=False) as app:
        decision = app.act({"hour": 1})
        assert decision.actions == ("news", "sport")
        assert app.act({"hour": 1}, ["film", "news"]).probabilities == (0.0, 1.0)


def test_without_configured_actions_a_request_has_to_say(tmp_path):
    more = (OFFER % (tmp_path / "snapshots")).replace("actions: [news, sport, film]\n", "")
    path = page(tmp_path, [*(decided(i) for i in range(100)), *END], more)
    runner.run(bandit_config.parse(read(path)))
    with (
        Predictor(tmp_path / "snapshots", follow=False) as app,
        pytest.raises(BadRecord, match="a list of a"),
    ):
        app.act({"hour": 1})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("[]", "`actions`"),
        ("[a, a]", "`actions`: expected different actions"),
        ("['']", "`actions[0]`"),
        ("news", "`actions`"),
    ],
)
def test_configured_actions_are_checked(tmp_path, actions, message):
    path = page(tmp_path, END, f"policies: {{a: {{kind: ucb1}}}}\nactions: {actions}\n")
    with pytest.raises(ConfigError) as caught:
        bandit_config.parse(read(path))
    assert message in str(caught.value)


def test_actions_may_change_without_invalidating_the_checkpoint(tmp_path):
    more = "policies: {a: {kind: ucb1}}\n"
    plain = bandit_config.parse(read(page(tmp_path, END, more)))
    listed = bandit_config.parse(read(page(tmp_path, END, more + "actions: [news]\n")))
    assert plain.hash() == listed.hash()


def test_a_run_says_what_became_of_feedback(tmp_path, capsys):
    records = [
        event.record() for event in (decided(0), decided(1), decided(50), rewarded(1), rewarded(77, time=2.0))
    ]
    for name, of in (("decisions", records[:3]), ("rewards", records[3:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in of))
    (tmp_path / "page.yaml").write_text(
        f"task: bandit\nsource: {{kind: feedback, path: {tmp_path}}}\npolicies: {{a: {{kind: ucb1}}}}\n"
        "rewards: {window_s: 5, lateness_s: 0}\n"
    )
    assert main(["run", str(tmp_path / "page.yaml")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "feedback since the beginning: 3 decisions, 2 emitted, 1 defaulted, 2 rewards, 1 used, "
        "1 unknown rewards, 1 waiting, 2 learned"
    )


def test_a_run_estimates_by_replay_within_the_declared_bound(tmp_path):
    more = "policies: {a: {kind: ucb1}}\nestimators: [replay]\nmax_weight: 4\n"
    events = [decided(i) for i in range(40)]
    assert main(["run", str(page(tmp_path, [*events, *END], more))]) == 0
