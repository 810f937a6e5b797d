import gzip
import importlib.resources
import json

import msgpack
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task
from penstock.sources import Source, build
from penstock.sources.file import FileSource

BINARY = Task("binary")
N = 23
ROWS = [{"a": i + 1, "b": f"x{i % 3}"} for i in range(N)]
LABELS = [i % 2 for i in range(N)]
NAMES = ["f.jsonl", "f.csv", "f.tsv", "f.vw", "f.msgpack", "f.parquet"]
COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def content(name, rows=ROWS, labels=LABELS):
    """Write rows by hand, but for the binary formats."""
    pairs = list(zip(rows, labels, strict=True))
    suffix = name.partition(".")[2]
    if suffix == "jsonl":
        return b"".join(orjson.dumps({**row, "label": y}) + b"\n" for row, y in pairs)
    if suffix == "vw":
        return "".join(f"{y} | a:{row['a']} b={row['b']}\n" for row, y in pairs).encode()
    if suffix == "msgpack":
        return b"".join(msgpack.packb({**row, "label": y}) for row, y in pairs)
    if suffix == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.Table.from_pylist([{**row, "label": y} for row, y in pairs]), sink, row_group_size=7
        )
        return sink.getvalue().to_pybytes()
    comma = "," if suffix == "csv" else "\t"
    return "".join(
        comma.join(map(str, cells)) + "\n"
        for cells in [("a", "b", "label"), *((*r.values(), y) for r, y in pairs)]
    ).encode()


def read(source, position=None, size=5):
    return list(source.chunks(position, size))


def joined(chunks):
    """Everything in the chunks but where they were cut."""
    batch = Batch.concat([chunk.batch for chunk in chunks])
    return (
        list(batch.rows),
        batch.labels.tolist(),
        batch.weights.tolist(),
        batch.features.indptr.tolist(),
        batch.features.indices.tolist(),
        batch.features.values.tolist(),
        batch.ids,
        batch.lines,
        [letter for chunk in chunks for letter in chunk.rejected],
    )


def fails(source, position=None, size=5):
    """Read up to the DataError; return what came before and its text."""
    chunks = []
    with pytest.raises(DataError) as raised:
        chunks.extend(source.chunks(position, size))
    assert "\n" not in str(raised.value)
    return chunks, str(raised.value)


@pytest.fixture(params=["f.parquet", *(name + ending for name in NAMES[:-1] for ending in COMPRESSORS)])
def path(request, tmp_path):
    name = request.param
    ending = next((e for e in (".gz", ".zst") if name.endswith(e)), "")
    path = tmp_path / name
    path.write_bytes(COMPRESSORS[ending](content(name.removesuffix(ending))))
    return path


def test_every_format_and_compression(path):
    source = build("file", BINARY, path=str(path))
    assert isinstance(source, Source)
    chunks = read(source)
    assert [len(chunk.batch) for chunk in chunks[:-1]] == [5] * (len(chunks) - 1) or path.suffix == ".parquet"
    batch = Batch.concat([chunk.batch for chunk in chunks])
    np.testing.assert_array_equal(batch.labels, LABELS)
    if ".vw" in path.name:
        assert list(batch.rows) == [{"a": float(row["a"]), f"b={row['b']}": 1.0} for row in ROWS]
        assert batch.lines == [f"| a:{row['a']} b={row['b']}" for row in ROWS]
    else:
        assert list(batch.rows) == ROWS
        assert batch.lines is None


def test_chunks_do_not_change_what_is_read(path):
    source = FileSource(BINARY, str(path))
    whole = joined(read(source, size=1000))
    for size in (1, 2, 7, 22, 23, 24):
        chunks = read(source, size=size)
        assert max(len(chunk.batch) + len(chunk.rejected) for chunk in chunks) <= size
        assert joined(chunks) == whole


def test_resume_from_every_position(path):
    source = FileSource(BINARY, str(path))
    chunks = read(source, size=2)
    for i, chunk in enumerate(chunks):
        position = json.loads(json.dumps(chunk.position))
        rest = read(FileSource(BINARY, str(path)), position, size=3)
        if i + 1 < len(chunks):
            assert joined(rest) == joined(chunks[i + 1 :])
            assert rest[-1].position == chunks[-1].position
        else:
            assert rest == []


def test_compression_is_told_by_the_first_bytes(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(gzip.compress(content("f.csv")))
    assert len(joined(read(FileSource(BINARY, str(path))))[0]) == N


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_parts_one_behind_the_other(tmp_path, ending):
    data = content("f.csv")
    path = tmp_path / f"f.csv{ending}"
    path.write_bytes(b"".join(COMPRESSORS[ending](data[i : i + 50]) for i in range(0, len(data), 50)))
    whole = joined(read(FileSource(BINARY, str(path))))
    assert whole[0] == ROWS
    path.write_bytes(
        path.read_bytes() + (bytes(512) if ending == ".gz" else b"\x50\x2a\x4d\x18\x03\0\0\0abc")
    )
    assert joined(read(FileSource(BINARY, str(path)))) == whole


def test_large_compressed_file(tmp_path):
    rows = [{"a": 1, "b": "x" * 500}] * 5000
    data = content("f.jsonl", rows, [1] * 5000)
    for ending in (".gz", ".zst"):
        path = tmp_path / f"f.jsonl{ending}"
        path.write_bytes(COMPRESSORS[ending](data))
        chunks = read(FileSource(BINARY, str(path)), size=999)
        assert sum(len(chunk.batch) for chunk in chunks) == 5000
        assert chunks[-1].position["offset"] == len(data)
        assert joined(read(FileSource(BINARY, str(path)), chunks[3].position, 10_000)) == joined(chunks[4:])


def test_last_line_needs_no_end(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(content("f.csv").rstrip(b"\n"))
    chunks = read(FileSource(BINARY, str(path)))
    assert joined(chunks)[0] == ROWS
    assert read(FileSource(BINARY, str(path)), chunks[-1].position) == []
    # It was taken for a whole record, so the file must not go on there.
    with path.open("ab") as file:
        file.write(b"5\n")
    _, message = fails(FileSource(BINARY, str(path)), chunks[-1].position)
    offset = chunks[-1].position["offset"]
    assert message == (
        f"{path}: byte {offset} is inside a record: "
        "not the file that the position was taken from (behind record 24)"
    )


# -- many files, laps, limits


def test_files_in_the_order_of_their_names(tmp_path):
    for name, part in (("b.csv", ROWS[3:]), ("a.csv", ROWS[:3]), ("c.txt", ROWS)):
        (tmp_path / name).write_bytes(content("f.csv", part, LABELS[: len(part)]))
    source = FileSource(BINARY, str(tmp_path / "*.csv"))
    chunks = read(source, size=4)
    assert [len(chunk.batch) for chunk in chunks] == [3, 4, 4, 4, 4, 4]
    assert joined(chunks)[0] == ROWS
    for i, chunk in enumerate(chunks[:-1]):
        assert joined(read(source, chunk.position)) == joined(chunks[i + 1 :])


def test_a_name_with_pattern_characters_is_a_name(tmp_path):
    path = tmp_path / "f[1].csv"
    path.write_bytes(content("f.csv"))
    assert joined(read(FileSource(BINARY, str(path))))[0] == ROWS


@pytest.mark.parametrize("name", ["f.csv", "f.parquet", "f.msgpack"])
def test_laps_and_limit(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(content(name))
    source = FileSource(BINARY, str(path), repeat=3, limit=60)
    chunks = read(source, size=9)
    assert joined(chunks)[0] == (ROWS * 3)[:60]
    assert chunks[-1].position["event"] == 60
    for i, chunk in enumerate(chunks[:-1]):
        assert joined(read(source, chunk.position, size=100)) == joined(chunks[i + 1 :])
    assert read(source, chunks[-1].position) == []


def test_limit_counts_bad_records(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"label": 1}\nbad\n{"label": 1}\n{"label": 1}\n')
    chunks = read(FileSource(BINARY, str(path), limit=3))
    assert [(len(chunk.batch), len(chunk.rejected)) for chunk in chunks] == [(2, 1)]


# -- bad records


def test_line_numbers_count_blank_lines_and_the_header(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,label\n\n1,1\n \r\n2\n3,x\n\n\n4,0\n5\n")
    for size in (1, 2, 100):
        rejected = joined(read(FileSource(BINARY, str(path)), size=size))[-1]
        assert [letter.where for letter in rejected] == [f"{path}:{line}" for line in (5, 6, 10)]


def test_a_record_of_10_mb_is_rejected_and_not_held(tmp_path):
    path = tmp_path / "f.jsonl"
    good = b'{"a": 1, "label": 1}\n'
    path.write_bytes(good + b'{"a": "' + b"x" * 10_000_000 + b'", "label": 1}\n' + good)
    source = FileSource(BINARY, str(path))
    chunks = read(source)
    assert joined(chunks)[0] == [{"a": 1}, {"a": 1}]
    (letter,) = joined(chunks)[-1]
    assert (
        letter.reason == f"expected a record of at most 1048576 bytes, got 10000021 bytes - at `$`, {path}:2"
    )
    assert (letter.where, letter.data) == (f"{path}:2", b'{"a": "' + b"x" * 1017)
    assert joined(read(source, chunks[0].position))[0] == [{"a": 1}]


def test_a_chunk_holds_a_limited_number_of_bytes(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes((b'{"a": "' + b"x" * 900_000 + b'", "label": 1}\n') * 40)
    chunks = read(FileSource(BINARY, str(path)), size=1000)
    assert sum(len(chunk.batch) for chunk in chunks) == 40
    assert max(len(chunk.batch) for chunk in chunks) < 21


def test_quoted_line_ends(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b'a,label\n"x\ny",1\nz,0\n"u\n\n",1\nbad\n')
    chunks = read(FileSource(BINARY, str(path), multiline=True), size=1)
    assert [row["a"] for row in joined(chunks)[0]] == ["x\ny", "z", "u\n\n"]
    assert [letter.where for letter in joined(chunks)[-1]] == [f"{path}:8"]
    assert joined(read(FileSource(BINARY, str(path), multiline=True), chunks[0].position)) == joined(
        chunks[1:]
    )


# -- what is wrong with a whole file


@pytest.mark.parametrize("name", [name for name in NAMES if "parquet" not in name])
@pytest.mark.parametrize("empty", [b"", b"\n\n"])
def test_empty_file(tmp_path, name, empty):
    path = tmp_path / name
    path.write_bytes(empty if "msgpack" not in name else b"")
    assert fails(FileSource(BINARY, str(path))) == ([], f"{path}: empty: there is no record in it")


def test_header_only(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,label\n")
    assert fails(FileSource(BINARY, str(path))) == ([], f"{path}: empty: there is no record in it")


def test_empty_parquet(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"label": pa.array([], pa.int64())}), path)
    assert fails(FileSource(BINARY, str(path))) == ([], f"{path}: empty: there is no record in it")


@pytest.mark.parametrize("name", NAMES)
def test_missing_file(tmp_path, name):
    path = tmp_path / name
    assert fails(FileSource(BINARY, str(path))) == (
        [],
        f"{path}: cannot be opened: No such file or directory",
    )
    assert fails(FileSource(BINARY, str(tmp_path / "*.csv"))) == ([], f"{tmp_path}/*.csv: no file matches")


def test_directory(tmp_path):
    assert fails(FileSource(BINARY, str(tmp_path), format="csv")) == (
        [],
        f"{tmp_path}: cannot be opened: Is a directory",
    )


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_truncated_compressed_file(tmp_path, ending):
    rng = np.random.default_rng(0)
    rows = [{"a": int(rng.integers(1, 10**9)), "b": "x"} for _ in range(2000)]
    data = content("f.csv", rows, [1] * 2000)
    whole = COMPRESSORS[ending](data[: len(data) // 2]) + COMPRESSORS[ending](data[len(data) // 2 :])
    path = tmp_path / f"f.csv{ending}"
    path.write_bytes(whole[:-5])
    chunks, message = fails(FileSource(BINARY, str(path)), size=256)
    n = sum(len(chunk.batch) for chunk in chunks)
    assert n >= 999
    assert joined(chunks)[0] == rows[:n]
    last = chunks[-1].position["record"]
    assert message == f"{path}: truncated: the file ends inside its compressed data (behind record {last})"
    again, later = fails(FileSource(BINARY, str(path)), chunks[1].position)
    assert later == message
    assert joined(again) == joined(chunks[2:])


@pytest.mark.parametrize(("ending", "kind"), [(".gz", "gzip"), (".zst", "zstd")])
def test_damaged_compressed_file(tmp_path, ending, kind):
    data = content("f.jsonl")
    path = tmp_path / f"f.jsonl{ending}"
    path.write_bytes(COMPRESSORS[ending](data) + b"garbage that is no frame")
    chunks, message = fails(FileSource(BINARY, str(path)))
    assert joined(chunks)[0] == ROWS
    assert message.startswith(f"{path}: damaged {kind} data (")
    assert message.endswith(" (behind record 23)")


def test_cut_msgpack(tmp_path):
    path = tmp_path / "f.msgpack"
    path.write_bytes(content("f.msgpack")[:-3])
    chunks, message = fails(FileSource(BINARY, str(path)))
    assert joined(chunks)[0] == ROWS[:-1]
    offset = chunks[-1].position["offset"]
    assert message == (
        f"{path}: the record at byte {offset} is cut off: the file ends inside it (behind record 22)"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_position_behind_the_end(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(content(name))
    position = read(FileSource(BINARY, str(path)))[-1].position
    path.write_bytes(content(name, ROWS[:3], LABELS[:3]))
    chunks, message = fails(FileSource(BINARY, str(path)), position)
    assert chunks == []
    assert f"the position is behind {'row' if 'parquet' in name else 'byte'} {position['offset']}" in message


def test_a_position_behind_a_header_that_has_gone(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(content("f.csv"))
    position = read(FileSource(BINARY, str(path)))[0].position
    path.write_bytes(b"")
    _, message = fails(FileSource(BINARY, str(path)), position)
    assert message == f"{path}: has no header, and the position is behind it"
    path.write_bytes(content("f.csv").replace(b"label", b"other"))
    _, message = fails(FileSource(BINARY, str(path)), position)
    assert message == f"{path}:1: no column 'label' (option label); there are 'a', 'b', 'other'"


@pytest.mark.parametrize(
    "position",
    [{}, {"file": "x", "offset": "3"}, {"file": "x", "offset": -1}, {"file": "x", "other": 1}, {"record": 5}],
)
def test_a_position_of_something_else(tmp_path, position):
    path = tmp_path / "f.csv"
    path.write_bytes(content("f.csv"))
    _, message = fails(FileSource(BINARY, str(path)), position)
    assert message == f"{path}: {position!r} is no position of a file source"
    _, message = fails(FileSource(BINARY, str(path)), {"file": "elsewhere.csv"})
    assert message == f"{path}: the position is in 'elsewhere.csv', which is not there"


def test_damaged_parquet_gives_the_rows_before_the_damage(tmp_path):
    path = tmp_path / "f.parquet"
    columns = {"a": np.random.default_rng(0).random(3000), "label": np.ones(3000)}
    pq.write_table(pa.table(columns), path, row_group_size=1000, compression="gzip", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[group.data_page_offset + 100 : group.data_page_offset + 200] = bytes(100)
    path.write_bytes(data)
    chunks, message = fails(FileSource(BINARY, str(path)), size=300)
    assert [row["a"] for row in joined(chunks)[0]] == columns["a"][:1000].tolist()
    assert message.startswith(f"{path}: damaged: ")
    assert message.endswith(" (behind row 1000)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "f.txt"}, "f.txt: the name does not tell the format"),
        ({"path": "f.csv", "follow": True, "repeat": 2}, "repeat: a followed file has no end"),
        ({"path": "f.json", "delimiter": ";"}, "delimiter: not an option of the format 'json'"),
        ({"path": "f.vw", "weight": "w"}, "weight: VW text says itself"),
        ({"path": "f.csv", "inject": {"flip": True}}, "inject: 'at' is missing"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(ConfigError) as raised:
        FileSource(BINARY, **options)
    assert str(raised.value).startswith(message)


# -- anything


@given(
    lines=st.lists(
        st.sampled_from(
            [
                b'{"a":1,"label":1}',
                b'{"a":2,"label":0}',
                b"",
                b" ",
                b"{",
                b"\xff",
                b"[1]",
                b'{"a":"' + b"x" * 90,
            ]
        )
        | st.binary(max_size=12),
        max_size=12,
    ),
    ending=st.sampled_from(["", ".gz", ".zst"]),
    size=st.integers(1, 6),
    start=st.integers(0, 20),
)
@settings(max_examples=120, deadline=None)
def test_whatever_the_lines_neither_chunks_nor_resuming_matter(tmp_path_factory, lines, ending, size, start):
    path = tmp_path_factory.mktemp("any") / f"f.jsonl{ending}"
    path.write_bytes(COMPRESSORS[ending](b'{"label": 1}\n' + b"\n".join(lines)))
    source = FileSource(BINARY, str(path), max_record_bytes=60)
    whole = read(source, size=1000)
    chunks = read(source, size=size)
    assert joined(chunks) == joined(whole)
    n_records = sum(len(chunk.batch) + len(chunk.rejected) for chunk in chunks)
    n_lines = sum(bool(line.strip(b" \r")) for line in b"\n".join(lines).split(b"\n"))
    assert n_records == 1 + n_lines == chunks[-1].position["event"]
    if start < len(chunks) - 1:
        assert joined(read(source, chunks[start].position, size=1000)) == joined(chunks[start + 1 :])


def test_the_real_phishing_set():
    with importlib.resources.as_file(importlib.resources.files("river.datasets") / "phishing.csv.gz") as path:
        chunks = read(FileSource(BINARY, str(path), label="is_phishing"), size=256)
        again = FileSource(BINARY, str(path), label="is_phishing")
        assert joined(read(again, chunks[1].position, size=100)) == joined(chunks[2:])
    rows, labels, *_, rejected = joined(chunks)
    assert (len(rows), sum(labels), rejected) == (1250, 548.0, [])
    assert all(len(row) == 9 for row in rows)
