"""``aitrail run``: collect as configured, again and again."""

import time
from pathlib import Path

import click
from rich.console import Console

from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.summary import print_summary
from aitrail.runtime.daemon import Stop
from aitrail.runtime.daemon import run as run_daemon

EPILOG = """\b
Examples:
  aitrail init && aitrail check && aitrail run      start with a commented file
  aitrail run -c prod.toml --once                   once through, for cron
  aitrail -v run                                    log what each source gave

\b
SIGTERM or Ctrl-C ends it after the commit in hand. `aitrail report` works meanwhile.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--once", is_flag=True, help="Go once through all sources, then end (for cron).")
def run(config_path: Path, once: bool) -> None:
    """Collect from the configured sources until stopped."""
    config = load_config(config_path)
    stop = Stop()
    stop.install()
    console = Console(stderr=True)
    if not once:
        names = ", ".join(config.sources)
        console.print(f"collecting from {names} into {config.resolve(config.store.dir)}; Ctrl-C ends it", markup=False)
    started = time.monotonic()
    totals = run_daemon(config, stop, once=once)
    print_summary(console, totals, [], time.monotonic() - started)
