"""The kernel of linear policies refuses what would make it read or write out of bounds."""

import numpy as np
import pytest

from penstock._native.posterior import FeatureIndex, Model

SIZE = 8  # rows of three features in whole blocks


def posterior_arguments(n=2, k=2, d=3):
    covariance = np.zeros((3, d * SIZE))
    covariance[:, [i * SIZE + i for i in range(d)]] = 1.0
    return {
        "own": (
            covariance,
            np.zeros((3, d)),
            np.zeros((3, 6)),
            covariance.copy(),
            np.zeros((3, d)),
            np.ones((3, d)),
        ),
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
    own = list(posterior_arguments()["own"])
    own[position] = value
    return tuple(own)


def wide_head():
    head = np.zeros((3, 6))
    head[1, 0] = 4.0
    return head


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("own", changed(0, np.zeros((3, 23)))),
        ("own", changed(1, np.zeros((2, 3)))),
        ("own", changed(2, np.zeros((3, 5)))),
        ("own", changed(2, wide_head())),
        ("own", changed(3, np.zeros((2, 24)))),
        ("own", changed(4, np.zeros((3, 2)))),
        ("own", changed(5, np.zeros((3, 4)))),
        ("own_index", None),
        ("totals", np.zeros(1)),
        ("starts", np.array([0, 2, 5])),
        ("slots", np.full(4, 3, np.int64)),
        ("hashes", np.zeros(3, np.uint64)),
        ("contexts", (np.array([0, 1, 3]), np.array([7, 8], np.uint32), np.ones(2))),
        ("contexts", (np.array([0, 2, 1]), np.array([7, 8], np.uint32), np.ones(2))),
        ("contexts", (np.array([0, 1, 2]), np.array([7, 8], np.uint32), np.ones(1))),
        ("contexts", (np.array([0, 1]), np.array([7, 8], np.uint32), np.ones(2))),
        ("actions", (np.zeros(4, np.int64), np.empty(0, np.uint32), np.empty(0))),
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


def test_posterior_stops_where_there_is_no_room():
    arguments = posterior_arguments()
    arguments["own_index"] = FeatureIndex(10)
    arguments["contexts"] = (np.array([0, 2, 5]), np.arange(5, dtype=np.uint32), np.ones(5))
    assert Model(explore="ucb").run(**arguments) == 1  # the constant and two; the second event brings three
    assert len(arguments["own_index"]) == 3


def test_hybrid_refuses_crosses_that_do_not_fit():
    arguments = posterior_arguments()
    one = tuple(array[:1] for array in arguments["own"])
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
