"""Columns straight from Arrow's buffers against the way by dicts: nobody can tell which one read them."""

import math
import random

import numpy as np
import pyarrow as pa
import pytest

from penstock._native.columns import encode_columns
from penstock.codecs.fields import Fields
from penstock.codecs.parquet import Parquet
from penstock.events import Task

WORDS = ["", "no", "yes", " 7", "17", "SE", "größe", "日本", "a longer word than most of them", "NaN"]
INTEGERS = {
    "int8": 8,
    "int16": 16,
    "int32": 32,
    "int64": 64,
    "uint8": 8,
    "uint16": 16,
    "uint32": 32,
    "uint64": 64,
}
FLOATS = [0.0, -0.0, 1.0, 2.5, -1e18, 1e19, math.nan, math.inf, 5e-324, 0.1]
CODECS = [
    Parquet(fields)
    for fields in (
        Fields(Task("binary"), label="flag"),
        Fields(Task("binary"), label="kind", classes=["no", "yes"], ignore=["int8", "word"]),
        Fields(
            Task("multiclass"), label="word", weight="double", types={"kind": "category", "int16": "number"}
        ),
        Fields(Task("regression"), label="double", time="when", id="int32", require_label=False),
        Fields(Task("binary"), label="nowhere", require_label=False, types={"int8": "category"}),
        Fields(Task("binary"), label="clean"),
    )
]


def table(seed, n, null=0.05, odd=0.03):
    rng = random.Random(seed)

    def column(kind, draw, usual):
        drawn = (draw if rng.random() < odd else usual for _ in range(n))
        return pa.array([None if rng.random() < null else one() for one in drawn], kind)

    def integer(name, bits):
        low = 0 if name[0] == "u" else -(1 << (bits - 1))
        return lambda: rng.choice((low, 0, 1, low + (1 << bits) - 1, rng.randrange(low, low + (1 << bits))))

    columns = {
        name: column(name, integer(name, bits), lambda: rng.randrange(3)) for name, bits in INTEGERS.items()
    }
    columns["flag"] = column(pa.bool_(), lambda: True, lambda: rng.random() < 0.5)
    columns["double"] = column(pa.float64(), lambda: rng.choice(FLOATS), lambda: abs(rng.gauss(0, 9)))
    columns["float"] = column(pa.float32(), lambda: rng.choice(FLOATS), lambda: rng.gauss(0, 9))
    columns["word"] = column(pa.string(), lambda: rng.choice(WORDS), lambda: rng.choice(WORDS[1:4]))
    columns["long"] = column(pa.large_string(), lambda: rng.choice(WORDS), lambda: rng.choice(WORDS))
    columns["kind"] = column(pa.string(), lambda: rng.choice(WORDS), lambda: rng.choice(WORDS[1:3]))
    columns["code"] = columns["long"].dictionary_encode()
    columns["when"] = column(pa.timestamp("us", "UTC"), lambda: 0, lambda: rng.randrange(1 << 50))
    columns["clean"] = pa.array([rng.randrange(2) for _ in range(n)], pa.int32())
    columns["broken"] = _broken(columns["word"]) if odd else columns["word"]
    return pa.RecordBatch.from_pydict(columns)


def _broken(words):
    """Put a byte that is no UTF-8 into the text."""
    validity, offsets, data = words.buffers()
    data = bytearray(data.to_pybytes())
    if len(data) > 40:
        data[30] = 0xFF
    return pa.StringArray.from_buffers(len(words), offsets, pa.py_buffer(bytes(data)), validity)


def usable(codec, batch):
    """Leave out times that have no role: opening a file would have refused them."""
    fields = codec._fields
    names = [name for name in batch.schema.names if name != "when" or fields.time == "when"]
    return batch.select([name for name in names if name not in fields.ignore])


def assert_same(codec, batch):
    ours, rejected = codec.decode(batch, "a.parquet:{}".format)
    theirs, expected = codec._decode(batch, "a.parquet:{}".format)
    for name in ("indptr", "indices", "values", "namespaces"):
        one, other = getattr(ours.features, name), getattr(theirs.features, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), name
    assert ours.labels.dtype == theirs.labels.dtype
    assert repr(ours.labels.tolist()) == repr(theirs.labels.tolist())
    assert ours.weights.tobytes() == theirs.weights.tobytes()
    assert ours.times.tobytes() == theirs.times.tobytes()
    assert ours.ids == theirs.ids
    assert repr(ours.rows) == repr(theirs.rows)
    assert rejected == expected
    assert [letter.after for letter in rejected] == [letter.after for letter in expected]


@pytest.mark.parametrize("codec", range(len(CODECS)))
@pytest.mark.parametrize(("null", "odd"), [(0.0, 0.0), (0.05, 0.0), (0.3, 0.05)])
def test_every_type_of_column(codec, null, odd):
    for seed in range(6):
        batch = usable(CODECS[codec], table(seed, 60, null, odd))
        assert_same(CODECS[codec], batch)
        assert_same(CODECS[codec], batch.slice(13, 30))
        assert_same(CODECS[codec], batch.slice(0, 0))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], [], None, [3]]),
        pa.array([{"x": 1}, {"x": None}, None, {"x": 2}]),
        pa.array([None] * 4),
        pa.array([1, None, 2, 1]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2]), pa.array(["a", None, "b"])),
    ],
)
def test_other_types(column):
    assert_same(CODECS[5], pa.RecordBatch.from_pydict({"clean": [0, 1, 0, 1], "x": column}))


def test_the_kernel_does_the_work_where_it_can():
    names, buffers = CODECS[5]._native_columns(usable(CODECS[5], table(1, 10)))
    assert len(names) == len(buffers) == 16


def test_buffers_that_are_too_short():
    with pytest.raises(ValueError, match="needs 32"):
        encode_columns(["x"], [("double", [None, bytes(16)], 0, None)], 4)
    with pytest.raises(ValueError, match="needs 2"):
        encode_columns(["x"], [("double", [bytes(1), bytes(96)], 8, None)], 4)
    with pytest.raises(ValueError, match="no 4 rows"):
        encode_columns(["x"], [("double", [None, bytes(96)], -1, None)], 4)


def test_text_and_keys_that_point_nowhere_are_declined():
    text = [None, np.array([0, 2, 9, 1, 1], np.int32).tobytes(), b"abc"]
    features, kept, declined = encode_columns(["x"], [("string", text, 0, None)], 4)
    assert (kept.tolist(), declined.tolist(), len(features)) == ([0, 3], [1, 2], 2)
    keys = [None, np.array([0, 5, -1], np.int32).tobytes()]
    words = "string", [None, np.array([0, 3], np.int32).tobytes(), b"abc"], 0, 1
    _, kept, declined = encode_columns(["x"], [("int32", keys, 0, words)], 3)
    assert (kept.tolist(), declined.tolist()) == ([0], [1, 2])
