"""``aitrail query``: ask the store in SQL, read-only."""

import sys
from pathlib import Path

import click

from aitrail.errors import AitrailError, ConfigError
from aitrail.runtime.cli.options import store_option
from aitrail.runtime.cli.reading import first_line, read, write_out
from aitrail.runtime.cli.render import Column, Kind, as_csv, as_json, console, plural, table
from aitrail.store.queries import Connection, Rows

EPILOG = """\b
Examples:
  aitrail query "SELECT user_id, count(*) FROM events GROUP BY ALL ORDER BY 2 DESC"
  aitrail query "SELECT * FROM events WHERE injection_tier = 'high'" --format json
  aitrail query "SELECT timestamp, cost_usd FROM events WHERE model = 'gpt-4o'" --format csv --out cost.csv
  echo "SELECT code, count(*) FROM dead_letters GROUP BY ALL" | aitrail query -

\b
Views: events (`aitrail schema` lists its columns), finding_records, health_records and dead_letters. The dialect is
DuckDB's. A missing string is '', a missing list is [], a missing number is NULL; times are UTC.
"""
_ANY_WIDTH = 10_000
_CELL = 2_000


@click.command(epilog=EPILOG)
@click.argument("sql")
@store_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
@click.option("--limit", type=click.IntRange(1), help="Print at most this many rows.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead.")
def query(sql: str, store: Path, kind: str, limit: int | None, out: Path | None) -> None:
    """Run one SELECT statement over the store; - reads it from standard input."""
    text = sys.stdin.read() if sql == "-" else sql
    rows = read(store, lambda connection: _run(connection, text, limit))
    if kind == "json":
        write_out(as_json(rows.dicts()), out)
    elif kind == "csv":
        write_out(as_csv(rows.columns, rows.rows), out)
    else:
        _print(rows, out)


def _run(connection: Connection, sql: str, limit: int | None) -> Rows:
    try:
        cursor = connection.execute(sql)
    except AitrailError as error:
        # DuckDB repeats the statement under its message; the one who typed it knows it.
        raise ConfigError(first_line(str(error)), where="query", hint=error.hint) from None
    columns = tuple(str(column[0]) for column in cursor.description or ())
    return Rows(columns, cursor.fetchmany(limit) if limit else cursor.fetchall())


def _print(rows: Rows, out: Path | None) -> None:
    screen = console()
    columns = [Column(str(index), name, _kind(rows, index)) for index, name in enumerate(rows.columns)]
    with screen.capture() as captured:
        screen.print(table(columns, rows.rows, _ANY_WIDTH, most=_CELL))
        screen.print(plural(len(rows.rows), "row"), style="dim")
    write_out(captured.get(), out)


def _kind(rows: Rows, index: int) -> Kind:
    values = [row[index] for row in rows.rows if row[index] is not None]
    return "plain" if values and all(isinstance(value, int | float) for value in values) else "text"
