"""Names to numbers: Vowpal Wabbit's hashing, the walk over a row, and the building of CSR matrices."""

from collections.abc import Sequence

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
