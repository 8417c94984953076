"""What Kibana does with KQL: a parser of the subset that the dialect emits, run on documents as the index holds them.

Written from the Kibana guide, "Kibana Query Language": a condition holds when any value of the field fulfils it,
``not`` is plain negation, quoted values are compared as they are, ``*`` outside of quotes is a wildcard, and a
backslash takes away a character's meaning.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from parity.elastic_engine import TYPES, Row
from parity.expressions import BadQueryError

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<op><=|>=|<|>|:|\(|\))|(?P<word>(?:[^\s():<>"\\]|\\.)+)|(?P<space>\s+)"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
Test = Callable[[Row], bool]


def holds(query: str, row: Row) -> bool:
    """Whether a document fulfils ``query``; every document fulfils the empty one."""
    return not query or parse(query)(row)


def parse(query: str) -> Test:
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise BadQueryError(query[place:])
        if match.lastgroup != "space":
            found.append((str(match.lastgroup), match[0]))
        place = match.end()
    parser = _Parser(found)
    test = parser.either()
    if parser.rest:
        raise BadQueryError(f"{parser.rest[0]} is left over in {query}")
    return test


class _Parser:
    def __init__(self, rest: list[tuple[str, str]]) -> None:
        self.rest = rest

    def _next(self) -> str:
        return self.rest[0][1] if self.rest else ""

    def _take(self) -> tuple[str, str]:
        if not self.rest:
            raise BadQueryError("it ends too early")
        return self.rest.pop(0)

    def either(self) -> Test:
        tests = [self._both()]
        while self._next() == "or":
            self._take()
            tests.append(self._both())
        return lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._next() == "and":
            self._take()
            tests.append(self._one())
        return lambda row: all(test(row) for test in tests)

    def _one(self) -> Test:
        if self._next() == "not":
            self._take()
            inner = self._one()
            return lambda row: not inner(row)
        if self._next() == "(":
            self._take()
            test = self.either()
            self._close()
            return test
        kind, name = self._take()
        if kind != "word" or (name not in TYPES and name != "data_stream.dataset"):
            raise BadQueryError(f"unknown field {name}")
        _, sign = self._take()
        if sign != ":":
            bound = float(self._take()[1])
            return lambda row: any(_COMPARE[sign](one, bound) for one in values(row, name))
        wanted = self._values()
        return lambda row: any(test(one) for one in values(row, name) for test in wanted)

    def _values(self) -> list[Callable[[Any], bool]]:
        if self._next() != "(":
            return [_value(*self._take())]
        self._take()
        found = [_value(*self._take())]
        while self._next() == "or":
            self._take()
            found.append(_value(*self._take()))
        self._close()
        return found

    def _close(self) -> None:
        if self._take()[1] != ")":
            raise BadQueryError("a bracket is not closed")


def values(row: Row, name: str) -> list[Any]:
    held = row.get(name)
    return held if isinstance(held, list) else [] if held is None else [held]


def _value(kind: str, token: str) -> Callable[[Any], bool]:
    if kind == "op":
        raise BadQueryError(f"{token} where a value is wanted")
    if kind == "text":
        text = re.sub(r'\\(["\\])', r"\1", token[1:-1])
        return lambda one: _same(one, text)
    if token in ("and", "or", "not"):
        raise BadQueryError(f"{token} where a value is wanted")
    pieces = re.findall(r"\\.|.", token)
    pattern = "".join(".*" if piece == "*" else re.escape(piece[-1]) for piece in pieces)
    return lambda one: re.fullmatch(pattern, _written(one), re.DOTALL) is not None


def _same(one: Any, text: str) -> bool:
    if "/" in text and not isinstance(one, str | int | float):
        return one in ipaddress.ip_network(text)
    return _written(one) == text


def _written(one: Any) -> str:
    return str(one).lower() if isinstance(one, bool) else str(one)
