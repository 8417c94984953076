"""``aitrail run``: collect as configured, again and again."""

import time
from pathlib import Path

import click
from rich.text import Text

from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.render import clean, console
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
    screen = console(stderr=True)
    if not once:
        names = ", ".join(config.sources)
        where = clean(str(config.resolve(config.store.dir)))
        screen.print(Text(f"collecting from {names} into {where}; Ctrl-C ends it"), soft_wrap=True)
    started = time.monotonic()
    totals = run_daemon(config, stop, once=once)
    if once and stop.event.is_set():
        raise click.Abort
    print_summary(screen, totals, [], time.monotonic() - started)
