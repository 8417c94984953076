"""``aitrail store``: look after the embedded store."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.table import Table
from rich.text import Text

from aitrail.errors import ConfigError
from aitrail.runtime.cli.options import confirmed, existing_store, store_option
from aitrail.runtime.cli.reading import parse_duration, write_out
from aitrail.runtime.cli.render import as_json, clean, console, plural

if TYPE_CHECKING:
    from aitrail.store.maintenance import Stats

EPILOG = """\b
Examples:
  aitrail store stats                      what it holds and how big it is
  aitrail store check                      are all its files there
  aitrail store compact                    merge small segments
  aitrail store retain --older-than 90d    drop whole days, after asking
  aitrail store migrate                    bring it to this aitrail's schema version

\b
compact, retain and migrate need the store to themselves: stop `aitrail run` first. stats and check work at any time.
"""


@click.group(epilog=EPILOG)
def store() -> None:
    """Look after the store: stats, check, compact, retain, migrate."""


@store.command(epilog=EPILOG)
@store_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
def stats(store: Path, kind: str) -> None:
    """Say what the store holds, what waits, and how much room it takes."""
    from aitrail.store.maintenance import stats as ask  # noqa: PLC0415

    found = ask(existing_store(store))
    if kind == "json":
        write_out(as_json(msgspec.to_builtins(found)), None)
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in _facts(found):
        grid.add_row(Text(name), Text(clean(value)))
    screen = console()
    screen.print(Text(f"store {clean(str(store))}", style="bold"))
    screen.print(grid)


def _facts(found: "Stats") -> list[tuple[str, str]]:
    days = f"{plural(found.days, 'day')}, {found.first_day} to {found.last_day}" if found.days else "no days"
    left_out = ", ".join(f"{count:,} for {name}" for name, count in sorted(found.filtered.items()))
    waiting = ", ".join(f"{count:,} for {name}" for name, count in sorted(found.outbox.items()) if count)
    return [
        ("events", f"{found.events:,} in {days}"),
        ("segments", f"{plural(found.segments, 'file')}, {size(found.segment_bytes)}" + _retired(found)),
        ("outbox", f"{waiting}, {size(found.outbox_bytes)}" if waiting else "empty"),
        *([("not wanted", left_out)] if left_out else []),
        ("dead letters", f"{found.dead_letters_open:,} open, {found.dead_letters_resolved:,} settled"),
        ("taken in, ever", plural(found.admitted, "event")),
        ("database", f"{size(found.database_bytes)}, schema version {found.schema_version}"),
    ]


def _retired(found: "Stats") -> str:
    return f" (and {found.retired_segments:,} replaced ones, removed soon)" if found.retired_segments else ""


def size(count: int) -> str:
    """Bytes for people: ``812 B``, ``1.4 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@store.command(epilog=EPILOG)
@store_option
def check(store: Path) -> int:
    """Say which segments are missing or cut; exits 1 when some are."""
    from aitrail.clock import SystemClock  # noqa: PLC0415
    from aitrail.store import catalog  # noqa: PLC0415
    from aitrail.store.database import Database  # noqa: PLC0415

    with Database.open(existing_store(store), SystemClock(), write=False) as database, database.snapshot() as db:
        known = catalog.listing(db, catalog.EVENTS) + catalog.listing(db, catalog.FINDINGS)
        root = database.segments
    wrong = 0
    for segment in known:
        path = root / segment.path
        state = "missing" if not path.is_file() else "cut" if path.stat().st_size != segment.bytes else ""
        if state:
            wrong += 1
            click.echo(f"{state}: {clean(str(path))} ({plural(segment.events, 'event')} of {segment.day})")
    click.echo(f"{plural(len(known), 'segment')} known, {wrong:,} missing or cut")
    return 1 if wrong else 0


@store.command(epilog=EPILOG)
@store_option
def compact(store: Path) -> None:
    """Merge the small segments of each day; readers notice nothing."""
    from aitrail.store import maintenance  # noqa: PLC0415

    done = maintenance.compact(existing_store(store))
    if not done.segments_before:
        click.echo("nothing to merge")
        return
    click.echo(
        f"{done.segments_before:,} segments of {plural(done.days, 'day')} became {done.segments_after:,} "
        f"({size(done.bytes_before)} to {size(done.bytes_after)}); the old ones are removed in 15 minutes"
    )


@store.command(epilog=EPILOG)
@store_option
@click.option("--older-than", required=True, metavar="SPAN", help="Drop whole UTC days older than this: 90d, 52w.")
@click.option(
    "--forget", is_flag=True, help="Also forget their ids: reading the same old input again takes it in again."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def retain(store: Path, older_than: str, forget: bool, yes: bool) -> None:
    """Drop the events of old days, for good."""
    from aitrail.store import maintenance  # noqa: PLC0415

    days = parse_duration(older_than, "--older-than").days
    if days < 1:
        raise ConfigError(f"{older_than} is less than a day", where="--older-than", hint="write 30d or 12w")
    existing_store(store)
    if not yes:
        confirmed(f"Drop every event in {clean(str(store))} that is older than {days} days, for good?")
    done = maintenance.retain(store, days, forget=forget)
    kept = f"days before {done.cutoff}"
    if not done.segments:
        click.echo(f"nothing to drop: there are no {kept}")
        return
    click.echo(f"dropped {done.events:,} events of {len(done.days):,} {kept} ({size(done.bytes)})")


@store.command(epilog=EPILOG)
@store_option
def migrate(store: Path) -> None:
    """Bring the store to this aitrail's schema version.

    Every collecting command does the same by itself.
    """
    from aitrail.clock import SystemClock  # noqa: PLC0415
    from aitrail.store.database import Database  # noqa: PLC0415
    from aitrail.store.migrations import STEPS  # noqa: PLC0415

    with Database.open(existing_store(store), SystemClock()):
        click.echo(f"the store has schema version {STEPS[-1].version}")
