"""What every match of an expression must contain: the words to look for before the expression itself is tried.

From an expression follow sets of small expressions, literals with what must touch them, of which every match contains
at least one per set. The matcher looks for all of them at once and rules out what lacks one. How often everyday text
contains them is estimated by ``content/patterns/common_words.txt``; the estimate decides about speed, and about which
patterns are looked for everywhere.
"""

import math
import re._constants as op  # type: ignore[import-not-found,unused-ignore]
import re._parser as sre  # type: ignore[import-not-found,unused-ignore]
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from aitrail.contentdir import content_path

_SHORTEST: Final = 3
# With a word's end on both sides.
_SHORTEST_WORD: Final = 2
# Short words in a row, with the spaces.
_SHORTEST_PHRASE: Final = 6
# Marks that are worth looking for alone.
_MARKS: Final = frozenset(b"=+|{}")
# Guessed occurrences in a million words of a literal that no common word contains, by its length.
_TAIL: Final = {2: 9000.0, 3: 2500.0, 4: 120.0, 5: 25.0, 6: 8.0}
# How much rarer a row of words is than its rarest word, a guess.
_PHRASE_FACTOR: Final = 10.0
# What stands between words in pattern files; see ``patterns.SEPARATOR``.
EDGE: Final = rb"[^0-9a-z\x80-\xff]"
_BOUNDARY: Final = rb"\b"
_ANY: Final = frozenset(range(256))
_DIGITS: Final = frozenset(b"0123456789")
_PRINTABLE: Final = frozenset(range(0x21, 0x7F))


class Part(msgspec.Struct, frozen=True, gc=False, order=True):
    """A small expression that a match contains, and the words in it parted by spaces."""

    expression: bytes
    words: bytes


Parts = frozenset[Part]


def common_words() -> Iterable[str]:
    """Everyday words, most of them English."""
    return _common_words()[1]


@lru_cache(maxsize=1)
def _common_words() -> tuple[str, dict[str, float]]:
    counts: dict[str, float] = {}
    for line in content_path("patterns", "common_words.txt").read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith("#"):
            word, _, count = line.partition(" ")
            counts[word] = float(count)
    return "\n".join(["", *counts, ""]), counts


@lru_cache(maxsize=16384)
def frequency(literal: bytes) -> float:
    """Estimate how often ``literal`` occurs in a million words of everyday text, inside other words too."""
    text = literal.decode("latin-1").strip()
    total = _TAIL.get(len(text), 2.0) if text.isalpha() and text.isascii() else 5.0
    joined, counts = _common_words()
    at = joined.find(text) if text else -1
    while at >= 0:
        end = joined.index("\n", at)
        total += counts[joined[joined.rindex("\n", 0, at + 1) + 1 : end]]
        at = joined.find(text, end)
    return total


def _is_separator(node: tuple[Any, Any]) -> bool:
    kind, value = node
    if kind not in (op.MAX_REPEAT, op.MIN_REPEAT) or value[0] < 1 or len(value[2]) != 1:
        return False
    inner, items = value[2][0]
    return inner is op.IN and list(items) == _SEPARATOR_ITEMS


_SEPARATOR_ITEMS: Final = list(sre.parse(EDGE.decode("latin-1") + "{1,2}")[0][1][2][0][1])


def _edge(node: tuple[Any, Any] | None) -> bytes:
    """What must touch a literal on the side of ``node``: a separator, a word's end, or anything."""
    if node is None:
        return b""
    if node[0] is op.AT:
        return _BOUNDARY if node[1] is op.AT_BOUNDARY else b""
    return EDGE if _is_separator(node) else b""


class _Run:
    """A literal that is being read, with single separators in it."""

    def __init__(self, left: bytes) -> None:
        self.left = left
        self._expression = b""
        self._words = bytearray()
        self._longest = self._length = 0

    def add(self, byte: int) -> None:
        self._expression += b"\\x%02x" % byte
        self._words.append(byte)
        self._length += 1
        self._longest = max(self._longest, self._length)

    def space(self) -> None:
        self._expression += EDGE + b"{1,4}"
        self._words.append(32)
        self._length = 0

    def __bool__(self) -> bool:
        return bool(self._expression)

    def part(self, right: bytes) -> Part | None:
        """What was read, if it is long enough to be worth looking for."""
        whole = bool(self.left and right) and len(self._words) >= _SHORTEST_WORD
        enough = whole or self._longest >= _SHORTEST or len(self._words) >= _SHORTEST_PHRASE
        if not enough and not _MARKS.intersection(self._words):
            return None
        # Hyperscan allows no word end at the end of an expression that others refer to: it is left out.
        return Part(self.left + self._expression + (b"" if right == _BOUNDARY else right), bytes(self._words))


def _conjunction(nodes: Sequence[tuple[Any, Any]], left: bytes, right: bytes) -> list[Parts]:
    """The sets of parts that a match of the concatenation ``nodes`` must contain, one of each set."""
    found: list[Parts] = []
    run = _Run(left)

    def close(edge: bytes) -> None:
        nonlocal run
        part = run.part(edge) if run else None
        if part is not None:
            found.append(frozenset((part,)))
        run = _Run(edge)

    last = len(nodes) - 1
    for index, node in enumerate(nodes):
        kind, value = node
        if kind is op.LITERAL:
            run.add(value)
            continue
        if run and index < last and _is_separator(node) and nodes[index + 1][0] is op.LITERAL:
            run.space()
            continue
        close(_edge(node))
        before = _edge(nodes[index - 1]) if index else left
        after = _edge(nodes[index + 1]) if index < last else right
        if kind is op.SUBPATTERN:
            found += _conjunction(list(value[3]), before, after)
        elif kind is op.BRANCH:
            found += _branch([_conjunction(list(alternative), before, after) for alternative in value[1]])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT) and value[0] >= 1:
            found += _conjunction(list(value[2]), b"", b"")
    close(right)
    return found


def _branch(alternatives: Sequence[Sequence[Parts]]) -> list[Parts]:
    """One of the alternatives matches: the union of each one's best set, if every one has a set."""
    if not all(alternatives):
        return []
    return [frozenset().union(*(min(sets, key=rarity) for sets in alternatives))]


@lru_cache(maxsize=16384)
def _part_rarity(words: bytes) -> float:
    parts = [word for word in words.split(b" ") if len(word) >= _SHORTEST_WORD]
    least = min((frequency(word) for word in parts), default=_TAIL[_SHORTEST_WORD])
    return least / _PHRASE_FACTOR if b" " in words else least


def rarity(parts: Iterable[Part]) -> float:
    """Estimate how often one of ``parts`` occurs in a million words."""
    # An exact sum: the order of a set differs from run to run, and what is chosen must not.
    return math.fsum(_part_rarity(part.words) for part in parts)


def _expressions(parts: Parts) -> tuple[bytes, ...]:
    """The parts' expressions without those that contain another one: it occurs whenever they do."""
    out: list[bytes] = []
    for expression in sorted({part.expression for part in parts}, key=lambda item: (len(item), item)):
        if not any(shorter in expression for shorter in out):
            out.append(expression)
    return tuple(sorted(out))


Sets = list[tuple[float, tuple[bytes, ...]]]


def required(expression: bytes) -> list[Sets]:
    """What matches of ``expression`` must contain, for each of the alternatives that it is made of.

    An alternative is a list of sets of expressions, with their rarity and rarest first; a match contains one expression
    of each set.
    """
    return [_sets(found) for found in _alternatives(_parsed(expression))]


def _sets(found: Iterable[Parts]) -> Sets:
    sets = {_expressions(parts): rarity(parts) for parts in found}
    return sorted((rare, expressions) for expressions, rare in sets.items())


def _alternatives(nodes: Any) -> list[list[Parts]]:
    """The alternatives of an expression that is nothing but alternatives between edges; else itself alone."""
    left = right = b""
    rest = list(nodes)
    while rest:
        if rest[0][0] is op.AT:
            left = _edge(rest.pop(0))
        elif rest[-1][0] is op.AT:
            right = _edge(rest.pop())
        elif len(rest) == 1 and rest[0][0] is op.SUBPATTERN:
            rest = list(rest[0][1][3])
        else:
            break
    if len(rest) == 1 and rest[0][0] is op.BRANCH:
        return [_conjunction(list(alternative), left, right) for alternative in rest[0][1][1]]
    return [_conjunction(list(nodes), b"", b"")]


def _parsed(expression: bytes) -> Any:
    return sre.parse(expression.decode("latin-1"))


def least_digits(expression: bytes) -> int:
    """How many digits every match of ``expression`` contains at least."""
    return _digits(_parsed(expression))


def _digits(nodes: Iterable[tuple[Any, Any]]) -> int:
    total = 0
    for kind, value in nodes:
        if kind is op.LITERAL:
            total += value in _DIGITS
        elif kind is op.IN:
            total += _members(value) <= _DIGITS
        elif kind is op.SUBPATTERN:
            total += _digits(value[3])
        elif kind is op.BRANCH:
            total += min(_digits(alternative) for alternative in value[1])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            total += value[0] * _digits(value[2])
    return total


def least_run(expression: bytes) -> int:
    """How long a run of printable ASCII without spaces every match of ``expression`` contains at least."""
    length, longest = _run(_parsed(expression))
    return max(length or 0, longest)


def _run(nodes: Iterable[tuple[Any, Any]]) -> tuple[int | None, int]:
    """The least length if every match is one run, else None; and the longest run that every match contains."""
    current = longest = 0
    pure = True
    for kind, value in nodes:
        length: int | None
        inner = 0
        if kind is op.LITERAL:
            length = 1 if value in _PRINTABLE else None
        elif kind is op.IN:
            length = 1 if _members(value) <= _PRINTABLE else None
        elif kind is op.SUBPATTERN:
            length, inner = _run(value[3])
        elif kind is op.BRANCH:
            each = [_run(alternative) for alternative in value[1]]
            lengths = [one for one, _ in each if one is not None]
            length = min(lengths) if len(lengths) == len(each) else None
            inner = min(max(one or 0, other) for one, other in each)
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            once, inner = _run(value[2])
            length = None if once is None else once * value[0]
            inner = inner if value[0] else 0
        else:
            length = 0 if kind is op.AT else None
        longest = max(longest, inner)
        if length is None:
            pure, current = False, 0
        else:
            current += length
        longest = max(longest, current)
    return (current if pure else None), longest


def _members(items: Iterable[tuple[Any, Any]]) -> frozenset[int]:
    """The bytes of a class; all of them where that is not plain to see."""
    found: set[int] = set()
    for kind, value in items:
        if kind is op.LITERAL:
            found.add(value)
        elif kind is op.RANGE:
            found.update(range(value[0], value[1] + 1))
        else:
            return _ANY
    return frozenset(found)
