"""Every action alike: what any other policy is measured against."""

from __future__ import annotations

from penstock.bandits.counted import Counted
from penstock.decisions import Logged

__all__ = ["Uniform"]


class Uniform(Counted):
    """Choose among the offered actions with equal probability, and learn nothing that matters.

    Parameters
    ----------
    seed : int
        Not used.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__("uniform", seed=seed, max_arms=1)

    def _admit(self, logged: Logged, start: int) -> int:
        """Keep nothing of any arm."""
        return len(logged)
