"""Brokers that go away and come back, and topics that do not."""

import json
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from penstock.errors import DataError
from penstock.events import Task
from penstock.kafka import reader
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


def test_brokers_are_stopped_and_started(kafka3, tmp_path, caplog):
    """One leader moves, then all are gone for a while: nothing is lost, nothing comes twice."""
    topic = f"faults-{time.time_ns()}"
    kafka3.create(topic, 4)
    send(kafka3.bootstrap, topic, 0, 100)
    source = KafkaSource(
        Task("binary"), kafka3.bootstrap, topic, journal=str(tmp_path / "journal"), poll_s=0.2
    )
    chunks = source.chunks(None, 100)
    seen = []
    follow(chunks, seen, lambda: len(seen) == 100)
    assert source.health.ok
    kafka3.stop(kafka3.leader(topic, 0))
    send(kafka3.bootstrap, topic, 100, 100)
    follow(chunks, seen, lambda: len(seen) == 200)
    kafka3.start()
    for node in kafka3.nodes:
        kafka3.kill(node)
    with caplog.at_level("WARNING", logger="penstock.kafka"):
        follow(chunks, seen, lambda: not source.health.ok)
        assert "no broker answers" in source.health.text
        kafka3.start()
        follow(chunks, seen, lambda: source.health.ok)
    assert [record.message for record in caplog.records if "answers" in record.message][0::2] == [
        record.message for record in caplog.records if "no Kafka broker answers any more" in record.message
    ], "said once when it goes, and once when it is back"
    send(kafka3.bootstrap, topic, 200, 100)
    follow(chunks, seen, lambda: len(seen) >= 300)
    chunks.close()
    assert sorted(seen) == list(range(300))


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
