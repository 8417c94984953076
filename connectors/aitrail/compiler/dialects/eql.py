"""EQL over ``logs-ai_audit.access-*``: the correlations that it says exactly, as sequences.

Facts (Elasticsearch, "EQL syntax reference"; its sequence matcher): ``maxspan`` includes both ends; an event without a
join key is in no sequence; each event continues the sequence that began last, so with ``with runs=N`` every run of N
events that follow one another is found, and in a sequence every first completion after its start. ``==`` compares with
case, ``in~`` and functions with ``~`` without; only ``:`` takes wildcards, so it is not used. What a null makes of
``not`` depends on how a test is executed, so every test under a ``not`` asks first whether there is a value. Lists,
``text`` fields and comparisons of two fields are not supported by EQL.

Limits that remain: events of the same millisecond are ordered by the tiebreaker, and an event that alone fulfils two
parts is not a sequence.
"""

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
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Correlation
from aitrail.schema.catalog import FieldInfo, by_name

# Each run is a query of its own to Elasticsearch.
MAX_RUNS = 100
_FUNCTIONS = {"contains": "stringContains", "startswith": "startsWith", "endswith": "endsWith"}


def compile_rule(rule: Correlation) -> Query:
    """Give the sequence of a count of events or of an order of parts.

    Raises:
        Unsupported: another type, too high a threshold, or a condition that EQL cannot say exactly.
    """
    keys = tuple(dict.fromkeys(("tenant_id", *rule.group_by)))
    if any(by_name()[name].kind == "list" for name in keys):
        raise Unsupported("eql", "a group by a list")
    if rule.type == "event_count" and len(rule.rules) == 1:
        runs = int(rule.threshold) + 1 if rule.compare == ">" else -int(-rule.threshold // 1)
        if not 2 <= runs <= MAX_RUNS:
            raise Unsupported("eql", f"a sequence of {runs} events")
        steps = [f"{_step(rule, rule.rules[0].expr)} with runs={runs}"]
    elif rule.type == "temporal_ordered" and len(rule.rules) > 1:
        steps = [_step(rule, part.expr) for part in rule.rules]
    else:
        raise Unsupported("eql", rule.type)
    by = ", ".join(by_name()[name].exact_in("ecs") for name in keys)
    text = "\n  ".join([f"sequence by {by} with maxspan={rule.seconds}s", *steps])
    return Query(rule.meta.name, "eql", text, "sliding", rule.seconds, keys)


def _step(rule: Correlation, expr: Expr) -> str:
    """One event; that its keys have values is said, because not every engine of EQL leaves out those without."""
    keyed = [condition(Present(by_name()[name])) for name in rule.group_by if name != "tenant_id"]
    return f"[any where {' and '.join([*keyed, condition(expr)])}]"


def condition(expr: Expr, *, guarded: bool = False) -> str:
    """Render a condition; ``guarded`` ones (under a ``not``) are never null."""
    if isinstance(expr, And | Or):
        word = " and " if isinstance(expr, And) else " or "
        return "(" + word.join(condition(item, guarded=guarded) for item in expr.items) + ")"
    if isinstance(expr, Not):
        if isinstance(expr.item, Present):
            return f"{_column(expr.item.field)} == null"
        return f"not {condition(expr.item, guarded=True)}"
    test = _RENDER[type(expr)](expr)
    if guarded and not isinstance(expr, Present):
        return f"({_column(expr.field)} != null and {test})"
    return test


def literal(text: str) -> str:
    """Quote a string (EQL, "Strings: escape characters")."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def _column(field: FieldInfo) -> str:
    if field.kind in ("list", "text", "time"):
        raise Unsupported("eql", f"a test of {field.name}, a {field.kind}")
    return field.exact_in("ecs")


def _text(expr: Text) -> str:
    name = _column(expr.field)
    if expr.field.kind == "ip":
        raise Unsupported("eql", f"{expr.field.name} as a text")
    if expr.op == "equals":
        return f"{name} == {literal(expr.value)}" if expr.field.lower else f"{name} in~ ({literal(expr.value)})"
    return f"{_FUNCTIONS[expr.op]}{'' if expr.field.lower else '~'}({name}, {literal(expr.value)})"


def _one_of(expr: OneOf) -> str:
    if expr.field.kind == "ip":
        raise Unsupported("eql", f"{expr.field.name} as a text")
    values = ", ".join(map(literal, expr.values))
    return f"{_column(expr.field)} {'in' if expr.field.lower else 'in~'} ({values})"


def _number(expr: Number) -> str:
    return f"{_column(expr.field)} {expr.op} {expr.value!r}"


def _flag(expr: Flag) -> str:
    return f"{_column(expr.field)} == {'true' if expr.value else 'false'}"


def _present(expr: Present) -> str:
    return f"{_column(expr.field)} != null"


def _network(expr: InNetwork) -> str:
    if ":" in expr.network:
        raise Unsupported("eql", "a network of version 6, which may hold mapped addresses")
    return f"cidrMatch({_column(expr.field)}, {literal(expr.network)})"


def _refused(expr: SameText | Matches) -> str:
    raise Unsupported("eql", type(expr).__name__)


_RENDER: dict[type, Callable[[Any], str]] = {
    Text: _text,
    OneOf: _one_of,
    Number: _number,
    Flag: _flag,
    Present: _present,
    SameText: _refused,
    InNetwork: _network,
    Matches: _refused,
}
