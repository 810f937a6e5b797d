"""Comparisons that decide what serves: the trial of a candidate, and the watch over what was promoted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.base import FrozenPolicy
from penstock.gate import ChangeGate, Fading, Gate
from penstock.learners.base import Model
from penstock.state import State, prefixed, section

__all__ = [
    "Frozen",
    "Guard",
    "Losses",
    "RollbackRules",
    "ShadowRules",
    "Trial",
    "Version",
    "Watch",
    "evidence_of",
]

_FUTILITY_ALPHA: Final = 0.05  # a candidate is dropped once shown, at this level, to miss the minimum effect
_INTERVAL_ALPHA: Final = 0.05  # of the interval that is shown beside a gain; no verdict rests on it


Frozen: TypeAlias = "Model | FrozenPolicy"
Losses: TypeAlias = "Callable[[Any], NDArray[np.float64]]"
"""From a frozen model or policy to its losses in [0, 1] on the events at hand, shape (n,); or, with guards,
(1 + guards, n): NaN where an event is none of a guard's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A second loss that must not get worse.

    Attributes
    ----------
    name : str
    margin : float, in [0, 1)
        A replacement has to be *shown* not to raise the mean of this loss by as much; what serves is taken
        back if it is shown to have raised it by more.
    """

    name: str
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRules:
    """When what serves is taken back.

    Attributes
    ----------
    alpha : float
        Bound on the probability that *any* rollback in the pipeline's life is a mistake; spent as
        `ShadowRules.alpha_of_attempt` says, a part for each watch.
    margin : float
        By how much the mean loss has to have risen, at least.
    watch_events : int
        Events for which a fallback is kept. After that, the next promotion brings a newer one.
    relearn : bool
        Whether the learner that is set back to the fallback learns, of the events since, those that the
        replay buffer still holds.
    """

    alpha: float = 0.05
    margin: float = 0.0
    watch_events: int = 10000
    relearn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRules:
    """What the gate demands.

    Attributes
    ----------
    refresh_every : int
        Events between two scheduled refreshes.
    refresh_margin : float or None
        By how much a refresh may raise the mean loss before that counts as worse; None: `min_effect`.
    alpha : float
        Bound on the probability that *any* replacement in the pipeline's life is a mistake: the j-th
        candidate is tested at ``alpha * 6 / (pi * j)**2``, and these add up to alpha.
    min_effect : float
        By how much a replacement must lower the mean loss (on the [0, 1] scale). The learner that serves,
        where it was restarted, need only be shown not to raise it by the refresh margin.
    max_events : int
        A candidate that has not been shown better by then is dropped.
    retry_after : int
        Events after a rejection during which its learner is not tried again.
    challengers : int
        Candidates in shadow at the same time, of as many learners.
    guards : tuple of Guard
    rollback : RollbackRules or None
        None: what serves is never taken back.
    max_age : int or None
        Events after which it is reported that what serves has not been renewed.
    """

    refresh_every: int = 1000
    refresh_margin: float | None = None
    alpha: float = 0.05
    min_effect: float = 0.005
    max_events: int = 20000
    retry_after: int = 2000
    challengers: int = 1
    guards: tuple[Guard, ...] = ()
    rollback: RollbackRules | None = RollbackRules()
    max_age: int | None = None

    def alpha_of_attempt(self, attempt: int) -> float:
        """Error budget of the `attempt`-th candidate (from 1)."""
        return _share(self.alpha, attempt)


def _share(alpha: float, attempt: int) -> float:
    """Part of `alpha` for the `attempt`-th (from 1) of any number of tests: all parts add up to it."""
    return alpha * 6.0 / (math.pi * attempt) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A frozen model, and where it came from."""

    version: int
    learner: str
    kind: str
    lineage: int
    opened: int  # events seen when it was frozen
    model: Frozen
    live: State | None = None  # of the learner when it was frozen, where somebody may go back there

    def state(self) -> State:
        """Everything it is."""
        return {
            "version": self.version,
            "learner": self.learner,
            "kind": self.kind,
            "lineage": self.lineage,
            "opened": self.opened,
            **prefixed(self.model.state(), "model"),
            **({} if self.live is None else prefixed(self.live, "live")),
        }

    @classmethod
    def from_state(cls, state: State, load: Callable[[str, State], Frozen]) -> Version:
        """Build it again; `load` makes the model."""
        kind = str(state["kind"])
        return cls(
            version=int(state["version"]),  # type: ignore[arg-type]
            learner=str(state["learner"]),
            kind=kind,
            lineage=int(state["lineage"]),  # type: ignore[arg-type]
            opened=int(state["opened"]),  # type: ignore[arg-type]
            model=load(kind, section(state, "model")),
            live=section(state, "live") or None,
        )


class Trial:
    """Asks whether a candidate gains more than `delta` on what serves, and is worse nowhere."""

    def __init__(self, rules: ShadowRules, candidate: Version, attempt: int, delta: float) -> None:
        self.rules = rules
        self.candidate = candidate
        self.attempt = attempt
        self.threshold = -math.log(rules.alpha_of_attempt(attempt))
        self.better = Gate(delta=delta)
        self._futile = Gate(delta=-delta)
        self._recent_gain = Fading()
        self._guards = [(guard, Gate(delta=-guard.margin)) for guard in rules.guards]

    def update(self, gains: NDArray[np.float64]) -> None:
        """Take gains, shape (1 + guards, n)."""
        self.better.update(gains[0])
        self._futile.update(-gains[0])
        self._recent_gain.update(gains[0])
        for (_, gate), values in zip(self._guards, gains[1:], strict=True):
            gate.update(_of_guard(values))

    @property
    def passed(self) -> bool:
        """Whether it may serve. Each test is at the level of this attempt: all of them have to pass."""
        return (
            self.better.log_e >= self.threshold
            and self._recent_gain.mean > self.better.delta
            and all(gate.log_e >= self.threshold for _, gate in self._guards)
        )

    @property
    def failed(self) -> str | None:
        """Why it is to be dropped; None while it may go on."""
        if self._futile.log_e >= -math.log(_FUTILITY_ALPHA):
            return f"was shown {self._missed}"
        if self.better.n_events < self.rules.max_events:
            return None
        within = f"within {self.rules.max_events:,} events"
        if self.better.log_e < self.threshold:
            what = "better" if self.better.delta >= 0.0 else "as good"
            return f"was not shown to be {what} {within}"
        unproven = [guard.name for guard, gate in self._guards if gate.log_e < self.threshold]
        if unproven:
            return f"was better, but not shown harmless to {', '.join(unproven)} {within}"
        return f"was better on average, but not lately, {within}"

    @property
    def _missed(self) -> str:
        delta = self.better.delta
        return f"not to be better by {delta}" if delta >= 0.0 else f"to be worse by {-delta}"

    def evidence(self) -> dict[str, Any]:
        """Return the numbers behind the verdict; plain JSON."""
        found = {"attempt": self.attempt, **evidence_of(self.better, self.threshold)}
        if self._guards:
            found["guards"] = {guard.name: evidence_of(gate, self.threshold) for guard, gate in self._guards}
        return found

    def state(self) -> State:
        """Everything needed to go on with the trial."""
        state: State = {
            "attempt": self.attempt,
            "delta": self.better.delta,
            **prefixed(self.candidate.state(), "candidate"),
            **prefixed(self.better.state(), "better"),
            **prefixed(self._futile.state(), "futile"),
            **prefixed(self._recent_gain.state(), "recent_gain"),
        }
        for i, (_, gate) in enumerate(self._guards):
            state |= prefixed(gate.state(), f"guards/{i}")
        return state

    @classmethod
    def from_state(cls, rules: ShadowRules, state: State, load: Callable[[str, State], Frozen]) -> Trial:
        """Build it again; `load` makes the model."""
        candidate = Version.from_state(section(state, "candidate"), load)
        attempt, delta = int(state["attempt"]), float(state["delta"])  # type: ignore[arg-type]
        trial = cls(rules, candidate, attempt, delta)
        trial.better.restore(section(state, "better"))
        trial._futile.restore(section(state, "futile"))
        trial._recent_gain.restore(section(state, "recent_gain"))
        for i, (_, gate) in enumerate(trial._guards):
            gate.restore(section(state, f"guards/{i}"))
        return trial


class Watch:
    """Asks whether what serves has become worse than the fallback: since its promotion, or lately."""

    def __init__(self, rules: ShadowRules, how: RollbackRules, fallback: Version, number: int) -> None:
        self.fallback = fallback
        self.number = number
        self._how = how
        # Any one of them takes it back, so they share the level.
        self.threshold = -math.log(_share(how.alpha, number) / (1 + len(rules.guards)))
        self._gates = {"loss": ChangeGate(delta=how.margin)} | {
            guard.name: ChangeGate(delta=guard.margin) for guard in rules.guards
        }

    def update(self, harm: NDArray[np.float64]) -> None:
        """Take by how much more what serves lost than the fallback, shape (1 + guards, n)."""
        for i, gate in enumerate(self._gates.values()):
            gate.update(_of_guard(harm[i]) if i else harm[0])

    @property
    def n_events(self) -> int:
        """Events compared so far."""
        return self._gates["loss"].n_events

    @property
    def log_e(self) -> float:
        """Logarithm of the evidence, so far, that the loss has risen."""
        return self._gates["loss"].log_e

    @property
    def is_over(self) -> bool:
        """Whether the fallback has been kept for long enough."""
        return self.n_events >= self._how.watch_events

    def verdict(self) -> tuple[str, dict[str, Any]] | None:
        """Name the loss that was shown to be worse, and the evidence; None if none was."""
        for name, gate in self._gates.items():
            if gate.log_e >= self.threshold:
                evidence = {"on": name, "watch": self.number, **evidence_of(gate, self.threshold)}
                n_events, harm = gate.lately
                return name, {**evidence, "gain": -harm, "events": n_events, "watched": gate.n_events}
        return None

    def state(self) -> State:
        """Everything needed to go on with the watch."""
        state: State = {"number": self.number, **prefixed(self.fallback.state(), "fallback")}
        for i, gate in enumerate(self._gates.values()):
            state |= prefixed(gate.state(), f"gates/{i}")
        return state

    @classmethod
    def from_state(
        cls, rules: ShadowRules, how: RollbackRules, state: State, load: Callable[[str, State], Frozen]
    ) -> Watch:
        """Build it again; `load` makes the model."""
        fallback = Version.from_state(section(state, "fallback"), load)
        watch = cls(rules, how, fallback, int(state["number"]))  # type: ignore[arg-type]
        for i, gate in enumerate(watch._gates.values()):
            gate.restore(section(state, f"gates/{i}"))
        return watch


def _of_guard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out the events that are none of a guard's."""
    known = ~np.isnan(values)
    return values if known.all() else values[known]


def evidence_of(gate: Gate | ChangeGate, threshold: float) -> dict[str, Any]:
    """Return the numbers behind a verdict of `gate`; plain JSON."""
    evidence = {
        "log_e": gate.log_e,
        "threshold": threshold,
        "events": gate.n_events,
        "gain": gate.mean_gain,
        "delta": gate.delta,
    }
    if isinstance(gate, Gate) and gate.n_events:
        interval = gate.interval(_INTERVAL_ALPHA)
        evidence |= {"lower": interval.lower, "upper": interval.upper}
    return evidence
