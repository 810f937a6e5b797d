"""The report: one HTML page that holds everything it needs and explains itself to a newcomer.

`render` is a pure function from plain data (`Report`) to a page: no network, no external font or script,
charts drawn in Python. A little script (``page.js``) adds choosing a metric, hiding a series and reading
values off the curves; the page says all that matters without it. Its Content-Security-Policy admits only
that script and that style sheet, whatever the names in the data hold.
"""

from penstock.report.data import (
    Curve,
    Curves,
    Decision,
    Drift,
    Evidence,
    Mark,
    Promotion,
    Remembered,
    Report,
    Stratum,
    Trial,
)
from penstock.report.page import render, write

__all__ = [
    "Curve",
    "Curves",
    "Decision",
    "Drift",
    "Evidence",
    "Mark",
    "Promotion",
    "Remembered",
    "Report",
    "Stratum",
    "Trial",
    "render",
    "write",
]
