import numpy as np
import pytest

from penstock import Batch, Engine
from penstock.anchors import Anchors
from penstock.config import parse
from penstock.errors import ConfigError
from penstock.state import digest

ANCHORED = {"anchors": {"strata": 3, "size": 20, "every": 256}, "tick": 64}


def pipeline(**rules):
    return parse({"source": {"kind": "file", "path": "unread.jsonl"}, **ANCHORED, **rules})


def stream(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return Batch.from_rows([{"a": a, "b": b, "c": c} for a, b, c in x.tolist()], (x[:, 0] > 0).astype(float))


def numbered(n):
    return Batch.from_rows([{"x": 1.0}] * n, np.arange(float(n)))


def walk(anchors, n, score, tick=10):
    """Feed events whose labels are their numbers."""
    events = numbered(n)
    for first in range(0, n, tick):
        aside = anchors.aside(first, tick)
        anchors.put(events.slice(first, first + tick).take(np.flatnonzero(aside)))
        anchors.end_tick(first + tick, score)


def test_one_event_of_each_block_is_set_aside():
    anchors = Anchors(strata=4, size=10, every=100)
    aside = anchors.aside(0, 100)
    assert aside.reshape(10, 10).sum(axis=1).tolist() == [1] * 10
    assert len(set(aside.reshape(10, 10).argmax(axis=1).tolist())) > 3  # at no fixed place
    pieces = [anchors.aside(first, 7)[: 100 - first] for first in range(0, 100, 7)]
    assert np.concatenate(pieces).tolist() == aside.tolist()


def test_forgetting_and_backward_transfer_are_what_they_are_defined_as():
    """Scores a[l, j] after stratum l on the anchors of stratum j, from a table."""
    table = np.array([[0.9, 0, 0, 0], [0.7, 0.8, 0, 0], [0.95, 0.5, 0.6, 0], [0.4, 0.6, 0.7, 1.0]])
    anchors = Anchors(strata=4, size=10, every=100)
    row = [0]

    def score(events):
        return {"one": table[row[0], int(events.labels[0]) // 100]}

    for phase in range(4):
        row[0] = phase
        for first in range(100 * phase, 100 * phase + 100, 20):
            aside = anchors.aside(first, 20)
            numbers = np.arange(first, first + 20, dtype=float)[aside]
            anchors.put(Batch.from_rows([{"x": 1.0}] * len(numbers), numbers))
            anchors.end_tick(first + 20, score)
    found = anchors.measure(score)["one"]
    assert found["backward_transfer"] == pytest.approx(np.mean([0.4 - 0.9, 0.6 - 0.8, 0.7 - 0.6]))
    assert found["average_forgetting"] == pytest.approx(np.mean([0.95 - 0.4, 0.8 - 0.6, 0.7 - 0.7]))
    assert [one["from"] for one in found["strata"]] == [0, 100, 200]


def test_strata_cover_the_whole_stream_however_long():
    anchors = Anchors(strata=4, size=5, every=50)
    walk(anchors, 5000, lambda events: {"one": 0.5})
    firsts = [first for first, _ in anchors.sets]
    assert len(firsts) <= 4
    assert firsts[0] == 0
    assert firsts[-1] >= 2000
    for first, events in anchors.sets:
        assert len(events) == 5
        assert events.labels.min() >= first


def test_anchors_are_never_learned_nor_replayed():
    """Labels of anchors are turned round: nothing that learns may notice."""
    events = stream(1024)
    aside = np.concatenate([Anchors(strata=9, size=20, every=256).aside(0, 256), np.zeros(768, bool)])
    assert aside.sum() == 20
    turned = events.with_labels(np.where(aside, 1.0 - events.labels, events.labels))
    states = []
    for batch in (events, turned):
        engine = Engine(pipeline(replay={"kind": "reservoir", "size": 2000, "ratio": 1}))
        engine.progress(batch.slice(0, 256))
        state = engine.state()
        states.append(
            digest({k: v for k, v in state.items() if k.startswith(("lanes/sgd/learner/", "replay/"))})
        )
        assert state["replay/n_offered"] == 236
    assert states[0] == states[1]


def test_batches_change_nothing_and_a_checkpoint_goes_on():
    events = stream(1500)
    whole, split = Engine(pipeline()), Engine(pipeline())
    whole.progress(events)
    for start in range(0, 1500, 37):
        split.progress(events.slice(start, min(start + 37, 1500)))
        resumed = Engine(pipeline())
        resumed.restore(split.state())
        split = resumed
    assert split.digest() == whole.digest()
    assert split.forgetting() == whole.forgetting()
    before = whole.digest()
    found = whole.forgetting()["sgd"]
    assert whole.digest() == before
    assert len(found["strata"]) == 1  # of 0 and 512: there were four, and every second one went
    assert found["average_forgetting"] < 0.1


def test_without_anchors_nothing_is_measured():
    engine = Engine(parse({"source": {"kind": "file", "path": "unread.jsonl"}}))
    engine.progress(stream(600))
    assert engine.forgetting() == {}
    assert not [name for name in engine.state() if name.startswith("anchors")]


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_every_task_can_be_anchored(task):
    engine = Engine(pipeline(task=task))
    engine.progress(stream(1000))
    assert 0.0 <= engine.forgetting()["sgd"]["strata"][0]["now"] <= 1.0


def test_too_many_anchors_are_refused():
    with pytest.raises(ConfigError, match=r"`anchors\.size`: at most half of the 256 events"):
        pipeline(anchors={"size": 200, "every": 256})


def test_nothing_is_promoted_that_has_forgotten_a_stratum():
    """The label turns round halfway: what has learned that has forgotten what was before."""
    before, after = stream(2048), stream(2048, seed=1)
    after = after.with_labels(1.0 - after.labels)
    promoted = []
    for margin in (None, 0.1):
        engine = Engine(
            pipeline(shadow={"refresh_every": 256}, anchors={**ANCHORED["anchors"], "margin": margin})
        )
        engine.progress(before)
        notices = engine.progress(after)
        promoted.append([notice.event for notice in notices if notice.what == "promoted"])
        withheld = [notice for notice in notices if notice.what == "withheld"]
    assert promoted[0][-1] > 3000
    assert promoted[1] == [event for event in promoted[1] if event < 3000]
    assert any(
        "anchors of the stratum from event 0 on" in notice.text and "but loses" in notice.text
        for notice in withheld
    )


def test_a_margin_needs_the_gate():
    with pytest.raises(ConfigError, match=r"`anchors.margin` needs `shadow`"):
        pipeline(anchors={**ANCHORED["anchors"], "margin": 0.1})
