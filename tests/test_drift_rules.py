"""What a detector can be put on, and by how often it may ring."""

import json

import numpy as np
import pytest

from penstock import config
from penstock.cli import main
from penstock.engine import Engine
from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch

CHANGE = 2000


def rows(n=4000, seed=0):
    """A number that jumps at CHANGE, one that is now and then missing, one below a namespace, and text."""
    rng = np.random.default_rng(seed)
    jump = np.where(np.arange(n) < CHANGE, 0.0, 3.0)
    return [
        {
            "calm": float(calm),
            "jumps": float(calm + jumps),
            "user": {"age": float(age + jumps)},
            "holes": None if i % 3 else float(age + jumps),
            "text": "a",
        }
        for i, (calm, age, jumps) in enumerate(zip(rng.normal(size=n), rng.normal(size=n), jump, strict=True))
    ]


def batch(n=4000):
    labels = (np.random.default_rng(1).random(n) < np.where(np.arange(n) < CHANGE, 0.2, 0.8)).astype(float)
    return Batch.from_rows(rows(n), labels)


def pipeline(*rules, task="binary", **more):
    source = {"kind": "file", "path": "x.csv", "label": "y"}
    return config.parse({"source": source, "task": task, "drift": list(rules), **more})


def alarms(engine, events, sizes=(4000,)):
    notices, start, i = [], 0, 0
    while start < len(events):
        stop = start + sizes[i % len(sizes)]
        notices += engine.progress(events.slice(start, stop))
        start, i = stop, i + 1
    return [(n.learner, n.event, n.evidence["detector"]) for n in notices if n.what == "drift"]


@pytest.mark.parametrize("on", ["label", "feature:jumps", "feature:user.age", "feature:holes"])
def test_the_events_themselves_are_watched_once_for_all_learners(on):
    learners = {"a": {"kind": "sgd"}, "b": {"kind": "sgd"}}
    engine = Engine(pipeline({"kind": "cusum", "on": on}, learners=learners))
    found = [one for one in alarms(engine, batch()) if one[1] > CHANGE]
    assert {whose for whose, *_ in found} == {on}
    assert len({event for _, event, _ in found}) == len(found)
    assert CHANGE < found[0][1] < CHANGE + 150


@pytest.mark.parametrize(
    "on", ["feature:calm", "feature:text", "feature:no", "feature:user", "feature:calm.x"]
)
def test_what_is_calm_or_no_number_rings_nothing(on):
    assert alarms(Engine(pipeline({"kind": "cusum", "threshold": 40, "on": on})), batch()) == []


def test_predictions_are_watched_of_each_learner():
    engine = Engine(pipeline({"kind": "adwin", "on": "prediction"}))
    assert any(whose == "sgd" and event > CHANGE for whose, event, _ in alarms(engine, batch()))


def test_predictions_of_classes_are_watched_by_their_largest_probability():
    events = batch()
    events = events.with_labels(np.array([f"class {i % 3}" for i in range(len(events))], dtype=object))
    engine = Engine(pipeline({"kind": "adwin", "on": "prediction"}, task="multiclass"))
    alarms(engine, events)
    detector = engine._lanes["sgd"].watched[0].detector
    assert 1 / 3 - 0.01 <= detector.estimation <= 1.0


RULES = (
    {"kind": "cusum", "on": "feature:holes"},
    {"kind": "ddm", "on": "error", "false_alarm_every": 2000, "series": "own:500"},
    {"kind": "river", "model": "drift.PageHinkley", "params": {"threshold": 20}, "on": "label"},
)


def test_alarms_and_state_do_not_depend_on_batches():
    whole, parts = Engine(pipeline(*RULES)), Engine(pipeline(*RULES))
    assert alarms(whole, batch()) == alarms(parts, batch(), (7, 300, 1, 64))
    assert whole.digest() == parts.digest()


@pytest.mark.parametrize("at", [300, 700, CHANGE + 13])
def test_state_goes_on_as_if_nothing_had_happened(at):
    steady, first, resumed = (Engine(pipeline(*RULES)) for _ in range(3))
    alarms(steady, batch())
    alarms(first, batch().slice(0, at))
    resumed.restore(first.state())
    alarms(resumed, batch().slice(at, 4000))
    assert resumed.digest() == steady.digest()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "adwin", "on": "feature"}, "`drift[0].on`"),
        (
            {"kind": "adwin", "on": "feature:a", "react": "reset"},
            "only a loss or an error",
        ),
        ({"kind": "adwin", "on": "label", "learners": ["sgd"]}, "there is one detector on: label"),
        ({"kind": "eddm", "on": "loss"}, "`drift[0].on: loss`: eddm takes 0 and 1 only"),
        ({"kind": "ddm", "on": "feature:a"}, "`drift[0].on: feature:a`: ddm takes numbers in [0, 1] only"),
        (
            {"kind": "adwin", "delta": 0.1, "false_alarm_every": 1000},
            "delta: it follows",
        ),
        ({"kind": "adwin", "false_alarm_every": 1000, "series": "normal"}, "series: expected 'bernoulli:P'"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(rule, message):
    with pytest.raises(ConfigError) as caught:
        pipeline(rule)
    assert message in str(caught.value)


def test_a_feature_that_is_not_finite_is_said_to_be():
    events = Batch.from_rows([{"a": 1.0}, {"a": 2.0}], [0.0, 1.0])
    events.rows[1]["a"] = float("nan")
    engine = Engine(pipeline({"kind": "cusum", "on": "feature:a"}))
    with pytest.raises(PenstockError, match="detector `cusum` on feature:a failed on events 1 to 2"):
        engine.progress(events)


def test_calibrate_prints_threshold_run_length_and_delay(capsys):
    command = [
        "drift",
        "calibrate",
        "--detector",
        "cusum",
        "--series",
        "gaussian",
        "--false-alarm-every",
        "1000",
    ]
    assert main([*command, "--set", "mean=0", "--set", "sd=1", "--change", "1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["threshold"] == pytest.approx(9.9, abs=0.5)
    assert 500 < found["interval"][0] < found["run_length"] < found["interval"][1] < 2000
    assert 8 <= found["median_delay"] <= 20  # (9.9 + 0.25) / 0.75 a value
    assert main([*command, "--change", "1"]) == 0
    assert "cusum          gaussian" in capsys.readouterr().out


def test_calibrate_takes_the_detectors_of_a_configuration(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text(
        "source: {kind: file, path: x.csv, label: y}\n"
        "drift: [{kind: hddm_w, on: error, false_alarm_every: 500, series: 'bernoulli:0.1'}, {kind: adwin}]\n"
    )
    assert main(["drift", "calibrate", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["detector"], found["series"], found["median_delay"]) == ("hddm_w", "bernoulli:0.1", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a configuration or a --detector"),
        (["--detector", "adwni"], "did you mean 'adwin'"),
        (["--detector", "river"], "river has no threshold to choose"),
        (["--detector", "adwin", "--set", "delta=1"], "delta: it is what is looked for"),
        (["--detector", "adwin", "--set", "width=1"], "width"),
        (["--detector", "adwin", "--set", "delta"], "expected KEY=VALUE"),
        (["--detector", "adwin", "--change", "0.9"], "cannot change by 0.9"),
        (["--detector", "adwin", "--false-alarm-every", "5"], "expected at least 100"),
    ],
)
def test_calibrate_refuses_what_it_cannot_do(arguments, message, capsys):
    assert main(["drift", "calibrate", *arguments]) == 2
    assert message in capsys.readouterr().err
