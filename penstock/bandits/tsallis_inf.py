"""Nearly optimal both against an adversary and against chance."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.bandits.parameters import Arms, Floor, check

__all__ = ["TsallisINF"]


class TsallisINF(Counted):
    """Tsallis-INF: ``p = 4 / (eta * (loss - x)) ** 2`` with ``eta = 2 / sqrt(t)``, x such that it sums to 1.

    An arm's loss is the sum of (1 - reward) / propensity over the events in which it was played, by the
    logged propensity. An arm that was never played stands with the best of the others.

    Parameters
    ----------
    seed : int
        Not used: nothing here is random.
    low, high : float
        Range of the rewards; what lies outside is cut to it and counted.
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
    Zimmert and Seldin (2021), Tsallis-INF, JMLR 22 (arXiv:1807.07623).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        low: float = 0.0,
        high: float = 1.0,
        floor: Floor = 0.0,
        max_arms: Arms = 10_000,
    ) -> None:
        check(TsallisINF, locals())
        super().__init__(
            "tsallis_inf",
            seed=seed,
            low=low,
            high=high,
            floor=floor,
            max_arms=max_arms,
        )
