"""Rows that are made only when somebody asks: a learner of hashed features never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, overload

from penstock.events import Row

__all__ = ["LazyRows", "MakeRows"]

MakeRows: TypeAlias = "Callable[[Sequence[int]], list[Row]]"
"""From numbers of events to their rows."""


class LazyRows(Sequence[Row]):
    """The rows of a batch. Each is made once, and slices share it.

    Parameters
    ----------
    n : int
        How many there are.
    make : callable
        Makes rows, given their numbers.

    Examples
    --------
    >>> rows = LazyRows(3, lambda numbers: [{"x": number} for number in numbers])
    >>> rows[1:]
    [{'x': 1}, {'x': 2}]
    """

    __slots__ = ("_make", "_numbers", "_rows")

    def __init__(self, n: int, make: MakeRows) -> None:
        self._make = make
        self._numbers = range(n)
        self._rows: dict[int, Row] = {}  # those that were made; in common with every slice

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> LazyRows: ...

    def __getitem__(self, at: int | slice) -> Row | LazyRows:
        if isinstance(at, slice):
            part = LazyRows(0, self._make)
            part._numbers = self._numbers[at]
            part._rows = self._rows
            return part
        number = self._numbers[at]
        if number not in self._rows:
            self._rows[number] = self._make((number,))[0]
        return self._rows[number]

    def __iter__(self) -> Iterator[Row]:
        made = self._rows
        missing = [number for number in self._numbers if number not in made]
        if missing:
            made.update(zip(missing, self._make(missing), strict=True))
        return iter([made[number] for number in self._numbers])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, LazyRows)):
            return list(self) == list(other)
        return NotImplemented

    __hash__: Any = None

    def __repr__(self) -> str:
        return repr(list(self))
