"""The schema of ``aitrail.db`` as steps; each step takes a store from one version to the next.

Steps are only ever appended. A step runs together with the note of its version in one transaction: a crash in the
middle leaves the older, whole version behind.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from aitrail import __version__
from aitrail.errors import StoreError


class Step(msgspec.Struct, frozen=True):
    """One migration: the version it leads to and its statements, in order."""

    version: int
    statements: tuple[str, ...]


STEPS: tuple[Step, ...] = (
    Step(
        1,
        (
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
            # Identity: every event_id ever accepted (seen) or, for a store that stands alone, ever stored (stored).
            # New keys go to a tail of sorted runs first: a random key per B-tree page would cost a page write each.
            "CREATE TABLE seen (event_id BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE seen_tail (id INTEGER PRIMARY KEY, keys BLOB NOT NULL)",
            "CREATE TABLE stored (event_id BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE stored_tail (id INTEGER PRIMARY KEY, keys BLOB NOT NULL)",
            # Outbox: bodies lie in outbox/<file>.bin; a batch row says where, an outbox row who still needs it.
            """CREATE TABLE batch (
                id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, first_seq INTEGER NOT NULL,
                events INTEGER NOT NULL, bytes INTEGER NOT NULL, file INTEGER NOT NULL, offset INTEGER NOT NULL,
                length INTEGER NOT NULL, codec TEXT NOT NULL, crc INTEGER NOT NULL, created REAL NOT NULL)""",
            "CREATE INDEX batch_file ON batch (file)",
            """CREATE TABLE outbox (
                destination TEXT NOT NULL, batch INTEGER NOT NULL REFERENCES batch (id), events INTEGER NOT NULL,
                bytes INTEGER NOT NULL, open BLOB, waiting BLOB, not_before REAL NOT NULL DEFAULT 0,
                attempts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (destination, batch)) WITHOUT ROWID""",
            "CREATE INDEX outbox_batch ON outbox (batch)",
            """CREATE TABLE cursor (
                source TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, updated REAL NOT NULL,
                PRIMARY KEY (source, key)) WITHOUT ROWID""",
            """CREATE TABLE counter (
                source TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
                PRIMARY KEY (source, name)) WITHOUT ROWID""",
            """CREATE TABLE dead_letter (
                id TEXT PRIMARY KEY, source TEXT NOT NULL, origin TEXT NOT NULL, position INTEGER NOT NULL,
                "end" INTEGER NOT NULL, "index" INTEGER NOT NULL, code TEXT NOT NULL, field TEXT NOT NULL,
                record_type TEXT NOT NULL, stage TEXT NOT NULL, destination TEXT NOT NULL, event_id TEXT NOT NULL,
                raw BLOB, first_seen REAL NOT NULL, resolved REAL) WITHOUT ROWID""",
            "CREATE INDEX dead_letter_open ON dead_letter (first_seen) WHERE resolved IS NULL",
            """CREATE TABLE run (
                id INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL, started REAL NOT NULL, ended REAL,
                totals TEXT NOT NULL DEFAULT '{}')""",
            # Catalog: a Parquet file that is not here does not exist; retired ones wait for their readers to finish.
            """CREATE TABLE segment (
                path TEXT PRIMARY KEY, kind TEXT NOT NULL, day TEXT NOT NULL, events INTEGER NOT NULL,
                bytes INTEGER NOT NULL, first TEXT NOT NULL, last TEXT NOT NULL, columns TEXT NOT NULL,
                created REAL NOT NULL) WITHOUT ROWID""",
            "CREATE INDEX segment_day ON segment (kind, day)",
            "CREATE TABLE retired (path TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
            # A receipt says which events a send has stored, until the outbox has taken note of it.
            """CREATE TABLE receipt (
                destination TEXT NOT NULL, batch BLOB NOT NULL, ids BLOB NOT NULL,
                PRIMARY KEY (destination, batch)) WITHOUT ROWID""",
        ),
    ),
    Step(
        2,
        (
            # Who may poll a source until when; the token grows with every change of hands and fences the old holder.
            """CREATE TABLE lease (
                name TEXT PRIMARY KEY, owner TEXT NOT NULL, token INTEGER NOT NULL, expires REAL NOT NULL)
                WITHOUT ROWID""",
            # What the collector knows of itself, its sources and destinations, for those who look from outside.
            """CREATE TABLE state (
                kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, updated REAL NOT NULL,
                PRIMARY KEY (kind, name)) WITHOUT ROWID""",
            # What is known of the integrity of the objects that were read.
            """CREATE TABLE attestation (
                source TEXT NOT NULL, origin TEXT NOT NULL, verdict TEXT NOT NULL, at REAL NOT NULL,
                PRIMARY KEY (source, origin)) WITHOUT ROWID""",
        ),
    ),
    Step(
        3,
        (
            # What rules found: the group and the start say what the next run need not find again.
            """CREATE TABLE finding (
                event_id TEXT PRIMARY KEY, rule_id TEXT NOT NULL, grp TEXT NOT NULL, start REAL NOT NULL,
                severity TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID""",
            "CREATE INDEX finding_start ON finding (start)",
        ),
    ),
    Step(
        4,
        (
            # Parts of joined events that are out: a crash may bring some of them again, without their siblings.
            "CREATE TABLE part (event_id BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE part_tail (id INTEGER PRIMARY KEY, keys BLOB NOT NULL)",
        ),
    ),
)


def current_version(connection: sqlite3.Connection) -> tuple[int, str]:
    """Give the store's schema version and the aitrail that wrote it; ``(0, "")`` for a new file."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'"
    ).fetchone()
    if found is None:
        return 0, ""
    row = connection.execute("SELECT version, aitrail FROM schema_version ORDER BY version DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")


def refuse_newer(version: int, writer: str, steps: Sequence[Step] | None = None) -> None:
    """Raise ``StoreError`` when ``version`` is newer than this aitrail knows."""
    known = (steps or STEPS)[-1].version
    if version > known:
        raise StoreError(
            f"the store has schema version {version}, written by aitrail {writer or '(unknown)'}; "
            f"this is aitrail {__version__}, which knows versions up to {known}",
            hint=f"use aitrail {writer or 'of that version'} or newer, or name another --store directory",
        )


def migrate(connection: sqlite3.Connection, now: float, steps: Sequence[Step] | None = None) -> tuple[int, int]:
    """Bring the store to the newest version, all missing steps in one transaction.

    Args:
        connection: in autocommit mode, held by the one writer.
        now: epoch seconds, noted beside the version.
        steps: the steps to apply, ascending; those of this aitrail unless given.

    Returns:
        The version before and after.

    Raises:
        StoreError: the store was written by a newer aitrail.
    """
    steps = steps or STEPS
    before, writer = current_version(connection)
    refuse_newer(before, writer, steps)
    missing = [step for step in steps if step.version > before]
    if not missing:
        return before, before
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version "
            "(version INTEGER PRIMARY KEY, aitrail TEXT NOT NULL, applied_at REAL NOT NULL)"
        )
        for step in missing:
            for statement in step.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?, ?, ?)", (step.version, __version__, now))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return before, missing[-1].version
