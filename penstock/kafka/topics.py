"""Topics of our own: made where they are missing, and read from one end to the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]  # not in its __all__
from confluent_kafka.cimpl import NewTopic

from penstock.errors import ConfigError, ServiceError
from penstock.kafka import embedded
from penstock.kafka.client import EMBEDDED, Connection, admin, consumer, describe, translated, watermarks

__all__ = ["check", "ends", "ensure", "read"]

_log = logging.getLogger("penstock.kafka")
_LOOK_S: Final = 0.2  # between two looks at the clock while nothing comes


def ensure(
    connection: Connection,
    topic: str,
    *,
    create: bool,
    n_partitions: int = 1,
    config: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> int:
    """Return how many partitions a topic has; make it if it is not there and may be made.

    Parameters
    ----------
    connection : Connection
    topic : str
    create : bool
        Without it, a missing topic is an error.
    n_partitions : int
        For a topic that is made. It gets the broker's own replication factor.
    config : mapping, optional
        For a topic that is made. One that is there may have another; see `check`.

    Raises
    ------
    ConfigError
        If it is not there and may not be made.
    ServiceError
        If the broker does not answer, or refuses to make it.
    """
    try:
        return describe(connection, [topic], timeout_s)[topic]
    except ConfigError as error:
        if not create:
            raise ConfigError(f"{error} (or set `create: true`)") from None
    if connection.bootstrap == EMBEDDED:  # it takes no requests of administrators
        embedded.create(topic)
        return describe(connection, [topic], timeout_s)[topic]
    client = admin(connection)  # its requests end with it
    made = client.create_topics(
        [NewTopic(topic, n_partitions, -1, config=dict(config or {}))],
        operation_timeout=timeout_s,
        request_timeout=timeout_s,
    )
    try:
        made[topic].result(timeout_s)
        _log.info("made the topic %s with %d partition(s)", topic, n_partitions)
    except KafkaException as error:
        fault = error.args[0]
        if fault.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was quicker
            raise translated(fault, f"making the topic {topic!r}") from error
    except TimeoutError as error:
        raise ServiceError(f"making the topic {topic!r} took more than {timeout_s:g} s") from error
    deadline = time.monotonic() + timeout_s
    while True:  # a broker may confirm a topic before it knows of it itself
        try:
            return describe(connection, [topic], timeout_s)[topic]
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_S)


def check(connection: Connection, topic: str, config: Mapping[str, str], *, timeout_s: float) -> None:
    """Look whether a topic, if it is there, is as it has to be: ``{"cleanup.policy": "compact"}``, say.

    A broker that does not say, because it is not for us to know, is believed.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not config or embedded.is_here(connection.address()):
        return
    client = admin(connection)  # its answers come as long as it lives
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        answer = client.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        _log.debug("topic %s: its configuration is not known: %s", topic, error)
        return
    for key, value in config.items():
        given = answer[key].value if key in answer else None
        if given is not None and value not in given.split(","):
            raise ConfigError(f"topic {topic!r} has {key}={given}, and it needs {value}")


def ends(connection: Connection, topic: str, *, timeout_s: float = 30.0) -> dict[int, tuple[int, int]]:
    """Return the first offset and the one behind the last, of each partition, open transactions included.

    Raises
    ------
    ConfigError
        If there is no such topic.
    ServiceError
        If the broker does not answer.
    """
    n_partitions = describe(connection, [topic], timeout_s)[topic]
    client = consumer(connection, **{"isolation.level": "read_uncommitted"})
    try:
        return {number: watermarks(client, topic, number, timeout_s) for number in range(n_partitions)}
    finally:
        client.close()


def read(
    connection: Connection, topic: str, since: Mapping[int, int], *, timeout_s: float = 60.0
) -> Iterator[Message]:
    """Give every committed record of a topic from the offsets `since` to where the topic ends now.

    Parameters
    ----------
    connection : Connection
    topic : str
    since : mapping of partition to offset
        A partition that is not named is read from its beginning; so is one whose offset is gone.
    timeout_s : float
        How long to wait for the next record. Somebody's open transaction holds back what was committed
        after it began: that too is waited for.

    Raises
    ------
    ServiceError
        If the end is not reached.
    """
    todo = {}
    for number, (low, high) in ends(connection, topic, timeout_s=timeout_s).items():
        first = since.get(number, 0)
        first = first if low <= first <= high else low
        if first < high:
            todo[number] = (first, high)
    if not todo:
        return
    client = consumer(connection, **{"isolation.level": "read_committed", "enable.partition.eof": True})
    try:
        client.assign([TopicPartition(topic, number, first) for number, (first, _) in todo.items()])
        deadline = time.monotonic() + timeout_s
        while todo:
            message = client.poll(_LOOK_S)
            if message is None:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"the topic {topic!r} cannot be read to its end within {timeout_s:g} s: "
                        f"does somebody hold a transaction open on it?"
                    )
                continue
            partition, offset, error = message.partition(), message.offset(), message.error()
            if partition is None or offset is None:
                continue
            # The end is told by where a partition has been read to: behind the last record may lie marks
            # of transactions, which are not given out.
            if error is None:
                deadline = time.monotonic() + timeout_s
                reached = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached = offset
            elif error.fatal() or not error.retriable():
                raise translated(error, f"{topic}[{partition}]")
            else:
                continue
            if partition not in todo:
                continue  # news, behind the end as it was
            end = todo[partition][1]
            if error is None and offset < end:
                yield message
            if reached >= end:
                del todo[partition]
    finally:
        client.close()
