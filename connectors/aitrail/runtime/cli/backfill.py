"""``aitrail backfill``: read a stretch of the past of one source."""

import time
from pathlib import Path

import click
from msgspec.structs import replace
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.errors import ConfigError
from aitrail.runtime.backfill import Range, parse_range, ranged
from aitrail.runtime.backfill import backfill as backfill_range
from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.progress import progress_bar
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.cli.summary import print_summary
from aitrail.runtime.contexts import context_of
from aitrail.runtime.dryrun import NoCursors, dry_run
from aitrail.runtime.field_maps import read_map
from aitrail.runtime.signals import Stop

EPILOG = """\b
Examples:
  aitrail backfill trail --from 2026-10-01 --to 2026-11-01
  aitrail backfill trail --from 2026-11-20T08:00:00Z             up to now
  aitrail backfill trail --from 2026-10-01 --dry-run             only say what is there

\b
Reads at least what happened in the range (UTC; --to is the first moment that is not read) and may read more, where the
source knows only days or files; what is known already is dropped. The live cursor of the source is not touched. Stopped
by Ctrl-C or a failure, the same command goes on where it was. The store must be free: stop `aitrail run` meanwhile.
"""


@click.command(epilog=EPILOG)
@click.argument("source")
@click.option("--from", "start", required=True, help="First moment, ISO 8601, e.g. 2026-11-01.")
@click.option("--to", "end", default="", help="First moment that is not read; now unless given.")
@click.option("--dry-run", is_flag=True, help="Say what is there and what would happen; write nothing.")
@config_option
def backfill(source: str, start: str, end: str, dry_run: bool, config_path: Path) -> None:
    """Read what SOURCE, a source of the configuration, holds of a stretch of the past."""
    config = load_config(config_path)
    if source not in config.sources:
        raise ConfigError(
            f"there is no source {clean(source)!r}",
            where=str(config_path),
            hint=f"it has: {', '.join(config.sources)}",
        )
    span = parse_range(start, end, SystemClock().now())
    screen = console(stderr=True)
    screen.print(Text(f"{source}: {span.text}"), soft_wrap=True)
    started = time.monotonic()
    if dry_run:
        _look(config_path, source, span)
        return
    stop = Stop()
    stop.install()
    with progress_bar(quiet=False) as callbacks:
        result = backfill_range(
            config,
            source,
            span,
            stop,
            start=lambda work: callbacks.start(source, work),
            step=lambda totals: callbacks.step(source, totals),
        )
    print_summary(screen, result.totals, result.notes, time.monotonic() - started)
    if not result.done:
        raise click.Abort


def _look(config_path: Path, name: str, span: Range) -> None:
    from aitrail.registry import make_source  # noqa: PLC0415  (only for a dry run)

    config = load_config(config_path)
    settings = config.sources[name]
    source = ranged(make_source(name, settings, config, SystemClock(), b""), name, settings.type, span)
    screen = console(stderr=True)
    work = source.survey(NoCursors())
    screen.print(Text(f"{work.objects:,} objects hold something of that time"))
    started = time.monotonic()
    known = context_of(config.mapping, settings.tenant)
    if settings.map:
        known = replace(known, field_map=read_map(config.resolve(settings.map)))
    totals = dry_run(source, known, settings.record_type)
    close = getattr(source, "close", None)
    if close is not None:
        close()
    screen.print(Text.assemble(("dry run", "bold"), ": nothing was written"))
    for kind, count in totals.by_type.most_common():
        screen.print(Text(f"  {count:>10,}  {kind}"))
    print_summary(screen, totals, list(getattr(source, "notes", [])), time.monotonic() - started)
