"""The digest says whether two states are the same; prefixes join and part them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.state import Opaque, digest, prefixed, section

untimed = settings(deadline=None)

arrays = hnp.arrays(
    st.sampled_from([np.bool_, np.int8, np.int64, np.uint32, np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
)
opaques = st.builds(
    lambda text: Opaque(data=b"", digest=text), st.text("0123456789abcdef", min_size=64, max_size=64)
)
names = st.text("abc/", max_size=4)
states = st.dictionaries(names, arrays | scalars | opaques, max_size=5)

# Neighbours that a careless digest takes for one another.
DISTINCT = [
    {},
    {"a": None},
    {"a": False},
    {"a": 0},
    {"a": 0.0},
    {"a": -0.0},
    {"a": float("nan")},
    {"a": ""},
    {"a": "0"},
    {"a": "null"},
    {"a": "\x00"},
    {"b": 0},
    {"a": 0, "b": 0},
    {"a": np.array(0)},
    {"a": np.array([0])},
    {"a": np.array([[0]])},
    {"a": np.array([0], dtype=np.int32)},
    {"a": np.array([0], dtype=np.uint64)},
    {"a": np.array([0], dtype=">i8")},
    {"a": np.array([0.0])},
    {"a": np.array([-0.0])},
    {"a": np.array([np.nan])},
    {"a": np.zeros(0)},
    {"a": np.zeros((0, 1))},
    {"a": np.zeros((1, 0))},
    {"a": np.zeros((2, 3))},
    {"a": np.zeros((3, 2))},
    {"a": np.zeros(6)},
    {"a": np.array([False])},
    {"a": Opaque(data=b"", digest="")},
    {"a": Opaque(data=b"", digest="0")},
]


class TestDigest:
    def test_tells_neighbours_apart(self):
        by_digest = {}
        for state in DISTINCT:
            assert by_digest.setdefault(digest(state), state) is state

    def test_is_a_stable_sha256(self):
        assert digest({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert (
            digest({"w": np.arange(3.0), "n": 3})
            == "93fe577f180a2904c24c25ab1cef35d0f24e7f102f1aafc5e549e000b1defc31"
        )

    @untimed
    @given(states, st.randoms())
    def test_order_of_the_names_does_not_matter(self, state, random):
        shuffled = list(state.items())
        random.shuffle(shuffled)
        assert digest(dict(shuffled)) == digest(state)

    @untimed
    @given(states, st.data())
    def test_every_bit_counts(self, state, data):
        state["x"] = array = data.draw(arrays.filter(lambda array: array.size))
        before = digest(state)
        flat = array.copy(order="C")
        flipped = flat.reshape(-1).view(np.uint8)
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1
        assert digest(state | {"x": flat}) != before
        assert digest(state | {"x": array.copy()}) == before

    def test_layout_in_memory_does_not_matter(self):
        array = np.arange(12.0).reshape(3, 4)
        same = [np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2], array.copy()]
        same[2].setflags(write=False)
        assert {digest({"a": other}) for other in same} == {digest({"a": array})}

    def test_of_an_opaque_entry_is_that_of_its_content(self):
        assert digest({"a": Opaque(data=b"x", digest="1")}) == digest(
            {"a": Opaque(data=b"y", digest="1", trusted=False)}
        )


class TestSections:
    @untimed
    @given(states, names)
    def test_section_undoes_prefixed(self, state, prefix):
        assert section(prefixed(state, prefix), prefix).keys() == state.keys()
        for name, value in section(prefixed(state, prefix), prefix).items():
            assert value is state[name]

    def test_a_prefix_is_a_whole_name(self):
        state = {"sgd/w": 1, "sgd2/w": 2, "sgd": 3}
        assert section(state, "sgd") == {"w": 1}

    @untimed
    @given(states, states)
    def test_sections_do_not_mix(self, one, other):
        joined = prefixed(one, "one") | prefixed(other, "other")
        assert digest(section(joined, "one")) == digest(one)
        assert digest(section(joined, "other")) == digest(other)


def test_an_opaque_digest_is_computed_once_and_only_when_asked_for():
    calls = []

    def content() -> str:
        calls.append(1)
        return "d" * 64

    opaque = Opaque(data=b"model", digest=content)
    assert (opaque.data, opaque.trusted, calls) == (b"model", True, [])
    assert opaque != Opaque(data=b"other", digest="d" * 64)
    assert calls == []
    assert opaque == Opaque(data=b"model", digest="d" * 64)
    assert digest({"a": opaque}) == digest({"a": Opaque(data=b"", digest="d" * 64)})
    assert calls == [1]
