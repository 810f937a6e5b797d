"""What every registered detector must do, whatever its statistics."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.drift import DETECTORS, Detector, build
from penstock.errors import PenstockError, StoreError
from penstock.state import digest

PARAMETERS: dict[str, dict[str, object]] = {
    "page_hinkley": {"threshold": 80.0},  # the default of River rings once in 15 000 errors
    "eddm": {"threshold": 0.75, "warm_up": 100},  # its default takes a thousand errors to see this
    "kswin": {"alpha": 0.02},  # as this one does: its default is for numbers without ties
    "river": {"model": "drift.PageHinkley", "params": {"threshold": 80.0}},
}
"""What a detector needs to be told, beyond its defaults, to be built for errors."""

CALIBRATED: dict[str, tuple[str, dict[str, object]]] = {
    "hddm_w, calibrated": ("hddm_w", {"false_alarm_every": 20_000, "series": "own:1000"}),
    "cusum, calibrated": ("cusum", {"false_alarm_every": 100_000, "series": "bernoulli:0.2"}),
    "e_detector, calibrated": ("e_detector", {"false_alarm_every": 10_000}),
}

SLOW = {"ddm": 1500, "eddm": 2000}
"""Values that those take to see the change that average over everything there ever was; others take 500."""

N = 6000
CHANGE = 4000


@pytest.fixture(params=[*sorted(DETECTORS), *CALIBRATED])
def make(request):
    kind, parameters = CALIBRATED.get(request.param, (request.param, PARAMETERS.get(request.param, {})))
    return lambda: build(kind, **parameters)


def stationary(seed: int, n: int = N) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < 0.2).astype(float)


def changing(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random(N) < np.where(np.arange(N) < CHANGE, 0.2, 0.6)).astype(float)


def alarms(detector: Detector, values: np.ndarray, cuts: list[int]) -> list[tuple[int, float, float, int]]:
    """Index in the stream, and evidence, of the first alarm in each part."""
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True):
        drift = detector.update(values[start:stop])
        if drift is not None:
            found.append((start + drift.index, drift.before, drift.after, drift.width))
    return found


def test_is_a_detector(make):
    assert isinstance(make(), Detector)


def test_same_values_same_state(make):
    one, other = make(), make()
    assert one.update(changing()) == other.update(changing())
    assert digest(one.state()) == digest(other.state())


@pytest.mark.parametrize("size", [1, 7, 256])
def test_where_the_stream_is_cut_changes_nothing(make, size):
    whole, split = make(), make()
    first = whole.update(changing())
    found = alarms(split, changing(), list(range(size, N, size)))
    assert first is not None
    assert found[0] == (first.index, first.before, first.after, first.width)
    assert digest(split.state()) == digest(whole.state())


def test_the_same_alarms_from_batches_of_any_size(make):
    one_by_one = alarms(make(), changing(), list(range(1, N)))
    rng = np.random.default_rng(3)
    cuts = sorted(rng.choice(np.arange(1, N), 300, replace=False).tolist())
    firsts, edges = {}, [*cuts, N]
    for alarm in one_by_one:  # the first of each part is what a part can report
        firsts.setdefault(next(i for i, edge in enumerate(edges) if alarm[0] < edge), alarm)
    assert alarms(make(), changing(), cuts) == list(firsts.values())


@pytest.mark.parametrize("at", [0, 1, 1000, CHANGE + 100, N])
def test_state_goes_on_as_if_nothing_had_happened(make, at):
    values = changing()
    steady, resumed, first_half = make(), make(), make()
    first_half.update(values[:at])
    saved = first_half.state()
    saved_digest = digest(saved)
    resumed.restore(saved)
    first_half.update(values[at:])  # shares nothing with the state or with what was restored from it
    assert digest(saved) == saved_digest
    steady.update(values[:at])
    assert digest(resumed.state()) == digest(steady.state())
    assert resumed.update(values[at:]) == steady.update(values[at:])
    assert digest(resumed.state()) == digest(steady.state())


def test_reset_is_fresh(make):
    used = make()
    used.update(changing())
    used.reset()
    assert digest(used.state()) == digest(make().state())


def test_finds_a_planted_change(make, request):
    found = [alarms(make(), changing(seed), list(range(1, N))) for seed in range(10)]
    delays = [next((index - CHANGE for index, *_ in one if index >= CHANGE), None) for one in found]
    limit = SLOW.get(request.node.callspec.params["make"], 500)
    assert all(delay is not None and delay < limit for delay in delays), delays


def test_says_what_changed(make):
    rng = np.random.default_rng(7)
    values = (rng.random(8000) < np.repeat([0.1, 0.9], 4000)).astype(float)
    found = [alarm for alarm in alarms(make(), values, list(range(1, 8000))) if alarm[0] >= 4000]
    _, before, after, width = found[0]
    assert before < after
    assert width >= 1


def test_is_quiet_on_a_stationary_stream(make):
    """At most two of ten streams of 6 000 values ring at all: 3 false alarms in 100 000 values is a lot."""
    rang = sum(make().update(stationary(seed)) is not None for seed in range(10))
    assert rang <= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_changes_nothing(make, bad):
    detector = make()
    detector.update(stationary(0, 100))
    before = digest(detector.state())
    values = stationary(1, 100)
    values[17] = bad
    with pytest.raises(PenstockError, match=r"17"):
        detector.update(values)
    assert digest(detector.state()) == before


def test_no_values_change_nothing(make):
    detector = make()
    detector.update(stationary(0, 100))
    before = digest(detector.state())
    assert detector.update(np.empty(0)) is None
    assert digest(detector.state()) == before


def test_reads_read_only_and_strided_values(make):
    values = changing()
    strided = np.repeat(values, 2)[::2]
    strided.setflags(write=False)
    one, other = make(), make()
    assert one.update(strided) == other.update(values)
    assert digest(one.state()) == digest(other.state())


def test_a_foreign_state_is_refused(make):
    detector = make()
    detector.update(stationary(0, 100))
    before = digest(detector.state())
    with pytest.raises(StoreError):
        detector.restore({})
    assert digest(detector.state()) == before


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(DETECTORS)),
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 1500), max_size=8),
    level=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_cut_and_saved_anywhere_it_is_the_same_detector(kind, seed, cuts, level):
    rng = np.random.default_rng(seed)
    values = (rng.random(1500) < np.repeat([0.1, level, 0.9], 500)).astype(float)
    whole, parts = (build(kind, **PARAMETERS.get(kind, {})) for _ in range(2))
    first = whole.update(values)
    found = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(values)]):
        drift = parts.update(values[start:stop])
        found += [start + drift.index] if drift is not None else []
        resumed = build(kind, **PARAMETERS.get(kind, {}))
        resumed.restore(parts.state())
        parts = resumed
    assert digest(parts.state()) == digest(whole.state())
    assert found[:1] == ([first.index] if first is not None else [])
