"""Records that could not be used: kept with reason, position and original bytes, and counted."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from penstock.errors import DataError, StoreError
from penstock.sources import Rejected

__all__ = ["DeadLetters"]


class DeadLetters:
    """The sink of rejected records, and the judge of when there are too many of them.

    Parameters
    ----------
    path : Path or None
        A file of JSON lines ``{"reason", "where", "data"}``; `data` is text, or ``{"base64": …}`` where the
        bytes are not UTF-8. None: only count.
    max_rate : float
        Share of all records that may be bad.
    min_bad : int
        So many bad records are tolerated whatever their share: the first line of a file may be the bad one.
    size : int
        Length of the file at the last checkpoint: what lies behind it will be written again.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_rate: float,
        min_bad: int,
        n_bad: int = 0,
        n_good: int = 0,
        size: int = 0,
    ) -> None:
        self.n_bad = n_bad
        self.n_good = n_good
        self.last_reason = ""
        self._excess: tuple[int, int] | None = None  # bad records of all, when there were too many
        self._max_rate = max_rate
        self._min_bad = min_bad
        self._path = path
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab")
                # Somebody may have moved the file away since: nothing is put in the place of what is gone.
                self._file.truncate(min(size, self._file.tell()))
                self._file.seek(0, os.SEEK_END)
            except OSError as error:
                raise self._unwritable(error) from error

    def take(self, rejected: Sequence[Rejected], n_good: int) -> None:
        """Count and keep the outcome of one read.

        Raises
        ------
        StoreError
            If they cannot be written.
        """
        for letter in rejected:
            self.n_bad += 1
            n_records = self.n_bad + self.n_good + letter.after
            if self.n_bad > max(self._min_bad, self._max_rate * n_records):
                self._excess = self.n_bad, n_records
            self.last_reason = letter.reason
            self._write(letter)
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
            kept = f"; all of them are in {self._path}" if self._path else ""
            raise DataError(
                f"{n_bad:,} of {n_records:,} records cannot be used, which is more than "
                f"dead_letters.max_bad_rate {self._max_rate} allows{kept}; the last one: {self.last_reason}"
            )

    def _write(self, letter: Rejected) -> None:
        if self._file is None:
            return
        record = {"reason": letter.reason, "where": letter.where, "data": _text(letter.data)}
        try:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            # A file's name may hold bytes that are not UTF-8; escaped, they are JSON all the same.
            self._file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> int:
        """Make what was taken safe; return the length of the file."""
        if self._file is None:
            return 0
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, if there is one."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write the dead letters to {self._path}: {error.strerror}")


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
