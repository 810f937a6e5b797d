"""What off-policy evaluation reads of a log, for one policy, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock._native.intervals import expectations
from penstock.decisions import Logged
from penstock.errors import BadRecord

__all__ = ["Column", "Terms", "expected_under", "weight_limit"]

Column: TypeAlias = "NDArray[np.float64] | Sequence[float]"

_SALT: Final = np.uint64(0x9E3779B97F4A7C15)  # draws of an evaluation differ from those of the decision
_ROUNDING: Final = 1e-6  # of propensities: logs keep them as float32, or in six decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Logged decisions as an estimator sees them, n of them.

    Attributes
    ----------
    rewards : float64, shape (n,)
    propensities : float64, shape (n,), in (0, 1]
        Probability of the logged action when it was taken.
    target : float64, shape (n,), in [0, 1]
        Probability of the logged action under the policy that is judged.
    counts : float64, shape (n,), >= 0
        How often each event counts (`Logged.weights`).
    keys : uint64, shape (n,)
        What all chance comes from.
    predicted, expected : float64, shape (n,), or None
        What a model that has not seen the event predicts for the logged action, and expects under the
        policy that is judged.
    """

    rewards: NDArray[np.float64]
    propensities: NDArray[np.float64]
    target: NDArray[np.float64]
    counts: NDArray[np.float64]
    keys: NDArray[np.uint64]
    predicted: NDArray[np.float64] | None = None
    expected: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        n = self.rewards.shape
        for name, column, wrong, wanted in (
            ("reward", self.rewards, ~np.isfinite(self.rewards), "a finite number"),
            (
                "propensity",
                self.propensities,
                ~((self.propensities > 0.0) & (self.propensities <= 1.0)),
                "a number in (0, 1]",
            ),
            ("target", self.target, ~((self.target >= 0.0) & (self.target <= 1.0)), "a number in [0, 1]"),
            (
                "weight",
                self.counts,
                ~(np.isfinite(self.counts) & (self.counts >= 0.0)),
                "a finite number >= 0",
            ),
        ):
            if column.shape != n or len(n) != 1:
                raise BadRecord(f"one {name} an event", column.shape, path=f"$.{name}")
            if wrong.any():
                first = int(np.argmax(wrong))
                raise BadRecord(wanted, column[first].item(), path=f"$.{name}", position=f"events[{first}]")
        for name, model in (("predicted", self.predicted), ("expected", self.expected)):
            if model is not None and not (model.shape == n and np.isfinite(model).all()):
                raise BadRecord("one finite number an event", model.shape, path=f"$.{name}")

    def __len__(self) -> int:
        return len(self.rewards)

    @classmethod
    def of(
        cls,
        logged: Logged,
        probabilities: NDArray[np.float64],
        predictions: NDArray[np.float64] | None = None,
    ) -> Terms:
        """Read a log.

        Parameters
        ----------
        logged : Logged
            n events that offer m actions.
        probabilities : float64, shape (m,)
            Of each offered action under the policy that is judged, which has not seen the event.
        predictions : float64, shape (m,), optional
            Reward that a model which has not seen the event predicts for each offered action.
        """
        entries, starts = logged.entries, logged.offers.starts
        return cls(
            rewards=logged.rewards,
            propensities=logged.propensities,
            # what sums to 1 but for rounding may be above it by as much
            target=np.minimum(probabilities[entries], 1.0),
            counts=logged.weights,
            keys=logged.offers.keys,
            predicted=None if predictions is None else predictions[entries],
            expected=None if predictions is None else expected_under(probabilities, predictions, starts),
        )

    @classmethod
    def of_columns(
        cls,
        *,
        rewards: Column,
        propensities: Column,
        target: Column,
        counts: Column | None = None,
        keys: NDArray[np.uint64] | None = None,
        predicted: Column | None = None,
        expected: Column | None = None,
    ) -> Terms:
        """Build from arrays or lists; events count once, and their keys are 0, 1, 2, … where not given."""
        n = len(rewards)
        return cls(
            rewards=np.asarray(rewards, dtype=np.float64),
            propensities=np.asarray(propensities, dtype=np.float64),
            target=np.asarray(target, dtype=np.float64),
            counts=np.ones(n) if counts is None else np.asarray(counts, dtype=np.float64),
            keys=np.arange(n, dtype=np.uint64) if keys is None else keys,
            predicted=None if predicted is None else np.asarray(predicted, dtype=np.float64),
            expected=None if expected is None else np.asarray(expected, dtype=np.float64),
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Importance weights, shape (n,): how much likelier the policy judged takes the logged action."""
        return self.target / self.propensities

    @property
    def least_max_weights(self) -> NDArray[np.float64]:
        """The least that the largest weight in each event can be, whatever was logged; shape (n,).

        The actions not taken had ``1 - propensity`` between them, and get ``1 - target``: one of them has at
        least that quotient as its weight.
        """
        left, wanted = 1.0 - self.propensities, 1.0 - self.target
        others = np.divide(wanted, left, out=np.full(len(self), np.inf), where=left > 0.0)
        return np.maximum(self.weights, np.where(wanted > left + _ROUNDING, others, 0.0))

    def model(self, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `predicted` and `expected`, cut to what rewards can be.

        Raises
        ------
        ValueError
            If there is no model.
        """
        if self.predicted is None or self.expected is None:
            raise ValueError("this estimator needs what a model predicts: `predicted` and `expected`")
        return np.clip(self.predicted, low, high), np.clip(self.expected, low, high)

    def draws(self) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), shape (n,): the same for the same keys, and far from those of `draw`.

        References
        ----------
        Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, OOPSLA (SplitMix64).
        """
        z = (self.keys ^ _SALT) * np.uint64(0xD1342543DE82EF95) + _SALT
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def take(self, positions: NDArray[np.int64]) -> Terms:
        """Events at `positions`, in that order."""
        return Terms(
            rewards=self.rewards[positions],
            propensities=self.propensities[positions],
            target=self.target[positions],
            counts=self.counts[positions],
            keys=self.keys[positions],
            predicted=None if self.predicted is None else self.predicted[positions],
            expected=None if self.expected is None else self.expected[positions],
        )


def weight_limit(max_weight: float) -> float:
    """Return what a weight that is at most `max_weight` may look like, with rounded propensities."""
    return max_weight * (1.0 + _ROUNDING)


def expected_under(
    probabilities: NDArray[np.float64], predictions: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean of `predictions` under each distribution, shape (n,).

    Examples
    --------
    >>> expected_under(np.array([0.25, 0.75, 1.0]), np.array([0.0, 1.0, 3.0]), np.array([0, 2, 3]))
    array([0.75, 3.  ])
    """
    out = np.empty(len(starts) - 1)
    expectations(probabilities, predictions, starts, out)
    return out
