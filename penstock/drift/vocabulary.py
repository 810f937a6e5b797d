"""What hashes mean: the names, kinds and categories of features, learned from the rows of some events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from penstock._native.features import encode_rows, hash_string
from penstock.errors import StoreError
from penstock.events import Row

__all__ = ["Column", "Vocabulary"]

_Path: TypeAlias = "tuple[str | int, ...]"

MOST_LEAVES: Final = 1024  # of an event that are looked at
MOST_ENTRIES: Final = 100_000  # hashes that are remembered
FEW: Final = 20  # a number with at most so many distinct values is treated as a category
LONGEST: Final = 60  # characters of a name or a category that are kept

_Entry: TypeAlias = "list[Any]"  # name, category or None, hash, events that have it, distinct numbers or None


class Column:
    """Something that an event has one number or one category of.

    Attributes
    ----------
    name : str
    kind : "number" or "category"
    n_events : int
        How many of the events that were looked at have it.
    hashes : list of int
        One of a number; one a category otherwise, those seen most first.
    categories : list of str
        In the order of `hashes`; empty for a number.
    numbers : list of float
        The values of a number that has at most 20, ascending; empty for any other.
    """

    def __init__(self, name: str, kind: Literal["number", "category"]) -> None:
        self.name = name
        self.kind = kind
        self.n_events = 0
        self.hashes: list[int] = []
        self.categories: list[str] = []
        self.numbers: list[float] = []


class Vocabulary:
    """Reads rows and remembers what each hash of theirs stands for.

    A string is a category of its feature; a string in a list is a feature of its own, there or not. Whatever
    else a row holds is a number. Nested levels are joined by dots, places in lists stand in brackets.

    Examples
    --------
    >>> words = Vocabulary()
    >>> words.learn([{"user": {"age": 31, "country": "SE"}, "tags": ["new"]}] * 3)
    >>> [(column.name, column.categories, column.numbers) for column in words.columns(least=1)]
    [('user.age', [], [31.0]), ('user.country', ['SE'], []), ("tags['new']", [], [1.0])]
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[_Path, str | None], _Entry] = {}
        self._n_rows = 0

    def learn(self, rows: Sequence[Row]) -> None:
        """Take rows that can be encoded, in order."""
        for row in rows:
            self._n_rows += 1
            for n, (path, value) in enumerate(_leaves(row, ())):
                if n == MOST_LEAVES:
                    break
                self._take(path, value)

    def _take(self, path: _Path, value: Any) -> None:
        category = value if isinstance(value, str) else None
        within_list = category is not None and isinstance(path[-1], int)
        if within_list:
            path = path[:-1]  # where in its list it stands makes no difference
        called = tuple(_short(step) if isinstance(step, str) else step for step in path)
        shown = None if category is None else _short(category)
        key: tuple[_Path, str | None] = ((*called, f"[{shown!r}]"), None) if within_list else (called, shown)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MOST_ENTRIES:
                return
            index = _hash(path, 1.0 if category is None else category, within_list=within_list)
            if index is None:
                return
            entry = [_dotted(key[0]), key[1], index, 0, [] if key[1] is None else None]
            self._entries[key] = entry
        entry[3] += 1
        numbers = entry[4]
        if numbers is not None and len(numbers) <= FEW:
            number = 1.0 if category is not None else float(value)
            if number not in numbers:
                numbers.append(number)

    def columns(self, *, least: int) -> list[Column]:
        """Return what events have, what most have first; of categories, those that `least` events had."""
        found: dict[tuple[str, bool], Column] = {}
        for name, category, index, n, numbers in self._entries.values():
            kind: Literal["number", "category"] = "number" if category is None else "category"
            column = found.setdefault((name, category is None), Column(name, kind))
            column.n_events += n
            if category is None:
                column.hashes = [index]
                missing = [0.0] if n < self._n_rows and 0.0 not in numbers else []
                few = sorted([*numbers, *missing])
                column.numbers = few if len(few) <= FEW else []
        counted = sorted(
            (entry for entry in self._entries.values() if entry[1] is not None), key=lambda entry: -entry[3]
        )
        for name, category, index, n, _ in counted:
            if n >= least:
                found[name, False].hashes.append(index)
                found[name, False].categories.append(category)
        usable = (column for column in found.values() if column.hashes)
        return sorted(usable, key=lambda column: -column.n_events)

    def names(self) -> dict[int, str]:
        """Return what to call each hash."""
        return {
            index: name if category is None else f"{name}={category!r}"
            for name, category, index, *_ in self._entries.values()
        }

    def dumps(self) -> str:
        """Write it as JSON."""
        entries = [[list(path), category, *entry] for (path, category), entry in self._entries.items()]
        return json.dumps([self._n_rows, entries])

    @classmethod
    def loads(cls, text: object) -> Vocabulary:
        """Read what `dumps` wrote.

        Raises
        ------
        StoreError
            If it is something else.
        """
        words = cls()
        try:
            n_rows, entries = json.loads(text)  # type: ignore[arg-type]
            words._n_rows = int(n_rows)
            for path, key, name, category, index, n, numbers in entries:
                numbers = None if numbers is None else list(map(float, numbers))
                shown = None if category is None else str(category)
                entry = [str(name), shown, int(index) & 0xFFFFFFFF, int(n), numbers]
                words._entries[tuple(path), key] = entry
        except (TypeError, ValueError) as error:
            raise StoreError(f"the state holds no vocabulary: {error}") from error
        return words


def _leaves(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """Walk over whatever can become an entry, as the encoder does."""
    if value is None:
        return
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*path, i))
    elif path:
        yield path, value


def _hash(path: _Path, value: float | str, *, within_list: bool) -> int | None:
    """Ask the encoder under which hash a value at `path` goes."""
    row: Any = [value] if within_list else value
    for step in reversed(path):
        row = {step: row} if isinstance(step, str) else [*[None] * step, row]
    features, bad = encode_rows([row])
    return None if bad or len(features.indices) != 1 else int(features.indices[0])


def _short(text: str) -> str:
    """Cut a text; two that differ still differ, as hashes do."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}…{hash_string(text.encode('utf-8', 'surrogatepass'), 0):08x}"


def _dotted(path: _Path) -> str:
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step.startswith("["):
            name += step
        else:
            name += f".{step}" if name else step
    return name
