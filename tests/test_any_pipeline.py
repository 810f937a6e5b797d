"""Whatever is configured: what comes out depends on the events alone, not on batches, nor on restarts.

Pipelines are drawn from everything that is registered, in any combination that the configuration accepts.
"""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Batch, Engine, checkpoints, drift, replay
from penstock.config import parse
from penstock.registry import resolve
from penstock.state import digest

N = 700
TASKS = ["binary", "multiclass", "regression"]
SGD = st.fixed_dictionaries(
    {"kind": st.just("sgd"), "bits": st.sampled_from([4, 9, 18])},
    optional={"l2": st.just(1e-4), "half_life": st.sampled_from([50.0, 1000.0])},
)
HOLDS_ON = st.fixed_dictionaries(
    {"kind": st.just("sgd"), "consolidation": st.just(1.0), "consolidate_every": st.sampled_from([90, 400])}
)
OTHERS = {
    "binary": [
        {"kind": "sgd", "update": "ftrl"},
        {"kind": "vw", "args": "--loss_function logistic"},
        {"kind": "river", "model": "tree.HoeffdingTreeClassifier"},
    ],
    "multiclass": [
        {"kind": "sgd", "multiclass": "softmax"},
        {"kind": "river", "model": "tree.HoeffdingTreeClassifier"},
    ],
    "regression": [{"kind": "sgd", "update": "coin"}, {"kind": "vw", "args": "--coin"}],
}
QUICK = {  # to alarm, so that something happens in so few events
    "adwin": {"delta": 0.3},
    "river": {"model": "drift.ADWIN", "params": {"delta": 0.3}},
    "features": {"false_alarm_every": 1000, "reference": 200, "window": 50, "clock": 50},
    "two_sample": {"false_alarm_every": 1000},
}
WATCHES = {
    "bits": {"binary": ["error", "label"], "multiclass": ["error"], "regression": []},
    "unit": {
        "binary": ["loss", "error", "prediction", "label"],
        "multiclass": ["loss", "error", "prediction"],
        "regression": ["loss", "error"],
    },
    "numbers": {task: ["loss", "error", "prediction", "label", "feature:a", "feature:g.c"] for task in TASKS},
}
REACTIONS = ["log", "reset", "warm_restart", "background", "recall"]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "a key of the tests")


@st.composite
def rules(draw, task):
    kind = draw(st.sampled_from(list(drift.KINDS)))
    domain = getattr(resolve(kind, drift.KINDS, what="detector"), "domain", "numbers")
    rule = {"kind": kind, **QUICK.get(kind, {"false_alarm_every": 150})}
    if domain == "inputs":
        return rule
    if not (choices := WATCHES[domain][task]):
        return {"kind": "adwin", **QUICK["adwin"], "react": draw(st.sampled_from(REACTIONS))}
    rule["on"] = draw(st.sampled_from(choices))
    if rule["on"] in ("loss", "error"):
        rule["react"] = draw(st.sampled_from(REACTIONS))
    return rule


@st.composite
def pipelines(draw, task):
    learners = st.one_of(SGD, HOLDS_ON, st.sampled_from(OTHERS[task]))
    buffers = [kind for kind in replay.BUFFERS if (kind, task) != ("balanced", "regression")]
    given = {
        "source": {"kind": "memory", "rows": [], "labels": []},
        "task": task,
        "learners": draw(st.dictionaries(st.sampled_from("abc"), learners, min_size=1, max_size=2)),
        "drift": draw(st.lists(rules(task), max_size=2)),
        "replay": {
            "kind": draw(st.sampled_from(buffers)),
            "size": draw(st.sampled_from([1, 20, 300])),
            "ratio": draw(st.sampled_from([0, 0.5, 2])),
            **draw(st.sampled_from([{}, {"max_bytes": 4000}])),
        },
        "tick": draw(st.sampled_from([1, 7, 64, 256])),
        "seed": draw(st.integers(0, 3)),
    }
    if draw(st.booleans()):
        given["anchors"] = {"strata": 2, "size": draw(st.sampled_from([1, 30])), "every": 150}
    if draw(st.booleans()):
        given["shadow"] = {
            "refresh_every": draw(st.sampled_from([20, 100, 333])),
            "max_events": draw(st.sampled_from([50, 400])),
            "retry_after": draw(st.sampled_from([0, 100])),
            "max_age": draw(st.sampled_from([None, 150])),
            "challengers": draw(st.sampled_from([1, 3])),
            "min_effect": draw(st.sampled_from([0.005, -0.5])),
            "rollback": draw(st.sampled_from([False, {}, {"alpha": 0.9, "watch_events": 50}])),
            "guards": draw(
                st.sampled_from([[], [{"slice": {"feature": "k", "equals": "k1"}, "margin": 0.05}]])
            ),
        }
    return given


@functools.cache
def stream(task, seed):
    """A concept that turns into its opposite; gaps, text, a nested number, weights (some are 0), times."""
    rng = np.random.default_rng(seed)
    x, k = rng.normal(size=(N, 3)), rng.integers(0, 4, N)
    score = x @ rng.normal(size=3) + (k == 1) - (k == 2)
    score[N // 2 :] *= -1.0
    if task == "binary":
        labels = (rng.random(N) < 1.0 / (1.0 + np.exp(-3.0 * score))) * 1.0
    elif task == "regression":
        labels = 10.0 * score + rng.normal(size=N)
    else:
        labels = [f"class {place}" for place in np.clip(np.round(score), -2, 2).astype(int)]
    rows = [
        {"a": a, **({"b": b} if b > -1.0 else {}), "g": {"c": c}, "k": f"k{i}"}
        for (a, b, c), i in zip(x.tolist(), k.tolist(), strict=True)
    ]
    weights = [np.ones(N), np.where(rng.random(N) < 0.2, 0.0, rng.random(N) * 3.0)][seed % 2]
    return replace(Batch.from_rows(rows, labels, weights), times=1.7e9 + np.cumsum(rng.random(N)))


def told(engine, batch):
    """Follow a batch; say what happened."""
    return [(n.what, n.event, n.learner, n.version, n.fallback, n.text) for n in engine.follow(batch)]


def resumed(engine, pipeline, path):
    """Another engine, from a checkpoint of this one."""
    checkpoints.save(path, checkpoints.Checkpoint(state=engine.state(), position={}), config_hash="")
    found = checkpoints.load(path, config_hash="")
    fresh = Engine(pipeline)
    fresh.restore(found.state)
    assert fresh.digest() == engine.digest()
    return fresh


def check(given, seed, cuts):
    pipeline, events = parse(given), stream(given["task"], seed)
    whole, parts = Engine(pipeline), Engine(pipeline)
    expected = told(whole, events)
    found, start = [], 0
    with tempfile.TemporaryDirectory() as directory:
        for n, restarts in [*cuts, (N, False)]:
            found += told(parts, events.slice(start, min(start + n, N)))
            start = min(start + n, N)
            if restarts:
                parts = resumed(parts, pipeline, Path(directory) / "state")
    assert found == expected
    ours, theirs = whole.state(), parts.state()
    assert [n for n in ours | theirs if digest({n: ours.get(n)}) != digest({n: theirs.get(n)})] == []
    assert whole.digest() == parts.digest()


CUTS = st.lists(st.tuples(st.sampled_from([1, 5, 64, 100, 300]), st.booleans()), max_size=8)
IN_FULL = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("task", TASKS)
@settings(IN_FULL, max_examples=12)
@given(data=st.data(), seed=st.integers(0, 3), cuts=CUTS)
def test_neither_batches_nor_restarts_change_anything(task, data, seed, cuts):
    check(data.draw(pipelines(task)), seed, cuts)


@pytest.mark.statistics
@pytest.mark.parametrize("task", TASKS)
@settings(IN_FULL, max_examples=300)
@given(data=st.data(), seed=st.integers(0, 3), cuts=CUTS)
def test_of_many_pipelines_neither_batches_nor_restarts_change_anything(task, data, seed, cuts):
    check(data.draw(pipelines(task)), seed, cuts)
