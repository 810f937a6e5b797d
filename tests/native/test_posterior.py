"""The kernel of linear policies refuses what would make it read or write out of bounds."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from penstock._native.posterior import FeatureIndex, Model, Posteriors

SIZE = 8  # rows of three features in whole blocks


def arrays(d=3):
    covariance = np.zeros((3, d * SIZE))
    covariance[:, [i * SIZE + i for i in range(d)]] = 1.0
    return (
        covariance,
        np.zeros((3, d)),
        np.zeros((3, 6)),
        covariance.copy(),
        np.zeros((3, d)),
        np.ones((3, d)),
    )


def posterior_arguments(n=2, k=2, d=3):
    return {
        "own": Posteriors(arrays(d), False),
        "common": None,
        "cross": None,
        "moments": None,
        "own_index": FeatureIndex(d),
        "common_index": FeatureIndex(1),
        "totals": np.zeros(2),
        "starts": np.arange(n + 1, dtype=np.int64) * k,
        "slots": np.ones(n * k, np.int64),
        "hashes": np.zeros(n * k, np.uint64),
        "keys": np.zeros(n, np.uint64),
        "contexts": (np.array([0, 1, 2]), np.array([7, 8], np.uint32), np.ones(2)),
        "actions": (np.zeros(n * k + 1, np.int64), np.empty(0, np.uint32), np.empty(0)),
        "chosen": np.zeros(n, np.int64),
        "rewards": np.ones(n),
        "weights": np.ones(n),
        "out": np.zeros(n * k),
        "first": 0,
    }


def changed(position, value):
    changed = list(arrays())
    changed[position] = value
    return tuple(changed)


def wide_head():
    head = np.zeros((3, 6))
    head[1, 0] = 4.0
    return head


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("own", None),
        ("own", Posteriors(arrays()[:3], False)),
        ("own", Posteriors(tuple(np.ones((3, n)) for n in (3, 3, 6, 3, 3, 3)), True)),
        ("own_index", None),
        ("totals", np.zeros(1)),
        ("starts", np.array([0, 2, 5])),
        ("slots", np.full(4, 3, np.int64)),
        ("contexts", (np.array([0, 1, 3]), np.array([7, 8], np.uint32), np.ones(2))),
        ("contexts", (np.array([0, 2, 1]), np.array([7, 8], np.uint32), np.ones(2))),
        ("contexts", (np.array([0, 1, 2]), np.array([7, 8], np.uint32), np.ones(1))),
        ("contexts", (np.array([0, 1]), np.array([7, 8], np.uint32), np.ones(2))),
        ("chosen", np.array([0, 2])),
        ("rewards", np.ones(3)),
        ("out", np.zeros(5)),
        ("first", 3),
        ("first", -1),
    ],
)
def test_posterior_refuses_what_does_not_fit(name, value):
    model = Model(explore="ucb")
    assert model.run(**posterior_arguments()) == 2
    with pytest.raises(ValueError, match=r"."):
        model.run(**{**posterior_arguments(), name: value})


def read_only():
    mean = np.zeros((3, 3))
    mean.setflags(write=False)
    return mean


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, np.zeros((3, 23))),
        (0, np.zeros((2, 24))),
        (1, np.zeros((2, 3))),
        (1, np.zeros((3, 0))),
        (1, read_only()),
        (2, np.zeros((3, 5))),
        (2, np.zeros((2, 6))),
        (2, wide_head()),
        (3, np.zeros((2, 24))),
        (4, np.zeros((3, 2))),
        (5, np.zeros((3, 4))),
    ],
)
def test_posteriors_refuse_arrays_that_do_not_fit(position, value):
    with pytest.raises(ValueError, match=r"."):
        Posteriors(changed(position, value), False)


@pytest.mark.parametrize("name", ["keys", "hashes"])
@pytest.mark.parametrize("value", [None, np.zeros(1, np.uint64)])
def test_who_draws_needs_keys_and_hashes(name, value):
    model = Model(explore="normal")
    assert model.run(**posterior_arguments()) == 2
    with pytest.raises(ValueError, match=r"one (key|hash) an"):
        model.run(**{**posterior_arguments(), name: value})


def test_who_draws_nothing_needs_neither():
    assert Model(explore="ucb").run(**{**posterior_arguments(), "keys": None, "hashes": None}) == 2


def test_features_of_actions_are_checked_where_they_are_read():
    arguments = posterior_arguments()
    arguments |= {"common": arguments["own"], "own": None, "common_index": FeatureIndex(3)}
    model = Model(explore="ucb", shared=True)
    assert model.run(**arguments) == 2
    with pytest.raises(ValueError, match="features of 4 rows"):
        model.run(**{**arguments, "actions": (np.zeros(4, np.int64), np.empty(0, np.uint32), np.empty(0))})


@pytest.mark.parametrize("explore", ["ucb", "normal", "nig"])
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("dense", [True, False])
def test_what_is_measured_in_blocks_is_what_is_measured_one_by_one(explore, discount, dense):
    """Arms come and go, learn or not, and features appear in the middle of a block."""
    rng = np.random.default_rng(3)
    n, k, d = 75, 4, 11
    kinds = [np.arange(1, d if i > 40 else d - 3, dtype=np.uint32) for i in range(n)]
    hashes = [kind if dense else rng.permutation(kind)[: rng.integers(1, 6)] for kind in kinds]
    values = [rng.normal(size=len(row)) for row in hashes]
    chosen, rewards = rng.integers(0, k, n), rng.normal(size=n)
    weights = rng.integers(0, 3, n) * 0.5
    slots = np.array([rng.permutation(np.arange(-1, 6))[:k] for _ in range(n)])

    def outcome(cuts):
        prior = np.zeros((7, 2 * d * SIZE))
        prior[:, [SIZE * (i // 8 + 1) * (4 * (i // 8) + i % 8) + i for i in range(d)]] = 1.0
        size = SIZE * 2 * (4 + d % 8)
        tables = (prior[:, :size].copy(), np.zeros((7, d)), np.zeros((7, 6)))
        tables += (tables[0].copy(), np.zeros((7, d)), np.ones((7, d)))
        model = Model(explore=explore, discount=discount, draws=7)
        index, totals, out = FeatureIndex(d), np.zeros(2), np.zeros(n * k)
        posteriors = Posteriors(tables, False)
        for low, high in itertools.pairwise(cuts):
            lengths = [len(row) for row in hashes[low:high]]
            done = model.run(
                posteriors,
                None,
                None,
                None,
                index,
                FeatureIndex(1),
                totals,
                np.arange(high - low + 1) * k,
                slots[low:high].reshape(-1),
                np.tile(np.arange(k, dtype=np.uint64), high - low),
                np.arange(low, high, dtype=np.uint64),
                (
                    np.cumsum([0, *lengths]),
                    np.concatenate(hashes[low:high]),
                    np.concatenate(values[low:high]),
                ),
                None,
                chosen[low:high],
                rewards[low:high],
                weights[low:high],
                out[low * k : high * k],
                0,
            )
            assert done == high - low
        return [out, totals, *tables]

    for whole, single in zip(outcome([0, n]), outcome(range(n + 1)), strict=True):
        np.testing.assert_array_equal(whole, single)
    for whole, cut in zip(outcome([0, n]), outcome([0, 7, 20, 21, 60, n]), strict=True):
        np.testing.assert_array_equal(whole, cut)


def test_posterior_stops_where_there_is_no_room():
    arguments = posterior_arguments()
    arguments["own_index"] = FeatureIndex(10)
    arguments["contexts"] = (np.array([0, 2, 5]), np.arange(5, dtype=np.uint32), np.ones(5))
    assert Model(explore="ucb").run(**arguments) == 1  # the constant and two; the second event brings three
    assert len(arguments["own_index"]) == 3


def test_hybrid_refuses_crosses_that_do_not_fit():
    arguments = posterior_arguments()
    one = Posteriors(tuple(array[:1] for array in arrays()), False)
    arguments |= {"common": one, "common_index": FeatureIndex(3)}
    model = Model(explore="ucb", hybrid=True)
    right = np.zeros((3, 3, 3))
    assert model.run(**{**arguments, "cross": right, "moments": right.copy()}) == 2
    for wrong in (np.zeros((2, 3, 3)), np.zeros((3, 2, 3)), np.zeros((3, 3, 2))):
        with pytest.raises(ValueError, match="cross moments do not fit"):
            model.run(**{**arguments, "cross": wrong, "moments": right.copy()})
        with pytest.raises(ValueError, match="cross moments do not fit"):
            model.run(**{**arguments, "cross": right, "moments": wrong})


def test_feature_index_numbers_by_first_sighting():
    hashes = np.array([9, 4, 7], np.uint32)
    index = FeatureIndex(4, hashes)
    out = np.empty(3, np.uint32)
    index.fill(out)
    np.testing.assert_array_equal(out, hashes)
    assert len(index) == len(index.copy()) == 3
    with pytest.raises(ValueError, match="is there twice"):
        FeatureIndex(4, np.array([1, 1], np.uint32))
    with pytest.raises(ValueError, match="are more than"):
        FeatureIndex(1, hashes)
    with pytest.raises(ValueError, match="need as much room"):
        index.fill(out[:2])
    with pytest.raises(ValueError, match="limit must be"):
        FeatureIndex(0)


def test_threads_may_share_a_model():
    rng = np.random.default_rng(4)
    model, posteriors, index = Model(explore="normal", draws=50), Posteriors(arrays(), False), FeatureIndex(3)
    n = 400
    logs = [
        {
            **posterior_arguments(n),
            "own": posteriors,
            "own_index": index,
            "slots": rng.integers(0, 3, 2 * n),
            "keys": rng.integers(0, 2**63, n, dtype=np.uint64),
            "contexts": (np.arange(n + 1), rng.integers(5, 9, n, dtype=np.uint32), rng.normal(size=n)),
        }
        for _ in range(4)
    ]
    for log in logs:
        for name in ("moments", "chosen", "rewards", "weights", "first"):
            del log[name]

    def decided(log):
        out = np.zeros(2 * n)
        for _ in range(20):
            model.decide(**{**log, "out": out})
        return out

    alone = [decided(log) for log in logs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decided, logs))
    np.testing.assert_array_equal(together, alone)
