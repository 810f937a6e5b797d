"""The benchmarks still run, and measure what they say; how fast anything is, is not tested."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks") / "results.md"
    command = [sys.executable, "-m", "benchmarks", "--events", "600", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return out.read_text()


def rows(results, title):
    """Cells of the table under a title, by the name of the case."""
    section = results.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    header, _, *cases = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {case[0]: dict(zip(header, case, strict=True)) for case in cases}


def test_every_question_is_answered(results):
    titles = re.findall(r"^## (.*)$", results, flags=re.MULTILINE)
    if titles[-1] == "Learning from Kafka":  # only where a broker can be had
        titles.pop()
    assert titles == [
        "Learning from dicts in memory",
        "Predicting one event",
        "Learning from files",
        "Guards on against bare learning",
        "Drift detection",
        "Metrics",
        "One bandit decision and one update, 10 arms",
        "One bandit decision and one update, 1,000 arms",
        "One bandit decision among 10,000 actions",
    ]
    assert re.search(r"^- machine: .+\n- versions: Penstock .+\n- size: 600 events", results, re.MULTILINE)


def test_ways_to_learn_the_same_end_in_the_same_loss(results):
    dicts, files = rows(results, "Learning from dicts in memory"), rows(results, "Learning from files")
    ways = [
        *(
            dicts[name]["log loss"]
            for name in dicts
            if name.startswith("Penstock") and dicts[name]["log loss"]
        ),
        *(files[f"Penstock evaluate, {name}"]["log loss"] for name in ("JSON lines", "CSV", "Parquet")),
        files["VW --json"]["log loss"],
    ]
    few = dicts["Penstock Engine, one event a batch"]["log loss"]
    assert len(ways) == 10
    assert set(ways) == {dicts["Penstock Engine"]["log loss"], few}


def test_text_is_the_same_to_vw_and_penstock(results):
    files = rows(results, "Learning from files")
    assert files["Penstock evaluate, VW text"]["log loss"] == files["VW text"]["log loss"]
    assert files["VW cache"]["log loss"] == files["VW text"]["log loss"]


def test_both_detectors_find_the_same_alarms(results):
    drift = rows(results, "Drift detection")
    assert drift["Penstock ADWIN"]["alarms"] == drift["River ADWIN"]["alarms"]


def test_metrics_agree_with_river(results):
    ours, theirs = rows(results, "Metrics").values()
    assert (ours["log loss"], ours["kappa"]) == (theirs["log loss"], theirs["kappa"])
