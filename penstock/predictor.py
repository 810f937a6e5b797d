"""The embedded front: an application's view of what serves, hot-swapped under its feet.

A `Predictor` holds one attribute, the snapshot that answers. A daemon thread follows the alias, loads
and verifies what it comes to name, and then assigns that attribute: a prediction, or a decision, reads it
once, so it is answered by exactly one snapshot, and takes no lock.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from penstock.actor import Actor, check_mode
from penstock.bandits import FrozenPolicy
from penstock.decisions import Decision
from penstock.errors import BadRecord, ConfigError, PenstockError, StoreError
from penstock.events import Batch, Row
from penstock.feedback import DecisionEvent, Mode, RewardEvent
from penstock.learners import Model
from penstock.sinks import FileSink, Sink
from penstock.snapshots import Manifest, SnapshotStore
from penstock.stores import Cache, is_remote, mirrored

__all__ = ["Prediction", "Predictor", "Value"]

Value: TypeAlias = "float | dict[str, float]"
Values: TypeAlias = "NDArray[np.float64] | list[dict[str, float]]"

_TASKS: Final = ("binary", "multiclass", "regression", "bandit")
_MAX_DEFERRED: Final = 100_000  # decisions that nobody has activated yet, before the oldest is forgotten
_log = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer, and who gave it.

    Attributes
    ----------
    value : float or dict of class name to float
        As `Predictor.predict` returns it.
    snapshot : int
        Version of the snapshot that answered.
    """

    value: Value
    snapshot: int


@dataclass(frozen=True, slots=True)
class _Serving:
    """One loaded snapshot: what a swap swaps."""

    predict_one: Callable[[Row], Value]
    predict: Callable[[Batch], Values]
    version: int
    manifest: Manifest
    actor: Actor | None = None  # of a policy


class Predictor:
    """Predicts, or decides, with the snapshot that serves, whichever that is at the moment.

    A snapshot of a learner answers `predict`, one of a policy answers `act`. Any number of threads may share
    a predictor. Weights are memory-mapped, so processes that serve the same snapshot share their pages.
    After a fork the child follows the alias too.

    Parameters
    ----------
    path : path or str
        Directory of the snapshots; or ``kafka://host:port/topic``, which is mirrored into one.
    alias : str
        What to follow.
    follow : bool
        Look for new snapshots in the background; without it only `refresh` looks.
    poll_s : float
        Seconds between two looks. A promotion is seen that much later at most; then it has to load.
    wait_s : float or None
        How many seconds to wait for a first snapshot if there is none yet; None: not at all. What is in a
        topic when the predictor is made counts as being there, however long it takes to read.
    trust_pickle : bool
        As for `SnapshotStore`.
    cold_start : "uniform" or None
        What `act` does until there is a first snapshot: choose among the offered actions with equal
        probability, as snapshot 0. None: there has to be a snapshot.
    mode : "online", "apprentice" or "logging_only"
        Whose decisions are played. ``online``: the policy's. ``apprentice``: the baseline's, which is the
        first action offered unless `act` is told another; nothing is explored, and the policy learns what it
        would have drawn, with the highest reward where that was played and the lowest where it was not; real
        rewards are kept beside. ``logging_only``: the application's own, which it has to tell `act`; learned
        as it was played, with its real reward.
        In the last two the log also says what the policy would have done, and the propensity is 1: the
        baseline must not be a matter of chance.
    sink : Sink, path or None
        Where decisions and rewards go; a path is the directory of a `FileSink`. None: beside the
        snapshots.
    pipeline : str
        Name of the pipeline, for decisions before the first snapshot, which then says its own.
    cache : path or None
        For a topic: the directory to mirror it into, kept for the next start, which then needs no broker. The
        processes of an application may share one. None: a temporary directory.
    kafka : mapping, optional
        For a topic: settings of librdkafka, such as ``{"sasl.password": "${PASSWORD}"}``; what stands in
        ``${}`` is taken from the environment.

    Raises
    ------
    ConfigError
        If the URL, a setting or the name of the pipeline is wrong.
    StoreError
        If there is no snapshot, or it cannot be used.
    UntrustedState
        If it holds a pickle that nothing vouches for.

    Examples
    --------
    >>> import tempfile
    >>> from penstock.events import Task
    >>> from penstock.learners import build
    >>> model = build("sgd", Task("binary")).freeze()
    >>> with tempfile.TemporaryDirectory() as path:
    ...     store = SnapshotStore(path)
    ...     version = store.put(model.state(), {"kind": "sgd", "task": "binary"})
    ...     store.promote(version, sequence=1)
    ...     with Predictor(path) as predictor:
    ...         predictor.predict({"user": {"country": "SE"}, "hour": 13})
    True
    0.5
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        alias: str = "serving",
        follow: bool = True,
        poll_s: float = 0.5,
        wait_s: float | None = 0.0,
        trust_pickle: bool = False,
        cold_start: Literal["uniform"] | None = None,
        mode: Mode = "online",
        sink: Sink | str | os.PathLike[str] | None = None,
        pipeline: str = "",
        cache: str | os.PathLike[str] | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        if not poll_s > 0:
            raise ValueError(f"expected poll_s > 0, got {poll_s}")
        if wait_s is not None and not wait_s >= 0:
            raise ValueError(f"expected wait_s >= 0, or None not to wait, got {wait_s}")
        if not isinstance(pipeline, str):
            raise TypeError(f"expected pipeline to be a name, got {pipeline!r}")
        try:
            pipeline.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"`pipeline`: expected text that UTF-8 can hold, got {pipeline!r}") from None
        if not (sink is None or isinstance(sink, str | os.PathLike | Sink)):
            raise TypeError(f"expected sink to be a directory or to take decisions and rewards, got {sink!r}")
        if cold_start not in (None, "uniform"):
            raise ValueError(f"expected cold_start to be 'uniform' or None, got {cold_start!r}")
        self._cache: Cache | None = None
        if is_remote(path):
            self._cache = mirrored(str(path), cache, kafka or {})
            path = self._cache.path
        elif cache is not None or kafka is not None:
            raise ConfigError(f"`cache` and `kafka` are for kafka://host:port/topic, got {str(path)!r}")
        self._store = SnapshotStore(path, trust_pickle=trust_pickle)
        self._name = alias
        self._follows = follow
        self._poll_s = poll_s
        self._error: str | None = None
        self._failed: tuple[Any, ...] | None = None
        self._closed = False
        self._follower: _Follower | None = None
        self._mode = check_mode(mode)
        self._deferred: OrderedDict[str, DecisionEvent] = OrderedDict()
        self._own_sink: FileSink | None = None
        self._sink: Sink | None = None
        if sink is not None and not isinstance(sink, str | os.PathLike):
            self._sink = sink
        self._sink_path = self._store.path if sink is None or self._sink else Path(cast("str", sink))
        try:
            if self._wait_for_first(wait_s or 0.0, needed=cold_start is None):
                self._serving = self._load()
            else:
                self._serving = _cold(pipeline, f"{self._store.path} has no alias {alias!r}")
        except BaseException:
            if self._cache is not None:
                self._cache.close()
            raise
        if self._cache is not None:
            weakref.finalize(self, self._cache.abandon).atexit = False
        self._start()
        _predictors.add(self)

    def predict(self, x: Row) -> Value:
        """Predict one event.

        Parameters
        ----------
        x : mapping
            Feature names to numbers, strings, booleans, lists; one nested level is a namespace.

        Returns
        -------
        float or dict of class name to float
            Binary: the probability of the positive class. Regression: the value. Multiclass: a probability
            for each class.

        Raises
        ------
        BadRecord
            Names the feature whose value cannot be used.
        """
        try:
            predict_one = self._serving.predict_one  # called right here, it is sought as a method: slowly
            return predict_one(x)
        except PenstockError:
            raise
        except Exception:
            _check_row(x)
            raise

    def predict_many(self, xs: Iterable[Row]) -> Values:
        """Predict many events at once, with one snapshot.

        Returns
        -------
        float64, shape (n,), or list of n dicts
            What `predict` would return for each.

        Raises
        ------
        BadRecord
            Names the event and the feature whose value cannot be used.
        """
        return self._serving.predict(Batch.from_rows(list(xs)))

    def predict_detailed(self, x: Row) -> Prediction:
        """Predict one event, and say which snapshot did."""
        serving = self._serving
        try:
            return Prediction(serving.predict_one(x), serving.version)
        except PenstockError:
            raise
        except Exception:
            _check_row(x)
            raise

    def act(
        self,
        context: Row,
        actions: Iterable[str] | Mapping[str, Row] | None = None,
        id: str | None = None,  # noqa: A002 - the record's own word
        *,
        baseline: str | None = None,
        activate: bool = True,
    ) -> Decision:
        """Choose an action, and log the choice with its propensity.

        Parameters
        ----------
        context : mapping
            As for `predict`.
        actions : sequence of str, or mapping of str to features; optional
            What may be chosen here. Without it, the `actions` that the pipeline is configured with, but for
            those that have retired; so there has to be a snapshot.
        id : str, optional
            Of the decision, for `reward`. All chance comes from it and the pipeline's name, so a decision
            needs an id of its own; without one it gets a random one.
        baseline : str, optional
            The action that is played instead, in the modes that play a baseline; others ignore it.
        activate : bool
            False: the decision counts, and is logged, only once `activate` is called, in this process: what
            was prepared and never shown teaches nothing.

        Returns
        -------
        Decision
            Logged already, unless its activation is deferred.

        Raises
        ------
        BadRecord
            Names what is wrong with the context, the actions, the id or the baseline.
        StoreError
            If what serves is no policy, or the decision could not be logged.
        """
        serving = self._serving
        if serving.actor is None:
            raise StoreError(
                "the predictor is closed"
                if self._closed
                else f"snapshot {serving.version} is for task {serving.manifest['task']!r}: "
                f"it predicts, and only a policy (task 'bandit') can act"
            )
        event = serving.actor.decide(
            context,
            actions,
            uuid.uuid4().hex if id is None else id,
            time=time.time(),
            mode=self._mode,
            baseline=baseline,
        )
        if activate:
            self._send(event)
        else:
            self._defer(event)
        return event.decision

    def activate(self, id: str) -> None:  # noqa: A002
        """Let a deferred decision count from now on: it is logged, with the time of this call.

        Raises
        ------
        BadRecord
            If no such decision of this process waits. (100,000 may; the oldest is then forgotten, with a
            warning in the log.)
        StoreError
            If it could not be logged; it goes on waiting.
        """
        _check_text("id", id)
        event = self._deferred.get(id)
        if event is None:
            raise BadRecord("the id of a decision that waits for its activation", id, path="$.id")
        self._send(replace(event, time=time.time()))
        self._deferred.pop(id, None)

    def reward(
        self,
        id: str,  # noqa: A002
        value: float,
        time: float | None = None,
        *,
        reward_id: str | None = None,
    ) -> None:
        """Report what a decision has earned, or a part of it; from any process, before or after others.

        Parameters
        ----------
        id : str
            Of the decision.
        value : float
            Finite; larger is better.
        time : float, optional
            When it was earned, in seconds since the Unix epoch; now, without it.
        reward_id : str, optional
            Makes a repetition harmless: the same one twice for a decision counts once.

        Raises
        ------
        BadRecord
            If a field cannot be used; nothing is logged then.
        StoreError
            If it could not be logged.
        """
        if self._closed:
            raise StoreError("the predictor is closed")
        for name, text in (("id", id), ("reward_id", reward_id)):
            if text is not None or name == "id":
                _check_text(name, text)
        self._send(
            RewardEvent(
                id=id,
                time=_now() if time is None else _number("time", time),
                value=_number("reward", value),
                reward_id=uuid.uuid4().hex if reward_id is None else reward_id,
            )
        )

    @property
    def snapshot(self) -> int:
        """Version of the snapshot that answers now; 0 before the first."""
        return self._serving.version

    @property
    def manifest(self) -> Manifest:
        """What the snapshot that answers now says about itself."""
        return self._serving.manifest

    @property
    def error(self) -> str | None:
        """Why the alias cannot be followed at the moment; the last good snapshot goes on answering."""
        return self._error or (self._cache.error if self._cache is not None else None)

    def refresh(self) -> bool:
        """Look at the alias now; return whether another snapshot answers from here on.

        If what it names cannot be used, nothing changes but `error`.
        """
        if self._cache is not None and not self._closed:
            self._cache.refresh()
        return self._look(again=True)

    def close(self) -> None:
        """Stop following and let go of the snapshot. Predictions raise `StoreError` from here on."""
        self._closed = True
        if self._follower is not None:
            self._follower.stop()
        with self._loading:
            self._serving = _closed(self._serving)
            if self._own_sink is not None:
                self._own_sink.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Predictor({str(self._store.path)!r}, snapshot={self._serving.version})"

    def _send(self, event: DecisionEvent | RewardEvent) -> None:
        if self._sink is None:
            with self._loading:
                if self._sink is None:
                    if self._cache is not None and self._sink_path == self._cache.path:
                        raise StoreError(
                            "nobody reads decisions beside a mirror: give the predictor a `sink`"
                        )
                    self._sink = self._own_sink = FileSink(self._sink_path)
        self._sink.send(event)

    def _defer(self, event: DecisionEvent) -> None:
        self._deferred[event.id] = event
        if len(self._deferred) > _MAX_DEFERRED:
            forgotten, _ = self._deferred.popitem(last=False)
            _log.warning("decision %s was never activated, and %d wait", forgotten, _MAX_DEFERRED)

    def _wait_for_first(self, wait_s: float, *, needed: bool) -> bool:
        """Return whether there is a snapshot; if it is `needed`, raise where there is none."""
        if self._cache is not None:
            if self._follows:
                self._cache.start()
            if self._store.peek(self._name) is None and not self._cache.first_look(wait_s):
                if not needed:
                    return False
                raise StoreError(f"no snapshot serves yet: {self._cache.error or 'nothing was mirrored'}")
        deadline = time.monotonic() + wait_s
        while self._store.peek(self._name) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                if not needed:
                    return False
                waited = f" after {wait_s:g} s" if wait_s else ""
                raise StoreError(
                    f"no snapshot serves yet{waited}: {self._store.path} has no alias {self._name!r}; "
                    f"promote one, or give the predictor time with wait_s"
                )
            time.sleep(min(left, self._poll_s))
        return True

    def _load(self) -> _Serving:
        model, manifest = self._store.load(self._name)
        return _serving(model, manifest)

    def _look(self, *, again: bool) -> bool:
        """Load what the alias names if it is news.

        The alias is a few bytes, so it is read on every look: file times are too coarse to tell two quick
        promotions apart. What has failed is tried again only if its file has changed or `again` is set.
        """
        with self._loading:
            if self._closed:
                return False
            try:
                if not self._serving.version and self._store.peek(self._name) is None:
                    return False  # still before the first
                version = self._store.alias(self._name).version
                if version == self._serving.version:
                    self._error = self._failed = None
                    return False
                attempt = (version, _signature(self._store.file(version)))
                if attempt == self._failed and not again:
                    return False
                self._failed = attempt
                self._serving = self._load()
            except Exception as error:  # whatever it is, what serves goes on serving
                if str(error) != self._error:
                    _log.error("still serving snapshot %d: %s", self._serving.version, error)
                self._error = str(error)
                return False
            self._error = self._failed = None
            return True

    def _start(self) -> None:
        """Start following; again in a forked child, where no thread and no lock of the parent lives on."""
        self._loading = threading.Lock()
        if self._follower is not None:
            self._follower.abandon()
            if self._cache is not None:
                self._cache.after_fork()
        if self._follows and not self._closed:
            self._follower = _Follower(self, self._poll_s)


class _Follower:
    """The thread that looks at the alias. It does not keep its predictor alive, and ends with it."""

    def __init__(self, predictor: Predictor, poll_s: float) -> None:
        self._stopped = threading.Event()
        self._end_with = weakref.finalize(predictor, self._stopped.set)
        self._end_with.atexit = False
        self._thread = threading.Thread(
            target=_follow,
            args=(weakref.ref(predictor), self._stopped, poll_s),
            name="penstock-predictor",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def abandon(self) -> None:
        """Forget a thread that did not survive a fork; its event may be locked for ever."""
        self._end_with.detach()


def _follow(reference: weakref.ref[Predictor], stopped: threading.Event, poll_s: float) -> None:
    while not stopped.wait(poll_s):
        predictor = reference()
        if predictor is None:
            return
        predictor._look(again=False)
        del predictor


def _serving(loaded: Model | FrozenPolicy, manifest: Manifest) -> _Serving:
    if manifest["task"] == "bandit":
        version = manifest["version"]
        refuse = _refusal(f"snapshot {version} is a policy: ask it with act()")
        return _Serving(refuse, refuse, version, manifest, Actor.of(loaded, manifest))
    model = cast("Model", loaded)
    if manifest["task"] not in _TASKS:
        raise StoreError(
            f"snapshot {manifest['version']} is for task {manifest['task']!r}: "
            f"a predictor serves {', '.join(_TASKS)}"
        )
    if manifest["task"] != "multiclass":
        number_of = cast("Callable[[Row], float]", model.predict_one)
        return _Serving(number_of, model.predict, manifest["version"], manifest)
    classes = manifest["classes"]
    if classes is None:
        raise StoreError(f"snapshot {manifest['version']} is multiclass and names no classes")

    probabilities_of = cast("Callable[[Row], NDArray[np.float64]]", model.predict_one)

    def named(probabilities: list[float]) -> dict[str, float]:
        if len(probabilities) > len(classes):
            raise StoreError(
                f"snapshot {manifest['version']} names {len(classes)} classes, predicts {len(probabilities)}"
            )
        return dict(zip(classes, probabilities, strict=False))

    def predict_one(row: Row) -> dict[str, float]:
        return named(probabilities_of(row).tolist())

    def predict(batch: Batch) -> list[dict[str, float]]:
        return [named(row) for row in model.predict(batch).tolist()]

    return _Serving(predict_one, predict, manifest["version"], manifest)


def _signature(file: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _closed(serving: _Serving) -> _Serving:
    refuse = _refusal("the predictor is closed")
    return _Serving(refuse, refuse, serving.version, serving.manifest)


def _cold(pipeline: str, reason: str) -> _Serving:
    """Return what serves before the first snapshot: every offered action is equally probable."""
    refuse = _refusal(f"no snapshot serves yet: {reason}")
    manifest = cast("Manifest", {"name": pipeline, "version": 0, "task": "bandit", "kind": "uniform"})
    return _Serving(refuse, refuse, 0, manifest, Actor(pipeline=pipeline))


def _refusal(reason: str) -> Callable[[object], Any]:
    def refuse(_: object) -> Any:
        raise StoreError(reason)

    return refuse


def _now() -> float:
    return time.time()


def _number(name: str, value: object) -> float:
    """Return `value` if it is a number, also one of numpy's; `RewardEvent` wants it finite."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadRecord("a finite number", value, path=f"$.{name}")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise BadRecord("a string that is not empty", value, path=f"$.{name}")


def _check_row(row: Row) -> None:
    """Raise `BadRecord` if `row` is what made a model fail."""
    try:
        Batch.from_rows([row])
    except BadRecord as error:
        raise BadRecord(error.expected, error.got, path=error.path) from None  # it is no batch's row 0


def _after_fork() -> None:
    for predictor in list(_predictors):
        predictor._start()


_predictors: weakref.WeakSet[Predictor] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
