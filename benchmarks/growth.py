"""What an event costs as the work grows: more features, events, weights, arms, dimensions.

``python -m benchmarks.growth`` prints the tables; ``--pictures docs`` draws them, too.
"""

from __future__ import annotations

import argparse
import html
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from vowpalwabbit import pyvw

from benchmarks import bandits, workload
from benchmarks.harness import FULL, QUICK, Case, Size, compare, machine, size_of, size_options, table
from penstock.bandits import build
from penstock.config import parse
from penstock.evaluate import evaluate
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.sources.file import FileSource

__all__ = ["Growth", "draw", "markdown", "measure", "write_pictures"]

_ROUNDS: Final = 3
_SLOT_BYTES: Final = 16  # of a weight and its optimiser's state, here and in VW

_FEATURES: Final = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_BITS: Final = (18, 20, 22, 24, 26, 28)
_ARMS: Final = (2, 10, 30, 100, 300, 1000, 3000, 10_000)
_DIMENSIONS: Final = (5, 10, 20, 50, 100, 200, 500)
_QUICK: Final = frozenset({5, 50, 100, 500, 1000, 18, 22})  # of those, with `--quick`

_METHOD: Final = """\
One thing grows, the rest stays as it is; Penstock takes turns with the peer that makes sense, and the
shortest of three runs is shown (of one, for ten million events and for tables of 24 bits and more).
*Features*: JSON lines, half of the features numbers and half texts, `penstock evaluate` against VW's
`--json`. *Events*: the events of the other benchmarks through a pipe, so that no file has to be as long.
*Bits*: the table of weights grows, and twenty features an event are spread all over it; VW text, decoded and
learned, without metrics. Both begin with an empty table, so that from about 24 bits on most of the time goes
into memory that is touched for the first time. *Arms* (20 numbers in the context) and *dimension* (10 arms):
a decision of `LinUCB` and its update, in a log, against numpy with Sherman and Morrison's formula."""


@dataclass(slots=True)
class Growth:
    """What was measured along one axis.

    Attributes
    ----------
    title, x : str
        What the chart and its horizontal axis are called.
    peer : str
    sizes : list of int
    ours, theirs : list of float
        Microseconds per event of each size.
    """

    title: str
    x: str
    peer: str
    sizes: list[int] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def add(
        self, size: int, ours: Callable[[], Any], theirs: Callable[[], Any], items: int, rounds: int
    ) -> None:
        """Measure one point."""
        found = compare([Case("ours", ours), Case("theirs", theirs)], items=items, rounds=rounds)
        self.sizes.append(size)
        self.ours.append(min(found["ours"].wall))
        self.theirs.append(min(found["theirs"].wall))


def measure(size: Size) -> list[Growth]:
    """Measure along every axis; sizes below `FULL` measure fewer points, and shorter."""
    rounds = min(size.rounds // 2 + 1, _ROUNDS)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        path = Path(directory)
        return [
            _features(size, rounds, path),
            _events(size, rounds, path),
            _bits(size, rounds, path),
            _arms(size, rounds),
            _dimensions(size, rounds),
        ]


def _of(sizes: Sequence[int], size: Size) -> Sequence[int]:
    if size.events >= FULL.events:
        return sizes
    return [one for one in sizes if one in _QUICK][: None if size.events >= QUICK.events else 2]


# --- the axes ---------------------------------------------------------------------------------------------


def _features(size: Size, rounds: int, directory: Path) -> Growth:
    growth = Growth("Features of an event", "features", "VW --json")
    ours, theirs = directory / "features.jsonl", directory / "features.json"
    for n_features in _of(_FEATURES, size):
        n, times = max(12 * size.events // n_features, 10), 5
        bodies = list(_bodies(n, n_features))
        ours.write_text("".join(f'{{"label":{i % 2},{body}\n' for i, body in enumerate(bodies)) * times)
        theirs.write_text(
            "".join(f'{{"_label":{2 * (i % 2) - 1},{body}\n' for i, body in enumerate(bodies)) * times
        )
        growth.add(n_features, _ours(ours), _theirs(f"--json --chain_hash -d {theirs}"), n * times, rounds)
    return growth


def _bodies(n: int, n_features: int) -> Iterator[str]:
    """Yield what comes behind the label of a JSON object: half numbers, half texts."""
    rng = np.random.default_rng(3)
    n_texts = n_features // 2
    for _ in range(n):
        numbers = rng.normal(size=n_features - n_texts).round(4).tolist()
        texts = (100 * rng.random(n_texts) ** 2).astype(np.int64).tolist()
        parts = [f'"number{j}":{value}' for j, value in enumerate(numbers)]
        yield ",".join(parts + [f'"text{j}":"value{value}"' for j, value in enumerate(texts)]) + "}"


def _events(size: Size, rounds: int, directory: Path) -> Growth:
    growth = Growth("Events of a run", "events", "VW --json")
    n = max(size.events // 5, 1)
    ours, theirs = directory / "few.jsonl", directory / "few.json"
    workload.write_json(ours, workload.events(n))
    workload.write_vw_json(theirs, workload.events(n))
    for times in (1, 10, 100, 1000) if size.events >= FULL.events else (1, 10):
        growth.add(
            n * times,
            _piped(ours, times, _ours),
            _piped(theirs, times, lambda pipe: _theirs(f"--json --chain_hash -d {pipe}")),
            n * times,
            1 if times > 100 else rounds,
        )
    return growth


def _piped(path: Path, times: int, reader: Callable[[Path], Callable[[], Any]]) -> Callable[[], Any]:
    """Let another process write a file `times` times into a pipe, and read that."""
    pipe = path.with_stem(f"{path.stem}-{times}")
    os.mkfifo(pipe)
    read = reader(pipe)()

    def run() -> None:
        with subprocess.Popen(["sh", "-c", 'exec cat "$@" > "$0"', pipe, *[path] * times]) as writer:
            try:
                read()
            finally:
                writer.kill()  # it has ended, unless nobody came to read

    return lambda: run


def _bits(size: Size, rounds: int, directory: Path) -> Growth:
    growth = Growth("Bits of the table", "bits", "VW text")
    n, path = 2 * size.events, directory / "wide.vw"
    rng = np.random.default_rng(4)
    with path.open("w") as file:
        for i, names in enumerate(rng.integers(0, 2**31, (n, 20)).tolist()):
            file.write(f"{2 * (i % 2) - 1} | {' '.join(map(str, names))}\n")
    for bits in _of(_BITS, size):
        if 3 * _SLOT_BYTES << bits > _available_bytes():
            break
        growth.add(
            bits,
            partial(_decoded, path, bits),
            _theirs(f"-b {bits} -d {path}"),
            n,
            rounds if bits < 24 else 1,
        )
    return growth


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _arms(size: Size, rounds: int) -> Growth:
    growth, dimension = Growth("Arms", "arms", "numpy"), 20
    for n_arms in _of(_ARMS, size):
        n = max(min(size.events // 10, 4 * size.events // n_arms), 3)
        problem = bandits.problem_of(n, n_arms, dimension)
        taught = bandits.everyone(n_arms, dimension)
        growth.add(n_arms, partial(_decided, problem, taught), partial(bandits.by_numpy, problem), n, rounds)
    return growth


def _dimensions(size: Size, rounds: int) -> Growth:
    growth, n_arms = Growth("Dimension of the context", "dimension", "numpy"), 10
    for dimension in _of(_DIMENSIONS, size):
        n = max(min(size.events // 10, 100 * size.events // dimension**2), 5)
        problem = bandits.problem_of(n, n_arms, dimension)
        taught = bandits.everyone(n_arms, dimension)
        growth.add(
            dimension, partial(_decided, problem, taught), partial(bandits.by_numpy, problem), n, rounds
        )
    return growth


# --- the cases --------------------------------------------------------------------------------------------


def _ours(path: Path) -> Callable[[], Callable[[], Any]]:
    pipeline = parse({"source": {"kind": "file", "path": str(path)}})

    def run() -> None:
        evaluate(pipeline)

    return lambda: run


def _theirs(arguments: str) -> Callable[[], Callable[[], Any]]:
    def run() -> None:
        pyvw.Workspace(f"--quiet --loss_function logistic {arguments}").finish()

    return lambda: run


def _decoded(path: Path, bits: int) -> Callable[[], None]:
    source = FileSource(Task("binary"), str(path))

    def run() -> None:
        learner = SGD(Task("binary"), bits=bits)  # its table is a part of the cost, as of VW's
        for chunk in source.chunks(None, 4096):
            learner.progress(chunk.batch)

    return run


def _decided(problem: Any, taught: Any) -> Callable[[], None]:
    policy = build("linucb", dimension=max(problem.contexts.shape[1], 128))
    policy.learn(taught)

    def run() -> None:
        policy.progress(problem.logged)

    return run


# --- the tables -------------------------------------------------------------------------------------------


def markdown(grown: Sequence[Growth]) -> str:
    """Lay out the tables."""
    lines = ["## As the work grows", "", _METHOD, ""]
    for growth in grown:
        header = [growth.x, "Penstock, µs", f"{growth.peer}, µs", "ratio"]
        rows = [
            [f"{size:,}", f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.2f}"]
            for size, ours, theirs in zip(growth.sizes, growth.ours, growth.theirs, strict=True)
        ]
        lines += [*table(header, rows), ""]
    return "\n".join(lines)


# --- the pictures -----------------------------------------------------------------------------------------

_PANEL, _GAP, _TOP, _PLOT, _BOTTOM, _LEFT, _RIGHT = 250, 30, 48, 190, 46, 50, 14
_STYLE: Final = """\
text{font:12px system-ui,sans-serif;fill:#333}.soft{fill:#667}.rule{stroke:#dde;stroke-width:1}
.line{fill:none;stroke-width:2}.ours{stroke:#0a7d5a;fill:#0a7d5a}.peer{stroke:#b3541e;fill:#b3541e}
.line.ours,.line.peer{fill:none}text.ours,text.peer{stroke:none}
@media(prefers-color-scheme:dark){svg{background:#15181d}text{fill:#dde}.soft{fill:#9aa}.rule{stroke:#334}
.ours{stroke:#3ecf9e;fill:#3ecf9e}.peer{stroke:#ff9a5c;fill:#ff9a5c}}"""
_PICTURES: Final = {"growth_learning.svg": slice(0, 3), "growth_bandits.svg": slice(3, 5)}


def write_pictures(grown: Sequence[Growth], directory: Path) -> None:
    """Draw the axes of learning into one file, and those of bandits into another."""
    for name, which in _PICTURES.items():
        (directory / name).write_text(draw(grown[which]), encoding="utf-8")


def draw(grown: Sequence[Growth]) -> str:
    """Return panels side by side as SVG, readable on white and on black; both axes are logarithmic."""
    width, height = len(grown) * (_PANEL + _GAP), _TOP + _PLOT + _BOTTOM
    parts = [part for i, growth in enumerate(grown) for part in _panel(growth, i * (_PANEL + _GAP))]
    title = "Microseconds per event: " + ", ".join(growth.title.lower() for growth in grown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(growth: Growth, left: float) -> Iterator[str]:
    is_power = growth.x == "bits"  # of two: logarithmic as it is
    xs = [float(size) if is_power else math.log10(size) for size in growth.sizes]
    curves = {"ours": growth.ours, "peer": growth.theirs}
    logs = {css: [math.log10(value) for value in values] for css, values in curves.items()}
    low = math.floor(min(map(min, logs.values())))
    high = max(math.ceil(max(map(max, logs.values()))), low + 1)
    span = max(xs[-1] - xs[0], 1e-9)

    def x_of(x: float) -> float:
        return left + _LEFT + (x - xs[0]) / span * (_PANEL - _LEFT - _RIGHT)

    def y_of(log: float) -> float:
        return _TOP + (high - log) / (high - low) * _PLOT

    yield f'<text x="{left + _LEFT}" y="18">{html.escape(growth.title)}</text>'
    yield f'<text class="soft" x="{left + _PANEL - _RIGHT}" y="36" text-anchor="end">µs</text>'
    for css, name, at in (("ours", "Penstock", 0), ("peer", growth.peer, 75)):
        yield f'<text class="{css}" x="{left + _LEFT + at}" y="36">{name}</text>'
    for power in range(low, high + 1):
        y = y_of(power)
        yield f'<path class="rule" d="M{left + _LEFT} {y:.1f}H{left + _PANEL - _RIGHT}"/>'
        label = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
        yield f'<text class="soft" x="{left + _LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    middle, foot = left + (_LEFT + _PANEL - _RIGHT) / 2, _TOP + _PLOT
    for x, label in _ticks(growth, xs):
        yield f'<text class="soft" x="{x_of(x):.1f}" y="{foot + 18}" text-anchor="middle">{label}</text>'
    yield f'<text class="soft" x="{middle}" y="{foot + 38}" text-anchor="middle">{growth.x}</text>'
    for css, values in logs.items():
        points = [(x_of(x), y_of(log)) for x, log in zip(xs, values, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline class="line {css}" points="{line}"/>'
        yield from (f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)


def _ticks(growth: Growth, xs: Sequence[float]) -> Iterator[tuple[float, str]]:
    if growth.x == "bits":
        yield from ((x, f"{x:g}") for x in xs)
        return
    names = {0: "1", 1: "10", 2: "100", 3: "1,000", 4: "10⁴", 5: "10⁵", 6: "10⁶", 7: "10⁷"}
    powers = [power for power in names if xs[0] - 1e-9 <= power <= xs[-1] + 1e-9]
    yield from ((float(power), names[power]) for power in powers)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__, parents=[size_options()])
    parser.add_argument("--pictures", type=Path, metavar="DIRECTORY", help="where the pictures go")
    options = parser.parse_args()
    size = size_of(options)
    grown = measure(size)
    sys.stdout.write(markdown(grown) + "\n" + machine(size))
    if options.pictures is not None:
        write_pictures(grown, options.pictures)


if __name__ == "__main__":
    main()
