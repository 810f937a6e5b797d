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
import importlib.util
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

import penstock

__all__ = [
    "FULL",
    "QUICK",
    "Answer",
    "AtMost",
    "Case",
    "Measured",
    "Ratio",
    "Size",
    "compare",
    "is_installed",
    "machine",
    "main",
    "missing",
    "table",
]

_MICROSECONDS: Final = {"µs": 1.0, "ms": 1000.0}

Extras: TypeAlias = Mapping[str, float]
"""What a run found out beside its speed, by the heading of a column: its log loss, say."""

_PEERS: Final = {  # package: the module that it is imported as
    "river": "river",
    "vowpalwabbit": "vowpalwabbit",
    "scikit-learn": "sklearn",
    "mabwiser": "mabwiser",
    "contextualbandits": "contextualbandits",
    "numpy": "numpy",
    "orjson": "orjson",
    "pyarrow": "pyarrow",
    "confluent-kafka": "confluent_kafka",
}


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
        Microseconds per item of each round; `cpu` is of all threads and children together.
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
        cpu = _cpu_s()
        wall = time.perf_counter()
        extras = run()
        return time.perf_counter() - wall, _cpu_s() - cpu, extras
    finally:
        gc.enable()


def _cpu_s() -> float:
    """CPU time of all threads of this process, and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster `fast` is than `slow`; and how many times it is meant to be, at least.

    Attributes
    ----------
    fast, slow : Measured
        Of one `compare`.
    target, cpu_target : float or None
        What the ratio of wall times, and that of CPU times, should reach.
    parts : sequence of Measured
        What the fast one cannot do without, measured alone: shown where a target is missed.
    """

    fast: Measured
    slow: Measured
    target: float | None = None
    cpu_target: float | None = None
    parts: Sequence[Measured] = ()

    def line(self) -> str:
        """Say it in one line."""
        wall = _quartiles(slow / fast for fast, slow in zip(self.fast.wall, self.slow.wall, strict=True))
        cpu = _quartiles(slow / fast for fast, slow in zip(self.fast.cpu, self.slow.cpu, strict=True))
        text = (
            f"- *{self.fast.name}* against *{self.slow.name}*: **{wall[1]:.2f}x** "
            f"({wall[0]:.2f} to {wall[2]:.2f}), CPU {cpu[1]:.2f}x"
        )
        why = ""
        for what, target, found, slow, kind in (
            ("target", self.target, wall[1], self.slow.wall, "wall"),
            ("CPU target", self.cpu_target, cpu[1], self.slow.cpu, "CPU"),
        ):
            if target is not None:
                text += f"; {what} {target:g}x, {_verdict(found >= target)}"
                if found < target:
                    why += _left(f"{what} {target:g}x", _quartiles(slow)[1] / target, self.parts, kind)
        return text + why


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number that is meant to stay small.

    Attributes
    ----------
    what : str
    values : sequence of float
        One of each round.
    most : float
        What their median may be.
    unit : str
    """

    what: str
    values: Sequence[float]
    most: float
    unit: str = "x"

    def line(self) -> str:
        """Say it in one line."""
        low, middle, high = _quartiles(self.values)
        return (
            f"- {self.what}: **{middle:.2f}{self.unit}** ({low:.2f} to {high:.2f}); "
            f"target at most {self.most:g}{self.unit}, {_verdict(middle <= self.most)}"
        )


def _left(target: str, budget_us: float, parts: Sequence[Measured], kind: str) -> str:
    """Say what a target that was missed would have left, and what the parts take of it."""
    if not parts:
        return ""
    taken = ", ".join(
        f"*{part.name}* {_quartiles(part.cpu if kind == 'CPU' else part.wall)[1]:.3f}" for part in parts
    )
    return f"\n  - the {target} leaves {budget_us:.3f} µs of {kind} time: {taken}"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


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
    ratios : sequence of Ratio or AtMost
        What is read off it.
    unit : "µs" or "ms"
        Of the times that are shown.
    """

    title: str
    method: str
    item: str
    measured: Sequence[Measured]
    ratios: Sequence[Ratio | AtMost]
    unit: Literal["µs", "ms"] = "µs"

    def markdown(self) -> str:
        """Lay it out: title, method, table, ratios."""
        extras = list(dict.fromkeys(name for one in self.measured for name in one.extras))
        header = ["case", f"{self.unit} per {self.item}", "quartiles", f"CPU {self.unit}", *extras]
        scale = _MICROSECONDS[self.unit]
        rows = [
            [one.name, *_times(one, scale), *(_cell(one, name) for name in extras)] for one in self.measured
        ]
        lines = [f"## {self.title}", "", self.method, "", *table(header, rows)]
        if self.ratios:
            lines += ["", *(ratio.line() for ratio in self.ratios)]
        return "\n".join(lines) + "\n"


def _times(one: Measured, scale: float) -> list[str]:
    low, middle, high = (time_us / scale for time_us in _quartiles(one.wall))
    return [f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{_quartiles(one.cpu)[1] / scale:.3f}"]


def _cell(one: Measured, name: str) -> str:
    value = one.extras.get(name)
    return "" if value is None else f"{value:.4f}"


def _quartiles(values: Iterator[float] | Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return float(low), float(middle), float(high)


def table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield a Markdown table that can be read as it is: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [header, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield "| " + " | ".join(cells) + " |"


def machine(size: Size) -> str:
    """Return what the numbers depend on: processor, versions, load, and how much was measured."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name) if is_installed(name) else 'not installed'}"
        for name in _PEERS
    )
    load = os.getloadavg()[0]
    return (
        f"- machine: {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"load average at the end {load:.1f} (a busy machine widens the quartiles)\n"
        f"- versions: Penstock {penstock.__version__}, Python {platform.python_version()}, {versions}\n"
        f"- size: {size.events:,} events a run, {size.rounds} rounds after one to warm up; "
        f"medians, and quartiles over the rounds\n"
    )


def is_installed(peer: str) -> bool:
    """Whether a peer, by the name of its package, can be measured here."""
    return importlib.util.find_spec(_PEERS[peer]) is not None


def missing(*peers: str) -> str:
    """Return what the method says of rows that are left out; empty if no peer is missing."""
    names = [peer for peer in peers if not is_installed(peer)]
    if not names:
        return ""
    return f"\n\n*Not installed, hence without a row: {', '.join(names)} (`pip install 'penstock[bench]'`).*"


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
