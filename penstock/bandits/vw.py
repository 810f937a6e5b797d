"""Vowpal Wabbit as a policy: any of its ``--cb_explore_adf`` command lines."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from vowpalwabbit.pyvw import pylibvw

from penstock.bandits.base import exact
from penstock.bandits.estimators import checked_range
from penstock.bandits.pairs import ACTION
from penstock.bandits.parameters import Floor, check
from penstock.bandits.pmf import floored
from penstock.bandits.randomness import uniform
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.learners.vw_text import vw_text
from penstock.learners.vw_workspace import Workspace, check_flags, not_saved
from penstock.state import State

__all__ = ["VW", "FrozenVW", "repaired"]

_MAX_REWARD: Final = 1e18  # its square still fits VW's float32
_MAX_WEIGHT: Final = 1000.0
_WEIGHTS: Final = 0  # which stream of random numbers: there is only this one
_ROUNDING: Final = 1e-4  # VW's probabilities are float32, and thousands of them may be added up


class VW:
    """Decides and learns as Vowpal Wabbit does with the same arguments.

    Parameters
    ----------
    seed : int
        Handed to VW as ``--random_seed`` if `args` do not have one.
    args : str
        Arguments as on VW's command line; ``--cb_explore_adf`` is added if it is not there. Not accepted is
        what does input or output, and the few reductions that could not be resumed exactly.
    floor : float, 0..1
        Share of decisions made uniformly at random, whatever VW says.

    Raises
    ------
    ConfigError
        If VW does not understand the arguments, or they cannot be used here; the message says which and why.

    Notes
    -----
    *Examples* are a line ``shared`` with the context and one line for each action, whose features are in the
    namespace "action", its identity as ``id=...`` among them. ``-q :a`` crosses everything with the action.

    *Labels* have the cost ``-reward``, as is usual with VW, of the reward brought to [0, 1], and the logged
    propensity. So the options that need to know the range of costs (``--regcb``, ``--elim``) want
    ``--cb_min_cost -1 --cb_max_cost 0``, and what depends on their scale (``--gamma_scale``) is for [0, 1].

    *Weights.* VW's text has no importance for decisions. A weight of 2 is learned twice, one of 2.3 a third
    time with chance 0.3, drawn from the seed and the key of the decision.

    *Distributions.* What VW predicts is not always one: with ``--regcbopt`` every one of several tied actions
    has probability 1, and ``--squarecb --elim`` gives negative ones. Negative entries count as 0, the rest
    is divided by its sum, and `violations` counts events whose predictions were off by more than rounding.

    Examples
    --------
    >>> policy = VW(args="--squarecb -q :a")
    >>> policy.probabilities(Offers.from_rows([{"hour": 9}], [["news", "sport"]]))
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        args: str = "--squarecb -q :a",
        floor: Floor = 0.0,
        reward_range: Sequence[float] = (0.0, 1.0),
    ) -> None:
        check(VW, {"floor": floor})
        self._low, self._high = checked_range(reward_range)
        self._floor = floor
        self._seed = seed
        self._workspace = Workspace(_arguments(seed, args))
        kinds = self._workspace.label_type, self._workspace.prediction_type
        if kinds != (pylibvw.vw.lContextualBandit, pylibvw.vw.pACTION_PROBS):
            raise ConfigError(f"vw: {args!r} does not explore a contextual bandit")
        self._workspace.check_resumable()
        self._options = not_saved(self._workspace.options())
        self.violations = 0

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Return the exact distribution that is to be sampled and logged, shape (m,). Changes nothing.

        Raises
        ------
        BadRecord
            If VW fails on an event.
        """
        result, violations = _probabilities(self._workspace, offers, self._floor)
        self.violations += violations
        return result

    def learn(self, logged: Logged) -> None:
        """Learn every decision, in order; those of weight 0 change nothing.

        Raises
        ------
        BadRecord
            If VW cannot learn a reward or a weight so large, and nothing has been learned then; or if it
            fails on an event.
        """
        times = self._times(logged)
        for i in range(len(logged)):
            self._learn(logged, i, times[i])

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: give the distribution, then learn it. Returns shape (m,).

        Raises
        ------
        BadRecord
            As `learn`.
        """
        times = self._times(logged)
        parts = [np.empty(0)]
        for i in range(len(logged)):
            parts.append(self.probabilities(logged.offers.slice(i, i + 1)))
            self._learn(logged, i, times[i])
        return np.concatenate(parts)

    def freeze(self) -> FrozenVW:
        """Return a policy of what is known now, that later learning does not touch."""
        return FrozenVW(self._workspace.save(), self._options, self._floor)

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened: VW's own model format."""
        return {"model": np.frombuffer(self._workspace.save(), dtype=np.uint8)}

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If there is no VW model in it.
        """
        workspace = Workspace(self._options, _model_bytes(state))
        self._workspace.close()
        self._workspace = workspace

    def _times(self, logged: Logged) -> list[int]:
        """How often each event is learned, once it is sure that VW can learn all of them."""
        for name, values, most in (
            ("reward", np.abs(logged.rewards), _MAX_REWARD),
            ("weight", logged.weights, _MAX_WEIGHT),
        ):
            wrong = (values > most) & (logged.weights > 0)
            if wrong.any():
                first = int(np.argmax(wrong))
                raise BadRecord(
                    f"a magnitude <= {most:g}",
                    values[first].item(),
                    path=f"$.{name}",
                    position=f"events[{first}]",
                )
        whole = np.floor(logged.weights)
        again = uniform(logged.offers.keys, self._seed, _WEIGHTS) < logged.weights - whole
        times: list[int] = (whole + again).astype(np.int64).tolist()
        return times

    def _learn(self, logged: Logged, event: int, times: int) -> None:
        if times:
            reward = (float(logged.rewards[event]) - self._low) / (self._high - self._low)
            lines = _labelled(logged, event, reward)
            for _ in range(times):
                self._workspace.learn_lines(lines)

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenVW:
        """Rebuild a frozen policy from its state.

        Raises
        ------
        StoreError
            If there is no VW model in it, or one that would do input or output.
        """
        try:
            options = shlex.split(str(state["options"]))
            check_flags(options)
            check(VW, {"floor": state["floor"]})
        except (KeyError, ValueError, ConfigError) as error:
            raise StoreError(f"the state of a policy vw cannot be used: {error}") from error
        return FrozenVW(_model_bytes(state), options, float(state["floor"]))


class FrozenVW:
    """A frozen VW policy: the bytes that VW saved, read when it is first asked.

    VW cannot be used by two threads at once, so decisions of one policy wait for each other.
    """

    def __init__(self, data: bytes, options: Sequence[str], floor: float) -> None:
        self._data = data
        self._options = tuple(options)
        self._floor = floor
        self._workspace: Workspace | None = None
        self._one_at_a_time = threading.Lock()
        self.violations = 0

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Distribution over the offered actions of every event, one after the other, shape (m,)."""
        with self._one_at_a_time:
            if self._workspace is None:
                self._workspace = Workspace(self._options, self._data)
            result, violations = _probabilities(self._workspace, offers, self._floor)
            self.violations += violations
        return result

    def state(self) -> State:
        """Everything that ``VW.load`` needs, for a snapshot."""
        return {
            "model": np.frombuffer(self._data, dtype=np.uint8),
            "options": shlex.join(self._options),
            "floor": self._floor,
        }


def repaired(raw: Sequence[float]) -> tuple[NDArray[np.float64], bool]:
    """Make a distribution of what VW calls one; say whether it was.

    Examples
    --------
    >>> repaired([1.0, 1.0])
    (array([0.5, 0.5]), False)
    >>> repaired([-3.0, 2.0, 2.0])
    (array([0. , 0.5, 0.5]), False)
    """
    scores = np.asarray(raw, np.float64)
    positive = np.where(scores > 0, scores, 0.0)  # NaN is not
    total = float(np.cumsum(positive)[-1])
    proper = bool((scores >= -_ROUNDING).all()) and abs(total - 1.0) <= _ROUNDING
    if not 0.0 < total < np.inf:
        return np.full(len(scores), 1.0 / len(scores)), False
    return positive / total, proper


def _arguments(seed: int, args: str) -> list[str]:
    try:
        given = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"vw: args {args!r}: {error}") from error
    names = check_flags(given)
    if "cb_explore_adf" not in names:
        given = ["--cb_explore_adf", *given]
    if seed and "random_seed" not in names:
        given += ["--random_seed", str(seed)]
    return given


def _lines(offers: Offers, event: int) -> list[str]:
    """Write an event: the shared line, then one an action."""
    entries = range(int(offers.starts[event]), int(offers.starts[event + 1]))
    return [
        f"shared {vw_text(offers.rows[event])}",
        *(vw_text({ACTION: {"id": offers.arms[entry], **offers.action_rows[entry]}}) for entry in entries),
    ]


def _labelled(logged: Logged, event: int, reward: float) -> list[str]:
    lines = _lines(logged.offers, event)
    cost, propensity = -reward, float(logged.propensities[event])
    at = 1 + int(logged.chosen[event])
    lines[at] = f"0:{cost!r}:{propensity!r} {lines[at]}"
    return lines


def _probabilities(workspace: Workspace, offers: Offers, floor: float) -> tuple[NDArray[np.float64], int]:
    result = np.empty(len(offers.arms))
    violations = 0
    for event, (start, stop) in enumerate(zip(offers.starts[:-1], offers.starts[1:], strict=True)):
        result[start:stop], proper = repaired(workspace.predict_lines(_lines(offers, event)))
        violations += not proper
    return exact(floored(result, offers.starts, floor), offers.starts), violations


def _model_bytes(state: Mapping[str, Any]) -> bytes:
    model = state.get("model")
    if not isinstance(model, np.ndarray) or model.dtype != np.uint8:
        raise StoreError("the state of a policy vw has no model in it")
    return model.tobytes()
