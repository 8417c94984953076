"""Folding: one plain form of a text to match on, with the way back to the text's own offsets.

The folded form is bytes: ASCII where the text means ASCII (accents stripped, compatibility forms such as full-width or
mathematical letters resolved, invisible characters removed), UTF-8 for scripts that are not Latin. Patterns are
folded by
the same rules when they are loaded, so both sides always agree.

Three paths by cost: pure ASCII is taken as it is; what fits Windows-1252 (most Western text: accents, curly quotes,
dashes) is folded by one byte table, so offsets stay the same; everything else goes through a per-character table.
"""

import tomllib
import unicodedata
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Final

import msgspec

from aitrail.contentdir import content_path

_TABLES: Final = tomllib.loads(content_path("patterns", "lookalikes.toml").read_text(encoding="utf-8"))
_LATIN_LOOKALIKES: Final[dict[str, str]] = _TABLES["always"]
# Applied only to texts that mix scripts within a word, or the text of a Russian or Greek reader would be destroyed.
_CROSS_SCRIPT: Final[dict[str, str]] = _TABLES["in_mixed_words"]


def _squared() -> dict[int, str]:
    """Letters in negative circles and squares, and regional indicators: no normalization form resolves them."""
    table: dict[int, str] = {}
    for start in (0x1F150, 0x1F170, 0x1F1E6):
        table.update({start + offset: chr(97 + offset) for offset in range(26)})
    table.update({0x249C + offset: chr(97 + offset) for offset in range(26)})
    # Mathematical letters, with the places that were never assigned because an older letter has that form.
    table.update(
        {code: chr((65, 97)[at // 26] + at % 26) for code in range(0x1D400, 0x1D6A4) for at in ((code - 0x1D400) % 52,)}
    )
    table.update({0x24FF: "0", 0x2776 - 1: "\u2775"})
    table.update({0x2775 + digit: str(digit) for digit in range(1, 10)})
    return table


_SQUARED: Final = _squared()


_RARE_PLANES: Final = 0x20000
_TAG_PLANE: Final = 0xE0000


def fold_char(char: str) -> str:
    """Fold one character: ASCII where it means ASCII, nothing when it is invisible or a mark, else lower-case."""
    code = ord(char)
    if code < 0x80:
        return char
    if _RARE_PLANES <= code < _TAG_PLANE:  # ideographs and unassigned: nothing to fold
        return char
    special = _LATIN_LOOKALIKES.get(char) or _SQUARED.get(code)
    if special:
        return special
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf", "Cs") or code in (0x3164, 0xFFA0) or 0x115F <= code <= 0x1160:
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


_MAX_TABLE: Final = 100_000


class _Table(dict[int, str]):
    """A translation table that fills itself, up to a bound."""

    def __missing__(self, code: int) -> str:
        value = fold_char(chr(code))
        if len(self) < _MAX_TABLE:
            self[code] = value
        return value


class _SkeletonTable(dict[int, str]):
    """The same, with letters of other scripts read as the Latin letters they look like."""

    def __missing__(self, code: int) -> str:
        value = _CROSS_SCRIPT.get(chr(code)) or fold_char(chr(code))
        if len(self) < _MAX_TABLE:
            self[code] = value
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
        ends: cache of ``span``.
        plain: whether the text holds nothing that could be hidden in code points.
    """

    raw: bytes
    low: bytes
    text: str
    skeleton: bool = False
    identity: bool = True
    plain: bool = True

    ends: list[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Translate byte offsets of the folded form to character offsets of the text."""
        if self.identity:
            return start, end
        if self.ends is None:
            self.ends = _ends(self.text, _SKELETON if self.skeleton else _TABLE)
        first = bisect_right(self.ends, start)
        return min(first, len(self.text)), min(bisect_left(self.ends, end) + 1, len(self.text))


def _ends(text: str, table: dict[int, str]) -> list[int]:
    """For every character the offset behind its folded bytes."""
    return list(accumulate(1 if char < "\x80" else _width(table[ord(char)]) for char in text))


@lru_cache(maxsize=16384)
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
