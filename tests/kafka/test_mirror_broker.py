"""The mirror of snapshots on a real broker: fencing, compaction, and a predictor that never stops."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import ServiceError
from penstock.kafka import topics
from penstock.kafka.client import Connection
from penstock.kafka.mirror import Follower
from penstock.kafka.publisher import Publisher
from penstock.kafka.transactions import Fenced
from penstock.predictor import Predictor
from penstock.snapshots import SnapshotStore

pytestmark = pytest.mark.kafka

TESTS = Path(__file__).parents[1]
PATIENCE_S = 90.0
MIB = 1 << 20

PREDICT = """
import json, sys, time
from penstock.predictor import Predictor
url, last = sys.argv[1], int(sys.argv[2])
seen, n = [], 0
with Predictor(url, poll_s=0.02, wait_s=60) as predictor:
    deadline = time.monotonic() + 80
    while time.monotonic() < deadline:
        answer = predictor.predict_detailed({"x": 1})
        assert answer.value == answer.snapshot, answer
        n += 1
        if not seen or seen[-1][0] != answer.snapshot:
            seen.append((answer.snapshot, time.time()))
            print(json.dumps(seen[-1]), flush=True)
        if answer.snapshot == last:
            break
        time.sleep(0.001)
print(json.dumps([n, predictor.error]), flush=True)
"""


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Put and promote a version whose predictions are its number, of about `size` bytes."""
    monkeypatch.syspath_prepend(TESTS)
    import steady_learner

    store = SnapshotStore(tmp_path / "snapshots")

    def serve(version, size=0, promote=True):
        state = steady_learner.Steady(version).state()
        if size:
            state["ballast"] = np.random.default_rng(version).integers(0, 255, size, dtype=np.uint8)
        manifest = {"kind": "steady_learner:Steady", "task": "regression", "version": version}
        store.put(state, {**manifest, "parent": version - 1 or None})
        if promote:
            store.promote(version, version)

    serve.store = store
    return serve


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_a_second_publisher_fences_the_first(kafka, new_topic, serve, tmp_path):
    topic, connection = new_topic(cleanup_policy="compact"), Connection(bootstrap=kafka)
    serve(1)
    with Publisher(serve.store, connection, topic) as old, Publisher(serve.store, connection, topic) as new:
        old.run_once()
        assert new.run_once() == []
        serve(2)
        with pytest.raises(Fenced):
            old.run_once()
        with pytest.raises(ServiceError):
            old.run_once()
        new.run_once()
        with Follower(connection, topic, tmp_path / "m") as follower:
            assert follower.run_once()
        assert SnapshotStore(tmp_path / "m").alias("serving") == serve.store.alias("serving")


def test_a_topic_that_forgets_is_refused(kafka, new_topic, serve):
    topic, connection = new_topic(cleanup_policy="delete"), Connection(bootstrap=kafka)
    serve(1)
    with Publisher(serve.store, connection, topic) as publisher:
        publisher.start()
        eventually(
            lambda: publisher.error == f"topic {topic!r} has cleanup.policy=delete, and it needs compact"
        )
    assert list(topics.read(connection, topic, {})) == []


def test_what_is_compacted_away_is_not_missed(kafka, new_topic, serve, tmp_path):
    topic = new_topic(
        cleanup_policy="compact",
        segment_bytes=MIB,
        segment_ms=1000,
        min_cleanable_dirty_ratio=0.01,
        delete_retention_ms=0,
        max_compaction_lag_ms=1000,
    )
    connection = Connection(bootstrap=kafka)
    store = serve.store
    with Publisher(store, connection, topic) as publisher:
        for version in range(1, 6):
            serve(version, size=10 * MIB)
            publisher.run_once()
        store.prune(2)
        publisher.run_once()
        # Nothing is compacted in the segment that is being written.
        read = []

        def compacted():
            store.set_alias("candidate", 4 + len(read) % 2)
            publisher.run_once()
            read.append(sum(1 for _ in publisher_records(connection, topic)))
            time.sleep(1)
            return read[-1] < 50  # 12 records of each of two versions, not of five

        eventually(compacted)
        with Follower(connection, topic, tmp_path / "m") as follower:
            assert follower.run_once()
        mirror = SnapshotStore(tmp_path / "m")
        assert mirror.versions() == store.versions() == [4, 5]
        assert mirror.aliases() == store.aliases()
        assert mirror.verify() == []


def publisher_records(connection, topic):
    from penstock.kafka import topics

    return topics.read(connection, topic, {0: 0}, timeout_s=30)


def test_a_predictor_elsewhere_follows_twenty_promotions(kafka, new_topic, serve):
    topic, connection = new_topic(cleanup_policy="compact"), Connection(bootstrap=kafka)
    serve(1, size=10 * MIB)
    promoted = {}
    with Publisher(serve.store, connection, topic, timeout_s=60) as publisher:
        publisher.start()
        process = subprocess.Popen(
            [sys.executable, "-c", PREDICT, f"kafka://{kafka}/{topic}", "21"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        )
        lines = []
        try:
            lines.append(json.loads(process.stdout.readline()))
            for version in range(2, 22):
                serve(version, size=10 * MIB if version % 10 == 0 else 0)
                promoted[version] = time.time()
                publisher.wake()
                serve.store.prune(5)
                time.sleep(0.15)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert publisher.error is None
    lines += map(json.loads, out.splitlines())
    *swaps, (n, error) = lines
    versions = [version for version, _ in swaps]
    assert versions == sorted(versions)
    assert versions[-1] == 21
    assert n > 100
    assert error is None
    print(
        "seconds from promotion to answer:", [round(at - promoted[v], 3) for v, at in swaps if v in promoted]
    )


def test_a_broker_that_goes_leaves_what_is_there(kafka_cluster, broker, serve, tmp_path):
    # `kafka_cluster` skips where there can be no broker; this one is stopped, so it is the test's own.
    with broker.launch(1) as cluster:
        cluster.create("snapshots", 1, cleanup_policy="compact")
        url = f"kafka://{cluster.bootstrap}/snapshots"
        serve(1)
        with Publisher(
            serve.store, Connection(bootstrap=cluster.bootstrap), "snapshots", timeout_s=5
        ) as publisher:
            publisher.start(poll_s=0.1, retry_s=0.5)
            with Predictor(url, cache=tmp_path / "cache", wait_s=PATIENCE_S, poll_s=0.05) as predictor:
                assert predictor.predict({}) == 1.0
                cluster.stop()
                serve(2)
                publisher.wake()
                eventually(lambda: publisher.error and predictor.error)
                assert predictor.predict({}) == 1.0
                with Predictor(url, cache=tmp_path / "cache") as second:  # of this machine, without a broker
                    assert second.predict({}) == 1.0
                cluster.start()
                eventually(lambda: predictor.predict({}) == 2.0)
                eventually(lambda: publisher.error is None and predictor.error is None)
