"""``aitrail serve``: take what gateways and instrumentations push."""

from functools import partial
from pathlib import Path

import click
from rich.text import Text

from aitrail.config import load
from aitrail.errors import ConfigError
from aitrail.runtime.cli.options import config_option
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.daemon import run_beside
from aitrail.runtime.serve import Listening
from aitrail.runtime.serve import serve as run_server
from aitrail.web.settings import served

EPILOG = """\b
Examples:
  aitrail serve                              receivers of ./aitrail.toml, on this machine only
  aitrail serve -c prod.toml --with-sources  also collect from its sources, into the same store
  aitrail serve --host 0.0.0.0               needs tls_certificate and tls_key in [serve]

\b
A receiver in aitrail.toml:
  [receivers.litellm]
  path = "/ingest/litellm"
  tokens = ["env:LITELLM_TOKEN"]
  record_type = "litellm"

\b
With [respond] it also does what a SIEM's alert actions ask for (docs/respond.md): open a case, block a key or user.

\b
202 means that the records are on disk. 503 with Retry-After means: nothing was taken, send it again.
/health says whether records can be made durable, /metrics counts.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--host", help="Listen on this address instead of [serve].host.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port instead of [serve].port; 0: any.")
@click.option("--with-sources", is_flag=True, help="Also collect from the configured sources.")
def serve(config_path: Path, host: str | None, port: int | None, with_sources: bool) -> None:
    """Receive records over HTTP until stopped."""
    config = load(config_path)
    if not config.receivers and not config.respond:
        raise ConfigError(
            "no receiver is configured", where=str(config_path), hint="add [receivers.NAME] with path and tokens"
        )
    if with_sources and not config.sources:
        raise ConfigError("no source is configured", where=str(config_path), hint="leave --with-sources out")
    settings = served(config, host=host, port=port)
    screen = console(stderr=True)

    def ready(where: Listening) -> None:
        store = clean(str(config.resolve(config.store.dir)))
        screen.print(Text(f"listening on {where.url} for {', '.join(where.paths)}, into {store}"), soft_wrap=True)

    run_server(config, settings, ready=ready, beside=partial(run_beside, sources=with_sources))
