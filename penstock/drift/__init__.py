"""Drift detectors, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.drift.base import Detector, Drift
from penstock.registry import resolve

__all__ = ["DETECTORS", "Detector", "Drift", "build"]

DETECTORS: Final[Mapping[str, str]] = {
    "adwin": "penstock.drift.adwin:ADWIN",
}


def build(kind: str, **parameters: Any) -> Detector:
    """Build the detector registered as `kind`, or the class that ``module:Class`` names."""
    detector: Detector = resolve(kind, DETECTORS, what="detector")(**parameters)
    return detector
