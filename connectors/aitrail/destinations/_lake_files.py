"""Making and merging lake files with DuckDB in-process: OCSF JSON lines in, Parquet out."""

# ruff: noqa: S608 - what is put into statements here are names and types of this package, never a value of an event

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from aitrail.destinations._lake_schema import json_columns, quote
from aitrail.errors import TransientError
from aitrail.event import AccessEvent
from aitrail.schema.ocsf import CLASS_UID, to_ocsf
from aitrail.schema.ocsf_finding import FINDING_CLASS_UID, finding_to_ocsf
from aitrail.store.segments import engine
from aitrail.streams import Finding

# DuckDB allocates twice this per reading thread; an object larger than it would be an error.
_MIN_OBJECT_BYTES = 1 << 18
_ROW_GROUP_ROWS = 20_480
_MERGE_MEMORY = "1GB"
_PARQUET = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP_ROWS})"

_encode = msgspec.json.Encoder().encode


Row = AccessEvent | Finding


def _row(event: Row) -> dict[str, Any]:
    return finding_to_ocsf(event) if isinstance(event, Finding) else to_ocsf(event)


class Unstorable(Exception):  # noqa: N818 - a signal between two functions, not an error of the tree
    """Some event does not fit the columns."""


class FileMaker:
    """Turns events into Parquet files. Thread-safe; one DuckDB engine, made when needed."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._engine: duckdb.DuckDBPyConnection | None = None

    def write(self, events: Sequence[Row], target: Path) -> None:
        """Write one file of events of one class.

        Raises:
            Unstorable: at least one event cannot be converted.
            TransientError: the disk is full or failing.
        """
        lines = target.with_suffix(".ndjson")
        try:
            bodies = [_encode(_row(event)) for event in events]
            class_uid = FINDING_CLASS_UID if isinstance(events[0], Finding) else CLASS_UID
            _write_private(lines, b"\n".join(bodies))
            with self._mutex:
                rows = self._convert(lines, target, max(map(len, bodies)), class_uid)
        except OSError as error:
            raise _disk(error) from None
        except (ValueError, OverflowError, RecursionError):
            raise Unstorable from None
        finally:
            lines.unlink(missing_ok=True)
        if rows != len(events):
            raise Unstorable

    def _convert(self, lines: Path, target: Path, longest: int, class_uid: int) -> int:
        if self._engine is None:
            self._engine = engine()
        source = (
            f"read_json({quote(str(lines))}, format='newline_delimited', auto_detect=false, "
            f"columns={json_columns(class_uid)}, maximum_object_size={max(longest + 2, _MIN_OBJECT_BYTES)})"
        )
        try:
            row = self._engine.execute(f"COPY (SELECT * FROM {source}) TO {quote(str(target))} {_PARQUET}").fetchone()
        except duckdb.IOException:
            raise _disk(None) from None
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException):
            raise Unstorable from None
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Give back DuckDB's memory."""
        with self._mutex:
            if self._engine is not None:
                self._engine.close()
                self._engine = None


def merge(files: Sequence[Path], target: Path) -> tuple[int, int]:
    """Merge files into one, each event once by its id, in order of time; gives rows read and rows written.

    Raises:
        TransientError: the disk is full, or the files do not fit into memory.
    """
    listed = "[" + ", ".join(quote(str(one)) for one in files) + "]"
    source = f"read_parquet({listed}, union_by_name=true, hive_partitioning=false)"
    once = "QUALIFY row_number() OVER (PARTITION BY metadata.uid) = 1 ORDER BY time, metadata.uid"
    with engine(memory_limit=_MERGE_MEMORY) as one:
        try:
            read = one.execute(f"SELECT count(*) FROM {source}").fetchone()
            written = one.execute(f"COPY (SELECT * FROM {source} {once}) TO {quote(str(target))} {_PARQUET}").fetchone()
        except (duckdb.IOException, duckdb.OutOfMemoryException):
            raise _disk(None) from None
    return (int(read[0]) if read else 0), (int(written[0]) if written else 0)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _disk(error: OSError | None) -> TransientError:
    reason = f": {error.strerror}" if error is not None and error.strerror else ""
    return TransientError(
        f"a lake file could not be written{reason}",
        hint="check space and permissions of the temporary directory (TMPDIR); the events stay in the outbox",
    )
