"""Feedback as it arrives, joined and handed to the bandit engine: what the daemon of bandits runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from penstock.bandit_engine import BanditEngine, BanditRules
from penstock.errors import BadRecord
from penstock.feedback import DecisionEvent, RewardEvent
from penstock.joiner import Correction, Joined, Joiner
from penstock.logs import dead_letter, place_of, to_logged
from penstock.notices import Notice
from penstock.retirement import Retirements
from penstock.sources import Rejected
from penstock.state import State, digest, prefixed, section

__all__ = ["JoinedEngine"]

_LATE: Final = "late_decisions"
_log = logging.getLogger("penstock")
Feedback: TypeAlias = Sequence[DecisionEvent | RewardEvent]


class JoinedEngine:
    """Joins decisions with rewards in event time, and learns what became certain.

    Decisions of mode ``apprentice`` played a baseline. They are learned, and judged, as if what the policy
    intended had been played with the probability it had: agreement with the baseline earns the highest
    reward there is, disagreement the lowest. What the baseline really earned is kept beside, see
    `baseline_reward`. Those of mode ``logging_only`` are learned as they were logged, with propensity 1.

    A late reward that changes one already learned reaches the policies that can exchange it, see
    `penstock.bandits.base.Corrects`; never the gate or the estimates, which have judged that decision.

    Parameters
    ----------
    rules : BanditRules
    joiner : Joiner
    pipeline : str
        Name that the keys of the decisions are made with: chance in learning is the learner's own, whichever
        pipeline decided.
    retired : mapping of arm to float
        Arms to be forgotten, each before the first decision that is not older than its time.
    actions : sequence of str, optional
        What a snapshot offers where a request does not say; those that have retired are left out.
    """

    def __init__(
        self,
        rules: BanditRules,
        joiner: Joiner,
        *,
        pipeline: str,
        retired: Mapping[str, float] = MappingProxyType({}),
        actions: Sequence[str] | None = None,
    ) -> None:
        self.bandit = BanditEngine(rules)
        self._retirements = Retirements(retired)
        self.classes: list[str] = []
        self._actions = actions
        self._rejected: list[Rejected] = []
        self._joiner = joiner
        self._pipeline = pipeline
        self._n_unusable = 0  # decisions whose contexts hold what is no feature
        self._n_uncorrected = 0  # corrections that not every policy could take
        self._n_imitated = 0  # decisions of apprentices
        self._n_agreed = 0  # of them, where the policy intended what was played
        self._baseline_total = 0.0  # what they earned

    @property
    def n_events(self) -> int:
        """Decisions learned so far."""
        return self.bandit.n_events

    @property
    def counts(self) -> dict[str, int]:
        """How often everything has happened that can happen to a decision or a reward."""
        return {
            **self._joiner.counts,
            "waiting": self._joiner.n_pending,
            "unusable": self._n_unusable,
            "uncorrected": self._n_uncorrected,
            "imitated": self._n_imitated,
            "agreed": self._n_agreed,
            "learned": self.n_events,
        }

    @property
    def baseline_reward(self) -> float:
        """Mean of what the baseline earned where an apprentice looked on; NaN before the first decision."""
        return self._baseline_total / self._n_imitated if self._n_imitated else float("nan")

    def follow(self, events: Feedback) -> Iterator[Notice]:
        """As `progress`, for who wants one notice after the other: all are of the last of `events`."""
        yield from self.progress(events)

    def progress(self, events: Feedback) -> list[Notice]:
        """Take feedback in its order of arrival; learn the decisions that have their final reward.

        Raises
        ------
        BadRecord
            If a reward is outside of the declared range; names the decision.
        """
        n_late = self._joiner.counts[_LATE]
        joined = self._joiner.take(events)
        self._warn_of_late(n_late)
        notices: list[Notice] = []
        start = 0
        for correction in joined.corrections:
            notices += self._learn(joined, start, correction.after)
            start = correction.after
            self._correct(correction)
        return notices + self._learn(joined, start, len(joined))

    def _warn_of_late(self, before: int) -> None:
        """Say it at the first decision that is lost, and whenever there are twice as many."""
        now = self._joiner.counts[_LATE]
        if now.bit_length() > before.bit_length():
            _log.warning(
                "decisions come too late to be learned, as newer ones have been: %s so far. If they go on, "
                "look for a clock, or a unit of time, that is wrong: one time in the future makes all others "
                "late",
                f"{now:,}",
            )

    def _learn(self, joined: Joined, start: int, stop: int) -> list[Notice]:
        notices: list[Notice] = []
        for arms, low, high in self._retirements.parts(joined.decisions, start, stop):
            found = self.bandit.retire(arms) if arms else []
            found += self._learn_part(joined, low, high)
            offered = self._offered()
            notices += [replace(notice, actions=offered) for notice in found]
        return notices

    def _offered(self) -> tuple[str, ...] | None:
        """Return what a snapshot made now offers by itself."""
        if self._actions is None:
            return None
        return tuple(action for action in self._actions if action not in self.bandit.retired)

    def _learn_part(self, joined: Joined, start: int, stop: int) -> list[Notice]:
        decisions: list[DecisionEvent] = []
        rewards: list[float] = []
        letters: list[Rejected] = []
        for event, reward in zip(
            joined.decisions[start:stop], joined.rewards[start:stop].tolist(), strict=True
        ):
            if event.mode != "apprentice":
                self._require_declared(event, reward)
                decisions.append(event)
                rewards.append(reward)
                continue
            intention = _intention(event)
            if intention is None:
                expected = "what the apprentice intended, with a probability above 0"
                letters.append(dead_letter(event, BadRecord(expected, None, path="$.intended")))
                continue
            agrees = intention.chosen == event.chosen
            self._n_imitated += 1
            self._n_agreed += agrees
            self._baseline_total += reward
            decisions.append(intention)
            rewards.append(self.bandit.rules.reward_range[agrees])
        logged, unusable = to_logged(decisions, np.array(rewards, np.float64), pipeline=self._pipeline)
        letters += unusable
        self._n_unusable += len(letters)
        if letters:
            places = {place_of(event): i for i, event in enumerate(joined.decisions[start:stop])}
            self._rejected += sorted(letters, key=lambda letter: places[letter.where])
        try:
            return self.bandit.progress(logged)
        except BadRecord as error:
            bad = {letter.where for letter in unusable}
            learned = [event.id for event in decisions if place_of(event) not in bad]
            raise error.placed(lambda i: f"decision {learned[i]!r}") from None

    def take_rejected(self) -> tuple[Rejected, ...]:
        """Give away the decisions that could not be used since the last call."""
        taken, self._rejected = tuple(self._rejected), []
        return taken

    def _correct(self, correction: Correction) -> None:
        event, old, new = correction.decision, correction.old, correction.new
        if old is None:  # it was dropped, so nobody has learned it
            self._n_uncorrected += 1
        elif event.mode == "apprentice":  # whether it agreed does not depend on the reward
            if _intention(event) is not None:
                self._baseline_total += new - old
        else:
            self._require_declared(event, new)
            rewards = np.array([new])
            logged, _ = to_logged([event], rewards, pipeline=self._pipeline)
            if len(logged) and not self.bandit.correct(logged, np.array([old]), rewards):
                self._n_uncorrected += 1

    def _require_declared(self, event: DecisionEvent, reward: float) -> None:
        """Stop where `reward_range` is wrong: to leave such decisions out would bias everything, silently."""
        low, high = self.bandit.rules.reward_range
        if not low <= reward <= high:
            raise BadRecord(
                f"a reward in [{low}, {high}], the `reward_range`",
                reward,
                path="$.reward",
                position=f"decision {event.id!r}",
            )

    def standing(self) -> list[Notice]:
        """Tell once more of what serves, and may serve again; see `penstock.shadow.Shadow.standing`."""
        return [replace(notice, actions=self._offered()) for notice in self.bandit.shadow.standing()]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Nothing to put beside a snapshot's evidence: estimates, taken here, would depend on the reading."""
        return {name: {} for name in self.bandit.rules.policies}

    def state(self) -> State:
        """Everything it knows; what waits to be joined, too."""
        return {
            "n_unusable": self._n_unusable,
            "n_uncorrected": self._n_uncorrected,
            "n_imitated": self._n_imitated,
            "n_agreed": self._n_agreed,
            "baseline_total": self._baseline_total,
            **prefixed(self._retirements.state(), "retirements"),
            **prefixed(self._joiner.state(), "joiner"),
            **prefixed(self.bandit.state(), "bandit"),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If arms are retired now that would have had to be then, or the other way round.
        """
        self._retirements.restore(section(state, "retirements"))
        self._n_unusable = int(state["n_unusable"])  # type: ignore[arg-type]
        self._n_uncorrected = int(state["n_uncorrected"])  # type: ignore[arg-type]
        self._n_imitated = int(state["n_imitated"])  # type: ignore[arg-type]
        self._n_agreed = int(state["n_agreed"])  # type: ignore[arg-type]
        self._baseline_total = float(state["baseline_total"])  # type: ignore[arg-type]
        self._joiner.restore(section(state, "joiner"))
        self.bandit.restore(section(state, "bandit"))

    def digest(self) -> str:
        """Hex SHA-256 over the whole state."""
        return digest(self.state())


def _intention(event: DecisionEvent) -> DecisionEvent | None:
    """Return the decision that an apprentice would have made; None if it is not known, or is impossible."""
    if event.intended is None:
        return None
    position, probabilities = event.intended
    if not probabilities[position] > 0.0:
        return None
    return replace(
        event, chosen=position, propensity=probabilities[position], probabilities=probabilities, intended=None
    )
