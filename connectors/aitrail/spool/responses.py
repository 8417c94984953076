"""Answers of the response API, by the request's identity: what was done once is not done again."""

from aitrail.store.database import Database

_KIND = "response"


def find(database: Database, key: str) -> bytes | None:
    """The answer that was given to ``key``; None when there was none."""
    rows = database.rows("SELECT value FROM state WHERE kind = ? AND name = ?", (_KIND, key))
    return bytes(rows[0][0]) if rows else None


def keep(database: Database, key: str, answer: bytes) -> None:
    """Remember the answer to ``key``, in place of an earlier one.

    Raises:
        TransientError: the disk is full or failing; nothing was kept.
    """
    with database.exclusive(), database.transaction() as db:
        db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", (_KIND, key, answer, database.clock.now()))
