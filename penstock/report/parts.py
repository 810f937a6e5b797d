"""What every page is made of: the document around it, its head, sections and small pieces of text."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Final

from penstock.report.charts import number, text

__all__ = [
    "HIDDEN",
    "counted",
    "document",
    "folded",
    "footer",
    "glossary",
    "header",
    "section",
    "strong",
    "swatch",
]

HIDDEN: Final = ' hidden=""'  # in full, so that the page is well-formed XML too and can be checked


def document(title: str, body: str, data: str) -> str:
    """Return the whole page; its Content-Security-Policy admits the one script and style sheet, no more.

    Parameters
    ----------
    title, body : str
        HTML, as it is to stand there.
    data : str
        JSON for the script, safe inside an element; ``null`` if there is no chart to bring to life.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return importlib.resources.files("penstock.report").joinpath(name).read_text("utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def header(
    *, name: str, source: str, task: str, events: int, seconds: float, rejected: int, digest: str
) -> str:
    """Return what was run, and how it went."""
    facts = [("events", number(events)), ("task", text(task))]
    if seconds > 0:
        facts.append(("speed", f"{number(round(events / seconds))} events/s"))
        facts.append(("time", f"{number(seconds)} s"))
    facts.append(("bad records", number(rejected)))
    facts.append(("digest", f'<code title="{text(digest)}">{text(digest[:12])}</code>'))
    cells = "".join(f"<div><dt>{fact}</dt><dd>{value}</dd></div>" for fact, value in facts)
    return (
        f'<header>\n<p class="brand">Penstock report</p>\n<h1>{text(name)}</h1>\n'
        f'<p class="source">{text(source)}</p>\n<dl class="facts">{cells}</dl>\n</header>'
    )


def footer(version: str) -> str:
    """Return the page's last line."""
    made = f"Made by Penstock {text(version)}"
    return f"<footer>{made}. This page is complete in itself: it loads nothing.</footer>"


def section(anchor: str, title: str, *parts: str) -> str:
    """Return a section of the page; empty parts are left out."""
    inside = "\n".join(part for part in parts if part)
    return f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{title}</h2>\n{inside}\n</section>'


def glossary(words: Sequence[tuple[str, str]]) -> str:
    """Return the section that explains the words used."""
    items = "".join(
        f"<div><dt>{word}</dt><dd>{meaning[:1].upper()}{meaning[1:]}</dd></div>" for word, meaning in words
    )
    return section("words-title", "The words used here", f'<dl class="words">{items}</dl>')


def folded(summary: str, inside: str, content: Sequence[object]) -> str:
    """Return `inside` folded away under its summary; nothing if there is no content."""
    return f"<details><summary>{summary}</summary>{inside}</details>" if content else ""


def counted(count: int, one: str, many: str = "") -> str:
    """Return the number with its noun.

    Examples
    --------
    >>> counted(1, "policy", "policies"), counted(2, "policy", "policies")
    ('1 policy', '2 policies')
    """
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def strong(value: object) -> str:
    """Return `value`, escaped and emphasized."""
    return f"<strong>{text(value)}</strong>"


def swatch(css: str) -> str:
    """Return a short piece of the line that is drawn in class `css`."""
    return (
        '<svg class="swatch" width="24" height="8" aria-hidden="true">'
        f'<path class="line {css}" d="M1 4h22"/></svg>'
    )
