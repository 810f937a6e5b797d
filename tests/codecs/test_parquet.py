from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.codecs import Fields
from penstock.codecs.parquet import Parquet
from penstock.errors import DataError
from penstock.events import Batch, Task


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def read(path, start=0, task="binary", **options):
    """Decode a whole file: batches, rejections."""
    codec = Parquet(Fields(Task(task), **options))
    with codec.open(path) as table:
        decoded = [codec.decode(rows, "f.parquet:{}".format) for rows in codec.read(table, start)]
    batches = [batch for batch, _ in decoded]
    return Batch.concat(batches), [rejected for _, many in decoded for rejected in many]


def test_types(tmp_path):
    path = write(
        tmp_path / "f",
        {
            "label": pa.array([True, False, True]),
            "i": pa.array([1, None, 3], pa.int32()),
            "u": pa.array([1, 2, 3], pa.uint8()),
            "f": pa.array([0.5, 1.5, None], pa.float32()),
            "h": pa.array([0.5, 1.5, None], pa.float16()),
            "s": pa.array(["x", None, "ü"]),
            "d": pa.array(["x", "y", None]).dictionary_encode(),
            "m": pa.array([Decimal("1.5"), None, Decimal(2)]),
            "l": pa.array([[1, 2], None, []]),
            "n": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
            "0": pa.nulls(3),
        },
    )
    batch, rejected = read(path)
    assert rejected == []
    rows = [
        {
            "i": 1,
            "u": 1,
            "f": 0.5,
            "h": 0.5,
            "s": "x",
            "d": "x",
            "m": 1.5,
            "l": [1, 2],
            "n": {"a": 1, "b": "x"},
            "0": None,
        },
        {
            "i": None,
            "u": 2,
            "f": 1.5,
            "h": 1.5,
            "s": None,
            "d": "y",
            "m": None,
            "l": None,
            "n": None,
            "0": None,
        },
        {
            "i": 3,
            "u": 3,
            "f": None,
            "h": None,
            "s": "ü",
            "d": None,
            "m": 2.0,
            "l": [],
            "n": {"a": None, "b": "y"},
            "0": None,
        },
    ]
    assert list(batch.rows) == rows
    twin = Batch.from_rows(rows).features
    np.testing.assert_array_equal(batch.features.indices, twin.indices)
    np.testing.assert_array_equal(batch.features.values, twin.values)
    np.testing.assert_array_equal(batch.labels, [1.0, 0.0, 1.0])
    assert Batch.from_state(batch.state()).rows == rows


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_roles(tmp_path, unit):
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    path = write(
        tmp_path / "f",
        {
            "at": pa.array([moment, None], pa.timestamp(unit, tz="UTC")),
            "key": [7, 8],
            "w": [0.5, 1.0],
            "y": [1.5, 2.5],
            "a": [1, 2],
        },
    )
    batch, (rejected,) = read(path, task="regression", label="y", time="at", id="key", weight="w")
    assert (batch.times[0], batch.ids, batch.weights[0], batch.labels[0]) == (1709208000.0, ["7"], 0.5, 1.5)
    assert list(batch.rows) == [{"a": 1}]
    assert rejected.reason == "expected a value, got None - at `$.at`, f.parquet:1"
    assert orjson.loads(rejected.data) == {"at": None, "key": 8, "w": 1.0, "y": 2.5, "a": 2}


def test_container(tmp_path):
    columns = {"x": [{"a": 1}, {"a": 2}], "label": [0, 1], "when": pa.array([1, 2], pa.timestamp("ns"))}
    batch, rejected = read(write(tmp_path / "f", columns), features="x")
    assert rejected == []
    assert list(batch.rows) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 6, 9])
def test_from_every_row_and_over_row_groups(tmp_path, start):
    path = write(tmp_path / "f", {"a": list(range(10)), "label": [0, 1] * 5}, row_group_size=3)
    assert [row["a"] for row in read(path, start)[0].rows] == list(range(start, 10))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1], pa.timestamp("us")), "timestamp[us]"),
        (pa.array([b"x"]), "binary"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "map<string, int64"),
        (pa.array([datetime(2024, 1, 1).date()]), "date32[day]"),
    ],
)
def test_a_type_that_cannot_be_a_feature(tmp_path, column, kind):
    path = write(tmp_path / "f", {"x": column, "label": [1]})
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: column 'x' has the type {kind}")
    assert str(raised.value).endswith("which cannot be a feature: leave it out with `ignore: [x]`")
    assert list(read(path, ignore=["x"])[0].rows) == [{}]


def test_nested_type_that_cannot_be_a_feature(tmp_path):
    path = write(tmp_path / "f", {"x": [{"a": {"b": b"1"}}], "label": [1]})
    with pytest.raises(DataError, match=r"column 'x.a.b' has the type binary.*`ignore: \[x\]`"):
        read(path)


def test_columns_must_be_there(tmp_path):
    path = write(tmp_path / "f", {"a": [1], "b": [2]})
    with pytest.raises(DataError) as raised:
        read(path, label="y")
    assert str(raised.value) == f"{path}: no column 'y' (option label); there are 'a', 'b'"
    for options in ({"weight": "w"}, {"ignore": ["w"]}, {"types": {"w": "number"}}, {"features": "w"}):
        with pytest.raises(DataError, match=r"no column 'w'"):
            read(path, label="a", **options)
    assert list(read(path, label="y", require_label=False)[0].rows) == [{"a": 1, "b": 2}]


def test_strings_that_are_not_utf8(tmp_path):
    binary = pa.array([b"ok", b"\xff", b"fine"])
    strings = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    path = write(tmp_path / "f", {"s": strings, "label": [1, 1, 0]})
    batch, (rejected,) = read(path)
    assert list(batch.rows) == [{"s": "ok"}, {"s": "fine"}]
    assert rejected.reason == "expected UTF-8 (byte 0 of a string is not), got b'\\xff' - at `$`, f.parquet:1"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_not_parquet(tmp_path, content):
    path = tmp_path / "f.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"f\.parquet: not a Parquet file: [^\n]+$"):
        read(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: cannot be opened: No such file or directory$"):
        read(str(tmp_path / "nowhere"))
