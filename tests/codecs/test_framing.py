import csv
import io
import itertools
import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codecs.csv import _open_quotes
from penstock.codecs.framing import Lines, Packed, _Passage
from penstock.errors import DataError


def pieces(data, cuts):
    """Cut `data` at the given places."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def drain(framer, n=1000):
    """Take everything, noting where each take ended."""
    records, ends = [], []
    while True:
        frames = framer.take(n)
        if not frames.records and frames.oversize is None:
            return records, ends
        records += zip(frames.numbers, frames.records, strict=True)
        if frames.oversize is not None:
            records.append(frames.oversize)
        ends.append((framer.offset, framer.number))


def slow_lines(data, limit):
    """Return what `Lines` shall give: number and line, or number, head and length of a long one."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if len(line) > limit:
            yield (number, line[:1024], len(line))
        elif line.strip(b" \r"):
            yield (number, line)


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b" ", b"\r", b"\t\t", b"a,b", b"0123456789" * 3]),
        st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")),
    ),
    max_size=12,
).map(b"\n".join)
CUTS = st.lists(st.integers(0, 1000), max_size=6)


@given(data=LINES, cuts=CUTS, limit=st.sampled_from([1, 9, 25, 1000]), n=st.integers(1, 5))
def test_lines_match_split(data, cuts, limit, n):
    framer = Lines(limit)
    for piece in pieces(data, cuts):
        framer.feed(piece)
    framer.end()
    records, _ = drain(framer, n)
    assert [tuple(record) for record in records] == list(slow_lines(data, limit))
    assert framer.offset <= len(data)
    assert not data[framer.offset :].strip(b" \r\n")


@given(data=LINES, cuts=CUTS, n=st.integers(1, 5))
def test_lines_resume_at_every_offset(data, cuts, n):
    whole = Lines(25)
    whole.feed(data)
    whole.end()
    expected, _ = drain(whole, 1)
    framer = Lines(25)
    for piece in pieces(data, cuts):
        framer.feed(piece)
    framer.end()
    _, ends = drain(framer, n)
    for offset, number in ends:
        later = Lines(25, offset, number)
        later.feed(data[offset:])
        later.end()
        rest, _ = drain(later)
        assert rest == [record for record in expected if record[0] > number]


def test_lines_hold_back_an_unfinished_line():
    framer = Lines(100)
    framer.feed(b"one\ntw")
    assert framer.take(9).records == [b"one"]
    assert framer.take(9).records == []
    framer.feed(b"o\n")
    assert framer.take(9) == ([b"two"], [2], None)


def test_a_long_line_is_not_held():
    framer = Lines(limit=2000)
    framer.feed(b"x" * 1500)
    for _ in range(1000):
        framer.feed(b"y" * 1000)
        assert sum(map(len, framer._tail)) <= 2500
    framer.feed(b"\nnext\n")
    frames = framer.take(10)
    assert frames.records == []
    assert frames.oversize == (1, b"x" * 1024, 1_001_500)
    assert framer.take(10).records == [b"next"]
    assert framer.offset == 1_001_500 + 1 + 5


def test_long_record_over_several_quoted_lines():
    framer = Lines(8, is_open=_open_quotes(","))
    framer.feed(b'a\n"bcd\nefg\nhij\nk\n')
    assert framer.take(9) == ([b"a"], [1], (2, b'"bcd\nefg\nhij', 12))
    assert framer.take(9) == ([b"k"], [5], None)
    assert framer.offset == 17


CELLS = st.lists(
    st.lists(st.text(alphabet='ab",\n ', max_size=6), min_size=1, max_size=4), min_size=1, max_size=8
).map(lambda rows: [row for row in rows if len(row) > 1 or row[0].strip()])


@given(rows=CELLS, cuts=CUTS, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_quoted_line_ends_match_the_csv_module(rows, cuts, quoting):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    framer = Lines(1000, is_open=_open_quotes(","))
    for piece in pieces(text.getvalue().encode(), cuts):
        framer.feed(piece)
    framer.end()
    records, _ = drain(framer, 2)
    assert [next(csv.reader([record.decode()])) for _, record in records] == rows


def test_quotes_inside_a_field_open_nothing():
    is_open = _open_quotes(",")
    for line in (b'5" pipe', b'a,5"', b'"a""b"', b'"a",b', b'""', b"", b'x","y'):
        assert is_open(line, False) is (line == b'x","y'), line
    assert is_open(b'a,"b', False)
    assert is_open(b'"a""', False)
    assert is_open(b"a,b", True)
    assert is_open(b'a","b', True)
    assert not is_open(b'a",b', True)


def test_quotes_cost_the_length_of_the_line():
    is_open = _open_quotes(",")
    for line in (b'"' * 400_001, b'"",' * 130_000, b'a","' * 100_000, b'"a"b"c",' * 50_000):
        is_open(line, False)
        is_open(line, True)


# -- MessagePack

OBJECTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=40),
        st.binary(max_size=300),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    ),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=8,
)


@given(objects=st.lists(OBJECTS, max_size=6), cuts=CUTS, limit=st.sampled_from([1, 10, 100, 10_000]))
def test_packed_matches_the_objects(objects, cuts, limit):
    records = [msgpack.packb(value) for value in objects]
    framer = Packed(limit)
    for piece in pieces(b"".join(records), cuts):
        framer.feed(piece)
    framer.end()
    found, ends = drain(framer, 2)
    assert [tuple(record) for record in found] == [
        (i, record) if len(record) <= limit else (i, record[:1024], len(record))
        for i, record in enumerate(records, start=1)
    ]
    if records:
        assert ends[-1] == (sum(map(len, records)), len(records))


@given(value=OBJECTS, cuts=CUTS)
def test_passage_finds_the_end(value, cuts):
    data = msgpack.packb(value)
    passage = _Passage()
    buffer = b""
    for piece in pieces(data + b"\x01\x02", cuts):
        buffer += piece
        buffer = buffer[passage.walk(buffer) :]
    assert passage.finished
    assert passage.length == len(data)


def test_a_record_nested_too_deep_is_passed_over():
    framer = Packed(1 << 20)
    framer.feed(b"\x91" * 3000 + b"\x01" + msgpack.packb({"a": 1}))
    assert framer.take(9) == ([], range(1, 1), (1, b"\x91" * 1024, 3001))
    assert framer.take(9).records == [msgpack.packb({"a": 1})]


@pytest.mark.parametrize(
    "header", [b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xfe\x01"]
)
def test_a_hostile_length_allocates_nothing(header):
    framer = Packed(1000)
    framer.feed(b"\x01" + header)
    for _ in range(50):
        framer.feed(bytes(1000))
        assert len(framer._buffer) <= 2000
    assert framer.take(9).records == [b"\x01"]
    with pytest.raises(DataError, match=r"^the record at byte 1 is cut off: the file ends inside it$"):
        framer.end()


def test_a_byte_that_begins_nothing_ends_the_stream_behind_the_good_records():
    framer = Packed(1000)
    with pytest.raises(
        DataError, match=r"^the record at byte 4 is not MessagePack, so nobody can tell where it ends$"
    ):
        framer.feed(msgpack.packb({"a": 1}) + b"\xc1" + msgpack.packb({"b": 1}))
    assert framer.take(9).records == [msgpack.packb({"a": 1})]


def test_packed_arbitrary_bytes():
    rng = random.Random(0)
    for _ in range(300):
        framer = Packed(50)
        try:
            for _ in range(5):
                framer.feed(rng.randbytes(30))
            framer.end()
        except DataError:
            pass
        drain(framer, 3)
        assert framer.offset <= 150
