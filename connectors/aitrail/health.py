"""How a collector is doing, as ``health`` events: pure, from what the books and the outbox say.

They are shipped like any other event, so that whoever reads the SIEM sees that a source is late, that a destination
lags, and - because they come at regular times - that silence is silence (DORA RTS 2024/1774, article 12: detect the
failure of logging systems).
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from aitrail.clock import iso_ms
from aitrail.spool.outbox import Backlog
from aitrail.spool.states import DestinationState, SourceState
from aitrail.streams import Health, HealthStatus, make_id

# Why a source is not read that is neither failing nor late.
_STATES: Mapping[str, tuple[HealthStatus, str]] = {
    "held": ("paused", "too much waits for destinations"),
    "leased": ("ok", "another collector reads it"),
}


class Vitals(Struct, frozen=True):
    """What is known at one moment.

    Attributes:
        collector: its name.
        now: epoch seconds.
        late_seconds: from when on something is late.
        sources, counters: by source.
        destinations, backlogs: by destination.
        outbox_bytes: what the outbox takes on disk.
        held: why sources are paused; empty when they are not.
        unproven: by source, objects whose integrity check failed lately (``states.unproven``).
    """

    collector: str
    now: float
    late_seconds: float
    sources: Mapping[str, SourceState]
    counters: Mapping[str, Mapping[str, int]]
    destinations: Mapping[str, DestinationState]
    backlogs: Mapping[str, Backlog]
    outbox_bytes: int = 0
    held: str = ""
    unproven: Mapping[str, int] = {}


def report(vitals: Vitals) -> list[Health]:
    """Give one event for the outbox, one per source and one per destination, in this order."""
    return [_outbox(vitals), *_sources(vitals), *_destinations(vitals)]


def _event(vitals: Vitals, kind: str, name: str, status: HealthStatus, reason: str) -> Health:
    at = iso_ms(vitals.now)
    one = make_id("health", vitals.collector, kind, name, at)
    return Health(
        event_id=one, timestamp=at, collector=vitals.collector, kind=kind, name=name, status=status, reason=reason
    )


def _outbox(vitals: Vitals) -> Health:
    event = _event(vitals, "outbox", "outbox", "paused" if vitals.held else "ok", vitals.held)
    event.backlog_bytes = vitals.outbox_bytes
    event.oldest_seconds = max((one.oldest_seconds for one in vitals.backlogs.values()), default=0.0)
    return event


def _sources(vitals: Vitals) -> Iterator[Health]:
    for name, state in sorted(vitals.sources.items()):
        counts = vitals.counters.get(name, {})
        event = _event(vitals, "source", name, *_source_status(vitals, state))
        if state.newest_event:
            event.newest_event = iso_ms(state.newest_event)
            event.lag_seconds = round(max(0.0, vitals.now - state.newest_event), 3)
        event.records = counts.get("records", 0)
        event.events = counts.get("events", 0)
        event.rejected = sum(count for one, count in counts.items() if one.startswith("rejected."))
        event.unproven = vitals.unproven.get(name, 0)
        yield event


def _source_status(vitals: Vitals, state: SourceState) -> tuple[HealthStatus, str]:
    if state.state == "waiting":
        return "failing", state.last_error
    if state.state in _STATES:
        return _STATES[state.state]
    open_for = vitals.now - state.oldest_open if state.oldest_open else 0.0
    if open_for > vitals.late_seconds:
        return "late", f"a record has not been settled for {open_for:,.0f} s"
    unread = vitals.now - state.last_success if state.last_success else 0.0
    if unread > max(vitals.late_seconds, 2 * state.interval):
        return "late", f"not read for {unread:,.0f} s"
    return "ok", ""


def _destinations(vitals: Vitals) -> Iterator[Health]:
    for name, backlog in sorted(vitals.backlogs.items()):
        state = vitals.destinations.get(name, DestinationState())
        status: HealthStatus = "ok"
        reason = state.last_error
        if state.last_error:
            status = "failing"
        elif backlog.oldest_seconds > vitals.late_seconds:
            status, reason = "late", f"an event has been waiting for {backlog.oldest_seconds:,.0f} s"
        event = _event(vitals, "destination", name, status, reason)
        event.backlog_events, event.backlog_bytes = backlog.events, backlog.bytes
        event.oldest_seconds = round(backlog.oldest_seconds, 3)
        event.delivered = state.delivered + state.duplicate
        event.rejected = state.rejected
        event.filtered = sum(counts.get(f"filtered.{name}", 0) for counts in vitals.counters.values())
        yield event
