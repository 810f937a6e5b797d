"""The demonstration: what it promises is what happens."""

import re
import subprocess
import sys

import pytest

from penstock import Predictor, SnapshotStore, cli, config

pytestmark = pytest.mark.xdist_group("demo")  # told once


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("a place") / "demo é"
    found = subprocess.run(
        [sys.executable, "-m", "penstock", "demo", "--out", str(directory)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return directory, found


def test_where_nothing_is_written_no_place_is_taken(capsys):
    assert cli.main(["demo", "bandit", "--out", "somewhere"]) == 2
    assert "`demo bandit` writes nothing" in capsys.readouterr().err


def test_the_story(demo):
    _, found = demo
    assert (found.returncode, found.stderr) == (0, "")
    story = found.stdout
    for line in (
        r"^ +[0-9,]+  drift      adwin on the loss of \w+: ",
        r"^ +[0-9,]+  candidate  \w+ v\d+ enters the shadow",
        r"^ +[0-9,]+  promoted   \w+ v\d+ was better by 0\.\d+ on [0-9,]+ shadowed events$",
        r"ended in the same state, to the bit:$",
        r"swapped under it [1-9]\d* times\. Failed predictions: 0\.$",
    ):
        assert re.search(line, story, re.MULTILINE), line
    events = [int(n.replace(",", "")) for n in re.findall(r"^ +([0-9,]+)  drift ", story, re.MULTILINE)]
    assert any(12_500 < event < 14_000 for event in events)


def test_what_it_names_is_there(demo):
    directory, found = demo
    for name in ("report.html", "pipeline.yaml", "snapshots"):
        assert f"{directory / name}\n" in found.stdout
        assert (directory / name).exists()
    assert config.load(directory / "pipeline.yaml").name == "demo"
    store = SnapshotStore(directory / "snapshots")
    assert store.verify() == []
    serving = store.manifest("serving")
    assert serving["learner"] in ("sgd", "vw", "trees")
    if serving["learner"] != "trees":
        with Predictor(directory / "snapshots", follow=False) as predictor:
            assert 0.0 <= predictor.predict({"https": 1.0}) <= 1.0


def test_it_takes_no_directory_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    found = subprocess.run(
        [sys.executable, "-m", "penstock", "demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr == (
        f"penstock: error: {tmp_path} exists and was not made by a demo: name another with --out\n"
    )
    assert (tmp_path / "thesis.tex").exists()
