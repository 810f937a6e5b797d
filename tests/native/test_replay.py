"""The kernel against slow, obvious twins; and against what must never be read or written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._native.replay import (
    Classes,
    choose,
    gather,
    keep_uniformly,
    lay_out,
    pick,
    plant,
)


def philox(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def slow_choose(generator, population, n):
    places = list(range(population))
    for i, u in enumerate(generator.random(n).tolist()):
        j = i + int(u * (population - i))
        places[i], places[j] = places[j], places[i]
    return places[:n]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 2**32))
def test_choose_is_the_start_of_a_shuffle(population, n, seed):
    n = min(n, population)
    places, out, swaps = np.arange(64), np.empty(n, np.int64), np.empty(n, np.int64)
    choose(philox(seed), population, places, out, swaps)
    assert out.tolist() == slow_choose(philox(seed), population, n)
    assert places.tolist() == list(range(64))


def slow_algorithm_l(generator, size, n):
    """Li (1994), as printed: what is held after n items."""
    held = list(range(min(size, n)))
    if n < size:
        return held
    log_w, i = 0.0, size - 1
    log_w += np.log(1.0 - generator.random()) / size
    while True:
        i += int(np.floor(np.log(1.0 - generator.random()) / np.log1p(-np.exp(log_w)))) + 1
        if i >= n:
            return held
        held[int(generator.random() * size)] = i
        log_w += np.log(1.0 - generator.random()) / size


@pytest.mark.parametrize("size", [1, 3, 10])
def test_keeps_what_algorithm_l_keeps(size):
    for seed in range(50):
        numbers, held_costs, kept = (np.zeros(k, np.int64) for k in (size, size, 200))
        counts, log_w = np.zeros(3, np.int64), np.zeros(1)
        generator = philox(seed)
        for first in range(0, 200, 9):
            costs = np.ones(min(9, 200 - first), np.int64)
            keep_uniformly(generator, first, costs, 1 << 60, numbers, held_costs, counts, log_w, kept)
        assert numbers.tolist() == slow_algorithm_l(philox(seed), size, 200)


def test_rows_lie_one_after_the_other():
    lengths = np.array([2, 0, 3, 1, 4])
    ends = np.concatenate(([0], np.cumsum(lengths)))
    values = np.arange(10.0)
    indices, namespaces = values.astype(np.uint32), values.astype(np.uint32) + 20
    positions, out = np.array([4, 0, 2]), np.empty(4, np.int64)
    assert lay_out(ends, positions, out) == 9
    assert out.tolist() == [0, 4, 6, 9]
    to = np.empty(9, np.uint32), np.empty(9), np.empty(9, np.uint32)
    gather(ends, indices, values, namespaces, positions, out, *to)
    assert to[1].tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert (to[0] == to[1]).all()
    assert (to[2] == to[1] + 20).all()
    for position in (-1, 5):
        with pytest.raises(IndexError, match=f"position {position} is out of bounds: there are 5 events"):
            lay_out(ends, np.array([position]), np.empty(2, np.int64))
    with pytest.raises(ValueError, match="do not fit"):
        lay_out(ends, positions, out[:2])


def test_pick_follows_the_sums():
    values = np.array([0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 4.0, 0.0])
    tree = np.zeros(16)
    plant(tree, np.arange(8), values)
    assert tree[1] == 8.0
    out = np.empty(8, np.int64)
    pick(philox(), tree, out)  # one from each eighth of the sum
    assert out.tolist() == [1, 1, 1, 3, 6, 6, 6, 6]


def test_what_does_not_fit_is_refused():
    ptr, idx, val = np.array([0, 2, 3]), np.zeros(3, np.uint32), np.zeros(3)
    to, room = np.array([0, 2]), np.zeros(2, np.uint32)
    for positions, lengths, matrix in [
        ([2], to, ptr),
        ([-1], to, ptr),
        ([0], np.array([0, 3]), ptr),
        ([0], np.array([1, 3]), ptr),
        ([0], to, np.array([0, 9, 3])),
        ([0], to, np.array([-5, -3, 3])),
    ]:
        with pytest.raises(ValueError, match=r"no such rows, or no room"):
            gather(matrix, idx, val, idx, np.array(positions), lengths, room, np.zeros(2), room)
    with pytest.raises(ValueError, match=r"different lengths"):
        gather(ptr, idx, val[:1], idx, np.array([0]), to, room, np.zeros(2), room)
    with pytest.raises(ValueError, match=r"more to draw"):
        choose(philox(), 5, np.arange(4), np.empty(2, np.int64), np.empty(2, np.int64))
    with pytest.raises(ValueError, match=r"no such leaf"):
        plant(np.zeros(8), np.array([4]), np.zeros(1))
    for tree in (np.zeros(0), np.zeros(6)):
        with pytest.raises(ValueError, match=r"not a tree"):
            pick(philox(), tree, np.empty(1, np.int64))
    one = np.zeros(1, np.int64)
    for counts in ([2, 0, 0], [-1, 0, 0], [0, 0, -1]):
        with pytest.raises(ValueError, match=r"not a reservoir"):
            keep_uniformly(philox(), 0, one, 9, one.copy(), one.copy(), np.array(counts), np.zeros(1), one)
    with pytest.raises(ValueError, match=r"numbered from 0"):
        Classes(1, 9).offer(philox(), 0, np.array([-1]), one, one.copy(), one.copy(), one.copy())
    for filled, classes in [(False, [(1, False, [0])]), (True, [(0, False, [0])]), (True, [(9, True, [1])])]:
        with pytest.raises(ValueError, match=r"^(it holds|its classes)"):
            Classes(1, 9).load(filled, classes, one)


def test_chance_has_to_come_from_numpy():
    with pytest.raises(AttributeError):
        choose(object(), 1, np.arange(1), np.empty(1, np.int64), np.empty(1, np.int64))
