"""What a run is doing, for whoever asks from another thread: starting, running, waiting, and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from penstock.observers import Learned, Observer, Saved, Started

__all__ = ["STATES", "State", "Status", "Told"]

State: TypeAlias = Literal[
    "starting",
    "standby",
    "recovering",
    "running",
    "waiting_for_broker",
    "stopping",
    "stopped",
    "failed",
]
STATES: Final[tuple[State, ...]] = get_args(State)


class Told(NamedTuple):
    """A state, and a sentence for people."""

    state: State
    reason: str


class Status(Observer):
    """Follows a run.

    Parameters
    ----------
    pipeline : str
        Its name.
    clock : callable
        Seconds since whenever; moves on only.

    Attributes
    ----------
    events : int
        Learned since the very beginning.
    learned_at, saved_at : float or None
        Seconds since the Unix epoch when the last event was learned, and the last checkpoint was in place,
        by this run.
    saved_events : int or None
        That this checkpoint holds.
    """

    def __init__(self, pipeline: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.pipeline: Final = pipeline
        self.events = 0
        self.learned_at: float | None = None
        self.saved_at: float | None = None
        self.saved_events: int | None = None
        self._clock = clock
        self._source: Any = None
        self._was_connected = False
        self._told = Told("starting", "reads its configuration and its checkpoint")
        self._sign_at: float | None = None

    def tell(self, state: State, reason: str) -> None:
        """Set the state of a run that is not at work yet, or any more."""
        self._told = Told(state, reason)

    @property
    def now(self) -> Told:
        """What the run is doing. Any thread may ask."""
        if self._source is None or self._told.state != "running":
            return self._told
        health = getattr(self._source, "health", None)
        if health is None:
            return self._told
        if not health.ok:
            return Told("waiting_for_broker" if self._was_connected else "starting", health.text)
        self._was_connected = True
        if getattr(self._source, "repeating", False):
            return Told("recovering", "learns once more what the journal holds behind the checkpoint")
        return self._told

    @property
    def silent_s(self) -> float:
        """For how long a run at work has given no sign of life, in seconds; 0 if it is not at work."""
        since = self._sign_at
        return 0.0 if since is None else self._clock() - since

    def lag(self) -> dict[str, dict[int, int]]:
        """How many records of each topic's partitions are still to be learned; empty if there are none."""
        lag = getattr(self._source, "lag", None)
        found: dict[str, dict[int, int]] = {} if lag is None else lag()
        return found

    def started(self, run: Started) -> None:
        """Take note that the run is ready to learn."""
        self._source = run.source
        self.events = run.resumed_at
        self._sign_at = self._clock()
        if self._told.state != "stopping":
            self._told = Told("running", "learns")

    def learned(self, chunk: Learned) -> None:
        """Take note of a chunk."""
        if chunk.events > self.events:  # what was read may all have been repeated, or too late
            self.learned_at = time.time()
        self.events = chunk.events
        self._sign_at = self._clock()

    def saved(self, checkpoint: Saved) -> None:
        """Take note of a checkpoint."""
        self.saved_at = time.time()
        self.saved_events = checkpoint.events

    def stopped(self, error: BaseException | None) -> None:
        """Take note of the end."""
        self._sign_at = None
        self._source = None
        self._told = Told("stopped", "done") if error is None else Told("failed", str(error))
