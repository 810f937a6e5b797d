"""Immutable, numbered models in a directory, and the aliases that say which of them serves.

::

    00000001.safetensors   a snapshot: the model's state and a `Manifest` (see `penstock.tensors`)
    serving.json           an alias: {"sequence": 3, "version": 1}, replaced atomically
    history.jsonl          every move of an alias, one a line, in order

A snapshot never changes once it is there, so a reader needs no lock: it reads an alias, then the file
that it names. Writers take turns (a lock on ``.lock``). Nothing here depends on a clock, so replaying a
log writes the same files again, and finds them already there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from numpy.typing import NDArray

from penstock import tensors
from penstock.bandits import FrozenPolicy, load_policy
from penstock.errors import DataError, PenstockError, StoreError, UntrustedState
from penstock.learners import Model, load_model
from penstock.manifests import Manifest, comparable, completed, file_name, manifest_of
from penstock.state import Opaque, Scalar, State, digest

__all__ = ["Alias", "Manifest", "Move", "SnapshotStore"]

_SNAPSHOT: Final = re.compile(r"(\d{8,})\.safetensors")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TAIL_BYTES: Final = 4096  # of the history: more than two of its lines
_ATTEMPTS: Final = 8  # of a reader whose snapshot is pruned between the alias and the file

How: TypeAlias = Literal["set", "promote", "rollback", "drop"]


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version.

    Attributes
    ----------
    version : int
    sequence : int or None
        Number of the last promotion that moved it; a promotion that is not newer is a repetition.
    """

    version: int
    sequence: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One line of the history: `alias` went from version `previous` to `version`, None being nowhere."""

    alias: str
    how: How
    version: int | None
    previous: int | None
    sequence: int | None


class SnapshotStore:
    """The snapshots of one pipeline.

    Parameters
    ----------
    path : path
        The directory; made by the first `put`.
    trust_pickle : bool
        Load snapshots that hold a pickle even if it is not signed with the key in ``PENSTOCK_KEY``. A
        pickle can run any code: only for a directory that nobody else can write to.

    Notes
    -----
    A snapshot of a learner from outside Penstock names its ``module:Class``, which is imported to load it.

    Every method raises `StoreError` if the directory or a file in it cannot be used, and names it.
    """

    def __init__(self, path: str | os.PathLike[str], *, trust_pickle: bool = False) -> None:
        self._path = Path(path)
        self._trust_pickle = trust_pickle

    def __repr__(self) -> str:
        return f"SnapshotStore({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def file(self, version: int) -> Path:
        """Where a version is kept, whether it is there or not."""
        return self._path / file_name(version)

    def put(self, state: Mapping[str, NDArray[Any] | Scalar | Opaque], manifest: Mapping[str, Any]) -> int:
        """Store a frozen model, and return its version. No alias moves.

        Putting a version again that is there with the same content does nothing, so that a run that
        resumes from before the `put` may repeat it.

        Parameters
        ----------
        state : State
            From `Model.state`.
        manifest : mapping
            The fields of `Manifest`; at least `kind` and `task`.

        Raises
        ------
        StoreError
            If the version is there with other content, or the manifest is not one.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {self._path}: {error.strerror}") from error
        with self._writing():
            there = self.versions()
            complete = completed(manifest, next_version=max(there, default=0) + 1)
            version: int = complete["version"]
            file = self.file(version)
            if version in there:
                _require_same(file, state, complete)
            else:
                tensors.write(file, state, complete, key=tensors.signing_key())
        return version

    def adopt(self, version: int, parts: Iterable[bytes]) -> None:
        """Take in a snapshot as another store holds it, byte for byte. No alias moves.

        It is there once all of it has been verified, and not before.

        Parameters
        ----------
        version : int
        parts : iterable of bytes
            Its file, cut anywhere.

        Raises
        ------
        DataError
            If the bytes are not the file of that version.
        StoreError
            If the version is there with other content.
        """
        file, incoming = self.file(version), self._path / ".incoming"
        with self._writing():
            tensors.replace(incoming, parts)
            try:
                try:
                    fields = manifest_of(tensors.read(incoming, mmap=True)[1], file)
                except StoreError as error:
                    raise DataError(f"{file}: what came for it cannot be used: {error}") from None
                if not file.exists():
                    os.replace(incoming, file)
                elif tensors.read_manifest(file)["sha256"] != fields["sha256"]:
                    raise _other_content(file)
            except OSError as error:
                raise StoreError(f"cannot write {file}: {error.strerror}") from error
            finally:
                incoming.unlink(missing_ok=True)

    def remove(self, version: int) -> bool:
        """Remove a version, unless an alias names it; return whether it is gone."""
        with self._writing():
            if any(alias.version == version for alias in self.aliases().values()):
                return False
            self._remove(version)
        return True

    def versions(self) -> list[int]:
        """All versions, in ascending order."""
        return sorted(int(match[1]) for match in map(_SNAPSHOT.fullmatch, self._names()) if match)

    def manifest(self, which: int | str) -> Manifest:
        """Read the manifest of a version, or of what an alias names; the file's hash is not verified."""
        version = self._named(which)
        self._require(version, which)
        file = self.file(version)
        return manifest_of(tensors.read_manifest(file), file)

    def load(
        self, which: int | str = "serving", *, mmap: bool = True
    ) -> tuple[Model | FrozenPolicy, Manifest]:
        """Read and verify a snapshot and rebuild its model or, for the task ``bandit``, its policy.

        Parameters
        ----------
        which : int or str
            A version or an alias.
        mmap : bool
            Map the arrays instead of copying them: processes that serve the same snapshot share memory.

        Raises
        ------
        UntrustedState
            If it holds a pickle that nothing vouches for.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            version = self._named(which)
            try:
                self._require(version, which)
                return self._load(version, mmap=mmap)
            except StoreError:
                # Pruned since the alias was read? Then the alias has moved.
                if self._named(which) == version or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def alias(self, name: str) -> Alias:
        """Return what an alias stands for."""
        alias = self.peek(name)
        if alias is None:
            self._names()  # says so if the directory is missing
            known = ", ".join(self.aliases()) or "none"
            raise StoreError(f"{self._path} has no alias {name!r}: there are {known}")
        return alias

    def peek(self, name: str) -> Alias | None:
        """Return what an alias stands for, or None if it, or the whole store, is not there yet."""
        file = self._alias_file(name)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(file, error) from error
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not _is_alias(fields):
            raise StoreError(f'{file} is damaged: expected {{"sequence": number or null, "version": number}}')
        return Alias(fields["version"], fields["sequence"])

    def aliases(self) -> dict[str, Alias]:
        """Every alias, by name."""
        names = (Path(name).stem for name in self._names() if name.endswith(".json"))
        found = {name: self.peek(name) for name in sorted(names) if _ALIAS.fullmatch(name)}
        return {name: alias for name, alias in found.items() if alias is not None}

    def set_alias(self, name: str, version: int, sequence: int | None = None) -> None:
        """Move an alias to `version`; without a `sequence` it keeps the one it has."""
        with self._writing():
            current = self.peek(name)
            if sequence is None and current is not None:
                sequence = current.sequence
            self._move(name, current, Alias(version, sequence), "set")

    def drop_alias(self, name: str) -> None:
        """Remove an alias, if it is there; what it names stays."""
        with self._writing():
            self._drop(name)

    def promote(
        self,
        version: int,
        sequence: int,
        how: Literal["promote", "rollback"] = "promote",
        fallback: int | None = None,
    ) -> bool:
        """Let `version` serve, unless promotion `sequence` has been made before, or the store is held.

        Parameters
        ----------
        version : int
        sequence : int
            Counts the promotions of a run. One that is not above the recorded one is a repetition, after
            a crash, of something that is history, and moves nothing.
        how : "promote" or "rollback"
            What the history says.
        fallback : int or None
            What would serve again if `version` were taken back: the alias ``fallback`` keeps it from being
            pruned, if it is there. None: there is no such thing.

        Returns
        -------
        bool
            Whether the alias ``serving`` moved.
        """
        with self._writing():
            if sequence <= self.last_sequence():
                return False  # nor does the fallback of then mean anything now: it may be pruned
            name = "serving" if self.peek("held") is None else "pending"
            kept = fallback is not None and self.file(fallback).exists()
            if fallback is not None and kept:
                self._move("fallback", self.peek("fallback"), Alias(fallback, None), "set")
            self._move(name, self.peek(name), Alias(version, sequence), how)
            if not kept:
                self._drop("fallback")
        return name == "serving"

    def last_sequence(self) -> int:
        """Return the number of the last promotion, whether it serves or is held back; 0 before the first."""
        aliases = (self.peek("serving"), self.peek("pending"))
        return max((alias.sequence or 0 for alias in aliases if alias is not None), default=0)

    def hold(self) -> int:
        """Let what serves stay, whatever is promoted, until `release`; return its version."""
        with self._writing():
            serving = self.alias("serving")
            self._move("held", self.peek("held"), Alias(serving.version, None), "set")
        return serving.version

    def release(self) -> int:
        """End a `hold`; the last promotion that was held back, if there was one, serves now.

        Returns
        -------
        int
            The version that serves.

        Raises
        ------
        StoreError
            If there is no hold.
        """
        with self._writing():
            if self.peek("held") is None:
                raise StoreError(f"{self._path} is not held")
            pending, serving = self.peek("pending"), self.alias("serving")
            if pending is not None:
                self._move("serving", serving, pending, "promote")
                serving = pending
            self._drop("pending")
            self._drop("held")
        return serving.version

    def rollback(self, to: int | None = None) -> int:
        """Let the parent of what serves, or version `to`, serve again, and stay; return its version.

        What serves is held from then on: the next promotion would undo it. `release` ends that.
        """
        with self._writing():
            current = self.alias("serving")
            if to is None:
                to = self.manifest(current.version)["parent"]
            if to is None:
                raise StoreError(
                    f"{self._path}: version {current.version} serves and has no parent to go back to; "
                    f"say which version is to serve"
                )
            # Held first: if this is cut short in between, no promotion undoes what was asked for.
            self._move("held", self.peek("held"), Alias(to, None), "set")
            self._move("serving", current, Alias(to, current.sequence), "rollback")
        return to

    def history(self) -> list[Move]:
        """Every move of an alias, oldest first. A last line that was torn by a crash is left out."""
        lines, _ = self._history_lines()
        return [self._parse_move(line, number) for number, line in enumerate(lines, 1)]

    def verify(self, version: int | None = None) -> list[str]:
        """Read every byte of one snapshot, or of the whole store; return what is wrong, one line each.

        No model is built and nothing is unpickled.
        """
        problems = []
        if version is not None:
            self._require(version, version)
        for each in self.versions() if version is None else [version]:
            file = self.file(each)
            try:
                manifest_of(tensors.read(file, mmap=True)[1], file)
            except StoreError as error:
                problems.append(str(error))
        if version is None:
            try:
                problems += [
                    f"{self._alias_file(name)} names version {alias.version}, which is not there"
                    for name, alias in self.aliases().items()
                    if not self.file(alias.version).exists()
                ]
            except StoreError as error:
                problems.append(str(error))
            try:
                self.history()
            except StoreError as error:
                problems.append(str(error))
        return problems

    def prune(self, keep: int, spare: Iterable[int] = ()) -> list[int]:
        """Remove all but the newest `keep` versions; return what was removed.

        What an alias names stays, and its parent, so that `rollback` works; and so do the versions `spare`.
        """
        if keep < 1:
            raise StoreError(f"cannot prune {self._path} to {keep} snapshots: at least 1 has to stay")
        with self._writing():
            versions = self.versions()
            needed = {*versions[-keep:], *spare}
            for alias in self.aliases().values():
                needed.add(alias.version)
                if alias.version in versions:
                    needed.add(self.manifest(alias.version)["parent"] or alias.version)
            removed = [version for version in versions if version not in needed]
            for version in removed:
                self._remove(version)
        return removed

    def _remove(self, version: int) -> None:
        file = self.file(version)
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {file}: {error.strerror}") from error

    def _load(self, version: int, *, mmap: bool) -> tuple[Model | FrozenPolicy, Manifest]:
        file = self.file(version)
        state, fields = tensors.read(
            file, key=tensors.signing_key(), trust_opaque=self._trust_pickle, mmap=mmap
        )
        manifest = manifest_of(fields, file)
        try:
            load = load_policy if manifest["task"] == "bandit" else load_model
            return load(manifest["kind"], state), manifest
        except UntrustedState as error:
            raise UntrustedState(f"{file}: {error}") from error
        except PenstockError as error:
            raise StoreError(f"{file}: {error}") from error
        except Exception as error:  # anyone's class may load it, and a pickle may raise anything
            raise StoreError(
                f"{file}: {manifest['kind']!r} cannot load it: {type(error).__name__}: {error}"
            ) from error

    def _alias_file(self, name: str) -> Path:
        if not _ALIAS.fullmatch(name):
            raise StoreError(
                f"expected an alias of a-z, 0-9, _ and - that starts with a letter, got {name!r}"
            )
        return self._path / f"{name}.json"

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._path)
        except OSError as error:
            raise StoreError(f"no snapshots at {self._path}: {error.strerror}") from error

    def _named(self, which: int | str) -> int:
        return self.alias(which).version if isinstance(which, str) else which

    def _require(self, version: int, which: int | str) -> None:
        """Raise if `version`, asked for as `which`, is not there."""
        if not self.file(version).exists():
            versions = self.versions()
            known = f"{versions[0]} to {versions[-1]}, {len(versions)} in all" if versions else "none"
            named = f", which alias {which!r} names" if isinstance(which, str) else ""
            raise StoreError(f"{self._path} has no version {version}{named}: there are {known}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers, in this process or another, out."""
        self._names()  # says so if the directory is missing
        try:
            lock = open(self._path / ".lock", "ab")  # noqa: SIM115 - closed below
        except OSError as error:
            raise StoreError(f"cannot write to {self._path}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _move(self, name: str, current: Alias | None, alias: Alias, how: How) -> None:
        self._require(alias.version, alias.version)
        if alias == current:
            return
        # The history first: a crash in between repeats the move, and the line is there already.
        self._record(name, current, alias, how)
        fields = {"sequence": alias.sequence, "version": alias.version}
        tensors.replace(self._alias_file(name), [_line(fields)])

    def _drop(self, name: str) -> None:
        current = self.peek(name)
        if current is None:
            return
        self._record(name, current, None, "drop")
        file = self._alias_file(name)
        try:
            file.unlink()
        except OSError as error:
            raise StoreError(f"cannot remove {file}: {error.strerror}") from error

    def _record(self, name: str, current: Alias | None, alias: Alias | None, how: How) -> None:
        """Append a line to the history, unless it is the last one already."""
        move = {
            "alias": name,
            "how": how,
            "previous": None if current is None else current.version,
            "sequence": None if alias is None else alias.sequence,
            "version": None if alias is None else alias.version,
        }
        last, intact = self._last_line()
        line = _line(move)
        if last == line:
            return
        file = self._path / "history.jsonl"
        try:
            with open(file, "ab") as history:
                history.truncate(intact)
                history.write(line)
                history.flush()
                os.fsync(history.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error.strerror}") from error

    def _last_line(self) -> tuple[bytes, int]:
        """Return the last complete line of the history, and where it ends; without reading years of it."""
        file = self._path / "history.jsonl"
        try:
            with open(file, "rb") as history:
                size = history.seek(0, os.SEEK_END)
                start = history.seek(max(size - _TAIL_BYTES, 0))
                tail = history.read()
        except FileNotFoundError:
            return b"", 0
        except OSError as error:
            raise _unreadable(file, error) from error
        end = tail.rfind(b"\n") + 1
        if not end and start:
            raise StoreError(f"{file} is damaged: its last line has more than {_TAIL_BYTES} bytes")
        return tail[tail.rfind(b"\n", 0, end - 1) + 1 : end] if end else b"", start + end

    def _history_lines(self) -> tuple[list[bytes], int]:
        """Return the complete lines of the history, and where they end."""
        try:
            content = (self._path / "history.jsonl").read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise _unreadable(self._path / "history.jsonl", error) from error
        intact = content.rfind(b"\n") + 1
        return content[:intact].splitlines(), intact

    def _parse_move(self, line: bytes, number: int) -> Move:
        try:
            return Move(**json.loads(line))
        except (TypeError, ValueError, RecursionError) as error:
            raise StoreError(f"{self._path / 'history.jsonl'}:{number} is damaged: {error}") from None


def _require_same(
    file: Path, state: Mapping[str, NDArray[Any] | Scalar | Opaque], manifest: Mapping[str, Any]
) -> None:
    """Refuse to overwrite: what is in `file` has to say the same as `state` and `manifest`.

    Compared by content, not by bytes: two pickles of one model differ, and so does the version of
    Penstock after an upgrade.
    """
    stored: State
    stored, fields = tensors.read(file, mmap=True)
    if digest(stored) != digest(state) or comparable(fields) != comparable(manifest):
        raise _other_content(file)


def _other_content(file: Path) -> StoreError:
    return StoreError(
        f"{file} is there with other content: a snapshot never changes, "
        f"so another run needs another directory"
    )


def _is_alias(fields: dict[str, Any]) -> bool:
    version, sequence = fields.get("version"), fields.get("sequence")
    return (
        fields.keys() == {"sequence", "version"}
        and type(version) is int
        and version >= 1
        and (sequence is None or type(sequence) is int)
    )


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


def _unreadable(file: Path, error: Exception) -> StoreError:
    return StoreError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}")
