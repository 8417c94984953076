"""The conditions of SPL: what ``search`` says exactly, and all of it as an expression of ``where`` that is never null.

The facts are in ``spl.py``. Beside those: ``split`` takes its delimiter as it is, which makes it the exact search for a
text that holds wildcards of ``like``; ``match`` takes PCRE, whose ``$`` also matches before a last line feed.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
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
    TextOp,
)
from aitrail.compiler.problems import Unsupported
from aitrail.schema.catalog import FieldInfo

# Words of these characters are whole terms of the index, and no wildcards.
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@-]+")
_END = "(?!(?s:.))"
# Splunk's own field hides "source"; "action" holds the word that the Common Information Model prescribes.
HIDDEN = {"source": "event_source", "action": "vendor_action"}


# --- search


def searchable(expr: Expr) -> bool:
    """Say whether ``search`` means exactly ``expr``."""
    if isinstance(expr, And | Or):
        return all(map(searchable, expr.items))
    if isinstance(expr, Not):
        return searchable(expr.item)
    if isinstance(expr, SameText | InNetwork | Matches) or expr.field.name == "source":
        return False
    if isinstance(expr, Text):
        return expr.op == "equals" and _plain(expr.value)
    return all(map(_plain, expr.values)) if isinstance(expr, OneOf) else True


def searched(expr: Expr) -> str:
    """Render ``expr`` for ``search``; only what is ``searchable``."""
    if isinstance(expr, And):
        return "(" + " ".join(map(searched, expr.items)) + ")"
    if isinstance(expr, Or):
        return "(" + " OR ".join(map(searched, expr.items)) + ")"
    if isinstance(expr, Not):
        return f"NOT {searched(expr.item)}"
    assert not isinstance(expr, SameText | InNetwork | Matches)
    field = name(expr.field.name) + ("{}" if expr.field.kind == "list" else "")
    if isinstance(expr, Text):
        return f'{field}="{expr.value}"'
    if isinstance(expr, OneOf):
        values = ", ".join(f'"{value}"' for value in expr.values)
        return f"{field} IN ({values})"
    if isinstance(expr, Number):
        return f"{field}{'=' if expr.op == '==' else expr.op}{expr.value!r}"
    return f"{field}=*" if isinstance(expr, Present) else f"{field}={'true' if expr.value else 'false'}"


def _plain(value: str) -> bool:
    if not _PLAIN.fullmatch(value) or value.upper() in ("AND", "OR", "NOT", "NULL"):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False  # "5" would also be 5.0


# --- where


def condition(expr: Expr) -> str:
    """Render a condition of ``where`` that is true or false, never null."""
    return _RENDER[type(expr)](expr)


def literal(text: str) -> str:
    """Quote a string for ``where`` and ``eval``.

    Raises:
        Unsupported: a backtick or a line feed, which a search cannot hold in a literal.
    """
    if any(char in text for char in "`\n\r\t\0"):
        raise Unsupported("spl", "a backtick or a control character in a literal")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def name(field: str) -> str:
    """The field's name in a search: the event's own where another has that name (``spl.prepared``, ``props.conf``)."""
    return HIDDEN.get(field, field)


def _folded(field: FieldInfo) -> str:
    # lower() also makes a text of what looks like a number.
    return f'lower(coalesce({name(field.name)}, ""))'


def _and(expr: And) -> str:
    return "(" + " AND ".join(map(condition, expr.items)) + ")"


def _or(expr: Or) -> str:
    return "(" + " OR ".join(map(condition, expr.items)) + ")"


def _not(expr: Not) -> str:
    return f"NOT ({condition(expr.item)})"


def _text(expr: Text) -> str:
    if expr.field.kind == "list":
        return _in_list(expr.field, expr.op, expr.value)
    return _compared(expr.field, _folded(expr.field), expr.op, expr.value)


def _in_list(field: FieldInfo, op: TextOp, value: str) -> str:
    return f"isnotnull(mvfilter({_compared(field, f'lower({name(field.name)})', op, value)}))"


def _compared(field: FieldInfo, left: str, op: TextOp, value: str) -> str:
    value = value.lower()
    if not field.lower and not value.isascii() and value != value.upper():
        raise Unsupported("spl", f"{field.name} without case: lower() is not said to fold the letters of {value!r}")
    if op == "equals":
        return f"{left}=={literal(value)}"
    if not any(char in value for char in "%_\\"):
        start, end = "" if op == "startswith" else "%", "" if op == "endswith" else "%"
        return f"like({left}, {literal(start + value + end)})"
    if op == "contains":
        return f"coalesce(mvcount(split({left}, {literal(value)})), 0) > 1"
    if not value.isascii():
        raise Unsupported("spl", f"a part of {field.name} with letters beyond ASCII and wildcards of like")
    place = f"1, {len(value)}" if op == "startswith" else f"-{len(value)}"
    return f"substr({left}, {place})=={literal(value)}"


def _one_of(expr: OneOf) -> str:
    tests = [condition(Text(expr.field, "equals", value)) for value in expr.values]
    return "(" + " OR ".join(tests) + ")"


def _number(expr: Number) -> str:
    # Where there is no number, one that cannot hold.
    step = max(1, abs(expr.value))
    other = expr.value - step if expr.op.startswith(">") else expr.value + step
    return f"coalesce({name(expr.field.name)}, {other!r}) {expr.op} {expr.value!r}"


def _flag(expr: Flag) -> str:
    return f'{_folded(expr.field)}=="{"true" if expr.value else "false"}"'


def _present(expr: Present) -> str:
    return f"isnotnull({name(expr.field.name)})"


def _same(expr: SameText) -> str:
    return f"(isnotnull({name(expr.field.name)}) AND {_folded(expr.field)}=={_folded(expr.other)})"


def _network(expr: InNetwork) -> str:
    field = name(expr.field.name)
    six = f'like({field}, "%:%")'
    other = six if isinstance(ip_network(expr.network), IPv4Network) else f"NOT {six}"
    # What cidrmatch makes of no address or one of the other version is not said; it is not asked.
    return f"case(isnull({field}), 0, {other}, 0, cidrmatch({literal(expr.network)}, {field}), 1, true(), 0)==1"


def _matches(expr: Matches) -> str:
    field = name(expr.field.name)
    return f'(isnotnull({field}) AND match(coalesce({field}, ""), {literal(_pcre(expr.pattern))}))'


def _pcre(pattern: str) -> str:
    """RE2 to PCRE: an end is the very end, and escapes become classes where they can (a literal eats backslashes)."""
    out: list[str] = []
    place, inside = 0, False
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            escaped = pattern[place + 1]
            if escaped.isalnum():
                raise Unsupported("spl", f"the escape \\{escaped} in an expression")
            out.append(f"\\{escaped}" if inside or escaped in "^\\" else f"[{escaped}]")
            place += 2
            continue
        if char == "[" and not inside:
            # A bracket that comes first in a class is a member of it.
            first = re.match(r"\[\^?\]?", pattern[place:])
            assert first is not None
            out.append(first[0])
            place, inside = place + len(first[0]), True
            continue
        inside = inside and char != "]"
        out.append(_END if char == "$" and not inside else char)
        place += 1
    return "".join(out)


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
