"""What is new in a store, again and again: events of new segments, and new findings.

A look costs two small reads of SQLite; only when the catalog has changed are the new segments opened, and nothing else.
"""

from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from aitrail.clock import Clock
from aitrail.event import AccessEvent
from aitrail.routing.where import Where
from aitrail.runtime.cli.explain import to_event
from aitrail.store import catalog
from aitrail.store.database import Database
from aitrail.store.queries import Connection, fetch
from aitrail.store.reader import Snapshot, StoreReader

# What was shown is remembered, so that a compaction shows nothing again.
_REMEMBERED = 50_000
# More events than this in one look are counted, not shown: nobody reads them, and the terminal would fall behind.
MOST = 500
_FINDING_COLUMNS = "event_id, severity, rule, title, tenant_id, user_id, events, first_seen, summary"


class Chosen(Struct, frozen=True):
    """Which events and findings are shown; an empty field lets everything pass.

    Attributes:
        user: user id, e-mail address or name; tenant and user also narrow findings, the others only events.
        tier: ``suspicious`` also lets ``high`` pass.
        where: a condition as destinations have it.
    """

    tenant: str = ""
    department: str = ""
    model: str = ""
    user: str = ""
    tier: str = ""
    where: Where | None = None


class News(Struct, frozen=True):
    """What came since the last look: events by their time, how many more there were, findings."""

    events: list[AccessEvent]
    more: int
    findings: list[dict[str, Any]]


class Tail:
    """Follows one store.

    Args:
        tail: so many of the newest events are given by the first look.
    """

    def __init__(self, store: Path, clock: Clock, chosen: Chosen, *, tail: int) -> None:
        self._reader = StoreReader(store, clock=clock)
        self._database = Database.open(Path(store), clock, write=False)
        self._chosen = chosen
        self._tail = tail
        self._known: set[str] | None = None
        self._findings: set[str] = set()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._newest: datetime | None = None

    def look(self) -> News:
        """What is new since the last look; the first one gives the newest events."""
        with self._database.snapshot() as db:
            segments = {one.path: one for one in catalog.listing(db, catalog.EVENTS)}
            findings = int(db.execute("SELECT count(*) FROM finding").fetchone()[0])
        first = self._known is None
        known = self._known or set()
        new = [one for path, one in segments.items() if path not in known]
        if not new and findings == len(self._findings) and not first:
            return News([], 0, [])
        compacted = bool(known - segments.keys())
        self._known = set(segments)
        whole = self._reader.snapshot()
        # Only what is new is opened.
        with self._reader.connect(Snapshot(new, whole.tables, whole.findings)) as connection:
            events, more = self._events(connection, first=first, compacted=compacted) if new else ([], 0)
            return News(events, more, self._new_findings(connection, first=first))

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    def _events(self, connection: Connection, *, first: bool, compacted: bool) -> tuple[list[AccessEvent], int]:
        sql, values = self._condition()
        if compacted and self._newest is not None:
            # The new segment holds old events, too; those that were read before the last look have been shown.
            sql += " AND ingested_at >= $newest"
            values["newest"] = self._newest
        newest = fetch(connection, "SELECT max(ingested_at) FROM events").rows[0][0]
        limit = self._tail if first else MOST + 1
        # A condition is decided here and not by the query: it may leave most of the events out.
        most = limit if self._chosen.where is None else 20_000
        rows = fetch(
            connection,
            f"SELECT * FROM events WHERE {sql} ORDER BY timestamp DESC, event_id LIMIT {most:d}",  # noqa: S608
            values,
        ).dicts()
        events = [to_event(row) for row in rows if row["event_id"] not in self._seen]
        if self._chosen.where is not None:
            events = [event for event in events if self._chosen.where.test(event)]
        total = len(events)
        if self._chosen.where is None and len(rows) > MOST:
            total = int(fetch(connection, f"SELECT count(*) FROM events WHERE {sql}", values).rows[0][0])  # noqa: S608
        self._remember(events)
        self._newest = max(filter(None, (self._newest, newest)), default=None)
        shown = events[: self._tail if first else MOST]
        return shown[::-1], 0 if first else max(0, total - len(shown))

    def _condition(self) -> tuple[str, dict[str, Any]]:
        chosen = self._chosen
        values: dict[str, Any] = {}
        parts = ["true"]
        for name, column in (("tenant", "tenant_id"), ("department", "department"), ("model", "model")):
            if getattr(chosen, name):
                parts.append(f"{column} = ${name}")
                values[name] = getattr(chosen, name).lower()
        if chosen.user:
            parts.append("$user IN (user_id, user_email, user_name)")
            values["user"] = chosen.user.lower()
        if chosen.tier:
            parts.append("injection_tier = 'high'" if chosen.tier == "high" else "injection_tier <> ''")
        return " AND ".join(parts), values

    def _new_findings(self, connection: Connection, *, first: bool) -> list[dict[str, Any]]:
        rows = fetch(connection, f"SELECT {_FINDING_COLUMNS} FROM findings ORDER BY first_seen, event_id").dicts()  # noqa: S608
        new = [row for row in rows if row["event_id"] not in self._findings]
        self._findings = {row["event_id"] for row in rows}
        if first:
            new = new[-self._tail :] if self._tail else []
        chosen = self._chosen
        return [
            row
            for row in new
            if (not chosen.tenant or row["tenant_id"] == chosen.tenant.lower())
            and (not chosen.user or row["user_id"] == chosen.user.lower())
        ]

    def _remember(self, events: list[AccessEvent]) -> None:
        for event in events:
            self._seen[event.event_id] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
