"""A snapshot directory as records of a compacted topic, and what has to be sent to bring a topic up to date.

=================== =========================================================================
key                 value
=================== =========================================================================
``log``             JSON ``{"id"}``: tells this log from another one of the same name
``version/7/0``     bytes 0 to 900,000 of version 7's file, ``version/7/1`` the next, …
``version/7``       JSON: hash of the file, size and SHA-256 of each part; sent after the parts
``alias/serving``   JSON ``{"sequence", "version"}``; sent after the version that it names
=================== =========================================================================

An empty value takes a record back. Nothing here talks to Kafka. Everything is in one partition, the first,
for the order of the records says what is news; but a reader relies on no order to tell whether a version is
complete, so that a writer may die between any two records, and the next one sends all of a version again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from penstock.errors import BadRecord, StoreError
from penstock.snapshots import Alias, SnapshotStore

__all__ = [
    "PARTITION",
    "PART_BYTES",
    "SERVING",
    "AliasRecord",
    "Change",
    "Contents",
    "Held",
    "LogRecord",
    "Part",
    "PartRecord",
    "Record",
    "VersionRecord",
    "changes",
    "decode",
    "described",
    "outruns",
]

PARTITION: Final = 0
PART_BYTES: Final = 900_000  # brokers and clients take records of 1 MB, headers and key included
SERVING: Final = "serving"

_log = logging.getLogger("penstock.kafka")
_KEY: Final = re.compile(
    rb"log|version/([1-9][0-9]{0,17})(?:/(0|[1-9][0-9]{0,5}))?|alias/([a-z][a-z0-9_-]{0,63})"
)
_FORMAT: Final = 1
_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Part:
    """What a part has to be."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Part:
        """Describe `data`."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Contents:
    """What a version consists of: the hash in its file, and its parts in order."""

    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Which log this is."""

    id: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part of a version, or None: it is gone."""

    version: int
    part: int
    data: bytes | Part | None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """All parts of a version have been sent; or None: the version is pruned."""

    version: int
    contents: Contents | None


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """What an alias stands for, or None: it is dropped."""

    name: str
    alias: Alias | None


Record: TypeAlias = "LogRecord | PartRecord | VersionRecord | AliasRecord"
Pair: TypeAlias = "tuple[bytes, bytes | None]"


def decode(key: bytes | None, value: bytes | None) -> Record:
    """Say what a record of the topic means.

    Raises
    ------
    BadRecord
        If it is none of ours.

    Examples
    --------
    >>> decode(b"alias/serving", b'{"sequence": 3, "version": 7}')
    AliasRecord(name='serving', alias=Alias(version=7, sequence=3))
    >>> decode(b"version/7", None)
    VersionRecord(version=7, contents=None)
    """
    match = _KEY.fullmatch(key or b"")
    if match is None:
        raise BadRecord("a key of a snapshot log", key, path="$.key")
    version, part, alias = match.groups()
    if part is not None:
        return PartRecord(int(version), int(part), value or None)
    if alias is not None:
        return AliasRecord(alias.decode(), _alias(_fields(value)) if value else None)
    if version is not None:
        return VersionRecord(int(version), _contents(_fields(value)) if value else None)
    fields = _fields(value or b"")
    if not isinstance(fields.get("id"), str):
        raise BadRecord("the text of an id", fields.get("id"), path="$.id")
    return LogRecord(fields["id"])


def described(record: Record) -> Record:
    """Return the record with what its data is in the place of the data, which need not be kept."""
    if isinstance(record, PartRecord) and isinstance(record.data, bytes):
        return replace(record, data=Part.of(record.data))
    return record


def _fields(value: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise BadRecord("a JSON object", value)
    return fields


def _alias(fields: Mapping[str, Any]) -> Alias:
    version, sequence = fields.get("version"), fields.get("sequence")
    if type(version) is not int or version < 1:
        raise BadRecord("a version from 1", version, path="$.version")
    if sequence is not None and type(sequence) is not int:
        raise BadRecord("an integer or null", sequence, path="$.sequence")
    return Alias(version, sequence)


def _contents(fields: Mapping[str, Any]) -> Contents:
    if fields.get("format") != _FORMAT:
        raise BadRecord(f"format {_FORMAT}", fields.get("format"), path="$.format")
    sha256, parts = fields.get("sha256"), fields.get("parts")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadRecord("a SHA-256 in hex", sha256, path="$.sha256")
    if not isinstance(parts, list) or not parts:
        raise BadRecord("a list of parts", parts, path="$.parts")
    for i, part in enumerate(parts):
        match part:
            case [size, str() as digest] if type(size) is int and size > 0 and _SHA256.fullmatch(digest):
                pass
            case _:
                raise BadRecord("a size and a SHA-256 in hex", part, path=f"$.parts[{i}]")
    return Contents(sha256, tuple(Part(size, digest) for size, digest in parts))


@dataclass(slots=True)
class HeldVersion:
    """What a log holds of one version."""

    parts: dict[int, Part] = field(default_factory=dict)
    contents: Contents | None = None

    @property
    def complete(self) -> bool:
        """Whether every part is there and is what it has to be."""
        return self.contents is not None and all(
            self.parts.get(i) == part for i, part in enumerate(self.contents.parts)
        )


@dataclass(slots=True)
class Held:
    """What a log holds: the last record of each key."""

    id: str | None = None
    versions: dict[int, HeldVersion] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    agreed: set[int] = field(default_factory=set)  # versions that were compared with the directory's

    def take(self, record: Record) -> None:
        """Add the next record."""
        match record:
            case LogRecord():
                self.id = record.id
            case AliasRecord(alias=None):
                self.aliases.pop(record.name, None)
            case AliasRecord(alias=alias) if alias is not None:
                self.aliases[record.name] = alias
            case VersionRecord():
                self.versions.setdefault(record.version, HeldVersion()).contents = record.contents
                self._forget(record.version)
            case PartRecord():
                parts = self.versions.setdefault(record.version, HeldVersion()).parts
                if record.data is None:
                    parts.pop(record.part, None)
                else:
                    parts[record.part] = (
                        record.data if isinstance(record.data, Part) else Part.of(record.data)
                    )
                self._forget(record.version)

    def _forget(self, version: int) -> None:
        held = self.versions[version]
        if not held.parts and held.contents is None:
            del self.versions[version]


@dataclass(frozen=True, slots=True)
class Change:
    """Records that belong together, in order: nothing is news before the last of them."""

    what: str
    records: Callable[[], Iterator[Pair]]


def changes(store: SnapshotStore, held: Held) -> Iterator[Change]:
    """Say what a log that holds `held` lacks to hold what is in `store`.

    What serves comes first, then the aliases, then what is there to roll back to; then what has been pruned
    is taken back. An alias is never moved to an older promotion than the log has seen, and versions above
    those of the directory are left alone: a directory that was restored from a backup is going to make them
    again. Neither is ``serving`` ever dropped, nor anything that the log's aliases name.

    Parameters
    ----------
    store : SnapshotStore
    held : Held
        To be kept up to date by the caller, with the records that arrived, while this runs.

    Raises
    ------
    StoreError
        If the log holds another content for a version, so that it is the log of another directory.
    """
    if not store.path.is_dir():
        return
    aliases = store.aliases()  # before the versions: what they name is there
    versions = store.versions()
    if not versions:
        return
    if held.id is None:
        yield Change("the log's id", lambda: iter([(b"log", _line({"id": secrets.token_hex(8)}))]))
    named = {alias.version for alias in aliases.values()}
    for version in filter(named.__contains__, versions):
        yield from _missing(store, version, held)
    for name, alias in aliases.items():
        there = held.aliases.get(name)
        if alias == there:
            continue
        if outruns(there, alias):
            _log.debug("%s: %s is older than what the log has seen", store.path, name)
        elif alias.version in held.versions and held.versions[alias.version].complete:
            yield _one(
                f"alias {name}",
                f"alias/{name}",
                _line({"sequence": alias.sequence, "version": alias.version}),
            )
    for version in versions:
        yield from _missing(store, version, held)
    for name in sorted(held.aliases.keys() - aliases.keys() - {SERVING}):
        yield _one(f"no alias {name}", f"alias/{name}", None)
    needed = {alias.version for alias in held.aliases.values()}.union(versions)
    for version in sorted(held.versions.keys() - needed):
        if version < versions[-1]:
            yield Change(f"no version {version}", functools.partial(_taken_back, version, held))


def outruns(there: Alias | None, alias: Alias) -> bool:
    """Whether what an alias stands for is a newer promotion than `alias`."""
    return (
        there is not None
        and there.sequence is not None
        and alias.sequence is not None
        and alias.sequence < there.sequence
    )


def _missing(store: SnapshotStore, version: int, held: Held) -> Iterator[Change]:
    """Give a version if the log does not have all of it."""
    if version in held.agreed:
        return
    there = held.versions.get(version)
    if there is not None and there.contents is not None:
        try:
            sha256 = store.manifest(version)["sha256"]
        except StoreError:
            if not store.file(version).exists():
                return  # pruned meanwhile
            raise
        if there.contents.sha256 != sha256:
            raise StoreError(
                f"version {version} of {store.path} is in the topic with other content: a snapshot never "
                f"changes, so another run needs another topic"
            )
        if there.complete:
            held.agreed.add(version)
            return
    yield Change(f"version {version}", functools.partial(_sent, store, version))


def _sent(store: SnapshotStore, version: int) -> Iterator[Pair]:
    """Read a version's file, part by part; nothing if it was pruned meanwhile."""
    file = store.file(version)
    try:
        with open(file, "rb") as content:
            if problems := store.verify(version):
                raise StoreError(problems[0])  # noqa: TRY301
            parts: list[Part] = []
            while data := content.read(PART_BYTES):
                yield f"version/{version}/{len(parts)}".encode(), data
                parts.append(Part.of(data))
            contents = {
                "format": _FORMAT,
                "sha256": store.manifest(version)["sha256"],
                "parts": [[part.size, part.sha256] for part in parts],
            }
            yield f"version/{version}".encode(), _line(contents)
    except OSError as error:
        if file.exists():
            raise StoreError(f"cannot read {file}: {error.strerror}") from error
    except StoreError:
        if file.exists():
            raise


def _taken_back(version: int, held: Held) -> Iterator[Pair]:
    """Take the version back before its parts: readers never have half of one that counts."""
    yield f"version/{version}".encode(), None
    for part in sorted(held.versions[version].parts if version in held.versions else ()):
        yield f"version/{version}/{part}".encode(), None


def _one(what: str, key: str, value: bytes | None) -> Change:
    return Change(what, lambda: iter([(key.encode(), value)]))


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()
