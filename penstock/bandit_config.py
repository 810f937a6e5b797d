"""The schema of a bandit pipeline: ``task: bandit``, policies in the place of learners."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from penstock import bandits, sources
from penstock.bandit_engine import DEFAULT_MAX_WEIGHT, BanditRules, PolicySpec
from penstock.bandits.estimators import ESTIMATORS
from penstock.codecs.decisions import LogCodec
from penstock.components import NestedError, Registered, parameters_of
from penstock.config import (
    CheckpointSpec,
    Component,
    ComponentName,
    Pipeline,
    PipelineName,
    ShadowSpec,
    SnapshotsSpec,
    Strict,
    validated,
)
from penstock.errors import ConfigError
from penstock.joiner import Aggregate, Joiner
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

__all__ = ["BanditPipeline", "json_schema", "parse"]

PolicyComponent = Annotated[Component, Registered(bandits.POLICIES, "policy")]
ActionName = Annotated[str, Field(min_length=1)]
EventSource = Annotated[Component, Registered(sources.SOURCES, "source")]

LOG_FORMATS: Final[Mapping[str, str]] = {
    "json": "penstock.codecs.decisions:DecisionJSON",
    "dsjson": "penstock.codecs.dsjson:DSJSON",
    "table": "penstock.codecs.decision_table:DecisionTable",
}


class _Finite(Strict):
    """What no number in it may be: infinite, or none."""

    model_config = ConfigDict(allow_inf_nan=False)


class Simulated(_Finite):
    """Multiclass events as a bandit environment: the right class earns 1, and every reward is known."""

    kind: Literal["as_bandit"]
    of: EventSource
    drift_at: Annotated[int, Ge(0)] | None = None


class Log(_Finite):
    """Decisions that were made by something else, with their probabilities and rewards.

    Every record counts, also one whose id came before. `options` are those of the format's codec.
    """

    kind: Literal["log"]
    path: str
    format: Literal["json", "dsjson", "table"] = "json"
    options: Annotated[dict[str, Any], Field(validate_default=True)] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _fit_the_format(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "format" not in info.data:
            return options  # what is wrong there is said already
        codec = resolve(LOG_FORMATS[info.data["format"]], {}, what="format")
        schema = parameters_of(codec, but="pipeline")
        try:
            schema.model_validate(options)
        except ValidationError as error:
            raise NestedError(error, schema) from error
        try:
            codec(**options)
        except ConfigError as error:
            raise ValueError(_placed(error, schema)) from error
        return options

    def codec(self, pipeline: str) -> LogCodec:
        """Build what reads the log; the keys of its decisions are made with the name `pipeline`."""
        codec: LogCodec = resolve(LOG_FORMATS[self.format], {}, what="format")(
            pipeline=pipeline, **self.options
        )
        return codec


class Followed(_Finite):
    """Decisions and rewards as `Predictor.act` and `Predictor.reward` log them, in a directory."""

    kind: Literal["feedback"]
    path: str
    follow: bool = False
    poll_s: Annotated[float, Gt(0)] = 0.1


class Topics(_Finite):
    """Decisions and rewards in topics of Kafka; see `penstock.kafka.feedback.KafkaFeedback`."""

    kind: Literal["kafka"]
    bootstrap: Bootstrap
    decisions: TopicName
    rewards: TopicName | None = None
    format: Literal["json", "msgpack", "dsjson"] = "json"
    arm: str | None = None
    max_ahead_s: Annotated[float, Ge(0)] | None = 86_400.0
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    group: Annotated[str, Field(min_length=1)] | None = None
    assignment: Literal["fixed", "group"] = "fixed"
    start: Literal["earliest", "latest"] = "earliest"
    journal: str | None = None
    keep: Annotated[int, Ge(0)] | None = None
    follow: bool = True
    poll_s: Annotated[float, Gt(0), Le(5)] = 0.5
    linger_s: Annotated[float, Ge(0), Le(5)] = 0.1
    connect_timeout_s: Annotated[float, Gt(0), Le(86_400)] = 30.0

    @model_validator(mode="after")
    def _arm_is_of_dsjson(self) -> Topics:
        if self.arm is not None and self.format != "dsjson":
            raise ValueError(f"`arm` is for the format dsjson, and the format is {self.format}")
        return self


class RewardRules(_Finite):
    """How rewards are joined to decisions; see `penstock.joiner.Joiner`.

    With ``late: correct`` a reward that comes when its decision has been learned still reaches the policies
    from whose statistics the old one can be taken back; estimates and the gate keep what they have judged.
    """

    window_s: Annotated[float, Ge(0)] = 600.0
    default_reward: float | None = 0.0
    aggregate: Aggregate = "last"
    lateness_s: Annotated[float, Ge(0)] = 60.0
    max_pending: Annotated[int, Ge(1)] = 1_000_000
    late: Literal["correct", "count"] = "count"


class BanditPipeline(_Finite):
    """One bandit pipeline: where decisions come from, which policies there are, how they are judged.

    `reward_range` is that of every policy that needs to know one. `actions` are what `Predictor.act` offers
    where a request does not say, but for those that have retired.
    """

    name: PipelineName = "pipeline"
    task: Literal["bandit"]
    source: Annotated[Simulated | Log | Followed | Topics, Field(discriminator="kind")]
    policies: Annotated[dict[ComponentName, PolicyComponent], Field(min_length=1)]
    estimators: tuple[str, ...] = ("dr", "ips", "snips")
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    reward_range: tuple[float, float] = (0.0, 1.0)
    actions: Annotated[tuple[ActionName, ...], Field(min_length=1)] | None = None
    max_weight: Annotated[float, Ge(1)] | None = None
    rewards: RewardRules = RewardRules()
    retired: dict[str, AwareDatetime] = Field(default_factory=dict)
    shadow: ShadowSpec = ShadowSpec()
    snapshots: SnapshotsSpec | None = None
    checkpoint: CheckpointSpec | None = None
    dead_letters: DeadLetterSpec = DeadLetterSpec()
    events: EventsSpec | None = None
    answers: AnswersSpec | None = None
    monitor: MonitorSpec | None = None
    tick: Annotated[int, Ge(1), Le(1_000_000)] = 256
    seed: Annotated[int, Ge(0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _takes_no_detectors(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "drift" in given:
            raise ValueError(
                "`drift`: detectors watch learners, not policies, whose rewards also change with every "
                "promotion; where the world changes, give policies a `discount` or a `window`"
            )
        return given

    @model_validator(mode="after")
    def _names_agree(self) -> BanditPipeline:
        for name in self.estimators:
            if name not in ESTIMATORS:
                raise ValueError(f"`estimators` names {name!r}; known are {', '.join(ESTIMATORS)}")
        if len(set(self.estimators)) < len(self.estimators):
            raise ValueError(f"`estimators`: expected different ones, got {list(self.estimators)}")
        if "replay" in self.estimators and self.max_weight is None and not isinstance(self.source, Simulated):
            raise ValueError("`max_weight`: missing (replay accepts decisions in proportion to it)")
        for name in ("uniform", "logged", "best_fixed"):
            if name in self.policies:
                raise ValueError(f"`policies.{name}`: this is the name of a baseline; choose another")
        if self.actions is not None and len(set(self.actions)) < len(self.actions):
            raise ValueError(f"`actions`: expected different actions, got {list(self.actions)}")
        if self.retired and isinstance(self.source, Simulated | Log):
            raise ValueError(f"`retired`: decisions of source {self.source.kind!r} have no time")
        if self.shadow.guards:
            raise ValueError("`shadow.guards`: policies are compared by their reward alone")
        low, high = self.reward_range
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(
                f"`reward_range`: expected the lower bound first, both finite, got {[low, high]}"
            )
        if isinstance(self.source, Simulated) and not low <= 0.0 < 1.0 <= high:
            raise ValueError(
                f"`reward_range`: expected one that holds 0 and 1, which is what the actions of as_bandit "
                f"earn, got {[low, high]}"
            )
        default = self.rewards.default_reward
        joins = isinstance(self.source, Followed | Topics)
        if joins and default is not None and not low <= default <= high:
            raise ValueError(
                f"`rewards.default_reward`: expected one in the `reward_range` {[low, high]}, or null to "
                f"drop decisions without a reward, got {default}"
            )
        for name, spec in self.policies.items():
            try:
                parameters = bandits.with_range(spec.kind, spec.parameters, self.reward_range)
                bandits.build(spec.kind, seed=self.seed, **parameters)
            except ConfigError as error:
                schema = parameters_of(resolve(spec.kind, bandits.POLICIES, what="policy"))
                raise ValueError(_placed(error, schema, f"policies.{name}")) from None
        check_paths(
            {
                "source.path": getattr(self.source, "path", None),
                "source.journal": getattr(self.source, "journal", None),
                "snapshots.path": self.snapshots and self.snapshots.path,
                "dead_letters.path": self.dead_letters.path,
            },
            self.checkpoint.path if self.checkpoint else None,
        )
        check_topics(
            getattr(self.source, "bootstrap", None),
            {key: getattr(self.source, key, None) for key in ("decisions", "rewards")},
            {"dead_letters": self.dead_letters, "events": self.events, "snapshots": self.snapshots},
            self.answers,
        )
        return self

    @property
    def rules(self) -> BanditRules:
        """What the engine is to do; effects, here in the unit of rewards, are brought to the gate's scale."""
        low, high = self.reward_range
        shadow, unit = self.shadow.rules, (high - low) * (self.max_weight or DEFAULT_MAX_WEIGHT)
        shadow = replace(
            shadow,
            min_effect=shadow.min_effect / unit,
            refresh_margin=shadow.refresh_margin and shadow.refresh_margin / unit,
            rollback=shadow.rollback and replace(shadow.rollback, margin=shadow.rollback.margin / unit),
        )
        return BanditRules(
            policies={n: PolicySpec(kind=p.kind, parameters=p.parameters) for n, p in self.policies.items()},
            shadow=shadow,
            reward_range=self.reward_range,
            max_weight=self.max_weight,
            estimators=self.estimators,
            tick=self.tick,
            seed=self.seed,
        )

    def with_source(self, *, follow: bool) -> BanditPipeline:
        """Return the same pipeline, waiting at the end of its feedback or not."""
        if not isinstance(self.source, Followed | Topics):
            raise ConfigError(f"source {self.source.kind!r} does not take follow")
        return self.model_copy(update={"source": self.source.model_copy(update={"follow": follow})})

    @property
    def retirements(self) -> dict[str, float]:
        """When each retired arm is to be forgotten, in seconds since the Unix epoch."""
        return {arm: time.timestamp() for arm, time in self.retired.items()}

    def joiner(self) -> Joiner:
        """Make what joins rewards to decisions."""
        return Joiner(**self.rewards.model_dump())

    def hash(self) -> str:
        """Hex SHA-256 of everything that the engine's state depends on.

        Not of `retired`, which may grow between two runs: the state knows who has retired when. Nor of
        `actions`, which only snapshots speak of.
        """
        given = self.model_dump(
            mode="json",
            exclude={"source", "snapshots", "checkpoint", "actions", "retired", *OUTPUTS},
        )
        given["policies"] = list(given["policies"].items())
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()

    def restricted(self, names: list[str]) -> BanditPipeline:
        """Return the same pipeline with only the policies `names`."""
        for name in names:
            if name not in self.policies:
                raise ConfigError(f"--learner {name}: the policies are {', '.join(self.policies)}")
        kept = {name: spec for name, spec in self.policies.items() if name in names}
        return self.model_copy(update={"policies": kept})


def _placed(error: ConfigError, schema: type[BaseModel], path: str = "") -> str:
    """Say where below `path` a mistake is that a constructor with the parameters of `schema` has found."""
    text = str(error)
    named = re.match(r"`?(\w+)`?: ", text)
    if named is not None and named[1] in schema.model_fields:
        return f"`{'.'.join(filter(None, (path, named[1])))}`: {text[named.end() :]}"
    return f"`{path}`: {text}" if path else text


def parse(given: Mapping[str, Any], *, where: str = "configuration") -> BanditPipeline:
    """Check the configuration of a bandit pipeline, given as plain dicts and lists.

    Raises
    ------
    ConfigError
        Names, for each mistake, the key's path, what was given and what is accepted.

    Examples
    --------
    >>> source = {"kind": "as_bandit", "of": {"kind": "river", "dataset": "ImageSegments"}}
    >>> parse({"task": "bandit", "source": source, "policies": {"a": {"kind": "greedy", "color": 2}}})
    Traceback (most recent call last):
        ...
    penstock.errors.ConfigError: configuration: `policies.a.color`: unknown key (did you mean `floor`?)
    """
    return validated(BanditPipeline, given, where=where)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file, for editors: of a pipeline of learners, or of one of policies."""
    branches, schema = models_json_schema([(Pipeline, "validation"), (BanditPipeline, "validation")])
    definitions: dict[str, Any] = {}
    _gather(schema, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Penstock pipeline",
        "oneOf": list(branches.values()),
        "$defs": definitions,
    }


def _gather(schema: Any, definitions: dict[str, Any]) -> None:
    """Move definitions to where references look for them: components bring theirs along, deep inside."""
    if isinstance(schema, dict):
        inner = schema.pop("$defs", {})
        definitions |= inner
        for part in (*schema.values(), *inner.values()):
            _gather(part, definitions)
    elif isinstance(schema, list):
        for part in schema:
            _gather(part, definitions)
