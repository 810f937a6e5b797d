"""What several learners at once cost, against a run for each of them."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import workload
from benchmarks.harness import Answer, Case, Ratio, Size, compare, main
from penstock.config import parse
from penstock.evaluate import evaluate

__all__ = ["ask"]

_TIMES: Final = 4  # the events over again, as in `benchmarks.files`
_LEARNERS: Final[dict[str, dict[str, Any]]] = {
    "nag": {"kind": "sgd"},
    "slow": {"kind": "sgd", "learning_rate": 0.1},
    "adagrad": {"kind": "sgd", "update": "adagrad"},
    "ftrl": {"kind": "sgd", "update": "ftrl"},
}

_METHOD: Final = """\
Four native learners in one `evaluate` of a file, each with all its metrics, against four runs with one
learner each, one after the other, and against the first of them alone. What the runs would do four times, one
does once: reading, decoding, hashing, both baselines; and two learners progress at a time, on two cores, as
their kernels run without the interpreter. On a busy machine the ratio of CPU times is what is left."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = workload.events(size.events)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        lines, table = Path(directory) / "events.jsonl", Path(directory) / "events.parquet"
        workload.write_json(lines, stream, _TIMES)
        workload.write_parquet(table, stream, _TIMES)
        cases = []
        for name, path in (("JSON lines", lines), ("Parquet", table)):
            cases += [
                Case(f"four at once, {name}", partial(partial, _run, path, [list(_LEARNERS)])),
                Case(f"four runs, {name}", partial(partial, _run, path, [[one] for one in _LEARNERS])),
                Case(f"one run, one learner, {name}", partial(partial, _run, path, [["nag"]])),
            ]
        measured = compare(cases, items=_TIMES * len(stream), rounds=size.rounds)
    return Answer(
        title="Several learners at once",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            Ratio(
                measured[f"four at once, {name}"],
                measured[f"four runs, {name}"],
                target=2.0,
                parts=[measured[f"one run, one learner, {name}"]],
            )
            for name in ("JSON lines", "Parquet")
        ],
    )


def _run(path: Path, groups: list[list[str]]) -> dict[str, float]:
    losses = {}
    for names in groups:
        learners = {name: _LEARNERS[name] for name in names}
        found = evaluate(parse({"source": {"kind": "file", "path": str(path)}, "learners": learners}))
        losses |= {f"{name}: log loss": found.learners[name]["logloss"] for name in names}
    return losses


if __name__ == "__main__":
    main(ask)
