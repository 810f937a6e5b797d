"""Whether an application notices that its model is replaced while it predicts."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import workload
from benchmarks.harness import Answer, AtMost, Measured, Size, main
from benchmarks.workload import Events
from penstock import Batch, Predictor
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.snapshots import SnapshotStore

__all__ = ["ask"]

_VERSIONS: Final = 4
_PERIOD_S: Final = 0.05  # of promotions
_POLL_S: Final = 0.01  # fifty times as often as by default, so that every promotion is seen
_HOT: Final = 64
_STALL_US: Final = 100.0

_METHOD: Final = """\
`Predictor.predict(dict)` in a loop, of a model of 2^18 weights, while another process promotes another
snapshot twenty times a second and the predictor's thread, which looks every 10 ms, reads it, verifies the
hash of its bytes and swaps it in; in turns with rounds in which nothing is promoted, and the thread looks
just as often. Both processes and the thread share the cores with whatever else runs.

Percentiles are of single calls, one reading of the clock included, of each round; the table shows their
medians. A call that waits while the thread holds the interpreter counts once among a million, so the last
column adds up, per second, the time in calls of more than 100 µs, whatever their cause."""

_PROMOTER: Final = """\
import sys, time
from penstock import SnapshotStore
store, period = SnapshotStore(sys.argv[1]), float(sys.argv[2])
versions = store.versions()
for line in sys.stdin:
    for _ in range(int(line)):
        began = time.monotonic()
        sequence = store.last_sequence() + 1
        store.promote(versions[sequence % len(versions)], sequence)
        time.sleep(max(0.0, period - (time.monotonic() - began)))
    print(flush=True)
"""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = workload.events(size.events)
    n_swaps = min(max(size.events // 2500, 2), 20)
    quiet, swapping = Measured("without swaps"), Measured("twenty swaps a second")
    percentiles: dict[str, list[NDArray[np.float64]]] = {quiet.name: [], swapping.name: []}
    stalls: dict[str, list[float]] = {quiet.name: [], swapping.name: []}
    seen: list[int] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        _fill(Path(directory), stream)
        with Predictor(directory, poll_s=_POLL_S) as predictor, _promoter(directory) as promote:
            for turn in range(-1, size.rounds):
                for one in (quiet, swapping) if turn % 2 else (swapping, quiet):
                    begin = partial(_wait, n_swaps * _PERIOD_S) if one is quiet else partial(promote, n_swaps)
                    times, n_seen = _timed(predictor, stream.rows[:_HOT], begin)
                    if turn < 0:
                        continue
                    one.wall.append(float(times.mean()))
                    one.cpu.append(float(times.mean()))
                    percentiles[one.name].append(np.percentile(times, [50, 99, 99.9, 100]))
                    stalls[one.name].append(
                        float(times[times > _STALL_US].sum()) / (n_swaps * _PERIOD_S) / 1000
                    )
                    if one is swapping:
                        seen.append(n_seen)
    for one in (quiet, swapping):
        names = ("p50 µs", "p99 µs", "p99.9 µs", "longest µs")
        one.extras |= dict(zip(names, np.median(percentiles[one.name], axis=0).tolist(), strict=True))
        one.extras["ms a second in long calls"] = float(np.median(stalls[one.name]))
    swapping.extras["swaps a second"] = float(np.mean(seen)) / (n_swaps * _PERIOD_S)
    ratios = np.array(percentiles[swapping.name]) / np.array(percentiles[quiet.name])
    return Answer(
        title="Predicting while snapshots are swapped",
        method=_METHOD,
        item="event",
        measured=[quiet, swapping],
        ratios=[
            AtMost("p99 of *predict* during swaps, against that without", ratios[:, 1].tolist(), 1.2),
            AtMost("p50, likewise", ratios[:, 0].tolist(), 1.2),
        ],
    )


def _fill(path: Path, stream: Events) -> None:
    """Store some versions of one learner, and let the first of them serve."""
    learner, store = SGD(Task("binary")), SnapshotStore(path)
    for rows, labels in zip(_parts(stream.rows), _parts(stream.labels), strict=True):
        learner.learn(Batch.from_rows(rows, labels))
        store.put(learner.freeze().state(), {"kind": "sgd", "task": "binary"})
    store.promote(1, sequence=1)


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[part::_VERSIONS] for part in range(_VERSIONS))


@contextmanager
def _promoter(path: str) -> Iterator[Callable[[int], Callable[[], bool]]]:
    """Start the other process; what is yielded lets it promote n times, and tells when it has."""
    command = [sys.executable, "-c", _PROMOTER, path, str(_PERIOD_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answer = process.stdin, process.stdout

        def promote(n: int) -> Callable[[], bool]:
            done = threading.Event()

            def wait() -> None:
                answer.readline()
                done.set()

            ask.write(f"{n}\n")
            ask.flush()
            threading.Thread(target=wait).start()
            return done.is_set

        yield promote
        process.stdin.close()


def _wait(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def _timed(
    predictor: Predictor, rows: list[dict[str, Any]], begin: Callable[[], Callable[[], bool]]
) -> tuple[NDArray[np.float64], int]:
    """Return the times of single calls in µs, and how many snapshots came along."""
    times: list[int] = []
    keep, clock, predict = times.append, time.perf_counter_ns, predictor.predict
    serving, n_seen = predictor.snapshot, 0
    gc.collect()
    gc.disable()
    done = begin()
    try:
        while not done():
            for row in rows:
                started = clock()
                predict(row)
                keep(clock() - started)
            if predictor.snapshot != serving:
                serving, n_seen = predictor.snapshot, n_seen + 1
    finally:
        gc.enable()
    return np.array(times) / 1000.0, n_seen


if __name__ == "__main__":
    main(ask)
