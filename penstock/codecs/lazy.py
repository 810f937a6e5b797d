"""Rows and lines that are made only when somebody asks: a learner of hashed features never does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, overload

from penstock.events import Row

__all__ = ["Lazy", "MakeRows"]

_T = TypeVar("_T")

MakeRows: TypeAlias = "Callable[[Sequence[int]], list[Row]]"
"""From numbers of events to their rows."""


class Lazy(Sequence[_T], Generic[_T]):
    """What a batch has one of for each event. Each is made once, and slices share it.

    Parameters
    ----------
    n : int
        How many there are.
    make : callable
        Makes some, given their numbers.

    Examples
    --------
    >>> rows = Lazy(3, lambda numbers: [{"x": number} for number in numbers])
    >>> rows[1:]
    [{'x': 1}, {'x': 2}]
    """

    __slots__ = ("_made", "_make", "_numbers")

    def __init__(self, n: int, make: Callable[[Sequence[int]], list[_T]]) -> None:
        self._make = make
        self._numbers = range(n)
        self._made: dict[int, _T] = {}  # those that were made; in common with every slice

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> _T: ...

    @overload
    def __getitem__(self, at: slice) -> Lazy[_T]: ...

    def __getitem__(self, at: int | slice) -> _T | Lazy[_T]:
        if isinstance(at, slice):
            part = Lazy(0, self._make)
            part._numbers = self._numbers[at]
            part._made = self._made
            return part
        number = self._numbers[at]
        if number not in self._made:
            self._made[number] = self._make((number,))[0]
        return self._made[number]

    def __iter__(self) -> Iterator[_T]:
        made = self._made
        missing = [number for number in self._numbers if number not in made]
        if missing:
            made.update(zip(missing, self._make(missing), strict=True))
        return iter([made[number] for number in self._numbers])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, Lazy)):
            return list(self) == list(other)
        return NotImplemented

    __hash__: Any = None

    def __repr__(self) -> str:
        return repr(list(self))
