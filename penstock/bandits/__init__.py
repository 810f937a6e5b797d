"""Bandit policies, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.bandits.base import FrozenPolicy, Policy
from penstock.registry import resolve

__all__ = ["POLICIES", "FrozenPolicy", "Policy", "build", "load_policy"]

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


def load_policy(kind: str, state: dict[str, Any]) -> FrozenPolicy:
    """Rebuild the frozen policy that a policy of this `kind` wrote with `FrozenPolicy.state`."""
    policy: FrozenPolicy = resolve(kind, POLICIES, what="policy").load(state)
    return policy
