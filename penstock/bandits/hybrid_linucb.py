"""Upper confidence bounds on linear models that share a part."""

from __future__ import annotations

from penstock.bandits.linear import Linear
from penstock.bandits.parameters import Arms, Dimension, Floor, NotNegative, Ridge, check

__all__ = ["HybridLinUCB"]


class HybridLinUCB(Linear):
    """Rewards are ``z'beta + x'theta_arm``: a part that all arms share, and one of each arm's own.

    x is the context; z are the features of the action and, with `crosses`, their products with the context's.
    What is learned is the ridge solution of the whole system, one event at a time, and the bound that of the
    whole system too.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    alpha : float
        Larger explores more; 0.1 to 2 are usual.
    l2 : float
        Precision of the prior, of both parts.
    crosses : bool
        Products of each feature of the action with each of the context.
    dimension : int, 1..512
        Most features of either part; later ones are dropped and counted.
    intercept : bool
        Whether every context has a constant feature.
    floor : float, 0..1
        Share of the decisions made at random.
    max_arms : int
        Past so many, the arm whose last reward is longest ago is forgotten, but not what it taught
        the shared part.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    References
    ----------
    Li, Chu, Langford and Schapire (2010), A contextual-bandit approach, WWW (arXiv:1003.0146), algorithm 2.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        alpha: NotNegative = 1.0,
        l2: Ridge = 1.0,
        crosses: bool = True,
        dimension: Dimension = 128,
        intercept: bool = True,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(HybridLinUCB, locals())
        super().__init__(
            "ucb",
            seed=seed,
            hybrid=True,
            width=alpha,
            l2=l2,
            crosses=crosses,
            dimension=dimension,
            intercept=intercept,
            floor=floor,
            max_arms=max_arms,
        )
