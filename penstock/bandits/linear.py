"""Policies of linear models in closed form: their tables, live (`Linear`) and frozen (`FrozenLinear`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.posterior import EXPLORE, HEAD, TOTALS, FeatureIndex, Model, Posteriors
from penstock.bandits.arms import ArmPolicy, Outcomes, Roster, Slots, required_json
from penstock.bandits.base import exact
from penstock.decisions import Logged, Offers
from penstock.errors import StoreError
from penstock.events import Features
from penstock.learners.sgd_model import required_array
from penstock.state import State, prefixed, section

__all__ = ["FrozenLinear", "Linear"]

_WHAT: Final = "policy state"
_START: Final = 8  # features for which there is room at first
_LANES: Final = 8  # rows of a block, in `penstock._native.packed`
_LAST: Final = HEAD.index("last")


def _start(row: NDArray[np.int64] | int) -> Any:
    """Where a row of a packed matrix starts; of the one after the last: how many entries there are."""
    block = row // _LANES
    return _LANES * (block + 1) * (_LANES // 2 * block + row % _LANES)


def _aligned(rows: int, size: int) -> NDArray[np.float64]:
    """Return zeros that start with a line of the processor's cache: no block of a matrix lies across two."""
    room = np.zeros(rows * size + _LANES)
    skip = -room.ctypes.data // room.itemsize % _LANES
    return room[skip : skip + rows * size].reshape(rows, size)


def _copied(array: NDArray[np.float64]) -> NDArray[np.float64]:
    copy = _aligned(*array.shape)
    copy[:] = array
    return copy


class _Bank:
    """Rows of posteriors over the same features, and how those are numbered.

    The arrays stand as the kernel wants them: covariance, mean, head, and for learning precision, moment,
    ridge. A row of none has been learned is the prior's.
    """

    def __init__(self, l2: float, limit: int, *, diagonal: bool, rows: int) -> None:
        self.l2, self.diagonal = l2, diagonal
        self.index = FeatureIndex(limit)
        self.arrays = self._prior(rows, min(_START, limit))

    @property
    def arrays(self) -> tuple[NDArray[np.float64], ...]:
        return self._arrays

    @arrays.setter
    def arrays(self, arrays: tuple[NDArray[np.float64], ...]) -> None:
        self._arrays = arrays
        self.posteriors = Posteriors(arrays, self.diagonal)

    @property
    def rows(self) -> int:
        return len(self.arrays[0])

    @property
    def capacity(self) -> int:
        return int(self.arrays[1].shape[1])

    def grow(self, rows: int, capacity: int) -> None:
        """Make the tables larger, at the prior."""
        old = self.arrays
        n, d, size = self.rows, self.capacity, old[0].shape[1]
        self.arrays = self._prior(rows, capacity)
        for array, before, columns in zip(self.arrays, old, (size, d, len(HEAD), size, d, d), strict=True):
            array[:n, :columns] = before

    def reset(self, row: int) -> None:
        """Set one row back to the prior."""
        for array in self.arrays:
            array[row] = array[0]

    def remove(self, row: int) -> None:
        """Take one row out."""
        self.arrays = tuple(np.delete(array, row, axis=0) for array in self.arrays)

    def frozen(self, rows: int) -> _Bank:
        """Copy what deciding needs."""
        twin = _Bank.__new__(_Bank)
        twin.l2, twin.diagonal, twin.index = self.l2, self.diagonal, self.index.copy()
        twin.arrays = tuple(self._trimmed(rows)[:3])
        for array in twin.arrays:
            array.setflags(write=False)
        return twin

    def state(self, rows: int, *, whole: bool) -> State:
        """Return copies of the tables, no larger than they must be."""
        features = np.empty(len(self.index), np.uint32)
        self.index.fill(features)
        names = ("covariance", "mean", "head", "precision", "moment", "ridge")[: 6 if whole else 3]
        tables = self._trimmed(rows)[: len(names)] if whole else self.arrays
        return {"features": features, **dict(zip(names, tables, strict=True))}

    def fill(self, state: Mapping[str, Any], rows: int, *, whole: bool) -> None:
        """Become what `state` wrote; without `whole` the arrays of the state are kept, not copied.

        Raises
        ------
        StoreError
            Names the entry that does not fit.
        """
        features = state.get("features")
        n = len(features) if isinstance(features, np.ndarray) and features.ndim == 1 else -1
        required_array(state, "features", np.uint32, (n,), what=_WHAT)
        d = max(n, 1)
        size = d if self.diagonal else _start(d)
        shapes = {"covariance": (rows, size), "mean": (rows, d), "head": (rows, len(HEAD))}
        if whole:
            shapes |= {"precision": (rows, size), "moment": (rows, d), "ridge": (rows, d)}
        arrays = [
            required_array(state, name, np.float64, shape, what=_WHAT) for name, shape in shapes.items()
        ]
        for name, array in zip(shapes, arrays, strict=True):
            if not np.isfinite(array).all():
                raise StoreError(f"{_WHAT}: {name} must be finite")
        head = arrays[2]
        for name, most in (("width", n), ("cursor", d)):
            column = head[:, HEAD.index(name)]
            if (column < 0).any() or (column > most).any() or (column % 1 != 0).any():
                raise StoreError(f"{_WHAT}: {name} must be a count up to {most}")
        try:
            self.index = FeatureIndex(self.index.limit, np.ascontiguousarray(features))
        except ValueError as error:
            raise StoreError(f"{_WHAT}: {error}") from None
        self.arrays = tuple(_copied(array) if whole else array for array in arrays)

    def _trimmed(self, rows: int) -> list[NDArray[np.float64]]:
        d = max(len(self.index), 1)
        size = d if self.diagonal else _start(d)
        return [
            _copied(array[:rows, :columns])
            for array, columns in zip(self.arrays, (size, d, len(HEAD), size, d, d), strict=False)
        ]

    def _prior(self, rows: int, capacity: int) -> tuple[NDArray[np.float64], ...]:
        steps = np.arange(capacity)
        diagonal = steps if self.diagonal else _start(steps) + steps
        size = capacity if self.diagonal else _start(capacity)
        covariance, precision = _aligned(rows, size), _aligned(rows, size)
        covariance[:, diagonal] = 1.0 / self.l2
        precision[:, diagonal] = self.l2
        mean, moment, ridge = (np.full((rows, capacity), value) for value in (0.0, 0.0, self.l2))
        return covariance, mean, np.zeros((rows, len(HEAD))), precision, moment, ridge


class _Tables:
    """A model, and what it knows: of every arm, of all together, or both."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        options = {name: value for name, value in settings.items() if name != "dimension"}
        limit = settings["dimension"] + settings["intercept"]
        self.model = Model(**options, period=max(1000, 10 * limit))
        self.roster = Roster()
        self.totals = np.zeros(len(TOTALS))
        shared, hybrid = settings["shared"], settings["hybrid"]
        shape = {"l2": settings["l2"], "limit": limit, "diagonal": settings["diagonal"]}
        self.own = None if shared else _Bank(**shape, rows=2)
        self.common = _Bank(**shape, rows=1) if shared or hybrid else None
        self.cross = self.moments = np.zeros((0, 0, 0))
        self.nothing = FeatureIndex(1)
        self.random = settings["explore"] != "ucb"
        self.draws = self.random and not shared  # by the arm's name
        if hybrid:
            self.fit_crosses()

    def fit_crosses(self) -> None:
        """Give the cross moments the shape of the matrices."""
        assert self.own is not None
        assert self.common is not None
        old = (self.cross, self.moments)
        shape = (self.own.rows, self.own.capacity, self.common.capacity)
        self.cross, self.moments = np.zeros(shape), np.zeros(shape)
        for array, before in zip((self.cross, self.moments), old, strict=True):
            array[tuple(slice(0, size) for size in before.shape)] = before

    def grow(self, rows: int) -> None:
        """Make room: for rows, or where there is enough of them, for more features."""
        if self.own and rows > self.own.rows:
            self.own.grow(rows, self.own.capacity)
        else:
            for bank in filter(None, (self.own, self.common)):
                bank.grow(bank.rows, min(2 * bank.capacity, bank.index.limit))
        if self.settings["hybrid"]:
            self.fit_crosses()

    def decide(self, offers: Offers, out: NDArray[np.float64]) -> None:
        found = Slots(self.roster, offers, draws=self.draws)
        own, common = self.own, self.common
        self.model.decide(
            own.posteriors if own else None,
            common.posteriors if common else None,
            self.cross,
            own.index if own else self.nothing,
            common.index if common else self.nothing,
            self.totals,
            offers.starts,
            found.slots,
            found.hashes,
            offers.keys if self.random else None,
            _columns(offers.contexts),
            _columns(offers.actions) if common else None,
            out,
        )

    def run(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        offers = logged.offers
        found = Slots(self.roster, offers, draws=self.draws)
        keys = offers.keys if self.random else None
        contexts = _columns(offers.contexts)
        actions = _columns(offers.actions) if self.common else None
        outcomes = Outcomes(logged)
        done = 0
        while True:
            own, common = self.own, self.common
            done = self.model.run(
                own.posteriors if own else None,
                common.posteriors if common else None,
                self.cross,
                self.moments,
                own.index if own else self.nothing,
                common.index if common else self.nothing,
                self.totals,
                offers.starts,
                found.slots,
                found.hashes,
                keys,
                contexts,
                actions,
                outcomes.chosen,
                outcomes.rewards,
                outcomes.weights,
                out,
                done,
            )
            if done == len(logged):
                return
            self.grow(0)

    def correct(self, logged: Logged, old: NDArray[np.float64], new: NDArray[np.float64]) -> None:
        offers = logged.offers
        found = Slots(self.roster, offers, draws=False)
        own, common = self.own, self.common
        self.model.correct(
            own.posteriors if own else None,
            common.posteriors if common else None,
            self.cross,
            own.index if own else self.nothing,
            common.index if common else self.nothing,
            self.totals,
            offers.starts,
            found.slots,
            found.hashes,
            offers.keys if self.random else None,
            _columns(offers.contexts),
            _columns(offers.actions) if common else None,
            np.ascontiguousarray(logged.chosen, np.int64),
            np.ascontiguousarray(logged.weights, np.float64),
            np.ascontiguousarray(old, np.float64),
            np.ascontiguousarray(new, np.float64),
        )

    def frozen(self) -> _Tables:
        twin = _Tables.__new__(_Tables)
        twin.settings, twin.model, twin.nothing = self.settings, self.model, self.nothing
        twin.random = self.random
        twin.draws, twin.roster, twin.totals = self.draws, self.roster.copy(), self.totals.copy()
        n_rows = len(self.roster) + 1
        twin.own = self.own.frozen(n_rows) if self.own else None
        twin.common = self.common.frozen(1) if self.common else None
        twin.cross = twin.moments = self.trimmed(self.cross)
        twin.cross.setflags(write=False)
        return twin

    def trimmed(self, cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """Copy cross moments, no larger than they must be."""
        if not (self.own and self.common):
            return np.zeros((0, 0, 0))
        own, common = max(len(self.own.index), 1), max(len(self.common.index), 1)
        return cross[: len(self.roster) + 1, :own, :common].copy()

    def state(self, *, whole: bool) -> State:
        state: State = {
            **self.roster.state(),
            "settings": json.dumps(self.settings),
            "totals": self.totals.copy(),
        }
        if self.own:
            state |= prefixed(self.own.state(len(self.roster) + 1, whole=whole), "own")
        if self.common:
            state |= prefixed(self.common.state(1, whole=whole), "common")
        if self.settings["hybrid"]:
            state["cross"] = self.trimmed(self.cross) if whole else self.cross
            if whole:
                state["moments"] = self.trimmed(self.moments)
        return state

    def fill(self, state: Mapping[str, Any], *, whole: bool) -> None:
        self.roster = Roster.from_state(state)
        self.totals = required_array(state, "totals", np.float64, (len(TOTALS),), what=_WHAT).copy()
        if not np.isfinite(self.totals).all():
            raise StoreError(f"{_WHAT}: totals must be finite")
        n_rows = len(self.roster) + 1
        if self.own:
            self.own.fill(section(state, "own"), n_rows, whole=whole)
        if self.common:
            self.common.fill(section(state, "common"), 1, whole=whole)
        if self.own and self.common:
            shape = (n_rows, self.own.capacity, self.common.capacity)
            arrays = [
                required_array(state, name, np.float64, shape, what=_WHAT)
                for name in ("cross", "moments")[: 2 if whole else 1]
            ]
            if not all(np.isfinite(array).all() for array in arrays):
                raise StoreError(f"{_WHAT}: cross moments must be finite")
            self.cross, self.moments = (
                (arrays[0].copy(), arrays[1].copy()) if whole else (arrays[0], arrays[0])
            )


def _columns(features: Features) -> tuple[NDArray[Any], ...]:
    return features.indptr, features.indices, features.values


class FrozenLinear:
    """What a policy of linear models knew when it was frozen. Threads may share one."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Distribution over the offered actions of every event, one after the other, shape (m,)."""
        out = np.empty(len(offers.arms))
        self._tables.decide(offers, out)
        return exact(out, offers.starts)

    def state(self) -> State:
        """Everything that `from_state` needs, for a snapshot. The tables are its own, read-only."""
        return self._tables.state(whole=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FrozenLinear:
        """Rebuild what `state` wrote. Read-only arrays, such as memory maps, are not copied.

        Raises
        ------
        StoreError
            If it is not the state of such a policy; names the entry.
        """
        settings = required_json(state, "settings")
        if not isinstance(settings, dict) or settings.get("explore") not in EXPLORE:
            raise StoreError(f"{_WHAT}: settings name no model")
        try:
            tables = _Tables(settings)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"{_WHAT}: settings cannot be used: {error!r}") from None
        tables.fill(state, whole=False)
        return cls(tables)


class Linear(ArmPolicy):
    """A policy of linear models in closed form: children say how they are explored, and with what.

    Features are hashes, numbered by first sighting up to `dimension`; what comes later is dropped, and
    counted in the state. A model of d features takes about ``8 * d * (d + 8)`` bytes.

    Parameters
    ----------
    seed : int
    dimension : int
        Most features of a model, not counting the constant one.
    max_arms : int
    settings
        As `penstock._native.posterior.Model` has them.
    """

    def __init__(
        self,
        explore: str,
        *,
        seed: int,
        dimension: int,
        max_arms: int,
        l2: float,
        intercept: bool,
        diagonal: bool = False,
        shared: bool = False,
        hybrid: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(max_arms)
        self._tables = _Tables(
            {
                "explore": explore,
                "seed": seed,
                "dimension": dimension,
                "l2": l2,
                "intercept": intercept,
                "diagonal": diagonal,
                "shared": shared,
                "hybrid": hybrid,
                **settings,
            }
        )

    @property
    def corrects(self) -> bool:
        """Whether `correct` is exact: a linear model that has forgotten nothing.

        With a discount nobody knows what is left of an event; of an arm that is gone, a shared part still
        holds what it taught.
        """
        settings, roster = self._tables.settings, self._roster
        whole = self._tables.common is None or not roster.retired
        linear = not settings.get("logistic", False)
        return linear and settings.get("discount", 1.0) == 1.0 and not roster.evicted and whole

    def correct(self, logged: Logged, old: NDArray[np.float64], new: NDArray[np.float64]) -> None:
        """Become what the policy would be had it learned `new` and not `old`, but for rounding.

        Rewards enter the sum b and the residual that "learned" noise is made of; variances know nothing of
        them.

        Parameters
        ----------
        logged : Logged
            Decisions learned before, n of them; their rewards play no part.
        old, new : float64, shape (n,)

        Raises
        ------
        ValueError
            If the policy is not linear, or has forgotten something; see `corrects`.
        """
        if not self.corrects:
            raise ValueError("only a linear model that has forgotten nothing can be corrected")
        self._tables.correct(logged, old, new)

    def freeze(self) -> FrozenLinear:
        """Return a policy of what is known now, that later learning does not touch."""
        return FrozenLinear(self._tables.frozen())

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the policy.

        ================ ====================== ==================================================
        arms, retired    str                    names, as JSON, in the order of the rows from 1 on
        evicted          int                    arms that had to make room
        settings         str                    as JSON; must be equal to be restored
        totals           float64 (2,)           ``penstock._native.posterior.TOTALS``: events
                                                learned, features dropped
        own/features     uint32 (d,)            hash of each
        own/…            float64 (K + 1, …)     as in `penstock._native.posterior`; row 0 is the
                                                prior; without `shared`
        common/…         as own/…, 1 row        `shared` and hybrid
        cross, moments   float64 (K + 1, d, k)  hybrid
        ================ ====================== ==================================================
        """
        return self._tables.state(whole=True)

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of a policy with the same parameters; nothing has changed then.
        """
        settings = self._tables.settings
        if required_json(state, "settings") != json.loads(json.dumps(settings)):
            raise StoreError(f"{_WHAT}: expected settings {settings}, got {state['settings']!r}")
        tables = _Tables(settings)
        tables.fill(state, whole=True)
        self._tables = tables

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenLinear:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps.

        Raises
        ------
        StoreError
            If it is not the state of such a policy.
        """
        return FrozenLinear.from_state(state)

    @property
    def _roster(self) -> Roster:
        return self._tables.roster

    def _decide(self, offers: Offers, out: NDArray[np.float64]) -> None:
        self._tables.decide(offers, out)

    def _advance(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        self._tables.run(logged, out)

    def _admit(self, logged: Logged, start: int) -> int:
        return len(logged) if self._tables.own is None else super()._admit(logged, start)

    def _reserve(self, n_arms: int) -> None:
        own = self._tables.own
        if own and n_arms + 1 > own.rows:
            self._tables.grow(n_arms + 1 + n_arms // 2)

    def _oldest(self) -> int:
        assert self._tables.own is not None
        return int(np.argmin(self._tables.own.arrays[2][1 : self._max_arms + 1, _LAST])) + 1

    def _forget(self, slot: int) -> None:
        tables = self._tables
        assert tables.own is not None
        tables.own.reset(slot)
        if tables.common:
            tables.cross[slot] = tables.moments[slot] = 0.0

    def _remove(self, slot: int) -> None:
        tables = self._tables
        assert tables.own is not None
        tables.own.remove(slot)
        if tables.common:
            tables.cross = np.delete(tables.cross, slot, axis=0)
            tables.moments = np.delete(tables.moments, slot, axis=0)
