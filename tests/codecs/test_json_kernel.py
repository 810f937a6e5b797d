"""The kernel against the way by dicts: whatever the records are, nobody can tell which one read them."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codecs.fields import Fields
from penstock.codecs.json import JSON
from penstock.codecs.spans import Spans
from penstock.events import Task

CODECS = [
    JSON(fields)
    for fields in (
        Fields(Task("binary")),
        Fields(Task("binary"), require_label=False, ignore=["a"], types={"b": "category", "c": "number"}),
        Fields(Task("binary"), label="b", classes=["no", "1"], weight="weight", require_label=False),
        Fields(Task("multiclass"), weight="w", time="t", id="i"),
        Fields(Task("multiclass"), label="a", features="c", require_label=False),
        Fields(Task("regression"), features="features", id="id", types={"a": "number", "b": "category"}),
        Fields(Task("regression"), label="b", time="time", require_label=False),
        Fields(Task("binary"), label="features"),  # which is no job for the kernel
    )
]
NAMES = ["a", "b", "c", "label", "weight", "time", "id", "features", "w", "t", "i", "17", " a ", "", "größe"]
NAMES += ["name of thirty-two characters ...", "\\u0061", "a\\n", "\\ud83d\\ude00", "a\\u0000", "no", "x"]
STRINGS = [
    "",
    "no",
    "1",
    "SE",
    "cou0044",
    "-0",
    "ärger",
    "日本",
    "\U0001f600",
    "\\u00e9",
    '\\/\\b\\t\\\\ \\"',
]
STRINGS += ["2024-05-01T12:30:00Z", "1970-01-01", "2024-13-01", "\\ud800", "\\udc00", "\\ud83d\\ude00", "7 7"]
STRINGS += ["\\u12", "\\x", "tab\there", "long " * 9, "nan", "\x7f", "\\uD83D\\u0041"]
NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1",
    "-1",
    "1.0",
    "31",
    "2.5",
    "-1e0",
    "1e18",
    "1e19",
    "1000000000000000001",
]
NUMBERS += [
    "999999999999999999",
    "123456789012345678901234567890",
    "1e400",
    "-1E+5",
    "1e-400",
    "4.9e-324",
    "01",
]
NUMBERS += ["1.", ".5", "+1", "1e", "0.1234567890123456789", "9007199254740993.0", "2.2250738585072011e-308"]
NUMBERS += ["1e22", "1e23", "1e-22", "0e99999", "-", "NaN", "Infinity", "0.30000000000000004", "179769.3e303"]
WORDS = ["true", "false", "null", "True", "nul", "undefined"]
SPACES = ["", "", "", " ", "\t", "\n", "\r", "  ", "\x0c"]


def in_one_block(records):
    """Return the same records as stretches of a block; what is between them would go on with it."""
    between = b'5"}'
    ends = np.cumsum([len(record) + len(between) for record in records], dtype=np.int64) - len(between)
    spans = Spans()
    spans.append(between.join(records), np.stack([ends - [len(record) for record in records], ends], axis=1))
    return spans


def assert_same(codec, records):
    where = "a.jsonl:{}".format
    expected = codec._decode(records, where)
    assert_equal(codec.decode(records, where), expected)
    assert_equal(codec.decode(in_one_block(records), where), expected)


def assert_equal(decoded, expected_decoded):
    (batch, rejected), (expected, expected_rejected) = decoded, expected_decoded
    for name in ("indptr", "indices", "values", "namespaces"):
        ours, theirs = getattr(batch.features, name), getattr(expected.features, name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes(), name
    assert batch.labels.dtype == expected.labels.dtype
    if batch.labels.dtype == object:
        assert batch.labels.tolist() == expected.labels.tolist()
        assert {type(label) for label in batch.labels} <= {str}
    else:
        assert batch.labels.tobytes() == expected.labels.tobytes()
    assert batch.weights.tobytes() == expected.weights.tobytes()
    assert batch.times.tobytes() == expected.times.tobytes()
    assert batch.ids == expected.ids
    assert repr(batch.rows) == repr(expected.rows)  # not ==: 1 is not 1.0 here, and NaN is itself
    assert rejected == expected_rejected
    assert [letter.after for letter in rejected] == [letter.after for letter in expected_rejected]


class Writer:
    """Writes JSON that is likely to be wrong in one place, or unusual, or neither."""

    def __init__(self, seed, oddity):
        self.rng = random.Random(seed)
        self.oddity = oddity

    def space(self):
        return self.rng.choice(SPACES[: 9 if self.is_odd() else 3])

    def is_odd(self):
        return self.rng.random() < self.oddity

    def name(self):
        return self.rng.choice(NAMES if self.is_odd() else NAMES[:11])

    def value(self, depth=0):
        kind = self.rng.random()
        if kind < 0.3:
            return f'"{self.rng.choice(STRINGS if self.is_odd() else STRINGS[:9])}"'
        if kind < 0.7:
            if self.rng.random() < 0.5:
                return repr(self.rng.choice((self.rng.gauss(0, 50), round(self.rng.gauss(0, 9), 4), 3)))
            return self.rng.choice(NUMBERS if self.is_odd() else NUMBERS[:11])
        if kind < 0.82 or depth > 3:
            return self.rng.choice(WORDS if self.is_odd() else WORDS[:3])
        if kind < 0.9:
            return self.mapping(depth + 1)
        return self.sequence("[]", [self.value(depth + 1) for _ in range(self.rng.randrange(4))])

    def sequence(self, brackets, parts):
        comma = ",," if self.is_odd() and self.is_odd() else ","
        return brackets[0] + self.space() + comma.join(self.space() + part for part in parts) + brackets[1]

    def mapping(self, depth=0):
        return self.sequence("{}", [self.member(depth) for _ in range(self.rng.randrange(7))])

    def member(self, depth, name=None):
        return f'"{name or self.name()}"{self.space()}:{self.space()}{self.value(depth)}'

    def record(self):
        members = [self.member(0) for _ in range(self.rng.randrange(8))]
        members.append(f'"{self.rng.choice(("label", "b", "a"))}":{self.rng.choice((0, 1))}')
        for name in ("w", "t", "i"):
            if self.rng.random() < 0.7:
                members.append(
                    f'"{name}":{self.rng.choice((2, 0.5, "2024-05-01T12:30:00Z", 7))!r}'.replace("'", '"')
                )
        if self.rng.random() < 0.4:
            members.append(f'"{self.rng.choice(("features", "c"))}":{self.mapping(1)}')
        self.rng.shuffle(members)
        data = bytearray(self.sequence("{}", members).encode())
        while self.is_odd() and self.is_odd() and data:
            self.mutate(data)
        return bytes(data)

    def mutate(self, data):
        at = self.rng.randrange(len(data))
        how = self.rng.randrange(5)
        if how == 0:
            data[at] = self.rng.randrange(256)
        elif how == 1:
            del data[at : at + self.rng.choice((1, 1, 4, 400))]
        elif how == 2:
            data[at:at] = bytes([self.rng.choice(b'"\\{}[]:,0-.eE+ \xc3\xed\x00')])
        elif how == 3:
            data[at] ^= 1 << self.rng.randrange(8)
        else:
            other = self.rng.randrange(len(data))
            data[at:at] = data[other : other + self.rng.randrange(1, 20)]


def fuzz(seed, n):
    writer = Writer(seed, oddity=(0.02, 0.1, 0.3)[seed % 3])
    return [writer.record() for _ in range(n)]


@pytest.mark.parametrize("codec", range(len(CODECS)))
def test_generated_and_mutated_records(codec):
    for seed in range(12):
        assert_same(CODECS[codec], fuzz(1000 * codec + seed, 300))


@pytest.mark.statistics
@pytest.mark.parametrize("codec", range(len(CODECS)))
def test_millions_of_records(codec):
    for seed in range(500):
        assert_same(CODECS[codec], fuzz(1_000_000 + 1000 * codec + seed, 500))


def test_most_ordinary_records_are_read_by_the_kernel():
    records = [
        json.dumps({"id": i, "time": 1.5, "features": {"x": i / 7, "ü": ["é", {"y": True}]}, "label": i % 2})
        for i in range(50)
    ]
    kept, declined = CODECS[0]._reader.read([record.encode() for record in records])[-2:]
    assert (len(kept), len(declined)) == (50, 0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(NAMES[:15]) | st.text(max_size=4), VALUES, max_size=6), max_size=5
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_any_value(records, ascii_only, indent):
    texts = [json.dumps(record, ensure_ascii=ascii_only, indent=indent) for record in records]
    lines = [text.encode(errors="surrogatepass") for text in texts]
    for codec in CODECS:
        assert_same(codec, lines)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 25), st.integers(-30, 30))
def test_numbers_are_rounded_correctly(value, digits, power):
    texts = [
        repr(value),
        f"{value:.{digits}e}",
        f"{value:.{digits}f}"[:300],
        f"{digits}.{abs(power)}e{power}",
    ]
    assert_same(CODECS[6], [f'{{"b":{text},"x":{text},"time":{text}}}'.encode() for text in texts])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(records):
    assert_same(CODECS[0], records)


def test_records_that_are_cut_off_in_a_block_that_goes_on():
    block = (
        b'{"label":1,"x":"seven c","thirteen char":-12.5,"fourteen chars":"sixteen of them.","b":"","c":0,'
        b'"name of thirty-two characters ...":12345678.12345678,"d":["x",123456789,1.123456789,-0],"e":"end"}'
    )
    cut = Spans()
    cut.append(block, np.array([[0, end] for end in (len(block), *range(len(block) + 1))]))
    for codec in CODECS:
        assert_equal(codec.decode(cut, str), codec._decode(list(cut), str))
        assert_same(codec, list(cut))


def test_nesting_at_every_depth():
    for brackets in ("[]", '{"a":}'):
        opening, closing = brackets[:-1], brackets[-1]
        records = [
            f'{{"label":1,"a":{opening * depth}1{closing * depth},"b":[{opening * depth}2{closing * depth}]}}'
            for depth in [*range(40), 1100]
        ]
        assert_same(CODECS[0], [record.encode() for record in records])


def test_names_that_change_from_record_to_record():
    rng = random.Random(5)
    names = [f"feature {i}" for i in range(9000)]  # more than the kernel remembers
    records = [
        {
            "label": 1,
            **{name: i for i, name in enumerate(rng.sample(names, 20))},
            "n": dict.fromkeys(names[i : i + 40], 1),
        }
        for i in range(800)
    ]
    lines = [json.dumps(record).encode() for record in records]
    twice = [line[:-1] + b',"feature 3":1,"feature 8999":2,"feature 3":3}' for line in lines]
    codec = JSON(Fields(Task("binary")))
    assert_same(codec, lines)
    assert_same(codec, twice)
    assert_same(codec, [json.dumps({"label": 1, **dict.fromkeys(names[-1500:], 2)}).encode()])


def test_dates_that_are_none_are_declined():
    codec = JSON(Fields(Task("binary"), time="t"))
    times = ["2024-05-01", "never", "2024-05-01T01:02:03.25+02:00", "", "2024-02-30", 12, None]
    assert_same(codec, [json.dumps({"label": 1, "t": time, "x": 1}).encode() for time in times])


def test_rows_are_made_once_and_shared_by_slices():
    batch, _ = CODECS[0].decode([b'{"label":1,"x":%d}' % i for i in range(5)], str)
    assert batch.slice(1, 3).rows[0] is batch.rows[1]
    assert [row["x"] for row in batch.slice(2, 5).rows] == [2, 3, 4]
    assert list(batch.rows)[4] is batch.rows[-1]
    assert batch.take(np.array([3, 0])).rows == [{"x": 3}, {"x": 0}]
    with pytest.raises(IndexError):
        batch.rows[5]


def test_names_that_hash_alike_are_told_apart():
    records = [
        b'{"label":1,"a":{"x":1,"":{"x":2,"y":3},"x":4}}',
        b'{"label":1,"a":{"x":1,"0":{"x":2,"y":3},"x":4}}',
        b'{"label":1,"":{"label":2,"":{"label":3},"label":4}}',
        b'{"label":1,"a":[{"x":1},{"x":2}],"a ":3," a":4,"01":5,"1":6}',
    ]
    assert_same(CODECS[0], records)
