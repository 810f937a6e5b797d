"""River models as opaque entries of a state: pickles, with a digest that equal models share."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
from river import base, compose
from river.rules import AMRules

from penstock.errors import StoreError, UntrustedState
from penstock.state import Opaque

__all__ = ["check_trusted", "content_digest", "opaque", "unpickled"]

_PROTOCOL: Final = 5


def opaque(model: base.Base) -> Opaque:
    """Pickle `model`; its digest is computed when somebody asks."""
    data = pickle.dumps(model, _PROTOCOL)
    return Opaque(data=data, digest=lambda: content_digest(pickle.loads(data)))


def check_trusted(entry: object, who: str = "learner river") -> Opaque:
    """Return `entry` if it is a pickle that may be read; `who` asks, for the message.

    Raises
    ------
    StoreError
        If it is something else.
    UntrustedState
        If nothing vouches for it.
    """
    if not isinstance(entry, Opaque):
        raise StoreError(f"{who}: the state has no pickled model in it")
    if not entry.trusted:
        raise UntrustedState(
            f"{who}: nothing vouches for this model, a pickle, and reading it could run any code; "
            "set PENSTOCK_KEY to the key it was signed with, or allow unsigned models in the configuration"
        )
    return entry


def unpickled(entry: object, who: str = "learner river") -> base.Base:
    """Read the model that `opaque` wrote; `who` asks, for the message.

    Raises
    ------
    StoreError
        If `entry` is not such a model.
    UntrustedState
        If nothing vouches for it.
    """
    model = pickle.loads(check_trusted(entry, who).data)
    if not isinstance(model, base.Base):
        raise StoreError(f"{who}: the state holds a {type(model).__name__}, not a model of River")
    return model


def content_digest(content: object) -> str:
    """Hex SHA-256 of an object, the same for equal objects in every process.

    Examples
    --------
    >>> content_digest({"a": {"x", "y", "z"}}) == content_digest({"a": {"z", "y", "x"}})
    True
    """
    sink = _Sink()
    _ContentPickler(sink, _PROTOCOL).dump(content)
    return sink.sha.hexdigest()


class _Sink:
    """A file that is hashed instead of written."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha.update(data)
        return len(data)


class _ContentPickler(pickle._Pickler):
    """Writes equal objects as equal bytes, which `pickle` does not.

    Values that cannot change are written in full wherever they occur: whether two equal strings are one
    object is an accident of interning. Sets are written in the order of their members' digests: their own
    depends on the process's hash seed. What River derives or never uses is left out, see `reducer_override`.
    """

    dispatch: ClassVar[dict[type, Callable[[Any, Any], None]]] = dict(pickle._Pickler.dispatch)

    def memoize(self, obj: Any) -> None:
        if not isinstance(obj, (str, bytes, tuple, frozenset, np.generic)):
            super().memoize(obj)  # type: ignore[misc]

    def _save_set(self, members: Any) -> None:
        self.save((type(members), tuple(sorted(map(content_digest, members)))))  # type: ignore[attr-defined]

    dispatch[set] = dispatch[frozenset] = _save_set

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, base.Base):
            return NotImplemented
        reduced = obj.__reduce_ex__(_PROTOCOL)
        if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        attributes = reduced[2]
        if isinstance(obj, compose.Pipeline):
            # A pipeline derives from its steps, on first use, how to call them.
            attributes = {"steps": attributes["steps"]}
        elif isinstance(obj, AMRules):
            # Its rules are kept under their memory addresses.
            attributes = {**attributes, "_rules": list(attributes["_rules"].values())}
        elif getattr(obj, "seed", 0) is None:
            # An unseeded generator, as in every distribution of `river.proba`, for drawing samples only.
            attributes = {name: value for name, value in attributes.items() if name != "_rng"}
        return *reduced[:2], attributes, *reduced[3:]
