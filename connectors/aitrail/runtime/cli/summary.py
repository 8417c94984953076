"""What a collection did, in a few lines that a tired person can read."""

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aitrail.normalize.outcome import REASONS
from aitrail.pipeline import Totals
from aitrail.runtime.cli.render import clean, plural

_NOTES = 10


def print_summary(console: Console, totals: Totals, notes: list[str], seconds: float) -> None:
    """Print counts, what was skipped or rejected and why, and what waits."""
    rate = totals.records / seconds if seconds > 0 else 0.0
    if not totals.records and not totals.new:
        console.print(Text("nothing new to read: what was read before is read again only when it has changed"))
    else:
        read = f"{plural(totals.records, 'record')} in {plural(totals.objects, 'file')} ({_size(totals.bytes)})"
        line = Text.assemble(
            (f"{totals.new:,}", "bold"),
            f" new {'event' if totals.new == 1 else 'events'} from {read}, {seconds:.1f} s, {rate:,.0f} records/s",
        )
        console.print(line, soft_wrap=True)
    if totals.duplicates:
        console.print(Text(f"{totals.duplicates:,} already known (same event_id): stored once"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for code, count in totals.skipped.most_common():
        table.add_row(f"{count:,}", f"skipped: {code}", REASONS.get(code, ""))
    for code, count in totals.rejected.most_common():
        table.add_row(f"{count:,}", Text(f"dead letter: {clean(code)}", "yellow"), REASONS.get(code, ""))
    if table.row_count:
        console.print(table)
    if totals.rejected:
        console.print(Text.assemble("look at them: ", ("aitrail deadletter list", "bold")))
    for note in notes[:_NOTES]:
        console.print(Text(f"note: {clean(note)}", "yellow"), soft_wrap=True)
    if len(notes) > _NOTES:
        console.print(Text(f"note: and {len(notes) - _NOTES:,} more (`aitrail collect --json` lists them)", "yellow"))


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
