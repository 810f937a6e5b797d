"""Where events come from, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.events import Task
from penstock.registry import resolve
from penstock.sources.base import Chunk, Position, Rejected, Source

__all__ = ["SOURCES", "Chunk", "Position", "Rejected", "Source", "build"]

SOURCES: Final[Mapping[str, str]] = {
    "file": "penstock.sources.file:FileSource",
    "river": "penstock.sources.river:RiverSource",
    "memory": "penstock.sources.memory:MemorySource",
    "kafka": "penstock.kafka.source:KafkaSource",
}


def build(kind: str, task: Task, **parameters: Any) -> Source:
    """Build the source registered as `kind`, or the class that ``module:Class`` names."""
    source: Source = resolve(kind, SOURCES, what="source")(task, **parameters)
    return source
