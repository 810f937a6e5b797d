"""The schema of what a pipeline gives out besides snapshots: dead letters, events, answers, metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

__all__ = [
    "OUTPUTS",
    "AnswersSpec",
    "Bootstrap",
    "DeadLetterSpec",
    "EventsSpec",
    "MonitorSpec",
    "ToTopics",
    "TopicName",
    "TopicNames",
    "check_paths",
    "check_topics",
]

OUTPUTS: Final = frozenset({"dead_letters", "events", "answers", "monitor"})
"""Keys of a pipeline that the engine's state does not depend on."""

_BESIDE: Final = (".previous", ".journal", ".lock")  # a checkpoint, with its name before them
_TOPIC: Final = r"^[A-Za-z0-9._-]{1,249}$"
# As librdkafka takes them: with a protocol or without, an IPv6 address in brackets, 9092 if there is no port.
_BROKER: Final = re.compile(
    r"((plaintext|ssl|sasl_plaintext|sasl_ssl)://)?(\[[0-9a-f:.%]+\]|[^\s/:\[\],]+)(:(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)


def _brokers(given: str) -> str:
    """Find out now what would otherwise look like a broker that is away."""
    for broker in given.split(","):
        found = _BROKER.fullmatch(broker.strip())
        if found is None or not 0 < int(found["port"] or 9092) < 65536:
            raise ValueError("expected `host:port` of a broker, or several with commas, or `embedded`")
    return given


def _one_or_several(given: object) -> object:
    """Check topics here: of a union pydantic would tell what is wrong with each alternative."""
    names = given if isinstance(given, list | tuple) else [given]
    if not names or not all(isinstance(name, str) and re.fullmatch(_TOPIC, name) for name in names):
        raise ValueError("expected a topic, or a list of them: up to 249 letters, digits, `.`, `_` and `-`")
    return given


Bootstrap = Annotated[str, Field(min_length=1), AfterValidator(_brokers)]
TopicName = Annotated[str, Field(pattern=_TOPIC)]
TopicNames = Annotated[
    str | Sequence[str],
    PlainValidator(
        _one_or_several, json_schema_input_type=TopicName | Annotated[list[TopicName], Field(min_length=1)]
    ),
]


class ToTopics(BaseModel):
    """Which Kafka: the source's, if `bootstrap` is not given, and its settings with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: Bootstrap | None = None
    settings: Mapping[str, bool | int | float | str] = {}
    create: bool = True


class DeadLetterSpec(ToTopics):
    """Where records go that could not be used, and how many of them are tolerated.

    `topic` and `path` may both be given. Without `create` a missing topic is an error.
    """

    path: Path | None = None
    topic: TopicName | None = None
    max_bad_rate: Annotated[float, Ge(0), Le(1)] = 0.01
    min_bad: Annotated[int, Ge(0)] = 10

    @model_validator(mode="after")
    def _needs_topic(self) -> DeadLetterSpec:
        if self.topic is None and (self.bootstrap is not None or self.settings):
            raise ValueError("`bootstrap` and `settings` need a `topic`")
        return self


class EventsSpec(ToTopics):
    """A topic that is told of everything the engine reports, and of the daemon's life."""

    topic: TopicName


class AnswersSpec(ToTopics):
    """Requests in one topic, answers in another.

    `instance` names a process for good: started again under its name, it takes its partitions up at once.
    With ``cold_start: uniform`` a bandit decides at random until there is a snapshot; otherwise they wait.
    `decisions` is a topic for what was decided, written in the transaction of the answer.
    """

    requests: TopicName
    results: TopicName
    group: Annotated[str, Field(min_length=1)] | None = None
    instance: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    decisions: TopicName | None = None
    batch: Annotated[int, Ge(1), Le(100_000)] = 1000
    cold_start: Literal["wait", "uniform"] = "wait"
    transaction_timeout_s: Annotated[float, Gt(0), Le(900)] = 10.0
    session_timeout_s: Annotated[float, Ge(6), Le(300)] = 10.0


class MonitorSpec(BaseModel):
    """Where a run is watched over HTTP; see `penstock.monitor`.

    Whoever reaches `host` can read it: there is no password. Port 0 takes any free one. A run that has not
    given a sign of life for `stalled_after_s` is not alive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = 9464
    stalled_after_s: Annotated[float, Gt(0)] = 120.0


def check_paths(paths: Mapping[str, object], checkpoint: Path | None) -> None:
    """Refuse to write over what is read, or one thing over another.

    Parameters
    ----------
    paths : mapping of str to path or None
        By the key in the configuration that names them; what is no path is for others to refuse.
    checkpoint : path or None
        What a run keeps beside it is not to be written over either.

    Raises
    ------
    ValueError
        Names both keys, and the path.
    """
    named = {f"`{key}`": path for key, path in paths.items() if isinstance(path, str | Path)}
    if checkpoint is not None:
        named = {"`checkpoint.path`": checkpoint, **named}
        for end in _BESIDE:
            if end != ".journal" or "`source.journal`" not in named:  # it is beside only if not told where
                named[f"`checkpoint.path` with {end}"] = checkpoint.with_name(checkpoint.name + end)
    taken: dict[str, str] = {}
    for key, path in named.items():
        other = taken.setdefault(os.path.realpath(path), key)
        if other != key:
            raise ValueError(f"{key} and {other} are both {str(path)!r}: each needs its own")


class _Written(Protocol):
    """What is written to a topic, if it is."""

    @property
    def topic(self) -> str | None: ...
    @property
    def bootstrap(self) -> str | None: ...


def check_topics(
    bootstrap: object,
    read: Mapping[str, object],
    written: Mapping[str, _Written | None],
    answers: AnswersSpec | None,
) -> None:
    """Refuse a topic that is written to and read as well, or for two purposes.

    What could not be used would be read again, and again; two writers of a topic would fence each other off;
    answers would be taken for requests, or learned from. Only decisions are there to be read again.

    Parameters
    ----------
    bootstrap : str or None
        Of the source.
    read : mapping of str to str, or sequence of str
        Topics, by the key in the configuration that names them.
    written : mapping of str to specification
    answers : AnswersSpec or None

    Raises
    ------
    ValueError
        Names both keys, and the topic.
    """
    taken: dict[tuple[object, object], str] = {}
    for key, topics in read.items():
        for topic in (
            [topics] if isinstance(topics, str) else topics if isinstance(topics, list | tuple) else ()
        ):
            taken.setdefault((bootstrap, topic), f"source.{key}")
    ours = {f"{key}.topic": (spec.bootstrap, spec.topic) for key, spec in written.items() if spec}
    if answers is not None:
        for key in ("requests", "results", "decisions"):
            ours[f"answers.{key}"] = answers.bootstrap, getattr(answers, key)
    for key, (where, name) in ours.items():
        if name is None:
            continue
        other = taken.setdefault((where or bootstrap, name), key)
        if other != key and (key, other) != ("answers.decisions", "source.decisions"):
            raise ValueError(f"`{key}` and `{other}` are both {name!r}: each needs its own")
