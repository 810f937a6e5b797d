"""Checkpoints, written beside the learning: one at a time, in their order, and no failure goes unheard."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from penstock import checkpoints
from penstock.checkpoints import Checkpoint

__all__ = ["Saver", "Written"]


class Written:
    """A checkpoint on its way to the disk.

    Attributes
    ----------
    checkpoint : Checkpoint
    events : int
    pause_s : float
        How long learning stood still until it was handed over.
    seconds : float
        How long writing took.
    sha256 : str
    """

    __slots__ = ("checkpoint", "events", "pause_s", "seconds", "sha256")

    def __init__(self, checkpoint: Checkpoint, events: int, pause_s: float) -> None:
        self.checkpoint: Final = checkpoint
        self.events: Final = events
        self.pause_s: Final = pause_s
        self.seconds = 0.0
        self.sha256 = ""


class Saver:
    """Writes checkpoints in a thread of its own.

    Hashing, writing and waiting for the disk need nothing of the engine once its state has been copied, and
    hold no lock of the interpreter.

    Parameters
    ----------
    path : path
    config_hash : str
    before : callable
        Called, in the thread, before the old checkpoint is replaced: makes durable whatever the new one
        speaks of.
    """

    def __init__(self, path: Path, *, config_hash: str, before: Callable[[], None]) -> None:
        self._path = path
        self._config_hash = config_hash
        self._before = before
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="penstock-checkpoint")
        self._pending: Future[Written] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._pending is not None and not self._pending.done()

    def submit(self, written: Written) -> None:
        """Begin to write; the one before must have been collected."""
        assert self._pending is None, "one checkpoint at a time"
        self._pending = self._thread.submit(self._write, written)

    def collect(self, *, wait: bool = False) -> Written | None:
        """Return the checkpoint that is in place since the last call; None if there is none (yet).

        Raises
        ------
        StoreError
            If it could not be written; the one before is still there.
        """
        if self._pending is None or not (wait or self._pending.done()):
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def close(self) -> None:
        """End the thread, when what was handed to it is done."""
        self._thread.shutdown()

    def _write(self, written: Written) -> Written:
        began = time.monotonic()
        self._before()
        written.sha256 = checkpoints.save(self._path, written.checkpoint, config_hash=self._config_hash)
        written.seconds = time.monotonic() - began
        return written
