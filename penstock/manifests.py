"""What a snapshot says about itself, and what makes that acceptable."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict, cast

import penstock
from penstock.errors import StoreError

__all__ = ["Manifest", "comparable", "completed", "file_name", "manifest_of"]

_FORMAT: Final = 1


class Manifest(TypedDict):
    """What a snapshot says about itself; on disk as JSON.

    `SnapshotStore.put` fills in `format` and `created_by`, numbers the snapshot if it has no `version`, and
    takes what is not given as the comment says.
    """

    name: str  # of the pipeline; ""
    version: int  # from 1; the next one
    parent: int | None  # version that served before; None
    learner: str  # name in the pipeline; the kind
    kind: str  # registry name, or module:Class, that can load the state
    task: str  # "binary", "multiclass", "regression" or, for a policy, "bandit"
    classes: list[str] | None  # names by number, for multiclass; of a policy its configured actions; None
    config_hash: str  # ""
    first_event: int  # number of the first event learned; 0
    last_event: int  # number of the last event learned; 0
    promoted_as: str | None  # "initial", "refresh" or "replace"; None
    evidence: dict[str, Any]  # what the gate saw; {}
    metrics: dict[str, Any]  # of the learner when it was frozen; {}
    created_by: str  # version of Penstock
    format: int
    sha256: str  # of the file


_FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "version": (int,),
    "parent": (int, type(None)),
    "learner": (str,),
    "kind": (str,),
    "task": (str,),
    "classes": (list, type(None)),
    "config_hash": (str,),
    "first_event": (int,),
    "last_event": (int,),
    "promoted_as": (str, type(None)),
    "evidence": (dict,),
    "metrics": (dict,),
    "created_by": (str,),
    "format": (int,),
}


def file_name(version: int) -> str:
    """Name of the file of a version."""
    return f"{version:08d}.safetensors"


def completed(manifest: Mapping[str, Any], *, next_version: int) -> dict[str, Any]:
    """Return `manifest` with every field, checked."""
    unknown = manifest.keys() - _FIELDS.keys()
    if unknown or not {"kind", "task"} <= manifest.keys():
        raise StoreError(
            f"a manifest needs `kind` and `task` and may have {', '.join(_FIELDS)}: got {', '.join(manifest)}"
        )
    complete = {
        "name": "",
        "version": next_version,
        "parent": None,
        "learner": manifest["kind"],
        "classes": None,
        "config_hash": "",
        "first_event": 0,
        "last_event": 0,
        "promoted_as": None,
        "evidence": {},
        "metrics": {},
        **manifest,
        "created_by": penstock.__version__,
        "format": _FORMAT,
    }
    try:
        fields = json.loads(json.dumps(complete))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"a manifest is plain JSON: {error}") from error
    _check_fields(fields, "a manifest")
    return cast("dict[str, Any]", fields)


def manifest_of(fields: dict[str, Any], file: Path) -> Manifest:
    """Check what was read from `file`."""
    written = fields.get("format")
    if isinstance(written, int) and written > _FORMAT:
        raise StoreError(
            f"{file} has format {written}, written by Penstock {fields.get('created_by')}: "
            f"this is Penstock {penstock.__version__}, which reads up to format {_FORMAT}; upgrade it"
        )
    _check_fields(fields, str(file))
    if file.name != file_name(fields["version"]):
        raise StoreError(f"{file} is not what its name says: it is version {fields['version']}")
    return cast("Manifest", fields)


def _check_fields(fields: Mapping[str, Any], where: str) -> None:
    for name, types in _FIELDS.items():
        value = fields.get(name)
        if not isinstance(value, types) or isinstance(value, bool) or name not in fields:
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise StoreError(
                f"{where}: expected {expected} in the manifest's `{name}`, got {reprlib.repr(value)}"
            )
    if fields["version"] < 1:
        raise StoreError(f"{where}: expected a version from 1, got {fields['version']}")
    if fields["classes"] is not None and not all(isinstance(name, str) for name in fields["classes"]):
        raise StoreError(f"{where}: expected text in the manifest's `classes`")


def comparable(manifest: Mapping[str, Any]) -> str:
    """Write out what is the same in two snapshots of one model."""
    kept = {name: value for name, value in manifest.items() if name not in ("created_by", "sha256")}
    return json.dumps(kept, sort_keys=True)  # as text, in which NaN equals NaN
