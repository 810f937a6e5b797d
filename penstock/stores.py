"""Where snapshots that are not in a directory of this machine come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from penstock.registry import resolve

__all__ = ["STORES", "Cache", "is_remote", "mirrored"]

STORES: Final[Mapping[str, str]] = {
    "kafka": "penstock.kafka.cache:TopicCache",
}
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


class Cache(Protocol):
    """A directory that follows a store elsewhere."""

    @property
    def path(self) -> Path:
        """The directory, as `penstock.snapshots.SnapshotStore` lays it out."""

    @property
    def error(self) -> str | None:
        """Why the store cannot be followed at the moment; the directory stays as it was."""

    def start(self) -> None:
        """Follow in the background."""

    def first_look(self, wait_s: float) -> bool:
        """Wait for what is in the store now; return False if it cannot be had.

        As long as the store is being read, however long that takes; `wait_s` is for one that cannot be
        reached.
        """

    def refresh(self) -> None:
        """Bring the directory up to date now, if that is not done in the background."""

    def after_fork(self) -> None:
        """Begin anew in a forked child."""

    def abandon(self) -> None:
        """Stop following soon; for one whose user is gone."""

    def close(self) -> None:
        """Stop following, and remove the directory if it is a temporary one."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a URL, not a directory.

    Examples
    --------
    >>> is_remote("kafka://localhost:9092/snapshots"), is_remote("snapshots")
    (True, False)
    """
    return isinstance(path, str) and _SCHEME.fullmatch(path) is not None


def mirrored(url: str, cache: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> Cache:
    """Return a directory that can follow the store at `url`.

    Parameters
    ----------
    url : str
        ``kafka://host:port[,host:port…]/topic``.
    cache : path or None
        The directory; None: a temporary one.
    settings : mapping
        For the client of the store.

    Raises
    ------
    ConfigError
        If there is no such kind of store, or the URL or a setting is wrong.
    """
    match = _SCHEME.fullmatch(url)
    assert match is not None, "is_remote says whether it is a URL"
    cls = resolve(match[1], STORES, what="snapshot store")
    made: Cache = cls(url, match[2], cache, settings)
    return made
