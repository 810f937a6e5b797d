"""The source: what comes, in an order that can be repeated, from positions that nobody else decides."""

import json
import time
import uuid

import msgpack
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.errors import ConfigError, DataError, ServiceError, StoreError
from penstock.events import Task
from penstock.kafka.client import Connection, consumer
from penstock.kafka.source import KafkaSource
from penstock.sources import build

TASK = Task("binary")


def send(bootstrap, topic, values, *, partitions=4, **more):
    producer = Producer({"bootstrap.servers": bootstrap})
    for i, value in enumerate(values):
        data = value if isinstance(value, bytes) else json.dumps(value)
        producer.produce(topic, data, partition=i % partitions, **more)
    assert producer.flush(30) == 0


def rows(n, start=0):
    return [{"x": i, "label": i % 2} for i in range(start, start + n)]


def read(source, position=None, *, size=100, enough=None):
    """Read until the end, or until there is enough: what came, dead letters, and the last position."""
    seen, letters = [], []
    chunks = source.chunks(position, size)
    for chunk in chunks:
        assert len(chunk.batch) <= size
        seen += [row["x"] for row in chunk.batch.rows]
        letters += chunk.rejected
        position = chunk.position
        if enough is not None and len(seen) >= enough:
            break
    chunks.close()
    return seen, letters, json.loads(json.dumps(position))


@pytest.fixture
def embedded():
    """Address of the broker in this process, for which a topic is there when it is first written to."""
    return Connection(bootstrap="embedded").address()


@pytest.fixture
def topic():
    return f"t-{uuid.uuid4().hex[:12]}"


def make(bootstrap, topic, tmp_path=None, **options):
    journal = None if tmp_path is None else str(tmp_path / "journal")
    return KafkaSource(
        TASK, bootstrap, topic, **{"journal": journal, "follow": False, "poll_s": 0.2, **options}
    )


def test_everything_comes_once_and_in_the_order_of_its_partition(embedded, topic):
    send(embedded, topic, rows(1000))
    seen, letters, position = read(make(embedded, topic))
    assert sorted(seen) == list(range(1000))
    assert not letters
    for partition in range(4):
        assert [x for x in seen if x % 4 == partition] == list(range(partition, 1000, 4))
    assert position == {"topics": {topic: {str(p): 250 for p in range(4)}}}


def test_the_registry_knows_it(embedded, topic):
    send(embedded, topic, rows(10))
    source = build("kafka", TASK, bootstrap="embedded", topics=topic, follow=False)
    assert sorted(read(source)[0]) == list(range(10))


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_a_journal_repeats_the_order_however_it_is_cut(embedded, topic, tmp_path, size):
    send(embedded, topic, rows(300))
    first, _, position = read(make(embedded, topic, tmp_path), size=33)
    again, _, end = read(make(embedded, topic, tmp_path), size=size)
    assert again == first
    assert end["topics"] == position["topics"]
    replayed = [row["x"] for c in make(embedded, topic, tmp_path).replay(None, size) for row in c.batch.rows]
    assert replayed == first


@pytest.mark.parametrize("enough", [1, 50, 120, 260])
def test_going_on_from_any_position(embedded, topic, tmp_path, enough):
    """In the middle of what the journal says, and behind its end."""
    send(embedded, topic, rows(300))
    whole, _, end = read(make(embedded, topic, tmp_path), size=40)
    begun, _, position = read(make(embedded, topic, tmp_path), size=7, enough=enough)
    rest, _, same = read(make(embedded, topic, tmp_path), position, size=11)
    assert begun + rest == whole
    assert same["topics"] == end["topics"]
    send(embedded, topic, rows(20, 300))
    more, _, _ = read(make(embedded, topic, tmp_path), end)
    assert sorted(more) == list(range(300, 320))


def test_what_was_read_and_not_journaled_comes_again(embedded, topic, tmp_path):
    """A chunk is written down before anybody sees it, and what was fetched ahead is nobody's yet."""
    send(embedded, topic, rows(200))
    source = make(embedded, topic, tmp_path)
    chunks = source.chunks(None, 50)
    seen = []
    while not seen:
        seen += [row["x"] for row in next(chunks).batch.rows]
    chunks.close()
    again, _, _ = read(make(embedded, topic, tmp_path))
    assert again[: len(seen)] == seen
    assert sorted(again) == list(range(200))


def test_garbage_is_a_dead_letter_with_all_that_it_came_with(embedded, topic):
    send(embedded, topic, rows(3), partitions=1)
    send(
        embedded, topic, [b"{garbage"], partitions=1, key=b"\xff", headers={"trace": b"7"}, timestamp=1234567
    )
    send(embedded, topic, rows(2, 3), partitions=1)
    seen, (letter,), _ = read(make(embedded, topic))
    assert seen == [0, 1, 2, 3, 4]
    assert letter.where == f"{topic}[0]@3"
    assert letter.reason.endswith(f"- at `$`, {topic}[0]@3")
    assert (letter.data, letter.key, letter.headers) == (b"{garbage", b"\xff", (("trace", b"7"),))
    assert (letter.timestamp_ms, letter.after) == (1234567, 3)


def test_a_tombstone_is_a_bad_record(embedded, topic):
    producer = Producer({"bootstrap.servers": embedded})
    producer.produce(topic, None, key=b"k", partition=0)
    producer.flush(10)
    send(embedded, topic, rows(1), partitions=1)
    seen, (letter,), _ = read(make(embedded, topic))
    assert (seen, letter.data, letter.key) == ([0], None, b"k")


def test_several_topics(embedded, topic):
    send(embedded, topic, rows(10))
    send(embedded, topic + "-b", rows(10, 10))
    seen, _, position = read(make(embedded, [topic, topic + "-b"]))
    assert sorted(seen) == list(range(20))
    assert set(position["topics"]) == {topic, topic + "-b"}


@pytest.mark.parametrize(
    ("payload", "encode"),
    [
        ("msgpack", msgpack.packb),
        ("vw", lambda row: f"{1 if row['label'] else -1} | x:{row['x'] + 1}".encode()),
    ],
)
def test_other_formats(embedded, topic, payload, encode):
    send(embedded, topic, [encode(row) for row in rows(8)])
    batches = [chunk.batch for chunk in make(embedded, topic, format=payload).chunks(None, 100)]
    assert sum(len(batch) for batch in batches) == 8
    assert sum(batch.labels.sum() for batch in batches) == 4


def test_metadata_becomes_part_of_the_event(embedded, topic):
    metadata = {
        "id": "key",
        "time": "timestamp",
        "features": {
            "country": "header:country",
            "nothing": "header:none",
            "partition": "partition",
            "x": "topic",
        },
    }
    send(embedded, topic, [b"{"], partitions=1)
    send(
        embedded,
        topic,
        rows(2),
        partitions=1,
        key=b"k-1",
        headers={"country": b"SE"},
        timestamp=1_700_000_000_500,
    )
    chunks = list(make(embedded, topic, metadata=metadata).chunks(None, 100))
    (batch,) = [chunk.batch for chunk in chunks if len(chunk.batch)]
    assert batch.ids == ["k-1", "k-1"]
    assert batch.times.tolist() == [1_700_000_000.5] * 2
    assert [dict(row) for row in batch.rows] == [
        {"x": i, "country": "SE", "partition": "0"} for i in range(2)
    ]
    expected = type(batch).from_rows(batch.rows).features
    assert batch.features.indices.tolist() == expected.indices.tolist()
    assert batch.features.values.tolist() == expected.values.tolist()
    assert batch.features.indptr.tolist() == expected.indptr.tolist()


def test_latest_begins_at_the_end_and_remembers_it(embedded, topic, tmp_path):
    send(embedded, topic, rows(40))
    _, _, position = read(make(embedded, topic, tmp_path, start="latest"))
    assert set(position["topics"][topic].values()) == {10}
    send(embedded, topic, rows(8, 40))
    # Also when the run dies before its first checkpoint: the journal knows where it began.
    seen, _, _ = read(make(embedded, topic, tmp_path, start="latest"))
    assert sorted(seen) == list(range(40, 48))


def test_lag_and_health(embedded, topic):
    send(embedded, topic, rows(40))
    source = make(embedded, topic, follow=True)
    assert not source.health.ok
    chunks = source.chunks(None, 10)
    n = 0
    while n < 40:
        n += len(next(chunks).batch)
    assert source.health.ok
    deadline = time.monotonic() + 20
    while source.lag() != {topic: dict.fromkeys(range(4), 0)} and time.monotonic() < deadline:
        next(chunks)
    assert source.lag() == {topic: dict.fromkeys(range(4), 0)}
    chunks.close()
    assert not source.health.ok


def test_offsets_that_are_gone(embedded, topic, tmp_path):
    """The broker in the process keeps 5 MB of a partition."""
    send(embedded, topic, rows(10), partitions=1)
    _, _, position = read(make(embedded, topic, tmp_path))
    send(embedded, topic, [b"x" * 100_000] * 100, partitions=1)
    with pytest.raises(DataError, match=rf"{topic}\[0\]: offset 10 is wanted, and the broker has \d+ to 110"):
        read(make(embedded, topic, tmp_path), position)
    position["topics"][topic]["0"] = 111
    with pytest.raises(DataError, match=r"offset 111 is wanted.*was the topic made anew"):
        read(make(embedded, topic, tmp_path), position)


def test_a_journal_that_is_not_the_right_one(embedded, topic, tmp_path):
    send(embedded, topic, rows(10))
    _, _, position = read(make(embedded, topic, tmp_path))
    with pytest.raises(StoreError, match="of the journal, and there is none at"):
        read(make(embedded, topic, tmp_path / "other"), position)
    with pytest.raises(ConfigError, match=f"the position is in topic '{topic}'"):
        read(make(embedded, send_one(embedded), tmp_path), position)


def send_one(bootstrap):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    send(bootstrap, topic, rows(1))
    return topic


@pytest.mark.parametrize("position", [{"file": "x"}, {"topics": {"t": 3}}, {"topics": {"t": {"a": 1}}}])
def test_a_position_of_something_else(embedded, topic, position):
    with pytest.raises(DataError, match="has no position in Kafka: it was written while learning from"):
        read(make(embedded, topic), position)


def test_no_broker_no_topic(topic):
    with pytest.raises(ServiceError, match=r"no Kafka broker answers at localhost:1 within 1 s: .*refused"):
        read(make("localhost:1", topic, connect_timeout_s=1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"fetch.min.byte": 1}}, r'No such configuration property: "fetch.min.byte"'),
        (
            {"settings": {"group.id": "x"}},
            r"`settings`: `group.id` is not for the settings: give it as `group`",
        ),
        (
            {"settings": {"sasl.password": "${NO_SUCH_VARIABLE}"}},
            r"`settings.sasl.password`: .* NO_SUCH_VARIABLE",
        ),
        ({"assignment": "group"}, r"`assignment: group` needs `group`"),
        ({"metadata": {"features": {"a": "key"}}, "format": "vw"}, r"`metadata.features`"),
        ({"metadata": {"features": {"a": "kee"}}}, r"source.metadata: `features.a`: string should match"),
    ],
)
def test_options_that_cannot_be(embedded, topic, options, message):
    with pytest.raises(ConfigError, match=message):
        read(make(embedded, topic, **options))


def test_one_topic_twice(embedded):
    with pytest.raises(ConfigError, match="one is named twice"):
        make(embedded, ["a", "a"])


@pytest.mark.kafka
def test_a_topic_that_is_not_there(kafka):
    with pytest.raises(ConfigError, match="there is no topic 'nope'"):
        read(make(kafka, "nope"))


@pytest.mark.kafka
def test_a_second_consumer_joins_and_leaves(kafka, new_topic, tmp_path):
    """Partitions go away and come back: we go on where we were, whatever the other one has read."""
    topic = new_topic(4)
    group = f"g-{topic}"
    often = {"heartbeat.interval.ms": 200}
    source = make(
        kafka, topic, tmp_path, assignment="group", group=group, follow=True, linger_s=0.0, settings=often
    )
    other = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            **often,
        }
    )
    seen, n_sent, n_taken = [], 0, 0
    chunks = source.chunks(None, 50)
    deadline = time.monotonic() + 60
    while n_taken < 20 and time.monotonic() < deadline:
        send(kafka, topic, rows(40, n_sent))
        n_sent += 40
        seen += [row["x"] for row in next(chunks).batch.rows]
        if len(seen) > 100:
            if not n_taken:
                other.subscribe([topic])
            message = other.poll(0.05)
            n_taken += message is not None and message.error() is None
    other.close()
    while len(seen) < n_sent and time.monotonic() < deadline:
        seen += [row["x"] for row in next(chunks).batch.rows]
    chunks.close()
    assert n_taken, "the other one was never given a partition"
    assert sorted(seen) == list(range(n_sent))
    for partition in range(4):
        ours = [x for x in seen if x % 4 == partition]
        assert ours == sorted(ours)
    replayed = make(kafka, topic, tmp_path, assignment="group", group=group).replay(None, 77)
    assert [row["x"] for chunk in replayed for row in chunk.batch.rows] == seen


@pytest.mark.kafka
def test_offsets_of_the_group_follow_the_checkpoint(kafka, new_topic):
    topic = new_topic(2)
    send(kafka, topic, rows(10), partitions=2)
    source = make(kafka, topic, group=f"g-{topic}", follow=True)
    chunks = source.chunks(None, 100)
    seen = []
    while len(seen) < 10:
        chunk = next(chunks)
        seen += chunk.batch.rows
    source.saved(chunk.position)
    next(chunks)
    chunks.close()
    reader = consumer(Connection(bootstrap=kafka), **{"group.id": f"g-{topic}"})
    committed = reader.committed([TopicPartition(topic, p) for p in range(2)], timeout=10)
    reader.close()
    assert [place.offset for place in committed] == [5, 5]
