"""The offline front: its scores are those of the learners run by themselves."""

import csv
import gzip
import io
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from river import datasets, linear_model, metrics, preprocessing
from river import evaluate as river_evaluate
from vowpalwabbit import Workspace

from penstock import config
from penstock.errors import DataError
from penstock.evaluate import evaluate, results_table

ROOT = Path(__file__).parents[1]
ELEC2 = ROOT.parent / "shared" / "data" / "elec2.csv.gz"

DRIFTING = {
    "source": {"kind": "river", "dataset": "Phishing", "repeat": 3, "inject": {"at": 2000, "flip": True}},
    "learners": {"sgd": {"kind": "sgd", "bits": 10}, "coin": {"kind": "sgd", "bits": 10, "update": "coin"}},
    "drift": [{"kind": "adwin", "direction": "up", "react": "warm_restart"}],
    "replay": {"kind": "reservoir", "size": 200},
    "shadow": {"refresh_every": 500, "retry_after": 200},
}


def rows(labels, **changes):
    given = {"kind": "memory", "rows": [{"a": i % 3} for i in range(len(labels))], "labels": labels}
    return config.parse({"source": given, **changes})


def table_of(pipeline, **options):
    table = io.StringIO()
    result = evaluate(pipeline, table=table, **options)
    return result, table.getvalue()


def test_table():
    _, text = table_of(rows([1, 1, 0, 1, 1]), progress=2.0)
    lines = text.splitlines()
    assert lines[:4] == [
        "logloss, average since start and since the last line",
        "",
        "      events               sgd          majority         no_change",
        "               average   since   average   since   average   since",
    ]
    assert [line[:12].strip() for line in lines[4:]] == ["1", "2", "4", "5"]
    average, since = zip(*(map(float, line[12:30].split()) for line in lines[4:]), strict=True)
    for (n, before), (m, after), lately in zip(
        [(0, 0.0), (1, average[0]), (2, average[1]), (4, average[2])],
        zip((1, 2, 4, 5), average, strict=True),
        since,
        strict=True,
    ):
        assert lately == pytest.approx((after * m - before * n) / (m - n), abs=1e-3)


def test_table_of_an_integer_step_ends_where_the_stream_does():
    _, text = table_of(rows([1, 0] * 5), progress=4)
    assert [line[:12].strip() for line in text.splitlines()[4:]] == ["4", "8", "10"]


def test_table_keeps_its_columns_whatever_the_numbers():
    _, text = table_of(rows([1e17, -3.0, 1e9, 12345.678] * 3, task="regression"))
    widths = {len(line) for line in text.splitlines()[2:]}
    assert len(widths) == 1


def test_results_mark_the_best_learner_of_each_column():
    pipeline = rows([1.0, 0.0] * 50, learners={"a": {"kind": "sgd"}, "b": {"kind": "sgd", "update": "coin"}})
    header, first, second, rule, *baselines = results_table(evaluate(pipeline))
    assert header.split()[0] == "logloss"
    assert ("*" in first.split()[1]) != ("*" in second.split()[1])
    assert set(rule) == {"-"}
    assert not any("*" in line for line in baselines)


def test_neither_results_nor_table_nor_curves_depend_on_batches():
    pipeline = config.parse(DRIFTING)
    seen = set()
    for batch in (1, 7, 256, 10_000):
        result, text = table_of(pipeline, batch=batch, curves=True)
        assert {notice.what for notice in result.notices} >= {"drift", "opened", "promoted"}
        assert result.curves is not None
        report = result.as_report()
        report["seconds"] = 0.0
        seen.add((text, repr({**result.as_json(), "seconds": 0}), repr(report)))
    assert len(seen) == 1
    assert evaluate(pipeline).digest == result.digest


def test_curves_end_where_the_scores_do_and_stay_short():
    pipeline = config.parse({**DRIFTING, "tick": 4})
    result = evaluate(pipeline, curves=True)
    report = result.as_report()
    events = report["curves"]["events"]
    assert len(events) <= 400
    assert events == sorted(set(events))
    assert len({b - a for a, b in itertools.pairwise(events)}) == 1
    for name, curves in report["curves"]["series"].items():
        for metric, curve in curves.items():
            assert len(curve["average"]) == len(curve["window"]) == len(events), (name, metric)
    for trial in report["gate"]:
        assert trial["events"] == sorted(trial["events"])
        if trial["outcome"] == "promoted":
            assert trial["log_e"][-1] >= trial["threshold"]


def test_models_are_let_go():
    """A long evaluation promotes thousands: their weights must not add up."""
    result = evaluate(config.parse(DRIFTING))
    promoted = [notice for notice in result.notices if notice.what == "promoted"]
    assert len(promoted) > 3
    assert all(notice.model is None for notice in result.notices)


def test_limit():
    assert evaluate(config.parse(DRIFTING), limit=300).events == 300
    assert (
        evaluate(config.parse(DRIFTING), limit=300).digest
        == evaluate(config.parse(DRIFTING), limit=300, batch=77).digest
    )


def test_nothing_to_learn():
    with pytest.raises(
        DataError, match=r"no event could be learned: 2 records, all of them bad; the last one"
    ):
        evaluate(rows([7, 8]))


def test_scores_are_river_s_own():
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    both = metrics.LogLoss() + metrics.Accuracy()
    river_evaluate.progressive_val_score(datasets.Phishing(), model, both)
    pipeline = config.parse(
        {
            "source": {"kind": "river", "dataset": "Phishing"},
            "learners": {
                "scaled": {
                    "kind": "river",
                    "model": ["preprocessing.StandardScaler", "linear_model.LogisticRegression"],
                }
            },
        }
    )
    scores = evaluate(pipeline).learners["scaled"]
    logloss, accuracy = both.get()
    assert scores["logloss"] == pytest.approx(logloss, abs=1e-12)
    # Of 0.5, before anything was learned, River takes the first class and we take 1.
    assert scores["accuracy"] == pytest.approx(accuracy, abs=1.01 / 1250)


def vw_alone(args, lines, labels):
    """Log loss and accuracy of VW run by itself, from the scores that it gives while it learns."""
    vw = Workspace(f"{args} --quiet")
    losses, hits = [], []
    for line, label in zip(lines, labels, strict=True):
        example = vw.parse(line)
        vw.learn(example)
        score = example.get_simplelabel_prediction()  # made before the label was learned
        vw.finish_example(example)
        losses.append(math.log1p(math.exp(-score if label else score)))
        hits.append((score >= 0) == label)
    vw.finish()
    return float(np.mean(losses)), float(np.mean(hits))


def elec2_lines(n=None):
    with gzip.open(ELEC2, "rt") as file:
        records = list(csv.DictReader(file))[:n]
    labels = [record.pop("class") == "UP" for record in records]
    lines = [
        f"{1 if label else -1} | " + " ".join(f"{name}:{value}" for name, value in record.items())
        for record, label in zip(records, labels, strict=True)
    ]
    return lines, labels


VW = {"vw": "--loss_function logistic", "vw_pairs": "--loss_function logistic -q :: -l 2 --power_t 0.1"}


@pytest.mark.skipif(not ELEC2.exists(), reason="Elec2 is not on this machine")
def test_elec2_rows_of_vw_are_vw_s_own():
    pipeline = config.load(ROOT / "configs" / "elec2.yaml", data=str(ELEC2)).restricted([*VW])
    result = evaluate(pipeline)
    assert result.events == 45_312
    scores = result.learners
    assert scores["vw"]["logloss"] == pytest.approx(0.55146, abs=1e-5)
    assert scores["vw"]["accuracy"] == pytest.approx(0.7307, abs=1e-4)
    assert scores["vw_pairs"]["logloss"] == pytest.approx(0.29728, abs=1e-5)
    assert scores["vw_pairs"]["accuracy"] == pytest.approx(0.88347, abs=1e-4)
    assert result.baselines["no_change"]["accuracy"] == pytest.approx(0.853, abs=1e-3)
    lines, labels = elec2_lines()
    for name, args in VW.items():
        logloss, accuracy = vw_alone(args, lines, labels)
        assert scores[name]["logloss"] == pytest.approx(logloss, abs=1e-6), name
        assert scores[name]["accuracy"] == pytest.approx(accuracy, abs=1e-6), name


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_configuration_says_at_its_top_works(path):
    """The commands in its comments name the file itself, or one beside it."""
    commands = re.findall(r"^#\s+penstock (\w+) (?:\S+ --to )?(\S+)", path.read_text(), re.MULTILINE)
    assert commands
    for command, named in commands:
        assert command in ("evaluate", "run", "produce")
        assert (ROOT / named).samefile(path)


@pytest.mark.parametrize(
    ("dataset", "params"),
    [
        ("TrumpApproval", {}),
        ("ChickWeights", {}),
        ("synth.FriedmanDrift", {"seed": 1, "position": [600, 1200, 2000]}),
    ],
)
def test_regression_through_the_whole_house(dataset, params):
    """Drift, replay and the gate on numbers: the same whatever the batches, and strict JSON."""
    source = {"kind": "river", "dataset": dataset, "limit": 3000}
    if params:
        source["params"] = params
    pipeline = config.parse({**DRIFTING, "task": "regression", "source": source})
    results = [evaluate(pipeline, batch=batch) for batch in (1000, 33)]
    assert len({result.digest for result in results}) == 1
    whole = results[0]
    assert whole.as_json()["learners"]["sgd"]["mae"] > 0
    for notice in whole.notices:
        assert all(math.isfinite(v) for v in notice.evidence.values() if isinstance(v, float)), notice
