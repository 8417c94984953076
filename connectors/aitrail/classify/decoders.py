"""The decoders themselves: each takes folded bytes and yields name, decoded bytes and where they came from.

All are total and linear; what does not decode is left out. ``decode`` says when they run.
"""

import base64
import binascii
import codecs
import html
import quopri
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

from aitrail.classify.ciphers import unpacked
from aitrail.classify.disguise import (
    LEET_TABLES,
    bracketed_letters,
    despace,
    has_leet_word,
    reverse_words,
    unpig,
    unscramble,
)

# Runs longer than this are cut: what is hidden in the middle of a megabyte of base64 is a file, not a prompt.
_MAX_RUN: Final = 16_384
_MIN_DECODED: Final = 6
_MAX_RUNS: Final = 32


_LETTERS: Final = bytes(code for code in range(128) if chr(code).isalpha()) + b" "
_USUAL: Final = _LETTERS + b"0123456789.,!?'\"\n-:;()<>[]{}|/_=#*@"


def readable(data: bytes) -> str | None:
    """Decode bytes as text when that is what they are: mostly letters and spaces, no control characters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(text) < _MIN_DECODED:
        return None
    sample = text[:400]
    if sample.isascii():
        size = len(sample)
        few = data[:size]
        usual = size - len(few.translate(None, _USUAL)) >= 0.95 * size
        return text if usual and size - len(few.translate(None, _LETTERS)) >= 0.5 * size else None
    good = sum(1 for char in sample if char.isalnum() or char in " .,!?'\"\n-:;()<>[]{}|/_=#*@")
    letters = sum(1 for char in sample if char.isalpha() or char == " ")
    return text if good >= 0.95 * len(sample) and letters >= 0.5 * len(sample) else None


_CODE = re.compile(
    rb"(?:[0-9A-Fa-f]{2}[ :,-]?){12,}|(?:%[0-9A-Fa-f]{2}){6,}|(?:[01]{8} ?){6,}|(?:[.-]{1,6} /? ?){12,}|"
    rb"(?:\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|&#x?[0-9a-f]+;){4,}|(?:[0-9]{2,3} ){8,}"
)


def encoded_again(data: bytes) -> str | None:
    """Give what is a code itself, in hex, percent signs, bits or the like, as text."""
    return data.decode("ascii") if _CODE.match(data) is not None and data.isascii() else None


_B64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}(?:\r?\n[A-Za-z0-9+/_-]{16,}={0,2})*")
_B32 = re.compile(rb"[A-Z2-7]{16,}={0,6}|[a-z2-7]{24,}={0,6}")
_HEX = re.compile(rb"(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[\s,:;-]{0,2}){6,}")
_BIN = re.compile(rb"(?:[01]{7,8}[\s,;_-]{0,2}){3,}|[01]{24,}")
_DEC = re.compile(rb"(?:[0-9]{2,3}[\s,;.-]{1,2}){5,}[0-9]{2,3}")
_MORSE = re.compile(rb"(?:[.\-_*]{1,7}[ /|]{1,3}){5,}[.\-_*]{0,7}")
_A85 = re.compile(rb"<~([!-uz\s]{8,})~>|(?<![!-~])([!-uz]{20,})(?![!-~])")
_B85 = re.compile(rb"(?<![!-~])([0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{20,})(?![!-~])")
_UU = re.compile(rb"(?:^|\n)(?:begin [0-7]{3} [^\n]*\n)?((?:[!-M][ -`]{4,60}(?:\n|$))+)")
_ESCAPE = re.compile(rb"\\u\{?([0-9A-Fa-f]{4,6})\}?|\\x([0-9A-Fa-f]{2})|\\([0-7]{3})|U\+([0-9A-Fa-f]{4,6})[ ,]?")


def _is_base64(run: bytes) -> bool:
    """Whether a run can be base64 of text: both cases, one of the two alphabets; most paths and names are neither."""
    return (
        run != run.lower()
        and run != run.upper()
        and not ((b"-" in run or b"_" in run) and (b"/" in run or b"+" in run))
    )


def from_base64(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Standard and URL-safe base64 (RFC 4648), also with line breaks."""
    for match in islice(filter(lambda found: _is_base64(found.group()), _B64.finditer(data)), _MAX_RUNS):
        run = re.sub(rb"[\s=]", b"", match.group()[:_MAX_RUN]).replace(b"-", b"+").replace(b"_", b"/")
        for shift in range(4):  # a run may start with letters that belong to the text before it
            body = run[shift:]
            body = body[: len(body) - (len(body) % 4 == 1)]
            try:
                plain = base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
            except (binascii.Error, ValueError):
                continue
            plain = unpacked(plain)
            if readable(plain) or encoded_again(plain):
                yield "base64", plain, match.start(), match.end()
                break
        else:
            back = run[::-1]
            plain = base64.b64decode(back + b"=" * (-len(back) % 4)) if len(back) % 4 != 1 else b""
            if readable(plain):
                yield "base64_reversed", plain, match.start(), match.end()


def from_base32(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Base32 (RFC 4648)."""
    for match in islice(_B32.finditer(data), _MAX_RUNS):
        run = match.group()[:_MAX_RUN].rstrip(b"=").upper()
        run = run[: len(run) - (len(run) % 8 in (1, 3, 6))]
        try:
            plain = base64.b32decode(run + b"=" * (-len(run) % 8))
        except (binascii.Error, ValueError):
            continue
        yield "base32", plain, match.start(), match.end()


def from_hex(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Hexadecimal, plain, spaced or with prefixes."""
    for match in islice(_HEX.finditer(data), _MAX_RUNS):
        digits = re.sub(rb"\\x|0x|[%\s,:;-]", b"", match.group()[:_MAX_RUN])
        digits = digits[: len(digits) // 2 * 2]
        try:
            yield "hex", bytes.fromhex(digits.decode("ascii")), match.start(), match.end()
        except ValueError:
            continue


def from_binary(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Groups of seven or eight bits."""
    for match in islice(_BIN.finditer(data), _MAX_RUNS):
        groups = re.findall(rb"[01]{7,8}", match.group()[:_MAX_RUN])
        yield "binary", bytes(int(group, 2) for group in groups), match.start(), match.end()


def from_decimal(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Character codes in decimal or octal."""
    for match in islice(_DEC.finditer(data), _MAX_RUNS):
        numbers = re.findall(rb"[0-9]{2,3}", match.group()[:_MAX_RUN])
        for name, base in (("decimal", 10), ("octal", 8)):
            try:
                values = [int(number, base) for number in numbers]
            except ValueError:
                continue
            if all(9 <= value < 128 for value in values):
                yield name, bytes(values), match.start(), match.end()


_MORSE_CODE: Final = dict(
    zip(
        [
            ".-",
            "-...",
            "-.-.",
            "-..",
            ".",
            "..-.",
            "--.",
            "....",
            "..",
            ".---",
            "-.-",
            ".-..",
            "--",
            "-.",
            "---",
            ".--.",
            "--.-",
            ".-.",
            "...",
            "-",
            "..-",
            "...-",
            ".--",
            "-..-",
            "-.--",
            "--..",
            "-----",
            ".----",
            "..---",
            "...--",
            "....-",
            ".....",
            "-....",
            "--...",
            "---..",
            "----.",
            ".-.-.-",
            "--..--",
            "..--..",
            ".----.",
            "-.-.--",
            "-..-.",
            "-.--.",
            "-.--.-",
            ".-...",
            "---...",
            "-.-.-.",
            "-...-",
            ".-.-.",
            "-....-",
            "..--.-",
            ".-..-.",
            "...-..-",
            ".--.-.",
        ],
        "abcdefghijklmnopqrstuvwxyz0123456789.,?'!/()&:;=+-_\"$@",
        strict=True,
    )
)


def from_morse(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """International Morse code (ITU-R M.1677)."""
    for match in islice(_MORSE.finditer(data), _MAX_RUNS):
        text = match.group()[:_MAX_RUN].decode("ascii").replace("_", "-").replace("*", ".")
        words = re.split(r" */ *| {2,}|\|", text)
        plain = " ".join("".join(_MORSE_CODE.get(code, "") for code in word.split()) for word in words)
        yield "morse", plain.encode(), match.start(), match.end()


def from_url(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Percent encoding (RFC 3986), over the whole text."""
    yield "url", unquote_to_bytes(data[:_MAX_RUN].replace(b"+", b" ")), 0, len(data)


def from_html(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Character references of HTML, over the whole text."""
    yield (
        "html_entity",
        html.unescape(data[:_MAX_RUN].decode("utf-8", "replace")).encode("utf-8", "replace"),
        0,
        len(data),
    )


def from_escapes(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Backslash and U+ escapes, over the whole text."""

    def one(match: re.Match[bytes]) -> bytes:
        code = int(match.group(1) or match.group(2) or match.group(4) or b"0", 16) or int(match.group(3) or b"0", 8)
        return chr(code).encode("utf-8", "replace") if 0 < code < 0x110000 else b""

    yield "escape", _ESCAPE.sub(one, data[:_MAX_RUN]), 0, len(data)


def from_quoted_printable(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Quoted-printable (RFC 2045), over the whole text."""
    yield "quoted_printable", quopri.decodestring(data[:_MAX_RUN]), 0, len(data)


# Letters or digits of one sort in a row, longer than chance gives in base 85.
_WORD_IN_RUN = re.compile(rb"[A-Za-z][a-z]{6}|[A-Z]{7}|[0-9]{7}")


def _is_base85(run: bytes) -> bool:
    """Whether a run is mixed as base 85 is: no address, no path, both cases and a fair share of punctuation."""
    if b"://" in run or b"www." in run or b"](" in run or _WORD_IN_RUN.search(run) is not None:
        return False
    marks = sum(1 for byte in run if not (48 <= byte < 58 or 65 <= byte < 91 or 97 <= byte < 123))
    return marks * 12 >= len(run) and run != run.lower() and run != run.upper()


def from_ascii85(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Ascii85 and base 85."""
    for match in islice(_A85.finditer(data), _MAX_RUNS):
        body = match.group(1) or match.group(2)
        if match.group(1) is None and not _is_base85(body):
            continue
        try:
            yield "ascii85", base64.a85decode(body[:_MAX_RUN]), match.start(), match.end()
        except ValueError:
            continue
    for match in islice(_B85.finditer(data), _MAX_RUNS):
        if not _is_base85(match.group(1)):
            continue
        try:
            yield "base85", base64.b85decode(match.group(1)[:_MAX_RUN]), match.start(), match.end()
        except ValueError:
            continue


def from_uuencode(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """uuencode, with or without its begin line."""
    for match in islice(_UU.finditer(data), _MAX_RUNS):
        plain = bytearray()
        for line in filter(None, match.group(1)[:_MAX_RUN].split(b"\n")):
            try:
                plain += binascii.a2b_uu(line)
            except binascii.Error:
                break
        yield "uuencode", bytes(plain), match.start(), match.end()


_ROT13: Final = bytes(codecs.encode(chr(code), "rot13").encode()[0] if code < 0x80 else code for code in range(256))
_ATBASH: Final = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"zyxwvutsrqponmlkjihgfedcba")


def from_rot13(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """ROT13, over the whole text."""
    yield "rot13", data.translate(_ROT13), 0, len(data)


def from_atbash(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """The reversed alphabet, over the whole text."""
    yield "atbash", data.lower().translate(_ATBASH), 0, len(data)


# The words of which one, shifted, triggers the trial of all shifts.
_SHIFTED: Final = (
    b"ignore",
    b"instructions",
    b"previous",
    b"system",
    b"prompt",
    b"password",
    b"reveal",
    b"forget",
    b"your",
    b"without",
    b"guidelines",
    b"restrictions",
    b"disregard",
    b"instruction",
    b"everything",
)
_SHIFTS: Final = {
    shift: bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", bytes(97 + (letter + shift) % 26 for letter in range(26)))
    for shift in range(1, 26)
    if shift != 13
}


def from_caesar(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """All other shifts of the alphabet in which a telling word appears."""
    low = data.lower()
    for table in _SHIFTS.values():
        plain = low.translate(table)
        if any(word in plain for word in _SHIFTED):
            yield "caesar", plain, 0, len(data)


def from_reverse(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """The text backwards, and the words backwards."""
    yield "reverse", data[::-1], 0, len(data)
    yield "reverse_words", reverse_words(data), 0, len(data)


def from_leet(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Digits and marks read as letters, in both readings of 1, where a known word appears that way."""
    low = data.lower()
    if not has_leet_word(low[:_MAX_RUN]):
        return
    for table in LEET_TABLES:
        yield "leet", low.translate(table), 0, len(data)


def from_spaced(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Letters that stand apart, closed up."""
    for plain in despace(data):
        yield "spaced", plain, 0, len(data)


def from_scrambled(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Known words whose inner letters are out of order."""
    plain = unscramble(data.lower())
    if plain is not None:
        yield "scrambled", plain, 0, len(data)


def from_pig_latin(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Pig latin, over the whole text."""
    yield "pig_latin", unpig(data.lower()), 0, len(data)


def from_brackets(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Single letters in brackets, read in a row."""
    plain = bracketed_letters(data.lower())
    if plain:
        yield "bracketed_letters", plain, 0, len(data)


_NATO: Final = {
    name.encode(): name[0].encode()
    for name in [
        "alpha",
        "bravo",
        "charlie",
        "delta",
        "echo",
        "foxtrot",
        "golf",
        "hotel",
        "india",
        "juliet",
        "juliett",
        "kilo",
        "lima",
        "mike",
        "november",
        "oscar",
        "papa",
        "quebec",
        "romeo",
        "sierra",
        "tango",
        "uniform",
        "victor",
        "whiskey",
        "whisky",
        "xray",
        "x-ray",
        "yankee",
        "zulu",
        "alfa",
    ]
}


def from_nato(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """The spelling alphabet, first letters only."""
    words = re.split(rb"([^a-z-]+)", data.lower())
    out = bytearray()
    for word in words:
        if word in _NATO:
            out += _NATO[word]
        elif word.strip(b" ") or len(word) > 1:
            out += b" "
    yield "nato", bytes(out), 0, len(data)


def shift_literals() -> str:
    """The telling words in every shift, as alternatives of one expression."""
    words = [
        word.translate(
            bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", bytes(97 + (i - shift) % 26 for i in range(26)))
        ).decode()
        for shift in _SHIFTS
        for word in _SHIFTED
        if len(word) > 5
    ]
    return "|".join(words)


NATO_WORDS: Final = "|".join(sorted(name.decode() for name in _NATO))
