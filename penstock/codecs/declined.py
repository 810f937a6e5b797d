"""Records that a kernel declined, and what became of them the longer way: back among the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.codecs.base import Decoded
from penstock.codecs.lazy import LazyRows, MakeRows
from penstock.events import Batch, Features

__all__ = ["with_declined"]


def with_declined(
    fast: Batch,
    kept: NDArray[np.int64],
    slow: Decoded,
    declined: NDArray[np.int64],
    make_rows: MakeRows,
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
    make_rows : callable
        Makes rows, given numbers of records.
    """
    late, rejected = slow
    bad = np.array([letter.after + i for i, letter in enumerate(rejected)], np.int64)
    usable = np.flatnonzero(~np.isin(kept, declined))
    chosen = np.concatenate((kept[usable], np.delete(declined, bad)))
    order = np.argsort(chosen)
    positions = np.concatenate((usable, len(kept) + np.arange(len(late))))[order]
    records = chosen[order].tolist()
    ids = None if fast.ids is None or late.ids is None else [*fast.ids, *late.ids]
    batch = Batch(
        features=Features.concat([fast.features, late.features]).take(positions),
        labels=np.concatenate((fast.labels, late.labels))[positions],
        weights=np.concatenate((fast.weights, late.weights))[positions],
        times=np.concatenate((fast.times, late.times))[positions],
        rows=LazyRows(len(records), lambda events: make_rows([records[i] for i in events])),
        ids=None if ids is None else [ids[i] for i in positions.tolist()],
    )
    after = np.searchsorted(records, declined[bad]).tolist()
    return batch, tuple(replace(letter, after=n) for letter, n in zip(rejected, after, strict=True))
