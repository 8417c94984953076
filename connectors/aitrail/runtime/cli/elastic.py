"""``aitrail elastic``: put the templates of the data streams, and count what arrived."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from aitrail.registry import make_destination
from aitrail.runtime.cli.verifying import chosen, destination_argument, show, verify_options
from aitrail.runtime.cli.verifying import verify as compare
from aitrail.secrets import Secrets

if TYPE_CHECKING:
    from aitrail.config import Config
    from aitrail.destinations.elastic import ElasticDestination

EPILOG = """\b
Privileges of the API key in [destinations.NAME] (or of another one, in a configuration of its own):
  install   manage_index_templates (cluster)
  verify    read on logs-ai_audit.*; maintenance to see the last second

\b
Examples:
  aitrail elastic install --dry-run        the templates that would be put
  aitrail elastic install -c admin.toml    put them; doing it again changes nothing
  aitrail elastic verify --last 7d         is every event of the last week there, and only once
"""


@click.group(epilog=EPILOG)
def elastic() -> None:
    """Set up Elasticsearch for aitrail, and count what arrived there."""


@elastic.command(epilog=EPILOG)
@destination_argument
@click.option("--dry-run", is_flag=True, help="Only print the templates, as JSON by their paths.")
def install(name: str, config_path: Path, dry_run: bool) -> None:
    """Put component and index templates for the data streams of accesses, findings, health and checkpoints.

    NAME is the destination; it may be left out when there is only one of type elastic. Retention is the destination's
    setting `retention`; rollover is the data stream lifecycle's.
    """
    config, name, settings = chosen(config_path, "elastic", name)
    if dry_run:
        from aitrail.destinations.elastic_install import artefacts  # noqa: PLC0415 - loads the whole catalog
        from aitrail.runtime.cli.render import as_json  # noqa: PLC0415

        click.echo(as_json(artefacts(settings.retention, settings.datasets)))
        return
    destination = _destination(config, name)
    try:
        for path in destination.install():
            click.echo(f"put {path}")
    finally:
        destination.close()


@elastic.command(epilog=EPILOG)
@verify_options
def verify(name: str, config_path: Path, since: str | None, until: str | None, last: str | None, kind: str) -> int:
    """Compare the store with the data stream by event id: what is missing, there twice, or not from this store.

    NAME is the destination; it may be left out when there is only one of type elastic. All backing indices are counted,
    so a repeat behind a rollover shows. Exits 0 when every event of the range is there (or a dead letter), 4 when some
    may still be waiting in the outbox, 1 when some are missing.
    """
    config, name, _ = chosen(config_path, "elastic", name)
    destination = _destination(config, name)
    try:
        destination.refresh()
        outcome = compare(config, name, destination.counts, since=since, until=until, last=last)
    finally:
        destination.close()
    return show(outcome, kind, "without the privilege maintenance the last second is not seen")


def _destination(config: "Config", name: str) -> "ElasticDestination":
    return cast("ElasticDestination", make_destination(name, config, Secrets()))
