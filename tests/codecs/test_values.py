import math
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codecs.values import (
    class_name,
    label_reader,
    labels_at_once,
    path_of,
    read_id,
    read_time,
    read_weight,
)
from penstock.errors import BadRecord, ConfigError
from penstock.events import Task

BINARY, MULTICLASS, REGRESSION = Task("binary"), Task("multiclass"), Task("regression")


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (-1, 0.0), (1.0, 1.0), (-1.0, 0.0), (0.0, 0.0)],
)
@pytest.mark.parametrize("text", [False, True])
def test_binary(value, label, text):
    assert label_reader(BINARY, path="$.y", text=text)(value) == label


@given(
    st.sampled_from([BINARY, MULTICLASS, REGRESSION]),
    st.lists(st.sampled_from([0, 1, -1, 1.0, -0.0, -1.0]))
    | st.lists(
        st.sampled_from([1, 2.5, 0.0, 1e100, 1e101, math.nan, math.inf, True, None, "1", np.float32(1)])
    ),
)
def test_labels_at_once_are_those_one_by_one(task, values):
    labels = labels_at_once(task, values)
    if labels is not None:
        read = label_reader(task, path="$.y")
        assert labels.tobytes() == np.array([read(value) for value in values], np.float64).tobytes()


def test_plain_labels_are_read_at_once():
    assert labels_at_once(BINARY, [1, -1, 0.0]).tolist() == [1.0, 0.0, 0.0]
    assert labels_at_once(REGRESSION, [1, -2.5]).tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("1", 1),
        ("0", 0),
        ("-1", 0),
        ("+1", 1),
        ("1.0", 1),
        ("0e0", 0),
        ("True", 1),
        ("true", 1),
        ("FALSE", 0),
    ],
)
def test_binary_spelt(spelling, label):
    assert label_reader(BINARY, path="$.y", text=True)(spelling) == label
    with pytest.raises(BadRecord, match=r"to name the classes: `classes: \[negative, positive\]`"):
        label_reader(BINARY, path="$.y")(spelling)


@pytest.mark.parametrize("value", [2, 0.5, math.nan, math.inf, [1], {"a": 1}, (), b"1"])
def test_binary_rejects(value):
    for text in (False, True):
        with pytest.raises(BadRecord) as raised:
            label_reader(BINARY, path="$.y", text=text)(value)
        assert str(raised.value) == f"expected true or false, 0 or 1, -1 or 1, got {value!r} - at `$.y`"


def test_binary_string_says_how_to_name_classes():
    with pytest.raises(BadRecord) as raised:
        label_reader(BINARY, path="$.class", text=True)("UP")
    assert str(raised.value) == (
        "expected true or false, 0 or 1, -1 or 1 (to name the classes: `classes: [negative, positive]`), "
        "got 'UP' - at `$.class`"
    )


def test_named_classes_are_the_only_ones():
    read = label_reader(BINARY, path="$.class", classes=["DOWN", "UP"])
    assert (read("UP"), read("DOWN")) == (1.0, 0.0)
    for value in (True, 1, "up", "1"):
        with pytest.raises(BadRecord, match=r"^expected 'DOWN' or 'UP', got "):
            read(value)


def test_classes_may_be_numbers():
    read = label_reader(BINARY, path="$.y", classes=[1, 2])
    assert [read(value) for value in (1, 2, 2.0, "1")] == [0.0, 1.0, 1.0, 0.0]
    assert label_reader(BINARY, path="$.y", classes=["1", "2"], text=True)("2") == 1.0


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", "b", "c"], [1, "1"], "ab", [None, "a"], []])
def test_classes_that_are_no_pair(classes):
    with pytest.raises(ConfigError, match=r"^classes: expected two different names"):
        label_reader(BINARY, path="$.y", classes=classes)


def test_only_a_binary_task_has_two_classes():
    with pytest.raises(
        ConfigError, match=r"^classes: only a binary task names its two classes; this one is regr"
    ):
        label_reader(REGRESSION, path="$.y", classes=["a", "b"])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (True, "true"),
        (False, "false"),
        ("cat", "cat"),
        (2**64 - 1, str(2**64 - 1)),
    ],
)
def test_multiclass(value, name):
    assert label_reader(MULTICLASS, path="$.y")(value) == name == class_name(value)


@pytest.mark.parametrize("value", [2.5, math.nan, math.inf, [], {}, 10**400, ""])
def test_multiclass_rejects(value):
    with pytest.raises(BadRecord, match=r"^expected a class \(a string, an integer or a boolean\), got "):
        label_reader(MULTICLASS, path="$.y")(value)


def test_regression():
    read, read_text = (label_reader(REGRESSION, path="$.y", text=text) for text in (False, True))
    assert [read(value) for value in (3, -2.5, 2**64)] == [3.0, -2.5, 2.0**64]
    assert [read_text(value) for value in ("3", " -2.5e3 ", 7)] == [3.0, -2500.0, 7.0]
    for value in (True, "3", math.nan, math.inf, 10**400, None.__class__, [1]):
        with pytest.raises(BadRecord, match=r"^expected a finite number, got "):
            read(value)
    for value in ("", "x", "nan", "inf", "1_000", "1e999", True):
        with pytest.raises(BadRecord, match=r"^expected a finite number, got "):
            read_text(value)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, REGRESSION])
def test_missing_label(task):
    with pytest.raises(BadRecord) as raised:
        label_reader(task, path="$.class")(None)
    assert str(raised.value) == "expected a label, got None - at `$.class`"
    label = label_reader(task, path="$.class", required=False)(None)
    assert label == "" if task is MULTICLASS else math.isnan(label)


def test_weight():
    assert read_weight(0, text=False, path="$.w") == 0.0
    assert read_weight("2.5", text=True, path="$.w") == 2.5
    for value in (-1, math.inf, math.nan, True, "1", None):
        with pytest.raises(BadRecord, match=r"^expected a finite number >= 0, got "):
            read_weight(value, text=False, path="$.w")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (12, 12.0),
        (-1.5, -1.5),
        ("1970-01-01", 0.0),
        ("1970-01-01T00:01", 60.0),
        ("1970-01-01T00:00:00.25Z", 0.25),
        ("1970-01-01T02:00:00+02:00", 0.0),
        (datetime(1970, 1, 1, 0, 0, 1), 1.0),
        (datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=-1))), 3600.0),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), 1709208000.0),
        (date(1970, 1, 2), 86400.0),
    ],
)
def test_time(value, seconds):
    assert read_time(value, text=False, path="$.t") == seconds


def test_time_in_text_may_be_seconds():
    assert read_time("1709208000.5", text=True, path="$.t") == 1709208000.5
    assert read_time("2024-02-29T12:00:00Z", text=True, path="$.t") == 1709208000.0


@pytest.mark.parametrize("value", ["", "yesterday", "1709208000", "2024-13-01", True, None, math.inf, []])
def test_time_rejects(value):
    with pytest.raises(BadRecord, match=r"^expected seconds or an ISO 8601 time, got "):
        read_time(value, text=False, path="$.t")


def test_id():
    assert [read_id(value, path="$.id") for value in ("a", 7, "")] == ["a", "7", ""]
    for value in (True, 1.5, None, 10**400):
        with pytest.raises(BadRecord, match=r"^expected a string or an integer, got "):
            read_id(value, path="$.id")


def test_path():
    assert [path_of(name) for name in ("a", "a b", 'q"', "")] == ["$.a", '$["a b"]', '$["q\\""]', '$[""]']
