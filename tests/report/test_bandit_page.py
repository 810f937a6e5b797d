import copy
import json
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.report.bandit_page import render, write

HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "nul\x00", "x" * 300, ""]


def curves(level):
    return {
        "reward": {"average": [0.0, level], "window": [None, level]},
        "total_reward": {"average": [0.0, 100 * level], "window": [None, 10 * level]},
        "regret": {"average": [50.0, 100 * (1 - level)], "window": [10.0, 10 * (1 - level)]},
    }


def simulated():
    return {
        "name": "ads",
        "source": "clicks",
        "events": 100,
        "seconds": 0.5,
        "digest": "9f2c4be1a7d05b33",
        "version": "0.1.0",
        "rejected": 2,
        "baselines": ["uniform", "best_fixed"],
        "table": {
            "good": {"reward": 0.8, "window_reward": 0.7, "regret": 20.0},
            "bad": {"reward": 0.4, "window_reward": 0.9, "regret": 60.0},
            "uniform": {"reward": 0.2, "window_reward": 0.2, "regret": 80.0},
            "best_fixed": {"reward": 0.3, "window_reward": 0.3, "regret": 70.0},
        },
        "reasons": {},
        "marks": [{"event": 40, "text": "the rewards change"}],
        "simulated": {
            "events": [50, 100],
            "curves": {
                "good": curves(0.8),
                "bad": curves(0.4),
                "uniform": curves(0.2),
                "best_fixed": curves(0.3),
            },
            "window": 10,
            "actions": ["news", "sport"],
            "stretches": [50, 100],
            "shares": {"good": [[0.5, 0.25], [1.0, 0.0]], "bad": [[0.5, 0.5], [0.0, 1.0]]},
        },
        "log": None,
    }


def estimated(policy, value, lower, upper, estimator="dr", reason=""):
    return {
        "policy": policy,
        "estimator": estimator,
        "value": value,
        "lower": lower,
        "upper": upper,
        "reason": reason,
    }


def on_log():
    return simulated() | {
        "baselines": ["logged", "uniform"],
        "table": {
            "good": {"dr": 0.8, "dr_lower": 0.6, "dr_upper": 0.9, "ess": 40.0, "max_weight": 2.0},
            "bad": {"dr": 0.3, "dr_lower": 0.1, "dr_upper": 0.5, "ess": 12.0, "max_weight": 8.0},
            "lost": {"ess": 0.0},
            "logged": {"reward": 0.4},
            "uniform": {"dr": 0.4, "dr_lower": 0.3, "dr_upper": 0.5, "ess": 100.0, "max_weight": 1.0},
        },
        "reasons": {"lost": "the log never shows <sport>"},
        "marks": [],
        "simulated": None,
        "log": {
            "primary": "dr",
            "estimates": [
                estimated("good", 0.8, 0.6, 0.9),
                estimated("good", 0.7, None, None, "snips", "SNIPS has none"),
                estimated("bad", 0.3, 0.1, 0.5),
                estimated("lost", None, None, None, reason="the log never shows <sport>"),
                estimated("uniform", 0.4, 0.3, 0.5),
            ],
            "mean_reward": 0.4,
            "alpha": 0.05,
            "propensities": [(0.1, 0.2, 25), (0.2, 0.4, 0), (0.4, 1.0, 75)],
            "actions": [("news", 60), ("sport", 30)],
            "other_actions": 10,
        },
    }


BOTH = pytest.mark.parametrize("report", [simulated(), on_log()], ids=["simulated", "log"])


def parsed(page):
    """The page as XML; the contents of style and scripts, which are not markup, taken out."""
    page = re.sub(r"<(style|script)([^>]*)>.*?</\1>", r"<\1\2></\1>", page, flags=re.DOTALL)
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def section(page, anchor):
    return next(s for s in parsed(page).iter("section") if s.get("aria-labelledby") == anchor)


def words(element):
    return " ".join("".join(element.itertext()).split())


def summary(report):
    return [words(p) for p in section(render(report), "summary").iter("p")]


def warnings(report):
    return [words(p) for p in parsed(render(report)).iter("p") if p.get("class") == "warning"]


@BOTH
def test_the_same_report_gives_the_same_page_and_is_left_alone(report):
    before = copy.deepcopy(report)
    assert render(report) == render(json.loads(json.dumps(report)))
    assert report == before


@BOTH
def test_ids_are_unique_and_images_are_described(report):
    page = parsed(render(report))
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {name for e in page.iter() for name in (e.get("aria-labelledby") or "").split()} <= set(ids)
    images = [e for e in page.iter("svg") if e.get("role") == "img"]
    assert len(images) == 3
    assert all(image.findtext("title") and image.findtext("desc") for image in images)


@BOTH
def test_the_page_loads_nothing(report):
    page = render(report)
    assert "src=" not in page
    assert "href=" not in page
    assert "default-src 'none'" in page
    assert not any(element.get("style") for element in parsed(page).iter())


# --- simulation -----------------------------------------------------------------------------------------


def test_the_headline_says_who_earned_most():
    assert summary(simulated()) == [
        "good earned most of 2 policies: 0.8000 a decision over 100 decisions. Chance earned 0.2000. "
        "Always choosing the one best action earned 0.3000.",
        "Over the last tenth of the decisions, bad was ahead, with 0.9000 a decision.",
    ]


def test_it_warns_if_no_policy_beats_a_baseline():
    report = simulated()
    report["table"]["uniform"]["reward"] = 0.8  # as good as the best is not beaten
    assert warnings(report) == ["No policy beats uniform: so far, learning has not paid."]


def test_the_drift_is_marked_in_every_chart_of_a_simulation():
    page = parsed(render(simulated()))
    assert len([e for e in page.iter("svg") if e.get("class") == "flag mark"]) == 1
    assert len([e for e in page.iter("line") if e.get("class") == "needed"]) == 2


def embedded(report):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', render(report))
    return json.loads(found[1])


def test_the_script_gets_every_metric_of_every_policy_so_far_and_lately():
    data = embedded(simulated())
    assert [metric["label"] for metric in data["metrics"]] == ["mean reward", "cumulative reward", "regret"]
    assert [series["name"] for series in data["series"]] == ["good", "bad", "uniform", "best_fixed"]
    exponent, values = data["series"][0]["values"][1][0]
    assert [value / 10**exponent for value in values] == [0.0, 80.0]
    assert data["kind"] == 1  # lately, which shows change
    captions = data["metrics"][2]["captions"]
    assert captions[0].startswith("Regret over all events so far.")
    assert captions[1].startswith("Regret over the last 10 events.")
    assert all(caption.endswith("Lower is better.") for caption in captions)
    assert embedded(on_log()) is None


def test_there_is_a_place_for_what_the_script_adds():
    page = parsed(render(simulated()))
    ids = {element.get("id") for element in page.iter()}
    assert {"caption", "controls", "legend", "race", "plot", "grid", "plot-title", "plot-desc"} <= ids
    series = [element.get("data-series") for element in page.find(".//ul[@id='legend']")]
    assert series == ["0", "1", "2", "3"]


def test_areas_are_the_shares():
    """Heights of what is drawn for each action, in shares of the plot's 120 px."""
    chart = section(render(simulated()), "choice-title").find(".//figure")
    areas = {path.get("class"): path.get("d") for path in chart.iter("path") if path.get("fill")}
    heights = {
        css: [
            (float(bottom) - float(top)) / 120
            for top, bottom in re.findall(r"M\S+ ([\d.]+)H\S+?V([\d.]+)", path)
        ]
        for css, path in areas.items()
    }
    assert heights == {"l0": [0.5, 1.0], "l1": [0.25], "b1": [0.25]}
    legend = words(section(render(simulated()), "choice-title").find("ul"))
    assert legend == "news sport other actions"


# --- a log ----------------------------------------------------------------------------------------------


def test_the_headline_says_whether_the_best_estimate_is_clear_of_chance():
    said = summary(on_log())
    assert said[0] == (
        "good has the highest estimate of 2 policies: 0.8000 a decision (DR; "
        "95 % interval 0.6000 to 0.9000), from 100 logged decisions. "
        "What took those decisions earned 0.4000; chance would earn 0.4000."
    )
    assert said[1].startswith("Its interval is clear of chance: the interval of good starts at 0.6000")
    report = on_log()
    report["log"]["estimates"][0]["lower"] = 0.5
    assert warnings(report)[0].startswith("Its interval is not clear of chance")


def test_what_is_not_known_is_said():
    report = on_log()
    assert warnings(report) == ["This log cannot tell what lost would earn: the log never shows <sport>."]
    assert "SNIPS: SNIPS has none." in words(section(render(report), "estimate-title"))
    report["log"]["estimates"][0] |= {"lower": None, "upper": None, "reason": "too few"}
    assert "The estimate of good has no interval, so it may be luck: too few." in warnings(report)
    report["log"]["estimates"] = report["log"]["estimates"][3:4]
    assert "No policy has an estimate on this log, so there is nothing to compare." in warnings(report)


def test_intervals_lie_where_their_numbers_are():
    chart = section(render(on_log()), "estimate-title").find(".//svg[@role='img']")
    lines = [line for line in chart.iter("line") if (line.get("class") or "").startswith("line ")]
    spans = [[float(line.get(x).rstrip("%")) for x in ("x1", "x2")] for line in lines]
    dots = [float(dot.get("cx").rstrip("%")) for dot in chart.iter("circle")]
    scale = (spans[0][1] - spans[0][0]) / 0.3  # good: 0.6 to 0.9
    assert spans[1][1] - spans[1][0] == pytest.approx(0.4 * scale, abs=0.05)
    assert dots[0] - spans[0][0] == pytest.approx(0.2 * scale, abs=0.05)
    assert len(spans) == 3
    assert len(dots) == 4


def test_the_histogram_and_the_bars_are_to_scale():
    figures = list(section(render(on_log()), "log-title").iter("figure"))
    heights = [float(bar.get("height")) for bar in figures[0].iter("rect")]
    assert heights[0] * 3 == pytest.approx(heights[2], abs=0.2)
    assert heights[1] == 0
    widths = [float(bar.get("width").rstrip("%")) for bar in figures[1].iter("rect")]
    assert widths == pytest.approx([100.0, 50.0, 16.67])


def test_the_table_shows_intervals_with_their_estimates():
    rows = [[words(cell) for cell in row] for row in section(render(on_log()), "table-title").iter("tr")]
    assert rows[0] == ["policy", "DR ↑", "effective sample size ↑", "largest weight ↓", "reward ↑"]
    assert rows[1] == ["good", "0.8000 [0.6000, 0.9000]", "40.00", "2.000", "\u2013"]
    assert rows[4] == ["logged", "\u2013", "\u2013", "\u2013", "0.4000"]


# --- whatever it holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_wherever_they_stand(name):
    report = simulated()
    report |= {"name": name, "source": name, "digest": name, "reasons": {name: name}}
    report["marks"][0]["text"] = name
    report["table"][name] = report["table"].pop("good")
    for key in ("curves", "shares"):
        report["simulated"][key][name] = report["simulated"][key].pop("good")
    report["simulated"]["actions"] = [name, name]
    log = on_log()
    log["log"] |= {"estimates": [estimated(name, 0.5, 0.1, 0.9, reason=name)], "actions": [(name, 3)]}
    for page in (render(report), render(log)):
        tags = {element.tag for element in parsed(page).iter()}
        assert not tags & {"img", "a"}
        assert len(list(parsed(page).iter("script"))) == 2
        assert "\x00" not in page


@settings(max_examples=100, deadline=None)
@given(a=st.none() | st.floats(), b=st.none() | st.floats(), c=st.none() | st.floats())
def test_any_numbers_make_a_page(a, b, c):
    report, log = simulated(), on_log()
    report["table"]["good"] = {"reward": a, "window_reward": b, "regret": c}
    report["simulated"]["curves"]["good"] = {
        "reward": {"average": [a, b], "window": [b, c]},
        "regret": {"average": [c, a], "window": [a, a]},
    }
    log["log"]["estimates"][0] |= {"value": a, "lower": b, "upper": c}
    log["table"]["good"] |= {"dr": a, "dr_lower": b, "dr_upper": c}
    for page in (render(report), render(log)):
        assert not re.search(r"\b(nan|inf)\b", words(parsed(page)))


def test_nothing_to_show_is_said():
    report = simulated() | {"table": {}, "marks": [], "baselines": []}
    report["simulated"] = {
        "events": [],
        "curves": {},
        "window": 1,
        "actions": [],
        "stretches": [],
        "shares": {},
    }
    assert warnings(report) == ["No policy earned anything that is known, so there is nothing to compare."]


def test_write_replaces_the_file(tmp_path):
    path = tmp_path / "out.html"
    path.write_text("an older page")
    write(path, on_log())
    assert path.read_text("utf-8") == render(on_log())
    assert list(tmp_path.iterdir()) == [path]
