"""The outbox: which events each destination still has to get.

One ``batch`` row per stored batch, one ``outbox`` row per destination that has not settled all of it. A row keeps the
places (indexes into the batch) that are still to be sent (``open``; NULL means all) and those whose delivery is to be
confirmed (``waiting``: place -> token).
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from aitrail.ports import DELIVERED, DUPLICATE, Ack, EncodedEvent, Verdict
from aitrail.spool import deadletters
from aitrail.spool.journal import Journal, Place
from aitrail.spool.records import OutboxBatch, Part
from aitrail.store.identity import run_of, split_keys

_SCAN_BATCHES = 1_024
_KEEP_DECODED = 2
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0

_pack = msgspec.msgpack.Encoder().encode
_places = msgspec.msgpack.Decoder(list[int]).decode
_tokens = msgspec.msgpack.Decoder(dict[int, str]).decode

_BATCH = "b.id, b.source, b.events, b.bytes, b.file, b.offset, b.length, b.codec, b.crc"


class Backlog(NamedTuple):
    """What a destination still has to get: events, bytes of their bodies, age of the oldest in seconds."""

    events: int
    bytes: int
    oldest_seconds: float


class Released(msgspec.Struct):
    """What a settlement frees once it is committed: bytes of stored batches, and files without any batch left."""

    bytes: int = 0
    files: list[int] = msgspec.field(default_factory=list)


class Outbox:
    """The outbox tables and the journal behind them; every method runs inside the caller's transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._decoded: dict[int, list[EncodedEvent]] = {}

    def put(
        self,
        connection: sqlite3.Connection,
        source: str,
        destinations: Sequence[str],
        events: Sequence[EncodedEvent],
        *,
        first_seq: int,
        now: float,
        chosen: Mapping[str, Sequence[int]] | None = None,
    ) -> Place | None:
        """Store a batch for ``destinations``; the caller tells the journal to keep the place after the commit.

        ``chosen`` has the places of the events that a destination gets, for those that do not get all of them. None
        when nobody gets any: then nothing is stored.
        """
        size = sum([len(event.body) for event in events])
        rows = _outbox_rows(events, dict.fromkeys(destinations), chosen or {}, size)
        if not rows:
            return None
        place = self._journal.append(events)
        batch = connection.execute(
            "INSERT INTO batch (source, first_seq, events, bytes, file, offset, length, codec, crc, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (source, first_seq, len(events), size, *msgspec.structs.astuple(place), now),
        ).lastrowid
        connection.executemany(
            "INSERT INTO outbox (destination, batch, events, bytes, open) VALUES (?, ?, ?, ?, ?)",
            [(destination, batch, count, total, places) for destination, count, total, places in rows],
        )
        return place

    def pending(
        self,
        connection: sqlite3.Connection,
        destination: str,
        max_events: int,
        max_bytes: int,
        now: float,
        under_way: Mapping[int, AbstractSet[int]] | None = None,
    ) -> OutboxBatch | None:
        """Give the oldest events that may be sent now, up to the limits, at least one; None when there are none.

        ``under_way`` has the places of events (by stored batch) that are left out, because they are being sent.
        """
        under_way = under_way or {}
        rows = connection.execute(
            f"SELECT {_BATCH}, o.open FROM outbox o JOIN batch b ON b.id = o.batch WHERE o.destination = ? "
            "AND o.not_before <= ? AND (o.open IS NULL OR length(o.open) > 0) ORDER BY o.batch LIMIT ?",
            (destination, now, _SCAN_BATCHES),
        ).fetchall()
        parts: list[Part] = []
        events: list[EncodedEvent] = []
        room = max_bytes
        for batch, source, count, total, *place_row, open_places in rows:
            if parts and (len(events) >= max_events or room <= 0):
                break
            busy = under_way.get(batch, frozenset())
            if len(busy) == count:
                continue
            stored = self._read(batch, Place(*place_row))
            if open_places is None and not busy and total <= room and len(events) + count <= max_events:
                events += stored
                room -= total
                parts.append(Part(batch, count, source, None))
                continue
            places: Sequence[int] = range(count) if open_places is None else _places(open_places)
            if busy:
                places = [place for place in places if place not in busy]
                if not places:
                    continue
            taken = []
            for place in places:
                size = len(stored[place].body)
                if events and (len(events) >= max_events or size > room):
                    room = 0
                    break
                events.append(stored[place])
                taken.append(place)
                room -= size
            if not taken:
                break
            parts.append(Part(batch, count, source, None if len(taken) == count else tuple(taken)))
            if len(taken) < len(places):
                self._keep_decoded(batch, stored)
                break
        return OutboxBatch(tuple(parts), destination, events) if parts else None

    def awaiting(
        self, connection: sqlite3.Connection, destination: str, max_events: int, now: float
    ) -> OutboxBatch | None:
        """Give the oldest events whose delivery is to be confirmed, with their tokens; None when there are none."""
        rows = connection.execute(
            f"SELECT {_BATCH}, o.waiting FROM outbox o JOIN batch b ON b.id = o.batch WHERE o.destination = ? "
            "AND o.waiting IS NOT NULL AND o.not_before <= ? ORDER BY o.batch LIMIT ?",
            (destination, now, _SCAN_BATCHES),
        )
        parts: list[Part] = []
        events: list[EncodedEvent] = []
        tokens: list[str] = []
        for batch, source, count, _, *place_row, waiting in rows.fetchall():
            room = max_events - len(events)
            if room <= 0:
                break
            chosen = sorted(_tokens(waiting).items())[:room]
            stored = self._read(batch, Place(*place_row))
            events += [stored[place] for place, _ in chosen]
            tokens += [token for _, token in chosen]
            parts.append(Part(batch, count, source, tuple(place for place, _ in chosen)))
        return OutboxBatch(tuple(parts), destination, events, tokens) if parts else None

    def settle(self, connection: sqlite3.Connection, batch: OutboxBatch, ack: Ack, now: float) -> Released:
        """Apply one verdict per event; what is not outstanding is left alone, so settling twice is harmless."""
        if len(ack.verdicts) != len(batch.events):
            raise ValueError(
                f"destination {batch.destination}: {len(ack.verdicts)} verdicts for {len(batch.events)} events"
            )
        released = Released()
        start = 0
        for part in batch.key:
            places = range(part.count) if part.places is None else part.places
            end = start + len(places)
            verdicts = ack.verdicts[start:end]
            if part.places is None and verdicts.count(DELIVERED) + verdicts.count(DUPLICATE) == part.count:
                through = _remove_untouched(connection, batch.destination, part)
            else:
                through = False
            if not through:
                judged = list(zip(places, batch.events[start:end], verdicts, strict=True))
                through = self._settle_part(connection, batch.destination, part, judged, now)
            if through:
                self._release(connection, part.batch, released)
            start = end
        _clear_receipts(connection, batch)
        return released

    def _settle_part(
        self,
        connection: sqlite3.Connection,
        destination: str,
        part: Part,
        judged: Sequence[tuple[int, EncodedEvent, Verdict]],
        now: float,
    ) -> bool:
        """Settle events of one stored batch; True when the destination is through with it."""
        row = connection.execute(
            "SELECT open, waiting, bytes, attempts, not_before FROM outbox WHERE destination = ? AND batch = ?",
            (destination, part.batch),
        ).fetchone()
        if row is None:
            return False
        outstanding = dict.fromkeys(range(part.count) if row[0] is None else _places(row[0]) if row[0] else ())
        waiting = _tokens(row[1]) if row[1] else {}
        size, attempts, not_before = int(row[2]), int(row[3]), float(row[4])
        retry_at = 0.0
        for place, event, verdict in judged:
            if place not in outstanding and place not in waiting:
                continue
            outstanding.pop(place, None)
            waiting.pop(place, None)
            if verdict.status == "retry":
                outstanding[place] = None
                retry_at = max(retry_at, now + _retry_seconds(verdict, attempts))
            elif verdict.status == "pending":
                waiting[place] = verdict.token
            else:
                size -= len(event.body)
                if verdict.status == "rejected":
                    deadletters.add(
                        connection,
                        [deadletters.refused(event, part.source, destination, verdict.code or "rejected", now)],
                    )
        if not outstanding and not waiting:
            connection.execute("DELETE FROM outbox WHERE destination = ? AND batch = ?", (destination, part.batch))
            return True
        connection.execute(
            "UPDATE outbox SET open = ?, waiting = ?, events = ?, bytes = ?, attempts = ?, not_before = ? "
            "WHERE destination = ? AND batch = ?",
            (
                _pack(sorted(outstanding)) if outstanding else b"",
                _pack(waiting) if waiting else None,
                len(outstanding) + len(waiting),
                size,
                attempts + 1 if retry_at else attempts,
                max(not_before, retry_at),
                destination,
                part.batch,
            ),
        )
        return False

    def _release(self, connection: sqlite3.Connection, batch: int, released: Released) -> None:
        """Remove a stored batch that no destination needs any more."""
        row = connection.execute(
            "DELETE FROM batch WHERE id = ? AND NOT EXISTS (SELECT 1 FROM outbox WHERE batch = ?) "
            "RETURNING file, length",
            (batch, batch),
        ).fetchone()
        if row is None:
            return
        file, length = row
        self._decoded.pop(batch, None)
        released.bytes += int(length)
        if connection.execute("SELECT 1 FROM batch WHERE file = ? LIMIT 1", (file,)).fetchone() is None:
            released.files.append(int(file))

    def freed(self, released: Released) -> None:
        """Give back what a committed settlement has freed; nothing else may run in between."""
        self._journal.released(released.bytes)
        for file in released.files:
            self._journal.drop(file)

    def _read(self, batch: int, place: Place) -> list[EncodedEvent]:
        return self._decoded.get(batch) or self._journal.read(place)

    def _keep_decoded(self, batch: int, events: list[EncodedEvent]) -> None:
        """Keep a batch of which only a part fitted: the next call wants the rest."""
        self._decoded[batch] = events
        while len(self._decoded) > _KEEP_DECODED:
            del self._decoded[next(iter(self._decoded))]


def _outbox_rows(
    events: Sequence[EncodedEvent], destinations: Iterable[str], chosen: Mapping[str, Sequence[int]], size: int
) -> list[tuple[str, int, int, bytes | None]]:
    """Give destination, events, bytes and places (None: all) of everybody who gets something of a batch."""
    rows: list[tuple[str, int, int, bytes | None]] = []
    for destination in destinations:
        places = chosen.get(destination)
        if places is None:
            rows.append((destination, len(events), size, None))
        elif places:
            rows.append((destination, len(places), sum([len(events[one].body) for one in places]), _pack(list(places))))
    return rows


def _remove_untouched(connection: sqlite3.Connection, destination: str, part: Part) -> bool:
    """Remove the row of a batch of which nothing was settled before, all at once; False when it is not so."""
    return (
        connection.execute(
            "DELETE FROM outbox WHERE destination = ? AND batch = ? AND open IS NULL AND waiting IS NULL",
            (destination, part.batch),
        ).rowcount
        == 1
    )


def _retry_seconds(verdict: Verdict, attempts: int) -> float:
    """How long to wait: as the peer said, else twice as long each time."""
    if verdict.retry_after is not None:
        return max(0.0, verdict.retry_after)
    return float(min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(attempts, 10)))


def _clear_receipts(connection: sqlite3.Connection, batch: OutboxBatch) -> None:
    """Remove the destination's receipts of events that are settled now: the outbox will not offer them again.

    A receipt is named by the ids of its send. After a crash the same events may come in other batches; then the
    settled ids are taken out of whatever receipts are left.
    """
    rows = connection.execute("SELECT batch, ids FROM receipt WHERE destination = ?", (batch.destination,)).fetchall()
    if not rows:
        return
    run = run_of([event.event_id for event in batch.events])
    mark = hashlib.blake2b(run, digest_size=16).digest()
    settled: set[bytes] = set()
    for name, ids in rows:
        if name == mark:
            rest: list[bytes] = []
        else:
            settled = settled or set(split_keys(run))
            held = split_keys(ids)
            rest = [key for key in held if key not in settled]
            if len(rest) == len(held):
                continue
        if rest:
            connection.execute(
                "UPDATE receipt SET ids = ? WHERE destination = ? AND batch = ?",
                (b"".join(rest), batch.destination, name),
            )
        else:
            connection.execute("DELETE FROM receipt WHERE destination = ? AND batch = ?", (batch.destination, name))
