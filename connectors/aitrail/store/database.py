"""``aitrail.db``: one writer, any number of readers, and errors that say what to do.

A ``Database`` holds the store's writer lock (released by the kernel, also on kill -9) and one SQLite connection in WAL
mode with ``synchronous=FULL``: what a transaction has committed survives a power cut. The connection may be used from
several threads; a transaction holds it alone.
"""

import contextlib
import os
import socket
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from filelock import FileLock, Timeout

from aitrail import __version__
from aitrail.clock import Clock, iso_ms
from aitrail.errors import StoreError
from aitrail.store import catalog, migrations
from aitrail.store.faults import translated
from aitrail.store.identity import Identity

DATABASE_NAME = "aitrail.db"
LOCK_NAME = "writer.lock"
SEGMENTS_NAME = "segments"
OUTBOX_NAME = "outbox"

_CACHE_KIB = 16_000
# 4,000 pages of 4 kB: pages that several transactions touch are written back once.
_CHECKPOINT_PAGES = 4_000
_BUSY_SECONDS = 10.0


class Holder(msgspec.Struct, frozen=True):
    """Who holds, or last held, the writer lock."""

    pid: int
    host: str
    since: str
    aitrail: str


class Database:
    """An open store directory.

    Attributes:
        directory: the store.
        path: its ``aitrail.db``.
        writable: whether this process is the writer.
        clock: the clock that stamps rows.
    """

    def __init__(self, directory: Path, clock: Clock, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.directory = directory
        self.path = directory / DATABASE_NAME
        self.segments = directory / SEGMENTS_NAME
        self.outbox = directory / OUTBOX_NAME
        self.clock = clock
        self.writable = lock is not None
        self._connection = connection
        self._lock = lock
        self._mutex = threading.RLock()
        self._identities: dict[str, Identity] = {}

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, write: bool = True) -> "Database":
        """Open the store in ``directory``; ``write=True`` creates or migrates it and takes the writer lock.

        Raises:
            StoreError: another process writes to it, it is newer than this aitrail, damaged, or (``write=False``) not
                there; the hint says what to do.
            TransientError: the disk is full or failing.
        """
        directory = Path(directory).absolute()
        with translated(directory):
            return cls._open_writer(directory, clock) if write else cls._open_reader(directory, clock)

    @classmethod
    def _open_writer(cls, directory: Path, clock: Clock) -> "Database":
        """Take the lock, then create or migrate, then clear what a crash left behind."""
        _make_directory(directory)
        lock = FileLock(str(directory / LOCK_NAME), timeout=0, thread_local=False, mode=0o600)
        try:
            lock.acquire()
        except Timeout as error:
            raise _locked(directory) from error
        connection: sqlite3.Connection | None = None
        try:
            path = directory / DATABASE_NAME
            if not path.exists():
                _create(path, clock.now())
            connection = _connect(path)
            database = cls(directory, clock, connection, lock)
            migrations.migrate(connection, clock.now())
            database.segments.mkdir(mode=0o700, exist_ok=True)
            database.outbox.mkdir(mode=0o700, exist_ok=True)
            holder = Holder(os.getpid(), socket.gethostname(), iso_ms(clock.now()), __version__)
            with database.transaction() as db:
                catalog.remove_orphans(db, database.segments)
                catalog.remove_retired(db, database.segments, clock.now() - catalog.GRACE_SECONDS)
                db.execute("INSERT OR REPLACE INTO meta VALUES ('writer', ?)", (msgspec.json.encode(holder).decode(),))
        except BaseException:
            if connection is not None:
                connection.close()
            lock.release()
            raise
        return database

    @classmethod
    def _open_reader(cls, directory: Path, clock: Clock) -> "Database":
        """Open for reading while a writer may run; never changes a byte of the data."""
        path = directory / DATABASE_NAME
        if not path.is_file():
            raise StoreError(
                f"{directory}: there is no aitrail store here",
                hint="name the directory that `aitrail collect --store DIR` or `aitrail run` wrote to",
            )
        connection = _connect_readonly(path)
        try:
            version, writer = migrations.current_version(connection)
            migrations.refuse_newer(version, writer)
            if version < migrations.STEPS[-1].version:
                raise StoreError(  # noqa: TRY301  (the connection is closed on every way out)
                    f"{directory}: the store has schema version {version}, written by aitrail {writer or '(unknown)'}",
                    hint="run `aitrail store migrate`, or any collecting command, once: it brings the store up to date",
                )
        except BaseException:
            connection.close()
            raise
        return cls(directory, clock, connection, None)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other threads of this process out, around a transaction and what follows from it."""
        with self._mutex:
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction: all of it is durable afterwards, or nothing of it happened."""
        with self._mutex, translated(self.path):
            self._require_writer()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Give the connection with one consistent view of the store for the length of the block."""
        with self._mutex, translated(self.path):
            connection = self._connection
            nested = connection.in_transaction
            if not nested:
                connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if not nested and connection.in_transaction:
                    connection.execute("COMMIT")

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one query and give all its rows."""
        with self._mutex, translated(self.path):
            return self._connection.execute(sql, parameters).fetchall()

    def vacuum(self) -> None:
        """Rewrite the file without its free pages."""
        with self._mutex, translated(self.path):
            self._require_writer()
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def identity(self, table: str) -> Identity:
        """Give the one ``Identity`` of ``table`` in this process (``seen``, ``stored`` or ``part``)."""
        with self._mutex:
            self._require_writer()
            if table not in self._identities:
                with translated(self.path):
                    self._identities[table] = Identity(self._connection, table)
            return self._identities[table]

    def _require_writer(self) -> None:
        if not self.writable:
            raise StoreError(f"{self.directory}: the store was opened for reading", hint="open it with write=True")

    def close(self) -> None:
        """Close the connection and release the lock; may be called twice."""
        with self._mutex:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{directory}: a file is in the way", hint="name another directory for the store") from error
    except (FileNotFoundError, PermissionError) as error:
        raise StoreError(
            f"{directory}: the directory cannot be made", hint="name one in a place where this user may write"
        ) from error


def _create(path: Path, now: float) -> None:
    """Make a new database beside ``path`` and move it there whole, so that no reader ever meets half of one."""
    draft = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(draft.name + "*"):
        leftover.unlink()
    draft.touch(mode=0o600)
    with contextlib.closing(_connect(draft)) as connection:
        migrations.migrate(connection, now)
    draft.rename(path)
    catalog.fsync_directories([path.parent])


def _connect(path: Path) -> sqlite3.Connection:
    """Open the writer's connection: autocommit mode, transactions are begun by hand."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {2 * _CHECKPOINT_PAGES * 4096}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a reader's connection; a store on read-only media, left clean by its writer, is read as immutable."""
    address = "file:" + urllib.parse.quote(str(path)) + "?mode=ro"
    for uri in (address, address + "&immutable=1"):
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.Error as error:
            connection.close()
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            wal = path.with_name(path.name + "-wal")
            clean = not wal.exists() or wal.stat().st_size == 0
            if uri == address and clean and code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
                continue
            raise
        return connection
    raise AssertionError("unreachable")


def _locked(directory: Path) -> StoreError:
    """Say who holds the writer lock, as the store itself notes it."""
    holder = None
    with contextlib.suppress(sqlite3.Error, OSError, msgspec.MsgspecError):
        connection = _connect_readonly(directory / DATABASE_NAME)
        try:
            row = connection.execute("SELECT value FROM meta WHERE key = 'writer'").fetchone()
            holder = msgspec.json.decode(row[0], type=Holder) if row else None
        finally:
            connection.close()
    who = (
        f"pid {holder.pid} on {holder.host} (aitrail {holder.aitrail}, since {holder.since})"
        if holder
        else "another process"
    )
    return StoreError(
        f"{directory}: the store is being written by {who}",
        hint="wait for it or stop it; `aitrail report` and `aitrail query` work meanwhile",
    )
