"""Brokers that go away and come back, and topics that do not."""

import json
import threading
import time

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewPartitions

from penstock import config, runner, tensors
from penstock.errors import DataError
from penstock.events import Task
from penstock.kafka import letters, reader, topics
from penstock.kafka.client import Connection, admin
from penstock.kafka.source import KafkaSource

pytestmark = pytest.mark.kafka


def send(bootstrap, topic, start, n):
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for i in range(start, start + n):
        producer.produce(topic, json.dumps({"x": i, "label": i % 2}), partition=i % 4)
    assert producer.flush(60) == 0


def follow(chunks, seen, until, within_s=90.0):
    deadline = time.monotonic() + within_s
    while not until() and time.monotonic() < deadline:
        seen += [row["x"] for row in next(chunks).batch.rows]
    assert until()


def test_a_deleted_topic_ends_the_run(kafka, new_topic, monkeypatch):
    monkeypatch.setattr(reader, "_REFRESH_S", 1.0)
    topic = new_topic(4)
    send(kafka, topic, 0, 10)
    source = KafkaSource(Task("binary"), kafka, topic, poll_s=0.1, connect_timeout_s=3.0)
    chunks = source.chunks(None, 100)
    seen = []
    follow(chunks, seen, lambda: len(seen) == 10)
    client = admin(Connection(bootstrap=kafka))
    client.delete_topics([topic])[topic].result(30)
    with pytest.raises(DataError, match=f"there is no topic '{topic}'.*was it deleted"):
        follow(chunks, seen, lambda: False, within_s=60.0)


def test_new_partitions_are_picked_up(kafka, new_topic, monkeypatch):
    monkeypatch.setattr(reader, "_REFRESH_S", 0.5)
    topic = new_topic(2)
    source = KafkaSource(Task("binary"), kafka, topic, poll_s=0.1, start="latest")
    chunks = source.chunks(None, 100)
    while not source.health.ok:
        next(chunks)
    next(chunks)
    client = admin(Connection(bootstrap=kafka))
    client.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    time.sleep(0.5)
    send(kafka, topic, 0, 40)
    seen = []
    follow(chunks, seen, lambda: len(seen) == 40, within_s=30.0)
    chunks.close()
    assert sorted(seen) == list(range(40))


LEARNING = {
    "learners": {"sgd": {"kind": "sgd", "bits": 10}},
    "drift": [{"kind": "adwin", "react": "reset"}],
    "shadow": {"refresh_every": 500},
}


def given(directory, bootstrap, topic, **source):
    return config.parse(
        {
            "name": "tried",
            "source": {
                "kind": "kafka",
                "bootstrap": bootstrap,
                "topics": topic,
                "features": "features",
                "group": topic,
                "assignment": "group",
                "settings": {"heartbeat.interval.ms": 500},
                "poll_s": 0.1,
                "linger_s": 0.05,
                **source,
            },
            **LEARNING,
            "snapshots": {"path": str(directory / "snapshots"), "keep": 1000},
            "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 1000, "every_s": 1},
            "dead_letters": {"topic": f"{topic}-dead", "max_bad_rate": 0.05},
            "events": {"topic": f"{topic}-events"},
        }
    )


def test_a_daemon_through_all_of_it(kafka3, tmp_path, caplog):
    """A leader moves, all brokers go and come back, another consumer joins and leaves, 1 % is garbage."""
    topic, n = f"faults-{time.time_ns()}", 0
    bootstrap = kafka3.bootstrap
    kafka3.create(topic, 4)
    garbage = []

    def feed(more):
        nonlocal n
        producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "enable.idempotence": True})
        for i in range(n, n + more):
            record = {"features": {"a": i % 7, "b": i % 3}, "label": i % 7 > 3}
            producer.produce(topic, json.dumps(record), partition=i % 4)
            if i % 100 == 50:
                garbage.append(f"garbage {i}".encode())
                producer.produce(topic, garbage[-1], partition=i % 4)
        assert producer.flush(60) == 0
        n += more

    outcomes, wrong = [], []
    stop = threading.Event()

    def daemon():
        try:
            outcomes.append(runner.run(given(tmp_path, bootstrap, topic), should_stop=stop.is_set))
        except Exception as error:
            wrong.append(error)

    running = threading.Thread(target=daemon)
    feed(1000)
    running.start()
    try:
        assert checkpoint_reaches(tmp_path / "checkpoint", topic, bootstrap, running)
        kafka3.stop(leader := kafka3.leader(topic, 0))
        feed(1000)
        kafka3.start(leader)
        other = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": topic,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,  # it may be killed with the brokers that it says goodbye to
                "log_level": 0,
            }
        )
        other.subscribe([topic])
        deadline = time.monotonic() + 30
        while (message := other.poll(0.2)) is None or message.error() is not None:
            assert time.monotonic() < deadline, "the other one was never given a partition"
            feed(20)
        other.close()
        for node in kafka3.nodes:
            kafka3.kill(node)
        time.sleep(1.0)
        kafka3.start()
        feed(1000)
        is_all_learned = checkpoint_reaches(tmp_path / "checkpoint", topic, bootstrap, running)
    finally:
        stop.set()
        running.join()
    assert not wrong, wrong
    said = [record.message for record in caplog.records if " answers a" in record.message]
    went = [text.startswith("no Kafka broker answers any more") for text in said]
    assert went == [True, False] * (len(said) // 2), "said once when they go, and once when one is back"
    assert said
    assert is_all_learned
    (outcome,) = outcomes
    assert (outcome.events, outcome.rejected) == (n, len(garbage))
    dead = list(letters.read(Connection(bootstrap=bootstrap), f"{topic}-dead", "tried"))
    assert sorted(letter.data for letter in dead) == sorted(garbage)
    assert len({letter.where for letter in dead}) == len(dead)
    assert all("JSON" in letter.reason for letter in dead)
    clean = tmp_path / "clean.jsonl"
    source = KafkaSource(
        Task("binary"), bootstrap, topic, features="features", journal=f"{tmp_path}/checkpoint.journal"
    )
    with clean.open("w") as file:
        for chunk in source.replay(None, 1000):
            for row, label in zip(chunk.batch.rows, chunk.batch.labels.tolist(), strict=True):
                file.write(json.dumps({"features": row, "label": label > 0}) + "\n")
    whole = config.parse({**LEARNING, "source": {"kind": "file", "path": str(clean), "features": "features"}})
    assert runner.run(whole).digest == outcome.digest


def checkpoint_reaches(path, topic, bootstrap, running, within_s=60.0):
    """Wait until everything in a topic is in a checkpoint."""
    ends = {str(p): high for p, (_, high) in topics.ends(Connection(bootstrap=bootstrap), topic).items()}
    deadline = time.monotonic() + within_s
    while running.is_alive() and time.monotonic() < deadline:
        position = tensors.read(path)[1]["position"] if path.exists() else {}
        if position.get("topics", {}).get(topic) == ends:
            return True
        time.sleep(0.2)
    return False
