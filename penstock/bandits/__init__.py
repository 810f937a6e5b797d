"""Bandit policies, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.bandits.base import FrozenPolicy, Policy
from penstock.errors import ConfigError
from penstock.registry import resolve

__all__ = ["POLICIES", "FrozenPolicy", "Policy", "build", "load_policy", "with_range"]

POLICIES: Final[Mapping[str, str]] = {
    "uniform": "penstock.bandits.uniform:Uniform",
    "beta_thompson": "penstock.bandits.beta_thompson:BetaThompson",
    "gaussian_thompson": "penstock.bandits.gaussian_thompson:GaussianThompson",
    "ucb1": "penstock.bandits.ucb1:UCB1",
    "kl_ucb": "penstock.bandits.kl_ucb:KLUCB",
    "epsilon_greedy": "penstock.bandits.epsilon_greedy:EpsilonGreedy",
    "softmax": "penstock.bandits.softmax:Softmax",
    "exp3": "penstock.bandits.exp3:Exp3",
    "exp3s": "penstock.bandits.exp3s:Exp3S",
    "tsallis_inf": "penstock.bandits.tsallis_inf:TsallisINF",
    "linucb": "penstock.bandits.linucb:LinUCB",
    "hybrid_linucb": "penstock.bandits.hybrid_linucb:HybridLinUCB",
    "linear_thompson": "penstock.bandits.linear_thompson:LinearThompson",
    "logistic_thompson": "penstock.bandits.logistic_thompson:LogisticThompson",
    "squarecb": "penstock.bandits.squarecb:SquareCB",
    "greedy": "penstock.bandits.greedy:Greedy",
    "boltzmann": "penstock.bandits.boltzmann:Boltzmann",
    "bagging": "penstock.bandits.bagging:Bagging",
    "cover": "penstock.bandits.cover:Cover",
    "regcb": "penstock.bandits.regcb:RegCB",
    "vw": "penstock.bandits.vw:VW",
}


def build(kind: str, *, seed: int = 0, **parameters: Any) -> Policy:
    """Build the policy registered as `kind`, or the class that ``module:Class`` names."""
    policy: Policy = resolve(kind, POLICIES, what="policy")(seed=seed, **parameters)
    return policy


def with_range(kind: str, parameters: Mapping[str, Any], reward_range: tuple[float, float]) -> dict[str, Any]:
    """Return `parameters` with the range of the rewards, for a policy that has to know it.

    That is one whose constructor takes `reward_range`, or `low` and `high`. To all others a reward is a
    number as any other.

    Raises
    ------
    ConfigError
        If `parameters` say another range: it could only cut rewards, or make them look alike.

    Examples
    --------
    >>> with_range("beta_thompson", {"floor": 0.1}, (0.0, 50.0))
    {'floor': 0.1, 'low': 0.0, 'high': 50.0}
    >>> with_range("squarecb", {"reward_range": [0, 1]}, (0.0, 50.0))
    Traceback (most recent call last):
    ...
    penstock.errors.ConfigError: `reward_range`: expected [0.0, 50.0], as of the pipeline, got [0, 1]
    """
    takes = inspect.signature(resolve(kind, POLICIES, what="policy")).parameters
    low, high = reward_range
    if "reward_range" in takes:
        wanted: dict[str, Any] = {"reward_range": [low, high]}
    elif "low" in takes and "high" in takes:
        wanted = {"low": low, "high": high}
    else:
        wanted = {}
    for name, value in wanted.items():
        given = parameters.get(name, value)
        if (list(given) if isinstance(given, Sequence) else given) != value:
            raise ConfigError(f"`{name}`: expected {value}, as of the pipeline, got {given}")
    return {**parameters, **wanted}


def load_policy(kind: str, state: dict[str, Any]) -> FrozenPolicy:
    """Rebuild the frozen policy that a policy of this `kind` wrote with `FrozenPolicy.state`."""
    policy: FrozenPolicy = resolve(kind, POLICIES, what="policy").load(state)
    return policy
