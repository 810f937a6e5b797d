"""The kernel of policies without context refuses what would make it read or write out of bounds."""

import numpy as np
import pytest

from penstock._native.tally import Tally, are_distributions, look_up


def tally_arguments(n=2, k=2):
    return {
        "stats": np.zeros((3, 4)),
        "totals": np.zeros(4),
        "ring_slots": np.full(5, -1, np.int64),
        "ring_values": np.zeros((5, 2)),
        "starts": np.arange(n + 1, dtype=np.int64) * k,
        "slots": np.ones(n * k, np.int64),
        "hashes": np.zeros(n * k, np.uint64),
        "keys": np.zeros(n, np.uint64),
        "chosen": np.zeros(n, np.int64),
        "propensities": np.ones(n),
        "rewards": np.ones(n),
        "weights": np.ones(n),
        "out": np.zeros(n * k),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stats", np.zeros((0, 4))),
        ("stats", np.zeros((3, 3))),
        ("totals", np.zeros(3)),
        ("totals", np.array([0.0, 0.0, 0.0, 5.0])),
        ("ring_slots", np.full(4, -1, np.int64)),
        ("ring_slots", np.full(5, 3, np.int64)),
        ("ring_slots", None),
        ("ring_values", np.zeros((5, 1))),
        ("starts", np.array([0, 2, 5])),
        ("starts", np.array([0, 3, 2])),
        ("starts", np.array([-1, 2, 4])),
        ("starts", np.array([0, 0, 4])),
        ("slots", np.full(4, 3, np.int64)),
        ("slots", np.full(4, -2, np.int64)),
        ("slots", np.zeros(3, np.int64)),
        ("hashes", np.zeros(3, np.uint64)),
        ("keys", np.zeros(3, np.uint64)),
        ("chosen", np.array([0, 2])),
        ("chosen", np.array([-1, 0])),
        ("rewards", np.ones(1)),
        ("weights", np.ones(3)),
        ("out", np.zeros(3)),
    ],
)
def test_tally_refuses_what_does_not_fit(name, value):
    tally = Tally(rule="ucb1", first=1.0, window=5)
    tally.run(**tally_arguments())
    with pytest.raises(ValueError, match=r"."):
        tally.run(**{**tally_arguments(), name: value})


def test_look_up_finds_slots_and_tells_names_apart():
    names = ["a", "b", "åäö", "\ud800", ""]
    slots, hashes = np.empty(5, np.int64), np.empty(5, np.uint64)
    look_up({"a": 3, "åäö": -1}, names, slots, hashes)
    assert slots.tolist() == [3, 0, -1, 0, 0]
    assert len(set(hashes.tolist())) == 5
    with pytest.raises(ValueError, match="as many"):
        look_up({}, names, slots[:4])
    with pytest.raises(TypeError):
        look_up({}, [1], slots[:1], hashes[:1])


def test_distributions_are_recognised():
    starts = np.array([0, 2, 3])
    assert are_distributions(np.array([0.25, 0.75, 1.0]), starts, 1e-9)
    for wrong in ([0.25, 0.7, 1.0], [-0.25, 1.25, 1.0], [np.nan, 1.0, 1.0], [0.5, 0.5, 0.9]):
        assert not are_distributions(np.array(wrong), starts, 1e-9)
    with pytest.raises(ValueError, match="does not fit"):
        are_distributions(np.ones(2), starts, 1e-9)
