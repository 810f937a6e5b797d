"""Mostly the arm with the best mean, sometimes any."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Floor, Share, Window, check

__all__ = ["EpsilonGreedy"]


class EpsilonGreedy(Counted):
    """Play the arm with the largest mean reward; with probability `epsilon` any, all alike.

    Equal means share the probability.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    epsilon : float, 0..1
    decays : bool
        Multiply epsilon by ``(events + 1) ** (-1 / 3)``.
    initial : float
        Every arm starts with one event of this reward: high rewards make untried arms attractive.
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
    Auer, Cesa-Bianchi and Fischer (2002), Machine Learning 47.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        epsilon: Share = 0.05,
        decays: bool = False,
        initial: float = 1.0,
        floor: Floor = 0.0,
        discount: Discount = 1.0,
        window: Window | None = None,
        max_arms: Arms = 10_000,
    ) -> None:
        check(EpsilonGreedy, locals())
        super().__init__(
            "epsilon_greedy",
            seed=seed,
            first=epsilon,
            second=initial,
            decays=decays,
            floor=floor,
            discount=discount,
            window=window,
            max_arms=max_arms,
        )
