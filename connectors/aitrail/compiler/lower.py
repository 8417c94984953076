"""From pySigma's condition tree to ours, typed by the catalog; refuses what one of the targets could not say.

pySigma parses Sigma (specification 2.0) and applies modifiers; here every comparison gets the type of its field, so
that no dialect has to guess. What is refused and why: wildcards inside a value and ``?`` (anchoring differs), ``cased``
and ``(?i)`` (engines disagree), keywords (no field), ``null`` (strings are never null: use ``exists: false``).
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping

import re2
from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionIdentifier,
    ConditionItem,
    ConditionNOT,
    ConditionOR,
    ConditionSelector,
    ConditionValueExpression,
)
from sigma.types import (
    SigmaBool,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaFieldReference,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaType,
    SpecialChars,
)

from aitrail.compiler.expr import (
    And,
    Expr,
    Flag,
    InNetwork,
    Matches,
    Not,
    Number,
    NumberOp,
    OneOf,
    Or,
    Present,
    SameText,
    Text,
    TextOp,
)
from aitrail.schema.catalog import FieldInfo, by_name

_TEXTUAL = ("string", "text", "list", "ip")
_NUMERIC = ("integer", "number")
_OPERATORS: dict[str, NumberOp] = {"LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_STAR = SpecialChars.WILDCARD_MULTI


class NotPortable(Exception):  # noqa: N818  (the linter turns it into a problem)
    """A construct that the portable subset does not have; ``fix`` says what to write instead."""

    def __init__(self, reason: str, fix: str = "", field: str = "") -> None:
        super().__init__(reason)
        self.reason, self.fix, self.field = reason, fix, field


def lower(node: object, known: Mapping[str, FieldInfo] | None = None) -> Expr:
    """Lower a parsed condition over the fields ``known`` (those of accesses); raises ``NotPortable``."""
    known = by_name() if known is None else known
    if isinstance(node, ConditionAND | ConditionOR):
        kind: type[And | Or] = And if isinstance(node, ConditionAND) else Or
        items: list[Expr] = []
        for arg in node.args:
            item = lower(arg, known)
            items += item.items if isinstance(item, And | Or) and isinstance(item, kind) else [item]
        return items[0] if len(items) == 1 else _folded(kind, tuple(items))
    if isinstance(node, ConditionNOT):
        return Not(lower(node.args[0], known))
    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _comparison(_field(node.field, known), node.value, known)
    if isinstance(node, ConditionValueExpression):
        raise NotPortable("keywords search every field, and engines disagree on which", "name the field")
    if isinstance(node, ConditionIdentifier | ConditionSelector | ConditionItem):
        raise NotPortable("the condition could not be resolved")
    raise NotPortable(f"{type(node).__name__} is not part of the portable subset")


def _folded(kind: type[And | Or], items: tuple[Expr, ...]) -> Expr:
    """Equalities of one field under OR become one list: shorter and faster in every target."""
    if kind is And:
        return And(items)
    kept: list[Expr] = []
    lists: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    fields: dict[str, FieldInfo] = {}
    for item in items:
        if isinstance(item, Text) and item.op == "equals":
            name = item.field.name
            if name not in lists:
                places[name] = len(kept)
                kept.append(item)
            lists.setdefault(name, []).append(item.value)
            fields[name] = item.field
        else:
            kept.append(item)
    for name, values in lists.items():
        if len(values) > 1:
            kept[places[name]] = OneOf(fields[name], tuple(dict.fromkeys(values)))
    return kept[0] if len(kept) == 1 else Or(tuple(kept))


def _field(name: str, known: Mapping[str, FieldInfo]) -> FieldInfo:
    field = known.get(name)
    if field is None:
        raise NotPortable(f"unknown field {name!r}", closest(name, known), name)
    return field


def closest(name: str, known: Iterable[str]) -> str:
    """What to write instead of the unknown field ``name``."""
    import difflib  # noqa: PLC0415  (only an error needs it)

    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else "`aitrail schema` lists the fields"


def _comparison(field: FieldInfo, value: SigmaType, known: Mapping[str, FieldInfo]) -> Expr:
    if isinstance(value, SigmaFieldReference):
        return _reference(field, value, known)
    for kind, make in _MAKERS.items():
        if isinstance(value, kind):
            return make(field, value)
    raise NotPortable(
        f"{field.name}: {type(value).__name__.removeprefix('Sigma').lower()} is not part of the portable subset",
        "use exists: false instead of null" if type(value).__name__ == "SigmaNull" else "use a simpler modifier",
        field.name,
    )


def _need(field: FieldInfo, kinds: tuple[str, ...], what: str) -> None:
    if field.kind not in kinds:
        raise NotPortable(f"{field.name} is a {field.kind}; {what} does not fit it", "see `aitrail schema`", field.name)


def _string(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaString)
    parts = list(value.s)
    _need(field, _TEXTUAL, "a string")
    start = bool(parts) and parts[0] is _STAR
    end = len(parts) > 1 and parts[-1] is _STAR
    inner = parts[1 if start else 0 : len(parts) - 1 if end else len(parts)]
    if any(not isinstance(part, str) for part in inner):
        raise NotPortable(
            f"{field.name}: a wildcard inside a value means different things in different engines",
            "split it into |startswith, |contains|all and |endswith",
            field.name,
        )
    text = "".join(part for part in inner if isinstance(part, str))
    if start and not inner and not end:
        return Present(field)
    _spelling(field, text)
    op: TextOp = "contains" if start and end else "endswith" if start else "startswith" if end else "equals"
    if op == "equals" and not text:
        return Not(Present(field))
    if field.kind == "ip" and op != "equals":
        raise NotPortable(f"{field.name}: parts of an address have no meaning", "use |cidr", field.name)
    return Text(field, op, text)


def _spelling(field: FieldInfo, text: str) -> None:
    if any(ord(char) < 32 for char in text):
        raise NotPortable(f"{field.name}: control characters in a value", "leave them out", field.name)
    low = text.lower()
    if not text.isascii() and (len(low) != len(text) or low.upper().lower() != low):
        reason = f"{field.name}: engines fold a letter of {text!r} differently"
        raise NotPortable(reason, "leave that letter out", field.name)
    if field.lower and text != low:
        raise NotPortable(
            f"{field.name} is always lower-case; {text!r} can never be equal to it",
            f"write {text.lower()!r}",
            field.name,
        )
    if field.enum and "" not in field.enum and not text:
        raise NotPortable(f"{field.name} is never empty", "", field.name)


def _number(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaNumber)
    if field.kind in _TEXTUAL:
        return _string(field, SigmaString(str(value.number)))
    _need(field, _NUMERIC, "a number")
    return Number(field, "==", value.number)


def _compare(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaCompareExpression)
    _need(field, _NUMERIC, "a comparison of size")
    if not isinstance(value.number, SigmaNumber):
        raise NotPortable(f"{field.name}: sizes are compared with numbers", "", field.name)
    return Number(field, _OPERATORS[value.op.name], value.number.number)


def _bool(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaBool)
    _need(field, ("boolean",), "true or false")
    return Flag(field, value.boolean)


def _exists(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaExists)
    return Present(field) if value.exists else Not(Present(field))


def _reference(field: FieldInfo, value: SigmaFieldReference, known: Mapping[str, FieldInfo]) -> Expr:
    other = _field(value.field, known)
    if value.starts_with or value.ends_with:
        raise NotPortable(f"{field.name}: a part of another field cannot be compared everywhere", "", field.name)
    for one in (field, other):
        _need(one, ("string", "ip"), "a comparison with another field")
    return SameText(field, other)


def _network(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaCIDRExpression)
    _need(field, ("ip",), "a network")
    try:
        network = ipaddress.ip_network(value.cidr)
    except ValueError as error:
        raise NotPortable(f"{field.name}: {error}", "write a network such as 10.0.0.0/8", field.name) from None
    return InNetwork(field, str(network))


def _regex(field: FieldInfo, value: SigmaType) -> Expr:
    assert isinstance(value, SigmaRegularExpression)
    _need(field, ("string", "text"), "a regular expression")
    pattern = str(value.regexp)
    if value.flags or "(?" in pattern.replace("(?:", ""):
        raise NotPortable(f"{field.name}: flags and named groups differ between engines", "leave them out", field.name)
    for escape in ("\\d", "\\w", "\\s", "\\b", "\\D", "\\W", "\\S", "\\B", "\\A", "\\z", "\\Z", "\\p"):
        if escape in pattern:
            raise NotPortable(
                f"{field.name}: {escape} differs between engines", "write the class, e.g. [0-9]", field.name
            )
    if not pattern.isascii():
        raise NotPortable(f"{field.name}: an expression must be ASCII", "", field.name)
    if field.lower and any(char.isupper() for char in pattern):
        raise NotPortable(f"{field.name} is always lower-case", "write the expression in lower case", field.name)
    try:
        re2.compile(pattern)
    except re2.error as error:
        raise NotPortable(
            f"{field.name}: not an RE2 expression ({error})", "no look-around, no references", field.name
        ) from None
    return Matches(field, pattern)


# In this order: a number may be a kind of string to pySigma.
_MAKERS: dict[type[SigmaType], Callable[[FieldInfo, SigmaType], Expr]] = {
    SigmaExists: _exists,
    SigmaCIDRExpression: _network,
    SigmaCompareExpression: _compare,
    SigmaRegularExpression: _regex,
    SigmaBool: _bool,
    SigmaNumber: _number,
    SigmaString: _string,
}
