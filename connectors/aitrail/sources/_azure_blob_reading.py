"""One blob -> batches with the cursor that goes with each, by ranges from where the last look stopped.

The cursor holds the blob's ETag: while it is the same, the content is. When it has changed, the place is kept only if
the blob still begins and, before the place, still ends as it did (keyed hashes of up to 1,024 bytes each), was not
created anew and, for a block blob, its blocks up to there are the same ones. Otherwise the blob is read from its start;
what was known is known by its event_id.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from aitrail.clock import Clock
from aitrail.errors import CorruptInputError
from aitrail.ports import RawBatch, RawRecord
from aitrail.sources._azure_blob_listing import Blob
from aitrail.sources._caps import OPEN_LINE_SECONDS, Caps
from aitrail.sources._framing import Framer, Run, Tail
from aitrail.sources._inflate import Text, detect, open_text, refused, skip
from aitrail.sources._meter import Meter
from aitrail.sources._reading import _Batcher

RANGE = 4 << 20
"""Bytes of one request: Azure answers larger ones in one piece too, but a lost connection then costs more."""
_PRINT = 1_024
VERSION = 1


class BlobCursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one blob was read.

    Attributes:
        etag, size, created: the blob when it was read last.
        format: ``plain``, ``gzip`` or ``zstd``.
        offset, skip, index: where in the text a framer starts again (see ``_framing``), number of the next record.
        mark: stored bytes up to the end of what was settled.
        head, tail: keyed hashes of the first bytes, and of those before ``mark``.
        blocks, blocks_hash: how many committed blocks lie before ``mark``, and the keyed hash of their ids and sizes.
        done: nothing is left but what is torn; ``waits``: the rest of a torn record may still come.
        fault_at: place of the damage that was reported last.
    """

    etag: str
    size: int
    created: float
    format: str = "plain"
    offset: int = 0
    skip: int = 0
    index: int = 0
    mark: int = 0
    head: str = ""
    tail: str = ""
    blocks: int = 0
    blocks_hash: str = ""
    done: bool = False
    waits: bool = False
    fault_at: int = -1
    v: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BlobCursor).decode


def decode(data: bytes | None) -> BlobCursor | None:
    """Read a committed cursor; None when there is none, it is damaged, or a newer version wrote it."""
    if not data:
        return None
    try:
        cursor = _decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return cursor if cursor.v == VERSION else None


def unchanged(cursor: BlobCursor | None, blob: Blob, now: float) -> bool:
    """Say whether there is nothing new in ``blob``."""
    if cursor is None or not cursor.done or cursor.etag != blob.etag:
        return False
    return not (cursor.waits and now - blob.modified >= OPEN_LINE_SECONDS)


class Reader:
    """What is asked of the service about one blob; each method raises what ``Calls.run`` does.

    Args:
        run: makes a call (``Calls.run``).
        client: ``BlobClient`` of the blob, asked anew each time.
    """

    def __init__(self, run: Callable[[str, Callable[[], Any]], Any], client: Callable[[], Any]) -> None:
        self._run = run
        self._client = client

    def get(self, start: int, length: int, blob: Blob) -> bytes:
        """Fetch a range. A block blob must still be the one that was listed; an append blob may have grown."""
        condition: dict[str, Any] = {} if blob.append else _matching(blob.etag)

        def call() -> bytes:
            data: bytes = self._client().download_blob(start, length, max_concurrency=1, **condition).readall()
            return data

        return cast("bytes", self._run("reading a blob", call)) if length > 0 else b""

    def blocks(self) -> list[tuple[str, int]]:
        """Ids and sizes of the committed blocks."""
        found = self._run("reading a block list", lambda: self._client().get_block_list("committed")[0])
        return [(str(one.id), int(one.size)) for one in found]


def _matching(etag: str) -> dict[str, Any]:
    from azure.core import MatchConditions  # noqa: PLC0415 - only when something is read

    # A listing leaves out the quotation marks that are part of a tag (RFC 9110, 8.8.3).
    tag = etag if etag.startswith(('"', "W/")) else f'"{etag}"'
    return {"etag": tag, "match_condition": MatchConditions.IfNotModified}


class Ranged:
    """Stored bytes of a blob from ``start`` to ``end``, fetched range by range; what ``_inflate`` reads from."""

    def __init__(self, get: Callable[[int, int], bytes], start: int, end: int) -> None:
        self._get = get
        self._end = end
        self._fetched = start
        self._ahead = memoryview(b"")
        self.position = start

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end."""
        if not self._ahead and self._fetched < self._end:
            data = self._get(self._fetched, min(RANGE, self._end - self._fetched))
            self._fetched += len(data)
            self._ahead = memoryview(data)
            if not data:
                self._end = self._fetched
        part = bytes(self._ahead[:count])
        self._ahead = self._ahead[len(part) :]
        self.position += len(part)
        return part

    def peek(self, count: int = 8) -> bytes:
        """Return the next bytes and leave them there."""
        data = self.read(count)
        self._ahead = memoryview(data + bytes(self._ahead))
        self.position -= len(data)
        return data


class BlobReading:
    """Reads one blob from where it was left.

    Args:
        blob: as listed.
        reader: fetches.
        cursor: what was read before.
        key: secret of the fingerprints.
        origin, cursor_key: of the batches.
        note: is told what waits, is read again, or is gone.
    """

    def __init__(
        self,
        blob: Blob,
        reader: Reader,
        cursor: BlobCursor | None,
        *,
        key: bytes,
        origin: str,
        cursor_key: str,
        caps: Caps,
        clock: Clock,
        note: Callable[[str], None],
    ) -> None:
        self._blob, self._reader, self._key = blob, reader, key
        self._origin, self._cursor_key = origin, cursor_key
        self._caps, self._clock, self._note = caps, clock, note
        self._head_bytes = reader.get(0, min(_PRINT, blob.size), blob)
        self._blocks: list[tuple[str, int]] | None = None
        start = self._kept(cursor) if cursor is not None else None
        begin = start or BlobCursor(blob.etag, blob.size, blob.created, detect(self._head_bytes))
        self._begin = begin
        self._format = begin.format
        plain = self._format == "plain"
        first = begin.offset if plain else 0
        self._stored = Ranged(lambda at, length: reader.get(at, length, blob), first, blob.size)
        self._text: Text = open_text(self._stored, self._format, caps)
        self._framer = Framer(caps, offset=begin.offset, index=begin.index, skip=begin.skip)
        self._batcher = _Batcher(begin.offset, begin.skip, begin.index)
        self._mark = begin.mark
        self._window, self._window_at = b"", first
        self._counted = first
        self._fault = ""

    # -- where to go on

    def _kept(self, cursor: BlobCursor) -> BlobCursor | None:
        """The cursor when its place is still good, else None: read from the start."""
        blob = self._blob
        if cursor.etag == blob.etag:
            return cursor
        why = ""
        if blob.created != cursor.created:
            why = "deleted and made anew"
        elif cursor.format != "plain" or blob.size < cursor.mark:
            why = "replaced" if cursor.format != "plain" else "shorter than it was"
        elif (
            self._print(self._head_bytes[: min(_PRINT, cursor.mark)]) != cursor.head
            or self._print(self._before(cursor.mark)) != cursor.tail
            or (cursor.blocks > 0 and self._blocks_hash(cursor.blocks) != cursor.blocks_hash)
        ):
            why = "rewritten"
        if why:
            self._note(f"{self._origin}: {why} since it was read last; read from the start")
            return None
        return cursor

    def _before(self, mark: int) -> bytes:
        start = max(0, mark - _PRINT)
        if mark <= len(self._head_bytes):
            return self._head_bytes[start:mark]
        return self._reader.get(start, mark - start, self._blob)

    def _print(self, data: bytes) -> str:
        return hashlib.blake2b(
            data, key=self._key[:64], digest_size=12, person=len(data).to_bytes(8, "big")
        ).hexdigest()

    def _blocks_hash(self, count: int) -> str:
        if self._blocks is None:
            self._blocks = self._reader.blocks()
        return self._print(msgspec.json.encode(self._blocks[:count])) if len(self._blocks) >= count else "fewer"

    def _blocks_before(self, mark: int) -> int:
        """How many whole blocks lie before ``mark``."""
        if self._blocks is None:
            self._blocks = self._reader.blocks()
        end = 0
        for count, (_, size) in enumerate(self._blocks):
            end += size
            if end > mark:
                return count
        return len(self._blocks)

    # -- reading

    def batches(self, meter: Meter) -> Iterator[RawBatch]:
        """Yield what is new, at least one batch; raises what ``Reader`` raises."""
        known = refused(self._head_bytes)
        if known is not None:
            yield self._refuse(*known)
            return
        for data in self._pieces():
            self._see(data)
            yield from self._full(self._framer.feed(data), meter)
            if meter.spent:
                return
        old = self._clock.now() - self._blob.modified >= OPEN_LINE_SECONDS
        runs, tail = self._framer.finish(final=old and not self._fault)
        yield from self._full(runs, meter)
        if not meter.spent:
            batch = self._last(tail, old=old)
            meter.add(batch)
            yield batch

    def _pieces(self) -> Iterator[bytes]:
        try:
            data = skip(self._text, self._begin.offset) or self._text.read()
            while data:
                yield data
                data = self._text.read()
        except CorruptInputError as error:
            self._fault = error.code

    def _see(self, data: bytes) -> None:
        """Keep what lies before the last record for its fingerprint: the last two pieces hold it nearly always."""
        if self._format == "plain":
            kept = self._window[-(_PRINT + len(data)) :]
            self._window_at += len(self._window) - len(kept)
            self._window = kept + data

    def _full(self, runs: list[Run], meter: Meter) -> Iterator[RawBatch]:
        for _ in self._batcher.add(runs, meter):
            batch = self._batch(done=False)
            meter.add(batch)
            yield batch
            if meter.spent:
                return

    def _last(self, tail: Tail, *, old: bool) -> RawBatch:
        """What the end of the blob brings: a torn record waits for a day, then it is reported once."""
        batcher = self._batcher
        batcher.offset, batcher.skip = self._framer.resume()
        fault = self._fault or ("record_torn" if tail.kind else "")
        place = tail.position if tail.kind else self._text.offset
        waits = bool(fault) and not old
        if waits:
            self._note(f"{self._origin}: not complete yet at offset {place}; the rest is read when it is there")
        elif fault and place != self._begin.fault_at:
            batcher.records.append(RawRecord(b"", place, self._framer.index, max(place, self._text.offset), fault))
        batch = self._batch(done=True, waits=waits, fault_at=place if fault and not waits else -1)
        batch.settled = True
        return batch

    def _refuse(self, what: str, fix: str) -> RawBatch:
        """One error for a blob that is of a known other kind."""
        self._note(f"{self._origin}: holds {what}, not JSON; {fix}")
        code = "utf8_invalid" if what == "UTF-16" else "json_invalid"
        if self._begin.fault_at != 0:
            self._batcher.records.append(RawRecord(b"", 0, 0, self._blob.size, code))
        batch = self._batch(done=True, fault_at=0)
        batch.settled = True
        return batch

    def _batch(self, *, done: bool, waits: bool = False, fault_at: int = -1) -> RawBatch:
        blob, place = self._blob, self._batcher
        records = place.take()
        ends = [record.end for record in records if not record.error]
        plain = self._format == "plain"
        if plain:
            # What was settled, be it the end of an envelope that the writer moves on, must still be there next time.
            self._mark = max(self._mark, place.offset, *ends[-1:])
        mark = self._mark if plain else 0
        blocks = 0 if blob.append or not plain else self._blocks_before(mark)
        cursor = BlobCursor(
            blob.etag,
            blob.size,
            blob.created,
            self._format,
            offset=place.offset,
            skip=place.skip,
            index=place.index,
            mark=mark,
            head=self._print(self._head_bytes[: min(_PRINT, mark)]),
            tail=self._print(self._seen_before(mark)) if plain else "",
            blocks=blocks,
            blocks_hash=self._blocks_hash(blocks) if blocks else "",
            done=done,
            waits=waits,
            fault_at=fault_at,
            v=VERSION,
        )
        counted, self._counted = self._counted, self._stored.position
        return RawBatch(
            self._origin,
            records,
            self._cursor_key,
            _encode(cursor),
            self._stored.position - counted,
            newest=blob.modified,
        )

    def _seen_before(self, mark: int) -> bytes:
        """What lies before ``mark``, from what was read where it is there."""
        start = max(0, mark - _PRINT)
        if self._window_at <= start and mark <= self._window_at + len(self._window):
            return self._window[start - self._window_at : mark - self._window_at]
        return self._before(mark)
