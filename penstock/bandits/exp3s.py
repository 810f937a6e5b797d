"""Exponential weights that forget, for a best arm that changes."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Floor, Share, check

__all__ = ["Exp3S"]


class Exp3S(Counted):
    """Exp3.S: each event multiplies the weight of what was played, and gives all arms a share of the whole.

    ``p = (1 - gamma) * weight / sum + gamma / K``; the played arm's weight is multiplied by
    ``exp(gamma * reward / (propensity * K))``, then every offered arm gains ``e * alpha / K`` of the sum. The
    propensity is the logged one; an exponent is never taken above 1, which it cannot be where that is the
    policy's own. An arm that was never played has the mean weight of the others.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    gamma : float, 0..1
        Share of the decisions made at random, and rate of learning.
    alpha : float, 0..1
        About one over the number of events that a change is apart.
    low, high : float
        Range of the rewards; what lies outside is cut to it and counted.
    floor : float, 0..1
        Share of the decisions made at random.
    max_arms : int
        Past so many, the arm whose last reward is longest ago is forgotten.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    References
    ----------
    Auer, Cesa-Bianchi, Freund and Schapire (2002), The nonstochastic multiarmed bandit problem, SIAM
    J. Comput. 32, section 8.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        gamma: Share = 0.1,
        alpha: Share = 0.001,
        low: float = 0.0,
        high: float = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(Exp3S, locals())
        super().__init__(
            "exp3s",
            seed=seed,
            first=gamma,
            second=alpha,
            low=low,
            high=high,
            floor=floor,
            max_arms=max_arms,
        )
