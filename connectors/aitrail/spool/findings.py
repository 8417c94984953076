"""Findings of rules, kept in the store's SQLite file: few, small, and known by their identity.

They are rows and not segments because there are thousands, not millions, of them, and because "is this one there
already" and "where did the last run stop" must be true in the same transaction.
"""

import sqlite3
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from aitrail.store.database import Database
from aitrail.streams import Finding

_encode = msgspec.json.Encoder().encode
_MARK = "detected_until"


class Kept(Struct, frozen=True):
    """A finding with what makes the next run go on where this one stopped.

    Attributes:
        finding: as it is shipped.
        group: the values that name its group, as the engine gives them.
        start: epoch seconds of its first event.
    """

    finding: Finding
    group: tuple[str, ...]
    start: float


def keep(database: Database, kept: Iterable[Kept], until: float | None) -> int:
    """Store findings that are not there yet and how far was looked, at once; gives how many were new.

    Raises:
        TransientError: the disk is full or failing; nothing was kept.
    """
    with database.exclusive(), database.transaction() as db:
        before = db.total_changes
        db.executemany(
            "INSERT OR IGNORE INTO finding VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    one.finding.event_id,
                    one.finding.rule_id,
                    _encode(one.group).decode(),
                    one.start,
                    one.finding.severity,
                    _encode(one.finding),
                )
                for one in kept
            ],
        )
        new = db.total_changes - before
        if until is not None:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MARK, until))
        return new


def covered(database: Database) -> list[tuple[str, tuple[str, ...], float]]:
    """Rule, group and start (epoch seconds) of every finding."""
    rows = database.rows("SELECT rule_id, grp, start FROM finding")
    return [(str(rule), tuple(msgspec.json.decode(group)), float(start)) for rule, group, start in rows]


def looked_until(database: Database) -> float | None:
    """Up to which event time (epoch seconds) rules have been run; None when never."""
    rows = database.rows("SELECT value FROM meta WHERE key = ?", (_MARK,))
    return float(rows[0][0]) if rows else None


def drop_before(connection: sqlite3.Connection, moment: float) -> int:
    """Remove findings that began before ``moment`` (epoch seconds), inside a transaction; gives how many."""
    return connection.execute("DELETE FROM finding WHERE start < ?", (moment,)).rowcount
