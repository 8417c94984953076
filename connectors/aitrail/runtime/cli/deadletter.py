"""``aitrail deadletter``: records that did not become events, events that a destination refused: list, show, replay."""

import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aitrail.config import Config, load
from aitrail.errors import ConfigError
from aitrail.normalize.outcome import REASONS
from aitrail.routing.codes import delivery_reason
from aitrail.runtime.cli.options import existing_store, store_option
from aitrail.runtime.cli.reading import read, write_out
from aitrail.runtime.cli.render import NARROW, Column, as_csv, as_json, clean, console, shown, table
from aitrail.store import queries

EPILOG = """\b
Examples:
  aitrail deadletter list                       what is open, newest first
  aitrail deadletter list --code json_invalid   one reason
  aitrail deadletter show 3fa9c1d2              one record: reason, place, how to look at it
  aitrail deadletter replay --all               read them again, after a fix or an update
  aitrail deadletter list --destination splunk  what one destination refused
  aitrail deadletter replay -c prod.toml --destination splunk   send it there again

\b
A record's dead letter holds its place and a reason code, nothing of its content; it is settled when a replay turns the
record into an event. An event's dead letter, of one destination, keeps the event; a replay sends it there again.
"""
_ID_DIGITS = 24
_MOST = 10_000_000
_COLUMNS = (
    Column("id", "id", "id"),
    Column("code", "reason"),
    Column("record_type", "type", from_width=NARROW),
    Column("stage", "stage", from_width=NARROW),
    Column("destination", "refused by", from_width=NARROW),
    Column("source", "source", from_width=NARROW),
    Column("origin", "file or object"),
    Column("position", "offset", "count"),
    Column("first_seen", "seen (UTC)", "time"),
)


@click.group(epilog=EPILOG)
def deadletter() -> None:
    """Records that could not become events, events that a destination refused, and what to do about them."""


def _selection(function: Any) -> Any:
    function = click.option("--destination", default="", help="Only what this destination refused.")(function)
    function = click.option("--source", default="", help="Only of this source.")(function)
    return click.option("--code", default="", help="Only with this reason code.")(function)


@deadletter.command("list", epilog=EPILOG)
@store_option
@_selection
@click.option("--settled", is_flag=True, help="Also those that a replay has settled.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
def list_(store: Path, *, code: str, source: str, destination: str, settled: bool, limit: int, kind: str) -> None:
    """List dead letters, newest first, and count them by reason."""

    def look(connection: queries.Connection) -> tuple[queries.Rows, list[dict[str, Any]]]:
        listed = queries.run(
            connection,
            "dead_letter_list",
            code=code,
            source=source,
            destination=destination,
            settled=settled,
            top=limit,
        )
        return listed, queries.run(connection, "dead_letters", top=1000).dicts()

    found, counts = read(store, look)
    if kind == "json":
        write_out(as_json(found.dicts()), None)
        return
    if kind == "csv":
        write_out(as_csv(found.columns, found.rows), None)
        return
    screen = console()
    total = sum(row["records"] for row in counts)
    if not found.rows:
        some = code or source or destination
        screen.print(Text("no dead letters of that kind" if some else "no dead letters"))
        return
    places = [found.columns.index(column.name) for column in _COLUMNS]
    rows = [tuple(row[place] for place in places) for row in found.rows]
    screen.print(table(_COLUMNS, rows, screen.width))
    screen.print(Text(f"{len(found.rows):,} shown, {total:,} open", style="bold"))
    for reason, meaning in sorted({(str(row["code"]), _meaning(row)) for row in found.dicts()}):
        screen.print(Text(f"  {clean(reason)}: {meaning}", style="dim"))
    screen.print(Text("look closer: aitrail deadletter show ID; try again: aitrail deadletter replay ID or --all"))


@deadletter.command(epilog=EPILOG)
@click.argument("letter")
@store_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
def show(letter: str, store: Path, kind: str) -> None:
    """Show one dead letter: reason, place, how to look at it.

    LETTER is its id; a beginning is enough.
    """
    row = read(store, lambda connection: _one(connection, letter))
    if kind == "json":
        write_out(as_json({**row, "meaning": _meaning(row)}), None)
        return
    screen = console()
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(row):
        grid.add_row(Text(name), Text(value))
    screen.print(Text(f"dead letter {clean(str(row['id']))}", style="bold"))
    screen.print(grid)


def _facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("reason", f"{row['code']}: {_meaning(row)}")]
    facts += [("what to do", delivery_reason(row["code"]).fix)] if row["stage"] == "deliver" else []
    facts += [("wrong field", row["field"])] if row["field"] else []
    facts += [("record type", row["record_type"] or "not told")]
    facts += [("stopped at", row["stage"] + (f", by {row['destination']}" if row["destination"] else ""))]
    facts += [("event id", row["event_id"])] if row["event_id"] else []
    facts += [("source", row["source"]), ("file or object", row["origin"])]
    facts += [("record number", f"{row['index']:,}"), ("bytes", _range(row))]
    facts += [("seen", f"{shown(row['first_seen'])} UTC")]
    facts += [("state", f"settled {shown(row['resolved'])} UTC" if row["resolved"] else "open")]
    look = _look(row)
    facts += [("look at it", look)] if look else []
    facts += [] if row["resolved"] else [("try again", f"aitrail deadletter replay {row['id']}")]
    return [(name, clean(str(value))) for name, value in facts]


def _meaning(row: dict[str, Any]) -> str:
    if row["stage"] == "deliver":
        return delivery_reason(row["code"]).meaning
    return REASONS.get(row["code"], "a reason that this aitrail does not know")


def _range(row: dict[str, Any]) -> str:
    end = f" to {row['end']:,}" if row["end"] else ""
    return f"{row['position']:,}{end} in the decompressed text"


def _look(row: dict[str, Any]) -> str:
    """A shell command that prints the record, when it lies in a plain or gzip file that is still there."""
    path = Path(row["origin"])
    if not row["end"] or not path.is_file():
        return ""
    reader = "gzip -dc" if path.suffix == ".gz" else "cat" if path.suffix not in (".zst", ".zstd") else "zstd -dc"
    length = row["end"] - row["position"]
    quoted = shlex.quote(str(path))
    return f"{reader} {quoted} | tail -c +{row['position'] + 1} | head -c {length} | cat -v"


@deadletter.command(epilog=EPILOG)
@click.argument("letters", nargs=-1)
@store_option
@_selection
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration with the destinations that get the events; ./aitrail.toml when it is for this store.",
)
@click.option("--all", "everything", is_flag=True, help="All open ones (with --code, --source or --destination).")
def replay(
    letters: tuple[str, ...],
    store: Path,
    *,
    config_path: Path | None,
    code: str,
    source: str,
    destination: str,
    everything: bool,
) -> int:
    """Read records again and settle those that became events; send refused events again.

    LETTERS are ids; beginnings are enough. Exits 1 when some are still dead.
    """
    if bool(letters) == (everything or bool(code) or bool(source) or bool(destination)):
        raise ConfigError("say which ones", hint="give ids, or --all, --code, --source or --destination")
    config = _config(config_path, store)
    store = config.resolve(config.store.dir) if config is not None else store
    chosen = read(store, lambda connection: _chosen(connection, letters, code, source, destination))
    if not chosen:
        click.echo("no dead letters of that kind")
        return 0
    from aitrail.runtime.collect import replay as replay_records  # noqa: PLC0415  (loads the whole pipeline)

    totals = replay_records(existing_store(store), list(chosen), config)
    screen = console()
    records = sum(stage != "deliver" for stage in chosen.values())
    still = sum(totals.rejected.values())
    if records:
        done = f"{totals.new:,} new events, {totals.duplicates:,} already known"
        screen.print(Text(f"{records:,} read again: {done}, {still:,} still dead", style="bold"))
    for reason, count in totals.rejected.most_common():
        meaning = REASONS.get(reason, "the file is gone or was changed" if reason == "source_gone" else "")
        screen.print(Text(f"  {count:,} {clean(reason)}: {meaning}", style="yellow"))
    events = [one for one, stage in chosen.items() if stage == "deliver"]
    if events:
        still += _say_what_became(screen, store, events)
    return 1 if still else 0


def _say_what_became(screen: Console, store: Path, events: list[str]) -> int:
    """Look up the letters of refused events after a replay: gone, or refused again; gives how many were."""
    rows = read(store, lambda connection: [_one(connection, one) for one in events])
    waiting = read(store, lambda connection: _waiting(store))
    refused = [row for row in rows if not row["resolved"]]
    names = sorted({str(row["destination"]) for row in rows})
    screen.print(
        Text(f"{len(rows):,} put back for {clean(', '.join(names))}, {len(refused):,} still dead", style="bold")
    )
    for name in names:
        if waiting.get(name):
            text = f"  {waiting[name]:,} wait for {clean(name)}; `aitrail run` sends them (or name its file with -c)"
            screen.print(Text(text, style="yellow"))
    for code, meaning in sorted({(str(row["code"]), _meaning(row)) for row in refused}):
        screen.print(Text(f"  {clean(code)}: {meaning}", style="yellow"))
    return len(refused)


def _waiting(store: Path) -> dict[str, int]:
    from aitrail.store.maintenance import stats  # noqa: PLC0415

    return dict(stats(store).outbox)


def _config(path: Path | None, store: Path) -> Config | None:
    """The configuration that was named, or the one of this directory when it is for this store."""
    if path is not None:
        return load(path)
    usual = Path("aitrail.toml")
    if not usual.is_file():
        return None
    config = load(usual)
    return config if config.resolve(config.store.dir).resolve() == store.resolve() else None


def _chosen(
    connection: queries.Connection, letters: tuple[str, ...], code: str, source: str, destination: str
) -> dict[str, str]:
    """Give the stage of each chosen letter by its id."""
    if letters:
        rows = [_one(connection, letter) for letter in letters]
    else:
        rows = queries.run(
            connection, "dead_letter_list", code=code, source=source, destination=destination, settled=False, top=_MOST
        ).dicts()
    return {str(row["id"]): str(row["stage"]) for row in rows}


def _one(connection: queries.Connection, letter: str) -> dict[str, Any]:
    prefix = letter.strip().lower()
    if not 4 <= len(prefix) <= _ID_DIGITS or not prefix.isalnum():
        raise ConfigError(f"{clean(letter)!r} is not an id of a dead letter", hint="aitrail deadletter list")
    found = queries.run(connection, "dead_letter", prefix=prefix).dicts()
    if not found:
        raise ConfigError(f"no dead letter begins with {prefix}", hint="aitrail deadletter list --settled")
    if len(found) > 1:
        raise ConfigError(f"several dead letters begin with {prefix}", hint="give more digits")
    return found[0]
