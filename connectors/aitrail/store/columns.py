"""The columns of a segment, derived from ``AccessEvent`` and nothing else.

On disk a column is NULL where the event did not carry the field. Readers see the ``events`` view, where a missing
string is ``''`` (or the field's default), a missing list is ``[]`` and a missing number or boolean stays NULL: so
``missing == empty`` for strings, in every segment, whichever version of aitrail wrote it.
"""

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import inspect

from aitrail.event import AccessEvent, ContentMode
from aitrail.privacy.lower import HASHES, TEXTS, WITHIN

# The two fields whose text form is the canonical timestamp; stored as TIMESTAMP, in UTC.
TIME_FIELDS = frozenset({"timestamp", "ingested_at"})

_SCALARS: dict[type, str] = {
    inspect.StrType: "VARCHAR",
    inspect.LiteralType: "VARCHAR",
    inspect.FloatType: "DOUBLE",
    inspect.IntType: "BIGINT",
    inspect.BoolType: "BOOLEAN",
    inspect.VarTupleType: "VARCHAR[]",
}


def _plain(kind: inspect.Type) -> list[inspect.Type]:
    """Take annotations and ``None`` off a type; a union gives its members."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [part for member in kind.types for part in _plain(member)]
    return [] if isinstance(kind, inspect.NoneType) else [kind]


def _sql_type(field: inspect.Field) -> str:
    """Give the column type of one field; raises ``TypeError`` when the catalog holds a type that has none."""
    if field.name in TIME_FIELDS:
        return "TIMESTAMP"
    found = {_SCALARS.get(type(part), "") for part in _plain(field.type)}
    if len(found) != 1 or "" in found:
        raise TypeError(f"AccessEvent.{field.name}: its type has no column type; extend store/columns.py")
    return found.pop()


def _catalog() -> tuple[dict[str, str], dict[str, str]]:
    """Derive column types and text defaults from the Struct."""
    info = inspect.type_info(AccessEvent)
    assert isinstance(info, inspect.StructType)
    types = {field.encode_name: _sql_type(field) for field in info.fields}
    defaults = {
        field.encode_name: str(field.default)
        for field in info.fields
        if types[field.encode_name] == "VARCHAR" and field.default is not msgspec.NODEFAULT
    }
    return types, defaults


COLUMNS, DEFAULTS = _catalog()

# Names the column set; segments that all carry the current one are read without looking into each file first.
COLUMNS_ID = hashlib.blake2b(repr(sorted(COLUMNS.items())).encode(), digest_size=8).hexdigest()


def quote(text: str) -> str:
    """Quote a string for SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def json_columns() -> str:
    """Give the ``columns`` argument of DuckDB's ``read_json``: every field with its type."""
    return "{" + ", ".join(f"{identifier(name)}: {quote(kind)}" for name, kind in COLUMNS.items()) + "}"


def _stored(name: str, present: Mapping[str, str]) -> str:
    """Give the expression for a column as stored: NULL of its type when no segment has it."""
    kind = COLUMNS[name]
    if name not in present:
        return f"NULL::{kind}"
    return identifier(name) if present[name] == kind else f"{identifier(name)}::{kind}"


def stored_list(present: Mapping[str, str] | None = None) -> str:
    """Give the SELECT list that brings segments with the columns ``present`` (name -> type) to the current catalog."""
    have = COLUMNS if present is None else present
    return ", ".join(f"{_stored(name, have)} AS {identifier(name)}" for name in COLUMNS)


def view_list(present: Mapping[str, str] | None = None) -> str:
    """Give the SELECT list of the ``events`` view: as ``stored_list``, with defaults where a field is missing."""
    have = COLUMNS if present is None else present
    parts = []
    for name, kind in COLUMNS.items():
        expression = _stored(name, have)
        if kind == "VARCHAR[]":
            expression = f"coalesce({expression}, []::VARCHAR[])"
        elif name in DEFAULTS:
            expression = f"coalesce({expression}, {quote(DEFAULTS[name])})"
        parts.append(f"{expression} AS {identifier(name)}")
    return ", ".join(parts)


def lowered(events: str, content: ContentMode) -> str:
    """Give ``events`` (a SELECT of all columns) without the content that is above ``content``, as ``privacy.lower``.

    Texts that could be shown masked are left out as well: only a classifier can mask, not a query. ``content_mode``
    stays what is stored, so that a reader can tell why there is no text.
    """
    within = ", ".join(quote(mode) for mode in sorted(WITHIN[content]))
    # Content whose treatment is not told counts as full.
    shown = f"if(content_mode = '', 'full', content_mode) IN ({within})"
    hidden = TEXTS if content != "none" else (*TEXTS, *HASHES)
    parts = [f"CASE WHEN {shown} THEN {identifier(name)} ELSE '' END AS {identifier(name)}" for name in hidden]
    # ``concept|layer|role|start-end``: the offsets go, as they lead into a text that is not there.
    bare = "list_transform(evidence, lambda one: regexp_replace(one, '[^|]*$', ''))"
    parts.append(f"CASE WHEN {shown} THEN evidence ELSE {bare} END AS evidence")
    return f"SELECT * REPLACE ({', '.join(parts)}) FROM ({events})"  # noqa: S608  (names and modes of this package)
