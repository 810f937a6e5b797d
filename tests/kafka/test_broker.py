"""The brokers that other tests rely on: they keep data, come back, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0


def produce(bootstrap, topic, values, partition=0):
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    failed = []
    for value in values:
        producer.produce(
            topic,
            value,
            partition=partition,
            on_delivery=lambda error, _: failed.append(error) if error is not None else None,
        )
    assert producer.flush(PATIENCE_S) == 0
    assert failed == []


def consume(bootstrap, topic, n, partition=0):
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    values = []
    deadline = time.monotonic() + PATIENCE_S
    while len(values) < n and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pids, directory):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not any(map(alive, pids)) and not directory.exists():
            return True
        time.sleep(0.05)
    return False


def test_what_is_produced_is_consumed(kafka, new_topic):
    topic = new_topic(partitions=2)
    values = [b"%d" % i for i in range(100)]
    produce(kafka, topic, values, partition=1)
    assert consume(kafka, topic, 100, partition=1) == values


def test_a_broker_comes_back_with_its_data_and_an_ended_user_takes_all_with_it(broker, tmp_path):
    # Another process is the user, so that it can be killed while it holds the cluster.
    script = tmp_path / "user.py"
    script.write_text(
        "import runpy, sys, time\n"
        f"broker = runpy.run_path({broker.__file__!r})\n"
        "cluster = broker['launch']()\n"
        "cluster.create('kept')\n"
        "print(cluster.bootstrap, cluster.pid(1), cluster.directory, flush=True)\n"
        "sys.stdin.readline()\n"
        "cluster.stop(1)\n"
        "print(cluster.pid(1), flush=True)\n"
        "cluster.start(1)\n"
        "print(cluster.pid(1), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        try:
            bootstrap, first, directory = user.stdout.readline().split()
            produce(bootstrap, "kept", [b"a", b"b"])
            user.stdin.write("\n")
            user.stdin.flush()
            assert user.stdout.readline() == "None\n"
            assert not alive(int(first))
            second = int(user.stdout.readline())
            assert consume(bootstrap, "kept", 2) == [b"a", b"b"]
        finally:
            user.send_signal(signal.SIGKILL)
    assert gone([second], Path(directory))


def test_a_shared_cluster_lasts_until_its_last_user_has_gone(broker, kafka_cluster, tmp_path):
    # A keeper is asked for no broker here: who lets go when is all that counts.
    first = broker._keeper("", 1, None, None)
    (tmp_path / "kafka-1.json").write_text(
        f'{{"directory": "{first.directory}", "ports": {list(first._ports)}}}'
    )
    with broker.shared(tmp_path, 1) as second:
        assert second.bootstrap == first.bootstrap
        first.close()
        assert second.pid(1) is None
        assert second.directory.exists()
    assert gone([], first.directory)


def test_a_broker_that_cannot_start_shows_its_log(broker):
    with broker._keeper(broker.classpath(), 1, None, None) as cluster:
        home = cluster.directory / "node-1"
        (home / "data").mkdir(parents=True)
        (home / "data" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=x\n")
        with pytest.raises(broker.BrokerError, match=r"(?s)broker 1 ended .*Stored node id 7"):
            cluster.start()
        with pytest.raises(ValueError, match="no broker 2: they are 1"):
            cluster.stop(2)


def led(cluster, topic, but=None):
    """Wait for a leader, and return its number; while one is elected there is none."""
    deadline = time.monotonic() + PATIENCE_S
    while (leader := cluster.leader(topic)) in (None, but):
        assert time.monotonic() < deadline, f"no leader but {but}"
        time.sleep(0.1)
    return leader


def test_leadership_moves_and_nothing_acknowledged_is_lost(kafka3):
    kafka3.create("moved", 1)
    leader = led(kafka3, "moved")
    produce(kafka3.bootstrap, "moved", [b"1", b"2"])
    kafka3.stop(leader)
    led(kafka3, "moved", but=leader)
    produce(kafka3.bootstrap, "moved", [b"3"])
    kafka3.start(leader)
    second = led(kafka3, "moved")
    kafka3.kill(second)
    led(kafka3, "moved", but=second)
    produce(kafka3.bootstrap, "moved", [b"4"])
    assert consume(kafka3.bootstrap, "moved", 4) == [b"1", b"2", b"3", b"4"]
