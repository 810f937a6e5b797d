"""The ranges that parameters of policies have in common, and the check that they are kept."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le

from penstock.learners.annotated import check

__all__ = [
    "Arms",
    "Dimension",
    "Discount",
    "Draws",
    "Floor",
    "NotNegative",
    "Positive",
    "Ridge",
    "Share",
    "Window",
    "check",
]

Floor: TypeAlias = Annotated[float, Ge(0), Le(1)]
Discount: TypeAlias = Annotated[float, Gt(0), Le(1)]
Window: TypeAlias = Annotated[int, Ge(1), Le(10_000_000)]
Draws: TypeAlias = Annotated[int, Ge(1), Le(100_000)]
Arms: TypeAlias = Annotated[int, Ge(1), Le(10_000_000)]
Dimension: TypeAlias = Annotated[int, Ge(1), Le(512)]
Ridge: TypeAlias = Annotated[float, Ge(1e-9), Le(1e9)]
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]
Positive: TypeAlias = Annotated[float, Gt(0)]
NotNegative: TypeAlias = Annotated[float, Ge(0)]
