"""What the fields of findings, health records and checkpoints hold, in the words of the catalog."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import inspect

from aitrail.schema.catalog import Kind
from aitrail.streams import KINDS

_TIMES = frozenset({"timestamp", "first_seen", "detected_at", "newest_event"})
_TEXTS = frozenset({"summary", "reason"})
_OF_TYPE: Mapping[type, Kind] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
    inspect.VarTupleType: "list",
}


@cache
def record_kinds(stream: str) -> Mapping[str, Kind]:
    """Give field -> kind for the records of one stream, in their order."""
    struct = inspect.type_info(KINDS[stream])
    assert isinstance(struct, inspect.StructType)
    return {field.name: _kind(field) for field in struct.fields}


def _kind(field: inspect.Field) -> Kind:
    if field.name in _TIMES:
        return "time"
    if field.name in _TEXTS:
        return "text"
    found: Any = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    members = found.types if isinstance(found, inspect.UnionType) else (found,)
    return next((_OF_TYPE[type(one)] for one in members if type(one) in _OF_TYPE), "string")
