"""Rows as Vowpal Wabbit's text."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from penstock.errors import BadRecord
from penstock.events import Row

__all__ = ["vw_text"]

_MAX_MAGNITUDE: Final = 1e18  # its square still leaves VW's float32 room to add up
_RESERVED: Final = re.compile(r"[\x00-\x20:|%\x7f\ud800-\udfff]")
_NAMES_KEPT: Final = 1 << 16  # escaped names remembered, of a few dozen bytes each


def vw_text(row: Row) -> str:
    """Write a row as the feature part of a line of VW text.

    ======================= ==================================================================
    value                   text
    ======================= ==================================================================
    number                  ``name:value``; nothing if it is 0
    string                  ``name=value``
    True                    ``name``
    False, None             nothing
    mapping, outermost      a namespace: ``|name ...``; its features are written after all others
    mapping, further in     its names with a dot: ``name.inner``
    list                    a string is ``name=value`` (a bag of words), what else is there at
                            position i is written as ``name.i``
    ======================= ==================================================================

    In names and strings white space, control characters, ``:``, ``|`` and ``%`` are written as ``%`` and two
    hexadecimal digits (as in URLs), an empty one as ``%``. Numbers have as many digits as they need; VW reads
    them as float32, to about six digits, and magnitudes below some 1e-28 as 0.

    Raises
    ------
    BadRecord
        Names the path of the first value that cannot be a feature.

    Examples
    --------
    >>> vw_text({"age": 31, "member": True, "user": {"country": "SE", "full name": "A|B"}, "seen": None})
    '| age:31 member |user country=SE full%20name=A%7CB'
    """
    parts = ["|"]
    namespaces = []
    for name, value in row.items():
        kind = type(value)
        if kind is float or kind is int:
            if not -_MAX_MAGNITUDE <= value <= _MAX_MAGNITUDE:  # also NaN
                raise BadRecord("a finite number of magnitude <= 1e18", value, path=f"$.{name}")
            if value:
                parts.append(f"{_escaped(name)}:{value!r}")
        elif kind is str:
            parts.append(f"{_escaped(name)}={_escaped(value)}")
        elif isinstance(value, Mapping):
            namespaces.append((name, value))
        else:
            parts.extend(_features(_escaped(name), value, f"$.{name}"))
    for name, mapping in namespaces:
        parts.append(f"|{_escaped(name)}")
        for key, value in mapping.items():
            parts.extend(_features(_escaped(key), value, f"$.{name}.{key}"))
    return " ".join(parts)


def _features(name: str, value: Any, path: str) -> Iterator[str]:
    """Write one value of whatever kind; `name` is escaped already."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None or value is False:
        return
    if value is True:
        yield name
    elif isinstance(value, str):
        yield f"{name}={_escaped(value)}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _features(f"{name}.{_escaped(key)}", item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            inner = name if isinstance(item, str) else f"{name}.{i}"
            yield from _features(inner, item, f"{path}[{i}]")
    elif isinstance(value, (int, float)):
        if not -_MAX_MAGNITUDE <= value <= _MAX_MAGNITUDE:
            raise BadRecord("a finite number of magnitude <= 1e18", value, path=path)
        if value:
            yield f"{name}:{value!r}"
    else:
        raise BadRecord("a number, a string, a boolean, a list or a mapping", value, path=path)


@functools.lru_cache(maxsize=_NAMES_KEPT)
def _escaped(name: str) -> str:
    if not isinstance(name, str):
        raise BadRecord("a string as name", name)
    return _RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", name) or "%"
