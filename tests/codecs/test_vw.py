import numpy as np
import pytest

from penstock.codecs import Codec, Fields
from penstock.codecs.vw import VW
from penstock.errors import ConfigError
from penstock.events import Task


def decode(*records, task="binary", **options):
    return VW(Fields(Task(task), **options)).decode(records, "log.vw:{}".format)


def test_is_a_codec():
    assert isinstance(VW(Fields(Task("binary"))), Codec)


@pytest.mark.parametrize(
    ("record", "label", "weight", "tag", "line"),
    [
        (b"1 |f a:1 b", 1.0, 1.0, "", "|f a:1 b"),
        (b"-1 0.5 |f a", 0.0, 0.5, "", "|f a"),
        (b"0 2 0 'tag|f a", 0.0, 2.0, "tag", "|f a"),
        (b"1 'tag |f a\r", 1.0, 1.0, "tag", "|f a"),
        (b"1  2.0  tag| a", 1.0, 2.0, "tag", "| a"),
        (b"junk\t1 |f a", 1.0, 1.0, "", "|f a"),
        (b"1 ", 1.0, 1.0, "", "|"),
        (b"1 |", 1.0, 1.0, "", "|"),
    ],
)
def test_before_the_bar(record, label, weight, tag, line):
    batch, rejected = decode(record)
    assert rejected == ()
    assert (batch.labels[0], batch.weights[0], batch.ids, batch.lines) == (label, weight, [tag], [line])
    assert len(batch.rows) == len(batch.features) == 1


def test_features():
    batch, _ = decode(b"1 |user age:31 city=SE | hour:2")
    assert list(batch.rows) == [{"user": {"age": 31.0, "city=SE": 1.0}, "hour": 2.0}]
    np.testing.assert_array_equal(batch.features.values, [31.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"|f a", "expected a label, got None - at `$.label`, log.vw:1"),
        (
            b"1|f a",
            "expected a label (VW takes a word that touches the bar, or begins with a quote, for a tag), "
            "got '1' - at `$.label`, log.vw:1",
        ),
        (
            b"2 |f a",
            "expected true or false, 0 or 1, -1 or 1 (to name the classes: `classes: [negative, positive]`), "
            "got '2' - at `$.label`, log.vw:1",
        ),
        (b"1 -2 |f a", "expected a finite number >= 0, got '-2' - at `$.importance`, log.vw:1"),
        (
            b"1 1 0.5 |f a",
            "expected no initial prediction other than 0, got '0.5' - at `$.initial`, log.vw:1",
        ),
        (
            b"1 2 3 4 |f a",
            "expected at most label, importance and initial prediction, "
            "got '1 2 3 4 ' - at `$.label`, log.vw:1",
        ),
        (b"1 |f a:nan", "expected a finite number of magnitude <= 1e18, got 'nan' - at `$.f.a`, log.vw:1"),
        (b"1 |f \xff", "expected UTF-8 (byte 5 is not), got b'1 |f \\xff' - at `$`, log.vw:1"),
    ],
)
def test_bad_record_between_good_ones(record, reason):
    batch, (rejected,) = decode(b"1 'a|x y", record, b"0 'b|x z")
    assert (rejected.reason, rejected.data) == (reason, record)
    assert (batch.lines, batch.ids) == (["|x y", "|x z"], ["a", "b"])


def test_other_tasks():
    assert decode(b"-3.25 |f a", task="regression")[0].labels.tolist() == [-3.25]
    assert decode(b"3 |f a", b"cat |f a", task="multiclass")[0].labels.tolist() == ["3", "cat"]


def test_without_labels():
    batch, rejected = decode(b"|f a", b" 'tag |f a", b"tag|f a", require_label=False)
    assert rejected == ()
    assert np.isnan(batch.labels).all()
    assert batch.ids == ["", "tag", "tag"]


@pytest.mark.parametrize(
    "option", [{"weight": "w"}, {"ignore": ["a"]}, {"types": {"a": "number"}}, {"features": "f"}]
)
def test_the_format_says_what_is_what(option):
    with pytest.raises(ConfigError, match=f"^{next(iter(option))}: VW text says "):
        VW(Fields(Task("binary"), **option))
