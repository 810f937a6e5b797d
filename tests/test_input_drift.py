"""Detectors of the inputs in a pipeline: how they are asked for, what they say."""

import json

import numpy as np
import pytest

from penstock import config, drift
from penstock.cli import main
from penstock.engine import Engine
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch
from penstock.state import digest

FEATURES = {"kind": "features", "false_alarm_every": 20_000, "reference": 400, "window": 200, "clock": 100}
TWO_SAMPLE = {"kind": "two_sample", "false_alarm_every": 5000, "reference": 600, "bits": 10}
CHANGE = 1700


def batch(n=2500, weights=None):
    rng = np.random.default_rng(0)
    jump = np.where(np.arange(n) < CHANGE, 0.0, 1.5)
    rows = [
        {"calm": calm, "user": {"age": age}}
        for calm, age in zip(rng.normal(size=n).tolist(), (rng.normal(size=n) + jump).tolist(), strict=True)
    ]
    return Batch.from_rows(rows, (rng.random(n) < 0.5).astype(float), weights)


def pipeline(*rules, **more):
    return config.parse(
        {"source": {"kind": "file", "path": "x.csv", "label": "y"}, "drift": list(rules), **more}
    )


def notices(engine, events, size):
    found = [engine.progress(events.slice(start, start + size)) for start in range(0, len(events), size)]
    return [notice for some in found for notice in some if notice.what == "drift"]


@pytest.mark.parametrize("rule", [FEATURES, TWO_SAMPLE, {**FEATURES, "on": "inputs", "react": "log"}])
def test_an_alarm_names_the_features_and_promises_nothing(rule):
    (notice,) = notices(Engine(pipeline(rule)), batch(), 500)
    assert notice.learner == "inputs"
    assert CHANGE < notice.event < CHANGE + 400
    assert notice.text.startswith(f"{rule['kind']} on the inputs: user.age ")
    assert notice.text.endswith("noted: it does not say whether a model is worse")
    assert notice.evidence["features"][0]["feature"] == "user.age"
    assert notice.evidence["reaction"] == "log"
    assert notice.evidence["after"] != notice.evidence["before"]


def test_there_is_one_detector_whatever_the_learners():
    learners = {"a": {"kind": "sgd"}, "b": {"kind": "sgd"}}
    assert len(notices(Engine(pipeline(FEATURES, learners=learners)), batch(), 500)) == 1


def test_events_that_do_not_count_are_not_watched():
    """Their weight is 0 from the change on."""
    weights = (np.arange(2500) < CHANGE).astype(float)
    assert notices(Engine(pipeline(FEATURES, TWO_SAMPLE)), batch(weights=weights), 500) == []


@pytest.mark.parametrize("size", [1, 300])
def test_alarms_and_state_do_not_depend_on_batches(size):
    whole, parts = (Engine(pipeline(FEATURES, TWO_SAMPLE)) for _ in range(2))
    found = [(n.event, n.text, n.evidence) for n in notices(whole, batch(), 2500)]
    assert len(found) == 2
    assert [(n.event, n.text, n.evidence) for n in notices(parts, batch(), size)] == found
    assert parts.digest() == whole.digest()


def test_an_alarm_that_waits_for_the_end_of_its_tick_survives_a_restart():
    steady = Engine(pipeline(FEATURES, tick=1000))
    expected = [n.text for n in notices(steady, batch(), 2500)]
    at = next(n.event for n in notices(Engine(pipeline(FEATURES, tick=1)), batch(), 2500)) + 5
    first, parts, resumed = (Engine(pipeline(FEATURES, tick=1000)) for _ in range(3))
    assert notices(first, batch().slice(0, at), at) == []
    assert notices(parts, batch().slice(0, at), 7) == []
    assert "inputs/0/alarm" in first.state()
    assert parts.digest() == first.digest()
    resumed.restore(first.state())
    assert resumed.digest() == first.digest()
    assert [n.text for n in notices(resumed, batch().slice(at, 2500), 100)] == expected[:1]
    assert resumed.digest() == steady.digest()


def test_an_alarm_that_cannot_be_read_is_refused():
    engine = Engine(pipeline(FEATURES))
    with pytest.raises(StoreError, match="the alarm of features cannot be read"):
        engine.restore({**engine.state(), "inputs/0/alarm": "[1, {}]"})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "features", "on": "loss"}, "`on: loss`: features watches the inputs"),
        ({"kind": "adwin", "on": "inputs"}, "`on: inputs`: adwin watches numbers"),
        (
            {"kind": "features", "react": "reset"},
            "only a loss or an error that rose is answered, not `on: inputs`",
        ),
        ({"kind": "features", "learners": ["sgd"]}, "there is one detector on: inputs"),
        ({"kind": "features", "series": "gaussian"}, "series`: has no meaning with features"),
        (
            {"kind": "features", "false_alarm_every": 500},
            "false_alarm_every: expected an integer of at least 1000",
        ),
        ({"kind": "features", "windw": 3}, "did you mean `window`"),
        ({"kind": "features", "window": 3}, "greater than or equal to 50"),
        ({"kind": "two_sample", "bits": 60}, "less than or equal to 24"),
    ],
)
def test_what_makes_no_sense_is_refused(rule, message):
    with pytest.raises(ConfigError) as caught:
        pipeline(rule)
    assert message in str(caught.value)


def test_there_is_nothing_to_calibrate(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text("source: {kind: file, path: x.csv, label: y}\ndrift: [{kind: features}]\n")
    assert main(["drift", "calibrate", str(path)]) == 2
    assert "no detector of this configuration has `false_alarm_every`" in capsys.readouterr().err
    assert main(["drift", "calibrate", "--detector", "features"]) == 2
    assert "features has no threshold to choose" in capsys.readouterr().err


def test_evaluation_and_report_name_the_features(tmp_path, capsys):
    events = batch()
    data = tmp_path / "data.jsonl"
    lines = (json.dumps({**row, "y": label}) for row, label in zip(events.rows, events.labels, strict=True))
    data.write_text("\n".join(lines))
    path, page = tmp_path / "p.yaml", tmp_path / "report.html"
    rule = ", ".join(f"{key}: {value}" for key, value in FEATURES.items())
    path.write_text(f"source: {{kind: file, path: {data}, label: y}}\ndrift: [{{{rule}}}]\n")
    assert main(["evaluate", str(path), "--json", "--report", str(page)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["drifts"]
    assert found["learner"] == "inputs"
    assert found["features"][0]["feature"] == "user.age"
    assert "The inputs changed, features says: user.age. Not whether a model is worse." in page.read_text()


@pytest.mark.parametrize("kind", sorted(drift.INPUT_DETECTORS))
def test_every_input_detector_is_one(kind):
    detector = drift.build_inputs(kind)
    assert isinstance(detector, drift.InputDetector)
    assert detector.domain == "inputs"
    assert detector.update(batch(0)) is None


@pytest.mark.parametrize("kind", sorted(drift.INPUT_DETECTORS))
def test_a_reset_is_fresh(kind):
    used, fresh = drift.build_inputs(kind), drift.build_inputs(kind)
    used.update(batch(2300))
    used.reset()
    used.update(batch(10))
    fresh.update(batch(10))
    coins = {"n_coins"}  # those that were tossed are gone
    states = [{k: v for k, v in one.state().items() if k not in coins} for one in (used, fresh)]
    assert digest(states[0]) == digest(states[1])
