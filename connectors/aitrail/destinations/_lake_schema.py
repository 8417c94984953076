"""The columns of a lake file: OCSF 1.8 classes as nested Parquet types, derived from what is written into them.

No list of fields is kept here: the types are those of the catalog's example event, and of variants of it that take
the other ways through ``to_ocsf`` (an address that is none, a resource without an id, ...); those of findings are of
the example finding. Every file of a class has the same columns, so that readers need no schema merging.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent
from aitrail.schema.catalog import example_event
from aitrail.schema.ocsf import CLASS_UID, to_ocsf
from aitrail.schema.ocsf_finding import FINDING_CLASS_UID, finding_to_ocsf
from aitrail.streams import example_finding

_SCALARS: Mapping[type, str] = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


def _variants() -> Iterator[AccessEvent]:
    """Events that together reach every key of ``to_ocsf``."""
    yield example_event()
    changes: tuple[dict[str, Any], ...] = (
        {"user_email": "no address", "src_ip": "f" * 41, "src_host": "", "resource_id": "", "model": "m"},
        {"user_id": "", "user_name": "", "src_ip": "", "src_host": "", "outcome_status": "blocked"},
        {"error_code": "", "http_status": None, "guardrail_action": "masked", "atlas": ("aml.t0051",)},
        {"model": "", "model_provider": "", "cloud_provider": "", "action": "", "action_kind": ""},
    )
    for change in changes:
        yield msgspec.structs.replace(example_event(), **change)


def _merge(known: Any, value: Any) -> Any:
    """Merge the shape of ``value`` into a shape: dicts by key, lists by their items, scalars by their type's name."""
    if isinstance(value, dict):
        found = dict(known or {})
        for key, one in value.items():
            found[key] = _merge(found.get(key), one)
        return found
    if isinstance(value, list | tuple):
        inner = known[0] if known else None
        for one in value:
            inner = _merge(inner, one)
        return [inner]
    name = _SCALARS[type(value)]
    if known is not None and known != name and {known, name} != {"BIGINT", "DOUBLE"}:
        raise TypeError(f"to_ocsf gives {known} and {name} in one place")
    return "DOUBLE" if known == "DOUBLE" else name


@cache
def shape(class_uid: int = CLASS_UID) -> Mapping[str, Any]:
    """The shape of every row of a class: column -> type name, dict of columns, or list with one shape."""
    found: Any = {}
    for row in _examples(class_uid):
        found = _merge(found, row)
    return dict(found)


def _examples(class_uid: int) -> Iterator[dict[str, Any]]:
    if class_uid == FINDING_CLASS_UID:
        yield finding_to_ocsf(example_finding())
    else:
        yield from map(to_ocsf, _variants())


def quote(text: str) -> str:
    """Quote a string for SQL."""
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sql_type(one: Any) -> str:
    if isinstance(one, dict):
        return "STRUCT(" + ", ".join(f"{_identifier(key)} {_sql_type(value)}" for key, value in one.items()) + ")"
    if isinstance(one, list):
        return f"{_sql_type(one[0])}[]"
    return str(one)


@cache
def json_columns(class_uid: int = CLASS_UID) -> str:
    """Give the ``columns`` argument of DuckDB's ``read_json``: every top-level field with its whole type."""
    return (
        "{" + ", ".join(f"{_identifier(key)}: {quote(_sql_type(one))}" for key, one in shape(class_uid).items()) + "}"
    )
