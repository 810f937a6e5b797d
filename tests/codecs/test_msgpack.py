from datetime import UTC, datetime

import msgpack
import pytest

from penstock.codecs import Codec, Fields
from penstock.codecs.msgpack import MessagePack
from penstock.events import Task

CODEC = MessagePack(Fields(Task("binary")))


def test_is_a_codec():
    assert isinstance(CODEC, Codec)


def test_round_trip():
    rows = [{"a": 1.5, "b": "ü", "c": [1, 2], "n": {"x": -(2**40)}}, {}]
    batch, rejected = CODEC.decode([msgpack.packb({**row, "label": True}) for row in rows], str)
    assert rejected == ()
    assert list(batch.rows) == rows


def test_feedback_with_a_timestamp():
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    record = msgpack.packb({"time": moment, "features": {"a": 1}, "label": 1, "id": 9}, datetime=True)
    batch, _ = CODEC.decode([record], str)
    assert (batch.times[0], batch.ids, batch.rows) == (1709208000.0, ["9"], [{"a": 1}])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "expected MessagePack (Unpack failed: incomplete input), got b'' - at `$`, f:1"),
        (b"\x05", "expected a mapping of names to values, got 5 - at `$`, f:1"),
        (b"\xc1", "expected MessagePack (a byte that begins nothing), got b'\\xc1' - at `$`, f:1"),
        (
            b"\x81\x01\x01",
            "expected MessagePack (int is not allowed for map key when strict_map_key=True), "
            "got b'\\x81\\x01\\x01' - at `$`, f:1",
        ),
        (
            b"\x81\xa1\xff\x01",
            "expected MessagePack (a string is not UTF-8 at its byte 0), "
            "got b'\\x81\\xa1\\xff\\x01' - at `$`, f:1",
        ),
    ],
)
def test_bad_record_between_good_ones(record, reason):
    good = msgpack.packb({"a": 1, "label": 1})
    batch, (rejected,) = CODEC.decode([good, record, good], "f:{}".format)
    assert (rejected.reason, rejected.data) == (reason, record)
    assert list(batch.rows) == [{"a": 1}, {"a": 1}]


@pytest.mark.parametrize(
    "record",
    [
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",
        b"\x81\xa1a\xd7\xff" + b"\xff" * 8,
        msgpack.packb({"a": b"bytes", "label": 1}),
        msgpack.packb({"a": msgpack.ExtType(5, b"x"), "label": 1}),
        msgpack.packb({"a": msgpack.Timestamp(2**62, 0), "label": 1}),
    ],
)
def test_hostile_record(record):
    batch, (rejected,) = CODEC.decode([record], "f:{}".format)
    assert len(batch) == 0
    assert "\n" not in rejected.reason
    assert len(rejected.reason) < 300
