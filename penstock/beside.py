"""Native learners beside one another: their kernels release the interpreter, so that several learn at once.

A learner sees its events in order, in one thread at a time, and shares nothing with the others. So what comes
out is what comes out of one after the other, to the bit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.learners.base import Learner

__all__ = ["progressed"]

_MIN_EVENTS: Final = (
    1024  # of a batch: the kernel takes a third of a millisecond, passing it on a tenth of that
)


def progressed(learners: Mapping[str, Learner], batch: Batch) -> dict[str, Future[NDArray[np.float64]]]:
    """Let those learners progress over `batch` at once that can.

    Parameters
    ----------
    learners : mapping of name to learner
        Different ones.
    batch : Batch

    Returns
    -------
    dict of name to Future
        Done, with the predictions or whatever was raised. Empty if it is not worth it: fewer than two
        learners that run without the interpreter, a small batch, a single processor. Who is not in it has
        not progressed.
    """
    native = {name: one for name, one in learners.items() if getattr(one, "releases_gil", False)}
    if len(native) < 2 or len(batch) < _MIN_EVENTS or _processors() < 2:
        return {}
    running: dict[str, Future[Any]] = {
        name: _pool().submit(one.progress, batch) for name, one in native.items()
    }
    wait(running.values())
    return running


@functools.cache
def _processors() -> int:
    return len(os.sched_getaffinity(0))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="penstock-learner")


os.register_at_fork(after_in_child=_pool.cache_clear)  # no thread of the parent lives on in a child
