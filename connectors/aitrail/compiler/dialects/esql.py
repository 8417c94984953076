"""ES|QL over ``logs-ai_audit.access-*``, the documents of ``to_ecs``: a field stands where it stands unchanged.

Facts (Elasticsearch, "ES|QL reference"): ``==``, ``IN``, ``LIKE`` and ``STARTS_WITH`` compare with case; absent is null
and comparisons with null are null, which ``NOT`` keeps, so everything under a NOT is closed with ``COALESCE``; outside
of one null and false do the same. A comparison with a field of several values is null, too: lists are tested as one
text whose elements stand between line feeds, which no element holds. ``LIKE`` takes ``*``, ``?`` and backslash as its
own, in a literal in which backslash is an escape already. An address of version 4 is stored as a mapped one of version
6. A keyword over 1024 characters is not indexed and reads as null.

There are no window functions, so correlations are aggregates over the window plus the interval between runs: nothing
is missed, up to one interval too much may count (method ``overlapping``). Where EQL says a correlation exactly, it is
said in EQL (``eql.py``). Distinct values are counted by ``VALUES``, because ``COUNT_DISTINCT`` estimates.
"""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from aitrail.compiler.dialects import eql
from aitrail.compiler.dialects.lucene_regex import whole
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
    TextOp,
)
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Correlation, Detection, Rule
from aitrail.compiler.schedule import interval
from aitrail.schema.catalog import FieldInfo, by_name

INDEX = "logs-ai_audit.access-*"
INDICES: dict[Dataset, str] = {"access": INDEX, "health": "logs-ai_audit.health-*"}
# A detection rule keeps these to name its alerts (Kibana, "ES|QL rules": non-aggregating queries).
_IDENTITY = ("_id", "_index", "_version")
_MAPPED = IPv6Network("::ffff:0:0/96")


def compile_rule(rule: Detection) -> Query:
    """Give the query of ``rule`` in ES|QL, or in EQL where only that is exact (``Query.target`` says which).

    The range of time is the platform's (``from`` of the rule): ``lookback`` seconds, run every ``interval`` seconds.

    Raises:
        Unsupported: no form without misses, e.g. averages, which a longer window dilutes.
    """
    meta, rule = rule.meta, shipped_rule(rule)
    if isinstance(rule, Rule):
        by, known = rule.grouped, catalog(rule.dataset)
        names = [column(known[name]) for name in by]
        columns = ", ".join(dict.fromkeys(["event.id", "@timestamp", *names, *_IDENTITY]))
        where = condition(rule.expr)
        index = INDICES[rule.dataset]
        text = f"FROM {index} METADATA {', '.join(_IDENTITY)}\n| WHERE {where}\n| KEEP {columns}"
        return Query(meta.name, "esql", text, "event", 0, by)
    if rule.compare not in (">", ">="):
        raise Unsupported("esql", f"{rule.type} with {rule.compare}: it would hold when nothing happens")
    try:
        return eql.compile_rule(rule)
    except Unsupported:
        pass
    lookback = rule.seconds + interval(rule.seconds)
    return Query(meta.name, "esql", _aggregate(rule), "overlapping", lookback, _grouped(rule.group_by))


def _grouped(by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("tenant_id", *by)))


def _name(field: str) -> str:
    return column(by_name()[field])


# --- correlations


def _aggregate(rule: Correlation) -> str:
    """One row per group in which it holds, with its first and last time and at most 100 event ids."""
    for name in (*rule.group_by, rule.field):
        if name and by_name()[name].kind == "list":
            raise Unsupported("esql", f"{rule.type} by {name}, which has several values")
    if rule.type in ("temporal", "temporal_ordered"):
        measures, holds = _seen(rule)
    else:
        measures, holds = _measured(rule)
    needed = [*rule.group_by, *([rule.field] if rule.field else [])]
    tests = [condition(Present(by_name()[name])) for name in needed]
    parts = [f"part_{number}" for number in range(len(rule.rules))]
    lines = [f"FROM {INDEX}"]
    if len(parts) == 1 and "part_0" not in measures:
        tests.append(condition(rule.rules[0].expr))  # as it is, so that the index answers it
        lines.append(f"| WHERE {' AND '.join(tests)}")
    else:
        flags = ", ".join(f"{part} = {closed(one.expr)}" for part, one in zip(parts, rule.rules, strict=True))
        lines += [f"| WHERE {' AND '.join(tests)}"] if tests else []
        lines += [f"| EVAL {flags}", f"| WHERE {' OR '.join(parts)}"]
    keys = ", ".join(_name(name) for name in _grouped(rule.group_by))
    times = 'first_time = MIN(@timestamp), last_time = MAX(@timestamp), evidence = TOP(event.id, 100, "asc")'
    columns = ", ".join([keys, "first_time", "last_time", "evidence", *([] if "seen" in holds else ["measured"])])
    return "\n".join([*lines, f"| STATS {measures}, {times} BY {keys}", f"| WHERE {holds}", f"| KEEP {columns}"])


def _measured(rule: Correlation) -> tuple[str, str]:
    # An event that fulfils several parts counts once for each.
    times = " + ".join(f"CASE(part_{number}, 1, 0)" for number in range(len(rule.rules)))
    value = _name(rule.field) if rule.field else ""
    single = len(rule.rules) == 1
    measure = {
        "event_count": "COUNT(*)" if single else f"SUM({times})",
        "value_count": f"MV_COUNT(VALUES({value}))",
        "value_sum": f"SUM({value})" if single else f"SUM({value} * ({times}))",
    }.get(rule.type)
    if measure is None:
        raise Unsupported("esql", f"{rule.type}: over a longer range it falls, so alerts would be missed")
    # STATS takes an aggregate inside a function as it is ("STATS": expressions of aggregates).
    return f"measured = {measure}", f"measured {rule.compare} {rule.threshold!r}"


def _seen(rule: Correlation) -> tuple[str, str]:
    """When each part was seen first and last; in order when each was seen before a later one of the next part."""
    count = len(rule.rules)
    measures = ", ".join(
        f"seen_{n}_first = MIN(CASE(part_{n}, @timestamp)), seen_{n}_last = MAX(CASE(part_{n}, @timestamp))"
        for n in range(count)
    )
    if rule.type == "temporal":
        return measures, " AND ".join(f"seen_{n}_first IS NOT NULL" for n in range(count))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return measures, " AND ".join(f"seen_{a}_first <= seen_{b}_last" for a, b in pairs)


# --- conditions


def condition(expr: Expr) -> str:
    """Render a condition that is true where ``expr`` holds, and false or null where not."""
    return _RENDER[type(expr)](expr)


def closed(expr: Expr) -> str:
    """The condition as true or false, never null."""
    return f"COALESCE({condition(expr)}, false)"


def literal(text: str) -> str:
    """Quote a string (ES|QL, "Syntax: string literals"); raises ``ValueError`` for NUL."""
    if "\0" in text:
        raise ValueError("a literal holds NUL")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def wild(text: str) -> str:
    """Escape what is a wildcard to LIKE."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def column(field: FieldInfo) -> str:
    """Where the field's unchanged value stands."""
    return field.exact_in("ecs")


def _folded(field: FieldInfo) -> str:
    if field.kind == "ip":
        return f"TO_STRING({column(field)})"
    return column(field) if field.lower else f"TO_LOWER({column(field)})"


def _and(expr: And) -> str:
    return "(" + " AND ".join(map(condition, expr.items)) + ")"


def _or(expr: Or) -> str:
    return "(" + " OR ".join(map(condition, expr.items)) + ")"


def _not(expr: Not) -> str:
    if isinstance(expr.item, Present):
        return f"{column(expr.item.field)} IS NULL"
    return f"NOT {closed(expr.item)}"


def _text(expr: Text) -> str:
    value = expr.value.lower()
    if expr.field.kind == "list":
        return _in_list(expr.field, expr.op, value)
    if expr.field.kind == "ip":
        return f"{column(expr.field)} == {_address(expr.field, value)}"
    name = _folded(expr.field)
    if expr.op == "equals":
        return f"{name} == {literal(value)}"
    if expr.op == "contains":
        return f"{name} LIKE {literal('*' + wild(value) + '*')}"
    return f"{'STARTS_WITH' if expr.op == 'startswith' else 'ENDS_WITH'}({name}, {literal(value)})"


def _address(field: FieldInfo, value: str) -> str:
    try:
        canonical = str(ip_address(value)) == value
    except ValueError:
        canonical = False
    if not canonical:
        raise Unsupported("esql", f"{field.name} equal to {value!r}, which is not an address in its canonical spelling")
    return f"TO_IP({literal(value)})"


def _in_list(field: FieldInfo, op: TextOp, value: str) -> str:
    """One text of all elements, each between line feeds; of no element: null."""
    start = "\n" if op in ("equals", "startswith") else ""
    end = "\n" if op in ("equals", "endswith") else ""
    joined = f'CONCAT("\\n", MV_CONCAT({column(field)}, "\\n"), "\\n")'
    text = joined if field.lower else f"TO_LOWER({joined})"
    return f"{text} LIKE {literal('*' + start + wild(value) + end + '*')}"


def _one_of(expr: OneOf) -> str:
    values = [value.lower() for value in expr.values]
    if expr.field.kind == "list":
        return "(" + " OR ".join(_in_list(expr.field, "equals", value) for value in values) + ")"
    if expr.field.kind == "ip":
        return f"{column(expr.field)} IN ({', '.join(_address(expr.field, value) for value in values)})"
    return f"{_folded(expr.field)} IN ({', '.join(map(literal, values))})"


def _number(expr: Number) -> str:
    return f"{column(expr.field)} {expr.op} {expr.value!r}"


def _flag(expr: Flag) -> str:
    return f"{column(expr.field)} == {'true' if expr.value else 'false'}"


def _present(expr: Present) -> str:
    return f"{column(expr.field)} IS NOT NULL"


def _same(expr: SameText) -> str:
    return f"{_folded(expr.field)} == {_folded(expr.other)}"


def _network(expr: InNetwork) -> str:
    network = ip_network(expr.network)
    test = f"CIDR_MATCH({column(expr.field)}, {literal(expr.network)})"
    if isinstance(network, IPv4Network) or not network.overlaps(_MAPPED):
        return test
    # The mapped addresses of version 4 lie in this network of version 6.
    return f'({test} AND NOT COALESCE(CIDR_MATCH({column(expr.field)}, "0.0.0.0/0"), false))'


def _matches(expr: Matches) -> str:
    return f"{column(expr.field)} RLIKE {literal(whole(expr.pattern, 'esql'))}"


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
