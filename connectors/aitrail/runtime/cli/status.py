"""``aitrail status``: how the collector, its sources and its destinations are doing."""

import math
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aitrail.clock import iso_ms
from aitrail.runtime import status as looking
from aitrail.runtime.cli.options import existing_store, load_config, store_option
from aitrail.runtime.cli.render import clean, console, plural
from aitrail.runtime.metrics import render_metrics
from aitrail.runtime.status import DestinationStatus, Snapshot, SourceStatus

EPILOG = """\b
Examples:
  aitrail status                           a table; exits 1 when something is stuck
  aitrail status -c prod.toml              the store that this configuration names
  aitrail status --format json | jq .sources
  aitrail status --format prometheus > /var/lib/node_exporter/aitrail.prom

\b
Stuck is: a source that has failed three times in a row, or for --stuck-after seconds, or is not read at all; a
destination whose oldest event waits longer than that; a collector that says nothing any more. It works beside a running
collector, and between two runs of cron.
"""


@click.command(epilog=EPILOG)
@store_option
@click.option("-c", "--config", "config_path", type=click.Path(dir_okay=False, path_type=Path), help="Its store.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "prometheus")),
    default="table",
    show_default=True,
    help="A table for people, JSON, or Prometheus text.",
)
@click.option(
    "--stuck-after",
    type=click.FloatRange(min=1),
    default=900.0,
    show_default=True,
    help="Seconds after which what waits is stuck.",
)
def status(store: Path, config_path: Path | None, form: str, stuck_after: float) -> int:
    """Say how the collector of a store is doing."""
    if config_path is not None:
        config = load_config(config_path, receivers=True)
        store = config.resolve(config.store.dir)
    snapshot = looking.take(existing_store(store), stuck_after=stuck_after)
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(snapshot), indent=2))
    elif form == "prometheus":
        click.echo(render_metrics(snapshot), nl=False)
    else:
        _show(console(), snapshot)
    return 1 if snapshot.problems else 0


def _show(screen: Console, snapshot: Snapshot) -> None:
    screen.print(Text(_collector(snapshot)), soft_wrap=True)
    if snapshot.sources:
        screen.print(_sources(snapshot.sources))
    if snapshot.destinations:
        screen.print(_destinations(snapshot.destinations))
    for source in snapshot.sources:
        if source.state.not_read:
            note = f"not read: {source.name}: {source.state.not_read}"
            screen.print(Text(clean(note), "yellow"), soft_wrap=True)
    if snapshot.dead_letters:
        waiting = plural(snapshot.dead_letters, "open dead letter")
        screen.print(Text.assemble(f"{waiting}: ", ("aitrail deadletter list", "bold")))
    for problem in snapshot.problems:
        screen.print(Text(f"stuck: {clean(problem)}", "red"), soft_wrap=True)
    if not snapshot.problems:
        screen.print(Text("nothing is stuck", "green"))


def _collector(snapshot: Snapshot) -> str:
    collector = snapshot.collector
    if not collector.heartbeat:
        return "no collector has run on this store (`aitrail run`)"
    who = f"pid {collector.pid} on {clean(collector.host)}, aitrail {clean(collector.version)}"
    if snapshot.running:
        return f"collecting since {iso_ms(collector.started)} ({who})"
    if collector.stopped:
        return f"not collecting; the last collector ended {iso_ms(collector.stopped)} ({who})"
    return f"not collecting; the last collector was last heard of {iso_ms(collector.heartbeat)} ({who})"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 or column == "last error" else "right")
    return table


def _sources(sources: list[SourceStatus]) -> Table:
    table = _table(
        "source", "state", "events", "duplicates", "dead", "gaps", "lag", "unsettled", "next in", "fails", "last error"
    )
    for one in sources:
        state = one.state
        table.add_row(
            Text(clean(one.name)),
            Text(state.state, "yellow" if state.failures or state.state in ("held", "leased") else ""),
            f"{one.counts.get('events', 0):,}",
            f"{one.counts.get('duplicates', 0):,}",
            f"{one.sum('rejected'):,}",
            f"{one.counts.get('gaps', 0):,}",
            age(one.lag_seconds),
            age(one.oldest_open_seconds),
            age(one.due_in_seconds),
            f"{state.failures:,}",
            Text(clean(state.last_error)),
        )
    return table


def _destinations(destinations: list[DestinationStatus]) -> Table:
    table = _table(
        "destination", "state", "delivered", "duplicates", "rejected", "not wanted", "waiting", "oldest", "last error"
    )
    for one in destinations:
        state = one.state
        table.add_row(
            Text(clean(one.name)),
            Text("failing", "yellow") if state.last_error else Text("ok"),
            f"{state.delivered:,}",
            f"{state.duplicate:,}",
            f"{state.rejected:,}",
            f"{one.filtered:,}",
            f"{one.backlog_events:,}",
            age(one.oldest_seconds if one.backlog_events else None),
            Text(clean(state.last_error)),
        )
    return table


def age(seconds: float | None) -> str:
    """Seconds in the two largest units: ``3m 20s``; ``-`` when there is nothing to say."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    left = abs(round(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return ("-" if seconds <= -1 else "") + " ".join(parts[:2])
