"""One object of S3 -> batches with the cursor that remembers it; what ``s3`` and ``s3_sqs`` have in common."""

from collections.abc import Callable, Generator

from aitrail.clock import Clock
from aitrail.ports import Budget, RawBatch, RawRecord
from aitrail.printing import printable
from aitrail.sources._aws_calls import Aws
from aitrail.sources._aws_seen import HOUR, Memory, Part
from aitrail.sources._aws_settings import S3Settings, S3SqsSettings
from aitrail.sources._caps import Caps
from aitrail.sources._meter import Meter
from aitrail.sources._s3_bodies import Bodies
from aitrail.sources._s3_keys import Described, describe
from aitrail.sources._s3_objects import Body, Gone, Opened, Place, S3Object, read_object

_MOST_NOTES = 1_000
_WITH_BODIES = frozenset({"bedrock", "other"})


class Notes:
    """What a fetch left out, one sentence each, every sentence once; never content, and nothing that paints."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: set[str] = set()

    def __call__(self, text: str) -> None:
        """Add a sentence."""
        text = printable(text)
        if text not in self._known and len(self._known) <= _MOST_NOTES:
            self._known.add(text)
            full = len(self._known) > _MOST_NOTES
            self.lines.append("there is more of this kind that is not listed" if full else text)


class Objects:
    """Reads objects; one per source."""

    def __init__(
        self, aws: Aws, region: str, settings: S3Settings | S3SqsSettings, clock: Clock, note: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._caps = Caps(text_bytes=settings.max_file_mb << 20)
        self._bodies = Bodies(aws, region, settings.body_buckets, settings.body_bytes, note)
        self._note = note

    def batches(
        self,
        one: S3Object,
        opened: Opened,
        ring: Memory,
        meter: Meter,
        *,
        hour: int | None = None,
        receipt: str = "",
        attestation: str = "",
    ) -> Generator[RawBatch, None, bool]:
        """Yield the records of an object that was opened, remembered in ``ring`` under ``hour`` (None: of its key).

        The last batch carries ``receipt`` and the cursor that says that the object is settled. An object that is gone
        is one record with the error ``object_gone``; one that was read before gives a batch without records. Returns
        whether the object was read to its end: the budget may be spent before.

        Raises:
            AuthError, TransientError: it could not be opened, or not be read to its end.
        """
        if isinstance(opened, Gone):
            self._note(f"{one.origin}: was deleted before it could be read")
            yield self.error(one, "object_gone", receipt)
            return True
        if not isinstance(opened, Body):
            raise opened
        what = describe(one.key)
        hour = hour_of(one, opened, what) if hour is None else hour
        try:
            return (yield from self._read(one, opened, what, ring, hour, meter, receipt, attestation))
        finally:
            opened.close()

    def record(self, aws: Aws, region: str, one: S3Object, position: int, end: int, index: int) -> bytes | None:
        """Read one record again; None when it is gone or is another one now. Raises as ``batches``."""
        try:
            body = Body(aws, region, one)
        except Gone:
            return None
        kind = describe(one.key).kind
        try:
            for piece in read_object(body, self._caps, Meter(Budget(), self._clock)):
                for record in piece.records:
                    if record.index == index and not record.error:
                        same = record.position == position and (not end or record.end == end)
                        resolved = self._bodies.resolve([record]) if kind in _WITH_BODIES else [record]
                        return resolved[0].data if same else None
        finally:
            body.close()
        return None

    def error(self, one: S3Object, code: str, receipt: str = "") -> RawBatch:
        """An object that gives no records, and why."""
        record = RawRecord(b"", 0, 0, 0, code)
        return RawBatch(one.origin, [record], "", b"", newest=self._clock.now(), settled=True, receipt=receipt)

    def _read(
        self,
        one: S3Object,
        body: Body,
        what: Described,
        ring: Memory,
        hour: int,
        meter: Meter,
        receipt: str,
        attestation: str,
    ) -> Generator[RawBatch, None, bool]:
        ident = ring.ident(one.bucket, one.key, body.etag)
        if ring.has(hour, ident):
            key, cursor = ring.cursor(hour)
            yield RawBatch(one.origin, [], key, cursor, settled=True, receipt=receipt)
            return True
        part = ring.part(hour, ident)
        pieces = read_object(body, self._caps, meter, Place(part.offset, part.skip, part.index))
        spent = False
        for piece in pieces:
            if spent and (piece.records or not piece.last):
                return False
            at = piece.place
            if piece.last:
                # With the name alone a later verdict can tell "replaced since" from "not read".
                names = (ident, ring.ident(one.bucket, one.key)) if attestation else (ident,)
                known = ring.add(hour, *names)
            else:
                known = ring.keep(hour, Part(ident, at.offset, at.skip, at.index))
            key, cursor = ring.cursor(hour) if known else ("", b"")
            records = self._bodies.resolve(piece.records) if what.kind in _WITH_BODIES else piece.records
            batch = RawBatch(
                one.origin,
                records,
                key,
                cursor,
                bytes_read=piece.bytes_read,
                newest=body.modified,
                settled=piece.last,
                receipt=receipt if piece.last else "",
                record_type=what.record_type,
                attestation=attestation,
            )
            meter.add(batch)
            yield batch
            # The budget may end with the object's last record: then only its end is missing, and that is free. What
            # nobody would remember is read to its end: it would start anew every time.
            spent = meter.spent and known
        return True


def split(origin: str) -> S3Object | None:
    """The object of an origin; None when it is no URL of S3."""
    bucket, _, key = origin.removeprefix("s3://").partition("/")
    return S3Object(bucket, key) if origin.startswith("s3://") and bucket and key else None


def hour_of(one: S3Object, body: Body | None, what: Described) -> int:
    """The hour (since the epoch) under which an object is remembered."""
    time = what.time or (body.modified if body is not None else one.modified)
    return int(time) // HOUR
