"""Parameters held against their annotations, for what is built without a configuration."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from penstock.errors import ConfigError

__all__ = ["check_parameters"]


def check_parameters(constructor: Callable[..., None], given: Mapping[str, Any]) -> None:
    """Hold every parameter that is `given` against its annotation in `constructor`.

    Raises
    ------
    ConfigError
        Names the first that does not fit.
    """
    hints = get_type_hints(constructor, include_extras=True)
    for name, value in given.items():
        expected = _mismatch(value, hints[name])
        if expected:
            raise ConfigError(f"{name}: expected {expected}, got {value!r}")


_LIMITS: Final[Mapping[type, tuple[str, str, Callable[[Any, Any], bool]]]] = {
    Gt: ("gt", ">", operator.gt),
    Ge: ("ge", ">=", operator.ge),
    Lt: ("lt", "<", operator.lt),
    Le: ("le", "<=", operator.le),
}


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
    kind, *limits = get_args(hint)
    bounds = [(getattr(limit, _LIMITS[type(limit)][0]), *_LIMITS[type(limit)][1:]) for limit in limits]
    wanted = "an integer" if kind is int else "a finite number"
    wanted += " " + " and ".join(f"{sign} {bound}" for bound, sign, _ in bounds)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return wanted
    fits = math.isfinite(value) and all(holds(value, bound) for bound, _, holds in bounds)
    return "" if fits else wanted
