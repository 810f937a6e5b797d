import numpy as np
import pytest

from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch, Features
from penstock.replay.decayed import Decayed
from penstock.replay.ring import Ring
from penstock.state import digest


def events(n, start=0, times=None, lengths=None):
    lengths = np.ones(n, np.int64) if lengths is None else lengths
    nnz = int(lengths.sum())
    return Batch(
        features=Features(
            np.concatenate(([0], np.cumsum(lengths))),
            np.ones(nnz, np.uint32),
            np.ones(nnz),
            np.zeros(nnz, np.uint32),
        ),
        labels=np.arange(start, start + n, dtype=float),
        weights=np.ones(n),
        times=np.full(n, np.nan) if times is None else times,
        rows=[{}] * n,
    ).hashed()


def test_a_ring_holds_the_newest():
    ring = Ring(size=7)
    for start, n in [(0, 3), (3, 5), (8, 100), (108, 1), (109, 0), (109, 20)]:
        ring.offer(events(n, start))
        stop = start + n
        assert ring.arrivals().tolist() == list(range(max(0, stop - 7), stop))


def test_a_ring_bounded_in_bytes_holds_the_newest_that_fit():
    lengths = np.random.default_rng(0).integers(1, 6, 300)
    lengths[150] = 1000  # more than fits all alone
    ring, split = Ring(size=8, max_bytes=600), Ring(size=8, max_bytes=600)
    expected = []
    for i, length in enumerate(lengths.tolist()):
        if length < 1000:
            expected.append(i)
        while len(expected) > 8 or sum(48 + 16 * lengths[expected]) > 600:
            expected.pop(0)
        split.offer(events(1, i, lengths=lengths[i : i + 1]))
        assert split.arrivals().tolist() == expected
    ring.offer(events(300, lengths=lengths))
    assert digest(ring.state()) == digest(split.state())


def test_ages_are_exponential():
    """Of a long stream, events are held with chance 1 - exp(-c exp(-age / decay)), where all add up to size.

    That is what drawing without replacement comes to (Poisson races), up to the randomness of c.
    """
    size, decay, n, runs = 40, 50.0, 600, 400
    held = np.zeros(n)
    for seed in range(runs):
        buffer = Decayed(size=size, decay=decay, seed=seed)
        buffer.offer(events(n))
        held[buffer.arrivals()] += 1
    ages = np.arange(n)[::-1]
    low, high = 1e-3, 1e3
    for _ in range(100):
        c = np.sqrt(low * high)
        chances = 1.0 - np.exp(-c * np.exp(-ages / decay))
        low, high = (c, high) if chances.sum() < size else (low, c)
    for first in range(n - 300, n, 50):
        part = slice(first, first + 50)
        expected = runs * chances[part].sum()
        assert abs(held[part].sum() - expected) < 4.5 * np.sqrt(expected) + 0.02 * expected


def test_event_time_counts_where_it_is_asked_for():
    """A thousand events in the last second push out none of an hour's sample, by time; they do by number."""
    early, late = 1.7e9 + np.arange(1000.0) * 3.6, np.full(1000, 1.7e9 + 3600.0)
    shares = []
    for by, decay in (("time", 3600.0), ("events", 300.0)):
        buffer = Decayed(size=100, decay=decay, by=by, seed=0)
        buffer.offer(events(1000, times=early))
        buffer.offer(events(1000, 1000, times=late))
        shares.append((buffer.arrivals() < 1000).mean())
    assert shares[0] > 0.25
    assert shares[1] < 0.1


def test_an_event_without_a_time_is_as_old_as_the_newest_before_it():
    times = 1.7e9 + np.arange(500.0)
    gaps = times.copy()
    gaps[1::2] = np.nan
    filled = np.where(np.isnan(gaps), np.roll(times, 1), times)
    one, other = (Decayed(size=50, decay=100.0, by="time", seed=0) for _ in range(2))
    one.offer(events(500, times=filled))
    for start in range(0, 500, 3):
        stop = min(start + 3, 500)
        other.offer(events(stop - start, start, times=gaps[start:stop]))
    assert one.arrivals().tolist() == other.arrivals().tolist()


def test_infinite_times_are_refused():
    buffer = Decayed(size=5, by="time")
    with pytest.raises(PenstockError, match=r"finite event times"):
        buffer.offer(events(2, times=np.array([1.0, np.inf])))
    assert buffer.n_offered == 0


@pytest.mark.parametrize("max_bytes", [None, 2000])
@pytest.mark.parametrize("seed", range(20))
def test_where_keys_are_the_same_it_still_does_not_matter_when_anybody_looks(seed, max_bytes):
    """Of times far from 0, and so short a decay, many keys round to the same number."""
    rng = np.random.default_rng(seed)
    lengths, times = rng.integers(1, 4, 900), 1.7e9 + np.arange(900.0) * 1e-6

    def fresh():
        return Decayed(size=50, decay=1e-5, by="time", max_bytes=max_bytes, seed=seed)

    whole, split = fresh(), fresh()
    whole.offer(events(900, times=times, lengths=lengths))
    for start in range(0, 900, 13):
        stop = min(start + 13, 900)
        split.offer(events(stop - start, start, times[start:stop], lengths[start:stop]))
        assert len(split) <= 50
    assert digest(whole.state()) == digest(split.state())
    resumed = fresh()
    resumed.restore(whole.state())
    assert digest(resumed.state()) == digest(whole.state())


@pytest.mark.parametrize(("parameters", "message"), [({"decay": 0.0}, "decay"), ({"by": "age"}, "by")])
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Decayed(**parameters)


@pytest.mark.parametrize("kind", [Ring, Decayed])
def test_after_forgetting_it_goes_on(kind):
    buffer = kind(size=50, seed=1)
    buffer.offer(events(400))
    buffer.forget(before=380)
    assert buffer.arrivals().min() >= 380
    buffer.offer(events(200, 400))
    assert len(buffer) == 50
    twin = kind(size=50, seed=2)
    twin.restore(buffer.state())
    assert digest(twin.state()) == digest(buffer.state())
