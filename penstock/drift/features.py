"""Tests of every feature's distribution against that of a reference window."""

from __future__ import annotations

import copy
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from scipy import special

from penstock import events
from penstock._native import inputs as native
from penstock.drift.base import Change, Domain, Shift
from penstock.drift.rounds import level_for
from penstock.drift.sequential import require_count
from penstock.drift.vocabulary import Column, Vocabulary
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch
from penstock.state import State

__all__ = ["Features", "rejected"]

_MOST_EVENTS: Final = 20_000  # of the reference, so that codes fit 16 bits
_MOST_CATEGORIES: Final = 64  # of a feature that are counted on their own
_CATEGORY_SHARE: Final = 0.01  # of the events, that a category needs for it
_LEAST_EXPECTED: Final = 5  # times that a cell of a table must be expected, or it is merged with others
_PSI_BINS: Final = 10
_UNWATCHED: Final = "(features not watched)"


class Features:
    """Compares each feature of the newest events with a frozen reference, at every `clock`-th event.

    Continuous numbers by Kolmogorov and Smirnov's test, categories (and numbers of at most 20 values) by
    the likelihood-ratio test of their counts (G). As many features are tested at once, the false discovery
    rate among those named is controlled (Benjamini and Hochberg), at a level that follows from
    `false_alarm_every`, how many features there are and how much of the data two tests share.

    It takes three stretches of events: a quarter of `reference`, whose rows tell what features there are; the
    reference; and `window` events, before the first test. What is tested is chosen on events that are not
    tested, or a category that was frequent by luck would be rarer afterwards. After an alarm all of it
    starts afresh, from the events that follow.

    A feature is what a learner sees of it: one that is missing, None or 0 is 0 (a number) or "other" (a
    category, together with the rare and the new ones). Features beyond `max_features`, and ones that first
    appear later, are watched by how many of them an event has.

    Parameters
    ----------
    false_alarm_every : int
        Events for each false alarm, on average over long streams, starting afresh after each: of independent
        events that do not change, with features that do not depend on each other (with ones that do, more).
    reference, window, clock : int
        Larger windows see smaller changes, later.
    max_features : int
        Watches those that the most events had.

    Notes
    -----
    The false discovery rate is the chance of any alarm while nothing changes. By the union bound over rounds
    it would have to be clock / false_alarm_every; `penstock.drift.rounds.level_for` knows how much more it
    can be. What comes before the first test is a part of the run: a `false_alarm_every` below about twice
    that (here 3500 events) is reached roughly only, as no level of a round is above a half. Dependent
    features are safe if they go together; events that depend on each other are not.

    An event costs some 50 ns for each feature that is watched, all tests included; the state has 8 bytes
    for each of them and event of the reference, and 2 for each of them and event of the window.

    References
    ----------
    Benjamini and Hochberg (1995), Controlling the false discovery rate, JRSS B 57, 289-300.
    Rabanser, Günnemann and Lipton (2019), Failing loudly, NeurIPS (arXiv:1810.11953).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = [{"calm": x, "moves": y} for x, y in rng.normal(size=(10_000, 2)).tolist()]
    >>> for row in rows[6000:]:
    ...     row["moves"] += 1.0
    >>> change = Features().update(Batch.from_rows(rows))
    >>> change.index, [shift.feature for shift in change.shifts]
    (6499, ['moves'])
    """

    domain: ClassVar[Domain] = "inputs"

    def __init__(
        self,
        *,
        false_alarm_every: Annotated[int, Ge(1000)] = 100_000,
        reference: Annotated[int, Ge(200), Le(_MOST_EVENTS)] = 2000,
        window: Annotated[int, Ge(50), Le(_MOST_EVENTS)] = 1000,
        clock: Annotated[int, Ge(1)] = 500,
        max_features: Annotated[int, Ge(1), Le(1000)] = 100,
    ) -> None:
        require_count("false_alarm_every", false_alarm_every, 1000)
        for name, value, low in (("reference", reference, 200), ("window", window, 50)):
            require_count(name, value, low)
            if value > _MOST_EVENTS:
                raise ConfigError(f"{name}: expected at most {_MOST_EVENTS}, got {value}")
        require_count("clock", clock, 1)
        require_count("max_features", max_features, 1)
        if clock > false_alarm_every // 2:
            raise ConfigError(f"clock: expected at most half of false_alarm_every, got {clock}")
        self._every = false_alarm_every
        self._n_reference, self._n_window, self._clock = reference, window, clock
        self._n_vocabulary = reference // 4
        self._max_features = max_features
        self._least = -(-_LEAST_EXPECTED * (reference + window) // min(reference, window))
        self.reset()

    def reset(self) -> None:
        """Forget everything, as before the first event."""
        self._n = 0  # events since it began afresh
        self._words = Vocabulary()
        self._columns: list[Column] = []
        self._reference = np.zeros((0, 0))
        self._window = np.zeros((0, 0), np.uint16)

    def update(self, batch: Batch) -> Change | None:
        """Take all events of `batch`, in stream order; return the first alarm among them."""
        first: Change | None = None
        taken, length = 0, len(batch)
        while taken < length:
            stop = taken + min(length - taken, self._until_next())
            alarm = self._take(batch, taken, stop)
            if alarm is not None:
                first = first or alarm
                self.reset()
            taken = stop
        return first

    def _until_next(self) -> int:
        """How many events may be taken before something else than taking them is to be done."""
        start = self._n_vocabulary + self._n_reference
        if self._n < self._n_vocabulary:
            return self._n_vocabulary - self._n
        if self._n < start:
            return start - self._n
        return self._clock - (self._n - start) % self._clock

    def _take(self, batch: Batch, start: int, stop: int) -> Change | None:
        n_before = self._n
        self._n += stop - start
        if n_before < self._n_vocabulary:
            self._words.learn(batch.rows[start:stop])
            if self._n == self._n_vocabulary:
                self._choose()
                self._reference = np.zeros((self._n_reference, len(self._columns)))
            return None
        rows = self._record(batch.features.slice(start, stop))
        at = n_before - self._n_vocabulary
        if at < self._n_reference:
            self._reference[at : at + len(rows)] = rows
            if at + len(rows) == self._n_reference:
                self._freeze()
                self._window = np.zeros((self._n_window, len(self._columns)), np.uint16)
            return None
        at -= self._n_reference
        codes = np.empty(rows.shape, np.uint16)
        native.encode(rows, self._grid, self._grid_starts, self._discrete, codes)
        newest = codes[-self._n_window :]
        at += len(codes) - len(newest)
        self._window[(at + np.arange(len(newest))) % self._n_window] = newest
        at += len(newest)
        if at < self._n_window or at % self._clock:
            return None
        return self._test(stop - 1)

    def _record(self, features: events.Features) -> NDArray[np.float64]:
        rows = np.empty((len(features), len(self._columns)))
        native.record(features.indptr, features.indices, features.values, *self._table, rows)
        return rows

    def _choose(self) -> None:
        """Settle what is watched, once the vocabulary is whole."""
        least = max(2, round(_CATEGORY_SHARE * self._n_vocabulary))
        self._columns = self._words.columns(least=least)[: self._max_features]
        hashes: list[int] = []
        owners: list[int] = []
        codes: list[float] = []
        for i, column in enumerate(self._columns):
            kept = column.hashes[:_MOST_CATEGORIES]
            hashes += kept
            owners += [i] * len(kept)
            codes += [1.0 + code if column.kind == "category" else -1.0 for code in range(len(kept))]
        self._columns.append(Column(_UNWATCHED, "number"))
        size = 1 << (2 * len(hashes) + 1).bit_length()
        self._table = np.zeros(size, np.uint32), np.zeros(size, np.int32), np.zeros(size)
        native.fill(
            np.array(hashes, np.uint32), np.array(owners, np.int32), np.array(codes, np.float64), *self._table
        )

    def _freeze(self) -> None:
        """Settle what is compared with, once the reference is whole."""
        grids: list[NDArray[np.float64]] = []
        for column, values in zip(self._columns, self._reference.T, strict=True):
            if column.kind == "category":
                grids.append(np.arange(1.0, 1.0 + len(column.hashes[:_MOST_CATEGORIES])))
            else:
                grids.append(np.array(column.numbers) if column.numbers else np.unique(values))
        discrete = [column.kind == "category" or bool(column.numbers) for column in self._columns]
        self._grid = np.concatenate(grids)
        self._grid_starts = np.cumsum([0, *map(len, grids)])
        self._discrete = np.array(discrete, np.uint8)
        sizes = [1 + len(grid) * (1 if of_few else 2) for grid, of_few in zip(grids, discrete, strict=True)]
        self._code_starts = np.cumsum([0, *sizes])
        codes = np.empty(self._reference.shape, np.uint16)
        native.encode(self._reference, self._grid, self._grid_starts, self._discrete, codes)
        self._before = np.empty(self._code_starts[-1], np.int64)
        native.count(codes, self._code_starts, self._before)
        self._level = self._settled_level()

    def _settled_level(self) -> float:
        """Level of one round of tests, for the features that the reference shows to be worth testing."""
        n_continuous, freedoms = 0, []
        for start, stop, discrete in zip(
            self._code_starts, self._code_starts[1:], self._discrete.tolist(), strict=False
        ):
            # In both windows together there will be about so many of each.
            cells = self._before[start:stop] * (1.0 + self._n_window / self._n_reference)
            if not discrete:
                n_continuous += int((cells > 0.0).sum() > 1)
            elif (cells > 0.0).sum() > 1:
                freedoms.append(
                    max(int((cells >= self._least).sum()) + int((cells < self._least).any()) - 1, 1)
                )
        first = self._n_vocabulary + self._n_reference + -(-self._n_window // self._clock) * self._clock
        return level_for(
            1.0 + (self._every - first) / self._clock,
            n_continuous,
            tuple(freedoms),
            shared=self._n_window / (self._n_reference + self._n_window),
            overlap=max(1.0 - self._clock / self._n_window, 0.0),
        )

    def _test(self, index: int) -> Change | None:
        n_columns = len(self._columns)
        after = np.empty_like(self._before)
        native.count(self._window, self._code_starts, after)
        statistics, freedom = np.empty(n_columns), np.empty(n_columns)
        native.compare(
            self._before, after, self._code_starts, self._discrete, self._least, statistics, freedom
        )
        effective = self._n_reference * self._n_window / (self._n_reference + self._n_window)
        discrete = self._discrete.astype(np.bool_)
        p_values = np.where(
            discrete,
            special.chdtrc(np.maximum(freedom, 1.0), np.maximum(statistics, 0.0)),
            special.kolmogorov(np.sqrt(effective) * statistics),
        )
        # What all events of both windows have alike cannot be tested, and costs the others nothing.
        tested = np.flatnonzero(np.where(discrete, freedom, statistics) > 0.0)
        found = tested[rejected(p_values[tested], self._level)]
        if not len(found):
            return None
        return Change(
            index=index,
            statistic=float(p_values[found[0]]),
            threshold=self._level,
            width=self._n_window,
            shifts=tuple(self._shift(int(c), after, float(statistics[c]), float(p_values[c])) for c in found),
        )

    def _shift(self, c: int, all_after: NDArray[np.int64], statistic: float, p_value: float) -> Shift:
        cells = slice(self._code_starts[c], self._code_starts[c + 1])
        before, after = self._before[cells] / self._n_reference, all_after[cells] / self._n_window
        grid = self._grid[self._grid_starts[c] : self._grid_starts[c + 1]]
        column, discrete = self._columns[c], bool(self._discrete[c])
        if discrete:
            at = int(np.argmax(np.abs(after - before)))
            where = self._cell(column, grid, at)
            bins = np.arange(len(before))
        else:
            cumulated = np.cumsum(before)
            apart = np.cumsum(after) - cumulated
            at = int(np.argmax(np.abs(apart)))
            # The gap below a number, its lower end left out: up to the number before, as far as is known.
            where = f"<= {grid[at // 2]:.6g}" if at % 2 else f"< {grid[min(at // 2, len(grid) - 1)]:.6g}"
            bins = np.minimum((cumulated - before / 2.0) * _PSI_BINS, _PSI_BINS - 1).astype(np.intp)
            before_share = float(cumulated[at])
            after_share = before_share + float(apart[at])
        psi, by_chance = self._psi(bins, c, all_after)
        return Shift(
            feature=column.name,
            where=where,
            before=float(before[at]) if discrete else before_share,
            after=float(after[at]) if discrete else after_share,
            test="g" if discrete else "ks",
            statistic=statistic,
            p_value=p_value,
            psi=psi,
            psi_by_chance=by_chance,
        )

    def _psi(self, bins: NDArray[np.intp], c: int, after: NDArray[np.int64]) -> tuple[float, float]:
        """Return the population stability index, half an event more in each bin, and what it is by chance."""
        cells = slice(self._code_starts[c], self._code_starts[c + 1])
        counts = [np.bincount(bins, weights=part[cells]) for part in (self._before, after)]
        used = counts[0] + counts[1] > 0.0
        n = int(used.sum())
        old, new = (
            (part[used] + 0.5) / (size + 0.5 * n)
            for part, size in zip(counts, (self._n_reference, self._n_window), strict=True)
        )
        index = float(((new - old) * np.log(new / old)).sum())
        return index, (n - 1) * (1.0 / self._n_reference + 1.0 / self._n_window)

    @staticmethod
    def _cell(column: Column, grid: NDArray[np.float64], code: int) -> str:
        if code == 0:
            return "other or missing" if column.kind == "category" else "other"
        if column.kind == "category":
            return f"= {column.categories[code - 1]!r}"
        return f"= {grid[code - 1]:.6g}"

    def state(self) -> State:
        """Everything needed to resume: which features there are, the reference, the codes of the window."""
        return {
            "n": self._n,
            "vocabulary": self._words.dumps(),
            "reference": self._reference.copy(),
            "window": self._window.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a detector; nothing has changed then.
        """
        n, reference, window = state.get("n"), state.get("reference"), state.get("window")
        words = Vocabulary.loads(state.get("vocabulary"))
        fresh = copy.copy(self)
        fresh.reset()
        fresh._words = words
        if not isinstance(n, int) or n < 0:
            raise StoreError(f"Features state: n = {n!r} counts no events")
        fresh._n = n
        if n >= self._n_vocabulary:
            fresh._choose()
            shape = self._n_reference, len(fresh._columns)
            fresh._reference = _stored("reference", reference, np.float64, shape)
        if n >= self._n_vocabulary + self._n_reference:
            fresh._freeze()
            fresh._window = _stored("window", window, np.uint16, (self._n_window, shape[1]))
            sizes = np.diff(fresh._code_starts)
            if (fresh._window >= sizes).any():
                raise StoreError("Features state: the window holds a code that its column does not have")
        self.__dict__.update(fresh.__dict__)


def rejected(p_values: NDArray[np.float64], level: float) -> NDArray[np.intp]:
    """Benjamini and Hochberg's procedure: positions of the hypotheses to reject, the clearest first.

    Examples
    --------
    >>> rejected(np.array([0.9, 0.001, 0.02, 0.3]), 0.05)
    array([1, 2])
    """
    order = np.argsort(p_values, kind="stable")
    below = p_values[order] <= level * np.arange(1, len(order) + 1) / len(order)
    n = int(np.flatnonzero(below)[-1]) + 1 if below.any() else 0
    return order[:n]


def _stored(name: str, value: object, dtype: Any, shape: tuple[int, int]) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StoreError(f"Features state: expected {name} to be {dtype.__name__} {shape}, got {got}")
    return np.array(value, order="C")
