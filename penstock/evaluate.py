"""The offline front: the same engine over logged data, its scores as a table, JSON or a page."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TextIO

from tqdm import tqdm

import penstock
from penstock import report, sources
from penstock.config import Pipeline
from penstock.dead_letters import DeadLetters
from penstock.engine import BASELINES, Engine
from penstock.errors import DataError
from penstock.events import Batch
from penstock.metrics import HIGHER_IS_BETTER, PRIMARY
from penstock.notices import Notice
from penstock.sources import Rejected

__all__ = ["Evaluation", "evaluate"]

_MAX_REASONS: Final = 10  # of bad records that are printed; the rest are counted
_MAX_POINTS: Final = 400  # of a curve; past that every second one is dropped and the step doubled


class _Table:
    """Progressive scores in VW's habit: the average since the start, and since the last line."""

    def __init__(self, engine: Engine, progress: float, out: TextIO) -> None:
        self._engine = engine
        self._metric = PRIMARY[engine.task.kind]
        self._progress = progress
        self._out = out
        self._last: dict[str, tuple[float, float]] = {}
        self._grows = isinstance(progress, float)
        self.next_at = 1 if self._grows else int(progress)
        self._printed_at = 0
        self._header()

    def _write(self, line: str) -> None:
        tqdm.write(line, file=self._out)  # above the progress bar, if there is one

    def _header(self) -> None:
        names = list(self._engine.averages())
        self._write(f"{self._metric}, average since start and since the last line")
        self._write("")
        self._write("      events " + " ".join(f"{name[:17]:>17}" for name in names))
        self._write("             " + " ".join(f"{'average   since':>17}" for _ in names))

    def see(self) -> None:
        """Print a line if it is time."""
        if self._engine.n_events >= self.next_at:
            self.line()
            if self._grows:
                while self.next_at <= self._engine.n_events:
                    self.next_at = max(self.next_at + 1, int(self.next_at * self._progress))
            else:
                self.next_at += int(self._progress)

    def line(self) -> None:
        """Print one line for where the stream is now."""
        self._printed_at = self._engine.n_events
        cells = []
        for name, scores in self._engine.averages().items():
            weight, average = scores.total_weight, scores.report().get(self._metric)
            if average is None:
                cells.append(f"{'-':>8} {'-':>8}")
                continue
            last_weight, last_average = self._last.get(name, (0.0, 0.0))
            since = (
                (average * weight - last_average * last_weight) / (weight - last_weight)
                if weight > last_weight
                else average
            )
            self._last[name] = (weight, average)
            cells.append(f"{_short(average)} {_short(since)}")
        self._write(f"{self._printed_at:12,} " + " ".join(cells))

    def close(self) -> None:
        """Print the last line, if the stream ended between two."""
        if self._engine.n_events > self._printed_at:
            self.line()

    def notice(self, notice: Notice) -> None:
        """Print what the engine said."""
        self._write(f"{notice.event:12,} {notice.what}: {notice.text}")

    def rejected(self, rejected: Sequence[Rejected], n_before: int) -> None:
        """Print why records were left out, of the first few."""
        for letter in rejected[: max(_MAX_REASONS - n_before, 0)]:
            self._write(f"{'left out':>12} {letter.reason}")


def _short(value: float) -> str:
    """Eight characters, whatever the size."""
    size = abs(value)
    return f"{value:8.4f}" if size < 100 else f"{value:8.1f}" if size < 1e5 else f"{value:8.1e}"


class _Curves:
    """Scores at some hundreds of evenly spaced events, for the page."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._step = engine.pipeline.tick
        self.next_at = self._step
        self.events: list[int] = []
        self.points: list[dict[str, dict[str, float]]] = []
        self.trials: dict[int, list[tuple[int, float]]] = {}
        self.anchored: list[tuple[int, dict[int, dict[str, float]]]] = []

    def see(self) -> None:
        """Take a point if it is time."""
        if self._engine.shadow is not None and self._engine.n_events % self._engine.pipeline.tick == 0:
            for version, log_e in self._engine.shadow.trials.items():
                self.trials.setdefault(version, []).append((self._engine.n_events, log_e))
        anchored = self._engine.anchored
        if anchored and (not self.anchored or anchored != self.anchored[-1][1]):
            self.anchored.append((self._engine.n_events, anchored))
        if self._engine.n_events < self.next_at:
            return
        self.events.append(self._engine.n_events)
        self.points.append({name: scores.report() for name, scores in self._engine.averages().items()})
        if len(self.events) > _MAX_POINTS:
            self.events, self.points = self.events[1::2], self.points[1::2]
            self._step *= 2
        self.next_at = self._engine.n_events // self._step * self._step + self._step

    def series(self) -> dict[str, dict[str, report.Curve]]:
        """Every score of everyone, over the whole stream and over the window, in step with `events`."""
        return {
            name: {
                metric: {
                    "average": [point[name].get(metric) for point in self.points],
                    "window": [point[name].get(f"window_{metric}") for point in self.points],
                }
                for metric in HIGHER_IS_BETTER
                if any(metric in point[name] for point in self.points)
            }
            for name in self._engine.averages()
        }


@dataclass(kw_only=True)
class Evaluation:
    """What an evaluation found."""

    pipeline: Pipeline
    events: int
    rejected: int
    seconds: float
    digest: str
    learners: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
    notices: list[Notice] = field(default_factory=list)
    forgetting: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: _Curves | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "events": self.events,
            "rejected": self.rejected,
            "seconds": round(self.seconds, 3),
            "digest": self.digest,
            "learners": self.learners,
            "baselines": self.baselines,
            "drifts": [_plain(notice) for notice in self._of("drift")],
            "promotions": [_plain(notice) for notice in self._of("promoted")],
            "rollbacks": [_plain(notice) for notice in self._of("rolled_back")],
            "rejections": [_plain(notice) for notice in self._of("rejected", "withheld")],
            **({"forgetting": self.forgetting} if self.forgetting else {}),
        }

    def as_report(self, *, notes: Sequence[str] = (), marks: Sequence[report.Mark] = ()) -> report.Report:
        """Return what `penstock.report` draws; needs an evaluation that kept its curves."""
        assert self.curves is not None
        return {
            "name": self.pipeline.name,
            "task": self.pipeline.task,
            "source": _describe(self.pipeline),
            "events": self.events,
            "seconds": self.seconds,
            "digest": self.digest,
            "version": penstock.__version__,
            "rejected": self.rejected,
            "primary": PRIMARY[self.pipeline.task],
            "higher_is_better": HIGHER_IS_BETTER,
            "curves": {
                "events": self.curves.events,
                "series": self.curves.series(),
                "baselines": list(self.baselines),
            },
            "table": {
                name: {metric: scores.get(metric) for metric in HIGHER_IS_BETTER if metric in scores}
                for name, scores in {**self.learners, **self.baselines}.items()
            },
            "drifts": [
                {
                    "event": notice.event,
                    "learner": notice.learner,
                    "detector": notice.evidence["detector"],
                    "before": notice.evidence["before"],
                    "after": notice.evidence["after"],
                    "reaction": notice.evidence["reaction"],
                    "features": [shift["feature"] for shift in notice.evidence.get("features", [])],
                }
                for notice in self._of("drift")
            ],
            "promotions": [
                {
                    "event": notice.event,
                    "version": notice.version or 0,
                    "learner": notice.learner,
                    "how": notice.how or "refresh",
                    "evidence": {
                        "e_value": _exp(notice.evidence["log_e"]),
                        "threshold": _exp(notice.evidence["threshold"]),
                        "events": notice.evidence["events"],
                        "gain": notice.evidence["gain"],
                    },
                }
                for notice in self._of("promoted", "rolled_back")
            ],
            "decisions": [
                {"event": n.event, "what": n.what, "learner": n.learner, "text": n.text}
                for n in self.notices
                if n.what in ("opened", "reacted", "rejected", "stale", "withheld")
            ],
            "gate": [self._trial(notice) for notice in self._of("opened")],
            "notes": list(notes),
            "marks": list(marks),
            "memory": [self._remembered(name, found) for name, found in self.forgetting.items()],
        }

    def _remembered(self, learner: str, found: Mapping[str, Any]) -> report.Remembered:
        """Return what a learner knew of each stratum whenever it was asked, and at the end."""
        assert self.curves is not None
        strata: list[report.Stratum] = []
        for stratum in found["strata"]:
            first = stratum["from"]
            points = {
                event: scores[first][learner]
                for event, scores in self.curves.anchored
                if learner in scores.get(first, {})
            } | {self.events: stratum["now"]}
            strata.append({"first": first, "events": list(points), "scores": list(points.values())})
        return {
            "learner": learner,
            "backward_transfer": found["backward_transfer"],
            "average_forgetting": found["average_forgetting"],
            "strata": strata,
        }

    def _of(self, *what: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.what in what]

    def _trial(self, opened: Notice) -> report.Trial:
        """Return the e-process of one candidate, closed by the verdict that names its version."""
        assert self.curves is not None
        verdict = next(
            (n for n in self.notices if n.version == opened.version and n.what in ("promoted", "rejected")),
            None,
        )
        points = self.curves.trials.get(opened.version or 0, [])
        log_e = [(event, value) for event, value in points]
        if verdict is not None:
            log_e.append((verdict.event, verdict.evidence["log_e"]))
        return {
            "version": opened.version or 0,
            "learner": opened.learner,
            "opened": opened.event,
            "closed": verdict.event if verdict else None,
            "outcome": "open"
            if verdict is None
            else "promoted"
            if verdict.what == "promoted"
            else "rejected",
            "events": [event for event, _ in log_e],
            "log_e": [value for _, value in log_e],
            "threshold": opened.evidence["threshold"],
        }


def _describe(pipeline: Pipeline) -> str:
    """One line on where the events came from."""
    parameters = pipeline.source.parameters
    what = parameters.get("path") or parameters.get("dataset") or pipeline.source.kind
    return Path(str(what)).name


def _exp(log: float) -> float:
    return math.exp(min(log, 700.0))


def _plain(notice: Notice) -> dict[str, Any]:
    plain: dict[str, Any] = {"event": notice.event, "learner": notice.learner, "text": notice.text}
    if notice.version is not None:
        plain |= {"version": notice.version, "how": notice.how}
    return {**plain, **notice.evidence}


def evaluate(
    pipeline: Pipeline,
    *,
    limit: int | None = None,
    batch: int = 4096,
    progress: float = 2.0,
    table: TextIO | None = None,
    curves: bool = False,
) -> Evaluation:
    """Run a pipeline over its source from beginning to end: predict, score, then learn each event.

    Parameters
    ----------
    pipeline : Pipeline
    limit : int, optional
        Stop after so many events.
    batch : int
        How many events are read at a time. Changes no result.
    progress : float or int
        When a line of the table is printed: a float multiplies the event count (2.0: at 1, 2, 4, …), an
        int is a number of events, as VW's ``-P``.
    table : text stream, optional
        Where the table goes; None: no table.
    curves : bool
        Keep curves for a report.

    Raises
    ------
    DataError
        If the source cannot be used, or too many of its records.
    """
    engine = Engine(pipeline)
    source = sources.build(pipeline.source.kind, pipeline.learning_task, **pipeline.source.parameters)
    rules = pipeline.dead_letters
    # Counted, not written: the file belongs to the daemon, which goes on behind what it has written.
    letters = DeadLetters(max_rate=rules.max_bad_rate, min_bad=rules.min_bad)
    notices: list[Notice] = []
    lines = _Table(engine, progress, table) if table is not None else None
    points = _Curves(engine) if curves else None
    started = time.perf_counter()
    with tqdm(
        total=limit,
        unit=" events",
        unit_scale=True,
        file=sys.stderr,
        disable=None if table is not None else True,  # None: only on a terminal
        leave=False,
    ) as bar:
        for chunk in source.chunks(None, batch):
            room = None if limit is None else limit - engine.n_events
            events = chunk.batch if room is None else chunk.batch.slice(0, min(room, len(chunk.batch)))
            for part in _parts(events, engine, lines, points):
                for notice in engine.follow(part):
                    notices.append(replace(notice, model=None))  # models would fill the memory
                    if lines and not (notice.what == "promoted" and notice.how == "refresh"):
                        lines.notice(notice)
                if lines:
                    lines.see()
                if points:
                    points.see()
                bar.update(len(part))
            rejected = [letter for letter in chunk.rejected if room is None or letter.after < room]
            if lines:
                lines.rejected(rejected, letters.n_bad)
            letters.take(rejected, len(events))
            letters.judge()
            if limit is not None and engine.n_events >= limit:
                break
    seconds = time.perf_counter() - started
    if not engine.n_events:
        reason = f"; the last one: {letters.last_reason}" if letters.n_bad else ""
        raise DataError(f"no event could be learned: {letters.n_bad:,} records, all of them bad{reason}")
    if lines:
        lines.close()
    return Evaluation(
        pipeline=pipeline,
        events=engine.n_events,
        rejected=letters.n_bad,
        seconds=seconds,
        digest=engine.digest(),
        learners=engine.metrics(),
        baselines=engine.baselines(),
        notices=notices,
        forgetting=engine.forgetting(),
        curves=points,
    )


def _parts(batch: Batch, engine: Engine, lines: _Table | None, points: _Curves | None) -> Iterator[Batch]:
    """Cut a batch where somebody wants to look."""
    start = 0
    while start < len(batch):
        stop = len(batch)
        if lines:
            stop = min(stop, start + lines.next_at - engine.n_events)
        if points:
            tick = engine.pipeline.tick
            stop = min(stop, start + tick - engine.n_events % tick)
        yield batch.slice(start, stop)
        start = stop


def results_table(evaluation: Evaluation) -> Iterator[str]:
    """Lines of the final table: every learner and baseline, the best score of each column marked."""
    rows = {**evaluation.learners, **evaluation.baselines}
    names = [metric for metric in HIGHER_IS_BETTER if any(metric in scores for scores in rows.values())]
    best = {
        metric: (max if HIGHER_IS_BETTER[metric] else min)(
            (scores[metric] for name, scores in evaluation.learners.items() if metric in scores),
            default=None,
        )
        for metric in names
    }
    width = max(len(name) for name in rows) + 2
    yield " " * width + "".join(f"{metric:>16}" for metric in names)
    for name, scores in rows.items():
        if name == next(iter(BASELINES[evaluation.pipeline.task])):
            yield "-" * (width + 16 * len(names))
        yield f"{name:<{width}}" + "".join(_cell(scores, metric, best) for metric in names)


def _cell(scores: Mapping[str, float], metric: str, best: Mapping[str, float | None]) -> str:
    value = scores.get(metric)
    if value is None:
        return f"{'-':>15} "
    number = f"{value:>15.4f}" if abs(value) < 1e9 else f"{value:>15.4e}"
    return number + ("*" if value == best[metric] else " ")
