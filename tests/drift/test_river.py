import numpy as np
import pytest

from penstock.drift import build
from penstock.errors import BadRecord, ConfigError, StoreError, UntrustedState
from penstock.state import Opaque


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "drift.PageHinkly"}, "river has no detector 'drift.PageHinkly'"),
        ({"model": "stats.Mean"}, "river has no detector 'stats.Mean'"),
        ({"model": "drift"}, "river has no detector 'drift'"),
        ({"model": "drift.ADWIN", "params": {"detla": 1}}, "river drift.ADWIN: TypeError"),
        ({"model": "drift.ADWIN", "recent": 0}, "recent: expected an integer"),
        ({"model": "drift.ADWIN", "false_alarm_every": 1000}, "River has no threshold to choose"),
    ],
)
def test_what_is_no_detector_is_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        build("river", **parameters)


def test_the_evidence_is_the_recent_values_and_all_before():
    values = np.arange(200.0) // 100
    found = build("river", model="drift.PageHinkley", params={"threshold": 20}, recent=10).update(values)
    seen = values[: found.index + 1]
    assert (found.before, found.after, found.width) == (seen[:-10].mean(), seen[-10:].mean(), 10)


def test_an_unsigned_pickle_is_not_read():
    detector = build("river", model="drift.ADWIN")
    state = detector.state()
    entry = state["detector"]
    state["detector"] = Opaque(data=entry.data, digest=entry.digest, trusted=False)
    with pytest.raises(UntrustedState, match=r"^detector river: nothing vouches"):
        detector.restore(state)


def test_another_detectors_state_is_refused():
    with pytest.raises(StoreError, match="another detector"):
        build("river", model="drift.ADWIN").restore(build("river", model="drift.KSWIN").state())


def test_a_binary_detector_takes_bits_only():
    with pytest.raises(BadRecord, match=r"0 or 1.*values\[1\]"):
        build("river", model="drift.binary.DDM").update(np.array([1.0, 0.5]))
