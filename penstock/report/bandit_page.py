"""The page of a bandit evaluation: what policies earned in simulation, or what a log says they would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock import tensors
from penstock.report.bandit_charts import (
    OTHER,
    Bar,
    Range,
    bar_chart,
    histogram,
    interval_axis,
    interval_chart,
    share_chart,
)
from penstock.report.bandit_data import BanditReport, Estimated, LogFindings, Simulated
from penstock.report.charts import Flag, clean, finite, number, off_chart, race_chart, text, value_axis
from penstock.report.embedded import embedded
from penstock.report.parts import (
    HIDDEN,
    counted,
    document,
    footer,
    glossary,
    header,
    section,
    strong,
    swatch,
)
from penstock.report.view import View, capital, metric_name

__all__ = ["render", "write"]

_COLOURS: Final = 8  # classes l0 … l7 of the style sheet
_CHANCE: Final = "uniform"

_RULES: Final[Mapping[str, str]] = {
    "uniform": "every action equally often: chance",
    "best_fixed": "always the one action that is best over all events, known only afterwards",
    "logged": "what took the logged decisions",
}

_COLUMNS: Final[Mapping[str, tuple[str, bool | None]]] = {  # what it is called; whether more is better
    "reward": ("reward", True),
    "window_reward": ("reward, last tenth", True),
    "regret": ("regret", False),
    "ess": ("effective sample size", True),
    "max_weight": ("largest weight", False),
}

_WORDS: Final = (
    ("policy", "chooses one of the actions on offer, and learns only what that one earned."),
    ("reward", "what the chosen action earned; more is better."),
    ("baseline", "a rule without any learning. A policy that does not beat it has learned nothing useful."),
)
_SIMULATION_WORDS: Final = (
    *_WORDS,
    ("regret", "how much more the best action of each event would have earned, added up. Flat is perfect."),
)
_LOG_WORDS: Final = (
    *_WORDS,
    ("propensity", "the probability with which the logged action was chosen when it was chosen."),
    (
        "off-policy estimate",
        "what a policy would have earned, told from decisions that something else took. IPS weighs each "
        "logged reward; SNIPS divides by the weights' sum; DM trusts a model of rewards; DR corrects that "
        "model by weighed rewards.",
    ),
    (
        "interval",
        "holds at every moment of the log at once, however often one looks; each by itself, "
        "not all together.",
    ),
    (
        "effective sample size",
        "so many decisions of the policy's own would say as much as this log does. Few say little.",
    ),
    ("support", "the log must give every action of a policy a chance, or it cannot say what it earns."),
)


def render(report: BanditReport) -> str:
    """Return the page. The same report gives the same page, to the byte.

    Parameters
    ----------
    report : BanditReport
        Text in it is escaped wherever it goes; a value that is None or not finite is a gap.
    """
    simulated, log = report["simulated"], report["log"]
    data = "null"
    parts = [
        header(
            name=report["name"],
            source=report["source"],
            task="bandit",
            events=report["events"],
            seconds=report["seconds"],
            rejected=report["rejected"],
            digest=report["digest"],
        ),
        section("summary", "In short", *(f'<p class="{css}">{words}</p>' for css, words in _verdict(report))),
    ]
    if simulated is not None:
        view = _view(report, simulated)
        parts += [_race(view), _choices(report, simulated)]
        data = embedded(view)
    if log is not None:
        parts += [_estimates(report, log), _what_was_logged(log)]
    parts += [
        _table(report),
        glossary(_LOG_WORDS if simulated is None else _SIMULATION_WORDS),
        footer(report["version"]),
    ]
    return document(f"{text(report['name'])}: Penstock report", "\n".join(filter(None, parts)), data)


def write(path: Path, report: BanditReport) -> None:
    """Write the page to `path`; a reader sees the old page or the new one, never a part.

    Raises
    ------
    StoreError
        If the file cannot be written; names the path and the reason.
    """
    tensors.replace(path, [render(report).encode()])


def _policies(report: BanditReport) -> list[str]:
    return [name for name in report["table"] if name not in report["baselines"]]


def _css(report: BanditReport, name: str) -> str:
    """Class of a policy's or a baseline's colour; one that is not known is grey."""
    policies, baselines = _policies(report), list(report["baselines"])
    if name in policies:
        i = policies.index(name)
        return f"l{i % _COLOURS}" + (" again" if i >= _COLOURS else "")
    return f"b{baselines.index(name) % 3 if name in baselines else 0}"


def _best(report: BanditReport, names: Sequence[str], column: str) -> tuple[str, float] | None:
    """Return who of `names` has most, the first of equals; None if nobody has a value."""
    known = [(name, v) for name in names if (v := finite(report["table"][name].get(column))) is not None]
    return max(known, key=lambda pair: pair[1], default=None)


# --- the headline ---------------------------------------------------------------------------------------


def _verdict(report: BanditReport) -> Iterator[tuple[str, str]]:
    """Sentences in plain words, each with its class: ``lead``, ``warning`` or ``note``."""
    if report["simulated"] is not None:
        yield from _verdict_of_simulation(report)
    elif report["log"] is not None:
        yield from _verdict_of_log(report, report["log"])
    for name, reason in report["reasons"].items():
        yield "warning", f"<b>This log cannot tell what {text(name)} would earn:</b> {text(reason)}."


def _verdict_of_simulation(report: BanditReport) -> Iterator[tuple[str, str]]:
    policies = _policies(report)
    leader = _best(report, policies, "reward")
    if leader is None:
        yield "warning", "No policy earned anything that is known, so there is nothing to compare."
        return
    among = f" of {number(len(policies))} policies" if len(policies) > 1 else ""
    words = (
        f"{strong(leader[0])} earned most{among}: {strong(number(leader[1]))} a decision "
        f"over {counted(report['events'], 'decision')}."
    )
    rivals = [r for name in report["baselines"] if (r := _best(report, [name], "reward")) is not None]
    for name, value in rivals:
        words += f" {_said(name)} earned {strong(number(value))}."
    yield "lead", words
    for name, value in rivals:
        if leader[1] <= value:
            yield "warning", f"<b>No policy beats {text(name)}</b>: so far, learning has not paid."
    late = _best(report, policies, "window_reward")
    if late is not None:
        who = f"{strong(late[0])} was still ahead" if late[0] == leader[0] else f"{strong(late[0])} was ahead"
        yield "", f"Over the last tenth of the decisions, {who}, with {strong(number(late[1]))} a decision."


def _said(name: str) -> str:
    return {"uniform": "Chance", "best_fixed": "Always choosing the one best action"}.get(name, text(name))


def _verdict_of_log(report: BanditReport, log: LogFindings) -> Iterator[tuple[str, str]]:
    by_name = {e["policy"]: e for e in log["estimates"] if e["estimator"] == log["primary"]}
    policies = _policies(report)
    found = [
        (by_name[n], v) for n in policies if n in by_name and (v := finite(by_name[n]["value"])) is not None
    ]
    if not found:
        yield "warning", "No policy has an estimate on this log, so there is nothing to compare."
        return
    best, value = max(found, key=lambda pair: pair[1])
    among = f" of {number(len(found))} policies" if len(found) > 1 else ""
    chance = by_name.get(_CHANCE)
    at_random = finite(chance["value"]) if chance is not None else None
    yield (
        "lead",
        f"{strong(best['policy'])} has the highest estimate{among}: {strong(number(value))} a decision "
        f"({text(log['primary'].upper())}{_within(best, log['alpha'])}), "
        f"from {counted(report['events'], 'logged decision')}. "
        f"What took those decisions earned {strong(number(log['mean_reward']))}"
        + (f"; chance would earn {strong(number(at_random))}." if at_random is not None else "."),
    )
    yield _against_chance(best, chance)


def _within(estimate: Estimated, alpha: float) -> str:
    lower, upper = finite(estimate["lower"]), finite(estimate["upper"])
    if lower is None or upper is None:
        return ""
    return f"; {_level(alpha)} % interval {number(lower)} to {number(upper)}"


def _level(alpha: float) -> str:
    return f"{100.0 * (1.0 - alpha):.6g}"


def _against_chance(best: Estimated, chance: Estimated | None) -> tuple[str, str]:
    """Say whether the interval of the best estimate is clear of chance, as far as intervals are known."""
    name, lower = strong(best["policy"]), finite(best["lower"])
    if lower is None:
        return (
            "warning",
            f"The estimate of {name} has no interval, so it may be luck: {text(best['reason'])}.",
        )
    if chance is None or finite(chance["upper"]) is None:
        return "warning", f"Chance has no interval on this log, so {name} cannot be compared with it."
    top = finite(chance["upper"]) or 0.0
    compared = f"the interval of {name} starts at {number(lower)}, that of chance ends at {number(top)}"
    if lower > top:
        return "", f"Its interval is <b>clear of chance</b>: {compared}."
    return (
        "warning",
        f"<b>Its interval is not clear of chance</b>: {compared}. "
        f"This log does not prove that {name} is better than choosing at random.",
    )


# --- simulation -----------------------------------------------------------------------------------------


def _view(report: BanditReport, simulated: Simulated) -> View:
    """Return the curves as a race is drawn from: of rewards first, then of what else is known."""
    return View(
        {
            "name": report["name"],
            "source": report["source"],
            "task": "bandit",
            "events": report["events"],
            "seconds": report["seconds"],
            "digest": report["digest"],
            "version": report["version"],
            "rejected": report["rejected"],
            "primary": "reward",
            "higher_is_better": {"reward": True, "total_reward": True, "regret": False},
            "window": simulated["window"],
            "curves": {
                "events": simulated["events"],
                "series": simulated["curves"],
                "baselines": report["baselines"],
            },
            "table": report["table"],
            "drifts": [],
            "promotions": [],
            "gate": [],
            "decisions": [],
            "notes": [],
            "marks": report["marks"],
        }
    )


def _race(view: View) -> str:
    """One chart, and where there is a script, a choice of what it shows."""
    title, events = "What each policy earned", view.report["curves"]["events"]
    if not events or not view.metrics:
        return section("race-title", title, '<p class="hint">There are no curves: nothing was decided.</p>')
    metric = view.metrics[0]
    kind = view.start_kind(metric)
    lines = view.lines(metric, kind)
    axis = value_axis(lines, higher_is_better=view.higher(metric))
    flags = [
        Flag(
            event=mark["event"],
            kind="mark",
            label=clean(mark["text"]),
            who="",
            detail=f"event {number(mark['event'])}: {mark['text']}",
        )
        for mark in view.report["marks"]
    ]
    ends = (f"{line.name} {number(line.values[-1] if line.values else None)}" for line in lines)
    chart = race_chart(
        events,
        lines,
        axis,
        last=view.last,
        flags=flags,
        bands=(),
        title=f"{capital(metric_name(metric))} of {', '.join(view.drawn)}",
        description=f"{view.caption(metric, kind)} In the end: {', '.join(ends)}.",
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
    )


def _tooltip(name: str) -> str:
    return f' title="baseline: {text(_RULES[name])}"' if name in _RULES else ""


def _choices(report: BanditReport, simulated: Simulated) -> str:
    actions = simulated["actions"]
    classes = [f"l{i % _COLOURS}" for i in range(len(actions))]
    others = any(sum(row) < 1.0 - 1e-9 for rows in simulated["shares"].values() for row in rows)
    named = [*zip(classes, actions, strict=True), *([(OTHER, "other actions")] if others else [])]
    legend = "".join(
        f'<li class="{css}"><svg class="swatch" width="14" height="12" aria-hidden="true">'
        f'<rect class="{css}" width="14" height="12" rx="2"/></svg> <bdi>{text(name)}</bdi></li>'
        for css, name in named
    )
    mark = report["marks"][0]["event"] if report["marks"] else None
    figures = "".join(
        f'<figure><figcaption><bdi class="{_css(report, name)}">{text(name)}</bdi></figcaption>'
        f'<div class="frame">{_choice(simulated, rows, classes, mark, i, name)}</div></figure>'
        for i, (name, rows) in enumerate(simulated["shares"].items())
    )
    marked = " The dashed line is where the rewards change." if mark is not None else ""
    return section(
        "choice-title",
        "What each policy chose",
        '<p class="hint">Share of each action as time went by. A policy that explores keeps some of every '
        f"colour; one that follows the context shows many.{marked}</p>",
        f'<ul class="legend">{legend}</ul>',
        f'<div class="trials">{figures}</div>',
    )


def _choice(
    simulated: Simulated,
    rows: Sequence[Sequence[float]],
    classes: Sequence[str],
    mark: int | None,
    i: int,
    name: str,
) -> str:
    final = rows[-1] if rows else []
    ends = (f"{a} {100.0 * share:.0f} %" for a, share in zip(simulated["actions"], final, strict=False))
    return share_chart(
        simulated["stretches"],
        rows,
        classes,
        mark=mark,
        key=f"choice-{i}",
        title=f"Share of each action that {name} chose",
        description=f"At last: {', '.join(ends)}.",
    )


# --- a log ----------------------------------------------------------------------------------------------


def _estimates(report: BanditReport, log: LogFindings) -> str:
    ranges = [
        Range(
            name=f"{each['policy']}, {each['estimator'].upper()}",
            css=_css(report, each["policy"]),
            value=each["value"],
            lower=each["lower"],
            upper=each["upper"],
            note="no estimate",
        )
        for each in log["estimates"]
    ]
    axis = interval_axis([v for r in ranges for v in (r.value, r.lower, r.upper)] + [log["mean_reward"]])
    known = (f"{r.name} {number(r.value)}" for r in ranges)
    sizes = "".join(
        f'<tr><th scope="row">{swatch(_css(report, name))}<bdi>{text(name)}</bdi></th>'
        f"<td>{number(scores.get('ess'))}</td><td>{number(scores.get('max_weight'))}</td></tr>"
        for name, scores in report["table"].items()
        if "ess" in scores or "max_weight" in scores
    )
    return section(
        "estimate-title",
        "What each policy would earn",
        '<p class="hint">A dot is an estimate of the mean reward, the bar its '
        f"{_level(log['alpha'])} % interval, which holds at every moment of the log at once. Where bars of "
        "two policies overlap, the log may not tell them apart.</p>",
        '<div class="frame">'
        + interval_chart(
            ranges,
            axis,
            reference=log["mean_reward"],
            reference_name="the log itself",
            key="intervals",
            title="Estimated mean reward of each policy",
            description=f"{', '.join(known)}; the log itself earned {number(log['mean_reward'])}.",
        )
        + "</div>",
        *_missing(report, log),
        '<p class="hint">How much the log says about each policy: few effective decisions or a large weight '
        "mean that a handful of decisions make the estimate.</p>"
        '<div class="scroll"><table class="scores"><thead><tr><th scope="col">policy</th>'
        f'<th scope="col">effective sample size, of {number(report["events"])}</th>'
        f'<th scope="col">largest weight</th></tr></thead><tbody>{sizes}</tbody></table></div>'
        if sizes
        else "",
    )


def _missing(report: BanditReport, log: LogFindings) -> Iterator[str]:
    """Say why estimators give no value or no interval, where the headline has not said so."""
    reasons: dict[str, dict[str, None]] = {}
    for each in log["estimates"]:
        if each["reason"] and each["policy"] not in report["reasons"]:
            reasons.setdefault(each["reason"], {})[each["estimator"].upper()] = None
    for reason, estimators in reasons.items():
        yield f'<p class="hint"><b>{text(", ".join(estimators))}</b>: {text(reason)}.</p>'


def _what_was_logged(log: LogFindings) -> str:
    bars = [
        Bar(name=name, css=f"l{i % _COLOURS}", count=count) for i, (name, count) in enumerate(log["actions"])
    ]
    if log["other_actions"]:
        bars.append(Bar(name="other actions", css=OTHER, count=log["other_actions"]))
    bins = log["propensities"]
    total = sum(count for _, _, count in bins) or 1
    listed = (f"{number(low)} to {number(high)}: {100.0 * count / total:.1f} %" for low, high, count in bins)
    return section(
        "log-title",
        "What was logged",
        '<div class="trials">'
        "<figure><figcaption>How likely the logged actions were when they were chosen. Far to the left lie "
        'rare ones, which weigh much.</figcaption><div class="frame">'
        + histogram(
            bins,
            css="l0",
            key="propensity",
            title="Histogram of logged propensities",
            description=f"Share of decisions by propensity: {'; '.join(listed)}.",
        )
        + "</div></figure>"
        '<figure><figcaption>Which actions were chosen.</figcaption><div class="frame">'
        + bar_chart(
            bars,
            key="actions",
            title="How often each action was logged",
            description="; ".join(f"{bar.name}: {number(bar.count)}" for bar in bars) + ".",
        )
        + "</div></figure></div>",
    )


# --- the table ------------------------------------------------------------------------------------------


def _table(report: BanditReport) -> str:
    table = report["table"]
    every = dict.fromkeys(column for scores in table.values() for column in scores)
    ends = {f"{column}_{end}" for column in every for end in ("lower", "upper")}
    columns = [column for column in every if column not in ends]
    if not columns:
        return ""
    body = _rows(report, columns, _policies(report))
    below = _rows(report, columns, [name for name in report["baselines"] if name in table])
    heads = "".join(_head(column) for column in columns)
    baselines = f'<tbody class="baselines">{below}</tbody>' if below else ""
    return section(
        "table-title",
        "Final scores",
        '<p class="hint">Over all events. ↑ higher is better, ↓ lower is better; intervals stand in '
        "brackets. Baselines stand apart, below.</p>",
        '<div class="scroll"><table class="scores">'
        f'<thead><tr><th scope="col">policy</th>{heads}</tr></thead><tbody>{body}</tbody>'
        f"{baselines}</table></div>",
    )


def _head(column: str) -> str:
    name, higher = _COLUMNS.get(column, (column.upper(), True))
    return (
        f'<th scope="col" data-higher="{int(bool(higher))}">{text(name)}&#160;'
        f'<span aria-hidden="true">{"↑" if higher else "↓"}</span></th>'
    )


def _rows(report: BanditReport, columns: Sequence[str], names: Sequence[str]) -> str:
    def cell(name: str, column: str) -> str:
        scores = report["table"][name]
        value, lower, upper = (finite(scores.get(f"{column}{end}")) for end in ("", "_lower", "_upper"))
        raw = "" if value is None else f' data-value="{value!r}"'
        bounds = (
            "" if lower is None or upper is None else f" <small>[{number(lower)}, {number(upper)}]</small>"
        )
        return f"<td{raw}>{number(value)}{bounds}</td>"

    return "".join(
        f'<tr><th scope="row"{_tooltip(name)}>{swatch(_css(report, name))}<bdi>{text(name)}</bdi></th>'
        f"{''.join(cell(name, column) for column in columns)}</tr>"
        for name in names
    )
