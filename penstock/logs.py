"""Logs of decisions and rewards: from bytes to events, and from joined decisions to what policies learn."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.decisions import Logged, Offers, keys_of
from penstock.errors import BadRecord
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.sources import Rejected

__all__ = ["dead_letter", "parse_lines", "place_of", "to_logged"]


def parse_lines(
    data: bytes, *, name: str, first_line: int = 1
) -> tuple[list[DecisionEvent | RewardEvent], list[Rejected], int]:
    """Read records of JSON lines, as `FileSink` writes them.

    Parameters
    ----------
    data : bytes
        A piece of a file, from the beginning of a line.
    name : str
        Of the file, for positions.
    first_line : int
        Number of the first line.

    Returns
    -------
    events : list
    rejected : list of Rejected
        The lines that are no records.
    size : int
        How many bytes have been read. A last line without its end is left for when the rest is there.
    """
    size = data.rfind(b"\n") + 1
    events: list[DecisionEvent | RewardEvent] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(data[:size].split(b"\n")[:-1], first_line):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            events.append(parse(line, position=where))
        except BadRecord as error:
            rejected.append(Rejected(reason=str(error), where=where, data=line, after=len(events)))
    return events, rejected, size


def to_logged(
    decisions: Sequence[DecisionEvent], rewards: NDArray[np.float64], *, pipeline: str
) -> tuple[Logged, list[Rejected]]:
    """Encode joined decisions for a policy to learn.

    Parameters
    ----------
    decisions : sequence of DecisionEvent, length n
    rewards : float64, shape (n,)
    pipeline : str
        Name that their keys are made with.

    Returns
    -------
    logged : Logged
    rejected : list of Rejected
        Decisions left out, because what they were made for holds something that is no feature.
    """
    try:
        return _encode(decisions, rewards, pipeline), []
    except BadRecord:  # rare: find out whose it is
        good: list[int] = []
        rejected: list[Rejected] = []
        for position, decision in enumerate(decisions):
            try:
                _encode([decision], rewards[position : position + 1], pipeline)
            except BadRecord as error:
                rejected.append(dead_letter(decision, error, after=len(good)))
            else:
                good.append(position)
        return _encode([decisions[position] for position in good], rewards[good], pipeline), rejected


def dead_letter(decision: DecisionEvent, error: BadRecord, *, after: int = 0) -> Rejected:
    """Return the dead letter of a decision that `error` says something about."""
    where = place_of(decision)
    reason = BadRecord(error.expected, error.got, path=error.path, position=where)
    record = decision.record()
    try:
        data = orjson.dumps(record, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # made in memory: nested deeper than orjson writes, or text that is no Unicode
        data = reprlib.repr(record).encode(errors="backslashreplace")
    return Rejected(reason=str(reason), where=where, data=data, after=after)


def place_of(decision: DecisionEvent) -> str:
    """Return how messages call a decision."""
    return f"decision {decision.id}"


def _encode(decisions: Sequence[DecisionEvent], rewards: NDArray[np.float64], pipeline: str) -> Logged:
    with_rows = any(decision.action_rows is not None for decision in decisions)
    return Logged(
        offers=Offers.from_rows(
            [decision.context for decision in decisions],
            [decision.actions for decision in decisions],
            action_rows=[d.action_rows or ({},) * len(d.actions) for d in decisions] if with_rows else None,
            keys=keys_of([decision.id for decision in decisions], pipeline),
        ),
        chosen=np.array([decision.chosen for decision in decisions], np.int64),
        propensities=np.array([decision.propensity for decision in decisions], np.float64),
        rewards=rewards,
        weights=np.array([decision.weight for decision in decisions], np.float64),
    )
