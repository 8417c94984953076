"""Stored bytes -> text: plain, gzip (RFC 1952, many members) and zstd (RFC 8878, many frames), a chunk at a time.

The format is told by the first bytes, never by the name. Output is bounded per step, so a bomb costs one step of
memory before the caps of ``Caps`` stop it. Damage is a ``CorruptInputError`` raised *after* everything before it was
handed out; ``gzip_*`` codes stand for zstd as well.
"""

import os
from typing import Protocol

import zstandard
from isal import igzip_lib

from aitrail.errors import CorruptInputError
from aitrail.sources._caps import CHUNK, Caps

_RAW = 64 << 10
# One zstd block of 4 bytes can stand for 128 KiB, and the decompressor cannot be told to stop early:
# 512 bytes in are at most 16 MiB out.
_ZSTD_STEP = 512
_MAGIC_BYTES = 8
_ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # the stub calls it an instance

_REFUSED: dict[bytes, tuple[str, str]] = {
    b"PK\x03\x04": ("zip", "unpack it first"),
    b"\xfd7zXZ\x00": ("xz", "unpack it first (xz -d), or store as gzip or zstd"),
    b"BZh": ("bzip2", "unpack it first (bzip2 -d), or store as gzip or zstd"),
    b"7z\xbc\xaf": ("7z", "unpack it first"),
    b"\x04\x22\x4d\x18": ("lz4", "unpack it first (lz4 -d), or store as gzip or zstd"),
    b"PAR1": ("Parquet", "export it as JSON lines"),
    b"Obj\x01": ("Avro", "export it as JSON lines"),
    b"SQLite f": ("SQLite", "export it as JSON lines"),
    b"\x7fELF": ("a program", "take it out of the path"),
    b"\x89PNG": ("an image", "take it out of the path"),
    b"%PDF-": ("PDF", "take it out of the path"),
    b"\xff\xfe": ("UTF-16", "convert it to UTF-8"),
    b"\xfe\xff": ("UTF-16", "convert it to UTF-8"),
}


class Readable(Protocol):
    """Stored bytes, read from front to back: of a file, or of an object that comes over the network."""

    @property
    def position(self) -> int:
        """How many bytes were read."""
        ...

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end."""
        ...


class Stored:
    """The stored bytes behind a descriptor, from ``start`` on, ``limit`` bytes at most (None: to the end)."""

    def __init__(self, fd: int, *, start: int = 0, limit: int | None = None) -> None:
        self._fd = fd
        self._limit = limit
        self._ahead = b""
        self.position = start

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end. Raises ``OSError``."""
        if self._ahead:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
        else:
            if self._limit is not None:
                count = min(count, self._limit - self.position)
            data = os.read(self._fd, count) if count > 0 else b""
        self.position += len(data)
        return data

    def peek(self, count: int = _MAGIC_BYTES) -> bytes:
        """Return the next ``count`` bytes (fewer only at the end) and leave them there."""
        while len(self._ahead) < count:
            more = os.read(self._fd, count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead


class Text(Protocol):
    """Decompressed text, read once from front to back."""

    @property
    def offset(self) -> int:
        """The place in the text up to which it was handed out."""
        ...

    def read(self) -> bytes:
        """Return the next piece, at most a few chunks; empty at the end.

        Raises:
            CorruptInputError: ``gzip_corrupt``, ``gzip_truncated``, ``bomb_ratio`` or ``bomb_size``.
            OSError: the file cannot be read.
        """
        ...


def detect(head: bytes) -> str:
    """Name the format of a file that starts with ``head``: ``plain``, ``gzip`` or ``zstd``."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # A zstd file may start with a skippable frame (pzstd and seekable zstd do).
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "plain"


def refused(head: bytes) -> tuple[str, str] | None:
    """Name a format that holds no JSON text as it is, and what to do about it; None when the file may be read."""
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            return name
    return None


class _Plain:
    def __init__(self, stored: Readable) -> None:
        self._stored = stored
        self.offset = stored.position

    def read(self) -> bytes:
        data = self._stored.read(CHUNK)
        self.offset += len(data)
        return data


class _Meter:
    """Counts text against stored bytes and stops at the caps."""

    def __init__(self, stored: Readable, caps: Caps) -> None:
        self._stored = stored
        self._caps = caps
        self.offset = 0

    def check(self) -> None:
        """Stop before the next piece, not before what was inflated already is handed out."""
        if self.offset > self._caps.text_bytes:
            raise CorruptInputError("bomb_size", position=self.offset)
        if self.offset > self._caps.ratio_after and self.offset > self._caps.ratio * self._stored.position:
            raise CorruptInputError("bomb_ratio", position=self.offset)


class _Gzip:
    def __init__(self, stored: Readable, caps: Caps) -> None:
        self._stored = stored
        self._meter = _Meter(stored, caps)
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._between = b""
        self._members = 0

    @property
    def offset(self) -> int:
        return self._meter.offset

    def read(self) -> bytes:
        self._meter.check()
        while True:
            if self._member is None:
                data = self._next_member()
                if not data:
                    return b""
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                self._members += 1
            elif self._member.needs_input:
                data = self._stored.read(_RAW)
                if not data:
                    raise CorruptInputError("gzip_truncated", position=self.offset)
            else:
                data = b""
            try:
                text: bytes = self._member.decompress(data, CHUNK)
            except (_ISAL_ERROR, EOFError, ValueError):
                raise CorruptInputError("gzip_corrupt", position=self.offset) from None
            if self._member.eof:
                self._between, self._member = self._member.unused_data, None
            if text:
                self._meter.offset += len(text)
                return text

    def _next_member(self) -> bytes:
        """Return the first bytes of the next member, empty at the end; zero padding (tapes, devices) is skipped."""
        data = self._between.lstrip(b"\0") if self._members else self._between
        self._between = b""
        while len(data) < 2:
            more = self._stored.read(_RAW)
            if not more:
                break
            data = (data + more).lstrip(b"\0") if self._members else data + more
        if data and not data.startswith(b"\x1f\x8b"):
            code = "gzip_truncated" if data == b"\x1f" else "gzip_corrupt"
            raise CorruptInputError(code, position=self.offset)
        return data


class _Zstd:
    def __init__(self, stored: Readable, caps: Caps) -> None:
        self._stored = stored
        self._meter = _Meter(stored, caps)
        self._context = zstandard.ZstdDecompressor(max_window_size=caps.window_bytes)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._raw = b""
        self._at = 0

    @property
    def offset(self) -> int:
        return self._meter.offset

    def read(self) -> bytes:
        self._meter.check()
        pieces: list[bytes] = []
        size = 0
        while size < CHUNK:
            if self._at >= len(self._raw):
                self._raw, self._at = self._stored.read(_RAW), 0
                if not self._raw:
                    if size == 0 and self._frame is not None:
                        raise CorruptInputError("gzip_truncated", position=self.offset)
                    break
            if self._frame is None:
                self._frame = self._context.decompressobj()
            step = self._raw[self._at : self._at + _ZSTD_STEP]
            try:
                text = self._frame.decompress(step)
            except zstandard.ZstdError:
                if size == 0:
                    raise CorruptInputError("gzip_corrupt", position=self.offset) from None
                break  # hand out what is whole; the same step fails again on the next read
            self._at += len(step)
            if self._frame.eof:
                self._at -= len(self._frame.unused_data)
                self._frame = None
            if text:
                pieces.append(text)
                size += len(text)
                self._meter.offset += len(text)
        return b"".join(pieces)


def open_text(stored: Readable, format_name: str, caps: Caps) -> Text:
    """Return the text of ``stored``; compressed formats must be read from their first byte."""
    if format_name == "gzip":
        return _Gzip(stored, caps)
    if format_name == "zstd":
        return _Zstd(stored, caps)
    return _Plain(stored)


def skip(text: Text, offset: int) -> bytes:
    """Read ``text`` up to ``offset`` and return what was read beyond it; the text may end before (then empty)."""
    while text.offset < offset:
        data = text.read()
        if not data:
            return b""
        if text.offset > offset:
            return data[len(data) - (text.offset - offset) :]
    return b""
