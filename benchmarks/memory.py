"""Whether memory stays flat while the stream goes on: peak resident sizes of processes of their own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import workload
from benchmarks.harness import Answer, AtMost, Measured, Size, main, size_of, size_options

__all__ = ["ask"]

_LENGTHS: Final = (2, 20, 200)  # times the events of other benchmarks: 10^5, 10^6 and 10^7
_PEERS_LENGTHS: Final = {"River": (2, 10), "VW": _LENGTHS[:2]}
_DISTINCT: Final = 2_000

_METHOD: Final = """\
JSON of the twenty features (two thousand different records, again and again) and one feature more, a text
that no event shares with another, written into a pipe by another process. *Penstock, all guards* is
`evaluate` with one `sgd`, all metrics, ADWIN, a reservoir of 2,000 events replayed one for ten, shadow and
gate: what it knows is a table of 2^18 weights, and buffers that have a size. VW is its own driver
(`--json`). River's `StandardScaler | LogisticRegression` keeps an entry of a dict for every name that it has
seen, hence grows. The peers are not asked for the longest stream.

Peak resident size as the kernel counts it (`ru_maxrss`), and the size after importing. Every run is a process
of its own, once; times are for orientation, and the pipe's writer has to keep up."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    measured: dict[tuple[str, int], Measured] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        for name in _RUNS:
            for length in _PEERS_LENGTHS.get(name, _LENGTHS):
                n = length * size.events
                label = f"{_TITLES[name]}, {n:,} events"
                measured[name, length] = _child(label, name, n, Path(directory))
    _, middle, last = _LENGTHS
    return Answer(
        title="Memory as the stream goes on",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            AtMost(
                f"Peak of *{_TITLES['all']}* over {last * size.events:,} events, against that over a tenth",
                [measured["all", last].extras["peak MB"] / measured["all", middle].extras["peak MB"]],
                1.05,
            )
        ],
    )


def _child(label: str, name: str, n: int, directory: Path) -> Measured:
    """Run one case over a pipe."""
    pipe = directory / f"{name}-{n}.jsonl"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "benchmarks.memory", "--pipe", str(pipe), "--events", str(n)]
    with subprocess.Popen([*command, "--write", "--run", name]) as writer:
        try:
            done = subprocess.run([*command, "--run", name], capture_output=True, text=True, check=True)
        except BaseException:
            writer.kill()
            raise
    found = json.loads(done.stdout)
    return Measured(label, [found.pop("wall")], [found.pop("cpu")], found)


# --- the children -----------------------------------------------------------------------------------------


def _penstock(guards: Mapping[str, Any]) -> Callable[[str, int], int]:
    from penstock.config import parse
    from penstock.evaluate import evaluate

    def run(path: str, n: int) -> int:
        return evaluate(parse({"source": {"kind": "file", "path": path}, **guards})).events

    return run


def _vw() -> Callable[[str, int], int]:
    from vowpalwabbit import pyvw

    def run(path: str, n: int) -> int:
        workspace = pyvw.Workspace(f"--quiet --loss_function logistic --json --chain_hash -d {path}")
        seen = int(workspace.get_weighted_examples())
        workspace.finish()
        return seen

    return run


def _river() -> Callable[[str, int], int]:
    import orjson
    from river import linear_model, preprocessing

    def run(path: str, n: int) -> int:
        model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        seen = 0
        with Path(path).open("rb") as lines:
            for line in lines:
                record = orjson.loads(line)
                label = record.pop("label") == 1
                x = {
                    f"{k}={v}" if type(v) is str else k: 1.0 if type(v) is str else v
                    for k, v in record.items()
                }
                model.predict_proba_one(x)
                model.learn_one(x, label)
                seen += 1
        return seen

    return run


_GUARDS: Final = {
    "drift": [{"kind": "adwin", "on": "loss"}],
    "replay": {"kind": "reservoir", "size": 2000, "ratio": 0.1},
    "shadow": {"refresh_every": 10_000},
}
_RUNS: Final[Mapping[str, Callable[[], Callable[[str, int], int]]]] = {
    "all": partial(_penstock, _GUARDS),
    "VW": _vw,
    "River": _river,
}
_TITLES: Final = {"all": "Penstock, all guards", "VW": "VW --json", "River": "River"}


def _run(name: str, path: str, n: int) -> None:
    """Run one case, and print what it took as JSON."""
    run = _RUNS[name]()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    seen = run(path, n)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if seen != n:
        raise SystemExit(f"{name}: {n} events were written, and {seen} read")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"wall": 1e6 * wall / n, "cpu": 1e6 * cpu / n, "MB at the start": start / 1024}
    sys.stdout.write(json.dumps({**found, "peak MB": peak / 1024}))


def _lines(name: str, n: int) -> Iterator[bytes]:
    """Yield n records, a thousand at a time."""
    stream = workload.events(min(n, _DISTINCT))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        path = Path(directory) / "events"
        (workload.write_vw_json if name == "VW" else workload.write_json)(path, stream)
        records = [line[1:] for line in path.read_bytes().splitlines(keepends=True)]
    for start in range(0, n, 1000):
        numbers = range(start, min(start + 1000, n))
        yield b"".join(b'{"request":"r%d",%b' % (i, records[i % len(records)]) for i in numbers)


def _write(name: str, path: str, n: int) -> None:
    with Path(path).open("wb") as pipe:
        for part in _lines(name, n):
            pipe.write(part)


def _command() -> None:
    parser = argparse.ArgumentParser(description=__doc__, parents=[size_options()])
    parser.add_argument("--pipe", help=argparse.SUPPRESS)
    parser.add_argument("--run", choices=_RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pipe is None:
        main(ask)
    else:
        (_write if options.write else _run)(options.run, options.pipe, size_of(options).events)


if __name__ == "__main__":
    _command()
