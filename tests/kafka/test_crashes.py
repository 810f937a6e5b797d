"""A daemon on Kafka that is killed anywhere ends where an uninterrupted one does: each event once."""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Producer

from penstock import config, runner
from penstock.kafka import topics
from penstock.kafka.client import Connection

# Runs a pipeline, and kills itself at the n-th call of something: the worst moments lie between two lines.
CHILD = """
import os, signal, sys, json
from penstock import config, journal, runner, checkpoints
from penstock.kafka.transactions import Transactions
site, n, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
calls = 0
def deadly(owner, name, *, before):
    real = getattr(owner, name)
    def wrapped(*arguments, **keywords):
        global calls
        calls += 1
        if before and calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **keywords)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, wrapped)
if site == "before replace":
    deadly(os, "replace", before=True)
elif site == "after replace":
    deadly(os, "replace", before=False)
elif site == "before append":
    deadly(journal.Journal, "append", before=True)
elif site == "after append":
    deadly(journal.Journal, "append", before=False)
elif site == "torn append":
    real = os.write
    def torn(file, data):
        global calls
        if len(data) > 16 and os.readlink(f"/proc/self/fd/{file}").endswith(".journal"):
            calls += 1
            if calls == n:
                real(file, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        return real(file, data)
    journal.os.write = torn
elif site == "after sync":
    deadly(journal.Journal, "sync", before=False)
elif site == "before fsync":  # a checkpoint, a segment or a snapshot is half on the disk
    deadly(os, "fsync", before=True)
elif site == "before commit":
    deadly(Transactions, "commit", before=True)
elif site == "after commit":
    deadly(Transactions, "commit", before=False)
with open(path) as file:
    runner.run(config.parse(json.load(file)), batch=100)
"""
SITES = [
    "any time",
    "before replace",
    "after replace",
    "before append",
    "after append",
    "torn append",
    "after sync",
    "before fsync",
    "before commit",
    "after commit",
]


def given(directory, bootstrap, topic, outputs, **source):
    return {
        "name": "killed",
        "task": "binary",
        "source": {"kind": "kafka", "bootstrap": bootstrap, "topics": topic, "linger_s": 0.01, **source},
        "learners": {"sgd": {"kind": "sgd", "bits": 10}},
        "drift": [{"kind": "adwin", "react": "reset"}],
        "shadow": {"refresh_every": 500},
        "snapshots": {"path": str(directory / "snapshots"), "keep": 1000},
        "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 300, "every_s": 0.1},
        "dead_letters": {
            "path": str(directory / "dead.jsonl"),
            "topic": f"{outputs}-dead",
            "max_bad_rate": 0.05,
        },
        "events": {"topic": f"{outputs}-events"},
        "dedup": {"window": 1000},
    }


def produce(bootstrap, topic, n, pause_s, stop):
    """Write n events at a steady pace; one in a hundred is garbage besides."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    chance = random.Random(3)
    for i in range(n):
        a, b = chance.gauss(0, 1), chance.gauss(0, 1)
        record = {"id": str(i), "features": {"a": a, "b": b}, "label": 2 * a > b}
        producer.produce(topic, json.dumps(record), partition=i % 4)
        if i % 100 == 50:
            producer.produce(topic, b"garbage", partition=i % 4)
        if i % 20 == 0:
            producer.poll(0)
            if not stop.is_set():
                time.sleep(pause_s * 20)
    producer.flush()


def kill_again_and_again(tmp_path, bootstrap, topic, *, n_events, n_kills, pause_s):
    directory = tmp_path / "killed"
    path = tmp_path / "killed.json"
    path.write_text(json.dumps(given(directory, bootstrap, topic, topic)))
    chance = random.Random(0)
    stop = threading.Event()
    producing = threading.Thread(target=produce, args=(bootstrap, topic, n_events, pause_s, stop))
    producing.start()
    kills = 0
    try:
        while kills < n_kills:
            site = SITES[kills % len(SITES)]
            command = [sys.executable, "-c", CHILD, site, str(chance.randint(2, 8)), str(path)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                process.wait(timeout=0.9 + chance.random() * 0.8 if site == "any time" else 4)
            except subprocess.TimeoutExpired:
                process.kill()
            _, err = process.communicate()
            assert process.returncode == -signal.SIGKILL, err.decode()
            kills += 1
    finally:
        stop.set()
        producing.join()
    last = runner.run(config.parse(given(directory, bootstrap, topic, topic, follow=False)))
    assert last.events == n_events
    assert last.rejected == n_events // 100
    letters = [json.loads(line)["where"] for line in (directory / "dead.jsonl").read_text().splitlines()]
    assert len(letters) == len(set(letters)) == n_events // 100
    assert sorted(letters) == sorted(keys(bootstrap, f"{topic}-dead"))

    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copytree(directory / "checkpoint.journal", whole / "checkpoint.journal")
    uninterrupted = runner.run(
        config.parse(given(whole, bootstrap, topic, f"{topic}-whole", follow=False)), batch=777
    )
    assert uninterrupted.resumed_at == 0
    assert uninterrupted.events == n_events
    assert uninterrupted.digest == last.digest
    assert uninterrupted.serving == last.serving
    told = keys(bootstrap, f"{topic}-events")
    assert len(told) > 5
    assert told == keys(bootstrap, f"{topic}-whole-events")
    return last


def keys(bootstrap, topic):
    """Keys of what everybody can see in a topic; what has none may come twice."""
    committed = topics.read(Connection(bootstrap=bootstrap), topic, {})
    return [message.key().decode() for message in committed if message.key() is not None]


@pytest.mark.kafka
def test_killed_everywhere(tmp_path, kafka, new_topic):
    last = kill_again_and_again(
        tmp_path, kafka, new_topic(4), n_events=4000, n_kills=len(SITES), pause_s=0.001
    )
    assert last.resumed_at > 0


@pytest.mark.kafka
@pytest.mark.crash
def test_killed_a_hundred_times(tmp_path, kafka, new_topic, capsys):
    last = kill_again_and_again(tmp_path, kafka, new_topic(4), n_events=60_000, n_kills=105, pause_s=0.002)
    with capsys.disabled():
        print(f"\n105 kills in {last.events:,} events; digest {last.digest[:16]}")
