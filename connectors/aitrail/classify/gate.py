"""Matching in steps: one cheap pass over every text, a second one where it pays, RE2 for what can match.

The first pass looks for anchors (words that make a text worth a closer look), for the callers' own triggers, and for
what the matches of primary patterns must contain. RE2 tries the primary patterns of which nothing is missing. Where one
of them matched or an anchor occurs, the second pass does the same for the supporting patterns; in short texts a further
one looks for patterns of everyday words right away. The passes rule out and never decide.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import re2

from aitrail.classify.engine import compile_set, re2_options
from aitrail.classify.patterns import Compiled
from aitrail.classify.rarity import EDGE

_WINDOW: Final = 2_000
_WINDOW_OVERLAP: Final = 400
# Up to this size, in bytes, a text is searched for patterns of everyday words even if nothing else stands out.
_SHORT: Final = 400
# RE2's automaton cache per expression, in bytes: with less, the larger ones start over again and again.
_RE2_MEMORY: Final = 8 << 20
# Stands for the anchors where there are none.
_NEVER: Final = rb"\x00no anchor\x00"


class Budget(msgspec.Struct, gc=False):
    """What one text may cost: bytes searched with RE2, bytes of decoded layers. Below zero: something was left out."""

    searched: int = 1_500_000
    decoded: int = 40_000


class Match(msgspec.Struct, frozen=True, gc=False):
    """Pattern ``index`` matches at ``data[start:end]`` (its first match)."""

    index: int
    start: int
    end: int


_HIGH: Final = re.compile(rb"\\x[89a-f]")


def _is_foreign(gates: Sequence[Sequence[Sequence[bytes]]]) -> bool:
    """Whether whatever passes one of ``gates`` holds a byte beyond ASCII."""
    return bool(gates) and all(
        any(all(_HIGH.search(one.replace(EDGE, b"")) is not None for one in condition) for condition in alternative)
        for alternative in gates
    )


class Gated:
    """Compiled patterns, anchors and triggers. Thread-safe; the same result with every engine.

    Args:
        triggers: what callers want to know of, by number; the first ``judging`` ones are not looked for in answers.
        answering: signals of the patterns that are looked for in answers, whether primary or not.
    """

    def __init__(
        self,
        patterns: Sequence[Compiled],
        anchors: Sequence[bytes] = (),
        triggers: Sequence[bytes] = (),
        engine: str = "auto",
        answering: Collection[str] = (),
        judging: int = 0,
    ) -> None:
        self._expressions = [pattern.expression for pattern in patterns]
        self._concepts = [pattern.concept.name for pattern in patterns]
        self._compiled: list[Any] = [None] * len(patterns)
        self._options = re2_options(memory=_RE2_MEMORY)
        primary = [index for index, pattern in enumerate(patterns) if pattern.primary]
        other = [index for index, pattern in enumerate(patterns) if not pattern.primary]
        # Patterns of which nothing is required can match anywhere.
        self._always = [index for index in other if not patterns[index].gates]
        self._supporting = [index for index in other if patterns[index].gates]
        self._primary = frozenset(primary)
        self._answers = frozenset(
            index for index, pattern in enumerate(patterns) if pattern.concept.signal in answering
        )
        # An anchor is one trigger: which one it was does not matter.
        joined = b"|".join(anchors) or _NEVER
        # Behind the anchor and the triggers: the patterns whose gates the first pass holds.
        self._gates_base = 1 + len(triggers)
        self._gated = [*primary, *(index for index in self._supporting if index in self._answers)]
        # Patterns of everyday words that stand for themselves: in short texts they are looked for at once.
        everyday = [index for index in self._supporting if patterns[index].brief]
        # Patterns of other scripts, whose matches hold a byte beyond ASCII: most texts need not be searched for them.
        foreign = [index for index in primary if _is_foreign(patterns[index].gates)]
        self._gated = [index for index in self._gated if index not in set(foreign) - self._answers]
        foreign = [index for index in foreign if index not in self._answers]
        self._primary |= frozenset(everyday)
        self._everyday_base = self._gates_base + len(self._gated)
        self._foreign_base = self._everyday_base + len(everyday)
        # Answers, and what is not judged for injection, get a smaller pass; its numbers are translated.
        kept = [number for number, index in enumerate(self._gated) if index in self._answers]
        self._numbers = [*range(1 + judging, self._gates_base), *(self._gates_base + number for number in kept)]
        wanted: tuple[tuple[Sequence[bytes], Sequence[int]], ...] = (
            ([joined, *triggers], self._gated),
            ([], self._supporting),
            (triggers[judging:], [self._gated[number] for number in kept]),
            ([], everyday),
            ([], foreign),
        )
        self._gated = [*self._gated, *everyday, *foreign]
        with ThreadPoolExecutor(len(wanted)) as pool:  # Hyperscan compiles without holding up other threads
            self._first, self._second, self._third, self._everyday, self._foreign = pool.map(
                lambda one: compile_set(one[0], engine, [patterns[index].gates for index in one[1]]), wanted
            )
        self.engine = self._first.engine

    def scan(self, data: bytes) -> list[int]:
        """Make the first pass: numbers for the methods below, ascending; empty when nothing is worth a closer look."""
        found = self._first.match(data)
        if len(data) <= _SHORT:
            base = self._everyday_base
            found += [base + number for number in self._everyday.match(data)]
        if not data.isascii():
            base = self._foreign_base
            found += [base + number for number in self._foreign.match(data)]
        return found

    def scan_answer(self, data: bytes) -> list[int]:
        """Make the first pass over an answer or an instruction: without anchors and the first triggers."""
        numbers = self._numbers
        return [numbers[number] for number in self._third.match(data)]

    def triggers(self, scanned: Sequence[int]) -> list[int]:
        """Give the triggers (numbered from 0) among what ``scan`` returned."""
        base = self._gates_base
        return [number - 1 for number in scanned if 0 < number < base]

    @staticmethod
    def trigger_number(trigger: int) -> int:
        """How ``scan`` numbers a trigger."""
        return 1 + trigger

    @staticmethod
    def anchored(scanned: Sequence[int]) -> bool:
        """Whether an anchor is among what ``scan`` returned."""
        return bool(scanned) and scanned[0] == 0

    def worth(self, scanned: Sequence[int]) -> bool:
        """Whether, going by what ``scan`` returned, a pattern can match."""
        return bool(scanned) and (scanned[0] == 0 or scanned[-1] >= self._gates_base)

    def matches(self, scanned: Sequence[int], data: bytes, budget: Budget, known: Collection[str] = ()) -> list[Match]:
        """Find the patterns that occur in ``data``, given what ``scan(data)`` returned; the first match of each.

        Concepts in ``known`` are not looked for again. ``budget`` bounds the work of a whole text; when it runs out the
        rest of the patterns is not tried.
        """
        deeper = self.anchored(scanned) or bool(known)
        if not deeper and not self.worth(scanned):
            return []
        found: dict[int, Match] = {}
        for start, window, numbers in self._windows(scanned, data, self.scan):
            self._try(self._candidates(numbers, self._primary), window, start, found, budget, known)
            if found or deeper:
                others = [self._supporting[number] for number in self._second.match(window)]
                self._try([*self._always, *others], window, start, found, budget, known)
        return list(found.values())

    def answers(self, scanned: Sequence[int], data: bytes, budget: Budget) -> list[Match]:
        """Do the same for a model's answer: only for the patterns of the signals that count there."""
        found: dict[int, Match] = {}
        if scanned and scanned[-1] >= self._gates_base:
            for start, window, numbers in self._windows(scanned, data, self.scan_answer):
                self._try(self._candidates(numbers, self._answers), window, start, found, budget, ())
        return list(found.values())

    @staticmethod
    def _windows(
        scanned: Sequence[int], data: bytes, scan: Callable[[bytes], list[int]]
    ) -> Iterator[tuple[int, bytes, Sequence[int]]]:
        """Give offset, bytes and first pass of each window: in a long text every word occurs somewhere."""
        if len(data) <= _WINDOW + _WINDOW_OVERLAP:
            yield 0, data, scanned
            return
        for start in range(0, len(data) - _WINDOW_OVERLAP, _WINDOW):
            window = data[start : start + _WINDOW + _WINDOW_OVERLAP]
            yield start, window, scan(window)

    def _candidates(self, scanned: Sequence[int], wanted: Collection[int]) -> list[int]:
        base = self._gates_base
        return [index for number in scanned if number >= base and (index := self._gated[number - base]) in wanted]

    def _try(
        self,
        indexes: Sequence[int],
        data: bytes,
        offset: int,
        found: dict[int, Match],
        budget: Budget,
        known: Collection[str],
    ) -> None:
        for index in indexes:
            if index in found or self._concepts[index] in known:
                continue
            budget.searched -= len(data)
            if budget.searched < 0:
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
