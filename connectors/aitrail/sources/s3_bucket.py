"""The ``s3`` source: objects of one bucket, found by listing; for back-fill, and where there are no notifications.

Promise: every object that appears in the bucket is read, as long as its key (or, in the layout ``flat``, its change
time) sorts at most ``overlap_hours`` before the newest one that was read. Each stream of objects (account and region,
endpoint and variant) has its own place; what was read in the overlap is remembered by key and ETag, so an object that
is replaced is read again. An object that may not be read stops its stream, and only its stream, until it may.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from aitrail.clock import Clock
from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, SecretResolver, Workload
from aitrail.sources._aws_calls import Access, Aws, finding
from aitrail.sources._aws_seen import HOUR, Ring
from aitrail.sources._aws_settings import S3Settings
from aitrail.sources._aws_times import parse_time
from aitrail.sources._cloudtrail_stores import KeyService
from aitrail.sources._meter import Meter
from aitrail.sources._s3_attest import UNVERIFIED, Attestor
from aitrail.sources._s3_batches import Notes, Objects, split
from aitrail.sources._s3_keys import Kind, describe, start_after
from aitrail.sources._s3_listing import account_streams, capture_streams, listing
from aitrail.sources._s3_objects import Opened, ReadAhead, S3Object

# CloudTrail delivers within minutes; a range of time is read this much further, so that it holds all of its events.
_LATE_SECONDS = 2 * HOUR
_AHEAD_SECONDS = 2 * HOUR


class S3Source:
    """Reads the objects of a bucket; a ``ports.Source``.

    Attributes:
        notes: what the last fetch left out, one sentence each.
        gaps: digests that are missing in their chain.
    """

    def __init__(
        self, settings: S3Settings, *, name: str, clock: Clock, key: bytes = b"", secrets: SecretResolver | None = None
    ) -> None:
        """Describe the source; nothing is called yet. Raises ``ConfigError`` for a wrong time or key file."""
        del secrets  # AWS tools find credentials themselves
        self.name = name
        self.notes: list[str] = []
        self._settings = settings
        self._clock = clock
        self._key = key
        self._since = parse_time(settings.start, f"sources.{name}.start")
        self._until = parse_time(settings.end, f"sources.{name}.end") or float("inf")
        self._aws = Aws(Access.of(settings, settings.role_arn), clock)
        self._keys = KeyService(self._aws, settings.public_keys) if settings.verify_digests else None
        self._gaps = 0

    @property
    def gaps(self) -> int:
        """How many digests were found missing."""
        return self._gaps

    def ranged(self, start: float, end: float) -> "S3Source":
        """The same bucket, only the objects that hold what happened in [start, end)."""
        other = S3Source(self._settings, name=self.name, clock=self._clock, key=self._key)
        # In a flat layout nothing says when an object's events happened, only that it was not before it was written.
        other._since = start
        other._until = float("inf") if self._settings.layout == "flat" else end + _LATE_SECONDS
        return other

    def survey(self, cursors: Cursors) -> Workload:
        """Count what is new, by listing."""
        objects = size = 0
        for stream, kind in self._streams():
            for one in self._new(stream, kind, self._ring(cursors, stream)):
                objects += 1
                size += one.size
        return Workload(objects, size)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new, stream by stream, each in the order of its keys.

        Raises:
            AuthError, TransientError: a stream could not be read to its end; the others were.
        """
        notes = Notes()
        self.notes = notes.lines
        meter = Meter(budget, self._clock)
        trouble: AuthError | TransientError | None = None
        region = self._aws.region(self._settings.region)
        reader = Objects(self._aws, region, self._settings, self._clock, notes)
        for stream, kind in self._streams():
            try:
                yield from self._stream(stream, kind, cursors, meter, reader, notes)
            except (AuthError, TransientError) as error:
                trouble = trouble or error
            if meter.spent:
                break
        if trouble is not None:
            raise trouble

    def check(self) -> list[str]:
        """Say which permission is missing: lists one key and asks for one byte of it."""
        problems: list[str] = []
        settings = self._settings
        with finding(problems):
            region = self._aws.region(settings.region)
            arn = f"arn:aws:s3:::{settings.bucket}"
            call = partial(self._aws.call, "s3", region)
            answer = call("list_objects_v2", arn, Bucket=settings.bucket, Prefix=settings.prefix, MaxKeys=1)
            for one in answer.get("Contents", []):
                if one["Size"]:
                    call("get_object", f"{arn}/{settings.prefix}*", Bucket=settings.bucket, Key=one["Key"],
                         Range="bytes=0-0")["Body"].close()  # fmt: skip
            if not answer.get("Contents"):
                problems.append(f"s3://{settings.bucket}/{settings.prefix} holds nothing: correct bucket or prefix")
            if self._keys is not None:
                self._keys.keys(region, "", "")
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again; offloaded bodies are put in again."""
        one = split(origin)
        if one is None or one.bucket != self._settings.bucket:
            return None
        region = self._aws.region(self._settings.region)
        reader = Objects(self._aws, region, self._settings, self._clock, Notes())
        try:
            return reader.record(self._aws, region, one, position, end, index)
        except (AuthError, TransientError):
            return None

    def close(self) -> None:
        """Give back connections."""
        self._aws.close()

    # -- one stream

    def _stream(
        self, stream: str, kind: Kind, cursors: Cursors, meter: Meter, reader: Objects, notes: Notes
    ) -> Iterator[RawBatch]:
        region = self._aws.region(self._settings.region)
        ring = self._ring(cursors, stream)
        new = self._new(stream, kind, ring, notes)
        ahead = ReadAhead(self._aws, lambda _one: region, self._settings.read_ahead)
        attestation = UNVERIFIED if self._keys is not None and kind == "cloudtrail" else ""
        for one, opened in ahead.opened(new):
            if kind == "digest":
                yield from self._attest(one, opened, ring, cursors, region, notes)
            else:
                hour = int(one.modified) // HOUR if kind == "other" else None
                yield from reader.batches(one, opened, ring, meter, hour=hour, attestation=attestation)
            if meter.spent:
                return

    def _attest(
        self, one: S3Object, opened: Opened, ring: Ring, cursors: Cursors, region: str, notes: Notes
    ) -> Iterator[RawBatch]:
        assert self._keys is not None

        def ring_of(other: S3Object) -> Ring:
            what = describe(other.key)
            return ring if what.kind == "digest" else self._ring(cursors, what.stream)

        attestor = Attestor(self._aws, self._keys, frozenset({self._settings.bucket}), ring_of, notes)
        yield from attestor.batches(one, opened, region)
        self._gaps += attestor.gaps

    def _streams(self) -> Iterator[tuple[str, Kind]]:
        """What there is to read; digests come behind the log files that they speak of."""
        settings = self._settings
        region, prefix = self._aws.region(settings.region), settings.prefix
        if settings.layout == "flat":
            yield prefix, "other"
        elif settings.layout == "sagemaker":
            for stream in capture_streams(self._aws, region, settings.bucket, prefix):
                yield stream, "sagemaker"
        else:
            kinds: Sequence[Kind] = ("cloudtrail", "digest") if self._keys is not None else (settings.layout,)
            for kind in kinds:
                for stream in account_streams(
                    self._aws, region, settings.bucket, prefix, kind, settings.accounts, settings.regions
                ):
                    yield stream, kind

    def _new(self, stream: str, kind: Kind, ring: Ring, notes: Notes | None = None) -> Iterator[S3Object]:
        """The objects of a stream that were not read yet, in the order in which they are read."""
        if kind == "other":
            found = [one for one in self._listed(stream, kind, ring, notes) if one.size]
            yield from sorted(found, key=lambda one: (one.modified, one.key))
        else:
            yield from self._listed(stream, kind, ring, notes)

    def _listed(self, stream: str, kind: Kind, ring: Ring, notes: Notes | None) -> Iterator[S3Object]:
        settings, now = self._settings, self._clock.now()
        newest = ring.newest
        floor = -1 if newest is None else newest - settings.overlap_hours
        after = "" if kind == "other" else start_after(stream, kind, max(self._since, floor * HOUR))
        region = self._aws.region(settings.region)
        for one in listing(self._aws, region, settings.bucket, stream, after):
            what = describe(one.key)
            if what.kind == "skipped" or kind not in ("other", what.kind):
                continue
            time = what.time if kind != "other" else 0
            hour = int(time or one.modified) // HOUR
            if hour < floor or not self._since <= _latest(hour, time) or hour * HOUR >= self._until:
                continue
            if hour * HOUR > now + _AHEAD_SECONDS:
                if notes is not None:
                    notes(f"{one.origin}: its key names a time that has not come yet; read when it has")
                continue
            if not ring.has(hour, ring.ident(one.bucket, one.key, one.etag)):
                yield one

    def _ring(self, cursors: Cursors, stream: str) -> Ring:
        return Ring(cursors, stream, self._settings.overlap_hours, self._key)


def _latest(hour: int, minute: int) -> float:
    """The latest moment that an object can be of: the end of its minute or hour."""
    return minute + 60 if minute % HOUR else (hour + 1) * HOUR
