"""Logs for machines: one JSON object a line.

========== ==============================================================
time       UTC, ISO 8601
level      ``debug``, ``info``, ``warning``, ``error``
event      what happened, in a word: ``promoted``, ``checkpoint``, ``message``
pipeline   its name
message    a sentence for people, if there is one
...        the numbers behind it
========== ==============================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from penstock.notices import Notice
from penstock.observers import Learned, Observer, Saved, Started
from penstock.status import Status, Told

__all__ = ["JsonLines", "Reporting", "install", "say"]

_log = logging.getLogger("penstock")


class JsonLines(logging.Formatter):
    """Formats whatever is logged, by Penstock or by a library.

    Parameters
    ----------
    pipeline : str

    Examples
    --------
    >>> record = logging.LogRecord("penstock", logging.INFO, "", 0, "two %s", ("words",), None)
    >>> record.created = 0.0
    >>> print(JsonLines("ads").format(record))  # doctest: +ELLIPSIS
    {"time":"1970-01-01T00:00:00.000+00:00","level":"info",...,"pipeline":"ads","message":"two words"}
    """

    def __init__(self, pipeline: str) -> None:
        super().__init__()
        self.pipeline: Final = pipeline

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "pipeline": self.pipeline,
        }
        if text := record.getMessage():
            told["message"] = text
        if record.name != _log.name:
            told["logger"] = record.name
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        told |= {k: v for k, v in getattr(record, "fields", {}).items() if k not in told}
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return orjson.dumps(told, default=str, option=options).decode()


def install(pipeline: str) -> None:
    """Have everything logged as JSON from here on, warnings of Python too."""
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines(pipeline))


def say(event: str, text: str = "", *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event."""
    _log.log(level, "%s", text, extra={"event": event, "fields": fields})


class Reporting(Observer):
    """Logs what happens to a run, and what the engine reports.

    Parameters
    ----------
    status : Status
        An observer of the same run; its changes are logged.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._told: Told | None = None

    def started(self, run: Started) -> None:
        """Say where it begins."""
        say("resumed" if run.resumed_at else "started", events=run.resumed_at)

    def noticed(self, notice: Notice, version: int | None) -> None:
        """Say it."""
        given: Mapping[str, Any] = {
            "events": notice.event,
            "learner": notice.learner,
            "version": version,
            "parent": notice.parent,
            "how": notice.how,
            "sequence": notice.sequence,
            "evidence": dict(notice.evidence),
        }
        level = logging.WARNING if notice.what in ("rolled_back", "stale", "withheld") else logging.INFO
        say(notice.what, notice.text, level=level, **{k: v for k, v in given.items() if v is not None})

    def learned(self, chunk: Learned) -> None:
        """Say what state the run is in, if it has changed."""
        told = self._status.now
        if told != self._told:
            self._told = told
            say("state", told.reason, state=told.state, events=chunk.events)

    def saved(self, checkpoint: Saved) -> None:
        """Say that it is in place."""
        say(
            "checkpoint",
            events=checkpoint.events,
            pause_s=checkpoint.pause_s,
            seconds=checkpoint.seconds,
            sha256=checkpoint.sha256,
        )
