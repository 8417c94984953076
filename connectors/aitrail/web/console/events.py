"""Which events a view means, and the questions about them, as SQL with bound values.

Names of fields come from the catalog, names of panels from the compiled dashboards; values are always bound.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from aitrail.schema.catalog import by_name
from aitrail.store.columns import identifier
from aitrail.store.queries import Connection, Rows, fetch
from aitrail.web.console.view import FOLDS, View

PAGE = 50
MAX_OFFSET = 100_000
MAX_EXPORT = 100_000
SORTS: Mapping[str, str] = {
    "timestamp": "timestamp",
    "risk": "risk_score",
    "injection": "injection_score",
    "tokens": "token_count",
    "cost": "cost_usd",
    "latency": "latency_ms",
}
# Where words are looked for: texts and names, and ids when the words could be one.
_WORDS_IN = (
    "prompt_text", "response_text", "user_id", "user_name", "user_email", "src_ip", "app", "agent", "tool", "action",
    "model", "resource_id", "error_code",
)  # fmt: skip
_IDS = ("event_id", "session_id", "request_id", "trace_id", "source_event_id", "credential_id")
_ID_LIKE = re.compile(r"(?=.*[0-9])\S{4,}")
LIST = (
    "event_id", "timestamp", "tenant_id", "principal_type", "user_id", "user_name", "user_email", "agent", "app",
    "role", "credential_id", "department", "action", "action_kind", "model", "resource_id", "outcome_status",
    "injection_tier", "leakage_types", "guardrail_action", "risk_score", "token_count", "cost_usd", "latency_ms",
    "session_id", "src_ip", "content_mode", "prompt_text",
)  # fmt: skip
# How much of a text a list shows.
_SNIPPET = 240


class Where(Struct, frozen=True):
    """A condition over ``events`` and its values."""

    sql: str
    values: dict[str, Any]


def where(view: View, extra: Where | None = None) -> Where:
    """Turn a view into a condition; ``extra`` is that of a panel."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    for name, bound, operator in (("since", view.since, ">="), ("until", view.until, "<")):
        if bound is not None:
            parts.append(f"timestamp {operator} ${name}")
            values[name] = bound
    for field, wanted in view.equal:
        parts.append(_one_of(field, wanted, values))
    for name, number in view.folds:
        parts.append(f"{FOLDS[name][0]} = ${name}")
        values[name] = number
    if view.words:
        values["words"] = view.words
        names = (*_WORDS_IN, *_IDS) if _ID_LIKE.fullmatch(view.words) else _WORDS_IN
        parts.append("(" + " OR ".join(f"contains(lower({name}), lower($words))" for name in names) + ")")
    if view.finding:
        values["finding"] = view.finding
        parts.append("event_id IN (SELECT unnest(evidence) FROM findings WHERE event_id = $finding)")
    if extra is not None:
        parts.append(f"({extra.sql})")
        values |= extra.values
    return Where(" AND ".join(parts) or "true", values)


def _one_of(field: str, wanted: tuple[str, ...], values: dict[str, Any]) -> str:
    """A field has one of the values; a list has it among its elements, and ``""`` is a missing one."""
    kind = by_name()[field].kind
    column = identifier(field)
    name = f"is_{field}"
    values[name] = list(wanted)
    if kind == "list":
        missing = f" OR len({column}) = 0" if "" in wanted else ""
        return f"(list_has_any({column}, ${name}){missing})"
    if kind in ("integer", "number", "boolean"):
        missing = f" OR {column} IS NULL" if "" in wanted else ""
        return f"({column}::VARCHAR IN (SELECT unnest(${name})){missing})"
    return f"{column} IN (SELECT unnest(${name}))"


def count(connection: Connection, chosen: Where) -> int:
    """How many events fulfil the condition."""
    return int(fetch(connection, f"SELECT count(*) FROM events WHERE {chosen.sql}", chosen.values).rows[0][0])  # noqa: S608


class Page(Struct, frozen=True):
    """One page of a list, and how many events the whole list has."""

    rows: list[dict[str, Any]]
    total: int


def page(connection: Connection, chosen: Where, *, sort: str, descending: bool, offset: int, limit: int = PAGE) -> Page:
    """One page of a list; texts are cut to what it shows."""
    order = _order(sort, descending=descending)
    window = f"ORDER BY {order} LIMIT {limit:d} OFFSET {offset:d}"
    # The ids first: sorting must not carry whole prompts along; their times say in which files the rest is.
    if "words" in chosen.values:
        # Looking through texts is what takes time: it is done once, for the page and for the number.
        column = "" if sort == "timestamp" else f", {SORTS[sort]}"
        hits = f"SELECT event_id, timestamp{column} FROM events WHERE {chosen.sql}"  # noqa: S608
        found = fetch(
            connection,
            f"WITH hits AS MATERIALIZED ({hits}) "  # noqa: S608
            f"SELECT event_id, timestamp, (SELECT count(*) FROM hits) FROM hits {window}",
            chosen.values,
        ).rows
        total = int(found[0][2]) if found else 0 if not offset else count(connection, chosen)
    else:
        sql = f"SELECT event_id, timestamp FROM events WHERE {chosen.sql} {window}"  # noqa: S608
        found = fetch(connection, sql, chosen.values).rows
        total = count(connection, chosen)
    if not found:
        return Page([], total)
    names = ", ".join(f"left({name}, {_SNIPPET}) AS {name}" if name == "prompt_text" else name for name in LIST)
    times = [row[1] for row in found]
    outer = (
        f"SELECT {names} FROM events WHERE timestamp BETWEEN $first AND $last "  # noqa: S608
        f"AND event_id IN (SELECT unnest($ids)) ORDER BY {order}"
    )
    bound = {"ids": [row[0] for row in found], "first": min(times), "last": max(times)}
    return Page(fetch(connection, outer, bound).dicts(), total)


def export_ids(connection: Connection, chosen: Where) -> list[tuple[str, datetime]]:
    """Ids and times of the events of an export, newest first: what one can hold of 100,000 events."""
    order = _order("timestamp", descending=True)
    sql = f"SELECT event_id, timestamp FROM events WHERE {chosen.sql} ORDER BY {order} LIMIT {MAX_EXPORT:d}"  # noqa: S608
    return [(row[0], row[1]) for row in fetch(connection, sql, chosen.values).rows]


def export_rows(connection: Connection, some: Sequence[tuple[str, datetime]]) -> list[dict[str, Any]]:
    """Every field of some events of ``export_ids``, in their order."""
    names = ", ".join(map(identifier, by_name()))
    sql = (
        f"SELECT {names} FROM events WHERE timestamp BETWEEN $first AND $last "  # noqa: S608
        f"AND event_id IN (SELECT unnest($ids)) ORDER BY {_order('timestamp', descending=True)}"
    )
    bound = {"ids": [one[0] for one in some], "first": some[-1][1], "last": some[0][1]}
    return fetch(connection, sql, bound).dicts()


def _order(sort: str, *, descending: bool) -> str:
    direction = "DESC" if descending else "ASC"
    return f"{SORTS[sort]} {direction} NULLS LAST, event_id {direction}"


SESSION_LIMIT = 500


def session(connection: Connection, event: Mapping[str, Any], limit: int = SESSION_LIMIT) -> Rows:
    """The events of a session in the order of time; without a session: of the same user, an hour around."""
    names = ", ".join(LIST)
    if event["session_id"]:
        # A session that is longer than two weeks is none that one reads; the bounds say in which files to look.
        chosen = (
            "tenant_id = $tenant AND session_id = $session "
            "AND timestamp BETWEEN $at - INTERVAL 7 DAY AND $at + INTERVAL 7 DAY"
        )
        values: dict[str, Any] = {
            "tenant": event["tenant_id"],
            "session": event["session_id"],
            "at": event["timestamp"],
        }
    elif event["user_id"]:
        chosen = (
            "tenant_id = $tenant AND user_id = $user AND session_id = '' "
            "AND timestamp BETWEEN $at - INTERVAL 30 MINUTE AND $at + INTERVAL 30 MINUTE"
        )
        values = {"tenant": event["tenant_id"], "user": event["user_id"], "at": event["timestamp"]}
    else:
        return Rows((), [])
    sql = f"SELECT {names} FROM events WHERE {chosen} ORDER BY timestamp, event_id LIMIT {limit:d}"  # noqa: S608
    return fetch(connection, sql, values)
