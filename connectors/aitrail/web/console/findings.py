"""Questions about findings of rules."""

from typing import Any

from aitrail.store.queries import Connection, Rows, fetch
from aitrail.streams import SEVERITIES
from aitrail.web.console.events import Where
from aitrail.web.console.view import View

LIMIT = 500
_ORDER = {
    "severity": "array_position($severities, severity) DESC, first_seen DESC, event_id",
    "time": "first_seen DESC, event_id",
    "rule": "rule, first_seen DESC, event_id",
}
SORTS = tuple(_ORDER)
_LISTED = (
    "event_id, severity, rule, title, tenant_id, user_id, entities, events, first_seen, last_seen, summary, risk_score"
)


def where(view: View, severities: list[str], rule: str = "", behind: str = "") -> Where:
    """Findings that a view means: its time, tenant and user; texts in words.

    Args:
        view: what is looked at.
        severities: only these; empty: all.
        rule: name or title of a rule; empty: of all.
        behind: a panel's condition over ``finding_records``.
    """
    parts: list[str] = []
    values: dict[str, Any] = {}
    # A finding belongs to a range when its evidence reaches into it.
    for name, bound, condition in (
        ("since", view.since, "last_seen >= $since"),
        ("until", view.until, "first_seen < $until"),
    ):
        if bound is not None:
            parts.append(condition)
            values[name] = bound
    for field, wanted in view.equal:
        if field in ("tenant_id", "user_id"):
            parts.append(f"{field} IN (SELECT unnest(${field}))")
            values[field] = list(wanted)
    if severities:
        parts.append("severity IN (SELECT unnest($chosen))")
        values["chosen"] = severities
    if rule:
        parts.append("(rule = $rule OR title = $rule)")
        values["rule"] = rule
    if behind:
        parts.append(f"event_id IN (SELECT event_id FROM finding_records WHERE {behind})")  # noqa: S608
    if view.words:
        values["words"] = view.words
        columns = ("title", "summary", "user_id", "rule", "event_id", "array_to_string(entities, ' ')")
        parts.append("(" + " OR ".join(f"contains(lower({name}), lower($words))" for name in columns) + ")")
    return Where(" AND ".join(parts) or "true", values)


def listed(connection: Connection, chosen: Where, sort: str = "severity", limit: int = LIMIT) -> Rows:
    """Findings, the most serious (or newest) first."""
    order = _ORDER[sort]
    values = dict(chosen.values)
    if "$severities" in order:
        values["severities"] = list(SEVERITIES)
    sql = f"SELECT {_LISTED} FROM findings WHERE {chosen.sql} ORDER BY {order} LIMIT {limit:d}"  # noqa: S608
    return fetch(connection, sql, values)


def counts(connection: Connection, chosen: Where) -> dict[str, int]:
    """How many there are of each severity."""
    sql = f"SELECT severity, count(*) FROM findings WHERE {chosen.sql} GROUP BY severity"  # noqa: S608
    found = {row[0]: row[1] for row in fetch(connection, sql, chosen.values).rows}
    return {severity: found.get(severity, 0) for severity in reversed(SEVERITIES)}


def of_event(connection: Connection, event_id: str) -> list[dict[str, Any]]:
    """Findings that an event is evidence of."""
    sql = "SELECT event_id, severity, title FROM findings WHERE list_contains(evidence, $id) ORDER BY event_id LIMIT 20"
    return fetch(connection, sql, {"id": event_id}).dicts()
