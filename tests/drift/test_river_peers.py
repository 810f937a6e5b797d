"""Alarm for alarm what River finds, where the definitions agree.

Ours start afresh after `longest` values where they average over everything, which River's never do: that is
turned off here. KSWIN is not here: River's compares the recent values with a random few of the older ones.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from penstock.drift.ddm import DDM
from penstock.drift.eddm import EDDM
from penstock.drift.hddm_a import HDDMA
from penstock.drift.hddm_w import HDDMW
from penstock.drift.page_hinkley import PageHinkley
from penstock.drift.river import River

N = 3000
NAMES = ["ddm", "eddm", "hddm_a", "hddm_w", "hddm_a both", "hddm_w both", "page_hinkley"]


def errors(seed, n=N):
    """0 and 1: two levels, then a ramp."""
    rng = np.random.default_rng(seed)
    third = n // 3
    levels = np.repeat(rng.choice([0.05, 0.2, 0.5], 2), third)
    return (rng.random(n) < np.concatenate((levels, np.linspace(0.1, 0.7, n - 2 * third)))).astype(float)


def losses(seed, n=N):
    rng = np.random.default_rng(seed)
    means = np.repeat(rng.uniform(0.1, 0.8, 4), n // 4)
    return rng.beta(5 * means, 5 * (1 - means))


def pair(name, confidence=0.001, fading=0.05, warm_up=30, threshold=3.0, beta=0.9):
    """Our detector and River's."""
    both = name.endswith("both")
    direction = "both" if both else "up"
    match name.split()[0]:
        case "ddm":
            peer = drift.binary.DDM(warm_start=warm_up, drift_threshold=threshold)
            return DDM(threshold=threshold, warm_up=warm_up, longest=None), peer
        case "eddm":
            peer = drift.binary.EDDM(warm_start=warm_up, alpha=max(beta, 0.95), beta=beta)
            return EDDM(threshold=beta, warm_up=warm_up, longest=None), peer
        case "hddm_a":
            peer = drift.binary.HDDMA(drift_confidence=confidence, two_sided_test=both)
            return HDDMA(confidence=confidence, direction=direction, longest=None), peer
        case "hddm_w":
            peer = drift.binary.HDDMW(drift_confidence=confidence, lambda_val=fading, two_sided_test=both)
            return HDDMW(confidence=confidence, fading=fading, direction=direction), peer
    peer = drift.PageHinkley(threshold=threshold, delta=fading / 10, min_instances=warm_up)
    return PageHinkley(threshold=threshold, delta=fading / 10, warm_up=warm_up), peer


def alarms(ours, peer, values):
    """Where each rang."""
    mine, theirs = [], []
    for i in range(len(values)):
        if ours.update(values[i : i + 1]) is not None:
            mine.append(i)
        peer.update(float(values[i]))
        if peer.drift_detected:
            theirs.append(i)
    return mine, theirs


@pytest.mark.parametrize("name", NAMES)
def test_rings_where_river_does(name):
    total = 0
    for seed in range(5):
        mine, theirs = alarms(*pair(name), errors(seed))
        assert mine == theirs
        total += len(mine)
    assert total >= 4  # the streams are worth comparing


@pytest.mark.parametrize("name", ["hddm_a", "hddm_w both", "page_hinkley"])
def test_rings_where_river_does_on_losses(name):
    for seed in range(4):
        mine, theirs = alarms(*pair(name), losses(seed))
        assert mine == theirs


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**32),
    confidence=st.floats(1e-6, 0.5),
    fading=st.floats(0.01, 0.5),
    warm_up=st.integers(1, 100),
    threshold=st.floats(0.5, 30.0),
    beta=st.floats(0.3, 0.99),
)
def test_rings_where_river_does_with_any_parameters(name, seed, confidence, fading, warm_up, threshold, beta):
    mine, theirs = alarms(*pair(name, confidence, fading, warm_up, threshold, beta), errors(seed, 600))
    assert mine == theirs


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_page_hinkley_looks_where_it_is_told_to(direction):
    values = np.concatenate((errors(1), 1 - errors(2)))
    ours = PageHinkley(threshold=10, direction=direction)
    mine, theirs = alarms(ours, drift.PageHinkley(threshold=10, mode=direction), values)
    assert mine == theirs
    assert mine


@pytest.mark.parametrize(
    ("model", "params", "peer"),
    [
        ("drift.PageHinkley", {"threshold": 20}, drift.PageHinkley(threshold=20)),
        ("drift.KSWIN", {"alpha": 0.01}, drift.KSWIN(alpha=0.01, seed=0)),
        ("drift.binary.DDM", {}, drift.binary.DDM()),
    ],
)
def test_any_detector_of_river_is_rivers(model, params, peer):
    mine, theirs = alarms(River(model=model, params=params), peer, errors(3)[1000:])
    assert mine == theirs
    assert mine
