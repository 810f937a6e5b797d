from collections.abc import Iterable, Sequence
from typing import Final

from penstock._native.records import Records

USES: Final[tuple[str, ...]]

class CellReader(Records):
    def __init__(
        self,
        *,
        task: str,
        columns: Sequence[tuple[str, str]],
        delimiter: str = ",",
        missing: Iterable[str] = ("",),
        classes: tuple[str, str] | None = None,
        requires_label: bool = True,
    ) -> None: ...
