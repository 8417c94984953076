"""``where = "..."``: a small condition over the fields of an event, checked when the configuration is read.

    action_kind = 'inference' and (injection_tier in ('suspicious', 'high') or leakage_types startswith 'response:')

It is total: a condition that was accepted gives true or false for every event and never fails. What is absent equals
the empty text; a number or a yes/no that is absent equals nothing, so only ``!=`` and ``not`` are true of it. On a
list, ``contains`` asks for one whole element and ``startswith`` for an element that begins so. Nothing is evaluated as
code: the text is parsed into the closures below.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter, ge, gt, le, lt
from typing import Any

import msgspec

from aitrail.clock import iso_ms
from aitrail.errors import ConfigError
from aitrail.schema.catalog import FieldInfo, by_name

Test = Callable[[Any], bool]

# A condition longer or deeper than this is no condition that a person wrote.
MAX_CHARS = 10_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<number>-?\d+(?:\.\d+)?)(?![\w.])
    | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
    | (?P<sign><=|>=|!=|<>|==|[=<>(),])
    )""",
    re.VERBOSE | re.ASCII,
)
_TEXTS = frozenset({"string", "ip", "text", "time"})
_NUMBERS = frozenset({"integer", "number"})
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "contains", "startswith", "exists")
# Which operators a field of a kind has; the rest is a mistake that the author should hear of.
_OF_KIND: Mapping[str, Sequence[str]] = {
    "string": ("=", "!=", "in", "not in", "contains", "startswith", "exists"),
    "ip": ("=", "!=", "in", "not in", "startswith", "exists"),
    "text": ("=", "!=", "in", "not in", "contains", "startswith", "exists"),
    "time": ("=", "!=", "<", "<=", ">", ">=", "exists"),
    "integer": ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "exists"),
    "number": ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "exists"),
    "boolean": ("=", "!=", "exists"),
    "list": ("contains", "startswith", "exists"),
}
_SAME = {"==": "=", "<>": "!="}


class Where(msgspec.Struct, frozen=True):
    """A checked condition.

    Attributes:
        text: as it was written.
        fields: the fields that it looks at.
        test: true or false for anything that has those attributes.
    """

    text: str
    fields: frozenset[str]
    test: Test


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    at: int


def parse_where(text: str, where: str = "where") -> Where:
    """Check and compile a condition.

    Raises:
        ConfigError: names the setting ``where``, the field or word, its column, and what was meant.
    """
    return _Parser(text, where).parse()


class _Parser:
    """Recursive descent: or, and, not, then one comparison or a condition in parentheses."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._fields: set[str] = set()
        self._depth = 0
        if len(text) > MAX_CHARS:
            raise ConfigError(f"longer than {MAX_CHARS:,} characters", where=where, hint="use fewer alternatives")
        self._tokens = self._split()
        self._place = 0

    def parse(self) -> Where:
        if self._tokens[0].kind == "end":
            raise self._wrong("the condition is empty", self._tokens[0], "e.g. action_kind = 'inference'")
        test = self._or()
        rest = self._tokens[self._place]
        if rest.kind != "end":
            raise self._wrong(f"'and', 'or' or the end is expected, not {rest.text!r}", rest, "")
        return Where(self._text, frozenset(self._fields), test)

    # --- tokens

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                sign = self._text[at]
                hint = "the text has no end: close the quote" if sign in "'\"" else "texts stand in 'quotes'"
                raise self._wrong(f"{sign!r} is not expected", _Token("sign", sign, at), hint)
            kind = found.lastgroup or ""
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            at = found.end()
        tokens.append(_Token("end", "the end", end))
        return tokens

    def _next(self) -> _Token:
        token = self._tokens[self._place]
        self._place += token.kind != "end"
        return token

    def _took(self, *words: str) -> bool:
        """Take the next words when they are these; keywords may be written in any case."""
        here = self._tokens[self._place : self._place + len(words)]
        if len(here) == len(words) and all(
            token.kind in ("word", "sign") and token.text.lower() == word
            for token, word in zip(here, words, strict=True)
        ):
            self._place += len(words)
            return True
        return False

    # --- conditions

    def _or(self) -> Test:
        parts = [self._and()]
        while self._took("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else _any_of(tuple(parts))

    def _and(self) -> Test:
        parts = [self._not()]
        while self._took("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else _all_of(tuple(parts))

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong("nested too deep", self._tokens[self._place], f"at most {MAX_DEPTH} levels")
        if self._took("not"):
            test = _negated(self._not())
        elif self._took("("):
            test = self._or()
            if not self._took(")"):
                raise self._wrong("')' is missing", self._tokens[self._place], "")
        else:
            test = self._comparison()
        self._depth -= 1
        return test

    def _comparison(self) -> Test:
        field = self._field()
        token = self._tokens[self._place]
        operator = self._operator()
        if operator not in _OF_KIND[field.kind]:
            allowed = ", ".join(_OF_KIND[field.kind])
            raise self._wrong(f"{field.name} ({field.wire_type}) has no {operator!r}", token, f"it has: {allowed}")
        get = attrgetter(field.name)
        if operator == "exists":
            return _exists(get, absent=None if field.kind in (*_NUMBERS, "boolean") else field.kind)
        if operator in ("in", "not in"):
            test = _is_in(get, frozenset(self._listed(field)))
            return _negated(test) if operator == "not in" else test
        value = self._value(field, operator)
        if operator in _ORDER:
            return _ordered(get, _ORDER[operator], value)
        return _MAKERS[operator, field.kind == "list"](get, value)

    def _field(self) -> FieldInfo:
        token = self._next()
        known = by_name()
        if token.kind != "word":
            raise self._wrong(f"a field is expected, not {token.text!r}", token, "e.g. action_kind = 'inference'")
        if token.text not in known:
            close = difflib.get_close_matches(token.text, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "`aitrail schema` lists the fields"
            raise self._wrong(f"there is no field {token.text!r}", token, hint)
        self._fields.add(token.text)
        return known[token.text]

    def _operator(self) -> str:
        if self._took("not", "in"):
            return "not in"
        token = self._next()
        word = _SAME.get(token.text, token.text.lower())
        if token.kind not in ("word", "sign") or word not in _OPERATORS:
            close = difflib.get_close_matches(word, _OPERATORS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_OPERATORS)}"
            raise self._wrong(f"an operator is expected, not {token.text!r}", token, hint)
        return word

    def _listed(self, field: FieldInfo) -> list[Any]:
        if not self._took("("):
            raise self._wrong("'(' is expected behind 'in'", self._tokens[self._place], "in ('one', 'two')")
        values = [self._value(field, "in")]
        while self._took(","):
            values.append(self._value(field, "in"))
        if not self._took(")"):
            raise self._wrong("',' or ')' is expected", self._tokens[self._place], "in ('one', 'two')")
        return values

    def _value(self, field: FieldInfo, operator: str) -> Any:
        token = self._next()
        if field.kind in _NUMBERS:
            if token.kind != "number":
                raise self._wrong(f"{field.name} is compared with a number, not {token.text!r}", token, "e.g. 100")
            return float(token.text) if "." in token.text else int(token.text)
        if field.kind == "boolean":
            if token.kind != "word" or token.text.lower() not in ("true", "false"):
                raise self._wrong(f"{field.name} is true or false, not {token.text!r}", token, "without quotes")
            return token.text.lower() == "true"
        if token.kind != "text":
            raise self._wrong(f"{field.name} is compared with a text", token, f"write it in quotes: {token.text!r}")
        quote = token.text[0]
        value = token.text[1:-1].replace(quote * 2, quote)
        if field.kind == "time":
            return self._time(value, token)
        # Fields that are lower-case always equal no other spelling.
        value = value.lower() if field.lower else value
        if field.enum and operator in ("=", "!=", "in", "not in") and value not in field.enum and value:
            close = difflib.get_close_matches(value, field.enum, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(filter(None, field.enum))}"
            raise self._wrong(f"{field.name} is never {value!r}", token, hint)
        return value

    def _time(self, value: str, token: _Token) -> str:
        try:
            moment = datetime.fromisoformat(value)
            return iso_ms((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            raise self._wrong(f"{value!r} is not a time", token, "e.g. '2026-11-23T09:00:00Z'") from None

    def _wrong(self, what: str, token: _Token, hint: str) -> ConfigError:
        return ConfigError(f"{what} (column {token.at + 1})", where=self._where, hint=hint)


# --- the closures


def _any_of(parts: tuple[Test, ...]) -> Test:
    def test(event: Any) -> bool:
        return any(part(event) for part in parts)

    return test


def _all_of(parts: tuple[Test, ...]) -> Test:
    def test(event: Any) -> bool:
        return all(part(event) for part in parts)

    return test


def _negated(part: Test) -> Test:
    def test(event: Any) -> bool:
        return not part(event)

    return test


def _exists(get: Callable[[Any], Any], absent: str | None) -> Test:
    """Numbers and yes/no are there unless null; texts and lists unless empty."""
    if absent is None:
        return lambda event: get(event) is not None
    return lambda event: bool(get(event))


def _is_in(get: Callable[[Any], Any], values: frozenset[Any]) -> Test:
    return lambda event: get(event) in values


def _ordered(get: Callable[[Any], Any], order: Callable[[Any, Any], bool], bound: Any) -> Test:
    """An absent number or time is neither below nor above anything."""

    def test(event: Any) -> bool:
        value = get(event)
        return value is not None and value != "" and order(value, bound)

    return test


def _equal(get: Callable[[Any], Any], wanted: Any) -> Test:
    return lambda event: get(event) == wanted


def _unequal(get: Callable[[Any], Any], wanted: Any) -> Test:
    return lambda event: get(event) != wanted


def _contains(get: Callable[[Any], Any], wanted: Any) -> Test:
    return lambda event: wanted in get(event)


def _starts(get: Callable[[Any], Any], wanted: str) -> Test:
    return lambda event: get(event).startswith(wanted)


def _one_starts(get: Callable[[Any], Any], wanted: str) -> Test:
    return lambda event: any(one.startswith(wanted) for one in get(event))


# (operator, whether the field is a list) -> what makes its test.
_MAKERS: Mapping[tuple[str, bool], Callable[[Callable[[Any], Any], Any], Test]] = {
    ("=", False): _equal,
    ("!=", False): _unequal,
    ("contains", False): _contains,
    ("contains", True): _contains,
    ("startswith", False): _starts,
    ("startswith", True): _one_starts,
}
