"""Metrics and listings in ES|QL, for Kibana over the data streams of accesses, findings and health.

Kibana narrows an ES|QL panel by the dashboard's time range, filters and option lists itself (``@timestamp`` is in every
data stream), so a scope without filters and shift adds nothing. Filters of a scope become variables of controls
(``?department``: one text, ``*`` meaning all); ``auto`` buckets and ``Scope.previous`` read ``?_tstart`` and ``?_tend``
(Kibana, "Use ES|QL in Kibana": custom time parameters). A panel of the previous range must not be narrowed to the
dashboard's range by Kibana as well: give it a time range of its own that covers both.

Facts (Elasticsearch, "ES|QL reference"): a document is stored once (``_id`` is the event's); what is absent is null; a
row whose grouping key has several values counts in the group of each; ``STATS`` filters an aggregate with ``WHERE``;
dates are milliseconds as a long, longs divide to whole numbers; results have at most 10,000 rows. Stand-ins:
``COUNT_DISTINCT`` is an estimate (HyperLogLog++, exact in practice up to its precision threshold), ``PERCENTILE`` too
(t-digest). The groups with the largest values of the whole range are found by a second ``STATS`` over the buckets;
there is none for percentiles and averages, which cannot be joined from parts.
"""

from aitrail.compiler.dialects.esql import closed, column, condition, literal
from aitrail.compiler.dialects.scope import (
    LADDER,
    Scope,
    buckets,
    columns,
    measured,
    ordering,
    ratios,
    shipped,
    steps,
    whole_range,
    wire,
)
from aitrail.compiler.metric import Aggregate, Dataset, Listing, Metric, catalog, defaults
from aitrail.compiler.problems import Unsupported
from aitrail.schema.catalog import FieldInfo

SOURCES: dict[Dataset, str] = {
    "access": "logs-ai_audit.access-*",
    "finding": "logs-ai_audit.finding-*",
    "health": "logs-ai_audit.health-*",
}
MOST_ROWS = 10_000
_TRUNCATED = {"15m": "15 minutes", "1h": "1 hour", "1d": "1 day"}
# Words that stand for a column only in backticks (its grammar, words of expressions).
_QUOTED = frozenset({"first", "last", "metadata", "nulls", "prefer"})
_NOTHING = "-"  # a missing number in a row that is written as one text


def render(query: Metric | Listing, scope: Scope) -> str:
    """Give the query; its columns are ``scope.columns(query)``.

    Raises:
        Unsupported: the largest groups of the whole range by an average or percentile, with a bucket.
    """
    return _listing(query, scope) if isinstance(query, Listing) else _metric(shipped(query), scope)


def _named(name: str) -> str:
    return f"`{name}`" if name in _QUOTED else name


def _source(query: Metric | Listing, scope: Scope) -> list[str]:
    lines = [f"FROM {SOURCES[query.dataset]}"]
    if scope.previous:
        shift = f"{scope.previous} * (TO_LONG(TO_DATETIME(?_tend)) - TO_LONG(TO_DATETIME(?_tstart)))"
        moment = "TO_LONG(@timestamp)"
        lines.append(
            f"WHERE {moment} >= TO_LONG(TO_DATETIME(?_tstart)) - {shift}"
            f" AND {moment} < TO_LONG(TO_DATETIME(?_tend)) - {shift}"
        )
    for field in scope.fields(query.dataset):
        if field.kind == "list":
            raise Unsupported("esql", f"a variable against {field.name}, which has several values")
        shown = _text(field, query.dataset, scope)
        lines.append(f'WHERE ?{field.name} IN ("", "*") OR {shown} == ?{field.name}')
    return lines + ([f"WHERE {condition(query.where)}"] if query.where else [])


def _text(field: FieldInfo, dataset: Dataset, scope: Scope) -> str:
    """A dimension as a text; what is absent is its default or the text for nothing."""
    none = literal(defaults(dataset).get(field.name) or scope.text_of_none())
    name = column(field)
    return f"COALESCE({name if field.kind in ('string', 'list') else f'TO_STRING({name})'}, {none})"


def _piped(lines: list[str]) -> str:
    return "\n| ".join(lines)


def _listing(query: Listing, scope: Scope) -> str:
    where = wire(query.where, query.dataset) if query.where else None
    lines = _source(Listing(query.fields, query.dataset, where, query.limit, query.order), scope)
    order = column(catalog(query.dataset)[query.order])
    rest = "" if query.order == "timestamp" else ", @timestamp DESC"
    lines += [f"SORT {order} DESC NULLS LAST{rest}, event.id ASC", f"LIMIT {query.limit}"]
    listed = [
        f"{_named(field.name)} = {_filled(field, query.dataset)}"
        for field in query.fields
        if column(field) != field.name
    ]
    lines += [f"EVAL {', '.join(listed)}"] if listed else []
    return _piped([*lines, f"KEEP {', '.join(map(_named, columns(query)))}"])


# --- metrics


def _metric(query: Metric, scope: Scope) -> str:
    times, keys = buckets(query), [_named(field.name) for field in query.by]
    lines = _source(query, scope)
    if query.present and query.by:
        needed = [field for field in query.by if field.name not in defaults(query.dataset)]
        tests = [f"{column(field)} IS NOT NULL" for field in needed]
        lines += [f"WHERE {' AND '.join(tests)}"] if tests else []
    made = [*_moment(query), *(f"{_named(field.name)} = {_text(field, query.dataset, scope)}" for field in query.by)]
    lines += [f"EVAL {part}" for part in made]
    grouped = [*times, *keys]
    by = f" BY {', '.join(grouped)}" if grouped else ""
    parts = [f"{_named(value.name)} = {_aggregate(value, query.dataset)}" for value in measured(query)]
    if whole_range(query):
        lines += _kept(query, parts, by)
    else:
        lines.append(f"STATS {', '.join(parts)}{by}")
    finished = _finished(query)
    lines += [f"EVAL {', '.join(finished)}"] if finished else []
    lines += [f"EVAL {_named(one.name)} = {_ratio(one)}" for one in ratios(query)]
    if times:
        lines.append(f"SORT {', '.join(f'{name} ASC' for name in grouped)}")
    elif keys:
        lines += [f"WHERE {_named(ordering(query).name)} >= {query.least}"] if query.least else []
        lines.append(
            f"SORT {_named(ordering(query).name)} DESC NULLS LAST, {', '.join(f'{name} ASC' for name in keys)}"
        )
    if grouped:
        lines.append(f"LIMIT {query.top if query.top and not times else MOST_ROWS}")
    return _piped([*lines, f"KEEP {', '.join(map(_named, columns(query)))}"])


def _moment(query: Metric) -> list[str]:
    if query.bucket in _TRUNCATED:
        return [f"time = DATE_TRUNC({_TRUNCATED[query.bucket]}, @timestamp)"]
    if query.bucket == "auto":
        cases = ", ".join(f"z_range <= {at_most}, {width}" for at_most, width in steps())
        return [
            'z_range = DATE_DIFF("seconds", TO_DATETIME(?_tstart), TO_DATETIME(?_tend))',
            f"z_width = TO_LONG(CASE({cases}, {LADDER[-1]})) * 1000",
            "time = TO_DATETIME(TO_LONG(@timestamp) / z_width * z_width)",
        ]
    return [f'{name} = DATE_EXTRACT("{name}", @timestamp)' for name in buckets(query)]


def _aggregate(value: Aggregate, dataset: Dataset) -> str:
    only = f" WHERE {closed(value.where)}" if value.where else ""
    if value.field is None:
        return f"COUNT(*){only}"
    name = _filled(value.field, dataset)
    if value.function == "percentile":
        return f"PERCENTILE({name}, {value.percentile}){only}"
    function = {"dcount": "COUNT_DISTINCT"}.get(value.function, value.function.upper())
    return f"{function}({name}){only}"


def _filled(field: FieldInfo, dataset: Dataset) -> str:
    usual = defaults(dataset).get(field.name)
    return f"COALESCE({column(field)}, {literal(usual)})" if usual else column(field)


def _finished(query: Metric) -> list[str]:
    """A sum of nothing is 0."""
    zeros = {"integer": "TO_LONG(0)", "number": "0.0"}
    return [
        f"{_named(value.name)} = COALESCE({_named(value.name)}, {zeros[value.field.kind]})"
        for value in measured(query)
        if value.function == "sum" and value.field
    ]


def _ratio(one: Aggregate) -> str:
    return f"CASE({_named(one.over)} != 0, TO_DOUBLE({_named(one.of)}) / {_named(one.over)})"


_JOINED = {"count": "SUM", "sum": "SUM", "min": "MIN", "max": "MAX"}


def _kept(query: Metric, parts: list[str], by: str) -> list[str]:
    """The groups with the largest values of the whole range, with their buckets.

    One text per bucket holds its numbers while the groups are sorted; then each becomes a row again.
    """
    value, keys, times = ordering(query), ", ".join(_named(field.name) for field in query.by), buckets(query)
    pieces, totals = _totals(query, value)
    names = [*times, *(one.name for one in measured(query))]
    numbers = [f'COALESCE(TO_STRING({_number(name)}), "{_NOTHING}")' for name in names]
    row = "CONCAT(" + ', "|", '.join(numbers) + ")"
    order = "z_order = " + (
        "z_order_0" if value.function != "ratio" else "CASE(z_order_1 != 0, TO_DOUBLE(z_order_0) / z_order_1)"
    )
    # Names of their own, so that a checker of types does not take a text for the number that it was.
    pattern = "|".join(f"%{{z_{name}}}" for name in names)
    back = [f"{_named(name)} = {_typed(query, name)}" for name in names]
    return [
        f"STATS {', '.join([*parts, *pieces])}{by}",
        f"EVAL z_row = {row}",
        f"STATS {', '.join(totals)}, z_row = VALUES(z_row) BY {keys}",
        f"EVAL {order}",
        f"SORT z_order DESC NULLS LAST, {', '.join(f'{_named(field.name)} ASC' for field in query.by)}",
        f"LIMIT {query.top}",
        "MV_EXPAND z_row",
        f"DISSECT z_row {literal(pattern)}",
        f"EVAL {', '.join(back)}",
    ]


def _totals(query: Metric, value: Aggregate) -> tuple[list[str], list[str]]:
    """What each bucket must give besides, and what the whole range makes of it."""
    known = {one.name: one for one in query.values}
    needed = [known[value.of], known[value.over]] if value.function == "ratio" else [value]
    pieces, totals = [], []
    for number, one in enumerate(needed):
        if one.function == "dcount" and one.field:
            only = f" WHERE {closed(one.where)}" if one.where else ""
            pieces.append(f"z_all_{number} = VALUES({_filled(one.field, query.dataset)}){only}")
            totals.append(f"z_order_{number} = COUNT_DISTINCT(z_all_{number})")
        elif one.function in _JOINED:
            totals.append(f"z_order_{number} = {_JOINED[one.function]}({_named(one.name)})")
        else:
            raise Unsupported("esql", f"the largest groups of the whole range by {one.function}, with a bucket")
    return pieces, totals


def _number(name: str) -> str:
    return f"TO_LONG({name})" if name == "time" else _named(name)


def _typed(query: Metric, name: str) -> str:
    """A number from its text, of the type that it had."""
    text = f'CASE(z_{name} != "{_NOTHING}", z_{name})'
    value = next((one for one in query.values if one.name == name), None)
    if name == "time":
        return f"TO_DATETIME(TO_LONG(z_{name}))"
    whole = (
        value is None
        or value.function in ("count", "dcount")
        or (value.field is not None and value.field.kind == "integer" and value.function in ("sum", "min", "max"))
    )
    return f"TO_LONG({text})" if whole else f"TO_DOUBLE({text})"
