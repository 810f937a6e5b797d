"""A frozen table and a copied state are those of now: wherever learning was, whatever memory they lie in."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._native.linear import TOTALS
from penstock.events import Batch, Task
from penstock.learners.leases import Leases
from penstock.learners.sgd import SGD
from penstock.state import digest

RULES = [
    {"update": "nag"},
    {"update": "nag", "l1": 1e-3, "l2": 1e-3},
    {"update": "nag", "initial_t": 0.5},
    {"update": "nag", "half_life": 20.0},
    {"update": "nag", "consolidation": 1.0},
    {"update": "nag", "power_t": 0.3, "invariant": False},
    {"update": "adagrad"},
    {"update": "sgd", "l1": 1e-3},
    {"update": "ftrl", "l1": 0.01},
    {"update": "coin"},
]
STEPS = st.lists(
    st.sampled_from(["learn", "one", "freeze", "freeze and keep", "let go", "save", "restore", "hasten"]),
    max_size=25,
)


def some(rng, task, n=6):
    """Events that touch few buckets, and not the same ones."""
    rows = [
        {f"f{i}": float(x) for i, x in zip(rng.integers(0, 40, 3), rng.normal(size=3), strict=True)}
        for _ in range(n)
    ]
    return Batch.from_rows(rows, rng.integers(0, {"binary": 2, "multiclass": 5}.get(task, 9), n) * 1.0)


def dense_weights(learner, k):
    """Effective weights by their definition, from the whole table."""
    table = learner._table[:, :k, 0].astype(np.float64)
    if learner._parameters["update"] in ("ftrl", "coin"):
        return table.astype(np.float32)
    contraction, gravity = (learner._totals[:k, TOTALS.index(name)] for name in ("contraction", "gravity"))
    size = np.abs(table) - gravity
    return np.where(size > 0.0, np.copysign(size, table) * contraction, 0.0).astype(np.float32)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@settings(max_examples=25, deadline=None)
@given(bits=st.sampled_from([1, 3, 5, 6, 9]), steps=STEPS, seed=st.integers(0, 99))
def test_what_is_frozen_is_what_is_known(task, rule, bits, steps, seed):
    rng = np.random.default_rng(seed)
    learner, kept, saved = SGD(Task(task), bits=bits, **rule), [], []
    for step in steps:
        if step == "learn":
            learner.learn(some(rng, task))
        elif step == "one":
            learner.learn_one({f"f{rng.integers(0, 40)}": 1.0}, 1.0)
        elif step.startswith("freeze"):
            model = learner.freeze()
            k = len(model._sighted)
            assert model.weights.reshape(1 << bits, k).tobytes() == dense_weights(learner, k).tobytes()
            if "keep" in step:
                kept.append((model, model.weights.copy()))
            del model
        elif step == "let go" and kept:
            kept.pop(rng.integers(len(kept)))
        elif step == "save":
            state = learner.state()
            k = learner._n_classes
            assert state["table"].tobytes() == learner._table[:, :k].tobytes()
            saved = [*saved[-1:], (state, state["table"].copy())]
        elif step == "restore" and saved:
            learner.restore(saved[rng.integers(len(saved))][0])
        elif step == "hasten" and learner.hastens:
            before = learner._table.copy()
            before[:, :, 1:2] *= 1.0 if rule["update"] == "sgd" else 0.25
            learner.hasten(0.25)
            assert learner._table.tobytes() == before.tobytes()
    for model, weights in kept:
        assert model.weights.tobytes() == weights.tobytes()
    for state, table in saved:
        assert state["table"].tobytes() == table.tobytes()


@pytest.mark.parametrize("n_features", [40, 1500, 4000, 16000])
def test_a_table_of_which_little_is_known_is_frozen_like_any_other(n_features):
    """Of 2^14 buckets: from one in 400 to most, so that it is gone through in both ways."""
    rng = np.random.default_rng(n_features)
    learner = SGD(Task("binary"), bits=14)
    for first in range(0, n_features, 20):
        learner.learn_one({f"f{i}": rng.normal() for i in range(first, first + 20)}, float(first // 20 % 2))
    known = np.flatnonzero(learner._table[:, 0].any(axis=1))
    marked = np.flatnonzero(np.unpackbits(learner._touched[:256].view(np.uint8), bitorder="little"))
    assert marked.tolist() == known.tolist()
    assert learner.freeze().weights.tobytes() == dense_weights(learner, 1).tobytes()
    assert learner.state()["table"].tobytes() == learner._table.tobytes()
    resumed = SGD(Task("binary"), bits=14)
    resumed.restore(learner.state())
    assert resumed._touched.tobytes() == learner._touched.tobytes()


def test_memory_is_used_again_once_nobody_holds_it():
    learner = SGD(Task("binary"), bits=8)
    learner.learn(Batch.from_rows([{"a": 1.0}, {"b": 2.0}], [1.0, 0.0]))
    first, second = learner.freeze(), learner.freeze()
    places = {model.weights.ctypes.data for model in (first, second)}
    assert len(places) == 2
    view = first.weights[3:]
    before = view.copy()
    learner.learn(Batch.from_rows([{"c": 1.0}], [1.0]))
    del first, second
    gc.collect()
    third = learner.freeze()
    assert third.weights.ctypes.data in places  # the second's
    assert not np.shares_memory(third.weights, view)
    fourth = learner.freeze()
    assert fourth.weights.ctypes.data not in places  # the first's is looked at
    assert view.tobytes() == before.tobytes()


def numbered(value):
    """Write a number everywhere."""
    return lambda memory: memory.fill(value)


def left(memory):
    """Write nothing: what is there was left by whoever had the memory before."""


def test_leases_keep_so_many():
    leases = Leases(spare=2)
    lent = [leases.lend(5, numbered(i + 1.0)) for i in range(4)]
    lent.clear()
    gc.collect()
    again = [leases.lend(5, left) for _ in range(3)]
    assert [bool(one.any()) for one in again] == [True, True, False]
    assert again[0][0] != again[1][0]


def test_leases_of_another_size_are_new():
    leases = Leases(spare=2)
    leases.lend(5, numbered(1.0))
    gc.collect()
    assert leases.lend(6, left).tolist() == [0.0] * 6
    assert leases.lend(0, left).shape == (0,)


def test_a_lease_outlives_who_lent_it():
    lent = Leases(spare=2).lend(3, numbered(1.0))
    gc.collect()
    assert lent.tolist() == [1.0] * 3


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_nobody_writes_to_what_is_lent(task):
    """It comes back, and is zero where nothing was learned."""
    learner = SGD(Task(task), bits=8)
    learner.learn(some(np.random.default_rng(0), task))
    for array in (learner.freeze().weights, learner.state()["table"]):
        while isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
            array = array.base


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_state_is_the_same_after_a_restart_even_where_it_is_minus_nothing(rule):
    learner = SGD(Task("binary"), bits=8, **rule)
    for label in (0.0, 1.0):
        learner.learn_one({"tiny": 1e-60, "small": -1e-60, "x": 1.0}, label)
    resumed = SGD(Task("binary"), bits=8, **rule)
    resumed.restore(learner.state())
    assert digest(resumed.state()) == digest(learner.state())
