"""Files: one, many, or one that grows."""

from __future__ import annotations

import glob
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from annotated_types import Ge, Gt, MinLen

from penstock import codecs
from penstock.codecs import Codec, Fields, Format
from penstock.codecs.fields import FeatureType
from penstock.errors import ConfigError, DataError
from penstock.events import Task
from penstock.sources.ahead import read_ahead
from penstock.sources.base import Chunk, Position
from penstock.sources.heads import is_head
from penstock.sources.inject import injected
from penstock.sources.records import RecordFile
from penstock.sources.streams import ByteStream

if TYPE_CHECKING:
    from penstock.codecs.parquet import Parquet  # imports pyarrow, which only a Parquet file is worth

__all__ = ["FileSource"]

_GLOB_CHARACTERS: Final = frozenset("*?[")
_MIN_AHEAD: Final = 1024  # records of a chunk; less is not worth the passing from thread to thread


@dataclass(slots=True)
class _Place:
    """Where reading stands; a position is its JSON."""

    file: str
    offset: int = 0  # in bytes of the decompressed content; in a Parquet file, in rows
    record: int = 0  # lines (or records, or rows) of the file that lie before
    lap: int = 0
    event: int = 0  # records taken from all files in all laps, good and bad
    head: str = ""  # how the file begins; empty in positions of older versions

    def position(self) -> Position:
        return asdict(self)


class FileSource:
    r"""Reads feedback from files, in the order of their names and of their records.

    Parameters
    ----------
    task : Task
    path : str
        A file, or a pattern of files (``logs/**/*.jsonl.gz``), which are read in sorted order. Plain, gzip
        or zstd, as the first bytes say.
    format : "json", "csv", "parquet", "vw" or "msgpack", optional
        Where not given, the name tells it.
    label, weight, id, time, features, ignore, types, classes, require_label
        The roles of a record's fields; see `penstock.codecs.fields.Fields`.
    delimiter, missing, multiline, columns
        Of CSV; see `penstock.codecs.csv.CSV`. The delimiter of a ``.tsv`` is a tab.
    max_record_bytes : int
        A longer record is rejected, and its dead letter holds its beginning only.
    follow : bool
        Whether to wait for more at the end, as ``tail -f`` does; only complete lines are taken, and of a
        pattern, files that appear later and sort later are read next. A file must only grow.
    poll_s : float
        How long to wait before looking again, in seconds.
    limit : int, optional
        How many records to read, good and bad.
    repeat : int
        How many times to read the files.
    inject : mapping, optional
        A drift to put in; see `penstock.sources.inject.Injection`.

    Raises
    ------
    ConfigError
        If the options do not go together.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "clicks.csv")
    >>> _ = path.write_text("age,label\n31,1\n5,0\n")
    >>> source = FileSource(Task("binary"), str(path))
    >>> [chunk] = source.chunks(None, size=256)
    >>> chunk.batch.rows, chunk.batch.labels, chunk.position["record"]
    ([{'age': 31}, {'age': 5}], array([1., 0.]), 3)
    """

    def __init__(
        self,
        task: Task,
        path: str,
        *,
        format: Format | None = None,  # noqa: A002  (the option's name)
        label: str = "label",
        weight: str | None = None,
        id: str | None = None,  # noqa: A002  (the option's name)
        time: str | None = None,
        features: str | None = None,
        ignore: Sequence[str] = (),
        types: Mapping[str, FeatureType] | None = None,
        classes: Annotated[Sequence[str | int | bool], MinLen(2)] | None = None,
        require_label: bool = True,
        delimiter: str | None = None,
        missing: Sequence[str] | None = None,
        multiline: bool | None = None,
        columns: Sequence[str] | None = None,
        max_record_bytes: Annotated[int, Ge(1)] = 1 << 20,
        follow: bool = False,
        poll_s: Annotated[float, Gt(0)] = 0.5,
        limit: Annotated[int, Ge(1)] | None = None,
        repeat: Annotated[int, Ge(1)] = 1,
        inject: Mapping[str, Any] | None = None,
    ) -> None:
        if follow and repeat > 1:
            raise ConfigError("repeat: a followed file has no end to begin again from; leave out one of them")
        roles = Fields(
            task,
            label=label,
            weight=weight,
            id=id,
            time=time,
            features=features,
            ignore=ignore,
            types=types,
            classes=classes,
            require_label=require_label,
        )
        chosen = codecs.format_of(path) if format is None else format
        if delimiter is None and chosen == "csv" and codecs.suffix_of(path) == ".tsv":
            delimiter = "\t"
        self._is_table = chosen == "parquet"
        self._codec: Codec | Parquet = codecs.build(
            chosen, roles, delimiter=delimiter, missing=missing, multiline=multiline, columns=columns
        )
        self._nothing, _ = roles.decode([], [], where=str, raw=lambda _: b"", feedback=False)
        self._path = path
        self._max_record_bytes = max_record_bytes
        self._follow = follow
        self._poll_s = poll_s
        self._limit = limit
        self._repeat = repeat
        self._read = injected(self._chunks, inject, task)

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position`; see `penstock.sources.base.Source`.

        Large chunks of a file that does not grow are decoded ahead, in a thread of their own.
        """
        chunks = self._read(position, size)
        is_ahead = self._codec.is_native and not self._follow and size >= _MIN_AHEAD
        return read_ahead(chunks) if is_ahead else chunks

    def _chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        place = self._begin(position)
        while True:
            if self._is_table:
                yield from self._table_chunks(cast("Parquet", self._codec), place, size)
            else:
                yield from self._record_chunks(cast("Codec", self._codec), place, size)
            following = self._file_after(place.file)
            if self._room(place, size) == 0:
                return
            if following is not None:
                place = _Place(following, lap=place.lap, event=place.event)
            elif self._follow:
                yield Chunk(batch=self._nothing, rejected=(), position=place.position())
                clock.sleep(self._poll_s)
            elif place.event == 0:
                raise DataError(f"{self._path}: empty: there is no record in it")
            elif place.lap + 1 < self._repeat:
                place = _Place(self._files()[0], lap=place.lap + 1, event=place.event)
            else:
                return

    def _record_chunks(self, codec: Codec, place: _Place, size: int) -> Iterator[Chunk]:
        """Read the rest of a file of records, moving `place`."""
        file = RecordFile(
            place.file,
            codec,
            offset=place.offset,
            number=place.record,
            max_record_bytes=self._max_record_bytes,
            is_over=lambda stream: self._is_over(stream, place.file),
            head=place.head,
        )
        with file:
            while (room := self._room(place, size)) > 0:
                taken = file.take(room)
                if taken is None:
                    return
                n_records, (batch, rejected) = taken
                place.offset, place.record, place.head = file.offset, file.number, file.head
                place.event += n_records
                yield Chunk(batch=batch, rejected=rejected, position=place.position())
                if n_records == 0:
                    clock.sleep(self._poll_s)

    def _table_chunks(self, codec: Parquet, place: _Place, size: int) -> Iterator[Chunk]:
        """Read the rest of a Parquet file, moving `place`."""
        with codec.open(place.file) as table:
            n_rows = table.metadata.num_rows
            if n_rows < place.offset:
                raise DataError(
                    f"{place.file}: has {n_rows} rows, and the position is behind row {place.offset}"
                )
            place.head = _head_of_table(place)
            try:
                for rows in codec.read(table, place.offset):
                    yield from self._row_chunks(codec, rows, place, size)
            except DataError as error:
                raise DataError(f"{place.file}: {error} (behind row {place.record})") from None

    def _row_chunks(self, codec: Parquet, rows: Any, place: _Place, size: int) -> Iterator[Chunk]:
        taken = 0
        while taken < rows.num_rows and (room := self._room(place, size)) > 0:
            part = rows.slice(taken, room)
            batch, rejected = codec.decode(part, lambda i: f"{place.file}:{place.record + 1 + i}")
            taken += part.num_rows
            place.record = place.offset = place.record + part.num_rows
            place.event += part.num_rows
            yield Chunk(batch=batch, rejected=rejected, position=place.position())

    def _is_over(self, stream: ByteStream, file: str) -> bool:
        """Whether a file that ends here will not go on."""
        if not self._follow:
            return True
        stream.check_unchanged()
        return self._file_after(file) is not None

    def _begin(self, position: Position | None) -> _Place:
        files = self._files()
        if position is None:
            return _Place(files[0])
        try:
            place = _Place(**position)
        except TypeError:
            place = _Place("", offset=-1)
        numbers = [
            getattr(place, field.name) for field in fields(place) if field.name not in ("file", "head")
        ]
        if any(type(number) is not int or number < 0 for number in numbers) or not is_head(place.head):
            raise DataError(f"{self._path}: {dict(position)!r} is no position of a file source")
        if place.file not in files:
            raise DataError(f"{self._path}: the position is in {place.file!r}, which is not there")
        return place

    def _files(self) -> list[str]:
        path = Path(self._path)
        if path.is_file() or not _GLOB_CHARACTERS & set(self._path):
            return [self._path]
        files = sorted(name for name in glob.glob(self._path, recursive=True) if Path(name).is_file())
        if not files:
            raise DataError(f"{self._path}: no file matches")
        return files

    def _file_after(self, file: str) -> str | None:
        return next((name for name in self._files() if name > file), None)

    def _room(self, place: _Place, size: int) -> int:
        return size if self._limit is None else min(size, self._limit - place.event)


def _head_of_table(place: _Place) -> str:
    """Return how a table begins, which has to be as it was when the position was written."""
    try:
        with ByteStream(place.file, head=place.head) as stream:
            stream.read()
            return stream.head
    except DataError as error:
        raise DataError(f"{place.file}: {error}") from None
