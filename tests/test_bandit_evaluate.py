"""Policies side by side: in simulation against brute force, on logs against the estimators themselves."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from penstock import bandit_config, bandit_evaluate, cli
from penstock.errors import ConfigError, DataError

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


def test_command_line_prints_the_same_keys_as_for_learners(tmp_path, capsys):
    write(tmp_path / "log.jsonl")
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({**SIMULATED, "max_weight": 2.0}))
    assert cli.main(["evaluate", str(path), "--data", str(tmp_path / "log.jsonl"), "--json", "-q"]) == 2
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {}}, "`policies`"),
        ({"policies": {"uniform": {"kind": "greedy"}}}, "name of a baseline"),
        (
            {"policies": {"a": {"kind": "squarebc"}}},
            "no policy is called 'squarebc' (did you mean 'squarecb'?)",
        ),
        ({"estimators": ["dm", "guess"]}, "`estimators` names 'guess'"),
        ({"reward_range": [1, 0]}, "`reward_range`: expected the lower bound first"),
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
                "actions": [str(i) for i in range(34)],
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
