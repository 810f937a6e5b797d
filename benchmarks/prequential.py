"""How fast are events learned that are dicts in memory: predict, score, learn, one after the other?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from river import compose, linear_model, metrics, preprocessing
from vowpalwabbit import pyvw

from benchmarks.harness import Answer, Case, Extras, Ratio, Size, compare, main
from benchmarks.workload import Events, events
from penstock import Batch, Engine
from penstock.config import parse
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.sources.memory import MemorySource

__all__ = ["ask"]

_READ = 4096  # events at a time, as `penstock evaluate` reads them

_METHOD = """\
Dicts with 10 numbers and 10 strings, one binary label. All of Penstock's rows start from the dicts: the walk, the
hashing and the building of batches are timed. *Engine* keeps every metric in its three views (cumulative, window,
fading) and runs both baselines beside the learner, as `penstock evaluate` does; with `MemorySource` it is exactly
what `penstock evaluate` runs. `sgd` learns as VW does by default, with the same 18 bits.

River's `StandardScaler | LogisticRegression` loop is `predict_proba_one`, `metrics.LogLoss.update`, `learn_one`. It
cannot take strings, so its categories were one-hot encoded before the clock started. *By hand* is the fastest
loop we could write with River's parts: only the numbers are scaled, once an event, and the ready-made indicators
are merged in; the targets are held against it. *Pipeline* hands all twenty to the pipeline as it stands (which
scales the indicators to 0, hence its loss). *With encoder* starts from the dicts, as one would write it, with
`OneHotEncoder(drop_zeros=True)`.

pyvw is fed ready-made strings: `learn(str)` with VW's own progressive loss; or, where each prediction is wanted too,
an example is parsed, learned, asked and finished. The log losses show that all do the same work."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = events(size.events)
    with_source = _engine(stream, from_source=True)
    cases = {
        "floor": Case("one pass over each dict (`tuple(row.items())`)", lambda: lambda: _pass(stream)),
        "rows": Case("`Batch.from_rows` alone", lambda: lambda: _build(stream)),
        "sgd": Case("Penstock `SGD.progress`", lambda: _sgd(stream)),
        "engine": Case("Penstock `Engine`", lambda: _engine(stream)()),
        "source": Case("Penstock `MemorySource`, `Engine`", lambda: with_source()),
    }
    del cases
    raise NotImplementedError


if __name__ == "__main__":
    main(ask)
