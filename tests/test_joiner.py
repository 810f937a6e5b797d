"""The joiner against a naive join of the whole log, in any order of arrival, cut and resumed anywhere."""

import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import tensors
from penstock.errors import BadRecord, StoreError
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.gate import Gate
from penstock.joiner import Joiner
from penstock.logs import parse_lines, to_logged
from penstock.state import digest

AGGREGATES = {
    "first": lambda earned: min(earned)[1],
    "last": lambda earned: max(earned)[1],
    "sum": lambda earned: math.fsum(value for _, value in earned),
    "mean": lambda earned: math.fsum(value for _, value in earned) / len(earned),
    "min": lambda earned: min(value for _, value in earned),
    "max": lambda earned: max(value for _, value in earned),
}


def decided(id_, time, **fields):
    fields = {"context": {"hour": 9}, "actions": ("a", "b"), "chosen": 0, "propensity": 0.5, **fields}
    return DecisionEvent(id=id_, time=float(time), **fields)


def reward(id_, time, value=1.0, reward_id=None):
    return RewardEvent(id=id_, time=float(time), value=value, reward_id=reward_id)


def batch_join(events, *, window, lateness, aggregate, default):
    """Join a whole log at once: for each decision, in their order, all its rewards that count."""
    decisions = {}
    for event in events:
        if isinstance(event, DecisionEvent):
            decisions.setdefault(event.id, event)
    joined = []
    for decision in sorted(decisions.values(), key=lambda d: d.time):  # stable: then by arrival
        earned = {}
        for number, event in enumerate(events):
            if isinstance(event, RewardEvent) and event.id == decision.id:
                key = number if event.reward_id is None else event.reward_id
                if -lateness <= event.time - decision.time <= window:
                    earned.setdefault(key, (event.time, event.value))
        label = AGGREGATES[aggregate](earned.values()) if earned else default
        if label is not None:
            joined.append((decision.id, label))
    return joined


def labels(joined):
    return list(zip([d.id for d in joined.decisions], joined.rewards.tolist(), strict=True))


def run(joiner, events, cuts=()):
    """Take `events` cut at `cuts`, flush, and return labels and corrections."""
    emitted, corrections = [], []
    for start, stop in pairwise([0, *sorted(cuts), len(events)]):
        joined = joiner.take(events[start:stop])
        emitted += labels(joined)
        corrections += joined.corrections
    joined = joiner.flush()
    return emitted + labels(joined), corrections + joined.corrections


def check_counts(joiner):
    counts, state = joiner.counts, joiner.state()
    n_waiting = len(state["waiting/arrivals"])
    assert joiner.n_pending == n_waiting
    assert counts["decisions"] == n_waiting + sum(
        counts[name] for name in ("emitted", "dropped", "duplicate_decisions", "late_decisions")
    )
    n_attached = int((state["rewards/owners"] < n_waiting).sum())
    assert counts["rewards"] == (
        n_attached
        + len(state["early/arrivals"])
        + sum(
            counts[name]
            for name in (
                "used",
                "duplicate_rewards",
                "outside_window",
                "late_rewards",
                "unknown_rewards",
                "evicted_rewards",
            )
        )
    )


times = st.integers(0, 40).map(lambda n: n / 2)
values = st.sampled_from([-1.0, 0.0, -0.0, 0.1, 0.2, 0.3, 1.0, 1e16, -1e16])


@st.composite
def logs(draw, *, max_delay=None):
    """Events in an order of arrival in which none is later than `max_delay`; any order without it.

    Decisions and rewards are delivered up to three times; some rewards are nobody's, some far too late.
    """
    events = []
    n_decisions = draw(st.integers(0, 8))
    for number in range(n_decisions):
        event = decided(f"d{number}", draw(times))
        events += [event] * draw(st.sampled_from([1, 1, 1, 2, 3]))
    for number in range(draw(st.integers(0, 12))):
        id_ = f"d{draw(st.integers(0, n_decisions))}"  # the last is unknown
        reward_id = draw(st.sampled_from([None, f"r{number}"]))
        event = reward(id_, draw(times), draw(values), reward_id)
        events += [event] * (1 if reward_id is None else draw(st.sampled_from([1, 1, 2, 3])))
    if max_delay is None:
        return draw(st.permutations(events))
    delays = draw(st.lists(st.integers(0, int(2 * max_delay)), min_size=len(events), max_size=len(events)))
    return [e for _, e in sorted(zip(delays, events, strict=True), key=lambda x: x[0] / 2 + x[1].time)]


parameters = st.fixed_dictionaries(
    {
        "window_s": st.sampled_from([0.0, 2.5, 6.0]),
        "aggregate": st.sampled_from(sorted(AGGREGATES)),
        "default_reward": st.sampled_from([None, 0.0, -0.5]),
    }
)


def cuts_of(events):
    return st.lists(st.integers(0, len(events)), max_size=5)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), parameters=parameters, lateness=st.sampled_from([0.0, 1.0, 5.0]))
def test_within_the_lateness_it_is_the_join_of_the_whole_log(data, parameters, lateness):
    events = data.draw(logs(max_delay=lateness))
    joiner = Joiner(lateness_s=lateness, memory_s=1e6, late="correct", **parameters)
    emitted, corrections = run(joiner, events, data.draw(cuts_of(events)))
    assert corrections == []
    assert joiner.counts["late_decisions"] == joiner.counts["late_rewards"] == 0
    assert emitted == batch_join(
        events,
        window=parameters["window_s"],
        lateness=lateness,
        aggregate=parameters["aggregate"],
        default=parameters["default_reward"],
    )
    check_counts(joiner)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), parameters=parameters, lateness=st.sampled_from([0.0, 1.0, 5.0]))
def test_in_any_order_the_corrections_complete_the_join(data, parameters, lateness):
    """Whatever comes however late: what was emitted, corrected, is the join of the whole log."""
    events = data.draw(logs())
    joiner = Joiner(lateness_s=lateness, memory_s=1e6, late="correct", **parameters)
    emitted, corrections = run(joiner, events, data.draw(cuts_of(events)))
    check_counts(joiner)
    times = {event.id: event.time for event in events if isinstance(event, DecisionEvent)}
    in_order = [times[id_] for id_, _ in emitted]
    assert in_order == sorted(in_order)
    known = dict(emitted)
    for correction in corrections:
        assert known.get(correction.decision.id) == correction.old != correction.new
        known[correction.decision.id] = correction.new
    # Decisions that came when newer ones had been emitted are not there.
    whole = dict(
        batch_join(
            events,
            window=parameters["window_s"],
            lateness=lateness,
            aggregate=parameters["aggregate"],
            default=parameters["default_reward"],
        )
    )
    assert known.keys() <= whole.keys()
    assert {id_: whole[id_] for id_ in known} == known
    if not joiner.counts["late_decisions"]:
        assert known == whole


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    parameters=parameters,
    late=st.sampled_from(["correct", "count"]),
    max_pending=st.sampled_from([1, 2, 3, 1000]),
)
def test_cuts_and_resumption_change_nothing(data, parameters, late, max_pending):
    events = data.draw(logs())

    def make():
        return Joiner(lateness_s=1.0, late=late, max_pending=max_pending, **parameters)

    whole, split = make(), make()
    expected = whole.take(events)
    emitted, corrections, defaulted = [], [], []
    for start, stop in pairwise([0, *sorted(data.draw(cuts_of(events))), len(events)]):
        resumed = make()
        resumed.restore(split.state())
        assert digest(resumed.state()) == digest(split.state())
        split = resumed
        joined = split.take(events[start:stop])
        corrections += [replace(one, after=len(emitted) + one.after) for one in joined.corrections]
        emitted += labels(joined)
        defaulted += joined.defaulted.tolist()
    assert emitted == labels(expected)
    assert corrections == expected.corrections
    assert defaulted == expected.defaulted.tolist()
    assert split.counts == whole.counts
    assert digest(split.state()) == digest(whole.state())
    assert labels(split.flush()) == labels(whole.flush())
    assert digest(split.state()) == digest(whole.state())
    check_counts(whole)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), max_pending=st.integers(1, 4), late=st.sampled_from(["correct", "count"]))
def test_room_is_bounded_and_nothing_is_silent(data, max_pending, late):
    joiner = Joiner(window_s=100.0, max_pending=max_pending, late=late)
    for event in data.draw(logs()):
        joiner.take([event])
        state = joiner.state()
        assert joiner.n_pending <= max_pending
        assert len(state["known/labels"]) <= max_pending
        assert len(state["rewards/owners"]) + len(state["early/arrivals"]) <= max_pending
        assert len(joiner._early_order) <= 2 * max_pending + 64
        check_counts(joiner)


def test_permuting_arrivals_within_the_lateness_changes_nothing():
    rng = np.random.default_rng(3)
    decisions = [decided(f"d{n}", n + rng.random() / 2) for n in range(300)]
    rewards = [
        reward(d.id, d.time + rng.exponential(4.0), rng.normal()) for d in decisions if rng.random() < 0.4
    ]
    events = sorted(decisions + rewards, key=lambda e: e.time)
    expected, _ = run(Joiner(window_s=10.0, aggregate="sum", lateness_s=5.0), events)
    assert [id_ for id_, _ in expected] == [d.id for d in decisions]
    assert 60 < sum(label != 0.0 for _, label in expected) < 140
    for _ in range(10):
        delays = 5.0 * rng.random(len(events))
        arrivals = [events[n] for n in np.argsort([e.time + d for e, d in zip(events, delays, strict=True)])]
        assert arrivals != events
        joiner = Joiner(window_s=10.0, aggregate="sum", lateness_s=5.0)
        assert run(joiner, arrivals) == (expected, [])
        assert joiner.counts["late_rewards"] == joiner.counts["late_decisions"] == 0


def test_without_delay_nothing_is_changed():
    decisions = [decided(f"d{n}", n // 3) for n in range(30)]  # three at a time: they keep their order
    events = [event for d in decisions for event in (d, reward(d.id, d.time, float(d.id[1:])))]
    emitted, _ = run(Joiner(window_s=0.0), events)
    assert emitted == [(f"d{n}", float(n)) for n in range(30)]


def test_every_outcome_has_a_count():
    joiner = Joiner(window_s=10.0, lateness_s=2.0, late="correct", memory_s=20.0)
    joiner.take([reward("b", 1.0), decided("a", 1.0), decided("b", 2.0), decided("a", 1.0)])
    assert joiner.counts["duplicate_decisions"] == 1
    assert joiner.n_pending == 2
    joiner.take([reward("a", 11.0, 2.0, "x"), reward("a", 11.0, 2.0, "x"), reward("a", 11.5, 9.0)])
    assert (joiner.counts["duplicate_rewards"], joiner.counts["outside_window"]) == (1, 1)
    assert joiner.watermark == -0.5

    joined = joiner.take([decided("c", 13.5), reward("nobody", 3.0), reward("nobody", 3.0, 1.0, "y")])
    assert labels(joined) == [("a", 2.0)]
    assert joined.defaulted.tolist() == [False]
    assert labels(joiner.take([decided("d", 20.0)])) == [("b", 1.0)]
    assert joiner.counts["unknown_rewards"] == 2
    assert labels(joiner.take([decided("e", 1.5), decided("a", 1.0)])) == []
    assert (joiner.counts["late_decisions"], joiner.counts["duplicate_decisions"]) == (1, 2)

    joined = joiner.take([reward("a", 8.0, 5.0), reward("a", 11.0, 3.0, "z"), reward("a", 11.0, 3.0, "z")])
    ((correction,), counts) = joined.corrections, joiner.counts
    assert (correction.decision.id, correction.old, correction.new) == ("a", 2.0, 3.0)
    assert (counts["late_rewards"], counts["corrections"], counts["duplicate_rewards"]) == (2, 1, 2)

    joiner.take([decided("f", 40.0), reward("a", 11.0, 7.0)])  # "a" is forgotten, its reward nobody's
    assert labels(joiner.flush()) == [("f", 0.0)]
    assert joiner.counts == {
        "decisions": 8,
        "emitted": 5,
        "dropped": 0,
        "duplicate_decisions": 2,
        "late_decisions": 1,
        "defaulted": 3,
        "evicted": 0,
        "rewards": 10,
        "used": 2,
        "duplicate_rewards": 2,
        "outside_window": 1,
        "late_rewards": 2,
        "unknown_rewards": 3,
        "evicted_rewards": 0,
        "corrections": 1,
        "forgotten": 0,
    }


def test_without_a_default_silence_is_dropped_until_it_is_broken():
    joiner = Joiner(window_s=1.0, default_reward=None, late="correct", memory_s=100.0)
    assert len(joiner.take([decided("a", 0.0), decided("b", 5.0)])) == 0
    assert joiner.counts["dropped"] == 1
    (correction,) = joiner.take([reward("a", 0.5, 4.0)]).corrections
    assert (correction.decision.id, correction.old, correction.new) == ("a", None, 4.0)


def test_late_rewards_are_only_counted_where_nothing_can_be_corrected():
    joiner = Joiner(window_s=1.0, late="count")
    joiner.take([decided("a", 0.0), decided("b", 1.5)])
    assert joiner.take([reward("a", 1.0), reward("a", 1.0)]).corrections == []
    assert joiner.counts["late_rewards"] == 2


def test_a_full_joiner_emits_the_oldest_early():
    joiner = Joiner(window_s=100.0, max_pending=2, late="correct")
    joined = joiner.take([decided("b", 2.0), decided("a", 1.0), reward("b", 3.0), decided("c", 3.0)])
    assert labels(joined) == [("a", 0.0)]
    joined = joiner.take([decided("d", 4.0), decided("e", 1.5), reward("a", 9.0, 8.0)])
    assert labels(joined) == [("b", 1.0)]
    assert [(c.decision.id, c.old, c.new) for c in joined.corrections] == [("a", 0.0, 8.0)]
    assert (joiner.counts["evicted"], joiner.counts["late_decisions"]) == (2, 1)
    # One id cannot take all the room there is, and those of nobody push nothing out but one another.
    joiner.take([reward("nobody", 5.0 + n / 10) for n in range(100)])
    assert joiner.counts["evicted"] == 2
    assert joiner.counts["evicted_rewards"] == 98
    joined = joiner.take([reward("c", 5.0) for n in range(3)])
    assert labels(joined) == [("c", 1.0)]


@pytest.mark.parametrize("aggregate", sorted(AGGREGATES))
def test_sums_neither_overflow_nor_depend_on_their_order(aggregate):
    big = sys.float_info.max
    for rewards, total, mean in (
        ([big, big, -big], big, big / 3),
        ([big, big], big, big),
        ([-big, -big, 0.0], -big, -big / 1.5),
        ([1e16, 1.0, -1e16], 1.0, 1.0 / 3),
    ):
        for order in (rewards, rewards[::-1]):
            joiner = Joiner(window_s=1.0, aggregate=aggregate)
            joiner.take([decided("a", 0.0), *(reward("a", 0.5, value) for value in order)])
            joined = joiner.flush()
            assert np.isfinite(joined.rewards).all()
            if aggregate in ("sum", "mean"):
                assert joined.rewards.tolist() == [total if aggregate == "sum" else mean]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window_s": -1.0}, "expected window_s >= 0 and finite, got -1.0"),
        ({"lateness_s": math.inf}, "expected lateness_s >= 0 and finite, got inf"),
        ({"memory_s": math.nan}, "expected memory_s >= 0 and finite, got nan"),
        ({"default_reward": math.nan}, "expected a finite default_reward or None, got nan"),
        (
            {"aggregate": "median"},
            "expected aggregate to be one of first, last, sum, mean, min, max, got 'median'",
        ),
        ({"late": "drop"}, "expected late to be 'correct' or 'count', got 'drop'"),
        ({"max_pending": 0}, "expected max_pending >= 1, got 0"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match="expected") as caught:
        Joiner(**{"window_s": 1.0, **parameters})
    assert str(caught.value) == message


def test_the_state_survives_a_file(tmp_path):
    joiner = Joiner(window_s=10.0, late="correct", memory_s=50.0)
    joiner.take([reward("late", 0.5), *(decided(f"d{n}", n, weight=0.5) for n in range(30))])
    joiner.take([reward(f"d{n}", n + 1, n / 7, f"r{n}") for n in range(30)])
    joiner.take(
        [
            decided(
                "whole",
                30.0,
                context={"x": np.float32(0.1), "tags": ["u", "v"], "user": {"age": 7}},
                action_rows=({"size": 1}, {}),
                chosen=1,
                propensity=0.25,
                probabilities=(0.75, 0.25),
                snapshot=4,
                pipeline="ads",
            ),
            decided("played", 30.0, mode="apprentice", propensity=1.0, intended=(1, (0.5, 0.5))),
        ]
    )
    file = tmp_path / "state"
    tensors.write(file, joiner.state(), {})
    other = Joiner(window_s=10.0, late="correct", memory_s=50.0)
    other.restore(tensors.read(file)[0])
    assert digest(other.state()) == digest(joiner.state())
    assert other.counts == joiner.counts
    flushed = other.flush()
    assert labels(flushed) == labels(joiner.flush())
    assert flushed.decisions[-1].intended == (1, (0.5, 0.5))
    assert flushed.decisions[-2].context == {
        "x": float(np.float32(0.1)),
        "tags": ["u", "v"],
        "user": {"age": 7},
    }


def test_what_is_no_state_changes_nothing():
    joiner = Joiner(window_s=10.0, memory_s=50.0)
    joiner.take([decided("z", -20.0), decided("a", 0.0), reward("a", 1.0), reward("b", 2.0)])
    good = joiner.state()
    for name in good:
        broken = [{k: v for k, v in good.items() if k != name}]
        if isinstance(good[name], np.ndarray):
            broken.append({**good, name: good[name][:-1]})
        for state in broken:
            with pytest.raises(StoreError, match="not the state of a joiner: "):
                joiner.restore(state)
    assert digest(joiner.state()) == digest(good)
    joiner.take([decided("c", 3.0, context={"x": {1, 2}})])
    with pytest.raises(StoreError, match="a decision that waits cannot be kept: "):
        joiner.state()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_no_reward(value):
    with pytest.raises(BadRecord) as caught:
        reward("a", 0.0, value)
    assert str(caught.value) == f"expected a finite number, got {value} - at `$.reward`"
    events, rejected, _ = parse_lines(
        f'{{"id": "a", "time": 1, "reward": {value}}}\n{{"id": "a", "time": 1, "reward": 1}}\n'.encode(),
        name="rewards.jsonl",
    )
    assert events == [reward("a", 1.0)]
    assert [(each.where, each.after) for each in rejected] == [("rewards.jsonl:1", 0)]


def test_lines_are_read_to_the_last_whole_one():
    whole = b'{"id":"a","time":1,"reward":2}\n\n{"id":"b"}\nnonsense\n'
    events, rejected, size = parse_lines(whole + b'{"id":"c","ti', name="log", first_line=11)
    assert events == [reward("a", 1.0, 2.0)]
    assert size == len(whole)
    assert [each.where for each in rejected] == ["log:13", "log:14"]
    assert rejected[0].reason == "expected an object, got None - at `$.context`, log:13"
    assert rejected[1].reason.startswith("expected JSON (")
    assert parse_lines(b"", name="log") == ([], [], 0)


GOOD = {
    "id": "d",
    "time": 1.0,
    "context": {"x": 1},
    "actions": ["a", "b"],
    "action": "b",
    "propensity": 0.25,
    "probabilities": [0.75, 0.25],
}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"id": ""}, "$.id"),
        ({"id": 7}, "$.id"),
        ({"time": None}, "$.time"),
        ({"time": True}, "$.time"),
        ({"time": 10**400}, "$.time"),
        ({"context": [1]}, "$.context"),
        ({"actions": []}, "$.actions"),
        ({"actions": "ab"}, "$.actions"),
        ({"actions": None}, "$.actions"),
        ({"actions": ["b", "b"]}, "$.actions"),
        ({"actions": ["b", 3]}, "$.actions"),
        ({"actions": {"b": 3}}, "$.actions.b"),
        ({"action": "c"}, "$.action"),
        ({"action": ["a"]}, "$.action"),
        ({"propensity": 0.0}, "$.propensity"),
        ({"propensity": 1.5}, "$.propensity"),
        ({"propensity": 0.5}, "$.propensity"),
        ({"propensity": math.nan}, "$.propensity"),
        ({"probabilities": [1.0]}, "$.probabilities"),
        ({"probabilities": ["x", 0.25]}, "$.probabilities"),
        ({"probabilities": [-1, 0.25]}, "$.probabilities"),
        ({"weight": -1}, "$.weight"),
        ({"snapshot": -1}, "$.snapshot"),
        ({"snapshot": "7"}, "$.snapshot"),
        ({"pipeline": 3}, "$.pipeline"),
        ({"mode": "offline"}, "$.mode"),
        ({"intended": 3}, "$.intended"),
        ({"intended": {"action": "c"}}, "$.intended.action"),
        ({"intended": {"action": "a", "probabilities": None}}, "$.intended.probabilities"),
    ],
)
def test_bad_decisions_are_named(fields, path):
    assert parse(GOOD).action == "b"
    with pytest.raises(BadRecord) as caught:
        parse({**GOOD, **fields}, position="here")
    assert (caught.value.path, caught.value.position) == (path, "here")


@pytest.mark.parametrize("line", [b"[1]", b"\xff", b"", "3"])
def test_what_is_no_record_is_refused(line):
    with pytest.raises(BadRecord, match=r"expected (an object|JSON)"):
        parse(line)


def test_joined_decisions_become_what_policies_learn():
    decisions = [
        decided("a", 0.0, actions=("x", "y", "z"), chosen=2, propensity=0.5, weight=2.0),
        decided("bad", 1.0, context={"x": math.inf}),
        decided("b", 2.0, action_rows=({"size": 1.0}, {"size": 2.0}), propensity=0.125),
    ]
    rewards = np.array([1.0, 2.0, 3.0])
    logged, rejected = to_logged(decisions, rewards, pipeline="ads")
    assert [each.reason for each in rejected] == [
        "expected a finite number of magnitude <= 1e18, got inf - at `$.x`, decision bad"
    ]
    assert parse(rejected[0].data.replace(b"null", b"1")).id == "bad"
    assert logged.offers.arms.tolist() == ["x", "y", "z", "a", "b"]
    assert np.diff(logged.offers.actions.indptr).tolist() == [0, 0, 0, 1, 1]
    assert logged.entries.tolist() == [2, 3]
    assert logged.rewards.tolist() == [1.0, 3.0]
    assert logged.propensities.tolist() == [0.5, 0.125]
    assert logged.weights.tolist() == [2.0, 1.0]
    again, _ = to_logged(decisions[:1], rewards[:1], pipeline="ads")
    other, _ = to_logged(decisions[:1], rewards[:1], pipeline="news")
    assert again.offers.keys[0] == logged.offers.keys[0] != other.offers.keys[0]
    assert len(to_logged([], np.empty(0), pipeline="ads")[0]) == 0


def test_a_gate_promotes_falsely_in_arrival_order_and_not_in_decision_order():
    """Clicks come soon, their absence is known at the end of the window.

    Two predictors of a click, which has probability 0.3: 0.2 and 0.4 have the same expected squared error.
    Whoever learns of the clicks first sees the one that expects more of them win.
    """
    n, window, alpha, n_streams = 3000, 500.0, 0.05, 40
    promoted = {"arrival": 0, "decision": 0}
    for stream in range(n_streams):
        rng = np.random.default_rng(stream)
        clicked = rng.random(n) < 0.3
        delays = np.minimum(rng.exponential(50.0, n), window)
        decisions = [decided(f"{i}", i) for i in range(n)]
        clicks = [reward(f"{i}", i + delays[i]) for i in np.flatnonzero(clicked)]
        log = sorted([*decisions, *clicks], key=lambda event: event.time)
        emitted, _ = run(Joiner(window_s=window), log)
        assert [id_ for id_, _ in emitted] == [d.id for d in decisions]
        in_decision_order = np.array([label for _, label in emitted])
        assert np.array_equal(in_decision_order, clicked)
        known_at = np.arange(n) + np.where(clicked, delays, window)
        for order, observed in (
            ("decision", in_decision_order),
            ("arrival", in_decision_order[np.argsort(known_at, kind="stable")]),
        ):
            gate = Gate(delta=0.0)
            gains = (observed - 0.2) ** 2 - (observed - 0.4) ** 2
            promotes = False
            for start in range(0, n, 20):
                gate.update(gains[start : start + 20])
                promotes |= gate.log_e >= -math.log(alpha)
            promoted[order] += promotes
    assert promoted["arrival"] == n_streams
    assert promoted["decision"] <= 5  # at 5 % each, six of 40 or more have probability 0.014
