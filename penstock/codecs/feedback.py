"""Feedback of bandits, one message at a time: JSON and MessagePack as we write them, dsjson as VW logs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from penstock.codecs.dsjson import DSJSON
from penstock.codecs.msgpack import unpacked
from penstock.errors import BadRecord, ConfigError
from penstock.feedback import DecisionEvent, RewardEvent, parse

__all__ = ["Format", "Reads", "reader"]

Format: TypeAlias = Literal["json", "msgpack", "dsjson"]
FORMATS: Final[tuple[str, ...]] = get_args(Format)

Reads: TypeAlias = "Callable[[bytes, str], tuple[DecisionEvent | RewardEvent, ...]]"
"""Reads a message at a position; raises BadRecord if it cannot."""


def reader(format: Format = "json", *, arm: str | None = None) -> Reads:  # noqa: A002  (the option's name)
    """Return what reads messages of a format.

    Parameters
    ----------
    format : "json", "msgpack" or "dsjson"
        A message of the first two is a decision or a reward, see `penstock.feedback`; one of dsjson is a
        decision and what it earned.
    arm : str, optional
        Where in an action of dsjson its identity stands; see `penstock.codecs.dsjson.DSJSON`.

    Raises
    ------
    ConfigError
        If there is no such format, or `arm` is for another one.

    Examples
    --------
    >>> reader()(b'{"id": "d-1", "time": 12.5, "reward": 1}', "clicks[0]@7")
    (RewardEvent(id='d-1', time=12.5, value=1.0, reward_id=None),)
    """
    if format not in FORMATS:
        raise ConfigError(f"`format`: {format!r} is none of {', '.join(FORMATS)}")
    if format == "dsjson":
        return _Logged(DSJSON(arm=arm))
    if arm is not None:
        raise ConfigError(f"`arm` is for the format dsjson, and the format is {format}")
    return _packed if format == "msgpack" else _json


def _json(data: bytes, position: str) -> tuple[DecisionEvent | RewardEvent, ...]:
    return (parse(data, position=position),)


def _packed(data: bytes, position: str) -> tuple[DecisionEvent | RewardEvent, ...]:
    try:
        record = unpacked(data)
    except BadRecord as error:
        raise BadRecord(error.expected, error.got, position=position) from None
    if not isinstance(record, Mapping):
        raise BadRecord("a map", record, position=position)
    return (parse(record, position=position),)


class _Logged:
    """Reads lines of dsjson."""

    def __init__(self, codec: DSJSON) -> None:
        self._codec = codec

    def __call__(self, data: bytes, position: str) -> tuple[DecisionEvent | RewardEvent, ...]:
        try:
            return self._codec.feedback(data)
        except BadRecord as error:
            raise BadRecord(error.expected, error.got, path=error.path, position=position) from None
