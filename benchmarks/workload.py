"""The events that everything is measured on, in each shape that somebody wants to be fed.

A binary label, ten numbers and ten categories of two to five thousand values, the frequent ones drawn
far more often; about 420 bytes of JSON. The label follows a logistic model of all twenty features.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet

from penstock import Engine
from penstock.config import parse

__all__ = [
    "CATEGORIES",
    "NUMBERS",
    "Events",
    "bare_engine",
    "events",
    "write_csv",
    "write_json",
    "write_parquet",
    "write_vw",
    "write_vw_json",
]

NUMBERS: Final = (
    "age",
    "price",
    "clicks",
    "distance",
    "duration",
    "rating",
    "stock",
    "speed",
    "height",
    "balance",
)
CATEGORIES: Final = {
    "member": 2,
    "device": 3,
    "browser": 5,
    "weekday": 7,
    "channel": 20,
    "country": 50,
    "category": 100,
    "publisher": 500,
    "campaign": 1_000,
    "product": 5_000,
}
"""Number of values of each."""


@dataclass(frozen=True, slots=True)
class Events:
    """The same n events in several shapes.

    Attributes
    ----------
    rows : list of dict
        Numbers and strings.
    labels : list of float
        0.0 or 1.0.
    lines : list of str
        VW text, labelled -1 or 1: numbers as ``name:value``, categories as ``name=value``.
    numbers, indicators : list of dict
        The numbers, and the categories one-hot encoded (``{"country=c3": 1.0}``): for River, so that it
        has nothing to encode while the clock runs.
    """

    rows: list[dict[str, Any]]
    labels: list[float]
    lines: list[str]
    numbers: list[dict[str, float]]
    indicators: list[dict[str, float]]

    def __len__(self) -> int:
        return len(self.rows)

    def log_loss(self, predictions: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, float]:
        """Mean log loss of a probability for each event, as a column of a table."""
        p = np.clip(np.asarray(predictions, dtype=np.float64), 1e-15, 1.0 - 1e-15)
        y = np.asarray(self.labels)
        return {"log loss": float(-np.log(np.where(y == 1.0, p, 1.0 - p)).mean())}


@functools.cache
def events(n: int, seed: int = 7) -> Events:
    """Draw `n` events."""
    rng = np.random.default_rng(seed)
    standard = rng.normal(size=(n, len(NUMBERS)))
    margin = standard @ rng.normal(size=len(NUMBERS)) * 0.5
    values = standard * rng.uniform(0.5, 20.0, len(NUMBERS)) + rng.uniform(-5.0, 50.0, len(NUMBERS))
    columns: list[list[Any]] = [column.round(6).tolist() for column in values.T]
    for name, size in CATEGORIES.items():
        drawn = (size * rng.random(n) ** 2).astype(np.int64)
        margin += 0.4 * rng.normal(size=size)[drawn]
        columns.append([f"{name[:3]}{number:04d}" for number in drawn.tolist()])
    labels = (rng.random(n) < 1.0 / (1.0 + np.exp(-margin))).astype(np.float64).tolist()
    names = (*NUMBERS, *CATEGORIES)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    numbers = [{name: row[name] for name in NUMBERS} for row in rows]
    indicators = [{f"{name}={row[name]}": 1.0 for name in CATEGORIES} for row in rows]
    lines = [
        " ".join((f"{1 if label else -1} |", *(f"{k}:{v}" for k, v in measured.items()), *encoded))
        for label, measured, encoded in zip(labels, numbers, indicators, strict=True)
    ]
    return Events(rows, labels, lines, numbers, indicators)


def bare_engine(**rules: Any) -> Engine:
    """Return an engine with one `sgd`, all metrics and baselines, and whatever guards `rules` add."""
    return Engine(parse({"source": {"kind": "file", "path": "unread.jsonl"}, **rules}))


def write_json(path: Path, stream: Events, times: int = 1) -> None:
    """Write JSON lines: all events, `times` times over."""
    records = ({"label": int(label), **row} for row, label in zip(stream.rows, stream.labels, strict=True))
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records) * times)


def write_vw_json(path: Path, stream: Events, times: int = 1) -> None:
    """Write the JSON that VW reads: the same but for the label's name and values."""
    records = (
        {"_label": 1 if label else -1, **row} for row, label in zip(stream.rows, stream.labels, strict=True)
    )
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records) * times)


def write_vw(path: Path, stream: Events, times: int = 1) -> None:
    """Write VW text."""
    path.write_text("".join(f"{line}\n" for line in stream.lines) * times)


def write_csv(path: Path, stream: Events, times: int = 1) -> None:
    """Write CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", *stream.rows[0]])
        for _ in range(times):
            for row, label in zip(stream.rows, stream.labels, strict=True):
                writer.writerow([int(label), *row.values()])


def write_parquet(path: Path, stream: Events, times: int = 1) -> None:
    """Write Parquet with pyarrow's defaults: dictionary-encoded, compressed by snappy."""
    columns = {name: [row[name] for row in stream.rows] for name in stream.rows[0]}
    table = pyarrow.table({"label": stream.labels, **columns})
    pyarrow.parquet.write_table(pyarrow.concat_tables([table] * times), path)
