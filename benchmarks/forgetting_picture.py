"""The picture of docs/replay.md: what is still known of each concept, and what serves it.

``python -m benchmarks.forgetting_picture docs/forgetting.svg`` runs engines and draws their anchors' scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.forgetting import STREAMS, Stream, engine_of

__all__ = ["Panel", "draw", "follow"]

_STREAM: Final = "recurring concepts"
_WIDTH, _LEFT, _RIGHT, _HEIGHT = 760, 52, 20, 112
_GAP: Final = 46  # above each panel
_LOWEST: Final = 0.3  # of the axis
_CONCEPTS: Final = 5
_COLOURS: Final = ("#0b6b74", "#b3541e", "#5b4db1", "#6b8e23", "#a0306b")


@dataclass(frozen=True, slots=True)
class Panel:
    """One learner: for each stratum, the events at which it was asked, and how much it knew then."""

    title: str
    strata: list[list[tuple[int, float]]]


def follow(consolidated: Sequence[float] = (0.0, 3.0, 0.0)) -> list[Panel]:
    """Run a learner without anything, one consolidated, and one with a reservoir, over one stream."""
    stream = STREAMS[_STREAM](0)
    panels = []
    for i, strength in enumerate(consolidated):
        buffer = {"kind": "reservoir"} if i == 2 else None
        title = (
            "a reservoir of 500 events"
            if buffer
            else f"consolidation: {strength:g}"
            if strength
            else "nothing"
        )
        panels.append(Panel(title, _strata(stream, strength, buffer)))
    return panels


def _strata(stream: Stream, strength: float, buffer: dict[str, str] | None) -> list[list[tuple[int, float]]]:
    engine = engine_of(stream, buffer, consolidation=strength)
    points: dict[int, list[tuple[int, float]]] = {}
    for start in range(0, len(stream.events), stream.phase // 4):
        engine.progress(stream.events.slice(start, start + stream.phase // 4))
        for one in engine.forgetting().get("sgd", {"strata": []})["strata"]:
            points.setdefault(one["from"], []).append((engine.n_events, one["now"]))
    return list(points.values())


_STYLE: Final = """\
text{font:13px system-ui,sans-serif;fill:#333}.soft{fill:#667}.rule{stroke:#ccd;stroke-width:1}
polyline{fill:none;stroke-width:1.8}.back{fill:#889;opacity:.10}
@media(prefers-color-scheme:dark){svg{background:#15181d}text{fill:#dde}.soft{fill:#9aa}.rule{stroke:#334}
polyline{filter:brightness(1.6)}}"""


def _y(top: float, score: float) -> float:
    return top + _HEIGHT * (1.0 - (max(score, _LOWEST) - _LOWEST) / (1.0 - _LOWEST))


def _panel(panel: Panel, top: float, last: int, phase: int) -> Iterator[str]:
    def x(event: float) -> float:
        return _LEFT + event / last * (_WIDTH - _LEFT - _RIGHT)

    yield f'<text x="{_LEFT}" y="{top - 10}">{panel.title}</text>'
    for score in (0.4, 0.6, 0.8, 1.0):
        y = _y(top, score)
        yield f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{score:g}</text>'
    second = x(_CONCEPTS * phase)
    yield f'<rect class="back" x="{second:.1f}" width="{x(last) - second:.1f}" y="{top}" height="{_HEIGHT}"/>'
    for i, points in enumerate(panel.strata):
        line = " ".join(f"{x(event):.1f},{_y(top, score):.1f}" for event, score in points)
        yield f'<polyline stroke="{_COLOURS[i % _CONCEPTS]}" points="{line}"/>'


def draw(panels: Sequence[Panel]) -> str:
    """Return the picture as SVG, readable on white and on black."""
    phase = STREAMS[_STREAM](0).phase
    last = 2 * _CONCEPTS * phase
    parts: list[str] = []
    for i, panel in enumerate(panels):
        parts += _panel(panel, _GAP + i * (_HEIGHT + _GAP), last, phase)
    bottom = len(panels) * (_HEIGHT + _GAP)
    for concept in range(2 * _CONCEPTS):
        middle = _LEFT + (concept + 0.5) / (2 * _CONCEPTS) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(
            f'<text x="{middle:.1f}" y="{bottom + 20}" text-anchor="middle">'
            f'<tspan fill="{_COLOURS[concept % _CONCEPTS]}">concept {concept % _CONCEPTS + 1}</tspan></text>'
        )
    legend = (
        "Accuracy on anchors of each concept, from its end on. Tinted: all concepts come for the second time."
    )
    parts.append(f'<text class="soft" x="{_LEFT}" y="{bottom + 42}">{legend}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 54}" role="img">'
        f"<title>What is still known of five concepts that come in turn</title><style>{_STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.forgetting_picture", description=__doc__)
    parser.add_argument("path", type=Path, help="where the SVG goes")
    parser.parse_args().path.write_text(draw(follow()), encoding="utf-8")


if __name__ == "__main__":
    main()
