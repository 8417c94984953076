"""``aitrail schema``: the event's fields and their names in other schemas."""

from pathlib import Path

import click

from aitrail.runtime.cli.reading import write_out
from aitrail.runtime.cli.render import console
from aitrail.schema.views import FORMATS

EPILOG = """\b
Examples:
  aitrail schema                               what every field says
  aitrail schema --format ocsf                 where each field goes in OCSF, with an exported example
  aitrail schema --format kql > table.kql      the Sentinel table
  aitrail schema --format jsonschema --out access-event.schema.json

\b
Formats: table, markdown (docs/schema.md), json (all metadata), jsonschema, the names in ocsf, ecs, otel, cim and
asim, kql (Sentinel table), duckdb (SQL table), es (Elasticsearch component template).
"""


@click.command(epilog=EPILOG)
@click.option(
    "--format", "view", type=click.Choice(list(FORMATS)), default="table", show_default=True, help="The view."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead.")
def schema(view: str, out: Path | None) -> None:
    """Print the event's fields: what they say, their types, and their names in other schemas."""
    found = FORMATS[view]()
    if isinstance(found, str):
        write_out(found, out)
        return
    screen = console()
    if out is None:
        screen.print(found)
        return
    with screen.capture() as captured:
        screen.print(found)
    write_out(captured.get(), out)
