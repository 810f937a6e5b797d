"""One transaction after another: what confluent-kafka asks of whoever writes exactly once.

A step of a transaction fails in one of three ways. It may be tried again as it is; the transaction may
have to be rolled back and made again (`RolledBack`); or the producer is finished, because a newer instance
has taken its place, for example (`ServiceError`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from penstock.errors import ServiceError

__all__ = ["Fenced", "Headers", "RolledBack", "Transactions"]

Headers = Sequence[tuple[str, bytes | None]]

_FENCED: Final = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
_SETTLE_S: Final = 5.0  # for what is under way to arrive or fail, before it is undone
_PAUSE_S: Final = 0.1  # between two attempts at a step: a broker that restarts takes seconds


class RolledBack(ServiceError):
    """The transaction did not happen, and what was sent in it was not: it can be made again."""


class Fenced(ServiceError):
    """A newer instance has taken over: this one may not write any more."""


class TooLarge(ServiceError):
    """A record that the producer does not take; the transaction can go on without it."""


class Transactions:
    """The transactions of one producer, which must have a ``transactional.id``.

    To construct it is to take over from an instance before it: what that one left open is rolled back, and
    its next step fails.

    Parameters
    ----------
    producer : Producer
    what : str
        What is written, for messages: "the topic clicks.dead".
    timeout_s : float
        How long one step is tried while the broker cannot be reached.

    Raises
    ------
    ServiceError
        If the broker does not grant it in time.
    """

    def __init__(self, producer: Producer, *, what: str, timeout_s: float) -> None:
        self._producer = producer
        self._what = what
        self._timeout_s = timeout_s
        self._step(producer.init_transactions)

    def begin(self) -> None:
        """Open a transaction; everything sent from here on is a part of it."""
        self._step(lambda _: self._producer.begin_transaction())

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: Callable[[KafkaError | None, Any], None] | None = None,
    ) -> None:
        """Hand a record to the producer; `commit` waits until all of them have arrived.

        Raises
        ------
        RolledBack
            If the transaction has failed already.
        TooLarge
            If the record is larger than it may be.
        ServiceError
            If the producer's memory is full and stays full.
        """
        given: dict[str, Any] = {} if partition is None else {"partition": partition}
        if timestamp_ms is not None:
            given["timestamp"] = timestamp_ms
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=list(headers), on_delivery=on_delivery, **given
                )
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise self._failed("the broker does not take what is waiting to be sent") from error
                self._producer.poll(_PAUSE_S)
            except KafkaException as error:
                fault = error.args[0]
                if fault.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise TooLarge(f"{self._what} does not take so large a record: {fault.str()}") from error
                raise self._judged(fault) from error
            else:
                self._producer.poll(0)
                return

    def add_offsets(self, offsets: list[TopicPartition], group: Any) -> None:
        """Make the positions of a consumer group a part of the transaction.

        Raises
        ------
        RolledBack
            Also if the group has given the partitions to somebody else meanwhile.
        """
        self._step(lambda left: self._producer.send_offsets_to_transaction(offsets, group, left))

    def commit(self) -> None:
        """Make the transaction happen: all of it, or nothing.

        Raises
        ------
        RolledBack
            It did not happen.
        ServiceError
            This producer is fenced off, or the broker did not answer in time.
        """
        self._step(self._producer.commit_transaction)

    def roll_back(self, within_s: float | None = None) -> None:
        """Undo what was sent since `begin`; try it for `within_s`, or as long as any other step."""
        # The broker must know of the transaction before it is told to end it: an end that overtakes the
        # first record is met by "invalid state", which is fatal.
        self._producer.flush(_SETTLE_S)
        self._step(self._producer.abort_transaction, aborting=True, within_s=within_s)

    def _step(
        self, call: Callable[[float], object], *, aborting: bool = False, within_s: float | None = None
    ) -> None:
        deadline = time.monotonic() + (self._timeout_s if within_s is None else within_s)
        while True:
            left = max(deadline - time.monotonic(), _PAUSE_S)
            try:
                call(left)
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable() and time.monotonic() < deadline:
                    time.sleep(_PAUSE_S)
                    continue
                if aborting and not error.fatal():
                    raise self._failed(error.str()) from failure
                raise self._judged(error) from failure
            else:
                return

    def _judged(self, error: KafkaError) -> ServiceError:
        """Say what an error means; a transaction that cannot go on is rolled back on the way."""
        if error.code() == KafkaError._FATAL:
            error = self._fatal() or error
        if error.txn_requires_abort():
            self.roll_back()
            return RolledBack(f"a transaction on {self._what} was rolled back: {error.str()}")
        if error.code() in _FENCED:
            return Fenced(
                f"cannot write to {self._what}: a newer instance has taken over, "
                f"and this one may not write any more"
            )
        return self._failed(error.str())

    def _fatal(self) -> KafkaError | None:
        """Ask a producer that is finished what finished it: `produce` only says that it is."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            return fault
        return None

    def _failed(self, reason: str) -> ServiceError:
        return ServiceError(f"cannot write to {self._what}: {reason}")
