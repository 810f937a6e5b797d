import numpy as np
import pytest
from scipy import stats

from penstock.errors import PenstockError, StoreError
from penstock.events import Batch, Features
from penstock.replay.balanced import Balanced
from penstock.state import digest


def events(labels, start=0, lengths=None):
    """Events with these labels, without rows; times are their numbers."""
    n = len(labels)
    lengths = np.ones(n, np.int64) if lengths is None else lengths
    nnz = int(lengths.sum())
    return Batch(
        features=Features(
            np.concatenate(([0], np.cumsum(lengths))),
            np.ones(nnz, np.uint32),
            np.ones(nnz),
            np.zeros(nnz, np.uint32),
        ),
        labels=np.asarray(labels, float),
        weights=np.ones(n),
        times=np.arange(start, start + n, dtype=float),
        rows=[{}] * n,
    ).hashed()


def counts(buffer):
    return np.bincount(buffer.contents().labels.astype(int)).tolist()


def test_rare_classes_get_as_much_room():
    labels = np.random.default_rng(0).choice(3, 5000, p=[0.95, 0.04, 0.01])
    buffer = Balanced(size=30, seed=0)
    buffer.offer(events(labels))
    assert counts(buffer) == [10, 10, 10]


def test_a_class_rarer_than_its_share_is_held_whole():
    labels = np.zeros(1000)
    labels[[3, 500, 900]] = 1
    buffer = Balanced(size=20, seed=0)
    buffer.offer(events(labels))
    assert counts(buffer) == [17, 3]


def test_classes_that_come_later_make_room_for_themselves():
    buffer = Balanced(size=12, seed=0)
    for label, expected in enumerate([[12], [6, 6], [4, 4, 4], [3, 3, 3, 3]]):
        buffer.offer(events(np.full(500, label), buffer.n_offered))
        assert counts(buffer) == expected


def test_within_a_class_every_event_is_held_as_often_as_any_other():
    n, runs = 80, 3000
    labels = np.arange(n) % 4 == 0
    held = np.zeros(n)
    for seed in range(runs):
        buffer = Balanced(size=10, seed=seed)
        for start in range(0, n, 9):
            buffer.offer(events(labels[start : start + 9], start))
        held[buffer.arrivals()] += 1
    for label in (False, True):
        of = held[labels == label]
        rate = of.mean() / runs
        statistic = ((of - of.mean()) ** 2 / (runs * rate * (1 - rate))).sum() * (len(of) - 1) / len(of)
        assert stats.chi2.sf(statistic, len(of) - 1) > 1e-3


def test_bounded_in_bytes_classes_still_share_evenly():
    rng = np.random.default_rng(1)
    labels, lengths = rng.choice(2, 4000, p=[0.9, 0.1]), rng.integers(1, 5, 4000)
    buffer, split = (Balanced(size=1000, max_bytes=4000, seed=0) for _ in range(2))
    buffer.offer(events(labels, lengths=lengths))
    for start in range(0, 4000, 77):
        stop = min(start + 77, 4000)
        split.offer(events(labels[start:stop], start, lengths[start:stop]))
    assert digest(split.state()) == digest(buffer.state())
    assert (48 + 16 * np.diff(buffer.contents().features.indptr)).sum() <= 4000
    zeros, ones = counts(buffer)
    assert zeros + ones > 35
    assert abs(zeros - ones) <= 4


def test_weights_give_back_the_prior():
    """Weighted, the share of each class in what is drawn is its share of what was offered."""
    labels = np.random.default_rng(2).choice(3, 3000, p=[0.8, 0.15, 0.05])
    buffer = Balanced(size=90, correct_prior=True, seed=0)
    buffer.offer(events(labels))
    drawn = buffer.sample(90)
    shares = np.bincount(drawn.labels.astype(int), weights=drawn.weights) / drawn.weights.sum()
    np.testing.assert_allclose(shares, np.bincount(labels) / 3000, rtol=1e-12)
    np.testing.assert_allclose(drawn.weights.sum(), 90.0)


def test_after_forgetting_it_samples_what_is_left_and_what_follows():
    buffer = Balanced(size=20, seed=0)
    buffer.offer(events(np.arange(1000) % 2))
    buffer.forget(before=900)
    assert buffer.arrivals().min() >= 900
    buffer.offer(events(np.arange(2000) % 4, 1000))
    assert counts(buffer) == [5, 5, 5, 5]
    twin = Balanced(size=20, seed=9)
    twin.restore(buffer.state())
    assert digest(twin.state()) == digest(buffer.state())


@pytest.mark.parametrize("label", [-1.0, 0.5, 65536.0, float("nan")])
def test_what_is_no_class_is_refused(label):
    buffer = Balanced(size=5)
    with pytest.raises(PenstockError, match=r"needs classes numbered from 0 to 65535"):
        buffer.offer(events([0.0, label]))
    assert buffer.n_offered == 0


@pytest.mark.parametrize(
    "change",
    [
        {"slots": np.zeros(20, np.int64)},
        {"held": np.array([20, 1])},
        {"held": np.array([5, 15])},
        {"seen": np.array([1, 1])},
        {"full": np.array([True])},
    ],
)
def test_a_spoiled_state_is_refused(change):
    donor, buffer = Balanced(size=20, seed=0), Balanced(size=20, seed=0)
    donor.offer(events(np.arange(1000) % 2))
    before = digest(buffer.state())
    with pytest.raises(StoreError, match=r"not the state of a class-balanced reservoir"):
        buffer.restore({**donor.state(), **change})
    assert digest(buffer.state()) == before
