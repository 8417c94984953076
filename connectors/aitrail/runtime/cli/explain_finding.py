"""A finding for people: what the rule means, the events that show it, and what to do in which order."""

from typing import Any

from rich.console import Console
from rich.text import Text

from aitrail.detection.rules import CompiledRule, shipped
from aitrail.runtime.cli.render import Column, clean, shown, table
from aitrail.store.queries import Connection, fetch

PHASES = ("validate", "contain", "investigate", "remediate")
_SHOWN = 20
_FINDING = "SELECT * FROM findings WHERE starts_with(event_id, $prefix) ORDER BY event_id LIMIT 2"
_EVENTS = """
    SELECT timestamp, coalesce(nullif(user_id, ''), nullif(agent, ''), credential_id) AS who, action,
        coalesce(nullif(model, ''), resource_id) AS target, outcome_status AS outcome, event_id
    FROM events WHERE event_id IN (SELECT unnest($ids)) ORDER BY timestamp, event_id LIMIT $top"""
_COLUMNS = (
    Column("timestamp", "time (UTC)", "time"),
    Column("who", "who"),
    Column("action", "action"),
    Column("target", "model or resource"),
    Column("outcome", "outcome"),
    Column("event_id", "event", "id"),
)


def find_finding(connection: Connection, prefix: str) -> dict[str, Any] | None:
    """The one finding whose id begins with ``prefix``, with its events and its rule; None when there is none."""
    found = fetch(connection, _FINDING, {"prefix": prefix}).dicts()
    if len(found) != 1:
        return None
    finding = found[0]
    finding["events_shown"] = fetch(connection, _EVENTS, {"ids": finding["evidence"], "top": _SHOWN}).dicts()
    rule = {one.id: one for one in shipped()}.get(finding["rule_id"])
    finding["description"] = rule.description if rule else ""
    finding["false_positives"] = list(rule.false_positives) if rule else []
    finding["response"] = {phase: list(rule.response[phase]) for phase in PHASES} if rule else {}
    finding["tags"] = _tags(rule) if rule else []
    return finding


def _tags(rule: CompiledRule) -> list[str]:
    return [*rule.atlas, *rule.owasp, *rule.tags]


def print_finding(screen: Console, finding: dict[str, Any]) -> None:
    """Print a finding; no text of an event is read as markup."""

    def say(label: str, text: str) -> None:
        screen.print(Text.assemble((f"{label}  ", "bold"), clean(text)), soft_wrap=True)

    screen.print(Text(clean(f"{finding['title']} [{finding['severity']}]"), "bold cyan"), soft_wrap=True)
    screen.print(Text(clean(finding["description"])), soft_wrap=True)
    say("rule", f"{finding['rule']}  ({', '.join(finding['tags'])})")
    say("when", f"{shown(finding['first_seen'])} to {shown(finding['last_seen'])} UTC, {finding['events']} events")
    say("about", ", ".join(finding["entities"]))
    screen.print(Text("\nEvents that show it", "bold cyan"))
    rows = [tuple(event[column.name] for column in _COLUMNS) for event in finding["events_shown"]]
    screen.print(table(_COLUMNS, rows, screen.width, {}))
    if finding["events"] > len(rows):
        screen.print(Text(f"and {finding['events'] - len(rows)} more", "dim"))
    if finding["false_positives"]:
        screen.print(Text("\nLooks the same and is not", "bold cyan"))
        for reason in finding["false_positives"]:
            screen.print(Text(f"  - {clean(reason)}"), soft_wrap=True)
    for phase, steps in finding["response"].items():
        screen.print(Text(f"\n{phase.capitalize()}", "bold cyan"))
        for step in steps:
            screen.print(Text(f"  - {clean(step)}"), soft_wrap=True)
