"""The schema of ``configs/*.yaml``: one file is one pipeline.

Learners, detectors, buffers and sources are described by the annotations of their constructors, so a
parameter is declared once, beside the code that uses it, and is checked here with everything else.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
import reprlib
import typing
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema

from penstock import drift, learners, replay, sources
from penstock.components import Component, NestedError, Registered
from penstock.errors import ConfigError
from penstock.events import Task, TaskKind
from penstock.outputs_config import (
    OUTPUTS,
    AnswersSpec,
    Bootstrap,
    DeadLetterSpec,
    EventsSpec,
    MonitorSpec,
    TopicName,
    check_paths,
    check_topics,
)
from penstock.registry import resolve
from penstock.trials import Guard, RollbackRules, ShadowRules

__all__ = ["Component", "Pipeline", "Strict", "load", "parse", "read"]

# Options of every source that say what a record's fields are.
_MAPS_FIELDS = {"label", "weight", "id", "time", "features", "ignore", "types", "classes"}


class Strict(BaseModel):
    """A mapping whose unknown keys are errors, and that never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SourceSpec = Annotated[Component, Registered(sources.SOURCES, "source")]
LearnerSpec = Annotated[Component, Registered(learners.LEARNERS, "learner")]

# It becomes a part of names in the state, which `/` separates, and a column of tables.
ComponentName = Annotated[str, Field(pattern=r"^\w[\w.+-]{0,63}$")]

PipelineName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

_P = TypeVar("_P", bound=BaseModel)

# What pydantic says in the words of Python.
_OURS = {
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "mapping_type": "expected a mapping",
}

Reaction = Literal["log", "reset", "warm_restart", "bump", "background", "recall"]


class _Rule(Strict):
    """A component together with keys of our own, side by side in one mapping."""

    registered: ClassVar[Registered]
    kind: str
    parameters: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "parameters" in given:
            return given
        ours = {key: value for key, value in given.items() if key in cls.model_fields and key != "kind"}
        theirs = {key: value for key, value in given.items() if key not in ours}
        component = cls.registered.validate(theirs)
        return {"kind": component.kind, "parameters": component.parameters, **ours}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        ours = handler.resolve_ref_schema(handler(schema))["properties"]
        ours = {key: value for key, value in ours.items() if key not in ("kind", "parameters")}
        return cls.registered.json_schema(ours)


class DriftRule(_Rule):
    """One detector, a copy of it for each learner it watches.

    `react` is the answer to a loss that rose; one that fell is only reported. No answer changes what serves:
    ``reset`` and ``warm_restart`` start the learner afresh, ``bump`` makes it learn faster, ``background``
    starts a copy beside it, ``recall`` goes back to what it knew of an earlier concept.

    What is watched belongs to a learner (``loss``, ``error``, ``prediction``) or to the events
    (``label``, ``feature:NAME``, where NAME has dots between its levels): then there is one detector for
    all, and nothing to react with. An input detector is always on the ``inputs``, all of them.
    `false_alarm_every` takes the place of the detector's threshold, for values that look like `series`.
    """

    registered = Registered(drift.KINDS, "detector")
    on: Annotated[str, Field(pattern=r"^(loss|error|prediction|label|inputs|feature:.+)$")] = "loss"
    react: Reaction = "log"
    learners: list[str] | None = None
    false_alarm_every: Annotated[int, Ge(100)] | None = None
    series: str = "own"

    @model_validator(mode="before")
    @classmethod
    def _on_inputs(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("kind") in drift.INPUT_DETECTORS:
            return {"on": "inputs", **given}
        return given

    @model_validator(mode="after")
    def _can_be_built(self) -> DriftRule:
        takes = getattr(resolve(self.kind, drift.KINDS, what="detector"), "domain", "numbers")
        if (takes == "inputs") != self.of_inputs:
            raise ValueError(
                f"`on: {self.on}`: {self.kind} watches {'the inputs' if takes == 'inputs' else 'numbers'}"
            )
        if self.of_inputs and self.series != "own":
            raise ValueError(f"`series`: has no meaning with {self.kind}")
        if self.of_events and self.learners is not None:
            raise ValueError(f"`learners`: there is one detector on: {self.on}, whatever the learners")
        if self.react != "log" and self.on not in ("loss", "error"):
            raise ValueError(f"`react`: only a loss or an error that rose is answered, not `on: {self.on}`")
        if self.false_alarm_every is not None or self.of_inputs:
            try:
                self.build_inputs() if self.of_inputs else self.build()
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self

    @property
    def of_events(self) -> bool:
        """Whether it watches the events themselves, not a learner."""
        return self.on == "label" or self.of_inputs or self.on.startswith("feature:")

    @property
    def of_inputs(self) -> bool:
        """Whether it watches whole events; `build_inputs` builds its detector then, and `build` otherwise."""
        return self.on == "inputs"

    def build_inputs(self) -> drift.InputDetector:
        """Build the detector of whole events."""
        every = {} if self.false_alarm_every is None else {"false_alarm_every": self.false_alarm_every}
        return drift.build_inputs(self.kind, **every, **self.parameters)

    def build(self) -> drift.Detector:
        """Build the detector of a series."""
        return drift.build(
            self.kind, false_alarm_every=self.false_alarm_every, series=self.series, **self.parameters
        )

    def values_lie_in(self, task: TaskKind) -> drift.Domain:
        """Return what kind of numbers it will be fed."""
        if self.on == "error":
            return "bits" if task != "regression" else "unit"
        if self.on == "label" and task == "binary":
            return "bits"
        return (
            "unit" if self.on == "loss" or (self.on == "prediction" and task != "regression") else "numbers"
        )


class ReplayRule(_Rule):
    """A buffer of past events, and how much of it is mixed in between ticks.

    `ratio` is the number of replayed events for each live one, `weight` their importance.
    """

    registered = Registered(replay.BUFFERS, "replay buffer")
    ratio: Annotated[float, Ge(0), Le(16)] = 0.5
    weight: Annotated[float, Gt(0), Le(1)] = 0.5

    @property
    def needs_classes(self) -> bool:
        """Whether labels have to be classes."""
        return bool(getattr(resolve(self.kind, replay.BUFFERS, what="replay buffer"), "needs_classes", False))


class SliceSpec(Strict):
    """The events in which a feature has a value; `feature` is ``namespace.name`` where it is nested."""

    feature: Annotated[str, Field(min_length=1)]
    equals: str | bool | float


class GuardSpec(Strict):
    """A second loss that a replacement must not raise; see `penstock.trials.Guard`."""

    on: Literal["loss", "error", "logloss"] = "loss"
    slice: SliceSpec | None = None
    margin: Annotated[float, Gt(0), Lt(1)] = 0.01

    @property
    def name(self) -> str:
        """Name of the guard in notices."""
        return self.on + (f"[{self.slice.feature}={self.slice.equals}]" if self.slice else "")


class RollbackSpec(Strict):
    """When what serves is taken back; see `penstock.trials.RollbackRules`."""

    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    margin: Annotated[float, Ge(0), Lt(1)] = 0.0
    watch_events: Annotated[int, Ge(1)] = 10000
    relearn: bool = True


class ShadowSpec(Strict):
    """The gate; see `penstock.trials.ShadowRules`. ``rollback: false`` never takes anything back."""

    refresh_every: Annotated[int, Ge(1)] = 1000
    refresh_margin: Annotated[float, Ge(0), Lt(1)] | None = None
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    min_effect: Annotated[float, Gt(-1), Lt(1)] = 0.005
    max_events: Annotated[int, Ge(1)] = 20000
    retry_after: Annotated[int, Ge(0)] = 2000
    challengers: Annotated[int, Ge(1), Le(100)] = 1
    guards: list[GuardSpec] = []
    rollback: RollbackSpec | Literal[False] = RollbackSpec()
    max_age: Annotated[int, Ge(1)] | None = None

    @model_validator(mode="after")
    def _guards_differ(self) -> ShadowSpec:
        names = [guard.name for guard in self.guards]
        for i, name in enumerate(names):
            if name == "loss":
                raise ValueError(f"`guards[{i}]`: the loss itself is what is tested; name a `slice` of it")
            if name in names[:i]:
                raise ValueError(f"`guards[{i}]`: there are two guards on {name}")
        return self

    @property
    def rules(self) -> ShadowRules:
        """What the gate demands."""
        plain = self.model_dump(exclude={"guards", "rollback"})
        guards = tuple(Guard(name=guard.name, margin=guard.margin) for guard in self.guards)
        rollback = RollbackRules(**self.rollback.model_dump()) if self.rollback else None
        return ShadowRules(**plain, guards=guards, rollback=rollback)


class AnchorsSpec(Strict):
    """Events that are set aside and never learned, to measure forgetting; see `penstock.anchors.Anchors`.

    `every` is rounded up to whole ticks. With a `margin`, nothing is promoted whose mean loss on the anchors
    of any stratum is higher than that of what serves by more. That is a plain comparison of two means, on
    the same events each time: it bounds no probability of an error.
    """

    strata: Annotated[int, Ge(2), Le(1000)] = 5
    size: Annotated[int, Ge(1), Le(100_000)] = 200
    every: Annotated[int, Ge(2)] = 10_000
    margin: Annotated[float, Ge(0), Lt(1)] | None = None

    @model_validator(mode="after")
    def _most_are_learned(self) -> AnchorsSpec:
        if 2 * self.size > self.every:
            raise ValueError(f"`size`: at most half of the {self.every} events of a stratum can be set aside")
        return self

    def sizes(self, tick: int) -> dict[str, int]:
        """Return what `Anchors` takes."""
        return {"strata": self.strata, "size": self.size, "every": -(-self.every // tick) * tick}


class DedupSpec(Strict):
    """How many ids to remember, so that an event that comes twice is learned once."""

    window: Annotated[int, Ge(1), Le(100_000_000)] = 1_000_000


class MetricsSpec(Strict):
    """How scores are averaged: over everything, over a window, and fading."""

    window: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    fading: Annotated[float, Gt(0), Lt(1)] = 0.999


class SnapshotsSpec(Strict):
    """Where promoted models go: a directory and, for applications elsewhere, a compacted topic as well.

    `bootstrap` and `settings` say which Kafka: the source's, if `bootstrap` is not given.
    """

    path: Path
    keep: Annotated[int, Ge(2)] = 50
    trust_pickle: bool = False
    topic: TopicName | None = None
    bootstrap: Bootstrap | None = None
    settings: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _needs_topic(self) -> SnapshotsSpec:
        if self.topic is None and (self.bootstrap is not None or self.settings):
            raise ValueError("`bootstrap` and `settings` need a `topic`")
        return self


class CheckpointSpec(Strict):
    """Where the engine's state and the source's positions go, and how often."""

    path: Path
    every_events: Annotated[int, Ge(1)] = 100_000
    every_s: Annotated[float, Gt(0)] = 5.0
    trust_pickle: bool = False


class Pipeline(Strict):
    """One pipeline: where events come from, who learns, and what it takes to serve."""

    name: PipelineName = "pipeline"
    task: TaskKind = "binary"
    source: SourceSpec
    learners: Annotated[dict[ComponentName, LearnerSpec], Field(min_length=1)] = {
        "sgd": Component(kind="sgd", parameters={})
    }
    serving: str | None = None
    drift: list[DriftRule] = []
    replay: ReplayRule | None = None
    anchors: AnchorsSpec | None = None
    shadow: ShadowSpec | None = None
    snapshots: SnapshotsSpec | None = None
    checkpoint: CheckpointSpec | None = None
    dead_letters: DeadLetterSpec = DeadLetterSpec()
    events: EventsSpec | None = None
    answers: AnswersSpec | None = None
    monitor: MonitorSpec | None = None
    dedup: DedupSpec | None = None
    metrics: MetricsSpec = MetricsSpec()
    tick: Annotated[int, Ge(1), Le(1_000_000)] = 256
    seed: Annotated[int, Ge(0)] = 0

    @model_validator(mode="after")
    def _names_agree(self) -> Pipeline:
        for path, names in [("serving", [self.serving] if self.serving else [])] + [
            (f"drift[{i}].learners", rule.learners or []) for i, rule in enumerate(self.drift)
        ]:
            for name in names:
                if name not in self.learners:
                    raise ValueError(f"`{path}` names {name!r}; the learners are {', '.join(self.learners)}")
        for name in ("majority", "mean", "no_change"):
            if name in self.learners:
                raise ValueError(f"`learners.{name}`: this is the name of a baseline; choose another")
        for i, rule in enumerate(self.drift):
            if rule.react == "warm_restart" and self.replay is None:
                raise ValueError(f"`drift[{i}].react: warm_restart` needs a `replay` buffer to restart from")
            needed = getattr(resolve(rule.kind, drift.KINDS, what="detector"), "domain", "numbers")
            fed = rule.values_lie_in(self.task)
            if (needed == "bits" and fed != "bits") or (needed == "unit" and fed == "numbers"):
                accepted = "0 and 1" if needed == "bits" else "numbers in [0, 1]"
                raise ValueError(f"`drift[{i}].on: {rule.on}`: {rule.kind} takes {accepted} only")
        for i, guard in enumerate(self.shadow.guards if self.shadow else []):
            if self.task == "regression" and guard.on != "loss":
                raise ValueError(f"`shadow.guards[{i}].on`: a regression has no {guard.on}; expected loss")
        if self.task == "regression" and self.replay is not None and self.replay.needs_classes:
            raise ValueError(f"`replay.kind: {self.replay.kind}` needs classes, and a regression has none")
        if self.anchors is not None and self.anchors.margin is not None and self.shadow is None:
            raise ValueError("`anchors.margin` needs `shadow`: nothing is promoted without the gate")
        if self.snapshots is not None and self.shadow is None:
            raise ValueError("`snapshots` needs `shadow`: nothing is stored to serve without the gate")
        read = self.source.parameters
        check_paths(
            {
                "source.path": read.get("path"),
                "source.journal": read.get("journal"),
                "snapshots.path": self.snapshots and self.snapshots.path,
                "dead_letters.path": self.dead_letters.path,
            },
            self.checkpoint.path if self.checkpoint else None,
        )
        check_topics(
            read.get("bootstrap"),
            {"topics": read.get("topics")},
            {"dead_letters": self.dead_letters, "events": self.events, "snapshots": self.snapshots},
            self.answers,
        )
        return self

    @property
    def learning_task(self) -> Task:
        """The task as learners take it."""
        return Task(self.task)

    @property
    def first_serving(self) -> str:
        """The learner that serves first: `serving`, or else the first one."""
        return self.serving or next(iter(self.learners))

    def restricted(self, names: list[str]) -> Pipeline:
        """Return the same pipeline with only the learners `names`."""
        for name in names:
            if name not in self.learners:
                raise ConfigError(f"--learner {name}: the learners are {', '.join(self.learners)}")
        changes: dict[str, Any] = {
            "learners": {name: spec for name, spec in self.learners.items() if name in names},
            "drift": [
                rule.model_copy(
                    update={"learners": rule.learners and [n for n in rule.learners if n in names]}
                )
                for rule in self.drift
            ],
        }
        if self.serving not in names:
            changes["serving"] = None
        return self.model_copy(update=changes)

    def with_source(self, **parameters: Any) -> Pipeline:
        """Return the same pipeline with other parameters of its source."""
        changed = {"kind": self.source.kind, **self.source.parameters, **parameters}
        try:
            source = Registered(sources.SOURCES, "source").validate(changed)
        except ValueError as error:
            raise ConfigError(f"source {self.source.kind!r} does not take {', '.join(parameters)}") from error
        return self.model_copy(update={"source": source})

    def hash(self) -> str:
        """Hex SHA-256 of everything that the engine's state depends on, so not of paths and limits."""
        given = self.model_dump(mode="json", exclude={"source", "snapshots", "checkpoint", *OUTPUTS})
        # Which learner comes first matters (it serves first), but not in what order parameters are written.
        given["learners"] = list(given["learners"].items())
        given["fields"] = {k: v for k, v in self.source.parameters.items() if k in _MAPS_FIELDS}
        if (metadata := self.source.parameters.get("metadata")) is not None:  # of messages of Kafka
            given["fields"]["metadata"] = dict(metadata)
        if self.anchors is None:
            del given["anchors"]
        if self.dedup is None:
            del given["dedup"]  # a state is the same whether there was such a thing when it was written
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is refused, and only true and false are booleans.

    YAML 1.1 reads `on`, `off`, `yes` and `no` as booleans too; 1.2 does not, and `on` is a key of ours.
    And 1.1 takes `1e-3`, without a point, for a string.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool):
                if key in seen:
                    raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def load(path: Path, *, data: str | None = None, seed: int | None = None) -> Pipeline:
    """Read and check a configuration file.

    Parameters
    ----------
    path : Path
    data : str, optional
        Takes the place of ``source.path``, as ``--data`` does.
    seed : int, optional
        Takes the place of ``seed``.

    Raises
    ------
    ConfigError
        Names the file and, for each mistake, the key's path, what was given and what is accepted.
    """
    given = read(path)
    if data is not None:
        source = given.get("source")
        source = source if isinstance(source, dict) else {}
        if source.get("kind") != "file":
            # Not a file so far: only what says how to read one is kept, not which data set, nor how often.
            source = {key: value for key, value in source.items() if key in _MAPS_FIELDS}
        given["source"] = {**source, "kind": "file", "path": data}
    if seed is not None:
        given["seed"] = seed
    given.setdefault("name", path.stem)
    return parse(given, where=str(path))


def read(path: Path) -> dict[str, Any]:
    """Read a configuration file as plain dicts and lists, unchecked.

    Raises
    ------
    ConfigError
        If it cannot be read, is not YAML, or is no mapping.
    """
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deep") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(given).__name__}")
    return given


def validated(schema: type[_P], given: Mapping[str, Any], *, where: str) -> _P:
    """Hold `given` against a pipeline's schema; mistakes become one `ConfigError`."""
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        lines = list(explained(error, schema))
        separator = "\n  " if len(lines) > 1 else " "
        raise ConfigError(f"{where}:{separator}" + separator.join(lines)) from None


def parse(given: Mapping[str, Any], *, where: str = "configuration") -> Pipeline:
    """Check a configuration given as plain dicts and lists.

    Raises
    ------
    ConfigError
        As `load`.

    Examples
    --------
    >>> parse({"source": {"kind": "river", "dataset": "Phishing"}, "tik": 5})
    Traceback (most recent call last):
        ...
    penstock.errors.ConfigError: configuration: `tik`: unknown key (did you mean `tick`?)
    """
    _check_task(given, where)
    return validated(Pipeline, given, where=where)


def _check_task(given: Mapping[str, Any], where: str) -> None:
    """Say what the task can be, and nothing else: with another one, all else would be wrong as well."""
    task, tasks = given.get("task"), (*typing.get_args(TaskKind), "bandit")
    if task is None and "policies" in given:
        raise ConfigError(f"{where}: `task`: missing (with `policies` it is `bandit`)")
    if task == "bandit":
        raise ConfigError(f"{where}: `task`: expected one of {', '.join(tasks[:-1])} here, got 'bandit'")
    if task is not None and task not in tasks:
        close = difflib.get_close_matches(str(task), tasks, n=1)
        hint = f" (did you mean `{close[0]}`?)" if close else ""
        raise ConfigError(
            f"{where}: `task`: expected one of {', '.join(tasks)}, got {reprlib.repr(task)}{hint}"
        )


def explained(error: ValidationError, schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Say of each mistake where it is, what was given and what is accepted."""
    for item in error.errors(include_url=False):
        path = prefix + _path(_untagged(schema, item["loc"]))
        nested = item.get("ctx", {}).get("error")
        if isinstance(nested, NestedError):
            yield from explained(nested.error, nested.schema, f"{path}." if path else "")
        elif item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            known = _keys(schema, item["loc"][:-1])
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known) or 'none'}"
            yield f"`{path}`: unknown key ({hint})"
        elif item["type"] == "missing":
            yield f"`{path}`: missing"
        elif item["type"] == "union_tag_not_found":
            yield f"`{path}.kind`: missing"
        elif item["type"] == "union_tag_invalid":
            expected = item["ctx"]["expected_tags"].replace("'", "")
            yield f"`{path}.kind`: expected one of {expected}, got {item['ctx']['tag']!r}"
        else:
            message = _OURS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
            if item["type"] == "is_instance_of" and item["ctx"]["class"] == "Sequence":
                message = "expected a list"
            message = message[:1].lower() + message[1:]
            shown = "" if isinstance(item["input"], Mapping) else f", got {reprlib.repr(item['input'])}"
            inside = re.match(r"`(\w+)`: ", message)
            if inside is not None and path:  # it names the key itself
                yield f"`{path}.{inside[1]}`: {message[inside.end() :]}"
            else:
                yield f"`{path}`: {message}{shown}" if path else message


def _path(loc: tuple[int | str, ...]) -> str:
    """Write a location as people do: ``drift[0].delta``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _untagged(schema: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out which of several models a part of `schema` was taken for: people see its `kind`."""
    field = schema.model_fields.get(str(loc[0])) if loc else None
    return loc[:1] + loc[2:] if field is not None and field.discriminator is not None else loc


def _keys(schema: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys that the model at `loc` below `schema` knows."""
    for part, tag in zip_longest(loc, loc[1:]):
        field = schema.model_fields.get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *typing.get_args(field.annotation)):
            if not (inspect.isclass(candidate) and issubclass(candidate, BaseModel)):
                continue
            if isinstance(field.discriminator, str):
                kind = candidate.model_fields[field.discriminator].annotation
                if tag not in typing.get_args(kind):
                    continue
            schema = candidate
    return sorted(schema.model_fields)
