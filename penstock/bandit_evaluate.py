"""The offline front of bandit pipelines: policies side by side, in simulation or on a log."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import penstock
from penstock import bandits, sources
from penstock.bandit_config import BanditPipeline, Followed, Log, Simulated, Topics
from penstock.bandits.base import Retires
from penstock.bandits.environment import Environment, as_bandit, simulate
from penstock.bandits.off_policy import Report, evaluate_policies
from penstock.codecs.decision_table import DecisionTable
from penstock.codecs.decisions import DecisionJSON, LogCodec
from penstock.codecs.dsjson import DSJSON
from penstock.decisions import Logged
from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task
from penstock.joiner import Joined
from penstock.logs import to_logged
from penstock.report import Mark
from penstock.report import bandit_data as shown
from penstock.report.data import Curve
from penstock.retirement import Retirements
from penstock.sources.decision_log import read_log
from penstock.sources.feedback import FeedbackSource
from penstock.state import State, digest, prefixed

__all__ = ["BanditEvaluation", "evaluate"]

_UNIFORM: Final = "uniform"

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
        yield " " * width + "".join(f"{name:>15}" for name in names)
        for policy, scores in rows.items():
            if policy == next(iter(self.baselines)):
                yield "-" * (width + 15 * len(names))
            cells = "".join(f"{scores[n]:>15.4f}" if n in scores else f"{'-':>15}" for n in names)
            yield f"{policy:<{width}}{cells}  {self.reasons.get(policy, '')}".rstrip()


def evaluate(pipeline: BanditPipeline, *, limit: int | None = None) -> BanditEvaluation:
    """Run every policy of a bandit pipeline, each on its own, and chance beside them.

    Parameters
    ----------
    pipeline : BanditPipeline
    limit : int, optional
        Stop after so many events.

    Raises
    ------
    DataError
        If the source cannot be used, or holds no decision.
    """
    if isinstance(pipeline.source, Topics):
        raise ConfigError("`source.kind`: topics are for the daemon; a log of decisions can be evaluated")
    started = time.perf_counter()
    policies = {
        name: bandits.build(spec.kind, seed=pipeline.seed, **spec.parameters)
        for name, spec in pipeline.policies.items()
    }
    source: Simulated | Log | Followed = pipeline.source
    if isinstance(source, Simulated):
        found = _simulated(pipeline, source, policies, limit)
    else:
        found = _on_log(pipeline, source, policies, limit)
    state: State = {}
    for name, policy in policies.items():
        state |= prefixed(policy.state(), name)
    seconds = time.perf_counter() - started
    return BanditEvaluation(**found, pipeline=pipeline, digest=digest(state), seconds=seconds)


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
    pipeline: BanditPipeline, source: Simulated, policies: Mapping[str, bandits.Policy], limit: int | None
) -> dict[str, Any]:
    environment, rejected = _environment(pipeline, source, limit)
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
        "rejected": rejected,
        "policies": scores,
        "baselines": baselines,
        "reasons": {},
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


def _environment(pipeline: BanditPipeline, source: Simulated, limit: int | None) -> tuple[Environment, int]:
    events = sources.build(source.of.kind, Task("multiclass"), **source.of.parameters)
    parts: list[Batch] = []
    rejected = n = 0
    for chunk in events.chunks(None, 4096):
        parts.append(chunk.batch)
        rejected += len(chunk.rejected)
        n += len(chunk.batch)
        if limit is not None and n >= limit:
            break
    if not n:
        raise DataError("no event could be used to make an environment of")
    batch = Batch.concat(parts)
    if limit is not None:
        batch = batch.slice(0, min(limit, n))
    environment = as_bandit(batch, drift_at=source.drift_at, pipeline=pipeline.name, seed=pipeline.seed)
    return environment, rejected


def _on_log(
    pipeline: BanditPipeline,
    source: Log | Followed,
    policies: Mapping[str, bandits.Policy],
    limit: int | None,
) -> dict[str, Any]:
    rejected = 0
    seen = _Seen()

    def log() -> Iterator[Logged]:
        nonlocal rejected
        room = math.inf if limit is None else limit
        read = (
            _joined(pipeline, source, policies) if isinstance(source, Followed) else _read(pipeline, source)
        )
        for logged, n_bad in read:
            rejected += n_bad
            taken = logged if len(logged) <= room else logged.slice(0, int(room))
            seen.update(taken)
            yield taken
            room -= len(taken)
            if room <= 0:
                return

    report = evaluate_policies(
        log(),
        {**policies, _UNIFORM: bandits.build(_UNIFORM).freeze()},
        estimators=pipeline.estimators,
        alpha=pipeline.alpha,
        reward_range=pipeline.reward_range,
        max_weight=pipeline.max_weight,
    )
    if not report.n_events:
        raise DataError(f"{source.path}: no decision could be used, {rejected:,} records are bad")
    scores = {name: _estimates(report, name) for name in report.policies}
    return {
        "events": report.n_events,
        "rejected": rejected,
        "policies": {name: scores[name] for name in policies},
        "baselines": {"logged": {"reward": report.mean_reward}, _UNIFORM: scores[_UNIFORM]},
        "reasons": {name: p.support.reason for name, p in report.policies.items() if p.support.reason},
        "log": {
            "primary": pipeline.estimators[0] if pipeline.estimators else "",
            "estimates": list(_estimated(report)),
            "mean_reward": report.mean_reward,
            "alpha": report.alpha,
            **seen.as_shown(),
        },
    }


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


def _read(pipeline: BanditPipeline, source: Log) -> Iterator[tuple[Logged, int]]:
    for records, bad in read_log(source.path, _codec(source, pipeline.name)):
        yield records.logged, len(bad)


def _joined(
    pipeline: BanditPipeline, source: Followed, policies: Mapping[str, bandits.Policy]
) -> Iterator[tuple[Logged, int]]:
    """Join what applications have logged; at the end, what still waits gets what it has."""
    joiner, retirements = pipeline.joiner(), Retirements(pipeline.retirements)

    def parts(joined: Joined) -> Iterator[tuple[Logged, int]]:
        for arms, low, high in retirements.parts(joined.decisions, 0, len(joined)):
            for policy in policies.values():
                if isinstance(policy, Retires):
                    for arm in arms:
                        policy.retire(arm)
            logged, unusable = to_logged(
                joined.decisions[low:high], joined.rewards[low:high], pipeline=pipeline.name
            )
            yield logged, len(unusable)

    for chunk in FeedbackSource(source.path).chunks(None, 4096):
        nothing, _ = to_logged([], np.empty(0), pipeline=pipeline.name)
        yield nothing, len(chunk.rejected)
        yield from parts(joiner.take(chunk.batch))
    yield from parts(joiner.flush())


def _codec(source: Log, pipeline: str) -> LogCodec:
    try:
        if source.format == "dsjson":
            return DSJSON(pipeline=pipeline, **source.options)
        if source.format == "table":
            return DecisionTable(pipeline=pipeline, **source.options)
        return DecisionJSON(pipeline=pipeline, **source.options)
    except TypeError as error:
        raise ConfigError(f"`source.options`: {error}") from error


def _estimates(report: Report, name: str) -> dict[str, float]:
    policy = report.policies[name]
    scores: dict[str, float] = {}
    for estimator, estimate in policy.estimates.items():
        scores[estimator] = estimate.value
        scores[f"{estimator}_lower"] = estimate.interval.lower
        scores[f"{estimator}_upper"] = estimate.interval.upper
    scores |= {"ess": policy.support.ess, "max_weight": policy.support.max_weight}
    return {key: value for key, value in scores.items() if math.isfinite(value)}
