"""The errors a caller may meet, each with the exit code that the command line gives it.

```
PenstockError            1
├── ConfigError          2   the configuration or the command line is wrong
├── BadRecord            3   one record cannot be used (or, ending a run, too many of them)
├── DataError            3   a whole input cannot be used: empty, truncated, not what it says it is
├── StoreError           4   a snapshot or checkpoint cannot be read or written
├── InUse                4   a checkpoint that another run is using
├── UntrustedState       4   an opaque entry (a pickle) whose signature does not verify
└── ServiceError         4   a service, such as a broker, cannot be reached or refuses
```
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from typing import ClassVar, Final

__all__ = [
    "BadRecord",
    "ConfigError",
    "DataError",
    "InUse",
    "PenstockError",
    "ServiceError",
    "StoreError",
    "UntrustedState",
]

_EVENT: Final = re.compile(r"events\[(\d+)\]")
_SHOWN_CHARS: Final = 60  # of a value in a message: enough to recognise it, too little to leak a payload


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Show an integer that is too long for `str` by its size."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"an integer of {x.bit_length()} bits"


_repr = _Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = _SHOWN_CHARS


class PenstockError(Exception):
    """Base of everything Penstock raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(PenstockError):
    """The configuration or the command line is wrong; the message names the key's path."""

    exit_code = 2


class BadRecord(PenstockError):
    """One record cannot be used: it goes to the dead letters and the stream goes on.

    Parameters
    ----------
    expected : str
        What would have been accepted ("a finite number").
    got : object
        What was there instead; shown shortened.
    path : str
        Where in the record, as a JSON path (``$.features.age``).
    position : str
        Which record (``clicks.jsonl:17``); empty for an event handed over in memory.

    Examples
    --------
    >>> print(BadRecord("a finite number", "n/a", path="$.age", position="clicks.jsonl:17"))
    expected a finite number, got 'n/a' - at `$.age`, clicks.jsonl:17
    """

    exit_code = 3

    def __init__(self, expected: str, got: object, *, path: str = "$", position: str = "") -> None:
        self.expected = expected
        self.got = got
        self.path = path
        self.position = position
        at = f", {position}" if position else ""
        super().__init__(f"expected {expected}, got {_repr.repr(got)} - at `{path}`{at}")

    def placed(self, where: Callable[[int], str]) -> BadRecord:
        """Return the same, but where its position is the number of an event in memory, ``events[3]``.

        Parameters
        ----------
        where : callable
            Says what takes the place of that: where event i came from.

        Examples
        --------
        >>> print(BadRecord("a reward", None, path="$.reward", position="events[3]").placed("log:{}".format))
        expected a reward, got None - at `$.reward`, log:3
        """
        number = _EVENT.fullmatch(self.position)
        position = where(int(number[1])) if number else self.position
        return BadRecord(self.expected, self.got, path=self.path, position=position)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_bad_record, (self.expected, self.got, self.path, self.position)


def _rebuild_bad_record(expected: str, got: object, path: str, position: str) -> BadRecord:
    return BadRecord(expected, got, path=path, position=position)


class DataError(PenstockError):
    """A whole input cannot be used: it is empty, truncated, or not what its name says."""

    exit_code = 3


class StoreError(PenstockError):
    """A snapshot or a checkpoint cannot be read or written."""

    exit_code = 4


class InUse(StoreError):
    """Another run is using the checkpoint: two would overwrite each other."""


class UntrustedState(StoreError):
    """An opaque entry would have to be unpickled, and nothing vouches for it."""


class ServiceError(PenstockError):
    """A service, such as a broker, cannot be reached, or refuses what is asked of it."""

    exit_code = 4
