"""Logged decisions of which a kernel read most: rows when somebody asks, and the others back among them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.codecs.base import Where
from penstock.codecs.decisions import DecodedLog, Records
from penstock.codecs.declined import merged
from penstock.codecs.lazy import Lazy
from penstock.decisions import Logged, Offers
from penstock.events import Features, Row

__all__ = ["ReadRows", "lazy_rows", "woven"]

ReadRows: TypeAlias = "Callable[[int], tuple[Row, Sequence[Row]]]"
"""From the number of a record to its context and its actions."""


def lazy_rows(
    starts: NDArray[np.int64], numbers: NDArray[np.int64], read: ReadRows
) -> tuple[Lazy[Row], Lazy[Row]]:
    """Return the contexts and the actions of decisions; a record is read once, when one of them is asked for.

    Parameters
    ----------
    starts : int64, shape (n + 1,)
        As of `penstock.decisions.Offers`.
    numbers : int64, shape (n,)
        Of the records.
    read : callable
    """
    firsts: list[int] = starts.tolist()
    pairs = Lazy(len(numbers), lambda events: [read(int(numbers[i])) for i in events])

    def action_row(entry: int) -> Row:
        event = bisect_right(firsts, entry) - 1
        return pairs[event][1][entry - firsts[event]]

    return (
        Lazy(len(numbers), lambda events: [pairs[i][0] for i in events]),
        Lazy(firsts[-1], lambda entries: [action_row(entry) for entry in entries]),
    )


def woven(
    fast: Records,
    kept: NDArray[np.int64],
    slow: DecodedLog,
    declined: NDArray[np.int64],
    where: Where,
    read: ReadRows,
) -> DecodedLog:
    """Merge two parts of one call.

    Parameters
    ----------
    fast : Records
        What a kernel made of the records `kept`; its rows are not looked at.
    kept, declined : int64
        Numbers of records, ascending. Those that are in both are taken out of `fast`.
    slow : DecodedLog
        What became of the records `declined`.
    where, read : callable
        Of all records.
    """
    late, rejected = slow
    positions, records, rejected = merged(kept, declined, len(late), rejected)
    ids = [*fast.ids, *late.ids]
    log = Records(
        logged=_logged(fast.logged, late.logged, positions, records, read),
        ids=[ids[i] for i in positions.tolist()],
        times=np.concatenate((fast.times, late.times))[positions],
        where=lambda i: where(int(records[i])),
    )
    return log, rejected


def _logged(
    fast: Logged, late: Logged, positions: NDArray[np.int64], records: NDArray[np.int64], read: ReadRows
) -> Logged:
    """Return the decisions at `positions` of the two, one behind the other."""
    ours, theirs = fast.offers, late.offers
    firsts = np.concatenate((ours.starts[:-1], ours.starts[-1] + theirs.starts[:-1]))[positions]
    sizes = np.concatenate((np.diff(ours.starts), np.diff(theirs.starts)))[positions]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    entries = np.repeat(firsts - starts[:-1], sizes) + np.arange(starts[-1])
    rows, action_rows = lazy_rows(starts, records, read)
    return Logged(
        offers=Offers(
            contexts=Features.concat([ours.contexts, theirs.contexts]).take(positions),
            rows=rows,
            starts=starts,
            arms=np.concatenate((ours.arms, theirs.arms))[entries],
            actions=Features.concat([ours.actions, theirs.actions]).take(entries),
            action_rows=action_rows,
            keys=np.concatenate((ours.keys, theirs.keys))[positions],
        ),
        chosen=np.concatenate((fast.chosen, late.chosen))[positions],
        propensities=np.concatenate((fast.propensities, late.propensities))[positions],
        rewards=np.concatenate((fast.rewards, late.rewards))[positions],
        weights=np.concatenate((fast.weights, late.weights))[positions],
    )
