import base64
import copy
import hashlib
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import StoreError
from penstock.report import render, write

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'); alert(1); ('",
    "<!-- <script>",
    "]]>&amp;&#0;",
    "line\u2028separator\u2029",
    "nul\x00bell\x07",
    "\ud800 half a pair",
    "\u202eturned around",
    "__proto__",
    "x" * 500,
    "",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def curve(start, step, n=90, gap=()):
    values = [None if i in gap else start + step * i for i in range(n)]
    return {"average": values, "window": [None if v is None else v * 1.1 for v in values]}


def metrics(loss):
    return {"logloss": curve(loss, 0.001, gap=(40, 41)), "accuracy": curve(1.0 - loss, -0.002)}


def example():
    """What an evaluation of three learners with a drift, twenty refreshes and two candidates hands over."""
    evidence = {"e_value": 31.24, "threshold": 20.0, "events": 2048, "gain": 0.01234}
    promotions = [{"event": 512, "version": 1, "learner": "sgd", "how": "initial", "evidence": {}}]
    promotions += [
        {
            "event": 1024 * i,
            "version": 1 + i,
            "learner": "sgd" if i < 15 else "trees",
            "how": "refresh",
            "evidence": {},
        }
        for i in range(1, 21)
    ]
    promotions.append(
        {"event": 15000, "version": 90, "learner": "trees", "how": "replace", "evidence": evidence}
    )
    return {
        "name": "elec2",
        "task": "binary",
        "source": "electricity prices",
        "events": 23040,
        "seconds": 1.5,
        "digest": "9f2c4be1a7d05b33",
        "version": "0.1.0",
        "rejected": 3,
        "primary": "logloss",
        "higher_is_better": {"accuracy": True, "logloss": False},
        "curves": {
            "events": [256 * (i + 1) for i in range(90)],
            "series": {
                "sgd": metrics(0.4),
                "trees": metrics(0.3),
                "vw": metrics(0.35),
                "majority": metrics(0.68),
                "no_change": metrics(0.6),
            },
            "baselines": ["majority", "no_change"],
        },
        "table": {
            "sgd": {"accuracy": 0.84, "logloss": 0.4},
            "trees": {"accuracy": 0.9, "logloss": 0.3},
            "vw": {"accuracy": 0.87, "logloss": None},
            "majority": {"accuracy": 0.58, "logloss": 0.68},
            "no_change": {"accuracy": 0.85, "logloss": 2.0},
        },
        "drifts": [
            {
                "event": 12000 + 300 * i,
                "learner": name,
                "detector": "adwin",
                "before": 0.1,
                "after": 0.3,
                "reaction": "warm_restart",
            }
            for i, name in enumerate(("sgd", "trees", "vw"))
        ],
        "promotions": promotions,
        "decisions": [
            {"event": 9000, "what": "opened", "learner": "vw", "text": "version 88 enters the shadow"}
        ],
        "gate": [
            {
                "version": 88,
                "learner": "vw",
                "opened": 9000,
                "closed": 11000,
                "outcome": "rejected",
                "events": [9000, 10000, 11000],
                "log_e": [0.0, -1.0, None],
                "threshold": math.log(20.0),
            },
            {
                "version": 90,
                "learner": "trees",
                "opened": 13000,
                "closed": 15000,
                "outcome": "promoted",
                "events": [13000, 14000, 15000],
                "log_e": [0.0, 1.0, 3.44],
                "threshold": math.log(20.0),
            },
        ],
        "notes": ["a drift was injected"],
        "marks": [{"event": 11900, "text": "drift injected"}],
    }


@pytest.fixture
def report():
    return example()


def empty(report):
    return report | {
        "events": 0,
        "seconds": 0.0,
        "curves": {"events": [], "series": {}, "baselines": []},
        "table": {},
        "drifts": [],
        "promotions": [],
        "decisions": [],
        "gate": [],
        "notes": [],
        "marks": [],
    }


def parsed(page):
    """The page as XML; the contents of style and scripts, which are not markup, taken out."""
    page = re.sub(r"<(style|script)([^>]*)>.*?</\1>", r"<\1\2></\1>", page, flags=re.DOTALL)
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def section(page, anchor):
    return next(s for s in parsed(page).iter("section") if s.get("aria-labelledby") == anchor)


def words(element):
    return " ".join("".join(element.itertext()).split())


def summary(page):
    return [words(p) for p in section(page, "summary").iter("p")]


def rows(page, anchor):
    return [[words(cell) for cell in row] for row in section(page, anchor).iter("tr")]


def test_the_same_report_gives_the_same_page_and_is_left_alone(report):
    before = copy.deepcopy(report)
    assert render(report) == render(copy.deepcopy(report))
    assert report == before


def test_ids_are_unique_and_references_resolve(report):
    page = parsed(render(report))
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {name for e in page.iter() for name in (e.get("aria-labelledby") or "").split()}
    assert wanted <= set(ids)


def test_every_image_has_a_title_and_a_description(report):
    images = [e for e in parsed(render(report)).iter("svg") if e.get("role") == "img"]
    assert len(images) == 3
    assert all(image.findtext("title") and image.findtext("desc") for image in images)


def test_the_page_loads_nothing(report):
    page = render(report)
    assert "src=" not in page
    assert "href=" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_the_policy_admits_exactly_this_script_and_style(report):
    page = render(report)
    policy = parsed(page).find("head/meta[@http-equiv]").get("content")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)[1]
        sha = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{sha}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not any(element.get("style") for element in parsed(page).iter())


# --- the headline ---------------------------------------------------------------------------------------


def test_the_headline_names_the_best_learner_and_the_best_baseline(report):
    assert summary(render(report))[0] == (
        "trees predicted best of 3 learners: log loss 0.3000 over 23,040 events (lower is better). "
        "The best baseline, majority (knows only how frequent each label is), got 0.6800."
    )


def test_there_is_no_warning_without_cause(report):
    assert 'class="warning"' not in render(report)


def test_it_warns_if_no_learner_beats_repeating_the_last_label(report):
    report["table"]["no_change"]["accuracy"] = 0.9  # as good as the best is not beaten
    assert any(
        p.startswith("No learner beats the no-change baseline on accuracy: 0.9000 for")
        for p in summary(render(report))
    )


def test_it_warns_if_no_learner_beats_a_baseline(report):
    report["table"]["majority"]["logloss"] = 0.2
    assert any(
        p.startswith("No learner beats the baseline majority on log loss") for p in summary(render(report))
    )


def test_the_story_counts_what_happened(report):
    assert (
        "On the way, 3 drift alarms rang; the serving model got newer weights 20 times; "
        "1 candidate proved better and took over (trees at event 15,000); "
        "and 1 candidate did not pass the gate."
    ) in summary(render(report))


def test_higher_is_better_where_the_report_says_so(report):
    report["primary"] = "accuracy"
    assert summary(render(report))[0].startswith("trees predicted best of 3 learners: accuracy 0.9000")
    assert rows(render(report), "table-title")[0][1] == "accuracy ↑"


# --- tables ---------------------------------------------------------------------------------------------


def test_the_final_table_ranks_by_the_primary_metric_baselines_apart(report):
    table = section(render(report), "table-title").find(".//table")
    names = [[words(row.find("th")) for row in body] for body in table.findall("tbody")]
    assert names == [["trees", "sgd", "vw"], ["majority", "no_change"]]
    assert rows(render(report), "table-title")[:2] == [
        ["learner", "log loss ↓", "accuracy ↑"],
        ["trees", "0.3000", "0.9000"],
    ]


def test_the_best_of_each_column_is_bold_even_if_it_is_a_baseline(report):
    report["table"]["no_change"]["accuracy"] = 0.95
    bold = [words(strong) for strong in section(render(report), "table-title").iter("strong")]
    assert bold == ["0.3000", "0.9500"]


def test_every_drift_promotion_decision_and_mark_shows_up(report):
    page = render(report)
    shown = {(row[0], row[1], row[2]) for row in rows(page, "timeline-title")}
    expected = {(f"{d['event']:,}", "drift", d["learner"]) for d in report["drifts"]}
    expected |= {(f"{p['event']:,}", p["how"], p["learner"]) for p in report["promotions"]}
    expected |= {("9,000", "opened", "vw"), ("11,900", "in the data", "")}
    assert shown - {("event", "what", "learner")} == expected
    plot = next(e for e in parsed(page).iter("svg") if e.get("id") == "plot")
    assert len(plot.findall("line[@class='refresh']")) == 20
    assert len(plot.findall("svg[@class='replace']")) == 1
    assert len(plot.findall("svg[@class='flag drift']")) == 3
    assert len(plot.findall("svg[@class='flag mark']")) == 1
    assert [r.get("class") for r in plot.findall("rect")] == ["l0", "l1"]


def test_a_replacement_shows_its_proof(report):
    row = next(row for row in rows(render(report), "timeline-title") if row[1] == "replace")
    assert row[3] == (
        "Version 90 replaces sgd, better by 0.01234 an event, over 2,048 events, "
        "e-value 31.24 (20.00 needed)."
    )


def test_a_refresh_shows_that_it_was_not_found_worse(report):
    report["promotions"][1]["evidence"] = {"e_value": 0.6, "threshold": 20.0, "events": 1024, "gain": 0.0004}
    row = next(row for row in rows(render(report), "timeline-title") if row[1] == "refresh")
    assert row[3] == (
        "Version 2: newer weights, not shown to be worse over 1,024 events, "
        "e-value against them 0.6000 (20.00 would have stopped them)."
    )


def test_what_others_wrote_is_left_as_it_is(report):
    assert ["9,000", "opened", "vw", "version 88 enters the shadow"] in rows(render(report), "timeline-title")


def test_many_refreshes_are_folded_and_a_few_are_rows(report):
    timeline = section(render(report), "timeline-title")
    assert words(timeline.find("details/summary")).startswith("20 refreshes")
    assert not any("refresh" in words(row) for row in timeline.find("div").iter("tr"))
    report["promotions"] = report["promotions"][:3]
    timeline = section(render(report), "timeline-title")
    assert timeline.find("details") is None
    assert sum("refresh" in words(row) for row in timeline.iter("tr")) == 2


def test_a_long_timeline_is_folded_not_cut(report):
    report["drifts"] = [report["drifts"][0] | {"event": 100 + i} for i in range(200)]
    drifts = [row for row in rows(render(report), "timeline-title") if row[1] == "drift"]
    assert len(drifts) == 200


def test_a_rollback_serves_again(report):
    report["promotions"].append(
        {"event": 20000, "version": 7, "learner": "sgd", "how": "rollback", "evidence": {}}
    )
    page = render(report)
    assert ["20,000", "rollback", "sgd", "Version 7 serves again in place of trees."] in rows(
        page, "timeline-title"
    )
    plot = next(e for e in parsed(page).iter("svg") if e.get("id") == "plot")
    assert [r.get("class") for r in plot.findall("rect")] == ["l0", "l1", "l0"]


# --- the gate -------------------------------------------------------------------------------------------


def test_every_candidate_has_its_evidence_drawn(report):
    report["gate"].append(report["gate"][0] | {"closed": None, "outcome": "open", "version": 91})
    captions = [words(caption) for caption in section(render(report), "gate-title").iter("figcaption")]
    assert captions == [
        "vw version 88 rejected after 2,000 events",
        "trees version 90 promoted after 2,000 events",
        "vw version 91 still open",
    ]


def test_many_candidates_are_folded_not_cut(report):
    report["gate"] *= 20
    assert len(list(section(render(report), "gate-title").iter("figure"))) == 40


def test_a_candidate_without_a_single_look_is_shown(report):
    report["gate"] = [report["gate"][0] | {"events": [], "log_e": []}]
    assert len(list(section(render(report), "gate-title").iter("figure"))) == 1


# --- the data for the script ----------------------------------------------------------------------------


def test_the_script_gets_every_value_to_four_digits_once(report):
    data = embedded(render(report))
    assert [metric["key"] for metric in data["metrics"]] == ["logloss", "accuracy"]
    assert data["events"] == report["curves"]["events"]
    for series in data["series"]:
        for metric, kinds in zip(data["metrics"], series["values"], strict=True):
            for kind, (exponent, values) in zip(("average", "window"), kinds, strict=True):
                expected = report["curves"]["series"][series["name"]][metric["key"]][kind]
                found = [None if v is None else v / 10**exponent for v in values]
                assert found == [None if v is None else pytest.approx(v, rel=5.1e-4) for v in expected]


def test_the_page_is_small(report):
    noise = [0.5 + 0.4 * math.sin(i * 1.7) for i in range(500)]
    names = [f"learner {i}" for i in range(8)]
    kinds = {"average": noise, "window": [v / 37 for v in noise]}
    report["curves"] = {
        "events": [256 * (i + 1) for i in range(500)],
        "series": {name: {f"metric {i}": kinds for i in range(7)} | {"logloss": kinds} for name in names},
        "baselines": [],
    }
    assert len(render(report).encode()) < 500_000


# --- hostile and degenerate input -----------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_only_ever_text(report, name):
    harmless = parsed(render(report))
    series, table = report["curves"]["series"], report["table"]
    series[name], table[name] = series.pop("trees"), table.pop("trees")
    series[name][name] = table[name][name] = None
    series[name][name] = curve(0.3, 0.1)
    table[name][name] = 1.0
    report |= {"name": name, "task": name, "source": name, "digest": name, "version": name, "notes": [name]}
    report["marks"][0]["text"] = name
    for entry in (*report["drifts"], *report["promotions"], *report["decisions"], *report["gate"]):
        entry["learner"] = name
    report["drifts"][0] |= {"detector": name, "reaction": name}
    report["decisions"][0] |= {"what": name, "text": name}
    page = render(report)
    assert page.encode().decode() == page
    assert page.count("<script") == page.count("</script>") == 2
    assert {e.tag for e in parsed(page).iter()} == {e.tag for e in harmless.iter()}
    assert {a for e in parsed(page).iter() for a in e.attrib} <= {
        a for e in harmless.iter() for a in e.attrib
    }
    assert not re.search("[\x00-\x08\u202e\ud800]", page)
    shown = re.sub("[\x00\x07\u202e\ud800]", "\ufffd", name)
    assert shown in {series["name"] for series in embedded(page)["series"]}


def test_no_events(report):
    page = render(empty(report))
    assert summary(page) == ["No events were read, so there is nothing to compare."]
    assert "There are no curves" in page
    assert embedded(page) is None
    parsed(page)


def test_one_event_is_a_dot(report):
    point = {"average": [0.5], "window": [0.5]}
    report = empty(report) | {
        "events": 1,
        "curves": {"events": [1], "series": {"sgd": {"logloss": point}}, "baselines": []},
        "table": {"sgd": {"logloss": 0.5}},
    }
    page = render(report)
    assert summary(page) == ["sgd predicted best: log loss 0.5000 over 1 event (lower is better)."]
    assert [p.get("d") for p in parsed(page).iter("path") if p.get("data-series")] == ["M1000.0 150.0h0"]


def test_averages_are_shown_where_there_is_no_window(report):
    for kinds in report["curves"]["series"].values():
        for each in kinds.values():
            each["window"] = [math.nan] * 90
    page = render(report)
    assert embedded(page)["kind"] == 0
    assert "over all events so far" in words(section(page, "race-title"))


def test_the_window_is_named_if_it_is_known(report):
    assert "over the most recent events" in words(section(render(report), "race-title"))
    report["window"] = 1000
    assert "over the last 1,000 events" in words(section(render(report), "race-title"))


def test_a_learner_without_scores_is_not_the_best(report):
    report["table"] = {name: {"logloss": None} for name in report["table"]}
    assert (
        summary(render(report))[0] == "No learner has a value for log loss, so there is nothing to compare."
    )


@pytest.mark.parametrize("count", [9, 30])
def test_more_learners_than_colours_are_told_apart_by_dashes(report, count):
    report["curves"]["series"] = {f"learner {i}": metrics(0.3 + i / 100) for i in range(count)}
    lines = [p.get("class") for p in parsed(render(report)).iter("path") if p.get("data-series")]
    assert len(lines) == count
    assert len(set(lines)) == min(count, 16)


def test_a_huge_value_among_small_ones_stays_a_number(report):
    report["curves"]["series"]["sgd"]["logloss"]["window"] = [1e-300, 1e-300, 1.7e308, -1.7e308]
    exponent, values = embedded(render(report))["series"][0]["values"][0][1]
    assert [v / 10**exponent for v in values] == pytest.approx([0.0, 0.0, 1e280, -1e280])


values = st.lists(st.none() | st.floats(), max_size=12)


@settings(max_examples=200, deadline=None)
@given(average=values, window=values, final=st.none() | st.floats(), log_e=values, threshold=st.floats())
def test_any_numbers_make_a_page(average, window, final, log_e, threshold):
    report = example()
    report["curves"]["series"]["sgd"]["logloss"] = {"average": average, "window": window}
    report["table"]["sgd"]["logloss"] = final
    report["gate"][0] |= {
        "log_e": log_e,
        "events": list(range(9000, 9000 + len(log_e))),
        "threshold": threshold,
    }
    report["drifts"][0] |= {"before": final, "after": threshold}
    report["promotions"][-1]["evidence"] = {"e_value": final, "threshold": threshold, "gain": final}
    page = render(report)
    embedded(page)
    assert not re.search(r"\b(nan|inf)\b", words(parsed(page)))


# --- the file -------------------------------------------------------------------------------------------


def test_write_replaces_the_file_and_leaves_nothing_else(report, tmp_path):
    path = tmp_path / "out.html"
    path.write_text("an older page")
    write(path, report)
    assert path.read_text("utf-8") == render(report)
    assert list(tmp_path.iterdir()) == [path]


def test_write_says_what_is_wrong(report, tmp_path):
    path = tmp_path / "missing" / "out.html"
    with pytest.raises(StoreError, match=re.escape(f"cannot write {path}: No such file or directory")):
        write(path, report)
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(StoreError, match=re.escape(f"cannot write {path}: Is a directory")):
        write(path, report)
    assert list(tmp_path.iterdir()) == [path]


# --- looks ----------------------------------------------------------------------------------------------


def luminance(colour):
    """Relative luminance, as WCAG 2.2 defines it."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_and_dark(report):
    style = re.search("<style>(.*?)</style>", render(report), flags=re.DOTALL)[1]
    schemes = re.findall(r":root \{(.*?--b2: #\w+;)", style, flags=re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for name in ("ink", "soft", "accent", "drift", "good"):
            assert contrast(colours[name], colours["card"]) >= 4.5, name
        assert contrast(colours["warn-ink"], colours["warn"]) >= 4.5
        for name in [f"l{i}" for i in range(8)] + [f"b{i}" for i in range(3)]:
            assert contrast(colours[name], colours["card"]) >= 3.0, name  # lines, and bold labels


def opened(browser, url, profile):
    """The document after its scripts ran, and what they logged."""
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [each for each in done.stderr.splitlines() if "CONSOLE" in each]


def paths(dom):
    """Coordinates of every curve, by series."""
    drawn = re.findall(r'<path class="line [^"]*" data-series="(\d+)" d="([^"]*)"', dom)
    assert drawn
    return {series: [float(x) for x in re.findall(r"-?\d+\.\d", d)] for series, d in drawn}


@pytest.mark.browser
def test_the_script_brings_the_page_to_life(report, tmp_path, require):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    require("browser", browser is not None, "no Chromium on the PATH")
    for i, name in enumerate(HOSTILE):
        report["curves"]["series"][name] = metrics(0.31 + i / 50)
        report["table"][name] = {"logloss": 0.31 + i / 50, "accuracy": 0.5}
    path = tmp_path / "report.html"
    write(path, report)

    dom, logged = opened(browser, path.as_uri(), tmp_path / "profile")
    assert logged == []
    assert re.findall(r'<button type="button" aria-pressed="(\w+)">([^<]+)</button>', dom) == [
        ("true", "log loss"),
        ("false", "accuracy"),
        ("false", "since start"),
        ("true", "recent"),
    ]
    n_series = len(report["curves"]["series"])
    assert len(re.findall(r'<li class="[^"]*" data-series[^>]*><button', dom)) == n_series
    assert len(re.findall(r'<th scope="col" data-higher[^>]*><button', dom)) == 2
    drawn, redrawn = paths(path.read_text("utf-8")), paths(dom)
    assert drawn.keys() == redrawn.keys()
    assert all(redrawn[series] == pytest.approx(drawn[series], abs=0.5) for series in drawn)

    dom, logged = opened(browser, path.as_uri() + "#accuracy/average", tmp_path / "profile")
    assert logged == []
    caption = (
        "Accuracy over all events so far. Share of events whose label was predicted right. Higher is better."
    )
    assert f'id="caption">{caption}<' in dom
    report["primary"] = "accuracy"
    for kinds in report["curves"]["series"].values():
        kinds["accuracy"]["window"] = []
    drawn, redrawn = paths(render(report)), paths(dom)
    assert all(redrawn[series] == pytest.approx(drawn[series], abs=0.5) for series in drawn)
