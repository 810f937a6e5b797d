"""Messages of feedback in each format say the same."""

import contextlib
import math
from datetime import UTC, datetime

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codecs.feedback import FORMATS, reader
from penstock.errors import BadRecord, ConfigError
from penstock.feedback import DecisionEvent, RewardEvent, parse

DECISION = {
    "id": "d-1",
    "time": 12.5,
    "context": {"hour": 9, "user": {"age": 30}},
    "actions": {"news": {"new": 1}, "sport": {}},
    "action": "sport",
    "propensity": 0.25,
}
REWARD = {"id": "d-1", "time": 13.0, "reward": 1, "reward_id": "r"}


@pytest.mark.parametrize("record", [DECISION, REWARD])
def test_messagepack_says_what_json_says(record):
    (found,) = reader("msgpack")(msgpack.packb(record), "t[0]@3")
    assert found == parse(record)
    assert isinstance(found, RewardEvent if record is REWARD else DecisionEvent)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(name, data):
    with contextlib.suppress(BadRecord):
        assert reader(name)(data, "t[0]@3")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("json", b"[]", "expected an object"),
        ("msgpack", b"\x93\x01\x02", "MessagePack"),
        ("msgpack", msgpack.packb([1]), "expected a map"),
        ("msgpack", msgpack.packb({**REWARD, "reward": "much"}), r"\$\.reward"),
        ("dsjson", b'{"c": 3}', r"\$\.c"),
    ],
)
def test_what_is_wrong_is_said(name, data, text):
    with pytest.raises(BadRecord, match=text + r".*t\[0\]@3"):
        reader(name)(data, "t[0]@3")


@pytest.mark.parametrize(
    "value",
    [b"SE", math.nan, math.inf, datetime(2026, 1, 1, tzinfo=UTC), msgpack.ExtType(5, b"x"), {b"x": 1}, 2**63],
)
@pytest.mark.parametrize("of_action", [False, True])
def test_what_is_no_feature_is_refused_where_it_arrives(value, of_action):
    """MessagePack holds what JSON, and so a checkpoint, does not: it would come back as something else."""
    changes = {"actions": {"news": {}, "sport": {"x": value}}} if of_action else {"context": {"x": value}}
    data = msgpack.packb(DECISION | changes, datetime=True)
    path = r"\$\.actions\.sport\.x" if of_action else r"\$\.context\.x"
    with pytest.raises(BadRecord, match=rf"at `{path}(\[1\])?`, t\[0\]@3"):
        reader("msgpack")(data, "t[0]@3")


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"_multi": [{}, {"x": "deep"}]}, "$.c._multi[1].x"),
        ({"x": "deep", "_multi": [{}, {}]}, "$.c.x"),
    ],
)
def test_dsjson_is_nested_no_deeper_than_features(context, path):
    record = {"_label_cost": 0, "_label_probability": 1, "_labelIndex": 0, "a": [1, 2], "EventId": "e"}
    line = orjson.dumps({**record, "Timestamp": "2021-05-18T13:28:29Z", "c": context})
    with pytest.raises(BadRecord, match=r"at most 32 levels of nesting.*t\[0\]@3") as caught:
        reader("dsjson")(line.replace(b'"deep"', b'{"x":' * 900 + b"1" + b"}" * 900), "t[0]@3")
    assert caught.value.path.startswith(path)


def test_options_that_do_not_go_together():
    with pytest.raises(ConfigError, match="`arm` is for the format dsjson"):
        reader("json", arm="i.id")
    with pytest.raises(ConfigError, match="'xml' is none of json, msgpack, dsjson"):
        reader("xml")
