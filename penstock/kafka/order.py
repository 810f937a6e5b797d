"""In which order records are learned: as the journal has it, then as they come, written down beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import Message

from penstock import journal
from penstock.errors import DataError, StoreError
from penstock.journal import Journal, Run
from penstock.kafka.client import Connection
from penstock.kafka.reader import Assignment, Health, Offsets, Place, Reader, Start, check_topics, named
from penstock.sources.base import Position

__all__ = [
    "MAX_CONNECT_S",
    "Ahead",
    "Next",
    "Options",
    "Ordered",
    "Taken",
    "as_they_come",
    "check_ids",
    "run_of",
]

MAX_CONNECT_S: Final = 86_400.0
"""How long a broker may be waited for at the start: librdkafka counts milliseconds, in 32 bits."""

_FETCHED: Final = 4096  # records at a time, while what the journal says is read again


class Taken(NamedTuple):
    """Records in the order in which they are to be learned, and the position behind them."""

    messages: list[Message]
    position: Position


class Next(Protocol):
    """Takes what comes next from the buffers of a reader: at most `n` records, and the runs that they are."""

    def __call__(self, reader: Reader, n: int) -> tuple[list[Message], list[Run]]:
        """Take them."""
        ...


def as_they_come(reader: Reader, n: int) -> tuple[list[Message], list[Run]]:
    """Take everything that is there, one partition after the other."""
    messages: list[Message] = []
    runs: list[Run] = []
    for place, _ in reader.waiting():
        taken = reader.take(place, n - len(messages))
        if taken:
            messages += taken
            runs.append(run_of(place, taken))
    return messages, runs


def run_of(place: Place, messages: Sequence[Message]) -> Run:
    """Return the run that consecutive records of a partition are."""
    first, last = messages[0].offset(), messages[-1].offset()
    assert first is not None
    assert last is not None
    return Run(*place, first, last, len(messages))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to read; see `penstock.kafka.source.KafkaSource`."""

    connection: Connection
    topics: Sequence[str]
    group: str | None
    assignment: Assignment
    start: Start
    follow: bool
    poll_s: float
    linger_s: float
    connect_timeout_s: float
    journal: Path | None
    keep: int | None


@dataclass(slots=True)
class _Where:
    """Where reading stands; a position is its JSON."""

    next: Offsets
    entry: int = 0  # of the journal
    taken: int = 0  # records of this entry, while it is read again
    ids: dict[str, str] = field(default_factory=dict)  # of the topics, where the broker tells

    def position(self, *, journaled: bool) -> Position:
        topics: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in sorted(self.next.items()):
            topics.setdefault(topic, {})[str(partition)] = offset
        position: dict[str, Any] = {"topics": topics}
        if self.ids:
            position["ids"] = dict(sorted(self.ids.items()))
        if journaled:
            position["journal"] = {"entry": self.entry, "taken": self.taken}
        return position


class Ahead(NamedTuple):
    """What reading from a position would begin with.

    Attributes
    ----------
    first : mapping of place to int
        Offset of the next record.
    behind : mapping of place to int
        Offset behind the last record that the journal speaks of.
    ids : mapping of str to str
        Of the topics, where they are known.
    n_entries : int
        Of the journal, to be repeated.
    """

    first: Offsets
    behind: Offsets
    ids: dict[str, str]
    n_entries: int


class Ordered:
    """Reads topics in an order that can be repeated.

    Parameters
    ----------
    options : Options
    next_records : Next
        Decides what comes next while nothing is repeated.

    Attributes
    ----------
    health : Health
    """

    def __init__(self, options: Options, next_records: Next = as_they_come) -> None:
        self.journal_path: Path | None = options.journal
        self._options = options
        self._next_records = next_records
        self._reader: Reader | None = None
        self._journal: Journal | None = None
        self._saved_before = 0  # entry of the journal that the last checkpoint begins with
        self._repeating = False

    @property
    def repeating(self) -> bool:
        """Whether what the journal holds is read again, after a crash. Any thread may ask."""
        return self._repeating

    @property
    def health(self) -> Health:
        """Whether records can come."""
        reader = self._reader
        return Health(False, "not started") if reader is None else reader.health

    def lag(self) -> dict[str, dict[int, int]]:
        """How many offsets of each partition are still to be learned, as of a second ago."""
        reader = self._reader
        lag: dict[str, dict[int, int]] = {}
        for (topic, partition), n in (reader.lag if reader is not None else {}).items():
            lag.setdefault(topic, {})[partition] = n
        return lag

    def sync(self) -> None:
        """Have on the disk whatever a position speaks of. May be called from another thread."""
        if self._journal is not None:
            self._journal.sync()

    def saved(self, position: Position) -> None:
        """Take note that a checkpoint with `position` is in place."""
        where = _parsed(position)
        if self._journal is not None:
            # The checkpoint before this one stays as well, and may have to be gone on from.
            self._journal.prune(before=self._saved_before)
            self._saved_before = where.entry
        if self._reader is not None:
            self._reader.commit(where.next)

    def read(self, position: Position | None, size: int) -> Iterator[Taken]:
        """Read from `position` on, at most `size` records at a time; none where there are none yet."""
        where = _parsed(position)
        if self.journal_path is not None:
            self._has_journal(where)
            self._journal = Journal(self.journal_path, keep=self._options.keep)
        try:
            self._check_journal(where)
            yield from self._read(where, position, size)
        finally:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            if self._journal is not None:
                self._journal.close()

    def ahead(self, position: Position | None) -> Ahead:
        """Say what `read` would begin with, as position and journal have it; nothing is touched.

        Raises
        ------
        ConfigError, DataError, StoreError
            As `read`, as far as that can be told without a broker.
        """
        where = _parsed(position)
        check_topics(where.next, self._options.topics)
        first, behind, n_entries = dict(where.next), dict(where.next), 0
        if self._has_journal(where):
            assert self.journal_path is not None
            for _, runs in journal.read(self.journal_path, where.entry):
                n_entries += 1
                for run in runs:
                    self._check_run(run)
                    place = (run.topic, run.partition)
                    first.setdefault(place, run.first)
                    behind[place] = run.last + 1 if run.size else run.first
        return Ahead(first, behind, where.ids, n_entries)

    def replay(self, position: Position | None, size: int, until: int | None = None) -> Iterator[Taken]:
        """Read what the journal holds, and only that, up to the entry `until` (not included).

        Nothing is written, so the one who writes the journal may be at work.
        """
        if self.journal_path is None:
            raise StoreError("there is no journal to replay")
        where = _parsed(position)
        reader = self._connected()
        try:
            for _ in reader.connect():
                pass
            check_ids(where.ids, reader.ids)
            reader.begin(where.next, replaying=True)
            yield from self._replay(reader, where, size, until)
        finally:
            reader.close()

    def _read(self, where: _Where, position: Position | None, size: int) -> Iterator[Taken]:
        options = self._options
        journaled = self._journal is not None
        reader = self._reader = self._connected()
        for _ in reader.connect():
            yield Taken([], position or {})
        check_ids(where.ids, reader.ids)
        replaying = self._journal is not None and where.entry < self._journal.end
        reader.begin(where.next, replaying=replaying)
        if self._journal is not None and replaying:
            self._repeating = True
            yield from self._replay(reader, where, size, self._journal.end)
            self._repeating = False
        reader.go_live()
        while True:
            self._note(where, [Run(*place, at, at, 0) for place, at in reader.take_new().items()])
            messages, runs = self._next_records(reader, size)
            if runs:
                self._note(where, runs)
            yield Taken(messages, where.position(journaled=journaled))
            if reader.is_done():
                return
            if len(messages) < size or not reader.waiting():
                reader.balance()
                reader.fill(size, options.poll_s, options.linger_s)

    def _note(self, where: _Where, runs: list[Run]) -> None:
        """Write down what comes next, before anybody learns it."""
        if not runs:
            return
        if self._journal is not None:
            where.entry = self._journal.append(runs) + 1
        for run in runs:
            where.next[run.topic, run.partition] = run.last + 1 if run.size else run.first

    def _replay(self, reader: Reader, where: _Where, size: int, until: int | None) -> Iterator[Taken]:
        """Take exactly what the journal says, from the middle of an entry if need be."""
        assert self.journal_path is not None
        messages: list[Message] = []
        for entry, runs in journal.read(self.journal_path, where.entry, until):
            where.entry = entry
            skip = where.taken  # of this entry: they lie before the position
            for run in runs:
                place = (run.topic, run.partition)
                self._check_run(run)
                if run.size == 0 and place not in reader.next:
                    reader.add(place, run.first)
                    where.next[place] = run.first
                elif run.size and place not in reader.next:
                    raise StoreError(
                        f"the journal {self.journal_path} never says where {named(*place)} begins"
                    )
                left = max(0, run.size - skip)
                skip = max(0, skip - run.size)
                while left:
                    if not reader.n_buffered(place):
                        yield Taken(messages, where.position(journaled=True))
                        messages = []
                        yield from self._wait_for(reader, run, where)
                    taken = reader.take(place, min(left, size - len(messages)))
                    self._check(run, left, taken)
                    messages += taken
                    left -= len(taken)
                    where.taken += len(taken)
                    where.next[place] = reader.next[place]
                    if len(messages) == size:
                        yield Taken(messages, where.position(journaled=True))
                        messages = []
            where.entry, where.taken = entry + 1, 0
        yield Taken(messages, where.position(journaled=True))

    def _wait_for(self, reader: Reader, run: Run, where: _Where) -> Iterator[Taken]:
        place = (run.topic, run.partition)
        while True:
            reader.balance()
            found = reader.fill(_FETCHED, self._options.poll_s)
            if reader.n_buffered(place):
                return
            if reader.is_at_end(place):
                raise _differs(run, f"it ends before offset {reader.next[place]}")
            if not found:
                yield Taken([], where.position(journaled=True))

    def _connected(self) -> Reader:
        options = self._options
        return Reader(
            options.connection,
            options.topics,
            group=options.group,
            assignment=options.assignment,
            start=options.start,
            follow=options.follow,
            connect_timeout_s=options.connect_timeout_s,
        )

    def _has_journal(self, where: _Where) -> bool:
        """Whether there is a journal; refuse to do without the one that the position speaks of."""
        if self.journal_path is None:
            return False
        exists = journal.exists(self.journal_path)
        if where.entry > 0 and not exists:
            raise StoreError(
                f"the position is before entry {where.entry} of the journal, and there is none at "
                f"{self.journal_path}: put it back; if it is lost, run with --new-journal"
            )
        return exists

    def _check_run(self, run: Run) -> None:
        if run.topic not in self._options.topics:
            raise StoreError(
                f"the journal {self.journal_path} is of topic {run.topic!r}, and the topics are "
                f"{', '.join(self._options.topics)}: it is not the one that belongs here"
            )

    def _check_journal(self, where: _Where) -> None:
        """Refuse a journal that does not know what the position speaks of."""
        written = self._journal
        if written is None or where.entry <= written.end:
            return
        raise StoreError(
            f"the position is before entry {where.entry} of the journal, and {written.path} ends with entry "
            f"{written.end - 1}: it is not the one that belongs to the checkpoint; {journal.WAY_OUT}"
        )

    @staticmethod
    def _check(run: Run, left: int, taken: Sequence[Message]) -> None:
        """Hold the next records of a run, of which `left` were missing, against what the journal says."""
        first, last = taken[0].offset() or 0, taken[-1].offset() or 0
        if left == run.size and first != run.first:
            raise _differs(run, f"it begins with offset {first} now")
        if last > run.last or (left == len(taken) and last != run.last):
            raise _differs(run, f"they reach to offset {last} now")


def check_ids(known: dict[str, str], ids: Mapping[str, str]) -> None:
    """Refuse topics that were deleted and made anew, whatever their offsets are by now; note the others."""
    for topic, now in ids.items():
        if known.setdefault(topic, now) != now:
            raise DataError(
                f"topic {topic!r} was deleted and made anew: the position is in the one with the id "
                f"{known[topic]}, and the broker has {now}; what was learned so far is kept"
            )


def _differs(run: Run, how: str) -> DataError:
    return DataError(
        f"{named(run.topic, run.partition)}: the journal says that {run.size} records from offset "
        f"{run.first} to {run.last} were learned, and {how}: was the topic compacted, cut or made anew?"
    )


def _parsed(position: Position | None) -> _Where:
    """Read a position; none, or an empty one, is the beginning."""
    if not position:
        return _Where({})
    try:
        offsets = {
            (topic, int(partition)): int(offset)
            for topic, partitions in position["topics"].items()
            for partition, offset in partitions.items()
        }
        kept = position.get("journal", {"entry": 0, "taken": 0})
        ids = {str(topic): str(given) for topic, given in position.get("ids", {}).items()}
        return _Where(offsets, int(kept["entry"]), int(kept["taken"]), ids)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(
            "the checkpoint has no position in Kafka: it was written while learning from another source, "
            "such as that of --data; go on from that one, or move the checkpoint away to learn from the "
            "beginning"
        ) from None
