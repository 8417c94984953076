"""``aitrail sentinel``: count in the workspace what arrived."""

from pathlib import Path

import click

from aitrail.runtime.cli.verifying import chosen, show, verify_options
from aitrail.runtime.cli.verifying import verify as compare

EPILOG = """\b
In [destinations.NAME]:
  workspace_id = "..."     the workspace's GUID (Azure portal, Log Analytics workspace, Overview)

\b
The identity is azure-identity's default, as for delivery, and needs the role Log Analytics Reader on the workspace.

\b
Examples:
  aitrail sentinel verify                                  the last 24 hours
  aitrail sentinel verify --since 2026-11-01 --until 2026-12-01
"""


@click.group(epilog=EPILOG)
def sentinel() -> None:
    """Count what arrived in Microsoft Sentinel."""


@sentinel.command(epilog=EPILOG)
@verify_options
def verify(name: str, config_path: Path, since: str | None, until: str | None, last: str | None, kind: str) -> int:
    """Compare the store with the table by event id: what is missing, there twice, or not from this store.

    NAME is the destination; it may be left out when there is only one of type sentinel. Exits 0 when every event of the
    range is there (or a dead letter), 4 when some may still be waiting in the outbox, 1 when some are missing.
    """
    from aitrail.destinations.sentinel_rows import STREAMS  # noqa: PLC0415 - loads the whole catalog
    from aitrail.destinations.sentinel_verify import Workspace  # noqa: PLC0415

    config, name, settings = chosen(config_path, "sentinel", name)
    stream = STREAMS[settings.stream]
    workspace = Workspace(settings, table=stream.table, time_column=stream.time_column, name=name)
    try:
        outcome = compare(config, name, workspace.counts, since=since, until=until, last=last)
    finally:
        workspace.close()
    return show(outcome, kind, "rows become visible some minutes after Azure has taken them")
