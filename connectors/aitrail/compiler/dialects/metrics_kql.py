"""Metrics and listings in KQL, for workbooks over the Sentinel tables of accesses, findings and health.

The time range comes from a workbook parameter ``TimeRange``, the filters from parameters named like the columns of
``aitrail.schema`` in Pascal case (``Department``, ``UserId``, ...), multi-select, with the delimiter ``,`` and no
quotation, ``*`` or nothing meaning all. They enter base64-encoded (``{Department:base64}``), so that no value can leave
its literal (Azure Monitor, "Workbook parameters: time parameters" and "Encode text to base64"; that a workbook encodes
UTF-8 there is not documented).

Facts (Kusto documentation): ``TimeGenerated`` is the table's index of time, never before ``EventTime`` of what happened
in a range that ends now, and is replaced for records older than two days; it only prunes. A row that was delivered
twice is taken once (``arg_max`` by ``EventUid``). ``bin`` counts from the year 1, so wide bins are made of the seconds
since the epoch. ``avg`` of nothing is NaN. Stand-ins: ``dcount`` is an estimate (error below 1 % at the usual
accuracy), ``percentile`` gives a nearest rank of an estimate.
"""

from aitrail.compiler.dialects.kql import column, condition, literal
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
from aitrail.compiler.metric import BUCKET_SECONDS, Aggregate, Dataset, Listing, Metric, catalog, defaults
from aitrail.schema.catalog import FieldInfo, pascal_case
from aitrail.schema.views.kusto import TABLE

TABLES: dict[Dataset, str] = {"access": TABLE, "finding": "AIAuditFindings_CL", "health": "AIAuditHealth_CL"}
TIME_PARAMETER = "TimeRange"
_EPOCH = "datetime(1970-01-01)"
_NULLS = {"integer": "long(null)", "number": "real(null)", "boolean": "bool(null)"}
_TEXTUAL = ("string", "ip", "text")
# Words of the language (Kusto grammar) that stand for a column only in brackets.
_WORDS = (
    "accumulate and anomalychart anomalycolumns areachart as asc barchart between boolean by card columnchart "
    "consume contains count datascope datatable date datetime decimal desc distinct double dynamic endswith extend "
    "externaldata filter find first flags float has hasprefix hassuffix hotcache in int invoke isfuzzy join kind "
    "ladderchart last like limit linechart long materialize mvapply mvexpand of or order others panels parse "
    "piechart pivotchart print project real regex relaxed sample scan scatterchart search serialize set simple sort "
    "startswith string summarize table take time timechart timeline timepivot timespan title to top toscalar "
    "totable treemap uint ulong union uniqueid where withsource"
)
_QUOTED = frozenset(_WORDS.split())


def render(query: Metric | Listing, scope: Scope) -> str:
    """Give the query; its columns are ``scope.columns(query)``."""
    return _listing(query, scope) if isinstance(query, Listing) else _metric(shipped(query), scope)


def parameter(field: FieldInfo) -> str:
    """The workbook parameter that holds what was chosen for ``field``."""
    return pascal_case(field.name)


def chosen(field: FieldInfo) -> str:
    """The expression that is what was chosen for ``field``, as one text."""
    return f'base64_decode_tostring("{{{parameter(field)}:base64}}")'


def _named(name: str) -> str:
    return f"['{name}']" if name in _QUOTED else name


def _lets(dataset: Dataset, scope: Scope) -> list[str]:
    """The range and what was chosen."""
    found = [f'let z_{field.name} = strcat(",", {chosen(field)}, ",");' for field in scope.fields(dataset)]
    return [*_range(scope), *found]


def _range(scope: Scope) -> list[str]:
    start, end = f"{{{TIME_PARAMETER}:start}}", f"{{{TIME_PARAMETER}:end}}"
    back = f" - {scope.previous} * ({end} - {start})" if scope.previous else ""
    return [f"let z_since = {start}{back};", f"let z_until = {end}{back};"]


def _source(query: Metric | Listing, scope: Scope) -> list[str]:
    """The rows that count: range, filters, condition."""
    lines = [TABLES[query.dataset]]
    lines.append("where TimeGenerated >= z_since and EventTime >= z_since and EventTime < z_until")
    for field in scope.fields(query.dataset):
        value = _elements(field, scope) if field.kind == "list" else _text(field, query.dataset, scope)
        inside = f'z_{field.name} contains_cs strcat(",", {value}, ",")'
        if field.kind == "list":
            inside = f'array_length(set_intersect(split(z_{field.name}, ","), {value})) > 0'
        lines.append(f'where z_{field.name} == ",," or z_{field.name} == ",*," or {inside}')
    return lines + ([f"where {condition(query.where)}"] if query.where else [])


def _elements(field: FieldInfo, scope: Scope) -> str:
    """The elements of a list, or the text for nothing as the only one."""
    name = column(field)
    return f"iff(coalesce(array_length({name}), 0) == 0, pack_array({literal(scope.text_of_none())}), {name})"


def _text(field: FieldInfo, dataset: Dataset, scope: Scope) -> str:
    """A dimension as a text; what is absent is its default or the text for nothing."""
    name = column(field)
    none = literal(defaults(dataset).get(field.name) or scope.text_of_none())
    if field.kind == "boolean":
        return f'case(isnull({name}), {none}, {name}, "true", "false")'
    text = name if field.kind in _TEXTUAL else f"tostring({name})"
    return text if none == '""' else f"iff(isempty({text}), {none}, {text})"


def _piped(lines: list[str]) -> str:
    return "\n| ".join(lines)


def _listing(query: Listing, scope: Scope) -> str:
    where = wire(query.where, query.dataset) if query.where else None
    lines = _source(Listing(query.fields, query.dataset, where, query.limit, query.order), scope)
    order = catalog(query.dataset)[query.order]
    rest = "" if query.order == "timestamp" else ", EventTime desc"
    lines.append("summarize arg_max(TimeGenerated, *) by EventUid")
    lines.append(f"sort by {column(order)} desc nulls last{rest}, EventUid asc")
    lines.append(f"take {query.limit}")
    usual = defaults(query.dataset)
    listed = []
    for field in query.fields:
        name = column(field)
        text = f"iff(isempty({name}), {literal(usual[field.name])}, {name})" if field.name in usual else name
        listed.append(f"{_named(field.name)} = {text}")
    lines.append(f"project {', '.join(listed)}")
    return "\n".join([*_lets(query.dataset, scope), _piped(lines)])


# --- metrics


def _metric(query: Metric, scope: Scope) -> str:
    times, keys = [_named(name) for name in buckets(query)], [_named(field.name) for field in query.by]
    lets = _lets(query.dataset, scope)
    if query.bucket == "auto":
        cases = ", ".join(f"z_range <= {at_most}, {width}" for at_most, width in steps())
        lets.append("let z_range = (z_until - z_since) / 1s;")
        lets.append(f"let z_width = case({cases}, {LADDER[-1]});")
    rows = _piped([*_source(query, scope), *_rows(query, scope)])
    if whole_range(query):
        value = ordering(query)
        needed = (
            [value]
            if value.function != "ratio"
            else [one for one in query.values if one.name in (value.of, value.over)]
        )
        best = [
            "z_rows",
            f"summarize {_aggregates(query, needed)} by {', '.join(keys)}",
            *_finished(needed, [value] if value.function == "ratio" else []),
            f"sort by {_named(value.name)} desc nulls last, {_ascending(keys)}",
            f"take {query.top}",
            f"project {', '.join(keys)}",
        ]
        lets += [f"let z_rows = materialize({rows});", f"let z_best = {_piped(best)};"]
        rows = f"z_rows\n| join kind=leftsemi (z_best) on {', '.join(keys)}"
    grouped = [*times, *keys]
    by = f" by {', '.join(grouped)}" if grouped else ""
    lines = [rows, f"summarize {_aggregates(query, measured(query))}{by}"]
    lines += _finished(measured(query), ratios(query))
    if times:
        lines.append(f"sort by {_ascending([*times, *keys])}")
    elif keys:
        lines += [f"where {_named(ordering(query).name)} >= {query.least}"] if query.least else []
        lines.append(f"sort by {_named(ordering(query).name)} desc nulls last, {_ascending(keys)}")
        lines += [f"take {query.top}"] if query.top else []
    lines.append(f"project {', '.join(map(_named, columns(query)))}")
    return "\n".join([*lets, _piped(lines)])


def _ascending(names: list[str]) -> str:
    return ", ".join(f"{name} asc" for name in names)


def _rows(query: Metric, scope: Scope) -> list[str]:
    """One row per event (and element of a list): dimensions, buckets, and what is aggregated."""
    parts = ["EventUid", "EventTime", *_moment(query)]
    expand, none = [], literal(scope.text_of_none())
    for field in query.by:
        name = _named(field.name)
        if field.kind == "list":
            parts.append(f"{name} = {_elements(field, scope)}")
            expand.append(f"mv-expand {name} to typeof(string)")
        else:
            parts.append(f"{name} = {_text(field, query.dataset, scope)}")
    parts += [part for number, value in enumerate(query.values) for part in _inputs(number, value, query.dataset)]
    keys = ", ".join(["EventUid", *(_named(field.name) for field in query.by if field.kind == "list")])
    lines = [f"project {', '.join(parts)}", *expand, f"summarize arg_max(EventTime, *) by {keys}"]
    if query.present and query.by:
        lines.append("where " + " and ".join(f"{_named(field.name)} != {none}" for field in query.by))
    return lines


def _moment(query: Metric) -> list[str]:
    if query.bucket == "auto" or query.bucket in BUCKET_SECONDS:
        width = BUCKET_SECONDS.get(query.bucket, "z_width")
        seconds = f"tolong((EventTime - {_EPOCH}) / 1s)"
        return [f"{_named('time')} = {_EPOCH} + 1s * bin({seconds}, {width})"]
    # dayofweek is the time since Sunday.
    folds = {
        "hour_of_day": "hourofday(EventTime)",
        "day_of_week": "1 + toint((dayofweek(EventTime) + 6d) / 1d) % 7",
    }
    return [f"{name} = {folds[name]}" for name in buckets(query)]


def _inputs(number: int, value: Aggregate, dataset: Dataset) -> list[str]:
    """What an aggregate needs of a row: whether it counts, and the value."""
    if value.function == "ratio":
        return []
    test = condition(value.where) if value.where else ""
    if value.field is None:
        return [f"z_w{number} = {test}"] if test else []
    name = column(value.field)
    if value.field.kind in _TEXTUAL:
        usual = defaults(dataset).get(value.field.name)
        text = f"iff(isempty({name}), {literal(usual)}, {name})" if usual else name
        return [f"z_v{number} = " + (f'iff({test}, {text}, "")' if test else text)]
    return [f"z_v{number} = " + (f"iff({test}, {name}, {_NULLS[value.field.kind]})" if test else name)]


def _aggregates(query: Metric, values: list[Aggregate]) -> str:
    return ", ".join(
        f"{_named(value.name)} = {_aggregate(number, value)}"
        for number, value in enumerate(query.values)
        if value in values
    )


def _aggregate(number: int, value: Aggregate) -> str:
    if value.field is None:
        return f"countif(z_w{number})" if value.where else "count()"
    name = f"z_v{number}"
    if value.function == "dcount":
        there = f"isnotempty({name})" if value.field.kind in _TEXTUAL else f"isnotnull({name})"
        return f"dcountif({name}, {there})"
    if value.function == "percentile":
        return f"percentile(todouble({name}), {value.percentile})"
    return f"{value.function}({name})"


def _finished(values: list[Aggregate], divided: list[Aggregate]) -> list[str]:
    """Sums of nothing are 0, averages of nothing missing; then the ratios."""
    parts = []
    for value in values:
        name = _named(value.name)
        if value.function == "sum" and value.field:
            parts.append(f"{name} = coalesce({name}, {'0.0' if value.field.kind == 'number' else '0'})")
        elif value.function in ("avg", "percentile"):
            parts.append(f"{name} = iff(isnan({name}), real(null), {name})")
    lines = [f"extend {', '.join(parts)}"] if parts else []
    shares = [f"{_named(one.name)} = {_ratio(_named(one.of), _named(one.over))}" for one in divided]
    return lines + ([f"extend {', '.join(shares)}"] if shares else [])


def _ratio(of: str, over: str) -> str:
    return f"iff({over} == 0, real(null), todouble({of}) / {over})"
