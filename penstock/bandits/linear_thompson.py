"""Thompson sampling on linear models."""

from __future__ import annotations

from typing import Literal

from penstock.bandits.linear import Linear
from penstock.bandits.parameters import (
    Arms,
    Dimension,
    Discount,
    Draws,
    Floor,
    NotNegative,
    Positive,
    Ridge,
    check,
)
from penstock.errors import ConfigError

__all__ = ["LinearThompson"]


class LinearThompson(Linear):
    """Bayesian linear regression of rewards on the context, a model an arm; play what is best in a sample.

    The distribution is the histogram of `draws` samples of the posterior, made from the seed, the key of the
    decision and the names of arms (or features, with `shared`): exact, whatever the number of samples.

    Parameters
    ----------
    seed : int
    noise : {"known", "learned"}
        "known": weights are normal around the ridge solution, with covariance ``v ** 2`` times P. "learned":
        the variance of rewards is unknown too, normal-inverse-gamma.
    v : float
        Standard deviation of rewards around their mean ("known" only). Larger explores more; the guarantee of
        the paper wants it larger than needed in practice by about the root of the dimension.
    a0, b0 : float
        Shape and scale of the prior of that variance ("learned" only).
    l2 : float, optional
        Precision of the prior; 1 where the noise is known and 0.25 where it is learned, if not given.
    shared : bool
        One model for all actions, on the features of the context, of the action, and `crosses`; without it
        features of actions are not looked at.
    crosses : bool
        Products of each feature of the action with each of the context (`shared` only).
    dimension : int, 1..512
        Most features of a model; later ones are dropped and counted.
    intercept : bool
        Whether every context has a constant feature.
    draws : int
        Samples of the posterior; more are smoother and slower.
    discount : float, in (0, 1]
        What an event is worth after the next one; uncertainty about an arm that is not played grows back to
        the prior's.
    floor : float, 0..1
        Share of the decisions made at random.
    max_arms : int
        Past so many, the arm whose last reward is longest ago is forgotten.

    Raises
    ------
    ConfigError
        If a parameter is out of range, or has no meaning with this noise.

    References
    ----------
    Agrawal and Goyal (2013), Thompson sampling for contextual bandits with linear payoffs, ICML
    (arXiv:1209.3352). Riquelme, Tucker and Snoek (2018), Deep Bayesian bandits showdown, ICLR
    (arXiv:1802.09127), for the learned noise. Hamidi and Bayati (2020), arXiv:2006.06790, for `v`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        noise: Literal["known", "learned"] = "known",
        v: NotNegative = 1.0,
        a0: Positive = 6.0,
        b0: Positive = 6.0,
        l2: Ridge | None = None,
        shared: bool = False,
        crosses: bool = True,
        dimension: Dimension = 128,
        intercept: bool = True,
        draws: Draws = 100,
        discount: Discount = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(LinearThompson, locals())
        for name, given, default, other in (
            ("v", v, 1.0, "learned"),
            ("a0", a0, 6.0, "known"),
            ("b0", b0, 6.0, "known"),
        ):
            if noise == other and given != default:
                raise ConfigError(f"{name}: has no meaning with noise {noise!r}, got {given}")
        super().__init__(
            "nig" if noise == "learned" else "normal",
            seed=seed,
            width=v,
            shape=a0,
            scale=b0,
            l2=l2 if l2 is not None else (0.25 if noise == "learned" else 1.0),
            shared=shared,
            crosses=crosses,
            dimension=dimension,
            intercept=intercept,
            draws=draws,
            discount=discount,
            floor=floor,
            max_arms=max_arms,
        )
