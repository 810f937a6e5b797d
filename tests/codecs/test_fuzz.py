"""Whatever bytes come, every record ends up in the batch or in the dead letters."""

import msgpack
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codecs import CODECS, Fields, build
from penstock.events import Task

FORMATS = sorted(CODECS.keys() - {"parquet"})  # which reads files: tests/sources/test_file_fuzz.py

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.dictionaries(
    st.sampled_from(["label", "weight", "id", "time", "features", "a", "b c"]), JSON_VALUES, max_size=5
)
GOOD = {
    "json": b'{"a": 1, "label": 1}',
    "csv": b"1,x,1",
    "vw": b"1 |f a",
    "msgpack": b"\x82\xa1a\x01\xa5label\x01",
}


def json_bytes(value):
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, a lone surrogate
        return b"{}"


def msgpack_bytes(value):
    try:
        return msgpack.packb(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\x80"


DOCUMENTS = {
    "json": RECORDS.map(json_bytes),
    "csv": st.lists(st.text(max_size=6), max_size=5).map(
        lambda cells: ",".join(cells).encode("utf-8", "ignore")
    ),
    "vw": st.text(alphabet="|: \t'1-ae.", max_size=30).map(str.encode),
    "msgpack": RECORDS.map(msgpack_bytes),
}


@st.composite
def mutated(draw, documents):
    """Draw a valid document with a few bytes changed, or any bytes."""
    data = bytearray(draw(documents))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


def codec_of(name, task, **options):
    return build(name, Fields(Task(task), **options), columns=["a", "b", "label"] if name == "csv" else None)


@pytest.mark.parametrize("name", FORMATS)
@given(
    data=st.data(), task=st.sampled_from(["binary", "multiclass", "regression"]), require_label=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_no_record_is_lost(name, data, task, require_label):
    records = data.draw(st.lists(mutated(DOCUMENTS[name]) | st.binary(max_size=30), max_size=8))
    batch, rejected = codec_of(name, task, require_label=require_label).decode(records, str)
    assert len(batch) + len(rejected) == len(records)
    bad = [int(letter.where) for letter in rejected]
    assert bad == sorted(set(bad))
    assert [letter.data for letter in rejected] == [records[i] for i in bad]
    assert all("\n" not in letter.reason for letter in rejected)

    # What is in the batch is sound, and is what each record gives alone.
    n = len(batch)
    assert len(batch.features) == len(batch.weights) == len(batch.times) == len(batch.rows) == n
    assert batch.ids is None or len(batch.ids) == n
    assert np.isfinite(batch.features.values).all()
    assert (batch.weights >= 0).all()
    good = [record for i, record in enumerate(records) if i not in bad]
    for i, record in enumerate(good):
        alone, _ = codec_of(name, task, require_label=require_label).decode([record], str)
        np.testing.assert_array_equal(alone.labels, batch.labels[i : i + 1])
        np.testing.assert_array_equal(alone.features.values, batch.slice(i, i + 1).features.values)
        np.testing.assert_array_equal(alone.features.indices, batch.slice(i, i + 1).features.indices)
    if n and task != "multiclass":
        assert len(batch.from_state(batch.state())) == n


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_good_records_around_a_bad_one_are_learned(name, data):
    bad = data.draw(mutated(DOCUMENTS[name]))
    batch, rejected = codec_of(name, "binary").decode([GOOD[name], bad, GOOD[name]], str)
    assert {0, 2}.isdisjoint(int(letter.where) for letter in rejected)
    assert batch.labels[0] == batch.labels[-1] == 1.0
