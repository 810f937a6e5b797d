"""Replay as the engine does it, for every buffer."""

import numpy as np
import pytest

from penstock import Batch, Engine
from penstock.config import parse
from penstock.replay import BUFFERS
from penstock.state import digest


def stream(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return Batch.from_rows([{"a": a, "b": b, "c": c} for a, b, c in x.tolist()], (x[:, 0] > 0).astype(float))


def engine(kind, learners=None, task="binary", **replay):
    rules = {"kind": kind, "size": 150, "ratio": 0.5, **replay}
    source = {"kind": "file", "path": "unread.jsonl"}
    given = {"source": source, "task": task, "tick": 64, "replay": rules}
    return Engine(parse({**given, **({"learners": learners} if learners else {})}))


@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_batches_change_nothing_and_a_checkpoint_goes_on(kind):
    events = stream(700)
    whole, split = engine(kind), engine(kind)
    whole.progress(events)
    for start in range(0, 700, 53):
        split.progress(events.slice(start, min(start + 53, 700)))
        resumed = engine(kind)
        resumed.restore(split.state())
        split = resumed
    assert split.digest() == whole.digest()


@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_rows_are_kept_only_where_a_learner_reads_them(kind):
    native = engine(kind)
    native.progress(stream(200))
    assert "replay/events/rows" not in native.state()
    river = {"trees": {"kind": "river", "model": "tree.HoeffdingTreeClassifier"}}
    mixed = engine(kind, learners={"sgd": {"kind": "sgd"}, **river})
    mixed.progress(stream(200))
    assert "replay/events/rows" in mixed.state()
    assert digest(native._lanes["sgd"].learner.state()) == digest(mixed._lanes["sgd"].learner.state()) or (
        kind == "prioritised"  # which looks at the losses of all learners
    )


def test_prioritised_is_told_the_losses():
    """Of events with labels by chance and such as are easily known, the first have more weight in the end."""
    rng = np.random.default_rng(0)
    noisy = rng.random(3000) < 0.5
    label = np.where(noisy, rng.random(3000) < 0.5, True).astype(float)
    events = Batch.from_rows([{"noisy": 1.0} if one else {"plain": 1.0} for one in noisy.tolist()], label)
    running = engine("prioritised")
    running.progress(events)
    losses = running.state()["replay/losses"]
    assert losses.max() < 1.0  # all have been told
    held = running._replay.contents().features.indices == events.features.indices[np.flatnonzero(noisy)[0]]
    assert 0 < held.sum() < 150
    assert losses[held].min() > 10 * np.median(losses[~held])


@pytest.mark.parametrize("kind", sorted(set(BUFFERS) - {"balanced"}))
def test_regression_can_be_replayed(kind):
    running = engine(kind, task="regression")
    running.progress(stream(500))
    assert np.isfinite(running.metrics()["sgd"]["mae"])
