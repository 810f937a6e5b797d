"""Decisions of the embedded predictor: what is played is what is logged, and can be made again."""

import json
import logging
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import orjson
import pytest

import penstock
from penstock.actor import Actor, audit
from penstock.bandits import POLICIES, build
from penstock.codecs.decisions import DecisionJSON
from penstock.decisions import Decision, Logged, Offers, draw, key_of
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.joiner import Joiner
from penstock.logs import parse_lines
from penstock.predictor import Predictor
from penstock.sinks import FileSink, Sink
from penstock.snapshots import SnapshotStore
from penstock.sources.decision_log import read_log
from penstock.sources.feedback import FeedbackSource

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
PATIENCE_S = 60.0
ACTIONS = ["news", "sport", "arts"]


@pytest.fixture(autouse=True)
def policies(monkeypatch):
    """Make the policies beside this file importable, and no key set."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    import steady_policy

    return steady_policy


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


@pytest.fixture
def serve(store, policies):
    """Put and promote a version of a policy."""

    def serve(version, kind="Keyed", level=None, **manifest):
        policy = getattr(policies, kind)(version if level is None else level)
        fields = {"kind": f"steady_policy:{kind}", "task": "bandit", "name": "ads", "classes": ACTIONS}
        store.put(policy.state(), {**fields, "version": version, **manifest})
        store.promote(version, version)
        return policy

    return serve


class Kept:
    """A sink in memory."""

    def __init__(self):
        self.events = []
        self.failure = None

    def send(self, event):
        if self.failure is not None:
            raise self.failure
        self.events.append(event)

    def close(self):
        raise AssertionError("a predictor does not close what it did not open")


@pytest.fixture
def sink():
    return Kept()


@pytest.fixture
def act(store, sink):
    """A predictor on the store, that does not follow."""
    predictors = []

    def make(**parameters):
        predictors.append(Predictor(store.path, follow=False, sink=sink, **parameters))
        return predictors[-1]

    yield make
    for predictor in predictors:
        predictor.close()


def read(path):
    """All events in the two files of a sink."""
    events = []
    for name in ("decisions.jsonl", "rewards.jsonl"):
        found, rejected, _ = parse_lines((path / name).read_bytes(), name=name)
        assert rejected == []
        events += found
    return events


def test_a_decision_is_drawn_from_the_policy_s_distribution_by_its_id(act, serve, sink):
    policy = serve(1)
    predictor = act()
    context = {"user": {"country": "SE"}, "hour": 13}
    before = time.time()
    decision = predictor.act(context, id="d-1")
    offers = Offers.from_rows([context], [ACTIONS], keys=[key_of("d-1", "ads")])
    pmf = policy.probabilities(offers)
    assert decision == Decision(
        id="d-1",
        actions=tuple(ACTIONS),
        action=ACTIONS[draw(pmf, key_of("d-1", "ads"))],
        propensity=float(pmf[draw(pmf, key_of("d-1", "ads"))]),
        probabilities=tuple(pmf.tolist()),
        snapshot=1,
    )
    (event,) = sink.events
    assert event.decision == decision
    assert (event.context, event.pipeline, event.mode, event.weight) == (context, "ads", "online", 1.0)
    assert event.intended is event.action_rows is None
    assert before <= event.time <= time.time()
    assert predictor.act(context, id="d-1") == decision
    assert predictor.act(context, id="d-2") != decision
    assert isinstance(sink, Sink)


def test_actions_are_drawn_as_often_as_their_probabilities_say(act, serve):
    serve(1)
    predictor = act()
    drawn, expected = Counter(), Counter()
    n = 3000
    for number in range(n):
        decision = predictor.act({}, id=f"d-{number}")
        drawn[decision.action] += 1
        for action, probability in zip(decision.actions, decision.probabilities, strict=True):
            expected[action] += probability
    for action in ACTIONS:
        p = expected[action] / n
        assert abs(drawn[action] - expected[action]) < 4.0 * math.sqrt(n * p * (1.0 - p))


def test_ids_are_made_where_none_is_given(act, serve):
    serve(1)
    predictor = act()
    ids = {predictor.act({}).id for _ in range(10)}
    assert len(ids) == 10
    assert all(len(id_) == 32 for id_ in ids)


def test_each_request_offers_its_own_actions(act, serve, sink):
    serve(1)
    predictor = act()
    assert predictor.act({}, ["x", "y"]).actions == ("x", "y")
    assert predictor.act({}, ["x"]).propensity == 1.0
    assert predictor.act({}, (name for name in "xyz")).actions == ("x", "y", "z")
    features = {"small": {"size": 1.0}, "large": {"size": 9.0, "tags": ("new",)}, "none": {}}
    decision = predictor.act({}, features)
    assert decision.actions == ("small", "large", "none")
    assert sink.events[-1].action_rows == ({"size": 1.0}, {"size": 9.0, "tags": ["new"]}, {})
    assert predictor.act({}, list(features), id=decision.id).probabilities != decision.probabilities
    serve(2, classes=None)
    with pytest.raises(BadRecord, match=r"expected a list of actions.*, got None - at `\$\.actions`"):
        act().act({})


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"actions": []}, "expected at least one action, got [] - at `$.actions`"),
        ({"actions": ["a", "a"]}, "expected different actions, got ['a', 'a'] - at `$.actions`"),
        ({"actions": ["a", 1]}, "expected a string as action, got 1 - at `$.actions`"),
        (
            {"actions": "ab"},
            "expected a list of actions, or a mapping from actions to features, got 'ab' - at `$.actions`",
        ),
        ({"actions": {"a": 3}}, "expected a mapping of names to features, got 3 - at `$.actions.a`"),
        (
            {"actions": {"a": {"x": math.nan}}},
            "expected a finite number of magnitude <= 1e18, got nan - at `$.actions.a.x`",
        ),
        (
            {"actions": {"b": {}, "a": {"x": 1e30}}},
            "expected a finite number of magnitude <= 1e18, got 1e+30 - at `$.actions.a.x`",
        ),
        ({"context": 3}, "expected a mapping of names to features, got 3 - at `$`"),
        (
            {"context": {"x": {"y": math.inf}}},
            "expected a finite number of magnitude <= 1e18, got inf - at `$.x.y`",
        ),
        (
            {"context": {"x": 10**30}},
            f"expected a finite number of magnitude <= 1e18, got {10**30} - at `$.x`",
        ),
        (
            {"context": {"x": b"SE"}},
            "expected a number, a string, a boolean, a list or a mapping, got b'SE' - at `$.x`",
        ),
        (
            {"context": {"user": {"x": Decimal("1e400")}}},
            "expected a finite number of magnitude <= 1e18, got Decimal('1E+400') - at `$.user.x`",
        ),
        ({"context": {3: 1}}, "expected a string as name, got 3 - at `$`"),
        ({"id": ""}, "expected a string that is not empty, got '' - at `$.id`"),
        ({"id": 7}, "expected a string that is not empty, got 7 - at `$.id`"),
    ],
)
@pytest.mark.parametrize("cold", [False, True])
def test_bad_requests_are_named_and_not_logged(act, serve, sink, request_, message, cold):
    if not cold:
        serve(1)
    predictor = act(cold_start="uniform")
    with pytest.raises(BadRecord) as caught:
        predictor.act(**{"context": {}, "actions": ["a", "b"], **request_})
    assert str(caught.value) == message
    assert sink.events == []


@pytest.mark.parametrize(
    ("level", "reason"),
    [(0, "not a distribution: event 0 has"), (1, "it gives probabilities of shape (3,) for 2 actions")],
)
def test_what_is_no_distribution_does_not_leave(act, serve, sink, level, reason):
    serve(1, "Unsound", level)
    with pytest.raises(StoreError) as caught:
        act().act({}, ["a", "b"])
    assert str(caught.value).startswith(f"snapshot 1 cannot decide: {reason}")
    assert sink.events == []


def test_whatever_is_a_number_to_a_learner_is_one_to_a_policy(act, serve, sink):
    serve(1)
    size = namedtuple("Size", "width height")
    context = {"price": Decimal("1.5"), "share": Fraction(1, 4), "size": size(2, 3)}
    act().act(context, {"a": context, "b": {}})
    logged = {"price": 1.5, "share": 0.25, "size": [2, 3]}
    assert (sink.events[0].context, sink.events[0].action_rows) == (logged, (logged, {}))


def test_the_baseline_is_played_by_an_apprentice(act, serve, sink):
    policy = serve(1)
    apprentice = act(mode="apprentice")
    pmf = policy.probabilities(Offers.from_rows([{}], [ACTIONS], keys=[key_of("d", "ads")]))
    intended = (draw(pmf, key_of("d", "ads")), tuple(pmf.tolist()))
    decision = apprentice.act({}, id="d")
    assert (decision.action, decision.propensity, decision.probabilities) == ("news", 1.0, (1.0, 0.0, 0.0))
    assert apprentice.act({}, id="d", baseline="arts").action == "arts"
    assert [event.intended for event in sink.events] == [intended, intended]
    assert {event.mode for event in sink.events} == {"apprentice"}


def test_logging_only_plays_what_the_application_chose(act, serve, sink):
    serve(1)
    logger = act(mode="logging_only")
    assert logger.act({}, baseline="sport").action == "sport"
    assert sink.events[0].intended is not None
    for baseline in (None, "chess"):
        with pytest.raises(BadRecord, match="expected the action that is played, one of those offered"):
            logger.act({}, baseline=baseline)
    assert act().act({}, id="d", baseline="sport") == act().act({}, id="d")  # online decides by itself


def test_parameters_are_checked(store, serve):
    serve(1)
    with pytest.raises(ValueError, match="expected a mode of online, apprentice, logging_only, got 'off'"):
        Predictor(store.path, mode="off")
    with pytest.raises(ValueError, match="expected cold_start to be 'uniform' or None, got 'greedy'"):
        Predictor(store.path, cold_start="greedy")


def test_before_the_first_snapshot_all_actions_are_equal(store, serve, sink, caplog):
    with pytest.raises(StoreError, match="no snapshot serves yet"):
        Predictor(store.path, wait_s=None)
    with (
        Predictor(
            store.path, wait_s=None, cold_start="uniform", pipeline="ads", poll_s=0.002, sink=sink
        ) as predictor,
        caplog.at_level(logging.ERROR, "penstock"),
    ):
        decision = predictor.act({"x": 1}, ["a", "b", "c", "d"])
        assert decision.probabilities == (0.25,) * 4
        assert (decision.snapshot, predictor.snapshot, predictor.manifest["version"]) == (0, 0, 0)
        assert not predictor.refresh()
        assert predictor.error is None
        with pytest.raises(BadRecord):
            predictor.act({})  # nothing is configured yet
        with pytest.raises(StoreError, match=r"no snapshot serves yet: .* has no alias 'serving'"):
            predictor.predict({})
        serve(1, "Greedy", 1)
        deadline = time.monotonic() + PATIENCE_S
        while predictor.snapshot != 1:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert predictor.act({}).action == "sport"
    assert caplog.records == []
    assert audit(sink.events[0], store) == sink.events[0]


def test_a_policy_does_not_predict_and_a_learner_does_not_act(store, serve, sink):
    import steady_learner

    serve(1)
    store.put(steady_learner.Steady(2).state(), {"kind": "steady_learner:Steady", "task": "regression"})
    with Predictor(store.path, follow=False, sink=sink) as predictor:
        for predict in (predictor.predict, predictor.predict_detailed, lambda x: predictor.predict_many([x])):
            with pytest.raises(StoreError, match=r"^snapshot 1 is a policy: ask it with act\(\)$"):
                predict({})
        store.promote(2, 2)
        assert predictor.refresh()
        assert predictor.predict({}) == 2.0
        with pytest.raises(StoreError) as caught:
            predictor.act({})
        assert str(caught.value) == (
            "snapshot 2 is for task 'regression': it predicts, and only a policy (task 'bandit') can act"
        )
    store.put(steady_learner.Steady(3).state(), {"kind": "steady_learner:Steady", "task": "bandit"})
    store.promote(3, 3)
    with pytest.raises(StoreError) as caught:
        Predictor(store.path)
    assert str(caught.value) == "snapshot 3, 'steady_learner:Steady' for task 'bandit', is no policy"


def test_a_deferred_decision_counts_once_it_is_activated(act, serve, sink, monkeypatch, caplog):
    serve(1)
    predictor = act()
    decision = predictor.act({}, id="d", activate=False)
    assert sink.events == []
    sink.failure = StoreError("the disk is full")
    with pytest.raises(StoreError, match="the disk is full"):
        predictor.activate("d")
    sink.failure = None
    before = time.time()
    predictor.activate("d")
    (event,) = sink.events
    assert event.decision == decision
    assert event.time >= before
    for id_ in ("d", "never"):
        with pytest.raises(BadRecord, match="expected the id of a decision that waits for its activation"):
            predictor.activate(id_)
    monkeypatch.setattr("penstock.predictor._MAX_DEFERRED", 2)
    for id_ in ("x", "y", "z"):
        predictor.act({}, id=id_, activate=False)
    assert [record.getMessage() for record in caplog.records] == [
        "decision x was never activated, and 2 wait"
    ]
    predictor.activate("z")
    predictor.activate("y")
    with pytest.raises(BadRecord):
        predictor.activate("x")


def test_rewards_are_logged(act, serve, sink):
    serve(1)
    predictor = act()
    before = time.time()
    predictor.reward("d", np.float32(0.5))
    predictor.reward("d", True, 12.5, reward_id="click")
    first, second = sink.events
    assert (first.id, first.value) == ("d", 0.5)
    assert before <= first.time <= time.time()
    assert len(first.reward_id) == 32
    assert second == RewardEvent(id="d", time=12.5, value=1.0, reward_id="click")


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("d", math.nan), "$.reward"),
        (("d", math.inf), "$.reward"),
        (("d", "1"), "$.reward"),
        (("d", None), "$.reward"),
        (("d", 10**400), "$.reward"),
        (("d", 1.0, math.nan), "$.time"),
        (("d", 1.0, "now"), "$.time"),
        (("", 1.0), "$.id"),
        ((None, 1.0), "$.id"),
    ],
)
def test_bad_rewards_are_named_and_not_logged(act, serve, sink, arguments, path):
    serve(1)
    with pytest.raises(BadRecord) as caught:
        act().reward(*arguments)
    assert caught.value.path == path
    assert sink.events == []


def test_closed_means_closed(act, serve):
    serve(1)
    predictor = act()
    predictor.close()
    for call in (lambda: predictor.act({}), lambda: predictor.reward("d", 1.0)):
        with pytest.raises(StoreError, match=r"^the predictor is closed$"):
            call()


def test_every_logged_decision_can_be_made_again(store, serve, tmp_path):
    """From the log and the snapshots alone: the same distribution, to the bit, and the same action."""
    log = tmp_path / "log"
    rng = np.random.default_rng(0)
    decisions = []
    with Predictor(store.path, follow=False, sink=log, cold_start="uniform", pipeline="ads") as predictor:
        for number in range(120):
            if number % 30 == 20:
                serve(1 + number // 30, level=0.1 * number)
                assert predictor.refresh()
            context = {"a": np.float32(rng.normal()), "b": {"c": rng.normal(), "d": None}, "t": ("u", 1)}
            features = {f"arm-{k}": {"x": np.float64(rng.normal()), "n": np.int64(k)} for k in range(4)}
            actions = features if number % 2 else list(features)
            decisions.append(predictor.act(context, actions))
    for mode in ("apprentice", "logging_only"):
        with Predictor(store.path, follow=False, sink=log, mode=mode) as predictor:
            decisions += [predictor.act({"n": n}, baseline="sport") for n in range(5)]
    events = read(log)
    assert [event.decision for event in events] == decisions
    assert {event.snapshot for event in events} == {0, 1, 2, 3, 4}
    for event in events:
        assert audit(event, store) == event
    actor = Actor.of(*store.load(4))
    assert [actor.redo(event) for event in events if event.snapshot == 4] == [
        event for event in events if event.snapshot == 4
    ]
    # What is not what was decided is found out.
    event = next(event for event in events if event.snapshot)
    for wrong in (
        {**event.record(), "context": {"a": 0.0}},
        {**event.record(), "snapshot": 4},
        {**event.record(), "id": "another"},
    ):
        forged = parse(wrong)
        assert audit(forged, store) != forged
    with pytest.raises(StoreError, match="has no version 9"):
        audit(parse({**event.record(), "snapshot": 9}), store)


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_every_registered_policy_decides_and_can_be_audited(store, sink, kind, monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "sesame")  # some keep a library's own format
    policy = build(kind, seed=3)
    rng = np.random.default_rng(1)
    rows = [{"x": float(x)} for x in rng.normal(size=40)]
    offers = Offers.from_rows(rows, [ACTIONS] * 40, keys=[key_of(f"learned-{n}", "ads") for n in range(40)])
    policy.learn(
        Logged(
            offers=offers,
            chosen=rng.integers(0, 3, 40),
            propensities=np.full(40, 1.0 / 3.0),
            rewards=rng.integers(0, 2, 40).astype(float),
            weights=np.ones(40),
        )
    )
    frozen = policy.freeze()
    store.put(frozen.state(), {"kind": kind, "task": "bandit", "name": "ads", "classes": ACTIONS})
    store.promote(1, 1)
    with Predictor(store.path, follow=False, sink=sink) as predictor:
        for row in rows[:5]:
            predictor.act(row)
    for event in sink.events:
        offers = Offers.from_rows([event.context], [ACTIONS], keys=[key_of(event.id, "ads")])
        assert event.probabilities == tuple(frozen.probabilities(offers).tolist())
        assert audit(parse(orjson.dumps(event.record())), store) == event


def test_from_the_application_to_the_joiner(store, serve):
    """Without a sink, decisions and rewards lie beside the snapshots."""
    serve(1)
    with Predictor(store.path, follow=False) as predictor:
        decisions = [predictor.act({"n": n}) for n in range(10)]
        for n, decision in enumerate(decisions[::2]):
            predictor.reward(decision.id, float(n))
        assert store.versions() == [1]
        joiner = Joiner(window_s=3600.0, lateness_s=60.0)
        joiner.take(reversed(read(store.path)))
        joined = joiner.flush()
        assert {event.id: reward for event, reward in zip(joined.decisions, joined.rewards, strict=True)} == {
            decision.id: 0.0 if n % 2 else n / 2 for n, decision in enumerate(decisions)
        }


def test_a_torn_line_takes_no_other_along(tmp_path):
    sink = FileSink(tmp_path, fsync=True)
    sink.send(RewardEvent(id="a", time=1.0, value=1.0))
    sink.close()
    file = tmp_path / "rewards.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"id":"b","ti')
    events, rejected, size = parse_lines(file.read_bytes(), name="r")
    assert ([event.id for event in events], rejected) == (["a"], [])
    sink = FileSink(tmp_path)
    sink.send(RewardEvent(id="c", time=2.0, value=1.0))
    sink.close()
    events, rejected, _ = parse_lines(file.read_bytes()[size:], name="r", first_line=2)
    assert ([event.id for event in events], [each.where for each in rejected]) == (["c"], ["r:2"])


def test_a_line_torn_by_a_full_disk_is_ended_as_soon_as_there_is_room(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink, kept = FileSink(tmp_path), []

    def send(id_):
        sink.send(RewardEvent(id=id_, time=1.0, value=1.0))
        kept.append(id_)

    send("before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))  # what a disk says that is full
    try:
        for id_ in ("torn", "refused"):
            with pytest.raises(StoreError, match="cannot write"):
                send(id_)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    send("after")
    file = tmp_path / "rewards.jsonl"
    with file.open("ab") as other:  # another process, and no room for the end of its line either
        other.write(b'{"id":"torn too')
    send("last")
    events, rejected, _ = parse_lines(file.read_bytes(), name="r")
    assert [event.id for event in events] == kept == ["before", "after", "last"]
    assert [each.where for each in rejected] == ["r:2", "r:4"]


def test_what_a_file_cannot_take_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot write to .*file"):
        FileSink(tmp_path / "file")
    sink = FileSink(tmp_path)
    assert repr(sink) == f"FileSink('{tmp_path}')"
    fields = {"id": "d", "time": 0.0, "actions": ("a",), "chosen": 0, "propensity": 1.0}
    with pytest.raises(BadRecord, match="expected what JSON can hold"):
        sink.send(DecisionEvent(context={"x": {1}}, **fields))
    with pytest.raises(BadRecord, match="expected a record of at most 16,777,216 bytes, the sink's `max_rec"):
        sink.send(DecisionEvent(context={"x": "y" * (16 << 20)}, **fields))
    small = FileSink(tmp_path, max_record_bytes=100)
    with pytest.raises(BadRecord, match="expected a record of at most 100 bytes"):
        small.send(DecisionEvent(context={"x": "y" * 100}, **fields))
    small.close()
    sink.close()
    sink.close()
    with pytest.raises(StoreError, match="the sink is closed"):
        sink.send(RewardEvent(id="d", time=0.0, value=1.0))
    assert read(tmp_path) == []
    if Path("/dev/full").exists():
        (tmp_path / "rewards.jsonl").unlink()
        (tmp_path / "rewards.jsonl").symlink_to("/dev/full")
        sink = FileSink(tmp_path)
        with pytest.raises(StoreError, match=r"cannot write .*rewards\.jsonl: No space left on device"):
            sink.send(RewardEvent(id="d", time=0.0, value=1.0))
        sink.close()


def test_ten_thousand_actions_of_fifty_numbers_are_logged_and_read(tmp_path):
    offered = {f"item-{i}": {f"f{j}": (i * 50 + j) / 7 for j in range(50)} for i in range(10_000)}
    with Predictor(tmp_path / "s", wait_s=None, cold_start="uniform", sink=tmp_path, pipeline="ads") as app:
        decision = app.act({"who": "a"}, offered, id="d-1")
        app.reward("d-1", 1.0)
    (event,) = (event for event in read(tmp_path) if isinstance(event, DecisionEvent))
    assert (tmp_path / "decisions.jsonl").stat().st_size > 8 << 20
    assert (event.actions, event.action) == (tuple(offered), decision.action)
    (chunk,) = FeedbackSource(str(tmp_path)).chunks(None, 10)
    assert (len(chunk.batch), chunk.rejected) == (2, ())
    log = tmp_path / "log.jsonl"
    log.write_bytes(orjson.dumps({**event.record(), "reward": 1}) + b"\n")
    ((records, rejected),) = read_log(str(log), DecisionJSON())
    assert (len(records.logged.offers.arms), rejected) == (10_000, ())


def test_names_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`pipeline`: expected text that UTF-8 can hold, got '\\ud800'"):
        Predictor(tmp_path, wait_s=None, cold_start="uniform", pipeline="\ud800")
    with Predictor(tmp_path, wait_s=None, cold_start="uniform") as app:
        for wrong in ([1], None, "", {}):
            with pytest.raises(BadRecord, match=r"a string that is not empty, got .* - at `\$\.id`"):
                app.activate(wrong)


MANY = """
import sys
from penstock import Predictor
path, log, name = sys.argv[1:]
with Predictor(path, follow=False, sink=log) as predictor:
    for n in range(300):
        d = predictor.act({"text": "x" * (n * 40)}, id=f"{name}-{n}")
        predictor.reward(d.id, n)
heavy = ["confluent_kafka", "pandas", "pyarrow", "pydantic", "river", "scipy", "vowpalwabbit", "yaml"]
fronts = ["penstock.config", "penstock.engine", "penstock.runner", "penstock.sources"]
print(*(name for name in heavy + fronts if name in sys.modules))
"""


def test_many_processes_and_threads_share_the_files(store, serve, tmp_path):
    serve(1)
    log = tmp_path / "log"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(store.path), str(log), str(name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for name in range(3)
    ]

    def work(name):
        for n in range(300):
            predictor.reward(predictor.act({}, id=f"{name}-{n}").id, n)

    with Predictor(store.path, follow=False, sink=log) as predictor:
        threads = [threading.Thread(target=work, args=(name,)) for name in (3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (out, err) == ("\n", "")  # and imports nothing heavy
    events = read(log)
    expected = {f"{name}-{n}" for name in range(5) for n in range(300)}
    for kind in (DecisionEvent, RewardEvent):
        ids = [event.id for event in events if isinstance(event, kind)]
        assert len(ids) == 1500
        assert set(ids) == expected


def test_the_log_is_plain_json(store, serve, tmp_path):
    serve(1, "Greedy", 2)
    with Predictor(store.path, follow=False, sink=tmp_path) as predictor:
        predictor.act({"hour": 9}, {"a": {}, "b": {"x": 1}, "c": {}}, id="d")
    (line,) = (tmp_path / "decisions.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record.pop("time") > 1.6e9
    assert record == {
        "id": "d",
        "context": {"hour": 9},
        "actions": {"a": {}, "b": {"x": 1}, "c": {}},
        "action": "c",
        "propensity": 1.0,
        "snapshot": 1,
        "probabilities": [0.0, 0.0, 1.0],
        "pipeline": "ads",
    }


def test_decision_is_public():
    assert penstock.Decision is Decision
