import numpy as np
import orjson
import pytest

from penstock.codecs import Fields, build, format_of
from penstock.codecs.json import JSON
from penstock.errors import ConfigError
from penstock.events import Batch, Task

WHERE = "clicks.jsonl:{}".format
ALL = {"weight": "w", "id": "key", "time": "at"}


def decode(*records, task="binary", **options):
    return JSON(Fields(Task(task), **options)).decode([orjson.dumps(r) for r in records], WHERE)


def reasons(*records, **options):
    return [rejected.reason for rejected in decode(*records, **options)[1]]


def assert_same_features(batch, rows):
    twin = Batch.from_rows(rows).features
    for name in ("indptr", "indices", "values", "namespaces"):
        np.testing.assert_array_equal(getattr(batch.features, name), getattr(twin, name))
    assert list(batch.rows) == rows


def test_the_rest_of_the_record_is_features():
    batch, rejected = decode(
        {"a": 1, "label": True, "b": {"c": "x"}}, {"label": 0, "weight": 2, "id": 7, "time": 3}
    )
    assert rejected == ()
    assert_same_features(batch, [{"a": 1, "b": {"c": "x"}}, {"weight": 2, "id": 7, "time": 3}])
    np.testing.assert_array_equal(batch.labels, [1.0, 0.0])
    np.testing.assert_array_equal(batch.weights, [1.0, 1.0])
    assert np.isnan(batch.times).all()
    assert batch.ids == ["", ""]
    assert batch.lines is None


def test_feedback_in_its_usual_form():
    batch, rejected = decode(
        {
            "id": "e1",
            "time": "1970-01-01T00:01Z",
            "features": {"a": 1, "id": 5},
            "label": 1,
            "weight": 0.5,
            "x": 9,
        },
        {"features": {"a": 2}, "label": 0},
        {"features": [1, 2], "label": 0, "id": 3},
    )
    assert rejected == ()
    assert_same_features(batch, [{"a": 1, "id": 5}, {"a": 2}, {"features": [1, 2], "id": 3}])
    np.testing.assert_array_equal(batch.weights, [0.5, 1.0, 1.0])
    np.testing.assert_array_equal(batch.times, [60.0, np.nan, np.nan])
    assert batch.ids == ["e1", "", ""]


def test_configured_fields():
    batch, rejected = decode({"key": 5, "at": 12.5, "w": 3, "y": False, "a": "b"}, label="y", **ALL)
    assert rejected == ()
    assert_same_features(batch, [{"a": "b"}])
    assert (batch.labels[0], batch.weights[0], batch.times[0], batch.ids) == (0.0, 3.0, 12.5, ["5"])


@pytest.mark.parametrize("missing", ["w", "key", "at"])
def test_a_configured_field_must_be_there(missing):
    record = {"key": 5, "at": 12.5, "w": 3, "label": 1}
    del record[missing]
    assert reasons(record, **ALL) == [f"expected a value, got None - at `$.{missing}`, clicks.jsonl:0"]


def test_configured_container():
    batch, rejected = decode(
        {"x": {"a": 1}, "label": 1, "z": 3}, {"x": 3, "label": 1}, {"label": 1}, features="x"
    )
    assert_same_features(batch, [{"a": 1}])
    assert batch.ids is None
    assert [r.reason for r in rejected] == [
        "expected a mapping of names to features, got 3 - at `$.x`, clicks.jsonl:1",
        "expected a mapping of names to features, got None - at `$.x`, clicks.jsonl:2",
    ]


def test_every_bad_record_is_rejected_in_order_and_leaves_no_trace():
    good = [{"a": i, "label": i % 2} for i in range(3)]
    bad = [
        [1],
        {"a": 1},
        {"a": 1, "label": "x"},
        {"a": {"b": {"c": 1e300}}, "label": 1},
        {"features": {"a b": 1e300}, "label": 1},
    ]
    batch, rejected = decode(bad[0], good[0], bad[1], bad[2], good[1], bad[3], bad[4], good[2])
    assert_same_features(batch, [{"a": 0}, {"a": 1}, {"a": 2}])
    np.testing.assert_array_equal(batch.labels, [0.0, 1.0, 0.0])
    assert batch.ids == ["", "", ""]
    assert [r.where for r in rejected] == [f"clicks.jsonl:{i}" for i in (0, 2, 3, 5, 6)]
    assert [orjson.loads(r.data) for r in rejected] == bad
    finite = "a finite number of magnitude <= 1e18"
    assert [r.reason for r in rejected] == [
        "expected a mapping of names to values, got [1] - at `$`, clicks.jsonl:0",
        "expected a label, got None - at `$.label`, clicks.jsonl:2",
        "expected true or false, 0 or 1, -1 or 1 (to name the classes: `classes: [negative, positive]`), "
        "got 'x' - at `$.label`, clicks.jsonl:3",
        f"expected {finite}, got 1e+300 - at `$.a.b.c`, clicks.jsonl:5",
        f'expected {finite}, got 1e+300 - at `$.features["a b"]`, clicks.jsonl:6',
    ]


def test_a_long_name_is_shortened_in_the_reason():
    (reason,) = reasons({"x" * 10_000: 1e300, "label": 1})
    assert len(reason) < 400
    assert '$["xxx' in reason


def test_multiclass_labels_are_names():
    batch, _ = decode({"label": 3}, {"label": 3.0}, {"label": "cat"}, {"label": True}, task="multiclass")
    assert batch.labels.dtype == object
    assert batch.labels.tolist() == ["3", "3", "cat", "true"]


@pytest.mark.parametrize(("task", "label"), [("binary", np.nan), ("regression", np.nan), ("multiclass", "")])
def test_without_labels(task, label):
    batch, rejected = decode({"a": 1}, {"a": 2, "label": None}, task=task, require_label=False)
    assert rejected == ()
    np.testing.assert_array_equal(batch.labels, np.array([label, label], dtype=batch.labels.dtype))


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_no_records(task):
    batch, rejected = decode(task=task)
    assert (len(batch), len(batch.features), rejected) == (0, 0, ())
    some, _ = decode({"label": 1, "a": 1}, task=task)
    both = Batch.concat([batch, some, batch])
    assert (len(both), both.ids, both.labels.dtype) == (1, [""], some.labels.dtype)


def test_ignored_and_typed_features():
    options = {"ignore": ["no"], "types": {"zip": "category", "n": "number"}}
    batch, rejected = decode(
        {"no": [{}], "zip": 123, "n": "4.5", "label": 1},
        {"zip": 1.0, "n": 3, "label": 1},
        {"zip": True, "label": 1},
        {"zip": 2.5, "n": None, "label": 1},
        {"n": "x", "label": 1},
        {"zip": [1], "label": 1},
        **options,
    )
    assert_same_features(
        batch, [{"zip": "123", "n": 4.5}, {"zip": "1", "n": 3.0}, {"zip": "true"}, {"zip": "2.5", "n": None}]
    )
    assert [r.reason for r in rejected] == [
        "expected a finite number, got 'x' - at `$.n`, clicks.jsonl:4",
        "expected a category (a string, a number or a boolean), got [1] - at `$.zip`, clicks.jsonl:5",
    ]


def test_one_field_has_one_role():
    with pytest.raises(ConfigError, match=r"^id: 'label' is already the label$"):
        Fields(Task("binary"), id="label")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": {"a": "text"}}, "types.a: expected 'number' or 'category', got 'text'"),
        ({"ignore": "abc"}, "ignore: expected a list of names, got 'abc'"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(ConfigError) as raised:
        Fields(Task("binary"), **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", "json"),
        ("b/a.JSONL.gz", "json"),
        ("a.ndjson.zst", "json"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "csv"),
        ("a.parquet", "parquet"),
        ("a.vw", "vw"),
        ("a.msgpack", "msgpack"),
        ("a.mpk.zst", "msgpack"),
    ],
)
def test_format_by_name(name, expected):
    assert format_of(name) == expected


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "csv", "dir.csv/a"])
def test_format_that_no_name_tells(name):
    with pytest.raises(
        ConfigError, match=r"the name does not tell the format: set `format:` to one of json, csv, parq"
    ):
        format_of(name)


def test_build():
    fields = Fields(Task("binary"))
    with pytest.raises(ConfigError, match=r"^no format is called 'jsn' \(did you mean 'json'\?\)"):
        build("jsn", fields)
    with pytest.raises(ConfigError, match=r"^delimiter: not an option of the format 'json'$"):
        build("json", fields, delimiter=",")
    assert isinstance(build("json", fields, delimiter=None), JSON)
