"""Decoders: what a text says once its encoding or disguise is undone.

Every decoder runs only behind its trigger, a byte class or a few literals that the first pass looks for anyway, or a class
of code points. A decoder gives the decoded text as a layer; layers are searched like texts and may be decoded again, up to
a depth, a number of layers and a number of bytes. That something is encoded is never evidence by itself.
"""

import base64
import binascii
import codecs
import html
import quopri
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from aitrail.classify.disguise import LEET_TABLES, bracketed_letters, despace, reverse_words, unpig, unscramble
from aitrail.classify.engine import compile_set
from aitrail.classify.fold import Folded, fold

MAX_LAYERS: Final = 24
MAX_DEPTH: Final = 3
MAX_DECODED: Final = 65_536
# Runs longer than this are cut: what is hidden in the middle of a megabyte of base64 is a file, not a prompt.
_MAX_RUN: Final = 16_384
_MIN_DECODED: Final = 6


class Layer(msgspec.Struct, frozen=True, gc=False):
    """One decoded form: how it was made, its folded text, and where in the judged text it came from."""

    name: str
    data: bytes
    start: int
    end: int


def _readable(data: bytes) -> str | None:
    """Decode bytes as text when that is what they are: mostly letters and spaces, no control characters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(text) < _MIN_DECODED:
        return None
    sample = text[:400]
    good = sum(1 for char in sample if char.isalnum() or char in " .,!?'\"\n-:;()<>[]{}|/_=#*@")
    letters = sum(1 for char in sample if char.isalpha() or char == " ")
    return text if good >= 0.95 * len(sample) and letters >= 0.5 * len(sample) else None


_B64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}(?:\r?\n[A-Za-z0-9+/_-]{16,}={0,2})*")
_B32 = re.compile(rb"[A-Z2-7]{16,}={0,6}|[a-z2-7]{24,}={0,6}")
_HEX = re.compile(rb"(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[\s,:;-]{0,2}){6,}")
_BIN = re.compile(rb"(?:[01]{7,8}[\s,;_-]{0,2}){3,}|[01]{24,}")
_DEC = re.compile(rb"(?:[0-9]{2,3}[\s,;.-]{1,2}){5,}[0-9]{2,3}")
_MORSE = re.compile(rb"(?:[.\-_*]{1,7}[ /|]{1,3}){5,}[.\-_*]{0,7}")
_A85 = re.compile(rb"<~([!-uz\s]{8,})~>|(?<![!-~])([!-uz]{20,})(?![!-~])")
_B85 = re.compile(rb"(?<![!-~])([0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{20,})(?![!-~])")
_UU = re.compile(rb"(?:^|\n)(?:begin [0-7]{3} [^\n]*\n)?((?:[!-M][!-`]{4,60}\n?)+)")
_ESCAPE = re.compile(rb"\\u\{?([0-9A-Fa-f]{4,6})\}?|\\x([0-9A-Fa-f]{2})|\\([0-7]{3})|U\+([0-9A-Fa-f]{4,6})[ ,]?")


def _base64(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _B64.finditer(data):
        run = re.sub(rb"[\s=]", b"", match.group()[:_MAX_RUN]).replace(b"-", b"+").replace(b"_", b"/")
        for shift in range(4):  # a run may start with letters that belong to the text before it
            body = run[shift:]
            body = body[: len(body) - (len(body) % 4 == 1)]
            try:
                plain = base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
            except (binascii.Error, ValueError):
                continue
            if _readable(plain):
                yield "base64", plain, match.start(), match.end()
                break


def _base32(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _B32.finditer(data):
        run = match.group()[:_MAX_RUN].rstrip(b"=").upper()
        run = run[: len(run) - (len(run) % 8 in (1, 3, 6))]
        try:
            plain = base64.b32decode(run + b"=" * (-len(run) % 8))
        except (binascii.Error, ValueError):
            continue
        yield "base32", plain, match.start(), match.end()


def _hex(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _HEX.finditer(data):
        digits = re.sub(rb"\\x|0x|[%\s,:;-]", b"", match.group()[:_MAX_RUN])
        digits = digits[: len(digits) // 2 * 2]
        try:
            yield "hex", bytes.fromhex(digits.decode("ascii")), match.start(), match.end()
        except ValueError:
            continue


def _binary(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _BIN.finditer(data):
        groups = re.findall(rb"[01]{7,8}", match.group()[:_MAX_RUN])
        yield "binary", bytes(int(group, 2) for group in groups), match.start(), match.end()


def _decimal(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _DEC.finditer(data):
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
        (
            ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
            "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. .----. -.-.-- -..-. -.--. "
            "-.--.- .-... ---... -.-.-. -...- .-.-. -....- ..--.- .-..-. ...-..- .--.-."
        ).split(),
        "abcdefghijklmnopqrstuvwxyz0123456789.,?'!/()&:;=+-_\"$@",
        strict=True,
    )
)


def _morse(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _MORSE.finditer(data):
        text = match.group()[:_MAX_RUN].decode("ascii").replace("_", "-").replace("*", ".")
        words = re.split(r" */ *| {2,}|\|", text)
        plain = " ".join("".join(_MORSE_CODE.get(code, "") for code in word.split()) for word in words)
        yield "morse", plain.encode(), match.start(), match.end()


def _url(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "url", unquote_to_bytes(data[:_MAX_RUN].replace(b"+", b" ")), 0, len(data)


def _html(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "html_entity", html.unescape(data[:_MAX_RUN].decode("utf-8", "replace")).encode("utf-8", "replace"), 0, len(data)


def _escapes(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    def one(match: re.Match[bytes]) -> bytes:
        code = int(match.group(1) or match.group(2) or match.group(4) or b"0", 16) or int(match.group(3) or b"0", 8)
        return chr(code).encode("utf-8", "replace") if 0 < code < 0x110000 else b""

    yield "escape", _ESCAPE.sub(one, data[:_MAX_RUN]), 0, len(data)


def _quoted_printable(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "quoted_printable", quopri.decodestring(data[:_MAX_RUN]), 0, len(data)


def _ascii85(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _A85.finditer(data):
        body = match.group(1) or match.group(2)
        try:
            yield "ascii85", base64.a85decode(body[:_MAX_RUN]), match.start(), match.end()
        except ValueError:
            continue
    for match in _B85.finditer(data):
        try:
            yield "base85", base64.b85decode(match.group(1)[:_MAX_RUN]), match.start(), match.end()
        except ValueError:
            continue


def _uuencode(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for match in _UU.finditer(data):
        plain = bytearray()
        for line in match.group(1)[:_MAX_RUN].split(b"\n"):
            try:
                plain += binascii.a2b_uu(line)
            except binascii.Error:
                break
        yield "uuencode", bytes(plain), match.start(), match.end()


_ROT13: Final = bytes(codecs.encode(chr(code), "rot13").encode()[0] if code < 0x80 else code for code in range(256))
_ATBASH: Final = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"zyxwvutsrqponmlkjihgfedcba")


def _rot13(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "rot13", data.translate(_ROT13), 0, len(data)


def _atbash(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "atbash", data.lower().translate(_ATBASH), 0, len(data)


# The words of which one, shifted, triggers the trial of all shifts.
_SHIFTED: Final = (b"ignore", b"instructions", b"previous", b"system", b"prompt", b"password", b"reveal", b"forget", b"your")
_SHIFTS: Final = {
    shift: bytes.maketrans(
        b"abcdefghijklmnopqrstuvwxyz", bytes(97 + (letter + shift) % 26 for letter in range(26))
    )
    for shift in range(1, 26)
    if shift != 13
}


def _caesar(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    low = data.lower()
    for table in _SHIFTS.values():
        plain = low.translate(table)
        if any(word in plain for word in _SHIFTED):
            yield "caesar", plain, 0, len(data)


def _reverse(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "reverse", data[::-1], 0, len(data)
    yield "reverse_words", reverse_words(data), 0, len(data)


def _leet(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    low = data.lower()
    for table in LEET_TABLES:
        yield "leet", low.translate(table), 0, len(data)


def _spaced(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    for plain in despace(data):
        yield "spaced", plain, 0, len(data)


def _scrambled(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    plain = unscramble(data.lower())
    if plain is not None:
        yield "scrambled", plain, 0, len(data)


def _pig_latin(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    yield "pig_latin", unpig(data.lower()), 0, len(data)


def _brackets(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    plain = bracketed_letters(data.lower())
    if plain:
        yield "bracketed_letters", plain, 0, len(data)


_NATO: Final = {
    name.encode(): name[0].encode()
    for name in (
        "alpha bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa quebec "
        "romeo sierra tango uniform victor whiskey whisky xray x-ray yankee zulu alfa"
    ).split()
}


def _nato(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    words = re.split(rb"([^a-z-]+)", data.lower())
    out = bytearray()
    for word in words:
        if word in _NATO:
            out += _NATO[word]
        elif word.strip(b" ") or len(word) > 1:
            out += b" "
    yield "nato", bytes(out), 0, len(data)


def _shift_literals() -> str:
    words = [
        word.translate(bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", bytes(97 + (i - shift) % 26 for i in range(26)))).decode()
        for shift in _SHIFTS
        for word in _SHIFTED
        if len(word) > 5
    ]
    return "|".join(words)


_NATO_WORDS: Final = "|".join(sorted(name.decode() for name in _NATO))

# An expression over folded lower-case bytes and the decoder behind it. Those of the first table are looked for in every
# text; those of the second only where one of ``SHAPES`` says that there is a run or a row of tokens of that kind.
Decoder = Callable[[bytes], Iterator[tuple[str, bytes, int, int]]]
_BY_WORD: Final[tuple[tuple[bytes, Decoder], ...]] = (
    (rb"%[0-9a-f]{2}[^ \n]{0,24}%[0-9a-f]{2}", _url),
    (rb"&#x?[0-9a-f]{1,6};?&?|&(?:lt|gt|quot|amp|lbrack|nbsp|excl|colon|comma|period);", _html),
    (rb"\\u\{?[0-9a-f]{4}|\\x[0-9a-f]{2}|\\[0-7]{3}\\|u\+[0-9a-f]{4}", _escapes),
    (rb"=[0-9a-f]{2}[^ \n]{0,3}=[0-9a-f]{2}", _quoted_printable),
    (rb"\b(?:gur|naq|lbh|lbhe|jung|guvf|jvgu|vtaber|vafgehpgvbaf?|flfgrz|cebzcg|cerivbhf|cnffjbeq|sbetrg)\b", _rot13),
    (rb"\b(?:gsv|zmw|blfi|gsrh|rtmliv|rmhgifxgrlmh?|hbhgvn|kilnkg|kiverlfh|dszg)\b", _atbash),
    (_shift_literals().encode(), _caesar),
    (rb"\b(?:eht|ruoy|uoy|siht|htiw|erongi|snoitcurtsni|noitcurtsni|metsys|tpmorp|suoiverp|tegrof|drawssap|laever)\b", _reverse),
    (rb"[a-z][013457@$!|+][a-z].{0,30}[a-z0-9][013457@$!|+][a-z]|[0-9@$!][a-z][0-9@$!]|[a-z][0-9][0-9][a-z]", _leet),
    (rb"\b[a-z]{2,12}ay [a-z]{1,14}ay [a-z]{1,14}ay\b", _pig_latin),
    (rb"\([a-z ']\)[a-z ]|[a-z ]\([a-z ']\)\n", _brackets),
    (
        rb"\b(?:foxtrot|quebec|yankee|whiskey|zulu|tango|juliett?|uniform|november|romeo|sierra|echo) (?:" + _NATO_WORDS.encode() + rb") ",
        _nato,
    ),
)
SHAPES: Final = (
    rb"[!-~]{22}",
    rb"[!-~]{1,3}[ ,/|:;\n]{1,3}[!-~]{1,3}[ ,/|:;\n]{1,3}[!-~]{1,2}[ ,/|:;\n]{1,3}[!-~]{1,3}[ ,/|:;\n]{1,3}[!-~]{1,2}[ ,/|:;\n]",
    rb"[a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+][a-z0-9][._\-*|/~+]",
    rb"[01]{7}",
)
_BY_SHAPE: Final[tuple[tuple[bytes, Decoder], ...]] = (
    (rb"[a-z0-9+/_\-]{22}", _base64),
    (rb"[a-z2-7]{22}", _base32),
    (rb"(?:[0-9a-f]{2}[ :,\-]){8}|(?:\\x|0x)[0-9a-f]{2}[ ,]{0,2}(?:\\x|0x)[0-9a-f]{2}|[0-9a-f]{20}", _hex),
    (rb"[01]{7,8}[ ,\n_\-]?[01]{7,8}[ ,\n_\-]?[01]{7,8}", _binary),
    (rb"(?:[0-9]{2,3}[ ,;\-]{1,2}){6}", _decimal),
    (rb"(?:[.\-_*]{1,6}[ /|]{1,3}){6}", _morse),
    (rb"[!-~]{24}", _ascii85),
    (rb"begin [0-7]{3} |\n?[!-`]{32}", _uuencode),
    (rb"\b[a-z][ ._\-*|/~+,\n]{1,3}[a-z][ ._\-*|/~+,\n]{1,3}[a-z][ ._\-*|/~+,\n]{1,3}[a-z][ ._\-*|/~+,\n]{1,3}[a-z]\b", _spaced),
)
# Words of the patterns with their inner letters in any order: looked for in short texts only.
_SCRAMBLE: Final = (
    rb"\b(?:i[gnor]{4}e|p[reviou]{6}s|i[nstruco]{10}s|i[nstruco]{9}n|d[isrega]{7}d|f[orge]{4}t|r[evea]{4}l|p[romp]{4}t|"
    rb"p[aswor]{6}d|g[uideln]{8}s|r[estriconi]{10}s|s[yste]{4}m|s[ecr]{4}t|o[verid]{6}e|e[verythin]{8}g|"
    rb"a[signmet]{9}s|d[ocumet]{7}s|b[efor]{4}e|b[ypas]{4}s)\b"
)
_SCRAMBLE_LIMIT: Final = 2_000

TRIGGERS: Final = (*(trigger for trigger, _ in _BY_WORD), *SHAPES)


class Decoders:
    """The decoders with the sets that say which of them to run. Thread-safe."""

    def __init__(self, engine: str = "auto") -> None:
        self._shapes = compile_set([trigger for trigger, _ in _BY_SHAPE], engine)
        self._scramble = compile_set([_SCRAMBLE], engine)

    def scrambled(self, folded: Folded) -> bool:
        """Whether a short text may hold scrambled words; longer texts are not looked at for them."""
        return len(folded.low) <= _SCRAMBLE_LIMIT and bool(self._scramble.match(folded.low))

    def run(self, folded: Folded, triggered: Sequence[int], *, scrambled: bool) -> Iterator[tuple[str, Folded, int, int]]:
        """Run the decoders whose triggers fired; yields name, decoded text (folded) and the span it was decoded from.

        Spans are character offsets of the text that was folded.
        """
        chosen = [_BY_WORD[number][1] for number in triggered if number < len(_BY_WORD)]
        if any(number >= len(_BY_WORD) for number in triggered):
            chosen += [_BY_SHAPE[number][1] for number in self._shapes.match(folded.low)]
        if scrambled:
            chosen.append(_scrambled)
        for decoder in chosen:
            for name, plain, start, end in decoder(folded.raw):
                text = _readable(plain)
                if text is None:
                    continue
                inner = fold(text)
                if inner.low != folded.low:
                    begin, finish = folded.span(start, end)
                    yield name, inner, begin, finish
