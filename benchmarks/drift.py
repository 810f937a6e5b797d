"""Every detector at the same false-alarm rate: how often it rings falsely, and how soon it sees a change.

``python -m benchmarks.drift [--every N] [--runs N]`` prints the tables of docs/drift.md.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock import drift
from penstock.calibrate import observe
from penstock.drift.base import Knob
from penstock.drift.calibrated import threshold_for
from penstock.drift.calibration import RunLength, Unreachable, parse_series, run_length
from penstock.drift.e_detector import EDetector
from penstock.registry import resolve

__all__ = ["Row", "rows"]

Floats: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Callable[[np.random.Generator, int], Floats]

_BEFORE: Final = 3000  # values before the change
_AFTER: Final = 6000  # values that it is waited for
_RAMP: Final = 2000  # values that a gradual change takes
_PERIOD: Final = 500  # values of the new concept, then as many of the old one, and so on

_SERIES: Final = ("bernoulli:0.2", "gaussian")


def _bernoulli(levels: Floats, rng: np.random.Generator) -> Floats:
    return (rng.random(len(levels)) < levels).astype(np.float64)


def _normal(levels: Floats, rng: np.random.Generator) -> Floats:
    return rng.normal(levels, 1.0)


def _shapes(n: int) -> Mapping[str, Floats]:
    """How much of a change is there at each of `n` values after it began."""
    at = np.arange(n)
    return {
        "abrupt": np.ones(n),
        "gradual": np.minimum(at / _RAMP, 1.0),
        "recurring": (at // _PERIOD % 2 == 0).astype(np.float64),
    }


def changes(series: str) -> Mapping[str, Change]:
    """Return how to draw the values after each change of `series`."""
    if series == "gaussian":
        found: dict[str, Change] = {
            name: lambda rng, n, name=name: _normal(0.5 * _shapes(n)[name], rng)  # type: ignore[misc]
            for name in _shapes(1)
        }
        found["variance only"] = lambda rng, n: rng.normal(0.0, 2.0, n)
        return found
    return {
        name: lambda rng, n, name=name: _bernoulli(0.2 + 0.1 * _shapes(n)[name], rng)  # type: ignore[misc]
        for name in _shapes(1)
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One detector on one series.

    Attributes
    ----------
    kind, series, threshold : str
    observed : RunLength or None
        None where no threshold gives the run length.
    delays : mapping of change to (median delay, share seen)
    nanoseconds : float
        For each value.
    """

    kind: str
    series: str
    threshold: str
    observed: RunLength | None
    delays: Mapping[str, tuple[float, float]]
    nanoseconds: float


def rows(every: int, *, runs: int, streams: int = 4) -> list[Row]:
    """Calibrate, observe and time every native detector on every series that it can take."""
    return [
        _row(kind, series, every, runs, streams)
        for series in _SERIES
        for kind in sorted(drift.DETECTORS)
        if hasattr(_class(kind), "knob") and parse_series(series).suits(_class(kind).domain)
    ]


def _class(kind: str) -> Any:
    return resolve(kind, drift.DETECTORS, what="detector")


def _row(kind: str, series: str, every: int, runs: int, streams: int) -> Row:
    cls, drawn = _class(kind), parse_series(series)
    knob: Knob = cls.knob
    given: dict[str, Any] = {"mean": drawn.mean} if cls is EDetector else {}
    try:
        threshold = threshold_for(cls, given, every, drawn)
    except Unreachable:
        return Row(kind, series, "none", None, {}, float("nan"))
    make = functools.partial(cls, **given, **{knob.name: threshold})
    calm = drawn.draw(np.random.default_rng(0), 200_000)
    start = time.process_time()
    make().update(calm)
    spent = time.process_time() - start
    return Row(
        kind,
        series,
        f"{knob.name}={threshold:.4g}",
        observe(make(), drawn, every, streams=streams),
        {name: _delay(make, series, change, runs) for name, change in changes(series).items()},
        spent / len(calm) * 1e9,
    )


def _delay(make: Callable[[], drift.Detector], series: str, change: Change, runs: int) -> tuple[float, float]:
    rng = np.random.default_rng(11)
    delays = []
    for _ in range(runs):
        detector = make()
        run_length(detector, iter([parse_series(series).draw(rng, _BEFORE)]), _BEFORE)
        found = detector.update(change(rng, _AFTER))
        delays.append(np.inf if found is None else found.index + 1.0)
    return float(np.median(delays)), float(np.isfinite(delays).mean())


def markdown(table: list[Row], every: int) -> str:
    """Write the tables as Markdown."""
    lines = []
    for series in _SERIES:
        names = list(changes(series))
        lines += [
            f"`{series}`, one false alarm in {every:,} values wanted",
            "",
            "| detector | threshold | false alarms / 100 000 | run length (95 %) | "
            + " | ".join(f"{name}: median delay, seen" for name in names)
            + " | ns / value |",
            "|---|---|---|---|" + "---|" * (len(names) + 1),
        ]
        for row in table:
            if row.series != series:
                continue
            if row.observed is None:
                lines.append(f"| {row.kind} | {row.threshold} |" + " - |" * (len(names) + 3))
                continue
            low, high = row.observed.interval()
            delays = " | ".join(
                f"{median:,.0f}, {seen:.0%}" if np.isfinite(median) else f"-, {seen:.0%}"
                for median, seen in (row.delays[name] for name in names)
            )
            lines.append(
                f"| {row.kind} | {row.threshold} | {1e5 / row.observed.mean:.1f} | {row.observed.mean:,.0f}"
                f" ({low:,.0f} to {high:,.0f}) | {delays} | {row.nanoseconds:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=__doc__)
    parser.add_argument("--every", type=int, default=10_000, help="run length wanted")
    parser.add_argument("--runs", type=int, default=200, help="changes of each kind shown to each detector")
    options = parser.parse_args()
    print(markdown(rows(options.every, runs=options.runs), options.every))


if __name__ == "__main__":
    main()
