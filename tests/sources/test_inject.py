import numpy as np
import pytest

from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task
from penstock.sources.file import FileSource
from penstock.sources.inject import Injected
from penstock.sources.memory import MemorySource
from penstock.sources.river import RiverSource

N, AT = 20, 7
BINARY, MULTICLASS = Task("binary"), Task("multiclass")


def rows():
    return [{"a": i + 1, "b": f"x{i}"} for i in range(N)]


def read(source, position=None, size=4):
    chunks = list(source.chunks(position, size))
    return chunks, Batch.concat([chunk.batch for chunk in chunks])


def binary():
    return MemorySource(BINARY, rows(), [i % 3 == 0 for i in range(N)])


def multiclass():
    return MemorySource(MULTICLASS, rows(), ["cow", "ant", "bee"] * 6 + ["cow", "ant"])


@pytest.mark.parametrize("size", [1, 3, 7, 8, 100])
def test_flip(size):
    _, before = read(binary())
    _, after = read(Injected(binary(), at=AT, flip=True), size=size)
    np.testing.assert_array_equal(after.labels[:AT], before.labels[:AT])
    np.testing.assert_array_equal(after.labels[AT:], 1.0 - before.labels[AT:])
    assert after.rows == before.rows


@pytest.mark.parametrize(
    ("by", "after"), [(1, {"ant": "bee", "bee": "cow", "cow": "ant"}), (3, {}), (-1, {"ant": "cow"})]
)
def test_rotate_classes(by, after):
    _, before = read(multiclass())
    _, rotated = read(Injected(multiclass(), at=AT, rotate_classes=["cow", "bee", "ant"], by=by))
    assert rotated.labels.dtype == object
    assert rotated.labels[:AT].tolist() == before.labels[:AT].tolist()
    for old, new in zip(before.labels[AT:], rotated.labels[AT:], strict=True):
        if by == 3:
            assert new == old
        elif old in after:
            assert new == after[old]


def test_rotate_needs_every_class():
    with pytest.raises(
        DataError, match=r"^inject.rotate_classes: the class 'ant' of an event is not listed$"
    ):
        read(Injected(multiclass(), at=0, rotate_classes=["cow", "bee"]))


def test_swap_features():
    source = MemorySource(BINARY, [{"a": 1, "b": "x", "c": 2}, {"a": 1, "c": 2}, {"c": 2}], [1, 0, 1])
    _, swapped = read(Injected(source, at=0, swap_features=["a", "b"]))
    expected = [{"b": 1, "a": "x", "c": 2}, {"b": 1, "c": 2}, {"c": 2}]
    assert list(swapped.rows) == expected
    twin = Batch.from_rows(expected).features
    np.testing.assert_array_equal(swapped.features.indices, twin.indices)
    np.testing.assert_array_equal(swapped.features.indptr, twin.indptr)


@pytest.mark.parametrize("change", [{"flip": True}, {"swap_features": ["a", "b"]}])
def test_resume_from_every_position(change):
    chunks, whole = read(Injected(binary(), at=AT, **change))
    for i, chunk in enumerate(chunks[:-1]):
        again, rest = read(Injected(binary(), at=AT, **change), chunk.position, size=3)
        start = 4 * (i + 1)
        assert rest.labels.tolist() == whole.labels[start:].tolist()
        assert list(rest.rows) == list(whole.rows[start:])
        assert again[-1].position == chunks[-1].position


def test_bad_records_do_not_count(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"label": 1}\nbad\n' * 6)
    for size in (1, 5, 100):
        _, batch = read(FileSource(BINARY, str(path), inject={"at": 3, "flip": True}), size=size)
        assert batch.labels.tolist() == [1.0] * 3 + [0.0] * 3


def test_option_of_the_river_source():
    _, before = read(RiverSource(BINARY, "Phishing", limit=20))
    _, after = read(RiverSource(BINARY, "Phishing", limit=20, inject={"at": 5, "flip": True}))
    assert (before.labels != after.labels).tolist() == [False] * 5 + [True] * 15


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        ({"flip": True}, "inject: 'at' is missing; options are at, flip, rotate_classes, by, swap_features"),
        (
            {"at": 1, "flop": 1},
            "inject: there is no option 'flop'; options are at, flip, rotate_classes, by, swap_features",
        ),
        ({"at": 1}, "inject: expected one of flip, rotate_classes and swap_features"),
        (
            {"at": 1, "flip": True, "rotate_classes": ["a", "b"]},
            "inject: expected one of flip, rotate_classes and swap_features",
        ),
        ({"at": -1, "flip": True}, "inject.at: expected the number of an event, got -1"),
        (
            {"at": 1, "rotate_classes": ["a", "a"]},
            "inject.rotate_classes: expected two or more, got ['a', 'a']",
        ),
        (
            {"at": 1, "rotate_classes": ["a", "b"]},
            "inject.rotate_classes: needs a multiclass task, this one is binary",
        ),
        ({"at": 1, "swap_features": "ab"}, "inject.swap_features: expected two names, got 'ab'"),
        ({"at": 1, "swap_features": ["a", "a"]}, "inject.swap_features: expected two names, got ['a', 'a']"),
    ],
)
def test_options_that_cannot_be_used(inject, message):
    with pytest.raises(ConfigError) as raised:
        RiverSource(BINARY, "Phishing", inject=inject)
    assert str(raised.value) == message


def test_flip_needs_a_binary_task():
    with pytest.raises(ConfigError, match=r"^inject.flip: needs a binary task, this one is multiclass$"):
        RiverSource(MULTICLASS, "ImageSegments", inject={"at": 1, "flip": True})


def test_vw_text_cannot_be_swapped(tmp_path):
    path = tmp_path / "f.vw"
    path.write_bytes(b"1 | a b\n")
    with pytest.raises(
        ConfigError, match=r"^inject.swap_features: the features of VW text cannot be swapped$"
    ):
        read(FileSource(BINARY, str(path), inject={"at": 0, "swap_features": ["a", "b"]}))


def test_a_position_of_something_else():
    with pytest.raises(DataError, match=r"is no position of a source with `inject`$"):
        read(Injected(binary(), at=1, flip=True), {"record": 3})
