"""What a report is made of: plain data that `penstock.evaluate` fills in and JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Curve",
    "Curves",
    "Decision",
    "Drift",
    "Evidence",
    "Kind",
    "Mark",
    "Promotion",
    "Remembered",
    "Report",
    "Stratum",
    "Trial",
    "Value",
]

Kind: TypeAlias = Literal["average", "window"]
Value: TypeAlias = float | None  # None and NaN: not known


class Curve(TypedDict):
    """One metric of one learner, an entry per event of `Curves.events`."""

    average: Sequence[Value]
    """Since the first event."""
    window: Sequence[Value]
    """Over the most recent events."""


class Curves(TypedDict):
    """What the chart shows; about 500 points are enough for any screen."""

    events: Sequence[int]
    series: Mapping[str, Mapping[str, Curve]]
    """Learner or baseline, then metric."""
    baselines: Sequence[str]
    """Which names in `series` and `Report.table` are baselines."""


class Drift(TypedDict):
    """An alarm of a detector and what was done about it; `features` are those that one on inputs names."""

    event: int
    learner: str
    detector: str
    before: Value
    after: Value
    reaction: str
    features: NotRequired[Sequence[str]]


class Evidence(TypedDict, total=False):
    """Why a promotion was allowed. `e_value` and `threshold` are e-values, not their logarithms.

    Of a replacement, they tell that it is better, by `gain`; of a refresh, that it is worse: it may serve
    as long as its e-value stays below the threshold.
    """

    e_value: Value
    threshold: Value
    events: int
    gain: Value


class Promotion(TypedDict):
    """A snapshot that began to serve."""

    event: int
    version: int
    learner: str
    how: Literal["initial", "refresh", "replace", "rollback"]
    evidence: Evidence


class Decision(TypedDict):
    """Anything else that was decided: a candidate opened, rejected, withheld, rolled back."""

    event: int
    what: str
    learner: str
    text: str


class Trial(TypedDict):
    """A replace candidate at the gate. `log_e` and `threshold` are natural logarithms of e-values."""

    version: int
    learner: str
    opened: int
    closed: int | None
    outcome: Literal["promoted", "rejected", "open"]
    events: Sequence[int]
    log_e: Sequence[Value]
    threshold: float


class Stratum(TypedDict):
    """A stretch of the stream: how well a learner predicted its anchors, from the end of it on."""

    first: int
    events: Sequence[int]
    scores: Sequence[Value]


class Remembered(TypedDict):
    """What one learner knows of the past; see `penstock.anchors`. Every learner has the same strata."""

    learner: str
    backward_transfer: Value
    average_forgetting: Value
    strata: Sequence[Stratum]


class Mark(TypedDict):
    """Something that is known to have happened in the data, such as an injected drift."""

    event: int
    text: str


class Report(TypedDict):
    """Everything the page shows; plain data that JSON can hold. Names may be any string."""

    name: str
    task: str
    source: str
    events: int
    seconds: float
    digest: str
    version: str
    rejected: int
    primary: str
    higher_is_better: Mapping[str, bool]
    curves: Curves
    table: Mapping[str, Mapping[str, Value]]
    drifts: Sequence[Drift]
    promotions: Sequence[Promotion]
    decisions: Sequence[Decision]
    gate: Sequence[Trial]
    notes: Sequence[str]
    marks: Sequence[Mark]
    window: NotRequired[int]
    """Events in the sliding window, if it is to be named."""
    memory: NotRequired[Sequence[Remembered]]
    """One for each learner, if there are anchors."""
