"""The segment catalog: which Parquet files make up the store, as rows of ``aitrail.db``.

A file that is not in the catalog does not exist for a reader. A file that a compaction has replaced is *retired*: it
stays for a grace period, so that a reader that has just looked up the catalog can finish.
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

EVENTS = "events"
FINDINGS = "findings"
STAGING_NAME = ".staging"
GRACE_SECONDS = 900.0


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One Parquet file.

    Attributes:
        path: below ``segments/``, with ``/``.
        kind: ``events`` or ``findings``.
        day: UTC day of its events, ``YYYY-MM-DD``.
        events: number of rows.
        bytes: size of the file.
        first: earliest timestamp in it, canonical text.
        last: latest timestamp in it.
        columns: which column set it carries (``columns.COLUMNS_ID`` of its writer).
    """

    path: str
    kind: str
    day: str
    events: int
    bytes: int
    first: str
    last: str
    columns: str


_FIELDS = ", ".join(Segment.__struct_fields__)


def add(connection: sqlite3.Connection, segments: Iterable[Segment], now: float) -> None:
    """Make ``segments`` part of the store; their files are durable already."""
    connection.executemany(
        f"INSERT INTO segment ({_FIELDS}, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*msgspec.structs.astuple(segment), now) for segment in segments],
    )


def listing(connection: sqlite3.Connection, kind: str = EVENTS) -> list[Segment]:
    """Give the segments of ``kind`` by day and name."""
    rows = connection.execute(f"SELECT {_FIELDS} FROM segment WHERE kind = ? ORDER BY day, path", (kind,))
    return [Segment(*row) for row in rows]


def retire(connection: sqlite3.Connection, segments: Iterable[Segment], now: float) -> None:
    """Take ``segments`` out of the store; their files stay until ``remove_retired``."""
    paths = [(segment.path,) for segment in segments]
    connection.executemany("DELETE FROM segment WHERE path = ?", paths)
    connection.executemany("INSERT OR REPLACE INTO retired VALUES (?, ?)", [(path, now) for (path,) in paths])


def remove_retired(connection: sqlite3.Connection, root: Path, before: float) -> int:
    """Unlink files retired at or before ``before`` (epoch seconds), inside a transaction; give how many."""
    paths = [path for (path,) in connection.execute("SELECT path FROM retired WHERE at <= ?", (before,))]
    for path in paths:
        (root / path).unlink(missing_ok=True)
        _remove_empty(root / path)
    connection.executemany("DELETE FROM retired WHERE path = ?", [(path,) for path in paths])
    return len(paths)


def remove_orphans(connection: sqlite3.Connection, root: Path) -> int:
    """Unlink what a crash left below ``root``: staged files, and Parquet files that the catalog does not know."""
    known = {path for (path,) in connection.execute("SELECT path FROM segment UNION ALL SELECT path FROM retired")}
    orphans = [path for path in root.glob(f"{STAGING_NAME}/*") if path.is_file()]
    orphans += [path for path in root.glob("*/day=*/*.parquet") if path.relative_to(root).as_posix() not in known]
    for path in orphans:
        path.unlink(missing_ok=True)
        _remove_empty(path)
    return len(orphans)


def _remove_empty(path: Path) -> None:
    """Remove the day folder of ``path`` when nothing is left in it."""
    if path.parent.name.startswith("day="):
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def fsync_directories(directories: Sequence[Path]) -> None:
    """Make new names in ``directories`` durable."""
    for directory in directories:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
