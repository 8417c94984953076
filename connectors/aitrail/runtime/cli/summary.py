"""What a collection did, in a few lines that a tired person can read."""

import msgspec
from rich.console import Console
from rich.table import Table

from aitrail.normalize.outcome import REASONS
from aitrail.pipeline import Totals


def print_summary(console: Console, totals: Totals, notes: list[str], seconds: float) -> None:
    """Print counts, what was skipped or rejected and why, and what waits."""
    rate = totals.records / seconds if seconds > 0 else 0.0
    console.print(
        f"[bold]{totals.new:,}[/] new events from {totals.records:,} records in {totals.objects:,} files"
        f" ({_size(totals.bytes)}), {seconds:.1f} s, {rate:,.0f} records/s",
        highlight=False,
    )
    if totals.duplicates:
        console.print(f"{totals.duplicates:,} already known (same event_id): stored once", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for code, count in totals.skipped.most_common():
        table.add_row(f"{count:,}", f"skipped: {code}", REASONS.get(code, ""))
    for code, count in totals.rejected.most_common():
        table.add_row(f"{count:,}", f"[yellow]dead letter: {code}[/]", REASONS.get(code, ""))
    if table.row_count:
        console.print(table)
    if totals.rejected:
        console.print("look at them: [bold]aitrail deadletter list[/]")
    for note in notes:
        console.print(f"note: {note}", markup=False, style="yellow")


def as_json(totals: Totals, notes: list[str], seconds: float) -> str:
    """The same for programs."""
    plain = {**msgspec.to_builtins(totals), "notes": notes, "seconds": round(seconds, 3)}
    return msgspec.json.encode(plain).decode()


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
