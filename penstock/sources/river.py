"""The data sets that ship with River, and its endless synthetic streams."""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from annotated_types import Ge, MinLen

from penstock.codecs.fields import Fields
from penstock.errors import ConfigError, DataError
from penstock.events import Task
from penstock.sources.base import Chunk, Position
from penstock.sources.inject import injected
from penstock.sources.rows import chunk_of, record_of

__all__ = ["RiverSource"]

_SYNTH: Final = "synth."
_SEED: Final = 0  # where a stream is random and nobody says how


class RiverSource:
    """Reads one of `river.datasets`.

    Parameters
    ----------
    task : Task
        A boolean label is a class of a binary task as well as of a multiclass one.
    dataset : str
        Its name: ``Phishing``, ``synth.SEA``.
    params : mapping, optional
        Of its constructor. One that is a data set itself is written as a mapping
        ``{"dataset": ..., "params": {...}}``. A seed that is not given is 0.
    time : str, optional
        The feature that is the event's time instead.
    classes : pair of class names, optional
        Of a binary task: negative, positive.
    limit : int, optional
        How many records to read, good and bad. A synthetic stream has no other end.
    repeat : int
        How many times to read the set.
    inject : mapping, optional
        A drift to put in; see `penstock.sources.inject.Injection`.

    Raises
    ------
    ConfigError
        If there is no such set, or it does not accept `params`.

    Examples
    --------
    >>> source = RiverSource(Task("binary"), "Phishing", limit=500)
    >>> [len(chunk.batch) for chunk in source.chunks(None, size=200)]
    [200, 200, 100]
    """

    def __init__(
        self,
        task: Task,
        dataset: str,
        *,
        params: Mapping[str, Any] | None = None,
        time: str | None = None,
        classes: Annotated[Sequence[str | int | bool], MinLen(2)] | None = None,
        limit: Annotated[int, Ge(1)] | None = None,
        repeat: Annotated[int, Ge(1)] = 1,
        inject: Mapping[str, Any] | None = None,
    ) -> None:
        self._fields = Fields(task, label="y", time=time, classes=classes)
        self._spec = {"dataset": dataset, "params": params or {}}
        self._name = dataset
        self._limit = limit
        self._repeat = repeat
        _build(self._spec)  # what is wrong with it is said now, not when it is read
        self._read = injected(self._chunks, inject, task)

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position`; see `penstock.sources.base.Source`."""
        return self._read(position, size)

    def _chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        at = record_of(position)
        time = self._fields.time
        # Built anew for each lap and each reader: a stream's random state stays in the object.
        laps = itertools.chain.from_iterable(_build(self._spec) for _ in range(self._repeat))
        records = itertools.islice(laps, at, self._limit)
        try:
            while pairs := list(itertools.islice(records, size)):
                rows = [{str(name): value for name, value in x.items()} for x, _ in pairs]
                times = None if time is None else [row.pop(time, None) for row in rows]
                labels = [y for _, y in pairs]
                chunk = chunk_of(self._fields, rows, labels, times=times, first=at, name=self._name)
                at += len(pairs)
                yield chunk
        finally:
            with warnings.catch_warnings():
                # River closes its file where the file ends, not where reading stops.
                warnings.simplefilter("ignore", ResourceWarning)
                del laps, records


def _names() -> dict[str, Any]:
    """Return every data set by its name."""
    datasets = importlib.import_module("river.datasets")
    synth = importlib.import_module("river.datasets.synth")
    found = {name: getattr(datasets, name) for name in datasets.__all__}
    found |= {_SYNTH + name: getattr(synth, name) for name in synth.__all__}
    return {name: dataset for name, dataset in found.items() if inspect.isclass(dataset)}


def _build(spec: Mapping[str, Any]) -> Any:
    """Build a data set from its name and parameters, without any download."""
    name, params = spec["dataset"], spec.get("params") or {}
    unknown = sorted(spec.keys() - {"dataset", "params"})
    if unknown:
        raise ConfigError(f"params: {unknown[0]!r} beside `dataset: {name}`; expected `params` only")
    datasets = _names()
    if name not in datasets:
        close = difflib.get_close_matches(str(name), datasets, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"River has no data set called {name!r}{hint}: known are {', '.join(sorted(datasets))}"
        )
    nested = {
        key: _build(value) if isinstance(value, Mapping) and "dataset" in value else value
        for key, value in params.items()
    }
    parameters = inspect.signature(datasets[name]).parameters
    seeds = {key: _SEED for key in parameters if key == "seed" or key.startswith("seed_")}
    try:
        dataset = datasets[name](**(seeds | nested))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"river.datasets.{name}: {error}; parameters are {', '.join(parameters)}") from None
    if getattr(dataset, "is_downloaded", True):
        return dataset
    raise DataError(
        f"river.datasets.{name} does not ship with River and is not on this machine; to get it, run "
        f"python -c 'from river import datasets; datasets.{name}().download()'"
    )
