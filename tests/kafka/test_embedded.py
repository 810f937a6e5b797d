"""The broker inside the process is one, serves real clients, and is what its page says: no more."""

import subprocess
import sys

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from penstock.errors import ConfigError
from penstock.kafka import embedded, topics
from penstock.kafka.client import EMBEDDED, Connection, consumer, describe, producer

CONNECTION = Connection(bootstrap=EMBEDDED)


def read(client, n):
    messages = []
    while len(messages) < n:
        messages += client.consume(n - len(messages), timeout=20.0) or pytest.fail(f"{len(messages)} of {n}")
    return messages


def test_what_is_produced_is_consumed_by_other_clients():
    sender = producer(CONNECTION)
    for i in range(100):
        sender.produce("embedded-events", b"%d" % i, key=b"k", partition=2, headers={"h": b"x"}, timestamp=5)
    assert sender.flush(20.0) == 0
    reader = consumer(CONNECTION)
    reader.assign([TopicPartition("embedded-events", 2, 0)])
    messages = read(reader, 100)
    reader.close()
    assert [message.value() for message in messages] == [b"%d" % i for i in range(100)]
    assert {(m.key(), m.timestamp()[1], tuple(m.headers())) for m in messages} == {(b"k", 5, (("h", b"x"),))}


def test_a_topic_is_there_once_it_is_asked_for():
    with pytest.raises(ConfigError):
        describe(CONNECTION, ["embedded-new"])
    assert topics.ensure(CONNECTION, "embedded-new", create=True, n_partitions=7) == 4
    assert describe(CONNECTION, ["embedded-new"]) == {"embedded-new": 4}


def test_each_process_has_its_own():
    script = "from penstock.kafka import embedded; print(embedded.bootstrap())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (other.returncode, other.stderr) == (0, "")
    assert other.stdout.startswith("127.0.0.1:")
    assert other.stdout.strip() != embedded.bootstrap() == embedded.bootstrap()


def test_its_limits_are_as_described():
    settings = {"bootstrap.servers": embedded.bootstrap(), "log_level": 0}
    admin = AdminClient(settings)
    made = admin.create_topics([NewTopic("embedded-two", 2, 1)], request_timeout=0.5)["embedded-two"]
    with pytest.raises((KafkaException, TimeoutError)):
        made.result(2.0)

    sender = Producer({**settings, "transactional.id": "embedded"})
    sender.init_transactions(20.0)
    for value, finish in ((b"aborted", sender.abort_transaction), (b"kept", sender.commit_transaction)):
        sender.begin_transaction()
        sender.produce("embedded-transactions", value, partition=0)
        sender.flush(20.0)
        finish(20.0)
    reader = Consumer({**settings, "group.id": "unused", "isolation.level": "read_committed"})
    reader.assign([TopicPartition("embedded-transactions", 0, 0)])
    assert [message.value() for message in read(reader, 2)] == [b"aborted", b"kept"]

    sender = Producer(settings)
    for _ in range(8):
        sender.produce("embedded-big", b"x" * 900_000, partition=0)
        sender.flush(20.0)
    first, end = reader.get_watermark_offsets(TopicPartition("embedded-big", 0), timeout=20.0)
    reader.close()
    assert end == 8
    assert first == 8 - (5 << 20) // 900_000
