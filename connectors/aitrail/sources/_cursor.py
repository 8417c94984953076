"""Which file is this, and how far was it read?

The key of a cursor is ``<mount point>:<inode>``: it follows a file through a rename (``app.log`` -> ``app.log.1``), and
it survives a reboot, which a device number does not. The path is not part of it, since the path is what a rotation
changes. An inode number is used again after a file is deleted or truncated, so the key alone proves nothing: the cursor
carries keyed hashes of the file's first bytes and of the bytes just before the place that was reached, and is used only
while both still match. When it does not match, the file is read from its start; events that were known are known by
their id. Stdin is ``stdin``; its cursor is never read.
"""

# Paths stay strings: there may be millions of them, and pathlib costs more than the stat.
# ruff: noqa: PTH120

import hashlib
import os
from collections.abc import Callable

import msgspec

VERSION = 1
HEAD = 1_024
_TAIL = 1_024


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one file was read.

    Attributes:
        v: version of this layout.
        path: where the file was when it was read last; for people.
        head, head_bytes: keyed hash of the first ``head_bytes`` stored bytes.
        tail: keyed hash of up to 1,024 stored bytes before ``mark``.
        mark: stored bytes that were read for the records up to here.
        format: ``plain``, ``gzip`` or ``zstd``.
        offset: where in the decompressed text a framer starts again.
        skip: how many records of the container at ``offset`` are settled.
        index: number of the next record.
        size, mtime_ns, ctime_ns: the file when it was read last. The change time cannot be set by tools that copy the
            modification time (tar, rsync, object store clients), so it tells a new file on an old inode.
        done: it was read to its end; only a change of size or times makes it worth opening.
        fault, fault_at: the last damage that was reported and its place, so that it is not reported twice.
    """

    path: str
    head: str
    head_bytes: int
    tail: str
    mark: int
    format: str
    offset: int
    index: int
    size: int
    mtime_ns: int
    ctime_ns: int
    skip: int = 0
    done: bool = False
    fault: str = ""
    fault_at: int = -1
    v: int = 0

    def unchanged(self, status: os.stat_result) -> bool:
        """Say whether there is nothing new in a file of this status."""
        return (
            self.done
            and self.size == status.st_size
            and self.mtime_ns == status.st_mtime_ns
            and self.ctime_ns == status.st_ctime_ns
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Cursor)


def encode(cursor: Cursor) -> bytes:
    """Return the bytes that the pipeline keeps."""
    return _encoder.encode(cursor)


def decode(data: bytes | None) -> Cursor | None:
    """Read a committed cursor; None when there is none, it is damaged, or a newer version wrote it."""
    if not data:
        return None
    try:
        cursor = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return cursor if cursor.v == VERSION else None


def fingerprint(fd: int, start: int, length: int, key: bytes) -> str:
    """Return the keyed hash of the stored bytes from ``start`` on, together with how many there are."""
    data = os.pread(fd, length, start)
    mac = hashlib.blake2b(data, key=key[:64], digest_size=16, person=len(data).to_bytes(8, "big"))
    return mac.hexdigest()


def tail_fingerprint(fd: int, mark: int, key: bytes) -> str:
    """Return the keyed hash of what lies just before ``mark``."""
    return fingerprint(fd, max(0, mark - _TAIL), min(mark, _TAIL), key)


def matches(cursor: Cursor, fd: int, status: os.stat_result, key: bytes) -> bool:
    """Say whether the open file still is the one that ``cursor`` speaks of, grown at most."""
    return (
        status.st_size >= cursor.mark
        and fingerprint(fd, 0, cursor.head_bytes, key) == cursor.head
        and tail_fingerprint(fd, cursor.mark, key) == cursor.tail
    )


class Keys:
    """Makes cursor keys; looks up the mount point once per device."""

    def __init__(self, ismount: Callable[[str], bool] = os.path.ismount) -> None:
        self._ismount = ismount
        self._mounts: dict[int, str] = {}

    def key(self, path: str, status: os.stat_result) -> str:
        """Return the cursor key of the file at ``path``."""
        mount = self._mounts.get(status.st_dev)
        if mount is None:
            mount = os.path.dirname(os.path.realpath(path))
            while not self._ismount(mount) and mount != os.path.dirname(mount):
                mount = os.path.dirname(mount)
            self._mounts[status.st_dev] = mount = readable(mount)
        return f"{mount}:{status.st_ino:x}"


def readable(path: str) -> str:
    r"""Return ``path`` as valid text: bytes of a name that are not UTF-8 become ``\xNN`` (``restore`` goes back)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path
