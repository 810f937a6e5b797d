"""Policies side by side: in simulation against brute force, on logs against the estimators themselves."""

import csv
import gzip
import json
import math
from pathlib import Path

import pytest

from penstock import bandit_config, bandit_evaluate, cli
from penstock.errors import BadRecord, ConfigError, DataError

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
SIMULATED = {
    "task": "bandit",
    "source": {"kind": "as_bandit", "of": {"kind": "river", "dataset": "ImageSegments"}},
    "policies": {"linucb": {"kind": "linucb", "alpha": 0.3}, "blind": {"kind": "beta_thompson"}},
}


def on_log(path, **changes):
    source = {"kind": "log", "path": str(path), **changes.pop("source", {})}
    return bandit_config.parse(
        {"task": "bandit", "source": source, "policies": {"greedy": {"kind": "greedy"}}, **changes}
    )


def write(path, n=400):
    """Uniform decisions between two arms of which one earns 1."""
    with path.open("w") as file:
        for i in range(n):
            action = ["news", "sport"][i % 2]
            record = {
                "id": str(i),
                "context": {"hour": i % 24},
                "actions": ["news", "sport"],
                "action": action,
                "propensity": 0.5,
                "reward": float(action == "news"),
            }
            file.write(json.dumps(record) + "\n")


def test_simulation_knows_what_is_best():
    result = bandit_evaluate.evaluate(bandit_config.parse(SIMULATED), limit=1000)
    assert result.events == 1000
    assert result.policies["linucb"]["reward"] > 0.5 > result.policies["blind"]["reward"]
    for scores in (*result.policies.values(), *result.baselines.values()):
        assert scores["regret"] == pytest.approx(1000 * (1 - scores["reward"]))
    again = bandit_evaluate.evaluate(bandit_config.parse(SIMULATED), limit=1000)
    assert again.digest == result.digest
    assert again.policies == result.policies


def test_log_is_evaluated_off_policy(tmp_path):
    write(tmp_path / "log.jsonl")
    result = bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl", max_weight=2.0))
    assert result.baselines["logged"]["reward"] == 0.5
    assert result.baselines["uniform"]["ips"] == pytest.approx(0.5)
    assert result.policies["greedy"]["dr"] > 0.8
    assert result.policies["greedy"]["dr_lower"] > 0.5
    assert result.policies["greedy"]["max_weight"] <= 2.0


def test_how_much_is_read_at_a_time_changes_nothing(tmp_path):
    for name in ("decisions", "rewards"):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for i in range(300):
                record = {"id": str(i), "time": float(i)}
                if name == "decisions":
                    made = {"actions": ["a", "b"], "action": "ab"[i % 2], "propensity": 0.5}
                    record |= {"context": {"hour": i % 24}, **made}
                else:
                    record["reward"] = float(i % 2)
                file.write(json.dumps(record) + "\n")
    given = {**SIMULATED, "source": {"kind": "feedback", "path": str(tmp_path)}, "rewards": {"window_s": 5}}
    whole, parts = (bandit_evaluate.evaluate(bandit_config.parse(given), batch=batch) for batch in (4096, 7))
    assert (parts.digest, parts.policies) == (whole.digest, whole.policies)


def test_command_line_prints_the_same_keys_as_for_learners(tmp_path, capsys):
    write(tmp_path / "log.jsonl")
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({**SIMULATED, "max_weight": 2.0}))
    assert cli.main(["evaluate", str(path), "--data", str(tmp_path / "log.jsonl"), "--json", "-q"]) == 2
    assert "the events of an as_bandit source are" in capsys.readouterr().err
    source = {"kind": "log", "path": "elsewhere.jsonl"}
    path.write_text(json.dumps({**SIMULATED, "source": source, "max_weight": 2.0}))
    assert cli.main(["evaluate", str(path), "--data", str(tmp_path / "log.jsonl"), "--json", "-q"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["events"] == 400
    assert {"events", "seconds", "digest", "learners", "baselines", "drifts", "promotions"} <= printed.keys()
    assert printed["learners"].keys() == {"linucb", "blind"}


def test_daemon_learns_from_feedback_only(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(SIMULATED))
    assert cli.main(["run", str(path)]) == 2
    assert "the daemon of a bandit pipeline reads `feedback`" in capsys.readouterr().err


def test_missing_support_is_said_instead_of_a_number(tmp_path):
    """A log that never plays one arm cannot say what playing it would earn."""
    with (tmp_path / "log.jsonl").open("w") as file:
        for _ in range(2000):
            record = {"actions": ["a", "b"], "action": "a", "propensity": 1.0, "reward": 1.0}
            file.write(json.dumps(record) + "\n")
    result = bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl"))
    assert "uniform" in result.reasons
    assert "ips" not in result.baselines["uniform"]


def test_bad_records_are_counted_and_an_empty_log_is_an_error(tmp_path):
    write(tmp_path / "log.jsonl")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"actions": ["a"], "action": "a", "propensity": 0, "reward": 1}\nnot JSON\n')
    assert bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl")).rejected == 2
    (tmp_path / "empty.jsonl").write_text("not JSON\n")
    with pytest.raises(DataError, match="no decision could be used"):
        bandit_evaluate.evaluate(on_log(tmp_path / "empty.jsonl"))


def test_bad_records_are_explained(tmp_path, capsys):
    write(tmp_path / "log.jsonl", 15)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write("not JSON\n" * 10 + '{"actions": ["a"], "action": "a", "propensity": 0, "reward": 1}\n')
    path = tmp_path / "p.yaml"
    given = {**SIMULATED, "source": {"kind": "log", "path": str(tmp_path / "log.jsonl")}}
    path.write_text(json.dumps({**given, "dead_letters": {"min_bad": 11}}))
    assert cli.main(["evaluate", str(path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[9].startswith("    left out expected JSON")
    assert lines[9].endswith("log.jsonl:25")
    assert not lines[10].startswith("    left out")  # the first ten
    assert "15 decisions" in lines[-1]
    assert "11 bad records left out" in lines[-1]
    path.write_text(json.dumps(given))
    assert cli.main(["evaluate", str(path), "-q"]) == 3
    assert capsys.readouterr().err == (
        "penstock: error: 11 of 26 records cannot be used, which is more than dead_letters.max_bad_rate 0.01 "
        "allows; the last one: expected a number in (0, 1], got 0 - at `$.propensity`, "
        f"{tmp_path / 'log.jsonl'}:26\n"
    )


def test_a_log_without_a_good_record_quotes_the_last(tmp_path):
    (tmp_path / "log.jsonl").write_text("\n" + '{"actions": []}\n' * 2)
    with pytest.raises(DataError) as caught:
        bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl"))
    assert str(caught.value) == (
        f"{tmp_path / 'log.jsonl'}: no decision could be used, 2 records are bad; the last one: "
        f"expected at least one action, got [] - at `$.actions`, {tmp_path / 'log.jsonl'}:3"
    )


def test_a_wrong_reward_is_found_on_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, 3000)
    lines = path.read_text().splitlines()
    lines[2500] = lines[2500].replace('"reward": 1.0', '"reward": 5')
    path.write_text("no record\n\n" + "\n".join(lines))
    with pytest.raises(BadRecord) as caught:
        bandit_evaluate.evaluate(on_log(path))
    assert str(caught.value) == f"expected a reward in [0.0, 1.0], got 5.0 - at `$.reward`, {path}:2503"


def test_a_wrong_reward_is_found_by_its_decision(tmp_path):
    with (tmp_path / "decisions.jsonl").open("w") as file:
        for i in range(20):
            record = {"context": {"x": 1e30 if i == 3 else 1}, "actions": ["a", "b"], "action": "a"}
            file.write(json.dumps({"id": f"visit-{i}", "time": i, "propensity": 0.5, **record}) + "\n")
    (tmp_path / "rewards.jsonl").write_text('{"id": "visit-7", "time": 7.5, "reward": 5}\n')
    pipeline = bandit_config.parse(
        {
            "task": "bandit",
            "source": {"kind": "feedback", "path": str(tmp_path)},
            "policies": {"a": {"kind": "ucb1"}},
        }
    )
    with pytest.raises(BadRecord) as caught:
        bandit_evaluate.evaluate(pipeline)
    assert str(caught.value) == "expected a reward in [0.0, 1.0], got 5.0 - at `$.reward`, decision visit-7"


def test_a_missing_interval_has_a_reason(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, 40)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"reward"', '"weight": 2, "reward"'), *lines[1:]]))
    result = bandit_evaluate.evaluate(on_log(path, estimators=["dr", "clipped_ips", "snips"]))
    reason = "not all events count alike, and their intervals are for those"
    assert result.as_json()["no_interval"]["greedy"]["dr"] == reason
    table = list(result.table())
    assert table[-2:] == [
        f"no interval for dr, clipped_ips: {reason}",
        "no interval for snips: SNIPS is not a martingale: take the interval of ips or dr",
    ]


def test_headings_keep_apart(tmp_path):
    write(tmp_path / "log.jsonl", 40)
    result = bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl", estimators=["clipped_ips", "switch_dr"]))
    heading, *_ = result.table()
    assert heading.split()[:3] == ["clipped_ips", "clipped_ips_lower", "clipped_ips_upper"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {}}, "`policies`"),
        (
            {"policies": {"a": {"kind": "squarecb", "learner": {"kind": "sgd", "learning_rat": 1}}}},
            "`policies.a.learner.learning_rat`: unknown key (did you mean `learning_rate`?)",
        ),
        (
            {"policies": {"a": {"kind": "bagging", "learner": {"kind": "sgdx"}}}},
            "`policies.a.learner`: no learner is called 'sgdx' (did you mean 'sgd'?)",
        ),
        (
            {"policies": {"a": {"kind": "greedy", "learner": {"kind": "sgd", "learning_rate": -1}}}},
            "`policies.a.learner.learning_rate`: input should be greater than 0, got -1",
        ),
        (
            {"policies": {"a": {"kind": "greedy", "loss": "logistic", "cost_type": "ips"}}},
            "`policies.a.loss`: 'logistic' learns rewards as they are, not cost_type 'ips'",
        ),
        (
            {"policies": {"a": {"kind": "regcb", "learner": {"kind": "prior"}}}},
            "`policies.a.learner`: regcb needs an 'sgd'",
        ),
        ({"rewards": {"window_s": math.inf}}, "`rewards.window_s`: input should be a finite number, got inf"),
        ({"rewards": {"lateness_s": math.inf}}, "`rewards.lateness_s`: input should be a finite number"),
        ({"rewards": {"default_reward": math.nan}}, "`rewards.default_reward`: input should be a finite"),
        ({"max_weight": math.inf}, "`max_weight`: input should be a finite number, got inf"),
        ({"source": 5}, "`source`: expected a mapping, got 5"),
        ({"source": {"path": "x"}}, "`source.kind`: missing"),
        (
            {"source": {"kind": "logs", "path": "x"}},
            "`source.kind`: expected one of as_bandit, log, feedback, kafka, got 'logs'",
        ),
        ({"source": {"kind": "log"}}, "`source.path`: missing"),
        (
            {"source": {"kind": "log", "path": "x", "optoins": {}}},
            "`source.optoins`: unknown key (did you mean `options`?)",
        ),
        ({"source": {"kind": "log", "path": "x", "format": "table"}}, "`source.options.actions`: missing"),
        (
            {"source": {"kind": "log", "path": "x", "format": "table", "options": {"actions": 5}}},
            "`source.options.actions`: expected different actions, at least one, got 5",
        ),
        (
            {"source": {"kind": "log", "path": "x", "format": "dsjson", "options": {"arms": "x"}}},
            "`source.options.arms`: unknown key (did you mean `arm`?)",
        ),
        (
            {"source": {"kind": "log", "path": "x", "options": {"pipeline": "y"}}},
            "`source.options.pipeline`: unknown key (known are none)",
        ),
        (
            {"policies": {"a": {"kind": "vw", "args": "--cb_explore_adf --foo"}}},
            "`policies.a`: vw: --cb_explore_adf --foo: unrecognised option '--foo'",
        ),
        (
            {"source": {"kind": "log", "path": "x"}, "estimators": ["replay"]},
            "`max_weight`: missing (replay accepts decisions in proportion to it)",
        ),
        ({"policies": {"uniform": {"kind": "greedy"}}}, "name of a baseline"),
        (
            {"policies": {"a": {"kind": "squarebc"}}},
            "no policy is called 'squarebc' (did you mean 'squarecb'?)",
        ),
        ({"estimators": ["dm", "guess"]}, "`estimators` names 'guess'"),
        ({"reward_range": [1, 0]}, "`reward_range`: expected the lower bound first"),
        ({"reward_range": [2, 3]}, "`reward_range`: expected one that holds 0 and 1, which is what"),
        ({"estimators": ["dr", "dr"]}, "`estimators`: expected different ones, got ['dr', 'dr']"),
        ({"source": {"kind": "as_bandit"}}, "missing"),
        ({"learners": {}}, "`learners`: unknown key"),
        ({"drift": [{"kind": "adwin"}]}, "`drift`: detectors watch learners, not policies"),
        ({"retired": {"sky": 5.0}}, "`retired`: decisions of source 'as_bandit' have no time"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError) as caught:
        bandit_config.parse({**SIMULATED, **changes})
    assert message in str(caught.value)


def test_shipped_configurations():
    from penstock import config

    for path in (ROOT / "configs" / "bandits").glob("*.yaml"):
        assert bandit_config.parse(config.read(path)).name == path.stem


def test_open_bandit_sample():
    """What chance earns, estimated from the log of chance, is what it did earn."""
    path = DATA / "obd_random_men.csv.gz"
    if not path.exists():
        pytest.skip("needs shared/data")
    with gzip.open(path, "rt") as file:
        clicks = [float(row["click"]) for row in csv.DictReader(file)]
    pipeline = on_log(
        path,
        source={
            "format": "table",
            "options": {
                "actions": list(range(34)),
                "action": "item_id",
                "reward": "click",
                "propensity": "propensity_score",
                "ignore": ["row", "timestamp"],
            },
        },
        max_weight=34.5,
        policies={"blind": {"kind": "beta_thompson"}},
    )
    result = bandit_evaluate.evaluate(pipeline)
    mean = sum(clicks) / len(clicks)
    assert result.baselines["logged"]["reward"] == pytest.approx(mean)
    uniform = result.baselines["uniform"]
    assert uniform["ips"] == pytest.approx(mean, rel=1e-3)
    assert uniform["ips_lower"] < mean < uniform["ips_upper"]


def test_report_of_a_simulation_agrees_with_its_scores():
    given = {**SIMULATED, "source": {**SIMULATED["source"], "drift_at": 300}}
    result = bandit_evaluate.evaluate(bandit_config.parse(given), limit=1000)
    report = result.as_report()
    found = report["simulated"]
    assert report["log"] is None
    assert [mark["event"] for mark in report["marks"]] == [300]
    assert len(found["events"]) == 200
    assert found["events"][-1] == found["stretches"][-1] == 1000
    assert found["curves"].keys() == {"linucb", "blind", "uniform", "best_fixed"}
    for name, curves in found["curves"].items():
        scores = report["table"][name]
        assert curves["reward"]["average"][-1] == pytest.approx(scores["reward"])
        assert curves["reward"]["window"][-1] == pytest.approx(scores["window_reward"])
        assert curves["total_reward"]["average"][-1] == pytest.approx(1000 * scores["reward"])
        assert curves["total_reward"]["window"][-1] == pytest.approx(100 * scores["window_reward"])
        assert curves["regret"]["average"][-1] == pytest.approx(scores["regret"])
        assert curves["regret"]["window"][-1] == pytest.approx(
            curves["regret"]["average"][-1] - curves["regret"]["average"][179]
        )
    assert found["shares"].keys() == {"linucb", "blind"}
    assert all(sum(row) == pytest.approx(1.0) for rows in found["shares"].values() for row in rows)  # 7 kinds
    json.dumps(report)


def test_report_of_few_events_has_a_point_for_each():
    result = bandit_evaluate.evaluate(bandit_config.parse(SIMULATED), limit=7)
    found = result.as_report()["simulated"]
    assert found["events"] == found["stretches"] == [1, 2, 3, 4, 5, 6, 7]
    totals = found["curves"]["blind"]["total_reward"]["average"]
    assert all(step == round(step) for step in totals)
    means = [total / event for total, event in zip(totals, found["events"], strict=True)]
    assert found["curves"]["blind"]["reward"]["average"] == pytest.approx(means)


def test_report_of_a_log_counts_what_was_logged(tmp_path):
    propensities = [0.5, 0.5, 0.1, 1.0, 0.05]
    with (tmp_path / "log.jsonl").open("w") as file:
        for i, propensity in enumerate(propensities):
            record = {
                "actions": [f"a{j:02d}" for j in range(12)],
                "action": f"a{i % 4:02d}",
                "propensity": propensity,
                "reward": 1.0,
            }
            file.write(json.dumps(record) + "\n")
    report = bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl", max_weight=20.0)).as_report()
    found = report["log"]
    assert found["actions"] == [("a00", 2), ("a01", 1), ("a02", 1), ("a03", 1)]
    assert found["other_actions"] == 0
    assert sum(count for _, _, count in found["propensities"]) == len(propensities)
    assert found["propensities"][-1][1] == 1.0
    ends = [low for low, _, _ in found["propensities"][1:]]
    assert ends == [high for _, high, _ in found["propensities"][:-1]]  # no gaps
    for propensity in propensities:
        assert any(
            count and low * (1 - 1e-9) <= propensity <= high for low, high, count in found["propensities"]
        )
    assert report["simulated"] is None


@pytest.mark.parametrize("kind", ["simulated", "log"])
def test_command_line_writes_a_page(tmp_path, capsys, kind):
    write(tmp_path / "log.jsonl")
    source = (
        SIMULATED["source"] if kind == "simulated" else {"kind": "log", "path": str(tmp_path / "log.jsonl")}
    )
    (tmp_path / "p.yaml").write_text(json.dumps({**SIMULATED, "source": source, "max_weight": 2.0}))
    given = ["evaluate", str(tmp_path / "p.yaml"), "--limit", "300"]
    assert cli.main([*given, "--report", str(tmp_path / "out.html")]) == 0
    page = (tmp_path / "out.html").read_text("utf-8")
    assert "What each policy earned" in page if kind == "simulated" else "What each policy would earn" in page
    assert f"report: {tmp_path / 'out.html'}" in capsys.readouterr().err
    assert cli.main([*given, "--report", str(tmp_path / "no" / "out.html")]) == 2
    assert "there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(("n_arms", "max_weight"), [(12, 20.0), (2, None), (2, 20.0)])
def test_tiny_propensities_end_in_a_refusal_or_in_no_knowledge(tmp_path, n_arms, max_weight):
    with (tmp_path / "log.jsonl").open("w") as file:
        for _ in range(5):
            actions = [str(arm) for arm in range(n_arms)]
            record = {"actions": actions, "action": "0", "propensity": 1e-9, "reward": 1.0}
            file.write(json.dumps(record) + "\n")
    result = bandit_evaluate.evaluate(on_log(tmp_path / "log.jsonl", max_weight=max_weight))
    if max_weight is None:
        assert (result.policies["greedy"]["ips_lower"], result.policies["greedy"]["ips_upper"]) == (0.0, 1.0)
    else:
        assert "would need weights above 20" in result.reasons["greedy"]
