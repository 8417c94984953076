"""SPL over the events that the HTTP Event Collector took: canonical JSON, fields extracted at search time.

Facts (Splunk, "Search Reference"): ``search`` compares without case and its ``NOT field=x`` includes events without the
field; a ``*`` in it is always a wildcard, and values that look like numbers compare as numbers, so only plain values go
there, where the index answers them. ``where`` compares with case and null spreads, so every operand there has a value
(``coalesce``) or stands in ``if``. A literal takes backslash as the escape of quotes and of itself; a backtick would
start a macro. ``%`` and ``_`` are wildcards to ``like``. JSON arrays are multivalue fields named with ``{}``. Events
may come twice, so ``dedup event_id``; the indexed ``event_id`` and the extracted one may make two values of it. The
event's own ``source`` is hidden by Splunk's, and its ``action`` by what the data models call so: the app extracts
``vendor_action``. Extraction stops at limits of ``limits.conf`` (``spath``, ``kv``).

Correlations are exact. ``streamstats time_window=`` does not say whether the far end of its window is in it, and looks
at no more than ``max_stream_window`` events, so windows are counted with a running sum: what enters adds, what leaves
subtracts (a value that comes again leaves first). ``window=0`` is written out: it means all rows so far. Rows of one
millisecond are settled by ``eventstats``. Sums are compared at nine decimals; times count in milliseconds. Results hold
the window (``window_start`` to ``_time``); the contributing events are those of the group within it. ``mvexpand``
stops, and says so, at its limit of memory (``limits.conf``).
"""

from collections.abc import Callable, Mapping

from aitrail.compiler.dialects.scope import shipped_rule
from aitrail.compiler.dialects.spl_conditions import HIDDEN, condition, name, searchable, searched
from aitrail.compiler.expr import And, Expr, fields_of
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Correlation, Detection, Rule
from aitrail.schema.catalog import FieldInfo, by_name

# The app's macro says where the events are; the sourcetype keeps findings and health records out.
SCOPE = '`aitrail_index` sourcetype="ai:access:audit"'
SCOPES: dict[Dataset, str] = {"access": SCOPE, "health": '`aitrail_index` sourcetype="ai:access:health"'}

__all__ = ["SCOPE", "compile_rule", "condition", "prepared", "split"]


def compile_rule(rule: Detection) -> Query:
    """Give the search of ``rule``: _time, event_id, the group's fields; for correlations measured, window_start.

    The range of time is the saved search's (``dispatch.earliest_time``).

    Raises:
        Unsupported: SPL has no exact form, e.g. for percentiles, which it does not interpolate.
    """
    meta, rule = rule.meta, shipped_rule(rule)
    if isinstance(rule, Rule):
        by, expr = rule.grouped, rule.expr
        filters, rest = split(expr)
        stages = [
            " ".join([SCOPES[rule.dataset], *filters]),
            *prepared(fields_of(expr) | set(by), catalog(rule.dataset)),
            *([f"where {condition(rest)}"] if rest else []),
            "dedup event_id",
            f"table {_columns('_time', 'event_id', *map(name, by))}",
        ]
        return Query(meta.name, "spl", "\n| ".join(stages), "event", 0, by)
    if rule.compare not in (">", ">="):
        raise Unsupported("spl", f"{rule.type} with {rule.compare}: it would hold when nothing happens")
    for field in (*rule.group_by, rule.field):
        if field and by_name()[field].kind == "list":
            raise Unsupported("spl", f"{rule.type} by {field}, which has several values")
    stages = [*_hits(rule), *_SHAPES.get(rule.type, _unsupported)(rule)]
    return Query(meta.name, "spl", "\n| ".join(stages), "sliding", rule.seconds, _grouped(rule.group_by))


def _grouped(by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("tenant_id", *by)))


def _columns(*names: str) -> str:
    return ", ".join(dict.fromkeys(names))


def _keys(rule: Correlation) -> str:
    return _columns(*map(name, _grouped(rule.group_by)))


def split(expr: Expr) -> tuple[list[str], Expr | None]:
    """What ``search`` says exactly, and what is left for ``where``."""
    items = expr.items if isinstance(expr, And) else (expr,)
    filters = [searched(item) for item in items if searchable(item)]
    rest = tuple(item for item in items if not searchable(item))
    return filters, (rest[0] if len(rest) == 1 else And(rest)) if rest else None


def prepared(used: set[str], known: Mapping[str, FieldInfo] | None = None) -> list[str]:
    """Give lists plain names, the event's own fields that others hide their names, and the id one value."""
    known = by_name() if known is None else known
    lists = sorted(field for field in used if known[field].kind == "list")
    renames = ", ".join(f'"{field}{{}}" AS {field}' for field in lists)
    # What is extracted for the search is not unescaped.
    own = [f'eval {HIDDEN[field]}=json_extract(_raw, "{field}")' for field in sorted(used & HIDDEN.keys())]
    return [*([f"rename {renames}"] if lists else []), *own, "eval event_id=mvindex(event_id, 0)"]


def _hits(rule: Correlation) -> list[str]:
    """The hits of all parts: one row per event and part that it fulfils."""
    needed = [*rule.group_by, *([rule.field] if rule.field else [])]
    halves = [split(part.expr) for part in rule.rules]
    used = {field for part in rule.rules for field in fields_of(part.expr)} | set(needed)
    present = [f"{name(field)}=*" for field in dict.fromkeys(needed) if field != "source"]
    any_of = [" ".join(filters) for filters, _ in halves]
    filters = [f"({' OR '.join(f'({one})' for one in any_of)})"] if all(any_of) and len(any_of) > 1 else []
    if len(any_of) == 1:
        filters = halves[0][0]
    stages = [" ".join([SCOPE, *present, *filters]), *prepared(used)]
    if len(rule.rules) == 1:
        rest = halves[0][1]
        stages += [f"where {condition(rest)}"] if rest else []
        part = 'eval part="0"'
    else:
        tests = [f'if({condition(one.expr)}, "{number}", null())' for number, one in enumerate(rule.rules)]
        part = f"eval part=mvappend({', '.join(tests)})"
    value = [f"eval value={name(rule.field)}"] if rule.field else []
    columns = _columns("_time", "event_id", _keys(rule), "part", *(["value"] if rule.field else []))
    several = ["where isnotnull(part)", "mvexpand part"] if len(rule.rules) > 1 else []
    tick = "eval tick=round(_time * 1000)"
    return [*stages, "dedup event_id", part, *several, *value, f"table {columns}", tick]


def _answer(rule: Correlation, *measured: str) -> list[str]:
    return [
        "dedup event_id",
        f"eval window_start=_time - {rule.seconds}",
        f"table {_columns('_time', 'event_id', _keys(rule), *measured, 'window_start')}",
    ]


def _measured(rule: Correlation) -> list[str]:
    """A running sum over what enters and leaves; all that happens in one millisecond counts for each of its events."""
    keys, stay = _keys(rule), rule.seconds * 1000 + 1
    until = [f"eval until=tick + {stay}"]
    if rule.type == "value_count":
        until = [
            "sort 0 - tick",
            f"streamstats current=f window=1 global=f last(tick) AS again BY {keys}, value",
            f"eval until=min(tick + {stay}, coalesce(again, tick + {stay}))",
        ]
    weight = "value" if rule.type in ("value_sum", "value_avg") else "1"
    sums = "sum(weight) AS measured"
    last = "last(measured) AS measured"
    average = []
    if rule.type == "value_avg":
        sums = "sum(weight) AS total, sum(step) AS hits"
        last = "last(total) AS total, last(hits) AS hits"
        average = ["eval measured=total / hits"]
    return [
        *until,
        'eval edge=mvappend("enters", "leaves")',
        "mvexpand edge",
        'eval at=if(edge=="enters", tick, until), step=if(edge=="enters", 1, -1)',
        f"eval weight=step * {weight}",
        "sort 0 at",
        f"streamstats window=0 {sums} BY {keys}",
        f"eventstats {last} BY at, {keys}",
        'where edge=="enters"',
        *average,
        "eval measured=round(measured, 9)",
        f"where measured {rule.compare} {rule.threshold!r}",
        *_answer(rule, "measured"),
    ]


def _temporal(rule: Correlation) -> list[str]:
    """The latest of each part, seen from each event."""
    keys, count = _keys(rule), len(rule.rules)
    latest = ", ".join(f'max(eval(if(part=="{n}", tick, null()))) AS seen_{n}' for n in range(count))
    tied = ", ".join(f"max(seen_{n}) AS seen_{n}" for n in range(count))
    holds = " AND ".join(f"coalesce(seen_{n}, 0) >= tick - {rule.seconds * 1000}" for n in range(count))
    return [
        "sort 0 tick",
        f"streamstats window=0 {latest} BY {keys}",
        f"eventstats {tied} BY tick, {keys}",
        f"where {holds}",
        *_answer(rule),
    ]


def _ordered(rule: Correlation) -> list[str]:
    """For each hit of a part the latest start of a chain that ends there; at equal times parts are in order."""
    keys, last = _keys(rule), len(rule.rules) - 1
    stages = ["sort 0 tick, part", 'eval start=if(part=="0", tick, null())']
    for number in range(1, last + 1):
        stages += [
            f"streamstats window=0 max(start) AS before_{number} BY {keys}",
            f'eval start=if(part=="{number}", before_{number}, null())',
        ]
    return [*stages, f"where coalesce(start, 0) >= tick - {rule.seconds * 1000}", *_answer(rule)]


def _unsupported(rule: Correlation) -> list[str]:
    raise Unsupported("spl", f"{rule.type}: Splunk does not interpolate percentiles")


_SHAPES: dict[str, Callable[[Correlation], list[str]]] = {
    "event_count": _measured,
    "value_count": _measured,
    "value_sum": _measured,
    "value_avg": _measured,
    "temporal": _temporal,
    "temporal_ordered": _ordered,
}
