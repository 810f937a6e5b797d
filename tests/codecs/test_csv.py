import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codecs import Codec, Fields
from penstock.codecs.csv import CSV
from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Task


def codec(header=b"age,city,label", task="binary", delimiter=",", missing=("",), multiline=False, **roles):
    made = CSV(Fields(Task(task), **roles), delimiter=delimiter, missing=missing, multiline=multiline)
    return made.with_header(header, "f.csv:1")


def decode(*records, **options):
    return codec(**options).decode(records, "f.csv:{}".format)


def test_is_a_codec():
    made = CSV(Fields(Task("binary")))
    assert isinstance(made, Codec)
    assert made.needs_header
    assert not codec().needs_header


def test_fields():
    batch, rejected = decode(b"31,Malm\xc3\xb6,1", b' 5 ,"a, ""b""",0', b",x,true\r", b"-1e3,12,-1")
    assert rejected == ()
    rows = [
        {"age": 31, "city": "Malmö"},
        {"age": 5, "city": 'a, "b"'},
        {"city": "x"},
        {"age": -1000.0, "city": 12},
    ]
    assert list(batch.rows) == rows
    np.testing.assert_array_equal(batch.labels, [1.0, 0.0, 1.0, 0.0])
    twin = Batch.from_rows(rows).features
    np.testing.assert_array_equal(batch.features.indices, twin.indices)
    np.testing.assert_array_equal(batch.features.values, twin.values)
    assert batch.ids is None


def test_roles():
    batch, _ = decode(
        b"7,2024-01-01,0.5,3,skip,x",
        header=b"key,at,w,y,no,city",
        task="regression",
        label="y",
        id="key",
        time="at",
        weight="w",
        ignore=["no"],
        types={"city": "category"},
    )
    assert list(batch.rows) == [{"city": "x"}]
    assert (batch.labels[0], batch.weights[0], batch.times[0], batch.ids) == (3.0, 0.5, 1704067200.0, ["7"])


def test_types():
    batch, rejected = decode(b"1,2,1", b"x,2,1", types={"age": "number", "city": "category"})
    assert list(batch.rows) == [{"age": 1, "city": "2"}]
    assert [r.reason for r in rejected] == ["expected a number, got 'x' - at `$.age`, f.csv:1"]


def test_multiclass_text_is_the_name():
    batch, _ = decode(b"1,a,setosa", b"1,a,3", b"1,a,003", task="multiclass")
    assert batch.labels.tolist() == ["setosa", "3", "003"]


def test_missing_spellings():
    batch, rejected = decode(b"?,NA,1", b"1,x,?", missing=["", "?", "NA"])
    assert list(batch.rows) == [{}]
    assert rejected[0].reason == "expected a label, got None - at `$.label`, f.csv:1"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"1,x", "expected 3 fields, got 2 - at `$`, f.csv:1"),
        (b"1,x,1,", "expected 3 fields, got 4 - at `$`, f.csv:1"),
        (b"1,x,", "expected a label, got None - at `$.label`, f.csv:1"),
        (b"nan,x,1", "expected a finite number of magnitude <= 1e18, got 'nan' - at `$.age`, f.csv:1"),
        (
            b"1,x,UP",
            "expected true or false, 0 or 1, -1 or 1 (to name the classes: `classes: [negative, positive]`), "
            "got 'UP' - at `$.label`, f.csv:1",
        ),
        (b"1,\xe9,1", "expected UTF-8 (byte 2 is not), got b'1,\\xe9,1' - at `$`, f.csv:1"),
        (
            b'1,"x,1',
            "expected CSV (unexpected end of data) (if fields contain line ends: `multiline: true`), "
            "got '1,\"x,1' - at `$`, f.csv:1",
        ),
        (b'1,"x"y,1', "expected CSV (',' expected after '\"'), got '1,\"x\"y,1' - at `$`, f.csv:1"),
    ],
)
def test_bad_record_between_good_ones(record, reason):
    batch, (rejected,) = decode(b"1,a,1", record, b"2,b,0", b"3,c,1")
    assert rejected.reason == reason
    assert rejected.data == record
    assert list(batch.rows) == [{"age": 1, "city": "a"}, {"age": 2, "city": "b"}, {"age": 3, "city": "c"}]


def test_several_bad_records_of_different_kinds():
    batch, rejected = decode(b'1,"a,1', b"\xff", b"1,b,1", b"1", b'2,"c"x,1', b"3,d,2", b"4,e,0")
    assert [r.where for r in rejected] == [f"f.csv:{i}" for i in (0, 1, 3, 4, 5)]
    np.testing.assert_array_equal(batch.labels, [1.0, 0.0])


def test_delimiter():
    batch, _ = decode(b"1\ta,b\t1", header=b"age\tcity\tlabel", delimiter="\t")
    assert list(batch.rows) == [{"age": 1, "city": "a,b"}]


def test_byte_order_mark_is_no_name():
    assert list(decode(b"1,x,1", header=b"\xef\xbb\xbfage,city,label\r")[0].rows) == [{"age": 1, "city": "x"}]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"a,a,label", "f.csv:1: two columns are called 'a'"),
        (b"a,b", "f.csv:1: no column 'label' (option label); there are 'a', 'b'"),
        (b"a,\xff,label", "f.csv:1: the header is not text: expected UTF-8 (byte 2 is not)"),
    ],
)
def test_header_that_cannot_be_used(header, message):
    with pytest.raises(DataError) as raised:
        codec(header)
    assert str(raised.value) == message


def test_columns_that_options_name_must_be_there():
    for roles in ({"weight": "w"}, {"ignore": ["w"]}, {"types": {"w": "number"}}, {"time": "w"}, {"id": "w"}):
        with pytest.raises(DataError, match=r"^f.csv:1: no column 'w' \(option "):
            codec(**roles)
    assert codec(b"age", require_label=False).decode([b"1"], str)[0].rows == [{"age": 1}]


def test_long_lists_of_columns_are_cut_in_messages():
    with pytest.raises(DataError, match=r"'c11' and 88 more$"):
        codec(b",".join(b"c%d" % i for i in range(100)))


def test_given_columns():
    made = CSV(Fields(Task("binary")), columns=["a", "label"])
    assert not made.needs_header
    assert made.decode([b"1,0"], str)[0].rows == [{"a": 1}]
    with pytest.raises(ConfigError, match=r"^columns: two columns are called 'a'$"):
        CSV(Fields(Task("binary")), columns=["a", "a"])


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "å"])
def test_delimiters_that_cannot_be(delimiter):
    with pytest.raises(
        ConfigError, match=r"^delimiter: expected one ASCII character other than a quote, got "
    ):
        CSV(Fields(Task("binary")), delimiter=delimiter)


def test_a_record_has_no_container():
    with pytest.raises(ConfigError, match=r"^features: a CSV record has no field with a mapping"):
        CSV(Fields(Task("binary"), features="x"))


def test_no_records():
    batch, rejected = CSV(Fields(Task("multiclass"))).decode([], str)
    assert (len(batch), rejected, batch.labels.dtype) == (0, (), object)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_categories_match_the_csv_module(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*row, 1] for row in rows)
    records = text.getvalue().encode().split(b"\n")[:-1]
    batch, rejected = decode(
        *records, header=b"a,b,label", types={"a": "category", "b": "category"}, missing=["<none>"]
    )
    assert rejected == ()
    assert [(row["a"], row["b"]) for row in batch.rows] == rows
