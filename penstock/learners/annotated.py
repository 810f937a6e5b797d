"""Parameters held against their annotations, for what is built without a configuration."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from penstock.errors import ConfigError

__all__ = ["check"]

_LIMITS: Final[Mapping[type, tuple[str, str, Callable[[Any, Any], bool]]]] = {
    Gt: ("gt", ">", operator.gt),
    Ge: ("ge", ">=", operator.ge),
    Lt: ("lt", "<", operator.lt),
    Le: ("le", "<=", operator.le),
}


def check(cls: type, given: Mapping[str, Any]) -> None:
    """Hold what a constructor was given against its annotations.

    Parameters
    ----------
    cls : type
    given : mapping
        Names to values, such as ``locals()``; those without an annotation are passed over.

    Raises
    ------
    ConfigError
        Names the first parameter out of its range, what was expected, and what was given.

    Examples
    --------
    >>> class Policy:
    ...     def __init__(self, *, floor: Annotated[float, Ge(0), Le(1)] = 0.0) -> None: ...
    >>> check(Policy, {"floor": 2})
    Traceback (most recent call last):
    ...
    penstock.errors.ConfigError: floor: expected a finite number >= 0 and <= 1, got 2
    """
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    for name, hint in hints.items():
        if name in given and name != "return":
            expected = _mismatch(given[name], hint)
            if expected:
                raise ConfigError(f"{name}: expected {expected}, got {given[name]!r}")


def _mismatch(value: Any, hint: Any) -> str:
    """Say what `hint` wants instead of `value`; empty if that is fine."""
    alternatives = get_args(hint) if get_origin(hint) not in (Annotated, Literal, None) else (hint,)
    wanted = [_mismatch_one(value, alternative) for alternative in alternatives]
    return "" if "" in wanted else " or ".join(wanted)


def _mismatch_one(value: Any, hint: Any) -> str:
    if hint is type(None):
        return "" if value is None else "none"
    if get_origin(hint) is Literal:
        return "" if value in get_args(hint) else " or ".join(map(repr, get_args(hint)))
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    kind, *limits = get_args(hint) or (hint,)
    bounds = [(getattr(limit, _LIMITS[type(limit)][0]), *_LIMITS[type(limit)][1:]) for limit in limits]
    wanted = "an integer" if kind is int else "a finite number"
    wanted += " " * bool(bounds) + " and ".join(f"{sign} {bound}" for bound, sign, _ in bounds)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return wanted
    fits = math.isfinite(value) and all(holds(value, bound) for bound, _, holds in bounds)
    return "" if fits else wanted
