import numpy as np
import orjson
import pytest

from penstock.codecs import Codec, Fields
from penstock.codecs.json import JSON
from penstock.events import Task

CODEC = JSON(Fields(Task("binary")))


def reject(data):
    batch, (rejected,) = CODEC.decode([data], "clicks.jsonl:{}".format)
    assert len(batch) == 0
    assert rejected.data == data
    return rejected.reason


def test_is_a_codec():
    assert isinstance(CODEC, Codec)
    assert not CODEC.needs_header


def test_round_trip():
    rows = [{"a": 1.5, "b": "x", "c": True, "d": None, "e": [1, "y"], "f": {"g": -2}}, {"ü": "ß"}, {}]
    records = [orjson.dumps({**row, "label": i % 2}) for i, row in enumerate(rows)]
    batch, rejected = CODEC.decode(records, str)
    assert rejected == ()
    assert list(batch.rows) == rows
    np.testing.assert_array_equal(batch.labels, [0.0, 1.0, 0.0])


def test_of_a_repeated_name_the_last_value_counts():
    batch, _ = CODEC.decode([b'{"a": 1, "label": 0, "a": 2, "label": 1}'], str)
    assert (batch.rows[0], batch.labels[0]) == ({"a": 2}, 1.0)


def test_carriage_return_is_white_space():
    assert len(CODEC.decode([b'{"label": 1}\r'], str)[0]) == 1


def test_invalid_utf8_says_where():
    assert reject(b'{"a": "\xff", "label": 1}') == (
        'expected UTF-8 (byte 7 is not), got b\'{"a": "\\xff", "label": 1}\' - at `$`, clicks.jsonl:0'
    )


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nan", b'{"a": NaN}', b"{} {}", b"[" * 5000, b'{"a": "' + b"x" * 10**6]
)
def test_not_json(data):
    reason = reject(data)
    assert reason.startswith("expected JSON (")
    assert len(reason) < 300


def test_huge_numbers_are_no_crash():
    for number in (b"1e999", b"9" * 5000, b"-" + b"9" * 40):
        batch, rejected = CODEC.decode([b'{"a": ' + number + b', "label": 1}'], str)
        assert len(batch) + len(rejected) == 1
