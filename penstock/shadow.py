"""What serves, what may replace it, and the way back.

Two ways lead to serving, with different burdens of proof:

- *refresh*: newer weights of the learner that serves already. Promoted on schedule, unless its live
  prequential losses, paired with those of the serving snapshot, show it worse.
- *replace*: another learner, or the same one restarted. A frozen candidate runs in shadow and serves only
  once an anytime-valid test has shown it better by a minimum effect, and no guard worse than its margin.
  The same learner restarted has to be shown no worse than by the margin of a refresh, which it then is.

One way leads back: what served before is kept as the *fallback* and goes on being scored. If what serves
is shown worse than it, it serves again.

All losses lie in [0, 1], all comparisons are paired, and every loss is computed before its label was
learned by the model it judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock import learners
from penstock.gate import Fading, Gate
from penstock.notices import How, Notice, What
from penstock.state import State, prefixed, section
from penstock.trials import Frozen, Losses, ShadowRules, Trial, Version, Watch, evidence_of

__all__ = ["Contender", "Harm", "Shadow"]

Harm: TypeAlias = "Callable[[Frozen, Frozen], str | None]"


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
    live : callable or None
        Gives the learner's whole state, to set it back to later; None if it cannot be.
    may_restart : bool
        Whether a drift may make another lineage of it, which then may replace what serves at any time.
    """

    kind: str
    lineage: int
    recent_loss: float
    freeze: Callable[[], Frozen]
    live: Callable[[], State] | None = None
    may_restart: bool = False


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
    harm : callable, optional
        Asked of what would be promoted, and what serves: why not, or None if nothing speaks against it.
    """

    def __init__(
        self,
        rules: ShadowRules,
        *,
        serving: str,
        load: Callable[[str, State], Frozen] = learners.load_model,
        baseline: str = "the label frequencies",
        harm: Harm | None = None,
    ) -> None:
        self.rules = rules
        self._load = load
        self._baseline = baseline
        self._harm = harm
        self._first = serving
        self._serving: Version | None = None
        self._trials: list[Trial] = []
        self._watch: Watch | None = None
        self._n_versions = 0
        self._n_promotions = 0
        self._n_attempts = 0  # candidates opened so far: each spends a part of alpha
        self._n_watches = 0  # begun so far: each spends a part of the rollback's alpha
        self._next_refresh = rules.refresh_every
        self._not_before: dict[str, int] = {}  # learner to the event before which it is not tried again
        self._renewed = 0  # event of the last promotion, or of the last report of its age
        self._serving_loss = Fading()
        self._start_comparison()

    def _start_comparison(self) -> None:
        """Begin to ask anew whether the live learner is worse than what serves."""
        self._worse = Gate(delta=self._refresh_margin)

    @property
    def _refresh_margin(self) -> float:
        margin = self.rules.refresh_margin
        return self.rules.min_effect if margin is None else margin

    def _gain_wanted(self, learner: str) -> float:
        """Return what a candidate has to gain: less than nothing if it is what serves, restarted."""
        same = self._serving is not None and learner == self._serving.learner
        return -self._refresh_margin if same else self.rules.min_effect

    @property
    def serving(self) -> str:
        """Name of the learner that serves, or is to serve first."""
        return self._serving.learner if self._serving else self._first

    @property
    def model(self) -> Frozen | None:
        """What serves; None before the first promotion."""
        return self._serving.model if self._serving else None

    @property
    def next_refresh(self) -> int:
        """Events seen when the tick that ends next is to bring newer weights."""
        return self._next_refresh

    @property
    def trials(self) -> dict[int, float]:
        """Of the candidates in shadow: version to log e-value so far."""
        return {trial.candidate.version: trial.better.log_e for trial in self._trials}

    @property
    def watch(self) -> tuple[float, float] | None:
        """Of the watch: log e-value, so far, of a loss that has risen, and its threshold."""
        return None if self._watch is None else (self._watch.log_e, self._watch.threshold)

    @property
    def serving_version(self) -> Version | None:
        """What serves, and where it came from; None before the first promotion."""
        return self._serving

    @property
    def fallback(self) -> Version | None:
        """What would serve again if what serves were shown worse; None if there is no such thing."""
        return self._watch.fallback if self._watch else None

    def observe(
        self,
        live: Mapping[str, NDArray[np.float64]],
        lineages: Mapping[str, int],
        prior: Callable[[], NDArray[np.float64]],
        losses: Losses,
    ) -> None:
        """Compare on n events that were just scored and learned by the live learners.

        Parameters
        ----------
        live : mapping of learner to float64, shape (n,)
            Prequential losses of the live learners on these events.
        lineages : mapping of learner to int
        prior : callable
            Gives the losses, shape (n,), of the baseline that knows nothing of the features: what the very
            first snapshot has to be compared with.
        losses : callable
            Scores a frozen model on these events.
        """
        if self._serving is None:
            baseline = prior()
            self._serving_loss.update(baseline)
            self._worse.update(live[self.serving] - baseline)
            return
        champion = losses(self._serving.model)
        if champion.ndim == 1:
            champion = champion[np.newaxis]
        self._serving_loss.update(champion[0])
        if lineages[self._serving.learner] == self._serving.lineage:
            self._worse.update(live[self.serving] - champion[0])
        for trial in self._trials:
            trial.update(champion - losses(trial.candidate.model))
        if self._watch is not None:
            self._watch.update(champion - losses(self._watch.fallback.model))

    def end_tick(
        self, event: int, contenders: Mapping[str, Contender], incumbent: Contender | None = None
    ) -> list[Notice]:
        """Take back, or else judge, or else refresh; then open what is promising.

        Parameters
        ----------
        event : int
            Events seen so far.
        contenders : mapping of learner to Contender
            Every live learner.
        incumbent : Contender, optional
            Where the learner that serves was restarted: the one from before, which goes on for the sake of
            newer weights.
        """
        renewing = contenders[self.serving] if incumbent is None else incumbent
        notices = self._take_back(event) or self._judge(event) or self._refresh(event, renewing)
        if self._serving is not None:
            notices += self._open(event, contenders)
            notices += self._look_at_age(event)
        shadowed = tuple(trial.candidate.version for trial in self._trials)
        return [replace(notice, shadowed=shadowed) for notice in notices] if shadowed else notices

    def new_epoch(self, event: int) -> list[Notice]:
        """Take note that the world has changed: a learner was restarted.

        What was frozen before the change is no candidate any more, what serves is judged by what it does
        from here on, and the next candidate need not wait.
        """
        self._serving_loss = Fading()
        self._not_before.clear()
        return self.abandon(event, "was frozen before the change")

    def renewed(self, learner: str) -> None:
        """Take note that `learner` goes on as another lineage, whose first candidate need not wait."""
        self._not_before.pop(learner, None)

    def abandon(self, event: int, reason: str, *, wait: bool = False) -> list[Notice]:
        """Drop all candidates: stopping early never makes a false promotion likelier.

        With `wait` their learners are not tried again at once.
        """
        trials, self._trials = self._trials, []
        if wait:
            self._not_before |= {trial.candidate.learner: event + self.rules.retry_after for trial in trials}
        return [_rejected(trial, event, reason) for trial in trials]

    def unwatch(self) -> None:
        """Stop comparing what serves with what served before; that never makes an error likelier."""
        self._watch = None

    def renew(self, event: int, contender: Contender, reason: str) -> list[Notice]:
        """Let what the serving learner knows now serve at once, whatever the evidence, and unwatched.

        For when what serves must not serve any longer, nor come back: the new version has no parent, so that
        a rollback by hand does not lead there either.
        """
        if self._serving is None:
            return []
        self.unwatch()
        name = self._serving.learner
        text = f"{name} serves anew, as {reason}"
        notice = self._serve(self._version(name, contender, event), event, "promoted", "refresh", text, {})
        return [replace(notice, parent=None)]

    def _take_back(self, event: int) -> list[Notice]:
        watch, bad = self._watch, self._serving
        found = watch.verdict() if watch is not None else None
        if watch is None or bad is None or found is None:
            return []
        what, evidence = found
        good = watch.fallback
        self._watch = None
        self._not_before[bad.learner] = event + self.rules.retry_after
        notices = self.abandon(event, f"was compared with v{bad.version}, which was taken back")
        text = (
            f"{good.learner} v{good.version} serves again: v{bad.version} was shown worse on {what} by "
            f"{-evidence['gain']:.4f} over the last {evidence['events']:,} of {evidence['watched']:,} events"
        )
        notices.append(self._serve(good, event, "rolled_back", "rollback", text, evidence))
        return notices

    def _judge(self, event: int) -> list[Notice]:
        if not self._trials:
            return []
        best = max(
            (trial for trial in self._trials if trial.passed),
            key=lambda trial: trial.better.log_e - trial.threshold,
            default=None,
        )
        if best is not None:
            self._trials.remove(best)
            candidate = best.candidate
            if (harm := self._harm_of(candidate)) is not None:
                self._not_before[candidate.learner] = event + self.rules.retry_after
                return [_rejected(best, event, f"was better, but {harm}")]
            gain = best.better.mean_gain
            text = (
                f"{candidate.learner} v{candidate.version} was "
                f"{'better' if gain >= 0.0 else 'worse, within the margin,'} by {abs(gain):.4f} "
                f"on {best.better.n_events:,} shadowed events"
            )
            before = self._serving
            promoted = self._promote(candidate, event, "replace", text, best.evidence())
            reason = f"was compared with {f'v{before.version}' if before else 'chance'}, which serves no more"
            return [replace(promoted, model=None), *self.abandon(event, reason)]
        notices = []
        for trial in list(self._trials):
            if (failing := trial.failed) is not None:
                self._trials.remove(trial)
                self._not_before[trial.candidate.learner] = event + self.rules.retry_after
                notices.append(_rejected(trial, event, failing))
        return notices

    def _refresh(self, event: int, contender: Contender) -> list[Notice]:
        if event < self._next_refresh:
            return []
        self._next_refresh = event + self.rules.refresh_every
        name = self.serving
        if self._serving is not None and contender.lineage != self._serving.lineage:
            return []  # restarted since: no longer newer weights of the same model, so it has to replace
        threshold = -math.log(self.rules.alpha)
        evidence = evidence_of(self._worse, threshold)
        how: How = "initial" if self._serving is None else "refresh"
        against = self._baseline if self._serving is None else f"v{self._serving.version}"
        gain = 0.0 - self._worse.mean_gain
        worse = self._worse.log_e >= threshold
        n_events = self._worse.n_events
        self._start_comparison()
        if worse:
            text = f"{name} was shown worse than {against} by {-gain:.4f} on {n_events:,} events"
            return [Notice(what="withheld", event=event, learner=name, how=how, text=text, evidence=evidence)]
        text = f"{name} against {against}: gain {gain:+.4f} on {n_events:,} events, not shown worse"
        version = self._version(name, contender, event, live=self._may_become_fallback(contender))
        if (harm := self._harm_of(version)) is not None:
            text = f"{name} was not shown worse than {against}, but {harm}"
            return [Notice(what="withheld", event=event, learner=name, how=how, text=text, evidence=evidence)]
        return [self._promote(version, event, how, text, evidence)]

    def _harm_of(self, version: Version) -> str | None:
        """Say what speaks against promoting `version`; None if nothing does."""
        if self._harm is None or self._serving is None:
            return None
        return self._harm(version.model, self._serving.model)

    def _may_become_fallback(self, contender: Contender) -> bool:
        """Whether what is frozen of it now may be what the watch that begins next would go back to."""
        how, watch = self.rules.rollback, self._watch
        if how is None or self._serving is None or contender.may_restart:
            return how is not None
        compared = 0 if watch is None or watch.is_over else watch.n_events  # 0: a watch begins now
        return compared + self.rules.refresh_every >= how.watch_events

    def _open(self, event: int, contenders: Mapping[str, Contender]) -> list[Notice]:
        """Freeze the most promising contenders, if any look better than what serves has looked lately.

        Only a choice of whom to test: the verdict rests on later events alone.
        """
        serving = self._serving
        taken = {(trial.candidate.learner, trial.candidate.lineage) for trial in self._trials}
        if serving is not None:
            taken.add((serving.learner, serving.lineage))
        promising = sorted(
            (contender.recent_loss, name)
            for name, contender in contenders.items()
            if (name, contender.lineage) not in taken
            and event >= self._not_before.get(name, 0)
            and contender.recent_loss < self._serving_loss.mean - self._gain_wanted(name)
        )
        notices = []
        for recent_loss, name in promising[: self.rules.challengers - len(self._trials)]:
            self._n_attempts += 1
            contender = contenders[name]
            wanted_back = contender.may_restart and self.rules.rollback is not None
            candidate = self._version(name, contender, event, live=wanted_back)
            trial = Trial(self.rules, candidate, self._n_attempts, self._gain_wanted(name))
            self._trials.append(trial)
            text = (
                f"{name} v{candidate.version} enters the shadow: recent loss {recent_loss:.4f} against "
                f"{self._serving_loss.mean:.4f} of what serves"
            )
            notices.append(
                Notice(
                    what="opened",
                    event=event,
                    learner=name,
                    version=candidate.version,
                    parent=serving.version if serving else None,
                    how="replace",
                    text=text,
                    evidence={
                        "attempt": self._n_attempts,
                        "alpha": self.rules.alpha_of_attempt(self._n_attempts),
                        "threshold": trial.threshold,
                        "delta": trial.better.delta,
                    },
                    kind=candidate.kind,
                    model=candidate.model,
                )
            )
        return notices

    def _look_at_age(self, event: int) -> list[Notice]:
        limit, serving = self.rules.max_age, self._serving
        if limit is None or serving is None or event - self._renewed < limit:
            return []
        self._renewed = event
        text = f"{serving.learner} v{serving.version} serves since event {serving.opened:,}, not renewed"
        evidence = {"age": event - serving.opened}
        return [Notice(what="stale", event=event, learner=serving.learner, text=text, evidence=evidence)]

    def _version(self, name: str, contender: Contender, event: int, *, live: bool = False) -> Version:
        self._n_versions += 1
        return Version(
            version=self._n_versions,
            learner=name,
            kind=contender.kind,
            lineage=contender.lineage,
            opened=event,
            model=contender.freeze(),
            live=contender.live() if live and contender.live is not None else None,
        )

    def _promote(
        self, version: Version, event: int, how: How, text: str, evidence: Mapping[str, Any]
    ) -> Notice:
        """Let `version` serve, watched against what served before."""
        before, rules = self._serving, self.rules.rollback
        free = how == "replace" or self._watch is None or self._watch.is_over
        if rules is not None and before is not None and free:
            self._n_watches += 1
            self._watch = Watch(self.rules, rules, before, self._n_watches)
        return self._serve(version, event, "promoted", how, text, evidence)

    def _serve(
        self, version: Version, event: int, what: What, how: How, text: str, evidence: Mapping[str, Any]
    ) -> Notice:
        before = self._serving
        if how != "refresh":
            self._serving_loss = Fading()  # what served before says nothing about this learner
        self._serving = version
        self._n_promotions += 1
        self._next_refresh = event + self.rules.refresh_every
        self._renewed = event
        self._start_comparison()
        return Notice(
            what=what,
            event=event,
            learner=version.learner,
            version=version.version,
            parent=before.version if before else None,
            fallback=self.fallback.version if self.fallback else None,
            how=how,
            sequence=self._n_promotions,
            text=text,
            evidence=evidence,
            kind=version.kind,
            model=version.model if what == "promoted" else None,
        )

    def standing(self) -> list[Notice]:
        """Tell once more of the fallback, if there is one, and then of what serves, if anything does.

        For a store that does not have them, because it is another one than before.
        """
        return [
            Notice(
                what="promoted",
                event=version.opened,
                learner=version.learner,
                version=version.version,
                sequence=self._n_promotions,
                text=f"{version.learner} v{version.version} {what}",
                kind=version.kind,
                model=version.model,
            )
            for version, what in ((self.fallback, "may serve again"), (self._serving, "serves"))
            if version is not None
        ]

    def state(self) -> State:
        """Everything it knows, models included."""
        state: State = {
            **{name: int(getattr(self, f"_{name}")) for name in _COUNTS},
            **prefixed(self._serving_loss.state(), "serving_loss"),
            **prefixed(self._worse.state(), "worse"),
        }
        for learner, event in self._not_before.items():
            state[f"not_before/{learner}"] = event
        for i, trial in enumerate(self._trials):
            state |= prefixed(trial.state(), f"trials/{i}")
        if self._serving is not None:
            state |= prefixed(self._serving.state(), "serving")
        if self._watch is not None:
            state |= prefixed(self._watch.state(), "watch")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        for name in _COUNTS:
            setattr(self, f"_{name}", int(state[name]))  # type: ignore[arg-type]
        self._serving_loss.restore(section(state, "serving_loss"))
        self._worse.restore(section(state, "worse"))
        waits = section(state, "not_before")
        self._not_before = {learner: int(event) for learner, event in waits.items()}  # type: ignore[arg-type]
        self._trials = []
        while trial := section(state, f"trials/{len(self._trials)}"):
            self._trials.append(Trial.from_state(self.rules, trial, self._load))
        serving, watch = section(state, "serving"), section(state, "watch")
        self._serving = Version.from_state(serving, self._load) if serving else None
        rules = self.rules.rollback
        self._watch = Watch.from_state(self.rules, rules, watch, self._load) if watch and rules else None


def _rejected(trial: Trial, event: int, reason: str) -> Notice:
    candidate = trial.candidate
    return Notice(
        what="rejected",
        event=event,
        learner=candidate.learner,
        version=candidate.version,
        how="replace",
        text=f"{candidate.learner} v{candidate.version} {reason} (gain {trial.better.mean_gain:+.4f} "
        f"on {trial.better.n_events:,} events)",
        evidence=trial.evidence(),
    )


_COUNTS: Final = (
    "n_versions",
    "n_promotions",
    "n_attempts",
    "n_watches",
    "next_refresh",
    "renewed",
)
