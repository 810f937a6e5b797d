"""Every detector at the same false-alarm rate: how often it rings falsely, and how soon it sees a change.

``python -m benchmarks.drift [--every N] [--runs N] [--inputs]`` prints the tables of docs/drift.md.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Mapping
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
from penstock.events import Batch
from penstock.registry import resolve

__all__ = ["InputRow", "Row", "input_rows", "rows"]

Floats: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Callable[[np.random.Generator, int], Floats]

_BEFORE: Final = 3000  # values before the change
_AFTER: Final = 6000  # values that it is waited for
_RAMP: Final = 2000  # values that a gradual change takes
_PERIOD: Final = 500  # values of the new concept, then as many of the old one, and so on

_POOL: Final = 20_000  # events of a kind, of which streams are drawn: independent, with replacement
_INPUTS_BEFORE: Final = 6000  # events before a change of the inputs: two references and more
_INPUTS_AFTER: Final = 4000

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


@dataclass(frozen=True, slots=True)
class InputRow:
    """One input detector on events of ten numbers and two categories.

    Attributes
    ----------
    detector : str
        As a configuration has it.
    observed : RunLength
    delays : mapping of change to (median delay, share seen)
    microseconds : float
        For each event.
    """

    detector: str
    observed: RunLength
    delays: Mapping[str, tuple[float, float]]
    microseconds: float


_INPUT_DETECTORS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "features": ("features", {}),
    "features, window: 300": ("features", {"window": 300, "clock": 100}),
    "two_sample": ("two_sample", {}),
    'two_sample, interactions: [["*", "*"]]': ("two_sample", {"interactions": [["*", "*"]]}),
}


def _events(change: str, seed: int) -> Batch:
    """Draw a pool of events, before a change ("none") or after it; the first number is what changes."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(_POOL, 10))
    shares = [0.4, 0.3, 0.2, 0.1]
    if change == "moved by 0.5 deviations":
        numbers[:, 0] += 0.5
    elif change == "deviation x 1.5":
        numbers[:, 0] *= 1.5
    elif change == "shares":
        shares = [0.3, 0.3, 0.2, 0.2]
    elif change == "all moved by 0.2":
        numbers += 0.2
    elif change == "correlation 0.5":
        numbers[:, 0] = 0.5 * numbers[:, 1] + np.sqrt(0.75) * numbers[:, 0]
    categories = rng.choice(["a", "b", "c", "d"], (_POOL, 2), p=shares)
    return Batch.from_rows(
        [
            {**{f"x{i}": value for i, value in enumerate(row)}, "first": str(first), "second": str(second)}
            for row, (first, second) in zip(numbers.tolist(), categories, strict=True)
        ]
    )


INPUT_CHANGES: Final = (
    "moved by 0.5 deviations",
    "deviation x 1.5",
    "shares",
    "all moved by 0.2",
    "correlation 0.5",
)


def input_rows(every: int, *, runs: int, streams: int = 4) -> list[InputRow]:
    """Observe and time every input detector."""
    calm = _events("none", 0)
    changed = {change: _events(change, 1) for change in INPUT_CHANGES}
    found = []
    for name, (kind, parameters) in _INPUT_DETECTORS.items():
        make = functools.partial(drift.build_inputs, kind, false_alarm_every=every, **parameters)
        rng = np.random.default_rng(12)
        start = time.process_time()
        make().update(calm)
        spent = time.process_time() - start
        n_alarms = n_events = 0
        for stream in range(streams):
            detector = make()
            while n_events < 10 * every * (stream + 1):
                n_alarms += detector.update(_drawn(calm, rng, 100)) is not None
                n_events += 100
        delays = {change: _input_delay(make, calm, after, runs) for change, after in changed.items()}
        found.append(InputRow(name, RunLength(n_alarms, n_events), delays, spent / len(calm) * 1e6))
    return found


def _drawn(pool: Batch, rng: np.random.Generator, n: int) -> Batch:
    return pool.take(rng.integers(0, len(pool), n))


def _input_delay(
    make: Callable[[], drift.InputDetector], calm: Batch, changed: Batch, runs: int
) -> tuple[float, float]:
    rng = np.random.default_rng(13)
    delays = []
    for _ in range(runs):
        detector = make()
        detector.update(_drawn(calm, rng, _INPUTS_BEFORE))
        found = detector.update(_drawn(changed, rng, _INPUTS_AFTER))
        delays.append(np.inf if found is None else found.index + 1.0)
    return float(np.median(delays)), float(np.isfinite(delays).mean())


def inputs_markdown(table: list[InputRow], every: int) -> str:
    """Write the table of the input detectors as Markdown."""
    lines = [
        f"ten numbers and two categories, one false alarm in {every:,} events wanted",
        "",
        "| detector | run length (95 %) | "
        + " | ".join(f"{name}: median delay, seen" for name in INPUT_CHANGES)
        + " | µs / event |",
        "|---|---|" + "---|" * (len(INPUT_CHANGES) + 1),
    ]
    for row in table:
        low, high = row.observed.interval()
        delays = " | ".join(
            f"{median:,.0f}, {seen:.0%}" if np.isfinite(median) else f"-, {seen:.0%}"
            for median, seen in (row.delays[name] for name in INPUT_CHANGES)
        )
        lines.append(
            f"| {row.detector} | {row.observed.mean:,.0f} ({low:,.0f} to {high:,.0f}) | {delays} "
            f"| {row.microseconds:.1f} |"
        )
    return "\n".join([*lines, ""])


_CALM: Final = (  # numbers, categories, (reference, window, clock), false_alarm_every, events
    (1, 0, (2000, 1000, 500), 10_000, 3_000_000),
    (8, 0, (2000, 1000, 500), 10_000, 4_000_000),
    (8, 0, (2000, 1000, 100), 10_000, 3_000_000),
    (8, 0, (2000, 1000, 500), 30_000, 6_000_000),
    (10, 2, (2000, 1000, 500), 30_000, 6_000_000),
    (1, 0, (2000, 1000, 500), 100_000, 10_000_000),
    (8, 0, (2000, 1000, 500), 100_000, 20_000_000),
    (10, 2, (5000, 1000, 500), 100_000, 10_000_000),
)


def calm_markdown() -> Iterator[str]:
    """Write how often `features` rings while nothing changes, as Markdown."""
    yield "| features | reference, window, clock | wanted | observed, of how many events |"
    yield "|---|---|---|---|"
    for n_numbers, n_categories, sizes, every, n_events in _CALM:
        rng = np.random.default_rng(0)
        numbers = rng.normal(size=(50_000, n_numbers))
        categories = rng.choice(["a", "b", "c", "d"], (50_000, n_categories), p=[0.4, 0.3, 0.2, 0.1])
        pool = Batch.from_rows(
            [
                {
                    **{f"x{i}": value for i, value in enumerate(row)},
                    **{f"c{i}": str(value) for i, value in enumerate(names)},
                }
                for row, names in zip(numbers.tolist(), categories, strict=True)
            ]
        )
        reference, window, clock = sizes
        parameters = {"reference": reference, "window": window, "clock": clock}
        detector = drift.build_inputs("features", false_alarm_every=every, **parameters)
        n_alarms = sum(
            detector.update(_drawn(pool, rng, clock)) is not None for _ in range(n_events // clock)
        )
        what = f"{n_numbers} number{'s' if n_numbers > 1 else ''}"
        what += f", {n_categories} categories" if n_categories else ""
        observed = RunLength(n_alarms, n_events).mean
        yield (
            f"| {what} | {reference}, {window}, {clock} | {every:,} "
            f"| {observed:,.0f} of {n_events // 10**6} million |"
        )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=__doc__)
    parser.add_argument("--every", type=int, default=10_000, help="run length wanted")
    parser.add_argument("--runs", type=int, default=200, help="changes of each kind shown to each detector")
    parser.add_argument("--inputs", action="store_true", help="only the detectors of inputs")
    parser.add_argument(
        "--calm", action="store_true", help="only how often `features` rings falsely (minutes)"
    )
    options = parser.parse_args()
    if options.calm:
        print("\n".join(calm_markdown()))
        return
    if not options.inputs:
        print(markdown(rows(options.every, runs=options.runs), options.every))
    print(inputs_markdown(input_rows(options.every, runs=options.runs // 4), options.every))


if __name__ == "__main__":
    main()
