"""How long it takes until anything happens: importing, asking for help, ten events."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import workload
from benchmarks.harness import Answer, Case, Ratio, Size, compare, main

__all__ = ["ask"]

_EVENTS: Final = 10

_METHOD: Final = """\
A process each, from its start to its end: wall time, and CPU time of the child. *python -c pass* is the
floor. `import penstock` imports none of numpy, River, Vowpal Wabbit, Kafka and pyarrow, nor does `--help`;
the embedded predictor needs numpy and the kernels; `evaluate` of ten events reads a configuration
(pydantic), learns and prints. River's package is empty until one of its modules is asked for. Byte code is
cached by the round that is not counted; half as many rounds as elsewhere."""

_IMPORTS: Final = {
    "floor: python -c pass": "pass",
    "import penstock": "import penstock",
    "from penstock import Predictor": "from penstock import Predictor",
    "import numpy": "import numpy",
    "from river import linear_model": "from river import linear_model",
    "import vowpalwabbit.pyvw": "import vowpalwabbit.pyvw",
}


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        path = Path(directory)
        workload.write_json(path / "events.jsonl", workload.events(_EVENTS))
        (path / "pipeline.yaml").write_text("source: {kind: file, path: events.jsonl}\n")
        commands = {name: ["-c", code] for name, code in _IMPORTS.items()}
        commands["penstock --help"] = ["-m", "penstock", "--help"]
        commands["penstock evaluate, ten events"] = ["-m", "penstock", "evaluate", "pipeline.yaml"]
        cases = [Case(name, partial(_prepared, arguments, path)) for name, arguments in commands.items()]
        measured = compare(cases, items=1, rounds=size.rounds // 2 + 1)
    river, vw = measured["from river import linear_model"], measured["import vowpalwabbit.pyvw"]
    return Answer(
        title="Starting",
        method=_METHOD,
        item="start",
        measured=list(measured.values()),
        ratios=[
            Ratio(measured[name], peer)
            for name in ("import penstock", "penstock --help", "from penstock import Predictor")
            for peer in (vw, river)
        ],
        unit="ms",
    )


def _prepared(arguments: list[str], path: Path) -> partial[None]:
    return partial(_start, arguments, path)


def _start(arguments: list[str], path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(path / "cache")
    subprocess.run([sys.executable, *arguments], cwd=path, env=environment, check=True, capture_output=True)


if __name__ == "__main__":
    main(ask)
