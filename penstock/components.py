"""A part of a configuration that names a class by its kind, checked against that class's constructor.

A parameter is declared once, beside the code that uses it: the annotations of the constructor are its schema.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from penstock.errors import ConfigError
from penstock.registry import CheckedInside, OneOf, resolve

__all__ = ["Component", "NestedError", "Registered", "parameters_of"]

# What the engine hands to a constructor itself; never a key of the configuration.
_GIVEN_BY_ENGINE = {"self", "task", "seed"}


class Component(BaseModel):
    """A class named by its kind, and the keywords to build it with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    parameters: dict[str, Any] = {}


class Registered:
    """Pydantic's view of a component: any kind of a registry, with the keys its constructor takes."""

    def __init__(self, registry: Mapping[str, str], what: str) -> None:
        self._registry = registry
        self._what = what

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def validate(self, given: Any) -> Component:
        """Check the mapping of a component against the constructor that it names."""
        if isinstance(given, Component):
            return given
        if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
            raise ValueError(  # noqa: TRY004  pydantic turns a ValueError, not a TypeError, into a message
                f"expected a mapping with a `kind` ({', '.join(sorted(self._registry))} or 'module:Class')"
            )
        parameters = {key: value for key, value in given.items() if key != "kind"}
        try:
            schema = parameters_of(resolve(given["kind"], self._registry, what=self._what))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        try:
            checked = schema.model_validate(parameters)
        except ValidationError as error:
            raise NestedError(error, schema) from error
        # As the annotations have them ("10" for a number is 10), but without what was not given.
        return Component(kind=given["kind"], parameters={name: getattr(checked, name) for name in parameters})

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.json_schema({})

    def json_schema(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        """One alternative for each registered kind, all of them with the properties `ours` too."""
        kinds = []
        for kind, target in self._registry.items():
            one = parameters_of(resolve(target, {}, what=self._what)).model_json_schema()
            one["title"] = f"{self._what}: {kind}"
            one["properties"] = {"kind": {"const": kind}, **ours, **one.get("properties", {})}
            one["required"] = ["kind", *one.get("required", [])]
            kinds.append(one)
        other = {
            "type": "object",
            "title": f"{self._what}: a class of your own",
            "properties": {"kind": {"type": "string", "pattern": ":"}, **ours},
            "required": ["kind"],
        }
        return {"oneOf": [*kinds, other]}


class _Nested(Registered):
    """The same of a parameter, which stays the mapping that it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._mapping)

    def _mapping(self, given: Any) -> dict[str, Any]:
        component = self.validate(given)
        # What is equal is left as it was written: a configuration's hash is that of what was given.
        parameters = {
            name: given[name] if given[name] == value else value
            for name, value in component.parameters.items()
        }
        return {"kind": component.kind, **parameters}


class NestedError(ValueError):
    """Carries the errors of a component out through pydantic, which would flatten them to one text."""

    def __init__(self, error: ValidationError, schema: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error = error
        self.schema = schema


@functools.cache
def parameters_of(cls: Any, *, but: str = "") -> type[BaseModel]:
    """Model of the keywords that ``cls(...)`` takes, from its annotations; `but` is left out."""
    constructor = cls.__init__
    try:
        hints = typing.get_type_hints(constructor, include_extras=True)
    except NameError:  # somebody else's class, whose annotations only a type checker can read
        hints = {}
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif name not in {*_GIVEN_BY_ENGINE, but} and parameter.kind is not parameter.VAR_POSITIONAL:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (_checked(hints.get(name, Any)), default)
    model: type[BaseModel] = create_model(
        cls.__name__,
        __config__=ConfigDict(
            extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True, strict=False
        ),
        **fields,
    )
    return model


def _checked(hint: Any) -> Any:
    """Return what pydantic is to make of an annotation."""
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, OneOf):
            return Annotated[Any, _Nested(mark.registry, mark.what)]
        if isinstance(mark, CheckedInside):
            return Any
    return hint
