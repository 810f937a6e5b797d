"""The hashing kernel against a slow twin, and against Vowpal Wabbit itself."""

from __future__ import annotations

import collections
import datetime
import decimal
import doctest
import fractions
import json
import math
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vowpalwabbit import Workspace

from penstock._native import features as rows_kernel
from penstock._native import text as text_kernel
from penstock._native.features import encode_rows, hash_feature, hash_string, require_features
from penstock._native.text import encode_cells, encode_vw
from penstock.errors import BadRecord, DataError
from penstock.events import Features

untimed = settings(deadline=None)

FINITE = "a finite number of magnitude <= 1e18"
ACCEPTED = "a number, a string, a boolean, a list or a mapping"
WORD = 0xFFFFFFFF


def attempt(function):
    """What `function` returns, or else its BadRecord."""
    try:
        return function(), None
    except BadRecord as error:
        return None, error


# --- The twin: one obvious statement per rule ---


def slow_murmur(data: bytes, seed: int) -> int:
    def rotl(x, r):
        return (x << r | x >> (32 - r)) & WORD

    h = seed
    for start in range(0, len(data), 4):
        block = data[start : start + 4]
        k = rotl(int.from_bytes(block, "little") * 0xCC9E2D51 & WORD, 15) * 0x1B873593 & WORD
        h ^= k
        if len(block) == 4:
            h = (rotl(h, 13) * 5 + 0xE6546B64) & WORD
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & WORD
    h = (h ^ h >> 13) * 0xC2B2AE35 & WORD
    return h ^ h >> 16


def slow_hash(name: str, seed: int) -> int:
    data = name.encode().strip(bytes(range(33)))
    return (int(data or b"0") + seed) & WORD if re.fullmatch(rb"[0-9]*", data) else slow_murmur(data, seed)


def step(key):
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def is_text(value):
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def slow_value(value, index, seed, namespace, depth, path):
    if value is None or value is False:
        return
    if isinstance(value, str):
        if not is_text(value):
            raise BadRecord("text without lone surrogates", value, path=path)
        yield slow_hash(value, seed), 1.0, namespace
    elif isinstance(value, (int, float)):
        if not abs(value) <= 1e18:
            raise BadRecord(FINITE, value, path=path)
        if value != 0:
            yield index, float(value), namespace
    elif isinstance(value, (list, tuple, Mapping)):
        if depth == 32:
            raise BadRecord("at most 32 levels of nesting", value, path=path)
        if isinstance(value, Mapping):
            yield from slow_row(value, seed, seed if depth == 0 else namespace, depth + 1, path)
        else:
            for i, item in enumerate(value):
                yield from slow_value(item, (index + i) & WORD, seed, namespace, depth + 1, f"{path}[{i}]")
    else:
        raise BadRecord(ACCEPTED, value, path=path)


def slow_row(row, seed=0, namespace=0, depth=0, path="$"):
    for key, value in row.items():
        if not isinstance(key, str):
            raise BadRecord("a string as name", key, path=path)
        if not is_text(key):
            raise BadRecord("text without lone surrogates", key, path=path)
        index = slow_hash(key, seed)
        yield from slow_value(value, index, index, namespace, depth, path + step(key))


def entries(features: Features, i: int = 0) -> list[tuple[int, float, int]]:
    one = features.slice(i, i + 1)
    return list(zip(one.indices.tolist(), one.values.tolist(), one.namespaces.tolist(), strict=True))


def encode(row: Any) -> list[tuple[int, float, int]]:
    features, bad = encode_rows([row])
    for _, error in bad:
        raise error
    return entries(features)


names = st.text(max_size=12) | st.sampled_from(
    ["", " ", "7", " 42\n", "007", "4294967296", "99999999999999999999"]
)
numbers = st.integers(-(10**18), 10**18) | st.floats(-1e18, 1e18)
scalars = st.none() | st.booleans() | numbers | names
rows = st.dictionaries(
    names,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=8,
)
# Everything that somebody may put into a row, much of it unusable.
junk = st.recursive(
    scalars
    | st.floats()
    | st.integers()
    | st.binary(max_size=3)
    | st.text(st.characters(), max_size=3)
    | st.sampled_from([10**400, "\ud800", datetime.datetime(2024, 1, 1), object(), {1, 2}, 1j, len, ...]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(names | st.sampled_from([1, None, "\udfff"]), inner, max_size=3)
    ),
    max_leaves=10,
)


class TestHashing:
    @pytest.mark.parametrize(
        ("data", "seed", "expected"),
        [  # vectors of the reference implementation
            (b"", 0, 0),
            (b"", 1, 0x514E28B7),
            (b"", 0xFFFFFFFF, 0x81F16F39),
            (b"\xff\xff\xff\xff", 0, 0x76293B50),
            (b"!Ce\x87", 0, 0xF55B516B),
            (b"!Ce\x87", 0x5082EDEE, 0x2362F9DE),
            (b"!Ce", 0, 0x7E4A8634),
            (b"!C", 0, 0xA0F7B07A),
            (b"!", 0, 0x72661CF4),
            (b"Hello, world!", 0x9747B28C, 0x24884CBA),
            (b"The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
        ],
    )
    def test_vectors(self, data, seed, expected):
        assert hash_string(data, seed) == expected == slow_murmur(data, seed)

    @untimed
    @given(st.binary(max_size=40), st.integers(0, WORD))
    def test_murmur_matches_twin(self, data, seed):
        assert hash_string(data, seed) == slow_murmur(data, seed)

    @untimed
    @given(names, st.none() | names)
    def test_feature_matches_twin(self, name, namespace):
        seed = 0 if namespace is None else slow_hash(namespace, 0)
        assert hash_feature(name, namespace) == slow_hash(name, seed)

    def test_names_of_digits_and_blanks(self):
        assert [hash_feature(name) for name in ("", " \t\x00", "0", "17", " 017\n", "4294967297")] == [
            0,
            0,
            0,
            17,
            17,
            1,
        ]
        assert hash_feature("-1") == slow_murmur(b"-1", 0)
        assert hash_feature("\u0661") == slow_murmur("\u0661".encode(), 0)  # a digit, but not an ASCII one
        assert hash_feature("\u00a0a") != hash_feature("a")  # nor is this white space

    def test_only_text(self):
        with pytest.raises(BadRecord, match="expected text without lone surrogates"):
            hash_feature("\ud800")
        with pytest.raises(TypeError):
            hash_feature(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            hash_string("a", 0)  # type: ignore[arg-type]
        with pytest.raises(OverflowError):
            hash_string(b"a", -1)

    @pytest.mark.parametrize("kernel", [rows_kernel, text_kernel])
    def test_examples_in_docstrings(self, kernel):
        found = doctest.testmod(kernel)
        assert found.failed == 0
        assert found.attempted > 3


class TestRows:
    @untimed
    @given(st.lists(rows, max_size=4))
    def test_matches_twin(self, batch):
        features, bad = encode_rows(batch)
        assert bad == []
        assert [entries(features, i) for i in range(len(batch))] == [list(slow_row(row)) for row in batch]

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.dictionaries(names, junk, max_size=4), max_size=4))
    def test_bad_rows_are_empty_and_listed(self, batch):
        features, bad = encode_rows(batch)
        errors = dict(bad)
        assert len(features) == len(batch)
        for i, row in enumerate(batch):
            expected, error = attempt(lambda row=row: list(slow_row(row)))
            assert entries(features, i) == (expected or [])
            assert str(errors.pop(i, None)) == str(error)
            _, refused = attempt(lambda row=row: require_features(row))
            assert str(refused) == str(error)
        assert errors == {}

    @untimed
    @given(st.lists(rows, max_size=4))
    def test_arrays_are_as_documented(self, batch):
        features, _ = encode_rows(batch)
        assert [column.dtype.str for column in (features.indptr, features.indices, features.values)] == [
            "<i8",
            "<u4",
            "<f8",
        ]
        assert features.namespaces.dtype == np.uint32
        assert features.indptr[0] == 0
        assert (
            features.indptr[-1] == len(features.indices) == len(features.values) == len(features.namespaces)
        )
        assert np.all(np.diff(features.indptr) >= 0)
        assert np.all(features.values != 0.0)
        assert np.all(np.isfinite(features.values))

    def test_what_each_value_stands_for(self):
        user = hash_feature("user")
        age = hash_feature("age", "user")
        tags = hash_feature("tags", "user")
        assert encode({"user": {"age": 3, "tags": ["x", 0.5, True, None, "x", {"y": 2}, [7]]}}) == [
            (age, 3.0, user),
            (slow_hash("x", tags), 1.0, user),
            (tags + 1, 0.5, user),
            (tags + 2, 1.0, user),
            (slow_hash("x", tags), 1.0, user),
            (slow_hash("y", tags), 2.0, user),
            (tags + 6, 7.0, user),
        ]
        assert encode({"a": None, "b": False, "c": 0, "d": -0.0, "e": [], "f": {}}) == []
        assert encode({"a": {"b": {"c": True}}}) == [
            (slow_hash("c", hash_feature("b", "a")), 1.0, hash_feature("a"))
        ]
        assert encode({"a": [{"b": {"c": 1}}]})[0][2] == 0  # a mapping in a list is not a namespace
        assert encode({"a": ""}) == [(hash_feature("a"), 1.0, 0)]

    def test_indices_wrap(self):
        assert encode({"4294967295": [1, 2]}) == [(WORD, 1.0, 0), (0, 2.0, 0)]

    @pytest.mark.parametrize(
        "value",
        [
            np.float64(2.5),
            np.float32(2.5),
            np.float16(2.5),
            np.longdouble(2.5),
            np.array(2.5),
            decimal.Decimal("2.5"),
            fractions.Fraction(5, 2),
            type("Float", (float,), {})(2.5),
        ],
    )
    def test_whatever_is_a_number(self, value):
        assert encode({"a": value}) == encode({"a": 2.5})

    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            (np.int8(-3), -3),
            (np.uint64(10**18), 10**18),
            (np.True_, True),
            (np.False_, False),
            (np.str_("x"), "x"),
            (np.array([1.5, 0.0, 2.5]), [1.5, 0.0, 2.5]),
            (np.array([[1, 2], [3, 4]], dtype=np.int16), [[1, 2], [3, 4]]),
            (np.array(["a", "b"]), ["a", "b"]),
            (np.array([True, False]), [True, False]),
            ((1, "a"), [1, "a"]),
            (collections.namedtuple("Pair", "x y")(1, 2), [1, 2]),
            (collections.OrderedDict(x=1), {"x": 1}),
            (types.MappingProxyType({"x": 1}), {"x": 1}),
            (collections.UserDict({"x": 1}), {"x": 1}),
        ],
    )
    def test_relatives_of_the_built_in_types(self, value, plain):
        for where in ({"a": value}, {"a": {"b": [value]}}, types.MappingProxyType({"a": value})):
            assert encode(where) == encode(json_like(where, value, plain))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([1], "expected a mapping of names to features, got [1] - at `$`"),
            (None, "expected a mapping of names to features, got None - at `$`"),
            ({3: 1}, "expected a string as name, got 3 - at `$`"),
            ({"a": {None: 1}}, "expected a string as name, got None - at `$.a`"),
            ({"a": {"b": math.nan}}, f"expected {FINITE}, got nan - at `$.a.b`"),
            ({"a": [0, math.inf]}, f"expected {FINITE}, got inf - at `$.a[1]`"),
            ({"a": 10**18 + 1}, f"expected {FINITE}, got 1000000000000000001 - at `$.a`"),
            ({"a": -(10**5000)}, f"expected {FINITE}, got an integer of 16610 bits - at `$.a`"),
            ({"a": fractions.Fraction(10**400)}, None),
            ({"a": np.float32("inf")}, f"expected {FINITE}, got np.float32(inf) - at `$.a`"),
            ({"a": np.array([1.0, np.nan])}, f"expected {FINITE}, got nan - at `$.a[1]`"),
            ({"first name": {"x": b"y"}}, f"expected {ACCEPTED}, got b'y' - at `$[\"first name\"].x`"),
            ({"a\n": 1j}, f'expected {ACCEPTED}, got 1j - at `$["a\\n"]`'),
            (
                {"a": datetime.date(2024, 1, 2)},
                f"expected {ACCEPTED}, got datetime.date(2024, 1, 2) - at `$.a`",
            ),
            ({"a": np.timedelta64(1, "s")}, f"expected {ACCEPTED}, got np.timedelta64(1,'s') - at `$.a`"),
            ({"a": np.complex64(1)}, f"expected {ACCEPTED}, got np.complex64(1+0j) - at `$.a`"),
            ({"a": np.bytes_(b"1")}, f"expected {ACCEPTED}, got np.bytes_(b'1') - at `$.a`"),
            ({"a": bytearray(b"1")}, f"expected {ACCEPTED}, got bytearray(b'1') - at `$.a`"),
            ({"a": {1}}, f"expected {ACCEPTED}, got {{1}} - at `$.a`"),
            ({"a": decimal.Decimal("sNaN")}, f"expected {ACCEPTED}, got Decimal('sNaN') - at `$.a`"),
            ({"a": "\udc80"}, "expected text without lone surrogates, got '\\udc80' - at `$.a`"),
            ({"a": {"\udc80": 1}}, "expected text without lone surrogates, got '\\udc80' - at `$.a`"),
            (
                {"x" * 100: {}, "y" * 100: [b""]},
                f"expected {ACCEPTED}, got b'' - at `$[\"{'y' * 59}\\u2026\"][0]`",
            ),
        ],
    )
    def test_error_texts(self, row, message):
        with pytest.raises(BadRecord) as caught:
            encode(row)
        if message is None:
            assert caught.value.expected == FINITE
            assert caught.value.path == "$.a"
        else:
            assert str(caught.value) == message

    def test_depth(self):
        def nested(depth, inner):
            for _ in range(depth):
                inner = {"k": inner}
            return inner

        assert len(encode(nested(33, 1))) == 1  # the row and 32 mappings in it
        with pytest.raises(BadRecord) as caught:
            encode(nested(34, 1))
        assert caught.value.expected == "at most 32 levels of nesting"
        assert caught.value.path == "$" + ".k" * 33
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(BadRecord) as caught:
            encode({"k": loop})
        assert caught.value.path == "$.k" + "[0]" * 32

    @pytest.mark.parametrize("n", [31, 32, 33, 64, 65, 200])
    def test_long_rows(self, n):
        row = {f"k{i}": (float(i + 1), f"c{i}", [i + 1, "x"], {"y": i + 1})[i % 4] for i in range(n)}
        features, bad = encode_rows([row, {"user": row}, row])
        assert bad == []
        assert entries(features, 0) == entries(features, 2) == list(slow_row(row))
        assert entries(features, 1) == list(slow_row({"user": row}))

    def test_empty(self):
        features, bad = encode_rows([])
        assert (len(features), bad, features.indptr.tolist()) == (0, [], [0])

    def test_names_that_come_again(self):
        names = [f"n{i}" for i in range(9000)]  # more than the kernel keeps the hashes of
        rows = [{name: 1.0, "space": {name: 1.0}} for name in names]
        expected = [index for name in names for index in (hash_feature(name), hash_feature(name, "space"))]
        for _ in range(2):
            features, bad = encode_rows(rows)
            assert (features.indices.tolist(), bad) == (expected, [])

    def test_names_at_the_address_of_earlier_ones(self):
        for i in range(9000):
            features, _ = encode_rows([{f"gone{i}": 1.0}])
            assert features.indices.tolist() == [hash_feature(f"gone{i}")]

    @untimed
    @given(st.data())
    def test_names_that_come_and_go(self, data):
        """Equal strings at other addresses, others at the same one, subclasses: all hash as themselves."""

        class Name(str):
            __slots__ = ()

        pool = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
        row = {}
        for name in data.draw(st.lists(st.sampled_from(pool), max_size=20)):
            kind = data.draw(st.sampled_from(["fresh", "same", "subclass", "value"]))
            if kind == "value":
                row.update(dict.fromkeys(row, "".join(list(name))))
            else:
                row.pop(name, None)
                row[{"fresh": "".join(list(name)), "same": name, "subclass": Name(name)}[kind]] = 1.5
            assert encode(row) == list(slow_row(row))
            assert encode({"space": row}) == list(slow_row({"space": row}))

    def test_earlier_results_stay(self):
        first, _ = encode_rows([{"a": 1.5}])
        encode_rows([{"b": 2.5, "c": 3.5}])
        assert entries(first) == [(hash_feature("a"), 1.5, 0)]


class Hostile:
    """A number whose conversion runs `action` first."""

    def __init__(self, action):
        self.action = action

    def __float__(self):
        self.action()
        return 1.0


class TestUserCode:
    def test_may_encode_rows_itself(self):
        inner = []
        features, bad = encode_rows([{"a": 1, "b": Hostile(lambda: inner.append(encode({"x": 2}))), "c": 3}])
        assert bad == []
        assert inner == [[(hash_feature("x"), 2.0, 0)]]
        assert entries(features) == [(hash_feature(k), v, 0) for k, v in (("a", 1.0), ("b", 1.0), ("c", 3.0))]

    @pytest.mark.parametrize("change", ["clear", "grow", "pop"])
    def test_may_not_change_what_is_read(self, change):
        for row in ({}, []):
            is_list = isinstance(row, list)

            def action(row=row, is_list=is_list):
                if change == "clear":
                    row.clear()
                elif change == "pop":
                    row.pop() if is_list else row.popitem()
                elif is_list:
                    row.extend(range(1000))
                else:
                    row.update({str(i) * 9: object() for i in range(1000)})

            for i in range(20):
                value = Hostile(action) if i == 5 else str(i) * 20
                row.append(value) if is_list else row.setdefault(f"k{i}" * 5, value)
            with pytest.raises(BadRecord, match=r"^expected a container that nobody changes"):
                encode({"r": row})

    def test_may_replace_what_is_read(self):
        row = {}

        def action():
            for key in row:
                row[key] = "new"

        row.update({"a": Hostile(action), "b": ["old"]})
        assert encode(row) == encode({"a": 1.0, "b": "new"})

    @pytest.mark.parametrize("nested", [False, True])
    def test_may_replace_what_is_read_next(self, nested):
        coming = {"c": "old" * 9, "d": "old" * 9}
        row = {}

        def action():
            row["b"] = "new" * 9
            coming.update(c="new" * 8, d="new" * 7)
            batch.append({"e": 1})

        row.update({"a": [Hostile(action)] if nested else Hostile(action), "b": "old" * 8})
        batch = [row, coming]
        features, bad = encode_rows(batch)
        expected = [{"a": 1.0, "b": "new" * 9}, {"c": "new" * 8, "d": "new" * 7}, {"e": 1}]
        assert bad == []
        assert [entries(features, i) for i in range(3)] == [encode(row) for row in expected]

    def test_errors(self):
        def fail():
            raise RuntimeError("no")

        with pytest.raises(BadRecord) as caught:
            encode({"a": [1, Hostile(fail)]})
        assert caught.value.path == "$.a[1]"
        assert isinstance(caught.value.__cause__, RuntimeError)

        class Unreadable(collections.UserDict):
            def items(self):
                fail()

        with pytest.raises(BadRecord, match="expected a mapping that can be read"):
            encode({"a": Unreadable()})

    def test_an_interrupt_gets_through_and_leaves_nothing(self):
        def interrupt():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encode_rows([{"a": 1, "b": Hostile(interrupt)}])
        assert encode({"c": 1}) == [(hash_feature("c"), 1.0, 0)]


def json_like(where, value, plain):
    """`where`, with `plain` in the place of `value`."""
    if where is value:
        return plain
    if isinstance(where, Mapping):
        return {key: json_like(inner, value, plain) for key, inner in where.items()}
    return [json_like(inner, value, plain) for inner in where] if isinstance(where, list) else where


# --- Cells ---

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)

digits = st.text("0123456789", max_size=25)
number_texts = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "\t", "\n "]),
        st.sampled_from(["", "+", "-", "--"]),
        digits,
        st.sampled_from(["", ".", ".."]),
        digits,
        st.sampled_from(["", "e", "E+", "e-", "e1", "e-5", "E+17", "e-330", "e330", "e-12"]),
        st.sampled_from(["", "", "5", " ", "_1", "x", "\x00"]),
    ),
)
cells = (
    st.text(max_size=6)
    | number_texts
    | st.floats().map(repr)
    | st.integers().map(str)
    | st.sampled_from(["", "?", "nan", "-Inf", "Infinity", "0x1A", "1_000", "\u0661", "1e", "-", ".", "true"])
)


def slow_cell(cell: str, kind: int) -> float | int | str:
    text = cell.strip(" \t\n\v\f\r")
    if kind == 2:
        return cell
    if NOT_FINITE.fullmatch(text):
        raise BadRecord(FINITE, cell, path="$.c")
    if not NUMBER.fullmatch(text):
        if kind == 1:
            raise BadRecord("a number", cell, path="$.c")
        return cell
    number = int(text) if re.fullmatch("[+-]?[0-9]+", text) else float(text)
    if not abs(number) <= 10**18:
        if kind == 0:
            return cell
        raise BadRecord(FINITE, cell, path="$.c")
    return number


class TestCells:
    @settings(max_examples=500, deadline=None)
    @given(cells, st.sampled_from([0, 1, 2]))
    def test_one_cell_matches_twin(self, cell, kind):
        features, (row,), bad = encode_cells(["c"], [kind], [[cell]], frozenset())
        expected, error = attempt(lambda: slow_cell(cell, kind))
        assert [(i, str(e)) for i, e in bad] == ([(0, str(error))] if error else [])
        assert repr(row) == repr({} if error else {"c": expected})  # to the bit, and of the same type
        assert len(features.indices) == (expected not in (None, 0))

    @untimed
    @given(
        st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5),
        st.lists(st.integers(0, 3), min_size=3, max_size=3),
    )
    def test_features_are_those_of_the_rows(self, records, kinds):
        features, dicts, bad = encode_cells(["a", "7", "c d"], kinds, records, {"", "?"})
        again, none_bad = encode_rows(dicts)
        assert none_bad == []
        for field in ("indptr", "indices", "values", "namespaces"):
            np.testing.assert_array_equal(getattr(features, field), getattr(again, field))
        for i, _ in bad:
            assert dicts[i] == {}

    @untimed
    @given(st.floats(-1e18, 1e18))
    def test_rounds_correctly(self, number):
        for text in (repr(number), f"{number:.25e}", f"{number:.40f}"):
            (row,) = encode_cells(["x"], [1], [[text]], frozenset())[1]
            assert repr(float(row["x"])) == repr(float(text))

    @pytest.mark.parametrize(
        "text",
        [
            "2.2250738585072011e-308",
            "4.9406564584124654e-324",
            "2.4703282292062327e-324",
            "2.4703282292062328e-324",
            "1e-400",
            "-1e-400",
            "9007199254740993.0",
            "0." + "0" * 400 + "1e400",
            "1" + "0" * 400 + "e-400",
            "8." + "9" * 1000,
            "00000000000000000000000000000000007",
        ],
    )
    def test_hard_numbers(self, text):
        (row,) = encode_cells(["x"], [0], [[text]], frozenset())[1]
        assert repr(float(row["x"])) == repr(float(text))

    @pytest.mark.parametrize(
        "text", ["9" * 400, "1e19", "-1e999", "1000000000000000001", "9" * 19, "1" + "0" * 400 + ".5"]
    )
    def test_too_large(self, text):
        # An identifier rather than a number, where the column is not said to hold numbers.
        assert encode_cells(["x"], [0], [[text]], frozenset())[1:] == ([{"x": text}], [])
        ((_, error),) = encode_cells(["x"], [1], [[text]], frozenset())[2]
        assert error.expected == FINITE
        assert error.path == "$.x"

    def test_missing_ignored_and_bad(self):
        features, dicts, bad = encode_cells(
            ["n", "c", "label"],
            [1, 0, 3],
            [["1", "", "x"], ["?", "b", ""], ["", "b", ""], ["1"], ["1", 2, "x"], ["\ud800", "", ""]],  # type: ignore[list-item]
            frozenset([""]),
        )
        assert dicts == [{"n": 1}, {}, {"c": "b"}, {}, {}, {}]
        assert [(i, str(error)) for i, error in bad] == [
            (1, "expected a number, got '?' - at `$.n`"),
            (3, "expected 3 cells, got 1 - at `$`"),
            (4, "expected text, got 2 - at `$.c`"),
            (5, "expected text without lone surrogates, got '\\ud800' - at `$.n`"),
        ]
        assert features.indptr.tolist() == [0, 1, 1, 2, 2, 2, 2]

    def test_zero_is_in_the_row_only(self):
        features, dicts, _ = encode_cells(["x", "y"], [0, 0], [["0", "-0.0"]], frozenset())
        assert repr(dicts) == "[{'x': 0, 'y': -0.0}]"
        assert len(features.indices) == 0

    def test_columns_must_make_sense(self):
        with pytest.raises(DataError, match=r"^two columns are called 'a'$"):
            encode_cells(["a", "a"], [0, 0], [], frozenset())
        with pytest.raises(ValueError, match=r"^1 names, but 2 kinds of columns$"):
            encode_cells(["a"], [0, 0], [], frozenset())
        with pytest.raises(ValueError, match=r"^column 'a': kind must be 0, 1, 2 or 3, got 4$"):
            encode_cells(["a"], [4], [], frozenset())
        assert encode_cells(["a", "a"], [0, 3], [["1", "2"]], frozenset())[1] == [{"a": 1}]


# --- VW's text ---


class Oracle:
    """VW, asked for the features of an example."""

    BITS = 30
    MASK = (1 << BITS) - 1
    STRIDE = 2  # VW leaves room for 4 numbers per weight

    def __init__(self, arguments: str = "") -> None:
        self.vw = Workspace(f"--quiet --noconstant -b {self.BITS} {arguments}")

    def entries(self, line: str) -> list[tuple[int, float]]:
        parsed = self.vw.parse(
            line if line.startswith("{") else f"{line} |"
        )  # it strips what Python calls blank
        example = parsed[0] if isinstance(parsed, list) else parsed
        self.vw.setup_example(example)
        found = [
            (example.feature(n, i) >> self.STRIDE & self.MASK, example.feature_weight(n, i))
            for n in range(example.num_namespaces())
            for i in range(example.num_features_in(n))
        ]
        self.vw.finish_example(parsed)
        return sorted(found)


def assert_same(features: Features, expected: list[tuple[int, float]]) -> None:
    """Equal indices, and values as far as VW's parser, which adds up digits in float32, is right."""
    ours = sorted(zip((features.indices & Oracle.MASK).tolist(), features.values.tolist(), strict=True))
    assert [index for index, _ in ours] == [index for index, _ in expected]
    np.testing.assert_allclose([v for _, v in ours], [v for _, v in expected], rtol=1e-6, atol=0.0)


@pytest.fixture(scope="module")
def vw():
    oracle = Oracle()
    yield oracle
    oracle.vw.finish()


@pytest.fixture(scope="module")
def vw_json():
    oracle = Oracle("--json --chain_hash")
    yield oracle
    oracle.vw.finish()


vw_name = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters=" \t\r\n|:\x00"), min_size=1, max_size=6
) | st.sampled_from(
    ["0", "17", "007", "4294967301", "99999999999999999999", "caf\u00e9", "\u65e5\u672c", "a'b\"c\\"]
)
quarters = st.integers(-4000, 4000).map(lambda n: n / 4)  # exact in VW's float32 arithmetic
vw_value = st.one_of(st.just(""), quarters.map(lambda v: f":{v!r}"), vw_name.map(lambda v: f":{v}"))
vw_feature = st.builds(str.__add__, vw_name, vw_value) | quarters.map(lambda v: f":{v!r}")
vw_space = st.builds(
    lambda name, scale, features: f"|{name}{scale if name else ''} {' '.join(features)}",
    st.just("") | vw_name,
    st.just("") | st.integers(-8, 8).map(lambda v: f":{v / 2}"),
    st.lists(vw_feature, max_size=5),
)
vw_line = st.lists(vw_space, max_size=3).map(" ".join)


class TestVW:
    @settings(max_examples=400, deadline=None)
    @given(vw_line)
    def test_lines_hash_as_in_vw(self, vw, line):
        features, _, bad = encode_vw([line])
        assume(not bad)  # a category that begins like a number
        assume(np.all(np.abs(features.values) > 1e-30))  # the category "1e-50" is 0 to VW
        assert_same(features, vw.entries(line))

    @untimed
    @given(st.lists(vw_name, min_size=4, max_size=4, unique=True))
    def test_rows_hash_as_in_vw(self, vw, four):
        name, space, inner, category = four
        line = f"| {name}:2.5 |{space} {inner}:{category} {name}:0.5"
        assume(not encode_vw([line])[2])
        assume(encode_vw([f"|s n:{category}"])[1] == [{"s": {"n": category}}])
        features, bad = encode_rows([{name: 2.5, space: {inner: category, name: 0.5}}])
        assert bad == []
        assert_same(features, vw.entries(line))

    @pytest.mark.parametrize(
        "row",
        [
            {"f": {"a": "b"}},
            {"f": {"a": "b", "c": 2.5, "d": True, "e": False}},
            {"f": {"a": "17", "17": 3}},
            {"a": 1.5, "b": "x", "f": {"caf\u00e9": "\u00fc"}},
            {"f": [1.5, 2.5, 0.0, 3.5]},
        ],
    )
    def test_rows_hash_as_vw_reads_json_with_chain_hash(self, vw_json, row):
        assert_same(encode_rows([row])[0], vw_json.entries(json.dumps(row)))

    def test_the_hashes_it_prints(self, tmp_path):
        readable = tmp_path / "readable"
        model = Workspace(f"--quiet -b 18 --invert_hash {readable}")
        model.learn("1 |user age:31 country:SE |ad 17")
        model.finish()
        printed = {}
        for line in readable.read_text().splitlines():
            if found := re.fullmatch(r"(.+\^.+):(\d+):.+", line):
                printed[found[1]] = int(found[2])
        mask = (1 << 18) - 1
        assert printed == {
            "user^age": hash_feature("age", "user") & mask,
            "user^country^SE": slow_hash("SE", hash_feature("country", "user")) & mask,
            "ad^17": hash_feature("17", "ad") & mask,
        }

    @untimed
    @given(st.lists(vw_line, max_size=4))
    def test_rows_stand_for_the_lines(self, lines):
        features, dicts, bad = encode_vw(lines)
        again, none_bad = encode_rows(dicts)
        assert none_bad == []
        for i in range(len(lines)):
            totals: dict[tuple[int, int], float] = collections.defaultdict(float)
            for index, value, namespace in entries(features, i):
                totals[index, namespace] += value
            for index, value, namespace in entries(again, i):
                totals[index, namespace] -= value
            assert all(value == 0.0 for value in totals.values())
        for i, _ in bad:
            assert dicts[i] == {}
            assert entries(features, i) == []

    @pytest.mark.parametrize(
        ("line", "row"),
        [
            ("", {}),
            ("|", {}),
            ("|a", {}),
            ("| a b:2.5", {"a": 1.0, "b": 2.5}),
            ("|ns:2.5 a:1 b |other c\r\n", {"ns": {"a": 2.5, "b": 2.5}, "other": {"c": 1.0}}),
            ("|u a:1 a:2|u b:0\ta:-1e1", {"u": {"a": -7.0}}),
            ("|u:3 a:red", {"u": {"a": "red"}}),
            ("| a:red a:blue a:2 a:3", {"a": [5.0, "red", "blue"]}),
            ("| a:2 a:red a:1", {"a": [3.0, "red"]}),
            ("| :3 x :0 :5 :red", {"0": 3.0, "x": 1.0, "2": 5.0, "red": 1.0}),
            ("|z a | z:1 y", {"z": {"a": 1.0}, "": {"z": 1.0, "y": 1.0}}),
            ("|a b:c|d e", {"a": {"b": "c|d", "e": 1.0}}),
            ("|a b:http://x", {"a": {"b": "http://x"}}),
            ("|a b:-x c:.y d:east", {"a": {"b": "-x", "c": ".y", "d": "east"}}),
        ],
    )
    def test_rows(self, line, row, vw):
        features, dicts, bad = encode_vw([line])
        assert bad == []
        assert dicts == [row]
        if line.strip():
            assert_same(features, vw.entries(line.strip()))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("1 |a b", "'|' before the first namespace, got '1 |a b' - at `$`"),
            ("|a b\n|a c", "a single line, got '|a b\\n|a c' - at `$`"),
            ("|a b\r c", "a single line, got '|a b\\r c' - at `$`"),
            ("|:2 b", "the name of a namespace before its ':', got ':2' - at `$`"),
            ("|a:x b", f"{FINITE}, got 'x' - at `$.a`"),
            ("|a: b", f"{FINITE}, got '' - at `$.a`"),
            ("|a:1:2 b", f"{FINITE}, got '1:2' - at `$.a`"),
            ("|a:nan b", f"{FINITE}, got 'nan' - at `$.a`"),
            ("|a b:NaN", f"{FINITE}, got 'NaN' - at `$.a.b`"),
            ("| b:-inf", f"{FINITE}, got '-inf' - at `$.b`"),
            ("|a b:1e19|c d", f"{FINITE}, got '1e19' - at `$.a.b`"),
            ("|a:1e10 b:1e10", f"{FINITE}, got '1e10' - at `$.a.b`"),
            ("|a b:", "a number, or a category that cannot be taken for one, got '' - at `$.a.b`"),
            ("|a b: 2", "a number, or a category that cannot be taken for one, got '' - at `$.a.b`"),
            ("|a b:1.5x", "a number, or a category that cannot be taken for one, got '1.5x' - at `$.a.b`"),
            ("|a b:1:2", "a number, or a category that cannot be taken for one, got '1:2' - at `$.a.b`"),
            ("|a b:0x1A", "a number, or a category that cannot be taken for one, got '0x1A' - at `$.a.b`"),
            ("|a b:e5", "a number, or a category that cannot be taken for one, got 'e5' - at `$.a.b`"),
            ("|a b:-", "a number, or a category that cannot be taken for one, got '-' - at `$.a.b`"),
            ("|a b:nancy", "a number, or a category that cannot be taken for one, got 'nancy' - at `$.a.b`"),
            ("|a \ud800", "text without lone surrogates, got '|a \\ud800' - at `$`"),
        ],
    )
    def test_error_texts(self, line, message):
        features, dicts, bad = encode_vw(["|x y", line, "|x y"])
        assert [(i, str(error)) for i, error in bad] == [(1, f"expected {message}")]
        assert dicts == [{"x": {"y": 1.0}}, {}, {"x": {"y": 1.0}}]
        assert features.indptr.tolist() == [0, 1, 1, 2]

    @untimed
    @given(st.lists(st.text("|: \tab1.e-n\x00\u00e9\r\n", max_size=20) | st.text(max_size=20), max_size=4))
    def test_any_text(self, lines):
        features, dicts, bad = encode_vw(lines)
        assert len(features) == len(dicts) == len(lines)
        assert np.all(np.isfinite(features.values))
        assert np.all(features.values != 0.0)
        assert [i for i, _ in bad] == sorted({i for i, _ in bad})
