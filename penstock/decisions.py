"""Decisions in columns: what could be chosen, what was chosen with which probability, what it earned.

`Offers` is to a policy what a `Batch` without labels is to a learner; `Logged` is one with rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock._native import draw as _native
from penstock.errors import BadRecord
from penstock.events import Features, Row

__all__ = ["Decision", "Logged", "Offers", "draw", "key_of", "keys_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided, and with what probability: enough to learn from it off-policy.

    Attributes
    ----------
    id : str
    actions : tuple of str
        What could be chosen, in the order of `probabilities`.
    action : str
        What was chosen.
    propensity : float
        Probability of `action` when it was drawn, in (0, 1].
    probabilities : tuple of float
        The whole distribution it was drawn from; sums to 1.
    snapshot : int
        Version of the policy that decided.
    """

    id: str
    actions: tuple[str, ...]
    action: str
    propensity: float
    probabilities: tuple[float, ...]
    snapshot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """Contexts with the actions offered in each, for n events that offer m actions in all.

    Attributes
    ----------
    contexts : Features
        n rows.
    rows : sequence of dicts, length n
        The contexts as they came.
    starts : int64, shape (n + 1,)
        Event i offers the entries ``starts[i]:starts[i + 1]`` of what follows; at least one.
    arms : object (str), shape (m,)
        Identity of each offered action; unique within an event.
    actions : Features
        m rows; empty where an action has no features of its own.
    action_rows : sequence of dicts, length m
    keys : uint64, shape (n,)
        Number of each decision, from `key_of`: all randomness of an event comes from it, so that a logged
        decision can be recomputed.
    """

    contexts: Features
    rows: Sequence[Row]
    starts: NDArray[np.int64]
    arms: NDArray[Any]
    actions: Features
    action_rows: Sequence[Row]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def from_rows(
        cls,
        contexts: Sequence[Row],
        arms: Sequence[Sequence[str]],
        *,
        action_rows: Sequence[Sequence[Row]] | None = None,
        keys: Sequence[int] | NDArray[np.uint64] | None = None,
    ) -> Offers:
        """Build offers from objects in memory.

        Parameters
        ----------
        contexts : sequence of dicts, length n
        arms : sequence of sequences of str, length n
            The actions offered in each event.
        action_rows : sequence of sequences of dicts, optional
            Features of each offered action.
        keys : length n, optional
            0, 1, 2, … where not given.

        Raises
        ------
        BadRecord
            If an event offers nothing, or an action twice, or a value cannot be a feature.

        Examples
        --------
        >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
        >>> len(offers), offers.arms.tolist(), offers.starts.tolist()
        (1, ['news', 'sport'], [0, 2])
        """
        from penstock._native.features import encode_rows

        flat_rows: list[Row] = []
        for i, offered in enumerate(arms):
            where = f"events[{i}]"
            if not len(offered):
                raise BadRecord("at least one action", [], path="$.actions", position=where)
            if len(set(offered)) != len(offered):
                raise BadRecord("different actions", list(offered), path="$.actions", position=where)
            if action_rows is not None and len(action_rows[i]) != len(offered):
                raise BadRecord(
                    f"features of {len(offered)} actions", action_rows[i], path="$.actions", position=where
                )
            flat_rows.extend(action_rows[i] if action_rows is not None else [{}] * len(offered))
        features, bad = encode_rows(contexts)
        actions, bad_actions = encode_rows(flat_rows)
        for _, error in (*bad, *bad_actions):
            raise error
        flat = np.empty(len(flat_rows), dtype=object)
        flat[:] = [arm for offered in arms for arm in offered]
        return cls(
            contexts=features,
            rows=contexts,
            starts=np.cumsum([0, *(len(offered) for offered in arms)], dtype=np.int64),
            arms=flat,
            actions=actions,
            action_rows=flat_rows,
            keys=np.arange(len(contexts), dtype=np.uint64)
            if keys is None
            else np.asarray(keys, dtype=np.uint64),
        )

    def slice(self, start: int, stop: int) -> Offers:
        """Events ``start:stop``; shares memory with these."""
        low, high = int(self.starts[start]), int(self.starts[stop])
        return Offers(
            contexts=self.contexts.slice(start, stop),
            rows=self.rows[start:stop],
            starts=self.starts[start : stop + 1] - low,
            arms=self.arms[low:high],
            actions=self.actions.slice(low, high),
            action_rows=self.action_rows[low:high],
            keys=self.keys[start:stop],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Decisions with their rewards, in decision order, n of them.

    Attributes
    ----------
    offers : Offers
    chosen : int64, shape (n,)
        Which of the offered actions was taken, counted from 0 within the event.
    propensities : float64, shape (n,), in (0, 1]
        Probability with which it was taken.
    rewards : float64, shape (n,)
        Finite; larger is better.
    weights : float64, shape (n,)
        Importance, finite and >= 0.
    """

    offers: Offers
    chosen: NDArray[np.int64]
    propensities: NDArray[np.float64]
    rewards: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.offers)

    def __post_init__(self) -> None:
        n = len(self.offers)
        sizes = np.diff(self.offers.starts)
        for name, column, wrong, expected in (
            ("chosen", self.chosen, (self.chosen < 0) | (self.chosen >= sizes), "an offered action"),
            (
                "propensity",
                self.propensities,
                ~((self.propensities > 0) & (self.propensities <= 1)),
                "a number in (0, 1]",
            ),
            ("reward", self.rewards, ~np.isfinite(self.rewards), "a finite number"),
            (
                "weight",
                self.weights,
                ~(np.isfinite(self.weights) & (self.weights >= 0)),
                "a finite number >= 0",
            ),
        ):
            if column.shape != (n,):
                raise BadRecord(f"one {name} an event", column.shape, path=f"$.{name}")
            if wrong.any():
                first = int(np.argmax(wrong))
                raise BadRecord(expected, column[first].item(), path=f"$.{name}", position=f"events[{first}]")

    @property
    def entries(self) -> NDArray[np.int64]:
        """Of each event the position of what was chosen among the m offered actions."""
        return self.offers.starts[:-1] + self.chosen

    def slice(self, start: int, stop: int) -> Logged:
        """Events ``start:stop``; shares memory with these."""
        return Logged(
            offers=self.offers.slice(start, stop),
            chosen=self.chosen[start:stop],
            propensities=self.propensities[start:stop],
            rewards=self.rewards[start:stop],
            weights=self.weights[start:stop],
        )


def key_of(decision_id: str, pipeline: str) -> int:
    """Return the number that all randomness of a decision comes from; another pipeline has another.

    Examples
    --------
    >>> key_of("d-1", "ads") == key_of("d-1", "ads") != key_of("d-1", "news")
    True
    """
    hashed = hashlib.blake2b(
        decision_id.encode("utf-8", "surrogatepass"), key=pipeline.encode()[:64], digest_size=8
    )
    return int.from_bytes(hashed.digest(), "little")


def keys_of(decision_ids: Sequence[str], pipeline: str) -> NDArray[np.uint64]:
    """Return what `key_of` does, of each."""
    keyed = hashlib.blake2b(key=pipeline.encode()[:64], digest_size=8)
    digests = []
    for decision_id in decision_ids:
        hashed = keyed.copy()
        hashed.update(decision_id.encode("utf-8", "surrogatepass"))
        digests.append(hashed.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def draw(probabilities: NDArray[np.float64], key: int) -> int:
    """Draw one action; the same key always draws the same.

    Parameters
    ----------
    probabilities : float64, shape (k,)
        Sums to 1.
    key : int
        From `key_of`.

    Returns
    -------
    int
        Position of the action; never one whose probability is 0.

    Raises
    ------
    ValueError
        If no probability is above 0.
    """
    return _native.draw(np.ascontiguousarray(probabilities, np.float64), key)
