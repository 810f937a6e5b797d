import os
import sys

import numpy as np
import pytest

from penstock import beside
from penstock.beside import progressed
from penstock.config import parse
from penstock.engine import Engine
from penstock.errors import BadRecord, PenstockError
from penstock.events import Batch, Task
from penstock.learners import build
from penstock.learners.sgd import SGD
from penstock.state import digest

LEARNERS = {
    "nag": {"kind": "sgd"},
    "ftrl": {"kind": "sgd", "update": "ftrl"},
    "plain": {"kind": "sgd", "update": "sgd"},
}


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    """As if there were two, whatever this machine has."""
    monkeypatch.setattr(beside, "_processors", lambda: 2)
    beside._pool.cache_clear()
    yield
    beside._pool.cache_clear()


def a_batch(n=3000):
    rng = np.random.default_rng(0)
    rows = [{"x": x, "word": f"w{int(abs(x) * 50)}"} for x in rng.normal(size=n).tolist()]
    return Batch.from_rows(rows, (rng.random(n) < 0.5).astype(np.float64))


def learners(names=LEARNERS):
    return {
        name: SGD(Task("binary"), **{k: v for k, v in LEARNERS[name].items() if k != "kind"})
        for name in names
    }


def test_beside_one_another_they_learn_what_they_learn_alone():
    batch, together, alone = a_batch(), learners(), learners()
    done = progressed(together, batch)
    assert set(done) == set(LEARNERS)
    for name, learner in alone.items():
        np.testing.assert_array_equal(done[name].result(), learner.progress(batch))
        assert digest(together[name].state()) == digest(learner.state())


def test_what_is_not_worth_it_is_left_alone(monkeypatch):
    two = learners(["nag", "ftrl"])
    before = {name: digest(learner.state()) for name, learner in two.items()}
    assert progressed(two, a_batch(100)) == {}
    assert progressed({"nag": two["nag"], "prior": build("prior", Task("binary"))}, a_batch()) == {}
    monkeypatch.setattr(beside, "_processors", lambda: 1)
    assert progressed(two, a_batch()) == {}
    assert before == {name: digest(learner.state()) for name, learner in two.items()}


def test_an_engine_ends_in_the_same_state_whether_batches_are_large_or_small():
    whole, small = (
        Engine(parse({"source": {"kind": "memory", "rows": [], "labels": []}, "learners": LEARNERS}))
        for _ in range(2)
    )
    batch = a_batch(4096)
    whole.progress(batch)
    for start in range(0, len(batch), 100):
        small.progress(batch.slice(start, start + 100))
    assert whole.digest() == small.digest()


class Stumbling(SGD):
    """Cannot go on."""

    def progress(self, batch):
        raise ValueError(f"no way over {len(batch)} events")


def test_the_learner_that_fails_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "stumbling", sys.modules[__name__])
    stumbling = LEARNERS | {"ftrl": {"kind": "stumbling:Stumbling"}}
    engine = Engine(parse({"source": {"kind": "memory", "rows": [], "labels": []}, "learners": stumbling}))
    with pytest.raises(
        PenstockError, match=r"^learner `ftrl` failed on events 1 to 3,000: ValueError: no way over 3000"
    ):
        engine.progress(a_batch())


def test_a_bad_label_is_refused_before_anybody_learns():
    engine = Engine(parse({"source": {"kind": "memory", "rows": [], "labels": []}, "learners": LEARNERS}))
    before = engine.digest()
    labels = a_batch().labels.copy()
    labels[1500] = 3.0
    with pytest.raises(BadRecord, match=r"^expected 0 or 1 as label, got 3\.0 .*event 1500 of the batch"):
        engine.progress(a_batch().with_labels(labels))
    assert engine.digest() == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    batch = a_batch()
    progressed(learners(), batch)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(progressed(learners(), batch)) == len(LEARNERS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
