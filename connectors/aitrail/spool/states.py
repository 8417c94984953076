"""What the collector knows of itself, kept beside the data so that ``aitrail status`` and ``/metrics`` read it.

Rows are JSON of the Structs below; a field that a newer aitrail adds is ignored by an older one. Times are epoch
seconds (0: never), durations are seconds. No content of a record is ever in here.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec

from aitrail.store.database import Database


class CollectorState(msgspec.Struct):
    """The process that collects, or collected last.

    Attributes:
        heartbeat: when it last said that it is there.
        stopped: when it ended in order; 0 while it runs, and after a crash.
    """

    pid: int = 0
    host: str = ""
    version: str = ""
    mode: str = ""
    started: float = 0.0
    heartbeat: float = 0.0
    stopped: float = 0.0


class SourceState(msgspec.Struct):
    """One source; what is counted is in the counters (``Spool.counters``).

    Attributes:
        state: ``idle``, ``reading``, ``waiting`` (failed, tries again), ``leased`` (another collector has it),
            ``held`` (a destination's backlog is full: not read for now).
        interval: seconds between two looks.
        newest_event: time of the newest event, as the event says; what is ahead of our clock does not count.
        newest_object: when the newest object that was read had changed last, as the source says.
        oldest_open: since when the oldest record that is not settled yet has been here; 0 when all are.
        last_success: end of the last turn that went well; ``last_error``/``error_at``: the last that did not.
        failures: how often in a row it failed.
        next_due: when it is read again.
        not_read: what the last turn left alone, and why: a path that is not there, a key outside the allowed prefix.
    """

    state: str = "idle"
    interval: float = 0.0
    newest_event: float = 0.0
    newest_object: float = 0.0
    oldest_open: float = 0.0
    last_success: float = 0.0
    last_error: str = ""
    error_at: float = 0.0
    failures: int = 0
    next_due: float = 0.0
    not_read: str = ""


class DestinationState(msgspec.Struct):
    """One destination: what its events came to, and what is in the way."""

    delivered: int = 0
    duplicate: int = 0
    rejected: int = 0
    retry: int = 0
    pending: int = 0
    last_error: str = ""
    error_at: float = 0.0
    waiting_until: float = 0.0


class Attestation(msgspec.Struct, frozen=True):
    """What is known of the integrity of one object."""

    source: str
    origin: str
    verdict: str
    at: float


# Verdicts that say that an object is not what was logged, or is gone ("unsigned" and "foreign" say that nobody knows).
FAILED = ("changed", "gap", "invalid", "mismatch", "missing")
UNPROVEN_SECONDS = 86_400.0
VERDICTS = ("delivered", "duplicate", "rejected", "retry", "pending")

T = TypeVar("T")
KINDS: Mapping[type, str] = {CollectorState: "collector", SourceState: "source", DestinationState: "destination"}


def write(connection: sqlite3.Connection, states: Iterable[tuple[str, msgspec.Struct]], now: float) -> None:
    """Write states in the caller's transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO state (kind, name, value, updated) VALUES (?, ?, ?, ?)",
        [(KINDS[type(state)], name, msgspec.json.encode(state), now) for name, state in states],
    )


def save(database: Database, states: Iterable[tuple[str, msgspec.Struct]]) -> None:
    """Write states in a transaction of their own."""
    with database.transaction() as db:
        write(db, states, database.clock.now())


def load(database: Database, kind: type[T]) -> dict[str, T]:
    """All states of one kind, by name; a row that cannot be read is left out."""
    found = {}
    rows = database.rows("SELECT name, value FROM state WHERE kind = ? ORDER BY name", (KINDS[kind],))
    for name, value in rows:
        try:
            found[str(name)] = msgspec.json.decode(value, type=kind)
        except msgspec.MsgspecError:
            continue
    return found


def forget(database: Database, kind: type, keep: Collection[str]) -> None:
    """Remove the states of one kind that are not of ``keep``: what is not configured any more is nobody's trouble."""
    with database.transaction() as db:
        for (name,) in db.execute("SELECT name FROM state WHERE kind = ?", (KINDS[kind],)).fetchall():
            if name not in keep:
                db.execute("DELETE FROM state WHERE kind = ? AND name = ?", (KINDS[kind], name))


def attest(connection: sqlite3.Connection, source: str, verdicts: Mapping[str, str], now: float) -> None:
    """Note verdicts by origin; the newest counts."""
    connection.executemany(
        "INSERT OR REPLACE INTO attestation (source, origin, verdict, at) VALUES (?, ?, ?, ?)",
        [(source, origin, verdict, now) for origin, verdict in verdicts.items()],
    )


def attestation(database: Database, origin: str) -> Attestation | None:
    """What is known of one object; None when it was never checked."""
    rows = database.rows(
        "SELECT source, origin, verdict, at FROM attestation WHERE origin = ? ORDER BY at DESC LIMIT 1", (origin,)
    )
    return Attestation(*rows[0]) if rows else None


def attested(database: Database) -> dict[str, dict[str, int]]:
    """How many objects of each source have which verdict."""
    found: dict[str, dict[str, int]] = {}
    rows = database.rows("SELECT source, verdict, count(*) FROM attestation GROUP BY 1, 2 ORDER BY 1, 2")
    for source, verdict, count in rows:
        found.setdefault(source, {})[verdict] = count
    return found


def unproven(database: Database, now: float) -> dict[str, int]:
    """How many objects of each source failed their integrity check in the last 24 hours."""
    places = ", ".join("?" * len(FAILED))
    rows = database.rows(
        f"SELECT source, count(*) FROM attestation WHERE verdict IN ({places}) AND at >= ? GROUP BY 1",  # noqa: S608
        (*FAILED, now - UNPROVEN_SECONDS),
    )
    return {str(source): int(count) for source, count in rows}
