"""What hashes mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.drift.vocabulary import FEW, LONGEST, MOST_LEAVES, Vocabulary
from penstock.errors import StoreError
from penstock.events import Batch

ROWS = [
    {
        "age": 31.5,
        "kids": 0,
        "new": True,
        "country": "SE",
        "user": {"id": "u1", "scores": [0.5, None, [2.0]]},
        "tags": ["a", "b"],
        "vector": np.array([1.0, 0.0, 2.0]),
        "nothing": None,
        "7": 1.0,
    }
]

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1e18, 1e18), st.text(max_size=4))
TREES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def learned(rows):
    words = Vocabulary()
    words.learn(rows)
    return words


def test_names_are_those_of_the_rows():
    names = set(learned(ROWS).names().values())
    assert names == {
        "age", "kids", "new", "country='SE'", "user.id='u1'", "user.scores[0]", "user.scores[2][0]",
        "tags['a']", "tags['b']", "vector[0]", "vector[1]", "vector[2]", "7",
    }  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=3), TREES, max_size=4), min_size=1, max_size=4))
def test_every_entry_of_an_event_has_a_name(rows):
    words = learned(rows)
    assert set(Batch.from_rows(rows).features.indices.tolist()) <= set(words.names())
    assert Vocabulary.loads(words.dumps()).names() == words.names()


def test_numbers_of_few_values_are_told_from_others():
    rows = [{"few": i % 3, "many": i / 7, "rare": 1.0} if i else {"few": 2, "many": 0.5} for i in range(100)]
    columns = {column.name: column for column in learned(rows).columns(least=1)}
    assert columns["few"].numbers == [0.0, 1.0, 2.0]
    assert columns["rare"].numbers == [0.0, 1.0]  # 0 where it is missing
    assert columns["many"].numbers == []
    assert len({row["many"] for row in rows}) > FEW


def test_what_most_events_have_comes_first():
    rows = [
        {"b": 1.0, "c": "x" if i < 7 else "y" if i < 9 else "z", **({"a": 1.0} if i % 2 else {})}
        for i in range(10)
    ]
    columns = learned(rows).columns(least=2)
    assert [column.name for column in columns] == ["b", "c", "a"]
    assert [column.n_events for column in columns] == [10, 10, 5]
    assert columns[1].categories == ["x", "y"]


def test_a_feature_that_is_now_a_number_and_now_a_text_is_two():
    kinds = [(column.name, column.kind) for column in learned([{"a": 1.5}, {"a": "x"}]).columns(least=1)]
    assert kinds == [("a", "number"), ("a", "category")]


def test_it_is_bounded():
    words = learned([{f"f{i}": 1.0 for i in range(2 * MOST_LEAVES)}])
    assert len(words.names()) == MOST_LEAVES
    (column,) = learned([{"n" * 500: "c" * 500}]).columns(least=1)
    assert max(len(column.name), len(column.categories[0])) <= LONGEST + 9


def test_long_texts_are_told_apart():
    long = "x" * 100
    rows = [
        {"c": f"{long}1"},
        {"c": f"{long}2"},
        {"c": [f"{long}1", f"{long}2"]},
        {f"{long}1": 1.0},
        {f"{long}2": 1.0},
    ]
    assert set(learned(rows).names()) == set(Batch.from_rows(rows).features.indices.tolist())


@pytest.mark.parametrize("text", [None, 3, "", "{}", "[1]", "[1, [[[], null, 1]]]", '["a", []]'])
def test_other_texts_are_refused(text):
    with pytest.raises(StoreError, match="no vocabulary"):
        Vocabulary.loads(text)
