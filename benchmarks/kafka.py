"""How much of a bare consumer's speed is left when every record is learned exactly once.

``python -m benchmarks.kafka`` starts a broker of its own (Java and Maven, see `tests/kafka/broker.py`), or
takes the one at ``--bootstrap``. ``--soak N`` runs one daemon over N events instead, as they are
written, 100,000 a second, and watches its memory and its lag.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from benchmarks import harness, workload
from benchmarks.harness import Answer, Case, Extras, Ratio, Size, compare
from penstock import runner
from penstock.config import parse
from penstock.events import Task
from penstock.kafka.client import Connection, admin
from penstock.kafka.source import KafkaSource
from penstock.observers import Learned, Observer, Saved, Started

__all__ = ["ask", "unavailable"]

_PARTITIONS: Final = 4
_TIMES: Final = 20  # so many events are read in a second or two; connecting takes a tenth
_DISTINCT: Final = 50_000
_SOAK_RATE: Final = 100_000  # events a second: half of what a daemon manages beside a broker, on two cores
_BATCH: Final = 4096
_BROKER: Final = Path(__file__).parents[1] / "tests" / "kafka" / "broker.py"

_METHOD: Final = """\
Events as JSON of about 420 bytes with twenty features (fifty thousand different ones, again and again),
twenty times as many as elsewhere, in a topic of four partitions on a broker of this machine, read from the
first to the last. *Daemon* is what `penstock run` does, in this process, with one `sgd`: consumed,
journaled, decoded, hashed, predicted, scored by all metrics beside both baselines, learned, with
checkpoints to the disk as often as they come by default. *Source alone* is the same without an engine:
consumed, journaled, decoded, hashed. The floors are loops around `consume(4096)`, with the same settings of
librdkafka, that do nothing with a record, or call `orjson.loads` on it and drop the result. Connecting is a
part of every run."""


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broker", _BROKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unavailable() -> str | None:
    """Say why no broker can be had; None if one can."""
    reason: str | None = _module().unavailable()
    return reason


@contextlib.contextmanager
def _broker(bootstrap: str | None = None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    with _module().launch(1) as cluster:
        yield cluster.bootstrap


def _create(bootstrap: str) -> str:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    client = admin(Connection(bootstrap=bootstrap))
    client.create_topics([NewTopic(topic, _PARTITIONS, 1)])[topic].result(30)
    return topic


def _fill(bootstrap: str, topic: str, n: int, rate: float = math.inf) -> None:
    """Write n events, at most `rate` of them a second."""
    stream = workload.events(min(n, _DISTINCT))
    lines = [
        orjson.dumps({"label": int(label), **row})
        for row, label in zip(stream.rows, stream.labels, strict=True)
    ]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    began = time.monotonic()
    for i in range(n):
        while True:
            try:
                producer.produce(topic, lines[i % len(lines)], partition=i % _PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 1000 == 0:
            producer.poll(max(0.0, began + i / rate - time.monotonic()))
    producer.flush()


def ask(size: Size, bootstrap: str | None = None) -> Answer:
    """Answer the question for `size`."""
    with _broker(bootstrap) as address, tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        topic, n = _create(address), _TIMES * size.events
        _fill(address, topic, n)
        paths = (Path(directory, str(i)) for i in range(1_000_000))
        measured = compare(
            [
                Case("floor: consume()", lambda: partial(_consume, address, topic, n, None)),
                Case(
                    "floor: consume() + orjson.loads",
                    lambda: partial(_consume, address, topic, n, orjson.loads),
                ),
                Case("source alone", lambda: partial(_source, address, topic, next(paths), n)),
                Case("daemon", lambda: partial(_daemon, address, topic, next(paths), n)),
            ],
            items=n,
            rounds=size.rounds,
        )
    daemon, bare, loads = (
        measured[name] for name in ("daemon", "floor: consume()", "floor: consume() + orjson.loads")
    )
    return Answer(
        title="Learning from Kafka",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            Ratio(daemon, loads, target=0.5),
            Ratio(daemon, bare, target=0.6, parts=(bare, measured["source alone"])),
            Ratio(measured["source alone"], loads),
        ],
    )


def _consume(address: str, topic: str, n: int, loads: Callable[[bytes], Any] | None) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bench",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 32 << 10,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
    seen = 0
    while seen < n:
        messages = consumer.consume(_BATCH, 0.1)
        seen += len(messages)
        if loads is not None:
            for message in messages:
                loads(message.value())
    consumer.close()


def _source(address: str, topic: str, path: Path, n: int) -> None:
    source = KafkaSource(Task("binary"), address, topic, journal=str(path / "journal"), follow=False)
    assert sum(len(chunk.batch) for chunk in source.chunks(None, _BATCH)) == n


def _pipeline(address: str, topic: str, path: Path, **changes: Any) -> Any:
    source = {"kind": "kafka", "bootstrap": address, "topics": topic, "follow": False}
    return parse(
        {"name": "bench", "source": source, "checkpoint": {"path": str(path / "checkpoint")}, **changes}
    )


def _daemon(address: str, topic: str, path: Path, n: int) -> Extras:
    watch = _Watch()
    assert runner.run(_pipeline(address, topic, path), observers=[watch]).events == n
    return {"checkpoints": len(watch.pauses), "pause, ms": 1000 * max(watch.pauses)}


class _Watch(Observer):
    """Notes pauses, memory and lag."""

    def __init__(self, every: int = 0) -> None:
        self.pauses: list[float] = []
        self.memory: list[tuple[int, float]] = []  # events, and MB
        self.lag: list[int] = []  # records not learned yet, at the same events
        self._every = every
        self._source: Any = None

    def started(self, run: Started) -> None:
        self._source = run.source

    def saved(self, checkpoint: Saved) -> None:
        self.pauses.append(checkpoint.pause_s)

    def learned(self, chunk: Learned) -> None:
        if self._every and (not self.memory or chunk.events >= self.memory[-1][0] + self._every):
            self.memory.append((chunk.events, _resident_mb()))
            self.lag.append(sum(n for of in self._source.lag().values() for n in of.values()))


def _resident_mb() -> float:
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _soak(n: int, address: str) -> None:
    """Run one daemon over n events, as they are written, and say how it went."""
    topic = _create(address)
    command = [
        sys.executable,
        "-m",
        "benchmarks.kafka",
        "--bootstrap",
        address,
        "--fill",
        topic,
        str(n),
        str(_SOAK_RATE),
    ]
    writing = subprocess.Popen(command)
    try:
        _soaked(n, address, topic)
    finally:
        writing.kill()
        writing.wait()


def _soaked(n: int, address: str, topic: str) -> None:
    watch = _Watch(every=max(1, n // 20))
    done = threading.Event()
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as directory:
        pipeline = _pipeline(
            address,
            topic,
            Path(directory),
            drift=[{"kind": "adwin"}],
            shadow={"refresh_every": 100_000},
            snapshots={"path": f"{directory}/snapshots"},
            replay={"kind": "reservoir", "size": 2000, "ratio": 0.1},
        ).with_source(follow=True)
        began = time.monotonic()
        outcome = runner.run(pipeline, observers=[watch, _Until(n, done)], should_stop=lambda: done.is_set())
        seconds = time.monotonic() - began
    pauses = 1000 * np.array(watch.pauses)
    print(f"{outcome.events:,} events in {seconds:.0f} s, {outcome.events / seconds:,.0f} a second")
    print("events, resident MB:", ", ".join(f"{events:,}: {mb:.0f}" for events, mb in watch.memory))
    print("lag there, in events:", ", ".join(f"{lag:,}" for lag in watch.lag))
    print(
        f"{len(pauses)} checkpoints; learning stood still for {np.percentile(pauses, 50):.2f} ms (median), "
        f"{np.percentile(pauses, 99):.2f} ms (99 %), {pauses.max():.2f} ms (most)"
    )


class _Until(Observer):
    def __init__(self, n: int, done: threading.Event) -> None:
        self._n = n
        self._done = done

    def learned(self, chunk: Learned) -> None:
        if chunk.events >= self._n:
            self._done.set()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, parents=[harness.size_options()])
    parser.add_argument("--bootstrap", help="a broker that is there")
    parser.add_argument("--soak", type=int, metavar="N", help="one daemon over N events")
    parser.add_argument("--fill", nargs=3, metavar=("TOPIC", "N", "RATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill is not None:
        topic, n, rate = options.fill
        _fill(options.bootstrap, topic, int(n), float(rate))
        return
    if options.soak is not None:
        with _broker(options.bootstrap) as address:
            _soak(options.soak, address)
        return
    size = harness.size_of(options)
    sys.stdout.write(ask(size, options.bootstrap).markdown() + "\n")
    sys.stdout.write(harness.machine(size))


if __name__ == "__main__":
    main()
