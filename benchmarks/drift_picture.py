"""The picture of docs/drift.md: the evidence of a bet on the inputs, before and after one feature moves.

``python -m benchmarks.drift_picture > docs/input_drift.svg``
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from penstock.drift import InputDetector
from penstock.drift.features import Features
from penstock.drift.two_sample import TwoSample
from penstock.events import Batch

__all__ = ["picture"]

_EVENTS: Final = 9000
_CHANGE: Final = 6000
_EVERY: Final = 10_000
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 300, 56, 16, 34, 44
_LOWEST: Final = -2.0  # of the axis, in powers of ten: what is lost below is lost
_COLOURS: Final = {"line": "#0b6b74", "alarm": "#b3261e", "ink": "#57606a"}


def _stream() -> Batch:
    rng = np.random.default_rng(11)
    numbers = rng.normal(size=(_EVENTS, 10))
    numbers[_CHANGE:, 0] += 0.5
    return Batch.from_rows([{f"x{i}": value for i, value in enumerate(row)} for row in numbers.tolist()])


def _rings(detector: InputDetector, stream: Batch) -> int:
    found = detector.update(stream)
    assert found is not None
    return found.index


def _x(event: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * event / _EVENTS


def _y(power: float) -> float:
    highest = math.log10(_EVERY) + 0.5
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (highest - power) / (highest - _LOWEST)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "ink") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_COLOURS[colour]}">{text}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str = "ink", dashes: str = "none") -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_COLOURS[colour]}" '
        f'stroke-dasharray="{dashes}"/>'
    )


def picture() -> str:
    """Draw it."""
    stream = _stream()
    features = _rings(Features(false_alarm_every=_EVERY), stream)
    bet = TwoSample(false_alarm_every=_EVERY)
    evidence: list[float] = []
    for event in stream.events():
        found = bet.update(event)
        evidence.append(math.log10(max(found.statistic if found else bet.evidence, 10.0**_LOWEST)))
        if found:
            break
    last = len(evidence) - 1
    points = " ".join(
        f"{_x(i):.1f},{_y(power):.1f}" for i, power in enumerate(evidence) if i % 10 == 0 or i == last
    )
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>Evidence that the inputs changed, with a change at event {_CHANGE:,}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 16, "two_sample: stakes of the bet that new events can be told from old ones"),
        *(
            _text(_LEFT - 8, _y(power) + 4, f"10{exponent}", "end")
            for power, exponent in ((0, "⁰"), (2, "²"), (4, "⁴"))
        ),
        *(_text(_x(event), bottom + 18, f"{event:,}", "middle") for event in range(0, _EVENTS + 1, 1500)),
        _text((_LEFT + right) / 2, _HEIGHT - 8, "events", "middle"),
        _line(_LEFT, bottom, right, bottom),
        _line(_LEFT, _y(math.log10(_EVERY)), right, _y(math.log10(_EVERY)), "alarm", "4 4"),
        _text(_LEFT + 6, _y(math.log10(_EVERY)) - 6, f"false_alarm_every: {_EVERY}", colour="alarm"),
        _line(_x(_CHANGE), _TOP, _x(_CHANGE), bottom, dashes="2 3"),
        _text(_x(_CHANGE) - 6, bottom - 10, "one of ten features moves by half a deviation", "end"),
        f'<polyline fill="none" stroke="{_COLOURS["line"]}" stroke-width="1.5" points="{points}"/>',
        f'<circle cx="{_x(last):.1f}" cy="{_y(evidence[last]):.1f}" r="4" fill="{_COLOURS["alarm"]}"/>',
        _text(
            _x(last) + 8,
            _y(evidence[last]) + 18,
            f"two_sample rings: {len(evidence):,}",
            colour="alarm",
        ),
        _line(_x(features), bottom - 8, _x(features), bottom + 2, "alarm"),
        _text(_x(features) + 8, bottom - 10, f"features rings: {features + 1:,}", colour="alarm"),
        "</svg>",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(picture())
