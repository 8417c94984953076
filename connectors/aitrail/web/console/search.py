"""One box for everything: ids, people, models, findings and words in texts."""

import re
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from aitrail.store.queries import Connection, fetch
from aitrail.web.console import events, findings
from aitrail.web.console.view import View

EVENTS_SHOWN = 30
_FINDINGS_SHOWN = 20
_NAMES_SHOWN = 12
_ID = re.compile(r"[0-9a-f]{6,32}")
# Fields whose values are things that one looks for by name; label for people.
NAMES = {
    "user_id": "user",
    "model": "model",
    "app": "application",
    "department": "department",
    "agent": "agent",
    "src_ip": "address",
    "resource_id": "resource",
}


class Hits(Struct, frozen=True):
    """What was found.

    Attributes:
        exact: ids of events and findings that begin with the word: (kind, id).
        names: field, value, number of events.
    """

    exact: list[tuple[str, str]]
    names: list[tuple[str, str, int]]
    findings: list[dict[str, Any]]
    events: list[dict[str, Any]]
    total: int


def search(connection: Connection, view: View) -> Hits:
    """Look for ``view.words`` in the range of ``view``; ids are looked for in the whole store."""
    words = view.words
    exact = _ids(connection, words.lower()) if _ID.fullmatch(words.lower()) else []
    chosen = events.where(view)
    page = events.page(connection, chosen, sort="timestamp", descending=True, offset=0, limit=EVENTS_SHOWN)
    if page.rows:
        _add_texts(connection, page.rows)
    names = _names(connection, view)
    found = findings.listed(connection, findings.where(view, []), limit=_FINDINGS_SHOWN).dicts()
    return Hits(exact, names, found, page.rows, page.total)


def _ids(connection: Connection, prefix: str) -> list[tuple[str, str]]:
    sql = """SELECT 'event', event_id FROM events WHERE starts_with(event_id, $prefix) UNION ALL
        SELECT 'finding', event_id FROM findings WHERE starts_with(event_id, $prefix) ORDER BY 1, 2 LIMIT 10"""
    return [(str(kind), str(found)) for kind, found in fetch(connection, sql, {"prefix": prefix}).rows]


def _names(connection: Connection, view: View) -> list[tuple[str, str, int]]:
    """Values of the fields of ``NAMES`` that hold the words, most frequent first."""
    plain = events.where(replace(view, words=""))
    values = {**plain.values, "words": view.words}
    hit = " OR ".join(f"contains(lower({name}), lower($words))" for name in NAMES)
    cases = " UNION ALL ".join(
        f"SELECT '{name}' AS field, {name} AS value, count(*) AS events FROM hits "  # noqa: S608
        f"WHERE contains(lower({name}), lower($words)) GROUP BY value"
        for name in NAMES
    )
    sql = (
        f"WITH hits AS MATERIALIZED (SELECT {', '.join(NAMES)} FROM events WHERE {plain.sql} AND ({hit})) "  # noqa: S608
        f"SELECT field, value, events FROM ({cases}) ORDER BY events DESC, field, value LIMIT {_NAMES_SHOWN:d}"
    )
    return [(str(field), str(value), int(number)) for field, value, number in fetch(connection, sql, values).rows]


def _add_texts(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Put whole texts (as far as the viewer may see them) beside the rows: the place found may be behind the cut."""
    times = [row["timestamp"] for row in rows]
    sql = """SELECT event_id, prompt_text, response_text FROM events
        WHERE timestamp BETWEEN $first AND $last AND event_id IN (SELECT unnest($ids))"""
    ids = [row["event_id"] for row in rows]
    found = fetch(connection, sql, {"ids": ids, "first": min(times), "last": max(times)}).rows
    texts = {row[0]: (row[1], row[2]) for row in found}
    for row in rows:
        row["prompt_text"], row["response_text"] = texts.get(row["event_id"], (row["prompt_text"], ""))
