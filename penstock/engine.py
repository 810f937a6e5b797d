"""The engine: a function of (configuration, state, events). No I/O, no clock, no unseeded chance.

The stream is cut at every `tick` events, counted from the first event ever seen. Events are scored and
learned as they arrive; reactions (to drift, replay, the gate) happen between ticks and only there. That is
why nothing depends on the batches in which the stream was read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock import learners, replay
from penstock.anchors import Anchors
from penstock.beside import progressed
from penstock.blame import Blame
from penstock.config import Pipeline
from penstock.errors import DataError, PenstockError
from penstock.events import Batch, Task
from penstock.inputs import InputWatch, numbers_of
from penstock.judging import Ahead, Judge
from penstock.lanes import Lane, Tail, Watched, judged_events
from penstock.learners.base import Learner, Model
from penstock.learners.labels import learnable
from penstock.metrics import Metrics
from penstock.notices import Notice
from penstock.shadow import Shadow
from penstock.state import State, digest, prefixed, section

__all__ = ["BASELINES", "Engine"]

BASELINES: Final[Mapping[str, Mapping[str, str]]] = {
    "binary": {"majority": "prior", "no_change": "no_change"},
    "multiclass": {"majority": "prior", "no_change": "no_change"},
    "regression": {"mean": "prior", "no_change": "no_change"},
}
"""For each task, what every learner is shown beside: name in the tables, and the learner that plays it."""

_MAX_CLASSES: Final = 1000  # more distinct labels than this are not classes but numbers or identifiers
_TICKS: Final = 16  # at one go: what is known of 4,096 events fits into a cache


@dataclass(frozen=True, slots=True)
class _Stride:
    """Events that are scored at one go.

    Attributes
    ----------
    expected : float64
        What the first baseline, who knows nothing of the features, predicted of them.
    counted : bool, shape (n,), or None
        Which of them have a weight; None: all.
    ahead : Ahead
        What frozen models predict of them.
    """

    expected: NDArray[np.float64]
    counted: NDArray[np.bool_] | None
    ahead: Ahead


class Engine:
    """Scores, learns, watches and decides, one tick after another.

    Parameters
    ----------
    pipeline : Pipeline
        See `penstock.config`; `penstock.config.parse` makes one from plain dicts.

    Examples
    --------
    >>> from penstock.config import parse
    >>> engine = Engine(parse({"source": {"kind": "river", "dataset": "Phishing"}}))
    >>> notices = engine.progress(Batch.from_rows([{"x": 1.0}, {"x": -1.0}], [1.0, 0.0]))
    >>> engine.n_events, notices
    (2, [])
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.task: Task = pipeline.learning_task
        self.n_events = 0
        self._n_at_hand = 0  # events behind those: what is worked on
        self.classes: list[str] = []
        self._class_numbers: dict[str, int] = {}
        self._lanes = {name: Lane(name, pipeline) for name in pipeline.learners}
        self._baselines = {
            name: (
                learners.build(kind, self.task),
                Metrics(self.task, window=pipeline.metrics.window, fading=pipeline.metrics.fading),
            )
            for name, kind in BASELINES[self.task.kind].items()
        }
        self._watched = [Watched(r) for r in pipeline.drift if r.of_events and not r.of_inputs]
        self._inputs = [InputWatch(rule) for rule in pipeline.drift if rule.of_inputs]
        self._replay = (
            replay.build(pipeline.replay.kind, seed=pipeline.seed, **pipeline.replay.parameters)
            if pipeline.replay
            else None
        )
        self._weighing = self._replay if isinstance(self._replay, replay.WeighingBuffer) else None
        self._rows_are_kept = any(getattr(lane.learner, "reads_rows", True) for lane in self._lanes.values())
        self._rows_are_read = (
            self._rows_are_kept or bool(self._inputs) or any(w.rule.on != "label" for w in self._watched)
        )
        self._anchors = Anchors(**pipeline.anchors.sizes(pipeline.tick)) if pipeline.anchors else None
        self.shadow = (
            Shadow(
                pipeline.shadow.rules,
                serving=pipeline.first_serving,
                harm=self._harm if pipeline.anchors and pipeline.anchors.margin is not None else None,
            )
            if pipeline.shadow
            else None
        )
        self._judge = Judge(self.task, pipeline.shadow.guards if pipeline.shadow else ())
        self._tail = Tail() if any(rule.react == "recall" for rule in pipeline.drift) else None

    def progress(self, batch: Batch) -> list[Notice]:
        """Score and learn every event in order; react wherever a tick ends.

        Parameters
        ----------
        batch : Batch
            Labelled events, as a codec gives them.

        Returns
        -------
        list of Notice
            What happened, in order.

        Raises
        ------
        BadRecord
            If a label or weight is not such as the task has; nothing has been learned then.
        PenstockError
            If a learner fails on an event, or there are too many classes; the engine must not be used any
            further.
        """
        return list(self.follow(batch))

    def follow(self, batch: Batch) -> Iterator[Notice]:
        """As `progress`, but give each notice as soon as it is known.

        The number of events, the learners' metrics and the classes are then as of the tick that the notice is
        of. Baselines are ahead of that: a state may be taken only when the last notice has been.
        """
        names = batch.labels.dtype == object  # of classes: any of them can be learned
        learnable(self.task, batch.with_labels(np.zeros(len(batch))) if names else batch)
        if not self._rows_are_read:
            batch = batch.hashed()
        for part in self._cut(batch, self._stride):
            yield from self._progress(self._numbered(part))

    def ticks(self, batch: Batch) -> Iterator[Batch]:
        """Cut a batch where something may happen: where ticks end, unless nothing waits for that.

        Each part has to be progressed over before the next is asked for.
        """
        return self._cut(batch, self._step)

    def _cut(self, batch: Batch, step: int) -> Iterator[Batch]:
        """Cut a batch wherever the number of events is divisible by `step`."""
        start, n = 0, len(batch)
        while start < n:
            stop = min(n, start + step - self.n_events % step)
            yield batch if stop - start == n else batch.slice(start, stop)
            start = stop

    @property
    def _stride(self) -> int:
        """How many events are scored at one go: of many classes, and so large predictions, only a tick."""
        return self.pipeline.tick * (_TICKS if self.task.kind == "binary" else 1)

    @property
    def _step(self) -> int:
        """How many events are learned at one go: all that are scored, unless something waits for a tick."""
        waits = self._watched or self._inputs or self._replay is not None or self.shadow is not None
        waits = waits or self._anchors is not None or any(lane.watched for lane in self._lanes.values())
        return self.pipeline.tick if waits else self._stride

    def _progress(self, batch: Batch) -> Iterator[Notice]:
        """Progress over events that are scored at one go: baselines first, for they look at labels only."""
        self._n_at_hand = len(batch)
        expected: list[NDArray[np.float64]] = []
        for name, (learner, scores) in self._baselines.items():
            with self._blaming(f"baseline `{name}`"):
                expected.append(learner.progress(batch))
                scores.update(expected[-1], batch.labels, batch.weights)
        counted = batch.weights > 0.0
        stride = _Stride(expected[0], None if counted.all() else counted, Ahead(batch, self._judge))
        made: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self._lanes}
        scored = start = 0
        for part in self._cut(batch, self._step):
            for name, predictions in self._learn(part, stride, start).items():
                made[name].append(predictions)
            start += len(part)
            if self.n_events % self.pipeline.tick == 0 and (notices := self._end_tick()):
                self._score(made, batch, scored, start)
                scored = start
                yield from notices
        if scored < start:
            self._score(made, batch, scored, start)

    def _score(self, made: dict[str, list[NDArray[np.float64]]], batch: Batch, start: int, stop: int) -> None:
        """Score what every learner predicted, in parts, of the newest events; let go of it."""
        labels, weights = batch.labels[start:stop], batch.weights[start:stop]
        for name, parts in made.items():
            with Blame(f"learner `{name}`", self.n_events - len(labels), len(labels)):
                predictions = parts[0] if len(parts) == 1 else np.concatenate(parts)
                self._lanes[name].metrics.update(predictions, labels, weights)
            parts.clear()

    def _numbered(self, batch: Batch) -> Batch:
        """Replace class names by their numbers, in the order of first sighting."""
        if batch.labels.dtype != object:
            return batch
        numbers = self._class_numbers
        for name in batch.labels.tolist():
            if name not in numbers:
                if len(numbers) == _MAX_CLASSES:
                    raise DataError(
                        f"more than {_MAX_CLASSES} different labels (the last one: {name!r}): "
                        f"is `task: multiclass` right, and the label the right field?"
                    )
                numbers[name] = len(numbers)
                self.classes.append(name)
        return batch.with_labels(
            np.array([numbers[name] for name in batch.labels.tolist()], dtype=np.float64)
        )

    def _learn(self, batch: Batch, stride: _Stride, start: int) -> dict[str, NDArray[np.float64]]:
        """Progress over events that lie within one tick, from `start` on in the stride that they are of.

        Returns what each learner predicted.
        """
        n = self._n_at_hand = len(batch)
        now = slice(start, start + n)
        counted = None if stride.counted is None else stride.counted[now]
        judged = None if counted is None else np.flatnonzero(counted)
        events = batch if judged is None else batch.take(judged)
        learned, aside = self._set_aside(batch, counted)
        made: dict[str, NDArray[np.float64]] = {}
        losses: dict[str, NDArray[np.float64]] = {}
        renewing: dict[str, NDArray[np.float64]] = {}  # losses of those whose weights serving is to get
        done = progressed(self.learners, learned) if len(self._lanes) > 1 else {}
        for name, lane in self._lanes.items():
            with self._blaming(f"learner `{name}`"):
                predictions = done[name].result() if name in done else lane.learner.progress(learned)
                self._require_finite(predictions)
                made[name] = predictions
                if judged is not None:
                    predictions = predictions[judged]
                if self._judge.is_ready:
                    losses[name] = self._judge.losses(predictions, events)
            self._detect(lane, predictions, losses.get(name), events, judged, aside)
            if name in losses:
                lane.recent_loss.update(losses[name])
                lane.n_recent += len(events)
            for rival in lane.rivals:
                with self._blaming(f"learner `{name}`, beside itself,"):
                    predictions = rival.learner.progress(learned)
                    self._require_finite(predictions)
                if name in losses:
                    own = self._judge.losses(predictions if judged is None else predictions[judged], events)
                    rival.compare(losses[name], own)
                    if rival is lane.incumbent:
                        renewing[name] = own
        self._look_at(events, judged)
        if self.shadow is not None and losses:
            self._compare(self.shadow, losses | renewing, events, stride, now, judged)
        self._remember(events, aside, losses)
        self.n_events += n
        return made

    def _detect(
        self,
        lane: Lane,
        predictions: NDArray[np.float64],
        losses: NDArray[np.float64] | None,
        events: Batch,
        judged: NDArray[np.intp] | None,
        aside: NDArray[np.bool_] | None,
    ) -> None:
        """Show its detectors what a learner predicted, and lost (None: that cannot be told yet)."""
        for watched in lane.watched:
            if watched.rule.on == "prediction":
                values = predictions if predictions.ndim == 1 else predictions.max(axis=1, initial=0.0)
            elif losses is None:
                continue
            elif watched.rule.on == "loss":
                values = losses
            else:
                values = self._judge.losses(predictions, events, watched.rule.on)
            with self._blaming(f"detector `{watched.rule.kind}`"):
                watched.update(values, judged, self.n_events, self._n_offered, aside)

    def _look_at(self, events: Batch, judged: NDArray[np.intp] | None) -> None:
        """Show the events themselves, those at `judged` of a batch, to the detectors that want them."""
        for watched in self._watched:
            with self._blaming(f"detector `{watched.rule.kind}` on {watched.rule.on}"):
                values, places = numbers_of(watched.rule.on, events)
                if judged is not None:
                    places = judged[places]
                watched.update(values, places, self.n_events, self._n_offered)
        for inputs in self._inputs:
            with self._blaming(f"detector `{inputs.rule.kind}`"):
                inputs.update(events, judged, self.n_events)

    def _compare(
        self,
        shadow: Shadow,
        losses: dict[str, NDArray[np.float64]],
        events: Batch,
        stride: _Stride,
        now: slice,
        judged: NDArray[np.intp] | None,
    ) -> None:
        """Show the gate what everybody lost on the events that are `judged` of those that come `now`."""
        lineages = {name: (lane.incumbent or lane).lineage for name, lane in self._lanes.items()}
        until = max(min(now.start + self._n_ahead(shadow), len(stride.expected)), now.stop)
        self._n_at_hand = until - now.start

        def prior() -> NDArray[np.float64]:
            expected = stride.expected[now]
            return self._judge.losses(expected if judged is None else expected[judged], events)

        def lost(model: Model) -> NDArray[np.float64]:
            of_model = stride.ahead.losses(model, now.start, now.stop, until)
            return of_model if judged is None else of_model.take(judged, axis=1)

        with self._blaming("a frozen model"):
            shadow.observe(losses, lineages, prior, lost)

    def _remember(
        self, events: Batch, aside: NDArray[np.bool_] | None, losses: dict[str, NDArray[np.float64]]
    ) -> None:
        """Offer events to the buffer, but those that were set aside, and keep what else is kept of them."""
        kept = events if self._rows_are_kept else events.hashed()
        if self._replay is not None:
            self._replay.offer(kept if aside is None else kept.take(np.flatnonzero(~aside)))
            if losses and self._weighing is not None:
                weights = np.mean(list(losses.values()), axis=0)
                self._weighing.weigh(weights if aside is None else weights[~aside])
        if self._tail is not None:
            self._tail.extend(kept)
        self._judge.update(events)

    @property
    def _n_offered(self) -> int:
        """Events offered to the buffer so far; 0 without one."""
        return self._replay.n_offered if self._replay is not None else 0

    def _n_ahead(self, shadow: Shadow) -> int:
        """Events until something else serves, at the end of a tick, if all goes as planned."""
        tick = self.pipeline.tick
        return -(-shadow.next_refresh // tick) * tick - self.n_events

    def _set_aside(
        self, batch: Batch, counted: NDArray[np.bool_] | None
    ) -> tuple[Batch, NDArray[np.bool_] | None]:
        """Keep anchors of the batch: return it with weight 0 for them, and which of its events they are.

        Only events that count become anchors, and only those that count are told of. None if there are none.
        """
        if self._anchors is None:
            return batch, None
        aside = self._anchors.aside(self.n_events, len(batch))
        if counted is not None:
            aside &= counted
        if not aside.any():
            return batch, None
        anchors = batch.take(np.flatnonzero(aside))
        self._anchors.put(anchors if self._rows_are_kept else anchors.hashed())
        learned = batch.with_weights(np.where(aside, 0.0, batch.weights))
        return learned, aside if counted is None else aside[counted]

    def _scores(self, events: Batch) -> dict[str, float]:
        """How well each learner predicts anchors now: accuracy, or 1 less the bounded loss."""
        return {
            name: 1.0 - float(self._judge.losses(lane.learner.predict(events), events, "error").mean())
            for name, lane in self._lanes.items()
        }

    def _harm(self, candidate: Any, serving: Any) -> str | None:
        """Name the first stratum on whose anchors a frozen model loses more than the margin allows."""
        rule = self.pipeline.anchors
        if rule is None or rule.margin is None or self._anchors is None:
            return None
        for first, events in self._anchors.sets:
            new, old = (
                float(self._judge.losses(model.predict(events), events).mean())
                for model in (candidate, serving)
            )
            if new - old > rule.margin:
                return (
                    f"loses {new - old:.4f} more than what serves on {len(events):,} anchors "
                    f"of the stratum from event {first:,} on"
                )
        return None

    def forgetting(self) -> dict[str, dict[str, Any]]:
        """Measure what every learner has forgotten of its anchors; see `penstock.anchors.Anchors.measure`."""
        return self._anchors.measure(self._scores) if self._anchors is not None else {}

    @property
    def anchored(self) -> dict[int, dict[str, float]]:
        """How well each learner predicted each stratum's anchors when last asked; see `Anchors.newest`."""
        return self._anchors.newest if self._anchors is not None else {}

    def _require_finite(self, predictions: NDArray[np.float64]) -> None:
        if math.isfinite(np.vdot(predictions, predictions)):
            return  # by far the quickest to ask; only of numbers beyond 1e150 it cannot tell
        finite = np.isfinite(predictions)
        if not finite.all():
            rows = finite.all(axis=1) if finite.ndim == 2 else finite
            at = int(np.argmin(rows))
            raise PenstockError(f"it predicted {predictions[at]} for event {self.n_events + at + 1:,}")

    def _blaming(self, who: str) -> Blame:
        """Say who failed on the events at hand (0: on replayed ones), whatever was raised."""
        return Blame(who, self.n_events, self._n_at_hand)

    def _end_tick(self) -> list[Notice]:
        self._n_at_hand = 0
        self._judge.end_tick()
        lineages = [lane.lineage for lane in self._lanes.values()]
        notices = [watched.notice(watched.rule.on) for watched in self._watched if watched.alarm]
        for watched in self._watched:
            watched.alarm = None
        notices += [notice for inputs in self._inputs for notice in inputs.end_tick()]
        notices += [notice for lane in self._lanes.values() for notice in self._react(lane)]
        self._learn_replayed()
        if self._anchors is not None:
            self._anchors.end_tick(self.n_events, self._scores)
        changed = [lane.lineage for lane in self._lanes.values()] != lineages
        if changed and self.shadow is not None and self._judge.is_ready:
            notices += self.shadow.new_epoch(self.n_events)
        notices += self._settle()
        if self.shadow is not None and self._judge.is_ready:
            n_offered = self._n_offered
            contenders = {name: lane.contender(n_offered) for name, lane in self._lanes.items()}
            served = self.shadow.serving
            lane = self._lanes[served]
            old = lane.incumbent
            incumbent = None if old is None else lane.contender(n_offered, incumbent=old)
            for notice in self.shadow.end_tick(self.n_events, contenders, incumbent):
                notices.append(notice)
                if notice.what == "rolled_back" and notice.learner == served:
                    self._set_back(self._lanes[served], self.shadow)
                if notice.what in ("promoted", "rolled_back") and self.shadow.serving_version is not None:
                    self._lanes[self.shadow.serving].hold_on(self.shadow.serving_version)
        return notices

    def _set_back(self, lane: Lane, shadow: Shadow) -> None:
        """Let a learner go on from where it was when what serves again was frozen.

        Of the events since then it learns those that the replay buffer holds, once.
        """
        version, rules = shadow.serving_version, shadow.rules.rollback
        if version is None or version.live is None or rules is None:
            return
        lane.set_back(section(version.live, "learner"), version.lineage)
        if self._replay is not None and rules.relearn:
            since = self._replay.contents(since=int(version.live["n_offered"]))  # type: ignore[arg-type]
            if since is not None:
                with self._blaming(f"learner `{lane.name}`"):
                    lane.learner.learn(since)

    def _react(self, lane: Lane) -> list[Notice]:
        """Answer the alarms of the tick that just ended: report each, and give one answer at most.

        Only a loss that rose is answered. One that fell is what learning is for: who starts afresh then
        begins to improve again, rings again, and never gets anywhere.
        """
        if not any(watched.alarm for watched in lane.watched):
            lane.keep(self.n_events)
            return []
        notices = [watched.notice(lane.name) for watched in lane.watched if watched.alarm]
        answers = [
            (watched.rule, watched.alarm)
            for watched in lane.watched
            if watched.alarm is not None and watched.rule.react != "log" and watched.alarm.rose
        ]
        for watched in lane.watched:
            watched.alarm = None
        if not answers:
            lane.keep(self.n_events)
            return notices
        rule, alarm = answers[0]
        change = alarm.event - alarm.width
        match rule.react:
            case "bump":
                lane.bump()
            case "background":
                lane.begin_background()
            case "recall" if self._judge.is_ready and self._tail is not None:
                events = self._tail.newest(judged_events(self.n_events - change))
                with self._blaming(f"learner `{lane.name}`"):
                    done = lane.recall(change, events, self._judge)
                if done is not None:
                    notices.append(self._reacted(lane, done))
            case "reset":
                lane.restart()
            case "warm_restart" if self._replay is not None:
                lane.restart()
                # What was learned before the change would teach the old concept again, now and in replay.
                self._replay.forget(before=alarm.n_offered - alarm.width)
                remembered = self._replay.contents()
                if remembered is not None:
                    with self._blaming(f"learner `{lane.name}`"):
                        lane.learner.learn(remembered)
        return notices

    def _settle(self) -> list[Notice]:
        """Decide between live learners and those beside them, where it is time."""
        notices = []
        version = self.shadow.serving_version if self.shadow is not None else None
        for lane in self._lanes.values():
            if not lane.rivals:
                continue
            lineage = lane.lineage
            serves = version is not None and version.learner == lane.name
            text = lane.settle(version.lineage if serves and version is not None else None)
            if text is not None:
                notices.append(self._reacted(lane, text))
            if lane.lineage != lineage and self.shadow is not None:
                self.shadow.renewed(lane.name)
        return notices

    def _reacted(self, lane: Lane, text: str) -> Notice:
        return Notice(what="reacted", event=self.n_events, learner=lane.name, text=text)

    def _learn_replayed(self) -> None:
        """Mix past events in: learned, but neither scored nor shown to a detector or the gate."""
        rule = self.pipeline.replay
        if rule is None or self._replay is None or not rule.ratio:
            return
        sample = self._replay.sample(round(rule.ratio * self.pipeline.tick))
        if sample is not None:
            if rule.weight != 1.0:
                sample = sample.with_weights(sample.weights * rule.weight)
            losses = []
            for lane in self._lanes.values():
                with self._blaming(f"learner `{lane.name}`"):
                    if lane.incumbent is not None:
                        lane.incumbent.learner.learn(sample)
                    if self._weighing is None or not self._judge.is_ready:
                        lane.learner.learn(sample)
                    else:
                        losses.append(self._judge.losses(lane.learner.progress(sample), sample))
            if self._weighing is not None and losses:
                self._weighing.reweigh(np.mean(losses, axis=0))

    @property
    def learners(self) -> dict[str, Learner]:
        """The live learners; to be looked at only."""
        return {name: lane.learner for name, lane in self._lanes.items()}

    def standing(self) -> list[Notice]:
        """Tell once more of what serves, and may serve again; see `penstock.shadow.Shadow.standing`."""
        return self.shadow.standing() if self.shadow is not None else []

    def metrics(self) -> dict[str, dict[str, float]]:
        """Scores so far of every learner; see `penstock.metrics.Metrics.report`."""
        return {name: lane.metrics.report() for name, lane in self._lanes.items()}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Scores so far of the baselines."""
        return {name: scores.report() for name, (_, scores) in self._baselines.items()}

    def averages(self) -> dict[str, Metrics]:
        """Return the metrics of learners and baselines, for whoever follows the run."""
        return {
            **{name: lane.metrics for name, lane in self._lanes.items()},
            **{name: scores for name, (_, scores) in self._baselines.items()},
        }

    def state(self) -> State:
        """Everything it knows: learners, detectors, buffer, metrics, gate, and what serves."""
        state: State = {
            "n_events": self.n_events,
            "classes": json.dumps(self.classes),
            **prefixed(self._judge.state(), "scale"),
        }
        for name, lane in self._lanes.items():
            state |= prefixed(lane.state(), f"lanes/{name}")
        for name, (learner, scores) in self._baselines.items():
            state |= prefixed(learner.state(), f"baselines/{name}/learner")
            state |= prefixed(scores.state(), f"baselines/{name}/metrics")
        for i, watched in enumerate(self._watched):
            state |= prefixed(watched.state(), f"watched/{i}")
        for i, inputs in enumerate(self._inputs):
            state |= prefixed(inputs.state(), f"inputs/{i}")
        if self._replay is not None:
            state |= prefixed(self._replay.state(), "replay")
        if self._anchors is not None:
            state |= prefixed(self._anchors.state(), "anchors")
        if self._tail is not None:
            state |= prefixed(self._tail.state(), "tail")
        if self.shadow is not None:
            state |= prefixed(self.shadow.state(), "shadow")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from: an engine of the same pipeline.

        Raises
        ------
        UntrustedState
            If a learner's state is a pickle that nothing vouches for.
        """
        self.n_events = int(state["n_events"])  # type: ignore[arg-type]
        self.classes = json.loads(str(state["classes"]))
        self._class_numbers = {name: number for number, name in enumerate(self.classes)}
        self._judge.restore(section(state, "scale"))
        for name, lane in self._lanes.items():
            lane.restore(section(state, f"lanes/{name}"))
        for name, (learner, scores) in self._baselines.items():
            learner.restore(section(state, f"baselines/{name}/learner"))
            scores.restore(section(state, f"baselines/{name}/metrics"))
        for i, watched in enumerate(self._watched):
            watched.restore(section(state, f"watched/{i}"))
        for i, inputs in enumerate(self._inputs):
            inputs.restore(section(state, f"inputs/{i}"))
        if self._replay is not None:
            self._replay.restore(section(state, "replay"))
        if self._anchors is not None:
            self._anchors.restore(section(state, "anchors"))
        if self._tail is not None:
            self._tail.restore(section(state, "tail"))
        if self.shadow is not None:
            self.shadow.restore(section(state, "shadow"))

    def digest(self) -> str:
        """Hex SHA-256 over the whole state: equal for equal configurations and events."""
        return digest(self.state())
