"""Decisions and rewards: sent by applications, merged by their times, learned by the daemon."""

import json
import random
import uuid

import pytest
from confluent_kafka import Producer, TopicPartition

from penstock import bandit_config, runner
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.feedback import DecisionEvent, RewardEvent
from penstock.kafka.client import Connection, consumer
from penstock.kafka.feedback import KafkaFeedback
from penstock.kafka.sink import KafkaSink
from penstock.sinks import Sink


@pytest.fixture
def topics():
    name = uuid.uuid4().hex[:12]
    return f"decisions-{name}", f"rewards-{name}"


@pytest.fixture
def embedded():
    return Connection(bootstrap="embedded").address()


def decision(i):
    return DecisionEvent(
        id=f"d-{i}",
        time=float(i),
        context={"hour": i % 24},
        actions=("news", "sport"),
        chosen=i % 2,
        propensity=0.5,
        probabilities=(0.5, 0.5),
    )


def reward(i, delay=2.5):
    return RewardEvent(id=f"d-{i}", time=i + delay, value=float(i % 2), reward_id=f"r-{i}")


def fill(bootstrap, topics, n):
    """Write all rewards before all decisions: whoever reads as it comes sees every reward too early."""
    sink = KafkaSink(bootstrap, *topics, wait=False)
    for i in range(n):
        sink.send(reward(i))
    sink.flush()
    for i in range(n):
        sink.send(decision(i))
    sink.close()


def read(source, position=None, *, size=100, enough=None):
    events, letters = [], []
    chunks = source.chunks(position, size)
    for chunk in chunks:
        assert len(chunk.batch) <= size
        events += chunk.batch
        letters += chunk.rejected
        position = chunk.position
        if enough is not None and len(events) >= enough:
            break
    chunks.close()
    return events, letters, json.loads(json.dumps(position))


def make(bootstrap, topics, **options):
    return KafkaFeedback(bootstrap, *topics, **{"follow": False, "poll_s": 0.2, **options})


def test_a_backlog_comes_in_the_order_of_its_times(embedded, topics):
    fill(embedded, topics, 500)
    events, letters, _ = read(make(embedded, topics))
    assert not letters
    assert events == sorted([*map(decision, range(500)), *map(reward, range(500))], key=lambda e: e.time)


def test_the_order_is_repeated_however_it_is_cut(embedded, topics, tmp_path):
    fill(embedded, topics, 200)
    journal = str(tmp_path / "journal")
    whole, _, end = read(make(embedded, topics, journal=journal), size=37)
    begun, _, position = read(make(embedded, topics, journal=journal), size=11, enough=150)
    rest, _, same = read(make(embedded, topics, journal=journal), position, size=1000)
    assert begun + rest == whole
    assert same["topics"] == end["topics"]
    replayed = [e for chunk in make(embedded, topics, journal=journal).replay(None, 5) for e in chunk.batch]
    assert replayed == whole


def test_garbage_is_a_dead_letter(embedded, topics):
    fill(embedded, topics, 5)
    producer = Producer({"bootstrap.servers": embedded})
    producer.produce(
        topics[1], b'{"id": "d-1", "time": 3.5, "reward": "much"}', partition=0, headers={"h": b"1"}
    )
    producer.produce(topics[1], None, partition=0)
    producer.flush(10)
    events, (letter, empty), _ = read(make(embedded, topics))
    assert (len(events), empty.data) == (10, None)
    assert letter.reason.startswith("expected a finite number, got 'much' - at `$.reward`, rewards-")
    assert (letter.where[:8], letter.headers) == ("rewards-", (("h", b"1"),))


def test_a_time_in_milliseconds_is_a_dead_letter(embedded, topics):
    producer = Producer({"bootstrap.servers": embedded})
    for i, time in enumerate((1.7e9, 1.7e12, 1.7e9 + 3600, 1.7e9 + 3601)):
        value = json.dumps({**decision(i).record(), "time": time})
        producer.produce(topics[0], value, partition=0, timestamp=1_700_000_000_000)
    producer.flush(10)
    events, (letter,), _ = read(make(embedded, topics[:1]))
    assert [event.id for event in events] == ["d-0", "d-2", "d-3"]
    assert letter.reason == (
        "expected a time in seconds, at most 86400 s (`max_ahead_s`) after the message's own, "
        f"1700000000.000, got 1700000000000.0 - at `$.time`, {topics[0]}[0]@1"
    )
    events, letters, _ = read(make(embedded, topics[:1], max_ahead_s=3600.0))
    assert [len(events), len(letters)] == [2, 2]
    events, letters, _ = read(make(embedded, topics[:1], max_ahead_s=None))
    assert [len(events), len(letters)] == [4, 0]


def test_lines_of_dsjson_are_decisions_with_what_they_earned(embedded, topics):
    producer = Producer({"bootstrap.servers": embedded})
    line = {
        "_label_cost": -1,
        "_label_probability": 0.75,
        "_label_Action": 2,
        "a": [2, 1],
        "p": [0.75, 0.25],
        "c": {"hour": 9, "_multi": [{"i": {"id": "news"}}, {"i": {"id": "sport"}}]},
    }
    for i in range(3):
        given = {**line, "EventId": f"e{i}", "Timestamp": f"2026-01-01T00:00:0{9 - i}Z"}
        producer.produce(topics[0], json.dumps(given), partition=i)
    producer.produce(topics[0], json.dumps(line), partition=0)
    assert producer.flush(10) == 0
    events, (letter,), _ = read(make(embedded, topics[:1], format="dsjson", arm="i.id"))
    assert [event.id for event in events] == ["e2", "e2", "e1", "e1", "e0", "e0"]
    decision, reward = events[:2]
    assert (decision.actions, decision.chosen, decision.propensity) == (("news", "sport"), 1, 0.75)
    assert (decision.context, decision.action_rows) == (
        {"hour": 9},
        ({"i": {"id": "news"}}, {"i": {"id": "sport"}}),
    )
    assert (reward.value, reward.reward_id, reward.time) == (1.0, "e2", decision.time)
    assert "$.EventId" in letter.reason


def test_a_sink_returns_when_the_broker_has_it(embedded, topics):
    sink = KafkaSink(embedded, *topics)
    assert isinstance(sink, Sink)
    sink.send(decision(0))
    sink.send(reward(0))
    events, _, _ = read(make(embedded, topics))
    assert events == [decision(0), reward(0)]
    sink.close()
    sink.close()
    with pytest.raises(StoreError, match="the sink is closed"):
        sink.send(reward(1))


def test_failures_to_deliver_are_not_silent(topics):
    waiting = KafkaSink("localhost:1", *topics, timeout_s=1.0)
    with pytest.raises(StoreError, match=r"not delivered: .*[Tt]imed out"):
        waiting.send(reward(0))
    waiting.close()
    behind = KafkaSink("localhost:1", *topics, timeout_s=1.0, wait=False)
    behind.send(reward(0))
    with pytest.raises(StoreError, match="an earlier record was not delivered"):
        behind.flush()
    behind.send(reward(1))
    with pytest.raises(StoreError, match="an earlier record was not delivered"):
        behind.close()


def test_what_cannot_be_sent(embedded, topics):
    sink = KafkaSink(embedded, *topics)
    with pytest.raises(BadRecord, match="a record of at most 1,000,000 bytes"):
        sink.send(RewardEvent(id="x" * 1_000_001, time=0.0, value=0.0))
    sink.close()
    large = KafkaSink(embedded, *topics, settings={"message.max.bytes": 1_200_000})
    large.send(RewardEvent(id="x", time=0.0, value=0.0, reward_id="x" * 1_100_000))
    with pytest.raises(BadRecord, match=r"at most 1,200,000 bytes, the setting `message\.max\.bytes`"):
        large.send(RewardEvent(id="x" * 1_200_001, time=0.0, value=0.0))
    large.close()
    with pytest.raises(ConfigError, match="No such configuration property"):
        KafkaSink(embedded, *topics, settings={"nope": 1})


def test_key_is_the_id_of_the_decision(embedded, topics):
    fill(embedded, topics, 3)
    reader = consumer(Connection(bootstrap="embedded"))
    reader.assign([TopicPartition(topics[0], p, 0) for p in range(4)])
    keys = sorted(message.key() for message in reader.consume(3, 10))
    reader.close()
    assert keys == [b"d-0", b"d-1", b"d-2"]


def test_daemon_of_policies_learns_each_decision_once(embedded, topics, tmp_path):
    fill(embedded, topics, 400)
    chance = random.Random(0)

    def pipeline(directory):
        return bandit_config.parse(
            {
                "name": "ads",
                "task": "bandit",
                "source": {
                    "kind": "kafka",
                    "bootstrap": "embedded",
                    "decisions": topics[0],
                    "rewards": topics[1],
                    "follow": False,
                    "poll_s": 0.2,
                    "linger_s": 0.0,
                },
                "policies": {"greedy": {"kind": "epsilon_greedy"}},
                "rewards": {"window_s": 10.0, "lateness_s": 5.0},
                "checkpoint": {"path": str(directory / "checkpoint"), "every_events": 50},
            }
        )

    first = runner.run(pipeline(tmp_path / "a"), batch=64)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "checkpoint.journal").rename(tmp_path / "b" / "checkpoint.journal")
    stops = iter([False] * 5)
    stopped = runner.run(
        pipeline(tmp_path / "b"), batch=chance.randint(20, 90), should_stop=lambda: next(stops, True)
    )
    assert stopped.stopped
    resumed = runner.run(pipeline(tmp_path / "b"), batch=33)
    assert resumed.digest == first.digest
    assert resumed.events == first.events > 300
