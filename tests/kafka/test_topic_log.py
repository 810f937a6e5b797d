"""A topic log writes every record once, whenever its writer dies."""

import itertools
import json
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, ServiceError
from penstock.kafka import topics
from penstock.kafka.client import Connection, producer
from penstock.kafka.topic_log import TopicLog
from penstock.kafka.transactions import Fenced, Transactions

EMBEDDED = Connection(bootstrap="embedded")
names = (f"log-{i}" for i in itertools.count())


def written(connection, topic):
    return [message.key() for message in topics.read(connection, topic, {})]


steps = st.lists(st.sampled_from(["append", "append", "flush", "checkpoint", "crash"]), max_size=30)


def check(connection, topic, given_steps):
    """Do the steps; after a crash go on from the checkpoint. Keys come twice: it counts them."""
    log = TopicLog(connection, topic, writer="w")
    saved, at = json.dumps(log.flush()), 0
    checkpointed = at
    for step in [*given_steps, "crash", *["append"] * len(given_steps), "checkpoint"]:
        if step == "append":
            log.append(b"%d" % at, key=f"{at // 2}")
            at += 1
        elif step == "flush":
            log.flush()
        elif step == "checkpoint":
            saved, checkpointed = json.dumps(log.flush()), at
        else:
            log._producer.flush(10)  # the broker has it all, and nobody has committed it
            log = TopicLog(connection, topic, writer="w", state=json.loads(saved))
            at = checkpointed
    log.close()
    assert Counter(written(connection, topic)) == Counter(f"{i // 2}".encode() for i in range(at))


@settings(max_examples=6, deadline=None)
@given(steps)
def test_every_record_once_on_the_embedded_broker(given_steps):
    check(EMBEDDED, next(names), given_steps)


@pytest.mark.kafka
@settings(max_examples=5, deadline=None)
@given(steps)
def test_every_record_once(kafka, given_steps):
    check(Connection(bootstrap=kafka), f"{next(names)}-{id(given_steps)}", given_steps)


def test_a_checkpoint_in_the_middle_of_the_repetition_is_no_trap():
    check(EMBEDDED, next(names), [*["append"] * 6, "flush", "crash", *["append"] * 3, "checkpoint", "crash"])


def test_pipelines_share_a_topic():
    topic = next(names)
    one, two = (TopicLog(EMBEDDED, topic, writer=name) for name in ("one", "two"))
    state = two.flush()
    one.append(b"1", key="k")
    one.flush()
    two.close()
    two = TopicLog(EMBEDDED, topic, writer="two", state=state)
    assert two.append(b"2", key="k")
    two.flush()
    assert written(EMBEDDED, topic) == [b"k", b"k"]
    one.close()
    two.close()


def test_what_has_no_key_is_written_again():
    topic = next(names)
    log = TopicLog(EMBEDDED, topic, writer="w")
    state = log.flush()
    log.append(b"started")
    log.flush()
    log.close()
    log = TopicLog(EMBEDDED, topic, writer="w", state=state)
    assert log.append(b"started")
    log.close()


def test_a_missing_topic_is_refused_where_it_may_not_be_made():
    with pytest.raises(ConfigError, match=r"there is no topic 'nowhere'.*`create: true`"):
        TopicLog(EMBEDDED, "nowhere", writer="w", create=False)


@pytest.mark.kafka
def test_an_older_instance_is_fenced_off(kafka, new_topic):
    connection, topic = Connection(bootstrap=kafka), new_topic(partitions=2)
    old = TopicLog(connection, topic, writer="w")
    state = old.flush()
    old.append(b"old", key="1")
    new = TopicLog(connection, topic, writer="w", state=state)
    assert new.append(b"new", key="1")
    new.flush()
    with pytest.raises(ServiceError, match="a newer instance has taken over"):
        old.flush()
    new.close()
    assert [m.value() for m in topics.read(connection, topic, {})] == [b"new"]


@pytest.mark.kafka
def test_who_is_fenced_off_while_sending_is_told_why(kafka, new_topic):
    """Sending says that the producer is finished, and not what finished it."""
    connection, topic = Connection(bootstrap=kafka), new_topic()
    old = Transactions(producer(connection, **{"transactional.id": topic}), what="the topic", timeout_s=30.0)
    new = Transactions(producer(connection, **{"transactional.id": topic}), what="the topic", timeout_s=30.0)

    def send_until_it_fails():
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            old.send(topic, b"old")
            time.sleep(0.05)

    old.begin()
    with pytest.raises(Fenced, match="a newer instance has taken over"):
        send_until_it_fails()
    new.begin()
    new.send(topic, b"new")
    new.commit()
    assert [m.value() for m in topics.read(connection, topic, {})] == [b"new"]


def test_an_unreachable_broker_is_said_to_be():
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
        TopicLog(Connection(bootstrap="127.0.0.1:1"), "t", writer="w", timeout_s=1.0)


@pytest.mark.kafka
def test_a_broker_that_has_gone_is_waited_for_once(broker):
    """What is appended after that, and letting go, does not wait again; the next instance goes on."""
    with broker.launch(1) as cluster:
        connection = Connection(bootstrap=cluster.bootstrap)
        log = TopicLog(connection, "log", writer="a", timeout_s=2.0)
        log.append(b"1", key="1")
        state = log.flush()
        log.append(b"2", key="2")
        cluster.kill(1)
        with pytest.raises(ServiceError, match="cannot write to the topic log") as first:
            log.flush()
        for again in (log.flush, lambda: log.append(b"3", key="3")):
            with pytest.raises(ServiceError) as failure:
                again()
            assert failure.value is first.value
        log.close()
        cluster.start(1)
        log = TopicLog(connection, "log", writer="a", state=state)
        assert log.append(b"2", key="2")
        log.flush()
        log.close()
        assert [message.value() for message in topics.read(connection, "log", {})] == [b"1", b"2"]
