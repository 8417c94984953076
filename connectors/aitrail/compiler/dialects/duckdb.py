"""DuckDB SQL over the store's ``events`` view, where strings and lists are never NULL and times are UTC timestamps.

A query reads ``scope``: the events of a range of time that its caller binds (``$since``, ``$until``). Every group lies
within one tenant. Every condition is two-valued: numbers and booleans may be NULL, so their comparisons are wrapped,
and NOT never sees a NULL. Correlations are exact: window functions over ranges of time, one row per event at which the
rule holds.
"""

# ruff: noqa: S608 - statements are made of the catalog's names and quoted literals of the rules, never of events

import ipaddress
from collections.abc import Callable
from typing import Any

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
from aitrail.compiler.metric import Dataset
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Correlation, Detection, Rule
from aitrail.schema.catalog import FieldInfo, by_name

_FUNCTIONS = {"contains": "contains", "startswith": "starts_with", "endswith": "suffix"}


# The range that a run looks at; bound by whoever runs the query.
_SCOPE = "scope AS (SELECT * FROM {} WHERE timestamp >= $since AND timestamp < $until)"
SCOPE = _SCOPE.format("events")


RELATIONS: dict[Dataset, str] = {"access": "events", "finding": "finding_records", "health": "health_records"}


def compile_rule(rule: Detection) -> Query:
    """Give the query of ``rule``: columns event_id, timestamp, the group's fields, and ``evidence`` (event ids)."""
    meta = rule.meta
    if isinstance(rule, Rule):
        by = rule.grouped
        text = (
            f"WITH {_SCOPE.format(RELATIONS[rule.dataset])}\n"
            f"SELECT {_columns('event_id', 'timestamp', *by)}, [event_id] AS evidence\n"
            f"FROM scope\nWHERE {condition(rule.expr)}\nORDER BY timestamp, event_id"
        )
        return Query(meta.name, "duckdb", text, "event", 0, by)
    return Query(meta.name, "duckdb", _correlation(rule), "sliding", rule.seconds, grouped(rule.group_by))


def grouped(by: tuple[str, ...]) -> tuple[str, ...]:
    """What names an alert: the tenant, always, and ``by``."""
    return tuple(dict.fromkeys(("tenant_id", *by)))


def condition(expr: Expr) -> str:
    """Render a condition that is TRUE or FALSE, never NULL."""
    return _RENDER[type(expr)](expr)


def literal(text: str) -> str:
    """Quote a string; raises ``ValueError`` for NUL, which no statement may hold."""
    if "\0" in text:
        raise ValueError("a literal holds NUL")
    return "'" + text.replace("'", "''") + "'"


def _name(field: FieldInfo | str) -> str:
    return '"' + (field if isinstance(field, str) else field.name) + '"'


def _folded(field: FieldInfo) -> str:
    return _name(field) if field.lower else f"lower({_name(field)})"


def _and(expr: And) -> str:
    return "(" + " AND ".join(map(condition, expr.items)) + ")"


def _or(expr: Or) -> str:
    return "(" + " OR ".join(map(condition, expr.items)) + ")"


def _not(expr: Not) -> str:
    return f"NOT {condition(expr.item)}"


def _text(expr: Text) -> str:
    value = literal(expr.value.lower())
    if expr.field.kind != "list":
        return _compared(expr.op, _folded(expr.field), value)
    if expr.op == "equals" and expr.field.lower:
        return f"list_contains({_name(expr.field)}, {value})"
    inner = _compared(expr.op, "x" if expr.field.lower else "lower(x)", value)
    return f"(len(list_filter({_name(expr.field)}, lambda x: {inner})) > 0)"


def _compared(op: str, left: str, value: str) -> str:
    return f"({left} = {value})" if op == "equals" else f"{_FUNCTIONS[op]}({left}, {value})"


def _one_of(expr: OneOf) -> str:
    values = ", ".join(literal(value.lower()) for value in expr.values)
    if expr.field.kind != "list":
        return f"({_folded(expr.field)} IN ({values}))"
    if expr.field.lower:
        return f"list_has_any({_name(expr.field)}, [{values}])"
    return f"list_has_any(list_transform({_name(expr.field)}, lambda x: lower(x)), [{values}])"


def _number(expr: Number) -> str:
    sign = "=" if expr.op == "==" else expr.op
    return f"coalesce({_name(expr.field)} {sign} {expr.value!r}, false)"


def _flag(expr: Flag) -> str:
    return f"coalesce({_name(expr.field)} = {'true' if expr.value else 'false'}, false)"


def _present(expr: Present) -> str:
    if expr.field.kind == "list":
        return f"(len({_name(expr.field)}) > 0)"
    if expr.field.kind in ("string", "text", "ip"):
        return f"({_name(expr.field)} <> '')"
    return f"({_name(expr.field)} IS NOT NULL)"


def _same(expr: SameText) -> str:
    return f"({_name(expr.field)} <> '' AND {_folded(expr.field)} = {_folded(expr.other)})"


def _network(expr: InNetwork) -> str:
    network = ipaddress.ip_network(expr.network)
    if isinstance(network, ipaddress.IPv4Network):
        return _network4(_name(expr.field), network)
    return _network6(_name(expr.field), network)


def _network4(name: str, network: ipaddress.IPv4Network) -> str:
    """Compare the address as a number; the view's addresses are canonical, so four decimal parts are an address.

    Whole parts of the network are compared as text first, which is much cheaper.
    """
    fixed = str(network.network_address).split(".")[: network.prefixlen // 8]
    if network.prefixlen == 32:
        return f"({name} = {literal(str(network.network_address))})"
    inside = f"starts_with({name}, {literal('.'.join(fixed) + '.')})"
    if fixed and network.prefixlen % 8 == 0:
        return inside
    parts = [f"split_part({name}, '.', {part})::BIGINT" for part in range(1, 5)]
    number = f"({parts[0]} * 16777216 + {parts[1]} * 65536 + {parts[2]} * 256 + {parts[3]})"
    first, last = int(network.network_address), int(network.broadcast_address)
    written = inside if fixed else f"regexp_full_match({name}, '[0-9.]+')"
    return f"(CASE WHEN {written} THEN {number} BETWEEN {first} AND {last} ELSE false END)"


def _network6(name: str, network: ipaddress.IPv6Network) -> str:
    """Compare the leading hex digits of the address written out in full."""
    left = f"list_filter(string_split(split_part({name}, '::', 1), ':'), lambda x: x <> '')"
    right = f"list_filter(string_split(split_part({name}, '::', 2), ':'), lambda x: x <> '')"
    zeros = f"list_transform(range(8 - len({left}) - len({right})), lambda x: '0')"
    groups = f"list_concat(list_concat({left}, {zeros}), {right})"
    digits = f"array_to_string(list_transform({groups}, lambda x: lpad(x, 4, '0')), '')"
    whole, rest = divmod(network.prefixlen, 4)
    address = network.network_address.exploded.replace(":", "")
    tests = [f"starts_with({digits}, '{address[:whole]}')"] if whole else []
    if rest:
        base = int(address[whole], 16)
        allowed = ", ".join(f"'{base + step:x}'" for step in range(1 << (4 - rest)))
        tests.append(f"substr({digits}, {whole + 1}, 1) IN ({allowed})")
    inside = " AND ".join(tests) or "true"
    return f"(CASE WHEN contains({name}, ':') THEN {inside} ELSE false END)"


def _matches(expr: Matches) -> str:
    # DuckDB's expressions are RE2 too; "s" is off there as it is in Sigma.
    return f"regexp_matches({_name(expr.field)}, {literal(expr.pattern)})"


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


# --- correlations


def _columns(*names: str) -> str:
    return ", ".join(_name(name) for name in dict.fromkeys(names))


def _keyed(by: tuple[str, ...]) -> list[str]:
    """Events without a value of the group's fields belong to no group."""
    return [condition(Present(by_name()[name])) for name in by]


def _correlation(rule: Correlation) -> str:
    make = _ordered if rule.type == "temporal_ordered" else _temporal if rule.type == "temporal" else _aggregate
    return make(rule)


def _window(rule: Correlation) -> str:
    by = f"PARTITION BY {_columns(*grouped(rule.group_by))} "
    span = f"RANGE BETWEEN INTERVAL {rule.seconds} SECONDS PRECEDING AND CURRENT ROW"
    return f"({by}ORDER BY timestamp {span})"


def _parts(rule: Correlation) -> str:
    """One row per event and rule that it fulfils."""
    extra = (rule.field,) if rule.field else ()
    selects = []
    for number, part in enumerate(rule.rules):
        tests = [condition(part.expr), *_keyed(rule.group_by)]
        if rule.field:
            tests.append(condition(Present(by_name()[rule.field])))
        columns = _columns("event_id", "timestamp", *grouped(rule.group_by), *extra)
        selects.append(f"SELECT {columns}, {number} AS part FROM scope WHERE {' AND '.join(tests)}")
    return "\n  UNION ALL ".join(selects)


def _aggregate(rule: Correlation) -> str:
    value = {
        "event_count": "count(*)",
        "value_count": f"count(DISTINCT {_name(rule.field)})",
        "value_sum": f"sum({_name(rule.field)})",
        "value_avg": f"avg({_name(rule.field)})",
        "value_percentile": f"quantile_cont({_name(rule.field)}, {rule.percentile / 100})",
    }[rule.type]
    if rule.compare not in (">", ">="):
        raise Unsupported("duckdb", f"{rule.type} with {rule.compare}: it would hold when nothing happens")
    columns = _columns("event_id", "timestamp", *grouped(rule.group_by))
    return (
        f"WITH {SCOPE}, hits AS (\n  {_parts(rule)}\n), measured AS (\n"
        f"  SELECT {columns}, {value} OVER w AS measured, list(event_id) OVER w AS evidence\n"
        f"  FROM hits WINDOW w AS {_window(rule)}\n)\n"
        f"SELECT {columns}, evidence, measured FROM measured\n"
        f"WHERE measured {rule.compare} {rule.threshold!r}\nORDER BY timestamp, event_id"
    )


def _temporal(rule: Correlation) -> str:
    columns = _columns("event_id", "timestamp", *grouped(rule.group_by))
    return (
        f"WITH {SCOPE}, hits AS (\n  {_parts(rule)}\n), measured AS (\n"
        f"  SELECT {columns}, count(DISTINCT part) OVER w AS measured, list(event_id) OVER w AS evidence\n"
        f"  FROM hits WINDOW w AS {_window(rule)}\n)\n"
        f"SELECT DISTINCT ON (event_id) {columns}, evidence, measured FROM measured\n"
        f"WHERE measured = {len(rule.rules)}\nORDER BY timestamp, event_id"
    )


def _ordered(rule: Correlation) -> str:
    """For every event the latest start of a chain that ends there; it holds when that start lies in the window."""
    by = f"PARTITION BY {_columns(*grouped(rule.group_by))} "
    columns = _columns("event_id", "timestamp", *grouped(rule.group_by))
    earlier = f"({by}ORDER BY timestamp RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    steps = ["chain0 AS (SELECT *, CASE WHEN part = 0 THEN timestamp END AS start FROM hits)"]
    for number in range(1, len(rule.rules)):
        before = f"max(start) FILTER (WHERE part = {number - 1}) OVER {earlier}"
        start = f"CASE WHEN part = {number} THEN {before} ELSE start END AS start"
        steps.append(f"chain{number} AS (SELECT * EXCLUDE (start), {start} FROM chain{number - 1})")
    last = len(rule.rules) - 1
    window = _window(rule)
    return (
        f"WITH {SCOPE}, hits AS (\n  {_parts(rule)}\n), "
        + ", ".join(steps)
        + f", measured AS (\n  SELECT {columns}, part, start, list(event_id) OVER w AS evidence\n"
        f"  FROM chain{last} WINDOW w AS {window}\n)\n"
        f"SELECT {columns}, evidence, start FROM measured\n"
        f"WHERE part = {last} AND start >= timestamp - INTERVAL {rule.seconds} SECONDS\nORDER BY timestamp, event_id"
    )
