"""Finding prompt injection in one text: fold, one pass, decode what is encoded, search again, weigh.

Long texts are judged piece by piece, so that time and memory stay bounded and scattered harmless words of a long
document
do not add up; the piece with the strongest evidence decides.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import re2

from aitrail.classify import decode as decoding
from aitrail.classify import hidden, patterns
from aitrail.classify.engine import re2_options
from aitrail.classify.fold import Folded, fold, skeleton
from aitrail.classify.gate import Budget, Gated, Match
from aitrail.classify.lexicon import lexicon_concepts
from aitrail.classify.scoring import noisy_or

PIECE: Final = 8_000
OVERLAP: Final = 500
# Pieces of one text that are searched beyond the first pass; the rest only gets the pass.
MAX_DEEP_PIECES: Final = 24

# Evidence that is not a pattern: (group, signal, weight).
_HIDDEN_TEXT: Final = ("hidden_text", "hidden", "obfuscation", 0.86)
_DISGUISED: Final = ("disguised_attack", "obfuscation", "obfuscation", 0.65)
_DECEPTION: Final = ("deceptive_characters", "obfuscation", "obfuscation", 0.5)
_HIDDEN_MARKUP: Final = ("hidden_active_markup", "hidden_markup", "obfuscation", 0.5)
_ACTIVE = re.compile(
    rb"<script|javascript:|<i?frame |\bon(?:error|load|click|mouseover|focus)\s*=|document\.(?:cookie|location)|"
    rb"\b(?:alert|eval|fromcharcode)\(|expression\(alert|xss:"
)
# Encodings that markup is written in for reasons of its own.
_OF_MARKUP: Final = frozenset(("url", "html_entity", "escape", "quoted_printable", "misspelt", "joined", "leet"))
_HIDDEN_REQUEST: Final = ("disguised_request", "hidden_request", "obfuscation", 0.3)
# How much more a sign of indirect injection weighs in a tool result than in what a user typed.
_TOOL_FACTOR: Final = 1.35
_MAX_WEIGHT: Final = 0.95
# Weight from which a concept in a decoded text says that the disguise was meant for it.
_TELLING: Final = 0.3
# Shorter texts are searched whole after decoding.
_SHORT: Final = 800
_RESPELLED: Final = frozenset(
    ("leet", "spaced", "pig_latin", "bracketed_letters", "nato", "reverse", "reverse_words", "scrambled",
     "misspelt", "joined", "word_order", "drawn_letters", "rot47")
)  # fmt: skip
# Layers that say nothing about an intent: anyone mistypes.
_INNOCENT: Final = frozenset(("misspelt",))


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One piece of evidence with what it counts; offsets are into the text."""

    concept: str
    group: str
    signal: str
    weight: float
    layer: str
    start: int
    end: int


class Judged(msgspec.Struct, frozen=True, gc=False):
    """What was found in one text."""

    score: float
    findings: tuple[Finding, ...]
    truncated: bool


NOTHING: Final = Judged(0.0, (), False)


class Injection:
    """The compiled pattern set and the way it is applied. Thread-safe."""

    def __init__(
        self,
        triggers: Sequence[bytes] = (),
        folder: Path | None = None,
        engine: str = "auto",
        answering: Collection[str] = (),
    ) -> None:
        macros = patterns.load_macros(folder)
        self.concepts = [*patterns.load_concepts(folder), *lexicon_concepts(folder)]
        self.compiled = patterns.prepare_concepts(self.concepts, macros)
        exceptions = {one.name: patterns.exception_of(one, macros) for one in self.concepts if one.unless}
        self._exceptions = {name: re2.compile(expression, re2_options()) for name, expression in exceptions.items()}
        anchors = patterns.compile_anchors(patterns.load_anchors(folder))
        self._decoders = len(decoding.TRIGGERS)
        self.decoders = decoding.Decoders(engine)
        # Of the decoders' triggers only the last one means something to others.
        judging = decoding.LONG_RUN_TRIGGER
        self.gated = Gated(self.compiled, anchors, [*decoding.TRIGGERS, *triggers], engine, answering, judging)

    def outside(self, scanned: Sequence[int]) -> list[int]:
        """Which of the caller's triggers fired, numbered from 0."""
        return [number - self._decoders for number in self.gated.triggers(scanned) if number >= self._decoders]

    @staticmethod
    def has_long_run(scanned: Sequence[int]) -> bool:
        """Whether the text holds ``decode.LONG_RUN`` printable characters in a row."""
        return Gated.trigger_number(decoding.LONG_RUN_TRIGGER) in scanned

    def is_plain(self, folded: Folded, scanned: Sequence[int]) -> bool:
        """Whether there is nothing to judge: no pattern can match and nothing can be decoded."""
        return (
            folded.plain
            and not self.gated.worth(scanned)
            and not self._decoding(scanned)
            and not self.decoders.scrambled(folded)
        )

    def _decoding(self, scanned: Sequence[int]) -> list[int]:
        return [number for number in self.gated.triggers(scanned) if number < self._decoders]

    def judge(self, text: str, role: str, folded: Folded, scanned: Sequence[int]) -> Judged:
        """Judge one text of which ``folded`` is the folded form and ``scanned`` the result of the first pass."""
        if len(text) <= PIECE + OVERLAP:
            if self.is_plain(folded, scanned):
                return NOTHING
            budget = Budget()
            findings = self._piece(text, role, folded, scanned, len(text), budget)
            short = budget.searched < 0
            return Judged(_score(findings), tuple(findings), short) if findings or short else NOTHING
        return self._long(text, role)

    def judge_response(self, folded: Folded, scanned: Sequence[int]) -> Judged:
        """Judge a model's answer: only evidence for one of the ``answering`` signals counts."""
        budget = Budget()
        matches = self.gated.answers(scanned, folded.low, budget)
        short = budget.searched < 0
        if not matches and not short:
            return NOTHING
        found = tuple(self._findings(matches, folded, "user", "plain", len(folded.text)))
        return Judged(_score(found), found, short)

    def _long(self, text: str, role: str) -> Judged:
        best = NOTHING
        deep = 0
        truncated = False
        budget = Budget()
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE + OVERLAP]
            folded = fold(piece)
            scanned = self.gated.scan(folded.low)
            if self.is_plain(folded, scanned):
                continue
            deep += 1
            if deep > MAX_DEEP_PIECES:
                truncated = True
                break
            findings = self._piece(piece, role, folded, scanned, len(text), budget)
            score = _score(findings)
            if score > best.score:
                moved = (
                    msgspec.structs.replace(item, start=item.start + start, end=item.end + start) for item in findings
                )
                best = Judged(score, tuple(moved), False)
        return msgspec.structs.replace(best, truncated=truncated or budget.searched < 0)

    def _piece(
        self, text: str, role: str, folded: Folded, scanned: Sequence[int], length: int, budget: Budget
    ) -> list[Finding]:
        matches = self.gated.matches(scanned, folded.low, budget)
        plain = list(self._findings(matches, folded, role, "plain", length))
        findings = plain
        if plain and hidden.is_disguised(text):
            findings.append(_evidence(_DISGUISED, "unicode", plain[0].start, plain[0].end))
        if not folded.plain and (trick := hidden.deception(text)):
            findings.append(_evidence(_DECEPTION, trick, 0, len(text)))
        seen = {item.concept for item in plain}
        outside = self.gated.anchored(scanned)
        for layer, inner, inner_scan, start, end, payload in self._layers(text, folded, scanned, budget):
            anchored = self.gated.anchored(inner_scan)
            matches = self.gated.matches(inner_scan, inner.low, budget, seen)
            news = list(self._findings(matches, inner, role, layer, length, (start, end)))
            if _ACTIVE.search(inner.low) is not None and not any(part in _OF_MARKUP for part in layer.split(">")):
                findings.append(_evidence(_HIDDEN_MARKUP, layer, start, end))
            if payload:
                findings.append(_evidence(_HIDDEN_TEXT, layer, start, end))
            if news:
                seen.update(item.concept for item in news)
                findings += news
                if not _is_innocent(layer) and max(item.weight for item in news) >= _TELLING:
                    findings.append(_evidence(_DISGUISED, layer, start, end))
            elif anchored and not plain and not _is_innocent(layer) and not (outside and end - start == len(text)):
                findings.append(_evidence(_HIDDEN_REQUEST, layer, start, end))
        return findings

    def _findings(
        self,
        matches: Iterable[Match],
        folded: Folded,
        role: str,
        layer: str,
        length: int,
        place: tuple[int, int] | None = None,
    ) -> Iterator[Finding]:
        """What ``matches`` are evidence of; ``place`` is where the text that was searched lies in the text judged."""
        for match in matches:
            concept = self.compiled[match.index].concept
            if concept.raw and layer.rpartition(">")[2] in _RESPELLED and not concept.lexical:
                continue  # signs of markup mean nothing where punctuation was read as letters
            if role not in concept.roles or (concept.max_chars and length > concept.max_chars):
                continue
            exception = self._exceptions.get(concept.name)
            if exception is not None:
                near = folded.low[max(0, match.start - patterns.NEAR_UNLESS) : match.end + patterns.NEAR_UNLESS]
                if exception.search(near) is not None:
                    continue
            weight = concept.weight
            if role == "tool" and concept.signal == "indirect_injection":
                weight = min(_MAX_WEIGHT, weight * _TOOL_FACTOR)
            start, end = place or folded.span(match.start, match.end)
            yield Finding(concept.name, concept.group, concept.signal, weight, layer, start, end)

    def _layers(
        self, text: str, folded: Folded, scanned: Sequence[int], budget: Budget
    ) -> Iterator[tuple[str, Folded, list[int], int, int, bool]]:
        """Every decoded form with the first pass over it, breadth first, within the caps and the ``budget``."""
        queue: list[tuple[str, Folded, int, int, bool, int]] = [
            (item.name, fold(item.text), item.start, item.end, item.payload, 1) for item in hidden.hidden_texts(text)
        ]
        if hidden.mixes_scripts(text):
            queue.append(("lookalikes", skeleton(text), 0, len(text), False, 1))
        queue += [(name, inner, start, end, False, 1) for name, inner, start, end in self._decoded(folded, scanned)]
        done = {folded.low}
        count = 0
        while queue and count < decoding.MAX_LAYERS and budget.decoded > 0:
            name, inner, start, end, payload, depth = queue.pop(0)
            if inner.low in done:
                continue
            done.add(inner.low)
            count += 1
            budget.decoded -= len(inner.low)
            inner_scan = self.gated.scan(inner.low)
            yield name, inner, inner_scan, start, end, payload
            if depth < decoding.MAX_DEPTH:
                again = self._decoded(inner, inner_scan)
                queue += [(f"{name}>{deeper}", more, start, end, payload, depth + 1) for deeper, more, _, _ in again]

    def _decoded(self, folded: Folded, scanned: Sequence[int]) -> Iterator[tuple[str, Folded, int, int]]:
        for name, inner, start, end in self.decoders.run(
            folded, self._decoding(scanned), scrambled=self.decoders.scrambled(folded)
        ):
            yield name, _changed_lines(folded, inner), start, end


def _changed_lines(before: Folded, after: Folded) -> Folded:
    """Of a long text that was decoded in a few places only the lines that changed, and those next to them."""
    if len(before.low) < _SHORT:
        return after
    old, new = before.low.split(b"\n"), after.low.split(b"\n")
    if len(old) != len(new):
        return after
    changed = [number for number, line in enumerate(new) if line != old[number]]
    kept = sorted({near for number in changed for near in (number - 1, number, number + 1) if 0 <= near < len(new)})
    if 2 * len(kept) > len(new):
        return after
    lines = after.raw.split(b"\n")
    return fold(b"\n".join(lines[number] for number in kept).decode("utf-8", "replace"))


def _is_innocent(layer: str) -> bool:
    return all(part in _INNOCENT for part in layer.split(">"))


def _evidence(kind: tuple[str, str, str, float], layer: str, start: int, end: int) -> Finding:
    name, group, signal, weight = kind
    return Finding(name, group, signal, weight, layer, start, end)


def _score(findings: Sequence[Finding]) -> float:
    return noisy_or((item.group, item.weight) for item in findings)
