"""``aitrail splunk``: set up what the HTTP Event Collector needs, and count what arrived."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.cli.verifying import chosen, destination_argument, show, verify_options
from aitrail.runtime.cli.verifying import verify as compare
from aitrail.secrets import Secrets

EPILOG = """\b
Both commands speak with splunkd (port 8089). In [destinations.NAME]:
  management_url = "https://splunk.example.com:8089"
  management_token = "env:SPLUNK_TOKEN"    Settings > Tokens; not the HEC token

\b
Capabilities that the token's role needs (Settings > Roles):
  install   indexes_edit, edit_token_http, and schedule_search for --enable-searches
  verify    search, and the index among its searched indexes

\b
Examples:
  aitrail splunk install --dry-run         what would be created or changed
  aitrail splunk install -c prod.toml      index, HTTP Event Collector, HEC token
  aitrail splunk verify --last 7d          is every event of the last week there, and only once
"""


@click.group(epilog=EPILOG)
def splunk() -> None:
    """Set up Splunk for aitrail, and count what arrived there."""


@splunk.command(epilog=EPILOG)
@destination_argument
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--enable-searches", is_flag=True, help="Also enable the scheduled searches of the app aitrail.")
def install(name: str, config_path: Path, dry_run: bool, enable_searches: bool) -> None:
    """Create the index and the HEC token on a Splunk Enterprise server, and enable the HTTP Event Collector.

    NAME is the destination; it may be left out when there is only one of type splunk. What is there and right is left
    alone, so running it again changes nothing. The value of the HEC token is the one that the setting `token` refers
    to: make one with uuidgen and put it there first. Splunk Cloud lets nobody do this through splunkd.
    """
    manager = _manager(config_path, name)
    try:
        steps = manager.install(change=not dry_run, enable_searches=enable_searches)
    finally:
        manager.close()
    screen = console()
    for step in steps:
        screen.print(Text(f"{clean(step.what)}: {clean(step.state)}", "green" if step.state == "there" else ""))


@splunk.command(epilog=EPILOG)
@verify_options
def verify(name: str, config_path: Path, since: str | None, until: str | None, last: str | None, kind: str) -> int:
    """Compare the store with the index by event id: what is missing, there twice, or not from this store.

    NAME is the destination; it may be left out when there is only one of type splunk. Exits 0 when every event of the
    range is there (or a dead letter), 4 when some may still be waiting in the outbox, 1 when some are missing.
    """
    config, name, _ = chosen(config_path, "splunk", name)
    manager = _manager(config_path, name)
    try:
        manager.check_search()
        outcome = compare(config, name, manager.counts, since=since, until=until, last=last)
    finally:
        manager.close()
    return show(outcome, kind, "events become searchable some seconds after HEC has taken them")


def _manager(config_path: Path, name: str) -> Any:
    _, name, settings = chosen(config_path, "splunk", name)
    try:
        from aitrail.destinations.splunk_manage import SplunkManager  # noqa: PLC0415 - needs an extra
    except ImportError:
        raise ConfigError("this needs splunk-sdk", hint="pip install 'aitrail[splunk]'") from None
    return SplunkManager(settings, Secrets(), name)
