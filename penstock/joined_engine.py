"""Feedback as it arrives, joined and handed to the bandit engine: what the daemon of bandits runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from penstock.bandit_engine import BanditEngine, BanditRules
from penstock.feedback import DecisionEvent, RewardEvent
from penstock.joiner import Joiner
from penstock.logs import to_logged
from penstock.notices import Notice
from penstock.state import State, digest, prefixed, section

__all__ = ["JoinedEngine"]

Feedback: TypeAlias = Sequence[DecisionEvent | RewardEvent]


class JoinedEngine:
    """Joins decisions with rewards in event time, and learns what became certain.

    Parameters
    ----------
    rules : BanditRules
    joiner : Joiner
    pipeline : str
        Name that decisions were drawn with, where a decision does not say.
    """

    def __init__(self, rules: BanditRules, joiner: Joiner, *, pipeline: str) -> None:
        self.bandit = BanditEngine(rules)
        self.classes: list[str] = []
        self._joiner = joiner
        self._pipeline = pipeline
        self._n_unusable = 0  # decisions whose contexts hold what is no feature

    @property
    def n_events(self) -> int:
        """Decisions learned so far."""
        return self.bandit.n_events

    @property
    def counts(self) -> dict[str, int]:
        """How often everything has happened that can happen to a decision or a reward."""
        return {**self._joiner.counts, "unusable": self._n_unusable, "learned": self.n_events}

    def ticks(self, events: Feedback) -> Iterator[Feedback]:
        """Give the events as they are: where a tick ends is known only once they are joined."""
        yield events

    def progress(self, events: Feedback) -> list[Notice]:
        """Take feedback in its order of arrival; learn the decisions that have their final reward."""
        joined = self._joiner.take(events)
        if not len(joined):
            return []
        logged, unusable = to_logged(joined.decisions, joined.rewards, pipeline=self._pipeline)
        self._n_unusable += len(unusable)
        return self.bandit.progress(logged)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Nothing to put beside a snapshot's evidence: estimates, taken here, would depend on the reading."""
        return {name: {} for name in self.bandit.rules.policies}

    def state(self) -> State:
        """Everything it knows; what waits to be joined, too."""
        return {
            "n_unusable": self._n_unusable,
            **prefixed(self._joiner.state(), "joiner"),
            **prefixed(self.bandit.state(), "bandit"),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self._n_unusable = int(state["n_unusable"])  # type: ignore[arg-type]
        self._joiner.restore(section(state, "joiner"))
        self.bandit.restore(section(state, "bandit"))

    def digest(self) -> str:
        """Hex SHA-256 over the whole state."""
        return digest(self.state())
