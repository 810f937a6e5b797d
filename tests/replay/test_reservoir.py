import numpy as np
import pytest
from scipy import stats

from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Batch, Features
from penstock.replay.reservoir import Reservoir
from penstock.state import digest


def events(n, start=0, *, texts=False):
    """Numbered events: the number is the label."""
    numbers = np.arange(start, start + n)
    return Batch(
        features=Features(np.arange(n + 1), numbers.astype(np.uint32), numbers + 0.5, np.zeros(n, np.uint32)),
        labels=numbers.astype(float),
        weights=np.ones(n),
        times=1.7e9 + numbers,
        rows=[{"number": i} for i in numbers.tolist()],
        lines=[f"| n:{i}" for i in numbers.tolist()] if texts else None,
        ids=[f"id{i}" for i in numbers.tolist()] if texts else None,
    )


def held(reservoir):
    contents = reservoir.contents()
    return [] if contents is None else contents.labels.astype(int).tolist()


@pytest.fixture
def make():
    return lambda seed=0: Reservoir(size=50, seed=seed)


def test_a_row_refused_leaves_the_draws_as_they_were():
    reservoir, never_met_it = Reservoir(size=5, seed=0), Reservoir(size=5, seed=0)
    reservoir.offer(events(20))
    never_met_it.offer(events(20))
    bad = events(1000, 20)
    bad.rows[999]["big"] = 2**70
    with pytest.raises(BadRecord):
        reservoir.offer(bad)
    assert reservoir.n_offered == 20
    for each in (reservoir, never_met_it):
        each.offer(events(500, 20))
    assert digest(reservoir.state()) == digest(never_met_it.state())


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": np.zeros(50, np.int64)},
        {"numbers": np.arange(51)},
        {"numbers": np.arange(49)},
        {"numbers": np.arange(1951, 2001)},
        {"numbers": np.arange(-1, 49)},
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
        slots[np.arange(size), reservoir.state()["numbers"]] += 1
    # Membership is negatively correlated: its variance is 1 - size/n of that of independent counts.
    statistic = ((counts - runs * size / n) ** 2 / (runs * size / n)).sum() / (1 - size / n)
    assert 1e-3 < stats.chi2.sf(statistic, n - 1) < 1 - 1e-3


def test_keeps_as_many_as_algorithm_r():
    """Algorithm R keeps event t with probability size/t, independently: the number kept is known exactly."""
    size, n, runs = 5, 100, 600
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


def sized(n, start=0):
    """Events of one to four features."""
    lengths = np.arange(start, start + n) % 4 + 1
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
        times=np.zeros(n),
        rows=[{}] * n,
    ).hashed()


def test_bounded_in_bytes_it_is_a_uniform_sample_still():
    """An event costs 48 + 16 a feature, so 64 to 112 and 88 on average: about 11 of them fit."""
    n, runs = 60, 1500
    counts = np.zeros(n)
    for seed in range(runs):
        reservoir = Reservoir(size=20, max_bytes=1000, seed=seed)
        for start in range(0, n, 7):
            reservoir.offer(sized(min(7, n - start), start))
        numbers = reservoir.arrivals()
        assert (64 + 16 * (numbers % 4)).sum() <= 1000
        counts[numbers] += 1
    assert counts.sum() / runs > 9
    expected = counts.sum() / n
    # held or not, over independent runs, at about the same rate for each event
    statistic = ((counts - expected) ** 2 / (expected * (1 - expected / runs))).sum()
    assert stats.chi2.sf(statistic, n - 1) > 1e-3
