import numpy as np
import pytest
from scipy import stats

from penstock._native.replay import plant
from penstock.errors import ConfigError, PenstockError, StoreError
from penstock.events import Batch, Features
from penstock.replay import WeighingBuffer
from penstock.replay.prioritised import Prioritised
from penstock.state import digest


def events(n, start=0, lengths=None):
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
        times=np.zeros(n),
        rows=[{}] * n,
    ).hashed()


def test_it_takes_losses():
    assert isinstance(Prioritised(), WeighingBuffer)


def test_events_are_drawn_in_proportion_to_their_priorities():
    losses = np.array([0.0, 0.1, 0.2, 0.4, 0.8])
    buffer = Prioritised(size=5, alpha=0.6, seed=0)
    buffer.offer(events(5))
    buffer.weigh(losses)
    draws = 4000
    counts = np.zeros(5)
    cap = 1.0  # until losses have been looked over
    buffer._n_weighed = -(10**9)  # never, in this test
    for _ in range(draws):
        counts[int(buffer.sample(1).labels[0])] += 1
    priorities = (np.minimum(losses, cap) + 1e-3) ** 0.6
    expected = draws * priorities / priorities.sum()
    assert stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), 4) > 1e-3


def test_weights_make_up_for_it():
    """With beta 1, the weighted mean of what is drawn estimates the plain mean."""
    rng = np.random.default_rng(0)
    losses = rng.random(200) ** 3
    buffer = Prioritised(size=200, beta=1.0, seed=0)
    buffer.offer(events(200))
    buffer.weigh(losses)
    totals = np.zeros(2)
    plain = []
    for _ in range(300):
        drawn = buffer.sample(100)
        mean = (losses[drawn.labels.astype(int)] * drawn.weights).sum() / drawn.weights.sum()
        plain.append(losses[drawn.labels.astype(int)].mean())
        totals += (mean, 1.0)
    assert totals[0] / totals[1] == pytest.approx(losses.mean(), rel=0.05)
    assert np.mean(plain) > 1.5 * losses.mean()
    assert drawn.weights.max() == 1.0


def test_outliers_are_cut_at_the_95_percent_quantile():
    losses = np.concatenate((np.full(98, 0.1), [1.0, 1.0]))
    buffer = Prioritised(size=100, alpha=1.0, seed=0)
    buffer.offer(events(100))
    buffer.weigh(losses)
    counts = np.zeros(100)
    for _ in range(100):
        counts += np.bincount(buffer.sample(100).labels.astype(int), minlength=100)
    assert counts[98:].sum() == pytest.approx(200, abs=8)  # as often as any other, and not ten times


def test_losses_told_after_a_draw_count_from_then_on():
    buffer = Prioritised(size=50, seed=0)
    buffer.offer(events(50))
    buffer.weigh(np.full(50, 0.5))
    drawn = buffer.sample(50).labels.astype(int)
    buffer.reweigh(np.where(drawn < 25, 0.0, 0.9))
    assert (buffer.sample(500).labels < 25).mean() < 0.15
    with pytest.raises(PenstockError, match=r"50 events were drawn, got 3 losses"):
        buffer.reweigh(np.zeros(3))


def test_batches_change_nothing():
    """Neither for what is held nor for what is drawn, whatever the sizes and the losses."""
    rng = np.random.default_rng(3)
    whole, split = (Prioritised(size=20, max_bytes=1500, seed=5) for _ in range(2))
    for start in range(0, 600, 60):
        lengths, losses = rng.integers(1, 4, 60), rng.random(60)
        whole.offer(events(60, start, lengths))
        whole.weigh(losses)
        for low in range(0, 60, 7):
            high = min(low + 7, 60)
            split.offer(events(high - low, start + low, lengths[low:high]))
            split.weigh(losses[low:high])
        for buffer in (whole, split):
            drawn = buffer.sample(8)
            buffer.reweigh(drawn.labels % 7 / 7)
        assert digest(whole.state()) == digest(split.state())
        resumed = Prioritised(size=20, max_bytes=1500, seed=0)
        resumed.restore(whole.state())
        whole = resumed


def test_sums_do_not_drift():
    rng = np.random.default_rng(0)
    tree = np.zeros(64)
    for _ in range(2000):
        leaves = rng.integers(0, 32, 5)
        plant(tree, leaves, rng.random(5))
    fresh = np.zeros(64)
    plant(fresh, np.arange(32), tree[32:].copy())
    assert tree.tolist() == fresh.tolist()


def test_it_forgets_the_oldest():
    buffer = Prioritised(size=10, seed=0)
    buffer.offer(events(25))
    assert buffer.arrivals().tolist() == list(range(15, 25))
    buffer.forget(before=20)
    assert set(buffer.sample(100).labels.tolist()) <= set(range(20, 25))
    buffer.offer(events(3, 25))
    assert buffer.arrivals().tolist() == list(range(20, 28))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"alpha": 2.0}, "alpha"), ({"beta": -1.0}, "beta"), ({"anneal_over": 0}, "ann")],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Prioritised(**parameters)


def test_losses_outside_are_refused():
    buffer = Prioritised(size=5)
    buffer.offer(events(2))
    with pytest.raises(PenstockError, match=r"a loss has to lie in \[0, 1\]"):
        buffer.weigh(np.array([0.0, np.nan]))


@pytest.mark.parametrize(
    "change",
    [{"losses": np.full(10, 2.0)}, {"losses": np.zeros(3)}, {"first": 10}, {"drawn": np.array([99])}],
)
def test_a_spoiled_state_is_refused(change):
    donor, buffer = Prioritised(size=10), Prioritised(size=10)
    donor.offer(events(25))
    with pytest.raises(StoreError, match=r"not the state of a prioritised buffer"):
        buffer.restore({**donor.state(), **change})
