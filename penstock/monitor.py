"""A run watched over HTTP: ``/metrics`` for Prometheus, ``/healthz``, ``/readyz``.

========== ==============================================================================================
/metrics   everything below, in the format that the client asks for
/healthz   200 as long as it makes no sense to start the process anew; 503 if it failed, or stalled
/readyz    200 while events are learned as they come; 503 otherwise
========== ==============================================================================================

Health is JSON: ``{"pipeline", "state", "reason", "events"}``. Nothing here holds learning up: the learning
thread adds to counters, and what has to be looked at is looked at when somebody asks.
"""

from __future__ import annotations

import errno
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any, Final, Self
from urllib.parse import urlsplit

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import penstock
from penstock.errors import ConfigError, PenstockError, ServiceError
from penstock.notices import Notice
from penstock.observers import Learned, Observer, Saved, Started
from penstock.outputs_config import MonitorSpec
from penstock.snapshots import SnapshotStore
from penstock.status import STATES, Status

__all__ = ["Metrics", "Monitor"]

_MAX_REQUESTS: Final = 8  # at a time; who comes when they are all busy is turned away
_TIMEOUT_S: Final = 5.0  # for a client to say what it wants
_POLL_S: Final = 0.05  # how soon it notices that it is to stop
_SCORES_EVERY_S: Final = 10.0
_NOTICES: Final = ("drift", "opened", "promoted", "reacted", "rejected", "rolled_back", "stale", "withheld")
_PAUSES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DURATIONS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics(Observer):
    """What Prometheus is told of one run; all names begin with ``penstock_``, but those of the process.

    Parameters
    ----------
    status : Status
        An observer of the same run.
    store : SnapshotStore or None
        Where its snapshots go.
    publisher : Publisher, optional
        Of its snapshots to a topic: only its `error` is looked at.
    topic_error : callable, optional
        Tells why the snapshot topic is behind; None if it is not.

    Attributes
    ----------
    registry : CollectorRegistry
        Its own, not the process's.
    """

    def __init__(self, status: Status, store: SnapshotStore | None, publisher: Any = None) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._learned = self._counter("events_learned", "Events learned by this process")
        self._rejected = self._counter("records_rejected", "Records this process could not use")
        self._duplicates = self._counter("duplicates", "Events left out as their id had been learned")
        self._notices = Counter(
            "penstock_notices", "What the engine has reported", ["what"], registry=self.registry
        )
        for what in _NOTICES:
            self._notices.labels(what)
        self._chunk = self._histogram("chunk_seconds", "Learning of one chunk", _PAUSES)
        self._pause = self._histogram(
            "checkpoint_pause_seconds", "How long learning stood still for a checkpoint", _PAUSES
        )
        self._writing = self._histogram(
            "checkpoint_seconds", "Until a checkpoint was on the disk", _DURATIONS
        )
        self._asked = _Asked(status, store, publisher)
        self.registry.register(self._asked)
        self._engine: Any = None
        self._n_events = 0
        self._scored_at = float("-inf")

    def started(self, run: Started) -> None:
        """Take note of the engine, and of where it begins."""
        self._engine = run.engine
        self._n_events = run.resumed_at

    def noticed(self, notice: Notice, version: int | None) -> None:
        """Count it."""
        self._notices.labels(notice.what).inc()

    def learned(self, chunk: Learned) -> None:
        """Count what was learned."""
        if chunk.n_new or chunk.rejected:
            n_learned = chunk.events - self._n_events
            self._n_events = chunk.events
            self._learned.inc(n_learned)
            if (
                chunk.duplicates
            ):  # only where ids are compared, and there what was not learned is a repetition
                self._duplicates.inc(chunk.n_new - n_learned)
            self._rejected.inc(len(chunk.rejected))
            self._chunk.observe(chunk.seconds)
        self._asked.feedback = getattr(self._engine, "counts", {})  # of bandits
        now = time.monotonic()
        if now - self._scored_at >= _SCORES_EVERY_S:
            self._scored_at = now
            self._asked.scores = self._engine.metrics()

    def saved(self, checkpoint: Saved) -> None:
        """Take note of how long it took."""
        self._pause.observe(checkpoint.pause_s)
        self._writing.observe(checkpoint.seconds)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"penstock_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(f"penstock_{name}", text, buckets=tuple(buckets), registry=self.registry)


class _Asked(Collector):
    """What is looked at when somebody asks."""

    def __init__(self, status: Status, store: SnapshotStore | None, publisher: Any) -> None:
        self.scores: dict[str, dict[str, float]] = {}
        self.feedback: dict[str, int] = {}
        self._status = status
        self._store = store
        self._publisher = publisher

    def collect(self) -> Iterator[Metric]:
        """Give every gauge."""
        status, now = self._status, time.time()
        told = status.now
        info = GaugeMetricFamily("penstock_info", "Which run this is", labels=["pipeline", "version"])
        info.add_metric([status.pipeline, penstock.__version__], 1.0)
        yield info
        states = GaugeMetricFamily("penstock_state", "1 for the state of the run", labels=["state"])
        for state in STATES:
            states.add_metric([state], float(state == told.state))
        yield states
        yield _gauge("events", "Events learned since the very beginning", status.events)
        yield _gauge("broker_up", "0 while a broker is waited for", told.state != "waiting_for_broker")
        yield _gauge("silent_seconds", "Since the last sign of life of a run at work", status.silent_s)
        if status.learned_at is not None:
            yield _gauge(
                "last_learned_timestamp_seconds", "When an event was last learned", status.learned_at
            )
        if status.saved_at is not None:
            yield _gauge("checkpoint_age_seconds", "Of the last checkpoint", now - status.saved_at)
            yield _gauge(
                "checkpoint_events", "Events that the last checkpoint holds", status.saved_events or 0
            )
        lag = GaugeMetricFamily("penstock_lag_records", "Still to be learned", labels=["topic", "partition"])
        for topic, partitions in status.lag().items():
            for partition, n in partitions.items():
                lag.add_metric([topic, str(partition)], n)
        yield lag
        scores = GaugeMetricFamily(
            "penstock_score", "Of each learner, over everything or lately", labels=["learner", "score"]
        )
        for learner, report in self.scores.items():
            for name, value in report.items():
                scores.add_metric([learner, name], value)
        yield scores
        feedback = GaugeMetricFamily(
            "penstock_feedback",
            "What became of decisions and rewards since the very beginning",
            labels=["what"],
        )
        for what, n in self.feedback.items():
            feedback.add_metric([what], n)
        yield feedback
        yield from self._snapshots(now)

    def _snapshots(self, now: float) -> Iterator[Metric]:
        store = self._store
        if store is None:
            return
        try:
            serving, held = store.peek("serving"), store.peek("held")
            opened = None if serving is None else store.file(serving.version).stat().st_mtime
        except (PenstockError, OSError):  # it is being replaced, or cannot be read: the run will say so
            return
        yield _gauge("snapshot_held", "1 while promotions are held back", held is not None)
        if serving is not None and opened is not None:
            yield _gauge("snapshot_version", "That serves", serving.version)
            yield _gauge("snapshot_sequence", "Number of the last promotion", serving.sequence or 0)
            yield _gauge("snapshot_age_seconds", "Since what serves was stored", max(0.0, now - opened))
        if self._publisher is not None:
            yield _gauge("snapshot_topic_up", "0 while the topic is behind", self._publisher.error is None)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", text, value=float(value))


class Monitor:
    """The server.

    Parameters
    ----------
    spec : MonitorSpec
    status : Status
    registry : CollectorRegistry

    Raises
    ------
    ServiceError
        If the port is taken.
    ConfigError
        If the address is none of this machine's, or not ours to listen on.
    """

    def __init__(self, spec: MonitorSpec, status: Status, registry: CollectorRegistry) -> None:
        handler = type("Handler", (_Handler,), {"spec": spec, "status": status, "registry": registry})
        try:
            self._server = (_Server6 if ":" in spec.host else _Server)((spec.host, spec.port), handler)
        except OSError as error:
            kind = ServiceError if error.errno == errno.EADDRINUSE else ConfigError
            raise kind(
                f"`monitor`: cannot listen on {spec.host}:{spec.port}: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="penstock-monitor", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """``http://host:port``."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stop; a request that is being answered is not waited for."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    """Serves a few requests at a time, and no more."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking for the name of the host, which may take as long as a name server likes."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or turn away."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: it is the client that went away."""


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    spec: MonitorSpec
    status: Status
    registry: CollectorRegistry

    timeout = _TIMEOUT_S
    server_version = "penstock"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path = urlsplit(self.path).path
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, kind, encode(self.registry))
        elif path in ("/healthz", "/readyz"):
            self._answer_health(ready=path == "/readyz")
        else:
            self._answer(404, "text/plain; charset=utf-8", b"/metrics /healthz /readyz\n")

    do_HEAD = do_GET  # noqa: N815  (the base class asks for it by this name)

    def _answer_health(self, *, ready: bool) -> None:
        told, silent_s = self.status.now, self.status.silent_s
        state, reason = told
        stalled = silent_s > self.spec.stalled_after_s
        if stalled:
            reason = f"no sign of life for {silent_s:.0f} s"
        good = state == "running" if ready else state != "failed"
        body = {
            "pipeline": self.status.pipeline,
            "state": state,
            "reason": reason,
            "events": self.status.events,
        }
        self._answer(200 if good and not stalled else 503, "application/json", orjson.dumps(body) + b"\n")

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the base class's name)
        """Say nothing: a scrape every few seconds is no news."""
