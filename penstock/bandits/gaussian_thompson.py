"""Thompson sampling for rewards of any size."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Discount, Draws, Floor, Positive, Window, check

__all__ = ["GaussianThompson"]


class GaussianThompson(Counted):
    """Thompson sampling of mean rewards with a normal prior and noise of known size.

    The distribution is the histogram of `draws` samples of the posterior, made from the seed, the key of
    the decision and the name of the arm: exact, whatever the number of samples.

    Parameters
    ----------
    seed : int
    noise : float
        Standard deviation of rewards around their mean; larger explores more.
    prior_mean : float
        Reward of an arm before its first event.
    prior_weight : float
        Of how many events that is worth.
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
    Agrawal and Goyal (2013), Further optimal regret bounds for Thompson sampling, AISTATS.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        noise: Positive = 1.0,
        prior_mean: float = 0.0,
        prior_weight: Positive = 1.0,
        draws: Draws = 100,
        floor: Floor = 0.0,
        discount: Discount = 1.0,
        window: Window | None = None,
        max_arms: Arms = 10_000,
    ) -> None:
        check(GaussianThompson, locals())
        super().__init__(
            "gaussian",
            seed=seed,
            first=prior_weight,
            second=prior_mean,
            noise=noise,
            draws=draws,
            floor=floor,
            discount=discount,
            window=window,
            max_arms=max_arms,
        )
