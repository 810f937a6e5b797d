"""Tables with one logged decision a row, whose columns are mapped."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Annotated, Literal, TypeAlias

import numpy as np

from penstock import codecs
from penstock._native.features import encode_rows
from penstock.codecs.base import Codec, Framer, Where
from penstock.codecs.decisions import PROPENSITY, DecodedLog, Records, rejected
from penstock.codecs.fields import FeatureType, Fields
from penstock.codecs.values import path_of
from penstock.decisions import Logged, Offers, keys_of
from penstock.errors import BadRecord, ConfigError
from penstock.events import Row, Task
from penstock.registry import CheckedInside
from penstock.sources.base import Rejected

__all__ = ["DecisionTable", "table_rows"]


Actions: TypeAlias = Annotated[
    Sequence[str | int] | Mapping[str, Row] | Mapping[int, Row] | Mapping[str | int, Row], CheckedInside()
]


class DecisionTable:
    """Decodes a table with one decision a row, in CSV or flat JSON, such as the Open Bandit Dataset.

    All rows offer the same actions. Columns without a role are features of the context.

    Parameters
    ----------
    actions : sequence of str or int, or mapping of those to features
        What could be chosen, as the column has it: 7 and "7" are one. See `table_rows` for a second table
        that lists them.
    action, reward, propensity : str
        Columns.
    time : str, optional
        Column.
    ignore : sequence of str
        Columns to leave out.
    types : mapping of str to "number" or "category"
        How to read these columns, instead of as what they look like.
    format : "csv" or "json"
    delimiter, missing, multiline, columns
        Of CSV; see `penstock.codecs.csv.CSV`.
    pipeline : str
        Name that the keys of the decisions are made with; they come from the positions of the rows.

    Raises
    ------
    ConfigError
        If an option cannot be used, or there are no actions, or one twice.

    Examples
    --------
    >>> table = DecisionTable(["7", "8"], action="item_id", reward="click", propensity="propensity_score")
    >>> table = table.with_header(b"item_id,position,click,propensity_score", "obd.csv:1")
    >>> records, rejected = table.decode([b"8,3,1,0.5", b"9,1,0,0.5"], lambda i: f"obd.csv:{i + 2}")
    >>> records.logged.chosen, records.logged.rewards, records.logged.offers.rows
    (array([1]), array([1.]), [{'position': 3}])
    >>> rejected[0].reason
    "expected one of the offered actions, got '9' - at `$.item_id`, obd.csv:3"
    """

    def __init__(
        self,
        actions: Actions,
        *,
        action: str = "action",
        reward: str = "reward",
        propensity: str = "propensity",
        time: str | None = None,
        ignore: Sequence[str] = (),
        types: Mapping[str, FeatureType] | None = None,
        format: Literal["csv", "json"] = "csv",  # noqa: A002  (the option's name)
        delimiter: str | None = None,
        missing: Sequence[str] | None = None,
        multiline: bool | None = None,
        columns: Sequence[str] | None = None,
        pipeline: str = "",
    ) -> None:
        rows = _checked(actions)
        self._arms = np.array([*rows, None], dtype=object)[:-1]
        self._rows = [dict(row) for row in rows.values()]
        self._features, bad = encode_rows(self._rows)
        for i, error in bad:
            raise ConfigError(f"actions: {self._arms[i]!r}: {error}")
        self._numbers = {arm: i for i, arm in enumerate(self._arms)}
        self._action, self._propensity = action, propensity
        _check_roles({"action": action, "reward": reward, "propensity": propensity, "time": time})
        self._pipeline = pipeline
        # To the format these are a label, a weight and an id: read and checked alike, and no features.
        fields = Fields(
            Task("regression"),
            label=reward,
            weight=propensity,
            id=action,
            time=time,
            ignore=ignore,
            types=types,
            options={"label": "reward", "weight": "propensity", "id": "action"},
        )
        self._codec: Codec = codecs.build(
            format, fields, delimiter=delimiter, missing=missing, multiline=multiline, columns=columns
        )

    @property
    def needs_header(self) -> bool:
        """Whether the columns have no names yet."""
        return self._codec.needs_header

    def with_header(self, record: bytes, where: str) -> DecisionTable:
        """Take the names of the columns from the first line of a file."""
        table = copy(self)
        table._codec = self._codec.with_header(record, where)
        return table

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Framer:
        """Cut as the format says."""
        return self._codec.framer(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> DecodedLog:
        """Decode one decision a record."""
        asked: list[int] = []  # for the positions of bad records only, as `Where` says

        def bad_where(i: int) -> str:
            asked.append(i)
            return where(i)

        batch, unusable = self._codec.decode(records, bad_where)
        kept = np.setdiff1d(np.arange(len(records)), asked)
        letters = dict(zip(asked, unusable, strict=True))
        chosen = np.array([self._numbers.get(arm, -1) for arm in batch.ids or ()], dtype=np.int64)
        unknown = chosen < 0
        wrong = unknown | ~((batch.weights > 0.0) & (batch.weights <= 1.0))
        for i in np.flatnonzero(wrong).tolist():
            if unknown[i]:
                got = (batch.ids or ())[i]
                error = BadRecord("one of the offered actions", got, path=path_of(self._action))
            else:
                error = BadRecord(PROPENSITY, batch.weights[i].item(), path=path_of(self._propensity))
            number = int(kept[i])
            letters[number] = rejected(error, where(number), records[number], 0)
        good = np.flatnonzero(~wrong)
        batch, kept, chosen = batch.take(good), kept[good], chosen[good]
        n, k = len(good), len(self._arms)
        offers = Offers(
            contexts=batch.features,
            rows=batch.rows,
            starts=np.arange(0, n * k + 1, k),
            arms=np.tile(self._arms, n),
            actions=self._features.take(np.tile(np.arange(k), n)),
            action_rows=self._rows * n,
            keys=keys_of([where(i) for i in kept.tolist()], self._pipeline),
        )
        logged = Logged(
            offers=offers,
            chosen=chosen,
            propensities=batch.weights,
            rewards=batch.labels.astype(np.float64),
            weights=np.ones(n),
        )
        letters_in_order = tuple(
            Rejected(
                reason=letter.reason,
                where=letter.where,
                data=letter.data,
                after=int(np.searchsorted(kept, i)),
            )
            for i, letter in sorted(letters.items())
        )
        found = Records(logged=logged, ids=[""] * n, times=batch.times, where=lambda i: where(int(kept[i])))
        return found, letters_in_order


def _check_roles(columns: Mapping[str, str | None]) -> None:
    taken: dict[str, str] = {}
    for role, column in columns.items():
        if column is not None and taken.setdefault(column, role) != role:
            raise ConfigError(f"{role}: {column!r} is already the {taken[column]}")


def _checked(actions: object) -> dict[str, Row]:
    """Return the features of each action by what a column calls it."""
    if isinstance(actions, str) or not isinstance(actions, Sequence | Mapping) or not actions:
        raise ConfigError(f"actions: expected different actions, at least one, got {reprlib.repr(actions)}")
    rows: dict[str, Row] = {}
    for action in actions:
        if isinstance(action, bool) or not isinstance(action, str | int):
            raise ConfigError(
                f"actions: expected texts or whole numbers, got {action!r}: write it as the column has it, "
                "in quotes"
            )
        if str(action) in rows:
            raise ConfigError(f"actions: expected different actions, at least one, got {str(action)!r} twice")
        row = actions[action] if isinstance(actions, Mapping) else {}
        if not isinstance(row, Mapping):
            raise ConfigError(
                f"actions: {str(action)!r}: expected a mapping of names to features, got {row!r}"
            )
        rows[str(action)] = row
    return rows


def table_rows(
    lines: Sequence[bytes], *, key: str, ignore: Sequence[str] = (), delimiter: str = ","
) -> dict[str, Row]:
    r"""Read the features of actions from a small table with a header: what `DecisionTable` takes as actions.

    Parameters
    ----------
    lines : sequence of bytes
        The header, and a line an action.
    key : str
        Column that holds the action.
    ignore : sequence of str
        Columns to leave out.
    delimiter : str

    Raises
    ------
    BadRecord
        Names the first line that cannot be read, or whose action came before.
    DataError
        If there is no such column.

    Examples
    --------
    >>> table_rows([b"item_id,price", b"7,12.5", b"8,3"], key="item_id")
    {'7': {'price': 12.5}, '8': {'price': 3}}
    """
    fields = Fields(
        Task("regression"), label="", id=key, ignore=ignore, require_label=False, options={"id": "key"}
    )
    codec: Codec = codecs.build("csv", fields, delimiter=delimiter).with_header(b"".join(lines[:1]), "line 1")
    batch, unusable = codec.decode(lines[1:], lambda i: f"line {i + 2}")
    for letter in unusable:
        raise BadRecord("a row of the table", letter.data, position=f"{letter.where} ({letter.reason})")
    rows: dict[str, Row] = {}
    for number, (arm, row) in enumerate(zip(batch.ids or (), batch.rows, strict=True), 2):
        if arm in rows:
            raise BadRecord("different actions", arm, path=path_of(key), position=f"line {number}")
        rows[arm] = row
    return rows
