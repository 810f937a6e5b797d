"""Arms in proportion to the exponential of their mean."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Floor, Positive, Window, check

__all__ = ["Softmax"]


class Softmax(Counted):
    """Play an arm with a probability that grows exponentially with its mean reward.

    The distribution is ``exp(mean / temperature)``, normalised.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    temperature : float
        In the unit of rewards; a tenth of their spread is a start. Larger is closer to uniform.
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
    Luce (1959), Individual choice behavior. Sutton and Barto (2018), Reinforcement learning, section 2.8.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        temperature: Positive = 0.1,
        initial: float = 1.0,
        floor: Floor = 0.0,
        discount: Discount = 1.0,
        window: Window | None = None,
        max_arms: Arms = 10_000,
    ) -> None:
        check(Softmax, locals())
        super().__init__(
            "softmax",
            seed=seed,
            first=temperature,
            second=initial,
            floor=floor,
            discount=discount,
            window=window,
            max_arms=max_arms,
        )
