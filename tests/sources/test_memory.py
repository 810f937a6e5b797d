from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task
from penstock.sources import Source, build
from penstock.sources.memory import MemorySource

ROWS = [{"a": i, "n": {"b": "x"}} for i in range(10)]


def read(source, position=None, size=3):
    chunks = list(source.chunks(position, size))
    return chunks, Batch.concat([chunk.batch for chunk in chunks])


def test_everything():
    source = build(
        "memory",
        Task("binary"),
        rows=ROWS,
        labels=[True, False] * 5,
        weights=np.arange(10.0),
        times=[0, "1970-01-01T00:00:01Z", datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), *range(3, 10)],
        ids=list("abcdefghij"),
    )
    assert isinstance(source, Source)
    chunks, batch = read(source)
    assert [chunk.position for chunk in chunks] == [{"record": n} for n in (3, 6, 9, 10)]
    assert list(batch.rows) == ROWS
    np.testing.assert_array_equal(batch.labels, [1.0, 0.0] * 5)
    np.testing.assert_array_equal(batch.weights, np.arange(10.0))
    np.testing.assert_array_equal(batch.times, np.arange(10.0))
    assert batch.ids == list("abcdefghij")
    twin = Batch.from_rows(ROWS).features
    np.testing.assert_array_equal(batch.features.indices, twin.indices)


@pytest.mark.parametrize("at", range(11))
def test_resume(at):
    source = MemorySource(Task("regression"), ROWS, range(10))
    rest = [label for chunk in source.chunks({"record": at}, 4) for label in chunk.batch.labels]
    assert rest == list(range(at, 10))


def test_without_labels():
    assert np.isnan(read(MemorySource(Task("binary"), ROWS))[1].labels).all()
    assert read(MemorySource(Task("multiclass"), ROWS))[1].labels.tolist() == [""] * 10


def test_named_classes():
    source = MemorySource(Task("binary"), ROWS[:2], ["UP", "DOWN"], classes=["DOWN", "UP"])
    assert read(source)[1].labels.tolist() == [1.0, 0.0]


def test_numpy_labels():
    assert read(MemorySource(Task("binary"), ROWS, np.array([True] * 10)))[1].labels.tolist() == [1.0] * 10
    assert read(MemorySource(Task("multiclass"), ROWS, np.arange(10)))[1].labels[9] == "9"


def test_bad_rows_are_rejected():
    rows = [{"a": 1}, {"a": object}, {"a": 2}, 5, {"a": 3}]
    chunks, batch = read(MemorySource(Task("binary"), rows, [1, 1, 2, 0, None]), size=10)
    assert list(batch.rows) == [{"a": 1}]
    assert [letter.where for letter in chunks[0].rejected] == ["memory:2", "memory:3", "memory:4", "memory:5"]
    assert [letter.reason for letter in chunks[0].rejected][1::2] == [
        "expected true or false, 0 or 1, -1 or 1, got 2 - at `$.label`, memory:3",
        "expected a label, got None - at `$.label`, memory:5",
    ]
    assert orjson.loads(chunks[0].rejected[1].data) == {"features": {"a": 2}, "label": 2}


def test_the_first_column_that_is_bad_names_the_reason():
    source = MemorySource(
        Task("binary"),
        ROWS[:6],
        [1, 5, 0, 1, 0, 1],
        weights=[1.0, -1.0, np.float32(-2.0), 0.5, 2.0, 1.0],
        times=[0, 0, "never", "never", 4, 5],
        ids=["a", "b", "c", "d", 2.5, 7],
    )
    (chunk,), batch = read(source, size=10)
    assert [letter.reason.rpartition(" ")[0] for letter in chunk.rejected] == [
        "expected true or false, 0 or 1, -1 or 1, got 5 - at `$.label`,",
        "expected a finite number >= 0, got -2.0 - at `$.weight`,",
        "expected seconds or an ISO 8601 time, got 'never' - at `$.time`,",
        "expected a string or an integer, got 2.5 - at `$.id`,",
    ]
    assert [letter.after for letter in chunk.rejected] == [1, 1, 1, 1]
    assert (batch.ids, batch.labels.tolist(), batch.times.tolist()) == (["a", "7"], [1.0, 1.0], [0.0, 5.0])
    assert batch.rows == [ROWS[0], ROWS[5]]


def test_columns_of_another_length():
    with pytest.raises(ConfigError, match=r"^labels: expected 10, one for each row, got 9$"):
        MemorySource(Task("binary"), ROWS, [1] * 9)


def test_a_position_behind_the_end():
    with pytest.raises(DataError, match=r"^memory: has 10 rows, the position is behind row 11$"):
        read(MemorySource(Task("binary"), ROWS), {"record": 11})
