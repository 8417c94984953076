"""The flow: records in, events out, and the only place that commits.

One ``Pipeline`` reads one source: detect, normalize, join, transform. What comes out is committed together with the
source's cursor in one transaction of the outbox; nothing is committed when anything unexpected is raised. Fragments
that wait for their siblings hold their cursor back: after a crash they are read again, and what was already taken in is
recognised by its event_id.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import Struct

from aitrail.clock import Clock, iso_ms
from aitrail.normalize.detect import Detector
from aitrail.normalize.join import Joined, Joiner
from aitrail.normalize.outcome import Context, Fragment, Normalized, Rejected
from aitrail.normalize.registry import NORMALIZERS
from aitrail.normalize.undetected import why_unknown
from aitrail.ports import Budget, Cursors, EncodedEvent, RawBatch, RawRecord, Source
from aitrail.spool import DeadLetter, Intake, Spool, Stage, dead_letter_id
from aitrail.transform import Transform

# Records that are well-formed but no access to an AI system: counted by reason, not kept as dead letters.
COUNTED_ONLY = frozenset({"not_ai_related", "type_unsupported", "duplicate_part"})
# One commit per about this many events, bytes or seconds: a commit costs a disk flush, and a crash repeats at most
# this much work.
COMMIT_EVENTS = 2_000
COMMIT_BYTES = 4 << 20
COMMIT_SECONDS = 1.0


class Totals(Struct):
    """What a run did. ``rejected`` is by reason code; ``skipped`` counts records that concern no AI system."""

    records: int = 0
    new: int = 0
    duplicates: int = 0
    bytes: int = 0
    objects: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    by_type: Counter[str] = msgspec.field(default_factory=Counter)


class _Batch(Struct):
    """A batch whose cursor is not committed yet; ``open`` counts its fragments that still wait for siblings."""

    key: str
    cursor: bytes
    open: int = 0


class _Token(Struct, frozen=True, gc=False):
    """What the joiner holds for a fragment: its batch and its place."""

    batch: _Batch
    origin: str
    record: RawRecord


class _Progress:
    """The committed cursors of a source under what this process has read since."""

    def __init__(self, committed: Cursors) -> None:
        self._committed = committed
        self.read: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.read.get(key) or self._committed.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        for key, cursor in self._committed.items():
            if key not in self.read:
                yield key, cursor
        yield from self.read.items()


class Pipeline:
    """Reads one source into the outbox.

    Args:
        source: what to read.
        spool: the outbox, open for writing.
        transform: enrich, classify, content mode, encode.
        context: what the normalizers may know; ``origin`` is set per object.
        destinations: names of the destinations that get every event.
        record_type: treat every record as this type; empty: detect it per record.
        on_commit: called with the totals after each commit (progress).
    """

    def __init__(
        self,
        source: Source,
        *,
        spool: Spool,
        transform: Transform,
        context: Context,
        destinations: Sequence[str],
        clock: Clock,
        record_type: str = "",
        joiner: Joiner | None = None,
        on_commit: Callable[[Totals], None] = lambda totals: None,
    ) -> None:
        self._source = source
        self._spool = spool
        self._transform = transform
        self._context = context
        self._destinations = tuple(destinations)
        self._clock = clock
        self._record_type = record_type
        self._joiner = joiner if joiner is not None else Joiner()
        self._on_commit = on_commit
        self._progress = _Progress(spool.cursors(source.name))
        self._waiting: dict[str, deque[_Batch]] = {}
        self._detector = Detector()
        self._clear()

    def run(self, budget: Budget | None = None, *, flush_older_than: float | None = None) -> Totals:
        """Read what is new and commit it.

        Args:
            budget: how much to read at most.
            flush_older_than: emit joined events whose newest part came more than this many seconds ago; None emits
                all that wait, for a run that ends.
        """
        totals = Totals()
        self._last_commit = self._clock.monotonic()
        for batch in self._source.fetch(self._progress, budget or Budget()):
            self._take(batch, totals)
            if self._due():
                self._commit(totals)
        now = self._clock.now()
        older = None if flush_older_than is None else now - flush_older_than
        for joined, tokens in self._joiner.flush(older):
            self._emit_joined(joined, tokens)
        self._commit(totals)
        return totals

    def replay(self, letters: Sequence[DeadLetter]) -> Totals:
        """Read the records of ``letters`` again from their places; what becomes an event settles its letter."""
        totals = Totals()
        for letter in letters:
            raw = letter.raw or self._source.reread(letter.origin, letter.position, letter.end, letter.index)
            if raw is None:
                totals.rejected["source_gone"] += 1
                continue
            before = len(self._dead)
            batch = _Batch("", b"")
            record = RawRecord(raw, letter.position, letter.index, letter.end)
            self._record(record, msgspec.structs.replace(self._context, origin=letter.origin), batch, totals)
            if len(self._dead) == before:
                self._resolved.append(letter.id)
        for joined, tokens in self._joiner.flush(None):
            self._emit_joined(joined, tokens)
        self._commit(totals)
        return totals

    # --- one batch

    def _take(self, batch: RawBatch, totals: Totals) -> None:
        pending = _Batch(batch.cursor_key, batch.cursor)
        context = msgspec.structs.replace(self._context, origin=batch.origin)
        self._ingested_at = iso_ms(self._clock.now())
        for record in batch.records:
            self._record(record, context, pending, totals)
        self._progress.read[batch.cursor_key] = batch.cursor
        self._waiting.setdefault(batch.cursor_key, deque()).append(pending)
        totals.records += len(batch.records)
        self._counts["records"] += len(batch.records)
        totals.bytes += batch.bytes_read
        totals.objects += batch.settled

    def _record(self, record: RawRecord, context: Context, batch: _Batch, totals: Totals) -> None:
        raw = record.data
        if record.error:
            self._reject(Rejected(record.error), record, context.origin, totals, stage="frame")
            return
        record_type = self._record_type or self._detector.detect(raw)
        if not record_type:
            self._reject(why_unknown(raw), record, context.origin, totals)
            return
        totals.by_type[record_type] += 1
        for outcome in NORMALIZERS[record_type](raw, context):
            if type(outcome) is Normalized:
                self._emit(outcome, record, context.origin)
            elif type(outcome) is Fragment:
                batch.open += 1
                token = _Token(batch, context.origin, record_place(record))
                for joined, tokens in self._joiner.add(outcome, token, self._clock.now()):
                    self._emit_joined(joined, tokens)
            elif type(outcome) is Rejected:
                self._reject(outcome, record, context.origin, totals)

    def _emit(self, outcome: Normalized, record: RawRecord, origin: str) -> None:
        ref = source_ref(origin, record)
        event = self._transform.finish(outcome.event, outcome.content, ref, self._ingested_at)
        self._events.append(event)
        self._size += len(event.body)

    def _emit_joined(self, joined: Joined, tokens: Sequence[object]) -> None:
        place: _Token | None = None
        for token in tokens:
            assert isinstance(token, _Token)
            token.batch.open -= 1
            place = place or token
        if joined.event is None or place is None:
            return
        if joined.unless_seen:
            self._unless[joined.event.event_id] = joined.unless_seen
        self._emit(Normalized(joined.event, joined.content), place.record, place.origin)

    def _reject(
        self, rejected: Rejected, record: RawRecord, origin: str, totals: Totals, stage: Stage = "normalize"
    ) -> None:
        if rejected.code in COUNTED_ONLY:
            totals.skipped[rejected.code] += 1
            self._counts[f"skipped.{rejected.code}"] += 1
            return
        totals.rejected[rejected.code] += 1
        self._counts[f"rejected.{rejected.code}"] += 1
        self._dead.append(
            DeadLetter(
                id=dead_letter_id(self._source.name, origin, record.position, record.index, rejected.code),
                source=self._source.name,
                origin=origin,
                position=record.position,
                end=record.end,
                index=record.index,
                code=rejected.code,
                field=rejected.field,
                record_type=rejected.record_type,
                stage=stage,
                first_seen=self._clock.now(),
            )
        )

    # --- commit

    def _clear(self) -> None:
        self._events: list[EncodedEvent] = []
        self._dead: list[DeadLetter] = []
        self._unless: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._resolved: list[str] = []
        self._size = 0
        self._ingested_at = iso_ms(self._clock.now())
        self._last_commit = self._clock.monotonic()

    def _due(self) -> bool:
        return (
            len(self._events) >= COMMIT_EVENTS
            or self._size >= COMMIT_BYTES
            or self._clock.monotonic() - self._last_commit >= COMMIT_SECONDS
        )

    def _commit(self, totals: Totals) -> None:
        done = self._spool.commit(
            Intake(
                source=self._source.name,
                destinations=self._destinations,
                events=self._events,
                cursors=self._settled_cursors(),
                dead=self._dead,
                unless=self._unless,
                counts=dict(self._counts),
                resolved=self._resolved,
            )
        )
        totals.new += done.new
        totals.duplicates += done.duplicates
        self._clear()
        self._on_commit(totals)

    def _settled_cursors(self) -> dict[str, bytes]:
        """The newest cursor of each key behind which no fragment waits."""
        settled: dict[str, bytes] = {}
        for key, batches in list(self._waiting.items()):
            while batches and batches[0].open == 0:
                settled[key] = batches.popleft().cursor
            if not batches:
                del self._waiting[key]
        return settled


def record_place(record: RawRecord) -> RawRecord:
    """The record without its bytes: the joiner must not keep what it does not need."""
    return RawRecord(b"", record.position, record.index, record.end)


def source_ref(origin: str, record: RawRecord) -> str:
    """A record's durable coordinates as text."""
    return f"{origin}#offset={record.position}&record={record.index}"
