"""Formats of records, one class a file. To add one: write the class, add its line here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final, Literal, TypeAlias, get_args

from penstock.codecs.base import Codec, Framer
from penstock.codecs.fields import Fields
from penstock.errors import ConfigError
from penstock.registry import resolve

__all__ = ["CODECS", "Codec", "Fields", "Format", "Framer", "build", "format_of"]

Format: TypeAlias = Literal["json", "csv", "parquet", "vw", "msgpack"]

CODECS: Final[Mapping[str, str]] = {
    "json": "penstock.codecs.json:JSON",
    "csv": "penstock.codecs.csv:CSV",
    "parquet": "penstock.codecs.parquet:Parquet",
    "vw": "penstock.codecs.vw:VW",
    "msgpack": "penstock.codecs.msgpack:MessagePack",
}

_SUFFIXES: Final[Mapping[str, Format]] = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".vw": "vw",
    ".msgpack": "msgpack",
    ".mpk": "msgpack",
}
_COMPRESSED: Final = frozenset({".gz", ".zst"})


def format_of(path: str) -> Format:
    """Tell the format from the name of a file, compressed or not.

    Raises
    ------
    ConfigError
        If the name does not say it.

    Examples
    --------
    >>> format_of("clicks.jsonl.zst"), format_of("data/*.tsv")
    ('json', 'csv')
    """
    suffix = suffix_of(path)
    if suffix not in _SUFFIXES:
        raise ConfigError(
            f"{path}: the name does not tell the format: "
            f"set `format:` to one of {', '.join(get_args(Format))}"
        )
    return _SUFFIXES[suffix]


def suffix_of(path: str) -> str:
    """Return the suffix before that of a compression."""
    name = PurePath(path)
    suffix = name.suffix.lower()
    return name.with_suffix("").suffix.lower() if suffix in _COMPRESSED else suffix


def build(format: str, fields: Fields, **options: Any) -> Any:  # noqa: A002  (the option's name)
    """Build the codec of a format.

    Parameters
    ----------
    format : str
        One of `CODECS`, or ``module:Class``.
    fields : Fields
    **options
        Of this format; those that are None are not passed on.

    Returns
    -------
    Codec or Parquet

    Raises
    ------
    ConfigError
        If there is no such format, or it has no such option.
    """
    codec = resolve(format, CODECS, what="format")
    given = {name: value for name, value in options.items() if value is not None}
    unknown = [name for name in given if name not in inspect.signature(codec).parameters]
    if unknown:
        raise ConfigError(f"{unknown[0]}: not an option of the format {format!r}")
    return codec(fields, **given)
