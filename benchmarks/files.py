"""How fast a file is learned, from its bytes to the last score."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from vowpalwabbit import pyvw

from benchmarks import workload
from benchmarks.harness import Answer, Case, Extras, Ratio, Size, compare, main
from penstock.config import parse
from penstock.evaluate import evaluate
from penstock.events import Batch, Task
from penstock.sources.file import FileSource
from penstock.sources.memory import MemorySource

__all__ = ["ask"]

_READ: Final = 4096  # events at a time, as `penstock evaluate` reads them
_TIMES: Final = 4  # the events over again, so that what a run costs however short it is does not count

_METHOD: Final = """\
The same events as files, four times over, all in the page cache. *Penstock evaluate* is the function behind
the command, from opening the file to the digest of the final state: every line read, checked, hashed,
predicted, scored by all metrics beside both baselines, learned. VW is its own file driver, which the Python
package runs for a workspace with `-d`: it keeps one loss. It parses in a thread of its own, so look at the
CPU time too. VW is given `--chain_hash` with JSON, which makes its model the same as Penstock's, to the
printed digits of the loss. Its cache is its own binary format, written beforehand, with names hashed already.
*Decode alone* is the source without the engine, *learning alone* the engine without the source, on batches
that were hashed before the clock started. Files are decoded in a thread of their own, ahead of the learner:
neither of the two can be done without, and wall time is the longer one's at best.

The floors: reading the bytes, and `orjson.loads` of each line."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = workload.events(size.events)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        path = Path(directory)
        workload.write_json(path / "events.jsonl", stream, _TIMES)
        workload.write_csv(path / "events.csv", stream, _TIMES)
        workload.write_parquet(path / "events.parquet", stream, _TIMES)
        workload.write_vw(path / "events.vw", stream, _TIMES)
        workload.write_vw_json(path / "events.json", stream, _TIMES)
        batches = [
            chunk.batch
            for chunk in MemorySource(Task("binary"), stream.rows, stream.labels).chunks(None, _READ)
        ]
        cache = f"-d {path / 'events.vw'} --cache_file {path / 'events.cache'}"
        _vw(cache + " --kill_cache")
        measured = compare(
            [
                Case("floor: reading the bytes (JSON)", lambda: partial(_read, path / "events.jsonl")),
                Case("floor: orjson.loads", lambda: partial(_loads, path / "events.jsonl")),
                Case("Penstock decode alone, JSON lines", lambda: partial(_decode, path / "events.jsonl")),
                Case("Penstock decode alone, CSV", lambda: partial(_decode, path / "events.csv")),
                Case("Penstock decode alone, Parquet", lambda: partial(_decode, path / "events.parquet")),
                Case("Penstock decode alone, VW text", lambda: partial(_decode, path / "events.vw")),
                Case("Penstock learning alone", partial(_learning, batches)),
                Case("Penstock evaluate, JSON lines", lambda: partial(_evaluate, path / "events.jsonl")),
                Case("Penstock evaluate, CSV", lambda: partial(_evaluate, path / "events.csv")),
                Case("Penstock evaluate, Parquet", lambda: partial(_evaluate, path / "events.parquet")),
                Case("Penstock evaluate, VW text", lambda: partial(_evaluate, path / "events.vw")),
                Case("VW --json", lambda: partial(_vw, f"--json --chain_hash -d {path / 'events.json'}")),
                Case("VW text", lambda: partial(_vw, f"-d {path / 'events.vw'}")),
                Case("VW cache", lambda: partial(_vw, cache)),
            ],
            items=_TIMES * len(stream),
            rounds=size.rounds,
        )
    json, csv = measured["Penstock evaluate, JSON lines"], measured["Penstock evaluate, CSV"]
    decoding = {form: measured[f"Penstock decode alone, {form}"] for form in ("JSON lines", "CSV", "Parquet")}
    learning = measured["Penstock learning alone"]
    parquet, text = measured["Penstock evaluate, Parquet"], measured["Penstock evaluate, VW text"]
    return Answer(
        title="Learning from files",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            Ratio(
                json,
                measured["VW --json"],
                target=2.5,
                cpu_target=4.0,
                parts=(decoding["JSON lines"], learning),
            ),
            Ratio(csv, measured["VW text"], target=3.0, parts=(decoding["CSV"], learning)),
            Ratio(parquet, measured["VW cache"], target=2.0, parts=(decoding["Parquet"], learning)),
            Ratio(text, measured["VW text"]),
            Ratio(json, measured["floor: orjson.loads"]),
            Ratio(measured["Penstock decode alone, JSON lines"], measured["floor: orjson.loads"]),
        ],
    )


def _read(path: Path) -> None:
    path.read_bytes()


def _loads(path: Path) -> None:
    with path.open("rb") as lines:
        for line in lines:
            orjson.loads(line)


def _decode(path: Path) -> None:
    for _ in FileSource(Task("binary"), str(path)).chunks(None, _READ):
        pass


def _learning(batches: list[Batch]) -> Callable[[], Extras]:
    engine = workload.bare_engine()

    def run() -> Extras:
        for _ in range(_TIMES):
            for batch in batches:
                engine.progress(batch)
        return {"log loss": engine.metrics()["sgd"]["logloss"]}

    return run


def _evaluate(path: Path) -> Extras:
    source: dict[str, Any] = {"kind": "file", "path": str(path)}
    return {"log loss": evaluate(parse({"source": source})).learners["sgd"]["logloss"]}


def _vw(arguments: str) -> Extras:
    workspace = pyvw.Workspace(f"--quiet --loss_function logistic {arguments}")
    loss = workspace.get_sum_loss() / workspace.get_weighted_examples()
    workspace.finish()
    return {"log loss": loss}


if __name__ == "__main__":
    main(ask)
