"""Ask every question, print the answers, and write them to a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tqdm import tqdm

from benchmarks import bandits, files, guards, harness, kafka, parts, prequential, serving

_RESULTS: Final = Path(__file__).parent / "results.md"
_QUESTIONS: Final = (
    prequential.ask,
    serving.ask,
    files.ask,
    guards.ask,
    parts.ask_drift,
    parts.ask_metrics,
    bandits.ask,
    bandits.ask_many_arms,
    bandits.ask_shared,
)

_INTRODUCTION: Final = """\
# How fast, against whom

Written by `python -m benchmarks` (`make bench`). Every ratio compares runs of the same round, in the same
process, on the same events; above 1, the first is the faster one. Absolute times are this machine's, and
nobody else's.
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
    for ask in tqdm(questions, unit=" questions", disable=None, leave=False):
        answers.append(ask(size).markdown())
        tqdm.write(answers[-1], file=sys.stdout)
    machine = harness.machine(size)
    sys.stdout.write(machine)
    if out is not None:
        out.write_text("\n".join([_INTRODUCTION, machine, *answers]))


if __name__ == "__main__":
    main()
