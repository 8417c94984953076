"""The flow: records in, events out, and the only place that commits.

One ``Pipeline`` reads one source: detect, normalize, join, transform. What comes out is committed together with the
source's cursor in one transaction of the outbox; nothing is committed when anything unexpected is raised. Fragments
that wait for their siblings hold their cursor, and the receipt of their batch, back: after a crash they are read
again, and what was already taken in is recognised by its event_id.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec import Struct

from aitrail.clock import Clock, iso_ms
from aitrail.errors import AuthError, TransientError
from aitrail.normalize.detect import Detector
from aitrail.normalize.join import Joined, Joiner, part_id
from aitrail.normalize.outcome import Context, Fragment, Normalized, Rejected
from aitrail.normalize.registry import NORMALIZERS
from aitrail.normalize.undetected import why_unknown
from aitrail.ports import Acknowledging, Budget, Cursors, EncodedEvent, Lease, RawBatch, RawRecord, Source
from aitrail.spool.records import Committed, DeadLetter, Intake, Stage, dead_letter_id
from aitrail.spool.states import SourceState
from aitrail.transform import TOGETHER, Transform, Unfinished

# Records that are well-formed but no access to an AI system: counted by reason, not kept as dead letters.
COUNTED_ONLY = frozenset({"not_ai_related", "type_unsupported", "duplicate_part"})
# One commit per about this many events, bytes or seconds: a commit costs a disk flush, and a crash repeats at most
# this much work.
COMMIT_EVENTS = 2_000
COMMIT_BYTES = 4 << 20
COMMIT_SECONDS = 1.0
# Clocks differ by seconds; an event further ahead than this has a wrong time. It is kept and flagged ``time_ahead``,
# and does not count as the newest.
AHEAD_SECONDS = 300.0


class Keeper(Protocol):
    """What a pipeline commits to: the spool, or what stands for it where there is none (``runtime.scheduled``)."""

    def cursors(self, source: str) -> Cursors:
        """The committed cursors of ``source``."""
        ...

    def known_parts(self, ids: Sequence[str]) -> AbstractSet[str]:
        """Those of ``ids`` that went into an event that is durable."""
        ...

    def commit(self, intake: Intake) -> Committed:
        """Make one step of the flow durable, whole or not at all."""
        ...


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
    receipt: str = ""
    since: float = 0.0
    number: int = 0
    open: int = 0


class _Token(Struct, frozen=True, gc=False):
    """What the joiner holds for a fragment: its batch, its place and its identity (``join.part_id``)."""

    batch: _Batch
    origin: str
    record: RawRecord
    part: str


class Progress:
    """The committed cursors of a source under what this process has read since. Thread-safe.

    Another thread than the committing one may fetch: it calls ``advance`` for each batch it hands over.
    """

    def __init__(self, committed: Cursors) -> None:
        self._committed = committed
        self._read: dict[str, bytes] = {}
        self._mutex = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Where reading of ``key`` goes on."""
        return self._read.get(key) or self._committed.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All cursors, as they are now."""
        with self._mutex:
            read = dict(self._read)
        for key, cursor in self._committed.items():
            if key not in read:
                yield key, cursor
        yield from read.items()

    def advance(self, batch: RawBatch) -> None:
        """Take note that ``batch`` was read."""
        if batch.cursor_key:
            with self._mutex:
                self._read[batch.cursor_key] = batch.cursor

    def committed(self, cursors: dict[str, bytes]) -> None:
        """Forget what the store knows now."""
        with self._mutex:
            for key, cursor in cursors.items():
                if self._read.get(key) == cursor:
                    del self._read[key]


class Pipeline:
    """Reads one source into the outbox.

    Args:
        source: what to read.
        spool: what everything is committed to: the outbox, open for writing.
        transform: enrich, classify, content mode, encode.
        context: what the normalizers may know; ``origin`` is set per object.
        destinations: names of the destinations that get every event.
        record_type: treat every record as this type, unless its batch says which; empty: detect it per record.
        on_commit: called with the totals after each commit (progress).
        on_reject: called with origin and reason of each record that becomes a dead letter.
        namespace: whose cursors to use, when not the source's own (a back-fill).
        state: kept up to date and written with each commit.

    Attributes:
        cursors: where reading goes on.
        lease: commit only while this is the newest lease of its name.
    """

    def __init__(
        self,
        source: Source,
        *,
        spool: Keeper,
        transform: Transform,
        context: Context,
        destinations: Sequence[str],
        clock: Clock,
        record_type: str = "",
        joiner: Joiner | None = None,
        on_commit: Callable[[Totals], None] = lambda totals: None,
        on_reject: Callable[[str, Rejected], None] = lambda origin, rejected: None,
        namespace: str = "",
        state: SourceState | None = None,
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
        self._on_reject = on_reject
        self._namespace = namespace
        self._state = state
        self._newest = iso_ms(state.newest_event) if state is not None else ""
        self.cursors = Progress(spool.cursors(namespace or source.name))
        self.lease: Lease | None = None
        self._waiting: dict[str, deque[_Batch]] = {}
        self._barriers: deque[_Batch] = deque()
        self._taken = 0
        self._settled: dict[str, bytes] = {}
        self._receipts: list[str] = []
        self._gaps = int(getattr(source, "gaps", 0))
        self._fragments: list[tuple[Fragment, _Token]] = []
        self._unfinished: list[Unfinished] = []
        self._detector = Detector()
        self._clear()

    @property
    def taken(self) -> int:
        """The number of the batch that was taken last, from 1 (``Intake.batches``)."""
        return self._taken

    def open_batches(self) -> set[int]:
        """Numbers of the batches of which a part still waits for its siblings."""
        return {one.number for batches in (*self._waiting.values(), self._barriers) for one in batches if one.open}

    def run(
        self, budget: Budget | None = None, *, flush_older_than: float | None = None, totals: Totals | None = None
    ) -> Totals:
        """Read what is new and commit it.

        Args:
            budget: how much to read at most.
            flush_older_than: emit joined events whose newest part came more than this many seconds ago; None emits
                all that wait, for a run that ends.
            totals: counted on; a new one without it.
        """
        totals = totals if totals is not None else Totals()
        self._last_commit = self._clock.monotonic()
        try:
            for batch in self._source.fetch(self.cursors, budget or Budget()):
                self.cursors.advance(batch)
                self.take(batch, totals)
                if self.due():
                    self._acknowledge(self.commit(totals))
        except (AuthError, TransientError):
            # The batches before are whole: without this, an object that cannot be read would hold up all others.
            self._acknowledge(self.commit(totals))
            raise
        self._acknowledge(self.finish(totals, flush_older_than))
        return totals

    def finish(self, totals: Totals, flush_older_than: float | None = None) -> list[str]:
        """End a turn: emit joined events that have waited long enough, and commit; gives what ``commit`` gives."""
        older = None if flush_older_than is None else self._clock.now() - flush_older_than
        for joined, tokens in self._joiner.flush(older):
            self._emit_joined(joined, tokens)
        return self.commit(totals)

    def replay(self, letters: Sequence[DeadLetter]) -> Totals:
        """Read the records of ``letters`` again from their places; what becomes an event settles its letter."""
        totals = Totals()
        for letter in letters:
            raw = letter.raw or self._source.reread(letter.origin, letter.position, letter.end, letter.index)
            if raw is None:
                totals.rejected["source_gone"] += 1
                continue
            before = len(self._dead)
            record = RawRecord(raw, letter.position, letter.index, letter.end)
            context = msgspec.structs.replace(self._context, origin=letter.origin)
            self._record(record, context, _Batch("", b""), totals, self._record_type)
            if len(self._dead) == before:
                self._resolved.append(letter.id)
        self._join(totals)
        self.finish(totals)
        return totals

    # --- one batch

    def take(self, batch: RawBatch, totals: Totals) -> None:
        """Turn the records of ``batch`` into events; they are durable with the next ``commit``."""
        now = self._clock.now()
        self._taken += 1
        pending = _Batch(batch.cursor_key, batch.cursor, batch.receipt, now, self._taken)
        context = msgspec.structs.replace(self._context, origin=batch.origin)
        self._ingested_at = iso_ms(now)
        self._horizon = iso_ms(now + AHEAD_SECONDS)
        record_type = batch.record_type or self._record_type
        for record in batch.records:
            self._record(record, context, pending, totals, record_type)
        self._join(totals)
        self._finish_events()
        # A batch without a cursor has only its own fragments to wait for; a cursor must wait for all before it.
        place = batch.cursor_key or f"\0{id(pending)}"
        (self._barriers if batch.barrier else self._waiting.setdefault(place, deque())).append(pending)
        if batch.attestation:
            self._attested[batch.origin] = batch.attestation
            self._counts[f"attested.{batch.attestation}"] += 1
        if self._state is not None:
            self._state.newest_object = max(self._state.newest_object, min(batch.newest, now + AHEAD_SECONDS))
            self._state.oldest_open = self._state.oldest_open or now
        totals.records += len(batch.records)
        self._counts["records"] += len(batch.records)
        totals.bytes += batch.bytes_read
        totals.objects += batch.settled

    def _record(self, record: RawRecord, context: Context, batch: _Batch, totals: Totals, record_type: str) -> None:
        raw = record.data
        if record.error:
            self._reject(Rejected(record.error, record.detail), record, context.origin, totals, stage="frame")
            return
        record_type = record_type or self._detector.detect(raw)
        if not record_type:
            self._reject(why_unknown(raw), record, context.origin, totals)
            return
        totals.by_type[record_type] += 1
        for outcome in NORMALIZERS[record_type](raw, context):
            if type(outcome) is Normalized:
                self._emit(outcome, record, context.origin, batch.number)
            elif type(outcome) is Fragment:
                self._fragments.append(
                    (outcome, _Token(batch, context.origin, record_place(record), part_id(outcome, raw)))
                )
            elif type(outcome) is Rejected:
                self._reject(outcome, record, context.origin, totals)

    def _join(self, totals: Totals) -> None:
        """Hand the fragments that were taken to the joiner, without those whose event is durable already.

        They come again after a crash, because the place of their object was held back by other fragments; their
        siblings may not, since theirs was not. Alone they would become a second event about the same access.
        """
        fragments, self._fragments = self._fragments, []
        ids = [token.part for _, token in fragments if token.part]
        known = self._spool.known_parts(ids) if ids else frozenset()
        now = self._clock.now()
        for fragment, token in fragments:
            if token.part in known:
                totals.skipped["duplicate_part"] += 1
                self._counts["skipped.duplicate_part"] += 1
                continue
            token.batch.open += 1
            for joined, tokens in self._joiner.add(fragment, token, now):
                self._emit_joined(joined, tokens)

    def _emit(self, outcome: Normalized, record: RawRecord, origin: str, number: int) -> None:
        event = outcome.event
        if event.timestamp > self._newest:
            if event.timestamp > self._horizon:
                event.flags = (*event.flags, "time_ahead")
                self._counts["time_ahead"] += 1
            else:
                self._newest = event.timestamp
        self._unfinished.append(Unfinished(event, outcome.content, source_ref(origin, record), number))
        if len(self._unfinished) >= TOGETHER:
            self._finish_events()

    def _finish_events(self) -> None:
        """Judge, treat and encode the events that the normalizers gave since the last call."""
        unfinished, self._unfinished = self._unfinished, []
        if not unfinished:
            return
        encoded = self._transform.finish_all(unfinished, self._ingested_at)
        self._events += encoded
        self._numbers += [item.number for item in unfinished]
        self._size += sum([len(event.body) for event in encoded])

    def _emit_joined(self, joined: Joined, tokens: Sequence[object]) -> None:
        place: _Token | None = None
        for token in tokens:
            assert isinstance(token, _Token)
            token.batch.open -= 1
            place = place or token
        if joined.event is None or place is None:
            return
        self._parts += [token.part for token in tokens if isinstance(token, _Token) and token.part]
        self._counts["identity_missing"] += "identity_missing" in joined.event.flags
        if joined.unless_seen:
            self._unless[joined.event.event_id] = joined.unless_seen
        self._emit(Normalized(joined.event, joined.content), place.record, place.origin, place.batch.number)

    def _reject(
        self, rejected: Rejected, record: RawRecord, origin: str, totals: Totals, stage: Stage = "normalize"
    ) -> None:
        if rejected.code in COUNTED_ONLY:
            totals.skipped[rejected.code] += 1
            self._counts[f"skipped.{rejected.code}"] += 1
            return
        self._on_reject(origin, rejected)
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

    def count(self, name: str, number: int) -> None:
        """Add to a counter of the source; durable with the next commit."""
        self._counts[name] += number

    def due(self) -> bool:
        """Whether it is time to commit."""
        return (
            len(self._events) >= COMMIT_EVENTS
            or self._size >= COMMIT_BYTES
            or self._clock.monotonic() - self._last_commit >= COMMIT_SECONDS
        )

    def commit(self, totals: Totals) -> list[str]:
        """Make everything that was taken durable.

        Returns:
            The receipts of the batches that are durable as a whole now: the source may be told.

        Raises:
            TransientError: the disk is full or failing; all is kept, and the call may be repeated.
        """
        self._finish_events()
        self._settle()
        self._counts["gaps"] += self._new_gaps()
        done = self._spool.commit(
            Intake(
                source=self._source.name,
                destinations=self._destinations,
                events=self._events,
                cursors=self._settled,
                dead=self._dead,
                unless=self._unless,
                parts=self._parts,
                counts={name: count for name, count in self._counts.items() if count},
                resolved=self._resolved,
                namespace=self._namespace,
                lease=self.lease,
                attestations=self._attested,
                state=self._state,
                batches=self._numbers,
            )
        )
        totals.new += done.new
        totals.duplicates += done.duplicates
        self.cursors.committed(self._settled)
        receipts, self._settled, self._receipts = self._receipts, {}, []
        self._clear()
        self._on_commit(totals)
        return receipts

    def _acknowledge(self, receipts: Sequence[str]) -> None:
        if receipts and isinstance(self._source, Acknowledging):
            try:
                self._source.acknowledge(receipts)
            except (TransientError, AuthError):
                self._counts["unacknowledged"] += len(receipts)  # they come again; their events are known then
            else:
                self._counts["acknowledged"] += len(receipts)

    def _clear(self) -> None:
        self._events: list[EncodedEvent] = []
        self._numbers: list[int] = []
        self._dead: list[DeadLetter] = []
        self._unless: dict[str, str] = {}
        self._parts: list[str] = []
        self._counts: Counter[str] = Counter()
        self._resolved: list[str] = []
        self._attested: dict[str, str] = {}
        self._size = 0
        now = self._clock.now()
        self._ingested_at = iso_ms(now)
        self._horizon = iso_ms(now + AHEAD_SECONDS)
        self._last_commit = self._clock.monotonic()

    def _settle(self) -> None:
        """Find the newest cursor of each key, and the receipts, behind which no fragment waits."""
        oldest = 0.0
        for place, batches in list(self._waiting.items()):
            while batches and batches[0].open == 0:
                batch = batches.popleft()
                if batch.key:
                    self._settled[batch.key] = batch.cursor
                if batch.receipt:
                    self._receipts.append(batch.receipt)
            if not batches:
                del self._waiting[place]
            elif not oldest or batches[0].since < oldest:
                oldest = batches[0].since
        first = min((batches[0].number for batches in self._waiting.values()), default=self._taken + 1)
        while self._barriers and self._barriers[0].number < first:
            barrier = self._barriers.popleft()
            self._settled[barrier.key] = barrier.cursor
        if self._state is not None:
            self._state.oldest_open = oldest
            if self._newest:
                self._state.newest_event = datetime.fromisoformat(self._newest).timestamp()

    def _new_gaps(self) -> int:
        """How many gaps the source has found since the last commit."""
        before, self._gaps = self._gaps, int(getattr(self._source, "gaps", 0))
        return max(0, self._gaps - before)


def record_place(record: RawRecord) -> RawRecord:
    """The record without its bytes: the joiner must not keep what it does not need."""
    return RawRecord(b"", record.position, record.index, record.end)


def source_ref(origin: str, record: RawRecord) -> str:
    """A record's durable coordinates as text."""
    return f"{origin}#offset={record.position}&record={record.index}"
