"""Exponential weights, for rewards that an adversary may choose."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Floor, check

__all__ = ["Exp3"]


class Exp3(Counted):
    """Anytime Exp3: ``p ~ exp(-eta * loss)`` with ``eta = sqrt(ln K / (K t))``, K arms being offered.

    An arm's loss is the sum of (1 - reward) / propensity over the events in which it was played, by the
    logged propensity. An arm that was never played stands with the best of the others.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
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
    J. Comput. 32. Bubeck and Cesa-Bianchi (2012), Foundations and Trends in Machine Learning 5, section 3.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        low: float = 0.0,
        high: float = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(Exp3, locals())
        super().__init__(
            "exp3",
            seed=seed,
            low=low,
            high=high,
            floor=floor,
            max_arms=max_arms,
        )
