"""Whatever a file holds: batches, dead letters or one DataError, and nothing else."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.codecs import CODECS
from penstock.errors import DataError
from penstock.events import Task
from penstock.sources.file import FileSource

BINARY = Task("binary")
SETTINGS = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def parquet():
    sink = pa.BufferOutputStream()
    columns = {
        "a": [1.5, None, 3.0] * 20,
        "s": ["x", "yy", None] * 20,
        "n": [{"b": 1}] * 60,
        "label": [0, 1, 1] * 20,
    }
    pq.write_table(pa.table(columns), sink, row_group_size=25)
    return sink.getvalue().to_pybytes()


WHOLE = {
    "json": b'{"a": 1, "label": 1}\n' * 20,
    "csv": b"a,s,label\n" + b'1,"x",1\n' * 20,
    "vw": b"1 2 'tag|f a:1 b\n" * 20,
    "msgpack": b"\x82\xa1a\x01\xa5label\x01" * 20,
    "parquet": parquet(),
}


def read(path, name, **options):
    """Return the numbers of events and rejections; None for the latter if it ended in a DataError."""
    source = FileSource(BINARY, str(path), format=name, max_record_bytes=64, **options)
    events = rejected = 0
    last = None
    try:
        for chunk in source.chunks(None, 7):
            events += len(chunk.batch)
            rejected += len(chunk.rejected)
            assert len(chunk.batch) + len(chunk.rejected) <= 7
            assert chunk.position["event"] == events + rejected
            assert last is None or chunk.position["offset"] > last
            last = chunk.position["offset"]
    except DataError as error:
        return events, describe(error, path)
    return events, rejected


def describe(error, path):
    """A DataError is one line that names the file; it has no number of rejections."""
    assert str(error).startswith(str(path))
    assert "\n" not in str(error)


def damage(draw, data):
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@pytest.mark.parametrize("name", sorted(CODECS))
@given(data=st.binary(max_size=200))
@SETTINGS
def test_any_bytes(tmp_path, name, data):
    path = tmp_path / "any"
    path.write_bytes(data)
    events, rejected = read(path, name)
    if name in ("json", "vw") and rejected is not None and not data.startswith((b"\x1f\x8b", b"\x28\xb5")):
        assert events + rejected == sum(bool(line.strip(b" \r")) for line in data.split(b"\n"))


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
@given(data=st.data())
@SETTINGS
def test_damaged_files(tmp_path, name, compress, data):
    if name == "parquet" and compress is not bytes:
        return
    path = tmp_path / "damaged"
    path.write_bytes(damage(data.draw, compress(WHOLE[name])))
    read(path, name, multiline=True if name == "csv" else None)


def test_any_damaged_byte_of_a_column(tmp_path):
    """Of pages; pyarrow itself aborts on some footers. The number of a word may be one that there is not."""
    whole, path = WHOLE["parquet"], tmp_path / "damaged"
    ends = set()
    for at in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")):
        path.write_bytes(whole[:at] + b"\x0c" + whole[at + 1 :])
        ends.add(read(path, "parquet")[1])
    assert {None, 0} <= ends


@pytest.mark.parametrize("name", ["json", "csv", "vw"])
@given(data=st.data())
@SETTINGS
def test_lines_away_from_the_damage_are_learned(tmp_path, name, data):
    lines = WHOLE[name].splitlines(keepends=True)
    at = data.draw(st.integers(1, len(lines) - 1))
    bad = data.draw(st.binary(max_size=100)).replace(b"\n", b"")
    path = tmp_path / "damaged"
    path.write_bytes(b"".join([*lines[:at], bad + b"\n", *lines[at:]]))
    events, rejected = read(path, name)
    assert rejected is not None
    assert events >= 20
    assert events + rejected == 20 + bool(bad.strip(b" \r"))


def test_a_bomb_is_taken_piece_by_piece(tmp_path):
    """64 MiB of one line in a few kilobytes: decompressed, counted and dropped."""
    for name, compress in (("gz", gzip.compress), ("zst", zstandard.ZstdCompressor(level=19).compress)):
        path = tmp_path / f"bomb.{name}"
        path.write_bytes(compress(b"x" * (64 << 20) + b"\n" + WHOLE["json"]))
        assert read(path, "json") == (20, 1)
