"""Same events, same digest: whatever the batches, wherever it was interrupted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import config, sources
from penstock.engine import Engine
from penstock.errors import ConfigError, DataError
from penstock.events import Batch
from penstock.state import State

ROOT = Path(__file__).parents[1]
SMALL = {"source": {"kind": "memory", "rows": []}, "tick": 16}
WHOLE = {
    **SMALL,
    "learners": {
        "sgd": {"kind": "sgd", "bits": 8},
        "other": {"kind": "sgd", "bits": 8, "update": "ftrl"},
    },
    "drift": [{"kind": "adwin", "delta": 0.2, "direction": "up", "react": "warm_restart"}],
    "replay": {"kind": "reservoir", "size": 50},
    "shadow": {"refresh_every": 64, "min_effect": 0.001, "retry_after": 64},
}


def stream(n, task="binary", seed=0, drift_at=None):
    """Two features and a label that depends on them; from `drift_at` on it depends the other way round."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    signal = x @ [2.0, -1.0]
    if drift_at is not None:
        signal[drift_at:] *= -1
    rows = [{"a": a, "b": {"c": c}} for a, c in x.tolist()]
    if task == "regression":
        return Batch.from_rows(rows, signal)
    if task == "multiclass":
        return Batch.from_rows(rows, [["low", "middle", "high"][int(s > -1) + int(s > 1)] for s in signal])
    return Batch.from_rows(rows, (signal > 0) * 1.0)


def finish(engine, batch, size):
    notices = []
    for start in range(0, len(batch), size):
        notices += engine.progress(batch.slice(start, min(start + size, len(batch))))
    return notices


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_batches_change_nothing(task):
    events = stream(700, task, drift_at=350)
    digests, stories = set(), set()
    for size in (1, 7, 256, 10_000):
        engine = Engine(config.parse({**WHOLE, "task": task}))
        notices = finish(engine, events, size)
        digests.add(engine.digest())
        stories.add(tuple((n.what, n.event, n.learner, n.version, n.text) for n in notices))
    assert len(digests) == len(stories) == 1


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_batches_change_nothing_where_nothing_waits_for_a_tick(task):
    events = stream(700, task)
    digests, scores = set(), set()
    for size in (1, 16, 300, 10_000):
        engine = Engine(config.parse({**SMALL, "task": task}))
        finish(engine, events, size)
        digests.add(engine.digest())
        scores.add(str(engine.metrics() | engine.baselines()))
    assert len(digests) == len(scores) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 600), st.sampled_from(["binary", "multiclass", "regression"]))
def test_interruption_changes_nothing(at, task):
    pipeline = config.parse({**WHOLE, "task": task})
    events = stream(600, task, drift_at=300)
    whole, first, second = Engine(pipeline), Engine(pipeline), Engine(pipeline)
    whole.progress(events)
    first.progress(events.slice(0, at))
    second.restore(first.state())
    assert second.digest() == first.digest()
    second.progress(events.slice(at, 600))
    assert second.digest() == whole.digest()
    assert second.metrics() == whole.metrics()


def test_state_shares_no_memory_with_the_engine():
    engine = Engine(config.parse(WHOLE))
    events = stream(400)
    engine.progress(events.slice(0, 200))
    state = engine.state()
    copy: State = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    engine.progress(events.slice(200, 400))
    for name, value in state.items():
        np.testing.assert_array_equal(value, copy[name], err_msg=name)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_do_not_depend_on_batches_or_interruptions(path):
    pipeline = config.load(path)
    if pipeline.source.kind == "file":
        data = ROOT.parent / "shared" / "data" / pipeline.source.parameters["path"]
        if not data.exists():
            pytest.skip(f"{data.name} is not on this machine")
        pipeline = config.load(path, data=str(data))
    limit = 2500
    source = sources.build(pipeline.source.kind, pipeline.learning_task, **pipeline.source.parameters)
    events = next(iter(source.chunks(None, limit))).batch

    engines = [Engine(pipeline) for _ in range(4)]
    for engine, size in zip(engines, (1, 7, 256, 10_000), strict=True):
        finish(engine, events, size)
    resumed = Engine(pipeline)
    for start, stop in ((0, 3), (3, 256), (256, 1111), (1111, len(events))):
        before, resumed = resumed, Engine(pipeline)
        resumed.restore(before.state())
        resumed.progress(events.slice(start, stop))
    assert len({engine.digest() for engine in [*engines, resumed]}) == 1


def test_drift_is_found_answered_and_a_candidate_promoted():
    pipeline = config.parse({**WHOLE, "shadow": {"refresh_every": 500}, "tick": 64})
    notices = Engine(pipeline).progress(stream(8000, drift_at=4000))
    drifts = [n for n in notices if n.what == "drift" and n.event >= 4000]
    assert drifts
    assert drifts[0].event < 4200
    replaced = [
        n for n in notices if n.what == "promoted" and n.how == "replace" and n.event > drifts[0].event
    ]
    assert replaced
    assert replaced[0].evidence["log_e"] >= replaced[0].evidence["threshold"]
    assert replaced[0].model is None  # it was handed out when it was opened
    opened = next(n for n in notices if n.what == "opened" and n.version == replaced[0].version)
    assert opened.model is not None


def test_a_learner_that_improves_is_not_restarted():
    """ADWIN rings for a loss that falls, too, as it does while a learner gets better."""
    rings = {
        **WHOLE,
        "drift": [{"kind": "adwin", "delta": 0.5, "direction": "both", "react": "warm_restart"}],
    }
    logs = {**WHOLE, "drift": [{"kind": "adwin", "delta": 0.5, "direction": "both", "react": "log"}]}
    watched, left_alone = Engine(config.parse(rings)), Engine(config.parse(logs))
    notices, _ = watched.progress(stream(1000)), left_alone.progress(stream(1000))
    drifts = [notice for notice in notices if notice.what == "drift"]
    assert drifts
    assert all(n.evidence["after"] < n.evidence["before"] for n in drifts)
    assert {n.evidence["reaction"] for n in drifts} == {"log"}
    assert watched.metrics() == left_alone.metrics()


def test_weight_zero_and_drift_do_not_depend_on_batches():
    """An alarm is placed among all events, and what is forgotten among those that counted."""
    events = stream(1500, drift_at=700)
    silent = events.with_weights(np.where(np.arange(1500) % 5 < 2, 0.0, 1.0))
    digests, alarms = set(), set()
    for size in (1, 7, 256, 10_000):
        engine = Engine(config.parse(WHOLE))
        notices = finish(engine, silent, size)
        digests.add(engine.digest())
        alarms.add(tuple(n.event for n in notices if n.what == "drift"))
    assert len(digests) == len(alarms) == 1
    (found,) = alarms
    assert any(700 < event < 900 for event in found)
    assert all(silent.weights[event - 1] > 0 for event in found)


def test_replay_does_not_touch_scores_before_it_is_learned():
    events = stream(16)
    with_replay, without = (
        Engine(config.parse(WHOLE)),
        Engine(config.parse({**WHOLE, "replay": None, "drift": []})),
    )
    with_replay.progress(events)
    without.progress(events)
    assert with_replay.metrics() == without.metrics()
    assert with_replay.n_events == without.n_events == 16


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_notices_are_followed_tick_by_tick(task):
    """Whoever asks the engine when told something hears what is so then, not at the end of the batch."""
    events = stream(700, task, drift_at=350)
    running, cut = (Engine(config.parse({**WHOLE, "task": task})) for _ in range(2))
    expected = [
        (notice.text, cut.n_events, cut.metrics(), list(cut.classes))
        for tick in cut.ticks(events)
        for notice in cut.progress(tick)
    ]
    found = [
        (notice.text, running.n_events, running.metrics(), list(running.classes))
        for notice in running.follow(events)
    ]
    assert str(found) == str(expected)  # NaN is equal to itself there
    assert len({n_events for _, n_events, _, _ in found}) > 3
    assert running.digest() == cut.digest()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_guards_and_weight_zero_do_not_depend_on_batches(task):
    events = stream(600, task, drift_at=300)
    weights = np.where(np.random.default_rng(0).random(600) < 0.3, 0.0, 1.0)
    guards = [{"on": "loss", "slice": {"feature": "b.c", "equals": 1.0}, "margin": 0.1}]
    guards += [{"on": "error", "margin": 0.1}] if task != "regression" else []
    shadow = {**WHOLE["shadow"], "guards": guards}
    digests = set()
    for size in (1, 7, 600):
        engine = Engine(config.parse({**WHOLE, "task": task, "shadow": shadow}))
        notices = finish(engine, events.with_weights(weights), size)
        assert any(notice.what == "promoted" for notice in notices)
        digests.add(engine.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(4))
def test_anchors_and_a_warm_restart_do_not_depend_on_batches(seed):
    """Anchors are judged, but not offered to the buffer: what is forgotten of it is counted without them."""
    events = stream(1000, seed=seed, drift_at=500)
    rules = {
        **SMALL,
        "tick": 64,
        "learners": {"sgd": {"kind": "sgd", "bits": 6}},
        "drift": [{"kind": "cusum", "threshold": 6.0, "on": "loss", "react": "warm_restart"}],
        "replay": {"kind": "ring", "size": 50},
        "anchors": {"strata": 3, "size": 20, "every": 256},
    }
    digests = set()
    for size in (7, 1000):
        engine = Engine(config.parse(rules))
        notices = finish(engine, events, size)
        assert any(notice.what == "drift" for notice in notices)
        digests.add(engine.digest())
    assert len(digests) == 1


def test_weight_zero_is_neither_learned_nor_counted():
    events = stream(300)
    silent = events.with_weights(np.where(np.arange(300) % 3 == 0, 0.0, 1.0))
    kept = np.flatnonzero(silent.weights > 0)
    engine, only = (Engine(config.parse({**SMALL, "learners": WHOLE["learners"]})) for _ in range(2))
    engine.progress(silent)
    only.progress(events.take(kept))
    assert engine.metrics() == only.metrics()


def test_too_many_classes():
    events = Batch.from_rows([{}] * 1001, [str(i) for i in range(1001)])
    with pytest.raises(DataError, match="more than 1000 different labels"):
        Engine(config.parse({**SMALL, "task": "multiclass"})).progress(events)


def test_parameters_that_do_not_go_together_name_the_learner():
    given = {**SMALL, "learners": {"odd": {"kind": "sgd", "update": "coin", "l1": 1.0}}}
    with pytest.raises(ConfigError, match=r"`learners\.odd`"):
        Engine(config.parse(given))
