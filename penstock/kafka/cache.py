"""The directory in which an application keeps the snapshots of a topic."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from penstock.config import explained
from penstock.errors import ConfigError, PenstockError
from penstock.kafka.client import Connection, consumer
from penstock.kafka.mirror import Follower

__all__ = ["TopicCache", "connection_of"]

_STANDBY_S: Final = 30.0  # for another process, which fills the same directory, to have read the topic once
_LOOK_S: Final = 0.02


def connection_of(url: str, location: str, settings: Mapping[str, Any]) -> tuple[Connection, str]:
    """Take ``host:port[,host:port…]/topic`` apart.

    Raises
    ------
    ConfigError
        If it is not that, or a setting is wrong.

    Examples
    --------
    >>> connection_of("kafka://a:9092,b:9092/snapshots", "a:9092,b:9092/snapshots", {})[1]
    'snapshots'
    """
    bootstrap, _, topic = location.partition("/")
    if not bootstrap or not topic or "/" in topic:
        raise ConfigError(f"expected kafka://host:port/topic, got {url!r}")
    try:
        return Connection(bootstrap=bootstrap, settings=dict(settings)), topic
    except ValidationError as error:
        raise ConfigError(f"{url}: {'; '.join(explained(error, Connection))}") from None


class TopicCache:
    """A `penstock.stores.Cache` of a topic.

    Parameters
    ----------
    url : str
        For messages.
    location : str
        Behind its ``kafka://``.
    cache : path or None
        A directory that several processes may share: one of them fills it. None: a temporary one.
    settings : mapping
        Of librdkafka.
    """

    def __init__(
        self, url: str, location: str, cache: str | os.PathLike[str] | None, settings: Mapping[str, Any]
    ) -> None:
        connection, topic = connection_of(url, location, settings)
        consumer(connection).close()  # a setting that is wrong is said now, and not in a thread
        self._path = Path(tempfile.mkdtemp(prefix="penstock-snapshots-") if cache is None else cache)
        owner = os.getpid() if cache is None else None
        self._remove = weakref.finalize(self, _remove, self._path, owner)  # at exit at the latest
        self._follower = Follower(connection, topic, self._path)
        self._follows = False
        self._error: str | None = None

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def error(self) -> str | None:
        """Why the topic cannot be followed at the moment."""
        return self._follower.error if self._follows else self._error

    def start(self) -> None:
        """Follow in the background."""
        self._follows = True
        self._follower.start(at_end=self._remove)

    def first_look(self, wait_s: float) -> bool:
        """Wait until all that is in the topic is here; return False if the topic cannot be read."""
        if not self._follows:
            return self._read_once()
        deadline = time.monotonic() + wait_s
        patience = time.monotonic() + max(wait_s, _STANDBY_S)
        while not self._follower.caught_up:
            now = time.monotonic()
            if (self.error is not None and now >= deadline) or (self._follower.standby and now >= patience):
                return False
            time.sleep(_LOOK_S)
        return True

    def refresh(self) -> None:
        """Read to the end of the topic, unless that is done in the background."""
        if not self._follows:
            self._read_once()

    def after_fork(self) -> None:
        """Begin anew in a forked child; a temporary directory stays the parent's."""
        self._follower.after_fork()

    def abandon(self) -> None:
        """Stop following soon."""
        self._follower.stop()

    def close(self) -> None:
        """Stop following; a temporary directory goes."""
        self._follower.close()
        self._remove()

    def _read_once(self) -> bool:
        try:
            reached = self._follower.run_once()
        except PenstockError as error:
            self._error = str(error)
            return False
        self._error = None
        return reached


def _remove(path: Path, owner: int | None) -> None:
    """Remove a temporary directory, in the process that made it: not in a child of a fork."""
    if owner == os.getpid():
        shutil.rmtree(path, ignore_errors=True)
