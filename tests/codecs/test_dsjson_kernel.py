"""The kernel against the way by dicts: whatever the lines are, nobody can tell which one read them."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codecs.dsjson import DSJSON
from penstock.codecs.spans import LineSpans

DATA = Path(__file__).parents[3] / "shared" / "data" / "dsjson"
CODECS = [DSJSON(arm=arm, pipeline="ads") for arm in (None, "_tag", "i.id", "_meta.id", "x")]
NAMES = ["user", "x", "y", "i", "id", "hour", "_tag", "_text", "_hidden", "_", "a", "c", "p", "17", " a ", ""]
NAMES += ["größe", "\\u0061", "\\u005ftag", "a\\n", "_multi", "_slots", "_outcomes", "_meta", "name " * 60]
STRINGS = ["SE", "news", "", "1", "-0", "ärger", "日本"]
STRINGS += ["\\u00e9", '\\/\\b\\t\\\\ \\"', "\\ud800", "tab\there"]
NUMBERS = ["0", "1", "2.5", "-3", "1.0", "-0", "-0.0", "0.1234567890123456789", "1e18", "1e19", "01", "1e400"]
NUMBERS += ["999999999999999999", "18446744073709551616", "1e-400", "+1", ".5", "NaN", "9007199254740993"]
WORDS = ["true", "false", "null", "True", "nul"]
SPACES = ["", "", "", " ", "\t", "\n", "\r", "  ", "\x0c"]
DATES = ["2021-05-18T13:28:29.6560000Z", "2021-05-18T13:28:29Z", "2021-05-18", "2021-05-18T13:28:29.5"]
DATES += ["soon", "2021-05-18T13:28:29.123456+02:00", "2021-02-29T00:00:00Z"]
DATES += ["2024-02-29T23:59:59.9999999Z", "1900-02-29T00:00:00Z", "0001-01-01T00:00:00Z"]
DATES += ["9999-12-31T23:59:59.999999Z", "0000-01-01T00:00:00Z", "1969-12-31T23:59:59.25Z"]
DATES += ["2021-05-18T24:00:00Z", "2021-05-18T13:60:00Z", "2021-05-18T13:28:60Z", "2021-13-01T00:00:00Z"]
DATES += ["2021-04-31T00:00:00Z", "2021-05-18T13:28:29.Z", "2021-05-18T13:28:29.1234567891234Z"]
DATES += ["2021-05-18T13:28:29.12a456Z", "2021-05-18T13:28:29z", "2021-05-18t13:28:29Z"]
DATES += ["2021-W20-2T13:28:29Z"]


def assert_same(codec, records):
    decoded, rejected = codec.decode(records, "log.json:{}".format)
    expected, expected_rejected = codec._decode(records, "log.json:{}".format)
    ours, theirs = decoded.logged, expected.logged
    assert rejected == expected_rejected
    assert [letter.after for letter in rejected] == [letter.after for letter in expected_rejected]
    for matrix in ("contexts", "actions"):
        for name in ("indptr", "indices", "values", "namespaces"):
            columns = [getattr(getattr(logged.offers, matrix), name) for logged in (ours, theirs)]
            assert columns[0].dtype == columns[1].dtype
            assert columns[0].tobytes() == columns[1].tobytes(), (matrix, name)
    for name in ("starts", "keys"):
        assert getattr(ours.offers, name).dtype == getattr(theirs.offers, name).dtype
        assert getattr(ours.offers, name).tolist() == getattr(theirs.offers, name).tolist()
    for name in ("chosen", "propensities", "rewards", "weights"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name
    assert ours.offers.arms.dtype == object
    assert ours.offers.arms.tolist() == theirs.offers.arms.tolist()
    assert {type(arm) for arm in ours.offers.arms} <= {str}
    assert decoded.ids == expected.ids
    assert decoded.times.tobytes() == expected.times.tobytes()
    assert len(decoded) == len(expected)
    assert all(decoded.where(i) == expected.where(i) for i in range(len(decoded)))
    assert repr(ours.offers.rows) == repr(list(theirs.offers.rows))  # not ==: 1 is not 1.0 here
    assert repr(ours.offers.action_rows) == repr(list(theirs.offers.action_rows))


class Writer:
    """Writes lines that are likely to be wrong in one place, or unusual, or neither."""

    def __init__(self, seed, oddity):
        self.rng = random.Random(seed)
        self.oddity = oddity

    def is_odd(self):
        return self.rng.random() < self.oddity

    def one_of(self, things, usual):
        return self.rng.choice(things if self.is_odd() else things[:usual])

    def space(self):
        return self.one_of(SPACES, 3)

    def value(self, depth=0):
        kind = self.rng.random()
        if kind < 0.35:
            return f'"{self.one_of(STRINGS, 4)}"'
        if kind < 0.7:
            return self.one_of([*NUMBERS, repr(self.rng.gauss(0, 50))], 5)
        if kind < 0.8 or depth > 3:
            return self.one_of(WORDS, 3)
        if kind < 0.9:
            return self.mapping([self.member(depth + 1) for _ in range(self.rng.randrange(4))])
        return self.sequence([self.value(depth + 1) for _ in range(self.rng.randrange(4))])

    def member(self, depth=0):
        return self.pair(self.one_of(NAMES, 9), self.value(depth))

    def pair(self, name, value):
        return f'"{name}"{self.space()}:{self.space()}{value}'

    def sequence(self, parts):
        comma = ",," if self.is_odd() and self.is_odd() else ","
        return "[" + self.space() + comma.join(self.space() + part for part in parts) + self.space() + "]"

    def mapping(self, members):
        if not self.is_odd():  # of names that come twice, one is left
            members = list({member.partition(":")[0].strip(): member for member in members}.values())
        self.rng.shuffle(members)
        return "{" + self.sequence(members)[1:-1] + "}"

    def action(self, number):
        name = self.one_of(["news", "\\u00e9", "\\ud83d\\ude00", "\\u0000", "\\ud800", "ä"], 3)
        named = str(number % 7 if self.is_odd() else number)
        if self.rng.random() < 0.8:
            named = f'"{name}{named}"'
        arms = [self.pair("_tag", named), self.pair("x", named), f'"i":{{"id":{named},"_no":1}}']
        arms.append(f'"_meta":{{"y":3,"id":{named}}}')
        kept = [arm for arm in arms if not self.is_odd()]
        return self.mapping(kept + [self.member() for _ in range(self.rng.randrange(3))])

    def fields(self, n):
        chosen = self.rng.randrange(n)
        order = [chosen, *(j for j in range(n) if j != chosen)]
        first = 0.8 + 0.2 / n
        given = [first if j == 0 else 0.2 / n for j in range(n)]
        if self.is_odd():
            given = [repr(round(probability, self.rng.choice((1, 2, 3)))) for probability in given]
        yield "_label_cost", self.one_of(["-1", "0", "0.25", "-0", '"1"', "null", *NUMBERS], 3)
        told = [first, given[0], "null", "0", "0.5", "1e-9", "1.5", "true"]
        yield "_label_probability", self.one_of(told, 2)
        yield "_label_Action", self.one_of([chosen + 1, "null", chosen, "1.0", "-0", "true", n + 1], 1)
        yield "_labelIndex", self.one_of([chosen, "null", chosen + 1, "-0", "0.0", "-1"], 1)
        yield "o", self.value()
        times = [f'"{self.one_of(DATES, 4)}"', '"\\u0032021-05-18"', "12", "null", "1.5e9", *NUMBERS, "true"]
        yield "Timestamp", self.one_of(times, 1)
        yield "EventId", self.one_of(['"id"', "7", '""', '"\\u0061"', "-0", "null", "1.5", "[]"], 3)
        if self.is_odd():
            order[self.rng.randrange(n)] += self.rng.choice((0, 1, -1, n, -n))
        yield "a", self.one_of([str([j + 1 for j in order]), "null", "[]", "[1.0]", "{}"], 1)
        yield "p", self.one_of([f"[{','.join(map(str, given))}]", "null", "[]", "[1]", "[true]", "1"], 1)
        if self.is_odd():
            yield "pdrop", self.one_of(["0", "0.5", "1", "null", '""', "-0", "0.9999", *NUMBERS], 3)
        if self.is_odd():
            yield "_skipLearn", self.one_of(["true", "false", "null", "0", '""'], 2)
        if self.is_odd() and self.is_odd():
            yield self.rng.choice(("_outcomes", "_slots", "c", "\\u0061", "p")), self.value()
        n_given = n if not (self.is_odd() and self.is_odd()) else n + self.rng.choice((-1, 1))
        actions = [self.action(j) for j in range(n_given)]
        if self.is_odd() and self.is_odd():
            actions.append(self.value())
        members = [self.member() for _ in range(self.rng.randrange(5))]
        members.append(self.pair("_multi", self.sequence(actions)))
        yield "c", self.mapping(members)

    def record(self):
        fields = [self.pair(name, value) for name, value in self.fields(self.rng.choice((1, 2, 2, 3, 7)))]
        fields = [field for field in fields if not (self.is_odd() and self.is_odd())]
        data = bytearray(self.mapping(fields).encode())
        while self.is_odd() and self.is_odd() and data:
            self.mutate(data)
        return bytes(data)

    def mutate(self, data):
        at = self.rng.randrange(len(data))
        how = self.rng.randrange(5)
        if how == 0:
            data[at] = self.rng.randrange(256)
        elif how == 1:
            del data[at : at + self.rng.choice((1, 1, 4, 400))]
        elif how == 2:
            data[at:at] = bytes([self.rng.choice(b'"\\{}[]:,0-.eE+ \xc3\xed\x00')])
        elif how == 3:
            data[at] ^= 1 << self.rng.randrange(8)
        else:
            other = self.rng.randrange(len(data))
            data[at:at] = data[other : other + self.rng.randrange(1, 20)]


def fuzz(seed, n):
    writer = Writer(seed, oddity=(0.005, 0.03, 0.15)[seed % 3])
    return [writer.record() for _ in range(n)]


@pytest.mark.parametrize("codec", range(len(CODECS)))
def test_generated_and_mutated_lines(codec):
    for seed in range(12):
        assert_same(CODECS[codec], fuzz(1000 * codec + seed, 200))


@pytest.mark.statistics
@pytest.mark.parametrize("codec", range(len(CODECS)))
def test_a_million_lines(codec):
    for seed in range(500):
        assert_same(CODECS[codec], fuzz(1_000_000 + 1000 * codec + seed, 400))


def line(context, actions, **fields):
    n = len(actions)
    record = {"_label_cost": -1, "_label_Action": 1, "a": [*range(1, n + 1)], "p": [1 / n] * n}
    return json.dumps({**record, **fields, "c": {**context, "_multi": actions}}).encode()


def declined(codec, lines):
    return codec._reader.read(lines)[-1].tolist()


def test_most_ordinary_lines_are_read_by_the_kernel():
    codec = DSJSON(arm="i.id")
    lines = [
        line(
            {"user": {"id": "ü", "_no": 1}, "_synthetic": True, "tags": ["a", {"b": 2}]},
            [{"_tag": "t", "i": {"id": f"ü{j}", "price": j / 7}} for j in range(1 + i % 9)],
            EventId=f"é-{i}",
            Timestamp="2021-05-18T13:28:29.6560000Z",
            VWState={"m": "N/A"},
            o=[{"v": 1.5}],
            pdrop=0.25,
        )
        for i in range(50)
    ]
    assert declined(codec, lines) == []
    assert_same(codec, lines)


@pytest.mark.parametrize("name", ["average_reward_100_interactions", "cb_100_0"])
def test_real_logs(name):
    path = DATA / f"{name}.json"
    if not path.exists():
        pytest.skip("the dsjson logs are not there")
    lines = path.read_bytes().splitlines()
    for codec in CODECS:
        assert_same(codec, lines)
        assert_same(codec, [cut for end in range(0, 700, 7) for cut in (lines[3][:end], lines[5][end:])])
    assert declined(CODECS[0], lines) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
ROWS = st.dictionaries(st.sampled_from(NAMES[:13]) | st.text(max_size=4), VALUES, max_size=4)
FIELDS = ["_label_cost", "_label_probability", "_labelIndex", "EventId", "Timestamp", "p", "a", "pdrop"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(ROWS, st.lists(ROWS, min_size=1, max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=1),
)
def test_any_value(records, fields):
    lines = [line(context, actions, **fields) for context, actions in records]
    for codec in CODECS:
        assert_same(codec, lines)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(lines):
    assert_same(CODECS[0], lines)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.floats(-2e-3, 2e-3) | st.sampled_from([0, 1e-3, -1e-3, 0.000999, 0.00100001]),
    st.floats(-2e-5, 2e-5),
    st.booleans(),
)
def test_probabilities_that_nearly_sum_to_one(parts, off, apart, is_told):
    total = sum(parts) or 1.0
    given = [part / total + (off if i == 0 else 0.0) for i, part in enumerate(parts)]
    told = {"_label_probability": given[0] + apart} if is_told else {}
    assert_same(CODECS[0], [line({"x": 1}, [{}] * len(given), p=given, **told)])


@settings(max_examples=300, deadline=None)
@given(
    st.datetimes(),
    st.sampled_from(["Z", "", "+00:00", "0Z", "-23:59"]),
    st.sampled_from(["auto", "milliseconds"]),
)
def test_any_time(moment, zone, precision):
    assert_same(CODECS[0], [line({}, [{}], Timestamp=moment.isoformat(timespec=precision) + zone)])


def test_dates():
    assert_same(CODECS[0], [line({}, [{}], Timestamp=date) for date in DATES])
    assert_same(CODECS[0], [line({}, [{}], Timestamp=date[:i]) for date in DATES for i in range(len(date))])


def test_nesting_at_every_depth():
    for brackets in ("[]", '{"a":}'):
        opening, closing = brackets[:-1], brackets[-1]
        values = [f"{opening * depth}1{closing * depth}" for depth in [*range(40), 1100]]
        for name in ("x", "_x"):
            rows = [f'"{name}":{value},"b":[{value}]' for value in values]
            lines = [line({"x": "here"}, [{}]).replace(b'"x": "here"', row.encode()) for row in rows]
            lines += [line({}, [{"x": "here"}]).replace(b'"x": "here"', row.encode()) for row in rows]
            assert_same(CODECS[0], lines)


def test_names_that_come_twice_are_told_from_those_of_other_objects():
    shown = line({"x": 0}, [{"y": 0}, {"y": 0}]).decode()
    for name in ("x", "", "0", "_x", "_multi"):
        inner = f'"{name}":{{"{name}":1,"y":2}}'
        lines = [
            shown.replace('"y": 0', f'"{name}":1'),
            shown.replace('"y": 0', f'"{name}":1,"{name}":2'),
            shown.replace('"x": 0', f'"{name}":1').replace('"y": 0}]', f'"{name}":1}}],"{name}":2'),
            shown.replace('"y": 0', f'{inner},"y":3'),
            shown.replace('"x": 0', f'"":{{"x":1,{inner},"x":2}}'),
            shown.replace('"x": 0', f'"_x":[{{{inner}}}],"x":[{{{inner}}},{{"_y":1}}],"x ":3," x":4'),
        ]
        for codec in CODECS:
            assert_same(codec, [text.encode() for text in lines])


def test_more_names_than_the_kernel_remembers():
    rng = random.Random(5)
    names = [f"feature {i}" for i in range(9000)]
    lines = [line(dict.fromkeys(rng.sample(names, 60), 1), [{"x": 1}, {}]) for _ in range(400)]
    codec = DSJSON()
    assert_same(codec, lines)
    assert len(declined(codec, lines)) < 10
    assert_same(codec, [line(dict.fromkeys(names, 2), [{}]), line({}, [{}])])


def test_one_line_of_a_block_ends_where_the_next_begins():
    lines = [line({"x": i}, [{"i": {"id": "a"}}, {"i": {"id": "b"}}], EventId=f"{i}") for i in range(9)]
    lines[4] = lines[4][:-2]
    framer = LineSpans(limit=10_000)
    framer.feed(b"\n".join(lines))
    framer.end()
    records = framer.take(100).records
    for codec in CODECS:
        assert_same(codec, records)
    _, (letter,) = CODECS[2].decode(records, str)
    assert (letter.where, letter.data, letter.after) == ("4", lines[4], 4)


def test_rows_are_made_once_and_shared_by_slices():
    lines = [line({"n": i}, [{"m": j} for j in range(i + 1)]) for i in range(5)]
    lines[2] = lines[2].replace(b'"m": 1', b'"m":1,"m": 7')
    for records in (lines, lines[3:]):
        offers = DSJSON().decode(records, str)[0].logged.offers
        part = offers.slice(1, 2)
        assert part.rows[0] is offers.rows[1]
        assert part.action_rows[1] is list(offers.action_rows)[int(offers.starts[1]) + 1]
        assert [row["n"] for row in offers.rows] == [json.loads(record)["c"]["n"] for record in records]
    assert DSJSON().decode(lines, str)[0].logged.offers.action_rows[3:6] == [{"m": 0}, {"m": 7}, {"m": 2}]


def test_a_call_leaves_nothing_behind():
    codec = DSJSON()
    with pytest.raises(TypeError, match="bytes"):
        codec.decode([line({"x": 1}, [{}]), "text"], str)
    records, _ = codec.decode([line({"x": 1}, [{}])], str)
    np.testing.assert_array_equal(records.logged.offers.starts, [0, 1])


def test_a_name_that_no_line_can_hold():
    assert_same(DSJSON(arm="\ud800"), [line({}, [{"\ud800": "x"}]), line({}, [{"x": "\ud800"}])])
