"""Whose fault it was: a learner, a model or a detector may be anyone's class, and raise anything."""

from __future__ import annotations

from types import TracebackType

from penstock.errors import PenstockError

__all__ = ["Blame"]


class Blame:
    """Says who failed on the `n` events after `n_before` (0: on replayed ones), whatever was raised."""

    __slots__ = ("_n", "_n_before", "_who")

    def __init__(self, who: str, n_before: int, n: int) -> None:
        self._who = who
        self._n_before = n_before
        self._n = n

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):  # a learner may be anyone's class, and raise any
            return
        first, last = self._n_before + 1, self._n_before + self._n
        where = f"events {first:,} to {last:,}" if self._n > 1 else f"event {first:,}"
        where = where if self._n else f"replayed events, after event {self._n_before:,}"
        what = "" if isinstance(error, PenstockError) else f"{type(error).__name__}: "
        raise PenstockError(f"{self._who} failed on {where}: {what}{error}") from error
