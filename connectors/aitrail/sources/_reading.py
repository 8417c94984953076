"""One open file (or stream) -> batches with the cursor that goes with each."""

import os
import select
from collections.abc import Callable, Iterator

import msgspec

from aitrail.clock import Clock
from aitrail.errors import CorruptInputError
from aitrail.ports import RawBatch, RawRecord
from aitrail.sources import _cursor
from aitrail.sources._caps import BATCH_BYTES, OPEN_LINE_SECONDS, SETTLE_SECONDS, Caps
from aitrail.sources._cursor import Cursor
from aitrail.sources._framing import Framer, Run, Tail
from aitrail.sources._inflate import Stored, Text, detect, open_text, refused, skip
from aitrail.sources._meter import Meter

_NOT_JSON = "not_json"
# A file that begins with so many lines of plain text holds nothing for us: nobody's log has a longer preamble.
PLAIN_LINES = 1_000
_FEW_LINES = 10


class Opened(msgspec.Struct, gc=False):
    """One open file: what it is, and where to go on (``committed`` is the cursor that says so)."""

    path: str
    key: str
    fd: int
    status: os.stat_result
    format: str
    offset: int = 0
    skip: int = 0
    index: int = 0
    fault: str = ""
    fault_at: int = -1
    committed: bytes = b""


class _Prose:
    """Plain text - a README, a CSV, an application's log - is one error for the file, not one for each of its lines.

    Lines count as such as long as nothing before them in the file looked like a JSON object. One dead letter, at the
    file's start, stands for all of them; what comes behind is read. A file that begins with ``PLAIN_LINES`` of them is
    not read on. A few of them before JSON (the rest of a line that a rotation cut) are records like any other.
    """

    def __init__(self, fault: str, index: int, *, fresh: bool) -> None:
        self._told = fault == _NOT_JSON
        self._open = self._told or fresh
        self._lines = index if self._told else 0
        self._few: list[Run] = []

    @property
    def hopeless(self) -> bool:
        """Whether the file is not to be read on."""
        return self._open and self._lines >= PLAIN_LINES

    @property
    def fault(self) -> str:
        """What the cursor is to remember."""
        return _NOT_JSON if self._open and self._lines else ""

    def sift(self, runs: list[Run], batcher: "_Batcher") -> list[Run]:
        """Leave out plain lines, until something else comes."""
        for number, run in enumerate(runs if self._open else ()):
            plain = next((i for i, record in enumerate(run.records) if not _is_plain(record)), len(run.records))
            if plain:
                self._lines += plain
                self._few = [*self._few, Run(run.records[:plain], run.anchor, run.first)] if self._are_few else []
                batcher.pass_over(run, plain)
            if plain < len(run.records):
                self._open = False
                if not self._are_few:
                    self.tell(batcher, run.records[plain].position)
                return [*self._few, Run(run.records[plain:], run.anchor, run.first + plain), *runs[number + 1 :]]
        return [] if self._open else runs

    @property
    def _are_few(self) -> bool:
        return self._lines <= _FEW_LINES and not self._told

    def is_plain(self, kind: str, first: bytes) -> bool:
        """Whether an unfinished last line is one more of them; ``first`` is its first byte, empty when not known."""
        plain = self._open and kind == "line" and first not in (b"", b"{")
        self._lines += plain and not self._told
        return plain

    def tell(self, batcher: "_Batcher", end: int) -> None:
        """Add the one error for what was left out, unless it is known."""
        if self._lines and not self._told:
            self._told = True
            lines = f"{self._lines:,} {'line' if self._lines == 1 else 'lines'}"
            batcher.records.append(RawRecord(b"", 0, 0, end, _NOT_JSON, lines))


def _is_plain(record: RawRecord) -> bool:
    return record.error == "record_torn" if record.error else not record.data.startswith(b"{")


class _Batcher:
    """Cuts the framer's runs into batches and knows, for each, where to go on."""

    def __init__(self, offset: int, skip_count: int, index: int) -> None:
        self.offset = offset
        self.skip = skip_count
        self.index = index
        self.records: list[RawRecord] = []
        self._bytes = 0

    def add(self, runs: list[Run], meter: Meter) -> Iterator[None]:
        """Take the runs; stop after each record that fills a batch, until ``take`` empties it."""
        for run in runs:
            at = 0
            while at < len(run.records):
                part = run.records[at : at + meter.room - len(self.records)]
                at += len(part)
                self.records += part
                self._bytes += part[-1].end - part[0].position
                self.offset, self.skip = run.resume(at)
                self.index = part[-1].index + 1
                if len(self.records) >= meter.room or self._bytes >= BATCH_BYTES:
                    yield

    def pass_over(self, run: Run, count: int) -> None:
        """Go on behind the first ``count`` records of ``run`` without them."""
        self.offset, self.skip = run.resume(count)
        self.index = run.records[count - 1].index + 1

    def take(self) -> list[RawRecord]:
        """Empty the batch."""
        records, self.records, self._bytes = self.records, [], 0
        return records


class Reading:
    """Reads one open file from where it was left."""

    def __init__(self, opened: Opened, *, caps: Caps, clock: Clock, key: bytes, note: Callable[[str], None]) -> None:
        """``key`` is the secret of the fingerprints; ``note`` is told what waits."""
        self._opened = opened
        self._clock = clock
        self._key = key
        self._note = note
        plain = opened.format == "plain"
        start = opened.offset if plain else 0
        os.lseek(opened.fd, start, os.SEEK_SET)
        # Only what was there when it was opened: a file that grows as fast as it is read must not starve the others.
        self._stored = Stored(opened.fd, start=start, limit=opened.status.st_size)
        self._text: Text = open_text(self._stored, opened.format, caps)
        self._framer = Framer(caps, offset=opened.offset, index=opened.index, skip=opened.skip)
        self._batcher = _Batcher(opened.offset, opened.skip, opened.index)
        self._counted = start
        self._fault = ""
        self._prose = _Prose(opened.fault, opened.index, fresh=opened.offset == 0 and opened.index == 0)

    def batches(self, meter: Meter) -> Iterator[RawBatch]:
        """Yield what is new, at least one batch when the cursor changes; raises ``OSError``."""
        known = refused(os.pread(self._opened.fd, 8, 0))
        if known is not None:
            yield self._refuse(*known)
            return
        for data in () if self._prose.hopeless else self._pieces():
            yield from self._full(self._framer.feed(data), meter)
            if meter.spent:
                return
            if self._prose.hopeless:
                break
        if self._prose.hopeless:
            yield self._give_up()
            return
        growing = self._growing()
        runs, tail = self._framer.finish(final=not growing and not self._fault)
        yield from self._full(runs, meter)
        if meter.spent:
            return
        batch = self._last(growing, tail)
        if batch.records or batch.cursor != self._opened.committed:
            meter.add(batch)
            yield batch

    def _pieces(self) -> Iterator[bytes]:
        """Yield the text behind the place where the last run stopped; damage ends it."""
        try:
            data = skip(self._text, self._opened.offset)
            self._counted = self._stored.position
            if self._text.offset < self._opened.offset:
                return  # shorter than it was: nothing new
            data = data or self._text.read()
            while data:
                yield data
                data = self._text.read()
        except CorruptInputError as error:
            self._fault = error.code

    def _full(self, runs: list[Run], meter: Meter) -> Iterator[RawBatch]:
        for _ in self._batcher.add(self._prose.sift(runs, self._batcher), meter):
            batch = self._batch()
            meter.add(batch)
            yield batch
            if meter.spent:
                return

    def _last(self, growing: bool, tail: Tail) -> RawBatch:
        """Return what the end of the file brings, with the cursor that says so."""
        opened, batcher, framer = self._opened, self._batcher, self._framer
        batcher.offset, batcher.skip = framer.resume()
        place = tail.position if tail.kind else self._text.offset
        if self._prose.is_plain(tail.kind, framer.first_of(tail)):
            tail, place = Tail(), self._text.offset
        fault = self._fault or ("record_torn" if tail.kind else "")
        open_line = fault == "record_torn" and tail.kind == "line" and self._age() < OPEN_LINE_SECONDS
        waits = open_line or (growing and fault in ("record_torn", "gzip_truncated"))
        if open_line:
            self._note(
                f"{opened.path}: the last line (at offset {place}, {tail.length} bytes) has no end yet; it waits"
            )
            fault = ""
        elif waits:
            self._note(f"{opened.path}: not complete yet at offset {place}; the rest is read when it is there")
            fault = ""
        elif fault and (fault, place) != (opened.fault, opened.fault_at):
            batcher.records.append(RawRecord(b"", place, framer.index, max(place, self._text.offset), fault))
        if self._prose.fault:
            self._prose.tell(batcher, place)
            fault, place = fault or self._prose.fault, place if fault else 0
        batch = self._batch(done=not waits, fault=fault, fault_at=place if fault else -1)
        batch.settled = True
        return batch

    def _give_up(self) -> RawBatch:
        """Return the one error of a file that shows no JSON for so long that it is not read on."""
        opened, size = self._opened, self._opened.status.st_size
        self._note(f"{opened.path}: {PLAIN_LINES:,} lines at its start hold no JSON; it is not read on")
        self._prose.tell(self._batcher, max(self._text.offset, self._batcher.offset))
        self._stored.position = size
        batch = self._batch(done=True, fault=_NOT_JSON, fault_at=0)
        batch.settled = True
        return batch

    def _refuse(self, what: str, fix: str) -> RawBatch:
        """Return one error for a file that is of a known other kind, instead of one for each of its lines."""
        opened, size = self._opened, self._opened.status.st_size
        self._note(f"{opened.path}: holds {what}, not JSON; {fix}")
        code = "utf8_invalid" if what == "UTF-16" else "json_invalid"
        if opened.fault != code:
            self._batcher.records = [RawRecord(b"", 0, 0, size, code)]
        self._stored.position = size
        return self._batch(done=True, fault=code, fault_at=0)

    def _growing(self) -> bool:
        status = os.fstat(self._opened.fd)
        recent = self._age() < SETTLE_SECONDS
        return recent or status.st_size != self._opened.status.st_size

    def _age(self) -> float:
        """Seconds since the file changed (in either direction: clocks differ)."""
        return abs(self._clock.now() - os.fstat(self._opened.fd).st_mtime)

    def _batch(self, *, done: bool = False, fault: str = "", fault_at: int = -1) -> RawBatch:
        """Close the batch; its cursor goes on where the batcher is."""
        opened, place = self._opened, self._batcher
        size = opened.status.st_size
        mark = place.offset if opened.format == "plain" else self._stored.position
        head_bytes = min(_cursor.HEAD, size)
        cursor = Cursor(
            path=_cursor.readable(opened.path),
            head=_cursor.fingerprint(opened.fd, 0, head_bytes, self._key),
            head_bytes=head_bytes,
            tail=_cursor.tail_fingerprint(opened.fd, mark, self._key),
            mark=mark,
            format=opened.format,
            offset=place.offset,
            skip=place.skip,
            index=place.index,
            size=size,
            mtime_ns=opened.status.st_mtime_ns,
            ctime_ns=opened.status.st_ctime_ns,
            done=done,
            fault=fault,
            fault_at=fault_at,
            v=_cursor.VERSION,
        )
        counted, self._counted = self._counted, self._stored.position
        return RawBatch(
            origin=cursor.path,
            records=place.take(),
            cursor_key=opened.key,
            cursor=_cursor.encode(cursor),
            bytes_read=self._stored.position - counted,
            newest=opened.status.st_mtime,
            settled=done,
        )


def read_stream(fd: int, *, caps: Caps, clock: Clock, meter: Meter) -> Iterator[RawBatch]:
    """Yield what a pipe gives, as it comes: a batch is closed when it is full or nothing more is there right now.

    A stream has no next time, so what is torn at its end is an error at once, and its cursor says nothing.
    """
    stored = Stored(fd)
    head = stored.peek()
    text = open_text(stored, detect(head), caps)
    framer = Framer(caps)
    batcher = _Batcher(0, 0, 0)
    counted = 0

    def close(*, settled: bool = False) -> RawBatch:
        nonlocal counted
        before, counted = counted, stored.position
        took = counted - before
        return RawBatch("stdin", batcher.take(), "stdin", b"{}", took, newest=clock.now(), settled=settled)

    fault = ""
    known = refused(head)
    try:
        while data := b"" if known else text.read():
            for _ in batcher.add(framer.feed(data), meter):
                batch = close()
                meter.add(batch)
                yield batch
            if batcher.records and not select.select([fd], [], [], 0)[0]:
                batch = close()
                meter.add(batch)
                yield batch
            if meter.spent:
                return
    except CorruptInputError as error:
        fault = error.code
    if known:
        fault = "utf8_invalid" if known[0] == "UTF-16" else "json_invalid"
    runs, tail = framer.finish()
    for _ in batcher.add(runs, meter):
        yield close()
    fault = fault or ("record_torn" if tail.kind else "")
    if fault:
        place = tail.position if tail.kind else text.offset
        batcher.records.append(RawRecord(b"", place, framer.index, text.offset, fault))
    yield close(settled=True)
