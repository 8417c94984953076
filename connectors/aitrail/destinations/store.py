"""The embedded store as a destination: events become Parquet segments, each event_id once.

``send`` writes one file per UTC day, makes it durable and then registers it in the catalog in one transaction with a
receipt of the ids it holds. A crash before that transaction leaves files that nobody knows (removed at the next open);
a crash after it leaves the receipt, by which the same events answer ``duplicate`` when the outbox sends them again - in
whatever batches. The outbox removes the receipt when it takes note of the delivery.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from aitrail.clock import Clock, SystemClock
from aitrail.ports import DELIVERED, DUPLICATE, Ack, EncodedEvent, Limits, Verdict
from aitrail.store import catalog
from aitrail.store.catalog import Segment
from aitrail.store.database import Database
from aitrail.store.identity import run_of, split_keys
from aitrail.store.segments import SegmentWriter, Unstorable, day_of, repaired

LIMITS = Limits(max_events=12_000, max_batch_bytes=12_000_000, max_event_bytes=64_000_000)
_LOW_SPACE_BYTES = 256_000_000
_SWEEP_SECONDS = 300.0


class OwnsDatabase(Protocol):
    """Anything that holds the store open for writing: the spool."""

    @property
    def database(self) -> Database:
        """The open store."""
        ...


class StoreDestination:
    """Stores events in a directory that ``StoreReader`` reads.

    Args:
        owner: the spool (or database) that holds the store; None opens ``directory`` itself.
        directory: the store, when ``owner`` is None.
        name: the destination's name in the outbox; the outbox clears receipts under it.
        own_identity: judge by the store's own record of every event_id ever stored, instead of by receipts. For use
            without an outbox; the default when ``owner`` is None.
        clock: the clock that names segments.
    """

    limits = LIMITS
    dedupe: Literal["by_id", "none"] = "by_id"

    def __init__(
        self,
        owner: OwnsDatabase | Database | None,
        directory: Path | None = None,
        *,
        name: str = "store",
        own_identity: bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._opened: Database | None = None
        if owner is None:
            if directory is None:
                raise ValueError("StoreDestination needs an open store or a directory")
            owner = self._opened = Database.open(directory, clock or SystemClock())
        self._database = owner if isinstance(owner, Database) else owner.database
        self._own_identity = self._opened is not None if own_identity is None else own_identity
        self._clock = clock or self._database.clock
        self._writer = SegmentWriter(self._database.segments, self._clock)
        self._mutex = threading.Lock()
        self._swept = self._clock.now()
        self._doubtful: list[Segment] = []

    def check(self) -> list[str]:
        """Say what is wrong with the directory: not writable, or nearly full."""
        root = self._database.segments
        try:
            probe = self._writer.staging() / "check"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return [f"{root}: cannot be written ({error.strerror}); check owner, permissions and space."]
        free = shutil.disk_usage(root).free
        if free < _LOW_SPACE_BYTES:
            return [f"{root}: only {free // 1_000_000} MB are free; free some, or shorten the retention."]
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Store ``batch``; a local write, so ``deadline`` is not needed.

        Raises:
            TransientError: the disk is full or failing; nothing was stored.
            StoreError: the store is damaged.
        """
        del deadline
        if not batch:
            return Ack([])
        with self._mutex:
            run = run_of([item.event_id for item in batch])
            keys = split_keys(run)
            verdicts, fresh = self._judge(keys)
            segments = self._write(batch, fresh, verdicts)
            stored = [key for key, verdict in zip(keys, verdicts, strict=True) if verdict.status != "rejected"]
            fresh = [place for place in fresh if verdicts[place].status != "rejected"]
            self._register(segments, run, stored, [keys[place] for place in fresh])
            self._sweep()
            return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back memory, and the store when it was opened here."""
        self._writer.close()
        if self._opened is not None:
            self._opened.close()

    def _judge(self, keys: Sequence[bytes]) -> tuple[list[Verdict], list[int]]:
        """Tell stored events from new ones; gives verdicts as if all new ones will be stored, and their places."""
        with self._database.snapshot() as db:
            if self._own_identity:
                known = self._database.identity("stored").known(db, keys)
            else:
                rows = db.execute("SELECT ids FROM receipt WHERE destination = ?", (self.name,))
                known = {key for (ids,) in rows for key in split_keys(ids)}
        if not known and len(set(keys)) == len(keys):
            return [DELIVERED] * len(keys), list(range(len(keys)))
        verdicts: list[Verdict] = []
        fresh: list[int] = []
        for place, key in enumerate(keys):
            if key in known:
                verdicts.append(DUPLICATE)
                continue
            known.add(key)
            fresh.append(place)
            verdicts.append(DELIVERED)
        return verdicts, fresh

    def _write(self, batch: Sequence[EncodedEvent], fresh: Sequence[int], verdicts: list[Verdict]) -> list[Segment]:
        """Write the new events of the batch, all or none; events that cannot be stored are judged rejected."""
        days: dict[str, list[int]] = {}
        for place in fresh:
            days.setdefault(day_of(batch[place].timestamp), []).append(place)
        segments: list[Segment] = []
        try:
            for day, places in days.items():
                written = self._try(day, [batch[place] for place in places])
                if written is not None:
                    segments.append(written)
                else:
                    good = _repair({place: batch[place] for place in places}, verdicts)
                    self._write_around(segments, day, good, verdicts)
        except BaseException:
            self._writer.discard(segments)
            raise
        return segments

    def _write_around(
        self, segments: list[Segment], day: str, items: dict[int, EncodedEvent], verdicts: list[Verdict]
    ) -> None:
        """Write events among which some may still be refused: halve until those stand alone."""
        places = list(items)
        written = self._try(day, list(items.values())) if places else None
        if written is not None:
            segments.append(written)
        elif len(places) == 1:
            verdicts[places[0]] = Verdict("rejected", code="unstorable")
        elif places:
            middle = len(places) // 2
            for half in (places[:middle], places[middle:]):
                self._write_around(segments, day, {place: items[place] for place in half}, verdicts)

    def _try(self, day: str, items: Sequence[EncodedEvent]) -> Segment | None:
        """Write one file; None when something in it cannot be stored as it is."""
        try:
            return self._writer.write(catalog.EVENTS, day, items) if day else None
        except Unstorable:
            return None

    def _register(
        self, segments: Sequence[Segment], run: bytes, stored: Sequence[bytes], fresh: Sequence[bytes]
    ) -> None:
        """Make the segments part of the store, together with the proof of what they hold."""
        committed: Callable[[], None] | None = None
        # Whether a commit that failed has happened after all is known only once a later one succeeds: until then the
        # files stay.
        self._doubtful.extend(segments)
        with self._database.transaction() as db:
            catalog.add(db, segments, self._clock.now())
            if self._own_identity:
                committed = self._database.identity("stored").remember(db, fresh)
            else:
                mark = hashlib.blake2b(run, digest_size=16).digest()
                db.execute("INSERT OR REPLACE INTO receipt VALUES (?, ?, ?)", (self.name, mark, b"".join(stored)))
            known = {segment.path for segment in catalog.listing(db)} if len(self._doubtful) > len(segments) else set()
        if committed is not None:
            committed()
        if known:
            self._writer.discard([segment for segment in self._doubtful if segment.path not in known])
        self._doubtful.clear()

    def _sweep(self) -> None:
        """Now and then, unlink files that a compaction has replaced a while ago."""
        now = self._clock.now()
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        with self._database.transaction() as db:
            catalog.remove_retired(db, self._database.segments, now - catalog.GRACE_SECONDS)


def _repair(items: dict[int, EncodedEvent], verdicts: list[Verdict]) -> dict[int, EncodedEvent]:
    """Give the events that can be stored, in canonical bytes; the others are judged rejected, with a reason."""
    kept: dict[int, EncodedEvent] = {}
    for place, item in items.items():
        outcome = repaired(item)
        if isinstance(outcome, str):
            verdicts[place] = Verdict("rejected", code=outcome)
        else:
            kept[place] = outcome
    return kept
