"""Matching in steps: one cheap pass over every text, a second one where it pays, RE2 for the few patterns that can match.

The first pass looks for the rare parts of the primary patterns, for anchors (words that make a text worth a closer look)
and for the callers' own triggers. Only where a primary pattern really matched, or an anchor occurs, does the second pass
look for the parts of the supporting patterns. The passes never change what RE2 then decides: the part that they look for
is contained in every match of its pattern.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import re2

from aitrail.classify.engine import compile_set, re2_options
from aitrail.classify.patterns import Compiled


class Match(msgspec.Struct, frozen=True, gc=False):
    """Pattern ``index`` matches at ``data[start:end]`` (its first match)."""

    index: int
    start: int
    end: int


class _Pass:
    """The literals of some patterns as one set, and for each pattern which sets of them must occur."""

    def __init__(self, patterns: Sequence[tuple[int, Compiled]], extra: Sequence[bytes], engine: str) -> None:
        bits: dict[tuple[bytes, ...], int] = {}
        literals: dict[bytes, int] = {}
        # Patterns by the bit of their rarest set, each with the bits of its other sets.
        self._owners: dict[int, list[tuple[int, int]]] = {}
        self._always = [index for index, pattern in patterns if not pattern.literals]
        for index, pattern in patterns:
            need = 0
            first = 0
            for found in pattern.literals:
                bit = bits.setdefault(found, 1 << len(bits))
                need |= bit
                first = first or bit
                for literal in found:
                    literals[literal] = literals.get(literal, 0) | bit
            if first:
                self._owners.setdefault(first, []).append((index, need))
        self._bits = list(literals.values())
        self.count = len(literals)
        self.set = compile_set([*(_escape(literal) for literal in literals), *extra], engine)

    def candidates(self, scanned: Sequence[int]) -> list[int]:
        """Which patterns can match, given what the set found."""
        count = self.count
        present = 0
        for number in scanned:
            if number < count:
                present |= self._bits[number]
        out = list(self._always)
        for first, owners in self._owners.items():
            if present & first:
                out += [index for index, need in owners if present & need == need]
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
        numbered = list(enumerate(patterns))
        # An anchor is one trigger: which one it was does not matter.
        joined = [b"|".join(anchors)] if anchors else []
        self._first = _Pass([item for item in numbered if item[1].primary], [*joined, *triggers], engine)
        self._second = _Pass([item for item in numbered if not item[1].primary], (), engine)
        self._anchor = self._first.count if joined else -1
        self._trigger_base = self._first.count + len(joined)
        self.engine = self._first.set.engine
        self.scan = self._first.set.match

    def triggers(self, scanned: Sequence[int]) -> list[int]:
        """Give the triggers (numbered from 0) among what ``scan`` returned."""
        base = self._trigger_base
        return [number - base for number in scanned if number >= base]

    def anchored(self, scanned: Sequence[int]) -> bool:
        """Whether an anchor is among what ``scan`` returned."""
        return self._anchor in scanned

    def matches(self, scanned: Sequence[int], data: bytes) -> list[Match]:
        """Find the patterns that occur in ``data``, given what ``scan(data)`` returned; the first match of each."""
        if not scanned:
            return []
        found: list[Match] = []
        deeper = self._anchor in scanned
        if scanned[0] < self._first.count:
            self._try(self._first.candidates(scanned), data, found)
        if found or deeper:
            self._try(self._second.candidates(self._second.set.match(data)), data, found)
        return found

    def _try(self, indexes: Sequence[int], data: bytes, found: list[Match]) -> None:
        for index in indexes:
            span = self.search(index, data)
            if span is not None:
                found.append(Match(index, *span))

    def search(self, index: int, data: bytes) -> tuple[int, int] | None:
        """Find the first match of one pattern: its span, or None."""
        compiled = self._compiled[index]
        if compiled is None:
            compiled = self._compiled[index] = re2.compile(self._expressions[index], re2_options())
        match = compiled.search(data)
        return match.span() if match is not None else None
