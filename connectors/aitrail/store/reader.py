"""``StoreReader``: SQL over a store, at the same time as its writer and its compaction.

A connection sees the store as it was when it was opened: the catalogued segments of one moment, and the dead letters,
runs, counters and cursors of the same moment. Replaced segments stay on disk for a grace period; who comes later still
gets a fresh snapshot from ``query``.
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from aitrail.clock import Clock, SystemClock
from aitrail.errors import StoreError
from aitrail.event import FIELD_NAMES, ContentMode
from aitrail.store import catalog, columns, records, sandbox
from aitrail.store.catalog import Segment
from aitrail.store.database import Database
from aitrail.store.places import Places
from aitrail.store.segments import engine
from aitrail.streams import Health

_ATTEMPTS = 4
PLACES = "src_ip VARCHAR, latitude DOUBLE, longitude DOUBLE, label VARCHAR"
_CHUNK_ROWS = 5_000
# The content of a dead letter stays where it is: tables show where it is and why, `aitrail deadletter show` the rest.
_TABLES: dict[str, tuple[str, str]] = {
    "dead_letters": (
        """id VARCHAR, source VARCHAR, origin VARCHAR, position BIGINT, "end" BIGINT, "index" BIGINT, code VARCHAR,
        field VARCHAR, record_type VARCHAR, stage VARCHAR, destination VARCHAR, event_id VARCHAR,
        first_seen TIMESTAMP, resolved TIMESTAMP""",
        """SELECT id, source, origin, position, "end", "index", code, field, record_type, stage, destination, event_id,
        first_seen, resolved FROM dead_letter ORDER BY first_seen, id""",
    ),
    "runs": (
        "id BIGINT, command VARCHAR, started TIMESTAMP, ended TIMESTAMP, totals VARCHAR",
        "SELECT id, command, started, ended, totals FROM run ORDER BY id",
    ),
    "counters": (
        "source VARCHAR, name VARCHAR, value BIGINT",
        "SELECT source, name, value FROM counter ORDER BY source, name",
    ),
    "findings": (
        """event_id VARCHAR, severity VARCHAR, rule VARCHAR, title VARCHAR, tenant_id VARCHAR, user_id VARCHAR,
        entities VARCHAR[], events BIGINT, first_seen TIMESTAMP, last_seen TIMESTAMP, summary VARCHAR,
        evidence VARCHAR[], rule_id VARCHAR, risk_score BIGINT""",
        """SELECT event_id, severity, body ->> '$.tags[0]', body ->> '$.rule_name', body ->> '$.tenant_id',
        coalesce(body ->> '$.user_id', ''), body -> '$.entities', body ->> '$.evidence_count', start,
        round((julianday(body ->> '$.timestamp') - 2440587.5) * 86400.0, 3), body ->> '$.summary',
        body -> '$.evidence_ids', rule_id, body ->> '$.risk_score' FROM finding ORDER BY start, event_id""",
    ),
    "cursors": (
        "source VARCHAR, key VARCHAR, bytes BIGINT, updated TIMESTAMP",
        "SELECT source, key, length(value), updated FROM cursor ORDER BY source, key",
    ),
}


class Snapshot(msgspec.Struct, frozen=True):
    """The store at one moment: its segments, the rows of its small tables, and its findings as they are shipped."""

    events: list[Segment]
    tables: dict[str, list[tuple[Any, ...]]]
    findings: list[bytes] = []


class Result(msgspec.Struct, frozen=True):
    """The answer to a query: column names, DuckDB type names, rows; ``truncated`` when there were more rows."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool = False


class StoreReader:
    """Reads the store in ``directory``; keeps nothing open between calls.

    Args:
        directory: the store.
        memory_limit: how much memory a query may take; nothing is spilled to disk.
        threads: how many cores a query may use; None: all.
        content: hide the texts of events whose content mode is above this one (``privacy.lower``); None: hide nothing.
        health: gives the present state of the collector, for ``health_records``; None: that stays empty.

    Raises:
        StoreError: there is no store, or a newer aitrail wrote it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        memory_limit: str = "1GB",
        threads: int | None = None,
        clock: Clock | None = None,
        content: ContentMode | None = None,
        health: Callable[[], Sequence[Health]] | None = None,
        places: Places | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self._memory_limit = memory_limit
        self._threads = threads
        self._clock = clock or SystemClock()
        self._content = content
        self._health = health
        self._places = places
        Database.open(self.directory, self._clock, write=False).close()

    def snapshot(self) -> Snapshot:
        """Look up what the store consists of now, in one transaction."""
        with Database.open(self.directory, self._clock, write=False) as database, database.snapshot() as db:
            return Snapshot(
                catalog.listing(db, catalog.EVENTS),
                {name: db.execute(sql).fetchall() for name, (_, sql) in _TABLES.items()},
                [bytes(body) for (body,) in db.execute("SELECT body FROM finding ORDER BY start, event_id")],
            )

    def connect(self, snapshot: Snapshot | None = None) -> sandbox.GuardedConnection:
        """Open a connection that can read this moment's (or ``snapshot``'s) ``events`` and small tables, nothing else.

        The tables are ``findings``, ``dead_letters``, ``runs``, ``counters`` and ``cursors``; ``finding_records`` and
        ``health_records`` have the fields of ``aitrail.streams``.
        """
        return self._open(snapshot or self.snapshot())

    def query(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None, *, max_rows: int | None = None
    ) -> Result:
        """Run one reading statement over the store as of now.

        Args:
            sql: DuckDB SQL; one statement.
            parameters: values for ``?`` or ``$name``.
            max_rows: stop after so many rows.

        Raises:
            sandbox.QueryError: the statement is refused or wrong.
            StoreError: a segment is missing and no compaction explains it.
        """
        previous: list[Segment] | None = None
        for _ in range(_ATTEMPTS):
            now = self.snapshot()
            if now.events == previous:
                break
            previous = now.events
            try:
                with self._open(now) as connection:
                    return _answer(connection.execute(sql, parameters), max_rows)
            except duckdb.IOException:
                # A file of the snapshot is gone: it was compacted or has reached its retention. Look again.
                continue
        raise self._missing(previous or [])

    def find(self, event_id: str) -> dict[str, Any] | None:
        """Give one event by its id as the fields of ``AccessEvent`` (times as canonical text); None without it."""
        answer = self.query("SELECT * FROM events WHERE event_id = ? LIMIT 1", [event_id])
        if not answer.rows:
            return None
        found = dict(zip(answer.columns, answer.rows[0], strict=True))
        for name in columns.TIME_FIELDS:
            found[name] = canonical_time(found[name])
        return {name: found[name] for name in FIELD_NAMES}

    def _open(self, snapshot: Snapshot) -> sandbox.GuardedConnection:
        connection = engine(memory_limit=self._memory_limit, threads=self._threads or _cores(), cache_files=True)
        try:
            root = self.directory / "segments"
            files = [str(root / one.path) for one in snapshot.events]
            for name, (schema, _) in _TABLES.items():
                _fill(connection, name, schema, snapshot.tables[name])
            records.fill(connection, "finding", snapshot.findings)
            reports = self._health() if self._health is not None else ()
            records.fill(connection, "health", [msgspec.json.encode(report) for report in reports])
            events = events_sql(connection, snapshot.events, files)
            if self._content is not None:
                events = columns.lowered(events, self._content)
            connection.execute(f"CREATE VIEW events AS {events}")
            if self._places is not None:
                addresses = connection.execute("SELECT DISTINCT src_ip FROM events WHERE src_ip <> ''").fetchall()
                _fill(connection, "places", PLACES, self._places.locate(one for (one,) in addresses))
            sandbox.lock_down(connection, files)
        except BaseException:
            connection.close()
            raise
        return sandbox.GuardedConnection(connection)

    def _missing(self, segments: Sequence[Segment]) -> StoreError:
        """Say which segment cannot be read."""
        lost = next((one.path for one in segments if not (self.directory / "segments" / one.path).is_file()), "")
        what = f"segment {lost} is missing" if lost else "a segment cannot be read"
        return StoreError(f"{self.directory}: {what}", hint="restore segments/ from a backup")


def scan(files: Sequence[str], *, union: bool) -> str:
    """Give the table expression over Parquet files; ``union`` when their columns differ."""
    names = ", ".join(columns.quote(name) for name in files)
    return f"read_parquet([{names}], union_by_name={'true' if union else 'false'}, hive_partitioning=false)"


def present_columns(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segment], source: str) -> dict[str, str]:
    """Give the columns (name -> type) that the segments of ``source`` have together."""
    if all(one.columns == columns.COLUMNS_ID for one in segments):
        return columns.COLUMNS
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}


def events_sql(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segment], files: Sequence[str]) -> str:
    """Give the query behind the ``events`` view: every field of the catalog, in its order, missing ones filled in."""
    if not files:
        return f"SELECT {columns.view_list({})} WHERE false"
    source = scan(files, union=len({one.columns for one in segments}) > 1)
    return f"SELECT {columns.view_list(present_columns(connection, segments, source))} FROM {source}"


def canonical_time(moment: datetime | None) -> str:
    """Give a stored time as the canonical text; ``""`` for none."""
    return "" if moment is None else f"{moment.isoformat(timespec='milliseconds')}Z"


def _answer(connection: sandbox.GuardedConnection, max_rows: int | None) -> Result:
    """Fetch the rows of what was executed."""
    rows = connection.fetchall() if max_rows is None else connection.fetchmany(max_rows + 1)
    truncated = max_rows is not None and len(rows) > max_rows
    described = connection.description or []
    return Result(
        tuple(str(column[0]) for column in described),
        tuple(str(column[1]) for column in described),
        rows[:max_rows] if truncated else rows,
        truncated,
    )


def _fill(connection: duckdb.DuckDBPyConnection, name: str, schema: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Make a table of rows; as one JSON value per chunk, because row-wise inserts are a thousand times slower."""
    connection.execute(f"CREATE TABLE {name} ({schema})")
    described = connection.execute(f"DESCRIBE {name}").fetchall()
    # Epoch seconds come as DOUBLE and become TIMESTAMP (UTC) on the way in.
    kinds = {row[0]: "DOUBLE" if row[1] == "TIMESTAMP" else row[1] for row in described}
    shape = msgspec.json.encode([kinds]).decode()
    picks = ", ".join(
        f"make_timestamp(CAST(round(r.{columns.identifier(row[0])} * 1e6) AS BIGINT))"
        if row[1] == "TIMESTAMP"
        else f"r.{columns.identifier(row[0])}"
        for row in described
    )
    names = list(kinds)
    # Lists come as JSON text.
    lists = [place for place, row in enumerate(described) if row[1].endswith("[]")]
    if lists:
        rows = [tuple(_listed(value) if place in lists else value for place, value in enumerate(row)) for row in rows]
    for start in range(0, len(rows), _CHUNK_ROWS):
        text = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows[start : start + _CHUNK_ROWS]])
        connection.execute(
            f"INSERT INTO {name} SELECT {picks} FROM (SELECT unnest(from_json(?::JSON, {columns.quote(shape)})) AS r)",
            [text.decode()],
        )


def _listed(text: str | None) -> msgspec.Raw:
    return msgspec.Raw(text.encode() if text else b"[]")


def _cores() -> int:
    """How many threads a query uses unless told."""
    return max(1, os.cpu_count() or 1)
