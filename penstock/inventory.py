"""What ``penstock snapshots`` prints and does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from penstock.errors import ConfigError, StoreError
from penstock.snapshots import Move, SnapshotStore
from penstock.verdicts import Verdict, VerdictLog

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
    """Print the whole manifest of one version, and what was decided about it."""
    store = SnapshotStore(path)
    manifest = store.manifest(_number(store, version))
    verdicts = [found for found in VerdictLog(path).read() if found["version"] == manifest["version"]]
    if as_json:
        print(json.dumps({**manifest, "verdicts": verdicts}))
        return 0
    _print_mapping(manifest, "")
    for verdict in verdicts:
        print(f"event {verdict['event']:,}: {verdict['what']}: {verdict['text']}")
        told = {key: value for key, value in verdict.items() if key in ("fallback", "config_hash") and value}
        _print_mapping({**verdict["evidence"], **told}, "  ")
    return 0


def _print_mapping(values: Mapping[str, Any], indent: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{key}:")
            _print_mapping(value, f"{indent}  ")
        else:
            print(f"{indent}{key}: {_shown(value)}")


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def log(path: Path, version: str | None, as_json: bool) -> int:
    """Print every decision of the gate, on one version or all, and what somebody moved by hand."""
    store = SnapshotStore(path)
    number = None if version is None else _number(store, version)
    store.versions()  # says so if there is no such store
    verdicts = [found for found in VerdictLog(path).read() if number in (None, found["version"])]
    by_hand = [
        move
        for move in store.history()
        if move.alias in ("serving", "held")
        and number in (None, move.version)
        and (move.alias == "held" or not _decided(verdicts, move))
    ]
    if as_json:
        print(json.dumps({"verdicts": verdicts, "by_hand": [asdict(move) for move in by_hand]}))
        return 0
    for verdict in verdicts:
        print(f"{verdict['event']:>12,}  {verdict['what']:<11}  {verdict['text']}")
    for move in by_hand:
        whither = f"v{move.version}" if move.version else "nowhere"
        whence = f"v{move.previous}" if move.previous else "nowhere"
        print(f"{'by hand':>12}  {move.how:<11}  {move.alias}: from {whence} to {whither}")
    return 0


def _decided(verdicts: Sequence[Verdict], move: Move) -> bool:
    """Whether a move is what the gate has decided, and not what somebody did by hand."""
    return any(
        verdict["sequence"] == move.sequence and verdict["version"] == move.version for verdict in verdicts
    )


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
    "log": log,
    "promote": promote,
    "rollback": rollback,
    "hold": hold,
    "release": release,
    "verify": verify,
}
