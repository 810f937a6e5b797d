"""On which decisions policies can be compared."""

import numpy as np
import pytest

from penstock.bandits.overlap import Overlap
from penstock.bandits.support import SupportMonitor
from penstock.bandits.terms import Terms
from penstock.decisions import Logged, Offers

ARMS = ("a", "b", "c")


def logged(*propensities, arms=ARMS, chosen=0, weight=1.0):
    n = len(propensities)
    return Logged(
        offers=Offers.from_rows([{}] * n, [arms] * n),
        chosen=np.full(n, chosen),
        propensities=np.array(propensities),
        rewards=np.zeros(n),
        weights=np.full(n, weight),
    )


def test_what_is_certain_says_nothing_about_others():
    overlap = Overlap(20.0)
    assert overlap.comparable(logged(0.5, 1.0, 0.9, 1.0 - 1e-7)).tolist() == [True, False, True, False]
    assert (overlap.n_left_out, overlap.is_broken) == (2, False)
    assert overlap.comparable(logged(1.0, arms=("a",))).all()  # there was nothing else


@pytest.mark.parametrize(
    ("propensity", "max_weight", "is_broken"),
    [
        (0.05, 20.0, False),
        (np.float64(np.float32(0.05)), 20.0, False),
        (0.0499, 20.0, True),
        (0.9, 20.0, False),  # the other two had 0.05 each
        (0.901, 20.0, True),  # one of the others had less
        (0.901, 30.0, False),
    ],
)
def test_the_bound_is_broken_by_what_was_taken_or_by_what_is_left(propensity, max_weight, is_broken):
    overlap = Overlap(max_weight)
    assert overlap.comparable(logged(propensity)).all()
    assert overlap.is_broken == is_broken
    unseen = Overlap(max_weight)
    unseen.comparable(logged(propensity, weight=0.0))
    assert not unseen.is_broken


def test_retired_arms_are_no_alternatives():
    overlap = Overlap(20.0)
    overlap.retired = frozenset({"c"})
    overlap.comparable(logged(0.95))
    assert not overlap.is_broken
    assert overlap.comparable(logged(1.0, arms=("a", "c"))).all()
    overlap.comparable(logged(0.3, chosen=2))
    assert not overlap.is_broken


def test_what_offers_a_missing_arm_is_left_out_until_it_is_taken():
    overlap = Overlap(20.0)
    overlap.end_tick(frozenset({"c"}), is_told=False)
    assert not overlap.comparable(logged(0.5, 0.4)).any()
    assert overlap.comparable(logged(0.5, arms=("a", "b"))).all()
    overlap.end_tick(frozenset(), is_told=False)
    assert overlap.comparable(logged(0.5)).all()


def test_an_arm_is_missing_only_once_chance_cannot_explain_it():
    events = logged(*[0.5] * 70)
    uniform = np.full(210, 1 / 3)
    monitor = SupportMonitor()
    for _ in range(12):
        assert monitor.never_taken(Overlap(80.0).hopeless) == frozenset()  # chance: below 280 times
        monitor.update(Terms.of(events, uniform), events, uniform)
    assert monitor.never_taken(Overlap(80.0).hopeless) == {"b", "c"}
    late = logged(0.5, chosen=1)
    monitor.update(Terms.of(late, uniform[:3]), late, uniform[:3])
    assert monitor.never_taken(Overlap(80.0).hopeless) == {"c"}


def test_state_is_empty_where_everything_has_support_and_whole_where_not():
    overlap = Overlap(20.0)
    overlap.comparable(logged(0.5, 0.3))
    assert overlap.state() == {}
    overlap.retired = frozenset({"c"})
    overlap.end_tick(frozenset({"b"}), is_told=True)
    overlap.comparable(logged(0.5))
    twin = Overlap(20.0)
    twin.restore(overlap.state())
    assert twin.state() == overlap.state()
    assert (twin.missing, twin.retired, twin.n_left_out, twin.is_told) == ({"b"}, {"c"}, 1, True)
