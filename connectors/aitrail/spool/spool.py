"""``Spool``: the durable middle of the flow, and the only thing that commits.

One ``commit`` is one transaction: it recognises events it has seen before, stores the new ones for every destination,
advances the source's cursors, notes dead letters and counts. After a crash either all of that is there or none of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from aitrail.clock import Clock, iso_ms
from aitrail.errors import StoreError
from aitrail.ports import Ack, Cursors, EncodedEvent
from aitrail.spool import deadletters, leases, states
from aitrail.spool.journal import Journal
from aitrail.spool.outbox import Backlog, Outbox
from aitrail.spool.records import Cap, Committed, DeadLetter, DeadLetterFilter, Intake, OutboxBatch, Run
from aitrail.store.database import Database
from aitrail.store.identity import key_of, run_of, split_keys

_timestamp = msgspec.json.Decoder(type=dict[str, msgspec.Raw]).decode


class Chooses(Protocol):
    """Says which events destinations get (``aitrail.routing.select.Selector``)."""

    def select(self, events: Sequence[EncodedEvent], destinations: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Give the places that each of ``destinations`` gets, for those that do not get all of them."""
        ...

    def takers(self, stream: str) -> list[str]:
        """Who takes events of a kind."""
        ...


class StoredCursors:
    """The committed cursors of one source, as they are at each call."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self._source = source

    def get(self, key: str) -> bytes | None:
        """Return the committed cursor of ``key``, or None."""
        rows = self._database.rows("SELECT value FROM cursor WHERE source = ? AND key = ?", (self._source, key))
        return bytes(rows[0][0]) if rows else None

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All committed cursors of this source, by key."""
        rows = self._database.rows("SELECT key, value FROM cursor WHERE source = ? ORDER BY key", (self._source,))
        return ((key, bytes(value)) for key, value in rows)


class Spool:
    """An open spool. Thread-safe: a source may commit while destinations settle.

    Attributes:
        database: the open store, shared with ``StoreDestination`` and the maintenance functions.
        chooser: asked at each commit which destinations get which events; None: everybody gets all.
        cap: how much may wait before sources have to pause.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._clock = database.clock
        self.chooser: Chooses | None = None
        self.cap = Cap()
        self._over = ""
        self._journal: Journal | None = None
        self._outbox: Outbox | None = None
        if database.writable:
            with database.transaction() as db:
                self._journal = Journal(database.outbox, db)
                row = db.execute("SELECT value FROM meta WHERE key = 'next_seq'").fetchone()
            self._outbox = Outbox(self._journal)
            self._seen = database.identity("seen")
            self._parts = database.identity("part")
            self._next_seq = int(row[0]) if row else 1

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, write: bool = True) -> "Spool":
        """Open the spool of a store directory.

        Args:
            directory: the store; created when ``write`` and not there.
            clock: stamps rows; decides what is due.
            write: take the writer lock; False only reads, also while a writer runs.

        Raises:
            StoreError: another process writes to it (named, with a hint), it is newer, damaged, or not there.
            TransientError: the disk is full or failing.
        """
        database = Database.open(directory, clock, write=write)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    # --- taking in

    def commit(self, intake: Intake) -> Committed:
        """Make one step of the flow durable, whole or not at all.

        Raises:
            TransientError: the disk is full or failing; nothing was taken in, and the call may be repeated.
            StoreError: the store is damaged or was opened for reading; ``LeaseLostError``: the lease is another's now.
            ValueError: there are events and no destination: they would be lost.
        """
        if intake.events and not intake.destinations:
            raise ValueError(f"source {intake.source}: events without a destination")
        if not (
            intake.events or intake.cursors or intake.dead or intake.counts or intake.resolved or intake.attestations
        ):
            return Committed(0, 0)
        now = self._clock.now()
        outbox, journal = self._writer()
        with self.database.exclusive():
            with self.database.transaction() as db:
                if intake.lease is not None:
                    leases.require(db, intake.lease)
                fresh, superseded = self._new_events(db, intake)
                remembered = self._seen.remember(db, fresh.keys())
                parts = {*map(key_of, intake.parts)}
                parts_remembered = self._parts.remember(db, parts - self._parts.known(db, parts))
                first_seq, place = 0, None
                counts = Counter(intake.counts)
                if fresh:
                    events = list(fresh.values())
                    first_seq = self._next_seq
                    chosen = self.chooser.select(events, intake.destinations) if self.chooser else {}
                    counts.update({filtered(name): len(events) - len(places) for name, places in chosen.items()})
                    place = outbox.put(
                        db, intake.source, intake.destinations, events, first_seq=first_seq, now=now, chosen=chosen
                    )
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('next_seq', ?)", (first_seq + len(events),))
                for name, count in (("events", len(fresh)), ("duplicates", len(intake.events) - len(fresh))):
                    if count:
                        counts[name] += count
                opened = _note(db, intake, counts, now)
            remembered()
            parts_remembered()
            if place is not None:
                journal.keep(place)
            self._next_seq += len(fresh)
        return Committed(len(fresh), len(intake.events) - len(fresh), first_seq, superseded, opened)

    def known_parts(self, ids: Sequence[str]) -> set[str]:
        """Give those of ``ids`` that went into an event that is durable."""
        keys = {key_of(one): one for one in ids}
        with self.database.exclusive(), self.database.transaction() as db:
            return {keys[key] for key in self._parts.known(db, keys)}

    def _new_events(self, db: Any, intake: Intake) -> tuple[dict[bytes, EncodedEvent], int]:
        """Give the events to take, by key and in their order, and how many were dropped for their counterpart."""
        keys = split_keys(run_of([event.event_id for event in intake.events]))
        others = {one: key_of(other) for one, other in intake.unless.items()} if intake.unless else {}
        known = self._seen.known(db, {*keys, *others.values()} if others else keys)
        fresh: dict[bytes, EncodedEvent] = {}
        for key, event in zip(keys, intake.events, strict=True):
            fresh.setdefault(key, event)
        for key in known.intersection(fresh):
            del fresh[key]
        # An event steps back only for one that is taken itself; of two that name each other, the first stays.
        superseded = 0
        for one, other in others.items():
            key = key_of(one)
            if key != other and key in fresh and (other in known or other in fresh):
                del fresh[key]
                superseded += 1
        return fresh, superseded

    # --- giving out

    def pending(
        self,
        destination: str,
        max_events: int,
        max_bytes: int,
        under_way: Mapping[int, AbstractSet[int]] | None = None,
    ) -> OutboxBatch | None:
        """Give the oldest events that ``destination`` may get now, merged up to the limits; None when there are none.

        A single event above ``max_bytes`` comes alone. Calling again without ``settle`` gives the same events, except
        those that ``under_way`` names: places by stored batch, as ``OutboxBatch.key`` has them.
        """
        outbox, _ = self._writer()
        with self.database.snapshot() as db:
            return outbox.pending(db, destination, max_events, max_bytes, self._clock.now(), under_way)

    def awaiting(self, destination: str, max_events: int = 1000) -> OutboxBatch | None:
        """Give events judged ``pending``, with their tokens, to be confirmed and then settled; None without any."""
        outbox, _ = self._writer()
        with self.database.snapshot() as db:
            return outbox.awaiting(db, destination, max_events, self._clock.now())

    def settle(self, batch: OutboxBatch, ack: Ack, now: float) -> None:
        """Apply one verdict per event, in one transaction.

        Delivered, duplicate and rejected events leave the outbox, rejected ones as dead letters; ``retry`` keeps the
        event until the peer's time (or a growing pause), ``pending`` keeps it with its token. Repeating is harmless.
        """
        outbox, _ = self._writer()
        with self.database.exclusive():
            with self.database.transaction() as db:
                released = outbox.settle(db, batch, ack, now)
            outbox.freed(released)

    def backlog(self, destination: str) -> Backlog:
        """What ``destination`` still has to get: ``(events, bytes, oldest_seconds)``."""
        row = self.database.rows(
            "SELECT coalesce(sum(o.events), 0), coalesce(sum(o.bytes), 0), min(b.created) "
            "FROM outbox o JOIN batch b ON b.id = o.batch WHERE o.destination = ?",
            (destination,),
        )[0]
        now = self._clock.now()
        return Backlog(row[0], row[1], max(0.0, now - row[2]) if row[2] is not None else 0.0)

    @property
    def outbox_bytes(self) -> int:
        """What the outbox's files take on disk."""
        return self._writer()[1].disk_bytes

    def over_cap(self) -> str:
        """Say why sources have to pause; empty when they may go on.

        Once a limit is reached it stays so until the outbox is clearly below it (``Cap.resume``), so that sources do
        not start and stop at each batch. Nothing is dropped either way.
        """
        _, journal = self._writer()
        share = self.cap.resume if self._over else 1.0
        reasons = []
        if self.cap.bytes and journal.disk_bytes >= self.cap.bytes * share:
            reasons.append(f"{journal.disk_bytes:,} bytes wait, {self.cap.bytes:,} may")
        if self.cap.seconds:
            row = self.database.rows("SELECT min(created) FROM batch")[0]
            age = self._clock.now() - row[0] if row[0] is not None else 0.0
            if age >= self.cap.seconds * share:
                reasons.append(f"the oldest event waits for {age / 3600:.1f} h, {self.cap.seconds / 3600:.1f} h may be")
        self._over = "; ".join(reasons)
        return self._over

    def requeue(self, ids: Sequence[str]) -> int:
        """Put events of dead letters of stage ``deliver`` back for the destination that refused them, and settle those.

        Returns:
            How many events were put back; letters without their event are left as they are.
        """
        now = self._clock.now()
        outbox, journal = self._writer()
        moved = 0
        for one in ids:
            letter = self.deadletter(one)
            if letter is None or letter.resolved is not None or letter.stage != "deliver" or letter.raw is None:
                continue
            event = EncodedEvent(letter.event_id, _time_of(letter.raw, letter.first_seen), letter.raw)
            with self.database.exclusive():
                with self.database.transaction() as db:
                    place = outbox.put(db, letter.source, (letter.destination,), [event], first_seq=0, now=now)
                    deadletters.resolve(db, [one], now)
                if place is not None:
                    journal.keep(place)
            moved += 1
        return moved

    # --- looking

    def cursors(self, source: str) -> Cursors:
        """Give the committed cursors of ``source``."""
        return StoredCursors(self.database, source)

    def deadletters(self, filter: DeadLetterFilter | None = None) -> list[DeadLetter]:  # noqa: A002 - the plain word
        """Give dead letters, oldest first; without a filter the open ones."""
        rows = self.database.rows(*deadletters.select(filter or DeadLetterFilter()))
        return [deadletters.letter(row) for row in rows]

    def deadletter(self, one: str) -> DeadLetter | None:
        """Give one dead letter by its id; None when there is none."""
        rows = self.database.rows(*deadletters.by_id(one))
        return deadletters.letter(rows[0]) if rows else None

    def resolve(self, ids: Sequence[str]) -> int:
        """Settle dead letters by hand; gives how many were open."""
        with self.database.transaction() as db:
            return deadletters.resolve(db, ids, self._clock.now())

    def counters(self) -> dict[str, dict[str, int]]:
        """Give all counters: source -> name -> value."""
        found: dict[str, dict[str, int]] = {}
        for source, name, value in self.database.rows("SELECT source, name, value FROM counter ORDER BY 1, 2"):
            found.setdefault(source, {})[name] = value
        return found

    # --- runs

    def begin_run(self, command: str) -> int:
        """Note that a run starts; gives its id."""
        with self.database.transaction() as db:
            return int(
                db.execute("INSERT INTO run (command, started) VALUES (?, ?)", (command, self._clock.now())).lastrowid
                or 0
            )

    def end_run(self, run: int, totals: dict[str, int]) -> None:
        """Note that a run ended, and what it added up to."""
        text = msgspec.json.encode(totals).decode()
        with self.database.transaction() as db:
            db.execute("UPDATE run SET ended = ?, totals = ? WHERE id = ?", (self._clock.now(), text, run))

    def runs(self, limit: int = 100) -> list[Run]:
        """Give the latest runs, newest first."""
        rows = self.database.rows(
            "SELECT id, command, started, ended, totals FROM run ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [
            Run(run, command, started, ended, msgspec.json.decode(totals, type=dict[str, int]))
            for run, command, started, ended, totals in rows
        ]

    # --- the end

    def close(self) -> None:
        """Close the store and release the writer lock; may be called twice."""
        if self._journal is not None:
            self._journal.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _writer(self) -> tuple[Outbox, Journal]:
        if self._outbox is None or self._journal is None:
            raise StoreError(f"{self.database.directory}: the store was opened for reading", hint="open it to write")
        return self._outbox, self._journal


def filtered(destination: str) -> str:
    """Name the counter of events that a destination does not want (kept per source, as all counters)."""
    return f"filtered.{destination}"


def _note(db: Any, intake: Intake, counts: Mapping[str, int], now: float) -> int:
    """Write cursors, counters and dead letters; give how many dead letters became open."""
    db.executemany(
        "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)",
        [(intake.namespace or intake.source, key, value, now) for key, value in intake.cursors.items()],
    )
    states.attest(db, intake.source, intake.attestations, now)
    if intake.state is not None:
        states.write(db, [(intake.source, intake.state)], now)
    db.executemany(
        "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (source, name) DO UPDATE SET value = value + excluded.value",
        [(intake.source, name, value) for name, value in counts.items()],
    )
    deadletters.resolve(db, intake.resolved, now)
    return deadletters.add(db, intake.dead)


def _time_of(body: bytes, otherwise: float) -> str:
    """Read the timestamp of an encoded event; one that cannot be read has the time ``otherwise``."""
    try:
        return str(msgspec.json.decode(_timestamp(body)["timestamp"]))
    except (msgspec.MsgspecError, RecursionError, KeyError, ValueError):
        return iso_ms(otherwise)
