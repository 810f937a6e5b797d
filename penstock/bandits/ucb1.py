"""Upper confidence bounds for rewards between two bounds."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Floor, NotNegative, Window, check

__all__ = ["UCB1"]


class UCB1(Counted):
    """Play the arm with the largest mean plus ``scale * sqrt(2 ln t / n)``.

    An arm that was never played comes first; equal indices share the probability. t is the weight of all
    events and n that of the arm's, discounted or within the window. Means are of rewards brought to [0, 1].

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    scale : float
        Of the bound; 1 is the paper's, less explores less.
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
    Auer, Cesa-Bianchi and Fischer (2002), Machine Learning 47. Garivier and Moulines (2011), ALT, for the
    discounted and windowed forms.
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
        check(UCB1, locals())
        super().__init__(
            "ucb1",
            seed=seed,
            first=scale,
            low=low,
            high=high,
            floor=floor,
            discount=discount,
            window=window,
            max_arms=max_arms,
        )
