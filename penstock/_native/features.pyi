"""Names to numbers: Vowpal Wabbit's hashing, the walk over a row, and the building of CSR matrices."""

from collections.abc import Sequence, Set
from typing import Any

from penstock.errors import BadRecord
from penstock.events import Features, Row

def hash_string(data: bytes, seed: int) -> int:
    """MurmurHash3_x86_32 of `data`; `seed` in ``[0, 2**32)``."""

def hash_feature(name: str, namespace: str | None = None) -> int:
    """Index of the feature `name` in `namespace`, before a table cuts it to its bits."""

def encode_rows(rows: Sequence[Row]) -> tuple[Features, list[tuple[int, BadRecord]]]:
    """Hash every row; one that cannot be used is an empty row of the matrix, and its error is listed."""

def require_features(row: Row, path: str = "$") -> None:
    """Raise `BadRecord` if `encode_rows` could not use a row, which lies at `path` in its record."""

def encode_cells(
    names: Sequence[str], kinds: Sequence[int], records: Sequence[Sequence[str]], missing: Set[str]
) -> tuple[Features, list[dict[str, Any]], list[tuple[int, BadRecord]]]:
    """Read every record of a table, given as text."""

def encode_vw(lines: Sequence[str]) -> tuple[Features, list[dict[str, Any]], list[tuple[int, BadRecord]]]:
    """Read the feature part (from the first ``|`` on) of every line in VW's text format."""
