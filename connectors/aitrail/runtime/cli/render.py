r"""Output that is safe to look at: every text that came from a record passes ``clean`` before it reaches a person.

Formats: terminal tables (rich, always as ``Text``, never as markup), JSON and CSV. Escape sequences, bidirectional
controls and other invisible characters are shown as ``\x1b``, ``\u202e``; CSV cells that a spreadsheet would run as a
formula get an apostrophe in front (OWASP, "CSV Injection").
"""

import csv
import io
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Where output goes to no terminal, lines may be longer than 80; COLUMNS still decides when it is set.
PIPED_WIDTH = 140
# Below this width only the columns that matter most are shown.
NARROW = 100
# How much of an event id is shown in tables; `aitrail explain` takes a beginning.
ID_SHOWN = 12
CELL_SHOWN = 120
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Controls, formats (bidi, zero width, tags), surrogates, private use, unassigned, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

Kind = Literal["text", "plain", "count", "usd", "ms", "score", "time", "id"]


class Column(msgspec.Struct, frozen=True):
    """How one column is shown: its label, what its values are, and how wide a terminal must be to show it."""

    name: str
    label: str
    kind: Kind = "text"
    from_width: int = 0


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


def shown(value: Any, kind: Kind = "text", *, narrow: bool = False) -> str:
    """Format one value for people; a missing one is empty. The result is clean; ``narrow`` shortens times."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%m-%d %H:%M}" if narrow else f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | Decimal):
        return _NUMBERS.get(kind, _grouped)(value if isinstance(value, int) else float(value))
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return clean(text[:ID_SHOWN] if kind == "id" else text)


def _grouped(number: float) -> str:
    return f"{number:,}"


_NUMBERS: Mapping[str, Callable[[float], str]] = {
    "usd": lambda number: f"{number:,.2f}" if number >= 1 or number == 0 else f"{number:.4f}",
    "ms": lambda number: f"{number:,.0f}",
    "score": lambda number: f"{number:g}",
    "plain": str,
    "count": lambda number: f"{number:,.0f}",
}


def console(*, stderr: bool = False) -> Console:
    """The console for this output: the terminal's width, or a fixed one when piped; no markup, no highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def capped(text: str, most: int) -> str:
    """Cut ``text`` to ``most`` characters, with an ellipsis in its place."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(count: int, noun: str) -> str:
    """``1 day``, ``2 days``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    width: int,
    styles: Mapping[str, str] | None = None,
    *,
    most: int = CELL_SHOWN,
) -> Table:
    """Lay out ``rows`` for ``width`` columns.

    Args:
        columns: what is shown, and how.
        rows: the values, in the order of ``columns``.
        width: the terminal's width; columns that need more are left out.
        styles: maps a cell's exact text to a style (outcomes, tiers).
        most: longer cells are cut: one record must not fill the screen.
    """
    narrow = width < NARROW
    kept = [(index, column) for index, column in enumerate(columns) if width >= column.from_width]
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for _, column in kept:
        left = column.kind in ("text", "time", "id")
        out.add_column(
            Text(clean(column.label)),
            justify="left" if left else "right",
            overflow="fold",
            no_wrap=column.kind != "text",
        )
    for row in rows:
        cells = [capped(shown(row[index], column.kind, narrow=narrow), most) for index, column in kept]
        out.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in cells))
    return out


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
