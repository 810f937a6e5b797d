"""JSON decisions with rewards: what is read, what is rejected and with which words, and the way back."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codecs.decisions import DecisionJSON, LogCodec
from penstock.decisions import Logged, Offers, key_of, keys_of
from penstock.errors import BadRecord

GOOD = {
    "id": "d-1",
    "time": 12.5,
    "context": {"hour": 9, "user": {"country": "SE"}},
    "actions": ["news", "sport"],
    "action": "sport",
    "propensity": 0.25,
    "reward": 1.5,
}


def decode(*records, codec=None):
    lines = [record if isinstance(record, bytes) else orjson.dumps(record) for record in records]
    return (codec or DecisionJSON()).decode(lines, lambda i: f"log.jsonl:{i + 1}")


def reason(**changes):
    record = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    records, rejected = decode(GOOD, record)
    assert len(records) == 1
    (letter,) = rejected
    assert (letter.where, letter.data, letter.after) == ("log.jsonl:2", orjson.dumps(record), 1)
    return letter.reason


def test_a_decision():
    records, rejected = decode(GOOD)
    assert rejected == ()
    logged = records.logged
    assert logged.offers.arms.tolist() == ["news", "sport"]
    assert logged.offers.rows == [GOOD["context"]]
    assert (logged.chosen[0], logged.propensities[0], logged.rewards[0], logged.weights[0]) == (
        1,
        0.25,
        1.5,
        1.0,
    )
    assert (records.ids, records.times.tolist()) == (["d-1"], [12.5])
    assert logged.offers.keys.tolist() == [key_of("d-1", "")]


def test_actions_with_features_and_optional_fields():
    records, _ = decode(
        {"actions": {"x": {"price": 3}, "y": {}}, "action": "x", "propensity": 1, "reward": 0, "weight": 2.5}
    )
    offers = records.logged.offers
    assert list(offers.action_rows) == [{"price": 3}, {}]
    assert offers.actions.indptr.tolist() == [0, 1, 1]
    assert records.logged.weights.tolist() == [2.5]
    assert records.ids == [""]
    assert math.isnan(records.times[0])
    assert offers.keys.tolist() == [key_of("log.jsonl:1", "")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"propensity": 0.0}, "expected a number in (0, 1], got 0.0 - at `$.propensity`, log.jsonl:2"),
        ({"propensity": 1.5}, "expected a number in (0, 1], got 1.5 - at `$.propensity`, log.jsonl:2"),
        ({"propensity": "NaN"}, "expected a number in (0, 1], got 'NaN' - at `$.propensity`, log.jsonl:2"),
        ({"propensity": ...}, "expected a number in (0, 1], got None - at `$.propensity`, log.jsonl:2"),
        ({"propensity": True}, "expected a number in (0, 1], got True - at `$.propensity`, log.jsonl:2"),
        ({"reward": ...}, "expected a finite number, got None - at `$.reward`, log.jsonl:2"),
        ({"reward": "much"}, "expected a finite number, got 'much' - at `$.reward`, log.jsonl:2"),
        ({"weight": -1}, "expected a finite number >= 0, got -1 - at `$.weight`, log.jsonl:2"),
        (
            {"action": "retired"},
            "expected one of the offered actions, got 'retired' - at `$.action`, log.jsonl:2",
        ),
        (
            {"action": ["news"]},
            "expected one of the offered actions, got ['news'] - at `$.action`, log.jsonl:2",
        ),
        ({"actions": []}, "expected at least one action, got [] - at `$.actions`, log.jsonl:2"),
        ({"actions": ["a", "a"]}, "expected different actions, got ['a', 'a'] - at `$.actions`, log.jsonl:2"),
        ({"context": [1]}, "expected a mapping of names to features, got [1] - at `$.context`, log.jsonl:2"),
        ({"time": "soon"}, "expected seconds or an ISO 8601 time, got 'soon' - at `$.time`, log.jsonl:2"),
        ({"id": 1.5}, "expected a string or an integer, got 1.5 - at `$.id`, log.jsonl:2"),
    ],
)
def test_rejected(changes, expected):
    assert reason(**changes) == expected


def test_values_that_are_no_features():
    huge = 1e19
    assert reason(context={"user": {"age": huge}}).endswith("- at `$.context.user.age`, log.jsonl:2")
    bad = reason(actions={"news": {"a": 1}, "sport": {"b": huge}})
    assert bad.endswith("- at `$.actions[1].b`, log.jsonl:2")


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff", b"NaN", b'{"propensity": NaN}'])
def test_what_is_no_object(data):
    records, (letter,) = decode(data)
    assert len(records) == 0
    assert letter.data == data


def test_good_ones_around_bad_ones_are_kept_in_order():
    bad = GOOD | {"propensity": 0}
    unusable = GOOD | {"context": {"x": 1e19}}
    other = GOOD | {"id": "d-2", "actions": {"sport": {"p": 1}, "new": {"p": 2}, "old": {}}, "action": "old"}
    records, rejected = decode(bad, GOOD, unusable, other, b"{")
    assert records.ids == ["d-1", "d-2"]
    assert [letter.where for letter in rejected] == ["log.jsonl:1", "log.jsonl:3", "log.jsonl:5"]
    assert [letter.after for letter in rejected] == [0, 1, 2]
    offers = records.logged.offers
    assert offers.starts.tolist() == [0, 2, 5]
    assert offers.arms.tolist() == ["news", "sport", "sport", "new", "old"]
    assert records.logged.chosen.tolist() == [1, 2]
    alone, _ = decode(other)
    part = records.logged.slice(1, 2)
    np.testing.assert_array_equal(part.offers.actions.indices, alone.logged.offers.actions.indices)
    np.testing.assert_array_equal(part.offers.contexts.indices, alone.logged.offers.contexts.indices)


def test_nothing():
    records, rejected = decode()
    assert (len(records), rejected) == (0, ())
    assert list(DecisionJSON().encode(records.logged)) == []


def test_what_is_written_is_read_back():
    weighted = GOOD | {"id": "d-2", "weight": 0.5, "time": 1.7e9, "actions": {"news": {"a": 1}, "sport": {}}}
    first, _ = decode(GOOD, weighted, GOOD | {"id": None, "time": None})
    lines = list(DecisionJSON().encode(first.logged, ids=first.ids, times=first.times))
    again, rejected = decode(*lines)
    assert rejected == ()
    assert again.ids == first.ids
    np.testing.assert_array_equal(again.times, first.times)
    for name in ("chosen", "propensities", "rewards", "weights"):
        np.testing.assert_array_equal(getattr(again.logged, name), getattr(first.logged, name))
    assert again.logged.offers.rows == first.logged.offers.rows
    assert list(again.logged.offers.action_rows) == list(first.logged.offers.action_rows)
    np.testing.assert_array_equal(again.logged.offers.keys[:2], first.logged.offers.keys[:2])


def test_what_json_cannot_hold():
    offers = Offers.from_rows([{"x": 1}], [["a"]])
    one = np.ones(1)
    logged = Logged(offers=offers, chosen=np.zeros(1, np.int64), propensities=one, rewards=one, weights=one)
    logged.offers.rows[0]["x"] = object()
    with pytest.raises(BadRecord, match=r"values that JSON can hold .* events\[0\]"):
        list(DecisionJSON().encode(logged))


def test_codec_as_its_protocol_says():
    codec = DecisionJSON()
    assert isinstance(codec, LogCodec)
    assert codec.with_header(b"", "") is codec
    framer = codec.framer(100)
    framer.feed(b"{}\n{}")
    framer.end()
    assert framer.take(5).records == [b"{}", b"{}"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(-2, 2) | st.sampled_from(["a", "b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from([*GOOD, "weight"]), JSON).map(lambda d: GOOD | d) | JSON))
def test_every_record_ends_on_one_side(records):
    decoded, rejected = decode(*records)
    assert len(decoded) + len(rejected) == len(records)


@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes(lines):
    decoded, rejected = decode(*lines)
    assert len(decoded) + len(rejected) == len(lines)


@given(st.lists(st.text(max_size=200)), st.text(max_size=80))
def test_keys_of_many_are_those_of_each(ids, pipeline):
    ids = [*ids, "", "\ud800"]
    keys = keys_of(ids, pipeline)
    assert (keys.dtype, keys.tolist()) == (np.uint64, [key_of(name, pipeline) for name in ids])
    assert keys_of([], pipeline).shape == (0,)
