"""Where an application's decisions and rewards go: two topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final

import orjson
from confluent_kafka import KafkaError, KafkaException, Message

from penstock.errors import BadRecord, StoreError
from penstock.feedback import DecisionEvent, RewardEvent, plain
from penstock.kafka.client import Connection, producer

__all__ = ["KafkaSink"]

_MAX_RECORD_BYTES: Final = 1_000_000  # what a broker takes if it is not told otherwise
_SIZE_SETTING: Final = "message.max.bytes"
_POLL_S: Final = 0.1


class KafkaSink:
    """Sends decisions to one topic and rewards to another, with the decision's id as the key.

    For ``Predictor(..., sink=KafkaSink(...))``. Any number of threads may share it; a forked child needs one
    of its own. The producer is idempotent: a record that had to be sent again is there once.

    Parameters
    ----------
    bootstrap : str
        As of `penstock.kafka.source.KafkaSource`.
    decisions, rewards : str
        Topics.
    settings : mapping
        Of librdkafka; ``${NAME}`` is taken from the environment. For decisions of more than 1,000,000 bytes,
        such as those of thousands of actions with features, ``message.max.bytes``, and ``max.message.bytes``
        of the topic.
    wait : bool
        Return from `send` only when the broker has the record: milliseconds, and a failure is raised by the
        very call. Without it records are sent in the background; a failure is raised by the next call and
        by `close`.
    timeout_s : float
        How long a record may take to be delivered, retries included, in seconds.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    """

    def __init__(
        self,
        bootstrap: str,
        decisions: str,
        rewards: str,
        *,
        settings: Mapping[str, bool | int | float | str] | None = None,
        wait: bool = True,
        timeout_s: float = 30.0,
    ) -> None:
        self._topics: Final = {DecisionEvent: decisions, RewardEvent: rewards}
        self._bootstrap = bootstrap
        self._wait = wait
        self._timeout_s = timeout_s
        self._failure: str | None = None
        self._closed = False
        connection = Connection(bootstrap=bootstrap, settings=settings or {})
        self._producer = producer(
            connection,
            **{"delivery.timeout.ms": max(1, round(timeout_s * 1000)), "linger.ms": 0 if wait else 5},
        )
        self._max_record_bytes = int(connection.resolved().get(_SIZE_SETTING, _MAX_RECORD_BYTES))
        self._poller = threading.Thread(target=self._poll, name="penstock-sink", daemon=True)
        self._poller.start()

    def __repr__(self) -> str:
        topics = ", ".join(repr(topic) for topic in self._topics.values())
        return f"KafkaSink({self._bootstrap!r}, {topics})"

    def send(self, event: DecisionEvent | RewardEvent) -> None:
        """Send `event` to its topic.

        Raises
        ------
        BadRecord
            If it cannot be written as JSON, or is longer than a broker takes.
        StoreError
            If this one, or without `wait` an earlier one, was not delivered.
        """
        try:
            value = orjson.dumps(event.record(), default=plain)
        except TypeError as error:
            raise BadRecord(f"what JSON can hold ({error})", event.record()) from error
        if len(value) > self._max_record_bytes:
            most = f"a record of at most {self._max_record_bytes:,} bytes, the setting `{_SIZE_SETTING}`"
            raise BadRecord(most, f"one of {len(value):,}")
        if self._closed:
            raise StoreError(f"{self!r}: the sink is closed")
        self._raise_failure()
        delivery = _Delivery()
        self._produce(self._topics[type(event)], event.id, value, delivery)
        if self._wait:
            # The producer gives up by itself after `timeout_s`, and says why.
            if not delivery.done.wait(self._timeout_s + 5.0):
                raise StoreError(f"{self!r}: no word of a record within {self._timeout_s:g} s")
            if delivery.error is not None:
                raise StoreError(f"{self!r}: not delivered: {delivery.error}")

    def flush(self) -> None:
        """Wait until everything sent is delivered.

        Raises
        ------
        StoreError
            If something was not.
        """
        left = self._producer.flush(self._timeout_s + 5.0)
        self._raise_failure()
        if left:
            raise StoreError(f"{self!r}: {left} records were not delivered")

    def close(self) -> None:
        """Deliver what is on its way, and let go of the connection."""
        if self._closed:
            return
        self._closed = True
        self._poller.join()
        self.flush()

    def _produce(self, topic: str, key: str, value: bytes, delivery: _Delivery) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            del message
            delivery.error = None if error is None else error.str()
            delivery.done.set()
            if delivery.error is not None and not self._wait:
                self._failure = delivery.error

        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._producer.produce(topic, value, key=key, on_delivery=report)
            except BufferError:  # the broker is slower than we are: the application waits
                if time.monotonic() >= deadline:
                    raise StoreError(f"{self!r}: the queue has been full for {self._timeout_s:g} s") from None
                time.sleep(0.005)
            except KafkaException as error:
                raise StoreError(f"{self!r}: {error.args[0].str()}") from error
            else:
                return

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise StoreError(f"{self!r}: an earlier record was not delivered: {failure}")

    def _poll(self) -> None:
        while not self._closed:
            self._producer.poll(_POLL_S)


class _Delivery:
    """What becomes of one record."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: str | None = None
