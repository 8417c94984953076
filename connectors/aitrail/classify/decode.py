"""Decoders: what a text says once its encoding or disguise is undone.

Every decoder runs only behind its trigger, a byte class or a few literals that the first pass looks for anyway, or a
class
of code points. A decoder gives the decoded text as a layer; layers are searched like texts and may be decoded again,
up to
a depth, a number of layers and a number of bytes. That something is encoded is never evidence by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import re2

from aitrail.classify import ciphers, respell
from aitrail.classify import decoders as d
from aitrail.classify.engine import compile_set, re2_options
from aitrail.classify.fold import Folded, fold

MAX_LAYERS: Final = 16
MAX_DEPTH: Final = 3

# An expression over folded lower-case bytes and the decoder behind it. Those of the first table are looked for in every
# text; those of the second only where one of ``SHAPES`` says that there is a run or a row of tokens of that kind.
Decoder = Callable[[bytes], Iterator[tuple[str, bytes, int, int]]]
_SPELLING: Final = (
    rb"\b(?:foxtrot|quebec|yankee|whiskey|zulu|tango|juliett?|uniform|november|romeo|sierra|echo) "
    rb"(?:" + d.NATO_WORDS.encode() + rb") "
)
_ATBASH: Final = (
    rb"\b(?:gsv|zmw|blfi|gsrh|rtmliv|rmhgifxgrlmh?|hbhgvn|kilnkg|kiverlfh|dszg|drgs|drgslfg|ifovh|blf|ulitvg|"
    rb"kzhhdliw|ivevzo)\b"
)
# Words in the order in which they stand when a sentence is read from its end.
_BACKWARDS: Final = (
    rb"\b(?:instructions?|prompt|rules|guidelines|restrictions|password)[^0-9a-z]{1,3}"
    rb"(?:previous|prior|your|system|any|above|secret|hidden|initial|the) (?:all|ignore|reveal|disregard|your|the|"
    rb"forget|show|print|and|without|follow|following|of|instructions|override)\b"
)
_TRIPLED: Final = "|".join(letter * 3 for letter in "abcdefghjklmnopqrstuvyz").encode()
# Parts of words where words should be, and marks within words.
_CUT_WORDS: Final = (
    rb"[a-z]<(?:b|i|u|s|em|strong|span|mark|wbr|br)/?>[a-z]|[a-z]<!--|" + respell.fragment_expression().encode()
)
# Words without gaps, and single letters between marks.
_RUN_TOGETHER: Final = (
    rb"[a-z]{17}|_[a-z]{2,14}_[a-z]{2,14}_[a-z]{2,14}_|(?:[a-z][^0-9a-z\x80-\xff]{1,4}){6}|(?:[a-z]{1,3}[\-._*|~/+]){4}"
)
_BY_WORD: Final[tuple[tuple[bytes, Decoder], ...]] = (
    (rb"%[0-9a-f]{2}[^ \n]{0,24}%[0-9a-f]{2}", d.from_url),
    (rb"&#x?[0-9a-f]{1,6};?&?|&(?:lt|gt|quot|amp|lbrack|nbsp|excl|colon|comma|period);", d.from_html),
    (rb"\\u\{?[0-9a-f]{4}|\\x[0-9a-f]{2}|\\[0-7]{3}\\|u\+[0-9a-f]{4}", d.from_escapes),
    (rb"=[0-9a-f]{2}[^ \n]{0,3}=[0-9a-f]{2}", d.from_quoted_printable),
    (
        rb"\b(?:gur|naq|lbh|lbhe|jung|guvf|jvgu|vtaber|vafgehpgvbaf?|flfgrz|cebzcg|cerivbhf|cnffjbeq|sbetrg)\b",
        d.from_rot13,
    ),
    (_ATBASH, d.from_atbash),
    (d.shift_literals().encode(), d.from_caesar),
    (
        rb"\b(?:eht|ruoy|uoy|siht|htiw|erongi|snoitcurtsni|noitcurtsni|metsys|tpmorp|suoiverp|tegrof|drawssap|laever)\b",
        d.from_reverse,
    ),
    (
        rb"[a-z][013457@$!|+][a-z].{0,30}[a-z0-9][013457@$!|+][a-z]|[0-9@$!][a-z][0-9@$!]|[a-z][0-9][0-9][a-z]",
        d.from_leet,
    ),
    (rb"\b[a-z]{2,12}ay [a-z]{1,14}ay [a-z]{1,14}ay\b", d.from_pig_latin),
    (rb"\([a-z ']\)[a-z ]|[a-z ]\([a-z ']\)\n", d.from_brackets),
    (_SPELLING, d.from_nato),
    (ciphers.rot47_literals().encode(), ciphers.from_rot47),
    (ciphers.base64_word_literals().encode(), ciphers.from_base64_words),
    (rb"(?:[ab]{5} ){6}|[ab]{35}|(?:[01]{5} ){6}", ciphers.from_bacon),
    (rb"(?:[0-9]{1,2}[ ,.\-/|;:\n]{1,2}){8}", ciphers.from_numbers),
    (rb"0x[0-9a-f]{2}[ ,]{1,2}0x[0-9a-f]{2}[ ,]", d.from_hex),
    (_BACKWARDS, ciphers.from_word_order),
    (ciphers.DRAWN_TRIGGER, ciphers.from_drawn),
    (_TRIPLED, respell.misspelt),
    (_CUT_WORDS, respell.run_together),
)
_SHORT_TOKEN: Final = rb"[!-~]{1,3}[ ,/|:;\n]{1,3}"
_LONE_LETTER: Final = rb"[a-z][ ._\-*|/~+,\n]{1,3}"
# Printable characters in a row that may be encoded bytes, or a key.
LONG_RUN: Final = 22
SHAPES: Final = (
    _SHORT_TOKEN * 7,
    rb"[a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+]",
    rb"[01]{7}",
    rb"[!-~]{%d}" % LONG_RUN,
)
_BY_SHAPE: Final[tuple[tuple[bytes, Decoder], ...]] = (
    (rb"[a-z0-9+/_\-]{22}", d.from_base64),
    (rb"[a-z2-7]{22}", d.from_base32),
    (rb"[1-9a-z]{24}", ciphers.from_base58),
    (rb"(?:[0-9a-f]{2}[ :,\-]){8}|(?:\\x|0x)[0-9a-f]{2}[ ,]{0,2}(?:\\x|0x)[0-9a-f]{2}|[0-9a-f]{20}", d.from_hex),
    (rb"[01]{7,8}[ ,\n_\-]?[01]{7,8}[ ,\n_\-]?[01]{7,8}", d.from_binary),
    (rb"(?:[0-9]{2,3}[ ,;\-]{1,2}){6}", d.from_decimal),
    (rb"(?:[.\-_*]{1,6}[ /|]{1,3}){6}", d.from_morse),
    (rb"[!-~]{24}", d.from_ascii85),
    (rb"begin [0-7]{3} |\n?[!-`]{32}", d.from_uuencode),
    (rb"\b" + _LONE_LETTER * 4 + rb"[a-z]\b", d.from_spaced),
    (_RUN_TOGETHER, respell.run_together),
)
# Words of the patterns whose inner letters may be in another order: looked for in short texts only.
_SCRAMBLED: Final = (
    "ignore", "previous", "instructions", "instruction", "disregard", "forget", "reveal", "prompt", "password",
    "guidelines", "restrictions", "system", "secret", "override", "everything", "assignments", "documents", "before",
    "bypass", "unrestricted", "limitations", "questions", "commands", "directives", "confidential", "developer",
    "original", "hidden",
)  # fmt: skip


def _reordered(word: str) -> str:
    """An expression for ``word`` with its inner letters in another order, but not for the word itself."""
    inner = word[1:-1]
    letters = "".join(sorted(set(inner)))
    forms = [
        f"{inner[:at]}[{letters.replace(inner[at], '')}][{letters}]{{{len(inner) - at - 1}}}"
        for at in range(len(inner) - 1)
    ]
    return rf"\b{word[0]}(?:{'|'.join(forms)}){word[-1]}\b"


_SCRAMBLE: Final = "|".join(_reordered(word) for word in _SCRAMBLED).encode()
_WRONG: Final = _SCRAMBLE + b"|" + respell.misspelling_expression().encode()
_WRONG_MEMORY: Final = 16 << 20
_SCRAMBLE_LIMIT: Final = 2_000

TRIGGERS: Final = (*(trigger for trigger, _ in _BY_WORD), *SHAPES)
# Which of the triggers says that there is such a run.
LONG_RUN_TRIGGER: Final = len(TRIGGERS) - 1


class Decoders:
    """The decoders with the sets that say which of them to run. Thread-safe."""

    def __init__(self, engine: str = "auto") -> None:
        self._shapes = compile_set([trigger for trigger, _ in _BY_SHAPE], engine)
        # One expression on its own is faster on RE2 than in any set.
        self._scramble = re2.compile(_WRONG, re2_options(memory=_WRONG_MEMORY))

    def scrambled(self, folded: Folded) -> bool:
        """Whether a short text may hold scrambled or misspelt words; longer texts are not looked at for them."""
        return len(folded.low) <= _SCRAMBLE_LIMIT and self._scramble.search(folded.low) is not None

    def run(
        self, folded: Folded, triggered: Sequence[int], *, scrambled: bool
    ) -> Iterator[tuple[str, Folded, int, int]]:
        """Run the decoders whose triggers fired; yields name, decoded text (folded) and the span it was decoded from.

        Spans are character offsets of the text that was folded.
        """
        chosen = [_BY_WORD[number][1] for number in triggered if number < len(_BY_WORD)]
        if any(number >= len(_BY_WORD) for number in triggered):
            chosen += [_BY_SHAPE[number][1] for number in self._shapes.match(folded.low)]
        if scrambled:
            chosen += [d.from_scrambled, respell.misspelt]
        for decoder in chosen:
            for name, plain, start, end in decoder(folded.raw):
                text = d.readable(plain) or d.encoded_again(plain)
                if text is None:
                    continue
                inner = fold(text)
                if inner.low != folded.low:
                    begin, finish = folded.span(start, end)
                    yield name, inner, begin, finish
