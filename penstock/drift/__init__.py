"""Drift detectors, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.drift.base import Change, Detector, Domain, Drift, InputDetector, Shift
from penstock.registry import resolve

__all__ = [
    "DETECTORS",
    "INPUT_DETECTORS",
    "KINDS",
    "Change",
    "Detector",
    "Domain",
    "Drift",
    "InputDetector",
    "Shift",
    "build",
    "build_inputs",
]

DETECTORS: Final[Mapping[str, str]] = {
    "adwin": "penstock.drift.adwin:ADWIN",
    "cusum": "penstock.drift.cusum:CUSUM",
    "ddm": "penstock.drift.ddm:DDM",
    "e_detector": "penstock.drift.e_detector:EDetector",
    "eddm": "penstock.drift.eddm:EDDM",
    "hddm_a": "penstock.drift.hddm_a:HDDMA",
    "hddm_w": "penstock.drift.hddm_w:HDDMW",
    "kswin": "penstock.drift.kswin:KSWIN",
    "page_hinkley": "penstock.drift.page_hinkley:PageHinkley",
    "river": "penstock.drift.river:River",
    "stepd": "penstock.drift.stepd:STEPD",
}
"""Those that watch one stream of numbers."""

INPUT_DETECTORS: Final[Mapping[str, str]] = {
    "features": "penstock.drift.features:Features",
    "two_sample": "penstock.drift.two_sample:TwoSample",
}
"""Those that watch whole events."""

KINDS: Final[Mapping[str, str]] = {**DETECTORS, **INPUT_DETECTORS}


def build(
    kind: str, *, false_alarm_every: int | None = None, series: str = "own", **parameters: Any
) -> Detector:
    """Build the detector registered as `kind`, or the class that ``module:Class`` names.

    With `false_alarm_every` its threshold is chosen for that run length; see
    `penstock.drift.calibrated.Calibrated`.
    """
    cls = resolve(kind, DETECTORS, what="detector")
    if false_alarm_every is not None:
        from penstock.drift.calibrated import Calibrated

        return Calibrated(cls, parameters, every=false_alarm_every, series=series)
    detector: Detector = cls(**parameters)
    return detector


def build_inputs(kind: str, **parameters: Any) -> InputDetector:
    """Build the input detector registered as `kind`, or the class that ``module:Class`` names."""
    detector: InputDetector = resolve(kind, INPUT_DETECTORS, what="input detector")(**parameters)
    return detector
