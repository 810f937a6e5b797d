"""The schema of a bandit pipeline: ``task: bandit``, policies in the place of learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import Field, model_validator

from penstock import bandits, sources
from penstock.bandits.estimators import ESTIMATORS
from penstock.config import Component, ComponentName, PipelineName, Registered, Strict, validated
from penstock.errors import ConfigError

__all__ = ["BanditPipeline", "parse"]

PolicySpec = Annotated[Component, Registered(bandits.POLICIES, "policy")]
EventSource = Annotated[Component, Registered(sources.SOURCES, "source")]


class Simulated(Strict):
    """Multiclass events as a bandit environment: the right class earns 1, and every reward is known."""

    kind: Literal["as_bandit"]
    of: EventSource
    drift_at: Annotated[int, Ge(0)] | None = None


class Log(Strict):
    """Decisions that were made by something else, with their probabilities and rewards."""

    kind: Literal["log"]
    path: str
    format: Literal["json", "dsjson", "table"] = "json"
    options: dict[str, Any] = Field(default_factory=dict)


class BanditPipeline(Strict):
    """One bandit pipeline: where decisions come from, which policies there are, how they are judged."""

    name: PipelineName = "pipeline"
    task: Literal["bandit"]
    source: Annotated[Simulated | Log, Field(discriminator="kind")]
    policies: Annotated[dict[ComponentName, PolicySpec], Field(min_length=1)]
    estimators: tuple[str, ...] = ("dr", "ips", "snips")
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    reward_range: tuple[float, float] = (0.0, 1.0)
    max_weight: Annotated[float, Ge(1)] | None = None
    seed: Annotated[int, Ge(0)] = 0

    @model_validator(mode="after")
    def _names_agree(self) -> BanditPipeline:
        for name in self.estimators:
            if name not in ESTIMATORS:
                raise ValueError(f"`estimators` names {name!r}; known are {', '.join(ESTIMATORS)}")
        for name in ("uniform", "logged", "best_fixed"):
            if name in self.policies:
                raise ValueError(f"`policies.{name}`: this is the name of a baseline; choose another")
        if not self.reward_range[0] < self.reward_range[1]:
            raise ValueError(f"`reward_range`: expected the lower bound first, got {list(self.reward_range)}")
        return self

    def restricted(self, names: list[str]) -> BanditPipeline:
        """Return the same pipeline with only the policies `names`."""
        for name in names:
            if name not in self.policies:
                raise ConfigError(f"--learner {name}: the policies are {', '.join(self.policies)}")
        kept = {name: spec for name, spec in self.policies.items() if name in names}
        return self.model_copy(update={"policies": kept})


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
