"""The one place that talks to confluent-kafka's constructors, and that knows what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import field_validator

from penstock.config import Strict
from penstock.errors import ConfigError, DataError, PenstockError, ServiceError
from penstock.outputs_config import Bootstrap

__all__ = [
    "EMBEDDED",
    "Connection",
    "admin",
    "consumer",
    "describe",
    "identities",
    "producer",
    "translated",
    "watermarks",
]

EMBEDDED: Final = "embedded"
"""The bootstrap address of librdkafka's in-process broker, which lives as long as the process."""

Setting: TypeAlias = "bool | int | float | str"

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SLICE_S: Final = 0.5  # of a wait for a broker: how long a signal may go unnoticed
_PAUSE_S: Final = 0.1  # between two questions to a leader that is not there yet
_log = logging.getLogger("penstock.kafka")

# What exactly-once learning rests on is not for a configuration to change.
_OURS: Final[Mapping[str, str]] = {
    "bootstrap.servers": "give it as `bootstrap`",
    "metadata.broker.list": "give it as `bootstrap`",
    "group.id": "give it as `group`",
    "auto.offset.reset": "give the very first position as `start`",
    "enable.auto.commit": "positions come from the checkpoint",
    "enable.auto.offset.store": "positions come from the checkpoint",
    "enable.partition.eof": "the reader sees to it",
    "enable.idempotence": "every producer is idempotent",
    "transactional.id": "whoever needs transactions names them",
}

_CONSUMER: Final[Mapping[str, Setting]] = {
    "auto.offset.reset": "error",  # a position that is gone is an error, never a silent skip
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "queued.max.messages.kbytes": 32 << 10,  # bounds the memory of what was fetched and not yet read
    "fetch.queue.backoff.ms": 10,  # a full queue is looked at again after 10 ms, not after a second
}
_PRODUCER: Final[Mapping[str, Setting]] = {"enable.idempotence": True}

_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
_PASSING: Final = frozenset(  # while a leader moves, or a topic has just been made
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_CACHE,
    }
)
_NO_TOPIC: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)


class Connection(Strict):
    """Which Kafka, and how to talk to it.

    Attributes
    ----------
    bootstrap : str
        ``host:port``, or several with commas; ``embedded`` is librdkafka's in-process broker.
    settings : mapping of str to str, number or boolean
        Passed through to librdkafka (``security.protocol: SASL_SSL``). ``${NAME}`` in a string is taken from
        the environment when a client is made, so that no secret stands in a configuration.

    Examples
    --------
    >>> Connection(bootstrap="localhost:9092", settings={"sasl.password": "${SECRET}"}).resolved()
    Traceback (most recent call last):
        ...
    penstock.errors.ConfigError: `settings.sasl.password`: the environment variable SECRET is not set
    """

    bootstrap: Bootstrap
    settings: Mapping[str, Setting] = {}

    @field_validator("settings")
    @classmethod
    def _leaves_ours_alone(cls, settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
        for key in settings:
            if key in _OURS:
                raise ValueError(f"`{key}` is not for the settings: {_OURS[key]}")
        return settings

    def resolved(self) -> dict[str, Setting]:
        """Return the settings with the environment filled in.

        Raises
        ------
        ConfigError
            Names the key and the variable that is not set.
        """
        return {key: _filled(key, value) for key, value in self.settings.items()}

    def secrets(self) -> list[str]:
        """Return what came from the environment, and every password: never to be shown."""
        shown = [str(value) for key, value in self.settings.items() if "password" in key or "secret" in key]
        for value in self.settings.values():
            if isinstance(value, str):
                shown += [os.environ.get(name, "") for name in _VARIABLE.findall(value)]
        return sorted(filter(None, shown), key=len, reverse=True)

    def address(self) -> str:
        """Where the broker is; starts the in-process one if that is meant."""
        if self.bootstrap != EMBEDDED:
            return self.bootstrap
        from penstock.kafka import embedded

        address: str = embedded.bootstrap()
        return address


def _filled(key: str, value: Setting) -> Setting:
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise ConfigError(f"`settings.{key}`: the environment variable {match[1]} is not set") from None

    return _VARIABLE.sub(variable, value)


def consumer(connection: Connection, **settings: Any) -> Consumer:
    """Make a consumer that commits nothing by itself and resets no position.

    Parameters
    ----------
    connection : Connection
    **settings
        Of librdkafka; they win over those of the connection. Without ``group.id`` it is in nobody's group.
        ``error_cb`` is told, from within `poll` and `consume`, what befalls the connection.

    Raises
    ------
    ConfigError
        If librdkafka does not know a setting, or not such a value.
    """
    settings = {"group.id": "penstock", **settings}
    made: Consumer = _made(Consumer, connection, _CONSUMER, settings)
    return made


def producer(connection: Connection, **settings: Any) -> Producer:
    """Make an idempotent producer; see `consumer`."""
    made: Producer = _made(Producer, connection, _PRODUCER, settings)
    return made


def admin(connection: Connection) -> AdminClient:
    """Make a client that creates topics; see `consumer`."""
    made: AdminClient = _made(AdminClient, connection, {}, {})
    return made


def _made(
    kind: Any,
    connection: Connection,
    defaults: Mapping[str, Setting],
    settings: Mapping[str, Any],
) -> Any:
    secrets = connection.secrets()
    given = {
        "error_cb": _ignore,
        **defaults,
        **connection.resolved(),
        **settings,
        "bootstrap.servers": connection.address(),
    }
    try:
        return kind(given, logger=_Log(secrets))
    except KafkaException as error:
        raise ConfigError(f"`settings`: {_scrubbed(_text(error.args[0]), secrets)}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`settings`: {_scrubbed(str(error), secrets)}") from None


def _ignore(error: KafkaError) -> None:
    _log.debug("%s", _text(error))


def _text(error: Any) -> str:
    text: str = error.str() if isinstance(error, KafkaError) else str(error)
    return text


def _scrubbed(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


class _Log:
    """What librdkafka logs, in Python's logging and without secrets.

    Whatever matters comes as an error as well; a broker that is down would otherwise fill the log, so all
    but what is critical, or wrong with the settings, is for those who debug.
    """

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Take a line, as `logging.Logger.log` does."""
        matters = level >= logging.CRITICAL or "CONFWARN" in arguments
        level = level if matters else logging.DEBUG
        if _log.isEnabledFor(level):
            _log.log(level, "%s", _scrubbed(message % arguments if arguments else message, self._secrets))


def translated(error: KafkaError, what: str) -> PenstockError:
    """Return the error of ours that one of Kafka's amounts to.

    Parameters
    ----------
    error : KafkaError
    what : str
        What it happened to: a topic, a partition, a broker.
    """
    if error.code() in _NO_TOPIC:
        return DataError(f"{what}: there is no such topic or partition (any more)")
    if error.code() in _REFUSED:
        return ServiceError(f"{what}: Kafka refuses it: {_text(error)}")
    return ServiceError(f"{what}: {_text(error)} ({error.name()})")


def describe(connection: Connection, topics: Iterable[str], timeout_s: float = 10.0) -> dict[str, int]:
    """Ask the broker how many partitions each topic has.

    Raises
    ------
    ConfigError
        Names a topic that is not there.
    ServiceError
        Names the broker that does not answer within `timeout_s`, or what it refuses.
    """
    faults: list[KafkaError] = []
    client = consumer(connection, error_cb=faults.append)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            found = partitions(client, topics, timeout_s=min(_SLICE_S, timeout_s))
            if found is not None:
                break
            client.poll(0)  # what is wrong with the connection is told here
            if time.monotonic() >= deadline:
                raise unreachable(connection, timeout_s, faults)
    finally:
        client.close()
    return found


def unreachable(connection: Connection, waited_s: float | None, faults: Iterable[KafkaError]) -> ServiceError:
    """Return the error of a broker that did not answer, with the last thing that was heard of it.

    `waited_s` is how long it was waited for; None where it answered before.
    """
    last = next(
        (fault for fault in reversed(list(faults)) if fault.code() != KafkaError._ALL_BROKERS_DOWN), None
    )
    why = f": {_scrubbed(_text(last), connection.secrets())}" if last else ""
    if waited_s is None:
        return ServiceError(f"no Kafka broker answers any more at {connection.bootstrap}{why}")
    return ServiceError(f"no Kafka broker answers at {connection.bootstrap} within {waited_s:g} s{why}")


def partitions(client: Consumer, topics: Iterable[str], timeout_s: float) -> dict[str, int] | None:
    """As `describe`, with a client that is there; None if the broker does not answer in time."""
    found: dict[str, int] = {}
    for topic in topics:
        try:
            known = client.list_topics(topic, timeout=timeout_s).topics[topic]
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
                return None
            raise translated(fault, f"topic {topic!r}") from None
        if known.error is not None and known.error.code() not in _NO_TOPIC:
            if known.error.retriable() or known.error.code() == KafkaError.LEADER_NOT_AVAILABLE:
                return None
            raise translated(known.error, f"topic {topic!r}")
        if known.error is not None or not known.partitions:
            raise ConfigError(f"there is no topic {topic!r}: make it first, or correct the name")
        found[topic] = len(known.partitions)
    return found


def identities(connection: Connection, topics: Iterable[str], timeout_s: float) -> dict[str, str]:
    """Return what tells each topic from another of the same name: the id that Kafka gave it.

    Topics whose id is not known are missing: librdkafka's broker gives none, nor did Kafka before 2.8.
    """
    from penstock.kafka import embedded

    if embedded.is_here(connection.address()):
        return {}
    client = admin(connection)  # its answers come as long as it lives
    answers = client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
    found: dict[str, str] = {}
    for topic, answer in answers.items():
        with contextlib.suppress(KafkaException, TimeoutError):
            given = answer.result(timeout_s).topic_id
            if given.get_most_significant_bits() or given.get_least_significant_bits():
                found[topic] = str(given)
    return found


def watermarks(client: Consumer, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """Return the first offset of a partition and the one behind its last, as its leader knows them.

    Raises
    ------
    DataError
        If there is no such partition.
    ServiceError
        If its leader does not answer within `timeout_s`, or refuses.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(deadline - time.monotonic(), _PAUSE_S)
        try:
            low, high = client.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=left, cached=False
            )
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() not in _PASSING or time.monotonic() + _PAUSE_S >= deadline:
                raise translated(fault, f"{topic}[{partition}]") from None
            time.sleep(_PAUSE_S)
        else:
            return low, high
