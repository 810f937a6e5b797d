"""The benchmarks still run, and measure what they say; how fast anything is, is not tested."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import growth, harness

pytestmark = pytest.mark.xdist_group("benchmarks")  # one run of them is enough

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
    titles.remove("Learning from Kafka")  # at the end where no broker can be had
    assert titles == [
        "Learning from dicts in memory",
        "Predicting one event",
        "Predicting while snapshots are swapped",
        "Learning from files",
        "Several learners at once",
        "Guards on against bare learning",
        "Drift detection",
        "Metrics",
        "One bandit decision and one update, 10 arms",
        "One bandit decision and one update, 1,000 arms",
        "One bandit decision among 10,000 actions",
        "Memory as the stream goes on",
        "Starting",
        "As the work grows",
    ]
    assert re.search(r"^- machine: .+\n- versions: Penstock .+\n- size: 600 events", results, re.MULTILINE)


def test_every_target_is_held_against_a_figure(results):
    lines = [line for line in results.splitlines() if "target" in line and line.startswith("- ")]
    assert all(re.search(r"\*\*[0-9.]+x\*\* .*(reached|\*\*missed\*\*)$", line) for line in lines)
    held = [
        ("Penstock evaluate, JSON lines", "VW --json", "target 2.5x"),
        ("Penstock evaluate, JSON lines", "VW --json", "CPU target 4x"),
        ("Penstock evaluate, CSV", "VW text", "target 3x"),
        ("Penstock evaluate, Parquet", "VW cache", "target 2x"),
        ("Penstock Engine", "River, pipeline", "target 25x"),
        ("Penstock Engine", "pyvw learn(str)", "target 10x"),
        ("Penstock Predictor.predict(dict)", "River, scaler and model", "target 5x"),
        ("Penstock Predictor.predict(dict)", "pyvw predict(str)", "target 25x"),
        ("four at once, JSON lines", "four runs, JSON lines", "target 2x"),
        ("Penstock LinUCB, in a log", "numpy, Sherman-Morrison", "target 6x"),
        ("Penstock LinUCB, in a log", "River LinUCBDisjoint", "target 75x"),
        ("p99", "during swaps", "target at most 1.2x"),
        ("Peak", "Penstock, all guards", "target at most 1.05x"),
    ]
    for words in held:
        assert any(all(word in line for word in words) for line in lines), words


def test_ways_to_learn_the_same_end_in_the_same_loss(results):
    dicts, files = rows(results, "Learning from dicts in memory"), rows(results, "Learning from files")
    ways = [dicts[name]["log loss"] for name in dicts if name.startswith("Penstock")]
    few = dicts["Penstock Engine, one event a batch"]["log loss"]
    assert len(ways) == 7
    assert set(ways) == {"", dicts["Penstock Engine"]["log loss"], few}
    kinds = ("Penstock evaluate, JSON lines", "Penstock evaluate, CSV", "Penstock evaluate, Parquet")
    assert {files[kind]["log loss"] for kind in kinds} == {files["VW --json"]["log loss"]}


def test_learners_together_end_where_they_end_alone(results):
    several = rows(results, "Several learners at once")
    assert (
        several["four at once, JSON lines"].items()
        >= {
            name: loss for name, loss in several["four runs, Parquet"].items() if name.endswith("log loss")
        }.items()
    )


def test_every_promotion_is_seen(results):
    swaps = rows(results, "Predicting while snapshots are swapped")["twenty swaps a second"]
    assert float(swaps["swaps a second"]) > 0


def test_memory_is_measured(results):
    memory = rows(results, "Memory as the stream goes on")
    assert len(memory) == 7
    assert all(float(row["peak MB"]) >= float(row["MB at the start"]) > 10 for row in memory.values())


def test_pictures_are_svg():
    grown = [
        growth.Growth("Bits of the table", "bits", "VW text", [18, 20], [1.0, 2.0], [2.0, 40.0]),
        growth.Growth("Events & more", "events", "VW --json", [10, 1000], [0.5, 0.5], [1.5, 1.5]),
    ]
    picture = ElementTree.fromstring(growth.draw(grown))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
    low, high = (float(y) for y in re.findall(r",([0-9.]+)", lines[1].attrib["points"]))
    assert high < low  # 40 is above 2
    assert growth.markdown(grown).count("| 18 ") == 1


def test_a_missed_target_says_what_it_would_have_left():
    ours, theirs, part = (
        harness.Measured(name, wall=[wall], cpu=[cpu])
        for name, wall, cpu in (("ours", 0.5, 0.9), ("theirs", 1.5, 2.4), ("decode", 0.4, 0.45))
    )
    line = harness.Ratio(ours, theirs, target=3.0, cpu_target=4.0, parts=[part]).line()
    assert "target 3x, reached; CPU target 4x, **missed**" in line
    assert line.endswith("\n  - the CPU target 4x leaves 0.600 µs of CPU time: *decode* 0.450")
    assert "\n" not in harness.Ratio(ours, theirs, target=3.0, parts=[part]).line()


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
