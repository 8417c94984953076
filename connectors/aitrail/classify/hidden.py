"""What the code points of a text hide: tags, variation selectors, invisible bits, braille, foreign lookalikes.

Works on the text itself, before folding, and only on texts that are not ASCII.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

_MAX: Final = 16_384

_TAGS = re.compile("[\U000e0020-\U000e007e]{3,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_BITS = re.compile("[\u200b\u200c\u200d\u2060-\u2064\ufeff]{16,}")
_BRAILLE = re.compile("[\u2800-\u28ff][\u2800-\u28ff \n.,]{4,}")
_BACKSPACE = re.compile("[^\x08]\x08")
_FLAG: Final = "\U0001f3f4"
_LONGEST_FLAG: Final = 7

# One search that says whether any of the above, or a disguise, can be there.
SUSPECT = re.compile(
    "[\u00ad\u0250-\u02af\u0300-\u036f\u0370-\u058f\u13a0-\u13ff\u1d00-\u1dbf\u200b-\u200f\u202a-\u202e\u2060-\u2064\u206a-\u206f"
    "\u2460-\u24ff\u2800-\u28ff\ufe00-\ufe0f\ufeff\uff01-\uff5e\U0001d400-\U0001d7ff\U0001f110-\U0001f1ff\U000e0000-\U000e01ef]"
)
_MIXED = re.compile(
    "[A-Za-z][\u0370-\u058f\u13a0-\u13ff\uab70-\uabbf\u2c80-\u2cff]|[\u0370-\u058f\u13a0-\u13ff\uab70-\uabbf\u2c80-\u2cff][A-Za-z]"
)
_LATIN = re.compile("[A-Za-z]")
_LOOKALIKE = re.compile("[\u0370-\u058f\u13a0-\u13ff]")

# Braille letters of grade 1: dots 1 to 6 are bits 0 to 5.
_BRAILLE_LETTERS: Final = {
    0x2800 + sum(1 << (int(dot) - 1) for dot in dots): letter
    for letter, dots in zip(
        "abcdefghijklmnopqrstuvwxyz.,?!'",
        [
            "1",
            "12",
            "14",
            "145",
            "15",
            "124",
            "1245",
            "125",
            "24",
            "245",
            "13",
            "123",
            "134",
            "1345",
            "135",
            "1234",
            "12345",
            "1235",
            "234",
            "2345",
            "136",
            "1236",
            "2456",
            "1346",
            "13456",
            "1356",
            "256",
            "2",
            "236",
            "235",
            "3",
        ],
        strict=True,
    )
}


class Hidden(msgspec.Struct, frozen=True, gc=False):
    """A text that was hidden: how, what it says, where it was. ``payload`` says that it cannot be there by accident."""

    name: str
    text: str
    start: int
    end: int
    payload: bool


def _tags(text: str) -> Iterator[Hidden]:
    for match in _TAGS.finditer(text[: _MAX * 4]):
        run = match.group()
        if text[match.start() - 1 : match.start()] == _FLAG and len(run) <= _LONGEST_FLAG:
            continue
        yield Hidden(
            "tag_characters", "".join(chr(ord(char) - 0xE0000) for char in run), match.start(), match.end(), True
        )


def _selectors(text: str) -> Iterator[Hidden]:
    for match in _SELECTORS.finditer(text[: _MAX * 4]):
        codes = (ord(char) for char in match.group())
        data = bytes(code - 0xFE00 if code < 0xFF00 else code - 0xE0100 + 16 for code in codes)
        plain = data.decode("utf-8", "replace")
        readable = sum(char.isprintable() for char in plain) >= 0.9 * len(plain)
        if readable:
            yield Hidden("variation_selectors", plain, match.start(), match.end(), True)


def _bits(text: str) -> Iterator[Hidden]:
    for match in _BITS.finditer(text[: _MAX * 4]):
        run = match.group()
        kinds = sorted(set(run))
        if len(kinds) not in (2, 3):
            continue
        for zero, one in ((kinds[0], kinds[1]), (kinds[1], kinds[0])):
            bits = "".join("0" if char == zero else "1" for char in run if char in (zero, one))
            data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
            if data and all(9 <= byte < 127 for byte in data):
                yield Hidden("invisible_bits", data.decode("ascii"), match.start(), match.end(), True)
                break


def _braille(text: str) -> Iterator[Hidden]:
    for match in _BRAILLE.finditer(text[:_MAX]):
        plain = "".join(_BRAILLE_LETTERS.get(ord(char), " " if char in "\u2800 \n" else "") for char in match.group())
        yield Hidden("braille", plain, match.start(), match.end(), False)


def _backspaces(text: str) -> Iterator[Hidden]:
    if "\x08" in text:
        yield Hidden("backspace", _BACKSPACE.sub("", text[:_MAX]), 0, len(text), False)


# Letters upside down, a to z; dots and marks as they turn.
_TURNED: Final = dict(
    zip(
        "\u0250q\u0254p\u01dd\u025f\u0183\u0265\u1d09\u027e\u029el\u026fuodb\u0279s\u0287n\u028c\u028dx\u028ez",
        "abcdefghijklmnopqrstuvwxyz",
        strict=True,
    )
) | {"\u02d9": ".", "\u00bf": "?", "\u0131": "i"}
_TURNED_ONLY = re.compile("[ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ]")


def _upside_down(text: str) -> Iterator[Hidden]:
    if len(_TURNED_ONLY.findall(text[:4000])) >= 6:
        plain = "".join(_TURNED.get(char, char) for char in reversed(text[:_MAX]))
        yield Hidden("upside_down", plain, 0, len(text), False)


_OVERRIDES: Final = "\u202d\u202e"
_POP: Final = "\u202c"


def _reordered(text: str) -> Iterator[Hidden]:
    """What the eye sees of a text with overrides of direction: right-to-left runs are read backwards."""
    if not any(char in text for char in _OVERRIDES):
        return
    stack: list[tuple[bool, list[str]]] = [(False, [])]
    for char in text[:_MAX]:
        if char in _OVERRIDES and len(stack) < _DEEPEST:
            stack.append((char == "\u202e", []))
        elif char == _POP and len(stack) > 1:
            _close(stack)
        elif char not in _OVERRIDES:
            stack[-1][1].append(char)
    while len(stack) > 1:
        _close(stack)
    yield Hidden("bidi_override", "".join(stack[0][1]), 0, len(text), False)


_DEEPEST: Final = 60


def _close(stack: list[tuple[bool, list[str]]]) -> None:
    backwards, chars = stack.pop()
    stack[-1][1].extend(reversed(chars) if backwards else chars)


_FINDERS: Final[tuple[Callable[[str], Iterator[Hidden]], ...]] = (
    _tags,
    _selectors,
    _bits,
    _braille,
    _upside_down,
    _reordered,
)


def hidden_texts(text: str) -> Iterator[Hidden]:
    """Yield every hidden text; total and linear."""
    yield from _backspaces(text)
    if text.isascii() or SUSPECT.search(text) is None:
        return
    for finder in _FINDERS:
        yield from finder(text)


def mixes_scripts(text: str) -> bool:
    """Whether Latin letters and lookalikes of other scripts stand within one word, or in one mostly Latin text."""
    if text.isascii():
        return False
    if _MIXED.search(text) is not None:
        return True
    lookalikes = len(_LOOKALIKE.findall(text[:4000]))
    return 0 < lookalikes <= len(_LATIN.findall(text[:4000]))


_DISGUISE = re.compile(
    "[\u00ad\u0250-\u02af\u0300-\u036f\u1d00-\u1dbf\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u2460-\u24ff\uff21-\uff5a"
    "\U0001d400-\U0001d7ff\U0001f130-\U0001f189\U0001f1e6-\U0001f1ff]"
)


def is_disguised(text: str) -> bool:
    """Whether letters are dressed up or held apart by invisible characters, in more than a few places."""
    if text.isascii():
        return False
    sample = text[:4000]
    return len(_DISGUISE.findall(sample)) >= max(4, len(sample) // 12)


# A character and the backspace that takes it back. Not overstruck letters, as manual pages have them, and not the bars
# and spinners of a terminal.
_TAKEN_BACK = re.compile("(?<!\x08)([^\x08\n])\x08(?!\x08)(.?)")
_SPINNER: Final = frozenset("|/-\\ ")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_OVERRIDDEN = re.compile("[\u202d\u202e][^\u202c]{0,40}[A-Za-z]")


def deception(text: str) -> str:
    """Name what in ``text`` nobody types and no program writes, whose one use is that filters read other words: or "".

    ``backspaces`` that take back single characters, and ``bidi_override`` in text of Latin letters. Lookalikes and
    invisible characters are not among them: they are undone, and what the text then says decides.
    """
    if "\x08" in text and any(
        before != after and "_" not in (before, after) and not (before in _SPINNER and after in _SPINNER)
        for before, after in _TAKEN_BACK.findall(text[:_MAX])
    ):
        return "backspaces"
    if text.isascii() or SUSPECT.search(text) is None:
        return ""
    sample = text[:4000]
    overridden = _OVERRIDDEN.search(sample) is not None and _RIGHT_TO_LEFT.search(sample) is None
    return "bidi_override" if overridden else ""
