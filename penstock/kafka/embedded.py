"""A broker inside the process: librdkafka's mock cluster, for demos and tests on a bare machine.

It speaks the protocol on a loopback port, so everything that a client does is real; the broker is not:

- It holds everything in memory, and is gone with the process.
- A topic is there, with four partitions, once something is sent to it or `create` was called. It cannot be
  made with another number of them, nor configured, nor deleted: requests of an administrator get no answer.
- A partition keeps its last 5 MiB (or 100,000 batches of messages) and drops what is older.
- Nothing is compacted, and nothing expires by age.
- Transactions are accepted and undone by nobody: what was aborted is read like everything else, and a
  `transactional.id` fences no older producer.
- An offset cannot be looked up by time.
- Groups work, but a first member waits three seconds for others.
- There is no authentication, no TLS and no authorisation.

What rests on any of these needs a real broker: ``make kafka`` starts one.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Final

from confluent_kafka import KafkaException, Producer

from penstock.errors import ServiceError

__all__ = ["bootstrap", "create", "is_here"]

_READY_S: Final = 10.0  # it takes some 50 ms

_lock = threading.Lock()
_keeper: Producer | None = None  # the client whose brokers they are; they end with it
_address = ""
_owner = 0  # the process that started them


def bootstrap() -> str:
    """Return the address of this process's broker, started at the first call and stopped when it exits.

    A forked child has one of its own.

    Raises
    ------
    ServiceError
        If it does not start.

    Examples
    --------
    >>> bootstrap() == bootstrap()
    True
    """
    global _keeper, _address, _owner
    with _lock:
        if _keeper is None or _owner != os.getpid():
            keeper = Producer({"test.mock.num.brokers": 1, "log_level": 0})
            try:
                brokers = keeper.list_topics(timeout=_READY_S).brokers.values()
            except KafkaException as error:
                raise ServiceError(f"the embedded broker does not start: {error.args[0].str()}") from None
            _keeper, _owner = keeper, os.getpid()
            _address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        return _address


def is_here(address: str) -> bool:
    """Whether `address` is that of this process's broker, if there is one."""
    return bool(_address) and address == _address


def create(topic: str) -> None:
    """Have a topic, with four partitions.

    Raises
    ------
    ServiceError
        If the broker does not answer, or the name cannot be one.
    """
    bootstrap()
    if _keeper is not None:
        try:
            _keeper.list_topics(topic, timeout=_READY_S)  # asked for by a producer, it is made
        except KafkaException as error:
            raise ServiceError(f"the embedded broker: topic {topic!r}: {error.args[0].str()}") from None


@atexit.register
def _close() -> None:
    global _keeper
    _keeper = None
