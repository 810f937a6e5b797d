import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report.charts import (
    Axis,
    Flag,
    Line,
    evidence_axis,
    evidence_chart,
    finite,
    lanes,
    line_path,
    off_chart,
    race_chart,
    scatter_apart,
    ticks,
    value_axis,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
any_numbers = st.none() | st.floats()


def line(values, *, name="sgd", baseline=False):
    return Line(name=name, css="l0", baseline=baseline, values=values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (math.nan, None), (math.inf, None), (1e308, 1e280), (-1e308, -1e280), (2, 2.0)],
)
def test_finite(value, expected):
    assert finite(value) == expected


@given(numbers.filter(lambda v: abs(v) < 1e290), st.floats(1e-250, 1e290))
def test_ticks_are_round_ascending_and_within(low, span):
    if not low + span > low or span < 1e-9 * abs(low):
        return
    found = ticks(low, low + span)
    values = [value for value, _ in found]
    assert 2 <= len(values) <= 11
    assert values == sorted(set(values))
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in values)


@given(st.lists(any_numbers, max_size=60), st.lists(any_numbers, max_size=60), st.booleans())
def test_an_axis_is_a_scale_whatever_the_values(learner, baseline, higher_is_better):
    axis = value_axis(
        [line(learner), line(baseline, name="mean", baseline=True)], higher_is_better=higher_is_better
    )
    assert axis.low < axis.high
    assert math.isfinite(axis.high - axis.low)


def test_a_constant_gets_room_on_both_sides():
    axis = value_axis([line([5.0] * 10)], higher_is_better=False)
    assert axis.share(5.0) == pytest.approx(0.5)


def test_a_share_stays_one():
    axis = value_axis([line([0.0, 0.5, 1.0])], higher_is_better=True)
    assert (axis.low, axis.high) == (0.0, 1.0)


def test_the_noisy_start_of_a_curve_does_not_set_the_scale():
    axis = value_axis([line([90.0, 80.0] + [0.3, 0.4] * 49)], higher_is_better=False)
    assert axis.high < 0.5


def test_a_baseline_far_away_is_off_the_chart_and_one_nearby_is_not():
    learner = line([0.30, 0.35] * 50)
    near = line([0.69] * 100, name="majority", baseline=True)
    far = line([5.0] * 100, name="no_change", baseline=True)
    axis = value_axis([learner, near, far], higher_is_better=False)
    assert [off_chart(each, axis) for each in (learner, near, far)] == [False, False, True]
    assert axis.high < 0.8


def test_a_learner_that_diverges_does_not_flatten_the_others():
    good, lost = line([0.3, 0.4] * 50), line([1e6] * 100, name="lost")
    axis = value_axis([lost, good], higher_is_better=False)
    assert axis.high < 1.0
    assert off_chart(lost, axis)


def test_a_line_without_values_is_not_called_off_the_chart():
    assert not off_chart(line([None, None]), Axis(0.0, 1.0, ()))


def test_gaps_break_the_line_and_a_lone_point_is_a_dot():
    x, y = Axis(0.0, 4.0, ()), Axis(0.0, 1.0, ())
    path = line_path([0, 1, 2, 3, 4], [0.0, 1.0, None, 0.5, math.nan], x, y, 100.0)
    assert path == "M0.0 100.0h0L250.0 0.0M750.0 50.0h0"


def test_what_is_off_the_chart_is_drawn_near_it():
    path = line_path([0, 1], [1e300, -1e300], Axis(0.0, 1.0, ()), Axis(0.0, 1.0, ()), 100.0)
    assert path == "M0.0 -100.0h0L1000.0 200.0"


@given(st.lists(st.floats(0.0, 300.0), max_size=15))
def test_labels_are_scattered_apart_in_their_order(wanted):
    placed = scatter_apart(wanted, 15.0, 300.0)
    in_order = sorted(placed)
    assert all(b - a >= 15.0 - 1e-9 for a, b in itertools.pairwise(in_order))
    assert sorted(range(len(placed)), key=placed.__getitem__) == sorted(
        range(len(wanted)), key=wanted.__getitem__
    )
    assert all(at <= 300.0 for at in placed)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.text("abc", min_size=1, max_size=30)), max_size=20).map(sorted)
)
def test_labels_of_flags_do_not_overlap(labels):
    width = 600.0
    spans = {}
    for (share, label), place in zip(labels, lanes(labels, width), strict=True):
        if place is None:
            continue
        lane, leftwards = place
        at, size = share * width, 6.8 * len(label) + 6.0
        below = (span for i in spans if i > lane for span in spans[i])
        assert not any(start < at < stop for start, stop in below)  # nor does a line cross an earlier one
        spans.setdefault(lane, []).append((at - size, at) if leftwards else (at, at + size))
    for taken in spans.values():
        taken.sort()
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(taken))


def race(flags):
    return ET.fromstring(
        race_chart(
            [100, 200],
            [line([0.1, 0.2])],
            Axis(0.0, 1.0, ticks(0.0, 1.0)),
            last=1000,
            flags=flags,
            bands=[],
            title="t",
            description="d",
        )
    )


def flag(event, who, kind="drift"):
    return Flag(event=event, kind=kind, label="drift", who=who, detail=f"{who} at {event}")


def test_flags_stand_at_their_events_and_neighbours_share_a_label():
    svg = race([flag(250, "sgd"), flag(260, "vw"), flag(900, "sgd")])
    drawn = svg.findall("svg[@class='flag drift']")
    assert [each.get("x") for each in drawn] == ["25.00%", "26.00%", "90.00%"]
    assert [each.findtext("title") for each in drawn] == ["sgd at 250", "vw at 260", "sgd at 900"]
    for width in ("wide", "narrow"):
        labels = [each.findtext("text") for each in svg.findall(f"svg[@class='flag drift {width}']")]
        assert labels == ["drift: sgd, vw", "drift: sgd"]


def test_many_learners_that_drift_at_once_are_counted():
    svg = race([flag(250, name) for name in "abcdef"])
    assert svg.find("svg[@class='flag drift wide']").findtext("text") == "drift: 6 learners"


def test_more_flags_than_there_is_room_for_lose_their_label_not_their_line():
    svg = race([flag(event, f"learner {event}", kind=f"k{event}") for event in range(100, 120)])
    drawn = [each for each in svg.findall("svg") if each.get("class", "").startswith("flag")]
    with_line = [each for each in drawn if each.find("path") is not None]
    labels = [each for each in drawn if each.get("class", "").endswith("wide")]
    assert len(with_line) == 20
    assert 1 <= len(labels) < 20


@given(st.lists(any_numbers, max_size=30), st.floats(-1e3, 1e3))
def test_an_evidence_axis_holds_one_and_the_threshold(values, threshold):
    axis = evidence_axis(values, threshold)
    assert axis.low < 0.0 < axis.high
    assert axis.low < threshold < axis.high
    assert len(axis.ticks) <= 10


def test_the_threshold_is_drawn_where_the_evidence_meets_it():
    drawn = ET.fromstring(
        evidence_chart([100, 200], [0.0, 1.5], 1.5, css="l0", key="trial-0", title="t", description="d")
    )
    needed = float(drawn.find("line[@class='needed']").get("y1"))
    inner = drawn.find("svg")
    end = float(inner.find("path").get("d").rsplit(" ", 1)[1])
    assert float(inner.get("y")) + end == pytest.approx(needed, abs=0.11)
    assert drawn.findtext("text[@class='needed']") == "needed: 31.62"
