"""Tables of decisions: columns by role, the same actions in every row, bad rows rejected like others."""

import gzip

import numpy as np
import pytest

from penstock.codecs.decision_table import DecisionTable, table_rows
from penstock.codecs.decisions import LogCodec
from penstock.errors import BadRecord, ConfigError, DataError
from penstock.sources.decision_log import read_log

HEADER = b"item,pos,click,p,when,noise"
ITEMS = {"7": {"price": 12.5}, "8": {}}


def table(**options):
    given = {"action": "item", "reward": "click", "propensity": "p", "time": "when", "ignore": ["noise"]}
    codec = DecisionTable(options.pop("actions", ITEMS), **(given | options))
    return codec.with_header(HEADER, "log.csv:1")


def decode(*rows, **options):
    return table(**options).decode(rows, lambda i: f"log.csv:{i + 2}")


def test_rows_of_a_table():
    records, rejected = decode(b"8,2,1,0.25,5,x", b"7,a,0.5,1,6,y")
    assert rejected == ()
    logged = records.logged
    assert logged.offers.arms.tolist() == ["7", "8", "7", "8"]
    assert logged.offers.rows == [{"pos": 2}, {"pos": "a"}]
    assert list(logged.offers.action_rows) == [ITEMS["7"], ITEMS["8"]] * 2
    assert logged.offers.actions.indptr.tolist() == [0, 1, 1, 2, 2]
    assert logged.chosen.tolist() == [1, 0]
    assert logged.propensities.tolist() == [0.25, 1.0]
    assert logged.rewards.tolist() == [1.0, 0.5]
    assert records.times.tolist() == [5.0, 6.0]
    assert len(set(logged.offers.keys.tolist())) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"9,1,0,0.5,1,", "expected one of the offered actions, got '9' - at `$.item`, log.csv:3"),
        (b",1,0,0.5,1,", "expected a value, got None - at `$.item`, log.csv:3"),
        (b"7,1,0,0,1,", "expected a number in (0, 1], got 0.0 - at `$.p`, log.csv:3"),
        (b"7,1,0,1.01,1,", "expected a number in (0, 1], got 1.01 - at `$.p`, log.csv:3"),
        (b"7,1,0,-1,1,", "expected a finite number >= 0, got '-1' - at `$.p`, log.csv:3"),
        (b"7,1,0,nan,1,", "expected a finite number >= 0, got 'nan' - at `$.p`, log.csv:3"),
        (b"7,1,0,,1,", "expected a value, got None - at `$.p`, log.csv:3"),
        (b"7,1,,0.5,1,", "expected a label, got None - at `$.click`, log.csv:3"),
        (b"7,1,x,0.5,1,", "expected a finite number, got 'x' - at `$.click`, log.csv:3"),
        (b"7,1,0,0.5", "expected 6 fields, got 4 - at `$`, log.csv:3"),
        (b"\xff,1,0,0.5,1,", "expected UTF-8 (byte 0 is not), got b'\\xff,1,0,0.5,1,' - at `$`, log.csv:3"),
    ],
)
def test_rejected(row, reason):
    good = b"7,1,0,0.5,1,"
    records, rejected = decode(good, row, good)
    (letter,) = rejected
    assert letter.reason == reason
    assert (letter.where, letter.data, letter.after) == ("log.csv:3", row, 1)
    assert len(records) == 2
    whole, _ = decode(good, good, good)
    np.testing.assert_array_equal(records.logged.offers.keys, whole.logged.offers.keys[[0, 2]])


def test_bad_rows_of_both_kinds_stay_in_order():
    _, rejected = decode(b"9,1,0,0.5,1,", b"7,1", b"7,1,0,0,1,", b"7,1,0,0.5,1,", b"7,1,0,x,1,")
    assert [letter.where for letter in rejected] == ["log.csv:2", "log.csv:3", "log.csv:4", "log.csv:6"]
    assert [letter.after for letter in rejected] == [0, 0, 0, 1]


def test_flat_json():
    codec = DecisionTable(["1", "x"], format="json")
    assert isinstance(codec, LogCodec)
    assert not codec.needs_header
    lines = [
        b'{"action": 1, "reward": 1, "propensity": 0.5, "user": {"age": 3}}',
        b'{"action": "x", "reward": 1, "propensity": 0.5}',
        b'{"action": "x", "reward": 1}',
    ]
    records, (letter,) = codec.decode(lines, "log:{}".format)
    assert records.logged.chosen.tolist() == [0, 1]
    assert records.logged.offers.rows[0] == {"user": {"age": 3}}
    assert letter.reason == "expected a value, got None - at `$.propensity`, log:2"


@pytest.mark.parametrize("actions", [[], ["a", "a"], "ab", {}])
def test_actions_have_to_be_told(actions):
    with pytest.raises(ConfigError, match="actions: expected different actions, at least one"):
        DecisionTable(actions)


@pytest.mark.parametrize("actions", [[7, "8"], {7: {}, "8": {}}])
def test_actions_may_be_numbers(actions):
    records, rejected = decode(b"8,2,1,0.25,5,x", b"7,1,1,0.5,5,x", actions=actions)
    assert rejected == ()
    assert records.logged.offers.arms.tolist() == ["7", "8"] * 2
    assert records.logged.chosen.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (5, "actions: expected different actions, at least one, got 5"),
        ([7, "7"], "actions: expected different actions, at least one, got '7' twice"),
        ([7, 7.5], "actions: expected texts or whole numbers, got 7.5: write it as the column has it"),
        ([True], "actions: expected texts or whole numbers, got True"),
        ({"a": 5}, "actions: 'a': expected a mapping of names to features, got 5"),
    ],
)
def test_actions_that_are_none(actions, message):
    with pytest.raises(ConfigError) as caught:
        DecisionTable(actions)
    assert str(caught.value).startswith(message)


def test_decisions_know_where_they_came_from():
    records, _ = decode(b"7,1,1,0.5,5,x", b"9,1,1,0.5,5,x", b"8,2,1,0.25,5,x")
    assert [records.where(i) for i in range(len(records))] == ["log.csv:2", "log.csv:4"]


def test_options_that_cannot_be_used():
    with pytest.raises(ConfigError, match=r"^propensity: 'x' is already the reward$"):
        DecisionTable(["a"], reward="x", propensity="x")
    with pytest.raises(ConfigError, match="actions: 'a': expected a finite number"):
        DecisionTable({"a": {"price": float("inf")}})


@pytest.mark.parametrize("option", ["action", "reward", "propensity", "time"])
def test_a_column_that_is_not_there_is_named_with_its_option(option):
    there = "there are 'item', 'pos', 'click', 'p', 'when', 'noise'"
    with pytest.raises(DataError) as caught:
        table(**{option: "itm"})
    assert str(caught.value) == f"log.csv:1: no column 'itm' (option {option}); {there}"
    with pytest.raises(ConfigError, match=rf"^columns: no column 'itm' \(option {option}\); there are"):
        DecisionTable(["a"], columns=["action", "reward", "propensity"], **{option: "itm"})


def test_features_of_actions_from_a_table():
    lines = [b"row,item,price,kind", b"0,7,12.5,x", b"1,8,,y"]
    assert table_rows(lines, key="item", ignore=["row"]) == {
        "7": {"price": 12.5, "kind": "x"},
        "8": {"kind": "y"},
    }
    with pytest.raises(BadRecord, match=r"expected different actions, got '7' - at `\$.item`, line 3"):
        table_rows([lines[0], lines[1], lines[1]], key="item", ignore=["row"])
    with pytest.raises(BadRecord, match="line 2"):
        table_rows([lines[0], b"1,2"], key="item")
    with pytest.raises(DataError, match=r"no column 'id' \(option key\)"):
        table_rows(lines, key="id")


def test_a_file_is_read_alike_in_any_pieces(tmp_path):
    path = tmp_path / "log.csv.gz"
    rows = [b"%d,%d,1,0.5,%d,z" % (7 + i % 3, i, i) for i in range(50)]
    path.write_bytes(gzip.compress(b"\n".join([HEADER, *rows])))
    codec = DecisionTable(ITEMS, action="item", reward="click", propensity="p", time="when", ignore=["noise"])
    reads = []
    for size in (1, 7, 1000):
        pieces = list(read_log(str(path), codec, size=size))
        keys = [key for records, _ in pieces for key in records.logged.offers.keys.tolist()]
        wheres = [letter.where for _, rejected in pieces for letter in rejected]
        reads.append((keys, wheres))
    assert reads[0] == reads[1] == reads[2]
    assert len(reads[0][0]) == 34
    assert reads[0][1][0] == f"{path}:4"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError):
        list(read_log(str(tmp_path / "none.csv"), DecisionTable(["a"])))
