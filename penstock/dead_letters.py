"""Records that could not be used: kept with reason, position and original bytes, and counted."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import orjson

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
        self._max_rate = max_rate
        self._min_bad = min_bad
        self._path = path
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab")
                self._file.truncate(size)
                self._file.seek(size)
            except OSError as error:
                raise StoreError(f"cannot write the dead letters to {path}: {error.strerror}") from error

    def take(self, rejected: Sequence[Rejected], n_good: int) -> None:
        """Count and keep the outcome of one read.

        Raises
        ------
        DataError
            If the tolerated rate is passed.
        """
        self.n_good += n_good
        self.n_bad += len(rejected)
        if not rejected:
            return
        self.last_reason = rejected[-1].reason
        if self._file is not None:
            for letter in rejected:
                record = {"reason": letter.reason, "where": letter.where, "data": _text(letter.data)}
                self._file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        if self.n_bad > max(self._min_bad, self._max_rate * (self.n_bad + self.n_good)):
            self.close()
            kept = f"; all of them are in {self._path}" if self._path else ""
            raise DataError(
                f"{self.n_bad:,} of {self.n_bad + self.n_good:,} records cannot be used, which is more than "
                f"dead_letters.max_bad_rate {self._max_rate} allows{kept}; the last one: {self.last_reason}"
            )

    def flush(self) -> int:
        """Make what was taken safe; return the length of the file."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
