"""Sends what a snapshot directory holds to a compacted topic, for followers on other machines."""

from __future__ import annotations

import logging
import threading
from typing import Final, Self

from confluent_kafka import Producer

from penstock.errors import BadRecord, ServiceError, StoreError
from penstock.kafka import topics
from penstock.kafka.client import Connection, producer
from penstock.kafka.snapshot_log import PARTITION, Change, Held, Record, changes, decode, described
from penstock.kafka.transactions import Fenced, RolledBack, Transactions
from penstock.notices import Notice
from penstock.observers import Observer, Started
from penstock.snapshots import SnapshotStore

__all__ = ["TOPIC_CONFIG", "Publisher", "Publishing"]

TOPIC_CONFIG: Final = {"cleanup.policy": "compact"}
"""What a topic of snapshots needs: the last record of every key, for ever."""


_log = logging.getLogger("penstock.kafka")
_ASKED_S: Final = 2.0  # a broker for how a topic is set up, before it is believed
_BROKER_WAITS_S: Final = 600  # for one version to be sent; longer, and the broker rolls it back
_MEMORY_KB: Final = 16 << 10  # of what is sent and has not arrived yet, however large a snapshot is


class Publisher:
    """Keeps a topic as a snapshot directory is.

    Each version goes out in a transaction of its own, and an alias after the version that it names. At start
    the topic is read and only what is missing is sent. There is one publisher of a topic: a second one takes
    over, and the broker refuses what the first one sends from then on.

    Parameters
    ----------
    store : SnapshotStore
        Read only.
    connection : Connection
    topic : str
        Made, compacted and with one partition, if it is not there.
    timeout_s : float
        How long a broker that does not answer is waited for, and how long one step of a transaction may take.
    """

    def __init__(
        self, store: SnapshotStore, connection: Connection, topic: str, *, timeout_s: float = 30.0
    ) -> None:
        self._store = store
        self._connection = connection
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer: Producer | None = None
        self._transactions: Transactions | None = None
        self._held = Held()
        self._error: str | None = None
        self._fenced: Fenced | None = None
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def error(self) -> str | None:
        """Why the topic is not as the directory; None if it is, or is about to be."""
        return self._error

    def run_once(self) -> list[str]:
        """Send what the topic lacks; return what that was ("version 7", "alias serving").

        Raises
        ------
        ServiceError
            If the broker cannot be reached or refuses; `Fenced`, now and for ever, if another publisher has
            taken over.
        StoreError
            If the directory cannot be read, or the topic is the log of another one. What can be sent has
            been.
        """
        if self._fenced is not None:
            raise self._fenced
        try:
            transactions = self._transactions or self._take_over()
            return self._send_all(transactions)
        except Fenced as error:
            self._fenced = error
            self._let_go()
            raise
        except RolledBack:
            raise  # the producer is as good as new
        except ServiceError:
            self._let_go()  # what arrived and what did not is for the next look at the topic to say
            raise

    def start(self, *, poll_s: float = 1.0, retry_s: float = 5.0) -> None:
        """Publish in the background, until `close`.

        Parameters
        ----------
        poll_s : float
            Seconds between two looks at the directory; `wake` does not wait for the next one.
        retry_s : float
            Seconds between an error, which is logged and told by `error`, and the next attempt.
        """
        self._thread = threading.Thread(
            target=self._publish, args=(poll_s, retry_s), name="penstock-publisher", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Say that there is news in the directory. Returns at once."""
        self._news.set()

    def close(self) -> None:
        """Publish what is new, if the broker can be reached, and stop."""
        self._stopped.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Publisher({str(self._store.path)!r}, {self._topic!r})"

    def _publish(self, poll_s: float, retry_s: float) -> None:
        is_checked = False
        while self._fenced is None:
            last = self._stopped.is_set()
            if last and self._error is not None:
                return  # who is asked to stop does not wait for a broker
            self._news.clear()
            try:
                if not is_checked:
                    topics.check(self._connection, self._topic, TOPIC_CONFIG, timeout_s=_ASKED_S)
                    is_checked = True
                self.run_once()
                self._error = None
            except Exception as error:  # whatever it is, learning goes on
                if str(error) != self._error:
                    _log.error("publishing snapshots to topic %s: %s", self._topic, error)
                self._error = str(error)
                self._stopped.wait(retry_s)
            if last:
                return
            self._news.wait(poll_s)

    def _take_over(self) -> Transactions:
        topics.ensure(
            self._connection,
            self._topic,
            create=True,
            config=TOPIC_CONFIG,
            timeout_s=self._timeout_s,
        )
        self._producer = producer(
            self._connection,
            **{
                "transactional.id": f"penstock.snapshots.{self._topic}",
                "transaction.timeout.ms": _BROKER_WAITS_S * 1000,
                "queue.buffering.max.kbytes": _MEMORY_KB,
                "linger.ms": 0,
            },
        )
        # First to take over, then to look: nothing of an older publisher can come after the look.
        transactions = Transactions(
            self._producer, what=f"the topic {self._topic}", timeout_s=self._timeout_s
        )
        self._held = Held()
        for message in topics.read(self._connection, self._topic, {PARTITION: 0}, timeout_s=self._timeout_s):
            try:
                self._held.take(decode(message.key(), message.value()))
            except BadRecord:
                continue  # the followers say so
        self._transactions = transactions
        return transactions

    def _send_all(self, transactions: Transactions) -> list[str]:
        sent: list[str] = []
        problem: StoreError | None = None
        for change in changes(self._store, self._held):
            try:
                if self._send(transactions, change):
                    sent.append(change.what)
            except StoreError as error:  # one file is damaged: the others are not
                transactions.roll_back()
                problem = error
        if problem is not None:
            raise problem
        return sent

    def _send(self, transactions: Transactions, change: Change) -> bool:
        held: list[Record] = []
        transactions.begin()
        for key, value in change.records():
            transactions.send(self._topic, value, key=key, partition=PARTITION)
            held.append(described(decode(key, value)))
        if not held:
            transactions.roll_back()
            return False
        transactions.commit()
        for record in held:
            self._held.take(record)
        return True

    def _let_go(self) -> None:
        # Not closed but dropped: `close` would first wait for a transaction to end that may not be able to.
        self._producer = self._transactions = None


class Publishing(Observer):
    """Publishes what a run promotes, beside it: a broker that is away holds no learning up.

    Parameters
    ----------
    publisher : Publisher
        Started and closed with the run; its `error` is the health of it.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher: Final = publisher

    def started(self, run: Started) -> None:
        """Bring the topic up to date, in the background."""
        self.publisher.start()

    def noticed(self, notice: Notice, version: int | None) -> None:
        """Have news of the store published."""
        if version is not None:
            self.publisher.wake()

    def stopped(self, error: BaseException | None) -> None:
        """Publish the last news, if the broker can be reached."""
        self.publisher.close()
