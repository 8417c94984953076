"""Metrics and listings in DuckDB SQL, over relations with the columns of a data set: what the local console runs.

Relations: ``events`` (the store's view), ``finding_records`` and ``health_records`` (the fields of ``aitrail.streams``;
``column_types`` gives their types; strings and lists are never NULL). A store holds each event once.

Parameters, named: ``$since`` and ``$until`` (naive UTC timestamps; from ``$since`` to before ``$until``), each filter
as a list of texts (``$department``; NULL or empty: all; a dimension without a value is chosen by its text), and
``$bucket``, the width of automatic buckets in seconds, when ``needs_bucket``. Buckets are timestamps; hours and days
are numbers. ``Scope.previous`` shifts the range within the statement.
"""

# ruff: noqa: S608 - statements are made of the catalog's names and quoted literals of the content, never of events

from aitrail.compiler.dialects.duckdb import condition, literal
from aitrail.compiler.dialects.scope import Scope, buckets, columns, measured, ordering, ratios, whole_range
from aitrail.compiler.expr import fields_of
from aitrail.compiler.metric import BUCKET_SECONDS, Aggregate, Dataset, Listing, Metric, catalog
from aitrail.schema.catalog import FieldInfo, Kind

RELATIONS: dict[Dataset, str] = {"access": "events", "finding": "finding_records", "health": "health_records"}
_TYPES: dict[Kind, str] = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMP",
    "list": "VARCHAR[]",
}
_TEXTUAL = ("string", "ip", "text")


def render(query: Metric | Listing, scope: Scope, *, total: bool = False) -> str:
    """Give the statement; its columns are ``scope.columns(query)``.

    ``total`` adds the numbers of the whole range to a metric with a bucket and without dimensions: a last row whose
    ``time`` is NULL. It costs hardly more than the buckets alone, a statement of its own as much again.
    """
    return _listing(query, scope) if isinstance(query, Listing) else _metric(query, scope, total=total)


def parameters(query: Metric | Listing, scope: Scope) -> tuple[str, ...]:
    """The names of all parameters that must be bound."""
    names = ("since", "until", *(field.name for field in scope.fields(query.dataset)))
    return (*names, "bucket") if needs_bucket(query) else names


def needs_bucket(query: Metric | Listing) -> bool:
    """Whether ``$bucket`` must be bound (``scope.auto_seconds`` of the range)."""
    return isinstance(query, Metric) and query.bucket == "auto"


def column_types(dataset: Dataset) -> dict[str, str]:
    """Name and DuckDB type of each column that the relation of ``dataset`` has."""
    return {name: _TYPES.get(field.kind, "VARCHAR") for name, field in catalog(dataset).items()}


def _name(field: FieldInfo | str) -> str:
    return '"' + (field if isinstance(field, str) else field.name) + '"'


def _range(scope: Scope) -> tuple[str, str]:
    if not scope.previous:
        return "$since::TIMESTAMP", "$until::TIMESTAMP"
    back = " - ".join(["", *["($until::TIMESTAMP - $since::TIMESTAMP)"] * scope.previous])
    return f"$since::TIMESTAMP{back}", f"$until::TIMESTAMP{back}"


def _source(query: Metric | Listing, scope: Scope) -> str:
    """The rows that count: range, filters, condition."""
    since, until = _range(scope)
    tests = [f"timestamp >= {since}", f"timestamp < {until}"]
    tests += [chosen(field, scope) for field in scope.fields(query.dataset)]
    tests += [condition(query.where)] if query.where else []
    return f"SELECT * FROM {RELATIONS[query.dataset]}\n  WHERE " + "\n    AND ".join(tests)


def chosen(field: FieldInfo, scope: Scope) -> str:
    """The test that a row passes a filter; nothing chosen: it does."""
    chosen = f"${field.name}::VARCHAR[]"
    none = literal(scope.text_of_none(""))
    if field.kind == "list":
        shown = f"CASE WHEN len({_name(field)}) = 0 THEN [{none}] ELSE {_name(field)} END"
        return f"(len(coalesce({chosen}, [])) = 0 OR list_has_any({chosen}, {shown}))"
    return f"(len(coalesce({chosen}, [])) = 0 OR list_contains({chosen}, {_shown(_text(field), scope)}))"


def _text(field: FieldInfo) -> str:
    return _name(field) if field.kind in _TEXTUAL else f"coalesce({_name(field)}::VARCHAR, '')"


def _shown(text: str, scope: Scope) -> str:
    none = scope.text_of_none("")
    return text if not none else f"CASE WHEN {text} = '' THEN {literal(none)} ELSE {text} END"


def _listing(query: Listing, scope: Scope) -> str:
    listed = ", ".join(map(_name, query.fields))
    rest = "" if query.order == "timestamp" else ", timestamp DESC"
    order = f"{_name(query.order)} DESC NULLS LAST{rest}, event_id"
    return f"SELECT {listed} FROM (\n  {_source(query, scope)}\n)\nORDER BY {order}\nLIMIT {query.limit}"


# --- metrics


def _metric(query: Metric, scope: Scope, *, total: bool) -> str:
    keys = [f"z_d{number}" for number in range(len(query.by))]
    times = buckets(query)
    steps = [f"scope AS (\n  {_source(query, scope)}\n)", f"rows AS (\n  {_expanded(query, 'scope')}\n)"]
    source = "rows"
    if whole_range(query):
        best = _best(query, keys)
        steps.append(f"best AS (\n  {best}\n)")
        source = f"rows SEMI JOIN best USING ({', '.join(keys)})"
    made = [f"{_aggregate(value)} AS {_name(value.name)}" for value in measured(query)]
    grouped = [*map(_name, times), *keys]
    group = f" GROUP BY {', '.join(grouped)}" if grouped else ""
    if total and times and not keys:
        group = f" GROUP BY GROUPING SETS (({', '.join(grouped)}), ())"
    steps.append(f"grouped AS (\n  SELECT {', '.join([*grouped, *made])} FROM {source}{group}\n)")
    shown = dict(zip((field.name for field in query.by), keys, strict=True))
    divided = {value.name: _ratio(_name(value.of), _name(value.over)) for value in ratios(query)}
    listed = []
    for name in columns(query):
        text = _shown(shown[name], scope) if name in shown else divided.get(name, _name(name))
        listed.append(text if text == _name(name) else f"{text} AS {_name(name)}")
    lines = ["WITH " + ", ".join(steps), f"SELECT {', '.join(listed)} FROM grouped"]
    order = [*map(_name, times), *keys]
    if not times and keys:
        first = divided.get(ordering(query).name, _name(ordering(query).name))
        lines += [f"WHERE {first} >= {query.least}"] if query.least else []
        order = [f"{first} DESC NULLS LAST", *keys]
    lines += [f"ORDER BY {', '.join(order)}"] if order else []
    lines += [f"LIMIT {query.top}"] if query.top and not times else []
    return "\n".join(lines)


def _best(query: Metric, keys: list[str]) -> str:
    """The groups with the largest values of the whole range."""
    value = ordering(query)
    aggregates = {one.name: _aggregate(one) for one in measured(query)}
    text = aggregates.get(value.name) or _ratio(aggregates[value.of], aggregates[value.over])
    listed = ", ".join(keys)
    return f"SELECT {listed} FROM rows GROUP BY {listed} ORDER BY {text} DESC NULLS LAST, {listed} LIMIT {query.top}"


def _expanded(query: Metric, source: str) -> str:
    """Rows with their dimensions ``z_d0...`` and buckets; one per element of a list."""
    plain = [_moment(query)] if query.bucket else []
    lists: list[str] = []
    filled: list[str] = []
    for number, field in enumerate(query.by):
        if field.kind == "list":
            name = _name(field)
            # Most events have none or one: the cases save what `list_distinct` costs, the test what `unnest` does.
            cases = f"CASE len({name}) WHEN 0 THEN [''] WHEN 1 THEN {name} ELSE list_distinct({name}) END"
            lists.append(f"unnest({cases}) AS z_d{number}")
            filled.append(f"len({name}) > 0")
        else:
            plain.append(f"{_text(field)} AS z_d{number}")
    # By name: what is read twice is kept in memory, and rows hold texts.
    text = f"SELECT {', '.join([*_inputs(query), *plain]) or '1 AS z_row'} FROM {source}"
    if query.present and filled:
        text += f" WHERE {' AND '.join(filled)}"
    # One after the other: two in one SELECT would run in step.
    for unnest in lists:
        text = f"SELECT *, {unnest} FROM ({text})"
    if query.present and query.by:
        tests = " AND ".join(f"z_d{number} <> ''" for number in range(len(query.by)))
        text = f"SELECT * FROM ({text}) WHERE {tests}"
    return text


def _inputs(query: Metric) -> list[str]:
    """The columns that aggregates and lists read."""
    names = [field.name for field in query.by if field.kind == "list"]
    for value in query.values:
        names += [value.field.name] if value.field else []
        names += sorted(fields_of(value.where)) if value.where else []
    return [_name(name) for name in dict.fromkeys(names)]


def _moment(query: Metric) -> str:
    folds = {"hour_of_day": "hour(timestamp)", "day_of_week": "isodow(timestamp)"}
    if query.bucket in BUCKET_SECONDS or query.bucket == "auto":
        width = (
            f"{BUCKET_SECONDS[query.bucket] * 1_000_000}" if query.bucket != "auto" else "($bucket::BIGINT * 1000000)"
        )
        return f'make_timestamp(epoch_us(timestamp) // {width} * {width}) AS "time"'
    return ", ".join(f"{folds[name]} AS {_name(name)}" for name in buckets(query))


def _ratio(of: str, over: str) -> str:
    return f"{of} / nullif({over}, 0)"


def _aggregate(value: Aggregate) -> str:
    only = f" FILTER (WHERE {condition(value.where)})" if value.where else ""
    if value.field is None:
        return f"count(*){only}"
    name = _name(value.field)
    if value.function == "dcount":
        counted = f"nullif({name}, '')" if value.field.kind in _TEXTUAL else name
        return f"count(DISTINCT {counted}){only}"
    if value.function == "percentile":
        return f"quantile_cont({name}, {value.percentile / 100}){only}"
    text = f"{value.function}({name}){only}"
    return f"coalesce({text}, 0)" if value.function == "sum" else text
