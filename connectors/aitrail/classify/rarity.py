"""Which literals of an expression are rare: what the first pass looks for instead of the expression itself.

From an expression follow sets of literals of which each match contains at least one per set. How often everyday
text contains them is estimated by ``content/patterns/common_words.txt``. The estimate decides about speed only.
"""

import re._constants as op  # type: ignore[import-not-found,unused-ignore]
import re._parser as sre  # type: ignore[import-not-found,unused-ignore]
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from aitrail.contentdir import content_path

_SHORTEST: Final = 3
# Guessed occurrences in a million words of a literal that no common word contains, by its length.
_TAIL: Final = {3: 2500.0, 4: 120.0, 5: 25.0, 6: 8.0}


@lru_cache(maxsize=1)
def _common_words() -> tuple[tuple[str, float], ...]:
    words: list[tuple[str, float]] = []
    for line in content_path("patterns", "common_words.txt").read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith("#"):
            word, _, count = line.partition(" ")
            words.append((word, float(count)))
    return tuple(words)


@lru_cache(maxsize=16384)
def frequency(literal: bytes) -> float:
    """Estimate how often ``literal`` occurs in a million words of everyday text, inside other words too."""
    text = literal.decode("latin-1").strip()
    tail = _TAIL.get(len(text), 2.0) if text.isalpha() and text.isascii() else 5.0
    return tail + sum(count for word, count in _common_words() if text in word)


def _sets(nodes: Any) -> list[frozenset[bytes]]:
    """The sets of literals that a match of the concatenation ``nodes`` must contain, one of each set."""
    found: list[frozenset[bytes]] = []
    run = bytearray()
    for kind, value in [*nodes, (op.ANY, None)]:
        if kind is op.LITERAL:
            run.append(value)
            continue
        if len(run) >= _SHORTEST:
            found.append(frozenset((bytes(run),)))
        run.clear()
        if kind is op.SUBPATTERN:
            found += _sets(value[3])
        elif kind is op.BRANCH:
            found += _branch(value[1])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT) and value[0] >= 1:
            found += _sets(value[2])
    return found


def _branch(alternatives: Sequence[Any]) -> list[frozenset[bytes]]:
    """One of the alternatives matches: the union of each one's best set, if every one has a set."""
    union: set[bytes] = set()
    for alternative in alternatives:
        best = min(_sets(alternative), key=_total, default=None)
        if best is None:
            return []
        union |= best
    return [frozenset(union)]


def _total(literals: frozenset[bytes]) -> float:
    return sum(frequency(literal) for literal in literals)


def literal_sets(expression: bytes) -> list[tuple[float, frozenset[bytes]]]:
    """Return the sets of literals of ``expression`` with their counts in a million words, the rarest first."""
    sets = {found: _total(found) for found in _sets(sre.parse(expression.decode("latin-1")))}
    return sorted(((total, found) for found, total in sets.items()), key=lambda item: (item[0], sorted(item[1])))
