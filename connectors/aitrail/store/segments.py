"""Writes Parquet segments: canonical JSON lines in, one durable file per UTC day out.

DuckDB does the conversion in-process. Its ``read_json`` takes the canonical bytes as they are, so no event is decoded
in Python. Snappy while events arrive (zstd costs 15 % more CPU per event); compaction rewrites with zstd.
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import os
import re
import secrets
import threading
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import duckdb
import msgspec

from aitrail import event as catalog_event
from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import EncodedEvent
from aitrail.store import catalog, columns
from aitrail.store.catalog import Segment

# A segment larger than this is written in several row groups, so that a reader can skip parts of it.
# A row group is held in memory until it is written, with its long texts: 20,480 rows of them cost a collection of a
# million events 60 MB at its peak.
ROW_GROUP_ROWS = 6_144
# Rows with long texts: fewer of them, for the same reason.
ROW_GROUP_BYTES = 48_000_000
# Above the lowest level zstd makes merged segments larger, not smaller (measured), and takes a quarter longer.
ZSTD_LEVEL = 1
_MEMORY_LIMIT = "384MB"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INT64 = 1 << 63
_LINES_AT_ONCE = 500
# DuckDB allocates twice this per reading thread; an object larger than it would be an error.
_MIN_OBJECT_BYTES = 1 << 18


def engine(
    *, memory_limit: str = _MEMORY_LIMIT, threads: int = 1, cache_files: bool = False
) -> duckdb.DuckDBPyConnection:
    """Open an in-process DuckDB that fetches no extensions and spills nothing to disk.

    Args:
        memory_limit: an upper bound, not a reservation.
        threads: cores.
        cache_files: keep what was read of files in memory: for a reader that asks more than one question. A writer
            reads everything once; the cache would cost it 40 MB and 10 % of its time.
    """
    connection = duckdb.connect(
        config={
            "threads": threads,
            "memory_limit": memory_limit,
            "preserve_insertion_order": False,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "enable_external_file_cache": cache_files,
        }
    )
    if cache_files:
        # The footers of a month of segments cost 20 ms per question when each reads them again.
        connection.execute("SET parquet_metadata_cache = true")
    return connection


def day_of(timestamp: str) -> str:
    """Give the UTC day of a canonical timestamp; ``""`` when it is not one."""
    return _valid_day(timestamp[:10])


@lru_cache(maxsize=4096)
def _valid_day(day: str) -> str:
    return day if _DAY.fullmatch(day) and day[:4] != "0000" else ""


def repaired(item: EncodedEvent) -> EncodedEvent | str:
    """Give an event in canonical bytes again, or the reason code why it cannot be stored.

    Events come canonical from the pipeline; this is for the batch that DuckDB has refused.
    """
    if not day_of(item.timestamp):
        return "timestamp_invalid"
    try:
        decoded = catalog_event.decode(item.body)
        for moment in (decoded.timestamp, decoded.ingested_at):
            if moment:
                datetime.fromisoformat(moment)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "body_invalid"
    except RecursionError:
        return "body_too_deep"
    except ValueError:
        return "timestamp_invalid"
    if day_of(decoded.timestamp) != day_of(item.timestamp):
        return "timestamp_mismatch"
    for name, kind in columns.COLUMNS.items():
        if kind == "BIGINT" and not -_INT64 <= (getattr(decoded, name) or 0) < _INT64:
            return "number_out_of_range"
    return EncodedEvent(item.event_id, item.timestamp, catalog_event.encode(decoded))


class Unstorable(Exception):  # noqa: N818 - a signal between two functions, not an error of the tree
    """Some body of the day is not what the catalog says; ``repaired`` tells which."""


class SegmentWriter:
    """Writes segments below ``root``; thread-safe. What it writes is durable, and nobody's until it is catalogued."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._mutex = threading.Lock()
        self._engine: duckdb.DuckDBPyConnection | None = None

    def write(self, kind: str, day: str, items: Sequence[EncodedEvent]) -> Segment:
        """Write the events of one day into one file and make it durable.

        Raises:
            Unstorable: at least one body cannot be converted; nothing was left behind.
            TransientError: the disk is full or failing; nothing was left behind.
        """
        name = self.new_name()
        with self._mutex:
            staging = self.staging()
            lines = staging / f"{name}.ndjson"
            staged = staging / f"{name}.parquet"
            try:
                bodies = [item.body for item in items]
                # A body that is empty, or spread over lines, shows in the number of rows.
                _write_lines(lines, bodies)
                rows = self._convert(lines, staged, max(map(len, bodies)))
                if rows != len(items):
                    raise Unstorable
                stamps = [item.timestamp for item in items]
                return self.publish(staged, kind, day, rows=rows, first=min(stamps), last=max(stamps))
            except OSError as error:
                raise _disk(error, staged) from error
            finally:
                lines.unlink(missing_ok=True)
                staged.unlink(missing_ok=True)

    def _convert(self, lines: Path, staged: Path, longest: int) -> int:
        """Let DuckDB turn JSON lines into Parquet; give the number of rows."""
        if self._engine is None:
            self._engine = engine()
        source = (
            f"read_json({columns.quote(str(lines))}, format='newline_delimited', auto_detect=false, "
            f"columns={columns.json_columns()}, maximum_object_size={max(longest + 2, _MIN_OBJECT_BYTES)})"
        )
        try:
            row = self._engine.execute(
                f"COPY (SELECT {columns.stored_list()} FROM {source}) TO {columns.quote(str(staged))} "
                f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
            ).fetchone()
        except duckdb.IOException as error:
            raise _disk(error, staged) from error
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
            raise Unstorable from error
        return int(row[0]) if row else 0

    def publish(self, staged: Path, kind: str, day: str, *, rows: int, first: str, last: str) -> Segment:
        """Make a staged file durable under its final name."""
        folder = self._root / kind / f"day={day}"
        fresh = [path for path in (folder.parent, folder) if not path.is_dir()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(staged, os.O_RDONLY)
        try:
            # Segments never change: no write permission, so that no query can overwrite one by accident.
            os.fchmod(handle, 0o400)
            os.fsync(handle)
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        final = folder / staged.name
        try:
            staged.rename(final)
            catalog.fsync_directories([folder, *(path.parent for path in fresh)])
        except BaseException:
            final.unlink(missing_ok=True)
            raise
        path = final.relative_to(self._root).as_posix()
        return Segment(path, kind, day, rows, size, first, last, columns.COLUMNS_ID)

    def discard(self, segments: Sequence[Segment]) -> None:
        """Unlink files that were written and will not be catalogued."""
        for segment in segments:
            (self._root / segment.path).unlink(missing_ok=True)

    def staging(self) -> Path:
        """Give the folder for files that are being written, on the same file system."""
        staging = self._root / catalog.STAGING_NAME
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        return staging

    def new_name(self) -> str:
        """Give a fresh file name without suffix; names sort by the time of writing."""
        return f"{int(self._clock.now() * 1000):013d}-{secrets.token_hex(6)}"

    def close(self) -> None:
        """Give back DuckDB's memory."""
        with self._mutex:
            if self._engine is not None:
                self._engine.close()
                self._engine = None


def _write_lines(path: Path, bodies: Sequence[bytes]) -> None:
    """Write one body per line into a file that only its owner can read; in parts, so that no second copy is held."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb", buffering=0) as file:  # noqa: PTH123 - from a descriptor with a mode
        for start in range(0, len(bodies), _LINES_AT_ONCE):
            view = memoryview(b"\n".join([*bodies[start : start + _LINES_AT_ONCE], b""]))
            while view:
                view = view[file.write(view) :]


def _disk(error: Exception, path: Path) -> TransientError:
    """Say that the segment could not be written, without repeating DuckDB's text (it may quote a value)."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "the write failed"
    return TransientError(
        f"{path.parent.parent}: a segment could not be written: {reason}",
        hint="check the file system (space, quota, mount); the events stay in the outbox",
    )
