"""What of the past is still known: the section on anchors, and its charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.report.charts import (
    STRETCH,
    Axis,
    Line,
    finite,
    grid,
    line_path,
    number,
    percent,
    text,
    value_axis,
)
from penstock.report.data import Remembered, Value
from penstock.report.parts import section, swatch
from penstock.report.view import View

__all__ = ["WORDS", "memory"]

WORDS: Final = (
    ("anchor", "an event that was set aside: predicted, but never learned, and asked about again later."),
    ("stratum", "a stretch of the stream, whose anchors tell what is still known of it."),
    (
        "backward transfer",
        "how much better a stratum is predicted now than when it ended; below 0, it was forgotten.",
    ),
    ("average forgetting", "how much worse strata are predicted now than they have ever been."),
)

_CHART_PX: Final = 150.0
_TOP_PX: Final = 14.0
_FAINTEST: Final = 0.35  # of the newest stratum's line


def memory(view: View) -> str:
    """Return the section; nothing if no anchors were kept, or not for long enough."""
    remembered = view.report.get("memory", [])
    if not remembered:
        return ""
    lines = [
        Line(name="", css="", baseline=False, values=stratum["scores"])
        for one in remembered
        for stratum in one["strata"]
    ]
    y = value_axis(lines, higher_is_better=True)
    return section(
        "memory-title",
        "What is still known of the past",
        '<p class="hint">Some events of every stretch of the stream, its anchors, are predicted but never '
        f"learned, and asked about again later. Each line is one stratum: {text(_measured(view))} on its "
        "anchors, from its end on; the older, the darker. A line that falls is knowledge that is lost.</p>",
        f'<div class="trials">{"".join(_figure(view, i, one, y) for i, one in enumerate(remembered))}</div>',
        _table(view, remembered),
    )


def _measured(view: View) -> str:
    return "1 less the loss" if view.report["task"] == "regression" else "accuracy"


def _figure(view: View, i: int, one: Remembered, y: Axis) -> str:
    css, learner = view.css(one["learner"]), text(one["learner"])
    return (
        f'<figure><figcaption><bdi class="{css}">{learner}</bdi> '
        f'<span class="badge">average forgetting {number(one["average_forgetting"])}</span></figcaption>'
        f'<div class="frame">{_chart(view, i, one, y)}</div></figure>'
    )


def _chart(view: View, i: int, one: Remembered, y: Axis) -> str:
    x = Axis(0.0, float(max(view.last, 1)), ())
    bottom = _TOP_PX + _CHART_PX
    strata = one["strata"]
    paths, labels = [], []
    for place, stratum in enumerate(strata):
        strength = 1.0 - (1.0 - _FAINTEST) * place / max(len(strata) - 1, 1)
        path = line_path(stratum["events"], stratum["scores"], x, y, _CHART_PX)
        paths.append(f'<path class="line {view.css(one["learner"])}" opacity="{strength:.2f}" d="{path}"/>')
        known = [(event, score) for event, score in zip(stratum["events"], stratum["scores"], strict=False)]
        first = next(((event, value) for event, score in known if (value := finite(score)) is not None), None)
        if first is not None:
            height = _TOP_PX + _CHART_PX * (1.0 - y.share(min(max(first[1], y.low), y.high)))
            labels.append(
                f'<text x="{percent(x.share(first[0]))}" y="{max(height - 5.0, 10.0):.1f}">{place + 1}</text>'
            )
    return (
        f'<svg role="img" aria-labelledby="memory-{i}-title memory-{i}-desc" height="{bottom + 24:.0f}">'
        f'<title id="memory-{i}-title">What {text(one["learner"])} still knows of each stratum</title>'
        f'<desc id="memory-{i}-desc">{text(_measured(view))} on anchors of {len(strata)} strata, by event; '
        "the table below lists them.</desc>"
        f'<g class="grid">{grid(y, _TOP_PX, _CHART_PX)}</g>'
        f'<g class="axis"><line x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="first" x="0" y="{bottom + 16}">event 0</text>'
        f'<text class="last" x="100%" y="{bottom + 16}">{number(view.last)}</text></g>'
        f'<svg x="0" y="{_TOP_PX}" width="100%" height="{_CHART_PX:.0f}" '
        f'viewBox="0 0 {STRETCH:.0f} {_CHART_PX:.0f}" preserveAspectRatio="none">{"".join(paths)}</svg>'
        f'<g class="axis">{"".join(labels)}</g></svg>'
    )


def _table(view: View, remembered: Sequence[Remembered]) -> str:
    heads = "".join(
        f'<th scope="col">{place}: from event {number(stratum["first"])}</th>'
        for place, stratum in enumerate(remembered[0]["strata"], start=1)
    )
    rows = "".join(_row(view, one) for one in remembered)
    return (
        f'<p class="hint">Of each stratum, {text(_measured(view))} when it ended → now. '
        "The stratum that ended last is left out: nothing of it can have been forgotten yet.</p>"
        '<div class="scroll"><table class="scores"><thead><tr><th scope="col">learner</th>'
        '<th scope="col">average forgetting&#160;<span aria-hidden="true">↓</span></th>'
        f'<th scope="col">backward transfer&#160;<span aria-hidden="true">↑</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(view: View, one: Remembered) -> str:
    learner = one["learner"]
    cells = [number(one["average_forgetting"]), number(one["backward_transfer"])]
    cells += [f"{_ends(stratum['scores'], 0)} → {_ends(stratum['scores'], -1)}" for stratum in one["strata"]]
    return (
        f'<tr><th scope="row">{swatch(view.css(learner))}<bdi>{text(learner)}</bdi></th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _ends(scores: Sequence[Value], place: int) -> str:
    return number(scores[place] if scores else None)
