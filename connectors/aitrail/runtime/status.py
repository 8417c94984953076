"""How a collector is doing, as one snapshot read from its store: beside a running one, or after it has ended.

``take`` opens the store for reading and changes nothing. What is wrong is said in ``Snapshot.problems``, one sentence
each: sources that fail or are late, destinations whose events wait too long, a collector that hangs.
"""

from pathlib import Path

from msgspec import Struct, field

from aitrail.clock import Clock, SystemClock
from aitrail.spool import Spool, leases, states
from aitrail.spool.spool import filtered
from aitrail.spool.states import CollectorState, DestinationState, SourceState

# A collector that has not written down that it is there for this long has died or hangs.
HEARTBEAT_LATE = 60.0
# How often in a row a source may fail before it is a problem: short outages mend themselves.
_FAILURES = 3
COLLECTOR = "collector"


class SourceStatus(Struct):
    """One source; ages and lags are seconds, None when not known. ``counts`` are since the store was made.

    Attributes:
        lag_seconds: age of the newest event.
        oldest_open_seconds: how long the oldest record that is not settled has been here.
        due_in_seconds: until the next turn; negative when it is late.
        lease_owner: who may poll it now; empty: nobody.
        attested: objects by what is known of their integrity.
    """

    name: str
    state: SourceState
    counts: dict[str, int]
    lag_seconds: float | None = None
    oldest_open_seconds: float | None = None
    due_in_seconds: float | None = None
    lease_owner: str = ""
    attested: dict[str, int] = field(default_factory=dict)

    def sum(self, prefix: str) -> int:
        """Sum the counters ``prefix`` and ``prefix.*``."""
        return sum(n for name, n in self.counts.items() if name == prefix or name.startswith(prefix + "."))


class DestinationStatus(Struct):
    """One destination: verdicts since the store was made, what waits for it, and what its condition left out."""

    name: str
    state: DestinationState
    backlog_events: int
    backlog_bytes: int
    oldest_seconds: float
    filtered: int = 0


class Snapshot(Struct):
    """A store's collector at one moment (epoch seconds)."""

    at: float
    store: str
    running: bool
    collector: CollectorState
    sources: list[SourceStatus]
    destinations: list[DestinationStatus]
    dead_letters: int
    problems: list[str] = field(default_factory=list)


def take(store: Path, clock: Clock | None = None, *, stuck_after: float = 900.0) -> Snapshot:
    """Look at a store.

    Args:
        store: its directory.
        clock: tells the time.
        stuck_after: seconds after which what waits is a problem.

    Raises:
        StoreError: there is no store, or of another version.
    """
    clock = clock or SystemClock()
    with Spool.open(store, clock, write=False) as spool:
        snapshot = of(spool, clock.now())
    snapshot.problems = problems(snapshot, stuck_after)
    return snapshot


def of(spool: Spool, now: float) -> Snapshot:
    """Look at an open store; ``problems`` is left empty."""
    database = spool.database
    collector = states.load(database, CollectorState).get(COLLECTOR, CollectorState())
    held = leases.read(database)
    counters = spool.counters()
    attested = states.attested(database)
    sources = []
    for name, state in states.load(database, SourceState).items():
        lease = held.get(name)
        sources.append(
            SourceStatus(
                name=name,
                state=state,
                counts=counters.get(name, {}),
                lag_seconds=max(0.0, now - state.newest_event) if state.newest_event else None,
                oldest_open_seconds=max(0.0, now - state.oldest_open) if state.oldest_open else None,
                due_in_seconds=state.next_due - now if state.next_due else None,
                lease_owner=lease.owner if lease is not None and lease.expires > now else "",
                attested=attested.get(name, {}),
            )
        )
    destinations = []
    for name, told in states.load(database, DestinationState).items():
        backlog = spool.backlog(name)
        left_out = sum(counts.get(filtered(name), 0) for counts in counters.values())
        destinations.append(
            DestinationStatus(name, told, backlog.events, backlog.bytes, backlog.oldest_seconds, left_out)
        )
    dead = int(database.rows("SELECT count(*) FROM dead_letter WHERE resolved IS NULL")[0][0])
    running = bool(collector.heartbeat) and not collector.stopped and abs(now - collector.heartbeat) < HEARTBEAT_LATE
    return Snapshot(now, str(database.directory), running, collector, sources, destinations, dead)


def problems(snapshot: Snapshot, stuck_after: float) -> list[str]:
    """Say what is stuck, one sentence each; empty when all is well."""
    found = []
    collector = snapshot.collector
    if collector.heartbeat and not collector.stopped and not snapshot.running:
        ago = snapshot.at - collector.heartbeat
        found.append(
            f"the collector (pid {collector.pid} on {collector.host}) has said nothing for {_span(ago)}: "
            "it has died or hangs; start it again"
        )
    for source in snapshot.sources:
        found += [f"source {source.name}: {what}" for what in _source(source, snapshot, stuck_after)]
    for destination in snapshot.destinations:
        if destination.backlog_events and destination.oldest_seconds > stuck_after:
            why = f" ({destination.state.last_error})" if destination.state.last_error else ""
            found.append(
                f"destination {destination.name}: {destination.backlog_events:,} events wait, the oldest for "
                f"{_span(destination.oldest_seconds)}{why}"
            )
    return found


def _source(source: SourceStatus, snapshot: Snapshot, stuck_after: float) -> list[str]:
    state, found = source.state, []
    failing = state.failures >= _FAILURES or (
        state.failures > 0 and snapshot.at - max(state.last_success, snapshot.collector.started) > stuck_after
    )
    if failing:
        found.append(f"has failed {state.failures} times in a row: {state.last_error}")
    if state.state == "held":
        found.append("is not read: too much waits for the destinations")
    if source.oldest_open_seconds is not None and source.oldest_open_seconds > max(stuck_after, 2 * _JOIN_SECONDS):
        found.append(f"a record has not been settled for {_span(source.oldest_open_seconds)}")
    late = -(source.due_in_seconds or 0.0)
    if snapshot.running and state.state == "idle" and state.next_due and late > max(stuck_after, state.interval):
        found.append(f"should have been read {_span(late)} ago")
    return found


# Parts of one event may wait this long for their siblings (``daemon.JOIN_SECONDS``): that is no problem yet.
_JOIN_SECONDS = 900.0


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
