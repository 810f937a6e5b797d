"""Which field of a record is the label, which the weight, and which are features; alike for every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from penstock._native.csv import CellReader
from penstock._native.features import encode_rows
from penstock._native.json import RecordReader
from penstock._native.vw import VWReader
from penstock.codecs.base import Decoded, Where
from penstock.codecs.values import (
    Label,
    LabelReader,
    class_name,
    label_reader,
    path_of,
    read_id,
    read_number,
    read_time,
    read_weight,
)
from penstock.errors import BadRecord, ConfigError
from penstock.events import Batch, Features, Row, Task
from penstock.sources.base import Rejected

__all__ = ["SKIP", "Events", "FeatureType", "Fields", "sifted"]

FeatureType = Literal["number", "category"]

SKIP: Final = object()
"""Stands in a list of decoded records for one that was rejected already."""

_CONTAINER: Final = "features"  # where feedback in its usual form holds its features
_NO_FEATURES: Final = "a mapping of names to features"


class Events:
    """Events while they are put together, and the records among them that turned out bad.

    Attributes
    ----------
    kept : list of int
        The record that each event came from.
    rows : list
        Its features, as the format has them.
    labels, weights, times, ids : list
        As in `Batch`.
    bad : list of (int, BadRecord)
        Records that are no events, and why.
    """

    __slots__ = ("bad", "ids", "kept", "labels", "rows", "task", "times", "weights")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.kept: list[int] = []
        self.rows: list[Any] = []
        self.labels: list[Label] = []
        self.weights: list[float] = []
        self.times: list[float] = []
        self.ids: list[str] | None = None
        self.bad: list[tuple[int, BadRecord]] = []

    def decoded(
        self,
        features: Features,
        rows: Sequence[Mapping[str, Any]],
        unusable: Sequence[tuple[int, BadRecord]],
        *,
        where: Where,
        raw: Callable[[int], bytes],
        lines: Sequence[str] | None = None,
    ) -> Decoded:
        """Return the batch of the events without the `unusable` ones, and a dead letter for every bad record.

        Parameters
        ----------
        features, rows
            Of each event, as a kernel encoded `self.rows`.
        unusable : sequence of (int, BadRecord)
            Events whose features the kernel could not encode.
        where, raw : callable
            Position and original bytes of record i.
        lines : sequence of str, optional
            As in `Batch`.
        """
        dtype = object if self.task.kind == "multiclass" else np.float64
        batch = Batch(
            features=features,
            labels=np.array(self.labels, dtype=dtype),
            weights=np.array(self.weights, dtype=np.float64),
            times=np.array(self.times, dtype=np.float64),
            rows=rows,
            lines=lines,
            ids=self.ids,
        )
        return sifted(batch, self.kept, self.bad, unusable, where=where, raw=raw)


def sifted(
    batch: Batch,
    kept: Sequence[int],
    bad: Iterable[tuple[int, BadRecord]],
    unusable: Sequence[tuple[int, BadRecord]],
    *,
    where: Where,
    raw: Callable[[int], bytes],
) -> Decoded:
    """Return the batch without its `unusable` events, and a dead letter for every bad record.

    Parameters
    ----------
    batch : Batch
    kept : sequence of int
        The record that each of its events came from.
    bad, unusable : sequences of (int, BadRecord)
        Records that are not in the batch, and events whose features the kernel could not encode.
    where, raw : callable
        Position and original bytes of record i.
    """
    bad = sorted([*bad, *((kept[i], error) for i, error in unusable)], key=itemgetter(0))
    if not bad:
        return batch, ()
    records = np.array(kept, dtype=np.int64)
    if unusable:
        good = np.ones(len(batch), dtype=bool)
        good[[i for i, _ in unusable]] = False
        batch = batch.take(np.flatnonzero(good))
        records = records[good]
    after = np.searchsorted(records, [i for i, _ in bad]).tolist()
    return batch, tuple(
        _rejected(error, where(i), raw(i), n) for (i, error), n in zip(bad, after, strict=True)
    )


def _rejected(error: BadRecord, where: str, data: bytes, after: int) -> Rejected:
    reason = str(BadRecord(error.expected, error.got, path=error.path, position=where))
    return Rejected(reason=reason, where=where, data=data, after=after)


class Fields:
    """The roles of a record's fields.

    Parameters
    ----------
    task : Task
    label : str
        The label's field.
    weight, id, time : str, optional
        Fields that every record must then have. Feedback in its usual form
        (``{"id", "time", "features": {...}, "label", "weight"}``, in JSON and msgpack) may have them
        without being told.
    features : str, optional
        The field whose mapping holds the features. Where not given: ``"features"`` in a record that has a
        mapping there, else everything that has no other role.
    ignore : sequence of str
        Features to leave out.
    types : mapping of str to "number" or "category"
        How to read these features, instead of as what they look like.
    classes : pair of class names, optional
        Of a binary task: negative, positive.
    require_label : bool
        Whether a record without a label is bad. If not, its label is NaN, or ``""`` for a multiclass task.
    options : mapping of str to str
        What whoever configured it calls a role, where that is not its name.

    Raises
    ------
    ConfigError
        If one field has two roles, or `classes` does not fit the task.
    """

    def __init__(
        self,
        task: Task,
        *,
        label: str = "label",
        weight: str | None = None,
        id: str | None = None,  # noqa: A002  (the field's name in feedback and configuration)
        time: str | None = None,
        features: str | None = None,
        ignore: Sequence[str] = (),
        types: Mapping[str, FeatureType] | None = None,
        classes: Sequence[str | int | bool] | None = None,
        require_label: bool = True,
        options: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.task = task
        self.label = label
        self.weight = weight
        self.id = id
        self.time = time
        self.features = features
        self.ignore = tuple(ignore)
        self.types = dict(types or {})
        self.classes = classes
        self.require_label = require_label
        self._options = options
        if isinstance(ignore, str):
            raise ConfigError(f"ignore: expected a list of names, got {ignore!r}")
        for name, kind in self.types.items():
            if kind not in ("number", "category"):
                raise ConfigError(f"types.{name}: expected 'number' or 'category', got {kind!r}")
        taken: dict[str, str] = {}
        for role, name in self.roles().items():
            if name in taken:
                raise ConfigError(f"{role}: {name!r} is already the {taken[name]}")
            taken[name] = role
        self.label_reader()

    def roles(self) -> dict[str, str]:
        """Return the fields that are no features, by their role."""
        names = {"label": self.label, "weight": self.weight, "id": self.id, "time": self.time}
        return {role: name for role, name in names.items() if name is not None}

    def option(self, role: str) -> str:
        """Return what messages call the option that names the field of a role."""
        return self._options.get(role, role)

    def label_reader(self, *, text: bool = False, path: str | None = None) -> LabelReader:
        """Return the function that reads a label's field; see `penstock.codecs.values.label_reader`."""
        return label_reader(
            self.task,
            path=path_of(self.label) if path is None else path,
            classes=self.classes,
            text=text,
            required=self.require_label,
        )

    def decode(
        self,
        records: Sequence[Any],
        bad: list[tuple[int, BadRecord]],
        *,
        where: Where,
        raw: Callable[[int], bytes],
        feedback: bool,
    ) -> Decoded:
        """Make a batch of records that were decoded to dicts, which are taken apart on the way.

        Parameters
        ----------
        records : sequence, length n
            Dicts with string keys; anything else is rejected, but for `SKIP`.
        bad : list of (int, BadRecord)
            Why the skipped records were rejected.
        where, raw : callable
            Position and original bytes of record i, for the dead letters.
        feedback : bool
            Whether feedback in its usual form is recognised without being told.
        """
        events = Events(self.task)
        events.bad = bad
        feedback = feedback and self.features in (None, _CONTAINER)
        self._take_apart(records, events, feedback)
        features, unusable = encode_rows(events.rows)
        container = path_of(self.features or _CONTAINER)
        unusable = [
            (i, error if events.rows[i] is records[events.kept[i]] else _inside(container, error))
            for i, error in unusable
        ]
        return events.decoded(features, events.rows, unusable, where=where, raw=raw)

    def rows(self, records: Sequence[Any], *, feedback: bool) -> list[Row]:
        """Return the features of good records as `decode` has them, which are taken apart on the way."""
        events = Events(self.task)
        self._take_apart(records, events, feedback and self.features in (None, _CONTAINER))
        return events.rows

    def reader(self) -> RecordReader | None:
        """Return the kernel that reads JSON records with these roles, of feedback in its usual form too.

        None where a name is empty, or has two meanings, which depend on what is in the record: a role's name
        that is the container's, or that of another role in feedback.
        """
        feedback = self.features in (None, _CONTAINER)
        container = _CONTAINER if self.features is None else self.features
        roles = self.roles()
        if not container:
            return None
        for role, name in roles.items():
            if name in ("", container) or (feedback and name in ("weight", "time", "id") and name != role):
                return None
        try:
            return RecordReader(
                task=self.task.kind,
                roles=roles,
                classes=self._class_names(),
                requires_label=self.require_label,
                container=container,
                requires_container=self.features is not None,
                takes_feedback=feedback,
                readings={**self.types, **dict.fromkeys(self.ignore, "ignore")},
            )
        except UnicodeEncodeError:  # a lone surrogate in a name
            return None

    def cell_reader(
        self, columns: Sequence[str], uses: Sequence[str], *, delimiter: str, missing: Iterable[str]
    ) -> CellReader | None:
        """Return the kernel that reads the records of a table whose columns have these names and uses.

        None where a name is not text that a file can hold.
        """
        try:
            return CellReader(
                task=self.task.kind,
                columns=list(zip(columns, uses, strict=True)),
                delimiter=delimiter,
                missing=missing,
                classes=self._class_names(),
                requires_label=self.require_label,
            )
        except UnicodeEncodeError:  # a lone surrogate
            return None

    def vw_reader(self) -> VWReader | None:
        """Return the kernel that reads VW's text; None where a name is not text that a file can hold."""
        try:
            return VWReader(
                task=self.task.kind, classes=self._class_names(), requires_label=self.require_label
            )
        except UnicodeEncodeError:  # a lone surrogate
            return None

    def _class_names(self) -> tuple[str, str] | None:
        if self.classes is None:
            return None
        negative, positive = map(class_name, self.classes)
        return str(negative), str(positive)

    def _take_apart(self, records: Sequence[Any], events: Events, feedback: bool) -> None:
        # Everything is looked up once: this loop runs for every event.
        read_label = self.label_reader()
        label_name, weight_name, id_name, time_name = self.label, self.weight, self.id, self.time
        container = self.features or (_CONTAINER if feedback else None)
        is_plain = weight_name is None and id_name is None and time_name is None
        is_cleaned = bool(self.ignore or self.types)
        ids: list[str] | None = [] if id_name is not None or feedback else None
        kept, rows, labels = events.kept, events.rows, events.labels
        weights, times = events.weights, events.times
        for i, record in enumerate(records):
            if type(record) is not dict:
                if record is not SKIP:
                    events.bad.append((i, BadRecord("a mapping of names to values", record)))
                continue
            row = record
            weight, moment, name = 1.0, math.nan, ""
            try:
                is_feedback = False
                if container is not None:
                    inner = record.get(container)
                    if type(inner) is dict:
                        row = inner
                        is_feedback = feedback
                    elif self.features is not None:
                        raise BadRecord(_NO_FEATURES, inner, path=path_of(container))  # noqa: TRY301
                label = read_label(record.pop(label_name, None))
                if is_feedback or not is_plain:
                    weight, moment, name = self._read_roles(record, is_feedback)
                if is_cleaned:
                    self._clean(row)
            except BadRecord as error:
                events.bad.append((i, error))
                continue
            kept.append(i)
            rows.append(row)
            labels.append(label)
            weights.append(weight)
            times.append(moment)
            if ids is not None:
                ids.append(name)
        events.ids = ids

    def _read_roles(self, record: dict[str, Any], is_feedback: bool) -> tuple[float, float, str]:
        """Return weight, time and id of a record; they are no features afterwards."""
        weight, moment, name = 1.0, math.nan, ""
        if (value := _field(record, self.weight, "weight" if is_feedback else None)) is not None:
            weight = read_weight(value, text=False, path=path_of(self.weight or "weight"))
        if (value := _field(record, self.time, "time" if is_feedback else None)) is not None:
            moment = read_time(value, text=False, path=path_of(self.time or "time"))
        if (value := _field(record, self.id, "id" if is_feedback else None)) is not None:
            name = read_id(value, path=path_of(self.id or "id"))
        return weight, moment, name

    def _clean(self, row: dict[str, Any]) -> None:
        """Leave out and convert features as the options say."""
        for name in self.ignore:
            row.pop(name, None)
        for name, kind in self.types.items():
            value = row.get(name)
            if value is None:
                continue
            path = path_of(name) if self.features is None else path_of(name, path_of(self.features))
            if kind == "number":
                row[name] = read_number(value, text=True, path=path)
            elif isinstance(value, float) and math.isfinite(value):
                row[name] = class_name(value) or repr(value)
            elif (category := class_name(value)) is not None:
                row[name] = category
            elif value != "":
                raise BadRecord("a category (a string, a number or a boolean)", value, path=path)


def _field(record: dict[str, Any], told: str | None, usual: str | None) -> Any:
    """Return the value of a field: one that was told must be there, the usual one may."""
    if told is None:
        return None if usual is None else record.pop(usual, None)
    value = record.pop(told, None)
    if value is None:
        raise BadRecord("a value", None, path=path_of(told))
    return value


def _inside(container: str, error: BadRecord) -> BadRecord:
    return BadRecord(error.expected, error.got, path=container + error.path.removeprefix("$"))
