"""Undoing misspellings and joined or split words: the words that patterns are made of, restored.

Every restoration is a layer of its own; the text as it stands is searched anyway. Nothing here says what is an attack:
words are restored only towards the vocabulary of the patterns, and the patterns decide.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

from aitrail.classify.disguise import KEYWORDS
from aitrail.classify.rarity import common_words

_MAX: Final = 4_096
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"
_NOT_LETTERS: Final = bytes(code for code in range(256) if code not in _LETTERS)
_VOWELS: Final = b"aeiou"
_TAG = re.compile(rb"<[a-z/!][^<>\n]{0,60}>|<!--[^<>\n]{0,60}-->")

# The words of which a distorted form makes a text worth a closer look; long ones, so that other words seldom resemble
# them.
TELLING: Final = (
    "ignore", "previous", "instruction", "instructions", "disregard", "restrictions", "guidelines", "password",
    "override", "reveal", "forget", "system", "prompt", "unrestricted", "limitations", "directives", "everything",
    "without", "confidential", "pretend", "jailbreak", "developer", "content",
)  # fmt: skip
# What else is restored where a telling word was.
_OTHER: Final = (
    b"all any and the your you are now not only with what before after about from that this them these those rule "
    b"rules never always obey follow following stop write hacked unfiltered uncensored filter limits limit restriction "
    b"guideline safety bypass evil answers answering question assistant chatbot model language hidden verbatim word "
    b"exactly translate summarize access granted secrets key keys code phrase administrator debug mode token tokens "
    b"refuse ethics ethical moral morals illegal harmful response responses character roleplay act acting them".split()
)


@lru_cache(maxsize=1)
def _known() -> frozenset[bytes]:
    """Words that are right as they are."""
    return frozenset((*KEYWORDS, *_OTHER, *(word.encode() for word in TELLING), *(w.encode() for w in common_words())))


def _short(word: bytes) -> bytes:
    """``word`` without its vowels, but for one at the start."""
    return word[:1] + bytes(letter for letter in word[1:] if letter not in _VOWELS)


@lru_cache(maxsize=1)
def _forms() -> dict[bytes, bytes]:
    """Distorted forms of the vocabulary: a letter left out, vowels left out, r and l spoken as w."""
    forms: dict[bytes, bytes] = {}
    for word in (*KEYWORDS, *_OTHER, *(word.encode() for word in TELLING)):
        made = [_short(word), word.translate(None, _VOWELS), word.translate(_AS_W)]
        if len(word) >= 5:
            made += [word[:at] + word[at + 1 :] for at in range(1, len(word) - 1)]
        for form in made:
            if len(form) >= (4 if len(word) >= 6 else 3) or (len(word) <= 4 and form != word and len(form) > 1):
                forms.setdefault(form, word)
    return {form: word for form, word in forms.items() if form not in _known()} | _CLIPPED


# Short words as they are clipped in hurried writing.
_CLIPPED: Final = {
    b"yr": b"your", b"ur": b"your", b"yuor": b"your", b"yor": b"your", b"rpt": b"repeat", b"rvl": b"reveal",
    b"shw": b"show", b"prnt": b"print", b"th": b"the", b"teh": b"the", b"al": b"all", b"bfr": b"before", b"fr": b"for",
    b"wrd": b"word", b"nd": b"and", b"u": b"you", b"frgt": b"forget", b"tld": b"told",
}  # fmt: skip
_AS_W: Final = bytes.maketrans(b"rl", b"ww")


def _collapsed(word: bytes) -> bytes:
    """``word`` with every run of one letter as one."""
    return word[:1] + bytes(after for before, after in pairwise(word) if after != before)


@lru_cache(maxsize=1)
def _single_letters() -> dict[bytes, bytes]:
    """The vocabulary by its form without doubled letters."""
    table: dict[bytes, bytes] = {}
    for word in (*KEYWORDS, *_OTHER, *(word.encode() for word in TELLING)):
        table.setdefault(_collapsed(word), word)
    return table


def restored(word: bytes) -> bytes | None:
    """The word of the vocabulary that ``word`` is a misspelling of, if any; at most one wrong, extra or missing letter.

    Words that are known as they are stay. The last letter must be right: what differs there is mostly an inflection, or
    the same word in another language.
    """
    if word in _known():
        return None
    if len(word) < 3 or len(word) > 24:
        return _CLIPPED.get(word)
    plain = _single_letters().get(_collapsed(word))
    if plain is not None and len(plain) > 2:
        return plain
    forms = _forms()
    found = forms.get(word)
    if found is not None and found not in (word[:-1], word[:-2]):
        return found
    if len(word) < 5:
        return None
    known = _vocabulary()
    for at in range(len(word) - 1):
        less = word[:at] + word[at + 1 :]
        if less in known:
            return less
        swapped = word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
        if swapped in known:
            return swapped
        found = forms.get(less)  # one letter left out on both sides: one letter in the place of another
        if found is not None and len(found) == len(word) and at and found[:at] == word[:at]:
            return found
    return None


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[bytes]:
    return frozenset(word for word in (*KEYWORDS, *_OTHER, *(one.encode() for one in TELLING)) if len(word) > 4)


_WORD = re.compile(rb"[a-z]{2,24}")


def correct(low: bytes) -> bytes | None:
    """Restore misspelt words of the vocabulary; None where there are none."""
    low = low[:_MAX]
    wrong = {word: right for word in set(_WORD.findall(low)) if (right := restored(word)) is not None}
    if not wrong:
        return None
    return _WORD.sub(lambda match: wrong.get(match.group(), match.group()), low)


def misspelling_expression() -> str:
    """An expression for the telling words with one letter wrong, doubled, missing or too many, or without vowels."""
    forms: list[str] = []
    for word in TELLING:
        if len(word) < 6:
            continue
        for at in range(1, len(word) - 1):
            forms += [f"{word[:at]}{word[at + 1 :]}", f"{word[:at]}[a-z]{{2}}{word[at + 1 :]}"]
            if len(word) >= 8:
                forms.append(f"{word[:at]}[^{word[at]}\\x00-\\x60\\x7b-\\xff]{word[at + 1 :]}")
        forms += [word.encode().translate(_AS_W).decode()] if set(word) & {"r", "l"} else []
        forms += [_short(word.encode()).decode()] if len(_short(word.encode())) >= 5 else []
        forms += [form.decode() for form in (word.encode().translate(None, _VOWELS),) if len(form) >= 6]
    # The words themselves and their usual forms fit some of these; the check of single words leaves them alone.
    return rf"\b(?:{'|'.join(sorted(set(forms) - set(TELLING)))})\b"


def fragment_expression() -> str:
    """An expression for ends of telling words that stand alone, as they do where a word was cut or marked up."""
    everyday = set(common_words()) | {word.decode() for word in _known()}
    ends = {
        word[at:]
        for word in TELLING
        if len(word) >= 6
        for at in range(1, len(word) - 2)
        if len(word[at:]) >= 4 or word[at:] in ("mpt", "eal", "nor")
    }
    words = sorted(end for end in ends - everyday if end not in _REAL_WORDS)
    return rf"\b(?:{'|'.join(words)})\b"


# Ends of telling words that are words, names or abbreviations themselves.
_REAL_WORDS: Final = frozenset(
    ("vent", "tent", "tend", "word", "sword", "ride", "line", "lines", "thing", "stem", "break", "regard", "tout",
     "limit", "strict", "restricted", "fine", "ives", "idea", "onal", "imitations", "veal", "very", "pass", "dent",
     "cent", "ines", "reak", "ious", "hing", "oper", "gard")
)  # fmt: skip

_OBJECT: Final = (
    r"(?:instruction|rule|guideline|restriction|prompt|direction|directive|command|limit|filter|polic|told|training)"
)
_FILLER: Final = (
    r"(?:all|any|the|your|my|of|these|those|everything|previous|prior|above|earlier|that|what|safety|content|system|"
    r"initial|original|hidden|secret|me|us|out|full|entire|exact|complete|developer|and|is|are|was|were|you|i|it)"
)
# Telling rows of words with nothing between them.
COMPOUND: Final = re.compile(
    (
        rf"(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|ing)|bypass(?:ing)?){_FILLER}{{1,5}}{_OBJECT}"
        rf"|(?:reveal|show|print|repeat|output|display|tell|give|leak|share|dump|recite|disclose){_FILLER}{{1,5}}"
        r"(?:prompt|instruction|password|systemmessage|guideline|rules|secret|passphrase)"
        r"|(?:previous|prior|above|initial|original|hidden|system)(?:instruction|prompt|guideline|directive|rule)"
        r"|without(?:any)?(?:restriction|rule|filter|limit|guideline|censorship|ethic)|secretpassword|jailbreak"
        r"|developermode|doanythingnow|(?:everything|all)(?:that)?(?:youweretold|youhavebeentold|above|before)"
        r"|(?:stop|notto|dont|donot|never)follow(?:ing)?(?:your|the|any)(?:rule|instruction|guideline)"
        r"|youarenow(?:an|a)?(?:unrestricted|unfiltered|uncensored|free|evil)|obeyonlyme|havebeen(?:hacked|pwned)"
        r"|(?:safety|content)(?:guideline|filter|polic)"
    ).encode()
)
_TOKEN = re.compile(rb"[a-z]+")
_LONGEST_WORD: Final = 16
# A tag within a word.
_IN_WORD = re.compile(rb"[a-z](?:<[a-z/!][^<>\n]{0,60}>)+[a-z]")
# Shorter names stay names where a text has more ordinary words than this.
_LONG_NAME: Final = 30
_FEW_WORDS: Final = 5
# How far around a match words are put back.
_AROUND: Final = 400


def joined(low: bytes) -> bytes | None:
    """Read a text without what stands between its letters, where that shows words that cannot be seen as it stands.

    None where the words are plain to see, or are an identifier among ordinary words, as in program text.
    """
    low = low[:_MAX]
    marked = len(_IN_WORD.findall(low)) > 2
    low = _TAG.sub(b"", low)
    letters = low.translate(None, _NOT_LETTERS)
    matches = list(COMPOUND.finditer(letters))
    if not matches:
        return None
    known = _known()
    tokens = [(token.start(), token.group()) for token in _TOKEN.finditer(low)]
    # How many letters stand before each word: where in the text the letter of a match stands.
    before = [0, *accumulate(len(word) for _, word in tokens)]
    ordinary = sum(word in known for _, word in tokens) > _FEW_WORDS
    for match in matches:
        first, last = bisect_right(before, match.start()) - 1, bisect_right(before, match.end() - 1) - 1
        start = tokens[first][0] + match.start() - before[first]
        end = tokens[last][0] + match.end() - before[last]
        span = low[start:end]
        if not span.translate(None, _LETTERS + b"_"):
            if ordinary and len(span) < _LONG_NAME:
                continue
        elif not marked and all(word in known for _, word in tokens[first : last + 1]):
            continue
        return _words(letters[max(0, match.start() - _AROUND) : match.end() + _AROUND])
    return None


@lru_cache(maxsize=1)
def _costs() -> dict[bytes, float]:
    """What a word costs when a row of letters is cut into words: longer ones and those of the patterns are cheaper."""
    costs = {word.encode(): 9.0 - min(len(word), 6) for word in common_words() if len(word) > 1 or word in ("a", "i")}
    costs |= {word: 7.0 - min(len(word), 6) for word in (*KEYWORDS, *_OTHER)}
    costs |= {word.encode(): 7.0 - min(len(word), 6) for word in TELLING}
    return costs


def _words(letters: bytes) -> bytes:
    """Cut a row of letters into known words, at the least cost; letters of no word stay together."""
    costs = _costs()
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(letters) + 1):
        choice = (best[end - 1][0] + 10.0, end - 1)
        for start in range(max(0, end - _LONGEST_WORD), end):
            cost = costs.get(letters[start:end])
            if cost is not None and best[start][0] + cost < choice[0]:
                choice = (best[start][0] + cost, start)
        best.append(choice)
    cuts: list[bytes] = []
    at = len(letters)
    while at:
        start = best[at][1]
        piece = letters[start:at]
        if cuts and piece not in costs and cuts[-1] not in costs:
            cuts[-1] = piece + cuts[-1]
        else:
            cuts.append(piece)
        at = start
    return b" ".join(reversed(cuts))


def misspelt(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Decoder: misspelt words restored."""
    # Other languages, which mostly have letters beyond ASCII, write some words a little differently.
    plain = correct(data.lower()) if data.isascii() else None
    if plain is not None:
        yield "misspelt", plain, 0, len(data)


def run_together(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Decoder: split, joined or marked-up words put together."""
    plain = joined(data.lower())
    if plain is not None:
        yield "joined", plain, 0, len(data)
