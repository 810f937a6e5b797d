"""Arms retire at a place in the log: however it is cut, resumed or replayed, the state is the same."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import bandit_config, bandit_evaluate, runner
from penstock.bandit_engine import BanditRules, PolicySpec
from penstock.config import read
from penstock.errors import ConfigError, StoreError
from penstock.feedback import DecisionEvent, RewardEvent
from penstock.joined_engine import JoinedEngine
from penstock.joiner import Joiner
from penstock.retirement import Retirements
from penstock.snapshots import SnapshotStore

ARMS = ("news", "sport", "film")


def decided(i, time=None):
    return DecisionEvent(
        id=f"d{i}",
        time=float(i) if time is None else time,
        context={"hour": i % 3},
        actions=ARMS,
        chosen=(i * 7 + i // 5) % 3,
        propensity=1 / 3,
    )


def feedback(n):
    """Every other reward comes late."""
    for i in range(n):
        yield decided(i)
        if i % 2:
            yield RewardEvent(id=f"d{i}", time=i + 0.5, value=1.0)
        if i > 20 and i % 4 == 0:
            yield RewardEvent(id=f"d{i - 20}", time=i - 19.0, value=0.5)


def engine(retired, *kinds):
    rules = BanditRules(
        policies={kind: PolicySpec(kind=kind) for kind in kinds or ("beta_thompson", "linucb", "squarecb")},
        tick=16,
    )
    return JoinedEngine(
        rules, Joiner(window_s=5.0, late="correct", memory_s=100.0), pipeline="page", retired=retired
    )


def arms_of(engine, kind):
    state = engine.state()
    return [json.loads(state[f"bandit/lanes/{kind}/policy/{name}"]) for name in ("arms", "retired")]


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(0, 12), max_size=20).map(sorted),
    retired=st.dictionaries(st.sampled_from("abcde"), st.integers(-1, 14).map(float), max_size=5),
    cuts=st.lists(st.integers(0, 20), max_size=5),
)
def test_parts_are_what_a_look_at_each_decision_gives(times, retired, cuts):
    decisions = [decided(i, float(time)) for i, time in enumerate(times)]
    retirements, seen, gone = Retirements(retired), [], []
    bounds = sorted({0, *(min(cut, len(times)) for cut in cuts), len(times)})
    for start, stop in itertools.pairwise(bounds):
        resumed = Retirements(retired)
        resumed.restore(retirements.state())
        retirements = resumed
        for arms, low, high in retirements.parts(decisions, start, stop):
            assert low < high
            gone += arms
            seen += [(i, frozenset(gone)) for i in range(low, high)]
    assert len(set(gone)) == len(gone)
    assert seen == [
        (i, frozenset(arm for arm, at in retired.items() if at <= time)) for i, time in enumerate(times)
    ]


def test_an_arm_is_forgotten_by_policies_with_a_table_and_the_others_go_on():
    retiring, plain = engine({"film": 100.0}), engine({})
    for each in (retiring, plain):
        each.progress(list(feedback(90)))
    assert "film" in arms_of(retiring, "linucb")[0]
    for each in (retiring, plain):
        each.progress(list(feedback(300))[135:])
    for kind in ("beta_thompson", "linucb"):
        arms, retired = arms_of(retiring, kind)
        assert (set(arms), retired) == ({"news", "sport"}, ["film"])
        assert set(arms_of(plain, kind)[0]) == set(ARMS)
    for name, value in plain.state().items():
        if name.startswith("bandit/lanes/squarecb/policy/"):
            np.testing.assert_array_equal(retiring.state()[name], value)
    assert retiring.counts == plain.counts  # its decisions are joined as ever


@pytest.mark.parametrize("cut", [1, 7, 64, 1000])
def test_where_feedback_is_cut_or_resumed_changes_nothing(cut):
    retired = {"film": 100.5, "sport": 200.0, "nobody": 150.0}
    events = list(feedback(300))
    whole, pieces = engine(retired), engine(retired)
    whole.progress(events)
    for start in range(0, len(events), cut):
        pieces.progress(events[start : start + cut])
        if start % (cut * 5) == 0:
            resumed = engine(retired)
            resumed.restore(pieces.state())
            pieces = resumed
    assert pieces.digest() == whole.digest()


def test_an_arm_retired_in_the_middle_of_a_run_is_as_if_it_had_been_known_before():
    events = list(feedback(300))
    known, told = engine({"film": 200.0}), engine({})
    known.progress(events)
    told.progress(events[:200])
    resumed = engine({"film": 200.0})
    resumed.restore(told.state())
    resumed.progress(events[200:])
    assert resumed.digest() == known.digest()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"film": 50.0}, "`retired.film`: 1970-01-01T00:00:50+00:00 is too early, as decisions up to"),
        ({"film": 50.0}, {}, "`retired.film`: was retired as of 1970-01-01T00:00:50+00:00, and what was"),
        ({"film": 50.0}, {"film": 60.0}, "`retired.film`: was retired as of 1970-01-01T00:00:50"),
        ({"film": 1e6}, {"film": 60.0}, "`retired.film`: 1970-01-01T00:01:00"),
    ],
)
def test_the_past_cannot_be_changed(before, after, message):
    learned, resumed = engine(before), engine(after)
    learned.progress(list(feedback(100)))
    with pytest.raises(StoreError) as caught:
        resumed.restore(learned.state())
    assert str(caught.value).startswith(message)


# --- configured -------------------------------------------------------------------------------------------

CONFIG = """
name: page
task: bandit
source: {kind: feedback, path: %s}
policies: {a: {kind: linucb}, b: {kind: squarecb}}
rewards: {window_s: 5, lateness_s: 0}
checkpoint: {path: %s}
"""


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "log").mkdir()
    events = list(feedback(400))

    def write(n):
        for name, of in (("decisions", DecisionEvent), ("rewards", RewardEvent)):
            lines = [json.dumps(event.record()) for event in events[:n] if isinstance(event, of)]
            (tmp_path / "log" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def configured(state, retired=""):
        path = tmp_path / "page.yaml"
        path.write_text(CONFIG % (tmp_path / "log", tmp_path / state) + retired)
        return bandit_config.parse(read(path))

    configured.write = write
    write(len(events))
    return configured


def test_a_list_that_grows_does_not_invalidate_the_checkpoint_and_a_replay_agrees(pipeline):
    retired = "retired: {film: 1970-01-01T00:05:00Z}\n"
    pipeline.write(300)
    runner.run(pipeline("a"))
    pipeline.write(10**6)
    resumed = runner.run(pipeline("a", retired))
    assert resumed.resumed_at > 0
    replayed = runner.run(pipeline("b", retired))
    assert replayed.resumed_at == 0
    assert replayed.digest == resumed.digest != runner.run(pipeline("c")).digest
    with pytest.raises(StoreError, match=r"`retired\.sport`: .* is too early"):
        runner.run(pipeline("b", "retired: {film: 1970-01-01T00:05:00Z, sport: 1970-01-01T00:05:00Z}"))
    with pytest.raises(StoreError, match="cannot come back"):
        runner.run(pipeline("b"))


def test_no_rollback_by_hand_leads_back_to_the_arm_either(pipeline, tmp_path):
    more = f"""retired: {{film: 1970-01-01T00:05:00Z}}
tick: 32
shadow: {{refresh_every: 64}}
snapshots: {{path: {tmp_path / "snapshots"}}}
"""
    notices = []
    runner.run(pipeline("a", more), on_notice=notices.append)
    (anew,) = [notice for notice in notices if "serves anew, as" in notice.text]
    store = SnapshotStore(tmp_path / "snapshots")
    store.rollback(anew.version)
    with pytest.raises(StoreError, match=f"version {anew.version} serves and has no parent to go back to"):
        store.rollback()


def test_evaluation_retires_where_the_daemon_does(pipeline):
    plain = bandit_evaluate.evaluate(pipeline("a"))
    retiring = bandit_evaluate.evaluate(pipeline("a", "retired: {film: 1970-01-01T00:05:00Z}"))
    later = bandit_evaluate.evaluate(pipeline("a", "retired: {film: 1971-01-01T00:00:00Z}"))
    assert retiring.events == plain.events == later.events
    assert retiring.digest != plain.digest == later.digest
    assert retiring.policies["b"] == plain.policies["b"]


@pytest.mark.parametrize(
    ("source", "retired", "message"),
    [
        (
            {"kind": "feedback", "path": "x"},
            {"film": "2026-11-20"},
            "`retired.film`: input should have timezone",
        ),
        ({"kind": "feedback", "path": "x"}, ["film"], "`retired`: expected a mapping"),
        ({"kind": "log", "path": "x"}, {"film": 5.0}, "`retired`: decisions of source 'log' have no time"),
    ],
)
def test_mistakes_are_named(source, retired, message):
    given = {"task": "bandit", "source": source, "policies": {"a": {"kind": "ucb1"}}, "retired": retired}
    with pytest.raises(ConfigError) as caught:
        bandit_config.parse(given)
    assert message in str(caught.value)
