"""Dead letters, looked at and sent back: ``penstock dlq``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from penstock.bandit_config import BanditPipeline
from penstock.config import Component, Pipeline
from penstock.dead_letters import plain_data
from penstock.errors import ConfigError, DataError, StoreError

if TYPE_CHECKING:
    from penstock.kafka.letters import Letter

__all__ = ["Replayed", "list_letters", "replay"]

_AT_ONCE: Final = 500  # letters a transaction
_SHOWN: Final = 200  # characters of a letter's data


class Replayed(NamedTuple):
    """What became of letters that were to be sent back.

    Attributes
    ----------
    n_sent : int
    left : list of str
        Those that cannot be, each with its position and why.
    """

    n_sent: int
    left: list[str]


class _Kept:
    """Where a pipeline's letters are, and which of them were sent back."""

    def __init__(self, pipeline: Pipeline | BanditPipeline) -> None:
        rules = pipeline.dead_letters
        self.pipeline = pipeline.name
        self.topic = rules.topic
        self.path = rules.path
        if self.topic is not None:
            from penstock.kafka.letters import connected

            self.connection = connected(rules, pipeline.source, where="dead_letters")
        elif self.path is None:
            raise ConfigError("`dead_letters`: neither a `topic` nor a `path`: there is nothing to look at")
        else:
            self.ledger = self.path.with_name(f"{self.path.name}.replayed")

    def all(self) -> Iterator[tuple[str, Letter]]:
        """Give each letter with the name that it is remembered by."""
        if self.topic is not None:
            from penstock.kafka import letters

            for letter in letters.read(self.connection, self.topic, self.pipeline):
                yield letter.where, letter
        else:
            assert self.path is not None
            yield from _from_file(self.path)

    def sent_back(self) -> set[str]:
        """Return the names of those that were sent back."""
        if self.topic is not None:
            from penstock.kafka import letters

            return letters.marked(self.connection, self.topic, self.pipeline)
        try:
            return set(self.ledger.read_text().split())
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise StoreError(f"cannot read {self.ledger}: {error.strerror}") from error


def list_letters(
    pipeline: Pipeline | BanditPipeline, *, limit: int | None, reason: str | None, show: Callable[[str], None]
) -> int:
    """Show a pipeline's dead letters, one JSON object a line; return how many.

    Raises
    ------
    ConfigError
        If none are kept, or `reason` is no regular expression.
    DataError, ServiceError, StoreError
        If they cannot be read.
    """
    kept = _Kept(pipeline)
    done = kept.sent_back()
    n_letters = 0
    for name, letter in islice(_chosen(kept, reason), limit):
        data = None if letter.data is None else letter.data[:_SHOWN].decode(errors="backslashreplace")
        line = {"where": letter.where, "reason": letter.reason, "data": data, "replayed": name in done}
        show(json.dumps(line))
        n_letters += 1
    return n_letters


def replay(
    pipeline: Pipeline | BanditPipeline,
    *,
    limit: int | None = None,
    reason: str | None = None,
    to_topic: str | None = None,
    to_file: Path | None = None,
) -> Replayed:
    """Send a pipeline's dead letters back to where they came from, each at most once.

    From a topic to a topic of the same Kafka a letter is sent exactly once: it is marked in the same
    transaction. Otherwise it is marked first, and one that a crash catches in between is not sent again.

    Parameters
    ----------
    pipeline : Pipeline or BanditPipeline
    limit : int, optional
        Of letters to send.
    reason : str, optional
        Regular expression; only letters whose reason it is found in.
    to_topic : str, optional
        Instead of the source's topic.
    to_file : Path, optional
        Append the bytes here, a line each; needed where the source is no topic.

    Raises
    ------
    ConfigError
        If there is nowhere to send them, or `reason` is no regular expression.
    DataError, ServiceError, StoreError
        If they cannot be read or sent.
    """
    kept = _Kept(pipeline)
    with ExitStack() as opened:
        send = _sender(kept, pipeline, to_topic, to_file, opened)
        done = kept.sent_back()  # after the sender has taken over from one before it
        n_sent, left = 0, list[str]()
        fresh = _fresh(kept, reason, done, left, needs_topic=to_topic is None and to_file is None)
        while batch := list(islice(fresh, _AT_ONCE if limit is None else min(_AT_ONCE, limit - n_sent))):
            send(batch)
            n_sent += len(batch)
    return Replayed(n_sent, left)


def _fresh(
    kept: _Kept, reason: str | None, done: set[str], left: list[str], *, needs_topic: bool
) -> Iterator[tuple[str, Letter]]:
    """Give the letters that were not sent back yet; those that cannot be are noted down in `left`."""
    for name, letter in _chosen(kept, reason):
        if name in done:
            continue
        if letter.n_omitted:
            left.append(f"{letter.where}: its {letter.n_omitted:,} bytes were too many to be kept")
        elif needs_topic and letter.topic is None:
            left.append(f"{letter.where}: from no topic: say with --to-topic or --to-file where it is to go")
        else:
            done.add(name)
            yield name, letter


def _chosen(kept: _Kept, reason: str | None) -> Iterator[tuple[str, Letter]]:
    try:
        pattern = re.compile(reason or "")
    except re.error as error:
        raise ConfigError(f"--reason {reason}: not a regular expression: {error}") from error
    return ((name, letter) for name, letter in kept.all() if pattern.search(letter.reason))


def _sender(
    kept: _Kept,
    pipeline: Pipeline | BanditPipeline,
    to_topic: str | None,
    to_file: Path | None,
    opened: ExitStack,
) -> Callable[[list[tuple[str, Letter]]], None]:
    """Return what sends letters, and sees to it that they are not sent again."""
    if to_file is not None and to_topic is not None:
        raise ConfigError("--to-file and --to-topic: give one of them")
    if to_file is None and not _is_kafka(pipeline):
        raise ConfigError("the source is no topic: say with --to-file where the records are to go")
    # Before any letter is marked: one that is, and that there is no place for, would never be sent.
    file = None if to_file is None else opened.enter_context(_opened(to_file))
    if file is not None and kept.topic is None:

        def keep(batch: list[tuple[str, Letter]]) -> None:
            _mark(kept.ledger, batch)
            _append(file, batch)

        return keep

    from penstock.kafka.letters import SendBack, connected
    from penstock.outputs_config import ToTopics

    source = kept.connection if to_file else connected(ToTopics(), pipeline.source, where="source")
    if kept.topic is not None and kept.connection.bootstrap != source.bootstrap:
        raise ConfigError(
            "the dead letters and the source are on different Kafkas, which no transaction spans: "
            "use --to-file, and send the file"
        )
    back = SendBack(
        source,
        marks=kept.topic,
        writer=pipeline.name,
        target=to_topic,
        send=to_file is None,
        name=kept.topic or pipeline.name,
    )
    opened.callback(back.close)

    def send(batch: list[tuple[str, Letter]]) -> None:
        if kept.topic is None:
            _mark(kept.ledger, batch)
        back([letter for _, letter in batch])
        if file is not None:
            _append(file, batch)

    return send


def _is_kafka(pipeline: Pipeline | BanditPipeline) -> bool:
    source = pipeline.source
    return "bootstrap" in (source.parameters if isinstance(source, Component) else dict(source))


def _mark(ledger: Path, batch: list[tuple[str, Letter]]) -> None:
    """Note down letters, durably."""
    with _opened(ledger) as file:
        _write(file, "".join(f"{name}\n" for name, _ in batch).encode())


def _append(file: IO[bytes], batch: list[tuple[str, Letter]]) -> None:
    _write(file, b"".join((letter.data or b"").rstrip(b"\n") + b"\n" for _, letter in batch))


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _write(file: IO[bytes], data: bytes) -> None:
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write {file.name}: {error.strerror}") from error


def _from_file(path: Path) -> Iterator[tuple[str, Letter]]:
    """Give the letters of a file; a line's hash names it."""
    from penstock.kafka.letters import Letter

    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    given = json.loads(line)
                    letter = Letter(
                        where=given["where"], reason=given["reason"], data=plain_data(given["data"])
                    )
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{path}:{number}: not a dead letter") from error
                yield hashlib.sha256(line).hexdigest()[:32], letter
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
