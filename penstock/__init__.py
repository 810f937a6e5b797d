"""Penstock: online learning and bandits, exactly once, behind a gate.

Names are imported when they are first used, so that an application that embeds a `Predictor` pays for
the predictor only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.errors import (
    BadRecord,
    ConfigError,
    DataError,
    PenstockError,
    ServiceError,
    StoreError,
    UntrustedState,
)

if TYPE_CHECKING:
    from penstock.decisions import Decision
    from penstock.engine import Engine
    from penstock.events import Batch, Task
    from penstock.predictor import Prediction, Predictor
    from penstock.snapshots import SnapshotStore

__all__ = [
    "BadRecord",
    "Batch",
    "ConfigError",
    "DataError",
    "Decision",
    "Engine",
    "PenstockError",
    "Prediction",
    "Predictor",
    "ServiceError",
    "SnapshotStore",
    "StoreError",
    "Task",
    "UntrustedState",
    "__version__",
]

__version__ = "0.1.0"

_HOMES = {
    "Batch": "penstock.events",
    "Decision": "penstock.decisions",
    "Engine": "penstock.engine",
    "Prediction": "penstock.predictor",
    "Predictor": "penstock.predictor",
    "SnapshotStore": "penstock.snapshots",
    "Task": "penstock.events",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
