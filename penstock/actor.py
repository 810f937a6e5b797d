"""How one decision is made: a pure function of a frozen policy, the context and the id.

The same snapshot, id and context give the same probabilities and the same action, to the bit, here and
wherever the log is read: `audit` makes a logged decision again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock._native.features import encode_rows, require_features
from penstock._native.plain import copied
from penstock.bandits import FrozenPolicy
from penstock.bandits.base import exact
from penstock.decisions import Offers, draw, key_of
from penstock.errors import BadRecord, StoreError
from penstock.events import Features, Row
from penstock.feedback import MODES, DecisionEvent, Mode, actions_of, plain
from penstock.snapshots import Manifest, SnapshotStore

__all__ = ["Actor", "audit"]

_DATES: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS  # no features: refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A frozen policy that decides.

    Attributes
    ----------
    policy : FrozenPolicy or None
        None: every offered action is equally probable, as before a first snapshot.
    snapshot : int
        Version of the policy; 0 without one.
    pipeline : str
        Name of the pipeline: the other half of a decision's key.
    actions : tuple of str or None
        What is offered where a request does not say.
    """

    policy: FrozenPolicy | None = None
    snapshot: int = 0
    pipeline: str = ""
    actions: tuple[str, ...] | None = None

    @classmethod
    def of(cls, policy: object, manifest: Manifest) -> Actor:
        """Return what acts for a loaded snapshot.

        Raises
        ------
        StoreError
            If it is no policy's.
        """
        version, task = manifest["version"], manifest["task"]
        if task != "bandit" or not isinstance(policy, FrozenPolicy):
            raise StoreError(f"snapshot {version}, {manifest['kind']!r} for task {task!r}, is no policy")
        classes = manifest["classes"]
        return cls(
            policy=policy,
            snapshot=version,
            pipeline=manifest["name"],
            actions=None if classes is None else tuple(classes),
        )

    def decide(
        self,
        context: Row,
        actions: Iterable[str] | Mapping[str, Row] | None,
        decision_id: str,
        *,
        time: float,
        mode: Mode = "online",
        baseline: str | None = None,
    ) -> DecisionEvent:
        """Decide, and return what is to be logged.

        It decides on what the log will hold: numpy's numbers, for instance, become Python's first.

        Raises
        ------
        BadRecord
            Names the field that cannot be used.
        StoreError
            If the policy does not give a distribution.
        """
        if not isinstance(decision_id, str) or not decision_id:
            raise BadRecord("a string that is not empty", decision_id, path="$.id")
        context = _through_json(context, "$")
        offered, rows = _configured(self.actions) if actions is None else actions_of(actions)
        if rows is not None:
            rows = tuple(
                _through_json(row, f"$.actions.{action}") for action, row in zip(offered, rows, strict=True)
            )
        return self._decide(context, offered, rows, decision_id, time, mode, baseline)

    def redo(self, event: DecisionEvent) -> DecisionEvent:
        """Make a logged decision again; equal to `event` if the log is right."""
        return self._decide(
            event.context,
            event.actions,
            event.action_rows,
            event.id,
            event.time,
            event.mode,
            event.action,
            event.weight,
        )

    def _decide(
        self,
        context: Row,
        actions: tuple[str, ...],
        action_rows: tuple[Row, ...] | None,
        decision_id: str,
        time: float,
        mode: Mode,
        baseline: str | None,
        weight: float = 1.0,
    ) -> DecisionEvent:
        key = key_of(decision_id, self.pipeline)
        offers = _offers(context, actions, action_rows, key)
        if self.policy is None:
            pmf = np.full(len(actions), 1.0 / len(actions))
        else:
            pmf = self._checked(self.policy.probabilities(offers), offers)
        chosen = draw(pmf, key)
        probabilities = tuple(pmf.tolist())
        intended = None
        if mode != "online":
            intended = (chosen, probabilities)
            chosen = _baseline(baseline, actions, mode)
            probabilities = tuple(float(position == chosen) for position in range(len(actions)))
        return DecisionEvent(
            id=decision_id,
            time=time,
            context=context,
            actions=actions,
            action_rows=action_rows,
            chosen=chosen,
            propensity=probabilities[chosen],
            weight=weight,
            snapshot=self.snapshot,
            probabilities=probabilities,
            pipeline=self.pipeline,
            mode=mode,
            intended=intended,
        )

    def _checked(self, pmf: NDArray[np.float64], offers: Offers) -> NDArray[np.float64]:
        if pmf.shape != offers.arms.shape:
            raise StoreError(
                f"snapshot {self.snapshot} cannot decide: it gives probabilities of shape {pmf.shape} "
                f"for {len(offers.arms)} actions"
            )
        try:
            return exact(pmf, offers.starts)
        except ArithmeticError as error:
            raise StoreError(f"snapshot {self.snapshot} cannot decide: {error}") from error


def audit(event: DecisionEvent, store: SnapshotStore) -> DecisionEvent:
    """Make a logged decision again, from nothing but its id, its offer and the snapshot that it names.

    Parameters
    ----------
    event : DecisionEvent
        Read from a log.
    store : SnapshotStore
        Where its snapshot is. For many events keep an `Actor` a snapshot, and `Actor.redo` them.

    Returns
    -------
    DecisionEvent
        Equal to `event` in every bit, if what was logged is what was decided.

    Raises
    ------
    StoreError
        If the snapshot is not there any more, or is no policy.
    """
    if not event.snapshot:
        return Actor(pipeline=event.pipeline).redo(event)
    return Actor.of(*store.load(event.snapshot)).redo(event)


def check_mode(mode: str) -> Mode:
    """Return `mode` if there is such a one.

    Raises
    ------
    ValueError
        If there is not.
    """
    if mode not in MODES:
        raise ValueError(f"expected a mode of {', '.join(MODES)}, got {mode!r}")
    return cast("Mode", mode)


def _baseline(baseline: str | None, actions: tuple[str, ...], mode: Mode) -> int:
    if baseline is None and mode == "apprentice":
        return 0
    if baseline not in actions:
        raise BadRecord("the action that is played, one of those offered", baseline, path="$.baseline")
    return actions.index(baseline)


@lru_cache(maxsize=16)
def _configured(actions: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[Row, ...] | None]:
    """Check what a snapshot was configured with, once."""
    if not actions:
        expected = "a list of actions, for the pipeline has none of its own that has not retired"
        raise BadRecord(expected, None, path="$.actions")
    return actions_of(actions)


@lru_cache(maxsize=64)
def _menu(actions: tuple[str, ...]) -> Offers:
    """Return what offers of `actions` without features have in common, whatever the context."""
    menu = Offers.from_rows([{}], [actions])
    for array in (menu.starts, menu.arms, menu.actions.indptr):
        array.setflags(write=False)
    return menu


def _offers(context: Row, actions: tuple[str, ...], action_rows: tuple[Row, ...] | None, key: int) -> Offers:
    try:
        if action_rows is not None:
            return Offers.from_rows([context], [actions], action_rows=[action_rows], keys=[key])
        menu = _menu(actions)
        return Offers(
            contexts=_encoded(context),
            rows=[context],
            starts=menu.starts,
            arms=menu.arms,
            actions=menu.actions,
            action_rows=menu.action_rows,
            keys=np.array([key], np.uint64),
        )
    except BadRecord:
        require_features(context, "$")
        for action, row in zip(actions, action_rows or (), strict=False):
            require_features(row, f"$.actions.{action}")
        raise


def _encoded(row: Row) -> Features:
    features, bad = encode_rows([row])
    for _, error in bad:
        raise error
    return features


def _through_json(row: Row, path: str) -> dict[str, Any]:
    """Return `row` as it will be read from the log."""
    if not isinstance(row, Mapping):
        raise BadRecord("a mapping of names to features", row, path=path)
    if type(row) is dict and (plain_copy := copied(row)) is not None:
        return plain_copy
    try:
        data = orjson.dumps(row if type(row) is dict else dict(row), default=plain, option=_DATES)
        copy: dict[str, Any] = orjson.loads(data)
    except (TypeError, ValueError) as error:
        require_features(row, path)
        raise BadRecord(f"what JSON can hold ({error})", row, path=path) from None
    if b"null" in data:  # JSON has no NaN: orjson writes a null in its place, which would go unnoticed
        require_features(row, path)
    return copy
