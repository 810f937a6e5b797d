"""Vowpal Wabbit's text format: a simple label, then namespaces of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from penstock._native.text import encode_vw
from penstock.codecs.base import Decoded, Where, utf8_error
from penstock.codecs.declined import with_declined
from penstock.codecs.fields import Events, Fields
from penstock.codecs.lazy import Lazy
from penstock.codecs.spans import LineSpans, Spans
from penstock.codecs.values import read_number, read_weight
from penstock.errors import BadRecord, ConfigError
from penstock.events import Batch, Row

__all__ = ["VW"]

_MAX_WORDS: Final = 3
_TOUCHING: Final = "a label (VW takes a word that touches the bar, or begins with a quote, for a tag)"


class VW:
    """Decodes ``label [importance [initial]] ['tag]|namespace feature:value ...``.

    As in VW, a word that touches the first bar or begins with a quote is the tag, and the tag is the
    event's id; what stands before a tab is dropped. The part from the first bar on is kept in `Batch.lines`.

    Parameters
    ----------
    fields : Fields
        Only `Fields.classes` and `Fields.require_label` can be chosen: the format says where the rest is.

    Raises
    ------
    ConfigError
        If another option is given.

    Examples
    --------
    >>> from penstock.events import Task
    >>> batch, _ = VW(Fields(Task("binary"))).decode([b"-1 2.0 'first|user age:31 SE"], "log:{}".format)
    >>> batch.labels, batch.weights, batch.ids, batch.lines
    (array([0.]), array([2.]), ['first'], ['|user age:31 SE'])
    """

    needs_header = False
    is_native = True  # most work needs no interpreter's lock

    def __init__(self, fields: Fields) -> None:
        named: dict[str, Any] = {
            "weight": fields.weight,
            "id": fields.id,
            "time": fields.time,
            "features": fields.features,
        }
        named |= {"ignore": fields.ignore, "types": fields.types}
        for option, given in named.items():
            if given:
                raise ConfigError(f"{option}: VW text says itself what is what; leave it out")
        self._fields = fields
        self._reader = fields.vw_reader()

    def with_header(self, record: bytes, where: str) -> VW:
        """VW text has no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> LineSpans:
        """Cut at line ends."""
        return LineSpans(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode one line a record.

        A kernel hashes the lines straight from their bytes; what it declines, because it is unusual or
        wrong, goes the longer way, which says what is wrong with it.
        """
        read = None
        if self._reader is not None:
            read = self._reader.read(records.parts if isinstance(records, Spans) else list(records))
        if read is None:
            return self._decode(records, where)
        features, labels, weights, times, ids, _, kept, declined = read

        def make_lines(numbers: Sequence[int]) -> list[str]:
            return [_from_bar(records[i].decode())[1] for i in numbers]

        def make_rows(numbers: Sequence[int]) -> list[Row]:
            return list(encode_vw(make_lines(numbers))[1])

        batch = Batch(
            features=features,
            labels=labels,
            weights=weights,
            times=times,
            rows=Lazy(len(kept), make_rows),
            lines=Lazy(len(kept), make_lines),
            ids=ids,
        )
        if len(declined) == 0:
            return batch, ()
        numbers = declined.tolist()
        slow = self._decode([records[i] for i in numbers], lambda i: where(numbers[i]))
        return with_declined(batch, kept, slow, declined, make_rows, make_lines)

    def _decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode by way of strings."""
        events = Events(self._fields.task)
        events.ids = ids = []
        read_label = self._fields.label_reader(text=True, path="$.label")
        for i, data in enumerate(records):
            try:
                before, line = _from_bar(data.decode())
                label, weight, tag = _before_bar(before)
                if label is None and tag and self._fields.require_label:
                    raise BadRecord(_TOUCHING, tag, path="$.label")  # noqa: TRY301  (as from the readers)
                value = read_label(label)
            except UnicodeDecodeError:
                events.bad.append((i, BadRecord(utf8_error(data) or "UTF-8", data)))
                continue
            except BadRecord as error:
                events.bad.append((i, error))
                continue
            events.kept.append(i)
            events.rows.append(line)
            events.labels.append(value)
            events.weights.append(weight)
            events.times.append(math.nan)
            ids.append(tag)
        lines: list[str] = events.rows
        matrix, rows, unusable = encode_vw(lines)
        return events.decoded(matrix, rows, unusable, where=where, raw=records.__getitem__, lines=lines)


def _from_bar(text: str) -> tuple[str, str]:
    """Cut a record at its first bar: label and tag, and the line of features from the bar on."""
    before, _, features = text.rstrip("\r\n").partition("|")
    return before, f"|{features}"


def _before_bar(text: str) -> tuple[str | None, float, str]:
    """Return label, importance and tag of what precedes the first bar."""
    if "\t" in text:
        text = text.partition("\t")[2]
    words = text.split(" ")
    touches_bar = words[-1] != ""
    words = [word for word in words if word]
    tag = ""
    if words and (touches_bar or words[-1].startswith("'")):
        tag = words.pop().removeprefix("'")
    if not words:
        return None, 1.0, tag
    if len(words) > _MAX_WORDS:
        raise BadRecord("at most label, importance and initial prediction", text, path="$.label")
    weight = 1.0
    if len(words) > 1:
        weight = read_weight(words[1], text=True, path="$.importance")
    if len(words) > 2 and read_number(words[2], text=True, path="$.initial") != 0.0:
        raise BadRecord("no initial prediction other than 0", words[2], path="$.initial")
    return words[0], weight, tag
