"""How long a linear bandit takes for a decision and the update that follows it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river import bandit

from benchmarks.harness import Answer, Case, Ratio, Size, compare, is_installed, main, missing
from penstock.bandits import build
from penstock.decisions import Logged, Offers
from penstock.events import Features

__all__ = ["ask", "ask_many_arms", "ask_shared", "by_numpy", "everyone", "problem_of"]

_DIMENSION: Final = 50
_SHARE: Final = 10  # of the events of other benchmarks, one in so many: peers take up to a millisecond each

_METHOD: Final = """\
Ten arms, 50 numbers in the context: the probabilities of all arms, then one exact update of the arm that the
log says was played. *In a log* is one `LinUCB.progress` for all events, arms by name, features hashed.
*One at a time* is `probabilities` and `learn` for each event, on objects that were built before.

*numpy* keeps the inverse of every arm in one array, scores all arms by two matrix products and updates by
Sherman and Morrison's formula, which is as fast as numpy gets. *Naive* is what most examples show: invert the
matrix of each arm, draw its weights with `multivariate_normal`. River is `LinUCBDisjoint`, MABWiser and
contextualbandits are `LinUCB` (the latter by Sherman and Morrison's formula too, its default), asked and
updated event by event; all decide, and learn what the log says was played. *Naive* is measured apart, on a
twentieth of the events, twice."""

_METHOD_MANY: Final = """\
As before, with a thousand arms, each with its own model. All have been played: nothing is left out."""

_METHOD_SHARED: Final = """\
One model for 10,000 actions, each with 50 features of its own and none in common: the whole distribution,
then one exact update by the action that the log says was played, an event a call, always over the same table.
*numpy* scores by a matrix product (BLAS, on all cores) and `einsum`, and updates by Sherman and Morrison's
formula. `LinUCB` works out the bounds of those actions only that a cheaper bound does not rule out: how many
depends on the data, what it decides does not."""


@dataclass(frozen=True)
class _Problem:
    """A log over arms with contexts, and the same as plain arrays."""

    logged: Logged
    contexts: NDArray[np.float64]
    n_arms: int

    @property
    def steps(self) -> list[tuple[NDArray[np.float64], int, float]]:
        chosen, rewards = self.logged.chosen.tolist(), self.logged.rewards.tolist()
        return list(zip(self.contexts, chosen, rewards, strict=True))


def _dense(x: NDArray[np.float64]) -> Features:
    n, d = x.shape
    hashes = np.random.default_rng(9).integers(0, 2**32, d, dtype=np.uint32)
    return Features(
        np.arange(n + 1, dtype=np.int64) * d,
        np.tile(hashes, n),
        x.reshape(-1).copy(),
        np.zeros(n * d, np.uint32),
    )


def _offers(contexts: Features, n: int, n_arms: int, actions: Features | None = None) -> Offers:
    m = n * n_arms
    arms = np.empty(m, dtype=object)
    arms[:] = [f"arm-{a}" for a in range(n_arms)] * n
    nothing = Features(np.zeros(m + 1, np.int64), np.empty(0, np.uint32), np.empty(0), np.empty(0, np.uint32))
    return Offers(
        contexts=contexts,
        rows=[{}] * n,
        starts=np.arange(n + 1, dtype=np.int64) * n_arms,
        arms=arms,
        actions=actions or nothing,
        action_rows=[{}] * m,
        keys=np.arange(n, dtype=np.uint64),
    )


def problem_of(n: int, n_arms: int, dimension: int = _DIMENSION) -> _Problem:
    """Draw a log of n events."""
    rng = np.random.default_rng(7)
    contexts = rng.normal(size=(n, dimension))
    logged = Logged(
        offers=_offers(_dense(contexts), n, n_arms),
        chosen=np.arange(n) % n_arms,
        propensities=np.full(n, 1.0 / n_arms),
        rewards=rng.normal(size=n),
        weights=np.ones(n),
    )
    return _Problem(logged, contexts, n_arms)


def everyone(n_arms: int, dimension: int = _DIMENSION) -> Logged:
    """Return a log in which every arm was offered and played once, alone."""
    rng = np.random.default_rng(6)
    offers = _offers(_dense(rng.normal(size=(n_arms, dimension))), n_arms, 1)
    arms = np.empty(n_arms, dtype=object)
    arms[:] = [f"arm-{a}" for a in range(n_arms)]
    return Logged(
        offers=replace(offers, arms=arms),
        chosen=np.zeros(n_arms, np.int64),
        propensities=np.ones(n_arms),
        rewards=rng.normal(size=n_arms),
        weights=np.ones(n_arms),
    )


# --- ours -------------------------------------------------------------------------------------------------


def _in_a_log(kind: str, problem: _Problem, **parameters: Any) -> Callable[[], None]:
    policy = build(kind, **parameters)
    policy.learn(problem.logged)

    def run() -> None:
        policy.progress(problem.logged)

    return run


def _one_at_a_time(kind: str, problem: _Problem) -> Callable[[], None]:
    policy = build(kind)
    policy.learn(problem.logged)
    events = [problem.logged.slice(i, i + 1) for i in range(len(problem.logged))]

    def run() -> None:
        for event in events:
            policy.probabilities(event.offers)
            policy.learn(event)

    return run


# --- peers ------------------------------------------------------------------------------------------------


def by_numpy(problem: _Problem) -> Callable[[], None]:
    k, steps = problem.n_arms, problem.steps
    d = problem.contexts.shape[1]
    inverse, mean = np.stack([np.eye(d)] * k), np.zeros((k, d))

    def run() -> None:
        for x, arm, reward in steps:
            product = inverse @ x
            variance = product @ x
            np.argmax(mean @ x + np.sqrt(variance))
            u = product[arm]
            gain = u / (1.0 + variance[arm])
            mean[arm] += gain * (reward - mean[arm] @ x)
            inverse[arm] -= np.outer(gain, u)

    return run


def _naive(problem: _Problem) -> Callable[[], None]:
    k, steps, rng = problem.n_arms, problem.steps, np.random.default_rng(1)
    a, b = [np.eye(_DIMENSION) for _ in range(k)], [np.zeros(_DIMENSION) for _ in range(k)]

    def run() -> None:
        for x, arm, reward in steps:
            scores = []
            for matrix, moment in zip(a, b, strict=True):
                inverse = np.linalg.inv(matrix)
                scores.append(rng.multivariate_normal(inverse @ moment, inverse) @ x)
            np.argmax(scores)
            a[arm] += np.outer(x, x)
            b[arm] += reward * x

    return run


def _river(problem: _Problem) -> Callable[[], None]:
    policy, arms = bandit.LinUCBDisjoint(seed=1), list(range(problem.n_arms))
    steps = [(dict(enumerate(x.tolist())), arm, reward) for x, arm, reward in problem.steps]

    def run() -> None:
        for x, arm, reward in steps:
            policy.pull(arms, context=x)
            policy.update(arm, x, reward)

    return run


def _mabwiser(problem: _Problem) -> Callable[[], None]:
    mab = importlib.import_module("mabwiser.mab")
    arms = list(range(problem.n_arms))
    policy = mab.MAB(arms, mab.LearningPolicy.LinUCB(alpha=1.0), seed=1)
    policy.fit(arms, [0.0] * len(arms), np.zeros((len(arms), _DIMENSION)))
    steps = [(x.reshape(1, -1), [arm], [reward]) for x, arm, reward in problem.steps]

    def run() -> None:
        for x, arm, reward in steps:
            policy.predict(x)
            policy.partial_fit(arm, reward, x)

    return run


def _contextualbandits(problem: _Problem) -> Callable[[], None]:
    online = importlib.import_module("contextualbandits.online")
    policy = online.LinUCB(problem.n_arms, fit_intercept=False, ucb_from_empty=False, random_state=1)
    arms = np.arange(problem.n_arms)
    policy.fit(np.zeros((len(arms), _DIMENSION)), arms, np.zeros(len(arms)))
    steps = [(x.reshape(1, -1), np.array([arm]), np.array([reward])) for x, arm, reward in problem.steps]

    def run() -> None:
        for x, arm, reward in steps:
            policy.predict(x)
            policy.partial_fit(x, arm, reward)

    return run


# --- questions --------------------------------------------------------------------------------------------


def ask(size: Size) -> Answer:
    """Answer the question of ten arms for `size`."""
    problem = problem_of(max(size.events // _SHARE, 20), 10)
    log, single, plain = (
        "Penstock LinUCB, in a log",
        "Penstock LinUCB, one at a time",
        "numpy, Sherman-Morrison",
    )
    cases = [
        Case(log, partial(_in_a_log, "linucb", problem)),
        Case(single, partial(_one_at_a_time, "linucb", problem)),
        Case("Penstock LinearThompson, in a log", partial(_in_a_log, "linear_thompson", problem)),
        Case(plain, partial(by_numpy, problem)),
        Case("River LinUCBDisjoint", partial(_river, problem)),
    ]
    targets: dict[str, float | None] = {plain: 6.0, "River LinUCBDisjoint": 75.0}
    if is_installed("mabwiser"):
        cases.append(Case("MABWiser LinUCB", partial(_mabwiser, problem)))
        targets["MABWiser LinUCB"] = 300.0
    if is_installed("contextualbandits"):
        cases.append(Case("contextualbandits LinUCB", partial(_contextualbandits, problem)))
        targets["contextualbandits LinUCB"] = None
    measured = compare(cases, items=len(problem.logged), rounds=size.rounds)
    few = problem_of(max(len(problem.logged) // 20, 5), 10)
    slow = compare([Case("naive", partial(_naive, few))], items=len(few.logged), rounds=2)
    ratios = [Ratio(measured[log], measured[name], target=target) for name, target in targets.items()]
    return Answer(
        title="One bandit decision and one update, 10 arms",
        method=_METHOD + missing("mabwiser", "contextualbandits"),
        item="event",
        measured=[*measured.values(), *slow.values()],
        ratios=[*ratios, Ratio(measured[single], measured[plain])],
    )


def ask_many_arms(size: Size) -> Answer:
    """Answer the question of a thousand arms for `size`."""
    k, n = 1000, max(size.events // 500, 5)
    taught = everyone(k)
    problem = problem_of(n, k)
    log, plain = "Penstock LinUCB, in a log", "numpy, Sherman-Morrison"

    def ours() -> Callable[[], None]:
        policy = build("linucb")
        policy.learn(taught)

        def run() -> None:
            policy.progress(problem.logged)

        return run

    measured = compare(
        [Case(log, ours), Case(plain, partial(by_numpy, problem))], items=n, rounds=max(size.rounds // 3, 2)
    )
    return Answer(
        title="One bandit decision and one update, 1,000 arms",
        method=_METHOD_MANY,
        item="event",
        measured=list(measured.values()),
        ratios=[Ratio(measured[log], measured[plain], target=4.0)],
    )


def ask_shared(size: Size) -> Answer:
    """Answer the question of 10,000 actions for `size`."""
    k, n = 10_000, max(size.events // 500, 5)
    rng = np.random.default_rng(8)
    actions = rng.normal(size=(k, _DIMENSION))
    table, rewards = _dense(actions), rng.normal(size=n)
    events = [
        Logged(
            offers=_offers(_dense(np.zeros((1, 0))), 1, k, table),
            chosen=np.array([i]),
            propensities=np.ones(1),
            rewards=rewards[i : i + 1],
            weights=np.ones(1),
        )
        for i in range(n)
    ]
    teacher = Logged(
        offers=_offers(_dense(np.zeros((200, 0))), 200, 1, _dense(actions[:200])),
        chosen=np.zeros(200, np.int64),
        propensities=np.ones(200),
        rewards=rng.normal(size=200),
        weights=np.ones(200),
    )
    kinds = {
        "Penstock LinUCB, shared": "linucb",
        "Penstock LinearThompson, shared, 100 draws": "linear_thompson",
    }

    def ours(kind: str) -> Callable[[], None]:
        policy = build(kind, shared=True)
        policy.learn(teacher)

        def run() -> None:
            for event in events:
                policy.progress(event)

        return run

    def numpy() -> Callable[[], None]:
        inverse = np.linalg.inv(np.eye(_DIMENSION) + actions[:200].T @ actions[:200])
        mean = inverse @ actions[:200].T @ teacher.rewards

        def run() -> None:
            for i in range(n):
                bound = actions @ mean + np.sqrt(np.einsum("kd,kd->k", actions @ inverse, actions))
                (bound == bound.max()).astype(np.float64)
                x = actions[i]
                u = inverse @ x
                gain = u / (1.0 + u @ x)
                mean[:] += gain * (rewards[i] - mean @ x)
                inverse[:] -= np.outer(gain, u)

        return run

    cases = [Case(name, partial(ours, kind)) for name, kind in kinds.items()]
    plain = "numpy, one product for all"
    measured = compare([*cases, Case(plain, numpy)], items=n, rounds=max(size.rounds // 3, 2))
    return Answer(
        title="One bandit decision among 10,000 actions",
        method=_METHOD_SHARED,
        item="event",
        measured=list(measured.values()),
        ratios=[Ratio(measured["Penstock LinUCB, shared"], measured[plain], target=4.0)],
    )


if __name__ == "__main__":
    main(ask, ask_many_arms, ask_shared)
