"""Batches cut, chosen from, joined and stored: always the same events."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import itertools
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import BadRecord
from penstock.events import Batch, Features
from penstock.state import digest

untimed = settings(deadline=None)

names = st.text(max_size=4)
rows = st.dictionaries(
    names,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(-1e18, 1e18) | names,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@st.composite
def batches(draw, min_size=0):
    chosen = draw(st.lists(rows, min_size=min_size, max_size=8))
    n = len(chosen)
    column = st.lists(st.floats(0.0, 1e9), min_size=n, max_size=n)
    batch = Batch.from_rows(chosen, draw(column), draw(column))
    words = st.none() | st.lists(names, min_size=n, max_size=n)
    return dataclasses.replace(batch, times=np.array(draw(column)), lines=draw(words), ids=draw(words))


def event(batch: Batch, i: int) -> dict[str, object]:
    """Event i as plain values, found without `slice`."""
    low, high = batch.features.indptr[i : i + 2].tolist()
    return {
        "indices": batch.features.indices[low:high].tolist(),
        "values": batch.features.values[low:high].tolist(),
        "namespaces": batch.features.namespaces[low:high].tolist(),
        "label": batch.labels[i],
        "weight": batch.weights[i],
        "time": batch.times[i],
        "row": batch.rows[i],
        "line": None if batch.lines is None else batch.lines[i],
        "id": None if batch.ids is None else batch.ids[i],
    }


def events(batch: Batch) -> list[dict[str, object]]:
    check_shape(batch)
    return [event(batch, i) for i in range(len(batch))]


def check_shape(batch: Batch) -> None:
    features = batch.features
    assert len(features) == len(batch) == len(batch.rows) == len(batch.weights) == len(batch.times)
    assert features.indptr[0] == 0
    assert features.indptr[-1] == len(features.indices) == len(features.values) == len(features.namespaces)
    assert [a.dtype.str for a in dataclasses.astuple(features)] == ["<i8", "<u4", "<f8", "<u4"]


class TestCutting:
    @untimed
    @given(batches(), st.integers(-10, 10), st.integers(-10, 10))
    def test_slice_is_pythons(self, batch, start, stop):
        assert events(batch.slice(start, stop)) == events(batch)[start:stop]
        assert len(batch.features.slice(start, stop)) == len(range(len(batch))[start:stop])

    @untimed
    @given(batches())
    def test_slice_shares_memory(self, batch):
        part = batch.slice(1, 3)
        assert part.weights.base is not None
        for whole, cut in (
            (batch.features.indices, part.features.indices),
            (batch.features.values, part.features.values),
            (batch.labels, part.labels),
        ):
            assert len(cut) == 0 or np.shares_memory(whole, cut)

    @untimed
    @given(batches())
    def test_events_are_batches_of_one(self, batch):
        singles = list(batch.events())
        assert [len(single) for single in singles] == [1] * len(batch)
        assert [events(single)[0] for single in singles] == events(batch)

    @untimed
    @given(batches(), st.data())
    def test_take(self, batch, data):
        some = st.lists(st.integers(0, len(batch) - 1), max_size=10) if len(batch) else st.just([])
        positions = data.draw(some)
        taken = batch.take(np.array(positions, dtype=np.int64))
        assert events(taken) == [event(batch, i) for i in positions]
        assert not np.shares_memory(taken.features.values, batch.features.values)

    @pytest.mark.parametrize("position", [-1, 2, 2**40])
    def test_take_out_of_bounds(self, position):
        batch = Batch.from_rows([{"a": 1}, {"b": 2}])
        with pytest.raises(IndexError, match="out of bounds"):
            batch.take(np.array([0, position]))
        with pytest.raises(IndexError, match="out of bounds"):
            batch.features.take(np.array([0, position]))

    @untimed
    @given(batches(), st.lists(st.integers(0, 8), max_size=5))
    def test_concat_undoes_cutting(self, batch, cuts):
        bounds = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
        parts = [batch.slice(a, b) for a, b in itertools.pairwise(bounds)]
        joined = Batch.concat(parts)
        assert events(joined) == events(batch)
        assert digest(joined.state()) == digest(batch.state())
        assert joined.labels.dtype == batch.labels.dtype

    @untimed
    @given(st.lists(batches(), min_size=1, max_size=4))
    def test_concat_keeps_what_all_have(self, parts):
        joined = Batch.concat(parts)
        full = [part for part in parts if len(part)]
        for field in ("lines", "ids"):
            every = [getattr(part, field) for part in full]
            expected = None if None in every else [word for words in every for word in words]
            assert (getattr(joined, field) or []) == (expected or [])
        assert [row for part in parts for row in part.rows] == joined.rows

    def test_concat_ignores_what_empty_parts_lack(self):
        empty = Batch.from_rows([])
        named = dataclasses.replace(Batch.from_rows([{"a": 1}], ["spam"]), ids=["x"], lines=["|a"])
        joined = Batch.concat([empty, named, empty])
        assert (joined.ids, joined.lines, joined.labels.tolist()) == (["x"], ["|a"], ["spam"])
        numbered = Batch.concat([named.slice(0, 0), Batch.from_rows([{"a": 1}], [2.0])])
        assert numbered.labels.dtype == np.float64
        assert len(Batch.concat([empty, empty])) == 0

    def test_empty_batch(self):
        empty = Batch.from_rows([])
        check_shape(empty)
        assert list(empty.events()) == []
        for other in (
            empty.slice(0, 5),
            empty.take(np.array([], dtype=np.int64)),
            Batch.from_state(empty.state()),
            empty.with_weights(np.ones(0)),
        ):
            check_shape(other)
            assert len(other) == 0
        assert len(Features.concat([])) == 0

    def test_with_labels_and_weights(self):
        batch = Batch.from_rows([{"a": 1}, {"b": 2}], ["x", "y"])
        changed = batch.with_labels(np.array([0.0, 1.0])).with_weights(np.array([2.0, 3.0]))
        assert (changed.labels.tolist(), changed.weights.tolist()) == ([0.0, 1.0], [2.0, 3.0])
        assert (batch.labels.tolist(), batch.weights.tolist()) == (["x", "y"], [1.0, 1.0])
        assert changed.features is batch.features


class TestState:
    @untimed
    @given(batches())
    def test_round_trip(self, batch):
        again = Batch.from_state(batch.state())
        assert events(again) == events(batch)
        assert digest(again.state()) == digest(batch.state())

    def test_rows_keep_the_values_that_were_hashed(self):
        row = {
            "small": np.float32(0.1),
            "double": np.float64(0.1),
            "half": np.float16(0.1),
            "count": np.int32(7),
            "flag": np.True_,
            "array": np.array([0.1, 0.2], dtype=np.float32)[::-1],
            "price": decimal.Decimal("0.1"),
            "pair": (1, "x"),
            "word": np.str_("x"),
            np.str_("name"): 1,
            "space": types.MappingProxyType({"a": 1}),
            "user": collections.UserDict(a=[np.int8(1)]),
        }
        batch = Batch.from_rows([row, collections.UserDict(row)])
        again = Batch.from_state(batch.state())
        rebuilt = Batch.from_rows(again.rows)
        assert digest(again.state()) == digest(batch.state())
        for field in ("indptr", "indices", "values", "namespaces"):
            np.testing.assert_array_equal(getattr(rebuilt.features, field), getattr(batch.features, field))

    def test_survives_without_the_batch(self):
        batch = Batch.from_rows([{"a": "é"}])
        state = {name: np.array(value) for name, value in batch.state().items()}
        del batch
        assert Batch.from_state(state).rows == [{"a": "é"}]


class TestFromRows:
    def test_labels(self):
        assert np.isnan(Batch.from_rows([{}, {}]).labels).all()
        assert Batch.from_rows([{}, {}], [1, 0]).labels.dtype == np.float64
        for names_ in (["x", "y"], np.array(["x", "y"]), np.array(["x", "y"], dtype=object)):
            labels = Batch.from_rows([{}, {}], names_).labels
            assert (labels.dtype, labels.tolist()) == (np.dtype(object), ["x", "y"])

    def test_keeps_no_array_of_the_caller(self):
        labels, weights = np.zeros(1), np.ones(1)
        batch = Batch.from_rows([{}], labels, weights)
        labels[0] = weights[0] = 5.0
        assert (batch.labels[0], batch.weights[0]) == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ([{}, {"a": {"b": b"c"}}],),
                "a number, a string, a boolean, a list or a mapping, got b'c' - at `$.a.b`, row 1",
            ),
            (([{}, {}], None, [1.0, -1.0]), "a finite weight >= 0, got -1.0 - at `$.weight`, row 1"),
            (([{}, {}], None, [np.nan, -1.0]), "a finite weight >= 0, got nan - at `$.weight`, row 0"),
            (([{}], None, [np.inf]), "a finite weight >= 0, got inf - at `$.weight`, row 0"),
        ],
    )
    def test_bad_values(self, arguments, message):
        with pytest.raises(BadRecord) as caught:
            Batch.from_rows(*arguments)
        assert str(caught.value) == f"expected {message}"

    def test_lengths(self):
        with pytest.raises(ValueError, match=r"^1 rows need labels of shape \(1,\), got shape \(2,\)$"):
            Batch.from_rows([{}], [1.0, 2.0])
        with pytest.raises(ValueError, match=r"^2 rows need weights of shape \(2,\), got shape \(1,\)$"):
            Batch.from_rows([{}, {}], None, [1.0])
        with pytest.raises(ValueError, match=r"^1 rows need labels of shape \(1,\), got shape \(0,\)$"):
            Batch.from_rows([{}], [])

    def test_is_frozen(self):
        batch = Batch.from_rows([{}])
        with pytest.raises(dataclasses.FrozenInstanceError):
            batch.labels = np.ones(1)  # type: ignore[misc]
