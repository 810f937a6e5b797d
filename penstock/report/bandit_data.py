"""What the page of a bandit evaluation is made of: plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from penstock.report.data import Curve, Mark, Value

__all__ = ["BanditReport", "Estimated", "LogFindings", "Simulated"]


class Simulated(TypedDict):
    """Policies in an environment that knows every reward."""

    events: Sequence[int]
    """Where the curves have points; about 200 are enough."""
    curves: Mapping[str, Mapping[str, Curve]]
    """Policy or baseline, then ``reward`` (a decision's), ``total_reward`` and ``regret``; all so far, or
    those of the window only."""
    window: int
    """Events in the sliding window."""
    actions: Sequence[str]
    """Those with a colour of their own, most chosen first."""
    stretches: Sequence[int]
    """Last event of each stretch that `shares` count."""
    shares: Mapping[str, Sequence[Sequence[float]]]
    """Policy, then stretch, then action of `actions`; what is missing to 1 are other actions."""


class Estimated(TypedDict):
    """What one estimator says about one policy; where it says nothing, `reason` is one sentence why."""

    policy: str
    estimator: str
    value: Value
    lower: Value
    upper: Value
    reason: str


class LogFindings(TypedDict):
    """Policies on decisions that something else took."""

    primary: str
    """The estimator that the headline goes by."""
    estimates: Sequence[Estimated]
    mean_reward: float
    """Of the log itself."""
    alpha: float
    """Each interval misses with at most this probability."""
    propensities: Sequence[tuple[float, float, int]]
    """Lower end (0: open), upper end, and how many logged propensities lie between; ascending, no gaps."""
    actions: Sequence[tuple[str, int]]
    """How often each was logged, most frequent first; the rest is `other_actions`."""
    other_actions: int


class BanditReport(TypedDict):
    """Everything the page shows; either `simulated` or `log` is not None. Names may be any string."""

    name: str
    source: str
    events: int
    seconds: float
    digest: str
    version: str
    rejected: int
    baselines: Sequence[str]
    """Which names in the table, the curves and the estimates are baselines."""
    table: Mapping[str, Mapping[str, Value]]
    reasons: Mapping[str, str]
    """Why there is no estimate of a policy."""
    marks: Sequence[Mark]
    simulated: Simulated | None
    log: LogFindings | None
