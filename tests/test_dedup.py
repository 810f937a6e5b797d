"""An id is learned once within the window; where batches are cut changes nothing."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.dedup import Dedup
from penstock.events import Batch
from penstock.state import digest

IDS = st.lists(st.sampled_from(["", *"abcdefgh"]), max_size=60)


def batch_of(ids):
    return replace(Batch.from_rows([{"x": i} for i in range(len(ids))]), ids=list(ids))


def expected(ids, window):
    """Positions of the events that are let through, by the definition."""
    last = deque(maxlen=window)
    through = []
    for i, name in enumerate(ids):
        if name and name in last:
            continue
        if name:
            last.append(name)
        through.append(i)
    return through


@settings(deadline=None)
@given(IDS, st.integers(1, 10), st.integers(1, 7), st.integers(0, 60))
def test_lets_through_what_is_new(ids, window, size, restart_at):
    dedup, through = Dedup(window), []
    for start in range(0, len(ids), size):
        if start >= restart_at:  # a crash in between
            copy = Dedup(window)
            copy.restore(dedup.state())
            assert digest(copy.state()) == digest(dedup.state())
            dedup = copy
        batch = dedup.filter(batch_of(ids).slice(start, start + size))
        through += [row["x"] for row in batch.rows]
    assert through == expected(ids, window)
    assert dedup.n_duplicates == len(ids) - len(through)
    whole = Dedup(window)
    whole.filter(batch_of(ids))
    assert digest(whole.state()) == digest(dedup.state())


def test_memory_is_bounded():
    dedup = Dedup(100)
    for start in range(0, 1000, 50):
        dedup.filter(batch_of([str(i) for i in range(start, start + 50)]))
    assert dedup.state()["ids"].shape == (100, 16)


def test_batches_without_ids_or_duplicates_are_not_copied():
    dedup = Dedup(10)
    without = Batch.from_rows([{"x": 1}, {"x": 1}])
    assert dedup.filter(without) is without
    news = batch_of(["a", "b"])
    assert dedup.filter(news) is news
    assert dedup.filter(batch_of(["\udc80"])).ids == ["\udc80"]


def test_a_smaller_window_forgets_the_oldest():
    dedup, smaller = Dedup(4), Dedup(2)
    dedup.filter(batch_of("abcd"))
    smaller.restore(dedup.state())
    assert smaller.filter(batch_of("dcab")).ids == ["a", "b"]


def test_state_shares_no_memory():
    dedup = Dedup(3)
    dedup.filter(batch_of("abc"))
    state = dedup.state()
    before = np.array(state["ids"])
    dedup.filter(batch_of("xyz"))
    assert np.array_equal(state["ids"], before)


def test_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected a window >= 1, got 0"):
        Dedup(0)
