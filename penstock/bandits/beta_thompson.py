"""Thompson sampling for rewards between two bounds."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Draws, Floor, Positive, Window, check

__all__ = ["BetaThompson"]


class BetaThompson(Counted):
    """Beta-Bernoulli Thompson sampling: an action's probability is that of being the best one.

    The distribution is the histogram of `draws` samples of the posterior, made from the seed, the key of
    the decision and the name of the arm: exact, whatever the number of samples.

    A reward between the bounds counts as a part of a success and a part of a failure. That is the mean of
    the Bernoulli draw of Agrawal and Goyal, without its noise: sums stay additive, and the posterior is, if
    anything, too wide.

    Parameters
    ----------
    seed : int
    successes, failures : float
        As if so many had been seen before the first event.
    low, high : float
        Range of the rewards; what lies outside is cut to it and counted.
    draws : int
        Samples of the posterior; more are smoother and slower.
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
    Thompson (1933), Biometrika 25. Agrawal and Goyal (2012), Analysis of Thompson sampling, COLT.

    Examples
    --------
    >>> import numpy as np
    >>> from penstock.decisions import Logged, Offers
    >>> offers = Offers.from_rows([{}] * 40, [["news", "sport"]] * 40)
    >>> log = Logged(
    ...     offers=offers,
    ...     chosen=np.arange(40) % 2,
    ...     propensities=np.full(40, 0.5),
    ...     rewards=np.arange(40) % 2 * 1.0,
    ...     weights=np.ones(40),
    ... )
    >>> policy = BetaThompson(floor=0.1)
    >>> policy.learn(log)
    >>> policy.probabilities(offers.slice(0, 1)).round(2)
    array([0.05, 0.95])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        successes: Positive = 1.0,
        failures: Positive = 1.0,
        low: float = 0.0,
        high: float = 1.0,
        draws: Draws = 100,
        floor: Floor = 0.0,
        discount: Discount = 1.0,
        window: Window | None = None,
        max_arms: Arms = 10_000,
    ) -> None:
        check(BetaThompson, locals())
        super().__init__(
            "beta",
            seed=seed,
            max_arms=max_arms,
            first=successes,
            second=failures,
            low=low,
            high=high,
            draws=draws,
            floor=floor,
            discount=discount,
            window=window,
        )
