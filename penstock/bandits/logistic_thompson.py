"""Thompson sampling on logistic models, for rewards between two bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.linear import Linear
from penstock.bandits.parameters import Arms, Dimension, Discount, Draws, Floor, NotNegative, Ridge, check
from penstock.decisions import Logged
from penstock.errors import ConfigError

__all__ = ["LogisticThompson"]


class LogisticThompson(Linear):
    """Bayesian logistic regression of rewards on the context, a model an arm; play what is best in a sample.

    The posterior is kept normal: each event is one step of an extended Kalman filter. That is exact for one
    Newton step, and forgets nothing of the correlations unless `diagonal`.

    The distribution is the histogram of `draws` samples of the posterior, made from the seed, the key of the
    decision and the names of arms (or features, with `shared`): exact, whatever the number of samples.

    Parameters
    ----------
    seed : int
    v : float
        Standard deviations of the posterior are multiplied by it; larger explores more.
    l2 : float
        Precision of the prior.
    diagonal : bool
        Keep variances only: time and memory grow with the features, not with their square, but what features
        have in common is counted for each of them.
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
    low, high : float
        Range of the rewards; what lies outside counts as the nearer end.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    References
    ----------
    Chapelle and Li (2011), An empirical evaluation of Thompson sampling, NeurIPS. Ollivier (2018), Online
    natural gradient as a Kalman filter, EJS 12 (arXiv:1703.00209).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        v: NotNegative = 1.0,
        l2: Ridge = 1.0,
        diagonal: bool = False,
        shared: bool = False,
        crosses: bool = True,
        dimension: Dimension = 128,
        intercept: bool = True,
        draws: Draws = 100,
        discount: Discount = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        check(LogisticThompson, locals())
        if not low < high:
            raise ConfigError(f"high: expected a number > low ({low}), got {high}")
        self._low, self._high = low, high
        super().__init__(
            "normal",
            seed=seed,
            logistic=True,
            width=v,
            l2=l2,
            diagonal=diagonal,
            shared=shared,
            crosses=crosses,
            dimension=dimension,
            intercept=intercept,
            draws=draws,
            discount=discount,
            floor=floor,
            max_arms=max_arms,
        )

    def _advance(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        rewards = (logged.rewards - self._low) / (self._high - self._low)
        super()._advance(replace(logged, rewards=rewards), out)
