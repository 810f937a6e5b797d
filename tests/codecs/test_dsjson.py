"""dsjson: real logs, every field that can be wrong, and what VW makes of what is written."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vowpalwabbit import Workspace

from penstock.codecs.dsjson import DSJSON
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord

DATA = Path(__file__).parents[3] / "shared" / "data" / "dsjson"
GOOD = {
    "_label_cost": -1,
    "_label_probability": 0.75,
    "_label_Action": 2,
    "_labelIndex": 1,
    "o": [{"v": 1.0}],
    "Timestamp": "2021-05-18T13:28:29.6560000Z",
    "EventId": "91f71c8",
    "a": [2, 1],
    "c": {
        "user": {"id": "a", "_hidden": 1},
        "_synthetic": True,
        "_multi": [{"i": {"id": "x"}}, {"i": {"id": "y"}}],
    },
    "p": [0.75, 0.25],
    "VWState": {"m": "N/A"},
}


def decode(*records, codec=None):
    lines = [record if isinstance(record, bytes) else orjson.dumps(record) for record in records]
    return (codec or DSJSON()).decode(lines, lambda i: f"log.json:{i + 1}")


def changed(**changes):
    return {name: value for name, value in (GOOD | changes).items() if value is not ...}


def test_a_decision():
    records, rejected = decode(GOOD)
    assert rejected == ()
    logged = records.logged
    assert logged.offers.rows == [{"user": {"id": "a"}}]
    assert list(logged.offers.action_rows) == [{"i": {"id": "x"}}, {"i": {"id": "y"}}]
    assert logged.offers.arms.tolist() == ["1", "2"]
    assert (logged.chosen[0], logged.propensities[0], logged.rewards[0], logged.weights[0]) == (
        1,
        0.75,
        1.0,
        1.0,
    )
    assert records.ids == ["91f71c8"]
    assert records.times.tolist() == [1621344509.656]


def test_identities_from_the_actions():
    assert decode(GOOD, codec=DSJSON(arm="i.id"))[0].logged.offers.arms.tolist() == ["x", "y"]
    twice = changed(c={"_multi": [{"i": {"id": "x"}}] * 2})
    _, (letter,) = decode(twice, codec=DSJSON(arm="i.id"))
    assert letter.reason == "expected different actions, got 'x' - at `$.c._multi[1].i.id`, log.json:1"
    _, (letter,) = decode(GOOD, codec=DSJSON(arm="i.name"))
    assert (
        letter.reason
        == "expected what the action is called, got None - at `$.c._multi[0].i.name`, log.json:1"
    )


def test_drops_and_skips_are_weights():
    records, _ = decode(changed(pdrop=0.5), changed(_skipLearn=True), changed(_skipLearn=False, pdrop=0))
    assert records.logged.weights.tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "missing", ["_label_probability", "_label_Action", "_labelIndex", "p", "EventId", "o"]
)
def test_fields_that_say_nothing_new_may_be_missing(missing):
    records, rejected = decode(changed(**{missing: ...}))
    assert rejected == ()
    assert (records.logged.chosen[0], records.logged.propensities[0]) == (1, 0.75)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"_label_cost": ...}, "a finite number, got None - at `$._label_cost`"),
        ({"_label_cost": "NaN"}, "a finite number, got 'NaN' - at `$._label_cost`"),
        ({"_label_probability": 0}, "a number in (0, 1], got 0 - at `$._label_probability`"),
        ({"_label_probability": 1.5}, "a number in (0, 1], got 1.5 - at `$._label_probability`"),
        ({"_label_probability": 0.5}, "0.75, as p says, got 0.5 - at `$._label_probability`"),
        ({"_label_probability": ..., "p": ...}, "a number in (0, 1], got None - at `$._label_probability`"),
        ({"p": [0.0, 1.0]}, "a number in (0, 1], got 0.0 - at `$.p[0]`"),
        ({"p": [0.75, 0.75]}, "probabilities that sum to 1, got 1.5 - at `$.p`"),
        ({"p": [0.75, None]}, "a number in [0, 1], got None - at `$.p[1]`"),
        ({"p": [1e308, 1e308]}, "a number in [0, 1], got 1e+308 - at `$.p[0]`"),
        (
            {"a": [2, 1, 3], "p": [0.5, 1.2, -0.7], "c": {"_multi": [{}, {}, {}]}},
            "a number in [0, 1], got 1.2 - at `$.p[1]`",
        ),
        ({"p": [0.75]}, "2 probabilities, got [0.75] - at `$.p`"),
        ({"a": [2, 2]}, "each of 2 actions once, counted from 1, got [2, 2] - at `$.a`"),
        ({"a": [0, 1]}, "each of 2 actions once, counted from 1, got [0, 1] - at `$.a`"),
        ({"a": ...}, "each of 2 actions once, counted from 1, got None - at `$.a`"),
        ({"a": []}, "each of 2 actions once, counted from 1, got [] - at `$.a`"),
        ({"_label_Action": 3}, "one of 2 actions, counted from 1, got 3 - at `$._label_Action`"),
        ({"_label_Action": 0}, "one of 2 actions, counted from 1, got 0 - at `$._label_Action`"),
        ({"_labelIndex": True}, "one of 2 actions, counted from 0, got True - at `$._labelIndex`"),
        ({"_labelIndex": 0}, "1, as _label_Action says, got 0 - at `$._labelIndex`"),
        (
            {"_labelIndex": ..., "_label_Action": ...},
            "the number of the action that was taken, got None - at `$._label_Action`",
        ),
        ({"pdrop": 1.0}, "a number in [0, 1), got 1.0 - at `$.pdrop`"),
        ({"pdrop": -0.5}, "a number in [0, 1), got -0.5 - at `$.pdrop`"),
        ({"_skipLearn": 1}, "true or false, got 1 - at `$._skipLearn`"),
        (
            {"_outcomes": []},
            "one action a decision (not slots, as of ccb), got '_outcomes' - at `$._outcomes`",
        ),
        (
            {"c": {"_slots": [], "_multi": [{}]}},
            "one action a decision (not slots, as of ccb), got '_slots' - at `$.c._slots`",
        ),
        ({"c": {"x": 1}}, "a list of at least one action, got None - at `$.c._multi`"),
        ({"c": {"_multi": []}}, "a list of at least one action, got [] - at `$.c._multi`"),
        ({"c": {"_multi": [{}, 1]}}, "a mapping of names to features, got 1 - at `$.c._multi[1]`"),
        ({"c": ...}, "a mapping of names to features, got None - at `$.c`"),
        ({"Timestamp": "soon"}, "seconds or an ISO 8601 time, got 'soon' - at `$.Timestamp`"),
    ],
)
def test_rejected(changes, expected):
    bad = changed(**changes)
    records, (letter,) = decode(GOOD, bad, GOOD)
    assert letter.reason == f"expected {expected}, log.json:2"
    assert (letter.data, letter.after, len(records)) == (orjson.dumps(bad), 1, 2)


def test_features_that_are_none():
    bad = changed(c={"x": 1, "_multi": [{}, {"i": {"price": 1e19}}]})
    _, (letter,) = decode(bad)
    assert letter.reason.endswith("at `$.c._multi[1].i.price`, log.json:1")
    deep = b'{"x":' * 900 + b"1" + b"}" * 900  # more than orjson would write
    line = orjson.dumps(changed(c={"x": "deep", "_multi": [{}, {}]})).replace(b'"deep"', deep)
    _, (letter,) = decode(line)
    assert "at most 32 levels of nesting" in letter.reason


def trained(path):
    vw = Workspace(f"--dsjson --cb_explore_adf -d {path} --quiet")
    figures = vw.get_weighted_examples(), vw.get_sum_loss()
    weights = [vw.get_weight(i) for i in range(vw.num_weights())]
    vw.finish()
    return (*figures, weights)


@pytest.mark.parametrize("name", ["average_reward_100_interactions", "cb_100_0"])
def test_an_exported_log_trains_in_vw_as_the_original(name, tmp_path):
    path = DATA / f"{name}.json"
    if not path.exists():
        pytest.skip("the dsjson logs are not there")
    codec = DSJSON()
    records, rejected = codec.decode(path.read_bytes().splitlines(), "log:{}".format)
    assert rejected == ()
    exported = tmp_path / "exported.json"
    exported.write_bytes(
        b"\n".join([*codec.encode(records.logged, ids=records.ids, times=records.times), b""])
    )
    ours, theirs = trained(exported), trained(path)
    assert ours == theirs
    assert any(ours[2])
    assert ours[0] == 100.0
    again, rejected = codec.decode(exported.read_bytes().splitlines(), "log:{}".format)
    assert rejected == ()
    assert again.ids == records.ids
    np.testing.assert_array_equal(again.times, records.times)
    for column in ("chosen", "propensities", "rewards", "weights"):
        np.testing.assert_array_equal(getattr(again.logged, column), getattr(records.logged, column))
    np.testing.assert_array_equal(again.logged.offers.actions.indices, records.logged.offers.actions.indices)


def small_log(weights, **columns):
    n = len(weights)
    return Logged(
        offers=Offers.from_rows([{"hour": i} for i in range(n)], [("news", "sport")] * n),
        chosen=columns.get("chosen", np.arange(n) % 2),
        propensities=np.full(n, 0.5),
        rewards=np.arange(n) / n,
        weights=np.array(weights, dtype=np.float64),
    )


def test_weights_reach_vw(tmp_path):
    exported = tmp_path / "exported.json"
    log = small_log([1.0, 2.0, 0.0, 4.0])
    exported.write_bytes(b"\n".join([*DSJSON().encode(log), b""]))
    assert trained(exported)[0] == log.weights.sum()
    records, _ = DSJSON(arm="_tag").decode(exported.read_bytes().splitlines(), "log:{}".format)
    np.testing.assert_allclose(records.logged.weights, log.weights, rtol=1e-15)
    assert records.logged.offers.arms.tolist() == log.offers.arms.tolist()


def test_distributions_are_written_with_what_was_taken_first():
    log = small_log([1.0, 1.0])
    (first, second) = map(orjson.loads, DSJSON().encode(log, probabilities=np.array([0.5, 0.5, 0.5, 0.5])))
    assert (first["a"], second["a"]) == ([1, 2], [2, 1])
    assert first["p"] == [0.5, 0.5]
    assert first["c"]["_multi"] == [{"_tag": "news", "id": "news"}, {"_tag": "sport", "id": "sport"}]
    assert "p" not in orjson.loads(next(DSJSON().encode(log)))


def offering(context, actions):
    return Logged(
        offers=Offers.from_rows([context], [list(actions)], action_rows=[list(actions.values())]),
        chosen=np.array([1]),
        propensities=np.array([0.5]),
        rewards=np.ones(1),
        weights=np.ones(1),
    )


def test_identities_are_read_back_though_they_look_like_positions():
    log = offering({"hour": 9}, {"1": {"x": 1}, "3": {"x": 2, "_text": "long"}})
    records, rejected = DSJSON(arm="_tag").decode(list(DSJSON().encode(log)), "log:{}".format)
    assert rejected == ()
    assert records.logged.offers.arms.tolist() == ["1", "3"]
    assert list(records.logged.offers.action_rows) == list(log.offers.action_rows)


@pytest.mark.parametrize(
    ("context", "action", "path"),
    [
        ({"_multi": 1}, {}, "$.c._multi"),
        ({"user": {"_slots": 1}}, {}, "$.c.user._slots"),
        ({}, {"_tag": "z"}, "$.c._multi[1]._tag"),
    ],
)
def test_names_that_mean_something_else_cannot_be_written(context, action, path):
    with pytest.raises(BadRecord) as caught:
        list(DSJSON().encode(offering(context, {"a": {}, "b": action})))
    name = path.rpartition(".")[2]
    expected = "a name that does not begin with an underscore, which in dsjson is no feature"
    assert str(caught.value) == f"expected {expected}, got {name!r} - at `{path}`, events[0]"


def test_weights_below_one_cannot_be_written():
    with pytest.raises(BadRecord, match=r"got 0.5 - at `\$.weight`, events\[1\]"):
        list(DSJSON().encode(small_log([1.0, 0.5])))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["a", "_multi", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "_multi", "_text", "i"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from([*GOOD, "pdrop"]), JSON).map(lambda d: GOOD | d) | JSON))
def test_every_record_ends_on_one_side(records):
    decoded, rejected = decode(*records)
    assert len(decoded) + len(rejected) == len(records)


@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes(lines):
    decoded, rejected = decode(*lines)
    assert len(decoded) + len(rejected) == len(lines)
