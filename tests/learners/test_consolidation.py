"""Holding on to what was known: where weights come to rest, what is told to whom, and when."""

import numpy as np
import pytest

from penstock import Batch, Engine
from penstock.config import parse
from penstock.errors import ConfigError, StoreError
from penstock.events import Task
from penstock.learners.base import Consolidates
from penstock.learners.sgd import SGD
from penstock.learners.vw import VW
from penstock.state import digest

RULES = {
    "nag": {"update": "nag"},
    "adagrad": {"update": "adagrad"},
    "sgd": {"update": "sgd", "learning_rate": 0.05, "power_t": 0.0},
}


def same(n, label, x=1.0):
    return Batch.from_rows([{"x": x}] * n, np.full(n, label))


def one_weight(rule, *, invariant=True, task="regression", **parameters):
    return SGD(Task(task), constant=False, bits=4, invariant=invariant, **RULES[rule], **parameters)


# ------------------------------------------------------------ closed forms


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("invariant", [True, False])
@pytest.mark.parametrize("strength", [0.5, 2.0, 30.0])
def test_a_weight_comes_to_rest_between_the_anchor_and_what_events_want(rule, invariant, strength):
    """Of (w - 4)^2 + strength * (w - anchor)^2, whose curvatures are alike: the weighted mean."""
    rate = {} if rule == "sgd" or invariant else {"learning_rate": 0.05}
    learner = one_weight(rule, invariant=invariant, clip=False, consolidation=strength, **rate)
    learner.learn(same(4000, 1.0))
    anchor = learner.predict_one({"x": 1.0})
    learner.consolidate()
    learner.learn(same(60_000, 4.0))
    assert learner.predict_one({"x": 1.0}) == pytest.approx(
        (4.0 + strength * anchor) / (1 + strength), abs=2e-3
    )


@pytest.mark.parametrize(("labels", "features"), [(1e-3, 1.0), (1.0, 1e3), (1.0, 1e-3)])
def test_no_scale_matters(labels, features):
    learner = one_weight("nag", clip=False, consolidation=1.0)
    learner.learn(same(500, labels, features))
    learner.consolidate()
    learner.learn(same(500, 3.0 * labels, features))
    assert learner.predict_one({"x": features}) == pytest.approx(2.0 * labels, rel=1e-3)


def test_of_a_probability_it_is_the_gradients_that_cancel():
    """p - 0.9 + strength * mean of q (1 - q) * (w - anchor) = 0, q what was predicted before the anchor."""
    learner = one_weight("adagrad", task="binary", consolidation=2.0)
    rng = np.random.default_rng(0)
    before = Batch.from_rows([{"x": 1.0}] * 5000, (rng.random(5000) < 0.3) * 1.0)
    predicted = learner.progress(before)
    anchor = float(learner.freeze().weights[learner.freeze().weights != 0][0])
    learner.consolidate()
    tenths = np.tile([1.0] * 9 + [0.0], 6000)
    learner.learn(Batch.from_rows([{"x": 1.0}] * len(tenths), tenths))
    weights = learner.freeze().weights
    weight = float(weights[weights != 0][0])
    fisher = float((predicted * (1 - predicted)).mean())
    rest = 1 / (1 + np.exp(-weight)) - 0.9 + 2.0 * fisher * (weight - anchor)
    assert abs(rest) < 0.01
    assert weight - anchor > 0.5


def test_a_weight_that_never_mattered_is_free():
    """Held is what the past was sure of: x, and not y, which it never saw."""
    learner, free = (SGD(Task("regression"), bits=8, consolidation=s) for s in (50.0, 0.0))
    for one in (learner, free):
        one.learn(Batch.from_rows([{"x": 1.0}] * 500, np.ones(500)))
    learner.consolidate()
    for one in (learner, free):
        one.learn(Batch.from_rows([{"y": 1.0}] * 2000, np.full(2000, 3.0)))
    known, forgotten = (one.predict_one({"x": 1.0}) for one in (learner, free))
    assert abs(known - 1.0) < 0.25 * abs(forgotten - 1.0)
    assert learner.predict_one({"y": 1.0}) == pytest.approx(3.0, abs=0.05)


def test_before_the_first_anchor_nothing_is_held():
    batch = same(300, 2.0)
    held, free = one_weight("nag", consolidation=5.0), one_weight("nag")
    assert (held.progress(batch) == free.progress(batch)).all()
    state = held.state()
    assert digest({name: state[name] for name in free.state()}) == digest(free.state())


@pytest.mark.parametrize("memory", [0.0, 0.5, 1.0])
def test_importances_add_up_as_much_as_memory_says(memory):
    learner = one_weight("nag", clip=False, consolidation=1.0, consolidation_memory=memory)
    for _ in range(3):
        learner.learn(same(10, 1.0, x=2.0))
        learner.consolidate()
    learner.consolidate()  # a stretch without the feature takes nothing away
    importance = learner.state()["held"][:, 0, 1].max()
    assert importance == pytest.approx(2.0 * 2.0**2 * (1 + memory + memory**2))


def test_consolidating_by_itself_is_being_told_to():
    by_itself = SGD(Task("binary"), bits=6, consolidation=3.0, consolidate_every=100)
    told = SGD(Task("binary"), bits=6, consolidation=3.0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    rows = [{"a": a, "b": b, "c": c} for a, b, c in x.tolist()]
    batch = Batch.from_rows(rows, (x[:, 0] > 0.2) * 1.0)
    by_itself.learn(batch)
    for start in range(0, 400, 100):
        told.learn(batch.slice(start, start + 100))
        told.consolidate()
    assert digest(told.state()) == digest(by_itself.state())
    assert told.consolidates
    assert not by_itself.consolidates


def test_an_older_snapshot_can_be_held_on_to():
    """Also one from before a class was known: that class is held where it is."""
    learner = SGD(Task("multiclass"), bits=4, consolidation=1.0)
    rows = [{"x": 1.0}, {"y": 1.0}]
    learner.learn(Batch.from_rows(rows * 20, [0.0, 1.0] * 20))
    old = learner.freeze()
    learner.learn(Batch.from_rows(rows * 20, [1.0, 2.0] * 20))
    now = learner.freeze()
    learner.consolidate(old)
    anchors = learner.state()["held"][:, :, 0]
    assert (anchors[:, :2] == old.weights).all()
    assert (anchors[:, 2] == now.weights[:, 2]).all()
    assert (learner.freeze().weights == now.weights).all()


def test_only_a_snapshot_of_its_own_is_held_on_to():
    learner = SGD(Task("binary"), bits=4, consolidation=1.0)
    before = digest(learner.state())
    for other in (SGD(Task("binary"), bits=5).freeze(), VW(Task("binary")).freeze()):
        with pytest.raises(ConfigError, match="no snapshot of this learner"):
            learner.consolidate(other)
    assert digest(learner.state()) == before
    with pytest.raises(ConfigError, match="consolidation: is 0"):
        SGD(Task("binary"), bits=4).consolidate()


@pytest.mark.parametrize(
    "held",
    [None, np.zeros((16, 1, 3), np.float32), np.full((16, 1, 4), np.nan, np.float32), -np.ones((16, 1, 4))],
)
def test_a_broken_checkpoint_is_not_restored(held):
    learner = SGD(Task("binary"), bits=4, consolidation=1.0)
    learner.learn_one({"x": 1.0}, 1.0)
    state = learner.state()
    wrong = held.astype(np.float32) if held is not None else None
    with pytest.raises(StoreError, match="sgd state"):
        learner.restore({**state, "held": wrong})
    assert digest(learner.state()) == digest(state)


# -------------------------------------------------------- in a pipeline


def pipeline(tick=64, learners=None, **rules):
    return parse(
        {
            "source": {"kind": "file", "path": "unread.jsonl"},
            "tick": tick,
            "learners": learners or {"sgd": {"kind": "sgd", "bits": 8, "consolidation": 2.0}},
            **rules,
        }
    )


def stream(n, seed=0, turned=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    labels = (x[:, 0] > 0) != turned
    return Batch.from_rows([{"a": a, "b": b, "c": c} for a, b, c in x.tolist()], labels * 1.0)


def anchors(engine, name="sgd"):
    return engine.state()[f"lanes/{name}/learner/held"][:, 0, 0]


def test_what_is_promoted_is_held_on_to():
    engine = Engine(pipeline(shadow={"refresh_every": 256}))
    assert isinstance(engine.learners["sgd"], Consolidates)
    for batch in engine.ticks(stream(1024)):
        before = anchors(engine)
        promoted = [notice for notice in engine.progress(batch) if notice.what == "promoted"]
        if promoted:
            assert (anchors(engine) == promoted[-1].model.weights).all()
        else:
            assert (anchors(engine) == before).all()
    assert anchors(engine).any()


def test_a_candidate_is_held_on_to_as_it_was_when_it_was_frozen():
    learners = {
        "slow": {"kind": "sgd", "bits": 8, "learning_rate": 0.001},
        "quick": {"kind": "sgd", "bits": 8, "consolidation": 2.0},
    }
    engine = Engine(pipeline(learners=learners, shadow={"refresh_every": 256, "min_effect": 0.01}))
    opened, replaced = {}, []
    for batch in engine.ticks(stream(4096)):
        for notice in engine.progress(batch):
            if notice.what == "opened":
                opened[notice.version] = notice.model
            if notice.what == "promoted" and notice.how == "replace":
                replaced.append(notice)
                assert notice.learner == "quick"
                assert (anchors(engine, "quick") == opened[notice.version].weights).all()
    assert len(replaced) == 1


def test_after_a_rollback_the_good_snapshot_is_held_on_to():
    engine = Engine(
        pipeline(shadow={"refresh_every": 512, "refresh_margin": 0.9, "rollback": {"watch_events": 4000}})
    )
    models, rolled_back = {}, []
    events = Batch.concat([stream(2048), stream(1024, 1, turned=True), stream(2048, 2)])
    for batch in engine.ticks(events):
        for notice in engine.progress(batch):
            if notice.what == "promoted":
                models[notice.version] = notice.model
            if notice.what == "rolled_back":
                rolled_back.append(notice)
                assert (anchors(engine) == models[notice.version].weights).all()
    assert rolled_back


def test_batches_change_nothing_and_a_checkpoint_goes_on():
    events = Batch.concat([stream(1000), stream(500, 1, turned=True)])
    make = pipeline(shadow={"refresh_every": 256})
    whole, split = Engine(make), Engine(make)
    whole.progress(events)
    for start in range(0, len(events), 37):
        split.progress(events.slice(start, min(start + 37, len(events))))
        resumed = Engine(make)
        resumed.restore(split.state())
        split = resumed
    assert split.digest() == whole.digest()


def test_who_waits_for_promotions_needs_the_gate():
    with pytest.raises(ConfigError, match=r"`learners.sgd`: `consolidation` waits for promotions"):
        Engine(pipeline())
    learners = {"sgd": {"kind": "sgd", "bits": 8, "consolidation": 1.0, "consolidate_every": 100}}
    Engine(pipeline(learners=learners)).progress(stream(300))


def test_less_is_forgotten():
    """Two kinds of events, one after the other, that one model could know both of."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(2, 2, 20)) * 1.4
    forgotten = []
    for strength in (0.0, 3.0):
        learner = SGD(Task("binary"), bits=8, consolidation=strength)
        scores: list[float] = []
        first: Batch | None = None
        for phase in range(2):
            labels = rng.integers(0, 2, 3000)
            x = centres[phase, labels] + rng.normal(size=(3000, 20))
            batch = Batch.from_rows(
                [dict(zip("abcdefghijklmnopqrst", row, strict=True)) for row in x.tolist()], labels * 1.0
            )
            learner.learn(batch)
            if strength:
                learner.consolidate()
            first = first or batch
            scores.append(float(((learner.predict(first) > 0.5) == first.labels).mean()))
        forgotten.append(scores[0] - scores[1])
    assert forgotten[0] > 0.05
    assert forgotten[1] < forgotten[0] / 2
