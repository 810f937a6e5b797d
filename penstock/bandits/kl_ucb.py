"""The tightest upper confidence bounds for rewards between two bounds."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Floor, NotNegative, Window, check

__all__ = ["KLUCB"]


class KLUCB(Counted):
    """Play the arm with the largest q such that ``n * kl(mean, q) <= scale * ln t``.

    kl is the divergence of two Bernoulli distributions: closer than UCB1 where means are near an end. An arm
    that was never played comes first; equal indices share the probability.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    scale : float
        Of the budget ln t; 1 is the paper's, less explores less.
    low, high : float
        Range of the rewards; what lies outside is cut to it and counted.
    floor : float, 0..1
        Share of the decisions made at random.
    discount : float, in (0, 1]
        What an event is worth after the next one: 0.999 remembers about 1,000.
    window : int, optional
        Only so many of the last events count.
    max_arms : int
        Past so many, the arm whose last reward is longest ago is forgotten.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    References
    ----------
    Garivier and Cappé (2011), The KL-UCB algorithm for bounded stochastic bandits and beyond, COLT.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        scale: NotNegative = 1.0,
        low: float = 0.0,
        high: float = 1.0,
        floor: Floor = 0.0,
        discount: Discount = 1.0,
        window: Window | None = None,
        max_arms: Arms = 10_000,
    ) -> None:
        check(KLUCB, locals())
        super().__init__(
            "kl_ucb",
            seed=seed,
            first=scale,
            low=low,
            high=high,
            floor=floor,
            discount=discount,
            window=window,
            max_arms=max_arms,
        )
