"""A parser of the expressions of the three languages that have no engine outside their servers: ES|QL, EQL and SPL.

It takes the subset that the dialects emit and refuses all else. Trees are tuples: ("lit", value), ("name", n),
("call", function, arguments), ("not", x), ("and"|"or"|<operator>, a, b), ("in"|"in~", a, values), ("isnull", a, bool).
"""

import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)"""
    r"""|`(?P<quoted>[a-z]+)`|(?P<word>[A-Za-z_@][\w@.]*~?)|(?P<op>==|!=|<=|>=|<|>|=|\+|-|\*|/|\.|\(|\)|,|\[|\]|`)|(?P<space>\s+)"""
)
Tokens = list[tuple[str, str]]
# Spans of time in milliseconds, as ES|QL writes them.
UNITS = {"minutes": 60_000, "hour": 3_600_000, "day": 86_400_000}


class BadQueryError(Exception):
    """The text is not of the subset."""


def tokens(text: str) -> Tokens:
    found: Tokens = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise BadQueryError(f"cannot read {text[place : place + 20]!r}")
        if match.lastgroup == "quoted":
            found.append(("word", match[0][1:-1]))
        elif match.lastgroup != "space":
            found.append((str(match.lastgroup), match[0]))
        place = match.end()
    return found


def stages(text: str) -> list[str]:
    """Split at the pipes outside of quotes."""
    return [part.strip() for part in re.findall(r'(?:[^|"]|"(?:[^"\\]|\\.)*")+', text)]


class Parser:
    """Recursive descent over the tokens of one expression or list."""

    def __init__(self, found: Tokens, unquote: Callable[[str], str]) -> None:
        self._tokens, self._place, self._unquote = found, 0, unquote

    @property
    def done(self) -> bool:
        return self._place == len(self._tokens)

    def peek(self, ahead: int = 0) -> str:
        place = self._place + ahead
        return self._tokens[place][1] if place < len(self._tokens) else ""

    def take(self, *wanted: str) -> str:
        """Take the next token, when it is one of ``wanted``; else fail."""
        token = self.peek()
        if wanted and token not in wanted:
            raise BadQueryError(f"{token!r} where one of {wanted} is wanted")
        self._place += 1
        return token

    def word(self) -> str:
        if self.done or self._tokens[self._place][0] != "word":
            raise BadQueryError(f"{self.peek()!r} is not a name")
        return self.take()

    def taken(self, *wanted: str) -> bool:
        """Take the next token when it is one of ``wanted``; in capitals or, in EQL, small letters."""
        if self.peek() in wanted or self.peek().upper() in wanted:
            self._place += 1
            return True
        return False

    def text(self) -> str:
        kind, token = self._tokens[self._place] if not self.done else ("", "")
        if kind != "text":
            raise BadQueryError(f"{token!r} is not a string")
        self._place += 1
        return self._unquote(token[1:-1])

    def expression(self) -> Any:
        left = self._both()
        while self.taken("OR"):
            left = ("or", left, self._both())
        return left

    def _both(self) -> Any:
        left = self._negated()
        while self.taken("AND"):
            left = ("and", left, self._negated())
        return left

    def _negated(self) -> Any:
        return ("not", self._negated()) if self.taken("NOT") else self._comparison()

    def _comparison(self) -> Any:
        left = self._sum()
        if self.taken("IS"):
            negative = self.taken("NOT")
            self.take("NULL")
            return ("isnull", left, not negative)
        for word in ("LIKE", "RLIKE"):
            if self.taken(word):
                return (word.lower(), left, self.text())
        for word in ("in", "in~"):
            if self.peek() in (word, word.upper()):
                self.take()
                return (word, left, self.arguments())
        if self.peek() in ("==", "!=", "<", "<=", ">", ">=", "="):
            operator = self.take()
            return (operator, left, self._sum())
        return left

    def _sum(self) -> Any:
        left = self._product()
        while self.peek() in ("+", "-", "."):
            left = (self.take(), left, self._product())
        return left

    def _product(self) -> Any:
        left = self._primary()
        while self.peek() in ("*", "/"):
            left = (self.take(), left, self._primary())
        return left

    def arguments(self) -> list[Any]:
        self.take("(")
        found: list[Any] = []
        while self.peek() != ")":
            found.append(("lit", "*") if self.taken("*") else self.expression())
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        return found

    def _primary(self) -> Any:
        if self.done:
            raise BadQueryError("the expression ends too early")
        kind, token = self._tokens[self._place]
        if kind == "text":
            return ("lit", self.text())
        if kind == "number":
            self.take()
            if self.peek() in UNITS:
                return ("lit", int(token) * UNITS[self.take()])
            return ("lit", float(token) if "." in token or "e" in token else int(token))
        if token == "-":
            self.take()
            return ("-", ("lit", 0), self._primary())
        if token == "(":
            self.take()
            inner = self.expression()
            self.take(")")
            return inner
        name = self.word()
        if self.peek() == "(":
            return ("call", name, self.arguments())
        if name in ("true", "false", "null"):
            return ("lit", {"true": True, "false": False, "null": None}[name])
        return ("name", name)
