"""The picture of docs/promotion.md: a candidate at the gate, and a rollback.

``python -m benchmarks.gate_picture docs/promotion.svg`` runs an engine and draws the evidence.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from penstock.config import parse
from penstock.engine import Engine
from penstock.events import Batch
from penstock.notices import Notice

__all__ = ["Run", "draw", "follow"]

_N: Final = 12_000
_BROKEN, _MENDED = 6000, 7500  # labels of a third of the events are upside down in between
_WIDTH, _LEFT, _RIGHT = 760, 60, 30
_PANEL: Final = 150  # height of a curve's panel
_LOWEST, _HIGHEST = -2.0, 6.0  # logarithms to base 10 that are drawn


@dataclass(slots=True)
class Run:
    """What there is to draw: events and log10 of e-values, each with its threshold, and what was decided."""

    trial: list[tuple[int, float, float]] = field(default_factory=list)
    watch: list[tuple[int, float, float]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


def follow() -> Run:
    """Run the engine over the world, and note the evidence at the end of each tick."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(_N, 2))
    sweden = rng.random(_N) < 1 / 3
    score = x @ np.array([2.0, -2.0]) + np.where(sweden, 1.0, -1.0)
    labels = (rng.random(_N) < 1 / (1 + np.exp(-score))) * 1.0
    broken = sweden & (np.arange(_N) >= _BROKEN) & (np.arange(_N) < _MENDED)
    labels = np.where(broken, 1.0 - labels, labels)
    rows = [{"a": a, "b": b, "country": "SE" if se else "NO"} for (a, b), se in zip(x, sweden, strict=True)]
    engine = Engine(
        parse(
            {
                "source": {"kind": "memory", "rows": [], "labels": []},
                "learners": {
                    "careful": {"kind": "sgd", "bits": 10, "learning_rate": 0.01},
                    "quick": {"kind": "sgd", "bits": 10},
                },
                "tick": 64,
                "shadow": {"refresh_every": 2500, "min_effect": 0.01, "rollback": {"watch_events": 20_000}},
            }
        )
    )
    run, thresholds = Run(), dict[int, float]()
    assert engine.shadow is not None
    for tick in engine.ticks(Batch.from_rows(rows, labels)):
        found = engine.progress(tick)
        run.notices += found
        thresholds |= {n.version: n.evidence["threshold"] for n in found if n.what == "opened" and n.version}
        for version, log_e in engine.shadow.trials.items():
            run.trial.append((engine.n_events, _log10(log_e), _log10(thresholds[version])))
        for notice in found:
            curve = {"replace": run.trial, "rollback": run.watch}.get(notice.how or "")
            if curve is not None and notice.what in ("promoted", "rolled_back"):
                log_e, threshold = notice.evidence["log_e"], notice.evidence["threshold"]
                curve.append((notice.event, _log10(log_e), _log10(threshold)))
        if engine.shadow.watch is not None:
            log_e, threshold = engine.shadow.watch
            run.watch.append((engine.n_events, _log10(log_e), _log10(threshold)))
    return run


def _log10(log: float) -> float:
    return log / math.log(10.0)


_STYLE: Final = """\
text{font:13px system-ui,sans-serif;fill:#333}.soft{fill:#667}.rule{stroke:#ccd;stroke-width:1}
.trial{fill:none;stroke:#0a7d5a;stroke-width:2}.watch{fill:none;stroke:#c0392b;stroke-width:2}
.limit{stroke:#667;stroke-dasharray:5 4}.move{stroke:#333;stroke-width:1.5}.broken{fill:#c0392b;opacity:.1}
.careful{fill:#7f8fa6}.quick{fill:#0a7d5a}
@media(prefers-color-scheme:dark){svg{background:#15181d}text{fill:#dde}.soft{fill:#9aa}.rule{stroke:#334}
.trial{stroke:#3ecf9e}.watch{stroke:#ff7b6b}.move{stroke:#dde}.broken{fill:#ff7b6b}.quick{fill:#3ecf9e}}"""


def _x(event: float) -> float:
    return _LEFT + event / _N * (_WIDTH - _LEFT - _RIGHT)


def _y(top: float, log10: float) -> float:
    share = (min(max(log10, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    return top + _PANEL * (1.0 - share)


def _curve(points: Sequence[tuple[int, float, float]], css: str, top: float) -> Iterator[str]:
    pieces: list[list[tuple[int, float, float]]] = []
    for point in points:  # a new trial or watch is another line
        if not pieces or point[2] != pieces[-1][-1][2]:
            pieces.append([])
        pieces[-1].append(point)
    for piece in pieces:
        start, stop, limit = _x(piece[0][0]), _x(piece[-1][0]), _y(top, piece[0][2])
        yield f'<line class="limit" x1="{start:.1f}" x2="{stop:.1f}" y1="{limit:.1f}" y2="{limit:.1f}"/>'
        line = " ".join(f"{_x(event):.1f},{_y(top, log10):.1f}" for event, log10, _ in piece)
        yield f'<polyline class="{css}" points="{line}"/>'


def _panel(title: str, points: Sequence[tuple[int, float, float]], css: str, top: float) -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="{top - 10}">{title}</text>'
    for log10 in (-2, 0, 2, 4, 6):
        y = _y(top, log10)
        label = {0: "1", 2: "100", 4: "10⁴", 6: "10⁶", -2: "0.01"}[log10]
        yield f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>'
    yield from _curve(points, css, top)


def draw(run: Run) -> str:
    """Return the picture as SVG, readable on white and on black."""
    first, second = 40, 40 + _PANEL + 50
    bottom = second + _PANEL + 30
    parts = list(_panel("e-value of “the candidate is better than what serves”", run.trial, "trial", first))
    parts += _panel("e-value of “what serves is worse than the fallback”", run.watch, "watch", second)
    parts.append(
        f'<rect class="broken" x="{_x(_BROKEN):.1f}" width="{_x(_MENDED) - _x(_BROKEN):.1f}" y="{first}" '
        f'height="{bottom - first}"/>'
    )
    serves = [n for n in run.notices if n.what in ("promoted", "rolled_back")]
    for notice, end in zip(serves, [*(n.event for n in serves[1:]), _N], strict=True):
        x, width = _x(notice.event), _x(end) - _x(notice.event)
        parts.append(
            f'<rect class="{notice.learner}" x="{x:.1f}" width="{width - 1:.1f}" y="{bottom}" height="10"/>'
        )
        if notice.how in ("replace", "rollback"):
            top = first if notice.how == "replace" else second
            word = "replaces" if notice.how == "replace" else "rollback"
            parts.append(f'<line class="move" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom + 10}"/>')
            parts.append(f'<text x="{x + 5:.1f}" y="{top + 12}">{word}</text>')
    for event in range(0, _N + 1, 2000):
        parts.append(
            f'<text class="soft" x="{_x(event):.1f}" y="{bottom + 28}" text-anchor="middle">{event:,}</text>'
        )
    legend = "The bar: what serves, grey careful, green quick. Tinted: labels of one country upside down."
    parts.append(f'<text class="soft" x="{_LEFT}" y="{bottom + 48}">{legend}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 60}" role="img">'
        f"<title>Evidence at the gate, and a rollback</title><style>{_STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.gate_picture", description=__doc__)
    parser.add_argument("path", type=Path, help="where the SVG goes")
    parser.parse_args().path.write_text(draw(follow()), encoding="utf-8")


if __name__ == "__main__":
    main()
