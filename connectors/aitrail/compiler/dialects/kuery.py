"""Conditions in the Kibana query language (KQL): what a number and a link of a Kibana dashboard look at.

Facts (Kibana guide, "Kibana Query Language"): ``field: value`` holds when any of the values of a field is it,
``field: *`` when there is one, and ``not`` when it does not hold, also for documents without the field: so nothing is
ever unknown. A keyword compares with case. Fields that the catalog does not promise to be lower-case are compared in
the spelling that the content gives, where rules compare without case. A quoted value is taken as it is but for
backslash and quote; wildcards work outside of quotes alone, where KQL's own characters are escaped.
"""

import re
from collections.abc import Callable
from typing import Any

from aitrail.compiler.dialects.esql import column
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

_OWN = re.compile(r'([\\():<>"*{}])')


def render(expr: Expr) -> str:
    """Give the condition.

    Raises:
        Unsupported: two fields compared, a regular expression, a text field, or a part that holds spaces.
    """
    return _RENDER[type(expr)](expr)


def literal(text: str) -> str:
    """Quote a value."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _joined(expr: And | Or) -> str:
    word = " and " if isinstance(expr, And) else " or "
    parts = [render(item) for item in expr.items]
    return parts[0] if len(parts) == 1 else "(" + word.join(parts) + ")"


def _not(expr: Not) -> str:
    return f"not {_closed(expr.item)}"


def _closed(expr: Expr) -> str:
    text = render(expr)
    return text if text.startswith("(") or isinstance(expr, Present | Flag | Text | OneOf) else f"({text})"


def _text(expr: Text) -> str:
    name = column(expr.field)
    if expr.field.kind == "text":
        raise Unsupported("kuery", f"a value of {expr.field.name}, of which KQL compares words")
    if expr.op == "equals":
        return f"{name}: {literal(expr.value)}"
    if expr.field.kind == "ip" or re.search(r"\s", expr.value):
        raise Unsupported("kuery", f"{expr.op} of {expr.field.name}")
    part = _OWN.sub(r"\\\1", expr.value)
    before, after = "*" * (expr.op != "startswith"), "*" * (expr.op != "endswith")
    return f"{name}: {before}{part}{after}"


def _one_of(expr: OneOf) -> str:
    if expr.field.kind == "text":
        raise Unsupported("kuery", f"a value of {expr.field.name}, of which KQL compares words")
    return f"{column(expr.field)}: ({' or '.join(map(literal, expr.values))})"


def _number(expr: Number) -> str:
    sign = ":" if expr.op == "==" else f" {expr.op}"
    return f"{column(expr.field)}{sign} {expr.value!r}"


def _flag(expr: Flag) -> str:
    return f"{column(expr.field)}: {'true' if expr.value else 'false'}"


def _present(expr: Present) -> str:
    return f"{column(expr.field)}: *"


def _network(expr: InNetwork) -> str:
    return f"{column(expr.field)}: {literal(expr.network)}"


def _refused(expr: SameText | Matches) -> str:
    raise Unsupported("kuery", type(expr).__name__)


_RENDER: dict[type, Callable[[Any], str]] = {
    And: _joined,
    Or: _joined,
    Not: _not,
    Text: _text,
    OneOf: _one_of,
    Number: _number,
    Flag: _flag,
    Present: _present,
    SameText: _refused,
    InNetwork: _network,
    Matches: _refused,
}
