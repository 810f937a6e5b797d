"""The native linear learner: what Vowpal Wabbit's ``gd``, ``ftrl`` and ``coin`` are, over our batches."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray

from penstock._native.linear import TOTALS, Linear, first_bad_label, stride_of, touched_size
from penstock.errors import BadRecord, ConfigError, DataError, StoreError
from penstock.events import Batch, Row, Task
from penstock.learners.annotated import check
from penstock.learners.base import Model
from penstock.learners.leases import Leases
from penstock.learners.sgd_model import (
    LOSSES,
    MAX_BITS,
    MAX_CLASSES,
    SGDModel,
    checked_interactions,
    required_array,
)
from penstock.state import State

__all__ = ["SGD", "SGDModel"]

UpdateRule = Literal["nag", "adagrad", "sgd", "ftrl", "coin"]
LossName = Literal["logistic", "squared", "hinge", "quantile", "poisson"]
Reduction = Literal["oaa", "softmax"]
Interactions = Sequence[Sequence[str]]

_MAX_MARGIN: Final = 50.0  # of logistic and Poisson losses: exp() of it is still an everyday number
_FLOAT64_MAX: Final = float(np.finfo(np.float64).max)
_ALIGNMENT: Final = 64  # bytes in a cache line

# Alpha and beta where none is given, as in Vowpal Wabbit.
_SCALES: Final[Mapping[str, tuple[float, float]]] = {"ftrl": (0.5, 1.0), "coin": (4.0, 1.0)}
# What a rule does not use, and hence must not be given.
_UNUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "nag": ("ftrl_alpha", "ftrl_beta"),
    "adagrad": ("ftrl_alpha", "ftrl_beta"),
    "sgd": ("ftrl_alpha", "ftrl_beta", "half_life"),
    "ftrl": ("learning_rate", "power_t", "initial_t", "invariant", "half_life", "consolidation"),
    "coin": ("learning_rate", "power_t", "initial_t", "invariant", "half_life", "consolidation", "l1", "l2"),
}
_WORD: Final = 64  # buckets whose marks are in one number: see `penstock/_native/touched.hpp`
_HELD: Final = 4  # floats beside each weight: see `penstock/_native/consolidation.hpp`


class SGD:
    """Online linear model on hashed features, with Vowpal Wabbit's update rules.

    The default rule, "nag", keeps for each weight the sum of its squared gradients (adaptive) and the
    largest magnitude of its feature (normalised), so that no scaling of inputs is needed, and takes the
    closed-form step that an event of weight 2 makes equal to two events of weight 1 (invariant).

    Parameters
    ----------
    task : Task
    seed : int
        Not used: nothing here is random.
    update : {"nag", "adagrad", "sgd", "ftrl", "coin"}
        "nag": VW's default. "adagrad": without normalisation (``--adaptive --invariant``). "sgd": one rate
        for all weights, decaying with time (``--sgd --invariant``). "ftrl": proximal, sparse with `l1`.
        "coin": parameter-free coin betting.
    loss : {"logistic", "squared", "hinge", "quantile", "poisson"}, optional
        Logistic for classification and squared for regression if not given. Binary predictions are
        ``sigmoid(margin)`` with logistic and hinge (not calibrated with the latter), and the margin cut to
        [0, 1] with squared. Poisson predicts ``exp(margin)`` and wants labels >= 0.
    learning_rate : float
        Larger learns faster and forgets faster.
    power_t : float, 0..1
        Rates fall as the accumulated squared gradient to this power; 0 never falls.
    initial_t : float
        As if so many events with gradient 1 had been seen. "sgd" takes 0 for 1, as VW does.
    l1, l2 : float
        Regularisation, applied lazily: each update shrinks all weights by what it would cost.
    bits : int, 1..30
        The table has ``2**bits`` buckets.
    interactions : sequence of 2 or 3 names each
        Namespaces to cross: every product of a feature of each. "*" is any namespace, "" the default one.
        Within one namespace each combination counts once, a feature with itself included.
    constant : bool
        Whether every event has a constant feature.
    invariant : bool
        False takes one gradient step instead of the closed-form one (nag, adagrad, sgd).
    ftrl_alpha, ftrl_beta : float, optional
        Of "ftrl" (0.5 and 1 if not given) and "coin" (4 and 1).
    quantile_tau : float, in (0, 1)
        Which quantile the quantile loss aims at.
    half_life : float, optional
        In events: sums of squared gradients halve over it, so that rates stay alive under drift ("nag" and
        "adagrad"). Decays as weights are touched.
    multiclass : {"oaa", "softmax"}
        One independent learner a class, their probabilities normalised; or one softmax over all classes,
        whose gradient steps are capped instead of solved in closed form.
    clip : bool
        Keep regression predictions in the range of labels seen so far (and 0), as VW does.
    consolidation : float
        Elastic weight consolidation, against forgetting: how much the events before the last anchor weigh
        against one that comes now. Every weight that learns is pulled back to what it was then, as hard as
        it mattered (the diagonal of the Fisher information); with 1, a weight on which the past and the
        present disagree comes to rest halfway. "nag", "adagrad" and "sgd", without `l1` and `l2`; losses
        logistic, squared and Poisson.
    consolidate_every : int, optional
        Anchor after every so many events learned. If not given, whenever `consolidate` is called: by a
        pipeline, when a snapshot of this learner is promoted or serves again.
    consolidation_memory : float, 0..1
        Share of the importances so far that is left when those since the last anchor are added. With 1
        the past weighs more with every anchor, and in the end nothing is learned any more.

    Raises
    ------
    ConfigError
        If a parameter is out of range, or makes no sense with the others or the task.

    Notes
    -----
    Magnitudes of values, labels and weights beyond 1e18 count as 1e18; predictions are always finite.

    References
    ----------
    Ross, Mineiro and Langford (2013), Normalized online learning, UAI (arXiv:1305.6646).
    Karampatziakis and Langford (2011), Online importance weight aware updates, UAI (arXiv:1011.1576).
    Duchi, Hazan and Singer (2011), Adaptive subgradient methods, JMLR 12.
    McMahan et al. (2013), Ad click prediction: a view from the trenches, KDD.
    Orabona and Tommasi (2017), Training deep networks without learning rates through coin betting, NeurIPS.
    Kirkpatrick et al. (2017), Overcoming catastrophic forgetting in neural networks, PNAS 114(13).
    Schwarz et al. (2018), Progress and compress: a scalable framework for continual learning, ICML.

    Examples
    --------
    >>> learner = SGD(Task("binary"))
    >>> rows = [{"age": 31.0, "country": "SE"}, {"age": 62.0, "country": "NO"}] * 50
    >>> learner.progress(Batch.from_rows(rows, [0.0, 1.0] * 50))[[0, 1, -2, -1]].round(2)
    array([0.5 , 0.33, 0.09, 0.93])
    >>> model = learner.freeze()
    >>> round(model.predict_one({"age": 58.0, "country": "NO"}), 2)
    0.93
    """

    reads_rows: ClassVar[bool] = False
    releases_gil: ClassVar[bool] = True  # over a batch: several may progress at once, see `penstock.beside`

    def __init__(
        self,
        task: Task,
        *,
        seed: int = 0,
        update: UpdateRule = "nag",
        loss: LossName | None = None,
        learning_rate: Annotated[float, Gt(0)] = 0.5,
        power_t: Annotated[float, Ge(0), Le(1)] = 0.5,
        initial_t: Annotated[float, Ge(0)] = 0.0,
        l1: Annotated[float, Ge(0)] = 0.0,
        l2: Annotated[float, Ge(0)] = 0.0,
        bits: Annotated[int, Ge(1), Le(MAX_BITS)] = 18,
        interactions: Interactions = (),
        constant: bool = True,
        invariant: bool = True,
        ftrl_alpha: Annotated[float, Gt(0)] | None = None,
        ftrl_beta: Annotated[float, Ge(0)] | None = None,
        quantile_tau: Annotated[float, Gt(0), Lt(1)] = 0.5,
        half_life: Annotated[float, Gt(0)] | None = None,
        multiclass: Reduction = "oaa",
        clip: bool = True,
        consolidation: Annotated[float, Ge(0)] = 0.0,
        consolidate_every: Annotated[int, Ge(1)] | None = None,
        consolidation_memory: Annotated[float, Ge(0), Le(1)] = 0.9,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "task", "seed")}
        interactions = checked_interactions(interactions)
        check(SGD, {name: given[name] for name in given if name != "interactions"})
        self._task = task
        self._parameters: Mapping[str, Any] = given
        self._update: str = update
        self._loss = _checked_loss(task, loss, multiclass)
        _check_combination(task, self._loss, given)
        alpha, beta = _SCALES.get(update, (1.0, 1.0))
        start = (initial_t or 1.0) if update == "sgd" else initial_t
        self._bits = bits
        self._stride = stride_of(update, half_life is not None)
        self._empty_slot = np.zeros(self._stride, np.float32)
        if update in ("nag", "adagrad"):
            self._empty_slot[1] = initial_t
        self._empty_totals = _totals(self._loss, update, start, clip)
        self._frozen: dict[str, Any] = {"bits": bits, "constant": constant, "interactions": interactions}
        self._kernel = Linear(
            head=task.kind,
            loss=self._loss,
            rule=update,
            invariant=invariant,
            clipped=clip,
            learning_rate=learning_rate * start**power_t if update == "sgd" else learning_rate,
            power_t=power_t,
            l1=l1,
            l2=l2,
            alpha=alpha if ftrl_alpha is None else ftrl_alpha,
            beta=beta if ftrl_beta is None else ftrl_beta,
            tau=quantile_tau,
            half_life=half_life or 0.0,
            **self._frozen,
        )
        self._low, self._high, self._label = _label_range(task, self._loss)
        self._whole = task.kind != "regression"
        self._clock = np.zeros(1, np.int64)
        self._allocate(1)
        self._n_classes = 0
        if task.kind != "multiclass":
            self._n_classes = 1
            self._sighted[0] = 1

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event with what is known now. Changes nothing."""
        return self._run(batch, learns=False, predicts=True)

    def learn(self, batch: Batch) -> None:
        """Learn every event, in order.

        Raises
        ------
        BadRecord
            If a label or a weight cannot be learned from; nothing of the batch has been learned then.
        """
        self._run(batch, learns=True, predicts=False)

    def progress(self, batch: Batch) -> NDArray[np.float64]:
        """For each event in order: predict it, then learn it. Returns the predictions.

        Raises
        ------
        BadRecord
            As `learn`.
        """
        return self._run(batch, learns=True, predicts=True)

    def predict_one(self, row: Row) -> NDArray[np.float64] | float:
        """Predict one dict: a float, or an array of shape (K,) for multiclass."""
        if self._task.kind != "multiclass":
            return self._kernel.run_one(row, 0.0, 0.0, None, 1)
        out = np.zeros(self._n_classes)
        self._kernel.run_one(row, 0.0, 0.0, out, self._n_classes)
        return out

    def learn_one(self, row: Row, label: float, weight: float = 1.0) -> None:
        """Learn one dict.

        Raises
        ------
        BadRecord
            If a value, the label or the weight cannot be learned from; nothing has been learned then.
        """
        self._admit_one(label, weight)
        self._kernel.run_one(row, label, weight, None, self._n_classes)

    def progress_one(self, row: Row, label: float, weight: float = 1.0) -> NDArray[np.float64] | float:
        """Predict one dict, then learn it. Returns the prediction.

        Raises
        ------
        BadRecord
            As `learn_one`.
        """
        n_columns = self._admit_one(label, weight)
        if self._task.kind != "multiclass":
            return self._kernel.run_one(row, label, weight, None, 1)
        out = np.zeros(n_columns)
        self._kernel.run_one(row, label, weight, out, self._n_classes)
        return out

    def sensitivity(self, batch: Batch, label: float) -> NDArray[np.float64]:
        """How easily `label` would change the prediction of every event, shape (n,). Changes nothing.

        The margin moves by about this, per unit of importance and of the loss's derivative. It falls as
        the event's features have been seen, and is VW's sensitivity: a width for confidence bounds.
        Updates "nag", "adagrad" and "sgd", tasks binary and regression.
        """
        out = np.empty(len(batch))
        features = batch.features
        self._kernel.sensitivities(
            features.indptr, features.indices, features.values, features.namespaces, label, out
        )
        return out

    @property
    def hastens(self) -> bool:
        """Whether step sizes rest on what was seen: "nag", "adagrad" and "sgd" (with `power_t` above 0)."""
        return self._update in ("nag", "adagrad", "sgd") and self._parameters["power_t"] > 0.0

    def hasten(self, factor: float) -> None:
        """Learn faster from here on: as if only `factor` of the evidence had been seen.

        Sums of squared gradients ("nag", "adagrad") or the time ("sgd") are multiplied by it, so steps grow
        by ``factor**-power_t``, and shrink again as more is seen.

        Raises
        ------
        ConfigError
            If the learner cannot, see `hastens`, or `factor` is not in (0, 1].
        """
        if not self.hastens or not 0.0 < factor <= 1.0:
            raise ConfigError(f"update {self._update!r} cannot be hastened by {factor}")
        if self._update == "sgd":
            self._totals[:, TOTALS.index("age")] *= factor
        elif self._empty_slot.any():
            self._table[:, :, 1] *= factor
        else:  # what is 0 may not even be in memory
            n_words = max((1 << self._bits) // _WORD, 1)
            pages = self._table.reshape(n_words, -1, *self._table.shape[1:])
            pages[self._touched[:n_words] != 0, :, :, 1] *= factor

    @property
    def consolidates(self) -> bool:
        """Whether it waits to be told what to hold on to: see `consolidate`."""
        return self._held is not None and self._parameters["consolidate_every"] is None

    def consolidate(self, model: Model | None = None) -> None:
        """Hold on to `model`, a snapshot of this learner; without one, to what is known now.

        Raises
        ------
        ConfigError
            If `consolidation` is 0, or the model is not of such a learner.
        """
        if self._held is None:
            raise ConfigError("consolidation: is 0, so nothing can be held on to")
        weights = (
            (self.freeze() if model is None else model).weights
            if isinstance(model, SGDModel | None)
            else None
        )
        n_classes = 0 if weights is None else weights.size >> self._bits
        if weights is None or weights.size != n_classes << self._bits or n_classes > self._n_classes:
            raise ConfigError("consolidation: the model is no snapshot of this learner")
        self._kernel.consolidate(weights.reshape(-1), n_classes)

    def freeze(self) -> SGDModel:
        """Return a model of what is known now, that later learning does not touch."""
        k = self._n_classes
        weights = self._frozen_before.lend(
            k << self._bits, lambda memory: self._kernel.effective_weights(memory, k)
        )
        low = TOTALS.index("low")
        return SGDModel(
            self._task,
            loss=self._loss,
            weights=weights.reshape(1 << self._bits, -1) if self._task.kind == "multiclass" else weights,
            limits=self._totals[: self._n_classes, low : low + 2].copy(),
            sighted=self._sighted[: self._n_classes].copy(),
            **self._frozen,
        )

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the learner.

        ======== ===================================== ===============================================
        table    float32 (2**bits, K, slot)            see `penstock._native.linear`; read-only
        totals   float64 (K, 7)                        columns as in ``penstock._native.linear.TOTALS``
        sighted  uint8 (K,)                            whether the class has been seen
        events   int                                   learned so far
        held     float32 (2**bits, K, 4)               see `penstock/_native/consolidation.hpp`, if it is on
        ======== ===================================== ===============================================
        """
        k = self._n_classes
        held: State = {} if self._held is None else {"held": self._held[:, :k].copy()}
        return {
            "update": self._update,
            "loss": self._loss,
            "events": int(self._clock[0]),
            "table": self._slots(k),
            "totals": self._totals[:k].copy(),
            "sighted": self._sighted[:k].copy(),
            **held,
        }

    def _slots(self, n_classes: int) -> NDArray[np.float32]:
        """Copy the table of the first classes; what was never updated is not read, let alone written."""
        if self._empty_slot.any():
            return self._table[:, :n_classes].copy()
        slots = self._copied_before.lend(
            (n_classes << self._bits) * self._stride,
            lambda memory: self._kernel.copy_slots(memory, n_classes),
        )
        return slots.reshape(1 << self._bits, n_classes, self._stride)

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of a learner with the same task, update, loss and bits; nothing has
            changed then.
        """
        for name, ours in (("update", self._update), ("loss", self._loss)):
            theirs = state.get(name)
            if not isinstance(theirs, str) or theirs != ours:
                raise StoreError(f"sgd state: expected {name} {ours!r}, got {theirs!r}")
        table, events = state.get("table"), state.get("events")
        k = table.shape[1] if isinstance(table, np.ndarray) and table.ndim == 3 else 0
        if not 0 <= k <= MAX_CLASSES or (self._task.kind != "multiclass" and k != 1):
            raise StoreError(f"sgd state: expected a table of {self._task.kind} weights, got {k} classes")
        weights = required_array(
            state, "table", np.float32, (1 << self._bits, k, self._stride), what="sgd state"
        )
        totals = required_array(state, "totals", np.float64, (k, len(TOTALS)), what="sgd state")
        sighted = required_array(state, "sighted", np.uint8, (k,), what="sgd state")
        if not np.isfinite(totals).all() or (sighted > 1).any():
            raise StoreError("sgd state: totals must be finite, and sighted 0 or 1")
        if not isinstance(events, int) or not 0 <= events < 1 << 63:
            raise StoreError(f"sgd state: events must be a count, got {events!r}")
        held = None
        if self._held is not None:
            held = required_array(state, "held", np.float32, (1 << self._bits, k, _HELD), what="sgd state")
            if not np.isfinite(held).all() or (held[:, :, 1:] < 0.0).any():
                raise StoreError("sgd state: what is held must be finite, and all but the anchors >= 0")
        self._allocate(max(k, 1))
        if self._held is not None and held is not None:
            self._held[:, :k] = held
        self._table[:, :k] = weights
        self._kernel.find_touched()
        self._totals[:k] = totals
        self._sighted[:k] = sighted
        self._clock[0] = events
        self._n_classes = k

    @staticmethod
    def load(state: dict[str, Any]) -> SGDModel:
        """Rebuild a frozen model from `SGDModel.state`; arrays may be read-only memory maps.

        Raises
        ------
        StoreError
            If it is not the state of such a model.
        """
        return SGDModel.from_state(state)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self._task, dict(self._parameters), self.state())

    def _run(self, batch: Batch, *, learns: bool, predicts: bool) -> NDArray[np.float64]:
        n_columns = self._n_classes
        labels = weights = None
        if learns:
            labels = _numbers(batch.labels)
            weights = np.ascontiguousarray(batch.weights, np.float64)
            n_columns = self._admit(labels, weights)
        out = np.zeros((len(batch.features), n_columns if predicts else 0))
        features = batch.features
        self._kernel.run(
            features.indptr,
            features.indices,
            features.values,
            features.namespaces,
            labels,
            weights,
            out if predicts else None,
            self._n_classes,
        )
        return out if self._task.kind == "multiclass" else out.reshape(-1)

    def _admit(self, labels: NDArray[np.float64], weights: NDArray[np.float64]) -> int:
        """Check what is to be learned, and make room for its classes; return how many it has or are known."""
        bad = first_bad_label(labels, weights, self._low, self._high, self._whole)
        if bad >= 0:
            raise self._refusal(float(labels[bad]), float(weights[bad]), f"event {bad} of the batch")
        if self._task.kind != "multiclass" or not len(labels):
            return self._n_classes
        self._grow(int(labels.max(where=weights > 0, initial=-1)) + 1)
        return max(self._n_classes, int(labels.max()) + 1)

    def _admit_one(self, label: float, weight: float) -> int:
        """As `_admit`, at a tenth of its cost for a single event."""
        if not (self._low <= label <= self._high and 0 <= weight <= _FLOAT64_MAX) or (
            self._whole and label != int(label)
        ):
            raise self._refusal(label, weight, "")
        if self._task.kind != "multiclass":
            return 1
        if weight > 0:
            self._grow(int(label) + 1)
        return max(self._n_classes, int(label) + 1)

    def _refusal(self, label: float, weight: float, position: str) -> BadRecord:
        if not 0 <= weight <= _FLOAT64_MAX:
            return BadRecord("a finite weight >= 0", weight, path="$.weight", position=position)
        return BadRecord(self._label, label, path="$.label", position=position)

    def _grow(self, n_classes: int) -> None:
        capacity = self._table.shape[1]
        if n_classes > capacity:  # by doubling, so that few are copied often
            table, totals, sighted, held = self._table, self._totals, self._sighted, self._held
            touched = self._touched
            self._allocate(1 << (n_classes - 1).bit_length())
            if self._held is not None and held is not None:
                self._held[:, :capacity] = held
            self._table[:, :capacity] = table
            self._touched[:] = touched
            self._totals[:capacity] = totals
            self._sighted[:capacity] = sighted
        self._n_classes = max(self._n_classes, n_classes)

    def _allocate(self, capacity: int) -> None:
        shape = (1 << self._bits, capacity, self._stride)
        beside = (*shape[:2], _HELD if self._parameters["consolidation"] else 0)
        self._held: NDArray[np.float32] | None = None
        try:
            self._table = _aligned_zeros(shape)
            if beside[2]:
                self._held = _aligned_zeros(beside)
        except MemoryError:
            size = (math.prod(shape) + math.prod(beside)) * 4 / 2**30
            raise ConfigError(
                f"bits={self._bits}: a table for {capacity} classes takes {size:.1f} GiB"
            ) from None
        if self._empty_slot.any():
            self._table[:] = self._empty_slot
        self._totals = np.tile(self._empty_totals, (capacity, 1))
        self._sighted = np.zeros(capacity, np.uint8)
        self._touched = np.zeros(touched_size(self._bits), np.uint64)
        # Both are zero where nothing was ever learned; all else is written anew.
        self._frozen_before, self._copied_before = Leases(spare=2), Leases(spare=1)
        self._kernel.attach(self._table.reshape(-1), self._totals, self._sighted, self._clock, self._touched)
        if self._held is not None:
            self._kernel.attach_held(
                self._held.reshape(-1),
                self._parameters["consolidation"],
                self._parameters["consolidation_memory"],
                self._parameters["consolidate_every"] or 0,
            )


def _rebuild(task: Task, parameters: dict[str, Any], state: State) -> SGD:
    learner = SGD(task, **parameters)
    learner.restore(state)
    return learner


def _aligned_zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that start at a cache line, so that no slot straddles two."""
    size = math.prod(shape)
    room = np.zeros(size + _ALIGNMENT // 4, np.float32)
    offset = -room.ctypes.data % _ALIGNMENT // 4
    return room[offset : offset + size].reshape(shape)


def _totals(loss: str, update: str, start: float, clip: bool) -> NDArray[np.float64]:
    """Totals of a class of which nothing has been seen."""
    if loss in ("logistic", "softmax", "poisson"):
        low, high = -_MAX_MARGIN, _MAX_MARGIN
    elif clip:
        low = high = 0.0
    else:
        low, high = -_FLOAT64_MAX, _FLOAT64_MAX
    seen = start if update == "nag" else 0.0
    values = {
        "sum_norm": seen,
        "sum_weight": seen,
        "low": low,
        "high": high,
        "age": start if update == "sgd" else 0.0,
        "contraction": 1.0,
        "gravity": 0.0,
    }
    return np.array([values[name] for name in TOTALS])


def _label_range(task: Task, loss: str) -> tuple[float, float, str]:
    """Lowest and highest label that can be learned, and what to call them."""
    if task.kind == "multiclass":
        return 0.0, MAX_CLASSES - 1.0, f"a class number from 0 to {MAX_CLASSES - 1}"
    if task.kind == "binary":
        return 0.0, 1.0, "0 or 1"
    if loss == "poisson":
        return 0.0, _FLOAT64_MAX, "a finite number >= 0"
    return -_FLOAT64_MAX, _FLOAT64_MAX, "a finite number"


def _numbers(labels: NDArray[Any]) -> NDArray[np.float64]:
    if labels.dtype.kind not in "biuf":
        raise DataError(f"labels must be numbers (classes numbered by first sighting), got {labels.dtype}")
    return np.ascontiguousarray(labels, np.float64)


def _checked_loss(task: Task, loss: str | None, multiclass: str) -> str:
    allowed = LOSSES[task.kind]
    if multiclass == "softmax":
        if task.kind != "multiclass":
            raise ConfigError(f"multiclass: 'softmax' does not fit a {task.kind} task")
        if loss not in (None, "logistic"):
            raise ConfigError(f"loss: 'softmax' has a loss of its own, got {loss!r}")
        return "softmax"
    if loss is not None and loss not in allowed:
        raise ConfigError(f"loss: expected {' or '.join(map(repr, allowed))} for {task.kind}, got {loss!r}")
    return loss or allowed[0]


def _check_combination(task: Task, loss: str, given: Mapping[str, Any]) -> None:
    """Refuse what would be silently ignored."""
    defaults = inspect.signature(SGD).parameters
    unused = dict.fromkeys(_UNUSED[given["update"]], f"update {given['update']!r}")
    if loss != "quantile":
        unused["quantile_tau"] = f"loss {loss!r}"
    if loss == "softmax":
        unused["invariant"] = "'softmax'"
    if task.kind != "regression" or loss == "poisson":
        unused["clip"] = f"a {task.kind} task with loss {loss!r}"
    if loss in ("hinge", "quantile"):  # they have no curvature, and so no Fisher information
        unused["consolidation"] = f"loss {loss!r}"
    if given["consolidation"]:
        unused |= dict.fromkeys(("l1", "l2"), "consolidation, which draws weights elsewhere than to 0")
    else:
        unused |= dict.fromkeys(("consolidate_every", "consolidation_memory"), "consolidation 0")
    for name, where in unused.items():
        if given[name] != defaults[name].default:
            raise ConfigError(f"{name}: has no meaning with {where}, got {given[name]!r}")
