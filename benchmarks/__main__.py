"""Ask every question, print the answers, and write them to a file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from tqdm import tqdm

from benchmarks import (
    bandits,
    files,
    growth,
    guards,
    harness,
    kafka,
    memory,
    parts,
    prequential,
    serving,
    several,
    startup,
    swapping,
)

_RESULTS: Final = Path(__file__).parent / "results.md"
_PICTURES: Final = Path(__file__).parents[1] / "docs"
_QUESTIONS: Final = (
    prequential.ask,
    serving.ask,
    swapping.ask,
    files.ask,
    several.ask,
    guards.ask,
    parts.ask_drift,
    parts.ask_metrics,
    bandits.ask,
    bandits.ask_many_arms,
    bandits.ask_shared,
    memory.ask,
    startup.ask,
)

_INTRODUCTION: Final = """\
# How fast, against whom

Written by `python -m benchmarks` (`make bench`). Every ratio compares runs of the same round, in the same
process, on the same events; above 1, the first is the faster one. Absolute times are this machine's, and
nobody else's. Behind a target stands whether it was reached; what is missed is explained in
[docs/performance.md](../docs/performance.md).
"""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__, parents=[harness.size_options()])
    parser.add_argument(
        "--out", type=Path, help="where to write (default: benchmarks/results.md, or nowhere with --quick)"
    )
    options = parser.parse_args()
    size = harness.size_of(options)
    out = options.out or (None if options.quick else _RESULTS)
    answers = []
    questions = [*_QUESTIONS]
    if (reason := kafka.unavailable()) is None:
        questions.append(kafka.ask)
    else:
        sys.stderr.write(f"without Kafka: {reason}\n")
    with tqdm(total=len(questions) + 1, unit=" questions", disable=None, leave=False) as bar:
        for ask in questions:
            began = time.perf_counter()
            answers.append(ask(size).markdown())
            _say(answers[-1], began, bar)
        began = time.perf_counter()
        grown = growth.measure(size)
        answers.append(growth.markdown(grown))
        _say(answers[-1], began, bar)
    if reason is not None:
        answers.append(f"## Learning from Kafka\n\n*Not measured: {reason}.*\n")
    machine = harness.machine(size)
    sys.stdout.write(machine)
    if out is not None:
        out.write_text("\n".join([_INTRODUCTION, machine, *answers]))
    if out == _RESULTS:
        growth.write_pictures(grown, _PICTURES)


def _say(answer: str, began: float, bar: tqdm[NoReturn]) -> None:
    """Print an answer, and how long it took to find."""
    tqdm.write(answer, file=sys.stdout)
    tqdm.write(f"({time.perf_counter() - began:.0f} s)\n", file=sys.stdout)
    bar.update()


if __name__ == "__main__":
    main()
