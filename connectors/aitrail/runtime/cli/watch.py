"""``aitrail watch``: what comes into the store, as it comes, in a terminal."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.event import AccessEvent
from aitrail.routing.where import parse_where
from aitrail.runtime.cli.detect import STYLES as SEVERITY_STYLES
from aitrail.runtime.cli.options import existing_store, store_option
from aitrail.runtime.cli.render import Column, capped, clean, plural, shown, table
from aitrail.runtime.cli.render import console as make_console
from aitrail.runtime.cli.report import STYLES
from aitrail.runtime.signals import Stop
from aitrail.runtime.watching import Chosen, News, Tail

EPILOG = """\b
Examples:
  aitrail watch                                    everything that comes, newest at the bottom
  aitrail watch --tier suspicious                  prompts with evidence of injection, and findings
  aitrail watch --user ines.moreau --model gpt-4o
  aitrail watch --where "action_kind = 'weights' or leakage_types startswith 'response:'"
  aitrail watch --format json | jq .user_id        one JSON object per line, for programs

\b
It reads what `aitrail run`, `serve` or `collect` brings into the store. Findings come from `aitrail detect` or [detect]
in aitrail.toml. Texts are shown as the content mode stored them, shortened and cleaned. Ctrl-C ends it (130).
"""
_TEXT = 160
_COLUMNS = (
    Column("time", "time (UTC)", "time"),
    Column("who", "who"),
    Column("action", "action", from_width=110),
    Column("target", "model or resource"),
    Column("outcome", "outcome"),
    Column("verdict", "verdict"),
    Column("risk", "risk", "count"),
    Column("text", "text", from_width=130),
)


@click.command(epilog=EPILOG)
@store_option
@click.option("--tenant", default="", help="Only this tenant.")
@click.option("--department", default="", help="Only this department.")
@click.option("--model", default="", help="Only this model.")
@click.option("--user", default="", help="Only this user: id, e-mail address or name.")
@click.option(
    "--tier", type=click.Choice(["suspicious", "high"]), help="Only prompts of this tier of injection or above."
)
@click.option(
    "--where", "condition", metavar="CONDITION", help="Only events that fulfil it, as in [destinations.*].where."
)
@click.option(
    "--tail", type=click.IntRange(0, 1000), default=10, show_default=True, help="Newest events to begin with."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Show what there is and end.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "line", "json"]),
    help="A live table, lines, or one JSON object per line; default: a table on a terminal, lines elsewhere.",
)
def watch(
    store: Path,
    tenant: str,
    department: str,
    model: str,
    user: str,
    tier: str | None,
    condition: str | None,
    tail: int,
    interval: float,
    once: bool,
    kind: str | None,
) -> None:
    """Follow events and findings as they come into the store, until stopped."""
    where = parse_where(condition, "--where") if condition else None
    chosen = Chosen(tenant=tenant, department=department, model=model, user=user, tier=tier or "", where=where)
    screen = make_console()
    following = Tail(existing_store(store), SystemClock(), chosen, tail=tail)
    stop = Stop()
    stop.install()
    try:
        if kind == "table" or (kind is None and screen.is_terminal and not once):
            _live(screen, following, stop, interval, once=once)
        else:
            _lines(screen, following, stop, interval, once=once, as_json=kind == "json")
    finally:
        following.close()
    if stop.requested:
        raise click.Abort


def _lines(screen: Console, following: Tail, stop: Stop, interval: float, *, once: bool, as_json: bool) -> None:
    while not stop.requested:
        news = following.look()
        for event in news.events:
            _say(screen, _event_json(event) if as_json else _event_line(event))
        for finding in news.findings:
            _say(screen, _finding_json(finding) if as_json else _finding_line(finding))
        if news.more and not as_json:
            _say(screen, Text(f"... and {plural(news.more, 'event')} more", "dim"))
        if once:
            return
        stop.bell.wait(interval)


def _say(screen: Console, line: Text) -> None:
    screen.print(line, soft_wrap=True)
    screen.file.flush()


def _live(screen: Console, following: Tail, stop: Stop, interval: float, *, once: bool) -> None:
    """A table that fits the terminal: the newest events, below them the newest findings."""
    events: deque[AccessEvent] = deque(maxlen=200)
    findings: deque[dict[str, Any]] = deque(maxlen=50)
    counts = {"events": 0, "findings": 0}
    with Live(console=screen, auto_refresh=False, screen=False, transient=False) as live:
        while not stop.requested:
            news = following.look()
            events.extend(news.events)
            findings.extend(news.findings)
            counts["events"] += len(news.events) + news.more
            counts["findings"] += len(news.findings)
            live.update(_page(screen, list(events), list(findings), counts, news), refresh=True)
            if once:
                return
            stop.bell.wait(interval)


def _page(
    screen: Console, events: list[AccessEvent], findings: list[dict[str, Any]], counts: dict[str, int], news: News
) -> Group:
    room = max(5, screen.height - 6)
    last_findings = findings[-max(3, room // 4) :]
    last_events = events[-max(3, room - len(last_findings) - 2) :]
    rows = [_row(event) for event in last_events]
    parts: list[Any] = [table(_COLUMNS, rows, screen.width, STYLES, most=40)]
    parts += [_finding_line(finding) for finding in last_findings]
    told = f"{plural(counts['events'], 'event')} and {plural(counts['findings'], 'finding')} so far"
    more = f"; {news.more:,} more in the last look than are shown" if news.more else ""
    return Group(*parts, Text(f"{told}{more}; Ctrl-C ends it", "dim"))


def _row(event: AccessEvent) -> tuple[Any, ...]:
    return (
        event.timestamp[:19].replace("T", " "),
        _who(event),
        event.action,
        event.model or event.resource_id,
        event.outcome_status,
        _verdict(event),
        event.risk_score,
        _text(event)[:60],
    )


def _who(event: AccessEvent) -> str:
    return event.user_email or event.user_id or event.agent or event.app or event.role or event.credential_id or "-"


def _verdict(event: AccessEvent) -> str:
    parts: list[str] = [event.injection_tier] if event.injection_tier else []
    parts += event.leakage_types[:2]
    if event.guardrail_action not in ("", "allowed"):
        parts.append(f"guardrail {event.guardrail_action}")
    return ", ".join(parts)


def _text(event: AccessEvent) -> str:
    if event.content_mode == "sealed" or not event.prompt_text:
        return ""
    return capped(" ".join(event.prompt_text.split()), _TEXT)


def _event_line(event: AccessEvent) -> Text:
    head = f"{event.timestamp[:19].replace('T', ' ')}  {event.event_id[:12]}  "
    line = Text(clean(head), "dim")
    line.append(clean(f"{_who(event)}  {event.action}  {event.model or event.resource_id}  "), "")
    line.append(clean(event.outcome_status), STYLES.get(event.outcome_status, ""))
    verdict = _verdict(event)
    if verdict:
        line.append(clean(f"  [{verdict}]"), "bold red" if event.injection_tier == "high" else "yellow")
    if event.risk_score:
        line.append(f"  risk {event.risk_score}")
    text = _text(event)
    if text:
        line.append(clean(f"  {text}"), "dim")
    return line


def _finding_line(finding: dict[str, Any]) -> Text:
    severity = str(finding["severity"])
    line = Text(f"{shown(finding['first_seen'])}  {str(finding['event_id'])[:12]}  ", "dim")
    line.append(f"FINDING {severity}", SEVERITY_STYLES.get(severity, "") or "bold")
    line.append(clean(f"  {finding['summary']}"), "")
    return line


def _event_json(event: AccessEvent) -> Text:
    import msgspec  # noqa: PLC0415  (for programs only)

    return Text(_one_line({"stream": "access", **msgspec.to_builtins(event)}))


def _finding_json(finding: dict[str, Any]) -> Text:
    return Text(_one_line({"stream": "finding", **finding}))


def _one_line(value: dict[str, Any]) -> str:
    """One JSON object on one line: ASCII alone, so that no text acts on a terminal."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, default=shown)
