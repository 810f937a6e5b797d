"""The story of decisions on real data that ships with River: explore, learn, drift, hand over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from penstock import bandits
from penstock.bandit_engine import BanditEngine, BanditRules, PolicySpec
from penstock.bandits.environment import Environment, as_bandit, simulate
from penstock.decisions import Logged, draw
from penstock.events import Batch, Task
from penstock.notices import Notice
from penstock.sources.river import RiverSource
from penstock.trials import ShadowRules

__all__ = ["run"]

_LAPS: Final = 3
_DRIFT_AT: Final = 3_465

_RACE: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "squarecb": ("squarecb", {}),
    "greedy": ("greedy", {"epsilon": 0.05}),
    "linucb": ("linucb", {"alpha": 0.3, "discount": 0.997}),
    "thompson": ("linear_thompson", {"discount": 0.997}),
    "blind": ("beta_thompson", {"discount": 0.999}),
    "uniform": ("uniform", {}),
}
_WHAT: Final = {
    "squarecb": "SquareCB on the native linear learner",
    "greedy": "epsilon-greedy on the same learner",
    "linucb": "LinUCB, one ridge regression an action",
    "thompson": "linear Thompson sampling",
    "blind": "Beta-Bernoulli Thompson sampling, does not look at the context",
    "uniform": "chance",
}


def run() -> int:
    """Tell the story; return 0 if the hand-over happened."""
    environment = _environment()
    n, k = environment.rewards.shape
    print(
        f"""
PENSTOCK DEMO: decisions that are logged with their exact probability, learned from, and handed over

The data    {n:,} outdoor image segments that ship with River ({_LAPS} laps), each one of {k} kinds:
            brickface, sky, foliage, ... A policy sees a segment's measurements and names a kind. It
            earns 1 if it is right and 0 if not, and is never told what would have been right. At
            event {_DRIFT_AT:,} the kinds change names in a circle: what was right is wrong from there on.

Five policies and chance, each deciding for itself

  {"policy":<10} {"before":>7} {"after":>7} {"regret":>8}   what it is
  {"":<10} {"drift":>7} {"drift":>7} {"":>8}"""
    )
    for name, (kind, parameters) in _RACE.items():
        result = simulate(bandits.build(kind, **parameters), environment)
        before, after = result.rewards[:_DRIFT_AT].mean(), result.rewards[_DRIFT_AT:].mean()
        print(
            f"  {name:<10} {before:7.1%} {after:7.1%} {result.regret[-1]:8,.0f}   {_WHAT[name]}", flush=True
        )
    fixed = environment.rewards.mean(axis=0).max()
    missed = (1 - fixed) * n
    print(f"  {'(best one':<10} {'':>7} {fixed:7.1%} {missed:8,.0f}   action for all, known afterwards)")
    print("\n  before, after: share of decisions that were right. regret: how many were not.\n")
    return _hand_over(environment)


def _environment() -> Environment:
    source = RiverSource(Task("multiclass"), "ImageSegments", repeat=_LAPS)
    batch = Batch.concat([chunk.batch for chunk in source.chunks(None, 4096)])
    return as_bandit(batch, drift_at=_DRIFT_AT, pipeline="demo")


def _hand_over(environment: Environment) -> int:
    """Let the blind policy decide, and the others learn from its log until one has proved itself."""
    print(
        """The hand-over
            Chance decides until `blind` has learned enough to. `squarecb` and `linucb` learn from the log
            of what was decided, with the probabilities that were logged, and never from a decision of
            their own. One of them takes over once the gate has seen it earn more, on the same decisions.

What happens (decision: what)
"""
    )
    rules = BanditRules(
        policies={
            "blind": PolicySpec(kind="beta_thompson", parameters={"floor": 0.3, "discount": 0.999}),
            "squarecb": PolicySpec(kind="squarecb", parameters={"floor": 0.1}),
            "linucb": PolicySpec(kind="linucb", parameters={"floor": 0.1, "alpha": 0.3, "discount": 0.997}),
        },
        shadow=ShadowRules(refresh_every=250, min_effect=0.001),
        max_weight=70.0,  # the floor of 0.1 over 7 actions
        tick=50,
    )
    engine = BanditEngine(rules)
    rewards = np.empty(len(environment))
    deciders: list[str] = []
    refreshes = 0
    handed_over = False
    started = time.perf_counter()
    for i in range(len(environment)):
        offers = environment.offers.slice(i, i + 1)
        pmf = engine.probabilities(offers)
        action = draw(pmf, int(offers.keys[0]))
        rewards[i] = environment.rewards[i, action]
        deciders.append(engine.serving)
        logged = Logged(
            offers=offers,
            chosen=np.array([action]),
            propensities=pmf[[action]],
            rewards=rewards[i : i + 1],
            weights=np.ones(1),
        )
        for notice in engine.progress(logged):
            if notice.how == "refresh" and notice.what == "promoted":
                refreshes += 1
                continue
            handed_over |= notice.what == "promoted" and notice.how == "replace"
            _tell(notice)
    seconds = time.perf_counter() - started
    print(f"\n  ... and {refreshes} refreshes on schedule, with newer weights of the policy that decided\n")
    for name in dict.fromkeys(deciders):
        decided = np.array([decider == name for decider in deciders])
        right = rewards[decided].mean()
        print(f"  {name:<10} decided {int(decided.sum()):>5,} times, {right:6.1%} of them right")
    print("\nWhat the log says each policy would have earned (doubly robust, 95 % at all times)\n")
    for name, report in engine.reports().items():
        estimate = report.estimates["dr"]
        low, high = max(estimate.interval.lower, 0.0), min(estimate.interval.upper, 1.0)
        shown = estimate.reason or f"{estimate.value:6.3f}   [{low:.3f}, {high:.3f}]"
        print(f"  {name:<10} {shown}")
    print(
        f"\n{len(environment):,} decisions by the engine in {seconds:.1f} s; every probability can be\n"
        f"recomputed from the decision's id and the policy that made it. digest {engine.digest()[:16]}"
    )
    return 0 if handed_over else 1


def _tell(notice: Notice) -> None:
    name = {"opened": "candidate"}.get(notice.what, notice.what)
    print(f"  {notice.event:>7,}  {name:<9}  {notice.text}", flush=True)
