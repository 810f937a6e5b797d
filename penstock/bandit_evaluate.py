"""The offline front of bandit pipelines: policies side by side, in simulation or on a log."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import bandits, sources
from penstock.bandit_config import BanditPipeline, Followed, Log, Simulated, Topics
from penstock.bandits.base import Retires
from penstock.bandits.environment import Environment, as_bandit, simulate
from penstock.bandits.off_policy import PolicyReport, Report, evaluate_policies
from penstock.codecs.base import Where
from penstock.dead_letters import DeadLetters
from penstock.decisions import Logged
from penstock.errors import BadRecord, ConfigError, DataError
from penstock.events import Batch, Task
from penstock.joiner import Joined
from penstock.logs import place_of, to_logged
from penstock.outputs_config import DeadLetterSpec
from penstock.report import Mark
from penstock.report import bandit_data as shown
from penstock.report.data import Curve
from penstock.retirement import Retirements
from penstock.sources import Rejected
from penstock.sources.decision_log import read_log
from penstock.sources.feedback import FeedbackSource
from penstock.state import State, digest, prefixed

__all__ = ["BanditEvaluation", "evaluate"]

_UNIFORM: Final = "uniform"
_READ: Final = 4096
_MAX_REASONS: Final = 10  # of bad records that are printed; the rest are counted

_POINTS: Final = 200  # of a curve
_STRETCHES: Final = 60  # of the shares of actions
_NAMED: Final = 8  # actions with a colour of their own: as many as a page has
_PER_DECADE: Final = 5  # bins of propensities
_DECADES: Final = 6  # smaller ones share a bin


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditEvaluation:
    """What an evaluation of policies found.

    Attributes
    ----------
    policies : mapping of name to numbers
        In simulation ``reward`` (mean), ``regret`` (sum, against the best action of each event) and
        ``window_reward`` (the last tenth); on a log ``<estimator>``, ``<estimator>_lower`` and ``_upper``,
        ``ess``, ``max_weight``. What is not known is left out.
    baselines : mapping of name to numbers
        Chance, and in simulation the one action that would have been best for all events.
    reasons : mapping of name to str
        Why there is no estimate of a policy's value on this log.
    no_interval : mapping of name to mapping of estimator to str
        Why an estimate has no interval.
    pipeline : BanditPipeline
        What was evaluated.
    simulated, log : optional
        Curves, shares and intervals for a page; the one that fits the source.
    """

    events: int
    rejected: int
    seconds: float
    digest: str
    policies: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, str]
    no_interval: Mapping[str, Mapping[str, str]]
    pipeline: BanditPipeline
    simulated: shown.Simulated | None = None
    log: shown.LogFindings | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "events": self.events,
            "rejected": self.rejected,
            "seconds": round(self.seconds, 3),
            "digest": self.digest,
            "learners": dict(self.policies),
            "baselines": dict(self.baselines),
            "reasons": dict(self.reasons),
            "no_interval": {name: dict(reasons) for name, reasons in self.no_interval.items()},
            "drifts": [],
            "promotions": [],
        }

    def as_report(self) -> shown.BanditReport:
        """Return what `penstock.report.bandit_page` draws."""
        source = self.pipeline.source
        marks: list[Mark] = []
        if isinstance(source, Simulated) and source.drift_at is not None and source.drift_at < self.events:
            marks.append({"event": source.drift_at, "text": "the rewards change"})
        return {
            "name": self.pipeline.name,
            "source": _describe(source),
            "events": self.events,
            "seconds": self.seconds,
            "digest": self.digest,
            "version": penstock.__version__,
            "rejected": self.rejected,
            "baselines": list(self.baselines),
            "table": {**self.policies, **self.baselines},
            "reasons": self.reasons,
            "marks": marks,
            "simulated": self.simulated,
            "log": self.log,
        }

    def table(self) -> Iterator[str]:
        """Lines of the final table."""
        rows = {**self.policies, **self.baselines}
        names = list(dict.fromkeys(name for scores in rows.values() for name in scores))
        width = max(len(name) for name in rows) + 2
        widths = {name: max(15, len(name) + 2) for name in names}
        yield " " * width + "".join(f"{name:>{widths[name]}}" for name in names)
        for policy, scores in rows.items():
            if policy == next(iter(self.baselines)):
                yield "-" * (width + sum(widths.values()))
            cells = "".join(
                f"{scores[n]:>{widths[n]}.4f}" if n in scores else f"{'-':>{widths[n]}}" for n in names
            )
            yield f"{policy:<{width}}{cells}  {self.reasons.get(policy, '')}".rstrip()
        yield from self._without_interval()

    def _without_interval(self) -> Iterator[str]:
        """Lines that say which estimates have no interval, and why."""
        shared: dict[str, dict[str, list[str]]] = {}
        for policy, reasons in self.no_interval.items():
            for estimator, reason in reasons.items():
                shared.setdefault(reason, {}).setdefault(estimator, []).append(policy)
        for reason, estimators in shared.items():
            policies = list(dict.fromkeys(policy for names in estimators.values() for policy in names))
            whose = "" if len(policies) == len(self.no_interval) else f" of {', '.join(policies)}"
            yield f"no interval for {', '.join(estimators)}{whose}: {reason}"


def evaluate(
    pipeline: BanditPipeline,
    *,
    limit: int | None = None,
    batch: int = _READ,
    out: TextIO | None = None,
) -> BanditEvaluation:
    """Run every policy of a bandit pipeline, each on its own, and chance beside them.

    Parameters
    ----------
    pipeline : BanditPipeline
    limit : int, optional
        Stop after so many events.
    batch : int
        How many records of feedback are read, and decisions judged, at a time: with thousands of actions in
        each, that is where the memory goes. Changes no result.
    out : text stream, optional
        Where it is said why the first few bad records are left out; None: nowhere.

    Raises
    ------
    DataError
        If the source cannot be used, or too many of its records, or holds no decision.
    BadRecord
        If a reward is outside of its range; names the record.
    """
    if isinstance(pipeline.source, Topics):
        raise ConfigError("`source.kind`: topics are for the daemon; a log of decisions can be evaluated")
    started = time.perf_counter()
    policies = {
        name: bandits.build(
            spec.kind,
            seed=pipeline.seed,
            **bandits.with_range(spec.kind, spec.parameters, pipeline.reward_range),
        )
        for name, spec in pipeline.policies.items()
    }
    source: Simulated | Log | Followed = pipeline.source
    left_out = _LeftOut(pipeline.dead_letters, out)
    if isinstance(source, Simulated):
        found = _simulated(pipeline, source, policies, limit, left_out)
    else:
        found = _on_log(pipeline, source, policies, limit, batch, left_out)
    state: State = {}
    for name, policy in policies.items():
        state |= prefixed(policy.state(), name)
    seconds = time.perf_counter() - started
    return BanditEvaluation(
        **found, rejected=left_out.n, pipeline=pipeline, digest=digest(state), seconds=seconds
    )


def _describe(source: Simulated | Log | Followed | Topics) -> str:
    """One line on where the events came from."""
    if isinstance(source, Topics):
        return ", ".join(filter(None, (source.decisions, source.rewards)))
    if not isinstance(source, Simulated):
        return Path(source.path).name
    given = source.of.parameters
    what = given.get("path") or given.get("dataset") or source.of.kind
    return f"{Path(str(what)).name}, as a bandit: a policy learns only whether its action was right"


def _simulated(
    pipeline: BanditPipeline,
    source: Simulated,
    policies: Mapping[str, bandits.Policy],
    limit: int | None,
    left_out: _LeftOut,
) -> dict[str, Any]:
    environment = _environment(pipeline, source, limit, left_out)
    n = len(environment)
    late = max(1, n // 10)
    scores: dict[str, dict[str, float]] = {}
    curves: dict[str, Mapping[str, Curve]] = {}
    chosen: dict[str, NDArray[np.int64]] = {}
    for name, policy in {**policies, _UNIFORM: bandits.build(_UNIFORM, seed=pipeline.seed)}.items():
        result = simulate(policy, environment)
        scores[name] = {
            "reward": result.average_reward,
            "window_reward": float(result.rewards[-late:].mean()),
            "regret": float(result.regret[-1]),
        }
        curves[name] = _curves(result.rewards, result.regret, late)
        chosen[name] = result.chosen
    best = int(np.argmax(environment.rewards.sum(axis=0)))
    fixed = environment.rewards[:, best]
    regret = environment.rewards.max(axis=1) - fixed
    baselines = {
        _UNIFORM: scores.pop(_UNIFORM),
        "best_fixed": {
            "reward": float(fixed.mean()),
            "window_reward": float(fixed[-late:].mean()),
            "regret": float(regret.sum()),
        },
    }
    curves["best_fixed"] = _curves(fixed, np.cumsum(regret), late)
    del chosen[_UNIFORM]
    return {
        "events": n,
        "policies": scores,
        "baselines": baselines,
        "reasons": {},
        "no_interval": {},
        "simulated": {
            "events": _points(n, _POINTS).tolist(),
            "curves": curves,
            "window": late,
            **_shares(chosen, environment),
        },
    }


def _points(n: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` events, evenly spread over 1 … n, with the last."""
    return np.unique(np.linspace(0, n, min(n, count) + 1).round().astype(np.int64))[1:]


def _curves(rewards: NDArray[np.float64], regret: NDArray[np.float64], window: int) -> Mapping[str, Curve]:
    at = _points(len(rewards), _POINTS)
    before = np.maximum(at - window, 0)
    earned, missed = (np.concatenate(([0.0], sums)) for sums in (np.cumsum(rewards), regret))
    lately = earned[at] - earned[before]
    return {
        "reward": {"average": (earned[at] / at).tolist(), "window": (lately / (at - before)).tolist()},
        "total_reward": {"average": earned[at].tolist(), "window": lately.tolist()},
        "regret": {"average": missed[at].tolist(), "window": (missed[at] - missed[before]).tolist()},
    }


def _shares(chosen: Mapping[str, NDArray[np.int64]], environment: Environment) -> dict[str, Any]:
    """Count, of each policy, how often it chose which action as time went by."""
    k = environment.rewards.shape[1]
    stretches = _points(len(environment), _STRETCHES)
    totals = sum(np.bincount(actions, minlength=k) for actions in chosen.values())
    named = np.argsort(-np.asarray(totals), kind="stable")[:_NAMED]
    return {
        "actions": environment.offers.arms[named].tolist(),
        "stretches": stretches.tolist(),
        "shares": {
            name: [
                (np.bincount(part, minlength=k)[named] / len(part)).tolist()
                for part in np.split(actions, stretches[:-1])
            ]
            for name, actions in chosen.items()
        },
    }


def _environment(
    pipeline: BanditPipeline, source: Simulated, limit: int | None, left_out: _LeftOut
) -> Environment:
    events = sources.build(source.of.kind, Task("multiclass"), **source.of.parameters)
    parts: list[Batch] = []
    n = 0
    for chunk in events.chunks(None, _READ):
        parts.append(chunk.batch)
        left_out.take(chunk.rejected, len(chunk.batch))
        n += len(chunk.batch)
        if limit is not None and n >= limit:
            break
    if not n:
        raise DataError(f"no event could be used to make an environment of{left_out.summary}")
    batch = Batch.concat(parts)
    if limit is not None:
        batch = batch.slice(0, min(limit, n))
    return as_bandit(batch, drift_at=source.drift_at, pipeline=pipeline.name, seed=pipeline.seed)


def _on_log(
    pipeline: BanditPipeline,
    source: Log | Followed,
    policies: Mapping[str, bandits.Policy],
    limit: int | None,
    batch: int,
    left_out: _LeftOut,
) -> dict[str, Any]:
    seen = _Seen()
    where: Where = str

    def log() -> Iterator[Logged]:
        nonlocal where
        room = math.inf if limit is None else limit
        read = (
            _joined(pipeline, source, policies, batch, left_out)
            if isinstance(source, Followed)
            else _read(pipeline, source, left_out)
        )
        for logged, where in read:  # noqa: B007  (of what is judged now, should it be bad)
            taken = logged if len(logged) <= room else logged.slice(0, int(room))
            seen.update(taken)
            yield taken
            room -= len(taken)
            if room <= 0:
                return

    try:
        report = evaluate_policies(
            log(),
            {**policies, _UNIFORM: bandits.build(_UNIFORM).freeze()},
            estimators=pipeline.estimators,
            alpha=pipeline.alpha,
            reward_range=pipeline.reward_range,
            max_weight=pipeline.max_weight,
        )
    except BadRecord as error:
        raise error.placed(where) from None
    if not report.n_events:
        raise DataError(f"{source.path}: no decision could be used{left_out.summary}")
    scores = {name: _estimates(report, name) for name in report.policies}
    return {
        "events": report.n_events,
        "policies": {name: scores[name] for name in policies},
        "baselines": {"logged": {"reward": report.mean_reward}, _UNIFORM: scores[_UNIFORM]},
        "reasons": {name: p.support.reason for name, p in report.policies.items() if p.support.reason},
        "no_interval": {
            name: reasons for name, p in report.policies.items() if (reasons := _without_interval(p))
        },
        "log": {
            "primary": pipeline.estimators[0] if pipeline.estimators else "",
            "estimates": list(_estimated(report)),
            "mean_reward": report.mean_reward,
            "alpha": report.alpha,
            **seen.as_shown(),
        },
    }


def _without_interval(policy: PolicyReport) -> dict[str, str]:
    """Return the estimators that have a value and no interval, and why."""
    return {
        name: estimate.interval.reason
        for name, estimate in policy.estimates.items()
        if estimate.interval.reason and not math.isnan(estimate.value)
    }


class _LeftOut:
    """Bad records: counted, said why of the first few, and too many of them an error, as for learners."""

    def __init__(self, rules: DeadLetterSpec, out: TextIO | None) -> None:
        # Counted, not written: the file belongs to the daemon.
        self._letters = DeadLetters(max_rate=rules.max_bad_rate, min_bad=rules.min_bad)
        self._out = out

    @property
    def n(self) -> int:
        return self._letters.n_bad

    @property
    def summary(self) -> str:
        """What an error says of them."""
        if not self.n:
            return ""
        return f", {self.n:,} records are bad; the last one: {self._letters.last_reason}"

    def take(self, rejected: Sequence[Rejected], n_good: int) -> None:
        if self._out is not None:
            for letter in rejected[: max(_MAX_REASONS - self.n, 0)]:
                print(f"{'left out':>12} {letter.reason}", file=self._out)
        self._letters.take(rejected, n_good)
        self._letters.judge()


class _Seen:
    """Counts how a log decided: with which probabilities, for which actions."""

    def __init__(self) -> None:
        self._bins = np.zeros(_PER_DECADE * _DECADES + 1, np.int64)  # from 1 downwards
        self._actions: Counter[str] = Counter()

    def update(self, logged: Logged) -> None:
        counts = logged.weights > 0.0
        places = np.ceil(-_PER_DECADE * np.log10(logged.propensities[counts]) - 1e-9).astype(np.int64) - 1
        self._bins += np.bincount(np.clip(places, 0, len(self._bins) - 1), minlength=len(self._bins))
        self._actions.update(logged.offers.arms[logged.entries[counts]].tolist())

    def as_shown(self) -> dict[str, Any]:
        used = np.flatnonzero(self._bins)
        edges = [10.0 ** (-i / _PER_DECADE) for i in range(len(self._bins))] + [0.0]
        ranked = sorted(self._actions.items(), key=lambda entry: (-entry[1], entry[0]))
        return {
            "propensities": [
                (edges[i + 1], edges[i], int(self._bins[i]))
                for i in range(int(used.max(initial=-1)), int(used.min(initial=0)) - 1, -1)
            ],
            "actions": ranked[:_NAMED],
            "other_actions": sum(count for _, count in ranked[_NAMED:]),
        }


def _estimated(report: Report) -> Iterator[shown.Estimated]:
    for name, policy in report.policies.items():
        for estimator, estimate in policy.estimates.items():
            yield {
                "policy": name,
                "estimator": estimator,
                "value": estimate.value,
                "lower": estimate.interval.lower,
                "upper": estimate.interval.upper,
                "reason": estimate.reason or estimate.interval.reason,
            }


def _read(pipeline: BanditPipeline, source: Log, left_out: _LeftOut) -> Iterator[tuple[Logged, Where]]:
    for records, bad in read_log(source.path, source.codec(pipeline.name)):
        left_out.take(bad, len(records))
        yield records.logged, records.where


def _joined(
    pipeline: BanditPipeline,
    source: Followed,
    policies: Mapping[str, bandits.Policy],
    batch: int,
    left_out: _LeftOut,
) -> Iterator[tuple[Logged, Where]]:
    """Join what applications have logged; at the end, what still waits gets what it has."""
    joiner, retirements = pipeline.joiner(), Retirements(pipeline.retirements)

    def parts(joined: Joined) -> Iterator[tuple[Logged, Where]]:
        for arms, low, high in retirements.parts(joined.decisions, 0, len(joined)):
            for policy in policies.values():
                if isinstance(policy, Retires):
                    for arm in arms:
                        policy.retire(arm)
            for start in range(low, high, batch):
                here = slice(start, min(start + batch, high))
                decisions = joined.decisions[here]
                logged, unusable = to_logged(decisions, joined.rewards[here], pipeline=pipeline.name)
                left_out.take(unusable, 0)
                bad = {letter.where for letter in unusable}
                places = [place for place in map(place_of, decisions) if place not in bad]
                yield logged, places.__getitem__

    for chunk in FeedbackSource(source.path).chunks(None, batch):
        left_out.take(chunk.rejected, len(chunk.batch))
        yield from parts(joiner.take(chunk.batch))
    yield from parts(joiner.flush())


def _estimates(report: Report, name: str) -> dict[str, float]:
    policy = report.policies[name]
    scores: dict[str, float] = {}
    for estimator, estimate in policy.estimates.items():
        scores[estimator] = estimate.value
        scores[f"{estimator}_lower"] = estimate.interval.lower
        scores[f"{estimator}_upper"] = estimate.interval.upper
    scores |= {"ess": policy.support.ess, "max_weight": policy.support.max_weight}
    return {key: value for key, value in scores.items() if math.isfinite(value)}
