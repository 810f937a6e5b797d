"""What ``penstock snapshots mirror`` does: a directory into a topic, or a topic into a directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from penstock.errors import ConfigError, ServiceError
from penstock.kafka.cache import connection_of
from penstock.kafka.mirror import Follower
from penstock.kafka.publisher import Publisher
from penstock.snapshots import SnapshotStore

__all__ = ["copy"]

_SCHEME: Final = "kafka://"
_POLL_S: Final = 1.0


def copy(source: str, target: str | None, *, follow: bool, settings: Sequence[str]) -> int:
    """Bring `target` up to date with `source`; one is a directory, the other ``kafka://host:port/topic``.

    Parameters
    ----------
    source, target : str
    follow : bool
        Go on until interrupted.
    settings : sequence of str
        ``key=value``, of librdkafka.

    Raises
    ------
    ConfigError
        If not exactly one of the two is a topic, or a setting is wrong.
    ServiceError
        If the broker cannot be reached.
    """
    if target is None or source.startswith(_SCHEME) == target.startswith(_SCHEME):
        raise ConfigError("`snapshots mirror` needs a directory and kafka://host:port/topic, in either order")
    given = dict(_setting(text) for text in settings)
    url = source if source.startswith(_SCHEME) else target
    connection, topic = connection_of(url, url.removeprefix(_SCHEME), given)
    if url is target:
        _publish(Publisher(SnapshotStore(source), connection, topic), follow=follow)
    else:
        _mirror(Follower(connection, topic, target), follow=follow)
    return 0


def _publish(publisher: Publisher, *, follow: bool) -> None:
    with publisher:
        while True:
            for what in publisher.run_once():
                print(what, flush=True)
            if not follow:
                return
            time.sleep(_POLL_S)


def _mirror(follower: Follower, *, follow: bool) -> None:
    with follower:
        store = SnapshotStore(follower.path)
        serving = None
        while True:
            if not follower.run_once() and not follow:
                raise ServiceError(f"another process mirrors into {follower.path}, or the broker is too slow")
            if (now := store.peek("serving")) != serving:
                serving = now
                print(f"version {now.version} serves" if now else "nothing serves", flush=True)
            if not follow:
                return
            time.sleep(_POLL_S)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--kafka {text}: expected KEY=VALUE")
    return key, value
