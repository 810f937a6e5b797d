"""The curves as JSON inside the page, for its script."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

from penstock.report.charts import clean, finite, off_chart, value_axis
from penstock.report.data import Kind, Value
from penstock.report.view import View, metric_name

__all__ = ["embedded"]


def _data(view: View) -> dict[str, Any] | None:
    """Collect what ``page.js`` reads; None if there is no chart to bring to life.

    Series and metrics go by their number: names are only ever shown.
    """
    events = view.report["curves"]["events"]
    if not events or not view.metrics:
        return None
    kinds: tuple[Kind, Kind] = ("average", "window")
    metrics = []
    for metric in view.metrics:
        axes = []
        for kind in kinds:
            lines = view.lines(metric, kind)
            axis = value_axis(lines, higher_is_better=view.higher(metric))
            off = [i for i, line in enumerate(lines) if off_chart(line, axis)]
            axes.append({"low": axis.low, "high": axis.high, "ticks": axis.ticks, "off": off})
        metrics.append(
            {
                "key": clean(metric),
                "label": clean(metric_name(metric)),
                "captions": [clean(view.caption(metric, kind)) for kind in kinds],
                "axes": axes,
            }
        )
    series = [
        {
            "name": clean(name),
            "css": view.css(name),
            "values": [
                [_packed(view.curve(name, metric, kind)) for kind in kinds] for metric in view.metrics
            ],
        }
        for name in view.drawn
    ]
    return {
        "events": list(events),
        "metrics": metrics,
        "series": series,
        "kind": kinds.index(view.start_kind(view.metrics[0])),
    }


def _packed(values: Sequence[Value]) -> tuple[int, list[float | None]]:
    """Four digits of every value, as short as JSON gets: an exponent e and the values times ``10**e``.

    Examples
    --------
    >>> _packed([0.12345, None, 0.5, 12.0])
    (4, [1234, None, 5000, 120000])
    """
    known = [finite(value) for value in values]
    sizes = [abs(value) for value in known if value]
    typical = math.floor(math.log10(statistics.median_low(sizes))) if sizes else 0
    exponent = max(-12, min(12, 3 - typical))
    packed: list[float | None] = []
    for value in known:
        if value is None:
            packed.append(None)
            continue
        short = float(f"{value * 10.0**exponent:.4g}")
        packed.append(int(short) if abs(short) < 1e15 and short.is_integer() else short)
    return exponent, packed


_SCRIPT_SAFE: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def embedded(view: View) -> str:
    """Return the data as JSON that cannot end the element it stands in, whatever it holds."""
    return json.dumps(_data(view), separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(
        _SCRIPT_SAFE
    )
