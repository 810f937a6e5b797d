"""Why a version serves, or does not: every decision of the gate with its evidence, one a line.

A snapshot never changes, so what was decided about it later cannot stand in it. It stands here, beside the
snapshots, in ``verdicts.jsonl``, in the order of the stream.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict, cast

from penstock.errors import StoreError

__all__ = ["Verdict", "VerdictLog"]

_FILE: Final = "verdicts.jsonl"


class Verdict(TypedDict):
    """One decision, as in `penstock.notices.Notice`; versions and sequence are the store's."""

    run: int  # versions that the store held when the run began, which tells one run from the next
    event: int
    what: str
    how: str | None
    learner: str
    version: int | None
    parent: int | None
    fallback: int | None
    sequence: int | None
    text: str
    evidence: dict[str, Any]
    config_hash: str


class VerdictLog:
    """The verdicts beside the snapshots in a directory, written by one process at a time.

    A run that resumes from before its last verdicts comes to the same ones again: they are not written twice.

    Parameters
    ----------
    directory : path
        Made by the first `append`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._file = Path(directory) / _FILE
        self._newest: list[bytes] | None = None  # the lines of the last event; None until they were read

    def append(self, verdict: Verdict) -> None:
        """Write a verdict, unless it is there.

        Raises
        ------
        StoreError
            If the file cannot be written, or is damaged.
        """
        line = json.dumps(verdict, sort_keys=True).encode() + b"\n"
        try:
            if self._newest is None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._newest = self._last_lines()
            if self._newest:
                last = self._parse(self._newest[0], "its last line")
                if _stream(last) == _stream(verdict):
                    if verdict["event"] < last["event"] or line in self._newest:
                        return
                    if verdict["event"] > last["event"]:
                        self._newest = []
                else:
                    self._newest = []
            with open(self._file, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self._file}: {error.strerror}") from error
        self._newest.append(line)

    def read(self) -> list[Verdict]:
        """Return every verdict, oldest first; a last line that was torn by a crash is left out.

        Raises
        ------
        StoreError
            If the file cannot be read, or is damaged.
        """
        return [self._parse(line, f"line {number}") for number, line in enumerate(self._lines()[0], 1)]

    def _last_lines(self) -> list[bytes]:
        """Return the lines of the last event, and cut off what a crash has left behind them."""
        lines, intact = self._lines()
        if self._file.exists():
            os.truncate(self._file, intact)
        newest: list[bytes] = []
        for line in reversed(lines):
            if newest and not _same_place(self._parse(line, "a line"), self._parse(newest[0], "a line")):
                break
            newest.insert(0, line)
        return newest

    def _lines(self) -> tuple[list[bytes], int]:
        """Return the complete lines, and where they end."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise StoreError(f"cannot read {self._file}: {error.strerror}") from error
        intact = content.rfind(b"\n") + 1
        return content[:intact].splitlines(keepends=True), intact

    def _parse(self, line: bytes, where: str) -> Verdict:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or fields.keys() != Verdict.__annotations__.keys():
            raise StoreError(f"{self._file} is damaged: {where} is no verdict")
        return cast("Verdict", fields)


def _stream(verdict: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tell runs apart: within one, events only grow."""
    return verdict["run"], verdict["config_hash"]


def _same_place(one: Verdict, other: Verdict) -> bool:
    return _stream(one) == _stream(other) and one["event"] == other["event"]
