"""A bet that a classifier cannot tell new events from old ones: valid at every event, without labels."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from scipy import special

from penstock.drift.base import Change, Domain, Shift
from penstock.drift.sequential import require_count, require_number
from penstock.drift.vocabulary import Vocabulary
from penstock.errors import StoreError
from penstock.events import Batch, Features, Task
from penstock.learners.sgd import SGD
from penstock.state import State, prefixed, section

__all__ = ["TwoSample"]

_NAMED: Final = 500  # events of the reference whose rows are read, for the names of their features
_RECENT: Final = 250  # newest events whose averages are the evidence of what changed
_SHOWN: Final = 5  # features that are named
_BOLDNESS: Final = 0.95  # of a bet, so that no single loss is total


class TwoSample:
    """Bets with a linear classifier that new events can be told from old ones.

    For each event a fair coin decides whether the classifier is shown that event or one from the reference,
    which it has never seen. It says how likely it thinks the former, bets accordingly, and only then learns
    which it was. While nothing changes no classifier can win, whatever it is and has learned: each bet
    multiplies its stake by 1 on average. The stakes are those of an e-detector (Shiryaev and Roberts), so
    that it rings falsely at most once in `false_alarm_every` events, however many features there are.

    The reference moves: an event that was not shown takes the place of the one that was, and is shown in its
    turn about 2 `reference` events later. A change must be found by then, or it is the old state of the
    world; a slow one is seen by how far it gets in that time.

    What it sees is what a linear classifier on hashed features can: averages of numbers, shares of
    categories, and with `interactions` those of products; not the spread of a number alone. It starts
    afresh after an alarm.

    Parameters
    ----------
    false_alarm_every : int
        Events for each false alarm, at least; also what the evidence is compared with.
    reference : int
        Events that are waiting to be shown, and that pass before the first bet.
    bits : int
        The classifier has ``2**bits`` buckets.
    learning_rate : float
        Of the classifier.
    half_life : float
        Of its learning rates, in events, so that it still learns when at last there is something to.
    interactions : sequence of 2 or 3 names each
        As of the learner `penstock.learners.sgd.SGD`: ``[["*", "*"]]`` sees covariances and, as each number
        is crossed with itself, variances.
    seed : int
        Of the coins.

    Notes
    -----
    The guarantee wants events that are independent, or exchangeable as long as nothing changes: it does not
    hold for a stream with a daily rhythm, or where each event resembles the one before.

    References
    ----------
    Lhéritier and Cazals (2018), A sequential non-parametric multivariate two-sample test, IEEE Transactions
    on Information Theory 64(5), 3361-3370.
    Pandeva, Forré, Ramdas and Shekhar (2024), Deep anytime-valid hypothesis testing, AISTATS
    (arXiv:2310.19384).
    Shin, Ramdas and Rinaldo (2022), E-detectors (arXiv:2203.03532).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = [{"calm": x, "moves": y} for x, y in rng.normal(size=(8000, 2)).tolist()]
    >>> for row in rows[6000:]:
    ...     row["moves"] += 1.0
    >>> change = TwoSample().update(Batch.from_rows(rows))
    >>> 6000 < change.index < 6300, change.shifts[0].feature
    (True, 'moves')
    """

    domain: ClassVar[Domain] = "inputs"

    def __init__(
        self,
        *,
        false_alarm_every: Annotated[int, Ge(100)] = 100_000,
        reference: Annotated[int, Ge(100), Le(1_000_000)] = 2000,
        bits: Annotated[int, Ge(1), Le(24)] = 14,
        learning_rate: Annotated[float, Gt(0), Lt(100)] = 0.3,
        half_life: Annotated[float, Gt(0)] = 1000.0,
        interactions: Sequence[Sequence[str]] = (),
        seed: Annotated[int, Ge(0), Lt(2**63)] = 0,
    ) -> None:
        require_count("false_alarm_every", false_alarm_every, 100)
        require_count("reference", reference, 100)
        require_number("learning_rate", learning_rate, 0.0, 100.0)
        self._threshold = float(false_alarm_every)
        self._n_reference = reference
        self._classifier_of = {
            "bits": bits,
            "learning_rate": learning_rate,
            "half_life": half_life,
            "interactions": interactions,
        }
        self._seed = seed
        self.n_coins = 0  # ever: the coins after an alarm are others
        self.reset()

    def reset(self) -> None:
        """Forget everything but how many coins were tossed."""
        self._n_waiting = 0
        self._waiting = _Queue()
        self._recent = _Queue()
        self._words = Vocabulary()
        self._classifier = SGD(Task("binary"), **self._classifier_of)  # type: ignore[arg-type]
        self.evidence = 0.0

    def update(self, batch: Batch) -> Change | None:
        """Take all events of `batch`, in stream order; return the first alarm among them."""
        first: Change | None = None
        taken = 0
        while taken < len(batch):
            if self._n_waiting < self._n_reference:
                taken += self._fill(batch, taken)
                continue
            stop = min(len(batch), taken + self._n_reference)
            taken, alarm = self._bet(batch.features, taken, stop)
            first = first or alarm
        return first

    def _fill(self, batch: Batch, start: int) -> int:
        n = min(len(batch) - start, self._n_reference - self._n_waiting)
        named = max(0, min(n, _NAMED - self._n_waiting))
        self._words.learn(batch.rows[start : start + named])
        part = batch.features.slice(start, start + n)
        self._waiting.push(_copied(part))
        self._recent.push(_copied(part.slice(max(0, n - _RECENT), n)))
        self._recent.keep(_RECENT)
        self._n_waiting += n
        return n

    def _bet(self, features: Features, start: int, stop: int) -> tuple[int, Change | None]:
        """Bet on events up to the first alarm; say where to go on.

        What is learned beyond an alarm is forgotten with everything else, so it does no harm.
        """
        n = stop - start
        live = features.slice(start, stop)
        is_new = _coins(self._seed, self.n_coins, n)
        old = np.flatnonzero(~is_new)
        shown = Features.concat([live, self._waiting.first(len(old))])
        order = np.arange(n)
        order[old] = n + np.arange(len(old))
        says = self._classifier.progress(_labelled(shown.take(order), is_new))
        shares = 0.5 + _BOLDNESS * (np.where(is_new, says, 1.0 - says) - 0.5)
        alarm = False
        for i, stake in enumerate((2.0 * shares).tolist()):
            self.evidence = (self.evidence + 1.0) * stake
            if self.evidence >= self._threshold:
                alarm, n = True, i + 1
                break
        old = old[old < n]
        self.n_coins += n
        self._waiting.pop(len(old))
        self._waiting.push(live.take(old))
        self._recent.push(_copied(live.slice(max(0, n - _RECENT), n)))
        self._recent.keep(_RECENT)
        if not alarm:
            return stop, None
        change = Change(
            index=start + n - 1,
            statistic=self.evidence,
            threshold=self._threshold,
            width=_RECENT,
            shifts=self._shifts(),
        )
        self.reset()
        return start + n, change

    def _shifts(self) -> tuple[Shift, ...]:
        """Compare the average of each hashed feature in the older half of the reference with the newest."""
        old, new = self._waiting.first(self._n_reference // 2), self._recent.whole()
        hashes, places = np.unique(np.concatenate([old.indices, new.indices]), return_inverse=True)
        means, squares = np.empty((2, len(hashes))), np.empty((2, len(hashes)))
        parts = (old, places[: len(old.indices)]), (new, places[len(old.indices) :])
        for i, (part, at) in enumerate(parts):
            means[i] = np.bincount(at, part.values, len(hashes)) / len(part)
            squares[i] = np.bincount(at, part.values**2, len(hashes)) / len(part)
        # Half an event more keeps what was never seen before from being infinitely surprising.
        variances = np.maximum(squares - means**2, 0.0) + 0.5 / len(new)
        z = (means[1] - means[0]) / np.sqrt(variances[0] / len(old) + variances[1] / len(new))
        names = self._words.names()
        return tuple(
            Shift(
                feature=names.get(int(hashes[at]), f"(a feature of hash {hashes[at]})"),
                where="on average",
                before=float(means[0, at]),
                after=float(means[1, at]),
                test="z",
                statistic=float(z[at]),
                p_value=float(2.0 * special.ndtr(-abs(z[at]))),
            )
            for at in np.argsort(-np.abs(z), kind="stable")[:_SHOWN].tolist()
        )

    def state(self) -> State:
        """Everything needed to resume: events that wait, newest events, names, stakes and the classifier."""
        return {
            "n_waiting": self._n_waiting,
            "n_coins": self.n_coins,
            "evidence": self.evidence,
            "vocabulary": self._words.dumps(),
            **prefixed(_packed(self._waiting.whole()), "waiting"),
            **prefixed(_packed(self._recent.whole()), "recent"),
            **prefixed(self._classifier.state(), "classifier"),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a detector; nothing has changed then.
        """
        n_waiting, n_coins, evidence = (state.get(name) for name in ("n_waiting", "n_coins", "evidence"))
        if not isinstance(n_waiting, int) or not isinstance(n_coins, int) or n_coins < 0:
            raise StoreError(f"TwoSample state: {n_waiting!r} and {n_coins!r} count no events")
        if not isinstance(evidence, float) or not 0.0 <= evidence < self._threshold:
            raise StoreError(f"TwoSample state: the evidence cannot be {json.dumps(evidence, default=repr)}")
        fresh = copy.copy(self)
        fresh.reset()
        fresh._n_waiting, fresh.n_coins, fresh.evidence = n_waiting, n_coins, evidence
        fresh._words = Vocabulary.loads(state.get("vocabulary"))
        fresh._waiting.push(_unpacked(section(state, "waiting")))
        fresh._recent.push(_unpacked(section(state, "recent")))
        if fresh._waiting.n_events != n_waiting or n_waiting > self._n_reference:
            raise StoreError(f"TwoSample state: {fresh._waiting.n_events} events wait, not {n_waiting}")
        fresh._classifier.restore(section(state, "classifier"))
        self.__dict__.update(fresh.__dict__)


class _Queue:
    """Events in a row: added at the end in parts, taken from the front."""

    def __init__(self) -> None:
        self._parts: deque[Features] = deque()
        self.n_events = 0

    def push(self, part: Features) -> None:
        if len(part):
            self._parts.append(part)
            self.n_events += len(part)

    def first(self, n: int) -> Features:
        """Return the `n` that have been in it longest; there must be so many."""
        found = []
        for part in self._parts:
            if not n:
                break
            found.append(part.slice(0, n))
            n -= len(found[-1])
        return Features.concat(found)

    def pop(self, n: int) -> None:
        """Take the `n` out that have been in it longest."""
        self.n_events -= n
        while n:
            part = self._parts.popleft()
            if len(part) > n:
                self._parts.appendleft(part.slice(n, len(part)))
            n -= min(n, len(part))

    def keep(self, n: int) -> None:
        """Take all out but the `n` newest."""
        self.pop(max(0, self.n_events - n))

    def whole(self) -> Features:
        return Features.concat(list(self._parts))


def _coins(seed: int, first: int, n: int) -> NDArray[np.bool_]:
    """Fair coins number `first` to `first` + `n`, each of them a hash of its number (SplitMix64)."""
    with np.errstate(over="ignore"):
        bits = np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(63)).astype(np.bool_)


def _labelled(features: Features, labels: NDArray[np.bool_]) -> Batch:
    """Events for a native learner, which reads neither rows nor times."""
    n = len(features)
    return Batch(
        features=features,
        labels=labels.astype(np.float64),
        weights=np.ones(n),
        times=np.full(n, np.nan),
        rows=[{}] * n,
    )


def _copied(part: Features) -> Features:
    return Features.concat([part])


def _packed(part: Features) -> State:
    return {
        "indptr": part.indptr,
        "indices": part.indices,
        "values": part.values,
        "namespaces": part.namespaces,
    }


def _unpacked(state: State) -> Features:
    arrays = []
    for name, dtype in (
        ("indptr", np.int64),
        ("indices", np.uint32),
        ("values", np.float64),
        ("namespaces", np.uint32),
    ):
        array = state.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            raise StoreError(f"TwoSample state: {name} is no array of {np.dtype(dtype)}")
        arrays.append(np.array(array))
    indptr, indices, values, namespaces = arrays
    whole = len(indptr) and indptr[0] == 0 and indptr[-1] == len(indices) == len(values) == len(namespaces)
    if not whole or (np.diff(indptr) < 0).any() or not np.isfinite(values).all():
        raise StoreError("TwoSample state: the events in it do not fit together")
    return Features(indptr, indices, values, namespaces)
