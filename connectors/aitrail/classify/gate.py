"""Matching in steps: one cheap pass over every text, a second one where it pays, RE2 for what can match.

The first pass looks for the rarest literals of the primary patterns, for anchors (words that make a text worth a closer
look) and for the callers' own triggers. Where a primary pattern can match, or an anchor occurs, the second pass
looks for
the literals of all patterns, and RE2 tries those patterns of which no set of literals is missing: the supporting ones
only where a primary one matched or an anchor occurs. The passes rule out and never decide.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import re2

from aitrail.classify.engine import compile_set, re2_options
from aitrail.classify.patterns import Compiled

_WINDOW: Final = 2_000
_WINDOW_OVERLAP: Final = 400


class Budget(msgspec.Struct, gc=False):
    """What one text may cost: searches with RE2, and bytes of decoded layers. Below zero: something was left out."""

    searches: int = 1_200
    decoded: int = 40_000


class Match(msgspec.Struct, frozen=True, gc=False):
    """Pattern ``index`` matches at ``data[start:end]`` (its first match)."""

    index: int
    start: int
    end: int


class _Literals:
    """The literals of some patterns as one set, and for each pattern which of its sets must all be there."""

    def __init__(self, patterns: Iterable[tuple[int, Sequence[Sequence[bytes]]]], engine: str) -> None:
        bits: dict[tuple[bytes, ...], int] = {}
        present: dict[bytes, int] = {}
        owners: dict[bytes, list[tuple[int, int]]] = {}
        # Patterns without a literal can match anywhere.
        self.always: list[int] = []
        for index, sets in patterns:
            need = 0
            for found in sets:
                bit = bits.setdefault(tuple(found), 1 << len(bits))
                need |= bit
                for literal in found:
                    present[literal] = present.get(literal, 0) | bit
            if not sets:
                self.always.append(index)
                continue
            for literal in sets[0]:
                owners.setdefault(literal, []).append((index, need))
        self._bits = list(present.values())
        self._owners = [owners.get(literal, []) for literal in present]
        self.set = compile_set([_escape(literal) for literal in present], engine)

    def candidates(self, data: bytes) -> set[int]:
        """Which patterns can match in ``data``."""
        scanned = self.set.match(data)
        present = 0
        for number in scanned:
            present |= self._bits[number]
        out = set(self.always)
        for number in scanned:
            for index, need in self._owners[number]:
                if present & need == need:
                    out.add(index)
        return out


def _escape(literal: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in literal)


class Gated:
    """Compiled patterns, anchors and triggers. Thread-safe; the same result with every engine."""

    def __init__(
        self,
        patterns: Sequence[Compiled],
        anchors: Sequence[bytes] = (),
        triggers: Sequence[bytes] = (),
        engine: str = "auto",
    ) -> None:
        self._expressions = [pattern.expression for pattern in patterns]
        self._compiled: list[Any] = [None] * len(patterns)
        self._options = re2_options()
        numbered = list(enumerate(patterns))
        self._primary = frozenset(index for index, pattern in numbered if pattern.primary)
        self._rare = _Literals([(i, item.literals[:1]) for i, item in numbered if item.primary], engine)
        self._all = _Literals([(i, item.literals) for i, item in numbered], engine)
        # An anchor is one trigger: which one it was does not matter. Number 0 says that a primary pattern can match.
        joined = [b"|".join(anchors)] if anchors else []
        self._anchor = 1 if joined else -1
        self._trigger_base = 1 + len(joined)
        self._triggers = compile_set([*joined, *triggers], engine)
        self.engine = self._triggers.engine

    def scan(self, data: bytes) -> list[int]:
        """Make the first pass: numbers for the methods below, ascending; empty when nothing is worth a closer look."""
        scanned = [number + 1 for number in self._triggers.match(data)]
        return [0, *scanned] if self._rare.set.match(data) or self._rare.always else scanned

    def triggers(self, scanned: Sequence[int]) -> list[int]:
        """Give the triggers (numbered from 0) among what ``scan`` returned."""
        base = self._trigger_base
        return [number - base for number in scanned if number >= base]

    def anchored(self, scanned: Sequence[int]) -> bool:
        """Whether an anchor is among what ``scan`` returned."""
        return self._anchor in scanned

    def matches(self, scanned: Sequence[int], data: bytes, budget: Budget) -> list[Match]:
        """Find the patterns that occur in ``data``, given what ``scan(data)`` returned; the first match of each.

        ``budget`` bounds the work of a whole text; when it runs out the rest of the patterns is not tried.
        """
        deeper = self._anchor in scanned
        if not deeper and 0 not in scanned:
            return []
        found: dict[int, Match] = {}
        whole = len(data) <= _WINDOW + _WINDOW_OVERLAP
        for start in range(0, max(1, len(data) - _WINDOW_OVERLAP), _WINDOW):
            # In windows, because in a long text every word occurs somewhere and the passes would rule out nothing.
            window = data if whole else data[start : start + _WINDOW + _WINDOW_OVERLAP]
            candidates = self._all.candidates(window)
            self._try(sorted(candidates & self._primary), window, start, found, budget)
            if found or deeper:
                self._try(sorted(candidates - self._primary), window, start, found, budget)
        return list(found.values())

    def _try(self, indexes: Sequence[int], data: bytes, offset: int, found: dict[int, Match], budget: Budget) -> None:
        for index in indexes:
            if index in found:
                continue
            budget.searches -= 1
            if budget.searches < 0:
                return
            span = self.search(index, data)
            if span is not None:
                found[index] = Match(index, span[0] + offset, span[1] + offset)

    def search(self, index: int, data: bytes) -> tuple[int, int] | None:
        """Find the first match of one pattern: its span, or None."""
        compiled = self._compiled[index]
        if compiled is None:
            compiled = self._compiled[index] = re2.compile(self._expressions[index], self._options)
        match = compiled.search(data)
        return match.span() if match is not None else None
