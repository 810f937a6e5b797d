"""The engine of bandit pipelines: policies learn from logged decisions, and the gate says which decides.

As in `penstock.engine` the log is cut at every `tick` decisions counted from the first; between ticks, and
only there, a policy may be promoted; but where an arm retires, what serves is renewed at once. No I/O, no
clock, no unseeded chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock import bandits
from penstock.bandits.base import Corrects, FrozenPolicy, Policy, Retires, exact
from penstock.bandits.off_policy import Evaluation, PolicyReport
from penstock.bandits.overlap import Overlap
from penstock.bandits.reward_model import LearnedReward
from penstock.bandits.uniform import Uniform
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord, ConfigError
from penstock.gate import Fading
from penstock.notices import Notice
from penstock.shadow import Contender, Shadow
from penstock.state import State, digest, prefixed, section
from penstock.trials import ShadowRules

__all__ = ["DEFAULT_MAX_WEIGHT", "BanditEngine", "BanditRules", "PolicySpec"]

DEFAULT_MAX_WEIGHT: Final = 20.0

_BASELINE: Final = "uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """A policy named by its kind, and the keywords to build it with."""

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditRules:
    """What a bandit pipeline is.

    Attributes
    ----------
    policies : mapping of name to PolicySpec
        The first one decides first, as soon as the gate lets it.
    shadow : ShadowRules
        Effects are on the scale of rewards divided by ``max_weight`` times their range.
    reward_range : two numbers
        Lowest and highest reward there can be; every policy that needs a range has this one.
    max_weight : float, optional
        No action may have had a logged probability below 1 / max_weight, or the gate does not judge it. The
        estimators know no bound where it is not given; the gate, which needs one, then takes
        `DEFAULT_MAX_WEIGHT`.
    estimators : sequence of str
        See `penstock.bandits.estimators`; chosen apart from how the policies learn.
    """

    policies: Mapping[str, PolicySpec]
    shadow: ShadowRules = field(default_factory=ShadowRules)
    reward_range: tuple[float, float] = (0.0, 1.0)
    max_weight: float | None = None
    estimators: Sequence[str] = ("dr", "ips", "snips")
    tick: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.policies:
            raise ConfigError("`policies`: expected at least one")
        if _BASELINE in self.policies:
            raise ConfigError(f"`policies.{_BASELINE}`: this is the name of the baseline; choose another")
        if not self.gate_weight >= 1.0:
            raise ConfigError(f"`max_weight`: expected a number >= 1, got {self.max_weight}")

    @property
    def gate_weight(self) -> float:
        """The `max_weight` that the gate goes by."""
        return DEFAULT_MAX_WEIGHT if self.max_weight is None else self.max_weight

    def evaluation(self) -> Evaluation:
        """Make what judges one policy on the log."""
        return Evaluation(self.estimators, reward_range=self.reward_range, max_weight=self.max_weight)


class _Lane:
    """One policy, what the log says about it, and how it did lately."""

    def __init__(self, name: str, rules: BanditRules) -> None:
        spec = rules.policies[name]
        self.kind = spec.kind
        parameters = bandits.with_range(spec.kind, spec.parameters, rules.reward_range)
        self.policy: Policy = bandits.build(spec.kind, seed=rules.seed, **parameters)
        self.evaluation = rules.evaluation()
        self.recent_loss = Fading()

    def contender(self) -> Contender:
        return Contender(
            kind=self.kind, lineage=0, recent_loss=self.recent_loss.mean, freeze=self.policy.freeze
        )

    def state(self) -> State:
        return {
            **prefixed(self.policy.state(), "policy"),
            **prefixed(self.evaluation.state(), "evaluation"),
            **prefixed(self.recent_loss.state(), "recent_loss"),
        }

    def restore(self, state: State) -> None:
        self.policy.restore(section(state, "policy"))
        self.evaluation.restore(section(state, "evaluation"))
        self.recent_loss.restore(section(state, "recent_loss"))


class BanditEngine:
    """Learns from logged decisions, judges policies off-policy, and decides which one decides.

    The gate compares two policies on the same logged decisions by ``w r / max_weight``, where r is the
    reward scaled to [0, 1] and w the importance weight of a policy (its probability of the logged action
    over the logged one): an unbiased estimate of what it would have earned, bounded as long as no logged
    probability is below ``1 / max_weight``. If one is, trials and the watch are abandoned when the tick ends.
    Decisions that say nothing about other actions are learned, and not compared on; see
    `penstock.bandits.overlap.Overlap`.

    Parameters
    ----------
    rules : BanditRules

    Examples
    --------
    >>> engine = BanditEngine(BanditRules(policies={"ts": PolicySpec(kind="beta_thompson")}))
    >>> offers = Offers.from_rows([{}], [["news", "sport"]])
    >>> engine.probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(self, rules: BanditRules) -> None:
        self.rules = rules
        self.n_events = 0
        self._lanes = {name: _Lane(name, rules) for name in rules.policies}
        self._baseline = Uniform()
        self._baseline_evaluation = rules.evaluation()
        self._model = LearnedReward(reward_range=rules.reward_range, seed=rules.seed)
        self._overlap = Overlap(rules.gate_weight)
        self.shadow = Shadow(
            rules.shadow, serving=next(iter(rules.policies)), load=bandits.load_policy, baseline="chance"
        )

    @property
    def serving(self) -> str:
        """Name of the policy that decides; "uniform" until the first one has been promoted."""
        return self.shadow.serving if self.shadow.model is not None else _BASELINE

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Give the distribution of the policy that decides now: frozen, or uniform before the first one.

        Raises
        ------
        ArithmeticError
            If it is not a distribution.
        """
        deciding = self.shadow.model
        pmf = (self._baseline if deciding is None else _policy(deciding)).probabilities(offers)
        return exact(pmf, offers.starts)

    def progress(self, logged: Logged) -> list[Notice]:
        """Judge every policy on each decision, then let it learn; promote wherever a tick ends.

        Raises
        ------
        BadRecord
            If a reward is outside of the declared range.
        """
        notices: list[Notice] = []
        start = 0
        while start < len(logged):
            stop = min(len(logged), start + self.rules.tick - self.n_events % self.rules.tick)
            try:
                self._learn(logged.slice(start, stop))
            except BadRecord as error:
                raise _behind(start, error) from None
            if self.n_events % self.rules.tick == 0:
                notices += self._end_tick()
            start = stop
        return notices

    def correct(self, logged: Logged, old: NDArray[np.float64], new: NDArray[np.float64]) -> bool:
        """Exchange rewards that were learned, in every policy that can; return whether all of them could.

        Estimates and the gate keep what they have: they have judged these decisions, and a test that may be
        stopped at any time cannot be told its past anew.

        Parameters
        ----------
        logged : Logged
            Decisions learned before, n of them; their rewards play no part.
        old, new : float64, shape (n,)

        Raises
        ------
        BadRecord
            If a new reward is outside of the declared range; nothing has changed then.
        """
        low, high = self.rules.reward_range
        wrong = ~((new >= low) & (new <= high))
        if wrong.any():
            raise BadRecord(f"a reward in [{low}, {high}]", float(new[np.argmax(wrong)]), path="$.reward")
        corrected = 0
        for lane in self._lanes.values():
            policy = lane.policy
            if isinstance(policy, Corrects) and policy.corrects:
                policy.correct(logged, old, new)
                corrected += 1
        return corrected == len(self._lanes)

    @property
    def retired(self) -> frozenset[str]:
        """Arms that have retired."""
        return self._overlap.retired

    def retire(self, arms: Sequence[str]) -> list[Notice]:
        """Make every policy that keeps a table of arms forget some; the others know no arm by its name.

        What was frozen before would still take them: candidates are dropped, there is no way back, and what
        serves is renewed at once.
        """
        for lane in self._lanes.values():
            if isinstance(lane.policy, Retires):
                for arm in arms:
                    lane.policy.retire(arm)
        overlap = self._overlap
        overlap.retired |= frozenset(arms)
        overlap.missing -= overlap.retired
        gone = f"{', '.join(arms)} {'has' if len(arms) == 1 else 'have'} retired"
        self.shadow.unwatch()
        notices = self.shadow.abandon(self.n_events, f"was frozen before {gone}")
        serving = self._lanes[self.shadow.serving]
        if isinstance(serving.policy, Retires):
            notices += self.shadow.renew(self.n_events, serving.contender(), gone)
        return notices

    def _learn(self, logged: Logged) -> None:
        compared = self._overlap.comparable(logged) & (logged.weights > 0.0)
        predictions = self._model.progress(logged)
        losses: dict[str, NDArray[np.float64]] = {}
        for name, lane in self._lanes.items():
            pmf = lane.policy.progress(logged)
            lane.evaluation.update(logged, pmf, predictions)
            losses[name] = self._losses(pmf, logged)[compared]
            lane.recent_loss.update(losses[name])
        pmf = self._baseline.probabilities(logged.offers)
        self._baseline_evaluation.update(logged, pmf, predictions)
        self.shadow.observe(
            losses,
            dict.fromkeys(self._lanes, 0),
            lambda: self._losses(pmf, logged)[compared],
            lambda policy: self._losses(policy.probabilities(logged.offers), logged)[compared],
        )
        self.n_events += len(logged)

    def _end_tick(self) -> list[Notice]:
        notices = self._look_at_overlap()
        contenders = {name: lane.contender() for name, lane in self._lanes.items()}
        return notices + self.shadow.end_tick(self.n_events, contenders)

    def _look_at_overlap(self) -> list[Notice]:
        """Void what was compared beyond the bound, and say so where nothing can be compared at all."""
        overlap, max_weight = self._overlap, self.rules.gate_weight
        missing = self._baseline_evaluation.never_taken(overlap.hopeless) - overlap.retired
        void = ""
        if overlap.is_broken:
            void = f"was compared on a probability below 1 / max_weight {max_weight}"
        elif news := missing - overlap.missing:
            void = f"was compared on a log that never takes {min(news)!r}"
        notices: list[Notice] = []
        if void:
            self.shadow.unwatch()
            notices = self.shadow.abandon(self.n_events, void, wait=True)
        left_out_all = overlap.n_left_out >= self.rules.tick
        if left_out_all and not overlap.is_told:
            reason = "every decision was made with probability 1"
            if overlap.missing:
                reason = f"the log never takes {min(overlap.missing)!r}"
            notices.append(
                Notice(
                    what="withheld",
                    event=self.n_events,
                    learner=self.shadow.serving,
                    how="replace",
                    text=f"no policy can be compared with what serves: {reason}",
                )
            )
        overlap.end_tick(missing, is_told=left_out_all)
        return notices

    def _losses(self, pmf: NDArray[np.float64], logged: Logged) -> NDArray[np.float64]:
        """Return 1 - w r / max_weight of each decision, in [0, 1]."""
        low, high = self.rules.reward_range
        weights = np.minimum(pmf[logged.entries] / logged.propensities, self.rules.gate_weight)
        losses: NDArray[np.float64] = 1.0 - weights * (logged.rewards - low) / (
            (high - low) * self.rules.gate_weight
        )
        return losses

    @property
    def policies(self) -> dict[str, Policy]:
        """The live policies; to be looked at only."""
        return {name: lane.policy for name, lane in self._lanes.items()}

    def reports(self, alpha: float = 0.05) -> dict[str, PolicyReport]:
        """Return what the log says about every policy, judged before it learned; last, the baseline."""
        reports = {name: lane.evaluation.report(alpha) for name, lane in self._lanes.items()}
        return {**reports, _BASELINE: self._baseline_evaluation.report(alpha)}

    def state(self) -> State:
        """Everything it knows: policies, estimates, the model of rewards, and the gate."""
        state: State = {
            "n_events": self.n_events,
            "improbable": self._overlap.is_broken,
            **prefixed(self._overlap.state(), "overlap"),
            **prefixed(self._baseline_evaluation.state(), "baseline"),
            **prefixed(self._model.state(), "model"),
            **prefixed(self.shadow.state(), "shadow"),
        }
        for name, lane in self._lanes.items():
            state |= prefixed(lane.state(), f"lanes/{name}")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from: an engine of the same rules."""
        self.n_events = int(state["n_events"])  # type: ignore[arg-type]
        self._overlap.restore(section(state, "overlap"))
        self._overlap.is_broken = bool(state["improbable"])
        self._baseline_evaluation.restore(section(state, "baseline"))
        self._model.restore(section(state, "model"))
        self.shadow.restore(section(state, "shadow"))
        for name, lane in self._lanes.items():
            lane.restore(section(state, f"lanes/{name}"))

    def digest(self) -> str:
        """Hex SHA-256 over the whole state: equal for equal rules and decisions."""
        return digest(self.state())


def _policy(frozen: object) -> FrozenPolicy:
    assert isinstance(frozen, FrozenPolicy)
    return frozen


def _behind(start: int, error: BadRecord) -> BadRecord:
    """Count events from the first that came in, not from the first of the tick."""
    return error.placed(lambda i: f"events[{start + i}]")
