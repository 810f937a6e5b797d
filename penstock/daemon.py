"""What ``penstock run`` does around `penstock.runner`: signals, who looks on, and waiting for one's turn."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from penstock import log_lines, runner
from penstock.errors import InUse, ServiceError
from penstock.notices import Notice
from penstock.observers import Observer
from penstock.runner import AnyPipeline, Outcome
from penstock.snapshots import SnapshotStore
from penstock.status import Status

__all__ = ["run"]

_LOOK_S: Final = 0.2  # between two looks at whether the other run is still there
_log = logging.getLogger("penstock")


def run(
    pipeline: AnyPipeline, *, batch: int, standby: bool = False, json_log: bool = False
) -> Outcome | None:
    """Learn until the source ends, or SIGTERM or SIGINT comes.

    Parameters
    ----------
    pipeline : Pipeline or BanditPipeline
    batch : int
        Events read at a time.
    standby : bool
        Whether to wait while another run is using the checkpoint, and to go on where it ends.
    json_log : bool
        Whether to log what happens one JSON object a line.

    Returns
    -------
    Outcome or None
        None if it was asked to stop while it stood by.

    Raises
    ------
    PenstockError
        As `penstock.runner.run`; `ServiceError` if the monitor's port is taken.
    """
    status = Status(pipeline.name)
    if json_log:
        log_lines.install(pipeline.name)
    with _signals(status) as asked:
        observers, monitor = _observers(pipeline, status, json_log=json_log)
        try:
            return _run(pipeline, batch, asked, status, observers, monitor, standby, json_log)
        except Exception as error:
            status.tell("failed", str(error))
            raise
        finally:
            monitor.close()


def _run(
    pipeline: AnyPipeline,
    batch: int,
    asked: Callable[[], bool],
    status: Status,
    observers: Sequence[Observer],
    monitor: _Watch,
    standby: bool,
    json_log: bool,
) -> Outcome | None:
    while not (standby and asked()):
        if not standby or not _in_use(pipeline):
            monitor.open()
            try:
                return runner.run(
                    pipeline,
                    batch=batch,
                    should_stop=asked,
                    on_notice=_nothing if json_log else None,
                    observers=observers,
                )
            except InUse:
                if not standby:
                    raise
        if status.now.state != "standby":
            status.tell("standby", "another run is using the checkpoint")
            log_lines.say("standby", "standing by: another run is using the checkpoint")
            monitor.open_if_free()
        time.sleep(_LOOK_S)
    return None


def _in_use(pipeline: AnyPipeline) -> bool:
    try:
        with runner.only_writer(pipeline):
            return False
    except InUse:
        return True


def _nothing(notice: Notice) -> None:
    """Leave it to an observer."""


class _Watch:
    """The monitor of a run, if it is to have one; opened when it is needed."""

    def __init__(self, make: Callable[[], Any] | None) -> None:
        self._make = make
        self._monitor: Any = None

    def open(self) -> None:
        if self._make is not None and self._monitor is None:
            self._monitor = self._make()
            log_lines.say("monitor", f"monitor: {self._monitor.address}", address=self._monitor.address)

    def open_if_free(self) -> None:
        """Open it, unless the run that is waited for has the port."""
        try:
            self.open()
        except ServiceError as error:
            _log.debug("%s; it is tried again when it is our turn", error)

    def close(self) -> None:
        if self._monitor is not None:
            self._monitor.close()


def _observers(pipeline: AnyPipeline, status: Status, *, json_log: bool) -> tuple[list[Observer], _Watch]:
    """Make what looks on at a run, as its configuration has it."""
    observers: list[Observer] = [status]
    if json_log:
        observers.append(log_lines.Reporting(status))
    publisher = None
    spec = pipeline.snapshots
    if spec is not None and spec.topic is not None:
        from penstock.kafka.letters import connected
        from penstock.kafka.publisher import Publisher, Publishing

        connection = connected(spec, pipeline.source, where="snapshots")
        connection.resolved()  # a secret that is missing is said now, not in the background
        publisher = Publisher(SnapshotStore(spec.path), connection, spec.topic)
        observers.append(Publishing(publisher))
    if (monitored := pipeline.monitor) is None:
        return observers, _Watch(None)
    from penstock.monitor import Metrics, Monitor

    metrics = Metrics(status, None if spec is None else SnapshotStore(spec.path), publisher)
    observers.append(metrics)
    return observers, _Watch(lambda: Monitor(monitored, status, metrics.registry))


@contextmanager
def _signals(status: Status) -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and SIGINT into a flag; asked once more, the process ends at once."""
    stop = False

    def ask_to_stop(signum: int, frame: Any) -> None:
        nonlocal stop
        stop = True
        status.tell("stopping", f"{signal.Signals(signum).name} came")
        signal.signal(signum, before[signal.Signals(signum)])

    before = {signum: signal.signal(signum, ask_to_stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
