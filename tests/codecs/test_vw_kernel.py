"""The kernel against the way by strings: whatever the lines are, nobody can tell which one read them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codecs.fields import Fields
from penstock.codecs.vw import VW
from penstock.events import Task

CODECS = [
    VW(fields)
    for fields in (
        Fields(Task("binary")),
        Fields(Task("binary"), classes=["no", "1"], require_label=False),
        Fields(Task("multiclass")),
        Fields(Task("regression"), require_label=False),
    )
]
HEADS = ["1 ", "0 ", "-1 ", "1 2.0 ", "1 0.5 'tag", "1 'tag ", "1 1 0 tag", "no  ", "-1 2 0 "]
ODD_HEADS = [
    "",
    " ",
    "1",
    "1 -2 ",
    "1 2 3 ",
    "1 2 0 4 ",
    "1 2 0 4 tag",
    "'t ",
    "2 ",
    "nan ",
    "\t1 ",
    "junk\t1 ",
]
ODD_HEADS += [
    "1 1e19 ",
    "true ",
    "cat ",
    "1e400 ",
    "1\r ",
    "ä ",
    "1 '",
    "''x ",
    "1_0 ",
    "+1 ",
    " 1 ",
    "1 0x1 ",
]
NAMES = ["a", "b", "age", "17", "größe", "x^y", "a=b"]
ODD_NAMES = ["", "|", "a\x00b", "\x0b", "\u2028", "e5", "nan", " ", "\t", "'"]
VALUES = ["", ":1", ":2.5", ":-1e3", ":SE", ":0", ":31", ":0.30000000000000004", ":.5", ":ok"]
ODD_VALUES = [
    ":",
    ":nan",
    ":inf",
    ":1.5x",
    ":e5",
    ":1e19",
    ":1e400",
    ":1e-400",
    ":1:2",
    ":a:b",
    ":+",
    ":-",
    ":.",
]
ODD_VALUES += [
    ":.e",
    ":-x",
    ":\x0bx",
    ":ä",
    ":infinite",
    ":1e18",
    ":-0",
    ":-0.0",
    ":" + "9" * 30,
    ":x|y",
    "::",
    ":e-",
]


def assert_same(codec, records):
    batch, rejected = codec.decode(records, "a.vw:{}".format)
    expected, expected_rejected = codec._decode(records, "a.vw:{}".format)
    for name in ("indptr", "indices", "values", "namespaces"):
        ours, theirs = getattr(batch.features, name), getattr(expected.features, name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes(), name
    assert batch.labels.dtype == expected.labels.dtype
    if batch.labels.dtype == object:
        assert batch.labels.tolist() == expected.labels.tolist()
    else:
        assert batch.labels.tobytes() == expected.labels.tobytes()
    assert batch.weights.tobytes() == expected.weights.tobytes()
    assert batch.times.tobytes() == expected.times.tobytes()
    assert batch.ids == expected.ids
    assert repr(batch.rows) == repr(expected.rows)
    assert batch.lines == expected.lines
    assert rejected == expected_rejected
    assert [letter.after for letter in rejected] == [letter.after for letter in expected_rejected]


class Writer:
    """Writes lines that are likely to be wrong in one place, or unusual, or neither."""

    def __init__(self, seed, oddity):
        self.rng = random.Random(seed)
        self.oddity = oddity

    def is_odd(self):
        return self.rng.random() < self.oddity

    def choice(self, usual, odd):
        return self.rng.choice(odd if self.is_odd() else usual)

    def namespace(self):
        scale = self.rng.choice(("", "", ":2", ":0.5")) if not self.is_odd() else self.rng.choice(ODD_VALUES)
        name = self.rng.choice(("", " ", "f", "user")) + scale
        features = [self.choice(NAMES, ODD_NAMES) + self.choice(VALUES, ODD_VALUES) for _ in range(3)]
        return "|" + self.choice((" ",), ("\t", "  ", "\r", "\n")).join([name, *features])

    def record(self):
        text = self.choice(HEADS, ODD_HEADS) + "".join(self.namespace() for _ in range(self.rng.randrange(4)))
        data = bytearray(text.encode() + self.rng.choice((b"", b"", b"\r", b"\r\n")))
        while self.is_odd() and self.is_odd() and data:
            self.mutate(data)
        return bytes(data)

    def mutate(self, data):
        at = self.rng.randrange(len(data))
        how = self.rng.randrange(4)
        if how == 0:
            data[at] = self.rng.randrange(256)
        elif how == 1:
            del data[at : at + self.rng.choice((1, 1, 4, 400))]
        elif how == 2:
            data[at:at] = bytes([self.rng.choice(b"||:: \t\r\n'0-.eE+\xc3\xed\x00")])
        else:
            data[at] ^= 1 << self.rng.randrange(8)


def fuzz(seed, n):
    writer = Writer(seed, (0.01, 0.05, 0.3)[seed % 3])
    return [writer.record() for _ in range(n)]


@pytest.mark.parametrize("codec", CODECS)
def test_generated_and_mutated_lines(codec):
    for seed in range(15):
        assert_same(codec, fuzz(seed, 300))


@pytest.mark.statistics
@pytest.mark.parametrize("codec", CODECS)
def test_a_million_lines(codec):
    for seed in range(500):
        assert_same(codec, fuzz(1_000_000 + seed, 500))


@pytest.mark.parametrize("codec", CODECS)
def test_most_ordinary_lines_are_read_by_the_kernel(codec):
    lines = [b"1 2.0 'tag|user:2 age:31 country:SE x | :3 size:.5", b"1 |a b\r"]
    kept, declined = codec._reader.read(lines)[-2:]
    assert (len(kept), len(declined)) == (2, 0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=12) | st.text(alphabet="|: \t'1e.-na", max_size=16), max_size=6))
def test_any_text(texts):
    for codec in CODECS:
        assert_same(codec, [text.encode(errors="surrogatepass") for text in texts])
        assert_same(codec, [b"1 |f " + text.encode(errors="surrogatepass") for text in texts])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(records):
    for codec in CODECS:
        assert_same(codec, records)


@settings(max_examples=100, deadline=None)
@given(st.floats(), st.integers(0, 25), st.integers(-330, 330))
def test_numbers_are_rounded_correctly(value, digits, power):
    texts = [repr(value), f"{value:.{digits}e}", f"{value:.{digits}f}", f"{digits}.{abs(power)}e{power}"]
    assert_same(CODECS[3], [f"{text} {text} |a:{text} b:{text}".encode() for text in texts])


def test_rows_and_lines_are_made_once_and_shared_by_slices():
    batch, _ = CODECS[0].decode([b"1 |f x:%d" % i for i in range(5)], str)
    part = batch.slice(1, 3)
    assert part.lines[0] is batch.lines[1]
    assert part.rows[0] is batch.rows[1]
    assert list(part.lines) == ["|f x:1", "|f x:2"]
