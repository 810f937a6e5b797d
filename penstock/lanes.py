"""What the engine keeps for each learner: its scores, its detectors, and what it may become after an alarm.

Everything here changes what *learns*. What serves changes at the gate only.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock import learners
from penstock.config import DriftRule, Pipeline
from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch
from penstock.gate import Fading
from penstock.judging import Judge
from penstock.learners.base import Consolidates, Hastens, Learner, Model
from penstock.metrics import Metrics
from penstock.notices import Notice
from penstock.shadow import Contender
from penstock.state import State, prefixed, section
from penstock.trials import Version

__all__ = ["Alarm", "Lane", "Rival", "Tail", "Watched", "judged_events"]

_REACTIONS: Final = {
    "log": "noted",
    "reset": "the learner starts afresh",
    "warm_restart": "the learner starts afresh from what is remembered since the change",
    "bump": "the learner learns faster",
    "background": "a fresh copy of the learner starts beside it",
    "recall": "what is remembered of earlier concepts is tried",
}

_MIN_RECENT: Final = 512  # events of a new lineage before it may be proposed, or take over
_BUMP: Final = 0.01  # what is left of the evidence that step sizes rest on
_RIVAL_EVENTS: Final = 10_000  # after which a learner beside the live one takes over, or is dropped
_TAIL: Final = 256  # newest events kept to judge what is remembered
_MIN_JUDGED: Final = 64  # of those, at least
_REMEMBER_EVERY: Final = 2048  # events between two states of a learner that an alarm may turn into a memory
_MAX_CONCEPTS: Final = 4  # remembered


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a detector found, and when."""

    before: float
    after: float
    width: int
    event: int  # events seen by then, the one that gave the alarm included
    n_offered: int  # events that the replay buffer will have been offered by then

    @property
    def rose(self) -> bool:
        """Whether things got worse."""
        return self.after > self.before


class Watched:
    """A detector on numbers of a learner or of the events, and the first alarm since the last tick ended."""

    def __init__(self, rule: DriftRule) -> None:
        self.rule = rule
        self.detector = rule.build()
        self.alarm: Alarm | None = None

    def update(
        self,
        values: NDArray[np.float64],
        judged: NDArray[np.intp] | None,
        n_before: int,
        n_offered: int,
        aside: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the numbers of the events at `judged` (None: all) of a batch that comes after `n_before`.

        Of these, those set `aside` (None: none) are not offered to the replay buffer.
        """
        found = self.detector.update(values)
        if found is not None and self.alarm is None:
            place = found.index if judged is None else int(judged[found.index])
            n_aside = 0 if aside is None else int(np.count_nonzero(aside[: found.index + 1]))
            self.alarm = Alarm(
                before=found.before,
                after=found.after,
                width=found.width,
                event=n_before + place + 1,
                n_offered=n_offered + found.index + 1 - n_aside,
            )

    def notice(self, whose: str) -> Notice:
        """Report the alarm; `whose` is the learner, or what of the events is watched."""
        rule, alarm = self.rule, self.alarm
        assert alarm is not None
        reaction = rule.react if alarm.rose else "log"
        what = rule.on if rule.of_events else f"{rule.on} of {whose}"
        return Notice(
            what="drift",
            event=alarm.event,
            learner=whose,
            text=f"{rule.kind} on the {what}: {alarm.before:.3f} before, "
            f"{alarm.after:.3f} over the last {alarm.width:,} events; "
            f"{_REACTIONS[reaction]}",
            evidence={
                "detector": rule.kind,
                "reaction": reaction,
                "before": alarm.before,
                "after": alarm.after,
                "width": alarm.width,
            },
        )

    def state(self) -> State:
        """Everything it knows."""
        state = prefixed(self.detector.state(), "detector")
        if self.alarm is not None:
            state["alarm"] = np.array(astuple(self.alarm), dtype=np.float64)
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self.detector.restore(section(state, "detector"))
        alarm = state.get("alarm")
        if isinstance(alarm, np.ndarray):
            before, after, *counts = alarm.tolist()
            self.alarm = Alarm(before, after, *map(int, counts))
        else:
            self.alarm = None


class Tail:
    """The newest events."""

    def __init__(self) -> None:
        self._events: Batch | None = None

    def extend(self, events: Batch) -> None:
        """Take events in, and let as many of the oldest go as there is no room for."""
        events = events.slice(max(len(events) - _TAIL, 0), len(events))
        kept = self._events
        if kept is None:
            self._events = events
            return
        kept = kept.slice(max(len(kept) + len(events) - _TAIL, 0), len(kept))
        self._events = Batch.concat([kept, events])

    def newest(self, n: int) -> Batch | None:
        """Return the newest `n` events, or all there are; None if there are none."""
        events = self._events
        return None if events is None else events.slice(max(len(events) - n, 0), len(events))

    def state(self) -> State:
        """Everything it knows."""
        return {} if self._events is None else dict(self._events.state())

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self._events = Batch.from_state(state) if state else None


class Rival:
    """A learner that learns beside the live one of the same name, and the losses of both since then.

    Either a fresh copy that may take over, or the *incumbent*: the one from before a restart, whose snapshot
    serves. It goes on, so that serving gets newer weights until the new one has passed the gate.
    """

    def __init__(self, learner: Learner, lineage: int) -> None:
        self.learner = learner
        self.lineage = lineage
        self.n_events = 0
        self.loss = Fading()
        self._live_loss = Fading()

    def compare(self, live: NDArray[np.float64], own: NDArray[np.float64]) -> None:
        """Take prequential losses of the live learner and of this one, shape (n,)."""
        self._live_loss.update(live)
        self.loss.update(own)
        self.n_events += len(own)

    @property
    def is_better(self) -> bool:
        """Whether it has lost less lately than the live learner, if that can be told yet."""
        return self.n_events >= _MIN_RECENT and self.loss.mean < self._live_loss.mean

    @property
    def is_late(self) -> bool:
        """Whether the time is over in which either may prove itself."""
        return self.n_events >= _RIVAL_EVENTS

    def __str__(self) -> str:
        return f"recent loss {self.loss.mean:.4f} against {self._live_loss.mean:.4f}"

    def state(self) -> State:
        """Everything it knows."""
        return {
            "lineage": self.lineage,
            "n_events": self.n_events,
            **prefixed(self.loss.state(), "loss"),
            **prefixed(self._live_loss.state(), "live_loss"),
            **prefixed(self.learner.state(), "learner"),
        }

    @classmethod
    def from_state(cls, learner: Learner, state: State) -> Rival:
        """Build it again, from a fresh learner."""
        rival = cls(learner, int(state["lineage"]))  # type: ignore[arg-type]
        rival.n_events = int(state["n_events"])  # type: ignore[arg-type]
        rival.loss.restore(section(state, "loss"))
        rival._live_loss.restore(section(state, "live_loss"))
        rival.learner.restore(section(state, "learner"))
        return rival


class _Memory:
    """States of a learner: two of the present concept, and one of each that an alarm has ended."""

    def __init__(self) -> None:
        self.concepts: list[State] = []
        self._kept: list[State] = []

    def keep(self, event: int, learner: Learner) -> None:
        """Take the state of a learner after so many events, if it is time."""
        if not self._kept or event - _event_of(self._kept[-1]) >= _REMEMBER_EVERY:
            state = {"event": event, **prefixed(learner.state(), "learner")}
            self._kept = [*self._kept[-1:], state]

    def end_concept(self, change: int) -> None:
        """Remember the newest state from before event `change`, and begin anew."""
        before = [state for state in self._kept if _event_of(state) <= change]
        if before:
            self.concepts = [*self.concepts, before[-1]][-_MAX_CONCEPTS:]
        self._kept = []

    def state(self) -> State:
        state: State = {}
        for what, states in (("concepts", self.concepts), ("kept", self._kept)):
            for i, one in enumerate(states):
                state |= prefixed(one, f"{what}/{i}")
        return state

    def restore(self, state: State) -> None:
        self.concepts, self._kept = _listed(state, "concepts"), _listed(state, "kept")


def _event_of(state: State) -> int:
    return int(state["event"])  # type: ignore[arg-type]


def _listed(state: State, what: str) -> list[State]:
    found: list[State] = []
    while one := section(state, f"{what}/{len(found)}"):
        found.append(one)
    return found


class Lane:
    """One learner and everything that watches it."""

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self.name = name
        self.spec = pipeline.learners[name]
        self._task = pipeline.learning_task
        self._seed = pipeline.seed
        self.learner = self._build()
        self.metrics = Metrics(self._task, window=pipeline.metrics.window, fading=pipeline.metrics.fading)
        self.watched = [
            Watched(rule)
            for rule in pipeline.drift
            if not rule.of_events and (rule.learners is None or name in rule.learners)
        ]
        self.recent_loss = Fading()
        self.n_recent = 0  # events in it
        self.lineage = 0  # which of its beginnings it goes back to
        self.n_lineages = 1  # so far
        self.background: Rival | None = None
        self.incumbent: Rival | None = None
        reactions = {watched.rule.react for watched in self.watched}
        self._may_restart = not reactions <= {"log", "bump"}
        self._memory = _Memory() if "recall" in reactions else None
        if "bump" in reactions and not (isinstance(self.learner, Hastens) and self.learner.hastens):
            raise ConfigError(
                f"`drift`: `react: bump` cannot make learner `{name}` ({self.spec.kind}) learn faster: "
                f"expected sgd with update nag, adagrad or sgd"
            )
        self._holds_on = isinstance(self.learner, Consolidates) and self.learner.consolidates
        if pipeline.shadow is None and self._holds_on:
            raise ConfigError(
                f"`learners.{name}`: `consolidation` waits for promotions, and without `shadow` there are "
                f"none: give `consolidate_every`"
            )

    def _build(self) -> Learner:
        try:
            learner = learners.build(self.spec.kind, self._task, seed=self._seed, **self.spec.parameters)
        except Exception as error:  # it may be anyone's class
            what = "" if isinstance(error, PenstockError) else f"{type(error).__name__}: "
            raise ConfigError(f"`learners.{self.name}`: {what}{error}") from error
        if not isinstance(learner, Learner):
            raise ConfigError(
                f"`learners.{self.name}`: {self.spec.kind} is no learner: "
                f"see `penstock.learners.base.Learner` for the methods that it needs"
            )
        return learner

    @property
    def rivals(self) -> list[Rival]:
        """Learners that learn beside the live one."""
        return [rival for rival in (self.background, self.incumbent) if rival is not None]

    def restart(self) -> None:
        """Begin with a fresh learner; its scores so far stay what they are."""
        self._succeed(self._build(), self._next_lineage())

    def set_back(self, learner: State, lineage: int) -> None:
        """Go on from an earlier state of the same learner, and from nothing else."""
        self.learner.restore(learner)
        self._become(self.learner, lineage)
        self.incumbent = None

    def hold_on(self, version: Version) -> None:
        """Let the learner whose snapshot serves from here on hold on to that, if it was built to."""
        if not self._holds_on:
            return
        own = [(self.lineage, self.learner), *((rival.lineage, rival.learner) for rival in self.rivals)]
        for lineage, learner in own:
            if lineage == version.lineage:
                assert isinstance(learner, Consolidates)
                assert isinstance(version.model, Model)
                learner.consolidate(version.model)

    def _next_lineage(self) -> int:
        self.n_lineages += 1
        return self.n_lineages - 1

    def _succeed(self, learner: Learner, lineage: int) -> None:
        """Go on with another learner, and keep the one whose snapshot may be what serves."""
        if self.incumbent is None:
            self.incumbent = Rival(self.learner, self.lineage)
        else:  # it is the one that serves, and is compared with another one from here on
            self.incumbent = Rival(self.incumbent.learner, self.incumbent.lineage)
        self._become(learner, lineage)

    def _become(self, learner: Learner, lineage: int) -> None:
        self.learner = learner
        self.lineage = lineage
        self.recent_loss = Fading()
        self.n_recent = 0
        self.background = None
        self.reset_detectors()

    def reset_detectors(self) -> None:
        """Let detectors begin anew, as what they watch does."""
        for watched in self.watched:
            watched.detector.reset()

    def bump(self) -> None:
        """Let the learner learn faster from here on: it is the same one."""
        assert isinstance(self.learner, Hastens)
        self.learner.hasten(_BUMP)
        self.reset_detectors()

    def begin_background(self) -> None:
        """Let a fresh copy start beside the learner, unless one is under way."""
        if self.background is None:
            self.background = Rival(self._build(), self._next_lineage())

    def settle(self, serving: int | None) -> str | None:
        """Let a learner beside the live one take over, or drop it, if it is time; say so.

        Parameters
        ----------
        serving : int or None
            Lineage of what serves; None if that is of another learner.
        """
        fresh, old = self.background, self.incumbent
        if old is not None and old.lineage != serving:
            self.incumbent = old = None  # nobody waits for its weights any more
        if fresh is not None and fresh.is_better:
            self._succeed(fresh.learner, fresh.lineage)
            self.recent_loss, self.n_recent = fresh.loss, fresh.n_events
            return f"the background learner goes on in place of {self.name}: {fresh}"
        if fresh is not None and fresh.is_late:
            self.background = None
            return f"the background learner was dropped: {fresh}"
        if old is not None and old.is_late and old.is_better:
            self._become(old.learner, old.lineage)
            self.recent_loss, self.n_recent = old.loss, old.n_events
            self.incumbent = None
            return f"{self.name} goes on as if it had not been restarted: {old}"
        return None

    def keep(self, event: int) -> None:
        """Keep what an alarm may turn into a memory."""
        if self._memory is not None:
            self._memory.keep(event, self.learner)

    def recall(self, change: int, events: Batch | None, judge: Judge) -> str | None:
        """Go on from the remembered state that does best on `events`, if one does better than the learner.

        Parameters
        ----------
        change : int
            The event before the first one of the new concept.
        events : Batch or None
            The newest events, which the learner has learned: it has the advantage.
        judge : Judge

        Returns
        -------
        str or None
            What was done; None if nothing remembered is better.
        """
        memory = self._memory
        assert memory is not None
        concepts = list(memory.concepts)
        memory.end_concept(change)
        if events is None:
            return None
        best, lowest = None, _mean(judge.losses(self.learner.predict(events), events))
        live = lowest
        for concept in concepts:
            remembered = self._build()
            remembered.restore(section(concept, "learner"))
            loss = _mean(judge.losses(remembered.predict(events), events))
            if loss < lowest:
                best, lowest, chosen = remembered, loss, concept
        if best is None:
            return None
        memory.concepts = [concept for concept in memory.concepts if concept is not chosen]
        self._succeed(best, self._next_lineage())
        return (
            f"{self.name} goes on from where it was at event {_event_of(chosen):,}: loss {lowest:.4f} "
            f"against {live:.4f} on the newest {len(events):,} events"
        )

    def contender(self, n_offered: int, *, incumbent: Rival | None = None) -> Contender:
        """Return the learner, or its incumbent, as the gate sees it."""
        learner = self.learner if incumbent is None else incumbent.learner
        recent_loss, n_recent = self.recent_loss.mean, self.n_recent
        if incumbent is not None:
            recent_loss, n_recent = incumbent.loss.mean, incumbent.n_events
        return Contender(
            kind=self.spec.kind,
            lineage=self.lineage if incumbent is None else incumbent.lineage,
            recent_loss=recent_loss if n_recent >= _MIN_RECENT else math.nan,
            freeze=learner.freeze,
            live=lambda: {"n_offered": n_offered, **prefixed(learner.state(), "learner")},
            may_restart=self._may_restart,
        )

    def state(self) -> State:
        """Everything it knows."""
        state: State = {
            "lineage": self.lineage,
            "n_lineages": self.n_lineages,
            "n_recent": self.n_recent,
            **prefixed(self.recent_loss.state(), "recent_loss"),
            **prefixed(self.learner.state(), "learner"),
            **prefixed(self.metrics.state(), "metrics"),
        }
        for i, watched in enumerate(self.watched):
            state |= prefixed(watched.state(), f"watched/{i}")
        if self.background is not None:
            state |= prefixed(self.background.state(), "background")
        if self.incumbent is not None:
            state |= prefixed(self.incumbent.state(), "incumbent")
        if self._memory is not None:
            state |= prefixed(self._memory.state(), "memory")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self.lineage = int(state["lineage"])  # type: ignore[arg-type]
        self.n_lineages = int(state["n_lineages"])  # type: ignore[arg-type]
        self.n_recent = int(state["n_recent"])  # type: ignore[arg-type]
        self.recent_loss.restore(section(state, "recent_loss"))
        self.learner.restore(section(state, "learner"))
        self.metrics.restore(section(state, "metrics"))
        for i, watched in enumerate(self.watched):
            watched.restore(section(state, f"watched/{i}"))
        background, incumbent = section(state, "background"), section(state, "incumbent")
        self.background = Rival.from_state(self._build(), background) if background else None
        self.incumbent = Rival.from_state(self._build(), incumbent) if incumbent else None
        if self._memory is not None:
            self._memory.restore(section(state, "memory"))


def judged_events(width: int) -> int:
    """How many of the newest events to judge by, if the new concept is `width` events old."""
    return min(max(width, _MIN_JUDGED), _TAIL)


def _mean(losses: NDArray[np.float64]) -> float:
    return float(losses.mean()) if len(losses) else math.nan
