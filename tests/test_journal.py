"""What was appended comes back; what was torn off is cut; what was damaged is never believed."""

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import journal
from penstock.errors import StoreError
from penstock.journal import Journal, Run

OFFSETS = st.integers(0, 2**53)
RUNS = st.builds(
    lambda topic, partition, first, width, size: Run(topic, partition, first, first + width, size),
    st.sampled_from(["clicks", "views", "ü" * 100]),
    st.integers(0, 10_000),
    OFFSETS,
    st.integers(0, 10_000),
    st.integers(0, 10_000),
)
ENTRIES = st.lists(st.lists(RUNS, min_size=1, max_size=5), max_size=8)


def write(path, entries, **options):
    with Journal(path, **options) as written:
        for runs in entries:
            written.append(runs)


def content(path, start=0, stop=None):
    return [list(runs) for _, runs in journal.read(path, start, stop)]


def few(n):
    return [[Run("clicks", i % 3, i * 10, i * 10 + 9, 10)] for i in range(n)]


@settings(max_examples=30, deadline=None)
@given(ENTRIES, st.integers(1, 300))
def test_what_was_appended_comes_back(tmp_path_factory, entries, segment_bytes):
    path = tmp_path_factory.mktemp("journal")
    for runs in entries:  # opened anew for each
        write(path, [runs], segment_bytes=segment_bytes)
    write(path, [])
    assert content(path) == entries
    for start in range(len(entries) + 1):
        assert content(path, start) == entries[start:]
        assert content(path, 0, start) == entries[:start]


def test_cut_at_every_byte(tmp_path):
    """Whatever is left of the last segment, its whole entries count, and one can go on behind them."""
    write(tmp_path / "whole", few(6))
    (segment,) = (tmp_path / "whole").glob("*.journal")
    data = segment.read_bytes()
    ends = [16]
    for _ in range(6):
        ends.append(ends[-1] + 20 + struct.unpack_from("<I", data, ends[-1])[0])
    assert ends[-1] == len(data)
    for length in range(len(data)):
        path = tmp_path / str(length)
        path.mkdir()
        (path / segment.name).write_bytes(data[:length])
        kept = sum(end <= length for end in ends[1:])
        with Journal(path) as torn:
            assert torn.end == kept
            assert torn.append(few(100)[99]) == kept
        assert content(path) == [*few(kept), few(100)[99]]


@pytest.mark.parametrize("n_zeros", [1, 3, 16, 21, 5000])
@pytest.mark.parametrize("cut", [0, 4, 7])
def test_zeros_of_a_power_cut_are_cut_off(tmp_path, n_zeros, cut):
    """A file system may have grown the file and not written the data."""
    write(tmp_path, few(3))
    (segment,) = tmp_path.glob("*.journal")
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) - cut] + b"\0" * (cut + n_zeros))
    kept = 3 if cut == 0 else 2
    with Journal(tmp_path) as opened:
        assert opened.end == kept
    assert content(tmp_path) == few(kept)


def test_every_flipped_bit_is_noticed(tmp_path):
    """Reading gives what was written or an error: never less, never anything else."""
    write(tmp_path / "whole", few(4))
    (segment,) = (tmp_path / "whole").glob("*.journal")
    data = segment.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (segment.parent / segment.name).write_bytes(flipped)
        with pytest.raises(StoreError, match=r"damaged|no segment"):
            content(segment.parent)
        if bit % 64 == 0:
            with pytest.raises(StoreError, match=r"damaged|no segment"):
                Journal(segment.parent)
            assert segment.read_bytes() == flipped, "damage is not for us to overwrite"


def test_a_segment_that_is_not_the_last_has_to_be_whole(tmp_path):
    write(tmp_path, few(6), segment_bytes=60)
    first, second, *_ = sorted(tmp_path.glob("*.journal"))
    data = first.read_bytes()
    for length in range(len(data)):
        first.write_bytes(data[:length])
        with pytest.raises(StoreError):
            content(tmp_path)
    first.write_bytes(data)
    second.unlink()
    with pytest.raises(StoreError, match=r"(ends with entry|a segment is missing).*--new-journal"):
        content(tmp_path)


def test_asking_for_what_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="there is no journal"):
        content(tmp_path)
    write(tmp_path, few(2))
    with pytest.raises(StoreError, match="ends before entry 2, and 3 is asked for"):
        content(tmp_path, 3)
    with pytest.raises(StoreError, match="ends before entry 2, and 5 is asked for"):
        content(tmp_path, 0, 5)


def test_one_writer(tmp_path):
    with Journal(tmp_path), pytest.raises(StoreError, match="another run is writing the journal"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_pruning_keeps_what_a_recovery_needs(tmp_path):
    with Journal(tmp_path, segment_bytes=60, keep=1) as written:
        for runs in few(10):
            written.append(runs)
        everything = len(list(tmp_path.glob("*.journal")))
        written.prune(before=0)
        assert len(list(tmp_path.glob("*.journal"))) == everything
        written.prune(before=7)
    left = sorted(int(path.stem) for path in tmp_path.glob("*.journal"))
    assert left[1] <= 7
    assert content(tmp_path, 7) == few(10)[7:]
    with pytest.raises(StoreError, match="begins with entry"):
        content(tmp_path, 0)


def test_what_was_read_while_somebody_writes(tmp_path):
    with Journal(tmp_path) as written:
        written.append(few(1)[0])
        assert content(tmp_path) == few(1)
        written.append(few(2)[1])
        assert content(tmp_path) == few(2)


def test_a_full_disk(tmp_path, monkeypatch):
    """Half an entry fits: it is taken back, nothing more is written, and what was there can be read."""
    real = os.write
    with Journal(tmp_path) as written:
        written.append(few(1)[0])
        monkeypatch.setattr(journal.os, "write", lambda file, data: real(file, data[: len(data) // 2]))
        with pytest.raises(StoreError, match="No space left on device"):
            written.append(few(2)[1])
        monkeypatch.undo()
        with pytest.raises(StoreError, match="No space left on device"):
            written.append(few(2)[1])
    assert content(tmp_path) == few(1)


def test_a_disk_that_is_full_when_a_segment_is_begun(tmp_path, monkeypatch):
    """What was written before is safe, and a checkpoint may speak of it."""
    written = Journal(tmp_path, segment_bytes=1)
    written.append(few(1)[0])
    monkeypatch.setattr(journal.os, "write", lambda file, data: 3)
    with pytest.raises(StoreError, match="No space left on device"):
        written.append(few(2)[1])
    monkeypatch.undo()
    written.sync()
    written.close()
    written.sync()
    assert content(tmp_path) == few(1)
    write(tmp_path, [few(2)[1]])
    assert content(tmp_path) == few(2)


def test_a_disk_that_fails_when_a_segment_is_closed(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(5, "Input/output error")

    written = Journal(tmp_path, segment_bytes=1)
    written.append(few(1)[0])
    monkeypatch.setattr(journal.os, "fsync", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        written.append(few(2)[1])
    monkeypatch.undo()
    for end in (written.sync, written.close):
        with pytest.raises(StoreError, match="Input/output error"):
            end()


def test_a_failed_sync_is_not_forgotten(tmp_path, monkeypatch):
    """What a disk has refused once it may drop, and say nothing the second time."""

    def refuse(file):
        raise OSError(5, "Input/output error")

    written = Journal(tmp_path)
    written.append(few(1)[0])
    monkeypatch.setattr(journal.os, "fsync", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        written.sync()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="Input/output error"):
        written.sync()
    with pytest.raises(StoreError, match="Input/output error"):
        written.close()
    Journal(tmp_path).close()
