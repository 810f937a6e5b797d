import gc
import sys
import weakref
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, PenstockError, StoreError
from penstock.events import Batch, Features
from penstock.replay import BUFFERS, Buffer, build
from penstock.state import digest


def events(n, start=0, *, texts=False):
    """Numbered events: the number is in every column; the label is its remainder by 5."""
    numbers = np.arange(start, start + n)
    lengths = numbers % 3 + 1
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(numbers, lengths)
    return Batch(
        features=Features(indptr, owner.astype(np.uint32), owner + 0.5, (owner % 2).astype(np.uint32)),
        labels=(numbers % 5).astype(float),
        weights=1.0 + numbers,
        times=1.7e9 + numbers,
        rows=[{"number": i, "ns": {"tags": ["a", str(i)]}} for i in numbers.tolist()],
        lines=[f"| n:{i}" for i in numbers.tolist()] if texts else None,
        ids=[f"id{i}" for i in numbers.tolist()] if texts else None,
    )


def numbers_of(batch):
    return (batch.times - 1.7e9).astype(int).tolist()


def assert_whole(batch):
    """Every column of each event is that of the same event."""
    for i, number in enumerate(numbers_of(batch)):
        event = batch.slice(i, i + 1)
        assert event.labels[0] == number % 5
        assert event.rows[0] == {"number": number, "ns": {"tags": ["a", str(number)]}}
        assert event.times[0] == 1.7e9 + number
        assert event.features.values.tolist() == [number + 0.5] * (number % 3 + 1)
        assert event.features.indices.tolist() == [number] * (number % 3 + 1)
        assert event.features.namespaces.tolist() == [number % 2] * (number % 3 + 1)
        if batch.lines is not None:
            assert (event.lines[0], event.ids[0]) == (f"| n:{number}", f"id{number}")


def held(buffer):
    contents = buffer.contents()
    return [] if contents is None else numbers_of(contents)


REPEATS = {"prioritised"}  # what may draw an event more than once
IGNORES_SEED = {"ring", "prioritised"}  # in what it keeps


@pytest.fixture(params=sorted(BUFFERS))
def make(request):
    """A buffer of 50 events, of every registered kind."""
    return lambda seed=0: build(request.param, size=50, seed=seed)


def test_is_a_buffer(make):
    assert isinstance(make(), Buffer)


def test_an_empty_buffer_has_nothing_to_give(make):
    buffer = make()
    buffer.offer(events(0))
    assert (len(buffer), buffer.n_offered, buffer.contents(), buffer.sample(3)) == (0, 0, None, None)


def test_holds_at_most_its_size(make):
    buffer = make()
    for n in (20, 30, 1, 500, 0, 3000):
        before = buffer.n_offered
        buffer.offer(events(n, before))
        assert buffer.n_offered == before + n
        assert len(buffer) == len(buffer.contents()) == min(50, buffer.n_offered)


def test_events_come_back_whole_and_in_order_of_arrival(make):
    buffer = make()
    for start in range(0, 2000, 100):
        buffer.offer(events(100, start, texts=True))
        contents = buffer.contents()
        assert contents.lines is not None
        assert_whole(contents)
        assert (np.diff(numbers_of(contents)) > 0).all()
        assert contents.weights.tolist() == [1.0 + number for number in numbers_of(contents)]
        assert_whole(buffer.sample(20))


def test_a_sample_is_of_different_events_held(make, request):
    buffer = make()
    repeats = request.node.callspec.params["make"] in REPEATS
    buffer.offer(events(400))
    for n in (1, 20, 50):
        sample = numbers_of(buffer.sample(n))
        assert len(sample) == n
        assert repeats or len(set(sample)) == n
        assert set(sample) <= set(held(buffer))
    assert repeats or sorted(numbers_of(buffer.sample(1000))) == held(buffer)
    assert buffer.sample(0) is None
    with pytest.raises(PenstockError, match=r"n: expected a number of events, got -1"):
        buffer.sample(-1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 10)), max_size=15), st.data())
@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_how_offers_are_cut_changes_nothing(kind, steps, data):
    """The same events and the same samples in between; one buffer gets each offer in several parts."""
    whole, split = build(kind, size=30, seed=1), build(kind, size=30, seed=1)
    for n, n_sampled in steps:
        start = whole.n_offered
        whole.offer(events(n, start))
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
        for low, high in zip([0, *cuts], [*cuts, n], strict=True):
            split.offer(events(n, start).slice(low, high))
        one, other = whole.sample(n_sampled), split.sample(n_sampled)
        assert (one is None) == (other is None)
        if one is not None:
            assert digest(one.state()) == digest(other.state())
    assert digest(whole.state()) == digest(split.state())


@pytest.mark.parametrize("at", [0, 1, 49, 50, 51, 900])
@pytest.mark.parametrize("texts", [False, True])
def test_state_goes_on_as_if_nothing_had_happened(make, at, texts):
    steady, resumed = make(), make(seed=9)
    steady.offer(events(at, texts=texts))
    steady.sample(7)
    state = steady.state()
    before = digest(state)
    resumed.restore(state)
    assert digest(resumed.state()) == before
    for start in range(at, 3000, 211):
        steady.offer(events(211, start, texts=texts))
        resumed.offer(events(211, start, texts=texts))
        assert digest(steady.sample(13).state()) == digest(resumed.sample(13).state())
    assert digest(resumed.state()) == digest(steady.state())
    assert digest(state) == before


def test_seeds_differ(make, request):
    one, other = make(seed=0), make(seed=1)
    one.offer(events(1000))
    other.offer(events(1000))
    assert numbers_of(one.sample(10)) != numbers_of(other.sample(10))
    assert (held(one) == held(other)) == (request.node.callspec.params["make"] in IGNORES_SEED)


def test_sampling_does_not_change_what_is_kept(make):
    one, other = make(), make()
    for start in range(0, 2000, 100):
        one.offer(events(100, start))
        other.offer(events(100, start))
        other.sample(17)
    assert held(one) == held(other)


def test_shares_no_memory_with_what_was_offered(make):
    buffer = make()
    batch = events(200)
    buffer.offer(batch)
    before = digest(buffer.state())
    for column in (batch.labels, batch.weights, batch.times, batch.features.indices, batch.features.values):
        column[:] = 0
    batch.features.namespaces[:] = 7
    for row in batch.rows:
        row["ns"]["tags"].append("changed")
    assert digest(buffer.state()) == before


def test_keeps_no_batch_alive(make):
    buffer = make()
    batch = events(1000)
    watched = [weakref.ref(column) for column in (batch.labels, batch.features.values, batch.features.indptr)]
    buffer.offer(batch.slice(0, 500))
    buffer.offer(batch.slice(500, 1000))
    del batch
    gc.collect()
    assert [reference() for reference in watched] == [None] * 3


def test_memory_is_bounded_by_the_size(make):
    """After 50 000 events it holds about as much as after 1 000."""
    buffer = make()
    sizes = []
    for start in range(0, 50_000, 1000):
        buffer.offer(events(1000, start))
        sizes.append(sum(sys.getsizeof(block) for block in reachable(buffer)))
    assert max(sizes) < 4 * sizes[0]


def reachable(root):
    """All arrays, lists and dicts that an object of ours holds, however deep."""
    seen, todo = {}, [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, dict):
            todo.extend(thing.values())
        elif isinstance(thing, list):
            todo.extend(thing)
        elif type(thing).__module__.startswith("penstock.replay."):
            todo.extend(vars(thing).values())
    return [thing for thing in seen.values() if isinstance(thing, np.ndarray | list | dict)]


@pytest.mark.parametrize(
    ("column", "value"), [("labels", np.array(["a"] * 5, dtype=object)), ("rows", [{"x": 2**70}] * 5)]
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(make, column, value):
    buffer = make()
    buffer.offer(events(10))  # not full yet, so that each of the next is to be kept
    before = digest(buffer.state())
    bad = events(5, 10)
    bad = replace(bad, **{column: value})
    with pytest.raises(PenstockError):
        buffer.offer(bad)
    assert digest(buffer.state()) == before


def test_without_rows_none_are_kept(make):
    buffer = make()
    for start in range(0, 300, 100):
        buffer.offer(events(100, start, texts=True).hashed())
    drawn = buffer.sample(10)
    assert (drawn.lines, drawn.ids) == (None, None)
    with pytest.raises(PenstockError, match=r"only the hashed features were kept"):
        drawn.rows[0]
    assert not [name for name in buffer.state() if name in ("events/rows", "events/lines", "events/ids")]
    resumed = make(seed=1)
    resumed.restore(buffer.state())
    assert digest(resumed.state()) == digest(buffer.state())


@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_bytes_are_bounded_however_offers_are_cut(kind):
    """An event costs 48, 16 a feature, and its row's JSON."""
    whole, split = (build(kind, size=50, max_bytes=3000, seed=1) for _ in range(2))
    for start in range(0, 1000, 100):
        batch = events(100, start)
        whole.offer(batch)
        for low in range(0, 100, 13):
            split.offer(batch.slice(low, min(low + 13, 100)))
        contents = whole.contents()
        rows = sum(len(orjson.dumps(row)) for row in contents.rows)
        assert 1500 < 48 * len(contents) + 16 * len(contents.features.indices) + rows <= 3000
        assert digest(whole.state()) == digest(split.state())
    resumed = build(kind, size=50, max_bytes=3000, seed=2)
    resumed.restore(split.state())
    resumed.offer(events(300, 1000))
    whole.offer(events(300, 1000))
    assert digest(resumed.state()) == digest(whole.state())
    with pytest.raises(ConfigError, match="max_bytes"):
        build(kind, max_bytes=0)


@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_any_spoiled_number_is_refused_or_harmless(kind):
    """Whatever single entry of a state is broken, nothing crashes and nothing half-read remains."""
    donor = build(kind, size=20, seed=1)
    donor.offer(events(200))
    donor.sample(5)
    state = donor.state()
    for name in state:
        for bad in (None, -1, "x", np.array([-5]), np.array([10**9, -(10**9)])):
            buffer = build(kind, size=20, seed=1)
            before = digest(buffer.state())
            try:
                buffer.restore({**state, name: bad})
            except StoreError:
                assert digest(buffer.state()) == before
            else:
                buffer.offer(events(100, buffer.n_offered))
                buffer.sample(5)
