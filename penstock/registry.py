"""From the name in a configuration to a class, importing nothing that is not asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import ConfigError

__all__ = ["CheckedInside", "OneOf", "resolve"]


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Annotates a parameter that is a mapping: the `kind` of a class in a registry, and keywords for it.

    A configuration is checked against the constructor of that class.
    """

    registry: Mapping[str, str]
    what: str  # "learner"; for messages


@dataclass(frozen=True, slots=True)
class CheckedInside:
    """Annotates a parameter that only its constructor can check, with messages of its own."""


def resolve(kind: str, registry: Mapping[str, str], *, what: str) -> Any:
    """Return the class registered as `kind`, or the one that ``module:Class`` names.

    Parameters
    ----------
    kind : str
        A name in `registry`, or ``package.module:Class`` for a class from elsewhere.
    registry : mapping of name to ``module:Class``
    what : str
        "learner", "detector", …; for the message.

    Raises
    ------
    ConfigError
        If there is no such name, module or class.

    Examples
    --------
    >>> resolve("collections:Counter", {}, what="learner").__name__
    'Counter'
    """
    target = registry.get(kind, kind)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        close = difflib.get_close_matches(kind, registry, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"no {what} is called {kind!r}{hint}: known are {', '.join(sorted(registry))}; "
            f"for a class of your own write 'module:Class'"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # somebody else's module may fail in any way while it is imported
        kind_of_error = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ConfigError(
            f"{what} {kind!r}: cannot import {module_name!r}: {kind_of_error}{error}"
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise ConfigError(f"{what} {kind!r}: module {module_name!r} has no class {class_name!r}")
    return found
