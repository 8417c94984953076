"""The metric model: what dashboards and behavior rules measure, typed, before any query language.

A metric is ``values`` over the rows of one data set that fulfil ``where``, per combination of ``by``, and per bucket of
time when it has one. Every engine gives the same numbers:

- a row counts once per ``event_id``, however often it was delivered;
- a list as a dimension gives one row per element (an event with three leak types counts in three groups), and an event
  without elements is in the group of the empty string;
- a missing string is the empty string and a group of its own (shown as "(none)"); numbers that are missing are left
  out of ``sum``, ``avg``, ``min``, ``max`` and ``percentile``; those of no number are missing, except ``sum``: 0;
- ``dcount`` counts distinct, not empty values; large cardinalities are estimates where an engine has only these (SPL
  ``dc`` and DuckDB are exact, KQL ``dcount`` and ES|QL ``COUNT_DISTINCT`` are estimates: their documentation,
  "dcount() aggregation function" and "ES|QL COUNT_DISTINCT");
- buckets are UTC and aligned to the epoch.
"""

from functools import cache
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from aitrail.compiler.expr import Expr
from aitrail.event import AccessEvent
from aitrail.schema.catalog import FieldInfo, Kind, by_name
from aitrail.schema.ecs import OWN, RECORD_NAMES
from aitrail.streams import KINDS

Dataset = Literal["access", "finding", "health"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
Function = Literal["count", "dcount", "sum", "avg", "min", "max", "percentile", "ratio"]
Bucket = Literal["", "auto", "15m", "1h", "1d", "hour_of_day", "day_of_week", "hour_of_week"]
BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
FUNCTIONS: tuple[Function, ...] = get_args(Function)
BUCKET_SECONDS: dict[str, int] = {"15m": 900, "1h": 3600, "1d": 86400}


class Aggregate(Struct, frozen=True):
    """One number per group.

    Attributes:
        name: its column, snake_case, unique in the metric.
        function: ``ratio`` divides two other values of the metric, and is missing where the divisor is 0.
        field: what is counted distinct, summed and so on; None for ``count`` and ``ratio``.
        percentile: 0-100, for ``percentile``: the linear interpolation between the closest ranks in DuckDB; the nearest
            value the engine has elsewhere.
        where: only rows that fulfil it; None for all.
        of, over: for ``ratio``: names of earlier values.
        unit: for people: ``ms``, ``USD``, ``tokens``, ``%`` (of a ratio: shown times 100), or nothing.
        label: for people.
    """

    name: str
    function: Function = "count"
    field: FieldInfo | None = None
    percentile: int = 0
    where: Expr | None = None
    of: str = ""
    over: str = ""
    unit: str = ""
    label: str = ""


class Metric(Struct, frozen=True):
    """Numbers by dimensions and time.

    Attributes:
        dataset: accesses, findings of rules, or the health of collectors.
        values: at least one.
        where: which rows; None for all.
        by: dimensions, at most three; a list field is expanded.
        bucket: of time; ``auto`` takes what gives 30 to 120 buckets in the range that is looked at; ``hour_of_day``
            (0-23) and ``day_of_week`` (1 Monday - 7 Sunday) fold the range, ``hour_of_week`` by both.
        top: the groups with the largest ``order`` value are kept, all when 0; with a bucket: those of the whole range.
        order: name of the value that sorts, largest first, ties by the dimensions; the first value when empty.
        present: leave out groups in which a dimension is empty.
        least: leave out groups whose ``order`` value is lower; all when 0. Not with a bucket.
    """

    values: tuple[Aggregate, ...]
    dataset: Dataset = "access"
    where: Expr | None = None
    by: tuple[FieldInfo, ...] = ()
    bucket: Bucket = ""
    top: int = 0
    order: str = ""
    present: bool = False
    least: int = 0


class Listing(Struct, frozen=True):
    """Rows themselves, newest first (or by ``order``, largest first): what a table of events shows."""

    fields: tuple[FieldInfo, ...]
    dataset: Dataset = "access"
    where: Expr | None = None
    limit: int = 50
    order: str = "timestamp"


@cache
def catalog(dataset: Dataset) -> dict[str, FieldInfo]:
    """The fields of a data set by name; those of findings and health are derived from ``aitrail.streams``."""
    if dataset == "access":
        return by_name()
    return {field.encode_name: _derived(field, dataset) for field in _struct(dataset).fields}


@cache
def defaults(dataset: Dataset) -> dict[str, str]:
    """What an absent string means where that is not the empty one: canonical bytes leave out what is the default."""
    known = catalog(dataset)
    return {
        field.encode_name: field.default
        for field in _struct(dataset).fields
        if isinstance(field.default, str) and field.default and known[field.encode_name].kind == "string"
    }


def _struct(dataset: Dataset) -> msgspec.inspect.StructType:
    info = msgspec.inspect.type_info(AccessEvent if dataset == "access" else KINDS[dataset])
    if not isinstance(info, msgspec.inspect.StructType):  # pragma: no cover - it is one
        raise TypeError(dataset)
    return info


_TIMES = {"timestamp", "first_seen", "detected_at", "newest_event"}
_TEXTS = {"summary", "reason"}
_KINDS: dict[type, Kind] = {
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.VarTupleType: "list",
}


def _derived(field: msgspec.inspect.Field, dataset: Dataset) -> FieldInfo:
    kind, description = field.type, ""
    if isinstance(kind, msgspec.inspect.Metadata):
        description = str((kind.extra_json_schema or {}).get("description", ""))
        kind = kind.type
    members = list(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else [kind]
    name = field.encode_name
    named: Kind = "time" if name in _TIMES else "text" if name in _TEXTS else _KINDS.get(type(members[0]), "string")
    values = members[0].values if isinstance(members[0], msgspec.inspect.LiteralType) else []
    return FieldInfo(
        name=name,
        kind=named,
        description=description,
        unit="",
        example=None,
        lower=bool(values) or (name in by_name() and by_name()[name].lower),
        group="stream",
        required=field.required,
        enum=tuple(sorted(map(str, values))),
        names=_names(name, dataset),
    )


def _names(name: str, dataset: Dataset) -> dict[str, str]:
    """A field that accesses have, too, has the same names."""
    if name in by_name():
        return by_name()[name].names
    return {"ecs": RECORD_NAMES[dataset].get(name) or f"{OWN}{dataset}.{name}"}
