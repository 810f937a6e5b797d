"""The embedded predictor: one snapshot an answer, swaps under fire, nothing imported that is not needed."""

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
import tomllib
import weakref
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock import Batch, Task
from penstock.errors import BadRecord, StoreError, UntrustedState
from penstock.learners import build
from penstock.predictor import Prediction, Predictor
from penstock.snapshots import SnapshotStore

HERE = Path(__file__).parent
STEADY = {"kind": "steady_learner:Steady", "task": "regression"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
PATIENCE_S = 60.0  # a machine may be busy; nothing waits that long unless it is broken


@pytest.fixture(autouse=True)
def learners(monkeypatch):
    """Make the learners beside this file importable, and no key set."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    import steady_learner

    return steady_learner


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


@pytest.fixture
def serve(store, learners):
    """Put and promote a version whose predictions are its number."""

    def serve(version, model=None, **manifest):
        model = model or learners.Steady(version)
        store.put(model.state(), {**STEADY, "version": version, **manifest})
        store.promote(version, version)

    return serve


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def run(script, *arguments):
    """Run a script in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predicts_with_what_serves(store, serve):
    serve(1)
    with Predictor(store.path, follow=False) as predictor:
        assert predictor.predict({"x": 1}) == 1.0
        assert predictor.predict_detailed({"x": 1}) == Prediction(1.0, 1)
        many = predictor.predict_many({"x": n} for n in range(3))
        assert many.dtype == np.float64
        np.testing.assert_array_equal(many, [1.0, 1.0, 1.0])
        assert len(predictor.predict_many([])) == 0
        assert predictor.snapshot == 1
        assert predictor.manifest["sha256"] == store.manifest(1)["sha256"]
        assert predictor.error is None
        assert repr(predictor) == f"Predictor('{store.path}', snapshot=1)"


def test_multiclass_answers_by_name(store, serve, learners):
    serve(1, learners.Steady(0.5, n_classes=2), task="multiclass", classes=["up", "down"])
    # A class that was first seen after the model was frozen is not among its answers.
    serve(2, learners.Steady(0.25, n_classes=2), task="multiclass", classes=["up", "down", "flat"])
    serve(3, learners.Steady(0.25, n_classes=2), task="multiclass", classes=["up"])
    for alias, value in (("first", 0.5), ("second", 0.25)):
        store.set_alias(alias, {"first": 1, "second": 2}[alias])
        with Predictor(store.path, alias=alias, follow=False) as predictor:
            answer = {"up": value, "down": value}
            assert predictor.predict({}) == answer
            assert predictor.predict_many([{}, {"x": 1}]) == [answer, answer]
    with (
        Predictor(store.path, follow=False) as predictor,
        pytest.raises(StoreError, match="snapshot 3 names 1 classes, predicts 2"),
    ):
        predictor.predict({})


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (
            {"task": "ranking"},
            "snapshot 1 is for task 'ranking': a predictor serves binary, multiclass, regression, bandit",
        ),
        ({"task": "multiclass"}, "snapshot 1 is multiclass and names no classes"),
    ],
)
def test_what_cannot_be_served_is_refused(store, serve, manifest, expected):
    serve(1, **manifest)
    with pytest.raises(StoreError) as caught:
        Predictor(store.path)
    assert str(caught.value) == expected


def test_refresh_swaps(store, serve):
    serve(1)
    with Predictor(store.path, follow=False) as predictor:
        assert not predictor.refresh()
        serve(2)
        assert predictor.predict({}) == 1.0
        assert predictor.refresh()
        assert predictor.predict_detailed({}) == Prediction(2.0, 2)
        store.rollback(to=1)
        assert predictor.refresh()
        assert predictor.predict({}) == 1.0
        store.promote(1, 3)  # a newer promotion of what serves
        assert not predictor.refresh()


def test_the_follower_swaps_by_itself(store, serve):
    serve(1)
    with Predictor(store.path, poll_s=0.005) as predictor:
        for version in (2, 3):
            serve(version)
            eventually(lambda version=version: predictor.predict({}) == version)


def test_an_unusable_snapshot_leaves_the_old_one_serving(store, serve, learners, caplog):
    serve(1)
    store.put(learners.Steady(2).state(), {**STEADY, "version": 2})
    file = store.file(2)
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"\xff")
    with Predictor(store.path, poll_s=0.002) as predictor, caplog.at_level(logging.ERROR, "penstock"):
        store.promote(2, 2)
        eventually(lambda: predictor.error)
        assert predictor.error.startswith(f"{file} is damaged: expected SHA-256 ")
        for _ in range(5):
            assert not predictor.refresh()
        assert predictor.predict({}) == 1.0
        assert [record.getMessage() for record in caplog.records] == [
            f"still serving snapshot 1: {predictor.error}"
        ]

        (store.path / "serving.json").write_bytes(b"{")
        eventually(lambda: "serving.json is damaged" in predictor.error)
        assert predictor.predict({}) == 1.0
        assert len(caplog.records) == 2

        (store.path / "serving.json").unlink()
        store.promote(1, 1)
        eventually(lambda: predictor.error is None)
        file.write_bytes(good)  # mended: found without being told
        store.promote(2, 2)
        eventually(lambda: predictor.predict({}) == 2.0)
        assert predictor.error is None


def test_what_failed_is_tried_again_when_its_file_changes(store, serve, learners):
    serve(1)
    store.put(learners.Steady(2).state(), {**STEADY, "version": 2})
    good = store.file(2).read_bytes()
    store.file(2).write_bytes(b"")
    with Predictor(store.path, poll_s=0.002) as predictor:
        store.promote(2, 2)
        eventually(lambda: predictor.error)
        store.file(2).write_bytes(good)
        eventually(lambda: predictor.predict({}) == 2.0)


def test_a_pickle_needs_a_signature_or_an_opt_in(store, serve, learners, monkeypatch):
    serve(1, learners.Pickled(1), kind="steady_learner:Pickled")
    with pytest.raises(UntrustedState, match="it holds a pickle that is not signed"):
        Predictor(store.path)
    with Predictor(store.path, follow=False, trust_pickle=True) as predictor:
        assert predictor.predict({}) == 1.0
    monkeypatch.setenv("PENSTOCK_KEY", "sesame")
    serve(2, learners.Pickled(2), kind="steady_learner:Pickled")
    with Predictor(store.path, follow=False) as predictor:
        assert predictor.predict({}) == 2.0
        monkeypatch.setenv("PENSTOCK_KEY", "simsim")
        serve(3, learners.Pickled(3), kind="steady_learner:Pickled")
        monkeypatch.setenv("PENSTOCK_KEY", "sesame")
        assert not predictor.refresh()
        assert "not signed" in predictor.error
        assert predictor.predict({}) == 2.0


def test_without_a_snapshot_it_says_so_or_waits(store, serve):
    with pytest.raises(StoreError) as caught:
        Predictor(store.path)
    assert str(caught.value) == (
        f"no snapshot serves yet: {store.path} has no alias 'serving'; "
        f"promote one, or give the predictor time with wait_s"
    )
    with pytest.raises(StoreError, match=r"no snapshot serves yet after 0\.01 s: "):
        Predictor(store.path, wait_s=0.01)
    with pytest.raises(ValueError, match="expected poll_s > 0, got 0"):
        Predictor(store.path, poll_s=0)
    later = threading.Timer(0.05, serve, [1])
    later.start()
    with Predictor(store.path, wait_s=PATIENCE_S, poll_s=0.005) as predictor:
        assert predictor.predict({}) == 1.0
    later.join()


@pytest.mark.parametrize("kind", ["sgd", "steady_learner:Steady"])
def test_bad_values_are_named(store, learners, kind):
    """Whether the model minds, as native ones do, or stumbles over them."""
    model = build("sgd", Task("regression")).freeze() if kind == "sgd" else learners.Steady(1)
    store.put(model.state(), {**STEADY, "kind": kind})
    store.promote(1, 1)
    bad = object()
    with Predictor(store.path, follow=False) as predictor:
        for predict in (predictor.predict, predictor.predict_detailed):
            with pytest.raises(BadRecord) as caught:
                predict(3)
            assert str(caught.value) == "expected a mapping of names to features, got 3 - at `$`"
            with pytest.raises(BadRecord) as caught:
                predict({"user": {"spell": bad}, "spell": bad})
            assert (caught.value.path, caught.value.got) == ("$.user.spell", bad)
            assert caught.value.position == ""
        with pytest.raises(BadRecord) as caught:
            predictor.predict_many([{}, {"x": bad}])
        assert (caught.value.path, caught.value.position) == ("$.x", "row 1")
        with pytest.raises(
            BadRecord, match=r"expected a mapping of names to features, got 3 - at `\$`, row 1"
        ):
            predictor.predict_many([{}, 3])


def test_a_failing_model_is_not_blamed_on_the_event(store, serve):
    serve(1)
    with Predictor(store.path, follow=False) as predictor:
        for predict in (predictor.predict, predictor.predict_detailed):
            with pytest.raises(TypeError, match="this model takes no spells"):
                predict({"spell": "abracadabra"})


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_learner_s_model_answers_as_it_did_before_it_was_stored(store, kind):
    rng = np.random.default_rng(0)
    rows = [{"a": float(a), "b": {"c": "uvw"[n % 3]}} for n, a in enumerate(rng.normal(size=200))]
    labels = np.arange(200.0) % 3 if kind == "multiclass" else (rng.random(200) < 0.5).astype(float)
    learner = build("sgd", Task(kind), bits=10)
    batch = Batch.from_rows(rows, labels)
    learner.learn(batch)
    model = learner.freeze()
    classes = ["x", "y", "z"] if kind == "multiclass" else None
    store.put(model.state(), {"kind": "sgd", "task": kind, "classes": classes})
    store.promote(1, 1)
    learner.learn(batch)  # does not reach what has been stored
    expected = model.predict(batch).tolist()
    with Predictor(store.path, follow=False) as predictor:
        for answers in (predictor.predict_many(rows), [predictor.predict(row) for row in rows]):
            if classes is not None:
                assert [list(answer) for answer in answers] == [classes] * len(rows)
                answers = [list(answer.values()) for answer in answers]
            assert list(answers) == expected


def test_closed_means_closed(store, serve):
    serve(1)
    predictor = Predictor(store.path)
    threads = {thread for thread in threading.enumerate() if thread.name == "penstock-predictor"}
    assert threads
    predictor.close()
    predictor.close()
    assert not any(thread.is_alive() for thread in threads)
    for predict in (predictor.predict, predictor.predict_detailed, lambda x: predictor.predict_many([x])):
        with pytest.raises(StoreError, match="the predictor is closed"):
            predict({})
    serve(2)
    assert not predictor.refresh()
    assert predictor.snapshot == 1


def test_a_forgotten_predictor_takes_its_thread_and_its_map_along(store, serve):
    serve(1)
    before = threading.active_count()
    predictor = Predictor(store.path, poll_s=3600)
    model = weakref.ref(predictor._serving.predict_one.__self__)
    assert threading.active_count() == before + 1
    del predictor
    gc.collect()
    eventually(lambda: threading.active_count() == before)
    assert model() is None


def test_many_threads_get_whole_answers(store, serve):
    serve(1)
    last, seen, failures = 30, [[], [], []], []
    deadline = time.monotonic() + PATIENCE_S

    def predict(seen):
        try:
            while (not seen or seen[-1] < last) and time.monotonic() < deadline:
                answer = predictor.predict_detailed({})
                assert answer.value == answer.snapshot
                assert len(set(predictor.predict_many([{}, {}]))) == 1
                seen.append(answer.snapshot)
        except Exception as error:
            failures.append(error)

    with Predictor(store.path, poll_s=0.001) as predictor:
        threads = [threading.Thread(target=predict, args=(each,)) for each in seen]
        for thread in threads:
            thread.start()
        for version in range(2, last + 1):
            serve(version)
        for thread in threads:
            thread.join()
    assert failures == []
    for each in seen:
        assert each == sorted(each)
        assert each[-1] == last


SHOOT = """
import json, sys, time
from penstock import Predictor
path, last = sys.argv[1], int(sys.argv[2])
event = {f"f{n}": 1.0 for n in range(63)}  # and a constant: 64 weights, all over the table
seen, errors, answers = [], [], 0
deadline = time.monotonic() + 60
with Predictor(path, poll_s=0.001) as predictor:
    print("ready", flush=True)
    while (not seen or seen[-1] < last) and time.monotonic() < deadline:
        try:
            answer = predictor.predict_detailed(event)
            if answer.value != 64.0 * answer.snapshot:
                errors.append(f"{answer}")
            if not seen or seen[-1] != answer.snapshot:
                seen.append(answer.snapshot)
        except Exception as error:
            errors.append(repr(error))
        answers += 1
    if predictor.error:
        errors.append(predictor.error)
print(json.dumps({"seen": seen, "errors": errors, "answers": answers}))
"""


def test_a_swap_under_fire(store):
    """Four processes predict without pause while 50 snapshots are promoted, and old ones removed.

    All weights of a version are its number, so an answer that mixes two versions is off.
    """
    last = 51
    blank = build("sgd", Task("regression"), bits=16).freeze().state()

    def promote(version):
        state = {
            **blank,
            "weights": np.full_like(blank["weights"], version),
            "limits": np.array([[-1e9, 1e9]]),
        }
        store.put(
            state, {"kind": "sgd", "task": "regression", "version": version, "parent": version - 1 or None}
        )
        store.promote(version, version)

    promote(1)
    command = [sys.executable, "-c", SHOOT, str(store.path), str(last)]
    shooters = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        for shooter in shooters:
            assert shooter.stdout.readline() == "ready\n"
        for version in range(2, last + 1):
            promote(version)
            store.prune(3)
            time.sleep(0.01)  # lets the others have a processor
        reports = [json.loads(shooter.communicate(timeout=PATIENCE_S)[0]) for shooter in shooters]
    finally:
        for shooter in shooters:
            shooter.kill()
            shooter.wait()
            shooter.stdout.close()
    for report in reports:
        assert report["errors"] == []
        assert report["seen"] == sorted(set(report["seen"]))
        assert report["seen"][-1] == last
    # They did see swaps, not only the first snapshot and the last.
    assert len({version for report in reports for version in report["seen"]}) > 4


FORK = """
import os, sys, threading, time
from penstock import Predictor
from penstock.snapshots import SnapshotStore
path = sys.argv[1]
predictor = Predictor(path, poll_s=0.005)
child = os.fork()
deadline = time.monotonic() + 60
def wait():
    while predictor.predict({}) != 2.0 and time.monotonic() < deadline:
        time.sleep(0.002)
    followers = [t for t in threading.enumerate() if t.name == "penstock-predictor"]
    return predictor.predict({}) == 2.0 and len(followers) == 1
if child == 0:
    ok = wait()
    predictor.close()
    os._exit(0 if ok else 1)
SnapshotStore(path).promote(2, 2)
ok = wait()
_, status = os.waitpid(child, 0)
print(ok, os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_follows_too(store, serve, learners):
    serve(1)
    store.put(learners.Steady(2).state(), {**STEADY, "version": 2})
    assert run(FORK, store.path) == "True 0\n"


IMPORTS = """
import sys
from penstock import Predictor
with Predictor(sys.argv[1]) as predictor:
    predictor.predict({"x": 1.0})
    predictor.predict_many([{"x": 1.0}])
heavy = ["confluent_kafka", "pandas", "pyarrow", "pydantic", "river", "scipy", "vowpalwabbit", "yaml"]
fronts = ["penstock.config", "penstock.engine", "penstock.runner", "penstock.sources"]
print(*(name for name in heavy + fronts if name in sys.modules))
"""


def test_embedding_imports_nothing_heavy(store):
    store.put(build("sgd", Task("binary")).freeze().state(), {"kind": "sgd", "task": "binary"})
    store.promote(1, 1)
    assert run(IMPORTS, store.path) == "\n"


def test_importing_the_package_imports_next_to_nothing():
    script = (
        "import sys; before = set(sys.modules); import penstock; print(sorted(set(sys.modules) - before))"
    )
    loaded = run(script)
    assert "penstock.errors" in loaded
    assert "numpy" not in loaded
    assert "predictor" not in loaded


def test_the_public_names_are_there():
    assert penstock.Predictor is Predictor
    assert penstock.Prediction is Prediction
    assert penstock.SnapshotStore is SnapshotStore
    assert [getattr(penstock, name).__name__ for name in ("Batch", "Task")] == ["Batch", "Task"]
    assert set(penstock.__all__) <= set(dir(penstock))
    assert sorted(penstock.__all__) == penstock.__all__
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'Predicter'"):
        _ = penstock.Predicter


def test_the_version_is_the_package_s():
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    assert penstock.__version__ == project["version"]
