"""Real series whose changes people have marked (van den Burg and Williams 2020)."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from penstock.drift import build

DATA = Path(__file__).parents[3] / "shared" / "data" / "changepoints"
MARGIN = 5  # rows that a change may be off, as in the dataset's paper

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the change point series are not there")

# Parameters for series this short, and the F1 reached at least. Random marks, as many as are best, get 0.39.
FLOORS = {
    "adwin": ({"delta": 0.1, "clock": 1, "min_window": 10, "max_buckets": 20}, 0.42),
    "cusum": ({"threshold": 5.0, "warm_up": 20, "slack": 2.0}, 0.85),
    "ddm": ({"threshold": 2.0, "warm_up": 10}, 0.82),
    "e_detector": ({"threshold": 5.0, "reference": 20, "risk": 0.05}, 0.48),  # sees rises only
    "hddm_a": ({"confidence": 0.05, "direction": "both"}, 0.84),
    "hddm_w": ({"confidence": 0.01, "fading": 0.1, "direction": "both"}, 0.86),
    "kswin": ({"alpha": 1e-6, "window": 40, "recent": 10, "clock": 1}, 0.69),
    "page_hinkley": ({"threshold": 2.0, "delta": 0.05, "warm_up": 10}, 0.84),
    "stepd": ({"alpha": 0.03, "recent": 5, "direction": "both"}, 0.9),
}


def occupancy():
    """Four sensors in an office, each from 0 to 1: shape (509, 4)."""
    with gzip.open(DATA / "occupancy.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    values = np.array([row[1:] for row in rows[1:]], dtype=float)
    return (values - values.min(axis=0)) / np.ptp(values, axis=0)


def marks(kind, parameters, values):
    """Rows at which a detector on each column saw a change begin; those closer than the margin are one."""
    found = []
    for column in values.T:
        detector = build(kind, **parameters)
        for i in range(len(column)):
            alarm = detector.update(column[i : i + 1])
            if alarm is not None:
                found.append(max(i + 1 - alarm.width, 0))
    merged = []
    for mark in sorted(found):
        if not merged or mark - merged[-1] > MARGIN:
            merged.append(mark)
    return merged


def f1(found, annotations):
    """Precision against all annotators together, recall averaged over them; row 0 counts as found."""

    def hits(truth, guesses):
        left, n = sorted(guesses), 0
        for mark in sorted(truth):
            close = [guess for guess in left if abs(guess - mark) <= MARGIN]
            if close:
                left.remove(min(close, key=lambda guess: abs(guess - mark)))
                n += 1
        return n

    guesses = {0, *found}
    everyone = {0}.union(*annotations)
    precision = hits(everyone, guesses) / len(guesses)
    recall = np.mean([hits({0, *one}, guesses) / len({0, *one}) for one in annotations])
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("kind", sorted(FLOORS))
def test_finds_what_people_marked(kind):
    parameters, floor = FLOORS[kind]
    annotations = list(json.loads((DATA / "annotations.json").read_text())["occupancy"].values())
    assert f1(marks(kind, parameters, occupancy()), annotations) >= floor


def test_the_score_of_what_is_known():
    assert f1([10, 50], [[10, 50]]) == 1.0
    assert f1([], [[10, 50]]) == pytest.approx(0.5)
    assert f1([13, 30], [[10, 50]]) == pytest.approx(2 / 3)
