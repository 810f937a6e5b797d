"""How everything here is measured: alternating runs, medians, and ratios of neighbours in time.

A machine is never quiet. So the cases of a comparison take turns, in another order each round, and a ratio
is taken within a round, between runs that saw the same neighbours; what is reported is the median over the
rounds, and the quartiles beside it. Every run starts afresh, after a full garbage collection, with the
collector off; one round that is not counted warms everything up.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

import penstock

__all__ = ["FULL", "QUICK", "Answer", "Case", "Measured", "Ratio", "Size", "compare", "machine", "main"]

Extras: TypeAlias = Mapping[str, float]
"""What a run found out beside its speed, by the heading of a column: its log loss, say."""

_PEERS: Final = ("river", "vowpalwabbit", "numpy", "orjson", "pyarrow")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    events : int
        Events of one run.
    rounds : int
        How often every case runs, after the warm-up.
    """

    events: int
    rounds: int


FULL: Final = Size(events=50_000, rounds=15)
QUICK: Final = Size(events=10_000, rounds=5)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to do the work of a comparison.

    Attributes
    ----------
    name : str
    prepare : callable
        Builds what a run needs, such as a fresh model; not timed. Returns the function that is.
    """

    name: str
    prepare: Callable[[], Callable[[], Extras | None]]


@dataclass(slots=True)
class Measured:
    """The runs of one case.

    Attributes
    ----------
    name : str
    wall, cpu : list of float
        Microseconds per item of each round; `cpu` is of all threads together.
    extras : dict
        What the last run found out, and whatever is measured apart.
    """

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    extras: dict[str, float] = field(default_factory=dict)


def compare(cases: Sequence[Case], *, items: int, rounds: int) -> dict[str, Measured]:
    """Run all cases in turns.

    Parameters
    ----------
    cases : sequence of Case
    items : int
        What one run goes through: times are given per item.
    rounds : int
        Counted rounds.

    Returns
    -------
    dict of name to Measured
        In the order of `cases`.
    """
    measured = {case.name: Measured(case.name) for case in cases}
    for turn in range(-1, rounds):  # the first one warms up
        start = turn % len(cases)
        for case in [*cases[start:], *cases[:start]]:
            wall, cpu, extras = _timed(case.prepare())
            if turn >= 0:
                one = measured[case.name]
                one.wall.append(1e6 * wall / items)
                one.cpu.append(1e6 * cpu / items)
                one.extras.update(extras or {})
    return measured


def _timed(run: Callable[[], Extras | None]) -> tuple[float, float, Extras | None]:
    gc.collect()
    gc.disable()
    try:
        cpu = time.process_time()
        wall = time.perf_counter()
        extras = run()
        return time.perf_counter() - wall, time.process_time() - cpu, extras
    finally:
        gc.enable()


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster `fast` is than `slow`; and how many times it is meant to be, at least."""

    fast: Measured
    slow: Measured
    target: float | None = None

    def line(self) -> str:
        """Say it in one line."""
        wall = _quartiles(slow / fast for fast, slow in zip(self.fast.wall, self.slow.wall, strict=True))
        cpu = _quartiles(slow / fast for fast, slow in zip(self.fast.cpu, self.slow.cpu, strict=True))
        text = (
            f"- *{self.fast.name}* against *{self.slow.name}*: **{wall[1]:.2f}x** "
            f"({wall[0]:.2f} to {wall[2]:.2f}), CPU {cpu[1]:.2f}x"
        )
        if self.target is None:
            return text
        return f"{text}; target {self.target:g}x, {'reached' if wall[1] >= self.target else '**missed**'}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes
    ----------
    title : str
    method : str
        What was measured, and what is fair about it.
    item : str
        What a time is given for: "event".
    measured : sequence of Measured
    ratios : sequence of Ratio
    """

    title: str
    method: str
    item: str
    measured: Sequence[Measured]
    ratios: Sequence[Ratio]

    def markdown(self) -> str:
        """Lay it out: title, method, table, ratios."""
        extras = list(dict.fromkeys(name for one in self.measured for name in one.extras))
        header = ["case", f"µs per {self.item}", "quartiles", "CPU µs", *extras]
        rows = [[one.name, *_times(one), *(_cell(one, name) for name in extras)] for one in self.measured]
        lines = [f"## {self.title}", "", self.method, "", *_table(header, rows)]
        if self.ratios:
            lines += ["", *(ratio.line() for ratio in self.ratios)]
        return "\n".join(lines) + "\n"


def _times(one: Measured) -> list[str]:
    low, middle, high = _quartiles(one.wall)
    return [f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{_quartiles(one.cpu)[1]:.3f}"]


def _cell(one: Measured, name: str) -> str:
    value = one.extras.get(name)
    return "" if value is None else f"{value:.4f}"


def _quartiles(values: Iterator[float] | Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return float(low), float(middle), float(high)


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield a Markdown table that can be read as it is: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [header, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield "| " + " | ".join(cells) + " |"


def machine(size: Size) -> str:
    """Return what the numbers depend on: processor, versions, load, and how much was measured."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PEERS)
    load = os.getloadavg()[0]
    return (
        f"- machine: {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"load average at the end {load:.1f} (a busy machine widens the quartiles)\n"
        f"- versions: Penstock {penstock.__version__}, Python {platform.python_version()}, {versions}\n"
        f"- size: {size.events:,} events a run, {size.rounds} rounds after one to warm up; "
        f"medians, and quartiles over the rounds\n"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(": ")[2] for line in names if line.startswith("model name")), platform.processor()
    )


def size_options() -> argparse.ArgumentParser:
    """Return the options of every command here, to be a parent of its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK.events:,} events, {QUICK.rounds} rounds"
    )
    parser.add_argument("--events", type=int, help=f"events of one run (default: {FULL.events:,})")
    parser.add_argument("--rounds", type=int, help=f"how often every case runs (default: {FULL.rounds})")
    return parser


def size_of(options: argparse.Namespace) -> Size:
    """Return what `size_options` were given."""
    default = QUICK if options.quick else FULL
    return Size(options.events or default.events, options.rounds or default.rounds)


def main(*questions: Callable[[Size], Answer]) -> None:
    """Run one module: ask its questions and print the answers."""
    size = size_of(argparse.ArgumentParser(parents=[size_options()]).parse_args())
    for ask in questions:
        sys.stdout.write(ask(size).markdown() + "\n")
    sys.stdout.write(machine(size))
