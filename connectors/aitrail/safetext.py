r"""Untrusted text made safe to look at: on a terminal, in a page, in JSON and in a spreadsheet.

Escape sequences, bidirectional controls and other invisible characters are shown as ``\x1b``, ``\u202e``; CSV cells
that a spreadsheet would run as a formula get an apostrophe in front (OWASP, "CSV Injection").
"""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Controls, formats (bidi, zero width, tags), surrogates, private use, unassigned, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


@lru_cache(maxsize=4096)
def _visible(char: str) -> str:
    if unicodedata.category(char) not in _INVISIBLE:
        return char
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str, *, lines: bool = False) -> str:
    """Give ``text`` with everything invisible or active made visible; ``lines`` keeps line feeds."""
    if text.isprintable():
        return text
    return "".join(char if lines and char == "\n" else _visible(char) for char in text)


def as_json(value: Any) -> str:
    """JSON text without a raw control or bidirectional character; times are RFC 3339 in UTC."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char == "\n" else _json_escape(char) for char in text)


@lru_cache(maxsize=4096)
def _json_escape(char: str) -> str:
    if unicodedata.category(char) not in _INVISIBLE:
        return char
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"


def _plain(value: Any) -> Any:
    """Turn what a query can give into what JSON can say: NaN and infinity are null, decimals numbers."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def csv_cell(value: Any) -> Any:
    """One CSV cell: numbers as they are, texts clean and harmless in a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return value
    if isinstance(value, datetime | bytes):
        return _scalar(value)
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    guard = "'" if text.lstrip(" ").startswith(_FORMULA) else ""
    return guard + clean(text)


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text (RFC 4180, lines end with LF) of one table."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in header])
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return out.getvalue()
