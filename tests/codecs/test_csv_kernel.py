"""The kernel against the way by strings: whatever the records are, nobody can tell which one read them."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codecs.csv import CSV
from penstock.codecs.fields import Fields
from penstock.codecs.spans import Spans
from penstock.events import Task

COLUMNS = ["a", "b", "c", "label", "w", "t", "i", "größe", " 17 "]
ROLES = {"weight": "w", "time": "t", "id": "i"}
CODECS = [
    CSV(fields, columns=COLUMNS, delimiter=delimiter, missing=missing, multiline=multiline)
    for fields, delimiter, missing, multiline in (
        (Fields(Task("binary")), ",", ("",), False),
        (Fields(Task("binary"), types={"a": "number", "b": "category"}, ignore=["c"]), ",", ("",), True),
        (
            Fields(Task("binary"), classes=["no", "1"], weight="w", require_label=False),
            ";",
            ("", "NA"),
            False,
        ),
        (Fields(Task("multiclass"), **ROLES), "\t", ("", "?", "0", "ä"), False),
        (Fields(Task("multiclass"), label="b", types={"i": "category"}), ",", (), False),
        (Fields(Task("regression"), **ROLES, types={"größe": "number"}), "|", ("",), True),
        (Fields(Task("regression"), label="x", require_label=False, time="t"), " ", ("NA",), False),
    )
]
UNUSUAL = CSV(Fields(Task("binary")), columns=COLUMNS, delimiter=".")  # which is no job for the kernel

WORDS = ["SE", "cou0044", "05db9164", "04e09220", "7e99999", "1e-400", "no", "ärger", "日本", "\U0001f600"]
WORDS += ["2024-05-01", "2024-05-01T12:30:00Z", "2024-13-01", "a b", " x ", "\u2028", "\ufeff", "7 7", "\x7f"]
ODD_WORDS = [
    "nan",
    "-inf",
    "Infinity",
    "+NaN",
    "tab\there",
    'quo"ted',
    "cr\rhere",
    "lf\nhere",
    "nul\0",
    "true",
]
ODD_WORDS += ["long " * 60, "1_000", "0x1F", "\u0661", "\xa05", " 12 ", "\t3\v", "- 1", "--1", "TRUE"]
NUMBERS = ["0", "1", "-1", "31", "+7", "007", "-0", "-0.0", "2.5", ".5", "5.", "1e3", "1E-3", "1.0", "-1e0"]
ODD_NUMBERS = ["1e18", "1e19", "1000000000000000000", "1000000000000000001", "9" * 19, "9" * 20, "9" * 400]
ODD_NUMBERS += ["1.", ".", "+", "-", "1e", "1e+", "e5", "1.5x", "0e99999", "4.9e-324", "2e-324", "1e400"]
ODD_NUMBERS += ["0." + "0" * 350 + "1e200", "0." + "0" * 400 + "1e5", "9007199254740993.0", "1e22", "1e23"]
ODD_NUMBERS += [
    "0.1234567890123456789",
    "2.2250738585072011e-308",
    "00000000000000000000001",
    "1.7e308",
    "1e101",
]


def in_one_block(records):
    """Return the same records as stretches of a block; what is between them would go on with it."""
    between = b'5",'
    ends = np.cumsum([len(record) + len(between) for record in records], dtype=np.int64) - len(between)
    spans = Spans()
    spans.append(between.join(records), np.stack([ends - [len(record) for record in records], ends], axis=1))
    return spans


def assert_same(codec, records):
    where = "a.csv:{}".format
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
    assert repr(batch.rows) == repr(expected.rows)  # not ==: 1 is not 1.0 here
    assert rejected == expected_rejected
    assert [letter.after for letter in rejected] == [letter.after for letter in expected_rejected]


class Writer:
    """Writes CSV that is likely to be wrong in one place, or unusual, or neither."""

    def __init__(self, seed, oddity, delimiter):
        self.rng = random.Random(seed)
        self.oddity = oddity
        self.delimiter = delimiter

    def is_odd(self):
        return self.rng.random() < self.oddity

    def word(self):
        return self.rng.choice(ODD_WORDS if self.is_odd() else WORDS)

    def number(self):
        if self.rng.random() < 0.5:
            return repr(self.rng.choice((self.rng.gauss(0, 50), round(self.rng.gauss(0, 9), 4), 3)))
        return self.rng.choice(ODD_NUMBERS if self.is_odd() else NUMBERS)

    def cell(self, name):
        if self.is_odd():
            return self.rng.choice((self.word, self.number, lambda: "", lambda: "NA", lambda: "?"))()
        if name in ("label", "w"):
            return self.rng.choice(("0", "1", "1", "-1" if name == "label" else "2.5"))
        if name == "t":
            return self.rng.choice(("12", "1.5e9", "2024-05-01T12:30:00Z", "1970-01-01"))
        return self.rng.choice((self.word, self.number, self.number, lambda: ""))()

    def written(self, cell):
        must = self.delimiter in cell or cell.startswith('"') or "\r" in cell or "\n" in cell
        if (must and not self.is_odd()) or self.rng.random() < 0.1:
            return '"' + cell.replace('"', '""') + '"'
        return cell

    def record(self):
        cells = [self.written(self.cell(name)) for name in COLUMNS]
        while self.is_odd() and self.is_odd():
            cells = self.rng.choice((cells[:-1], [*cells, "x"], []))
        end = "\r" if self.rng.random() < 0.1 else ""
        data = bytearray((self.delimiter.join(cells) + end).encode())
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
            data[at:at] = bytes([self.rng.choice(b'"",;\t| \r\n0-.eE+\xc3\xed\x00')])
        elif how == 3:
            data[at] ^= 1 << self.rng.randrange(8)
        else:
            other = self.rng.randrange(len(data))
            data[at:at] = data[other : other + self.rng.randrange(1, 20)]


def fuzz(codec, seed, n):
    writer = Writer(seed, (0.01, 0.05, 0.3)[seed % 3], codec._delimiter)
    return [writer.record() for _ in range(n)]


@pytest.mark.parametrize("codec", CODECS)
def test_generated_and_mutated_records(codec):
    for seed in range(12):
        assert_same(codec, fuzz(codec, seed, 250))


@pytest.mark.statistics
@pytest.mark.parametrize("codec", CODECS)
def test_a_million_records(codec):
    for seed in range(300):
        assert_same(codec, fuzz(codec, 1_000_000 + seed, 500))


@pytest.mark.parametrize("codec", CODECS)
def test_most_ordinary_records_are_read_by_the_kernel(codec):
    cells = ["31", "SE", "x", "1", "2", "2024-05-01", "id", "0.25", '"quoted ""twice"""']
    record = codec._delimiter.join(cells).encode()
    kept, declined = codec._reader.read([record, record + b"\r"])[-2:]
    assert (len(kept), len(declined)) == (2, 0)


def test_a_delimiter_that_can_be_in_a_number_is_no_job_for_the_kernel():
    assert not UNUSUAL.is_native
    assert_same(UNUSUAL, [b"1.2.3.1.5.6.7.8.9", b"1.2.3.x.5.6.7.8.9"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.text(max_size=8), min_size=8, max_size=9), max_size=5), st.booleans())
def test_any_cells(records, is_quoted):
    for codec in CODECS:
        lines = []
        for cells in records:
            written = ['"' + cell.replace('"', '""') + '"' if is_quoted else cell for cell in cells]
            lines.append(codec._delimiter.join(written).encode(errors="surrogatepass"))
        assert_same(codec, lines)


@settings(max_examples=200, deadline=None)
@given(st.floats(), st.integers(0, 25), st.integers(-330, 330))
def test_numbers_are_rounded_correctly(value, digits, power):
    texts = [repr(value), f"{value:.{digits}e}", f"{value:.{digits}f}", f"{digits}.{abs(power)}e{power}"]
    codec = CODECS[5]
    assert_same(
        codec, ["|".join([text, "x", "1", text, "1", text, "i", text, "2"]).encode() for text in texts]
    )


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(records):
    for codec in CODECS:
        assert_same(codec, records)


def test_records_that_are_cut_off_in_a_block_that_goes_on():
    for codec in CODECS:
        cells = ["12345678.12345678", "-1.5", "eight ch", "1", "0.123456789", "12", "", '"quoted"', "31.25"]
        block = codec._delimiter.join(cells).encode()
        cut = Spans()
        cut.append(block, np.array([[0, end] for end in (len(block), *range(len(block) + 1))]))
        assert_equal(codec.decode(cut, str), codec._decode(list(cut), str))
        assert_same(codec, list(cut))


def test_cells_that_are_longer_than_the_reader_takes():
    for length in (131_060, 131_072, 131_073, 140_000):
        assert_same(CODECS[0], [b"1,2,3,1,5,6,7,8," + b"x" * length, b"1,2,3,1,5,6,7,8,9"])


def test_rows_are_made_once_and_shared_by_slices():
    batch, _ = CODECS[0].decode([b"%d,,,1,,,,," % i for i in range(5)], str)
    assert batch.slice(1, 3).rows[0] is batch.rows[1]
    assert [row["a"] for row in batch.slice(2, 5).rows] == [2, 3, 4]
    assert batch.take(np.array([3, 0])).rows == [{"a": 3}, {"a": 0}]
