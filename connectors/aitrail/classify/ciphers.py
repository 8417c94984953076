"""Ciphers of puzzles and chat rooms: letters as numbers, ROT47, words in the wrong order, letters made of marks.

All are total and linear, as in ``decoders``; ``decode`` says when they run.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

_MAX: Final = 16_384
_MAX_RUNS: Final = 16

_ROT47: Final = bytes(33 + (code - 33 + 47) % 94 if 33 <= code <= 126 else code for code in range(256))
_ROT47_WORDS: Final = (
    "ignore", "previous", "instructions", "system", "prompt", "password", "reveal", "forget", "rules", "without",
    "guidelines", "restrictions", "everything", "unrestricted", "disregard", "override", "filters",
)  # fmt: skip


def rot47_literals() -> str:
    """Telling words in ROT47, folded to lower case, as alternatives of one expression."""
    return "|".join(re.escape(word.encode().translate(_ROT47).decode().lower()) for word in _ROT47_WORDS)


def from_rot47(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """ROT47, over the whole text."""
    yield "rot47", data[:_MAX].translate(_ROT47), 0, len(data)


_NUMBERS = re.compile(rb"(?:[0-9]{1,2}[ ,.\-/|;:\n]{1,3}){7,}[0-9]{1,2}")
_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz"
_SQUARE: Final = b"abcdefghiklmnopqrstuvwxyz"


def from_numbers(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Letters as their places in the alphabet (1 to 26), or as rows and columns of a square of five (11 to 55)."""
    for match in islice(_NUMBERS.finditer(data[:_MAX]), _MAX_RUNS):
        parts = re.findall(rb"[0-9]+|[^0-9]+", match.group())
        numbers = [int(part) for part in parts if part.isdigit()]
        usual = min((part for part in parts if not part.isdigit()), key=len)[:1]
        table: dict[int, bytes]
        if all(1 <= number <= 26 for number in numbers):
            name, table = "letter_numbers", {number: _ALPHABET[number - 1 : number] for number in numbers}
        elif all(1 <= number // 10 <= 5 and 1 <= number % 10 <= 5 for number in numbers):
            name = "letter_square"
            table = {number: _SQUARE[(at := (number // 10 - 1) * 5 + number % 10 - 1) : at + 1] for number in numbers}
        else:
            continue
        gaps = [b"" if part[:1] == usual and len(part) == 1 else b" " for part in parts if not part.isdigit()]
        plain = b"".join(table[number] + gap for number, gap in zip(numbers, [*gaps, b""], strict=True))
        yield name, plain, match.start(), match.end()


_BACON = re.compile(rb"(?:[ab]{5}[ ,\n]?){6,}|(?:[01]{5}[ ,\n]){6,}")


def from_bacon(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Letters as groups of five of two signs."""
    for match in islice(_BACON.finditer(data[:_MAX].lower()), _MAX_RUNS):
        bits = re.sub(rb"[^ab01]", b"", match.group()).translate(bytes.maketrans(b"ab", b"01"))
        values = [int(bits[at : at + 5], 2) for at in range(0, len(bits) - 4, 5)]
        if max(values) < 26:
            yield "bacon", bytes(97 + value for value in values), match.start(), match.end()


_KEYWORDS_64: Final = (
    "ignore", "previous", "instructions", "system", "prompt", "password", "reveal", "forget", "disregard", "rules",
    "restrictions", "guidelines",
)  # fmt: skip


def base64_word_literals() -> str:
    """Telling words encoded one by one in base64, folded to lower case; without what the next letter would change."""
    words = [form for word in _KEYWORDS_64 for form in (word, word.capitalize())]
    return "|".join(sorted({base64.b64encode(word.encode()).decode().lower()[: len(word) * 8 // 6] for word in words}))


_WORD_64 = re.compile(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{2,24}={0,2}(?![A-Za-z0-9+/=])")


def from_base64_words(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Every word in base64 by itself."""

    def one(match: re.Match[bytes]) -> bytes:
        run = match.group()
        try:
            plain = base64.b64decode(run, validate=True)
        except (binascii.Error, ValueError):
            return run
        return plain if plain.isascii() and plain.decode("ascii").isprintable() else run

    yield "base64", _WORD_64.sub(one, data[:_MAX]), 0, len(data)


_BASE58: Final = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RUN_58 = re.compile(rb"(?<![!-~])[1-9A-HJ-NP-Za-km-z]{24,512}(?![!-~])")
_VALUES_58: Final = {letter: value for value, letter in enumerate(_BASE58)}


def from_base58(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Base58, in the order of digits, capitals, small letters."""
    for match in islice(_RUN_58.finditer(data[:_MAX]), 4):
        number = 0
        for letter in match.group():
            number = number * 58 + _VALUES_58[letter]
        yield "base58", number.to_bytes((number.bit_length() + 7) // 8, "big"), match.start(), match.end()


def unpacked(plain: bytes) -> bytes:
    """What decoded bytes hold when they are compressed or in UTF-16; else the bytes themselves."""
    if plain[:2] in (b"\x1f\x8b", b"x\x9c", b"x\xda"):
        try:
            return zlib.decompressobj(47).decompress(plain, _MAX)
        except zlib.error:
            return plain
    if len(plain) > 8 and not any(plain[1:16:2]):
        return plain.decode("utf-16-le", "replace").encode()
    return plain


_WORDS = re.compile(rb"[A-Za-z0-9']+")


def from_word_order(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """The words from last to first."""
    yield "word_order", b" ".join(reversed(_WORDS.findall(data[:_MAX]))), 0, len(data)


# Letters drawn with several marks; the longer ones first.
_DRAWN: Final = (
    (b"\\/\\/", b"w"), (b"|\\/|", b"m"), (b"/\\/\\", b"m"), (b"|\\|", b"n"), (b"|-|", b"h"), (b"|_|", b"u"),
    (b"/\\", b"a"), (b"\\/", b"v"), (b"|<", b"k"), (b"|)", b"d"), (b"|>", b"p"), (b"|2", b"r"), (b"|3", b"b"),
    (b"()", b"o"), (b"><", b"x"),
    (b"1", b"i"), (b"3", b"e"), (b"0", b"o"), (b"5", b"s"), (b"7", b"t"), (b"4", b"a"), (b"$", b"s"), (b"@", b"a"),
    (b"|", b"l"),
)  # fmt: skip
DRAWN_TRIGGER: Final = rb"\|\\\||\|-\|[a-z0-9]|\|_\|[a-z0-9]|/\\/\\|\\/\\/[a-z0-9]|[a-z0-9]\|\)[a-z0-9]"


def from_drawn(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Letters drawn with slashes, bars and brackets."""
    plain = data[:_MAX].lower()
    for drawn, letter in _DRAWN:
        plain = plain.replace(drawn, letter)
    yield "drawn_letters", plain, 0, len(data)
