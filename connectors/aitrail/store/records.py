"""Findings and health reports as relations of a reader's connection: ``finding_records`` and ``health_records``.

Their columns are the fields of ``aitrail.streams``, as those of ``events`` are the fields of ``AccessEvent``: a missing
string is the field's default, a missing list is ``[]``, a missing number stays NULL, times are TIMESTAMP in UTC.
"""

# ruff: noqa: S608 - what is put into statements here are names and types of this package, never a value

from collections.abc import Sequence
from functools import cache

import duckdb
import msgspec
from msgspec import inspect

from aitrail.store import columns
from aitrail.streams import KINDS

RELATIONS = {"finding": "finding_records", "health": "health_records"}
_TIMES = frozenset({"timestamp", "first_seen", "detected_at", "newest_event"})
_TYPES: dict[type, str] = {
    inspect.StrType: "VARCHAR",
    inspect.LiteralType: "VARCHAR",
    inspect.IntType: "BIGINT",
    inspect.FloatType: "DOUBLE",
    inspect.VarTupleType: "VARCHAR[]",
}
_CHUNK_ROWS = 5_000


@cache
def _fields(stream: str) -> dict[str, tuple[str, str]]:
    """Type and text default of each field of a record."""
    info = inspect.type_info(KINDS[stream])
    assert isinstance(info, inspect.StructType)
    return {
        one.encode_name: (_sql_type(one), one.default if isinstance(one.default, str) else "") for one in info.fields
    }


def _sql_type(field: inspect.Field) -> str:
    if field.encode_name in _TIMES:
        return "TIMESTAMP"
    kind = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    return _TYPES[type(kind.types[0] if isinstance(kind, inspect.UnionType) else kind)]


def types(stream: str) -> dict[str, str]:
    """Name and DuckDB type of each column of the relation of ``stream``."""
    return {name: kind for name, (kind, _) in _fields(stream).items()}


def fill(connection: duckdb.DuckDBPyConnection, stream: str, bodies: Sequence[bytes]) -> None:
    """Make the relation of ``stream`` of canonical bodies, in chunks: a row at a time is a thousand times slower."""
    table = RELATIONS[stream]
    known = _fields(stream)
    schema = ", ".join(f"{columns.identifier(name)} {kind}" for name, (kind, _) in known.items())
    connection.execute(f"CREATE TABLE {table} ({schema})")
    shape = msgspec.json.encode([types(stream)]).decode()
    picks = ", ".join(_pick(name, kind, default) for name, (kind, default) in known.items())
    for start in range(0, len(bodies), _CHUNK_ROWS):
        text = b"[" + b",".join(bodies[start : start + _CHUNK_ROWS]) + b"]"
        connection.execute(
            f"INSERT INTO {table} SELECT {picks} FROM (SELECT unnest(from_json(?::JSON, {columns.quote(shape)})) AS r)",
            [text.decode()],
        )


def _pick(name: str, kind: str, default: str) -> str:
    column = f"r.{columns.identifier(name)}"
    if kind == "VARCHAR":
        return f"coalesce({column}, {columns.quote(default)})"
    return f"coalesce({column}, []::VARCHAR[])" if kind == "VARCHAR[]" else column
