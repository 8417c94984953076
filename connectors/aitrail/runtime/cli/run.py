"""``aitrail run``: collect as configured, again and again."""

import contextlib
import time
from pathlib import Path

import click
from rich.text import Text

from aitrail.runtime.assemble import Runtime
from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.cli.summary import print_summary
from aitrail.runtime.daemon import GRACE_SECONDS, Stop
from aitrail.runtime.daemon import run as run_daemon
from aitrail.runtime.monitor import listening, parse_address

EPILOG = """\b
Examples:
  aitrail init && aitrail check && aitrail run      start with a commented file
  aitrail run -c prod.toml --once                   once through, for cron
  aitrail run --listen 127.0.0.1:9464               with /metrics and /health
  aitrail -v run                                    log what each source gave

\b
SIGTERM or Ctrl-C ends it: what is in hand is committed and shipped within --grace seconds, what is left goes out at
the next start; a second one ends it at once. Nothing is lost either way. `aitrail status` and `aitrail report` work
meanwhile.

\b
Exit codes with --once: 0 every source was read; 1 a bug; 2 configuration; 3 credentials or permission; 4 a source, the
store or the disk failed for now; 5 the store is in use or damaged; 130 stopped. What was committed stays.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--once", is_flag=True, help="Go once through all sources, then end (for cron).")
@click.option(
    "--grace",
    type=click.FloatRange(min=0, max=3600),
    default=GRACE_SECONDS,
    show_default=True,
    help="Seconds between SIGTERM and the end.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="",
    help="Serve /metrics (Prometheus) and /health here, e.g. 127.0.0.1:9464.",
)
def run(config_path: Path, once: bool, grace: float, listen: str) -> None:
    """Collect from the configured sources until stopped."""
    config = load_config(config_path)
    address = parse_address(listen) if listen else None
    stop = Stop()
    stop.install()
    screen = console(stderr=True)
    store = config.resolve(config.store.dir)
    if not once:
        names = ", ".join(config.sources)
        where = clean(str(store))
        screen.print(Text(f"collecting from {names} into {where}; Ctrl-C ends it"), soft_wrap=True)
    started = time.monotonic()

    def opened(runtime: Runtime) -> None:
        # Only once the store is ours: a second collector must not answer for the first.
        if address is not None:
            stack.enter_context(listening(address, runtime.directory))

    with contextlib.ExitStack() as stack:
        totals = run_daemon(config, stop, once=once, grace=grace, opened=opened)
    if once and stop.requested:
        raise click.Abort
    print_summary(screen, totals, [], time.monotonic() - started)
