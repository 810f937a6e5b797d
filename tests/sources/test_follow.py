"""A file that grows while it is read. The writer acts when the source says that it waits."""

import gzip
import itertools
import os

import pytest

from penstock.errors import DataError
from penstock.events import Task
from penstock.sources.file import FileSource

BINARY = Task("binary")
POLL_S = 0.001


def follow(path, **options):
    return FileSource(BINARY, str(path), follow=True, poll_s=POLL_S, **options)


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def values(chunk):
    return [row["a"] for row in chunk.batch.rows]


def up_to_waiting(chunks):
    """Return what is read until the source waits."""
    return list(itertools.takewhile(lambda chunk: len(chunk.batch) + len(chunk.rejected) > 0, chunks))


def test_only_complete_lines_are_taken(tmp_path):
    path = tmp_path / "f.csv"
    path.touch()
    chunks = follow(path).chunks(None, 10)
    written = b"a,label\n1,1\n2,0\n3,1\n"
    read = []
    for at in range(len(written)):
        append(path, written[at : at + 1])
        for chunk in up_to_waiting(chunks):
            read += values(chunk)
            assert chunk.position["offset"] == at + 1
        assert len(read) == max(written[: at + 1].count(b"\n") - 1, 0)
    assert read == [1, 2, 3]


def test_resume_where_it_waited(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,label\n1,1\n2,")
    chunks = follow(path).chunks(None, 10)
    assert values(next(chunks)) == [1]
    waiting = next(chunks)
    assert (len(waiting.batch), waiting.rejected) == (0, ())
    append(path, b"0\n3,1\n")
    chunks.close()
    assert values(next(follow(path).chunks(waiting.position, 10))) == [2, 3]


def test_limit_ends_it(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"a": 1, "label": 1}\n' * 5)
    assert [len(chunk.batch) for chunk in follow(path, limit=5).chunks(None, 3)] == [3, 2]


def test_truncation_is_found(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,label\n1,1\n2,0\n")
    chunks = follow(path).chunks(None, 10)
    up_to_waiting(chunks)
    os.truncate(path, 12)
    with pytest.raises(DataError) as raised:
        next(chunks)
    assert str(raised.value) == (
        f"{path}: was truncated from 16 to 12 bytes while it was followed (behind record 3)"
    )


def test_rotation_is_found(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,label\n1,1\n")
    chunks = follow(path).chunks(None, 10)
    up_to_waiting(chunks)
    path.rename(tmp_path / "f.csv.1")
    with pytest.raises(
        DataError, match=r"has gone while it was followed: No such file or directory \(behind record 2\)$"
    ):
        next(chunks)
    chunks = follow(tmp_path / "f.csv.1", format="csv").chunks(None, 10)
    up_to_waiting(chunks)
    (tmp_path / "g").write_bytes(b"a,label\n7,1\n9,0\n")
    (tmp_path / "g").rename(tmp_path / "f.csv.1")
    with pytest.raises(
        DataError, match=r"was replaced by another file while it was followed \(behind record 2\)$"
    ):
        next(chunks)


def test_files_that_appear_later_are_read_next(tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_bytes(b"a,label\n1,1\n")
    chunks = follow(tmp_path / "*.csv").chunks(None, 10)
    assert [values(chunk) for chunk in up_to_waiting(chunks)] == [[1]]
    append(first, b"2,1")  # no line end: it is a record once a later file says that this one is over
    assert up_to_waiting(chunks) == []
    second.write_bytes(b"a,label\n3,1\n")
    (tmp_path / "0.csv").write_bytes(b"a,label\n0,1\n")
    read = up_to_waiting(chunks)
    assert [values(chunk) for chunk in read] == [[2], [3]]
    assert [chunk.position["file"] for chunk in read] == [str(first), str(second)]
    again = follow(tmp_path / "*.csv").chunks(read[0].position, 10)
    assert [values(chunk) for chunk in up_to_waiting(again)] == [[3]]


def test_a_compressed_file_may_grow_too(tmp_path):
    path = tmp_path / "f.jsonl.gz"
    data = gzip.compress(b"".join(b'{"a": %d, "label": 1}\n' % i for i in range(3000)))
    path.write_bytes(data[:1000])
    chunks = follow(path).chunks(None, 100)
    read = up_to_waiting(chunks)
    append(path, data[1000:] + gzip.compress(b'{"a": 3000, "label": 1}\n'))
    read += up_to_waiting(chunks)
    assert [a for chunk in read for a in values(chunk)] == list(range(3001))


def test_parquet_files_appear_whole(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1], "label": [1]}), tmp_path / "1.parquet")
    chunks = follow(tmp_path / "*.parquet").chunks(None, 10)
    assert [values(chunk) for chunk in up_to_waiting(chunks)] == [[1]]
    pq.write_table(pa.table({"a": [2], "label": [1]}), tmp_path / "2.parquet")
    assert [values(chunk) for chunk in up_to_waiting(chunks)] == [[2]]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_chunk_of_nothing_is_of_the_right_kind(tmp_path, task):
    path = tmp_path / "f.csv"
    path.touch()
    nothing = next(FileSource(Task(task), str(path), follow=True, poll_s=POLL_S).chunks(None, 10)).batch
    assert nothing.labels.dtype == (object if task == "multiclass" else float)
