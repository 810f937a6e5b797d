"""The section on what is still known of the past, and where its numbers come from."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from penstock.config import parse
from penstock.evaluate import evaluate
from penstock.report import render

HOSTILE = "</script><b>'\"&\u202e"


def stream(path, n=2048):
    """Two kinds of events in turn, which want opposite weights."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for i, x in enumerate(rng.normal(size=n).tolist()):
            turned = (i // 512) % 2 == 1
            file.write(json.dumps({"features": {"x": x}, "y": int((x > 0) != turned)}) + "\n")


def evaluation(tmp_path, **rules):
    stream(tmp_path / "events.jsonl")
    pipeline = parse(
        {
            "tick": 64,
            "source": {"kind": "file", "path": str(tmp_path / "events.jsonl"), "label": "y"},
            "learners": {"sgd": {"kind": "sgd"}, "other": {"kind": "sgd", "half_life": 100}},
            **rules,
        }
    )
    return evaluate(pipeline, curves=True)


def parsed(page):
    """The page as XML; the contents of style and scripts, which are not markup, taken out."""
    page = re.sub(r"(<(?:style|script)\b[^>]*>).*?(</(?:style|script)>)", r"\1\2", page, flags=re.DOTALL)
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


ANCHORS = {"strata": 5, "size": 50, "every": 512}


def test_the_numbers_are_those_of_the_engine(tmp_path):
    done = evaluation(tmp_path, anchors=ANCHORS)
    memory = {one["learner"]: one for one in done.as_report()["memory"]}
    assert [*memory] == ["sgd", "other"]
    for name, found in done.forgetting.items():
        one = memory[name]
        assert one["average_forgetting"] == found["average_forgetting"] > 0.3
        assert one["backward_transfer"] == found["backward_transfer"]
        for stratum, known in zip(one["strata"], found["strata"], strict=True):
            assert stratum["first"] == known["from"]
            assert stratum["events"] == list(range(known["from"] + 512, 2049, 512))
            assert stratum["scores"][0] == known["first"]
            assert stratum["scores"][-1] == known["now"]
            assert max(stratum["scores"]) == known["best"]


def test_the_page_shows_them(tmp_path):
    done = evaluation(tmp_path, anchors=ANCHORS)
    page = render(done.as_report())
    root = parsed(page)
    charts = [svg for svg in root.iter("svg") if (svg.get("aria-labelledby") or "").startswith("memory-")]
    assert [
        len([path for path in chart.iter("path") if "line" in path.get("class")]) for chart in charts
    ] == [3, 3]
    strengths = [float(path.get("opacity")) for path in charts[0].iter("path")]
    assert strengths == sorted(strengths, reverse=True)
    table = next(table for table in root.iter("table") if "average forgetting" in "".join(table.itertext()))
    rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    assert [cell.partition(":")[2] for cell in rows[0][3:]] == [
        f" from event {n}" for n in ("0", "512", "1,024")
    ]
    shown = done.forgetting["sgd"]["strata"][0]
    assert rows[1][3] == f"{shown['first']:#.4g} → {shown['now']:#.4g}"
    assert "backward transfer" in page
    assert page == render(done.as_report())


def test_without_anchors_there_is_no_such_section(tmp_path):
    page = render(evaluation(tmp_path).as_report())
    assert "memory-title" not in page
    assert not re.search("stratum", page)


@pytest.mark.parametrize("gap", [None, float("nan"), float("inf")])
def test_gaps_and_names_of_any_kind_can_be_shown(tmp_path, gap):
    report = evaluation(tmp_path, anchors=ANCHORS).as_report()
    report["memory"][0]["strata"][0]["scores"][:] = [gap] * 4
    report["memory"][1]["strata"][1]["scores"].clear()
    report["memory"][1]["learner"] = HOSTILE
    page = render(report)
    assert HOSTILE not in page
    parsed(page)
