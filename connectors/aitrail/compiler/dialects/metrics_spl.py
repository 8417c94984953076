"""Metrics and listings in SPL, for Dashboard Studio over the events of accesses, findings and health.

The time range is the data source's (``queryParameters``); a shifted one is computed by a subsearch from the range that
it inherits. Filters come from tokens named like the fields, always quoted (``$department|s$``): one text, several
values with commas between them as a multiselect gives them, ``*`` or nothing meaning all.

Facts (Splunk, "Search Reference", "Dashboard Studio: tokens"): ``bin`` and ``strftime`` use the viewer's time zone, so
buckets are made by arithmetic on ``_time``, which is UTC; ``addinfo`` says the range (``+Infinity``: no end, then
``now()``); ``stats ... BY`` leaves out rows without the field, so dimensions are filled before; ``stats`` without
``BY`` gives one row when it counts; ``sort`` guesses numbers in texts unless told ``str()``; ``mvexpand`` and
``eventstats`` stop, and say so, at their limits of memory (``limits.conf``), so lists are expanded after everything
that is not needed is gone, and totals are made of the buckets where they can. An event may come twice:
``dedup event_id``. ``percNN`` is the nearest rank (``limits.conf``, ``perc_method``), an estimate above a thousand
distinct values. ``dc`` is exact. A dollar sign begins a token: one of a condition is written twice.
"""

from aitrail.compiler.dialects import spl_conditions
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
from aitrail.compiler.dialects.spl import split
from aitrail.compiler.dialects.spl_conditions import literal, name
from aitrail.compiler.expr import Expr, fields_of
from aitrail.compiler.metric import BUCKET_SECONDS, Aggregate, Dataset, Listing, Metric, catalog, defaults
from aitrail.schema.catalog import FieldInfo

# The app's macro says where the events are.
SOURCETYPES: dict[Dataset, str] = {
    "access": "ai:access:audit",
    "finding": "ai:access:alert",
    "health": "ai:access:health",
}
TIME = "_time"
# Names that Splunk gives fields of its own to; the event's are read from its text.
_HIDDEN = {**spl_conditions.HIDDEN, "timestamp": "event_timestamp"}
_TEXTUAL = ("string", "ip", "text")


def render(query: Metric | Listing, scope: Scope) -> str:
    """Give the search; its columns are ``scope.columns(query, "_time")``.

    Raises:
        Unsupported: a condition that SPL cannot say (``spl_conditions``).
    """
    return _listing(query, scope) if isinstance(query, Listing) else _metric(shipped(query), scope)


def condition(expr: Expr) -> str:
    """A condition of ``where``; a dollar sign, which would begin a token, is written twice."""
    return spl_conditions.condition(expr).replace("$", "$$")


def _piped(lines: list[str]) -> str:
    return "\n| ".join(lines)


def _source(query: Metric | Listing, scope: Scope, fields: list[FieldInfo]) -> list[str]:
    """The events that count, once each: range, filters, condition; ``fields`` have their names in ``eval``."""
    chosen = scope.fields(query.dataset)
    used = {field.name for field in [*fields, *chosen]} | (fields_of(query.where) if query.where else set())
    filters, rest = split(query.where) if query.where else ([], None)
    first = [f'`aitrail_index` sourcetype="{SOURCETYPES[query.dataset]}"', *_shifted(scope), *filters]
    lists = sorted(one for one in used if catalog(query.dataset)[one].kind == "list")
    renames = ", ".join(f'"{one}{{}}" AS {one}' for one in lists)
    lines = [" ".join(first), *([f"rename {renames}"] if lists else [])]
    lines += [f'eval {_HIDDEN[one]}=json_extract(_raw, "{one}")' for one in sorted(used & set(_HIDDEN))]
    lines += [f"where {_chosen(field, query.dataset, scope)}" for field in chosen]
    lines += [f"where {condition(rest)}"] if rest else []
    return [*lines, "eval event_id=mvindex(event_id, 0)", "dedup event_id"]


def _shifted(scope: Scope) -> list[str]:
    """The range so many lengths before the one that the search has."""
    if not scope.previous:
        return []
    until = 'eval z_until=if(info_max_time=="+Infinity", now(), info_max_time)'
    back = f"eval z_back={scope.previous} * (z_until - info_min_time)"
    moved = "eval earliest=info_min_time - z_back, latest=z_until - z_back"
    return [f"[| makeresults | addinfo | {until} | {back} | {moved} | return earliest latest]"]


def _field(field: FieldInfo) -> str:
    return _HIDDEN.get(field.name) or name(field.name)


def _chosen(field: FieldInfo, dataset: Dataset, scope: Scope) -> str:
    token = f"${field.name}|s$"
    text = f'"," . {token} . ","'
    everything = f'{token}=="*" OR {token}==""'
    if field.kind == "list":
        # The test of mvfilter may read one field only; a token is a literal.
        element = f'isnotnull(mvfilter(mvcount(split({text}, "," . {_field(field)} . ",")) > 1))'
        none = literal(f",{scope.text_of_none()},")
        return f"{everything} OR {element} OR (isnull({_field(field)}) AND mvcount(split({text}, {none})) > 1)"
    value = f'"," . {_text(field, dataset, scope)} . ","'
    return f"{everything} OR mvcount(split({text}, {value})) > 1"


def _text(field: FieldInfo, dataset: Dataset, scope: Scope) -> str:
    """A dimension as a text; what is absent is its default or the text for nothing."""
    none = literal(defaults(dataset).get(field.name) or scope.text_of_none())
    return f"coalesce({_field(field)}, {none})"


def _listing(query: Listing, scope: Scope) -> str:
    where = wire(query.where, query.dataset) if query.where else None
    order = catalog(query.dataset)[query.order]
    lines = _source(
        Listing(query.fields, query.dataset, where, query.limit, query.order), scope, [*query.fields, order]
    )
    usual = defaults(query.dataset)
    made = []
    for field in query.fields:
        text = _text(field, query.dataset, scope) if field.name in usual else _field(field)
        made += [f"{field.name}={text}"] if text != field.name else []
    key = f"-num({query.order})" if order.kind in ("integer", "number") else f"-str({query.order})"
    if query.order not in columns(query) and _field(order) != query.order:
        made.append(f"{query.order}={_field(order)}")
    keys = ["-num(_time)" if query.order == "timestamp" else f"{key}, -num(_time)", "+str(event_id)"]
    lines += [f"eval {', '.join(made)}"] if made else []
    return _piped([*lines, f"sort 0 {', '.join(keys)}", f"head {query.limit}", f"table {', '.join(columns(query))}"])


# --- metrics


def _metric(query: Metric, scope: Scope) -> str:
    times, keys = buckets(query, TIME), [field.name for field in query.by]
    needed = [field for value in query.values for field in _reads(value, query.dataset)]
    lines = _source(query, scope, [*query.by, *needed])
    kept = [*times, *keys]
    whole = whole_range(query)
    raw = whole and not _joined(query)
    lines += _rows(query, scope, narrow=raw)
    if raw:
        lines += [f"eventstats {', '.join(_totals(query))} BY {', '.join(keys)}", *_divided(query)]
    made = [
        f"{_aggregate(number, value)} AS {value.name}"
        for number, value in enumerate(query.values)
        if value in measured(query)
    ]
    made += ["max(z_order) AS z_order"] if raw else []
    # One row also where nothing is there to be counted.
    made += ["count AS z_rows"] if not kept else []
    lines.append(f"stats {', '.join(made)}" + (f" BY {', '.join(kept)}" if kept else ""))
    sums = [f"{value.name}=coalesce({value.name}, 0)" for value in measured(query) if value.function == "sum"]
    lines += [f"eval {', '.join(sums)}"] if sums else []
    lines += [f"eval {_share(one.name, one.of, one.over)}" for one in ratios(query)]
    if whole:
        if not raw:
            lines += [f"eventstats {', '.join(_joined(query))} BY {', '.join(keys)}", *_divided(query)]
        lines += _kept(query, keys)
    if times:
        lines.append(f"sort 0 {', '.join(f'+num({one})' for one in times)}{''.join(f', +str({one})' for one in keys)}")
    elif keys:
        lines += [f"where coalesce({ordering(query).name}, 0)>={query.least}"] if query.least else []
        lines.append(f"sort 0 -num({ordering(query).name}), {', '.join(f'+str({one})' for one in keys)}")
        lines += [f"head {query.top}"] if query.top else []
    return _piped([*lines, f"table {', '.join(columns(query, TIME))}"])


def _reads(value: Aggregate, dataset: Dataset) -> list[FieldInfo]:
    where = [catalog(dataset)[one] for one in fields_of(value.where)] if value.where else []
    return [value.field, *where] if value.field else where


def _rows(query: Metric, scope: Scope, *, narrow: bool) -> list[str]:
    """One row per event (and element of a list): dimensions, buckets, and what is aggregated, if ``narrow`` only."""
    inputs = [part for number, value in enumerate(query.values) for part in _inputs(number, value, query.dataset)]
    lines = [f"eval {part}" for part in inputs]
    made = [f"{field.name}={_text(field, query.dataset, scope)}" for field in query.by]
    lines += [f"eval {', '.join(made)}"] if made else []
    lines += _moment(query)
    keys = [field.name for field in query.by]
    kept = [*buckets(query, TIME), *keys, *(part.partition("=")[0] for part in inputs)]
    lists = [field.name for field in query.by if field.kind == "list"]
    lines += [f"eval {', '.join(f'{one}=mvdedup({one})' for one in lists)}"] if lists else []
    lines += [f"table {', '.join(kept)}"] if lists or narrow else []
    lines += [f"mvexpand {one}" for one in lists]
    if query.present and keys:
        none = literal(scope.text_of_none())
        lines.append("where " + " AND ".join(f"{one}!={none}" for one in keys))
    return lines


def without_gaps(query: Metric, value: Aggregate) -> list[str]:
    """Stages after those of ``render`` of a query by time alone: a row for every bucket of the range.

    A bucket without events counts nothing and sums to 0; it has no average, extreme or share.
    """
    width = [f"eval z_width={BUCKET_SECONDS[query.bucket]}"] if query.bucket in BUCKET_SECONDS else _width()
    nothing = "0" if value.function in ("count", "sum", "dcount") else "null()"
    rows = [
        "makeresults",
        "addinfo",
        'eval z_until=if(info_max_time=="+Infinity", now(), info_max_time)',
        *width,
        "eval z_time=mvrange(floor(info_min_time / z_width) * z_width, z_until, z_width)",
        "mvexpand z_time",
        f"eval _time=tonumber(z_time), {value.name}={nothing}",
        f"table _time, {value.name}",
    ]
    return [
        f"table _time, {value.name}",
        f"append [| {' | '.join(rows)}]",
        f"stats max({value.name}) AS {value.name} BY _time",
        "sort 0 +num(_time)",
        f"table _time, {value.name}",
    ]


def _width() -> list[str]:
    """How long a bucket is, by the length of the range."""
    cases = ", ".join(f"z_range<={at_most}, {width}" for at_most, width in steps())
    return [
        'eval z_range=if(info_max_time=="+Infinity", now(), info_max_time) - info_min_time',
        f"eval z_width=case({cases}, true(), {LADDER[-1]})",
    ]


def _moment(query: Metric) -> list[str]:
    if query.bucket == "auto":
        return ["addinfo", *_width(), "eval _time=floor(_time / z_width) * z_width"]
    if query.bucket in BUCKET_SECONDS:
        width = BUCKET_SECONDS[query.bucket]
        return [f"eval _time=floor(_time / {width}) * {width}"]
    # The epoch began on a Thursday.
    folds = {
        "hour_of_day": "hour_of_day=floor(_time / 3600) - 24 * floor(_time / 86400)",
        "day_of_week": "day_of_week=floor(_time / 86400) + 4 - 7 * floor((floor(_time / 86400) + 3) / 7)",
    }
    return [f"eval {folds[one]}" for one in buckets(query)]


def _inputs(number: int, value: Aggregate, dataset: Dataset) -> list[str]:
    """What an aggregate reads of a row; absent where it does not count."""
    if value.function == "ratio" or (value.field is None and value.where is None):
        return []
    text = "1"
    if value.field:
        usual = defaults(dataset).get(value.field.name)
        text = f"coalesce({_field(value.field)}, {literal(usual)})" if usual else _field(value.field)
    return [f"z_{number}=" + (f"if({condition(value.where)}, {text}, null())" if value.where else text)]


def _aggregate(number: int, value: Aggregate) -> str:
    if value.field is None:
        return f"count(z_{number})" if value.where else "count"
    function = {"dcount": "dc", "percentile": f"perc{value.percentile}"}.get(value.function, value.function)
    return f"{function}(z_{number})"


def _share(target: str, of: str, over: str) -> str:
    return f"{target}=if({over}!=0, {of} / {over}, null())"


def _ordered(query: Metric) -> list[tuple[int, Aggregate]]:
    """What sorts: a value, or the two of a ratio."""
    value = ordering(query)
    names = [value.of, value.over] if value.function == "ratio" else [value.name]
    return [(number, one) for wanted in names for number, one in enumerate(query.values) if one.name == wanted]


_JOIN = {"count": "sum", "sum": "sum", "min": "min", "max": "max"}


def _joined(query: Metric) -> list[str]:
    """The totals of the whole range from those of the buckets; nothing when they cannot be had from these."""
    found = _ordered(query)
    if any(one.function not in _JOIN for _, one in found):
        return []
    return [f"{_JOIN[one.function]}({one.name}) AS {_total(query, place)}" for place, (_, one) in enumerate(found)]


def _totals(query: Metric) -> list[str]:
    """The totals of the whole range from its rows."""
    found = _ordered(query)
    return [f"{_aggregate(number, one)} AS {_total(query, place)}" for place, (number, one) in enumerate(found)]


def _total(query: Metric, place: int) -> str:
    return "z_order" if ordering(query).function != "ratio" else ("z_of", "z_over")[place]


def _divided(query: Metric) -> list[str]:
    return [f"eval {_share('z_order', 'z_of', 'z_over')}"] if ordering(query).function == "ratio" else []


def _kept(query: Metric, keys: list[str]) -> list[str]:
    """The rows of the groups with the largest totals."""
    group = " . ".join(f'len({one}) . ":" . {one}' for one in keys)
    return [
        f"eval z_group={group}",
        f"sort 0 -num(z_order), {', '.join(f'+str({one})' for one in keys)}",
        "streamstats window=0 dc(z_group) AS z_rank",
        f"where z_rank <= {query.top}",
    ]
