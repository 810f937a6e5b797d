"""What a request asks, and what it is answered: from bytes to bytes, whatever the bytes.

Every request gets one answer. One that cannot be used is answered with the reason; its ``id`` is repeated
if it can be read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from penstock.errors import BadRecord, PenstockError
from penstock.predictor import Predictor

__all__ = ["Answer", "answer_all", "failure"]

_log = logging.getLogger("penstock.kafka")
_MAX_ID: Final = 1000  # characters; an answer must not outgrow a message


class Answer(NamedTuple):
    """What a request is answered: JSON, and whether it is an error."""

    data: bytes
    failed: bool


def answer_all(predictor: Predictor, requests: Sequence[bytes | None], *, bandit: bool) -> list[Answer]:
    """Answer requests, one by one in their order, with one snapshot.

    Parameters
    ----------
    predictor : Predictor
        That does not swap by itself meanwhile.
    requests : sequence of bytes or None
        JSON: ``{"id", "features"}``, or ``{"id", "context", "actions"}`` for a bandit.
    bandit : bool
        Whether they are to be decided. Decisions are logged to the predictor's sink.

    Returns
    -------
    list of Answer
        JSON: ``{"id", "prediction", "snapshot"}``; ``"probabilities"`` for classes; ``{"id", "action",
        "propensity", "probabilities", "snapshot"}``; or ``{"id", "error"}``.
    """
    answers: list[dict[str, Any]] = []
    rows: list[Mapping[str, Any]] = []
    asked: list[int] = []
    for data in requests:
        answer: dict[str, Any] = {"id": None}
        answers.append(answer)
        try:
            request = _parsed(data)
            answer["id"] = request_id = _id(request)
            if bandit:
                answer.update(_decided(predictor, request, request_id))
            else:
                rows.append(_features(request, "features"))
                asked.append(len(answers) - 1)
        except BadRecord as error:
            answer["error"] = str(error)
        except Exception as error:
            answer["error"] = _unexpected(error)
    for position, told in zip(asked, _predicted(predictor, rows), strict=True):
        answers[position].update(told)
    return [_written(answer) for answer in answers]


def failure(reason: str) -> Answer:
    """Return the answer to a request of which nothing can be repeated."""
    return Answer(orjson.dumps({"id": None, "error": reason}), True)


def _parsed(data: bytes | None) -> Mapping[str, Any]:
    try:
        request = orjson.loads(data or b"")
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"JSON ({error})", bytes(data or b"")[:80]) from None
    if not isinstance(request, dict):
        raise BadRecord("an object", request)
    return request


def _id(request: Mapping[str, Any]) -> str | int:
    found = request.get("id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise BadRecord("a string that is not empty, or an integer", found, path="$.id")
    if len(str(found)) > _MAX_ID:
        raise BadRecord(f"an id of at most {_MAX_ID} characters", f"one of {len(str(found))}", path="$.id")
    return found


def _features(request: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = request.get(name)
    if not isinstance(found, dict):
        raise BadRecord("an object of features", found, path=f"$.{name}")
    return found


def _decided(predictor: Predictor, request: Mapping[str, Any], request_id: str | int) -> dict[str, Any]:
    actions = request.get("actions")
    if actions is not None and not isinstance(actions, list | dict):
        raise BadRecord("a list of actions, or an object of their features", actions, path="$.actions")
    decision = predictor.act(_features(request, "context"), actions, str(request_id))
    return {
        "action": decision.action,
        "propensity": decision.propensity,
        "probabilities": dict(zip(decision.actions, decision.probabilities, strict=True)),
        "snapshot": decision.snapshot,
    }


def _predicted(predictor: Predictor, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        return []
    try:
        values: Any = predictor.predict_many(rows)
        return [_told(value, predictor.snapshot) for value in values]
    except Exception:
        if len(rows) == 1:
            return [_alone(predictor, rows[0])]
    # One of them spoils the batch: each is asked alone.
    return [_alone(predictor, row) for row in rows]


def _alone(predictor: Predictor, row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _told(predictor.predict(row), predictor.snapshot)
    except BadRecord as error:
        path = "$.features" + error.path.removeprefix("$")
        return {"error": str(BadRecord(error.expected, error.got, path=path))}
    except Exception as error:
        return {"error": _unexpected(error)}


def _told(value: Any, snapshot: int) -> dict[str, Any]:
    """Return what an answer says of one prediction: a number, or a probability for each class."""
    if isinstance(value, dict):
        numbers = list(value.values())
        told = {"prediction": max(value, key=value.__getitem__, default=None), "probabilities": value}
    else:
        numbers = [float(value)]
        told = {"prediction": numbers[0]}
    if not all(map(math.isfinite, numbers)):
        return {"error": f"snapshot {snapshot} predicts no finite number for these features"}
    return {**told, "snapshot": snapshot}


def _unexpected(error: Exception) -> str:
    """Say what a model could not do; it may fail in any way for odd features, and the rest goes on."""
    _log.warning("a request cannot be answered: %s: %s", type(error).__name__, error)
    return str(error) if isinstance(error, PenstockError) else f"{type(error).__name__} in the model"


def _written(answer: dict[str, Any]) -> Answer:
    try:
        return Answer(orjson.dumps(answer), "error" in answer)
    except TypeError:  # a lone surrogate, which JSON can spell and UTF-8 cannot
        return failure("the request holds text that is not Unicode")
