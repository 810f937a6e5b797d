"""Reading ahead: what is wanted next is made in a second thread while the last is being used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Final, Generic, TypeVar

__all__ = ["read_ahead"]

_T = TypeVar("_T")
_DEPTH: Final = 2  # items that may wait: neither side idles for the other's hiccups
_PATIENCE_S: Final = 1.0  # for the thread to end: it may be reading a pipe that nobody writes to any more


class _Ahead(Generic[_T]):
    """What is in between the two threads."""

    def __init__(self, items: Iterator[_T], depth: int) -> None:
        self._items = items
        self._depth = depth
        self._ready: deque[_T] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._is_over = False
        self._is_unwanted = False
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify()
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._is_unwanted)
                    if self._is_unwanted:
                        break
        except BaseException as error:  # it belongs to whoever asks for the next item
            self._error = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()
            with self._changed:
                self._is_over = True
                self._changed.notify()

    def take(self) -> Iterator[_T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._is_over)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._changed.notify()
            yield item
            del item
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        with self._changed:
            self._is_unwanted = True
            self._changed.notify()
        self._thread.join(_PATIENCE_S)


def read_ahead(items: Iterator[_T], depth: int = _DEPTH) -> Iterator[_T]:
    """Yield what `items` yields, made ahead in a thread of its own.

    Pays where making an item releases the interpreter's lock. `items` must not be used by anyone else.

    Parameters
    ----------
    items : iterator
        What it raises is raised here, behind the items that came before.
    depth : int
        How many items may wait.

    Examples
    --------
    >>> list(read_ahead(iter(range(5))))
    [0, 1, 2, 3, 4]
    """
    ahead = _Ahead(items, depth)
    try:
        yield from ahead.take()
    finally:
        ahead.end()
