"""Offers as rows that any learner can learn from: one row for each action offered in each context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from penstock._native.features import encode_rows
from penstock._native.pairs import n_entries, pair_rows
from penstock.decisions import Offers
from penstock.events import Batch, Features, Row

__all__ = ["ACTION", "Pairs", "labelled", "reordered"]

ACTION: Final = "action"  # namespace of everything that belongs to an action
_REMEMBERED: Final = 1 << 16  # identities whose hash is kept; 10 MB at the most

_ACTION_HASH: Final = int(encode_rows([{ACTION: {"id": "1"}}])[0].namespaces[0])


class _Identities(dict[str, int]):
    """Index of the categorical feature ``action: {id: arm}`` of each arm."""

    def __missing__(self, arm: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        features, bad = encode_rows([{ACTION: {"id": arm}}])
        for _, error in bad:
            raise error
        self[arm] = index = int(features.indices[0])
        return index


@dataclass(frozen=True, slots=True)
class _Rows(Sequence[Row]):
    """The same rows as dicts, for learners that want Python objects; made when asked for."""

    offers: Offers
    entries: NDArray[np.int64]  # among the offered actions
    events: NDArray[np.int64]  # of each entry

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice):
            return _Rows(self.offers, self.entries[at], self.events[at])
        entry = int(self.entries[at])
        action = {"id": self.offers.arms[entry], **self.offers.action_rows[entry]}
        return {**self.offers.rows[int(self.events[at])], ACTION: action}


class Pairs:
    """Pairs contexts with actions.

    A row holds the features of the context, then those of the action, then the action's identity as the
    categorical feature ``id``. The latter two are in the namespace "action" (named namespaces among an
    action's features as well), so that the interaction ``["*", "action"]`` crosses all of a context with all
    of an action. A context should not have a namespace of this name.

    Examples
    --------
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]], action_rows=[[{"age": 2}, {}]])
    >>> batch = Pairs().all(offers)
    >>> batch.features.indptr, batch.rows[0]
    (array([0, 3, 5]), {'hour': 9, 'action': {'id': 'news', 'age': 2}})
    """

    def __init__(self) -> None:
        self._identities = _Identities()

    def all(self, offers: Offers) -> Batch:
        """Pair every offered action with its context: m rows, without labels."""
        entries = np.arange(len(offers.arms))
        events = np.repeat(np.arange(len(offers)), np.diff(offers.starts))
        features = self._features(offers.starts, offers.contexts, offers.actions, offers.arms)
        return _batch(features, _Rows(offers, entries, events))

    def chosen(self, offers: Offers, entries: NDArray[np.int64]) -> Batch:
        """Pair of every event one action with the context: n rows, without labels."""
        events = np.arange(len(offers))
        features = self._features(
            np.arange(len(offers) + 1), offers.contexts, offers.actions.take(entries), offers.arms[entries]
        )
        return _batch(features, _Rows(offers, entries, events))

    def _features(
        self, starts: NDArray[np.int64], contexts: Features, actions: Features, arms: NDArray[np.object_]
    ) -> Features:
        identities = np.fromiter(map(self._identities.__getitem__, arms), np.uint32, len(arms))
        nnz = n_entries(starts, contexts.indptr, actions.indptr)
        out = Features(
            np.empty(len(arms) + 1, np.int64),
            np.empty(nnz, np.uint32),
            np.empty(nnz, np.float64),
            np.empty(nnz, np.uint32),
        )
        pair_rows(
            starts,
            contexts.indptr,
            contexts.indices,
            contexts.values,
            contexts.namespaces,
            actions.indptr,
            actions.indices,
            actions.values,
            identities,
            _ACTION_HASH,
            out.indptr,
            out.indices,
            out.values,
            out.namespaces,
        )
        return out


def reordered(batch: Batch, order: NDArray[np.int64]) -> Batch:
    """Rows of a batch of pairs at `order`."""
    rows = batch.rows
    assert isinstance(rows, _Rows)
    return _batch(batch.features.take(order), _Rows(rows.offers, rows.entries[order], rows.events[order]))


def labelled(batch: Batch, labels: NDArray[np.float64], weights: NDArray[np.float64]) -> Batch:
    """Give a batch of pairs its labels and weights."""
    return Batch(features=batch.features, labels=labels, weights=weights, times=batch.times, rows=batch.rows)


def _batch(features: Features, rows: _Rows) -> Batch:
    n = len(rows)
    nothing = np.full(n, np.nan)
    return Batch(features=features, labels=nothing, weights=np.ones(n), times=nothing, rows=rows)
