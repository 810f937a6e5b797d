"""Where to go on after a crash: the engine's whole state and the source's position, in one file.

State and position are replaced together, atomically, so after a crash both are of the same moment: no
event is lost and none is learned twice. The checkpoint before the newest stays beside it as
``<name>.previous``, to be put back by hand should a disk damage the newest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import penstock
from penstock import tensors
from penstock.errors import StoreError
from penstock.state import State

__all__ = ["Checkpoint", "load", "previous", "save"]

_FORMAT: Final = 1
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One moment of a run.

    Attributes
    ----------
    state : State
        The engine's.
    position : mapping
        Where the source goes on; plain JSON.
    extra : mapping
        What else the runner wants to find again; plain JSON.
    """

    state: State
    position: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


def previous(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.previous")


def save(path: str | os.PathLike[str], checkpoint: Checkpoint, *, config_hash: str) -> str:
    """Replace the checkpoint at `path`, atomically and durably; return the SHA-256 of the file.

    Parameters
    ----------
    path : path
        Its directory is made if need be. One runner writes it at a time.
    checkpoint : Checkpoint
        Opaque entries are signed with the key in ``PENSTOCK_KEY``, if there is one.
    config_hash : str
        Of the configuration that the state belongs to.

    Raises
    ------
    StoreError
        If it cannot be written; the old one is still in place then.
    """
    path = Path(path)
    manifest: dict[str, tensors.JSON] = {
        "format": _FORMAT,
        "created_by": penstock.__version__,
        "config_hash": config_hash,
        "position": dict(checkpoint.position),
        "extra": dict(checkpoint.extra),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _keep_previous(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return tensors.write(path, checkpoint.state, manifest, key=tensors.signing_key())


def load(path: str | os.PathLike[str], *, config_hash: str, trust_pickle: bool = False) -> Checkpoint | None:
    """Read and verify the checkpoint at `path`; None if there is none.

    Parameters
    ----------
    path : path
    config_hash : str
        Of the configuration that is going to run.
    trust_pickle : bool
        Trust opaque entries (River models) even if they are not signed with the key in ``PENSTOCK_KEY``. A
        pickle can run any code: only for a file that nobody else can write to.

    Raises
    ------
    StoreError
        If the file is damaged, belongs to another configuration, or was written by a newer Penstock; or if
        it is gone, and the one before it is there.
    """
    path = Path(path)
    older = previous(path)
    has_older = os.path.lexists(older)
    if not os.path.lexists(path):
        if has_older:  # never without the newest: somebody has moved, lost or not restored that
            raise StoreError(
                f"there is no checkpoint at {path}, but the one before it is {older}: move it here to go on "
                f"from there, or away to learn from the beginning"
            )
        return None
    try:
        state, manifest = tensors.read(path, key=tensors.signing_key(), trust_opaque=trust_pickle)
    except StoreError as error:
        hint = f"; the checkpoint before it is {older}: move it here to go on from there"
        raise StoreError(f"{error}{hint if has_older else ''}") from error
    written = manifest.get("format")
    if isinstance(written, int) and written > _FORMAT:
        raise StoreError(
            f"{path} has format {written}, written by Penstock {manifest.get('created_by')}: "
            f"this is Penstock {penstock.__version__}, which reads up to format {_FORMAT}; upgrade it"
        )
    position, extra = manifest.get("position"), manifest.get("extra")
    if not isinstance(written, int) or not isinstance(position, dict) or not isinstance(extra, dict):
        raise StoreError(f"{path} is not a checkpoint: expected a position in its manifest")
    if manifest.get("config_hash") != config_hash:
        files = f"it and {older.name}" if has_older else "the file"
        raise StoreError(
            f"{path} belongs to another configuration (hash {manifest.get('config_hash')}, "
            f"now {config_hash}): undo the change to go on from there, "
            f"or move {files} away to learn from the beginning"
        )
    return Checkpoint(state=state, position=position, extra=extra)


def _keep_previous(path: Path) -> None:
    """Give the file at `path` a second name; the first stays, so that there is a checkpoint throughout."""
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        tensors.replace(previous(path), [path.read_bytes()])
        return
    os.replace(link, previous(path))
    link.unlink(missing_ok=True)  # renaming one name of a file over another does nothing
