"""What SQLite and the file system report, as the error tree: what may be tried again, and what somebody has to fix."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from aitrail.errors import AitrailError, StoreError, TransientError

# SQLite's primary result codes (sqlite.org/rescode.html) and what they mean for the flow.
_TRANSIENT_CODES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free space on that file system; nothing was lost"),
    sqlite3.SQLITE_IOERR: (
        "reading or writing failed",
        "check the file system (space, quota, mount); nothing was lost",
    ),
    sqlite3.SQLITE_BUSY: ("it is busy", "another process holds a lock on it; this is tried again"),
    sqlite3.SQLITE_LOCKED: ("it is locked", "another connection holds a lock on it; this is tried again"),
}
_FATAL_CODES = {
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "restore it from a backup, or collect again into a new directory"),
    sqlite3.SQLITE_NOTADB: ("it is not a SQLite database", "restore it from a backup, or name another directory"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "check that the directory exists and that you may write to it"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "check the owner and the permissions of the directory"),
    sqlite3.SQLITE_PERM: ("access is refused", "check the owner and the permissions of the directory"),
    sqlite3.SQLITE_AUTH: ("access is refused", "check the owner and the permissions of the directory"),
}


def explain_sqlite(error: sqlite3.Error, path: Path) -> AitrailError | None:
    """Translate an SQLite error into the error tree; None when it is a bug of aitrail."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in _TRANSIENT_CODES:
        what, hint = _TRANSIENT_CODES[primary]
        return TransientError(f"{path}: {what} ({error.sqlite_errorname})", hint=hint)
    if primary in _FATAL_CODES:
        what, hint = _FATAL_CODES[primary]
        return StoreError(f"{path}: {what} ({error.sqlite_errorname})", hint=hint)
    return None


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite and file system errors of the block as ``TransientError`` or ``StoreError``."""
    try:
        yield
    except sqlite3.Error as error:
        known = explain_sqlite(error, path)
        if known is None:
            raise
        raise known from error
    except PermissionError as error:
        raise StoreError(
            f"{error.filename or path}: access is refused", hint="check the owner and the permissions of the directory"
        ) from error
    except FileNotFoundError as error:
        raise StoreError(
            f"{error.filename or path}: the file is missing", hint="restore the directory from a backup"
        ) from error
    except OSError as error:
        raise TransientError(
            f"{error.filename or path}: {os.strerror(error.errno or 0)}",
            hint="check the file system (space, quota, mount); nothing was lost",
        ) from error
