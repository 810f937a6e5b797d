from penstock._native.records import Records

class VWReader(Records):
    def __init__(
        self, *, task: str, classes: tuple[str, str] | None = None, requires_label: bool = True
    ) -> None: ...
