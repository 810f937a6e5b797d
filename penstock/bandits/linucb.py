"""Upper confidence bounds on linear models."""

from __future__ import annotations

from penstock.bandits.linear import Linear
from penstock.bandits.parameters import Arms, Dimension, Discount, Floor, NotNegative, Ridge, check

__all__ = ["LinUCB"]


class LinUCB(Linear):
    """Ridge regression of rewards on the context, a model an arm; choose the largest upper confidence bound.

    The bound is ``x'mean + alpha * sqrt(x'P x)``, P the inverse of ``l2 I + sum of w x x'``. Equal bounds
    share the probability; without a `floor` it is 0 or 1, and off-policy evaluation has no support.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    alpha : float
        Larger explores more; 0.1 to 2 are usual.
    l2 : float
        Precision of the prior.
    shared : bool
        One model for all actions, on the features of the context, of the action, and `crosses`; without it
        features of actions are not looked at.
    crosses : bool
        Products of each feature of the action with each of the context (``shared`` only).
    dimension : int, 1..512
        Most features of a model; later ones are dropped and counted. Cost of a decision: its square, an arm.
    intercept : bool
        Whether every context has a constant feature.
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
        If a parameter is out of range.

    References
    ----------
    Li, Chu, Langford and Schapire (2010), A contextual-bandit approach, WWW (arXiv:1003.0146).
    Russac, Vernade and Cappé (2019), Weighted linear bandits, NeurIPS (arXiv:1909.09146), for the discount;
    here the bound takes discounted events for as many certain ones.

    Examples
    --------
    >>> import numpy as np
    >>> from penstock.decisions import Logged, Offers
    >>> offers = Offers.from_rows([{"x": 1.0}, {"x": -1.0}] * 50, [["news", "sport"]] * 100)
    >>> chosen = np.arange(100) // 2 % 2
    >>> log = Logged(
    ...     offers=offers,
    ...     chosen=chosen,
    ...     propensities=np.full(100, 0.5),
    ...     rewards=(chosen == np.arange(100) % 2) * 1.0,
    ...     weights=np.ones(100),
    ... )
    >>> policy = LinUCB(alpha=0.5, floor=0.1)
    >>> policy.learn(log)
    >>> policy.probabilities(offers.slice(0, 2)).round(2)
    array([0.95, 0.05, 0.05, 0.95])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        alpha: NotNegative = 1.0,
        l2: Ridge = 1.0,
        shared: bool = False,
        crosses: bool = True,
        dimension: Dimension = 128,
        intercept: bool = True,
        discount: Discount = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(LinUCB, locals())
        super().__init__(
            "ucb",
            seed=seed,
            width=alpha,
            l2=l2,
            shared=shared,
            crosses=crosses,
            dimension=dimension,
            intercept=intercept,
            discount=discount,
            floor=floor,
            max_arms=max_arms,
        )
