"""What a daemon comes back from, and what it refuses to go on from."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import NewTopic

from penstock import config, journal, recovery, runner
from penstock.errors import ConfigError, DataError, StoreError
from penstock.events import Task
from penstock.kafka import reader
from penstock.kafka.client import Connection, admin
from penstock.kafka.reader import Reader
from penstock.kafka.source import KafkaSource


@pytest.fixture
def embedded():
    return Connection(bootstrap="embedded").address()


@pytest.fixture
def topic():
    return f"t-{uuid.uuid4().hex[:12]}"


def send(bootstrap, topic, start, n, **settings):
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, **settings})
    if settings:
        producer.init_transactions(30)
        producer.begin_transaction()
    for i in range(start, start + n):
        value = json.dumps({"id": str(i), "features": {"x": i % 7, "y": i % 3}, "label": i % 7 > 3})
        producer.produce(topic, value, partition=i % 4)
    if settings:
        producer.commit_transaction(30)
    assert producer.flush(30) == 0


def pipeline(directory, bootstrap, topic, **source):
    return config.parse(
        {
            "source": {
                "kind": "kafka",
                "bootstrap": bootstrap,
                "topics": topic,
                "features": "features",
                "follow": False,
                "poll_s": 0.2,
                **source,
            },
            "learners": {"sgd": {"kind": "sgd", "bits": 10}},
            "shadow": {"refresh_every": 100},
            "tick": 50,
            "snapshots": {"path": str(directory / "snapshots")},
            "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 10**9, "every_s": 1e9},
        }
    )


class _CrashError(Exception):
    pass


def crash_after(n):
    left = iter(range(n))

    def on_notice(notice):
        if next(left, None) is None:
            raise _CrashError

    return on_notice


def test_a_power_cut_behind_a_published_model(embedded, topic, tmp_path, monkeypatch):
    """Entries of the journal that were not on the disk are lost; what was published comes out the same."""
    send(embedded, topic, 0, 1000)
    on_disk = {}
    real = os.fsync

    def fsync(file):
        real(file)
        path = os.readlink(f"/proc/self/fd/{file}")
        if path.startswith(f"{tmp_path}/checkpoint.journal/"):
            on_disk[path] = os.fstat(file).st_size

    monkeypatch.setattr(journal.os, "fsync", fsync)
    monkeypatch.setattr(journal.Journal, "close", lambda self: os.close(self._lock_file))
    with pytest.raises(_CrashError):
        runner.run(pipeline(tmp_path, embedded, topic), batch=33, on_notice=crash_after(3))
    monkeypatch.undo()
    for path, size in on_disk.items():
        os.truncate(path, size)
    send(embedded, topic, 1000, 100)
    outcome = runner.run(pipeline(tmp_path, embedded, topic), batch=7)
    assert outcome.resumed_at == 0
    assert outcome.events == 1100
    shutil.copytree(tmp_path / "checkpoint.journal", tmp_path / "whole" / "checkpoint.journal")
    assert runner.run(pipeline(tmp_path / "whole", embedded, topic)).digest == outcome.digest


def test_a_lost_journal(embedded, topic, tmp_path):
    """What the checkpoint holds is gone on from, and every record is still learned once."""
    send(embedded, topic, 0, 1000)
    given = pipeline(tmp_path, embedded, topic)
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        recovery.new_journal(given)
    asked = iter(range(10))
    first = runner.run(given, batch=33, should_stop=lambda: next(asked, None) is None)
    assert 0 < first.events < 1000
    with pytest.raises(StoreError, match=r"there is a journal at .* move it away first"):
        recovery.new_journal(given)
    shutil.rmtree(tmp_path / "checkpoint.journal")
    with pytest.raises(StoreError, match=r"and there is none at .*: put it back"):
        runner.run(given)
    assert recovery.new_journal(given) == tmp_path / "checkpoint.journal"
    assert runner.run(given, batch=33).events == 1000
    send(embedded, topic, 1000, 100)
    assert runner.run(given).events == 1100


def test_only_what_reads_topics_has_a_journal(tmp_path):
    given = {"source": {"kind": "river", "dataset": "Phishing"}, "learners": {"sgd": {"kind": "sgd"}}}
    with pytest.raises(ConfigError, match="only a pipeline with a checkpoint that reads Kafka has a journal"):
        recovery.new_journal(config.parse({**given, "shadow": {}}))


def test_the_latest_beginning_is_kept_through_a_crash_before_anything_is_learned(embedded, topic, tmp_path):
    """What comes while the daemon is down for the first time is not "latest" any more."""
    send(embedded, topic, 0, 100)
    given = pipeline(tmp_path, embedded, topic, start="latest")
    assert runner.run(given).events == 0
    for file in tmp_path.glob("checkpoint*"):
        if file.is_file():
            file.unlink()
    send(embedded, topic, 100, 40)
    assert runner.run(given).events == 40


def test_a_journal_of_another_topic(embedded, topic, tmp_path):
    send(embedded, topic, 0, 10)
    send(embedded, topic + "-b", 0, 10)
    runner.run(pipeline(tmp_path, embedded, topic))
    for file in tmp_path.glob("checkpoint*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(StoreError, match=f"is of topic '{topic}', and the topics are {topic}-b"):
        runner.run(pipeline(tmp_path, embedded, topic + "-b"))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_journal_that_is_damaged_leaves_the_checkpoint_as_it_is(embedded, topic, tmp_path, damage):
    send(embedded, topic, 0, 500)
    runner.run(pipeline(tmp_path, embedded, topic), batch=20)
    before = (tmp_path / "checkpoint").read_bytes()
    if damage == "gone":
        shutil.rmtree(tmp_path / "checkpoint.journal")
    else:
        (segment,) = (tmp_path / "checkpoint.journal").glob("*.journal")
        segment.write_bytes(segment.read_bytes()[:-30])
    refused = "there is none at" if damage == "gone" else "is not the one that belongs to the checkpoint"
    with pytest.raises(StoreError, match=rf"{refused}.*; if it is lost, .*run with --new-journal"):
        runner.run(pipeline(tmp_path, embedded, topic))
    assert (tmp_path / "checkpoint").read_bytes() == before


def test_empty_topics_and_nothing_at_all(embedded, topic, tmp_path):
    send(embedded, topic, 0, 1)  # three of the four partitions are empty
    assert runner.run(pipeline(tmp_path, embedded, topic)).events == 1
    assert runner.run(pipeline(tmp_path, embedded, topic)).events == 1


class _Unreadable:
    """A batch that cannot be unpacked, as librdkafka tells of it: no broker takes one from a producer."""

    def __init__(self, topic):
        self.topic, self.partition, self.offset = lambda: topic, lambda: 0, lambda: 7
        self.error = lambda: KafkaError(KafkaError._BAD_COMPRESSION)


def test_what_cannot_be_unpacked_is_not_skipped(embedded, topic):
    send(embedded, topic, 0, 1)
    reader = Reader(Connection(bootstrap=embedded), [topic])
    for _ in reader.connect():
        pass
    reader.begin({}, replaying=False)
    reader.go_live()
    reader._take_event(_Unreadable(topic))
    with pytest.raises(DataError, match=rf"{topic}\[0\]: records from about offset \d+ on cannot be read"):
        reader.fill(10, 0.1)
    reader.close()


@pytest.mark.kafka
def test_marks_of_transactions_are_no_lag(kafka, new_topic, tmp_path):
    """Offsets have gaps where a transaction ended: nothing is missing, and nothing waits."""
    topic = new_topic(4)
    for start in range(0, 200, 40):
        send(kafka, topic, start, 40, **{"transactional.id": f"tx-{topic}"})
    journal_path = str(tmp_path / "journal")
    source = KafkaSource(
        Task("binary"), kafka, topic, features="features", id="id", journal=journal_path, poll_s=0.2
    )
    seen, lag = [], {}
    deadline = time.monotonic() + 30
    chunks = source.chunks(None, 17)
    while (len(seen) < 200 or not lag or any(lag.values())) and time.monotonic() < deadline:
        seen += next(chunks).batch.ids
        lag = source.lag().get(topic, {})
    chunks.close()
    assert lag == dict.fromkeys(range(4), 0)
    assert sorted(map(int, seen)) == list(range(200))
    again = KafkaSource(
        Task("binary"), kafka, topic, features="features", id="id", journal=journal_path, follow=False
    )
    assert [id_ for chunk in again.chunks(None, 50) for id_ in chunk.batch.ids or []] == seen


@pytest.mark.kafka
def test_a_topic_made_anew_is_another_topic(kafka, new_topic, tmp_path):
    """Even if it has as many records again, and the position would fit."""
    topic = new_topic(4)

    def source(journal_path=None):
        return KafkaSource(
            Task("binary"), kafka, topic, features="features", id="id", journal=journal_path, follow=False
        )

    send(kafka, topic, 0, 20)
    *_, last = source().chunks(None, 50)
    *_, same = source().chunks(last.position, 50)
    assert same.position == last.position
    client = admin(Connection(bootstrap=kafka))
    client.delete_topics([topic], operation_timeout=30)[topic].result(30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.create_topics([NewTopic(topic, 4)], operation_timeout=30)[topic].result(30)
            break
        except KafkaException:  # it is still being deleted
            time.sleep(0.2)
    send(kafka, topic, 100, 20)
    with pytest.raises(DataError, match=f"topic '{topic}' was deleted and made anew"):
        list(source().chunks(last.position, 50))
    *_, other = source().chunks(None, 50)
    assert other.position["topics"] == last.position["topics"]
    older = {"topics": last.position["topics"]}  # a position that says nothing of ids is taken at its word
    *_, adopted = source().chunks(older, 50)
    assert adopted.position["ids"] == other.position["ids"]


@pytest.mark.kafka
def test_partitions_that_go_and_come_back_within_one_wait(kafka, new_topic):
    """What was fetched before they went is fetched again, and counts once."""
    topic = new_topic(4)
    group = f"g-{topic}"
    connection = Connection(bootstrap=kafka, settings={"heartbeat.interval.ms": 200})
    reader = Reader(connection, [topic], group=group, assignment="group")
    for _ in reader.connect():
        pass
    reader.begin({}, replaying=False)
    reader.go_live()
    deadline = time.monotonic() + 30
    while len(reader.places) < 4 and time.monotonic() < deadline:
        reader.fill(1, 0.2)
    send(kafka, topic, 0, 8)

    def come_and_go():
        time.sleep(0.3)
        other = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
            }
        )
        given = []
        other.subscribe([topic], on_assign=lambda _, places: given.extend(places))
        while not given and time.monotonic() < deadline:
            other.poll(0.1)
        other.close()

    visit = threading.Thread(target=come_and_go)
    visit.start()
    reader.fill(100, 5.0, linger_s=4.0)
    visit.join()
    taken = []
    while (len(taken) < 8 or reader.fill(100, 0.5)) and time.monotonic() < deadline:
        reader.fill(100, 0.2)
        for place, _ in reader.waiting():
            taken += [(place[1], message.offset()) for message in reader.take(place, 100)]
    reader.close()
    assert sorted(taken) == [(partition, offset) for partition in range(4) for offset in range(2)]


def test_the_checkpoint_before_the_last_can_be_gone_on_from(embedded, topic, tmp_path, monkeypatch):
    """Also where the journal keeps nothing that the last one does not need."""
    monkeypatch.setitem(journal.Journal.__init__.__kwdefaults__, "segment_bytes", 100)
    send(embedded, topic, 0, 1000)
    given = pipeline(tmp_path, embedded, topic, keep=0)
    often = given.checkpoint.model_copy(update={"every_events": 100})
    given = given.model_copy(update={"checkpoint": often})
    runner.run(given, batch=20)
    send(embedded, topic, 1000, 290)
    digest = runner.run(given, batch=20).digest
    assert min(int(path.stem) for path in (tmp_path / "checkpoint.journal").glob("*.journal")) > 0
    os.replace(tmp_path / "checkpoint.previous", tmp_path / "checkpoint")
    again = runner.run(given, batch=20)
    assert 1000 <= again.resumed_at < again.events == 1290
    assert again.digest == digest


@pytest.mark.kafka
def test_a_broker_that_hangs_is_down(broker, monkeypatch):
    """It breaks no connection, and for a minute librdkafka has nothing to say about it."""
    monkeypatch.setattr(reader, "_REFRESH_S", 1.0)
    monkeypatch.setattr(reader, "_RETRY_S", 0.5)
    with broker.launch(1) as cluster:
        cluster.create("t")
        source = KafkaSource(Task("binary"), cluster.bootstrap, "t", features="features", poll_s=0.1)

        def until(ok):
            deadline = time.monotonic() + 40
            for _ in chunks:
                if source.health.ok is ok:
                    return
                assert time.monotonic() < deadline

        with contextlib.closing(source.chunks(None, 10)) as chunks:
            until(ok=True)
            os.kill(cluster.pid(cluster.nodes[0]), signal.SIGSTOP)
            try:
                until(ok=False)
                assert source.health.text.startswith("no broker answers at")
            finally:
                os.kill(cluster.pid(cluster.nodes[0]), signal.SIGCONT)
            send(cluster.bootstrap, "t", 0, 1)
            until(ok=True)
