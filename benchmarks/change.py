"""What an answer to drift does to the learner, and what of it the gate lets through to serving.

``python -m benchmarks.change [--events N] [--data DIRECTORY]`` prints the table of docs/promotion.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from river.datasets import synth
from tqdm import tqdm

from penstock import learners
from penstock.config import Reaction, parse
from penstock.engine import Engine
from penstock.events import Batch, Task, TaskKind
from penstock.learners import Model
from penstock.metrics import bounded_losses

__all__ = ["Row", "Stream", "measure", "streams"]

_DATA: Final = Path(__file__).parents[2] / "shared" / "data"
_HURTS: Final = 0.005  # more loss than this is not chance in the table
_FALSE: Final = ", false alarms"
_RINGS: Final = {"kind": "hddm_w", "on": "error", "confidence": 0.1}
_N_CONCEPTS: Final = 4  # the first and the second, twice


@dataclass(frozen=True, slots=True)
class Stream:
    """Events in order, of a task."""

    name: str
    task: TaskKind
    events: Batch


@dataclass(frozen=True, slots=True)
class Row:
    """One learner on one stream with one reaction.

    Attributes
    ----------
    live, served : float
        Mean Brier loss, halved for classes, of the learner and of the snapshot that served, each event
        predicted before it was learned. Before the first promotion the label frequencies serve.
    alarms : int
        Of a loss that rose.
    """

    stream: str
    learner: str
    reaction: str
    live: float
    served: float
    alarms: int


def _by_turns(first: Any, second: Any, n: int) -> tuple[list[dict[Any, Any]], list[float]]:
    """Take `n` events from two endless streams by turns."""
    sources = [iter(first), iter(second)]
    pairs = [
        pair for turn in range(_N_CONCEPTS) for pair in islice(sources[turn % 2], max(n // _N_CONCEPTS, 1))
    ]
    return [dict(row) for row, _ in pairs], [float(label) for _, label in pairs]


def _synthetic(n: int) -> Iterator[Stream]:
    kinds: Mapping[str, tuple[TaskKind, Any, Any]] = {
        "SEA": ("binary", synth.SEA(variant=0, seed=1, noise=0.1), synth.SEA(variant=2, seed=2, noise=0.1)),
        "Agrawal": (
            "binary",
            synth.Agrawal(classification_function=0, seed=1, perturbation=0.05),
            synth.Agrawal(classification_function=3, seed=2, perturbation=0.05),
        ),
        "LED": (
            "multiclass",
            synth.LED(seed=1, noise_percentage=0.1, irrelevant_features=True),
            synth.LEDDrift(seed=2, noise_percentage=0.1, irrelevant_features=True, n_drift_features=7),
        ),
    }
    for name, (task, first, second) in kinds.items():
        rows, labels = _by_turns(first, second, n)
        yield Stream(name, task, Batch.from_rows([_named(row) for row in rows], labels))


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _table(path: Path, n: int, is_positive: Callable[[str], bool], label: str, drop: Sequence[str]) -> Batch:
    rows, labels = [], []
    with gzip.open(path, "rt", newline="") as file:
        for record in islice(csv.DictReader(file), n):
            labels.append(float(is_positive(record[label])))
            rows.append({key: _value(text) for key, text in record.items() if key not in (label, *drop)})
    return Batch.from_rows(rows, labels)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def streams(n: int, data: Path) -> Iterator[Stream]:
    """Give the streams, `n` events of each; real ones only if they lie in `data`."""
    elec2, airlines = data / "elec2.csv.gz", data / "airlines_2001q1.csv.gz"
    if elec2.exists():
        yield Stream("Elec2", "binary", _table(elec2, n, lambda label: label in ("UP", "1"), "class", ()))
    if airlines.exists():
        late = _table(airlines, n, lambda label: label in ("1", "True", "true"), "delayed", ("delay",))
        yield Stream("airlines", "binary", late)
    yield from _synthetic(n)
    rows, labels = _by_turns(synth.SEA(seed=1, noise=0.1), synth.SEA(seed=2, noise=0.1), n)
    yield Stream(f"SEA{_FALSE}", "binary", Batch.from_rows([_named(row) for row in rows], labels))


def _learners(task: TaskKind) -> Mapping[str, dict[str, Any]]:
    vw = (
        "--loss_function logistic"
        if task == "binary"
        else "--oaa 10 --loss_function logistic --probabilities"
    )
    return {
        "sgd": {"kind": "sgd"},
        "river tree": {
            "kind": "river",
            "model": "tree.HoeffdingAdaptiveTreeClassifier",
            "params": {"seed": 1},
        },
        "vw": {"kind": "vw", "args": vw},
    }


def measure(stream: Stream, learner: str, reaction: str) -> Row:
    """Run one learner over a stream; one of false alarms is watched by a detector that rings for nothing."""
    detector = _RINGS if stream.name.endswith(_FALSE) else {"kind": "adwin", "direction": "up"}
    engine = Engine(
        parse(
            {
                "task": stream.task,
                "source": {"kind": "memory", "rows": [], "labels": []},
                "learners": {"one": _learners(stream.task)[learner]},
                "drift": [{**detector, "react": reaction}],
                "replay": {"kind": "reservoir", "size": 2000, "ratio": 0.0},
                "shadow": {"retry_after": 1000},
            }
        )
    )
    assert engine.shadow is not None
    task, alarms = Task(stream.task), 0
    prior = learners.build("prior", task)
    served: list[float] = []
    for tick in engine.ticks(stream.events):
        model, frequencies = engine.shadow.model, prior.progress(tick)
        predictions = model.predict(tick) if isinstance(model, Model) else frequencies
        served += bounded_losses(task, predictions, tick.labels).tolist()
        alarms += sum(
            notice.what == "drift" and notice.evidence["after"] > notice.evidence["before"]
            for notice in engine.progress(tick)
        )
    return Row(
        stream=stream.name,
        learner=learner,
        reaction=reaction,
        live=engine.metrics()["one"]["brier"],
        served=float(np.mean(served)),
        alarms=alarms,
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table, a line for each stream and learner: loss of the learner, and of what served."""
    reactions = get_args(Reaction)
    yield f"| stream | learner | alarms | {' | '.join(reactions)} |"
    yield "|---|---|---|" + "---|" * len(reactions)
    for stream, learner in dict.fromkeys((row.stream, row.learner) for row in rows):
        found = {row.reaction: row for row in rows if (row.stream, row.learner) == (stream, learner)}
        plain = found["log"]
        cells = []
        for reaction in reactions:
            row = found.get(reaction)
            if row is None:
                cells.append("-")
                continue
            live = f"**{row.live:.4f}**" if row.live > plain.live + _HURTS else f"{row.live:.4f}"
            served = f"**{row.served:.4f}**" if row.served > plain.served + _HURTS else f"{row.served:.4f}"
            cells.append(f"{live} → {served}")
        yield f"| {stream} | {learner} | {plain.alarms} | {' | '.join(cells)} |"


def _summary(rows: Sequence[Row]) -> str:
    plain = {(row.stream, row.learner): row for row in rows if row.reaction == "log"}
    pairs = [(row, plain[row.stream, row.learner]) for row in rows if row.reaction != "log"]
    helped = sum(row.live < one.live - _HURTS for row, one in pairs)
    hurt = [(row, one) for row, one in pairs if row.live > one.live + _HURTS]
    through = [(row, one) for row, one in pairs if row.served > one.served + _HURTS]
    passed = sum(row.served > one.served + _HURTS for row, one in hurt)
    better = sum(row.served < one.served - _HURTS for row, one in pairs)
    worst = max((row.served - one.served for row, one in through), default=0.0)
    return (
        f"Of {len(pairs)} reactions {helped} lowered the learner's loss by more than {_HURTS}, and "
        f"{len(hurt)} "
        f"raised it by\nmore; of these {len(hurt)}, {passed} raised the loss of what served by more. "
        f"In all, {len(through)} did, by\n{worst:.4f} at most; {better} lowered it by more."
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.change", description=__doc__)
    parser.add_argument("--events", type=int, default=8000, help="of each stream (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=_DATA, help="where the real streams lie")
    options = parser.parse_args()
    rows = []
    started = time.perf_counter()
    cases = [
        (stream, learner, reaction)
        for stream in streams(options.events, options.data)
        for learner in _learners(stream.task)
        for reaction in get_args(Reaction)
        if reaction != "bump" or learner == "sgd"
    ]
    for stream, learner, reaction in tqdm(cases, unit=" runs", disable=None, leave=False):
        rows.append(measure(stream, learner, reaction))
    sys.stdout.write("\n".join(_lines(rows)) + f"\n\n{_summary(rows)}\n")
    sys.stderr.write(f"{len(cases)} runs in {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()
