"""Lines that stay where they are, against the framer that cuts them out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._native.lines import cut_lines
from penstock.codecs.framing import Lines
from penstock.codecs.spans import LineSpans, Spans

PIECES = st.lists(
    st.lists(st.sampled_from([b"\n", b"a", b" ", b"\r", b"\t", b"bcd", b"0123456789" * 3]), max_size=12).map(
        b"".join
    )
    | st.integers(900, 1200).map(lambda n: b"x" * n),
    max_size=8,
)


def frames_of(framer, n):
    frames = framer.take(n)
    return list(frames.records), list(frames.numbers), frames.oversize, framer.offset, framer.number


@settings(max_examples=300, deadline=None)
@given(PIECES, st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from([5, 29, 30, 1100, 5000]))
def test_the_same_as_lines_cut_out(pieces, sizes, limit):
    ours, theirs = LineSpans(limit, 7, 3), Lines(limit, 7, 3)
    for i, piece in enumerate(pieces):
        ours.feed(piece)
        theirs.feed(piece)
        n = sizes[i % len(sizes)]
        assert frames_of(ours, n) == frames_of(theirs, n)
    ours.end()
    theirs.end()
    for _ in range(40):
        assert frames_of(ours, sizes[0] + 1) == frames_of(theirs, sizes[0] + 1)


def test_records_of_many_blocks_are_one_sequence():
    records = Spans()
    for block in (b"one\ntwo\n", b"\n", b"three\n"):
        records.append(block, cut_lines(block, 0, 10, 100, False)[0])
    assert list(records) == [b"one", b"two", b"three"]
    assert [records[i] for i in range(3)] == list(records)
    assert (len(records), records.n_bytes, records[-1], records[1:]) == (3, 11, b"three", [b"two", b"three"])
    with pytest.raises(IndexError):
        records[3]


def test_a_line_that_never_ends_is_not_held():
    framer = LineSpans(limit=2000)
    for _ in range(1000):
        framer.feed(b"x" * 999)
        assert framer.take(5).oversize is None
        assert len(framer._block) < 4000
    framer.feed(b"\nnext\n")
    frames = framer.take(5)
    assert frames.oversize is not None
    assert (frames.oversize.number, frames.oversize.length, frames.oversize.head) == (1, 999_000, b"x" * 1024)
    assert list(framer.take(5).records) == [b"next"]
