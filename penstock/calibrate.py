"""What a false-alarm rate means for a detector: its threshold, the run length observed, the delay."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock import drift
from penstock.drift import calibration
from penstock.drift.base import Knob
from penstock.drift.calibrated import threshold_for
from penstock.drift.calibration import HORIZON, Delay, RunLength, Series, Unreachable
from penstock.drift.e_detector import EDetector
from penstock.errors import ConfigError
from penstock.registry import resolve

if TYPE_CHECKING:
    from penstock.config import Pipeline

__all__ = ["Calibration", "calibrate", "observe", "of_kind", "of_pipeline", "table"]

_log = logging.getLogger(__name__)

_STREAMS: Final = 4  # on which the run length is observed; none of them was used to find the threshold
_MOST_VALUES: Final = 20_000_000  # shown to a detector to observe it


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A detector, its threshold for a run length, and what that does on streams it was not chosen on.

    Attributes
    ----------
    kind : str
    every : int
        The run length wanted.
    series : str
    knob : str
        Which parameter is the threshold.
    threshold : float
    observed : RunLength
    change : float or None
        Of the mean; None where no delay was asked for.
    delay : Delay or None
    """

    kind: str
    every: int
    series: str
    knob: str
    threshold: float
    observed: RunLength
    change: float | None
    delay: Delay | None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON; what is infinite is null."""
        low, high = self.observed.interval()
        return {
            "detector": self.kind,
            "false_alarm_every": self.every,
            "series": self.series,
            self.knob: self.threshold,
            "run_length": _plain(self.observed.mean),
            "interval": [_plain(low), _plain(high)],
            "false_alarms": self.observed.alarms,
            "events": self.observed.events,
            "change": self.change,
            "median_delay": _plain(self.delay.median) if self.delay else None,
            "found": self.delay.found if self.delay else None,
            "found_within": self.delay.limit if self.delay else None,
        }


def calibrate(
    kind: str, every: int, series: Series, parameters: Mapping[str, Any], *, change: float | None = None
) -> Calibration:
    """Calibrate a detector, then observe it on other streams of the same series.

    Parameters
    ----------
    kind : str
        As in a configuration.
    every : int
        Values for each false alarm.
    series : Series
    parameters : mapping
        Of the detector, without its threshold.
    change : float, optional
        Of the mean, to wait for.

    Raises
    ------
    ConfigError
        If the detector has no threshold to choose, none gives this run length, or the series cannot change
        by so much.
    """
    cls = resolve(kind, drift.KINDS, what="detector")
    knob = getattr(cls, "knob", None)
    if not isinstance(knob, Knob):
        raise ConfigError(f"{kind} has no threshold to choose")
    if knob.name in parameters:
        raise ConfigError(f"{knob.name}: it is what is looked for")
    if every < 100:
        raise ConfigError(f"a false alarm every {every} values: expected at least 100")
    if change is not None and not series.holds(change):
        raise ConfigError(f"change: the mean of {series.name} cannot change by {change:g}")
    try:
        cls(**parameters, **{knob.name: knob.start})
    except TypeError as error:
        raise ConfigError(f"{kind}: {error}") from error
    threshold = threshold_for(cls, parameters, every, series)

    def make() -> drift.Detector:
        detector: drift.Detector = cls(**parameters, **{knob.name: threshold})
        return detector

    return Calibration(
        kind=kind,
        every=every,
        series=series.name,
        knob=knob.name,
        threshold=threshold,
        observed=observe(make(), series, every),
        change=change,
        delay=None if change is None else calibration.delay(make, series, change),
    )


def of_kind(
    kind: str, every: int, series: str, parameters: Mapping[str, Any], change: float | None
) -> list[Calibration]:
    """Calibrate one detector, or with ``all`` each that has a threshold and can take the series.

    An e-detector that is not told the mean of a series of known mean is told it.
    """
    drawn = calibration.parse_series(series)
    if kind != "all":
        return [calibrate(kind, every, drawn, parameters, change=change)]
    found = []
    for name in sorted(drift.DETECTORS):
        cls = resolve(name, drift.DETECTORS, what="detector")
        if not hasattr(cls, "knob") or not drawn.suits(cls.domain):
            continue
        given = {"mean": drawn.mean} if cls is EDetector else {}
        try:
            found.append(calibrate(name, every, drawn, given, change=change))
        except Unreachable as error:
            _log.warning("%s: %s", name, error)
    return found


def observe(
    detector: drift.Detector, series: Series, every: int, *, streams: int = _STREAMS, first: int = 0
) -> RunLength:
    """Count false alarms on `streams` streams of `HORIZON` · `every` values, fewer if those are too many."""
    alarms = events = 0
    for stream in range(first, first + streams):
        rng = np.random.default_rng([calibration.SEEDS["observe"], stream])
        length = min(HORIZON * every, _MOST_VALUES // streams)
        detector.reset()
        counted = calibration.run_length(detector, series.parts(rng), length)
        alarms += counted.alarms
        events += counted.events
    return RunLength(alarms, events)


def of_pipeline(pipeline: Pipeline, series: str | None, change: float | None) -> list[Calibration]:
    """Calibrate every rule of a configuration that is given by its run length.

    Raises
    ------
    ConfigError
        If there is none, or one whose series is its own, and `series` does not say what to take instead.
    """
    found = []
    for i, rule in enumerate(pipeline.drift):
        if rule.false_alarm_every is None or rule.of_inputs:  # those need no calibration
            continue
        name = series or rule.series
        if name.partition(":")[0] == "own":
            raise ConfigError(
                f"`drift[{i}].series: {rule.series}`: its threshold is chosen on the stream's first values; "
                f"say with --series what to simulate here"
            )
        found.append(
            calibrate(
                rule.kind,
                rule.false_alarm_every,
                calibration.parse_series(name),
                rule.parameters,
                change=change,
            )
        )
    if not found:
        raise ConfigError("no detector of this configuration has `false_alarm_every`")
    return found


def table(calibrations: Sequence[Calibration]) -> list[str]:
    """Lines for people: one a detector, with 95 % intervals."""
    lines = [
        f"{'detector':<14} {'series':<16} {'threshold':<24} {'wanted':>10} {'observed':>10}"
        f" {'95 % interval':>21} {'change':>7} {'delay':>7} {'found':>6}"
    ]
    for one in calibrations:
        low, high = one.observed.interval()
        waited = one.delay
        lines.append(
            f"{one.kind:<14} {one.series:<16} {f'{one.knob}={one.threshold:.6g}':<24} {one.every:>10,}"
            f" {one.observed.mean:>10,.0f} {f'{low:,.0f} to {high:,.0f}':>21}"
            + (f" {one.change:>+7g} {waited.median:>7,.0f} {waited.found:>6.0%}" if waited else "")
        )
    return lines


def _plain(number: float) -> float | None:
    return number if np.isfinite(number) else None
