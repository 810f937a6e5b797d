"""SVG charts for policies: shares of actions over time, intervals, histograms, bars.

Made as those of `penstock.report.charts`: x positions are percentages, y positions pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.report.charts import STRETCH, Axis, clean, finite, grid, number, percent, shortened, text, ticks

__all__ = [
    "OTHER",
    "Bar",
    "Range",
    "bar_chart",
    "histogram",
    "interval_axis",
    "interval_chart",
    "share_chart",
]

OTHER: Final = "b1"  # class of what has no colour of its own

_SHARE_PX: Final = 120.0
_HISTOGRAM_PX: Final = 150.0
_ROW_PX: Final = 36.0
_NAME_CHARS: Final = 30
_MARGIN: Final = 0.04  # of the axis of intervals, at both ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """An estimate with its interval; None where it is not known. Without a value, `note` says why."""

    name: str
    css: str
    value: float | None
    lower: float | None
    upper: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How often something was counted."""

    name: str
    css: str
    count: int


def _image(key: str, title: str, description: str, height: float, inside: str) -> str:
    return (
        f'<svg role="img" aria-labelledby="{key}-title {key}-desc" height="{height:.0f}">'
        f'<title id="{key}-title">{text(title)}</title><desc id="{key}-desc">{text(description)}</desc>'
        f"{inside}</svg>"
    )


def _label(name: str, numbers: str, css: str, top: float) -> str:
    """Return the words above a row, with a halo that keeps them apart from the lines behind."""
    return (
        f'<text class="{css}" x="0" y="{top + 15:.1f}" fill="currentColor" font-weight="600" '
        f'paint-order="stroke" stroke="var(--card)" stroke-width="4">'
        f"{text(shortened(clean(name), _NAME_CHARS))}"
        f'<tspan font-weight="400" fill="var(--soft)" dx="8">{text(numbers)}</tspan></text>'
    )


def share_chart(
    stretches: Sequence[int],
    shares: Sequence[Sequence[float]],
    classes: Sequence[str],
    *,
    mark: int | None,
    key: str,
    title: str,
    description: str,
) -> str:
    """Draw how the shares of actions changed, stacked to 1; what is missing to 1 is on top, in grey.

    Parameters
    ----------
    stretches : sequence of int
        Last event of each; a stretch begins where the one before ended.
    shares : sequence of sequences of float
        Of each stretch, of each class.
    mark : int, optional
        An event to mark.
    """
    last = float(max(stretches, default=1))
    y = Axis(0.0, 1.0, ((0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")))
    top = 8.0
    bottom = top + _SHARE_PX
    areas = []
    floors = [0.0] * len(stretches)
    for i, css in enumerate([*classes, OTHER]):
        if i < len(classes):
            ceilings = [min(1.0, f + (finite(row[i]) or 0.0)) for f, row in zip(floors, shares, strict=True)]
        else:
            ceilings = [1.0] * len(stretches)
        steps = list(zip([0, *stretches], stretches, floors, ceilings, strict=False))
        if any(ceiling - floor > 1e-9 for _, _, floor, ceiling in steps):
            path = "".join(
                f"M{STRETCH * start / last:.1f} {_SHARE_PX * (1 - ceiling):.1f}H{STRETCH * stop / last:.1f}"
                f"V{_SHARE_PX * (1 - floor):.1f}H{STRETCH * start / last:.1f}z"
                for start, stop, floor, ceiling in steps
                if ceiling - floor > 1e-9
            )
            areas.append(f'<path class="{css}" fill="currentColor" shape-rendering="crispEdges" d="{path}"/>')
        floors = ceilings
    flag = ""
    if mark is not None:
        at = percent(mark / last)
        flag = f'<line class="needed" x1="{at}" x2="{at}" y1="{top - 6:.1f}" y2="{bottom:.1f}"/>'
    inside = (
        f'<g class="grid">{grid(y, top, _SHARE_PX)}</g>'
        f'<svg x="0" y="{top}" width="100%" height="{_SHARE_PX:.0f}" '
        f'viewBox="0 0 {STRETCH:.0f} {_SHARE_PX:.0f}" preserveAspectRatio="none">{"".join(areas)}</svg>{flag}'
        f'<g class="axis"><line x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="first" x="0" y="{bottom + 16}">event 0</text>'
        f'<text class="last" x="100%" y="{bottom + 16}">{number(int(last))}</text></g>'
    )
    return _image(key, title, description, bottom + 24.0, inside)


def interval_axis(values: Sequence[float | None]) -> Axis:
    """Choose a scale that holds all of `values`.

    Examples
    --------
    >>> [label for _, label in interval_axis([0.0, None, 1.0]).ticks]
    ['0.0', '0.5', '1.0']
    """
    known = [v for value in values if (v := finite(value)) is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-270):
        room = 0.1 * max(abs(low), abs(high)) or 0.5
    else:
        room = _MARGIN * (high - low)
    return Axis(low - room, high + room, ticks(low - room, high + room))


def interval_chart(
    ranges: Sequence[Range],
    x: Axis,
    *,
    reference: float | None,
    reference_name: str,
    key: str,
    title: str,
    description: str,
) -> str:
    """Draw estimates as dots on their intervals, one below the other, each with its name and numbers.

    Parameters
    ----------
    reference : float, optional
        A value to compare with, drawn from top to bottom and named above.
    """
    top = 22.0
    bottom = top + _ROW_PX * len(ranges) + 4.0
    pieces = []
    for value, label in x.ticks:
        at = percent(x.share(value))
        pieces.append(
            f'<g class="grid"><line x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/></g>'
            f'<g class="axis"><text x="{at}" y="{bottom + 17}">{text(label)}</text></g>'
        )
    known = finite(reference)
    if known is not None and x.low <= known <= x.high:
        at = percent(x.share(known))
        side, shift = ("end", -5) if x.share(known) > 0.5 else ("start", 5)
        pieces.append(
            f'<line class="needed" x1="{at}" x2="{at}" y1="4" y2="{bottom}"/>'
            f'<text class="needed" x="{at}" dx="{shift}" y="13" text-anchor="{side}">'
            f"{text(reference_name)}: {number(known)}</text>"
        )
    pieces += [_interval(each, x, top + _ROW_PX * i) for i, each in enumerate(ranges)]
    inside = f'{"".join(pieces)}<g class="axis"><line x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/></g>'
    return _image(key, title, description, bottom + 26.0, inside)


def _interval(each: Range, x: Axis, top: float) -> str:
    value, lower, upper = finite(each.value), finite(each.lower), finite(each.upper)
    numbers = number(value) if value is not None else each.note
    if lower is not None and upper is not None:
        numbers += f" [{number(lower)}, {number(upper)}]"
    middle = top + 25.0
    shapes = [_label(each.name, numbers, each.css, top)]
    if lower is not None and upper is not None:
        start, stop = (min(1.0, max(0.0, x.share(bound))) for bound in (lower, upper))
        shapes.append(
            f'<line class="line {each.css}" x1="{percent(start)}" x2="{percent(stop)}" '
            f'y1="{middle:.1f}" y2="{middle:.1f}"/>'
        )
    if value is not None:
        shapes.append(
            f'<circle class="{each.css}" fill="currentColor" r="4.5" cx="{percent(x.share(value))}" '
            f'cy="{middle:.1f}"/>'
        )
    return "".join(shapes)


def histogram(
    bins: Sequence[tuple[float, float, int]], *, css: str, key: str, title: str, description: str
) -> str:
    """Draw counts in bins of a logarithmic scale, ascending and without gaps; an open end is as wide."""
    tallest = max((count for _, _, count in bins), default=0)
    y = Axis(0.0, float(max(tallest, 1)) * 1.05, ticks(0.0, float(max(tallest, 1)) * 1.05, 4))
    y = Axis(y.low, y.high, tuple(tick for tick in y.ticks if tick[0] == int(tick[0])))
    top = 8.0
    bottom = top + _HISTOGRAM_PX
    width = 1.0 / max(1, len(bins))
    pieces = []
    for i, (low, high, count) in enumerate(bins):
        size = _HISTOGRAM_PX * y.share(count)
        pieces.append(
            f'<rect class="{css}" x="{percent(width * (i + 0.06))}" width="{percent(width * 0.88)}" '
            f'y="{bottom - size:.1f}" height="{size:.1f}">'
            f"<title>{number(low)} to {number(high)}: {number(count)}</title></rect>"
        )
    every = max(1, math.ceil(len(bins) / 6))
    edges = [low for low, _, _ in bins] + [high for _, high, _ in bins[-1:]]
    for i in range(len(edges) - 1, -1, -every):
        at = percent(width * i)
        pieces.append(
            f'<g class="axis"><line x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 5}"/>'
            f'<text x="{at}" y="{bottom + 19}">{_edge(edges[i])}</text></g>'
        )
    inside = (
        f'<g class="grid">{grid(y, top, _HISTOGRAM_PX)}</g>{"".join(pieces)}'
        f'<g class="axis"><line x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="unit" x="50%" y="{bottom + 38}">propensity (logarithmic)</text></g>'
    )
    return _image(key, title, description, bottom + 44.0, inside)


def _edge(value: float) -> str:
    """Three digits say where a bin ends.

    Examples
    --------
    >>> _edge(0.1), _edge(0.0158489), _edge(1e-6), _edge(1.0)
    ('0.1', '0.0158', '1e-06', '1')
    """
    return f"{value:.3g}"


def bar_chart(bars: Sequence[Bar], *, key: str, title: str, description: str) -> str:
    """Draw counts as bars, one below the other, each with its name and its share of all."""
    total = sum(bar.count for bar in bars) or 1
    largest = max((bar.count for bar in bars), default=0) or 1
    pieces = []
    for i, bar in enumerate(bars):
        top = _ROW_PX * i
        pieces.append(
            f"{_label(bar.name, f'{100.0 * bar.count / total:.1f} % · {number(bar.count)}', bar.css, top)}"
            f'<rect class="{bar.css}" x="0" width="{percent(bar.count / largest)}" '
            f'y="{top + 20:.1f}" height="9" rx="2"/>'
        )
    return _image(key, title, description, _ROW_PX * len(bars) + 4.0, "".join(pieces))
