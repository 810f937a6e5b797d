"""SVG charts, drawn in Python: numbers, axes, lines with gaps, labels that keep out of each other's way.

A chart is as wide as the page gives it and has a fixed height in pixels. So x positions are percentages,
y positions pixels; only the lines live in a nested, stretched coordinate system (`STRETCH` wide), and their
strokes do not scale. Text therefore keeps its size at any width, with no script. Colours come from the
page's classes: ``l0`` … ``l7`` for learners, ``b0`` … ``b2`` for baselines.
"""

from __future__ import annotations

import html
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "STRETCH",
    "Axis",
    "Band",
    "Flag",
    "Line",
    "clean",
    "evidence_axis",
    "evidence_chart",
    "finite",
    "grid",
    "lanes",
    "line_path",
    "number",
    "off_chart",
    "percent",
    "race_chart",
    "scatter_apart",
    "shortened",
    "text",
    "ticks",
    "value_axis",
]

STRETCH: Final = 1000.0  # width of the lines' own coordinate system
RACE_PX: Final = 300.0  # height of the plot of every learner
EVIDENCE_PX: Final = 130.0

_LIMIT: Final = 1e280  # beyond it differences and multiples of values may overflow
_WARM_UP: Final = 50  # the first 1/50 of a curve is noise and does not set the scale
_LEARNER_REACH: Final = 8.0  # in levels of the best learner: farther values are off the chart …
_BASELINE_REACH: Final = 2.0  # … so that a hopeless learner or baseline does not flatten the others
_LANE_PX: Final = 17.0
_LANES: Final = 4
_CHAR_PX: Final = 6.8  # a generous average at 12 px
_WIDE_PX: Final = 600.0  # a plot is at least so wide where the style sheet shows the labels laid out for it
_NARROW_PX: Final = 300.0
_GROUP: Final = 0.03  # flags of one kind that are this near (share of the axis) share a label
_LABEL_CHARS: Final = 15
_END_PX: Final = 15.0  # between two labels at the lines' ends

# What XML 1.0 cannot hold, what a terminal would obey, and what would turn the rest of a line around.
_UNSAFE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)


def clean(value: object) -> str:
    """`value` as a string of characters that are safe to show; others become U+FFFD."""
    return _UNSAFE.sub("\ufffd", str(value))


def text(value: object) -> str:
    r"""Escape `value` for HTML and SVG, in text and in quoted attributes.

    Examples
    --------
    >>> text("<b>&\x00")
    '&lt;b&gt;&amp;�'
    """
    return html.escape(clean(value))


def shortened(name: str, chars: int = _LABEL_CHARS) -> str:
    """`name`, cut to `chars` characters."""
    return name if len(name) <= chars else name[: chars - 1] + "…"


def finite(value: float | None) -> float | None:
    """`value` within ±1e280, or None if it is no number."""
    if value is None or not math.isfinite(value):
        return None
    return max(-_LIMIT, min(_LIMIT, float(value)))


def number(value: float | None) -> str:
    """Format with four significant digits, whole numbers and thousands with separators.

    Examples
    --------
    >>> number(0.08835), number(12345.678), number(45312), number(1.0), number(0.5), number(2e-7)
    ('0.08835', '12,346', '45,312', '1.000', '0.5000', '2.000e-7')
    >>> number(1e30), number(None), number(float("nan")), number(0.0), number(999.96)
    ('1.000e30', '–', '–', '0', '1,000')
    """
    known = finite(value)
    if value is None or known is None:
        return "\u2013"
    if known == 0 or (isinstance(value, int) and abs(value) < 1e15):
        return f"{known:,.0f}"
    size = abs(known)
    if size < 1e-4 or size >= 1e15:
        mantissa, _, exponent = f"{known:.3e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if size >= 999.95:
        return f"{known:,.0f}"
    return f"{known:#.4g}"


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale with its ticks.

    Attributes
    ----------
    low, high : float
        Ends of the scale; ``low < high``.
    ticks : tuple of (value, label)
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Where `value` lies: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve. `values` has an entry per event of the axis; None is a gap."""

    name: str
    css: str
    baseline: bool
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A vertical line at an event. `who` joins the label of its neighbours of the same kind."""

    event: int
    kind: str
    label: str
    who: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What one learner served, from `start` to `stop`, and the events at which it was refreshed."""

    start: int
    stop: int
    css: str
    detail: str
    refreshes: Sequence[tuple[int, str]] = field(default=())


def _step(span: float, count: int) -> float:
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next((m * power for m in (1.0, 2.0, 5.0) if rough <= m * power), 10.0 * power)


def ticks(low: float, high: float, count: int = 5) -> tuple[tuple[float, str], ...]:
    """Round values from `low` to `high`, about `count` of them, with labels of equal precision.

    Examples
    --------
    >>> [label for _, label in ticks(0.0, 1.0)]
    ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    >>> [label for _, label in ticks(0.0, 45312.0)]
    ['0', '10,000', '20,000', '30,000', '40,000']
    """
    step = _step(high - low, count)
    values = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    if max(abs(low), abs(high)) >= 1e7 or step < 1e-6:
        return tuple((value, f"{value:.4g}") for value in values)
    decimals = max(0, -math.floor(math.log10(step)))
    return tuple((value, f"{value + 0.0:,.{decimals}f}") for value in values)


def value_axis(lines: Sequence[Line], *, higher_is_better: bool) -> Axis:
    """Choose a scale on which the learners can be told apart.

    The best learner sets it; the others, and the baselines, join as long as they are not so far away
    that they would flatten it. The first points of a curve, averages over a few events, do not count.
    """
    skip = max((len(line.values) for line in lines), default=0) // _WARM_UP
    settled = [(line, _known(line.values[skip:]) or _known(line.values)) for line in lines]
    settled = [(line, values) for line, values in settled if values]
    contest = [pair for pair in settled if not pair[0].baseline] or settled
    if not contest:
        return Axis(0.0, 1.0, ticks(0.0, 1.0))
    choose = max if higher_is_better else min
    best, values = choose(contest, key=lambda pair: statistics.median_low(pair[1]))
    low, high = min(values), max(values)
    level = max(high - low, abs(statistics.median_low(values)))
    shown = list(values)
    for line, others in settled:
        if line is not best:
            reach = level * (_BASELINE_REACH if line.baseline else _LEARNER_REACH)
            shown += [v for v in others if low - reach <= v <= high + reach]
    return _padded(min(shown), max(shown))


def _known(values: Sequence[float | None]) -> list[float]:
    return [known for value in values if (known := finite(value)) is not None]


def _padded(low: float, high: float) -> Axis:
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)) or span < 1e-280:  # a constant: give it room
        span = max(abs(low), abs(high)) * 0.2 or 1.0
        bottom, top = low - span / 2, high + span / 2
    else:
        bottom, top = low - 0.05 * span, high + 0.05 * span
    if low >= 0.0:
        bottom = max(bottom, 0.0)
    if high <= 1.0 and low >= -1.0:  # what looks like a share stays one
        top = min(top, 1.0)
    if not bottom < top:
        bottom, top = bottom - 0.5, top + 0.5
    return Axis(bottom, top, ticks(bottom, top))


def off_chart(line: Line, y: Axis) -> bool:
    """Whether `line` has values but none of them lies on the scale."""
    known = _known(line.values)
    return bool(known) and not any(y.low <= value <= y.high for value in known)


def line_path(events: Sequence[int], values: Sequence[float | None], x: Axis, y: Axis, height: float) -> str:
    """Return the ``d`` of an SVG path; a gap in `values` breaks the line, a lone point becomes a dot."""
    pieces: list[str] = []
    pen_down = False
    for event, value in zip(events, values, strict=False):
        known = finite(value)
        if known is None:
            pen_down = False
            continue
        across = STRETCH * x.share(event)
        down = height * min(2.0, max(-1.0, 1.0 - y.share(known)))  # what is off the chart stays near it
        pieces.append(f"{'L' if pen_down else 'M'}{across:.1f} {down:.1f}{'' if pen_down else 'h0'}")
        pen_down = True
    return "".join(pieces)


def scatter_apart(wanted: Sequence[float], gap: float, high: float) -> list[float]:
    """Move positions as little as needed to be `gap` apart within ``0 … high``, in their own order.

    Examples
    --------
    >>> scatter_apart([10.0, 12.0, 290.0], 15.0, 300.0)
    [10.0, 25.0, 290.0]
    >>> scatter_apart([299.0, 300.0], 15.0, 300.0)
    [285.0, 300.0]
    """
    placed = list(wanted)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    floor = -math.inf
    for i in order:
        floor = placed[i] = max(placed[i], floor + gap)
    ceiling = high + gap
    for i in reversed(order):
        ceiling = placed[i] = min(placed[i], ceiling - gap)
    return placed


def percent(share: float) -> str:
    """Return an x position for an attribute."""
    return f"{100.0 * share:.2f}%"


def grid(y: Axis, top: float, height: float) -> str:
    """Return the horizontal lines of a plot with their labels to the left."""
    rows = []
    for value, label in y.ticks:
        at = top + height * (1.0 - y.share(value))
        rows.append(
            f'<line x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="-8" y="{at + 4:.1f}">{text(label)}</text>'
        )
    return "".join(rows)


def _x_labels(x: Axis, bottom: float) -> str:
    """Tick labels under the plot; every second one only where there is room for it."""
    pieces = []
    for i, (value, label) in enumerate(x.ticks):
        at = percent(x.share(value))
        css = ' class="spare"' if i % 2 else ""
        pieces.append(
            f'<g{css}><line class="tick" x1="{at}" x2="{at}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>'
            f'<text x="{at}" y="{bottom + 19:.1f}">{text(label)}</text></g>'
        )
    return "".join(pieces)


def _grouped(flags: Sequence[Flag], x: Axis) -> list[tuple[float, Flag, str]]:
    """One label for neighbouring flags of the same kind: (share of the axis, first flag, label)."""
    groups: list[list[Flag]] = []
    open_groups: dict[str, list[Flag]] = {}
    for flag in sorted(flags, key=lambda flag: flag.event):
        group = open_groups.get(flag.kind)
        if group is None or x.share(flag.event) - x.share(group[0].event) > _GROUP or not flag.who:
            group = open_groups[flag.kind] = []
            groups.append(group)
        group.append(flag)
    labelled = []
    for group in groups:
        names = list(dict.fromkeys(flag.who for flag in group if flag.who))
        who = ", ".join(shortened(name) for name in names) if len(names) <= 3 else f"{len(names)} learners"
        label = f"{group[0].label}: {who}" if who else shortened(group[0].label, 2 * _LABEL_CHARS)
        labelled.append((x.share(group[0].event), group[0], label))
    return labelled


def lanes(labels: Sequence[tuple[float, str]], width: float) -> list[tuple[int, bool] | None]:
    """Give each label, left to right, the topmost lane that is free: (lane, whether it ends at its line).

    Parameters
    ----------
    labels : sequence of (share of the axis, text), by position
    width : float
        Of the plot, in px.

    Returns
    -------
    list
        None where all lanes are taken: that flag stays without a label.

    Examples
    --------
    >>> lanes([(0.1, "drift: sgd"), (0.12, "drift: vw"), (0.95, "drift: trees")], 600.0)
    [(0, False), (1, False), (0, True)]
    """
    taken: list[list[tuple[float, float]]] = [[] for _ in range(_LANES)]
    placed: list[tuple[int, bool] | None] = []
    for share, label in labels:
        at, size = share * width, len(label) * _CHAR_PX + 14.0
        leftwards = at + size > width and at > width / 2
        start, stop = (at - size, at + 6.0) if leftwards else (at - 6.0, at + size)
        lane = next(
            (
                i
                for i, spans in enumerate(taken)
                if all(stop <= s or start >= e for s, e in spans)
                and not any(s < at < e for below in taken[i + 1 :] for s, e in below)  # its line goes down
            ),
            None,
        )
        if lane is not None:
            taken[lane].append((start, stop))
        placed.append(None if lane is None else (lane, leftwards))
    return placed


def _flags(flags: Sequence[Flag], x: Axis, height: float) -> tuple[str, float]:
    """Vertical lines with their labels above the plot, and the height that the labels need."""
    groups = _grouped(flags, x)
    layouts = [
        (css, lanes([(share, label) for share, _, label in groups], width))
        for css, width in (("wide", _WIDE_PX), ("narrow", _NARROW_PX))
    ]
    used = max((place[0] + 1 for _, places in layouts for place in places if place), default=0)
    top = used * _LANE_PX + 6.0
    pieces = [
        f'<svg class="flag {flag.kind}" x="{percent(x.share(flag.event))}">'
        f"<title>{text(flag.detail)}</title>"
        f'<line x1="0" x2="0" y1="{top:.1f}" y2="{top + height:.1f}"/>'
        f'<path d="M-4.5 {top - 5:.1f}h9L0 {top + 3:.1f}z"/></svg>'
        for flag in flags
    ]
    for css, places in layouts:
        for (share, flag, label), place in zip(groups, places, strict=True):
            if place is None:
                continue
            base = place[0] * _LANE_PX + 12.0
            offset, anchor = (-6, "end") if place[1] else (6, "start")
            pieces.append(
                f'<svg class="flag {flag.kind} {css}" x="{percent(share)}">'
                f'<line class="stem" x1="0" x2="0" y1="{base - 10:.1f}" y2="{top:.1f}"/>'
                f'<text x="{offset}" y="{base:.1f}" text-anchor="{anchor}">{text(label)}</text></svg>'
            )
    return "".join(pieces), top


def _bands(bands: Sequence[Band], x: Axis, top: float) -> str:
    pieces = [f'<text class="side" x="-8" y="{top + 10:.1f}">serving</text>']
    for i, band in enumerate(bands):
        start, width = x.share(band.start), max(0.0, x.share(band.stop) - x.share(band.start))
        pieces.append(
            f'<rect class="{band.css}" x="{percent(start)}" width="{percent(width)}" '
            f'y="{top:.1f}" height="12">'
            f"<title>{text(band.detail)}</title></rect>"
        )
        if i:  # the first model replaced nothing
            pieces.append(
                f'<svg class="replace" x="{percent(start)}"><title>{text(band.detail)}</title>'
                f'<path d="M-1.5 {top - 6:.1f}h3v24h-3z"/></svg>'
            )
    for band in bands:
        for event, detail in band.refreshes:
            at = percent(x.share(event))
            pieces.append(
                f'<line class="refresh" x1="{at}" x2="{at}" y1="{top + 5:.1f}" y2="{top + 12:.1f}">'
                f"<title>{text(detail)}</title></line>"
            )
    return "".join(pieces)


def race_chart(
    events: Sequence[int],
    lines: Sequence[Line],
    y: Axis,
    *,
    last: int,
    flags: Sequence[Flag],
    bands: Sequence[Band],
    title: str,
    description: str,
    key: str = "",
) -> str:
    """Draw every learner and baseline over the events, with flags above and what served below.

    Parameters
    ----------
    events : sequence of int
        The x axis of every line.
    last : int
        Where the axis ends; it starts at 0.
    key : str
        Makes the ids unique on a page with several such charts; the script serves the one without.
    """
    x = Axis(0.0, float(max(last, 1)), ticks(0.0, float(max(last, 1)), 6))
    flag_shapes, top = _flags(flags, x, RACE_PX)
    bottom = top + RACE_PX + (30.0 if bands else 0.0)
    ends = [next((v for v in reversed(line.values) if finite(v) is not None), None) for line in lines]
    heights = [
        RACE_PX / 2 if end is None else RACE_PX * min(1.0, max(0.0, 1.0 - y.share(finite(end) or 0.0)))
        for end in ends
    ]
    places = scatter_apart(heights, _END_PX, RACE_PX)
    paths, labels = [], []
    for i, (line, at) in enumerate(zip(lines, places, strict=True)):
        paths.append(
            f'<path class="line {line.css}" data-series="{i}" '
            f'd="{line_path(events, line.values, x, y, RACE_PX)}"/>'
        )
        gone = " hidden" if off_chart(line, y) else ""
        labels.append(
            f'<text class="end {line.css}{gone}" data-series="{i}" x="100%" dx="8" y="{top + at + 4:.1f}">'
            f"{text(shortened(clean(line.name)))}</text>"
        )
    return (
        f'<svg id="{key}plot" role="img" aria-labelledby="{key}plot-title {key}plot-desc" '
        f'height="{bottom + 42:.0f}" '
        f'data-top="{top:.0f}" data-height="{RACE_PX:.0f}" data-last="{x.high:.0f}">'
        f'<title id="{key}plot-title">{text(title)}</title>'
        f'<desc id="{key}plot-desc">{text(description)}</desc>'
        f'<g class="grid" id="{key}grid">{grid(y, top, RACE_PX)}</g>'
        f'<g class="axis"><line x1="0" x2="100%" y1="{bottom:.1f}" y2="{bottom:.1f}"/>{_x_labels(x, bottom)}'
        f'<text class="unit" x="50%" y="{bottom + 38:.1f}">events</text></g>'
        f"{flag_shapes}"
        f'<svg x="0" y="{top:.1f}" width="100%" height="{RACE_PX:.0f}" '
        f'viewBox="0 0 {STRETCH:.0f} {RACE_PX:.0f}" preserveAspectRatio="none">'
        f"{''.join(reversed(paths))}</svg>"
        f"{''.join(labels)}{_bands(bands, x, top + RACE_PX + 10.0) if bands else ''}</svg>"
    )


_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(exponent: int) -> str:
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:,.{max(0, -exponent)}f}"
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def evidence_axis(log10_values: Sequence[float | None], threshold: float) -> Axis:
    """Scale of powers of ten that holds 1 (where every test starts), the evidence and its threshold.

    Examples
    --------
    >>> [label for _, label in evidence_axis([0.0, -1.5, 1.7], 1.3).ticks]
    ['0.1', '1', '10']
    """
    known = [*_known(log10_values), finite(threshold) or 0.0, 0.0]
    low, high = min(known), max(known)
    room = 0.08 * max(high - low, 1.0)
    low, high = low - room, high + room
    step = max(1, math.ceil(_step(high - low, 4)))
    powers = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    return Axis(low, high, tuple((float(power), _power_of_ten(power)) for power in powers[:100]))


def evidence_chart(
    events: Sequence[int],
    log10_values: Sequence[float | None],
    threshold: float,
    *,
    css: str,
    key: str,
    title: str,
    description: str,
) -> str:
    """Draw a candidate's e-value (on a log scale) over the events it was tried on, with the threshold.

    Parameters
    ----------
    key : str
        Makes the ids of this chart's title and description unique on the page.
    """
    y = evidence_axis(log10_values, threshold)
    first, last = (events[0], events[-1]) if events else (0, 1)
    x = Axis(float(first), float(max(last, first + 1)), ())
    top = 8.0
    needed = top + EVIDENCE_PX * (1.0 - y.share(finite(threshold) or 0.0))
    bottom = top + EVIDENCE_PX
    return (
        f'<svg role="img" aria-labelledby="{key}-title {key}-desc" height="{bottom + 24:.0f}">'
        f'<title id="{key}-title">{text(title)}</title><desc id="{key}-desc">{text(description)}</desc>'
        f'<g class="grid">{grid(y, top, EVIDENCE_PX)}</g>'
        f'<g class="axis"><line x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="first" x="0" y="{bottom + 16}">event {number(first)}</text>'
        f'<text class="last" x="100%" y="{bottom + 16}">{number(last)}</text></g>'
        f'<svg x="0" y="{top}" width="100%" height="{EVIDENCE_PX:.0f}" '
        f'viewBox="0 0 {STRETCH:.0f} {EVIDENCE_PX:.0f}" preserveAspectRatio="none">'
        f'<path class="line {css}" d="{line_path(events, log10_values, x, y, EVIDENCE_PX)}"/></svg>'
        f'<line class="needed" x1="0" x2="100%" y1="{needed:.1f}" y2="{needed:.1f}"/>'
        f'<text class="needed" x="4" y="{needed - 5:.1f}">needed: {number(_power(threshold))}</text></svg>'
    )


def _power(log10_value: float) -> float:
    return float(10.0 ** min(log10_value, 300.0))
