import gc
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.errors import BadRecord, ConfigError, PenstockError, StoreError
from penstock.events import Batch, Features
from penstock.replay import BUFFERS, Buffer, Reservoir, build
from penstock.state import digest


def events(n, start=0, *, texts=False):
    """Numbered events: the number is the label, in the row, and in the features."""
    numbers = np.arange(start, start + n)
    lengths = numbers % 3 + 1
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(numbers, lengths)
    return Batch(
        features=Features(indptr, owner.astype(np.uint32), owner + 0.5, (owner % 2).astype(np.uint32)),
        labels=numbers.astype(float),
        weights=1.0 + numbers,
        times=1.7e9 + numbers,
        rows=[{"number": i, "ns": {"tags": ["a", str(i)]}} for i in numbers.tolist()],
        lines=[f"| n:{i}" for i in numbers.tolist()] if texts else None,
        ids=[f"id{i}" for i in numbers.tolist()] if texts else None,
    )


def assert_whole(batch):
    """Every column of each event is that of the same event."""
    for i, number in enumerate(batch.labels.astype(int).tolist()):
        event = batch.slice(i, i + 1)
        assert event.rows[0] == {"number": number, "ns": {"tags": ["a", str(number)]}}
        assert event.weights[0] == 1.0 + number
        assert event.times[0] == 1.7e9 + number
        assert event.features.values.tolist() == [number + 0.5] * (number % 3 + 1)
        assert event.features.indices.tolist() == [number] * (number % 3 + 1)
        assert event.features.namespaces.tolist() == [number % 2] * (number % 3 + 1)
        if batch.lines is not None:
            assert (event.lines[0], event.ids[0]) == (f"| n:{number}", f"id{number}")


def held(buffer):
    contents = buffer.contents()
    return [] if contents is None else contents.labels.astype(int).tolist()


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
        assert (np.diff(contents.labels) > 0).all()
        assert_whole(buffer.sample(20))


def test_a_sample_is_of_different_events_held(make):
    buffer = make()
    buffer.offer(events(400))
    for n in (1, 20, 50):
        sample = buffer.sample(n).labels.tolist()
        assert len(sample) == len(set(sample)) == n
        assert set(sample) <= set(held(buffer))
    assert sorted(buffer.sample(1000).labels.astype(int)) == held(buffer)
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


def test_seeds_differ(make):
    one, other = make(seed=0), make(seed=1)
    one.offer(events(1000))
    other.offer(events(1000))
    assert held(one) != held(other)


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
    """After 100 000 events it holds about as much as after 1 000."""
    buffer = make()
    sizes = []
    for start in range(0, 100_000, 1000):
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
        elif type(thing).__module__ == "penstock.replay":
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


def test_a_row_refused_when_full_leaves_the_draws_as_they_were():
    reservoir, never_met_it = Reservoir(size=5, seed=0), Reservoir(size=5, seed=0)
    reservoir.offer(events(20))
    never_met_it.offer(events(20))
    bad = replace(events(1000, 20), rows=[{"x": 2**70}] * 1000)
    with pytest.raises(BadRecord):
        reservoir.offer(bad)
    assert reservoir.n_offered == 20
    for each in (reservoir, never_met_it):
        each.offer(events(500, 20))
    assert digest(reservoir.state()) == digest(never_met_it.state())


@pytest.mark.parametrize(
    "change",
    [
        {"slots": np.zeros(50, np.int64)},
        {"slots": np.arange(51)},
        {"arrivals": np.zeros(50, np.int64)},
        {"arrivals": np.arange(49)},
        {"arrivals": np.arange(1951, 2001)},
        {"keeping": np.zeros(3, np.uint64)},
        {"keeping": np.full(11, 9, np.uint64)},
        {"next_kept": 5},
        {"log_threshold": 1.0},
        {"log_threshold": float("nan")},
        {"events/labels": np.zeros(49)},
        {"events/ids": np.frombuffer(b'["one"]', np.uint8)},
        {"events/indptr": np.zeros(51, np.int64)},
        {"events/indices": np.zeros(3, np.uint32)},
        {"events/rows": np.frombuffer(b"not json", np.uint8)},
        {"n_offered": None},
    ],
)
def test_a_spoiled_state_is_refused(make, change):
    donor, buffer = make(), make()
    donor.offer(events(2000))
    buffer.offer(events(10))
    before = digest(buffer.state())
    buffer.restore(donor.state())
    buffer = make()
    buffer.offer(events(10))
    with pytest.raises(StoreError, match=r"not the state of a reservoir"):
        buffer.restore({**donor.state(), **change})
    assert digest(buffer.state()) == before


def test_a_state_of_another_size_is_refused():
    donor, reservoir = Reservoir(size=10, seed=0), Reservoir(size=11, seed=0)
    donor.offer(events(100))
    with pytest.raises(StoreError):
        reservoir.restore(donor.state())


def test_a_row_that_json_cannot_hold_is_named():
    batch = events(3)
    batch.rows[1]["big"] = 2**70
    with pytest.raises(BadRecord, match=r"expected what JSON can hold \(Integer.*at `rows\[1\]`"):
        Reservoir(size=10, seed=0).offer(batch)


def test_lines_are_given_only_if_every_event_ever_kept_had_one():
    reservoir = Reservoir(size=10, seed=0)
    reservoir.offer(events(4, texts=True))
    assert reservoir.sample(2).lines is not None
    reservoir.offer(events(4, 4))
    assert reservoir.contents().lines is None
    assert reservoir.sample(2).ids is None


def test_arrivals_are_numbers_of_the_stream():
    reservoir = Reservoir(size=10, seed=0)
    assert reservoir.arrivals().tolist() == []
    for start in range(0, 1000, 37):
        reservoir.offer(events(37, start))
        assert reservoir.arrivals().tolist() == held(reservoir)


@pytest.mark.parametrize("parameters", [{"size": 0}, {"size": 2.0}, {"seed": -1}, {"seed": 2**64}])
def test_bad_parameters_are_named(parameters):
    with pytest.raises(ConfigError, match=next(iter(parameters))):
        Reservoir(**parameters)


BARE = Batch(
    features=Features(np.zeros(201, np.int64), np.empty(0, np.uint32), np.empty(0), np.empty(0, np.uint32)),
    labels=np.arange(200.0),
    weights=np.ones(200),
    times=np.zeros(200),
    rows=[{}] * 200,
)


def chi_square_p(counts, expected):
    return stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1)


def test_every_event_is_held_as_often_as_any_other():
    size, n, runs = 8, 60, 3000
    counts, slots = np.zeros(n), np.zeros((size, n))
    for seed in range(runs):
        reservoir = Reservoir(size=size, seed=seed)
        reservoir.offer(BARE.slice(0, n))
        counts[held(reservoir)] += 1
        slots[np.arange(size), reservoir.arrivals()[reservoir.state()["slots"]]] += 1
    # Membership is negatively correlated: its variance is 1 - size/n of that of independent counts.
    statistic = ((counts - runs * size / n) ** 2 / (runs * size / n)).sum() / (1 - size / n)
    assert 1e-3 < stats.chi2.sf(statistic, n - 1) < 1 - 1e-3


def test_keeps_as_many_as_algorithm_r():
    """Algorithm R keeps event t with probability size/t, independently: the number kept is known exactly."""
    size, n, runs = 5, 100, 1500
    kept = []
    for seed in range(runs):
        reservoir = Reservoir(size=size, seed=seed)
        count = 0
        for start in range(n):
            reservoir.offer(BARE.slice(start, start + 1))
            arrivals = reservoir.arrivals()
            count += len(arrivals) > 0 and arrivals[-1] == start
        kept.append(count)
    probabilities = np.minimum(1.0, size / np.arange(1, n + 1))
    mean, variance = probabilities.sum(), (probabilities * (1 - probabilities)).sum()
    assert abs(np.mean(kept) - mean) < 4 * np.sqrt(variance / runs)
    assert np.var(kept) == pytest.approx(variance, rel=4 * np.sqrt(2 / runs))


def test_samples_are_uniform_in_membership_and_order():
    reservoir = Reservoir(size=6, seed=3)
    reservoir.offer(BARE.slice(0, 6))
    n, draws = 3, 6000
    counts = np.zeros((n, 6))
    for _ in range(draws):
        counts[np.arange(n), reservoir.sample(n).labels.astype(int)] += 1
    for place in counts:
        assert chi_square_p(place, draws / 6) > 1e-3


def test_forgetting_drops_what_came_before_and_samples_on():
    reservoir = Reservoir(size=50, seed=3)
    reservoir.offer(Batch.from_rows([{"x": 1.0}] * 1000, np.arange(1000.0)))
    reservoir.forget(before=800)
    kept = reservoir.arrivals()
    assert len(kept) == len(reservoir)
    assert 0 < len(kept) < 30
    assert kept.min() >= 800
    reservoir.offer(Batch.from_rows([{"x": 1.0}] * 3000, np.arange(1000.0, 4000.0)))
    assert len(reservoir) == 50
    assert reservoir.n_offered == 4000
    assert reservoir.arrivals().tolist() == reservoir.contents().labels.tolist()
    assert set(kept) - set(reservoir.arrivals())  # what was kept then is replaced like everything else
    twin = Reservoir(size=50, seed=3)
    twin.restore(reservoir.state())
    assert digest(twin.state()) == digest(reservoir.state())


def test_forgetting_everything_starts_a_new_sample():
    reservoir = Reservoir(size=5, seed=3)
    reservoir.offer(Batch.from_rows([{"x": 1.0}] * 9, np.arange(9.0)))
    reservoir.forget(before=9)
    assert reservoir.contents() is None
    assert reservoir.sample(3) is None
    reservoir.offer(Batch.from_rows([{"x": 1.0}] * 5, np.arange(9.0, 14.0)))
    assert sorted(reservoir.contents().labels) == [9, 10, 11, 12, 13]
