"""What the engine tells whoever runs it: one shape for everything worth a line in a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from penstock.bandits.base import FrozenPolicy
from penstock.learners.base import Model

__all__ = ["How", "Notice", "What"]

What: TypeAlias = Literal[
    "drift", "opened", "promoted", "reacted", "rejected", "rolled_back", "stale", "withheld"
]
How: TypeAlias = Literal["initial", "refresh", "replace", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something happened at the end of a tick.

    Attributes
    ----------
    what : str
        ``drift``: a detector rang; ``opened``: a frozen candidate entered the shadow; ``promoted``: a
        version serves from here on; ``reacted``: the learner itself became another, which changes nothing
        of what serves; ``rejected``: a candidate was dropped; ``rolled_back``: what served
        before serves again; ``stale``: what serves has reached its maximum age; ``withheld``: a scheduled
        promotion was not made, because what was to serve had been shown worse; or none can be, because the
        log does not say what is better.
    event : int
        How many events the engine had seen when it happened, the one that caused it included.
    learner : str
    text : str
        One sentence for people.
    version : int or None
        Of the snapshot concerned, counted by the engine from 1.
    parent : int or None
        What served when `model` was frozen; for ``rolled_back``, what served until now.
    fallback : int or None
        What would serve again if `version` were shown worse, for ``promoted``.
    how : "initial", "refresh", "replace", "rollback" or None
        For ``opened``, ``promoted``, ``rolled_back`` and ``withheld``.
    sequence : int or None
        Number of the promotion or rollback: it lets a store tell a repetition from news.
    shadowed : tuple of int
        Versions that are in shadow when the tick has ended, for all but ``drift``.
    evidence : mapping
        The numbers behind it, plain JSON.
    kind : str or None
        Registry name of the learner that can load `model`.
    actions : tuple of str or None
        What a policy that is configured with actions offers by itself.
    model : Model, FrozenPolicy or None
        For ``opened`` and for ``promoted`` without a candidate before it: what to store.
    """

    what: What
    event: int
    learner: str
    text: str
    version: int | None = None
    parent: int | None = None
    fallback: int | None = None
    how: How | None = None
    sequence: int | None = None
    shadowed: tuple[int, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    actions: tuple[str, ...] | None = None
    model: Model | FrozenPolicy | None = None
