"""Undoing disguises of spelling: leet, spaced-out letters, scrambled words, reversed words, bracketed letters."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from aitrail.classify.rarity import common_words

# "1" and "!" stand for i or l, so both readings are tried.
LEET_TABLES: Final = (
    bytes.maketrans(b"0134578@$!|+926", b"oieastbasiltgzg"),
    bytes.maketrans(b"0134578@$!|+926", b"oleastbaslltgzg"),
)
_MAX: Final = 16_384

# Words of the patterns that are worth restoring when their inner letters are scrambled or one letter is wrong.
KEYWORDS: Final = tuple(
    b"ignore previous instructions instruction disregard forget forgetting everything reveal system prompt prompts "
    b"password "
    b"guidelines restrictions assignments documents before above override bypass secret show print output repeat rules "
    b"developer content policy without limits limitations confidential pretend unrestricted respond answer questions "
    b"commands directives message messages initial original hidden printing following tasks task earlier prior "
    b"preceding "
    b"command anything now concentrate articles text texts your what told you were given information details reveal "
    b"display safety protocol protocols disabled disable filters from about instead".split()
)


_LEET_TOKEN = re.compile(rb"[a-z0-9@$!|+]{4,}")
_LEET_SIGN = re.compile(rb"[013457@$!|+]")
_WITH_LETTER = re.compile(rb"[a-z]")


@lru_cache(maxsize=1)
def _known_words() -> frozenset[bytes]:
    return frozenset(word for word in (*KEYWORDS, *(word.encode() for word in common_words())) if len(word) > 3)


def has_leet_word(low: bytes) -> bool:
    """Whether a word with digits or marks among its letters is a known one when they are read as letters."""
    known = _known_words()
    for token in set(_LEET_TOKEN.findall(low)):
        if _LEET_SIGN.search(token) is not None and _WITH_LETTER.search(token) is not None:
            bare = token.rstrip(b"!")
            if any(bare.translate(table) in known for table in LEET_TABLES if bare.translate(table) != bare):
                return True
    return False


@lru_cache(maxsize=1)
def _scrambled_index() -> dict[tuple[int, int, bytes], bytes]:
    return {_key(word): word for word in KEYWORDS if len(word) > 3}


@lru_cache(maxsize=1)
def _scrambled_shapes() -> frozenset[tuple[int, int, int]]:
    return frozenset((word[0], word[-1], len(word)) for word in KEYWORDS if len(word) > 3)


def _key(word: bytes) -> tuple[int, int, bytes]:
    return word[0], word[-1], bytes(sorted(word[1:-1]))


_WORD = re.compile(rb"[a-z]{4,}")


def unscramble(low: bytes) -> bytes | None:
    """Restore keywords whose inner letters are in the wrong order; None when there are none."""
    low = low[:_MAX]
    index, shapes = _scrambled_index(), _scrambled_shapes()
    wrong: dict[bytes, bytes] = {}
    for word in set(_WORD.findall(low)):
        # Ordinary words leave at the first or the second test; sorting letters is for the few that look like one.
        if (word[0], word[-1], len(word)) in shapes:
            right = index.get(_key(word))
            if right is not None and right != word:
                wrong[word] = right
    if not wrong:
        return None
    return _WORD.sub(lambda match: wrong.get(match.group(), match.group()), low)


_SPACED = re.compile(
    rb"(?:(?<![A-Za-z0-9])[A-Za-z0-9!?.,'\"]([ ._\-*|/~+,\n]{1,3})){4,}[A-Za-z0-9!?.,'\"](?![A-Za-z0-9])"
)


def despace(data: bytes) -> Iterator[bytes]:
    """Close up letters that stand alone, one separator between letters and a longer one between words."""
    data = data[:_MAX]

    def close(match: re.Match[bytes]) -> bytes:
        run = match.group()
        single = match.group(1)[:1]
        # Two separators in a row, or another character than the usual one, end a word.
        words = re.split(rb"(?:" + re.escape(single) + rb"){2,}|[^A-Za-z0-9" + re.escape(single) + rb"]+", run)
        return b" ".join(word.replace(single, b"") for word in words)

    out = _SPACED.sub(close, data)
    if out != data:
        yield out
        yield _segment(out)


# The words that closed-up text without word gaps is cut into.
_SMALL_WORDS: Final = (b"all", b"and", b"the", b"your", b"you", b"me", b"are", b"is", b"in", b"of", b"to")
_BY_LENGTH: Final = sorted({*KEYWORDS, *_SMALL_WORDS}, key=lambda word: (-len(word), word))
_JOINED = re.compile(b"(" + b"|".join(_BY_LENGTH) + b")")


def _segment(data: bytes) -> bytes:
    """Put spaces around known words: ``ignoreallpreviousinstructions`` becomes four words."""
    return b" ".join(_JOINED.sub(rb" \1 ", data.lower()).split())


def reverse_words(data: bytes) -> bytes:
    """Reverse the letters of every word and keep the order of the words."""
    return re.sub(rb"[A-Za-z0-9']+", lambda match: match.group()[::-1], data[:_MAX])


_PIG = re.compile(rb"\b([a-z']{2,24})ay\b")
_CONSONANTS: Final = b"bcdfghjklmnpqrstvwxyz"


def _unpigged(match: re.Match[bytes]) -> bytes:
    stem = match.group(1)
    if stem[-1:] == b"w" and (stem[:-1] in _known_words() or stem[:1] not in _CONSONANTS):
        return stem[:-1]
    turned = [stem]
    for size in range(1, min(4, len(stem))):
        if stem[-size] in _CONSONANTS or stem[-size:] == b"qu":
            turned.append(stem[-size:] + stem[:-size])
        else:
            break
    return next((word for word in turned[1:] if word in _known_words()), turned[min(1, len(turned) - 1)])


def unpig(low: bytes) -> bytes:
    """Undo pig latin: ``ignoreway`` and ``eviouspray`` become ``ignore`` and ``previous``."""
    return _PIG.sub(_unpigged, low[:_MAX])


def bracketed_letters(low: bytes) -> bytes:
    """Read only the single letters in brackets: ``(i)ce (g)reen`` gives ``ig``."""
    letters = re.findall(rb"\(([a-z '])\)", low[:_MAX])
    return b"".join(letters) if len(letters) >= 6 else b""
