"""The kernel against a list of events; and against what must never be read or written."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._native.kept import Kept, costs_of

COLUMNS = ("indptr", "indices", "values", "namespaces", "labels", "weights", "times")


def events(lengths, seed=0):
    """Columns of as many random events, as `Kept.append` takes them."""
    rng = np.random.default_rng(seed)
    n, nnz = len(lengths), sum(lengths)
    return {
        "indptr": np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        "indices": rng.integers(0, 2**32, nnz, dtype=np.uint32),
        "values": rng.normal(size=nnz),
        "namespaces": rng.integers(0, 2**32, nnz, dtype=np.uint32),
        "labels": rng.normal(size=n),
        "weights": rng.random(n),
        "times": rng.normal(size=n),
    }


def listed(columns):
    """Each event by itself: features and the three numbers."""
    indptr, indices, values, namespaces, *numbers = columns
    return [
        (
            indices[a:b].tolist(),
            values[a:b].tolist(),
            namespaces[a:b].tolist(),
            *(column[i] for column in numbers),
        )
        for i, (a, b) in enumerate(itertools.pairwise(indptr))
    ]


def everything(kept):
    return listed(kept.take(np.arange(len(kept))))


BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), max_size=6)


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.data())
def test_it_is_a_list_of_events(batches, data):
    kept, twin, numbers, offered = Kept(), [], [], 0
    for seed, batch in enumerate(batches):
        columns = events([length for length, _ in batch], seed)
        places = np.array([i for i, (_, is_kept) in enumerate(batch) if is_kept], np.int64)
        kept.append(*columns.values(), places, places + offered)
        one_by_one = listed(columns.values())
        twin += [one_by_one[i] for i in places]
        numbers += (places + offered).tolist()
        offered += len(batch)
        if twin and data.draw(st.booleans()):
            left = sorted(data.draw(st.sets(st.integers(0, len(twin) - 1))))
            kept.keep(np.array(left, np.int64))
            twin, numbers = [twin[i] for i in left], [numbers[i] for i in left]
        assert len(kept) == len(twin)
        assert everything(kept) == twin
        assert kept.labels().tolist() == [event[3] for event in twin]
        assert kept.costs().tolist() == [48 + 16 * len(event[0]) for event in twin]
    sought = data.draw(st.lists(st.sampled_from(range(len(twin))))) if twin else []
    found = kept.find(np.array([numbers[i] for i in sought], np.int64))
    assert found.tolist() == sought
    assert listed(kept.take(found)) == [twin[i] for i in sought]


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 200), min_size=1))
def test_what_is_not_there_is_not_found(numbers):
    kept, n = Kept(), len(numbers)
    kept.append(*events([1] * n).values(), np.arange(n), np.array(sorted(numbers)))
    for missing in set(range(-1, 203)) - numbers:
        with pytest.raises(ValueError, match=rf"^{missing} is not among them"):
            kept.find(np.array([*numbers, missing]))


def test_nothing_is_found_in_nothing():
    assert Kept().find(np.empty(0, np.int64)).tolist() == []
    with pytest.raises(ValueError, match=r"^7 is not among them"):
        Kept().find(np.array([7]))
    assert everything(Kept()) == []


def test_row_pointers_need_not_start_at_zero():
    columns = events([2, 3, 1])
    later = columns | {"indptr": columns["indptr"][1:]}
    for name in ("labels", "weights", "times"):
        later[name] = columns[name][1:]
    kept = Kept()
    kept.append(*later.values(), np.arange(2), np.arange(2))
    assert everything(kept) == listed(columns.values())[1:]


@pytest.mark.parametrize(
    ("wrong", "places", "numbers"),
    [
        *(({name: slice(None, -1)}, [0], [9]) for name in COLUMNS),
        ({}, [3], [9]),
        ({}, [-1], [9]),
        ({}, [0, 1], [9]),
        ({}, [0, 1], [9, 9]),
        ({}, [0, 1], [10, 9]),
        ({}, [0], [0]),
        ({"indptr": [0, 9, 3, 4]}, [0], [9]),
        ({"indptr": [-5, -3, 3, 4]}, [0], [9]),
        ({"indptr": [0, 3, 2, 4]}, [1], [9]),
    ],
)
def test_what_does_not_fit_is_refused_whole(wrong, places, numbers):
    kept, columns = Kept(), events([2, 1, 1])
    kept.append(*columns.values(), np.arange(1), np.arange(1))
    before = everything(kept)
    for name, change in wrong.items():
        columns[name] = columns[name][change] if isinstance(change, slice) else np.array(change)
    with pytest.raises(ValueError, match="do not fit together, no such place, or numbers that do not ascend"):
        kept.append(*columns.values(), np.array(places), np.array(numbers))
    assert everything(kept) == before


@pytest.mark.parametrize("positions", [[-1], [3], [1, 1], [2, 0]])
def test_only_ascending_positions_can_be_kept(positions):
    kept = Kept()
    kept.append(*events([2, 1, 1]).values(), np.arange(3), np.arange(3))
    before = everything(kept)
    with pytest.raises(ValueError, match="does not ascend, or there is no such event"):
        kept.keep(np.array(positions))
    assert everything(kept) == before


@pytest.mark.parametrize("position", [-1, 3])
def test_an_event_that_is_not_there_cannot_be_taken(position):
    kept = Kept()
    kept.append(*events([2, 1, 1]).values(), np.arange(3), np.arange(3))
    with pytest.raises(IndexError, match=f"position {position} is out of bounds: there are 3 events"):
        kept.take(np.array([0, position]))


def test_costs_grow_with_features():
    assert costs_of(np.array([3, 3, 5])).tolist() == [48, 80]
