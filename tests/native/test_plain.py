"""What is copied without JSON is what JSON would have given back, to the bit; the rest is left to JSON."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock._native.plain import copied, numbers

VALUES = st.recursive(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text(st.characters(max_codepoint=127)),
    lambda inner: st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=4),
    max_leaves=12,
)


def shares_nothing(copy, row):
    return copy is not row and all(
        shares_nothing(copy[name], value) for name, value in row.items() if isinstance(value, dict)
    )


@given(st.dictionaries(st.text(st.characters(max_codepoint=127)), VALUES, max_size=6))
def test_a_copy_is_what_json_gives_back(row):
    copy = copied(row)
    if copy is not None:
        again = orjson.loads(orjson.dumps(row))
        assert repr(copy) == repr(again)  # the order, the sign of zero and the types too
        assert shares_nothing(copy, row)


def test_plain_rows_are_copied():
    row = {"hour": 9, "x": -0.0, "user": {"country": "SE", "new": True, "more": {}}}
    assert copied(row) == row


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**63, -(2**63) - 1, None, [1], (1,), "é", "\ud800", b"x", np.float64(1), Name("x")],
)
def test_what_is_not_plain_is_left_to_json(value):
    assert copied({"x": 1.0, "y": value}) is None
    assert copied({"x": {"y": value}}) is None


@pytest.mark.parametrize("name", [1, None, "é", Name("x")])
def test_names_that_are_not_plain_are_left_to_json(name):
    assert copied({name: 1.0}) is None


def test_what_nests_too_deep_is_left_to_json():
    row: dict = {}
    row["itself"] = row
    assert copied(row) is None


@given(st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1)))
def test_numbers_are_what_numpy_makes_of_them(values):
    assert numbers(values).tobytes() == np.array(values, dtype=np.float64).tobytes()


@pytest.mark.parametrize("other", [True, "1", None, 2**63, np.float64(1.0), np.int64(1), [1.0]])
def test_what_is_no_plain_number_is_not_taken_for_one(other):
    assert numbers([1.0, other]) is None
    assert numbers((1.0, 2.0)) is None
