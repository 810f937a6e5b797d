"""Records that could not be used: counted, and kept with reason, position and original bytes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from penstock.errors import DataError, StoreError
from penstock.sources import Rejected

__all__ = ["DeadLetters", "FileLetters", "LetterSink", "plain_data"]


class LetterSink(Protocol):
    """Keeps rejected records."""

    @property
    def where(self) -> str:
        """Where they are kept, for messages."""
        ...

    def take(self, letter: Rejected) -> None:
        """Keep one."""
        ...

    def poll(self) -> None:
        """Be called now and then."""
        ...

    def flush(self) -> Mapping[str, Any]:
        """Make what was taken safe; return what the checkpoint has to hold, plain JSON."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class DeadLetters:
    """Counts rejected records, hands them to its sinks, and judges when there are too many of them.

    Parameters
    ----------
    sinks : sequence of LetterSink
        None at all: only count.
    max_rate : float
        Share of all records that may be bad.
    min_bad : int
        So many bad records are tolerated whatever their share: the first line of a file may be the bad one.
    n_bad, n_good : int
        Counts at the last checkpoint.
    """

    def __init__(
        self,
        sinks: Sequence[LetterSink] = (),
        *,
        max_rate: float,
        min_bad: int,
        n_bad: int = 0,
        n_good: int = 0,
    ) -> None:
        self.n_bad = n_bad
        self.n_good = n_good
        self.last_reason = ""
        self._excess: tuple[int, int] | None = None  # bad records of all, when there were too many
        self._max_rate = max_rate
        self._min_bad = min_bad
        self._sinks = sinks

    def take(self, rejected: Sequence[Rejected], n_good: int) -> None:
        """Count and keep the outcome of one read.

        Raises
        ------
        StoreError, ServiceError
            If they cannot be written.
        """
        for letter in rejected:
            self.n_bad += 1
            n_records = self.n_bad + self.n_good + letter.after
            if self.n_bad > max(self._min_bad, self._max_rate * n_records):
                self._excess = self.n_bad, n_records
            self.last_reason = letter.reason
            for sink in self._sinks:
                sink.take(letter)
        self.n_good += n_good

    def judge(self) -> None:
        """Check that there were not too many at any time.

        Records are counted one by one, in their order: the verdict does not depend on how many are read at
        a time.

        Raises
        ------
        DataError
            If the tolerated rate was passed at one of the records taken.
        """
        if self._excess is not None:
            n_bad, n_records = self._excess
            kept = f"; all of them are in {self._sinks[0].where}" if self._sinks else ""
            raise DataError(
                f"{n_bad:,} of {n_records:,} records cannot be used, which is more than "
                f"dead_letters.max_bad_rate {self._max_rate} allows{kept}; the last one: {self.last_reason}"
            )

    def poll(self) -> None:
        """Let the sinks see to their other duties."""
        for sink in self._sinks:
            sink.poll()

    def flush(self) -> dict[str, Any]:
        """Make what was taken safe; return what the checkpoint has to hold."""
        state: dict[str, Any] = {"n_bad": self.n_bad, "n_good": self.n_good}
        for sink in self._sinks:
            state.update(sink.flush())
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()


class FileLetters:
    """A file of JSON lines ``{"reason", "where", "data"}``.

    `data` is text, or ``{"base64": …}`` where the bytes are not UTF-8, or null for a message without a value.

    Parameters
    ----------
    path : Path
    size : int
        Length of the file at the last checkpoint: what lies behind it will be written again.

    Raises
    ------
    StoreError
        If it cannot be written; so do all methods.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            # Somebody may have moved the file away since: nothing is put in the place of what is gone.
            self._file.truncate(min(size, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._unwritable(error) from error

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def take(self, letter: Rejected) -> None:
        """Append a line."""
        record = {"reason": letter.reason, "where": letter.where, "data": _text(letter.data)}
        try:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            # A file's name may hold bytes that are not UTF-8; escaped, they are JSON all the same.
            self._file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise self._unwritable(error) from error

    def poll(self) -> None:
        """Do nothing: the file is written as its buffer fills."""

    def flush(self) -> dict[str, Any]:
        """Have the file on the disk; return its length."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return {"size": self._file.tell()}
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write the dead letters to {self._path}: {error.strerror}")


def plain_data(data: Any) -> bytes | None:
    """Return the bytes of a letter, if it has any, from the `data` of its line.

    Raises
    ------
    ValueError
        If it is not of that form.
    """
    if data is None:
        return None
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, dict) and isinstance(data.get("base64"), str):
        return base64.b64decode(data["base64"], validate=True)
    raise ValueError("no data")


def _text(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
