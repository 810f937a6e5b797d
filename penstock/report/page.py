"""The page: its sections, top to bottom, and the file it goes to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from penstock import tensors
from penstock.report.charts import (
    Band,
    Flag,
    clean,
    evidence_chart,
    finite,
    number,
    off_chart,
    race_chart,
    text,
    value_axis,
)
from penstock.report.data import Drift, Evidence, Promotion, Report, Trial
from penstock.report.embedded import embedded
from penstock.report.memory import WORDS, memory
from penstock.report.parts import (
    HIDDEN,
    counted,
    document,
    folded,
    footer,
    glossary,
    header,
    section,
    strong,
    swatch,
)
from penstock.report.view import RULES, View, capital, meaning, metric_name

__all__ = ["render", "write"]

_WORDS: Final = (
    (
        "prequential",
        "every event is first predicted, then learned: all scores are on events the learner had not seen.",
    ),
    ("learner", "a model that learns from every event, one after the other."),
    ("baseline", "a rule without any learning. A learner that does not beat it has learned nothing useful."),
    ("drift", "the world changed, so what was learned no longer fits; a detector raises an alarm."),
    ("serving", "the snapshot whose predictions the applications get."),
    ("refresh", "newer weights of the learner that already serves: on schedule, unless shown to be worse."),
    (
        "candidate",
        "another model that may replace the one that serves; it is tried in shadow: it predicts, unseen.",
    ),
    (
        "gate",
        "lets a candidate serve only once it is proved better on the same events. The proof is an e-value: "
        "20 means that luck alone gets there at most once in 20 tries, however often one looks.",
    ),
    ("rollback", "what served before serves again: it went on being scored, and what serves proved worse."),
)

_SHOWN_ROWS: Final = 40  # of the timeline; the rest is folded away
_SHOWN_TRIALS: Final = 12
_FEW_REFRESHES: Final = 3  # up to here they are rows like any other
_FEW_FEATURES: Final = 5  # of an alarm on the inputs, that are named


def render(report: Report) -> str:
    """Return the page. The same report gives the same page, to the byte.

    Parameters
    ----------
    report : Report
        Text in it is escaped wherever it goes; a value that is None or not finite is a gap.
    """
    view = View(report)
    body = "\n".join(
        part
        for part in (
            header(
                name=report["name"],
                source=report["source"],
                task=report["task"],
                events=report["events"],
                seconds=report["seconds"],
                rejected=report["rejected"],
                digest=report["digest"],
            ),
            _summary(view),
            _race(view),
            _table(view),
            _gate(view),
            memory(view),
            _timeline(view),
            glossary([*_WORDS, *(WORDS if report.get("memory") else ())]),
            footer(report["version"]),
        )
        if part
    )
    return document(f"{text(report['name'])}: Penstock report", body, embedded(view))


def write(path: Path, report: Report) -> None:
    """Write the page to `path`; a reader sees the old page or the new one, never a part.

    Raises
    ------
    StoreError
        If the file cannot be written; names the path and the reason.
    """
    tensors.replace(path, [render(report).encode()])


# --- the headline ---------------------------------------------------------------------------------------


def _summary(view: View) -> str:
    paragraphs = [f'<p class="{css}">{sentence}</p>' for css, sentence in _verdict(view)]
    story = _story(view)
    if story:
        paragraphs.append(f"<p>{story}</p>")
    paragraphs += [f'<p class="note"><b>Note</b> {text(note)}</p>' for note in view.report["notes"]]
    return section("summary", "In short", *paragraphs)


def _verdict(view: View) -> Iterator[tuple[str, str]]:
    """Sentences in plain words, each with its class: ``lead`` or ``warning``."""
    metric = view.report["primary"]
    leader = view.best(view.learners, metric)
    if not view.report["events"]:
        yield "warning", "No events were read, so there is nothing to compare."
        return
    if leader is None:
        yield (
            "warning",
            f"No learner has a value for {text(metric_name(metric))}, so there is nothing to compare.",
        )
        return
    name, value = leader
    direction = "higher" if view.higher(metric) else "lower"
    among = f" of {number(len(view.learners))} learners" if len(view.learners) > 1 else ""
    sentence = (
        f"{strong(name)} predicted best{among}: {text(metric_name(metric))} {strong(number(value))} "
        f"over {counted(view.report['events'], 'event')} ({direction} is better)."
    )
    rival = view.best(view.baselines, metric)
    if rival is not None:
        rule = f" ({text(RULES[rival[0]])})" if rival[0] in RULES else ""
        sentence += f" The best baseline, {strong(rival[0])}{rule}, got {strong(number(rival[1]))}."
    yield "lead", sentence
    if rival is not None and rival[0] != "no_change" and not view.better(metric, value, rival[1]):
        yield (
            "warning",
            f"<b>No learner beats the baseline {text(rival[0])}</b> on {text(metric_name(metric))}: "
            "so far, learning has not paid.",
        )
    for judged in dict.fromkeys((metric, "accuracy")):
        repeat = view.best([n for n in view.baselines if n == "no_change"], judged)
        top = view.best(view.learners, judged)
        if repeat is not None and top is not None and not view.better(judged, top[1], repeat[1]):
            yield (
                "warning",
                f"<b>No learner beats the no-change baseline</b> on {text(metric_name(judged))}: "
                f"{number(repeat[1])} for always saying the last label again, {number(top[1])} for "
                f"{strong(top[0])}. The labels are autocorrelated: each is much like the one before, "
                "so a score that looks good may mean little.",
            )


def _story(view: View) -> str:
    report = view.report
    parts = []
    if report["drifts"]:
        parts.append(f"{counted(len(report['drifts']), 'drift alarm')} rang")
    refreshes = sum(promoted["how"] == "refresh" for promoted in report["promotions"])
    if refreshes:
        parts.append(f"the serving model got newer weights {counted(refreshes, 'time')}")
    replaced = [promoted for promoted in report["promotions"] if promoted["how"] == "replace"]
    if replaced:
        newest = replaced[-1]
        parts.append(
            f"{counted(len(replaced), 'candidate')} proved better and took over "
            f"({'' if len(replaced) == 1 else 'at last '}{strong(newest['learner'])} "
            f"at event {number(newest['event'])})"
        )
    taken_back = sum(promoted["how"] == "rollback" for promoted in report["promotions"])
    if taken_back:
        parts.append(f"what served proved worse than its predecessor and was taken back {_times(taken_back)}")
    refused = sum(trial["outcome"] == "rejected" for trial in report["gate"])
    if refused:
        parts.append(f"{counted(refused, 'candidate')} did not pass the gate")
    if not parts:
        return ""
    listed = parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"
    return f"On the way, {listed}."


def _times(n: int) -> str:
    return "once" if n == 1 else counted(n, "time")


# --- the curves -----------------------------------------------------------------------------------------


def _race(view: View) -> str:
    curves = view.report["curves"]
    title = "How well each learner predicted"
    if not curves["events"] or not view.metrics:
        return section("race-title", title, '<p class="hint">There are no curves: no events were scored.</p>')
    metric = view.metrics[0]
    kind = view.start_kind(metric)
    lines = view.lines(metric, kind)
    axis = value_axis(lines, higher_is_better=view.higher(metric))
    flags, bands = _flags(view), _bands(view)
    chart = race_chart(
        curves["events"],
        lines,
        axis,
        last=view.last,
        flags=flags,
        bands=bands,
        title=f"{capital(metric_name(metric))} of {', '.join(view.drawn)}",
        description=f"{view.caption(metric, kind)} {counted(len(view.report['drifts']), 'drift alarm')} and "
        f"{counted(len(view.report['promotions']), 'promotion')} are marked; the tables below list them.",
    )
    legend = "".join(
        f'<li class="{line.css}" data-series="{i}"{_tooltip(line.name)}>{swatch(line.css)}'
        f"<bdi>{text(line.name)}</bdi>"
        f"<small{'' if off_chart(line, axis) else HIDDEN}>off the chart</small></li>"
        for i, line in enumerate(lines)
    )
    return section(
        "race-title",
        title,
        f'<p class="hint" id="caption">{text(view.caption(metric, kind))}</p>',
        '<div class="controls" id="controls" hidden=""></div>',
        f'<ul class="legend" id="legend">{legend}</ul>',
        f'<div class="frame race" id="race">{chart}</div>',
        _key(flags, bands),
    )


def _tooltip(name: str) -> str:
    return f' title="baseline: {text(RULES[name])}"' if name in RULES else ""


def _key(flags: Sequence[Flag], bands: Sequence[Band]) -> str:
    """One line that says what the marks of the chart mean; only those that it has."""
    kinds = {flag.kind for flag in flags}
    parts = []
    if "mark" in kinds:
        parts.append('<b class="mark">▾</b> something known to have happened in the data')
    if "drift" in kinds:
        parts.append('<b class="drift">▾</b> a detector found a drift')
    if "rollback" in kinds:
        parts.append('<b class="rollback">▾</b> what served before serves again: a rollback')
    if bands:
        parts.append(
            "the ribbon has the colour of the learner that served; "
            "a notch is a refresh, a tall bar a replacement"
        )
    return f'<p class="hint">{capital("; ".join(parts))}.</p>' if parts else ""


def _flags(view: View) -> list[Flag]:
    marks = [
        Flag(
            event=mark["event"],
            kind="mark",
            label=clean(mark["text"]),
            who="",
            detail=f"event {number(mark['event'])}: {mark['text']}",
        )
        for mark in view.report["marks"]
    ]
    marks += [
        Flag(
            event=back["event"],
            kind="rollback",
            label="rollback",
            who=clean(back["learner"]),
            detail=f"event {number(back['event'])}: version {number(back['version'])} serves again",
        )
        for back in view.report["promotions"]
        if back["how"] == "rollback"
    ]
    return marks + [
        Flag(
            event=found["event"],
            kind="drift",
            label="drift",
            who=clean(found["learner"]),
            detail=f"event {number(found['event'])}: {found['detector']} found a drift of {found['learner']}",
        )
        for found in view.report["drifts"]
    ]


def _bands(view: View) -> list[Band]:
    """Who served from when to when."""
    bands: list[Band] = []
    opened: list[tuple[Promotion, list[tuple[int, str]]]] = []
    for promoted in sorted(view.report["promotions"], key=lambda promoted: promoted["event"]):
        if promoted["how"] == "refresh" and opened:
            detail = f"event {number(promoted['event'])}: version {number(promoted['version'])}, a refresh"
            opened[-1][1].append((promoted["event"], detail))
        else:
            opened.append((promoted, []))
    ends = [promoted["event"] for promoted, _ in opened[1:]] + [view.last]
    for (promoted, refreshes), end in zip(opened, ends, strict=False):
        learner, version = promoted["learner"], number(promoted["version"])
        detail = f"event {number(promoted['event'])}: {learner} (version {version}) begins to serve"
        bands.append(
            Band(
                start=promoted["event"],
                stop=end,
                css=view.css(learner),
                detail=detail,
                refreshes=refreshes,
            )
        )
    return bands


# --- the table ------------------------------------------------------------------------------------------


def _table(view: View) -> str:
    if not view.columns:
        return ""
    primary = view.columns[0]
    leaders = {metric: view.best(view.names, metric) for metric in view.columns}

    def rank(name: str) -> tuple[bool, float]:
        value = finite(view.report["table"].get(name, {}).get(primary))
        return (value is None, 0.0 if value is None else -value if view.higher(primary) else value)

    def cell(name: str, metric: str) -> str:
        value = view.report["table"].get(name, {}).get(metric)
        known, leader = finite(value), leaders[metric]
        raw = "" if known is None else f' data-value="{known!r}"'
        shown = number(value)
        if known is not None and leader is not None and known == leader[1]:
            shown = f"<strong>{shown}</strong>"
        return f"<td{raw}>{shown}</td>"

    def rows(names: Sequence[str]) -> str:
        return "".join(
            f'<tr><th scope="row"{_tooltip(name)}>{swatch(view.css(name))}<bdi>{text(name)}</bdi></th>'
            f"{''.join(cell(name, metric) for metric in view.columns)}</tr>"
            for name in sorted((name for name in names if name in view.report["table"]), key=rank)
        )

    heads = "".join(
        f'<th scope="col" data-higher="{int(view.higher(metric))}" title="{text(meaning(metric))}">'
        f"{text(metric_name(metric))}&#160;"
        f'<span aria-hidden="true">{"↑" if view.higher(metric) else "↓"}</span></th>'
        for metric in view.columns
    )
    baselines = rows(view.baselines)
    below = f'<tbody class="baselines">{baselines}</tbody>' if baselines else ""
    return section(
        "table-title",
        "Final scores",
        '<p class="hint">Over all events. ↑ higher is better, ↓ lower is better; the best of a column is '
        "bold."
        f"{' Baselines stand apart, below.' if below else ''}</p>",
        '<div class="scroll"><table class="scores">'
        f'<thead><tr><th scope="col">learner</th>{heads}</tr></thead>'
        f"<tbody>{rows(view.learners)}</tbody>{below}</table></div>",
    )


# --- the gate -------------------------------------------------------------------------------------------


def _gate(view: View) -> str:
    trials = [_trial(view, i, trial) for i, trial in enumerate(view.report["gate"])]
    if not trials:
        return ""
    first, more = trials[:_SHOWN_TRIALS], trials[_SHOWN_TRIALS:]
    return section(
        "gate-title",
        "At the gate",
        '<p class="hint">A candidate predicts the same events as the model that serves, unseen by anybody. '
        "The line is the evidence that it is better: 1 is none, below 1 speaks against it. It may serve once "
        "the line has reached the dashed one.</p>",
        f'<div class="trials">{"".join(first)}</div>',
        folded(f"{number(len(more))} more candidates", f'<div class="trials">{"".join(more)}</div>', more),
    )


def _trial(view: View, i: int, trial: Trial) -> str:
    log10 = [None if (v := finite(log_e)) is None else v / math.log(10.0) for log_e in trial["log_e"]]
    closed, outcome = trial["closed"], trial["outcome"]
    until = (
        "still open" if closed is None else f"{outcome} after {counted(closed - trial['opened'], 'event')}"
    )
    name = f"version {number(trial['version'])}"
    threshold = (finite(trial["threshold"]) or 0.0) / math.log(10.0)
    chart = evidence_chart(
        trial["events"],
        log10,
        threshold,
        css=view.css(trial["learner"]),
        key=f"trial-{i}",
        title=f"Evidence that {name}, {trial['learner']}, is better than what serves",
        description=f"e-value by event, logarithmic; opened at event {number(trial['opened'])}, {until}.",
    )
    return (
        f'<figure><figcaption><bdi class="{view.css(trial["learner"])}">{text(trial["learner"])}</bdi> '
        f'{name} <span class="badge {text(outcome)}">{text(until)}</span></figcaption>'
        f'<div class="frame">{chart}</div></figure>'
    )


# --- the timeline ---------------------------------------------------------------------------------------


def _timeline(view: View) -> str:
    report = view.report
    refreshes = [promoted for promoted in report["promotions"] if promoted["how"] == "refresh"]
    fold = len(refreshes) > _FEW_REFRESHES
    entries = [
        (mark["event"], _row(mark["event"], "mark", "in the data", "", mark["text"]))
        for mark in report["marks"]
    ]
    entries += [(found["event"], _drift_row(found)) for found in report["drifts"]]
    entries += [
        (made["event"], _row(made["event"], "", made["what"], made["learner"], made["text"]))
        for made in report["decisions"]
    ]
    entries += [
        (promoted["event"], row)
        for promoted, row in _promotion_rows(report["promotions"])
        if not (fold and promoted["how"] == "refresh")
    ]
    rows = [row for _, row in sorted(entries, key=lambda entry: entry[0])]
    quiet = [row for promoted, row in _promotion_rows(report["promotions"]) if promoted["how"] == "refresh"]
    if not rows and not quiet:
        return ""
    first, more = rows[:_SHOWN_ROWS], rows[_SHOWN_ROWS:]
    return section(
        "timeline-title",
        "What happened, and when",
        _events_table(first) if first else "",
        folded(f"{number(len(more))} more", _events_table(more), more),
        folded(
            f"{number(len(quiet))} refreshes: newer weights of what already served",
            _events_table(quiet),
            quiet,
        )
        if fold
        else "",
    )


def _events_table(rows: Sequence[str]) -> str:
    return (
        '<div class="scroll"><table class="events"><thead><tr>'
        '<th scope="col">event</th><th scope="col">what</th>'
        f'<th scope="col">learner</th><th scope="col">details</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _row(event: int, css: str, what: str, learner: str, details: str) -> str:
    return (
        f'<tr><td>{number(event)}</td><td><span class="badge {css}">{text(what)}</span></td>'
        f"<td><bdi>{text(learner)}</bdi></td><td>{text(details)}</td></tr>"
    )


def _drift_row(found: Drift) -> str:
    reaction = found["reaction"].replace("_", " ")
    change = f"went from {number(found['before'])} to {number(found['after'])}"
    details = f"What {found['detector']} watches {change}{f'; reaction: {reaction}' if reaction else ''}."
    if features := found.get("features"):
        others = f" and {number(len(features) - _FEW_FEATURES)} more" if len(features) > _FEW_FEATURES else ""
        named = ", ".join(clean(name) for name in features[:_FEW_FEATURES])
        details = (
            f"The inputs changed, {found['detector']} says: {named}{others}. Not whether a model is worse."
        )
    return _row(found["event"], "drift", "drift", found["learner"], details)


def _promotion_rows(promotions: Sequence[Promotion]) -> Iterator[tuple[Promotion, str]]:
    served = ""
    for promoted in sorted(promotions, key=lambda promoted: promoted["event"]):
        version, learner = f"Version {number(promoted['version'])}", promoted["learner"]
        match promoted["how"]:
            case "initial":
                css, details = "", [f"{version} is the first to serve"]
            case "refresh":
                css, details = "", [f"{version}: newer weights", *_no_harm(promoted["evidence"])]
            case "rollback":
                harm = _harm(promoted["evidence"])
                css, details = "rollback", [f"{version} serves again in place of {served}", *harm]
            case _:
                css, details = (
                    "replace",
                    [f"{version} replaces {served or 'what served'}", *_proof(promoted["evidence"])],
                )
        yield promoted, _row(promoted["event"], css, promoted["how"], learner, ", ".join(details) + ".")
        served = learner


def _proof(evidence: Evidence) -> Iterator[str]:
    if finite(evidence.get("gain")) is not None:
        yield f"better by {number(evidence['gain'])} an event"
    if "events" in evidence:
        yield f"over {counted(evidence['events'], 'event')}"
    if finite(evidence.get("e_value")) is not None:
        threshold = finite(evidence.get("threshold"))
        needed = "" if threshold is None else f" ({number(threshold)} needed)"
        yield f"e-value {number(evidence['e_value'])}{needed}"


def _harm(evidence: Evidence) -> Iterator[str]:
    """Say by how much what served had become worse than what serves again."""
    gain = finite(evidence.get("gain"))
    if gain is not None:
        yield f"which was worse by {number(-gain)} an event"
    if "events" in evidence:
        yield f"over {counted(evidence['events'], 'event')}"
    if finite(evidence.get("e_value")) is not None:
        threshold = finite(evidence.get("threshold"))
        needed = "" if threshold is None else f" ({number(threshold)} needed)"
        yield f"e-value {number(evidence['e_value'])}{needed}"


def _no_harm(evidence: Evidence) -> Iterator[str]:
    """Say that newer weights were not shown worse; their e-value is the evidence that they are."""
    if "events" in evidence:
        yield f"not shown to be worse over {counted(evidence['events'], 'event')}"
    if finite(evidence.get("e_value")) is not None:
        threshold = finite(evidence.get("threshold"))
        stop = "" if threshold is None else f" ({number(threshold)} would have stopped them)"
        yield f"e-value against them {number(evidence['e_value'])}{stop}"
