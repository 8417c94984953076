"""Keeping a store in shape: merging small segments, dropping old days, and saying what is there.

Everything that changes the store needs its writer: pass the open ``Database`` (or anything that holds one, as the spool
does) inside the writing process, or a directory, which takes the writer lock for the length of the call.
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import duckdb
import msgspec

from aitrail.clock import Clock, SystemClock
from aitrail.errors import StoreError, TransientError
from aitrail.store import catalog, columns
from aitrail.store.catalog import Segment
from aitrail.store.database import Database
from aitrail.store.identity import key_of
from aitrail.store.reader import present_columns, scan
from aitrail.store.segments import ROW_GROUP_BYTES, ROW_GROUP_ROWS, ZSTD_LEVEL, SegmentWriter, engine

TARGET_BYTES = 128_000_000
# Merging works on raw (decoded) rows: with one thread it streams a target of any size. What DuckDB may take it does
# take, so it gets little at first, and more only where rows are so long that it says so.
_MEMORY_LIMITS = ("128MB", "512MB")
_MEMORY_LIMIT = "256MB"
_FETCH_ROWS = 50_000
_MANY = 24


class OwnsDatabase(Protocol):
    """Anything that holds the store open for writing: the spool."""

    @property
    def database(self) -> Database:
        """The open store."""
        ...


Target = Database | OwnsDatabase | Path | str


class Compacted(msgspec.Struct, frozen=True):
    """What a compaction did; ``duplicates`` is the number of rows dropped because their event_id was there twice."""

    days: int = 0
    segments_before: int = 0
    segments_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    duplicates: int = 0
    files_removed: int = 0


class Retained(msgspec.Struct, frozen=True):
    """What a retention run dropped; ``forgotten`` event ids would be taken in again if their input were read again."""

    cutoff: str
    days: tuple[str, ...] = ()
    segments: int = 0
    events: int = 0
    bytes: int = 0
    forgotten: int = 0


class Stats(msgspec.Struct, frozen=True):
    """What a store holds. Sizes in bytes.

    Attributes:
        outbox: destination -> events that wait for it.
        filtered: destination -> events that its condition has left out, ever.
    """

    schema_version: int
    segments: int
    events: int
    segment_bytes: int
    days: int
    first_day: str
    last_day: str
    retired_segments: int
    admitted: int
    outbox: dict[str, int]
    outbox_bytes: int
    dead_letters_open: int
    dead_letters_resolved: int
    database_bytes: int
    filtered: dict[str, int] = {}


@contextlib.contextmanager
def writer_of(target: Target, clock: Clock | None = None) -> Iterator[Database]:
    """Give the store of ``target`` for writing; opens and closes it when ``target`` is a directory."""
    if isinstance(target, str | Path):
        path = Path(target)
        if not (path / "aitrail.db").is_file():
            raise StoreError(f"{path}: there is no aitrail store here", hint="name the directory of the store")
        with Database.open(path, clock or SystemClock()) as database:
            yield database
    else:
        yield target if isinstance(target, Database) else target.database


def compact(
    target: Target,
    target_bytes: int = TARGET_BYTES,
    *,
    clock: Clock | None = None,
    grace_seconds: float = catalog.GRACE_SECONDS,
    lazily: bool = False,
) -> Compacted:
    """Merge the small segments of each day into files of about ``target_bytes``, every event_id once.

    ``lazily`` leaves a few small segments beside a large one alone until they are worth rewriting it: for whoever calls
    this again and again. Over time every event is then rewritten a few times at most.

    Readers notice nothing: the catalog changes in one transaction per file, and replaced files are unlinked only
    ``grace_seconds`` later (by the next compaction, or by the writer).

    Raises:
        StoreError: another process holds the writer lock.
        TransientError: the disk is full or failing; what was merged so far stays merged.
    """
    days: set[str] = set()
    totals = Compacted()
    with writer_of(target, clock) as database:
        writer = SegmentWriter(database.segments, database.clock)
        with database.snapshot() as db:
            segments = catalog.listing(db)
        for group in _groups(segments, target_bytes):
            if lazily and not _due(group):
                continue
            merged, dropped = _merge(database, writer, group)
            if merged is None:
                continue
            days.add(group[0].day)
            totals = Compacted(
                len(days),
                totals.segments_before + len(group),
                totals.segments_after + 1,
                totals.bytes_before + sum(one.bytes for one in group),
                totals.bytes_after + merged.bytes,
                totals.duplicates + dropped,
            )
        with database.transaction() as db:
            removed = catalog.remove_retired(db, database.segments, database.clock.now() - grace_seconds)
    return msgspec.structs.replace(totals, files_removed=removed)


def _groups(segments: Sequence[Segment], target_bytes: int) -> Iterator[list[Segment]]:
    """Give runs of neighbouring segments of one day that are worth merging."""
    group: list[Segment] = []
    size = 0
    for one in segments:
        if one.bytes * 2 > target_bytes and one.columns == columns.COLUMNS_ID:
            continue
        if group and (one.day != group[0].day or size + one.bytes > target_bytes):
            if _worthwhile(group):
                yield group
            group, size = [], 0
        group.append(one)
        size += one.bytes
    if _worthwhile(group):
        yield group


def _worthwhile(group: Sequence[Segment]) -> bool:
    """Two files to merge, or one that lacks columns of the current catalog."""
    return len(group) > 1 or any(one.columns != columns.COLUMNS_ID for one in group)


def _due(group: Sequence[Segment]) -> bool:
    """Whether there is a quarter of the largest one to add to it, or too many files to read."""
    sizes = [one.bytes for one in group]
    largest = max(sizes)
    outdated = any(one.columns != columns.COLUMNS_ID for one in group)
    return outdated or len(group) >= _MANY or 4 * (sum(sizes) - largest) >= largest


def _rewrite(database: Database, group: Sequence[Segment], staged: Path) -> tuple[int, int]:
    """Write the rows of ``group`` into ``staged``, every event_id once; give how many rows there were and are."""
    for limit in _MEMORY_LIMITS[:-1]:
        try:
            return _rewrite_within(database, group, staged, limit)
        except duckdb.OutOfMemoryException:
            staged.unlink(missing_ok=True)
    return _rewrite_within(database, group, staged, _MEMORY_LIMITS[-1])


def _rewrite_within(database: Database, group: Sequence[Segment], staged: Path, limit: str) -> tuple[int, int]:
    files = [str(database.segments / one.path) for one in group]
    source = scan(files, union=len({one.columns for one in group}) > 1)
    connection = engine(memory_limit=limit)
    try:
        # Distinct hashes are distinct ids, and a fifth of their memory; equal hashes are looked at again.
        rows, distinct = _numbers(connection, f"SELECT count(*), count(DISTINCT hash(event_id)) FROM {source}")
        once = ""
        if rows != distinct:
            (distinct,) = _numbers(connection, f"SELECT count(DISTINCT event_id) FROM {source}")
            once = " QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY ingested_at) = 1"
        connection.execute(
            f"COPY (SELECT {columns.stored_list(present_columns(connection, group, source))} FROM {source}{once}) "
            f"TO {columns.quote(str(staged))} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {ZSTD_LEVEL}, "
            f"ROW_GROUP_SIZE {ROW_GROUP_ROWS}, ROW_GROUP_SIZE_BYTES {ROW_GROUP_BYTES})"
        )
        return rows, distinct
    finally:
        connection.close()


def _numbers(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    return tuple(connection.execute(sql).fetchone() or ())


def _merge(database: Database, writer: SegmentWriter, group: Sequence[Segment]) -> tuple[Segment | None, int]:
    """Write one segment with the rows of ``group`` and swap it in; give it and how many rows were doubles.

    Gives None when the group changed meanwhile; the store is then as if nothing had been merged.
    """
    staged = writer.staging() / f"{writer.new_name()}.parquet"
    try:
        rows, distinct = _rewrite(database, group, staged)
        first, last = min(one.first for one in group), max(one.last for one in group)
        merged = writer.publish(staged, catalog.EVENTS, group[0].day, rows=distinct, first=first, last=last)
    except (duckdb.IOException, OSError) as error:
        raise TransientError(
            f"{database.segments}: a merged segment could not be written",
            hint="check the file system (space, quota, mount); the store is unchanged",
        ) from error
    finally:
        staged.unlink(missing_ok=True)
    now = database.clock.now()
    with database.transaction() as db:
        # Retention may have dropped some of them meanwhile: then what was merged must not bring them back.
        still = {one.path for one in catalog.listing(db)}
        whole = all(one.path in still for one in group)
        if whole:
            catalog.retire(db, group, now)
            catalog.add(db, [merged], now)
    if not whole:
        writer.discard([merged])
        return None, 0
    return merged, rows - distinct


def retain(target: Target, days: int, *, clock: Clock | None = None, forget: bool = False) -> Retained:
    """Drop all events of UTC days that are more than ``days`` days ago; today counts as day 0.

    The files are unlinked at once. With ``forget`` the ids of those events are forgotten too, which keeps the store
    small for good, and means that reading the same old input again would take it in again.

    Raises:
        ValueError: ``days`` is less than 1.
        StoreError: another process holds the writer lock.
    """
    if days < 1:
        raise ValueError("retention is at least one day")
    with writer_of(target, clock) as database:
        now = database.clock.now()
        cutoff = (datetime.fromtimestamp(now, UTC) - timedelta(days=days)).strftime("%Y-%m-%d")
        with database.snapshot() as db:
            every = catalog.listing(db, catalog.EVENTS) + catalog.listing(db, catalog.FINDINGS)
        old = [one for one in every if one.day < cutoff]
        forgotten = _forget(database, [one for one in old if one.kind == catalog.EVENTS]) if forget else 0
        with database.transaction() as db:
            catalog.retire(db, old, now)
            db.execute("DELETE FROM finding WHERE start < ?", (_epoch(cutoff),))
        with database.transaction() as db:
            catalog.remove_retired(db, database.segments, now)
    return Retained(
        cutoff,
        tuple(sorted({one.day for one in old})),
        len(old),
        sum(one.events for one in old if one.kind == catalog.EVENTS),
        sum(one.bytes for one in old),
        forgotten,
    )


def _epoch(day: str) -> float:
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def _forget(database: Database, segments: Sequence[Segment]) -> int:
    """Forget the identity of every event in ``segments``; give how many were known."""
    forgotten = 0
    connection = engine(memory_limit=_MEMORY_LIMIT)
    try:
        for one in segments:
            connection.execute(f"SELECT event_id FROM {scan([str(database.segments / one.path)], union=False)}")
            while rows := connection.fetchmany(_FETCH_ROWS):
                keys = [key_of(event_id) for (event_id,) in rows]
                for table in ("seen", "stored"):
                    with database.exclusive():
                        with database.transaction() as db:
                            removed, committed = database.identity(table).forget(db, keys)
                        committed()
                    forgotten += removed
    finally:
        connection.close()
    if forgotten:  # which parts belong to which events is not kept
        with database.exclusive():
            with database.transaction() as db:
                cleared = database.identity("part").clear(db)
            cleared()
    return forgotten


def vacuum(target: Target, *, clock: Clock | None = None) -> int:
    """Rewrite ``aitrail.db`` without its free pages; give how many bytes smaller it is."""
    with writer_of(target, clock) as database, database.exclusive():
        before = database.path.stat().st_size
        database.vacuum()
        return before - database.path.stat().st_size


def stats(directory: Path, *, clock: Clock | None = None) -> Stats:
    """Say what a store holds; works while a writer runs."""
    with Database.open(Path(directory), clock or SystemClock(), write=False) as database, database.snapshot() as db:

        def one(sql: str) -> tuple[int, ...]:
            return tuple(value or 0 for value in db.execute(sql).fetchone())

        segments = catalog.listing(db)
        days = sorted({segment.day for segment in segments})
        row = db.execute("SELECT value FROM meta WHERE key = 'next_seq'").fetchone()
        return Stats(
            schema_version=one("SELECT max(version) FROM schema_version")[0],
            segments=len(segments),
            events=sum(segment.events for segment in segments),
            segment_bytes=sum(segment.bytes for segment in segments),
            days=len(days),
            first_day=days[0] if days else "",
            last_day=days[-1] if days else "",
            retired_segments=one("SELECT count(*) FROM retired")[0],
            admitted=int(row[0]) - 1 if row else 0,
            outbox=dict(db.execute("SELECT destination, sum(events) FROM outbox GROUP BY destination").fetchall()),
            outbox_bytes=one("SELECT sum(length) FROM batch")[0],
            dead_letters_open=one("SELECT count(*) FROM dead_letter WHERE resolved IS NULL")[0],
            dead_letters_resolved=one("SELECT count(*) FROM dead_letter WHERE resolved IS NOT NULL")[0],
            database_bytes=database.path.stat().st_size,
            filtered=dict(
                db.execute(
                    "SELECT substr(name, 10), sum(value) FROM counter WHERE name LIKE 'filtered.%' GROUP BY 1"
                ).fetchall()
            ),
        )
