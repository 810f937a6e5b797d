import math

import numpy as np
import pytest

from penstock.drift import build
from penstock.drift.adwin import ADWIN
from penstock.drift.calibrated import Calibrated, threshold_for
from penstock.drift.calibration import (
    RunLength,
    Series,
    Unreachable,
    calibrated,
    delay,
    from_reference,
    parse_series,
    run_length,
    siegmund,
)
from penstock.drift.cusum import CUSUM
from penstock.drift.e_detector import EDetector
from penstock.drift.hddm_a import HDDMA
from penstock.drift.page_hinkley import PageHinkley
from penstock.errors import ConfigError, StoreError
from penstock.state import digest


def observed(detector, series, every, streams=4, seed=99):
    alarms = events = 0
    for i in range(streams):
        detector.reset()
        parts = series.parts(np.random.default_rng([seed, i]))
        counted = run_length(detector, parts, 10 * every)
        alarms, events = alarms + counted.alarms, events + counted.events
    return events / alarms


def autoregressive(rng, n):
    noise, values = rng.normal(size=n), np.zeros(n)
    for i in range(1, n):
        values[i] = 0.8 * values[i - 1] + noise[i]
    return values


# --- counting ---------------------------------------------------------------------------------------------


class EveryTenth:
    """Rings at its tenth value."""

    def __init__(self):
        self.n = 0

    def update(self, values):
        before, self.n = self.n, self.n + len(values)
        return type("Found", (), {"index": 9 - before}) if before < 10 <= self.n else None

    def reset(self):
        self.n = 0


@pytest.mark.parametrize("size", [1, 3, 10, 64, 1000])
def test_every_alarm_is_counted_however_the_stream_comes(size):
    parts = iter([np.zeros(size)] * (1000 // size + 1))
    assert run_length(EveryTenth(), parts, 1000) == RunLength(alarms=100, events=1000)


def test_counting_can_stop_early():
    counted = run_length(EveryTenth(), iter([np.zeros(1000)]), 1000, most_alarms=7)
    assert counted == RunLength(alarms=7, events=70)
    assert counted.mean == 10.0


def test_the_interval_of_no_alarm_is_open():
    low, high = RunLength(alarms=0, events=1000).interval()
    assert low == pytest.approx(1000 / -math.log(0.025))
    assert high == math.inf


# --- series -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mean", "sd"),
    [("bernoulli:0.3", 0.3, 0.458), ("beta:2,6", 0.25, 0.144), ("uniform", 0.5, 0.289), ("gaussian", 0, 1)],
)
def test_a_series_is_what_it_says_and_changes_as_told(name, mean, sd):
    series = parse_series(name)
    values = series.draw(np.random.default_rng(0), 100_000)
    assert series.mean == pytest.approx(mean)
    assert values.mean() == pytest.approx(mean, abs=0.02)
    assert values.std() == pytest.approx(sd, abs=0.01)
    if name != "uniform":  # which is clipped
        changed = series.draw(np.random.default_rng(0), 100_000, 0.2)
        assert changed.mean() == pytest.approx(mean + 0.2, abs=0.02)


@pytest.mark.parametrize(
    "name", ["", "bernoulli", "bernoulli:1", "beta:1", "beta:0,1", "normal", "gaussian:1", "beta:x,1"]
)
def test_what_is_no_series_is_refused(name):
    with pytest.raises(ConfigError, match="series: expected"):
        parse_series(name)


def test_independent_values_are_drawn_one_by_one_and_others_in_blocks():
    rng = np.random.default_rng(4)
    assert from_reference(rng.random(2000)).block == 1
    assert from_reference((rng.random(2000) < 0.1).astype(float)).block == 1
    values = autoregressive(rng, 4000)
    series = from_reference(values)
    drawn = series.draw(rng, 40_000)
    assert 20 <= series.block <= 400
    assert np.corrcoef(drawn[1:], drawn[:-1])[0, 1] == pytest.approx(0.8, abs=0.05)


# --- calibrating ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slack", "threshold"), [(0.25, 8.0), (0.5, 4.0)])
def test_siegmunds_formula_is_what_is_observed(slack, threshold):
    detector = CUSUM(threshold=threshold, slack=slack, mean=0.0, sd=1.0)
    expected = siegmund(threshold, slack)
    seen = observed(detector, parse_series("gaussian"), round(expected), streams=40)
    assert seen == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    "kind", ["adwin", "cusum", "ddm", "eddm", "hddm_a", "hddm_w", "page_hinkley", "stepd"]
)
def test_the_run_length_is_within_a_factor_of_two(kind):
    series = parse_series("bernoulli:0.2")
    seen = observed(build(kind, false_alarm_every=2000, series=series.name), series, 2000)
    assert 1000 <= seen <= 4000


def test_a_calibrated_detector_keeps_its_promise_on_values_it_learned_from():
    rng = np.random.default_rng(8)
    beta = parse_series("beta:2,6")
    detector = build("page_hinkley", false_alarm_every=2000, delta=0.01)
    assert detector.update(beta.draw(rng, 2000)) is None
    seen = observed(PageHinkley(threshold=detector.threshold, delta=0.01), beta, 2000)
    assert 1000 <= seen <= 4000


def test_blocks_keep_the_promise_where_values_depend_on_each_other():
    """Twice as good as nothing is not enough: without blocks false alarms come ten times as often."""
    values = autoregressive(np.random.default_rng(2), 6000)
    series = from_reference(values)
    alone = Series("own", series.sample)
    wanted, run = 2000, {}
    fresh = autoregressive(np.random.default_rng(3), 80_000)
    for name, given in (("blocks", series), ("alone", alone)):
        threshold = threshold_for(CUSUM, {}, wanted, given)
        run[name] = run_length(CUSUM(threshold=threshold), iter([fresh]), len(fresh)).mean
    assert run["alone"] < wanted / 5
    assert wanted / 3 < run["blocks"] < wanted * 3


def test_long_runs_are_extrapolated_to():
    make = lambda value: CUSUM(threshold=value, mean=0.0, sd=1.0)  # noqa: E731
    found = calibrated(make, CUSUM.knob, 10_000_000, parse_series("gaussian"))
    assert siegmund(found, 0.25) == pytest.approx(10_000_000, rel=0.7)


def test_closed_forms_are_used_where_there_are_any():
    assert threshold_for(EDetector, {}, 12_345, None) == 12_345
    found = threshold_for(CUSUM, {"mean": 0, "sd": 1}, 5000, parse_series("gaussian"))
    assert siegmund(found, 0.25) == pytest.approx(5000)


def test_the_e_detectors_run_length_is_at_least_its_threshold_whatever_the_dependence():
    """Losses that come in bursts: the mean given the past is at most 0.2 all the same."""
    rng = np.random.default_rng(6)
    levels = np.repeat(rng.choice([0.0, 0.2], 40_000), 10)
    values = (rng.random(400_000) < levels).astype(float)
    counted = run_length(EDetector(threshold=1000, mean=0.2), iter([values]), len(values))
    assert counted.events / max(counted.alarms, 1) >= 1000


def test_a_run_length_that_no_threshold_gives_is_an_error_with_the_nearest():
    with pytest.raises(Unreachable, match="no confidence rings once in 1,000 values") as caught:
        calibrated(lambda value: HDDMA(confidence=value), HDDMA.knob, 1000, parse_series("beta:20,60"))
    assert caught.value.nearest > 0.9


def test_the_delay_is_that_of_the_change():
    make = lambda: CUSUM(threshold=10.0, mean=0.0, sd=1.0)  # noqa: E731
    quick, slow = (delay(make, parse_series("gaussian"), change, runs=40) for change in (2.0, 0.5))
    assert 5 <= quick.median <= 7  # (10 + 0.25) / 1.75 a value
    assert quick.median < slow.median
    assert quick.found == slow.found == 1.0


# --- in a stream ------------------------------------------------------------------------------------------


def test_the_threshold_is_chosen_from_the_first_values():
    values = np.random.default_rng(0).random(3000)
    detector = build("adwin", false_alarm_every=5000, series="own:1000")
    detector.update(values[:999])
    assert math.isnan(detector.threshold)
    detector.update(values[999:])
    assert detector.threshold == threshold_for(ADWIN, {}, 5000, from_reference(values[:1000]))
    other = ADWIN(delta=detector.threshold)
    other.update(values[1000:])
    assert digest(other.state()) == digest(
        {name.removeprefix("detector/"): v for name, v in detector.state().items() if "/" in name}
    )


def test_the_place_of_an_alarm_counts_the_reference():
    rng = np.random.default_rng(1)
    values = np.concatenate((rng.random(1500), 3 + rng.random(500)))
    whole = build("cusum", false_alarm_every=5000, series="own:1000")
    assert 1500 <= whole.update(values).index < 1510


def test_a_constant_reference_is_waited_out():
    detector = build("ddm", false_alarm_every=1000, series="own:200")
    detector.update(np.zeros(200))
    assert math.isnan(detector.threshold)
    detector.update((np.random.default_rng(0).random(200) < 0.2).astype(float))
    assert detector.threshold > 0


def test_a_stream_under_way_takes_the_nearest_threshold():
    detector = build("hddm_a", false_alarm_every=1000, series="own:200")
    detector.update(0.5 + 0.001 * np.random.default_rng(0).random(200))
    assert detector.threshold > 0.9


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"delta": 0.1, "false_alarm_every": 1000}, "delta: it follows from false_alarm_every"),
        ({"false_alarm_every": 10}, "false_alarm_every: expected an integer of at least 100, got 10"),
        ({"false_alarm_every": 1000, "series": "own:5"}, "series: own: expected an integer of at least 200"),
        ({"false_alarm_every": 1000, "series": "own:x"}, "series: expected 'own' or 'own:N'"),
        ({"false_alarm_every": 1000, "clock": 0}, "clock: expected an integer"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        build("adwin", **parameters)


def test_a_state_with_another_reference_is_refused():
    with pytest.raises(StoreError, match="reference"):
        Calibrated(ADWIN, {}, every=1000, series="own:300").restore(
            build("adwin", false_alarm_every=1000).state()
        )
