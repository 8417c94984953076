"""Canonical bytes to rows of a Log Analytics table: one JSON object with the table's columns.

The columns of ``AIAudit_CL`` are the catalog's (``aitrail schema --format kql``). ``TimeGenerated`` is Azure's: it
replaces times older than two days or more than a day ahead by the time of receipt, so the time of the access is
``EventTime``, always. Azure cuts values above 64 KB without a word; here they are cut before, and ``Truncated`` says so
(facts: Azure Monitor docs, "Standard columns", "Service limits").
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from aitrail.destinations._raw_fields import Shape, raw_fields, record_fields, split
from aitrail.destinations._record_kinds import record_kinds
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import FieldInfo, Kind, by_name, fields, pascal_case

# Azure's limit is 64 KB; whether that is 64,000 or 65,536 is not written anywhere.
FIELD_BYTES = 64_000
TABLE_STREAM = "Custom-AIAudit_CL"
ASIM_STREAM = "Custom-ASimAgentEventLogs"

_CUT_FLAG = "text_truncated"
_TEXTS = frozenset({"prompt_text", "response_text"})

_encode = msgspec.json.Encoder().encode
_Template = tuple[list[bytes], Callable[[dict[str, Any]], tuple[Any, ...]]]

# Constants of ASIM AgentEvent (mandatory fields of the schema that the event has no field for).
_ASIM_CONSTANTS: Mapping[str, Any] = {
    "EventCount": 1,
    "EventSchema": "AgentEvent",
    "EventSchemaVersion": "0.1.0",
}
_ASIM_BAG = "AdditionalFields"


class Rows:
    """Makes rows of one kind. Thread-safe.

    Args:
        layout: gives the template for the fields that are present.
        time_field: which time becomes ``TimeGenerated``; the event's own where that one is missing.
    """

    def __init__(self, layout: Callable[[Shape, str], _Template], time_field: str = "timestamp") -> None:
        self._template = lru_cache(maxsize=8192)(layout)
        self._time_field = time_field

    def row(self, item: EncodedEvent) -> bytes:
        """Give the row; raises ``Unencodable``."""
        event, raw = raw_fields(item)
        if len(item.body) > FIELD_BYTES and cut_fields(event):
            raw = split(encode(event))
        time_field = self._time_field if self._time_field in raw else "timestamp"
        chunks, pick = self._template(tuple(raw), time_field)
        parts = chunks[:]
        parts[1::2] = pick(raw)
        return b"".join(parts)

    def time_generated(self, item: EncodedEvent) -> str:
        """The canonical time that ``row`` writes as ``TimeGenerated``; raises ``Unencodable``."""
        event, _ = raw_fields(item)
        return str(getattr(event, self._time_field) or event.timestamp)


def access_layout(shape: Shape, time_field: str) -> _Template:
    """The row of ``AIAudit_CL``: one column per field."""
    columns = [("TimeGenerated", time_field)]
    columns += [(by_name()[name].name_in("sentinel"), name) for name in shape if name in by_name()]
    return _flat(columns, b"")


def asim_layout(shape: Shape, time_field: str) -> _Template:
    """The row of ASIM AgentEvent: its own columns, and a bag with everything that it has none for."""
    columns = [("TimeGenerated", time_field), ("EventEndTime", "timestamp")]
    bag: list[FieldInfo] = []
    for field in [by_name()[name] for name in shape if name in by_name()]:
        name = field.name
        column = field.name_in("asim")
        if column and column != _ASIM_BAG and column not in dict(columns):
            columns.append((column, name))
        else:
            bag.append(field)
    constants = dict(_ASIM_CONSTANTS)
    if "EventVendor" not in dict(columns):
        constants["EventVendor"] = "aitrail"
    more = b"," + _encode(constants)[1:-1]
    chunks, picked = _pieces(columns, more + b',"' + _ASIM_BAG.encode() + b'":{')
    inner, names = _pieces([(field.name_in("sentinel"), field.name) for field in bag], b"}}")
    if not names:
        chunks[-1] += b"}}"
    else:
        chunks[-1] += inner[0][1:]
        chunks += inner[1:]
    return _with_room(chunks), itemgetter(*picked, *names)


def _flat(columns: list[tuple[str, str]], end: bytes) -> _Template:
    chunks, names = _pieces(columns, end + b"}")
    return _with_room(chunks), itemgetter(*names)


def _pieces(columns: list[tuple[str, str]], end: bytes) -> tuple[list[bytes], list[str]]:
    """The text between the values of an object, and the fields that give the values."""
    chunks = [b"{" if number == 0 else b"," for number in range(len(columns))]
    chunks = [chunk + _encode(column) + b":" for chunk, (column, _) in zip(chunks, columns, strict=True)]
    return [*chunks, end], [name for _, name in columns]


def _with_room(chunks: list[bytes]) -> list[bytes]:
    return [piece for chunk in chunks for piece in (chunk, b"")][:-1]


@lru_cache(maxsize=1)
def _cuttable() -> tuple[str, ...]:
    """Fields of text or of lists, in catalog order."""
    return tuple(field.name for field in fields() if field.kind in ("string", "text", "list"))


def cut_fields(event: AccessEvent) -> bool:
    """Cut every value above ``FIELD_BYTES``, mark the event; says whether there was one. Hashes are of the whole text.

    A sealed text cannot be opened in part, so it goes altogether; it stays in destinations that take it whole.
    """
    cut = False
    for name in _cuttable():
        value: Any = getattr(event, name)
        if not value:
            continue
        if isinstance(value, str):
            if len(value) * 4 <= FIELD_BYTES or len(value.encode()) <= FIELD_BYTES:
                continue
            sealed = event.content_mode == "sealed" and name in _TEXTS
            setattr(event, name, "" if sealed else value.encode()[:FIELD_BYTES].decode("utf-8", "ignore"))
        else:
            short = _shorter(value)
            if short is value:
                continue
            setattr(event, name, short)
        cut = True
    if cut:
        event.truncated = True
        if _CUT_FLAG not in event.flags:
            event.flags = (*event.flags, _CUT_FLAG)
    return cut


def _shorter(values: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the first values as fit; the very tuple when all do."""
    used = 2
    for number, value in enumerate(values):
        used += len(_encode(value)) + 1
        if used > FIELD_BYTES:
            return values[:number]
    return values


class StreamKind(msgspec.Struct, frozen=True):
    """What one kind of stream is: its usual name in the data collection rule, its rows, and where they end up.

    Attributes:
        stream_name: in the rule.
        layout: the rows of an access; None: the rows are those of a record, see ``RecordRows``.
        table: in the workspace.
        time_column: the column with the event's own time.
    """

    stream_name: str
    layout: Callable[[Shape, str], _Template] | None
    table: str
    time_column: str = "EventTime"


STREAMS: Mapping[str, StreamKind] = {
    "access": StreamKind(TABLE_STREAM, access_layout, "AIAudit_CL"),
    "agent_event": StreamKind(ASIM_STREAM, asim_layout, "ASimAgentEventLogs", "EventEndTime"),
    "finding": StreamKind("Custom-AIAuditFindings_CL", None, "AIAuditFindings_CL"),
    "health": StreamKind("Custom-AIAuditHealth_CL", None, "AIAuditHealth_CL"),
    "checkpoint": StreamKind("Custom-AIAuditCheckpoints_CL", None, "AIAuditCheckpoints_CL"),
}


_RECORD_TYPES: Mapping[Kind, str] = {"time": "datetime", "integer": "long", "number": "real", "list": "dynamic"}


def record_table(stream: str) -> tuple[tuple[str, str, str], ...]:
    """Give ``(field, column, KQL type)`` of a record's table, as ``schema.views.kusto.columns`` does for accesses.

    A field that accesses have, too, has the same column there.
    """
    known = by_name()
    own = (
        (
            name,
            known[name].name_in("sentinel") if name in known else pascal_case(name),
            _RECORD_TYPES.get(kind, "string"),
        )
        for name, kind in record_kinds(stream).items()
    )
    return (("", "TimeGenerated", "datetime"), *own)


class RecordRows:
    """Makes rows of the records of one stream: findings, health, checkpoints. Thread-safe."""

    def __init__(self, stream: str) -> None:
        self._keys = {name: b"," + _encode(column) + b":" for name, column, _ in record_table(stream) if name}

    def row(self, item: EncodedEvent) -> bytes:
        """Give the row; raises ``Unencodable``."""
        raw = record_fields(item)
        parts = [b'{"TimeGenerated":', raw["timestamp"]]
        parts += [piece for name, value in raw.items() if name in self._keys for piece in (self._keys[name], value)]
        return b"".join([*parts, b"}"])

    def time_generated(self, item: EncodedEvent) -> str:
        """The canonical time that ``row`` writes as ``TimeGenerated``."""
        return item.timestamp
