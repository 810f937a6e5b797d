"""What ``penstock snapshots`` prints and does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from penstock.errors import ConfigError, StoreError
from penstock.snapshots import SnapshotStore

__all__ = ["COMMANDS", "is_number"]

_MAX_DIGITS: Final = 18  # of a version


def is_number(version: str) -> bool:
    """Whether a version on the command line is a number, not the name of an alias."""
    return version.isdecimal() and len(version) <= _MAX_DIGITS


def _number(store: SnapshotStore, version: str | None) -> int:
    """Version that a number or an alias on the command line means; what serves, if nothing is given."""
    if version is not None and is_number(version):
        return int(version)
    return store.alias(version or "serving").version


def ls(path: Path, version: str | None, as_json: bool) -> int:
    """List every version, newest last, with what points to it."""
    store = SnapshotStore(path)
    manifests = [store.manifest(number) for number in store.versions()]
    aliases = {name: alias.version for name, alias in store.aliases().items()}
    if as_json:
        print(json.dumps({"aliases": aliases, "snapshots": manifests}))
        return 0
    print(f"{'version':>7}  {'learner':<14} {'for':<8} {'learned until':>13}  {'parent':>6}  points here")
    for manifest in manifests:
        pointing = [name for name, number in aliases.items() if number == manifest["version"]]
        parent = manifest["parent"]
        print(
            f"{manifest['version']:>7}  {manifest['learner']:<14} {manifest['promoted_as'] or '-':<8}"
            f" {manifest['last_event']:>13,}  {parent or '-':>6}  {', '.join(pointing)}"
        )
    return 0


def show(path: Path, version: str | None, as_json: bool) -> int:
    """Print the whole manifest of one version."""
    store = SnapshotStore(path)
    manifest = store.manifest(_number(store, version))
    if as_json:
        print(json.dumps(manifest))
        return 0
    for key, value in manifest.items():
        if isinstance(value, Mapping):
            print(f"{key}:")
            for inner, number in value.items():
                print(f"  {inner}: {_shown(number)}")
        else:
            print(f"{key}: {_shown(value)}")
    return 0


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def promote(path: Path, version: str | None, as_json: bool) -> int:
    """Let one version serve, by hand."""
    if version is None:
        raise ConfigError("`snapshots promote` needs the version that is to serve")
    store = SnapshotStore(path)
    number = _number(store, version)
    store.set_alias("serving", number)
    print(json.dumps({"serving": number}) if as_json else f"version {number} serves")
    return 0


def rollback(path: Path, version: str | None, as_json: bool) -> int:
    """Let the version before the serving one serve again, or the one that is named."""
    store = SnapshotStore(path)
    number = store.rollback(_number(store, version) if version is not None else None)
    said = f"rolled back: version {number} serves, and is held until `penstock snapshots release {path}`"
    print(json.dumps({"serving": number}) if as_json else said)
    return 0


def hold(path: Path, version: str | None, as_json: bool) -> int:
    """Let what serves stay, whatever is promoted."""
    if version is not None:
        raise ConfigError("`snapshots hold` takes no version: what serves is held; `promote` one before")
    number = SnapshotStore(path).hold()
    said = f"held: version {number} serves until `penstock snapshots release {path}`"
    print(json.dumps({"serving": number}) if as_json else said)
    return 0


def release(path: Path, version: str | None, as_json: bool) -> int:
    """End a hold: the last promotion serves."""
    if version is not None:
        raise ConfigError("`snapshots release` takes no version: the last one that was promoted serves")
    number = SnapshotStore(path).release()
    print(json.dumps({"serving": number}) if as_json else f"released: version {number} serves")
    return 0


def verify(path: Path, version: str | None, as_json: bool) -> int:
    """Read everything and check its hashes; exit code 4 if something is wrong."""
    store = SnapshotStore(path)
    problems = store.verify(int(version) if version is not None else None)
    if as_json:
        print(json.dumps({"problems": problems}))
    else:
        checked = 1 if version is not None else len(store.versions())
        print("\n".join(problems) if problems else f"{checked} snapshots verified")
    return StoreError.exit_code if problems else 0


COMMANDS: Final[Mapping[str, Callable[[Path, str | None, bool], int]]] = {
    "ls": ls,
    "show": show,
    "promote": promote,
    "rollback": rollback,
    "hold": hold,
    "release": release,
    "verify": verify,
}
