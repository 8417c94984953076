"""``aitrail collect``: read files into the store, once."""

import glob
import os
import shlex
import sys
import time
from pathlib import Path

import click
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.config import check_name
from aitrail.errors import ConfigError
from aitrail.normalize.outcome import Context
from aitrail.normalize.registry import NORMALIZERS
from aitrail.pipeline import Totals
from aitrail.runtime.cli.options import content_option, store_option
from aitrail.runtime.cli.progress import progress_bar
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.cli.summary import as_json, print_summary
from aitrail.runtime.collect import collect as collect_once
from aitrail.runtime.collect import one_off
from aitrail.runtime.dryrun import dry_run
from aitrail.runtime.field_maps import read_map
from aitrail.sources.file import FileSource

EPILOG = """\b
Examples:
  aitrail collect AWSLogs/                          a CloudTrail bucket dump, as it is
  aitrail collect insights-logs-*/ litellm.jsonl    Azure exports and a gateway log together
  zcat big.gz | aitrail collect -                   standard input
  aitrail collect logs --content hash               keep keyed hashes, no text
  aitrail collect logs --dry-run                    only say what is in there

\b
Reads plain, gzip and zstd; NDJSON, JSON arrays, {"Records": [...]} and {"records": [...]}.
The type of every record is told from its content. A second run reads only what is new.
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True)
@store_option
@content_option
@click.option("--tenant", default="default", show_default=True, help="Tenant that the records belong to.")
@click.option(
    "--type",
    "record_type",
    type=click.Choice(list(NORMALIZERS)),
    help="Treat every record as this type instead of detecting it.",
)
@click.option(
    "--map",
    "field_map",
    type=click.Path(dir_okay=False),
    default="",
    help="Field map (TOML) for logs of no known type; `aitrail map` tries one.",
)
@click.option(
    "--directory",
    "people",
    type=click.Path(dir_okay=False),
    default="",
    help="CSV that says who works where (columns: user, department, optionally name, email, type).",
)
@click.option("--dry-run", is_flag=True, help="Say what is there and what would happen; write nothing.")
@click.option("--strict", is_flag=True, help="Exit 1 when any record became a dead letter.")
@click.option("--json", "json_out", is_flag=True, help="Print the summary as one JSON object on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def collect(
    paths: tuple[str, ...],
    store: Path,
    content: str,
    tenant: str,
    record_type: str | None,
    field_map: str,
    people: str,
    dry_run: bool,
    strict: bool,
    json_out: bool,
    quiet: bool,
) -> int:
    """Read AI access records from PATHS (files, directories, globs, - for standard input) into the store."""
    wrong = check_name(tenant)
    if wrong:
        raise ConfigError(f"the name {clean(tenant)!r} is not allowed", where="--tenant", hint=wrong)
    missing = _missing(paths)
    if len(missing) == len(paths):
        raise ConfigError(_nothing(missing), hint="name a file, a directory or a quoted glob")
    kind = record_type or ("generic_access" if field_map else "")
    if bool(field_map) != (kind == "generic_access"):
        raise ConfigError(
            "a field map is for records of type generic_access, and these need one",
            where="--map" if field_map else "--type",
            hint="--map map.toml, without --type; try it with: aitrail map FILE --map map.toml",
        )
    config = one_off(paths, store, content=content, tenant=tenant, record_type=kind, people=people, field_map=field_map)
    started = time.monotonic()
    if dry_run:
        totals, notes = _look(paths, tenant, kind, field_map)
    else:
        with progress_bar(quiet=quiet or json_out) as callbacks:
            outcome = collect_once(config, callbacks)
        totals, notes = outcome.totals, outcome.notes
    seconds = time.monotonic() - started
    if json_out:
        click.echo(as_json(totals, notes, seconds))
    elif not quiet:
        screen = console(stderr=not sys.stdout.isatty())
        if dry_run:
            screen.print(Text.assemble(("dry run", "bold"), ": nothing was written"))
            for name, count in totals.by_type.most_common():
                screen.print(Text(f"  {count:>10,}  {name}"))
        print_summary(screen, totals, notes, seconds)
        if totals.new and not dry_run:
            again = f"aitrail report --store {shlex.quote(clean(str(store)))}"
            screen.print(Text.assemble("next: ", (again, "bold")), soft_wrap=True)
    if missing:
        raise ConfigError(f"{_nothing(missing)}; the rest is read", hint="correct the path, or leave it out")
    return 1 if strict and totals.rejected else 0


def _look(paths: tuple[str, ...], tenant: str, record_type: str, field_map: str) -> tuple[Totals, list[str]]:
    source = FileSource("files", paths, clock=SystemClock())
    known = Context(tenant_id=tenant, field_map=read_map(Path(field_map)) if field_map else None)
    totals = dry_run_of(source, known, record_type)
    return totals, list(source.notes)


def _missing(paths: tuple[str, ...]) -> list[str]:
    """The paths that name nothing; an empty one (an unset variable) must not mean this directory."""
    return [path for path in paths if path != "-" and not (path and _there(path))]


def _there(path: str) -> bool:
    place = os.path.expanduser(path)  # noqa: PTH111  (as the file source does it)
    return os.path.lexists(place) or next(glob.iglob(place, recursive=True), None) is not None  # noqa: PTH207


def _nothing(missing: list[str]) -> str:
    return f"nothing there to read: {', '.join(clean(path) or repr(path) for path in missing)}"


dry_run_of = dry_run
