"""What a run gives out besides snapshots: dead letters, and events for whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import orjson

from penstock.bandit_config import BanditPipeline
from penstock.config import Pipeline
from penstock.dead_letters import DeadLetters, FileLetters, LetterSink
from penstock.notices import Notice

if TYPE_CHECKING:
    from penstock.kafka.topic_log import TopicLog

__all__ = ["Outputs"]


class Outputs:
    """The outputs of one run.

    Parameters
    ----------
    pipeline : Pipeline or BanditPipeline
    saved : mapping
        What a checkpoint kept of `flush`; empty at the very beginning.

    Raises
    ------
    ConfigError, ServiceError, StoreError
        If one of them cannot be opened.
    """

    def __init__(self, pipeline: Pipeline | BanditPipeline, saved: Mapping[str, Any]) -> None:
        self._pipeline = pipeline.name
        self._open = ExitStack()
        try:
            self.letters = self._letters(pipeline, saved.get("dead_letters") or {})
            self._open.enter_context(self.letters)
            self._events = self._topic(pipeline, saved.get("events"))
        except BaseException:
            self._open.close()
            raise

    def _letters(self, pipeline: Pipeline | BanditPipeline, saved: Mapping[str, Any]) -> DeadLetters:
        rules = pipeline.dead_letters
        sinks: list[LetterSink] = []
        if rules.path is not None:
            sinks.append(FileLetters(rules.path, size=saved.get("size", 0)))
        if rules.topic is not None:
            from penstock.kafka.letters import TopicLetters, connected

            connection = connected(rules, pipeline.source, where="dead_letters")
            sinks.append(
                TopicLetters(
                    connection,
                    rules.topic,
                    writer=pipeline.name,
                    state=saved.get("log"),
                    create=rules.create,
                )
            )
        return DeadLetters(
            sinks,
            max_rate=rules.max_bad_rate,
            min_bad=rules.min_bad,
            n_bad=saved.get("n_bad", 0),
            n_good=saved.get("n_good", 0),
        )

    def _topic(self, pipeline: Pipeline | BanditPipeline, saved: Mapping[str, Any] | None) -> TopicLog | None:
        spec = pipeline.events
        if spec is None:
            return None
        from penstock.kafka.letters import connected
        from penstock.kafka.topic_log import TopicLog

        connection = connected(spec, pipeline.source, where="events")
        log = TopicLog(connection, spec.topic, writer=pipeline.name, state=saved, create=spec.create)
        self._open.callback(log.close)
        return log

    def notice(self, notice: Notice, first_version: int) -> None:
        """Tell what the engine has reported, once however often a crash makes it report it.

        Parameters
        ----------
        notice : Notice
        first_version : int
            What the store's numbers of versions are ahead of the engine's.

        Raises
        ------
        ServiceError
            If it cannot be told.
        """
        if self._events is None:
            return
        version, parent = (n and n + first_version for n in (notice.version, notice.parent))
        told = {
            "learner": notice.learner,
            "text": notice.text,
            "version": version,
            "parent": parent,
            "how": notice.how,
            "sequence": notice.sequence,
            "evidence": dict(notice.evidence),
        }
        key = f"{notice.event}/{notice.what}/{notice.learner}/{notice.version or ''}"
        self._events.append(self._line(notice.what, notice.event, told), key=key)

    def happened(self, what: str, event: int, **evidence: Any) -> None:
        """Tell of the daemon's own life: may come again after a crash.

        Raises
        ------
        ServiceError
            If it cannot be told.
        """
        if self._events is not None:
            self._events.append(self._line(what, event, {"evidence": evidence}))

    def poll(self) -> None:
        """Let readers see what has waited for a second."""
        self.letters.poll()
        if self._events is not None:
            self._events.poll()

    def flush(self) -> dict[str, Any]:
        """Make everything safe; return what the checkpoint has to hold, plain JSON."""
        state: dict[str, Any] = {"dead_letters": self.letters.flush()}
        if self._events is not None:
            state["events"] = self._events.flush()
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close them all."""
        self._open.close()

    def _line(self, what: str, event: int, told: Mapping[str, Any]) -> bytes:
        record = {"pipeline": self._pipeline, "what": what, "event": event, **told}
        return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
