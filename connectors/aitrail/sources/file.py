"""The file source: files, directories, globs and stdin, plain or packed, read once and resumed where it stopped.

Promise: every record of every file that the paths name is handed out exactly once as long as the pipeline commits the
cursor of each batch with it, whatever happens to the files in between: they may grow, be renamed, truncated in place,
replaced or deleted, and may be read while they are written. Where the past cannot be known (an inode used again, a file
rewritten in place) a file is read again from its start: never less than once.

What cannot be read is told in ``notes`` and by ``check``; damage inside a file is a record with an ``error`` code.
Limits: a file that was packed after it was read (``app.log`` -> ``app.log.1.gz``) is a new file; names that start with
a dot are not read; stdin has no past, so it is always read as it comes.
"""

# Paths stay strings: there may be millions of them, and pathlib costs more than the stat.
# ruff: noqa: PTH100, PTH111

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import islice

from aitrail.clock import Clock
from aitrail.errors import CorruptInputError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, SecretResolver, Workload
from aitrail.sources import _cursor
from aitrail.sources._caps import Caps
from aitrail.sources._cursor import Cursor
from aitrail.sources._discover import STDIN, Discovery, Note, kind, reason
from aitrail.sources._file_settings import FileSettings
from aitrail.sources._framing import Framer, Run
from aitrail.sources._inflate import Stored, detect, open_text, skip
from aitrail.sources._meter import Meter
from aitrail.sources._reading import Opened, Reading, read_stream
from aitrail.sources._values import is_value

_DEFAULT_CAPS = Caps()
_MOST_NOTES = 1_000
_CHECKED_FILES = 10_000
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_BEFORE_RECORD = b"\n\r\t ,[\0\xbf"
_BEHIND_RECORD = b"\n\r\t "


class FileSource:
    """Reads records from files; a ``ports.Source``.

    Attributes:
        notes: what the last fetch left out or waits for, one sentence each; names and places, never content.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        *,
        clock: Clock,
        follow_symlinks: bool = False,
        recursive: bool = True,
        caps: Caps = _DEFAULT_CAPS,
        key: bytes = b"",
        since: float = 0.0,
    ) -> None:
        """Describe the source; nothing is touched yet.

        Args:
            name: the source's name.
            paths: files, directories, glob patterns (``**`` spans directories) and ``-`` for stdin.
            clock: tells whether a file changed just now, and the budget's time.
            follow_symlinks: also read symbolic links that a directory or a pattern holds (a link named by itself is
                always read).
            recursive: also read directories in directories.
            caps: bounds against hostile input.
            key: secret for the hashes in cursors, so that a cursor store tells nothing about content.
            since: leave out files that were last changed before this time (epoch seconds).
        """
        self.name = name
        self.notes: list[str] = []
        self._paths = tuple(paths)
        self._follow = follow_symlinks
        self._recursive = recursive
        self._caps = caps
        self._clock = clock
        self._key = key
        self._since = since
        self._keys = _cursor.Keys()
        self._named = {os.path.abspath(os.path.expanduser(path)) for path in self._paths}
        self._stdin = 0

    # -- the port

    def survey(self, cursors: Cursors) -> Workload:
        """Count the files with something new and their stored bytes; opens none."""
        objects, size = 0, 0
        for _, status, cursor in self._candidates(cursors, self._discovery(lambda _what, _fix: None)):
            objects += 1
            known = cursor.mark if cursor is not None and cursor.mark <= status.st_size else 0
            size += status.st_size - known
        if STDIN in self._paths:
            return Workload(objects + 1, None)
        return Workload(objects, size)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new, file by file in reading order, stdin last.

        Raises:
            TransientError: the process has no file descriptor left.
        """
        self.notes = []
        meter = Meter(budget, self._clock)
        for path, status, _ in self._candidates(cursors, self._discovery(self._note)):
            if meter.spent:
                return
            yield from self._file(path, status, cursors, meter)
        if STDIN in self._paths and not meter.spent:
            yield from self._standard_input(meter)

    def check(self) -> list[str]:
        """Say which paths cannot be read and how to fix it; looks at up to 10,000 files."""
        problems: list[str] = []

        def note(what: str, fix: str) -> None:
            if fix and len(problems) < _MOST_NOTES:
                problems.append(_printable(f"{what}: {fix}"))

        for path, _ in islice(self._discovery(note).files(), _CHECKED_FILES):
            if not os.access(path, os.R_OK):
                note(f"{path}: permission denied; not read", "give this user permission to read it")
        if not self._paths:
            problems.append("no path is given: name files, directories, patterns or '-'")
        if STDIN in self._paths and os.isatty(self._stdin):
            problems.append("stdin is a terminal: pipe something into it, or name a file")
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again by its place (by its number when it has none).

        The file is the one that has the name ``origin`` now: after a rotation it may hold another record there, so
        compare what comes back (event id or hash) with what is known. None when there is nothing like a record.
        """
        try:
            fd = os.open(restored(origin), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            format_name = detect(os.pread(fd, 8, 0))
            if end > position:
                return self._record_at(fd, format_name, position, end)
            return self._record_number(fd, format_name, index)
        except (OSError, CorruptInputError):
            return None
        finally:
            os.close(fd)

    def ranged(self, start: float, end: float) -> "FileSource":
        """Give a source that reads, from their starts, the files that may hold something of [start, end).

        A file that was last changed before ``start`` holds nothing younger; one that was written later may hold
        anything, so ``end`` leaves nothing out.
        """
        del end
        return FileSource(
            self.name,
            self._paths,
            clock=self._clock,
            follow_symlinks=self._follow,
            recursive=self._recursive,
            caps=self._caps,
            key=self._key,
            since=start,
        )

    # -- finding

    def _discovery(self, note: Note) -> Discovery:
        return Discovery(self._paths, follow_symlinks=self._follow, recursive=self._recursive, note=note)

    def _candidates(
        self, cursors: Cursors, discovery: Discovery
    ) -> Iterator[tuple[str, os.stat_result, Cursor | None]]:
        """Yield the files that may hold something new, each file once even when several names lead to it."""
        seen: set[tuple[int, int]] = set()
        for path, status in discovery.files():
            if status.st_size == 0 or status.st_mtime < self._since:
                continue
            key = self._keys.key(path, status)
            cursor = _cursor.decode(cursors.get(key))
            if cursor is not None and cursor.unchanged(status):
                continue
            # Hard links, overlapping paths, and files that a rotation renames while we walk.
            identity = (status.st_dev, status.st_ino)
            if identity not in seen:
                seen.add(identity)
                yield path, status, cursor

    def _note(self, what: str, _fix: str = "") -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(_printable(what))
        elif len(self.notes) == _MOST_NOTES:
            self.notes.append("there is more of this kind that is not listed")

    # -- reading one file

    def _file(self, path: str, found: os.stat_result, cursors: Cursors, meter: Meter) -> Iterator[RawBatch]:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: a pipe that took the name must not hang us
        if not self._follow and path not in self._named:
            flags |= os.O_NOFOLLOW
        try:
            fd = os.open(path, flags)
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                raise TransientError("no file descriptor left", hint="raise the limit (ulimit -n)") from error
            self._note(f"{path}: {reason(error)}; not read")
            return
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                self._note(f"{path}: {kind(status.st_mode)}, not a regular file; not read")
                return
            if (status.st_dev, status.st_ino) != (found.st_dev, found.st_ino):
                self._note(f"{path}: was rotated just now; read next time")
                return
            opened = self._opened(path, fd, status, cursors)
            reading = Reading(opened, caps=self._caps, clock=self._clock, key=self._key, note=self._note)
            yield from reading.batches(meter)
        except OSError as error:
            self._note(f"{path}: {reason(error)}; the rest is read next time")
        finally:
            os.close(fd)

    def _opened(self, path: str, fd: int, status: os.stat_result, cursors: Cursors) -> Opened:
        """Decide where to go on: behind the cursor, or at the start when it speaks of another content."""
        key = self._keys.key(path, status)
        opened = Opened(path, key, fd, status, detect(os.pread(fd, 8, 0)), committed=cursors.get(key) or b"")
        cursor = _cursor.decode(opened.committed)
        if cursor is None:
            if opened.committed:
                self._note(f"{path}: its cursor is damaged or of a newer version; read from the start")
        elif cursor.format != opened.format or not _cursor.matches(cursor, fd, status, self._key):
            self._note(f"{path}: truncated or replaced since it was read last; read from the start")
        else:
            opened.offset, opened.skip, opened.index = cursor.offset, cursor.skip, cursor.index
            opened.fault, opened.fault_at = cursor.fault, cursor.fault_at
        return opened

    def _standard_input(self, meter: Meter) -> Iterator[RawBatch]:
        try:
            yield from read_stream(self._stdin, caps=self._caps, clock=self._clock, meter=meter)
        except OSError as error:
            self._note(f"stdin: {reason(error)}; the rest is lost to this run")

    # -- reading one record again

    def _record_at(self, fd: int, format_name: str, position: int, end: int) -> bytes | None:
        if position < 0 or end - position > self._caps.record_bytes:
            return None
        before = max(0, position - 1)
        if format_name == "plain":
            text = os.pread(fd, end + 1 - before, before)
        else:
            stream = open_text(Stored(fd), format_name, self._caps)
            text = skip(stream, before)
            while len(text) <= end - before and (more := stream.read()):
                text += more
        data = text[position - before : end - before]
        if len(data) != end - position:
            return None
        behind = text[end - before : end + 1 - before]
        left = text[: position - before]
        # A broken record has no shape of its own, but it lies between things that can lie around records.
        whole = (not left or left in _BEFORE_RECORD) and (not behind or behind in _BEHIND_RECORD)
        return data if is_value(data) or (whole and data == data.strip()) else None

    def _record_number(self, fd: int, format_name: str, index: int) -> bytes | None:
        stream = open_text(Stored(fd), format_name, self._caps)
        framer = Framer(self._caps)
        while data := stream.read():
            for run in framer.feed(data):
                if index <= run.records[-1].index:
                    return _record(run, index)
        for run in framer.finish()[0]:
            if index <= run.records[-1].index:
                return _record(run, index)
        return None


def _record(run: Run, index: int) -> bytes | None:
    record = run.records[index - run.records[0].index]
    return None if record.error else record.data


def _printable(text: str) -> str:
    """Escape what a file name could use to forge a line of a log or to paint a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in _cursor.readable(text))


def restored(origin: str) -> str:
    """Give the path of a record's origin: back from ``_cursor.readable`` when no file has the readable name itself."""
    if "\\x" not in origin or os.path.lexists(origin):
        return origin
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), origin.encode())
    return os.fsdecode(raw)


def from_settings(
    settings: FileSettings, *, name: str, clock: Clock, key: bytes, secrets: SecretResolver
) -> FileSource:
    """Make the source that ``[sources.NAME]`` describes."""
    del secrets
    return FileSource(name, settings.paths, caps=Caps(text_bytes=settings.max_file_mb << 20), clock=clock, key=key)
