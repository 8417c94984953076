"""``aitrail report``: who uses which model, what they ask, what it costs, what looks wrong."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from aitrail.runtime.cli.options import store_option
from aitrail.runtime.cli.reading import filter_options, make_filters, read, utc_now, write_out
from aitrail.runtime.cli.render import as_csv, as_json, clean, console, plural, shown, table
from aitrail.runtime.cli.report_html import as_html
from aitrail.runtime.cli.report_layout import NAMES, Report, make_report

EPILOG = """\b
Examples:
  aitrail report                                    everything in the store
  aitrail report --last 24h --department retail     one department, one day
  aitrail report --section findings --top 50        only what stands out
  aitrail report --format html --out report.html    one page to hand on; no script, nothing loaded
  aitrail report --section users --format csv       for a spreadsheet (formulas are disarmed)

\b
Sections: detections, findings, users, departments, models, actions, prompts, outcomes, injections, leaks, guardrails,
agreement, sessions, control_plane, sources, dead_letters.
Works while `aitrail run` writes. Texts of prompts are not in the report: `aitrail explain EVENT_ID` shows one event.
"""

STYLES: Mapping[str, str] = {
    "blocked": "yellow",
    "denied": "yellow",
    "throttled": "yellow",
    "error": "red",
    "high": "bold red",
    "suspicious": "yellow",
    "critical": "bold red",
    "medium": "yellow",
    "guardrail": "bold red",
    "weights": "bold red",
}
_BLOCKS = "▁▂▃▄▅▆▇█"


@click.command(epilog=EPILOG)
@store_option
@filter_options
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows per section.")
@click.option(
    "--section",
    "sections",
    multiple=True,
    metavar="NAME",
    type=click.Choice(NAMES),
    help="Only this section; repeatable. The names are below.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "csv", "html"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead.")
def report(store: Path, top: int, sections: tuple[str, ...], kind: str, out: Path | None, **chosen: Any) -> None:
    """Report who used which model for what, at what cost, and what looks wrong."""
    filters = make_filters(**chosen)
    found = read(store, lambda connection: make_report(connection, filters, top, sections))
    write_out(_WRITERS[kind](found), out)


# --- terminal


def as_table(report: Report) -> str:
    """The report for a terminal, or for a file or pipe that people read."""
    screen = console()
    with screen.capture() as captured:
        print_report(screen, report)
    return captured.get()


def print_report(screen: Console, report: Report) -> None:
    """Print the report on ``screen``; also used by the demo. No text of an event is read as markup."""
    if report.overview["events"]:
        _headline(screen, report)
    else:
        screen.print(Text("no events in this range" if _filtered(report) else "the store holds no events"))
    for filled in report.sections:
        if not filled.rows and not report.overview["events"]:
            continue
        screen.print()
        if not filled.rows:
            screen.print(Text.assemble((filled.section.title, "bold"), (f": {filled.section.empty}", "dim")))
            continue
        screen.print(Text(filled.section.title, style="bold cyan"))
        screen.print(table(filled.section.columns, filled.rows, screen.width, STYLES))


def _filtered(report: Report) -> bool:
    return any(msgspec.structs.astuple(report.filters))


def headline(overview: Mapping[str, Any]) -> list[str]:
    """The report in three sentences; ``overview`` has at least one event."""
    number = {name: value or 0 for name, value in overview.items()}
    when = f"{shown(overview['first_seen'])} to {shown(overview['last_seen'])} UTC"
    who = f"{number['principals']:,} people, services and agents in {plural(number['departments'], 'department')}"
    cost = f"{plural(number['tokens'], 'token')}, ${shown(number['cost_usd'], 'usd')}"
    attacks = f"{number['injection_high']:,} clear and {number['injection_suspicious']:,} suspicious prompt injections"
    stopped = f"{plural(number['blocked'], 'call')} blocked, {number['denied']:,} denied"
    return [
        f"{when}: {plural(number['events'], 'event')} from {plural(number['sources'], 'source')}",
        f"{who} used {plural(number['models'], 'model')}: {cost}",
        f"{plural(number['notable'], 'event')} to look at: {attacks}, {plural(number['leaks'], 'leak')}; {stopped}",
    ]


def _headline(screen: Console, report: Report) -> None:
    first, *others = headline(report.overview)
    screen.print(Text(first, style="bold"))
    for line in others:
        screen.print(Text(line))
    if len(report.timeline) > 1 and screen.encoding.lower().startswith("utf"):
        bars = sparkline(report)
        screen.print(Text.assemble("events  ", (bars, "cyan"), (f"  one bar is {span(report.bucket)}", "dim")))


def sparkline(report: Report) -> str:
    """One block per bucket of the time line, buckets without events included."""
    by_time = {row["time"]: row["events"] for row in report.timeline}
    moment, last = min(by_time), max(by_time)
    values = []
    while moment <= last:
        values.append(by_time.get(moment, 0))
        moment += report.bucket
    most = max(values)
    return "".join(_BLOCKS[(value * (len(_BLOCKS) - 1) + most - 1) // most] if value else " " for value in values)


def span(length: timedelta) -> str:
    """A bucket's width in words."""
    minutes = round(length.total_seconds() / 60)
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= size:
            count = minutes // size
            return f"{count} {unit}{'s' * (count != 1)}"
    return "1 minute"


# --- for programs and spreadsheets


def plain(report: Report) -> dict[str, Any]:
    """The report as plain data: the JSON format."""
    return {
        "generated_at": utc_now(),
        "filters": {key: value for key, value in msgspec.structs.asdict(report.filters).items() if value},
        "overview": report.overview,
        "timeline": {"bucket_seconds": int(report.bucket.total_seconds()), "buckets": report.timeline},
        "sections": {
            filled.section.name: [
                dict(zip((column.name for column in filled.section.columns), row, strict=True)) for row in filled.rows
            ]
            for filled in report.sections
        },
    }


def _as_json(report: Report) -> str:
    return as_json(plain(report))


def _as_csv(report: Report) -> str:
    """One section gives a plain table; several follow each other, each under a line with its title."""
    blocks = []
    for filled in report.sections:
        text = as_csv([column.name for column in filled.section.columns], filled.rows)
        blocks.append(text if len(report.sections) == 1 else f"# {clean(filled.section.title)}\n{text}")
    return "\n".join(blocks)


_WRITERS: Mapping[str, Callable[[Report], str]] = {
    "table": as_table,
    "json": _as_json,
    "csv": _as_csv,
    "html": as_html,
}
