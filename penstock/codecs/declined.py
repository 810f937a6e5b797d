"""Records that a kernel declined, and what became of them the longer way: back among the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.codecs.base import Decoded
from penstock.codecs.lazy import Lazy, MakeRows
from penstock.codecs.values import read_time
from penstock.errors import BadRecord
from penstock.events import Batch, Features
from penstock.sources.base import Rejected

__all__ = ["merged", "with_dates", "with_declined"]


def merged(
    kept: NDArray[np.int64], declined: NDArray[np.int64], n_late: int, rejected: Sequence[Rejected]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[Rejected, ...]]:
    """Put two parts of one call in the order of its records.

    Parameters
    ----------
    kept, declined : int64
        Numbers of the records that a kernel read, and of the others, ascending. Those that are in both are
        taken out of the former.
    n_late : int
        Events that the others came to.
    rejected : sequence of Rejected
        The rest of the others.

    Returns
    -------
    positions : int64
        Of the events, in two parts one behind the other.
    records : int64
        The number of the record of each.
    rejected : tuple of Rejected
        As given, but for how many events of both parts came before.
    """
    bad = np.array([letter.after + i for i, letter in enumerate(rejected)], np.int64)
    usable = np.flatnonzero(~np.isin(kept, declined))
    chosen = np.concatenate((kept[usable], np.delete(declined, bad)))
    order = np.argsort(chosen)
    positions = np.concatenate((usable, len(kept) + np.arange(n_late)))[order]
    records = chosen[order]
    after = np.searchsorted(records, declined[bad]).tolist()
    letters = tuple(replace(letter, after=n) for letter, n in zip(rejected, after, strict=True))
    return positions, records, letters


def with_declined(
    fast: Batch,
    kept: NDArray[np.int64],
    slow: Decoded,
    declined: NDArray[np.int64],
    make_rows: MakeRows,
    make_lines: Callable[[Sequence[int]], list[str]] | None = None,
) -> Decoded:
    """Merge two parts of one call.

    Parameters
    ----------
    fast : Batch
        What the kernel made of the records `kept`; its rows are not looked at.
    kept, declined : int64
        Numbers of records, ascending. Those that are in both are taken out of `fast`.
    slow : Decoded
        What became of the records `declined`.
    make_rows, make_lines : callable
        Make rows, and lines if the format has them, given numbers of records.
    """
    late, rejected = slow
    positions, numbers, rejected = merged(kept, declined, len(late), rejected)
    records = numbers.tolist()
    ids = None if fast.ids is None or late.ids is None else [*fast.ids, *late.ids]
    batch = Batch(
        features=Features.concat([fast.features, late.features]).take(positions),
        labels=np.concatenate((fast.labels, late.labels))[positions],
        weights=np.concatenate((fast.weights, late.weights))[positions],
        times=np.concatenate((fast.times, late.times))[positions],
        rows=Lazy(len(records), lambda events: make_rows([records[i] for i in events])),
        lines=None
        if make_lines is None
        else Lazy(len(records), lambda events: make_lines([records[i] for i in events])),
        ids=None if ids is None else [ids[i] for i in positions.tolist()],
    )
    return batch, rejected


def with_dates(
    times: NDArray[np.float64],
    dates: list[tuple[int, str]],
    kept: NDArray[np.int64],
    declined: NDArray[np.int64],
    *,
    text: bool,
) -> NDArray[np.int64]:
    """Put the times that came as text into `times`; return `declined` with those that are none.

    Parameters
    ----------
    times : float64
        Of the events that a kernel read.
    dates : list of (int, str)
        Events whose time is text, and that.
    kept, declined : int64
        As of `with_declined`.
    text : bool
        Whether a number may come as its spelling.
    """
    unusable = []
    for event, date in dates:
        try:
            times[event] = read_time(date, text=text, path="$")
        except BadRecord:
            unusable.append(event)
    return np.sort(np.concatenate((declined, kept[unusable]))) if unusable else declined
