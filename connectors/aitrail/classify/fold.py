"""Folding: one plain form of a text to match on, with the way back to the text's own offsets.

The folded form is bytes: ASCII where the text means ASCII (accents stripped, compatibility forms such as full-width or
mathematical letters resolved, invisible characters removed), UTF-8 for scripts that are not Latin. Patterns are folded by
the same rules when they are loaded, so both sides always agree.

Three paths by cost: pure ASCII is taken as it is; what fits Windows-1252 (most Western text: accents, curly quotes,
dashes) is folded by one byte table, so offsets stay the same; everything else goes through a per-character table.
"""

import unicodedata
from functools import lru_cache
from typing import Final

import msgspec

# Letters of the Latin alphabet that look like another letter and that no normalization form resolves.
_LATIN_LOOKALIKES: Final = {
    "ı": "i", "ȷ": "j", "ɑ": "a", "ɡ": "g", "ɩ": "i", "ɪ": "i", "ʏ": "y", "ɴ": "n", "ʀ": "r", "ʙ": "b", "ʜ": "h",
    "ʟ": "l", "ɢ": "g", "ꜰ": "f", "ꜱ": "s", "ᴀ": "a", "ᴄ": "c", "ᴅ": "d", "ᴇ": "e", "ᴊ": "j", "ᴋ": "k", "ᴍ": "m",
    "ᴏ": "o", "ᴘ": "p", "ᴛ": "t", "ᴜ": "u", "ᴠ": "v", "ᴡ": "w", "ᴢ": "z", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ħ": "h", "ŧ": "t", "ƒ": "f", "ɛ": "e", "ɔ": "o", "ʋ": "u", "ɯ": "w", "ɾ": "r", "ɫ": "l",
    "ɐ": "a", "ǝ": "e", "ɟ": "f", "ɥ": "h", "ᴉ": "i", "ʞ": "k", "ʇ": "t", "ʌ": "v", "ʍ": "w", "ʎ": "y", "ɹ": "r",
    "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "ð": "d", "ƃ": "b", "ᵷ": "g", "ꞁ": "l",
    "ƙ": "k", "ɱ": "m", "ƞ": "n", "ɲ": "n", "ŋ": "n", "ƭ": "t", "ʈ": "t", "ʂ": "s", "ʐ": "z", "ɖ": "d", "ɗ": "d",
    "ƈ": "c", "ɕ": "c", "ɓ": "b", "ɠ": "g", "ɦ": "h", "ɨ": "i", "ɬ": "l", "ƥ": "p", "ɋ": "q", "ɍ": "r", "ƴ": "y",
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‹": "'", "›": "'",
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "⁄": "/", "∕": "/", "…": "...",
    "•": "*", "·": ".", "∙": ".", "`": "`", "´": "'", "ʼ": "'", "ˈ": "'", "。": ".", "、": ",", "،": ",",
}  # fmt: skip

# Letters of other scripts that look like a Latin letter. Applied only to texts that mix scripts within a word, or the
# text of a Russian or Greek reader would be destroyed.
_CROSS_SCRIPT: Final = {
    "а": "a", "А": "A", "в": "b", "В": "B", "с": "c", "С": "C", "ԁ": "d", "е": "e", "Е": "E", "ё": "e", "є": "e",
    "һ": "h", "н": "h", "Н": "H", "і": "i", "І": "I", "ї": "i", "Ї": "I", "ј": "j", "Ј": "J", "к": "k", "К": "K",
    "м": "m", "М": "M", "о": "o", "О": "O", "п": "n", "р": "p", "Р": "P", "ԛ": "q", "г": "r", "ѕ": "s", "Ѕ": "S",
    "т": "t", "Т": "T", "у": "y", "У": "Y", "ѵ": "v", "Ѵ": "V", "ԝ": "w", "Ԝ": "W", "ш": "w", "щ": "w", "х": "x",
    "Х": "X", "ү": "y", "Ү": "Y", "ӏ": "l", "Ӏ": "l", "з": "3", "З": "3", "ь": "b", "ъ": "b", "я": "r", "и": "n",
    "г̇": "r", "ӕ": "ae", "Ꙅ": "S", "ꙅ": "s", "Ԍ": "G", "ԍ": "g", "Ԛ": "Q", "ҽ": "e", "ӊ": "h", "ң": "h", "қ": "k",
    "α": "a", "Α": "A", "β": "b", "Β": "B", "ϲ": "c", "Ϲ": "C", "δ": "d", "ε": "e", "Ε": "E", "ζ": "z", "Ζ": "Z",
    "η": "n", "Η": "H", "θ": "o", "ι": "i", "Ι": "I", "κ": "k", "Κ": "K", "λ": "l", "μ": "u", "Μ": "M", "ν": "v",
    "Ν": "N", "ο": "o", "Ο": "O", "π": "n", "ρ": "p", "Ρ": "P", "σ": "o", "ς": "c", "τ": "t", "Τ": "T", "υ": "u",
    "Υ": "Y", "φ": "f", "χ": "x", "Χ": "X", "ω": "w", "γ": "y", "ϳ": "j", "ϱ": "p", "Ϻ": "M",
    "ա": "w", "ց": "g", "հ": "h", "ո": "n", "օ": "o", "Օ": "O", "ս": "u", "Ս": "U", "լ": "l", "զ": "q", "ք": "p",
    "յ": "j", "ԝ": "w", "ե": "t", "ռ": "n", "Տ": "S", "ժ": "d", "ɑ": "a", "ք": "p", "ց": "g", "կ": "l", "Լ": "L",
    "Ꭺ": "A", "Ᏼ": "B", "Ꮯ": "C", "Ꭰ": "D", "Ꭼ": "E", "Ꮐ": "G", "Ꮋ": "H", "Ꭵ": "i", "Ꭻ": "J", "Ꮶ": "K", "Ꮮ": "L",
    "Ꮇ": "M", "Ꮲ": "P", "Ꭱ": "R", "Ꮪ": "S", "Ꭲ": "T", "Ꮩ": "V", "Ꮃ": "W", "Ꮓ": "Z", "Ꮍ": "Y", "Ꮎ": "O", "Ꮷ": "d",
    "ᏻ": "u", "ꮃ": "w", "ꭺ": "a", "ꭼ": "e", "ꮯ": "c", "ꮪ": "s", "ꭱ": "r", "ꭲ": "t", "Ꮤ": "W", "ᏼ": "b",
    "ߋ": "o", "౦": "o", "೦": "o", "ഠ": "o", "๐": "o", "໐": "o", "၀": "o", "ⲟ": "o", "ⲣ": "p", "ⲥ": "c", "ⲓ": "i",
    "ⲁ": "a", "ⲉ": "e", "ⲏ": "h", "ⲕ": "k", "ⲙ": "m", "ⲛ": "n", "ⲧ": "t", "ⲩ": "y", "ⲭ": "x", "ⲅ": "r", "ⲇ": "d",
}  # fmt: skip


def _squared() -> dict[int, str]:
    """Letters in negative circles and squares, and regional indicators: no normalization form resolves them."""
    table: dict[int, str] = {}
    for start in (0x1F150, 0x1F170, 0x1F1E6):
        table.update({start + offset: chr(97 + offset) for offset in range(26)})
    table.update({0x24FF: "0", 0x2776 - 1: "\u2775"})
    table.update({0x2775 + digit: str(digit) for digit in range(1, 10)})
    return table


_SQUARED: Final = _squared()


def fold_char(char: str) -> str:
    """Fold one character: ASCII where it means ASCII, nothing when it is invisible or a mark, else lower-case."""
    code = ord(char)
    if code < 0x80:
        return char
    special = _LATIN_LOOKALIKES.get(char) or _SQUARED.get(code)
    if special:
        return special
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf", "Cs") or code == 0x3164 or 0xFFA0 == code or 0x115F <= code <= 0x1160:
        return "?" if category == "Cs" else ""
    if category in ("Zs", "Zl", "Zp"):
        return " " if category == "Zs" else "\n"
    if category == "Cc":
        return " "
    out = []
    for part in unicodedata.normalize("NFKD", char):
        kind = unicodedata.category(part)
        if kind in ("Mn", "Me", "Cf"):
            continue
        if part.isascii():
            out.append(part)
        elif kind[0] in "PS":  # emoji, dingbats, brackets of other scripts: separators, not letters
            out.append(_LATIN_LOOKALIKES.get(part, " "))
        else:
            out.append(_LATIN_LOOKALIKES.get(part, part.lower()))
    return "".join(out)


class _Table(dict[int, str]):
    """A translation table that fills itself; bounded by the number of Unicode characters."""

    def __missing__(self, code: int) -> str:
        value = self[code] = fold_char(chr(code))
        return value


class _SkeletonTable(dict[int, str]):
    """The same, with letters of other scripts read as the Latin letters they look like."""

    def __missing__(self, code: int) -> str:
        value = self[code] = _CROSS_SCRIPT.get(chr(code)) or fold_char(chr(code))
        return value


_TABLE: Final = _Table()
_SKELETON: Final = _SkeletonTable()


def _cp1252_table() -> bytes:
    """The byte table for Windows-1252: one ASCII byte for each byte that has one, a space or '?' for the rest."""
    table = bytearray(range(256))
    for byte in range(0x80, 0x100):
        try:
            folded = fold_char(bytes([byte]).decode("cp1252"))
        except UnicodeDecodeError:
            folded = "?"
        first = folded[:1]
        table[byte] = ord(first) if first.isascii() and first else 0x3F
    table[0xAD] = 0x2D
    return bytes(table)


_CP1252: Final = _cp1252_table()
# Characters of cp1252 that fold to nothing or to more than one letter take the exact path.
_CP1252_EXACT: Final = ("\xad", "ß", "æ", "Æ", "œ", "Œ", "þ", "Þ", "½", "¼", "¾", "…", "™")


class Folded(msgspec.Struct, gc=False):
    """A text in folded form.

    Attributes:
        raw: folded bytes, case of ASCII letters kept.
        low: the same in lower case: what patterns are matched on.
        text: the text that was folded.
        skeleton: whether letters of other scripts were read as Latin ones.
        identity: whether byte offsets are the text's own character offsets.
        plain: whether the text holds nothing that could be hidden in code points.
    """

    raw: bytes
    low: bytes
    text: str
    skeleton: bool = False
    identity: bool = True
    plain: bool = True

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Translate byte offsets of the folded form to character offsets of the text."""
        if self.identity:
            return start, end
        return _way_back(self.text, self.skeleton, start, end)


def _way_back(text: str, skeleton: bool, start: int, end: int) -> tuple[int, int]:
    """Walk the text once, counting folded bytes. Linear, and only for evidence that is reported."""
    table: dict[int, str] = _SKELETON if skeleton else _TABLE
    position = 0
    first = -1
    for index, char in enumerate(text):
        width = 1 if char < "\x80" else _width(table[ord(char)])
        if first < 0 and position + width > start:
            first = index
        position += width
        if position >= end:
            return max(first, 0), index + 1
    return max(first, 0), len(text)


@lru_cache(maxsize=4096)
def _width(folded: str) -> int:
    return len(folded.encode("utf-8", "replace"))


def fold(text: str) -> Folded:
    """Fold ``text``; never raises, whatever the text holds."""
    if text.isascii():
        raw = text.encode("ascii")
        return Folded(raw, raw.lower(), text, plain=b"\x08" not in raw)
    try:
        raw = text.encode("cp1252").translate(_CP1252)
    except UnicodeEncodeError:
        pass
    else:
        if not any(char in text for char in _CP1252_EXACT):
            return Folded(raw, raw.lower(), text)
    raw = text.translate(_TABLE).encode("utf-8", "replace")
    return Folded(raw, raw.lower(), text, identity=False, plain=False)


def skeleton(text: str) -> Folded:
    """Fold ``text`` with letters of other scripts read as the Latin letters they look like."""
    raw = text.translate(_SKELETON).encode("utf-8", "replace")
    return Folded(raw, raw.lower(), text, skeleton=True, identity=False, plain=False)


def fold_pattern(text: str) -> str:
    """Fold the literal characters of a pattern the way texts are folded, in lower case."""
    return "".join(fold_char(char) for char in text).lower()
