"""KQL over the Sentinel table ``AIAudit_CL`` (``aitrail schema --format kql``).

Facts (Kusto documentation): strings are never null, so missing is ``isempty``; ``==`` and ``contains_cs`` compare with
case, ``=~`` and ``contains`` without; comparisons with a null number or boolean are null, which ``not`` keeps null:
both are closed with ``coalesce``. Distinct values are counted by ``make_set``, because ``dcount`` estimates. Lists are
dynamic arrays; they are tested as one text whose elements stand between line feeds, which no element holds. Windows
are exact: a self-join of the hits over the range of the window.
"""

from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
from typing import Any

from aitrail.compiler.dialects.scope import shipped_rule
from aitrail.compiler.expr import (
    And,
    Expr,
    Flag,
    InNetwork,
    Matches,
    Not,
    Number,
    OneOf,
    Or,
    Present,
    SameText,
    Text,
)
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Correlation, Detection, Rule
from aitrail.schema.catalog import FieldInfo, by_name
from aitrail.schema.views.kusto import TABLE

# operator: (for fields that are lower-case, for others)
_OPERATORS = {
    "equals": ("==", "=~"),
    "contains": ("contains_cs", "contains"),
    "startswith": ("startswith_cs", "startswith"),
    "endswith": ("endswith_cs", "endswith"),
}


TABLES: dict[Dataset, str] = {"access": TABLE, "health": "AIAuditHealth_CL"}


def compile_rule(rule: Detection) -> Query:
    """Give the query of ``rule``: EventUid, EventTime, the group's columns, Evidence (at most 100 event ids).

    The platform limits the range of time by the schedule (query period); the query has none of its own.

    Raises:
        Unsupported: KQL has no exact form, e.g. for percentiles, which it estimates.
    """
    meta, rule = rule.meta, shipped_rule(rule)
    if isinstance(rule, Rule):
        by, known = rule.grouped, catalog(rule.dataset)
        columns = ", ".join(["EventUid", "EventTime", *(column(known[name]) for name in by)])
        text = (
            f"{TABLES[rule.dataset]}\n| where {condition(rule.expr)}\n"
            f"| project {columns}, Evidence = pack_array(EventUid)"
        )
        return Query(meta.name, "kql", text, "event", 0, by)
    if rule.compare not in (">", ">="):
        raise Unsupported("kql", f"{rule.type} with {rule.compare}: it would hold when nothing happens")
    make = _ordered if rule.type == "temporal_ordered" else _measured
    return Query(meta.name, "kql", make(rule), "sliding", rule.seconds, _grouped(rule.group_by))


def _grouped(by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("tenant_id", *by)))


def _name(field: str) -> str:
    return column(by_name()[field])


def _hits(rule: Correlation) -> str:
    """The hits of all parts: one row per event and rule that it fulfils."""
    names = [_name(name) for name in _grouped(rule.group_by)]
    field = f", Value = {_name(rule.field)}" if rule.field else ""
    parts = []
    for number, part in enumerate(rule.rules):
        needed = [*rule.group_by, *([rule.field] if rule.field else [])]
        tests = [condition(part.expr), *(condition(Present(by_name()[name])) for name in needed)]
        columns = ", ".join(["EventUid", "EventTime", *names])
        parts.append(f"{TABLE} | where {' and '.join(tests)} | project {columns}, Part = {number}{field}")
    every = parts[0] if len(parts) == 1 else "union " + ", ".join(f"({part})" for part in parts)
    value = ["Value"] if rule.field else []
    # A record that was delivered twice counts once.
    return f"{every} | distinct {', '.join(['EventUid', 'EventTime', *names, 'Part', *value])}"


def _measured(rule: Correlation) -> str:
    """Every hit is joined with the hits of its group in the window that ends with it."""
    measure = {
        "event_count": "count()",
        "value_count": "array_length(make_set(OtherValue))",
        "value_sum": "sum(OtherValue)",
        "value_avg": "avg(OtherValue)",
        "temporal": "array_length(make_set(OtherPart))",
    }.get(rule.type)
    if measure is None:
        raise Unsupported("kql", f"{rule.type}: Kusto estimates percentiles")
    keys = ", ".join(_name(name) for name in _grouped(rule.group_by))
    value = ", OtherValue = Value" if rule.field else ""
    threshold = f"== {len(rule.rules)}" if rule.type == "temporal" else f"{rule.compare} {rule.threshold!r}"
    other = f"Hits | project {keys}, OtherTime = EventTime, OtherUid = EventUid, OtherPart = Part{value}"
    return "\n".join(
        [
            f"let Hits = materialize({_hits(rule)});",
            f"Hits\n| distinct EventUid, EventTime, {keys}",
            f"| join kind=inner ({other}) on {keys}",
            f"| where OtherTime >= EventTime - {rule.seconds}s and OtherTime <= EventTime",
            f"| summarize Measured = {measure}, Evidence = make_set(OtherUid, 100) by EventUid, EventTime, {keys}",
            f"| where Measured {threshold}",
        ]
    )


def _ordered(rule: Correlation) -> str:
    """For each hit of a part the latest start of a chain that ends there; it holds when that start is in the window."""
    keys = ", ".join(_name(name) for name in _grouped(rule.group_by))
    lines = [f"let Hits = materialize({_hits(rule)});"]
    lines.append(f"let Chain0 = Hits | where Part == 0 | project EventUid, EventTime, {keys}, Start = EventTime;")
    for number in range(1, len(rule.rules)):
        before = f"Chain{number - 1} | project {keys}, Before = EventTime, BeforeStart = Start"
        lines.append(
            f"let Chain{number} = Hits | where Part == {number} | join kind=inner ({before}) on {keys}"
            f" | where Before <= EventTime and BeforeStart >= EventTime - {rule.seconds}s"
            f" | summarize Start = max(BeforeStart) by EventUid, EventTime, {keys};"
        )
    other = f"Hits | project {keys}, OtherTime = EventTime, OtherUid = EventUid"
    return "\n".join(
        [
            *lines,
            f"Chain{len(rule.rules) - 1}\n| join kind=inner ({other}) on {keys}",
            "| where OtherTime >= Start and OtherTime <= EventTime",
            f"| summarize Evidence = make_set(OtherUid, 100) by EventUid, EventTime, {keys}",
        ]
    )


def condition(expr: Expr) -> str:
    """Render a condition that is true or false, never null."""
    return _RENDER[type(expr)](expr)


def literal(text: str) -> str:
    """Quote a string (Kusto, "The string data type": escapes in double-quoted literals)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def column(field: FieldInfo) -> str:
    """The field's column."""
    return field.name_in("sentinel")


def _and(expr: And) -> str:
    return "(" + " and ".join(map(condition, expr.items)) + ")"


def _or(expr: Or) -> str:
    return "(" + " or ".join(map(condition, expr.items)) + ")"


def _not(expr: Not) -> str:
    return f"not({condition(expr.item)})"


def _text(expr: Text) -> str:
    if expr.field.kind == "list":
        return _in_list(expr.field, expr.op, expr.value)
    operator = _OPERATORS[expr.op][0 if expr.field.lower else 1]
    return f"{column(expr.field)} {operator} {literal(expr.value)}"


def _in_list(field: FieldInfo, op: str, value: str) -> str:
    """One text of all elements, each between line feeds."""
    start = "\n" if op in ("equals", "startswith") else ""
    end = "\n" if op in ("equals", "endswith") else ""
    operator = "contains_cs" if field.lower else "contains"
    joined = f'strcat("\\n", strcat_array({column(field)}, "\\n"), "\\n")'
    # An empty list joins to the empty text: two line feeds, which hold no element.
    return f"(coalesce(array_length({column(field)}), 0) > 0 and {joined} {operator} {literal(start + value + end)})"


def _one_of(expr: OneOf) -> str:
    if expr.field.kind == "list":
        return "(" + " or ".join(_in_list(expr.field, "equals", value) for value in expr.values) + ")"
    values = ", ".join(map(literal, expr.values))
    return f"{column(expr.field)} {'in' if expr.field.lower else 'in~'} ({values})"


def _number(expr: Number) -> str:
    return f"coalesce({column(expr.field)} {expr.op} {expr.value!r}, false)"


def _flag(expr: Flag) -> str:
    return f"coalesce({column(expr.field)} == {'true' if expr.value else 'false'}, false)"


def _present(expr: Present) -> str:
    name = column(expr.field)
    if expr.field.kind == "list":
        return f"(coalesce(array_length({name}), 0) > 0)"
    return f"isnotempty({name})" if expr.field.kind in ("string", "text", "ip") else f"isnotnull({name})"


def _same(expr: SameText) -> str:
    both = expr.field.lower and expr.other.lower
    return f"(isnotempty({column(expr.field)}) and {column(expr.field)} {'==' if both else '=~'} {column(expr.other)})"


def _network(expr: InNetwork) -> str:
    four = isinstance(ip_network(expr.network), IPv4Network)
    function = "ipv4_is_in_range" if four else "ipv6_is_in_range"
    # A v4 address is also a mapped v6 one to Kusto; the other way round the function is null.
    family = "" if four else f'{column(expr.field)} has ":" and '
    return f"({family}coalesce({function}({column(expr.field)}, {literal(expr.network)}), false))"


def _matches(expr: Matches) -> str:
    return f"{column(expr.field)} matches regex {literal(expr.pattern)}"


_RENDER: dict[type, Callable[[Any], str]] = {
    And: _and,
    Or: _or,
    Not: _not,
    Text: _text,
    OneOf: _one_of,
    Number: _number,
    Flag: _flag,
    Present: _present,
    SameText: _same,
    InNetwork: _network,
    Matches: _matches,
}
