"""``aitrail detect``: run the detection rules on the store."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.detection.engine import Covered
from aitrail.detection.rules import CompiledRule, chosen
from aitrail.errors import ConfigError
from aitrail.runtime import detecting
from aitrail.runtime.cli.options import existing_store, store_option
from aitrail.runtime.cli.reading import parse_moment
from aitrail.runtime.cli.render import Column, console, plural, table
from aitrail.spool import Spool
from aitrail.store.places import Places
from aitrail.streams import SEVERITIES, Finding

EPILOG = """\b
Examples:
  aitrail detect                                what is new since the last run; findings are kept
  aitrail detect --dry-run --hunts              also the hunting queries, over everything; keeps nothing
  aitrail detect --rule bedrock_region_sweep --since 2026-11-01 --dry-run
  aitrail detect --list                         the rules, what they need, what is missed without
  aitrail report --section detections           what was found
  aitrail explain FINDING_ID                    a finding: its events, what to do

\b
The windows of a rule are exact, also across runs. One group (a user, a session ...) gives one finding in the rule's
time of suppression. Running twice finds nothing twice.
"""

STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "", "informational": "dim"}
_COLUMNS = (
    Column("severity", "severity"),
    Column("first_seen", "from (UTC)", "plain"),
    Column("summary", "what"),
    Column("evidence_count", "events", "count"),
    Column("event_id", "finding", "id"),
)


@click.command(epilog=EPILOG)
@store_option
@click.option("--rule", "names", multiple=True, metavar="NAME", help="Only this rule; repeatable.")
@click.option("--hunts", is_flag=True, help="Also the hunting queries: many results, for people who look.")
@click.option("--since", metavar="TIME", help="With --dry-run: from this time on.")
@click.option("--until", metavar="TIME", help="With --dry-run: up to this time.")
@click.option("--dry-run", is_flag=True, help="Look at everything (or the range), keep nothing.")
@click.option(
    "--places",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where networks are (CSV: cidr, latitude, longitude, label), for impossible_travel.",
)
@click.option("--list", "listing", is_flag=True, help="List the rules and end.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object per line.",
)
def detect(
    store: Path,
    names: tuple[str, ...],
    hunts: bool,
    since: str | None,
    until: str | None,
    dry_run: bool,
    places: Path | None,
    listing: bool,
    kind: str,
) -> None:
    """Run the detection rules on the store and keep what they find."""
    rules = chosen(names, hunts=hunts or listing)
    if listing:
        _list(rules)
        return
    if (since or until) and not dry_run:
        raise ConfigError("--since and --until need --dry-run", hint="a kept run looks at all that is new")
    clock = SystemClock()
    where = Places(places) if places else None
    if dry_run:
        start = parse_moment(since, "--since") if since else None
        end = parse_moment(until, "--until") if until else None
        found, _ = detecting.look(existing_store(store), rules, clock, Covered(), since=start, until=end, places=where)
    else:
        found = run_rules(existing_store(store), rules, where)
    _show(found, kind)


def run_rules(
    store: Path, rules: Sequence[CompiledRule] | None = None, places: Places | None = None
) -> detecting.Found:
    """Run rules (all detections unless given) on what is new in ``store`` and keep what they find."""
    clock = SystemClock()
    with Spool.open(store, clock) as spool:
        return detecting.run(spool, store, chosen((), hunts=False) if rules is None else rules, clock, places)


def _show(found: detecting.Found, kind: str) -> None:
    for name, reason in found.left_out:
        console(stderr=True).print(Text(f"not run: {name}: {reason}"), soft_wrap=True)
    if kind == "json":
        for one in found.findings:
            click.echo(msgspec.json.encode(one))
        return
    screen = console()
    screen.print(Text(f"{plural(len(found.findings), 'finding')} of {plural(found.rules, 'rule')}", "bold"))
    ordered = sorted(found.findings, key=lambda one: (-SEVERITIES.index(one.severity), one.first_seen))
    if ordered:
        screen.print(table(_COLUMNS, [_row(one) for one in ordered], screen.width, STYLES))
        counts = Counter(one.severity for one in ordered)
        screen.print(Text(", ".join(f"{counts[name]} {name}" for name in reversed(SEVERITIES) if counts[name])))


def _row(one: Finding) -> tuple[object, ...]:
    moment = one.first_seen[:19].replace("T", " ")
    return (one.severity, moment, one.summary, one.evidence_count, one.event_id)


def _list(rules: list[CompiledRule]) -> None:
    screen = console()
    columns = (
        Column("name", "rule"),
        Column("severity", "severity"),
        Column("kind", "kind"),
        Column("needs", "needs one of"),
        Column("title", "title"),
    )
    rows = [(rule.name, rule.severity, rule.kind, rule.needs, rule.title) for rule in rules]
    screen.print(table(columns, rows, screen.width, STYLES))
