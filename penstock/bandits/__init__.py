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
    "linucb": "penstock.bandits.linucb:LinUCB",
    "squarecb": "penstock.bandits.squarecb:SquareCB",
    "greedy": "penstock.bandits.greedy:Greedy",
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
