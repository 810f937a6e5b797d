from collections.abc import Mapping

from penstock._native.records import Records

class RecordReader(Records):
    def __init__(
        self,
        *,
        task: str,
        roles: Mapping[str, str],
        classes: tuple[str, str] | None = None,
        requires_label: bool = True,
        container: str | None = None,
        requires_container: bool = False,
        takes_feedback: bool = False,
        readings: Mapping[str, str] | None = None,
    ) -> None: ...
