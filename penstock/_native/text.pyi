"""What is written as text: the cells of a table, and Vowpal Wabbit's lines."""

from collections.abc import Sequence, Set
from typing import Any

from penstock.errors import BadRecord
from penstock.events import Features

def encode_cells(
    names: Sequence[str], kinds: Sequence[int], records: Sequence[Sequence[str]], missing: Set[str]
) -> tuple[Features, list[dict[str, Any]], list[tuple[int, BadRecord]]]:
    """Read every record of a table, given as text."""

def encode_vw(lines: Sequence[str]) -> tuple[Features, list[dict[str, Any]], list[tuple[int, BadRecord]]]:
    """Read the feature part (from the first ``|`` on) of every line in VW's text format."""
