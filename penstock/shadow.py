"""The gate: nothing new serves before it has been compared, on the same events, with what serves now.

Two ways lead to serving, with different burdens of proof:

- *refresh*: newer weights of the learner that serves already. Promoted on schedule, unless its live
  prequential losses, paired with those of the serving snapshot, show it worse.
- *replace*: another learner, or the same one restarted. A frozen candidate runs in shadow and serves only
  once an anytime-valid test has shown it better by a minimum effect.

All losses lie in [0, 1], all comparisons are paired, and every loss is computed before its label was
learned by the model it judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock import learners
from penstock._native.gate import fade, multiply_bets
from penstock.bandits.base import FrozenPolicy
from penstock.learners.base import Model
from penstock.notices import How, Notice
from penstock.state import State, prefixed, section

__all__ = ["Contender", "Fading", "Gate", "Losses", "Shadow", "ShadowRules"]

_N_BETS: Final = 16
_SMALLEST_BET: Final = 0.002
_RECENT: Final = (
    1.0 - 1.0 / 512
)  # decay of "lately": what has to hold still, not only on average since the start
_FUTILITY_ALPHA: Final = 0.05  # a candidate is dropped once shown, at this level, to miss the minimum effect


Frozen: TypeAlias = "Model | FrozenPolicy"
Losses: TypeAlias = "Callable[[Any], NDArray[np.float64]]"
"""From a frozen model or policy to its losses in [0, 1] on the events at hand, shape (n,)."""


class Fading:
    """Mean of a stream of numbers in which older ones count exponentially less (Gama et al. 2013)."""

    def __init__(self, decay: float = _RECENT) -> None:
        self._decay = decay
        self._total = 0.0
        self._weight = 0.0

    def update(self, values: NDArray[np.float64]) -> None:
        """Take `values`, shape (n,), in stream order."""
        self._total, self._weight = fade(self._total, self._weight, self._decay, values)

    @property
    def mean(self) -> float:
        """The fading mean; NaN before the first value."""
        return self._total / self._weight if self._weight else math.nan

    def state(self) -> State:
        """Everything it knows."""
        return {"total": self._total, "weight": self._weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._total, self._weight = float(state["total"]), float(state["weight"])


class Gate:
    """Anytime-valid one-sided test of whether the average gain so far is above `delta`.

    Sixteen gamblers each bet a constant fraction on ``gain - delta``; their average wealth is an e-process.
    Under the hypothesis that the average conditional gain never exceeded `delta`, the probability that the
    wealth *ever* reaches 1 / alpha is at most alpha: it may be looked at after every event, and the test
    stopped at any time. No assumption is made on independence or stationarity.

    Parameters
    ----------
    delta : float, in (-1, 1)
        The gain that has to be exceeded.

    References
    ----------
    Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS-B 86(1).
    Choe and Ramdas (2024), Comparing sequential forecasters, Operations Research 72(4), for the weak null.

    Examples
    --------
    >>> gate = Gate(delta=0.0)
    >>> gate.update(np.full(200, 0.1))
    >>> gate.log_e > math.log(1 / 0.05)
    True
    """

    def __init__(self, *, delta: float) -> None:
        if not -1.0 < delta < 1.0:
            raise ValueError(f"expected delta in (-1, 1), got {delta}")
        self.delta = delta
        # A factor is at least 1 - 0.5 (1 + delta) / (1 + |delta|) >= 0.5: one bad event ruins nobody.
        self._bets = np.geomspace(_SMALLEST_BET, 0.5 / (1.0 + abs(delta)), _N_BETS)
        self._mantissa = np.ones(_N_BETS)
        self._exponent = np.zeros(_N_BETS, dtype=np.int64)
        self.n_events = 0
        self._sum = 0.0

    def update(self, gains: NDArray[np.float64]) -> None:
        """Take paired gains, each in [-1, 1], shape (n,), in stream order."""
        multiply_bets(self._mantissa, self._exponent, self._bets, gains - self.delta)
        self.n_events += len(gains)
        # cumsum adds one after the other; sum would add in pairs, and depend on where the stream was cut
        self._sum = float(np.cumsum(np.concatenate(([self._sum], gains)))[-1])

    @property
    def log_e(self) -> float:
        """Natural logarithm of the wealth, averaged over the gamblers."""
        logs = np.log(self._mantissa) + self._exponent * math.log(2.0)
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).mean()))

    @property
    def mean_gain(self) -> float:
        """Average gain over the events taken; 0.0 before the first."""
        return self._sum / self.n_events if self.n_events else 0.0

    def state(self) -> State:
        """Everything needed to go on with the test."""
        return {
            "mantissa": self._mantissa.copy(),
            "exponent": self._exponent.copy(),
            "n_events": self.n_events,
            "sum": self._sum,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from; `delta` is the constructor's."""
        self._mantissa = np.array(state["mantissa"], dtype=np.float64)
        self._exponent = np.array(state["exponent"], dtype=np.int64)
        self.n_events = int(state["n_events"])
        self._sum = float(state["sum"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRules:
    """What the gate demands.

    Attributes
    ----------
    refresh_every : int
        Events between two scheduled refreshes.
    alpha : float
        Bound on the probability that *any* replacement in the pipeline's life is a mistake: the j-th
        candidate is tested at ``alpha * 6 / (pi * j)**2``, and these add up to alpha.
    min_effect : float
        By how much a replacement must lower the mean loss (on the [0, 1] scale), and by how much a
        refresh may raise it before that counts as worse.
    max_events : int
        A candidate that has not been shown better by then is dropped.
    retry_after : int
        Events after a rejection during which no new candidate is opened.
    """

    refresh_every: int = 1000
    alpha: float = 0.05
    min_effect: float = 0.005
    max_events: int = 20000
    retry_after: int = 2000

    def alpha_of_attempt(self, attempt: int) -> float:
        """Error budget of the `attempt`-th candidate (from 1)."""
        return self.alpha * 6.0 / (math.pi * attempt) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A live learner as the gate sees it at the end of a tick.

    Attributes
    ----------
    kind : str
        Registry name, to load its models by.
    lineage : int
        Changes when the learner is restarted: older snapshots are then no longer its own.
    recent_loss : float
        Fading mean of its prequential losses since its lineage began; NaN while too young to try.
    freeze : callable
        Makes the model.
    """

    kind: str
    lineage: int
    recent_loss: float
    freeze: Callable[[], Frozen]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """A frozen model, and where it came from."""

    version: int
    learner: str
    kind: str
    lineage: int
    opened: int  # events seen when it was frozen
    model: Frozen

    def state(self) -> State:
        return {
            "version": self.version,
            "learner": self.learner,
            "kind": self.kind,
            "lineage": self.lineage,
            "opened": self.opened,
            **prefixed(self.model.state(), "model"),
        }

    @classmethod
    def from_state(cls, state: State, load: Callable[[str, State], Frozen]) -> _Version:
        kind = str(state["kind"])
        return cls(
            version=int(state["version"]),  # type: ignore[arg-type]
            learner=str(state["learner"]),
            kind=kind,
            lineage=int(state["lineage"]),  # type: ignore[arg-type]
            opened=int(state["opened"]),  # type: ignore[arg-type]
            model=load(kind, section(state, "model")),
        )


class Shadow:
    """Decides what serves. Watches events as they are learned; acts only at the end of a tick.

    Parameters
    ----------
    rules : ShadowRules
    serving : str
        The learner that serves first.
    load : callable
        Rebuilds a frozen model from its kind and state.
    baseline : str
        What the first snapshot is compared with, for people.
    """

    def __init__(
        self,
        rules: ShadowRules,
        *,
        serving: str,
        load: Callable[[str, State], Frozen] = learners.load_model,
        baseline: str = "the label frequencies",
    ) -> None:
        self.rules = rules
        self._load = load
        self._baseline = baseline
        self._first = serving
        self._serving: _Version | None = None
        self._candidate: _Version | None = None
        self._n_versions = 0
        self._n_promotions = 0
        self._n_attempts = 0  # candidates opened so far: each spends a part of alpha
        self._next_refresh = rules.refresh_every
        self._not_before = 0  # no candidate is opened before this event
        self._serving_loss = Fading()
        self._start_comparison()
        self._start_trial()

    def _start_comparison(self) -> None:
        """Begin to ask anew whether the live learner is worse than what serves."""
        self._worse = Gate(delta=self.rules.min_effect)

    def _start_trial(self) -> None:
        """Begin to ask whether the candidate is better than what serves by the minimum effect."""
        self._better = Gate(delta=self.rules.min_effect)
        self._futile = Gate(delta=-self.rules.min_effect)
        self._recent_gain = Fading()

    @property
    def serving(self) -> str:
        """Name of the learner that serves, or is to serve first."""
        return self._serving.learner if self._serving else self._first

    @property
    def model(self) -> Frozen | None:
        """What serves; None before the first promotion."""
        return self._serving.model if self._serving else None

    @property
    def trial(self) -> tuple[int, float] | None:
        """Of the candidate in shadow: its version, and the log e-value so far."""
        return (self._candidate.version, self._better.log_e) if self._candidate else None

    @property
    def _threshold(self) -> float:
        return -math.log(self.rules.alpha_of_attempt(max(self._n_attempts, 1)))

    def observe(
        self,
        live: Mapping[str, NDArray[np.float64]],
        lineages: Mapping[str, int],
        prior: NDArray[np.float64],
        losses: Losses,
    ) -> None:
        """Compare on n events that were just scored and learned by the live learners.

        Parameters
        ----------
        live : mapping of learner to float64, shape (n,)
            Prequential losses of the live learners on these events.
        lineages : mapping of learner to int
        prior : float64, shape (n,)
            Losses of the baseline that knows nothing of the features: what the very first snapshot has to
            be compared with.
        losses : callable
            Scores a frozen model on these events.
        """
        champion = prior if self._serving is None else losses(self._serving.model)
        self._serving_loss.update(champion)
        if self._serving is None or lineages[self._serving.learner] == self._serving.lineage:
            self._worse.update(live[self.serving] - champion)
        if self._candidate is not None:
            gains = champion - losses(self._candidate.model)
            self._better.update(gains)
            self._futile.update(-gains)
            self._recent_gain.update(gains)

    def end_tick(self, event: int, contenders: Mapping[str, Contender]) -> list[Notice]:
        """Judge, promote, refresh, open: in this order, at most one of each.

        Parameters
        ----------
        event : int
            Events seen so far.
        contenders : mapping of learner to Contender
            Every live learner.
        """
        notices = self._judge(event)
        if not notices:
            notices += self._refresh(event, contenders)
        if self._serving is not None and self._candidate is None and event >= self._not_before:
            notices += self._open(event, contenders)
        return notices

    def new_epoch(self, event: int) -> list[Notice]:
        """Take note that the world has changed: a learner was restarted.

        What was frozen before the change is no candidate any more, what serves is judged by what it does
        from here on, and the next candidate need not wait.
        """
        self._serving_loss = Fading()
        self._not_before = event
        return self.abandon(event, "was frozen before the change")

    def abandon(self, event: int, reason: str) -> list[Notice]:
        """Drop the candidate, if there is one: stopping early never makes a false promotion likelier."""
        return [] if self._candidate is None else [self._reject(event, reason)]

    def _judge(self, event: int) -> list[Notice]:
        candidate = self._candidate
        if candidate is None:
            return []
        if self._better.log_e >= self._threshold and self._recent_gain.mean > self.rules.min_effect:
            self._candidate = None
            evidence = self._evidence(self._better, self._threshold)
            text = (
                f"{candidate.learner} v{candidate.version} was better by {self._better.mean_gain:.4f} "
                f"on {self._better.n_events:,} shadowed events"
            )
            return [self._promote(candidate, event, "replace", text, evidence, stored=True)]
        if self._futile.log_e >= -math.log(_FUTILITY_ALPHA):
            reason = f"was shown not to be better by {self.rules.min_effect}"
        elif self._better.n_events >= self.rules.max_events:
            reason = f"was not shown to be better within {self.rules.max_events:,} events"
        else:
            return []
        self._not_before = event + self.rules.retry_after
        return [self._reject(event, reason)]

    def _reject(self, event: int, reason: str) -> Notice:
        candidate = self._candidate
        assert candidate is not None
        self._candidate = None
        return Notice(
            what="rejected",
            event=event,
            learner=candidate.learner,
            version=candidate.version,
            how="replace",
            text=f"{candidate.learner} v{candidate.version} {reason} (gain {self._better.mean_gain:+.4f} "
            f"on {self._better.n_events:,} events)",
            evidence=self._evidence(self._better, self._threshold),
        )

    def _refresh(self, event: int, contenders: Mapping[str, Contender]) -> list[Notice]:
        if event < self._next_refresh:
            return []
        self._next_refresh = event + self.rules.refresh_every
        name = self.serving
        contender = contenders[name]
        if self._serving is not None and contender.lineage != self._serving.lineage:
            return []  # restarted since: no longer newer weights of the same model, so it has to replace
        threshold = -math.log(self.rules.alpha)
        evidence = self._evidence(self._worse, threshold)
        how: How = "initial" if self._serving is None else "refresh"
        against = self._baseline if self._serving is None else f"v{self._serving.version}"
        gain = -self._worse.mean_gain
        worse = self._worse.log_e >= threshold
        n_events = self._worse.n_events
        self._start_comparison()
        if worse:
            text = f"{name} was shown worse than {against} by {-gain:.4f} on {n_events:,} events"
            return [Notice(what="withheld", event=event, learner=name, how=how, text=text, evidence=evidence)]
        text = f"{name} against {against}: gain {gain:+.4f} on {n_events:,} events, not shown worse"
        return [self._promote(self._version(name, contender, event), event, how, text, evidence)]

    def _open(self, event: int, contenders: Mapping[str, Contender]) -> list[Notice]:
        """Freeze the most promising contender, if any looks better than what serves has looked lately.

        Only a choice of whom to test: the verdict rests on later events alone.
        """
        serving = self._serving
        promising = [
            (contender.recent_loss, name)
            for name, contender in contenders.items()
            if contender.recent_loss < self._serving_loss.mean - self.rules.min_effect
            and not (serving and name == serving.learner and contender.lineage == serving.lineage)
        ]
        if not promising:
            return []
        recent_loss, name = min(promising)
        self._n_attempts += 1
        self._candidate = candidate = self._version(name, contenders[name], event)
        self._start_trial()
        return [
            Notice(
                what="opened",
                event=event,
                learner=name,
                version=candidate.version,
                parent=serving.version if serving else None,
                how="replace",
                text=f"{name} v{candidate.version} enters the shadow: recent loss {recent_loss:.4f} against "
                f"{self._serving_loss.mean:.4f} of what serves",
                evidence={
                    "attempt": self._n_attempts,
                    "alpha": self.rules.alpha_of_attempt(self._n_attempts),
                    "threshold": self._threshold,
                },
                kind=candidate.kind,
                model=candidate.model,
            )
        ]

    def _version(self, name: str, contender: Contender, event: int) -> _Version:
        self._n_versions += 1
        return _Version(
            version=self._n_versions,
            learner=name,
            kind=contender.kind,
            lineage=contender.lineage,
            opened=event,
            model=contender.freeze(),
        )

    def _promote(
        self,
        version: _Version,
        event: int,
        how: How,
        text: str,
        evidence: Mapping[str, Any],
        *,
        stored: bool = False,
    ) -> Notice:
        parent = self._serving.version if self._serving else None
        if how != "refresh":
            self._serving_loss = Fading()  # what served before says nothing about this learner
        self._serving = version
        self._n_promotions += 1
        self._next_refresh = event + self.rules.refresh_every
        self._start_comparison()
        return Notice(
            what="promoted",
            event=event,
            learner=version.learner,
            version=version.version,
            parent=parent,
            how=how,
            sequence=self._n_promotions,
            text=text,
            evidence=evidence,
            kind=version.kind,
            model=None if stored else version.model,
        )

    def _evidence(self, gate: Gate, threshold: float) -> dict[str, Any]:
        return {
            "log_e": gate.log_e,
            "threshold": threshold,
            "events": gate.n_events,
            "gain": gate.mean_gain,
            "delta": gate.delta,
        }

    def state(self) -> State:
        """Everything it knows, models included."""
        state: State = {
            "n_versions": self._n_versions,
            "n_promotions": self._n_promotions,
            "n_attempts": self._n_attempts,
            "next_refresh": self._next_refresh,
            "not_before": self._not_before,
            **prefixed(self._serving_loss.state(), "serving_loss"),
            **prefixed(self._recent_gain.state(), "recent_gain"),
            **prefixed(self._worse.state(), "worse"),
            **prefixed(self._better.state(), "better"),
            **prefixed(self._futile.state(), "futile"),
        }
        if self._serving is not None:
            state |= prefixed(self._serving.state(), "serving")
        if self._candidate is not None:
            state |= prefixed(self._candidate.state(), "candidate")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        counts = {name: int(state[name]) for name in _COUNTS}  # type: ignore[arg-type]
        self._n_versions, self._n_promotions, self._n_attempts = (counts[name] for name in _COUNTS[:3])
        self._next_refresh, self._not_before = (counts[name] for name in _COUNTS[3:])
        self._serving_loss.restore(section(state, "serving_loss"))
        self._recent_gain.restore(section(state, "recent_gain"))
        self._worse.restore(section(state, "worse"))
        self._better.restore(section(state, "better"))
        self._futile.restore(section(state, "futile"))
        serving, candidate = section(state, "serving"), section(state, "candidate")
        self._serving = _Version.from_state(serving, self._load) if serving else None
        self._candidate = _Version.from_state(candidate, self._load) if candidate else None


_COUNTS: Final = ("n_versions", "n_promotions", "n_attempts", "next_refresh", "not_before")
