"""The outbox's bodies: append-only files beside the database, synced before the row that names them is committed.

Bodies in SQLite would be written twice (write-ahead log, then database) with a checksum per page: measured 8-9 us per
1.9 kB event for write, read and delete, compressed or not, against 1.2 us here. While the backlog is small the bytes
are stored as they are; once destinations fall behind, batches are compressed (zstd level 1, to about a fifth).
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from aitrail.errors import StoreError
from aitrail.ports import EncodedEvent

# The Splunk add-on brings along what its polls need, and those have no outbox: without the libraries batches are stored
# as they are, with the same checksum.
try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32
try:
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment]

FILE_BYTES = 64_000_000
COMPRESS_ABOVE_BYTES = 64_000_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[str], list[str], list[bytes]]).decode


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the bytes of a stored batch are."""

    file: int
    offset: int
    length: int
    codec: str
    crc: int


class Journal:
    """The files ``<n>.bin`` of one directory. One writer; every method is called with the database held.

    What lies behind the last committed batch belongs to nobody and is overwritten; a file without batches is removed.
    """

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self._directory = directory
        self._compressor = zstandard.ZstdCompressor(level=1) if zstandard is not None else None
        rows = connection.execute("SELECT file, max(offset + length) FROM batch GROUP BY file").fetchall()
        ends = {int(file): int(end) for file, end in rows}
        for path in directory.glob("*.bin"):
            if not (path.stem.isdecimal() and int(path.stem) in ends):
                path.unlink()
        self._file = max(ends, default=1)
        self._end = ends.get(self._file, 0)
        self._live = int(connection.execute("SELECT coalesce(sum(length), 0) FROM batch").fetchone()[0])
        self._ends = ends
        self._handle = -1

    @property
    def live_bytes(self) -> int:
        """Bytes of all stored batches."""
        return self._live

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files: what is settled still takes room until its whole file is."""
        return sum(self._ends.values())

    def append(self, events: Sequence[EncodedEvent]) -> Place:
        """Write a batch and sync it; it counts once ``keep`` is called."""
        data = _encode(([e.event_id for e in events], [e.timestamp for e in events], [e.body for e in events]))
        codec = "raw"
        if self._live > COMPRESS_ABOVE_BYTES and self._compressor is not None:
            data, codec = self._compressor.compress(data), "zstd"
        file, offset = (self._file, self._end) if self._end < FILE_BYTES else (self._file + 1, 0)
        handle = self._open(file)
        view, at = memoryview(data), offset
        while view:
            written = os.pwrite(handle, view, at)
            view, at = view[written:], at + written
        os.fsync(handle)
        return Place(file, offset, len(data), codec, crc32(data))

    def keep(self, place: Place) -> None:
        """Take note that the row of ``place`` is committed."""
        self._end = self._ends[place.file] = place.offset + place.length
        self._live += place.length

    def read(self, place: Place) -> list[EncodedEvent]:
        """Read a batch back; raises ``StoreError`` when its bytes are not what was written."""
        path = self._path(place.file)
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
        except FileNotFoundError:
            data = b""
        if len(data) != place.length or crc32(data) != place.crc:
            raise StoreError(
                f"{path}: {place.length} bytes at offset {place.offset} are damaged",
                hint="check the disk; restore the store from a backup, or collect those inputs again into a new one",
            )
        if place.codec == "zstd" and zstandard is None:
            raise StoreError(f"{path} is compressed", hint="pip install zstandard")
        if place.codec == "zstd":
            data = zstandard.ZstdDecompressor().decompress(data)
        return [EncodedEvent(*row) for row in zip(*_decode(data), strict=True)]

    def released(self, length: int) -> None:
        """Take note that the row of a batch of ``length`` bytes is gone."""
        self._live -= length

    def drop(self, file: int) -> None:
        """Remove a file that holds no batch any more; the current one starts over."""
        self._ends.pop(file, None)
        if file != self._file:
            self._path(file).unlink(missing_ok=True)
            return
        os.ftruncate(self._open(file), 0)
        self._end = 0

    def _path(self, file: int) -> Path:
        return self._directory / f"{file:08d}.bin"

    def _open(self, file: int) -> int:
        """Give the descriptor of the file that is written to, creating it durably when it is new."""
        if self._handle >= 0 and file == self._file:
            return self._handle
        path = self._path(file)
        new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if new:
            folder = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        if self._handle >= 0:
            os.close(self._handle)
        if file != self._file:
            self._file, self._end = file, 0
        self._handle = handle
        return handle

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
