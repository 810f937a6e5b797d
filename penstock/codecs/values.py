"""From one field of a record to a label, a weight, a time or an identifier.

In a record of a text format (CSV, VW) every field is a string, and ``"1"`` is the number one; in JSON a
string is a string. ``None`` is a missing value everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock._native.plain import numbers
from penstock.errors import BadRecord, ConfigError
from penstock.events import Task

__all__ = [
    "Label",
    "LabelReader",
    "class_name",
    "label_reader",
    "labels_at_once",
    "path_of",
    "read_id",
    "read_number",
    "read_time",
    "read_weight",
]

Label: TypeAlias = "float | str"
LabelReader: TypeAlias = "Callable[[Any], Label]"

_LARGEST_LABEL: Final = 1e100  # its square is finite still, and so are sums of many of them
_BINARY: Final[dict[Any, float]] = {1: 1.0, 0: 0.0, -1: 0.0}  # equal to these, so also True, False and 1.0
_SPELT: Final[dict[Any, float]] = {
    **dict.fromkeys(("true", "True", "TRUE"), 1.0),
    **dict.fromkeys(("false", "False", "FALSE"), 0.0),
}


def path_of(name: str, inside: str = "$") -> str:
    """Return the JSON path of a field.

    Examples
    --------
    >>> path_of("age"), path_of("petal width", inside="$.features")
    ('$.age', '$.features["petal width"]')
    """
    return f"{inside}.{name}" if name.isidentifier() else f"{inside}[{json.dumps(name)}]"


def class_name(value: Any) -> str | None:
    """Return the one name of a class, however its number is written; None if `value` is not a class.

    Examples
    --------
    >>> class_name(3), class_name(3.0), class_name(True), class_name("cat"), class_name(2.5)
    ('3', '3', 'true', 'cat', None)
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else None  # longer ones may refuse to be printed
    if isinstance(value, float) and value.is_integer():
        return class_name(int(value))
    return None


def label_reader(
    task: Task,
    *,
    path: str,
    classes: Sequence[str | int | bool] | None = None,
    text: bool = False,
    required: bool = True,
) -> LabelReader:
    """Return the function that turns the label's field into what `Batch.labels` holds.

    Parameters
    ----------
    task : Task
    path : str
        Of the field, for messages.
    classes : pair of class names, optional
        Of a binary task: negative, positive. Then no other label is accepted.
    text : bool
        Whether numbers and booleans come as their spelling.
    required : bool
        Whether a missing label makes a bad record; if not, it is NaN, or ``""`` for a multiclass task.

    Returns
    -------
    callable
        Raises `BadRecord`, without a position, for what cannot be a label.

    Raises
    ------
    ConfigError
        If `classes` is not a pair, or the task is not binary.

    Examples
    --------
    >>> read = label_reader(Task("binary"), path="$.move", classes=["DOWN", "UP"])
    >>> read("UP"), read("DOWN")
    (1.0, 0.0)
    """
    if task.kind == "binary":
        return _binary_reader(path, _pair(classes), text, required)
    if classes is not None:
        raise ConfigError(f"classes: only a binary task names its two classes; this one is {task.kind}")
    return (_multiclass_reader if task.kind == "multiclass" else _regression_reader)(path, text, required)


def labels_at_once(task: Task, values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return what `label_reader` makes of each value where no classes are named, if that is plain to see.

    Examples
    --------
    >>> labels_at_once(Task("binary"), [1, -1.0]), labels_at_once(Task("binary"), [1, 2])
    (array([1., 0.]), None)
    """
    column = numbers(values) if task.kind != "multiclass" else None
    if column is None:
        return None
    if task.kind == "regression":
        return column if (np.abs(column) <= _LARGEST_LABEL).all() else None
    ones = column == 1.0
    return ones.astype(np.float64) if (ones | (column == 0.0) | (column == -1.0)).all() else None


def _pair(classes: Sequence[str | int | bool] | None) -> tuple[str, str] | None:
    if classes is None:
        return None
    names = [class_name(value) for value in classes] if not isinstance(classes, str) else []
    if len(names) != 2 or names[0] == names[1] or None in names:
        raise ConfigError(f"classes: expected two different names [negative, positive], got {classes!r}")
    return str(names[0]), str(names[1])


def _missing(path: str, required: bool, otherwise: Label) -> Label:
    if required:
        raise BadRecord("a label", None, path=path)
    return otherwise


def _binary_reader(path: str, classes: tuple[str, str] | None, text: bool, required: bool) -> LabelReader:
    if classes is None:
        known = _BINARY | _SPELT if text else _BINARY
        expected = "true or false, 0 or 1, -1 or 1"
        hint = f"{expected} (to name the classes: `classes: [negative, positive]`)"
    else:
        known = {classes[0]: 0.0, classes[1]: 1.0}
        expected = hint = f"{classes[0]!r} or {classes[1]!r}"

    def read(value: Any) -> Label:
        try:
            return known[value]
        except (KeyError, TypeError):  # TypeError: a list or a mapping
            pass
        if value is None:
            return _missing(path, required, math.nan)
        if classes is not None and (name := class_name(value)) in known:
            return known[name]
        if classes is None and text and (number := _parsed(value)) in known:
            return known[number]
        raise BadRecord(hint if isinstance(value, str) else expected, value, path=path)

    return read


def _multiclass_reader(path: str, text: bool, required: bool) -> LabelReader:
    del text  # a spelling is a name already

    def read(value: Any) -> Label:
        name = class_name(value)
        if name is not None:
            return name
        if value is None:
            return _missing(path, required, "")
        raise BadRecord("a class (a string, an integer or a boolean)", value, path=path)

    return read


def _regression_reader(path: str, text: bool, required: bool) -> LabelReader:
    def read(value: Any) -> Label:
        if value is None:
            return _missing(path, required, math.nan)
        number = read_number(value, text=text, path=path)
        if abs(number) > _LARGEST_LABEL:
            raise BadRecord(f"a finite number of magnitude <= {_LARGEST_LABEL:g}", value, path=path)
        return number

    return read


def read_number(value: Any, *, text: bool, path: str, expected: str = "a finite number") -> float:
    """Return a finite float; a string is accepted only in a text format, a boolean never."""
    if type(value) is float or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        number = _as_float(value)
    else:
        number = _parsed(value) if text else math.nan
    if not math.isfinite(number):
        raise BadRecord(expected, value, path=path)
    return number


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _parsed(value: Any) -> float:
    """Return the number that a string spells, or NaN. Python's ``1_000`` is not a number in a data file."""
    if not isinstance(value, str) or "_" in value:
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def read_weight(value: Any, *, text: bool, path: str) -> float:
    """Return an importance, finite and >= 0."""
    weight = read_number(value, text=text, path=path, expected="a finite number >= 0")
    if weight < 0.0:
        raise BadRecord("a finite number >= 0", value, path=path)
    return weight


def read_time(value: Any, *, text: bool, path: str) -> float:
    """Return seconds since the Unix epoch; a time that names no zone is UTC.

    Examples
    --------
    >>> read_time("1970-01-02T00:00:00+01:00", text=False, path="$.time")
    82800.0
    """
    expected = "seconds or an ISO 8601 time"
    if text and math.isfinite(seconds := _parsed(value)):
        return seconds
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BadRecord(expected, value, path=path) from None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.timestamp()
    return read_number(value, text=text, path=path, expected=expected)


def read_id(value: Any, *, path: str) -> str:
    """Return an identifier: a string, or the digits of an integer."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and (name := class_name(value)) is not None:
        return name
    raise BadRecord("a string or an integer", value, path=path)
