r"""Output that is safe to look at: every text that came from a record passes ``clean`` before it reaches a person.

Formats: terminal tables (rich, always as ``Text``, never as markup), JSON and CSV. Escape sequences, bidirectional
controls and other invisible characters are shown as ``\x1b``, ``\u202e``; CSV cells that a spreadsheet would run as a
formula get an apostrophe in front (OWASP, "CSV Injection").
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aitrail.safetext import as_csv, as_json, clean, csv_cell

# Commands get all that is for output from here; these four live where the console reaches them as well.
__all__ = ["as_csv", "as_json", "clean", "csv_cell"]

# Where output goes to no terminal, lines may be longer than 80; COLUMNS still decides when it is set.
PIPED_WIDTH = 140
# Below this width only the columns that matter most are shown.
NARROW = 100
# How much of an event id is shown in tables; `aitrail explain` takes a beginning.
ID_SHOWN = 12
CELL_SHOWN = 120
Kind = Literal["text", "plain", "count", "usd", "ms", "score", "time", "id"]


class Column(msgspec.Struct, frozen=True):
    """How one column is shown: its label, what its values are, and how wide a terminal must be to show it."""

    name: str
    label: str
    kind: Kind = "text"
    from_width: int = 0


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
